"""``python -m dummymp``: the page about this machine, and the programs on it."""

from __future__ import annotations

import copy
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Collection
from typing import Any

import pytest

import dummymp
from dummymp import __main__ as page
from dummymp.counters import Process, Totals
from dummymp.presets import Priority
from dummymp.programs import Program, rank, top_users

TIMEOUT = 60
approx: Any = pytest.approx  # It stands for a number, but its type does not say so.
COMMAND = [sys.executable, "-m", "dummymp"]

STATUS: dict[str, Any] = {
    "version": "1.2.3",
    "cpus": {"usable": 4, "machine": 96, "limit": "the variable SLURM_CPUS_PER_TASK=4"},
    "memory": {"available": 30_000_000_000, "total": 120_000_000_000, "limit": "the memory of the machine"},
    "login_node": False,
    "measured_seconds": 0.5,
    "programs": [
        {"name": "ffmpeg", "owner": "anna", "cpus": 3.96, "processes": 2, "nice": 0},
        {"name": "R", "owner": "ben", "cpus": 0.5, "processes": 1, "nice": 0},
    ],
    "came_and_went": 0.04,
    "niceness": 0,
    "presets": [
        {
            "name": "GENEROUS",
            "nice": 15,
            "free_cpus": 0,
            "workers": 0,
            "waiting_for": "4 of 4 CPUs are used by others",
        },
        {"name": "NORMAL", "nice": 0, "free_cpus": 4, "workers": 4, "waiting_for": None},
        {"name": "NUCLEAR", "nice": 0, "free_cpus": 4, "workers": 4, "waiting_for": None},
    ],
}
PAGE = """\
dummymp 1.2.3: what this machine offers right now

CPUs     You may use 4 of 96. What sets the limit: the variable SLURM_CPUS_PER_TASK=4.
         Who uses them now (CPUs, over 0.5 seconds):
             3.96  ffmpeg (x2)              anna
             0.50  R                        ben

Memory   30.0 of 120.0 GB are free (25 %). What sets the limit: the memory of the machine.

Workers  that would run now, by priority:
              0  generous    4 of 4 CPUs are used by others
              4  normal
              4  nuclear     never looks at others
"""


def changed(**changes: Any) -> dict[str, Any]:
    """Give the status, but for what is said otherwise."""
    return {**copy.deepcopy(STATUS), **changes}


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, encoding="utf-8", timeout=TIMEOUT, **options
    )


class TestWords:
    def test_page(self) -> None:
        """The page says what we may use, who uses it, and how many workers would run."""
        assert page.text(STATUS) == PAGE

    def test_nobody(self) -> None:
        """Where nobody else is at work, it says so."""
        assert "         Nobody else uses them now.\n" in page.text(changed(programs=[], presets=STATUS["presets"][1:]))

    def test_nobody_to_be_seen(self) -> None:
        """Where others hold up a priority, it never says that there are none."""
        text = page.text(changed(programs=[]))
        assert "         Others use them now, but who that is does not show.\n" in text
        assert "Nobody else" not in text

    @pytest.mark.parametrize("programs", [[], STATUS["programs"]], ids=["none", "some"])
    def test_programs_that_came_and_went(self, programs: list[Any]) -> None:
        """What programs used that lived too shortly to be listed has a line, too."""
        text = page.text(changed(programs=programs, came_and_went=0.987))
        assert "             0.99  programs that came and went meanwhile, or are hidden from you\n" in text
        assert "Nobody else" not in text

    @pytest.mark.parametrize(
        ("nice", "ours", "note"),
        [
            (0, 0, ""),
            (-5, 0, ""),
            (10, 10, ""),
            (10, 0, " (nicer: gives way, counts only for generous)"),
            (16, 0, " (nicer: gives way, does not count)"),
            (20, 19, " (nicer: gives way, does not count)"),
        ],
    )
    def test_nicer_programs(self, nice: int, ours: int, note: str) -> None:
        """A program that is nicer than our workers is marked: otherwise the numbers below contradict the list."""
        program = {"name": "R", "owner": "ben", "cpus": 1.99, "processes": 1, "nice": nice}
        text = page.text(changed(programs=[program], niceness=ours))
        assert f"             1.99  R                        ben{note}\n" in text

    def test_unknown_memory(self) -> None:
        """Where nobody can tell how much memory there is, it says so."""
        memory = {"available": 0, "total": 0, "limit": "unknown"}
        assert "Memory   Unknown.\n" in page.text(changed(memory=memory))

    def test_considerate(self) -> None:
        """A preset that is nicer than the others says so, unless there is something more important to say."""
        presets = [{**STATUS["presets"][0], "workers": 4, "waiting_for": None}]
        assert "4  generous    very considerate: niceness +15\n" in page.text(changed(presets=presets))

    def test_login_node(self) -> None:
        """On what looks like a cluster's login node there is a hint."""
        assert "login node" not in page.text(STATUS)
        assert "put it into a job, with sbatch" in page.text(changed(login_node=True))

    def test_names_that_steer_the_terminal(self) -> None:
        """A program's name cannot clear the screen."""
        program = {"name": "\x1b[2Jevil\n", "owner": "o\rx", "cpus": 1.0, "processes": 1, "nice": 0}
        text = page.text(changed(programs=[program]))
        assert "?[2Jevil?" in text
        assert "o?x" in text
        assert "\x1b" not in text

    @pytest.mark.parametrize(
        ("encoding", "shown"), [("utf-8", "bäcker"), ("latin-1", "bäcker"), ("ascii", r"b\xe4cker")]
    )
    def test_encodings(self, monkeypatch: pytest.MonkeyPatch, encoding: str, shown: str) -> None:
        """A terminal that cannot show a letter gets a stand-in, not an error."""
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        page._write("bäcker", clear=False)
        stream.seek(0)
        assert stream.read() == shown

    def test_no_stdout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without any output, as in a program without a console, nothing happens."""
        monkeypatch.setattr(sys, "stdout", None)
        page._write("text", clear=True)


class Planted:
    """Counters of a machine with two CPUs: one process works a little, and what is gone has worked a lot."""

    shows_all_of_ours = True

    def __init__(self) -> None:
        self.now = 0.0

    def totals(self) -> Totals:
        return Totals(2, 2, None, 1.5 * self.now, 0.5 * self.now)

    def glance(self, own: Collection[int]) -> None:
        return None

    def table(self) -> dict[int, float]:
        return {os.getpid(): 0.1 * self.now, 1: 0.2 * self.now}

    def process(self, pid: int) -> Process | None:
        return Process(0, 0.0, 0, None, self.table().get(pid, 0.0), 0.0)

    def cgroup(self, pid: int) -> str:
        return ""

    def command(self, pid: int) -> str:
        return ""


def test_measured_of_those_that_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came and went is the time that the CPUs worked, less that of all who are there, ourselves included."""
    planted = Planted()
    monkeypatch.setattr(page, "system_counters", lambda: planted)
    survey = page.Survey(lambda: planted.now)
    planted.now = 2.0
    status = survey.status()
    assert status["came_and_went"] == approx(1.2)
    planted.now = 3.0
    assert survey.status()["came_and_went"] == approx(1.2)


class Interrupted:
    """Waits no time at all, and is interrupted at the third time."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)
        if len(self.waits) == 3:
            raise KeyboardInterrupt


class TestCommand:
    def test_page(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The command measures half a second, and writes one page."""
        waits: list[float] = []
        assert page.main([], wait=waits.append) == 0
        text = capsys.readouterr().out
        assert waits == [0.5]
        assert text.startswith(f"dummymp {dummymp.__version__}: what this machine offers right now\n")
        for priority in Priority:
            assert f"  {priority.name.lower()}" in text

    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        """With --json the same comes for programs, on one line."""
        assert page.main(["--json"], wait=lambda seconds: None) == 0
        text = capsys.readouterr().out
        status = json.loads(text)
        assert text.count("\n") == 1
        assert status.keys() == STATUS.keys()
        assert status["cpus"].keys() == STATUS["cpus"].keys()
        assert status["memory"].keys() == STATUS["memory"].keys()
        assert [preset.keys() for preset in status["presets"]] == [STATUS["presets"][0].keys()] * 5
        assert 1 <= status["cpus"]["usable"] <= status["cpus"]["machine"]

    def test_watch(self, capsys: pytest.CaptureFixture[str]) -> None:
        """With --watch a page comes every second, until Ctrl-C, which is a good end."""
        wait = Interrupted()
        assert page.main(["--watch"], wait=wait) == 0
        assert wait.waits == [0.5, 1.0, 1.0]
        assert capsys.readouterr().out.count("what this machine offers right now") == 2

    def test_watch_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        """With both, each line is a status."""
        assert page.main(["--watch", "--json"], wait=Interrupted()) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [json.loads(line)["version"] for line in lines] == [dummymp.__version__] * 2

    @pytest.mark.skipif(os.name == "nt", reason="the screen is not cleared there")
    def test_watch_on_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a terminal each page takes the place of the one before."""
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdout", stream)
        page.main(["--watch"], wait=Interrupted())
        assert stream.getvalue().count("\x1b[H\x1b[2Jdummymp") == 2

    def test_interrupted(self) -> None:
        """Ctrl-C while it measures ends it as it ends other commands."""

        def wait(seconds: float) -> None:
            raise KeyboardInterrupt

        assert page.main([], wait=wait) == 130

    def test_version(self) -> None:
        """--version says the version."""
        result = run("--version")
        assert (result.returncode, result.stdout) == (0, f"dummymp {dummymp.__version__}\n")

    def test_typo(self) -> None:
        """An option that does not exist is an error that says so."""
        result = run("--wach")
        assert result.returncode == 2
        assert "--wach" in result.stderr

    # It measures for half a second each time, so several run at once.

    def test_as_a_user_runs_it(self) -> None:
        """It runs in a process of its own, whatever the terminal can show."""
        processes = {}
        for encoding in ("utf-8", "ascii", "cp437"):
            env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONWARNINGS": "error"}
            processes[encoding] = subprocess.Popen(
                COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding=encoding, env=env
            )
        for encoding, process in processes.items():
            stdout, stderr = process.communicate(timeout=TIMEOUT)
            assert (process.returncode, stderr) == (0, ""), encoding
            assert "CPUs     You may use " in stdout
            assert "nuclear     never looks at others" in stdout

    def test_closed_pipe(self) -> None:
        """When nobody reads any more (``| head``), it ends without a word."""
        processes = {}
        for option in ("--json", "--watch"):
            processes[option] = process = subprocess.Popen(
                [*COMMAND, option], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            assert process.stdout is not None
            process.stdout.close()
        for option, process in processes.items():
            with process:
                assert process.stderr is not None
                assert process.stderr.read() == "", option
                assert process.wait(TIMEOUT) == 0

    @pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
    def test_ctrl_c(self) -> None:
        """Ctrl-C ends a watch with exit code 0 and without a traceback."""
        with subprocess.Popen(
            [*COMMAND, "--watch"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert "dummymp" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=TIMEOUT)
            assert (process.returncode, errors) == (0, "")


NAMES = {10: ("ffmpeg", "anna"), 11: ("ffmpeg", "anna"), 12: ("ffmpeg", "ben"), 13: ("R", "ben")}


class TestPrograms:
    def ranked(self, before: dict[int, float], after: dict[int, float], count: int = 5) -> list[Program]:
        return rank(before, after, 2.0, count=count, describe=NAMES.get)

    def test_processes_of_a_program(self) -> None:
        """Processes with the same name and owner are one program; who uses most comes first."""
        before = {10: 5.0, 11: 5.0, 12: 5.0, 13: 5.0}
        after = {10: 6.0, 11: 6.0, 12: 6.5, 13: 5.2}
        assert self.ranked(before, after) == [
            Program("ffmpeg", "anna", 1.0, 2),
            Program("ffmpeg", "ben", 0.75, 1),
            Program("R", "ben", approx(0.1), 1),
        ]
        assert len(self.ranked(before, after, count=1)) == 1

    def test_not_worth_a_line(self) -> None:
        """Who did next to nothing, has gone, or is this very process, is left out."""
        before = {10: 5.0, 12: 1.0, os.getpid(): 1.0}
        after = {10: 5.01, 13: 0.0, 14: 3.0, os.getpid(): 3.0}
        assert self.ranked(before, after) == []

    def test_newcomer(self) -> None:
        """Who came in between counts with all that it did."""
        assert self.ranked({}, {13: 1.0}) == [Program("R", "ben", 0.5, 1)]

    def test_niceness(self) -> None:
        """Processes of different niceness are different programs: some of them may count, the others not."""
        before, after = {10: 5.0, 11: 5.0}, {10: 7.0, 11: 6.0}
        nice = {10: 10, 11: 0}
        assert rank(before, after, 2.0, describe=NAMES.get, niceness=nice.__getitem__) == [
            Program("ffmpeg", "anna", 1.0, 1, 10),
            Program("ffmpeg", "anna", 0.5, 1, 0),
        ]

    def test_top_users(self) -> None:
        """It looks twice, and waits in between."""
        tables = iter([{13: 1.0}, {13: 2.0}])
        clock = iter([7.0, 9.0])
        waits: list[float] = []

        class Planted:
            def table(self) -> dict[int, float] | None:
                return next(tables)

        counters: Any = Planted()
        found = top_users(
            seconds=2.0, counters=counters, wait=waits.append, describe=NAMES.get, clock=lambda: next(clock)
        )
        assert found == [Program("R", "ben", 0.5, 1)]
        assert waits == [2.0]

    def test_this_machine(self) -> None:
        """On a real machine every program has a name and an owner."""
        for program in top_users(seconds=0.01):
            assert program.name
            assert program.owner

    @pytest.mark.parametrize(
        ("name", "command", "shown"),
        [
            ("python3", ["python3", "/home/anna/fit.py", "--fast"], "python3 fit.py"),
            ("python3", ["python3", "-u", "fit.py"], "python3 fit.py"),
            ("python3", ["python3", "-c", "print()", "x.py"], "python3"),
            ("python3", ["python3", "-c", "x.py"], "python3"),
            ("python3", ["python3", "-m", "fit"], "python3 -m fit"),
            ("python3", ["python3"], "python3"),
            ("python3", [], "python3"),
            ("vi", ["vi", "fit.py"], "vi"),
        ],
    )
    def test_script(self, name: str, command: list[str], shown: str) -> None:
        """For a Python, the script says more than the name."""
        from dummymp.programs import _with_script

        assert _with_script(name, command) == shown

"""Saying why tasks wait: in the log, behind the bar, and to those who would think that it hangs."""

from __future__ import annotations

import collections
import io
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import pytest

import dummymp
from dummymp import reasons
from dummymp.policy import Decision
from dummymp.presets import PRESETS, Priority
from dummymp.progress import show_progress
from dummymp.reasons import Reasons

Script = Callable[..., "subprocess.CompletedProcess[str]"]
FULL = "2 of 2 CPUs are used by others"


class Book:
    """What was told, by a `Reasons` whose clock a test sets."""

    def __init__(self, login_node: bool = False) -> None:
        self.time = 100.0
        self.told: list[tuple[int, str]] = []
        self.reasons = Reasons(
            lambda level, text: self.told.append((level, text)),
            clock=lambda: self.time,
            login_node=lambda: login_node,
        )
        options = SimpleNamespace(priority=PRESETS[Priority.GENEROUS])
        self.queue: Any = SimpleNamespace(waiting=collections.deque(), decision=None, told=None)
        self.queue.options = lambda: options

    def note(self, waiting: int, reason: str | None, *, running: int = 1, later: float = 0.0) -> list[tuple[int, str]]:
        """Note a decision; give what it told."""
        self.time += later
        self.queue.waiting = collections.deque(range(waiting))
        self.queue.decision = Decision(running, reason)
        before = len(self.told)
        self.reasons.note(self.queue, running)
        return self.told[before:]


@pytest.fixture(autouse=True)
def _new_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasons, "_said_login_node", False)


def test_one_line_for_each_change() -> None:
    """There is one INFO line whenever the reason changes, and none while it stays."""
    book = Book()
    assert book.note(5, FULL) == [(logging.INFO, f"5 tasks wait: {FULL}")]
    assert book.note(4, FULL) == []
    assert book.note(1, "max_processes=1") == [(logging.INFO, "1 task waits: max_processes=1")]
    assert book.note(1, None) == []
    assert book.note(1, FULL) == [(logging.INFO, f"1 task waits: {FULL}")]


def test_measuring_is_not_told() -> None:
    """That the CPUs are being measured passes within a second, and tells nobody anything."""
    book = Book()
    assert book.note(5, "measuring the CPUs (0.5 s)") == []
    assert book.note(5, FULL) == [(logging.INFO, f"5 tasks wait: {FULL}")]
    assert book.note(5, "measuring the CPUs again, before the next step") == []
    assert book.note(5, FULL) == []


def test_nothing_waits() -> None:
    """When all that was queued has started, there is nothing to explain."""
    assert Book().note(0, FULL) == []


def test_nothing_runs() -> None:
    """Where nothing can run for ten seconds a warning says why, and what to do; once."""
    book = Book()
    assert [level for level, _ in book.note(3, FULL, running=0)] == [logging.INFO]
    assert book.note(3, FULL, running=0, later=9.9) == []
    ((level, text),) = book.note(3, FULL, running=0, later=0.2)
    assert level == logging.WARNING
    assert text == (
        "nothing runs yet, after 10 s: 2 of 2 CPUs are used by others. The priority generous waits until that changes, "
        "and goes on by itself then. Who is at work now: python -m dummymp. To run one task all the same: "
        "dummymp.configure(priority='normal')"
    )
    assert book.note(3, FULL, running=0, later=100) == []


def test_something_runs() -> None:
    """As long as something runs now and then, nobody is warned."""
    book = Book()
    for _ in range(5):
        book.note(3, FULL, running=0, later=6)
        book.note(3, FULL, running=1, later=6)
    assert {level for level, _ in book.told} == {logging.INFO}


def test_login_node() -> None:
    """On what looks like a login node one hint comes with the first task, once in a program."""
    ((level, text),) = Book(login_node=True).note(0, None)
    assert level == logging.WARNING
    assert re.search("login node of a cluster.*sbatch", text)
    assert Book(login_node=True).note(0, None) == []


@pytest.mark.parametrize("job", [False, True])
@pytest.mark.skipif(os.name == "nt", reason="plants a program without an extension")
def test_login_node_for_real(script: Script, tmp_path: Path, job: bool) -> None:
    """Where Slurm can be called, a script that is not one of its jobs gets the hint, however much it does."""
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text("#!/bin/sh\n")
    sbatch.chmod(0o755)
    environ = {name: value for name, value in os.environ.items() if name != "SLURM_JOB_ID"}
    environ["PATH"] = f"{sbatch.parent}{os.pathsep}{environ['PATH']}"
    if job:
        environ["SLURM_JOB_ID"] = "4711"
    done = script(
        """
        import dummymp
        for _ in range(2):
            dummymp.run(abs, -1)
            print(dummymp.results())
            dummymp.reset()
        """,
        env=environ,
    )
    assert done.stdout == "[1]\n[1]\n"
    assert done.stderr.count("login node") == (0 if job else 1)


class TestWaitingForOthers:
    """The whole of it, with a reading that is planted: a machine that others fill, until they leave."""

    SCRIPT = """
        import logging, sys
        import dummymp
        from dummymp import reasons
        from dummymp.cpus import CpuReader, Reading

        looks = 0
        def read(self, **rules):
            global looks
            looks += 1
            free = 0 if looks < 4 else 2
            return Reading(free, 2.0 - free, 0.0, 0.5, 0.0, free)

        CpuReader.read = read
        reasons.PATIENCE = 0.0
        dummymp.configure(priority="generous", min_free_memory=0)
        dummymp.run(abs, -3)
        {before}
        dummymp.process_until_done(progress={progress})
        print(dummymp.get_returns())
        """

    def test_warning(self, script: Script) -> None:
        """A script that waits in silence says why, to people who have set up no logging at all."""
        done = script(self.SCRIPT.format(before="", progress=False), env=dict(os.environ, PYTHON_CPU_COUNT="2"))
        assert done.stdout == "{0: 3}\n"
        assert done.stderr.startswith("nothing runs yet")
        assert done.stderr.count("\n") == 1

    def test_stats_and_log(self, script: Script) -> None:
        """It is in get_stats(), and in the log at INFO."""
        before = """
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
        dummymp.step()
        stats = dummymp.get_stats()
        print(stats["waiting_for"], stats["free_cpus"], stats["allowed"], stats["queued"], stats["workers"])
        """
        done = script(self.SCRIPT.format(before=before, progress=False), env=dict(os.environ, PYTHON_CPU_COUNT="2"))
        # What others use is out of all CPUs that are ours; this machine may have one only.
        assert re.match(r"\d of \d CPUs? (is|are) used by others 0 0 1 0\n\{0: 3\}\n", done.stdout)
        assert re.search(r"^INFO dummymp 1 task waits: \d of \d CPU.* used by others$", done.stderr, re.MULTILINE)


@pytest.mark.parametrize("others", [0, 1])
def test_the_first_tasks(script: Script, others: int) -> None:
    """Where the system says that nobody else computes, the first tasks start on all CPUs; else one, until measured."""
    done = script(
        f"""
        import dummymp
        from dummymp.counters import Glance, system_counters
        type(system_counters()).glance = lambda self, own: Glance({others}, 0.0, 0.0)
        dummymp.configure(priority=dummymp.Preset("patient", window=60), min_free_memory=0)
        for number in range(4):
            dummymp.run(abs, number)
        dummymp.step()
        print(dummymp.get_stats()["allowed"], dummymp.results())
        """
    )
    allowed = 1 if others else dummymp.total_cpus()
    assert (done.stdout, done.stderr) == (f"{allowed} [0, 1, 2, 3]\n", "")


def test_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing runs, the reason stands behind the bar; when something does, it goes away."""
    pytest.importorskip("tqdm")
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    now: dict[str, Any] = {"counts": (0, 0, 4), "reason": FULL}
    with show_progress(lambda: now["counts"], lambda: now["reason"]) as update:
        update()
        assert screen.getvalue().rstrip().endswith(f"waiting: {FULL}]")
        now["counts"] = (1, 1, 4)
        update()
    assert "waiting" not in screen.getvalue().splitlines()[-1].rpartition("\r")[2]


def test_bar_is_drawn_while_nothing_ends(script: Script) -> None:
    """A bar lives also while no task ends: it is drawn anew every second."""
    pytest.importorskip("tqdm")
    done = script(
        """
        import dummymp, time
        from dummymp import progress
        progress.REFRESH_SECONDS = 0.05
        dummymp.run(time.sleep, 0.5)
        dummymp.process_until_done(progress=True)
        """
    )
    assert done.stderr.count("0/1") >= 3
    assert "1/1" in done.stderr


def test_reason_while_others_work() -> None:
    """`get_stats` gives no reason when nothing waits."""
    dummymp.run(abs, 1)
    dummymp.results()
    assert dummymp.get_stats()["waiting_for"] is None

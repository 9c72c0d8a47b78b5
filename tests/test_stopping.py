"""Ends: Ctrl-C, exits of every kind, kill() and timeouts, and that nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

TIMEOUT = 60  # seconds; reached only in a deadlock
# The contract says that all is gone within 2 s; a machine that is busy with other things gets some more.
GONE = 40.0
MARK = "DUMMYMP_TEST_MARK"

START = """\
import json, os, signal, subprocess, sys, time
import dummymp
dummymp.configure(priority="NUCLEAR")

def wait_for(name, value=None):
    while not os.path.exists(name):
        time.sleep(0.005)
    return value

def touch(name):
    open(name, "w").close()

"""


class Run:
    """A script that runs: all its processes carry a mark in their environment, so that none is overlooked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.mark = uuid.uuid4().hex
        self.env = {**os.environ, MARK: self.mark, "TMPDIR": str(self.temporary), "NO_COLOR": "1"}
        self.shared_memory = _shared_memory()
        self.process: subprocess.Popen[str] | None = None
        self.terminal = -1
        self.screen = ""

    def write(self, source: str) -> str:
        path = self.folder / "script.py"
        path.write_text(START + textwrap.dedent(source), encoding="utf-8")
        return str(path)

    def start(self, source: str) -> subprocess.Popen[str]:
        """Start a script with its output in pipes."""
        self.process = subprocess.Popen(
            [sys.executable, self.write(source)],
            cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            encoding="utf-8",
        )  # fmt: skip
        return self.process

    def start_at_terminal(self, source: str) -> subprocess.Popen[str]:
        """Start a script at a pseudo-terminal of its own, as a shell does in the foreground."""
        import pty

        self.terminal, theirs = pty.openpty()
        own = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        own += "os.execv(sys.argv[1], sys.argv[1:])"
        self.process = subprocess.Popen(
            [sys.executable, "-c", own, sys.executable, self.write(source)],
            cwd=self.folder, env=self.env, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True, text=True,
        )  # fmt: skip
        os.close(theirs)
        return self.process

    def read_until(self, text: str) -> None:
        """Read the terminal until this text has appeared."""
        until = time.monotonic() + TIMEOUT
        while text not in self.screen:
            assert time.monotonic() < until and self._read(), f"{text!r} never came: {self.screen}"

    def read_to_the_end(self) -> str:
        """Read the terminal until the script has ended."""
        assert self.process is not None
        until = time.monotonic() + TIMEOUT
        while self.process.poll() is None and time.monotonic() < until:
            self._read(0.05)
        while self._read(0.0):
            pass
        return self.screen

    def _read(self, patience: float = TIMEOUT) -> bool:
        if not select.select([self.terminal], [], [], patience)[0]:
            return False
        try:
            data = os.read(self.terminal, 1 << 16)
        except OSError:  # EIO: nobody has the terminal open any more.
            return False
        self.screen += data.decode("utf-8").replace("\r\n", "\n")
        return bool(data)

    def wait_for(self, *names: str) -> None:
        """Wait until these files are there and filled."""
        until = time.monotonic() + TIMEOUT
        for name in names:
            path = self.folder / name
            while not (path.exists() and path.stat().st_size):
                assert time.monotonic() < until, f"{name} never came"
                assert self.process is None or self.process.poll() is None, "the script has ended"
                time.sleep(0.005)

    def finish(self) -> tuple[str, str]:
        """Wait for the end; give stdout and stderr."""
        assert self.process is not None
        return self.process.communicate(timeout=TIMEOUT)

    def left(self) -> list[psutil.Process]:
        """Find what still runs of this script's processes."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def check_nothing_is_left(self) -> None:
        """Expect that no process and no file is left, soon."""
        until = time.monotonic() + GONE
        while (left := self.left()) and time.monotonic() < until:
            time.sleep(0.02)
        assert not left, [process.cmdline() for process in left]
        assert os.listdir(self.temporary) == []
        while (files := _shared_memory() - self.shared_memory) and time.monotonic() < until:
            time.sleep(0.02)
        assert not files - _used_by_others()

    def close(self) -> None:
        for process in self.left():
            process.kill()
        if self.terminal >= 0:
            os.close(self.terminal)
        if self.process is not None:
            self.process.wait(TIMEOUT)
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()


def _shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()


def _used_by_others() -> set[str]:
    """Give the names of what processes that live have from there: of the script that was run there are none."""
    found: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            found.update(re.findall(r"/dev/shm/(\S+)", maps.read_text()))
    return found


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Give the means to run one script and to see what is left of it."""
    run = Run(tmp_path)
    yield run
    run.close()


# --- Ctrl-C ------------------------------------------------------------------------------------------------------

FIFTY_SLEEPS = """
def sleep():
    print("asleep", flush=True)
    time.sleep(600)
for _ in range(50):
    dummymp.run(sleep)
dummymp.process_until_done()
"""


def test_ctrl_c_at_a_terminal(run: Run, start_method: str) -> None:
    """Ctrl-C in the middle of 50 queued sleeps: one traceback, nothing else said, and the prompt is back at once."""
    process = run.start_at_terminal(FIFTY_SLEEPS)
    run.read_until("asleep")
    os.write(run.terminal, b"\x03")
    screen = run.read_to_the_end()
    assert process.returncode == -signal.SIGINT
    after = screen.rpartition("asleep\n")[2].replace("^C", "")
    assert after.startswith("Traceback (most recent call last):\n")
    assert after.endswith("KeyboardInterrupt\n")
    assert screen.count("Traceback") == screen.count("KeyboardInterrupt\n") == 1
    assert "During handling" not in screen
    run.check_nothing_is_left()


def test_tasks_have_no_terminal(run: Run, start_method: str) -> None:
    """A program that asks at the terminal for a password fails at once; in the background it would stop for ever."""
    process = run.start_at_terminal(
        """
        import dummymp

        def ask():
            with open("/dev/tty") as terminal:
                return terminal.readline()

        dummymp.configure(priority="nuclear")
        dummymp.run(ask)
        dummymp.run(print, "went on")
        dummymp.process_until_done()
        print(repr(dummymp.get_errors()[0]))
        """
    )
    screen = run.read_to_the_end()
    assert process.returncode == 0
    assert "went on\n" in screen
    assert "OSError(6" in screen.splitlines()[-1]
    run.check_nothing_is_left()


def test_ctrl_c_while_workers_start(run: Run) -> None:
    """Ctrl-C before the first worker is up is no different: one traceback, nothing left."""
    process = run.start_at_terminal('print("on", "my way", flush=True)\n' + FIFTY_SLEEPS)
    run.read_until("on my way")
    os.write(run.terminal, b"\x03")
    screen = run.read_to_the_end()
    assert process.returncode == -signal.SIGINT
    assert screen.count("Traceback") == screen.count("KeyboardInterrupt\n") == 1
    assert "forkserver" not in screen
    run.check_nothing_is_left()


def test_a_caught_ctrl_c(run: Run) -> None:
    """Caught, Ctrl-C shows no traceback; results so far are kept, and going on runs what had not ended, each once."""
    process = run.start_at_terminal(
        """
        def work(n):
            with open("begun", "a") as file:
                file.write(f"{n}\\n")
            if n >= 2:
                wait_for("two")
                print("asleep", flush=True)
                wait_for("go")
            return n * n
        dummymp.configure(on_end=lambda completed, running, total: completed == 2 and touch("two"))
        for n in range(8):
            dummymp.run(work, n)
        try:
            dummymp.process_until_done()
        except KeyboardInterrupt:
            print("caught", dummymp.get_returns(), dummymp.get_errors())
        touch("go")
        print(dummymp.process_until_done(), list(dummymp.get_returns().values()))
        print("begun", sorted(map(int, open("begun"))))
        """
    )
    run.read_until("asleep")
    os.write(run.terminal, b"\x03")
    screen = run.read_to_the_end()
    assert process.returncode == 0, screen
    assert "caught {0: 0, 1: 1} {}" in screen
    assert "True [0, 1, 4, 9, 16, 25, 36, 49]" in screen
    assert f"begun {list(range(8))}" in screen
    assert "Traceback" not in screen
    run.check_nothing_is_left()


def test_after_a_caught_ctrl_c_all_may_be_dropped(run: Run) -> None:
    """After a caught Ctrl-C, killall() ends the rest, and the queue goes on to work."""
    process = run.start_at_terminal(
        FIFTY_SLEEPS.replace(
            "dummymp.process_until_done()",
            textwrap.dedent(
                """
                import logging
                logging.disable()
                try:
                    dummymp.process_until_done()
                except KeyboardInterrupt:
                    dummymp.killall()
                print(len(dummymp.get_errors()), {type(error).__name__ for error in dummymp.get_errors().values()})
                print(dummymp.run(pow, 2, 5).result(), dummymp.process_until_done())
                """
            ),
        )
    )
    run.read_until("asleep")
    os.write(run.terminal, b"\x03")
    screen = run.read_to_the_end()
    assert process.returncode == 0, screen
    assert "50 {'TaskKilled'}\n" in screen
    assert screen.endswith("32 True\n")
    run.check_nothing_is_left()


def test_sigint_to_the_parent_alone(run: Run) -> None:
    """The interrupt of a notebook, which only the parent gets: as Ctrl-C."""
    process = run.start('sys.stderr.write("go\\n")\n' + FIFTY_SLEEPS.replace("print(", 'touch("up"); print('))
    while not (run.folder / "up").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    stdout, stderr = run.finish()
    assert process.returncode == -signal.SIGINT
    assert set(stdout.split()) <= {"asleep"}
    assert stderr.startswith("go\nTraceback")
    assert stderr.endswith("KeyboardInterrupt\n")
    assert stderr.count("Traceback") == 1
    run.check_nothing_is_left()


@pytest.mark.parametrize(
    ("waiting", "depth"),
    [
        ("dummymp.process_until_done()", 3),
        ("list(dummymp.map(sleep, [60]))", 2),
        ("dummymp.run(sleep, 60).result()", 3),
    ],
)
def test_ctrl_c_shows_the_users_line(run: Run, waiting: str, depth: int) -> None:
    """The traceback ends soon after the user's line: the way through us is left out."""
    process = run.start(
        f"""
        def sleep(seconds):
            with open("up", "w") as file:
                file.write("up")
            time.sleep(seconds)
        dummymp.run(sleep, 60)
        {waiting}
        """
    )
    run.wait_for("up")
    process.send_signal(signal.SIGINT)
    stderr = run.finish()[1]
    assert f"    {waiting}\n" in stderr
    assert stderr.count('  File "') == 1 + depth


def test_ctrl_c_in_a_callback_shows_the_callback(run: Run) -> None:
    """Code of the user is never left out, and neither is the way to it."""
    run.start(
        """
        def tell(completed, running, total):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        dummymp.configure(on_end=tell)
        dummymp.run(abs, 1)
        dummymp.process_until_done()
        """
    )
    stderr = run.finish()[1]
    assert ", in tell\n    os.kill(" in stderr
    assert stderr.endswith("KeyboardInterrupt\n")


@pytest.mark.parametrize("caught", [False, True])
def test_ctrl_c_again_and_again(run: Run, caught: bool) -> None:
    """Further SIGINTs in the middle of the clean-up do no harm: the script ends, and nothing is left."""
    source = FIFTY_SLEEPS.replace("print(", 'touch("up"); print(')
    if caught:
        source = source.replace(
            "dummymp.process_until_done()",
            "try:\n    dummymp.process_until_done()\nexcept KeyboardInterrupt:\n    dummymp.reset()",
        )
    process = run.start(source)
    while not (run.folder / "up").exists():
        time.sleep(0.005)
    until = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < until:
        process.send_signal(signal.SIGINT)
        time.sleep(0.003)
    run.finish()
    run.check_nothing_is_left()


def test_an_own_handler_for_sigint(run: Run) -> None:
    """A script that handles SIGINT itself keeps its handler, before, while and after tasks run."""
    process = run.start(
        """
        seen = []
        def handler(number, frame):
            seen.append(number)
            touch("go")
        signal.signal(signal.SIGINT, handler)
        def work():
            with open("up", "w") as file:
                file.write("up")
            wait_for("go")
            return os.getpid()
        dummymp.run(work)
        dummymp.process_until_done()
        print(len(dummymp.get_returns()), seen == [signal.SIGINT], signal.getsignal(signal.SIGINT) is handler)
        """
    )
    run.wait_for("up")
    process.send_signal(signal.SIGINT)
    assert run.finish() == ("1 True True\n", "")


# --- the end of the script ---------------------------------------------------------------------------------------

# A task of each kind that one may leave behind: one that waits, one that spins; each has started programs in sessions
# of their own, and a daemon, as the textbook does it: fork, setsid, fork.
BUSY = """
def programs(name, spin):
    ordinary = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    own_session = subprocess.Popen(["sleep", "600"], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            with open(name + ".daemon", "w") as file:
                file.write(str(os.getpid()))
            time.sleep(600)
        os._exit(0)
    wait_for(name + ".daemon")
    with open(name + ".made", "w") as file:
        file.write(f"{ordinary.pid} {own_session.pid} {os.getpid()}")
    os.rename(name + ".made", name)
    while spin:
        pass
    time.sleep(600)
dummymp.run(programs, "one", False)
dummymp.run(programs, "two", True)
dummymp.configure(max_processes=2)
while not (os.path.exists("one") and os.path.exists("two")):
    dummymp.step(0.01)
touch("ready.made")
"""

ENDS = {
    "the end of the script": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "exception": ('raise LookupError("my own")', 1),
    "os._exit": ("os._exit(4)", 4),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", -signal.SIGTERM),
    "SIGHUP": ("os.kill(os.getpid(), signal.SIGHUP); time.sleep(60)", -signal.SIGHUP),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
}


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left_however_the_script_ends(run: Run, end: str) -> None:
    """Workers, the server, programs of tasks in sessions of their own, and their daemons are gone.

    Of tasks that ran, and were stopped by that, nothing is said.
    """
    last_line, code = ENDS[end]
    process = run.start(BUSY + last_line)
    stdout, stderr = run.finish()
    assert process.returncode == code, stderr
    assert stdout == ""
    if end == "exception":
        assert stderr.startswith("Traceback")
        assert stderr.endswith("LookupError: my own\n")
        assert stderr.count("\n") == 4
    else:
        assert stderr == ""
    assert len((run.folder / "one").read_text().split()) == 3
    run.check_nothing_is_left()


def test_nothing_is_left_after_sigkill_with_spawned_workers(run: Run) -> None:
    """The same with workers that are fresh interpreters."""
    run.env["DUMMYMP_START_METHOD"] = "spawn"
    process = run.start(BUSY + ENDS["SIGKILL"][0])
    assert run.finish() == ("", "")
    assert process.returncode == -signal.SIGKILL
    run.check_nothing_is_left()


def test_nothing_is_left_after_a_closed_terminal(run: Run) -> None:
    """Closing the terminal window ends all of it."""
    run.start_at_terminal(FIFTY_SLEEPS)
    run.read_until("asleep")
    os.close(run.terminal)
    run.terminal = -1
    run.check_nothing_is_left()


def test_a_copy_of_the_script_does_not_keep_workers_alive(run: Run) -> None:
    """Workers end with the script, even while a process that it forked itself lives on."""
    run.start(
        BUSY
        + textwrap.dedent(
            """
            copy = os.fork()
            if copy == 0:
                os.close(1)
                os.close(2)
                os.environ.clear()
                os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(300)"])
            with open("copy", "w") as file:
                file.write(str(copy))
            os._exit(0)
            """
        )
    )
    assert run.finish() == ("", "")
    copy = int((run.folder / "copy").read_text())
    try:
        run.check_nothing_is_left()
        assert psutil.pid_exists(copy)
    finally:
        os.kill(copy, signal.SIGKILL)


# --- what is said at the end -------------------------------------------------------------------------------------

FORGOTTEN = "queued but never run. Did you forget dummymp.process_until_done()?"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("dummymp.run(print, 1)", f"1 task was {FORGOTTEN}\n"),
        ("for n in range(3):\n    dummymp.run(print, n)\nsys.exit()", f"3 tasks were {FORGOTTEN}\n"),
        ("q = dummymp.TaskQueue()\nq.run(print, 1)\ndummymp.run(print, 2)", f"2 tasks were {FORGOTTEN}\n"),
        ("dummymp.run(print)\ndummymp.process_queue()", f"1 task was {FORGOTTEN}\n"),
        ("dummymp.run(abs, 1)\ndummymp.process_until_done()\ndummymp.run(abs, 2)", f"1 task was {FORGOTTEN}\n"),
        ("", ""),
        ("dummymp.run(print, 1)\ndummymp.reset()", ""),
        ("dummymp.run(print, 1)\ndummymp.kill(0)", None),
        ("dummymp.run(abs, 1)\ndummymp.process_until_done()", ""),
        ("dummymp.run(time.sleep, 60)\ndummymp.run(time.sleep, 60)\ndummymp.run(abs, 1)\n"
         "dummymp.process_until_done(timeout=0.2)",
         "2 tasks were running when the script ended, and stopped: task 0, sleep(60); task 1, sleep(60). 1 task was "
         "never run: the timeout of 0.2 s passed first. To wait for all: dummymp.process_until_done()\n"),
        ("dummymp.run(time.sleep, 60)\ndummymp.process_until_done(timeout=0.2)", ""),
        ("import logging\nlogging.basicConfig(level='INFO', format='%(message)s')\n"
         "dummymp.run(time.sleep, 60)\ndummymp.process_until_done(timeout=0.2)",
         "1 task was running when the script ended, and stopped: task 0, sleep(60). "
         "To wait for all: dummymp.process_until_done()\n"),
        ("dummymp.run(time.sleep, 60)\ndummymp.process_until_done(timeout=0.2)\ndummymp.killall()", None),
        ("dummymp.run(print, 1)\nos._exit(0)", ""),
    ],
)  # fmt: skip
def test_forgotten_tasks_are_told_once(run: Run, source: str, said: str | None) -> None:
    """Calls that were queued and never run are told in one line at the end, and with them those that were stopped."""
    process = run.start(source)
    stdout, stderr = run.finish()
    assert process.returncode == 0, stderr
    assert stdout == ""
    assert "never run" not in stderr if said is None else stderr == said


@pytest.mark.parametrize("end", ['raise LookupError("my own")', "os.kill(os.getpid(), signal.SIGINT)"])
def test_forgotten_tasks_are_not_told_after_a_crash(run: Run, end: str) -> None:
    """A script that crashed, or was stopped by Ctrl-C, has said enough."""
    run.start("dummymp.run(print, 1)\n" + end)
    stdout, stderr = run.finish()
    assert stdout == ""
    assert stderr.count("Traceback") == 1
    assert "never run" not in stderr


def test_functions_of_atexit(run: Run) -> None:
    """What a task registered with `atexit` is called at the end of its worker."""
    run.start(
        """
        def work():
            import atexit
            atexit.register(touch, "ended")
            return os.path.exists("ended")
        print(dummymp.run(work).result(), dummymp.run(work).result())
        """
    )
    assert run.finish() == ("False False\n", "")
    assert (run.folder / "ended").exists()


def test_the_end_of_a_worker_without_the_private_parts_of_python(run: Run) -> None:
    """What is not there is left out, and what fails is no reason to leave out the rest."""
    run.start(
        """
        dummymp.configure(tasks_per_worker=1)
        def work(how):
            import atexit, threading
            def fail():
                1 / 0
            if how == "gone":
                del threading._shutdown
            elif how == "fails":
                threading._shutdown = fail
            else:
                del atexit._run_exitfuncs
            atexit.register(print, "at exit after", how)
        for how in "gone", "fails", "nothing":
            dummymp.run(work, how)
        dummymp.process_until_done()
        """
    )
    stdout, stderr = run.finish()
    assert (sorted(stdout.splitlines()), stderr) == (["at exit after fails", "at exit after gone"], "")


# --- one task ----------------------------------------------------------------------------------------------------


def test_kill_ends_what_the_task_started(run: Run, start_method: str) -> None:
    """kill(task) ends the worker, its programs and daemons; other tasks are not touched, and the queue goes on."""
    run.start(
        BUSY
        + textwrap.dedent(
            """
            import logging
            logging.disable()
            import psutil
            one, two = dummymp.worker_pids()
            killed = dummymp.kill(0)
            wanted = [*map(int, open("one").read().split()), int(open("one.daemon").read())]
            def alive(pid):
                try:
                    return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
                except psutil.NoSuchProcess:
                    return False
            until = time.monotonic() + 40
            while any(map(alive, wanted)) and time.monotonic() < until:
                time.sleep(0.01)
            others = [*map(int, open("two").read().split()), int(open("two.daemon").read())]
            print(json.dumps([
                killed, any(map(alive, wanted)), all(map(alive, others)), dummymp.run(pow, 2, 5).result(),
                type(dummymp.get_errors()[0]).__name__, list(dummymp.get_errors()), dummymp.kill(0),
            ]))
            """
        )
    )
    stdout, stderr = run.finish()
    assert stderr == ""
    assert json.loads(stdout) == [True, False, True, 32, "TaskKilled", [0], False]
    run.check_nothing_is_left()


def test_timeouts_end_every_kind_of_task(run: Run, start_method: str) -> None:
    """A timeout ends a task that spins, sleeps, is in C code, ignores SIGTERM, waits for a program, or is stopped."""
    run.start(
        """
        def spin():
            while True:
                pass
        def regex():
            import re
            re.match(r"(a+)+$", "a" * 60 + "b")
        def stubborn():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                time.sleep(600)
        def program():
            subprocess.run(["sh", "-c", "trap '' TERM; while :; do sleep 600; done"])
        def stopped():
            os.kill(os.getpid(), signal.SIGSTOP)
        def catches():
            while True:
                try:
                    time.sleep(600)
                except BaseException:
                    pass
        dummymp.configure(timeout=0.3)
        tasks = [dummymp.run(func) for func in (spin, regex, stubborn, program, stopped, catches)]
        tasks.append(dummymp.run(time.sleep, 600))
        dummymp.configure(timeout=None)
        good = [dummymp.run(pow, 2, n) for n in range(4)]
        print(dummymp.process_until_done())
        for task in tasks:
            error = task.exception()
            assert type(error) is dummymp.TaskTimeout and isinstance(error, TimeoutError), error
            print(error)
        print([task.result() for task in good])
        import psutil
        until = time.monotonic() + 40
        while time.monotonic() < until:
            # The server, its workers, and nothing below them.
            below = psutil.Process().children(recursive=True)
            if len(below) <= 3 and not any("sleep" in process.name() for process in below):
                break
            time.sleep(0.02)
        print("nothing below", len(below) <= 3)
        """
    )
    stdout, stderr = run.finish()
    lines = stdout.splitlines()
    assert lines[0] == "True", stderr
    for number, name in enumerate(("spin", "regex", "stubborn", "program", "stopped", "catches", "sleep")):
        assert re.match(rf"task {number}, {name}\(.*\), .*0\.3 s", lines[1 + number])
        assert stderr.count(f"task {number}, ") == 1
    assert lines[8:] == ["[1, 2, 4, 8]", "nothing below True"]
    assert "7 of 11 tasks failed" in stderr
    run.check_nothing_is_left()


def test_the_timeout_counts_from_the_start_of_the_task(run: Run) -> None:
    """A task that waits in the queue loses nothing of its time; text before the timeout is shown."""
    run.start(
        """
        monotonic, passed = time.monotonic, 0.0
        time.monotonic = lambda: monotonic() + passed
        dummymp.configure(max_processes=1)
        def work(n):
            print("line", n)
            print("begun", n, end="", flush=n == 3)
            touch(f"{n} begun")
            wait_for(f"{n} may end")
            return n
        def pass_time_when_it_has_begun(n):
            global passed
            while not os.path.exists(f"{n} begun") or tasks[n].state != "running":
                dummymp.step(0.01)
            passed += 2000
        tasks = [dummymp.run(work, 0)]
        dummymp.configure(timeout=1000)
        for n in range(1, 4):
            tasks.append(dummymp.run(work, n))
        pass_time_when_it_has_begun(0)
        for n in range(3):
            touch(f"{n} may end")
        pass_time_when_it_has_begun(3)
        dummymp.process_until_done()
        print(list(dummymp.get_returns()), list(dummymp.get_errors()))
        """
    )
    stdout, _ = run.finish()
    assert stdout.splitlines()[-1] == "[0, 1, 2] [3]"
    assert stdout.splitlines()[:-1] == [text for n in range(4) for text in (f"line {n}", f"begun {n}")]

"""What hangs, rather than ends, where nobody would look: a start, the server, a callback, a result."""

from __future__ import annotations

import collections
import logging
import os
import signal
import subprocess
import textwrap
import threading
from pathlib import Path
from typing import Callable

import psutil
import pytest

import dummymp
from dummymp import manager, outbox, pool

Script = Callable[..., "subprocess.CompletedProcess[str]"]
START = 'import dummymp\ndummymp.configure(priority="NUCLEAR")\n'

# Hangs in the interpreters that come after the script itself, as long as the file is there.
HANGS = """
import os, subprocess, sys
if os.path.exists(os.environ["HANGS"]) and os.environ["WHERE"] in " ".join(sys.orig_argv):
    sys.stderr.write("asking the license server\\n")
    with open(os.environ["HANGS"], "a") as file:
        file.write(f"{os.getpid()}\\n")
    subprocess.run(["sleep", "600"])
"""


@pytest.mark.parametrize("where", ["dummymp.forkserver", "dummymp.worker"])
def test_workers_that_hang_while_they_start(script: Script, tmp_path: Path, where: str) -> None:
    """They are ended after a while and count as workers that do not start: one error, with what they said.

    Worth its 2 s: three starts in a row have to run into their limit.
    """
    (tmp_path / "site").mkdir()
    # Python 3.9 does not keep the whole command line; /proc does.
    source = HANGS.replace('" ".join(sys.orig_argv)', 'open("/proc/self/cmdline").read()')
    if not os.path.exists("/proc/self/cmdline"):
        pytest.skip("needs /proc")
    (tmp_path / "site" / "sitecustomize.py").write_text(source)
    hangs = tmp_path / "hangs"
    hangs.touch()
    done = script(
        START
        + textwrap.dedent(
            """
            import os, dummymp.pool
            tasks = [dummymp.run(pow, 2, n) for n in range(3)]
            dummymp.pool.START_LIMIT = 0.5
            try:
                dummymp.process_until_done()
            except dummymp.WorkersCannotStart as error:
                print(error)
            print([task.state == "done" for task in tasks])
            os.rename(os.environ["HANGS"], os.environ["HANGS"] + ".pids")
            dummymp.pool.START_LIMIT = 60
            print(dummymp.process_until_done(), list(dummymp.get_returns().values()))
            """
        ),
        env={
            **os.environ,
            "HANGS": str(hangs),
            "WHERE": where,
            "PYTHONPATH": str(tmp_path / "site"),
            "DUMMYMP_START_METHOD": "spawn",
        },
    )
    assert done.returncode == 0, done.stderr
    assert "3 in a row ended before they began a task" in done.stdout
    assert "asking the license server" in done.stdout
    assert "It was not ready after 0.5 s" in done.stdout
    assert done.stdout.splitlines()[-2:] == ["[False, False, False]", "True [1, 2, 4]"]
    assert not any(runs(int(pid)) for pid in Path(f"{hangs}.pids").read_text().split())


def servers() -> list[int]:
    """Give the process id of the server, if there is one."""
    from dummymp.manager import the_manager

    return the_manager()._pool._launcher.pids


def runs(pid: int | None) -> bool:
    """Tell whether a process lives."""
    try:
        return psutil.Process(pid or 0).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
def test_a_server_that_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is replaced when it has not started a worker for a while; what was to be killed is killed without it.

    Worth its second: a start has to run into its limit.
    """
    dummymp.configure(priority="NUCLEAR", max_processes=1)
    dummymp.run(abs, -1)
    assert dummymp.process_until_done()
    (stopped,) = servers()
    os.kill(stopped, signal.SIGSTOP)
    with dummymp.configure(timeout=0.2):
        slow = dummymp.run(signal.pause)
    after = dummymp.run(os.getpid)
    with monkeypatch.context() as shorter:
        shorter.setattr(pool, "START_LIMIT", 0.5)
        while slow.state != "failed":
            dummymp.step(0.01)
        pid = slow.pid
        while stopped in servers():
            dummymp.step(0.01)
    assert dummymp.process_until_done()
    assert isinstance(slow.exception(), dummymp.TaskTimeout)
    assert after.result() != pid
    assert not runs(pid)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
def test_a_worker_that_the_server_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timeout ends its task for certain: after a while the worker is killed without the server."""
    monkeypatch.setattr(manager, "KILL_LIMIT", 0.1)
    dummymp.configure(priority="NUCLEAR", max_processes=1)
    assert dummymp.run(abs, -1).result() == 1
    for pid in servers():
        os.kill(pid, signal.SIGSTOP)
    slow = dummymp.run(signal.pause)
    while not slow.pid:
        dummymp.step(0.01)
    slow.kill()
    waiting = dummymp.run(abs, -2)
    while runs(slow.pid):
        dummymp.step(0.01)
    for pid in servers():
        os.kill(pid, signal.SIGCONT)
    assert waiting.result() == 2


def test_the_program_ends_in_time_with_a_server_that_was_stopped(script: Script, tmp_path: Path) -> None:
    """What its workers started is ended all the same. Worth its 2 s: the server is given that time to answer."""
    done = script(
        START
        + textwrap.dedent(
            """
            import os, signal, subprocess, time
            from dummymp.manager import the_manager
            def leave():
                with open("pid", "w") as file:
                    file.write(str(subprocess.Popen(["sleep", "600"], start_new_session=True).pid))
            dummymp.run(leave).result()
            for pid in the_manager()._pool._launcher.pids:
                os.kill(pid, signal.SIGSTOP)
            """
        )
    )
    assert done.returncode == 0, done.stderr
    assert not runs(int((tmp_path / "pid").read_text()))


def test_a_default_timeout_of_sockets_is_not_ours(script: Script) -> None:
    """socket.setdefaulttimeout() in the script, which is meant for its downloads, does not end workers."""
    done = script(
        "import socket\nsocket.setdefaulttimeout(0.001)\n"
        + START
        + "import time\nfor n in range(4): dummymp.run(time.sleep, 0.05)\n"
        + "print(dummymp.process_until_done(), len(dummymp.get_returns()))"
    )
    assert (done.stdout, done.stderr) == ("True 4\n", "")


def test_entries_of_sys_path_that_are_no_text(script: Script) -> None:
    """Python itself ignores them, too."""
    odd = "import sys, pathlib\nsys.path += [pathlib.Path('/x'), 7]\n"
    done = script(odd + START + "print(dummymp.run(abs, -3).result())")
    assert (done.stdout, done.stderr) == ("3\n", "")


# --- code of the user in odd places ------------------------------------------------------------------------------


def test_a_callback_that_waits_for_a_thread_that_drives(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread takes note of what has ended without calling back, so both go on."""
    monkeypatch.setattr(outbox, "PATIENCE", 0.05)
    other = dummymp.TaskQueue(priority="NUCLEAR", max_processes=2)

    def drive() -> None:
        other.run(abs, -2)
        other.process_until_done()

    def end(*counts: int) -> None:
        thread = threading.Thread(target=drive)
        thread.start()
        thread.join()
        seen.append(other.get_returns())

    seen: list[dict[int, int]] = []
    dummymp.configure(priority="NUCLEAR", max_processes=2, on_end=end)
    dummymp.run(abs, -1)
    assert dummymp.process_until_done()
    assert seen == [{0: 2}]


def test_a_result_that_calls_us_when_it_is_rebuilt(script: Script) -> None:
    """Its class may queue calls, ask, and drive, from its own thread or another: nothing is lost or waits."""
    done = script(
        START
        + textwrap.dedent(
            """
            import threading
            dummymp.configure(max_processes=2)
            class Busy:
                def __init__(self, n):
                    self.n = n
                def __setstate__(self, state):
                    self.__dict__ = state
                    if threading.current_thread() is threading.main_thread() and in_parent:
                        thread = threading.Thread(target=dummymp.run, args=(abs, -self.n))
                        thread.start()
                        thread.join()
                        dummymp.run(abs, -100 - self.n)
                        dummymp.step()
                        dummymp.get_stats()
            in_parent = False
            for n in range(20):
                dummymp.run(Busy, n)
            in_parent = True
            done = dummymp.process_until_done()
            values = dummymp.get_returns().values()
            print(done, len(values), sorted(v.n for v in values if isinstance(v, Busy)) == list(range(20)))
            print(dummymp.get_errors(), dummymp.get_stats()["running"])
            """
        )
    )
    assert (done.stdout, done.stderr) == ("True 60 True\n{} 0\n", "")


def test_ctrl_c_while_a_result_is_rebuilt(script: Script) -> None:
    """It comes through, however long that takes, and the result is rebuilt when the queue is driven again."""
    done = script(
        START
        + textwrap.dedent(
            """
            import os, signal
            class Slow:
                def __init__(self):
                    self.tries = 0
                def __setstate__(self, state):
                    self.__dict__ = state
                    if tries is not None:
                        tries.append(1)
                        if len(tries) == 1:
                            os.kill(os.getpid(), signal.SIGINT)
                            while True:
                                pass
            tries = None
            task = dummymp.run(Slow)
            tries = []
            try:
                dummymp.process_until_done()
            except KeyboardInterrupt:
                print("interrupted", task.state == "done")
            print(dummymp.process_until_done(), type(task.result()) is Slow, len(tries), task.attempts)
            """
        )
    )
    assert (done.stdout, done.stderr) == ("interrupted False\nTrue True 2 1\n", "")


# --- much to say, both ways --------------------------------------------------------------------------------------


def shout(data: bytes, lines: int) -> bytes:
    """Return a lot, and print and log a lot before."""
    for number in range(lines):
        print("printed", number)
        os.write(1, b"written\n")
        logging.getLogger("shout").warning("logged %d", number)
    return data[::-1]


def test_pipes_full_both_ways(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    """Large arguments, large results and thousands of lines at the same time: nobody waits for the other, none is lost.

    Worth its 2 s: the pipes have to be full all the time.
    """
    dummymp.configure(priority="NUCLEAR", max_processes=3)
    data = os.urandom(30_000_000)
    large = [dummymp.run(shout, data, 1000) for _ in range(3)]
    small = [dummymp.run(divmod, number, 3) for number in range(50)]
    assert dummymp.process_until_done()
    assert all(task.result() == data[::-1] for task in large)
    assert [task.result() for task in small] == [divmod(number, 3) for number in range(50)]
    lines = collections.Counter(capfd.readouterr().out.splitlines())
    assert lines == {"written": 3000, **{f"printed {number}": 3 for number in range(1000)}}
    assert sum(record.name == "shout" for record in caplog.records) == 3000

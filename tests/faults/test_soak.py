"""All faults at once, at random moments; and what must not happen over a long time, in short."""

from __future__ import annotations

import collections
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Callable

import pytest

import dummymp

HERE = Path(__file__).parent
TIMEOUT = 300  # seconds; reached only in a deadlock
# How long the soak goes on, seed after seed. 0: one seed, which is what the suite has time for; CI sets 60.
SECONDS = os.environ.get("DUMMYMP_SOAK_SECONDS", "0")


def soak(*args: str) -> str:
    """Run the soak as a script; give what it said, and fail with it where it found something."""
    command = [sys.executable, str(HERE / "soak.py"), "--seconds", SECONDS, *args]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=TIMEOUT + 2 * float(SECONDS),
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# A worker of its own interpreter costs ten times as much as a forked one.
MANY = {"forkserver": 400, "spawn": 150}


def test_every_promise_holds_under_all_faults_at_once(start_method: str) -> None:
    """No task is lost or begun twice, the right one is blamed, no line is lost, and nothing is left behind."""
    assert " 0 problems" in soak("--tasks", str(MANY[start_method]))


def test_every_promise_holds_under_ctrl_c_all_the_time(start_method: str) -> None:
    """A KeyboardInterrupt at any moment leaves nothing half done."""
    assert " 0 problems" in soak("--tasks", str(MANY[start_method] // 4), "--interrupts")


def make_append_number(every: int) -> Callable[[str, int], None]:
    """Make a task that travels by value: a worker need not import this module, and pytest with it."""

    def append_number(path: str, number: int) -> None:
        """Note that it has begun; some end their worker then."""
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, b"%d\n" % number)
        os.close(fd)
        if number % every == every - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    return append_number


def test_4000_tasks_of_which_some_kill_their_worker_begin_once_each(tmp_path: Path, start_method: str) -> None:
    """Most of them are sent ahead to workers that die under another one: they are begun elsewhere, and never twice."""
    every = {"forkserver": 97, "spawn": 401}[start_method]

    append_number = make_append_number(every)
    path = tmp_path / "numbers"
    dummymp.configure(priority="NUCLEAR", max_processes=2)
    tasks = [dummymp.run(append_number, str(path), number) for number in range(4000)]
    dummymp.process_until_done()
    numbers = collections.Counter(map(int, path.read_text().split()))
    assert numbers == dict.fromkeys(range(4000), 1)
    errors = dummymp.get_errors()
    assert list(errors) == [number for number in range(4000) if number % every == every - 1]
    assert {error.signal for error in errors.values() if isinstance(error, dummymp.WorkerDied)} == {"SIGKILL"}
    assert dummymp.get_returns() == {number: None for number in range(4000) if number not in errors}
    assert {task.attempts for task in tasks} == {1}


def test_what_was_lost_in_a_queue_is_no_attempt(tmp_path: Path, start_method: str) -> None:
    """Only the task that ran when its worker died is tried again; those behind it had not begun."""
    path = tmp_path / "numbers"
    append_number = make_append_number(97)
    dummymp.configure(priority="NUCLEAR", max_processes=2, retries=2)
    tasks = [dummymp.run(append_number, str(path), number) for number in range(300)]
    dummymp.process_until_done()
    numbers = collections.Counter(map(int, path.read_text().split()))
    assert numbers == {number: 3 if number % 97 == 96 else 1 for number in range(300)}
    assert [task.attempts for task in tasks] == [numbers[number] for number in range(300)]


def test_descriptors_memory_and_processes_do_not_grow(tmp_path: Path) -> None:
    """The short form of benchmarks/soak.py: the second half of a run needs no more than the first did."""
    source = HERE.parent.parent / "benchmarks" / "soak.py"
    if not source.exists() or not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc, and the repository")
    command = [sys.executable, str(source), "--tasks", "1000", "--resets", "8", "--deaths", "8", "--check"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT
    )
    assert done.returncode == 0, done.stdout + done.stderr

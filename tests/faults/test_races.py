"""Races that the soak found, each made certain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import pytest

import dummymp
from dummymp.handle import WorkerHandle

Script = Callable[..., "subprocess.CompletedProcess[str]"]
START = 'import dummymp\ndummymp.configure(priority="NUCLEAR")\n'

needs_pidfd = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd_open, Linux")


def maybe_slow(marks: str, number: int) -> int:
    """Be over at once, so that it is sent ahead; number 5 keeps C code busy, so that nothing can be called back."""
    import re

    Path(marks, str(number)).touch(exist_ok=False)
    if number == 5:
        re.match(r"(a+)+$", "a" * 60 + "b")
    return number


@pytest.fixture
def behind_c_code(tmp_path: Path) -> tuple[list[dummymp.Task[int]], Path]:
    """Queue quick calls, of which one hangs in C code, and drive until that one runs with others behind it."""
    dummymp.configure(priority="NUCLEAR", max_processes=1)
    marks = tmp_path / "marks"
    marks.mkdir()
    tasks = [dummymp.run(maybe_slow, str(marks), number) for number in range(5)]
    dummymp.process_until_done()  # Now it is known how long they take.
    tasks += [dummymp.run(maybe_slow, str(marks), number) for number in range(5, 12)]
    while not (marks / "5").exists():
        dummymp.step(0.001)
    return tasks, marks


def test_killing_a_task_behind_c_code_kills_that_one(behind_c_code: tuple[list[dummymp.Task[int]], Path]) -> None:
    """It cannot be called back, but it is not the running task that is stopped for it, and it never begins."""
    tasks, marks = behind_c_code
    assert tasks[8].kill() and tasks[8].done()
    assert tasks[5].state == "running"
    assert tasks[5].kill()
    dummymp.process_until_done()
    assert isinstance(tasks[5].exception(), dummymp.TaskKilled)
    assert isinstance(tasks[8].exception(), dummymp.TaskKilled)
    assert sorted(dummymp.get_returns()) == [0, 1, 2, 3, 4, 6, 7, 9, 10, 11]
    assert not (marks / "8").exists()


def test_what_waits_behind_c_code_is_dropped_by_killall(behind_c_code: tuple[list[dummymp.Task[int]], Path]) -> None:
    """Killing all ends those, too, that could not be called back."""
    tasks, marks = behind_c_code
    dummymp.killall()
    assert all(task.done() for task in tasks)
    assert all(isinstance(task.exception(), dummymp.TaskKilled) for task in tasks[5:])
    assert dummymp.process_until_done()
    assert not (marks / "6").exists()


def test_callbacks_that_kill_do_not_pile_up() -> None:
    """Each callback kills the next task, whose end is another callback: a thousand of them are no recursion."""
    ended = 0

    def end(*counts: int) -> None:
        nonlocal ended
        ended += 1
        if ended < len(tasks):
            dummymp.kill(tasks[ended])

    dummymp.configure(priority="NUCLEAR", max_processes=1, on_end=end)
    tasks: list[dummymp.Task[None]] = []
    for _ in range(1500):
        tasks.append(dummymp.run(time.sleep, 0))
    dummymp.process_until_done()
    assert len(dummymp.get_returns()) + len(dummymp.get_errors()) == len(tasks)


def die_beside_a_copy() -> None:
    """Leave a copy that holds our connection open, and die when there is no server any more."""
    server = os.getppid()
    if not os.fork():
        time.sleep(1000)
        os._exit(0)
    os.kill(server, signal.SIGKILL)
    while os.getppid() == server:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)


@needs_pidfd
def test_the_end_of_a_worker_is_seen_without_a_server_and_with_a_copy_of_it_alive(start_method: str) -> None:
    """Its connection does not close, and nobody tells: the system does."""
    dummymp.configure(priority="NUCLEAR", max_processes=1)
    task = dummymp.run(die_beside_a_copy)
    dummymp.run(divmod, 7, 2)
    assert dummymp.process_until_done(timeout=60)
    assert isinstance(task.exception(), dummymp.WorkerDied)
    assert dummymp.get_returns() == {1: (3, 1)}


def test_large_functions_are_not_sent_behind_a_slow_task() -> None:
    """A worker cannot give back what it has read by half, so such things wait here."""
    from dummymp.feeding import AHEAD_BYTES
    from dummymp.manager import the_manager

    def make(number: int) -> Callable[[float], int]:
        data = bytes([number]) * (10 * AHEAD_BYTES)

        def work(seconds: float) -> int:
            time.sleep(seconds)
            return len(data)

        return work

    dummymp.configure(priority="NUCLEAR", max_processes=1)
    for number in range(3):
        dummymp.run(make(number), 0)
    dummymp.process_until_done()
    tasks = [dummymp.run(make(number), 0.2) for number in range(3)]
    while tasks[0].state == "queued":
        dummymp.step(0.001)
    assert [len(handle.assigned) for handle in the_manager()._pool.handles.values()] == [1]
    dummymp.process_until_done()


def wait_a_little(data: object) -> None:
    time.sleep(0.001)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no naps")
def test_no_nap_while_a_large_argument_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written only while somebody is awake, however much the workers have to do."""
    from dummymp.manager import the_manager

    dummymp.configure(priority="NUCLEAR", max_processes=1)
    for number in range(10):
        dummymp.run(wait_a_little, number)
    dummymp.process_until_done()  # Now it is known how long they take.
    pool = the_manager()._pool
    nap, left = pool.selector.nap, []

    def look_and_nap(seconds: float) -> None:
        left.extend(len(handle.channel.outgoing) for handle in pool.handles.values())
        nap(seconds)

    monkeypatch.setattr(pool.selector, "nap", look_and_nap)
    large = list(range(10**6, 2 * 10**6))
    for number in range(60):
        dummymp.run(wait_a_little, number if number % 12 else large)
    dummymp.process_until_done()
    assert not any(left)


@pytest.mark.skipif(sys.platform == "win32", reason="needs os.kill")
def test_ctrl_c_while_queueing_leaves_no_half_queued_task(script: Script) -> None:
    """A call is queued or it is not, whenever the KeyboardInterrupt comes."""
    done = script(
        START
        + """
import os, signal, threading, time

armed, hits, over = False, 0, threading.Event()

def on_interrupt(number, frame):
    global hits
    if armed:
        hits += 1
        raise KeyboardInterrupt

def press():
    while not over.wait(0.0005):
        os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, on_interrupt)
threading.Thread(target=press).start()
while hits < 500:
    try:
        armed = True
        for number in range(30):
            dummymp.run(divmod, number, 3)
        dummymp.process_until_done(timeout=0.01)
    except KeyboardInterrupt:
        pass
    finally:
        armed = False
over.set()
print(dummymp.process_until_done(timeout=50))
stats = dummymp.get_stats()
print(stats["queued"], stats["running"], stats["done"] == len(dummymp.get_returns()), dummymp.get_errors())
print(list(dummymp.get_returns()) == list(range(stats["done"])), signal.getsignal(signal.SIGINT) is on_interrupt)
"""
    )
    assert done.stdout == "True\n0 0 True {}\nTrue True\n", done.stdout + done.stderr


def switch_threads_often(number: int) -> int:
    """Let the worker's other thread, which gives back, come in between any two steps of the one that runs tasks."""
    sys.setswitchinterval(1e-6)
    return number


def test_counts_hold_when_tasks_are_called_back_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What callbacks are told agrees with what they were told before, however often a worker is asked to give back."""
    monkeypatch.setattr("dummymp.feeding.CALL_BACK_AFTER", 0.0)
    started = ended = 0
    wrong = []

    def start(completed: int, running: int, total: int) -> None:
        nonlocal started
        started += 1
        if (completed, running) != (ended, started - ended):
            wrong.append((completed, running, ended, started))

    def end(completed: int, running: int, total: int) -> None:
        nonlocal ended
        ended += 1
        if (completed, running) != (ended, started - ended):
            wrong.append((completed, running, ended, started))

    dummymp.configure(priority="NUCLEAR", max_processes=2, on_start=start, on_end=end)
    for number in range(3000):
        dummymp.run(switch_threads_often, number)
    dummymp.process_until_done()
    assert (started, ended, wrong) == (3000, 3000, [])
    assert list(dummymp.get_returns()) == list(range(3000))


def test_what_waits_behind_a_slow_task_does_not_travel_to_and_fro(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short tasks behind one that turned out slow are called back once, and then wait where they are."""
    calls = []
    call_back = WorkerHandle.call_back

    def count(handle: WorkerHandle) -> None:
        calls.append(handle.number)
        call_back(handle)

    monkeypatch.setattr(WorkerHandle, "call_back", count)
    dummymp.configure(priority="NUCLEAR", max_processes=1)
    for _ in range(20):
        dummymp.run(time.sleep, 0)
    dummymp.process_until_done()
    calls.clear()
    dummymp.run(time.sleep, 0.3)  # known as short
    for _ in range(500):
        dummymp.run(time.sleep, 0)
    dummymp.process_until_done()
    assert len(calls) <= 20  # It was hundreds.
    assert len(dummymp.get_returns()) == 521

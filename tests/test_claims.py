"""What waits in a worker that cannot answer, because C code keeps its threads from running or because it is stopped."""

from __future__ import annotations

import collections
import ctypes
import os
import signal
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from conftest import TIMEOUT

import dummymp
from dummymp import intake, pool
from dummymp.handle import WorkerHandle
from dummymp.manager import the_manager
from dummymp.pace import Pace
from dummymp.transport import CUT, CUT_HEAD, DECLINED, ENDED_HEAD, RETURNED, U64

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing is sent ahead there")

SLOW = 700


@pytest.fixture(autouse=True)
def _two_workers() -> None:
    dummymp.configure(priority="NUCLEAR", max_processes=2)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def note(pipe: str, n: int, data: bytes = b"") -> int:
    """Note that item n began; the slow one then holds the interpreter's lock until somebody writes to the pipe."""
    with open(pipe + ".begun", "a") as file:
        file.write(f"{n}\n")
    if n == SLOW:
        fd = os.open(pipe, os.O_RDWR)
        ctypes.PyDLL(None).read(fd, ctypes.create_string_buffer(1), 1)
        os.close(fd)
    return n


def stop(pipe: str, n: int, data: bytes = b"") -> int:
    """Note that item n began; the slow one then stops its whole process."""
    with open(pipe + ".begun", "a") as file:
        file.write(f"{n}\n")
    if n == SLOW:
        os.kill(os.getpid(), signal.SIGSTOP)
    return n


def let_go(pipe: Path) -> None:
    fd = os.open(pipe, os.O_RDWR)
    os.write(fd, b"x")
    os.close(fd)


def begun(pipe: Path) -> collections.Counter[int]:
    return collections.Counter(map(int, Path(f"{pipe}.begun").read_text().split()))


@pytest.mark.parametrize("func", [note, stop])
def test_calls_behind_it_go_to_others(func: object, pipe: Path, start_method: str) -> None:
    """Each begins once, the large ones too, and the worker serves again when it is free."""
    for n in range(100):
        dummymp.run(func, str(pipe), n)  # type: ignore[arg-type]
    dummymp.process_until_done()
    tasks = []
    for n in range(100, 2000):
        data = bytes(1_500_000) if n in (SLOW + 1, SLOW + 20) else b""
        tasks.append(dummymp.run(func, str(pipe), n, data))  # type: ignore[arg-type]
    slow = tasks[SLOW - 100]
    for task in tasks:
        if task is not slow:
            task.result(timeout=TIMEOUT)
    assert not slow.done() and slow.pid is not None
    if func is note:
        let_go(pipe)
    else:
        os.kill(slow.pid, signal.SIGCONT)
    assert slow.result(timeout=TIMEOUT) == SLOW
    for n in range(2000, 2500):
        dummymp.run(func, str(pipe), n)  # type: ignore[arg-type]
    assert dummymp.results() == list(range(2500))
    assert begun(pipe) == collections.Counter(range(2500))
    assert dummymp.get_stats()["running"] == 0 and dummymp.get_stats()["workers"] == 2


def test_items_behind_it_go_to_others(pipe: Path) -> None:
    """Each begins once: those of the same chunk, and those of the next."""
    found = set()
    for n in dummymp.map(note, [str(pipe)] * 3000, range(3000), ordered=False):
        found.add(n)
        if len(found) == 2999:
            assert SLOW not in found
            let_go(pipe)
    assert found == set(range(3000)) and begun(pipe) == collections.Counter(range(3000))


def test_it_is_killed(pipe: Path) -> None:
    """What had been taken from it is not lost, and nothing begins twice."""
    for n in range(100):
        dummymp.run(note, str(pipe), n)
    dummymp.process_until_done()
    tasks = [dummymp.run(note, str(pipe), n) for n in range(100, 2000)]
    for task in tasks:
        if task.index != SLOW:
            task.result(timeout=TIMEOUT)
    assert tasks[SLOW - 100].kill()
    assert dummymp.process_until_done() and list(dummymp.get_errors()) == [SLOW]
    dummymp.run(note, str(pipe), 2000)
    dummymp.process_until_done()
    assert begun(pipe) == collections.Counter(range(2001))


def stop_between(pipe: str, n: int) -> int:
    """Note that item n began; after the slow one, before the next begins, the whole process stops."""
    with open(pipe + ".begun", "a") as file:
        file.write(f"{n}\n")
    if n == SLOW:
        stop_before_next()
    return n


def stop_before_next() -> None:
    """Let this worker stop itself when it looks for its next task."""
    channel = sys.stdout._channel  # type: ignore[union-attr]

    def receive() -> object:
        del channel.receive
        os.kill(os.getpid(), signal.SIGSTOP)
        return channel.receive()

    channel.receive = receive


def test_it_is_stopped_between_two_tasks(pipe: Path) -> None:
    """All but the very next one go to others, and that begins once, too."""
    for n in range(100):
        dummymp.run(stop_between, str(pipe), n)
    dummymp.process_until_done()
    tasks = [dummymp.run(stop_between, str(pipe), n) for n in range(100, 2000)]
    until = time.monotonic() + TIMEOUT
    while len(dummymp.get_returns()) < 1999 and time.monotonic() < until:
        dummymp.step(0.1)
    assert len(dummymp.get_returns()) >= 1999
    pid = tasks[SLOW - 100].pid
    assert pid is not None
    os.kill(pid, signal.SIGCONT)
    assert dummymp.results() == list(range(2000))
    assert begun(pipe) == collections.Counter(range(2000))


def note_then_stop(pipe: str, n: int) -> int:
    """Do as `note`; the slow one stops the whole process when it has ended, and nobody answers before that."""
    if n == SLOW:
        stop_before_next()
        sys.stdout._channel.take_back = threading.Event().wait  # type: ignore[union-attr]
    return note(pipe, n)


def test_it_is_stopped_before_it_gives_back(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no task whose timeout would end it; it is ended all the same, and another one takes its place."""
    monkeypatch.setattr(intake, "GIVE_BACK_LIMIT", 0.1)
    dummymp.configure(max_processes=1, timeout=TIMEOUT)
    for n in range(100):
        dummymp.run(note_then_stop, str(pipe), n)
    dummymp.process_until_done()
    for n in range(100, 2000):
        dummymp.run(note_then_stop, str(pipe), n)
    until = time.monotonic() + TIMEOUT
    while not any(handle.revoked for handle in the_manager()._pool.handles.values()) and time.monotonic() < until:
        dummymp.step(0.01)
    let_go(pipe)
    assert dummymp.results() == list(range(2000))
    assert begun(pipe) == collections.Counter(range(2000))
    assert dummymp.get_stats()["running"] == 0


def test_an_answer_out_of_turn_is_not_lost() -> None:
    """Both threads of a worker gave back at once: one task was sent anew and ended before the other thread told."""

    def task_of(number: int) -> Any:
        return types.SimpleNamespace(index=number, attempts=1, _function=types.SimpleNamespace(pace=Pace()))

    tasks = [task_of(number) for number in (3, 4, 2)]
    handle: Any = types.SimpleNamespace(
        assigned=collections.deque(tasks), dropped=set(), begun=tasks[2], pid=1, answered=0
    )
    intake_of_none: Any = intake.Intake.__new__(intake.Intake)
    assert intake_of_none._take_off(handle, [ENDED_HEAD.pack(2, 0.1), ENDED_HEAD.pack(9, 0.1)]) == [tasks[2], None]
    assert list(handle.assigned) == tasks[:2] and handle.answered == 1


def test_workers_that_are_about_to_end_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that tasks left behind keep them; no others are started meanwhile."""
    monkeypatch.setattr(pool, "MOST_LEAVING", 2)
    monkeypatch.setattr(pool, "RETIRE_LIMIT", 0.1)
    dummymp.configure(tasks_per_worker=1)
    most = 0
    for _ in range(30):
        dummymp.run(leave_a_thread)
    while not dummymp.step(1):
        most = max(most, len(the_manager()._pool.handles))
    assert len(dummymp.get_returns()) == 30 and most <= 2 + 2 * 2 + 2


def leave_a_thread() -> None:
    threading.Thread(target=time.sleep, args=(TIMEOUT,)).start()


def test_a_worker_without_a_page_leaves() -> None:
    """It has not begun what was sent to it in that very moment: that goes to another one, and is not blamed."""
    options = types.SimpleNamespace(tasks_per_worker=None, log_prefix="")
    engine: Any = types.SimpleNamespace(waiting=collections.deque(), running=1, options=lambda: options)
    task = mock.Mock(attempts=1)
    handle: Any = types.SimpleNamespace(
        assigned=collections.deque([task]), dropped=set(), begun=task, stopped=False, page=None, engine=engine,
        retiring=False, answered=3, had_begun=lambda: True,
    )  # fmt: skip
    left: list[Any] = []
    workers: Any = types.SimpleNamespace(leaves=left.append)
    outbox: Any = types.SimpleNamespace(post=lambda *args: None)
    engine.requeued = None
    intake.Intake(workers, outbox, threading.RLock(), lambda: None)._take_leave(handle)
    assert list(engine.waiting) == [task] and task.attempts == 0 and engine.running == 0
    assert left == [handle] and handle.engine is None


def test_it_is_killed_at_once(pipe: Path) -> None:
    """What waits behind it is taken from it first: it cannot begin the next one, and be blamed on that, as it ends."""
    for n in range(100):
        dummymp.run(note, str(pipe), n)
    dummymp.process_until_done()
    tasks = [dummymp.run(note, str(pipe), n) for n in range(100, 2000)]
    until = time.monotonic() + TIMEOUT
    while SLOW not in begun(pipe) and time.monotonic() < until:
        dummymp.step(0.001)
    assert tasks[SLOW - 100].kill()
    workers = the_manager()._pool.handles.values()
    assert not any(handle.assigned for handle in workers if handle.stopped)
    assert dummymp.process_until_done() and list(dummymp.get_errors()) == [SLOW]
    assert begun(pipe) == collections.Counter(range(2000))


def test_a_chunk_that_was_cut_is_not_gone_on_with() -> None:
    """An answer to an earlier call back, which knows nothing of the chunk, does not let its worker go on with it."""
    chunk = mock.Mock(index=73)
    chunk._chunk = chunk
    chunk.running.return_value = 78
    handle = mock.Mock(
        assigned=collections.deque([chunk]), revoked=set(), begun=chunk, dropped=set(), claimed=True, cutting=False,
        calling_back=True, answered=0,
    )  # fmt: skip
    handle.let_go_on = lambda: WorkerHandle.let_go_on(handle)
    taking = intake.Intake(mock.Mock(), mock.Mock(), threading.RLock(), lambda: None)
    taking.take_away(handle)
    taking._take(handle, RETURNED, b"")
    assert handle.claimed
    taking._take_part(handle, CUT, CUT_HEAD.pack(73, 79))
    assert not handle.claimed


def returning(tasks: list[Any], message: int, *numbers: int) -> tuple[Any, Any]:
    """Let a worker that was called back, and has begun none of its tasks, return some; give it and its queue."""
    engine = mock.Mock(waiting=collections.deque())
    handle = mock.Mock(
        assigned=collections.deque(tasks), revoked={9}, begun=tasks[0], dropped=set(), claimed=False, cutting=False,
        calling_back=True, answered=0, engine=engine, stopped=False, retiring=False,
    )  # fmt: skip
    taking = intake.Intake(mock.Mock(), mock.Mock(), threading.RLock(), lambda: None)
    taking._take(handle, message, b"".join(map(U64.pack, numbers)))
    return handle, engine


def test_a_task_that_was_thought_to_begin_is_not_counted_when_others_come_first() -> None:
    """It was counted twice: when it was sent, and when it came to be the first again."""
    tasks = [mock.Mock(index=number, attempts=number == 1) for number in (1, 2, 3)]
    handle, engine = returning(tasks, RETURNED, 1)
    assert list(engine.waiting) == tasks[:1] and list(handle.assigned) == tasks[1:]
    assert [task.attempts for task in tasks] == [0, 1, 0] and handle.begun is tasks[1]


def test_what_is_declined_is_not_the_answer_to_a_call_back() -> None:
    """The other thread of the worker has still to answer. What is sent before that it may give back, or not."""
    task = mock.Mock(index=1, attempts=1)
    declined, _ = returning([task], DECLINED, 1)
    answered, _ = returning([task], RETURNED, 1)
    assert (declined.calling_back, answered.calling_back) == (True, False)

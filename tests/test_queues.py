# SPDX-License-Identifier: MIT
"""Several queues, several threads, and the progress bar."""

from __future__ import annotations

import gc
import operator
import os
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import TIMEOUT

import dummymp

NUCLEAR = {"priority": "NUCLEAR", "max_processes": 2}


def come_and_wait_for(folder: str, me: str, other: str) -> int:
    """Leave a file named `me`; give the pid when there is one named `other`."""
    Path(folder, me).touch()
    until = time.monotonic() + TIMEOUT
    while not Path(folder, other).exists():
        if time.monotonic() > until:
            raise TimeoutError(f"{other} never came")
        time.sleep(0.002)
    return os.getpid()


class Threads:
    """Runs functions in threads, and raises what they raised."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def start(self, func: Callable[..., object], *args: Any) -> threading.Thread:
        """Run one function in a thread of its own."""
        thread = threading.Thread(target=self._run, args=(func, *args), daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _run(self, func: Callable[..., object], *args: Any) -> None:
        try:
            func(*args)
        except BaseException as error:
            self._errors.append(error)

    def join(self) -> None:
        """Wait for all of them."""
        for thread in self._threads:
            thread.join(TIMEOUT)
        assert not any(thread.is_alive() for thread in self._threads), "a thread hangs"
        if self._errors:
            raise self._errors[0]


@pytest.fixture
def threads() -> Iterator[Threads]:
    """Give a set of threads that must have ended by the end of the test."""
    made = Threads()
    yield made
    made.join()


@pytest.fixture(autouse=True)
def _two_workers() -> None:
    dummymp.configure(**NUCLEAR)


# --- several queues ----------------------------------------------------------------------------------------------


def test_queues_have_tasks_of_their_own() -> None:
    """Each queue numbers its own tasks from 0 and has its own results, errors and settings."""
    one, two = dummymp.TaskQueue(**NUCLEAR), dummymp.TaskQueue(**NUCLEAR, on_error="raise")
    assert [one.run(abs, -1).index, two.run(abs, -2).index, dummymp.run(abs, -3).index] == [0, 0, 0]
    two.run(operator.truediv, 1, 0)
    assert one.process_until_done() is True
    with pytest.raises(dummymp.TasksFailed):
        two.process_until_done()
    assert (one.get_returns(), two.get_returns(), dummymp.get_returns()) == ({0: 1}, {0: 2}, {})
    assert (one.get_errors(), list(two.get_errors())) == ({}, [1])
    assert dummymp.results() == [3]


def test_queues_share_workers(start_method: str) -> None:
    """What one queue leaves idle, the next one uses: one worker serves three queues."""
    queues = [dummymp.TaskQueue(priority="NUCLEAR", max_processes=1) for _ in range(3)]
    pids = {queue.run(os.getpid).result() for queue in queues}
    assert len(pids) == 1
    assert dummymp.worker_pids() == list(pids)


def test_queues_share_the_budget(tmp_path: Path) -> None:
    """While one queue uses all that may run, another one waits, and goes on afterwards."""
    one = dummymp.TaskQueue(priority="NUCLEAR", max_processes=1)
    two = dummymp.TaskQueue(priority="NUCLEAR", max_processes=1)
    first = one.run(come_and_wait_for, str(tmp_path), "one", "go")
    second = two.run(os.getpid)
    one.step()
    assert two.step() is False
    assert (first.state, second.state, two.get_stats()["queued"]) == ("running", "queued", 1)
    (tmp_path / "go").touch()
    assert one.process_until_done() is True
    assert second.result() == first.result()


def test_driving_one_queue_does_not_start_another() -> None:
    """A queue's tasks start only when somebody drives that queue."""
    one, two = dummymp.TaskQueue(**NUCLEAR), dummymp.TaskQueue(**NUCLEAR)
    task = two.run(abs, -2)
    one.run(abs, -1)
    one.process_until_done()
    assert task.state == "queued"
    assert two.results() == [2]


def test_driving_one_queue_takes_in_for_all(tmp_path: Path) -> None:
    """What a task of another queue returned is taken in by whoever drives."""
    one, two = dummymp.TaskQueue(**NUCLEAR), dummymp.TaskQueue(**NUCLEAR)
    other = two.run(come_and_wait_for, str(tmp_path), "other", "go")
    two.step()
    mine = one.run(come_and_wait_for, str(tmp_path), "mine", "done")
    (tmp_path / "go").touch()
    until = time.monotonic() + TIMEOUT
    while other.state != "done":
        assert time.monotonic() < until
        one.step(0.05)
    assert mine.state != "done"
    (tmp_path / "done").touch()
    one.process_until_done()
    assert two.get_returns() == {0: other.pid}


def test_killall_of_one_queue_leaves_the_others(tmp_path: Path) -> None:
    """`killall` and `reset` of a queue do not touch the tasks of another."""
    one, two = dummymp.TaskQueue(**NUCLEAR), dummymp.TaskQueue(**NUCLEAR)
    mine = one.run(come_and_wait_for, str(tmp_path), "mine", "never")
    other = two.run(come_and_wait_for, str(tmp_path), "other", "go")
    one.step()
    two.step()
    one.killall()
    assert (mine.state, other.state) == ("failed", "running")
    dummymp.reset()
    one.reset()
    (tmp_path / "go").touch()
    assert two.results() == [other.pid]


def test_a_queue_is_garbage_when_nobody_has_it() -> None:
    """A queue that is done, its tasks and its results go when the last reference goes; its workers stay."""

    class Result:
        pass

    queue = dummymp.TaskQueue(**NUCLEAR)
    result = weakref.ref(queue.run(Result).result())
    kept = weakref.ref(queue)
    assert result() is not None
    pids = queue.worker_pids()
    del queue
    gc.collect()
    assert (kept(), result()) == (None, None)
    assert dummymp.worker_pids() == pids


def test_a_queue_that_never_ran_is_garbage_too() -> None:
    """A queue without tasks is not held either."""
    kept = weakref.ref(dummymp.TaskQueue(**NUCLEAR))
    gc.collect()
    assert kept() is None


def test_calls_and_results_of_all_kinds_side_by_side() -> None:
    """Each kind travels its own way; all stand in call order, and each task has what is its own."""
    kinds: list[Any] = [None, 7, "text", 2.5, True, b"bytes", [1, [2]], {"a": (1,)}, (1, "b"), 1 << 200, "\ud800" * 9]
    values = kinds * 40
    for number, value in enumerate(values):
        if number % 3:
            dummymp.run(give, value)
        else:
            dummymp.run(give, value=value)
    assert dummymp.results() == values
    assert list(map(type, dummymp.results())) == list(map(type, values))


def give(value: Any) -> Any:
    return value


def test_a_frozen_call_is_dropped_when_it_has_ended() -> None:
    """The bytes of a call (perhaps many) go when the task has ended; the Task keeps its name."""
    task = dummymp.run(len, b"x" * 100)
    assert task._function is not None and task._arguments
    assert task.result() == 100
    assert [task._function, task._arguments, task._live, task.name] == [None, b"", None, "len"]


# --- several threads ---------------------------------------------------------------------------------------------


def test_a_thread_may_drive(threads: Threads) -> None:
    """Another thread than the main one may do everything."""
    results: list[Any] = []

    def work() -> None:
        for number in range(3):
            dummymp.run(abs, -number)
        results.append(dummymp.results())

    threads.start(work)
    threads.join()
    assert results == [[0, 1, 2]]


def test_threads_queue_at_once(threads: Threads) -> None:
    """Calls from several threads get numbers of their own; none is lost, none is doubled."""
    numbers: list[list[int]] = [[] for _ in range(4)]

    def queue(mine: list[int]) -> None:
        for _ in range(50):
            task = dummymp.run(abs, -len(mine))
            mine.append(task.index)

    for mine in numbers:
        threads.start(queue, mine)
    threads.join()
    assert sorted(index for mine in numbers for index in mine) == list(range(200))
    dummymp.process_until_done()
    returns = dummymp.get_returns()
    assert [[returns[index] for index in mine] for mine in numbers] == [list(range(50))] * 4


def test_threads_call_everything_at_once(threads: Threads) -> None:
    """Queueing, driving and asking from several threads at once: every task ends once, and every answer is whole."""
    stop = threading.Event()

    def queue_and_wait() -> None:
        for number in range(30):
            assert dummymp.run(abs, -number).result(timeout=TIMEOUT) == number

    def ask() -> None:
        while not stop.is_set():
            returns = dummymp.get_returns()
            assert list(returns) == sorted(returns)
            stats = dummymp.get_stats()
            assert min(stats["queued"], stats["running"], stats["done"]) >= 0
            assert stats["failed"] == 0
            dummymp.worker_pids()
            dummymp.process_queue()
            with dummymp.configure(retries=1):
                pass

    workers = [threads.start(queue_and_wait) for _ in range(3)]
    threads.start(dummymp.process_until_done)
    threads.start(ask)
    for thread in workers:
        thread.join(TIMEOUT)
    stop.set()
    threads.join()
    assert sorted(dummymp.get_returns().values()) == sorted([*range(30)] * 3)
    assert dummymp.get_errors() == {}


def test_several_threads_drive_one_queue(threads: Threads) -> None:
    """Whoever drives, all of them see the end."""
    for number in range(100):
        dummymp.run(abs, -number)
    ended: list[bool] = []

    def drive() -> None:
        ended.append(dummymp.process_until_done(timeout=TIMEOUT))

    def step() -> None:
        while not dummymp.step():
            pass
        ended.append(True)

    for func in (drive, drive, step):
        threads.start(func)
    threads.join()
    assert ended == [True] * 3
    assert dummymp.get_returns() == {number: number for number in range(100)}


def test_threads_wait_for_different_tasks(threads: Threads, tmp_path: Path) -> None:
    """A thread that waits for one task has it as soon as it has ended, though others run on, whoever took it in."""
    long = dummymp.run(come_and_wait_for, str(tmp_path), "long", "end")
    short = dummymp.run(come_and_wait_for, str(tmp_path), "short", "go")
    waiting_for_long = threads.start(long.result)
    waiting_for_short = [threads.start(short.result) for _ in range(2)]
    (tmp_path / "go").touch()
    for thread in waiting_for_short:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    assert (waiting_for_long.is_alive(), long.state) == (True, "running")
    (tmp_path / "end").touch()
    threads.join()


def test_a_call_that_is_queued_while_another_thread_drives(threads: Threads, tmp_path: Path) -> None:
    """A thread that sleeps in `process_until_done` starts what another thread queues."""
    dummymp.run(come_and_wait_for, str(tmp_path), "one", "two")
    driving = threads.start(dummymp.process_until_done)
    wait_until(lambda: (tmp_path / "one").exists())
    dummymp.run(come_and_wait_for, str(tmp_path), "two", "one")
    driving.join(TIMEOUT)
    assert len(set(dummymp.get_returns().values())) == 2


def test_killing_wakes_a_thread_that_waits_for_a_waiting_task(threads: Threads, tmp_path: Path) -> None:
    """Who waits for a task that another thread drops knows at once, though other tasks run on."""
    dummymp.configure(max_processes=1)
    dummymp.run(come_and_wait_for, str(tmp_path), "one", "go")
    waiting = dummymp.run(abs, -1)
    seen: list[BaseException | None] = []
    thread = threads.start(lambda: seen.append(waiting.exception()))
    wait_until(lambda: (tmp_path / "one").exists())
    assert dummymp.kill(waiting) is True
    thread.join(TIMEOUT)
    assert [type(error) for error in seen] == [dummymp.TaskKilled]
    (tmp_path / "go").touch()
    dummymp.process_until_done()


@pytest.mark.parametrize("how", [dummymp.killall, dummymp.reset])
def test_stopping_wakes_a_thread_that_drives(how: Callable[[], None], threads: Threads, tmp_path: Path) -> None:
    """`killall` or `reset` in one thread lets `process_until_done` in another one return."""
    ended: list[bool] = []
    dummymp.run(come_and_wait_for, str(tmp_path), "one", "never")
    thread = threads.start(lambda: ended.append(dummymp.process_until_done()))
    wait_until(lambda: (tmp_path / "one").exists())
    how()
    thread.join(TIMEOUT)
    assert ended == [True]


def test_threads_drive_queues_of_their_own(threads: Threads, tmp_path: Path) -> None:
    """Two threads with a queue each run their tasks at the same time, on the shared workers."""
    queues = [dummymp.TaskQueue(**NUCLEAR) for _ in range(2)]
    one = queues[0].run(come_and_wait_for, str(tmp_path), "one", "two")
    two = queues[1].run(come_and_wait_for, str(tmp_path), "two", "one")
    for queue in queues:
        threads.start(queue.process_until_done)
    threads.join()
    assert one.result() != two.result()
    assert sorted(dummymp.worker_pids()) == sorted([one.result(), two.result()])


def test_inline_queue_in_threads(threads: Threads) -> None:
    """With engine="inline" threads take turns, and every task runs once."""
    queue = dummymp.TaskQueue(engine="inline")
    for number in range(50):
        queue.run(abs, -number)
    for _ in range(3):
        threads.start(queue.process_until_done)
    threads.join()
    assert queue.results() == list(range(50))


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait without driving."""
    until = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < until
        threading.Event().wait(0.002)


# --- the progress bar --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["processes", "inline"])
def test_progress_bar(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    """``progress=True`` draws a bar on stderr that ends with all tasks, failed ones too."""
    pytest.importorskip("tqdm")
    dummymp.configure(engine=engine)
    for number in range(4):
        dummymp.run(operator.truediv, 1, number)
    assert dummymp.process_until_done(progress=True) is True
    shown = capsys.readouterr()
    assert "4/4" in shown.err
    assert "100%" in shown.err
    assert shown.out == ""


def test_progress_bar_counts_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    """Tasks that ended before are not in the bar; those that a callback queues are."""
    pytest.importorskip("tqdm")
    dummymp.run(abs, -1).result()

    def queue_another(completed: int, running: int, total: int) -> None:
        if total < 4:
            dummymp.run(abs, -total)

    dummymp.configure(on_end=queue_another)
    dummymp.run(abs, -2)
    dummymp.process_until_done(progress=True)
    assert "3/3" in capsys.readouterr().err


def test_progress_bar_is_closed_after_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """With on_error="stop" the bar is finished before the exception comes out."""
    tqdm = pytest.importorskip("tqdm")
    dummymp.configure(on_error="stop")
    dummymp.run(operator.truediv, 1, 0)
    with pytest.raises(ZeroDivisionError):
        dummymp.process_until_done(progress=True)
    assert capsys.readouterr().err.endswith("\n")
    assert len(getattr(tqdm.tqdm, "_instances", ())) == 0


def test_a_bar_with_a_timeout(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A bar that ends early shows how far it came."""
    pytest.importorskip("tqdm")
    dummymp.run(abs, -1).result()
    dummymp.run(come_and_wait_for, str(tmp_path), "one", "go")
    assert dummymp.process_until_done(timeout=0.01, progress=True) is False
    assert "0/1" in capsys.readouterr().err
    (tmp_path / "go").touch()
    dummymp.process_until_done()

# SPDX-License-Identifier: MIT
"""Callbacks: on_start and on_end with (completed, running, total)."""

from __future__ import annotations

import logging
import operator
import os
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
from conftest import TIMEOUT

import dummymp

Call = tuple[str, int, int, int]


def come_and_wait_for(folder: str, me: str, other: str) -> None:
    """Leave a file named `me`, and return when there is one named `other`."""
    Path(folder, me).touch()
    until = time.monotonic() + TIMEOUT
    while not Path(folder, other).exists():
        if time.monotonic() > until:
            raise TimeoutError(f"{other} never came")
        time.sleep(0.002)


def succeed_at_second_attempt(folder: str) -> None:
    """Raise the first time, counting in files."""
    if not os.listdir(folder):
        Path(folder, "once").touch()
        raise OSError("the first attempt")


def talk(number: int) -> None:
    """Print and log."""
    print(f"printed by {number}")
    logging.getLogger("talk").warning("logged by %d", number)


@pytest.fixture(params=["processes", "inline"])
def engine(request: pytest.FixtureRequest) -> str:
    """Run the test with each engine: what it states holds wherever tasks run."""
    dummymp.configure(engine=request.param)
    return str(request.param)


@pytest.fixture
def calls() -> list[Call]:
    """Record every callback, in order."""
    made: list[Call] = []
    dummymp.configure(
        priority="NUCLEAR",
        max_processes=2,
        on_start=lambda *counts: made.append(("start", *counts)),
        on_end=lambda *counts: made.append(("end", *counts)),
    )
    return made


def check_counts(calls: list[Call]) -> None:
    """See that the counts say what the calls so far have said."""
    started = ended = 0
    for name, completed, running, _ in calls:
        started += name == "start"
        ended += name == "end"
        assert (completed, running) == (ended, started - ended), calls


def test_counts_of_a_task(engine: str, calls: list[Call]) -> None:
    """One task: it runs, then it is completed."""
    dummymp.run(abs, -1)
    assert calls == []
    dummymp.process_until_done()
    assert calls == [("start", 0, 1, 1), ("end", 1, 0, 1)]


def test_one_start_and_one_end_a_task(engine: str, calls: list[Call]) -> None:
    """Of many tasks each starts once and ends once, and the counts agree with the order of the calls."""
    for number in range(50):
        dummymp.run(divmod, 1, number % 7)
    dummymp.process_until_done()
    check_counts(calls)
    assert [name for name, *_ in calls].count("start") == 50
    assert [completed for name, completed, *_ in calls if name == "end"] == list(range(1, 51))
    assert {total for *_, total in calls} == {50}


def test_counts_of_tasks_at_the_same_time(calls: list[Call], tmp_path: Path) -> None:
    """While two tasks run, both are counted as running."""
    dummymp.run(come_and_wait_for, str(tmp_path), "one", "two")
    dummymp.run(come_and_wait_for, str(tmp_path), "two", "one")
    dummymp.process_until_done()
    assert calls == [("start", 0, 1, 2), ("start", 0, 2, 2), ("end", 1, 1, 2), ("end", 2, 0, 2)]


def test_counts_go_on(engine: str, calls: list[Call]) -> None:
    """What ended before counts as completed, until `reset`."""
    dummymp.run(abs, -1).result()
    dummymp.run(abs, -1).result()
    assert calls[2:] == [("start", 1, 1, 2), ("end", 2, 0, 2)]


def test_a_task_that_fails_starts_and_ends_too(engine: str, calls: list[Call]) -> None:
    """A failed task counts as completed."""
    dummymp.run(operator.truediv, 1, 0)
    dummymp.process_until_done()
    assert calls == [("start", 0, 1, 1), ("end", 1, 0, 1)]


def test_a_retried_task_starts_and_ends_once(engine: str, calls: list[Call], tmp_path: Path) -> None:
    """Attempts are not told; the task starts with the first and ends with the last."""
    dummymp.configure(retries=1)
    task = dummymp.run(succeed_at_second_attempt, str(tmp_path))
    assert task.exception() is None
    assert (task.attempts, calls) == (2, [("start", 0, 1, 1), ("end", 1, 0, 1)])


def test_a_killed_task_ends(calls: list[Call], tmp_path: Path) -> None:
    """A task that is killed while it runs has its end."""
    task = dummymp.run(come_and_wait_for, str(tmp_path), "one", "never")
    dummymp.step()
    dummymp.kill(task)
    assert calls == [("start", 0, 1, 1), ("end", 1, 0, 1)]


def test_a_worker_that_dies_ends_its_task(calls: list[Call]) -> None:
    """A task whose process ends under it has its end."""
    task = dummymp.run(os._exit, 3)
    assert isinstance(task.exception(), dummymp.WorkerDied)
    assert calls == [("start", 0, 1, 1), ("end", 1, 0, 1)]


def test_a_call_that_cannot_be_frozen_at_its_start(engine: str, calls: list[Call]) -> None:
    """With copy_args=False a call may turn out unsendable when it starts: it starts, and fails."""
    dummymp.configure(copy_args=False)
    dummymp.run(list, (number for number in range(3)))
    dummymp.run(abs, -1)
    dummymp.process_until_done()
    assert [type(error) for error in dummymp.get_errors().values()] == [dummymp.NotPicklable]
    assert dummymp.get_returns() == {1: 1}
    check_counts(calls)
    assert [name for name, *_ in calls].count("start") == [name for name, *_ in calls].count("end") == 2


def test_results_are_there_at_the_end_callback(engine: str) -> None:
    """When on_end is called, `get_returns` and `get_errors` have what ended."""
    seen: list[int] = []
    dummymp.configure(
        priority="NUCLEAR",
        on_end=lambda *counts: seen.append(len(dummymp.get_returns()) + len(dummymp.get_errors())),
    )
    for number in range(4):
        dummymp.run(divmod, 1, number)
    dummymp.process_until_done()
    assert len(seen) == 4
    assert all(there >= count for count, there in enumerate(seen, 1))


@pytest.mark.parametrize("name", ["on_start", "on_end"])
def test_a_callback_may_queue_calls(name: str, engine: str) -> None:
    """A callback may call `run`; what it queues runs before `process_until_done` returns."""

    def queue_another(completed: int, running: int, total: int) -> None:
        if total < 5:
            dummymp.run(abs, -total)

    dummymp.configure(**{"priority": "NUCLEAR", name: queue_another})
    dummymp.run(abs, 0)
    assert dummymp.process_until_done() is True
    assert dummymp.get_returns() == {number: number for number in range(5)}


def test_a_callback_may_kill(engine: str) -> None:
    """A callback may drop the rest: what waits ends as TaskKilled, and there is no hang."""

    def enough(completed: int, running: int, total: int) -> None:
        if completed == 1:
            dummymp.killall()

    dummymp.configure(priority="NUCLEAR", max_processes=1, on_end=enough)
    dummymp.run(abs, -1)
    for _ in range(4):
        dummymp.run(time.sleep, TIMEOUT)
    assert dummymp.process_until_done(timeout=TIMEOUT) is True
    assert dummymp.get_returns() == {0: 1}
    assert list(dummymp.get_errors()) == [1, 2, 3, 4]
    assert {type(error) for error in dummymp.get_errors().values()} == {dummymp.TaskKilled}


@pytest.mark.parametrize("name", ["on_start", "on_end"])
def test_a_callback_that_raises_is_logged_and_skipped(
    name: str, engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The task is fine, the next callback is called, and the log says which callback failed, and how; once in full."""
    seen: list[Any] = []

    def broken(*counts: int) -> None:
        seen.append(counts)
        raise KeyError("oops")

    dummymp.configure(**{"priority": "NUCLEAR", name: broken})
    for number in range(3):
        dummymp.run(abs, -number)
    assert dummymp.results() == [0, 1, 2]
    assert len(seen) == 3
    records = [record for record in caplog.records if record.levelno == logging.ERROR]
    first, last = (record.getMessage() for record in records)
    callback = "test_a_callback_that_raises_is_logged_and_skipped.broken"
    assert first.startswith(f"your {name} callback {callback} raised KeyError: 'oops'. The task itself is fine;")
    assert last == f"your {name} callback {callback} raised KeyError 2 times more."
    assert records[0].exc_info is not None
    frames = traceback.extract_tb(records[0].exc_info[2])
    assert [frame.name for frame in frames] == ["broken"]
    assert {record.name for record in records} == {"dummymp"}


def test_another_failure_of_a_callback_is_told(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    """What differs in its kind is told in full, too, and so is the same when it happens in the next batch."""

    def broken(completed: int, running: int, total: int) -> None:
        raise (KeyError if completed == 1 else IndexError)(completed)

    dummymp.configure(priority="NUCLEAR", on_end=broken)
    for _ in range(3):
        dummymp.run(abs, 1)
    dummymp.process_until_done()
    texts = [record.getMessage().partition(" raised ")[2].partition(".")[0] for record in caplog.records]
    assert texts == ["KeyError: 1", "IndexError: 2", "IndexError once more"]
    dummymp.run(abs, 1)
    while not dummymp.step(1):
        pass
    assert "IndexError: 4" in caplog.records[-1].getMessage()


def test_a_callback_that_does_not_take_the_counts_after_all(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    """A callback of which nobody could tell before fails like any other, and the tasks go on."""
    dummymp.configure(priority="NUCLEAR", on_end=divmod)
    dummymp.run(abs, -1)
    assert dummymp.results() == [1]
    assert "your on_end callback divmod raised TypeError" in caplog.text


def test_output_stands_before_the_end_callback(
    calls: list[Call], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """When a task's end is told, all that it printed and logged has been shown."""
    told: list[tuple[str, list[str]]] = []

    def note(*counts: int) -> None:
        before = told[-1][0] if told else ""
        told.append((before + capsys.readouterr().out, [record.getMessage() for record in caplog.records]))

    dummymp.configure(max_processes=1, on_end=note, log_prefix="")
    for number in range(3):
        dummymp.run(talk, number)
    dummymp.process_until_done()
    for number, (printed, logged) in enumerate(told):
        assert f"printed by {number}\n" in printed
        assert f"logged by {number}" in logged


def test_callbacks_run_here(engine: str) -> None:
    """A callback runs in the user's own process, in the thread that drives."""
    pids: list[int] = []
    dummymp.configure(priority="NUCLEAR", on_start=lambda *c: pids.append(os.getpid()))
    dummymp.configure(on_end=lambda *c: pids.append(os.getpid()))
    dummymp.run(abs, -1).result()
    assert pids == [os.getpid()] * 2

"""What came of short tasks is kept for a moment and sent together: nothing of it is lost, late or out of order."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import TIMEOUT

import dummymp

CULPRIT = 30
LAST = 60


def quick(number: int, how: str = "", mark: str = "") -> int:
    """Be over at once; but the culprit dies, hangs, or is slow."""
    if number != CULPRIT:
        return number
    if how == "dies":
        os._exit(3)
    if how == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "closes its connection":
        os.closerange(3, 100)
    if how == "raises":
        raise ValueError(number)
    if how == "prints":
        print("the culprit")
    if how == "hangs in C code":
        Path(mark).touch(exist_ok=False)
        re.match(r"(a+)+$", "a" * 60 + "b")
    if how == "waits":
        Path(mark).touch(exist_ok=False)
        signal.pause()
    return number


@pytest.fixture(autouse=True)
def _known_pace() -> None:
    """Let it be known that the calls are quick, so that many are sent ahead."""
    dummymp.configure(priority="NUCLEAR", max_processes=1)
    for number in range(5):
        dummymp.run(quick, number)
    dummymp.process_until_done()


def queue_calls(how: str, mark: str = "") -> list[dummymp.Task[int]]:
    return [dummymp.run(quick, number, how, mark) for number in range(5, LAST)]


posix = pytest.mark.skipif(os.name != "posix", reason="needs signals, and answers that are kept")


@pytest.mark.parametrize(
    "how", ["dies", pytest.param("is killed", marks=posix), pytest.param("closes its connection", marks=posix)]
)
def test_a_crash_takes_nothing_of_what_finished(how: str) -> None:
    """The task that ran is known exactly; those before it are done, those after it run, each once."""
    tasks = queue_calls(how)
    dummymp.process_until_done()
    assert list(dummymp.get_errors()) == [CULPRIT]
    assert isinstance(dummymp.get_errors()[CULPRIT], dummymp.WorkerDied)
    assert dummymp.get_returns() == {number: number for number in range(LAST) if number != CULPRIT}
    assert [task.attempts for task in tasks] == [1] * len(tasks)


def test_a_crash_and_another_attempt() -> None:
    """With retries only the culprit runs again."""
    dummymp.configure(retries=2)
    tasks = queue_calls("dies")
    dummymp.process_until_done()
    assert {task.index: task.attempts for task in tasks if task.attempts != 1} == {CULPRIT: 3}
    assert list(dummymp.get_errors()) == [CULPRIT]


def test_the_order_of_what_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    """What a task prints comes after the ends of those before it and before its own; starts and ends alternate."""
    seen: list[Any] = []

    class Out:
        def write(self, text: str) -> None:
            seen.append(text)

        def flush(self) -> None:
            pass

    with (
        dummymp.configure(
            on_start=lambda started, running, total: seen.append("start"),
            on_end=lambda ended, running, total: seen.append(ended),
        ),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "stdout", Out())
        queue_calls("prints")
        dummymp.process_until_done()
    text = seen.index("the culprit\n")
    del seen[text]
    assert seen == [entry for number in range(6, LAST + 1) for entry in ("start", number)]
    assert seen[text - 1] == CULPRIT or seen[text - 1] == "start"
    assert CULPRIT in seen[:text] and CULPRIT + 1 not in seen[:text]


def test_a_failure_among_quick_ones() -> None:
    """Errors travel with the results around them."""
    queue_calls("raises")
    dummymp.process_until_done()
    assert list(dummymp.get_errors()) == [CULPRIT] and len(dummymp.get_returns()) == LAST - 1


def drive_to(mark: Path) -> None:
    while not mark.exists():
        dummymp.step(0.001)


@pytest.mark.parametrize("how", ["hangs in C code", "waits"])
@posix
def test_what_finished_before_a_slow_one_is_told_while_that_runs(how: str, tmp_path: Path) -> None:
    """Also where C code keeps the worker from sending anything; then the slow one can be stopped, and it alone."""
    mark = tmp_path / "mark"
    tasks = queue_calls(how, str(mark))
    drive_to(mark)
    before, culprit = tasks[: CULPRIT - 5], tasks[CULPRIT - 5]
    for task in before:
        assert task.result(TIMEOUT) == task.index
    assert culprit.state == "running" and culprit.kill()
    dummymp.process_until_done()
    assert list(dummymp.get_errors()) == [CULPRIT] and len(dummymp.get_returns()) == LAST - 1
    assert {task.attempts for task in tasks} == {1}


@pytest.mark.parametrize("how", ["hangs in C code", "waits"])
@posix
def test_killing_the_slow_one_at_once(how: str, tmp_path: Path) -> None:
    """It may not be known yet that those before it are over; it is stopped, and what finished is not lost."""
    mark = tmp_path / "mark"
    tasks = queue_calls(how, str(mark))
    drive_to(mark)
    assert tasks[CULPRIT - 5].kill()
    dummymp.process_until_done()
    assert list(dummymp.get_errors()) == [CULPRIT] and len(dummymp.get_returns()) == LAST - 1
    assert {task.attempts for task in tasks} == {1}


@pytest.mark.parametrize("how", ["hangs in C code", "waits"])
@posix
def test_a_timeout_strikes_the_slow_one(how: str, tmp_path: Path) -> None:
    """Not one of the quick ones before it, and none of those behind it."""
    dummymp.configure(timeout=0.2)
    queue_calls(how, str(tmp_path / "mark"))
    dummymp.process_until_done()
    assert list(dummymp.get_errors()) == [CULPRIT] and len(dummymp.get_returns()) == LAST - 1
    assert isinstance(dummymp.get_errors()[CULPRIT], dummymp.TaskTimeout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork")
def test_a_copy_of_a_worker_sends_nothing_of_what_is_kept() -> None:
    """A task may fork; the copy knows what is kept, too, and must not send it once more."""

    def fork(number: int) -> int:
        if number == CULPRIT:
            pid = os.fork()
            if pid == 0:
                print("text of the copy")
                dummymp.run(divmod, 7, 2)  # Notes that a task calls dummymp.
                os._exit(0)
            os.waitpid(pid, 0)
        return number

    for number in range(5):
        dummymp.run(fork, number)
    dummymp.process_until_done()
    for number in range(5, LAST):
        dummymp.run(fork, number)
    dummymp.process_until_done()
    assert len(dummymp.get_returns()) == LAST + 5 and not dummymp.get_errors()


def test_calls_that_turn_out_slower_are_shared() -> None:
    """All were sent to one worker, since they seemed to be worth no division; then the other gets its part."""

    def work(seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    dummymp.configure(max_processes=2)
    for _ in range(10):
        dummymp.run(work, 0)
    dummymp.process_until_done()
    tasks = [dummymp.run(work, 0.003) for _ in range(40)]
    dummymp.process_until_done()
    assert len({task.result() for task in tasks}) == 2

"""Ctrl-C and other signals: held back while something is half done, let through everywhere else."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import TIMEOUT

import dummymp
from dummymp.interrupts import deferrable, held, shorten


def press() -> None:
    """Press Ctrl-C."""
    signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def _handler_stays() -> Iterator[None]:
    """Each test begins with Python's own handler, and leaves the one it found."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert (deferrable.depth, deferrable.holding) == (0, 0)
    signal.signal(signal.SIGINT, before)


def test_held_back_until_the_end_of_the_block() -> None:
    """Ctrl-C inside a held block raises at its end, when all of it is done."""
    done = []
    with pytest.raises(KeyboardInterrupt), deferrable:
        with held:
            press()
            done.append("all of it")
        done.append("too late")
    assert done == ["all of it"]


def test_let_through_outside_of_held_blocks() -> None:
    """Ctrl-C while waiting raises at once."""
    done = []
    with pytest.raises(KeyboardInterrupt), deferrable:
        press()
        done.append("too late")
    assert done == []


def test_held_alone_holds_back() -> None:
    """A held block holds Ctrl-C back where the queue is not driven, too: a call is recorded whole or not at all."""
    done = []
    with pytest.raises(KeyboardInterrupt), held:
        press()
        done.append("whole")
    assert done == ["whole"]


def test_nested_held_blocks() -> None:
    """It raises at the end of the outermost held block."""
    done = []
    with pytest.raises(KeyboardInterrupt), deferrable:
        with held:
            with held:
                press()
                done.append("inner")
            done.append("outer")
        done.append("too late")
    assert done == ["inner", "outer"]


def test_nested_deferrable_blocks() -> None:
    """A queue that is driven from a callback of another changes nothing."""
    done = []
    with pytest.raises(KeyboardInterrupt), deferrable:
        with deferrable:
            with held:
                press()
                done.append("held")
            done.append("too late")
        done.append("too late")
    assert done == ["held"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_deferrable_inside_a_held_block() -> None:
    """Held from outside, it is still held when an inner deferrable block ends."""
    done = []
    with pytest.raises(KeyboardInterrupt), held:
        with deferrable:
            press()
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]


def test_pressed_many_times_raises_once() -> None:
    """An impatient user gets one KeyboardInterrupt, not one after the other in the user's own clean-up."""
    done = []
    with pytest.raises(KeyboardInterrupt), deferrable, held:
        press()
        press()
        press()
    done.append("cleaned up")
    with deferrable, held:
        done.append("nothing pending")
    assert done == ["cleaned up", "nothing pending"]


def test_pressing_again_works_again() -> None:
    """Each Ctrl-C counts: after one was let through, the next is held back and let through as well."""
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt), deferrable, held:
            press()


def test_handler_is_put_back() -> None:
    """After the block the handler is what it was, however the block ends."""
    handler = signal.getsignal(signal.SIGINT)
    with deferrable:
        assert signal.getsignal(signal.SIGINT) is not handler
    assert signal.getsignal(signal.SIGINT) is handler
    with pytest.raises(ZeroDivisionError), deferrable, held:
        _ = 1 // 0
    assert signal.getsignal(signal.SIGINT) is handler


def test_handler_of_the_user_is_called() -> None:
    """The user's own handler (a notebook's, asyncio's) is called instead, only that much later, with a frame."""
    calls: list[Any] = []
    signal.signal(signal.SIGINT, lambda number, frame: calls.append((number, frame is not None)))
    with deferrable:
        press()
        assert calls == [(signal.SIGINT, True)]
        with held:
            press()
            assert len(calls) == 1
        assert calls == [(signal.SIGINT, True)] * 2


def test_exception_of_the_users_handler() -> None:
    """What the user's handler raises comes out at the end of the held block."""

    class Enough(Exception):
        pass

    def handler(number: int, frame: Any) -> None:
        raise Enough

    signal.signal(signal.SIGINT, handler)
    with pytest.raises(Enough), deferrable, held:
        press()
    assert signal.getsignal(signal.SIGINT) is handler


def test_ignored_stays_ignored() -> None:
    """A program that ignores Ctrl-C goes on ignoring it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with deferrable:
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        press()
        with held:
            press()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_handler_set_inside_the_block_stays() -> None:
    """A callback of the user may set another handler: it is not written over at the end."""

    def another(number: int, frame: Any) -> None:
        pass

    with deferrable:
        signal.signal(signal.SIGINT, another)
    assert signal.getsignal(signal.SIGINT) is another


def test_failure_inside_a_held_block_is_not_lost() -> None:
    """An exception of the block and a Ctrl-C in it: both are to be seen."""
    with pytest.raises(KeyboardInterrupt) as caught, deferrable, held:
        press()
        _ = 1 // 0
    assert isinstance(caught.value.__context__, ZeroDivisionError)


def test_other_threads_touch_nothing() -> None:
    """Handlers belong to the main thread; in others both blocks do nothing, also while the main thread is in one."""
    done = []
    problems: list[BaseException] = []

    def other() -> None:
        try:
            with deferrable, held:
                done.append((deferrable.depth, deferrable.holding, signal.getsignal(signal.SIGINT)))
        except BaseException as problem:
            problems.append(problem)

    for block_depth in (0, 1):
        thread = threading.Thread(target=other)
        if block_depth:
            with deferrable:
                thread.start()
                thread.join(TIMEOUT)
        else:
            thread.start()
            thread.join(TIMEOUT)
    assert problems == []
    assert [(depth, holding) for depth, holding, _ in done] == [(0, 0), (1, 0)]
    assert done[0][2] is signal.default_int_handler


# --- other signals -----------------------------------------------------------------------------------------------


class _Late(Exception):
    """What a handler of SIGALRM raises."""


def _late(number: int, frame: Any) -> None:
    raise _Late


@pytest.fixture
def alarm() -> Iterator[int]:
    """Give a signal whose handler raises `_Late`."""
    number = getattr(signal, "SIGALRM", signal.SIGTERM)
    before = signal.signal(number, _late)
    yield number
    assert signal.signal(number, before) is _late


def test_other_signals_are_held_back_too(alarm: int) -> None:
    """The handler of an alarm raises when nothing is half done; while we wait, at once."""
    done = []
    with pytest.raises(_Late), deferrable:
        with held:
            signal.raise_signal(alarm)
            done.append("all of it")
        done.append("too late")
    with pytest.raises(_Late), deferrable:
        signal.raise_signal(alarm)
        done.append("too late")
    assert done == ["all of it"]


def test_two_signals_that_came_while_held_back(alarm: int) -> None:
    """Both handlers are called, though both raise."""
    with pytest.raises(_Late) as caught, held:
        press()
        signal.raise_signal(alarm)
    assert isinstance(caught.value.__context__, KeyboardInterrupt)


class _Alarming:
    """A result, or what stands for sys.stdout, in which a signal comes once."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.text = ""

    def write(self, text: str) -> int:
        number, self.number = self.number, 0
        if number:
            signal.raise_signal(number)
        self.text += text
        return len(text)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        signal.raise_signal(self.number)


def make_alarming(number: int) -> Any:
    """Give a result in whose rebuilding a signal comes."""
    return _Alarming(number)


def say(text: str) -> str:
    """Print and return."""
    print(text)
    return text


def test_an_alarm_while_a_result_is_rebuilt(alarm: int) -> None:
    """It is not the result's fault: the task ends well, and the exception of the handler comes out of the wait."""
    dummymp.configure(priority="NUCLEAR")
    task = dummymp.run(make_alarming, alarm)
    with pytest.raises(_Late):
        dummymp.process_until_done()
    dummymp.process_until_done()
    assert task.state == "done"


@pytest.mark.parametrize("where", ["callback", "stdout"])
def test_an_alarm_in_code_of_the_user_that_we_call(where: str, alarm: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its handler raises is no fault of a callback, which would be logged, and comes out of the wait."""
    stream = _Alarming(alarm)
    dummymp.configure(priority="NUCLEAR")
    if where == "callback":
        dummymp.configure(on_end=lambda completed, running, total: stream.write(""))
    else:
        monkeypatch.setattr("sys.stdout", stream)
    dummymp.run(say, "hello")
    with pytest.raises(_Late):
        dummymp.process_until_done()
    dummymp.process_until_done()
    assert dummymp.get_returns() == {0: "hello"}


@pytest.mark.parametrize("engine", ["processes", "inline"])
def test_ctrl_c_while_a_failure_is_logged(engine: str) -> None:
    """The callback of that task is called all the same, once."""

    class Pressing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logger.removeHandler(self)
            press()

    ended = []
    dummymp.configure(priority="NUCLEAR", engine=engine, on_end=lambda *counts: ended.append(counts))
    logger = logging.getLogger("dummymp")
    logger.addHandler(Pressing())
    for number in range(3):
        dummymp.run(divmod, 1, number)
    with pytest.raises(KeyboardInterrupt):
        dummymp.process_until_done()
    dummymp.process_until_done()
    assert [completed for completed, _, _ in sorted(ended)] == [1, 2, 3]


def test_two_presses_at_once_are_one_story() -> None:
    """The first is not told as what happened before the second; what the user handled at the time is."""
    handled, first, second = ValueError(), KeyboardInterrupt(), KeyboardInterrupt()
    first.__context__, second.__context__ = handled, first
    shorten(second)
    assert second.__context__ is handled

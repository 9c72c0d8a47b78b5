# SPDX-License-Identifier: MIT
"""Ctrl-C, and other signals, at the right moment.

A KeyboardInterrupt may fall between any two steps of a program. While the queue is driven from the main thread, it is
held back for the microseconds in which messages are taken in and counted, so that nothing is ever half done, and let
through everywhere else: while waiting, and in the user's own callbacks. Handlers of the user (notebooks, asyncio) are
called as they would have been, only that much later. The same holds for other signals: the handler of an alarm that
says that it takes too long, or of SIGTERM, raises as well.
"""

from __future__ import annotations

import os
import threading

from .hints import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from typing import Any, Callable

    from .hints import T
else:
    try:
        # What `signal` wraps. It makes enumerations of all that goes in and out, which takes ten times as long.
        import _signal as signal
    except ImportError:
        import signal

__all__ = [
    "came_by_signal",
    "came_to_us",
    "deferrable",
    "held",
    "ignore_from_now_on",
    "in_main_interpreter",
    "let_in",
    "own_code",
    "shorten",
]

_main_thread: int | None = None


# The signals that people let raise, or do things, in the middle of a script: it runs out of time, or is told to end.
_NUMBERS: tuple[int, ...] = tuple(
    int(getattr(signal, name))
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGUSR1", "SIGUSR2", "SIGCHLD")
    if hasattr(signal, name)
)
_CTRL_C = int(signal.SIGINT)


class _Deferrable:
    """A block in which signals can be held back: ``with deferrable:``. Blocks nest."""

    def __init__(self) -> None:
        self.depth = 0
        self.holding = 0
        self.ajar = False  # for Ctrl-C
        self._pending: dict[int, Any] = {}
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.get_ident() != _main_thread:
            return
        self.install()
        self.depth += 1

    def install(self) -> None:
        """Set our handler, unless it is there: a signal between two steps of ours may have left it; no harm done."""
        for number in _NUMBERS:
            previous = signal.getsignal(number)
            # SIG_IGN, SIG_DFL and handlers made in C are not ours to delay.
            if callable(previous) and previous != self._handle:
                self._previous[number] = previous
                signal.signal(number, self._handle)

    def __exit__(self, *exc: object) -> None:
        if threading.get_ident() != _main_thread:
            return
        self.depth -= 1
        if self.depth == 0 and self._previous:
            self.holding += 1
            try:
                self._put_back()
            finally:
                self.holding -= 1
            self.let_through()

    def _put_back(self) -> None:
        for number, previous in self._previous.items():
            if signal.getsignal(number) == self._handle:  # Unless a callback of the user set another.
                signal.signal(number, previous)

    def start_over(self) -> None:
        """Forget the blocks that this thread is in."""
        self.depth = self.holding = 0
        self.ajar = False
        self._pending.clear()
        self._put_back()

    def _holds(self, number: int) -> bool:
        return self.holding > (self.ajar and number == _CTRL_C)

    def _handle(self, number: int, frame: Any) -> None:
        if self._holds(number):
            self._pending[number] = frame
        else:
            self.ajar = False  # What the handler raises may come before `let_in` could do that.
            self._previous[number](number, frame)

    def let_through(self) -> None:
        """Call the user's own handlers for the signals that came while they were held back."""
        for number in list(self._pending) if self._pending else ():
            if not self._holds(number) and number in self._pending:
                frame = self._pending.pop(number)
                try:
                    self._previous[number](number, frame)
                finally:
                    self.let_through()  # Those that came with it, if this one raises.


class _Held:
    """A block that Ctrl-C does not fall into: ``with held:``. It raises at the end of the block instead."""

    def __enter__(self) -> None:
        if threading.get_ident() == _main_thread:
            if not deferrable.depth:
                deferrable.install()
            deferrable.depth += 1
            deferrable.holding += 1

    def __exit__(self, *exc: object) -> None:
        if threading.get_ident() == _main_thread:
            # Ctrl-C comes through at the end, when all is as it was before.
            try:
                deferrable.__exit__()
            finally:
                deferrable.holding -= 1
            deferrable.let_through()


def let_in(func: Callable[..., T], *args: Any) -> T:
    """Call code of the user in a held block: Ctrl-C may come while it runs, as it may take long."""
    if threading.get_ident() != _main_thread:
        return func(*args)
    try:
        deferrable.ajar = True
        deferrable.let_through()
        return func(*args)
    finally:
        deferrable.ajar = False


def came_to_us(interrupt: KeyboardInterrupt) -> bool:
    """Tell whether a Ctrl-C came while we waited, so that the way that it took through us tells nobody anything.

    Otherwise it came to code of the user: a callback, a log handler, a signal handler.
    """
    trace = interrupt.__traceback__
    while trace is not None:
        if str(dict.get(trace.tb_frame.f_globals, "__name__")).partition(".")[0] not in _WAITING:
            return False
        trace = trace.tb_next
    return True


def shorten(interrupt: KeyboardInterrupt) -> None:
    """Leave out of the story of a Ctrl-C that came to us the way that it took, and those that came just before it."""
    interrupt.__traceback__ = None
    before = interrupt.__context__
    while isinstance(before, KeyboardInterrupt) and came_to_us(before):
        interrupt.__context__ = before = before.__context__


def came_by_signal(error: BaseException) -> bool:
    """Tell whether a signal handler of the user raised this, so it is no fault of what was going on."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is _Deferrable._handle.__code__:
            return True
        trace = trace.tb_next
    return False


# The packages in which we wait: our own, and what waits for us.
_WAITING = frozenset({__name__.partition(".")[0], "selectors", "multiprocessing"})


def ignore_from_now_on() -> None:
    """Ignore Ctrl-C until the program has ended, which it is about to."""
    while threading.get_ident() == _main_thread:
        try:
            signal.signal(signal.SIGINT, int(signal.SIG_IGN))  # C knows no enumerations.
            return
        except KeyboardInterrupt:
            continue  # It came just before.
        except (ValueError, OSError):
            return


class _OwnCode:
    """Tells whether what is delivered has come to code of the user: then Ctrl-C there is the user's own affair.

    Until then it was not delivered, and is when the queue is driven again. Whoever delivers is alone at it.
    """

    reached = False


def _find_main_thread() -> None:
    global _main_thread
    _main_thread = threading.main_thread().ident
    if _main_thread == threading.get_ident() and not in_main_interpreter():
        _main_thread = None  # No signals come here.


def in_main_interpreter() -> bool:
    """Tell whether the main thread, which asks, is that of the program, and not of a sub-interpreter (PEP 734)."""
    handler = signal.getsignal(_CTRL_C)
    try:
        if handler is not None:
            signal.signal(_CTRL_C, handler)
    except ValueError:
        return False
    return True


_find_main_thread()
deferrable = _Deferrable()
held = _Held()
own_code = _OwnCode()


def _start_over_after_fork() -> None:
    """Let go of the blocks of the main thread, if it was another thread that forked: they end in no copy."""
    forked_in_main = threading.get_ident() == _main_thread
    _find_main_thread()
    if not forked_in_main:
        deferrable.start_over()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over_after_fork)

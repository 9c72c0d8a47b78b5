# SPDX-License-Identifier: MIT
"""Ctrl-C at the right moment.

A KeyboardInterrupt may fall between any two steps of a program. While the queue is driven from the main thread, it is
held back for the microseconds in which messages are taken in and counted, so that nothing is ever half done, and let
through everywhere else: while waiting, and in the user's own callbacks. Handlers of the user (notebooks, asyncio) are
called as they would have been, only that much later.
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

__all__ = ["came_to_us", "deferrable", "held", "ignore_from_now_on", "let_in", "own_code"]

_main_thread: int | None = None


class _Deferrable:
    """A block in which Ctrl-C can be held back: ``with deferrable:``. Blocks nest."""

    def __init__(self) -> None:
        self.depth = 0
        self.holding = 0
        self.ajar = False
        self._pending: Any = None
        self._previous: Any = None

    def __enter__(self) -> None:
        if threading.get_ident() != _main_thread:
            return
        self.install()
        self.depth += 1

    def install(self) -> None:
        """Set our handler, unless it is there: a Ctrl-C between two steps of ours may have left it; no harm done."""
        previous = signal.getsignal(signal.SIGINT)
        if previous != self._handle:
            # SIG_IGN, SIG_DFL and handlers made in C are not ours to delay.
            self._previous = previous if callable(previous) else None
            if self._previous is not None:
                signal.signal(signal.SIGINT, self._handle)

    def __exit__(self, *exc: object) -> None:
        if threading.get_ident() != _main_thread:
            return
        self.depth -= 1
        if self.depth == 0 and self._previous is not None:
            self.holding += 1
            try:
                if signal.getsignal(signal.SIGINT) == self._handle:  # Unless a callback of the user set another.
                    signal.signal(signal.SIGINT, self._previous)
            finally:
                self.holding -= 1
            self.let_through()

    def start_over(self) -> None:
        """Forget the blocks that this thread is in."""
        self.depth = self.holding = 0
        self.ajar = False
        self._pending = None
        if self._previous is not None and signal.getsignal(signal.SIGINT) == self._handle:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: Any) -> None:
        if self.holding > self.ajar:
            self._pending = frame
        else:
            self.ajar = False  # What the handler raises may come before `let_in` could do that.
            self._previous(number, frame)

    def let_through(self) -> None:
        """Call the user's own handler for a Ctrl-C that came while it was held back, if one did."""
        if self._pending is not None and self.holding <= self.ajar:
            frame, self._pending = self._pending, None
            self._previous(signal.SIGINT, frame)


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
        if trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] not in _WAITING:
            return False
        trace = trace.tb_next
    return True


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

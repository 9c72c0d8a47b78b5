# SPDX-License-Identifier: MIT
"""The outbox: what is to be shown and told, in the order in which it happened.

Taking in what workers send and telling of it are two steps. The first must not be interrupted and calls no code of the
user; the second runs the user's callbacks, log handlers and `sys.stdout`, which may take their time, raise, press on
with `kill` or `run`, or be interrupted by Ctrl-C: then what was not told yet is told when the queue is driven again.
"""

from __future__ import annotations

import collections
import threading
from typing import TYPE_CHECKING, Any, Callable

from .interrupts import came_by_signal, held, own_code

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["After", "Outbox"]

# A callback of one thread keeps others from delivering, so that callbacks come in order and one at a time. One that
# waits for such a thread would wait for ever: after so many seconds the other takes note of what has ended, and leaves
# the callbacks to the first. Longer: more of a wait where that happens; shorter: the order is lost sooner.
PATIENCE = 1.0

# What an entry does is done while Ctrl-C is held back; what it gives, code of the user, is called after that.
After = Callable[[], object]


class Outbox:
    """Holds entries, each of them a function with its arguments, and works them off one after another.

    A function gives the code of the user that is to be called next, or None, or an iterator of such; the iterator goes
    on after each call.

    Args:
        worked_off: Is called when there was nothing more to do, or code of the user comes next.

    Attributes:
        broken_off: Something was raised while it was delivered, Ctrl-C perhaps, so that there may be more to tell.
    """

    def __init__(self, worked_off: Callable[[], object]) -> None:
        self._worked_off = worked_off
        # Held by who calls code of the user, and by who works off entries.
        self._lock = threading.RLock()
        self._working = threading.RLock()
        self._patience_lost = False  # with the thread that is at it now
        self._entries: collections.deque[tuple[Callable[..., Any], tuple[Any, ...]]] = collections.deque()
        # An entry that was begun and has more to give.
        self._begun: Iterator[After | None] | None = None
        # What is to be called next of the user's own code, and whether somebody is at it.
        self._afters: collections.deque[After] = collections.deque()
        self._delivering = False
        self.broken_off = False

    def __bool__(self) -> bool:
        return bool(self._entries)

    def is_calling(self) -> bool:
        """Tell whether this thread is in code of the user that is called from here."""
        return self._delivering and self._lock._is_owned()  # type: ignore[attr-defined]

    def post(self, what: Callable[..., After | Iterator[After | None] | None], *args: Any) -> None:
        """Add an entry."""
        self._entries.append((what, args))

    def put_back(self, what: Callable[..., After | Iterator[After | None] | None], *args: Any) -> None:
        """Put the entry that is just worked off back in front."""
        self._entries.appendleft((what, args))

    def deliver(self) -> bool:
        """Work off all entries, and call what they give; tell whether that was code of the user."""
        acquired = False
        try:
            with held:  # Ctrl-C between having the lock and knowing it would leave it locked for good.
                acquired = self._lock.acquire(timeout=0 if self._patience_lost else PATIENCE)
                if not acquired:
                    self._patience_lost = True
                    self._work_off(everything=True)
                elif self._delivering:
                    # A callback of the user has called us: its kill() has to be known when it returns, but what that
                    # says comes after the callback, so that callbacks that kill do not pile up.
                    self._work_off(everything=True)
            return acquired and not self._delivering and self._deliver_all()
        finally:
            if acquired:
                self._patience_lost = False
                self._lock.release()

    def _deliver_all(self) -> bool:
        called, self.broken_off = False, True
        try:
            self._delivering = True
            while True:
                with held:
                    self._work_off()
                if not self._afters:
                    self.broken_off = False
                    return called
                called = True
                self._call_next()
        finally:
            self._delivering = False

    def _call_next(self) -> None:
        """Call code of the user; again later, if Ctrl-C or the like came before that was reached."""
        over, own_code.reached = True, False
        try:
            self._afters[0]()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) or came_by_signal(error):
                over = own_code.reached
            raise
        finally:
            if over:
                self._afters.popleft()

    def _work_off(self, *, everything: bool = False) -> None:
        """Work off entries, as far as the first that calls code of the user; note that call."""
        with self._working:
            while (self._begun is not None or self._entries) and (everything or not self._afters):
                if self._begun is None:
                    what, args = self._entries.popleft()
                    given = what(*args)
                    if given is not None and hasattr(given, "__next__"):
                        self._begun = given
                        continue
                    after = given
                else:
                    try:
                        after = next(self._begun)
                    except StopIteration:
                        self._begun = None
                        continue
                if after is not None:
                    self._afters.append(after)
        self._worked_off()

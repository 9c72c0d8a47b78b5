# SPDX-License-Identifier: MIT
"""Waiting for many connections at once: one selector, callbacks by descriptor.

On Windows, where a selector takes sockets only, `multiprocessing.connection.wait` does it.
"""

from __future__ import annotations

import os
import select
import selectors
import sys
from typing import Any, Callable

__all__ = ["Selector", "make_selector"]

_Callback = Callable[[], object]


class Selector:
    """Waits for what was added; gives the callbacks of what has something to read, or room to write."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        # What ends a nap; also in the selector.
        self._urgent_fds: set[int] = set()
        self._added: dict[int, int] = {}
        # Any thread may write a byte into it to wake the one that waits.
        self._alarm, self._bell = os.pipe()
        os.set_blocking(self._alarm, False)
        os.set_blocking(self._bell, False)
        self._selector.register(self._alarm, selectors.EVENT_READ, self._silence)
        self._urgent_fds.add(self._alarm)

    def add(self, source: Any, callback: _Callback, *, urgent: bool = False) -> None:
        """Watch a descriptor, or anything with `fileno`, for something to read; if `urgent`, also during a nap."""
        key = self._selector.register(source, selectors.EVENT_READ, callback)
        self._added[id(source)] = key.fd
        if urgent:
            self._urgent_fds.add(key.fd)

    def remove(self, source: Any) -> None:
        """Stop watching; again is fine."""
        fd = self._added.pop(id(source), None)
        if fd is not None:
            self._selector.unregister(fd)
            self._urgent_fds.discard(fd)

    def want_room(self, source: Any, wanted: bool) -> None:
        """Watch it for room to write, too, or no longer."""
        fd = self._added.get(id(source))
        if fd is None:
            return
        key = self._selector.get_key(fd)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0)
        if key.events != events:
            self._selector.modify(fd, events, key.data)

    def wait(self, timeout: float | None) -> list[_Callback]:
        """Sleep until something is ready, or `timeout` seconds passed."""
        return [key.data for key, _ in self._selector.select(timeout)]

    def nap(self, seconds: float) -> None:
        """Sleep until something urgent is ready, or so many seconds passed."""
        # A new one each time: a signal handler of the user may call us during a nap, and no poll object is used twice
        # at once. Unlike a selector it needs no descriptor.
        urgent = select.poll()
        for fd in list(self._urgent_fds):
            urgent.register(fd, select.POLLIN)
        urgent.poll(seconds * 1000)

    def wait_for_fd(self, fd: int, timeout: float) -> None:
        """Sleep until this one descriptor has something to read."""
        if fd < 0:
            return
        one = select.poll()  # Unlike a selector it needs no descriptor, of which there may be none left.
        one.register(fd, select.POLLIN)
        one.poll(max(0.0, timeout) * 1000)

    def wake(self) -> None:
        """Make `wait` return; from any thread."""
        try:
            os.write(self._bell, b".")
        except BlockingIOError:
            pass  # It rings already.

    def _silence(self) -> None:
        try:
            os.read(self._alarm, 4096)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close it, and nothing that was added."""
        self._selector.close()
        os.close(self._alarm)
        os.close(self._bell)


def make_selector(sentinels: Callable[[], list[int]]) -> Any:
    """Give the selector of this platform; `sentinels` as for `windows.PipeSelector`."""
    if sys.platform == "win32":
        from .windows import PipeSelector

        return PipeSelector(sentinels)
    return Selector()

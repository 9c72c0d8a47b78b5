# SPDX-License-Identifier: MIT
"""Chunks, the worker's side: many small items of a `map` travel as one task, and each is still known by itself.

    parent   TASK_HEAD, (form, pieces) --CHUNK-->  pieces: items, one after another;
                                                           the watcher's thread may cut them short
                                                        |
                                                        v
                                                   function(item)
                                                        |
    parent   <-- PART: what came of some items --  log: in the page, so it outlives the worker

What finished is told of every millisecond, and when what waits behind a slow item is called back. Where the worker
dies, the parent finds in the log what finished and was not told yet; the item after that is the one that ran.

An entry of the log is the `marshal` of a number, a text or another atom as it was returned, or of a tuple
``(kind, pickle)`` for everything else. `marshal` takes a quarter of the time of `pickle`, and what it writes one after
another is, behind a head of five bytes, a list.
"""

from __future__ import annotations

import marshal
import os
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, Callable

from .coroutines import COROUTINE, run_coroutine
from .page import Page
from .pickling import ATOMS, loads
from .surroundings import moves
from .transport import CUT, CUT_HEAD, PART, PART_HEAD, TOGETHER

if TYPE_CHECKING:
    import contextvars
    from typing import Protocol

    from .transport import WorkerChannel

    class Owner(Protocol):
        """What a chunk needs of its worker."""

        def put_back(self, number: int, *, randomness: bool) -> None: ...

        def pack_value(self, value: Any, func: Any) -> tuple[int, bytes]: ...

        def pack_failure(self, error: BaseException) -> tuple[int, bytes]: ...

        def context(self) -> contextvars.Context: ...

        def end_item(self) -> int: ...

__all__ = ["ARGUMENTS", "FAILED", "ONE", "PACKED", "UNKNOWN", "VALUE", "Chunks", "read_entries"]

# The forms in which pieces, the items of a chunk, travel.
ONE = 0  # an atom, the only argument
ARGUMENTS = 1  # a tuple of atoms, the arguments
PACKED = 2  # the pickle of (args, kwargs)

# The kinds of entries that are no atoms.
VALUE = 0  # what was returned
FAILED = 1  # what `worker.pack_failure` makes of an exception

# An item that took less leaves behind nothing that one looks for after each: a queue with tasks, handlers, streams.
UNTOUCHED = 1e-6
# An item that took less cannot have seeded a random generator: see worker.CAN_SEED.
UNSEEDED = 2e-6

# The marshal format of a list: its letter, and the count. Version 2 is the newest that never refers back to something.
_LIST = struct.Struct("<ci")
_VERSION = 2
# In place of how many: the call back found an item in the middle.
UNKNOWN = 0xFFFFFFFF


def read_entries(data: Any, count: int | None = None) -> list[Any]:
    """Read a piece of a log: atoms as they were returned, and tuples ``(kind, pickle)``.

    Args:
        data: The bytes.
        count: How many entries there are; None if nobody knows.
    """
    if count is not None and count != UNKNOWN:
        entries: list[Any] = marshal.loads(_LIST.pack(b"[", count) + data)
        return entries
    import io

    file, entries = io.BytesIO(data), []
    while file.tell() < len(data):
        entries.append(marshal.load(file))
    return entries


class Chunks:
    """Runs the chunks of a worker, one at a time.

    Args:
        channel: The connection to the parent.
        page: Where the log is kept.
        owner: The worker.
    """

    def __init__(self, channel: WorkerChannel, page: Page, owner: Owner) -> None:
        self._channel = channel
        self._page = page
        self._owner = owner
        self._pid = os.getpid()
        # Guards what follows: the main thread and the watcher's both tell what finished.
        self._lock = threading.RLock()
        self._pieces: list[Any] = []
        self._left: Any = None  # The iterator over them; None if no chunk runs.
        self._chunk = 0
        self._end = 0
        self._told = 0
        self._told_at = Page.LOG
        self._plain = True

    def run(self, chunk: int, thaw: Callable[[], Any], *, fresh: bool, seeded: bool, arguments: Any) -> bytes:
        """Run a chunk; give what is to be told of its last items.

        Args:
            chunk: The number of its first item.
            thaw: Gives the function.
            fresh: Each item gets a fresh copy of it.
            seeded: Each item gets a random sequence of its own.
            arguments: The pickle of (form, pieces).
        """
        form, pieces = loads(arguments)
        log, numbers, owner = self._page.memory, self._page.numbers, self._owner
        write, clock, dump = log.write, time.perf_counter, marshal.dumps
        log.seek(Page.LOG)
        end = Page.LOG
        with self._lock:
            left = iter(pieces)
            self._pieces, self._left = pieces, left
            self._chunk, self._end = chunk, chunk + len(pieces)
            self._told, self._told_at, self._plain = chunk, Page.LOG, True
        number, func, run = chunk - 1, None, owner.context().run
        touched, took = seeded, 0.0
        texts = owner.end_item()
        tell_at = clock() + TOGETHER
        for number, piece in enumerate(left, chunk):
            numbers[0] = end
            if numbers[4]:
                number -= 1  # It is not to begin, but to go back.
                break
            if touched:
                owner.put_back(number, randomness=seeded or took > UNSEEDED)
                run = owner.context().run
            began = clock()
            try:
                if func is None:
                    func = thaw()
                if form == ONE:
                    entry = run(func, piece)
                elif form == ARGUMENTS:
                    entry = run(func, *piece)
                else:
                    args, kwargs = loads(piece)
                    entry = run(func, *args, **kwargs)
                if type(entry) is COROUTINE:
                    entry = run(run_coroutine, entry)
                now = clock()
                if type(entry) not in ATOMS:
                    entry = self._special(owner.pack_value(entry, func))
                data = dump(entry, _VERSION)
            except BaseException as error:
                now = clock()
                data = dump(self._special(owner.pack_failure(error)), _VERSION)
            try:
                end += write(data)
            except ValueError:
                if os.getpid() == self._pid:  # Otherwise the item forked, and this is the copy.
                    self._tell_directly(number, data)
                break
            took = now - began
            touched = took > UNTOUCHED or seeded or moves.seen
            if touched:
                before, texts = texts, owner.end_item()
                if now > tell_at or texts != before:
                    self._tell(number + 1)
                    tell_at = now + TOGETHER
            if fresh:
                func = None
        return self._last(number + 1)

    def running(self) -> int | None:
        """Give the number of the item that runs; None if this is no chunk."""
        with self._lock:
            return None if self._left is None else self._end - self._left.__length_hint__() - 1

    def _special(self, entry: tuple[int, bytes]) -> tuple[int, bytes]:
        self._plain = False
        return entry

    def cut(self) -> None:
        """Give back what was not begun of the running chunk, and tell what finished; for the watcher's thread."""
        with self._lock:
            if self._left is None:
                return
            end = self._page.numbers[0]
            if end > self._told_at:
                # The main thread tells it again: only the main thread knows how many they are.
                self._channel.send(PART, self._head(UNKNOWN, plain=False), self._page.memory[self._told_at : end])
            self._cut()

    def leave(self) -> None:
        """Let go of everything: this process is a copy that an item forked."""
        self._pieces.clear()
        self._page.close()
        self._lock = threading.RLock()  # The watcher, which is not in the copy, may have held it.

    def _head(self, count: int, *, plain: bool) -> bytes:
        return PART_HEAD.pack(self._chunk, self._told, count, not plain)

    def _part(self, until: int) -> bytes:
        """Put together what finished since the last time, up to an item."""
        end = self._page.memory.tell()
        part = self._head(until - self._told, plain=self._plain) + self._page.memory[self._told_at : end]
        self._told, self._told_at, self._plain = until, end, True
        return part

    def _tell(self, until: int) -> None:
        with self._lock:
            self._channel.send(PART, self._part(until))

    def _tell_directly(self, number: int, data: bytes) -> None:
        """Tell of an item for which there is no room in the log, and give back those after it."""
        with self._lock:
            plain = self._plain  # of all since the last time, this one included
            self._channel.send(PART, self._part(number))
            self._channel.send(PART, self._head(1, plain=plain), data)
            self._told = number + 1
            self._cut()

    def _cut(self) -> None:
        """Take away what the main thread has not begun."""
        assert self._left is not None
        # In one step, after which the iterator stands where it is; but the main thread may have been at the end of it.
        self._pieces.clear()
        state: tuple[Any, ...] = self._left.__reduce__()
        if len(state) == 3:
            self._tell_end(self._chunk + state[2])

    def _tell_end(self, end: int) -> None:
        if end < self._end:
            self._end = end
        self._channel.send(CUT, CUT_HEAD.pack(self._chunk, self._end))

    def _last(self, until: int) -> bytes:
        if os.getpid() != self._pid:
            return b""
        with self._lock:
            self._owner.end_item()
            if until < self._end:
                self._tell_end(until)  # It was cut in the very moment in which the last item ended.
            self._left = None
            self._page.numbers[0] = self._page.memory.tell()  # So that no item is taken for one that runs.
            return self._part(until)

# SPDX-License-Identifier: MIT
"""The input of a map: reads items, and makes tasks of them, as many small ones together as a worker does in 2 ms."""

from __future__ import annotations

import itertools
import pickle
import time
from typing import TYPE_CHECKING, Any

from .chunks import ARGUMENTS, ONE, PACKED
from .errors import NotPicklable
from .freeze import freeze_arguments
from .maptasks import ITEM_OVERHEAD, call_of, make_chunk, make_item
from .pickling import ATOMS, dump_small_arguments
from .wrongcalls import check_unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .maptasks import Call, Item

__all__ = ["CHUNK_SECONDS", "READING_SECONDS", "MapInput"]

# Small items travel in chunks that take a worker about so many seconds. Longer: less work for the parent; shorter: less
# of it has to be called back from behind a slow item, and the last chunks end at the same time.
CHUNK_SECONDS = 1.9e-3
# A chunk has at most so many bytes: with another one it must fit into the pipe, or it cannot be called back. One item
# that is larger goes alone.
CHUNK_BYTES = 1 << 15
# The items whose size is known at once.
TEXTS = frozenset({str, bytes})
# Reading the input for longer than so many seconds is interrupted to see what the workers sent.
READING_SECONDS = 2e-3
# From one chunk to the next the number of items grows at most by this factor, until it is known what they take.
GROWTH = 8


class MapInput:
    """Reads the input of a map.

    Args:
        call: What the map does with its items.
        items: Items, or tuples of arguments.

    Attributes:
        count: How many items were read.
        refused: Those that cannot be sent: pairs of number and error.
        exhausted: There are no more.
        failure: What the input raised, if it did.
    """

    def __init__(self, call: Call, items: Iterator[Any]) -> None:
        self._call = call
        self._items = items
        self.refused: list[tuple[int, Exception]] = []
        self.count = 0
        self.exhausted = False
        self.failure: Exception | None = None
        self._burst = 1
        self._form = {"one": ONE, "args": ARGUMENTS}.get(call.pass_as, PACKED)
        self._checked = False  # whether the first item fits, where items are several arguments
        self._seconds = 0.0  # to read an item
        self._bytes_in = self._bytes_out = 0.0  # of an item, about

    def size(self) -> int:
        """Say how many items make a task now."""
        pace = self._call.function.pace.seconds
        if self._call.alone or pace is None:
            return 1
        size = min(self._burst, int(CHUNK_SECONDS / max(pace + ITEM_OVERHEAD, self._seconds)))
        bytes_of_item = max(self._bytes_in, self._bytes_out)
        return max(1, min(size, int(CHUNK_BYTES / bytes_of_item)) if bytes_of_item else size)

    def is_slow(self) -> bool:
        """Tell whether an item took long to read."""
        return self._seconds > READING_SECONDS

    def note_results(self, size: int, count: int) -> None:
        """Learn how many bytes results have: those of a chunk must fit into the log of a worker."""
        self._bytes_out = max(size / count, self._bytes_out * 0.9)

    def let_go(self) -> None:
        """Read no more, and refer to the input no longer: a generator that nobody else holds is closed by that."""
        self.exhausted = True
        self._items = iter(())

    def take(self, count: int) -> list[Item]:
        """Read so many items, or those that are left, and make tasks of them.

        Each is frozen before the next one is read, since a generator may change what it gave before.
        """
        first, began = self.count, time.perf_counter()
        if count == 1:
            tasks = self._take_one()
        else:
            tasks = self._take_many(count)
            self._burst = max(self._burst, count * GROWTH)
        if self.count > first:
            self._seconds = (time.perf_counter() - began) / (self.count - first)
        return tasks

    def _take_one(self) -> list[Item]:
        self._burst = max(self._burst, GROWTH)
        try:
            item = next(self._items)
        except StopIteration:
            self.exhausted = True
            return []
        except Exception as error:
            self.exhausted, self.failure = True, error
            return []
        self.count += 1
        return self._alone(self.count - 1, item)

    def _take_many(self, count: int) -> list[Item]:
        first, form, pieces, alone = self.count, self._form, [], None
        clock = time.perf_counter
        room, until = CHUNK_BYTES, clock() + READING_SECONDS
        try:
            for item in itertools.islice(self._items, count):
                kind = type(item)
                if form == ONE and kind in ATOMS:
                    pieces.append(item)
                    if kind in TEXTS:
                        room -= len(item)
                        if room < 0:
                            break
                    if clock() > until:
                        break  # What was read is worked on; there is more where it came from.
                    continue
                if form == ARGUMENTS and kind is tuple and ATOMS.issuperset(map(type, item)):
                    pieces.append(item)
                    room -= sum(map(len, [part for part in item if type(part) in TEXTS]))
                    if room < 0 or clock() > until:
                        break
                    continue
                if form != PACKED:
                    pieces = [pickle.dumps(call_of(form, piece), 5) for piece in pieces]
                    form = self._form = PACKED
                piece = self._pack(item)
                if piece is None:
                    alone = self._alone(first + len(pieces), item)
                    break
                pieces.append(piece)
                room -= len(piece)
                if room < 0 or clock() > until:
                    break
            else:
                self.exhausted = len(pieces) < count
        except Exception as error:
            self.exhausted, self.failure = True, error
        self.count += len(pieces) + (alone is not None)
        tasks: list[Item] = []
        self._add_chunks(tasks, first, form, pieces)
        return tasks + (alone or [])

    def _pack(self, item: Any) -> bytes | None:
        """Serialise an item by itself; None if it is too large for a chunk, or cannot travel at all.

        Not together with others, since two items may share an object, of which each call is to get its own copy.
        """
        try:
            piece = dump_small_arguments(*self._arguments(item))
        except Exception:
            return None
        if len(piece) <= CHUNK_BYTES // 2:
            return piece
        self._bytes_in = len(piece)
        return None

    def _add_chunks(self, tasks: list[Item], first: int, form: int, pieces: list[Any]) -> None:
        """Add a chunk of these pieces to the tasks, or several if they are too large for one."""
        if not pieces:
            return
        data = pickle.dumps((form, pieces), 5)
        if len(pieces) == 1 or len(data) <= CHUNK_BYTES:
            self._bytes_in = max(len(data) / len(pieces), self._bytes_in / 2)
            tasks.append(make_chunk(self._call, first, form, pieces, data))
            return
        half = len(pieces) // 2
        self._add_chunks(tasks, first, form, pieces[:half])
        self._add_chunks(tasks, first + half, form, pieces[half:])

    def _alone(self, number: int, item: Any) -> list[Item]:
        """Make a task of one item; none if it cannot travel, which is its result then."""
        call = self._call
        try:
            args, kwargs = self._arguments(item)
            frozen = freeze_arguments(call.func, call.function, args, kwargs, number=number, here=call.here)
        except NotPicklable as error:
            text = str(error).replace("cannot send task ", "cannot send item ", 1)
            self.refused.append((number, NotPicklable(text)))
            return []
        except Exception as error:
            self.refused.append((number, error))
            return []
        return [make_item(call, number, frozen)]

    def _arguments(self, item: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments, positional and by keyword, of the call for an item."""
        pass_as = self._call.pass_as
        if pass_as == "one":
            return (item,), {}
        try:
            args, kwargs = (tuple(item), {}) if pass_as == "args" else ((), dict(item))
        except (TypeError, ValueError) as error:
            wanted = "the arguments, as a tuple" if pass_as == "args" else "the keyword arguments, as a dict"
            raise TypeError(
                f'with pass_as="{pass_as}" each item must be {wanted}, got {item!r:.60}. '
                f'A single argument is passed with pass_as="one"'
            ) from error
        if not self._checked:
            self._checked = True
            check_unpacked(self._call.func, args, kwargs, item)
        return args, kwargs

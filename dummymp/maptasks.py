# SPDX-License-Identifier: MIT
"""The tasks of a map: one for one item, or a chunk, one for many small ones.

They travel as the tasks of queues do, but nobody gets hold of them, and messages call them items.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, NamedTuple

from .chunks import ONE, PACKED, read_entries
from .fate import unpack_failure
from .freeze import Frozen, FunctionBlob, arguments_text
from .task import Task

if TYPE_CHECKING:
    from .pace import Pace

__all__ = ["ITEM_OVERHEAD", "Call", "Chunk", "Item", "call_of", "failure_of", "make_chunk", "make_item", "split"]

# What a worker needs for each item of a chunk besides the function itself.
ITEM_OVERHEAD = 0.4e-6


class Call(NamedTuple):
    """What a map does with its items.

    Attributes:
        func: The function.
        name: What messages call it.
        function: It in bytes.
        surroundings: What surrounded the call of map.
        pass_as: "one", "args" or "kwargs".
        ordered: Results come in the order of the items.
        ahead: Read at most so many items ahead; None: as many as keep the workers busy.
        returns: Exceptions are given in place of results. Otherwise they are raised.
        timeout: The most seconds for an item, or None.
        retries: So many times an item that failed runs again.
        alone: Each item is a task of its own.
        here: Items run in this very process.
    """

    func: Any
    name: str
    function: FunctionBlob
    surroundings: Any
    pass_as: str
    ordered: bool
    ahead: int | None
    returns: bool
    timeout: float | None
    retries: int
    alone: bool
    here: bool


class Item(Task[Any]):
    """A task for one item."""

    _more_time = "dummymp.map(..., timeout=...)"

    __slots__ = ()

    def _describe(self) -> str:
        """Put it in words for a message: ``item 7, simulate('big.csv')``."""
        return f"item{super()._describe()[4:]}"


class Chunk(Item):
    """A task for many items; `index` is the number of the first.

    Attributes:
        form: How the pieces travel, see `chunks`.
        items: The items, each a piece.
        told: The first item of which nothing is known yet.
        end: The item after the last.
        log: What the page of the worker says of the items that ended, once somebody looked.
        whole: It has not been cut.
    """

    __slots__ = ("end", "form", "items", "log", "told", "whole")

    def __init__(self, index: int, call: Call, form: int, pieces: list[Any]) -> None:
        super().__init__(_nobody, index, call.name, timeout=call.timeout, retries=0)
        self.form = form
        self.items = pieces
        self.told = index
        self.end = index + len(pieces)
        self.log: bytes | None = None
        self.whole = True
        self._chunk = self

    def running(self) -> int | None:
        """Give the number of the item that ran when the log was read; None if none did, or nobody knows."""
        if self.log is None:
            return None
        number = self.index + len(read_entries(self.log))
        return number if self.told <= number < self.end else None

    def arguments_of(self, number: int) -> bytes:
        """Give the pickle of ``(args, kwargs)`` of an item."""
        piece = self.items[number - self.index]
        if self.form == PACKED:
            return bytes(piece)
        return pickle.dumps(call_of(self.form, piece), 5)

    def _describe(self) -> str:
        """Put the item that ran in words."""
        number = self.running()
        if number is None:
            return f"items {self.told} to {self.end - 1} of {self.name}(...)"
        return f"item {number}, {self.name}({arguments_text(self.arguments_of(number))})"


def call_of(form: int, piece: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give the arguments of the call for a piece that is not packed."""
    return ((piece,) if form == ONE else piece), {}


class _Nobody:
    """Stands where a task of a queue has its queue: nobody gets hold of a task of a map."""

    def _drive_task(self, task: Task[Any], timeout: float | None) -> None:
        raise NotImplementedError

    def _go_a_round(self) -> None:
        raise NotImplementedError

    def kill(self, task: Task[Any]) -> bool:
        raise NotImplementedError


_nobody = _Nobody()


class _ChunkPace:
    """The pace of a chunk, of which engines know: learns what an item takes from what all took."""

    __slots__ = ("_chunk", "_item", "seconds")

    def __init__(self, chunk: Chunk, item: Pace, seconds: float) -> None:
        self._chunk = chunk
        self._item = item
        self.seconds: float | None = seconds

    def note(self, seconds: float) -> None:
        """Learn, half of it each time: a chunk that a busy machine held up says little, and a slow item was cut off."""
        each = max(0.0, seconds / max(1, self._chunk.end - self._chunk.index) - ITEM_OVERHEAD)
        before = self._item.seconds
        self._item.seconds = each if before is None else (before + each) / 2


def make_item(call: Call, number: int, frozen: Frozen, *, attempts: int = 0) -> Item:
    """Make the task of one item, which was begun so many times before."""
    task = Item(_nobody, number, call.name, timeout=call.timeout, retries=call.retries)
    task.attempts = attempts
    task._take(frozen, call.surroundings)
    return task


def make_chunk(call: Call, first: int, form: int, pieces: list[Any], data: bytes) -> Chunk:
    """Make the task of many items; `data` is the pickle of ``(form, pieces)``."""
    chunk = Chunk(first, call, form, pieces)
    pace = call.function.pace
    expected = len(pieces) * ((pace.seconds or 0.0) + ITEM_OVERHEAD)
    chunk._take(Frozen(call.function.twin(_ChunkPace(chunk, pace, expected)), data), call.surroundings)
    return chunk


def split(call: Call, chunk: Chunk, first: int, end: int, step: int) -> list[Item]:
    """Make new tasks of the items of a chunk from `first` up to `end`, so many each."""
    tasks: list[Item] = []
    for start in range(first, end, step):
        pieces = chunk.items[start - chunk.index : min(start + step, end) - chunk.index]
        if len(pieces) == 1:
            frozen = Frozen(call.function, chunk.arguments_of(start))
            tasks.append(make_item(call, start, frozen))
        else:
            data = pickle.dumps((chunk.form, pieces), 5)
            tasks.append(make_chunk(call, start, chunk.form, pieces, data))
    return tasks


def failure_of(call: Call, chunk: Chunk, number: int, body: bytes) -> tuple[BaseException, str]:
    """Rebuild the exception of an item of a chunk; the same as `unpack_failure`."""
    frozen = Frozen(call.function, chunk.arguments_of(number))
    rebuild, how = unpack_failure(make_item(call, number, frozen), body)
    return rebuild(), how

# SPDX-License-Identifier: MIT
"""Repeats: calls of `run` that differ from one before in their arguments alone.

Most scripts queue the same function again and again. What its first call found out, what the function is called and
captures, whether its arguments fit, what surrounds it, holds for the next ones as long as nothing has changed, and to
see that takes less than half the time.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Callable

from .captures import unchanged
from .fitting import check_fit
from .freeze import FunctionBlob, Remembered, freeze_objects, remembered
from .pickling import dump_plain_arguments
from .task import Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .memoryfile import Piece
    from .task import Owner

__all__ = ["Repeat", "repeat_of"]


def repeat_of(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], task: Task[Any], engine: Any
) -> Repeat | None:
    """Give what the next call of a function has in common with this one; None if each has to be looked at by itself.

    Args:
        func: The function; positional and keyword arguments follow as a tuple and a dict.
        task: What became of the call, not yet begun.
        engine: Who has frozen it.
    """
    known = remembered(func)
    if known is None or not isinstance(known.blob, FunctionBlob):
        return None
    return Repeat(known, id(func), len(args), tuple(kwargs), task, engine)


class Repeat:
    """What the next call of a function has in common with one that was queued. Made by `repeat_of`.

    It keeps nothing of the function alive.

    Attributes:
        key: The id of the function.
        engine: Who has frozen the call.
    """

    __slots__ = ("_count", "_known", "_name", "_names", "_retries", "_surroundings", "_timeout", "engine", "key")

    def __init__(
        self, known: Remembered, key: int, count: int, names: tuple[str, ...], task: Task[Any], engine: Any
    ) -> None:
        self.key = key
        self.engine = engine
        self._known = weakref.ref(known)
        self._count = count
        self._names = names
        self._name, self._timeout, self._retries = task.name, task._timeout, task._retries
        assert task._surroundings is not None
        self._surroundings = task._surroundings

    def again(
        self, queue: Owner, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Task[Any] | None:
        """Make a task of a call, without a number; None if more than its arguments may be different.

        Raises:
            TypeError: The arguments do not fit.
        """
        known = self._known()
        if (
            known is None
            or known.function() is not func
            or not self._surroundings.hold()
            or not unchanged(known.snapshot)
        ):
            return None
        if len(args) != self._count or ((kwargs or self._names) and tuple(kwargs) != self._names):
            check_fit(func, args, kwargs)
        pieces: Sequence[Piece] = ()
        try:
            arguments = dump_plain_arguments(args, kwargs)
            if arguments is None:
                arguments, pieces = freeze_objects(args, kwargs)
        except Exception:
            return None  # `freeze` says what is wrong with them.
        task: Task[Any] = Task(queue, -1, self._name, self._timeout, self._retries)
        task._function = known.blob  # type: ignore[assignment]  # A light one: `repeat_of` has looked.
        task._arguments, task._pieces, task._surroundings = arguments, pieces, self._surroundings
        return task

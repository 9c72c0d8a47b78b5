# SPDX-License-Identifier: MIT
"""The pace of a function: how long its calls take, learned from those that ended."""

from __future__ import annotations

import functools
import types
import weakref
from typing import Any, Callable

__all__ = ["Pace", "pace_of"]


class Pace:
    """How long the calls of one function take.

    Attributes:
        seconds: What to expect of the next call; None if nobody knows.
    """

    __slots__ = ("__weakref__", "seconds")

    def __init__(self) -> None:
        self.seconds: float | None = None

    def note(self, seconds: float) -> None:
        """Learn from a call: a slow one counts at once, fast ones little by little."""
        before = self.seconds
        self.seconds = seconds if before is None or seconds >= before else (before + seconds) / 2


# By the code of the function, so that lambdas made in a loop have one pace; by its name where there is no code.
_by_code: weakref.WeakKeyDictionary[Any, Pace] = weakref.WeakKeyDictionary()
_by_name: weakref.WeakValueDictionary[str, Pace] = weakref.WeakValueDictionary()


def pace_of(func: Callable[..., Any]) -> Pace:
    """Give the pace of a function, or of anything that can be called; the same each time."""
    inner: Any = func
    while isinstance(inner, (functools.partial, functools.partialmethod)):
        inner = inner.func
    code = getattr(inner, "__code__", None)
    if isinstance(code, types.CodeType):  # There are objects that give something for every name.
        return _by_code.setdefault(code, Pace())
    name = f"{getattr(inner, '__module__', '')}.{getattr(inner, '__qualname__', type(inner).__qualname__)}"
    return _by_name.setdefault(name, Pace())

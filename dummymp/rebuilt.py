# SPDX-License-Identifier: MIT
"""Functions that are built anew for each call, because it may have changed what they capture: where that takes longer
than the call itself, that is told of, once for each function.
"""

from __future__ import annotations

from typing import Any

from .explain import function_name, heaviest
from .pickling import dumps

__all__ = ["Rebuilt"]

# To build a function may take so many seconds without a word.
FREE = 0.02
# The first time it loads modules, too, and others may be in the way once.
TIMES = 3


class Rebuilt:
    """Counts how often building a function took longer than calling it, in one worker."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def note(self, number: int, func: Any, built: float, called: float) -> str | None:
        """Take note of a call; give what is to be said, None if that is nothing.

        Args:
            number: By which the function is known.
            func: The function.
            built: How long it took to build, in seconds.
            called: How long it ran.
        """
        if built <= FREE or built <= called:
            return None
        self._counts[number] = count = self._counts.get(number, 0) + 1
        where = heaviest(func, lambda value: len(dumps(value))) if count == TIMES else ""
        if not where:
            return None
        name = function_name(func)
        return (
            f"note: {name}() is built anew for each call, because a call may change what it uses. That takes longer "
            f"than the call, above all for {where}. Faster: make that in a function with @functools.cache that "
            f"{name}() calls, so each worker makes it once; or use dummymp.map(), which builds its function once in "
            "each worker"
        )

    def forget(self, number: int) -> None:
        """Forget a function."""
        self._counts.pop(number, None)

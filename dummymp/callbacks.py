# SPDX-License-Identifier: MIT
"""The user's callbacks, on_start and on_end: an exception in one is told, and harms nothing."""

from __future__ import annotations

from .explain import function_name
from .hints import TYPE_CHECKING
from .interrupts import came_by_signal, own_code
from .log import logger, to_log

if TYPE_CHECKING:
    from typing import Any, Callable

__all__ = ["Callbacks"]


class Callbacks:
    """Calls the callbacks of one queue.

    One that raises is skipped for that task. The first time is told in full; when it happens again on the same line,
    for each of a thousand tasks perhaps, that is only counted.
    """

    def __init__(self) -> None:
        # How often it happened since it was told, by the text that says what and the line where.
        self._again: dict[tuple[str, int], int] = {}

    def call(self, name: str, callback: Callable[[int, int, int], object], *counts: int) -> None:
        """Call a callback, the setting `name`, with (completed, running, total)."""
        own_code.reached = True
        try:
            callback(*counts)
        except Exception as error:
            if came_by_signal(error):
                raise
            self._note(name, callback, error)

    def _note(self, name: str, callback: Any, error: Exception) -> None:
        what = f"your {name} callback {function_name(callback)} raised {type(error).__name__}"
        trace = error.__traceback__
        own = trace.tb_next if trace is not None else None  # The frame before it is ours.
        line, trace = 0, own
        while trace is not None:
            line = trace.tb_lineno
            trace = trace.tb_next
        if (what, line) in self._again:
            self._again[what, line] += 1
            return
        self._again[what, line] = 0
        logger().error(
            "%s: %s. The task itself is fine; the callback is skipped this time.",
            what, error, exc_info=None if own is None else to_log(error, own),
        )  # fmt: skip

    def sum_up(self) -> None:
        """Tell what was only counted, and begin anew."""
        again, self._again = self._again, {}
        for (what, _), count in again.items():
            if count:
                logger().error("%s %s more.", what, "once" if count == 1 else f"{count} times")

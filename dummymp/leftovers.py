# SPDX-License-Identifier: MIT
"""Leftovers: what is said of tasks that have not ended, at the end of the program, to who asks for results that
nobody has worked for, and to who queues others after Ctrl-C. Loaded if there are any.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

from .log import INFO, WARNING, logger

if TYPE_CHECKING:
    from .task import Task

__all__ = ["tell_idle", "tell_left", "tell_old_calls"]

# So many of the tasks that were running are told by name.
NAMED = 3


def tell_left(running: list[Task[Any]], waiting: list[str]) -> None:
    """Say what never ran, and what was stopped: that alone is told to who listens (INFO).

    Args:
        running: The tasks that were running.
        waiting: For each task that was queued, why driving ended before it began; "" if nobody drove.
    """
    left_off = collections.Counter(waiting)
    forgotten = left_off.pop("", 0)
    if running:
        named = "; ".join(task._describe() for task in running[:NAMED]) + "; ..." * (len(running) > NAMED)
        known = "".join(f"{_tasks_were(count)} never run: {why}. " for why, count in left_off.items())
        more = known + (f"{_tasks_were(forgotten)} queued and never run. " if forgotten else "")
        text = "%s running when the script ended, and stopped: %s. %sTo wait for all: dummymp.process_until_done()"
        # Who ends a script while tasks run means them to end; who forgets tasks that wait does not know of it.
        logger().log(WARNING if waiting else INFO, text, _tasks_were(len(running)), named, more)
        return
    for why, count in left_off.items():
        text = "%s never run: %s. To wait for all: dummymp.process_until_done()"
        logger().warning(text, _tasks_were(count), why)
    if forgotten:
        text = "%s queued but never run. Did you forget dummymp.process_until_done()?"
        logger().warning(text, _tasks_were(forgotten))


def tell_idle(waiting: int) -> None:
    """Say that results were asked for and nothing was begun; a loop that waits for them would wait for ever.

    Args:
        waiting: So many tasks are queued.
    """
    none = "the queued task has not" if waiting == 1 else f"none of the {waiting} queued tasks has"
    text = "get_returns() only looks, and %s run yet. To run %s: dummymp.process_until_done()"
    logger().warning(text, none, "it" if waiting == 1 else "them")


def tell_old_calls(waiting: int) -> None:
    """Say that so many calls from before Ctrl-C have not ended, when new ones come from another cell, or line."""
    text = "%s queued before Ctrl-C has not ended, and %s before the new ones. To forget all that was queued: reset()"
    if waiting == 1:
        logger().warning(text, "1 call", "runs")
    else:
        logger().warning(text.replace(" has ", " have "), f"{waiting} calls", "run")


def _tasks_were(count: int) -> str:
    return "1 task was" if count == 1 else f"{count} tasks were"

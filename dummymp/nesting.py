# SPDX-License-Identifier: MIT
"""dummymp inside a task.

It works, but starts no processes of its own: the calls of a task run one after another in that task's share of the
machine, so that ten tasks with ten calls each do not become a hundred processes. Each task finds the hidden queue
empty, and leaves nothing in it.
"""

from __future__ import annotations

import contextlib

from .hints import TYPE_CHECKING
from .log import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

__all__ = ["enter_worker", "hide", "in_task", "in_worker", "note", "task_runs_here", "worker_task_over"]

_say: Callable[[str], None] | None = None
_set_aside: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
_start_over: Callable[[], object] = bool  # Does nothing.
_depth = 0


def enter_worker(say: Callable[[str], None]) -> None:
    """Declare this process a worker; `say` says something once in the whole program."""
    global _say
    _say = say


def in_worker() -> bool:
    """Tell whether this process is a worker."""
    return _say is not None


def in_task() -> bool:
    """Tell whether a task runs here now, so that queues must run their calls inline."""
    return _say is not None or _depth > 0


def note(text: str) -> None:
    """Say something to the user, from inside a task: once in the whole program if this is a worker."""
    if _say is not None:
        _say(text)
    else:
        logger().debug("%s", text)


def hide(set_aside: Callable[[], AbstractContextManager[None]], start_over: Callable[[], None]) -> None:
    """Make known how to put the tasks of the hidden queue aside for a while, and how to forget them."""
    global _set_aside, _start_over
    _set_aside, _start_over = set_aside, start_over


def worker_task_over() -> None:
    """Forget what a task left in the hidden queue of its worker."""
    _start_over()


@contextlib.contextmanager
def task_runs_here() -> Iterator[None]:
    """Mark the time in which a task runs in this process; the hidden queue is empty for it, and as before after it."""
    global _depth
    _depth += 1
    try:
        with _set_aside():
            yield
    finally:
        _depth -= 1

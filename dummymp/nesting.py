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
    from typing import Protocol

    class _Hidden(Protocol):
        """What is needed of the hidden queue."""

        def _set_aside(self) -> AbstractContextManager[None]: ...

        def _has_waiting(self) -> bool: ...

        def _start_over(self) -> bool: ...

__all__ = ["enter_worker", "hide", "in_task", "in_worker", "is_hidden", "note", "task_runs_here", "worker_task_over"]

# Who shows it knows the task.
_LOST = (
    "note: {task}, called dummymp.run() and ended before what it queued there had run, so that is lost. "
    "Inside the task, too, write dummymp.process_until_done(), or use dummymp.results(), before it returns."
)

_told_lost = False
_say: Callable[[str], None] | None = None
_hidden: _Hidden | None = None
_depth = 0


def enter_worker(say: Callable[[str], None]) -> None:
    """Declare this process a worker; `say` says something once in the whole program, ``{task}`` being what runs."""
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


def hide(queue: _Hidden) -> None:
    """Make the hidden queue known."""
    global _hidden
    _hidden = queue


def is_hidden(queue: object) -> bool:
    """Tell whether this is the hidden queue, of which each process has its own."""
    return queue is _hidden


def worker_task_over(*, failed: bool = False) -> None:
    """Forget what a task left in the hidden queue of its worker; say so, unless the task failed, which says enough."""
    if _hidden is not None and _hidden._start_over() and not failed:
        _tell_lost("{task}")


@contextlib.contextmanager
def task_runs_here(describe: Callable[[], str]) -> Iterator[None]:
    """Mark the time in which a task runs in this process; the hidden queue is empty for it, and as before after it.

    Args:
        describe: Puts the task in words.
    """
    global _depth
    _depth += 1
    try:
        with contextlib.nullcontext() if _hidden is None else _hidden._set_aside():
            yield
            if _hidden is not None and _hidden._has_waiting():
                _tell_lost("{task}" if _say is not None else describe())
    finally:
        _depth -= 1


def _tell_lost(task: str) -> None:
    global _told_lost
    if not _told_lost:
        _told_lost = True
        text = _LOST.replace("{task}", task)
        if _say is not None:
            _say(text)
        else:
            logger().warning("%s", text)

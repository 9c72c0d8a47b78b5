# SPDX-License-Identifier: MIT
"""The engine that runs the tasks of one queue in worker processes."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any, Callable

from .freeze import freeze
from .repeats import repeat_of
from .surroundings import capture

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .manager import Manager
    from .options import Options
    from .outbox import After
    from .policy import Decision
    from .task import Task

__all__ = ["ProcessEngine"]


class ProcessEngine:
    """Runs the tasks of one queue in the workers that all queues of the program share.

    Args:
        manager: The manager of the program.
        options: The queue's options, looked at anew for each decision.
        began: Is told of each task that begins: ``began(task)``.
        requeued: Is told of each task that had begun, or was thought to have, and waits again: ``requeued(task)``.
        ended: Is told of each task that ended: ``ended(task, value, error, how)``; `how` is a text for the log.
        went_well: Is told of tasks that one worker ended one after another, all well: ``went_well(pairs of task
            and value)``. It need not have been told that they begin.
        parted: Is told what came of some items of a chunk, before it ends: ``parted(task, part)``.
        cut: Is told that a chunk ends before its end: ``cut(task, item)``, the first that will not run.
            All but the last give what is to be called of the user's own code: a function, an iterator of such, or
            None.
    """

    # What turns a call, and what surrounds it, into bytes.
    freeze = staticmethod(freeze)
    capture = staticmethod(capture)
    # What makes the next call of the same function cheaper.
    repeat_of = staticmethod(repeat_of)

    def __init__(
        self,
        manager: Manager,
        options: Callable[[], Options],
        *,
        began: Callable[[Task[Any]], After | None],
        requeued: Callable[[Task[Any]], After | None],
        ended: Callable[[Task[Any], Any, BaseException | None, str], After | None],
        went_well: Callable[[Iterable[tuple[Task[Any], Any]]], Iterator[After | None]],
        parted: Callable[[Task[Any], Any], After | None] | None = None,
        cut: Callable[[Task[Any], int], None] | None = None,
    ) -> None:
        self._manager = manager
        self.options = options
        self.began = began
        self.requeued = requeued
        self.ended = ended
        self.went_well = went_well
        self._parted = parted
        self._cut = cut
        self.waiting: collections.deque[Task[Any]] = collections.deque()
        self.finished: list[Task[Any]] = []
        self.running = 0
        self.unfinished = 0
        self.driven = 0
        # When somebody went a round who only asked what had ended, by `time.monotonic`.
        self.asked_at = 0.0
        # Nobody will drive for a while: each worker is given one task more than it needs otherwise.
        self.leaving = False
        # A task has failed, and with on_error="stop" nothing more may start before the queue hears of it.
        self.halted = False
        self.closed = False
        self.decision: Decision | None = None
        # What was logged last of why its tasks wait.
        self.told: str | None = None

    def expect(self) -> None:
        """Take note that tasks are being queued, so that the CPUs are measured from now on."""
        self._manager.expect(self)

    def submit(self, tasks: list[Task[Any]], *, first: bool = False) -> None:
        """Add tasks to those that wait, at the end or in front."""
        self._manager.submit(self, tasks, first=first)

    def step(self, timeout: float | None, over: Callable[[], bool] | None = None) -> list[Task[Any]]:
        """Drive until something of ours has ended, or `over()`; give what ended.

        It also ends when `timeout` seconds passed (None: no limit), and when no task is left.
        """
        return self._manager.step(self, timeout, over)

    def go_a_round(self) -> None:
        """Go one round without waiting, unless there was one just now, or another thread drives."""
        self._manager.go_a_round(self)

    def tell_rest(self) -> None:
        """Tell what was not told yet because Ctrl-C, or the like, came first."""
        self._manager.tell_rest()

    def take_in(self) -> None:
        """Take in what workers sent, and start nothing."""
        self._manager.take_in()

    def kill(self, task: Task[Any]) -> bool:
        """Stop a task or drop it; False if it has ended already."""
        return self._manager.kill(self, [task], "kill() was called for it") > 0

    def kill_all(self, waiting: bool, why: str) -> None:
        """Stop what runs and, with `waiting`, drop what waits."""
        self._manager.kill_all(self, waiting, why)

    def worker_pids(self) -> list[int]:
        """Give the process ids of the workers, starting ones too."""
        return self._manager.worker_pids()

    def waiting_for(self) -> str | None:
        """Say what keeps tasks waiting, or None."""
        return self.decision.waiting_for if self.waiting and self.decision is not None else None

    def close(self, *, keep_workers: bool = False) -> None:
        """Drop everything of this queue without a word. With the last queue the workers end, unless they are kept."""
        self._manager.forget(self, keep_workers=keep_workers)

    def end(self, task: Task[Any], value: Any, error: BaseException | None, how: str) -> After | None:
        """Close the books on a task, when the outbox comes to it."""
        if not self._manager.count_ended(self, [task]):
            return None
        self.halted = False
        return self.ended(task, value, error, how)

    def part(self, task: Task[Any], part: Any) -> After | None:
        """Tell what came of some items of a chunk, when the outbox comes to it."""
        if self._parted is not None and self._manager.count_part(self, task):
            return self._parted(task, part)
        return None

    def cut(self, task: Task[Any], item: int) -> None:
        """Tell that a chunk ends before its end."""
        if self._cut is not None and self._manager.count_part(self, task):
            self._cut(task, item)

    def end_well(self, tasks: list[Task[Any]], values: list[Any]) -> Iterator[After | None] | None:
        """Close the books on tasks that went well."""
        if not self._manager.count_ended(self, tasks):
            return None
        return self.went_well(zip(tasks, values))

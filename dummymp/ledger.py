# SPDX-License-Identifier: MIT
"""The ledger of a queue: its tasks, where they stand, what came of them, and how many there are of each kind.

The engine tells it what becomes of tasks, in the order in which that happened. What it gives in return is code of the
user, a callback or a log handler, that is to be called next.
"""

from __future__ import annotations

import functools
import time

from .errors import TasksFailed, WorkerTraceback
from .explain import safe_repr
from .hints import TYPE_CHECKING
from .interrupts import own_code
from .log import ERROR, is_on_stderr, logger

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator
    from typing import Any, Callable

    from .callbacks import Callbacks
    from .options import Options
    from .outbox import After
    from .task import Task

__all__ = ["Ledger"]


class Ledger:
    """Keeps the books of one queue, from one `reset` to the next.

    Args:
        lock: The queue's. It is held while the ends of tasks are noted.
        options: The settings of the queue: `on_start`, `on_end` and `on_error` are looked at.

    Attributes:
        tasks: Those that were not forgotten, in call order.
        forgotten: So many were forgotten, so the next one has this number and theirs together.
        running: So many are known to run now.
        done: So many have ended well.
        failed: So many have ended otherwise.
        stop: The task whose failure ends the others, with on_error="stop", until that was raised.
    """

    def __init__(self, lock: threading.RLock, options: Options) -> None:
        self._lock = lock
        self._options = options
        self.tasks: list[Task[Any]] = []
        self.forgotten = 0
        self.running = self.done = self.failed = 0
        # Those that began and have not ended: what runs, and what waits for its next attempt.
        self._begun = 0
        self._before = 0, 0  # How many were done and failed when nothing was queued or running the last time.
        self.stop: Task[Any] | None = None
        # What has failed since `raise_all`, and whether it is to be raised, whatever is configured by then.
        self._unraised: dict[int, BaseException] = {}
        self._to_raise = False
        self._callbacks: Callbacks | None = None

    def outstanding(self) -> int:
        """Count the tasks that have not ended."""
        return len(self.tasks) - self.done - self.failed

    def counts(self) -> tuple[int, int, int]:
        """Give what callbacks are told: how many tasks have ended, have begun and not ended, and are there at all."""
        return self.done + self.failed, self._begun, len(self.tasks)

    @property
    def next_number(self) -> int:
        """Give the number that the next task will have."""
        return self.forgotten + len(self.tasks)

    def find(self, number: int) -> Task[Any] | None:
        """Give the task with a call number; None if there is none, or it was forgotten."""
        place = number - self.forgotten
        if 0 <= place < len(self.tasks) and self.tasks[place].index == number:
            return self.tasks[place]
        return next((task for task in self.tasks if task.index == number), None)

    def forget(self) -> None:
        """Forget what has ended. Who holds the lock calls it, and sees to what it knows of `tasks`."""
        kept = [task for task in self.tasks if not task._has_ended()]
        self.forgotten += len(self.tasks) - len(kept)
        self.tasks = kept
        self.done = self.failed = 0
        self._before = 0, 0
        self._unraised.clear()

    # --- fates: told by the engine ---

    def began(self, task: Task[Any]) -> After | None:
        """Note that a task begins."""
        if task._has_ended():  # Another thread called reset() just now.
            return None
        first = task.started_at is None
        self._begun += first
        if not task._counted:  # Otherwise we have heard of it.
            task.started_at = time.time()
        self._count_running(task, True)
        return self._callback("on_start", self._options.on_start) if first else None

    def requeued(self, task: Task[Any]) -> None:
        """Note that a task that had begun, or was thought to have, waits again."""
        if task._has_ended():  # Another thread called reset() just now.
            return
        task.state = "queued"
        self._count_running(task, False)

    def _count_running(self, task: Task[Any], runs: bool) -> None:
        self.running += runs - task._counted
        task._counted = runs

    def ended(self, task: Task[Any], value: Any, error: BaseException | None, how: str) -> After | None:
        """Note the end of a task; `how` it failed, for the log."""
        if error is None:
            return next(self.went_well([(task, value)]), None)
        with self._lock:
            if not self._close(task, time.time(), None, error):
                return None
            on_error = self._options.on_error
            if on_error != "stop":
                self._unraised[task.index] = error
                self._to_raise |= on_error == "raise"
            elif self.stop is None and task.started_at is not None:
                self.stop = task
        callback = self._callback("on_end", self._options.on_end) if task.started_at is not None else None
        return functools.partial(_tell_failure, [how] if how else [], error, callback)

    def went_well(self, ends: Iterable[tuple[Task[Any], Any]]) -> Iterator[After | None]:
        """Note the ends of tasks that one worker ended one after another, and what they returned."""
        options = self._options
        if options.on_start is None and options.on_end is None:
            now = time.time()
            with self._lock:
                for task, value in ends:
                    self._close(task, now, value)
            return
        for task, value in ends:
            if task.started_at is None and options.on_start is not None:
                yield self.began(task)
            with self._lock:
                noted = self._close(task, time.time(), value)
            if noted and options.on_end is not None:
                yield self._callback("on_end", options.on_end)

    def _close(self, task: Task[Any], now: float, value: Any, error: BaseException | None = None) -> bool:
        """Note that a task has ended; False if another thread called reset() just now."""
        begun = task.started_at is not None
        if not task._close(now, value, error):
            return False
        if begun:
            self._count_running(task, False)
            self._begun -= 1
        if error is None:
            self.done += 1
        else:
            self.failed += 1
        return True

    def _callback(self, name: str, callback: Callable[[int, int, int], object] | None) -> After | None:
        """Make the call of a callback, with the counts of this moment."""
        if callback is None:
            return None
        if self._callbacks is None:
            from .callbacks import Callbacks

            self._callbacks = Callbacks()
        return functools.partial(self._callbacks.call, name, callback, *self.counts())

    # --- when nothing is queued or running ---

    def end_batch(self) -> tuple[int, int]:
        """Give how many tasks have succeeded and failed since nothing was queued or running the last time."""
        if self._callbacks is not None:
            self._callbacks.sum_up()
        done, failed = self._before
        self._before = self.done, self.failed
        return self.done - done, self.failed - failed

    def sum_up(self, succeeded: int, failed: int) -> None:
        """Say in one line how many have failed, if any, and where the results are."""
        if failed:
            kept = "result is" if succeeded == 1 else f"{succeeded} results are"
            others = f"The other {kept} in get_returns(), the" if succeeded else "The"
            exceptions = "exception is" if failed == 1 else "exceptions are"
            text = "%s failed. %s %s in get_errors()."
            logger().warning(text, self._out_of(failed, succeeded + failed), others, exceptions)

    def raise_all(self, ended: int) -> None:
        """Raise what has failed and was not raised yet, all in one, with on_error="raise"; `ended`: of so many."""
        with self._lock:
            errors, self._unraised = self._unraised, {}
            to_raise, self._to_raise = self._to_raise or self._options.on_error == "raise", False
        if errors and to_raise:
            errors = dict(sorted(errors.items()))
            first = next(iter(errors))
            others = ", the results of the others in get_returns()" if len(errors) < ended else ""
            raise TasksFailed(
                f"{self._out_of(len(errors), ended)} failed; the first is task {first}: {safe_repr(errors[first])}. "
                f"All are in get_errors(){others}",
                errors,
            )

    def _out_of(self, failed: int, ended: int) -> str:
        """Put in words how many of the tasks that ended last have failed: ``2 of 4 tasks``."""
        if ended == 1:
            return "1 task"
        return f"{failed} of {'' if ended == self.done + self.failed else 'the last '}{ended} tasks"


def _tell_failure(texts: list[str], error: BaseException, callback: After | None) -> None:
    try:
        if texts:
            how = texts.pop()
            own_code.reached = True
            logger().error("%s", how)
            cause = vars(BaseException)["__cause__"].__get__(error)
            if type(cause) is WorkerTraceback and cause.text in how:
                cause.told = is_on_stderr(ERROR)
    finally:
        # Ctrl-C may come to a log handler, or now: then this is called again, and has nothing more to log.
        own_code.reached = False
        _call(callback)


def _call(callback: After | None) -> None:
    if callback is not None:
        callback()

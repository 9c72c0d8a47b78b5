# SPDX-License-Identifier: MIT
"""An engine without processes: tasks run here, one after another.

For a debugger, for most tests, and for dummymp inside a task. A task sees what it would see in a worker: its frozen
arguments, the working directory and the environment of its `run` call, its seed. What cannot be had here: a timeout
and `kill` do not stop a task that runs.
"""

from __future__ import annotations

import collections
import functools
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Callable

from . import nesting, seeds
from .contexts import call_here
from .errors import NotPicklable, TaskKilled
from .explain import headline
from .failures import own_trace, story
from .freeze import freeze
from .functions import call_initializer
from .log import logger
from .pickling import dumps, load_arguments, loads
from .seeds import reseed
from .streams import set_numbering
from .surroundings import capture

if TYPE_CHECKING:
    from .task import Task

__all__ = ["InlineEngine"]

_After = Callable[[], object]


class InlineEngine:
    """Runs the tasks of one queue in this process. Arguments: as `ProcessEngine`'s of the same name."""

    # What turns a call, and what surrounds it, into bytes that are read in this process.
    freeze = staticmethod(functools.partial(freeze, here=True))
    capture = staticmethod(capture)

    @staticmethod
    def repeat_of(*args: Any) -> None:
        """Say that each call is frozen by itself."""

    def __init__(
        self,
        *,
        began: Callable[[Task[Any]], _After | None],
        requeued: Callable[[Task[Any]], _After | None],
        ended: Callable[[Task[Any], Any, BaseException | None, str], _After | None],
    ) -> None:
        self._began = began
        self._requeued = requeued
        self._ended = ended
        self.waiting: collections.deque[Task[Any]] = collections.deque()
        self.running = 0
        self.driven = 0
        self._lock = threading.RLock()
        self._at_it = 0  # so many calls of `step`, one in another

    @property
    def unfinished(self) -> int:
        """Count the tasks that have not ended."""
        return len(self.waiting) + self.running

    def expect(self) -> None:
        """Do nothing: there is nothing to prepare."""

    def submit(self, tasks: list[Task[Any]], *, first: bool = False) -> None:
        """Add tasks to those that wait, at the end or in front."""
        if first:
            self.waiting.extendleft(reversed(tasks))
        else:
            self.waiting.extend(tasks)

    def step(self, timeout: float | None, over: Callable[[], bool] | None = None) -> list[Task[Any]]:
        """Run one task to its end, unless `over()`; give it. `timeout` is there for likeness."""
        # Another thread that drives this queue waits here for its turn.
        with self._lock:
            is_over = over is not None and over()
            if is_over or not self.waiting:
                if self.running and not is_over:
                    raise RuntimeError("process_until_done() cannot wait for the task that called it")
                return []
            task = self.waiting.popleft()
            self._at_it += 1
            try:
                _call(self._run(task))
            except BaseException:
                # Ctrl-C, in the task or in a callback: a task that has no end goes on waiting.
                if not task._has_ended():
                    self._requeued(task)
                    self.waiting.appendleft(task)
                raise
            finally:
                self._at_it -= 1
            return [task] if task._has_ended() else []

    def go_a_round(self) -> None:
        """Run one task to its end, unless one runs, or is told of, here or in another thread."""
        if self._lock.acquire(blocking=False):
            try:
                if not self._at_it:
                    self.step(0)
            finally:
                self._lock.release()

    def _run(self, task: Task[Any]) -> _After | None:
        self.running += 1
        try:
            task.state = "running"
            task.attempts += 1
            task._pid = os.getpid()
            _call(self._began(task))
            value, error = self._outcome(task)
        finally:
            self.running -= 1
        if error is not None and task.attempts <= task._retries:
            self._requeued(task)
            self.waiting.append(task)
            return None
        if error is None:
            return self._ended(task, value, None, "")
        trace = own_trace(error)
        after = self._ended(task, None, error, _story(task, error))
        task._value = trace  # For debuggers: `pdb.pm()` finds the line that failed, with its variables.
        return after

    def _outcome(self, task: Task[Any]) -> tuple[Any, BaseException | None]:
        began = time.perf_counter()
        value, error = None, None
        try:
            task._freeze_live()
            assert task._function is not None and task._surroundings is not None
            with _Surroundings(task):
                _initialize(task._surroundings.initializer)
                func = loads(task._function.data)
                args, kwargs = load_arguments(task._arguments)
                began = time.perf_counter()
                with nesting.task_runs_here(task._describe):
                    value = call_here(task._surroundings.context.data, func, *args, **kwargs)
        except KeyboardInterrupt:
            task.attempts -= 1
            raise
        except BaseException as problem:
            error = BaseException.with_traceback(problem, own_trace(problem))
        task.seconds = time.perf_counter() - began
        return value, error

    def tell_rest(self) -> None:
        """Do nothing: what ends is told at once."""

    def take_in(self) -> None:
        """Do nothing: there is nobody else who could send something."""

    def kill(self, task: Task[Any]) -> bool:
        """Drop a task that waits; False if it does not."""
        if task not in self.waiting:
            return False
        self.waiting.remove(task)
        self._drop(task, "kill() was called for it")
        return True

    def kill_all(self, waiting: bool, why: str) -> None:
        """Drop what waits; a task that runs here cannot be stopped."""
        count = 0
        while waiting and self.waiting:
            self._drop(self.waiting.popleft(), why, tell=False)
            count += 1
        if count:
            tasks = "1 waiting task was" if count == 1 else f"{count} waiting tasks were"
            logger().warning("%s dropped, because %s.", tasks, why)

    def _drop(self, task: Task[Any], why: str, *, tell: bool = True) -> None:
        how = f"task {task.index}, {task.name}(...), was dropped before it began, because {why}."
        _call(self._ended(task, None, TaskKilled(how), how if tell else ""))

    def worker_pids(self) -> list[int]:
        """Give the pids of the workers: none."""
        return []

    def waiting_for(self) -> str | None:
        """Say what keeps tasks waiting."""
        return None

    def close(self, *, keep_workers: bool = False) -> None:
        """Drop everything without a word."""
        self.waiting.clear()


# The initializers that were called in this process.
_initialized: list[Callable[[], object]] = []


def _initialize(initializer: Callable[[], object] | None) -> None:
    """Call an initializer before the first task that needs it, as each worker does; again after it has failed."""
    if initializer is not None and all(initializer is not called for called in _initialized):
        call_initializer(initializer, dumps)
        _initialized.append(initializer)


class _Surroundings:
    """Puts a task into its working directory, its environment and its seed, and everything back afterwards."""

    def __init__(self, task: Task[Any]) -> None:
        surroundings = task._surroundings
        assert surroundings is not None
        self._seed, self._cwd, self._variables = surroundings.seed, surroundings.cwd, surroundings.environ
        self._task = task.index
        self._before: tuple[str | None, dict[Any, Any]] = (None, {})
        self._random: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> None:
        from .surroundings import apply_surroundings, current

        self._before = current()
        apply_surroundings(self._cwd, self._variables)
        self._numbering = set_numbering(lambda: self._task)
        self._randomness = seeds.current()
        if self._seed is not None:
            for name, get, put in (("random", "getstate", "setstate"), ("numpy.random", "get_state", "set_state")):
                module = sys.modules.get(name)
                if module is not None and hasattr(module, get):  # Not a file of the user's of that name.
                    self._random.append((module, put, getattr(module, get)()))
            reseed(self._seed, self._task)

    def __exit__(self, *exc: object) -> None:
        from .surroundings import apply_surroundings

        apply_surroundings(*self._before)
        set_numbering(self._numbering)
        seeds.put_back(self._randomness)
        for module, put, state in self._random:
            getattr(module, put)(state)


def _story(task: Task[Any], error: BaseException) -> str:
    if issubclass(type(error), NotPicklable):
        return str(error)
    return f"{task._describe()}, failed: {headline(error)}\n{story(error)}"


def _call(after: _After | None) -> None:
    if after is not None:
        after()

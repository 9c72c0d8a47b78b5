# SPDX-License-Identifier: MIT
"""TaskQueue: records calls, drives them, hands out results."""

from __future__ import annotations

import atexit
import collections
import contextlib
import functools
import os
import sys
import threading
import time
import weakref

from . import nesting
from .cells import current_cell
from .errors import TaskKilled, WorkersCannotStart
from .explain import function_name, headline
from .fitting import check_fit
from .fulldisk import raise_lost, tell_lost
from .hints import TYPE_CHECKING
from .interrupts import came_to_us, deferrable, held, in_main_interpreter, shorten
from .ledger import Ledger
from .namesakes import explained
from .options import Options, lists_settings
from .task import Task

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from types import CodeType, TracebackType
    from typing import Any, Callable

    from typing_extensions import ParamSpec

    from .hints import T
    from .outbox import After
    from .repeats import Repeat

    P = ParamSpec("P")

__all__ = ["TaskQueue"]

# Of so many functions a queue knows what the next call has in common with the last. More: a script with more functions
# than that finds it out again and again; fewer: less memory.
REPEATS = 128
# Who asks for results so often while nothing has begun is told so. Once is no mistake, or is told at the end.
LOOKS = 3

_NESTED_NOTE = (
    "note: a task called dummymp itself. The calls that it queues run one after another in its own worker, "
    "so that the machine is not overloaded."
)


class TaskQueue:
    """A queue of calls of its own, with settings of its own, on the workers that all queues of a program share.

    The functions of the module are the methods of one hidden TaskQueue. These two do the same::

        dummymp.run(f, 1); dummymp.process_until_done(); print(dummymp.get_returns())
        queue = dummymp.TaskQueue(); queue.run(f, 1); queue.process_until_done(); print(queue.get_returns())

    All methods may be called from any thread. With ``with``, the end of the block runs what is queued::

        with dummymp.TaskQueue(max_processes=2) as queue:
            queue.run(f, 1)
        print(queue.get_returns())

    An error in the block stops the tasks instead.

    Args:
        **options: As for `configure`.
    """

    def __init__(self, **options: Any) -> None:
        self._lock = threading.RLock()
        self._options = Options()
        self._options.change(options)
        self._set_empty()
        _queues.add(self)

    def _set_empty(self) -> None:
        self._ledger = Ledger(self._lock, self._options)
        self._handed_over = 0  # so many of the tasks, to the engine
        self._engine: Any = None
        # What is known of the functions that were queued last, by their ids.
        self._repeats: dict[int, Repeat] = {}
        # The code of functions that were queued, by their names; None where it was looked for a `return` in it.
        self._codes: dict[str, Any] = {}
        # Ctrl-C stopped the waiting since the last call was queued, so the user knows that not all has run.
        self._interrupted = False
        # The code at the top level that it stopped then, until new calls come from elsewhere: see `_tell_old_calls`.
        self._interrupted_in: CodeType | None = None
        # What `results` gives begins here: killall() was called since the others were queued.
        self._results_from = 0
        self._looks = 0  # So many times somebody asked for results while nothing had begun.
        # Why driving ended before all was done, and how many calls had been queued by then.
        self._left_off = "", 0

    # --- recording ---

    def run(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Task[T]:
        """Add one function call to the queue.

        These two lines do the same work::

            func(*args, **kwargs)
            dummymp.run(func, *args, **kwargs)

        but the second returns at once: the call waits in the queue until `process_until_done` (or `step`) gives it to a
        worker. It is frozen as it is now: a list that changes afterwards changes nothing in it, and it runs in today's
        working directory with today's environment variables. Only a `numpy.memmap` is no copy: the task reads and
        writes the file.

        Returns:
            The `Task`: where the call stands and, later, what came of it.

        Raises:
            TypeError: `func` is nothing that can be called later, or not with these arguments.
            NotPicklable: The function or an argument cannot be sent to another process; the message says which.
        """
        known: Repeat | None = self._repeats.get(id(func))
        task: Task[T] | None = None
        if known is not None:
            engine = known.engine
            task = known.again(self, func, args, kwargs)
        if task is None:
            engine, task = self._record(func, args, kwargs)
        with self._lock:
            if engine is self._engine:
                ledger = self._ledger
                tasks = ledger.tasks
                if self._handed_over == len(tasks):
                    engine.expect()
                self._interrupted = False
                task.index = ledger.forgotten + len(tasks)
                tasks.append(task)  # In one step: Ctrl-C falls before it or after it.
            else:
                engine = None
        if engine is None:
            return self.run(func, *args, **kwargs)  # Another thread called reset() just now.
        if engine.driven:
            self._hand_over()
        return task

    def _record(self, func: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Task[T]]:
        """Make a task of a call of which nothing is known; give the engine, too, that has frozen it."""
        check_fit(func, args, kwargs)
        if self._interrupted_in is not None:
            self._tell_old_calls()
        options = self._options
        edition = options.edition
        engine = self._engine
        if engine is None:
            with self._lock:
                engine = self._engine or self._start_engine()
        surroundings = engine.capture(options.seed, options.threads_per_task, options.initializer)
        # For now with the number that it will most likely have.
        task: Task[T] = Task(self, self._ledger.next_number, function_name(func), options.timeout, options.retries)
        self._codes.setdefault(task._function_name, getattr(func, "__code__", None))
        self._tell_of_settings(func)
        # That may run code of the user, which may wait for another thread that wants our lock: it is not held.
        if options.copy_args:
            task._freeze(engine, func, args, kwargs, surroundings=surroundings)
            self._remember(engine.repeat_of(func, args, kwargs, task, engine), options, edition)
        else:
            task._live = functools.partial(task._freeze, engine, func, args, kwargs, surroundings=surroundings)
        return engine, task

    def _tell_of_settings(self, func: Callable[..., Any]) -> None:
        if self._options.initializer is None and not self._is_here():
            from .elsewhere import tell_of_settings

            tell_of_settings(func)

    def _tell_old_calls(self) -> None:
        """Say that calls from before Ctrl-C wait still, when the first comes from another cell: it may replace them."""
        waiting = self._ledger.outstanding()
        if waiting and current_cell() is self._interrupted_in:
            return
        self._interrupted_in = None
        if waiting:
            from .leftovers import tell_old_calls

            tell_old_calls(waiting)

    def _remember(self, repeat: Repeat | None, options: Options, edition: int) -> None:
        """Remember a call for the next one of its function, unless a setting has changed since it was recorded."""
        if repeat is not None:
            with self._lock:
                if repeat.engine is self._engine and options is self._options and edition == options.edition:
                    if len(self._repeats) >= REPEATS:
                        self._repeats.clear()
                    self._repeats[repeat.key] = repeat

    def _hand_over(self) -> None:
        """Give the engine the tasks that it has not got yet."""
        if self._handed_over < len(self._ledger.tasks):
            with held, self._lock:
                tasks = self._ledger.tasks[self._handed_over :]
                self._handed_over += len(tasks)
                if tasks and self._engine is not None:
                    self._engine.submit(tasks)

    def _start_engine(self) -> Any:
        ledger = self._ledger
        self._engine = self._make_engine(
            self._is_here(),
            began=ledger.began, requeued=ledger.requeued, ended=ledger.ended, went_well=ledger.went_well,
        )  # fmt: skip
        return self._engine

    def _is_here(self) -> bool:
        return nesting.in_task() or self._options.engine == "inline"

    def _make_engine(self, here: bool, **tell: Any) -> Any:
        if nesting.in_task():
            nesting.note(_NESTED_NOTE)
        with held, explained:  # Ctrl-C in the middle of an import leaves half a module behind.
            if here:
                from .inline import InlineEngine

                return InlineEngine(began=tell["began"], requeued=tell["requeued"], ended=tell["ended"])
            if threading.main_thread() is threading.current_thread() and not in_main_interpreter():
                raise WorkersCannotStart(
                    "only the main interpreter of a program can start workers, and this is another one (of "
                    "concurrent.interpreters). Call dummymp in the main one, or say here: "
                    "dummymp.configure(engine='inline')"
                )
            from .boot import start_early

            start_early()  # The server loads its modules while we load the rest of ours.
            from .engine import ProcessEngine
            from .manager import the_manager

            manager = the_manager()
            manager.prepare()  # The server is its own from now on.
            return ProcessEngine(manager, lambda: self._options, **tell)

    # --- a loop over results ---

    def map(
        self,
        func: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        ordered: bool = True,
        ahead: int | None = None,
        pass_as: str = "one",
        on_error: str = "raise",
        timeout: float | None = None,
        progress: bool = False,
    ) -> Generator[T, None, None]:
        """Call a function for each item, in parallel, and give the results one by one, as they come.

        These two loops do the same work::

            for answer in map(func, items): ...
            for answer in dummymp.map(func, items): ...

        Nothing is read or run before the first result is asked for, and then only so far ahead as keeps the workers
        busy, so the items may be endless. Small items travel many at a time, by the time that they were seen to take.
        A loop that is left early stops the reading and the work. The calls are not those of `run`: they have numbers
        of their own, the items are 0, 1, 2, ..., and no place in `get_returns` and `get_errors`. The function is
        frozen now, an item when it is read.

        Args:
            func: The function. With several iterables it takes one item of each, until the shortest ends.
            ordered: False gives each result as soon as it is there.
            ahead: Read at most so many items ahead of the results that were given. None: about six for each worker, or
                as many small ones as take a few milliseconds; more while everything waits for a slow item.
            pass_as: "one": ``func(item)``; "args": ``func(*item)``; "kwargs": ``func(**item)``.
            on_error: "raise" stops at the first item that fails and raises its exception in its place; "return" gives
                the exception in place of the result, and goes on.
            timeout: The most seconds for one item; it fails with `TaskTimeout`. None: as configured.
            progress: Show a bar (needs tqdm: pip install 'dummymp[progress]').

        Returns:
            A generator of the results.

        Raises:
            TypeError: `func` cannot be called, or there is nothing to go through.
            ValueError: An argument has a value that it cannot have.
            NotPicklable: The function cannot be sent to another process.
            MissingExtra: `progress` without tqdm.
            Exception: While results are read: what the call for an item raised, `TaskTimeout`, `WorkerDied` for the one
                that ran when its worker died, or `NotPicklable` for an item that cannot be sent. And what the
                iterables themselves raise, after the results before it.
        """
        with explained:
            from .lazymap import lazy_map

        here = self._is_here()
        self._tell_of_settings(func)
        return lazy_map(
            func, iterables, self._options, functools.partial(self._make_engine, here), here=here,
            ordered=ordered, ahead=ahead, pass_as=pass_as, on_error=on_error, timeout=timeout, progress=progress,
        )  # fmt: skip

    # --- driving ---

    def process_until_done(self, timeout: float | None = None, progress: bool = False) -> bool:
        """Run the queued calls, in parallel, until nothing is queued or running.

        Args:
            timeout: Go on after so many seconds even if not all is done; what runs goes on running. None waits for all.
            progress: Show a bar (needs tqdm: pip install 'dummymp[progress]').

        Returns:
            True when nothing is queued or running, False if `timeout` seconds passed first.

        Raises:
            TasksFailed: With on_error="raise": at least one task failed; all have run.
            OSError: The disk is full, and what tasks printed could not be written; all have run.
            Exception: With on_error="stop": what the first task that failed raised; the rest was stopped.
            WorkersCannotStart: No worker comes up; the tasks are still queued.
            MissingExtra: `progress` without tqdm.
        """
        until = _until(timeout)
        try:
            with self._show(progress) as bar:
                done = self._drive(lambda: not self._ledger.outstanding(), until, bar)
        except BaseException as error:
            self._leave_off(f"process_until_done() raised {headline(error)}")
            raise
        if not done:
            self._leave_off_in_time(timeout)
        else:
            succeeded, failed = self._ledger.end_batch()
            self._ledger.sum_up(succeeded, failed)
            self._ledger.raise_all(succeeded + failed)
            raise_lost()
        return done

    def step(self, timeout: float = 0) -> bool:
        """Go one round: take in what workers sent, start what may start.

        Args:
            timeout: Wait up to so many seconds for something to end. 0 does not wait at all.

        Returns:
            True when nothing is queued or running.

        Raises:
            As `process_until_done`, with on_error="stop" or "raise".
        """
        _check_seconds(timeout, "process_until_done() waits for all")
        self._raise_stop()  # It may be known from process_queue().
        engine = self._engine
        if engine is not None:
            with deferrable:
                self._hand_over()
                engine.step(timeout)
        self._raise_stop()
        if self._ledger.outstanding():
            return False
        self._ledger.raise_all(sum(self._ledger.end_batch()))
        raise_lost()
        return True

    def _go_a_round(self) -> None:
        """Go one round for who only asks: without waiting, and what `on_error` raises is left to who drives."""
        engine = self._engine
        if engine is not None:
            with deferrable:
                self._hand_over()
                engine.go_a_round()
                self._end_rest()

    def process_process(self) -> bool:
        """Go one round without waiting; the name of `step` in DummyMP 0.5."""
        return self.step()

    def process_queue(self) -> None:
        """Take in what workers sent: results, prints, log records. Start nothing."""
        engine = self._engine
        if engine is not None:
            with deferrable:
                engine.take_in()

    def _drive(self, over: Callable[[], bool], until: float | None, bar: After | None = None) -> bool:
        """Drive until `over()`; False if the time came first."""
        self._raise_stop()  # It may be known from process_queue().
        shown = self._ledger.counts()

        def look() -> bool:
            return over() or self._ledger.stop is not None or (bar is not None and self._ledger.counts() != shown)

        try:
            with deferrable:
                if self._engine is not None:
                    self._engine.tell_rest()
                first = True
                while not over():
                    left = None if until is None else max(0.0, until - time.monotonic())
                    # One round at least, so that asking again and again with a timeout of 0 gets the work done.
                    if left == 0 and not first:
                        return False
                    first = False
                    engine = self._engine
                    if engine is not None:  # None: another thread called reset() just now.
                        self._hand_over()
                        engine.step(left if bar is None else _bar_time(left), look)
                    if bar is not None:
                        shown = self._ledger.counts()
                        bar()
                    self._raise_stop()
        except KeyboardInterrupt as interrupt:
            self._interrupted, self._interrupted_in = True, current_cell()
            self._repeats.clear()  # The next call is looked at, by `_record`.
            if came_to_us(interrupt):
                shorten(interrupt)
                raise interrupt
            raise
        self._raise_stop()
        return True

    def _drive_task(self, task: Task[Any], timeout: float | None) -> None:
        if not task._has_ended() and not self._drive(task._has_ended, _until(timeout)):
            self._leave_off_in_time(timeout)
            raise TimeoutError(f"task {task.index}, {task.name}(...), has not ended after {timeout:g} s; it goes on")
        raise_lost()

    def _leave_off(self, why: str) -> None:
        """Note why driving ended, for what is said if the program ends before the tasks have begun."""
        self._left_off = why, self._ledger.next_number

    def _leave_off_in_time(self, timeout: float | None) -> None:
        reason = self._waiting_for()
        why = f"the timeout of {timeout:g} s passed first"
        self._leave_off(f"{why} ({reason})" if reason else why)

    def _show(self, progress: bool) -> Any:
        from .progress import no_progress, show_progress

        return show_progress(self._ledger.counts, self._waiting_for) if progress else no_progress()

    def _waiting_for(self) -> str | None:
        engine = self._engine
        return None if engine is None else engine.waiting_for()

    def _raise_stop(self) -> None:
        task = self._ledger.stop
        if task is not None:
            with deferrable:
                self._end_rest()
            self._ledger.stop = None
            task._outcome()

    def _end_rest(self) -> None:
        """End all others if a task has failed and on_error="stop"."""
        task = self._ledger.stop
        if task is not None and self._ledger.outstanding():
            self._hand_over()
            self._engine.kill_all(True, f'task {task.index} failed (on_error="stop")')

    # --- results ---

    def get_returns(self) -> dict[int, Any]:
        """Give what the calls returned that went well: ``{call number: result}``, in call order. A copy.

        Looks only: a loop that waits for results calls `step`.
        """
        waiting = 0 if self._handed_over else self._ledger.outstanding()
        if waiting:
            self._looks += 1
            if self._looks == LOOKS:
                from .leftovers import tell_idle

                tell_idle(waiting)
        tasks = [task for task in list(self._ledger.tasks) if task.state == "done"]
        returns = {task.index: task._value for task in tasks}
        if all(value is None for value in returns.values()):
            self._look_for_return(tasks)
        return returns

    def get_errors(self) -> dict[int, BaseException]:
        """Give the exceptions of the calls that did not: ``{call number: exception}``, in call order. A copy.

        Every call that has ended is either here or in `get_returns`.
        """
        tasks = list(self._ledger.tasks)
        return {task.index: task._error for task in tasks if task.state == "failed" and task._error is not None}

    def results(self) -> list[Any]:
        """Drive until all is done; give the results as a list, in call order.

        The calls that were queued before the last `killall` are left out; what came of those of them that had ended is
        in `get_returns`. So are those that `forget` has dropped.

        Raises:
            Exception: What the first task (in call order) that failed raised.
        """
        tasks = [task for task in list(self._ledger.tasks) if task.index >= self._results_from]
        self.process_until_done()
        for task in tasks:
            if task.state == "failed":
                task._outcome()
        values = [task._outcome() for task in tasks]
        if all(value is None for value in values):
            self._look_for_return(tasks)
        return values

    def _look_for_return(self, tasks: Iterable[Task[Any]]) -> None:
        """Say, once for each function, that it lacks a ``return``, if it does: all these tasks gave None."""
        names = collections.Counter(task.name for task in tasks)
        for name, count in names.items():
            code = self._codes.get(name)
            if count > 1 and code is not None:
                from .noreturn import tell_no_return

                self._codes[name] = None
                tell_no_return(name, code, count)

    # --- settings ---

    @lists_settings
    def configure(self, **options: Any) -> Configured:
        """Change settings, for good, or for a ``with`` block.

        ::

            dummymp.configure(max_processes=4)
            with dummymp.configure(timeout=60, retries=2):
                dummymp.run(fetch, url)

        `timeout`, `retries`, `copy_args` and `seed` are remembered by each task when it is queued; the others hold from
        now on for all.

        Args:
            ...

        Raises:
            TypeError: There is no such setting, or its value is of a wrong type.
            ValueError: A value is impossible. Nothing was changed then.
        """
        with self._lock:
            old = self._options.change(options)
            self._repeats.clear()
            if "engine" in old and old["engine"] != self._options.engine:
                self._change_engine(old)
        return Configured(self, old)

    def _change_engine(self, old: dict[str, Any]) -> None:
        if self._ledger.outstanding():
            self._options.change(old)
            raise ValueError("engine cannot change while tasks are queued or running. Call process_until_done() first")
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    # --- stopping ---

    def kill(self, task: Task[Any] | int) -> bool:
        """Stop one task, with every process that it started, or drop it if it still waits.

        Args:
            task: What `run` returned, or its call number.

        Returns:
            True if that ended it (it is in `get_errors` as `TaskKilled`), False if it had ended before.
        """
        if isinstance(task, Task) and task._queue is self and task._has_ended():
            return False  # Also if another thread called reset() just now.
        found = self._find(task)
        if found is None or found._has_ended() or self._engine is None:
            return False
        with deferrable:
            self._hand_over()
            return bool(self._engine.kill(found))

    def _find(self, task: Task[Any] | int) -> Task[Any] | None:
        """Give a task of this queue; None if it has ended and was forgotten."""
        if isinstance(task, Task):
            if self._ledger.find(task.index) is not task:
                raise ValueError(f"{task!r} is not in this queue (reset() forgets the tasks before it)")
            return task
        if isinstance(task, bool) or not isinstance(task, int):
            raise TypeError(f"kill() needs what run() returned, or a call number, got {task!r}")
        count = self._ledger.next_number
        if not 0 <= task < count:
            raise ValueError(f"there is no task {task}; {count} were queued, numbered from 0")
        return self._ledger.find(task)

    def killall(self, queued: bool = True) -> None:
        """Stop all tasks that run and drop those that wait. Results so far stay; what was stopped is in `get_errors`.

        `results` then gives only what is queued afterwards.

        Args:
            queued: False keeps what waits.
        """
        self._kill_all(queued, "killall() was called")

    def _kill_all(self, queued: bool, why: str) -> None:
        if self._engine is not None:
            with deferrable:
                self._hand_over()
                self._engine.kill_all(queued, why)
        left = (task.index for task in list(self._ledger.tasks) if not task._has_ended())
        self._results_from = next(left, self._ledger.next_number)

    def forget(self) -> None:
        """Forget the calls that have ended: their results and exceptions. What is queued or running stays.

        So do the settings, and the numbers: the next call has the number that it would have had. A `Task` that you
        hold keeps its own result.
        """
        with held, self._lock:
            waiting = len(self._ledger.tasks) - self._handed_over
            self._ledger.forget()
            self._handed_over = len(self._ledger.tasks) - waiting

    def reset(self) -> None:
        """Go back to the state after import: no tasks, no results, numbers from 0, default settings, no workers."""
        with deferrable, self._lock:
            if self._engine is not None:
                self._engine.close()
            manager = sys.modules.get("dummymp.manager")
            if manager is not None:
                manager.end_unused_workers()
            self._options = Options()
            self._let_go("reset() was called")
            self._set_empty()

    def _let_go(self, why: str) -> None:
        """End the tasks that have not ended, so that nobody waits for them; tell nobody."""
        for task in self._ledger.tasks:
            if not task._has_ended():
                task._drop_call()
                task._error = TaskKilled(f"task {task.index}, {task.name}(...), was forgotten, because {why}")
                task.state = "failed"

    # --- questions ---

    def total_cpus(self) -> int:
        """Count the CPUs that we may use, at least 1: limits by affinity, container and batch system are respected."""
        from .limits import usable

        return usable()

    def available_cpus(self) -> int:
        """Count the CPUs that are free for us now: those that others leave, 0 to `total_cpus`. Never waits.

        The first call, before there is a window to measure, gives the least that the priority allows.
        """
        from .manager import the_manager

        free = the_manager().free_cpus(self._options.priority)
        least = self._options.priority.at_least or 0
        return min(self.total_cpus(), least) if free is None else free

    def worker_pids(self) -> list[int]:
        """Give the process ids of the workers that live now, those of other queues too."""
        from .manager import the_manager

        return the_manager().worker_pids()

    def get_stats(self) -> dict[str, Any]:
        """Tell how things stand. Looks only: a loop that waits until nothing is queued or running calls `step`.

        Returns:
            queued, running, done, failed: numbers of tasks; workers: how many live; allowed: how many tasks may
            run now, by the last decision (None before the first); free_cpus: as `available_cpus`; waiting_for: what
            keeps queued tasks waiting, in words, or None.
        """
        engine, ledger = self._engine, self._ledger
        with self._lock:
            done, failed, running = ledger.done, ledger.failed, ledger.running
            queued = len(ledger.tasks) - done - failed - running
        decision = getattr(engine, "decision", None)
        return {
            "queued": queued,
            "running": running,
            "done": done,
            "failed": failed,
            "workers": len(self.worker_pids()),
            "allowed": None if decision is None else decision.allowed,
            "free_cpus": self.available_cpus(),
            "waiting_for": self._waiting_for(),
        }

    # --- life ---

    def __enter__(self) -> TaskQueue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Run what is queued, as `process_until_done`; after an error in the block stop it all, as `killall`."""
        if error is None:
            self.process_until_done()
        else:
            self._kill_all(True, f"the with block of the queue ended with {headline(error)}")

    def __repr__(self) -> str:
        done, running, total = self._ledger.counts()
        return f"<TaskQueue: {total} tasks, {done} ended, {running} running>"

    def _left(self, state: str) -> list[Task[Any]]:
        """Give the tasks that are in this state at the end of the program, if the user does not know of them."""
        return [] if self._interrupted else [task for task in self._ledger.tasks if task.state == state]

    def _why_left(self, task: Task[Any]) -> str:
        """Say why driving ended before a task began; "" if nobody has driven since it was queued."""
        why, known = self._left_off
        return why if task.index < known else ""

    def _has_waiting(self) -> bool:
        """Tell whether tasks wait. For `nesting`."""
        return self._ledger.outstanding() > 0

    def _start_over(self) -> bool:
        """Be like new; tell whether tasks waited. For `nesting`, after every task: quick if there is nothing to do."""
        waited = False
        if self._ledger.next_number or self._options.edition:
            waited = self._has_waiting()
            self._options = Options()
            self._set_empty()
        return waited

    @contextlib.contextmanager
    def _set_aside(self) -> Iterator[None]:
        """Be like new within a ``with`` block, and as before after it. For `nesting`."""
        before = self.__dict__.copy()
        self._options = Options()
        self._set_empty()
        try:
            yield
        finally:
            self.__dict__.update(before)


class Configured:
    """What `configure` gives: with ``with``, the settings go back to what they were at the end of the block."""

    def __init__(self, queue: TaskQueue, old: dict[str, Any]) -> None:
        self._queue = queue
        self._old = old
        # As they are now: those that were changed, or all.
        self._text = f"<dummymp settings: {', '.join(map(queue._options.describe, old or Options.names()))}>"

    def __repr__(self) -> str:
        return self._text

    def __enter__(self) -> TaskQueue:
        return self._queue

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        engine = {name: value for name, value in self._old.items() if name == "engine"}
        self._queue.configure(**{name: value for name, value in self._old.items() if name != "engine"})
        # The engine stays while tasks wait, but saying so must not hide an error of the user's own.
        with contextlib.nullcontext() if error is None else contextlib.suppress(ValueError):
            self._queue.configure(**engine)


def _until(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    _check_seconds(timeout, "use None for no limit")
    return time.monotonic() + timeout


def _bar_time(left: float | None) -> float:
    """Say how long to drive before a bar is drawn anew."""
    from .progress import REFRESH_SECONDS

    return REFRESH_SECONDS if left is None else min(left, REFRESH_SECONDS)


def _check_seconds(timeout: object, hint: str) -> None:
    if timeout is True:
        hint += "; a progress bar: process_until_done(progress=True)"
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be seconds, as a number, got {timeout!r} ({hint})")
    if not timeout >= 0:  # Also what is not a number, float("nan").
        raise ValueError(f"timeout must be 0 or more seconds, got {timeout} ({hint})")


# --- forgotten tasks, and copies of this process -----------------------------------------------------------------

_queues: weakref.WeakSet[TaskQueue] = weakref.WeakSet()


def _tell_left() -> None:
    """Say at exit what was queued and never run, and what was stopped; but not after a crash, which says enough."""
    if nesting.in_worker():
        return
    queues = list(_queues)
    if hasattr(sys, "last_type") and not hasattr(sys, "ps1"):  # In a shell a line that failed was not the end.
        # Unless it came of results that nobody has worked for: get_returns()[0].
        queues = [queue for queue in queues if queue._looks and not queue._handed_over]
    running = [task for queue in queues for task in queue._left("running")]
    waiting = [queue._why_left(task) for queue in queues for task in queue._left("queued")]
    if running or waiting:
        from .leftovers import tell_left

        tell_left(running, waiting)
    tell_lost()


def _start_over_after_fork() -> None:
    for queue in list(_queues):
        queue._let_go("this process is a copy (os.fork) of the one that queued it")
        queue._lock = threading.RLock()
        queue._set_empty()


atexit.register(_tell_left)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over_after_fork)

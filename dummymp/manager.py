# SPDX-License-Identifier: MIT
"""The task manager: how many workers may run now, which task goes to which of them, and what comes back.

    TaskQueue --submit--> ProcessEngine.waiting          one engine a queue, one manager a program
                               |
              budget.decide ---+  readings of the CPUs, memory, priority, cap
                               v
                          feeding.py: an idle worker, or a new one (pool.py -> launcher.py -> forkserver.py)
                               |
                               |  FUNCTION, SURROUNDINGS, SETTINGS, TASK or BATCH      one private connection a worker
                               v
                          worker.py  runs it
                               |
                               |  TEXT, RECORD, RESULT or FAILURE
                               v
                          intake.py: notes what it means, in order, in the outbox
                               |
                               v
                          deliver: shows text and logs, sets the fate of the task, calls the callbacks

Everything sleeps in one selector: the connections, the pipes, and the server, which tells how each worker ended.
Who drives (`step`) takes in for all; with several threads driving, one of them sleeps in the selector and the others
wait until it has taken something in. Ctrl-C may come while it sleeps and while code of the user runs, nowhere else.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Callable

from .bars import next_redraw, redraw
from .budget import Budget, kept_free
from .errors import NotPicklable, TaskKilled, TaskTimeout
from .fate import timed_out
from .feeding import Feeder, is_short, is_stuck, overdue_at
from .intake import Intake, say
from .interrupts import held, ignore_from_now_on
from .log import WARNING
from .outbox import Outbox
from .pool import KILL_GRACE, Pool
from .reasons import Reasons

if TYPE_CHECKING:
    from .engine import ProcessEngine
    from .handle import WorkerHandle
    from .presets import Preset
    from .task import Task

__all__ = ["Manager", "end_unused_workers", "the_manager"]

# A worker that was to end and has not after so many seconds is ended without the server, which may be stuck; it takes
# part of a second. Longer: tasks behind it wait longer; shorter: a machine that is nearly out of memory has less time.
KILL_LIMIT = 10.0
# Who asks whether tasks have ended, and goes a round each time, goes one in so many seconds. Longer: what has ended is
# seen later; shorter: to ask each of ten thousand tasks takes longer.
ROUND_SECONDS = 0.001
# A worker answers a call back at once, unless C code keeps its other thread from running: then see `Manager._claim`.
CALL_BACK_LIMIT = 0.05


class Manager:
    """Drives the tasks of all queues of the program."""

    def __init__(self) -> None:
        # Those with tasks that have not ended. A queue that is done is not held here, so it can be garbage.
        self.engines: list[ProcessEngine] = []
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        # The thread that sleeps in the selector. Ctrl-C at a bad moment may leave its mark behind; `step` wipes it off.
        self._asleep: int | None = None
        self._drivers = 0
        self._outbox = Outbox(self._tell_others_if_any)
        self._pool = Pool(lambda handle: self._intake.readable(handle))
        self._intake = Intake(self._pool, self._outbox, self._lock, self._goes_on)
        self._budget = Budget(self._pool.own_pids)
        reasons = Reasons(lambda level, text: self._outbox.post(say, level, text))
        self._feeder = Feeder(self._pool, self._intake, self._budget, reasons)
        # Code of the user has run, or tasks were queued, since we looked last what there is to do.
        self._stale = False
        # Queues that were dropped in a moment in which nothing could be done about it.
        self._to_forget: list[ProcessEngine] = []
        atexit.register(self.close)

    # --- driving ---

    def prepare(self) -> None:
        """Get ready to start workers."""
        with held, self._lock:
            self._pool.prepare()

    def expect(self, engine: ProcessEngine) -> None:
        """Take note that a queue is being filled: it is not garbage until it is done, and we get ready."""
        with held, self._lock:
            if engine not in self.engines:
                self.engines.append(engine)
            self._pool.prepare()
            self._budget.baseline()

    def submit(self, engine: ProcessEngine, tasks: list[Task[Any]], *, first: bool = False) -> None:
        """Let tasks of a queue wait: as `ProcessEngine.submit`."""
        with held, self._lock:
            if engine.closed:
                return  # Another thread called reset() just now.
            if engine not in self.engines:
                self.engines.append(engine)
            engine.unfinished += len(tasks)
            if first:
                engine.waiting.extendleft(reversed(tasks))
            else:
                engine.waiting.extend(tasks)
            self._stale = True
            if self._asleep:
                self._pool.selector.wake()

    def count_ended(self, engine: ProcessEngine, tasks: list[Task[Any]]) -> bool:
        """Count tasks of a queue as ended; False if the queue was closed."""
        with self._lock:
            if engine.closed:
                return False
            engine.finished += tasks
            engine.unfinished -= len(tasks)
            if not engine.unfinished:
                self.engines.remove(engine)
            return True

    def count_part(self, engine: ProcessEngine, task: Task[Any]) -> bool:
        """Take note that there is something to see of a task that goes on; False if the queue was closed."""
        with self._lock:
            engine.finished.append(task)
            return not engine.closed

    def step(
        self, engine: ProcessEngine, timeout: float | None, over: Callable[[], bool] | None
    ) -> list[Task[Any]]:
        """Drive all queues for one of them. Arguments, what it gives, and when it ends: as `ProcessEngine.step`."""
        until = None if timeout is None else time.monotonic() + timeout
        ended: list[Task[Any]] = []
        woken: list[Callable[[], object]] | None = None
        driving = False
        try:
            with held, self._lock:
                driving = True
                if self._asleep == threading.get_ident():
                    self._asleep = None
                engine.driven += 1
                self._drivers += 1
                self._stale = True
                self._pool.try_again()
            while True:
                with held, self._lock:
                    self._look(woken)
                    self._feed()
                while self._freeze_live():
                    with held, self._lock:
                        self._feed()
                self._forget_dropped()
                if self._outbox.deliver():
                    self._stale = True
                redraw()
                with held, self._lock:
                    ended += engine.finished
                    engine.finished.clear()
                    failure, self._pool.failure = self._pool.failure, None
                if failure is not None:
                    raise failure
                if over() if over is not None else ended:
                    return ended
                if not engine.unfinished or (until is not None and time.monotonic() >= until):
                    return ended
                woken = self._sleep(engine, until, over)
        finally:
            if driving:
                with held, self._lock:
                    engine.driven -= 1
                    self._drivers -= 1
                    self._leave_to_others()

    def go_a_round(self, engine: ProcessEngine) -> None:
        """Go a round for who only asks. While the queue is driven that is done already, except in a callback."""
        if time.monotonic() - engine.asked_at < ROUND_SECONDS or (engine.driven and not self._outbox.is_calling()):
            return
        try:
            self.step(engine, 0, None)
        finally:
            engine.asked_at = time.monotonic()

    def tell_rest(self) -> None:
        """Tell what was not told yet because Ctrl-C, or the like, came first."""
        if self._outbox.broken_off:
            self._deliver()

    def take_in(self) -> None:
        """Take in what workers sent, and start nothing."""
        with held, self._lock:
            self._look()
        self._deliver()

    def _deliver(self) -> None:
        """Tell of what was taken in; what is left of it, because something was raised, others who drive tell."""
        try:
            self._outbox.deliver()
        finally:
            self._leave_to_others()

    def _leave_to_others(self) -> None:
        if self._outbox:
            self._tell_others()

    def _sleep(
        self, engine: ProcessEngine, until: float | None, over: Callable[[], bool] | None
    ) -> list[Callable[[], object]] | None:
        """Wait until there is something to take in, or due, or another thread took it; give what `_look` wants."""
        me = threading.get_ident()
        try:
            with self._lock:
                # Since we looked, a callback may have queued calls, and another thread may have done anything.
                if self._stale or engine.finished or self._outbox or (over is not None and over()):
                    return []
                patience = self._patience(until)
                if self._asleep:
                    self._changed.wait(patience)
                    return []
                nap = self._feeder.nap()
                self._asleep = me
            if nap and (patience is None or nap < patience):
                self._pool.selector.nap(nap)
                return None
            woken: list[Callable[[], object]] = self._pool.selector.wait(patience)
            return woken
        finally:
            with held, self._lock:
                if self._asleep == me:
                    self._asleep = None
                    self._changed.notify_all()

    def _tell_others_if_any(self) -> None:
        if self._drivers > 1 or self._asleep:  # Asleep: this is kill() or process_queue() of another thread.
            self._tell_others()

    def _tell_others(self) -> None:
        """Wake the threads that also drive: a task may have ended, perhaps the one they wait for."""
        with self._lock:
            self._changed.notify_all()
            if self._asleep:
                self._pool.selector.wake()

    def _patience(self, until: float | None) -> float | None:
        """Say how long to sleep: until the caller's own time, the next timeout of a task, reading or bar."""
        times = [due for due in (until, next_redraw()) if due is not None]
        for handle in self._pool.handles.values():
            if handle.deadline is not None:
                times.append(handle.deadline)
            if is_stuck(handle):
                times.append(overdue_at(handle))
            elif handle.awaits_answer():
                times.append(handle.answer_by)
        now = time.monotonic()
        for engine in self.engines:
            if engine.driven and engine.waiting:
                options = engine.options()
                preset = options.priority
                if preset.threshold is not None or kept_free(options):
                    times.append(now + self._budget.window(preset))
        return max(0.0, min(times) - now) if times else None

    def _forget_dropped(self) -> None:
        while self._to_forget:
            self.forget(self._to_forget.pop(), keep_workers=True)

    def _goes_on(self) -> None:
        """See that what has just been queued again is not slept upon."""
        self._stale = True

    def _look(self, woken: list[Callable[[], object]] | None = None) -> None:
        """Take in what has come; `woken`, if known, is what has something to read."""
        for callback in self._pool.selector.wait(0) if woken is None else woken:
            callback()
        for handle, status in self._pool.ended():
            self._intake.bury(handle, status)
        self._check_times()

    def _check_times(self) -> None:
        now = time.monotonic()
        for handle in list(self._pool.handles.values()):
            if handle.deadline is not None and handle.deadline <= now:
                if handle.stopped:
                    self._give_up(handle)
                    continue
                if handle.retiring:
                    handle.deadline = None
                    self._pool.end(handle, grace=0.0)
                    continue
                if not handle.ready:
                    self._pool.start_too_slow(handle)
                    continue
                if not handle.assigned:  # What waited there was taken from it, and it has not given that back.
                    handle.deadline = None
                    self._pool.end(handle, grace=0.0)
                    continue
                task = handle.assigned[0]
                handle.read_log()
                error: Exception = TaskKilled() if task in handle.dropped else timed_out(task)
                self._stop_task(handle, error, str(error))
            elif is_stuck(handle) and overdue_at(handle) <= now:
                self._look_behind(handle)
            elif handle.awaits_answer() and handle.answer_by <= now:
                self._claim(handle)

    def _claim(self, handle: WorkerHandle) -> None:
        """Take what waits in a worker that does not answer a call back: C code keeps its other thread from running."""
        self._intake.take_in(handle, handle.receive_all())
        if handle.awaits_answer() and handle.claim():
            self._intake.take_away(handle)

    def _look_behind(self, handle: WorkerHandle) -> None:
        """Call back what waits behind a task that runs longer than expected, unless that has ended by now."""
        task = handle.assigned[0]
        self._intake.take_in(handle, handle.receive_all())
        if is_stuck(handle) and handle.assigned[0] is task and not handle.engine.leaving:
            handle.call_back()

    def _give_up(self, handle: WorkerHandle) -> None:
        """Kill a stopped worker ourselves. It begins nothing more, even if the system cannot end it just now."""
        handle.deadline = None
        self._pool.end_without_server(handle)
        if handle.assigned:
            self._intake.queue_again(handle, handle.assigned)
            handle.assigned.clear()
            handle.engine = None

    def _stop_task(self, handle: WorkerHandle, error: BaseException, how: str) -> bool:
        """End a worker and what it started, and with it the task that it runs; False if that has just ended.

        What was sent ahead, was called back in vain, and could not be taken either, stays with the worker until it is
        buried: only then is it certain that it does not begin the next one.
        """
        task, engine = handle.assigned[0], handle.engine
        log = task._chunk and task._chunk.log
        self._call_back_now(handle)
        self._intake.take_in(handle, handle.receive_all())
        if not handle.assigned or handle.assigned[0] is not task:
            return False
        handle.read_log()
        if task._chunk is not None and task._chunk.log != log and isinstance(error, TaskTimeout):
            handle.start_clock()  # The item has just ended, and the next one runs.
            return False
        self._intake.show_unfinished(handle)
        handle.assigned.popleft()
        handle.answered += 1
        if not handle.assigned:
            handle.engine = None
        handle.begun = handle.deadline = None
        handle.retiring = handle.stopped = True
        self._intake.count_running(engine, -1)
        self._pool.end(handle, grace=KILL_GRACE)
        handle.deadline = time.monotonic() + KILL_LIMIT
        if task not in handle.dropped:
            self._intake.failed(engine, task, error, how)
        return True

    def _call_back_now(self, handle: WorkerHandle) -> None:
        """Call back what was sent ahead, and wait for it: some 100 microseconds, at most `CALL_BACK_LIMIT`.

        What does not come then is taken: otherwise the worker might begin it while it is ended because of another one.
        """
        if not handle.has_more() and handle.assigned[0] not in handle.dropped:
            return
        if not handle.calling_back:
            handle.call_back()
        until = time.monotonic() + CALL_BACK_LIMIT
        while handle.calling_back and not handle.channel.closed and time.monotonic() < until:
            self._pool.selector.wait_for_fd(handle.channel.fileno(), until - time.monotonic())
            self._intake.take_in(handle, handle.channel.receive())
        if handle.calling_back:
            self._intake.take_in(handle, handle.receive_all())
        elif handle.has_more():
            handle.call_back()  # It was just reading them, and had nothing to give.
        until, late = time.monotonic() + CALL_BACK_LIMIT, False
        while handle.awaits_answer() and not handle.channel.closed and not late:
            # On a busy machine we may come late; what was claimed is looked at all the same.
            late = handle.claimed and time.monotonic() >= until
            self._claim(handle)
            if handle.awaits_answer() and not late:
                self._pool.selector.wait_for_fd(handle.channel.fileno(), handle.answer_by - time.monotonic())

    # --- stopping on request ---

    def kill(self, engine: ProcessEngine, tasks: list[Task[Any]], why: str) -> int:
        """Stop or drop these tasks of an engine; say how many had not ended before."""
        count = 0
        with held, self._lock:
            for task in tasks:
                how = f"{task._describe()}, was stopped, because {why}."
                handle = self._handle_of(task)
                if handle is not None and handle.assigned[0] is not task:
                    self._call_back_now(handle)
                    handle = self._handle_of(task)
                if handle is None and task in engine.waiting:
                    engine.waiting.remove(task)
                elif handle is None or task in handle.dropped:
                    continue
                elif handle.assigned[0] is task and not handle.stopped:
                    if self._stop_task(handle, TaskKilled(how), how):
                        count += 1
                        continue
                    if task not in engine.waiting:
                        continue
                    engine.waiting.remove(task)  # The worker has just left, and had not begun it.
                else:
                    handle.dropped.add(task)
                self._intake.failed(engine, task, TaskKilled(how), how)
                count += 1
        self._deliver()
        return count

    def kill_all(self, engine: ProcessEngine, waiting: bool, why: str) -> None:
        """Stop what a queue runs, and drop what waits if `waiting`: as `ProcessEngine.kill_all`."""
        with held, self._lock:
            for handle in list(self._pool.handles.values()):
                # Again, if the task that runs ends this very moment and the worker has begun the next.
                while handle.engine is engine and handle.assigned and not handle.stopped:
                    how = f"{handle.assigned[0]._describe()}, was stopped, because {why}."
                    self._stop_task(handle, TaskKilled(how), how)
            if waiting:
                dropped = list(engine.waiting)
                engine.waiting.clear()
                for handle in self._pool.handles.values():
                    if handle.engine is engine:
                        dropped += [task for task in handle.assigned if task not in handle.dropped]
                        handle.dropped.update(handle.assigned)
                for task in dropped:
                    when = "before its next attempt" if task.attempts else "before it began"
                    text = f"task {task.index}, {task.name}(...), was dropped {when}, because {why}."
                    self._outbox.post(engine.end, task, None, TaskKilled(text), "")
                if dropped:
                    tasks = "1 waiting task was" if len(dropped) == 1 else f"{len(dropped)} waiting tasks were"
                    text = f"{tasks} dropped, because {why}."
                    self._outbox.post(say, WARNING, text)
        self._deliver()

    def _handle_of(self, task: Task[Any]) -> WorkerHandle | None:
        for handle in self._pool.handles.values():
            if task in handle.assigned:
                return handle
        return None

    def forget(self, engine: ProcessEngine, *, keep_workers: bool = False) -> None:
        """Drop a queue: stop what it runs, and tell nobody. With the last queue the workers end, unless they are kept.

        Any thread may call it at any moment, also from the garbage collection in the middle of what else is done here.
        """
        if self._lock._is_owned():  # type: ignore[attr-defined]
            self._to_forget.append(engine)
            return
        with held, self._lock:
            engine.closed = True
            if keep_workers:
                self._call_in(engine)
            engine.waiting.clear()
            for handle in self._pool.handles.values():
                if handle.engine is engine:
                    handle.assigned.clear()
                    handle.engine = handle.deadline = None
                    handle.retiring = True
                    self._pool.end(handle, grace=KILL_GRACE)
            self._intake.running -= engine.running
            engine.running = engine.unfinished = 0
            engine.closed = True  # Another thread may be telling of its tasks just now.
            if engine in self.engines:
                self.engines.remove(engine)
            engine.finished.clear()
            self._tell_others()
        if not keep_workers:
            self.end_unused_workers()

    def _call_in(self, engine: ProcessEngine) -> None:
        """Wait a moment for the workers of a queue that are about to be free: ending them takes longer."""
        until = time.monotonic() + CALL_BACK_LIMIT
        short = [h for h in self._pool.handles.values() if h.engine is engine and h.assigned and is_short(h)]
        for handle in short:
            if handle.has_more() and not handle.calling_back:
                handle.call_back()
        for handle in short:
            while handle.engine is engine and not handle.channel.closed and time.monotonic() < until:
                self._pool.selector.wait_for_fd(handle.channel.fileno(), until - time.monotonic())
                self._intake.take_in(handle, handle.channel.receive())

    def end_unused_workers(self) -> None:
        """End the workers if no queue has tasks for them."""
        with held, self._lock:
            texts = [] if self.engines else self._end_all()
        for show in texts:
            show()

    # --- feeding ---

    def _feed(self) -> None:
        if self._stale:
            self._stale = False
            self._feeder.renew_settings()
        self._feeder.feed(self.engines)

    def _freeze_live(self) -> bool:
        """Freeze the calls that were queued with copy_args=False and may start now; tell whether there were any.

        That runs code of the user, which may take its time or wait for another thread: the lock is not held.
        """
        if not self._feeder.to_freeze:
            return False
        with held, self._lock:
            wanted, self._feeder.to_freeze = self._feeder.to_freeze, []
        for engine, task in wanted:
            try:
                task._freeze_live()
            except NotPicklable as error:
                with held, self._lock:
                    if task in engine.waiting:
                        engine.waiting.remove(task)
                        task.attempts = task._retries + 1
                        self._outbox.post(engine.began, task)
                        self._intake.failed(engine, task, error, str(error))
            except BaseException:
                self._stale = True  # Another thread may be waiting for it.
                self._tell_others()
                raise
        return True

    # --- questions ---

    def worker_pids(self) -> list[int]:
        """Give the process ids of the workers that live, starting ones too. Starts, buries and tells nothing."""
        with held, self._lock:
            return self._pool.worker_pids()

    def free_cpus(self, preset: Preset) -> int | None:
        """Give the CPUs that others leave free; None if nothing was measured yet."""
        with held, self._lock:
            return self._budget.free_cpus(preset, self._intake.running)

    def reading_is_due(self, preset: Preset) -> bool:
        """Tell whether the window of the last reading is over."""
        with held, self._lock:
            return self._budget.is_due(preset)

    # --- the end ---

    def close(self) -> None:
        """End everything, because the program ends."""
        ignore_from_now_on()  # A second Ctrl-C must not leave half of them behind.
        with held, self._lock:
            texts = self._end_all()
        for show in texts:
            show()

    def _end_all(self) -> list[Callable[[], object]]:
        """End every worker; give what shows the text that they wrote last."""
        texts: list[Callable[[], object]] = []
        self._pool.end_all(KILL_GRACE, lambda handle: texts.extend(self._intake.last_texts(handle)))
        return texts

    def abandon(self) -> None:
        """Let go of everything without ending it: we are a copy of the process that owns it, made by os.fork()."""
        atexit.unregister(self.close)
        self._pool.abandon()


_manager: Manager | None = None
_manager_lock = threading.Lock()


def the_manager() -> Manager:
    """Give the one manager of this program; the first call makes it."""
    global _manager
    with _manager_lock:
        if _manager is None:
            _manager = Manager()
        return _manager


def end_unused_workers() -> None:
    """End the workers of this program if no queue needs them now."""
    if _manager is not None:
        _manager.end_unused_workers()


def _start_over_after_fork() -> None:
    global _manager, _manager_lock
    _manager_lock = threading.Lock()
    if _manager is not None:
        _manager.abandon()
        _manager = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over_after_fork)

# SPDX-License-Identifier: MIT
"""Feeding: which task goes to which worker, how many are sent ahead, and what is called back.

A worker that has to ask for its next task loses more time than a short task takes, so short ones are sent ahead, many
as one message. Nobody may wait behind a long one for that: what waits behind a task that turns out to be slow, or in
one worker while another has nothing left, is called back.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

from .surroundings import Settings
from .versions import reloads

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .budget import Budget
    from .engine import ProcessEngine
    from .handle import WorkerHandle
    from .intake import Intake
    from .options import Options
    from .pace import Pace
    from .pool import Pool
    from .reasons import Reasons
    from .task import Task

__all__ = ["Feeder", "is_short", "is_stuck", "overdue_at"]

# Short tasks are sent ahead, so many seconds' worth to each worker. Longer: more of them may have to be called back
# from behind a slow one; shorter: workers wait for the parent, which costs a wake-up of 50 to 300 microseconds.
AHEAD_SECONDS = 0.016
# While every worker has enough to do, results are not taken in one by one, which would cost a switch of processes each,
# but after a nap of so many seconds at most. Longer: fewer switches; shorter: results come sooner. Less than
# `CALL_BACK_AFTER`, or there would be no naps.
NAP = 0.008
# Not worth it below this.
NAP_LEAST = 0.0005
# Tasks shorter than this, in seconds, keep us busy for much of the time.
TINY = 0.0001
# What a worker sends meanwhile must fit into the pipe, or it waits for us, and into what is read at once.
NAP_BYTES = 1 << 15
# So many tasks are sent at first to a worker that has none. More: other workers wait longer for theirs.
FIRST_BATCH = 256
# What a worker needs for a task besides the function itself.
TASK_OVERHEAD = 3e-6
# What tasks sent ahead may need, in bytes: it must fit into the pipe, or the worker cannot read it to give it back.
AHEAD_BYTES = 60_000
# What a task in a batch takes besides its arguments, in bytes.
BATCH_BYTES = 5
# What waits behind a task that runs for so many seconds longer than expected is called back.
CALL_BACK_AFTER = 0.01
# What waits in a worker, while another is free and nothing else is left, is called back if it is worth so many seconds,
# and tasks that take less in all are not divided among workers.
WORTH_SHARING = 0.001


class Feeder:
    """Gives tasks to workers. Whoever calls it holds the manager's lock.

    Args:
        pool: The workers.
        intake: Keeps the books of who runs what.
        budget: Decides how many may run.
        reasons: Tells why tasks wait.

    Attributes:
        to_freeze: Calls that were queued with copy_args=False and may start, and their engines.
    """

    def __init__(self, pool: Pool, intake: Intake, budget: Budget, reasons: Reasons) -> None:
        self._pool = pool
        self._intake = intake
        self._budget = budget
        self._reasons = reasons
        self._settings = Settings()
        self.to_freeze: list[tuple[ProcessEngine, Task[Any]]] = []

    def renew_settings(self) -> None:
        """Look whether the settings of this program have changed of which workers are told, or modules of the user."""
        settings = Settings()
        if settings != self._settings:
            self._settings = settings
        self._pool.reloads = reloads()

    def feed(self, engines: Iterable[ProcessEngine]) -> None:
        """Give the tasks that may start to workers."""
        for engine in list(engines):
            if engine.driven and not engine.halted and self._pool.failure is None:
                if engine.waiting:
                    self._feed_engine(engine)
                if not engine.waiting and engine.decision is not None:
                    self._share_out(engine)

    def _feed_engine(self, engine: ProcessEngine) -> None:
        options = engine.options()
        engine.decision = self._budget.decide(options, self._intake.running)
        while engine.waiting and self._may_start(engine, options):
            task = engine.waiting[0]
            if task._function is None:
                self.to_freeze.append((engine, task))
                break
            assert task._surroundings is not None
            handle = self._pool.worker_for(options, task._surroundings)
            if handle is None:
                break
            try:
                handle.post_task(task, self._settings)
            except BaseException:
                self._pool.idle.append(handle)
                raise  # The task waits, for whoever drives next.
            engine.waiting.popleft()
            handle.engine = engine
            self._intake.count_running(engine, +1)
            self._intake.begin(handle)
            self._send_ahead(engine, handle, FIRST_BATCH)
            self._pool.flush(handle)
        self._top_up(engine)
        self._budget.note_running(self._intake.running)
        self._reasons.note(engine, self._intake.running)

    def _top_up(self, engine: ProcessEngine) -> None:
        """Send more ahead to the workers of this queue that have less than half of what they may have."""
        assert engine.decision is not None
        if self._intake.running > engine.decision.allowed:
            return  # Others have come: who finishes is not fed until it is our turn again.
        for handle in self._pool.handles.values():
            if not engine.waiting:
                return
            gets_no_more = handle.retiring or handle.reloads != self._pool.reloads
            if handle.engine is engine and not gets_no_more:
                self._send_ahead(engine, handle)
                self._pool.flush(handle)

    def _share_out(self, engine: ProcessEngine) -> None:
        """Call back what waits in a worker while another is free, if that is worth the trouble."""
        if engine.leaving or not self._may_start(engine, engine.options()):
            return
        for handle in self._pool.handles.values():
            if handle.engine is engine and is_stuck(handle):
                behind = sum(map(_expected, handle.assigned)) - _expected(handle.assigned[0])
                if behind + TASK_OVERHEAD * (len(handle.assigned) - 1) > WORTH_SHARING:
                    handle.call_back()

    def _send_ahead(self, engine: ProcessEngine, handle: WorkerHandle, most: int | None = None) -> None:
        """Send as many tasks as fill `AHEAD_SECONDS`, so that the worker need not ask for each; at most so many."""
        if handle.page is None or not handle.ready or engine.options().tasks_per_worker is not None:
            return
        if handle.calling_back or handle.claimed:
            return  # It would give them back, and nobody knows which of them.
        if handle.assigned and not engine.leaving and not is_short(handle):
            return
        chunk = handle.assigned[0]._chunk if handle.assigned else None
        if chunk is not None and not chunk.whole:
            return  # It was called back from behind a slow item, and what follows would be, too.
        waiting, assigned, pace, depth, room = engine.waiting, handle.assigned, None, 0, AHEAD_BYTES
        while waiting:
            function, surroundings = waiting[0]._function, waiting[0]._surroundings
            if function is None or surroundings is None or surroundings.limits != handle.limits:
                return
            if function.pace is not pace:
                pace = function.pace
                depth = self._depth(engine, pace)
                depth = depth if most is None else min(depth, most)
                if len(assigned) > depth // 2 and room == AHEAD_BYTES:
                    return  # It has enough for now.
            room -= handle.bytes_for(waiting[0])
            if len(assigned) >= depth or room < 0:
                return
            if chunk is not None and chunk.index == waiting[0].index:
                return  # The first item of that chunk, which failed: no two tasks in a worker have the same number.
            batch, left = _find_batch(waiting, depth - len(assigned), room) if chunk is None else ([], 0)
            if batch:
                handle.post_batch(batch, self._settings)
                room = left
                for _ in batch:
                    waiting.popleft()
            else:
                handle.post_task(waiting[0], self._settings)
                waiting.popleft()

    def _depth(self, engine: ProcessEngine, pace: Pace) -> int:
        """Say how many tasks of this pace a worker may hold: one if they are slow, or nobody knows."""
        least = 2 if engine.leaving else 1
        if pace.seconds is None:
            return least
        assert engine.decision is not None
        each = pace.seconds + TASK_OVERHEAD
        ahead, workers = int(AHEAD_SECONDS / each), max(1, engine.decision.allowed)
        share = len(engine.waiting) // workers
        if share < ahead:  # Nearly at the end: nobody is to be left without.
            sent = sum(len(handle.assigned) for handle in self._pool.handles.values() if handle.engine is engine)
            share = max((len(engine.waiting) + sent) // workers, int(WORTH_SHARING / each))
        return max(least, 1 + min(share, ahead))

    def _may_start(self, engine: ProcessEngine, options: Options) -> bool:
        assert engine.decision is not None
        cap = options.max_processes
        return self._intake.running < engine.decision.allowed and (cap is None or engine.running < cap)

    def nap(self) -> float:
        """Say for how many seconds we are not needed, because every worker has more to do; 0 if we are."""
        nap = 0.0
        for handle in self._pool.handles.values():
            if not handle.assigned:
                continue
            seconds = _expected(handle.assigned[0])
            if not seconds or handle.full or handle.calling_back or handle.assigned[0]._chunk is not None:
                return 0.0
            if handle.channel.is_under_way():
                return 0.0  # It goes on only while we read or write.
            # To take in what came of tiny tasks, and to send more, takes us much of that time.
            tasks = (len(handle.assigned) - 1) // (4 if seconds < TINY else 2)
            tasks = min(tasks, NAP_BYTES // max(1, handle.answer_bytes))
            nap = min(nap or NAP, tasks * (seconds + TASK_OVERHEAD))
            if nap < NAP_LEAST:
                return 0.0
        return nap


def is_stuck(handle: WorkerHandle) -> bool:
    """Tell whether tasks that were sent ahead wait behind one that runs, and were not called back yet."""
    return handle.has_more() and handle.ready and not handle.calling_back


def is_short(handle: WorkerHandle) -> bool:
    """Tell whether the task that a worker runs is one of those that end at once, and has not shown the contrary."""
    if not 0 < _expected(handle.assigned[0]) <= AHEAD_SECONDS:
        return False
    return time.monotonic() < overdue_at(handle)


def overdue_at(handle: WorkerHandle) -> float:
    """Say when what waits behind the task that a worker runs is called back, by `time.monotonic`."""
    return handle.since + _expected(handle.assigned[0]) + CALL_BACK_AFTER


def _expected(task: Task[Any]) -> float:
    """Say how many seconds a task will take; 0 if nobody knows."""
    function = task._function  # Another thread may be telling of its end, if it was killed while it waited there.
    return (function.pace.seconds or 0.0) if function is not None else 0.0


def _find_batch(waiting: Iterable[Task[Any]], most: int, room: int) -> tuple[list[Task[Any]], int]:
    """Find the first tasks that wait and can be sent as one message, none if it were one alone, and what room is left.

    They are calls of one function from one place, numbered one after another, with small arguments.
    """
    batch: list[Task[Any]] = []
    function = surroundings = None
    number = 0
    for task in itertools.islice(waiting, most):
        if not batch:
            function, surroundings, number = task._function, task._surroundings, task.index
            if function is None or task._chunk is not None or function.pieces:
                break
        elif task._function is not function or task._surroundings is not surroundings or task.index != number:
            break
        left = room - len(task._arguments) - BATCH_BYTES
        if task._pieces or left < 0:
            break
        room = left
        batch.append(task)
        number += 1
    return (batch, room) if len(batch) > 1 else ([], room)

# SPDX-License-Identifier: MIT
"""Intake: what comes from workers, and what it means.

Takes in what a worker sent, or left behind when it ended, keeps the books of who runs what, and notes in the outbox
what is to be shown and told. It calls no code of the user and sends next to nothing: that is the manager's part.
"""

from __future__ import annotations

import collections
import functools
import itertools
import operator
import time
from typing import TYPE_CHECKING, Any, Callable

from .chunks import UNKNOWN
from .displays import show as show_display
from .errors import TaskKilled
from .fate import Deaths, unpack_failure
from .handle import load_parcel
from .intercept import relog
from .interrupts import held, let_in, own_code
from .log import WARNING, logger
from .output import Screen, handle_record
from .pickling import load_atoms, loads
from .pool import KILL_GRACE
from .transport import (
    ATOM_RESULT,
    CUT,
    CUT_HEAD,
    DECLINED,
    DISPLAY,
    ENDED_HEAD,
    FAILURE,
    LEAVING,
    LINE,
    NOTE,
    PART,
    PART_HEAD,
    READ_SIZE,
    READY,
    RECORD,
    RESULT,
    RESULT_WITH_BUFFERS,
    RETURNED,
    TEXT,
    TEXT_HEAD,
    U64,
)

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator

    from .engine import ProcessEngine
    from .handle import WorkerHandle
    from .outbox import After, Outbox
    from .pool import Pool
    from .task import Task

__all__ = ["Intake", "say"]

# With these a task has ended well.
RESULTS = (ATOM_RESULT, RESULT, RESULT_WITH_BUFFERS)
# These are shown.
SHOWN = (TEXT, RECORD, LINE, DISPLAY)
# A worker from which tasks were taken, and that has ended the one that ran, is back within so many seconds, or, as it
# was stopped, is ended. Longer: it is in the way for longer; shorter: one that a busy machine holds up starts anew.
GIVE_BACK_LIMIT = 10.0


class Intake:
    """Takes in what workers send. Whoever calls it holds the manager's lock.

    Args:
        pool: The workers.
        outbox: What is to be told.
        lock: The manager's.
        goes_on: Is called when a task waits again and the manager is past the moment in which it looks.

    Attributes:
        running: So many workers have tasks, those of all queues.
    """

    def __init__(self, pool: Pool, outbox: Outbox, lock: threading.RLock, goes_on: Callable[[], object]) -> None:
        self._pool = pool
        self._outbox = outbox
        self._lock = lock
        self._goes_on = goes_on
        self._screen = Screen()
        self._notes: set[str] = set()
        self._deaths = Deaths()
        self.running = 0

    def readable(self, handle: WorkerHandle) -> None:
        """Take in what a worker has sent and written, or that its connection has come to its end."""
        if handle.gone:
            return
        messages, answered = handle.channel.receive(), handle.answered
        self.take_in(handle, messages)
        size = sum(len(message) for _, message in messages)
        handle.full = size > READ_SIZE // 2
        handle.answer_bytes = size // max(1, handle.answered - answered)
        if not handle.channel.closed:
            self._pool.flush(handle)
        elif not handle.closing:
            # Mostly it has ended, and the server will say how; but a task may have closed the connection.
            handle.closing = True
            self._pool.selector.remove(handle.channel)
            if handle.assigned or not handle.retiring or handle.orphan:  # Otherwise it is just leaving, in good order.
                self._pool.end(handle, grace=KILL_GRACE if handle.retiring else 0.0)
            if handle.orphan:
                self.bury(handle, None)

    def take_in(self, handle: WorkerHandle, messages: Iterable[tuple[int, Any]], *, to_the_end: bool = False) -> None:
        """Take in these messages of a worker, and before them what came out of its pipes (`to_the_end`: all of it)."""
        messages = list(messages)
        # What C code wrote before the worker sent these is in the pipes by now.
        self._show_pipes(handle, to_the_end=to_the_end)
        for kind, group in itertools.groupby(messages, operator.itemgetter(0)):
            if kind in RESULTS:
                self._take_results(handle, kind, [message for _, message in group])
            else:
                for _, message in group:
                    self._take(handle, kind, message)

    def _take(self, handle: WorkerHandle, kind: int, message: Any) -> None:
        if kind == FAILURE:
            self._take_failure(handle, message)
        elif kind in SHOWN:
            for show in self._shown(handle, kind, message):
                self._outbox.post(lambda show=show: show)
        elif kind == READY:
            self._pool.ready(handle, U64.unpack(message)[0])
            for stream, text in handle.early:
                self._outbox.post(self._show, stream, text, (handle.number, -1))
            handle.early.clear()
        elif kind == RETURNED:
            handle.calling_back = False
            self._take_returned(handle, message)
        elif kind == DECLINED:
            self._take_returned(handle, message)
        elif kind in (PART, CUT):
            self._take_part(handle, kind, message)
        elif kind == LEAVING:
            self._take_leave(handle)
        elif kind == NOTE:
            text = bytes(message).decode()
            if text not in self._notes:
                self._notes.add(text)
                if handle.assigned:
                    text = text.replace("{task}", handle.assigned[0]._describe())
                self._outbox.post(say, WARNING, text)

    def _take_results(self, handle: WorkerHandle, kind: int, messages: list[Any]) -> None:
        """Take in what tasks returned that a worker ended one after another."""
        engine, answered = handle.engine, handle.answered
        # What was written to a pipe may be of a task that still runs: its lines are not to be cut.
        self.show_unfinished(handle, of_pipes=len(messages) >= len(handle.assigned))
        tasks, bodies = [], []
        for task, message in zip(self._take_off(handle, messages), messages):
            body: Any = message[ENDED_HEAD.size :]
            if task is not None:
                task._size = len(body)
                if kind == RESULT_WITH_BUFFERS:
                    body = handle.open_parcel(memoryview(body))
                    task._size += 0 if isinstance(body, BaseException) else sum(map(len, body[1]))
                tasks.append(task)
                bodies.append(body)
            elif kind == RESULT_WITH_BUFFERS:
                handle.drop_parcel(memoryview(body))
        if tasks and kind == ATOM_RESULT:
            self._outbox.post(engine.end_well, tasks, load_atoms(bodies))
        elif tasks:
            self._outbox.post(self._rebuild, engine, tasks, bodies, load_parcel if kind != RESULT else loads)
        if handle.answered > answered:
            self._next(handle)

    def _rebuild(
        self, engine: ProcessEngine, tasks: list[Task[Any]], bodies: list[Any], load: Callable[[Any], Any]
    ) -> Iterator[After | None] | None:
        """Rebuild what tasks returned. That may run code of the user, which may call us: the lock is not held."""
        try:
            values = let_in(_load_all, bodies, load)
        except KeyboardInterrupt:
            self._outbox.put_back(self._rebuild, engine, tasks, bodies, load)  # Once more, when we are driven again.
            raise
        if _Unloadable in map(type, values):
            return self._end_one_by_one(engine, tasks, values)
        return engine.end_well(tasks, values)

    def _end_one_by_one(
        self, engine: ProcessEngine, tasks: list[Task[Any]], values: list[Any]
    ) -> Iterator[After | None]:
        for task, value in zip(tasks, values):
            if type(value) is not _Unloadable:
                yield from engine.end_well([task], [value]) or ()
                continue
            yield engine.began(task)
            error = value.error
            with self._lock:
                how = f"{task._describe()}, returned something that cannot be rebuilt here: {error!r}"
                self.failed(engine, task, error, how)
                self._goes_on()  # It may wait for its next attempt.

    def _take_failure(self, handle: WorkerHandle, message: Any) -> None:
        """Take in how a task failed."""
        engine, answered = handle.engine, handle.answered
        self.show_unfinished(handle, of_pipes=len(handle.assigned) <= 1)
        task = self._take_off(handle, [message])[0]
        if task is not None:
            self._outbox.post(engine.began, task)
            rebuild, how = unpack_failure(task, memoryview(message)[ENDED_HEAD.size :])
            if not self._again(engine, task, how):
                self._halt(engine)
                self._outbox.post(self._end_failed, engine, task, rebuild, how)
        if handle.answered > answered:
            self._next(handle)

    def _end_failed(
        self, engine: ProcessEngine, task: Task[Any], rebuild: Callable[[], BaseException], how: str
    ) -> After | None:
        """Rebuild what a task raised, as `_rebuild` does what others returned, and end it."""
        try:
            error = let_in(rebuild)
        except KeyboardInterrupt:
            self._outbox.put_back(self._end_failed, engine, task, rebuild, how)
            raise
        return engine.end(task, None, error, how)

    def _take_part(self, handle: WorkerHandle, kind: int, message: Any) -> None:
        """Take in what came of some items of a chunk, or that the rest of it will not run there."""
        task = handle.assigned[0] if handle.assigned else None
        if task is None or task._chunk is None or task.index != U64.unpack_from(message)[0]:
            return
        if handle.begun is not task:
            self.begin(handle)
        if kind == CUT:
            self._has_cut(handle)
            task._chunk.whole = False
            self._outbox.post(handle.engine.cut, task, CUT_HEAD.unpack(message)[1])
        else:
            if PART_HEAD.unpack_from(message)[2] != UNKNOWN:
                # Otherwise it was called back, in the middle of an item: its line and its time go on.
                self.show_unfinished(handle, of_pipes=False)
                handle.start_clock()
            self._outbox.post(handle.engine.part, task, message)

    def _take_off(self, handle: WorkerHandle, messages: list[Any]) -> list[Task[Any] | None]:
        """Take the tasks off a worker that it has ended; None for one that was killed, and its end told, before."""
        assigned, dropped, begun, pid = handle.assigned, handle.dropped, handle.begun, handle.pid
        tasks: list[Task[Any] | None] = []
        for message in messages:
            number, seconds = ENDED_HEAD.unpack_from(message)
            if not assigned or assigned[0].index != number:
                task = next((task for task in assigned if task.index == number), None)
                if task is None:
                    tasks.append(None)  # Its answer was on the way.
                    continue
                # It was sent once more while the other thread of the worker was about to give back those before it.
                assigned.remove(task)
                assigned.appendleft(task)
            task = assigned.popleft()
            handle.answered += 1
            if dropped and task in dropped:
                tasks.append(None)
                continue
            if task is begun:
                begun = handle.begun = None  # It may come here again, for its next attempt.
            else:
                task.attempts += 1  # It began and ended since we looked last.
            task.seconds = seconds
            task._pid = pid
            task._function.pace.note(seconds)  # type: ignore[union-attr]
            tasks.append(task)
        return tasks

    def _take_returned(self, handle: WorkerHandle, message: Any) -> None:
        """Queue again, in front, what a worker gave back."""
        numbers = {number for (number,) in U64.iter_unpack(message)}
        handle.revoked -= numbers
        handle.let_go_on()
        tasks = [task for task in handle.assigned if task.index in numbers]
        if not tasks:
            handle.since = time.monotonic()  # They were just being read there. It is asked again, but not at once.
            if not handle.assigned and handle.engine is not None and not handle.revoked:
                self._release(handle)
            return
        left = collections.deque(task for task in handle.assigned if task.index not in numbers)
        first = handle.begun if handle.begun is tasks[0] and tasks[0] not in handle.dropped else None
        if first is not None and left:
            # These were sent since it gave that back, and come first now.
            self._had_not_begun(handle)
            first = None
        handle.assigned = left
        if first is None:
            self.queue_again(handle, tasks)
            if left and left[0] is not handle.begun:
                self.begin(handle)
        else:
            # It was told that this one begins, and it would have, this very moment: it gets it once more.
            handle.post_again(first)
            self._pool.flush(handle)
            self.queue_again(handle, tasks[1:])
        if not handle.assigned and not handle.revoked:
            self._release(handle)

    def take_away(self, handle: WorkerHandle) -> None:
        """Queue again, in front, what a worker that begins nothing more has not begun."""
        task, *others = handle.assigned
        handle.revoked.update(other.index for other in others)
        handle.assigned = collections.deque([task])
        self.queue_again(handle, others)
        chunk = task._chunk
        handle.read_log()
        item = chunk.running() if chunk is not None else None
        if chunk is not None and item is not None:
            chunk.whole = False
            # RETURNED may come before: it may answer an earlier call back, or have passed the chunk before that began.
            handle.cutting = True
            self._outbox.post(handle.engine.cut, task, item + 1)
        self._goes_on()

    def _has_cut(self, handle: WorkerHandle) -> None:
        """Take note that a worker begins nothing more of the chunk that it runs, or ran."""
        handle.cutting = False
        if not handle.calling_back:
            handle.let_go_on()

    def _take_leave(self, handle: WorkerHandle) -> None:
        """Give what a worker will not begin, because it ends by itself, to others."""
        # It answers all that it begins before it says this, so without a page it has begun nothing.
        if handle.stopped or (handle.assigned and handle.page is not None and handle.had_begun()):
            return  # What becomes of its task is known when it is buried.
        handle.retiring = True
        if handle.assigned:
            self._had_not_begun(handle)
            self.queue_again(handle, handle.assigned)
            handle.assigned.clear()
            self._release(handle)
        elif handle.engine is not None:
            self._release(handle)
        self._pool.leaves(handle)

    def queue_again(self, handle: WorkerHandle, tasks: Iterable[Task[Any]]) -> None:
        """Let tasks that a worker was sent and has not begun wait again, as the next ones, unless they were dropped."""
        again = [task for task in tasks if task not in handle.dropped]
        handle.engine.waiting.extendleft(reversed(again))

    def _next(self, handle: WorkerHandle) -> None:
        """Go on to the next task that a worker was sent, or release it."""
        self._pool.proved()
        if handle.cutting:
            self._has_cut(handle)
        if handle.assigned:
            self.begin(handle)
        elif handle.revoked:
            # It gives back, this very moment, what it was not to begin.
            handle.deadline = time.monotonic() + GIVE_BACK_LIMIT
        else:
            self._release(handle)

    def begin(self, handle: WorkerHandle) -> None:
        """Take note that a worker begins the first of its tasks."""
        task = handle.assigned[0]
        handle.start_clock()
        if task is handle.begun:
            return  # One that was sent later has ended first.
        handle.begun = task
        if task in handle.dropped:
            return  # Its end has been told.
        task.state = "running"
        task.attempts += 1
        task._pid = handle.pid or functools.partial(self._pid_of, handle)
        self._outbox.post(handle.engine.began, task)

    def _had_not_begun(self, handle: WorkerHandle) -> None:
        """Take back that a worker begins the task of which that was told last, if it has not ended."""
        task = handle.begun
        if task is not None and task not in handle.dropped:
            task.attempts -= 1
            self._outbox.post(handle.engine.requeued, task)
        handle.begun = None

    def _release(self, handle: WorkerHandle) -> None:
        """Make a worker that has answered available, or let it go if it has served long enough."""
        engine, handle.engine, handle.deadline = handle.engine, None, None
        handle.begun = None
        handle.dropped.clear()
        if handle.stopped:
            return
        self.count_running(engine, -1)
        options = engine.options()
        handle.log_prefix = options.log_prefix
        limit = options.tasks_per_worker
        if limit is not None and handle.answered >= limit:
            self._pool.retire(handle)
        elif not handle.retiring:
            self._pool.idle.append(handle)

    def failed(self, engine: ProcessEngine, task: Task[Any], error: BaseException, how: str) -> None:
        """Note the failure of an attempt: the task waits for its next one, or has ended."""
        if isinstance(error, TaskKilled) or not self._again(engine, task, how):
            self._halt(engine)
            self._outbox.post(engine.end, task, None, error, how)

    def _again(self, engine: ProcessEngine, task: Task[Any], how: str) -> bool:
        """Let a task that has failed wait for its next attempt, if it has one."""
        if task.attempts > task._retries:
            return False
        text = f"{how}\nThis was attempt {task.attempts} of {task._retries + 1}; it runs again."
        self._outbox.post(say, WARNING, text)
        self._outbox.post(engine.requeued, task)
        engine.waiting.append(task)
        return True

    def _halt(self, engine: ProcessEngine) -> None:
        """Start nothing more of a queue that is to stop, because a task has failed."""
        engine.halted = engine.halted or engine.options().on_error == "stop"

    def count_running(self, engine: ProcessEngine, difference: int) -> None:
        """Count a worker of a queue that has begun to have tasks (+1), or has none any more (-1)."""
        self.running += difference
        engine.running += difference

    # --- text ---

    def last_texts(self, handle: WorkerHandle) -> Iterator[After]:
        """Give what shows the text of a worker that had no task and has ended, at the end of the program."""
        for stream, text in handle.read_pipes(to_the_end=True):
            yield self._show(stream, text, (handle.number, -1))
        for kind, message in handle.receive_all():
            if kind in SHOWN:
                yield from self._shown(handle, kind, message)
        for stream, rest in handle.unfinished_lines():
            yield self._show(stream, rest + "\n", (handle.number, -1))

    def _shown(self, handle: WorkerHandle, kind: int, message: Any) -> Iterator[After]:
        """Give what shows what a task printed, logged or displayed."""
        if kind == TEXT:
            number, stream = TEXT_HEAD.unpack_from(message)
            text = handle.whole_lines(stream, bytes(message[TEXT_HEAD.size :]).decode("utf-8", "replace"))
            if text:
                yield self._show(stream, text, (handle.number, number))
        elif kind == RECORD:
            yield self._record(handle, message)
        elif kind == LINE:
            yield functools.partial(relog, memoryview(message)[U64.size :])
        else:
            for stream, rest in handle.unfinished_lines(of_pipes=False):
                yield self._show(stream, rest + "\n", (handle.number, handle.answered))
            yield functools.partial(show_display, memoryview(message)[U64.size :])

    def _record(self, handle: WorkerHandle, message: Any) -> After:
        """Give what hands a log record to its logger."""
        number = U64.unpack_from(message)[0]
        prefix = handle.engine.options().log_prefix if handle.engine is not None else handle.log_prefix
        return functools.partial(handle_record, memoryview(message)[U64.size :], number, prefix)

    def _show(self, stream: int, text: str, owner: object) -> After:
        return functools.partial(self._screen.show, stream, text, owner)

    def _show_pipes(self, handle: WorkerHandle, *, to_the_end: bool = False) -> None:
        texts = handle.read_pipes(to_the_end=to_the_end)
        if handle.ready:
            for stream, text in texts:
                self._outbox.post(self._show, stream, text, (handle.number, -1))
        else:
            handle.early += texts
        for pipe in handle.pipes:
            if not pipe.open:
                self._pool.selector.remove(pipe)

    def show_unfinished(self, handle: WorkerHandle, *, of_pipes: bool = True) -> None:
        """Show the lines that a task began and did not end, because it has ended."""
        for stream, rest in handle.unfinished_lines(of_pipes=of_pipes):
            # The line is ended for it: whoever prints next, a task or the script itself, begins one of its own.
            self._outbox.post(self._show, stream, rest + "\n", (handle.number, handle.answered))

    # --- ends of workers ---

    def bury(self, handle: WorkerHandle, status: int | None) -> None:
        """Take note that a worker has ended: with what exit code (minus a signal's number), if anybody knows."""
        if handle.gone:
            return
        self.take_in(handle, handle.receive_all(), to_the_end=True)
        self.show_unfinished(handle)
        begun = handle.had_begun()
        handle.read_log()
        self._pool.remove(handle)
        if not handle.retiring and (status != 0 or handle.assigned):
            self._pool.end(handle, grace=0.0)  # What it had started.
        if not handle.ready and not handle.retiring:
            self._pool.start_failed(handle, status)
        elif handle.assigned and not begun and status != 0 and not handle.answered and not handle.killed:
            self._pool.count_failure(handle, status)
        if not handle.assigned:
            if handle.engine is not None and not handle.stopped:
                self.count_running(handle.engine, -1)  # It was about to give back what had been taken from it.
                handle.engine = None
            return
        engine, task = handle.engine, handle.assigned[0]
        if begun:
            if handle.begun is not task:
                self.begin(handle)
            handle.assigned.popleft()
            if task not in handle.dropped:
                death = self._deaths.explain(handle, task, status, self.running)
                self.failed(engine, task, death, str(death))
        else:
            self._had_not_begun(handle)
        self.queue_again(handle, handle.assigned)
        handle.engine = None
        if not handle.stopped:
            self.count_running(engine, -1)

    def _pid_of(self, handle: WorkerHandle) -> int | None:
        with held, self._lock:
            if handle.pid is None:
                self._pool.learn_pids()
            return handle.pid


class _Unloadable:
    """Stands for a result that cannot be rebuilt."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _load_all(bodies: list[Any], load: Callable[[Any], Any]) -> list[Any]:
    values = []
    for body in bodies:
        try:
            values.append(load(body))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            values.append(_Unloadable(error))
    return values


def say(level: int, text: str) -> After:
    """Give what says something to the user, by the logger of the package."""
    return functools.partial(_log_now, level, text)


def _log_now(level: int, text: str) -> None:
    receiver = logger()
    own_code.reached = True
    receiver.log(level, "%s", text)

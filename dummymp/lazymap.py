# SPDX-License-Identifier: MIT
"""map, the parent's side: reads the input as far ahead as keeps the workers busy, and gives results as they come.

    input --mapinput--> tasks: for one item, or a chunk, for many small ones (maptasks)
                          |
                        engine        workers run them; `chunks` is their side
                          |
    consumer <-- runs: results of neighbouring items, by the number of the first

Items are numbered as they are read, from 0. A chunk whose rest was called back from behind a slow item, or whose worker
died, comes apart into smaller tasks. That changes nothing for the consumer, who sees only runs.

Everything that reads the input or gives results happens in the consumer's thread, inside of next(). What engines tell
may come from another thread that drives.
"""

from __future__ import annotations

import collections
import functools
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from .chunks import FAILED, read_entries
from .errors import TaskFailed, WorkerDied
from .explain import function_name
from .freeze import Frozen, freeze_function
from .fulldisk import raise_lost
from .interrupts import came_to_us, deferrable, held, shorten
from .log import DEBUG, WARNING, logger
from .mapinput import CHUNK_SECONDS, READING_SECONDS, MapInput
from .maptasks import Call, Chunk, failure_of, make_item, split
from .page import Page
from .pickling import loads
from .progress import find_tqdm, no_progress, show_items
from .surroundings import capture
from .transport import PART_HEAD
from .wrongcalls import check_item_call

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from contextlib import AbstractContextManager
    from types import TracebackType

    from .maptasks import Item
    from .options import Options
    from .outbox import After
    from .task import Task

__all__ = ["lazy_map"]

# So many tasks for each worker that may run: one runs, two are there or on their way, one waits here.
TASKS = 4
# So many more may have ended without being asked for: a consumer that is busy itself finds results when it comes back.
SPARE = 2
# While nothing can be given, because the consumer waits for a slow item and wants them in order, the others go on until
# so many times as many results wait,
STRETCH = 250
# ... or they take so many bytes.
STRETCH_BYTES = 1 << 26
# As so many bytes counts a result besides what it took on its way: about what a small object takes.
ENTRY_BYTES = 40
# With a timeout below so many seconds each item is a task of its own: the time of one in a chunk is taken from when its
# worker last told something, which may be a thousandth of a second before it began.
TIMED = 0.1

# On Windows nothing can be called back from a worker, so a chunk would wait behind a slow item in it.
CALLS_BACK = sys.platform != "win32"

PASS_AS = ("one", "args", "kwargs")
ON_ERROR = ("raise", "return")


class _Run(NamedTuple):
    """Results of neighbouring items: values if `plain`, otherwise entries of which tuples are special; bytes in all."""

    entries: list[Any]
    plain: bool
    size: int


# The third kind of entry, see `chunks`: an exception itself.
_RAISED = 2
# ... and the fourth: a value itself, of a task for one item.
_ITSELF = 3


def lazy_map(
    func: Callable[..., Any],
    iterables: tuple[Any, ...],
    options: Options,
    start_engine: Callable[..., Any],
    *,
    here: bool,
    ordered: bool,
    ahead: int | None,
    pass_as: str,
    on_error: str,
    timeout: float | None,
    progress: bool,
) -> Generator[Any, None, None]:
    """Check what `map` was given, freeze the function, and give the generator of results.

    Args:
        func: As `map`; so are the iterables, and all from `ordered` on.
        iterables: See func.
        options: The settings of the queue.
        start_engine: As for `_LazyMap`.
        here: The engine runs tasks in this process.
        ordered, ahead, pass_as, on_error, timeout, progress: As `map`.
    """
    if not callable(func):
        raise TypeError(_not_callable(func))
    _check_choice("pass_as", pass_as, PASS_AS)
    _check_choice("on_error", on_error, ON_ERROR)
    if ahead is not None and (isinstance(ahead, bool) or not isinstance(ahead, int) or ahead < 1):
        raise ValueError(f"ahead must be a whole number of items, 1 or more, got {ahead!r} (None lets dummymp choose)")
    seconds = options.check("timeout", timeout) if timeout is not None else options.timeout
    items = _iterate(iterables, pass_as)
    check_item_call(func, len(iterables), pass_as)
    function = freeze_function(func, here=here)
    # A worker gets the large buffers of a function with each task, and a chunk has no room for them.
    alone = here or not CALLS_BACK or bool(function.pieces) or options.tasks_per_worker is not None
    # What a worker without a page had begun of a chunk is not known if it dies.
    alone = alone or not Page.can_be_made()
    call = Call(
        func=func,
        name=function_name(func),
        function=function,
        surroundings=capture(options.seed, options.threads_per_task, options.initializer),
        pass_as="args" if len(iterables) > 1 else pass_as,
        ordered=bool(ordered),
        ahead=ahead,
        returns=on_error == "return",
        timeout=seconds,
        retries=options.retries,
        alone=alone or (seconds or TIMED) < TIMED,
        here=here,
    )
    show = functools.partial(show_items, _length(iterables)) if progress else no_progress
    if progress:
        find_tqdm()
    return _LazyMap(call, items, start_engine, show).results(_Unread(call.name))


def _iterate(iterables: tuple[Any, ...], pass_as: str) -> Iterator[Any]:
    if not iterables:
        raise TypeError("map() needs the items, too. Write map(f, items)")
    if len(iterables) > 1 and pass_as != "one":
        raise ValueError(
            f"pass_as={pass_as!r} goes with one iterable, got {len(iterables)}. "
            "Several iterables are passed as arguments side by side without it"
        )
    for iterable in iterables:
        if not hasattr(type(iterable), "__iter__") and not hasattr(type(iterable), "__getitem__"):
            raise TypeError(
                f"map() needs something to go through after the function, got {iterable!r:.60}. "
                "Write map(f, [1, 2, 3]), or run(f, 1) for a single call"
            )
    return iter(iterables[0]) if len(iterables) == 1 else zip(*iterables)


def _length(iterables: tuple[Any, ...]) -> int | None:
    """Say how many items there are, if all iterables know."""
    try:
        return min(map(len, iterables))
    except TypeError:
        return None


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, got {value!r}")


def _not_callable(value: object) -> str:
    return (
        f"map() needs a function to call for each item, got {value!r:.60}. Write map(f, [1, 2, 3]), "
        "not map(f(1), ...)"
    )


class _LazyMap:
    """One map, from its first next() to its end.

    Args:
        call: What to do with the items.
        items: The input: items, or tuples of arguments.
        start_engine: Makes the engine; it is given what engines tell of: ``start_engine(began=, requeued=, ended=,
            went_well=, parted=, cut=)``.
        show: Makes the progress bar, a context that gives what is told how many results were given since the last time.
    """

    def __init__(
        self,
        call: Call,
        items: Iterator[Any],
        start_engine: Callable[..., Any],
        show: Callable[[], AbstractContextManager[Callable[[int], object] | None]],
    ) -> None:
        self._call = call
        self._input = MapInput(call, items)
        self._start_engine = start_engine
        self._show = show
        self._pid = os.getpid()
        self._engine: Any = None
        self._given = 0
        self._driven_at = self._away = 0.0
        # What follows changes when the engine tells something.
        self._working: set[Item] = set()
        self._runs: dict[int, _Run] = {}
        self._order: collections.deque[int] = collections.deque()
        self._lock = threading.Lock()
        self._held = 0  # bytes in runs
        self._to_log: list[tuple[int, str]] = []

    def results(self, unread: _Unread) -> Generator[Any, None, None]:
        """Give the results, as a generator, which is not `unread` once it is asked for the first."""
        unread.name = None
        try:
            with self._show() as bar:
                self._start()
                while True:
                    self._check_process()
                    if not self._gives_first():
                        self._fill()
                    run = self._next_run()
                    if run is None:
                        if self._is_over():
                            break
                        self._drive()
                        continue
                    self._leave()
                    entries, plain, _ = run
                    count = len(entries)
                    del run
                    left = time.monotonic()
                    if plain:
                        yield from entries
                    else:
                        entries.reverse()
                        while entries:
                            yield self._open(entries.pop())  # Nothing here refers to it any longer.
                    del entries
                    self._away = time.monotonic() - left
                    self._given += count
                    if bar is not None:
                        bar(count)
        finally:
            self._close()
        raise_lost()
        failure, self._input.failure = self._input.failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # It refers to this frame.

    def _is_over(self) -> bool:
        return self._input.exhausted and not self._working and not self._runs

    def _drive(self) -> None:
        """Drive until there is something to give, or to read."""
        try:
            with deferrable:
                self._engine.step(None, self._is_awaited)
        except KeyboardInterrupt as interrupt:
            if came_to_us(interrupt):
                shorten(interrupt)
                raise interrupt
            raise
        self._driven_at = time.monotonic()

    def _is_awaited(self) -> bool:
        return self._has_run() or self._is_over() or (not self._input.exhausted and self._wanted() > 0)

    def _start(self) -> None:
        with held:
            self._engine = self._start_engine(
                began=_nothing, requeued=_nothing, ended=self._ended, went_well=self._went_well,
                parted=self._parted, cut=self._cut,
            )  # fmt: skip
            # What was read is worked on, whoever drives: in a map over a map, the outer one.
            self._engine.driven += 1

    def _close(self) -> None:
        try:
            with held:
                self._input.exhausted = True
                if self._engine is not None and os.getpid() == self._pid:
                    self._engine.close(keep_workers=True)
                self._engine = None  # It refers to us: a circle, which only the garbage collector would find.
                self._working.clear()
                self._runs.clear()
        except KeyboardInterrupt as interrupt:  # One more, and all is closed.
            if came_to_us(interrupt):
                shorten(interrupt)
            raise
        finally:
            self._input.let_go()  # Last, for it may call code of the user.

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError(
                "this map was begun in another process, of which this one is a copy (os.fork). "
                "Call dummymp.map() again here"
            )

    # --- reading ---

    def _fill(self) -> None:
        """Read items and submit them, as many as are wanted."""
        began = time.monotonic()
        while not self._input.exhausted:
            count = self._wanted()
            if count <= 0:
                return
            tasks = self._input.take(count)
            while self._input.refused:
                number, error = self._input.refused.pop(0)
                self._add_run(number, [(_RAISED, error)], plain=False)
            with held:
                self._working.update(tasks)
                self._engine.submit(tasks)
            self._driven_at = 0.0
            if time.monotonic() - began > READING_SECONDS:
                return

    def _gives_first(self) -> bool:
        """Tell whether results that are there had to wait for a slow input, and giving them keeps nobody waiting."""
        return self._input.is_slow() and self._away < READING_SECONDS and self._has_run()

    def _wanted(self) -> int:
        """Say how many items to read now; 0 if there are enough."""
        call, unseen = self._call, self._input.count - self._given
        if call.here or self._engine.decision is None:
            # How many workers there may be shows when the first task is driven.
            return 0 if self._working or self._runs else 1
        size, allowed = self._input.size(), self._allowed()
        if call.ahead is not None:
            return min(call.ahead - unseen, size, max(1, call.ahead // (allowed * TASKS)))
        if len(self._working) >= TASKS * allowed:
            return 0
        enough = (TASKS + SPARE) * allowed * size
        if unseen >= enough and (self._has_run() or unseen >= enough * STRETCH or self._held >= STRETCH_BYTES):
            return 0
        return size

    def _allowed(self) -> int:
        decision = getattr(self._engine, "decision", None)
        return max(1, decision.allowed) if decision is not None else 1

    # --- what the engine tells ---

    def _went_well(self, ends: Iterable[tuple[Task[Any], Any]]) -> Iterator[After | None]:
        for task, value in ends:
            if isinstance(task, Chunk):
                if value:
                    self._add_part(task, value)
            else:
                self._add_run(task.index, [(_ITSELF, value)], plain=False, size=ENTRY_BYTES + task._size)
            self._done(task)
        return iter((self._said(),))

    def _ended(self, task: Task[Any], value: Any, error: BaseException | None, how: str) -> After | None:
        if error is None:
            return next(self._went_well([(task, value)]))
        if isinstance(task, Chunk):
            self._break_up(task, error, how)
        else:
            self._add_failure(task.index, error, how)
        self._done(task)
        return self._said()

    def _parted(self, task: Task[Any], part: Any) -> After | None:
        self._add_part(task, part)
        return self._said()

    def _said(self) -> After | None:
        """Give what logs what there was to say. A log handler is code of the user, which may call us."""
        if not self._to_log:
            return None
        to_log, self._to_log = self._to_log, []
        return functools.partial(_log_all, to_log)

    def _cut(self, task: Task[Any], item: int) -> None:
        """Submit anew what a chunk gave back, in more and smaller chunks, so that every worker gets some of it."""
        assert isinstance(task, Chunk)
        if task.log is not None:  # Its worker cannot tell of what has finished.
            self._add_entries(task, task.index, read_entries(task.log), plain=False, size=len(task.log))
        # It may have been taken from the worker already, which tells so later, too.
        first, end = item, task.end
        task.end = min(item, end)
        step = max(1, (end - first) // (2 * self._allowed()))
        self._submit_again(split(self._call, task, first, end, step))

    def _break_up(self, chunk: Chunk, error: BaseException, how: str) -> None:
        """Go on after a worker was lost: take what finished, blame the item that ran, run the others."""
        if chunk.log is not None:
            self._add_entries(chunk, chunk.index, read_entries(chunk.log), plain=False, size=len(chunk.log))
        running = chunk.running()
        if running is not None:
            if isinstance(error, WorkerDied):
                error.task = running
            self._fail(chunk, running, error, how)
            chunk.told = running + 1
        # If none had begun, as far as anybody knows, and it was the fault of one, that is blamed when it runs alone.
        step = 1 if running is None else max(1, chunk.end - chunk.told)
        self._submit_again(split(self._call, chunk, chunk.told, chunk.end, step))

    def _submit_again(self, tasks: list[Item]) -> None:
        engine = self._engine
        if tasks and engine is not None and not engine.closed:
            self._working.update(tasks)
            engine.submit(tasks, first=True)

    def _done(self, task: Task[Any]) -> None:
        task._drop_call()
        if isinstance(task, Chunk):
            task.items = []
        self._working.discard(task)

    def _add_part(self, task: Any, part: Any) -> None:
        _, first, count, special = PART_HEAD.unpack_from(part)
        data = part[PART_HEAD.size :]
        self._add_entries(task, first, read_entries(data, count), plain=not special, size=len(data))

    def _add_entries(self, chunk: Chunk, first: int, entries: list[Any], *, plain: bool, size: int) -> None:
        """Take entries of a chunk's log, from item `first` on; those that were taken before are left out."""
        del entries[: max(0, chunk.told - first)]
        if not entries:
            return
        first, chunk.told = chunk.told, chunk.told + len(entries)
        self._input.note_results(size, len(entries))
        size += ENTRY_BYTES * len(entries)
        if plain or not any(type(entry) is tuple and entry[0] == FAILED for entry in entries):
            self._add_run(first, entries, plain=plain, size=size)
            return
        for number, entry in enumerate(entries, first):
            if type(entry) is tuple and entry[0] == FAILED:
                self._fail(chunk, number, *failure_of(self._call, chunk, number, entry[1]))
            else:
                self._add_run(number, [entry], plain=False, size=size // len(entries))

    def _fail(self, chunk: Chunk, number: int, error: BaseException, how: str) -> None:
        """Take note that an item of a chunk failed: it runs again, alone, or that is its result."""
        retries = self._call.retries
        if not retries:
            self._add_failure(number, error, how)
            return
        self._to_log.append((WARNING, f"{how}\nThis was attempt 1 of {retries + 1}; it runs again."))
        frozen = Frozen(self._call.function, chunk.arguments_of(number))
        self._submit_again([make_item(self._call, number, frozen, attempts=1)])

    def _add_failure(self, number: int, error: BaseException, how: str) -> None:
        # The user is handed the exception itself, so it is not told twice.
        self._to_log.append((DEBUG, how))
        self._add_run(number, [(_RAISED, error)], plain=False)

    def _add_run(self, first: int, entries: list[Any], *, plain: bool, size: int = 0) -> None:
        with self._lock:
            self._held += size
        self._runs[first] = _Run(entries, plain, size)
        if not self._call.ordered:
            self._order.append(first)

    # --- giving ---

    def _has_run(self) -> bool:
        return bool(self._order) if not self._call.ordered else self._given in self._runs

    def _next_run(self) -> _Run | None:
        if self._call.ordered:
            run = self._runs.pop(self._given, None)
        else:
            run = self._runs.pop(self._order.popleft()) if self._order else None
        if run is not None:
            with self._lock:
                self._held -= run.size
        return run

    def _leave(self) -> None:
        """Drive a little before the consumer goes on, so that the workers have enough to do meanwhile."""
        if time.monotonic() - self._driven_at < CHUNK_SECONDS or not self._working or self._call.here:
            return
        self._engine.leaving = self._away > CHUNK_SECONDS
        try:
            with deferrable:
                self._engine.step(0)
        finally:
            self._engine.leaving = False
        self._driven_at = time.monotonic()

    def _open(self, entry: Any) -> Any:
        """Make a result of an entry, or raise the exception in it."""
        if type(entry) is not tuple:
            return entry
        kind, content = entry
        if kind == _ITSELF:
            return content
        if kind != _RAISED:
            try:
                return loads(content)
            except BaseException as error:
                content = error
        if self._call.returns:
            return content
        if self._call.here:
            raise _raisable(content, self._call.name, content.__traceback__)  # With the frames of the user.
        raise _raisable(content, self._call.name, None) from content.__cause__


class _Unread:
    """Says, when it is thrown away with a map that nobody ever asked for a result, that this did nothing.

    As Python does for a coroutine that nobody awaits.
    """

    def __init__(self, name: str) -> None:
        self.name: str | None = name
        self._pid = os.getpid()

    def __del__(self) -> None:
        if self.name is not None and self._pid == os.getpid() and not sys.is_finalizing():
            logger().warning(
                "nobody asked dummymp.map(%s, ...) for a result, so it did nothing: it works while its results are "
                "read. Write: for answer in dummymp.map(...), or answers = list(dummymp.map(%s, ...))",
                self.name, self.name,
            )  # fmt: skip


def _raisable(error: BaseException, name: str, trace: TracebackType | None) -> Exception:
    """Give an exception as it is raised; what would end the script that reads the results has a stand-in."""
    if isinstance(error, Exception):
        return error.with_traceback(trace)
    what = "sys.exit()" if isinstance(error, SystemExit) else f"raise {type(error).__name__}"
    failed = TaskFailed(
        f"an item of {name}(...) ended itself by {what}. A call ends with return; "
        'map(..., on_error="return") gives its own exception'
    )
    failed.__cause__ = error
    return failed


def _log_all(to_log: list[tuple[int, str]]) -> None:
    for level, text in to_log:
        logger().log(level, "%s", text)


def _nothing(task: Any) -> None:
    """Serve where an engine tells something that a map need not know."""

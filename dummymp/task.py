# SPDX-License-Identifier: MIT
"""Task: one recorded call and its fate."""

from __future__ import annotations

import time

from .errors import TaskFailed
from .hints import TYPE_CHECKING, Generic, T

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Callable, Protocol

    from .freeze import Frozen, FunctionBlob
    from .maptasks import Chunk
    from .memoryfile import Piece
    from .surroundings import Surroundings

    class Owner(Protocol):
        """What a task needs of the queue that recorded it."""

        def _drive_task(self, task: Task[Any], timeout: float | None) -> None: ...

        def _go_a_round(self) -> None: ...

        def kill(self, task: Task[Any]) -> bool: ...

__all__ = ["Task"]


class Task(Generic[T]):
    """One recorded call: where it stands, and what came of it.

    `run` makes it; nobody else needs to. What to ask of it::

        task = dummymp.run(slow, 3)
        task.result()           # works until it has ended, and gives what slow(3) returned, or raises what it raised
        task.state, task.name   # ("done", "slow")
    """

    # help() shows what stands here of each.
    __slots__ = {
        "index": "The call number, 0 for the first call; also the key in `get_returns` and `get_errors`.",
        "state": '"queued", "running", "done" or "failed".',
        "queued_at": "When `run` recorded it, in seconds since the epoch.",
        "started_at": "When it was given to a worker (its last attempt), in seconds since the epoch, or None.",
        "ended_at": "When its end was seen, in seconds since the epoch, or None.",
        "seconds": "How long the function ran, by a clock of its worker that is never set back; None if unknown.",
        "attempts": "How many times it was begun; more than 1 only with `retries`.",
        **dict.fromkeys((
            "__weakref__", "_arguments", "_chunk", "_counted", "_error", "_function", "_function_name", "_live", "_pid",
            "_pieces", "_queue", "_retries", "_size", "_surroundings", "_timeout", "_value",
        )),
    }  # fmt: skip

    # What gives it more time.
    _more_time = "dummymp.configure(timeout=...)"

    def __init__(self, queue: Owner, index: int, name: str, timeout: float | None, retries: int) -> None:
        self._queue = queue
        self.index = index
        self._function_name = name
        # Either the call in bytes, as in `Frozen`, or (with copy_args=False) what freezes it when the task starts, and
        # no `_function` until then. Dropped at the end.
        self._function: FunctionBlob | None = None
        self._arguments = b""
        self._pieces: Sequence[Piece] = ()
        self._surroundings: Surroundings | None = None
        self._live: Callable[[], None] | None = None
        self._chunk: Chunk | None = None  # What else there is to know of a task that is many items of a `map`.
        self._timeout = timeout
        self._retries = retries
        self.state = "queued"
        self.queued_at = time.time()
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.seconds: float | None = None
        self.attempts = 0
        self._size = 0  # What its result took on its way, in bytes.
        self._pid: Any = None
        self._counted = False  # among the queue's running tasks
        self._value: Any = None  # What it returned; if it failed in this very process, its traceback.
        self._error: BaseException | None = None

    @property
    def name(self) -> str:
        """The name of the function."""
        return self._function_name

    @property
    def pid(self) -> int | None:
        """The process id of the worker that runs it or ran it last; None before it started."""
        pid = self._pid
        number: int | None = pid() if callable(pid) else pid
        return number

    def done(self) -> bool:
        """Tell whether it has ended, well or not. Does not wait; see `result` for that.

        While it has not ended, the queue goes one round, as with ``dummymp.step()``: so a loop that asks again and
        again gets the work done. What that would raise because of `on_error` is left to the next call that does.

        Raises:
            WorkersCannotStart: No worker comes up; the tasks are still queued.
        """
        if self._has_ended():
            return True
        self._queue._go_a_round()
        return self._has_ended()

    def _has_ended(self) -> bool:
        """Tell whether it is known to have ended. Looks only; loops that wait call `done`."""
        return self.state in ("done", "failed")

    def result(self, timeout: float | None = None) -> T:
        """Drive the queue until this task has ended; return what it returned, or raise what it raised.

        Args:
            timeout: The most seconds to wait; None waits as long as it takes.

        Raises:
            TimeoutError: The task had not ended after `timeout` seconds; it goes on.
        """
        self._queue._drive_task(self, timeout)
        return self._outcome()

    def _outcome(self) -> T:
        """Return what an ended task returned, or raise what it raised.

        What would end the script that asks, SystemExit and KeyboardInterrupt above all, is raised as a `TaskFailed`.
        """
        if self._error is None:
            value: T = self._value
            return value
        if issubclass(type(self._error), Exception):
            raise BaseException.with_traceback(self._error, self._value)  # Its class may have its own.
        what = "sys.exit()" if isinstance(self._error, SystemExit) else f"raise {type(self._error).__name__}"
        raise TaskFailed(
            f"task {self.index}, {self.name}(...), ended itself by {what}. A task ends with return; "
            "its own exception is in get_errors()"
        ) from self._error

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Drive the queue until this task has ended; return its exception, or None where it went well.

        Args and Raises: as `result`.
        """
        self._queue._drive_task(self, timeout)
        return self._error

    def kill(self) -> bool:
        """Stop it, with every process that it started, or drop it if it still waits.

        Returns:
            True if that ended it, False if it had ended before.
        """
        return self._queue.kill(self)

    def _freeze(
        self, engine: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, surroundings: Any
    ) -> None:
        """Turn the call into bytes for `engine`, with its `surroundings`.

        Raises:
            NotPicklable: Something cannot travel.
        """
        frozen = engine.freeze(func, args, kwargs, number=self.index)
        # With copy_args=False another thread that drives may have been faster, and all may be over by now.
        if self._function is None and not self._has_ended():
            self._take(frozen, surroundings)

    def _take(self, frozen: Frozen, surroundings: Surroundings) -> None:
        """Be this call."""
        function, self._arguments, self._pieces = frozen
        self._surroundings = surroundings
        self._function = function  # Last, for other threads that drive look at it.

    def _close(self, now: float, value: Any, error: BaseException | None) -> bool:
        """Be done, or failed if there is an error. For the queue; False if it had ended before."""
        state = self.state
        if state == "done" or state == "failed":
            return False
        if self.started_at is None and error is None:
            self.started_at = now - (self.seconds or 0.0)  # Its beginning and its end are heard of at once.
        self.ended_at = now
        if callable(self._pid):
            self._pid = self._pid()
        self._function = self._surroundings = self._live = None  # `_drop_call`, without the time of another call.
        self._arguments = b""
        self._pieces = ()
        self._value = value
        self._error = error
        self.state = "done" if error is None else "failed"  # Last, for other threads look at it.
        return True

    def _drop_call(self) -> None:
        """Forget the call, which will not run again, and with it the memory of its arguments."""
        self._function = self._surroundings = self._live = None
        self._arguments = b""
        self._pieces = ()

    def _freeze_live(self) -> None:
        """Turn a call that was queued with copy_args=False into bytes, now that it starts. Raises as `_freeze`."""
        live = self._live
        if live is not None:
            live()
            self._live = None

    def _describe(self) -> str:
        """Put it in words for a message: ``task 7, simulate('big.csv')``."""
        text = "..."
        if self._function is not None:
            from .freeze import arguments_text

            text = arguments_text(self._arguments)
        return f"task {self.index}, {self._function_name}({text})"

    def __repr__(self) -> str:
        return f"<Task {self.index} {self._function_name} {self.state}>"

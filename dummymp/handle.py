# SPDX-License-Identifier: MIT
"""The parent's view of one worker: its connection, what it knows, and what it was given."""

from __future__ import annotations

import codecs
import collections
import io
import marshal
import os
import time
from typing import TYPE_CHECKING, Any

from .buffers import close_all, pack, packet_of, unpack
from .crashes import Crashes
from .descriptors import Packets, reserve
from .output import Lines
from .pickling import join_arguments, loads
from .sources import told
from .transport import (
    BATCH,
    CALL_BACK,
    CHUNK,
    FORGET,
    FUNCTION,
    NO_SIGNAL,
    SETTINGS,
    SOURCE,
    STDERR,
    STDOUT,
    STOP,
    SURROUNDINGS,
    TASK_HEAD,
    TASK_WITH_BUFFERS,
    U64,
    Channel,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .freeze import FunctionBlob
    from .launcher import Started
    from .processes import Process
    from .surroundings import Settings, Surroundings
    from .task import Task

__all__ = ["WorkerHandle", "load_parcel"]

# What a worker is allowed to remember of functions. Larger: programs with many functions send each of them less often;
# smaller: a function that carries much data does not stay in the worker.
KNOWN_FUNCTIONS = 64
KNOWN_BYTES = 32 << 20

# As so many bytes counts a large buffer that goes with a task. Larger: fewer such tasks are sent ahead; smaller: more
# descriptors lie in the worker, which may not have many.
BUFFER_BYTES = 4096

# A worker that does not answer a call back for so many seconds is kept from answering by C code, or is stopped. Longer:
# what waits in it waits for longer; shorter: one that is only slow to answer is troubled.
ANSWER_SECONDS = 0.01
# What was claimed in the shared page is known to both sides after so many seconds: processors show each other what
# they write in a millionth of a second.
CLAIM_SECONDS = 0.001


class WorkerHandle:
    """One worker, as the manager sees it.

    Attributes:
        number: Which worker it is; never used twice in a program.
        limits: The `Surroundings.limits` of all its tasks.
        pid: Its process id; None until the server tells.
        start_by: When it must be ready, by `time.monotonic`.
        ready: It has said so. Until then it counts as starting.
        engine: Whose task it runs, if any.
        log_prefix: What stands before log records that come while it has no task, from a thread that one left behind.
        reloads: How often modules had been loaded anew when it was started: see `Pool`.
        assigned: The tasks that it was sent and has not answered, in order; the first is the one that runs.
        since: When the first of them became the first, by `time.monotonic`.
        calling_back: It was asked to give back what it has not begun, and has not answered.
        answer_by: When that is looked after, because C code may keep it from answering, by `time.monotonic`.
        claimed: It begins nothing more until it has answered.
        revoked: The numbers of the tasks that were taken from it, and that it has not given back yet.
        cutting: The rest of the chunk that it runs was taken from it, and it has not said yet that it leaves that out.
        begun: The task of which it was told last that it begins here.
        dropped: Those of `assigned` that were killed while they waited there and could not be called back.
        deadline: When the running task's timeout is over, or, until it is ready, its own time to
            start, or, when it was stopped or retires, its time to end.
        stopped: Its task was killed, and it with it. It may still have, in `assigned`, what could not be called back.
        retiring: It was told to stop, or leaves by itself.
        orphan: The server that started it is gone, so nobody will tell how it ends.
        process: How it looked in the process table then, to tell it from a later process with its pid.
        pidfd: Tells of its end, if it is an orphan and the system can.
        full: The last time there was more than half of what one read takes, so it may be waiting for us to read.
        answer_bytes: So many bytes came then for each task that it ended, what it printed and logged included.
        closing: Its connection is closed, and it was told to end.
        killed: The server was asked to end it.
        peak: The most memory that it ever used, in bytes; 0 until it has ended, and where nobody can tell.
        gone: It has ended, and was buried.
        early: What it wrote to its standard streams before it was ready, as (stream, text). It is shown when it is up;
            a worker that never comes up has only its last words told, in the error.
        last_words: The end of what it wrote to its standard error.
    """

    def __init__(
        self, number: int, started: Started, *, method: str, limits: list[Any], nice: int, start_by: float
    ) -> None:
        self.number = number
        self.name = f"Worker-{number}"
        self.method = method
        self.limits = limits
        self.nice: int | None = nice  # None: neither the one nor the other
        self.channel: Channel = started.channel
        self.control = started.control
        self._packets = Packets(started.control)
        self.page = started.page
        self.pid: int | None = None
        self.start_by = start_by
        self.ready = False
        self.engine: Any = None
        self.log_prefix = "[PID {pid}] "
        self.reloads = 0
        self.assigned: collections.deque[Task[Any]] = collections.deque()
        self.answered = 0
        self.since = 0.0
        self.calling_back = self.claimed = self.cutting = False
        self.answer_by = 0.0
        self.revoked: set[int] = set()
        self.begun: Task[Any] | None = None
        self.dropped: set[Task[Any]] = set()
        self.deadline: float | None = None
        self.stopped = False
        self.retiring = False
        self.orphan = False
        self.process: Process | None = None
        self.pidfd: io.FileIO | None = None
        self.full = False
        self.answer_bytes = 0
        self.closing = False
        self.killed = False
        self.peak = 0
        self.gone = False
        self.early: list[tuple[int, str]] = []
        self.last_words = ""
        self._functions: dict[int, int] = {}
        self._needed = 0, 0  # The function of the task that is sent, and its initializer.
        self._surroundings = 0
        self._settings: Settings | None = None
        self._sources = 0  # So many of `told` it knows.
        pipes = ((started.stdout, STDOUT), (started.stderr, STDERR))
        self.pipes = [_Pipe(fd, stream) for fd, stream in pipes if fd >= 0]
        self._lines = {STDOUT: Lines(), STDERR: Lines()}
        self._crashes = Crashes()

    # --- sending ---

    def post_task(self, task: Task[Any], settings: Settings) -> None:
        """Queue a task to be sent, and before it what the worker does not know yet."""
        function, surroundings, arguments = task._function, task._surroundings, task._arguments
        assert function is not None and surroundings is not None
        self._post_news(function, surroundings, settings)
        if task._chunk is not None:
            self.channel.post(CHUNK, TASK_HEAD.pack(task.index, function.number, surroundings.number), arguments)
        elif task._pieces or function.pieces:
            head = TASK_HEAD.pack(task.index, function.number, surroundings.number)
            parcel = pack(arguments, task._pieces, self._packets.send, function_pieces=function.pieces)
            self.channel.post(TASK_WITH_BUFFERS, head, *parcel)
        else:
            self.channel.post_task(task.index, function.number, surroundings.number, arguments)
        self.assigned.append(task)

    def post_batch(self, tasks: list[Task[Any]], settings: Settings) -> None:
        """Queue tasks to be sent as one: calls of one function from one place, numbered one after another."""
        function, surroundings = tasks[0]._function, tasks[0]._surroundings
        assert function is not None and surroundings is not None
        self._post_news(function, surroundings, settings)
        arguments = join_arguments([task._arguments for task in tasks])
        self.channel.post(BATCH, TASK_HEAD.pack(tasks[0].index, function.number, surroundings.number), arguments)
        self.assigned.extend(tasks)

    def _post_news(self, function: FunctionBlob, surroundings: Surroundings, settings: Settings) -> None:
        if self._settings is not settings:
            self._settings = settings
            self.channel.post(SETTINGS, settings.data())
        while self._sources < len(told):
            self.channel.post(SOURCE, marshal.dumps(told[self._sources]))
            self._sources += 1
        setup = surroundings.setup
        self._needed = function.number, 0 if setup is None else setup.number
        self._post_function(function)
        if surroundings.number != self._surroundings:
            self._surroundings = surroundings.number
            if setup is not None:
                self._post_function(setup)
            self.channel.post(SURROUNDINGS, U64.pack(surroundings.number), surroundings.data)

    def _post_function(self, function: FunctionBlob) -> None:
        if function.number not in self._functions:
            self._remember(function.number, len(function.data))
            self.channel.post(FUNCTION, U64.pack(function.number), bytes([function.reusable]), function.data)

    def post_again(self, task: Task[Any]) -> None:
        """Queue a task to be sent once more."""
        assert self._settings is not None
        self.post_task(task, self._settings)

    def bytes_for(self, task: Task[Any]) -> int:
        """Count what `post_task` would send for a task; each large buffer as `BUFFER_BYTES`."""
        size, function, surroundings = len(task._arguments), task._function, task._surroundings
        assert function is not None and surroundings is not None
        if function.number not in self._functions:
            size += len(function.data) + sum(len(text) for _, text in told[self._sources :])
        if surroundings.number != self._surroundings:
            size += len(surroundings.data) + (len(surroundings.setup.data) if surroundings.setup is not None else 0)
        if task._pieces or function.pieces:
            size += BUFFER_BYTES * (len(task._pieces) + len(function.pieces))
        return size

    def _remember(self, number: int, size: int) -> None:
        functions = self._functions
        while len(functions) >= KNOWN_FUNCTIONS or sum(functions.values()) + size > KNOWN_BYTES:
            oldest = next((known for known in functions if known not in self._needed), None)
            if oldest is None:
                break
            del functions[oldest]
            self.channel.post(FORGET, U64.pack(oldest))
        functions[number] = size

    def start_clock(self) -> None:
        """Count the running task's time from now on, and its timeout once the worker is up."""
        self.since = time.monotonic()
        if not self.ready:
            self.deadline = None if self.killed else self.start_by
            return
        task = self.assigned[0] if self.assigned else None
        timeout = task._timeout if task is not None else None
        if task in self.dropped:
            timeout = 0.0  # It was killed already, but it begins all the same.
        self.deadline = None if timeout is None or self.stopped else self.since + timeout

    def has_more(self) -> bool:
        """Tell whether it was sent more than what it runs now."""
        if len(self.assigned) > 1:
            return True
        chunk = self.assigned[0]._chunk if self.assigned else None
        return chunk is not None and chunk.whole

    def call_back(self) -> None:
        """Ask for the tasks that it has not begun; it answers with RETURNED."""
        self.calling_back = True
        self.answer_by = time.monotonic() + ANSWER_SECONDS
        try:
            self.control.send(CALL_BACK, NO_SIGNAL)
        except OSError:
            pass  # It has ended; that tells the same.

    def awaits_answer(self) -> bool:
        """Tell whether it holds tasks that it was asked to give back."""
        return self.calling_back and self.page is not None and self.ready and not self.stopped and self.has_more()

    def claim(self) -> bool:
        """Keep it from beginning anything but what runs; True once that is certain, and known what runs.

        It notes in the page that it begins a task, and looks there then whether it may; we write there that it may not,
        and look, a little later, what it has begun. So what it has not begun by then it will not begin.
        """
        assert self.page is not None
        if self.claimed:
            if time.monotonic() < self.answer_by:
                return False
            self.answer_by = time.monotonic() + ANSWER_SECONDS
            # It may have been stopped before it began the first: that stays with it, as if it ran.
            return self.page.begun <= self.answered + 1
        self.answer_by = time.monotonic() + CLAIM_SECONDS
        self.page.claim(True)
        self.claimed = True
        return False

    def let_go_on(self) -> None:
        """Let it begin tasks again, if it has given back all that was taken from it."""
        if self.claimed and not self.revoked and not self.cutting:
            assert self.page is not None
            self.page.claim(False)
            self.claimed = False

    def stop(self) -> None:
        """Tell it to end when it has done what it was sent."""
        self.retiring = True
        self.channel.send(STOP)

    # --- receiving ---

    def receive_all(self) -> Iterator[tuple[int, Any]]:
        """Give all that it had sent, and all that it would have sent together with later messages."""
        yield from self.channel.receive_all()
        if self.page is not None:
            yield from self.channel.receive_kept(self.page)

    def open_parcel(self, parcel: memoryview) -> tuple[memoryview, list[Any]] | BaseException:
        """Open a value with large buffers, for `load_parcel`: the buffers become views of what the worker wrote.

        Returns:
            The pickle and its buffers; or what went wrong.
        """
        try:
            with reserve:
                fds = self._packets.take(packet_of(parcel))
                try:
                    _, buffers, pickle = unpack(parcel, fds)
                finally:
                    close_all(fds)
        except BaseException as error:
            return error
        return pickle, buffers

    def drop_parcel(self, parcel: memoryview) -> None:
        """Let go of the large buffers of a value that nobody wants."""
        with reserve:
            try:
                close_all(self._packets.take(packet_of(parcel)))
            except OSError:
                pass

    # --- knowing ---

    def had_begun(self) -> bool:
        """Tell, of a worker that has ended, whether it had begun the first of its assigned tasks."""
        if self.page is None:
            return self.ready
        return self.page.begun > self.answered

    def read_log(self) -> None:
        """Let the chunk that runs, if it is one, know what the log says of it."""
        chunk = self.assigned[0]._chunk if self.assigned else None
        if chunk is not None:
            # One that waits in the worker and has not begun must not take the log of the one before for its own.
            chunk.log = self.page.log() if self.page is not None and self.had_begun() else None

    def whole_lines(self, stream: int, text: str) -> str:
        """Take text that came over the connection; give what is whole by now."""
        return self._lines[stream].add(text)

    def unfinished_lines(self, *, of_pipes: bool = True) -> list[tuple[int, str]]:
        """Give the begun lines of both streams, because nothing more will be added to them."""
        rests = [(stream, lines.rest()) for stream, lines in self._lines.items()]
        if of_pipes:
            rests += [(STDERR, self._crashes.rest()), *((pipe.stream, pipe.lines.rest()) for pipe in self.pipes)]
        return [(stream, rest) for stream, rest in rests if rest]

    def read_pipes(self, *, to_the_end: bool = False) -> list[tuple[int, str]]:
        """Give the whole lines that came through the file descriptors 1 and 2: (stream, text)."""
        found = []
        for pipe in self.pipes:
            text = pipe.read(to_the_end)
            if text and pipe.stream == STDERR:
                text = self._crashes.filter(text)
            if text:
                found.append((pipe.stream, text))
                if pipe.stream == STDERR:
                    self.last_words = (self.last_words + text)[-4000:]
        return found

    def close(self) -> None:
        """Close all that connects us."""
        self.gone = True
        self.channel.close()
        self._packets.close()
        self.control.close()
        for pipe in self.pipes:
            pipe.close()
        if self.pidfd is not None:
            self.pidfd.close()
        if self.page is not None:
            self.page.close()


def load_parcel(opened: tuple[memoryview, list[Any]] | BaseException) -> Any:
    """Rebuild a value with large buffers. That may run code of the user."""
    if isinstance(opened, BaseException):
        raise opened
    pickle, buffers = opened
    return loads(pickle, buffers=buffers)


class _Pipe:
    """Reads what a worker, or a program that it started, wrote to a file descriptor."""

    def __init__(self, fd: int, stream: int) -> None:
        self.fd = fd
        self.stream = stream
        self.open = True
        self.lines = Lines()
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def fileno(self) -> int:
        return self.fd

    def read(self, to_the_end: bool) -> str:
        """Give the whole lines that are there; at the end of a worker as many as it left, at most 64 MB."""
        whole = ""
        for _ in range(1024 if to_the_end else 4):
            try:
                data = os.read(self.fd, 1 << 16) if self.open else b""
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                data = b""
            if not data:
                self.open = False
                break
            whole += self.lines.add(self._decoder.decode(data))
        return whole

    def close(self) -> None:
        os.close(self.fd)

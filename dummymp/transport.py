# SPDX-License-Identifier: MIT
"""Messages between the parent and one worker, over one private connection.

A message is a kind (one byte), a length, and so many bytes. The parent's end never blocks: what does not fit into the
pipe now waits in `Channel.outgoing`, and a message that has come half waits for its other half. So a worker that is
stopped in the middle of a message, or that is itself busy sending, cannot make the parent wait.
The worker's end (`WorkerChannel`) blocks, since a worker has nothing else to do. What came of short tasks it keeps for
up to a millisecond in memory that both share (`page`), and sends it together: a message costs either side more than
such a task. Where the worker dies meanwhile, or C code keeps it busy, the parent reads there what it would have sent.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import marshal
import operator
import os
import select
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .page import Page

__all__ = ["NO_SIGNAL", "TOGETHER", "Channel", "PipeChannel", "WorkerChannel"]

HEADER = struct.Struct("<BQ")

# Where a script has put SIGPIPE back to its default, to write to a worker that is gone would end the script. Not macOS.
NO_SIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0)

# One read takes so much. Larger: fewer system calls when many small results wait; smaller: less memory a worker.
READ_SIZE = 1 << 16
# A message from this size on is read straight into its own buffer, and written without being joined to its header.
LARGE = 1 << 16

# So many pieces are written by one system call; POSIX allows no more than IOV_MAX, which is 1024 or more.
GATHER = 512

# What finished is told of after so many seconds. Telling takes a worker about 10 microseconds, the parent 20. Longer:
# less of that; shorter: results come sooner. Nothing is lost meanwhile, since it is in the page.
TOGETHER = 1e-3

# To close a socket takes longer than this, in seconds. So a shorter task cannot have closed the connection, which is
# looked at after others.
CAN_CLOSE = 1e-6

# What `TEXT` was written to; also the file descriptors.
STDOUT, STDERR = 1, 2

# Parent to worker.
FUNCTION = 1  # u64 number, pickle
FORGET = 2  # u64 number: this function will not be needed again
SURROUNDINGS = 3  # u64 number, pickle
SETTINGS = 4  # pickle
TASK = 5  # TASK_HEAD, arguments (pickling.load_arguments)
STOP = 6  # end, in good order
TASK_WITH_BUFFERS = 7  # TASK_HEAD, parcel (buffers.py)
CHUNK = 8  # TASK_HEAD, pickle of (form, pieces): many items of a map, see `chunks`
BATCH = 9  # TASK_HEAD of the first, marshal of [arguments, ...]: so many TASKs, numbered one after another
SOURCE = 10  # marshal of (name, text): the source of functions that stand in no file, see `sources`; or of versions
TASKS = (TASK, TASK_WITH_BUFFERS, CHUNK, BATCH)
# Worker to parent.
READY = 16  # u64 process id
RESULT = 17  # u64 call number, f64 seconds, pickle
FAILURE = 18  # u64 call number, f64 seconds, pickle of a dict
TEXT = 19  # u64 call number, u8 stream (1 stdout, 2 stderr), UTF-8 text
RECORD = 20  # u64 call number, pickle of a log record's dict
EXTRAS = "dummymp extras"  # its fields that are not plain, each in a pickle of its own
NOTE = 21  # UTF-8 text, to be said once in a program
RETURNED = 22  # u64 call numbers of the tasks that were called back and not begun: the answer to CALL_BACK
RESULT_WITH_BUFFERS = 23  # u64 call number, f64 seconds, parcel (buffers.py)
PART = 24  # PART_HEAD, what came of so many items of a chunk, see `chunks`
CUT = 25  # CUT_HEAD: these items of a chunk will not run here
LEAVING = 26  # nothing: the worker ends by itself, and runs nothing more
ATOM_RESULT = 27  # u64 call number, f64 seconds, marshal of a number or a string (pickling.dump_atom)
DECLINED = 28  # as RETURNED, of what was claimed; the answer to CALL_BACK is still to come
LINE = 30  # u64 call number, what a task logged by loguru, see `intercept`
DISPLAY = 29  # u64 call number, pickle of (function of IPython.display, keyword arguments), see `displays`
# Parent to worker, over the control connection.
CALL_BACK = b"R"

U64 = struct.Struct("<Q")
TASK_HEAD = struct.Struct("<QQQ")  # call number, function, surroundings
TASK_MESSAGE = struct.Struct(HEADER.format + TASK_HEAD.format[1:])
ENDED_HEAD = struct.Struct("<Qd")  # call number, seconds
ANSWER_MESSAGE = struct.Struct(HEADER.format + ENDED_HEAD.format[1:])
TEXT_HEAD = struct.Struct("<QB")  # call number, stream
PART_HEAD = struct.Struct("<QQI?")  # call number of the chunk, first item, how many, whether not all are plain
CUT_HEAD = struct.Struct("<QQ")  # call number of the chunk, the first item that will not run

# Of a task of a BATCH.
_NUMBER = operator.itemgetter(1)


class _Reader:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._rest = b""
        self._large: memoryview | None = None
        self._large_kind = 0
        self._filled = 0

    def large_buffer(self) -> memoryview | None:
        """Give the part of a large message's buffer that is still to be filled, if one is on its way."""
        return None if self._large is None else self._large[self._filled :]

    def filled(self, count: int) -> Iterator[tuple[int, Any]]:
        """Take note of `count` bytes read into `large_buffer`."""
        assert self._large is not None
        self._filled += count
        if self._filled == len(self._large):
            message, self._large = self._large, None
            yield self._large_kind, message

    def feed(self, data: bytes) -> Iterator[tuple[int, Any]]:
        """Take bytes that were read; give the messages that are complete."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        start, end, head = 0, len(data), HEADER.size
        while end - start >= head:
            kind, length = HEADER.unpack_from(data, start)
            if end - start - head < length:
                if length >= LARGE:
                    self._large = memoryview(bytearray(length))
                    self._large_kind = kind
                    self._filled = end - start - head
                    self._large[: self._filled] = data[start + head :]
                    return
                break
            start += head + length
            yield kind, data[start - length : start]
        self._rest = data[start:]


class Channel:
    """The parent's end: never blocks.

    Attributes:
        closed: The other end is gone, or this one was closed; what had come before was given out.
        outgoing: What waits to be written. While there is any, `flush` wants to be called when the pipe has room.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._reader = _Reader()
        self._position = 0  # So many bytes were taken in.
        self._ahead = 0  # So many of them, the last, were read from the page, and are still to come.
        self.outgoing: collections.deque[bytes | memoryview] = collections.deque()
        self.closed = False

    def fileno(self) -> int:
        return self._connection.fileno()

    def receive(self) -> list[tuple[int, Any]]:
        """Give the messages that have come, without waiting; about one `READ_SIZE` or one large message at a time."""
        return self._read() or []

    def is_under_way(self) -> bool:
        """Tell whether a large message is under way: it has come half, or something waits to be written."""
        return bool(self.outgoing) or self._reader.large_buffer() is not None

    def receive_all(self) -> Iterator[tuple[int, Any]]:
        """Give all that the other end had written, when it is known to write no more."""
        while True:
            messages = self._read()
            if messages is None:
                return
            yield from messages

    def receive_kept(self, page: Page) -> list[tuple[int, Any]]:
        """Give the messages that the other end has not sent, because it sends them together with later ones."""
        data = page.kept(self._position)
        self._position += len(data)
        self._ahead += len(data)
        return list(self._reader.feed(data))

    def _read(self) -> list[tuple[int, Any]] | None:
        """Read once. None: there is nothing to read now (or, with `closed`, ever)."""
        try:
            buffer = self._reader.large_buffer()
            if buffer is not None:
                count = self._connection.recv_into(buffer)
                if count:
                    self._position += count
                    return list(self._reader.filled(count))
            else:
                data = self._connection.recv(READ_SIZE)
                if data:
                    return list(self._reader.feed(self._unread(data)))
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            pass  # Reset by the other end: as good as its end.
        self.closed = True
        return None

    def _unread(self, data: bytes) -> bytes:
        """Leave out of what was read what is known from the page."""
        if self._ahead:
            known = min(self._ahead, len(data))
            self._ahead -= known
            data = data[known:]
        self._position += len(data)
        return data

    def send(self, kind: int, *parts: Any) -> None:
        """Queue one message and write as much as fits. A message to an end that is gone is dropped."""
        self.post(kind, *parts)
        self.flush()

    def post(self, kind: int, *parts: Any) -> None:
        """Queue one message; `flush` writes it, together with others."""
        length = sum(map(len, parts))
        if length < LARGE:
            self.outgoing.append(b"".join((HEADER.pack(kind, length), *parts)))
        else:
            self.outgoing.append(HEADER.pack(kind, length))
            self.outgoing.extend(memoryview(part) for part in parts if len(part))

    def post_task(self, number: int, function: int, surroundings: int, arguments: bytes) -> None:
        """Queue a TASK message; the same as `post`, in fewer steps."""
        if len(arguments) < LARGE:
            length = TASK_HEAD.size + len(arguments)
            self.outgoing.append(TASK_MESSAGE.pack(TASK, length, number, function, surroundings) + arguments)
        else:
            self.post(TASK, TASK_HEAD.pack(number, function, surroundings), arguments)

    def flush(self) -> bool:
        """Write as much as fits; tell whether nothing is left."""
        outgoing = self.outgoing
        try:
            while outgoing:
                count = self._connection.sendmsg(list(itertools.islice(outgoing, GATHER)), (), NO_SIGNAL)
                while outgoing and count >= len(outgoing[0]):
                    count -= len(outgoing.popleft())
                if count:
                    outgoing[0] = memoryview(outgoing[0])[count:]
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            outgoing.clear()  # The reading side finds out that the other end is gone, and why.
        return True

    def close(self) -> None:
        """Close it; what the other end still sends is lost."""
        self.closed = True
        self.outgoing.clear()
        self._connection.close()


class PipeChannel(Channel):
    """The parent's end where there are no socket pairs: over a `multiprocessing.Pipe`, as on Windows.

    Its writes block. That is no danger as long as large messages go to workers that wait for one.
    """

    def __init__(self, connection: Any) -> None:
        self.pipe = connection
        self.outgoing = collections.deque()
        self.closed = False

    def fileno(self) -> int:
        return int(self.pipe.fileno())

    def is_under_way(self) -> bool:
        return False

    def receive_kept(self, page: Page) -> list[tuple[int, Any]]:
        return []

    def _read(self) -> list[tuple[int, Any]] | None:
        try:
            if self.pipe.poll():
                data = self.pipe.recv_bytes()
                return [(data[0], memoryview(data)[HEADER.size :])]
        except (EOFError, OSError):
            self.closed = True
        return None

    def post_task(self, number: int, function: int, surroundings: int, arguments: bytes) -> None:
        self.post(TASK, TASK_HEAD.pack(number, function, surroundings), arguments)

    def post(self, kind: int, *parts: Any) -> None:
        try:
            self.pipe.send_bytes(b"".join((HEADER.pack(kind, sum(map(len, parts))), *parts)))
        except OSError:
            pass

    def flush(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True
        self.pipe.close()


class WorkerChannel:
    """The worker's end: blocks. Any thread may send; one thread receives.

    Args:
        connection: A socket, or (Windows) the end of a `multiprocessing.Pipe`.
        page: Where messages are kept that are sent together; None sends each by itself.

    Attributes:
        waiting_since: When the receiving thread fell asleep, by `time.monotonic`; None while it is awake.
    """

    def __init__(self, connection: Any, page: Page | None = None) -> None:
        self._connection = connection
        self._page = page
        self._position = 0  # So many bytes were sent, or are kept.
        self._kept_at: int | None = None  # Where what is kept begins.
        self._tell_at = 0.0
        self._fd = connection.fileno() if page is not None else -1
        self._is_socket = hasattr(connection, "recv_into")
        self._send_all: Callable[[Any], BaseException | None] = self._send_whole
        if not self._is_socket:
            self._send_all = connection.send_bytes
        self._reader = _Reader()
        self._messages: collections.deque[tuple[int, Any]] = collections.deque()
        self._calls: Iterator[Any] = iter(())  # What is left of a BATCH.
        # Guards the messages that were read, but the receiving thread takes the first without it. While that sleeps in
        # a read, there are none.
        self._guard = threading.Lock()
        self.waiting_since: float | None = None
        self._lock = threading.RLock()
        self._sending = False
        self._later: collections.deque[tuple[Any, ...]] = collections.deque()

    def receive(self) -> tuple[int, Any]:
        """Wait for the next message.

        Returns:
            Its kind, and what is in it. A BATCH comes as its tasks, one after another, each as a tuple of its
            arguments and what TASK_HEAD has.

        Raises:
            EOFError: The parent has closed the connection, or is gone.
        """
        while True:
            call = next(self._calls, None)
            if call is not None:
                return BATCH, call
            try:
                kind, message = self._messages.popleft()
            except IndexError:
                pass
            else:
                if kind != BATCH:
                    return kind, message
                self._calls = _calls_of(message)
                continue
            with self._guard:
                if self._messages:
                    continue  # They were about to be taken back, and stay.
                self._send(())  # What was kept.
                self.waiting_since = time.monotonic()
            messages: list[tuple[int, Any]] = []
            try:
                messages = list(self._read())
            finally:
                with self._guard:
                    self.waiting_since = None
                    self._messages.extend(messages)

    def take_back(self) -> list[tuple[int, Any]]:
        """Take the tasks out of the line that have come and were not begun; from another thread than the receiving.

        They are all that come after those that the receiving thread has got.

        Returns:
            Their kinds and messages; of the tasks of a BATCH, their call numbers.
        """
        with self._guard:
            if self.waiting_since is None and self._is_socket:
                self._read_ahead()
            # The receiving thread may take the first at any moment, until it finds none: then it comes here. So we go
            # from the last to the first, or it would begin one behind those that we have.
            entries: list[tuple[int, Any]] = []
            with contextlib.suppress(IndexError):
                while True:
                    entries.append(self._messages.pop())
            tasks: list[tuple[int, Any]] = [(BATCH, number) for number in _numbers_of(self._calls)]
            for kind, message in reversed(entries):
                if kind == BATCH:
                    tasks += [(BATCH, number) for number in _numbers_of(_calls_of(message))]
                elif kind in TASKS:
                    tasks.append((kind, message))
            # In one step, for it may take the first again.
            self._messages.extendleft([entry for entry in entries if entry[0] not in TASKS])
        return tasks

    def _read_ahead(self) -> None:
        """Read what is there. The receiving thread runs a task meanwhile, and comes to the guard when it wants more."""
        while self._reader.large_buffer() is None and select.select([self._connection], [], [], 0)[0]:
            try:
                self._messages.extend(self._read())
            except EOFError:
                return  # The receiving thread will find that out, too.

    def _read(self) -> Iterator[tuple[int, Any]]:
        try:
            if not self._is_socket:
                data = self._connection.recv_bytes()
                return iter([(data[0], memoryview(data)[HEADER.size :])])
            buffer = self._reader.large_buffer()
            if buffer is not None:
                count = self._connection.recv_into(buffer)
                if count:
                    return self._reader.filled(count)
            else:
                data = self._connection.recv(READ_SIZE)
                if data:
                    return self._reader.feed(data)
        except OSError:
            pass
        raise EOFError

    def send(self, kind: int, *parts: Any) -> None:
        """Send one message whole.

        Raises:
            OSError: The parent is gone.
        """
        length = sum(map(len, parts))
        message = HEADER.pack(kind, length), *parts
        self._send(message if length >= LARGE and self._is_socket else (b"".join(message),))

    def send_answer(self, kind: int, number: int, seconds: float, body: bytes) -> None:
        """Send a RESULT or a FAILURE, at once or together with what follows within `TOGETHER`. Raises as `send`."""
        if len(body) >= LARGE:
            self.send(kind, ENDED_HEAD.pack(number, seconds), body)
            return
        message = ANSWER_MESSAGE.pack(kind, ENDED_HEAD.size + len(body), number, seconds) + body
        now = time.monotonic()
        if now < self._tell_at and self._keep(message, check=seconds > CAN_CLOSE):
            return
        self._tell_at = now + TOGETHER
        self._send((message,))

    def _keep(self, message: bytes, *, check: bool) -> bool:
        """Leave a message to be sent together with others; False if that cannot be. `check` that it could be sent."""
        with self._lock:
            if self._page is None or self._sending:
                return False
            self._sending = True
            try:
                if check:
                    # Where a task has closed the connection, that is an error, as it would be if this were sent.
                    os.get_blocking(self._fd)
                kept = self._page.keep(self._position, message)
                if kept and self._kept_at is None:
                    self._kept_at = self._position
                self._position += len(message) if kept else 0
            finally:
                self._sending = False
            if self._later:
                self._send(())
        return kept

    def _send(self, pieces: tuple[Any, ...]) -> None:
        """Send the pieces of one message, and what was kept before it."""
        with self._lock:
            if self._sending:
                # A signal handler of the user prints in the middle of a print: that message goes after this one.
                self._later.append(pieces)
                return
            self._sending = True
            try:
                raised = self._send_kept() if self._kept_at is not None else None
                raised = self._send_pieces(pieces) or raised
                while self._later:
                    raised = self._send_pieces(self._later.popleft()) or raised
            finally:
                self._sending = False
        if raised is not None:
            raise raised

    def _send_kept(self) -> BaseException | None:
        assert self._page is not None and self._kept_at is not None
        raised = self._send_all(self._page.kept(self._kept_at))
        self._page.forget_kept()
        self._kept_at = None
        return raised

    def _send_pieces(self, pieces: tuple[Any, ...]) -> BaseException | None:
        raised = None
        for piece in pieces:
            raised = self._send_all(piece) or raised
            self._position += len(piece)
        return raised

    def _send_whole(self, data: Any) -> BaseException | None:
        """Send all of it; give what a signal handler of the user raised meanwhile: with half a message, all is lost."""
        raised, left, sent = None, memoryview(data), [0]
        while sum(sent) < len(data):
            try:
                # For signal handlers that is one step, so we know what was sent even if one raises.
                sent.extend(map(self._connection.send, (left[sum(sent) :],)))
            except BaseException as error:
                # What the connection itself raises has no calls below ours; neither has Python's handler of Ctrl-C.
                if error.__traceback__.tb_next is None and not isinstance(error, KeyboardInterrupt):  # type: ignore[union-attr]
                    raise
                raised = error
        return raised

    def leave(self) -> None:
        """Send nothing more: this process is a copy that a task forked, and the original would not count it."""
        self._page = self._kept_at = None
        self._send_all = lambda data: None

    def close(self) -> None:
        self._connection.close()


def _calls_of(batch: Any) -> Iterator[Any]:
    """Give the tasks of a BATCH, one after another, in single steps: any thread may take one."""
    first, function, surroundings = TASK_HEAD.unpack_from(batch)
    calls = marshal.loads(memoryview(batch)[TASK_HEAD.size :])
    return zip(calls, itertools.count(first), itertools.repeat(function), itertools.repeat(surroundings))


def _numbers_of(calls: Iterator[Any]) -> list[int]:
    """Take what is left of the tasks of a BATCH; give their call numbers. In a single step, too."""
    return list(map(_NUMBER, calls))

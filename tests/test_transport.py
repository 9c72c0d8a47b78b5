"""Messages over one connection: cut anywhere they arrive whole and in order, and the parent's end never blocks."""

from __future__ import annotations

import contextlib
import itertools
import marshal
import multiprocessing
import select
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import TIMEOUT
from hypothesis import given
from hypothesis import strategies as st

from dummymp import transport
from dummymp.page import Page
from dummymp.transport import (
    BATCH,
    ENDED_HEAD,
    FUNCTION,
    HEADER,
    LARGE,
    READ_SIZE,
    RESULT,
    SURROUNDINGS,
    TASK,
    TASK_HEAD,
    TEXT,
    U64,
    Channel,
    PipeChannel,
    WorkerChannel,
)

# Small ones, and those around the size from which a message has a buffer of its own.
BODIES = st.binary(max_size=40) | st.integers(LARGE - 20, LARGE + 20).map(lambda size: b"x" * size)
KINDS_OF_MESSAGES = st.integers(0, 255).filter(lambda kind: kind != BATCH)  # Which has a form of its own.
MESSAGES = st.lists(st.tuples(KINDS_OF_MESSAGES, BODIES), max_size=6)
KINDS = ["socket", "pipe"]
FIVE_MB = 5 * 1024 * 1024


@contextlib.contextmanager
def socket_pair() -> Iterator[tuple[Channel, socket.socket]]:
    """Give the parent's channel, and the bare other end."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(TIMEOUT)
    channel = Channel(ours)
    try:
        yield channel, theirs
    finally:
        channel.close()
        theirs.close()


@contextlib.contextmanager
def ends(kind: str = "socket") -> Iterator[tuple[Channel, WorkerChannel]]:
    """Give both ends of a connection of either kind."""
    if kind == "socket":
        with socket_pair() as (channel, theirs):
            yield channel, WorkerChannel(theirs)
        return
    ours, other = multiprocessing.Pipe()
    channel = PipeChannel(ours)
    try:
        yield channel, WorkerChannel(other)
    finally:
        channel.close()
        other.close()


def plain(messages: Any) -> list[tuple[int, bytes]]:
    return [(kind, bytes(body)) for kind, body in messages]


def wait(source: Any, *, room: bool = False) -> None:
    """Wait until there is something to read or, with `room`, also until there is room to write."""
    readable, writable, _ = select.select([source], [source] if room else [], [], TIMEOUT)
    assert readable or writable


def receive(channel: Channel, count: int) -> list[tuple[int, bytes]]:
    """Drive the parent's end until so many messages have come."""
    found: list[tuple[int, bytes]] = []
    while len(found) < count:
        assert not channel.closed
        wait(channel, room=bool(channel.outgoing))
        channel.flush()
        found += plain(channel.receive())
    return found


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(data) + 1) for place in cuts), len(data)]
    return [data[start:end] for start, end in zip(places, places[1:]) if end > start]


# --- what is received --------------------------------------------------------------------------------------------


@given(messages=MESSAGES, cuts=st.lists(st.integers(0, 1 << 20), max_size=8))
def test_parent_joins_messages_that_were_cut_anywhere(messages: list[tuple[int, bytes]], cuts: list[int]) -> None:
    """However the bytes come in, each message comes out once, whole, and in order."""
    data = b"".join(HEADER.pack(kind, len(body)) + body for kind, body in messages)
    found: list[tuple[int, bytes]] = []
    with socket_pair() as (channel, theirs):
        for piece in cut(data, cuts):
            while piece:
                piece = piece[theirs.send(piece[:4096]) :]
                found += plain(channel.receive_all())
        assert found == messages
        assert not channel.closed


@given(messages=MESSAGES, cuts=st.lists(st.integers(0, 1 << 20), max_size=8))
def test_worker_joins_messages_that_were_cut_anywhere(messages: list[tuple[int, bytes]], cuts: list[int]) -> None:
    """The worker's end puts them together in the same way."""
    data = b"".join(HEADER.pack(kind, len(body)) + body for kind, body in messages)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(TIMEOUT)

        def send() -> None:
            for piece in cut(data, cuts):
                ours.sendall(piece)

        sender = threading.Thread(target=send)
        sender.start()
        channel = WorkerChannel(theirs)
        found = plain(channel.receive() for _ in messages)
        sender.join(TIMEOUT)
    assert found == messages


@pytest.mark.parametrize("kind", KINDS)
@given(messages=MESSAGES, where=st.integers(0, 40))
def test_parts_of_a_message_are_joined(kind: str, messages: list[tuple[int, bytes]], where: int) -> None:
    """A message may be given in parts, even empty ones; both ways it arrives as one, over either kind of connection."""
    with ends(kind) as (channel, worker):
        for number, body in messages:
            sender = threading.Thread(target=worker.send, args=(number, body[:where], body[where:]))
            sender.start()
            assert receive(channel, 1) == [(number, body)]
            sender.join(TIMEOUT)
            channel.send(number, body[:where], body[where:])
            while not channel.flush():
                wait(channel, room=True)
            assert plain([worker.receive()]) == [(number, body)]


@pytest.mark.parametrize("size", [LARGE - 1, LARGE, LARGE + 1, READ_SIZE - 1, READ_SIZE, READ_SIZE + 1, FIVE_MB])
def test_sizes_at_which_the_way_changes(size: int) -> None:
    """Messages right at the limits of the buffers arrive whole, with small ones before and after them."""
    body = bytes(range(256)) * (size // 256 + 1)
    expected = [(1, b"before"), (2, body[:size]), (3, b""), (4, b"after")]
    with ends() as (channel, worker):

        def send() -> None:
            for message in expected:
                worker.send(*message)

        sender = threading.Thread(target=send)
        sender.start()
        assert receive(channel, 4) == expected
        sender.join(TIMEOUT)


def test_large_message_is_not_copied_together() -> None:
    """A message of several megabytes is read into one buffer of its own, which can be written to."""
    with ends() as (channel, worker):
        sender = threading.Thread(target=worker.send, args=(9, b"x" * FIVE_MB))
        sender.start()
        messages: list[tuple[int, Any]] = []
        while not messages:
            wait(channel)
            messages = channel.receive()
        sender.join(TIMEOUT)
    body = messages[0][1]
    assert isinstance(body, memoryview) and not body.readonly


def test_many_small_messages_come_with_one_read() -> None:
    """What waits in the pipe is taken in bulk."""
    with ends() as (channel, worker):
        for number in range(20):
            worker.send(number, b"small")
        wait(channel)
        assert plain(channel.receive()) == [(number, b"small") for number in range(20)]


# --- never blocking ----------------------------------------------------------------------------------------------


def test_nothing_to_receive() -> None:
    """Asking an empty connection gives nothing, and takes no time."""
    with ends() as (channel, _):
        assert channel.receive() == []
        assert list(channel.receive_all()) == []
        assert not channel.closed


def test_sending_to_a_stopped_reader_returns() -> None:
    """What does not fit into the pipe waits in `outgoing`, in order, and goes out when there is room."""
    body = b"y" * FIVE_MB
    with ends() as (channel, worker):
        channel.send(1, body)
        channel.send(2, b"small")
        channel.send(3, body)
        assert channel.outgoing
        assert not channel.flush()
        found: list[tuple[int, bytes]] = []
        reader = threading.Thread(target=lambda: found.extend(plain(worker.receive() for _ in range(3))))
        reader.start()
        while not channel.flush():
            wait(channel, room=True)
        reader.join(TIMEOUT)
        assert found == [(1, body), (2, b"small"), (3, body)]
        assert not channel.outgoing


def test_half_a_message_does_not_make_the_parent_wait() -> None:
    """A worker that stops in the middle of a message holds up nobody; the message arrives when its rest does."""
    body = b"z" * FIVE_MB
    with socket_pair() as (channel, theirs):
        theirs.sendall(HEADER.pack(7, len(body)) + body[:1000])
        assert list(channel.receive_all()) == []
        assert list(channel.receive_all()) == []
        sender = threading.Thread(target=theirs.sendall, args=(body[1000:],))
        sender.start()
        assert receive(channel, 1) == [(7, body)]
        sender.join(TIMEOUT)


def test_both_pipes_full_at_once() -> None:
    """Parent and worker send each other 5 MB at the same moment: neither waits for ever."""
    down, up = b"d" * FIVE_MB, b"u" * FIVE_MB
    found: list[tuple[int, bytes]] = []
    with ends() as (channel, worker):

        def be_worker() -> None:
            worker.send(2, up)
            found.append(plain([worker.receive()])[0])

        channel.send(1, down)
        thread = threading.Thread(target=be_worker)
        thread.start()
        assert receive(channel, 1) == [(2, up)]
        while not channel.flush():
            wait(channel, room=True)
        thread.join(TIMEOUT)
    assert found == [(1, down)]


# --- closed ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_sent_before_the_end_arrives(kind: str) -> None:
    """The last messages of a worker that has ended are given out before the channel counts as closed."""
    with ends(kind) as (channel, worker):
        worker.send(1, b"first")
        worker.send(2, b"last")
        worker.close()
        assert plain(channel.receive_all()) == [(1, b"first"), (2, b"last")]
        assert channel.closed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [10, LARGE])
def test_message_to_an_end_that_is_gone_is_dropped(kind: str, size: int) -> None:
    """Sending to a worker that has ended is no error; that it has ended is seen by reading."""
    with ends(kind) as (channel, worker):
        worker.close()
        channel.send(1, b"x" * size)
        channel.send(2, b"x" * size)
        assert channel.flush()
        assert not channel.outgoing
        assert list(channel.receive_all()) == []
        assert channel.closed


@pytest.mark.parametrize("kind", KINDS)
def test_closed_channel(kind: str) -> None:
    """After `close`, nothing is sent or received, and asking is no error."""
    with ends(kind) as (channel, worker):
        worker.send(1, b"lost")
        channel.close()
        channel.close()
        assert channel.closed
        channel.send(1, b"x")
        assert channel.flush()
        assert channel.receive() == []


@pytest.mark.parametrize("kind", KINDS)
def test_worker_learns_of_the_end_of_the_parent(kind: str) -> None:
    """When the parent is gone, `receive` raises EOFError, after all that it had sent, and `send` raises OSError."""
    with ends(kind) as (channel, worker):
        channel.send(1, b"last")
        channel.close()
        assert plain([worker.receive()]) == [(1, b"last")]
        with pytest.raises(EOFError):
            worker.receive()
        with pytest.raises(EOFError):
            worker.receive()
        with pytest.raises(OSError):
            for _ in range(2):  # A socket takes one message before it knows.
                worker.send(2, b"x")


def test_end_in_the_middle_of_a_message() -> None:
    """Half a message of a worker that died is no message."""
    with socket_pair() as (channel, theirs):
        theirs.sendall(HEADER.pack(1, 2) + b"ok" + HEADER.pack(2, 100) + b"half")
        theirs.close()
        assert plain(channel.receive_all()) == [(1, b"ok")]
        assert channel.closed


@pytest.mark.parametrize("kind", KINDS)
def test_channels_can_be_waited_for(kind: str) -> None:
    """A channel has the descriptor that a selector needs."""
    with ends(kind) as (channel, worker):
        assert channel.fileno() >= 0
        if sys.platform != "win32" or kind == "socket":
            assert not select.select([channel], [], [], 0)[0]
            worker.send(1, b"x")
            assert select.select([channel], [], [], TIMEOUT)[0]


# --- the worker's end, from several places at once ---------------------------------------------------------------


def test_threads_do_not_mix_their_messages() -> None:
    """Threads of a task that send at the same moment send whole messages, each thread's in its order."""
    sizes = [10, 1000, LARGE, 3 * LARGE]
    with ends() as (channel, worker):

        def send(number: int) -> None:
            for size in sizes:
                worker.send(number, bytes([number]) * size)

        threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        messages = receive(channel, 4 * len(sizes))
        for thread in threads:
            thread.join(TIMEOUT)
    for number in range(4):
        assert [body for kind, body in messages if kind == number] == [bytes([number]) * size for size in sizes]


class _Interrupted:
    """A connection that sends half of what it is given first; then a signal handler runs, which may send, too."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.handlers: list[Any] = []

    def recv_into(self, buffer: Any) -> int:
        raise NotImplementedError

    def fileno(self) -> int:
        return 0

    def send(self, data: Any) -> int:
        part = bytes(data[: max(1, len(data) // 2)])
        self.sent.append(part)
        if self.handlers:
            self.handlers.pop(0)()
        return len(part)


class _Late(Exception):
    """What a handler of SIGALRM raises."""


def _late() -> None:
    raise _Late


def test_signal_handler_that_prints_in_the_middle_of_a_print() -> None:
    """The message of a signal handler goes after the one that it interrupted, not into the middle of it."""
    connection = _Interrupted()
    worker = WorkerChannel(connection)
    connection.handlers = [lambda: worker.send(2, b"handler")]
    worker.send(1, b"interrupted")
    assert b"".join(connection.sent) == HEADER.pack(1, 11) + b"interrupted" + HEADER.pack(2, 7) + b"handler"


class _Refused(_Interrupted):
    """A signal handler raises before anything was sent, as often as there are handlers."""

    def send(self, data: Any) -> int:
        if self.handlers:
            self.handlers.pop(0)()
        return super().send(data)


def test_signal_handler_that_raises_in_the_middle_of_a_print() -> None:
    """The message is sent whole all the same, and what was kept before it once; then the exception goes on."""
    connection = _Refused()
    with contextlib.closing(Page(-1)) as page:
        worker = WorkerChannel(connection, page)
        worker._tell_at = float("inf")
        worker._messages.append((TASK, b"more to do"))
        worker.send_answer(RESULT, 5, 0.0, b"kept")
        connection.handlers = [_late, _late]
        with pytest.raises(_Late):
            worker.send(TEXT, b"print")
        assert not connection.handlers
        worker.send(TEXT, b"next")
    answer = HEADER.pack(RESULT, ENDED_HEAD.size + 4) + ENDED_HEAD.pack(5, 0.0) + b"kept"
    assert b"".join(connection.sent) == answer + HEADER.pack(TEXT, 5) + b"print" + HEADER.pack(TEXT, 4) + b"next"


def test_connection_that_is_gone_is_told_at_once() -> None:
    """Sending is not tried again and again where it is the connection that raises."""
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs, pytest.raises(OSError):
        WorkerChannel(theirs).send(TEXT, b"print")


# --- tasks that are called back ----------------------------------------------------------------------------------


def test_tasks_that_were_not_begun_are_taken_back() -> None:
    """While a task runs, those behind it are taken out of the line, read or not; all else stays, in order."""
    with ends() as (channel, worker):
        channel.send(TASK, b"runs")
        channel.send(FUNCTION, b"one")
        channel.send(TASK, b"was read")
        assert plain([worker.receive()]) == [(TASK, b"runs")]
        channel.send(TASK, b"is still in the pipe")
        channel.send(FUNCTION, b"two")
        assert [bytes(task) for _, task in worker.take_back()] == [b"was read", b"is still in the pipe"]
        channel.send(TASK, b"new")
        rest = plain(worker.receive() for _ in range(3))
        assert rest == [(FUNCTION, b"one"), (FUNCTION, b"two"), (TASK, b"new")]


def test_nothing_to_take_back() -> None:
    """From an empty line nothing is taken, and asking does not wait; neither does it at the end of the connection."""
    with ends() as (channel, worker):
        assert worker.take_back() == []
        channel.close()
        assert worker.take_back() == []
        with pytest.raises(EOFError):
            worker.receive()


def test_large_task_on_its_way_is_not_taken_back() -> None:
    """A large message that has come half is left to the thread that receives; it arrives whole."""
    body = b"x" * FIVE_MB
    with ends() as (channel, worker):
        channel.send(TASK, b"runs")
        channel.send(TASK, body)
        assert plain([worker.receive()]) == [(TASK, b"runs")]
        assert worker.take_back() == []
        found: list[tuple[int, bytes]] = []
        reader = threading.Thread(target=lambda: found.extend(plain([worker.receive()])))
        reader.start()
        while not channel.flush():
            wait(channel, room=True)
        reader.join(TIMEOUT)
        assert found == [(TASK, body)]


def test_a_batch_comes_as_its_tasks() -> None:
    """In its place in the line; and each can be taken back by itself."""
    with ends() as (channel, worker):
        channel.send(FUNCTION, b"one")
        channel.post(BATCH, TASK_HEAD.pack(7, 3, 4), marshal.dumps([b"a", (), b"c"]))
        channel.send(FUNCTION, b"two")
        assert plain([worker.receive()]) == [(FUNCTION, b"one")]
        assert worker.receive() == (BATCH, (b"a", 7, 3, 4))
        assert worker.take_back() == [(BATCH, 8), (BATCH, 9)]
        assert plain([worker.receive()]) == [(FUNCTION, b"two")]


class TurnBack(threading.Event):
    """Stands in for the guard of a `WorkerChannel`; it is set once the receiving thread comes to it."""

    def __init__(self, receiver: threading.Thread) -> None:
        super().__init__()
        self._receiver = receiver
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if threading.current_thread() is self._receiver:
            self.set()
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def take_back_against_the_other_thread(first: int, at: int, more: int) -> tuple[list[Any], list[int], bool]:
    """Receive some messages, then take back what is left, and at one line of that let the receiving thread go on.

    Args:
        first: So many messages are received before.
        at: The line, counted as they are run.
        more: So many messages the receiving thread wants there.

    Returns:
        What was received, what was taken back (the numbers of tasks), and whether so many lines were run.
    """
    received: list[tuple[int, Any]] = []
    wanted, got, lines = threading.Semaphore(0), threading.Semaphore(0), 0

    def receive() -> None:
        with contextlib.suppress(EOFError):
            while wanted.acquire():
                received.append(worker.receive())
                got.release()

    def let_it_go_on(count: int) -> None:
        for _ in range(count):
            wanted.release()
            while not guard.is_set() and not got.acquire(timeout=0.001):
                pass

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename != transport.__file__:
            return None
        if event == "line":
            lines += 1
            if lines == at:
                let_it_go_on(more)
        return trace

    with ends() as (channel, worker):
        for number in (0, 10):
            channel.post(FUNCTION, U64.pack(number))
            channel.post(SURROUNDINGS, U64.pack(number))
            channel.post(BATCH, TASK_HEAD.pack(number, 3, 4), marshal.dumps([()] * 3))
            channel.post(TASK, TASK_HEAD.pack(number + 3, 3, 4))
        channel.flush()
        receiver = threading.Thread(target=receive)
        guard = TurnBack(receiver)
        receiver.start()
        let_it_go_on(first)
        worker._guard = guard  # type: ignore[assignment]
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            taken = worker.take_back()
        finally:
            sys.settrace(before)
        channel.close()
        wanted.release(100)
        receiver.join(TIMEOUT)
    return received, [message if kind == BATCH else U64.unpack_from(message)[0] for kind, message in taken], lines >= at


@pytest.mark.parametrize("first", [2, 3, 5, 6, 8, 9])
def test_taking_back_against_the_thread_that_receives(first: int) -> None:
    """Whenever that one goes on: each task is begun or taken back, none begins behind one that was taken back, and
    what is no task comes in order.
    """
    for more in (1, 3):
        for at in itertools.count(1):
            received, taken, again = take_back_against_the_other_thread(first, at, more)
            if not again:
                break
            begun = [message[1] for kind, message in received if kind == BATCH]
            begun += [U64.unpack_from(message)[0] for kind, message in received if kind == TASK]
            news = [U64.unpack_from(message)[0] for kind, message in received if kind not in (BATCH, TASK)]
            assert sorted(begun) + taken == [0, 1, 2, 3, 10, 11, 12, 13], (at, more)
            assert news == [0, 0, 10, 10], (at, more)


# --- answers that are kept and sent together ---------------------------------------------------------------------


class SmallPage(Page):
    """There is room for a few answers only."""

    LOG = Page.KEPT + 200
    SIZE = LOG


@given(
    st.lists(
        st.binary(max_size=40).map(lambda body: ("answer", body)) | st.sampled_from(["send", "read", "look", "sleep"]),
        max_size=20,
    )
)
def test_what_is_kept_comes_once_and_in_order(steps: list[Any]) -> None:
    """However the parent learns of it: over the connection, or from the page, by a look while the worker is busy."""
    sent: list[tuple[int, bytes]] = []
    came: list[tuple[int, bytes]] = []
    with socket_pair() as (channel, theirs), contextlib.closing(SmallPage(-1)) as page:
        worker = WorkerChannel(theirs, page)
        worker._tell_at = float("inf")  # Only sleep, other messages and want of room make it send.
        worker._messages.append((TASK, b"more to do"))
        for number, step in enumerate(steps):
            if step == "send":
                worker.send(TEXT, b"%d" % number)
                sent.append((TEXT, b"%d" % number))
            elif step == "read":
                came += plain(channel.receive())
            elif step == "look":
                came += plain(channel.receive_all())
                came += plain(channel.receive_kept(page))
                assert came == sent
            elif step == "sleep":
                worker._send(())
            else:
                worker.send_answer(RESULT, number, 0.0, step[1])
                worker._tell_at = float("inf")
                sent.append((RESULT, ENDED_HEAD.pack(number, 0.0) + step[1]))
        # The worker dies.
        came += plain(channel.receive_all())
        came += plain(channel.receive_kept(page))
    assert came == sent

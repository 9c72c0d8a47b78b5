"""What tasks print and log, piece by piece: the writers of a worker, and what the parent does with what comes."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dummymp
from dummymp.forward import Forwarder, LineWriter
from dummymp.log import logger
from dummymp.output import Lines, Screen, handle_record
from dummymp.pickling import dumps, loads
from dummymp.transport import RECORD, STDERR, STDOUT, TEXT, TEXT_HEAD, U64

TEXTS = st.lists(st.text(st.sampled_from("ab\néß∑😀"), max_size=6), max_size=8)


class FakeChannel:
    """Keeps what a worker would have sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes]] = []

    def send(self, kind: int, *parts: Any) -> None:
        self.sent.append((kind, b"".join(parts)))

    @property
    def texts(self) -> list[tuple[int, int, str]]:
        """Give (task, stream, text) of each text sent."""
        assert all(kind == TEXT for kind, _ in self.sent)
        return [(*TEXT_HEAD.unpack_from(data), data[TEXT_HEAD.size :].decode()) for _, data in self.sent]

    @property
    def text(self) -> str:
        return "".join(text for _, _, text in self.texts)


def make_writer(stream: int = STDOUT, task: int = 7) -> tuple[LineWriter, FakeChannel]:
    channel = FakeChannel()
    return LineWriter(channel, stream, lambda: task), channel  # type: ignore[arg-type]


# --- LineWriter --------------------------------------------------------------------------------------------------


@given(texts=TEXTS)
def test_writer_sends_whole_lines(texts: list[str]) -> None:
    """However the text is cut, only whole lines are sent, all of them, and the rest with `flush`."""
    writer, channel = make_writer()
    for text in texts:
        assert writer.write(text) == len(text)
        whole = "".join(texts[: len(texts)])
        assert channel.text == "" or channel.text.endswith("\n")
        assert whole.startswith(channel.text)
    whole, end, _ = "".join(texts).rpartition("\n")
    assert channel.text == whole + end
    writer.flush()
    assert channel.text == "".join(texts)


def test_each_line_is_sent_at_once() -> None:
    """A line is on its way when `print` returns, so that a crash after it cannot lose it."""
    writer, channel = make_writer()
    print("one", file=writer)
    assert channel.texts == [(7, STDOUT, "one\n")]
    print("begun", end="", file=writer)
    assert len(channel.sent) == 1


def test_text_knows_its_task_and_stream() -> None:
    """Text carries the number of the task that runs when it is sent."""
    numbers = iter([3, 4])
    channel = FakeChannel()
    writer = LineWriter(channel, STDERR, lambda: next(numbers))  # type: ignore[arg-type]
    writer.write("a\n")
    writer.write("b\n")
    assert channel.texts == [(3, STDERR, "a\n"), (4, STDERR, "b\n")]


def test_flush_without_text_sends_nothing() -> None:
    """Flushing again and again costs no message."""
    writer, channel = make_writer()
    writer.flush()
    writer.write("x")
    writer.flush()
    writer.flush()
    assert channel.texts == [(7, STDOUT, "x")]


@given(text=st.text(st.sampled_from("aé∑😀\n")), cuts=st.lists(st.integers(0, 60), max_size=4))
def test_bytes_cut_anywhere(text: str, cuts: list[int]) -> None:
    """`sys.stdout.buffer` takes bytes; a character that came in two pieces is still one."""
    writer, channel = make_writer()
    data = text.encode()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in zip(places, places[1:]):
        assert writer.buffer.write(data[start:end]) == end - start
    writer.buffer.flush()
    assert channel.text == text


def test_bytes_that_are_no_text() -> None:
    """Bytes that are not UTF-8 are shown as escapes, not lost, and any buffer will do."""
    writer, channel = make_writer()
    writer.buffer.write(bytearray(b"\xff\n"))
    assert channel.text == "\\xff\n"


def test_lone_surrogates() -> None:
    """File names that are not text (os.fsdecode) can be printed."""
    writer, channel = make_writer()
    print("caf\udce9", file=writer)
    assert channel.text == "caf\\udce9\n"


@pytest.mark.parametrize("wrong", [b"bytes", 7, None])
def test_writing_something_else(wrong: Any) -> None:
    """As any text stream, it takes text only, and says so."""
    writer, _ = make_writer()
    with pytest.raises(TypeError, match=rf"write\(\) argument must be str, not {type(wrong).__name__}"):
        writer.write(wrong)


def test_writer_behaves_as_a_stream() -> None:
    """What libraries ask of sys.stdout is answered."""
    writer, channel = make_writer()
    assert (writer.encoding, writer.errors, writer.isatty(), writer.writable()) == (
        "utf-8",
        "backslashreplace",
        False,
        True,
    )
    assert (writer.fileno(), writer.buffer.fileno(), writer.name) == (1, 1, "<stdout>")
    writer.reconfigure(encoding="utf-8", line_buffering=True)
    writer.writelines(["a\n", "b\n"])
    assert channel.text == "a\nb\n"


def test_closing_keeps_it_open() -> None:
    """A task that closes sys.stdout does not take it from the next one; what was begun is sent."""
    writer, channel = make_writer()
    writer.write("begun")
    writer.close()
    writer.buffer.close()
    assert not writer.closed and not writer.buffer.closed
    writer.write(" and ended\n")
    assert channel.text == "begun and ended\n"


def test_forked_copy_writes_to_the_descriptor(capfd: pytest.CaptureFixture[str]) -> None:
    """A process that a task forked uses the file descriptor, and does not repeat the line that its parent had begun."""
    writer, channel = make_writer()
    writer.write("begun by the task, ")
    writer.leave_channel()
    writer.write("by the copy\n")
    assert capfd.readouterr().out == "by the copy\n"
    assert channel.sent == []


class _PrintingChannel(FakeChannel):
    """A channel in whose first `send` a signal handler runs, which prints."""

    handler: Any = None

    def send(self, kind: int, *parts: Any) -> None:
        super().send(kind, *parts)
        handler, self.handler = self.handler, None
        if handler is not None:
            handler()


def test_print_of_a_signal_handler() -> None:
    """A signal handler that prints in the middle of a print: each line is there once."""
    channel = _PrintingChannel()
    writer = LineWriter(channel, STDOUT, lambda: 7)  # type: ignore[arg-type]
    channel.handler = lambda: writer.write("handler\n")
    writer.write("be")
    writer.write("gun\n")
    assert channel.text == "begun\nhandler\n"


# --- Lines and Screen --------------------------------------------------------------------------------------------


@given(texts=TEXTS)
def test_lines_give_whole_lines(texts: list[str]) -> None:
    """Text that came in pieces is given out in whole lines, and the unfinished one at the end."""
    lines = Lines()
    whole = [lines.add(text) for text in texts]
    assert all(text == "" or text.endswith("\n") for text in whole)
    assert "".join(whole) + lines.rest() == "".join(texts)
    assert lines.rest() == ""


def shown(*texts: tuple[int, str, object]) -> tuple[str, str]:
    out, err, screen = io.StringIO(), io.StringIO(), Screen()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        for stream, text, owner in texts:
            screen.show(stream, text, owner)
    return out.getvalue(), err.getvalue()


def test_screen_writes_to_the_streams_of_the_moment() -> None:
    """stdout goes to today's sys.stdout, stderr to sys.stderr, whatever they are."""
    assert shown((STDOUT, "out\n", 1), (STDERR, "err\n", 1)) == ("out\n", "err\n")


def test_two_tasks_never_share_a_line() -> None:
    """A line that one task left unfinished is ended before another task's text."""
    assert shown((STDOUT, "one", 1), (STDOUT, "two\n", 2), (STDOUT, "three\n", 1))[0] == "one\ntwo\nthree\n"


def test_a_task_goes_on_with_its_own_line() -> None:
    """The same task may finish its line, and what is written to the other stream does not end it."""
    assert shown((STDOUT, "one", 1), (STDERR, "err\n", 2), (STDOUT, " two\n", 1)) == ("one two\n", "err\n")


def test_screen_without_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under pythonw there is no sys.stdout: nothing is shown, and nothing fails."""
    monkeypatch.setattr(sys, "stdout", None)
    Screen().show(STDOUT, "text\n", 1)


class _Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_screen_of_a_stream_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed stream, or a pipe that nobody reads, does not stop the tasks."""
    closed = io.StringIO()
    closed.close()
    for stream in (closed, _Broken()):
        monkeypatch.setattr(sys, "stdout", stream)
        Screen().show(STDOUT, "text\n", 1)


class _Odd(io.StringIO):
    def write(self, text: str) -> int:
        raise ZeroDivisionError("odd")


def test_screen_of_an_odd_stream(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """What the user put in the place of sys.stdout may raise anything: that is logged once, and tasks go on."""
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", _Odd())
    screen.show(STDOUT, "one\n", 1)
    screen.show(STDOUT, "two\n", 1)
    (record,) = caplog.records
    assert "your sys.stdout raised ZeroDivisionError: odd" in record.getMessage()
    monkeypatch.delattr(sys, "stdout")
    screen.show(STDOUT, "three\n", 1)
    assert len(caplog.records) == 1


def test_screen_of_a_narrow_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the terminal cannot show is shown as an escape; the rest of the line is as it was."""
    data = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(data, encoding="ascii", write_through=True))
    Screen().show(STDOUT, "5 € each\n", 1)
    assert data.getvalue().replace(b"\r", b"") == b"5 \\u20ac each\n"


# --- log records -------------------------------------------------------------------------------------------------


class Keep(logging.Handler):
    """Keeps the records that reach it."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[list[logging.LogRecord]]:
    """Give what reaches a handler of the logger "some.lib"."""
    logger, handler = logging.getLogger("some.lib"), Keep()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler.records
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    logger.disabled = False


def forwarded(log: Any) -> list[tuple[int, bytes]]:
    """Give what a worker sends when `log` logs to a logger: (call number, pickle)."""
    channel = FakeChannel()
    forwarder = Forwarder(channel, "Worker-3", lambda: 7)  # type: ignore[arg-type]
    logger = logging.Logger("some.lib")
    logger.addHandler(forwarder)
    log(logger)
    assert all(kind == RECORD for kind, _ in channel.sent)
    return [(U64.unpack_from(data)[0], data[U64.size :]) for _, data in channel.sent]


def passed_on(log: Any, kept: list[logging.LogRecord], prefix: str = "") -> logging.LogRecord:
    ((task, data),) = forwarded(log)
    handle_record(data, task, prefix)
    return kept[-1]


def test_record_arrives(kept: list[logging.LogRecord]) -> None:
    """A record is handled by the parent's logger of its name, with its level, text, place, worker and task."""
    record = passed_on(lambda logger: logger.warning("%s of %d", "one", 2), kept)
    assert (record.name, record.levelname, record.getMessage()) == ("some.lib", "WARNING", "one of 2")
    assert (record.processName, record.task, record.filename) == ("Worker-3", 7, "test_output_units.py")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", "text"),
        ("[PID {pid}] ", "[PID @] text"),
        ("{worker}/{task}: ", "Worker-3/7: text"),
        ("100 % ", "100 % text"),
    ],
)
def test_prefix(kept: list[logging.LogRecord], prefix: str, expected: str) -> None:
    """The prefix stands before the text, with pid, task and worker filled in."""
    record = passed_on(lambda logger: logger.info("text"), kept, prefix)
    assert record.getMessage() == expected.replace("@", str(record.process))
    assert logging.Formatter("%(message)s").format(record) == record.getMessage()


@pytest.mark.parametrize("message", [123, None, ValueError("bad"), "100 %", "%s", ("a", "b")])
def test_message_that_is_not_a_format(kept: list[logging.LogRecord], message: Any) -> None:
    """Anything may be logged; without arguments its text is taken as it is, percent signs too."""
    record = passed_on(lambda logger: logger.info(message), kept, "{pid} ")
    assert record.getMessage() == f"{record.process} {message}"


def test_arguments_that_cannot_travel(kept: list[logging.LogRecord]) -> None:
    """Arguments are put into the text in the worker, so that a lock may be logged."""
    import threading

    lock = threading.Lock()
    assert passed_on(lambda logger: logger.info("got %s", lock), kept).getMessage() == f"got {lock}"


def test_extra_that_cannot_travel(kept: list[logging.LogRecord]) -> None:
    """An `extra` that cannot travel arrives as text, the others as they are."""
    extra = {"gen": (line for line in [""]), "number": 5}
    record = passed_on(lambda logger: logger.info("x", extra=extra), kept)
    assert record.number == 5  # type: ignore[attr-defined]
    assert record.gen.startswith("<generator object")  # type: ignore[attr-defined]


def test_exception_with_traceback(kept: list[logging.LogRecord]) -> None:
    """`logging.exception` arrives with its traceback, in the text."""

    def log(logger: logging.Logger) -> None:
        try:
            _ = 1 / 0
        except ZeroDivisionError:
            logger.exception("it failed")

    text = logging.Formatter("%(message)s").format(passed_on(log, kept))
    assert text.startswith("it failed\nTraceback")
    assert text.splitlines()[-1].startswith("ZeroDivisionError: ")
    assert text.count("Traceback") == 1


def test_levels_and_filters_of_the_parent(kept: list[logging.LogRecord]) -> None:
    """What the parent's logger would drop is dropped: by level, by a filter, or because it is disabled."""
    logger = logging.getLogger("some.lib")
    ((task, data),) = forwarded(lambda logger: logger.info("text"))
    logger.setLevel(logging.WARNING)
    handle_record(data, task, "")
    logger.setLevel(logging.DEBUG)
    logger.disabled = True
    handle_record(data, task, "")
    logger.disabled = False

    def refuse(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(refuse)
    handle_record(data, task, "")
    logger.removeFilter(refuse)
    assert kept == []
    handle_record(data, task, "")
    assert len(kept) == 1


def test_record_of_the_task_stays_as_it_was() -> None:
    """Other handlers of a task see the record as it was logged: with its arguments, and their own processName."""
    channel, keep = FakeChannel(), Keep()
    logger = logging.Logger("some.lib")
    logger.addHandler(Forwarder(channel, "Worker-3", lambda: 7))  # type: ignore[arg-type]
    logger.addHandler(keep)
    logger.info("%d", 5)
    assert (keep.records[0].args, keep.records[0].processName) == ((5,), "MainProcess")
    assert loads(channel.sent[0][1][U64.size :])["processName"] == "Worker-3"


def test_forked_copy_logs_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """A process that a task forked does not use the connection; its records go to stderr."""
    channel = FakeChannel()
    forwarder = Forwarder(channel, "Worker-3", lambda: 7)  # type: ignore[arg-type]
    forwarder.leave_channel()
    logger = logging.Logger("some.lib")
    logger.addHandler(forwarder)
    logger.warning("from %s", "a copy")
    assert capsys.readouterr().err == "WARNING:some.lib:from a copy\n"
    assert channel.sent == []


def test_a_level_that_the_script_has_named(kept: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    """A record has the name that the script gave to its level, as if it had been logged here."""
    monkeypatch.setitem(logging._levelToName, logging.WARNING, "Careful")
    record = logging.makeLogRecord({"name": "some.lib", "levelno": logging.WARNING, "levelname": "WARNING", "msg": "x"})
    handle_record(dumps(record.__dict__), 3, "")
    assert [each.levelname for each in kept] == ["Careful"]


def test_a_handler_that_raises(capsys: pytest.CaptureFixture[str]) -> None:
    """It is told as logging tells it, and nobody else suffers: it came out of process_until_done."""

    class Bad(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("bad handler")

    handler = Bad()
    logging.getLogger("raises").addHandler(handler)
    try:
        record = logging.makeLogRecord({"name": "raises", "levelno": logging.WARNING, "msg": "text of the record"})
        handle_record(dumps(record.__dict__), 3, "")
    finally:
        logging.getLogger("raises").removeHandler(handler)
    told = capsys.readouterr().err
    assert "RuntimeError: bad handler" in told
    assert "text of the record" in told


@pytest.mark.parametrize("which", ["handler", "filter", "factory"])
def test_logging_of_the_user_that_raises_for_what_we_say(which: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told as logging tells it, and driving goes on. Previously it came out of process_until_done."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"bad {which}")

    class Bad(logging.Handler):
        emit = refuse

    ours, handler, factory = logging.getLogger("dummymp"), Bad(), logging.getLogRecordFactory()
    queue = dummymp.TaskQueue(engine="inline")
    for _ in range(2):
        queue.run(divmod, 1, 0)
    try:
        if which == "handler":
            ours.addHandler(handler)
        elif which == "filter":
            ours.addFilter(refuse)
        else:
            logging.setLogRecordFactory(refuse)
            handle_record(dumps({**logging.LogRecord("x", 30, "", 0, "of a task", (), None).__dict__}), 3, "")
        assert queue.process_until_done()
    finally:
        ours.removeHandler(handler)
        ours.removeFilter(refuse)
        logging.setLogRecordFactory(factory)
    told = capsys.readouterr().err
    assert told.count("--- Logging error ---") == 3 + (which == "factory")
    assert f"RuntimeError: bad {which}" in told
    assert "task 1, divmod(1, 0), failed: ZeroDivisionError" in told
    assert ("of a task" in told) == (which == "factory")
    assert len(queue.get_errors()) == 2


def test_where_what_we_say_was_said(caplog: pytest.LogCaptureFixture) -> None:
    """Its record names the line that says it."""
    logger().warning("here")
    line = test_where_what_we_say_was_said.__code__.co_firstlineno + 2
    assert [(record.filename, record.lineno) for record in caplog.records] == [("test_output_units.py", line)]

"""The loop of a worker, in a thread over a real socket pair: no process is started."""

from __future__ import annotations

import logging
import os
import random
import socket
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import TIMEOUT

from dummymp import failures, seeds
from dummymp.failures import pack_failure
from dummymp.freeze import freeze
from dummymp.mainmodule import make_main
from dummymp.pickling import dumps, load_atoms, loads
from dummymp.surroundings import Settings, capture
from dummymp.transport import (
    ATOM_RESULT,
    ENDED_HEAD,
    FAILURE,
    FORGET,
    FUNCTION,
    NOTE,
    READY,
    RECORD,
    RESULT,
    RETURNED,
    SETTINGS,
    STOP,
    SURROUNDINGS,
    TASK,
    TASK_HEAD,
    TEXT,
    TEXT_HEAD,
    U64,
    WorkerChannel,
)
from dummymp.worker import Worker

Outcome = tuple[int, Any]
NO_ARGUMENTS = freeze(print, (), {}, number=0).arguments


class Parent:
    """The parent's side of one worker, which runs in a thread."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(TIMEOUT)
        self.socket = ours
        self.channel = WorkerChannel(ours)  # Blocks, as a test wants it.
        self._theirs = theirs
        self.begun: list[int] = []
        self.worker = Worker(WorkerChannel(theirs), "Worker-3", self.begun.append)
        self.thread = threading.Thread(target=self.worker.loop)
        self.thread.start()
        self.pid = U64.unpack(self.expect(READY))[0]

    def expect(self, kind: int) -> Any:
        """Receive one message, which is of this kind."""
        found, message = self.channel.receive()
        assert found == kind, (found, bytes(message))
        return message

    def queue(self, number: int, func: Callable[..., Any], *args: Any, seed: int | None = None, **kwargs: Any) -> None:
        """Send a task, and before it all that belongs to it."""
        frozen, surroundings = freeze(func, args, kwargs, number=number), capture(seed, None)
        function = frozen.function
        self.channel.send(FUNCTION, U64.pack(function.number), bytes([function.reusable]), function.data)
        self.channel.send(SURROUNDINGS, U64.pack(surroundings.number), surroundings.data)
        self.channel.send(TASK, TASK_HEAD.pack(number, function.number, surroundings.number), frozen.arguments)

    def answer(self, number: int) -> tuple[list[tuple[int, Any]], Outcome]:
        """Give what came before the outcome of a task, and (RESULT, value) or (FAILURE, what was packed)."""
        before: list[tuple[int, Any]] = []
        while True:
            kind, message = self.channel.receive()
            if kind not in (ATOM_RESULT, RESULT, FAILURE):
                before.append((kind, message))
                continue
            assert ENDED_HEAD.unpack_from(message)[0] == number
            assert ENDED_HEAD.unpack_from(message)[1] >= 0
            body = message[ENDED_HEAD.size :]
            return before, (RESULT, *load_atoms([body])) if kind == ATOM_RESULT else (kind, loads(body))

    def run(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a task that says nothing and returns something."""
        self.queue(7, func, *args, **kwargs)
        before, (kind, value) = self.answer(7)
        assert (before, kind) == ([], RESULT), value
        return value

    def fail(self, func: Callable[..., Any], *args: Any) -> Any:
        """Run a task that fails; give what was packed."""
        self.queue(7, func, *args)
        _, (kind, packed) = self.answer(7)
        assert kind == FAILURE
        return packed

    def end(self) -> None:
        self.socket.close()
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive()
        self._theirs.close()


@pytest.fixture(autouse=True)
def _this_process_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put back what a worker changes in its process, for here it is ours."""
    cwd, environ = os.getcwd(), dict(os.environ)
    path, argv, filters, state = list(sys.path), list(sys.argv), list(warnings.filters), random.getstate()
    streams, disabled = (sys.stdout, sys.stderr), logging.root.manager.disable
    handlers, level = list(logging.root.handlers), logging.root.level
    # Our handlers stay out of it: they would write what the tasks log to the output of the tests.
    logging.root.handlers[:] = []
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    monkeypatch.setattr(logging.root.manager, "loggerDict", logging.root.manager.loggerDict.copy())
    yield
    os.chdir(cwd)
    for name in os.environ.keys() - environ.keys():
        del os.environ[name]
    os.environ.update(environ)
    sys.path[:], sys.argv[:] = path, argv
    warnings.filters[:] = filters  # type: ignore[index]
    getattr(warnings, "_filters_mutated", lambda: None)()
    sys.stdout, sys.stderr = streams
    logging.disable(disabled)
    logging.captureWarnings(False)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    random.setstate(state)
    seeds.reseed(None, 0, loaded=False)


@pytest.fixture
def parent() -> Iterator[Parent]:
    made = Parent()
    yield made
    made.end()


def in_main(source: str, name: str = "task") -> Any:
    """Define functions as a main script would."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(source, namespace)
    return namespace[name]


def texts(messages: list[tuple[int, Any]]) -> list[tuple[int, int, str]]:
    """Give (task, stream, text) of text messages."""
    assert all(kind == TEXT for kind, _ in messages)
    return [(*TEXT_HEAD.unpack_from(data), bytes(data[TEXT_HEAD.size :]).decode()) for _, data in messages]


# --- the loop ----------------------------------------------------------------------------------------------------


def test_worker_says_that_it_is_ready(parent: Parent) -> None:
    """The first message is the worker's process id."""
    assert parent.pid == os.getpid()


def test_results_come_in_order(parent: Parent) -> None:
    """Tasks that were sent ahead are answered one after the other, each with its own number."""
    for number in range(20):
        parent.queue(number, divmod, number, 3)
    assert [parent.answer(number)[1] for number in range(20)] == [(RESULT, divmod(n, 3)) for n in range(20)]


def test_begun_tasks_are_counted(parent: Parent) -> None:
    """Each task is counted before it begins, so that one that kills its worker counts as begun."""
    for _ in range(2):
        parent.run(divmod, 1, 1)
    assert parent.begun == [1, 2]
    parent.fail(divmod, 1, 0)
    assert parent.begun == [1, 2, 3]


@pytest.mark.parametrize("value", [None, 0, "", [], {"a": (1, 2.5)}, b"x" * 500_000])
def test_result(parent: Parent, value: Any) -> None:
    """Any value is a result, None and large ones too."""
    assert parent.run(in_main("def task(value=None): return value"), value) == value


@pytest.mark.parametrize("end", ["stop", "close"])
def test_end(parent: Parent, end: str) -> None:
    """STOP, or the end of the connection, ends the loop without an error."""
    if end == "stop":
        parent.channel.send(STOP)
    else:
        parent.socket.shutdown(socket.SHUT_RDWR)
    parent.thread.join(TIMEOUT)
    assert not parent.thread.is_alive()


def test_stop_comes_after_what_was_sent_before(parent: Parent) -> None:
    """A worker that is told to stop does first what it was sent."""
    parent.queue(1, divmod, 7, 2)
    parent.channel.send(STOP)
    assert parent.answer(1)[1] == (RESULT, (3, 1))
    parent.thread.join(TIMEOUT)
    assert not parent.thread.is_alive()


def test_end_of_the_parent_during_a_task(parent: Parent) -> None:
    """A worker whose answer nobody takes any more ends quietly."""
    reader, writer = os.pipe()
    parent.queue(1, os.read, reader, 1)
    parent.socket.close()
    os.write(writer, b"x")
    parent.thread.join(TIMEOUT)
    assert not parent.thread.is_alive()
    os.close(reader)
    os.close(writer)


def test_note(parent: Parent) -> None:
    """A note goes to the parent as it is."""
    parent.worker.note("once é")
    assert bytes(parent.expect(NOTE)).decode() == "once é"


def test_tasks_that_were_not_begun_are_given_back(parent: Parent) -> None:
    """While a task runs, those behind it can be given back; the worker goes on with what comes then."""
    reader, writer = os.pipe()
    parent.queue(1, os.read, reader, 1)
    parent.queue(2, divmod, 1, 1)
    parent.queue(3, divmod, 1, 1)
    while parent.begun != [1]:
        parent.thread.join(0.01)
    parent.worker.give_back()
    assert bytes(parent.expect(RETURNED)) == U64.pack(2) + U64.pack(3)
    os.write(writer, b"x")
    assert parent.answer(1)[1] == (RESULT, b"x")
    assert parent.run(divmod, 7, 2) == (3, 1)
    os.close(reader)
    os.close(writer)


# --- functions ---------------------------------------------------------------------------------------------------


def send_function(parent: Parent, func: Callable[..., Any], *, reusable: bool) -> tuple[int, int]:
    """Send a function and surroundings; give their numbers."""
    surroundings = capture(None, None)
    parent.channel.send(FUNCTION, U64.pack(99), bytes([reusable]), dumps(func))
    parent.channel.send(SURROUNDINGS, U64.pack(surroundings.number), surroundings.data)
    return 99, surroundings.number


COUNTER = "n = 0\ndef task():\n  global n\n  n += 1\n  return n"


@pytest.mark.parametrize(("reusable", "expected"), [(True, [1, 2, 3]), (False, [1, 1, 1])])
def test_function_that_may_be_kept(parent: Parent, reusable: bool, expected: list[int]) -> None:
    """A function that may be kept is thawed once; of any other each call gets a fresh copy."""
    function, surroundings = send_function(parent, in_main(COUNTER), reusable=reusable)
    for number in range(3):
        parent.channel.send(TASK, TASK_HEAD.pack(number, function, surroundings), NO_ARGUMENTS)
    assert [parent.answer(number)[1] for number in range(3)] == [(RESULT, value) for value in expected]


@pytest.mark.parametrize("reusable", [True, False])
def test_forget(parent: Parent, reusable: bool) -> None:
    """A function that is to be forgotten is, and forgetting it again is fine."""
    function, surroundings = send_function(parent, in_main(COUNTER), reusable=reusable)
    parent.channel.send(TASK, TASK_HEAD.pack(1, function, surroundings), NO_ARGUMENTS)
    assert parent.answer(1)[1] == (RESULT, 1)
    for _ in range(2):
        parent.channel.send(FORGET, U64.pack(function))
    parent.channel.send(TASK, TASK_HEAD.pack(2, function, surroundings), NO_ARGUMENTS)
    assert parent.answer(2)[1][0] == FAILURE
    assert function not in parent.worker._functions and function not in parent.worker._thawed


def test_function_is_seen_in_main(parent: Parent) -> None:
    """A function of the main script is found in `__main__` there, too, where plain pickle looks for it."""
    make_main()
    source = "def task():\n  import __main__\n  return __main__.task is not None"
    assert parent.run(in_main(source)) is True


# --- output ------------------------------------------------------------------------------------------------------


def test_output_stands_before_the_result(parent: Parent) -> None:
    """What a task prints, a begun line too, and what it logs comes before its result, in order."""
    source = """
import sys
def task():
    print("one")
    print("two", file=sys.stderr)
    import logging
    logging.getLogger("some.lib").warning("three")
    print("four", end="")
    return 5
"""
    parent.queue(7, in_main(source))
    before, outcome = parent.answer(7)
    assert [kind for kind, _ in before] == [TEXT, TEXT, RECORD, TEXT]
    assert texts([before[0], before[1], before[3]]) == [(7, 1, "one\n"), (7, 2, "two\n"), (7, 1, "four")]
    record = loads(before[2][1][U64.size :])
    assert U64.unpack_from(before[2][1])[0] == 7
    assert (record["name"], record["msg"], record["processName"]) == ("some.lib", "three", "Worker-3")
    assert outcome == (RESULT, 5)


def test_output_of_a_failing_task(parent: Parent) -> None:
    """What was printed before an exception is not lost."""
    parent.queue(7, in_main("def task():\n  print('last words', end='')\n  1 / 0"))
    before, (kind, _) = parent.answer(7)
    assert texts(before) == [(7, 1, "last words")]
    assert kind == FAILURE


def test_streams_are_put_back(parent: Parent) -> None:
    """A task that replaces or closes sys.stdout does not take it from the next one."""
    parent.run(in_main("import io, sys\ndef task():\n  sys.stdout.close()\n  sys.stdout = sys.stderr = io.StringIO()"))
    parent.queue(8, print, "there")
    before, _ = parent.answer(8)
    assert texts(before) == [(8, 1, "there\n")]


def test_log_handler_is_put_back(parent: Parent) -> None:
    """A task that clears the handlers of the root logger, as logging.basicConfig(force=True) does, may do so."""
    parent.run(in_main("import logging\ndef task(): logging.root.handlers[:] = []"))
    parent.queue(8, logging.warning, "there")
    ((kind, data),), _ = parent.answer(8)
    assert kind == RECORD
    assert loads(data[U64.size :])["msg"] == "there"


# --- surroundings and settings -----------------------------------------------------------------------------------


def test_working_directory(parent: Parent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task runs in the directory of its `run` call, wherever the one before it went."""
    monkeypatch.chdir(tmp_path)
    here = os.getcwd()
    for _ in range(2):
        assert parent.run(os.getcwd) == here
        parent.queue(7, os.chdir, "/")
        parent.answer(7)
        assert os.getcwd() == "/"
        os.chdir(here)


def test_working_directory_that_is_gone(parent: Parent, tmp_path: Path) -> None:
    """Where the directory is gone by now, the task runs where the worker is, and says so."""
    gone = tmp_path / "gone"
    gone.mkdir()
    home = os.getcwd()
    os.chdir(gone)
    capture(None, None)
    os.chdir(home)
    function, _ = send_function(parent, os.getcwd, reusable=True)
    parent.channel.send(SURROUNDINGS, U64.pack(5), dumps((str(gone), capture(None, None).environ, None, (), 0)))
    gone.rmdir()
    parent.channel.send(TASK, TASK_HEAD.pack(7, function, 5), NO_ARGUMENTS)
    before, outcome = parent.answer(7)
    assert outcome == (RESULT, home)
    ((_, stream, text),) = texts(before)
    assert stream == 2
    assert text.startswith(f"dummymp: task 7 runs in {home}, because {gone} cannot be entered: ")


def test_environment(parent: Parent, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task has the environment of its `run` call: what another set is gone, what another deleted is back."""
    monkeypatch.setenv("OURS", "é")
    messy = in_main("import os\ndef task():\n  os.environ['THEIRS'] = '1'\n  del os.environ['OURS']")
    look = in_main("import os\ndef task(): return os.environ.get('OURS'), os.environ.get('THEIRS')")
    surroundings = capture(None, None)
    for number, func in enumerate((look, messy, look)):
        parent.channel.send(FUNCTION, U64.pack(number), b"\x01", dumps(func))
        parent.channel.send(SURROUNDINGS, U64.pack(surroundings.number), surroundings.data)
        parent.channel.send(TASK, TASK_HEAD.pack(number, number, surroundings.number), NO_ARGUMENTS)
    assert [parent.answer(number)[1][1] for number in range(3)] == [("é", None), None, ("é", None)]


def test_seed(parent: Parent) -> None:
    """With a seed, what a task draws depends on its number, not on what ran before it."""
    draw = in_main("import random\ndef task(): return random.random()")
    drawn = []
    for number in (5, 6, 5):
        parent.queue(number, draw, seed=42)
        drawn.append(parent.answer(number)[1][1])
    assert drawn[0] == drawn[2] != drawn[1]


def test_settings(parent: Parent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Import path, arguments, warnings filters and log levels are those of the parent, also for the next task."""
    settings = Settings()
    settings.path = [*sys.path, "/planted"]
    settings.argv = ["script.py", "--planted"]
    settings.filters = [("ignore", None, UserWarning, None, 0)]
    settings.levels = {"": (logging.ERROR, False), "planted.lib": (logging.DEBUG, False), "planted.off": (0, True)}
    parent.channel.send(SETTINGS, settings.data())
    look = in_main(
        "import logging, sys, warnings\n"
        "def task():\n"
        "  get = logging.getLogger\n"
        "  levels = get().level, get('planted.lib').level, get('planted.off').disabled\n"
        "  seen = sys.path[-1], list(sys.argv), ('ignore', None, UserWarning, None, 0) in warnings.filters, levels\n"
        "  sys.argv.append('more')\n"
        "  return seen"
    )
    levels = logging.ERROR, logging.DEBUG, True
    expected = "/planted", ["script.py", "--planted"], True, levels
    assert parent.run(look) == expected
    assert parent.run(look) == expected


def test_records_below_the_level_of_the_parent_are_not_sent(parent: Parent) -> None:
    """What the parent would drop anyway costs no message."""
    settings = Settings()
    settings.levels = {"": (logging.WARNING, False)}
    parent.channel.send(SETTINGS, settings.data())
    parent.run(logging.getLogger("some.lib").info, "dropped")


# --- failures ----------------------------------------------------------------------------------------------------


class TwoArguments(Exception):
    """Has a constructor that does not take its own `args`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class KeywordOnly(Exception):
    """Cannot be made without a keyword."""

    def __init__(self, *, why: str) -> None:
        super().__init__(why)
        self.why = why


class Prefixed(Exception):
    """Comes back with another text if its constructor is called again."""

    def __init__(self, text: str) -> None:
        super().__init__("Prefixed: " + text)


class Unpicklable(Exception):
    """Has an argument that cannot travel."""

    def __init__(self, text: str) -> None:
        super().__init__(text, threading.Lock())

    def __str__(self) -> str:
        return str(self.args[0])


class Unprintable(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise ValueError("no text")


def fail_with(error: BaseException) -> None:
    """Raise what was sent by its maker."""
    raise error


def packed(make: Callable[[], BaseException]) -> tuple[bytes | None, str, str, bool]:
    try:
        raise make()
    except BaseException as error:
        found: tuple[bytes | None, str, str, bool] = loads(pack_failure(error))
        return found


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ValueError("bad"), "ValueError: bad"),
        (lambda: KeyError("x"), "KeyError: 'x'"),
        (lambda: FileNotFoundError(2, "No such file", "a.txt"), "FileNotFoundError: [Errno 2] No such file: 'a.txt'"),
        (lambda: SystemExit(3), "SystemExit: 3"),
        (lambda: KeyboardInterrupt(), "KeyboardInterrupt"),
        (lambda: TwoArguments(404, "gone"), "test_worker.TwoArguments: 404: gone"),
        (lambda: KeywordOnly(why="so"), "test_worker.KeywordOnly: so"),
        (lambda: Prefixed("x"), "test_worker.Prefixed: Prefixed: x"),
        (lambda: UnicodeDecodeError("ascii", b"\xff", 0, 1, "odd"), None),
        (lambda: SyntaxError("odd", ("file.py", 1, 1, "x x")), "SyntaxError: odd"),
    ],
)
def test_exception_comes_back(make: Callable[[], BaseException], text: str | None) -> None:
    """The user's own exception comes back as it was, in type, text, arguments and attributes, with its traceback."""
    error = make()
    data, said, trace, about_task = packed(make)
    assert data is not None
    back = loads(data)
    assert (type(back), back.args, str(back)) == (type(error), error.args, str(error))
    assert {**back.__dict__} == {**error.__dict__}
    assert text is None or said == text
    assert trace.startswith("Traceback (most recent call last):\n")
    assert said in trace
    assert not about_task


def test_notes_travel() -> None:
    """Notes (Python 3.11) come back with the exception and stand in the traceback, not in the line about the task."""

    def make() -> BaseException:
        error = ValueError("bad")
        error.__dict__["__notes__"] = ["a note"]
        return error

    data, said, trace, _ = packed(make)
    assert data is not None
    assert loads(data).__notes__ == ["a note"]
    assert said == "ValueError: bad"
    assert sys.version_info < (3, 11) or "a note" in trace


def test_exception_that_cannot_travel() -> None:
    """Its type, text and traceback are sent in its place."""
    data, said, trace, _ = packed(lambda: Unpicklable("bad"))
    assert (data, said) == (None, "test_worker.Unpicklable: bad")
    assert trace.endswith("test_worker.Unpicklable: bad")


def test_exception_that_cannot_be_shown() -> None:
    """An exception whose text cannot be had is still a failure, and names its type."""
    data, said, _, _ = packed(Unprintable)
    assert data is None
    assert said.startswith("test_worker.Unprintable: ")


def test_packing_leaves_out_our_own_frames(parent: Parent) -> None:
    """A traceback begins in the user's function."""
    _, _, trace, _ = parent.fail(in_main("def task(): return 1 // 0"))
    assert "worker.py" not in trace
    assert trace.splitlines()[1].endswith("in task")


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "raise KeyboardInterrupt", "raise GeneratorExit", "exit(3)"])
def test_what_ends_a_script_does_not_end_the_worker(parent: Parent, code: str) -> None:
    """SystemExit and its like are failures of the task; the worker goes on."""
    data, *_ = parent.fail(in_main(f"import sys; from sys import exit\ndef task(): {code}"))
    assert data is not None
    assert parent.run(divmod, 7, 2) == (3, 1)


def test_arguments_that_cannot_be_rebuilt(parent: Parent) -> None:
    """An argument whose unpickling fails is a failure of the task."""
    _, said, _, _ = parent.fail(print, _Spiteful())
    assert said.startswith("ZeroDivisionError: ")
    assert parent.run(divmod, 7, 2) == (3, 1)


class _Spiteful:
    """Fails when it is unpickled."""

    def __reduce__(self) -> Any:
        return divmod, (1, 0)


def test_result_that_cannot_travel(parent: Parent) -> None:
    """A result that cannot be sent is a failure that names the part; the text leaves room for the task's name."""
    data, said, _, about_task = parent.fail(in_main("import threading\ndef task(): return {'k': threading.Lock()}"))
    assert about_task
    assert "{task} finished, but its result cannot be sent back: it holds a _thread.lock at ['k']." in said
    assert data is not None


def test_exception_of_a_class_of_the_main_script(parent: Parent) -> None:
    """It comes back as an exception of that very class."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec("class Mine(Exception): pass\ndef task(): raise Mine('bad')", namespace)
    data, said, _, _ = parent.fail(namespace["task"])
    assert said == "Mine: bad"
    assert type(loads(data)) is namespace["Mine"]


def test_a_very_deep_traceback_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of so many calls the innermost are told; to format a million of them would take a minute."""
    monkeypatch.setattr(failures, "DEEP", 30)

    def even(depth: int) -> None:
        odd(depth)

    def odd(depth: int) -> None:
        if not depth:
            raise LookupError("at the bottom")
        even(depth - 1)

    for depth, outermost in ((5, True), (100, False)):
        try:
            even(depth)
        except LookupError as error:
            text = loads(pack_failure(error))[2]
        assert text.endswith("LookupError: at the bottom")
        assert ("in test_a_very_deep" in text) is outermost
        assert text.count("in odd") == min(depth + 1, 15)

# SPDX-License-Identifier: MIT
"""Mistakes that people make, and failures they decide about: what is raised, where, and in which words."""

from __future__ import annotations

import datetime
import functools
import io
import logging
import operator
import os
import re
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import TIMEOUT, Script

import dummymp

LOCK = threading.Lock()
SETTINGS = {"depth": 3, "guards": [1, threading.Lock()]}


def square(number: Any) -> Any:
    """Be the function of a beginner."""
    return number * number


def fit(data: Any, db: Any = None, *, depth: Any = 1) -> None:
    """Be a function with parameters of every kind."""


def wait_for_ever(folder: str) -> None:
    """Leave a file, and run until killed."""
    Path(folder, "waiting").touch()
    until = time.monotonic() + TIMEOUT
    while time.monotonic() < until:
        time.sleep(0.002)


def fail_when_there(path: str, message: str) -> None:
    """Raise ValueError(message) when there is such a file."""
    until = time.monotonic() + TIMEOUT
    while not Path(path).exists() and time.monotonic() < until:
        time.sleep(0.002)
    raise ValueError(message)


class Connected:
    """Has something that cannot travel."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def work(self) -> None:
        """Be a method."""


@pytest.fixture(autouse=True)
def _two_workers() -> None:
    dummymp.configure(priority="NUCLEAR", max_processes=2)


# --- run(square(3)) ----------------------------------------------------------------------------------------------


def test_the_result_instead_of_the_function() -> None:
    """``run(square(3))`` is answered with what was got and what to write."""
    message = r"run() needs a function to call later, got 9. Write run(square, 3), not run(square(3)): "
    with pytest.raises(TypeError, match=re.escape(message)):
        dummymp.run(square(3))


def test_none_instead_of_the_function() -> None:
    """``run(f(x))`` of a function without a result is recognised, too."""
    message = "run() needs a function to call later, got None. Write run(square, 3), not run(square(3))"
    with pytest.raises(TypeError, match=re.escape(message)):
        dummymp.run(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["square", [1, 2], {"a": 1}, 1.5], ids=repr)
def test_anything_but_a_function(value: Any) -> None:
    """Whatever cannot be called is refused at once, and nothing is queued."""
    with pytest.raises(TypeError, match=r"run\(\) needs a function to call later, got "):
        dummymp.run(value)
    assert dummymp.results() == []


def test_no_function_at_all() -> None:
    """``run()`` says that the function is missing."""
    with pytest.raises(TypeError, match="func"):
        dummymp.run()  # type: ignore[call-arg]


def test_a_long_value_is_shortened() -> None:
    """A huge result that was passed by mistake does not flood the screen."""
    with pytest.raises(TypeError) as caught:
        dummymp.run(list(range(10000)))  # type: ignore[arg-type]
    assert len(str(caught.value)) < 300


# --- what cannot be sent -----------------------------------------------------------------------------------------


@pytest.fixture
def closing() -> Iterator[Callable[[Any], Any]]:
    """Give a function that closes what it is given when the test is over."""
    opened: list[Any] = []

    def remember(thing: Any) -> Any:
        opened.append(thing)
        return thing

    yield remember
    for thing in opened:
        thing.close()


Make = Callable[[Path], Any]
UNSENDABLE: list[tuple[str, Make, str, str]] = [
    ("connection", lambda path: sqlite3.connect(path / "db"), "sqlite3.Connection",
     "Such an object only works in the process that opened it. Pass the file name and open it inside fit()"),
    ("file", lambda path: open(path / "out", "w"), "_io.TextIOWrapper",
     "Such an object only works in the process that opened it. Pass the file name and open it inside fit()"),
    ("file to read", lambda path: open(__file__), "_io.TextIOWrapper",
     "Such an object only works in the process that opened it. Pass the file name and open it inside fit()"),
    ("bytes file", lambda path: open(path / "out", "wb"), "_io.BufferedWriter",
     "Such an object only works in the process that opened it. Pass the file name and open it inside fit()"),
    ("socket", lambda path: socket.socket(), "socket.socket",
     "Such an object only works in the process that opened it. Pass the address and connect inside fit()"),
    ("lock", lambda path: threading.Lock(), "_thread.lock", "Tasks share no memory, so they need no lock"),
    ("rlock", lambda path: threading.RLock(), "_thread.RLock", "Tasks share no memory, so they need no lock"),
    ("event", lambda path: threading.Event(), "threading.Event", "Tasks share no memory: return the result instead"),
    ("thread", lambda path: threading.Thread(), "threading.Thread", "Start the thread inside fit()"),
    ("generator", lambda path: (number for number in range(3)), "generator", "Pass a list: list(...)"),
    ("task", lambda path: dummymp.TaskQueue(engine="inline").run(abs, 1), "dummymp.task.Task",
     "Pass what it returned: task.result()"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "kind", "way_out"), [entry[1:] for entry in UNSENDABLE], ids=[entry[0] for entry in UNSENDABLE]
)
def test_an_argument_that_cannot_be_sent(
    make: Make, kind: str, way_out: str, tmp_path: Path, closing: Callable[[Any], Any]
) -> None:
    """`run` refuses it on the user's line and names the task, the argument, its type, and what to do instead."""
    value = make(tmp_path)
    if hasattr(value, "close"):
        closing(value)
    start = f"cannot send task 0, fit(...), to a worker: argument 'db' is a {kind}. "
    with pytest.raises(dummymp.NotPicklable) as caught:
        dummymp.run(fit, [1], value)
    assert str(caught.value).startswith(start)
    assert way_out in str(caught.value)
    assert isinstance(caught.value, TypeError)
    with pytest.raises(dummymp.NotPicklable, match="argument 'depth' is a "):
        dummymp.run(fit, [1], depth=value)
    assert dummymp.results() == []


def test_the_number_in_the_message_is_the_call_number() -> None:
    """The message names the number that the call would have had; the next call has it."""
    dummymp.run(square, 1)
    with pytest.raises(dummymp.NotPicklable, match=r"cannot send task 1, square\(\.\.\.\), to a worker"):
        dummymp.run(square, LOCK)
    assert dummymp.run(square, 2).index == 1
    dummymp.killall()


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([1, threading.Lock()], "[1]"),
        ({"guard": threading.Lock()}, "['guard']"),
        ((0, {"a": [threading.Lock()]}), "[1]['a'][0]"),
        (Connected(), ".lock"),
        ([{"connected": Connected()}], "[0]['connected'].lock"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_part_that_cannot_be_sent(value: Any, path: str) -> None:
    """If it is inside something, the message says where."""
    message = f"argument 'data' holds a _thread.lock at {path}. Tasks share no memory"
    with pytest.raises(dummymp.NotPicklable, match=re.escape(message)):
        dummymp.run(fit, value)


def test_an_argument_of_a_built_in_function() -> None:
    """Where an argument has no name, it has a number."""
    with pytest.raises(dummymp.NotPicklable, match=r"print\(\.\.\.\), to a worker: argument .* is a _thread\.lock"):
        dummymp.run(print, "text", LOCK)


def test_a_global_variable_that_cannot_be_sent() -> None:
    """A function that travels by value takes its globals along; the message names the one."""

    def careful(number: int) -> int:
        with LOCK:
            return number

    message = "the global variable 'LOCK', which .*careful uses, is a _thread.lock. Tasks share no memory"
    with pytest.raises(dummymp.NotPicklable, match=message):
        dummymp.run(careful, 1)


def test_a_part_of_a_global_variable() -> None:
    """The way into a global variable is shown, too."""

    def get() -> Any:
        return SETTINGS["depth"]

    message = "the global variable 'SETTINGS', which .*get uses, holds a _thread.lock at ['guards'][1]"
    with pytest.raises(dummymp.NotPicklable, match=re.escape(message).replace(r"\.\*", ".*")):
        dummymp.run(get)


def test_a_variable_of_the_outer_function() -> None:
    """A closure's variable is named as an outer variable."""
    guard = threading.Lock()

    def careful() -> Any:
        return guard

    message = "the outer variable 'guard', which .*careful uses, is a _thread.lock"
    with pytest.raises(dummymp.NotPicklable, match=message):
        dummymp.run(careful)


def test_a_lambda() -> None:
    """A lambda is no different."""
    message = r"the global variable 'LOCK', which .*<lambda> uses, is a _thread.lock"
    with pytest.raises(dummymp.NotPicklable, match=message):
        dummymp.run(lambda: LOCK.locked())


def test_a_default_value() -> None:
    """What hides in a default value is named."""

    def careful(guard: Any = threading.Lock()) -> Any:  # noqa: B008
        return guard

    with pytest.raises(dummymp.NotPicklable, match=r"the default value .* which .*careful uses, is a _thread.lock"):
        dummymp.run(careful)


def test_a_helper_that_uses_the_variable() -> None:
    """If not the function itself but one that it calls uses it, the message names that one."""

    def helper() -> bool:
        return LOCK.locked()

    def work() -> bool:
        return helper()

    message = r"the global variable 'LOCK', which .*helper uses, is a _thread.lock"
    with pytest.raises(dummymp.NotPicklable, match=message):
        dummymp.run(work)


def test_a_method() -> None:
    """A method takes its object along; the message names the part of the object."""
    message = "the object of the method Connected.work holds a _thread.lock at .lock"
    with pytest.raises(dummymp.NotPicklable, match=re.escape(message)):
        dummymp.run(Connected().work)


def test_a_partial() -> None:
    """Of a partial, the argument is named as that of the function in it."""
    with pytest.raises(dummymp.NotPicklable, match=r"fit\(\.\.\.\), to a worker: argument 'data' is a _thread\.lock"):
        dummymp.run(functools.partial(fit, LOCK), 1)
    with pytest.raises(dummymp.NotPicklable, match=r"argument 'depth' is a _thread.lock"):
        dummymp.run(functools.partial(fit, depth=LOCK), 1)


def test_an_object_that_refuses_to_be_pickled() -> None:
    """What its own `__reduce__` says is told."""

    class Stubborn:
        def __reduce__(self) -> Any:
            raise RuntimeError("never")

    with pytest.raises(dummymp.NotPicklable, match=r"argument 'data' is a .*Stubborn.*\(RuntimeError: never\)"):
        dummymp.run(fit, Stubborn())


def test_a_script_is_refused_on_the_users_line(script: Script) -> None:
    """In a script the traceback points at the `run` line, and names the script's own global variable."""
    done = script("""
        import sqlite3, dummymp
        db = sqlite3.connect(":memory:")
        def count():
            return db.execute("select 1").fetchone()
        dummymp.run(count)  # here
    """)
    assert done.returncode == 1
    assert "dummymp.run(count)  # here" in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "cannot send task 0, count(...), to a worker: the global variable 'db', which count uses," in last
    assert last.endswith("is a sqlite3.Connection. Such an object only works in the process that opened it. "
                         "Pass the file name and open it inside count()")  # fmt: skip


@pytest.mark.parametrize("engine", ["processes", "inline"])
def test_late_freezing_tells_it_in_the_errors(engine: str) -> None:
    """With copy_args=False the same message ends up in `get_errors`, and the other tasks go on."""
    dummymp.configure(copy_args=False, engine=engine)
    dummymp.run(fit, LOCK)
    dummymp.run(square, 3)
    dummymp.process_until_done()
    assert dummymp.get_returns() == {1: 9}
    error = dummymp.get_errors()[0]
    assert isinstance(error, dummymp.NotPicklable)
    assert "cannot send task 0, fit(...), to a worker: argument 'data' is a _thread.lock" in str(error)


def test_things_that_can_be_sent() -> None:
    """What sounds difficult and is not: files to read, open text in memory, locks in a module's own globals."""
    assert dummymp.run(io.StringIO("text").getvalue).result() == "text"
    assert dummymp.run(square, 3).result() == 9
    assert dummymp.run(operator.itemgetter(1), "abc").result() == "b"
    assert dummymp.run(re.compile("b").sub, "-", "abc").result() == "a-c"


@pytest.mark.parametrize("name", ["lock", "generator"])
def test_a_result_that_cannot_be_sent_back(name: str) -> None:
    """The function has finished; the message says so, and which part of the result cannot travel."""

    def make_lock() -> Any:
        return {"numbers": [1, 2], "guard": threading.Lock()}

    def make_generator() -> Any:
        return (number for number in range(3))

    error = dummymp.run({"lock": make_lock, "generator": make_generator}[name]).exception()
    assert isinstance(error, dummymp.NotPicklable)
    text = str(error)
    assert "task 0, " in text
    assert "finished, but its result cannot be sent back: it " in text
    assert ("holds a _thread.lock at ['guard']" if name == "lock" else "is a generator. Return a list") in text


# --- a missing extra ---------------------------------------------------------------------------------------------


def test_progress_without_tqdm(script: Script) -> None:
    """``progress=True`` without tqdm says what to install; the tasks are still there."""
    done = script("""
        import sys
        sys.modules["tqdm"] = sys.modules["tqdm.auto"] = None
        import dummymp
        dummymp.run(abs, -1)
        try:
            dummymp.process_until_done(progress=True)
        except ImportError as error:
            print(type(error).__name__, error)
        print(dummymp.results())
    """)
    assert done.stdout == (
        "MissingExtra progress=True needs tqdm. Install it with: pip install 'dummymp[progress]'\n[1]\n"
    )


@pytest.mark.parametrize(
    ("file", "source", "why"),
    [
        ("tqdm.py", "", "ModuleNotFoundError: No module named 'tqdm.auto'; 'tqdm' is not a package"),
        (os.path.join("tqdm", "__init__.py"), "1 / 0", "ZeroDivisionError: division by zero"),
        (os.path.join("tqdm", "__init__.py"), "import not_there", "ModuleNotFoundError: No module named 'not_there'"),
    ],
)
def test_progress_with_a_tqdm_that_is_broken(script: Script, tmp_path: Path, file: str, source: str, why: str) -> None:
    """The message says which file it is, and why it does not do: it may be one of the user's own."""
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(source, encoding="utf-8")
    done = script("""
        import dummymp
        dummymp.run(abs, -1)
        for work in dummymp.process_until_done, lambda progress: dummymp.map(abs, [1], progress=progress):
            try:
                work(progress=True)
            except dummymp.MissingExtra as error:
                print(error)
        print(dummymp.results())
    """)
    said = f"progress=True needs tqdm, and {tmp_path / file} does not work ({why}). If this file is yours, rename it. "
    assert done.stdout == 2 * f"{said}Otherwise install tqdm anew: pip install --force-reinstall tqdm\n" + "[1]\n"


# --- on_error ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["processes", "inline"])
def engine(request: pytest.FixtureRequest) -> str:
    """Run the test with each engine: what it states holds wherever tasks run."""
    dummymp.configure(engine=request.param)
    return str(request.param)


def test_on_error_continue(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    """By default failures stop nobody: each is logged once, and at the end one line says how many and where."""
    for number in range(4):
        dummymp.run(operator.floordiv, 6, number % 2)
    assert dummymp.process_until_done() is True
    assert (dummymp.get_returns(), list(dummymp.get_errors())) == ({1: 6, 3: 6}, [0, 2])
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert sorted(record.getMessage().splitlines()[0][:25] for record in errors) == [
        "task 0, floordiv(6, 0), f",
        "task 2, floordiv(6, 0), f",
    ]
    last = caplog.records[-1].getMessage()
    assert "2 of 4 tasks failed" in last
    assert "get_returns()" in last
    assert "get_errors()" in last
    assert {record.name for record in caplog.records} == {"dummymp"}


def test_the_summary_is_of_the_last_batch(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    """What was summed up once is not counted again."""
    texts = []
    for divisors in ([0, 1, 2], [1, 0], [1, 1]):
        caplog.clear()
        for divisor in divisors:
            dummymp.run(operator.floordiv, 6, divisor)
        dummymp.process_until_done()
        texts.append(caplog.records[-1].getMessage() if caplog.records else None)
    assert texts == [
        "1 of 3 tasks failed. The other 2 results are in get_returns(), the exception is in get_errors().",
        "1 of the last 2 tasks failed. The other result is in get_returns(), the exception is in get_errors().",
        None,
    ]


def test_arguments_that_do_not_fit_are_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """A traceback without a single call would only repeat what was said."""
    dummymp.run(divmod, 1)  # type: ignore[call-arg]
    dummymp.process_until_done()
    first = caplog.records[0].getMessage()
    assert first.startswith("task 0, divmod(1), failed: TypeError: ")
    assert "\n" not in first


def test_a_call_is_told_with_its_paths(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Which file it was is what one wants to know: paths and dates are shown, other objects are not."""
    shown = [
        (tmp_path / "no", f"{tmp_path / 'no'!r}"[:25]),
        (datetime.date(2026, 1, 2), "datetime.date(20"),
        (Connected, "..."),
    ]
    for argument, text in shown:
        caplog.clear()
        dummymp.run(os.stat, argument)
        dummymp.process_until_done()
        assert caplog.records[0].getMessage().startswith(f"task {len(dummymp.get_errors()) - 1}, stat({text}")


def test_the_cause_has_a_headline() -> None:
    """The worker's traceback, which Python shows as the cause, says what it is."""
    error = dummymp.run(operator.truediv, 1, 0).exception()
    assert error is not None
    assert str(error.__cause__).startswith("task 0, truediv(1, 0), in its worker:\nZeroDivisionError: ")


def test_no_failure_no_word(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where all went well nothing is said."""
    dummymp.run(square, 2)
    dummymp.process_until_done()
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_on_error_stop_ends_the_rest(tmp_path: Path) -> None:
    """With "stop" the first failure is raised at once; what ran is stopped, what waited is dropped, results stay."""
    dummymp.configure(on_error="stop")
    dummymp.run(square, 2).result()
    dummymp.run(wait_for_ever, str(tmp_path))
    dummymp.run(fail_when_there, str(tmp_path / "waiting"), "first")
    dummymp.run(square, 3)
    with pytest.raises(ValueError, match=r"^first$"):
        dummymp.process_until_done()
    assert dummymp.step() is True
    assert dummymp.get_returns() == {0: 4}
    assert [type(error) for error in dummymp.get_errors().values()] == [
        dummymp.TaskKilled,
        ValueError,
        dummymp.TaskKilled,
    ]


def test_on_error_stop_then_go_on(engine: str) -> None:
    """After a stop new calls can be queued and run."""
    dummymp.configure(on_error="stop")
    dummymp.run(operator.truediv, 1, 0)
    with pytest.raises(ZeroDivisionError):
        dummymp.process_until_done()
    dummymp.run(square, 3)
    assert dummymp.process_until_done() is True
    assert dummymp.get_returns() == {1: 9}


def test_on_error_stop_with_step(engine: str) -> None:
    """`step` raises the failure, too."""
    dummymp.configure(on_error="stop")
    dummymp.run(operator.truediv, 1, 0)
    until = time.monotonic() + TIMEOUT
    with pytest.raises(ZeroDivisionError):
        while not dummymp.step(0.1):
            assert time.monotonic() < until


def test_on_error_stop_for_a_call_that_cannot_be_frozen(engine: str) -> None:
    """A call that turns out unsendable when it starts is a failure like any other."""
    dummymp.configure(on_error="stop", copy_args=False, max_processes=1)
    dummymp.run(fit, LOCK)
    dummymp.run(square, 3)
    with pytest.raises(dummymp.NotPicklable, match=r"argument 'data' is a _thread.lock"):
        dummymp.process_until_done()


def test_a_task_that_was_dropped_is_no_failure_to_stop_for(engine: str) -> None:
    """With "stop", a task that the user drops stops nobody."""
    dummymp.configure(on_error="stop")
    dropped = dummymp.run(square, 2)
    dummymp.run(square, 3)
    dummymp.kill(dropped)
    assert dummymp.process_until_done() is True
    assert dummymp.get_returns() == {1: 9}


def test_on_error_raise_finishes_everything_first(engine: str) -> None:
    """With "raise" all tasks run; then one TasksFailed holds every failure, in call order."""
    dummymp.configure(on_error="raise")
    for number in (1, 0, 2, 0):
        dummymp.run(operator.floordiv, 6, number)
    message = "2 of 4 tasks failed; the first is task 1: ZeroDivisionError"
    with pytest.raises(dummymp.TasksFailed, match=message) as caught:
        dummymp.process_until_done()
    assert list(caught.value.errors) == [1, 3]
    assert caught.value.errors == dummymp.get_errors()
    assert dummymp.get_returns() == {0: 6, 2: 3}


def test_on_error_raise_raises_once(engine: str) -> None:
    """Failures that were raised are not raised again with the next tasks."""
    dummymp.configure(on_error="raise")
    dummymp.run(operator.truediv, 1, 0)
    with pytest.raises(dummymp.TasksFailed):
        dummymp.process_until_done()
    dummymp.run(square, 3)
    assert dummymp.process_until_done() is True


def test_on_error_raise_without_failures(engine: str) -> None:
    """With "raise" and no failure nothing is raised."""
    dummymp.configure(on_error="raise")
    dummymp.run(square, 3)
    assert dummymp.results() == [9]


def test_a_worker_that_dies_is_told_in_words() -> None:
    """WorkerDied says which worker, how it ended and which task it ran, in text and in attributes."""
    task = dummymp.run(os._exit, 3)
    error = task.exception()
    assert isinstance(error, dummymp.WorkerDied)
    assert (error.task, error.pid, error.exitcode, error.signal) == (0, task.pid, 3, None)
    message = rf"worker {task.pid} ended itself with exit code 3 while it ran task 0, _exit\(3\)\. Other tasks go on"
    assert re.search(message, str(error))


def test_every_error_is_also_the_standard_one() -> None:
    """``except TimeoutError`` and its like catch ours, and ``except DummyMPError`` catches all."""
    standard = {
        "NotPicklable": TypeError,
        "WorkerDied": RuntimeError,
        "WorkersCannotStart": RuntimeError,
        "TaskTimeout": TimeoutError,
        "TaskKilled": RuntimeError,
        "TaskFailed": RuntimeError,
        "TasksFailed": RuntimeError,
        "MissingExtra": ImportError,
    }
    for name, base in standard.items():
        assert issubclass(getattr(dummymp, name), (base,))
        assert issubclass(getattr(dummymp, name), dummymp.DummyMPError)


def test_on_error_stop_after_process_queue() -> None:
    """A failure that `process_queue` took in is raised by the next `step`, before anything else starts."""
    dummymp.configure(on_error="stop", max_processes=1)
    failing, waiting = dummymp.run(operator.truediv, 1, 0), dummymp.run(square, 3)
    dummymp.step()
    until = time.monotonic() + TIMEOUT
    while failing.state != "failed":
        assert time.monotonic() < until
        dummymp.process_queue()
    with pytest.raises(ZeroDivisionError):
        dummymp.step()
    assert isinstance(waiting.exception(), dummymp.TaskKilled)

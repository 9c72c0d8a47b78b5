"""What a task raised, as a worker sends it: `failures` by itself."""

from __future__ import annotations

import builtins
import dataclasses
import errno
import importlib
import os
import re
import sys
import threading
import urllib.error
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import Script

import dummymp
from dummymp import failures
from dummymp.explain import headline
from dummymp.failures import pack_failure, story
from dummymp.pickling import loads


class _NoFile(OSError):
    def __init__(self, number: int, text: str, hint: str) -> None:
        super().__init__(number, text)
        self.hint = hint


def arrives(error: BaseException) -> Any:
    """Give an exception as it comes out at the other end."""
    return loads(loads(pack_failure(error))[0])


def test_an_oserror_with_a_constructor_of_its_own() -> None:
    """It keeps number, text, and what it was given besides."""
    back = arrives(_NoFile(errno.ENOENT, "gone", "look there"))
    assert (type(back), back.errno, back.strerror, back.hint) == (_NoFile, errno.ENOENT, "gone", "look there")


def test_a_failed_download() -> None:
    """HTTPError holds an open connection, which stays behind; the rest of it travels."""
    connection = open(os.devnull, "rb")
    with urllib.error.HTTPError("http://localhost", 404, "Not Found", {"a": "b"}, connection) as error:  # type: ignore[arg-type]
        back = arrives(error)
        error.close()
    assert (type(back), back.code, str(back)) == (urllib.error.HTTPError, 404, "HTTP Error 404: Not Found")


class _Secretive(ImportError):
    @property
    def name_from(self) -> str:  # type: ignore[override]
        raise RuntimeError("traceback asks for it")


def test_an_exception_that_python_cannot_format() -> None:
    """It is told in plain words, with what led to it; Python's own hints are no reason to fail for another reason."""
    try:
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise _Secretive("second")  # noqa: B904
        except ImportError as error:
            raise ValueError("third") from error
    except ValueError as error:
        caught = error
    _, line, text, _ = loads(pack_failure(caught))
    assert line == headline(caught) == "ValueError: third"
    first, during, second, cause, third = re.split("\n\n(The above.*|During.*)\n\n", text)
    for part, last in (first, "KeyError: 'first'"), (second, f"{__name__}._Secretive: second"), (third, line):
        head, file, *_, end = part.splitlines()
        assert (head, end) == ("Traceback (most recent call last):", last)
        assert __file__ in file
    assert (during[:6], cause[:9]) == ("During", "The above")


def test_modules_that_are_not_found() -> None:
    """Python 3.15 looks around for them while it formats the traceback, and may fail: the task has failed, no more."""

    def fail(name: Any) -> None:
        raise ModuleNotFoundError("gone", name=name)

    for name in ("nowhere.to.be.found", 3, []):
        dummymp.run(fail, name)
    dummymp.process_until_done()
    for error in dummymp.get_errors().values():
        assert (type(error), str(error)) == (ModuleNotFoundError, "gone")
        assert str(error.__cause__).endswith("\nModuleNotFoundError: gone")


class _Broken:
    def write(self, text: str) -> int:
        raise _Secretive("no paper")

    def flush(self) -> None:
        """Do nothing."""


def test_callbacks_and_streams_that_raise_what_python_cannot_format(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told, and the tasks go on: logging itself would raise."""

    def callback(*counts: int) -> None:
        raise _Secretive("not now")

    monkeypatch.setattr(sys, "stdout", _Broken())
    dummymp.configure(on_end=callback)
    dummymp.run(print, "lost")
    dummymp.run(abs, -1)
    assert dummymp.results() == [None, 1]
    said = [record.getMessage() for record in caplog.records]
    assert "your sys.stdout raised _Secretive: no paper. Text of tasks is lost." in said
    assert any("raised _Secretive: not now. The task itself is fine" in text for text in said)


def test_an_attribute_that_cannot_travel() -> None:
    """It is left out; the others arrive."""
    error = ValueError("bad")
    error.kept, error.left = 1, threading.Lock()  # type: ignore[attr-defined]
    back = arrives(error)
    assert (type(back), back.args, vars(back)) == (ValueError, ("bad",), {"kept": 1})


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups are new in Python 3.11")
def test_a_group_of_exceptions_with_constructors_of_their_own() -> None:
    """Each arrives as what it was."""
    group: Any = builtins.ExceptionGroup  # type: ignore[attr-defined]
    back = arrives(group("two", [_NoFile(1, "a", "b"), group("in", [ValueError(3)])]))
    assert back.message == "two"
    assert (back.exceptions[0].hint, back.exceptions[1].exceptions[0].args) == ("b", (3,))


class _XMLSyntaxError(SyntaxError):
    """Behaves as the one of lxml."""

    def __init__(self, message: str, code: int, line: int, column: int, filename: str | None = None) -> None:
        super().__init__(message, (filename, line, column, None))
        self.position = line, column
        self.code = code
        self.error_log = threading.Lock()


class _WithSlots(Exception):
    __slots__ = ("__weakref__", "unset", "where")

    def __init__(self, text: str, *, where: int) -> None:
        super().__init__(text)
        self.where = where


@dataclasses.dataclass(frozen=True)
class _Frozen(Exception):
    code: int


class _OwnNew(Exception):
    def __new__(cls, code: int, text: str) -> _OwnNew:
        return super().__new__(cls, f"{code}: {text}")

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


def test_a_syntax_error_with_a_constructor_of_its_own() -> None:
    """It keeps its place, and what can travel of the rest. Previously that of lxml arrived as TaskFailed."""
    back = arrives(_XMLSyntaxError("Opening and ending tag mismatch", 76, 1, 11, "<string>"))
    assert (type(back), str(back)) == (_XMLSyntaxError, "Opening and ending tag mismatch (<string>, line 1)")
    assert (back.msg, back.lineno, back.offset, back.filename) == ("Opening and ending tag mismatch", 1, 11, "<string>")
    assert (back.code, back.position, hasattr(back, "error_log")) == (76, (1, 11), False)


class _WithOrigin(Exception):
    """Behaves as the one of patsy."""

    def __init__(self, message: str, origin: Any = None) -> None:
        super().__init__(message)
        self.message, self.origin = message, origin

    def __str__(self) -> str:
        return self.message if self.origin is None else f"{self.message}\n    at {self.origin!r}"


def test_a_text_that_needs_what_cannot_travel() -> None:
    """The type and the first line stay. Previously the error of patsy for a wrong formula arrived as TaskFailed."""
    back = arrives(_WithOrigin("bad formula", threading.Lock()))
    assert (type(back), str(back), back.origin) == (_WithOrigin, "bad formula", None)


def test_exceptions_that_are_not_built_or_changed_like_others() -> None:
    """One with slots, a frozen one, and one with a `__new__` of its own keep type, text and attributes."""
    slots, frozen, own = arrives(_WithSlots("a", where=3)), arrives(_Frozen(4)), arrives(_OwnNew(5, "b"))
    assert (type(slots), str(slots), slots.where, hasattr(slots, "unset")) == (_WithSlots, "a", 3, False)
    assert (type(frozen), frozen.code) == (_Frozen, 4)
    assert (type(own), str(own), own.code) == (_OwnNew, "5: b", 5)


@pytest.mark.skipif(sys.version_info < (3, 10), reason="it has no name before Python 3.10")
def test_a_name_error_brings_no_suggestions_along() -> None:
    """Python would look for them in the frames of who raises it again."""
    error: Any = NameError("name 'valu' is not defined")
    error.name = "valu"
    error.lock = threading.Lock()
    assert getattr(arrives(error), "name", None) is None


# --- exceptions that cannot be told ------------------------------------------------------------------------------


class _NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class _Exits(Exception):
    def __str__(self) -> str:
        raise SystemExit(0)

    def __reduce__(self) -> Any:
        raise SystemExit(0)


class _NoNotes(Exception):
    @property
    def __notes__(self) -> list[str]:
        raise RuntimeError("no notes")


class _NoCause(Exception):
    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no cause")


class _NothingAtAll(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("nothing")


class _OddNames(dict):  # type: ignore[type-arg]
    """Local variables of `eval` that can be looked up, and nothing else, as in formulas of patsy."""

    def __getitem__(self, name: str) -> Any:
        if name == "x":
            return 1
        raise KeyError(name)

    def _refuse(self, *args: Any) -> Any:
        raise RuntimeError("no such thing")

    __iter__ = get = keys = items = values = __contains__ = _refuse  # type: ignore[assignment]


class _OddMapping:
    __getitem__ = _OddNames.__getitem__

    def __iter__(self) -> Any:
        raise RuntimeError("no such thing")

    keys = __iter__


def raise_it(kind: type[Exception]) -> None:
    """Raise an exception of this kind."""
    raise kind(1)


def look_up(names: type) -> Any:
    """Look up a name that is not there."""
    return eval("x + absent", {}, names())


def raise_odd_syntax_error() -> None:
    """Raise a SyntaxError whose attributes are nonsense."""
    error: Any = SyntaxError("bad")
    error.lineno, error.offset, error.text, error.filename = "x", object(), 3, 5
    raise error


def import_without_compiled_part(folder: str) -> None:
    """Import from a package whose import fails."""
    Path(folder, "half").mkdir(exist_ok=True)
    Path(folder, "half", "__init__.py").write_text("import half._core\n")
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    import half.sub  # type: ignore[import-not-found] # noqa: F401


def raise_chain() -> None:
    """Raise what came of something that cannot be told."""
    try:
        look_up(_OddMapping)
    except NameError as error:
        raise ValueError("the formula") from error


ODD: list[tuple[Callable[..., object], tuple[Any, ...], str]] = [
    (raise_it, (_NoText,), "_NoText"),
    (raise_it, (_Exits,), "_Exits"),
    (raise_it, (_NoNotes,), "_NoNotes"),
    (raise_it, (_NoCause,), "_NoCause"),
    (raise_it, (_NothingAtAll,), "_NothingAtAll"),
    (look_up, (_OddNames,), "NameError: name 'absent'"),
    (look_up, (_OddMapping,), "NameError: name 'absent'"),
    (raise_odd_syntax_error, (), "SyntaxError: bad"),
    (raise_chain, (), "ValueError: the formula"),
]


@pytest.mark.parametrize(("func", "args", "text"), ODD)
def test_an_exception_that_cannot_be_told(func: Callable[..., object], args: tuple[Any, ...], text: str) -> None:
    """Whatever it does when it is looked at, its type, its text and the frames are told."""
    try:
        func(*args)
    except Exception as error:
        packed = loads(pack_failure(error))
    assert text in packed[1]
    assert text in packed[2]
    assert f"in {func.__name__}\n" in packed[2]
    assert __file__ in packed[2]


def test_what_led_to_an_exception_that_cannot_be_told() -> None:
    """It is told before it, and that it led to it."""
    try:
        raise_chain()
    except ValueError as error:
        text = story(error)
        plain = "\n\n".join(failures._plain_parts(error, error.__traceback__))
    for told in (text, plain):
        assert told.index("name 'absent'") < told.index("direct cause") < told.index("ValueError: the formula")


@pytest.mark.parametrize("engine", ["processes", "inline"])
def test_the_worker_survives_an_exception_that_cannot_be_told(
    engine: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It runs the next task, too, and each failure is told. Previously it "ended itself with exit code 0"."""
    queue = dummymp.TaskQueue(engine=engine, max_processes=1)
    for func, args, _ in [*ODD, (import_without_compiled_part, (str(tmp_path),), "")]:
        queue.run(func, *args)
    queue.run(os.getpid)
    path, modules = list(sys.path), set(sys.modules)
    try:
        queue.process_until_done()
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            del sys.modules[name]
    told = [record.getMessage() for record in caplog.records]
    assert len(queue.get_errors()) == len(ODD) + 1
    assert len(queue.get_returns()) == 1
    assert dummymp.WorkerDied not in map(type, queue.get_errors().values())
    for text, (_, _, expected) in zip(told, ODD):
        assert expected in text
    assert "ModuleNotFoundError: No module named 'half._core'" in told[len(ODD)]
    queue.configure(on_error="raise")
    queue.run(raise_it, _NoText)
    with pytest.raises(dummymp.TasksFailed, match="_NoText"):
        queue.process_until_done()


def test_an_enormous_message() -> None:
    """The exception has all of it; what is told of it has not."""
    text = "x" * 30_000_000
    error, (_, line, told, _) = arrives(ValueError(text)), loads(pack_failure(ValueError(text)))
    assert str(error) == text
    assert max(len(line), len(told)) < 200_000
    assert "characters are left out" in line


class _OddResult:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("nothing")


def give_odd_result() -> Any:
    """Return what cannot be sent, nor looked at."""
    return _OddResult()


def test_a_result_that_cannot_be_looked_at() -> None:
    """That it cannot be sent back is told all the same."""
    queue = dummymp.TaskQueue(max_processes=1)
    with pytest.raises(dummymp.NotPicklable, match="its result cannot be sent back: it is a _OddResult"):
        queue.run(give_odd_result).result()


# --- told once ---------------------------------------------------------------------------------------------------

FAILS = """
import dummymp, logging, sys, traceback
def divide(n):
    return 1 / n
"""


@pytest.mark.parametrize(
    "ends", ["run(divide, 0).result()", "run(divide, 0); dummymp.results()", "configure(on_error='stop'); WAIT"]
)
def test_a_failure_that_ends_the_script_is_told_once(ends: str, script: Script) -> None:
    """Its traceback was told when it happened; what Python shows of the exception says so, and where it came from."""
    ends = ends.replace("WAIT", "dummymp.run(divide, 0); dummymp.process_until_done()")
    told = script(f"{FAILS}dummymp.{ends}").stderr
    assert told.count("return 1 / n") == 1
    assert "task 0, divide(0), in its worker (its traceback stands above)\n" in told
    assert told.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize(
    "before", ["logging.disable()", "logging.basicConfig(stream=sys.stdout)", "logging.basicConfig(level=60)"]
)
def test_a_failure_that_was_not_told_on_stderr_is_shown_at_the_end(before: str, script: Script) -> None:
    """Nobody may have seen it, so Python shows all of it."""
    assert script(FAILS + before + "\ndummymp.run(divide, 0).result()").stderr.count("return 1 / n") == 1


def test_a_failure_that_is_looked_at_has_its_traceback(script: Script) -> None:
    """Also if it was told before: in an except block, and later."""
    done = script(
        FAILS
        + """
try:
    dummymp.run(divide, 0).result()
except ZeroDivisionError as error:
    traceback.print_exc(file=sys.stdout)
    kept = error
traceback.print_exception(type(kept), kept, None, file=sys.stdout)
print(kept.__cause__)
def show(*error):
    traceback.print_exception(*error, file=sys.stdout)
sys.excepthook = show
raise kept
"""
    )
    assert done.stdout.count("return 1 / n") == 4


def test_on_error_raise_that_is_asked_for_late_counts_what_failed_before(caplog: pytest.LogCaptureFixture) -> None:
    """What has failed since the last time is in it. Previously "4 of 4 tasks failed" was followed by "3 of 4"."""
    queue = dummymp.TaskQueue(engine="inline")
    tasks = [queue.run(divmod, 1, 0) for _ in range(4)]
    tasks[0].exception()
    queue.configure(on_error="raise")
    with pytest.raises(dummymp.TasksFailed, match=r"4 of 4 tasks failed; the first is task 0: "):
        queue.process_until_done()
    assert caplog.messages[-1].startswith("4 of 4 tasks failed.")
    queue.run(divmod, 1, 0)
    with queue.configure(on_error="continue"):
        queue.process_until_done()
    assert queue.process_until_done()


def test_an_argument_that_cannot_be_looked_at() -> None:
    """That it cannot be sent is told all the same. Previously what it raises came out of `run`."""
    with pytest.raises(dummymp.NotPicklable, match=r"cannot send task 0, abs\(\.\.\.\), .*: nothing"):
        dummymp.TaskQueue().run(abs, _OddResult())

"""What a task raised, as a worker sends it: `failures` by itself."""

from __future__ import annotations

import builtins
import errno
import os
import re
import sys
import threading
import urllib.error
from typing import Any

import pytest

import dummymp
from dummymp.explain import headline
from dummymp.failures import pack_failure
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

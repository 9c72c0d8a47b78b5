"""What a task raised, as a worker sends it: `failures` by itself."""

from __future__ import annotations

import builtins
import errno
import os
import sys
import threading
import urllib.error
from typing import Any

import pytest

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
    with open(os.devnull, "rb") as connection:
        error = urllib.error.HTTPError("http://localhost", 404, "Not Found", {"a": "b"}, connection)  # type: ignore[arg-type]
        back = arrives(error)
    assert (type(back), back.code, str(back)) == (urllib.error.HTTPError, 404, "HTTP Error 404: Not Found")


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

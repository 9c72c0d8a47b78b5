# SPDX-License-Identifier: MIT
"""What a crash shows: the user's own calls, however the text comes."""

from __future__ import annotations

import os

import pytest
from conftest import Script

from dummymp import crashes
from dummymp.crashes import Crashes

OURS = os.path.dirname(crashes.__file__)
DUMP = f"""\
before
Fatal Python error: Segmentation fault

Thread 0x00007f02 (most recent call first):
  File "{OURS}{os.sep}worker.py", line 546 in _watch
  File "/lib/threading.py", line 982 in run

Thread 0x00007f03 (most recent call first):
  File "/lib/socket.py", line 5 in accept
  File "/home/ana/serve.py", line 7 in serve

Current thread 0x00007f04 (most recent call first):
  File "/lib/ctypes.py", line 519 in string_at
  File "/home/ana/model.py", line 3 in fit
  File "{OURS}{os.sep}worker.py", line 236 in _outcome
  File "{OURS}{os.sep}forkserver.py", line 92 in main
  File "<string>", line 1 in <module>

Extension modules: numpy.core (total: 1)
after
"""
SHOWN = """\
before
Fatal Python error: Segmentation fault

Thread 0x00007f03 (most recent call first):
  File "/lib/socket.py", line 5 in accept
  File "/home/ana/serve.py", line 7 in serve

Current thread 0x00007f04 (most recent call first):
  File "/lib/ctypes.py", line 519 in string_at
  File "/home/ana/model.py", line 3 in fit

Extension modules: numpy.core (total: 1)
after
"""


@pytest.mark.parametrize("lines_at_once", [1, 2, 5, 100])
def test_our_calls_are_left_out(lines_at_once: int) -> None:
    """Only the user's calls remain, into how many pieces the text may come."""
    lines, filtered = DUMP.splitlines(keepends=True), Crashes()
    pieces = ["".join(lines[start : start + lines_at_once]) for start in range(0, len(lines), lines_at_once)]
    assert "".join(map(filtered.filter, pieces)) + filtered.rest() == SHOWN


def test_a_crash_of_our_own_is_shown() -> None:
    """What crashed in the package itself, or while no task ran, is shown with all calls."""
    call = f'  File "{OURS}{os.sep}page.py", line 1 in read\n'
    dump = f"Current thread 0x01 (most recent call first):\n{call}{call}"
    assert Crashes().filter(dump) == dump


def test_other_text_is_not_touched() -> None:
    """Tracebacks of Python, which look alike, and a header after which nothing comes, are shown as they are."""
    text = f'  File "{OURS}{os.sep}worker.py", line 1, in run\n  File "<string>", line 1 in <module>\n'
    filtered = Crashes()
    assert filtered.filter(text) == text
    assert filtered.filter("Thread 0x01: hello\n") + filtered.rest() == "Thread 0x01: hello\n"
    assert filtered.filter(text) == text


def test_a_task_that_crashes(script: Script) -> None:
    """For real: the screen and the exception show the user's function and nothing of ours."""
    done = script(
        """
        import dummymp, os
        def crash():
            os.abort()
        error = dummymp.run(crash).exception()
        print(error.__cause__)
        """
    )
    for text in (done.stdout, done.stderr):
        assert "Fatal Python error: Aborted" in text
        assert 'script.py", line 4 in crash' in text
        assert "worker.py" not in text
        assert "<string>" not in text

# SPDX-License-Identifier: MIT
"""A task that only changes its copy of what the script has is told of, once for each function."""

from __future__ import annotations

import pytest
from conftest import Script

SETUP = """
import dummymp, collections, functools
dummymp.configure(priority="nuclear", max_processes=2)
found, names, box, count = [], {}, {"n": 0}, 0
arrived = collections.deque()
"""
TEXT = (
    "note: {func}() changed {what}, but a task runs in another process, and works on a copy: yours stays as it was. "
    "Let the function return what it found out; dummymp.get_returns() and dummymp.results() have it\n"
)

CHANGES = {
    "list": ("def work(n): found.append(n)", "work", "the global variable 'found'"),
    "dict": ("def work(n): names[n] = n", "work", "the global variable 'names'"),
    "inside": ("def work(n): box['n'] += 1", "work", "the global variable 'box'"),
    "deque": ("def work(n): arrived.appendleft(n)", "work", "the global variable 'arrived'"),
    "number": ("def work(n):\n    global count\n    count += 1", "work", "the global variable 'count'"),
    "argument": ("def work(n, into=found): into.append(n)\nwork = functools.partial(work, into=found)", None, None),
    "lambda": ("work = lambda n: found.append(n)", "<lambda>", "the global variable 'found'"),
}


@pytest.mark.parametrize(("source", "func", "what"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("call", ["for n in range(20): dummymp.run(work, n)", "list(dummymp.map(work, range(20)))"])
def test_changes_in_vain_are_told(script: Script, source: str, func: str | None, what: str | None, call: str) -> None:
    done = script(f"{SETUP}{source}\n{call}\ndummymp.process_until_done()\nprint(found, names, box, count)")
    assert done.stdout == "[] {} {'n': 0} 0\n"
    assert done.stderr == (TEXT.format(func=func, what=what) if func else "")


def test_changes_of_arguments_are_told(script: Script, start_method: str) -> None:
    done = script(
        SETUP
        + """
def fill(results, n): results.append(n)
def put(n, *, table): table[n] = n
for n in range(5): dummymp.run(fill, found, n); dummymp.run(put, n, table=names)
dummymp.process_until_done()
"""
    )
    assert sorted(done.stderr.splitlines(keepends=True)) == [
        TEXT.format(func="fill", what="its argument 'results'"), TEXT.format(func="put", what="its argument 'table'"),
    ]  # fmt: skip


def test_arrays(script: Script) -> None:
    pytest.importorskip("numpy")
    done = script(
        SETUP
        + """
import numpy as np
heat = np.zeros(100)
def work(n): heat[n] = 1
for n in range(5): dummymp.run(work, n)
dummymp.process_until_done()
"""
    )
    assert done.stderr == TEXT.format(func="work", what="the global variable 'heat'")


QUIET = {
    "returns": "def work(n):\n    found.append(n)\n    return found",
    "only reads": "def work(n): found; names.get(n); box['n']; [n for n in arrived]",
    "its own": "def work(n):\n    found = []\n    found.append(n)",
    "loads lazily": "model = None\ndef work(n):\n    global model\n    if model is None: model = [1]",
    "cannot be compared": "import threading\nodd = [lambda: 1]\ndef work(n): odd.append(threading.Lock)",
    "the same again": "def work(n): box['n'] = 0; names.update({}); found.extend([])",
    "fails": "def work(n): found.append(n); 1 / 0",
}


@pytest.mark.parametrize("source", QUIET.values(), ids=QUIET)
def test_nothing_is_told_where_nothing_was_meant(script: Script, source: str) -> None:
    done = script(f"{SETUP}{source}\nfor n in range(1, 6): dummymp.run(work, n)\ndummymp.process_until_done()")
    assert "changed" not in done.stderr

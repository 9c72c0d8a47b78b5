# SPDX-License-Identifier: MIT
"""What takes long to build for each call is told of, and what to write instead."""

from __future__ import annotations

import pytest
from conftest import Script

SCRIPT = """
import dummymp, functools, time
dummymp.configure(priority="nuclear", max_processes=1)
class Model:
    def __setstate__(self, state):
        time.sleep(0.03)
        self.__dict__.update(state)
nlp = Model()
nlp.words = list(range(100))
small = [1, 2]
def count(n): return len(nlp.words) + small[0] + n
def helper(n): return count(n)
def slow(n): time.sleep(0.05); return len(nlp.words) + n
{calls}
"""
TOLD = (
    "note: {func}() is built anew for each call, because a call may change what it uses. That takes longer than the "
    "call, above all for the global variable 'nlp' (Model){of}. Faster: make that in a function with @functools.cache "
    "that {func}() calls, so each worker makes it once; or use dummymp.map(), which builds its function once in each "
    "worker\n"
)


@pytest.mark.parametrize(
    ("calls", "told"),
    [
        ("for n in range(6): dummymp.run(count, n)", TOLD.format(func="count", of="")),
        ("for n in range(6): dummymp.run(helper, n)", TOLD.format(func="helper", of=" of count()")),
        ("for n in range(4): dummymp.run(slow, n)", ""),
        ("for n in range(2): dummymp.run(count, n)", ""),
        ("list(dummymp.map(count, range(10)))", ""),
    ],
)
def test_what_is_told(script: Script, calls: str, told: str) -> None:
    done = script(SCRIPT.format(calls=calls) + "dummymp.process_until_done()\n")
    assert done.stderr == told

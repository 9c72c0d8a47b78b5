"""Sub-interpreters (PEP 734, since Python 3.14): only the main interpreter of a program can start workers."""

from __future__ import annotations

import sys

import pytest
from conftest import Script

pytestmark = pytest.mark.skipif(sys.version_info < (3, 14), reason="concurrent.interpreters is new in Python 3.14")

INSIDE = """
import sys
from concurrent import interpreters
inside = interpreters.create()
inside.exec(f"import sys; sys.path[:] = {sys.path!r}")
"""


def test_workers_are_refused_at_once(script: Script) -> None:
    """`run` and `map` in a sub-interpreter say in one error what to do, and the program ends as ever."""
    done = script(
        INSIDE
        + """
inside.exec('''
import dummymp
for call in (lambda: dummymp.run(abs, -1), lambda: list(dummymp.map(abs, [-1]))):
    try:
        call()
    except dummymp.WorkersCannotStart as error:
        print(error)
''')
inside.close()
import dummymp
print(dummymp.run(abs, -1).result())
"""
    )
    assert (done.returncode, done.stderr) == (0, "")
    *told, last = done.stdout.splitlines()
    assert len(told) == 2 and last == "1"
    assert all("only the main interpreter" in each and "engine='inline'" in each for each in told)


def test_tasks_run_inline(script: Script) -> None:
    """With engine="inline" tasks run in a sub-interpreter, also in one of an InterpreterPoolExecutor."""
    done = script(
        INSIDE
        + """
inside.exec('''
import dummymp
dummymp.configure(engine="inline")
def double(x):
    return 2 * x
dummymp.run(double, 2)
dummymp.process_until_done()
print(dummymp.get_returns(), list(dummymp.map(double, [3])))
''')
inside.close()
from concurrent.futures import InterpreterPoolExecutor
def work(x):
    import dummymp
    with dummymp.configure(engine="inline"):
        return dummymp.run(abs, x).result()
with InterpreterPoolExecutor(1) as executor:
    print(list(executor.map(work, [-1, -2])))
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "{0: 4} [6]\n[1, 2]\n", "")


def test_what_belongs_to_one_process(script: Script) -> None:
    """A queue between interpreters, or an interpreter, as an argument is refused in `run`, with what to do."""
    done = script("""
    import dummymp
    from concurrent import interpreters
    def fit(x): pass
    for thing in (interpreters.create_queue(), [interpreters.create()]):
        try:
            dummymp.run(fit, thing)
        except dummymp.NotPicklable as error:
            print(error)
    interpreters.list_all()[-1].close()
    """)
    first, second = done.stdout.splitlines()
    assert "argument 'x' is a concurrent.interpreters._queues.Queue. A task needs no queue" in first
    assert "argument 'x' holds a concurrent.interpreters.Interpreter at [0]. Create it inside fit()" in second

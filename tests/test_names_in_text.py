"""Names in texts: `eval("limit + 1")`, `df.query("x > @limit")`, SQL, and formulas find the variables of the script."""

from __future__ import annotations

import pytest
from conftest import Script

from dummymp.captures import Captured, unchanged
from dummymp.codes import names_in_text
from dummymp.pickling import dumps, loads

SOURCE = """
import dummymp, threading
limit, seen, lock, row = 1, [], threading.Lock(), 5
def double(x): return 2 * x
def more(x): return double(x) + len(eval("seen"))

def evaluates(): return eval("limit + 1")
def looks(): return globals()["limit"]
def nested(): return [eval("more(limit)") for _ in range(2)]
def inner(): return (lambda: eval("double(limit)"))()
def formula(): return calculate("y ~ double(3)")
def runs():
    '''Says lock.'''
    space = {}
    exec("found = double(limit)", globals(), space)
    return space["found"], any(name.startswith("loc") for name in globals())
def local(row): return eval("row + limit"), "row" in globals()
def recursive(n): return 1 if n == 0 else n * eval("recursive(n - 1)")
def left_out(): return "lock or limit" and eval("sorted(globals().keys() & {'lock', 'limit'})")
def says(): return "the limit of seen", sorted(globals().keys() & {"limit", "seen"}).__len__()

import sys
def calculate(text):
    return eval(text.split("~")[1], sys._getframe(1).f_globals)

for queue in range(2):
    print([dummymp.run(f).result() for f in (evaluates, looks, nested, inner, formula, runs)],
          dummymp.run(local, 2).result(), dummymp.run(recursive, 4).result(), dummymp.run(left_out).result())
    limit += 1
    seen.append(limit)
"""


def test_names_in_texts(script: Script, start_method: str) -> None:
    """They were a NameError or a KeyError in a task. Changes are seen, and what cannot travel is left out."""
    done = script(SOURCE)
    assert done.stdout.splitlines() == [
        "[2, 1, [2, 2], 2, 6, (2, False)] (3, False) 24 ['limit']",
        "[3, 2, [5, 5], 4, 6, (4, False)] (4, False) 24 ['limit']",
    ], done.stderr


def test_pandas(script: Script) -> None:
    """What `query` and `eval` of a DataFrame name is there."""
    pytest.importorskip("pandas")
    done = script(
        """
        import dummymp, pandas as pd
        limit = 1
        frame = pd.DataFrame({"x": [1, 2, 3]})
        def work(): return list(frame.query("x > @limit").x), list(frame.eval("x * @limit"))
        def again(): return list(pd.eval("frame.x + limit"))
        print(dummymp.run(work).result(), dummymp.run(again).result())
        """
    )
    assert (done.stdout, done.stderr) == ("([2, 3], [1, 2, 3]) [2, 3, 4]\n", "")


def test_what_looks_through_the_frames_of_its_callers(script: Script) -> None:
    """As polars does: at the top of a script the global variables are local ones."""
    done = script(
        """
        import dummymp, sys
        table = [1, 2, 3]
        def sql(query):
            frame = sys._getframe()
            while frame is not None:
                if query.split()[-1] in frame.f_locals:
                    return sum(frame.f_locals[query.split()[-1]])
                frame = frame.f_back
            raise LookupError(query)
        def work(n): return sql("select sum(x) from table") + n
        def fails(n): return sql("select sum(x) from chair") + n
        dummymp.run(work, 1); dummymp.run(work, 2)
        print(dummymp.results(), list(dummymp.map(work, range(2))))
        dummymp.run(fails, 1).exception()
        """
    )
    assert done.stdout == "[7, 8] [6, 7]\n"
    assert "in fails" in done.stderr and "<task>" not in done.stderr


def test_polars(script: Script) -> None:
    pytest.importorskip("polars")
    done = script(
        """
        import dummymp, polars as pl
        frame = pl.DataFrame({"x": [1, 2, 3]})
        def work(): return pl.sql("select sum(x) as s from frame").collect()["s"][0]
        print(dummymp.run(work).result())
        """
    )
    assert (done.stdout, done.stderr) == ("6\n", "")


def function(source: str, **variables: object) -> object:
    exec(source, variables)
    return variables["f"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def f(): return eval('a + b')", {"a", "b"}),
        ("def f(df): return df.query('x > @a')", {"x", "a"}),
        ("def f(db): return db.sql('select * from frame')", {"select", "from", "frame"}),
        ("def f(): return fit('y ~ log(x)'), 'a b'", {"y", "log", "x"}),
        ("def f():\n '''Doc.'''\n return eval('a')", {"a"}),
        ("def f():\n x = y = 1\n def g(): return x\n return eval('x + y + z')", {"z"}),
        ("f = lambda: eval('a')", {"a"}),
        ("def f(): return [eval(t) for t in ('a', 'b') if t not in {'c', 'd'}]", {"a", "b", "c", "d"}),
        # A text that nobody evaluates is none: what a message names may change from call to call.
        ("def f(): print('item n')", set()),
        ("def f(): return '~/file', 'about ~'", set()),
    ],
)
def test_what_is_a_name(source: str, words: set[str]) -> None:
    """Words count where somebody evaluates them; docstrings and the function's own variables do not."""
    names, _ = names_in_text(function(source).__code__)  # type: ignore[attr-defined]
    # What is nested in a function has its name in a text, too: f.<locals>.g.
    assert names - {"f", "g", "locals", "listcomp"} == words


def test_what_a_text_names_is_captured() -> None:
    """A function is serialised anew when it changes, or comes to be."""
    variables: dict[str, object] = {"limit": 1, "__name__": "__main__"}
    exec("def f(): return eval('limit + other')", variables)
    for name in ("limit", "other"):
        captured = Captured()
        assert captured.add(variables["f"])
        snapshot = captured.snapshot()
        assert unchanged(snapshot)
        variables[name] = 2.5
        assert not unchanged(snapshot)


def test_much_data_that_a_text_does_not_mean() -> None:
    """A table of a database has the name of a list of the script: calls stay as light, and as fast, as they were."""
    variables: dict[str, object] = {"users": ["somebody"] * 100_000, "__name__": "__main__"}
    exec("def f(db): return db.execute('select * from users')", variables)
    captured = Captured()
    assert captured.add(variables["f"]) and unchanged(captured.snapshot())
    assert len(dumps(variables["f"])) < 2000
    exec("def f(): return eval('len(users)')", variables)
    assert loads(dumps(variables["f"]))() == 100_000

"""Why a call or a result cannot travel: said with a name, a type and a way out."""

from __future__ import annotations

import builtins
import contextlib
import csv
import ctypes
import functools
import io
import multiprocessing
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import TIMEOUT

from dummymp.errors import NotPicklable
from dummymp.explain import call_text, explain_result, function_name, headline, type_name
from dummymp.freeze import freeze
from dummymp.pickling import dumps, loads

NO_LOCK = "Tasks share no memory, so they need no lock: return the result and combine the results afterwards"
OWN_PROCESS = "Such an object only works in the process that opened it"
PLAIN = "Send plain data instead (numbers, text, lists, dicts, arrays)"


def fit(db: Any = None, *more: Any, depth: Any = 3) -> Any:
    """A function of the user."""


def refusal(func: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    with pytest.raises(NotPicklable) as caught:
        freeze(func, args, kwargs, number=3)
    text = str(caught.value)
    start = f"cannot send task 3, {function_name(func)}(...), to a worker: "
    assert text.startswith(start)
    return text[len(start) :]


async def coroutine() -> None:
    """An async function."""


def iter_nothing() -> Iterator[Any]:
    """A generator."""
    yield from ()


async def async_generator() -> Any:
    """An async generator."""
    yield 1


@pytest.fixture
def open_things(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Give what cannot travel because it belongs to this process, by a word for it."""
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen([sys.executable, "-c", ""]))
        process.wait(TIMEOUT)
        running = coroutine()
        stack.callback(running.close)
        yield {
            "database": stack.enter_context(contextlib.closing(sqlite3.connect(":memory:"))),
            "text file": stack.enter_context(open(tmp_path / "a.txt", "w", encoding="utf-8")),
            "binary file": stack.enter_context(open(tmp_path / "a.txt", "rb")),
            "socket": stack.enter_context(socket.socket()),
            "program": process,
            "coroutine": running,
            "async generator": async_generator(),
            "generator": iter_nothing(),
            "lock": threading.Lock(),
            "rlock": threading.RLock(),
            "event": threading.Event(),
            "condition": threading.Condition(),
            "thread": threading.Thread(),
            "frame": sys._getframe(),
        }


@pytest.mark.parametrize(
    ("word", "type_said", "way_out"),
    [
        ("database", "sqlite3.Connection", f"{OWN_PROCESS}. Pass the file name and open it inside fit()"),
        ("text file", "_io.TextIOWrapper", f"{OWN_PROCESS}. Pass the file name and open it inside fit()"),
        ("binary file", "_io.BufferedReader", f"{OWN_PROCESS}. Pass the file name and open it inside fit()"),
        ("socket", "socket.socket", f"{OWN_PROCESS}. Pass the address and connect inside fit()"),
        ("program", "subprocess.Popen", f"{OWN_PROCESS}. Start the program inside fit()"),
        ("coroutine", "coroutine", "Run it inside fit() with asyncio.run(...)"),
        ("async generator", "async_generator", "Pass a list of its items"),
        ("generator", "generator", "Pass a list: list(...)"),
        ("lock", "_thread.lock", NO_LOCK),
        ("rlock", "_thread.RLock", NO_LOCK),
        ("event", "threading.Event", "Tasks share no memory: return the result instead"),
        ("condition", "threading.Condition", "Tasks share no memory: return the result instead"),
        ("thread", "threading.Thread", "Start the thread inside fit()"),
        ("frame", "frame", "Leave it out"),
    ],
)
def test_argument(open_things: dict[str, Any], word: str, type_said: str, way_out: str) -> None:
    """An argument that cannot travel is named, with its type and what to do instead."""
    expected = f"argument 'db' is a {type_said}. {way_out}"
    assert refusal(fit, open_things[word]) == expected
    assert refusal(fit, db=open_things[word]) == expected


class Holder:
    """An object of the user."""

    def __init__(self, part: Any) -> None:
        self.number = 5
        self.part = part

    def method(self) -> None:
        """A method of the user."""


LOCK = threading.Lock()


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((1, LOCK), {}, "argument 2 is a _thread.lock"),
        ((), {"depth": LOCK}, "argument 'depth' is a _thread.lock"),
        (([1, LOCK],), {}, "argument 'db' holds a _thread.lock at [1]"),
        (({"a": {"b": (1, LOCK)}},), {}, "argument 'db' holds a _thread.lock at ['a']['b'][1]"),
        ((Holder(LOCK),), {}, "argument 'db' holds a _thread.lock at .part"),
        ((Holder([Holder(LOCK)]),), {}, "argument 'db' holds a _thread.lock at .part[0].part"),
        (({LOCK},), {}, "argument 'db' holds a _thread.lock at {...}"),
    ],
)
def test_part_of_an_argument(args: tuple[Any, ...], kwargs: dict[str, Any], expected: str) -> None:
    """Inside of containers and objects, the part is found and the way to it is told."""
    assert refusal(fit, *args, **kwargs) == f"{expected}. {NO_LOCK}"


class Stubborn:
    """An object that refuses to travel."""

    def __reduce__(self) -> Any:
        raise TypeError("I stay here")


@pytest.mark.skipif(sys.version_info < (3, 15), reason="frozendict is new in Python 3.15")
def test_part_of_a_frozendict() -> None:
    """It is looked into as a dict is."""
    frozendict: Any = vars(builtins)["frozendict"]
    text = refusal(fit, frozendict(a=frozendict(b=[threading.Lock()])))
    assert text == f"argument 'db' holds a _thread.lock at ['a']['b'][0]. {NO_LOCK}"


def test_type_that_is_not_in_the_table() -> None:
    """For any other type there is general advice, and what the pickler said."""
    assert refusal(fit, Stubborn()) == f"argument 'db' is a {__name__}.Stubborn. {PLAIN} (TypeError: I stay here)"


class Connection(sqlite3.Connection):
    """A connection of the user's own kind."""


def test_subclass_gets_the_advice_of_its_base() -> None:
    """A class derived from one in the table is treated like that one."""
    with contextlib.closing(sqlite3.connect(":memory:", factory=Connection)) as connection:
        assert "Pass the file name and open it inside fit()" in refusal(fit, connection)


# --- what a function captures: by value, as if it were defined in the main script ---------------------------------


def in_main(source: str, name: str = "task", **names: Any) -> Any:
    """Define functions as a main script would, so that they travel by value."""
    namespace = {"__name__": "__main__", "threading": threading, **names}
    exec(source, namespace)
    return namespace[name]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "lock = threading.Lock()\ndef task(): return lock",
            "the global variable 'lock', which task uses, is a _thread.lock",
        ),
        (
            "lock = threading.Lock()\ndef helper(): return lock\ndef task(): return helper()",
            "the global variable 'lock', which helper uses, is a _thread.lock",
        ),
        (
            "lock = threading.Lock()\ndef task(): return [lock for _ in ()]",
            "the global variable 'lock', which task uses, is a _thread.lock",
        ),
        (
            "data = {'k': threading.Lock()}\ndef task(): return data",
            "the global variable 'data', which task uses, holds a _thread.lock at ['k']",
        ),
        ("def task(lock=threading.Lock()): pass", "the default value of 'lock', which task uses, is a _thread.lock"),
        (
            "def task(a, *, lock=threading.Lock()): pass",
            "the default value of 'lock', which task uses, is a _thread.lock",
        ),
        (
            "def task(a, b=1, lock=threading.Lock(), c=2): pass",
            "the default value of 'lock', which task uses, is a _thread.lock",
        ),
        (
            "class Model:\n  lock = threading.Lock()\ndef task(): return Model",
            "the global variable 'Model', which task uses, holds a _thread.lock at .lock",
        ),
    ],
)
def test_captured_variable(source: str, expected: str) -> None:
    """A variable that a function takes along is named, also one that a helper of it uses, and default values."""
    assert refusal(in_main(source)) == f"{expected}. {NO_LOCK}"


def test_outer_variable() -> None:
    """A variable of the function around it is named, too."""
    lock = threading.Lock()
    assert refusal(lambda: lock).startswith("the outer variable 'lock', which ")


def test_method_of_an_object_that_cannot_travel() -> None:
    """A method takes its object along, and the object is what is at fault."""
    expected = f"the object of the method Holder.method holds a _thread.lock at .part. {NO_LOCK}"
    assert refusal(Holder(LOCK).method) == expected


def test_partial() -> None:
    """The arguments that a partial holds are named as arguments of its function."""
    assert refusal(functools.partial(fit, LOCK)) == f"argument 'db' is a _thread.lock. {NO_LOCK}"
    assert refusal(functools.partial(fit, depth=LOCK)) == f"argument 'depth' is a _thread.lock. {NO_LOCK}"


def test_nothing_found() -> None:
    """Where the culprit cannot be found, what the pickler said is passed on."""

    class Odd:
        def __call__(self) -> None: ...

        def __reduce__(self) -> Any:
            raise ValueError("not today\nor ever")

    with pytest.raises(NotPicklable, match=r"to a worker: ValueError: not today$"):
        freeze(Odd(), (), {}, number=3)


def test_what_the_pickler_said_is_kept() -> None:
    """It is there for those who look for it, but it is not shown above the message that says what to do."""
    with pytest.raises(NotPicklable) as caught:
        freeze(fit, (LOCK,), {}, number=3)
    assert isinstance(caught.value.__context__, TypeError)
    assert caught.value.__suppress_context__


# --- results -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (LOCK, f"it is a _thread.lock. {NO_LOCK}"),
        ({"a": [LOCK]}, f"it holds a _thread.lock at ['a'][0]. {NO_LOCK}"),
        (iter_nothing(), "it is a generator. Return a list: list(...)"),
        (sys.__stdin__, "it is a _io.TextIOWrapper. Return what is in it, or its name"),
        ([iter_nothing()], "it holds a generator at [0]. Return a list: list(...)"),
        (async_generator(), "it is a async_generator. Return a list of its items"),
        (Stubborn(), f"it is a {__name__}.Stubborn. Return plain data (numbers, lists, dicts, arrays)"),
    ],
)
def test_result(value: Any, expected: str) -> None:
    """A result that cannot travel: which part of it, and what to return instead."""
    with pytest.raises(Exception) as caught:
        dumps(value)
    text = explain_result(value, "fit", caught.value, dumps)
    assert text.startswith(f"its result cannot be sent back: {expected} ({type(caught.value).__name__}: ")


def test_nested_too_deeply() -> None:
    """A chain of a thousand links holds nothing but plain data: the advice to send plain data led nowhere."""
    chain: Any = None
    for number in range(100_000):
        chain = [number, chain]
    said = "is nested too deeply: one thing holds the next, and so on, hundreds of times. "
    assert refusal(fit, chain) == f"argument 'db' {said}Pass a flat list, and build what you need inside fit()"
    task = in_main("def task(): return chain", chain=chain)
    assert refusal(task).startswith(f"the global variable 'chain', which task uses, {said}")
    with pytest.raises(Exception, match="recursion") as caught:
        dumps(chain)
    reason = explain_result(chain, "fit", caught.value, dumps)
    assert reason == f"its result cannot be sent back: it {said}Return a flat list"
    while chain:  # From the outside in: all at once is too deep, too.
        chain = chain[1]


def test_result_of_an_async_function() -> None:
    """An async function as a task returns a coroutine: the message shows how to write it."""
    running = coroutine()
    text = explain_result(running, "fetch", TypeError("no"), dumps)
    running.close()
    assert "it is a coroutine. fetch is an async function: queue a plain one that calls asyncio.run(fetch(...))" in text


# --- words -------------------------------------------------------------------------------------------------------


class Unprintable:
    """An object whose repr fails."""

    def __repr__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((), {}, ""),
        (("big.csv",), {"depth": 3}, "'big.csv', depth=3"),
        ((list(range(100)),), {}, "[0, 1, 2, 3, ...]"),
        (({n: n for n in range(9)},), {}, "{0: 0, 1: 1, 2: 2, 3: 3, ...}"),
        ((10**5000,), {}, None),
        ((Unprintable(),), {}, None),
    ],
)
def test_call_text(args: tuple[Any, ...], kwargs: dict[str, Any], expected: str | None) -> None:
    """Arguments in words, shortened, whatever they are."""
    text = call_text(args, kwargs)
    assert expected is None or text == expected
    assert len(text) <= 120


def test_long_call_text() -> None:
    """A long text is cut inside, many arguments are cut at the end, so that a message stays readable."""
    assert len(call_text(("x" * 1000,), {})) <= 60
    text = call_text(tuple("argument" for _ in range(100)), {})
    assert len(text) == 120 and text.endswith("...")


@pytest.mark.parametrize(
    ("func", "expected"),
    [
        (fit, "fit"),
        (Holder.method, "Holder.method"),
        (len, "len"),
        (str, "str"),
        (functools.partial(fit, 1), "fit"),
        (functools.partial(functools.partial(len), ()), "len"),
        (lambda: None, "<lambda>"),
        (io.StringIO().write, "StringIO.write"),
    ],
)
def test_function_name(func: Any, expected: str) -> None:
    """Anything that can be called has a name that its author would recognise."""
    assert function_name(func) == expected


def test_function_name_of_nested_functions_and_objects() -> None:
    """Without the noise of Python's own names."""

    def inner() -> None: ...

    class Caller:
        def __call__(self) -> None: ...

    assert function_name(inner) == "test_function_name_of_nested_functions_and_objects.inner"
    assert function_name(Caller()).endswith("Caller")


def test_type_name() -> None:
    """Types as a reader knows them."""
    values: list[Any] = [[], sqlite3.Row, re.compile("x")]
    assert [type_name(value) for value in values] == ["list", "type", "re.Pattern"]


def _with_note() -> BaseException:
    error = ValueError("bad")
    if hasattr(error, "add_note"):
        error.add_note("a note")
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("bad"), "ValueError: bad"),
        (ValueError(), "ValueError"),
        (KeyError("x"), "KeyError: 'x'"),
        (sqlite3.OperationalError("locked"), "sqlite3.OperationalError: locked"),
        (SyntaxError("odd", ("file.py", 3, 1, "x x")), "SyntaxError: odd"),
        (_with_note(), "ValueError: bad"),
    ],
)
def test_headline(error: BaseException, expected: str) -> None:
    """The line that ends the traceback of an exception, without its notes."""
    assert headline(error) == expected


def test_what_is_read_bit_by_bit() -> None:
    """Rows, matches and entries of folders: the way out is what is in them."""
    rows = sqlite3.connect(":memory:").execute("select 1")
    assert refusal(fit, rows).endswith("is a sqlite3.Cursor. Pass a list of the rows: cursor.fetchall()")
    rows.connection.close()
    assert refusal(fit, csv.reader([])).endswith("is a _csv.reader. Pass a list: list(...)")
    assert refusal(fit, re.match("", "")).endswith("is a re.Match. Pass its text: match.group()")
    with os.scandir(os.curdir) as entries:
        assert refusal(fit, next(entries)).endswith("DirEntry. Pass its path: entry.path")
    text = explain_result({"a": re.match("", "")}, "fit", TypeError("no"), dumps)
    assert "it holds a re.Match at ['a']. Return its text: match.group()" in text


def test_an_end_of_a_pipe() -> None:
    """Nothing but the number of a descriptor would travel, which is that of something else in a worker."""
    one, two = multiprocessing.Pipe()
    with one, two:
        assert "Connection. A task needs no pipe to hand over its result: return it instead" in refusal(fit, one)


def test_what_ctypes_makes() -> None:
    """Libraries, functions of them, and classes of the script hold addresses of this process."""
    library = ctypes.CDLL(None) if os.name == "posix" else ctypes.cdll.msvcrt
    assert refusal(lambda: library).endswith("is a ctypes.CDLL. Load it inside the function")
    assert refusal(fit, library.abs).endswith("Load its library inside fit()")

    class Local(ctypes.Structure):
        _fields_ = [("x", ctypes.c_int)]

    assert refusal(fit, Local).endswith("Define it inside fit(), or in a module")


def test_what_nobody_can_make_again() -> None:
    """`from sys import version_info` and its like: the worker has its own."""
    for value in (sys.version_info, sys.flags, sys.float_info, sys.int_info):
        assert loads(dumps([value])) == [value]


# --- of other libraries, by stand-ins of the same names ----------------------------------------------------------


def _refuse(self: Any) -> Any:
    raise TypeError("no default __reduce__")


def stand_in(name: str, *bases: type) -> Any:
    """Make an object that cannot travel, of a class of this full name."""
    module, _, name = name.rpartition(".")
    return type(name, bases, {"__module__": module, "__reduce__": _refuse})()


MODULE = "Put it into a module of its own, a file beside your script, and import it from there"
LIBRARIES = [
    (stand_in("h5py._hl.files.File", type(stand_in("h5py._hl.base.HLObject"))), "Pass the file name and open it"),
    (stand_in("h5py._hl.dataset.Dataset"), "Pass its values, dataset[()], or the file name and open it inside fit()"),
    (stand_in("netCDF4._netCDF4.Dataset"), "Pass the file name and open it inside fit()"),
    (stand_in("netCDF4._netCDF4.Variable"), "Pass its values, variable[:], or"),
    (stand_in("pyarrow.parquet.core.ParquetFile"), "Pass the file name and open it inside fit()"),
    (stand_in("rich.console.Console"), "Make it inside fit()"),
    (stand_in("sqlalchemy.engine.base.Engine"), "Pass the URL and call create_engine() inside fit()"),
    (stand_in("sqlalchemy.engine.base.Connection"), "Pass the URL and connect inside fit()"),
    (stand_in("sqlalchemy.orm.session.Session"), "Pass the URL and make a session inside fit()"),
    (stand_in("sqlalchemy.orm.state.InstanceState"), "Put its class into a module of its own"),
    (stand_in("bs4.element.NavigableString"), "Pass its text: str(...)"),
    (stand_in("mine.J", type(stand_in("_box.Box"))), "Pass plain data, and make it inside fit()"),
    (threading.local(), "Make it inside fit()"),
]


@pytest.mark.parametrize(("value", "way_out"), LIBRARIES, ids=lambda value: type(value).__name__)
def test_objects_of_other_libraries(value: Any, way_out: str) -> None:
    """It is said what to pass instead."""
    assert f"argument 'db' is a {type_name(value)}. {way_out}" in refusal(fit, value)


@pytest.mark.parametrize(
    "name", ["sqlalchemy.orm.decl_api.DeclarativeMeta", "numba.experimental.jitclass.base.JitClassType"]
)
def test_classes_of_the_script_that_other_libraries_have_made(name: str) -> None:
    """They are called by their name, and can be imported where they cannot be sent."""
    module, _, short = name.rpartition(".")
    kind = type(short, (type,), {"__module__": module})
    made = kind("User", (), {"__module__": "__main__", "lock": threading.Lock()})
    assert refusal(fit, made) == f"argument 'db' is the class User. {MODULE}"


def test_a_text_that_holds_its_whole_page() -> None:
    """What beautifulsoup gives is a text, and all of the page with it: its text alone is what to pass and return."""
    kind = type("NavigableString", (str,), {"__module__": "bs4.element"})
    text = kind("hi")
    text.next = deep = []
    for _ in range(100_000):
        deep.append([])
        deep = deep[0]
    assert refusal(fit, text) == "argument 'db' is a bs4.element.NavigableString. Pass its text: str(...)"
    with pytest.raises(Exception) as caught:
        dumps([text])
    told = explain_result([text], "fit", caught.value, dumps)
    assert "holds a bs4.element.NavigableString at [0]. Return its text: str(...)" in told


def test_lines_of_ipython() -> None:
    """`!command` and `%magic` are calls of get_ipython(); it is said what to call instead."""
    shell = stand_in("IPython.core.interactiveshell.InteractiveShell")
    variables: dict[str, Any] = {"get_ipython": types.MethodType(lambda self: self, shell), "__name__": "__main__"}
    exec("def listing():\n    get_ipython().system('ls')", variables)
    assert refusal(variables["listing"]) == (
        "it has a line that begins with ! or %, and those work in IPython itself only, not in a worker. "
        "For a command, call subprocess.run([...]) inside listing()"
    )


def test_a_lambda_inside_a_lambda() -> None:
    """It has no name that says anything, and so has the place where it stands."""
    inner = (lambda: lambda a: a)()
    assert function_name(inner) == "<lambda>"
    with open(os.devnull) as file:
        assert refusal(inner, file).endswith("Pass the file name and open it inside the function")

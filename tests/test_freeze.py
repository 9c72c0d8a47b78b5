"""Freezing: calls become bytes and come back as they were, and no change is ever missed."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import gc
import importlib
import marshal
import math
import sys
import types
import weakref
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dummymp
from dummymp import freeze as module
from dummymp.freeze import FunctionBlob, arguments_text, freeze
from dummymp.mainmodule import make_main, show_in_main
from dummymp.pickling import (
    dump_atom,
    dump_plain,
    dumps,
    join_arguments,
    load_arguments,
    load_atoms,
    loads,
)

ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
VALUES = st.recursive(
    ATOMS | st.binary().map(bytearray) | st.frozensets(st.integers()),
    lambda parts: st.lists(parts) | st.tuples(parts, parts) | st.dictionaries(st.text(), parts),
    max_leaves=8,
)


def blob(func: Callable[..., Any]) -> FunctionBlob:
    """Freeze a call of a function without arguments; give the function in bytes."""
    return freeze(func, (), {}, number=0).function


def thawed(func: Callable[..., Any]) -> Any:
    """Call what a worker would make of a function."""
    return loads(blob(func).data)()


def in_main(source: str, **names: Any) -> types.SimpleNamespace:
    """Run a main script: what it defines travels by value. Its variables are attributes, which may be changed."""
    script = types.SimpleNamespace(__name__="__main__", **names)
    exec(source, script.__dict__)
    return script


# --- arguments ---------------------------------------------------------------------------------------------------


@given(args=st.lists(VALUES, max_size=4).map(tuple), kwargs=st.dictionaries(st.text(), VALUES, max_size=4))
def test_arguments_round_trip(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Any values arrive as they were, in order."""
    frozen = freeze(print, args, kwargs, number=0)
    back = load_arguments(frozen.arguments)
    assert back == (args, kwargs)
    assert kinds_in(back) == kinds_in((args, kwargs))
    assert list(back[1]) == list(kwargs)


def kinds_in(value: Any) -> Any:
    """Give the types of a value and of its parts: True equals 1, and 1 equals 1.0."""
    if isinstance(value, dict):
        return [(kinds_in(key), kinds_in(part)) for key, part in value.items()]
    return [*map(kinds_in, value)] if isinstance(value, (tuple, list)) else type(value)


@pytest.mark.parametrize(
    "value",
    [1 << 20_000, -(2**31), 2**63, "\ud800", "\0", float("inf"), 0.1, 1j, "x" * 100_000],
    ids=lambda value: type(value).__name__,
)
def test_plain_arguments_round_trip(value: Any) -> None:
    """Numbers of any size, and text of any kind."""
    ((back,), kwargs) = load_arguments(freeze(print, (value,), {}, number=0).arguments)
    assert (type(back), back, kwargs) == (type(value), value, {})


@given(st.lists(st.lists(VALUES, max_size=3).map(tuple), max_size=6))
def test_arguments_of_many_calls(calls: list[tuple[Any, ...]]) -> None:
    """Joined and taken apart again, each call has its own arguments."""
    joined = marshal.loads(join_arguments([freeze(print, args, {}, number=0).arguments for args in calls]))
    back = [data if type(data) is tuple else load_arguments(data)[0] for data in joined]
    assert back == calls
    assert kinds_in(back) == kinds_in(calls)


@given(st.lists(VALUES, max_size=8))
def test_numbers_and_strings_as_results(values: list[Any]) -> None:
    """Those of many tasks are rebuilt together; what is neither is left to `dump_plain`."""
    atoms = [value for value in values if dump_atom(value)]
    assert atoms == [value for value in values if type(value) in (int, float, bool, type(None), complex, str)]
    back = load_atoms([dump_atom(value) for value in atoms])
    assert back == atoms
    assert kinds_in(back) == kinds_in(atoms)


@given(value=VALUES)
def test_results_round_trip(value: Any) -> None:
    """Any result arrives as it was."""
    back = loads(dump_plain(value))
    assert back == value
    assert type(back) is type(value)


def test_no_arguments_few_bytes() -> None:
    """A call without arguments sends next to none."""
    assert len(freeze(print, (), {}, number=0).arguments) < 10


def test_later_changes_do_not_reach_the_call() -> None:
    """A list is taken as it is at the moment of the call."""
    data = [1]
    frozen = freeze(print, (data,), {}, number=0)
    data.append(2)
    assert load_arguments(frozen.arguments) == (([1],), {})


def test_same_object_twice() -> None:
    """Two arguments that are the same object arrive as the same object."""
    data = [1]
    (first, second), kwargs = load_arguments(freeze(print, (data, data), {"also": data}, number=0).arguments)
    assert first is second is kwargs["also"]


def test_subclasses_of_plain_types() -> None:
    """A str, int or tuple of the user's own kind keeps its class."""
    point = collections.namedtuple("point", "x y")
    text = type("Text", (str,), {})
    back = load_arguments(freeze(print, (point(1, 2), text("a")), {}, number=0, here=True).arguments)[0]
    assert [type(value) for value in back] == [point, text]


# --- call texts --------------------------------------------------------------------------------------------------


class Bomb:
    """An object whose unpickling must not happen by the way."""

    def __reduce__(self) -> Any:
        return explode, ()


def explode() -> None:
    """Stand for what unpickling may do."""
    raise AssertionError("unpickled for a message")


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((), {}, ""),
        (("big.csv",), {"depth": 3}, "'big.csv', depth=3"),
        (([1, {"a": (2.5, None, True)}],), {}, "[1, {'a': (2.5, None, True)}]"),
        (({1}, frozenset({2}), b"x"), {}, "{1}, frozenset({2}), b'x'"),
        (("x" * 10_000,), {}, "'" + "x" * 27 + "..." + "x" * 28 + "'"),
        ((Bomb(),), {}, "..."),
        ((1, [Bomb()]), {}, "..."),
        ((collections.OrderedDict(a=1),), {}, "..."),
        ((len,), {}, "..."),
    ],
)
def test_arguments_text(args: tuple[Any, ...], kwargs: dict[str, Any], expected: str) -> None:
    """Plain arguments are put in words, shortened; others are never unpickled only for a message."""
    assert arguments_text(freeze(print, args, kwargs, number=0).arguments) == expected


def test_arguments_text_of_a_lot() -> None:
    """However much data a call takes, its text is short."""
    assert len(arguments_text(freeze(print, tuple(range(100_000)), {}, number=0).arguments)) <= 120


# --- by name or by value -----------------------------------------------------------------------------------------


def top_level() -> str:
    """A function that can be imported."""
    return "by name"


class Importable:
    """A class that can be imported."""

    @staticmethod
    def method() -> str:
        """A method that can be imported."""
        return "by name"


@pytest.mark.parametrize("func", [top_level, Importable.method, Importable, len, math.sqrt, int, functools.reduce])
def test_importable_functions_travel_by_name(func: Any) -> None:
    """What a worker can import is sent as its name, is the same object there, and may be kept."""
    assert loads(blob(func).data) is func
    assert len(blob(func).data) < 120
    assert blob(func).reusable


@pytest.mark.parametrize(
    "name", ["os", "sys", "abc", "io", "math", "posixpath", "collections.abc", "xml.dom", "numpy", "dummymp"]
)
def test_modules_travel_by_name(name: str) -> None:
    """A module that a function uses is imported by the worker: built in, frozen, or from a file."""
    used = importlib.import_module(name)
    script = in_main("def task(): return used", used=used)
    assert thawed(script.task) is used
    assert blob(script.task).reusable


def test_functions_of_the_main_script_travel_by_value() -> None:
    """What is defined in __main__ takes along its code and what it uses."""
    script = in_main(
        "import math\ndef helper(n): return math.sqrt(n)\nFACTOR = 2\ndef task(): return FACTOR * helper(9)"
    )
    assert loads(blob(script.task).data) is not script.task
    assert thawed(script.task) == 6.0


def test_lambdas_and_nested_functions_travel_by_value() -> None:
    """Functions without a name that could be imported work, too."""
    outer = 5
    assert thawed(lambda: outer + 1) == 6

    def nested(n: int = 3) -> int:
        return n * outer

    assert thawed(nested) == 15


def test_name_that_is_bound_to_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function whose name means another one by now goes by value: the worker would import the wrong one."""
    original = top_level
    monkeypatch.setattr(sys.modules[__name__], "top_level", lambda: "another")
    assert thawed(original) == "by name"
    assert loads(blob(original).data) is not original


def test_name_that_is_bound_anew_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, where it was sent by name before: nothing of that is remembered."""
    original = top_level
    assert loads(blob(original).data) is original
    monkeypatch.setattr(sys.modules[__name__], "top_level", lambda: "another")
    assert loads(blob(original).data) is not original


@pytest.fixture
def by_value() -> Iterator[None]:
    """Register this module for travelling by value, for the second half of a test."""
    cloudpickle = pytest.importorskip("cloudpickle")
    yield
    if __name__ in cloudpickle.list_registry_pickle_by_value():
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_register_pickle_by_value(by_value: None) -> None:
    """`cloudpickle.register_pickle_by_value` is respected, also for a function that went by name before."""
    import cloudpickle

    assert loads(blob(top_level).data) is top_level
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    assert loads(blob(top_level).data) is not top_level
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert loads(blob(top_level).data) is top_level


def test_show_in_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function or class of the main script is found in the worker's __main__, too; others are not."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    main = make_main()
    source = "def task(): pass\nclass A: pass\ndef outer():\n  def inner(): pass\n  return inner\ninner = outer()"
    script = in_main(source)
    for thing in (script.task, script.A, script.inner, top_level, 5, functools.partial(len)):
        show_in_main(thing)
    assert (main.task, main.A) == (script.task, script.A)
    assert not any(hasattr(main, name) for name in ("inner", "top_level", "len"))


# --- no change is missed -----------------------------------------------------------------------------------------

# Each: a script, what to do to it between two calls, and what the calls give before and after.
CHANGES: dict[str, tuple[str, str, Any, Any]] = {
    "global": ("x = 1\ndef task(): return x", "x = 2", 1, 2),
    "global of another type": ("x = 1\ndef task(): return type(x)", "x = 1.0", int, float),
    "global that was not there": ("def task(): return 'x' in globals() and x", "x = 2", False, 2),
    "global that shadows a builtin": ("def task(): return len('abc')", "def len(text): return 99", 3, 99),
    "global that is gone": (
        "x = 1\ndef task():\n  try: return x\n  except NameError: return None",
        "del x",
        1,
        None,
    ),
    "list": ("x = [1]\ndef task(): return x", "x.append(2)", [1], [1, 2]),
    "list in a tuple": ("x = (1, [2])\ndef task(): return x", "x[1].append(3)", (1, [2]), (1, [2, 3])),
    "dict": ("x = {}\ndef task(): return x", "x['k'] = 1", {}, {"k": 1}),
    "object": ("class A: pass\nx = A(); x.n = 1\ndef task(): return x.n", "x.n = 2", 1, 2),
    "attribute of a class": ("class A: n = 1\ndef task(): return A.n", "A.n = 2", 1, 2),
    "method of a class": (
        "class A:\n  def f(self): return 1\ndef task(): return A().f()",
        "A.f = lambda self: 2",
        1,
        2,
    ),
    "default": ("def task(n=1): return n", "task.__defaults__ = (2,)", 1, 2),
    "keyword default": ("def task(*, n=1): return n", "task.__kwdefaults__ = {'n': 2}", 1, 2),
    "keyword default inside": ("def task(*, n=1): return n", "task.__kwdefaults__['n'] = 2", 1, 2),
    "list as default": ("def task(n=[]): return n", "task.__defaults__[0].append(1)", [], [1]),
    "code": ("def task(): return 1\ndef other(): return 2", "task.__code__ = other.__code__", 1, 2),
    "attribute": ("def task(): return getattr(task, 'n', 1)", "task.n = 2", 1, 2),
    "closure": (
        "def outer(n):\n  def task(): return n\n  def change(v):\n    nonlocal n\n    n = v\n  return task, change\n"
        "task, change = outer(1)",
        "change(2)",
        1,
        2,
    ),
    "list in a closure": (
        "def outer(n):\n  def task(): return n\n  return task\nn = []\ntask = outer(n)",
        "n.append(1)",
        [],
        [1],
    ),
    "helper": ("def helper(): return 1\ndef task(): return helper()", "def helper(): return 2", 1, 2),
    "global of a helper": (
        "x = 1\ndef helper(): return x\ndef task(): return helper()",
        "x = 2",
        1,
        2,
    ),
    "helper of a helper": (
        "def deep(): return 1\ndef helper(): return deep()\ndef task(): return helper()",
        "def deep(): return 2",
        1,
        2,
    ),
    "global of a nested function": (
        "x = 1\ndef task():\n  def inner(): return x\n  return inner()",
        "x = 2",
        1,
        2,
    ),
    "global of a lambda in a comprehension": (
        "x = 1\ndef task(): return [f() for f in [lambda: x]]",
        "x = 2",
        [1],
        [2],
    ),
    "default of a helper": (
        "def helper(n=1): return n\ndef task(): return helper()",
        "helper.__defaults__ = (2,)",
        1,
        2,
    ),
    "partial": (
        "import functools\ndef helper(n): return n\ntask = functools.partial(helper, [1])",
        "task.args[0].append(2)",
        [1],
        [1, 2],
    ),
    "method": (
        "class A:\n  n = 1\n  def f(self): return self.n\na = A()\ntask = a.f",
        "a.n = 2",
        1,
        2,
    ),
    "callable object": (
        "class A:\n  n = 1\n  def __call__(self): return self.n\ntask = A()",
        "task.n = 2",
        1,
        2,
    ),
    "wrapped function": (
        "import functools\nx = 1\ndef deco(f):\n  @functools.wraps(f)\n  def inner(): return f()\n  return inner\n"
        "@deco\ndef task(): return x",
        "x = 2",
        1,
        2,
    ),
}


@pytest.mark.parametrize(("source", "change", "before", "after"), CHANGES.values(), ids=CHANGES)
def test_change_between_two_calls_is_seen(source: str, change: str, before: Any, after: Any) -> None:
    """A call sees what its function captured as it was when the call was queued: no more, no less."""
    script = in_main(source)
    for _ in range(2):  # The second is remembered, where anything is.
        assert thawed(script.task) == before
    exec(change, script.__dict__)
    for _ in range(2):
        assert thawed(script.task) == after


def test_change_back_is_seen() -> None:
    """Also when a variable takes an old value again."""
    script = in_main("x = 1\ndef task(): return x")
    seen = []
    for value in (1, 2, 1, 2):
        script.x = value
        seen.append(thawed(script.task))
    assert seen == [1, 2, 1, 2]


def test_variable_of_the_outer_function_that_was_deleted() -> None:
    """Queueing goes on working where the outer function deleted its variable since; using it is the task's error."""
    source = "def outer():\n  n = 5\n  def task(): return n\n  yield task\n  del n\n  yield"
    steps = in_main(source).outer()
    task = next(steps)
    assert thawed(task) == 5
    next(steps)
    with pytest.raises(NameError):
        thawed(task)


def test_module_that_was_imported_later() -> None:
    """A part of a package that was imported between two calls is imported in the worker, too."""
    script = in_main("import xml\ndef task(): return xml.dom.pulldom")
    before = {name for name in sys.modules if name.startswith("xml.dom")}
    kept = {name: sys.modules.pop(name) for name in before}
    try:
        first = blob(script.task).data
        importlib.import_module("xml.dom.pulldom")
        second = blob(script.task).data
        assert b"xml.dom.pulldom" not in first
        assert b"xml.dom.pulldom" in second
    finally:
        sys.modules.update(kept)


# --- serialised once ---------------------------------------------------------------------------------------------

ONCE = [
    "def task(): return 1",
    "x = 5\ndef task(): return x",
    "x = (1, 'a', (2.5, None))\ndef task(): return x",
    "import math\ndef task(): return math.pi",
    "def helper(): return 1\ndef task(n=3): return helper() + len('x')",
    "def task(n=3): return task(n - 1) if n else 0",
    "def even(n=2): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - 1)\ntask = even",
    "from collections import OrderedDict\ndef task(): return OrderedDict()",
]


@pytest.fixture
def count_dumps(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Give a list of all that was serialised by the long way."""
    dumped: list[Any] = []

    def counting(value: Any, **options: Any) -> bytes:
        dumped.append(value)
        return dumps(value, **options)

    monkeypatch.setattr(module, "dumps", counting)
    return dumped


@pytest.mark.parametrize("source", ONCE)
def test_unchanging_function_is_serialised_once(source: str, count_dumps: list[Any]) -> None:
    """A function that captures nothing changeable is serialised once, has one number, and may be kept by workers."""
    task = in_main(source).task
    blobs = [blob(task) for _ in range(5)]
    assert count_dumps == [task]
    assert len({id(each) for each in blobs}) == 1
    assert blobs[0].reusable


def test_equal_value_is_looked_at_once(count_dumps: list[Any]) -> None:
    """A variable bound to an equal value is the same function, and is not serialised at every call from then on."""
    script = in_main("x = 10 ** 6\ndef task(): return x")
    first = blob(script.task)
    script.x = int("1000000")
    assert blob(script.task) is first
    assert len(count_dumps) == 2
    assert blob(script.task) is first
    assert len(count_dumps) == 2


def test_function_with_changeable_capture_keeps_its_number() -> None:
    """A function that captures a list is looked at each time, but sent again only if the list has changed."""
    script = in_main("x = [1]\ndef task(): return x")
    first = blob(script.task)
    assert blob(script.task) is first
    script.x.append(2)
    assert blob(script.task).number != first.number


def test_two_functions_have_two_numbers() -> None:
    """Even with the same code."""
    script = in_main("def make():\n  return lambda: 1\na, b = make(), make()")
    assert blob(script.a).number != blob(script.b).number


# --- what a worker may keep --------------------------------------------------------------------------------------

LEAVES_TRACES = {
    "global": "n = 0\ndef task():\n  global n\n  n += 1\n  return n",
    "global of a helper": "n = 0\ndef helper():\n  global n\n  n += 1\n  return n\ndef task(): return helper()",
    "global of a nested function": (
        "n = 0\ndef task():\n  def inner():\n    global n\n    n += 1\n    return n\n  return inner()"
    ),
    "list": "x = []\ndef task():\n  x.append(1)\n  return len(x)",
    "list in a tuple": "x = ([],)\ndef task():\n  x[0].append(1)\n  return len(x[0])",
    "default": "def task(x=[]):\n  x.append(1)\n  return len(x)",
    "keyword default": "def task(*, x=[]):\n  x.append(1)\n  return len(x)",
    "nonlocal": (
        "def outer():\n  n = 0\n  def task():\n    nonlocal n\n    n += 1\n    return n\n  return task\ntask = outer()"
    ),
    "attribute of itself": "def task():\n  task.n = getattr(task, 'n', 0) + 1\n  return task.n",
    "attribute of a helper": (
        "def helper(): pass\ndef task():\n  helper.n = getattr(helper, 'n', 0) + 1\n  return helper.n"
    ),
    "setattr": "def task():\n  setattr(task, 'n', getattr(task, 'n', 0) + 1)\n  return task.n",
    "globals()": "n = 0\ndef task():\n  globals()['n'] = n + 1\n  return n",
    "class": "class A: n = 0\ndef task():\n  A.n += 1\n  return A.n",
    "object": "class A: n = 0\na = A()\ndef task():\n  a.n += 1\n  return a.n",
    "cache": ("import functools\nx = []\n@functools.lru_cache(None)\ndef task():\n  x.append(1)\n  return len(x)"),
}


@pytest.mark.parametrize("source", LEAVES_TRACES.values(), ids=LEAVES_TRACES)
def test_function_that_leaves_traces(source: str) -> None:
    """A call that could change what the next one sees gets a fresh copy: each call counts to 1."""
    task = in_main(source).task
    calls = [blob(task) for _ in range(2)]
    assert [call.reusable for call in calls] == [False, False]
    dummymp.configure(max_processes=1, priority="nuclear")
    for _ in range(2):
        dummymp.run(task)
    assert dummymp.results() == [1, 1]


CACHED = """
import functools
calls = []
@functools.lru_cache(maxsize=None, typed=True)
def fib(n):
    calls.append(n)
    return n if n < 2 else fib(n - 1) + fib(n - 2)
def task(): return fib(30), len(calls), fib.cache_parameters()
"""


def test_cached_function() -> None:
    """A function of the main script with @functools.cache, even a recursive one, travels, and caches there."""
    expected = (832040, 31, {"maxsize": None, "typed": True})
    assert thawed(in_main(CACHED).task) == expected
    assert loads(blob(in_main(CACHED).fib).data)(30) == 832040


# --- weak references ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "def task(): return 1",
        "x = 'long' * 1000\ndef task(): return x",
        "def task(n=0): return task(n - 1) if n else 0",
        "def outer():\n  def inner(n=0): return inner(n - 1) if n else 0\n  return inner\ntask = outer()",
        "def helper(): return 1\ndef task(): return helper()",
        "x = [1]\ndef task(): return x",
    ],
)
def test_function_that_is_gone_is_forgotten(source: str) -> None:
    """Remembering a function does not keep it, or what it captures, alive."""
    script = in_main(source)
    blob(script.task)
    key, gone = id(script.task), weakref.ref(script.task)
    assert key in module._remembered
    script.__dict__.clear()
    gc.collect()
    assert gone() is None
    assert key not in module._remembered


def test_so_many_are_remembered() -> None:
    """The number of remembered functions is bounded."""
    functions = [in_main("def task(): return 1").task for _ in range(module.REMEMBERED_FUNCTIONS + 10)]
    for func in functions:
        blob(func)
    assert len(module._remembered) == module.REMEMBERED_FUNCTIONS


# --- classes that come back as themselves ------------------------------------------------------------------------

CLASSES = {
    "plain": "class A:\n  def __init__(self): self.n = 1\na = A()",
    "derived": "class B: pass\nclass A(B): pass\na = A()",
    "exception": "class A(Exception): pass\na = A('x')",
    "slots": "class A:\n  __slots__ = ('n',)\na = A()",
    "metaclass": "class M(type): pass\nclass A(metaclass=M): pass\na = A()",
}


@pytest.mark.parametrize("source", CLASSES.values(), ids=CLASSES)
def test_objects_come_back_with_their_own_class(source: str) -> None:
    """An object of a class of the main script arrives, back home, as one of that very class."""
    script = in_main(source)
    assert type(loads(dumps(script.a))) is script.A
    assert type(loads(dumps(script.a, here=True))) is script.A
    assert loads(dumps(script.A)) is script.A


def test_enums_and_dataclasses_come_back() -> None:
    """Members of an enum are those very members; dataclasses are equal to the ones sent."""

    class Colour(enum.Enum):
        RED = 1

    @dataclasses.dataclass
    class Point:
        x: int

    assert loads(dumps(Colour.RED)) is Colour.RED
    assert loads(dumps([Point(1)])) == [Point(1)]


def test_own_bytes_do_not_make_a_class_foreign() -> None:
    """After a process has loaded its own bytes, the class still goes out in full: nobody else has got it."""

    class Local:
        pass

    first = dumps(Local())
    loads(first)
    assert dumps(Local()) == first


def test_class_that_changed_in_between() -> None:
    """A class that was changed after it was sent goes out as it is now, and is still the same class."""

    class Local:
        n = 1

    first = dumps(Local)
    Local.n = 2
    second = dumps(Local)
    assert first != second
    assert loads(second) is Local
    assert Local.n == 2


def test_a_heavy_function_is_held_by_its_calls_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one waits it is not serialised again; when all have ended its memory is free."""
    monkeypatch.setattr(module, "HEAVY", 1000)
    text = "x" * 2000

    def heavy() -> int:
        return len(text)

    first = module.freeze(heavy, (), {}, number=0)
    assert module.freeze(heavy, (), {}, number=1).function is first.function
    gone = weakref.ref(first.function)
    del first
    assert gone() is None

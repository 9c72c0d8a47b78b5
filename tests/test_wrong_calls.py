# SPDX-License-Identifier: MIT
"""Arguments that do not fit: refused by the very line that has them, with what the function takes."""

from __future__ import annotations

import functools
import re
import sys
import unittest.mock
from collections.abc import AsyncIterator, Iterator
from typing import Any, Callable

import pytest
from conftest import Script

import dummymp


def square(number: int) -> int:
    """Take one argument."""
    return number * number


def power(x: int, y: int) -> int:
    """Take two arguments."""
    return int(x**y)


def anything(number: int, **more: int) -> int:
    """Take what comes."""
    return number + sum(more.values())


def fit(data: Any, table: Any, *, depth: int = 3) -> Any:
    """Take arguments of several kinds."""
    return data, table, depth


def slowly(first: Any, *others: Any, **options: Any) -> Any:
    """Take whatever there is."""


async def fetch(url: str) -> str:
    """Be an async function."""
    return url


async def fetch_all(urls: list[str]) -> AsyncIterator[str]:
    """Be an async generator."""
    for url in urls:
        yield url


def read(path: str) -> Iterator[str]:
    """Be a generator."""
    yield path


@functools.lru_cache
def remember(number: int) -> int:
    """Be a function with a cache."""
    return number


class Model:
    """Can be called itself, and so can its objects and their method."""

    def __init__(self, size: int, *, name: str = "") -> None:
        self.size = size

    def fit(self, data: Any) -> Any:
        """Be a method."""
        return data

    def __call__(self, data: Any) -> Any:
        """Be a method without a name."""
        return data


class Plain:
    """Is called without its object."""

    @staticmethod
    def __call__(data: Any) -> Any:
        return data


class Text(str):
    """Is made by its base."""

    def __init__(self, *args: Any) -> None:
        super().__init__()


MODEL = Model(3)


@pytest.mark.parametrize(
    ("func", "args", "kwargs", "message"),
    [
        (square, (1, 2), {}, "cannot queue square(1, 2): square(number) takes 1 argument, and was given 2. "
         "Write dummymp.run(square, number)"),
        (square, (), {}, "cannot queue square(): square(number) needs 'number', too. "
         "Write dummymp.run(square, number)"),
        (square, (), {"numbr": 2}, "square(number) has no parameter 'numbr'. Did you mean number?"),
        (square, (1,), {"timeout": 5}, "has no parameter 'timeout'. For the setting, write "
         "dummymp.configure(timeout=5)"),
        (square, (1,), {"number": 5}, "cannot queue square(1, number=5): square(number) was given 'number' twice"),
        (fit, (1,), {}, "fit(data, table, *, depth=3) needs 'table', too. Write dummymp.run(fit, data, table)"),
        (fit, (), {}, "needs 'data' and 'table', too"),
        (fit, (1, 2, 3), {}, "fit(data, table, *, depth=3) takes 2 arguments by position, and was given 3"),
        (fit, (1, 2), {"dept": 3}, "has no parameter 'dept'. Did you mean depth?"),
        (fit, ((1, 2),), {}, "needs 'table', too. To pass the parts of the tuple one by one, put a * before it"),
        (fit, (), {"args": (1, 2)}, "has no parameter 'args'. Arguments follow one after another, as in a call. "
         "Write dummymp.run(fit, data, table)"),
        (slowly, (), {"depth": 1}, "slowly(first, *others, **options) needs 'first', too"),
        (MODEL.fit, (), {}, "cannot queue Model.fit(): Model.fit(data) needs 'data', too"),
        (Model.fit, (1,), {}, "Model.fit(self, data) needs 'data', too. It is a method of objects: write "
         "dummymp.run(thing.fit, data)"),
        (MODEL, (1, 2), {}, "Model(data) takes 1 argument, and was given 2"),
        (Model, (), {}, "Model(size, *, name='') needs 'size', too. Write dummymp.run(Model, size)"),
        (remember, (1, 2), {}, "remember(number) takes 1 argument, and was given 2"),
        (functools.partial(fit, 1), (2, 3), {}, "fit(table, *, depth=3) takes 1 argument by position, and was given 2"),
        (lambda: 1, (1,), {}, "() takes no arguments, and was given 1"),
        (fetch_all, (["a"],), {}, "run() needs a function that returns its result, and fetch_all is an async generator "
         "(it has a yield): to call it does nothing yet. Write an async function that returns a list of its items, and "
         "pass that one"),
        (read, ("a",), {}, "run() needs a function that returns its result, and read is a generator (it has a yield): "
         "to call it does nothing yet. Write a function that returns list(read(...)), and pass that one"),
    ],
)  # fmt: skip
def test_run_refuses_what_does_not_fit(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    """`run` says at once what is wrong and what the function takes, and queues nothing."""
    with pytest.raises(TypeError, match=re.escape(message)):
        dummymp.run(func, *args, **kwargs)
    assert dummymp.results() == []


@pytest.mark.parametrize(
    ("func", "args", "kwargs"),
    [
        (fit, (1, 2), {}),
        (fit, (1,), {"table": 2, "depth": 5}),
        (slowly, (1, 2, 3), {"depth": 1}),
        (MODEL.fit, (1,), {}),
        (MODEL, (), {"data": 1}),
        (Model, (1,), {"name": "a"}),
        (remember, (1,), {}),
        (functools.partial(fit, depth=1), (1, 2), {"depth": 2}),
        (functools.partial(MODEL.fit, 1), (), {}),
        (divmod, (7, 2), {}),
        (int, ("7",), {"base": 8}),
        (dict, (), {"a": 1}),
        (ValueError, (1, 2, 3), {}),
        (Plain(), (1,), {}),
        (Plain, (), {}),
        (Text, ("a",), {}),
        (unittest.mock.Mock(wraps=square).__call__, (1,), {}),
    ],
)
def test_what_fits_is_queued(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Nothing that can be called with its arguments is refused."""
    dummymp.configure(engine="inline")
    task: Any = dummymp.run(func, *args, **kwargs)
    task.result()


def test_a_call_that_fits_is_remembered_as_it_is() -> None:
    """That one call of a function fits says nothing of others, with other arguments or of its objects."""
    dummymp.configure(engine="inline")
    for _ in range(2):
        dummymp.run(fit, 1, 2, depth=3)
        dummymp.run(MODEL.fit, 1)
        with pytest.raises(TypeError, match="needs 'table', too"):
            dummymp.run(fit, 1, depth=3)
        with pytest.raises(TypeError, match="has no parameter 'size'"):
            dummymp.run(fit, 1, 2, size=3)
        with pytest.raises(TypeError, match="needs 'data', too"):
            dummymp.run(Model.fit, MODEL)
        with pytest.raises(TypeError, match="needs 'data', too"):
            dummymp.run(MODEL.fit)


def test_what_nobody_can_tell_fails_when_it_runs() -> None:
    """A function that is not written in Python tells itself that its arguments do not fit, in one line."""
    dummymp.configure(engine="inline")
    assert isinstance(dummymp.run(divmod, 1).exception(), TypeError)  # type: ignore[call-arg]


def test_the_line_of_the_user_is_the_last_but_one(script: Script) -> None:
    """The traceback leads to the line that is wrong."""
    done = script(
        """
        import dummymp
        def f(x):
            return x
        dummymp.run(f, 1, 2)
        """
    )
    assert 'script.py", line 5, in <module>\n    dummymp.run(f, 1, 2)\n' in done.stderr
    assert done.stderr.splitlines()[-1].startswith("TypeError: cannot queue f(1, 2): f(x) takes 1 argument")


@pytest.mark.parametrize(
    ("func", "iterables", "message"),
    [
        (fit, ([(1, 2)],), "map() calls fit with one item at a time, but fit(data, table, *, depth=3) needs 'table', "
         'too. Where each item is a tuple of all arguments, write dummymp.map(..., pass_as="args"); where it is a dict '
         'of them, pass_as="kwargs". Where they are in lists of their own, write dummymp.map(fit, list1, list2)'),
        (square, ([1], [2]), "map() got 2 iterables, one for each argument of square, but square(number) takes "
         "1 argument, and was given 2"),
        (lambda: 1, ([1],), "takes no arguments, and was given 1"),
        (fetch_all, (["a"],), "map() needs a function that returns its result, and fetch_all is an async generator"),
        (read, (["a"],), "map() needs a function that returns its result, and read is a generator"),
    ],
)  # fmt: skip
def test_map_refuses_what_does_not_fit(func: Callable[..., Any], iterables: tuple[Any, ...], message: str) -> None:
    """`map` says at once, before it reads anything, that the function cannot take the items."""
    with pytest.raises(TypeError, match=re.escape(message)):
        dummymp.map(func, *iterables, on_error="return")


@pytest.mark.parametrize(
    ("func", "item", "pass_as", "says"),
    [
        (square, (1, 2), "args", "map() calls square with what is in each item, but square(number) takes 1 argument, "
         "and was given 2. Without pass_as it gets the item as it is. The first item: (1, 2)"),
        (square, {"n": 1}, "kwargs", "square(number) has no parameter 'n'. Without pass_as it gets the item as it is"),
        (fit, (1,), "args", "but fit(data, table, *, depth=3) needs 'table', too. The first item: (1,)"),
    ],
)  # fmt: skip
def test_map_with_a_pass_as_that_does_not_fit(func: Any, item: Any, pass_as: str, says: str) -> None:
    """It is told at the first item, and in what is wrong with it."""
    with pytest.raises(TypeError) as caught:
        list(dummymp.map(func, [item], pass_as=pass_as))
    assert says in str(caught.value)


def test_map_takes_items_that_are_arguments() -> None:
    """What the items hold shows when they are read."""
    dummymp.configure(engine="inline")
    assert list(dummymp.map(fit, [(1, 2)], pass_as="args")) == [(1, 2, 3)]
    assert list(dummymp.map(fit, [{"data": 1, "table": 2, "depth": 4}], pass_as="kwargs")) == [(1, 2, 4)]


@pytest.mark.parametrize("name", ["on_start", "on_end"])
def test_a_callback_that_does_not_fit(name: str) -> None:
    """`configure` refuses a callback that cannot be called with three numbers, and shows how it begins."""

    def tell(done: int) -> None:
        """Take too few."""

    message = (
        f"{name} must be a function that takes (completed, running, total), but "
        "test_a_callback_that_does_not_fit.tell(done) takes 1 argument, and was given 3. "
        "Write def tell(completed, running, total): ..."
    )
    with pytest.raises(TypeError, match=re.escape(message)):
        dummymp.configure(**{name: tell})
    with pytest.raises(TypeError, match=r"Write lambda completed, running, total: \.\.\."):
        dummymp.configure(**{name: lambda: None})
    dummymp.configure(**{name: print})


# --- wrong calls of ours -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dummymp.map(square, [1], ordred=False),  # type: ignore[call-arg]
         "dummymp.map() has no argument 'ordred'. Did you mean ordered?"),
        (lambda: dummymp.map(square, [1], chunks=5),  # type: ignore[call-arg]
         "dummymp.map() has no argument 'chunks'. There are: ahead, on_error, ordered, pass_as, progress, timeout"),
        (lambda: dummymp.map(power, [1], y=2),  # type: ignore[call-arg]
         "dummymp.map() has no argument 'y'. To give every call of power the same y, write "
         "dummymp.map(functools.partial(power, y=2), ...)"),
        (lambda: dummymp.map(anything, [1], y=2),  # type: ignore[call-arg]
         "dummymp.map() has no argument 'y'. There are: ahead, on_error, ordered, pass_as, progress, timeout. "
         "To give every call of anything the same y, write dummymp.map(functools.partial(anything, y=2), ...)"),
        (lambda: dummymp.map(anything, [1], ordred=False),  # type: ignore[call-arg]
         "dummymp.map() has no argument 'ordred'. Did you mean ordered?"),
        (lambda: dummymp.process_until_done(progres=True),  # type: ignore[call-arg]
         "dummymp.process_until_done() has no argument 'progres'. Did you mean progress?"),
    ],
)  # fmt: skip
def test_a_keyword_that_there_is_not(call: Callable[[], Any], message: str) -> None:
    """The near one is suggested, and the function has the name that users know."""
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        call()


@pytest.mark.skipif(sys.version_info < (3, 10), reason="Python 3.9 does not say more than the function's own name")
@pytest.mark.parametrize("name", ["run", "map", "kill"])
def test_an_argument_that_is_missing(name: str) -> None:
    """What Python says itself has that name, too."""
    with pytest.raises(TypeError, match=rf"^dummymp\.{name}\(\) missing 1 required positional argument"):
        getattr(dummymp, name)()


def test_functions_of_ours_in_a_task(script: Script) -> None:
    """A task may use what the script has imported by name: in a worker it is the worker's own."""
    done = script(
        """
        from dummymp import map, process_until_done, results, run
        def outer(n):
            run(pow, n, 2)
            process_until_done()
            return results() + list(map(abs, [-n]))
        print(run(outer, 3).result())
        """
    )
    assert done.stdout == "[9, 3]\n"

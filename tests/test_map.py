# SPDX-License-Identifier: MIT
"""map: a lazy loop over results, in order, as far ahead as keeps the workers busy."""

from __future__ import annotations

import collections
import contextlib
import contextvars
import functools
import gc
import itertools
import logging
import operator
import os
import pickle
import random
import signal
import sys
import tempfile
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import TIMEOUT, Script
from hypothesis import given, settings
from hypothesis import strategies as st

import dummymp
from dummymp import lazymap, mapinput
from dummymp.chunks import FAILED, ONE, VALUE, Chunks, read_entries
from dummymp.freeze import freeze_function
from dummymp.handle import WorkerHandle
from dummymp.page import Page
from dummymp.transport import CUT, CUT_HEAD, PART, PART_HEAD

# Many of them are small enough to travel in chunks.
MANY = 3000


@pytest.fixture(autouse=True)
def _all_cpus() -> None:
    """Look at no load: others on this machine must not change what a test sees."""
    dummymp.configure(priority="NUCLEAR", max_processes=2)


def square(n: int) -> int:
    return n * n


def wait_for(path: str) -> None:
    """Wait, in a task, until a file is there."""
    until = time.monotonic() + TIMEOUT
    while not os.path.exists(path) and time.monotonic() < until:
        time.sleep(0.001)


def wait_for_first(item: int, path: str) -> int:
    if item == 0:
        wait_for(path)
    elif item == MANY - 1:
        Path(path).touch()
    return item


def counting(counter: list[int], items: Any) -> Iterator[Any]:
    for item in items:
        counter.append(item)
        yield item


# --- like the builtin ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("start_method")
def test_like_the_builtin() -> None:
    """The results are those of the builtin, in its order."""
    assert list(dummymp.map(square, range(MANY))) == list(map(square, range(MANY)))


def test_nothing_to_do() -> None:
    """Without items there are no results."""
    assert list(dummymp.map(square, [])) == []


def test_several_iterables() -> None:
    """Several iterables give one argument each, until the shortest ends."""
    assert list(dummymp.map(pow, [2, 3, 4], itertools.count(1), range(10, 100))) == [2, 9 % 11, 64 % 12]
    assert list(dummymp.map(operator.add, range(MANY), range(MANY))) == [2 * n for n in range(MANY)]


def test_any_function() -> None:
    """Partials, methods, lambdas, builtins and nested functions are fine."""
    factor = 3
    assert list(dummymp.map(functools.partial(pow, 2), range(50))) == [2**n for n in range(50)]
    assert list(dummymp.map("{:03}".format, range(50))) == [f"{n:03}" for n in range(50)]
    assert list(dummymp.map(lambda n: n * factor, range(50))) == [n * 3 for n in range(50)]
    assert list(dummymp.map(str.upper, "abc")) == ["A", "B", "C"]
    assert list(dummymp.map(random.Random(1).randint, [1, 2], [1, 2])) == [1, 2]


@pytest.mark.parametrize("size", [3, 400])
def test_pass_as(size: int) -> None:
    """An item is the argument, the arguments, or the keyword arguments."""
    pairs = [(n, n + 1) for n in range(size)]
    named = [{"a": n, "b": 2} for n in range(size)]
    assert list(dummymp.map(lambda pair: pair[0], pairs)) == list(range(size))
    assert list(dummymp.map(lambda a, b: a * b, pairs, pass_as="args")) == [a * b for a, b in pairs]
    assert list(dummymp.map(lambda a, b: a * b, named, pass_as="kwargs")) == [n * 2 for n in range(size)]
    lists = [[n, [n]] for n in range(size)]
    assert list(dummymp.map(lambda a, b: a + b[0], lists, pass_as="args")) == [2 * n for n in range(size)]


def test_unordered() -> None:
    """With ordered=False all results come, each as soon as it is there."""
    assert sorted(dummymp.map(square, range(MANY), ordered=False)) == [n * n for n in range(MANY)]


def test_unordered_does_not_wait(tmp_path: Path) -> None:
    """With ordered=False a slow first item is not waited for."""
    path = str(tmp_path / "go")
    results = dummymp.map(wait_for_first, [0, 1, 2], [path] * 3, ordered=False)
    assert [next(results), next(results)] == [1, 2]
    Path(path).touch()
    assert list(results) == [0]


ITEMS = st.one_of(
    st.lists(st.integers()),
    st.lists(st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False), st.text(), st.binary(), st.integers())),
    st.lists(
        st.one_of(
            st.lists(st.integers(), max_size=3),
            st.tuples(st.integers(), st.text()),
            st.sets(st.integers(), max_size=1),
            st.integers(),
        )
    ),
)


def identity(item: Any) -> Any:
    return item


def picky(item: Any) -> Any:
    if repr(item).count("1") % 2:
        raise ValueError(item)
    return [item]


@settings(max_examples=40)
@given(ITEMS, st.sampled_from([identity, picky, type, repr]), st.booleans(), st.sampled_from([None, 1, 3, 50]))
def test_any_items_like_the_builtin(items: list[Any], func: Any, repeat: bool, ahead: int | None) -> None:
    """Whatever the items, the function and the look-ahead: the results are those of the builtin, types too."""
    dummymp.configure(priority="NUCLEAR", max_processes=2)
    if repeat:
        items = items * 50
    expected: list[Any] = []
    for item in items:
        try:
            expected.append(func(item))
        except ValueError as error:
            expected.append(error)
    found = list(dummymp.map(func, items, ahead=ahead, on_error="return"))
    assert [(type(value), repr(value)) for value in found] == [(type(value), repr(value)) for value in expected]


def test_items_share_nothing() -> None:
    """Each call gets a copy of its own of what several items share; so does each result."""
    shared: list[int] = []

    def append(values: list[int]) -> list[int]:
        values.append(1)
        return values

    assert list(dummymp.map(append, [shared] * MANY)) == [[1]] * MANY
    assert shared == []


def test_the_function_is_built_once_in_each_worker(tmp_path: Path, start_method: str) -> None:
    """With all that it captures, as with multiprocessing.Pool: what takes long to load is loaded once."""
    table = Loaded(str(tmp_path))
    dummymp.configure(max_processes=2, priority="NUCLEAR")
    assert list(dummymp.map(lambda n: table.get(n), range(MANY))) == list(range(MANY))
    assert 1 <= len(list(tmp_path.iterdir())) <= 2
    lazily: dict[str, int] = {}
    found = list(dummymp.map(lambda n: (os.getpid(), lazily.setdefault("first", n)), range(MANY)))
    assert len(set(found)) == len(dict(found)) and lazily == {}


class Loaded:
    """Leaves a file for each time that it was rebuilt."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__dict__.update(state)
        tempfile.mkstemp(dir=self.folder)

    def get(self, n: int) -> int:
        return n


def test_items_are_frozen_when_read() -> None:
    """A generator may change what it gave before."""

    def reuse() -> Iterator[list[int]]:
        value = [0]
        for n in range(MANY):
            value[0] = n
            yield value

    assert list(dummymp.map(operator.itemgetter(0), reuse())) == list(range(MANY))


def test_function_is_frozen_at_the_call() -> None:
    """What the function uses is taken as it is when map is called."""
    factor = [2]
    results = dummymp.map(lambda n: n * factor[0], range(3))
    factor[0] = 100
    assert list(results) == [0, 2, 4]


def test_classes_of_main(script: Script) -> None:
    """Objects of a class in the script travel both ways and stay what they are; small and many, too."""
    done = script("""
        import dummymp
        class Point:
            def __init__(self, x): self.x = x
        def move(point): return Point(point.x + 1)
        points = list(dummymp.map(move, (Point(n) for n in range(500))))
        assert all(type(point) is Point for point in points)
        print(sum(point.x for point in points))
    """)
    assert done.stdout == "125250\n", done.stderr
    assert done.stderr == ""


# --- lazy, and bounded ---------------------------------------------------------------------------------------------


def test_nothing_is_read_before_the_first_next() -> None:
    """The call alone reads nothing and starts nothing."""
    read: list[int] = []
    results = dummymp.map(square, counting(read, range(10)))
    assert read == []
    assert dummymp.worker_pids() == []
    assert next(results) == 0
    assert read


@pytest.mark.parametrize("ahead", [1, 2, 10, 300])
def test_ahead_is_a_limit(ahead: int) -> None:
    """No more items are read ahead of what was given than `ahead`."""
    read: list[int] = []
    for given_before, _ in enumerate(dummymp.map(square, counting(read, range(1000)), ahead=ahead)):
        assert len(read) - given_before <= ahead
    assert len(read) == 1000


def test_slow_items_are_read_a_few_ahead() -> None:
    """Of slow items only a few for each worker are read ahead."""
    read: list[int] = []
    for given_before, _ in enumerate(dummymp.map(lambda n: time.sleep(n), counting(read, [0.005] * 40))):
        assert len(read) - given_before <= 40 // 2


def test_endless() -> None:
    """An endless generator is fine."""
    assert list(itertools.islice(dummymp.map(square, itertools.count()), 5000)) == [n * n for n in range(5000)]


def test_a_million_items_leave_memory_flat(script: Script) -> None:
    """One million items, consumed one by one, make the parent grow by less than 20 MB."""
    done = script("""
        import dummymp, psutil, itertools
        dummymp.configure(priority="NUCLEAR")
        process = psutil.Process()
        def same(n): return n
        for n in dummymp.map(same, range(20_000)): pass
        before = most = process.memory_info().rss
        for expected, n in enumerate(dummymp.map(same, itertools.islice(itertools.count(), 1_000_000))):
            assert n == expected
            if n % 50_000 == 0:
                most = max(most, process.memory_info().rss)
        print(n, (most - before) < 20e6)
    """)
    assert done.stdout == "999999 True\n", done.stderr


def test_a_slow_consumer_stops_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """While results wait, no more is read than keeps the workers busy."""
    monkeypatch.setattr(mapinput.MapInput, "size", lambda self: 10)
    monkeypatch.setattr(lazymap._LazyMap, "_allowed", lambda self: 2)
    read: list[int] = []
    results = dummymp.map(square, counting(read, itertools.count()), ordered=False)
    for count in range(1000):
        next(results)
        if count % 10 == 0:
            time.sleep(0.002)  # The workers end all that they have, and could do far more.
        assert len(read) - count <= (lazymap.TASKS + lazymap.SPARE) * 2 * 10 + 10
    results.close()


def test_a_slow_item_holds_up_nobody(tmp_path: Path) -> None:
    """While the first item waits, all others go through the other worker; in order it still comes first."""
    path = str(tmp_path / "go")
    found = dummymp.map(wait_for_first, range(MANY), itertools.repeat(path))
    assert list(found) == list(range(MANY))


def test_what_waits_behind_a_slow_item_of_a_chunk_goes_to_others(tmp_path: Path) -> None:
    """An item in the middle that waits for the last of all does not stop those that travel with it."""
    path = str(tmp_path / "go")

    def meet(item: int) -> int:
        if item == MANY // 2:
            wait_for(path)
        elif item == MANY - 1:
            Path(path).touch()
        return item

    assert list(dummymp.map(meet, range(MANY))) == list(range(MANY))


def test_every_item_begins_once(tmp_path: Path) -> None:
    """Whatever is called back and sent elsewhere, each item runs exactly once."""
    path = tmp_path / "begun"

    def note(item: int) -> None:
        with open(path, "a") as file:
            file.write(f"{item}\n")
        if item % 100 == 0:
            time.sleep(0.012)

    list(dummymp.map(note, range(1000)))
    assert sorted(map(int, path.read_text().split())) == list(range(1000))


def test_items_larger_than_a_chunk() -> None:
    """Large items and large results, mixed with small ones, all arrive."""
    items = ["x" * (10 ** (n % 6)) for n in range(200)]
    assert list(dummymp.map(identity, items)) == items
    assert [len(text) for text in dummymp.map(operator.mul, itertools.repeat("ab"), [1, 5, 50_000, 2, 0] * 60)] == [
        2, 10, 100_000, 4, 0,
    ] * 60  # fmt: skip


def test_results_of_all_kinds_and_sizes() -> None:
    """Results that are objects, small or too large for the log of a chunk, arrive as what they are."""
    kinds: list[Any] = [1, [2], "x" * 9000, {3: [4]}, "y" * 100_000, None, (5,), b"z" * 70_000]
    chosen = random.Random(1).choices(kinds, k=600)
    assert list(dummymp.map(kinds.__getitem__, map(kinds.index, chosen))) == chosen


# --- errors --------------------------------------------------------------------------------------------------------


def fails_at_7(n: int) -> int:
    if n == 7:
        raise ZeroDivisionError("seven")
    return n


@pytest.mark.parametrize("size", [20, 2000])
def test_raise(size: int, caplog: pytest.LogCaptureFixture) -> None:
    """The exception of an item is raised in its place, with the worker's traceback; the rest is stopped."""
    found: list[int] = []
    with pytest.raises(ZeroDivisionError, match="seven") as raised:
        for n in dummymp.map(fails_at_7, range(size)):
            found.append(n)
    assert found == list(range(7))
    assert "in fails_at_7" in str(raised.value.__cause__)
    assert "chunks.py" not in str(raised.value.__cause__)
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


@pytest.mark.parametrize("size", [20, 2000])
def test_return(size: int, caplog: pytest.LogCaptureFixture) -> None:
    """With on_error="return" the exception stands in the place of the result, and is not logged, too."""
    found = list(dummymp.map(fails_at_7, range(size), on_error="return"))
    error = found[7]
    assert isinstance(error, ZeroDivisionError)
    assert "in fails_at_7" in str(error.__cause__)
    assert found[:7] + found[8:] == [n for n in range(size) if n != 7]
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


def test_exceptions_that_are_results() -> None:
    """An exception that a call returns is a result like any other."""
    assert [repr(value) for value in dummymp.map(ValueError, range(300))] == [f"ValueError({n})" for n in range(300)]


def test_system_exit_of_an_item() -> None:
    """sys.exit() in a call does not end the script that reads the results."""
    with pytest.raises(dummymp.TaskFailed, match=r"ended itself by sys.exit\(\)"):
        list(dummymp.map(sys.exit, [3]))
    (error,) = dummymp.map(sys.exit, [3], on_error="return")
    assert isinstance(error, SystemExit)


def test_what_cannot_be_sent() -> None:
    """An item that cannot be sent fails in its place, the others are fine; so does a result."""
    found = list(dummymp.map(str, [1, (n for n in "ab"), 2], on_error="return"))
    assert (found[0], found[2]) == ("1", "2")
    assert isinstance(found[1], dummymp.NotPicklable)
    assert "generator" in str(found[1])
    mixed = list(dummymp.map(lambda n: n if n != 500 else (x for x in "ab"), range(1000), on_error="return"))
    assert isinstance(mixed[500], dummymp.NotPicklable)
    assert re_search("item 500, .*return a list", str(mixed[500]))
    assert mixed[:500] + mixed[501:] == [n for n in range(1000) if n != 500]


def re_search(pattern: str, text: str) -> bool:
    import re

    return re.search(pattern, text, re.IGNORECASE) is not None


def test_a_function_that_cannot_be_sent() -> None:
    """A function that cannot be sent is an error at the call."""
    lock = threading.Lock()
    with pytest.raises(dummymp.NotPicklable, match=r"cannot send .*outer variable 'lock'"):
        dummymp.map(lambda n: lock, [1])


@pytest.mark.parametrize("size", [4, 900])
def test_a_generator_that_raises(size: int) -> None:
    """An exception of the input comes after the results of the items before it."""

    def items() -> Iterator[int]:
        yield from range(size)
        raise KeyError("input")

    found: list[int] = []
    with pytest.raises(KeyError, match="input"):
        for n in dummymp.map(square, items()):
            found.append(n)
    assert found == [n * n for n in range(size)]


def test_wrong_calls() -> None:
    """A wrong argument is an error at the call, not at the first next()."""
    with pytest.raises(TypeError, match=r"map\(\) needs a function to call for each item, got 3\. Write map\(f, "):
        dummymp.map(3, [1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"map\(\) needs the items, too\. Write map\(f, items\)"):
        dummymp.map(square)
    with pytest.raises(TypeError, match=r"something to go through after the function, got 5\. Write map\(f, \[1"):
        dummymp.map(square, 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pass_as must be 'one' or 'args' or 'kwargs', got 'two'"):
        dummymp.map(square, [1], pass_as="two")
    with pytest.raises(ValueError, match="pass_as='args' goes with one iterable, got 2"):
        dummymp.map(square, [1], [2], pass_as="args")
    with pytest.raises(ValueError, match="on_error must be 'raise' or 'return', got 'stop'"):
        dummymp.map(square, [1], on_error="stop")
    for ahead in (0, -1, 1.5, True, "x"):
        with pytest.raises(ValueError, match="ahead must be a whole number of items, 1 or more"):
            dummymp.map(square, [1], ahead=ahead)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout must be more than 0 seconds, got 0"):
        dummymp.map(square, [1], timeout=0)
    with pytest.raises(TypeError, match="timeout must be seconds"):
        dummymp.map(square, [1], timeout="x")  # type: ignore[arg-type]


def test_wrong_items() -> None:
    """An item that does not fit `pass_as` fails in its place, and the message says what it must be."""
    found = list(dummymp.map(max, [(1, 2), 7, (3, 4)], pass_as="args", on_error="return"))
    assert (found[0], found[2]) == (2, 4)
    assert re_search("each item must be the arguments, as a tuple, got 7", str(found[1]))
    with pytest.raises(TypeError, match="each item must be the keyword arguments, as a dict, got 7"):
        list(dummymp.map(dict, [7], pass_as="kwargs"))


# --- timeouts and deaths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 1500])
def test_timeout(size: int) -> None:
    """An item that takes too long fails, by its number; the others are fine."""

    def sleepy(n: int) -> int:
        if n == size // 2:
            time.sleep(TIMEOUT)
        return n

    found = list(dummymp.map(sleepy, range(size), timeout=0.3, on_error="return"))
    error = found.pop(size // 2)
    assert isinstance(error, dummymp.TaskTimeout)
    assert f"item {size // 2}, " in str(error) and f"({size // 2}), was stopped after 0.3 s" in str(error)
    assert "dummymp.map(..., timeout=...)" in str(error)
    assert found == [n for n in range(size) if n != size // 2]


def test_configured_timeout() -> None:
    """Without an own timeout that of the queue holds."""
    dummymp.configure(timeout=0.05)
    with pytest.raises(dummymp.TaskTimeout, match="item 0"):
        list(dummymp.map(time.sleep, [TIMEOUT]))


@pytest.mark.usefixtures("start_method")
@pytest.mark.parametrize("size", [6, 2500])
def test_death(size: int) -> None:
    """If a worker dies, the item that ran has an error, and no other; what had finished is not run again."""

    def deadly(n: int) -> int:
        if n == size // 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    found = list(dummymp.map(deadly, range(size), on_error="return"))
    error = found.pop(size // 2)
    assert isinstance(error, dummymp.WorkerDied)
    assert error.task == size // 2
    assert f"item {size // 2}, " in str(error)
    assert found == [n for n in range(size) if n != size // 2]


def test_nothing_runs_twice_after_deaths(tmp_path: Path) -> None:
    """However small the items, and however often workers die: each item begins once."""
    path = str(tmp_path / "begun")

    def note(item: int) -> None:
        global _file
        if "_file" not in globals():
            _file = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
        os.write(_file, b"%d\n" % item)
        if item % 700 == 699:
            os._exit(3)

    found = list(dummymp.map(note, range(MANY), on_error="return"))
    assert [n for n, value in enumerate(found) if value is not None] == [n for n in range(MANY) if n % 700 == 699]
    begun = sorted(int(line) for line in Path(path).read_text().split())
    assert begun == list(range(MANY))


def test_retries(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The queue's `retries` hold: an item that failed runs again."""

    def flaky(n: int) -> int:
        mark = tmp_path / str(n)
        if n % 500 == 3 and not mark.exists():
            mark.touch()
            if n == 503:
                os._exit(1)
            raise OSError("once")
        return n

    dummymp.configure(retries=1)
    assert list(dummymp.map(flaky, range(1100))) == list(range(1100))
    assert all("it runs again" in record.getMessage() for record in caplog.records)
    assert len(caplog.records) == 3


@pytest.mark.parametrize("item", [7, 507])
def test_retries_are_counted(item: int, caplog: pytest.LogCaptureFixture) -> None:
    """After so many tries an item has failed, whether it was alone at first or one of many."""

    def fails(n: int) -> int:
        if n == item:
            raise ZeroDivisionError
        return n

    dummymp.configure(retries=2)
    found = list(dummymp.map(fails, range(600), on_error="return"))
    assert isinstance(found[item], ZeroDivisionError)
    lines = [record.getMessage().splitlines()[-1] for record in caplog.records]
    assert lines == [f"This was attempt {n} of 3; it runs again." for n in (1, 2)]


# --- leaving early -------------------------------------------------------------------------------------------------


def running(path: Path) -> list[int]:
    """Find those of the pids in a file that still live."""
    return [int(pid) for pid in path.read_text().split() if os.path.exists(f"/proc/{pid}")]


def gone(pids: list[int]) -> bool:
    until = time.monotonic() + TIMEOUT
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.005)
    return not any(map(alive, pids))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("way", ["break", "exception", "close", "garbage"])
def test_leaving_early(way: str, tmp_path: Path) -> None:
    """A loop that is left stops the reading, drops what was not begun, and ends what runs."""
    read: list[int] = []
    pids = tmp_path / "pids"

    def sleepy(n: int) -> int:
        if n:
            with open(pids, "a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(TIMEOUT)
        return n

    def loop() -> None:
        results = dummymp.map(sleepy, counting(read, itertools.count()))
        if way == "break":
            for first in results:
                if first == 0:
                    break
        else:
            assert next(results) == 0
        until = time.monotonic() + TIMEOUT
        while not pids.exists() and time.monotonic() < until:
            dummymp.step(0.01)
        if way == "close":
            results.close()
        elif way == "exception":
            raise IndexError
        elif way == "garbage":
            circle: list[Any] = [results]
            circle.append(circle)
            del results, circle
            gc.collect()

    with contextlib.nullcontext() if way != "exception" else pytest.raises(IndexError):
        loop()
    seen = len(read)
    assert gone([int(pid) for pid in pids.read_text().split()])
    assert dummymp.get_stats()["queued"] == dummymp.get_stats()["running"] == 0
    assert list(dummymp.map(square, [2])) == [4]
    assert len(read) == seen


def test_leaving_short_items_keeps_the_workers() -> None:
    """Workers that are about to be free are not ended: the next map has them."""
    pids: set[int] = set()
    for _ in range(10):
        for _ in dummymp.map(square, range(5000)):
            break
        pids |= set(dummymp.worker_pids())
    assert len(pids) < 10


def test_a_script_that_leaves_a_map_open(script: Script) -> None:
    """A script may end in the middle of a map, with no message and nothing left."""
    done = script("""
        import dummymp, itertools, time
        results = dummymp.map(abs, itertools.count())
        print(next(results))
        slow = dummymp.map(time.sleep, itertools.repeat(100))
        kept = dummymp.map(abs, [1])
        print(next(kept))
    """)
    assert (done.stdout, done.stderr, done.returncode) == ("0\n1\n", "", 0)


@pytest.mark.usefixtures("start_method")
def test_ctrl_c(script: Script) -> None:
    """Ctrl-C out of next() leaves things in order: the map has ended, its workers are gone, the next one works."""
    done = script("""
        import dummymp, os, signal, threading, time
        dummymp.configure(priority="NUCLEAR")
        def hang(n):
            if n == 1:
                os.kill(PARENT, signal.SIGINT)
                time.sleep(1000)
            return n
        PARENT = os.getpid()
        results = dummymp.map(hang, range(10))
        try:
            for n in results: assert n == 0
        except KeyboardInterrupt:
            print("interrupted")
        print(next(results, "ended"))
        print(list(dummymp.map(abs, [-1, -2])), dummymp.get_errors())
    """)
    assert done.stdout == "interrupted\nended\n[1, 2] {}\n", done.stderr
    assert done.stderr == ""


# --- beside others -------------------------------------------------------------------------------------------------


def test_a_map_in_the_loop_of_a_map() -> None:
    """A map may be consumed inside the loop of another, and may be the input of another."""
    found = []
    for n in dummymp.map(square, range(20)):
        found.append(sum(dummymp.map(square, range(n % 5))))
    assert found == [sum(k * k for k in range(n * n % 5)) for n in range(20)]
    assert list(dummymp.map(square, dummymp.map(square, range(500)))) == [n**4 for n in range(500)]


def test_beside_queued_calls() -> None:
    """Queued calls and a map both go on; each keeps its results and its counts to itself."""
    told: list[tuple[int, int, int]] = []
    dummymp.configure(on_end=lambda *counts: told.append(counts))
    for n in range(10):
        dummymp.run(square, n)
    results = dummymp.map(square, range(1000))
    head = [next(results) for _ in range(5)]
    dummymp.process_until_done()
    assert head + list(results) == [n * n for n in range(1000)]
    assert dummymp.get_returns() == {n: n * n for n in range(10)}
    assert dummymp.get_errors() == {}
    assert [completed for completed, _, _ in told] == list(range(1, 11))
    assert {total for _, _, total in told} == {10}


def test_queued_calls_in_the_loop() -> None:
    """Calls that are queued and driven inside the loop work."""
    tasks = []
    for n in dummymp.map(square, range(300)):
        if n % 2:
            tasks.append(dummymp.run(square, n))
        dummymp.step()
    dummymp.process_until_done()
    assert [task.result() for task in tasks] == [n**4 for n in range(300) if n % 2]


def test_failures_do_not_count() -> None:
    """A failure in a map is no failure of the queue."""
    list(dummymp.map(fails_at_7, range(20), on_error="return"))
    assert dummymp.process_until_done()
    assert dummymp.get_errors() == dummymp.get_returns() == {}


def test_of_a_queue() -> None:
    """A queue has a map, for which its settings hold."""
    queue = dummymp.TaskQueue(max_processes=1, priority="NUCLEAR", tasks_per_worker=1)
    pids = list(queue.map(lambda n: os.getpid(), range(5)))
    assert len(set(pids)) == 5
    assert queue.get_returns() == {}


def test_from_several_threads() -> None:
    """Each thread may have its own."""
    found: dict[int, list[int]] = {}

    def loop(number: int) -> None:
        found[number] = list(dummymp.map(square, range(number, number + 2000)))

    threads = [threading.Thread(target=loop, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert found == {n: [k * k for k in range(n, n + 2000)] for n in range(4)}


def test_inside_a_task() -> None:
    """In a task, and in an item, a map runs inline."""

    def total(n: int) -> tuple[int, bool]:
        return sum(dummymp.map(square, range(n))), len({os.getpid(), *dummymp.map(lambda _: os.getpid(), [0])}) == 1

    assert dummymp.run(total, 5).result() == (30, True)
    assert list(dummymp.map(total, [1, 2, 3])) == [(0, True), (1, True), (5, True)]


def test_inline() -> None:
    """With engine="inline" it works without processes, and as lazily."""
    dummymp.configure(engine="inline")
    read: list[int] = []
    results = dummymp.map(fails_at_7, counting(read, range(10)), on_error="return")
    assert next(results) == 0
    assert read == [0]
    found = list(results)
    assert isinstance(found[6], ZeroDivisionError)
    assert found[:6] + found[7:] == [1, 2, 3, 4, 5, 6, 8, 9]
    with pytest.raises(ZeroDivisionError):
        list(dummymp.map(fails_at_7, [7]))
    assert dummymp.worker_pids() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_after_fork(script: Script) -> None:
    """A copy of the process has maps of its own; one that was begun before says so, and the original goes on."""
    done = script("""
        import dummymp, os, sys
        dummymp.configure(priority="NUCLEAR")
        results = dummymp.map(abs, range(3000))
        next(results)
        pid = os.fork()
        if pid == 0:
            print(sum(dummymp.map(abs, range(100))))
            try:
                list(results)
            except RuntimeError as error:
                print(error)
            del results
            sys.exit()
        os.waitpid(pid, 0)
        print(sum(results))
    """)
    lines = done.stdout.splitlines()
    assert lines[0] == "4950", done.stderr
    assert "begun in another process" in lines[1]
    assert lines[2] == str(sum(range(3000)))
    assert done.stderr == ""


def test_item_that_forks() -> None:
    """A copy of the worker that an item made has no business with the others."""

    def fork(n: int) -> int:
        if n == 700:
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
        return n

    assert list(dummymp.map(fork, range(1500))) == list(range(1500))


# --- what surrounds an item ----------------------------------------------------------------------------------------


def test_output_comes_before_the_result(script: Script) -> None:
    """What an item prints and logs appears, in whole lines, before its result."""
    done = script("""
        import dummymp, logging, sys
        dummymp.configure(priority="NUCLEAR", log_prefix="{task} ")
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
        def talk(n):
            if n % 100 == 50:
                print("item", n, end="" if n % 200 == 50 else "\\n")
            if n % 100 == 70:
                logging.info("logged")
            return n
        for n in dummymp.map(talk, range(1000)):
            if n % 100 in (50, 70):
                print("result", n)
    """)
    lines = done.stdout.splitlines()
    for n in range(50, 1000, 100):
        assert lines.index(f"item {n}") < lines.index(f"result {n}"), done.stdout
        assert lines.index(f"{n + 20} logged") < lines.index(f"result {n + 20}"), done.stdout
    assert len(lines) == 40
    assert done.stderr == ""


def test_seed() -> None:
    """With a seed the random numbers depend on the number of the item alone, as on that of a call."""
    dummymp.configure(seed=42)

    def draw(_: int) -> float:
        import random

        return random.random()

    one = list(dummymp.map(draw, range(300)))
    assert len(set(one)) == 300
    dummymp.configure(max_processes=1)
    assert list(dummymp.map(draw, range(300), ahead=5)) == one
    tasks = [dummymp.run(draw, n) for n in range(3)]
    assert [task.result() for task in tasks] == one[:3]


def test_without_a_seed_no_item_has_the_numbers_of_another() -> None:
    """Also if one item sets a seed of its own, the next draws other numbers."""

    def draw(n: int) -> float:
        import random

        if n % 2 == 0:
            random.seed(1)
            return -1.0
        return random.random()

    drawn = list(dummymp.map(draw, range(1000)))[1::2]
    assert len(set(drawn)) == 500


def test_surroundings_are_put_back(tmp_path: Path) -> None:
    """An item that changes directory or environment changes them for no other."""
    here = os.getcwd()

    def wander(n: int) -> tuple[str, str | None]:
        found = os.getcwd(), os.environ.get("WANDERED")
        if n % 50 == 0:
            os.chdir(tmp_path)
            os.environ["WANDERED"] = "yes"
        return found

    assert set(dummymp.map(wander, range(1000))) == {(here, None)}


def test_one_ahead_gives_each_answer_before_it_reads_on() -> None:
    """The loop reads the items itself: with ``ahead=1`` no answer waits for the next item."""
    told: list[str] = []

    def slow_source() -> Iterator[int]:
        for n in range(4):
            told.append(f"item {n}")
            yield n

    for answer in dummymp.map(abs, slow_source(), ahead=1):
        told.append(f"answer {answer}")
    assert told == [f"{what} {n}" for n in range(4) for what in ("item", "answer")]


# --- progress ------------------------------------------------------------------------------------------------------


def test_progress(script: Script) -> None:
    """A bar counts the items, up to their number if it is known."""
    pytest.importorskip("tqdm")
    done = script("""
        import dummymp
        assert sum(dummymp.map(abs, range(500), progress=True)) == 124750
        assert sum(dummymp.map(abs, iter(range(500)), progress=True)) == 124750
    """)
    assert "500/500" in done.stderr
    assert "500item" in done.stderr


def test_progress_without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tqdm, progress=True says at the call what to install."""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(dummymp.MissingExtra, match=r"pip install 'dummymp\[progress\]'"):
        dummymp.map(abs, [1], progress=True)


# --- the worker's side, without a process ---------------------------------------------------------------------


class Recorder:
    """Stands where a chunk has its worker and its connection."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes]] = []

    def send(self, kind: int, *parts: Any) -> None:
        self.sent.append((kind, b"".join(map(bytes, parts))))

    def put_back(self, number: int, *, randomness: bool) -> None:
        pass

    def pack_value(self, value: Any, func: Any) -> tuple[int, bytes]:
        return VALUE, pickle.dumps(value)

    def pack_failure(self, error: BaseException) -> tuple[int, bytes]:
        return FAILED, pickle.dumps(error)

    def context(self) -> contextvars.Context:
        return contextvars.copy_context()

    def end_item(self) -> int:
        return 0


def run_chunk(func: Any, count: int) -> tuple[Recorder, Chunks, Page, tuple[Any, ...], list[Any]]:
    """Run a chunk of the items 0, 1, ..., which have the numbers from 10 on; give the last part, too."""
    recorder, page = Recorder(), Page(-1)
    chunks = Chunks(recorder, page, recorder)  # type: ignore[arg-type]
    arguments = pickle.dumps((ONE, list(range(count))))
    part = chunks.run(10, lambda: functools.partial(func, chunks, page), fresh=False, seeded=False, arguments=arguments)
    return recorder, chunks, page, *read_part(part)


def read_part(part: bytes) -> tuple[tuple[Any, ...], list[Any]]:
    head = PART_HEAD.unpack_from(part)
    return head, read_entries(part[PART_HEAD.size :], head[2])


def test_cut_in_the_middle() -> None:
    """What a chunk has not begun is given back at once, while an item runs, and what finished is told."""

    def work(chunks: Chunks, page: Page, item: int) -> int:
        if item == 3:
            assert chunks.running() == 13
            chunks.cut()
            assert chunks.running() == 13
        return item * 10

    recorder, chunks, _, head, last = run_chunk(work, 9)
    (part, told), (cut, end) = recorder.sent
    assert (part, cut) == (PART, CUT)
    assert read_part(told)[1] == [0, 10, 20]
    assert CUT_HEAD.unpack(end) == (10, 14)
    assert head[:3] == (10, 10, 4) and last == [0, 10, 20, 30]
    assert chunks.running() is None


def test_the_log_is_ahead_of_a_death() -> None:
    """While an item runs, the log holds what came of all before it, whatever it was."""
    seen: list[Any] = []

    def work(chunks: Chunks, page: Page, item: int) -> Any:
        seen.append(read_entries(page.log()))
        if item == 1:
            raise ValueError
        return item if item != 2 else [item]

    _, _, page, head, last = run_chunk(work, 4)
    assert [len(entries) for entries in seen] == [0, 1, 2, 3]
    assert [entry if type(entry) is int else entry[0] for entry in last] == [0, FAILED, VALUE, 3]
    assert head[3]
    assert len(read_entries(page.log())) == 4
    page.begin(1)
    assert page.log() is None


def test_no_room_in_the_log() -> None:
    """A result too large for the log is told directly, and the rest of the chunk is given back."""

    def work(chunks: Chunks, page: Page, item: int) -> str:
        return "x" * (70_000 if item == 2 else 1)

    recorder, _, _, head, last = run_chunk(work, 5)
    assert [kind for kind, _ in recorder.sent] == [PART, PART, CUT]
    assert read_part(recorder.sent[0][1])[1] == ["x", "x"]
    assert read_part(recorder.sent[1][1])[1] == ["x" * 70_000]
    assert CUT_HEAD.unpack(recorder.sent[2][1]) == (10, 13)
    assert last == [] and head[1] == 13


# --- the name ------------------------------------------------------------------------------------------------------


def test_a_star_import_keeps_the_builtin(script: Script) -> None:
    """`map` is in the shop window, but a star import does not shadow the builtin."""
    assert "map" in dir(dummymp)
    assert "map" not in dummymp.__all__
    done = script("from dummymp import *; print(type(map(abs, [])).__module__)")
    assert done.stdout == "builtins\n", done.stderr


def test_the_log_of_the_chunk_before_is_nobody_elses() -> None:
    chunk = types.SimpleNamespace(log=None)
    task, page = types.SimpleNamespace(_chunk=chunk), Page(-1)
    page.begin(1)
    page.memory[Page.LOG : Page.LOG + 2] = b"N" * 2
    page.numbers[0] = Page.LOG + 2
    handle: Any = WorkerHandle.__new__(WorkerHandle)
    handle.assigned, handle.page, handle.answered = collections.deque([task]), page, 0
    handle.read_log()
    assert chunk.log == b"NN"
    handle.answered = 1  # Now the worker waits, and the chunk is on its way.
    handle.read_log()
    assert chunk.log is None


def sleepless(n: int) -> int:
    if n == MANY:
        time.sleep(TIMEOUT)
    return n


@pytest.mark.skipif(os.name != "posix", reason="chunks need what POSIX has")
def test_timeout_while_there_is_more_to_read() -> None:
    results = dummymp.map(sleepless, itertools.count(), timeout=0.5, on_error="return")
    assert isinstance(next(itertools.islice(results, MANY, None)), dummymp.TaskTimeout)
    results.close()


@pytest.mark.skipif(os.name != "posix", reason="chunks need what POSIX has")
def test_a_call_back_cuts_no_line(script: Script) -> None:
    ended = script("""
        import time
        import dummymp

        dummymp.configure(priority="NUCLEAR", max_processes=2)

        def f(n):
            if n == 2000:
                print("begin", end="", flush=True)
                time.sleep(0.1)
                print(" end", flush=True)
            return n

        print(sum(dummymp.map(f, range(4000))))
    """)
    assert ended.stdout == f"begin end\n{sum(range(4000))}\n", ended


@pytest.mark.skipif(os.name != "posix", reason="chunks need what POSIX has")
def test_what_is_done_is_given_before_more_is_read_from_a_slow_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many items the last chunks had: reading is interrupted when it takes long."""
    monkeypatch.setattr(mapinput, "READING_SECONDS", 0.0)
    call = types.SimpleNamespace(pass_as="one", function=freeze_function(abs), timeout=None, retries=0, name="abs")
    call.surroundings, call.alone, call.here, call.func = None, False, False, abs
    read = mapinput.MapInput(call, iter(range(10)))  # type: ignore[arg-type]
    assert len(read.take(5)) == 1 and read.count == 1 and not read.exhausted
    monkeypatch.undo()
    assert len(read.take(100)) == 1 and read.count == 10 and read.exhausted


def test_large_items_behind_small_ones_are_not_read_by_the_thousand() -> None:
    call = types.SimpleNamespace(pass_as="one", function=freeze_function(len), timeout=None, retries=0, name="len")
    call.surroundings, call.alone, call.here, call.func = None, False, False, len
    read = mapinput.MapInput(call, itertools.repeat("x" * 10_000))  # type: ignore[arg-type]
    read.take(2000)
    assert read.count <= 2 + mapinput.CHUNK_BYTES // 10_000 and not read.exhausted


def test_the_engine_is_that_of_the_call() -> None:
    """What was configured when map was called holds, whenever its results are read."""
    later = dummymp.map(pid_of, [1])
    dummymp.configure(engine="inline")
    here = dummymp.map(pid_of, [1])
    assert list(later) != [os.getpid()]
    dummymp.configure(engine="processes")
    assert list(here) == [os.getpid()]


def test_results_weigh_what_they_took_on_their_way() -> None:
    """What is in an object counts, too, or a map that stretches would take all memory."""
    sizes: list[int] = []

    class Note(lazymap._LazyMap):
        def _add_run(self, first: int, entries: list[Any], *, plain: bool, size: int = 0) -> None:
            sizes.append(size)
            super()._add_run(first, entries, plain=plain, size=size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lazymap, "_LazyMap", Note)
        assert len(list(dummymp.map(in_an_object, [10, 3_000_000]))) == 2
    small, large = sorted(sizes)  # Either may end first.
    assert small < 10_000 and large >= 3_000_000


def in_an_object(size: int) -> Any:
    return types.SimpleNamespace(data=bytearray(size))


def pid_of(item: int) -> int:
    return os.getpid()


def test_no_two_tasks_in_a_worker_have_the_same_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also not when the first item of a chunk fails and runs again; otherwise one may be taken for the other."""
    twice = []
    post = WorkerHandle.post_task

    def note(self: WorkerHandle, task: Any, settings: Any) -> None:
        twice.extend(other for other in self.assigned if other.index == task.index)
        post(self, task, settings)

    def flaky(n: int) -> int:
        mark = tmp_path / str(n)
        if n > 100 and n % 3 == 0 and not mark.exists():
            mark.touch()
            raise OSError("once")
        time.sleep(0.0001)
        return n

    monkeypatch.setattr(WorkerHandle, "post_task", note)
    dummymp.configure(max_processes=1, retries=1)
    assert list(dummymp.map(flaky, range(1000))) == list(range(1000))
    assert twice == []


def test_a_map_that_nobody_reads(caplog: pytest.LogCaptureFixture) -> None:
    """A map works while its results are read; one that is thrown away unread says so. One that was begun does not."""
    dummymp.map(abs, [1, 2])
    assert [record.getMessage() for record in caplog.records] == [
        "nobody asked dummymp.map(abs, ...) for a result, so it did nothing: it works while its results are read. "
        "Write: for answer in dummymp.map(...), or answers = list(dummymp.map(abs, ...))"
    ]
    caplog.clear()
    assert next(dummymp.map(abs, [-1, 2])) == 1
    assert list(dummymp.map(abs, [])) == []
    with pytest.raises(ValueError, match="pass_as"):
        dummymp.map(abs, [1], pass_as="arg")
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]


def test_ctrl_c_once_more_while_a_map_is_closed() -> None:
    """All is closed then, the input too, and it is told as one."""
    closed = []

    def numbers() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.append(True)

    def press(*args: Any, **options: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        close(*args, **options)

    results = dummymp.map(abs, numbers())
    next(results)
    assert results.gi_frame is not None
    engine = results.gi_frame.f_locals["self"]._engine
    close, engine.close = engine.close, press
    with pytest.raises(KeyboardInterrupt) as raised:
        results.throw(KeyboardInterrupt())
    assert closed and engine.closed and raised.value.__context__ is None

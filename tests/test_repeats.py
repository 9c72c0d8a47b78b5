# SPDX-License-Identifier: MIT
"""Calls of one function, queued again and again: whatever changes in between is seen."""

from __future__ import annotations

import gc
import os
import sys
import threading
import types
import weakref
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import TIMEOUT

import dummymp
from dummymp.freeze import Frozen, freeze_function
from dummymp.surroundings import capture
from dummymp.task import Task


@pytest.fixture(autouse=True)
def _two_workers() -> None:
    dummymp.configure(priority="NUCLEAR", max_processes=2)


def queue_often(func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Queue a call three times: the first is found out about, the others are like it."""
    for _ in range(3):
        dummymp.run(func, *args, **kwargs)


def in_main(source: str) -> Any:
    """Give a module that is not importable, as the user's script is not, with this source."""
    module = types.ModuleType("__main__")
    exec(source, module.__dict__)
    return module


def where() -> str:
    return os.getcwd()


def variable() -> str | None:
    return os.environ.get("DUMMYMP_TEST_REPEATS")


def describe(*args: Any, **kwargs: Any) -> str:
    return f"{args} {sorted(kwargs.items())}"


def giver(value: Any) -> Callable[[], Any]:
    """Make a function that gives a value, or the length of a text."""
    return lambda: len(value) if isinstance(value, str) else value


# --- what changes between two calls ------------------------------------------------------------------------------


def test_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whatever way it was changed."""
    places = []
    for name in ("one", "two", "one"):
        place = tmp_path / name
        place.mkdir(exist_ok=True)
        monkeypatch.chdir(place)
        queue_often(where)
        places += [str(place)] * 3
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        os.fchdir(fd)
    finally:
        os.close(fd)
    queue_often(where)
    assert dummymp.results() == [*places, *[str(tmp_path)] * 3]


def test_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one more place to be, and coming back from it is seen."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    queue_often(max, 1, 2)
    monkeypatch.chdir(tmp_path)
    queue_often(where)
    assert dummymp.results() == [2] * 3 + [str(tmp_path)] * 3


@pytest.mark.parametrize("way", ["environ", "environb", "another object"])
def test_environment(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call has the variables of its moment."""
    name = "DUMMYMP_TEST_REPEATS"
    monkeypatch.setenv(name, "before")
    queue_often(variable)
    if way == "environ":
        os.environ[name] = "after"
    elif way == "environb":
        if not hasattr(os, "environb"):
            pytest.skip("Windows has none")
        os.environb[name.encode()] = b"after"
    else:
        monkeypatch.setattr(os, "environ", {**os.environ, name: "after"})
    queue_often(variable)
    assert dummymp.results() == ["before"] * 3 + ["after"] * 3


def test_bytes_environment_in_a_task() -> None:
    """In a task, too, os.environ and os.environb are two views of one thing, and are put back after it."""
    script = in_main(
        "import os\ndef task():\n  os.environb[b'DUMMYMP_TEST_REPEATS'] = b'x'\n"
        "  return os.environ.get('DUMMYMP_TEST_REPEATS')"
    )
    if not hasattr(os, "environb"):
        pytest.skip("Windows has none")
    dummymp.configure(max_processes=1)
    dummymp.run(script.task)
    queue_often(variable)
    assert dummymp.results() == ["x", None, None, None]


CHANGES = {
    "global variable": ("x = 1\ndef task(n): return x + n", "x = 2"),
    "the code": ("def task(n): return 1 + n\ndef other(n): return 2 + n", "task.__code__ = other.__code__"),
    "default of a keyword": ("def task(n, *, m=1): return m + n", "task.__kwdefaults__ = {'m': 2}"),
    "helper": ("def helper(n): return 1 + n\ndef task(n): return helper(n)", "def helper(n): return 2 + n"),
    "the function itself": ("def task(n): return 1 + n", "def task(n): return 2 + n"),
    "list": ("x = [1]\ndef task(n): return x[-1] + n", "x.append(2)"),
    "attribute": ("def task(n): return getattr(task, 'm', 1) + n", "task.m = 2"),
}


@pytest.mark.parametrize(("source", "change"), CHANGES.values(), ids=CHANGES)
def test_what_the_function_captures(source: str, change: str) -> None:
    """As for calls of different functions."""
    script = in_main(source)
    queue_often(script.task, 10)
    exec(change, script.__dict__)
    queue_often(script.task, 10)
    assert dummymp.results() == [11] * 3 + [12] * 3


def test_settings_that_tasks_remember() -> None:
    """Each call has those of its moment: as they were set, and as they were put back."""
    plain = dummymp.run(pow, 2, 3)
    with dummymp.configure(timeout=50, retries=2):
        inside = [dummymp.run(pow, 2, 3) for _ in range(2)]
    after = dummymp.run(pow, 2, 3)
    dummymp.configure(timeout=60)
    last = dummymp.run(pow, 2, 3)
    tasks = [plain, *inside, after, last]
    assert [task._timeout for task in tasks] == [None, 50, 50, None, 60]
    assert [task._retries for task in tasks] == [0, 2, 2, 0, 0]
    assert dummymp.results() == [8] * 5


def test_seed_and_threads_per_task() -> None:
    """They are part of what surrounds a call."""
    script = in_main(
        "import os, random\ndef draw(): return random.random()\ndef threads(): return os.environ['OMP_NUM_THREADS']"
    )
    for seed in (1, 2, 1):
        dummymp.configure(seed=seed)
        queue_often(script.draw)
    drawn = dummymp.results()
    assert len(set(drawn)) == 9  # By seed and call number.
    dummymp.configure(seed=None)
    for threads in (1, 3):
        dummymp.configure(threads_per_task=threads)
        queue_often(script.threads)
    assert dummymp.results()[9:] == ["1"] * 3 + ["3"] * 3


def test_copy_args_false() -> None:
    """From then on a call is frozen when it starts, however often it was queued before."""
    values = [1]
    queue_often(len, "abc")
    queue_often(len, values)
    dummymp.configure(copy_args=False)
    queue_often(len, values)
    values.append(2)
    assert dummymp.results() == [3] * 3 + [1] * 3 + [2] * 3


def test_another_engine(capfd: pytest.CaptureFixture[str]) -> None:
    """The next call runs where the settings say now."""
    queue_often(os.getpid)
    elsewhere = dummymp.results()
    assert os.getpid() not in elsewhere
    dummymp.configure(engine="inline")
    queue_often(os.getpid)
    assert dummymp.results()[3:] == [os.getpid()] * 3
    dummymp.configure(engine="processes")
    queue_often(os.getpid)
    assert os.getpid() not in dummymp.results()[6:]


def test_reset() -> None:
    """Numbers and settings begin anew."""
    dummymp.configure(timeout=50)
    queue_often(pow, 2, 3)
    assert dummymp.results() == [8] * 3
    dummymp.reset()
    dummymp.configure(priority="NUCLEAR", max_processes=2)
    tasks = [dummymp.run(pow, 2, number) for number in range(3)]
    assert [(task.index, task._timeout) for task in tasks] == [(0, None), (1, None), (2, None)]
    assert dummymp.results() == [1, 2, 4]


# --- what is different in the call itself ------------------------------------------------------------------------


def test_other_arguments() -> None:
    """How many they are, what they are called and what kind they are may change from call to call."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((1,), {}), ((2,), {}), ((1, 2), {}), ((), {}), ((1,), {"a": 1}), ((1,), {"a": 2}), ((1,), {"b": 2}),
        ((1,), {"a": 1, "b": 2}), ((1,), {"b": 2, "a": 1}), (([1, 2],), {}), ((("x", (1, 2.5)),), {}), ((None,), {}),
        ((b"x" * 2_000_000,), {}), (({"k": {1}},), {"a": [1]}), ((1,), {}),
    ]  # fmt: skip
    for args, kwargs in calls * 2:
        dummymp.run(describe, *args, **kwargs)
    assert dummymp.results() == [describe(*args, **kwargs) for args, kwargs in calls * 2]


def test_what_is_known_holds_for_any_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many they are and whatever they need to travel, the function is not looked at once more."""
    dummymp.run(describe, 1)
    monkeypatch.setattr(dummymp.TaskQueue, "_record", None)
    large = bytearray(b"x" * 2_000_000)
    dummymp.run(describe, [1], {"k": {2}})
    dummymp.run(describe, 1, 2, key=large)
    assert dummymp.results() == [describe(1), describe([1], {"k": {2}}), describe(1, 2, key=large)]


@pytest.mark.parametrize("call", [lambda f: f(), lambda f: f(1, 2), lambda f: f(m=1), lambda f: f(1, k=2)])
def test_call_that_does_not_fit(call: Callable[[Any], object]) -> None:
    """It is refused, as if it were the first."""
    script = in_main("def task(n): return n")
    queue_often(script.task, 1)
    with pytest.raises(TypeError):
        call(lambda *args, **kwargs: dummymp.run(script.task, *args, **kwargs))
    queue_often(script.task, 2)
    assert dummymp.results() == [1] * 3 + [2] * 3


def test_argument_that_cannot_be_sent() -> None:
    """It is named, with the call number."""
    queue_often(describe, 1)
    with pytest.raises(dummymp.NotPicklable, match=r"task 3, .*lock"):
        dummymp.run(describe, threading.Lock())
    nested: tuple[Any, ...] = ()
    for _ in range(100_000):
        nested = (nested,)
    with pytest.raises(dummymp.NotPicklable, match=r"task 3, .*nested"):
        dummymp.run(describe, nested)
    assert len(dummymp.results()) == 3


def test_functions_by_turns() -> None:
    """Each is known by itself."""
    script = in_main("def one(n): return ('one', n)\ndef two(n): return ('two', n)")
    for number in range(5):
        dummymp.run(script.one, number)
        dummymp.run(script.two, number)
    assert dummymp.results() == [(name, number) for number in range(5) for name in ("one", "two")]


def test_methods_of_objects_that_change() -> None:
    """A method is made anew each time that it is looked up; the next may have the address of the last."""
    script = in_main("class Counter:\n  n = 0\n  def read(self): return self.n")
    counter = script.Counter()
    for number in range(20):
        counter.n = number
        dummymp.run(counter.read)
    assert dummymp.results() == list(range(20))


def test_functions_made_in_a_loop() -> None:
    """Those that are gone are neither taken for others nor kept alive."""
    gone = []
    for number in range(300):
        func = giver(number)
        dummymp.run(func)
        gone.append(weakref.ref(func))
    del func
    gc.collect()
    assert [reference() for reference in gone] == [None] * 300
    assert dummymp.results() == list(range(300))


def test_what_functions_carry_is_freed_with_them() -> None:
    """Not when another hundred functions were queued."""

    class Text(str):
        __slots__ = ("__weakref__",)

    references = []
    for number in range(3):
        text = Text("x" * number)
        references.append(weakref.ref(text))
        func = giver(text)
        dummymp.run(func)
        dummymp.run(func)
    del func, text
    gc.collect()
    assert [reference() for reference in references] == [None] * 3
    assert dummymp.results() == [0, 0, 1, 1, 2, 2]


# --- threads -----------------------------------------------------------------------------------------------------


def test_threads_that_queue_and_configure() -> None:
    """No call gets a setting that it cannot have had, and none is lost."""
    tasks: list[dummymp.Task[int]] = []
    over = threading.Event()

    def change() -> None:
        while not over.is_set():
            for seconds in (50, 60):
                dummymp.configure(timeout=seconds, retries=seconds)

    dummymp.configure(timeout=50, retries=50)
    interval = sys.getswitchinterval()
    thread = threading.Thread(target=change)
    sys.setswitchinterval(1e-5)
    try:
        thread.start()
        for number in range(2000):
            tasks.append(dummymp.run(abs, number))
        over.set()
        thread.join(TIMEOUT)
        dummymp.configure(timeout=70, retries=0)
        tasks += [dummymp.run(abs, 0), dummymp.run(abs, 0)]
    finally:
        over.set()
        sys.setswitchinterval(interval)
    assert {task._timeout for task in tasks[:-2]} <= {50, 60} and [task._timeout for task in tasks[-2:]] == [70, 70]
    assert [task.index for task in tasks] == list(range(2002))
    assert dummymp.results() == [*range(2000), 0, 0]


class SlowOnce:
    """An argument that takes its time the first time that it is frozen, until it is let go."""

    def __init__(self) -> None:
        self.begun, self.goes_on = threading.Event(), threading.Event()

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.begun.is_set():
            self.begun.set()
            assert self.goes_on.wait(TIMEOUT)
        return bytearray, (2_000_000,)


def test_call_that_two_threads_freeze() -> None:
    """With copy_args=False who drives freezes it; who comes late with that leaves nothing behind in an ended task."""
    dummymp.configure(copy_args=False)
    argument = SlowOnce()
    task = dummymp.run(len, argument)  # type: ignore[arg-type]
    thread = threading.Thread(target=dummymp.process_until_done)
    thread.start()
    assert argument.begun.wait(TIMEOUT)
    assert task.result(TIMEOUT) == 2_000_000
    argument.goes_on.set()
    thread.join(TIMEOUT)
    assert task._function is None and task._surroundings is None and not task._arguments and not task._pieces


def test_call_whose_function_is_seen_is_whole() -> None:
    """Other threads look at the function to see whether a call was frozen."""
    seen = []

    class Watched(Task[Any]):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if getattr(self, "_function", None) is not None:
                seen.append((self._arguments, self._pieces, self._surroundings))

    blob, surroundings, pieces = freeze_function(abs), capture(None, None), [object()]
    Watched(None, 0, "abs", None, 0)._take(Frozen(blob, b"arguments", pieces), surroundings)  # type: ignore[arg-type]
    assert seen == [(b"arguments", pieces, surroundings)]

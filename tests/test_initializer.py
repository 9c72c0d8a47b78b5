# SPDX-License-Identifier: MIT
"""configure(initializer=...): what is called in each worker before its first task."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Script

import dummymp

answer = None


def note(path: str) -> None:
    """Leave a line in a file, and set a global variable."""
    global answer
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    answer = 42


def work(n: int) -> tuple[int, int, Any]:
    return n, os.getpid(), answer


async def later() -> None:
    pass


def fail() -> None:
    raise KeyError("not set up")


@pytest.fixture(autouse=True)
def _two_workers(start_method: str) -> None:
    dummymp.configure(priority="NUCLEAR", max_processes=2)


def test_it_is_called_once_in_each_worker(tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    dummymp.configure(initializer=functools.partial(note, str(noted)))
    for n in range(20):
        dummymp.run(work, n)
    found = dummymp.results() + list(dummymp.map(work, range(20)))
    assert [n for n, _, _ in found] == [*range(20), *range(20)]
    assert {value for _, _, value in found} == {42}
    pids = noted.read_text().split()
    assert len(set(pids)) == len(pids)
    assert {str(pid) for _, pid, _ in found} <= set(pids)


def test_it_holds_for_calls_that_are_queued_afterwards(tmp_path: Path) -> None:
    before = dummymp.run(os.getpid)
    before.result()
    with dummymp.configure(initializer=functools.partial(note, str(tmp_path / "noted"))):
        within = dummymp.run(work, 1)
    after = dummymp.run(os.getpid)
    dummymp.process_until_done()
    assert (tmp_path / "noted").read_text().split() == [str(within.result()[1])]
    assert after.result() > 0


def test_tasks_fail_as_it_fails() -> None:
    """Each task that needs it has its exception, and those that do not need it run."""
    with dummymp.configure(initializer=fail):
        tasks = [dummymp.run(work, n) for n in range(5)]
        with pytest.raises(KeyError, match="not set up"):
            list(dummymp.map(work, range(5)))
    good = dummymp.run(work, 5)
    dummymp.process_until_done()
    assert [type(task.exception()) for task in tasks] == [KeyError] * 5
    assert good.result()[0] == 5


@pytest.mark.parametrize("how", [functools.partial(os._exit, 0), functools.partial(os._exit, 3), os.abort])
def test_workers_that_die_in_it_are_not_started_without_end(how: Callable[[], object]) -> None:
    with dummymp.configure(initializer=how):
        tasks = [dummymp.run(work, n) for n in range(4)]
        dummymp.process_until_done()
    assert [type(task.exception()) for task in tasks] == [dummymp.WorkerDied] * 4


def test_it_may_take_too_long() -> None:
    with dummymp.configure(initializer=hang, timeout=0.2):
        assert isinstance(dummymp.run(work, 1).exception(), dummymp.TaskTimeout)
    assert dummymp.run(work, 2).result()[0] == 2


def hang() -> None:
    threading.Event().wait()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (3, "initializer must be a function that takes no arguments, or None; got 3"),
        (work, "initializer must be a function that takes no arguments, but work(n) needs 'n', too. To pass something "
         "to it: initializer=functools.partial(function, something)"),
        (later, "initializer must be a plain function: to call later() does nothing yet"),
    ],
)  # fmt: skip
def test_what_cannot_be_called_is_refused(wrong: Any, says: str) -> None:
    with pytest.raises(TypeError) as caught:
        dummymp.configure(initializer=wrong)
    assert says in str(caught.value)


def test_what_cannot_travel_is_refused() -> None:
    lock = threading.Lock()
    with dummymp.configure(initializer=lambda: lock.locked()), pytest.raises(dummymp.NotPicklable, match="'lock'"):
        dummymp.run(work, 1)


@pytest.mark.parametrize("engine", ["processes", "inline"])
def test_in_a_script(script: Script, engine: str) -> None:
    """As with multiprocessing.Pool, what it sets in global variables is there in tasks; and its prints appear."""
    done = script(
        f"""
        import dummymp, warnings
        dummymp.configure(engine={engine!r}, priority="nuclear", max_processes=1)
        model, cache, found = None, {{}}, []
        class State: pass
        state = State()
        def setup():
            global model, rate
            model, rate = [1, 2, 3], 10
            cache["half"] = 5; found.append(7); state.third = 9
            print("ready")
        def predict(n): return model[n] * rate if cache["half"] == 5 and found == [7] and state.third == 9 else None
        dummymp.configure(initializer=setup)
        for n in range(3): dummymp.run(predict, n)
        print(dummymp.results(), list(dummymp.map(predict, range(3))))
        """
    )
    assert (done.stdout, done.stderr) == ("ready\n[10, 20, 30] [10, 20, 30]\n", "")


def test_another_initializer_finds_nothing_of_the_one_before(script: Script) -> None:
    """Workers in which one was called run nothing that needs another one, or none."""
    done = script(
        """
        import dummymp
        dummymp.configure(priority="nuclear", max_processes=1)
        rate = 1
        def three():
            global rate; rate = 3
        def five():
            global rate; rate = 5
        def use(): return rate
        for setup in (three, None, five, three):
            with dummymp.configure(initializer=setup):
                print(dummymp.run(use).result(), *dummymp.map(lambda n: use(), range(2)))
        """
    )
    assert (done.stdout, done.stderr) == ("3 3 3\n1 1 1\n5 5 5\n3 3 3\n", "")


def test_async_tasks_and_seeds(script: Script, start_method: str) -> None:
    """Async tasks see its context, too; and what it draws changes nothing of what tasks draw."""
    done = script(
        """
        import contextvars, decimal, dummymp, os, random
        level = contextvars.ContextVar("level", default=0)
        def setup():
            level.set(9); decimal.getcontext().prec = 50; random.random(); os.chdir("/"); os.environ["X"] = "1"
        async def later(n): return level.get(), decimal.getcontext().prec, random.random()
        def now(n):
            here_still = os.getcwd() == here, "X" in os.environ
            return level.get(), decimal.getcontext().prec, random.random(), *here_still
        here = os.getcwd()
        found = set()
        for workers in (1, 2):
            dummymp.reset()
            dummymp.configure(initializer=setup, seed=42, priority="nuclear", max_processes=workers)
            calls = [dummymp.run(func, n) for func in (later, now) for n in range(3)]
            found.add(repr([*dummymp.results(), *dummymp.map(now, range(3)), *dummymp.map(later, range(3))]))
        print(len(found), {each[:2] for each in eval(found.pop())}, dummymp.results()[-1][3:])
        """
    )
    assert (done.stdout, done.stderr) == ("1 {(9, 50)} (True, False)\n", "")


def test_functions_and_initializers_do_not_push_each_other_out() -> None:
    for n in range(70):
        dummymp.run(eval(f"lambda: {n}"))
    dummymp.process_until_done()
    dummymp.forget()
    first = eval("lambda: 'first'")
    with dummymp.configure(initializer=int):
        for n in range(3):
            tasks = [dummymp.run(first), *(dummymp.run(eval(f"lambda: {n}")) for n in range(70)), dummymp.run(first)]
            assert dummymp.results()[-1] == "first" == tasks[0].result()


def test_numpy_settings(script: Script) -> None:
    """NumPy keeps what errors do in a context variable."""
    pytest.importorskip("numpy")
    done = script(
        """
        import dummymp, functools, numpy as np
        dummymp.configure(initializer=functools.partial(np.seterr, all="raise"), on_error="continue")
        def zero(n): return float(np.float64(1) / np.float64(0))
        a, b = dummymp.run(zero, 1), dummymp.run(zero, 2)
        print(type(a.exception()).__name__, type(b.exception()).__name__)
        print([type(e).__name__ for e in dummymp.map(zero, range(2), on_error="return")])
        """
    )
    assert done.stdout == "FloatingPointError FloatingPointError\n['FloatingPointError', 'FloatingPointError']\n"

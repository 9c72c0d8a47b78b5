"""A forgotten ``return`` is told; a function that rightly returns nothing is left alone."""

from __future__ import annotations

import math
import operator
import subprocess
import time
from typing import Any, Callable

import pytest

import dummymp

# ruff: noqa: F841


def alone(n: int) -> Any:
    time.sleep(0)
    n * n


def assigned(n: int) -> Any:
    """Work something out."""
    y = n * n


def summed(n: int) -> Any:
    total = 0
    for i in range(n):
        total += i


def collected(n: int) -> Any:
    found = []
    for i in range(n):
        found.append(i)


def called(n: int) -> Any:
    math.sqrt(n)


def prints(n: int) -> None:
    x = n * n
    print(x)


def counts(n: int) -> None:
    done = 0
    for i in range(n):
        print(i)
        done += 1


def loops(n: int) -> None:
    i = 0
    while i < n:
        i += 1


def writes(n: int) -> None:
    with open("/dev/null", "w") as file:
        length = file.write("x")


def starts(n: int) -> None:
    done = subprocess.run(["true"])


def changes(n: int, cache: list[int] = []) -> None:  # noqa: B006
    cache.append(n)


def sometimes(n: int) -> Any:
    if n > 100:
        return n
    x = n + 1


LOST = [(alone, "n * n"), (assigned, "y"), (summed, "total"), (collected, "found"), (called, "math.sqrt(n)")]


@pytest.mark.parametrize(("func", "lost"), LOST)
def test_a_forgotten_return(func: Callable[[int], Any], lost: str, caplog: pytest.LogCaptureFixture) -> None:
    """Who asks for the results is told, once for each function, what to write."""
    queue = dummymp.TaskQueue(engine="inline")
    for n in range(3):
        queue.run(func, n)
    queue.process_until_done()
    assert not caplog.messages
    queue.get_returns()
    assert queue.results() == [None, None, None]
    assert caplog.messages == [
        f"{func.__name__}() gave None, all 3 times. It works out a result, but does not hand it over: "
        f"its last line should be: return {lost}"
    ]


@pytest.mark.parametrize("func", [prints, counts, loops, writes, starts, changes, sometimes, lambda n: None])
def test_functions_that_return_nothing(func: Callable[[int], Any], caplog: pytest.LogCaptureFixture) -> None:
    """Those that print, write, start or change something, or return something sometimes, are left alone."""
    queue = dummymp.TaskQueue(engine="inline")
    for n in range(2):
        queue.run(func, n)
    queue.results()
    queue.get_returns()
    assert not caplog.messages


def test_one_call_or_other_results(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is said of a single call, nor where something else gave a result, nor of C functions."""
    for funcs in [[alone], [alone, alone, abs], [alone, assigned]]:
        queue = dummymp.TaskQueue(engine="inline")
        for func in funcs:
            queue.run(func, 1)
        queue.results()
    queue = dummymp.TaskQueue(engine="inline")
    for _ in range(2):
        queue.run(operator.delitem, [1], 0)
    queue.results()
    assert not caplog.messages

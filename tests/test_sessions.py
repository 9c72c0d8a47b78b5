# SPDX-License-Identifier: MIT
"""Sessions: notebooks and prompts, where one queue serves many cells, and work is begun, stopped and begun again."""

from __future__ import annotations

import operator
import signal
import time

import pytest
from conftest import Script

import dummymp

# Runs each text of CELLS as a cell of a notebook runs: compiled by itself, what it raises ends that cell alone.
RUN_CELLS = """
import __main__
for __number, __cell in enumerate(CELLS):
    try:
        exec(compile(__cell, f"cell{__number}", "exec"), __main__.__dict__)
    except KeyboardInterrupt:
        print("interrupted")
"""
SETUP = """
import dummymp, os, signal
dummymp.configure(priority="NUCLEAR", max_processes=1)
def press(*_):
    os.kill(os.getpid(), signal.SIGINT)
def f(x): return x + {add}
"""
WORK = """
for x in range(3): dummymp.run(f, x)
dummymp.process_until_done()
"""


def test_forget_drops_what_has_ended(start_method: str) -> None:
    dummymp.configure(priority="NUCLEAR", timeout=50)
    first = dummymp.run(operator.add, 1, 1)
    bad = dummymp.run(operator.truediv, 1, 0)
    dummymp.process_until_done()
    dummymp.forget()
    assert (dummymp.get_returns(), dummymp.get_errors(), dummymp.results()) == ({}, {}, [])
    last = dummymp.run(operator.add, 2, 2)
    assert (last.index, dummymp.get_stats()["queued"]) == (2, 1)
    assert "timeout=50" in repr(dummymp.configure())
    assert dummymp.results() == [4]
    assert dummymp.get_returns() == {2: 4}
    assert dummymp.get_stats()["done"] == 1
    assert first.result() == 2
    assert isinstance(bad.exception(), ZeroDivisionError)


def test_forget_keeps_what_has_not_ended() -> None:
    dummymp.configure(priority="NUCLEAR", max_processes=1)
    counts = []
    done = dummymp.run(operator.neg, 1)
    slow = dummymp.run(time.sleep, 0.05)
    done.result()
    waiting = dummymp.run(operator.neg, 2)
    dummymp.forget()
    dummymp.configure(on_end=lambda *numbers: counts.append(numbers))
    with pytest.raises(ValueError, match="there is no task 3; 3 were queued"):
        dummymp.kill(3)
    assert not dummymp.kill(0)
    assert dummymp.process_until_done()
    assert dummymp.get_returns() == {slow.index: None, waiting.index: -2}
    assert [(ended, total) for ended, _, total in counts] == [(1, 2), (2, 2)]


def test_forget_while_nothing_was_driven() -> None:
    task = dummymp.run(operator.neg, 1)
    dummymp.forget()
    assert task.result() == -1
    dummymp.forget()
    assert dummymp.results() == []


def test_forget_with_failures_that_were_not_raised_yet() -> None:
    dummymp.configure(on_error="raise", priority="NUCLEAR")
    task = dummymp.run(operator.truediv, 1, 0)
    assert task.exception() is not None
    dummymp.forget()
    dummymp.run(operator.neg, 1)
    assert dummymp.process_until_done()


def test_results_after_killall_speak_of_what_came_since() -> None:
    """The same cell, after its work was stopped, and with one call fewer."""
    dummymp.configure(priority="NUCLEAR")
    dummymp.run(operator.neg, 1)
    dummymp.killall()
    assert dummymp.results() == []
    dummymp.run(operator.neg, 2)
    assert dummymp.results() == [-2]
    assert dummymp.get_returns() == {1: -2}
    assert list(dummymp.get_errors()) == [0]


def test_results_after_killall_of_what_runs() -> None:
    dummymp.configure(priority="NUCLEAR", max_processes=1)
    slow = dummymp.run(time.sleep, 1000)
    dummymp.run(operator.neg, 2)
    while slow.state != "running":
        dummymp.step(0.1)
    dummymp.killall(queued=False)
    assert dummymp.results() == [-2]


def cells(*texts: str) -> str:
    return f"CELLS = {list(texts)!r}\n{RUN_CELLS}"


WARNING = (
    "2 calls queued before Ctrl-C have not ended, and run before the new ones. To forget all that was queued: reset()"
)


def test_old_calls_are_told_of_after_an_interrupt_and_an_edit(script: Script, start_method: str) -> None:
    """They ran first, with the function as it was, and nobody said so."""
    done = script(
        cells(
            SETUP.format(add=0),
            "dummymp.configure(on_end=press)" + WORK,
            "dummymp.configure(on_end=None)\ndef f(x): return x + 10" + WORK + WORK,
            "print(dummymp.get_returns())",
        )
    )
    assert done.stdout.splitlines() == [
        "interrupted",
        str(dict(enumerate([0, 1, 2, 10, 11, 12, 10, 11, 12]))),
    ], done.stderr
    assert done.stderr.splitlines() == [WARNING]


@pytest.mark.parametrize(
    "then",
    [
        "dummymp.process_until_done()\ndummymp.run(f, 5)",
        "dummymp.reset()\ndummymp.run(f, 5)",
        "dummymp.killall()\ndummymp.run(f, 5)",
        "print(dummymp.get_stats()['queued'])",
    ],
)
def test_nothing_is_told_where_no_old_calls_are_mixed_with_new_ones(script: Script, then: str) -> None:
    done = script(
        cells(
            SETUP.format(add=0), "dummymp.configure(on_end=press)" + WORK, "dummymp.configure(on_end=None)\n" + then,
            "dummymp.killall()",
        )
    )  # fmt: skip
    assert "before Ctrl-C" not in done.stderr


def test_a_script_that_goes_on_after_ctrl_c_is_told_nothing(script: Script) -> None:
    done = script(
        SETUP.format(add=0)
        + """
def work():
    for x in range(3): dummymp.run(f, x)
    dummymp.process_until_done()
try:
    dummymp.configure(on_end=press)
    work()
except KeyboardInterrupt:
    dummymp.configure(on_end=None)
work()
print(dummymp.results())
"""
    )
    assert (done.stdout, done.stderr) == ("[0, 1, 2, 0, 1, 2]\n", "")


def test_a_queue_for_a_block() -> None:
    """The end of the block waits; an error in it stops the work, and is what is raised."""
    with dummymp.TaskQueue(priority="NUCLEAR") as queue:
        tasks = [queue.run(operator.neg, n) for n in range(3)]
    assert queue.get_returns() == {0: 0, 1: -1, 2: -2}
    assert [task.state for task in tasks] == ["done"] * 3
    began = time.monotonic()
    with pytest.raises(KeyError), queue:
        slow = queue.run(time.sleep, 1000)
        waiting = queue.run(operator.neg, 1)
        while slow.state != "running":
            queue.step(0.1)
        raise KeyError
    assert time.monotonic() - began < 500
    assert isinstance(slow.exception(), dummymp.TaskKilled)
    assert isinstance(waiting.exception(), (dummymp.TaskKilled, type(None)))


def test_ctrl_c_in_the_block_of_a_queue(script: Script) -> None:
    done = script(
        """
        import dummymp, os, signal, time
        with dummymp.TaskQueue(on_start=lambda *_: os.kill(os.getpid(), signal.SIGINT)) as queue:
            queue.run(time.sleep, 1000)
        """
    )
    assert done.returncode == -signal.SIGINT
    assert done.stderr.splitlines()[-1] == "KeyboardInterrupt"

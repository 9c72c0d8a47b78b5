# SPDX-License-Identifier: MIT
"""engine="inline": tasks run in this process, one after another, and see what they would see in a worker."""

from __future__ import annotations

import logging
import operator
import os
import random
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import dummymp

OFFSET = 100
ORDER: list[int] = []


@pytest.fixture(autouse=True)
def _inline() -> None:
    dummymp.configure(engine="inline")
    ORDER.clear()


def add_offset(number: int) -> int:
    """Use a global variable."""
    return number + OFFSET


def note(number: int) -> None:
    """Leave a trace of the order."""
    ORDER.append(number)


def fail_once(folder: str) -> str:
    """Raise the first time, counting in files."""
    if not os.listdir(folder):
        Path(folder, "once").touch()
        raise OSError("the first attempt")
    return "the second attempt"


def interrupt_once(folder: str) -> str:
    """Do what Ctrl-C does, the first time."""
    if not os.listdir(folder):
        Path(folder, "once").touch()
        raise KeyboardInterrupt
    return "patient"


def queue_inside(count: int) -> dict[int, int]:
    """Use dummymp inside a task."""
    assert dummymp.get_returns() == {}
    for number in range(count):
        dummymp.run(abs, -number)
    dummymp.process_until_done()
    return dummymp.get_returns()


def test_tasks_run_here() -> None:
    """A task runs in this process and this thread; there are no workers."""
    task, thread = dummymp.run(os.getpid), dummymp.run(threading.get_ident)
    assert dummymp.results() == [os.getpid(), threading.get_ident()]
    assert (task.pid, dummymp.worker_pids()) == (os.getpid(), [])
    assert thread.state == "done"


def test_no_process_is_started(script: Any) -> None:
    """A whole script with this engine gets by without the machinery for processes."""
    done = script("""
        import sys
        import dummymp
        dummymp.configure(engine="inline")
        dummymp.run(pow, 2, 3)
        print(dummymp.results(), "dummymp.manager" in sys.modules, "multiprocessing" in sys.modules)
    """)
    assert (done.stdout, done.stderr) == ("[8] False False\n", "")


def test_tasks_run_in_call_order() -> None:
    """One after another, in the order of the `run` calls."""
    for number in range(10):
        dummymp.run(note, number)
    dummymp.process_until_done()
    assert ORDER == list(range(10))


def test_a_step_runs_one_task() -> None:
    """`step` runs one task, and is True with the last."""
    for number in range(3):
        dummymp.run(note, number)
    assert [dummymp.step(), list(ORDER)] == [False, [0]]
    assert [dummymp.step(), list(ORDER)] == [False, [0, 1]]
    assert [dummymp.step(), list(ORDER)] == [True, [0, 1, 2]]


def test_process_queue_runs_nothing() -> None:
    """`process_queue` takes in what others sent, and there are none."""
    dummymp.run(note, 1)
    dummymp.process_queue()
    assert ORDER == []
    dummymp.killall()


def test_arguments_are_frozen() -> None:
    """A list that changes after `run` changes nothing in the task, and the task changes nothing in the list."""
    items = [2, 1]
    dummymp.run(sorted, items)
    dummymp.run(list.append, items, 4)
    items.append(3)
    assert dummymp.results() == [[1, 2], None]
    assert items == [2, 1, 3]


def test_by_value_functions_are_frozen() -> None:
    """The variables that a nested function uses have, in the task, the values of the `run` call."""
    value = 1

    def get() -> int:
        return value

    dummymp.run(get)
    value = 2
    dummymp.run(get)
    assert dummymp.results() == [1, 2]


def test_what_cannot_travel_is_refused() -> None:
    """What could not be sent to a worker is refused here, too, on the line of `run`."""
    with pytest.raises(dummymp.NotPicklable, match="argument 'iterable' is a generator"):
        dummymp.run(list, (number for number in range(3)))
    assert dummymp.results() == []


def test_objects_keep_their_class() -> None:
    """An object of a class made here comes back as an object of that very class."""

    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    copy = dummymp.run(Point, 3).result()
    assert type(copy) is Point
    assert copy.x == 3


def test_the_working_directory_of_the_run_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task runs where `run` was called, with the environment of then; afterwards all is as it was."""
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    monkeypatch.setenv("DUMMYMP_TEST_WORD", "then")
    where, word = dummymp.run(os.getcwd), dummymp.run(os.getenv, "DUMMYMP_TEST_WORD")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUMMYMP_TEST_WORD", "now")
    dummymp.process_until_done()
    assert where.result() == str(tmp_path / "there")
    assert word.result() == "then"
    assert (os.getcwd(), os.environ["DUMMYMP_TEST_WORD"]) == (str(tmp_path), "now")


def test_what_a_task_does_to_the_surroundings_is_undone(tmp_path: Path) -> None:
    """A task that goes elsewhere, or sets a variable, leaves neither the next task nor us there."""
    before = os.getcwd()
    dummymp.run(os.chdir, str(tmp_path))
    dummymp.run(os.putenv, "DUMMYMP_TEST_WORD", "left")
    assert dummymp.run(os.getcwd).result() == before
    assert os.getcwd() == before


def test_seed_gives_the_same_numbers_as_workers() -> None:
    """With a seed each task draws what it would draw in a worker, another number in each task."""
    drawn = {}
    for engine in ("inline", "processes"):
        dummymp.reset()
        dummymp.configure(engine=engine, seed=42, priority="NUCLEAR", max_processes=2)
        for _ in range(4):
            dummymp.run(random.random)
        drawn[engine] = dummymp.results()
    assert drawn["inline"] == drawn["processes"]
    assert len(set(drawn["inline"])) == 4


def test_seed_leaves_our_own_random_numbers_alone() -> None:
    """What a seeded task draws does not disturb the sequence of the program."""
    random.seed(7)
    expected = [random.random() for _ in range(3)]
    random.seed(7)
    mine = [random.random()]
    dummymp.configure(seed=42)
    dummymp.run(random.random).result()
    mine += [random.random(), random.random()]
    assert mine == expected


def test_seed_of_numpy() -> None:
    """`numpy.random` is seeded as in a worker, too, and put back afterwards."""
    numpy = pytest.importorskip("numpy")
    numpy.random.seed(7)
    expected = numpy.random.random(2).tolist()
    numpy.random.seed(7)
    mine = [numpy.random.random()]
    dummymp.configure(seed=42)
    first = [dummymp.run(numpy.random.random).result() for _ in range(2)]
    mine.append(numpy.random.random())
    dummymp.reset()
    dummymp.configure(engine="inline", seed=42)
    assert [dummymp.run(numpy.random.random).result() for _ in range(2)] == first
    assert (mine, len(set(first))) == (expected, 2)


def test_errors_go_where_they_belong(caplog: pytest.LogCaptureFixture) -> None:
    """A failure is an entry of `get_errors` and one ERROR with the traceback; the others go on."""
    dummymp.run(abs, -1)
    dummymp.run(add_offset, "1")  # type: ignore[arg-type]
    dummymp.run(abs, -2)
    dummymp.process_until_done()
    assert (dummymp.get_returns(), list(dummymp.get_errors())) == ({0: 1, 2: 2}, [1])
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "task 1, add_offset('1'), failed: TypeError: " in errors[0].getMessage()
    assert "in add_offset" in errors[0].getMessage()
    assert "1 of 3 tasks failed" in caplog.records[-1].getMessage()


def test_sys_exit_is_a_failure() -> None:
    """A task that calls `sys.exit` has failed; the program goes on."""
    dummymp.run(sys.exit, 3)
    assert dummymp.run(abs, -1).result() == 1
    error = dummymp.get_errors()[0]
    assert isinstance(error, SystemExit)
    assert error.code == 3


def test_ctrl_c_in_a_task_comes_out(tmp_path: Path) -> None:
    """KeyboardInterrupt leaves `process_until_done`; the task waits again, and can be gone on with."""
    task = dummymp.run(interrupt_once, str(tmp_path))
    dummymp.run(abs, -1)
    with pytest.raises(KeyboardInterrupt):
        dummymp.process_until_done()
    assert (task.state, dummymp.step()) == ("queued", False)
    assert dummymp.results() == ["patient", 1]


def test_retries(tmp_path: Path) -> None:
    """A failed task is tried again, and only its last attempt counts."""
    dummymp.configure(retries=2)
    task = dummymp.run(fail_once, str(tmp_path))
    assert (task.result(), task.attempts, dummymp.get_errors()) == ("the second attempt", 2, {})


def test_retries_run_out() -> None:
    """With one retry a task that always fails is tried twice, and ends with its own exception."""
    dummymp.configure(retries=1)
    task = dummymp.run(operator.truediv, 1, 0)
    assert isinstance(task.exception(), ZeroDivisionError)
    assert task.attempts == 2


def test_prints_appear(capsys: pytest.CaptureFixture[str]) -> None:
    """What a task prints is printed."""
    dummymp.run(print, "hello")
    dummymp.process_until_done()
    assert capsys.readouterr().out == "hello\n"


def test_dummymp_inside_a_task() -> None:
    """A task finds an empty queue of its own, and leaves the outer one as it was."""
    dummymp.run(abs, -7)
    dummymp.run(queue_inside, 3)
    dummymp.run(abs, -8)
    assert dummymp.results() == [7, {0: 0, 1: 1, 2: 2}, 8]
    assert dummymp.get_returns() == {0: 7, 1: {0: 0, 1: 1, 2: 2}, 2: 8}


def test_several_queues() -> None:
    """Queues with this engine do not mix."""
    one, two = dummymp.TaskQueue(engine="inline"), dummymp.TaskQueue(engine="inline")
    one.run(abs, -1)
    two.run(abs, -2)
    assert (one.results(), two.results(), dummymp.results()) == ([1], [2], [])


def test_on_error_stop() -> None:
    """With on_error="stop" nothing runs after the first failure."""
    dummymp.configure(on_error="stop")
    dummymp.run(note, 0)
    dummymp.run(operator.truediv, 1, 0)
    dummymp.run(note, 2)
    with pytest.raises(ZeroDivisionError):
        dummymp.process_until_done()
    assert ORDER == [0]
    assert [type(error) for error in dummymp.get_errors().values()] == [ZeroDivisionError, dummymp.TaskKilled]


def test_a_task_has_its_time() -> None:
    """The seconds of a task are measured."""
    task = dummymp.run(sorted, list(range(1000)))
    task.result()
    assert task.seconds is not None
    assert task.seconds > 0


@pytest.mark.parametrize("number", [1, 2])
def test_globals_are_those_of_the_module(number: int) -> None:
    """A function of a module travels by name, so that it uses the module's variables."""
    assert dummymp.run(add_offset, number).result() == number + OFFSET


def _fail_inside(n: int) -> None:
    secret = n * 10
    raise ValueError(secret)


def _fail(n: int) -> None:
    _fail_inside(n)


@pytest.mark.parametrize("how", ["result", "results", "stop", "map"])
def test_the_traceback_leads_to_the_line_that_failed(how: str) -> None:
    """Its innermost frames are the user's, also the second time, so that a debugger finds the variables there."""
    queue = dummymp.TaskQueue(engine="inline", on_error="stop" if how == "stop" else "continue")
    task = queue.run(_fail, 4)
    ask = {
        "result": task.result,
        "results": queue.results,
        "stop": queue.process_until_done,
        "map": lambda: list(queue.map(_fail, [4])),
    }[how]
    for _ in range(1 if how == "stop" else 2):
        with pytest.raises(ValueError, match="40") as caught:
            ask()
        trace = caught.value.__traceback__
        frames = []
        while trace is not None:
            frames.append(trace.tb_frame)
            trace = trace.tb_next
        assert [frame.f_code.co_name for frame in frames if "test_inline" in frame.f_code.co_filename][-2:] == [
            "_fail",
            "_fail_inside",
        ]
        assert frames[-1].f_locals["secret"] == 40
        assert [frame.f_code.co_name for frame in frames].count("_fail") == 1

# SPDX-License-Identifier: MIT
"""The face: which names there are, and what the functions of everyday use promise."""

from __future__ import annotations

import builtins
import operator
import os
import pydoc
import re
import signal
import subprocess
import sys
import time
import typing
import warnings
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import TIMEOUT, Script

import dummymp

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

FUNCTIONS = {
    "available_cpus",
    "configure", "forget",
    "get_errors",
    "get_returns",
    "get_stats",
    "kill",
    "killall",
    "process_process",
    "process_queue",
    "process_until_done",
    "reset",
    "results", "rng",
    "run",
    "step",
    "total_cpus",
    "worker_pids",
}
TASK = {
    "attempts",
    "done",
    "ended_at",
    "exception",
    "index",
    "kill",
    "name",
    "pid",
    "queued_at",
    "result",
    "seconds",
    "started_at",
    "state",
}
CLASSES = {"Preset", "Priority", "Task", "TaskQueue"}
ERRORS = {
    "DummyMPError",
    "MissingExtra",
    "NotPicklable",
    "TaskFailed",
    "TaskKilled",
    "TaskTimeout",
    "TasksFailed",
    "WorkerDied",
    "WorkersCannotStart",
}
OLD_VALUES = {
    "DUMMYMP_GENEROUS": 15,
    "DUMMYMP_NORMAL": 0,
    "DUMMYMP_AGGRESSIVE": -5,
    "DUMMYMP_EXTREME": -10,
    "DUMMYMP_NUCLEAR": -20,
}
OLD_FUNCTIONS = {
    "getCPUAvail",
    "getSpawnProcPIDs",
    "getTotalCPUs",
    "get_max_processes",
    "get_priority_mode",
    "get_version",
    "needUpdateCPUAvail",
    "set_args_deepcopy",
    "set_end_callback",
    "set_kwargs_deepcopy",
    "set_max_processes",
    "set_priority_mode",
    "set_start_callback",
}
TODAY = FUNCTIONS | CLASSES | ERRORS
OLD = OLD_FUNCTIONS | set(OLD_VALUES)


# --- tasks -------------------------------------------------------------------------------------------------------


def come_and_wait_for(folder: str, me: str, other: str) -> str:
    """Leave a file named `me`, and return when there is one named `other`."""
    Path(folder, me).touch()
    until = time.monotonic() + TIMEOUT
    while not Path(folder, other).exists():
        if time.monotonic() > until:
            raise TimeoutError(f"{other} never came")
        time.sleep(0.002)
    return me


def fail_after(folder: str, me: str, other: str) -> None:
    """Raise ValueError(me) when there is a file named `other`."""
    come_and_wait_for(folder, me, other)
    raise ValueError(me)


# --- fixtures ----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _two_workers() -> None:
    """Two tasks may run at once, however many CPUs there are and however busy they are."""
    dummymp.configure(priority="NUCLEAR", max_processes=2)


@pytest.fixture(params=["processes", "inline"])
def engine(request: pytest.FixtureRequest) -> str:
    """Run the test with each engine: what it states holds wherever tasks run."""
    dummymp.configure(engine=request.param)
    return str(request.param)


def drive_until_running(*tasks: dummymp.Task[Any]) -> None:
    """Go on until all of these have begun."""
    until = time.monotonic() + TIMEOUT
    while not all(task.state == "running" for task in tasks):
        assert time.monotonic() < until, tasks
        dummymp.step(0.01)


def drive_until_there(path: Path) -> None:
    """Go on until a task has made this file."""
    until = time.monotonic() + TIMEOUT
    while not path.exists():
        assert time.monotonic() < until, path
        dummymp.step(0.01)


# --- names -------------------------------------------------------------------------------------------------------


def test_all_is_complete_and_exact() -> None:
    """`__all__` names the face of today and of 0.5, each once, and nothing else."""
    assert sorted(dummymp.__all__) == sorted(TODAY | OLD)


def test_all_names_exist() -> None:
    """Everything that `__all__` names can be had."""
    assert [name for name in dummymp.__all__ if not hasattr(dummymp, name)] == []


def test_star_import_shadows_no_builtin() -> None:
    """After ``from dummymp import *``, `map` and its like are still Python's own."""
    assert [name for name in dummymp.__all__ if hasattr(builtins, name)] == []


def test_dir_shows_todays_names_only() -> None:
    """What TAB offers are today's names: none of 0.5, no submodule, no private name."""
    shown = {name for name in dir(dummymp) if not name.startswith("__")}
    assert shown - {"map"} == TODAY


def test_star_import_in_a_script(script: Script) -> None:
    """A script that imports everything can do everything, with the names of 0.5, too."""
    done = script("""
        from dummymp import *
        set_max_processes(2)
        set_priority_mode(DUMMYMP_NUCLEAR)
        run(pow, 2, 5)
        run(max, [1, 2])
        process_until_done()
        print(get_returns(), get_errors(), get_max_processes(), isinstance(TaskKilled(), DummyMPError))
    """)
    assert (done.stdout, done.stderr) == ("{0: 32, 1: 2} {} 2 True\n", "")


@pytest.mark.parametrize("name", sorted(FUNCTIONS | CLASSES | ERRORS | OLD_FUNCTIONS))
def test_every_name_has_a_docstring(name: str) -> None:
    """help() on any name begins with a sentence."""
    text = getattr(dummymp, name).__doc__
    assert text
    assert text.strip().splitlines()[0].endswith((".", "::", ":", ","))


def test_task_in_annotations() -> None:
    """What a task returns may be written in an annotation, also where annotations are evaluated."""
    assert typing.get_args(dummymp.Task[int]) == (int,)
    assert typing.get_origin(dummymp.Task[int]) is dummymp.Task


def test_help_shows_todays_names_only() -> None:
    """help(dummymp) explains the functions of today and does not mention those of 0.5."""
    text = pydoc.plain(pydoc.render_doc(dummymp))
    contents = text.partition("\nFILE")[0]
    assert [name for name in FUNCTIONS if name + "(" not in contents] == []
    assert [name for name in OLD if f"\n    {name}" in contents] == []


def test_help_begins_with_what_users_call() -> None:
    """``python -m pydoc dummymp`` tells each function in a line of its own on the first page or two."""
    shown = subprocess.run(
        [sys.executable, "-m", "pydoc", "dummymp"], capture_output=True, text=True, timeout=TIMEOUT, check=True
    )
    lines = [line.split(maxsplit=1) for line in shown.stdout.splitlines()[:60]]
    told = [words[0] for words in lines if len(words) == 2]
    assert [name for name in sorted(FUNCTIONS | {"map"}) if told.count(name) != 1] == []


def test_help_of_a_task_shows_what_users_use() -> None:
    """help(dummymp.Task) lists what users may ask of a task, each with a sentence, and nothing else."""
    text = pydoc.plain(pydoc.render_doc(dummymp.Task))
    entries = re.findall(r"^ \|  (\w+)(?:\(.*)?\n(?: \|      .*\n)*? \|      +(\S.*)\n", text, re.MULTILINE)
    told = {name: sentence for name, sentence in entries if not name.startswith("__") and name != "Task"}
    assert set(told) == TASK
    assert [name for name, sentence in told.items() if len(sentence.split()) < 3] == []
    assert {name for name in dir(dummymp.Task) if not name.startswith("_")} == TASK
    assert "__annotations__" not in text and "__orig_bases__" not in text


def test_help_of_a_queue_shows_what_users_use() -> None:
    """A queue has the functions of the module as methods, and nothing else that is public."""
    methods = {name for name in dir(dummymp.TaskQueue) if not name.startswith("_")}
    assert methods == FUNCTIONS - {"rng"} | {"map"}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_function_says_its_parameters(name: str) -> None:
    """help() of a function shows its signature, without `self`."""
    text = pydoc.plain(pydoc.render_doc(getattr(dummymp, name)))
    assert f"{name}(" in text
    assert f"{name}(self" not in text


@pytest.mark.parametrize(("name", "value"), sorted(OLD_VALUES.items()))
def test_constants_of_0_5(name: str, value: int) -> None:
    """The five constants have the numbers that they had in 0.5, and are the priorities of today."""
    constant = getattr(dummymp, name)
    assert constant == value
    assert constant is dummymp.Priority[name[len("DUMMYMP_") :]]


def test_setters_and_getters_of_0_5() -> None:
    """The setters of 0.5 set what the getters give back, and warn of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dummymp.set_max_processes(3)
        dummymp.set_priority_mode(dummymp.DUMMYMP_EXTREME)
        dummymp.set_args_deepcopy(True)
        dummymp.set_kwargs_deepcopy(True)
        dummymp.set_start_callback(None)
        dummymp.set_end_callback(None)
        assert dummymp.get_max_processes() == 3
        assert dummymp.get_priority_mode() == -10


def test_no_cap_is_zero_in_0_5() -> None:
    """In 0.5, 0 meant no cap; it can be set, and is what one gets."""
    dummymp.set_max_processes(0)
    assert dummymp.get_max_processes() == 0


@pytest.mark.parametrize("mode", [15, 0, -5, -10, -20])
def test_priority_mode_goes_by_number(mode: int) -> None:
    """Every number of 0.5 is accepted, and comes back."""
    dummymp.set_priority_mode(mode)
    assert dummymp.get_priority_mode() == mode
    assert isinstance(dummymp.get_priority_mode(), dummymp.Priority)


def test_priority_mode_may_be_a_preset() -> None:
    """A preset of one's own comes back as it is."""
    mine = dummymp.Preset("mine", nice=3)
    dummymp.set_priority_mode(mine)
    assert dummymp.get_priority_mode() == mine


def test_callbacks_of_0_5() -> None:
    """The callbacks that the setters of 0.5 set are called."""
    calls: list[tuple[str, int, int, int]] = []
    dummymp.set_start_callback(lambda *counts: calls.append(("start", *counts)))
    dummymp.set_end_callback(lambda *counts: calls.append(("end", *counts)))
    dummymp.run(abs, -1)
    dummymp.process_until_done()
    assert calls == [("start", 0, 1, 1), ("end", 1, 0, 1)]


@pytest.mark.parametrize("switch", [dummymp.set_args_deepcopy, dummymp.set_kwargs_deepcopy])
def test_deepcopy_switches_of_0_5(switch: Any, engine: str) -> None:
    """With either switch off, a change before the task starts reaches it; with both on (the default), none does."""
    items = [1]
    dummymp.run(list, items)
    switch(False)
    dummymp.run(list, items)
    items.append(2)
    assert dummymp.results() == [[1], [1, 2]]


def test_questions_of_0_5() -> None:
    """The questions of 0.5 are answered as those of today."""
    dummymp.run(abs, 1).result()
    assert dummymp.getTotalCPUs() == dummymp.total_cpus()
    assert dummymp.getCPUAvail() == dummymp.available_cpus()
    assert dummymp.getSpawnProcPIDs() == dummymp.worker_pids()
    assert dummymp.needUpdateCPUAvail() in (True, False)
    assert dummymp.get_version() == dummymp.__version__


# --- run ---------------------------------------------------------------------------------------------------------


def test_run_only_queues(engine: str) -> None:
    """`run` returns a Task at once; nothing runs before somebody drives."""
    task = dummymp.run(divmod, 7, 2)
    assert isinstance(task, dummymp.Task)
    assert (task.index, task.name, task.state, task.pid) == (0, "divmod", "queued", None)
    assert (dummymp.get_returns(), dummymp.get_errors(), dummymp.worker_pids()) == ({}, {}, [])


def test_all_keywords_belong_to_the_users_function(engine: str) -> None:
    """Keywords that this library knows itself reach the function all the same, even `self` and `func`."""
    keywords = {"self": 1, "func": 2, "timeout": 3, "args": 4, "kwargs": 5, "priority": 6, "task": 7}
    assert dummymp.run(dict, **keywords).result() == keywords


def test_numbers_go_on_counting(engine: str) -> None:
    """Call numbers go on from one `process_until_done` to the next, and start again after `reset`."""
    dummymp.run(abs, -1)
    dummymp.process_until_done()
    assert dummymp.run(abs, -2).index == 1
    dummymp.process_until_done()
    assert dummymp.get_returns() == {0: 1, 1: 2}
    dummymp.reset()
    assert dummymp.run(abs, -3).index == 0


def test_tasks_run_at_the_same_time(start_method: str, tmp_path: Path) -> None:
    """Two tasks that wait for each other both end, each in a process of its own that is not ours."""
    one = dummymp.run(come_and_wait_for, str(tmp_path), "one", "two")
    two = dummymp.run(come_and_wait_for, str(tmp_path), "two", "one")
    assert dummymp.process_until_done(timeout=TIMEOUT) is True
    assert dummymp.get_returns() == {0: "one", 1: "two"}
    assert len({one.pid, two.pid, os.getpid()}) == 3


# --- step, process_process, process_queue -----------------------------------------------------------------------


def test_nothing_queued_is_done(engine: str) -> None:
    """With nothing queued every way of driving is done at once."""
    assert dummymp.step() is True
    assert dummymp.step(timeout=0.01) is True
    assert dummymp.process_process() is True
    assert dummymp.process_until_done() is True
    assert dummymp.process_until_done(timeout=0) is True
    assert dummymp.results() == []
    dummymp.process_queue()
    dummymp.killall()


def test_step_is_true_only_when_nothing_is_queued_or_running(tmp_path: Path) -> None:
    """`step` says False while a task runs, and while one waits though none runs."""
    dummymp.configure(max_processes=1)
    running = dummymp.run(come_and_wait_for, str(tmp_path), "one", "go")
    waiting = dummymp.run(abs, -1)
    assert dummymp.step() is False
    assert (running.state, waiting.state) == ("running", "queued")
    dummymp.kill(running)
    assert waiting.state == "queued"
    assert dummymp.step() is False
    until = time.monotonic() + TIMEOUT
    while not dummymp.step(0.1):
        assert time.monotonic() < until
    assert dummymp.get_returns() == {1: 1}


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_step_returns_although_a_task_runs(timeout: float, tmp_path: Path) -> None:
    """`step` comes back although a task runs on that ends only after it."""
    task = dummymp.run(come_and_wait_for, str(tmp_path), "one", "go")
    for _ in range(3):
        assert dummymp.step(timeout) is False
    (tmp_path / "go").touch()
    assert task.result() == "one"


def test_step_drives_to_the_end(engine: str) -> None:
    """Calling `process_process` again and again does all the work."""
    for number in range(5):
        dummymp.run(abs, -number)
    until = time.monotonic() + TIMEOUT
    while not dummymp.process_process():
        assert time.monotonic() < until
    assert dummymp.get_returns() == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_step_needs_a_possible_timeout(timeout: float) -> None:
    """A negative number of seconds, or one that is none, is refused."""
    with pytest.raises(ValueError, match="timeout must be 0 or more seconds"):
        dummymp.step(timeout)


@pytest.mark.parametrize("call", [dummymp.step, dummymp.process_until_done])
def test_driving_needs_a_number_of_seconds(call: Any) -> None:
    """A timeout that is no number is refused, with the rule."""
    with pytest.raises(TypeError, match="timeout must be"):
        call("5")


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_process_until_done_needs_a_possible_timeout(timeout: float) -> None:
    """A negative number of seconds, or one that is none, is refused."""
    with pytest.raises(ValueError, match="timeout must be 0 or more seconds"):
        dummymp.process_until_done(timeout=timeout)


def test_process_queue_starts_nothing() -> None:
    """`process_queue` leaves alone what waits."""
    task = dummymp.run(abs, -1)
    dummymp.process_queue()
    assert (task.state, dummymp.worker_pids()) == ("queued", [])


def test_process_queue_takes_in_results() -> None:
    """`process_queue` takes in what a running task sent, and does not start the next one."""
    dummymp.configure(max_processes=1)
    first, second = dummymp.run(abs, -1), dummymp.run(abs, -2)
    dummymp.step()
    until = time.monotonic() + TIMEOUT
    while first.state != "done":
        assert time.monotonic() < until
        dummymp.process_queue()
    dummymp.process_queue()
    assert (dummymp.get_returns(), second.state) == ({0: 1}, "queued")


# --- process_until_done ------------------------------------------------------------------------------------------


def test_process_until_done_may_be_called_again(engine: str) -> None:
    """Calls that are queued afterwards run with the next `process_until_done`."""
    dummymp.run(abs, -1)
    assert dummymp.process_until_done() is True
    dummymp.run(abs, -2)
    assert dummymp.process_until_done() is True
    assert dummymp.get_returns() == {0: 1, 1: 2}


def test_timeout_of_process_until_done(tmp_path: Path) -> None:
    """It returns False when the time is over; tasks run on and can be gone on with."""
    task = dummymp.run(come_and_wait_for, str(tmp_path), "one", "go")
    dummymp.run(abs, -1).result()
    assert dummymp.process_until_done(timeout=0.01) is False
    assert (task.state, dummymp.get_returns()) == ("running", {1: 1})
    (tmp_path / "go").touch()
    assert dummymp.process_until_done(timeout=TIMEOUT) is True
    assert dummymp.get_returns() == {0: "one", 1: 1}


def test_timeout_of_zero_still_works(engine: str) -> None:
    """Asking again and again without waiting gets the work done, too."""
    for number in range(3):
        dummymp.run(abs, -number)
    until = time.monotonic() + TIMEOUT
    while not dummymp.process_until_done(timeout=0):
        assert time.monotonic() < until
    assert dummymp.get_returns() == {0: 0, 1: 1, 2: 2}


# --- results -----------------------------------------------------------------------------------------------------


def test_returns_are_in_call_order(tmp_path: Path) -> None:
    """`get_returns` is sorted by call number although the last call ended first; errors are sorted, too."""
    dummymp.configure(max_processes=4)
    dummymp.run(come_and_wait_for, str(tmp_path), "zero", "three")
    dummymp.run(fail_after, str(tmp_path), "one", "two")
    two = dummymp.run(fail_after, str(tmp_path), "two", "three")
    three = dummymp.run(come_and_wait_for, str(tmp_path), "three", "three")
    three.result()
    two.exception()
    dummymp.process_until_done()
    assert list(dummymp.get_returns().items()) == [(0, "zero"), (3, "three")]
    assert [(number, str(error)) for number, error in dummymp.get_errors().items()] == [(1, "one"), (2, "two")]


def test_results_so_far_can_be_had_any_time(tmp_path: Path) -> None:
    """While one task runs, the results of those that ended are there already."""
    dummymp.run(come_and_wait_for, str(tmp_path), "one", "go")
    dummymp.run(abs, -1).result()
    assert dummymp.get_returns() == {1: 1}
    (tmp_path / "go").touch()
    assert dummymp.results() == ["one", 1]


def test_returns_and_errors_are_copies(engine: str) -> None:
    """Whatever is done to the dicts, the next ones are whole."""
    dummymp.run(abs, -1)
    dummymp.run(operator.truediv, 1, 0)
    dummymp.process_until_done()
    dummymp.get_returns().clear()
    dummymp.get_errors().clear()
    assert list(dummymp.get_returns()) == [0]
    assert list(dummymp.get_errors()) == [1]


def test_none_is_a_result(engine: str) -> None:
    """A call that returns None is in `get_returns` like any other."""
    task = dummymp.run(dict.get, {}, "nothing")
    assert dummymp.results() == [None]
    assert (dummymp.get_returns(), dummymp.get_errors()) == ({0: None}, {})
    assert (task.result(), task.exception(), task.state) == (None, None, "done")


def test_every_task_ends_in_exactly_one_place(engine: str) -> None:
    """Results and errors together hold every number, and no number twice."""
    for number in range(20):
        dummymp.run(divmod, 1, number % 3)
    dummymp.process_until_done()
    returns, errors = dummymp.get_returns(), dummymp.get_errors()
    assert sorted([*returns, *errors]) == list(range(20))
    assert list(errors) == [number for number in range(20) if number % 3 == 0]
    assert {type(error) for error in errors.values()} == {ZeroDivisionError}


def test_results_drives_and_gives_a_list(engine: str) -> None:
    """`results` runs what is queued, and gives what was returned, in call order."""
    for number in (3, 1, 2):
        dummymp.run(abs, -number)
    assert dummymp.results() == [3, 1, 2]
    dummymp.run(abs, -4)
    assert dummymp.results() == [3, 1, 2, 4]


def test_results_raises_the_first_exception_in_call_order(tmp_path: Path) -> None:
    """The exception of the first call that failed is raised, although a later call failed earlier."""
    dummymp.run(abs, -1)
    dummymp.run(fail_after, str(tmp_path), "one", "two")
    dummymp.run(fail_after, str(tmp_path), "two", "two")
    with pytest.raises(ValueError, match=r"^one$"):
        dummymp.results()
    assert list(dummymp.get_returns()) == [0]
    assert list(dummymp.get_errors()) == [1, 2]


# --- Task --------------------------------------------------------------------------------------------------------


def test_task_result_drives(engine: str) -> None:
    """`Task.result` runs what it takes to have the result."""
    first, second = dummymp.run(pow, 2, 3), dummymp.run(pow, 2, 4)
    assert (second.result(), first.result()) == (16, 8)


def test_task_result_does_not_wait_for_others(tmp_path: Path) -> None:
    """`Task.result` is there when this task has ended, although another runs on."""
    other = dummymp.run(come_and_wait_for, str(tmp_path), "one", "go")
    assert dummymp.run(abs, -1).result() == 1
    assert not other.done()
    (tmp_path / "go").touch()
    assert other.result() == "one"


def test_task_result_raises_the_tasks_exception(engine: str) -> None:
    """`Task.result` raises what the function raised; `exception` gives the same object; `get_errors` has it, too."""
    task = dummymp.run(operator.truediv, 1, 0)
    with pytest.raises(ZeroDivisionError) as caught:
        task.result()
    assert task.exception() is caught.value
    assert dummymp.get_errors() == {0: caught.value}
    assert task.state == "failed"


def test_the_cause_is_the_workers_traceback() -> None:
    """The exception of a task shows, as its cause, where in the worker it came from."""
    error = dummymp.run(fail_after, "/", "", "").exception()
    assert isinstance(error, Exception)
    assert error.__cause__ is not None
    assert "in come_and_wait_for" in str(error.__cause__) or "in fail_after" in str(error.__cause__)


@pytest.mark.parametrize("how", ["result", "exception"])
def test_task_result_with_a_timeout(how: str, tmp_path: Path) -> None:
    """After `timeout` seconds TimeoutError is raised, with the task's name; the task goes on."""
    task = dummymp.run(come_and_wait_for, str(tmp_path), "one", "go")
    with pytest.raises(TimeoutError, match=r"task 0, come_and_wait_for\(\.\.\.\), has not ended after 0\.01 s"):
        getattr(task, how)(timeout=0.01)
    assert not task.done()
    (tmp_path / "go").touch()
    assert task.result(timeout=TIMEOUT) == "one"


def test_task_tells_its_times(engine: str) -> None:
    """A task that has ended knows when it was queued, started and ended, how long it ran, and where."""
    before = time.time()
    task = dummymp.run(os.getpid)
    assert (task.started_at, task.ended_at, task.seconds, task.attempts) == (None, None, None, 0)
    dummymp.process_until_done()
    assert task.started_at is not None
    assert task.ended_at is not None
    assert task.seconds is not None
    assert before - 1 <= task.queued_at <= task.started_at <= task.ended_at <= time.time() + 1
    assert 0 <= task.seconds < TIMEOUT
    assert task.attempts == 1
    assert task.pid == task.result()


def test_task_states(tmp_path: Path) -> None:
    """A task is queued, then running, with the pid of its worker, then done."""
    task = dummymp.run(come_and_wait_for, str(tmp_path), "one", "go")
    assert task.state == "queued"
    drive_until_running(task)
    assert task.pid in dummymp.worker_pids()
    (tmp_path / "go").touch()
    dummymp.process_until_done()
    assert task.state == "done"
    assert repr(task) == "<Task 0 come_and_wait_for done>"


# --- kill, killall, reset ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["function", "number", "method"])
def test_kill_a_running_task(how: str, tmp_path: Path) -> None:
    """A killed task ends as TaskKilled, its worker is gone, and the others go on."""
    task = dummymp.run(come_and_wait_for, str(tmp_path), "one", "never")
    other = dummymp.run(come_and_wait_for, str(tmp_path), "two", "go")
    drive_until_there(tmp_path / "one")
    pid = task.pid
    kill = {"function": lambda: dummymp.kill(task), "number": lambda: dummymp.kill(0), "method": task.kill}[how]
    assert kill() is True
    assert task.done()
    assert isinstance(task.exception(), dummymp.TaskKilled)
    (tmp_path / "go").touch()
    after = dummymp.run(os.getpid)
    dummymp.process_until_done()
    assert dummymp.get_returns() == {1: "two", 2: after.pid}
    assert list(dummymp.get_errors()) == [0]
    assert pid not in dummymp.worker_pids()
    assert other.pid in dummymp.worker_pids()


def test_kill_a_waiting_task(engine: str) -> None:
    """A killed task that waits never runs; it is in `get_errors`, and the others go on."""
    first, second = dummymp.run(abs, -1), dummymp.run(abs, -2)
    assert dummymp.kill(first) is True
    with pytest.raises(dummymp.TaskKilled, match=r"task 0, abs\(.*\), was .* because kill\(\) was called for it"):
        first.result()
    assert dummymp.process_until_done() is True
    assert second.result() == 2
    assert list(dummymp.get_errors()) == [0]


def test_kill_what_has_ended(engine: str) -> None:
    """Killing a task that has ended does nothing, and says so."""
    task = dummymp.run(abs, -1)
    dummymp.process_until_done()
    assert dummymp.kill(task) is False
    assert (dummymp.get_returns(), dummymp.get_errors()) == ({0: 1}, {})


def test_kill_needs_a_task_of_this_queue() -> None:
    """A number that was never given, something else, or a task of another queue is refused, with the rule."""
    dummymp.run(abs, -1)
    stranger = dummymp.TaskQueue(engine="inline").run(abs, -1)
    with pytest.raises(ValueError, match="there is no task 5; 1 were queued, numbered from 0"):
        dummymp.kill(5)
    with pytest.raises(ValueError, match="there is no task -1"):
        dummymp.kill(-1)
    with pytest.raises(TypeError, match=r"kill\(\) needs what run\(\) returned, or a call number, got 'abs'"):
        dummymp.kill("abs")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is not in this queue"):
        dummymp.kill(stranger)
    dummymp.killall()


def test_killall_drops_what_waits(tmp_path: Path) -> None:
    """`killall` stops what runs and drops what waits; results stay, and numbers go on."""
    dummymp.configure(max_processes=1)
    dummymp.run(abs, -1).result()
    running = dummymp.run(come_and_wait_for, str(tmp_path), "one", "never")
    dummymp.run(abs, -2)
    drive_until_running(running)
    dummymp.killall()
    assert dummymp.step() is True
    assert dummymp.get_returns() == {0: 1}
    assert [(number, type(error)) for number, error in dummymp.get_errors().items()] == [
        (1, dummymp.TaskKilled),
        (2, dummymp.TaskKilled),
    ]
    assert dummymp.run(abs, -3).index == 3
    dummymp.process_until_done()
    assert dummymp.get_returns() == {0: 1, 3: 3}


def test_killall_may_keep_what_waits(tmp_path: Path) -> None:
    """`killall(queued=False)` stops what runs; what waits runs when it is driven again."""
    dummymp.configure(max_processes=1)
    running = dummymp.run(come_and_wait_for, str(tmp_path), "one", "never")
    waiting = dummymp.run(abs, -2)
    drive_until_running(running)
    dummymp.killall(queued=False)
    assert (running.done(), waiting.state, dummymp.step()) == (True, "queued", False)
    assert dummymp.process_until_done() is True
    assert dummymp.get_returns() == {1: 2}
    assert list(dummymp.get_errors()) == [0]


def test_killall_before_anything_runs(engine: str) -> None:
    """`killall` drops tasks that were never driven; `killall(queued=False)` leaves them alone."""
    dummymp.run(abs, -1)
    dummymp.killall(queued=False)
    assert dummymp.results() == [1]
    dummymp.run(abs, -2)
    dummymp.killall()
    assert dummymp.process_until_done() is True
    assert list(dummymp.get_errors()) == [1]


def test_reset_goes_back_to_the_start(engine: str) -> None:
    """After `reset` there are no tasks, no results, no workers, and the settings are the defaults."""
    dummymp.set_max_processes(7)
    dummymp.run(abs, -1)
    dummymp.run(operator.truediv, 1, 0)
    dummymp.process_until_done()
    dummymp.run(abs, -2)
    dummymp.reset()
    assert (dummymp.get_returns(), dummymp.get_errors(), dummymp.worker_pids()) == ({}, {}, [])
    assert (dummymp.results(), dummymp.step()) == ([], True)
    assert dummymp.get_max_processes() == 0
    assert dummymp.get_priority_mode() is dummymp.Priority.NORMAL


def test_reset_while_a_task_runs(tmp_path: Path) -> None:
    """`reset` ends a task that runs; the queue can be used again at once."""
    drive_until_running(dummymp.run(come_and_wait_for, str(tmp_path), "one", "never"))
    dummymp.reset()
    assert dummymp.step() is True
    assert dummymp.run(abs, -1).result() == 1


def test_reset_ends_the_workers_of_other_queues_that_are_done() -> None:
    """Workers that only another queue has used are gone after `reset`, too, if nobody needs them."""
    assert dummymp.TaskQueue(priority="NUCLEAR").run(abs, -1).result() == 1
    assert len(dummymp.worker_pids()) == 1
    dummymp.reset()
    assert dummymp.worker_pids() == []


def test_a_task_that_reset_forgot(engine: str) -> None:
    """Asking a task of the past for its result raises TaskKilled instead of waiting for ever."""
    forgotten, ended = dummymp.run(abs, -1), dummymp.run(abs, -2)
    ended.result()
    also_forgotten = dummymp.run(abs, -3)
    dummymp.reset()
    assert (forgotten.done(), also_forgotten.done(), ended.result()) == (True, True, 2)
    dummymp.run(abs, -4)
    with pytest.raises(dummymp.TaskKilled, match=r"reset\(\) was called"):
        also_forgotten.result()
    assert dummymp.results() == [4]


def test_reset_forgets_without_a_word(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    """Tasks that `reset` forgets are no failures: nothing is logged, no callback is called."""
    calls: list[int] = []
    dummymp.configure(on_start=lambda *counts: calls.append(1), on_end=lambda *counts: calls.append(2))
    dummymp.run(abs, -1)
    dummymp.reset()
    assert (dummymp.process_until_done(), calls, caplog.records) == (True, [], [])


# --- questions ---------------------------------------------------------------------------------------------------


def test_workers_are_reused(start_method: str) -> None:
    """One after another, tasks run in one process; it stays for later ones."""
    dummymp.configure(max_processes=1)
    for _ in range(5):
        dummymp.run(os.getpid)
    pids = set(dummymp.results())
    assert dummymp.worker_pids() == list(pids)
    assert dummymp.run(os.getpid).result() in pids


def test_worker_pids_are_a_copy() -> None:
    """Whatever is done to the list, the next one is whole."""
    task = dummymp.run(os.getpid)
    task.result()
    dummymp.worker_pids().clear()
    assert dummymp.worker_pids() == [task.pid]


def test_worker_pids_show_those_of_other_queues() -> None:
    """Workers are shared, so the module shows those that another queue uses, too."""
    queue = dummymp.TaskQueue(priority="NUCLEAR")
    pid = queue.run(os.getpid).result()
    assert dummymp.worker_pids() == queue.worker_pids() == [pid]


@posix
def test_worker_pids_show_those_that_live(start_method: str) -> None:
    """A worker that has ended while nobody drives is in no list, and counted nowhere; the next task gets another."""
    pid = dummymp.run(os.getpid).result()
    worker = psutil.Process(pid)
    os.kill(pid, signal.SIGKILL)
    worker.wait(TIMEOUT)
    assert (dummymp.worker_pids(), dummymp.get_stats()["workers"]) == ([], 0)
    successor = dummymp.run(os.getpid).result()
    assert dummymp.worker_pids() == [successor] != [pid]


@posix
def test_asking_for_workers_tells_nothing(tmp_path: Path) -> None:
    """Who asks hears which workers live; what became of a task whose worker is gone is told when somebody drives."""
    ends: list[tuple[int, ...]] = []
    dummymp.configure(on_end=lambda *counts: ends.append(counts))
    task = dummymp.run(come_and_wait_for, str(tmp_path), "one", "never")
    drive_until_there(tmp_path / "one")
    (pid,) = dummymp.worker_pids()
    worker = psutil.Process(pid)
    os.kill(pid, signal.SIGKILL)
    worker.wait(TIMEOUT)
    assert (dummymp.worker_pids(), dummymp.get_stats()["workers"]) == ([], 0)
    assert (task.state, ends) == ("running", [])
    dummymp.process_until_done()
    assert type(task.exception()) is dummymp.WorkerDied and ends == [(1, 0, 1)]


def test_stats(tmp_path: Path) -> None:
    """`get_stats` counts tasks by their state, and says how many may run, and what the others wait for."""
    dummymp.configure(max_processes=1)
    empty = dummymp.get_stats()
    assert {name: empty[name] for name in ("queued", "running", "done", "failed", "workers", "waiting_for")} == {
        "queued": 0, "running": 0, "done": 0, "failed": 0, "workers": 0, "waiting_for": None,
    }  # fmt: skip
    dummymp.run(abs, -1)
    dummymp.run(operator.truediv, 1, 0)
    dummymp.process_until_done()
    # A function that nobody has seen run: what is known as short has others sent along.
    running = dummymp.run(lambda: come_and_wait_for(str(tmp_path), "one", "go"))
    dummymp.run(abs, -2)
    dummymp.run(abs, -3)
    drive_until_running(running)
    stats = dummymp.get_stats()
    assert {name: stats[name] for name in ("queued", "running", "done", "failed", "workers", "allowed")} == {
        "queued": 2, "running": 1, "done": 1, "failed": 1, "workers": 1, "allowed": 1,
    }  # fmt: skip
    assert stats["free_cpus"] == dummymp.total_cpus()
    if dummymp.total_cpus() > 1:
        assert stats["waiting_for"] == "max_processes=1"
    (tmp_path / "go").touch()
    dummymp.process_until_done()
    assert dummymp.get_stats()["waiting_for"] is None
    assert dummymp.get_stats()["done"] == 4


def test_cpus() -> None:
    """There is at least one CPU for us, and NUCLEAR takes all for free; others see at most as many."""
    total = dummymp.total_cpus()
    assert 1 <= total <= (os.cpu_count() or 1)
    assert dummymp.available_cpus() == total
    for priority in dummymp.Priority:
        dummymp.configure(priority=priority)
        assert 0 <= dummymp.available_cpus() <= total


def test_import_is_light(script: Script) -> None:
    """``import dummymp`` loads none of the libraries that it may need later."""
    done = script("""
        import sys
        import dummymp
        heavy = {"numpy", "tqdm", "matplotlib", "distributed", "psutil", "cloudpickle", "multiprocessing"}
        print(sorted(heavy & set(sys.modules)))
    """)
    assert (done.stdout, done.stderr) == ("[]\n", "")

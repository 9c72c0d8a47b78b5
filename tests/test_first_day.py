"""What people write on their first day, coming from other tools, and what they are told."""

from __future__ import annotations

import gc
import operator
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TIMEOUT, Script

import dummymp
from dummymp import results, run


@pytest.fixture(autouse=True)
def _all_at_once() -> None:
    dummymp.configure(priority="NUCLEAR", max_processes=2)


# --- asking for results before anything has run -------------------------------------------------------------------


def test_results_before_anything_has_run(script: Script) -> None:
    """A loop that waits for `get_returns` to fill hung without a word; now it is told, once, what is missing."""
    done = script(
        """
        import dummymp
        def slow(n):
            return n * n
        for n in range(3):
            dummymp.run(slow, n)
        for _ in range(5):  # A beginner writes: while len(dummymp.get_returns()) < 3
            assert dummymp.get_returns() == {}
        dummymp.process_until_done()
        dummymp.run(slow, 3)
        print(dummymp.get_returns())
        dummymp.process_until_done()
        """
    )
    assert done.stdout == "{0: 0, 1: 1, 2: 4}\n"
    assert done.stderr == (
        "get_returns() only looks, and none of the 3 queued tasks has run yet. "
        "To run them: dummymp.process_until_done()\n"
    )


def test_looking_once_is_no_mistake(script: Script) -> None:
    """Nothing is said of it, and what was forgotten is told once, at the end."""
    source = "import dummymp\nfor n in range(3): dummymp.run(abs, n)\nprint(dummymp.get_returns())\n"
    assert script(source + "dummymp.process_until_done()").stderr == ""
    (line,) = script(source).stderr.splitlines()
    assert line.startswith("3 tasks were queued but never run.") and "process_until_done()" in line


def test_a_result_before_it_has_run(script: Script) -> None:
    """The KeyError says nothing, so the line after it does; other errors have said enough."""
    done = script("import dummymp\ndummymp.run(abs, -1)\nprint(dummymp.get_returns()[0])")
    assert done.returncode == 1
    *_, error, line = done.stderr.splitlines()
    assert error == "KeyError: 0"
    assert line.startswith("1 task was queued but never run.") and "process_until_done()" in line
    other = script("import dummymp\ndummymp.run(abs, -1)\n1 / 0")
    assert other.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_nothing_to_run_is_nothing_to_tell(caplog: pytest.LogCaptureFixture) -> None:
    """An empty queue, or one that was emptied, is no mistake."""
    assert dummymp.get_returns() == {}
    dummymp.run(abs, -1)
    dummymp.killall()
    caplog.clear()
    assert dummymp.get_returns() == {}
    assert caplog.messages == []


# --- asking whether tasks have ended, in a loop ------------------------------------------------------------------


def wait_until_done(*tasks: dummymp.Task[Any]) -> None:
    """Wait as one does with `concurrent.futures`: nothing else drives."""
    until = time.monotonic() + TIMEOUT
    while not all(task.done() for task in tasks):
        assert time.monotonic() < until


def test_a_loop_over_done_gets_the_work_done(script: Script) -> None:
    """It hung for ever, without a word, for nothing was ever started."""
    done = script(
        """
        import dummymp, time
        def slow(n):
            return n * n
        tasks = [dummymp.run(slow, n) for n in range(3)]
        while not all(task.done() for task in tasks):
            time.sleep(0.01)
        print(dummymp.get_returns())
        """
    )
    assert (done.stdout, done.stderr) == ("{0: 0, 1: 1, 2: 4}\n", "")


@pytest.mark.parametrize("engine", ["processes", "inline"])
def test_done_raises_nothing_that_driving_raises(engine: str) -> None:
    """With on_error="stop" it ends the rest; the exception is raised by the next call that drives."""
    dummymp.configure(on_error="stop", max_processes=1, engine=engine)
    tasks = [dummymp.run(operator.truediv, 1, 0), *(dummymp.run(time.sleep, 60) for _ in range(2))]
    wait_until_done(*tasks)
    errors = [ZeroDivisionError, dummymp.TaskKilled, dummymp.TaskKilled]
    assert [type(error) for error in dummymp.get_errors().values()] == errors
    with pytest.raises(ZeroDivisionError):
        dummymp.step()
    dummymp.configure(on_error="raise")
    wait_until_done(dummymp.run(operator.truediv, 2, 0))
    with pytest.raises(dummymp.TasksFailed):
        dummymp.process_until_done()


@pytest.mark.parametrize("engine", ["processes", "inline"])
def test_done_in_a_callback(engine: str) -> None:
    """A callback may ask of all tasks: it is called once for each, and never from inside of itself."""
    calls, depth, deepest = [], 0, 0

    def ask(completed: int, running: int, total: int) -> None:
        nonlocal depth, deepest
        depth += 1
        deepest = max(depth, deepest)
        calls.append(completed)
        assert [task.done() for task in tasks].count(True) >= completed
        depth -= 1

    dummymp.configure(on_end=ask, engine=engine)
    tasks = [dummymp.run(abs, -number) for number in range(20)]
    wait_until_done(*tasks)
    assert (calls, deepest) == (list(range(1, 21)), 1)


def test_a_callback_may_wait_for_another_task() -> None:
    """`done` goes on with the work in a callback, too: otherwise such a loop would never end."""
    seen: list[Any] = []

    def wait(completed: int, running: int, total: int) -> None:
        if completed == 1:
            wait_until_done(*tasks)
            seen.extend(dummymp.get_returns().values())

    dummymp.configure(on_end=wait, max_processes=1)
    tasks = [dummymp.run(abs, -number) for number in range(3)]
    assert dummymp.process_until_done()
    assert seen == [0, 1, 2]


def test_done_from_another_thread_leaves_the_work_to_who_drives() -> None:
    """Another thread that watches sees what has ended; callbacks stay in the thread that drives."""
    callers, watching = set(), threading.Event()
    dummymp.configure(on_end=lambda *counts: callers.add(threading.get_ident()))
    tasks = [dummymp.run(abs, -number) for number in range(200)]

    def watch() -> None:
        watching.wait(TIMEOUT)
        wait_until_done(*tasks)

    def begin(completed: int, running: int, total: int) -> None:
        watching.set()

    dummymp.configure(on_start=begin)
    watcher = threading.Thread(target=watch)
    watcher.start()
    assert dummymp.process_until_done()
    watcher.join(TIMEOUT)
    assert not watcher.is_alive()
    assert callers == {threading.get_ident()}


def test_done_where_no_worker_comes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop would never end, so this is raised; the task is still queued."""
    dummymp.reset()  # There is no server yet.
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    task = dummymp.run(pow, 2, 5)
    with pytest.raises(dummymp.WorkersCannotStart, match="frozen program"):
        wait_until_done(task)
    assert task.state == "queued"
    dummymp.killall()


def ask_in_a_task() -> list[int]:
    """Queue calls inside a task, and wait for them."""
    tasks = [dummymp.run(abs, -number) for number in range(3)]
    wait_until_done(*tasks)
    return [task.result() for task in tasks]


@pytest.mark.parametrize("engine", ["processes", "inline"])
def test_done_in_a_task(engine: str) -> None:
    """Inside a task the loop does what it does outside."""
    dummymp.configure(engine=engine)
    assert dummymp.run(ask_in_a_task).result() == [0, 1, 2]


def test_looking_only() -> None:
    """`get_stats`, `get_returns` and `state` start nothing, and `done` of a task that has ended does not, either."""
    first = dummymp.run(abs, -1)
    assert first.result() == 1
    second = dummymp.run(abs, -2)
    assert first.done()
    assert (dummymp.get_stats()["queued"], dummymp.get_returns(), second.state) == (1, {0: 1}, "queued")


# --- calls that a task queued and did not run --------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["processes", "inline"])
def test_calls_that_a_task_left_behind_are_told_once(script: Script, engine: str) -> None:
    """A task that queues calls and does not run them loses them; that is said once, with the task and what to type."""
    done = script(
        f"""
        import dummymp
        def inner(n):
            print("inner", n)
        def outer(n):
            for m in range(n):
                dummymp.run(inner, m)
        dummymp.configure(engine={engine!r}, max_processes=2, priority="nuclear")
        for n in (1, 2, 3):
            dummymp.run(outer, n)
        dummymp.process_until_done()
        print(dummymp.get_returns())
        """
    )
    assert done.stdout == "{0: None, 1: None, 2: None}\n"
    lost = [line for line in done.stderr.splitlines() if "lost" in line]
    assert len(lost) == 1
    assert lost[0].startswith("note: task ")
    assert ", outer(" in lost[0]
    assert "), called dummymp.run() and ended before what it queued there had run" in lost[0]
    assert "write dummymp.process_until_done(), or use dummymp.results()" in lost[0]


def test_calls_that_a_task_left_behind_in_a_map(script: Script) -> None:
    """The item is named where the task is one of many."""
    done = script(
        """
        import dummymp
        def inner(n):
            return n
        def outer(n):
            dummymp.run(inner, n)
            return n
        print(list(dummymp.map(outer, range(50))))
        """
    )
    assert done.stdout == f"{list(range(50))}\n"
    lost = [line for line in done.stderr.splitlines() if "lost" in line]
    assert len(lost) == 1
    assert lost[0].startswith("note: item")
    assert "outer(" in lost[0]


def test_calls_that_a_failed_task_left_behind(script: Script) -> None:
    """A task that failed before it came to run its calls is told of once, and of nothing that it did not get wrong."""
    done = script(
        """
        import dummymp
        def outer(n):
            dummymp.run(abs, n)
            dummymp.process_until_done()
            dummymp.run(abs, n)
            n / 0
        dummymp.run(outer, 1)
        dummymp.process_until_done()
        """
    )
    assert "ZeroDivisionError" in done.stderr
    assert "lost" not in done.stderr


# --- the generator that a map reads ------------------------------------------------------------------------------

LOOPS = """
import dummymp, gc, itertools
gc.disable()

def items(name):
    try:
        yield from itertools.count()
    finally:
        print("closed", name)

def same(*args):
    return args[0]

def fail(n):
    return 1 // (3 - n)

def in_a_function(name):
    for a in MAP(same, items(name)):
        if a == 3:
            break
    print("after", name)

def in_a_function_that_raises(name):
    for a in MAP(same, items(name)):
        if a == 3:
            raise RuntimeError

for a in MAP(same, items("break")):
    if a == 3:
        break
print("after break")
in_a_function("function")
try:
    in_a_function_that_raises("exception")
except RuntimeError:
    print("after exception")
try:
    for a in MAP(fail, items("failure")):
        pass
except ZeroDivisionError:
    pass
print("after failure")
for a in MAP(same, range(5), items("longer")):
    pass
print("after longer")
mine = items("mine")
for a in MAP(same, mine):
    break
print("after mine", next(mine) > 0)
mine.close()
"""


@pytest.mark.parametrize("engine", ["processes", "inline"])
def test_a_generator_is_closed_with_the_loop(script: Script, engine: str) -> None:
    """As with the builtin `map`: at once where nobody else holds it, without the garbage collector, and not else."""
    configured = f"gc.disable()\ndummymp.configure(engine={engine!r})"
    ours = script(LOOPS.replace("MAP", "dummymp.map").replace("gc.disable()", configured))
    builtin = script(LOOPS.replace("MAP", "map"))
    assert (ours.stdout, ours.stderr) == (builtin.stdout, "")
    assert builtin.stdout.startswith("closed break\nafter break\nclosed function\n")


def test_a_map_that_was_never_read_lets_go_of_its_input() -> None:
    """Nothing goes in a circle that only the garbage collector finds."""
    gc.collect()
    gc.disable()
    try:
        source = Source()
        reference = weakref.ref(source)
        results = dummymp.map(abs, source)
        del source
        results.close()
        del results
        assert reference() is None
    finally:
        gc.enable()


class Source:
    """Something to go through, of which one can tell whether it is gone."""

    def __iter__(self) -> Source:
        return self

    def __next__(self) -> int:
        return 1


# --- at the end of a script --------------------------------------------------------------------------------------

NEVER_BEGUN = """
import dummymp, sys
from dummymp.manager import the_manager
the_manager()._budget.decide = lambda options, running: Decision(0, "2 of 2 CPUs are used by others")
from dummymp.policy import Decision
for n in range(3):
    dummymp.run(abs, n)
"""


def test_the_timeout_passed_before_tasks_could_begin(script: Script) -> None:
    """Nobody forgot anything: the script ends after it waited as long as it said that it would."""
    done = script(NEVER_BEGUN + "print(dummymp.process_until_done(timeout=0.01))")
    assert done.stdout == "False\n"
    assert done.stderr == (
        "3 tasks were never run: the timeout of 0.01 s passed first (2 of 2 CPUs are used by "
        "others). To wait for all: dummymp.process_until_done()\n"
    )


def test_calls_queued_after_the_timeout_were_forgotten(script: Script) -> None:
    """What is queued afterwards, and not run, is told as ever."""
    done = script(NEVER_BEGUN + "dummymp.process_until_done(timeout=0.01)\ndummymp.run(abs, 1)")
    assert len(done.stderr.splitlines()) == 2
    assert done.stderr.endswith("1 task was queued but never run. Did you forget dummymp.process_until_done()?\n")


def test_driving_failed_before_tasks_could_begin(script: Script) -> None:
    """Who called `process_until_done` and caught what it raised did not forget it."""
    done = script(
        """
        import dummymp, sys
        sys.modules["tqdm"] = sys.modules["tqdm.auto"] = None
        dummymp.run(abs, 1)
        try:
            dummymp.process_until_done(progress=True)
        except ImportError:
            pass
        """
    )
    assert "1 task was never run: process_until_done() raised " in done.stderr
    assert "MissingExtra: progress=True needs tqdm" in done.stderr
    assert "forget" not in done.stderr


def test_tasks_run_and_others_could_not_begin(script: Script) -> None:
    """Both are told in one line."""
    done = script(
        """
        import dummymp, time
        dummymp.configure(max_processes=1, priority="nuclear")
        def wait():
            time.sleep(600)
        for n in range(3):
            dummymp.run(wait)
        dummymp.process_until_done(timeout=0.01)
        """
    )
    assert done.stderr.startswith("1 task was running when the script ended, and stopped: task 0, wait(). ")
    assert "2 tasks were never run: the timeout of 0.01 s passed first" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- debuggers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["breakpoint()", "pdb.set_trace()"])
def test_breakpoint_in_a_task(script: Script, call: str) -> None:
    """The task fails with what to type instead, and not with a bdb.BdbQuit."""
    done = script(
        f"""
        import dummymp, pdb
        def look(n):
            {call}
            return n
        dummymp.run(look, 1)
        dummymp.process_until_done()
        print(type(dummymp.get_errors()[0]), dummymp.run(abs, -2).result())
        """
    )
    assert done.stdout.splitlines()[-1] == "<class 'RuntimeError'> 2"
    assert "a task wanted a debugger, but tasks run in the background" in done.stderr
    assert 'write dummymp.configure(engine="inline") at the top' in done.stderr
    assert "BdbQuit" not in done.stdout + done.stderr
    assert call == "pdb.set_trace()" or "(Pdb)" not in done.stdout


def test_breakpoint_where_the_user_chose_another_debugger(script: Script) -> None:
    """PYTHONBREAKPOINT is respected, 0 above all, and so is a hook that a task sets itself."""
    done = script(
        """
        import dummymp, os, sys
        def look():
            return breakpoint()
        def look_with_a_hook():
            sys.breakpointhook = lambda: "hooked"
            return breakpoint()
        os.environ["PYTHONBREAKPOINT"] = "0"
        dummymp.run(look)
        os.environ["PYTHONBREAKPOINT"] = "os.getcwd"
        dummymp.run(look)
        del os.environ["PYTHONBREAKPOINT"]
        dummymp.run(look_with_a_hook)
        answers = dummymp.results()
        print(answers[0], answers[1] == os.getcwd(), answers[2])
        """
    )
    assert (done.stdout, done.stderr) == ("None True hooked\n", "")


def test_a_debugger_with_the_inline_engine(script: Script) -> None:
    """What the message says to type works."""
    source = """
        import dummymp
        dummymp.configure(engine="inline")
        def look(n):
            breakpoint()
            return n + 1
        print(dummymp.run(look, 1).result())
        """
    done = script(source, stdin=None, input="p n + 100\nc\n")
    assert "101" in done.stdout
    assert done.stdout.endswith("2\n")


# --- messages ----------------------------------------------------------------------------------------------------


def test_what_configure_gives_reads_well() -> None:
    """The last line of a notebook cell is shown: the settings, all of them where none was changed."""
    text = repr(dummymp.configure(max_processes=1, on_error="stop"))
    assert text == "<dummymp settings: max_processes=1, on_error='stop'>"
    assert repr(dummymp.configure()).startswith("<dummymp settings: max_processes=1, priority='nuclear', ")
    with dummymp.configure(max_processes=2) as queue:
        assert "TaskQueue" in repr(queue)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dummymp.Preset("mine", treshold=75), "Preset() has no argument 'treshold'. Did you mean threshold?"),
        (lambda: dummymp.Preset("mine", 5), "Preset() takes 1 argument by position, and was given 2"),
        (lambda: dummymp.results(1), "dummymp.results() takes no arguments, and was given 1"),
        (lambda: dummymp.get_returns(sort=True), "dummymp.get_returns() takes no arguments, and was given 'sort'"),
        (lambda: dummymp.step(0, 1), "dummymp.step() takes 1 argument, and was given 2"),
        (lambda: dummymp.killall(qeued=False), "dummymp.killall() has no argument 'qeued'. Did you mean queued?"),
        (lambda: dummymp.run(0), "got 0. Write run(square, 3), not run(square(3)): the second calls square at once"),
        (lambda: dummymp.map(0, [1]), "got 0. Write map(f, [1, 2, 3]), not map(f(1), ...)"),
        (lambda: dummymp.run(sum, [1], timeout=3), "cannot queue sum([1], timeout=3): sum has no parameter 'timeout'. "
         "For the setting, write dummymp.configure(timeout=3)"),
        (lambda: dummymp.run(sorted, [1], key=abs, retries=3), "sorted has no parameter 'retries'"),
    ],
)  # fmt: skip
def test_wrong_arguments(call: Callable[[], object], message: str) -> None:
    """They are counted as the user counts them, and the near name is suggested."""
    with pytest.raises(TypeError, match=re.escape(message)):
        call()


def test_a_builtin_may_have_a_parameter_of_that_name() -> None:
    """What takes any keyword, or does not tell what it takes, gets it."""
    assert dummymp.run(dict, timeout=3).result() == {"timeout": 3}
    assert dummymp.run("{seed}".format, seed=4).result() == "4"


def test_what_other_pools_need_and_this_one_does_not(script: Script) -> None:
    """Results are returned: no queue, lock, or shared number is passed along."""
    done = script(
        """
        import dummymp, multiprocessing as mp, queue
        things = [mp.Queue(), mp.SimpleQueue(), mp.JoinableQueue(), queue.Queue(), mp.Lock(), mp.RLock(),
                  mp.Semaphore(), mp.Event(), mp.Condition(), mp.Barrier(2), mp.Value("i"), mp.Array("i", 2)]
        for thing in things:
            try:
                dummymp.run(print, thing)
            except dummymp.NotPicklable as error:
                assert "eturn the result" in str(error), error
                assert "plain data" not in str(error), error
                print("told")
        """
    )
    assert (done.stdout, done.stderr) == (12 * "told\n", "")


def test_messages_of_a_map_speak_of_items(tmp_path: Path) -> None:
    """An open file among the items is item 1, not task 1."""
    with open(tmp_path / "file", "w") as file:
        with pytest.raises(dummymp.NotPicklable, match=r"^cannot send item 1, str\(\.\.\.\), to a worker: "):
            list(dummymp.map(str, [1, file]))


def give_stdout() -> Any:
    """Return what cannot leave a worker."""
    return sys.stdout


def test_a_task_that_returns_its_stdout() -> None:
    """It is called by the name that the user knows."""
    with pytest.raises(dummymp.NotPicklable, match=r"it is a text stream \(sys\.stdout or sys\.stderr\)\. What a task"):
        dummymp.run(give_stdout).result()


def use_the_face() -> list[int]:
    """Use functions of the face that were imported by name."""
    run(abs, -3)
    return results()


def test_functions_of_the_face_travel(script: Script) -> None:
    """A task may use them under the names that the script gave them."""
    assert run(use_the_face).result() == [3]
    done = script(
        """
        from dummymp import map as parallel, results, run, step
        def f(n):
            run(abs, n)
            while not step():
                pass
            return results() + list(parallel(abs, [n]))
        run(f, -2)
        run(results)
        print(results())
        """
    )
    assert done.stdout == "[[2, 2], []]\n"

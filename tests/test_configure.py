# SPDX-License-Identifier: MIT
"""Settings: defaults, what is accepted and what is refused with which words, and when a setting holds."""

from __future__ import annotations

import inspect
import os
import pydoc
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import TIMEOUT

import dummymp
from dummymp.options import _RULES, Options

DEFAULTS = {
    "max_processes": None,
    "on_start": None,
    "on_end": None,
    "on_error": "continue",
    "copy_args": True,
    "timeout": None,
    "retries": 0,
    "tasks_per_worker": None,
    "seed": None,
    "threads_per_task": 1,
    "log_prefix": "[PID {pid}] ",
    "min_free_memory": None,
    "start_method": None,
    "engine": "processes",
    "initializer": None,
}

GOOD = [
    ("max_processes", None, None),
    ("max_processes", 0, None),
    ("max_processes", 1, 1),
    ("max_processes", 1000, 1000),
    ("on_start", print, print),
    ("on_end", None, None),
    ("on_error", "stop", "stop"),
    ("on_error", "raise", "raise"),
    ("copy_args", False, False),
    ("copy_args", 1, True),
    ("timeout", 0.5, 0.5),
    ("timeout", 3, 3.0),
    ("timeout", float("inf"), None),
    ("retries", 3, 3),
    ("tasks_per_worker", 1, 1),
    ("tasks_per_worker", None, None),
    ("seed", 42, 42),
    ("seed", -1, -1),
    ("threads_per_task", 4, 4),
    ("threads_per_task", None, None),
    ("log_prefix", "", ""),
    ("log_prefix", "{pid} {task} {worker} {{}}", "{pid} {task} {worker} {{}}"),
    ("min_free_memory", 0, 0.0),
    ("min_free_memory", 0.25, 0.25),
    ("start_method", "spawn", "spawn"),
    ("engine", "inline", "inline"),
    ("initializer", print, print),
]

SECONDS = r"timeout must be seconds, as a number, got .* \(use None for no limit\)"
BAD: list[tuple[str, Any, type[Exception], str]] = [
    ("max_processes", -2, ValueError, r"max_processes must be 1 or more, got -2 \(use None for no cap\)"),
    ("max_processes", 1.5, TypeError, r"max_processes must be a whole number or None, got 1\.5"),
    ("max_processes", True, TypeError, r"max_processes must be a whole number or None, got True"),
    ("max_processes", "4", TypeError, r"max_processes must be a whole number or None, got '4'"),
    ("priority", "polite", ValueError, "no priority is named 'polite'; there are 'generous'"),
    ("priority", "nuclaer", ValueError, "no priority is named 'nuclaer'. Did you mean 'nuclear'"),
    ("priority", 3, ValueError, r"no priority has number 3; there are 15 \(generous\)"),
    ("priority", None, TypeError, "priority must be a Priority, its name, its number or a Preset, got None"),
    ("on_start", 5, TypeError, r"on_start must be a function that takes \(completed, running, total\), or None"),
    ("on_end", "print", TypeError, r"on_end must be a function that takes \(completed, running, total\), or None"),
    ("on_error", "ignore", ValueError, "on_error must be 'continue' or 'stop' or 'raise', got 'ignore'"),
    ("on_error", None, TypeError, "on_error must be 'continue' or 'stop' or 'raise', got None"),
    ("copy_args", "no", TypeError, "copy_args must be True or False, got 'no'"),
    ("copy_args", None, TypeError, "copy_args must be True or False, got None"),
    ("timeout", 0, ValueError, r"timeout must be more than 0 seconds, got 0 \(use None for no limit\)"),
    ("timeout", -1, ValueError, "timeout must be more than 0 seconds, got -1"),
    ("timeout", "5", TypeError, SECONDS),
    ("timeout", True, TypeError, SECONDS),
    ("timeout", float("nan"), TypeError, SECONDS),
    ("retries", -1, ValueError, "retries must be 0 or more, got -1"),
    ("retries", None, TypeError, "retries must be a whole number, got None"),
    ("tasks_per_worker", 0, ValueError, r"tasks_per_worker must be 1 or more, got 0 \(use None for reuse\)"),
    ("tasks_per_worker", "1", TypeError, "tasks_per_worker must be a whole number, got '1'"),
    ("seed", "42", TypeError, r"seed must be a whole number, got '42' \(use None for a different sequence in each"),
    ("seed", 4.2, TypeError, r"seed must be a whole number, got 4\.2"),
    ("threads_per_task", 0, ValueError, "threads_per_task must be 1 or more, got 0"),
    ("threads_per_task", "all", TypeError, "threads_per_task must be a whole number, got 'all'"),
    ("log_prefix", None, TypeError, r"log_prefix must be text, got None \(use '' for no prefix\)"),
    ("log_prefix", "{name} ", ValueError, r"log_prefix may use \{pid\}, \{task\} and \{worker\}, .* got '\{name\} '"),
    ("log_prefix", "{", ValueError, r"log_prefix may use \{pid\}, \{task\} and \{worker\}"),
    ("min_free_memory", 10, ValueError, r"must be a share of the memory from 0 up to 1, got 10 \(0\.1 keeps 10 % free"),
    ("min_free_memory", -0.1, ValueError, "min_free_memory must be a share of the memory from 0 up to 1"),
    ("min_free_memory", "1 GB", TypeError, "min_free_memory must be a share of the memory between 0 and 1, got '1 GB'"),
    ("start_method", "fork", ValueError, "start_method must not be 'fork': a copy of a running process"),
    ("start_method", "thread", ValueError, "start_method must be 'forkserver' or 'spawn', got 'thread'"),
    ("start_method", 5, TypeError, "start_method must be 'forkserver' or 'spawn', got 5"),
    ("engine", "cluster", ValueError, "engine must be .*'processes'.*'inline'.*got 'cluster'"),
    ("engine", None, TypeError, "engine must be .*, got None"),
    ("initializer", 3, TypeError, "initializer must be a function that takes no arguments, or None; got 3"),
]


def option(name: str) -> Any:
    """Look up a setting of the hidden queue."""
    return getattr(dummymp.api._queue._options, name)


def wait_for(folder: str, name: str) -> None:
    """Return when there is such a file; leave one named "waiting" meanwhile."""
    Path(folder, "waiting").touch()
    until = time.monotonic() + TIMEOUT
    while not Path(folder, name).exists() and time.monotonic() < until:
        time.sleep(0.002)


def fail_the_first_times(folder: str, times: int) -> int:
    """Raise so many times, counting in files; then return the number of the attempt."""
    attempt = len(os.listdir(folder)) + 1
    Path(folder, str(attempt)).touch()
    if attempt <= times:
        raise OSError(f"attempt {attempt}")
    return attempt


# --- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "default"), DEFAULTS.items())
def test_defaults(name: str, default: Any) -> None:
    """Without a word, each setting has its documented default."""
    assert option(name) == default


def test_default_priority() -> None:
    """Without a word, the priority is NORMAL."""
    assert dummymp.get_priority_mode() is dummymp.Priority.NORMAL


def test_every_option_is_documented_and_tested() -> None:
    """The docstring of the options explains each, and the tables here check each."""
    names = {"priority", *DEFAULTS}
    assert set(_RULES) == names
    documented = inspect.getdoc(Options) or ""
    assert [name for name in names if f"\n    {name}: " not in documented] == []
    assert {name for name, *_ in BAD} == names
    assert {name for name, *_ in GOOD} == set(DEFAULTS)


@pytest.mark.parametrize(("name", "value", "kept"), GOOD)
def test_good_values(name: str, value: Any, kept: Any) -> None:
    """A possible value is taken."""
    dummymp.configure(**{name: value})
    assert option(name) == kept
    assert type(option(name)) is type(kept)


@pytest.mark.parametrize(
    "value", [dummymp.Priority.EXTREME, "EXTREME", "extreme", "Extreme", "DUMMYMP_EXTREME", -10], ids=repr
)
def test_ways_to_name_a_priority(value: Any) -> None:
    """A priority may be given itself, by its name in any case, or by its number."""
    dummymp.configure(priority=value)
    assert dummymp.get_priority_mode() is dummymp.Priority.EXTREME


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no forkserver")
def test_forkserver_is_a_start_method() -> None:
    """Where the platform has it, forkserver can be asked for."""
    dummymp.configure(start_method="forkserver")
    assert option("start_method") == "forkserver"


@pytest.mark.parametrize(("name", "value", "error", "message"), BAD)
def test_bad_values(name: str, value: Any, error: type[Exception], message: str) -> None:
    """An impossible value is refused, with the value and the rule; the setting stays as it was."""
    before = option(name)
    with pytest.raises(error, match=message):
        dummymp.configure(**{name: value})
    assert option(name) is before


@pytest.mark.parametrize(
    ("name", "near"),
    [("max_process", "max_processes"), ("time_out", "timeout"), ("retry", "retries"), ("on_errors", "on_error")],
)
def test_unknown_name_suggests_the_near_one(name: str, near: str) -> None:
    """A misspelt setting is a TypeError that says what was meant."""
    with pytest.raises(TypeError, match=rf"configure\(\) has no option '{name}'\. Did you mean {near}\?"):
        dummymp.configure(**{name: 1})


def test_unknown_name_lists_them_all() -> None:
    """A name like no other is answered with all there are."""
    with pytest.raises(TypeError, match=r"has no option 'xyzzy'\. There are: .*max_processes.*timeout"):
        dummymp.configure(xyzzy=1)


def test_a_queue_refuses_unknown_names_too() -> None:
    """`TaskQueue` takes the same settings and refuses the others."""
    with pytest.raises(TypeError, match=r"no option 'max_process'. Did you mean max_processes\?"):
        dummymp.TaskQueue(max_process=1)


def test_settings_have_names() -> None:
    """Settings are given by name only."""
    with pytest.raises(TypeError, match="needs the name of each setting"):
        dummymp.configure(4)
    with pytest.raises(TypeError, match=r"1\}. Put \*\* before a dict of settings: configure\(\*\*settings\)"):
        dummymp.configure({"retries": 1})


@pytest.mark.parametrize(
    ("name", "text"),
    [("max_processes", "4"), ("timeout", "2.5"), ("copy_args", "False"), ("seed", "None"), ("priority", "15")],
)
def test_a_number_in_quotes(name: str, text: str) -> None:
    """Who put quotes where none belong is told what to write; the rule alone seemed to be obeyed."""
    with pytest.raises((TypeError, ValueError), match=rf"'{text}'.*\. Without quotes: {name}={text}$"):
        dummymp.configure(**{name: text})


@pytest.mark.parametrize(("name", "text"), [("max_processes", "four"), ("timeout", "-1"), ("on_start", "5")])
def test_quotes_are_not_the_mistake(name: str, text: str) -> None:
    """Without quotes it would be wrong, too."""
    with pytest.raises(TypeError) as caught:
        dummymp.configure(**{name: text})
    assert "quotes" not in str(caught.value)


def test_all_or_nothing() -> None:
    """If one of several values is wrong, none is set."""
    dummymp.configure(retries=1)
    with pytest.raises(ValueError, match="timeout"):
        dummymp.configure(retries=5, max_processes=3, timeout=-1)
    with pytest.raises(TypeError, match="no option"):
        dummymp.configure(retries=5, nonsense=1)
    assert (option("retries"), option("max_processes")) == (1, None)


def test_settings_of_queues_are_their_own() -> None:
    """What one queue is told does not change another."""
    queue = dummymp.TaskQueue(retries=3)
    dummymp.configure(retries=1)
    assert (queue._options.retries, option("retries")) == (3, 1)


# --- with configure(...) -----------------------------------------------------------------------------------------


def test_with_block_puts_the_old_values_back() -> None:
    """At the end of a ``with`` block the settings that it named are what they were before."""
    dummymp.configure(retries=1, seed=5)
    with dummymp.configure(retries=2, timeout=3):
        assert (option("retries"), option("timeout")) == (2, 3.0)
        dummymp.configure(seed=6)
    assert (option("retries"), option("timeout"), option("seed")) == (1, None, 6)


def test_with_blocks_nest() -> None:
    """An inner block puts back the values of the outer one."""
    with dummymp.configure(retries=1):
        with dummymp.configure(retries=2):
            assert option("retries") == 2
        assert option("retries") == 1
    assert option("retries") == 0


def test_with_block_puts_back_after_an_error() -> None:
    """An exception leaves the block unchanged, and the old values are back."""
    with pytest.raises(KeyError, match="mine"), dummymp.configure(priority="NUCLEAR", on_end=print):
        raise KeyError("mine")
    assert (dummymp.get_priority_mode(), option("on_end")) == (dummymp.Priority.NORMAL, None)


def test_with_block_of_an_engine() -> None:
    """A block may change the engine, and put it back when its tasks are done."""
    dummymp.configure(priority="NUCLEAR", max_processes=1)
    with dummymp.configure(engine="inline"):
        assert dummymp.run(os.getpid).result() == os.getpid()
    assert dummymp.run(os.getpid).result() != os.getpid()
    assert list(dummymp.get_returns()) == [0, 1]


def test_an_error_in_a_block_with_an_engine_is_not_hidden() -> None:
    """Though the engine cannot be put back while a task waits, the user's own error is what comes out."""
    with pytest.raises(KeyError, match="mine"), dummymp.configure(engine="inline", retries=1):
        dummymp.run(abs, -1)
        raise KeyError("mine")
    assert option("retries") == 0


def test_configure_of_a_queue_is_its_own() -> None:
    """A queue's own ``with queue.configure(...)`` gives the queue, and puts its settings back."""
    queue = dummymp.TaskQueue(retries=1)
    with queue.configure(retries=2) as given:
        assert given is queue
        assert queue._options.retries == 2
    assert queue._options.retries == 1


# --- when a setting holds ----------------------------------------------------------------------------------------


def test_timeout_and_retries_are_remembered_when_queued() -> None:
    """What held at the `run` call holds for the task, whatever is set before it runs."""
    with dummymp.configure(timeout=50, retries=2):
        first = dummymp.run(abs, -1)
    second = dummymp.run(abs, -1)
    assert (first._timeout, first._retries) == (50, 2)
    assert (second._timeout, second._retries) == (None, 0)
    dummymp.killall()


def test_retries_of_the_run_call_hold(tmp_path: Path) -> None:
    """A task that was queued with retries is tried again, though retries are off when it runs."""
    with dummymp.configure(retries=2, engine="inline"):
        task = dummymp.run(fail_the_first_times, str(tmp_path), 2)
        dummymp.configure(retries=0)
        assert (task.result(), task.attempts) == (3, 3)


def test_seed_is_remembered_when_queued() -> None:
    """A task that was queued with a seed uses it, though there is none any more when it runs."""
    dummymp.configure(engine="inline")
    import random

    with dummymp.configure(seed=1):
        dummymp.run(random.random)
    first = dummymp.results()
    dummymp.reset()
    dummymp.configure(engine="inline", seed=1)
    dummymp.run(random.random)
    assert dummymp.results() == first


def test_copy_args_is_remembered_when_queued() -> None:
    """A call that was queued with copy_args=False is open to changes, though the setting is back when it runs."""
    items = [1]
    dummymp.configure(engine="inline")
    with dummymp.configure(copy_args=False):
        dummymp.run(list, items)
    dummymp.run(list, items)
    items.append(2)
    assert dummymp.results() == [[1, 2], [1]]


def test_a_timeout_stops_a_task(tmp_path: Path) -> None:
    """A task that runs longer than its timeout ends as TaskTimeout, which says how long and what to set."""
    dummymp.configure(priority="NUCLEAR", max_processes=1)
    with dummymp.configure(timeout=0.05):
        task = dummymp.run(wait_for, str(tmp_path), "never")
    with pytest.raises(dummymp.TaskTimeout, match=r"task 0, wait_for\(.*\), was stopped after 0\.05 s .*timeout="):
        task.result()
    assert isinstance(task.exception(), TimeoutError)
    assert dummymp.run(abs, -1).result() == 1


def test_tasks_per_worker_gives_fresh_processes() -> None:
    """With tasks_per_worker=1 each task has a process of its own; with 2 two tasks share one."""
    dummymp.configure(priority="NUCLEAR", max_processes=1, tasks_per_worker=1)
    for _ in range(3):
        dummymp.run(os.getpid)
    assert len(set(dummymp.results())) == 3
    dummymp.reset()
    dummymp.configure(priority="NUCLEAR", max_processes=1, tasks_per_worker=2)
    for _ in range(4):
        dummymp.run(os.getpid)
    one, also_one, two, also_two = dummymp.results()
    assert one == also_one != two == also_two


def test_max_processes_holds(tmp_path: Path) -> None:
    """No more tasks than max_processes run at once; a new cap holds from the next round on."""
    dummymp.configure(priority="NUCLEAR", max_processes=2)
    for _ in range(3):
        dummymp.run(wait_for, str(tmp_path), "go")
    dummymp.step()
    assert dummymp.get_stats()["running"] == 2
    dummymp.configure(max_processes=3)
    dummymp.step()
    assert dummymp.get_stats()["running"] == 3
    (tmp_path / "go").touch()
    dummymp.process_until_done()


def test_engine_cannot_change_under_tasks() -> None:
    """While tasks wait, another engine is refused, with what to do first; no other setting changes, either."""
    dummymp.run(abs, -1)
    with pytest.raises(ValueError, match=r"engine cannot change while tasks .* Call process_until_done\(\) first"):
        dummymp.configure(engine="inline", retries=4)
    assert (option("engine"), option("retries")) == ("processes", 0)
    dummymp.killall()
    dummymp.configure(engine="inline")


def test_callbacks_may_change_under_tasks() -> None:
    """A callback that is set between `run` and driving is called."""
    called = threading.Event()
    dummymp.configure(engine="inline")
    dummymp.run(abs, -1)
    dummymp.configure(on_end=lambda *counts: called.set())
    dummymp.process_until_done()
    assert called.is_set()


# --- the help --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(Options.names()))
def test_the_help_has_every_setting(name: str) -> None:
    """``help(dummymp.configure)`` tells the meaning of each setting, and the default that it has."""
    text = pydoc.plain(pydoc.render_doc(dummymp.configure))
    (entry,) = re.findall(rf"^ +{name}: ((?:.|\n)*?)(?=^ +\w+: |^ *$)", text, re.MULTILINE)
    told = re.sub(r"\s+", " ", entry)
    value = _RULES[name][0]
    default = value if name == "priority" else f'"{value}"' if isinstance(value, str) else str(value)
    assert f"Default {default}" in told or f"{default} (default)" in told, told


def test_the_help_shows_how_to_write_it() -> None:
    """The list stands under its heading, and nothing shows of how a setting without a name is refused."""
    text = pydoc.plain(pydoc.render_doc(dummymp.configure))
    assert "configure(**options" in text
    assert "misplaced" not in text
    listed = re.findall(r"^ {8}(\w+): ", text.partition("Args:")[2].partition("Raises:")[0], re.MULTILINE)
    assert sorted(listed) == sorted(Options.names())
    lines = [line.strip() for line in text.splitlines()]
    assert lines[lines.index("Args:") + 1].startswith("max_processes: ")
    assert "..." not in lines


def test_the_help_without_docstrings() -> None:
    """Python that leaves out docstrings (-OO) has no help, and all the rest."""
    code = "import dummymp; dummymp.configure(timeout=1); print(dummymp.configure.__doc__)"
    done = subprocess.run(
        [sys.executable, "-OO", "-c", code], capture_output=True, text=True, timeout=TIMEOUT, check=True
    )
    assert done.stdout.strip() in ("", "None")

# SPDX-License-Identifier: MIT
"""Options: every setting of a queue, its default, and the rule that its value must obey; each written down once."""

from __future__ import annotations

import functools
import itertools
import os
import sys

from .hints import TYPE_CHECKING
from .presets import PRESETS, Preset, find_preset

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Callable, TypeVar

    R = TypeVar("R")

__all__ = ["Options", "lists_settings"]

ENGINES = ("processes", "inline")
START_METHODS = ("forkserver", "spawn")
ON_ERROR = ("continue", "stop", "raise")
# For trying out a start method without touching the script.
START_METHOD_VARIABLE = "DUMMYMP_START_METHOD"

_editions = itertools.count(1)


class Options:
    """The settings of a queue.

    Attributes:
        max_processes: Never run more tasks at once than this. Default None: no cap of ours, so the CPU count.
        priority: How considerate to be: "generous", "normal", "aggressive", "extreme" or "nuclear" (in any case), a
            `Priority` or its number, or a `Preset`. Default NORMAL.
        on_start: Called as ``on_start(completed, running, total)`` when a task starts. Default None.
        on_end: Called as ``on_end(completed, running, total)`` when a task has ended. Default None.
        on_error: "continue" (default), "stop": end the rest and raise the first error at once, or "raise": run all,
            then raise `TasksFailed`.
        copy_args: True (default) freezes a call when it is queued, False when it starts.
        timeout: A task that runs longer than so many seconds is stopped. Default None.
        retries: Run a task again after a failure, at most so many times. Default 0.
        tasks_per_worker: End a worker after so many tasks; 1 gives each task a fresh process. Default None: reuse.
        seed: With a number, `random` and `numpy.random` give each task the same sequence in every run. Default None.
        threads_per_task: Threads that BLAS, OpenMP and numexpr may start in each task. Default 1; None: as they like.
        log_prefix: Stands before forwarded log records; {pid}, {task} and {worker} are filled in.
            Default "[PID {pid}] "; "" for nothing.
        min_free_memory: Start no further worker while less than this share of the memory (0 up to 1) is free.
            Default None: what the priority says.
        start_method: "forkserver", "spawn", or None (default): forkserver where the platform has it.
        initializer: Called in each worker, once, before its first task: to set what tasks need there. Default None.
        engine: "processes" (default), or "inline": in this process, one after another, for debugging.
    """

    __slots__ = (
        "copy_args", "edition", "engine", "initializer", "log_prefix", "max_processes", "min_free_memory", "on_end",
        "on_error", "on_start", "priority", "retries", "seed", "start_method", "tasks_per_worker", "threads_per_task",
        "timeout",
    )  # fmt: skip

    max_processes: int | None
    priority: Preset
    on_start: Callable[[int, int, int], object] | None
    on_end: Callable[[int, int, int], object] | None
    on_error: str
    copy_args: bool
    timeout: float | None
    retries: int
    tasks_per_worker: int | None
    seed: int | None
    threads_per_task: int | None
    log_prefix: str
    min_free_memory: float | None
    start_method: str | None
    initializer: Callable[[], object] | None
    engine: str
    # Not a setting: tells whether any was changed, 0 as long as all are at their defaults.
    edition: int

    def __init__(self) -> None:
        self.edition = 0
        for name, (default, check) in _RULES.items():
            setattr(self, name, check(name, default))

    def change(self, changes: dict[str, Any]) -> dict[str, Any]:
        """Set options, all of them or, if one is wrong, none; give the old values of those that were set.

        Raises:
            TypeError: There is no such option, or its value is of a wrong type.
            ValueError: A value is impossible.
        """
        checked = {}
        for name, value in changes.items():
            if name not in _RULES:
                raise TypeError(_unknown(name))
            checked[name] = self.check(name, value)
        old = {name: getattr(self, name) for name in checked}
        for name, value in checked.items():
            setattr(self, name, value)
        self.edition = next(_editions)
        return old

    def check(self, name: str, value: Any) -> Any:
        """Give a value for an option as it is kept, and change nothing. Raises as `change`."""
        rule = _RULES[name][1]
        try:
            return rule(name, value)
        except (TypeError, ValueError) as error:
            if not isinstance(value, str) or not _fits_without_quotes(rule, name, value):
                raise
            raise type(error)(f"{error}. Without quotes: {name}={value}") from None

    def describe(self, name: str) -> str:
        """Put an option in words, as one writes it: ``priority='generous'``."""
        value = getattr(self, name)
        if isinstance(value, Preset) and value in PRESETS.values():
            value = value.name.lower()
        return f"{name}={value!r}"

    @staticmethod
    def names() -> Iterable[str]:
        """Give the names of all options."""
        return _RULES

    def method(self) -> str:
        """Give the start method that holds: the option, the environment variable, or the platform's best."""
        return self.start_method or _default_method()


def lists_settings(configure: Callable[..., R]) -> Callable[..., R]:
    """Let `configure` list every setting in its help, as `Options` has them, and refuse those without a name."""

    @functools.wraps(configure)  # help() shows what it was: its parameters are its own.
    def call(self: Any, *misplaced: Any, **options: Any) -> R:
        if misplaced:
            hint = "Write configure(priority='generous'), not configure('generous')"
            if isinstance(misplaced[0], dict):
                hint = "Put ** before a dict of settings: configure(**settings)"
            raise TypeError(f"configure() needs the name of each setting, got {misplaced[0]!r:.60}. {hint}")
        return configure(self, **options)

    lines = []
    for line in (configure.__doc__ or "").splitlines():  # None with python -OO.
        if line.strip() == _SETTINGS:
            indent = line[: -len(line.lstrip())]
            lines += [f"{indent}{setting}".rstrip() for setting in _settings()]
        else:
            lines.append(line)
    call.__doc__ = "\n".join(lines)
    return call


# Stands in the docstring of `configure` for the list of settings.
_SETTINGS = "..."


def _settings() -> list[str]:
    """Give the lines of the docstring of `Options` that tell of the settings, from the first column on."""
    _, _, text = (Options.__doc__ or "").partition("Attributes:\n")
    lines = text.rstrip().splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip()) if lines else 0  # From Python 3.13 on it is less.
    return [line[indent:] for line in lines]


def _default_method() -> str:
    wanted = os.environ.get(START_METHOD_VARIABLE, "")
    if wanted:
        return str(_start_method(START_METHOD_VARIABLE, wanted))
    return "spawn" if sys.platform == "win32" else "forkserver"


# What other packages of the kind call max_processes.
_WORKERS = ("workers", "max_workers", "num_workers", "n_workers", "n_jobs", "jobs", "processes", "cpus", "cores")


def _unknown(name: str) -> str:
    from .wrongcalls import did_you_mean

    hint = "Did you mean max_processes?" if name in _WORKERS else did_you_mean(name, _RULES)
    return f"configure() has no option {name!r}. {hint}"


def _fits_without_quotes(rule: Callable[[str, Any], Any], name: str, text: str) -> bool:
    import ast  # Costs milliseconds.

    try:
        rule(name, ast.literal_eval(text))
    except Exception:  # Whatever the text is.
        return False
    return True


# --- rules: (name, value) -> the value as it is kept ---------------------------------------------------------------


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def _max_processes(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if not _is_int(value):
        raise TypeError(f"{name} must be a whole number or None, got {value!r} (use None for no cap)")
    if value < 0:
        raise ValueError(f"{name} must be 1 or more, got {value} (use None for no cap)")
    return value or None


def _count(least: int, none_means: str | None) -> Callable[[str, Any], int | None]:
    def check(name: str, value: Any) -> int | None:
        hint = f" (use None for {none_means})" if none_means else ""
        if value is None and none_means:
            return None
        if not _is_int(value):
            raise TypeError(f"{name} must be a whole number, got {value!r}{hint}")
        if value < least:
            raise ValueError(f"{name} must be {least} or more, got {value}{hint}")
        return int(value)

    return check


def _seed(name: str, value: Any) -> int | None:
    if value is not None and not _is_int(value):
        raise TypeError(f"{name} must be a whole number, got {value!r} (use None for a different sequence in each run)")
    return value  # type: ignore[no-any-return]


def _priority(name: str, value: Any) -> Preset:
    return find_preset(value)


def _callback(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise TypeError(
            f"{name} must be a function that takes (completed, running, total), or None for no callback; got {value!r}"
        )
    if value is not None:
        from .wrongcalls import check_callback

        check_callback(name, value)
    return value


def _initializer(name: str, value: Any) -> Any:
    if value is not None:
        from .wrongcalls import check_without_arguments

        check_without_arguments(name, value)
    return value


def _one_of(choices: tuple[str, ...]) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        words = " or ".join(repr(choice) for choice in choices)
        if not isinstance(value, str):
            raise TypeError(f"{name} must be {words}, got {value!r}")
        if value not in choices:
            raise ValueError(f"{name} must be {words}, got {value!r}")
        return value

    return check


def _start_method(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if value == "fork":
        raise ValueError(
            f"{name} must not be 'fork': a copy of a running process inherits locks, threads and random state that "
            "do not work there. Use 'forkserver' or 'spawn'"
        )
    method = _one_of(START_METHODS)(name, value)
    if method == "forkserver" and sys.platform == "win32":
        raise ValueError(f"{name} must be 'spawn' on Windows, which has no forkserver")
    return method


def _bool(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, int)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def _timeout(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if not _is_number(value):
        raise TypeError(f"{name} must be seconds, as a number, got {value!r} (use None for no limit)")
    if value <= 0:
        raise ValueError(f"{name} must be more than 0 seconds, got {value} (use None for no limit)")
    return None if value == float("inf") else float(value)


def _share(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if not _is_number(value):
        raise TypeError(f"{name} must be a share of the memory between 0 and 1, got {value!r}")
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be a share of the memory from 0 up to 1, got {value} (0.1 keeps 10 % free)")
    return float(value)


def _log_prefix(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, got {value!r} (use '' for no prefix)")
    try:
        value.format(pid=1, task=1, worker="Worker-1")
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{name} may use {{pid}}, {{task}} and {{worker}}, and {{{{ for a brace; got {value!r} ({error!r})"
        ) from None
    return value


_RULES: dict[str, tuple[Any, Callable[[str, Any], Any]]] = {
    "max_processes": (None, _max_processes),
    "priority": ("NORMAL", _priority),
    "on_start": (None, _callback),
    "on_end": (None, _callback),
    "on_error": ("continue", _one_of(ON_ERROR)),
    "copy_args": (True, _bool),
    "timeout": (None, _timeout),
    "retries": (0, _count(0, None)),
    "tasks_per_worker": (None, _count(1, "reuse")),
    "seed": (None, _seed),
    "threads_per_task": (1, _count(1, "no limit of ours")),
    "log_prefix": ("[PID {pid}] ", _log_prefix),
    "min_free_memory": (None, _share),
    "start_method": (None, _start_method),
    "initializer": (None, _initializer),
    "engine": ("processes", _one_of(ENGINES)),
}

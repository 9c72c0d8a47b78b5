# SPDX-License-Identifier: MIT
"""Which programs use the CPUs now, and whose they are: for people to read, not for decisions."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from .counters import system_counters

if TYPE_CHECKING:
    from collections.abc import Callable

    from .counters import Counters

__all__ = ["Program", "rank", "top_users"]

# Programs that use less than this many CPUs are not worth a line.
WORTH_A_LINE = 0.02


class Program(NamedTuple):
    """A program that uses the CPUs.

    Attributes:
        name: Its name.
        owner: Who runs it; "?" where the system does not tell.
        cpus: How many CPUs all of its processes use.
        processes: How many of its processes are at work.
        nice: Their niceness.
    """

    name: str
    owner: str
    cpus: float
    processes: int
    nice: int = 0


def top_users(
    count: int = 5,
    *,
    seconds: float = 0.5,
    counters: Counters | None = None,
    wait: Callable[[float], object] | None = None,
    describe: Callable[[int], tuple[str, str] | None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Program]:
    """Look twice, `seconds` apart, and give the programs that used the CPUs most in between.

    Args:
        count: So many of them.
        seconds: The time between the looks. It is waited for.
        counters, wait, describe, clock: What to measure, wait, name and time by; tests plant them.
    """
    counters = system_counters() if counters is None else counters
    began, before = clock(), counters.table() or {}
    (threading.Event().wait if wait is None else wait)(seconds)
    return rank(before, counters.table() or {}, clock() - began, count=count, describe=describe)


def rank(
    before: dict[int, float],
    after: dict[int, float],
    seconds: float,
    *,
    count: int = 5,
    describe: Callable[[int], tuple[str, str] | None] | None = None,
    niceness: Callable[[int], int] | None = None,
) -> list[Program]:
    """Compare two tables of CPU seconds by pid. Processes of one name, owner and niceness are one program.

    This process itself is left out. Without `niceness`, which gives that of a pid, nobody looks at it.
    """
    describe = _name_and_owner if describe is None else describe
    found: dict[tuple[str, str, int], Program] = {}
    for pid, spent in after.items():
        cpus = max(0.0, spent - before.get(pid, 0.0)) / seconds if seconds > 0 else 0.0
        # Names cost more than numbers, so they are asked for only where a line may come of it.
        described = describe(pid) if cpus >= WORTH_A_LINE / 4 and pid != os.getpid() else None
        if described is None:
            continue
        key = (*described, niceness(pid) if niceness is not None else 0)
        known = found.get(key)
        total, processes = (cpus, 1) if known is None else (known.cpus + cpus, known.processes + 1)
        found[key] = Program(*described, total, processes, key[2])
    worthy = [program for program in found.values() if program.cpus >= WORTH_A_LINE]
    return sorted(worthy, key=lambda program: (-program.cpus, program.name))[:count]


def _name_and_owner(pid: int) -> tuple[str, str] | None:
    import psutil

    try:
        process = psutil.Process(pid)
        name = process.name() or "?"
    except (OSError, psutil.Error):
        return None
    try:
        owner = process.username()
    except (OSError, KeyError, psutil.Error):
        owner = "?"
    try:
        command = process.cmdline()
    except (OSError, psutil.Error):
        command = []
    return _with_script(name, command), owner


def _with_script(name: str, command: list[str]) -> str:
    """Say which script or module a Python runs; "python" alone tells nobody whose program it is."""
    if not name.lower().startswith("python"):
        return name
    words = iter(command[1:])
    for word in words:
        if word == "-m":
            return f"{name} -m {next(words, '')}".rstrip()
        if word == "-c":
            break
        if not word.startswith("-"):
            return f"{name} {os.path.basename(word)}" if word.endswith(".py") else name
    return name

# SPDX-License-Identifier: MIT
"""``python -m dummymp``: what this machine offers right now, in words.

This is the one module of the package that prints.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from . import __version__, niceness
from .counters import system_counters
from .cpus import CpuReader
from .limits import limit, machine, on_login_node
from .memory import memory
from .policy import decide
from .presets import PRESETS
from .programs import rank

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .presets import Preset

__all__ = ["main"]

# Seconds of measuring before the first page: the longest window of all presets.
FIRST_WINDOW = 0.5
BETWEEN_PAGES = 1.0
PRESET_NOTES = {"NUCLEAR": "never looks at others"}
# What nobody listed used is told from so many CPUs on: the counters tick in hundredths of a second.
UNLISTED = 0.1


def main(arguments: Sequence[str] | None = None, *, wait: Callable[[float], object] | None = None) -> int:
    """Run the command; give its exit code."""
    options = _parser().parse_args(arguments)
    wait = threading.Event().wait if wait is None else wait
    try:
        _run(options, wait)
    except KeyboardInterrupt:
        # With --watch that is how it ends, not an accident.
        return 0 if options.watch else 130
    except OSError as error:
        if not _pipe_is_closed(error):
            raise
        _forget_output()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dummymp",
        description="Show what this machine offers right now: CPUs, memory, who uses them, and how many workers "
        "each priority would run.",
    )
    parser.add_argument("--json", action="store_true", help="write it for programs")
    parser.add_argument("--watch", action="store_true", help="write it anew every second, until Ctrl-C")
    parser.add_argument("--version", action="version", version=f"dummymp {__version__}")
    return parser


def _run(options: argparse.Namespace, wait: Callable[[float], object]) -> None:
    survey = Survey()
    wait(FIRST_WINDOW)
    while True:
        status = survey.status()
        page = json.dumps(status) + "\n" if options.json else text(status)
        _write(page, clear=options.watch and not options.json)
        if not options.watch:
            return
        wait(BETWEEN_PAGES)


class Survey:
    """Measures the machine: what `status` tells is about the time since it was made, or since the last `status`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counters = system_counters()
        # Each threshold has a reader of its own, because they judge the same processes differently. Whoever asks
        # for the page wants it exact, so what the readers cost is not held against them.
        self._readers = {
            preset.name: CpuReader(clock, cost_clock=_for_free)
            for preset in PRESETS.values()
            if preset.threshold is not None
        }
        for reader in self._readers.values():
            reader.baseline(processes=True)
        self._table = self._counters.table() or {}
        self._totals = self._counters.totals()
        self._at = clock()

    def status(self) -> dict[str, Any]:
        """Give everything that the page says, as plain data."""
        ours, left = limit(), memory()
        table, now = self._counters.table() or {}, self._clock()
        seconds = now - self._at
        unlisted = self._unlisted(table, seconds)
        presets = [self._judge(preset, ours.count, left.free) for preset in PRESETS.values()]
        # Names take a while to find, so they come last: what is compared shall be about one time.
        programs = rank(self._table, table, seconds, niceness=self._niceness)
        self._table, self._at = table, now
        return {
            "version": __version__,
            "cpus": {"usable": ours.count, "machine": machine(), "limit": ours.source},
            "memory": {"available": left.available, "total": left.total, "limit": left.source},
            "login_node": on_login_node(),
            "measured_seconds": round(seconds, 3),
            "programs": [program._asdict() for program in programs],
            "came_and_went": round(unlisted, 3),
            "niceness": niceness.own(),
            "presets": presets,
        }

    def _niceness(self, pid: int) -> int:
        process = self._counters.process(pid)
        return 0 if process is None else process.nice

    def _unlisted(self, table: dict[int, float], seconds: float) -> float:
        """Say how many CPUs were busy with what no process shows that is there now: with those that came and went."""
        before, self._totals = self._totals, self._counters.totals()
        if before is None or self._totals is None or before[:3] != self._totals[:3] or seconds <= 0:
            return 0.0
        shown = sum(max(0.0, spent - self._table.get(pid, 0.0)) for pid, spent in table.items())
        return max(0.0, self._totals.work - before.work - shown) / seconds

    def _judge(self, preset: Preset, usable: int, free_memory: float | None) -> dict[str, Any]:
        free: int | None = usable
        beside_peers = None
        if preset.threshold is not None:
            reading = self._readers[preset.name].read(
                window=preset.window,
                threshold=preset.threshold,
                own=[os.getpid()],
                usable=usable,
                niceness=min(niceness.NICEST, niceness.own() + preset.nice),
                peers=preset.at_least == 0,
            )
            free, beside_peers = reading.free, reading.beside_peers
        decision = decide(
            preset,
            usable=usable,
            free=free,
            idle=None,
            beside_peers=beside_peers,
            running=0,
            max_processes=None,
            free_memory=free_memory,
            min_free_memory=None,
        )
        return {
            "name": preset.name,
            "nice": preset.nice,
            "free_cpus": free,
            "workers": decision.allowed,
            "waiting_for": decision.waiting_for,
        }


def text(status: dict[str, Any]) -> str:
    """Put a status in words."""
    lines = [f"dummymp {status['version']}: what this machine offers right now", ""]
    lines += _cpu_lines(status)
    lines += [""]
    lines += _memory_lines(status["memory"])
    lines += _preset_lines(status["presets"])
    if status["login_node"]:
        lines += [
            "",
            "This looks like the login node of a cluster (Slurm is here, but this is not one of its jobs). Heavy",
            "work is usually not welcome here: put it into a job, with sbatch.",
        ]
    return "\n".join(lines) + "\n"


def _cpu_lines(status: dict[str, Any]) -> list[str]:
    cpus = status["cpus"]
    lines = [f"CPUs     You may use {cpus['usable']} of {cpus['machine']}. What sets the limit: {cpus['limit']}."]
    unlisted = status["came_and_went"]
    if not status["programs"] and unlisted < UNLISTED:
        if any(preset["free_cpus"] not in (None, cpus["usable"]) for preset in status["presets"]):
            return [*lines, "         Others use them now, but who that is does not show."]
        return [*lines, "         Nobody else uses them now."]
    lines.append(f"         Who uses them now (CPUs, over {status['measured_seconds']:.1f} seconds):")
    for program in status["programs"]:
        name = _printable(program["name"])
        if program["processes"] > 1:
            name += f" (x{program['processes']})"
        owner = _printable(program["owner"]) + _note_of_nicer(program["nice"], status["niceness"])
        lines.append(f"           {program['cpus']:6.2f}  {name:<24} {owner}")
    if unlisted >= UNLISTED:
        lines.append(f"           {unlisted:6.2f}  programs that came and went meanwhile, or are hidden from you")
    return lines


def _note_of_nicer(nice: int, ours: int) -> str:
    """Say of a program that is nicer than our workers would be that it does not count, or for whom it does."""
    looking = {priority: preset for priority, preset in PRESETS.items() if preset.threshold is not None}
    counts = [
        _written(priority.name)
        for priority, preset in looking.items()
        if nice <= min(niceness.NICEST, ours + preset.nice)
    ]
    if len(counts) == len(looking):
        return ""
    return f" (nicer: gives way, {'counts only for ' + ', '.join(counts) if counts else 'does not count'})"


def _written(priority: str) -> str:
    """Give the name of a priority as users write it."""
    return priority.lower()


def _memory_lines(memory: dict[str, Any]) -> list[str]:
    if not memory["total"]:
        return ["Memory   Unknown.", ""]
    share = 100 * memory["available"] / memory["total"]
    free, total = _gigabytes(memory["available"]), _gigabytes(memory["total"])
    return [f"Memory   {free} of {total} GB are free ({share:.0f} %). What sets the limit: {memory['limit']}.", ""]


def _preset_lines(presets: list[dict[str, Any]]) -> list[str]:
    lines = ["Workers  that would run now, by priority:"]
    for preset in presets:
        note = PRESET_NOTES.get(preset["name"], "")
        if preset["nice"]:
            note = f"very considerate: niceness +{preset['nice']}"
        if preset["waiting_for"]:
            note = preset["waiting_for"]
        lines.append(f"           {preset['workers']:>4}  {_written(preset['name']):<12}{note}".rstrip())
    return lines


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f}"


def _printable(name: str) -> str:
    """Keep a program's name from steering the terminal."""
    return "".join(character if character.isprintable() else "?" for character in name)


def _for_free() -> float:
    return 0.0


def _write(page: str, *, clear: bool) -> None:
    """Write a page to a terminal, a file or a pipe, whatever its encoding."""
    stream = sys.stdout
    if stream is None:
        return  # A program without a console, such as pythonw.
    if clear and stream.isatty() and os.name != "nt":
        page = "\x1b[H\x1b[2J" + page
    elif clear:
        page += "\n"
    encoding = getattr(stream, "encoding", None) or "ascii"
    stream.write(page.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def _pipe_is_closed(error: OSError) -> bool:
    import errno

    # Windows calls it an invalid argument.
    return isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == errno.EINVAL)


def _forget_output() -> None:
    """Send what is still buffered nowhere, or the interpreter would complain at its end."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    os.close(sink)


if __name__ == "__main__":
    sys.exit(main())

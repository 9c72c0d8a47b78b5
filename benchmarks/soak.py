# SPDX-License-Identifier: MIT
"""What dummymp needs over a long time: descriptors, memory and processes, as numbers.

    python benchmarks/soak.py                  10,000 tasks, 100 resets, 100 worker deaths
    python benchmarks/soak.py --seconds 30     at most so long for each of the three
    python benchmarks/soak.py --check          fail if one of them grows

Each table is one process of its own. A leak of one descriptor or one page a round would show as a column that climbs
from row to row; memory may rise while Python warms up, and then stays.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil

import dummymp

ROWS = 10
# Memory may rise by so much from the middle of a run to its end: the results that a queue keeps, and the allocator's
# mood. A leak of one message a round would be far more in a long run.
SLACK = 4 << 20


def tasks(count: int) -> Iterator[int]:
    """Run tasks without resetting, in one queue after the other, so that results are not what grows."""
    for number in range(count):
        if number % 500 == 0:
            queue = dummymp.TaskQueue(priority="NUCLEAR", max_processes=2)
        queue.run(divmod, number, 7)
        if number % 100 == 99:
            queue.process_until_done()
            yield number + 1


def resets(count: int) -> Iterator[int]:
    """Start workers, run a few tasks, and go back to the beginning."""
    for number in range(count):
        dummymp.configure(priority="NUCLEAR", max_processes=2)
        for index in range(10):
            dummymp.run(divmod, index, 7)
        dummymp.process_until_done()
        dummymp.reset()
        yield number + 1


def deaths(count: int) -> Iterator[int]:
    """Let workers die under their tasks, and others go on."""
    queue = dummymp.TaskQueue(priority="NUCLEAR", max_processes=2)
    for number in range(count):
        if number % 2:
            queue.run(os._exit, 3)
        else:
            queue.run(os.kill, 0, signal.SIGKILL)  # The process group of the worker: itself and what it started.
        queue.run(divmod, number, 7)
        queue.process_until_done()
        yield number + 1


PARTS = {"tasks": tasks, "resets": resets, "deaths": deaths}


def look() -> tuple[int, int, int, int, float]:
    """Count what this process holds, and what is below it."""
    me = psutil.Process()
    below = me.children(recursive=True)
    memory = me.memory_info().rss
    return me.num_fds(), threading.active_count(), len(below), memory, sum(_rss(process) for process in below)


def _rss(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss)
    except psutil.Error:
        return 0.0


def one(part: str, count: int, seconds: float, check: bool) -> int:
    """Run one part in this process and print its table."""
    print(f"{part:>8}  descriptors  threads  processes  RSS MB  RSS of the others MB", flush=True)
    until = time.monotonic() + seconds if seconds else None
    rows = []
    for done in PARTS[part](count):
        over = until is not None and time.monotonic() >= until
        if done % max(1, count // ROWS) == 0 or over:
            row = look()
            rows.append(row)
            text = f"{done:>8}  {row[0]:>11}  {row[1]:>7}  {row[2]:>9}  {row[3] / 2**20:>6.1f}  {row[4] / 2**20:>20.1f}"
            print(text, flush=True)
        if over:
            break
    grown = _grown(rows)
    if check and grown:
        print(f"{part}: {grown}", file=sys.stderr)
    return 1 if check and grown else 0


def _grown(rows: list[tuple[int, int, int, int, float]]) -> str:
    """Say what was more in the second half than ever in the first."""
    half = len(rows) // 2
    first, second = rows[:half], rows[half:]
    if not first or not second:
        return ""
    grown = []
    for column, name, slack in ((0, "descriptors", 0), (1, "threads", 0), (2, "processes", 0), (3, "memory", SLACK)):
        # The least of the second half: a worker that has just died or started is no leak.
        before, after = max(row[column] for row in first), min(row[column] for row in second)
        if after > before + slack:
            grown.append(f"{name} grew from {before} to {after}")
    return "; ".join(grown)


def main() -> int:
    """Run each part in a process of its own, so that one does not warm up the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0, help="the most that each part may take")
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--resets", type=int, default=100)
    parser.add_argument("--deaths", type=int, default=100)
    parser.add_argument("--check", action="store_true", help="fail if something grows")
    parser.add_argument("--part", choices=tuple(PARTS), help="only this one, in this process")
    options = parser.parse_args()
    if options.part:
        # The deaths are meant; only what grows is of interest.
        import logging

        logging.getLogger("dummymp").setLevel(logging.CRITICAL)
        return one(options.part, getattr(options, options.part), options.seconds, options.check)
    failed = 0
    for part in PARTS:
        failed |= subprocess.run([sys.executable, __file__, *sys.argv[1:], "--part", part]).returncode
        print(flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

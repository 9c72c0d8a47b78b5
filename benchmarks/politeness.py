# SPDX-License-Identifier: MIT
"""Politeness: what the neighbours lose, what we get of the CPUs that they leave, and how soon we react.

    python benchmarks/politeness.py                              everything, some minutes
    python benchmarks/politeness.py --parts neighbours --rounds 3 --only GENEROUS Pool
    python benchmarks/politeness.py --parts reactions readings sharing waiting

Neighbours are processes that compute without end and count how often they got round; they do not descend from the
program that is measured. Every program runs as a whole script, as a user's would. All that is started here ends within
the seconds that it was given, whatever becomes of this script. Measure on a machine that has nothing else to do; the
load that was there before is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from typing import Any

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PRESETS = ("GENEROUS", "NORMAL", "AGGRESSIVE", "EXTREME", "NUCLEAR")
SYSTEMS = (*PRESETS, "Pool", "joblib")
PARTS = ("neighbours", "reactions", "sharing", "waiting", "readings")

# Nobody here lives for longer than so many seconds.
LIFETIME = 60.0
# Seconds that programs have to start and to settle before anything is measured, and that are measured then.
SETTLE = 2.0
MEASURE = 4.0

# --- what runs: neighbours, tasks and programs --------------------------------------------------------------------

COMPUTE = """
    import os, sys, time
    def rounds():
        # About a tenth of a millisecond; nothing that is kept, nothing that is written.
        total = 0
        for number in range(2000):
            total += number * number
        return 1
"""

NEIGHBOUR = """
    end, path = time.time() + float(sys.argv[1]), sys.argv[2]
    count, written = 0, 0.0
    with open(path, "w") as file:
        while (now := time.time()) < end:
            count += rounds()
            if now - written > 0.02:
                print(now, count, time.process_time(), file=file, flush=True)
                written = now
"""

TASK = """
    def work(seconds, end):
        began, spent, count = time.time(), time.process_time(), 0
        if seconds < 0:
            time.sleep(max(0.0, min(-seconds, end - began)))
        while time.process_time() - spent < seconds and time.time() < end:
            count += rounds()
        return began, time.time(), count, time.process_time() - spent, os.getpid()
"""

# Each is given: SECONDS of a task (below 0: it sleeps), COUNT of tasks, END, when all of them stop; it fills `found`.
PROGRAMS = {
    "dummymp": """
        import dummymp
        dummymp.configure(priority=PRIORITY, max_processes=CAP)
        for _ in range(COUNT):
            dummymp.run(work, SECONDS, END)
        dummymp.process_until_done(timeout=max(0.0, END + 0.5 - time.time()))
        found += dummymp.get_returns().values()
        dummymp.reset()
    """,
    "Pool": """
        import multiprocessing, itertools
        with multiprocessing.Pool() as pool:
            results = [pool.apply_async(work, (SECONDS, END)) for _ in range(COUNT)]
            for result in results:
                if time.time() > END: break
                found.append(result.get())
    """,
    "joblib": """
        import joblib
        calls = (joblib.delayed(work)(SECONDS, END) for _ in range(COUNT))
        for answer in joblib.Parallel(n_jobs=-1, return_as="generator_unordered")(calls):
            found.append(answer)
    """,
}
PROGRAM = """
    if __name__ == "__main__":
        import json
        found = []
        spent = time.process_time()
        BODY
        print(json.dumps([[answer for answer in found if answer[0] < END], time.process_time() - spent]))
        sys.stdout.flush()
"""


def program(system: str, *, seconds: float, end: float, count: int = 0, cap: int | None = None) -> str:
    """Put the script together that runs tasks of so many CPU seconds on one system, until `end`."""
    preset = system in PRESETS
    count = count or int((end - time.time()) / max(abs(seconds), 0.01) * CPUS) + 20
    names = {"SECONDS": seconds, "COUNT": count, "END": end, "PRIORITY": system, "CAP": cap}
    head = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    body = textwrap.indent(textwrap.dedent(PROGRAMS["dummymp" if preset else system]), " " * 4)
    whole = textwrap.dedent(PROGRAM).replace("    BODY\n", body)
    return head + textwrap.dedent(COMPUTE) + textwrap.dedent(TASK) + whole


class Answer:
    """What the tasks of a program said: when each began and ended, how much it got done, and where."""

    def __init__(self, text: str) -> None:
        self.tasks, self.parent_seconds = json.loads(text)

    def done(self, since: float, until: float) -> tuple[float, float]:
        """Give the rounds and the CPU seconds of all tasks between two moments."""
        counts = spent = 0.0
        for began, ended, count, seconds, _ in self.tasks:
            share = max(0.0, min(ended, until) - max(began, since)) / max(ended - began, 1e-6)
            counts += count * share
            spent += seconds * share
        return counts, spent

    def running(self, moment: float) -> int:
        """Say how many tasks ran at a moment."""
        return sum(began <= moment < ended for began, ended, *_ in self.tasks)


class Bench:
    """Starts scripts in a folder of its own, and ends what is left of them."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._started: list[subprocess.Popen[Any]] = []
        self._number = 0

    def start(self, source: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        self._number += 1
        path = os.path.join(self._folder, f"script{self._number}.py")
        with open(path, "w") as file:
            file.write(source)
        options = {"stdout": subprocess.PIPE, "text": True, **options}
        environ = dict(os.environ, PYTHONPATH=HERE)
        process = subprocess.Popen([sys.executable, path, *arguments], env=environ, **options)
        self._started.append(process)
        return process

    def run(self, system: str, **rules: Any) -> subprocess.Popen[str]:
        return self.start(program(system, **rules))

    @contextlib.contextmanager
    def neighbours(self, count: int) -> Iterator[list[Neighbour]]:
        """Have so many neighbours within a ``with`` block."""
        found = [Neighbour(self, os.path.join(self._folder, f"n{self._number}.{n}")) for n in range(count)]
        try:
            yield found
        finally:
            for neighbour in found:
                neighbour.leave()

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()


class Neighbour:
    """A process that computes without end."""

    def __init__(self, bench: Bench, path: str) -> None:
        self._path = path
        source = textwrap.dedent(COMPUTE) + textwrap.dedent(NEIGHBOUR)
        self._process = bench.start(source, str(LIFETIME), path, stdout=None)
        while not (os.path.exists(path) and os.path.getsize(path)):
            time.sleep(0.01)

    def done(self, since: float, until: float) -> tuple[float, float]:
        """Give its rounds and its CPU seconds between two moments."""
        with open(self._path) as file:
            lines = [line.split() for line in file.read().split("\n")[:-1]]
        points = [(float(at), float(count), float(spent)) for at, count, spent in lines]
        first, last = _at(points, since), _at(points, until)
        return last[0] - first[0], last[1] - first[1]

    def leave(self) -> None:
        self._process.kill()
        self._process.wait()


def _at(points: list[tuple[float, float, float]], moment: float) -> tuple[float, float]:
    """Interpolate what was written every 20 ms."""
    before = max((point for point in points if point[0] <= moment), default=points[0])
    after = min((point for point in points if point[0] > moment), default=before)
    share = (moment - before[0]) / (after[0] - before[0]) if after[0] > before[0] else 0.0
    return before[1] + share * (after[1] - before[1]), before[2] + share * (after[2] - before[2])


# --- the parts ----------------------------------------------------------------------------------------------------


def median(values: list[float]) -> float:
    return statistics.median(values) if values else float("nan")


def table(head: list[str], rows: list[list[str]]) -> None:
    print("|", " | ".join(head), "|")
    print("|" + "---|" * len(head))
    for row in rows:
        print("|", " | ".join(row), "|", flush=True)
    print(flush=True)


def measure_neighbours(bench: Bench, systems: list[str], rounds: int) -> None:
    """What k neighbours lose by each system, and what that gets of the CPUs which they leave."""
    cells: dict[tuple[str, int], list[tuple[float, float]]] = {}
    counts = sorted({0, 1, CPUS})
    for _ in range(rounds):
        for system in systems:
            for count in counts:
                cells.setdefault((system, count), []).append(_beside(bench, system, count))
    print("Slowdown of k neighbours; in brackets the CPUs that our tasks got, of those left.\n")
    rows = []
    for system in systems:
        row = [system]
        for count in counts:
            lost, got = (median(list(column)) for column in zip(*cells[system, count]))
            left = CPUS - count
            text = f"{got:.2f} CPUs" if not left else f"{got:.2f} of {left}, {got / left:.0%}"
            row.append(f"{lost:.0%} ({text})" if count else f"({text})")
        rows.append(row)
    table(["", *(f"k = {count}" for count in counts)], rows)


def _beside(bench: Bench, system: str, count: int) -> tuple[float, float]:
    """Let a system run beside neighbours; give the share that they lost, and the CPUs that its tasks got."""
    with bench.neighbours(count) as neighbours:
        alone_since = time.time() + 0.3
        time.sleep(0.3 + (1.5 if count else 0.0))
        alone_until = time.time()
        since = time.time() + SETTLE
        until = since + MEASURE
        process = bench.run(system, seconds=0.1, end=until + 0.3)
        time.sleep(max(0.0, until - time.time()) + 0.1)
        alone = sum(neighbour.done(alone_since, alone_until)[0] for neighbour in neighbours)
        beside = sum(neighbour.done(since, until)[0] for neighbour in neighbours)
    answer = Answer(process.communicate(timeout=LIFETIME)[0])
    got = answer.done(since, until)[1] / MEASURE
    if not count:
        return 0.0, got
    return 1 - (beside / MEASURE) / (alone / (alone_until - alone_since)), got


def measure_reactions(bench: Bench, systems: list[str], rounds: int) -> None:
    """How long it takes until we notice that others come and go."""
    rows = []
    for system in [name for name in systems if name in PRESETS and name != "NUCLEAR"]:
        come, leave, leave_long = [], [], []
        for _ in range(rounds):
            come.append(_others_come(bench, system))
            leave.append(_others_leave(bench, system, 0.1))
            leave_long.append(_others_leave(bench, system, 5.0))
        rows.append([system, *(_seconds(values) for values in (come, leave, leave_long))])
    print("Seconds, median (largest).\n")
    head = ["others come: the last task started too many", "others leave: one more task, tasks of 0.1 s"]
    table(["", *head, "the same, while no task ends (tasks of 5 s)"], rows)


def _seconds(values: list[float]) -> str:
    return f"{median(values):.2f} ({max(values):.2f})"


def _others_come(bench: Bench, system: str) -> float:
    """Say how long after as many neighbours as CPUs came, we still started a task beside the one that always may."""
    end = time.time() + SETTLE + 2.5
    process = bench.run(system, seconds=0.1, end=end)
    time.sleep(SETTLE)
    with bench.neighbours(CPUS):
        came = time.time()
        time.sleep(max(0.0, end - time.time()))
    answer = Answer(process.communicate(timeout=LIFETIME)[0])
    allowed = 0 if system == "GENEROUS" else 1
    late = [task[0] - came for task in answer.tasks if task[0] >= came and answer.running(task[0]) > allowed]
    return max(late, default=0.0)


def _others_leave(bench: Bench, system: str, seconds: float) -> float:
    """Say how long after the neighbours left, we started a task more than before."""
    end = time.time() + SETTLE + 3.0
    with bench.neighbours(CPUS):
        process = bench.run(system, seconds=seconds, end=end)
        time.sleep(SETTLE)
    left = time.time()
    answer = Answer(process.communicate(timeout=LIFETIME)[0])
    allowed = 0 if system == "GENEROUS" else 1
    if answer.running(left) > allowed:
        return 0.0  # It had one more already: a short look had found a neighbour using little.
    more = [task[0] - left for task in answer.tasks if task[0] >= left and answer.running(task[0]) > allowed]
    return min(more, default=float("inf"))


def measure_sharing(bench: Bench, systems: list[str], rounds: int) -> None:
    """Three programs that start in the same instant."""
    rows = []
    for system in systems:
        for seconds in (0.2, 2.0):
            found = [_three(bench, system, seconds) for _ in range(rounds)]
            values = [median(list(column)) for column in zip(*found)]
            rows.append(
                [
                    f"{system}, tasks of {seconds:g} s",
                    f"{values[0]:.0%} / {values[1]:.0%} / {values[2]:.0%}",
                    f"{values[3]:.1f}",
                    f"{max(row[4] for row in found):.0f}",
                    f"{values[5]:.2f} s",
                ]
            )
    print(f"Three programs on {CPUS} CPUs, for 8 s.\n")
    head = ["share of the work", "tasks at once, average", "at most", f"more than {max(3, CPUS)} at once, in all"]
    table(["", *head], rows)


def _three(bench: Bench, system: str, seconds: float) -> tuple[float, ...]:
    end = time.time() + 8.0
    processes = [bench.run(system, seconds=seconds, end=end) for _ in range(3)]
    answers = [Answer(process.communicate(timeout=LIFETIME)[0]) for process in processes]
    first = min((task[0] for answer in answers for task in answer.tasks), default=end)
    parts = sorted(answer.done(first, end)[0] for answer in answers)
    step = 0.01
    moments = [first + step * number for number in range(int((end - 0.2 - first) / step))]
    at_once = [sum(answer.running(moment) for answer in answers) for moment in moments]
    over = sum(number > max(3, CPUS) for number in at_once) * step
    whole = max(sum(parts), 1e-9)
    return (*(part / whole for part in parts), sum(at_once) / max(len(at_once), 1), max(at_once, default=0), over)


def measure_waiting(bench: Bench, rounds: int) -> None:
    """More workers than CPUs, for tasks that wait."""
    rows = []
    for what, seconds in (("sleep", -0.5), ("compute", 0.5)):
        most, until_most = [], []
        for _ in range(rounds):
            asked = time.time()
            end = asked + 5.0
            process = bench.run("NORMAL", seconds=seconds, end=end, cap=6 * CPUS, count=120 * CPUS)
            answer = Answer(process.communicate(timeout=LIFETIME)[0])
            moments = [task[0] for task in answer.tasks]
            numbers = {moment: answer.running(moment) for moment in moments}
            most.append(float(max(numbers.values(), default=0)))
            first = min(moments, default=asked)
            until_most.append(min((m - first for m in moments if numbers[m] == most[-1]), default=0.0))
        rows.append([f"tasks that {what} for {abs(seconds):g} s", f"{median(most):.0f}", f"{median(until_most):.2f} s"])
    table([f"max_processes={6 * CPUS} on {CPUS} CPUs, NORMAL", "at once, at most", "reached after"], rows)


READINGS = """
    import os, sys, time
    from dummymp.cpus import CpuReader
    from dummymp.presets import PRESETS
    seconds = float(sys.argv[1])
    for preset in PRESETS.values():
        if preset.threshold is None: continue
        reader = CpuReader()
        reader.baseline()
        each, wall, cpu = [], time.perf_counter(), time.process_time()
        while time.perf_counter() - wall < seconds:
            time.sleep(preset.window)
            before = time.process_time()
            reader.read(window=preset.window * 0.99, threshold=preset.threshold, own=[os.getpid()], usable=2)
            each.append(time.process_time() - before)
        print(preset.name, sorted(each)[len(each) // 2] * 1e6, max(each) * 1e3, sum(each) / seconds * 100)
"""


def measure_readings(bench: Bench, rounds: int) -> None:
    """What a reading costs, with many processes on the machine."""
    rows = []
    for many in (0, 100, 1000):
        with _sleepers(many):
            total = len([name for name in os.listdir("/proc") if name.isdigit()]) if os.path.isdir("/proc") else many
            for busy in (0, CPUS):
                with bench.neighbours(busy):
                    found: dict[str, list[list[float]]] = {}
                    for _ in range(rounds):
                        process = bench.start(textwrap.dedent(READINGS), "4")
                        for line in process.communicate(timeout=LIFETIME)[0].splitlines():
                            name, *numbers = line.split()
                            found.setdefault(name, []).append([float(number) for number in numbers])
                for name, lines in found.items():
                    each, largest, share = (median(list(column)) for column in zip(*lines))
                    where = f"{total}, {'others compute' if busy else 'quiet'}"
                    rows.append([where, name, f"{each:.0f} µs", f"{largest:.1f} ms", f"{share:.2f} %"])
    table(["processes on the machine", "preset", "a reading, median", "largest", "of one CPU, on average"], rows)


@contextlib.contextmanager
def _sleepers(count: int) -> Iterator[None]:
    """Have so many processes that do nothing."""
    found = [subprocess.Popen(["sleep", str(LIFETIME * 3)]) for _ in range(count)]
    try:
        yield
    finally:
        for process in found:
            process.kill()
        for process in found:
            process.wait()


def main() -> None:
    """Measure, and print markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    arguments = parser.parse_args()
    systems = [name for name in arguments.only if name != "joblib" or _installed("joblib")]
    where = f"Python {platform.python_version()}, {platform.system()}, {CPUS} CPUs"
    load = f", load before: {os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else ""
    print(f"{where}, medians of {arguments.rounds} rounds{load}\n")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder)
        try:
            for part in arguments.parts:
                print(f"### {part}\n")
                measure = globals()[f"measure_{part}"]
                measure(bench, *([systems] if part in ("neighbours", "reactions", "sharing") else []), arguments.rounds)
        finally:
            bench.end()


def _installed(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


if __name__ == "__main__":
    main()

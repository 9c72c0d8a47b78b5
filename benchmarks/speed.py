# SPDX-License-Identifier: MIT
"""Speed, side by side: dummymp and the pools that people use today, in one run.

    python benchmarks/speed.py                     all systems that are installed, 5 rounds: half an hour
    python benchmarks/speed.py --rounds 3 --only dummymp Pool --no-arrays

Each system runs in a process of its own, the rounds are interleaved, and what is printed are medians, because machines
are noisy and drift: compare the columns of one run, never numbers of two runs. Install the peers with
``python -m pip install ".[bench]"``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable

# --- how each system maps `work` over items, as fast as it can; a chunk size where it wants one ---

MAPS = {
    "dummymp": """
        import dummymp
        dummymp.configure(priority="NUCLEAR", max_processes=WORKERS)
        def calls(items):
            return list(dummymp.map(work, items))
    """,
    "Pool": """
        import multiprocessing
        pool = multiprocessing.Pool(WORKERS)
        def calls(items):
            return pool.map(work, items)
    """,
    "ProcessPoolExecutor": """
        import concurrent.futures
        pool = concurrent.futures.ProcessPoolExecutor(WORKERS)
        def calls(items):
            return list(pool.map(work, items, chunksize=1 + len(items) // (4 * WORKERS)))
    """,
    "loky": """
        import loky
        pool = loky.get_reusable_executor(WORKERS)
        def calls(items):
            return list(pool.map(work, items, chunksize=1 + len(items) // (4 * WORKERS)))
    """,
    "joblib": """
        import joblib
        pool = joblib.Parallel(WORKERS)
        def calls(items):
            return pool(joblib.delayed(work)(item) for item in items)
    """,
    "pebble": """
        import pebble
        pool = pebble.ProcessPool(WORKERS)
        def calls(items):
            return list(pool.map(work, items, chunksize=1 + len(items) // (4 * WORKERS)).result())
    """,
    "mpire": """
        import mpire
        pool = mpire.WorkerPool(WORKERS, keep_alive=True)
        def calls(items):
            return pool.map(work, items)
    """,
}

# --- how each system runs `count` calls of `work(item)`; each is a whole script, so that each is used as it is meant --

SYSTEMS = {
    "dummymp": """
        import dummymp
        dummymp.configure(priority="NUCLEAR", max_processes=WORKERS)
        def calls(items):
            for item in items: dummymp.run(work, item)
            dummymp.process_until_done()
            return dummymp.get_returns()
    """,
    "Pool": """
        import multiprocessing
        pool = multiprocessing.Pool(WORKERS)
        def calls(items):
            return [result.get() for result in [pool.apply_async(work, (item,)) for item in items]]
    """,
    "ProcessPoolExecutor": """
        import concurrent.futures
        pool = concurrent.futures.ProcessPoolExecutor(WORKERS)
        def calls(items):
            return [future.result() for future in [pool.submit(work, item) for item in items]]
    """,
    "loky": """
        import loky
        pool = loky.get_reusable_executor(WORKERS)
        def calls(items):
            return [future.result() for future in [pool.submit(work, item) for item in items]]
    """,
    "joblib": """
        import joblib
        pool = joblib.Parallel(WORKERS)
        def calls(items):
            return pool(joblib.delayed(work)(item) for item in items)
    """,
    "pebble": """
        import pebble
        pool = pebble.ProcessPool(WORKERS)
        def calls(items):
            return [future.result() for future in [pool.submit(work, None, item) for item in items]]
    """,
    "mpire": """
        import mpire
        pool = mpire.WorkerPool(WORKERS, keep_alive=True)
        def calls(items):
            return [result.get() for result in [pool.apply_async(work, (item,)) for item in items]]
    """,
    # What cannot be beaten: two plain processes, the work split beforehand, no results.
    "limit": """
        import multiprocessing
        def share(items):
            for item in items: work(item)
        def calls(items):
            context = multiprocessing.get_context("fork")
            processes = [context.Process(target=share, args=(items[n::WORKERS],)) for n in range(WORKERS)]
            for process in processes: process.start()
            for process in processes: process.join()
    """,
    # No pool at all. NumPy has all CPUs then, as it has in each worker where nobody sets it limits.
    "plain loop": """
        def calls(items):
            return [work(item) for item in items]
    """,
}

WORK = """
    import time
    def work(item):
        if item: time.sleep(item) if SLEEP else spin(item)
        return None
    def spin(seconds):
        until = time.perf_counter() + seconds
        while time.perf_counter() < until: pass
"""

# The items (seconds that each call takes), whether the calls sleep or compute, and the unit of the row.
WORKLOADS: dict[str, tuple[str, bool, str]] = {
    "20,000 no-op calls": ("[0] * 20_000", False, "calls a second"),
    "2,000 calls of 1 ms": ("[0.001] * 2_000", False, "efficiency"),
    "400 instant calls, then 6 of 0.5 s": ("[0] * 400 + [0.5] * 6", True, "seconds"),
    "200 calls of 5 ms, then one of 1 s": ("[0.005] * 200 + [1.0]", True, "seconds"),
}

# Rows with arrays: the function, the items, and the bytes that travel once each (None: the row is in seconds).
ARRAYS = """
    import numpy
    table = numpy.zeros(10_000_000)
"""
ARRAY_WORKLOADS: dict[str, tuple[str, str, float | None]] = {
    "20 arrays of 40 MB in": (
        "def work(array): return float(array.sum())",
        "[numpy.full(5_000_000, float(number)) for number in range(20)]",
        800e6,
    ),
    "20 arrays of 40 MB out": (
        "def work(number): return numpy.full(5_000_000, float(number))",
        "list(range(20))",
        800e6,
    ),
    "the same 80 MB array to 100 calls": ("def work(array): return float(array[-1])", "[table] * 100", None),
    "a function that reads an 80 MB global array, 100 calls": (
        "def work(place): return float(table[place])",
        "list(range(100))",
        None,
    ),
}

# A row of its own: calls that would each use all CPUs by themselves. Here the plain loop takes part.
SVDS = "24 SVDs of 400 x 400"
SVD_WORK = """
    import numpy
    def work(seed): return numpy.linalg.svd(numpy.random.default_rng(seed).random((400, 400)))[1]
"""
SVD_ITEMS = "list(range(24))"

# What comes back is read, too: to be handed memory and never to look at it would be no fair measure.
ARRAY_MAIN = """
    if __name__ == "__main__":
        import time
        items = ITEMS
        calls(items[:2])
        began = time.perf_counter()
        returned = calls(items)
        for value in returned.values() if isinstance(returned, dict) else returned: numpy.sum(value)
        print(time.perf_counter() - began, flush=True)
"""

MAIN = """
    if __name__ == "__main__":
        import time
        calls([0] * 20)  # Workers are up; starting them is measured by a row of its own.
        items = ITEMS
        began = time.perf_counter()
        calls(items)
        print(time.perf_counter() - began, flush=True)
"""

MAPPED = "map over 200,000 no-op items"
MAP_ITEMS = "[0] * 200_000"

THREE_CALLS = """
    if __name__ == "__main__":
        calls([0] * 3)
"""


def script(
    system: str, items: str, sleep: bool, main: str = MAIN, work: str = WORK, systems: dict[str, str] = SYSTEMS
) -> str:
    """Put a script together that runs one workload on one system."""
    head = f"WORKERS = {os.cpu_count() or 1}\nSLEEP = {sleep}\n"
    source, main = systems[system], main.replace("ITEMS", items)
    parts = [work, source, main]
    if system == "Pool":  # A fork pool must know the function before it forks.
        parts = [work, main.replace("calls(", "pool, calls = make(); calls(", 1), ""]
        parts.insert(1, "def make():\n" + textwrap.indent(textwrap.dedent(source), "    ") + "\n    return pool, calls")
    return head + "\n".join(textwrap.dedent(part) for part in parts)


def run(source: str) -> tuple[str, float]:
    """Run a script as a user does; give what it printed and the seconds from nothing to its end."""
    import time

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "script.py")
        with open(path, "w") as file:
            file.write(source)
        began = time.perf_counter()
        done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=120, check=False)
        seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout, seconds


# What a program pays that nobody compares: whole scripts, each of which prints one number.
ALONE = {
    "import dummymp, beyond Python itself": (
        """
        import subprocess, sys, time
        def seconds(code):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            return time.perf_counter() - began
        print(min(seconds("import dummymp") for _ in range(15)) - min(seconds("pass") for _ in range(15)))
        """,
        lambda seconds: f"{seconds * 1e3:.1f} ms",
    ),
    "one `run` call with a small argument": (
        """
        import dummymp, time
        def work(item): return None
        dummymp.run(work, 0)
        began = time.perf_counter()
        for _ in range(20_000): dummymp.run(work, 0)
        print((time.perf_counter() - began) / 20_000)
        dummymp.reset()
        """,
        lambda seconds: f"{seconds * 1e6:.1f} microseconds",
    ),
    "memory for a queued no-op call": (
        """
        import dummymp, psutil
        def work(item): return None
        for _ in range(100): dummymp.run(work, 0)
        before = psutil.Process().memory_info().rss
        for _ in range(100_000): dummymp.run(work, 0)
        print((psutil.Process().memory_info().rss - before) / 100_000)
        dummymp.reset()
        """,
        lambda size: f"{size:.0f} bytes",
    ),
    "CPU of the parent while 2 calls sleep 3 s": (
        """
        import dummymp, time
        dummymp.configure(priority="NUCLEAR", max_processes=2)
        for _ in range(2): dummymp.run(time.sleep, 0)
        dummymp.process_until_done()
        for _ in range(2): dummymp.run(time.sleep, 3)
        dummymp.step()
        began = time.process_time()
        dummymp.process_until_done()
        print(time.process_time() - began)
        """,
        lambda seconds: f"{seconds * 1e3:.1f} ms",
    ),
    "1,000,000 queued calls: rate against 10,000": (
        """
        import dummymp, time
        def work(item): return None
        def rate(count):
            dummymp.reset()
            dummymp.configure(priority="NUCLEAR")
            for _ in range(20): dummymp.run(work, 0)
            dummymp.process_until_done()
            began = time.perf_counter()
            for _ in range(count): dummymp.run(work, 0)
            dummymp.process_until_done()
            return count / (time.perf_counter() - began)
        few = sorted(rate(10_000) for _ in range(5))[2]
        print(rate(1_000_000) / few)
        """,
        lambda share: f"{share:.2f}",
    ),
}


def installed(system: str) -> bool:
    """Tell whether a system can be imported here."""
    import importlib.util

    if system == "limit":
        return hasattr(os, "fork")
    return system in ("Pool", "ProcessPoolExecutor", "plain loop") or importlib.util.find_spec(system) is not None


def measure(everyone: list[str], rounds: int, *, arrays: bool) -> dict[str, dict[str, list[float]]]:
    """Give ``{row: {system: [one number a round]}}``; rounds are interleaved."""
    table: dict[str, dict[str, list[float]]] = {}

    def note(row: str, system: str, ask: Callable[[], float]) -> None:
        try:
            table.setdefault(row, {}).setdefault(system, []).append(ask())
        except Exception as error:
            print(f"{system}, {row}: {error}", file=sys.stderr)

    has_numpy = arrays and installed("numpy")
    systems = [system for system in everyone if system not in ("limit", "plain loop")]
    for _ in range(rounds):
        for row, (items, sleep, _unit) in WORKLOADS.items():
            for system in everyone:
                if system == "plain loop":
                    continue
                note(row, system, lambda s=system, i=items, z=sleep: float(run(script(s, i, z))[0]))  # type: ignore[misc]
        for row, (work, items, _bytes) in ARRAY_WORKLOADS.items() if has_numpy else ():
            text = textwrap.dedent(ARRAYS) + work
            for system in systems:
                note(row, system, lambda s=system, i=items, w=text: float(run(script(s, i, False, ARRAY_MAIN, w))[0]))  # type: ignore[misc]
        for system in everyone if installed("numpy") else ():
            if system != "limit":
                source = script(system, SVD_ITEMS, False, ARRAY_MAIN, SVD_WORK)
                note(SVDS, system, lambda s=source: float(run(s)[0]))  # type: ignore[misc]
        for system in systems:
            note(MAPPED, system, lambda s=system: float(run(script(s, MAP_ITEMS, False, systems=MAPS))[0]))  # type: ignore[misc]
        for system in systems:
            note("a script with three calls", system, lambda s=system: run(script(s, "[]", False, THREE_CALLS))[1])  # type: ignore[misc]
    return table


def shown(row: str, seconds: float) -> str:
    """Put a median into the unit of its row."""
    workers = os.cpu_count() or 1
    if row in ARRAY_WORKLOADS:
        size = ARRAY_WORKLOADS[row][2]
        return f"{seconds:.2f} s" if size is None else f"{size / seconds / 1e9:.2f} GB/s"
    unit = WORKLOADS.get(row, ("", False, "milliseconds"))[2]
    if row == SVDS:
        return f"{seconds:.2f} s"
    if row == MAPPED:
        return f"{0.2 / seconds:.2f} million/s"
    if unit == "calls a second":
        return f"{20_000 / seconds:,.0f}/s"
    if unit == "efficiency":
        return f"{2.0 / workers / seconds:.2f}"
    return f"{seconds:.2f} s" if unit == "seconds" else f"{seconds * 1000:.0f} ms"


def cell(row: str, system: str, medians: dict[str, float]) -> str:
    """Give the number of a system, and how much longer it took than dummymp."""
    if system not in medians:
        return "-"
    text = shown(row, medians[system])
    if system == "dummymp" or "dummymp" not in medians:
        return text
    return f"{text} ({medians[system] / medians['dummymp']:.2f})"


def print_alone(rounds: int) -> None:
    """Print what a program pays that nobody compares."""
    print(f"{where()}, medians of {rounds} rounds\n\n| dummymp alone | |\n|---|---|")
    for row, (source, text) in ALONE.items():
        numbers = [float(run(textwrap.dedent(source))[0]) for _ in range(rounds)]
        print(f"| {row} | {text(statistics.median(numbers))} |")


def where() -> str:
    """Say on what machine this is."""
    return f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} CPUs"


def main() -> None:
    """Measure and print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(SYSTEMS))
    parser.add_argument("--no-arrays", action="store_true", help="leave out the rows with arrays, which take long")
    parser.add_argument("--alone", action="store_true", help="only what a program pays that nobody compares")
    parser.add_argument("--json", action="store_true", help="print every number")
    arguments = parser.parse_args()
    if arguments.alone:
        print_alone(arguments.rounds)
        return
    systems = [system for system in arguments.only or SYSTEMS if installed(system)]
    table = measure(systems, arguments.rounds, arrays=not arguments.no_arrays)
    if arguments.json:
        print(json.dumps(table))
        return
    print(f"{where()}, medians of {arguments.rounds} rounds. In brackets: how many times as fast dummymp is.\n")
    print("| workload |", " | ".join(systems), "|")
    print("|---|" + "---|" * len(systems))
    for row, cells in table.items():
        medians = {system: statistics.median(numbers) for system, numbers in cells.items() if numbers}
        print(f"| {row} |", " | ".join(cell(row, system, medians) for system in systems), "|")
    if not arguments.only:
        print()
        print_alone(arguments.rounds)


if __name__ == "__main__":
    main()

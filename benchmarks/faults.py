# SPDX-License-Identifier: MIT
"""What becomes of a program when one of its tasks comes to a bad end: dummymp and the pools that people use today.

    python benchmarks/faults.py                         all systems that are installed, as a table in Markdown
    python benchmarks/faults.py --only Pool dummymp --details

Each case is a script of its own with a time limit: 12 calls on 2 workers, the sixth of which goes wrong. It is right
if the other eleven results are there, the sixth call and no other has an error that fits, the script ends, and no
process of it is left two seconds later. joblib and loky must be installed: ``pip install joblib loky``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from pathlib import Path
from typing import Any

import psutil

CALLS = 12
FAULTY = 5
MARK = "DUMMYMP_FAULTS_MARK"

# --- how each system is meant to be used: queue a call, wait for all, ask what came of one ---------------------------

SYSTEMS = {
    "dummymp": """
        import dummymp
        dummymp.configure(priority="NUCLEAR", max_processes=2)
        submit = dummymp.run
        def wait(calls): dummymp.process_until_done()
        def outcome(call): return call.result()
    """,
    "Pool": """
        import multiprocessing
        pool = None
        def submit(func, *args):
            global pool
            pool = pool or multiprocessing.Pool(2)
            return pool.apply_async(func, args)
        def wait(calls):
            for call in calls: call.wait()
        def outcome(call): return call.get(0)
    """,
    "ProcessPoolExecutor": """
        import concurrent.futures
        pool = concurrent.futures.ProcessPoolExecutor(2)
        submit = pool.submit
        wait = concurrent.futures.wait
        def outcome(call): return call.result(0)
    """,
    "loky": """
        import concurrent.futures, loky
        def submit(func, *args): return loky.get_reusable_executor(2).submit(func, *args)
        wait = concurrent.futures.wait
        def outcome(call): return call.result(0)
    """,
    "joblib": """
        import joblib
        def submit(func, *args): return [joblib.delayed(func)(*args), None, None]
        def wait(calls):
            results, error = [None] * len(calls), RuntimeError("interrupted")
            try:
                results, error = joblib.Parallel(2)(call[0] for call in calls), None
            except Exception as problem:
                error = problem
            finally:
                for call, result in zip(calls, results): call[1:] = result, error
        def outcome(call):
            if call[2] is not None: raise call[2]
            return call[1]
    """,
}

# --- the cases: the body of the sixth call, and the name of its error; "" is any error, None is none at all -------

CASES = {
    "a task calls `os._exit(3)`": ("os._exit(3)", ""),
    "a task is killed (SIGKILL)": ("os.kill(os.getpid(), signal.SIGKILL)", ""),
    "a segmentation fault": ("os.kill(os.getpid(), signal.SIGSEGV)", ""),
    "a task calls `sys.exit`": ("sys.exit(number)", ""),
    "a task raises KeyboardInterrupt": ("raise KeyboardInterrupt", ""),
    "an exception with two arguments": ("raise Two(number, 'two')", "Two"),
    "an exception that cannot be pickled": ("raise Locked()", ""),
    "a task returns a lock": ("return threading.Lock()", ""),
    "an argument cannot be pickled": ("pass", ""),
    "unpickling an argument kills": ("pass", ""),
    "a worker dies between two tasks": ("threading.Timer(0.5, os._exit, [3]).start()", None),
    "a death in the middle of 100 MB": (
        "threading.Timer(0.04, os.kill, [os.getpid(), signal.SIGKILL]).start(); return Slow()", ""),
    "a task leaves a program behind": ("subprocess.Popen(['sleep', '1000'], stdout=-3, stderr=-3)", None),
    "the program is killed (SIGKILL)": (None, ""),
    "Ctrl-C, caught, and on": (None, ""),
}  # fmt: skip

ARGUMENTS = {"an argument cannot be pickled": "threading.Lock()", "unpickling an argument kills": "Bomb()"}

SCRIPT = """
import json, os, signal, subprocess, sys, threading, time
{system}

class Two(Exception):
    def __init__(self, number, text):
        super().__init__(f"{{number}}: {{text}}")

class Locked(Exception):
    def __init__(self):
        super().__init__("locked")
        self.lock = threading.Lock()

class Slow:
    def __reduce__(self):
        time.sleep(0.01)
        return bytearray, (b"x" * 100_000_000,)

class Bomb:
    def __reduce__(self):
        return os._exit, (7,)

def work(number, argument=None):
    time.sleep(0.02)
    if number == {faulty}:
        {body}
    return number * number

def wait_here(folder, number):
    open(os.path.join(folder, str(number)), "w").close()
    time.sleep(1000)

def tell(calls):
    told = []
    for call in calls:
        try:
            told.append(["value", outcome(call) if not isinstance(call, Exception) else [][call]])
        except BaseException as error:
            error = call if isinstance(call, Exception) else error
            told.append(["error", type(error).__name__, str(error)])
    return told

def queue(number):
    try:
        return submit(work, number, {argument} if number == {faulty} else None)
    except Exception as error:
        return error

def faulty_call():
    calls = [queue(number) for number in range({calls})]
    wait([call for call in calls if not isinstance(call, Exception)])
    if {again}:
        time.sleep(1)
        calls[:{faulty}] = [queue(number) for number in range({faulty})]
        wait([call for call in calls if not isinstance(call, Exception)])
    print(json.dumps(tell(calls)), flush=True)

def sleep_for_ever(folder):
    # Two results first, which must not be lost.
    calls = [submit(work, number) for number in range(2)]
    wait(calls)
    calls += [submit(wait_here, folder, number) for number in range(2)]
    try:
        wait(calls[2:])
    except KeyboardInterrupt:
        print(json.dumps(tell(calls[:2])), flush=True)
        more = [submit(work, number) for number in range(2)]
        kill_sleepers(calls[2:])
        wait(more)
        print(json.dumps(tell(more)), flush=True)

def kill_sleepers(calls):
    if "dummymp" in sys.modules:
        for call in calls: sys.modules["dummymp"].kill(call)

if __name__ == "__main__":
    sleep_for_ever(sys.argv[1]) if {sleeps} else faulty_call()
"""


class Run:
    """One case on one system, in a process group of its own."""

    def __init__(self, system: str, case: str, limit: float) -> None:
        self.case = case
        self.limit = limit
        self.mark = uuid.uuid4().hex
        self.folder = tempfile.mkdtemp(prefix="faults-")
        self.out = self.err = ""
        body = CASES[case][0]
        path = Path(self.folder, "case.py")
        source = SCRIPT.format(
            system=textwrap.dedent(SYSTEMS[system]),
            body=body or "pass",
            faulty=FAULTY,
            calls=CALLS,
            sleeps=body is None,
            argument=ARGUMENTS.get(case),
            again="between" in case,
        )
        path.write_text(source, encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, str(path), self.folder],
            cwd=self.folder,
            env={**os.environ, MARK: self.mark, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def verdict(self) -> tuple[str, str]:
        """Run it to its end, or to the limit: what became of it in a word or two, and what it said."""
        try:
            if CASES[self.case][0] is None:
                self._wait_for_sleepers()
                if "killed" in self.case:
                    self.process.kill()
                else:
                    os.killpg(self.process.pid, signal.SIGINT)  # As a terminal does: to all of them.
            hangs = not self._finish()
            left = [] if hangs else self._left_behind()
            faults = ["hangs"] if hangs else self._faults()
            if left:
                faults.append(f"leaves {len(left)} processes behind" if len(left) > 1 else "leaves a process behind")
            return ", ".join(faults) or "right", self.out + self.err
        finally:
            for process in self._alive():
                process.kill()
            self.process.wait()

    def _wait_for_sleepers(self) -> None:
        until = time.monotonic() + self.limit
        while time.monotonic() < until:
            if all(os.path.exists(os.path.join(self.folder, str(number))) for number in range(2)):
                time.sleep(0.2)  # So that the program is in its wait.
                return
            time.sleep(0.01)

    def _finish(self) -> bool:
        """Wait for the end of the program; False if it does not come."""
        try:
            self.process.wait(self.limit)
        except subprocess.TimeoutExpired:
            return False
        until = time.monotonic() + 2
        while self._alive() and time.monotonic() < until:
            time.sleep(0.05)
        os.set_blocking(self.process.stdout.fileno(), False)  # type: ignore[union-attr]
        os.set_blocking(self.process.stderr.fileno(), False)  # type: ignore[union-attr]
        # Not to the end of the file: what was left behind holds it open.
        self.out = os.read(self.process.stdout.fileno(), 1 << 16).decode() if self._has(self.process.stdout) else ""
        self.err = os.read(self.process.stderr.fileno(), 1 << 16).decode() if self._has(self.process.stderr) else ""
        return True

    @staticmethod
    def _has(file: Any) -> bool:
        import select

        return bool(select.select([file], [], [], 0)[0])

    def _alive(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def _left_behind(self) -> list[psutil.Process]:
        return [process for process in self._alive() if process.pid != self.process.pid]

    def _faults(self) -> list[str]:
        told = [json.loads(line) for line in self.out.splitlines() if line.startswith("[")]
        if "program is killed" in self.case:
            return []
        if "Ctrl-C" in self.case:
            return self._faults_of_ctrl_c(told)
        if not told:
            return ["ends without a word of what was done"]
        faults = []
        wanted = CASES[self.case][1]
        others = [entry for number, entry in enumerate(told[0]) if number != FAULTY]
        lost = sum(entry[0] == "error" for entry in others)
        if lost:
            faults.append(f"loses {lost} of {len(others)} others")
        kind, *what = told[0][FAULTY]
        texts = [entry[1:] for entry in told[0] if entry[0] == "error"]
        if wanted is None:
            if kind == "error":
                faults.append("loses the task")
        elif kind != "error":
            faults.append("blames nobody")
        elif texts.count(what) > 1:
            faults.append("blames all alike")
        elif wanted and wanted != what[0]:
            faults.append(f"says {what[0]}")
        return faults

    def _faults_of_ctrl_c(self, told: list[Any]) -> list[str]:
        good = [["value", 0], ["value", 1]]
        faults = []
        if not told or told[0] != good:
            faults.append("loses what was done")
        if told[1:] != [good]:
            faults.append("cannot go on")
        tracebacks = self.err.count("Traceback (most recent")
        if tracebacks:
            faults.append(f"{tracebacks} tracebacks" if tracebacks > 1 else "a traceback")
        return faults


def installed(system: str) -> bool:
    """Tell whether a system can be imported."""
    if system in ("Pool", "ProcessPoolExecutor"):
        return True
    done = subprocess.run([sys.executable, "-c", f"import {system}"], capture_output=True)
    return done.returncode == 0


def main() -> None:
    """Run all cases on all systems, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(SYSTEMS), default=tuple(SYSTEMS))
    parser.add_argument("--limit", type=float, default=10, help="after so many seconds a case counts as hanging")
    parser.add_argument("--details", action="store_true", help="show what each case said, too")
    options = parser.parse_args()
    systems = [system for system in options.only if installed(system)]
    print(f"Python {platform.python_version()}, {platform.system()}; hanging: not done after {options.limit:g} s\n")
    print("| |", " | ".join(systems), "|")
    print("|---|" + "---|" * len(systems), flush=True)
    for case in CASES:
        verdicts = []
        for system in systems:
            verdict, said = Run(system, case, options.limit).verdict()
            verdicts.append(verdict if verdict != "right" else "**right**")
            if options.details:
                print(f"--- {system}: {verdict}\n{said}", file=sys.stderr)
        print("|", case, "|", " | ".join(verdicts), "|", flush=True)


if __name__ == "__main__":
    main()

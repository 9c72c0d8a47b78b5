"""A soak: thousands of tasks, all kinds of faults at random moments, and every promise checked at the end.

    python tests/faults/soak.py                       2000 tasks, a seed of its own, which it prints
    python tests/faults/soak.py --seed 7 --tasks 500  the same again
    python tests/faults/soak.py --seconds 60          seed after seed, for so long

Tasks return, fail, die, hang, print, log, start programs and move megabytes; meanwhile workers and the server are
killed from outside, stopped and continued, tasks are killed, settings change, other threads drive, and (with
``--interrupts``) Ctrl-C comes. The moments are random, so a seed repeats the mix of a run, not its timing.
Where /proc is missing, what needs it is not looked at.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import io
import logging
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import zlib
from typing import Any, Callable

import dummymp

# Reached only in a deadlock: then all threads show where they stand.
HANG = 240
# Every task has a timeout, so that a worker that is stopped from outside cannot hold the soak up.
DEFAULT_TIMEOUT = 6.0
# A wave of tasks is queued at a time, by several threads.
WAVE = 150
# The states of a task that has ended: to call done() would drive.
ENDED = ("done", "failed")


# --- what tasks do -----------------------------------------------------------------------------------------------
# Each appends a line to `begun` first: call number of the soak, process id. They print "<number>.<line>.<crc>".


class Two(Exception):
    """Cannot be rebuilt from its args."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"{number}: {text}")
        self.number = number


class Locked(Exception):
    """Cannot be pickled."""

    def __init__(self, number: int) -> None:
        super().__init__(f"locked {number}")
        self.lock = threading.Lock()


def begin(folder: str, number: int) -> int:
    """Note that this task has begun; give its attempt, 1 for the first."""
    fd = os.open(os.path.join(folder, "begun"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, b"%d %d\n" % (number, os.getpid()))
    os.close(fd)
    attempts = os.open(os.path.join(folder, f"attempts-{number}"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(attempts, b".")
    attempt = os.fstat(attempts).st_size
    os.close(attempts)
    return attempt


def line(number: int, index: int) -> str:
    """Make a line that shows whether it is whole."""
    text = f"soak {number}.{index}."
    return f"{text}{zlib.crc32(text.encode()):08x}"


def speak(number: int, index: int) -> None:
    """Print a numbered line in one of the ways in which programs print."""
    text = line(number, index)
    way = (number + index) % 6
    if way == 0:
        print(text)
    elif way == 1:
        for part in (text[:5], text[5:], "\n"):
            sys.stdout.write(part)
    elif way == 2:
        os.write(1, (text + "\n").encode())
    elif way == 3:
        print(text, file=sys.stderr)
    elif way == 4:
        os.write(2, (text + "\n").encode())
    else:
        logging.getLogger("soak").warning("%s", text)


def body(folder: str, number: int, kind: str, lines: int, amount: float, data: bytes) -> Any:
    """Do what `kind` says; the one function behind most tasks."""
    attempt = begin(folder, number)
    for index in range(lines):
        speak(number, 1000 * attempt + index)
    if kind == "slow":
        time.sleep(amount)
    elif kind == "busy":
        until = time.perf_counter() + amount
        while time.perf_counter() < until:
            pass
    elif kind == "large":
        return number, zlib.crc32(data), data[::-1]
    elif kind == "child":
        start_program(folder, number)
    elif kind == "moves":
        os.chdir("/")
        os.environ["SOAK"] = "moved"
    elif kind == "here":
        return number, os.getcwd(), os.environ.get("SOAK")
    elif kind.startswith("again"):
        if attempt <= amount:
            fail(kind[6:], number)
    elif kind != "quick":
        fail(kind, number)
    return number, kind


def quick(folder: str, number: int, lines: int) -> int:
    """Be over at once: such tasks are sent ahead."""
    begin(folder, number)
    for index in range(lines):
        speak(number, 1000 + index)
    return number


def varying(folder: str, number: int, kind: str, amount: float) -> int:
    """Be mostly over at once, so that it is sent ahead, and sometimes not."""
    begin(folder, number)
    if kind == "slow":
        time.sleep(amount)
    elif kind != "quick":
        fail(kind, number)
    return number


def start_program(folder: str, number: int) -> None:
    """Start programs that go on for ever, in the ways in which tasks leave some behind."""
    import subprocess

    import psutil

    # They hold none of our descriptors: that is what the soak counts.
    child = subprocess.Popen(["sleep", "1000"], start_new_session=number % 2 == 0, stdout=subprocess.DEVNULL)
    pids = [child.pid]
    child.returncode = 0  # It is left alone on purpose, and Popen must not warn of that.
    if number % 3 == 0:
        pid = os.fork()
        if not pid:
            time.sleep(1000)
            os._exit(0)
        pids.append(pid)
    fd = os.open(os.path.join(folder, "programs"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, "".join(f"{pid} {psutil.Process(pid).create_time()}\n" for pid in pids).encode())
    os.close(fd)


def fail(kind: str, number: int) -> Any:
    """Come to a bad end."""
    if kind == "raises":
        raise ValueError(number)
    if kind == "two":
        raise Two(number, "two")
    if kind == "locked":
        raise Locked(number)
    if kind == "base":
        raise KeyboardInterrupt(number)
    if kind == "sysexit":
        sys.exit(number)
    if kind == "exit0":
        os._exit(0)
    if kind == "exit3":
        os._exit(3)
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "closes":
        os.closerange(3, 64)
    if kind == "stops":
        while True:  # The soak may let it go on by chance.
            os.kill(os.getpid(), signal.SIGSTOP)
    if kind == "regex":
        re.match(r"(a+)+$", "a" * 64 + "b")
    if kind == "sleeps":
        time.sleep(1000)
    if kind == "spins":
        while True:
            pass
    raise AssertionError(kind)


def unsendable(folder: str, number: int) -> Any:
    """Return something that cannot travel."""
    begin(folder, number)
    return [number, threading.Lock()]


# --- what is expected of them -------------------------------------------------------------------------------------


class Plan:
    """One task of the soak, and what is to become of it if nobody meddles."""

    def __init__(self, number: int, kind: str, *, lines: int = 0, amount: float = 0.0, size: int = 0) -> None:
        self.number = number
        self.kind = kind
        self.lines = lines
        self.amount = amount
        self.size = size
        self.timeout = DEFAULT_TIMEOUT
        self.retries = 0
        self.task: Any = None
        self.killed = self.perhaps_killed = False  # kill() said that it ended it, or was interrupted.

    def queue(self, folder: str) -> None:
        """Queue it."""
        options = {"timeout": self.timeout, "retries": self.retries}
        if self.kind == "unsendable":
            self.task = _run(options, unsendable, folder, self.number)
        elif self.kind == "quick" and not self.size:
            self.task = _run(options, quick, folder, self.number, self.lines)
        elif self.kind.startswith("varying"):
            self.task = _run(options, varying, folder, self.number, self.kind[8:], self.amount)
        else:
            data = random.Random(self.number).randbytes(self.size) if self.size else b""
            self.task = _run(options, body, folder, self.number, self.kind, self.lines, self.amount, data)

    def as_planned(self, value: Any, error: BaseException | None, cwd: str, orphans: bool) -> bool:
        """Tell whether it ended as it should; `orphans`: the server was killed, so nobody can say how workers end."""
        kind = self.kind
        if kind.startswith("varying:"):
            kind = kind[8:]
            if kind in ("quick", "slow"):
                return bool(value == self.number)
        if kind.startswith("again:"):
            if self.amount <= self.retries:
                return bool(value == (self.number, self.kind))
            kind = kind[6:]
        if kind in ERRORS:
            return ERRORS[kind](error, self.number, orphans)
        if kind == "large":
            data = random.Random(self.number).randbytes(self.size)
            return bool(value == (self.number, zlib.crc32(data), data[::-1]))
        if kind == "here":
            return bool(value == (self.number, cwd, None))
        if kind == "quick" and not self.size:
            return bool(value == self.number)
        return bool(value == (self.number, kind))


def _died(**how: Any) -> Callable[[Any, int, bool], bool]:
    def check(error: Any, number: int, orphans: bool) -> bool:
        if not isinstance(error, dummymp.WorkerDied) or error.pid is None:
            return False
        unknown = orphans and error.exitcode is None and error.signal is None
        return unknown or {"exitcode": error.exitcode, "signal": error.signal} == {
            "exitcode": None, "signal": None, **how,
        }  # fmt: skip

    return check


ERRORS: dict[str, Callable[[Any, int, bool], bool]] = {
    "raises": lambda error, number, _: type(error) is ValueError and error.args == (number,),
    "two": lambda error, number, _: type(error) is Two and error.number == number and str(error) == f"{number}: two",
    "locked": lambda error, number, _: type(error) is Locked and str(error) == f"locked {number}",
    "base": lambda error, number, _: type(error) is KeyboardInterrupt and error.args == (number,),
    "sysexit": lambda error, number, _: type(error) is SystemExit and error.code == number,
    "unsendable": lambda error, number, _: isinstance(error, dummymp.NotPicklable),
    "exit0": _died(exitcode=0),
    "exit3": _died(exitcode=3),
    "kill": _died(signal="SIGKILL"),
    "segv": _died(signal="SIGSEGV"),
    "closes": lambda error, number, _: isinstance(error, dummymp.WorkerDied),
    **{
        kind: lambda error, number, _: isinstance(error, dummymp.TaskTimeout)
        for kind in ("regex", "sleeps", "spins")
    },
    # When its server dies, the kernel lets go on what is stopped in a group that is nobody's now, and hangs it up.
    "stops": lambda error, number, orphans: isinstance(error, dummymp.TaskTimeout)
    or (orphans and isinstance(error, dummymp.WorkerDied)),
}

_queueing = threading.Lock()


def _run(options: dict[str, Any], func: Callable[..., Any], *args: Any) -> Any:
    with _queueing, dummymp.configure(**options):
        return dummymp.run(func, *args)


def make_plan(rng: random.Random, count: int) -> list[Plan]:
    """Draw the tasks."""
    plans = []
    for number in range(count):
        draw = rng.random()
        lines = rng.choice((0, 0, 1, 3, 20))
        if draw < 0.45:
            plan = Plan(number, "quick", lines=rng.choice((0, 0, 0, 1, 2)))
        elif draw < 0.62:
            kind = rng.choices(("quick", "slow", "raises", "exit3", "kill", "sysexit"), (80, 5, 5, 3, 3, 4))[0]
            plan = Plan(number, f"varying:{kind}", amount=rng.uniform(0, 0.05))
        elif draw < 0.75:
            plan = Plan(number, rng.choice(("slow", "busy")), lines=lines, amount=rng.uniform(0, 0.04))
        elif draw < 0.78:
            plan = Plan(number, "large", lines=lines, size=int(10 ** rng.uniform(4, 6.7)))
        elif draw < 0.83:
            plan = Plan(number, rng.choice(("here", "here", "moves", "unsendable")), lines=0)
        elif draw < 0.84:
            plan = Plan(number, "child", lines=lines)
        elif draw < 0.91:
            plan = Plan(number, rng.choice(("raises", "two", "locked", "base", "sysexit")), lines=lines)
        elif draw < 0.95:
            plan = Plan(number, rng.choice(("exit0", "exit3", "kill", "segv", "closes")), lines=lines)
        elif draw < 0.965:
            plan = Plan(number, rng.choice(("stops", "regex", "sleeps", "spins")), lines=lines)
            plan.timeout = rng.uniform(0.05, 0.3)
        else:
            plan = Plan(number, "again:" + rng.choice(("raises", "exit3", "kill", "two")), lines=lines)
            plan.amount, plan.retries = rng.randint(1, 3), rng.randint(1, 3)
        if plan.kind in ("unsendable", "moves"):
            plan.lines = 0
        plans.append(plan)
    return plans


# --- the run -----------------------------------------------------------------------------------------------------


class Screen(io.TextIOBase):
    """Stands for a stream of this process: remembers what was shown, in order."""

    def __init__(self, soak: Soak) -> None:
        self._soak = soak
        self._line = ""

    def write(self, text: str) -> int:
        with self._soak.lock:
            *lines, self._line = (self._line + text).split("\n")
            for shown in lines:
                self._soak.shown(shown)
        return len(text)


class Records(logging.Handler):
    """Remembers what was logged by tasks."""

    def __init__(self, soak: Soak) -> None:
        super().__init__()
        self._soak = soak

    def emit(self, record: logging.LogRecord) -> None:
        with self._soak.lock:
            self._soak.shown(re.sub(r"^\[PID \d+\] ", "", record.getMessage()))


class Soak:
    """One run with one seed."""

    def __init__(self, options: argparse.Namespace, seed: int) -> None:
        self.options = options
        self.seed = seed
        self.rng = random.Random(seed)
        self.chaos = random.Random(seed + 1)
        self.plans = make_plan(self.rng, options.tasks)
        self.folder = tempfile.mkdtemp(prefix="soak-")
        self.lock = threading.RLock()
        self.lines: collections.Counter[str] = collections.Counter()
        self.odd: list[str] = []
        self.by_number: dict[int, int] = collections.defaultdict(int)
        self.pending: set[Plan] = set()
        self.starts = self.ends = 0
        self.problems: list[str] = []
        self.worker_kills = self.server_kills = self.stops = self.interrupts = self.gave_up = 0
        self.over = threading.Event()
        self.armed = False

    def complain(self, text: str) -> None:
        self.problems.append(text)

    def shown(self, text: str) -> None:
        """Take note of a line on the screen, or of a record."""
        found = re.fullmatch(r"soak (\d+)\.(\d+)\.([0-9a-f]{8})", text)
        if found is None or line(int(found[1]), int(found[2])) != text:
            self.odd.append(text)
        else:
            self.lines[text] += 1
            self.by_number[int(found[1])] += 1

    # --- callbacks ---

    def on_start(self, ended: int, running: int, total: int) -> None:
        self.starts += 1
        self.check_counts(ended, running, total)

    def on_end(self, ended: int, running: int, total: int) -> None:
        self.ends += 1
        self.check_counts(ended, running, total)
        with self.lock:
            news = [plan for plan in self.pending if plan.task is not None and plan.task.state in ENDED]
            self.pending.difference_update(news)
        # A kill() in a callback, or another thread, may have made several known before their callbacks are called.
        if len(news) == 1 and not self.threaded:
            self.check_output(news[0], "at its end callback")
        if self.chaos.random() < 0.004:
            self.kill_some()

    def check_counts(self, ended: int, running: int, total: int) -> None:
        if not (0 <= running and 0 <= ended and ended + running <= total <= len(self.plans)):
            self.complain(f"counts: ended {ended}, running {running}, total {total}")

    def check_output(self, plan: Plan, when: str) -> None:
        """See that all that a task printed has been shown."""
        task = plan.task
        error = task._error
        if isinstance(error, (dummymp.TaskKilled, dummymp.TaskTimeout)) or self.meddled(plan):
            return  # Nobody knows how far it came.
        expected = plan.lines * (task.attempts if plan.retries else 1)
        if self.by_number[plan.number] != expected:
            self.complain(
                f"task {plan.number} ({plan.kind}, {plan.lines} lines, {task.attempts} attempts): "
                f"{self.by_number[plan.number]} of {expected} lines {when}"
            )

    def meddled(self, plan: Plan) -> bool:
        """Tell whether something from outside may have cut it short."""
        task = plan.task
        if plan.retries:
            return self.worker_kills > 0 or self.stops > 0
        by_kill = isinstance(task._error, dummymp.WorkerDied) and task._error.exitcode is None
        return (by_kill and self.worker_kills > 0) or not plan.as_planned(
            task._value, task._error, self.cwd, self.server_kills > 0
        )

    # --- meddling ---

    def kill_some(self) -> None:
        """Kill a random task that has not ended."""
        with self.lock:
            plans = [plan for plan in self.pending if plan.task is not None]
        if plans:
            plan = self.chaos.choice(sorted(plans, key=lambda plan: plan.number)[:40])
            try:
                killed = dummymp.kill(plan.task)
            except KeyboardInterrupt:
                plan.perhaps_killed = True  # It came when that was done, or before.
                raise
            if killed:
                plan.killed = True
                if not isinstance(plan.task._error, dummymp.TaskKilled):
                    self.complain(f"kill() of task {plan.number} gave True, but its error is {plan.task._error!r}")
            elif plan.task.state not in ENDED and not self.threaded:  # Else another thread may be telling of its end.
                self.complain(f"kill() of task {plan.number} gave False, but it has not ended")

    def meddle(self) -> None:
        """Be the thread that does harm from outside."""
        stopped = False
        while not self.over.wait(self.chaos.expovariate(1 / 0.05)):
            draw = self.chaos.random()
            try:
                # Not without end: on a busy machine workers would be killed faster than they start.
                if draw < 0.45 and self.worker_kills < len(self.plans) // 12:
                    self.kill_worker()
                elif draw < 0.60:
                    self.pause_worker(self.chaos.uniform(0.0, 0.3))
                elif draw < 0.63 and self.server_kills < 10:
                    self.kill_server()
                elif draw < 0.64 and not stopped:
                    stopped = True
                    self.pause_worker(None)
                elif draw < 0.80:
                    dummymp.configure(
                        max_processes=self.chaos.randint(2, 5),
                        tasks_per_worker=self.chaos.choice((None, None, None, 1, 7, 40)),
                        priority=self.chaos.choice(("NUCLEAR", "NUCLEAR", "EXTREME")),
                    )
                elif draw < 0.9:
                    self.kill_some()
                else:
                    dummymp.get_stats()
            except Exception as error:
                self.complain(f"meddling failed: {error!r}")

    def worker(self) -> int | None:
        pids = dummymp.worker_pids()
        return self.chaos.choice(pids) if pids else None

    def kill_worker(self) -> None:
        pid = self.worker()
        if pid is not None:
            self.worker_kills += 1
            _signal(pid, signal.SIGKILL)

    def pause_worker(self, seconds: float | None) -> None:
        """Stop a worker for a while: nothing may come of that. None: for good, so that its task times out."""
        pid = self.worker()
        if pid is None:
            return
        if seconds is None:
            self.stops += 1
        _signal(pid, signal.SIGSTOP)
        if seconds is not None:
            time.sleep(seconds)
            _signal(pid, signal.SIGCONT)

    def kill_server(self) -> None:
        from dummymp.manager import the_manager

        for pid in the_manager()._pool._launcher.pids:
            self.server_kills += 1
            _signal(pid, signal.SIGKILL)

    def interrupt(self) -> None:
        """Be the thread that presses Ctrl-C."""
        rng = random.Random(self.seed + 2)
        while not self.over.wait(rng.expovariate(1 / 0.01)):
            if self.armed:
                os.kill(os.getpid(), signal.SIGINT)

    def on_interrupt(self, number: int, frame: Any) -> None:
        """Raise KeyboardInterrupt where the library runs; our own bookkeeping is not what is tested."""
        drivers = ("one_wave", "drive", "main", "run", "<module>")
        # In the handlers of logging it is the user's affair; in the callbacks of importlib Python itself swallows it.
        others = (logging.__file__, "<frozen importlib._bootstrap>")
        if self.armed and frame is not None:
            inner = frame
            while inner is not None:
                code = inner.f_code
                ours = code.co_filename == __file__ and code.co_name not in drivers
                if ours or code.co_filename in others:
                    return
                inner = inner.f_back
            self.interrupts += 1
            raise KeyboardInterrupt

    # --- driving ---

    def queue_some(self, plans: list[Plan]) -> None:
        for plan in plans:
            with self.lock:
                self.pending.add(plan)
            plan.queue(self.folder)

    def drive(self) -> None:
        """Drive in the main thread until nothing is left, in different ways."""
        rng = random.Random(self.seed + 3)
        while True:
            try:
                self.armed = True
                draw = rng.random()
                if draw < 0.3:
                    over = dummymp.step(rng.choice((0, 0.001, 0.05)))
                elif draw < 0.35:
                    dummymp.process_queue()
                    over = False
                elif draw < 0.6:
                    over = dummymp.process_until_done(timeout=rng.uniform(0, 0.2))
                else:
                    over = dummymp.process_until_done()
                self.armed = False
                if over:
                    return
                if draw < 0.02:
                    self.kill_some()
            except KeyboardInterrupt:
                self.armed = False
            except dummymp.WorkersCannotStart:
                self.give_up()
            finally:
                self.armed = False

    def give_up(self) -> None:
        """Three workers in a row that end before they are ready are an error; here that may be our own doing."""
        self.gave_up += 1
        if self.worker_kills + self.server_kills < 3 * self.gave_up:
            self.complain("workers are said not to start")

    def side_drive(self) -> None:
        """Drive in another thread."""
        rng = random.Random(self.seed + 4)
        while not self.over.wait(rng.uniform(0, 0.3)):
            try:
                if rng.random() < 0.5:
                    dummymp.step(rng.uniform(0, 0.1))
                else:
                    dummymp.process_until_done(timeout=rng.uniform(0, 0.5))
            except dummymp.WorkersCannotStart:
                self.give_up()
            except Exception as error:
                self.complain(f"a driving thread got {error!r}")

    def run(self) -> list[str]:
        self.cwd = os.getcwd()
        dummymp.reset()
        dummymp.configure(priority="NUCLEAR", max_processes=3, on_start=self.on_start, on_end=self.on_end)
        before = (len(_descriptors()), threading.active_count(), _own_files())
        out, err = sys.stdout, sys.stderr
        logger, records = logging.getLogger("soak"), Records(self)
        logger.addHandler(records)
        logger.propagate = False
        logging.getLogger("dummymp").setLevel(logging.CRITICAL)
        self.threaded = self.options.threads and self.rng.random() < 0.7
        helpers = []
        if self.rng.random() < 0.85:
            helpers.append(threading.Thread(target=self.meddle, name="meddle"))
            self.threaded = True
        if self.threaded and self.options.threads and self.rng.random() < 0.7:
            helpers.append(threading.Thread(target=self.side_drive, name="side"))
        if self.options.interrupts:
            helpers.append(threading.Thread(target=self.interrupt, name="interrupt"))
            signal.signal(signal.SIGINT, self.on_interrupt)
        try:
            sys.stdout, sys.stderr = Screen(self), Screen(self)
            for helper in helpers:
                helper.start()
            for start in range(0, len(self.plans), WAVE):
                self.one_wave(self.plans[start : start + WAVE])
        finally:
            self.over.set()
            sys.stdout, sys.stderr = out, err
            for helper in helpers:
                helper.join()
            logger.removeHandler(records)
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.check()
        dummymp.reset()
        self.check_left_behind(before)
        shutil.rmtree(self.folder)
        return self.problems

    def one_wave(self, plans: list[Plan]) -> None:
        """Queue some tasks, a part of them in other threads while this one drives."""
        cut = self.rng.randint(0, len(plans)) if self.threaded else 0
        other = threading.Thread(target=self.queue_some, args=(plans[:cut],), name="queue")
        other.start()
        self.queue_some(plans[cut:])
        self.drive()
        other.join()
        self.drive()

    # --- checking ---

    def check(self) -> None:
        returns, errors = dummymp.get_returns(), dummymp.get_errors()
        for found in (returns, errors):
            if list(found) != sorted(found):
                self.complain("results are not in call order")
        if len(returns) + len(errors) != len(self.plans) or set(returns) & set(errors):
            self.complain(f"{len(returns)} results and {len(errors)} errors of {len(self.plans)} tasks")
        entries = [entry.split() for entry in open(os.path.join(self.folder, "begun"))]
        begun = collections.Counter(int(number) for number, _ in entries)
        self.pids = collections.defaultdict(list)
        for number, pid in entries:
            self.pids[int(number)].append(int(pid))
        died = timed_out = 0
        for plan in self.plans:
            index = plan.task.index
            if index not in returns and index not in errors:
                self.complain(f"task {plan.number} is lost: {plan.task!r}")
                continue
            value, error = returns.get(index), errors.get(index)
            if plan.killed:
                if not isinstance(error, dummymp.TaskKilled):
                    self.complain(f"task {plan.number} was killed, but gave {value!r:.80} {error!r:.80}")
            elif isinstance(error, dummymp.TaskKilled) and plan.perhaps_killed:
                plan.killed = True
            elif isinstance(error, dummymp.TaskKilled):
                self.complain(f"task {plan.number} ({plan.kind}) is wrongly said to be killed: {error}")
            elif not plan.as_planned(value, error, self.cwd, self.server_kills > 0):
                extra = plan.task.attempts - 1 if plan.retries else 0
                if (
                    isinstance(error, dummymp.WorkerDied)
                    and error.signal in ("SIGKILL", None)
                    and error.exitcode is None
                ):
                    died += 1
                elif isinstance(error, dummymp.TaskTimeout):
                    timed_out += 1
                elif not (extra and self.worker_kills):  # A kill from outside used up an attempt.
                    self.complain(f"task {plan.number} ({plan.kind}) gave {value!r:.200} {error!r:.300}")
            self.check_begun(plan, begun[plan.number], error)
            self.check_output(plan, "at the end")
        if died > self.worker_kills:
            self.complain(f"{died} tasks are blamed for {self.worker_kills} workers killed from outside")
        if timed_out > self.stops:
            self.complain(f"{timed_out} tasks timed out that should not; {self.stops} workers were stopped")
        for text, count in self.lines.items():
            if count != 1:
                self.complain(f"{text!r} was shown {count} times")
        for text in self.odd:
            if text and "Fatal Python error" not in text and not _of_faulthandler(text):
                self.complain(f"broken or foreign output: {text!r:.200}")
        self.check_callbacks(begun)

    def check_begun(self, plan: Plan, begun: int, error: BaseException | None) -> None:
        attempts = plan.task.attempts
        if plan.killed:
            # A worker that is stopped, or in C code, cannot give back what waits there, and may still begin it.
            attempts = max(begun, attempts)
        if not 0 <= begun <= attempts <= plan.retries + 1:
            self.complain(
                f"task {plan.number} ({plan.kind}, retries {plan.retries}) was begun {begun} times, "
                f"{attempts} attempts, by {self.pids[plan.number]}: {error!r:.100}"
            )
        elif (
            begun != attempts
            and not isinstance(error, (dummymp.WorkerDied, dummymp.TaskTimeout, dummymp.TaskKilled))
            and not (plan.retries and (self.worker_kills or self.stops))
        ):
            self.complain(f"task {plan.number} ({plan.kind}) was begun {begun} times, {attempts} attempts")

    def check_callbacks(self, begun: collections.Counter[int]) -> None:
        started = sum(plan.task.started_at is not None for plan in self.plans)
        if not self.starts == self.ends == started:
            self.complain(f"{self.starts} start and {self.ends} end callbacks of {started} tasks that started")
        never = [
            plan.number
            for plan in self.plans
            if plan.task.started_at is None and not plan.killed and begun[plan.number]
        ]
        if never:
            self.complain(f"begun without a start callback: {never}")
        stats = dummymp.get_stats()
        if stats["queued"] or stats["running"] or stats["done"] + stats["failed"] != len(self.plans):
            self.complain(f"get_stats() at the end: {stats}")

    def check_left_behind(self, before: tuple[int, int, set[str]]) -> None:
        until = time.monotonic() + 40
        while time.monotonic() < until and (_children() or (self.programs() and not self.server_kills)):
            time.sleep(0.02)
        programs = self.programs()
        for pid in programs:
            _signal(pid, signal.SIGKILL)
        # Only the server knows the programs that the tasks of an ended worker left behind. If it is killed, they stay.
        if _children() or (programs and not self.server_kills):
            self.complain(f"processes left behind: {_children()}, programs of tasks: {programs}")
        # The first run makes the manager, with a selector and a pipe.
        if len(_descriptors()) > before[0] + 3:
            self.complain(f"{len(_descriptors())} descriptors, {before[0]} before: {_descriptors()}")
        if threading.active_count() > before[1]:
            self.complain(f"threads left behind: {threading.enumerate()}")
        if _own_files() - before[2]:
            self.complain(f"files left behind: {_own_files() - before[2]}")

    def programs(self) -> list[int]:
        """Give the pids of programs that tasks started and that still run."""
        path = os.path.join(self.folder, "programs")
        if not os.path.exists(path):
            return []
        with open(path) as file:
            entries = [entry.split() for entry in file]
        return [int(pid) for pid, created in entries if _lives(int(pid), float(created))]


def _of_faulthandler(text: str) -> bool:
    return bool(re.match(r"Current thread|Thread 0x| |Extension modules", text))


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            path = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if ".so" not in os.path.basename(path):  # libffi (3.5), behind ctypes, holds itself.
            found[name] = path
    return found


def _children() -> list[str]:
    import psutil

    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if child.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{child.pid} {' '.join(child.cmdline())[-80:]}")
        except psutil.Error:
            continue
    return found


def _lives(pid: int, created: float) -> bool:
    """Tell whether a process lives; another one may have its pid by now."""
    import psutil

    try:
        process = psutil.Process(pid)
        return bool(process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - created) < 0.1)
    except psutil.Error:
        return False


def _own_files() -> set[str]:
    """Give the files of ours in shared places, by the names that libraries give them."""
    found = set()
    for folder in {tempfile.gettempdir(), "/tmp", "/dev/shm"}:
        if os.path.isdir(folder):
            names = [name for name in os.listdir(folder) if "dummymp" in name or str(os.getpid()) in name]
            found |= {os.path.join(folder, name) for name in names}
    return found


def show_hang() -> None:
    """Say how things stand in the manager, for whoever looks for a deadlock."""
    from dummymp.manager import the_manager

    manager = the_manager()
    running = manager._intake.running
    print("running", running, "drivers", manager._drivers, "asleep", manager._asleep, file=sys.__stderr__)
    for engine in manager.engines:
        print("engine", engine.unfinished, "waiting", list(engine.waiting)[:5], engine.decision, file=sys.__stderr__)
    for handle in manager._pool.handles.values():
        print({k: v for k, v in vars(handle).items() if k not in ("_lines", "_functions")}, file=sys.__stderr__)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="draw the same tasks again")
    parser.add_argument("--tasks", type=int, default=2000, help="so many tasks a seed")
    parser.add_argument("--seconds", type=float, default=0, help="go on with further seeds for so long")
    parser.add_argument("--interrupts", action="store_true", help="press Ctrl-C all the time")
    parser.add_argument("--no-threads", dest="threads", action="store_false", help="drive from one thread only")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 30)
    until = time.monotonic() + options.seconds
    failed = False
    while True:
        timer = threading.Timer(HANG - 5, show_hang)
        timer.daemon = True
        timer.start()
        faulthandler.dump_traceback_later(HANG, exit=True, file=sys.__stderr__)
        began = time.monotonic()
        soak = Soak(options, seed)
        print(f"seed {seed}:", end=" ", flush=True)
        problems = soak.run()
        timer.cancel()
        faulthandler.cancel_dump_traceback_later()
        print(
            f"{options.tasks} tasks, {len(soak.problems)} problems, {time.monotonic() - began:.1f} s; from outside: "
            f"{soak.worker_kills} workers and {soak.server_kills} servers killed, {soak.stops} stopped, "
            f"{soak.interrupts} times Ctrl-C",
            flush=True,
        )
        for problem in problems[:40]:
            print("   ", problem, flush=True)
        failed = failed or bool(problems)
        if time.monotonic() >= until:
            return 1 if failed else 0
        seed += 1


if __name__ == "__main__":
    sys.exit(main())

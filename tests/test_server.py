"""The server that starts workers, driven through the launcher alone: starts, notices, kills, and the end of all."""

from __future__ import annotations

import ast
import collections
import contextlib
import itertools
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from typing import Any, Callable

import psutil
import pytest
from conftest import TIMEOUT

import dummymp
import dummymp.launcher
from dummymp import boot, forkserver, processes
from dummymp.forkserver import ENDED, FAILED, REPLY, REQUEST, STARTED, _Server
from dummymp.freeze import freeze
from dummymp.launcher import Launcher, Notice, Started
from dummymp.pickling import load_atoms, loads
from dummymp.pool import Pool
from dummymp.surroundings import Settings, capture
from dummymp.transport import (
    ATOM_RESULT,
    ENDED_HEAD,
    FUNCTION,
    READY,
    RESULT,
    SETTINGS,
    STOP,
    SURROUNDINGS,
    TASK,
    TASK_HEAD,
    U64,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs socket pairs and fork")
METHODS = ["forkserver", "spawn"]

linux = pytest.mark.skipif(not processes.ADOPTS, reason="elsewhere what a worker leaves is not below the server")


class Driver:
    """A launcher, the workers started with it, and patience.

    Several tests may drive one launcher; each numbers its workers from its own `first` on.
    """

    def __init__(self, launcher: Launcher | None = None, first: int = 0) -> None:
        self.launcher = launcher or Launcher()
        self.first = first
        self.started: dict[int, Started] = {}
        self.notices: list[Notice] = []

    def start(self, number: int, method: str = "forkserver", nice: int = 0) -> Started:
        self.started[number] = self.launcher.start(self.first + number, method=method, nice=nice)
        return self.started[number]

    def kill(self, number: int, *, grace: float) -> bool:
        return self.launcher.kill(self.first + number, grace=grace)

    def ready(self, number: int, method: str = "forkserver", nice: int = 0) -> int:
        """Start a worker, wait until it is ready, and give its pid."""
        started = self.start(number, method, nice)
        kind, message = self.message(started)
        assert kind == READY
        return int(U64.unpack(message)[0])

    def message(self, started: Started) -> tuple[int, bytes]:
        while True:
            for kind, message in started.channel.receive():
                return kind, bytes(message)
            assert not started.channel.closed
            assert select.select([started.channel], [], [], TIMEOUT)[0]

    def give(self, number: int, func: Callable[..., Any], *args: Any) -> None:
        """Give a task to a worker."""
        channel = self.started[number].channel
        frozen, surroundings = freeze(func, args, {}, number=7), capture(None, None)
        channel.send(SETTINGS, Settings().data())
        channel.send(FUNCTION, U64.pack(frozen.function.number), bytes([1]), frozen.function.data)
        channel.send(SURROUNDINGS, U64.pack(surroundings.number), surroundings.data)
        channel.send(TASK, TASK_HEAD.pack(7, frozen.function.number, surroundings.number), frozen.arguments)

    def result(self, number: int) -> Any:
        kind, message = self.message(self.started[number])
        assert kind in (ATOM_RESULT, RESULT), message
        body = message[ENDED_HEAD.size :]
        return load_atoms([body])[0] if kind == ATOM_RESULT else loads(body)

    def wait_for(self, what: int, number: int) -> int:
        """Wait for a notice; give its value."""
        while True:
            for notice in self.notices:
                if notice[:2] == (what, self.first + number):
                    self.notices.remove(notice)
                    return notice.value
            assert select.select([self.launcher], [], [], TIMEOUT)[0]
            news = self.launcher.notices()
            assert news is not None
            self.notices += news

    def wait_for_the_end_of_the_server(self) -> None:
        while self.launcher.notices() is not None:
            assert select.select([self.launcher], [], [], TIMEOUT)[0]

    def close(self) -> None:
        """End the workers and close all connections, but not the launcher."""
        for number in self.started:
            self.kill(number, grace=0)
        for started in self.started.values():
            started.channel.close()
            started.control.close()
            os.close(started.stdout)
            os.close(started.stderr)
            assert started.page is not None
            started.page.close()


_firsts = itertools.count(0, 1000)


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    made = Launcher()
    with contextlib.closing(Driver(made, next(_firsts))) as first:
        first.ready(0)  # Its server lives longer than a test, and so do the descriptors that lead to it.
    yield made
    made.close()


@pytest.fixture
def driver(launcher: Launcher) -> Iterator[Driver]:
    """Give a driver of a launcher whose server goes on after the test."""
    made = Driver(launcher, next(_firsts))
    yield made
    made.close()


@pytest.fixture
def own_driver() -> Iterator[Driver]:
    """Give a driver with a server of its own."""
    made = Driver()
    yield made
    made.close()
    made.launcher.close()


def wait_until_gone(*pids: int) -> None:
    """Wait for processes that are not our children; one that has ended and waits to be reaped is gone."""
    until = time.monotonic() + TIMEOUT
    left = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.append(psutil.Process(pid))
    while left:
        assert time.monotonic() < until
        left = [process for process in psutil.wait_procs(left, timeout=0.02)[1] if not has_ended(process)]


def has_ended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


# What workers are asked to do, besides functions of the standard library.
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(1000)"
)


def start_program(code: str, detached: bool) -> tuple[int, int]:
    """Start a program that waits, and wait until it says that it is ready; give our pid and its pid."""
    program = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=detached, close_fds=True
    )
    assert program.stdout is not None
    program.stdout.readline()
    _programs.append(program)
    return os.getpid(), program.pid


def count_sockets_and_pipes() -> list[int]:
    """Count the open descriptors of these kinds."""
    modes = []
    for fd in range(256):
        with contextlib.suppress(OSError):
            modes.append(os.fstat(fd).st_mode)
    return [sum(map(stat.S_ISSOCK, modes)), sum(map(stat.S_ISFIFO, modes))]


_programs: list[Any] = []  # Held, for a Popen that is garbage complains.


WAITING = "import time; print('ready', flush=True); time.sleep(1000)"

# It leaves a program behind when it is told to end.
ENDS_WHEN_TOLD = (
    "import signal, subprocess; told = {signal.SIGUSR1}; signal.pthread_sigmask(signal.SIG_BLOCK, told); "
    "print('ready', flush=True); signal.sigwait(told); subprocess.Popen(['sleep', '1000'], start_new_session=True)"
)


# --- starting ----------------------------------------------------------------------------------------------------


def test_no_server_before_the_first_worker() -> None:
    """A launcher that was never asked for a worker has no process, and nothing to close."""
    launcher = Launcher()
    assert launcher.pids == []
    assert launcher.fileno() == -1
    assert launcher.notices() is None
    assert not launcher.kill(1, grace=0)
    launcher.close()
    launcher.abandon()


@pytest.mark.parametrize("method", METHODS)
def test_start(driver: Driver, method: str) -> None:
    """A worker comes up, says its pid, and the server tells the same; it is below the server, and runs tasks."""
    pid = driver.ready(1, method)
    assert driver.wait_for(STARTED, 1) == pid
    assert [psutil.Process(pid).ppid()] == driver.launcher.pids
    driver.give(1, divmod, 17, 5)
    assert driver.result(1) == (3, 2)


@pytest.mark.parametrize("method", METHODS)
def test_worker_leads_a_group(driver: Driver, method: str) -> None:
    """Ctrl-C and signals to our group do not reach a worker; one that is nicer than we are leads a session, too.

    The others share our session: Linux may give each session the same share of the CPUs, and many of ours would get
    many.
    """
    pid, nicer = driver.ready(1, method), driver.ready(2, method, nice=3)
    assert os.getpgid(pid) == pid
    assert os.getsid(pid) == (os.getsid(0) if processes.ADOPTS else pid)
    assert os.getsid(nicer) == os.getpgid(nicer) == nicer
    assert os.getpgid(driver.launcher.pids[0]) != os.getpgid(0)


def test_forked_and_fresh_workers_of_one_server(driver: Driver) -> None:
    """Both kinds side by side, started without waiting for one another."""
    for number in range(6):
        driver.start(number, METHODS[number % 2])
    pids = {driver.wait_for(STARTED, number) for number in range(6)}
    assert len(pids) == 6
    assert {int(U64.unpack(driver.message(driver.started[number])[1])[0]) for number in range(6)} == pids
    assert len(driver.launcher.pids) == 1


@pytest.mark.parametrize("method", METHODS)
def test_niceness_is_added(driver: Driver, method: str) -> None:
    """A worker is nicer than we are by as much as was asked for."""
    driver.start(1, method, nice=3)
    driver.message(driver.started[1])
    assert os.getpriority(os.PRIO_PROCESS, driver.wait_for(STARTED, 1)) == min(
        19, os.getpriority(os.PRIO_PROCESS, 0) + 3
    )


@pytest.mark.parametrize("method", METHODS)
def test_worker_holds_no_descriptors_of_ours(own_driver: Driver, method: str) -> None:
    """A worker has its five connections, and none of another worker or of this process."""
    inherited, other_end = socket.socketpair()
    os.set_inheritable(inherited.fileno(), True)
    with inherited, other_end:
        for number in range(3):
            own_driver.ready(number, method)
        own_driver.give(2, count_sockets_and_pipes)
        # Our connection and the control connection; stdout and stderr.
        assert own_driver.result(2) == [2, 2]


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["-s", "-B", "-OO", "-q"],
        ["-I"],
        ["-bb", "-W", "error::UserWarning", "-W", "ignore::DeprecationWarning:some.lib"],
        ["-X", "dev", "-X", "utf8", "-X", "pycache_prefix=/nowhere"],
    ],
)
def test_options_of_the_interpreter(given: list[str]) -> None:
    """The server's interpreter gets the options that the parent's was given."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from dummymp import boot; "
        "print([tuple(sys.flags), sorted(sys._xoptions.items()), sorted(set(sys.warnoptions)), boot.options()])"
    )

    def started_with(options: list[str]) -> Any:
        folder = os.path.dirname(os.path.dirname(dummymp.__file__))
        command = [sys.executable, *options, "-c", code, folder]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=TIMEOUT)
        return ast.literal_eval(done.stdout)

    *state, options = started_with(given)
    *state_of_another, _ = started_with(options)
    assert state_of_another == state


@pytest.mark.parametrize("method", METHODS)
def test_worker_has_cloudpickle(driver: Driver, method: str) -> None:
    """A forked worker need not load what unpickles functions of the user; a fresh one does when it has to."""
    driver.ready(1, method)
    driver.give(1, eval, "'cloudpickle' in __import__('sys').modules")
    assert driver.result(1) == (method == "forkserver")


@pytest.mark.parametrize("shadow", ["socket.py", "dummymp.py", "signal.py", "uuid.py"])
@pytest.mark.parametrize("method", METHODS)
def test_files_of_the_user_shadow_nothing(
    driver: Driver, method: str, shadow: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the user that is named as a standard module, or as this package, does not get in the way."""
    (tmp_path / shadow).write_text("raise SystemExit('shadowed')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert driver.ready(1, method)


# --- notices -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("func", "args", "expected"),
    [
        (os._exit, (3,), 3),
        (os._exit, (0,), 0),
        (os.abort, (), -signal.SIGABRT),
        (signal.raise_signal, (signal.SIGKILL,), -signal.SIGKILL),
        (signal.raise_signal, (signal.SIGTERM,), -signal.SIGTERM),
    ],
)
def test_how_a_worker_ended(driver: Driver, method: str, func: Any, args: Any, expected: int) -> None:
    """The server tells the exit code, or the signal as a negative number."""
    driver.ready(1, method)
    driver.give(1, func, *args)
    assert driver.wait_for(ENDED, 1) == expected


@pytest.mark.parametrize("method", METHODS)
def test_worker_that_is_told_to_stop(driver: Driver, method: str) -> None:
    """STOP ends a worker in good order, and so does the end of its connection."""
    driver.ready(1, method)
    driver.ready(2, method)
    driver.started[1].channel.send(STOP)
    driver.started[2].channel.close()
    assert driver.wait_for(ENDED, 1) == 0
    assert driver.wait_for(ENDED, 2) == 0


def test_signals_that_the_parent_has_blocked(own_driver: Driver) -> None:
    """Where the parent blocks signals, ends are told all the same, and workers can be ended by SIGTERM."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD, signal.SIGTERM])
    try:
        own_driver.ready(1)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    own_driver.give(1, signal.pause)
    own_driver.kill(1, grace=TIMEOUT)
    assert own_driver.wait_for(ENDED, 1) == -signal.SIGTERM


def test_worker_whose_control_connection_ends(driver: Driver) -> None:
    """A worker ends at once, also in the middle of a task, when its parent's end of the control connection is gone."""
    driver.ready(1)
    driver.give(1, signal.pause)
    driver.started[1].control.close()
    assert driver.wait_for(ENDED, 1) == -signal.SIGKILL


def test_descriptors_that_were_lost(driver: Driver) -> None:
    """A request that arrives without its descriptors is answered, and the server goes on."""
    from dummymp import forkserver

    driver.ready(1)
    driver.launcher._request(forkserver.FORK, driver.first + 2, 0)
    assert driver.wait_for(FAILED, 2) != 0
    assert driver.ready(3)


# --- killing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("grace", "expected"), [(0, -signal.SIGKILL), (TIMEOUT, -signal.SIGTERM)])
def test_kill(driver: Driver, grace: float, expected: int) -> None:
    """A worker is ended by SIGKILL at once, or by SIGTERM where it has time; the others go on."""
    driver.ready(1)
    driver.ready(2)
    driver.give(1, signal.pause)
    assert driver.kill(1, grace=grace)
    assert driver.wait_for(ENDED, 1) == expected
    driver.give(2, divmod, 17, 5)
    assert driver.result(2) == (3, 2)


def test_kill_of_a_stubborn_worker(driver: Driver) -> None:
    """A worker that ignores SIGTERM is ended by SIGKILL when its time is over."""
    driver.ready(1)
    driver.give(1, signal.signal, signal.SIGTERM, signal.SIG_IGN)
    driver.message(driver.started[1])
    driver.kill(1, grace=0.01)
    assert driver.wait_for(ENDED, 1) == -signal.SIGKILL


@pytest.mark.parametrize("detached", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize(
    ("code", "grace"), [(WAITING, 0), (WAITING, TIMEOUT), (STUBBORN, 0.01)], ids=["0", "60", "stubborn"]
)
def test_kill_ends_what_the_task_started(driver: Driver, code: str, grace: float, detached: bool) -> None:
    """Programs that a task started are ended with it, stubborn or not, even in a session of their own."""
    driver.ready(1)
    driver.give(1, start_program, code, detached)
    worker, program = driver.result(1)
    driver.kill(1, grace=grace)
    assert driver.wait_for(ENDED, 1) < 0
    wait_until_gone(worker, program)


@pytest.mark.parametrize("detached", [False, pytest.param(True, marks=linux)], ids=["attached", "detached"])
def test_kill_of_a_worker_that_has_ended(driver: Driver, detached: bool) -> None:
    """What a worker left behind is ended, too, when it is asked for later; nobody else is."""
    driver.ready(1)
    driver.ready(2)
    driver.give(1, start_program, WAITING, detached)
    _, program = driver.result(1)
    driver.started[1].channel.send(STOP)
    assert driver.wait_for(ENDED, 1) == 0
    assert psutil.pid_exists(program)
    driver.kill(1, grace=0)
    wait_until_gone(program)
    driver.give(2, divmod, 17, 5)
    assert driver.result(2) == (3, 2)


@linux
def test_what_is_left_is_nobody_elses(own_driver: Driver) -> None:
    """What a program that a worker left behind leaves behind itself is not taken for another worker's."""
    own_driver.ready(1)
    own_driver.ready(2)
    own_driver.give(1, start_program, ENDS_WHEN_TOLD, True)
    _, program = own_driver.result(1)
    own_driver.started[1].channel.send(STOP)
    assert own_driver.wait_for(ENDED, 1) == 0
    server = psutil.Process(own_driver.launcher.pids[0])
    known = server.children()
    os.kill(program, signal.SIGUSR1)
    until = time.monotonic() + TIMEOUT
    while psutil.pid_exists(program):
        assert time.monotonic() < until
    (left,) = set(server.children()) - set(known)
    own_driver.kill(2, grace=0)
    assert own_driver.wait_for(ENDED, 2) == -signal.SIGKILL
    own_driver.kill(2, grace=0)  # Now for what it left, which is nothing.
    own_driver.ready(3)
    assert not has_ended(left)
    own_driver.kill(1, grace=0)
    wait_until_gone(left.pid)


def test_kill_of_a_worker_that_never_was(driver: Driver) -> None:
    """An unknown number is no error."""
    driver.ready(1)
    assert driver.kill(99, grace=0)
    assert driver.ready(2)


# --- the end -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("detached", [False, True], ids=["attached", "detached"])
def test_close_leaves_nothing(own_driver: Driver, detached: bool) -> None:
    """After `close`, the server, the workers and what they started are gone."""
    own_driver.ready(1)
    own_driver.give(1, start_program, STUBBORN, detached)
    worker, program = own_driver.result(1)
    (server,) = own_driver.launcher.pids
    own_driver.launcher.close()
    assert own_driver.launcher.pids == []
    wait_until_gone(server, worker, program)


def test_launcher_can_be_used_again(own_driver: Driver) -> None:
    """A start after `close` makes a new server."""
    own_driver.ready(1)
    before = own_driver.launcher.pids
    own_driver.launcher.close()
    assert own_driver.ready(2)
    assert own_driver.launcher.pids and own_driver.launcher.pids != before


def test_server_that_was_killed(own_driver: Driver) -> None:
    """When somebody kills the server, that is seen; its workers end with their connections; the next start works."""
    worker = own_driver.ready(1)
    (server,) = own_driver.launcher.pids
    os.kill(server, signal.SIGKILL)
    own_driver.wait_for_the_end_of_the_server()
    assert own_driver.launcher.pids == []
    assert not own_driver.kill(1, grace=0)
    own_driver.started[1].control.close()
    wait_until_gone(worker)
    assert own_driver.ready(2)


def test_both_sides_have_much_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests go on while the server is busy answering the ones before: neither waits for the other for ever."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    launcher = Launcher()
    monkeypatch.setattr(launcher, "_connection", ours)
    # There is no process to be reaped.
    monkeypatch.setattr(launcher, "_bury_server", lambda: setattr(launcher, "_connection", ours.close()))
    count = 5000  # A socket takes some hundred.

    def serve() -> None:
        # It answers first, and reads only then.
        theirs.sendall(b"".join(REPLY.pack(ENDED, number, 3, 4096) for number in range(count)))
        received = 0
        while received < count * REQUEST.size:
            received += len(theirs.recv(1 << 16))
        theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    assert all(launcher.kill(number, grace=0) for number in range(count))
    thread.join(TIMEOUT)
    notices: list[Notice] = []
    while (news := launcher.notices()) is not None:
        notices += news
    assert notices == [Notice(ENDED, number, 3, 4096) for number in range(count)]


def test_a_server_that_takes_no_requests(own_driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up after a while, and the next start makes another."""
    monkeypatch.setattr(dummymp.launcher, "SEND_LIMIT", 0.1)
    own_driver.ready(1)
    (server,) = own_driver.launcher.pids
    os.kill(server, signal.SIGSTOP)
    while own_driver.launcher.kill(999, grace=0):
        pass
    own_driver.launcher.notices()
    assert own_driver.launcher.pids == []
    assert not psutil.pid_exists(server)
    assert own_driver.ready(2)


def test_a_stranger_with_the_pid_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a worker has ended, its pid may be somebody else's, who must not be ended in its place."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        look = processes.table()[stranger.pid]
        handle = types.SimpleNamespace(pid=stranger.pid, process=look._replace(started=look.started - 1))
        Pool.end_without_server(None, handle)  # type: ignore[arg-type]
        assert stranger.poll() is None
        handle.process = look
        Pool.end_without_server(None, handle)  # type: ignore[arg-type]
        assert stranger.wait(TIMEOUT) == -signal.SIGKILL


@linux
def test_a_strangers_group_with_the_number_of_a_worker() -> None:
    """What is left of a worker is below the server; a group that is not is somebody else's."""
    me = os.getpid()
    table = {
        me: processes.Process(1, me, me, 1.0),
        70: processes.Process(me, 60, 60, 2.0),
        71: processes.Process(70, 60, me, 3.0),
        72: processes.Process(71, 72, 60, 3.0),
        80: processes.Process(1, 60, 60, 4.0),
    }
    server = types.SimpleNamespace(_pids={1: 60}, _left={}, _adopts=True)
    assert _Server._members(server, 1, table) == {70, 71, 72}  # type: ignore[arg-type]


def test_two_threads_start_one_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that needs the server while another one is starting it waits, and takes that one."""
    entered, go_on = threading.Event(), threading.Event()

    def start_slowly() -> tuple[int, int, int]:
        entered.set()
        assert go_on.wait(TIMEOUT)
        return 1, 2, 3

    def want() -> None:
        boot.start_early()
        taken.append(boot.take_early())

    monkeypatch.setattr(boot, "_tried", False)
    monkeypatch.setattr(boot, "start_server", start_slowly)
    taken: list[Any] = []
    first, second = threading.Thread(target=want), threading.Thread(target=want)
    first.start()
    assert entered.wait(TIMEOUT)
    second.start()
    second.join(0.05)  # It has nothing to wait for but the other one.
    assert taken == []
    go_on.set()
    first.join(TIMEOUT)
    second.join(TIMEOUT)
    assert sorted(taken, key=str) == [(1, 2, 3), None]


def test_no_descriptors_for_the_server() -> None:
    """Where there are too few descriptors for a server, all of those that were open for it are closed."""
    code = """
import contextlib, os, resource, _socket, fcntl
from dummymp import boot
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
before, failures = os.listdir("/dev/fd"), 0
for free in range(8):
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    held = []
    with contextlib.suppress(OSError):
        while True:
            held.append(os.dup(0))
    for fd in held[len(held) - free:]:
        os.close(fd)
    try:
        boot.start_server()
    except OSError:
        failures += 1
    for fd in held[:len(held) - free]:
        os.close(fd)
print(failures, len(os.listdir("/dev/fd")) - len(before))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=TIMEOUT, check=True, env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(boot.__file__))},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("8 0\n", "")


@pytest.mark.parametrize("in_memory", [False, pytest.param(True, marks=linux)], ids=["pipe", "file"])
def test_last_words(monkeypatch: pytest.MonkeyPatch, in_memory: bool) -> None:
    """What a server said is known when it has ended, and however much that is, it does not wait for a reader."""
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    log, writer = boot._make_log()
    try:
        assert boot.last_words(log) == ""
        if in_memory:
            os.write(writer, b"." * 1_000_000)
        os.write(writer, b"the end")
        assert boot.last_words(log).endswith("the end")
    finally:
        os.close(log)
        os.close(writer)


# pytest watches for a deadlock (faulthandler_timeout) in a thread; Python 3.15 tells of it with an error.
@pytest.mark.filterwarnings(r"ignore:This process \(pid=\d+\) is multi-threaded:DeprecationWarning")
def test_abandon(driver: Driver) -> None:
    """A forked copy of the parent lets go of the server; the server and its workers go on for the parent."""
    driver.ready(1)
    pid = os.fork()
    if not pid:
        try:
            driver.launcher.abandon()
            os._exit(0 if driver.launcher.pids == [] and driver.launcher.fileno() == -1 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    driver.give(1, divmod, 17, 5)
    assert driver.result(1) == (3, 2)


PARENT = """
import os, sys, subprocess
sys.path.insert(0, {tests!r})
from test_server import Driver, STARTED, STUBBORN, start_program
start_program.__module__ = "__main__"  # Travels by value: the worker need not import all this.
driver = Driver()
driver.ready(1)
driver.ready(2, "spawn")
driver.give(1, start_program, STUBBORN, True)
print(*driver.launcher.pids, *driver.result(1), driver.wait_for(STARTED, 2), flush=True)
{end}
"""


@pytest.mark.parametrize(
    "end",
    ["sys.stdin.read()", "os._exit(0)", "os.abort()", "os.fork() or sys.stdin.read(); os._exit(0)"],
    ids=["killed", "exit", "abort", "fork"],
)
def test_end_of_the_parent(end: str) -> None:
    """However the parent ends, all that it had started is gone; even if a forked copy of it lives on."""
    code = PARENT.format(tests=os.path.dirname(__file__), end=end)
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 4
        if end == "sys.stdin.read()":
            parent.kill()
        parent.wait(TIMEOUT)
        wait_until_gone(*pids)


def test_a_worker_that_lives_is_never_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server forgot the oldest, also if it still ran: it could not be killed any more."""
    server = _Server.__new__(_Server)
    server._wake_reader, other = socket.socketpair()
    server._wake_reader.setblocking(False)
    server._pids, server._numbers = {1: 1001}, {1001: 1}
    server._ended = collections.deque()
    server._left = {}
    monkeypatch.setattr(processes, "children", set)
    monkeypatch.setattr(server, "_reply", lambda *reply: None)
    monkeypatch.setattr(forkserver, "REMEMBERED", 3)
    for number in range(2, 12):
        server._pids[number] = 1000 + number
        server._numbers[1000 + number] = number
        ends = iter([(1000 + number, 0, types.SimpleNamespace(ru_maxrss=0)), (0, 0, None)])
        monkeypatch.setattr(os, "wait4", lambda *_, ends=ends: next(ends))
        server._reap()
    assert server._pids == {1: 1001, 9: 1009, 10: 1010, 11: 1011}
    server._wake_reader.close()
    other.close()

# SPDX-License-Identifier: MIT
"""The server: a small process that starts workers, reaps them, and ends everything when the parent is gone.

    parent  --- one socket: requests with file descriptors --->  server  --- fork, or a fresh interpreter --->  workers
            <-------------- started, ended, failed ------------

It never runs code of the user and has one thread, so that forking it is safe. Being the parent of all workers, it
knows how each of them ended. On Linux it is a child subreaper (prctl(2)): whatever a task starts, however deep and
however detached, stays below it and can be ended with it. When its socket closes, because the parent ended in
whatever way, it kills all that is below it and goes.

It differs from multiprocessing's own forkserver in that it listens nowhere, leaves no file behind, needs no resource
tracker, and belongs to this package alone.
"""

from __future__ import annotations

import collections
import gc
import os
import selectors
import signal
import socket
import struct
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

from . import processes, threadlimits
from .boot import command, options

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FDS_PER_WORKER", "REPLY", "REQUEST", "main"]

# Requests: what, worker number, argument, threads.
REQUEST = struct.Struct("<BIii")
# Argument: niceness to add; threads: as `threads_per_task`, 0 for None; with FDS_PER_WORKER descriptors.
FORK = 1
FRESH = 2  # the same, in a fresh interpreter
KILL = 3  # argument: milliseconds between SIGTERM and SIGKILL
QUIT = 4  # argument: milliseconds until all that is left is killed

# Replies: what, worker number, value, peak.
REPLY = struct.Struct("<BIqQ")
STARTED = 1  # value: process id
ENDED = 2  # value: exit code, or minus the number of the signal; peak: the most memory it ever used, in bytes
FAILED = 3  # value: errno of the fork

# Connection, control, stdout, stderr, page.
FDS_PER_WORKER = 5
# Of so many workers that have ended it is known which they were: what they left behind may still have to be ended.
REMEMBERED = 1000
# Where a fresh interpreter finds them.
_FIRST_FD = 10


def main(fd: int, parent: int, limits: Sequence[str] = ()) -> None:
    """Serve the process `parent` over the socket `fd` until it is gone.

    Args:
        limits: The variables of `threadlimits` that were added to those of the user for us.
    """
    # With -W error, one would end us in the middle of things: since Python 3.15 that of os.fork(), where a
    # sitecustomize has started a thread. Workers get the filters of the parent before anything is run there.
    warnings.simplefilter("ignore")
    _close_inherited(fd)
    # A worker in a fresh interpreter must not hold our end open: the parent would never see that we are gone.
    os.set_inheritable(fd, False)
    try:
        connection = socket.socket(fileno=fd)
        connection.setblocking(True)  # A sitecustomize may have called socket.setdefaulttimeout().
        _Server(connection, parent, limits).run()
    except BaseException:
        _tell(2)
    finally:
        os._exit(70)


def _tell(fd: int) -> None:
    """Write the traceback of a fault of ours where the parent reads it."""
    import traceback

    try:
        os.write(fd, traceback.format_exc().encode("utf-8", "backslashreplace"))
    except OSError:
        pass


def _close_inherited(last: int) -> None:
    """Close what C code of the parent, or its shell, left open above our own descriptors: nobody below needs it.

    Only what came through exec: what this Python has opened itself, for `-X perf` for example, it goes on using.
    """
    try:
        fds = [int(name) for name in os.listdir("/dev/fd")]
    except OSError:
        return
    for fd in fds:
        try:
            if fd > last and os.get_inheritable(fd):
                os.close(fd)
        except OSError:
            continue  # That of the folder itself.


def _load_worker() -> Any:
    """Load what each worker needs before the first fork, so that all of them have it at once; give its module."""
    gc.disable()  # All that is made now stays.
    from . import worker

    try:
        import cloudpickle  # noqa: F401
    except Exception:
        pass  # Who needs it says what is wrong with it.
    # It never changes from now on: forked workers need not copy its pages when they collect garbage.
    gc.freeze()
    gc.enable()
    return worker


class _Server:
    def __init__(self, connection: socket.socket, parent: int, limits: Sequence[str] = ()) -> None:
        self._connection = connection
        self._limits = limits
        self._data = b""
        self._fds: list[int] = []
        self._pids: dict[int, int] = {}  # Worker number -> pid, also of the last that have ended.
        self._ended: collections.deque[int] = collections.deque()  # The numbers of these.
        self._numbers: dict[int, int] = {}  # pid -> worker number, of those alive.
        self._left: dict[int, int] = {}  # pid -> number of the dead worker whose task had started it.
        self._kills: list[tuple[float, dict[int, processes.Process], int]] = []
        self._quit_at: float | None = None
        self._selector = selectors.DefaultSelector()
        self._selector.register(connection, selectors.EVENT_READ, self._take_requests)
        processes.leave_terminal()
        self._watch_children()
        self._watch_parent(parent)
        self._adopts = processes.adopt_orphans()
        self._worker = _load_worker()

    def _watch_children(self) -> None:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._reap)

    def _watch_parent(self, parent: int) -> None:
        # A process that the parent forked in C code may hold its end of our socket open; the pid file descriptor
        # (Linux 5.3) tells of the parent's end all the same.
        self._parent_fd = -1
        if hasattr(os, "pidfd_open") and parent == os.getppid():
            try:
                self._parent_fd = os.pidfd_open(parent)
                self._selector.register(self._parent_fd, selectors.EVENT_READ, self._end_everything)
            except OSError:
                pass

    def run(self) -> None:
        """Serve until the parent is gone or says so; this process ends then."""
        while True:
            for key, _ in self._selector.select(self._patience()):
                key.data()
            now = time.monotonic()
            for kill in [kill for kill in self._kills if kill[0] <= now]:
                self._kills.remove(kill)
                self._kill_now(kill)
            if self._quit_at is not None and (not self._numbers or self._quit_at <= now):
                self._end_everything()

    def _patience(self) -> float | None:
        times = [kill[0] for kill in self._kills]
        if self._quit_at is not None:
            times.append(self._quit_at)
        return max(0.0, min(times) - time.monotonic()) if times else None

    # --- requests ---

    def _take_requests(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._connection, 4096, 16 * FDS_PER_WORKER)
        except OSError:
            data, fds = b"", []
        if not data:
            self._end_everything()
        for fd in fds:
            os.set_inheritable(fd, False)
        self._data += data
        self._fds += fds
        while len(self._data) >= REQUEST.size:
            what, number, argument, threads = REQUEST.unpack_from(self._data)
            self._data = self._data[REQUEST.size :]
            if what in (FORK, FRESH):
                self._start(what, number, argument, threads or None)
            elif what == KILL:
                self._kill(number, argument)
            elif what == QUIT:
                self._quit_at = time.monotonic() + argument / 1000

    def _reply(self, what: int, number: int, value: int, peak: int = 0) -> None:
        try:
            self._connection.sendall(REPLY.pack(what, number, value, peak))
        except OSError:
            self._end_everything()

    def _start(self, what: int, number: int, nice: int, threads: int | None) -> None:
        fds, self._fds = self._fds[:FDS_PER_WORKER], self._fds[FDS_PER_WORKER:]
        try:
            if len(fds) < FDS_PER_WORKER:
                raise OSError(24, "descriptors were lost on the way")
            # What a sitecustomize has loaded here goes by our limits, also in a copy of us.
            copied = what == FORK and (threads == threadlimits.SERVER_THREADS or not threadlimits.are_settled())
            pid = self._fork(fds, number, nice) if copied else self._fresh(fds, number, nice, threads)
        except OSError as error:
            self._reply(FAILED, number, error.errno or 0)
        else:
            self._pids[number] = pid
            self._numbers[pid] = number
            self._reply(STARTED, number, pid)
        finally:
            for fd in fds:
                os.close(fd)

    def _fork(self, fds: list[int], number: int, nice: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            self._connection.close()
            self._wake_reader.close()
            self._wake_writer.close()
            for fd in [*self._fds, self._parent_fd]:  # Also what the next requests brought.
                if fd >= 0:
                    os.close(fd)
            self._worker.main(fds, number, nice)
        except BaseException:
            _tell(fds[3])  # Its stderr, if it had not come so far as to make it that.
            _tell(2)
        finally:
            os._exit(70)  # Only reached when main raised: it ends the process itself.

    def _fresh(self, fds: list[int], number: int, nice: int, threads: int | None) -> int:
        import fcntl

        # First out of the way of their future numbers, then onto them.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FD + FDS_PER_WORKER) for fd in fds]
        numbers = range(_FIRST_FD, _FIRST_FD + FDS_PER_WORKER)
        arguments = command("worker", f"{list(numbers)}, {number}, {nice}", sys.argv[1], options())
        actions = [(os.POSIX_SPAWN_DUP2, fd, target) for fd, target in zip(high, numbers)]
        # What it says before it can speak over its connection, a traceback for example, goes to its stderr.
        actions += [(os.POSIX_SPAWN_DUP2, high[2], 1), (os.POSIX_SPAWN_DUP2, high[3], 2)]
        try:
            environ = {name: value for name, value in os.environ.items() if name not in self._limits}
            environ.update(threadlimits.missing(environ, threads))
            return os.posix_spawn(sys.executable, arguments, environ, file_actions=actions)
        finally:
            for fd in high:
                os.close(fd)

    # --- ends ---

    def _reap(self) -> None:
        try:
            while self._wake_reader.recv(4096):
                pass
        except OSError:
            pass
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            number = self._numbers.pop(pid, None)
            owner = self._left.pop(pid, number)
            if owner is not None:
                # What it had started has come to us, and is new among our children.
                for orphan in processes.children() - self._numbers.keys() - self._left.keys():
                    self._left[orphan] = owner
            if number is not None:
                # getrusage(2): Linux counts in kilobytes, macOS in bytes.
                unit = 1 if sys.platform == "darwin" else 1024
                self._reply(ENDED, number, _exit_code(status), used.ru_maxrss * unit)
                self._ended.append(number)
                if len(self._ended) > REMEMBERED:
                    del self._pids[self._ended.popleft()]

    def _kill(self, number: int, grace: int) -> None:
        pid = self._pids.get(number)
        if pid is None:
            return
        everyone = processes.table()
        if pid in self._numbers:
            victims = {pid} | processes.descendants(pid, everyone)
        elif pid not in everyone:
            victims = set()  # It has ended, but perhaps not what it left behind.
        else:
            return  # Somebody else has its number by now.
        victims |= self._members(number, everyone)
        victims &= everyone.keys()
        processes.end(victims, politely=grace > 0)
        if grace > 0 and victims:
            then = time.monotonic() + grace / 1000
            self._kills.append((then, {victim: everyone[victim] for victim in victims}, number))

    def _kill_now(self, kill: tuple[float, dict[int, processes.Process], int]) -> None:
        _, victims, number = kill
        everyone = processes.table()
        left = {
            victim
            for victim, process in victims.items()
            if victim in everyone and everyone[victim].started == process.started
        }
        for victim in list(left):
            left |= processes.descendants(victim, everyone)
        pid = self._pids.get(number)
        if pid is not None and (pid in left or pid not in everyone):
            left |= self._members(number, everyone)
        processes.end(left)

    def _members(self, number: int, everyone: dict[int, processes.Process]) -> set[int]:
        """Give what belongs to a worker: the group and the session that it led, and what came to us when it died.

        A stranger may lead a group of that number by now, but not below us.
        """
        members = processes.group_members(self._pids[number], everyone)
        if not self._adopts:
            return members
        for orphan, worker in self._left.items():
            if worker == number:
                members |= {orphan} | processes.descendants(orphan, everyone)
        return members & processes.descendants(os.getpid(), everyone)

    def _end_everything(self) -> None:
        """Kill all that is below us, and go. In rounds, because a process may fork while it is being looked for."""
        for _ in range(50):
            if self._adopts and processes.childless():
                break  # What our descendants left behind would be a child of ours.
            everyone = processes.table()
            victims = processes.descendants(os.getpid(), everyone)
            for number in self._numbers.values():
                victims |= self._members(number, everyone)
            victims &= everyone.keys()
            if not victims:
                break
            processes.end(victims)
            self._wait_for(victims)
        os._exit(0)

    def _wait_for(self, pids: set[int]) -> None:
        """Reap; each round waits for one child at the least, if there is one among `pids`."""
        for pid in pids:
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                continue  # A grandchild: it becomes our child when its parent has been reaped.


def _exit_code(status: int) -> int:
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

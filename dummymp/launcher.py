# SPDX-License-Identifier: MIT
"""Starting worker processes: the parent's side of the server, and the way without one (Windows).

A launcher starts workers without waiting for them. What happened to them comes later, as `Notice`s.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from typing import Any, NamedTuple

from . import forkserver, processes
from .boot import last_words, start_server, take_early
from .page import Page
from .transport import NO_SIGNAL, Channel, PipeChannel

__all__ = ["Launcher", "Notice", "Started", "WindowsLauncher", "make_launcher"]

# How long the end of everything may take. DESIGN: at exit all is gone within 2 s.
QUIT_GRACE = 0.5
QUIT_LIMIT = 1.8
# A request that the server does not take within so many seconds finds it stuck, and it is replaced. It answers in
# milliseconds; longer: a machine that is nearly out of memory has more time; shorter: less of a wait where it hangs.
SEND_LIMIT = 10.0


class Notice(NamedTuple):
    """What became of a worker: `what` is forkserver.STARTED, ENDED or FAILED, `value` and `peak` as described there."""

    what: int
    number: int
    value: int
    peak: int = 0


class Started(NamedTuple):
    """The parent's ends of a worker that is being started. `stdout`, `stderr`: descriptors to read, or -1."""

    channel: Channel
    control: Any
    stdout: int
    stderr: int
    page: Page | None


class Launcher:
    """Starts workers through the server process of `forkserver`, which it starts when the first one is wanted."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._pid = 0
        self._log = -1
        self._data = b""
        self._asked = False  # for a worker
        self.said = ""

    def fileno(self) -> int:
        """Give the descriptor that is readable when `notices` has something new; -1 while there is no server."""
        return self._connection.fileno() if self._connection is not None else -1

    @property
    def pending(self) -> bool:
        """Tell whether `notices` has something that was read already, so that `fileno` does not tell of it."""
        return len(self._data) >= forkserver.REPLY.size

    @property
    def pids(self) -> list[int]:
        """Give the pid of the server, if there is one."""
        return [self._pid] if self._pid else []

    def sentinels(self) -> list[int]:
        """Give the handles that become ready when a worker ends: none, the server tells."""
        return []

    def start(self, number: int, *, method: str, nice: int, threads: int | None = None) -> Started:
        """Ask for a worker; `method` is "forkserver" or "spawn", `nice` is added to our own niceness.

        Args:
            threads: What libraries may start that are loaded before the first task; None: as they like.

        Raises:
            ConnectionError: The server is gone.
            OSError: No descriptors, no processes, or no memory are left.
        """
        self.prepare()
        theirs: list[Any] = []
        ours: list[Any] = []
        try:
            for _ in range(2):
                mine, other = _socketpair()
                ours.append(mine)
                theirs.append(other)
            readers = []
            for _ in range(2):
                reader, writer = os.pipe()
                ours.append(_Fd(reader))
                theirs.append(_Fd(writer))
                os.set_blocking(reader, False)
                readers.append(reader)
            theirs.append(_Fd(_page_file()))
            page = Page.open(theirs[-1].fileno())
            what = forkserver.FORK if method == "forkserver" else forkserver.FRESH
            request = forkserver.REQUEST.pack(what, number, nice, threads or 0)
            self._asked = True
            self._send(request, [end.fileno() for end in theirs])
        except OSError:
            for end in ours:
                end.close()
            raise
        finally:
            for end in theirs:
                end.close()
        return Started(Channel(ours[0]), ours[1], readers[0], readers[1], page)

    def prepare(self) -> None:
        """Start the server, if there is none, and do not wait for it: it takes its time while we do other things.

        Raises:
            OSError: As `start`.
        """
        if self._connection is None:
            self._connect(*(take_early() or start_server()))

    def _connect(self, pid: int, connection: int, log: int) -> None:
        import socket

        self._connection = socket.socket(fileno=connection)
        self._connection.setblocking(False)
        self._pid = pid
        self._log = log
        self._asked = False
        self._data = b""

    def notices(self) -> list[Notice] | None:
        """Give what the server has told since, without waiting. None: it is gone; the next start makes a new one."""
        if self._connection is not None and not self._read():
            self._bury_server()
        size = forkserver.REPLY.size
        count = len(self._data) // size
        found = [Notice(*forkserver.REPLY.unpack_from(self._data, index * size)) for index in range(count)]
        self._data = self._data[count * size :]
        return None if self._connection is None and not found else found

    def _read(self) -> bool:
        """Read what the server has said, without waiting; False if it is gone."""
        try:
            data = self._connection.recv(1 << 16)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        self._data += data
        return bool(data)

    def kill(self, number: int, *, grace: float) -> bool:
        """End a worker and all that it started: SIGTERM, and SIGKILL after `grace` seconds (0: SIGKILL at once).

        Returns:
            False if there is no server that could do it.
        """
        return self._request(forkserver.KILL, number, int(grace * 1000))

    def kill_server(self) -> None:
        """End a server that is stuck. `notices` finds it gone, and the next start makes a new one."""
        if self._pid:
            try:
                os.killpg(self._pid, signal.SIGKILL)  # With what a sitecustomize started, and may wait for.
            except OSError:
                pass  # It is gone this moment.

    def _request(self, what: int, number: int, argument: int) -> bool:
        if self._connection is None:
            return False
        try:
            self._send(forkserver.REQUEST.pack(what, number, argument, 0), [])
        except OSError:
            return False  # The server is gone; `notices` finds out.
        return True

    def _send(self, request: bytes, fds: list[int]) -> None:
        """Send a request. A server that is busy answering takes it as soon as its answers are read, so they are.

        Raises:
            ConnectionError: The server is gone, or stuck; then it is gone now.
            OSError: The system has no room for so many descriptors on their way.
        """
        import array
        import socket

        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        until = time.monotonic() + SEND_LIMIT
        while True:
            try:
                # It is so short that it is sent whole or not at all.
                self._connection.sendmsg([request], rights, NO_SIGNAL)
                return
            except (BlockingIOError, InterruptedError):
                pass
            left = until - time.monotonic()
            if left <= 0:
                self._bury_server()
                raise ConnectionError(f"it took no request for {SEND_LIMIT:g} s")
            if not self._read():
                raise ConnectionError("it has closed its connection")
            self._wait(left, to_send=True)

    def _wait(self, seconds: float, *, to_send: bool = False) -> None:
        """Sleep until the server has said something, or (`to_send`) takes more, or the time is over."""
        import select

        poll = select.poll()  # It needs no descriptor, of which there may be none left.
        poll.register(self._connection, select.POLLIN | (select.POLLOUT if to_send else 0))
        poll.poll(max(0.0, seconds) * 1000)

    def close(self) -> None:
        """End the server and all that is below it; at most `QUIT_LIMIT` seconds."""
        if self._connection is None:
            return
        if self._asked:
            self._request(forkserver.QUIT, 0, int(QUIT_GRACE * 1000))
        else:
            self.kill_server()  # It may still be loading its modules, and has nobody to care for.
        deadline = time.monotonic() + QUIT_LIMIT
        while self.notices() is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                self._end_stuck_server()
            self._wait(left if left > 0 else 0.1)

    def _end_stuck_server(self) -> None:
        """Kill it, and what it should have killed: without it nobody would find what its workers started."""
        below = processes.descendants(self._pid, processes.table())
        self.kill_server()
        processes.end(below)

    def _bury_server(self) -> None:
        """Take note that the server has ended or is of no use any more, and of what it said last."""
        self._connection.close()
        self._connection = None
        try:
            if os.waitpid(self._pid, os.WNOHANG) == (0, 0):
                # What has closed its end is gone in a moment, but what is stuck must not be waited for.
                self.kill_server()
                os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass  # Reaped by other code of this program, or SIGCHLD is ignored.
        self._pid = 0
        self.said = last_words(self._log)
        os.close(self._log)

    def abandon(self) -> None:
        """Let go of the server without ending it: we are a copy of its parent, made by os.fork()."""
        if self._connection is not None:
            self._connection.close()
            os.close(self._log)
            self._connection = None
            self._pid = 0


def _socketpair() -> Any:
    import socket

    ends = socket.socketpair()
    for end in ends:
        end.setblocking(True)  # The program may have called socket.setdefaulttimeout().
    return ends


def _page_file() -> int:
    """Give the descriptor of a file for a page, or, where there is no room for one, of what cannot be mapped.

    Such a worker does without a page: it tells of each task by itself, and gets none ahead.

    Raises:
        OSError: No descriptors are left.
    """
    try:
        return Page.create()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        # A limit on the size of files (RLIMIT_FSIZE), or, without anonymous memory, no disk that can be written to.
        return os.open(os.devnull, os.O_RDWR)


class _Fd:
    """A bare file descriptor with the two methods of a socket that `Launcher.start` needs."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)


class WindowsLauncher:
    """Starts workers with multiprocessing's spawn, where there are no socket pairs and no fork."""

    def __init__(self) -> None:
        self._alive: dict[int, Any] = {}
        self._new: list[Notice] = []
        self.said = ""

    def fileno(self) -> int:
        return -1

    @property
    def pids(self) -> list[int]:
        return []

    @property
    def pending(self) -> bool:
        return False

    def kill_server(self) -> None:
        """Do nothing: there is none."""

    def sentinels(self) -> list[int]:
        """Give the handles that become ready when a worker ends."""
        return [process.sentinel for process in self._alive.values()]

    def prepare(self) -> None:
        """Do nothing: there is no server."""

    def start(self, number: int, *, method: str, nice: int, threads: int | None = None) -> Started:
        import multiprocessing
        import types

        from . import worker

        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        control, their_control = context.Pipe()
        process = context.Process(target=worker.main_spawned, args=(theirs, their_control, number, nice), daemon=False)
        # multiprocessing would run the user's script again in the worker, unless it finds none.
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            process.start()
        finally:
            sys.modules["__main__"] = main
        theirs.close()
        their_control.close()
        self._alive[number] = process
        self._new.append(Notice(forkserver.STARTED, number, process.pid or 0))
        return Started(PipeChannel(ours), control, -1, -1, None)

    def notices(self) -> list[Notice] | None:
        found, self._new = self._new, []
        for number, process in list(self._alive.items()):
            if process.exitcode is not None:
                del self._alive[number]
                found.append(Notice(forkserver.ENDED, number, process.exitcode))
        return found

    def kill(self, number: int, *, grace: float) -> bool:
        process = self._alive.get(number)
        if process is not None:
            everyone = processes.table()
            processes.end({process.pid} | processes.descendants(process.pid, everyone))
        return True

    def close(self) -> None:
        for number in list(self._alive):
            self.kill(number, grace=0)
        deadline = time.monotonic() + QUIT_LIMIT
        for process in self._alive.values():
            process.join(max(0.0, deadline - time.monotonic()))
        self._alive.clear()

    def abandon(self) -> None:
        self._alive.clear()


def make_launcher() -> Launcher | WindowsLauncher:
    """Give the launcher of this platform."""
    return WindowsLauncher() if sys.platform == "win32" else Launcher()

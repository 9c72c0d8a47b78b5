# SPDX-License-Identifier: MIT
"""Process trees: who was started by whom, and ending all of them.

Linux is read straight from /proc, for the server must not load psutil before it serves; elsewhere psutil is asked.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NamedTuple

__all__ = [
    "ADOPTS",
    "Process",
    "adopt_orphans",
    "childless",
    "children",
    "descendants",
    "end",
    "group_members",
    "leave_terminal",
    "lives",
    "table",
]

# Windows has no SIGKILL; os.kill with any other number ends the process there.
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)

# Whether the system lets a process adopt what its descendants leave behind: see `adopt_orphans`.
ADOPTS = sys.platform.startswith("linux")


class Process(NamedTuple):
    """One process: its parent, group and session, and when it started, to tell it from a later one of the same pid."""

    parent: int
    group: int
    session: int
    started: float


def table() -> dict[int, Process]:
    """Look at all processes that there are now, by pid."""
    if os.path.exists("/proc/self/stat"):
        return {int(name): process for name in os.listdir("/proc") if name.isdigit() and (process := _stat(name))}
    import psutil

    found = {}
    for process in psutil.process_iter():
        try:
            found[process.pid] = Process(process.ppid(), *_group_and_session(process.pid), process.create_time())
        except (psutil.Error, OSError):
            continue
    return found


def descendants(root: int, processes: dict[int, Process]) -> set[int]:
    """Give the pids of all that `root` started, and what those started, without `root`."""
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    found: set[int] = set()
    ahead = [root]
    while ahead:
        for pid in children.get(ahead.pop(), ()):
            if pid not in found:
                found.add(pid)
                ahead.append(pid)
    return found - {root}


def group_members(leader: int, processes: dict[int, Process]) -> set[int]:
    """Give the pids of the process group, and of the session, that a worker leads: what its tasks left behind, too."""
    return {pid for pid, process in processes.items() if leader in (process.group, process.session)}


def lives(pid: int) -> bool:
    """Tell whether a process has not ended; if nobody can tell, True. One that nobody has reaped yet has ended."""
    if sys.platform == "win32":
        return True  # To signal it with 0 would end it.
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except ProcessLookupError:
        return False
    except OSError:
        return True  # There is no /proc, and a zombie is reaped in a moment; or it is not ours to signal.


def children() -> set[int]:
    """Give the pids that this process is the parent of; none where the system does not tell at once.

    Linux does, if it was built so (CONFIG_PROC_CHILDREN), for a process of one thread.
    """
    try:
        with open("/proc/thread-self/children", "rb") as file:
            return {int(pid) for pid in file.read().split()}
    except OSError:
        return set()


def end(pids: set[int], *, politely: bool = False) -> None:
    """Send SIGKILL (politely: SIGTERM) to each; those that are gone are fine."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGTERM if politely else _KILL)
        except OSError:
            continue


def childless() -> bool:
    """Tell whether this process has no children, not even such as have ended and were not reaped."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def adopt_orphans() -> bool:
    """Become the parent of what our descendants leave behind: Linux only, see PR_SET_CHILD_SUBREAPER in prctl(2).

    Workers do, so that a process that a task started is known as that task's however it hides (a daemon forks twice
    and leaves its session); the server does, for what dead workers leave. Elsewhere group and session have to do.

    Returns:
        Whether it is so now.
    """
    if not ADOPTS:
        return False
    pr_set_child_subreaper = 36  # <linux/prctl.h>
    try:
        import ctypes

        return bool(ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0) == 0)
    except (ImportError, AttributeError, OSError):
        return False  # A Python that was built without libffi has no ctypes.


def leave_terminal() -> None:
    """Let go of the terminal from which the program was started, for this process and all that it starts.

    Without it they cannot be stopped for reading from it in the background: opening /dev/tty fails at once. Elsewhere
    than on Linux, workers leave it by leading sessions.
    """
    if not ADOPTS:
        return
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return  # There is none.
    import fcntl
    import termios

    try:
        fcntl.ioctl(terminal, termios.TIOCNOTTY)
    except OSError:
        pass
    finally:
        os.close(terminal)


def _stat(pid: str) -> Process | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name stands in parentheses and may itself hold spaces and parentheses: proc(5).
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return Process(int(fields[1]), int(fields[2]), int(fields[3]), float(fields[19]))


def _group_and_session(pid: int) -> tuple[int, int]:
    try:
        return os.getpgid(pid), os.getsid(pid)
    except (AttributeError, OSError):
        return 0, 0

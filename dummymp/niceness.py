# SPDX-License-Identifier: MIT
"""Niceness: how readily a process gives way to others on the same CPU; on Windows, its priority class.

A worker is as nice as the main program, plus what the preset says; never less nice than that.
"""

from __future__ import annotations

import os

from .processes import ADOPTS

__all__ = ["CLASSES", "NICEST", "change", "may_become", "own", "regroup", "set_apart"]

NICEST = 19
# Windows has priority classes instead. By their numbers, lowest first: the niceness that each stands for.
IDLE, BELOW_NORMAL, NORMAL = 64, 16384, 32
CLASSES = {IDLE: 19, BELOW_NORMAL: 10, NORMAL: 0, 32768: -5, 128: -10, 256: -20}
# From this niceness on a worker gets the lowest of them.
IDLE_FROM = 15


def own() -> int:
    """Give the niceness of this process, -20 to 19."""
    if hasattr(os, "getpriority"):
        return os.getpriority(os.PRIO_PROCESS, 0)
    return CLASSES.get(_class_of(os.getpid()), 0)


def set_apart(nice: int) -> bool:
    """Make this process, a new worker, the leader of a process group, and `nice` nicer than it is.

    Linux may group processes by session, and share the CPUs between the groups first: "autogroup" in sched(7). A worker
    that is as nice as the main program stays in its session, so that all of them together count as one program does.
    A nicer one leads a session, so that its group can be nicer, too. Where the system does not let us find what a
    task left behind in other ways, each worker leads a session.

    Returns:
        False if `regroup` has to be called for it, a little later.
    """
    if hasattr(os, "setsid"):
        try:
            if nice or not ADOPTS:
                os.setsid()
            else:
                os.setpgid(0, 0)
        except OSError:
            pass
    if not nice:
        return True
    if not hasattr(os, "setpriority"):
        _change_class(os.getpid(), nice, _class_of(os.getppid()))
        return True
    try:
        os.nice(nice)
    except OSError:
        return True
    return regroup(nice)


def may_become(nice: int, *, before: int) -> bool:
    """Tell whether a worker that is `before` nicer than this process stands in the right session to be `nice` nicer."""
    return not ADOPTS or bool(nice) == bool(before)


def change(pid: int, nice: int) -> bool:
    """Make a worker `nice` nicer than this process.

    Returns:
        False if the system does not let us, so that the worker must be replaced.
    """
    if not hasattr(os, "setpriority"):
        return _change_class(pid, nice, _class_of(os.getpid()))
    wanted = min(NICEST, own() + nice)
    try:
        # Linux knows threads only: those that are there, such as a pool of BLAS, keep theirs otherwise.
        threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        threads = []
    try:
        os.setpriority(os.PRIO_PROCESS, pid, wanted)
        for thread in threads:
            os.setpriority(os.PRIO_PROCESS, thread, wanted)
    except OSError:
        return False
    return regroup(nice, pid)


def regroup(nice: int, pid: int | None = None) -> bool:
    """Make the session of a worker as nice as the worker, where Linux shares the CPUs between sessions first.

    Returns:
        False if it must be tried again: the kernel takes one such change in a tenth of a second, from all that are not
        the administrator.
    """
    try:
        with open(f"/proc/{pid or 'self'}/autogroup", "wb") as file:
            file.write(b"%d" % min(NICEST, nice))
    except BlockingIOError:
        return False
    except OSError:
        pass  # There is no such thing here.
    return True


def _class_of(pid: int) -> int:
    import psutil

    try:
        return int(psutil.Process(pid).nice())
    except (OSError, psutil.Error):
        return NORMAL


def _change_class(pid: int, nice: int, ours: int) -> bool:
    """Give a process the priority class that stands for `nice`, but none above that of the main program."""
    import psutil

    wanted = ours
    if nice > 0:
        lower = IDLE if nice >= IDLE_FROM else BELOW_NORMAL
        wanted = next(number for number in CLASSES if number in (lower, ours))
    try:
        psutil.Process(pid).nice(wanted)
    except (OSError, psutil.Error):
        return False
    return True

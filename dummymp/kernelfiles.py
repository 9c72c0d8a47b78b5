# SPDX-License-Identifier: MIT
"""Reading what the kernel writes about itself: never an error, at most one line at DEBUG.

Limits and counters are asked for many times a second, on machines whose administrators hide some of them.
What cannot be read is as good as not there.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from .log import logger

__all__ = ["Group", "groups", "note", "read", "read_number"]

_noted: set[str] = set()


class Group(NamedTuple):
    """One control group (of this process, or a parent of that).

    Attributes:
        version: 1 or 2, the two ways in which Linux has arranged control groups.
        controller: What it controls, "cpu" or "memory".
        path: Its name, as ``/proc/PID/cgroup`` has it.
        folder: Where its files are.
    """

    version: int
    controller: str
    path: str
    folder: str

    def holds(self, cgroup_text: str) -> bool:
        """Tell whether a process is in this group or in one below it, by its ``/proc/PID/cgroup``."""
        path = _paths(cgroup_text, self.controller).get(self.version)
        if path is None or path.startswith("/.."):
            return False  # Outside of the container in which we are.
        return path == self.path or path.startswith(self.path.rstrip("/") + "/")


def note(message: str) -> None:
    """Say something at DEBUG, the first time only."""
    if message in _noted:
        return
    _noted.add(message)
    logger().debug("%s", message)


def read(path: str) -> str | None:
    """Read a small file; None where there is none, or it may not be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        note(f"cannot read {path}: {error.strerror}")
        return None
    try:
        return _read_all(descriptor).decode("utf-8", "replace")
    except OSError as error:
        # A process that ended between the opening and the reading is no news.
        if not isinstance(error, ProcessLookupError):
            note(f"cannot read {path}: {error.strerror}")
        return None
    finally:
        os.close(descriptor)


def _read_all(descriptor: int) -> bytes:
    parts: list[bytes] = []
    while True:
        part = os.read(descriptor, 65536)
        if not part:
            return b"".join(parts)
        parts.append(part)


def read_number(path: str) -> int | None:
    """Read a file that holds one number; None for anything else, such as "max"."""
    text = (read(path) or "").strip()
    return int(text) if text.isascii() and text.removeprefix("-").isdigit() else None


def groups(controller: str, root: str = "/") -> list[Group]:
    """Give the control groups that limit this process: its own, and all visible parents, innermost first.

    Args:
        controller: "cpu" or "memory".
        root: Where the file system begins; tests plant one.
    """
    paths = _paths(read(os.path.join(root, "proc/self/cgroup")) or "", controller)
    if not paths:
        return []
    found: list[Group] = []
    for version, top, mount in _mounts(read(os.path.join(root, "proc/self/mountinfo")) or "", controller):
        path = paths.pop(version, None)
        if path is not None:
            found += _upwards(version, controller, path, top, os.path.join(root, mount.lstrip("/")))
    return found


def _paths(cgroup_text: str, controller: str) -> dict[int, str]:
    """Find the group of a process in each version. Lines are ``number:controllers:path``: cgroups(7)."""
    paths = {}
    for line in cgroup_text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            paths[2] = path
        elif controller in controllers.split(","):
            paths[1] = path
    return paths


def _mounts(mountinfo: str, controller: str) -> list[tuple[int, str, str]]:
    """Find where control groups are mounted: version, topmost visible group, folder. Format: proc(5)."""
    found = []
    for line in mountinfo.splitlines():
        place, _, kind = line.partition(" - ")
        fields, kinds = place.split(), kind.split()
        if len(fields) < 5 or not kinds:
            continue
        if kinds[0] == "cgroup2":
            found.append((2, _plain(fields[3]), _plain(fields[4])))
        elif kinds[0] == "cgroup" and controller in kinds[-1].split(","):
            found.append((1, _plain(fields[3]), _plain(fields[4])))
    return found


def _plain(text: str) -> str:
    """Undo the way in which the kernel writes spaces in names (``\\040``)."""
    for escaped, character in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        text = text.replace(escaped, character)
    return text


def _upwards(version: int, controller: str, path: str, top: str, mount: str) -> list[Group]:
    below = _below(path, top)
    if below is None:
        # We see the groups from inside a container and our name from outside, or the other way round. What is
        # mounted here is ours, then.
        return [Group(version, controller, path, mount)]
    found = []
    steps = [step for step in below.split("/") if step]
    for depth in range(len(steps), -1, -1):
        name = "/".join([top.rstrip("/"), *steps[:depth]]) or "/"
        found.append(Group(version, controller, name, os.path.join(mount, *steps[:depth])))
    return found


def _below(path: str, top: str) -> str | None:
    if "/.." in path or "/.." in top:
        return None
    if path == top:
        return ""
    return path[len(top.rstrip("/")) :] if path.startswith(top.rstrip("/") + "/") else None

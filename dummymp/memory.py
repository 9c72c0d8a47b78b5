# SPDX-License-Identifier: MIT
"""How much memory is left for us: the machine's, or less where a control group (a container) limits it."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from .kernelfiles import Group, groups, note, read, read_number

__all__ = ["Memory", "memory"]


class Memory(NamedTuple):
    """How much memory we may use and how much of it is left, in bytes; both 0 where nobody can tell."""

    available: int
    total: int
    source: str

    @property
    def free(self) -> float | None:
        """Give the share that is left, 0 to 1; None where nobody can tell."""
        return self.available / self.total if self.total else None


def memory(root: str = "/") -> Memory:
    """Find the memory that is scarcest for us, the machine's or a control group's.

    Costs some 100 microseconds, on large machines more; once a second is often enough.

    Args:
        root: Where the file system begins; tests plant one.
    """
    whole = _machine(root)
    candidates = [whole]
    for group in groups("memory", root):
        limited = _group(group)
        # A limit above what the machine has is none.
        if limited is not None and (not whole.total or limited.total < whole.total):
            candidates.append(limited)
    known = [(candidate.free, candidate) for candidate in candidates if candidate.free is not None]
    return min(known, key=lambda pair: pair[0])[1] if known else whole


def _machine(root: str) -> Memory:
    values = {}
    for line in (read(os.path.join(root, "proc/meminfo")) or "").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            values[name] = int(words[0]) * 1024
    total, available = values.get("MemTotal"), values.get("MemAvailable")
    if total and available is not None:
        return Memory(min(available, total), total, "the memory of the machine")
    if root == "/":
        return _machine_elsewhere()
    return Memory(0, 0, "unknown")


def _machine_elsewhere() -> Memory:
    import psutil

    try:
        seen = psutil.virtual_memory()
    except (OSError, RuntimeError, psutil.Error) as error:
        note(f"cannot tell how much memory is free: {error}")
        return Memory(0, 0, "unknown")
    return Memory(seen.available, seen.total, "the memory of the machine")


def _group(group: Group) -> Memory | None:
    names = (
        ("memory.current", "inactive_file", ("memory.max", "memory.high"))
        if group.version == 2
        else ("memory.usage_in_bytes", "total_inactive_file", ("memory.limit_in_bytes",))
    )
    used_name, cache_name, limit_names = names
    limits = [read_number(os.path.join(group.folder, name)) for name in limit_names]
    # "max" is no number; version 1 writes the largest number there is instead.
    real = [value for value in limits if value is not None and 0 < value < sys.maxsize // 4096 * 4096]
    used = read_number(os.path.join(group.folder, used_name))
    if not real or used is None:
        return None
    total = min(real)
    # Files that the kernel keeps in memory only because there was room are given back when somebody needs it.
    used -= _statistic(os.path.join(group.folder, "memory.stat"), cache_name)
    available = min(max(total - used, 0), total)
    return Memory(available, total, f"the memory limit of the control group {group.path}")


def _statistic(path: str, name: str) -> int:
    for line in (read(path) or "").splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == name and words[1].isdigit():
            return int(words[1])
    return 0

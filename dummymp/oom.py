# SPDX-License-Identifier: MIT
"""Whether the kernel has killed processes because memory ran out."""

from __future__ import annotations

import os

from .kernelfiles import groups, read

__all__ = ["oom_kills"]


def oom_kills(root: str = "/") -> int | None:
    """Count the processes killed so far for lack of memory: in our control group, or on the machine; None if unknown.

    The innermost group that counts is asked, for a machine may have other groups that run out of memory. Sources:
    ``oom_kill`` in memory.events (cgroup v2), memory.oom_control (v1), and where no group counts, /proc/vmstat.

    Args:
        root: Where the file system begins; tests plant one.
    """
    for group in groups("memory", root):
        name = "memory.events" if group.version == 2 else "memory.oom_control"
        count = _count(read(os.path.join(group.folder, name)) or "")
        if count is not None:
            return count
    return _count(read(os.path.join(root, "proc/vmstat")) or "")


def _count(text: str) -> int | None:
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == "oom_kill" and words[1].isdigit():
            return int(words[1])
    return None

# SPDX-License-Identifier: MIT
"""What we may use: how many CPUs are ours, and who says so.

The smallest number wins: the machine, the CPU affinity, the quota of the control group (containers), the
variables of the job systems, and PYTHON_CPU_COUNT. None of them implies another.
"""

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from .kernelfiles import Group, groups, note, read, read_number

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["Limit", "affinity", "limit", "machine", "on_login_node", "quota", "usable"]

# What job systems tell a job about its share of this machine, and Python's own variable (3.13 and later
# know it).
VARIABLES = (
    "SLURM_CPUS_PER_TASK",
    "SLURM_CPUS_ON_NODE",
    "PBS_NCPUS",
    "NSLOTS",
    "PYTHON_CPU_COUNT",
)


class Limit(NamedTuple):
    """How many CPUs we may use, and which limit set the number, in words."""

    count: int  # type: ignore[assignment]  # Hides tuple.count, which nobody needs here.
    source: str


def usable() -> int:
    """Count the CPUs that we may use, at least 1."""
    return limit().count


def limit(
    *,
    root: str = "/",
    environ: Mapping[str, str] | None = None,
    cpu_count: int | None = None,
    affinity_count: int | None = None,
) -> Limit:
    """Find the smallest limit on our CPUs. Costs about 100 microseconds.

    Args:
        root: Where the file system begins; tests plant one.
        environ: The variables; None for ours.
        cpu_count: CPUs in the machine; None asks it.
        affinity_count: CPUs that this process may be put on; None asks.
    """
    found = [Limit(cpu_count or machine(), "the number of CPUs in the machine")]
    if affinity_count is None:
        ours = affinity()
        affinity_count = None if ours is None else len(ours)
    if affinity_count:
        found.append(Limit(affinity_count, "the CPU affinity (set by taskset, a job system or a container)"))
    share = quota(root)
    if share is not None:
        cpus, group = share
        # Rounded up, as Go's runtime and loky do: of a quota of 1.5 CPUs, one worker would waste a third.
        source = f"the CPU quota of the control group {group.path} ({cpus:.3g} CPUs)"
        found.append(Limit(max(1, math.ceil(cpus)), source))
    found += _from_variables(os.environ if environ is None else environ)
    # min() keeps the first of equals: what the machine says needs no further explanation.
    return min(found, key=lambda candidate: candidate.count)


def machine() -> int:
    """Count the CPUs in the machine.

    Not by `os.cpu_count` where there is another way: from 3.13 on it repeats PYTHON_CPU_COUNT instead.
    """
    try:
        return max(1, os.sysconf("SC_NPROCESSORS_ONLN"))
    except (AttributeError, ValueError, OSError):
        return os.cpu_count() or 1


def affinity() -> Collection[int] | None:
    """Give the numbers of the CPUs that this process may be put on; None where the system cannot tell."""
    if sys.platform.startswith("linux"):
        try:
            return os.sched_getaffinity(0)
        except OSError as error:
            note(f"cannot read the CPU affinity: {error}")
            return None
    import psutil

    try:
        # Windows and FreeBSD have it, macOS does not.
        return set(psutil.Process().cpu_affinity())  # type: ignore[attr-defined, unused-ignore]
    except (AttributeError, OSError, psutil.Error):
        return None


def quota(root: str = "/") -> tuple[float, Group] | None:
    """Find the tightest CPU quota of our control groups: how many CPUs, and the group that has it."""
    found = []
    for group in groups("cpu", root):
        cpus = _quota_2(group.folder) if group.version == 2 else _quota_1(group.folder)
        if cpus is not None:
            found.append((cpus, group))
    return min(found, key=lambda pair: pair[0], default=None)


def _quota_2(folder: str) -> float | None:
    """Read ``cpu.max``: quota and period in microseconds, or "max": the kernel's cgroup-v2.rst."""
    words = (read(os.path.join(folder, "cpu.max")) or "").split()
    if not words or words[0] == "max":
        return None
    try:
        used, period = int(words[0]), int(words[1]) if len(words) > 1 else 100_000
    except ValueError:
        return None
    return used / period if used > 0 and period > 0 else None


def _quota_1(folder: str) -> float | None:
    used = read_number(os.path.join(folder, "cpu.cfs_quota_us"))
    period = read_number(os.path.join(folder, "cpu.cfs_period_us"))
    return used / period if used and period and used > 0 and period > 0 else None


def _from_variables(environ: Mapping[str, str]) -> list[Limit]:
    found = []
    for name in VARIABLES:
        text = environ.get(name, "").strip()
        if not text or (name == "PYTHON_CPU_COUNT" and text == "default"):
            continue
        if text.isascii() and text.isdigit() and int(text) > 0:
            found.append(Limit(int(text), f"the variable {name}={text}"))
        else:
            note(f"ignored the variable {name}={text!r}: not a number of CPUs")
    return found


def on_login_node(
    environ: Mapping[str, str] | None = None,
    executable: Callable[[str], bool] = lambda path: os.access(path, os.X_OK),
) -> bool:
    """Tell whether this looks like a cluster's login node: Slurm is here, but this is not one of its jobs."""
    environ = os.environ if environ is None else environ
    if "SLURM_JOB_ID" in environ:
        return False
    folders = [folder for folder in environ.get("PATH", "").split(os.pathsep) if folder]
    return any(executable(os.path.join(folder, name)) for folder in folders for name in ("sbatch", "srun"))

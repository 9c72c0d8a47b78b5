# SPDX-License-Identifier: MIT
"""The counters of the kernel: how long the CPUs and the processes have worked since they started.

`LinuxCounters` reads them from the kernel itself, `PsutilCounters` asks psutil on all other platforms. Both
have the same shape (`Counters`), so that a test can hand `CpuReader` a third. They never raise; None means
unknown.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from .kernelfiles import note, read
from .limits import affinity
from .niceness import CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from typing import Protocol

    class Counters(Protocol):
        """What `CpuReader` needs to know."""

        # Work that no process shows was done by somebody else's processes: true where all of ours show
        # themselves.
        shows_all_of_ours: bool

        def totals(self) -> Totals | None:
            """Look at the CPUs that we may use."""
            ...

        def glance(self, own: Collection[int]) -> Glance | None:
            """Look at what the system knows without a second look, apart from the processes `own`."""
            ...

        def process(self, pid: int) -> Process | None:
            """Look at one process, at its CPU time first of all."""
            ...

        def table(self) -> dict[int, float] | None:
            """Look at the CPU time of all processes, in seconds by pid."""
            ...

        def cgroup(self, pid: int) -> str:
            """Give the ``/proc/PID/cgroup`` of a process, "" where there is none."""
            ...

        def command(self, pid: int) -> str:
            """Give the command line of a process, "" where nobody tells."""
            ...


__all__ = ["Glance", "LinuxCounters", "Process", "PsutilCounters", "Totals", "system_counters"]

# More nice than any niceness: what the kernel runs only when nothing else wants the CPU (SCHED_IDLE).
IDLE_NICENESS = 20
SCHED_IDLE = 5


class Totals(NamedTuple):
    """Seconds that the CPUs which we may use have worked and been idle.

    Attributes:
        cpus: How many CPUs of ours these are.
        of: How many CPUs the machine has.
        ours: Their numbers; None where they are all that there are.
        work: Time in processes and in the kernel on their behalf. Interrupts and what the host of a virtual
            machine took away are left out: no process would give them back by yielding.
        idle: Time in which they had nothing to do, or waited for a disk.
    """

    cpus: int
    of: int
    ours: frozenset[int] | None
    work: float
    idle: float


class Glance(NamedTuple):
    """How busy the whole machine is and was, as the kernel itself keeps it. A container sees that of its host.

    Attributes:
        running: Threads of others that run, or wait for a CPU, at this moment.
        load: How many threads did that, or waited for a disk, on average over the last minute, ours included.
        pressure: Percent of the last ten seconds in which somebody waited for a CPU.
    """

    running: int
    load: float
    pressure: float


class Process(NamedTuple):
    """One process.

    Attributes:
        parent: The pid of its parent.
        started: When it started, to tell it from a later one with the same pid.
        nice: Its niceness.
        cpu: The CPU on which it ran last; None if unknown.
        spent: Seconds of CPU time that it used, all threads.
        reaped: The same of those that it started, that ended, and that it waited for.
    """

    parent: int
    started: float
    nice: int
    cpu: int | None
    spent: float
    reaped: float


def system_counters() -> Counters:
    """Give the counters of this machine."""
    return LinuxCounters() if sys.platform.startswith("linux") else PsutilCounters()


class LinuxCounters:
    """Counters of Linux, from ``/proc`` and from the CPU-time clocks of the processes.

    Each process has a clock of the CPU time that it used, which anybody may read: one system call, half a
    microsecond and exact to the nanosecond, where opening, reading and parsing ``/proc/PID/stat`` takes ten
    and is exact to a hundredth of a second. With 1,000 processes that is the difference between 2 and 12
    milliseconds.

    Args:
        root: Where the file system begins; tests plant one.
        cpus: The CPUs that we may use; asks the system by default.
    """

    shows_all_of_ours = True

    def __init__(self, root: str = "/", cpus: Callable[[], Collection[int] | None] = affinity) -> None:
        self._proc = os.path.join(root, "proc")
        self._cpus = cpus
        try:
            self._tick = 1 / os.sysconf("SC_CLK_TCK")
        except (AttributeError, ValueError, OSError):
            self._tick = 0.01
        self._has_clocks = root == "/" and _clocks_work()

    def totals(self) -> Totals | None:
        lines = self._cpu_lines()
        if not lines:
            note(f"cannot read {self._proc}/stat: all CPUs count as free")
            return None
        ours, of = self._cpus(), max(1, len(lines) - 1)
        # A line for each CPU follows the one for all. Where all are ours, that one will do.
        if ours is None or len(ours) >= len(lines) - 1:
            return self._sum(lines[:1], of, of, None)
        names = {b"cpu%d" % number for number in ours}
        chosen = [line for line in lines[1:] if line.partition(b" ")[0] in names]
        if not chosen:
            # A container that numbers its CPUs anew (lxcfs) shows only ours.
            return self._sum(lines[:1], len(ours), of, None)
        return self._sum(chosen, len(chosen), of, frozenset(ours))

    def _cpu_lines(self) -> list[bytes]:
        try:
            descriptor = os.open(f"{self._proc}/stat", os.O_RDONLY)
        except OSError:
            return []
        try:
            # The CPUs come first; the long line of interrupts after them is not worth the parsing.
            data = os.read(descriptor, 65536)
            while b"\nintr" not in data:
                more = os.read(descriptor, 65536)
                if not more:
                    break
                data += more
        except OSError:
            return []
        finally:
            os.close(descriptor)
        return [line for line in data.partition(b"\nintr")[0].split(b"\n") if line.startswith(b"cpu")]

    def _sum(self, lines: list[bytes], cpus: int, of: int, ours: frozenset[int] | None) -> Totals | None:
        work = idle = 0
        try:
            for line in lines:
                # user, nice, system, idle, iowait, irq, softirq, steal, ...; guests are inside user: proc(5).
                values = [int(value) for value in line.split()[1:]]
                work += values[0] + values[1] + values[2]
                idle += values[3] + (values[4] if len(values) > 4 else 0)
        except (ValueError, IndexError):
            note(f"cannot understand {self._proc}/stat: all CPUs count as free")
            return None
        return Totals(cpus, of, ours, work * self._tick, idle * self._tick)

    def glance(self, own: Collection[int]) -> Glance | None:
        try:
            # 0.20 0.18 0.12 1/80 11206: averages over 1, 5 and 15 minutes, running/all threads, last pid: proc(5).
            words = (read(f"{self._proc}/loadavg") or "").split()
            load, running = float(words[0]), int(words[3].partition("/")[0])
            # some avg10=0.00 avg60=0.00 avg300=0.00 total=0: the kernel's psi.rst.
            pressure = float((read(f"{self._proc}/pressure/cpu") or "").split()[1].partition("=")[2])
        except (ValueError, IndexError):
            return None  # An old kernel, or one that does not keep it.
        ours = 1 + sum(self._fields(pid)[:1] == ["R"] for pid in own if pid != os.getpid())
        # This thread runs. What is not even aware of that only looks like Linux, and makes up the rest, too.
        return Glance(max(0, running - ours), load, pressure) if running else None

    def _fields(self, pid: int) -> list[str]:
        """Give the fields of a process that follow its name; numbers as in proc(5), less 3; none if it is gone."""
        # The name stands in parentheses and may itself hold spaces and parentheses.
        return (read(f"{self._proc}/{pid}/stat") or "").rpartition(")")[2].split()

    def process(self, pid: int) -> Process | None:
        fields = self._fields(pid)
        if len(fields) < 39:
            return None
        spent = (int(fields[11]) + int(fields[12])) * self._tick
        reaped = (int(fields[13]) + int(fields[14])) * self._tick
        if self._has_clocks:
            spent = _clock(pid, spent)
        nice = IDLE_NICENESS if fields[38] == str(SCHED_IDLE) else int(fields[16])
        return Process(int(fields[1]), float(fields[19]), nice, int(fields[36]), spent, reaped)

    def table(self) -> dict[int, float] | None:
        try:
            pids = [int(name) for name in os.listdir(self._proc) if name.isdigit()]
        except OSError as error:
            note(f"cannot list {self._proc}: {error.strerror}")
            return None
        return self._by_clock(pids) if self._has_clocks else self._by_file(pids)

    def _by_clock(self, pids: list[int]) -> dict[int, float]:
        clock, found = time.clock_gettime, {}
        for pid in pids:
            try:
                found[pid] = clock(~pid << 3 | 2)
            except OSError:
                continue  # It ended meanwhile.
        return found

    def _by_file(self, pids: list[int]) -> dict[int, float]:
        looks = ((pid, self.process(pid)) for pid in pids)
        return {pid: process.spent for pid, process in looks if process is not None}

    def cgroup(self, pid: int) -> str:
        return read(f"{self._proc}/{pid}/cgroup") or ""

    def command(self, pid: int) -> str:
        return (read(f"{self._proc}/{pid}/cmdline") or "").replace("\0", " ").strip()


def _clock(pid: int, otherwise: float) -> float:
    """Read the CPU-time clock of a process.

    The kernel makes the number of that clock from the pid, in a way that the C library builds on as well
    (clock_getcpuclockid(3)); 2 means the time that the scheduler gave to all threads of the process.
    """
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return otherwise


def _clocks_work() -> bool:
    try:
        # In a container that shows the processes of another one, pids and clocks would not belong together.
        if os.readlink("/proc/self") != str(os.getpid()):
            return False
        before = time.process_time()
        return before <= time.clock_gettime(~os.getpid() << 3 | 2) <= time.process_time()
    except (AttributeError, OSError):
        return False


class PsutilCounters:
    """Counters of macOS, Windows and the BSDs, as psutil knows them."""

    # Windows tells nothing of what a process started and what has ended since; the work of such
    # grandchildren of ours looks like somebody else's. macOS does not show the processes of other users, so
    # there it is the only trace.
    shows_all_of_ours = sys.platform == "darwin"

    def totals(self) -> Totals | None:
        import psutil

        try:
            each = psutil.cpu_times(percpu=True)
        except (OSError, RuntimeError, psutil.Error) as error:
            note(f"cannot read the CPU times: {error}; all CPUs count as free")
            return None
        ours = affinity()
        chosen = [times for number, times in enumerate(each) if ours is None or number in ours] or each
        work = sum(times.user + times.system + getattr(times, "nice", 0.0) for times in chosen)
        idle = sum(times.idle + getattr(times, "iowait", 0.0) for times in chosen)
        return Totals(len(chosen), len(each), None, work, idle)

    def glance(self, own: Collection[int]) -> Glance | None:
        return None

    def process(self, pid: int) -> Process | None:
        import psutil

        try:
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                return Process(
                    process.ppid(),
                    process.create_time(),
                    _niceness(process),
                    None,
                    times.user + times.system,
                    getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0),
                )
        except (OSError, psutil.Error):
            return None

    def table(self) -> dict[int, float] | None:
        return dict(self._times())

    def _times(self) -> Iterator[tuple[int, float]]:
        import psutil

        for process in psutil.process_iter():
            if process.pid == 0:
                continue  # What Windows calls the System Idle Process is no process.
            try:
                times = process.cpu_times()
            except (OSError, psutil.Error):
                continue
            yield process.pid, times.user + times.system

    def cgroup(self, pid: int) -> str:
        return ""

    def command(self, pid: int) -> str:
        import psutil

        try:
            return " ".join(psutil.Process(pid).cmdline())
        except (OSError, psutil.Error):
            return ""


def _niceness(process: Any) -> int:
    nice = process.nice()
    # Only on Windows it is one of an enumeration.
    return CLASSES.get(int(nice), 0) if hasattr(nice, "name") else int(nice)

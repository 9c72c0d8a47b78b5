"""What others leave us: readings of planted counters, of planted /proc files, and of this machine."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dummymp
from dummymp import kernelfiles
from dummymp.counters import Glance, LinuxCounters, Process, PsutilCounters, Totals, system_counters
from dummymp.cpus import MAX_AGE, QUIET, CpuReader, Reading
from dummymp.kernelfiles import Group
from dummymp.neighbours import Neighbours, Window
from dummymp.policy import decide, next_window
from dummymp.presets import PRESETS, Priority

TIMEOUT = 60
approx: Any = pytest.approx  # It stands for a number, but its type does not say so.
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

INIT, MAIN, HELPER, WORKER, WORKER_2, TOOL, STRANGER = 1, os.getpid(), 10_000_001, 10_000_002, 10_000_003, 77, 99
OURS = [MAIN, HELPER, WORKER, WORKER_2]


class Machine:
    """A machine whose processes do what a test says. It is the counters and the clock of a reader at once.

    Our main process has started a helper, and that two workers. Stranger is somebody else's.
    """

    def __init__(self, cpus: int = 2) -> None:
        self.time = 1000.0
        self.cpus = cpus
        self.of = cpus
        self.ours: frozenset[int] | None = None
        self.work = self.idle = 500.0
        self.shows_all_of_ours = True
        self.broken = False
        self.tables = 0
        self.cost = 0.0
        self.table_cost = 0.0
        self.groups: dict[int, str] = {}
        self.commands: dict[int, str] = {}
        self.seen: Glance | None = None
        self.processes: dict[int, Process] = {}
        parents = {INIT: 0, MAIN: INIT, HELPER: MAIN, WORKER: HELPER, WORKER_2: HELPER, STRANGER: INIT}
        for pid, parent in parents.items():
            self.start(pid, parent, spent=123.0)

    def start(self, pid: int, parent: int, *, nice: int = 0, cpu: int = 0, spent: float = 0.0) -> None:
        """Start a process, or plant one that has been there for long (and `spent` so much CPU time)."""
        self.processes[pid] = Process(parent, self.time, nice, cpu, spent, 0.0)

    def end(self, pid: int, *, to: int | None = None) -> None:
        """End a process. Its parent waits for it and inherits its CPU time; or `to`, as after a re-parenting."""
        gone = self.processes.pop(pid)
        heir = gone.parent if to is None else to
        self.change(heir, reaped=self.processes[heir].reaped + gone.spent + gone.reaped)

    def change(self, pid: int, **fields: Any) -> None:
        self.processes[pid] = self.processes[pid]._replace(**fields)

    def run(self, seconds: float, use: dict[int, float] | None = None, *, hidden: float = 0.0) -> None:
        """Let time pass, in which processes use so many CPUs each, and `hidden` ones that nobody sees."""
        self.time += seconds
        work = hidden
        for pid, cpus in (use or {}).items():
            process = self.processes[pid]
            self.change(pid, spent=process.spent + cpus * seconds)
            if self.ours is None or process.cpu in self.ours:
                work += cpus
        self.work += work * seconds
        self.idle += max(0.0, self.cpus - work) * seconds

    def reader(self, group: Group | None = None) -> CpuReader:
        return CpuReader(lambda: self.time, counters=self, quota_group=lambda: group, cost_clock=lambda: self.cost)

    def totals(self) -> Totals | None:
        return None if self.broken else Totals(self.cpus, self.of, self.ours, self.work, self.idle)

    def glance(self, own: Collection[int]) -> Glance | None:
        return self.seen

    def process(self, pid: int) -> Process | None:
        return self.processes.get(pid)

    def table(self) -> dict[int, float] | None:
        self.tables += 1
        self.cost += self.table_cost
        return {pid: process.spent for pid, process in self.processes.items()}

    def cgroup(self, pid: int) -> str:
        return self.groups.get(pid, "0::/\n")

    def command(self, pid: int) -> str:
        return self.commands.get(pid, "")


def read(reader: CpuReader, **changes: Any) -> Reading:
    """Read as NORMAL does, on two CPUs, but for what is said otherwise."""
    values: dict[str, Any] = {"window": 0.35, "threshold": 30, "own": OURS, "usable": 2, "niceness": 0}
    values.update(changes)
    return reader.read(**values)


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def reader(machine: Machine) -> CpuReader:
    """Give a reader of the machine that knows all processes from the start."""
    reader = machine.reader()
    reader.baseline(OURS, processes=True)
    return reader


class TestWindows:
    def test_nothing_is_known_at_first(self, machine: Machine) -> None:
        """Until a window has passed the answer is "unknown", never "idle"."""
        reader = machine.reader()
        assert read(reader) == Reading(None, None, None, 0.0)
        machine.run(0.3)
        assert read(reader).free is None
        machine.run(0.06)
        assert read(reader).free == 2

    def test_baseline_begins_the_window(self, machine: Machine) -> None:
        """The window begins with the baseline; another baseline changes nothing."""
        reader = machine.reader()
        reader.baseline()
        machine.run(0.3)
        reader.baseline()
        machine.run(0.06)
        assert read(reader) == Reading(2, 0.0, approx(2.0), approx(0.36))

    def test_same_reading_within_a_window(self, machine: Machine, reader: CpuReader) -> None:
        """Within a window the last reading is given again, whatever happens."""
        machine.run(0.4)
        first = read(reader)
        machine.run(0.34, {STRANGER: 1.0})
        assert read(reader) is first
        machine.run(0.02, {STRANGER: 1.0})
        assert read(reader).free == 1

    def test_old_look(self, machine: Machine, reader: CpuReader) -> None:
        """A look of long ago says nothing about now: an hour's idleness would hide who came a second ago."""
        machine.run(0.4)
        assert read(reader).free == 2
        machine.run(MAX_AGE + 0.1, {STRANGER: 0.1})
        assert read(reader).free is None
        machine.run(0.36, {STRANGER: 1.0})
        assert read(reader).free == 1

    def test_old_baseline(self, machine: Machine) -> None:
        """A baseline of long ago is taken anew."""
        reader = machine.reader()
        reader.baseline()
        machine.run(MAX_AGE + 0.1)
        reader.baseline()
        machine.run(0.36, {STRANGER: 1.0})
        assert read(reader).free == 1

    def test_long_window(self, machine: Machine, reader: CpuReader) -> None:
        """A preset with a window of ten seconds gets its readings, too."""
        read(reader, window=10.0)
        machine.run(4.0)
        assert read(reader, window=10.0).free is None
        machine.run(6.5)
        reader.baseline(OURS)
        assert read(reader, window=10.0).free == 2

    def test_other_cpus(self, machine: Machine, reader: CpuReader) -> None:
        """When we are moved to other CPUs, looks cannot be compared, and a new window begins."""
        machine.run(0.4)
        assert read(reader).free == 2
        machine.cpus = 1
        machine.work += 3000
        machine.run(0.4)
        assert read(reader, usable=1).free is None
        machine.run(0.4)
        assert read(reader, usable=1).free == 1

    def test_no_counters(self, machine: Machine, reader: CpuReader) -> None:
        """Where the counters cannot be read, all CPUs that we may use count as free."""
        machine.broken = True
        machine.run(0.4)
        assert read(reader) == Reading(2, None, None, 0.0)
        assert read(machine.reader()).free == 2
        machine.broken = False
        read(reader)
        machine.run(0.4, {STRANGER: 1.0})
        assert read(reader).free == 1


NOBODY = Glance(running=0, load=0.05, pressure=0.2)


class TestAtFirst:
    """What is known before a window has passed."""

    @pytest.mark.parametrize(
        ("first", "second", "threshold", "quiet"),
        [
            (NOBODY, NOBODY, 30, True),
            (NOBODY, NOBODY, 80, True),
            # Somebody runs, at the one moment or at the other.
            (NOBODY._replace(running=1), NOBODY, 30, False),
            (NOBODY, NOBODY._replace(running=1), 30, False),
            (NOBODY, NOBODY._replace(running=1), 80, False),
            # Quiet now, but not some seconds ago.
            (NOBODY._replace(load=0.28), NOBODY._replace(load=0.28), 30, False),
            (NOBODY._replace(load=0.11), NOBODY, 80, False),
            (NOBODY, NOBODY._replace(pressure=1.5), 30, False),
            (NOBODY, NOBODY._replace(pressure=90.0), 80, False),
            # Who takes less than others for serious, takes less for quiet.
            (NOBODY, NOBODY, 4, False),
            (NOBODY._replace(load=0.0), NOBODY._replace(load=0.0), 4, True),
            (NOBODY._replace(load=0.0), NOBODY._replace(load=0.0), 0, False),
            # The system does not tell.
            (None, None, 30, False),
            (None, NOBODY, 30, False),
            (NOBODY, None, 30, False),
        ],
    )
    def test_quiet(
        self, machine: Machine, first: Glance | None, second: Glance | None, threshold: float, quiet: bool
    ) -> None:
        """The machine is quiet where both glances say that nobody else computes; otherwise nothing is known yet."""
        reader = machine.reader()
        machine.seen = first
        reader.baseline(OURS)
        machine.run(0.01)
        machine.seen = second
        assert read(reader, threshold=threshold) == Reading(None, None, None, 0.0, quiet=quiet)

    def test_one_answer(self, machine: Machine) -> None:
        """Whoever asks often does not get a lucky answer: there is one, until a window has passed."""
        reader = machine.reader()
        machine.seen = NOBODY._replace(running=1)
        reader.baseline(OURS)
        machine.seen = NOBODY
        for _ in range(30):
            machine.run(0.01)
            assert not read(reader).quiet

    def test_until_it_is_measured(self, machine: Machine) -> None:
        """The answer holds until a window has passed, and then counts what was measured, whatever a glance says."""
        machine.seen = NOBODY
        reader = machine.reader()
        reader.baseline(OURS)
        for _ in range(3):
            machine.run(0.1, {STRANGER: 1.0})
            assert read(reader) == QUIET
        machine.run(0.1, {STRANGER: 1.0})
        assert (read(reader).free, read(reader).quiet) == (1, False)
        machine.run(0.1)
        assert read(reader).free == 1

    def test_measured_without_an_answer(self, machine: Machine) -> None:
        """Who asks only after the window gets what was measured."""
        machine.seen = NOBODY
        reader = machine.reader()
        reader.baseline(OURS)
        machine.run(0.4, {STRANGER: 1.0})
        assert [read(reader).free, read(reader).free] == [1, 1]

    def test_after_a_pause(self, machine: Machine, reader: CpuReader) -> None:
        """A new beginning after a long pause, or on other CPUs, is a beginning: it needs two glances of its own."""
        machine.run(0.4)
        assert read(reader).free == 2
        machine.seen = NOBODY
        machine.run(MAX_AGE + 0.1)
        assert read(reader) == Reading(None, None, None, 0.0)
        assert read(reader) == QUIET

    def test_no_counters(self, machine: Machine) -> None:
        """Where the counters cannot be read, all CPUs count as free, and a glance changes nothing."""
        machine.seen, machine.broken = NOBODY, True
        reader = machine.reader()
        reader.baseline(OURS)
        for _ in range(2):
            machine.run(0.01)
            assert read(reader) == Reading(2, None, None, 0.0)


class TestWhoCounts:
    def test_quiet(self, machine: Machine) -> None:
        """While nobody else works all CPUs are free, and the single processes are not even looked at."""
        reader = machine.reader()
        for _ in range(5):
            assert read(reader).free in (None, 2)
            machine.run(0.4, {STRANGER: 0.1, WORKER: 0.9})
        assert machine.tables == 0

    def test_own_work(self, machine: Machine, reader: CpuReader) -> None:
        """What our main process, the helper and the workers do is not the work of others."""
        machine.run(0.4, {MAIN: 0.5, HELPER: 0.1, WORKER: 0.7, WORKER_2: 0.7})
        assert read(reader) == Reading(2, 0.0, 0.0, approx(0.4))

    def test_work_before_the_first_look(self, machine: Machine) -> None:
        """What our main process did between the baseline and the first reading was ours, too."""
        reader = machine.reader()
        reader.baseline()
        machine.run(0.4, {MAIN: 1.0})
        assert read(reader).free == 2

    @pytest.mark.parametrize("use", [0.98, 1.0, 1.04, 1.25])
    def test_a_neighbour_costs_one_cpu(self, machine: Machine, reader: CpuReader, use: float) -> None:
        """A neighbour who uses about one CPU costs one, not none and not two."""
        machine.run(0.4, {STRANGER: use, WORKER: 0.7})
        assert read(reader).free == 1
        assert read(reader).others == approx(use)

    def test_neighbours_everywhere(self, machine: Machine, reader: CpuReader) -> None:
        """On a full machine nothing is free; when the others leave, everything is, one window later."""
        machine.start(50, INIT)
        machine.run(0.4, {STRANGER: 0.95, 50: 0.95})
        assert read(reader).free == 0
        machine.run(0.4)
        assert read(reader).free == 2

    @pytest.mark.parametrize(("threshold", "free"), [(20, 1), (30, 2), (80, 2), (0, 1)])
    def test_threshold(self, machine: Machine, reader: CpuReader, threshold: float, free: int) -> None:
        """A process counts when it uses more than the preset's threshold."""
        machine.run(0.4, {STRANGER: 0.25})
        assert read(reader, threshold=threshold).free == free

    def test_noise(self, machine: Machine, reader: CpuReader) -> None:
        """Even a threshold of nothing leaves out what is only the noise of the counters."""
        machine.run(0.4, {STRANGER: 0.04})
        assert read(reader, threshold=0).free == 2

    def test_many_small_ones(self, machine: Machine, reader: CpuReader) -> None:
        """Five processes at 8 percent do not cost a CPU."""
        small = dict.fromkeys(range(50, 55), 0.08)
        for pid in small:
            machine.start(pid, INIT)
        for _ in range(4):
            machine.run(0.4, small)
            assert read(reader) == Reading(2, 0.0, approx(1.6), approx(0.4))

    def test_small_ones_at_first(self, machine: Machine) -> None:
        """Before there are two tables to compare, small ones may cost a CPU, for one window and no longer."""
        reader = machine.reader()
        small = dict.fromkeys(range(50, 55), 0.08)
        for pid in small:
            machine.start(pid, INIT, spent=1000.0)
        read(reader)
        free = []
        for _ in range(6):
            machine.run(0.4, small)
            free.append(read(reader).free)
        assert free[1:] == [2] * 5

    def test_nicer_ones(self, machine: Machine, reader: CpuReader) -> None:
        """Who is nicer than our workers yields to them, and does not count."""
        machine.change(STRANGER, nice=10)
        machine.run(0.4, {STRANGER: 1.0, WORKER: 1.0})
        assert read(reader).free == 2
        machine.run(0.4, {STRANGER: 1.0, WORKER: 1.0})
        assert read(reader, niceness=10).free == 1
        machine.run(0.4, {STRANGER: 1.0, WORKER: 1.0})
        assert read(reader, niceness=15).free == 1

    def test_niceness_of_this_process(self, machine: Machine, reader: CpuReader) -> None:
        """Without a niceness, that of this process is taken."""
        machine.change(STRANGER, nice=5)
        machine.run(0.4, {STRANGER: 1.0})
        assert read(reader, niceness=None).free == 2
        machine.change(MAIN, nice=5)
        machine.run(0.4, {STRANGER: 1.0})
        assert read(reader, niceness=None).free == 1

    def test_nicer_and_not(self, machine: Machine, reader: CpuReader) -> None:
        """A neighbour counts also beside one who is nicer."""
        machine.start(50, INIT, nice=19)
        machine.run(0.4, {STRANGER: 0.9, 50: 0.9})
        assert read(reader).free == 1

    def test_newcomer(self, machine: Machine, reader: CpuReader) -> None:
        """A process that came within the window counts with all that it did."""
        machine.start(50, INIT)
        machine.run(0.4, {50: 0.9})
        assert read(reader).free == 1

    def test_pid_changed_hands(self, machine: Machine, reader: CpuReader) -> None:
        """A pid that belongs to another process now counts with what that did."""
        machine.processes.pop(STRANGER)
        machine.start(STRANGER, INIT)
        machine.run(0.4, {STRANGER: 0.9})
        assert read(reader).free == 1

    def test_come_and_gone(self, machine: Machine, reader: CpuReader) -> None:
        """Work of processes that came and went within one window is work of others (a build, say)."""
        machine.run(0.4, hidden=0.9)
        assert read(reader).free == 1

    def test_hidden_processes(self, machine: Machine, reader: CpuReader) -> None:
        """Where other users' processes are hidden from us, their work still counts."""
        for _ in range(4):
            machine.run(0.4, {WORKER: 0.5}, hidden=1.4)
            assert read(reader).free == 0

    def test_our_own_may_be_hidden(self, machine: Machine, reader: CpuReader) -> None:
        """Where work that no process shows may be that of our own short-lived ones, it does not count."""
        machine.shows_all_of_ours = False
        machine.run(0.4, hidden=0.9)
        assert read(reader).free == 2


class TestWhatOurTasksStart:
    def test_deep_below(self, machine: Machine, reader: CpuReader) -> None:
        """What our tasks start is ours, however deep."""
        for pid in range(TOOL, TOOL + 5):
            machine.start(pid, WORKER if pid == TOOL else pid - 1)
        machine.run(0.4, {TOOL + 4: 0.9, WORKER: 0.1})
        assert read(reader).free == 2
        machine.run(0.4, {TOOL + 4: 0.9, STRANGER: 0.9})
        assert read(reader).free == 1

    def test_reparented(self, machine: Machine, reader: CpuReader) -> None:
        """It still is when its parent is gone, and the helper has taken it in."""
        machine.start(TOOL, HELPER)
        machine.run(0.4, {TOOL: 0.9})
        assert read(reader).free == 2

    def test_found_once(self, machine: Machine) -> None:
        """Once found, it is known as ours, so the window is quiet and needs no comparison of tables."""
        reader = machine.reader()
        read(reader)
        machine.start(TOOL, WORKER)
        free = []
        for _ in range(6):
            machine.run(0.4, {TOOL: 1.0, WORKER_2: 1.0})
            free.append(read(reader).free)
        assert free[1:] == [2] * 5

    def test_its_end(self, machine: Machine, reader: CpuReader) -> None:
        """When it ends, its time turns up at its parent, and is not counted again."""
        machine.start(TOOL, WORKER)
        for _ in range(3):
            machine.run(0.4, {TOOL: 0.9})
            assert read(reader).free == 2
        machine.run(0.4, {TOOL: 0.9, STRANGER: 0.9})
        machine.end(TOOL)
        assert read(reader).free == 1

    def test_short_lived_ones(self, machine: Machine, reader: CpuReader) -> None:
        """A task that starts one short program after the other does not look like somebody else."""
        for number in range(20):
            machine.start(200 + number, WORKER)
            machine.run(0.1, {200 + number: 0.95, WORKER: 0.05})
            machine.end(200 + number)
            assert read(reader).free in (None, 2)

    def test_one_after_the_other(self, machine: Machine, reader: CpuReader) -> None:
        """Nor do programs that run for some windows each."""
        free: set[int | None] = set()
        for number in range(10):
            machine.start(200 + number, WORKER)
            for _ in range(7):
                machine.run(0.2, {200 + number: 0.95})
                free.add(read(reader).free)
            machine.end(200 + number)
        assert free == {None, 2}

    def test_worker_that_ended(self, machine: Machine, reader: CpuReader) -> None:
        """A worker that ends after a long life leaves its time to the helper; that hides nobody."""
        machine.run(0.4, {WORKER: 1.0})
        assert read(reader).free == 2
        machine.run(0.2, {WORKER: 1.0, STRANGER: 1.0})
        machine.end(WORKER)
        machine.run(0.2, {STRANGER: 1.0})
        assert read(reader, own=[MAIN, HELPER, WORKER_2]).free == 1

    def test_worker_not_waited_for_yet(self, machine: Machine, reader: CpuReader) -> None:
        """Nor does it when it is known to have ended some time before the helper has waited for it."""
        rest = [MAIN, HELPER, WORKER_2]
        machine.run(0.4, {WORKER: 1.0, STRANGER: 1.0})
        assert read(reader, own=rest).free == 1
        machine.end(WORKER)
        machine.run(0.4, {STRANGER: 1.0})
        assert read(reader, own=rest).free == 1

    def test_new_worker(self, machine: Machine, reader: CpuReader) -> None:
        """A worker that started within the window is ours with all that it did."""
        machine.start(50, HELPER)
        machine.run(0.4, {50: 1.0, WORKER: 1.0})
        assert read(reader, own=[*OURS, 50]).free == 2

    def test_old_one_that_is_new_to_us(self, machine: Machine) -> None:
        """One of ours that is older than the first look may hide nobody by what it did before."""
        reader = machine.reader()
        reader.baseline(processes=True)
        machine.run(0.4, {STRANGER: 0.9, WORKER: 0.9})
        assert read(reader).free == 1
        machine.run(0.4, {STRANGER: 0.1, WORKER: 0.9})
        assert read(reader).free == 2

    def test_long_lived_small_one_without_tables(self, machine: Machine) -> None:
        """Where such a one ends and nobody has looked at the processes yet, the last verdict holds."""
        reader = machine.reader()
        machine.start(TOOL, WORKER, spent=40.0)
        reader.baseline(OURS)
        machine.run(0.4)
        assert read(reader).free == 2
        machine.run(0.4, {STRANGER: 0.9})
        machine.end(TOOL)
        assert read(reader).free == 2
        machine.run(0.4, {STRANGER: 0.9})
        assert read(reader).free == 1

    def test_long_lived_small_one(self, machine: Machine, reader: CpuReader) -> None:
        """All the time of a small one that nobody had noticed, arriving at once, hides nobody."""
        machine.start(TOOL, WORKER, spent=40.0)
        machine.run(0.4, {STRANGER: 0.9, TOOL: 0.05})
        assert read(reader).free == 1
        machine.run(0.4, {STRANGER: 0.9, TOOL: 0.05})
        machine.end(TOOL)
        assert read(reader).free == 1

    def test_stranger_with_the_pid_of_ours(self, machine: Machine, reader: CpuReader) -> None:
        """A pid that was ours and belongs to somebody else now is not ours any more."""
        machine.start(TOOL, WORKER)
        machine.run(0.4, {TOOL: 0.9})
        assert read(reader).free == 2
        machine.end(TOOL)
        machine.start(TOOL, INIT)
        machine.run(0.4, {TOOL: 0.9})
        assert read(reader).free == 1


class TestWhichCpus:
    def test_others_elsewhere(self, machine: Machine) -> None:
        """Load on CPUs that we may not use does not count."""
        machine.of, machine.ours = 8, frozenset({0, 1})
        machine.start(50, INIT, cpu=5)
        reader = machine.reader()
        reader.baseline(OURS, processes=True)
        machine.run(0.4, {50: 1.0, STRANGER: 0.2})
        assert read(reader).free == 2
        machine.run(0.4, {50: 1.0, STRANGER: 0.9})
        assert read(reader).free == 1
        assert read(reader).others == approx(0.9)

    def test_more_cpus_than_we_may_use(self) -> None:
        """With a share of a large machine, only those take ours who leave fewer than that."""
        machine = Machine(cpus=8)
        reader = machine.reader()
        reader.baseline(OURS, processes=True)
        machine.run(0.4, {STRANGER: 5.0})
        assert read(reader, usable=2).free == 2
        machine.run(0.4, {STRANGER: 7.0})
        assert read(reader, usable=2).free == 1

    @pytest.mark.parametrize(("group", "free"), [("/ours", 1), ("/ours/deeper", 1), ("/theirs", 2)])
    def test_same_quota(self, group: str, free: int) -> None:
        """But those who share our quota (the same container) take ours."""
        machine = Machine(cpus=8)
        machine.groups[STRANGER] = f"0::{group}\n"
        reader = machine.reader(Group(2, "cpu", "/ours", ""))
        reader.baseline(OURS, processes=True)
        machine.run(0.4, {STRANGER: 1.0})
        assert read(reader, usable=2).free == free


class TestIdleAndRan:
    def test_idle(self, machine: Machine, reader: CpuReader) -> None:
        """Idle is what nobody used, not even we."""
        machine.run(0.4, {WORKER: 0.5, STRANGER: 0.25})
        assert read(reader).idle == approx(1.25)

    def test_idle_under_a_quota(self) -> None:
        """Under a quota, idle is what is left of the quota; the rest of the machine is no use to us."""
        machine = Machine(cpus=8)
        reader = machine.reader()
        reader.baseline(OURS)
        machine.run(0.4, {WORKER: 1.5})
        assert read(reader, usable=2).idle == approx(0.5)

    def test_ran(self, machine: Machine) -> None:
        """The number of tasks that ran is averaged over the window that the reading is about."""
        reader = machine.reader()
        assert read(reader, running=0).ran is None
        machine.run(0.1)
        assert read(reader, running=2).ran is None
        machine.run(0.3)
        assert read(reader, running=2).ran == approx(2.0)
        machine.run(0.2)
        read(reader, running=4)
        machine.run(0.2)
        assert read(reader, running=1).ran == approx(4.0)
        machine.run(0.4)
        assert read(reader, running=1).ran == approx(1.0)

    def test_ran_counts_starts_right_after_a_reading(self, machine: Machine) -> None:
        """Tasks that start right after a reading, with nobody asking until the next, ran all the time."""
        reader = machine.reader()
        reader.baseline()
        read(reader, running=0)
        machine.run(0.4)
        assert read(reader, running=2).ran == approx(2.0)

    def test_ran_between_tasks(self, machine: Machine) -> None:
        """Readings that always come when a task has just ended, and the next has not begun, still see that they ran."""
        reader = machine.reader()
        read(reader, running=0)
        for _ in range(3):
            reader.note_running(2)
            machine.run(0.4)
            assert read(reader, running=0).ran in (None, approx(2.0))
        assert read(reader, running=0).ran == approx(2.0)

    def test_lucky_windows(self, machine: Machine) -> None:
        """A short window in which our task had a CPU for itself does not hide that two others share the next.

        They count again as little as they use once there is room.
        """
        reader = machine.reader()
        reader.baseline(OURS, processes=True)
        machine.start(50, INIT)
        hasty = {"window": 0.1, "threshold": 80, "running": 1}
        read(reader, **hasty)
        for mine in (0.6, 0.6, 1.0, 1.0, 0.7):
            machine.run(0.1, {WORKER: mine, STRANGER: (2 - mine) / 2, 50: (2 - mine) / 2})
            assert read(reader, **hasty).free == 1
        machine.run(0.1, {WORKER: 1.0, STRANGER: 0.3, 50: 0.3})
        assert read(reader, **hasty).free == 2

    def test_ran_unknown(self, machine: Machine, reader: CpuReader) -> None:
        """Who does not say how many run is not told."""
        machine.run(0.4)
        assert read(reader).ran is None


class TestCost:
    def test_share_of_a_cpu(self, machine: Machine, reader: CpuReader) -> None:
        """However many processes there are, looking at them takes less than 1 percent of a CPU."""
        machine.table_cost = 0.05
        began, cost = machine.time, machine.cost
        for _ in range(300):
            machine.run(0.36, {STRANGER: 1.0})
            assert read(reader).free == 1
        assert machine.cost - cost < 0.01 * (machine.time - began)

    def test_between_looks(self, machine: Machine, reader: CpuReader) -> None:
        """Between two looks at the processes, others who come and go are still noticed."""
        machine.table_cost = 0.05
        small = {STRANGER: 0.2}
        for _ in range(30):
            machine.run(0.36, small)
            read(reader)
        machine.run(0.36, {STRANGER: 1.0})
        assert read(reader).free == 1
        machine.run(0.36, small)
        assert read(reader).free == 2

    def test_falls_asleep(self, machine: Machine, reader: CpuReader) -> None:
        """Some quiet seconds after others were busy, the processes are not looked at any more."""
        machine.run(0.4, {STRANGER: 1.0})
        read(reader)
        for _ in range(20):
            machine.run(0.4)
            read(reader)
        looks = machine.tables
        for _ in range(10):
            machine.run(0.4)
            read(reader)
        assert machine.tables == looks


loads = st.lists(
    st.tuples(st.floats(0.05, 1.0), st.floats(0, 1.2), st.floats(0, 1.2), st.floats(0, 2), st.booleans()),
    max_size=12,
)


class TestAlways:
    @given(loads, st.sampled_from([0, 20, 30, 50, 80, 100]), st.integers(1, 2))
    def test_bounds(self, steps: list[Any], threshold: float, usable: int) -> None:
        """Whatever happens, free is a number of the CPUs that we may use, and nothing is negative."""
        machine = Machine()
        reader = machine.reader()
        for seconds, ours, theirs, hidden, worker_ends in steps:
            machine.run(seconds, {WORKER: ours, STRANGER: theirs}, hidden=hidden)
            if worker_ends:
                machine.end(WORKER)
                machine.start(WORKER, HELPER)
            reading = read(reader, threshold=threshold, usable=usable)
            if reading.free is not None:
                assert reading.others is not None
                assert reading.idle is not None
                assert 0 <= reading.free <= usable
                assert reading.others >= 0
                assert 0 <= reading.idle <= usable
                assert math.isfinite(reading.others)

    @given(loads)
    def test_ours_alone(self, steps: list[Any]) -> None:
        """Whatever our own processes do, and whenever workers end, it never looks like others."""
        machine = Machine(cpus=4)
        reader = machine.reader()
        reader.baseline(OURS, processes=True)
        for seconds, first, second, third, worker_ends in steps:
            machine.run(seconds, {WORKER: first, WORKER_2: second, MAIN: min(third, 1.0)})
            if worker_ends:
                machine.end(WORKER)
                machine.start(WORKER, HELPER)
            assert read(reader, usable=4).free in (None, 4)


class Program:
    """A program with a reader and computing tasks of so many CPU seconds, on a planted machine that it may share."""

    def __init__(self, machine: Machine, number: int, seconds: float, need: float = 1.0, **rules: Any) -> None:
        self.machine = machine
        self.main = 100_000 * number
        self.seconds = seconds
        self.need = need
        self.rules = {"preset": PRESETS[Priority.NORMAL], "max_processes": None, **rules}
        self.left: dict[int, float] = {}
        self.started = 0
        machine.start(self.main, INIT)
        self.growing = False
        # Programs do not look at the very same time.
        self.pace = 1 - 0.04 * number
        self.reader = machine.reader()
        self.reader.baseline([self.main])

    def step(self) -> None:
        """Do what the manager does: read, decide, start."""
        preset, usable = self.rules["preset"], self.machine.cpus
        reading = self.reader.read(
            window=next_window(preset, growing=self.growing) * self.pace,
            threshold=preset.threshold,
            own=[self.main, *self.left],
            usable=usable,
            niceness=0,
            running=len(self.left),
            peers=preset.at_least == 0,
        )
        allowed, _, self.growing = decide(
            **self.rules,
            usable=usable,
            free=reading.free,
            idle=reading.idle,
            ran=reading.ran,
            beside_peers=reading.beside_peers,
            running=len(self.left),
            free_memory=None,
            min_free_memory=None,
        )
        while len(self.left) < allowed:
            self.started += 1
            pid = self.main + self.started
            self.machine.start(pid, self.main)
            self.machine.commands[pid] = "python -c from dummymp import forkserver"
            self.left[pid] = self.seconds


# So many seconds at a time; more would make programs look at the same moments.
STEP = 0.02


def run_together(machine: Machine, programs: list[Program], seconds: float) -> list[list[int]]:
    """Let programs run side by side, the CPUs shared fairly; give how many tasks of each ran, over time."""
    history = []
    for _ in range(int(seconds / STEP)):
        for program in programs:
            program.step()
        wanted = {pid: program.need for program in programs for pid in program.left}
        share = min(1.0, machine.cpus / max(sum(wanted.values()), 1e-9))
        machine.run(STEP, {pid: need * share for pid, need in wanted.items()})
        for program in programs:
            for pid in list(program.left):
                program.left[pid] -= STEP * share
                if program.left[pid] <= 0:
                    del program.left[pid]
                    machine.end(pid)
        history.append([len(program.left) for program in programs])
    return history


def fill(machine: Machine, *, nice: int = 15, command: str = "python -c from dummymp import forkserver") -> CpuReader:
    """Fill two CPUs with two strangers; give a reader that has seen them."""
    reader = machine.reader()
    reader.baseline([MAIN], processes=True)
    for pid in (50, 51):
        machine.start(pid, INIT, nice=nice)
        machine.commands[pid] = command
    machine.run(0.5, {50: 1.0, 51: 1.0})
    return reader


class TestPeers:
    """Other programs that wait for a full machine as we would."""

    def test_peers(self, machine: Machine) -> None:
        """Workers of another program that are as nice as ours are told apart from all others."""
        reading = read(fill(machine), own=[MAIN], niceness=15, peers=True)
        assert (reading.free, reading.beside_peers) == (0, 2)

    @pytest.mark.parametrize("stranger", [{"command": "python3 science.py"}, {"nice": 0}], ids=str)
    def test_strangers(self, machine: Machine, stranger: dict[str, Any]) -> None:
        """Who is no such worker, or not as considerate, goes first."""
        reading = read(fill(machine, **stranger), own=[MAIN], niceness=15, peers=True)
        assert (reading.free, reading.beside_peers) == (0, 0)

    def test_only_when_asked(self, machine: Machine) -> None:
        """It costs a little, so it is done for those only who would wait."""
        assert read(fill(machine), own=[MAIN], niceness=15).beside_peers is None


class TestCrowded:
    def test_no_room(self, machine: Machine, reader: CpuReader) -> None:
        """Where our task gets half a CPU, there is no room for a second one, however small the others are."""
        read(reader, running=1)
        for pid in range(50, 80):
            machine.start(pid, INIT)
        machine.run(0.4, dict.fromkeys(range(50, 80), 0.05) | {WORKER: 0.5})
        assert read(reader, running=1, threshold=80).free == 1

    def test_those_who_yield(self, machine: Machine, reader: CpuReader) -> None:
        """Those that are nicer than we are do not keep us small."""
        read(reader, running=1)
        machine.start(50, INIT, nice=5)
        machine.run(0.4, {50: 1.3, WORKER: 0.7})
        assert read(reader, running=1).free == 2


class TestManagers:
    """Readings and decisions together, as the manager uses them."""

    @pytest.mark.parametrize("cpus", [2, 8, 32])
    def test_alone(self, cpus: int) -> None:
        """Alone on the machine, a program has all CPUs within a second, and within a window where they are two."""
        machine = Machine(cpus=cpus)
        history = run_together(machine, [Program(machine, 1, 1000.0)], 2.0)
        assert history[0] == [1]
        assert history[int((0.5 if cpus == 2 else 1.0) / STEP) :][:40] == [[cpus]] * 40

    @pytest.mark.parametrize(("need", "expected"), [(0.01, 12), (1.0, 2), (0.9, 2)])
    def test_cap_above_the_cpus(self, need: float, expected: int) -> None:
        """With a cap of 12 on 2 CPUs, sleeping tasks reach it within a few windows; computing ones stay at 2."""
        machine = Machine(cpus=2)
        history = run_together(machine, [Program(machine, 1, 1000.0, need, max_processes=12)], 4.0)
        assert history[int(2.0 / STEP)] == [expected]
        assert max(history) == [expected]

    @pytest.mark.parametrize("seconds", [0.3, 5.0])
    @pytest.mark.parametrize("cpus", [2, 8, 32])
    @pytest.mark.parametrize("apart", [0.0, 0.1])
    @pytest.mark.parametrize("priority", [Priority.GENEROUS, Priority.NORMAL, Priority.AGGRESSIVE, Priority.EXTREME])
    def test_three_programs(self, priority: Priority, apart: float, cpus: int, seconds: float) -> None:
        """Three that start at once, or nearly so, share the CPUs: none starves, and they do not take too many."""
        machine = Machine(cpus=cpus)
        programs = []
        for number in (1, 2, 3):
            programs.append(Program(machine, number, seconds, preset=PRESETS[priority]))
            machine.run(apart)
        history = run_together(machine, programs, 30.0)
        late = history[int(15.0 / STEP) :]
        average = [sum(column) / len(late) for column in zip(*late)]
        # About one each on two CPUs; those at GENEROUS pause for a window now and then.
        assert min(average) >= (0.3 if priority is Priority.GENEROUS else 0.85)
        # Each lets pass what is less than its threshold, with EXTREME four fifths of a CPU.
        assert 0.8 * cpus <= sum(average) <= max(3.1, (1.3 if priority is Priority.EXTREME else 1.25) * cpus)
        # At no moment does each take everything: that would be three times as many.
        assert max(map(sum, history)) <= max(4, 1.8 * cpus)

    @pytest.mark.parametrize("cpus", [8, 32])
    def test_squeezed(self, cpus: int) -> None:
        """Where each gets so little that none reaches the threshold any more, they still see one another."""
        machine = Machine(cpus=cpus)
        programs = [Program(machine, number, 1.0, preset=PRESETS[Priority.EXTREME]) for number in (1, 2, 3)]
        for program in programs:
            for pid in range(program.main + 500, program.main + 500 + cpus):
                machine.start(pid, program.main)
                program.left[pid] = 1.0
        history = run_together(machine, programs, 30.0)[int(8.0 / STEP) :]
        assert sum(map(sum, history)) / len(history) <= 1.5 * cpus

    def test_three_that_wait(self) -> None:
        """Three that all waited for a free machine do not take it three times over for long."""
        machine = Machine(cpus=8)
        generous = PRESETS[Priority.GENEROUS]
        programs = [Program(machine, number, 2.0, preset=generous) for number in (1, 2, 3)]
        history = run_together(machine, programs, 30.0)
        assert max(map(sum, history)) <= 9
        late = history[int(8.0 / STEP) :]
        assert sum(map(sum, late)) / len(late) <= 8.8

    def test_others_come_and_go(self) -> None:
        """Others that come get their CPU back as tasks end, and when they leave it is used again, within a second."""
        machine = Machine(cpus=2)
        program = Program(machine, 1, 0.2)
        run_together(machine, [program], 2.0)
        machine.start(50, INIT)
        neighbour = Program(machine, 2, 1000.0)
        neighbour.left = {50: 1000.0}
        neighbour.step = lambda: None  # type: ignore[method-assign]
        assert [mine for mine, _ in run_together(machine, [program, neighbour], 1.0)][-1] == 1
        neighbour.left = {}
        assert run_together(machine, [program], 1.0)[-1] == [2]


STAT = """cpu  100 20 30 400 50 6 7 8 9 1
cpu0 60 10 20 100 25 3 3 4 5 1
cpu1 30 5 5 200 15 2 2 2 2 0
cpu3 10 5 5 100 10 1 2 2 2 0
intr 12345 1 2 3
ctxt 99
"""


def proc(root: Path, files: dict[str, str], cpus: set[int] | None = None) -> LinuxCounters:
    """Plant files below proc."""
    for name, text in files.items():
        path = root / "proc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return LinuxCounters(str(root), cpus=lambda: cpus)


def pid_stat(name: str = "sleep", *, nice: int = 0, policy: int = 0, cpu: int = 3, state: str = "S") -> str:
    before = "4 4 0 -1 4194304 99 0 0 0"
    after = f"20 {nice} 1 0 167109 3133440 382 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 {cpu} 0 {policy} 0 0 0"
    return f"42 ({name}) {state} 17 {before} 250 50 30 20 {after} 0 0 0 0 0 0 0 0\n"


@linux
class TestLinuxCounters:
    @pytest.fixture(autouse=True)
    def hundred_ticks_a_second(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sysconf", {"SC_CLK_TCK": 100}.__getitem__)

    def test_all_cpus(self, tmp_path: Path) -> None:
        """Work is user, nice and system time; idle is idle and waiting for disks; interrupts and steal are neither."""
        for cpus in (None, {0, 1, 3}):
            assert proc(tmp_path, {"stat": STAT}, cpus).totals() == Totals(3, 3, None, 1.5, 4.5)

    def test_our_cpus(self, tmp_path: Path) -> None:
        """Only the CPUs that we may use are summed up."""
        totals = proc(tmp_path, {"stat": STAT}, {1, 3}).totals()
        assert totals == Totals(2, 3, frozenset({1, 3}), approx(0.6), approx(3.25))

    def test_renumbered_cpus(self, tmp_path: Path) -> None:
        """In a container that shows only our CPUs, by other numbers, they are all ours."""
        totals = proc(tmp_path, {"stat": STAT}, {8, 9}).totals()
        assert totals == Totals(2, 3, None, 1.5, 4.5)

    def test_one_line(self, tmp_path: Path) -> None:
        """A /proc/stat with nothing but the sum will do."""
        totals = proc(tmp_path, {"stat": "cpu  100 20 30 400\n"}).totals()
        assert totals == Totals(1, 1, None, 1.5, 4.0)

    @pytest.mark.parametrize("text", [None, "", "rubbish\n", "cpu\n", "cpu a b c d\n", "intr 5\n"])
    def test_unreadable(
        self,
        tmp_path: Path,
        text: str | None,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Counters that are missing or make no sense are unknown; that is said once, at DEBUG."""
        monkeypatch.setattr(kernelfiles, "_noted", set())
        caplog.set_level(logging.DEBUG, logger="dummymp")
        counters = proc(tmp_path, {} if text is None else {"stat": text})
        assert counters.totals() is None
        assert counters.totals() is None
        assert len(caplog.messages) == 1
        assert "all CPUs count as free" in caplog.text

    @pytest.mark.parametrize("name", ["sleep", "a b", "a) R 1 (b", "", "))((", "\n"])
    def test_process(self, tmp_path: Path, name: str) -> None:
        """A process is understood whatever its name is made of."""
        counters = proc(tmp_path, {"42/stat": pid_stat(name, nice=-5)})
        assert counters.process(42) == Process(17, 167109.0, -5, 3, 3.0, 0.5)

    def test_idle_policy(self, tmp_path: Path) -> None:
        """What runs only when nobody else wants the CPU is nicer than the nicest."""
        process = proc(tmp_path, {"42/stat": pid_stat(policy=5)}).process(42)
        assert process is not None
        assert process.nice > 19

    @pytest.mark.parametrize("text", [None, "", "42", "42 (short) S 1 2 3\n"])
    def test_no_process(self, tmp_path: Path, text: str | None) -> None:
        """A process that is gone, or cannot be read, is none."""
        assert proc(tmp_path, {} if text is None else {"42/stat": text}).process(42) is None

    @pytest.mark.parametrize(
        ("loadavg", "own", "glance"),
        [
            ("0.20 0.18 0.12 1/80 11206\n", [], Glance(0, 0.2, 1.25)),
            ("0.20 0.18 0.12 3/80 11206\n", [MAIN], Glance(2, 0.2, 1.25)),
            # Of ours, those count that run at the moment: this thread, and 42.
            ("12.00 9.10 8.12 7/80 11206\n", [MAIN, 42, 43, 44], Glance(5, 12.0, 1.25)),
            ("0.00 0.00 0.00 1/80 11206\n", [42], Glance(0, 0.0, 1.25)),
            # We run, so this is made up, as gVisor does.
            ("0.00 0.00 0.00 0/0 0\n", [], None),
            ("0.00 0.00 0.00\n", [], None),
            ("rubbish a b c/d\n", [], None),
            ("", [], None),
            (None, [], None),
        ],
    )
    def test_glance(self, tmp_path: Path, loadavg: str | None, own: list[int], glance: Glance | None) -> None:
        """A glance tells who else runs at this moment, and how busy it was lately; if anything lacks, nothing."""
        ours = {"42/stat": pid_stat("a) S (b", state="R"), "43/stat": pid_stat()}
        pressure = "some avg10=1.25 avg60=2.00 avg300=3.00 total=12345\nfull avg10=0.00 avg60=0.00\n"
        files = {**ours, **({} if loadavg is None else {"loadavg": loadavg})}
        assert proc(tmp_path, files).glance(own) is None
        assert proc(tmp_path, {**files, "pressure/cpu": ""}).glance(own) is None
        assert proc(tmp_path, {**files, "pressure/cpu": pressure}).glance(own) == glance

    def test_table(self, tmp_path: Path) -> None:
        """The table has all processes that can be read, and nothing else."""
        files = {"42/stat": pid_stat(), "43/stat": pid_stat("x"), "44/comm": "gone", "stat": STAT, "4x/stat": "x"}
        assert proc(tmp_path, files).table() == {42: 3.0, 43: 3.0}

    def test_no_table(self, tmp_path: Path) -> None:
        """Without /proc there is no table."""
        assert proc(tmp_path, {}).table() is None

    def test_cgroup(self, tmp_path: Path) -> None:
        """The control group of a process is read as it is; of none, it is empty."""
        counters = proc(tmp_path, {"42/cgroup": "0::/a\n"})
        assert (counters.cgroup(42), counters.cgroup(43)) == ("0::/a\n", "")

    def test_no_table_to_compare(self, tmp_path: Path) -> None:
        """If processes cannot be listed, all that is not our own work counts as that of others."""
        clock = iter(range(100))
        counters = proc(tmp_path, {"stat": "cpu  0 0 0 0 0\ncpu0 0 0 0 0 0\ncpu1 0 0 0 0 0\n"})
        reader = CpuReader(lambda: float(next(clock)), counters=counters)
        read(reader)
        proc(tmp_path, {"stat": "cpu  100 0 0 100 0\ncpu0 0 0 0 0 0\ncpu1 0 0 0 0 0\n"})
        os.rename(tmp_path / "proc" / "stat", tmp_path / "stat")
        os.mkdir(tmp_path / "proc" / "42")
        os.rename(tmp_path / "stat", tmp_path / "proc" / "stat")
        assert read(reader, threshold=30).free == 1


HOG = "import time\nuntil = time.monotonic() + {seconds}\nwhile time.monotonic() < until: pass"
# Starts a hog, says its pid and ends, so that the hog has no parent among us.
LEAVE_A_HOG = """
import subprocess, sys
null = subprocess.DEVNULL
hog = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=null, stdout=null, stderr=null)
print(hog.pid)
"""


def leave_a_hog(source: str) -> int:
    """Start a hog as daemons start, by a parent that ends at once; give its pid."""
    starter = subprocess.run(
        [sys.executable, "-c", LEAVE_A_HOG, source], capture_output=True, check=True, start_new_session=True
    )
    return int(starter.stdout)


class TestThisMachine:
    @pytest.mark.parametrize("counters", [system_counters(), PsutilCounters()], ids=lambda c: type(c).__name__)
    def test_counters(self, counters: Any) -> None:
        """The real counters know the CPUs, this process and its parent, and never run backwards."""
        first, second = counters.totals(), counters.totals()
        assert first.cpus >= 1
        assert second.work >= first.work
        me = counters.process(os.getpid())
        assert me.parent == os.getppid()
        assert me.spent > 0
        assert counters.table()[os.getpid()] >= me.spent * 0.9
        assert counters.process(2**22 + 1) is None
        assert isinstance(counters.cgroup(os.getpid()), str)

    @linux
    def test_clocks(self) -> None:
        """The kernel's CPU-time clock of this process is this process's CPU time."""
        counters = LinuxCounters()
        before = time.process_time()
        me = counters.process(os.getpid())
        assert me is not None
        assert before <= me.spent <= time.process_time() + 0.02

    def test_glance(self) -> None:
        """A glance at the real machine is possible, or there is none; elsewhere than on Linux there never is one."""
        glance = system_counters().glance([os.getpid()])
        assert glance is None or (glance.running >= 0 and glance.load >= 0 and 0 <= glance.pressure <= 100)
        assert PsutilCounters().glance([os.getpid()]) is None

    def test_neighbour(self) -> None:
        """A real process that computes, and is not ours, takes a CPU away from us."""
        # Its own life ends soon, whatever becomes of this test.
        hog = leave_a_hog(HOG.format(seconds=TIMEOUT))
        try:
            assert hog in self.counted(own=[os.getpid()], until=hog)
        finally:
            os.kill(hog, 9)

    def test_own_child(self) -> None:
        """A real process that computes, and that we started, is ours."""
        hog = subprocess.Popen([sys.executable, "-c", HOG.format(seconds=TIMEOUT)])
        try:
            assert hog.pid not in self.counted(own=[os.getpid()], until=hog.pid)
        finally:
            hog.kill()
            hog.wait()

    def test_left_by_a_task(self) -> None:
        """What a task started is ours also when it has left its parents, its session, and the task is over."""
        dummymp.configure(priority="nuclear", max_processes=1)
        hog = dummymp.run(leave_a_hog, HOG.format(seconds=TIMEOUT)).result()
        try:
            assert hog not in self.counted(own=[os.getpid(), *dummymp.worker_pids()], until=hog)
        finally:
            os.kill(hog, 9)

    def counted(self, own: list[int], until: int) -> list[int]:
        """Look until `until` was found at work; give the pids that counted then."""
        counters = system_counters()
        totals = counters.totals()
        assert totals is not None
        me = counters.process(os.getpid())
        niceness = 0 if me is None else me.nice
        neighbours = Neighbours(counters, cost_clock=lambda: 0.0)
        end = last = time.monotonic()
        neighbours.look(last)
        while last < end + TIMEOUT:
            threading.Event().wait(0.2)
            now = time.monotonic()
            # How busy the CPUs as a whole are is another test's matter; here they are full.
            window = Window(now - last, totals, float(totals.cpus), True, own, 0.2, niceness)
            verdict = neighbours.judge(now, window)
            last = now
            if until in verdict.counted or until in verdict.kin:
                return list(verdict.counted)
        raise AssertionError(f"{until} was never found at work")

    def test_reader(self) -> None:
        """A reading of this machine stays within its bounds, and takes no time."""
        reader = CpuReader()
        reader.baseline()
        end = time.monotonic() + TIMEOUT
        while (reading := read(reader, own=[os.getpid()], window=0.05)).free is None:
            assert time.monotonic() < end
        assert 0 <= reading.free <= 2
        assert reading.waited >= 0.05

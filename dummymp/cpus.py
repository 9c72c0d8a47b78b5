# SPDX-License-Identifier: MIT
"""What others leave us: how many of our CPUs are free, without ever sleeping.

    counters of the kernel, now and one window ago
        |
        |   work on our CPUs, less the work of our own processes
        v
    little is left -------------------------------> all CPUs are free   (quiet: tens of microseconds)
        |
        |   look at the processes one by one (neighbours.py)
        v
    less those below the threshold, those that are nicer than we are, and those that our tasks started
        |
        v
    CPUs that others use, in whole CPUs ----------> the rest is free

Before a window has passed there is only what the kernel has kept since before we came (a glance). It is trusted where
it says that nobody else has computed for a while, and does not now; otherwise nothing is known yet.

What we may use at all is in limits.py, memory in memory.py; their names can be had from here, too.
"""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from .counters import system_counters
from .limits import Limit, limit, on_login_node, quota, usable
from .memory import Memory, memory
from .neighbours import Neighbours, Window
from .programs import Program, top_users

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from .counters import Counters, Glance, Process, Totals
    from .kernelfiles import Group
    from .neighbours import Verdict

__all__ = [
    "NOTHING_YET",
    "CpuReader",
    "Limit",
    "Memory",
    "Program",
    "Reading",
    "limit",
    "memory",
    "on_login_node",
    "top_users",
    "usable",
]

# A look older than so many seconds says nothing about now: an hour's average hides who came a second ago.
# Larger still has an answer for what was left alone for longer, smaller waits for a new window more often.
MAX_AGE = 5.0
# Seconds that may seem to be missing between two looks, because the counters tick in hundredths of a second.
TICKS = 0.05
# Even "more than 0 percent" (threshold=0) leaves out what such ticks can make up.
LEAST_LIMIT = 0.05
# With less idle time than this share of the CPUs, everybody gets less than they would like.
FULL = 0.1
# Where our own tasks get less than this share of a CPU each, no more of them are started.
CROWDED = 0.95
# On a full machine the least that others left us counts, of so many seconds: in a shorter window one process may have a
# CPU for itself while two others share the next. Longer: follows slower where others use less, yet the CPUs are full.
STEADY = 0.8
# The load of the last minute below which a machine may be quiet: one thread that computes makes more than this within
# ten seconds, and as much is left a minute after two that took ten. Larger takes more machines for quiet, those where a
# little goes on all the time; smaller, fewer of those on which we have just been at work ourselves.
QUIET_LOAD = 0.1
# The same for the percentage of the last ten seconds in which somebody waited for a CPU.
QUIET_PRESSURE = 1.0
# So far down the threshold goes with what our own tasks get. Smaller sees more crowded machines for what
# they are, and takes smaller processes for serious on them.
LEAST_SHARE = 0.1


class Reading(NamedTuple):
    """What one look at the CPUs found.

    Attributes:
        free: How many of the CPUs that we may use others leave us; None until a window has passed.
        others: How many CPUs those others use who count; None if unknown.
        idle: How many of the CPUs that we may use nobody used, not even we; None if unknown.
        waited: Seconds over which that was measured.
        ran: How many of our tasks ran, averaged over the same seconds; None where `read` was not told.
        beside_peers: What `free` would be without other programs that use dummymp as considerately as we do;
            None where `read` was not asked for them.
        quiet: Nothing is measured yet, but the machine is certainly quiet.
    """

    free: int | None
    others: float | None
    idle: float | None
    waited: float
    ran: float | None = None
    beside_peers: int | None = None
    quiet: bool = False


NOTHING_YET = Reading(None, None, None, 0.0)
QUIET = NOTHING_YET._replace(quiet=True)


class CpuReader:
    """Compares looks at the kernel's counters, and says how many CPUs others leave us.

    Not for several threads at once, and not across a fork: make a new one there.

    Args:
        clock: Gives the seconds of a clock that is never set back.
        counters: Where the numbers come from; tests plant them.
        quota_group: Gives the control group whose CPU quota limits us, or None.
        cost_clock: Gives CPU seconds of this thread, to know what looking at processes costs.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        counters: Counters | None = None,
        quota_group: Callable[[], Group | None] | None = None,
        cost_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._clock = clock
        self._counters = system_counters() if counters is None else counters
        self._neighbours = Neighbours(self._counters, cost_clock)
        self._quota_group = _quota_group if quota_group is None else quota_group
        self._look: _Look | None = None
        self._max_age = MAX_AGE
        self._reading = NOTHING_YET
        # That of the first look, until there was a second one.
        self._glance: Glance | None = None
        # Descendants of tasks that were found at work.
        self._kin: set[int] = set()
        self._ran = _Average()
        # The least that others left us on a full machine, and until when that holds.
        self._least, self._least_until = 0, -math.inf

    def baseline(self, own: Collection[int] = (), *, processes: bool = False) -> None:
        """Take the first look, if there is none, so that a window can begin.

        Args:
            own: Pids of ours, besides this process, that there are already.
            processes: Look at the single processes as well. Costs more, and makes the first reading tell many
                small ones from a large one.
        """
        now = self._clock()
        if self._look is None or now - self._look.at > self._max_age:
            self._begin(now, [os.getpid(), *own])
            if processes:
                self._neighbours.look(now)

    def note_running(self, running: int) -> None:
        """Tell how many of our tasks run from now on: those that a reading let start are not seen by the next one."""
        self._ran.note(self._clock(), running)

    def read(
        self,
        *,
        window: float,
        threshold: float,
        own: Collection[int],
        usable: int,
        niceness: int | None = None,
        running: int | None = None,
        peers: bool = False,
    ) -> Reading:
        """Say what others leave us. Never sleeps: until a window has passed, the last answer holds.

        Args:
            window: Seconds that must lie between the looks that are compared.
            threshold: A process of somebody else counts when it uses more than so many percent of a CPU.
            own: Pids of ours. All that descends from them is ours, too.
            usable: CPUs that we may use.
            niceness: That of our workers: who is nicer does not count. None takes that of this process.
            running: How many of our tasks run now; needed for `Reading.ran` only.
            peers: Whether to look for other programs that use dummymp, for `Reading.beside_peers`.
        """
        now = self._clock()
        self._ran.note(now, running)
        last = self._look
        self._max_age = max(MAX_AGE, 2 * window)
        if last is None or now - last.at > self._max_age:
            self._begin(now, own, usable)
        elif now - last.at >= window and now > last.at:
            totals = self._counters.totals()
            if totals is None or totals[:3] != last.totals[:3]:
                # Somebody moved us to other CPUs, or took them away: nothing to compare.
                self._begin(now, own, usable)
            else:
                self._glance = None
                look = self._look = _Look(now, totals, self._own_table(own, last.own))
                limit = max(threshold / 100, LEAST_LIMIT)
                self._reading = self._compare(last, look, limit, usable, niceness, peers)
        elif self._glance is not None:
            first, self._glance = self._glance, None
            if _is_quiet(first, self._counters.glance(own), threshold):
                self._reading = QUIET
        return self._reading

    def _begin(self, now: float, own: Collection[int], usable: int | None = None) -> None:
        """Take a look that has no predecessor."""
        totals = self._counters.totals()
        previous = {} if self._look is None else self._look.own
        self._look = None if totals is None else _Look(now, totals, self._own_table(own, previous))
        self._glance = None if totals is None else self._counters.glance(own)
        self._ran.take(now)
        # Where nothing can be read, nothing ever will: all CPUs count as free.
        self._reading = NOTHING_YET if totals is not None else Reading(usable, None, None, 0.0)

    def _own_table(self, own: Collection[int], previous: dict[int, Process]) -> dict[int, Process]:
        """Look at our own processes: those named, and those of the last look that still are there.

        The latter are the descendants of tasks that were found at work, and workers that ended but were not
        waited for yet: their time must not be lost before it turns up at their parent.
        """
        found = {}
        for pid in {*own, *previous}:
            process = self._counters.process(pid)
            if process is None:
                continue
            if pid in own or process.started == previous[pid].started:
                found[pid] = process
        return found

    def _compare(
        self, last: _Look, look: _Look, limit: float, usable: int, niceness: int | None, peers: bool
    ) -> Reading:
        usage, cpus = _usage(last, look), look.totals.cpus
        ran = self._ran.take(look.at)
        share = _share_of_each(usage, cpus, ran)
        verdict = self._judge(look, usage, max(LEAST_LIMIT, limit * share), niceness, peers)
        look.own.update(verdict.kin)
        self._kin = (self._kin & look.own.keys()) | verdict.kin.keys()
        if self._kin or usage.reaped:
            # Tasks that start programs start more of them. Who is recognised at once is not taken for a
            # stranger.
            self._neighbours.stay_awake(look.at)
        most = usable
        contended = usage.rest - verdict.aside > limit
        if ran and share < CROWDED and contended:
            # Our own tasks show that there is no room for more, whoever it is that takes it: processes that
            # came and went within the window may each have stayed below the threshold.
            most = int(ran + 0.5)
        beside_peers = None
        if peers:
            strangers = {pid: used for pid, used in verdict.counted.items() if pid not in verdict.peers}
            others = verdict.others - sum(verdict.counted[pid] for pid in verdict.peers)
            beside_peers = self._free(max(0.0, others), strangers, limit, usable, cpus)
        free = min(most, self._free(verdict.others, verdict.counted, limit, usable, cpus))
        full = contended and usage.idle <= FULL * cpus
        return Reading(
            free=self._steady(free, look.at, STEADY - usage.seconds if full else 0.0),
            others=verdict.others,
            idle=max(0.0, min(usage.idle, usable - usage.ours)),
            waited=usage.seconds,
            ran=ran,
            beside_peers=beside_peers,
        )

    def _steady(self, free: int, now: float, seconds: float) -> int:
        """Give what is free now, or the least of what was free lately; this holds for so many `seconds`, 0 for none."""
        if seconds <= 0 or free <= self._least or now >= self._least_until:
            self._least, self._least_until = free, now + seconds
        return self._least

    def _judge(self, look: _Look, usage: _Usage, limit: float, niceness: int | None, peers: bool) -> Verdict:
        if niceness is None:
            niceness = self._own_niceness() if usage.rest > limit else 0
        window = Window(
            seconds=usage.seconds,
            totals=look.totals,
            remainder=usage.rest,
            exact=usage.exact,
            own=look.own.keys(),
            limit=limit,
            niceness=niceness,
            peers=peers,
        )
        return self._neighbours.judge(look.at, window)

    def _free(self, others: float, counted: dict[int, float], limit: float, usable: int, cpus: int) -> int:
        """Say how many CPUs are left, in whole ones.

        We may use fewer than there are (a quota, a job's share). Then those who use the rest do not take
        ours; but those who live under the same quota do.
        """
        free = min(usable, cpus - _whole(others, limit))
        if usable < cpus and counted:
            group = self._quota_group()
            if group is not None:
                inside = (pid for pid in counted if group.holds(self._counters.cgroup(pid)))
                free = min(free, usable - _whole(sum(counted[pid] for pid in inside), limit))
        return max(0, free)

    def _own_niceness(self) -> int:
        process = self._counters.process(os.getpid())
        return 0 if process is None else process.nice


class _Look(NamedTuple):
    """The counters at one moment: of the CPUs, and of our own processes."""

    at: float
    totals: Totals
    own: dict[int, Process]


class _Usage(NamedTuple):
    """What became of the CPUs in one window, in CPUs.

    Attributes:
        seconds: How long it was.
        ours: What our own processes used.
        rest: What was used besides.
        idle: What nobody used.
        reaped: Whether something that our own processes had started has ended.
        exact: False where some of `rest` may have been ours.
    """

    seconds: float
    ours: float
    rest: float
    idle: float
    reaped: bool
    exact: bool


class _Average:
    """The average of a number over time, between one `take` and the next."""

    def __init__(self) -> None:
        self._value: int | None = None
        self._at = self._since = -math.inf
        self._area = 0.0

    def note(self, now: float, value: int | None) -> None:
        """Tell what the number is now.

        It may have risen right after the last note (that is when tasks are started) and fallen right before
        this one (an end is what makes somebody look), so the larger of the two is what it was in between.
        """
        if value is not None and self._since > -math.inf:
            before = value if self._value is None else self._value
            self._area += max(value, before) * (now - max(self._at, self._since))
        self._value, self._at = value, now

    def take(self, now: float) -> float | None:
        """Give the average since the last take; None without notes."""
        seconds, area, known = now - self._since, self._area, self._value is not None
        self._since, self._area = now, 0.0
        return area / seconds if known and 0 < seconds < math.inf else None


def _is_quiet(first: Glance, second: Glance | None, threshold: float) -> bool:
    """Tell whether two glances, some time apart, both show a machine on which nobody else computes.

    Who has computed for some seconds is in the load, also after the end; who came just now runs, and who does so with
    breaks must have hit upon one twice. What runs of ourselves besides this thread and our processes counts as others.
    """
    load = min(QUIET_LOAD, threshold / 100)
    return second is not None and all(
        glance.running == 0 and glance.load < load and glance.pressure < QUIET_PRESSURE for glance in (first, second)
    )


def _whole(others: float, limit: float) -> int:
    """Say how many whole CPUs that is.

    What is left over above whole CPUs costs one more only where it would count by itself. So a neighbour
    who uses 98 or 104 percent costs one CPU, one at 40 percent costs one where the threshold is 30, and no
    CPU stays idle for ever because of a little noise (cutting off, as make and ninja once did, would do
    that).
    """
    return max(0, math.ceil(round(others - limit, 3)))


def _usage(last: _Look, look: _Look) -> _Usage:
    """Say what became of the CPUs between two looks."""
    seconds, cpus = look.at - last.at, look.totals.cpus
    work = look.totals.work - last.totals.work
    idle = (look.totals.idle - last.totals.idle) / seconds
    spent, reaped, unknown = _own_use(last.own, look.own, most=seconds * cpus + TICKS)
    # More of ours than there was work at all: something of ours ended that had worked for longer than this
    # window, and all its time turned up at once. Then only what is certainly of this window is ours.
    plausible = spent + reaped <= work * 1.05 + TICKS
    ours = spent + (reaped if plausible else 0.0)
    return _Usage(
        seconds=seconds,
        ours=ours / seconds,
        rest=max(0.0, work - ours) / seconds,
        idle=min(max(0.0, idle), cpus),
        reaped=reaped > 0,
        exact=plausible and not unknown,
    )


def _own_use(last: dict[int, Process], now: dict[int, Process], *, most: float) -> tuple[float, float, bool]:
    """Sum up the CPU seconds of our own processes between two looks.

    Args:
        last, now: Our processes at the two looks.
        most: So much can be done between the looks. Who has done more and is new to us is not new to the
            machine.

    Returns:
        What they used themselves; what those had used that they started and that have ended (the kernel adds
        that to the parent when it has waited for them), less what was already known of those; and whether
        there was one of whom nobody knows how much of it was now.
    """
    spent = reaped = 0.0
    unknown = False
    for pid, process in now.items():
        before = last.get(pid)
        if before is not None and before.started == process.started:
            spent += process.spent - before.spent
            reaped += process.reaped - before.reaped
        elif process.spent + process.reaped <= most:
            spent += process.spent
            reaped += process.reaped
        else:
            unknown = True
    for pid, before in last.items():
        after = now.get(pid)
        if after is None or after.started != before.started:
            reaped -= before.spent + before.reaped
    return max(0.0, spent), max(0.0, reaped), unknown


def _share_of_each(usage: _Usage, cpus: int, ran: float | None) -> float:
    """Say how much of a CPU a process gets that wants all of one, as far as our own tasks show it.

    On a full machine everybody is squeezed. Three programs with a worker for each CPU leave each worker a
    third of one: below a threshold of 50, so that none of them would ever see the others. So the threshold
    is squeezed, too.
    """
    if not ran or usage.idle > FULL * cpus:
        return 1.0
    return min(1.0, max(usage.ours / ran, LEAST_SHARE))


def _quota_group() -> Group | None:
    found = quota()
    return None if found is None else found[1]

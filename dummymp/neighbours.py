# SPDX-License-Identifier: MIT
"""Who else uses our CPUs: processes one by one, once the CPUs as a whole are busier than with our own work.

Who counts are processes of others that use more than the threshold. Who does not: those below it (many small
ones do not cost a CPU), those that are nicer than our workers (they yield to us), those on CPUs that are not
ours, and all that our tasks started, however deep.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from .counters import Counters, Process, Totals

__all__ = ["Neighbours", "Verdict", "Window"]

# Looking at the processes one by one may take this share of one CPU. Larger follows changes on machines
# with many thousands of processes sooner; with a thousand, nearly every window has its look.
SHARE_OF_CPU = 1 / 200
# Seconds for which the processes are still looked at after others were busy, or descendants of our tasks
# were found, so that there is something to compare with when that happens again. Longer costs a little more
# in quiet times, shorter counts the small ones, too, for one window more often.
STAY_AWAKE = 5.0
# What the command lines of workers have, and of the server that forks them.
WORKER_MARK = "dummymp"
# No chain of parents is longer; it ends a climb if pids change hands under it.
DEEPEST = 100


class Window(NamedTuple):
    """One window, as far as the CPUs as a whole tell.

    Attributes:
        seconds: How long it was.
        totals: The CPUs at its end.
        remainder: How many of our CPUs were busy with something else than our own processes.
        exact: False where `remainder` is only an upper bound.
        own: Pids of our own processes, as far as they are known.
        limit: Who used more CPUs than this counts.
        niceness: That of our workers.
        peers: Whether those who are as considerate as we are shall be told apart.
    """

    seconds: float
    totals: Totals
    remainder: float
    exact: bool
    own: Collection[int]
    limit: float
    niceness: int
    peers: bool = False


class Verdict(NamedTuple):
    """Who used our CPUs in a window.

    Attributes:
        others: How many CPUs those used who count.
        counted: Those of them that could be told apart: CPUs by pid.
        kin: Descendants of our tasks that were found at work.
        aside: CPUs that those used who yield to us, or are kin.
        peers: Those of `counted` that are workers of other programs, as nice as ours.
    """

    others: float
    counted: dict[int, float]
    kin: dict[int, Process]
    aside: float = 0.0
    peers: frozenset[int] = frozenset()


class Neighbours:
    """Compares tables of all processes.

    Args:
        counters: Where the numbers come from.
        cost_clock: Gives CPU seconds of this thread, to know what looking costs.
    """

    def __init__(self, counters: Counters, cost_clock: Callable[[], float] = time.thread_time) -> None:
        self._counters = counters
        self._cost_clock = cost_clock
        self._table: dict[int, float] = {}
        self._table_at = -math.inf
        self._due = -math.inf
        self._awake_until = -math.inf
        # CPUs used by those who do not count, when last looked at.
        self._harmless = 0.0
        self._others: float | None = None

    def look(self, now: float) -> None:
        """Take a table to compare with, unless that would cost too much."""
        before = self._cost_clock()
        if self._take(now) is not None:
            self._pay(now, before)

    def stay_awake(self, now: float) -> None:
        """Go on looking at processes for a while, also when all is quiet."""
        self._awake_until = now + STAY_AWAKE

    def judge(self, now: float, window: Window) -> Verdict:
        """Say who used our CPUs in a window that ends now."""
        if window.remainder <= window.limit:
            if now < self._awake_until or window.remainder > window.limit / 2:
                self.look(now)
            self._others = 0.0
            return Verdict(0.0, {}, {})
        self.stay_awake(now)
        cost_before = self._cost_clock()
        old, old_at = self._table, self._table_at
        # A table that is older than what we want to judge would dilute who came just now.
        fresh = now - old_at <= max(2 * window.seconds, 1.5 * (self._due - old_at))
        table = self._take(now)
        if table is None or not fresh:
            verdict = self._guess(window)
        else:
            verdict = self._compare(old, table, now - old_at, window)
        if table is not None:
            self._pay(now, cost_before)
        self._others = verdict.others
        return verdict

    def _take(self, now: float) -> dict[int, float] | None:
        if now < self._due:
            return None
        table = self._counters.table()
        if table is not None:
            self._table, self._table_at = table, now
        return table

    def _pay(self, now: float, cost_before: float) -> None:
        self._due = now + (self._cost_clock() - cost_before) / SHARE_OF_CPU

    def _guess(self, window: Window) -> Verdict:
        """Judge without two tables: all that is left counts, but for what did not count the last time."""
        if self._others is not None and not window.exact:
            return Verdict(self._others, {}, {})
        others = max(0.0, window.remainder - self._harmless)
        return Verdict(others if others > window.limit else 0.0, {}, {})

    def _compare(self, old: dict[int, float], new: dict[int, float], seconds: float, window: Window) -> Verdict:
        heavy, small = _weigh(old, new, seconds, window)
        counted: dict[int, float] = {}
        kin: dict[int, Process] = {}
        peers: set[int] = set()
        nicer = ours = 0.0
        known: dict[int, bool] = dict.fromkeys(window.own, True)
        for pid, cpus in heavy.items():
            process = self._counters.process(pid)
            if process is None:
                counted[pid] = cpus  # It ended just now; for this window it was there.
            elif _elsewhere(process, window.totals):
                continue
            elif self._descends(process, known):
                kin[pid] = process
                ours += cpus
            elif process.nice > window.niceness:
                nicer += cpus
            else:
                counted[pid] = cpus
                if window.peers and process.nice == window.niceness and WORKER_MARK in self._counters.command(pid):
                    peers.add(pid)
        self._harmless = small + nicer
        others = min(sum(counted.values()), window.remainder)
        # Work that no process shows: of those that came and went within the window, that the administrator
        # hides from us, or outside of the container in which we are.
        hidden = window.remainder - others - self._harmless - ours
        if hidden > window.limit and window.exact and self._counters.shows_all_of_ours:
            others += hidden
        return Verdict(others, counted, kin, nicer + ours, frozenset(peers))

    def _descends(self, process: Process, known: dict[int, bool]) -> bool:
        """Tell whether a process descends from one of ours, and remember that of all on the way."""
        climbed: list[int] = []
        parent, answer = process.parent, False
        while parent > 1 and len(climbed) < DEEPEST:
            if parent in known:
                answer = known[parent]
                break
            climbed.append(parent)
            above = self._counters.process(parent)
            parent = 0 if above is None else above.parent
        else:
            answer = known.get(parent, False)
        known.update(dict.fromkeys(climbed, answer))
        return answer


def _weigh(
    old: dict[int, float], new: dict[int, float], seconds: float, window: Window
) -> tuple[dict[int, float], float]:
    """Find the processes of others above the limit, with the CPUs they used; and the sum of the others."""
    heavy: dict[int, float] = {}
    small = 0.0
    enough = window.limit * seconds
    own = window.own
    for pid, spent in new.items():
        used = spent - old.get(pid, 0.0)
        if used < 0:
            used = spent  # The pid changed hands.
        if pid in own:
            continue
        if used > enough:
            heavy[pid] = used / seconds
        else:
            small += used
    # Where the small ones ran would cost a look at each; they are taken to be spread evenly.
    return heavy, small / seconds * window.totals.cpus / window.totals.of


def _elsewhere(process: Process, totals: Totals) -> bool:
    return totals.ours is not None and process.cpu is not None and process.cpu not in totals.ours

# SPDX-License-Identifier: MIT
"""How many workers may run now: the rule, as plain arithmetic, about the presets of presets.py.

Nothing here looks at a clock, a file or a process; `cpus.py` and `memory.py` measure, `decide` judges.
"""

from __future__ import annotations

from typing import NamedTuple

from .presets import PRESETS, Preset, Priority, find_preset

__all__ = ["PRESETS", "Decision", "Preset", "Priority", "decide", "find_preset", "next_window"]

# Less idle time than this share of the CPUs counts as none. A larger share gives up CPU time that waiting
# tasks could use; a smaller one takes the gaps that computing tasks leave (disk, page faults) for room.
SATURATED = 0.1
# The same in CPUs, for large machines: half a CPU is room on 96, too.
SATURATED_CPUS = 0.5
# With more workers than CPUs, the number at most doubles from one reading to the next. A larger factor fills
# a high cap sooner; but tasks that only begin by waiting (reading a file) overshoot by that factor.
GROWTH = 2.0
# While the CPUs are full, the number comes down by this share with each reading, but at least by one. A larger
# share gives way sooner; a smaller one swings less around the number that just fills the CPUs.
SHRINKAGE = 0.25
# Where others are at work, so much of what they leave is taken with each reading. Other programs that share the
# machine as we do see the same gap at the same time: with 1, three of them on 32 CPUs kept 48 tasks running, with
# a half 33 (simulated, tasks of 5 s). A smaller share leaves CPUs idle for longer.
SHARE_OF_GAP = 0.5
# On the way to the CPU count, the number at most doubles from one reading to the next, so that programs which start
# in the same instant see one another while they are small: three at EXTREME took each all of 32 CPUs without this.
# Larger is sooner there, and takes more from those who come at the same time.
DOUBLING = 2.0
# While there is room for more, the next reading comes after this share of the preset's window, but not sooner than
# after so many seconds: the counters tick in hundredths of them. Smaller is sooner at a large CPU count, larger lets
# others who start at the same time be seen before the next step.
STEP_SHARE = 0.25
SHORTEST_STEP = 0.05
# `ran` is an average and lies a little below the number meant: workers take some milliseconds to start.
ROUND_UP_FROM = 0.75


# How a reason begins that passes by itself, and soon.
_MEASURING = "measuring the CPUs"


class Decision(NamedTuple):
    """How many workers may run now.

    Attributes:
        allowed: So many in all, those that run already included.
        waiting_for: What holds more of them back, in words; None where all CPUs that we may use are allowed.
        growing: Whether there is room for more already, and only the next reading is waited for.
    """

    allowed: int
    waiting_for: str | None
    growing: bool = False

    @property
    def passing(self) -> bool:
        """Tell whether what holds them back is only that the CPUs are being measured."""
        return self.waiting_for is not None and self.waiting_for.startswith(_MEASURING)


def decide(
    preset: Preset,
    *,
    usable: int,
    free: int | None,
    idle: float | None,
    running: int,
    max_processes: int | None,
    free_memory: float | None,
    min_free_memory: float | None,
    ran: float | None = None,
    beside_peers: int | None = None,
    quiet: bool = False,
) -> Decision:
    """Say how many workers may run now, and what holds more of them back.

    The heart of it is ``max(free, preset.at_least)``, capped by `max_processes`, or without a cap by
    `usable`.

    Args:
        preset: How considerate to be.
        usable: CPUs that we may use.
        free: How many of them others leave us; None before there is a window's worth of measurements.
        idle: CPUs on which nobody worked, not even we, averaged over the last window; None if unknown.
        running: Our tasks that run now.
        max_processes: The user's cap; None or 0 for none.
        free_memory: The share of the memory that is free; None if unknown.
        min_free_memory: A share to keep free that replaces the preset's; None for the preset's.
        ran: How many of our tasks ran, averaged over the very window that `free` and `idle` are about. None if
            unknown: then the number stays within the CPU count, and goes there in one step. `running` will not
            do: the tasks that a reading let start would seem to need no CPU by that same reading, and let start
            more.
        beside_peers: What `free` would be without other programs that use dummymp as considerately as we do;
            None if unknown.
        quiet: Nobody else computes, as far as can be told without measurements. While there are none, all CPUs count
            as free then.
    """
    if free is None and quiet:
        free = usable
    cap = max_processes or None
    most = usable if cap is None else cap
    wanted = allowed = most
    if preset.threshold is not None:
        # Who waits for a full machine does not wait for those who would wait for us: the second of two such
        # programs would starve until the first has ended.
        least = 1 if preset.at_least == 0 and beside_peers else preset.at_least
        wanted = min(most, usable, free or 0)
        allowed = min(most, max(usable if least is None else least, min(wanted, _step(usable, free, ran))))
        if cap is not None and cap > usable:
            allowed = max(allowed, min(cap, _beyond(usable, idle, ran)))
    reason = _reason(preset, usable=usable, free=free, cap=cap, allowed=allowed)
    kept = preset.min_free_memory if min_free_memory is None else min_free_memory
    if free_memory is not None and free_memory < kept:
        # One task always may run: it may be the very one that frees memory in the end. Only those who said
        # that they would wait (at_least=0) do.
        within = max(running, 0 if preset.at_least == 0 else 1)
        if within < allowed:
            # Cut off, not rounded: "10 % free, 10 % kept" would be a riddle.
            return Decision(within, f"memory: {int(free_memory * 100)} % free, {kept * 100:.3g} % kept")
    return Decision(allowed, reason, wanted > allowed)


def next_window(preset: Preset, *, growing: bool) -> float:
    """Give the seconds until the next reading, after a decision that said whether we are `growing`."""
    return max(preset.window * STEP_SHARE, min(preset.window, SHORTEST_STEP)) if growing else preset.window


def _step(usable: int, free: int | None, ran: float | None) -> int:
    """Say how far to go from the number that ran in one step, where others leave so many CPUs free."""
    if free is None or ran is None:
        return usable
    room = max(1.0, ran * (DOUBLING - 1))
    if free < usable:
        room = min(room, max(1.0, (free - ran) * SHARE_OF_GAP))
    return int(ran + room + 1 - ROUND_UP_FROM)


def _beyond(usable: int, idle: float | None, ran: float | None) -> int:
    """Say how many tasks the CPUs could carry, where the cap allows more of them than there are CPUs.

    In the last window `ran` tasks kept ``usable - idle`` CPUs busy, so one task needs that much divided by
    `ran`, and the CPUs carry ``ran * usable / (usable - idle)`` of them. Tasks that sleep need next to
    nothing: their number doubles with each reading (on 2 CPUs 2, 4, 8, 12: one second to a cap of 12).
    Tasks that compute leave nothing idle, so the answer is the number that ran, less a little: with 2 on 2
    CPUs that is below what ``max(free, at_least)`` gives anyway, and they stay at 2. In between, it settles
    where the CPUs are just full. What others compute counts as if it were ours, which errs on the polite
    side.
    """
    if idle is None or ran is None:
        return 0
    if idle < min(SATURATED * usable, SATURATED_CPUS):
        return int(ran - max(1.0, ran * SHRINKAGE) + 1 - ROUND_UP_FROM)
    busy = max(usable - idle, usable / 1000)
    return int(ran * min(usable / busy, GROWTH) + 1 - ROUND_UP_FROM)


def _reason(preset: Preset, *, usable: int, free: int | None, cap: int | None, allowed: int) -> str | None:
    if allowed >= usable:
        return None
    if allowed == cap:
        return f"max_processes={cap}"
    if free is None:
        return f"{_MEASURING} ({preset.window:g} s)"
    used = usable - max(free, 0)
    if used == 0:
        return f"{_MEASURING} again, before the next step"
    return f"{used} of {usable} CPUs {'is' if used == 1 else 'are'} used by others"

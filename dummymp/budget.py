# SPDX-License-Identifier: MIT
"""The budget: how many tasks may run now, from what was measured, by the rule of `policy`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Callable, Generic, TypeVar

from . import niceness
from .cpus import NOTHING_YET, CpuReader
from .limits import usable
from .memory import memory
from .policy import Decision, decide, next_window

if TYPE_CHECKING:
    from .cpus import Reading
    from .options import Options
    from .presets import Preset

__all__ = ["Budget", "kept_free"]

T = TypeVar("T")

# Programs that start in the same instant look at different times: their windows are shorter by up to this share. Not
# longer, for who waits for a full machine is to go on within a second.
SPREAD = 0.15
# What costs more to ask than it changes is asked again after so many seconds.
RECENT = 1.0


class Budget:
    """Measures and decides.

    Args:
        own_pids: Gives the processes that are ours; what descends from them is, too.
    """

    def __init__(self, own_pids: Callable[[], list[int]]) -> None:
        self._own_pids = own_pids
        self._reader = CpuReader()
        self._usable = _Recent(usable)
        self._memory = _Recent(memory)
        self._reading: Reading | None = None
        self._read_at = 0.0
        self._growing = False
        self._pace = 1 - SPREAD * (os.getpid() % 16) / 16

    def baseline(self) -> None:
        """Take the first look at the CPUs, if there was none, so that a window begins."""
        self._reader.baseline(self._own_pids())

    def decide(self, options: Options, running: int) -> Decision:
        """Say how many tasks may run now under these options, while `running` do."""
        preset = options.priority
        reading = NOTHING_YET if preset.threshold is None else self._read(preset, running)
        decision = decide(
            preset,
            usable=self._usable(),
            free=reading.free,
            idle=reading.idle,
            ran=reading.ran,
            beside_peers=reading.beside_peers,
            quiet=reading.quiet,
            running=running,
            max_processes=options.max_processes,
            free_memory=self._memory().free if kept_free(options) else None,
            min_free_memory=options.min_free_memory,
        )
        self._growing = decision.growing
        return decision

    def note_running(self, running: int) -> None:
        """Tell how many tasks run now that those which `decide` let start have been started."""
        self._reader.note_running(running)

    def window(self, preset: Preset) -> float:
        """Give the seconds from the last reading to the next."""
        return next_window(preset, growing=self._growing) * self._pace

    def free_cpus(self, preset: Preset, running: int) -> int | None:
        """Give the CPUs that others leave free; None if nothing was measured yet."""
        if preset.threshold is None:
            return self._usable()
        self.baseline()
        return self._read(preset, running).free

    def is_due(self, preset: Preset) -> bool:
        """Tell whether the window of the last reading is over."""
        return time.monotonic() - self._read_at >= self.window(preset)

    def _read(self, preset: Preset, running: int) -> Reading:
        assert preset.threshold is not None
        reading = self._reader.read(
            window=self.window(preset),
            threshold=preset.threshold,
            own=self._own_pids(),
            usable=self._usable(),
            niceness=min(niceness.NICEST, niceness.own() + preset.nice),
            running=running,
            peers=preset.at_least == 0,
        )
        if reading is not self._reading:
            self._reading = reading
            self._read_at = time.monotonic()
        return reading


def kept_free(options: Options) -> float:
    """Give the share of the memory that is to stay free."""
    return options.priority.min_free_memory if options.min_free_memory is None else options.min_free_memory


class _Recent(Generic[T]):
    """Asks again only when the last answer is older than `RECENT` seconds."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._until = 0.0

    def __call__(self) -> T:
        now = time.monotonic()
        if now >= self._until:
            self._answer = self._ask()
            self._until = now + RECENT
        return self._answer

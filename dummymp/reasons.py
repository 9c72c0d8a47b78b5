# SPDX-License-Identifier: MIT
"""Saying why tasks wait: in the log, and where nothing at all can start, so that a beginner sees it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Callable

from .limits import on_login_node
from .log import INFO, WARNING
from .presets import PRESETS

if TYPE_CHECKING:
    from .engine import ProcessEngine

__all__ = ["Reasons"]

# After so many seconds in which nothing could run, a warning says why, once. Sooner would warn of what passes by
# itself; later, people have ended the script because it "hangs".
PATIENCE = 10.0

LOGIN_NODE = (
    "this looks like the login node of a cluster: Slurm is here, but this is not one of its jobs. Heavy work is "
    "usually not welcome here. Put it into a job, such as: sbatch --cpus-per-task=8 --wrap 'python my_script.py'"
)
NOTHING_RUNS = (
    "nothing runs yet, after %d s: %s. The priority %s waits until that changes, and goes on by itself then. "
    "Who is at work now: python -m dummymp. To run one task all the same: dummymp.configure(priority='normal')"
)

# Once in a program, whatever becomes of the manager.
_said_login_node = False


class Reasons:
    """Tells of what holds tasks back, not more often than it changes.

    Args:
        tell: Is given a level of `logging` and a text.
        clock: Gives the seconds of a clock that is never set back.
        login_node: Tells whether this is one.
    """

    def __init__(
        self,
        tell: Callable[[int, str], object],
        *,
        clock: Callable[[], float] = time.monotonic,
        login_node: Callable[[], bool] = on_login_node,
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._login_node = login_node
        self._idle_since: float | None = None
        self._warned = False
        self._looked = False

    def note(self, engine: ProcessEngine, running: int) -> None:
        """Take note of a queue for which all has been started that may run; `running` tasks of the program do."""
        if not self._looked:
            self._looked = True
            self._note_login_node()
        if not engine.waiting or engine.decision is None:
            self._idle_since = None
            return
        reason = engine.decision.waiting_for
        if reason != engine.told and not engine.decision.passing:
            engine.told = reason
            if reason is not None:
                count = len(engine.waiting)
                self._tell(INFO, f"{count} {'task waits' if count == 1 else 'tasks wait'}: {reason}")
        if running or reason is None:
            self._idle_since = None
        elif not self._warned:
            preset = engine.options().priority
            # As users write it; a preset of their own has the name that they gave it.
            name = preset.name.lower() if preset in PRESETS.values() else preset.name
            self._note_nothing_runs(reason, name)

    def _note_nothing_runs(self, reason: str, priority: str) -> None:
        now = self._clock()
        if self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since >= PATIENCE:
            self._warned = True
            self._tell(WARNING, NOTHING_RUNS % (PATIENCE, reason, priority))

    def _note_login_node(self) -> None:
        global _said_login_node
        if not _said_login_node and self._login_node():
            _said_login_node = True
            self._tell(WARNING, LOGIN_NODE)

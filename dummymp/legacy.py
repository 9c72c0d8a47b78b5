# SPDX-License-Identifier: MIT
"""The names of DummyMP 0.5. They stay for ever, and each says what it is called today."""

from __future__ import annotations

from . import api
from .hints import TYPE_CHECKING
from .presets import Priority

if TYPE_CHECKING:
    from typing import Any, Callable

    from .presets import Preset

__all__ = [
    "DUMMYMP_AGGRESSIVE",
    "DUMMYMP_EXTREME",
    "DUMMYMP_GENEROUS",
    "DUMMYMP_NORMAL",
    "DUMMYMP_NUCLEAR",
    "getCPUAvail",
    "getSpawnProcPIDs",
    "getTotalCPUs",
    "get_max_processes",
    "get_priority_mode",
    "get_version",
    "needUpdateCPUAvail",
    "set_args_deepcopy",
    "set_end_callback",
    "set_kwargs_deepcopy",
    "set_max_processes",
    "set_priority_mode",
    "set_start_callback",
]

DUMMYMP_GENEROUS = Priority.GENEROUS
DUMMYMP_NORMAL = Priority.NORMAL
DUMMYMP_AGGRESSIVE = Priority.AGGRESSIVE
DUMMYMP_EXTREME = Priority.EXTREME
DUMMYMP_NUCLEAR = Priority.NUCLEAR

getCPUAvail = api.available_cpus
getTotalCPUs = api.total_cpus
getSpawnProcPIDs = api.worker_pids


def set_max_processes(max_processes: int | None) -> None:
    """Call ``configure(max_processes=...)``; 0 means no cap."""
    api.configure(max_processes=max_processes)


def get_max_processes() -> int:
    """Give the cap of `set_max_processes`, 0 if there is none."""
    return api._queue._options.max_processes or 0


def set_priority_mode(mode: Priority | Preset | int | str) -> None:
    """Call ``configure(priority=...)``."""
    api.configure(priority=mode)


def get_priority_mode() -> Any:
    """Give the `Priority` that holds, or the `Preset` if it is one of the user's own."""
    from .presets import PRESETS

    preset = api._queue._options.priority
    return next((priority for priority, known in PRESETS.items() if known is preset), preset)


def set_start_callback(callback: Callable[[int, int, int], object] | None) -> None:
    """Call ``configure(on_start=...)``."""
    api.configure(on_start=callback)


def set_end_callback(callback: Callable[[int, int, int], object] | None) -> None:
    """Call ``configure(on_end=...)``."""
    api.configure(on_end=callback)


def set_args_deepcopy(copy: bool) -> None:
    """Call ``configure(copy_args=...)``: freeze a call when it is queued (True), or when it starts."""
    api.configure(copy_args=copy)


set_kwargs_deepcopy = set_args_deepcopy


def needUpdateCPUAvail() -> bool:
    """Tell whether `available_cpus` would measure anew now, because the last window is over."""
    from .manager import the_manager

    return the_manager().reading_is_due(api._queue._options.priority)


def get_version() -> str:
    """Give `dummymp.__version__`."""
    from . import __version__

    return __version__

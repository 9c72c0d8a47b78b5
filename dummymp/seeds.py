# SPDX-License-Identifier: MIT
"""Randomness: no two tasks share a sequence, and with a seed the sequence depends on the call number alone.

`random` and the global generator of `numpy.random` are seeded before each task, from (seed, call number) or, without
a seed, from the system's own randomness. Libraries that are not loaded are left alone; one that a task loads itself
while a seed is set is seeded right after it was loaded.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

from .whenloaded import when_loaded

__all__ = ["reseed"]

_MODULES = ("random", "numpy.random")
# What the running task is seeded with; and which modules are seeded when they are loaded.
_value: int | None = None
_awaited: set[str] = set()


def reseed(seed: int | None, task: int, *, loaded: bool = True) -> None:
    """Give the task with this call number its own random sequences; `loaded` False leaves loaded modules alone."""
    global _value
    _value = value = None if seed is None else derive(seed, task)
    for name in _MODULES:
        module = sys.modules.get(name)
        if module is None and value is not None and name not in _awaited:
            _awaited.add(name)
            when_loaded(name, functools.partial(_seed_late, name))
        # A file of the user's may have the name of a standard module: random.py, above all.
        if module is not None and loaded and hasattr(module, "seed"):
            if value is None:
                # To let the generators ask the system takes several times as long: numpy's nearly 0.1 milliseconds.
                value = int.from_bytes(os.urandom(32), "little")
            _seed(name, module, value)


def _seed_late(name: str) -> None:
    """Seed a module that a task has loaded."""
    _awaited.discard(name)
    module = sys.modules[name]
    if _value is not None and hasattr(module, "seed"):
        _seed(name, module, _value)


def derive(seed: int, task: int) -> int:
    """Give the 256-bit number that stands for (seed, call number): the SHA-256 of both."""
    import hashlib

    return int.from_bytes(hashlib.sha256(f"{seed}/{task}".encode()).digest(), "little")


def _seed(name: str, module: Any, value: int) -> None:
    if name == "random":
        module.seed(value & ((1 << 128) - 1))
    else:
        # numpy's legacy generator takes 32-bit words. It is the same generator as that of `random` (MT19937), so with
        # the same seed both would give the same numbers: each takes a half of its own.
        module.seed([(value >> shift) & 0xFFFFFFFF for shift in (128, 160, 192, 224)])

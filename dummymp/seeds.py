# SPDX-License-Identifier: MIT
"""Randomness: no two tasks share a sequence, and with a seed the sequence depends on the call number alone.

`generator` gives a NumPy Generator of the running task's own, for who draws from none of the global ones.

`random` and the global generator of `numpy.random` are seeded before each task, from (seed, call number) or, without
a seed, from the system's own randomness. Libraries that are not loaded are left alone; one that a task loads itself
while a seed is set is seeded right after it was loaded.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

from .errors import MissingExtra
from .whenloaded import when_loaded

__all__ = ["current", "generator", "generator_of_script", "put_back", "reseed"]

_MODULES = ("random", "numpy.random")
# What the running task is seeded with; and which modules are seeded when they are loaded.
_value: int | None = None
_awaited: set[str] = set()
# The generator of the running task, if it has asked for it; and that of the script, with its seed.
_generator: Any = None
_of_script: tuple[int | None, Any] = (None, None)


def reseed(seed: int | None, task: int, *, loaded: bool = True) -> None:
    """Give the task with this call number its own random sequences; `loaded` False leaves loaded modules alone."""
    global _value, _generator
    _generator = None
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


def current() -> tuple[Any, ...]:
    """Give what `put_back` takes to come back to the randomness of the task that runs now."""
    return _value, _generator


def put_back(before: tuple[Any, ...]) -> None:
    """Go on with the randomness of a task after another one has run in the midst of it."""
    global _value, _generator
    _value, _generator = before


def generator() -> Any:
    """Give the `numpy.random.Generator` of the running task: always the same one, with a stream of its own."""
    global _generator
    if _generator is None:
        _generator = _new_generator(None if _value is None else derive(_value, "rng"))
    return _generator


def generator_of_script(seed: int | None) -> Any:
    """Give the one outside of tasks."""
    global _of_script
    if _of_script[1] is None or _of_script[0] != seed:
        _of_script = seed, _new_generator(None if seed is None else derive(seed, "rng"))
    return _of_script[1]


def _new_generator(seed: int | None) -> Any:
    try:
        import numpy
    except ImportError as error:
        raise MissingExtra("rng() needs NumPy. Install it with: pip install 'dummymp[arrays]'") from error
    return numpy.random.default_rng(seed)


def _seed_late(name: str) -> None:
    """Seed a module that a task has loaded."""
    _awaited.discard(name)
    module = sys.modules[name]
    if _value is not None and hasattr(module, "seed"):
        _seed(name, module, _value)


def derive(seed: int, task: object) -> int:
    """Give the 256-bit number that stands for (seed, call number, or what else is drawn for): the SHA-256 of both."""
    import hashlib

    return int.from_bytes(hashlib.sha256(f"{seed}/{task}".encode()).digest(), "little")


def _seed(name: str, module: Any, value: int) -> None:
    if name == "random":
        module.seed(value & ((1 << 128) - 1))
    else:
        # numpy's legacy generator takes 32-bit words. It is the same generator as that of `random` (MT19937), so with
        # the same seed both would give the same numbers: each takes a half of its own.
        module.seed([(value >> shift) & 0xFFFFFFFF for shift in (128, 160, 192, 224)])

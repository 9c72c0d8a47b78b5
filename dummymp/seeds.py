# SPDX-License-Identifier: MIT
"""Randomness: no two tasks share a sequence, and with a seed the sequence depends on the call number alone.

`random` and the global generator of `numpy.random` are seeded before each task, from (seed, call number) or, without
a seed, from the system's own randomness. Libraries that are not loaded are left alone; one that a task loads itself
while a seed is set is seeded right after it was loaded.
"""

from __future__ import annotations

import os
import sys
from typing import Any

__all__ = ["reseed"]


def reseed(seed: int | None, task: int, *, loaded: bool = True) -> None:
    """Give the task with this call number its own random sequences; `loaded` False leaves loaded modules alone."""
    _finder.value = value = None if seed is None else derive(seed, task)
    if value is not None and _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    for name in ("random", "numpy.random"):
        module = sys.modules.get(name)
        # A file of the user's may have the name of a standard module: random.py, above all.
        if module is not None and loaded and hasattr(module, "seed"):
            if value is None:
                # To let the generators ask the system takes several times as long: numpy's nearly 0.1 milliseconds.
                value = int.from_bytes(os.urandom(32), "little")
            _seed(name, module, value)


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


class _Finder:
    """Seeds `random` and `numpy.random` when a task imports them for the first time."""

    value: int | None = None

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname not in ("random", "numpy.random") or self.value is None:
            return None
        import importlib.util

        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)  # type: ignore[assignment]
        return spec


class _Loader:
    def __init__(self, loader: Any, finder: _Finder) -> None:
        self._loader = loader
        self._finder = finder

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        self._loader.exec_module(module)
        if self._finder.value is not None and hasattr(module, "seed"):
            _seed(module.__name__, module, self._finder.value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


_finder = _Finder()

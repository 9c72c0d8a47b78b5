# SPDX-License-Identifier: MIT
"""Keepsakes: objects that an installed library keeps in one of its modules, ``from loguru import logger``.

There is one of each in a process, and a worker that imports the library has its own. So they travel by the name of
where they are kept, as functions and classes do. What a script has changed in them stays behind, as all that is set in
other modules. Containers, and what the user's own modules keep, travel by value: a script fills and changes them.
"""

from __future__ import annotations

import collections.abc
import copyreg
import importlib
import operator
import sys
from typing import Any

from .modules import is_library, module_travels_by_name

__all__ = ["may_be_keepsake", "place_of", "reduce_keepsake"]

# Py_TPFLAGS_HEAPTYPE of CPython: a class that was made while Python ran.
_IS_OF_PYTHON = 1 << 9
_REDUCE: Any = object.__reduce__
_REDUCE_EX: Any = object.__reduce_ex__
_DATA = (str, bytes, int, float, tuple, collections.abc.Collection, collections.abc.Iterator, BaseException)

# By the name of a package: how many modules there were when it was looked through, and where what is kept, by its id.
_kept: dict[str, tuple[int, dict[int, tuple[str, str]]]] = {}


def may_be_keepsake(kind: type) -> bool:
    """Tell whether objects of a class may be kept by a library: of its own classes, and without a way of their own."""
    return (
        bool(kind.__flags__ & _IS_OF_PYTHON)
        and kind.__reduce_ex__ is _REDUCE_EX
        and kind.__reduce__ is _REDUCE
        and kind not in copyreg.dispatch_table
        and not issubclass(kind, _DATA)
        and is_library(kind.__module__)
    )


def place_of(value: Any) -> tuple[str, str] | None:
    """Tell the module, and the name in it, by which an object travels that a library keeps; None for all others."""
    return _find(value) if may_be_keepsake(type(value)) else None


def reduce_keepsake(value: Any) -> Any:
    """Reduce an object, of a class that `may_be_keepsake`, to where it is kept; NotImplemented if it is not."""
    place = _find(value)
    return NotImplemented if place is None else (_take, place)


def _take(module: str, path: str) -> Any:
    return operator.attrgetter(path)(importlib.import_module(module))


def _find(value: Any) -> tuple[str, str] | None:
    """Find the module that keeps an object, and the name, or the names with dots between them, by which it does."""
    package = type(value).__module__.partition(".")[0]
    known = _kept.get(package)
    if known is None or known[0] != len(sys.modules):
        known = _kept[package] = len(sys.modules), _look_through(package)
    place = known[1].get(id(value))
    if place is None or not module_travels_by_name(place[0]):
        return None
    try:
        found = operator.attrgetter(place[1])(sys.modules[place[0]])
    except (AttributeError, KeyError):
        return None
    return place if found is value else None


def _look_through(package: str) -> dict[int, tuple[str, str]]:
    found: dict[int, tuple[str, str]] = {}
    for name, module in list(sys.modules.items()):
        if name == package or name.startswith(package + "."):
            for key, value in list(getattr(module, "__dict__", {}).items()):
                if _is_of(value, package) and found.setdefault(id(value), (name, key)) == (name, key):
                    # What it holds: what `logger.bind(...)` gives shares that with it.
                    for inner, part in list(getattr(value, "__dict__", {}).items()):
                        if isinstance(inner, str) and inner.isidentifier() and _is_of(part, package):
                            found.setdefault(id(part), (name, f"{key}.{inner}"))
    return found


def _is_of(value: Any, package: str) -> bool:
    kind = type(value)
    return (kind.__module__ or "").partition(".")[0] == package and may_be_keepsake(kind)

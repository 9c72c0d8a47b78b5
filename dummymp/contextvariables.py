# SPDX-License-Identifier: MIT
"""Context variables of the script, `contextvars.ContextVar`: where they are kept, and how they travel.

That of a module which a worker can import travels by its name; one of the script by value, and comes back as itself.
What is set in them travels with the call: see `contexts`.
"""

from __future__ import annotations

import contextvars
import importlib
import sys
from typing import Any

from .identity import once_around
from .modules import is_library, module_travels_by_name

__all__ = ["is_kept", "reduce_variable"]

# Where they are kept: the module, the name in it, and the variable itself, by its id.
_places: dict[int, tuple[str, str, contextvars.ContextVar[Any]]] = {}
# Those that are kept nowhere, by their ids: when that was found, so many modules and global variables there were.
_nowhere: dict[int, tuple[contextvars.ContextVar[Any], int, int]] = {}
# So many of them are remembered.
MOST = 1000


def is_kept(variable: contextvars.ContextVar[Any]) -> bool:
    """Tell whether the script, or a module of the user's, has this variable as a global one."""
    return _place_of(variable) is not None


def _place_of(variable: contextvars.ContextVar[Any]) -> tuple[str, str] | None:
    for looked in (False, True):
        if looked and not _look_for(variable):
            return None
        module, name, kept = _places.get(id(variable), ("", "", None))
        if kept is variable and getattr(sys.modules.get(module), name, None) is variable:
            return module, name
    return None


def _look_for(variable: contextvars.ContextVar[Any]) -> bool:
    """Look through the modules of the user; False if that was done for it before, and nothing has come since."""
    global _places
    main = getattr(sys.modules.get("__main__"), "__dict__", {})
    now = variable, len(sys.modules), len(main)
    if _nowhere.get(id(variable)) == now:
        return False
    found = {}
    for module, content in list(sys.modules.items()):
        if module == "__main__" or not is_library(module):
            for name, value in list(getattr(content, "__dict__", {}).items()):
                if type(value) is contextvars.ContextVar:
                    found[id(value)] = module, name, value
    if len(_nowhere) >= MOST:
        _nowhere.clear()
    _nowhere[id(variable)] = now
    _places = found  # In one step: other threads look there, too.
    return True


def reduce_variable(variable: contextvars.ContextVar[Any], *, here: bool) -> Any:
    """Reduce a variable, as `object.__reduce__` does."""
    place = _place_of(variable)
    if place is not None and module_travels_by_name(place[0]):
        return _take, place
    try:
        default = (contextvars.Context().run(variable.get),)
    except LookupError:
        default = ()  # type: ignore[assignment]
    return once_around(variable, _make, (variable.name, *default), here=here)


def _take(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _make(name: str, *default: Any) -> contextvars.ContextVar[Any]:
    if default:
        return contextvars.ContextVar(name, default=default[0])
    return contextvars.ContextVar(name)

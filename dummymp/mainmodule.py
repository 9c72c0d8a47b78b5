# SPDX-License-Identifier: MIT
"""``__main__`` in a worker: an empty module, in which the functions and classes of the user's script can be found.

There plain pickle looks for them, which tasks may use, and `multiprocessing` in a task, whose processes are copies of
the worker. (Its other kinds of processes have another ``__main__``. What they cannot find is told before it is sent.)
"""

from __future__ import annotations

import builtins
import pickle
import sys
import types
import weakref
from typing import Any

from .whenloaded import when_loaded

__all__ = ["make_main", "show_in_main"]

# By name. Functions as long as somebody else holds them, for what they captured may be large.
_functions: weakref.WeakValueDictionary[str, types.FunctionType] = weakref.WeakValueDictionary()
_classes: dict[str, type] = {}

# Processes that are no copies of the one that starts them, by their class.
_METHODS = {"SpawnProcess": "spawn", "ForkServerProcess": "forkserver"}
_NOT_THERE = (
    "{name} of the main script is not in processes that multiprocessing starts with {method!r} in a task. Start them "
    'with multiprocessing.get_context("fork"), or put {name} into a module of its own, or use dummymp.run({name}, ...) '
    "in the script instead"
)


def make_main() -> types.ModuleType:
    """Make the ``__main__`` of a worker, and put it in its place."""
    main = types.ModuleType("__main__")
    main.__dict__.update(__builtins__=builtins, __getattr__=_find)
    sys.modules["__main__"] = main
    if sys.version_info >= (3, 14) and sys.platform.startswith("linux"):
        # Its own default, "fork" before, is "forkserver" now. A worker is small, and has no threads but one of ours.
        when_loaded("multiprocessing", _fork_by_default)
    return main


def show_in_main(thing: Any) -> None:
    """Let a class or function of the user's main script be found in ``__main__`` here, where plain pickle looks."""
    name = getattr(thing, "__qualname__", None)  # Absent in what is neither of them.
    if getattr(thing, "__module__", None) == "__main__" and isinstance(name, str) and name.isidentifier():
        if isinstance(thing, types.FunctionType):
            _functions[name] = thing
        elif isinstance(thing, type):
            _classes[name] = thing


def _find(name: str) -> Any:
    """Be the `__getattr__` of ``__main__``."""
    found = _functions.get(name) or _classes.get(name)
    if found is None:
        raise AttributeError(f"module '__main__' has no attribute {name!r}")
    method = _other_method()
    if method:
        raise pickle.PicklingError(_NOT_THERE.format(name=name, method=method))
    return found


def _other_method() -> str:
    """Give the start method of processes that multiprocessing has started, or is starting, unless they are copies."""
    if "multiprocessing" not in sys.modules:
        return ""
    import multiprocessing
    from multiprocessing.context import get_spawning_popen

    starting = get_spawning_popen()
    if starting is not None:
        return str(starting.method)
    children = [type(child).__name__ for child in multiprocessing.active_children()]
    return next((_METHODS[kind] for kind in children if kind in _METHODS), "")


def _fork_by_default() -> None:
    import multiprocessing

    if multiprocessing.get_start_method(allow_none=True) is None:
        multiprocessing.set_start_method("fork")

# SPDX-License-Identifier: MIT
"""By name or by value: whether a worker can import a module, and so what stands in it."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import types
from typing import TYPE_CHECKING, Any

from . import nesting
from .log import logger

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "has_scripts",
    "is_library",
    "is_of_user",
    "look_for_scripts",
    "module_travels_by_name",
    "modules_by_value",
    "name_in_module",
    "other_name",
    "scripts_by_name",
    "travels_by_name",
]


def travels_by_name(thing: Any) -> bool:
    """Tell whether a function or class travels by its name: its module can be imported and has it."""
    if getattr(thing, "__module__", None) in (None, "__main__"):
        return False
    found: Any = sys.modules.get(thing.__module__) or _loaded_late(thing.__module__)
    for part in thing.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is thing and module_travels_by_name(thing.__module__)


def _loaded_late(name: str) -> Any:
    """Load the module of an installed package that something says that it is from; None where there is none.

    numpy's recarray says that it is from `numpy.rec`, which nobody has loaded who did not ask for it.
    """
    package = name.rpartition(".")[0]
    if package and is_library(package):
        with contextlib.suppress(Exception):
            return importlib.import_module(name)
    return None


def name_in_module(value: Any) -> str:
    """Give the name of what a worker can import, for which that is enough; "" for what it cannot."""
    name: str = value.__name__
    module = getattr(value, "__module__", None) or "__main__"
    found = getattr(sys.modules.get(module), name, None)
    return name if found is value and module_travels_by_name(module) else ""


def other_name(thing: Any) -> str:
    """Give another name under which its module has a thing that says it has one that it has not; "" if there is none.

    The module must be one that a worker can import.
    """
    module = getattr(thing, "__module__", None) or "__main__"
    space = getattr(sys.modules.get(module), "__dict__", {})
    if module == "__main__" or not module_travels_by_name(module):
        return ""
    return next((name for name, value in list(space.items()) if value is thing), "")


def module_travels_by_name(name: str) -> bool:
    """Tell whether a module is imported by the worker, rather than sent with what it holds."""
    return _send_by_value_if_unknown(name) and not _registered_by_value(name)


# Per name: the module, how long sys.path was, and the answer.
_seen_modules: dict[str, tuple[Any, int, bool]] = {}


def _send_by_value_if_unknown(name: str) -> bool:
    """Tell whether a worker can import a module, True or False; one that it cannot travels by value from now on.

    A module may stand in `sys.modules` without a file that the import system would find: made by hand, loaded by
    path (plug-ins), or found through an entry of `sys.path` that is gone (``python -m doctest folder/file.py``).
    """
    top = name.partition(".")[0]
    if top == "__main__":
        return False
    module = sys.modules.get(top)
    known = _seen_modules.get(top)
    if known is None or known[0] is not module or known[1] != len(sys.path):
        known = _seen_modules[top] = module, len(sys.path), _can_be_found(top, module)
        if not known[2] and isinstance(module, types.ModuleType):
            _send_by_value(module)
    return known[2]


def look_for_scripts() -> None:
    """Let modules of the user travel by value whose own code, outside of functions, is running and has called us.

    They are scripts without a guard that another one imports. A worker that imports them would run all of it again.
    """
    if nesting.in_worker():
        return  # What came by name goes back by name.
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            name = frame.f_globals.get("__name__")
            module = sys.modules.get(name) if isinstance(name, str) and name != "__main__" else None
            if getattr(module, "__dict__", None) is frame.f_globals and is_of_user(frame.f_globals.get("__spec__")):
                _add_script(module)
        frame = frame.f_back


# Modules that travel by value because of that; and those that do not although they might.
_scripts: list[types.ModuleType] = []
_imported_scripts: list[types.ModuleType] = []


def _add_script(module: Any) -> None:
    if module not in _imported_scripts and not _registered_by_value(module.__name__):
        _send_by_value(module)
        _scripts.append(module)


def has_scripts() -> bool:
    """Tell whether there are modules that `look_for_scripts` has found."""
    return bool(_scripts)


@contextlib.contextmanager
def scripts_by_name() -> Iterator[None]:
    """Let those modules travel by name; if that goes well, for good: something in them does not travel by value."""
    import cloudpickle

    for module in _scripts:
        cloudpickle.unregister_pickle_by_value(module)
    try:
        yield
    except BaseException:
        for module in _scripts:
            cloudpickle.register_pickle_by_value(module)
        raise
    names = ", ".join(module.__name__ for module in _scripts)
    _imported_scripts.extend(_scripts)
    _scripts.clear()
    logger().warning(
        "note: each worker imports %s, and so runs all of it, because something in it does not travel. What only your "
        "script shall do, put it there below: if __name__ == '__main__':",
        names,
    )


def _send_by_value(module: Any) -> None:
    if not _registered_by_value(module.__name__):
        import cloudpickle

        cloudpickle.register_pickle_by_value(module)


def _can_be_found(name: str, module: Any) -> bool:
    if name in sys.builtin_module_names or module is None:
        return module is not None
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        try:
            spec = find_spec(name, None) if find_spec is not None else None
        except Exception:
            continue  # A finder of somebody else's that does not work says nothing.
        if spec is not None:
            file = getattr(module, "__file__", None)
            # Frozen modules (since Python 3.11, `os` and others) have a file, but their spec says only "frozen".
            return file is None or not spec.has_location or _same_file(file, spec.origin)
    return False


def _same_file(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _registered_by_value(module: str) -> bool:
    return any(module == name or module.startswith(name + ".") for name in modules_by_value())


def modules_by_value() -> set[str]:
    """Give the names of the modules that travel by value: ours, and those that the user has told cloudpickle of."""
    # Another thread may be importing it just now: then nobody has told it of any.
    registry = getattr(sys.modules.get("cloudpickle"), "list_registry_pickle_by_value", set)
    names: set[str] = registry()
    return names


# --- whose a module is -------------------------------------------------------------------------------------------

_LIBRARY = os.path.dirname(os.__file__) + os.sep
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_OURS = __name__.partition(".")[0]
_libraries: dict[str, bool] = {}


def is_of_user(spec: Any) -> bool:
    """Tell by the spec of a module whether it is the user's: neither Python's, nor installed, nor ours."""
    origin = getattr(spec, "origin", None)
    if not isinstance(origin, str) or not origin.endswith(".py") or _top(spec) == _OURS:
        return False
    return not origin.startswith(_LIBRARY) and not any(part in origin for part in _INSTALLED)


def _top(spec: Any) -> str:
    return str(getattr(spec, "name", "")).partition(".")[0]


def is_library(name: str) -> bool:
    """Tell whether a module is Python's or installed."""
    known = _libraries.get(name)
    if known is None:
        origin = getattr(getattr(sys.modules.get(name), "__spec__", None), "origin", None)
        if not isinstance(origin, str) or name == "__main__":
            return False
        known = _libraries[name] = name.partition(".")[0] != _OURS and (
            origin in ("built-in", "frozen")
            or origin.startswith(_LIBRARY)
            or any(part in origin for part in _INSTALLED)
        )
    return known

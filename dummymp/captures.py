# SPDX-License-Identifier: MIT
"""Captures: what a function reads from outside, and whether any of it may have changed since."""

from __future__ import annotations

import contextvars
import sys
import types
import weakref
from typing import Any

from . import nesting
from .caches import CACHED
from .codes import global_names, names_in_text
from .functions import is_burden
from .keepsakes import place_of
from .modules import module_travels_by_name, modules_by_value, travels_by_name
from .pickling import ATOMS

__all__ = ["Captured", "unchanged"]

_MISSING = object()
_LAZY = getattr(types, "LazyImportType", _MISSING)  # What `lazy import` binds, since Python 3.15.
_ref = weakref.ref


def unchanged(snapshot: tuple[Any, ...]) -> bool:
    """Tell whether all that a function captured is what it was. An empty snapshot: nobody can tell, so no."""
    if not snapshot:
        return False
    functions, names, imported, by_value = snapshot
    # A package travels with those of its modules that were imported by then.
    if len(sys.modules) != imported or modules_by_value() != by_value:
        return False
    for namespace, name, held in names:
        if namespace.get(name, _MISSING) is not (held() if type(held) is _ref else held):
            return False
    for reference, code, defaults, kwdefaults, variables, cells in functions:
        func = reference()
        if func is None or func.__dict__:
            return False
        if func.__code__ is not code or func.__defaults__ is not defaults or func.__kwdefaults__ is not kwdefaults:
            return False
        namespace = func.__globals__
        for name, held in variables:
            if namespace.get(name, _MISSING) is not (held() if type(held) is _ref else held):
                return False
        if cells and not _are_in_cells(cells, func.__closure__):
            return False
    return True


def _are_in_cells(cells: tuple[Any, ...], closure: tuple[types.CellType, ...]) -> bool:
    try:
        return all(cell.cell_contents is (held() if type(held) is _ref else held) for cell, held in zip(closure, cells))
    except ValueError:
        return False  # Emptied since, by `del`.


def _hold(value: Any) -> Any:
    """Refer to a value; to a function weakly, for what is remembered must not keep it alive."""
    return _ref(value) if type(value) is types.FunctionType else value


class Captured:
    """Collects what a function reads from outside, as long as all of it is of a kind that cannot change inside."""

    def __init__(self) -> None:
        self.writes = False
        self._seen: set[int] = set()
        self._functions: list[tuple[Any, ...]] = []
        self._names: list[tuple[dict[str, Any], str, Any]] = []

    def snapshot(self) -> tuple[Any, ...]:
        """Give what `unchanged` compares with later."""
        return tuple(self._functions), tuple(self._names), len(sys.modules), modules_by_value()

    def add(self, value: Any) -> bool:
        """Add one value; False if its inside may change, so that only serialising it again tells."""
        kind = type(value)
        if kind in ATOMS:
            return True
        if kind in (tuple, frozenset):
            return all(map(self.add, value))
        if isinstance(value, types.ModuleType):
            return sys.modules.get(value.__name__) is value and module_travels_by_name(value.__name__)
        if kind is types.BuiltinFunctionType:
            return isinstance(value.__self__, types.ModuleType) or value.__self__ is None
        if isinstance(value, type):
            return travels_by_name(value)
        if kind is _LAZY or kind is contextvars.ContextVar:
            return True
        if kind is types.MethodType:
            return nesting.is_hidden(value.__self__)
        if kind is CACHED:
            return travels_by_name(value) or self.add(value.__wrapped__)
        if kind is types.FunctionType:
            return id(value) in self._seen or self._add_function(value)
        return self._add_keepsake(value)

    def _add_keepsake(self, value: Any) -> bool:
        place = place_of(value)
        if place is None:
            return False
        namespace, name = sys.modules[place[0]].__dict__, place[1].partition(".")[0]
        self._names.append((namespace, name, _hold(namespace.get(name, _MISSING))))
        return True

    def _add_function(self, func: types.FunctionType) -> bool:
        self._seen.add(id(func))
        module = sys.modules.get(func.__module__) if func.__module__ != "__main__" else None
        if module is not None:
            # Whether it travels by its name changes only if the name is bound anew.
            namespace, name = module.__dict__, func.__qualname__.split(".")[0]
            self._names.append((namespace, name, _hold(namespace.get(name, _MISSING))))
        if travels_by_name(func):
            return True
        if func.__dict__ or func.__kwdefaults__ or not self.add(func.__defaults__ or ()):
            return False
        names, writes = global_names(func.__code__)
        # A nested function may bind its free variables anew (nonlocal), and the next call would see that.
        self.writes = self.writes or writes or bool(func.__closure__)
        space, code = func.__globals__, func.__code__
        in_text = [n for n in names_in_text(code)[0] if n not in names and not is_burden(code, space.get(n))]
        variables = [(name, space.get(name, _MISSING)) for name in (*names, *in_text)]
        try:
            cells = [cell.cell_contents for cell in func.__closure__ or ()]
        except ValueError:
            return False
        if not all(self.add(value) for value in [*(value for _, value in variables if value is not _MISSING), *cells]):
            return False
        held = tuple((name, _hold(value)) for name, value in variables)
        self._functions.append(
            (_ref(func), func.__code__, func.__defaults__, func.__kwdefaults__, held, tuple(map(_hold, cells)))
        )
        return True

# SPDX-License-Identifier: MIT
"""How those things travel that neither pickle nor cloudpickle can send, or not whole."""

from __future__ import annotations

import builtins
import collections
import contextvars
import functools
import gc
import importlib
import io
import pickle
import sys
import types
import typing
import weakref
from typing import TYPE_CHECKING, Any, Callable

from . import nesting
from .codes import reduce_code
from .contextvariables import reduce_variable
from .functions import reduce_cell
from .identity import once_around
from .modules import module_travels_by_name, name_in_module
from .typeparams import reduce_alias, reduce_parameter

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BY_KIND", "Table", "reduce_module"]


class Table:
    """The dispatch table of a pickler: what is here first, then `table`, to which anybody may add at any time.

    A plain dict is asked in a fraction of the time of a chain of them, of which there is one question for each object.
    """

    def __init__(self, table: Mapping[Any, Any]) -> None:
        self._maps: list[Mapping[Any, Any]] = getattr(table, "maps", [table])
        self._seen: list[Mapping[Any, Any]] = []
        self._whole: dict[Any, Any] = {}

    def now(self) -> dict[Any, Any]:
        """Give what is in it now."""
        if self._seen != self._maps:
            self._seen = [dict(each) for each in self._maps]
            self._whole = {**collections.ChainMap(*self._seen), **_REDUCERS}  # type: ignore[arg-type]
        return self._whole


def _reduce_cached_property(value: Any) -> tuple[Any, ...]:
    # Up to Python 3.11 it has a lock, and gets a new one here.
    return functools.cached_property, (value.func,), (None, {"attrname": value.attrname, "__doc__": value.__doc__})


def _reduce_weak(value: Any) -> tuple[Any, ...]:
    # There it is empty as soon as nothing else in the call holds what is in it.
    return type(value), (), None, None, iter(list(value.items()))


def _reduce_of_sys(value: Any) -> tuple[Any, ...]:
    # `from sys import version_info`: nobody can make another one. The worker has its own.
    return getattr, (sys, type(value).__name__)


_REDUCERS: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    types.CellType: reduce_cell,
    functools.cached_property: _reduce_cached_property,
    weakref.WeakKeyDictionary: _reduce_weak,  # In every functools.singledispatch there is one.
    weakref.WeakValueDictionary: _reduce_weak,
    **{type(getattr(sys, name)): _reduce_of_sys for name in ("version_info", "flags", "float_info", "int_info")},
}

# --- for `reducer_override` of a pickler: these may also say NotImplemented, and leave it to the table -------------


def reduce_module(module: types.ModuleType) -> tuple[Any, ...]:
    """Reduce a module: by its name if a worker can import it, otherwise with all that is in it."""
    if module.__name__ in sys.modules and module_travels_by_name(module.__name__):
        return importlib.import_module, (module.__name__,)
    state = {name: value for name, value in module.__dict__.items() if name != "__builtins__"}
    return types.ModuleType, (module.__name__,), state, None, None, _set_module


def _set_module(module: types.ModuleType, state: dict[str, Any]) -> None:
    module.__dict__.update(state, __builtins__=builtins.__dict__)


def _reduce_file(file: Any, *, here: bool) -> Any:
    if file is sys.stdout or file is sys.stderr:
        return NotImplemented
    # cloudpickle would send a copy of what is in it, and what a task reads would be read again by others.
    raise pickle.PicklingError("an open file does not travel")


def _reduce_method(method: types.MethodType, *, here: bool) -> Any:
    if not nesting.is_hidden(method.__self__):
        return NotImplemented
    # dummymp.run and its like: each process has a hidden queue of its own.
    return getattr, (sys.modules[__name__.partition(".")[0]], method.__name__)


def _or_by_name(reduce: Callable[..., Any]) -> Callable[..., Any]:
    def by_name(value: Any, *, here: bool) -> Any:
        return name_in_module(value) or reduce(value, here=here)

    return by_name


def _reduce_new_type(value: Any, *, here: bool) -> Any:
    return typing.NewType, (value.__name__, value.__supertype__)


def _reduce_sentinel(value: Any, *, here: bool) -> Any:
    return once_around(value, _make_sentinel, (value.__name__, repr(value), value.__module__), here=here)


def _make_sentinel(name: str, text: str, module: str) -> Any:
    made: Any = builtins.sentinel(name, repr=text)  # type: ignore[attr-defined]
    made.__module__ = module
    return made


def _reduce_lazy_import(value: Any, *, here: bool) -> Any:
    # Its text names the whole of what it stands for. Only `from ... import ...` refers to another one, of the module.
    name = repr(value).split("'")[1]
    module, _, attribute = name.rpartition(".")
    if any(type(each) is type(value) for each in gc.get_referents(value)):
        return _lazy_import, (f"lazy from {module} import {attribute}", attribute)
    return _lazy_import, (f"lazy import {name}", name.partition(".")[0])


def _lazy_import(statement: str, name: str) -> Any:
    namespace: dict[str, Any] = {"__builtins__": builtins}
    exec(compile(statement, f"<{statement}>", "exec"), namespace)  # That is what a traceback says if it is missing.
    return namespace[name]


# By the type of the thing. Those that the running Python has no type for are left out.
BY_KIND: dict[Any, Callable[..., Any]] = {
    types.CodeType: reduce_code,
    types.MethodType: _reduce_method,
    contextvars.ContextVar: reduce_variable,
    io.TextIOWrapper: _reduce_file,
    **{
        getattr(home, name): _or_by_name(reduce)
        for home, name, reduce in (
            (typing, "NewType", _reduce_new_type),
            (typing, "TypeVar", reduce_parameter),
            (typing, "ParamSpec", reduce_parameter),
            (typing, "TypeVarTuple", reduce_parameter),
            (typing, "TypeAliasType", reduce_alias),
            (builtins, "sentinel", _reduce_sentinel),
        )
        if isinstance(getattr(home, name, None), type)  # In Python 3.9 some are not there, or functions.
    },
}
if hasattr(types, "LazyImportType"):
    BY_KIND[types.LazyImportType] = _reduce_lazy_import

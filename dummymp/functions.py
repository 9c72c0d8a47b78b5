# SPDX-License-Identifier: MIT
"""Functions by value: those that a worker cannot import.

With a function travel its code, the global variables that the code names, and its closure. Its annotations travel as
they are: where Python has not evaluated them yet (PEP 649, since 3.14), nobody here does.
"""

from __future__ import annotations

import builtins
import functools
import sys
import types
from typing import TYPE_CHECKING, Any, Callable

from .annotations import annotations_of, is_annotation, set_evaluated, with_names_of_class, without_burdens
from .codes import global_names, names_in_text
from .mainmodule import show_in_main

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "call_initializer", "call_on_stack", "function_behind", "is_burden", "is_read_from_stack", "reduce_cell",
    "reduce_function",
]  # fmt: skip

# So many entries of plain data travel although only a text names them. More: they are what is meant more often; fewer:
# what is not meant costs less.
MOST_PLAIN = 1000
_PLAIN = frozenset({list, tuple, dict, set, frozenset, str, bytes, bytearray})

# The global variables that initializers have set in this process, by the names of their modules.
_initialized: dict[str, dict[str, Any]] = {}

# What a function needs of its module to import by relative names, and to know where it is.
_OF_MODULE = ("__package__", "__name__", "__path__", "__file__")


def reduce_function(
    func: types.FunctionType, namespaces: dict[int, dict[str, Any]], travels: Callable[[Any], bool]
) -> tuple[Any, ...]:
    """Reduce a function to its parts, as `object.__reduce__` does.

    Args:
        func: The function.
        namespaces: The global variables of the functions of one pickle, by the id of their dict: functions that share
            them here share them there.
        travels: Tells whether a value can travel. Only annotations ask, and names in texts: what they name and cannot
            travel stays behind.
    """
    code, variables, closure = func.__code__, func.__globals__, func.__closure__
    names = global_names(code)[0]
    captured = {name: variables[name] for name in names if name in variables}
    if is_annotation(code):
        captured = without_burdens(captured, travels)
        closure = with_names_of_class(code, closure, travels)
    else:
        captured.update(_named_in_text(code, variables, travels))
    namespace = namespaces.setdefault(id(variables), {})
    if not namespace:
        namespace.update((name, variables[name]) for name in _OF_MODULE if name in variables)
    attributes: dict[str, Any] = {
        "__qualname__": func.__qualname__,
        "__module__": func.__module__,
        "__doc__": func.__doc__,
        "__defaults__": func.__defaults__,
        "__kwdefaults__": func.__kwdefaults__,
        **annotations_of(func),
    }
    parameters = getattr(func, "__type_params__", ())  # Since Python 3.12.
    if parameters:
        attributes["__type_params__"] = parameters
    submodules = _submodules(code, [*captured.values(), *_contents(closure)])
    state = attributes, dict(func.__dict__), captured, submodules
    return _make_function, (code, namespace, func.__name__, closure), state, None, None, _set_function


def _named_in_text(code: types.CodeType, variables: dict[str, Any], travels: Callable[[Any], bool]) -> dict[str, Any]:
    """Give the global variables that the text of a function names, ``df.query("x > @limit")``, and that can travel."""
    words, _ = names_in_text(code)
    if not words:
        return {}
    names = words.difference(global_names(code)[0]).intersection(variables)
    found = {name: variables[name] for name in sorted(names)}
    return {name: value for name, value in found.items() if not is_burden(code, value) and travels(value)}


def is_burden(code: types.CodeType, value: Any) -> bool:
    """Tell whether a value that only a text names is left out: much plain data, and a text that is SQL, or the like.

    That the list `users` is meant where a text says ``select * from users`` is not likely, and each call would look at
    all of it. DuckDB and its like read data frames and arrays.
    """
    return type(value) in _PLAIN and len(value) > MOST_PLAIN and not names_in_text(code)[1]


def _make_function(
    code: types.CodeType, namespace: dict[str, Any], name: str, closure: tuple[types.CellType, ...] | None
) -> types.FunctionType:
    namespace["__builtins__"] = builtins.__dict__
    return types.FunctionType(code, namespace, name, None, closure)


def _set_function(func: types.FunctionType, state: tuple[Any, ...]) -> None:
    attributes, own, captured, _ = state  # The submodules were imported by being read.
    func.__globals__.update(captured)
    func.__globals__.update(_initialized.get(func.__globals__.get("__name__", ""), ()))
    func.__dict__.update(own)
    evaluated = attributes.pop("evaluated", None)
    for name, value in attributes.items():
        setattr(func, name, value)
    if evaluated is not None:
        set_evaluated(func, evaluated)
    show_in_main(func)


def call_initializer(func: Callable[[], object], dump: Callable[[Any], bytes]) -> None:
    """Call an initializer; the functions that come later see the global variables that it sets, ``global model``, and
    what it changes in others, ``cache["model"] = ...``.

    Args:
        func: The initializer.
        dump: Serialises any value.
    """
    variables: dict[str, Any] = getattr(function_behind(func), "__globals__", {})
    before = {name: (value, _inside(value, dump)) for name, value in variables.items()}
    try:
        func()
    finally:
        new = {}
        for name, value in variables.items():
            old, inside = before.get(name, (before, b""))
            if old is not value or _inside(value, dump) != inside:
                new[name] = value
        _initialized.setdefault(variables.get("__name__", ""), {}).update(new)


def _inside(value: Any, dump: Callable[[Any], bytes]) -> bytes:
    """Give what is in a value that may be filled, in bytes; b"" of all others."""
    if isinstance(value, (types.ModuleType, types.FunctionType, type, str, bytes, int, float)):
        return b""
    try:
        return dump(value)
    except Exception:
        return b""


def function_behind(func: Any) -> types.FunctionType | None:
    """Give the function in Python behind partials, methods and `call_on_stack`; None if there is none."""
    while isinstance(func, (functools.partial, types.MethodType)):
        if isinstance(func, types.MethodType):
            func = func.__func__
        else:
            func = func.args[0] if func.func is call_on_stack else func.func
    return func if isinstance(func, types.FunctionType) else None


_CALL = compile("_call()", "<task>", "eval")


def is_read_from_stack(func: Any) -> bool:
    """Tell whether a text in a function names global variables of the script, ``polars.sql("select * from frame")``."""
    return type(func) is types.FunctionType and not names_in_text(func.__code__)[0].isdisjoint(func.__globals__)


def call_on_stack(func: types.FunctionType, /, *args: Any, **kwargs: Any) -> Any:
    """Call a function below a frame in which its global variables are local, as they are at the top of a script.

    That is where polars looks for the frames that a query names.
    """
    space = {"__name__": __name__, "_call": functools.partial(func, *args, **kwargs)}
    return eval(_CALL, space, func.__globals__)


# --- closures and modules ----------------------------------------------------------------------------------------


def reduce_cell(cell: types.CellType) -> tuple[Any, ...]:
    """Reduce a cell of a closure. It is made before what is in it, which may be the function that it belongs to."""
    try:
        return types.CellType, (), (cell.cell_contents,), None, None, _set_cell
    except ValueError:
        return types.CellType, ()  # Nothing is in it yet.


def _set_cell(cell: types.CellType, state: tuple[Any]) -> None:
    (cell.cell_contents,) = state


def _contents(closure: tuple[types.CellType, ...] | None) -> list[Any]:
    found = []
    for cell in closure or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:
            continue
    return found


def _submodules(code: types.CodeType, values: Iterable[Any]) -> list[types.ModuleType]:
    """Find the modules that a function reaches through a package, ``xml.dom.minidom``: they are to be imported, too."""
    names: set[str] | None = None
    found = []
    for value in values:
        if isinstance(value, types.ModuleType) and value.__dict__.get("__path__") is not None:
            names = _attribute_names(code) if names is None else names
            start = value.__name__ + "."
            for name, module in list(sys.modules.items()):
                if name.startswith(start) and names.issuperset(name[len(start) :].split(".")):
                    found.append(module)
    return found


def _attribute_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _attribute_names(constant)
    return names

# SPDX-License-Identifier: MIT
"""Annotations travel as they are. Where Python has not evaluated them yet (PEP 649, since 3.14), nobody here does.

What evaluates them is a function, which reads global variables, and names of the class that it stands in. Of these only
the ones that it names travel along, and only if they can: an annotation must not be what keeps a call from travelling.
"""

from __future__ import annotations

import gc
import re
import sys
import types
from typing import Any, Callable

from .codes import global_names

__all__ = [
    "annotations_of",
    "is_annotation",
    "reduce_forward_ref",
    "set_evaluated",
    "with_names_of_class",
    "without_burdens",
]

_LATE = sys.version_info >= (3, 14)


def is_annotation(code: types.CodeType) -> bool:
    """Tell whether it evaluates annotations, or the bound of a type parameter and the like (PEP 649, PEP 695)."""
    return code.co_name == "__annotate__" or code.co_varnames[:1] == (".format",)


def annotations_of(func: types.FunctionType) -> dict[str, Any]:
    """Give the annotations of a function: what evaluates them, and what it gave if it was called already."""
    annotate = getattr(func, "__annotate__", None) if _LATE else None
    if annotate is None:
        return {"__annotations__": func.__annotations__} if func.__annotations__ else {}
    evaluated = _evaluated(func)
    return {"__annotate__": annotate} if evaluated is None else {"__annotate__": annotate, "evaluated": evaluated}


def _evaluated(func: types.FunctionType) -> dict[str, Any] | None:
    """Give the annotations of a function if they are evaluated; to ask the function itself would evaluate them."""
    others = (func.__globals__, func.__dict__, func.__kwdefaults__, getattr(func, "__builtins__", None))
    for each in gc.get_referents(func):
        if type(each) is dict and not any(each is other for other in others):
            return each
    return None


def set_evaluated(func: types.FunctionType, evaluated: dict[str, Any]) -> None:
    """Let the annotations of a function that has its `__annotate__` be what they were evaluated to before."""
    try:
        known = func.__annotations__
    except Exception:
        func.__annotations__ = evaluated  # A name of theirs is not there any more.
    else:
        known.clear()
        known.update(evaluated)


def with_names_of_class(
    code: types.CodeType, closure: tuple[types.CellType, ...] | None, travels: Callable[[Any], bool]
) -> tuple[types.CellType, ...] | None:
    """Give the closure of an annotation in a class, with those names of the class that the annotation uses.

    Otherwise it would hold the dict of the class itself, with all that is in it.
    """
    if "__classdict__" not in code.co_freevars or closure is None:
        return closure
    cells = list(closure)
    index = code.co_freevars.index("__classdict__")
    names = {**global_names(code)[0], **dict.fromkeys(code.co_freevars)}
    of_class = cells[index].cell_contents
    used = {name: of_class[name] for name in names if name in of_class}
    cells[index] = types.CellType(without_burdens(used, travels))
    return tuple(cells)


def without_burdens(values: dict[str, Any], travels: Callable[[Any], bool]) -> dict[str, Any]:
    """Leave out of the values of names what cannot travel."""
    return {name: value for name, value in values.items() if _is_common(value) or travels(value)}


def _is_common(value: Any) -> bool:
    """Tell whether it is what annotations are made of."""
    return isinstance(value, (type, types.FunctionType, types.ModuleType)) or type(value).__module__ == "typing"


# --- names that are not there yet --------------------------------------------------------------------------------


def reduce_forward_ref(
    ref: Any, namespaces: dict[int, dict[str, Any]], travels: Callable[[Any], bool]
) -> tuple[Any, ...]:
    """Reduce an `annotationlib.ForwardRef`, which holds all variables of its module. Arguments: as `reduce_function`.

    In the fields of a dataclass there is one for each type that could not be evaluated when the class was made.
    """
    names = re.findall(r"[^\W\d]\w*", ref.__forward_arg__)
    slots: dict[str, Any] = ref.__reduce_ex__(2)[2][1]
    variables = slots.get("__globals__")
    captured: dict[str, Any] = {}
    if variables is not None:
        captured = without_burdens({name: variables[name] for name in names if name in variables}, travels)
        slots["__globals__"] = namespaces.setdefault(id(variables), {})
    if isinstance(slots.get("__cell__"), dict):
        slots["__cell__"] = {name: cell for name, cell in slots["__cell__"].items() if name in names}
    if slots.get("__extra_names__"):
        slots["__extra_names__"] = without_burdens(slots["__extra_names__"], travels)
    # These are made anew when they are asked for.
    slots.update(dict.fromkeys(("__code__", "__ast_node__", "__resolved_str_cache__"), None))
    return type(ref), (ref.__forward_arg__,), (slots, captured), None, None, _set_forward_ref


def _set_forward_ref(ref: Any, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    slots, captured = state
    for name, value in slots.items():
        setattr(ref, name, value)
    if captured:
        ref.__globals__.update(captured)

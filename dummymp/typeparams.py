# SPDX-License-Identifier: MIT
"""Type parameters and type aliases by value. The type checker's business mostly, but functions and classes hold them.

Those of the syntax of Python 3.12 (PEP 695) are evaluated late, and may name what is not there. So they are made in a
worker as Python makes them, by such a statement, with the code in it that the original has.
"""

from __future__ import annotations

import gc
import sys
import types
import typing
from typing import TYPE_CHECKING, Any

from .identity import once_around

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["reduce_alias", "reduce_parameter"]

# What stands before the name of a type parameter, by its kind.
_STARS = {"TypeVar": "", "TypeVarTuple": "*", "ParamSpec": "**"}
# What of a parameter may be evaluated late, in the order of the statement.
_LATE = ("bound", "constraints", "default")
_HOLDER = "_dummymp_holder"

# A type parameter in parts: its kind, its name, and the functions that evaluate what is late, by what they evaluate, in
# the order of `_LATE`.
_Parts = tuple[str, str, dict[str, types.FunctionType]]


def reduce_parameter(value: Any, *, here: bool) -> Any:
    """Reduce a TypeVar, ParamSpec or TypeVarTuple, as `object.__reduce__` does. `here`: as for `once_around`."""
    parts = _parts(value)
    return once_around(value, _make_parameter, (parts, value.__module__, _settings(value, parts[2])), here=here)


def reduce_alias(value: Any, *, here: bool) -> Any:
    """Reduce what a `type` statement makes, as `object.__reduce__` does. `here`: as for `once_around`."""
    # Python 3.12 and 3.13 do not tell what evaluates it.
    evaluator = getattr(value, "evaluate_value", None) or next(_functions(gc.get_referents(value)), None)
    if isinstance(evaluator, types.FunctionType):
        args = value.__name__, [_parts(each) for each in value.__type_params__], evaluator
        return once_around(value, _make_alias, args, here=here)
    args = value.__name__, value.__value__, value.__type_params__
    return once_around(value, _make_early_alias, args, here=here)


def _functions(values: Iterable[Any]) -> Iterator[types.FunctionType]:
    return (value for value in values if isinstance(value, types.FunctionType))


def _parts(value: Any) -> _Parts:
    if sys.version_info >= (3, 14):
        found = {what: getattr(value, f"evaluate_{what}", None) for what in _LATE}
        late = {what: evaluator for what, evaluator in found.items() if isinstance(evaluator, types.FunctionType)}
    else:
        late = _hidden_evaluators(value)
    return type(value).__name__, value.__name__, late


def _hidden_evaluators(value: Any) -> dict[str, types.FunctionType]:
    """Find, in Python 3.12 and 3.13, the functions that evaluate what is late: it holds them, without a name."""
    found = list(_functions(gc.get_referents(value)))
    has_default = bool(found) and getattr(value, "has_default", bool)()  # Since Python 3.13; it comes last.
    names = ["constraints" if _has_constraints(value) else "bound"] if len(found) > has_default else []
    return dict(zip([*names, *(["default"] if has_default else [])], found))


def _has_constraints(value: Any) -> bool:
    try:
        return bool(value.__constraints__)
    except Exception:
        return True  # It has, and they name what is not there.


def _settings(value: Any, late: dict[str, Any]) -> dict[str, Any]:
    """Give what of a type parameter is known without evaluating what is late."""
    flags = ("covariant", "contravariant", "infer_variance")
    settings: dict[str, Any] = {flag: True for flag in flags if getattr(value, f"__{flag}__", False)}
    for what, nothing in (("bound", None), ("constraints", ())):
        known = getattr(value, f"__{what}__", nothing) if not late else nothing
        if known != nothing:
            settings[what] = known
    if "default" not in late and getattr(value, "has_default", bool)():
        settings["default"] = value.__default__
    return settings


def _make_parameter(parts: _Parts, module: str, settings: dict[str, Any]) -> Any:
    kind, name, late = parts
    if late:
        statement = f"def {_HOLDER}[{_declaration(parts)}](): pass"
        (made,) = _execute(statement, _HOLDER, late.values(), {name}).__type_params__
    else:
        made = getattr(typing, kind)(name, *settings.pop("constraints", ()), **settings)
    made.__module__ = module
    return made


def _make_alias(name: str, parameters: list[_Parts], evaluator: types.FunctionType) -> Any:
    declared = ", ".join(map(_declaration, parameters))
    statement = f"type {name}{f'[{declared}]' if declared else ''} = {_hole(evaluator)}"
    evaluators = [each for _, _, late in parameters for each in late.values()]
    return _execute(statement, name, [*evaluators, evaluator], {own for _, own, _ in parameters})


def _make_early_alias(name: str, value: Any, parameters: Any) -> Any:
    home: Any = typing  # Which has it since Python 3.12.
    return home.TypeAliasType(name, value, type_params=parameters)


def _declaration(parts: _Parts) -> str:
    kind, name, late = parts
    text = _STARS[kind] + name
    if "bound" in late:
        text += f": {_hole(late['bound'])}"
    if "constraints" in late:
        text += f": ({_hole(late['constraints'])}, 0)"
    if "default" in late:
        text += f" = {_hole(late['default'])}"
    return text


def _hole(evaluator: types.FunctionType) -> str:
    """Write an expression with the closure of that which `evaluator` evaluates, whose code then takes its place."""
    return f"[{', '.join(evaluator.__code__.co_freevars)}]"


def _execute(statement: str, name: str, evaluators: Iterable[types.FunctionType], own: set[str]) -> Any:
    """Execute a statement that binds `name`, with the code of the evaluators in its holes; give what it binds.

    `own`: the type parameters of the statement, which are its own, and not from outside.
    """
    evaluators = list(evaluators)
    cells = {
        free: cell
        for evaluator in evaluators
        for free, cell in zip(evaluator.__code__.co_freevars, evaluator.__closure__ or ())
        if free not in own
    }
    source = f"def outer({', '.join(cells)}):\n def inner():\n  {statement}\n  return {name}\n return inner"
    code = compile(source, evaluators[-1].__code__.co_filename, "exec")
    for wanted in ("outer", "inner"):
        code = next(each for each in code.co_consts if isinstance(each, types.CodeType) and each.co_name == wanted)
    code = _fill(code, iter([evaluator.__code__ for evaluator in evaluators]))
    closure = tuple(cells[free] for free in code.co_freevars)
    return types.FunctionType(code, evaluators[-1].__globals__, name, None, closure)()


def _fill(code: types.CodeType, fillings: Iterator[types.CodeType]) -> types.CodeType:
    constants: list[Any] = list(code.co_consts)
    for index, constant in enumerate(constants):
        if not isinstance(constant, types.CodeType) or constant.co_name == _HOLDER:
            continue
        if constant.co_name.startswith("<generic parameters"):
            constants[index] = _fill(constant, fillings)
        else:
            constants[index] = filling = next(fillings)
            if filling.co_freevars != constant.co_freevars:
                raise TypeError(f"{filling.co_name} was made by another version of Python")
    return code.replace(co_consts=tuple(constants))

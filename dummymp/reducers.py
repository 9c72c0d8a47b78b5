# SPDX-License-Identifier: MIT
"""How those things travel that neither pickle nor cloudpickle can send, or not whole."""

from __future__ import annotations

import collections
import enum
import functools
import sys
import typing
import weakref
from typing import TYPE_CHECKING, Any, Callable

from .modules import module_travels_by_name

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["cached_anew", "make_table", "with_members", "with_slots"]


def make_table(table: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Give a dispatch table for a pickler: what is here first, then `table`."""
    return collections.ChainMap(dict(_REDUCERS), table)  # type: ignore[arg-type]


def with_slots(cls: type, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give a class its `__slots__` when it is made, as cloudpickle does not: its objects would not fit into ours."""
    constructor, name, bases, namespace, *others = args
    slots = cls.__dict__["__slots__"]
    slots = slots if isinstance(slots, str) else tuple(slots)
    return constructor, name, bases, {**namespace, "__slots__": slots}, *others


# What every enum member has, set where the enum is made.
_OF_MEMBERS = frozenset({"_name_", "_sort_order_", "__objclass__"})
# How to get at the plain value inside a member of such an enum, whatever methods of its own it has.
_PLAIN: dict[type, Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    bytes: lambda member: memoryview(member).tobytes(),
}


def with_members(cls: Any, reduced: Any) -> Any:
    """Give an enum its other names for a member, and what `__new__` or `__init__` set in each; cloudpickle does not."""
    bases, name, qualname, _, *others = reduced[1]
    members = cls.__members__
    plain = _PLAIN.get(cls._member_type_, _value_of)
    values = {key: plain(member) for key, member in members.items()}
    attributes, slots = reduced[2]
    attributes = {key: value for key, value in attributes.items() if key not in members}
    own = {
        key: {attribute: value for attribute, value in member.__dict__.items() if attribute not in _OF_MEMBERS}
        for key, member in members.items()
    }
    return reduced[0], (bases, name, qualname, values, *others), (attributes, slots, own), None, None, _set_enum


def _value_of(member: Any) -> Any:
    kind = type(member)._member_type_
    if kind.__module__ in ("datetime", "decimal", "fractions"):
        return kind.__reduce__(member)[1]  # Their constructors do not take what they have made.
    value = member._value_
    # A function is a method, unless it is said that it is a member (since Python 3.11).
    return enum.member(value) if hasattr(type(value), "__get__") and hasattr(enum, "member") else value


def _set_enum(cls: Any, state: tuple[Any, Any, dict[str, dict[str, Any]]]) -> None:
    """Give an enum, in a worker, what stands in it and in its members."""
    import cloudpickle

    attributes, slots, own = state
    cloudpickle.cloudpickle._class_setstate(cls, (attributes, slots))
    for name, member in cls.__members__.items():
        member.__dict__.update(own[name])
        try:
            cls._value2member_map_[member._value_] = member
        except TypeError:
            pass  # Its value is a list, or the like: such members are found by comparing.


def cached_anew(func: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """Make a function with @functools.cache, which cloudpickle does not know, in a worker; its cache is empty."""
    return functools.lru_cache(**parameters)(func)


def _reduce_cached_property(value: Any) -> tuple[Any, ...]:
    # Up to Python 3.11 it has a lock, and gets a new one here.
    return functools.cached_property, (value.func,), (None, {"attrname": value.attrname, "__doc__": value.__doc__})


def _reduce_weak(value: Any) -> tuple[Any, ...]:
    # There it is empty as soon as nothing else in the call holds what is in it.
    return type(value), (), None, None, iter(list(value.items()))


def _reduce_of_sys(value: Any) -> tuple[Any, ...]:
    # `from sys import version_info`: nobody can make another one. The worker has its own.
    return getattr, (sys, type(value).__name__)


def _reduce_new_type(value: Any) -> Any:
    return _by_name(value) or (typing.NewType, (value.__name__, value.__supertype__))


def _reduce_parameter(value: Any) -> Any:
    return _by_name(value) or (type(value), (value.__name__,))


def _reduce_alias(value: Any) -> Any:
    return _by_name(value) or (_make_alias, (value.__name__, value.__value__, value.__type_params__))


def _make_alias(name: str, value: Any, parameters: Any) -> Any:
    home: Any = typing  # Which has it since Python 3.12.
    return home.TypeAliasType(name, value, type_params=parameters)


def _by_name(value: Any) -> str:
    """Give the name of what a worker can import, for which that is enough; "" for what it cannot."""
    name: str = value.__name__
    module = getattr(value, "__module__", None) or "__main__"
    found = getattr(sys.modules.get(module), name, None)
    return name if found is value and module_travels_by_name(module) else ""


# What `typing` makes knows only its name. The type checker's business mostly, but it stands in annotations.
_OF_TYPING: dict[str, Callable[[Any], Any]] = {
    "NewType": _reduce_new_type,
    "ParamSpec": _reduce_parameter,
    "TypeVarTuple": _reduce_parameter,
    "TypeAliasType": _reduce_alias,
}
_REDUCERS: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    functools.cached_property: _reduce_cached_property,
    weakref.WeakKeyDictionary: _reduce_weak,  # In every functools.singledispatch there is one.
    weakref.WeakValueDictionary: _reduce_weak,
    **{type(getattr(sys, name)): _reduce_of_sys for name in ("version_info", "flags", "float_info", "int_info")},
    **{
        getattr(typing, name): reduce
        for name, reduce in _OF_TYPING.items()
        if isinstance(getattr(typing, name, None), type)  # In Python 3.9 some are not there, or functions.
    },
}

# SPDX-License-Identifier: MIT
"""How those things travel that neither pickle nor cloudpickle can send, or not whole."""

from __future__ import annotations

import collections
import functools
import sys
import weakref
from typing import TYPE_CHECKING, Any, Callable

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
    return member._value_


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


_REDUCERS: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    functools.cached_property: _reduce_cached_property,
    weakref.WeakKeyDictionary: _reduce_weak,  # In every functools.singledispatch there is one.
    weakref.WeakValueDictionary: _reduce_weak,
    **{type(getattr(sys, name)): _reduce_of_sys for name in ("version_info", "flags", "float_info", "int_info")},
}

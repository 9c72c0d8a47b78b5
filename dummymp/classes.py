# SPDX-License-Identifier: MIT
"""Classes by value: those that a worker cannot import.

A class is made empty, so that what is in it may refer to it, and filled then with all that the original has.
"""

from __future__ import annotations

import abc
import enum
import types
from typing import Any, Callable

from . import nesting
from .identity import came, once_around
from .structs import is_struct, make_struct, struct_parts

__all__ = ["reduce_class"]

_MISSING = object()
# What belongs to one class alone: the places of its slots.
_PLACES = (types.MemberDescriptorType, types.GetSetDescriptorType)
# What a class gets when it is made.
_GIVEN = frozenset({"__module__", "__slots__", "__dict__", "__weakref__", "_abc_impl"})
# What `enum` makes of the members.
_OF_ENUM = frozenset(
    {"_generate_next_value_", "_member_map_", "_member_names_", "_member_type_", "_value2member_map_"}
)


def reduce_class(cls: type, *, here: bool) -> Any:
    """Reduce a class to its parts, as `object.__reduce__` does. `here`: it will be loaded in this very process."""
    if came(cls) and nesting.in_worker():
        return once_around(cls, _make_class, (), here=here)  # It goes back to where it came from.
    if issubclass(cls, enum.Enum):
        make, args, attributes = _enum_parts(cls)
    elif is_struct(cls):
        make, (args, attributes) = make_struct, struct_parts(cls, _attributes(cls))
    else:
        make, args, attributes = _make_class, _class_parts(cls), _attributes(cls)
    state = attributes, _registered(cls), _members_own(cls) if make is _make_enum else {}
    return once_around(cls, make, args, state, None, None, _set_class, here=here)


def _class_parts(cls: type) -> tuple[Any, ...]:
    namespace: dict[str, Any] = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    if "__slots__" in cls.__dict__ and not issubclass(cls, tuple):
        slots: Any = cls.__dict__["__slots__"]
        namespace["__slots__"] = slots if isinstance(slots, str) else tuple(slots)
    # With the bases as they were written, `Generic[T]`, so that they do again what they do for a new class.
    return type(cls), cls.__name__, cls.__dict__.get("__orig_bases__", cls.__bases__), namespace


def _make_class(kind: type, name: str, bases: tuple[Any, ...], namespace: dict[str, Any]) -> type:
    return types.new_class(name, bases, {"metaclass": kind}, lambda new: new.update(namespace))


def _attributes(cls: type) -> dict[str, Any]:
    """Give what stands in a class itself, without what it gets when it is made."""
    inherited: dict[str, Any] = {}
    for base in reversed(cls.__bases__):
        inherited.update(base.__dict__)
    return {
        name: value
        for name, value in list(cls.__dict__.items())
        if name not in _GIVEN
        and not (isinstance(value, _PLACES) and value.__objclass__ is cls)
        # One that only says yes or no may be set otherwise when the class is made: pydantic's, whether it is complete.
        and (inherited.get(name, _MISSING) is not value or type(value) is bool)
    }


def _registered(cls: type) -> list[type]:
    """Give the classes that were registered with an abstract base class."""
    if not isinstance(cls, abc.ABCMeta):
        return []
    (references, *_) = abc._get_dump(cls)  # type: ignore[attr-defined]
    return [known for known in (reference() for reference in references) if known is not None]


def _set_class(cls: Any, state: tuple[dict[str, Any], list[type], dict[str, dict[str, Any]]]) -> None:
    """Fill a class that came by value; one that is the original has all of it."""
    if not came(cls):
        return
    attributes, registered, own = state
    for name, value in attributes.items():
        type.__setattr__(cls, name, value)  # Whatever its metaclass makes of attributes that are set.
    for known in registered:
        cls.register(known)
    for name, values in own.items():
        _set_member(cls, cls.__members__[name], values)


# --- enumerations ------------------------------------------------------------------------------------------------

# What every enum member has, set where the enum is made.
_OF_MEMBERS = frozenset({"_name_", "_sort_order_", "__objclass__"})
# How to get at the plain value inside a member of such an enum, whatever methods of its own it has.
_PLAIN: dict[type, Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    bytes: lambda member: memoryview(member).tobytes(),
}


def _enum_parts(cls: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Give what makes an enum: its members with all their names, and their plain values."""
    members = cls.__members__
    plain = _PLAIN.get(cls._member_type_, _value_of)
    values = {name: plain(member) for name, member in members.items()}
    attributes = {n: value for n, value in _attributes(cls).items() if n not in members and n not in _OF_ENUM}
    return _make_enum, (type(cls), cls.__name__, cls.__qualname__, cls.__module__, cls.__bases__, values), attributes


def _make_enum(
    kind: Any, name: str, qualname: str, module: str, bases: tuple[type, ...], values: dict[str, Any]
) -> type:
    namespace = kind.__prepare__(name, bases)
    for key, value in values.items():
        namespace[key] = value
    # Without what a metaclass of the user's would do with it, and without what the members do when they are made.
    cls: type = kind.__new__(kind, name, bases, namespace)
    cls.__module__, cls.__qualname__ = module, qualname
    return cls


def _members_own(cls: Any) -> dict[str, dict[str, Any]]:
    """Give what ``__new__`` or ``__init__`` of an enum set in each member."""
    return {
        name: {attribute: value for attribute, value in member.__dict__.items() if attribute not in _OF_MEMBERS}
        for name, member in cls.__members__.items()
    }


def _value_of(member: Any) -> Any:
    kind = type(member)._member_type_
    if kind.__module__ in ("datetime", "decimal", "fractions"):
        return kind.__reduce__(member)[1]  # Their constructors do not take what they have made.
    value = member._value_
    # A function is a method, unless it is said that it is a member (since Python 3.11).
    return enum.member(value) if hasattr(type(value), "__get__") and hasattr(enum, "member") else value


def _set_member(cls: Any, member: Any, values: dict[str, Any]) -> None:
    member.__dict__.update(values)
    try:
        cls._value2member_map_[member._value_] = member
    except TypeError:
        pass  # Its value is a list, or the like: such members are found by comparing.

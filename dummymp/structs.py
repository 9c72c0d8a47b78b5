# SPDX-License-Identifier: MIT
"""Classes of msgspec by value: they are made of their fields, and cannot be filled with them afterwards."""

from __future__ import annotations

import sys
import typing
from typing import Any

__all__ = ["is_struct", "make_struct", "struct_parts"]

# What such a class gets when it is made.
_GIVEN = frozenset({"__init__", "__match_args__", "__annotations__", "__annotate_func__", "__annotations_cache__"})


def is_struct(cls: type) -> bool:
    """Tell whether a class is a `msgspec.Struct`."""
    structs = getattr(sys.modules.get("msgspec"), "Struct", None)
    return structs is not None and issubclass(cls, structs)


def struct_parts(cls: Any, attributes: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give what `make_struct` takes, and what is left of the attributes of a class to be set afterwards."""
    import msgspec  # type: ignore[import-not-found, unused-ignore]

    annotations = dict(cls.__annotations__)
    own = (field for field in msgspec.structs.fields(cls) if field.name in annotations)
    fields = [_field(field, annotations[field.name], cls) for field in own]
    config = cls.__struct_config__
    settings = {name: getattr(config, name) for name in dir(config) if not name.startswith("_")}
    settings["kw_only"] = not annotations.keys() <= set(cls.__match_args__)
    left = {n: value for n, value in attributes.items() if n not in _GIVEN and not n.startswith("__struct_")}
    return (cls.__name__, cls.__qualname__, cls.__module__, cls.__bases__, fields, settings), left


def _field(field: Any, annotation: Any, cls: Any) -> tuple[Any, ...]:
    import msgspec

    # What a text means is known here; but the class itself is not there yet when it is made.
    kind = annotation if _names(field.type, cls) else field.type
    options = {"name": field.encode_name} if field.encode_name != field.name else {}
    for option in ("default", "default_factory"):
        if getattr(field, option) is not msgspec.NODEFAULT:
            options[option] = getattr(field, option)
    return field.name, kind, options


def _names(kind: Any, cls: Any) -> bool:
    return kind is cls or any(_names(part, cls) for part in typing.get_args(kind))


def make_struct(
    name: str, qualname: str, module: str, bases: tuple[type, ...], fields: list[Any], settings: dict[str, Any]
) -> Any:
    """Make the class."""
    import msgspec

    made = [(field, kind, msgspec.field(**options)) if options else (field, kind) for field, kind, options in fields]
    cls = msgspec.defstruct(name, made, bases=bases, module=module, **settings)
    cls.__qualname__ = qualname
    return cls

# SPDX-License-Identifier: MIT
"""Copies: a task that only changes what it was given, a list or a global variable, changes a copy that nobody sees.

That is the most common wrong first script, and silent. So a worker compares, the first time that it runs a function.
"""

from __future__ import annotations

import dis
import functools
import io
import mmap
import pickle
from typing import TYPE_CHECKING, Any, Callable

from .codes import global_names
from .explain import function_name
from .functions import function_behind
from .pickling import ATOMS

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Copies"]

# Larger ones are not compared, by the number of entries, and by all that is in them, in bytes.
MOST_ENTRIES = 1000
MOST_BYTES = 1 << 20
# The containers that a script fills, by the modules and names of their types.
_CONTAINERS = {
    "builtins": ("list", "dict", "set", "bytearray"),
    "collections": ("deque", "defaultdict", "Counter", "OrderedDict"),
    "numpy": ("ndarray",),
}
_MISSING = object()


class Copies:
    """What a call may change that is a copy here, as it is before the call."""

    def __init__(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._func = func
        try:
            self._before = [(where, find, *_state(find())) for where, find in _places(func, args, kwargs)]
        except Exception:
            self._before = []  # A list that holds itself, or what answers oddly: it is the task's affair.

    def changed(self) -> str | None:
        """Say what the call has changed, after it returned None; None if that is nothing."""
        for where, find, state, old in self._before:
            if _differs(state, old, find()):
                return (
                    f"note: {function_name(self._func)}() changed {where}, but a task runs in another process, and "
                    "works on a copy: yours stays as it was. Let the function return what it found out; "
                    "dummymp.get_returns() and dummymp.results() have it"
                )
        return None


def _places(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Give what a function may change that its caller knows: in words, and what finds it."""
    inner = function_behind(func)
    if inner is None:
        return
    code, variables = inner.__code__, inner.__globals__
    names, writes = global_names(code)
    stored = {step.argval for step in dis.get_instructions(code) if step.opname == "STORE_GLOBAL"} if writes else set()
    for name in names:
        value = variables.get(name)
        if _is_container(value) or (name in stored and type(value) in ATOMS and value is not None):
            yield f"the global variable {name!r}", functools.partial(variables.get, name, _MISSING)
    if inner is func:
        for name, value in [*zip(code.co_varnames, args), *kwargs.items()]:
            if _is_container(value):
                yield f"its argument {name!r}", lambda value=value: value  # type: ignore[misc]


def _is_container(value: Any) -> bool:
    kind = type(value)
    if kind.__name__ not in _CONTAINERS.get(kind.__module__, ()):
        return False
    if kind.__module__ != "numpy":
        return len(value) <= MOST_ENTRIES and _is_plain(value)
    base = value
    while type(base).__module__ == "numpy":
        base = base.base
    return value.nbytes <= MOST_BYTES and not isinstance(base, mmap.mmap)  # Of a file, perhaps: that is no copy.


def _is_plain(value: Any) -> bool:
    """Tell whether what is in a container is small, or a container itself: who knows how large all else is."""
    entries = [*value.values(), *value] if isinstance(value, dict) else value
    return all(type(entry) in ATOMS or type(entry) is tuple or _is_container(entry) for entry in entries)


def _state(value: Any) -> tuple[bytes, Any]:
    """Give a value in bytes, and what is to be compared with it: the value itself if it can be, as pickle has it."""
    try:
        data = _dumps(value)
        return data, pickle.loads(data)
    except Exception:
        return b"", None  # It is too large, or something in it does not travel so easily: who knows.


def _dumps(value: Any) -> bytes:
    with _Small() as file:
        pickle.Pickler(file, 5).dump(value)
        return file.getvalue()


class _Small(io.BytesIO):
    """Takes only so much."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > MOST_BYTES:
            raise ValueError
        return super().write(data)


def _differs(state: bytes, old: Any, value: Any) -> bool:
    """Tell whether a value has certainly changed: in bytes, and not equal either, where that can be said."""
    try:
        if not state or _dumps(value) == state:
            return False
        return type(old).__module__ == "numpy" or bool(old != value)
    except Exception:
        return False

# SPDX-License-Identifier: MIT
"""The context of a call: what `contextvars` hold when it is queued, and the settings of `decimal`, hold in its task."""

from __future__ import annotations

import contextvars
import sys
from typing import Any, Callable

from .contextvariables import is_kept
from .coroutines import COROUTINE, run_coroutine
from .pickling import ATOMS, dumps, loads

__all__ = ["Held", "call_here", "call_with_values", "load_values"]

# How decimal computes where nobody has said otherwise: as `_of_decimal` tells it.
_USUAL = 28, "ROUND_HALF_EVEN", -999999, 999999, 1, 0, {"InvalidOperation", "DivisionByZero", "Overflow"}


class Held:
    """What the context of this moment holds, of what tasks can see.

    Attributes:
        values: Pairs of a context variable and its value; for decimal's context, of None and its settings.
        data: The same in bytes, for `load_values`. What cannot travel is left out.
    """

    __slots__ = ("_plain", "data", "values")

    def __init__(self) -> None:
        self.values = _values()
        self.data = _serialised(self.values) if self.values else ()
        self._plain = all(variable is None or type(value) in ATOMS for variable, value in self.values)

    def hold(self) -> bool:
        """Tell whether it is what it was. Each `run` asks."""
        values = _values()
        if len(values) != len(self.values):
            return False
        for (variable, value), (before, held) in zip(values, self.values):
            if variable is not before or (value != held if variable is None else value is not held):
                return False
        return self._plain or _serialised(values) == self.data  # What is in a list, or an object, may have changed.


def _values() -> list[tuple[contextvars.ContextVar[Any] | None, Any]]:
    context = contextvars.copy_context()
    if not context:
        return []
    values: list[tuple[contextvars.ContextVar[Any] | None, Any]] = []
    for variable, value in context.items():
        if type(value).__module__ == "decimal" and type(value).__name__ == "Context":
            settings = _of_decimal(value)
            if settings != _USUAL:
                values.append((None, settings))
        elif is_kept(variable):
            values.append((variable, value))
    return values


def _of_decimal(context: Any) -> tuple[Any, ...]:
    """Give what decimal's context was told, not what has happened in it (its flags)."""
    *settings, _, traps = context.__reduce__()[1]
    return *settings, {trap.__name__ for trap in traps}


def _serialised(values: list[tuple[Any, Any]]) -> tuple[bytes, ...]:
    found = []
    for pair in values:
        try:
            found.append(dumps(pair))
        except Exception:
            continue  # The task of a web server need not be able to see the request.
    return tuple(found)


def load_values(data: tuple[bytes, ...]) -> list[tuple[Any, Any]]:
    """Give the values that a `Held` has in `data`."""
    values = []
    for pair in data:
        try:
            values.append(loads(pair))
        except Exception:
            continue  # Of a class that cannot be imported here.
    return values


def call_with_values(values: list[tuple[Any, Any]], func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a function in a context that holds these values; what the call sets is gone with it."""
    return contextvars.copy_context().run(_set_and_call, values, func, args, kwargs)


def call_here(data: tuple[bytes, ...], func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """The same in the process of the script, with what a `Held` has in `data`."""
    values = load_values(data)
    if "decimal" in sys.modules and all(variable is not None for variable, _ in values):
        values.append((None, _USUAL))  # What the script has there is not to be changed.
    return call_with_values(values, func, *args, **kwargs)


def _set_and_call(
    values: list[tuple[Any, Any]], func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    for variable, value in values:
        if variable is None:
            _set_decimal(*value)
        else:
            variable.set(value)
    value = func(*args, **kwargs)
    return run_coroutine(value) if type(value) is COROUTINE else value


def _set_decimal(prec: int, rounding: str, low: int, high: int, capitals: int, clamp: int, traps: set[str]) -> None:
    import decimal

    kinds = [getattr(decimal, trap) for trap in traps]
    decimal.setcontext(decimal.Context(prec, rounding, low, high, capitals, clamp, [], kinds))

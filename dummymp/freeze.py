# SPDX-License-Identifier: MIT
"""Freezing: a call becomes bytes when it is queued.

A function is serialised once and known by a number afterwards, as long as nothing that it captures can have changed.
What cannot travel is named: the argument or the variable, its type, and what to do instead.
"""

from __future__ import annotations

import copy
import itertools
import threading
import weakref
from typing import TYPE_CHECKING, Any, Callable

from .captures import Captured, unchanged
from .errors import NotPicklable
from .explain import call_text
from .pace import pace_of
from .pickling import dump_arguments, dumps, load_plain

if TYPE_CHECKING:
    from .pace import Pace

__all__ = ["Frozen", "FunctionBlob", "freeze", "freeze_arguments", "freeze_function"]

# So many functions are remembered with what they captured. More: a script with more functions than that serialises
# them again and again; fewer: less memory that lives on.
REMEMBERED_FUNCTIONS = 128

_numbers = itertools.count(1)
_lock = threading.Lock()


class FunctionBlob:
    """A function in bytes.

    Attributes:
        number: By which workers know it; never used twice in a program.
        data: The pickle.
        reusable: A worker may call the same copy again and again: the function captures nothing that a call could
            change. Otherwise each call gets a fresh copy, as it was when it was queued.
        pace: How long its calls take.
    """

    __slots__ = ("data", "number", "pace", "reusable")

    def __init__(self, data: bytes, reusable: bool, pace: Pace) -> None:
        self.number = next(_numbers)
        self.data = data
        self.reusable = reusable
        self.pace = pace

    def twin(self, pace: Any) -> FunctionBlob:
        """Give the same function, known to workers by the same number, with another pace."""
        twin = copy.copy(self)
        twin.pace = pace
        return twin


class Frozen:
    """A call in bytes: a function blob, and the pickle of ``(args, kwargs)``, b"" where there are none."""

    __slots__ = ("arguments", "function", "surroundings")

    def __init__(self, function: FunctionBlob, arguments: bytes) -> None:
        self.function = function
        self.arguments = arguments
        self.surroundings: Any = None

    def arguments_text(self) -> str:
        """Put the arguments in words, if they are plain: ``'big.csv', depth=3``; otherwise ``...``."""
        if not self.arguments:
            return ""
        try:
            args, kwargs = load_plain(self.arguments)
        except Exception:
            return "..."
        return call_text(args, kwargs)


def freeze(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, number: int, here: bool = False
) -> Frozen:
    """Serialise a call.

    Args:
        func: The function; positional and keyword arguments follow as a tuple and a dict.
        number: The call number, for the message.
        here: It will be thawed in this very process: classes of ``__main__`` stay what they are.

    Raises:
        NotPicklable: Something cannot travel; the message names it.
    """
    try:
        function = _freeze_function(func, here)
        if not args and not kwargs:
            return Frozen(function, b"")
        return Frozen(function, dump_arguments(args, kwargs, here))
    except Exception as error:
        from .explain import explain_call

        raise explain_call(func, args, kwargs, number, error, lambda value: dumps(value, here=here)) from None


def freeze_function(func: Callable[..., Any], *, here: bool = False) -> FunctionBlob:
    """Serialise a function alone, for many calls. Arguments and exception: as `freeze`."""
    try:
        return _freeze_function(func, here)
    except Exception as error:
        from .explain import explain_call

        why = explain_call(func, (), {}, 0, error, lambda value: dumps(value, here=here))
        raise NotPicklable(str(why).replace("cannot send task 0, ", "cannot send ", 1)) from None


def freeze_arguments(
    func: Callable[..., Any],
    function: FunctionBlob,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    number: int,
    here: bool = False,
) -> Frozen:
    """Serialise a call of a function that was serialised before. Arguments and exception: as `freeze`."""
    try:
        return Frozen(function, dump_arguments(args, kwargs, here))
    except Exception as error:
        from .explain import explain_call

        raise explain_call(func, args, kwargs, number, error, lambda value: dumps(value, here=here)) from None


_remembered: dict[int, tuple[weakref.ref[Any], tuple[Any, ...], FunctionBlob]] = {}


def _freeze_function(func: Callable[..., Any], here: bool) -> FunctionBlob:
    if here:
        return FunctionBlob(dumps(func, here=True), False, pace_of(func))
    known = _remembered.get(id(func))
    if known is not None and known[0]() is not func:
        known = None
    if known is not None and unchanged(known[1]):
        return known[2]
    captured = Captured()
    stable = captured.add(func)
    data = dumps(func)
    same = known is not None and known[2].data == data
    blob = known[2] if known is not None and same else FunctionBlob(data, stable and not captured.writes, pace_of(func))
    _remember(func, captured.snapshot() if stable else (), blob)
    return blob


def _remember(func: Callable[..., Any], snapshot: tuple[Any, ...], blob: FunctionBlob) -> None:
    key, remembered = id(func), _remembered

    def forget(reference: weakref.ref[Any]) -> None:
        # At the end of the program the names of this module may be gone already; `remembered` is not.
        known = remembered.get(key)
        if known is not None and known[0] is reference:
            del remembered[key]

    try:
        reference = weakref.ref(func, forget)
    except TypeError:
        return
    with _lock:
        if len(_remembered) >= REMEMBERED_FUNCTIONS:
            _remembered.pop(next(iter(_remembered)), None)
        _remembered[key] = (reference, snapshot, blob)

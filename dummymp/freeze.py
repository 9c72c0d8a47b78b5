# SPDX-License-Identifier: MIT
"""Freezing: a call becomes bytes when it is queued.

A function is serialised once and known by a number afterwards, as long as nothing that it captures can have changed.
What cannot travel is named: the argument or the variable, its type, and what to do instead.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import threading
import types
import weakref
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from .buffers import Collector
from .captures import Captured, unchanged
from .errors import NotPicklable
from .explain import HEAVY, call_text
from .log import logger
from .modules import has_scripts, look_for_scripts, scripts_by_name
from .pace import pace_of
from .pickling import dump_arguments, dump_plain_arguments, dumps, load_arguments, load_plain
from .streams import CALLS, MAP, draws_anew

if TYPE_CHECKING:
    import pickle
    from collections.abc import Sequence

    from .memoryfile import Piece
    from .pace import Pace

__all__ = [
    "Frozen",
    "FunctionBlob",
    "Remembered",
    "arguments_text",
    "freeze",
    "freeze_arguments",
    "freeze_function",
    "freeze_objects",
    "freeze_whole",
    "remembered",
]

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
        pieces: The large buffers that belong to it and are not in `data`; they travel with each call.
        reusable: A worker may call the same copy again and again: the function captures nothing that a call could
            change, or is that of a `map`. Otherwise each call gets a fresh copy, as it was when it was queued.
        pace: How long its calls take.
    """

    __slots__ = ("__weakref__", "data", "number", "pace", "pieces", "reusable")

    def __init__(self, data: bytes, reusable: bool, pace: Pace, pieces: Sequence[Piece] = ()) -> None:
        self.number = next(_numbers)
        self.data = data
        self.reusable = reusable
        self.pace = pace
        self.pieces = pieces

    def twin(self, pace: Any) -> FunctionBlob:
        """Give the same function, known to workers by the same number, with another pace."""
        twin = copy.copy(self)
        twin.pace = pace
        return twin


class Frozen(NamedTuple):
    """A call in bytes.

    Attributes:
        function: What is called.
        arguments: As `pickling.load_arguments` takes them.
        pieces: The large buffers of the arguments, in memory files. They live as long as anybody holds them.
    """

    function: FunctionBlob
    arguments: bytes
    pieces: Sequence[Piece] = ()


def arguments_text(arguments: bytes) -> str:
    """Put the arguments of a `Frozen` in words, if they are plain: ``'big.csv', depth=3``; otherwise ``...``."""
    try:
        args, kwargs = load_arguments(arguments, load=load_plain)
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
        return _freeze_arguments(_freeze_function(func, here), args, kwargs, here)
    except Exception as error:
        if has_scripts():
            with contextlib.suppress(Exception), scripts_by_name():
                return _freeze_arguments(_freeze_function(func, here), args, kwargs, here)
        from .explain import explain_call

        raise explain_call(func, args, kwargs, number, error, lambda value: dumps(value, here=here)) from None


def freeze_function(func: Callable[..., Any], *, here: bool = False) -> FunctionBlob:
    """Serialise a function alone, for many calls. Arguments and exception: as `freeze`."""
    try:
        return _freeze_function(func, here, many=True)
    except Exception as error:
        if has_scripts():
            with contextlib.suppress(Exception), scripts_by_name():
                return _freeze_function(func, here)
        raise _cannot_send(func, error) from None


def _cannot_send(func: Callable[..., Any], error: Exception) -> NotPicklable:
    from .explain import explain_call

    why = explain_call(func, (), {}, 0, error, dumps)
    return NotPicklable(str(why).replace("cannot send task 0, ", "cannot send ", 1))


def freeze_whole(func: Callable[..., Any]) -> FunctionBlob:
    """Serialise a function alone, with all that it captures in one piece. Exception: as `freeze`."""
    try:
        return FunctionBlob(dumps(func), True, pace_of(func))
    except Exception as error:
        raise _cannot_send(func, error) from None


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
        return _freeze_arguments(function, args, kwargs, here)
    except Exception as error:
        from .explain import explain_call

        raise explain_call(func, args, kwargs, number, error, lambda value: dumps(value, here=here)) from None


def _freeze_arguments(function: FunctionBlob, args: tuple[Any, ...], kwargs: dict[str, Any], here: bool) -> Frozen:
    plain = dump_plain_arguments(args, kwargs)
    if plain is not None:
        return Frozen(function, plain)
    if here:
        return Frozen(function, dumps((args, kwargs), here=True))
    return Frozen(function, *freeze_objects(args, kwargs))


def freeze_objects(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, Sequence[Piece]]:
    """Serialise arguments that `dump_plain_arguments` leaves alone; give `arguments` and `pieces` of a `Frozen`."""
    collector = Collector(find_again=True)
    return dump_arguments(args, kwargs, collector), collector.pieces


class Remembered:
    """What is remembered of a function that was frozen, as long as it lives.

    Attributes:
        function: Refers to the function.
        snapshot: What it captured, for `captures.unchanged`.
        blob: It in bytes. A heavy one, or one with large buffers, is held by its calls alone, so that their memory is
            free when they have ended: only a reference to it is remembered.
    """

    __slots__ = ("__weakref__", "blob", "function", "snapshot")

    def __init__(
        self, function: weakref.ref[Any], snapshot: tuple[Any, ...], blob: FunctionBlob | weakref.ref[FunctionBlob]
    ) -> None:
        self.function = function
        self.snapshot = snapshot
        self.blob = blob


# By the id of the function.
_remembered: dict[int, Remembered] = {}


def _freeze_function(func: Callable[..., Any], here: bool, many: bool = False) -> FunctionBlob:
    shared = MAP if many else CALLS
    if here:
        return FunctionBlob(dumps(func, here=True, many=shared), False, pace_of(func))
    blob: FunctionBlob | None = None
    known = _remembered.get(id(func))
    if known is not None:
        blob = known.blob() if isinstance(known.blob, weakref.ref) else known.blob
        if known.function() is not func:
            blob = None
        elif blob is not None and unchanged(known.snapshot):
            return blob
    look_for_scripts()
    captured = Captured()
    stable = captured.add(func)
    collector = Collector(find_again=True)
    data = dumps(func, take=collector, many=shared)
    weight = len(data) + sum(map(len, collector.pieces))
    if weight > HEAVY and not many:
        _hint(func, weight)
    if many and not stable and not draws_anew(data):
        # As with multiprocessing.Pool each worker builds it once, with all that it captures: a model, a table.
        return FunctionBlob(data, True, pace_of(func), collector.pieces)
    if blob is None or blob.data != data or blob.pieces != collector.pieces:
        blob = FunctionBlob(data, stable and not captured.writes, pace_of(func), collector.pieces)
    _remember(func, captured.snapshot() if stable else (), blob)
    return blob


def remembered(func: Callable[..., Any]) -> Remembered | None:
    """Give what is remembered of a function that was frozen; None if it has to be looked at each time anew."""
    known = _remembered.get(id(func))
    return known if known is not None and known.function() is func and known.snapshot else None


_hinted: weakref.WeakSet[types.CodeType] = weakref.WeakSet()


def _hint(func: Callable[..., Any], weight: int) -> None:
    """Say, once for each function, that it carries much along, and what."""
    code = getattr(func, "__code__", None)
    if code is None or code in _hinted:
        return
    _hinted.add(code)
    from .explain import explain_weight

    text = explain_weight(func, weight, _weigh)
    if text is not None:
        logger().warning("%s", text)


def _weigh(value: Any) -> int:
    """Give the bytes that a value would travel with."""
    large = 0

    def count(buffer: pickle.PickleBuffer) -> bool:
        nonlocal large
        large += buffer.raw().nbytes
        return False

    return len(dumps(value, take=count)) + large


def _remember(func: Callable[..., Any], snapshot: tuple[Any, ...], blob: FunctionBlob) -> None:
    key, remembered = id(func), _remembered

    def forget(reference: weakref.ref[Any]) -> None:
        # At the end of the program the names of this module may be gone already; `remembered` is not.
        known = remembered.get(key)
        if known is not None and known.function is reference:
            del remembered[key]

    try:
        reference = weakref.ref(func, forget)
    except TypeError:
        return
    heavy = blob.pieces or len(blob.data) > HEAVY
    with _lock:
        if len(_remembered) >= REMEMBERED_FUNCTIONS:
            _remembered.pop(next(iter(_remembered)), None)
        _remembered[key] = Remembered(reference, snapshot, weakref.ref(blob) if heavy else blob)

# SPDX-License-Identifier: MIT
"""Pickling: cloudpickle, and what it lacks.

What is defined in ``__main__`` (or anywhere else that a worker cannot import) travels by value; what can be imported
travels by name. A class that travelled by value to a worker comes back by a token, so that an object of it arrives as
an object of that very class, and the class of the user is never written over by a copy of itself.
"""

from __future__ import annotations

import functools
import io
import itertools
import marshal
import os
import pickle
import struct
import sys
import types
import weakref
from typing import TYPE_CHECKING, Any, Callable

from . import nesting
from .buffers import LARGE
from .interrupts import held
from .modules import send_by_value_if_unknown, travels_by_name
from .namesakes import explained

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    # What a pickler shows a buffer to: True leaves it in the stream.
    Callback = Callable[[pickle.PickleBuffer], bool]

__all__ = [
    "ATOMS",
    "dump_arguments",
    "dump_atom",
    "dump_plain",
    "dump_plain_arguments",
    "dump_small",
    "dumps",
    "hide_in_main",
    "join_arguments",
    "load_arguments",
    "load_atoms",
    "load_plain",
    "loads",
    "show_in_main",
]

# Pickle protocol 5 is the newest that Python 3.9 has.
PROTOCOL = 5

# The types that the C pickler alone can do, and that cannot change.
ATOMS = frozenset({int, str, float, bool, type(None), bytes, complex})
# Those of them that are never large buffers.
_SMALL_ATOMS = ATOMS - {bytes}
_counter = itertools.count()


def dumps(value: Any, *, here: bool = False, take: Callback | None = None) -> bytes:
    """Serialise any value; by value where the other side could not import it.

    Args:
        value: The value.
        here: It will be loaded in this very process.
        take: Is shown each buffer (`pickle.PickleBuffer`), and may take it out of the stream.
    """
    with io.BytesIO() as file:
        _pickler_class()(file, here, take).dump(value)
        return file.getvalue()


def dump_plain(value: Any, take: Callback | None = None) -> bytes:
    """Serialise any value, by the shorter way if it is a number, a string, or a tuple of them. `take`: as `dumps`."""
    if type(value) in _SMALL_ATOMS or _is_plain((value,)):
        return pickle.dumps(value, PROTOCOL)
    return dumps(value if take is None else _with_buffer(value), take=take)


# `marshal` takes half the time of `pickle` on either side, but does not know, or not well, what is no number or string.
# So begins a tuple that it wrote; a pickle begins with 0x80.
_TUPLE = ord("(")
_LIST = struct.Struct("<cI")
_MARSHAL_VERSION = 2


def dump_atom(value: Any) -> bytes:
    """Serialise a number or a string that is not large, by the shortest way; b"" if it is something else."""
    if type(value) in _SMALL_ATOMS and (type(value) is not str or len(value) < LARGE):
        return marshal.dumps(value, _MARSHAL_VERSION)
    return b""


def load_atoms(many: list[Any]) -> list[Any]:
    """Rebuild many values that `dump_atom` has serialised."""
    values: list[Any] = marshal.loads(_LIST.pack(b"[", len(many)) + b"".join(many))
    return values


def dump_small(value: Any) -> bytes:
    """Serialise any value, by the shorter way if nothing in it is known by its name: numbers, text, lists, dicts."""
    if type(value) in _CONTAINERS:
        try:
            data = pickle.dumps(value, PROTOCOL)
        except Exception:
            pass  # The longer way knows more.
        else:
            if _STACK_GLOBAL not in data:
                return data
    return dumps(value)


# Without this byte, the opcode that finds something by its name, a pickle has no functions, classes and other objects
# in it. It may be a part of a number, too; then the longer way comes to the same.
_STACK_GLOBAL = b"\x93"
_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})

loads = pickle.loads


def _is_plain(values: Iterator[Any] | tuple[Any, ...]) -> bool:
    """Tell whether the C pickler alone does it: numbers, strings, and tuples of them, and no large buffers."""
    for value in values:
        kind = type(value)
        if kind not in ATOMS:
            if not (kind is tuple and len(value) < 100 and _is_plain(value)):
                return False
        elif kind is bytes and len(value) >= LARGE:
            return False
    return True


def dump_plain_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes | None:
    """Serialise the arguments of a call by a shorter way, if they are numbers, strings, and tuples of them."""
    if not kwargs and _SMALL_ATOMS.issuperset(map(type, args)):
        try:
            return marshal.dumps(args, _MARSHAL_VERSION)
        except ValueError:
            pass  # A string of more than 2 GB.
    if _is_plain(args) and (not kwargs or _is_plain(tuple(kwargs.values()))):
        return pickle.dumps((args, kwargs), PROTOCOL)
    return None


def join_arguments(calls: Iterable[bytes]) -> bytes:
    """Join the arguments of many calls: the marshal of a list of tuples, or of what `load_arguments` takes."""
    entries = [data if data[0] == _TUPLE else marshal.dumps(data, _MARSHAL_VERSION) for data in calls]
    return _LIST.pack(b"[", len(entries)) + b"".join(entries)


def load_arguments(data: Any, load: Callable[[Any], Any] = pickle.loads) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Rebuild the arguments of a call, positional and by keyword; `load` does it where it is a pickle."""
    if data[0] == _TUPLE:
        return marshal.loads(data), {}
    args, kwargs = load(data)
    return args, kwargs


def dump_arguments(args: tuple[Any, ...], kwargs: dict[str, Any], take: Callback) -> bytes:
    """Serialise the arguments of a call, whatever they are; `take`: as `dumps`."""
    args = tuple(map(_with_buffer, args))
    kwargs = {name: _with_buffer(value) for name, value in kwargs.items()}
    return dumps((args, kwargs), take=take)


class _Bytes:
    """Large bytes, which would not show the pickler a buffer by themselves."""

    def __init__(self, value: bytes | bytearray) -> None:
        self._value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self._value), (pickle.PickleBuffer(self._value),)


def _with_buffer(value: Any) -> Any:
    return _Bytes(value) if type(value) in (bytes, bytearray) and len(value) >= LARGE else value


def _writable_array(buffer: Any, dtype: Any, shape: tuple[int, ...], order: Any) -> Any:
    """Make an array that can be written of the buffer of one that cannot."""
    import numpy

    if isinstance(buffer, bytes):
        buffer = bytearray(buffer)  # It travelled in the stream.
    elif isinstance(buffer, memoryview) and buffer.readonly:
        buffer = buffer.obj  # The view behind it is private, so nobody minds.
    return numpy.ndarray(shape, dtype, buffer, order=order)


def _is_readonly_array(obj: Any) -> bool:
    """Tell whether it is a numpy array in one piece that cannot be written: a copy of it can."""
    if type(obj).__module__ != "numpy":
        return False
    flags = obj.flags
    return not flags.writeable and flags.forc and not obj.dtype.hasobject


def load_plain(data: bytes) -> Any:
    """Load numbers, strings, containers, and what is as plain as they are: paths and dates.

    Raises:
        pickle.UnpicklingError: There is something else in it, which might run code.
    """
    return _PlainUnpickler(io.BytesIO(data)).load()


class _PlainUnpickler(pickle.Unpickler):
    """Loads what is plain, and refuses all that would run code."""

    def find_class(self, module: str, name: str) -> Any:
        if name in _HARMLESS.get(module.partition(".")[0], ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not plain")


# Classes whose objects are as plain as text, by their package. To make one runs no code of the user.
_HARMLESS = {
    "pathlib": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "datetime": ("date", "datetime", "time", "timedelta"),
    "decimal": ("Decimal",),
}


# --- classes that come back as themselves ------------------------------------------------------------------------

# A token is (pid, count): the pid of the process that made it, so that a worker's own tokens differ from its parent's.
# Every class that this process sent by value. It must outlive its results, so it is held for good; a program has only
# so many classes.
_sent: dict[tuple[int, int], type] = {}
_tokens: dict[int, tuple[int, int]] = {}
# In a worker: each class that came by value, and its token.
_came: weakref.WeakKeyDictionary[type, tuple[int, int]] = weakref.WeakKeyDictionary()
_came_by_token: weakref.WeakValueDictionary[tuple[int, int], type] = weakref.WeakValueDictionary()


def _token(cls: type) -> tuple[int, int]:
    token = _tokens.setdefault(id(cls), (os.getpid(), next(_counter)))
    _sent[token] = cls
    return token


def _sent_class(token: tuple[int, int]) -> type:
    """Find the class of a token, in the process that sent it or in a worker that got it."""
    return _sent[token] if token in _sent else _came_by_token[token]


def _take_class(token: tuple[int, int], make: Callable[..., type], args: tuple[Any, ...]) -> type:
    """Make, in a worker, a class that came by value."""
    own = _sent.get(token)
    if own is not None:
        return own  # It never left this process, so others have not got it.
    cls = make(*args)
    _came[cls] = token
    _came_by_token[token] = cls
    show_in_main(cls)
    return cls


def show_in_main(thing: Any) -> None:
    """Put a class or function of the user's main script into ``__main__`` here, too, where plain pickle looks."""
    name = getattr(thing, "__qualname__", None)  # Absent in an object that can be called, and in a partial.
    if getattr(thing, "__module__", None) == "__main__" and isinstance(name, str) and name.isidentifier():
        setattr(sys.modules["__main__"], name, thing)


def hide_in_main(thing: Any) -> None:
    """Take back what `show_in_main` did: it would keep alive what the function captured."""
    name, main = getattr(thing, "__qualname__", ""), sys.modules["__main__"]
    if getattr(main, name, None) is thing:
        delattr(main, name)


# The generators behind `random.random` and `numpy.random.random`: each task uses those of its own process, which are
# seeded for it, not a copy of ours, with which all tasks would draw the same. By the name of their class.
_GENERATORS = {"Random": ("random", "_inst"), "RandomState": ("numpy.random.mtrand", "_rand")}


# The ends of multiprocessing.Pipe().
_ENDS = frozenset({"Connection", "PipeConnection"})


def _is_shared_generator(obj: Any) -> bool:
    module, name = _GENERATORS[type(obj).__name__]
    return getattr(sys.modules.get(module), name, None) is obj


_pickler: Any = None


def _pickler_class() -> Any:
    """Make the pickler class at its first use: cloudpickle is too heavy to be loaded by ``import dummymp``."""
    global _pickler
    if _pickler is not None:
        return _pickler
    with held, explained:  # Ctrl-C in the middle of an import leaves half a module behind, and a long traceback.
        import cloudpickle

        base = cloudpickle.Pickler  # A script with the name of a module that it needs gets half of it.

        from .reducers import cached_anew, make_table, with_members, with_slots

    class Pickler(base):  # type: ignore[misc, valid-type]
        """Sends classes by value as cloudpickle does, but only once around."""

        dispatch_table = make_table(base.dispatch_table)

        def __init__(self, file: io.BytesIO, here: bool, take: Callback | None) -> None:
            super().__init__(file, protocol=PROTOCOL, buffer_callback=take)
            self._here = here

        def reducer_override(self, obj: Any) -> Any:
            if type(obj) is functools._lru_cache_wrapper and not travels_by_name(obj):
                return cached_anew, (obj.__wrapped__, obj.cache_parameters())
            if type(obj) is io.TextIOWrapper and obj is not sys.stdout and obj is not sys.stderr:
                # cloudpickle would send a copy of what is in it, and what a task reads would be read again by others.
                raise pickle.PicklingError("an open file does not travel")
            kind = type(obj).__name__
            if kind in _GENERATORS and _is_shared_generator(obj):
                module, name = _GENERATORS[kind]
                return getattr, (sys.modules[module], name)
            if kind in _ENDS and type(obj).__module__ == "multiprocessing.connection":
                # What would travel is the number of a descriptor, which is another one there.
                raise pickle.PicklingError("an end of a pipe does not travel")
            if kind == "ndarray" and _is_readonly_array(obj):
                order = "C" if obj.flags.c_contiguous else "F"
                try:
                    return _writable_array, (pickle.PickleBuffer(obj), obj.dtype, obj.shape, order)
                except (ValueError, BufferError):
                    pass  # Dates have no buffers; numpy pickles them its own way, and the copy can be written.
            if type(obj) is types.MethodType and nesting.is_hidden(obj.__self__):
                # dummymp.run and its like: each process has a hidden queue of its own.
                return getattr, (sys.modules[__name__.partition(".")[0]], obj.__name__)
            if isinstance(obj, (types.FunctionType, type)):
                send_by_value_if_unknown(getattr(obj, "__module__", None) or "__main__")
            elif isinstance(obj, types.ModuleType):
                send_by_value_if_unknown(obj.__name__)
            reduced = super().reducer_override(obj)
            # Only classes that travel by value come as six parts: (make, args, state, None, None, set_state).
            if reduced is NotImplemented or len(reduced) != 6 or not isinstance(obj, type):
                return reduced
            if type(obj).__module__ == "_ctypes":
                raise pickle.PicklingError("a class of ctypes that a worker cannot import does not travel")
            token = _came.get(obj)
            if token is not None and nesting.in_worker():
                return _sent_class, (token,)  # It goes back to where it came from.
            if token is None:
                token = _token(obj)
            else:
                _sent[token] = obj  # It came from one worker and goes on to another.
            if self._here:
                return _sent_class, (token,)
            if reduced[0] is cloudpickle.cloudpickle._make_skeleton_enum:
                reduced = with_members(obj, reduced)
            elif "__slots__" in obj.__dict__ and not issubclass(obj, tuple):
                reduced = (reduced[0], with_slots(obj, reduced[1]), *reduced[2:])
            return (_take_class, (token, reduced[0], reduced[1]), *reduced[2:])

    _pickler = Pickler
    return Pickler

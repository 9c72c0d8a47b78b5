# SPDX-License-Identifier: MIT
"""Pickling: what can be imported travels by name; what is defined in ``__main__``, or anywhere else that a worker
cannot import, by value. How functions and classes do that is ours (`functions`, `classes`); for smaller things there is
cloudpickle.
"""

from __future__ import annotations

import functools
import io
import marshal
import pickle
import struct
import sys
import types
from typing import TYPE_CHECKING, Any, Callable, ClassVar

from .annotations import reduce_forward_ref
from .arrays import reduce_array
from .buffers import LARGE
from .caches import CACHED, reduce_cached
from .classes import reduce_class
from .functions import reduce_function
from .interrupts import held
from .keepsakes import may_be_keepsake, reduce_keepsake
from .modules import is_library, modules_by_value, other_name, travels_by_name
from .namesakes import explained
from .reducers import BY_KIND, Table, reduce_module
from .streams import ONE_CALL, reduce_generator

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
    "dump_small_arguments",
    "dumps",
    "join_arguments",
    "load_arguments",
    "load_atoms",
    "load_plain",
    "loads",
]

# Pickle protocol 5 is the newest that Python 3.9 has.
PROTOCOL = 5

# The types that the C pickler alone can do, and that cannot change.
ATOMS = frozenset({int, str, float, bool, type(None), bytes, complex})
# Those of them that are never large buffers.
_SMALL_ATOMS = ATOMS - {bytes}


def dumps(value: Any, *, here: bool = False, take: Callback | None = None, many: int = ONE_CALL) -> bytes:
    """Serialise any value; by value where the other side could not import it.

    Args:
        value: The value.
        here: It will be loaded in this very process.
        take: Is shown each buffer (`pickle.PickleBuffer`), and may take it out of the stream.
        many: For whom it is: as `streams.reduce_generator`.
    """
    with io.BytesIO() as file:
        _pickler_class()(file, here, take, many).dump(value)
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


def dump_small_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """Serialise the arguments of a call that are not large, as `dump_small` does."""
    if _KNOWN_ANYWHERE.issuperset(map(type, args)) and _KNOWN_ANYWHERE.issuperset(map(type, kwargs.values())):
        return dump_small((args, kwargs))
    return dumps((args, kwargs))


def dump_small(value: Any) -> bytes:
    """Serialise any value, by the shorter way if nothing in it is known by its name: numbers, text, lists, dicts."""
    if type(value) in _CONTAINERS and type(next(iter(value), None)) in _KNOWN_ANYWHERE:
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
# Where something else comes first, all of it most likely takes the longer way.
_KNOWN_ANYWHERE = _CONTAINERS | ATOMS

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


# --- the pickler -------------------------------------------------------------------------------------------------

# The generators behind `random.random` and `numpy.random.random`: each task uses those of its own process, which are
# seeded for it, not a copy of ours, with which all tasks would draw the same. By the name of their class. For others of
# these classes, those of the script, see `streams`.
_GENERATORS = {
    "Random": ("random", "_inst"),
    "RandomState": ("numpy.random.mtrand", "_rand"),
    "Generator": ("numpy.random", ""),
}
_GENERATOR_MODULES = ("random", "numpy.random", "numpy.random.mtrand", "numpy.random._generator")

# Things that pickle takes for a number that means nothing elsewhere, by the names of their types and modules: the ends
# of multiprocessing.Pipe(), and what sub-interpreters are made with (since Python 3.14).
_OF_THIS_PROCESS = {
    "Connection": ("multiprocessing.connection",),
    "PipeConnection": ("multiprocessing.connection",),
    "Queue": ("concurrent.interpreters._queues",),
    "Interpreter": ("concurrent.interpreters",),
}


_pickler: Any = None


def _pickler_class() -> Any:
    """Make the pickler class at its first use: cloudpickle is too heavy to be loaded by ``import dummymp``."""
    global _pickler
    if _pickler is not None:
        return _pickler
    with held, explained:  # Ctrl-C in the middle of an import leaves half a module behind, and a long traceback.
        import cloudpickle

        base = cloudpickle.Pickler  # A script with the name of a module that it needs gets half of it.

    table = Table(base.dispatch_table)

    class Pickler(base):  # type: ignore[misc, valid-type]
        """Sends by value what a worker cannot import; knows of small things what cloudpickle knows."""

        _by_value: ClassVar[set[str]] = set()  # as it was when `_named` was begun

        def __init__(self, file: io.BytesIO, here: bool, take: Callback | None, many: int = ONE_CALL) -> None:
            self.dispatch_table = table.now()
            if self._by_value != modules_by_value():
                Pickler._by_value = modules_by_value()
                _named.clear()
            super().__init__(file, protocol=PROTOCOL, buffer_callback=take)
            self._here = here
            self._many = many
            self._namespaces: dict[int, dict[str, Any]] = {}
            self._is_trial = False

        def reducer_override(self, obj: Any) -> Any:
            kind = type(obj)
            if kind in _ORDINARY or _named.get(id(obj)) is obj:
                return NotImplemented
            if kind is types.FunctionType:
                if travels_by_name(obj):
                    return NotImplemented
                return reduce_function(obj, self._namespaces, self._travels)
            if issubclass(kind, type):
                return self._reduce_class(obj)
            if kind is CACHED:
                return reduce_cached(obj, functools.partial(dumps, here=self._here))
            reduce = BY_KIND.get(kind)
            if reduce is not None:
                return reduce(obj, here=self._here)
            if isinstance(obj, types.ModuleType):
                return reduce_module(obj)
            if kind.__module__ == "annotationlib" and kind.__name__ == "ForwardRef":
                return reduce_forward_ref(obj, self._namespaces, self._travels)
            if kind.__name__ in _BY_NAME:
                return _reduce_by_kind_name(obj, kind.__name__, self._many)
            if hasattr(kind, "__array_finalize__"):
                return reduce_array(obj, self._travels)
            if may_be_keepsake(kind):
                return reduce_keepsake(obj)
            if not kind.__flags__ & _IS_OF_PYTHON or is_library(kind.__module__):
                _ORDINARY.add(kind)
            return NotImplemented

        def _reduce_class(self, cls: Any) -> Any:
            if cls.__module__ == "builtins" and cls in _OF_TYPES:
                return getattr, (types, _OF_TYPES[cls])
            if travels_by_name(cls):
                if is_library(cls.__module__):
                    _named[id(cls)] = cls
                return NotImplemented
            if not cls.__flags__ & _IS_OF_PYTHON:
                return NotImplemented
            if name := other_name(cls):
                return getattr, (sys.modules[cls.__module__], name)
            if type(cls).__module__ == "_ctypes":
                raise pickle.PicklingError("a class of ctypes that a worker cannot import does not travel")
            return reduce_class(cls, here=self._here)

        def _travels(self, value: Any) -> bool:
            """Try whether a value can travel. In a trial there is no other one, or they would have no end."""
            if type(value) in ATOMS:
                return True
            if self._is_trial:
                return False
            trial = Pickler(io.BytesIO(), self._here, _leave_out)
            trial._is_trial = True
            try:
                trial.dump(value)
            except Exception:
                return False
            return True

    _pickler = Pickler
    return Pickler


def _leave_out(buffer: pickle.PickleBuffer) -> bool:
    """Leave a buffer out of a trial: it can travel, so there is no need to copy it."""
    return False


# The types that stand in the module `types`, and have no name where they say that they are from.
_OF_TYPES = {kind: name for name, kind in vars(types).items() if type(kind) is type}
# Py_TPFLAGS_HEAPTYPE of CPython: a class that was made while Python ran. Others cannot be made anew.
_IS_OF_PYTHON = 1 << 9


# Classes of libraries of which was found that they travel by their names, by their ids; as long as no other modules are
# told to travel by value.
_named: dict[int, Any] = {}

# Types of which was found that nothing here knows anything of them. None of the user, which would live on in it.
_ORDINARY: set[type] = set()
_BY_NAME = frozenset({*_GENERATORS, *_OF_THIS_PROCESS})


def _reduce_by_kind_name(obj: Any, kind: str, many: int) -> Any:
    """Reduce what is known by the name of its type alone, for the module of that need not be loaded."""
    if kind in _GENERATORS and type(obj).__module__ in _GENERATOR_MODULES:
        module, name = _GENERATORS[kind]
        if getattr(sys.modules.get(module), name, None) is obj:
            return getattr, (sys.modules[module], name)
        return reduce_generator(obj, many=many)
    if kind in _OF_THIS_PROCESS and type(obj).__module__ in _OF_THIS_PROCESS[kind]:
        # What would travel is a number by which only this process knows it.
        raise pickle.PicklingError("it works in this process only")
    return NotImplemented

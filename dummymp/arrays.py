# SPDX-License-Identifier: MIT
"""NumPy arrays, of any class: their memory travels apart from all else that they are.

An array of a class made of `numpy.ndarray` travels as the plain array that it is a view of, and what makes it more
than that: its class and its attributes, its mask. So its memory is shown to the pickler as that of any other array,
and need not be copied, nor for the next call. What numpy would do writes it into the stream each time.
"""

from __future__ import annotations

import copyreg
import pickle
import sys
import weakref
from typing import Any, Callable

from .buffers import LARGE
from .memmaps import reduce_in_file

__all__ = ["reduce_array"]

_PICKLING = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")


def reduce_array(array: Any, travels: Callable[[Any], bool]) -> Any:
    """Reduce an array, as `object.__reduce__` does; NotImplemented where numpy does it.

    Args:
        array: A `numpy.ndarray`, or an object of a class made of it.
        travels: Tells whether a value can travel.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return NotImplemented
    kind = type(array)
    if not issubclass(kind, numpy.ndarray) or kind in copyreg.dispatch_table:
        return NotImplemented
    if kind is numpy.ndarray:
        return _reduce_plain(array)
    masked = sys.modules.get("numpy.ma")
    if masked is not None and issubclass(kind, masked.MaskedArray):
        return _reduce_masked(array, masked) if _is_pickled_as(kind, masked.MaskedArray) else NotImplemented
    if not _is_pickled_as(kind, numpy.ndarray):
        return _reduce_own_way(array)
    is_map = issubclass(kind, numpy.memmap)
    in_file = reduce_in_file(array) if is_map else None
    plain = numpy.ndarray.view(array, numpy.ndarray)
    without = vars(plain.view(numpy.memmap)) if is_map else ()  # A copy of a memmap has no file any more.
    own = getattr(array, "__dict__", {})
    attributes = {name: value for name, value in own.items() if name not in without and travels(value)}
    made = in_file or (numpy.ndarray.view, (plain, kind))
    return (*made, attributes, None, None, _set_attributes) if attributes else made


def _is_pickled_as(kind: type, base: Any) -> bool:
    """Tell whether a class leaves it to the one that it is made of how its objects travel."""
    return all(getattr(kind, name, None) is getattr(base, name, None) for name in _PICKLING)


# --- plain ones ----------------------------------------------------------------------------------------------------


def _reduce_plain(array: Any) -> Any:
    """Reduce an array that lies in a file to its place; and one that cannot be written, or is not in one piece, to a
    copy that can, and is. numpy does the others.
    """
    in_file = reduce_in_file(array)
    if in_file is not None:
        return in_file
    flags = array.flags
    if array.dtype.hasobject or (flags.writeable and flags.forc):
        return NotImplemented
    shape, dtype = array.shape, array.dtype
    if not flags.forc:
        array = array.copy()  # In numpy's hands it would lose its byte order.
    order = "C" if array.flags.c_contiguous else "F"
    try:
        # The pickler can write a large buffer into the stream only in the order of C; transposed, it is in that order.
        return _writable, (pickle.PickleBuffer(array if order == "C" else array.T), dtype, shape, order)
    except (ValueError, BufferError):
        return NotImplemented  # Dates have no buffers; numpy pickles them its own way, and the copy can be written.


def _writable(buffer: Any, dtype: Any, shape: tuple[int, ...], order: Any) -> Any:
    """Make an array that can be written of the buffer of one that cannot."""
    import numpy

    if isinstance(buffer, bytes):
        buffer = bytearray(buffer)  # It travelled in the stream.
    elif isinstance(buffer, memoryview) and buffer.readonly:
        buffer = buffer.obj  # The view behind it is private, so nobody minds.
    return numpy.ndarray(shape, dtype, buffer, order=order)


# --- of other classes ----------------------------------------------------------------------------------------------


def _set_attributes(array: Any, attributes: dict[str, Any]) -> None:
    vars(array).update(attributes)


def _reduce_masked(array: Any, masked: Any) -> tuple[Any, ...]:
    mask = masked.getmask(array)
    mask = None if mask is masked.nomask else mask
    return _masked, (type(array), masked.getdata(array), mask, array.fill_value, array.hardmask)


def _masked(kind: Any, data: Any, mask: Any, fill_value: Any, is_hard: bool) -> Any:
    """Make a masked array of its parts, of which it makes no copies."""
    from numpy import ma

    # So numpy calls classes made of MaskedArray when it unpickles them.
    array = kind.__new__(kind, data, mask=ma.nomask if mask is None else mask, dtype=data.dtype)
    array.fill_value = fill_value
    if is_hard:
        array.harden_mask()
    return array


# --- of classes that say themselves how they travel ----------------------------------------------------------------

# Such a class adds to what numpy's own `__reduce__` gives, and takes from what numpy's own `__setstate__` gets: that is
# all of the memory, as bytes. To leave just this out, the array is meanwhile of another class, a stand-in, made of its
# own class and of one that `super()` finds in the place of numpy's. All that the class itself does, it does as ever,
# with the whole array before it.


class _Memory:
    """Stands where the memory would stand in what numpy's `__reduce__` gives."""


def _reduce_own_way(array: Any) -> Any:
    import numpy

    kind = type(array)
    if array.nbytes < LARGE or array.dtype.hasobject or not _may_have_stand_in(kind):
        return NotImplemented
    try:
        made, twin = _ask_twin(array, kind)
    except Exception:
        return NotImplemented  # It is asked again, and that tells what is wrong.
    # Where what it gives refers to the array itself, that would be the twin.
    if twin() is not None or type(made) is not tuple or len(made) != 3 or made[:2] != (_begin, (kind,)):
        return NotImplemented
    return _begin, (kind, numpy.ndarray.view(array, numpy.ndarray)), made[2], None, None, _finish


def _ask_twin(array: Any, kind: Any) -> tuple[Any, weakref.ref[Any]]:
    """Give what a view of an array, of the class of a stand-in, says of how it travels; and a reference to the view."""
    import numpy

    twin = numpy.ndarray.view(array, _stand_in(kind))
    vars(twin).clear()
    vars(twin).update(vars(array))
    made = twin.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    twin.__class__ = kind  # As will be done where it arrives.
    return made, weakref.ref(twin)


def _begin(kind: Any, plain: Any) -> Any:
    import numpy

    return numpy.ndarray.view(plain, _stand_in(kind))


def _finish(array: Any, state: Any) -> None:
    import numpy

    kind, plain = type(array).__bases__[0], numpy.ndarray.view(array, numpy.ndarray)
    try:
        array.__setstate__(state)
        array.__class__ = kind
    except Exception:
        # It says `numpy.ndarray.__setstate__`, not `super()`, and that wants bytes. Or it fails again.
        array.__class__ = kind
        array.__setstate__(_with_memory(state, plain))


def _with_memory(state: Any, plain: Any) -> Any:
    if state is _Memory:
        return plain.tobytes("A")
    if type(state) in (tuple, list):
        return type(state)(_with_memory(part, plain) for part in state)
    if type(state) is dict:
        return {key: _with_memory(part, plain) for key, part in state.items()}
    return state


def _may_have_stand_in(kind: Any) -> bool:
    """Tell whether all that makes an object of a class is in its memory and its attributes, and none is told of it."""
    import numpy

    own = [vars(base) for base in kind.__mro__ if base not in numpy.ndarray.__mro__]
    return type(kind) is type and not any(base.get("__slots__") or "__init_subclass__" in base for base in own)


def _stand_in(kind: Any) -> Any:
    import numpy

    def reduce(self: Any) -> tuple[Any, ...]:
        return _begin, (kind,), (1, self.shape, self.dtype, self.flags.fnc, _Memory)

    def set_state(self: Any, state: Any) -> None:
        pass  # The memory is there.

    names = {"__slots__": (), "__reduce__": reduce, "__setstate__": set_state}
    without_memory = type("WithoutMemory", (numpy.ndarray,), names)
    return type(kind.__name__, (kind, without_memory), {"__slots__": (), "__module__": kind.__module__})

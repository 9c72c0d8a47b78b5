# SPDX-License-Identifier: MIT
"""Arrays whose memory is a file, `numpy.memmap`: they travel as the place in it, and what a task writes reaches it.

Those travel as copies of whose file it is not certain that another process finds the same bytes there: one that was
deleted or replaced, or has no name, and all with mode "c", for what was changed in them is in this process alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import weakref
from typing import Any

__all__ = ["reduce_in_file"]

# A worker must not open a file with "w+", which would empty it.
_MODES = {"r": "r", "r+": "r+", "w+": "r+"}
# Parts of a file that is only read travel as their bytes if they have fewer than so many. Larger: more is copied;
# smaller: the file is opened and mapped for each row of an array, which takes longer than the copy.
SMALL = 1 << 14


def reduce_in_file(array: Any) -> tuple[Any, ...] | None:
    """Reduce an array to its place in a file, as `object.__reduce__` does; None if it has to be copied.

    Args:
        array: A `numpy.memmap`, or an array that is a part of one, whatever its strides.
    """
    home = _home(array)
    if home is None or home.mode not in _MODES or not array.nbytes:
        return None
    if home.mode == "r" and array.nbytes < SMALL:
        order = "F" if array.flags.fnc else "C"
        return _from_bytes, (array.tobytes(order), type(array), array.shape, array.dtype, order)
    where, first = _address(home), _address(array)
    reach = [step * (count - 1) for count, step in zip(array.shape, array.strides)]
    begin = first + sum(way for way in reach if way < 0)
    end = first + sum(way for way in reach if way > 0) + array.itemsize
    if begin < where or end > where + home.nbytes:
        return None  # Somebody has made the strides by hand.
    try:
        found = os.stat(home.filename)
        if not _is_mapped(home, found):
            return None
    except (OSError, TypeError, ValueError):
        return None  # It has no name, or none any more.
    identity = found.st_dev, found.st_ino
    part = (int(home.offset) + begin - where, end - begin)
    layout = (array.shape, array.dtype, first - begin, array.strides, array.flags.writeable)
    return _from_file, (home.filename, identity, _MODES[home.mode], part, type(array), layout)


def _from_bytes(data: bytes, kind: Any, shape: tuple[int, ...], dtype: Any, order: Any) -> Any:
    """Make an array that can only be read, as of a file that can only be read."""
    import numpy

    return numpy.ndarray(shape, dtype, data, order=order).view(kind)


def _from_file(
    name: Any, identity: tuple[int, int], mode: Any, part: tuple[int, int], kind: Any, layout: tuple[Any, ...]
) -> Any:
    """Make an array of a part of a file.

    Args:
        name: That of the file.
        identity: By which the system knows it: device and inode.
        mode: As of `numpy.memmap`.
        part: Where the part begins, and how many bytes it has.
        kind: The class of the array.
        layout: Its shape and dtype; where in the part its first item is; its strides; whether it can be written.

    Raises:
        FileNotFoundError: The file is not there any more, or not the same.
    """
    import numpy

    start, length = part
    shape, dtype, first, strides, writeable = layout
    try:
        with open(name, "rb" if mode == "r" else "r+b") as file:
            found = os.fstat(file.fileno())
            if (found.st_dev, found.st_ino) != identity or found.st_size < start + length:
                raise FileNotFoundError  # numpy would make a short file longer.
            memory = numpy.memmap(file, "u1", mode, start, length)
    except FileNotFoundError:
        why = "a numpy.memmap was sent, and since then its file has been deleted, replaced or cut"
        raise FileNotFoundError(errno.ENOENT, why, os.fspath(name)) from None
    memory.filename = name  # A path, if it was one.
    array = numpy.ndarray.__new__(kind, shape, dtype, memory, first, strides)
    if isinstance(array, numpy.memmap):
        array.__array_finalize__(memory)  # So it knows its file.
    if not writeable:
        array.flags.writeable = False
    return array


def _home(array: Any) -> Any:
    """Find the memmap that opened the file in which an array lies; None if there is none."""
    if array.base is None:
        return None  # Nearly all.
    import mmap

    import numpy

    while isinstance(array, numpy.ndarray):
        if isinstance(array, numpy.memmap) and isinstance(array.base, mmap.mmap):
            return array
        array = array.base
    return None


def _address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


# What was found out of memmaps, by their ids: a reference, and the identity of the file, which it keeps for life.
_known: dict[int, tuple[weakref.ref[Any], tuple[int, int]]] = {}


def _is_mapped(home: Any, found: os.stat_result) -> bool:
    """Tell whether the file that has the name of a memmap now is the one that is mapped.

    Args:
        home: The memmap.
        found: What the system says of the file with its name.
    """
    key, identity = id(home), (found.st_dev, found.st_ino)
    known = _known.get(key)
    if known is not None and known[0]() is home:
        return known[1] == identity
    if not _is_found_mapped(home, found):
        return False
    _known[key] = weakref.ref(home, lambda _, known=_known: known.pop(key, None)), identity  # type: ignore[misc]
    return True


def _is_found_mapped(home: Any, found: os.stat_result) -> bool:
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            return any(_is_where(home, found, line) for line in maps)
    except FileNotFoundError:
        # Not Linux. Windows lets nobody replace a file that is mapped. Elsewhere nobody says which file it is, but its
        # memmap keeps a descriptor of it.
        return os.name != "posix" or (home.base.size() == found.st_size and _is_open(found))


def _is_where(home: Any, found: os.stat_result, line: str) -> bool:
    """Tell whether a line of /proc/self/maps says that a memmap lies there, in this file, and where it says itself."""
    where, _, offset, device, inode, *name = line.rstrip("\n").split(maxsplit=5)
    low, _, high = where.partition("-")
    address = _address(home) - int(low, 16)
    if not 0 <= address < int(high, 16) - int(low, 16) or int(inode) != found.st_ino:
        return False
    major, minor = device.split(":")
    # Some file systems, such as btrfs, have two numbers; then the name decides.
    same = os.makedev(int(major, 16), int(minor, 16)) == found.st_dev or name == [os.path.realpath(home.filename)]
    return same and int(offset, 16) + address == home.offset


def _is_open(found: os.stat_result) -> bool:
    """Tell whether this process has a file open."""
    for fd in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # That of the listing.
            if os.path.samestat(os.fstat(int(fd)), found):
                return True
    return False

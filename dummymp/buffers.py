# SPDX-License-Identifier: MIT
"""Large buffers: the parts of a call or a result that stay out of the stream.

What speaks pickle protocol 5 (numpy arrays, and what is made of them) hands its memory to the pickler as buffers.
Large ones are copied once, into a memory file; the other side gets its descriptor and maps a private view of it. The
same buffer sent again is found again, if not a byte of it has changed. Where a memory file cannot be had or handed
over, buffers travel in the stream: slower, and nobody notices otherwise.

A parcel is how a pickle with buffers looks in a message: PARCEL_HEAD, one ENTRY a buffer, the pickle, and the buffers
that must travel in the stream after all.
"""

from __future__ import annotations

import os
import struct
import weakref
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    import pickle
    from collections.abc import Sequence

    from .memoryfile import MemoryFile, Piece

__all__ = ["LARGE", "Collector", "close_all", "pack", "packet_of", "unpack"]

# Smaller buffers travel in the stream. Larger: more is copied twice; smaller: system calls cost more than copies.
LARGE = 1 << 20
# So many descriptors go with one message; Linux allows 253. Buffers beyond travel in the stream.
MAX_FILES = 32

PARCEL_HEAD = struct.Struct("<QIIQ")  # packet of descriptors (0: none), buffers of the function, of all, pickle length
ENTRY = struct.Struct("<IQQ")  # which of the descriptors, or _IN_STREAM; start, length
_IN_STREAM = 0xFFFFFFFF

# The last version that was stored of each buffer: by address and length.
_stored: weakref.WeakValueDictionary[tuple[int, int], Piece] = weakref.WeakValueDictionary()


class Collector:
    """Takes the large buffers of one pickle out of its stream: the `buffer_callback` of a pickler.

    Args:
        find_again: A buffer that was stored before, and is what it was, need not be stored again.

    Attributes:
        pieces: What was taken out, in the order in which `pickle.loads` wants it.
    """

    __slots__ = ("_file", "_find_again", "pieces")

    def __init__(self, *, find_again: bool) -> None:
        self.pieces: list[Piece] = []
        self._find_again = find_again
        self._file: MemoryFile | None = None

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        """Take a buffer; True if it is to stay in the stream."""
        try:
            data = buffer.raw()
        except BufferError:
            return True  # Not in one piece.
        if len(data) < LARGE or os.name != "posix":
            return True
        piece = self._find_or_store(data)
        if piece is None:
            return True
        self.pieces.append(piece)
        return False

    def _find_or_store(self, data: memoryview) -> Piece | None:
        address = _address(data) if self._find_again else 0
        key = address, len(data)
        known = _stored.get(key) if address else None
        if known is not None and _equal(known, data, address):
            return known
        from .memoryfile import MemoryFile

        try:
            if self._file is None:
                self._file = MemoryFile()
            piece = self._file.add(data)
        except OSError:
            return None
        if address:
            _stored[key] = piece
        return piece


# --- finding the same again --------------------------------------------------------------------------------------

_memory: Any = None


def _c_memory() -> Any:
    """Give `memcmp` of the C library, and a function for the address of a buffer; None where there is no ctypes."""
    global _memory
    if _memory is None:
        try:
            _memory = _make_c_memory()
        except (ImportError, AttributeError, OSError):
            _memory = ()
    return _memory or None


def _make_c_memory() -> Any:
    import ctypes

    class Buffer(ctypes.Structure):
        """`Py_buffer` of Python's C interface."""

        _fields_ = (
            ("buf", ctypes.c_void_p), ("obj", ctypes.c_void_p), ("len", ctypes.c_ssize_t),
            ("itemsize", ctypes.c_ssize_t), ("readonly", ctypes.c_int), ("ndim", ctypes.c_int),
            ("format", ctypes.c_void_p), ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
            ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
        )  # fmt: skip

    get, release = ctypes.pythonapi.PyObject_GetBuffer, ctypes.pythonapi.PyBuffer_Release
    get.argtypes, release.argtypes = (ctypes.py_object, ctypes.c_void_p, ctypes.c_int), (ctypes.c_void_p,)
    release.restype = None
    memcmp = ctypes.CDLL(None).memcmp
    memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

    def address(data: Any) -> int:
        buffer = Buffer()
        get(data, ctypes.byref(buffer), 0)  # PyBUF_SIMPLE
        found = buffer.buf or 0
        release(ctypes.byref(buffer))
        return found

    return memcmp, address


def _address(data: memoryview) -> int:
    """Say where a buffer is; 0 if nobody knows."""
    c_memory = _c_memory()
    return int(c_memory[1](data)) if c_memory is not None else 0


def _equal(piece: Piece, data: memoryview, address: int) -> bool:
    """Tell whether a buffer is what was stored, byte by byte: nothing less can tell."""
    memcmp, address_of = _c_memory()
    try:
        view = piece.view()  # Held until it was read: another thread may drop it meanwhile.
        same = memcmp(address_of(view), address, len(data)) == 0
    except OSError:
        return False
    if not same:
        piece.drop_view()  # It is not asked again.
    return bool(same)


# --- parcels -----------------------------------------------------------------------------------------------------


def pack(
    pickle: Any, pieces: Sequence[Piece], send: Callable[[list[int]], int], *, function_pieces: Sequence[Piece] = ()
) -> list[Any]:
    """Make the parts of a parcel, and send the descriptors ahead.

    Args:
        pickle: The pickle.
        pieces: Its buffers.
        send: Sends descriptors beside the stream; gives the number of the packet, 0 if it could not.
        function_pieces: The buffers of the function, which the other side has got already.
    """
    everything = [*function_pieces, *pieces]
    files = list({piece.file: None for piece in everything})[:MAX_FILES]
    packet = send([file.fd for file in files])
    index = {file: number for number, file in enumerate(files)} if packet else {}
    head = PARCEL_HEAD.pack(packet, len(function_pieces), len(everything), len(pickle))
    entries = [ENTRY.pack(index.get(piece.file, _IN_STREAM), piece.start, piece.length) for piece in everything]
    in_stream = [_bytes_of(piece) for piece in everything if piece.file not in index]
    return [b"".join((head, *entries)), pickle, *in_stream]


def _bytes_of(piece: Piece) -> Any:
    try:
        return piece.view()
    except OSError:
        return piece.read()


def packet_of(parcel: Any) -> int:
    """Give the number of the packet of descriptors that belongs to a parcel; 0 if there is none."""
    return int(PARCEL_HEAD.unpack_from(parcel)[0])


def unpack(parcel: memoryview, fds: list[int]) -> tuple[list[Any], list[Any], memoryview]:
    """Give the buffers of the function, those of the pickle, and the pickle.

    Args:
        parcel: What `pack` made.
        fds: The descriptors of its packet; the caller closes them.
    """
    from .memoryfile import open_view

    _, of_function, count, length = PARCEL_HEAD.unpack_from(parcel)
    start = PARCEL_HEAD.size
    entries = [ENTRY.unpack_from(parcel, start + number * ENTRY.size) for number in range(count)]
    start += count * ENTRY.size
    pickle = parcel[start : start + length]
    start += length
    buffers = []
    for which, begin, size in entries:
        if which == _IN_STREAM:
            buffers.append(bytearray(parcel[start : start + size]))
            start += size
        else:
            buffers.append(open_view(fds[which], begin, size))
    return buffers[:of_function], buffers[of_function:], pickle


def close_all(fds: list[int]) -> None:
    """Close descriptors that came with a parcel, and empty the list. Again is fine."""
    while fds:
        os.close(fds.pop())

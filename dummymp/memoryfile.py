# SPDX-License-Identifier: MIT
"""Memory files: memory without a name that processes hand to each other by its descriptor.

Nothing of it stands in a folder (/dev/shm, /tmp), and it is gone with the last process that holds or maps it, however
that ends.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
import threading
from typing import Any

__all__ = ["MemoryFile", "Piece", "View", "anonymous_file", "open_view"]

# Buffers begin where a mapping may begin.
_STEP = mmap.ALLOCATIONGRANULARITY
# Of the descriptors that this process may have, memory files and views take one in so many. Larger: more buffers go
# the slower way, through the stream; smaller: fewer are left for the user's own files.
_SHARE = 4
# ... but none of the last so many: to drive, and to start a worker, takes them. Larger: buffers go through the stream
# where they need not; smaller: with few descriptors no worker can be started beside what waits for it.
_LEFT = 20
# One read takes so much: what the caches of a CPU hold.
_READ = 1 << 18


def anonymous_file() -> int:
    """Make a file without a name, in memory where the system can; give its descriptor.

    Raises:
        OSError: No descriptors, no memory, or (where it must be a file on a disk) no room for it.
    """
    if hasattr(os, "memfd_create"):
        try:
            return os.memfd_create("dummymp")
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            # An old kernel under a new Python, or a sandbox that forbids it.
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class _Held:
    """Counts the descriptors that this process holds for memory files, and says when it is enough."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def take(self) -> bool:
        with self._lock:
            if self.count >= _limit():
                return False
            self.count += 1
            return True

    def give(self) -> None:
        # Called when objects go, which may be anywhere: no lock. Two threads at this very instruction would miscount
        # by one, which does no harm.
        self.count -= 1


def _limit() -> int:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(0, min(soft // _SHARE, soft - _LEFT))


_held = _Held()


class MemoryFile:
    """A memory file of ours, to which pieces are added. It is closed with the last of its pieces.

    Raises:
        OSError: As `anonymous_file`, or because this process holds so many already.
    """

    __slots__ = ("__weakref__", "_size", "fd")

    def __init__(self) -> None:
        self.fd = -1
        if not _held.take():
            raise OSError("too many buffers are held in memory files")
        try:
            self.fd = anonymous_file()
        except OSError:
            _held.give()
            raise
        self._size = 0

    def add(self, data: memoryview) -> Piece:
        """Copy bytes into it.

        Raises:
            OSError: There is no room: a limit of the process (RLIMIT_FSIZE), of the disk, or of the memory.
        """
        start = -(-self._size // _STEP) * _STEP
        # To write is faster than to map and to copy: the kernel need not clear the new pages first, nor fault them in.
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self.fd, data[done:], start + done)
        except OSError:
            os.ftruncate(self.fd, self._size)  # What fitted takes memory, too.
            raise
        self._size = start + done
        return Piece(self, start, done)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            _held.give()


class Piece:
    """A part of a memory file: one buffer."""

    __slots__ = ("__weakref__", "_view", "file", "length", "start")

    def __init__(self, file: MemoryFile, start: int, length: int) -> None:
        self._view: View | None = None
        self.file = file
        self.start = start
        self.length = length

    def __len__(self) -> int:
        return self.length

    def view(self) -> mmap.mmap:
        """Give its bytes, to be read; the same view each time, for to map them anew costs as much as to compare them.

        Raises:
            OSError: It cannot be mapped.
        """
        view = self._view
        if view is None:
            view = self._view = _map(self.file.fd, self.start, self.length, mmap.ACCESS_READ)
        return view

    def read(self) -> bytearray:
        """Give a copy of its bytes, which needs no mapping and no descriptor."""
        return _copy_of(self.file.fd, self.start, self.length)

    def drop_view(self) -> None:
        """Let go of what `view` gave, with its descriptor."""
        self._view = None


class View(mmap.mmap):
    """A piece as bytes. A private one can be written, and nobody else sees that: pages are copied only then.

    Before Python 3.13 each holds a descriptor, which is counted.
    """

    counted = False

    def __del__(self) -> None:
        if self.counted:
            _held.give()


def _map(fd: int, start: int, length: int, access: int) -> View:
    if sys.version_info >= (3, 13):
        return View(fd, length, access=access, offset=start, trackfd=False)
    if not _held.take():
        raise OSError("too many buffers are held in memory files")
    try:
        view = View(fd, length, access=access, offset=start)
    except BaseException:
        _held.give()
        raise
    view.counted = True
    return view


def open_view(fd: int, start: int, length: int) -> Any:
    """Give a buffer of our own with what stands in a memory file; the descriptor may be closed after that."""
    try:
        return _map(fd, start, length, mmap.ACCESS_COPY)
    except OSError:
        return _copy_of(fd, start, length)  # No descriptors, or too many mappings.


def _copy_of(fd: int, start: int, length: int) -> bytearray:
    data = bytearray(length)
    done = 0
    while done < length:
        part = os.pread(fd, min(_READ, length - done), start + done)
        if not part:
            raise EOFError("a memory file is shorter than it was")
        data[done : done + len(part)] = part
        done += len(part)
    return data

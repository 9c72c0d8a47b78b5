# SPDX-License-Identifier: MIT
"""A little memory that the parent shares with one worker."""

from __future__ import annotations

import mmap
import os
import struct

from .memoryfile import anonymous_file

__all__ = ["Page"]


class Page:
    """A little memory shared with one worker: in it the worker counts the tasks that it has begun.

    So the parent knows, when a worker died, whether it had begun what it was sent.
    """

    SIZE = mmap.PAGESIZE
    _COUNT = struct.Struct("<Q")

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, self.SIZE)

    @staticmethod
    def create() -> int:
        """Make the anonymous file behind a page; give its descriptor."""
        fd = anonymous_file()
        os.ftruncate(fd, Page.SIZE)
        return fd

    @property
    def begun(self) -> int:
        """Count the tasks begun."""
        count: int = self._COUNT.unpack_from(self._memory)[0]
        return count

    @begun.setter
    def begun(self, count: int) -> None:
        self._COUNT.pack_into(self._memory, 0, count)

    def close(self) -> None:
        self._memory.close()

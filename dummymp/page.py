# SPDX-License-Identifier: MIT
"""A little memory that the parent shares with one worker."""

from __future__ import annotations

import mmap
import os

from .memoryfile import anonymous_file

__all__ = ["Page"]


class Page:
    """A little memory shared with one worker. What the worker wrote there is known even if it dies the next moment.

    It counts the tasks that it has begun, so the parent knows whether it had begun what it was sent. And while it runs
    a chunk, many items of a `map`, it keeps a log of what came of each, so that nothing that finished is lost.

    Args:
        fd: The file behind the page; -1 makes a page that nobody shares.

    Attributes:
        memory: All of it: two numbers, and the log.
        numbers: The first is where the log ended when the last item began, 0 if none has. The second counts tasks.
    """

    LOG = 16
    # Room for the log. Larger: chunks with larger results need not be cut short; smaller: less memory, if it is used.
    SIZE = LOG + (1 << 16)

    def __init__(self, fd: int) -> None:
        self.memory = mmap.mmap(fd, self.SIZE)
        self.numbers = memoryview(self.memory)[: self.LOG].cast("Q")

    @staticmethod
    def create() -> int:
        """Make the anonymous file behind a page; give its descriptor."""
        fd = anonymous_file()
        os.ftruncate(fd, Page.SIZE)
        return fd

    @property
    def begun(self) -> int:
        """Count the tasks begun."""
        return self.numbers[1]

    @begun.setter
    def begun(self, count: int) -> None:
        self.numbers[0] = 0  # First, for the log of the task before must not be taken for that of this one.
        self.numbers[1] = count

    def log(self) -> bytes | None:
        """Give the log of the running chunk as it was when its last item began; None if none has."""
        end = self.numbers[0]
        return self.memory[self.LOG : end] if end else None

    def close(self) -> None:
        """Let go of it. Again is fine."""
        self.numbers.release()
        self.memory.close()

# SPDX-License-Identifier: MIT
"""A little memory that the parent shares with one worker."""

from __future__ import annotations

import errno
import mmap
import os
import stat

from .memoryfile import anonymous_file

__all__ = ["Page"]


class Page:
    """A little memory shared with one worker. What the worker wrote there is known even if it dies the next moment.

    It counts the tasks that it has begun, so the parent knows whether it had begun what it was sent. It holds messages
    that the worker will send together with later ones: see `WorkerChannel`. And while it runs a chunk, many items of a
    `map`, it keeps a log of what came of each, so that nothing that finished is lost.

    Args:
        fd: The file behind the page; -1 makes a page that nobody shares.

    Attributes:
        memory: All of it: five numbers, the messages, and the log.
        numbers: The first is where the log ended when the last item began, 0 if none has. The second counts tasks. The
            next two are where the messages begin and end, counted from the first byte that went over the connection.
            The last one is not 0 while the worker is to begin nothing, but to give back what it has.
    """

    KEPT = 40
    # Room for messages that are kept: more than a millisecond's worth. And, up to the end, for the log. Larger: chunks
    # with larger results need not be cut short; smaller: less memory, if it is used.
    LOG = KEPT + (1 << 16)
    SIZE = LOG + (1 << 16)

    def __init__(self, fd: int) -> None:
        self.memory = mmap.mmap(fd, self.SIZE)
        self.numbers = memoryview(self.memory)[: self.KEPT].cast("Q")
        # Where the messages begin and end, as in `numbers`.
        self._start = self._end = 0

    @staticmethod
    def create() -> int:
        """Make the anonymous file behind a page; give its descriptor."""
        fd = anonymous_file()
        try:
            os.ftruncate(fd, Page.SIZE)
        except OSError:
            os.close(fd)
            raise
        return fd

    @classmethod
    def can_be_made(cls) -> bool:
        """Tell whether there is room for the file behind a page; when there are only too few descriptors, there is."""
        try:
            os.close(cls.create())
        except OSError as error:
            return error.errno in (errno.EMFILE, errno.ENFILE)
        return True

    @classmethod
    def open(cls, fd: int) -> Page | None:
        """Give the page in this file; None if it is no file, because there was no room for one.

        Raises:
            OSError: There is a page, and no memory to see it. The other side believes what stands in it, so who cannot
                see it cannot go on.
        """
        return cls(fd) if stat.S_ISREG(os.fstat(fd).st_mode) else None

    @property
    def begun(self) -> int:
        """Count the tasks begun."""
        return self.numbers[1]

    def begin(self, count: int) -> bool:
        """Take note that so many tasks have begun, this one included; True if it is not to begin, but to go back."""
        numbers = self.numbers
        numbers[0] = 0  # First, for the log of the task before must not be taken for that of this one.
        numbers[1] = count
        return numbers[4] != 0  # Last: see `Manager._claim`.

    def claim(self, wanted: bool) -> None:
        """Let the worker begin nothing more from now on, or (False) go on."""
        self.numbers[4] = wanted

    def log(self) -> bytes | None:
        """Give the log of the running chunk as it was when its last item began; None if none has."""
        end = self.numbers[0]
        return self.memory[self.LOG : end] if end else None

    def keep(self, position: int, message: bytes) -> bool:
        """Keep a message that belongs at this position of what goes over the connection; False if there is no room."""
        if self._end != position:  # It is the first.
            self._start = self.numbers[2] = position
        at = self.KEPT + position - self._start
        end = at + len(message)
        if end > self.LOG:
            return False
        self.memory[at:end] = message
        # Last, for a message that was not written whole does not count.
        self._end = self.numbers[3] = position + len(message)
        return True

    def kept(self, position: int) -> bytes:
        """Give the messages that were kept from this position on; for both sides.

        The worker may be at it meanwhile: then what it has sent by now is left out.
        """
        numbers = self.numbers
        start, end = numbers[2], numbers[3]
        if not start <= position < end:
            return b""
        kept = self.memory[self.KEPT + position - start : self.KEPT + end - start]
        return kept if numbers[2] == start else b""

    def forget_kept(self) -> None:
        """Make room for other messages, for those that were kept have been sent."""
        self._start = self.numbers[2] = self._end

    def close(self) -> None:
        """Let go of it. Again is fine."""
        self.numbers.release()
        self.memory.close()

# SPDX-License-Identifier: MIT
"""Text of tasks that cannot be written because the disk is full: `print` in a loop would raise, and so does who waits.

The tasks go on, and their results are kept: it is raised when they are done.
"""

from __future__ import annotations

import errno

from .hints import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

__all__ = ["note_lost", "raise_lost", "tell_lost"]

# No room, no more room for this user, or the file may not be larger (ulimit -f).
_FULL = frozenset(number for number in (errno.ENOSPC, getattr(errno, "EDQUOT", None), errno.EFBIG) if number)
_lost: list[OSError] = []


def note_lost(name: str, error: Any) -> None:
    """Note that text for the stream of this name could not be written, if it is for want of room."""
    if getattr(error, "errno", None) in _FULL and not _lost:
        text = f"{error.strerror}. What tasks print is lost: it cannot be written to sys.{name}. Their results are kept"
        _lost.append(OSError(error.errno, text))


def raise_lost() -> None:
    """Raise it, once, if text was lost."""
    if _lost:
        raise _lost.pop()


def tell_lost() -> None:
    """Say it at the end of the program, if nobody has waited since."""
    if _lost:
        from .log import logger

        logger().error("%s", _lost.pop())

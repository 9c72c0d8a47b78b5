# SPDX-License-Identifier: MIT
"""Cells: whether two calls come from one run of a script, a notebook's cell or a line at a prompt."""

from __future__ import annotations

import sys

from .hints import TYPE_CHECKING

if TYPE_CHECKING:
    from types import CodeType

__all__ = ["current_cell"]

_OPTIMIZED = 1  # inspect.CO_OPTIMIZED: the code of a function


def current_cell() -> CodeType | None:
    """Give the code at the top level of ``__main__`` that runs now in this thread; None if none does.

    A script has one from its beginning to its end; in a session each cell, or line, has its own.
    """
    main = getattr(sys.modules.get("__main__"), "__dict__", None)
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if frame.f_globals is main and not code.co_flags & _OPTIMIZED and frame.f_locals is main:
            return code
        frame = frame.f_back  # type: ignore[assignment]
    return None

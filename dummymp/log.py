# SPDX-License-Identifier: MIT
"""The logger of dummymp. `logging` is loaded when there is something to say: it takes longer than all of dummymp."""

from __future__ import annotations

from .bars import make_room
from .hints import TYPE_CHECKING
from .interrupts import held

if TYPE_CHECKING:
    import logging
    from types import TracebackType
    from typing import Any

__all__ = ["DEBUG", "ERROR", "INFO", "WARNING", "logger", "to_log"]

# The numbers of logging.
DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40


def logger() -> logging.Logger:
    """Give the logger `dummymp`, to say something by it now."""
    with held:  # Ctrl-C in the middle of an import leaves half a module behind.
        import logging
    make_room()
    return logging.getLogger("dummymp")


def to_log(error: BaseException, trace: TracebackType | None) -> Any:
    """Give what ``exc_info=`` takes; None where Python cannot format it, for then logging itself would raise."""
    import traceback

    try:
        traceback.format_exception(type(error), error, trace)
    except Exception:
        return None
    return type(error), error, trace

# SPDX-License-Identifier: MIT
"""The logger of dummymp. `logging` is loaded when there is something to say: it takes longer than all of dummymp."""

from __future__ import annotations

from .bars import make_room
from .hints import TYPE_CHECKING
from .interrupts import held

if TYPE_CHECKING:
    import logging

__all__ = ["DEBUG", "ERROR", "INFO", "WARNING", "logger"]

# The numbers of logging.
DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40


def logger() -> logging.Logger:
    """Give the logger `dummymp`, to say something by it now."""
    with held:  # Ctrl-C in the middle of an import leaves half a module behind.
        import logging
    make_room()
    return logging.getLogger("dummymp")

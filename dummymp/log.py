# SPDX-License-Identifier: MIT
"""The logger of dummymp. `logging` is loaded when there is something to say: it takes longer than all of dummymp."""

from __future__ import annotations

import sys

from .bars import make_room
from .hints import TYPE_CHECKING
from .interrupts import came_by_signal, held

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

__all__ = ["DEBUG", "ERROR", "INFO", "WARNING", "is_on_stderr", "logger", "tell_broken", "to_log"]

# The numbers of logging.
DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40


class _Logger:
    """Logs as the logger `dummymp`, whatever filters and handlers of the user do then."""

    def debug(self, text: str, *args: Any) -> None:
        self._log(DEBUG, text, args)

    def warning(self, text: str, *args: Any) -> None:
        self._log(WARNING, text, args)

    def error(self, text: str, *args: Any, exc_info: Any = None) -> None:
        self._log(ERROR, text, args, exc_info)

    def exception(self, text: str, *args: Any) -> None:
        self._log(ERROR, text, args, True)

    def log(self, level: int, text: str, *args: Any) -> None:
        self._log(level, text, args)

    def _log(self, level: int, text: str, args: tuple[Any, ...], exc_info: Any = None) -> None:
        import logging

        receiver = logging.getLogger("dummymp")
        if not receiver.isEnabledFor(level):
            return
        make_room()
        try:
            receiver.log(level, text, *args, exc_info=exc_info, stacklevel=3)
        except Exception as error:
            tell_broken(error, level, text, args)


_logger = _Logger()


def logger() -> _Logger:
    """Give what logs as the logger `dummymp`, to say something by it now."""
    with held:  # Ctrl-C in the middle of an import leaves half a module behind.
        import logging  # noqa: F401
    return _logger


def is_on_stderr(level: int) -> bool:
    """Tell whether what we say at this level is written to the standard error."""
    import logging

    speaker: logging.Logger | None = logging.getLogger("dummymp")
    handlers: list[logging.Handler | None] = []
    if not speaker or not speaker.isEnabledFor(level):
        return False
    while speaker is not None:
        handlers += speaker.handlers
        speaker = speaker.parent if speaker.propagate else None
    shown = [handler for handler in handlers or [logging.lastResort] if handler and handler.level <= level]
    return sys.stderr is not None and sys.stderr in [getattr(handler, "stream", None) for handler in shown]


def tell_broken(error: Exception, level: int, text: str, args: tuple[Any, ...] = ()) -> None:
    """Tell that a filter, handler or record factory of the user raised, as logging does; in the ``except`` block.

    The tasks must not suffer for it.
    """
    import logging

    if came_by_signal(error):
        raise error
    record = logging.LogRecord("dummymp", level, __file__, 0, text, args, None)
    logging.Handler.handleError(logging.NullHandler(), record)


def to_log(error: BaseException, trace: TracebackType | None) -> Any:
    """Give what ``exc_info=`` takes; None where Python cannot format it, for then logging itself would raise."""
    import traceback

    try:
        traceback.format_exception(type(error), error, trace)
    except Exception:
        return None
    return type(error), error, trace

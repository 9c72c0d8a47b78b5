# SPDX-License-Identifier: MIT
"""What tasks print and log, as the parent shows it. How it gets here:

    in a worker (forward.py)                           in the parent
    print, sys.stderr   -> LineWriter  -> TEXT    ->   Screen  -> the sys.stdout / sys.stderr of that moment
    logging             -> Forwarder   -> RECORD  ->   handle_record -> the logger of that name
    file descriptors 1 and 2 (C code, programs that a task starts, faulthandler)
                        -> two pipes              ->   Screen, too

Text travels in whole lines, at once, so that what was printed before a crash has arrived. What came without a line
end is kept until the rest comes, or the task ends.
"""

from __future__ import annotations

import sys
from typing import Any

from .bars import make_room
from .fulldisk import note_lost
from .interrupts import came_by_signal, own_code
from .log import logger, tell_broken, to_log
from .pickling import loads
from .transport import EXTRAS, STDERR, STDOUT

__all__ = ["Lines", "Screen", "handle_record"]


class Screen:
    """Shows text of tasks on the parent's own `sys.stdout` and `sys.stderr`, never two tasks in one line."""

    def __init__(self) -> None:
        # Whose unfinished line stands at the end of each stream.
        self._open: dict[int, object] = {STDOUT: None, STDERR: None}
        self._complained: object = None

    def show(self, stream: int, text: str, owner: object) -> None:
        """Write text of `owner` (any object that stands for the task or worker)."""
        name = "stdout" if stream == STDOUT else "stderr"
        file = getattr(sys, name, None)
        if file is None:  # pythonw
            return
        to_flush = make_room(file)
        if self._open[stream] not in (None, owner):
            text = "\n" + text
        still_open = None if text.endswith("\n") else owner
        own_code.reached = True
        self._open[stream] = still_open
        try:
            try:
                file.write(text)
            except UnicodeEncodeError:
                encoding = getattr(file, "encoding", None) or "ascii"
                file.write(text.encode(encoding, "backslashreplace").decode(encoding))
            if to_flush:
                file.flush()
        except Exception as error:
            if came_by_signal(error):
                raise
            if isinstance(error, (OSError, ValueError)):
                note_lost(name, error)
                return  # Closed, or a pipe that nobody reads any more: the user's own next print says so.
            # Something of the user's own in the place of the stream. The tasks must not suffer for it.
            if self._complained is not file:
                self._complained = file
                logger().error(
                    "your sys.%s raised %s: %s. Text of tasks is lost.",
                    name, type(error).__name__, error, exc_info=to_log(error, error.__traceback__),
                )  # fmt: skip


class Lines:
    """Puts the text of one worker's stream together to whole lines."""

    def __init__(self) -> None:
        self._rest = ""

    def add(self, text: str) -> str:
        """Take text; give what is whole by now, "" if nothing is."""
        lines, end, rest = text.rpartition("\n")
        if not end:
            self._rest += text
            return ""
        whole = self._rest + lines + end
        self._rest = rest
        return whole

    def rest(self) -> str:
        """Give the line that nobody finished."""
        rest, self._rest = self._rest, ""
        return rest


def handle_record(data: Any, task: int, prefix: str) -> None:
    """Give a log record of a task to the logger of its name, as if it had been logged here.

    Args:
        data: The pickled fields of the record.
        task: The call number; it becomes `record.task`.
        prefix: Stands before the text; ``{pid}``, ``{task}`` and ``{worker}`` are filled in.
    """
    fields = loads(data)
    for name, pickle in fields.pop(EXTRAS, {}).items():
        try:
            fields[name] = loads(pickle)
        except Exception as error:
            fields[name] = f"({name} cannot be rebuilt here: {type(error).__name__}: {error})"
    try:
        _handle(fields, task, prefix)
    except Exception as error:
        tell_broken(error, fields["levelno"], str(fields["msg"]))


def _handle(fields: dict[str, Any], task: int, prefix: str) -> None:
    import logging

    record = logging.makeLogRecord(fields)
    record.task = task
    receiver = logging.getLogger(record.name)
    if not receiver.isEnabledFor(record.levelno):
        return
    if prefix:
        filled = prefix.format(pid=record.process, task=task, worker=record.processName)
        record.msg = filled + str(record.msg)
        record.message = record.msg
    level = logging.getLevelName(record.levelno)
    if not level.startswith("Level "):
        record.levelname = level  # One that the script has named, or named anew.
    make_room()
    own_code.reached = True
    receiver.handle(record)

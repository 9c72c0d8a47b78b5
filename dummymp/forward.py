# SPDX-License-Identifier: MIT
"""What tasks print and log, as a worker sends it to the parent; `output` shows how it goes on from there."""

from __future__ import annotations

import codecs
import io
import logging
import sys
import threading
from typing import Any, Callable

from .pickling import ATOMS, dumps, loads
from .transport import EXTRAS, RECORD, STDOUT, TEXT, TEXT_HEAD, U64, WorkerChannel

__all__ = ["Forwarder", "LineWriter"]


class LineWriter(io.TextIOBase):
    """Is `sys.stdout` or `sys.stderr` of a worker: sends whole lines to the parent.

    Args:
        channel: Where to send.
        stream: 1 for stdout, 2 for stderr; also its file descriptor.
        task: Gives the number of the running task.
    """

    def __init__(self, channel: WorkerChannel, stream: int, task: Callable[[], int]) -> None:
        self._channel: WorkerChannel | None = channel
        self._stream = stream
        self._task = task
        self.line = ""  # begun, and not sent
        self.sent = 0  # pieces of text
        self._lock = threading.RLock()
        self.buffer = _Bytes(self)
        self.name = "<stdout>" if stream == STDOUT else "<stderr>"
        self.mode = "w"

    encoding = "utf-8"
    errors = "backslashreplace"
    line_buffering = True
    write_through = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream

    def isatty(self) -> bool:
        return False

    def reconfigure(self, **options: Any) -> None:
        """Accept what scripts set on a real stream; the text travels as UTF-8 all the same."""

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        with self._lock:
            lines, end, rest = text.rpartition("\n")
            if end:
                whole, self.line = self.line + lines + end, rest
                self._send(whole)
            else:
                self.line += text
        return len(text)

    def flush(self) -> None:
        """Send the begun line, too. The parent shows it when it is whole, or when the task ends."""
        if not self.line:
            return
        with self._lock:
            if self.line:
                text, self.line = self.line, ""
                self._send(text)

    def detach(self) -> Any:
        """Give `buffer`, for a wrapper with another encoding; this stream stays what it is for the next task."""
        self.flush()
        return self.buffer

    def close(self) -> None:
        """Stay open: a task that closes stdout would take it from the next one."""
        self.flush()

    def _send(self, text: str) -> None:
        self.sent += 1
        data = text.encode("utf-8", "backslashreplace")
        if self._channel is None:
            import os

            os.write(self._stream, data)
        else:
            self._channel.send(TEXT, TEXT_HEAD.pack(self._task(), self._stream), data)

    def leave_channel(self) -> None:
        """Write to the file descriptor from now on: for a process that a task forked, which has no say here."""
        self._channel = None
        self.line = ""
        self._lock = threading.RLock()  # Another thread, which is not in the copy, may have held it.


class _Bytes(io.RawIOBase):
    """Is `sys.stdout.buffer`: takes bytes."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer
        # A character may come in two writes.
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._writer.fileno()

    def write(self, data: Any) -> int:
        content = bytes(data)
        self._writer.write(self._decoder.decode(content))
        return len(content)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        """Stay open."""


class Forwarder(logging.Handler):
    """Sends log records to the parent, as text. It sits on the root logger of a worker."""

    def __init__(self, channel: WorkerChannel, worker: str, task: Callable[[], int]) -> None:
        super().__init__()
        self._channel: WorkerChannel | None = channel
        self._worker = worker
        self._task = task

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._send(record, self.format(record))
        except Exception:
            self.handleError(record)

    def _send(self, record: logging.LogRecord, text: str) -> None:
        if self._channel is None:
            sys.stderr.write(f"{record.levelname}:{record.name}:{text}\n")
            return
        # The record itself stays as it was, for other handlers. Traceback and stack are part of the text.
        fields = {**record.__dict__, "msg": text, "message": text, "processName": self._worker}
        fields.update(args=None, exc_info=None, exc_text=None, stack_info=None)
        # What is not plain is an `extra`; one that cannot travel, or would not arrive, goes as text.
        extras = {key: value for key, value in fields.items() if type(value) not in ATOMS}
        if extras:
            pickles = {key: _pickle(value) for key, value in extras.items()}
            fields.update((key, repr(value)) for key, value in extras.items() if pickles[key] is None)
            # Each by itself: what cannot be rebuilt in the parent must not take the rest along.
            fields[EXTRAS] = {key: pickle for key, pickle in pickles.items() if pickle is not None}
            for key in fields[EXTRAS]:
                del fields[key]
        self._channel.send(RECORD, U64.pack(self._task()), dumps(fields))

    def leave_channel(self) -> None:
        """Write to stderr from now on: see `LineWriter.leave_channel`."""
        self._channel = None


def _pickle(value: Any) -> bytes | None:
    try:
        data = dumps(value)
        loads(data)
    except Exception:
        return None
    return data

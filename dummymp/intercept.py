# SPDX-License-Identifier: MIT
"""What tasks log by loguru goes to the sinks of the script: its files, its screen, with its formats and levels.

A worker that imports loguru would have a sink of its own, and know nothing of those.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any, Callable

from .bars import make_room
from .interrupts import came_by_signal, own_code
from .log import logger
from .pickling import dumps, loads
from .whenloaded import when_loaded

__all__ = ["enter_worker", "leave", "relog"]


# What sends a line to the script; None in the script itself, and in a copy of a worker that a task forked.
_send: Callable[[bytes], object] | None = None


def enter_worker(send: Callable[[bytes], object]) -> None:
    """Let loguru of this process, a worker, `send` what is logged, for `relog` in the script."""
    global _send
    _send = send
    when_loaded("loguru", _take_over)


def leave() -> None:
    """Write it to the standard error from now on: this process is a copy that a task forked."""
    global _send
    _send = None


def _take_over() -> None:
    theirs = sys.modules["loguru"].logger
    theirs.remove()
    theirs.add(_put, level=0, format="{message}", catch=False)


def _put(message: Any) -> None:
    if _send is not None:
        _send(_pack(message.record))
    else:
        sys.stderr.write(message)


def _pack(record: dict[str, Any]) -> bytes:
    """Serialise a record of loguru: plain data, and what cannot travel of `extra` as text."""
    fields = {name: record[name] for name in ("name", "function", "line", "module", "message", "time", "elapsed")}
    level, process, thread, file = (record[name] for name in ("level", "process", "thread", "file"))
    objects = {
        "file": {"name": file.name, "path": file.path},
        "process": {"id": process.id, "name": process.name},
        "thread": {"id": thread.id, "name": thread.name},
    }
    if record["exception"] is not None:
        fields["message"] += "\n" + "".join(traceback.format_exception(*record["exception"])).rstrip()
    extra = {}
    for name, value in record["extra"].items():
        try:
            dumps(value)
        except Exception:
            value = repr(value)
        extra[name] = value
    return dumps((level.name, level.no, fields, objects, extra))


def relog(data: Any) -> None:
    """Log in this process, by the sinks of the script, what a task has logged."""
    name, number, fields, objects, extra = loads(data)
    message = fields.pop("message")

    def put_back(record: dict[str, Any]) -> None:
        record.update(fields, extra={**record["extra"], **extra})
        for key, attributes in objects.items():
            for attribute, value in attributes.items():
                setattr(record[key], attribute, value)

    make_room()
    own_code.reached = True
    try:
        import loguru  # type: ignore[import-not-found, unused-ignore]

        ours = loguru.logger.patch(put_back)  # type: ignore[arg-type, unused-ignore]
        try:
            ours.level(name)
        except ValueError:
            name = number  # Only the worker knows that level.
        ours.log(name, message)
    except Exception as error:
        if came_by_signal(error):
            raise
        # The tasks must not suffer for it.
        logger().error("what a task logged by loguru cannot be shown: %s: %s", type(error).__name__, error)

# SPDX-License-Identifier: MIT
"""What a task raised, as a worker sends it: the exception itself, as far as it can travel, and its story as text."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

from .explain import headline, plain_headline
from .pickling import dumps, loads

if TYPE_CHECKING:
    import types

__all__ = ["pack_failure", "story", "traceback_text"]

# A traceback of more calls than this is shortened. Python itself stops at 1000, unless it is told otherwise.
DEEP = 2000
# Our own modules between the loop of a worker and the function of the user.
_OURS = (f"{__package__}.worker", f"{__package__}.chunks")
# Between an exception and the next, in Python's words.
_CAUSE = "\n\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\n\nDuring handling of the above exception, another exception occurred:\n\n"


def pack_failure(error: BaseException, *, about_task: bool = False) -> bytes:
    """Serialise an exception: ``(pickle or None, "Type: text", traceback text, about_task)``.

    The pickle is there only if it was seen to come back as it was, or without those of its attributes that cannot
    travel. `about_task`: the text names the task as ``{task}``.
    """
    text = headline(error)
    return dumps((_pack_exception(error), text, story(error), about_task))


def story(error: BaseException) -> str:
    """Give the traceback of an exception of a task, as Python would print it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__") in _OURS:
        trace = trace.tb_next  # Our own frames say nothing to the user.
    # Of a very deep recursion only the innermost calls: to format a million of them takes a minute.
    limit = -DEEP if _is_deep(trace) else None
    return traceback_text(error, trace, limit)


def traceback_text(error: BaseException, trace: types.TracebackType | None, limit: int | None = None) -> str:
    """Format an exception as Python would, with `trace` as its traceback; where Python fails, without its hints."""
    try:
        return "".join(traceback.format_exception(type(error), error, trace, limit=limit)).rstrip()
    except Exception:
        return _plain_text(error, trace, limit)


def _plain_text(error: BaseException, trace: types.TracebackType | None, limit: int | None) -> str:
    """Format an exception, and those that led to it: see `plain_headline`."""
    text = joint = ""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        calls = "".join(traceback.format_tb(trace, limit))
        start = "Traceback (most recent call last):\n" if calls else ""
        text = f"{start}{calls}{plain_headline(one)}{joint}{text}"
        if one.__cause__ is not None:
            one, joint = one.__cause__, _CAUSE
        else:
            one, joint = None if one.__suppress_context__ else one.__context__, _CONTEXT
        trace = None if one is None else one.__traceback__
    return text


def _is_deep(trace: types.TracebackType | None) -> bool:
    for _ in range(DEEP):
        if trace is None:
            return False
        trace = trace.tb_next
    return True


def _pack_exception(error: BaseException) -> bytes | None:
    for portable in (error, _Portable(error, _same), _Portable(error, _what_travels)):
        try:
            data = dumps(portable)
            back = loads(data)
            if type(back) is type(error) and _same_text(back, error):
                return data
        except BaseException:
            continue
    return None


def _same(attributes: dict[str, Any]) -> dict[str, Any]:
    return attributes


def _what_travels(attributes: dict[str, Any]) -> dict[str, Any]:
    """Leave out the connection of a failed download, a lock, and the like."""
    return {name: value for name, value in attributes.items() if _travels(value)}


def _travels(value: Any) -> bool:
    try:
        loads(dumps(value))
    except BaseException:
        return False
    return True


def _same_text(one: BaseException, other: BaseException) -> bool:
    """Compare what two exceptions say, apart from the addresses in the default repr of objects: <Model at 0x7f...>."""
    import re

    return re.sub("0x[0-9a-fA-F]+", "", str(one)) == re.sub("0x[0-9a-fA-F]+", "", str(other))


class _Portable:
    """Wraps an exception whose constructor does not take its own `args`: it is rebuilt without its constructor."""

    def __init__(self, error: BaseException, take: Any) -> None:
        self._error = error
        self._take = take

    def __reduce__(self) -> tuple[Any, ...]:
        error = self._error
        args: Any = error.args
        if isinstance(error, OSError):
            args = OSError.__reduce__(error)[1]  # The name of the file is not among them.
        return _rebuild_exception, (type(error), self._wrap(args), self._take(error.__dict__))

    def _wrap(self, value: Any) -> Any:
        """Wrap the exceptions in the arguments, too: those of an exception group."""
        if isinstance(value, BaseException):
            return _Portable(value, self._take)
        return type(value)(map(self._wrap, value)) if type(value) in (list, tuple) else value


def _rebuild_exception(cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    error = cls.__new__(cls, *args)
    error.args = args
    if isinstance(error, OSError):
        OSError.__init__(error, *args)  # Its number and text stand beside its args.
    error.__dict__.update(state)
    return error

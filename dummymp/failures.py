# SPDX-License-Identifier: MIT
"""What a task raised, as a worker sends it: the exception itself, as far as it can travel, and its story as text."""

from __future__ import annotations

import builtins
import contextlib
import linecache
import traceback
import types
from typing import TYPE_CHECKING, Any

from .explain import headline, shortened
from .interrupts import came_by_signal
from .pickling import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["own_trace", "pack_failure", "story"]

# A traceback of more calls than this is shortened. Python itself stops at 1000, unless it is told otherwise.
DEEP = 2000
# Our own modules between the loop of a worker, or the inline engine, and the function of the user.
_OURS = tuple(f"{__package__}.{name}" for name in ("worker", "chunks", "inline", "contexts", "coroutines", "functions"))
_LED_TO = "The above exception was the direct cause of the following exception:"
_LED_ON = "During handling of the above exception, another exception occurred:"
# The attributes of exceptions as Python itself sees them: a class may have something else under these names.
_TRACEBACK, _CAUSE, _CONTEXT, _SUPPRESS = (
    vars(BaseException)[name].__get__ for name in ("__traceback__", "__cause__", "__context__", "__suppress_context__")
)
# Attributes of these kinds are not in the `__dict__`.
_DESCRIPTORS = (types.MemberDescriptorType, types.GetSetDescriptorType)
# The arguments of these say it all, or the rest is better left: what Python suggests for a name that is not found, it
# would look for in our own frames.
_BY_ARGS = (BaseException, OSError, NameError, AttributeError, getattr(builtins, "BaseExceptionGroup", None))


def pack_failure(error: BaseException, *, about_task: bool = False) -> bytes:
    """Serialise an exception: ``(pickle or None, "Type: text", traceback text, about_task)``.

    The pickle is there only if it was seen to come back as it was, or without those of its attributes that cannot
    travel; then its text may lack all but the first line. `about_task`: the text names the task as ``{task}``.
    """
    text = headline(error)
    return dumps((_pack_exception(error), text, story(error), about_task))


def story(error: BaseException) -> str:
    """Give the traceback of an exception of a task, as Python would print it."""
    trace = own_trace(error)
    # Of a very deep recursion only the innermost calls: to format a million of them takes a minute.
    limit = -DEEP if _is_deep(trace) else None
    try:
        return "".join(map(shortened, traceback.format_exception(type(error), error, trace, limit=limit))).rstrip()
    except BaseException as problem:
        # It looks into the frames for suggestions, and asks the exception: that may call any code.
        if came_by_signal(problem):
            raise
        return "\n\n".join(_plain_parts(error, trace))


def own_trace(error: BaseException) -> types.TracebackType | None:
    """Give the traceback of an exception of a task without our own frames, which say nothing to the user."""
    trace: types.TracebackType | None = _TRACEBACK(error)
    while trace is not None and dict.get(trace.tb_frame.f_globals, "__name__") in _OURS:
        trace = trace.tb_next
    return trace


def _plain_parts(error: BaseException, trace: types.TracebackType | None) -> list[str]:
    """Tell the story of an exception without looking into it: frames, type, text, and before it what led to it."""
    parts = ["\n".join([*_plain_frames(trace), headline(error)])]
    seen = {id(error)}
    while True:
        cause: BaseException | None = _CAUSE(error)
        before = _CONTEXT(error) if cause is None and not _SUPPRESS(error) else cause
        if before is None or id(before) in seen:
            return parts
        seen.add(id(before))
        how = _LED_ON if cause is None else _LED_TO
        parts[:0] = ["\n".join([*_plain_frames(_TRACEBACK(before)), headline(before)]), how]
        error = before


def _plain_frames(trace: types.TracebackType | None) -> Iterator[str]:
    frames = [(frame.f_code, number) for frame, number in traceback.walk_tb(trace)]
    if frames:
        yield "Traceback (most recent call last):"
    for code, number in frames[-DEEP:]:
        yield f'  File "{code.co_filename}", line {number}, in {code.co_name}'
        line = linecache.getline(code.co_filename, number or 0).strip()
        if line:
            yield f"    {line}"


def _is_deep(trace: types.TracebackType | None) -> bool:
    for _ in range(DEEP):
        if trace is None:
            return False
        trace = trace.tb_next
    return True


def _pack_exception(error: BaseException) -> bytes | None:
    ways = [error, *(_Portable(error, take) for take in (_same, _what_travels, _none_for_the_rest))]
    for portable in ways:
        try:
            data = dumps(portable)
            back = loads(data)
            if type(back) is not type(error) or not _slots(error).keys() <= _slots(back).keys():
                continue
            if _same_text(back, error, first_line=portable is ways[-1]):
                return data
        except BaseException:
            continue
    return None


def _same(attributes: dict[str, Any]) -> dict[str, Any]:
    return attributes


def _what_travels(attributes: dict[str, Any]) -> dict[str, Any]:
    """Leave out the connection of a failed download, a lock, and the like."""
    return {name: value for name, value in attributes.items() if _travels(value)}


def _none_for_the_rest(attributes: dict[str, Any]) -> dict[str, Any]:
    """Put None in the place of what does not travel: the text may need that there is something."""
    return {**dict.fromkeys(attributes), **_what_travels(attributes)}


def _travels(value: Any) -> bool:
    try:
        loads(dumps(value))
    except BaseException:
        return False
    return True


def _same_text(one: BaseException, other: BaseException, *, first_line: bool) -> bool:
    """Compare what two exceptions say, apart from the addresses in the default repr of objects: <Model at 0x7f...>."""
    import re

    texts = [re.sub("0x[0-9a-fA-F]+", "", str(error)) for error in (one, other)]
    if first_line:
        texts = [text.partition("\n")[0] for text in texts]
    return texts[0] == texts[1]


def _slots(error: BaseException) -> dict[str, Any]:
    """Give the attributes in ``__slots__`` of Python classes."""
    return _members(error, [cls for cls in type(error).__mro__ if "__slots__" in vars(cls)])


def _members(error: BaseException, classes: Iterable[type]) -> dict[str, Any]:
    """Give the attributes that are not in its ``__dict__``, as far as they are set: the line of a SyntaxError."""
    found: dict[str, Any] = {}
    for cls in classes:
        for name, descriptor in vars(cls).items() if cls not in _BY_ARGS else ():
            if type(descriptor) in _DESCRIPTORS and not name.startswith("__") and name not in found:
                with contextlib.suppress(Exception):
                    found[name] = descriptor.__get__(error)
    return {name: value for name, value in found.items() if value is not None}


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
        members = _members(error, type(error).__mro__)
        return _rebuild_exception, (type(error), self._wrap(args), self._take(error.__dict__), self._take(members))

    def _wrap(self, value: Any) -> Any:
        """Wrap the exceptions in the arguments, too: those of an exception group."""
        if isinstance(value, BaseException):
            return _Portable(value, self._take)
        return type(value)(map(self._wrap, value)) if type(value) in (list, tuple) else value


def _rebuild_exception(
    cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any], members: dict[str, Any]
) -> BaseException:
    try:
        error = cls.__new__(cls, *args)
    except TypeError:  # One of its own, with other parameters.
        error = next(base for base in cls.__mro__ if base.__module__ == "builtins").__new__(cls, *args)
    vars(BaseException)["args"].__set__(error, args)  # It may be frozen.
    if isinstance(error, OSError):
        OSError.__init__(error, *args)  # Its number and text stand beside its args.
    error.__dict__.update(state)
    for name, value in members.items():
        with contextlib.suppress(Exception):  # It cannot be written.
            object.__setattr__(error, name, value)
    return error

# SPDX-License-Identifier: MIT
"""Whether a call fits its function: most do at first sight, and only the others are looked at more closely."""

from __future__ import annotations

from .hints import TYPE_CHECKING
from .options import Options

if TYPE_CHECKING:
    from typing import Any, Callable

__all__ = ["check_fit"]

# What a function has in `co_flags` (see `inspect`) that is a generator or an asynchronous generator.
UNUSUAL = 0x20 | 0x200
# The type of code: `types.CodeType`.
CODE = type((lambda: None).__code__)

# The calls that were looked at and fit: code, kind of function, how many arguments, and the names of the others. Of a
# function that is gone its place may be taken by another; then a call that does not fit is told when it runs.
_fitting: set[tuple[Any, ...]] = set()
# So many of them are remembered.
_FITTING = 1000


def check_fit(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse a call that can be seen not to fit.

    Raises:
        TypeError: `func` is nothing that can be called later, or not with these arguments; the message says why.
    """
    if not callable(func):
        from .wrongcalls import not_callable

        raise TypeError(not_callable(func))
    code = getattr(func, "__code__", None)
    if type(code) is not CODE:
        code = None  # There are objects that give something for every name.
    if kwargs or code is None or len(args) != code.co_argcount or code.co_kwonlyargcount or code.co_flags & UNUSUAL:
        _look_closely(func, code, args, kwargs)


def _look_closely(func: Callable[..., Any], code: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    call = (id(code), type(func), len(args), *kwargs)
    if call not in _fitting:
        from .wrongcalls import check_call

        check_call(func, args, kwargs, settings=Options.names())
        if code is not None or type(func) is type(abs):  # Otherwise only looking again can tell.
            if len(_fitting) >= _FITTING:
                _fitting.clear()
            _fitting.add(call)

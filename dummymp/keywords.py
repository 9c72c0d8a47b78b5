# SPDX-License-Identifier: MIT
"""Functions of ours that are called in a wrong way say so in the words of who calls them, and suggest the near name."""

from __future__ import annotations

import functools
import types

from .hints import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Callable, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["hinting"]

_VARARGS = 0x04  # of `co_flags`


def hinting(name: str, method: F) -> F:
    """Let a method tell of a keyword that it has not, and of too many arguments, not counting `self`.

    Args:
        name: What the user calls it.
        method: The method; of an object, or as its class has it.
    """
    code = method.__code__
    known = {*code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]} - {"self"}
    own = 0 if isinstance(method, types.MethodType) else 1
    most = own + code.co_argcount - 1
    counts = not code.co_flags & _VARARGS

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        if len(args) > most and counts:
            raise TypeError(f"{_takes(most - own, name, code.co_kwonlyargcount)}, and was given {len(args) - own}")
        for keyword, value in kwargs.items():
            if keyword not in known:
                raise TypeError(_unknown(name, keyword, value, known, args))
        return method(*args, **kwargs)

    return call  # type: ignore[return-value]


def _takes(most: int, name: str, keywords: int) -> str:
    by_position = " by position" if keywords else ""
    return f"{name}() takes {most or 'no'} argument{'' if most == 1 else 's'}{by_position}"


def _unknown(name: str, keyword: str, value: Any, known: set[str], args: tuple[Any, ...]) -> str:
    if not known:
        return f"{_takes(0, name, 0)}, and was given {keyword!r}"
    from .wrongcalls import no_such_argument

    return no_such_argument(name, keyword, value, known, args)

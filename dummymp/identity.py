# SPDX-License-Identifier: MIT
"""Things that come back as themselves, although they travel by value: classes, type parameters, sentinels.

Each gets a token when it is sent for the first time. A worker that sends it back sends the token, so that an object of
a class of the user arrives as an object of that very class, and the class of the user is never written over by a copy
of itself. In a worker there is one of each, too, by however many ways it comes.
"""

from __future__ import annotations

import itertools
import os
import weakref
from typing import Any, Callable

from . import nesting
from .mainmodule import show_in_main

__all__ = ["came", "once_around"]

# A token is (pid, count): the pid of the process that made it, so that a worker's own tokens differ from its parent's.
_counter = itertools.count()
# All that this process sent. It must outlive its results, so it is held for good; a program has only so many classes.
_sent: dict[tuple[int, int], Any] = {}
_tokens: dict[int, tuple[int, int]] = {}  # By the id of the thing.
# In a worker: what came, by its token, and the tokens by its id. Where it can be, it is referred to weakly.
_came: dict[tuple[int, int], Callable[[], Any]] = {}
_tokens_came: dict[int, tuple[int, int]] = {}


def once_around(thing: Any, make: Callable[..., Any], args: tuple[Any, ...], *state: Any, here: bool) -> Any:
    """Reduce a thing, as `object.__reduce__` does, so that it comes back as itself.

    Args:
        thing: What travels.
        make: Makes it in another process.
        args: What `make` takes; what follows is as in `object.__reduce__`.
        here: It will be loaded in this very process.
    """
    token = _tokens_came.get(id(thing))
    if token is not None and nesting.in_worker():
        return _find, (token,)  # It goes back to where it came from.
    if token is None:
        token = _tokens.setdefault(id(thing), (os.getpid(), next(_counter)))
    _sent[token] = thing  # It may have come from one worker, and go on to another.
    if here:
        return _find, (token,)
    return (_take, (token, make, args), *state)


def came(thing: Any) -> bool:
    """Tell whether a thing came to this process by value, so that it is a copy."""
    return id(thing) in _tokens_came


def _find(token: tuple[int, int]) -> Any:
    """Find the thing of a token, in the process that sent it or in a worker that got it."""
    return _sent[token] if token in _sent else _came[token]()


def _take(token: tuple[int, int], make: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Make, in a worker, a thing that came by value, unless it is here already."""
    if token in _sent:
        return _sent[token]  # It never left this process, so others have not got it.
    thing = _came[token]() if token in _came else None
    if thing is None:
        thing = make(*args)
        _note(thing, token)
        show_in_main(thing)
    return thing


def _note(thing: Any, token: tuple[int, int]) -> None:
    key = id(thing)

    def forget(_: Any) -> None:
        if _tokens_came.get(key) == token:
            del _tokens_came[key], _came[token]

    try:
        _came[token] = weakref.ref(thing, forget)
    except TypeError:
        _came[token] = lambda: thing
    _tokens_came[key] = token

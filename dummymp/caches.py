# SPDX-License-Identifier: MIT
"""Functions of the script with ``@functools.cache``: in a worker each keeps its cache from one task to the next.

That is how a script loads once what every task needs. As long as the function behind is the same, with all that it
captures, a worker has one of it, by however many tasks and functions it comes; the cache itself does not travel.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import threading
import weakref
from typing import Any, Callable

from .modules import travels_by_name

__all__ = ["CACHED", "reduce_cached"]

CACHED = functools._lru_cache_wrapper

_counter = itertools.count()
# By the id of such a function: a token for it, and what refers to it.
_tokens: dict[int, tuple[tuple[int, int], Callable[[], Any]]] = {}
# In a worker, by the token: the digest of the function behind, and the one with the cache.
_kept: dict[tuple[Any, Any], tuple[bytes, Any]] = {}
# So many of them are kept.
MOST = 128


class _UnderWay(threading.local):
    """The functions that are just being looked at in this thread; they may capture themselves."""

    def __init__(self) -> None:
        self.ids: set[int] = set()
        self.digests: dict[int, bytes] = {}  # of those that were looked at for the outermost one


_under_way = _UnderWay()


def reduce_cached(func: Any, dump: Callable[[Any], bytes]) -> Any:
    """Reduce a function with a cache, as `object.__reduce__` does; `dump` serialises any value."""
    if travels_by_name(func):
        return NotImplemented
    if id(func) in _under_way.ids:
        return str, (func.__name__,)
    digest = _under_way.digests.get(id(func))
    if digest is None:
        _under_way.ids.add(id(func))
        try:
            digest = hashlib.sha256(dump(func.__wrapped__)).digest()
        finally:
            _under_way.ids.discard(id(func))
            if not _under_way.ids:
                _under_way.digests.clear()  # Also if one of them cannot travel: all may have changed by the next time.
        if _under_way.ids:
            _under_way.digests[id(func)] = digest
    return _take, (func.__wrapped__, func.cache_parameters(), _token_of(func), digest)


def _token_of(func: Any) -> tuple[Any, Any]:
    """Give what stands for a function: where it is at home, so that one that is defined anew takes its place."""
    if "<" not in func.__qualname__:
        return func.__module__, func.__qualname__
    token, known = _tokens.get(id(func), ((0, 0), lambda: None))
    if known() is not func:
        token = os.getpid(), next(_counter)
        _tokens[id(func)] = token, weakref.ref(func)
    return token


def _take(func: Callable[..., Any], parameters: dict[str, Any], token: tuple[Any, Any], digest: bytes) -> Any:
    """Give the function with a cache that is here already, if it is still the same, or make it; its cache is empty."""
    known, cached = _kept.get(token, (b"", None))
    if known != digest:
        cached = functools.lru_cache(**parameters)(func)
        while len(_kept) >= MOST and token not in _kept:
            del _kept[next(iter(_kept))]
        _kept[token] = digest, cached
    return cached

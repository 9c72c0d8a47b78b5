# SPDX-License-Identifier: MIT
"""Random generators of the script, ``rng = numpy.random.default_rng(42)``, that tasks draw from.

A call is frozen when it is queued, and so would be the generator: a hundred calls with the same one would all draw the
same numbers, which is wrong science without a word. So each call gets a stream of its own, spawned from the generator
as it was then, and from the number of the call. That is the same in every run, and for any number of workers.

A generator that only one call gets, as an argument, such as those of ``rng.spawn(100)``, arrives as it is.
"""

from __future__ import annotations

import hashlib
import pickle
from typing import Any, Callable

from .log import logger

__all__ = ["CALLS", "MAP", "ONE_CALL", "draws_anew", "reduce_generator", "set_numbering"]

# For whom a generator is sent: see `reduce_generator`.
ONE_CALL, CALLS, MAP = range(3)

# Gives the number of the task, or of the item of a map, that runs in this process; None where none does.
_number: Callable[[], int | None] = lambda: None  # noqa: E731
# The states of the generators that were sent, by their digests. After so many the oldest is forgotten.
_sent: dict[bytes, None] = {}
# How often each state was sent with the function of a map, after the first time.
_maps: dict[bytes, int] = {}
REMEMBERED = 10_000
_told = False


def set_numbering(number: Callable[[], int | None]) -> Callable[[], int | None]:
    """Say what gives the number of the task that runs in this process; give what said so before."""
    global _number
    before, _number = _number, number
    return before


def reduce_generator(generator: Any, *, many: int) -> tuple[Any, ...]:
    """Reduce a generator, as `object.__reduce__` does.

    Args:
        generator: A `random.Random`, `numpy.random.RandomState` or `numpy.random.Generator`.
        many: ONE_CALL: it is an argument of a call, or the like. CALLS: a function uses it, which others call, too, and
            the script may draw from it between them. MAP: a function uses it that many items are given to.
    """
    kind = type(generator).__name__
    if kind == "Random":
        state: Any = generator.getstate()
    elif kind == "RandomState":
        state = generator.get_state(legacy=False)
    else:
        state = generator.bit_generator.state
    digest = hashlib.sha256(pickle.dumps(state, 4)).digest()
    if many == MAP:
        _maps[digest] = again = _maps.get(digest, -1) + 1
        if again:  # The items of another map have the same numbers.
            digest = hashlib.sha256(b"%s/map %d" % (digest, again)).digest()
    shared = many != ONE_CALL or digest in _sent
    if shared:
        _tell()
    if len(_sent) >= REMEMBERED:
        del _sent[next(iter(_sent))]
    _sent[digest] = None
    return _make, (kind, state, digest if shared else b"")


def draws_anew(data: bytes) -> bool:
    """Tell whether what was serialised may hold a generator of the script, of which each call gets a stream anew."""
    return __name__.encode() in data


def _tell() -> None:
    """Say once what becomes of a generator that several calls get."""
    global _told
    if not _told and _number() is None:
        _told = True
        logger().warning(
            "a random generator of the script goes to several calls. Each draws from a stream of its own, spawned from "
            "the generator and the number of the call: no two draw the same, and all draw the same in every run."
        )


def _make(kind: str, state: Any, digest: bytes) -> Any:
    """Make a generator with this state; with a `digest`, in a task, one that is spawned from it."""
    number = _number() if digest else None
    seed = 0 if number is None else int.from_bytes(hashlib.sha256(b"%s/%d" % (digest, number)).digest(), "little")
    if kind == "Random":
        import random

        own = random.Random(seed)
        if number is None:
            own.setstate(state)
        return own
    import numpy

    bits: Any = getattr(numpy.random, state["bit_generator"])(seed)
    if number is None:
        bits.state = state if kind == "Generator" else {key: state[key] for key in ("bit_generator", "state")}
    if kind == "Generator":
        return numpy.random.Generator(bits)
    made: Any = numpy.random.RandomState(bits)
    if number is None:
        made.set_state(state)
    return made

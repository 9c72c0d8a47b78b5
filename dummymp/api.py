# SPDX-License-Identifier: MIT
"""The functions of the package: the methods of one hidden queue, as `random` has them of one hidden generator."""

from __future__ import annotations

import functools

from . import nesting
from .hints import TYPE_CHECKING
from .taskqueue import TaskQueue

if TYPE_CHECKING:
    from typing import Any, Callable, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = [
    "available_cpus",
    "configure",
    "get_errors",
    "get_returns",
    "get_stats",
    "kill",
    "killall",
    "map",
    "process_process",
    "process_queue",
    "process_until_done",
    "reset",
    "results",
    "run",
    "step",
    "total_cpus",
    "worker_pids",
]


def _hinting(method: F) -> F:
    """Let a method with keywords suggest the near one when it is called with one that it has not."""
    name, code = method.__name__, method.__code__
    known = {*code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]} - {"self"}

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        for keyword, value in kwargs.items():
            if keyword not in known:
                from .wrongcalls import no_such_argument

                raise TypeError(no_such_argument(name, keyword, value, known, args))
        return method(*args, **kwargs)

    call.__module__ = str(__package__)
    return call  # type: ignore[return-value]


# What Python itself says of a wrong call names the function as users know it: dummymp.run(), not TaskQueue.run().
for _name in __all__:
    getattr(TaskQueue, _name).__qualname__ = f"dummymp.{_name}"

_queue = TaskQueue()
nesting.hide(_queue)

available_cpus = _queue.available_cpus
configure = _queue.configure
get_errors = _queue.get_errors
get_returns = _queue.get_returns
get_stats = _queue.get_stats
kill = _queue.kill
killall = _queue.killall
map = _hinting(_queue.map)
process_process = _queue.process_process
process_queue = _queue.process_queue
process_until_done = _hinting(_queue.process_until_done)
reset = _queue.reset
results = _queue.results
run = _queue.run
step = _queue.step
total_cpus = _queue.total_cpus
worker_pids = _queue.worker_pids

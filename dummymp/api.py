# SPDX-License-Identifier: MIT
"""The functions of the package: the methods of one hidden queue, as `random` has them of one hidden generator."""

from __future__ import annotations

from .namesakes import explained

with explained:  # The first imports of all: a script named types.py or threading.py fails here.
    from . import nesting
    from .hints import TYPE_CHECKING
    from .keywords import hinting
    from .taskqueue import TaskQueue

if TYPE_CHECKING:
    from typing import Any, Callable, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = [
    "available_cpus",
    "configure",
    "forget",
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
    "rng",
    "run",
    "step",
    "total_cpus",
    "worker_pids",
]


def _told(method: F) -> F:
    """Let a function of the face tell of wrong arguments as users know it, and travel to workers by its name."""
    call = hinting(f"dummymp.{method.__name__}", method)
    call.__module__, call.__qualname__ = str(__package__), method.__name__
    return call


# What Python itself says of a wrong call names the function as users know it: dummymp.run(), not TaskQueue.run().
for _name in __all__:
    if _name != "rng":  # It has no queue.
        getattr(TaskQueue, _name).__qualname__ = f"dummymp.{_name}"

_queue = TaskQueue()
nesting.hide(_queue)

available_cpus = _told(_queue.available_cpus)
configure = _queue.configure
forget = _told(_queue.forget)
get_errors = _told(_queue.get_errors)
get_returns = _told(_queue.get_returns)
get_stats = _told(_queue.get_stats)
kill = _told(_queue.kill)
killall = _told(_queue.killall)
map = _told(_queue.map)
process_process = _told(_queue.process_process)
process_queue = _told(_queue.process_queue)
process_until_done = _told(_queue.process_until_done)
reset = _told(_queue.reset)
results = _told(_queue.results)
run = _queue.run
step = _told(_queue.step)
def rng() -> Any:
    """Give a `numpy.random.Generator` of the running task's own stream.

    With ``configure(seed=...)`` the stream follows from the seed and the call number alone: it is the same in every
    run, and for any number of workers. Without a seed it is another one in each run. Within one task it is always the
    same generator; outside of tasks the script has one of its own.

    Raises:
        MissingExtra: NumPy is not installed.
    """
    from .seeds import generator, generator_of_script

    return generator() if nesting.in_task() else generator_of_script(_queue._options.seed)


rng.__module__ = str(__package__)
total_cpus = _told(_queue.total_cpus)
worker_pids = _told(_queue.worker_pids)

# SPDX-License-Identifier: MIT
"""The functions of the package: the methods of one hidden queue, as `random` has them of one hidden generator."""

from __future__ import annotations

from . import nesting
from .taskqueue import TaskQueue

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

_queue = TaskQueue()
nesting.hide(_queue.set_aside, _queue.start_over)

available_cpus = _queue.available_cpus
configure = _queue.configure
get_errors = _queue.get_errors
get_returns = _queue.get_returns
get_stats = _queue.get_stats
kill = _queue.kill
killall = _queue.killall
map = _queue.map
process_process = _queue.process_process
process_queue = _queue.process_queue
process_until_done = _queue.process_until_done
reset = _queue.reset
results = _queue.results
run = _queue.run
step = _queue.step
total_cpus = _queue.total_cpus
worker_pids = _queue.worker_pids

# SPDX-License-Identifier: MIT
"""Multiprocessing for people who have never started a process.

    import dummymp

    for n in range(100):
        dummymp.run(slow, n)              # queued, not run yet
    dummymp.process_until_done()          # run them all, in parallel
    print(dummymp.get_returns())          # {0: ..., 1: ..., ...} in the order of the run() calls

What there is; help(dummymp.run) tells more of `run`, and so on:

    to queue calls
        run                  add one function call to the queue
        map                  call one function for many items, in a loop over the results
    to work on them
        process_until_done   run what is queued, until all is done
        step                 go one round, for a loop of your own
        process_process      the same, as it was called in 0.5
        process_queue        take in what has ended, and start nothing
        kill                 stop one task
        killall              stop all tasks
        reset                forget everything, as after the import
    results
        get_returns          what the calls returned, by their numbers
        get_errors           what they raised, by their numbers
        results              wait for all; what they returned, as a list
        forget               drop what has ended; numbers and settings stay
    settings and questions
        configure            all settings: how many at once, how considerate, timeouts, retries, callbacks, ...
        get_stats            how things stand, and what the queue waits for
        worker_pids          the process ids of the workers
        total_cpus           how many CPUs we may use
        available_cpus       how many of them others leave free now
        rng                  in a task: a NumPy Generator of its own
    classes
        Task                 what run() gives: one call, its state and its result
        TaskQueue            a queue of its own, with all of this as methods
        Priority, Preset     how considerate to be
        DummyMPError         the base of all errors of this package
"""

# A map of the package, from the top down:
#
#   api, legacy        the functions: methods of one hidden queue
#   taskqueue          records calls, drives them, hands out results         options, presets, progress, leftovers
#   ledger, task       ... what came of each, and how many of each kind      callbacks, cells
#   lazymap            map: a loop over results, read and worked on ahead    mapinput, maptasks
#   inline, engine     the engines: here, or in worker processes             interrupts
#   manager            drives: gives tasks to workers, takes in and tells    feeding, pace, intake, fate, outbox, pool
#   budget, policy     how many may run now, and why                         cpus, limits, memory, oom, reasons
#                      ... and what others on this machine use               counters, neighbours, programs, kernelfiles
#   handle, launcher   the parent's side of a worker, and of the server      transport, page, waiting, windows
#   forkserver         the server: starts workers, ends everything           boot, processes, niceness, threadlimits
#   worker             inside a worker                                       chunks, nesting, seeds, surroundings
#                      ... generators of the script, async functions         streams, coroutines, copies, rebuilt
#   mainmodule         ... what stands for the script there                  whenloaded
#   failures           ... what a task raised
#   freeze, pickling   what travels: calls and results                       repeats, captures, modules, explain, errors
#   functions, classes ... by value: those that a worker cannot import       codes, sources, identity, versions, caches
#                      ... classes that libraries make                       structs
#   reducers           ... what pickle does not know                         typeparams, annotations, keepsakes
#                      ... arrays                                            arrays, memmaps
#   contexts           ... what holds around a call                          contextvariables
#   buffers            ... their large parts                                 memoryfile, descriptors
#   output, displays   ... text, pictures, and log records                  forward, bars, crashes, questions, fulldisk
#                      ... of loguru                                         intercept
#   fitting            calls that do not fit, told before they are made      wrongcalls, keywords, noreturn, elsewhere
#   hints              what type checkers want to see
#   namesakes          files of the user's with names of Python's modules

from __future__ import annotations

from .api import (
    available_cpus,
    configure,
    forget,
    get_errors,
    get_returns,
    get_stats,
    kill,
    killall,
    map,  # noqa: F401
    process_process,
    process_queue,
    process_until_done,
    reset,
    results,
    rng,
    run,
    step,
    total_cpus,
    worker_pids,
)
from .errors import (
    DummyMPError,
    MissingExtra,
    NotPicklable,
    TaskFailed,
    TaskKilled,
    TasksFailed,
    TaskTimeout,
    WorkerDied,
    WorkersCannotStart,
)
from .legacy import *  # noqa: F403
from .legacy import __all__ as _legacy_names
from .presets import Preset, Priority
from .task import Task
from .taskqueue import TaskQueue

__version__ = "1.0.0"

__all__ = [
    "DummyMPError",
    "MissingExtra",
    "NotPicklable",
    "Preset",
    "Priority",
    "Task",
    "TaskFailed",
    "TaskKilled",
    "TaskQueue",
    "TaskTimeout",
    "TasksFailed",
    "WorkerDied",
    "WorkersCannotStart",
    "available_cpus",
    "configure",
    "forget",
    "get_errors",
    "get_returns",
    "get_stats",
    "kill",
    "killall",
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
# A star import must not shadow the builtin map, so this name is only in the shop window.
_names_of_today = [*__all__, "map"]
__all__ += _legacy_names


def __dir__() -> list[str]:
    """Show today's names; those of 0.5 work all the same."""
    return [*_names_of_today, "__doc__", "__version__"]

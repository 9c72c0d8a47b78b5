# SPDX-License-Identifier: MIT
"""Fates of tasks in words: what a failure was, how a worker died, and what may have been the cause."""

from __future__ import annotations

import functools
import os
import re
import signal
from typing import TYPE_CHECKING, Any, Callable

from .errors import NotPicklable, TaskFailed, TaskTimeout, WorkerDied, WorkerTraceback
from .memory import memory
from .oom import oom_kills
from .pickling import loads

if TYPE_CHECKING:
    from .handle import WorkerHandle
    from .task import Task

__all__ = ["Deaths", "timed_out", "unpack_failure"]

# With less than this share of the memory free, a SIGKILL is put down to lack of memory.
_SCARCE = 0.05
_CRASHES = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT")


def unpack_failure(task: Task[Any], body: Any) -> tuple[Callable[[], BaseException], str]:
    """Give what rebuilds the exception of a task, itself or what stands in for it, and what the log says.

    To rebuild it may run code of the user; it raises nothing but KeyboardInterrupt.
    """
    pickled, text, trace, about_task = loads(body)
    if about_task:
        text = text.partition(": ")[2].replace("{task}", f"{task._describe()},")
        return functools.partial(NotPicklable, text), text
    what = task._describe()
    story = f"{what}, failed: {text}"
    # Without a single frame, as for arguments that do not fit, the traceback says no more.
    return functools.partial(_rebuild, pickled, text, trace, what), story if trace == text else f"{story}\n{trace}"


def _rebuild(pickled: bytes | None, text: str, trace: str, what: str) -> BaseException:
    error: object = None
    if pickled is not None:
        try:
            error = loads(pickled)
        except KeyboardInterrupt:
            raise
        except BaseException:
            pass  # Its class cannot be found or built here: the stand-in has its text.
    rebuilt = error if isinstance(error, BaseException) else TaskFailed(text)
    vars(BaseException)["__cause__"].__set__(rebuilt, WorkerTraceback(trace, what))  # Its class may have its own.
    return rebuilt


def timed_out(task: Task[Any]) -> TaskTimeout:
    """Say that a task took too long."""
    return TaskTimeout(
        f"{task._describe()}, was stopped after {task._timeout:g} s (its timeout). Other tasks go on. "
        f"More time: {task._more_time}"
    )


class Deaths:
    """Says how workers died. It remembers how many of the kernel's kills for lack of memory are explained."""

    def __init__(self) -> None:
        self._oom_kills = oom_kills()

    def explain(self, handle: WorkerHandle, task: Task[Any], status: int | None, running: int) -> WorkerDied:
        """Say how the worker died under this task.

        Args:
            handle: The worker.
            task: What it ran.
            status: Its exit code, or minus the number of the signal; None if nobody knows.
            running: How many tasks ran at the time, for the advice.
        """
        name = exitcode = None
        if status is None:
            how = "ended"
        elif status < 0:
            name = _signal_name(-status)
            how = f"was killed ({name})"
        else:
            exitcode = status
            how = f"ended itself with exit code {status}"
        text = f"worker {handle.pid} {how} while it ran {task._describe()}"
        if status is None:
            text += ". How it ended is not known, because the server process that would tell was killed before"
        if name == "SIGKILL":
            text += self._out_of_memory(running, handle.peak)
        elif name in _CRASHES:
            text += ". That is a fault in compiled code (a library that the function uses), not in Python code"
            text += _last_line(handle.last_words)
        elif name == "SIGALRM":
            text += ". That is an alarm (signal.alarm), which a task before it in the same worker may have left behind"
        text += ". Other tasks go on."
        error = WorkerDied(text, task=task.index, pid=handle.pid, exitcode=exitcode, signal=name)
        start = handle.last_words.find("Fatal Python error")
        if start >= 0:
            error.__cause__ = WorkerTraceback(handle.last_words[start:].rstrip(), task._describe())
        return error

    def _out_of_memory(self, running: int, peak: int) -> str:
        if not self._was_oom_kill():
            return ""
        used = f" (the worker had used up to {_in_words(peak)})" if peak else ""
        if running > 1:
            way_out = f"Fewer at once may help: dummymp.configure(max_processes={running - 1})"
        else:
            way_out = "It ran alone, so give it less at a time, or a machine with more memory"
        return f"; probably the machine was out of memory{used}. {way_out}"

    def _was_oom_kill(self) -> bool:
        """Tell whether the kernel says that it has killed one more than was explained, or memory is scarce now."""
        kills = oom_kills()
        if kills is not None and self._oom_kills is not None and kills > self._oom_kills:
            self._oom_kills += 1  # One is one worker: several may have been killed by now.
            return True
        free = memory().free
        return free is not None and free < _SCARCE


def _in_words(size: int) -> str:
    """Put a number of bytes in words: 1.9 GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _last_line(trace: str) -> str:
    """Find, in what faulthandler wrote, the Python line of the user on which a crash happened."""
    current = trace.partition("Current thread")[2] or trace
    own = os.path.dirname(__file__)
    for path, number, name in re.findall(r'File "(.*)", line (\d+) in (.*)', current):
        if os.path.dirname(path) != own:
            return f"; the last Python line was {path}, line {number}, in {name}"
    return ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

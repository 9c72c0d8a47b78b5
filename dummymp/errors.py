# SPDX-License-Identifier: MIT
"""What can go wrong at run time, drawn once.

    DummyMPError
     +-- NotPicklable        (TypeError)     an argument or a result that cannot travel
     +-- WorkerDied          (RuntimeError)  the process of a task ended under it
     +-- WorkersCannotStart  (RuntimeError)  no worker comes up at all
     +-- TaskTimeout         (TimeoutError)  a task took longer than its `timeout`
     +-- TaskKilled          (RuntimeError)  a task was stopped or dropped on request
     +-- TaskFailed          (RuntimeError)  stands in for an exception that cannot travel
     +-- TasksFailed         (RuntimeError)  all failures of a run, for on_error="raise"
     +-- MissingExtra        (ImportError)   an optional package is not installed

Each is also the standard error that a reader would expect, so that ``except TimeoutError`` works.
Wrong calls (a typo, an impossible number) are plain TypeError and ValueError.
"""

from __future__ import annotations

import sys

__all__ = [
    "DummyMPError",
    "MissingExtra",
    "NotPicklable",
    "TaskFailed",
    "TaskKilled",
    "TaskTimeout",
    "TasksFailed",
    "WorkerDied",
    "WorkerTraceback",
    "WorkersCannotStart",
]


class DummyMPError(Exception):
    """Is the base of all errors of this package."""


class NotPicklable(DummyMPError, TypeError):
    """Says which argument, captured variable or part of a result cannot be sent, and what to do instead."""


class WorkerDied(DummyMPError, RuntimeError):
    """Says that the process that ran a task ended before the task did.

    Attributes:
        task: The number of the task.
        pid: The process id of the worker.
        exitcode: Its exit code, None where a signal ended it or nobody could tell.
        signal: The name of the signal that ended it ("SIGKILL"), or None.
    """

    def __init__(
        self,
        message: str = "",
        *,
        task: int | None = None,
        pid: int | None = None,
        exitcode: int | None = None,
        signal: str | None = None,
    ) -> None:
        super().__init__(message)
        self.task = task
        self.pid = pid
        self.exitcode = exitcode
        self.signal = signal


class WorkersCannotStart(DummyMPError, RuntimeError):
    """Says that workers end before they are ready, again and again, and what they said."""


class TaskTimeout(DummyMPError, TimeoutError):
    """Says that a task was stopped because it took longer than its `timeout`."""


class TaskKilled(DummyMPError, RuntimeError):
    """Says that a task was stopped, or dropped from the queue, because somebody asked for it."""


class TaskFailed(DummyMPError, RuntimeError):
    """Stands in for an exception of a task that cannot be sent, or would end the script; carries its type and text."""


class TasksFailed(DummyMPError, RuntimeError):
    """Holds all failures of a run.

    Attributes:
        errors: The exceptions by call number, in call order.
    """

    def __init__(self, message: str = "", errors: dict[int, BaseException] | None = None) -> None:
        super().__init__(message)
        self.errors: dict[int, BaseException] = errors or {}


class MissingExtra(DummyMPError, ImportError):
    """Says which optional package a feature needs, and how to install it."""


class WorkerTraceback(Exception):
    """Carries the traceback of a worker as text; it is the `__cause__` of a task's exception.

    Attributes:
        text: The traceback.
        task: Whose it is: ``task 7, simulate('big.csv')``.
        told: It was written to the standard error when it happened. Then Python does not repeat it when the exception
            ends the script; everywhere else it is shown.
    """

    def __init__(self, text: str = "", task: str = "a task") -> None:
        super().__init__(text)
        self.text = text
        self.task = task
        self.told = False

    def __str__(self) -> str:
        if self.told and self._ends_script():
            return f"{self.task}, in its worker (its traceback stands above)"
        return f"{self.task}, in its worker:\n{self.text}"

    def _ends_script(self) -> bool:
        """Tell whether Python itself is showing the exception that ends the script, and this with it."""
        if hasattr(sys, "ps1") or sys.excepthook is not sys.__excepthook__:
            return False  # In a shell it may be looked at again; other hooks may show it elsewhere.
        error: BaseException | None = getattr(sys, "last_value", None)  # Python sets it just before it calls the hook.
        for _ in range(100):
            if error is None or error is self:
                break
            error = error.__cause__ or error.__context__
        return error is self

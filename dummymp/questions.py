# SPDX-License-Identifier: MIT
"""What a task cannot ask: it runs in the background, where nobody answers. It is told what to do instead."""

from __future__ import annotations

import builtins
import os
import sys
from typing import Any

__all__ = ["refuse_questions"]

NO_INPUT = (
    "a task called input(), but tasks run in the background and cannot ask questions. "
    "Ask before dummymp.run() and pass the answer as an argument"
)
NO_DEBUGGER = (
    "a task wanted a debugger, but tasks run in the background, where nobody can type. "
    'To debug, write dummymp.configure(engine="inline") at the top: then tasks run in the script itself'
)
# What `breakpoint` calls if nobody says otherwise.
_PDB = ("", "pdb.set_trace")


def refuse_questions() -> None:
    """Let `input` and `breakpoint` say that nobody is there, in this process."""
    builtins.input = _no_input
    sys.breakpointhook = _no_debugger


def _no_input(prompt: object = "") -> str:
    # pdb, called by its own name, takes an EOFError for "q", and the task would fail with a bdb.BdbQuit.
    if sys._getframe(1).f_globals.get("__name__") == "cmd":
        raise RuntimeError(NO_DEBUGGER)
    raise EOFError(NO_INPUT)


def _no_debugger(*args: Any, **kwargs: Any) -> Any:
    """Be `sys.breakpointhook`: a debugger of the user's choice may need no terminal, and "0" means none at all."""
    wanted = "" if sys.flags.ignore_environment else os.environ.get("PYTHONBREAKPOINT", "")
    if wanted not in _PDB:
        return sys.__breakpointhook__(*args, **kwargs)
    raise RuntimeError(NO_DEBUGGER)

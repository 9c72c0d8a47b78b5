# SPDX-License-Identifier: MIT
"""The source text of functions that stand in no file: of a shell, of a notebook, of ``python -c``.

Only the process in which they were typed has it, so workers are told of it, and keep it where all of Python looks for
lines of source: in `linecache`.
"""

from __future__ import annotations

import linecache
import os
import re
import stat
import sys
import types
from typing import Any

__all__ = ["forget_bootstrap", "keep_source", "shown_name", "told"]

# All that workers are to be told, name and text, in the order in which it became known. It only grows, and each worker
# is told what it does not know yet: see `WorkerHandle`. Without a name: which versions of modules there are, see
# `versions`.
told: list[tuple[str, str | bytes]] = []
# By the file name: None for a file that workers read themselves, or that nobody knows the text of; else its text.
_texts: dict[str, str | None] = {}
# The newest text that was told, by the name that it was told by.
_newest: dict[str, str] = {}

# Names of the cells of IPython, before it could be asked (version 7).
_CELL = re.compile(r"<ipython-input-(\d+)-\w+>")


def shown_name(code: types.CodeType) -> str:
    """Give the file name that a piece of code has in a worker; and see to it that workers know its text.

    It is that of the code itself. Only a cell of a notebook is called what its author calls it, ``In [3]``: behind it
    stands a temporary file that was never written.
    """
    name = code.co_filename
    if name not in _texts:
        _texts[name] = None if _is_readable(name) else _find_text(code)
    text = _texts[name]
    if text is None:
        return name
    name = _cell_name(name)
    if _newest.get(name) != text:
        _newest[name] = text
        told.append((name, text))
        if name != code.co_filename:
            keep_source(name, text)  # A worker may give the function back.
    return name


def keep_source(name: str, text: str) -> None:
    """Keep a source that this process was told, for all that asks `linecache`."""
    # Without a time of change it is never compared with a file.
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name


def forget_bootstrap() -> None:
    """Forget the source of the command that started this process: `exec` in a task has the same file name."""
    # Since Python 3.13; its first releases knew it by the name of the file, later ones also by function and line.
    linecache.cache.pop("<string>", None)
    getattr(linecache, "_interactive_cache", {}).clear()


def _is_readable(name: str) -> bool:
    """Tell whether workers find the file, whatever their working directory."""
    return os.path.isabs(name) and os.path.exists(name)


def _find_text(code: types.CodeType) -> str | None:
    """Find the source of the file that a piece of code comes from, if anybody in this process knows it."""
    import inspect  # Costs milliseconds.

    # The newest Pythons know the text of what was typed by its function, not by the name of its file.
    cells = tuple(types.CellType() for _ in code.co_freevars)
    func = types.FunctionType(code, {"__name__": "__main__"}, None, None, cells)
    try:
        lines, _ = inspect.findsource(func)
    except Exception:
        lines = []  # It looks into what others have put into `linecache`, and may find anything there.
    text = "".join(lines)
    if not text and code.co_filename == "<string>":
        return _command_text()
    if not text and code.co_filename == "<stdin>":
        return _stdin_text()
    return text or None


def _command_text() -> str | None:
    """Give the text of ``python -c TEXT``, which Python itself remembers since 3.13."""
    if getattr(sys, "argv", [])[:1] != ["-c"]:
        return None
    words = iter(getattr(sys, "orig_argv", []))  # Since Python 3.10.
    return next(words, None) if any(re.fullmatch("-[A-Za-z]*c", word) for word in words) else None


def _stdin_text() -> str | None:
    """Give the text of ``python < FILE``; None if it came through a pipe, or is typed."""
    try:
        status = os.fstat(0)
        return os.pread(0, status.st_size, 0).decode() if stat.S_ISREG(status.st_mode) else None
    except (AttributeError, OSError, UnicodeError):
        return None


def _cell_name(name: str) -> str:
    """Give what IPython calls a cell, ``In [3]``; any other name as it is."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    try:
        label = shell.compile.format_code_name(name)  # ("Cell", "In[3]"), since IPython 8.
    except Exception:
        cell = _CELL.fullmatch(name)
        return f"In [{cell[1]}]" if cell else name
    return label[1].replace("In[", "In [", 1) if label else name

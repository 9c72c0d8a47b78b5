# SPDX-License-Identifier: MIT
"""Namesakes: files of the user that Python finds in place of a module of its own, such as a script named math.py.

Such a script runs a second time, in the middle of an import of ours, and what fails then has nothing to do with it.
"""

from __future__ import annotations

import os
import sys

# As in `hints`, which itself imports what may have a namesake.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["explained"]

# What we need and Python does not bring.
_NEEDED = ("cloudpickle", "psutil")


class _Explained:
    """A block of imports: where they fail because of a namesake, the error says so. ``with explained:``."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, (ImportError, AttributeError)) or getattr(error, "name", None) == __name__:
            return  # It is another error, or said already by the script that runs inside of this one.
        try:
            file = _find(trace)
        except OSError:  # The working directory is gone.
            return
        if file is not None:
            text = "dummymp cannot start because a file in your folder has the name of a Python module"
            raise ImportError(f"{text}: {file}. Rename it", name=__name__) from None


def _find(trace: TracebackType | None) -> str | None:
    """Give the file beside the script, or the script itself, that was imported in place of a module of Python's."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    folder = os.path.dirname(os.path.abspath(main)) if isinstance(main, str) else os.getcwd()
    for name, file in _loaded(trace):
        if name == "__main__" or not isinstance(file, str):
            continue
        file = os.path.abspath(file)
        if file in (os.path.join(folder, f"{name}.py"), os.path.join(folder, name, "__init__.py")):
            if name in _NEEDED or _is_pythons_own(name, folder):
                return file
    return None


def _loaded(trace: TracebackType | None) -> Iterator[tuple[str, object]]:
    """Give the modules that are there, and those that have just failed and are not there any longer."""
    for name, module in list(sys.modules.items()):
        yield name, getattr(module, "__file__", None)
    while trace is not None:
        names = trace.tb_frame.f_globals
        yield names.get("__name__", ""), names.get("__file__")
        trace = trace.tb_next


def _is_pythons_own(name: str, folder: str) -> bool:
    names = getattr(sys, "stdlib_module_names", None)
    if names is not None:
        return name in names
    # Python 3.9 has no list of them; there it is one that is found elsewhere.
    from importlib.machinery import PathFinder

    elsewhere = [entry for entry in sys.path if os.path.abspath(entry) != folder]
    return name in sys.builtin_module_names or PathFinder.find_spec(name, elsewhere) is not None


explained = _Explained()

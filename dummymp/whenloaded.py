# SPDX-License-Identifier: MIT
"""What is to be done as soon as a module is loaded, if it ever is: it is not loaded for that."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

__all__ = ["when_loaded"]


def when_loaded(name: str, call: Callable[[], object]) -> None:
    """Call a function now if a module is loaded, otherwise right after it was."""
    if name in sys.modules:
        call()
    else:
        sys.meta_path.insert(0, _Finder(name, call))


class _Finder:
    """Finds nothing by itself: it is asked for each module, and waits for one."""

    def __init__(self, name: str, call: Callable[[], object]) -> None:
        self._name = name
        self._call = call

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._call)  # type: ignore[assignment]
        return spec


class _Loader:
    """Loads as another loader does, and calls a function then."""

    def __init__(self, loader: Any, call: Callable[[], object]) -> None:
        self._loader = loader
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: Any) -> None:
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._call()

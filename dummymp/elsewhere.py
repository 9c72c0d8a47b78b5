# SPDX-License-Identifier: MIT
"""Settings of libraries that hold in the script alone: told of once, where a function uses the library.

What a script sets in other modules stays behind (README). For these libraries the results differ then without a word:
float32 instead of float64, 15 digits instead of 50.
"""

from __future__ import annotations

import sys
import types
from typing import Any, Callable

from .codes import global_names
from .explain import function_name
from .functions import function_behind
from .log import logger

__all__ = ["tell_of_settings"]


def _torch(torch: Any) -> str | None:
    kind = torch.get_default_dtype()
    return None if kind == torch.float32 else f"torch.set_default_dtype({kind})"


def _jax(jax: Any) -> str | None:
    return "jax.config.update('jax_enable_x64', True)" if jax.config.jax_enable_x64 else None


def _mpmath(mpmath: Any) -> str | None:
    return None if mpmath.mp.prec == 53 else f"mpmath.mp.dps = {mpmath.mp.dps}"


def _matplotlib(matplotlib: Any) -> str | None:
    now, usual = matplotlib.rcParams, matplotlib.rcParamsDefault
    for name in ("font.size", "figure.dpi", "savefig.dpi", "axes.prop_cycle", "text.usetex"):
        if name in usual and now[name] != usual[name] and "IPython" not in sys.modules:
            return f"matplotlib.rcParams[{name!r}] = ..."
    return None


# How each of them tells what the script has set; None if that is nothing.
_SETTINGS: dict[str, Callable[[Any], str | None]] = {
    "torch": _torch, "jax": _jax, "mpmath": _mpmath, "matplotlib": _matplotlib,
}  # fmt: skip
_told: set[str] = set()


def tell_of_settings(func: Callable[..., Any]) -> None:
    """Say, once for each library, that what the script has set in it does not hold in the tasks of this function."""
    loaded = [name for name in _SETTINGS if name in sys.modules and name not in _told]
    for name in loaded:
        if name in _libraries(func):
            try:
                setting = _SETTINGS[name](sys.modules[name])
            except Exception:
                setting = None  # Another release, or half of it: then nobody knows.
            if setting is not None:
                _told.add(name)
                logger().warning(
                    "note: %s() uses %s, where the script has set %s. That does not hold in tasks. Set it in a "
                    "function, and have that called in each worker: dummymp.configure(initializer=function)",
                    function_name(func), name, setting,
                )  # fmt: skip


def _libraries(func: Any) -> set[str]:
    """Find the libraries whose modules, functions or classes a function names."""
    inner = function_behind(func)
    if inner is None:
        return set()
    values = [inner.__globals__.get(name) for name in global_names(inner.__code__)[0]]
    homes = [getattr(value, "__name__" if type(value) is types.ModuleType else "__module__", "") for value in values]
    return {home.partition(".")[0] for home in homes if isinstance(home, str)}

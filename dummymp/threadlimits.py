# SPDX-License-Identifier: MIT
"""How many threads libraries may start by themselves: variables that they look at once, when they are loaded.

So these are set before a process of ours loads anything: by who starts it, because a `sitecustomize`, a `.pth` file or
LD_PRELOAD may load NumPy before any code of ours runs, and, for each task, by its surroundings.
"""

from __future__ import annotations

import sys

from .hints import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SERVER_THREADS", "VARIABLES", "are_settled", "missing"]

# OpenMP (with it torch and pyarrow), OpenBLAS, MKL, BLIS, Apple Accelerate, numexpr, numba, polars, what else is
# written in Rust, and joblib/loky, which count CPUs themselves.
VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
)
# The server is started before anybody knows what the tasks will ask for, so with what nearly all of them do.
SERVER_THREADS = 1
# One of these is there when any of the libraries above is.
_LIBRARIES = {"mkl", "numpy", "polars", "pyarrow", "torch"}


def missing(environ: Mapping[str, str], threads: int | None) -> dict[str, str]:
    """Give the variables to add for so many threads, None for no limit: those that the user has set stay."""
    return {} if threads is None else {name: str(threads) for name in VARIABLES if name not in environ}


def are_settled() -> bool:
    """Tell whether a library was loaded here that goes by limits already, and would not look at others."""
    return not _LIBRARIES.isdisjoint(sys.modules)

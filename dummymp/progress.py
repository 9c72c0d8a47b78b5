# SPDX-License-Identifier: MIT
"""A progress bar, drawn by tqdm."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Callable

from .errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["no_progress", "show_progress"]


@contextlib.contextmanager
def show_progress(counts: Callable[[], tuple[int, int, int]]) -> Iterator[Callable[[], None]]:
    """Show a bar while the block runs; it gives what is to be called whenever something may have changed.

    Args:
        counts: Gives the numbers of tasks that are completed, running, and queued in all.

    Raises:
        MissingExtra: tqdm is not installed.
    """
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise MissingExtra("progress=True needs tqdm. Install it with: pip install 'dummymp[progress]'") from error
    before, _, total = counts()
    bar: Any = tqdm(total=total - before, unit="task")

    def update() -> None:
        completed, _, total = counts()
        if bar.total != total - before:
            bar.total = total - before
        bar.update(completed - before - bar.n)

    try:
        yield update
    finally:
        bar.close()


@contextlib.contextmanager
def no_progress() -> Iterator[None]:
    """Show nothing."""
    yield None

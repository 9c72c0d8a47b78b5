# SPDX-License-Identifier: MIT
"""A progress bar, drawn by tqdm."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Callable

from .bars import Standing, redraw
from .errors import MissingExtra
from .explain import headline

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["REFRESH_SECONDS", "find_tqdm", "no_progress", "show_items", "show_progress"]

# So long at most a bar stays as it is.
REFRESH_SECONDS = 1.0


@contextlib.contextmanager
def show_progress(
    counts: Callable[[], tuple[int, int, int]], waiting_for: Callable[[], str | None]
) -> Iterator[Callable[[], None]]:
    """Show a bar while the block runs; it gives what is to be called whenever something may have changed.

    Args:
        counts: Gives the numbers of tasks that are completed, running, and queued in all.
        waiting_for: Says why tasks wait, or gives None. Shown behind the bar while nothing runs.

    Raises:
        MissingExtra: tqdm is not installed, or broken.
    """
    tqdm = find_tqdm()
    before, _, total = counts()
    bar: Any = tqdm(total=total - before, unit="task")

    shown: str | None = None
    drawn = time.monotonic()

    def update() -> None:
        nonlocal shown, drawn
        completed, running, total = counts()
        reason = None if running else waiting_for()
        if bar.total != total - before:
            bar.total = total - before
        news = completed - before - bar.n
        if news:
            bar.update(news)
        if reason != shown:
            shown, drawn = reason, time.monotonic()
            bar.set_postfix_str(f"waiting: {reason}" if reason else "")
        elif not news and time.monotonic() - drawn >= REFRESH_SECONDS / 2:
            drawn = time.monotonic()
            bar.refresh()  # The clock at least has gone on.
        redraw()

    with Standing(bar):
        yield update


@contextlib.contextmanager
def show_items(total: int | None) -> Iterator[Callable[[int], object]]:
    """Show a bar while the block runs; it gives what is told how many items more are done. Raises as `show_progress`.

    Args:
        total: How many items there are; None if nobody knows.
    """
    bar: Any = find_tqdm()(total=total, unit="item")

    def update(count: int) -> None:
        bar.update(count)
        redraw()

    with Standing(bar):
        yield update


def find_tqdm() -> Any:
    """Give tqdm. Raises as `show_progress`."""
    try:
        from tqdm.auto import tqdm
    except Exception as error:
        file = _file_of_tqdm()
        if file is None:
            text = "progress=True needs tqdm. Install it with: pip install 'dummymp[progress]'"
        else:
            text = (
                f"progress=True needs tqdm, and {file} does not work ({headline(error)}). If this file is yours, "
                "rename it. Otherwise install tqdm anew: pip install --force-reinstall tqdm"
            )
        raise MissingExtra(text) from error
    return tqdm


def _file_of_tqdm() -> str | None:
    from importlib.util import find_spec

    try:
        spec = find_spec("tqdm")
    except ValueError:
        return None  # What stands in sys.modules was put there by hand.
    return spec.origin if spec is not None else None


@contextlib.contextmanager
def no_progress() -> Iterator[None]:
    """Show nothing."""
    yield None

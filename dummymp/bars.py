# SPDX-License-Identifier: MIT
"""Progress bars that stand on the screen, and room for whole lines beside them.

A bar has no line end, so what is written next would be glued to it. Who shows text of tasks or says something calls
`make_room` before: on a terminal the bar is wiped, and drawn again when the lines are there, as often as tqdm draws at
most; in a file or a pipe its line is ended. Without a bar all of it is one look at an empty list.
"""

from __future__ import annotations

import os
import time

from .hints import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

__all__ = ["Standing", "make_room", "next_redraw", "redraw"]

_standing: list[Standing] = []


class Standing:
    """A bar of tqdm that is shown for the length of a ``with`` block.

    Args:
        bar: The bar. One that draws nothing, or not in text (a notebook's), needs no room.
    """

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._in_text = not bar.disable and hasattr(bar, "sp") and not hasattr(bar, "container")
        self._is_drawn = True
        self._drawn_at = time.monotonic()
        # A context of tqdm in which its bars, others too, are wiped; at its end they are drawn.
        self._wiped: Any = None

    def __enter__(self) -> None:
        if self._in_text:
            self._draw = self._bar.display
            self._bar.display = self._display
            self._on_a_terminal = _is_terminal(self._bar.fp)
            _standing.append(self)

    def __exit__(self, *error: object) -> None:
        if self in _standing:
            _standing.remove(self)
            del self._bar.display
        self._wiped = None
        self._bar.close()

    def _display(self, *args: Any, **kwargs: Any) -> Any:
        self._is_drawn, self._drawn_at = True, time.monotonic()
        return self._draw(*args, **kwargs)

    def step_aside(self, file: Any) -> bool:
        """Make room for a text; tell whether it must be flushed. As `make_room`."""
        if self._on_a_terminal and not self._is_drawn:
            return False
        if file is not None and not _lead_to_one_place(file, self._bar.fp):
            return False
        if self._is_drawn:
            # The lock is not kept while the text is written: a handler of the user's may wait for another thread.
            with self._bar.get_lock():
                if self._on_a_terminal:
                    self._wiped = self._bar.external_write_mode(file=self._bar.fp, nolock=True)
                    self._wiped.__enter__()
                else:
                    self._bar.fp.write("\n")
                self._bar.fp.flush()
            self._is_drawn = False
        return not self._on_a_terminal  # Where lines are written as they come.

    def due(self) -> float | None:
        """Say when to draw the bar again, by `time.monotonic`; None if it is there, or tqdm's own time will do."""
        return None if self._wiped is None else self._drawn_at + float(self._bar.mininterval)

    def draw_again(self) -> None:
        """Draw the bar that was wiped."""
        wiped, self._wiped = self._wiped, None
        with self._bar.get_lock():
            wiped.__exit__(None, None, None)


def make_room(file: Any = None) -> bool:
    """See that what is written next begins a line of its own; tell whether it must be flushed, to stay one.

    Args:
        file: Where it will be written; None if nobody knows.
    """
    return bool(_standing) and True in [bar.step_aside(file) for bar in list(_standing)]


def next_redraw() -> float | None:
    """Say when `redraw` has something to do, by `time.monotonic`; None if nothing is known that will be."""
    return min((due for due in [bar.due() for bar in _standing] if due is not None), default=None)


def redraw() -> None:
    """Draw the bars again that made room, unless that was only just done."""
    for bar in list(_standing):
        due = bar.due()
        if due is not None and due <= time.monotonic():
            bar.draw_again()


def _lead_to_one_place(one: Any, other: Any) -> bool:
    """Tell whether two streams lead to the same terminal, file or pipe."""
    if other == one or (_is_terminal(one) and _is_terminal(other)):
        return True
    try:
        return os.path.samestat(os.fstat(one.fileno()), os.fstat(other.fileno()))
    except (AttributeError, OSError, ValueError, TypeError):
        return False  # Something without a file behind it.


def _is_terminal(file: Any) -> bool:
    try:
        return bool(file.isatty())
    except (AttributeError, OSError, ValueError):
        return False


def _start_over_after_fork() -> None:
    _standing.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over_after_fork)

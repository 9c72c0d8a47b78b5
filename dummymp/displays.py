# SPDX-License-Identifier: MIT
"""What tasks display in a notebook: whatever IPython's `display` takes, and the figures of `plt.show()`.

    in a worker                                               in the parent
    display(...), plt.show()  ->  Displays  ->  DISPLAY  ->   show -> IPython, in the cell that drives

Workers have no shell of IPython, without which its own functions only print. They load IPython when a task displays
something, and not before.
"""

from __future__ import annotations

import builtins
import functools
import sys
from typing import Any, Callable

from .bars import make_room
from .interrupts import came_by_signal, own_code
from .log import logger
from .pickling import dumps, loads
from .transport import DISPLAY, U64, WorkerChannel
from .whenloaded import when_loaded

__all__ = ["Displays", "clear_output", "display", "enter_worker", "publish_display_data", "set_pictures", "show"]

# Where IPython (7.23 and later) has its functions; `IPython.display` gives them on.
_HOME = "IPython.core.display_functions"
# Its model is with the one who made it, so in the parent nothing could be drawn of it.
_WIDGET = "application/vnd.jupyter.widget-view+json"
_NO_WINDOW = (
    "{task}, called plt.show(), but tasks run in the background, where no window opens. "
    "Save the picture instead: plt.savefig('picture.png')"
)


def takes_pictures() -> bool | None:
    """Tell whether the shell of the script shows pictures, as notebooks do; None if that is not IPython at all."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    formatter = getattr(shell, "display_formatter", None)
    return None if formatter is None else "image/png" in formatter.active_types


def show(data: Any) -> None:
    """Show what a task has displayed: call a function of IPython as the task called it."""
    import IPython.display

    name, arguments = loads(data)
    make_room()
    own_code.reached = True
    try:
        getattr(IPython.display, name)(**arguments)
    except Exception as error:
        if came_by_signal(error):
            raise
        # The tasks must not suffer for it.
        logger().error("what a task displayed cannot be shown: %s: %s", type(error).__name__, error)


class Displays:
    """Sends what tasks display, where the script has a shell of IPython.

    Args:
        channel: Where to send.
        task: Gives the number of the running task.
        flush: Is called before: what was printed comes first.
        note: Says something once in the whole program.
    """

    def __init__(
        self, channel: WorkerChannel, task: Callable[[], int], flush: Callable[[], object], note: Callable[[str], None]
    ) -> None:
        self._channel: WorkerChannel | None = channel
        self._task = task
        self._flush = flush
        self._note = note
        self.pictures: bool | None = None  # As `takes_pictures`.
        self.sent = 0

    def reaches_shell(self) -> bool:
        """Tell whether what is displayed here comes to a shell of IPython."""
        return self._channel is not None and self.pictures is not None

    def send(self, name: str, **arguments: Any) -> None:
        """Have a function of `IPython.display` called in the parent."""
        if self._channel is not None:
            self.sent += 1
            self._flush()
            self._channel.send(DISPLAY, U64.pack(self._task()), dumps((name, arguments)))

    def show_figures(self) -> None:
        """Display the figures that are open in pyplot, and close them: as IPython's own backend does."""
        if not (self._channel is not None and self.pictures):
            self._note(_NO_WINDOW)
            return
        pyplot = sys.modules["matplotlib.pyplot"]
        try:
            for number in pyplot.get_fignums():
                display(pyplot.figure(number))
        finally:
            pyplot.close("all")

    @functools.cached_property
    def formatter(self) -> Any:
        """What finds the representations of an object."""
        from IPython.core.formatters import DisplayFormatter
        from IPython.core.pylabtools import print_figure

        formatter = DisplayFormatter()
        if not self.pictures:
            formatter.active_types = ["text/plain"]
        to_png = functools.partial(print_figure, fmt="png", base64=True)
        formatter.formatters["image/png"].for_type_by_name("matplotlib.figure", "Figure", to_png)
        return formatter

    def leave_channel(self) -> None:
        """Print from now on: see `LineWriter.leave_channel`."""
        self._channel = None


# --- in a worker -------------------------------------------------------------------------------------------------

_displays: Displays | None = None


def enter_worker(displays: Displays) -> None:
    """Let `plt.show()` of this process, a worker, show its figures by `displays`."""
    global _displays
    _displays = displays
    when_loaded("matplotlib.pyplot", _take_over_pyplot)


def set_pictures(pictures: bool | None) -> None:
    """Take note of what the shell of the script shows, as `takes_pictures` says; `display` is there from now on."""
    if _displays is not None and _displays.pictures is None and pictures is not None:
        _displays.pictures = pictures
        vars(builtins).setdefault("display", display)  # As in IPython, where nobody has to import it.
        when_loaded(_HOME, _take_over)


def _take_over() -> None:
    home: Any = sys.modules[_HOME]
    home.display, home.publish_display_data, home.clear_output = display, publish_display_data, clear_output


def _take_over_pyplot() -> None:
    sys.modules["matplotlib.pyplot"].show = _show_figures  # type: ignore[attr-defined]


def _show_figures(*args: Any, **kwargs: Any) -> None:
    """Be `plt.show`."""
    if _displays is not None:
        _displays.show_figures()


# What stands for the functions of IPython of these names, with their parameters. Any process can import them, and so
# they travel on by name.


def display(
    *objs: Any,
    include: Any = None,
    exclude: Any = None,
    metadata: Any = None,
    transient: Any = None,
    display_id: Any = None,
    raw: bool = False,
    clear: bool = False,
    **kwargs: Any,
) -> Any:
    """Display objects in the notebook, or print them where there is none; as `IPython.display.display`."""
    if _displays is None or not _displays.reaches_shell():
        print(*objs)
        return None
    handle = None
    if display_id:
        from IPython.display import DisplayHandle

        handle = DisplayHandle(None if display_id is True else display_id)
        transient = {**(transient or {}), "display_id": handle.display_id}
        if not objs:
            objs, raw = ({},), True  # A place that is filled later.
    if clear:
        clear_output(wait=True)
    for thing in objs:
        data, about = (thing, {}) if raw else _displays.formatter.format(thing, include, exclude)
        if data or raw:  # Otherwise it displays itself.
            publish_display_data(data, {**about, **(metadata or {})}, transient=transient, **kwargs)
    return handle


def publish_display_data(data: Any, metadata: Any = None, *, transient: Any = None, **kwargs: Any) -> None:
    """Display representations by their MIME types; as `IPython.display.publish_display_data`."""
    if _displays is None or not _displays.reaches_shell():
        print(data.get("text/plain", data))
        return
    data = {kind: content for kind, content in data.items() if kind != _WIDGET}
    more = {**kwargs, "transient": transient} if transient else kwargs
    _displays.send("publish_display_data", data=data, metadata=metadata or {}, **more)


def clear_output(wait: bool = False) -> None:
    """Clear the output of the cell that drives; as `IPython.display.clear_output`."""
    if _displays is not None and _displays.reaches_shell():
        _displays.send("clear_output", wait=wait)

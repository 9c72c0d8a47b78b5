# SPDX-License-Identifier: MIT
"""Starting fresh interpreters that run our own code: the server, and workers that are no copies of it.

Little is needed for it, so that the server can be started first of all, and loads its modules while the parent still
loads its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading

from . import threadlimits

__all__ = ["command", "last_words", "options", "start_early", "start_server", "take_early", "without_colors"]

_BOOTSTRAP = (
    # What is loaded now is no garbage.
    "import gc; gc.disable(); "
    # Nothing of the user's folder may shadow a standard module while we start, so the folder goes to the end. But this
    # very package is wanted, not another version of it that is installed, too.
    "import sys; sys.path[:] = [p for p in sys.path if p]; sys.path += [p for p in sys.argv[1].split({sep!r}) "
    "if p and p not in sys.path]; import importlib.util as u; "
    "s = {spec}; m = sys.modules['dummymp'] = u.module_from_spec(s); {load}; "
    "from dummymp.{module} import main; gc.enable(); main({arguments})"
)


def command(module: str, arguments: str, path: str, flags: list[str]) -> list[str]:
    """Give the command line that runs ``dummymp.<module>.main(<arguments>)`` in a fresh interpreter.

    Args:
        module: `forkserver` or `worker`.
        arguments: Python source of the arguments.
        path: The parent's import path, joined by `os.pathsep`.
        flags: The interpreter's own flags (-O, -W, ...).
    """
    spec, load = _loading()
    code = _BOOTSTRAP.format(sep=os.pathsep, spec=spec, load=load, module=module, arguments=arguments)
    try:
        os.getcwd()
    except OSError:
        # Python 3.13.0 does not start in a directory that is gone, unless it is told not to import from there.
        if sys.version_info >= (3, 11) and "-P" not in flags:
            flags = [*flags, "-P"]
    return [sys.executable, *flags, "-c", code, path]


def _loading() -> tuple[str, str]:
    """Give the Python source of what finds this package, ``s = ...``, and of what loads it as ``m``."""
    folder = os.path.dirname(os.path.abspath(__file__))
    if os.path.isdir(folder):
        init = os.path.join(folder, "__init__.py")
        spec = f"u.spec_from_file_location('dummymp', {init!r}, submodule_search_locations=[{folder!r}])"
        return spec, "s.loader.exec_module(m)"
    # It stands in a zip file, which Python 3.9 loads in another way.
    finder = "__import__('importlib.machinery').machinery.PathFinder"
    load = "s.loader.exec_module(m)" if sys.version_info >= (3, 10) else "s.loader.load_module('dummymp')"
    return f"{finder}.find_spec('dummymp', [{os.path.dirname(folder)!r}])", load


# Command-line options of Python by what `sys.flags` calls them.
_OPTIONS = {
    "bytes_warning": "b",
    "debug": "d",
    "dont_write_bytecode": "B",
    "ignore_environment": "E",
    "isolated": "I",
    "no_site": "S",
    "no_user_site": "s",
    "optimize": "O",
    "quiet": "q",
    "safe_path": "P",
    "verbose": "v",
}


def options() -> list[str]:
    """Give the command-line options that this interpreter was started with, for another one like it.

    `subprocess` knows most of them, too, but takes milliseconds to load.
    """
    counts = {letter: int(getattr(sys.flags, name, 0)) for name, letter in _OPTIONS.items()}
    return [
        *("-" + letter * count for letter, count in counts.items() if count),
        *("-W" + option for option in sys.warnoptions),
        *("-X" + (name if value is True else f"{name}={value}") for name, value in sys._xoptions.items()),
    ]


# So many bytes of what a server said are shown.
_MOST_WORDS = 1 << 16

_early: tuple[int, int, int] | None = None
_tried = False
# A thread that comes while another one starts the server waits for it: two would be one too many. A signal handler that
# comes in between does not wait for itself.
_lock = threading.RLock()


def start_early() -> None:
    """Start the first server of this program, for `take_early`, while the caller loads all else that it takes."""
    global _early, _tried
    with _lock:
        if _tried or sys.platform == "win32":
            return
        _tried = True
        try:
            _early = start_server()
        except OSError:
            pass  # Who starts it when it is needed says why.


def take_early() -> tuple[int, int, int] | None:
    """Give what `start_early` started, as `start_server` does, once; None if there is nothing."""
    global _early
    with _lock:
        early, _early = _early, None
    return early


def start_server() -> tuple[int, int, int]:
    """Start the server process of `forkserver`, and do not wait for it: it takes its time while we do other things.

    Returns:
        Its pid, the descriptor of a socket that is connected to it, and one for `last_words`.

    Raises:
        OSError: It cannot be started.
    """
    import _socket  # What `socket` wraps, and loads in a tenth of its time.

    if getattr(sys, "frozen", False):
        raise OSError(
            "this is a frozen program (PyInstaller or the like), which has no Python to start workers with. "
            "Use dummymp.configure(engine='inline')"
        )
    if not sys.executable:
        raise OSError(
            "this Python does not know its own program file (sys.executable is empty). "
            "Use dummymp.configure(engine='inline')"
        )
    with contextlib.ExitStack() as failed:
        ours, theirs = _socket.socketpair()
        failed.callback(ours.close)
        with contextlib.closing(theirs):
            log, log_writer = _make_log()
            failed.callback(os.close, log)
            try:
                pid = _spawn_server(theirs.fileno(), log_writer)
            finally:
                os.close(log_writer)
        failed.pop_all()  # It has not.
    return pid, ours.detach(), log


def _make_log() -> tuple[int, int]:
    """Give descriptors to read and to write what the server says.

    It is read when the server has ended. A pipe has room for 64 kB, and a server that says more, because Python runs
    with -vv for example, would wait for ever; a file in memory (Linux) has room for all.
    """
    try:
        log = os.memfd_create("dummymp-log")
    except (AttributeError, OSError):
        log, log_writer = os.pipe()
        os.set_blocking(log, False)
        return log, log_writer
    try:
        return log, os.dup(log)
    except OSError:
        os.close(log)
        raise


def last_words(log: int) -> str:
    """Read what a server that has ended had said, the end of it if that is much."""
    try:
        try:
            data = os.pread(log, _MOST_WORDS, max(0, os.fstat(log).st_size - _MOST_WORDS))
        except OSError:
            data = os.read(log, _MOST_WORDS)  # It is a pipe.
    except OSError:
        return ""
    return without_colors(data.decode("utf-8", "replace"))


def without_colors(text: str) -> str:
    """Take out what colours a text on a terminal, as Python does with a traceback where FORCE_COLOR is set."""
    import re

    return re.sub("\x1b\\[[0-9;]*m", "", text)


def _spawn_server(connection: int, log: int) -> int:
    limits = threadlimits.missing(os.environ, threadlimits.SERVER_THREADS)
    arguments = command("forkserver", f"3, {os.getpid()}, {list(limits)}", _import_path(), options())
    with contextlib.ExitStack() as spawned:
        null = os.open(os.devnull, os.O_RDWR)
        spawned.callback(os.close, null)
        actions = []
        for fd, targets in ((null, [0]), (log, [1, 2]), (connection, [3])):
            # First out of the way of their future numbers, then onto them.
            high = _duplicate_high(fd)
            spawned.callback(os.close, high)
            actions += [(os.POSIX_SPAWN_DUP2, high, target) for target in targets]
        # An own process group from the first moment: Ctrl-C at the terminal must not reach it while it starts.
        return os.posix_spawn(
            sys.executable,
            arguments,
            {**os.environ, **limits},
            file_actions=actions,
            setpgroup=0,
            # What this thread ignores or blocks is not passed on: the server must hear of the ends of workers.
            setsigdef=[signal.SIGCHLD],
            setsigmask=[],
        )


def _duplicate_high(fd: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)


def _import_path() -> str:
    """Give sys.path for the server: what we need may stand in a folder that only the parent knows."""
    # Python itself ignores an entry of another type, such as a pathlib.Path.
    return os.pathsep.join(e for e in sys.path if isinstance(e, str) and e and os.pathsep not in e)


def _forget_after_fork() -> None:
    """Leave a server that was started early to the process that this one is a copy of."""
    global _early, _lock
    _lock = threading.RLock()  # Another thread of the parent may have held it.
    if _early is not None:
        for fd in _early[1:]:
            os.close(fd)
        _early = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)

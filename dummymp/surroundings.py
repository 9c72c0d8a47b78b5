# SPDX-License-Identifier: MIT
"""What surrounds a call, taken along to the worker.

`Surroundings` belong to one `run` call: working directory, environment variables, seed, initializer. `Settings`
belong to the program: sys.path, sys.argv, warnings filters, log levels; workers are told whenever they changed.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import sys
import warnings
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from . import threadlimits
from .contexts import Held
from .displays import set_pictures, takes_pictures
from .pickling import dumps, loads
from .whenloaded import when_loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .freeze import FunctionBlob

__all__ = [
    "Settings",
    "Surroundings",
    "apply_settings",
    "apply_surroundings",
    "capture",
    "current",
    "moves",
]

_numbers = itertools.count(1)


class Surroundings:
    """Working directory, environment, seed and initializer of a call.

    Attributes:
        number: By which workers know it.
        context: What `contextvars` and `decimal` held.
        initializer: What is to be called in each worker before its first task, or None.
        setup: The same in bytes.
        limits: What the variables of `threadlimits` are in it, and the initializer. A worker whose libraries were
            loaded under others goes by those, and what another initializer has set is set there.
        data: The pickle of ``(cwd, environ, seed, context.data, number of the initializer)``; cwd is None where the
            directory was gone already.
    """

    __slots__ = (
        "context", "cwd", "data", "environ", "initializer", "limits", "number", "seed", "setup", "threads",
    )  # fmt: skip

    def __init__(
        self,
        cwd: str | None,
        environ: dict[Any, Any],
        seed: int | None,
        threads: int | None,
        initializer: Callable[[], object] | None,
        setup: FunctionBlob | None,
    ) -> None:
        self.number = next(_numbers)
        self.cwd = cwd
        self.environ = environ
        self.seed = seed
        self.threads = threads
        self.initializer = initializer
        self.setup = setup
        variables = dict(environ)
        if threads is not None:
            for name in threadlimits.VARIABLES:
                variables.setdefault(_key(name), _key(str(threads)))
        self.context = Held()
        self.limits: list[Any] = [variables.get(_key(name)) for name in threadlimits.VARIABLES]
        self.limits.append(setup)
        self.data = dumps((cwd, variables, seed, self.context.data, setup.number if setup is not None else 0))

    def hold(self) -> bool:
        """Tell whether all of it is still what it was. Each `run` asks, so in few steps."""
        try:
            where: str | None = os.getcwd()
        except OSError:
            where = None  # The directory is gone.
        if where != self.cwd or _environ() != self.environ:
            return False
        # Mostly there is nothing in the context of a script.
        return self.context.hold() if copy_context() else not self.context.values


_last: Surroundings | None = None


def capture(
    seed: int | None, threads: int | None, initializer: Callable[[], object] | None = None
) -> Surroundings:
    """Take what surrounds this moment. As long as nothing changes, it is the same object.

    Raises:
        NotPicklable: The initializer cannot travel.
    """
    global _last
    last = _last
    if last is not None and last.initializer is initializer:
        if last.seed == seed and last.threads == threads and last.hold():
            return last
        setup = last.setup
    else:
        setup = _freeze(initializer)
    _last = last = Surroundings(_cwd(), dict(_environ()), seed, threads, initializer, setup)
    return last


# The initializers that were frozen last, and what came of them, by their ids.
_frozen: dict[int, tuple[Callable[[], object], FunctionBlob]] = {}
_FROZEN = 16


def _freeze(initializer: Callable[[], object] | None) -> FunctionBlob | None:
    """Serialise an initializer; as long as that comes to the same, it is the same object."""
    if initializer is None:
        return None
    from .freeze import freeze_whole

    setup = freeze_whole(initializer)
    func, known = _frozen.get(id(initializer), (None, setup))
    if func is initializer and known.data == setup.data:
        return known
    while len(_frozen) >= _FROZEN:
        del _frozen[next(iter(_frozen))]
    _frozen[id(initializer)] = initializer, setup
    return setup


def current() -> tuple[str | None, dict[Any, Any]]:
    """Give what `apply_surroundings` takes to come back to where this process is now."""
    return _cwd(), dict(_environ())


def _cwd() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None  # The directory is gone.


def apply_surroundings(cwd: str | None, variables: dict[Any, Any]) -> None:
    """Put this process into the surroundings of a call; what is right already costs next to nothing.

    Raises:
        OSError: The working directory is gone or closed to us.
    """
    if _environ() != variables:
        _set_environ(variables)
    if cwd is not None and _cwd() != cwd:
        os.chdir(cwd)


def _environ() -> dict[Any, Any]:
    # The dict behind os.environ compares many times faster than os.environ itself, which decodes every entry.
    try:
        data: dict[Any, Any] = os.environ._data  # type: ignore[attr-defined]
    except AttributeError:
        return dict(os.environ)
    return data


def _key(text: str) -> Any:
    """Encode as the entries of `_environ` are: bytes on POSIX, str on Windows."""
    sample = next(iter(_environ()), "")
    return os.fsencode(text) if isinstance(sample, bytes) else text


def _set_environ(variables: dict[Any, Any]) -> None:
    wanted = {os.fsdecode(key): os.fsdecode(value) for key, value in variables.items()}
    for key in [key for key in os.environ if key not in wanted]:
        del os.environ[key]
    for key, value in wanted.items():
        if os.environ.get(key) != value:
            os.environ[key] = value


class _Moves:
    """Notes that this process has changed its working directory or its environment.

    To ask the system after each item of a `map` takes more than a microsecond, many times what a tiny item takes.
    C code that does it by itself is not seen here, but only before a task that follows one that was not very short.

    Attributes:
        watched: It does so, in this process.
        seen: There was a change.
    """

    def __init__(self) -> None:
        self.watched = self.seen = False
        self._variables: Any = None

    def watch(self) -> None:
        """Begin."""
        if hasattr(os.environ, "_data"):
            self._variables = os.environ._data = _Variables(os.environ._data)
            if hasattr(os, "environb"):
                os.environb._data = self._variables  # type: ignore[attr-defined]
            for name in ("chdir", "fchdir", "reload_environ"):
                if hasattr(os, name):
                    self._watch(name, getattr(os, name))
            self.watched = True

    def may_be(self) -> bool:
        """Tell whether there may have been a change. So it is, too, where os.environ is another object by now."""
        return self.seen or not self.watched or getattr(os.environ, "_data", None) is not self._variables

    def _watch(self, name: str, change: Any) -> None:
        @functools.wraps(change)
        def changing(*args: Any, **kwargs: Any) -> Any:
            self.seen = True
            return change(*args, **kwargs)

        changing.__module__ = "os"  # So that it travels by its name, as the original does.
        # What a script has taken with `from os import chdir` comes here by its home, `posix` (Windows: `nt`).
        for module in (os, sys.modules.get(os.name)):
            if getattr(module, name, None) is change:
                setattr(module, name, changing)
        for supports in (os.supports_fd, os.supports_dir_fd, os.supports_follow_symlinks, os.supports_effective_ids):
            if change in supports:
                supports.add(changing)


moves = _Moves()


class _Variables(dict):  # type: ignore[type-arg]
    """Is the dict behind `os.environ`, and notes changes."""

    def __setitem__(self, key: Any, value: Any) -> None:
        moves.seen = True
        super().__setitem__(key, value)

    def __delitem__(self, key: Any) -> None:
        moves.seen = True
        super().__delitem__(key)


class Settings:
    """What holds for all tasks: path, arguments, warnings filters, log levels, limits, key and shell of the parent."""

    __slots__ = (
        "argv", "authkey", "disabled", "field_size", "filters", "lazy", "levels", "path", "pictures", "recursion",
        "to_logging",
    )  # fmt: skip

    def __init__(self) -> None:
        self.path = list(sys.path)
        self.argv = list(getattr(sys, "argv", []))
        self.filters = list(warnings.filters)
        logging = sys.modules.get("logging")
        self.levels: dict[str, tuple[int, bool]] = {"": (30, False)}
        self.disabled = 0
        self.to_logging = False
        root = getattr(logging, "root", None)
        manager = getattr(root, "manager", None)
        if logging is not None and root is not None and manager is not None:  # No thread is importing it just now.
            self.levels = {
                name: (logger.level, logger.disabled)
                for name, logger in list(manager.loggerDict.items())
                if isinstance(logger, logging.Logger) and (logger.level or logger.disabled)
            }
            self.levels[""] = (root.level, root.disabled)
            self.disabled = manager.disable
            self.to_logging = getattr(logging, "_warnings_showwarning", None) is not None
        self.pictures = takes_pictures()
        # With it the proxies of a multiprocessing.Manager() know each other.
        current = getattr(sys.modules.get("multiprocessing"), "current_process", None)
        self.authkey = None if current is None else bytes(current().authkey)
        self.recursion = sys.getrecursionlimit()
        csv = sys.modules.get("_csv")
        self.field_size = None if csv is None else csv.field_size_limit()
        self.lazy = getattr(sys, "get_lazy_imports", str)()  # Since Python 3.15.

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Settings):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        return id(self)

    def data(self) -> bytes:
        """Serialise it; a warnings filter that cannot travel stays behind."""
        filters = []
        for entry in self.filters:
            try:
                filters.append((entry[2].__module__, dumps(entry)))
            except Exception:
                continue
        logs, limits = (self.levels, self.disabled, self.to_logging), (self.recursion, self.field_size, self.lazy)
        return dumps((self.path, self.argv, filters, *logs, self.authkey, limits, self.pictures))


def apply_settings(
    path: list[str],
    argv: list[str],
    filters: list[tuple[str, bytes]],
    levels: dict[str, tuple[int, bool]],
    disabled: int,
    to_logging: bool,
    authkey: bytes | None,
    limits: tuple[int, int | None, str],
    pictures: bool | None,
) -> None:
    """Make the parent's settings hold in this process."""
    import logging

    sys.path[:] = path
    sys.argv[:] = argv
    _filters.apply(filters)
    logging.disable(disabled)
    logging.captureWarnings(to_logging)
    _apply_levels(levels)
    set_pictures(pictures)
    if authkey is not None:
        when_loaded("multiprocessing", functools.partial(_set_key, authkey))
    recursion, field_size, lazy = limits
    with contextlib.suppress(RecursionError):  # It is lower than how deep we are.
        sys.setrecursionlimit(recursion)
    if lazy:
        sys.set_lazy_imports(lazy)  # type: ignore[attr-defined]
    _field_size.set(field_size)


class _FieldSize:
    """The limit of csv for the size of a field: it waits until csv is loaded."""

    def __init__(self) -> None:
        self._limit: int | None = None

    def set(self, limit: int | None) -> None:
        before, self._limit = self._limit, limit
        if "_csv" in sys.modules:
            self._apply()
        elif before is None and limit is not None:
            when_loaded("_csv", self._apply)

    def _apply(self) -> None:
        if self._limit is not None:
            sys.modules["_csv"].field_size_limit(self._limit)


_field_size = _FieldSize()


def _set_key(authkey: bytes) -> None:
    import multiprocessing

    multiprocessing.current_process().authkey = authkey


class _Filters:
    """The warnings filters of the parent, in a worker.

    A filter for a category of a library that is not loaded here waits until it is: to load NumPy for it would take
    longer than many a task, and would be before the task's limits for its threads are set.
    """

    def __init__(self) -> None:
        self._filters: list[tuple[str, bytes]] = []
        self._awaited: set[str] = set()

    def apply(self, filters: list[tuple[str, bytes]]) -> None:
        """Make these filters hold: each a name of a module, and the pickle of an entry of `warnings.filters`."""
        self._filters = filters
        self._renew()

    def _renew(self) -> None:
        warnings.filters[:] = list(self._rebuilt())  # type: ignore[index]
        if sys.version_info >= (3, 12):
            # os.fork() in a task would be told of a second thread: ours, which only waits for the end of the parent.
            warnings.filterwarnings("ignore", r"This process \(pid=\d+\) is multi-threaded", DeprecationWarning)
        getattr(warnings, "_filters_mutated", lambda: None)()

    def _rebuilt(self) -> Iterator[Any]:
        for module, entry in self._filters:
            if module in sys.modules:
                try:
                    yield loads(entry)
                except Exception:
                    continue  # Its module does not have it here.
            elif module not in self._awaited:
                self._awaited.add(module)
                when_loaded(module, self._renew)


_filters = _Filters()


def _apply_levels(levels: dict[str, tuple[int, bool]]) -> None:
    import logging

    manager = logging.root.manager
    if not isinstance(manager.loggerDict, _Loggers):
        manager.loggerDict = _Loggers(manager.loggerDict)
    manager.loggerDict.levels = levels
    for name, logger in list(manager.loggerDict.items()):
        manager.loggerDict.fit(name, logger)
    logging.root.setLevel(levels[""][0])
    logging.root.disabled = levels[""][1]


class _Loggers(dict):  # type: ignore[type-arg]
    """Is the dict of all loggers in a worker: one that is made later gets the level that it has in the parent then.

    To make it before would be too early: its library may have a class of its own for its loggers.
    """

    levels: dict[str, tuple[int, bool]]

    def __setitem__(self, name: str, logger: Any) -> None:
        super().__setitem__(name, logger)
        self.fit(name, logger)

    def fit(self, name: str, logger: Any) -> None:
        """Give a logger its level, or that of one above it that is not made here."""
        if not hasattr(logger, "setLevel"):
            return  # It stands for a logger that is not made.
        if name in self.levels:
            level, logger.disabled = self.levels[name]
        else:
            level = self._level_above(name)
        if logger.level != level:
            logger.setLevel(level)

    def _level_above(self, name: str) -> int:
        above = name.rpartition(".")[0]
        while above and not hasattr(self.get(above), "setLevel"):
            if above in self.levels:
                return self.levels[above][0]
            above = above.rpartition(".")[0]
        return 0

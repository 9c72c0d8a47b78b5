# SPDX-License-Identifier: MIT
"""Which version of the user's modules tasks get: the one that the script has.

A file may be saved while a script runs, and workers that import it then would have another version than the script, or
half of one. So the parent notes what each file was when the script imported it, and workers compare. Where a module was
loaded anew, or its functions were changed in place (autoreload does either), the script has the new version, and so
have the workers, which start anew for it.

What somebody sets by hand in a module, its file being what it was, stays behind.
"""

from __future__ import annotations

import functools
import importlib.util
import marshal
import math
import os
import struct
import sys
import time
import types
from importlib.machinery import SourceFileLoader
from typing import TYPE_CHECKING, Any, NamedTuple

from . import nesting
from .modules import is_of_user, look_for_scripts
from .sources import keep_source, told

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec

__all__ = ["Versions", "expect_versions", "keep_texts", "look_again", "reloads"]

# The files are looked at for at most this part of the time. More: a change is seen sooner, where there are hundreds of
# them or they lie on another computer; less: looking costs less.
PART_OF_TIME = 0.05
# So many bytes of source are kept. More: also huge projects are safe from being saved; less: memory for other things.
MOST_TEXT = 16 << 20


class Version(NamedTuple):
    """What a file was when it was imported: its size, and its time of change, as `os.stat` gives them."""

    size: int
    mtime_ns: int


class _Module:
    """A module of the user.

    Attributes:
        spec: How it was found when it was seen last; each load makes a new one.
        file: Its source.
        version: What the script has; None where nobody can tell.
        looked: What the file was when it was looked at last.
        parts: What is in `version`, once somebody had to know.
        text: The source of `version`, if it was kept.
    """

    __slots__ = ("file", "looked", "parts", "spec", "text", "version")

    def __init__(self, spec: Any) -> None:
        self.spec = spec
        self.file: str = spec.origin
        self.text: bytes | None = None
        self.parts: _Parts | None = None
        self.version = self.looked = _version(self.file)


def _version(file: str) -> Version | None:
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return None  # It stands in an archive, or is gone.
    return Version(status.st_size, status.st_mtime_ns)


# --- in the script -----------------------------------------------------------------------------------------------

_modules: dict[str, _Module] = {}
_looked_at = 0  # So many modules there were when we looked for those of the user.
_look_after = 0.0  # By `time.monotonic`.
_cost = 0, math.inf  # How many files there were, and what a look at them takes, in seconds.
_reloads = 0


def reloads() -> int:
    """Count how often modules of the user were loaded anew: workers that have them know only what they were."""
    global _looked_at, _reloads
    look_for_scripts()
    if len(sys.modules) != _looked_at:
        _looked_at = len(sys.modules)
        new = {}
        for name, module in list(sys.modules.items()):
            if name not in _modules and name != "__main__":
                spec = _spec(module)
                if is_of_user(spec):
                    new[name] = _first_look(module, spec)
        if new:
            _modules.update(new)
            _tell(new)
    for name, known in _modules.items():
        spec = _spec(sys.modules.get(name))
        if spec is not known.spec and spec is not None:
            _note_new_version(name, spec)
    look_again()
    return _reloads


def _spec(module: Any) -> Any:
    return module.__dict__.get("__spec__") if isinstance(module, types.ModuleType) else None


def _first_look(module: types.ModuleType, spec: Any) -> _Module:
    """Note a module; its file may have been saved since it was imported, and then its bytecode tells of what it was."""
    known = _Module(spec)
    looked = known.looked
    if looked is not None and looked.mtime_ns / 1e9 > _began():
        compiled = _version(spec.cached or "")
        if compiled is not None and compiled.mtime_ns < looked.mtime_ns:
            version, code = _read_bytecode(spec.cached)
            if code is not None and not _fits(version, looked) and not _has_new(module, _Parts(code), known):
                known.version = version
    return known


@functools.cache
def _began() -> float:
    """Tell when this process began, by `time.time`: what is older was not saved since. A day ago if nobody knows."""
    try:
        with open("/proc/self/stat", "rb") as status:
            ticks = int(status.read().rpartition(b")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        age = 86400.0
    return time.time() - age - 1.0


def _note_new_version(name: str, spec: Any) -> None:
    global _reloads
    _reloads += 1
    if is_of_user(spec):
        _modules[name] = _Module(spec)
        _tell([name])
    else:
        _modules[name].spec = spec  # It is somewhere else now.


def look_again() -> None:
    """Look which files were saved; tell workers what the script has of them, unless it has the new version."""
    global _look_after, _cost
    began = time.monotonic()
    if began < _look_after:
        return
    changed = []
    for name, known in list(_modules.items()):
        looked = _version(known.file)
        if looked != known.version and known.version is not None:
            if _has_new_version(name, known):
                _note_new_version(name, known.spec)
            elif known.looked == known.version:
                changed.append(name)
        known.looked = looked
    _tell(changed)
    now = time.monotonic()
    # What the quickest look at so many files took: all else is that this process had to wait.
    _cost = len(_modules), min(now - began, _cost[1] if _cost[0] == len(_modules) else math.inf)
    _look_after = now + _cost[1] / PART_OF_TIME


def _has_new_version(name: str, known: _Module) -> bool:
    assert known.version is not None
    if known.parts is None:
        code = _compiled(known.text, known.file) if known.text is not None else _bytecode(known.spec, known.version)
        known.parts = None if code is None else _Parts(code)
    module = sys.modules.get(name)
    return known.parts is not None and isinstance(module, types.ModuleType) and _has_new(module, known.parts, known)


def keep_texts() -> None:
    """Keep the source of all modules of the user, as long as it is what the script has."""
    kept = sum(len(known.text) for known in _modules.values() if known.text is not None)
    for known in list(_modules.values()):
        version = known.version
        if known.text is None and version is not None and version == known.looked:
            kept += version.size
            if kept > MOST_TEXT:
                return
            text = _read_text(known.file)
            if _version(known.file) == version:
                known.text = text


def _read_text(file: str) -> bytes | None:
    try:
        with open(file, "rb") as source:
            return source.read()
    except OSError:
        return None


def _tell(names: Any) -> None:
    """Let workers know of the versions of modules; also their text, if that is not in the file any more."""
    news = []
    for name in names:
        known = _modules[name]
        if known.version is not None:
            news.append((name, known.file, *known.version, known.text if known.looked != known.version else None))
    if news:
        told.append(("", marshal.dumps(news)))


# --- has the script what is in the file now? ---------------------------------------------------------------------


class _Parts:
    """What is in a piece of code of a module: the code of its functions, and the plain values of its names."""

    def __init__(self, code: types.CodeType) -> None:
        self.codes = frozenset(_codes(code))
        self.values = _plain_values(code)


def _has_new(module: types.ModuleType, old: _Parts, known: _Module) -> bool:
    """Tell whether a module was changed in place to what its file is now: functions of it, or plain values, are new."""
    if any(code.co_filename == known.file and code not in old.codes for code in _codes_in(module)):
        return True
    missing = object()
    return any(
        old.values.get(name, missing) != value and vars(module).get(name, missing) == value
        for name, value in _values_in(known.file, _version(known.file)).items()
    )


@functools.lru_cache(maxsize=100)
def _values_in(file: str, version: Version | None) -> dict[str, Any]:
    """Find the plain values in a file as it is now; none if half of it is written. `version`: what it is now."""
    text = _read_text(file)
    code = None if text is None else _compiled(text, file)
    return {} if code is None else _plain_values(code)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _codes(constant)


def _codes_in(space: types.ModuleType | type) -> Iterator[types.CodeType]:
    """Give the code of all functions that stand in a module, or in a class of it."""
    module = space.__name__ if isinstance(space, types.ModuleType) else space.__module__
    for value in list(vars(space).values()):
        parts = (value.fget, value.fset, value.fdel) if isinstance(value, property) else (value,)
        for part in parts:
            func = getattr(part, "__func__", part) if isinstance(part, (staticmethod, classmethod)) else part
            if isinstance(func, types.FunctionType) and func.__module__ == module:
                yield func.__code__
        if isinstance(value, type) and value.__module__ == module and value is not space:
            yield from _codes_in(value)


def _plain_values(code: types.CodeType) -> dict[str, Any]:
    """Find the plain values that a module gives to its names, ``LIMIT = 3``."""
    import dis

    found: dict[str, Any] = {}
    before = None
    for instruction in dis.get_instructions(code):
        if instruction.opname == "STORE_NAME" and before is not None and before.opname in _LOADS:
            found[instruction.argval] = before.argval
        before = instruction
    return found


_LOADS = frozenset({"LOAD_CONST", "LOAD_SMALL_INT", "LOAD_CONST_IMMORTAL"})

# --- what Python keeps of a module that it has compiled ----------------------------------------------------------

_HEAD = struct.Struct("<III")  # Behind the magic number (PEP 552): flags, time of change, size.
_MASK = 0xFFFFFFFF


def _read_bytecode(file: Any) -> tuple[Any, types.CodeType | None]:
    """Read compiled code, and of which version of the source it is."""
    try:
        with open(file, "rb") as cached:
            data = cached.read()
        flags, seconds, size = _HEAD.unpack_from(data, 4)
        if data[:4] != importlib.util.MAGIC_NUMBER or flags:
            return None, None  # Of another Python; or it does not say when.
        code = marshal.loads(memoryview(data)[4 + _HEAD.size :])
    except (OSError, TypeError, ValueError, EOFError, struct.error):
        return None, None
    return Version(size, seconds * 10**9), code if isinstance(code, types.CodeType) else None


def _fits(one: Version, other: Version) -> bool:
    """Compare versions as exactly as compiled code knows them: to the second."""
    return (one.size - other.size) & _MASK == 0 and (one.mtime_ns // 10**9 - other.mtime_ns // 10**9) & _MASK == 0


def _bytecode(spec: Any, version: Version) -> types.CodeType | None:
    known, code = _read_bytecode(spec.cached)
    return code if code is not None and _fits(known, version) else None


def _compiled(text: bytes, file: str) -> types.CodeType | None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # They were told when the script imported it.
        try:
            return compile(text, file, "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            return None


# --- in a worker -------------------------------------------------------------------------------------------------

_expected: dict[str, tuple[str, Version, bytes | None]] = {}
_said = False


def expect_versions(data: bytes) -> None:
    """Be told, in a worker, which versions of modules the script has."""
    if not _expected:
        sys.meta_path.insert(0, Versions)
    for name, file, size, mtime_ns, text in marshal.loads(data):
        _expected[name] = file, Version(size, mtime_ns), text


class Versions:
    """Finds those modules, in a worker, whose file is not what the script has imported. All others find others."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """Give what imports the version that the script has, if it can be had and is not what stands in the file."""
        known = _expected.get(name)
        if known is None or _version(known[0]) == known[1]:
            return None
        file, version, text = known
        loader = _OldLoader(name, file)
        folder = [os.path.dirname(file)] if os.path.basename(file) == "__init__.py" else None
        spec = importlib.util.spec_from_file_location(name, file, loader=loader, submodule_search_locations=folder)
        loader.code = _compiled(text, file) if text is not None else _bytecode(spec, version)
        if text is not None and _read_text(file) == text:
            return None  # It was saved as it was.
        if loader.code is None:
            _say(f"{file} was saved while the script runs: tasks import what it is now, your script has what it was.")
            return None
        if text is not None:
            keep_source(file, importlib.util.decode_source(text))
        _say(f"{file} was saved while the script runs: tasks go on with what it was, as your script does.")
        return spec


class _OldLoader(SourceFileLoader):
    """Loads a module from code that is not in its file any more."""

    code: types.CodeType | None = None

    def get_code(self, fullname: str) -> types.CodeType | None:
        return self.code


def _say(text: str) -> None:
    global _said
    if not _said:
        _said = True
        nesting.note(f"note: {text} To use the new version, start the script again or load the module anew.")

# SPDX-License-Identifier: MIT
"""Finding out why a call or a result cannot travel, and saying it with a name, a type and a way out."""

from __future__ import annotations

import builtins
import functools
import reprlib
import sys
import types

from .errors import NotPicklable
from .hints import TYPE_CHECKING
from .interrupts import came_by_signal

if TYPE_CHECKING:
    import inspect
    from typing import Any, Callable

__all__ = [
    "HEAVY",
    "call_text",
    "explain_call",
    "explain_result",
    "explain_weight",
    "function_name",
    "headline",
    "heaviest",
    "safe_repr",
    "shortened",
    "signature_of",
    "type_name",
]

# What a function may carry along before the user is told, in bytes: see `explain_weight`.
HEAVY = 10_000_000

# How far to look into containers and objects for the part that cannot travel, and at how many parts.
_DEPTH = 6
_PARTS = 2000
# A frozendict, of Python 3.15, is no dict.
_DICTS: Any = (dict, getattr(builtins, "frozendict", dict))

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60
_short.maxlist = _short.maxtuple = _short.maxdict = _short.maxset = 4
_CALL_LENGTH = 120
# More of what an exception says is not told; the exception itself has all of it.
_TEXT_LENGTH = 100_000

_NO_LOCK = "tasks share no memory, so they need no lock: return the result and combine the results afterwards"
_NO_QUEUE = "a task needs no queue to hand over its result: return the result instead"
_NO_MEMORY = "tasks share no memory: return the result instead"
_OPEN = "pass the file name and open it inside {func}()"
_MAKE = "make it inside {func}()"
_MODULE = "put its class into a module of its own, a file beside your script, and import it from there"
_C_CLASSES = ("PyCStructType", "UnionType", "PyCArrayType", "PyCPointerType", "PyCFuncPtrType", "PyCSimpleType")
# What to do instead, by the full name of the type (or of one of its bases).
_INSTEAD = {
    "sqlite3.Connection": "pass the file name and open it inside {func}()",
    "_io._IOBase": "pass the file name and open it inside {func}()",
    "socket.socket": "pass the address and connect inside {func}()",
    "ssl.SSLSocket": "pass the address and connect inside {func}()",
    "_thread.lock": _NO_LOCK,
    "_thread.RLock": _NO_LOCK,
    "threading.Thread": "start the thread inside {func}()",
    "threading.Event": _NO_MEMORY,
    "threading.Condition": _NO_MEMORY,
    "threading.Semaphore": _NO_LOCK,
    "threading.Barrier": _NO_MEMORY,
    "queue.Queue": _NO_QUEUE,
    "_queue.SimpleQueue": _NO_QUEUE,
    "multiprocessing.queues.Queue": _NO_QUEUE,
    "multiprocessing.queues.SimpleQueue": _NO_QUEUE,
    "multiprocessing.connection._ConnectionBase": "a task needs no pipe to hand over its result: return it instead",
    "multiprocessing.synchronize.SemLock": _NO_LOCK,
    "multiprocessing.synchronize.Event": _NO_MEMORY,
    "multiprocessing.synchronize.Condition": _NO_MEMORY,
    "multiprocessing.sharedctypes.SynchronizedBase": _NO_MEMORY,
    "concurrent.interpreters._queues.Queue": _NO_QUEUE,
    "concurrent.interpreters.Interpreter": "create it inside {func}()",
    "multiprocessing.pool.Pool": "queue other dummymp.run(...) calls instead",
    "builtins.generator": "pass a list: list(...)",
    "_csv.reader": "pass a list: list(...)",
    "sqlite3.Cursor": "pass a list of the rows: cursor.fetchall()",
    "sqlite3.Row": "pass tuple(row) or dict(row)",
    "re.Match": "pass its text: match.group()",
    "posix.DirEntry": "pass its path: entry.path",
    "nt.DirEntry": "pass its path: entry.path",
    "posix.ScandirIterator": "pass a list of paths: [entry.path for entry in ...]",
    "nt.ScandirIterator": "pass a list of paths: [entry.path for entry in ...]",
    "builtins.async_generator": "pass a list of its items",
    "builtins.coroutine": "run it inside {func}() with asyncio.run(...)",
    "builtins.module": "import it inside {func}()",
    "builtins.frame": "leave it out",
    "ctypes.CDLL": "load it inside {func}()",
    "_ctypes.CFuncPtr": "load its library inside {func}()",
    "_ctypes.PyCFuncPtr": "load its library inside {func}()",  # Its name in Python 3.9.
    **{f"_ctypes.{name}": "define it inside {func}(), or in a module" for name in _C_CLASSES},
    "builtins.traceback": "pass the text, traceback.format_exc()",
    "dummymp.task.Task": "pass what it returned: task.result()",
    "dummymp.taskqueue.TaskQueue": "make one inside {func}(), or use dummymp.run(...) there",
    "subprocess.Popen": "start the program inside {func}()",
    "multiprocessing.context.Process": "queue another dummymp.run(...) instead",
    "_thread._local": _MAKE,
    # Of other libraries.
    "h5py._hl.base.HLObject": _OPEN,
    "h5py._hl.dataset.Dataset": "pass its values, dataset[()], or the file name and open it inside {func}()",
    "netCDF4._netCDF4.Dataset": _OPEN,
    "netCDF4._netCDF4.Variable": "pass its values, variable[:], or the file name and open it inside {func}()",
    "pyarrow.parquet.core.ParquetFile": _OPEN,
    "pyarrow.parquet.core.ParquetWriter": _OPEN,
    "pyarrow.lib.NativeFile": _OPEN,
    "rich.console.Console": _MAKE,
    "rich.progress.Progress": "return what is to be shown, or use dummymp's own: process_until_done(progress=True)",
    "sqlalchemy.engine.base.Engine": "pass the URL and call create_engine() inside {func}()",
    "sqlalchemy.engine.base.Connection": "pass the URL and connect inside {func}()",
    "sqlalchemy.orm.session.Session": "pass the URL and make a session inside {func}()",
    "sqlalchemy.orm.session.sessionmaker": "pass the URL and make a session inside {func}()",
    "sqlalchemy.orm.state.InstanceState": _MODULE,
    "sqlalchemy.orm.decl_api.DeclarativeMeta": _MODULE.replace("its class", "it"),
    "sqlalchemy.orm.decl_api.DeclarativeAttributeIntercept": _MODULE.replace("its class", "it"),
    "bs4.element.NavigableString": "pass its text: str(...)",
    "bs4.element.Tag": "pass its HTML, str(...), or its text",
    "_box.Box": "pass plain data, and make it inside {func}()",  # An object of a jitclass of numba.
    "numba.experimental.jitclass.base.JitClassType": _MODULE.replace("its class", "it"),
}  # fmt: skip
_INSTEAD_RETURN = {
    "_io._IOBase": "return what is in it, or its name",
    "dummymp.task.Task": "return what it returned: task.result()",
    "dummymp.forward.LineWriter": "what a task prints appears in the script by itself; return text instead",
    "builtins.generator": "return a list: list(...)",
    "_csv.reader": "return a list: list(...)",
    "sqlite3.Cursor": "return a list of the rows: cursor.fetchall()",
    "sqlite3.Row": "return tuple(row) or dict(row)",
    "re.Match": "return its text: match.group()",
    "posix.DirEntry": "return its path: entry.path",
    "nt.DirEntry": "return its path: entry.path",
    "posix.ScandirIterator": "return a list of paths: [entry.path for entry in ...]",
    "nt.ScandirIterator": "return a list of paths: [entry.path for entry in ...]",
    "builtins.async_generator": "return a list of its items",
    "h5py._hl.dataset.Dataset": "return its values: dataset[()]",
    "netCDF4._netCDF4.Variable": "return its values: variable[:]",
    "bs4.element.NavigableString": "return its text: str(...)",
    "bs4.element.Tag": "return its HTML, str(...), or its text",
    "_box.Box": "return plain data",
    "builtins.coroutine": "{func} is an async function: queue a plain one that calls asyncio.run({func}(...))",
}
_TOO_DEEP = "is nested too deeply: one thing holds the next, and so on, hundreds of times."
_OWN_PROCESS = ("sqlite3.Connection", "_io._IOBase", "socket.socket", "ssl.SSLSocket", "subprocess.Popen")


def explain_call(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    number: int,
    error: Exception,
    dump: Callable[[Any], object],
) -> NotPicklable:
    """Find the argument or the captured variable of call `number` that cannot be sent.

    Args:
        func: The function; its positional and keyword arguments follow.
        args: See func.
        kwargs: See func.
        number: The call number.
        error: What the pickler said.
        dump: Serialises a value, or raises.
    """
    name = function_name(func)
    start = f"cannot send task {number}, {name}(...), to a worker: "
    try:
        found = _find_in_arguments(func, args, kwargs, dump) or _find_in_function(func, dump)
    except Exception as problem:  # It looks into the values, and that may be code of the user.
        if came_by_signal(problem):
            raise
        found = None
    if found is None:
        return NotPicklable(start + _first_line(error))
    where, path, value = found
    if "'get_ipython'" in where:
        return NotPicklable(
            f"{start}it has a line that begins with ! or %, and those work in IPython itself only, not in a worker. "
            f"For a command, call subprocess.run([...]) inside {name}()"
        )
    if _is_too_deep(error) and not _way_out(value, _INSTEAD, name):
        return NotPicklable(f"{start}{where} {_TOO_DEEP} Pass a flat list, and build what you need inside {name}()")
    why = "" if _way_out(value, _INSTEAD, name) else f" ({_first_line(error)})"
    return NotPicklable(start + _sentence(where, path, value, name, _INSTEAD) + why)


def explain_result(value: Any, name: str, error: BaseException, dump: Callable[[Any], object]) -> str:
    """Say, for the end of a sentence about a task, which part of its result cannot be sent."""
    try:
        return _explain_result(value, name, error, dump)
    except BaseException:  # It looks into the value, and that may be code of the user.
        return f"its result cannot be sent back: it is a {type(value).__qualname__} ({_first_line(error)})"


def _explain_result(value: Any, name: str, error: BaseException, dump: Callable[[Any], object]) -> str:
    path, part = _culprit(value, dump)
    if _is_too_deep(error) and not _way_out(part, _INSTEAD, name):
        return f"its result cannot be sent back: it {_TOO_DEEP} Return a flat list"
    sentence = _sentence("it", path, part, name, {**_INSTEAD, **_INSTEAD_RETURN}) if part is not value else None
    if sentence is None:
        way_out = _way_out(value, {**_INSTEAD, **_INSTEAD_RETURN}, name)
        sentence = f"it is a {type_name(value)}. " + (way_out or "Return plain data (numbers, lists, dicts, arrays)")
    return f"its result cannot be sent back: {sentence} ({_first_line(error)})"


def explain_weight(func: Callable[..., Any], weight: int, weigh: Callable[[Any], int]) -> str | None:
    """Say which variable makes a function heavy, and what to do about it; None if no variable does.

    Args:
        func: The function.
        weight: What it weighs with all that it captured, in bytes.
        weigh: Gives the bytes of a value.
    """
    where = heaviest(func, weigh)
    if not where:
        return None
    name = function_name(func)
    return (
        f"{name}() carries {_megabytes(weight)} along, above all {where}. Each run() call has to look at all of it, "
        f"because it may have changed, and each task gets a copy. Faster: load it in a function with @functools.cache "
        f"that {name}() calls, so that each worker loads it once; or give {name}() a parameter for it, and pass each "
        "call only the part that it needs. dummymp.map() builds its function once in each worker."
    )


def heaviest(func: Callable[..., Any], weigh: Callable[[Any], int]) -> str:
    """Name the heaviest variable that a function carries along, or another function that it calls; "" if none does."""
    where, user, value, seen = "", func, None, {id(func)}
    while isinstance(user, types.FunctionType):
        captured = [entry for entry in _captured(user, user.__code__) if id(entry[2]) not in seen]
        weighed = [(_weight(entry[2], weigh), entry) for entry in captured]
        if not weighed:
            break
        size, (kind, name, value) = max(weighed, key=lambda pair: pair[0])
        seen.add(id(value))
        if not isinstance(value, types.FunctionType):
            size_text = f", {_megabytes(size)}" if size >= 1e6 else ""
            where = f"the {kind} '{name}' ({type_name(value)}{size_text})"
            where += f" of {function_name(user)}()" if user is not func else ""
            break
        user = value  # It is another function of the user that carries it.
    return where


def _weight(value: Any, weigh: Callable[[Any], int]) -> int:
    try:
        return weigh(value)
    except Exception:
        return 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def call_text(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Put arguments in words, shortened: ``'big.csv', depth=3``."""
    parts = [_safe_repr(value) for value in args]
    parts += [f"{key}={_safe_repr(value)}" for key, value in kwargs.items()]
    text = ", ".join(parts)
    return text if len(text) <= _CALL_LENGTH else text[: _CALL_LENGTH - 3] + "..."


def headline(error: BaseException) -> str:
    """Give the line that ends a traceback, ``ValueError: bad``, without the notes that may follow it."""
    import traceback

    try:
        summary = traceback.TracebackException(type(error), error, None)
        summary.__dict__["__notes__"] = None
        return shortened(list(summary.format_exception_only())[-1].strip())
    except BaseException as problem:
        # What an exception says of itself is code of the user, and `traceback` looks at more than that.
        if came_by_signal(problem):
            raise
        return shortened(f"{type_name(error)}: {_text_of(error)}".removesuffix(": "))


def _text_of(error: BaseException) -> str:
    try:
        return f"{error!s}"
    except BaseException as problem:
        if came_by_signal(problem):
            raise
        return "<exception str() failed>"  # As Python says it.


def safe_repr(value: object) -> str:
    """Give the repr of anything, also where its own ``__repr__`` raises."""
    try:
        return shortened(f"{value!r}")
    except BaseException as problem:
        if came_by_signal(problem):
            raise
        return f"{type(value).__qualname__}(...)"


def shortened(text: str) -> str:
    """Leave out the middle of a text that nobody would read to its end."""
    left_out = len(text) - _TEXT_LENGTH
    if left_out <= 0:
        return text
    half = _TEXT_LENGTH // 2
    return f"{text[:half]} ... ({left_out} characters are left out) ... {text[-half:]}"


def function_name(func: Any) -> str:
    """Give the name of anything that can be called, as its author would say it."""
    if type(func) is types.FunctionType and "<" not in func.__qualname__:
        return func.__qualname__  # As nearly always, and in every call of `run`.
    while isinstance(func, (functools.partial, functools.partialmethod)) and not hasattr(func, "__name__"):
        func = func.func
    name = getattr(func, "__qualname__", None) or getattr(func, "__name__", None)
    if not isinstance(name, str):
        return type(func).__qualname__
    name = name.replace("<locals>.", "")
    return "<lambda>" if name.endswith("<lambda>.<lambda>") else name  # Where it stands is no name.


def type_name(value: Any) -> str:
    """Give the type of a value as a reader knows it: ``sqlite3.Connection``, ``list``."""
    cls = type(value)
    if cls.__module__ == "dummymp.forward":
        return "text stream (sys.stdout or sys.stderr)"  # Our own stands there in a worker.
    return cls.__qualname__ if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}.{cls.__qualname__}"


def _find_in_arguments(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], dump: Callable[[Any], object]
) -> tuple[str, str, Any] | None:
    named = [*zip(_parameter_names(func, len(args)), args), *((f"'{key}'", value) for key, value in kwargs.items())]
    for name, value in named:
        if not _travels(value, dump):
            return (f"argument {name}", *_culprit(value, dump))
    return None


def _find_in_function(func: Any, dump: Callable[[Any], object]) -> tuple[str, str, Any] | None:
    """Look at what a function captured: the object of a method, parts of a partial, globals, closure, defaults."""
    if isinstance(func, types.MethodType) and not _travels(func.__self__, dump):
        return (f"the object of the method {function_name(func)}", *_culprit(func.__self__, dump))
    inner = getattr(func, "func", None)
    if callable(inner) and hasattr(func, "keywords"):
        return _find_in_arguments(inner, func.args, func.keywords, dump) or _find_in_function(inner, dump)
    code = getattr(func, "__code__", None)
    if code is None:
        return None
    for kind, name, value in _captured(func, code):
        if not _travels(value, dump):
            if isinstance(value, types.FunctionType) and value is not func:
                deeper = _find_in_function(value, dump)
                if deeper is not None:
                    return deeper
            return (f"the {kind} '{name}', which {function_name(func)} uses,", *_culprit(value, dump))
    return None


def _captured(func: Any, code: types.CodeType) -> list[tuple[str, str, Any]]:
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names += constant.co_names
    found = [("global variable", name, func.__globals__[name]) for name in names if name in func.__globals__]
    for name, cell in zip(code.co_freevars, func.__closure__ or ()):
        try:
            found.append(("outer variable", name, cell.cell_contents))
        except ValueError:
            continue
    positional = code.co_varnames[: code.co_argcount]
    defaults = [*zip(reversed(positional), reversed(func.__defaults__ or ())), *(func.__kwdefaults__ or {}).items()]
    return found + [("default value of", name, value) for name, value in defaults]


def signature_of(func: Any, *, follow_wrapped: bool = True) -> inspect.Signature:
    """Give the signature of a function of the user, without evaluating its annotations (PEP 649).

    Raises:
        TypeError: It has none.
        ValueError: The same.
    """
    import inspect

    if sys.version_info >= (3, 14):
        from annotationlib import Format

        return inspect.signature(func, follow_wrapped=follow_wrapped, annotation_format=Format.STRING)
    return inspect.signature(func, follow_wrapped=follow_wrapped)


def _parameter_names(func: Any, count: int) -> list[str]:
    names: list[str] = []
    try:
        for parameter in signature_of(func).parameters.values():
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                names.append(f"'{parameter.name}'")
    except (TypeError, ValueError):
        pass
    return (names + [f"{number}" for number in range(len(names) + 1, count + 1)])[:count]


def _travels(value: Any, dump: Callable[[Any], object]) -> bool:
    try:
        dump(value)
    except Exception:
        return False
    return True


def _culprit(value: Any, dump: Callable[[Any], object]) -> tuple[str, Any]:
    """Follow the part that cannot travel down into containers and objects: the path to it, and the part."""
    path = ""
    for _ in range(_DEPTH):
        if _way_out(value, _INSTEAD, ""):
            break  # A lock inside of it would say less.
        for step, part in _parts(value):
            if not _travels(part, dump):
                path += step
                value = part
                break
        else:
            break
    return path, value


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, _DICTS):
        return [(f"[{_safe_repr(key)}]", part) for key, part in list(value.items())[:_PARTS]]
    if isinstance(value, (list, tuple)):
        return [(f"[{number}]", part) for number, part in enumerate(value[:_PARTS])]
    if isinstance(value, (set, frozenset)):
        return [("{...}", part) for part in list(value)[:_PARTS]]
    if isinstance(value, type):
        return [(f".{name}", part) for name, part in vars(value).items() if not name.startswith("__")]
    if isinstance(value, (types.FunctionType, types.ModuleType)):
        return []
    state = getattr(value, "__dict__", None)
    return [(f".{name}", part) for name, part in state.items()] if isinstance(state, dict) else []


def _sentence(where: str, path: str, value: Any, name: str, table: dict[str, str]) -> str:
    what = f"the class {value.__qualname__}" if isinstance(value, type) else f"a {type_name(value)}"
    verb = f"{where} holds {what} at {path}" if path else f"{where} is {what}"
    way_out = _way_out(value, table, name)
    reason = ". Such an object only works in the process that opened it" if _is_a(value, _OWN_PROCESS) else ""
    return f"{verb}{reason}. {way_out or 'Send plain data instead (numbers, text, lists, dicts, arrays)'}"


def _way_out(value: Any, table: dict[str, str], name: str) -> str:
    for base in type(value).__mro__:
        text = table.get(f"{base.__module__}.{base.__qualname__}")
        if text is not None:
            if not text.startswith("{func}"):
                text = text[0].upper() + text[1:]
            if name.endswith("<lambda>"):
                text = text.replace("{func}()", "the function")
            return text.format(func=name)
    return ""


def _is_a(value: Any, names: tuple[str, ...]) -> bool:
    return any(f"{base.__module__}.{base.__qualname__}" in names for base in type(value).__mro__)


def _safe_repr(value: Any) -> str:
    try:
        return _short.repr(value)
    except Exception:
        return f"<{type_name(value)}>"


def _is_too_deep(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, RecursionError):
        error = error.__cause__  # cloudpickle makes another error of it.
    return error is not None


def _first_line(error: BaseException) -> str:
    text = _text_of(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}" if text else type(error).__name__

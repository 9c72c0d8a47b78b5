# SPDX-License-Identifier: MIT
"""Wrong calls: arguments that do not fit a function, told before it is called, with what to write instead.

Of a function in Python its code says what it takes. What is not written in Python, and what cannot be seen through, is
never refused here: calling it will tell. Loaded when there is something to look at: most calls fit at first sight.
"""

from __future__ import annotations

import functools
import types

from .explain import call_text, function_name, signature_of
from .hints import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Callable

__all__ = ["check_call", "check_callback", "check_item_call", "did_you_mean", "no_such_argument", "not_callable"]

# Bits of `co_flags`: the documentation of `inspect` has them.
_VARARGS, _VARKEYWORDS, _GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x04, 0x08, 0x20, 0x80, 0x200
# A signature in a message has at most so many characters.
_SIGNATURE_LENGTH = 100
# What stands in a partial for an argument that the caller gives (from Python 3.14 on).
_PLACEHOLDER = getattr(functools, "Placeholder", object())
# A partial of a method of a callable object is seen through; after so many steps it is left alone.
_STEPS = 10


def check_call(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, settings: Iterable[str]
) -> None:
    """See that `run` can call this function with these arguments, and that it is one to be called.

    Args:
        func: The function; its positional and keyword arguments follow.
        args: See func.
        kwargs: See func.
        settings: The names of settings, which people take for keywords of `run`.

    Raises:
        TypeError: It cannot be; the message says what the function takes.
    """
    call = _see_through(func, len(args), kwargs)
    if call is None:
        _check_settings(func, args, kwargs, settings)
        return
    _check_kind(func, call, "run")
    misfit = _misfit(call)
    if misfit is not None:
        text = f"{function_name(func)}({call_text(args, kwargs)})"
        hint = _hint(func, call, args, kwargs, settings)
        raise TypeError(f"cannot queue {text}: {_signature(func, call)} {misfit}{hint and '. '}{hint}")


def _check_settings(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], settings: Iterable[str]) -> None:
    """See that a function in C does not get a setting that it has no parameter for."""
    taken = [name for name in kwargs if name in settings]
    if not taken or type(func) is not types.BuiltinFunctionType:
        return
    try:
        parameters = signature_of(func).parameters
    except (TypeError, ValueError):
        return  # It does not tell.
    if taken[0] not in parameters and all(each.kind != each.VAR_KEYWORD for each in parameters.values()):
        name = function_name(func)
        raise TypeError(
            f"cannot queue {name}({call_text(args, kwargs)}): {name} has no parameter {taken[0]!r}. "
            f"{_setting(taken[0], kwargs)}"
        )


def check_item_call(func: Callable[..., Any], iterables: int, pass_as: str) -> None:
    """See that `map` can call this function with the items of so many iterables. Raises as `check_call`."""
    call = _see_through(func, iterables, {})
    if call is None:
        return
    _check_kind(func, call, "map")
    misfit = _misfit(call) if pass_as == "one" else None
    if misfit is None:
        return
    name, signature = function_name(func), _signature(func, call)
    if iterables > 1:
        raise TypeError(f"map() got {iterables} iterables, one for each argument of {name}, but {signature} {misfit}")
    hint = ""
    if misfit.startswith("needs"):
        hint = (
            '. Where each item is a tuple of all arguments, write dummymp.map(..., pass_as="args"); where it is a dict '
            f'of them, pass_as="kwargs". Where they are in lists of their own, write dummymp.map({name}, list1, list2)'
        )
    raise TypeError(f"map() calls {name} with one item at a time, but {signature} {misfit}{hint}")


def check_unpacked(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], item: object) -> None:
    """See that `map` can call this function with an item that holds several arguments. Raises as `check_call`."""
    call = _see_through(func, len(args), kwargs)
    misfit = None if call is None else _misfit(call)
    if call is None or misfit is None:
        return
    pass_as = "kwargs" if kwargs else "args"
    whole = _see_through(func, 1, {})
    hint = ". Without pass_as it gets the item as it is" if whole is not None and _misfit(whole) is None else ""
    raise TypeError(
        f'with pass_as="{pass_as}" map() calls {function_name(func)} with what is in each item, but '
        f"{_signature(func, call)} {misfit}{hint}. The first item: {item!r:.60}"
    )


def check_callback(name: str, callback: Callable[..., Any]) -> None:
    """See that a callback can be called with ``(completed, running, total)``. Raises as `check_call`."""
    call = _see_through(callback, 3, {})
    misfit = None if call is None else _misfit(call)
    if call is None or misfit is None:
        return
    own = call.func.__name__
    start = f"def {own}(completed, running, total)" if own.isidentifier() else "lambda completed, running, total"
    raise TypeError(
        f"{name} must be a function that takes (completed, running, total), but {_signature(callback, call)} "
        f"{misfit}. Write {start}: ..."
    )


def check_without_arguments(name: str, func: Any) -> None:
    """See that a setting is a function that can be called without arguments. Raises as `check_call`."""
    hint = f"To pass something to it: {name}=functools.partial(function, something)"
    if not callable(func):
        raise TypeError(f"{name} must be a function that takes no arguments, or None; got {func!r:.60}. {hint}")
    call = _see_through(func, 0, {})
    misfit = None if call is None else _misfit(call)
    if call is not None and call.func.__code__.co_flags & (_GENERATOR | _COROUTINE | _ASYNC_GENERATOR):
        raise TypeError(f"{name} must be a plain function: to call {function_name(func)}() does nothing yet")
    if call is not None and misfit is not None:
        signature = _signature(func, call)
        raise TypeError(f"{name} must be a function that takes no arguments, but {signature} {misfit}. {hint}")


def not_callable(value: object) -> str:
    """Say what is wrong where `run` was given something that is no function."""
    start = "run() needs a function to call later, got"
    if isinstance(value, str):
        return f"{start} text: {value!r:.60}. Write the function without quotes"
    return (
        f"{start} {value!r:.60}. Write run(square, 3), not run(square(3)): "
        "the second calls square at once and passes on what it returned"
    )


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Suggest the name that is near, or list them all: the last sentence of a message."""
    import difflib  # Costs milliseconds.

    names = sorted(names)
    near = difflib.get_close_matches(name, names, 1)
    return f"Did you mean {near[0]}?" if near else f"There are: {', '.join(names)}"


def no_such_argument(by: str, keyword: str, value: Any, known: Iterable[str], args: tuple[Any, ...]) -> str:
    """Say that a function of ours has no such argument, and which was meant.

    Args:
        by: What the user calls it.
        keyword: The argument that it has not; its value, and those that it has, follow.
        value: See keyword.
        known: See keyword.
        args: Its other arguments. In those of `map` there is a function of the user, which may be who is to get it.
    """
    hint = did_you_mean(keyword, known)
    if by == "dummymp.map" and args and callable(args[0]):
        takes = _takes(args[0], keyword)
        name = function_name(args[0])
        partial = (
            f"To give every call of {name} the same {keyword}, write "
            f"dummymp.map(functools.partial({name}, {call_text((), {keyword: value})}), ...)"
        )
        if takes:
            hint = partial
        elif takes is None and not hint.startswith("Did you mean"):
            hint = f"{hint}. {partial}"
    return f"{by}() has no argument {keyword!r}. {hint}"


def _takes(func: Any, keyword: str) -> bool | None:
    """Tell whether a function has such a parameter; None if it may have any, or one cannot tell."""
    call = _see_through(func, 0, ())
    if call is None or call.func.__code__.co_flags & _VARKEYWORDS:
        return None
    code = call.func.__code__
    return keyword in code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]


class _Call:
    """The function in Python that a call ends up in, and what it gets there.

    Attributes:
        func: The function.
        given: How many arguments come by position.
        bound: So many of them are not the caller's: the object of a method, arguments of a partial.
        names: The arguments that come by their names.
    """

    __slots__ = ("bound", "func", "given", "names")

    def __init__(self, func: types.FunctionType, given: int, bound: int, names: frozenset[str]) -> None:
        self.func = func
        self.given = given
        self.bound = bound
        self.names = names


def _see_through(func: Any, count: int, kwargs: Iterable[str]) -> _Call | None:
    """Find the function in Python behind whatever can be called; None if there is none, or one cannot tell."""
    bound, names = 0, frozenset(kwargs)
    for _ in range(_STEPS):
        kind = type(func)
        if func is None:
            return None
        if kind is types.FunctionType:
            return _Call(func, count + bound, bound, names)
        if kind is types.MethodType:
            func, bound = func.__func__, bound + 1
        elif kind is functools.partial:
            given = [each for each in func.args if each is not _PLACEHOLDER]
            func, bound, names = func.func, bound + len(given), names | frozenset(func.keywords)
        elif kind is functools._lru_cache_wrapper:
            func = func.__wrapped__
        elif kind is type:
            if func.__new__ is not object.__new__:
                return None
            func, bound = _written(func, "__init__"), bound + 1
        else:
            func, bound = _written(kind, "__call__"), bound + 1
    return None


def _written(cls: type, name: str) -> Any:
    """Give a method of a class as it was written, without what makes a static method of it, and the like."""
    found = next((base.__dict__[name] for base in cls.__mro__ if name in base.__dict__), None)
    return found if type(found) is types.FunctionType else None


def _misfit(call: _Call) -> str | None:
    """Say what is wrong with a call, as the end of a sentence that begins with the function; None if it fits."""
    func, given, bound, names = call.func, call.given, call.bound, call.names
    code = func.__code__
    positional = code.co_varnames[: code.co_argcount]
    keyword_only = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    by_name = positional[code.co_posonlyargcount :] + keyword_only
    unknown = sorted(names.difference(by_name))
    if unknown and not code.co_flags & _VARKEYWORDS:
        return f"has no parameter {unknown[0]!r}"
    if given > len(positional) and not code.co_flags & _VARARGS:
        most = max(0, len(positional) - bound)
        how = " by position" if keyword_only else ""
        return f"takes {most or 'no'} argument{'' if most == 1 else 's'}{how}, and was given {given - bound}"
    twice = names.intersection(positional[code.co_posonlyargcount : given])
    if twice:
        return f"was given {min(twice)!r} twice"
    optional = names.union(positional[len(positional) - len(func.__defaults__ or ()) :], func.__kwdefaults__ or ())
    missing = [repr(name) for name in positional[given:] + keyword_only if name not in optional]
    return f"needs {' and '.join(missing)}, too" if missing else None


def _check_kind(func: Any, call: _Call, by: str) -> None:
    """Refuse functions whose call only makes something that does the work later, and cannot leave a process."""
    flags, name = call.func.__code__.co_flags, function_name(func)
    if flags & _ASYNC_GENERATOR:
        raise TypeError(
            f"{by}() needs a function that returns its result, and {name} is an async generator (it has a yield): to "
            f"call it does nothing yet. Write an async function that returns a list of its items, and pass that one"
        )
    if flags & _GENERATOR:
        raise TypeError(
            f"{by}() needs a function that returns its result, and {name} is a generator (it has a yield): to call it "
            f"does nothing yet. Write a function that returns list({name}(...)), and pass that one"
        )


def _signature(func: Any, call: _Call) -> str:
    """Give a function with its parameters as its author would call it: ``fit(data, depth=3)``."""
    name = function_name(func)
    try:
        signature = signature_of(call.func, follow_wrapped=False)
        parameters = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
        text = str(signature.replace(parameters=parameters[call.bound :], return_annotation=signature.empty))
    except (TypeError, ValueError):
        return name
    return f"{name}{text}" if len(text) <= _SIGNATURE_LENGTH else name


def _hint(func: Any, call: _Call, args: tuple[Any, ...], kwargs: dict[str, Any], settings: Iterable[str]) -> str:
    """Say what to write instead, if it can be guessed."""
    code, defaults = call.func.__code__, call.func.__defaults__ or ()
    parameters = code.co_varnames[call.bound : code.co_argcount]
    by_name = parameters + code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    unknown = sorted(kwargs.keys() - {*by_name})
    required = parameters[: len(parameters) - len(defaults)] if len(args) < len(parameters) else parameters
    name = func.__name__ if isinstance(func, (types.FunctionType, type)) else ""
    right = f"Write dummymp.run({', '.join([name, *required])})" if name.isidentifier() else ""
    if required[:1] == ("self",):
        return f"It is a method of objects: write dummymp.run(thing.{', '.join([name, *required[1:]])})"
    if unknown and {*unknown} <= {"args", "kwargs"}:
        return f"Arguments follow one after another, as in a call. {right}".rstrip()
    if unknown and unknown[0] in settings:
        return _setting(unknown[0], kwargs)
    if unknown:
        import difflib  # Costs milliseconds.

        near = difflib.get_close_matches(unknown[0], by_name, 1)
        return f"Did you mean {near[0]}?" if near else right
    if len(args) == 1 and not kwargs and type(args[0]) in (tuple, list) and len(args[0]) == len(parameters) > 1:
        return f"To pass the parts of the {type(args[0]).__name__} one by one, put a * before it"
    return right


def _setting(name: str, kwargs: dict[str, Any]) -> str:
    return f"For the setting, write dummymp.configure({call_text((), {name: kwargs[name]})})"

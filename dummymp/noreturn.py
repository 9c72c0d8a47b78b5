# SPDX-License-Identifier: MIT
"""A forgotten ``return``: who asks for results that are all None, because the function throws away what it works out.

Many functions rightly return nothing: they print, or write a file. So nothing is said unless the source shows that the
last thing a function does is to work something out that nobody gets: ``n * n``, ``total += n``, ``found.append(n)``.
"""

from __future__ import annotations

import ast
import inspect
import os
import sysconfig
import textwrap
import types
from typing import Union

from .log import logger

__all__ = ["tell_no_return"]

_Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]
# What is called for its result alone.
_PURE = frozenset(
    "abs bool dict divmod float frozenset int len list max min pow round set sorted str sum tuple".split()
)
_COLLECT = frozenset({"append", "add", "extend", "update"})
# What is called for nothing that stays.
_NO_RESULT = _COLLECT | {"sleep", "seed"}
_PURE_MODULES = frozenset({"math", "statistics"})
_LITERALS = (ast.List, ast.Dict, ast.Set)
_COMPUTED = (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Name, ast.Subscript, ast.JoinedStr)
_COLLECTED = (*_COMPUTED, *_LITERALS, ast.Tuple, ast.ListComp, ast.SetComp, ast.DictComp)
_NOT_OURS = ("site-packages", "dist-packages")


def tell_no_return(name: str, code: types.CodeType, count: int) -> None:
    """Say that all calls of a function gave None because it lacks a ``return``, if that is plain to see.

    Args:
        name: What it is called.
        code: Its code.
        count: So many calls gave None.
    """
    lost = _lost(code)
    if lost is not None:
        logger().warning(
            "%s() gave None, %s. It works out a result, but does not hand it over: its last line should be: return %s",
            name, "both times" if count == 2 else f"all {count} times", lost,
        )  # fmt: skip


def _lost(code: types.CodeType) -> str | None:
    """Give what a function should return, as source text; None if it is not certain that it should."""
    path = code.co_filename
    if path.startswith(sysconfig.get_path("stdlib") + os.sep) or any(folder in path for folder in _NOT_OURS):
        return None
    try:
        (function,) = ast.parse(textwrap.dedent(inspect.getsource(code))).body
    except (OSError, TypeError, ValueError, SyntaxError):
        return None
    if not isinstance(function, ast.FunctionDef) or _hands_over(function):
        return None
    last = _last_statement(function.body)
    if isinstance(last, ast.Expr):
        return _lost_value(function, last.value)
    if isinstance(last, ast.AugAssign) and isinstance(last.target, ast.Name):
        return _unread(function, last.target.id)
    if isinstance(last, ast.Assign) and len(last.targets) == 1 and isinstance(last.targets[0], ast.Name):
        if isinstance(last.value, _COLLECTED) or _is_pure_call(last.value):
            return _unread(function, last.targets[0].id)
    return None


def _hands_over(function: _Function) -> bool:
    """Tell whether it gives something away: it returns or yields it, sets variables outside, or prints or writes."""
    for node in ast.walk(function):
        if isinstance(node, (ast.Yield, ast.YieldFrom, ast.Global, ast.Nonlocal)):
            return True
        if isinstance(node, ast.Return) and node.value is not None:
            return True
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and not _is_pure_call(node.value):
            called = node.value.func
            if getattr(called, "attr", getattr(called, "id", "")) not in _NO_RESULT:
                return True
    return False


def _last_statement(body: list[ast.stmt]) -> ast.stmt:
    while True:
        last = body[-1]
        if not isinstance(last, (ast.For, ast.While, ast.With)):
            return last
        body = last.orelse or last.body if not isinstance(last, ast.With) else last.body


def _lost_value(function: _Function, value: ast.expr) -> str | None:
    if isinstance(value, _COMPUTED) or _is_pure_call(value):
        text = ast.unparse(value)
        # What stands alone in a loop is no result of the function.
        return text if value in [node.value for node in function.body if isinstance(node, ast.Expr)] else None
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and isinstance(value.func.value, ast.Name):
        if value.func.attr in _COLLECT:
            return _unread(function, value.func.value.id, begins_empty=True)
    return None


def _is_pure_call(value: ast.expr) -> bool:
    if not isinstance(value, ast.Call):
        return False
    called = value.func
    if isinstance(called, ast.Attribute):
        return isinstance(called.value, ast.Name) and called.value.id in _PURE_MODULES
    return isinstance(called, ast.Name) and called.id in _PURE


def _unread(function: _Function, name: str, *, begins_empty: bool = False) -> str | None:
    """Give the name of a variable that nobody reads, but to go on with it; None if somebody does."""
    own: set[ast.AST] = set()
    begins = False
    for node in ast.walk(function):
        if isinstance(node, (ast.Assign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                own.update(ast.walk(node))
                begins |= isinstance(node.value, _LITERALS) or _is_pure_call(node.value)
        elif isinstance(node, ast.Expr) and begins_empty and isinstance(node.value, ast.Call):
            called = node.value.func
            if isinstance(called, ast.Attribute):
                own.add(called.value)
    read = [node for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    if any(node.id == name and node not in own for node in read) or (begins_empty and not begins):
        return None
    return name

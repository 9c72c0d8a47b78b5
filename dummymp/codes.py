# SPDX-License-Identifier: MIT
"""Code objects: what they read from outside, and how they travel.

They travel as `marshal` writes them, the form of the interpreter itself, so all that tracebacks, warnings, log records
and profilers say of a task is what they would say of it in the script: the file, the lines, and the columns.
"""

from __future__ import annotations

import dis
import marshal
import re
import sys
import types
import weakref
from typing import TYPE_CHECKING, Any

from .sources import shown_name

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["global_names", "names_in_text", "reduce_code"]

# What loads or binds a global variable. Two are of class bodies, which look into their own names first, and of
# annotations in classes (since Python 3.12).
_GLOBAL = frozenset({"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
# What writes a global variable, or an attribute, which may be one of a captured function.
_WRITES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL", "STORE_ATTR", "DELETE_ATTR"})
_WRITERS = frozenset({"setattr", "delattr", "globals", "vars", "exec", "eval"})
_names_of_code: weakref.WeakKeyDictionary[types.CodeType, tuple[dict[str, None], bool]] = weakref.WeakKeyDictionary()


def global_names(code: types.CodeType) -> tuple[dict[str, None], bool]:
    """Find the global names in a piece of code and in what is nested in it, and whether it may change their values.

    The names are the keys of a dict, in the order in which they appear.
    """
    known = _names_of_code.get(code)
    if known is None:
        names: dict[str, None] = {}
        writes = False
        for instruction in dis.get_instructions(code):
            if instruction.opname in _GLOBAL:
                names[instruction.argval] = None
            writes = writes or instruction.opname in _WRITES
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                inner, inner_writes = global_names(constant)
                names.update(inner)
                writes = writes or inner_writes
        known = _names_of_code[code] = names, writes or not _WRITERS.isdisjoint(names)
    return known


# Who uses one of these may reach a global variable by a name in a text: Python's own, those of pandas, numexpr, patsy,
# and what runs SQL, which duckdb looks up in the variables of who calls it. Not each text is read: a message "item n"
# would carry along the n of the script, which changes from call to call.
_READERS_OF_PYTHON = frozenset({"eval", "exec", "globals", "vars"})
_READERS = _READERS_OF_PYTHON | {"query", "evaluate", "dmatrix", "sql", "execute"}
_FORMULA = re.compile(r"\S\s*~\s*\S")  # "y ~ log(x)", of patsy, statsmodels and their like.
_WORD = re.compile(r"[^\W\d]\w*")
# IPython keeps in these all that was typed and shown.
_OF_SHELL = frozenset({"In", "Out"})
_HAS_DOCSTRING = 0x4000000  # In the flags of code, since Python 3.14.
_text_of_code: weakref.WeakKeyDictionary[types.CodeType, tuple[frozenset[str], bool]] = weakref.WeakKeyDictionary()


def names_in_text(code: types.CodeType) -> tuple[frozenset[str], bool]:
    """Find the words in the text of a piece of code that may be names: ``eval("limit + 1")``, ``query("x > @limit")``.

    Docstrings do not count, nor what is a variable of the function itself.

    Returns:
        The words, and whether Python itself evaluates them, or only some library, in a language of its own.
    """
    known = _text_of_code.get(code)
    if known is None:
        everything = [*_nested(code)]
        reads = any(not _READERS.isdisjoint(each.co_names) for each in everything)
        words = frozenset(
            word
            for each in everything
            for text in _texts(each)
            if reads or _FORMULA.search(text)
            for word in _WORD.findall(text)
            if word not in _OF_SHELL and word not in (*each.co_varnames, *each.co_cellvars, *each.co_freevars)
        )
        python = any(not _READERS_OF_PYTHON.isdisjoint(each.co_names) for each in everything)
        known = _text_of_code[code] = words, python
    return known


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


def _texts(code: types.CodeType) -> Iterator[str]:
    """Give the text constants of a piece of code, without its docstring."""
    has_docstring = code.co_flags & _HAS_DOCSTRING if sys.version_info >= (3, 14) else code.co_name[:1] != "<"
    for constant in code.co_consts[1 if has_docstring else 0 :]:
        for each in constant if isinstance(constant, (tuple, frozenset)) else (constant,):
            if isinstance(each, str):
                yield each


def reduce_code(code: types.CodeType, *, here: bool) -> tuple[Any, ...]:
    """Reduce a code object, as `object.__reduce__` does. `here`: it will be loaded in this very process."""
    name = code.co_filename if here else shown_name(code)
    if name != code.co_filename:
        code = _renamed(code, name)
    try:
        return marshal.loads, (marshal.dumps(code),)
    except ValueError:
        # A library has put something into its constants that no compiler puts there.
        return _with_constants, (marshal.dumps(code.replace(co_consts=())), code.co_consts)


def _with_constants(data: bytes, constants: tuple[Any, ...]) -> types.CodeType:
    code: types.CodeType = marshal.loads(data)
    return code.replace(co_consts=constants)


def _renamed(code: types.CodeType, name: str) -> types.CodeType:
    """Give a piece of code, and what is nested in it, another file name."""
    constants = tuple(_renamed(each, name) if isinstance(each, types.CodeType) else each for each in code.co_consts)
    return code.replace(co_filename=name, co_consts=constants)

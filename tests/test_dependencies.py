"""What the package uses of others' libraries: nothing that is private, and nothing that the installed release lacks."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
from pathlib import Path

import pytest

import dummymp

PACKAGE = Path(dummymp.__file__).parent
LIBRARIES = ("cloudpickle", "psutil", "multiprocessing", "tqdm", "numpy")
# Where the package looks for a name of cloudpickle without importing it.
BY_TEXT = {("cloudpickle", "list_registry_pickle_by_value"), ("cloudpickle", "Pickler.dispatch_table")}


def used() -> set[tuple[str, str]]:
    """Give all that the package names of these libraries: ("psutil", "Process")."""
    found: set[tuple[str, str]] = set()
    for path in PACKAGE.glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                library, _, name = ast.unparse(node).partition(".")
                if library in LIBRARIES and "(" not in name:
                    found.add((library, name))
            elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in LIBRARIES:
                library, _, home = (node.module or "").partition(".")
                found |= {(library, f"{home}.{alias.name}".lstrip(".")) for alias in node.names}
    return found | BY_TEXT


USED = sorted(used())


def test_uses_are_found() -> None:
    """The tests below have something to look at."""
    assert {("psutil", "virtual_memory"), ("cloudpickle", "Pickler"), ("multiprocessing", "connection.wait")} <= {*USED}


@pytest.mark.parametrize(("library", "name"), USED, ids=map(".".join, USED))
def test_what_is_used_is_public_and_there(library: str, name: str) -> None:
    """Each name that is used has no underscore in front, and the installed release has it.

    Who changes the list at the top of cloudpickle, or takes away a name, is told here first: cloudpickle 3.1.3 wrote
    another file name into all functions, and broke what relied on how it does that.
    """
    try:
        found = importlib.import_module(library)
    except ImportError:
        pytest.skip(f"{library} is not here")
    own = [part for part in name.split(".") if not part.endswith("__")]  # Others are Python's.
    assert not any(part.startswith("_") for part in own), f"{library}.{name} is private"
    for part in name.split("."):
        if inspect.ismodule(found) and not hasattr(found, part):
            importlib.import_module(f"{found.__name__}.{part}")
        if part == "cpu_affinity" and not hasattr(found, part):
            return  # Not on every system; whoever uses it expects that.
        assert hasattr(found, part), f"{library} {version(library)} has no {name}"
        found = getattr(found, part)


def version(library: str) -> str:
    return "of Python" if library == "multiprocessing" else importlib.metadata.version(library)

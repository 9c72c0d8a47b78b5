"""The house in order: imports go downward, importing is light, everything public says what it does."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TIMEOUT

import dummymp

PACKAGE = Path(dummymp.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))
TREES = {name: ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8")) for name in MODULES}

# The version is written down once, in the shop window; the 0.5 name for it looks there when it is called.
UPWARD = {("legacy", "__init__")}
HEAVY = {"numpy", "tqdm", "matplotlib", "psutil", "cloudpickle", "multiprocessing", "subprocess"}
# What the first run() loads, while the server starts.
LATER = {"typing", "re", "pickle", "logging", "socket", "signal"}


def imported(tree: ast.AST) -> Iterator[str]:
    """Give the modules of the package that a module imports, inside functions, too."""
    if isinstance(tree, ast.If) and isinstance(tree.test, ast.Name) and tree.test.id == "TYPE_CHECKING":
        return  # Names for type checkers: nothing is imported.
    if isinstance(tree, ast.ImportFrom) and tree.level == 1:
        if tree.module is not None:
            yield tree.module.partition(".")[0]
        else:
            yield from (alias.name if alias.name in MODULES else "__init__" for alias in tree.names)
    for node in ast.iter_child_nodes(tree):
        yield from imported(node)


GRAPH = {name: {other for other in imported(tree) if (name, other) not in UPWARD} for name, tree in TREES.items()}


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """Give one circle of a graph, [] if it has none."""
    done: set[str] = set()

    def search(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            circle = search(other, [*path, name])
            if circle:
                return circle
        done.add(name)
        return []

    return next((circle for name in sorted(graph) for circle in [search(name, [])] if circle), [])


def test_imports_go_downward() -> None:
    """No module imports, at its top or in a function, one that imports it."""
    assert find_circle(GRAPH) == []


def test_circles_would_be_found() -> None:
    """The test above is able to fail."""
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert GRAPH["api"] and GRAPH["__init__"] and not GRAPH["errors"]


def test_every_module_is_in_the_map() -> None:
    """The map at the top of the package names every module, and no other."""
    source = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    _, _, text = source.partition("# A map of the package")
    named = set(text.partition("\n\n")[0].replace(",", " ").split()) & set(MODULES)
    assert set(MODULES) - named - {"__init__", "__main__"} == set()


def test_import_is_light() -> None:
    """`import dummymp` loads nothing heavy; that comes when it is first needed."""
    code = (
        "import sys; before = set(sys.modules); import dummymp; "
        f"print(sorted(set({sorted(HEAVY | LATER)!r}) & sys.modules.keys() - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT, check=True)
    assert done.stdout == "[]\n"


def test_server_is_light() -> None:
    """The server loads only cloudpickle of it, by itself: workers start the faster the less there is to copy."""
    code = f"import sys, dummymp.forkserver, dummymp.worker; print(sorted(set({sorted(HEAVY)!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT, check=True)
    assert done.stdout == "[]\n"


def public(name: str) -> list[ast.FunctionDef | ast.ClassDef]:
    found = [node for node in TREES[name].body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    return [node for node in found if not node.name.startswith("_")]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    """Each module, and each public function and class in it, says in a sentence what it does."""
    assert ast.get_docstring(TREES[name])
    assert [node.name for node in public(name) if not ast.get_docstring(node)] == []


def test_docstrings_of_the_face() -> None:
    """Everything that users may call has a docstring, the methods of the public classes, too."""
    missing = [name for name in dir(dummymp) if callable(getattr(dummymp, name)) and not getattr(dummymp, name).__doc__]
    for cls in (dummymp.TaskQueue, dummymp.Task, dummymp.Preset, dummymp.Priority):
        methods = {key for key, value in vars(cls).items() if callable(value) or isinstance(value, property)}
        missing += [f"{cls.__name__}.{key}" for key in methods if key[0] != "_" and not getattr(cls, key).__doc__]
    assert missing == []


@pytest.mark.parametrize("name", MODULES)
def test_nothing_sleeps(name: str) -> None:
    """No time.sleep anywhere: who waits, waits for something."""
    for node in ast.walk(TREES[name]):
        assert not (isinstance(node, ast.Attribute) and node.attr == "sleep"), node.lineno
        assert not (isinstance(node, ast.ImportFrom) and "sleep" in [alias.name for alias in node.names]), node.lineno


@pytest.mark.parametrize("name", MODULES)
def test_no_locks_that_a_dead_worker_could_hold(name: str) -> None:
    """No lock, semaphore, queue or manager of multiprocessing anywhere."""
    shared = {
        "Lock",
        "RLock",
        "Semaphore",
        "BoundedSemaphore",
        "Queue",
        "SimpleQueue",
        "JoinableQueue",
        "Manager",
        "Value",
    }
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Attribute) and node.attr in shared:
            assert isinstance(node.value, ast.Name) and node.value.id in ("threading", "queue"), node.lineno


@pytest.mark.parametrize("name", MODULES)
def test_names_that_are_exported_exist(name: str) -> None:
    """What a module lists in `__all__` is in it."""
    module = __import__(f"dummymp.{name}" if name != "__init__" else "dummymp", fromlist=["*"])
    assert [entry for entry in getattr(module, "__all__", ()) if not hasattr(module, entry)] == []

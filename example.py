# SPDX-License-Identifier: MIT
"""Read the source of Python's own standard library, many modules at once, and tell what is in it.

    python example.py         all modules, about ten seconds
    python example.py 20      the twenty largest, about two seconds

A plain script from top to bottom: workers never run it, so it needs no `if __name__ == "__main__"`.
"""

from __future__ import annotations

import ast
import collections
import logging
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import dummymp

LIBRARY = Path(sysconfig.get_path("stdlib"))
# What others wrote, tests, and tables that a program wrote.
NOT_READ = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "__pycache__"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BRANCHES = (ast.If, ast.IfExp, ast.For, ast.While, ast.ExceptHandler, ast.BoolOp, ast.comprehension)
ON_A_TERMINAL = sys.stdout.isatty()
LINE = "\r" + " " * 72 + "\r"  # wipes the progress line before something else is printed

logger = logging.getLogger("study")


# ------ What a worker does with one module. An ordinary function: it takes, it returns, it logs.


def study(path: Path) -> dict[str, object]:
    """Parse one module and return what is worth knowing about it."""
    tree = ast.parse(path.read_bytes(), filename=str(path))
    functions = [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
    lengths = sorted([(count_lines(node), place(node, path)) for node in functions], reverse=True)
    tangles = sorted([(count_branches(node), place(node, path)) for node in functions], reverse=True)
    if lengths and lengths[0][0] > 240:
        logger.info("%s is %d lines long", lengths[0][1], lengths[0][0])
    return {
        "longest": lengths[:5],
        "tangled": tangles[:5],
        "imports": sorted(imported_modules(tree)),
        "functions": len(functions),
        "documented": sum(ast.get_docstring(node) is not None for node in functions),
    }


def place(node: ast.FunctionDef | ast.AsyncFunctionDef, path: Path) -> str:
    return f"{node.name}()  {path.relative_to(LIBRARY).as_posix()}:{node.lineno}"


def count_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return function.end_lineno - function.lineno + 1


def count_branches(function: ast.AST) -> int:
    """Count the places where a function can go one way or another."""
    return sum(isinstance(node, BRANCHES) for node in ast.walk(function))


def imported_modules(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


# ------ What the script itself does: find the input, show progress, sum up.


def how_many(arguments: list[str]) -> int | None:
    """Read what stands behind `python example.py`: nothing, for all modules, or a number."""
    if not arguments:
        return None
    if len(arguments) == 1 and arguments[0].isdecimal() and int(arguments[0]) > 0:
        return int(arguments[0])
    sys.exit(f"{' '.join(arguments)!r} is no number of modules. Write: python example.py, or: python example.py 20")


def find_modules(at_most: int | None) -> list[Path]:
    """List the modules of the standard library without its tests: all, or so many of the largest."""
    everything = sorted(LIBRARY.rglob("*.py"))
    found = [path for path in everything if NOT_READ.isdisjoint(path.relative_to(LIBRARY).parts)]
    if not found:
        sys.exit(f"This Python comes without the source of its library (looked in {LIBRARY}).")
    return found if at_most is None else sorted(sorted(found, key=lambda path: path.stat().st_size)[-at_most:])


def write_broken_module(folder: str) -> Path:
    """Write a module that nobody can parse: one task of this example fails on purpose, and the others do not care."""
    path = Path(folder, "broken.py")
    path.write_text("def forgot_something(:\n    pass\n", encoding="utf-8")
    return path


most_at_once = 0
held_back: collections.Counter[str] = collections.Counter()  # how many tasks started while others waited, and why those


def note_start(completed: int, running: int, total: int) -> None:
    global most_at_once
    most_at_once = max(most_at_once, running)
    reason = dummymp.get_stats()["waiting_for"]
    if reason and not reason.startswith("measuring"):  # that takes a moment only
        held_back[reason] += 1


def show_progress(completed: int, running: int, total: int) -> None:
    """Redraw one line on a terminal; print a few lines where the output goes to a file or a pipe."""
    if ON_A_TERMINAL:
        bar = "#" * (40 * completed // total)
        print(f"\r[{bar:.<40}] {completed} of {total} ", end="", flush=True)
    elif completed * 5 // total > (completed - 1) * 5 // total:
        print(f"{completed} of {total} modules done", flush=True)


def report(studies: list[dict[str, object]]) -> None:
    functions = sum(found["functions"] for found in studies)
    documented = sum(found["documented"] for found in studies)
    imports = collections.Counter(name for found in studies for name in found["imports"])
    print(f"\n{functions:,} functions, {documented:,} of them with a docstring.")
    for title, key in [("The longest functions, in lines", "longest"), ("The most branches", "tangled")]:
        print(f"\n{title}:")
        for number, where in sorted((row for found in studies for row in found[key]), reverse=True)[:8]:
            print(f"{number:7}  {where}")
    print("\nThe modules that the others import most:")
    for name, number in imports.most_common(8):
        print(f"{number:7}  {name:<12} {'=' * (40 * number // imports.most_common(1)[0][1])}")


def explain_speed(tasks: int) -> None:
    """Say what kept it from using all CPUs, if something did for a tenth of the time or more."""
    reason, count = max(held_back.items(), key=lambda item: item[1], default=("", 0))
    if dummymp.total_cpus() == 1:
        print("  (only one CPU is yours here, so there is nothing to be gained)")
    elif count * 10 >= tasks:
        print(f"  (for {100 * count // tasks} % of the modules it had to be content with fewer CPUs: {reason};")
        print("  to see by whom: python -m dummymp)")


# ------ From here on it runs.

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format=(LINE if ON_A_TERMINAL else "") + "%(message)s")
# dummymp shows the traceback of a task when it fails. Here one fails on purpose, and the report below names it.
logging.getLogger("dummymp").setLevel(logging.CRITICAL)
modules = find_modules(how_many(sys.argv[1:]))
lines = sum(path.read_bytes().count(b"\n") for path in modules)
print(f"{len(modules)} modules with {lines:,} lines, and one that is broken on purpose.")
print("A line with [PID 1234] is what a worker logs; the number is that of its process.", flush=True)

with tempfile.TemporaryDirectory() as folder:
    modules.insert(len(modules) // 2, write_broken_module(folder))

    # Use every CPU that others leave half free. On a server that you share, "generous" is the word.
    dummymp.configure(priority="aggressive", on_start=note_start, on_end=show_progress)

    began = time.perf_counter()
    for path in modules:
        dummymp.run(study, path)
    dummymp.process_until_done()
    together = time.perf_counter() - began

    studies = list(dummymp.get_returns().values())
    print(LINE if ON_A_TERMINAL else "", end="")
    report(studies)

    print("\nWhat could not be read, as expected:")
    for number, error in dummymp.get_errors().items():
        print(f"  {modules[number].name}: {type(error).__name__}: {error}")

    print("\nNow the same in a plain loop, to compare ...", flush=True)
    logging.disable()  # these lines were shown once already
    alone = []
    began = time.perf_counter()
    for path in modules:
        try:
            alone.append(study(path))
        except Exception:  # the broken one
            pass
    one_by_one = time.perf_counter() - began

print(f"  one after another  {one_by_one:6.2f} s")
print(f"  with dummymp       {together:6.2f} s, at most {most_at_once} at once")
print(f"  {one_by_one / together:.1f} times the speed")
explain_speed(len(modules))
print(f"  the same answers: {'yes' if alone == studies else 'NO'}")

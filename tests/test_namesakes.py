"""A file of the user that has the name of a module of Python's own: said in one line, with what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Script

from dummymp.namesakes import explained

RUN = """
import dummymp
def square(n):
    return n * n
dummymp.run(square, 3)
print(dummymp.results())
"""
MAP = """
import dummymp
def square(n):
    return n * n
print(list(dummymp.map(square, [3])))
"""


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.splitlines()[-1]


def said(file: Path) -> str:
    return (
        f"ImportError: dummymp cannot start because a file in your folder has the name of a Python module: {file}. "
        "Rename it"
    )


@pytest.mark.parametrize(
    ("name", "source"),
    [("threading.py", RUN), ("math.py", RUN), ("string.py", RUN), ("cloudpickle.py", RUN), ("copy.py", MAP)],
)
def test_a_script_named_like_a_module(script: Script, tmp_path: Path, name: str, source: str) -> None:
    """It was an AttributeError or ImportError of dummymp's, "most likely due to a circular import"."""
    done = script(source, name=name)
    if name.partition(".")[0] in sys.builtin_module_names:  # As math is in Debian's Python, which finds its own first.
        assert (done.stdout, done.stderr) == ("[9]\n", "")
        return
    assert done.returncode == 1
    assert last_line(done) == said(tmp_path / name)


@pytest.mark.parametrize("name", ["logging.py", os.path.join("string", "__init__.py")])
def test_a_file_beside_the_script(script: Script, tmp_path: Path, name: str) -> None:
    """A helper of the user's, next to a script with a good name, does the same harm."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("x = 1\n", encoding="utf-8")
    assert last_line(script(RUN)) == said(tmp_path / name)


def test_harmless_namesakes_work(script: Script, tmp_path: Path) -> None:
    """A name that nothing here needs is nobody's business."""
    (tmp_path / "turtle.py").write_text("x = 1\n", encoding="utf-8")
    done = script(RUN + "import turtle; print(turtle.x)", name="random.py")
    assert (done.stdout, done.stderr) == ("[9]\n1\n", "")


@pytest.mark.parametrize("error", [ImportError("no package of this name"), AttributeError("x"), OSError("disk full")])
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    """Only where a namesake was loaded is it to blame."""
    with pytest.raises(type(error)) as caught, explained:
        raise error
    assert caught.value is error


@pytest.mark.skipif(os.name == "nt", reason="Windows does not remove a folder that somebody is in")
def test_without_a_working_directory(script: Script, tmp_path: Path) -> None:
    """Looking for a namesake at a prompt needs the working directory; without one the error stays what it is."""
    done = script(
        """
        import os, sys
        from dummymp.namesakes import explained
        os.mkdir("gone"); os.chdir("gone"); os.rmdir("../gone")
        del sys.modules["__main__"].__file__
        with explained:
            import no_such_module
        """
    )
    assert last_line(done) == "ModuleNotFoundError: No module named 'no_such_module'"

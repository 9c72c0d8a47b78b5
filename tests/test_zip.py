"""Zip files: a package in one, this package in one, and programs that are one."""

from __future__ import annotations

import subprocess
import sys
import zipapp
import zipfile
from pathlib import Path

import pytest
from conftest import TIMEOUT, Script

import dummymp

SOURCE = """
import os, sys
sys.path[:0] = ["helpers.zip", *sys.argv[1:]]
import dummymp
from inside.module import Point, double
def work(n):
    from inside.late import half
    return half(double(n)), Point
point = dummymp.run(work, 4).result()
print(dummymp.__file__.partition(".zip")[1] or "a folder", dummymp.run(double, 2).result(), point == (4, Point))
"""


@pytest.fixture(autouse=True)
def _helpers(tmp_path: Path) -> None:
    """Put a package of the user's into a zip file beside the script."""
    with zipfile.ZipFile(tmp_path / "helpers.zip", "w") as archive:
        archive.writestr("inside/__init__.py", "")
        archive.writestr("inside/module.py", "class Point: pass\ndef double(n): return 2 * n\n")
        archive.writestr("inside/late.py", "def half(n): return n // 2\n")


def test_a_package_in_a_zip_file(script: Script, start_method: str) -> None:
    """Workers import from it as the script does."""
    done = script(SOURCE)
    assert (done.stdout, done.stderr) == ("a folder 4 True\n", "")


def test_this_package_in_a_zip_file(script: Script, tmp_path: Path, start_method: str) -> None:
    """Workers come up: it was NotADirectoryError, told as WorkersCannotStart."""
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        _add_package(archive)
    (tmp_path / "script.py").write_text(SOURCE)
    done = _run(tmp_path, "script.py", "all.zip")
    assert (done.stdout, done.stderr) == (".zip 4 True\n", "")


@pytest.mark.parametrize("alone", [True, False])
def test_a_program_that_is_a_zip_file(tmp_path: Path, alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python app.pyz` works with dummymp installed, and with dummymp in it."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__main__.py").write_text(SOURCE)
    zipapp.create_archive(tmp_path / "app", tmp_path / "app.pyz")
    if alone:
        with zipfile.ZipFile(tmp_path / "app.pyz", "a") as archive:
            _add_package(archive)
    else:
        monkeypatch.setenv("PYTHONPATH", str(Path(dummymp.__file__).parent.parent))
    done = _run(tmp_path, "app.pyz")
    assert (done.stdout, done.stderr) == ("a folder 4 True\n", "")


def _add_package(archive: zipfile.ZipFile) -> None:
    folder = Path(dummymp.__file__).parent
    for path in folder.glob("*.py"):
        archive.write(path, f"dummymp/{path.name}")


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )

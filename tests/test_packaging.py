# SPDX-License-Identifier: MIT
"""What is shipped is complete: an archive is built, a wheel from it, which is installed and used."""

from __future__ import annotations

import email.message
import email.parser
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import dummymp

TIMEOUT = 120  # seconds; reached only in a deadlock
ROOT = Path(__file__).parent.parent
SHIPPED = ["CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "example.py", "pyproject.toml", "setup.py"]
NOT_SHIPPED = shutil.ignore_patterns("__pycache__", ".*")


def run(*command: object, cwd: Path) -> str:
    """Run a command in a folder, away from this checkout, and return what it prints."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def build(what: str, source: Path, target: Path) -> Path:
    """Build an "sdist" or a "wheel" as pip does, but with the setuptools that is here, without network."""
    target.mkdir(exist_ok=True)
    command = f"from setuptools import build_meta; build_meta.build_{what}({str(target)!r})"
    run(sys.executable, "-c", command, cwd=source)
    (built,) = target.glob({"sdist": "*.tar.gz", "wheel": "*.whl"}[what])
    return built


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout: building leaves files behind, which must not end up in the next build."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in SHIPPED:
        shutil.copy(ROOT / name, copy)
    for name in ("dummymp", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=NOT_SHIPPED)
    return copy


@pytest.fixture(scope="module")
def unpacked(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, unpacked."""
    folder = tmp_path_factory.mktemp("archive")
    with tarfile.open(build("sdist", source, folder / "dist")) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(folder, filter="data")
        else:  # Python before the security releases of 2023
            archive.extractall(folder)
    return folder / f"dummymp-{dummymp.__version__}"


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the source archive."""
    return build("wheel", unpacked, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.parser.Parser().parsestr(archive.read(name).decode("utf-8"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment, in which nothing but the wheel is installed."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("needs pip")
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    interpreter = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    options = ["--no-deps", "--no-index", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "--python", interpreter, "install", *options, wheel, cwd=folder)
    return interpreter


def test_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    """All modules are in it, and py.typed; nothing else is."""
    expected = {f"dummymp/{path.name}" for path in (ROOT / "dummymp").glob("*.py")} | {"dummymp/py.typed"}
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == expected
        assert [name for name in archive.namelist() if name.endswith("LICENSE")]
    assert wheel.name == f"dummymp-{dummymp.__version__}-py3-none-any.whl"


def test_archive_has_what_the_two_commands_need(unpacked: Path) -> None:
    """Who unpacks the source archive can run the example and all tests."""
    expected = {*SHIPPED, *(f"tests/{path.name}" for path in (ROOT / "tests").glob("*.py"))}
    assert sorted(name for name in expected if not (unpacked / name).is_file()) == []


def test_metadata(metadata: email.message.Message) -> None:
    """Name, version, licence, Python and the description are told."""
    assert metadata["Name"] == "dummymp"
    assert metadata["Version"] == dummymp.__version__ == "1.0.0"
    assert metadata["Requires-Python"] == ">=3.9"
    assert "MIT" in (metadata["License"], metadata["License-Expression"])
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert str(metadata.get_payload()).strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()


def test_requirements(metadata: email.message.Message) -> None:
    """Two packages are needed; the rest is an extra, and there is no extra without a feature."""
    needed = [line for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line]
    assert sorted(line.split(">")[0].strip() for line in needed) == ["cloudpickle", "psutil"]
    assert sorted(metadata.get_all("Provides-Extra") or []) == ["arrays", "bench", "progress", "test"]


def test_version_is_read_without_importing(source: Path, tmp_path: Path) -> None:
    """setup.py works where the package cannot be imported, as before its requirements are there."""
    copy = tmp_path / "checkout"
    shutil.copytree(source, copy)
    with open(copy / "dummymp" / "__init__.py", "a", encoding="utf-8") as file:
        file.write("\nraise ImportError('not yet')\n")
    assert run(sys.executable, "setup.py", "--version", cwd=copy).split()[-1] == dummymp.__version__


def installed(python: Path, folder: Path) -> Path:
    return Path(run(python, "-c", "import dummymp; print(dummymp.__file__)", cwd=folder).strip())


def test_installed_wheel_imports_without_its_requirements(python: Path, tmp_path: Path) -> None:
    """`import dummymp` needs neither psutil nor cloudpickle, and finds the installed copy."""
    assert python.parent.parent in installed(python, tmp_path).parents


def test_installed_wheel_runs_tasks(python: Path, tmp_path: Path) -> None:
    """With psutil and cloudpickle beside it, the installed wheel does its work."""
    packages = installed(python, tmp_path).parent.parent
    for name in ("psutil", "cloudpickle"):
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        shutil.copytree(Path(spec.origin).parent, packages / name, ignore=NOT_SHIPPED)
    script = "import dummymp; [dummymp.run(lambda n: n * n, n) for n in range(3)]; print(dummymp.results())"
    assert run(python, "-c", script, cwd=tmp_path) == "[0, 1, 4]\n"

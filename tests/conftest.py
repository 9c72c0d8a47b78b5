"""What the tests share: scripts run as a user runs them, both start methods, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import hypothesis
import psutil
import pytest

import dummymp

# For all waits; reached only in a deadlock.
TIMEOUT = 60

# No stopwatch: on a busy machine an example may take its time.
hypothesis.settings.register_profile("dummymp", deadline=None, max_examples=60)
hypothesis.settings.load_profile("dummymp")

Script = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(params=["forkserver", "spawn"])
def start_method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run the test with each start method, in this process and in the scripts that it starts."""
    monkeypatch.setenv("DUMMYMP_START_METHOD", request.param)
    yield request.param


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Give a function that runs Python source as a user would: a file of its own, in a folder of its own."""

    def run(source: str, *args: str, name: str = "script.py", **options: Any) -> subprocess.CompletedProcess[str]:
        path = tmp_path / name
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        options.setdefault("stdin", subprocess.DEVNULL)
        # The very package that is tested, not another version that is installed, too.
        environ = dict(options.pop("env", None) or os.environ)
        folder = str(Path(dummymp.__file__).parent.parent)
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, environ.get("PYTHONPATH")]))
        options["env"] = environ
        return subprocess.run(
            [sys.executable, *args, str(path)],
            cwd=options.pop("cwd", tmp_path),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=TIMEOUT,
            **options,
        )

    return run


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Reset the hidden queue after each test, and see that its workers are gone and no descriptor was lost."""
    before = _descriptors()
    yield
    dummymp.reset()
    until = time.monotonic() + TIMEOUT
    while _workers() and time.monotonic() < until:
        psutil.wait_procs(_workers(), timeout=0.05)
    assert not _workers()
    # The first test that drives makes the manager, with a selector and a pipe.
    assert _descriptors() <= before + 3


def _workers() -> list[psutil.Process]:
    """Find the processes below the server: workers, and what tasks started."""
    found = []
    for child in psutil.Process().children():
        try:
            if "dummymp.forkserver" in " ".join(child.cmdline()):
                found += child.children(recursive=True)
        except psutil.Error:
            continue
    return found


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

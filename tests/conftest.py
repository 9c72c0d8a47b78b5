"""What the tests share: scripts run as a user runs them, both start methods, and nothing left behind."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

import dummymp
from dummymp import boot, launcher

# Workers import the test modules, and those import this one: what is not needed there is imported where it is used.

# For all waits; reached only in a deadlock.
TIMEOUT = 60

Script = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_configure() -> None:
    import hypothesis

    # No stopwatch: on a busy machine an example may take its time.
    hypothesis.settings.register_profile("dummymp", deadline=None, max_examples=60)
    hypothesis.settings.load_profile("dummymp")
    # Who runs the tests in the background (`&` in a script, nohup) has them ignored, and so would all scripts of ours.
    for name in ("SIGINT", "SIGHUP", "SIGQUIT"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)


START_METHODS = ["forkserver", "spawn"]
# "1/2" or "2/2": run that half of the tests alone.
HALF = os.environ.get("DUMMYMP_TEST_HALF", "")


def pytest_report_header() -> str:
    from importlib.metadata import PackageNotFoundError, version

    found = [f"Python {platform.python_version()}"]
    for name in ("cloudpickle", "psutil", "numpy", "tqdm", "hypothesis", "loguru", "pytest"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    how = f"start methods {' and '.join(START_METHODS)}" + (f"; half {HALF} of the tests" if HALF else "")
    return f"dummymp: {', '.join(found)}; {how}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if HALF:
        number, _, count = HALF.partition("/")
        others = [item for item in items if zlib.crc32(item.nodeid.encode()) % int(count) != int(number) - 1]
        config.hook.pytest_deselected(items=others)
        left = set(others)
        items[:] = [item for item in items if item not in left]


@pytest.fixture(params=START_METHODS)
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


# --- nothing left behind -----------------------------------------------------------------------------------------

# The tests of this process share one server, and each gets fresh workers from it. A server for each test, and workers
# that all import pytest, would take half of the suite's time. Scripts start servers of their own, as users do.

_command = boot.command
_close = launcher.Launcher.close


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Reset the hidden queue after each test, and see that its workers are gone and no descriptor was lost."""
    before = _descriptors()
    yield
    manager = sys.modules.get("dummymp.manager")
    if manager is not None and manager._manager is not None:
        manager._manager._pool.learn_pids()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launcher.Launcher, "close", _end_all_but_the_server)
        dummymp.reset()
    assert _descriptors() <= before


@pytest.fixture(autouse=True, scope="session")
def _one_server() -> Iterator[None]:
    """Let the server import pytest before it forks; and end it in the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boot, "command", _command_with_pytest)
        yield
    dummymp.reset()


def _command_with_pytest(module: str, arguments: str, path: str, flags: list[str]) -> list[str]:
    *front, code, path = _command(module, arguments, path, flags)
    if module == "forkserver":
        code = code.replace("; main(", "; import pytest; main(")
    return [*front, code, path]


def _end_all_but_the_server(self: launcher.Launcher) -> None:
    """Wait until the workers, which were told to end, have; if something does not, end the server with all of it."""
    import psutil

    if self.notices() is None:
        return
    workers = psutil.Process(self._pid).children(recursive=True)
    _, left = psutil.wait_procs(workers, timeout=2 * launcher.QUIT_GRACE)
    if left:
        _close(self)
    assert not [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def _descriptors() -> int:
    """Count the open descriptors, without those that stay: a selector, a pipe, and two that lead to the server."""
    if not os.path.isdir("/proc/self/fd"):
        return 0
    manager = sys.modules.get("dummymp.manager")
    if manager is None or manager._manager is None:
        lasting = 0
    else:
        lasting = 5 if manager._manager._pool._launcher.pids else 3
    # The lock of tqdm's bars is one of multiprocessing, which watches over it from Python 3.14 on.
    tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    lasting += getattr(tracker, "_fd", None) is not None
    return sum(map(_is_of_somebody, os.listdir("/proc/self/fd"))) - lasting


def _is_of_somebody(fd: str) -> bool:
    """Tell whether a descriptor is open, and not kept by a C library: libffi (3.5), behind ctypes, holds itself."""
    try:
        return ".so" not in os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
    except FileNotFoundError:
        return False  # That of the listing.

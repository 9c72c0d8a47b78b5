"""The same script under flags, profilers, debuggers and test runners; and what others on the machine can see of it."""

from __future__ import annotations

import importlib.util
import json
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Callable

import psutil
import pytest

import dummymp

Script = Callable[..., "subprocess.CompletedProcess[str]"]
TIMEOUT = 60  # seconds; reached only in a deadlock

# A bit of everything. The clock is set back by a day at each look: all waits go by another one.
EVERYTHING = """
import itertools, json, logging, os, sys, time
time.time = itertools.count(1e9, -86400).__next__
import dummymp
dummymp.configure(priority="NUCLEAR", max_processes=2)

class Own(Exception):
    pass

def work(n):
    print("task", n)
    logging.getLogger("own").info("not shown")
    if n == 3:
        raise Own(n)
    if n == 4:
        os._exit(4)
    if n == 5:
        time.sleep(600)
    return n * n

logging.disable(logging.CRITICAL)
for n in range(8):
    with dummymp.configure(timeout=0.3 if n == 5 else None):
        dummymp.run(work, n)
done = dummymp.process_until_done()
errors = {n: type(error).__name__ for n, error in dummymp.get_errors().items()}
print(json.dumps([done, dummymp.get_returns(), errors]), flush=True)
"""
EXPECTED = [
    True,
    {"0": 0, "1": 1, "2": 4, "6": 36, "7": 49},
    {"3": "Own", "4": "WorkerDied", "5": "TaskTimeout"},
]


def needs(module: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"needs {module}")


COVERAGE = "[run]\nbranch = True\nparallel = True\nconcurrency = multiprocessing,thread\n"


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(["-O", "-bb", "-W", "error", "-X", "dev"], id="flags"),
        pytest.param(["-OO", "-u", "-B", "-s"], id="more-flags"),
        pytest.param(["-m", "cProfile", "-o", "profile"], id="cProfile"),
        pytest.param(["-m", "trace", "--count", "--coverdir", "counts"], id="trace"),
        pytest.param(["-m", "pdb", "-c", "continue"], id="pdb"),
        pytest.param(["-m", "coverage", "run", "--branch"], id="coverage", marks=needs("coverage")),
        pytest.param(["-m", "coverage", "run", "--rcfile=rc"], id="coverage-of-processes", marks=needs("coverage")),
    ],
)
def test_the_same_everywhere(script: Script, tmp_path: Path, how: list[str]) -> None:
    """Flags of Python, profilers, debuggers and coverage change neither results nor errors, and nothing is said."""
    (tmp_path / "rc").write_text(COVERAGE)
    environ = dict(os.environ)
    if "-m" not in how:  # Modules that run a script put its folder in the place of the one that is left out then.
        environ["PYTHONSAFEPATH"] = "1"
    done = script(EVERYTHING, *how, env=environ, input="quit\n" if "pdb" in how else "", stdin=None)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert json.loads(next(line for line in lines if line.startswith("[true"))) == EXPECTED
    assert sorted(line for line in lines if line.startswith("task ")) == [f"task {n}" for n in range(8)]
    assert done.stderr == ""


def test_isolated(tmp_path: Path) -> None:
    """With -I no variable of the environment is asked; workers find dummymp where the script found it."""
    folder = str(Path(dummymp.__file__).parent.parent)
    source = f"import sys; sys.path.insert(0, {folder!r})\n{EVERYTHING}"
    done = subprocess.run(
        [sys.executable, "-I", "-c", source], cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout.splitlines()[-1]) == EXPECTED


@needs("xdist")
def test_under_xdist(script: Script, tmp_path: Path) -> None:
    """Where pytest itself runs in several processes, each has its own queue, and prints reach each test."""
    (tmp_path / "test_many.py").write_text(
        textwrap.dedent(
            """
            import os, dummymp, pytest
            @pytest.mark.parametrize("number", range(4))
            def test_one(number, capsys):
                dummymp.reset()
                dummymp.configure(priority="NUCLEAR", max_processes=2)
                dummymp.run(print, "hello from", number)
                dummymp.run(os._exit, 3)
                dummymp.run(divmod, number, 2)
                assert dummymp.process_until_done()
                assert dummymp.get_returns() == {0: None, 2: divmod(number, 2)}
                assert f"hello from {number}" in capsys.readouterr().out
            """
        )
    )
    done = script("import pytest, sys; sys.exit(pytest.main(['-n', '2', '-q', '-p', 'no:cacheprovider']))")
    assert "4 passed" in done.stdout, done.stdout + done.stderr


# --- security ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_nothing_that_another_user_could_reach(
    tmp_path: Path, start_method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing listens, no socket has a name or address, and no file is open or left in a shared folder."""
    monkeypatch.chdir(tmp_path)
    dummymp.configure(priority="NUCLEAR", max_processes=2)
    for _ in range(2):
        dummymp.run(Path.exists, Path("never"))
        dummymp.run(wait_for, "go")
    while not (tmp_path / "up").exists():
        dummymp.step(0.01)
    below = psutil.Process().children(recursive=True)
    # From Python 3.14 on, the lock of tqdm's bars, which other tests show, has a process of its own.
    below = [process for process in below if "resource_tracker" not in "".join(process.cmdline())]
    assert len(below) >= 2  # The server, and a worker.
    for process in below:
        ask = getattr(process, "net_connections", None) or process.connections
        for connection in ask("all"):
            assert connection.status != psutil.CONN_LISTEN
            assert not connection.laddr, connection
        for fd in os.listdir(f"/proc/{process.pid}/fd"):
            try:
                path = os.readlink(f"/proc/{process.pid}/fd/{fd}")
            except FileNotFoundError:
                continue
            # Sockets and pipes without a name, memory files that are deleted, and /dev/null. And what the linker reads
            # while a worker starts.
            if path in (os.devnull, "/etc/ld.so.cache"):
                continue
            if not path.startswith(("socket:", "pipe:", "anon_inode:", "/memfd:dummymp")):
                # A worker that starts reads the modules of Python, and libffi (3.5), behind ctypes, holds itself.
                assert path.endswith((".py", ".pyc", ".so")) or ".so." in path, path
                assert not os.stat(path).st_mode & stat.S_IWOTH, path
    shared = [name for folder in ("/tmp", "/dev/shm") if os.path.isdir(folder) for name in os.listdir(folder)]
    assert not any(name.startswith("dummymp") for name in shared)
    (tmp_path / "go").touch()
    assert dummymp.process_until_done()


def wait_for(name: str) -> None:
    """Say that we are up, and wait for a file."""
    import time

    Path("up").touch()
    while not Path(name).exists():
        time.sleep(0.005)

"""Libraries start no more threads in a task than `threads_per_task`, however and whenever they are loaded."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Callable

import pytest
from conftest import Script

import dummymp

# It stands for all libraries: it looks once, when it is loaded.
LIBRARY = "import os\nlimit = os.environ.get('MKL_NUM_THREADS')\n"
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems start threads of their own")
posix = pytest.mark.skipif(os.name == "nt", reason="multiprocessing starts the workers there")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Put the library where every Python of the test finds it; give an environment without limits."""
    (tmp_path / "mkl.py").write_text(LIBRARY, encoding="utf-8")
    unset = {name: value for name, value in os.environ.items() if "_THREADS" not in name}
    return {**unset, "PYTHONPATH": str(tmp_path)}


@posix
@pytest.mark.parametrize("own", [None, "7"])
def test_loaded_before_our_code(
    script: Script, tmp_path: Path, environ: dict[str, str], start_method: str, own: str | None
) -> None:
    """What a sitecustomize loads in the server and in workers has the limits of the task, or those of the user."""
    (tmp_path / "sitecustomize.py").write_text("import mkl\n", encoding="utf-8")
    done = script(
        """
        import dummymp
        dummymp.configure(max_processes=1, priority="nuclear")
        def look():
            import mkl
            return mkl.limit
        for threads in (1, 3, None):
            dummymp.configure(threads_per_task=threads)
            dummymp.run(look)
        print(dummymp.results())
        """,
        env={**environ, **({"MKL_NUM_THREADS": own} if own else {})},
    )
    assert (done.stdout, done.stderr) == (f"{[own or '1', own or '3', own]}\n", "")


def test_loaded_by_a_task_with_other_limits(script: Script, environ: dict[str, str], start_method: str) -> None:
    """Each call has the limits of the moment of its `run`: a worker whose libraries go by others does not run it."""
    done = script(
        """
        import os, dummymp
        dummymp.configure(max_processes=1, priority="nuclear")
        def look(number):
            import mkl
            return mkl.limit
        def several():
            for number in range(20):
                dummymp.run(look, number)
        several()
        dummymp.configure(threads_per_task=3)
        several()
        os.environ["MKL_NUM_THREADS"] = "2"
        several()
        del os.environ["MKL_NUM_THREADS"]
        dummymp.configure(threads_per_task=None)
        several()
        print(dummymp.results() == ["1"] * 20 + ["3"] * 20 + ["2"] * 20 + [None] * 20)
        print(list(dummymp.map(look, range(2))))
        """,
        env=environ,
    )
    assert (done.stdout, done.stderr) == ("True\n[None, None]\n", "")


# --- real libraries: how many threads compute in a task ---


def threads_for(work: Callable[[], object]) -> int:
    """Count the main thread, and those that some work has added."""
    import psutil

    before = psutil.Process().num_threads()
    work()
    return int(1 + psutil.Process().num_threads() - before)


def numpy() -> int:
    def work() -> None:
        import numpy

        square = numpy.ones((600, 600))
        numpy.linalg.svd(square @ square)

    return threads_for(work)


def scipy() -> int:
    def work() -> None:
        import numpy
        import scipy.linalg

        scipy.linalg.svd(numpy.ones((600, 600)))

    return threads_for(work)


def numexpr() -> int:
    def work() -> None:
        import numexpr
        import numpy

        numexpr.evaluate("sin(many)", {"many": numpy.ones(1_000_000)})

    return threads_for(work)


def numba() -> int:
    def work() -> None:
        import numba

        assert numba.get_num_threads() == 1  # It starts them now.

    return threads_for(work)


def torch() -> int:
    def work() -> None:
        import torch

        square = torch.ones((600, 600), requires_grad=True)
        (square @ square).sin().sum().backward()

    return threads_for(work)


def polars() -> int:
    import polars

    return int(polars.thread_pool_size())  # Others of its threads clean up and wait.


def pyarrow() -> int:
    import pyarrow

    return int(pyarrow.cpu_count())


@linux
@pytest.mark.parametrize(
    "count", [numpy, scipy, numexpr, numba, torch, polars, pyarrow], ids=lambda count: count.__name__
)
def test_real_libraries(count: Callable[[], int], start_method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each computes in one thread in a task, unless the user has said otherwise."""
    if importlib.util.find_spec(count.__name__) is None:
        pytest.skip(f"needs {count.__name__}")
    for name in [name for name in os.environ if "_THREADS" in name]:
        monkeypatch.delenv(name)
    assert dummymp.run(count).result() == 1

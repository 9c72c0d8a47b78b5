"""What the script has set holds in tasks, and nothing is loaded or made in a worker for it that no task needs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import Script


def library(tmp_path: Path, source: str, name: str = "lab") -> None:
    """Put a module of that name beside the script."""
    (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")


def test_a_filter_waits_for_its_library(script: Script, tmp_path: Path, start_method: str) -> None:
    """A warnings filter for a category of a library loads it in no worker; where a task loads it, the filter holds."""
    library(tmp_path, "import warnings\nclass Odd(UserWarning): pass\ndef warn(): warnings.warn('odd', Odd)\n")
    done = script("""
    import sys, warnings, dummymp, lab
    warnings.simplefilter("error", lab.Odd)
    dummymp.configure(max_processes=1, priority="nuclear")
    def loaded(): return "lab" in sys.modules
    def warn():
        import lab
        try:
            lab.warn()
        except lab.Odd:
            return "raised"
    print([dummymp.run(each).result() for each in (loaded, warn, warn)])
    """)
    assert (done.stdout, done.stderr) == ("[False, 'raised', 'raised']\n", "")


def test_thread_limits_come_before_libraries(script: Script, tmp_path: Path, start_method: str) -> None:
    """A library that looks at its environment when it is loaded finds the limits for its threads."""
    library(tmp_path, "import os\nlimit = os.environ.get('OPENBLAS_NUM_THREADS')\nclass Odd(UserWarning): pass\n")
    done = script("""
    import os, warnings
    os.environ.pop("OPENBLAS_NUM_THREADS", None)
    import dummymp, lab
    warnings.simplefilter("ignore", lab.Odd)
    print(lab.limit, dummymp.run(lambda: lab.limit).result())
    """)
    assert (done.stdout, done.stderr) == ("None 1\n", "")


def test_a_level_waits_for_its_logger(script: Script, tmp_path: Path, start_method: str) -> None:
    """The level of a library's logger holds in tasks, and the library makes it itself, of a class of its own."""
    library(
        tmp_path,
        "import logging\n"
        "class Own(logging.Logger): pass\n"
        "before = logging.getLoggerClass()\n"
        "logging.setLoggerClass(Own)\n"
        "log = logging.getLogger('lab.inner')\n"
        "logging.setLoggerClass(before)\n",
    )
    done = script("""
    import logging, dummymp, lab
    logging.basicConfig(format="%(name)s %(message)s")
    logging.getLogger("lab").setLevel("DEBUG")
    logging.getLogger("lab.inner").disabled = True
    logging.getLogger("other").setLevel("INFO")
    def task():
        import lab
        logging.getLogger("lab.new").debug("shown")
        lab.log.error("not shown")
        logging.getLogger("other").info("shown, too")
        return type(lab.log).__name__
    dummymp.configure(log_prefix="")
    print(dummymp.run(task).result())
    """)
    assert (done.stdout, done.stderr) == ("Own\n", "lab.new shown\nother shown, too\n")


def test_managers(script: Script, start_method: str) -> None:
    """Proxies of a `multiprocessing.Manager()` are arguments, as for a Pool."""
    done = script("""
    import dummymp, multiprocessing
    def task(known, many, lock, queue, n):
        with lock:
            known[n] = n * n
        many.append(n)
        queue.put(n)
    if __name__ == "__main__":
        with multiprocessing.Manager() as manager:
            known, many, lock, queue = manager.dict(), manager.list(), manager.Lock(), manager.Queue()
            for n in range(4):
                dummymp.run(task, known, many, lock, queue, n)
            dummymp.process_until_done()
            print(dict(sorted(known.items())), sorted(many), sorted(queue.get() for _ in range(4)))
    """)
    assert (done.stdout, done.stderr) == ("{0: 0, 1: 1, 2: 4, 3: 9} [0, 1, 2, 3] [0, 1, 2, 3]\n", "")


@pytest.mark.skipif(not sys.platform.startswith("linux") or sys.version_info < (3, 12), reason="needs -X perf")
@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_the_map_for_perf_goes_where_it_belongs(script: Script, start_method: str) -> None:
    """With `-X perf` Python keeps a file open, and what it writes there does not come to stand in arrays."""
    source = """
    import dummymp, sys
    if not sys.is_stack_trampoline_active():
        print("not here")
        sys.exit()
    def task(data, n):
        exec("\\n".join(f"def f{i}(): pass\\nf{i}()" for i in range(200)), {})
        return bytes([n]) * 3_000_000
    tasks = [dummymp.run(task, bytes([n]) * 3_000_000, n) for n in range(12)]
    for n, each in enumerate(tasks):
        assert each.result() == bytes([n]) * 3_000_000, n
    print("good")
    """
    done = script(source, "-X", "perf")
    assert done.stdout in ("good\n", "not here\n"), done.stderr


LIBRARY = """
class Config:
    jax_enable_x64 = False
    def update(self, name, value): setattr(self, name, value)
config = Config()
def dot(a): return a
"""
USES = """
import dummymp, jax
from jax import dot
jax.config.update("jax_enable_x64", {wide})
def work(n): return dot(n)
def other(n): return n
dummymp.configure(initializer={initializer})
dummymp.run(other, 1); dummymp.run({func}, 1); dummymp.run({func}, 2); print(list(dummymp.map({func}, [1])))
print(dummymp.results())
"""


@pytest.mark.parametrize(
    ("wide", "initializer", "func", "told"),
    [
        (True, None, "work", True),
        (True, None, "other", False),
        (True, "print", "work", False),
        (False, None, "work", False),
    ],
)
def test_settings_of_libraries_that_stay_behind(
    script: Script, tmp_path: Path, wide: bool, initializer: str | None, func: str, told: bool
) -> None:
    """The precision of torch, jax, mpmath: told once, if the function uses the library, and nothing sets it there."""
    (tmp_path / "jax.py").write_text(LIBRARY)
    done = script(USES.format(wide=wide, initializer=initializer, func=func))
    assert done.stdout.endswith("[1]\n[1, 1, 2]\n")
    said = (
        "note: work() uses jax, where the script has set jax.config.update('jax_enable_x64', True). That does not hold "
        "in tasks. Set it in a function, and have that called in each worker: "
        "dummymp.configure(initializer=function)\n"
    )
    assert done.stderr == (said if told else "")

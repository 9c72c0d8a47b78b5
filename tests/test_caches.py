# SPDX-License-Identifier: MIT
"""Functions of the script with @functools.cache: loaded once in each worker, as long as they are what they were."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Script

SETUP = """
import dummymp, functools, os
dummymp.configure(priority="nuclear", max_processes=1, engine={engine!r})
def loads():
    print("load")
    return {{n: n * n for n in range(10)}}
"""


@pytest.mark.parametrize("engine", ["processes", "inline"])
@pytest.mark.parametrize("decorator", ["functools.lru_cache", "functools.lru_cache(maxsize=None)"])
def test_what_is_cached_is_loaded_once(script: Script, engine: str, decorator: str) -> None:
    """By all tasks of a worker, and all functions that use it."""
    done = script(
        SETUP.format(engine=engine)
        + f"""
@{decorator}
def model(): return loads()
def work(n): return model()[n]
def other(n): return -model()[n]
for n in range(4): dummymp.run(work, n); dummymp.run(other, n)
dummymp.run(model)
print(dummymp.results()[:8])
print(list(dummymp.map(work, range(4))))
"""
    )
    assert (done.stdout, done.stderr) == ("load\n[0, 0, 1, -1, 4, -4, 9, -9]\n[0, 1, 4, 9]\n", "")


def test_what_it_captures_counts(script: Script, start_method: str) -> None:
    """A list that has changed, and a function that was defined anew, make it another one; going on, it caches."""
    done = script(
        SETUP.format(engine="processes")
        + """
factors = [2]
@functools.lru_cache(None)
def model(): return loads() and factors[0]
def work(n): return model() * n
for n in range(3): dummymp.run(work, n)
factors[0] = 3
for n in range(3): dummymp.run(work, n)
@functools.lru_cache(None)
def model(): return loads() and -1
for n in range(3): dummymp.run(work, n)
print(dummymp.results())
"""
    )
    assert (done.stdout, done.stderr) == ("load\nload\nload\n[0, 2, 4, 0, 3, 6, 0, -1, -2]\n", "")


def test_functions_with_caches_that_call_each_other(script: Script) -> None:
    done = script(
        SETUP.format(engine="processes")
        + """
@functools.lru_cache(None)
def even(n): return n == 0 or odd(n - 1)
@functools.lru_cache(None)
def odd(n): return n > 0 and even(n - 1)
class Shop:
    @functools.lru_cache(None)
    def price(self, n): return loads()[n]
    @staticmethod
    @functools.lru_cache(None)
    def tax(n): return loads()[n] * 2
def work(n): return even(n), odd(n), Shop.tax(n)
for n in range(3): dummymp.run(work, n)
for n in range(2): dummymp.run(Shop().price, 3)
print(dummymp.results())
"""
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "[(True, False, 0), (False, True, 2), (True, False, 8), 9, 9]"


def test_the_cache_of_a_module_is_the_modules(script: Script, tmp_path: Path) -> None:
    cached = "import functools\n@functools.lru_cache(None)\ndef model(): print('load'); return 1\n"
    (tmp_path / "helpers.py").write_text(cached)
    done = script(
        """
        import dummymp
        from helpers import model
        dummymp.configure(priority="nuclear", max_processes=1)
        def work(n): return model() + n
        for n in range(4): dummymp.run(work, n)
        print(dummymp.results())
        """
    )
    assert (done.stdout, done.stderr) == ("load\n[1, 2, 3, 4]\n", "")

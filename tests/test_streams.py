"""Random generators of the script that tasks draw from: no two calls draw the same."""

from __future__ import annotations

import os

import pytest
from conftest import Script

SOURCES = {
    "Generator": "import numpy\nrng = numpy.random.default_rng(42)\ndef draw(rng): return float(rng.normal())\n",
    "PCG64DXSM": (
        "import numpy\nrng = numpy.random.Generator(numpy.random.PCG64DXSM(42))\n"
        "def draw(rng): return float(rng.normal())\n"
    ),
    "RandomState": "import numpy\nrng = numpy.random.RandomState(42)\ndef draw(rng): return float(rng.normal())\n",
    "Random": "import random\nrng = random.Random(42)\ndef draw(rng): return rng.random()\n",
}
SCRIPT = """
import copy, dummymp, os
first = draw(copy.deepcopy(rng))
dummymp.configure(engine=os.environ["ENGINE"], max_processes=int(os.environ["WORKERS"]), priority="nuclear")
def of_global(): return draw(rng)
calls = [dummymp.run(of_global) for _ in range(20)] + [dummymp.run(draw, rng) for _ in range(20)]
calls += [dummymp.run(rng.random) for _ in range(20)]
found = [call.result() for call in calls]
assert len({first, *found}) == 61, found
items = list(dummymp.map(lambda _: draw(rng), range(50)))
assert len(set(items)) == 50, items
print(found, items)
"""


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_each_call_has_its_own_stream(script: Script, source: str) -> None:
    """As a global variable, an argument, and a method; the same for any number of workers, and inline; said once."""
    if "numpy" in source:
        pytest.importorskip("numpy")
    found = set()
    for engine, workers in (("processes", "1"), ("processes", "2"), ("inline", "1")):
        done = script(source + SCRIPT, env={**os.environ, "ENGINE": engine, "WORKERS": workers})
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("a random generator of the script goes to several calls") == 1
        found.add(done.stdout)
    assert len(found) == 1


def test_generators_of_single_calls_are_what_they_are(script: Script) -> None:
    """A generator for each call draws what it would draw in a plain loop; and so does one that comes back."""
    done = script("""
    import random, dummymp
    own = [random.Random(seed) for seed in range(5)]
    expected = [random.Random(seed).random() for seed in range(5)]
    assert [dummymp.run(random.Random.random, each).result() for each in own] == expected
    back = dummymp.run(lambda: random.Random(7)).result()
    assert back.random() == random.Random(7).random()
    """)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("engine", ["processes", "inline"])
def test_streams_do_not_overlap_where_the_script_draws_too(script: Script, engine: str) -> None:
    """Between the calls, and for a second map: neither gives any call what another one, or the script, draws."""
    done = script(f"""
    import random, dummymp
    dummymp.configure(engine={engine!r}, priority="nuclear")
    rng = random.Random(5)
    def draw(n): return [rng.random() for _ in range(4)]
    calls, own = [], []
    for n in range(10):
        calls.append(dummymp.run(draw, n))
        own.append(rng.random())
    found = [number for call in calls for number in call.result()] + own
    for _ in range(2):
        found += [number for numbers in dummymp.map(draw, range(10)) for number in numbers]
    print(len(found), len(set(found)))
    """)
    assert done.stdout == "130 130\n", done.stderr

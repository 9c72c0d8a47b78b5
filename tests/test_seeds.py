"""Randomness: with a seed, what a task draws depends on the seed and its call number alone."""

from __future__ import annotations

import importlib
import importlib.util
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import TIMEOUT
from hypothesis import given
from hypothesis import strategies as st

import dummymp
from dummymp.seeds import derive, generator, reseed


@pytest.fixture(autouse=True)
def _randomness_stays() -> Iterator[None]:
    """Put this process's generators and its import system back as they were."""
    numpy = pytest.importorskip("numpy")
    states, finders = (random.getstate(), numpy.random.get_state()), list(sys.meta_path)
    yield
    reseed(None, 0, loaded=False)
    sys.meta_path[:] = finders
    random.setstate(states[0])
    numpy.random.set_state(states[1])


def draw(seed: int | None, task: int) -> tuple[float, ...]:
    reseed(seed, task)
    return random.random(), random.random()


def draw_from_numpy(seed: int | None, task: int) -> tuple[float, ...]:
    import numpy

    reseed(seed, task)
    return tuple(numpy.random.random(2))


@pytest.mark.parametrize("draw", [draw, draw_from_numpy])
def test_same_sequence_in_any_order(draw: Any) -> None:
    """Whatever ran before in the same worker, a task draws the same numbers."""
    forwards = {task: draw(42, task) for task in range(20)}
    backwards = {task: draw(42, task) for task in reversed(range(20))}
    assert forwards == backwards


@pytest.mark.parametrize("draw", [draw, draw_from_numpy])
def test_tasks_never_share_a_sequence(draw: Any) -> None:
    """Different tasks, and different seeds, draw different numbers."""
    drawn = {draw(seed, task) for seed in (0, 1, 42) for task in range(50)}
    assert len(drawn) == 150


@pytest.mark.parametrize("draw", [draw, draw_from_numpy])
def test_without_a_seed(draw: Any) -> None:
    """Without a seed, nothing repeats: not from run to run, and not because a worker was forked from another."""
    draw(42, 0)
    assert len({draw(None, 0) for _ in range(10)}) == 10


def test_random_and_numpy_draw_different_numbers() -> None:
    """Both have the same kind of generator (MT19937), so that the same seed would make them draw the same."""
    for task in range(20):
        reseed(42, task)
        first = random.random()
        assert first != draw_from_numpy(42, task)[0]


def test_another_process_draws_the_same() -> None:
    """Another interpreter, with another hash seed, draws the same numbers: nothing depends on the process."""
    code = "from dummymp.seeds import reseed; import random; reseed(42, 7); print(random.random())"
    command = [sys.executable, "-R", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    assert float(done.stdout) == draw(42, 7)[0]


def test_sequence_stays_from_release_to_release() -> None:
    """The numbers of a seed are part of what users publish: they must never change."""
    assert derive(42, 0) == int.from_bytes(bytes.fromhex(DIGEST_OF_42_0), "little")


# sha256(b"42/0")
DIGEST_OF_42_0 = "e86c2dbb236c32d0cc456189acadee15f5b88f0f261872a3b14278c5cc274d66"


@given(seed=st.integers(), task=st.integers(0, 1 << 40), other=st.integers(0, 1 << 40))
def test_derive(seed: int, task: int, other: int) -> None:
    """Any seed, negative or huge, gives each task a 256-bit number of its own."""
    assert 0 <= derive(seed, task) < 1 << 256
    assert (derive(seed, task) == derive(seed, other)) == (task == other)


def test_derive_does_not_mix_up_seed_and_task() -> None:
    """Seed 1 with task 23 is not seed 12 with task 3."""
    assert derive(1, 23) != derive(12, 3)


def test_random_imported_by_the_task_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is the first to import `random` draws the same numbers as one that finds it loaded."""
    expected = draw(42, 5)
    monkeypatch.delitem(sys.modules, "random")
    reseed(42, 5)
    fresh = importlib.import_module("random")
    assert fresh is not random
    assert (fresh.random(), fresh.random()) == expected


def test_numpy_imported_by_the_task_itself() -> None:
    """The same for numpy, in a process that has not loaded it yet."""
    code = (
        "from dummymp.seeds import reseed; import sys; assert 'numpy' not in sys.modules; reseed(42, 5); "
        "import numpy; print(numpy.random.random(), numpy.random.__spec__.loader.get_filename('numpy.random'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT, check=True)
    number, file = done.stdout.split(maxsplit=1)
    assert float(number) == draw_from_numpy(42, 5)[0]
    assert "numpy" in file


def test_import_after_a_task_with_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later task without a seed that imports `random` first is not seeded by the earlier one."""
    reseed(42, 5)
    seeded = random.random()
    monkeypatch.delitem(sys.modules, "random")
    reseed(None, 6)
    assert importlib.import_module("random").random() != seeded


def test_other_imports_are_left_alone() -> None:
    """While a seed is set, other modules are imported as ever, and one that does not exist is still missing."""
    reseed(42, 5)
    assert importlib.util.find_spec("json") is not None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("no_such_module_at_all")


def test_finder_is_there_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand tasks do not make a thousand import hooks."""
    monkeypatch.delitem(sys.modules, "random")
    before = len(sys.meta_path)
    for task in range(3):
        reseed(42, task)
    assert len(sys.meta_path) == before + 1


def test_loaded_modules_can_be_left_alone() -> None:
    """With loaded=False, the generators of this process go on as they were."""
    random.seed(1)
    expected = random.random()
    random.seed(1)
    reseed(42, 5, loaded=False)
    assert random.random() == expected


# --- rng(): a generator of the task's own ------------------------------------------------------------------------


def draw_as_task(seed: int, task: int) -> tuple[float, ...]:
    reseed(seed, task)
    return (generator().random(), *generator().random(2))


def draw_own(_: int = 0) -> tuple[float, ...]:
    first = dummymp.rng().random()
    return (first, *dummymp.rng().random(2))


@pytest.mark.parametrize("workers", [1, 3])
def test_rng_is_the_tasks_own(workers: int) -> None:
    """With a seed, the same in every run and for any number of workers; within a task, one stream."""
    dummymp.configure(seed=42, priority="NUCLEAR", max_processes=workers)
    for _ in range(6):
        dummymp.run(draw_own)
    drawn = dummymp.results()
    assert drawn[5] == draw_as_task(42, 5)
    assert len({number for numbers in drawn for number in numbers}) == 18
    assert list(dummymp.map(draw_own, range(3))) == drawn[:3]
    with dummymp.configure(seed=None):
        others = [dummymp.run(draw_own) for _ in range(3)]
    assert not {number for task in others for number in task.result()} & set(drawn[0])


def test_rng_inline_and_outside_of_tasks() -> None:
    with dummymp.configure(seed=42):
        outside = dummymp.rng()
        assert outside is dummymp.rng() and outside.random() not in draw(42, 0)
    assert dummymp.rng() is not outside
    queue = dummymp.TaskQueue(seed=42, engine="inline")
    queue.run(draw_own)
    assert queue.results() == [draw_as_task(42, 0)]


def test_rng_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    reseed(1, 1, loaded=False)
    with pytest.raises(dummymp.MissingExtra, match=r"pip install 'dummymp\[arrays\]'"):
        generator()

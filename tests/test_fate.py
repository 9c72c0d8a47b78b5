"""What is said of a worker that died: by whom, how, and what may have been the cause; readings are planted."""

from __future__ import annotations

import signal
import types
from pathlib import Path
from typing import Any

import pytest

import dummymp
from dummymp import fate
from dummymp.memory import Memory
from dummymp.oom import oom_kills

GROUP = {
    "proc/self/cgroup": "0::/a/b\n",
    "proc/self/mountinfo": "30 23 0:25 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n",
}
GROUP_V1 = {
    "proc/self/cgroup": "4:memory:/a/b\n",
    "proc/self/mountinfo": "35 31 0:32 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n",
}


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, None),
        ({"proc/vmstat": "pgpgin 5\noom_kill 3\n"}, 3),
        ({"proc/vmstat": "pgpgin 5\n"}, None),
        ({**GROUP, "proc/vmstat": "oom_kill 3\n"}, 3),
        ({**GROUP, "proc/vmstat": "oom_kill 3\n", "sys/fs/cgroup/a/b/memory.events": "oom 9\noom_kill 2\n"}, 2),
        ({**GROUP, "sys/fs/cgroup/a/memory.events": "oom_kill 8\n"}, 8),
        ({**GROUP, **{f"sys/fs/cgroup/{path}/memory.events": f"oom_kill {len(path)}\n" for path in ("a", "a/b")}}, 3),
        ({**GROUP_V1, "sys/fs/cgroup/memory/a/b/memory.oom_control": "under_oom 0\noom_kill 4\n"}, 4),
        ({"proc/vmstat": "oom_kill many\n"}, None),
    ],
)  # fmt: skip
def test_counting_kills_for_lack_of_memory(tmp_path: Path, files: dict[str, str], count: int | None) -> None:
    """Our own control group is asked first, then its parents, and the machine only where no group counts."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert oom_kills(str(tmp_path)) == count


class Machine:
    """A machine with little or much memory, whose kernel has killed so many."""

    def __init__(self) -> None:
        self.kills: int | None = 5
        self.free = 0.5
        self.total = 1000

    def memory(self) -> Memory:
        return Memory(int(self.free * self.total), self.total, "planted")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(fate, "oom_kills", lambda: made.kills)
    monkeypatch.setattr(fate, "memory", made.memory)
    return made


def explain(deaths: fate.Deaths, status: int | None, *, running: int = 3, peak: int = 0, said: str = "") -> Any:
    handle: Any = types.SimpleNamespace(pid=4711, peak=peak, last_words=said)
    task: Any = types.SimpleNamespace(index=7, _describe=lambda: "task 7, fit('big.csv')")
    return deaths.explain(handle, task, status, running)


def test_out_of_memory_by_the_kernels_count(machine: Machine) -> None:
    """A SIGKILL with one more kill in the kernel's books is put down to it, once, with what the worker had used."""
    deaths = fate.Deaths()
    machine.kills = 6
    error = explain(deaths, -9, peak=1_930_000_000)
    assert isinstance(error, dummymp.WorkerDied)
    assert str(error) == (
        "worker 4711 was killed (SIGKILL) while it ran task 7, fit('big.csv'); probably the machine was out of memory "
        "(the worker had used up to 1.9 GB). Fewer at once may help: dummymp.configure(max_processes=2). "
        "Other tasks go on."
    )
    assert (error.task, error.pid, error.exitcode, error.signal) == (7, 4711, None, "SIGKILL")
    assert "memory" not in str(explain(deaths, -9))


def test_two_workers_killed_at_the_same_time(machine: Machine) -> None:
    """Each of them is put down to lack of memory, a third is not."""
    deaths = fate.Deaths()
    machine.kills = 7
    said = [str(explain(deaths, -9, peak=290_000_000)) for _ in range(3)]
    assert ["out of memory" in text for text in said] == [True, True, False]
    assert "290 MB" in said[0]


def test_out_of_memory_by_what_is_left(machine: Machine) -> None:
    """Where the kernel keeps no books, a SIGKILL with little memory left is put down to that."""
    machine.kills = None
    deaths = fate.Deaths()
    assert "memory" not in str(explain(deaths, -9))
    machine.free = 0.02
    text = str(explain(deaths, -9, running=1))
    assert "out of memory. It ran alone, so give it less at a time" in text
    assert "memory" not in str(explain(deaths, -15))
    assert "memory" not in str(explain(deaths, 9))


def test_what_is_unknown_is_not_put_down_to_memory(machine: Machine) -> None:
    """On a system that tells nothing, nothing is claimed."""
    machine.kills, machine.total = None, 0
    assert "memory" not in str(explain(fate.Deaths(), -9))


def test_a_death_of_which_nobody_knows_how(machine: Machine) -> None:
    """With the server gone, it is said why the exit code is missing."""
    error = explain(fate.Deaths(), None)
    assert str(error) == (
        "worker 4711 ended while it ran task 7, fit('big.csv'). How it ended is not known, because the server process "
        "that would tell was killed before. Other tasks go on."
    )
    assert error.exitcode is error.signal is None


@pytest.mark.parametrize(("status", "how"), [(0, "ended itself with exit code 0"), (-50, "was killed (signal 50)")])
def test_other_ends(machine: Machine, status: int, how: str) -> None:
    """Exit codes are told as they are; a signal without a name by its number."""
    assert how in str(explain(fate.Deaths(), status))


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="Windows has no alarms")
def test_an_alarm_that_another_task_may_have_left(machine: Machine) -> None:
    """The task that ran when it came need not be the one that set it."""
    assert "a task before it in the same worker may have left" in str(explain(fate.Deaths(), -signal.SIGALRM))

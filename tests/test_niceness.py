"""How nice workers are: by the preset, after a change, and on systems that have priority classes or groups."""

from __future__ import annotations

import builtins
import errno
import os
import types
from typing import Any, ClassVar

import psutil
import pytest

import dummymp
from dummymp import niceness
from dummymp.pool import Pool
from dummymp.presets import Preset

pytestmark = pytest.mark.skipif(not hasattr(os, "getpriority"), reason="needs niceness")


def where() -> tuple[int, int]:
    """Tell which process this is, and how nice."""
    return os.getpid(), os.getpriority(os.PRIO_PROCESS, 0)


def nice(number: int) -> Preset:
    """Give a preset that never waits, with a niceness."""
    return Preset(f"nice {number}", nice=number, threshold=None, at_least=1, min_free_memory=0)


def above_ours(number: int) -> int:
    return min(19, os.getpriority(os.PRIO_PROCESS, 0) + number)


class TestWorkers:
    @pytest.mark.parametrize("number", [0, 3, 15, 19])
    def test_preset(self, start_method: str, number: int) -> None:
        """Workers are as nice as the main program, plus what the preset says."""
        dummymp.configure(priority=nice(number))
        assert dummymp.run(where).result()[1] == above_ours(number)

    def test_nicer(self) -> None:
        """A priority that changes while a worker lives holds for its next task; it steps back where it is."""
        dummymp.configure(priority=nice(3))
        worker, _ = dummymp.run(where).result()
        dummymp.configure(priority=nice(5))
        assert dummymp.run(where).result() == (worker, above_ours(5))

    def test_first_step(self) -> None:
        """From no step back to one, too: by a new worker where it must stand in another session for that."""
        dummymp.configure(priority=nice(0), max_processes=1)
        dummymp.run(where).result()
        dummymp.configure(priority=nice(5))
        worker, niceness_now = dummymp.run(where).result()
        assert niceness_now == above_ours(5)
        assert dummymp.worker_pids() == [worker]

    @pytest.mark.skipif(not niceness.ADOPTS, reason="elsewhere each worker stands in a session that suits all")
    def test_wrong_session(self) -> None:
        """A worker that stands in the wrong session for one queue is left as it is, and still fits another queue."""
        handle = types.SimpleNamespace(nice=0, pid=os.getpid())
        assert not Pool._renice(None, handle, 5)  # type: ignore[arg-type]
        assert Pool._renice(None, handle, 0)  # type: ignore[arg-type]

    def test_less_nice(self) -> None:
        """Back again, too: by the same worker if we may, which only the administrator may, or by a new one."""
        dummymp.configure(priority=nice(5))
        dummymp.run(where).result()
        dummymp.configure(priority=nice(2))
        assert dummymp.run(where).result()[1] == above_ours(2)

    def test_replaced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the system does not let us change a worker, a new one takes its place, and the old one ends."""
        dummymp.configure(priority=nice(5), max_processes=1)
        worker, _ = dummymp.run(where).result()
        monkeypatch.setattr(niceness, "change", lambda pid, nice: False)
        dummymp.configure(priority=nice(2))
        successor, niceness_now = dummymp.run(where).result()
        assert successor != worker
        assert niceness_now == above_ours(2)
        assert dummymp.worker_pids() == [successor]
        psutil.wait_procs([psutil.Process(worker)] if psutil.pid_exists(worker) else [], timeout=60)
        assert not psutil.pid_exists(worker)

    def test_threads(self) -> None:
        """Threads that a library left in a worker step back with it."""
        dummymp.configure(priority=nice(2), max_processes=1)
        dummymp.run(leave_a_thread).result()
        dummymp.configure(priority=nice(7))
        if os.path.isdir("/proc/self/task"):
            assert set(dummymp.run(of_all_threads).result()) == {above_ours(7)}

    def test_queued_before(self) -> None:
        """The change holds for tasks that were queued before it, too."""
        tasks = [dummymp.run(where) for _ in range(3)]
        dummymp.configure(priority=nice(4))
        assert {task.result()[1] for task in tasks} == {above_ours(4)}


def leave_a_thread() -> None:
    import threading

    threading.Thread(target=threading.Event().wait, daemon=True).start()


def of_all_threads() -> list[int]:
    return [os.getpriority(os.PRIO_PROCESS, int(name)) for name in os.listdir("/proc/self/task")]


class TestGroups:
    """Linux may share the CPUs between sessions first; a worker that is nicer than we are leads one."""

    def refuse(self, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
        def refuse(*args: Any) -> Any:
            raise error

        monkeypatch.setattr(builtins, "open", refuse)

    def test_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The kernel takes one change in a tenth of a second; then it must be asked again."""
        self.refuse(monkeypatch, OSError(errno.EAGAIN, "try again"))
        assert not niceness.regroup(15)

    def test_no_groups(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where there is no such thing, there is nothing to do."""
        self.refuse(monkeypatch, OSError(errno.ENOENT, "no such file"))
        assert niceness.regroup(15)

    @pytest.mark.skipif(not os.path.exists("/proc/self/autogroup"), reason="the kernel has no such groups")
    def test_group_of_a_worker(self) -> None:
        """The group of a worker is as nice as the worker, also after a change."""
        # Others may have changed one just before; a worker that was refused asks again, in some tenths of a second.
        dummymp.configure(priority=nice(11), max_processes=1)
        assert dummymp.run(wait_for_group, 11).result(timeout=60)
        if os.geteuid() == 0:
            dummymp.configure(priority=nice(12))
            assert dummymp.run(wait_for_group, 12).result(timeout=60)


def wait_for_group(nice: int) -> bool:
    import time

    while True:
        with open("/proc/self/autogroup") as file:
            if file.read().endswith(f"nice {nice}\n"):
                return True
        time.sleep(0.02)


class FakeProcess:
    """A process on Windows, as psutil shows it."""

    classes: ClassVar[dict[int, int]] = {}

    def __init__(self, pid: int) -> None:
        if pid not in self.classes:
            raise psutil.NoSuchProcess(pid)
        self.pid = pid

    def nice(self, value: int | None = None) -> int | None:
        if value is None:
            return self.classes[self.pid]
        self.classes[self.pid] = value
        return None


class TestWindows:
    """Priority classes, on a system that is none."""

    IDLE, BELOW, NORMAL, HIGH = 64, 16384, 32, 128

    @pytest.fixture(autouse=True)
    def windows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("getpriority", "setpriority", "nice", "setsid", "setpgid"):
            monkeypatch.delattr(os, name)
        monkeypatch.setattr(niceness, "ADOPTS", False)
        monkeypatch.setattr(psutil, "Process", FakeProcess)
        FakeProcess.classes = {os.getpid(): self.NORMAL, os.getppid(): self.NORMAL, 5: self.NORMAL}

    @pytest.mark.parametrize(
        ("ours", "number", "expected"),
        [
            (NORMAL, 15, IDLE),
            (NORMAL, 19, IDLE),
            (NORMAL, 5, BELOW),
            (NORMAL, 0, NORMAL),
            (BELOW, 5, BELOW),
            (BELOW, 15, IDLE),
            (IDLE, 5, IDLE),
            (IDLE, 0, IDLE),
            (HIGH, 5, BELOW),
        ],
    )
    def test_classes(self, ours: int, number: int, expected: int) -> None:
        """A worker gets the class that stands for its niceness, and none above that of the main program."""
        FakeProcess.classes[os.getpid()] = ours
        assert niceness.change(5, number)
        assert FakeProcess.classes[5] == expected

    def test_worker(self) -> None:
        """A new worker does that itself, by the class of the program that started it."""
        assert niceness.set_apart(15)
        assert FakeProcess.classes[os.getpid()] == self.IDLE

    def test_own(self) -> None:
        """Our own class stands for a niceness."""
        assert niceness.own() == 0
        FakeProcess.classes[os.getpid()] = self.IDLE
        assert niceness.own() == 19

    def test_gone(self) -> None:
        """A worker that is gone is none that could be changed."""
        assert not niceness.change(6, 15)

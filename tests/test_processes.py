"""Process trees: who was started by whom, told apart and ended, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from conftest import TIMEOUT

from dummymp import processes
from dummymp.processes import Process

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")

# A shell with two children, one of which has a child of its own; each says its pid, then waits to be ended (not for the
# others, so that it does not end with them).
TREE = "sh -c 'sleep 1000 & echo $! $$; exec sleep 1000' & sleep 1000 & echo $!; exec sleep 1000"


class Tree:
    """A tree of real processes: a root, three below it, and a helper of ours that has nothing to do with them."""

    def __init__(self) -> None:
        self.shell = subprocess.Popen(["sh", "-c", TREE], stdout=subprocess.PIPE, start_new_session=True, text=True)
        self.other = subprocess.Popen(["sleep", "1000"])
        assert self.shell.stdout is not None
        lines = [self.shell.stdout.readline(), self.shell.stdout.readline()]
        self.below = {int(word) for line in lines for word in line.split()}

    def close(self) -> None:
        processes.end({self.shell.pid, *self.below, self.other.pid})
        for started in (self.shell, self.other):
            started.wait(TIMEOUT)
        assert self.shell.stdout is not None
        self.shell.stdout.close()


@pytest.fixture
def tree() -> Iterator[Tree]:
    made = Tree()
    yield made
    made.close()


def wait_until_gone(pids: set[int]) -> None:
    """Wait for processes that may not be our own; one that has ended and waits to be reaped is gone, too."""
    for pid in pids:
        try:
            process = psutil.Process(pid)
            while process.status() != psutil.STATUS_ZOMBIE:
                try:
                    process.wait(0.05)
                    break
                except psutil.TimeoutExpired:
                    continue
        except psutil.NoSuchProcess:
            continue


# --- pure rules --------------------------------------------------------------------------------------------------


def planted(*parents: tuple[int, int]) -> dict[int, Process]:
    return {pid: Process(parent, 0, 0, 0.0) for pid, parent in parents}


@pytest.mark.parametrize(
    ("root", "table", "expected"),
    [
        (1, planted(), set()),
        (1, planted((1, 0)), set()),
        (2, planted((1, 0), (2, 1), (3, 1)), set()),
        (1, planted((1, 0), (2, 1), (3, 2), (4, 3), (5, 0)), {2, 3, 4}),
        (1, planted((2, 1), (3, 2)), {2, 3}),  # The root has ended since.
        (1, planted((1, 2), (2, 1)), {2}),  # A circle, from pids that were used again while we looked.
        (0, planted((0, 0), (1, 0)), {1}),  # Windows: the idle process is its own parent.
    ],
)
def test_descendants(root: int, table: dict[int, Process], expected: set[int]) -> None:
    """Children and their children are found, the root and strangers are not."""
    assert processes.descendants(root, table) == expected


def test_group_members() -> None:
    """All processes of a group, and of a session, however they are related."""
    table = {1: Process(0, 1, 1, 0.0), 2: Process(1, 2, 1, 0.0), 3: Process(0, 2, 1, 0.0), 4: Process(0, 4, 2, 0.0)}
    assert processes.group_members(2, table) == {2, 3, 4}
    assert processes.group_members(9, table) == set()


# --- real processes ----------------------------------------------------------------------------------------------


def test_table_has_this_process() -> None:
    """Parent, group and session of this process stand in the table as the system tells them."""
    own = processes.table()[os.getpid()]
    assert (own.parent, own.group, own.session) == (os.getppid(), os.getpgrp(), os.getsid(0))


def test_table_without_proc_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc, psutil tells the same of this process."""
    here = processes.table()[os.getpid()]
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    there = processes.table()[os.getpid()]
    assert there[:3] == here[:3]


@pytest.mark.skipif(not processes.ADOPTS, reason="elsewhere a zombie counts until it is reaped")
def test_what_has_ended_does_not_live() -> None:
    """A process lives until it ends, whether it has been reaped yet or not."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert processes.lives(child.pid)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not processes.lives(child.pid)
    assert not processes.lives(child.pid)


def test_start_time_stays() -> None:
    """The start of a process is the same in every look, so that it can be told from a later one with its pid."""
    assert processes.table()[os.getpid()].started == processes.table()[os.getpid()].started


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
def test_name_with_spaces_and_parentheses(tmp_path: Any) -> None:
    """A program whose name looks like the fields after it is read right."""
    name = tmp_path / ") S 1 (x"
    os.symlink("/bin/sh", name)
    with subprocess.Popen([str(name), "-c", "read line"], stdin=subprocess.PIPE, start_new_session=True) as odd:
        found = processes.table()[odd.pid]
        odd.communicate()
    assert found[:3] == (os.getpid(), odd.pid, odd.pid)


def test_tree_is_found(tree: Tree) -> None:
    """All that a process started is found, direct or not, and nothing else."""
    table = processes.table()
    assert processes.descendants(tree.shell.pid, table) == tree.below
    assert processes.group_members(tree.shell.pid, table) == {tree.shell.pid, *tree.below}
    assert tree.other.pid in processes.descendants(os.getpid(), table)


@pytest.mark.parametrize(("politely", "expected"), [(False, signal.SIGKILL), (True, signal.SIGTERM)])
def test_end(tree: Tree, politely: bool, expected: signal.Signals) -> None:
    """Each is ended by the signal that was asked for; those that were not named go on."""
    processes.end({tree.shell.pid, *tree.below}, politely=politely)
    assert tree.shell.wait(TIMEOUT) == -expected
    wait_until_gone(tree.below)
    assert tree.other.poll() is None


def test_ending_what_is_gone() -> None:
    """A process that has ended already is no error, and does not keep the others from being ended."""
    gone = subprocess.Popen(["true"])
    gone.wait(TIMEOUT)
    alive = subprocess.Popen(["sleep", "1000"])
    processes.end({gone.pid, alive.pid})
    assert alive.wait(TIMEOUT) == -signal.SIGKILL


def test_ending_nobody() -> None:
    """An empty set ends nobody."""
    processes.end(set())
    processes.end(set(), politely=True)

"""What we may use: CPUs and memory, by the machine, control groups, job systems and variables; on planted files."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Callable

import pytest

from dummymp import kernelfiles, limits
from dummymp.kernelfiles import Group, groups
from dummymp.limits import Limit, limit, on_login_node, quota
from dummymp.memory import Memory, memory

Plant = Callable[[dict[str, str]], str]

V2_MOUNT = "30 23 0:25 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
V1_CPU_MOUNT = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
V1_MEMORY_MOUNT = "35 31 0:32 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n"
V2 = {"proc/self/cgroup": "0::/a/b\n", "proc/self/mountinfo": "22 27 0:21 / /proc rw - proc proc rw\n" + V2_MOUNT}
V1 = {
    "proc/self/cgroup": "4:memory:/a/b\n2:cpu,cpuacct:/a/b\n0::/\n",
    "proc/self/mountinfo": V1_CPU_MOUNT + V1_MEMORY_MOUNT,
}
MEMINFO = "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 800 kB\n"
MACHINE = Limit(8, "the number of CPUs in the machine")


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Give a function that writes files below a root of their own, and returns that root."""

    def write(files: dict[str, str]) -> str:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(tmp_path)

    return write


@pytest.fixture
def debug_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """Catch what the package says at DEBUG, as if it had said nothing before."""
    monkeypatch.setattr(kernelfiles, "_noted", set())
    caplog.set_level(logging.DEBUG, logger="dummymp")
    return caplog


def limited(root: str = "/nowhere", environ: dict[str, str] | None = None, affinity: int = 8) -> Limit:
    """Find the limit on a machine with 8 CPUs."""
    return limit(root=root, environ=environ or {}, cpu_count=8, affinity_count=affinity)


class TestCpuLimits:
    def test_none(self) -> None:
        """Without any limit, all CPUs of the machine are ours."""
        assert limited() == MACHINE

    def test_affinity(self) -> None:
        """The CPUs that we may be put on limit us."""
        assert limited(affinity=3) == Limit(3, "the CPU affinity (set by taskset, a job system or a container)")

    @pytest.mark.parametrize(
        ("cpu_max", "count"),
        [
            ("200000 100000", 2),
            ("150000 100000", 2),
            ("50000 100000", 1),
            ("1000 100000", 1),
            ("800000 100000", 8),
            ("9900000 100000", 8),
            ("300000", 3),
            ("max 100000", 8),
            ("max", 8),
            ("", 8),
            ("rubbish", 8),
            ("0 100000", 8),
            ("-1 100000", 8),
            ("100000 0", 8),
        ],
    )
    def test_cgroup_v2(self, plant: Plant, cpu_max: str, count: int) -> None:
        """The quota of our control group limits us; parts of a CPU are rounded up, and rubbish is no limit."""
        assert limited(plant({**V2, "sys/fs/cgroup/a/b/cpu.max": cpu_max + "\n"})).count == count

    @pytest.mark.parametrize(
        ("quota_us", "count"), [("200000", 2), ("250000", 3), ("10000", 1), ("-1", 8), ("", 8), ("x", 8)]
    )
    def test_cgroup_v1(self, plant: Plant, quota_us: str, count: int) -> None:
        """The same for the older arrangement of control groups."""
        folder = "sys/fs/cgroup/cpu,cpuacct/a/b"
        files = {f"{folder}/cpu.cfs_quota_us": quota_us + "\n", f"{folder}/cpu.cfs_period_us": "100000\n"}
        assert limited(plant({**V1, **files})).count == count

    @pytest.mark.parametrize("level", ["a/b", "a", "."])
    def test_parents(self, plant: Plant, level: str) -> None:
        """The limit of a parent group holds for us, too, and the tightest is named."""
        root = plant({**V2, "sys/fs/cgroup/a/b/cpu.max": "700000 100000\n"})
        plant({f"sys/fs/cgroup/{level}/cpu.max": "250000 100000\n"})
        name = {"a/b": "/a/b", "a": "/a", ".": "/"}[level]
        assert limited(root) == Limit(3, f"the CPU quota of the control group {name} (2.5 CPUs)")

    @pytest.mark.parametrize(
        ("cgroup", "top"),
        [("/docker/abc", "/docker/abc"), ("/", "/docker/abc"), ("/docker/abc", "/"), ("/../abc", "/"), ("/", "/..")],
    )
    def test_container(self, plant: Plant, cgroup: str, top: str) -> None:
        """In a container, where the names of groups and what is mounted may not fit, what is mounted is ours."""
        mount = V2_MOUNT.replace(" / ", f" {top} ", 1)
        files = {"proc/self/cgroup": f"0::{cgroup}\n", "proc/self/mountinfo": mount}
        assert limited(plant({**files, "sys/fs/cgroup/cpu.max": "200000 100000\n"})).count == 2

    def test_both_versions(self, plant: Plant) -> None:
        """Where both arrangements are in use, both count."""
        files = {
            "proc/self/cgroup": "2:cpu:/a\n0::/b\n",
            "proc/self/mountinfo": V1_CPU_MOUNT + V2_MOUNT.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "500000",
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/unified/b/cpu.max": "300000 100000",
        }
        root = plant(files)
        assert limited(root).count == 3
        plant({"sys/fs/cgroup/unified/b/cpu.max": "600000 100000"})
        assert limited(root).count == 5

    def test_space_in_the_path(self, plant: Plant) -> None:
        """A folder whose name has a space is found, though the kernel writes it as \\040."""
        files = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2_MOUNT.replace("/fs/", r"/f\040s/")}
        assert limited(plant({**files, "sys/f s/cgroup/cpu.max": "100000 100000"})).count == 1

    @pytest.mark.parametrize("rubbish", ["", "\n", "0:\n", "::\n", "no colon at all\n", "0::/a/b"])
    @pytest.mark.parametrize("file", ["cgroup", "mountinfo"])
    def test_rubbish(self, plant: Plant, file: str, rubbish: str) -> None:
        """Files that nobody understands are no limit, and no error."""
        root = plant({**V2, f"proc/self/{file}": rubbish})
        assert limited(root) == MACHINE

    def test_unreadable(self, plant: Plant, debug_log: pytest.LogCaptureFixture) -> None:
        """A file that cannot be read is no limit; that is said once, at DEBUG."""
        root = plant(V2)
        os.makedirs(os.path.join(root, "sys/fs/cgroup/a/b/cpu.max"))  # Not even root can read a folder.
        assert limited(root) == MACHINE
        assert limited(root) == MACHINE
        assert [record.message.partition(": ")[0] for record in debug_log.records] == [
            f"cannot read {root}/sys/fs/cgroup/a/b/cpu.max"
        ]

    @pytest.mark.parametrize("name", limits.VARIABLES)
    def test_variables(self, name: str) -> None:
        """What a job system gave us, or the user set for Python, limits us."""
        assert limited(environ={name: "3"}) == Limit(3, f"the variable {name}=3")
        assert limited(environ={name: "30"}) == MACHINE

    def test_variables_of_the_contract(self) -> None:
        """The variables of Slurm, PBS, Grid Engine and Python are known."""
        assert {"SLURM_CPUS_PER_TASK", "PBS_NCPUS", "NSLOTS", "PYTHON_CPU_COUNT"} <= set(limits.VARIABLES)

    @pytest.mark.parametrize("value", ["0", "-2", "4(x2)", "many", "2.5", "²"])
    def test_bad_variables(self, value: str, debug_log: pytest.LogCaptureFixture) -> None:
        """A variable that holds no number of CPUs is ignored; that is said at DEBUG."""
        assert limited(environ={"NSLOTS": value}) == MACHINE
        assert debug_log.messages == [f"ignored the variable NSLOTS={value!r}: not a number of CPUs"]

    @pytest.mark.parametrize("environ", [{"NSLOTS": ""}, {"NSLOTS": " "}, {"PYTHON_CPU_COUNT": "default"}])
    def test_empty_variables(self, environ: dict[str, str], debug_log: pytest.LogCaptureFixture) -> None:
        """An empty variable is none, and Python's own word for "no limit" is known."""
        assert limited(environ=environ) == MACHINE
        assert not debug_log.records

    def test_minimum(self, plant: Plant) -> None:
        """Of several limits, the smallest wins."""
        root = plant({**V2, "sys/fs/cgroup/a/cpu.max": "500000 100000\n"})
        assert limited(root, {"SLURM_CPUS_PER_TASK": "4", "NSLOTS": "6"}, affinity=7).count == 4
        assert limited(root, {"SLURM_CPUS_PER_TASK": "6"}, affinity=7).count == 5
        assert limited(root, {"SLURM_CPUS_PER_TASK": "6"}, affinity=2).count == 2

    def test_this_machine(self) -> None:
        """Here and now there is at least one CPU, and no more than the machine has."""
        assert 1 <= limits.usable() <= limits.machine()

    @pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="there is no affinity to set")
    def test_real_affinity(self) -> None:
        """Once this process is bound to one CPU, one it is."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(before)})
        try:
            assert limits.usable() == 1
        finally:
            os.sched_setaffinity(0, before)


class TestGroups:
    def test_innermost_first(self, plant: Plant) -> None:
        """Our own group comes first, then its parents up to the topmost that we see."""
        assert [group.path for group in groups("cpu", plant(V2))] == ["/a/b", "/a", "/"]

    def test_other_controllers(self, plant: Plant) -> None:
        """In the older arrangement each controller has groups of its own."""
        root = plant({**V1, "proc/self/cgroup": "4:memory:/m\n2:cpu,cpuacct:/c\n"})
        assert [group.path for group in groups("cpu", root)] == ["/c", "/"]
        assert [group.path for group in groups("memory", root)] == ["/m", "/"]
        assert groups("pids", root) == []

    @pytest.mark.parametrize(
        ("path", "inside"),
        [("/a", True), ("/a/b/c", True), ("/ab", False), ("/", False), ("/../a", False), ("", False)],
    )
    def test_holds(self, path: str, inside: bool) -> None:
        """A group holds the processes in it and below it."""
        assert Group(2, "cpu", "/a", "").holds(f"2:cpu:/elsewhere\n0::{path}\n") is inside
        assert Group(1, "cpu", "/a", "").holds(f"2:cpu,cpuacct:{path}\n0::/elsewhere\n") is inside

    def test_topmost_holds_all(self) -> None:
        """The topmost group that we see holds all that we see, but not who is outside of our container."""
        assert Group(2, "cpu", "/", "").holds("0::/\n")
        assert Group(2, "cpu", "/", "").holds("0::/a/b\n")
        assert not Group(2, "cpu", "/", "").holds("0::/../b\n")

    def test_quota_names_its_group(self, plant: Plant) -> None:
        """The group that has the quota is known, to tell who shares it."""
        found = quota(plant({**V2, "sys/fs/cgroup/a/cpu.max": "150000 100000\n"}))
        assert found is not None
        assert found[0] == 1.5
        assert found[1].path == "/a"


class TestMemory:
    def test_machine(self, plant: Plant) -> None:
        """Without a limit, the memory is that of the machine."""
        found = memory(plant({"proc/meminfo": MEMINFO}))
        assert found == Memory(819_200, 1_024_000, "the memory of the machine")
        assert found.free == 0.8

    @pytest.mark.parametrize("level", ["a/b", "a"])
    def test_cgroup_v2(self, plant: Plant, level: str) -> None:
        """The limit of our group, or of its parent, is what counts; what the kernel would give back is free."""
        folder = f"sys/fs/cgroup/{level}"
        root = plant(
            {
                **V2,
                "proc/meminfo": MEMINFO,
                f"{folder}/memory.max": "400000\n",
                f"{folder}/memory.current": "300000\n",
                f"{folder}/memory.stat": "anon 5\ninactive_file 100000\nactive_file 7\n",
            }
        )
        assert memory(root) == Memory(200_000, 400_000, f"the memory limit of the control group /{level}")
        assert memory(root).free == 0.5

    def test_cgroup_v1(self, plant: Plant) -> None:
        """The same for the older arrangement of control groups."""
        folder = "sys/fs/cgroup/memory/a/b"
        root = plant(
            {
                **V1,
                "proc/meminfo": MEMINFO,
                f"{folder}/memory.limit_in_bytes": "400000\n",
                f"{folder}/memory.usage_in_bytes": "300000\n",
                f"{folder}/memory.stat": "inactive_file 1\ntotal_inactive_file 100000\n",
            }
        )
        assert memory(root) == Memory(200_000, 400_000, "the memory limit of the control group /a/b")

    @pytest.mark.parametrize("limit", ["max", "9223372036854771712", "2000000", "", "x"])
    def test_no_limit(self, plant: Plant, limit: str) -> None:
        """No limit, or one above what the machine has, leaves the machine's memory."""
        folder = "sys/fs/cgroup/a/b"
        files = {f"{folder}/memory.max": limit, f"{folder}/memory.current": "300000"}
        assert memory(plant({**V2, **files, "proc/meminfo": MEMINFO})).total == 1_024_000

    def test_soft_limit(self, plant: Plant) -> None:
        """Above memory.high the kernel slows us down so much that it is a limit, too."""
        folder = "sys/fs/cgroup/a/b"
        files = {f"{folder}/memory.max": "max", f"{folder}/memory.high": "100", f"{folder}/memory.current": "90"}
        assert memory(plant({**V2, **files, "proc/meminfo": MEMINFO})).free == pytest.approx(0.1)

    def test_scarcest(self, plant: Plant) -> None:
        """A roomy group on a machine whose memory is short does not make it roomy."""
        folder = "sys/fs/cgroup/a/b"
        files = {f"{folder}/memory.max": "400000", f"{folder}/memory.current": "10"}
        meminfo = MEMINFO.replace("800", "50")
        assert memory(plant({**V2, **files, "proc/meminfo": meminfo})).free == 0.05

    def test_above_the_limit(self, plant: Plant) -> None:
        """A group above its limit has nothing left, not less than that."""
        folder = "sys/fs/cgroup/a/b"
        files = {f"{folder}/memory.max": "100", f"{folder}/memory.current": "150"}
        assert memory(plant({**V2, **files, "proc/meminfo": MEMINFO})).available == 0

    @pytest.mark.parametrize("meminfo", ["", "rubbish", "MemTotal: x kB\n", "MemTotal: 5 kB\n"])
    def test_unknown(self, plant: Plant, meminfo: str) -> None:
        """Where nobody can tell, the share that is free is unknown, not zero."""
        found = memory(plant({"proc/meminfo": meminfo}))
        assert found == Memory(0, 0, "unknown")
        assert found.free is None

    def test_this_machine(self) -> None:
        """Here and now, some memory is free, and less than all."""
        free = memory().free
        assert free is not None
        assert 0 < free < 1


class TestLoginNode:
    @pytest.mark.parametrize(
        ("environ", "commands", "expected"),
        [
            ({"PATH": "/bin"}, {"/bin/sbatch"}, True),
            ({"PATH": os.pathsep.join(["/bin", "/opt/slurm"])}, {"/opt/slurm/srun"}, True),
            ({"PATH": "/bin", "SLURM_JOB_ID": "17"}, {"/bin/sbatch"}, False),
            ({"PATH": "/bin"}, {"/bin/ls"}, False),
            ({"PATH": ""}, {"sbatch"}, False),
            ({}, {"/bin/sbatch"}, False),
        ],
        ids=str,
    )
    @pytest.mark.skipif(sys.platform == "win32", reason="paths are written otherwise")
    def test_signs(self, environ: dict[str, str], commands: set[str], expected: bool) -> None:
        """Slurm's commands without a job of Slurm mean a login node."""
        assert on_login_node(environ, commands.__contains__) is expected

    def test_here(self) -> None:
        """It can be asked without arguments, too."""
        assert on_login_node() in (True, False)

"""How many workers may run now: presets, their names, and the rule."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dummymp.policy import Decision, decide, next_window
from dummymp.presets import PRESETS, Preset, Priority, find_preset

GENEROUS, NORMAL, AGGRESSIVE, EXTREME, NUCLEAR = (PRESETS[priority] for priority in Priority)


def decision(preset: Preset = NORMAL, **changes: Any) -> Decision:
    """Decide for four free CPUs and no cap, but for what is said otherwise."""
    values: dict[str, Any] = {
        "usable": 4,
        "free": 4,
        "idle": None,
        "running": 0,
        "max_processes": None,
        "free_memory": None,
        "min_free_memory": None,
    }
    values.update(changes)
    return decide(preset, **values)


class TestPresets:
    def test_numbers_of_0_5(self) -> None:
        """The priorities are the numbers that scripts for DummyMP 0.5 may have written down."""
        assert {priority.name: int(priority) for priority in Priority} == {
            "GENEROUS": 15,
            "NORMAL": 0,
            "AGGRESSIVE": -5,
            "EXTREME": -10,
            "NUCLEAR": -20,
        }

    def test_table(self) -> None:
        """The presets are those of the documentation: niceness, threshold, window, least workers, memory kept."""
        assert [(p.nice, p.threshold, p.window, p.at_least, p.min_free_memory) for p in PRESETS.values()] == [
            (15, 20, 0.5, 0, 0.2),
            (0, 30, 0.35, 1, 0.1),
            (0, 50, 0.2, 1, 0.05),
            (0, 80, 0.1, 1, 0.02),
            (0, None, NUCLEAR.window, None, 0),
        ]

    def test_value(self) -> None:
        """Presets with the same numbers are equal, and as good as one another in a set."""
        mine = Preset("mine", nice=5, threshold=75, window=0.3, at_least=1, min_free_memory=0.05)
        same = Preset("mine", nice=5, threshold=75, window=0.3, at_least=1, min_free_memory=0.05)
        assert mine == same
        assert len({mine, same}) == 1
        assert mine != Preset("mine", nice=6, threshold=75, window=0.3, at_least=1, min_free_memory=0.05)
        assert mine != Preset("yours", nice=5, threshold=75, window=0.3, at_least=1, min_free_memory=0.05)
        assert mine != "mine"

    @pytest.mark.parametrize("preset", [*PRESETS.values(), Preset("mine", threshold=7.5)], ids=repr)
    def test_repr_and_copies(self, preset: Preset) -> None:
        """A preset's repr makes it again; so do pickle and copy."""
        assert eval(repr(preset)) == preset
        assert pickle.loads(pickle.dumps(preset)) == preset
        assert copy.deepcopy(preset) == preset

    def test_unchangeable(self) -> None:
        """A preset never changes, for many may hold it."""
        with pytest.raises(AttributeError, match=r"a Preset never changes; make another: Preset\('NORMAL', nice=3\)"):
            NORMAL.nice = 3
        with pytest.raises(AttributeError, match="a Preset never changes: it keeps its nice"):
            del NORMAL.nice
        with pytest.raises(AttributeError, match="a Preset never changes"):
            setattr(NORMAL, "colour", "red")  # noqa: B010 - as a typo would.

    @pytest.mark.parametrize(
        ("numbers", "message"),
        [
            ({"nice": -1}, r"nice must be from 0 .* to 19 .*, got -1; workers never get more of the CPU"),
            ({"nice": 20}, "nice must be from 0 .* to 19 .*, got 20"),
            ({"threshold": -1}, r"threshold must be from 0 to 100 .*, got -1 \(use None to never look\)"),
            ({"threshold": 101}, "threshold must be from 0 to 100 .*, got 101"),
            ({"threshold": float("nan")}, "threshold must be from 0 to 100 .*, got nan"),
            ({"window": 0}, "window must be more than 0 seconds, got 0. Write window=0.35, say"),
            ({"window": -0.5}, "window must be more than 0 seconds, got -0.5"),
            ({"window": float("inf")}, "window must be more than 0 seconds, got inf"),
            ({"window": float("nan")}, "window must be more than 0 seconds, got nan"),
            ({"at_least": -1}, r"at_least must be 0 or more, got -1 \(0 waits .*; None is all CPUs\)"),
            ({"min_free_memory": 1}, r"min_free_memory must be at least 0 and below 1, got 1 \(.* 0.1 for 10 %\)"),
            ({"min_free_memory": -0.1}, "min_free_memory must be at least 0 and below 1, got -0.1"),
        ],
        ids=str,
    )
    def test_impossible_numbers(self, numbers: dict[str, Any], message: str) -> None:
        """An impossible number is refused with the number, the rule and what to write."""
        with pytest.raises(ValueError, match=message):
            Preset("mine", **numbers)

    @pytest.mark.parametrize(
        ("numbers", "message"),
        [
            ({"nice": 1.5}, "nice must be a whole number, got 1.5"),
            ({"nice": True}, "nice must be a whole number, got True"),
            ({"threshold": "30"}, r"threshold must be a number or None \(never look\), got '30'"),
            ({"window": None}, "window must be a number, got None"),
            ({"at_least": 0.5}, r"at_least must be a whole number or None \(as many as there are CPUs\), got 0.5"),
            ({"min_free_memory": False}, "min_free_memory must be a number, got False"),
        ],
        ids=str,
    )
    def test_wrong_types(self, numbers: dict[str, Any], message: str) -> None:
        """What is no number is refused as such."""
        with pytest.raises(TypeError, match=message):
            Preset("mine", **numbers)

    def test_name(self) -> None:
        """A preset has a name, and it is text."""
        with pytest.raises(TypeError, match=r"the name of a Preset must be text, got 5. Write Preset\('mine'"):
            Preset(5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="the name of a Preset must not be empty"):
            Preset("")


class TestFindPreset:
    @pytest.mark.parametrize("priority", list(Priority), ids=lambda priority: priority.name)
    def test_everything_that_names_one(self, priority: Priority) -> None:
        """A priority may be given as itself, by name in any case, by the name of 0.5, by number or as a Preset."""
        name = priority.name
        for value in (priority, name, name.lower(), name.title(), f" DUMMYMP_{name}", int(priority)):
            assert find_preset(value) is PRESETS[priority]
        assert find_preset(PRESETS[priority]) is PRESETS[priority]

    def test_own_preset(self) -> None:
        """A preset of one's own is itself."""
        mine = Preset("mine", nice=5)
        assert find_preset(mine) is mine

    @pytest.mark.parametrize(
        ("typo", "meant"),
        [("genrous", "generous"), ("Agressive", "aggressive"), ("DUMMYMP_NUKLEAR", "NUCLEAR"), ("norm", "normal")],
    )
    def test_typo(self, typo: str, meant: str) -> None:
        """A name with a typo is refused, and the near one suggested, in capitals if the user wrote capitals."""
        with pytest.raises(ValueError, match=f"no priority is named {typo!r}. Did you mean {meant!r}?"):
            find_preset(typo)

    def test_unknown(self) -> None:
        """A name or number like no other is refused with a list of those that there are."""
        with pytest.raises(ValueError, match="no priority is named 'quick'; there are 'generous', 'normal'"):
            find_preset("quick")
        with pytest.raises(ValueError, match=r"no priority has number 3; there are 15 \(generous\), .*-20 \(nuclear\)"):
            find_preset(3)

    @pytest.mark.parametrize("value", [None, True, 1.5, ["NORMAL"]], ids=repr)
    def test_wrong_types(self, value: Any) -> None:
        """What is neither name nor number is a TypeError; True is not the number 1."""
        with pytest.raises(TypeError, match="priority must be a Priority, its name, its number or a Preset, got"):
            find_preset(value)


class TestDecide:
    @pytest.mark.parametrize(
        ("preset", "free", "allowed", "why"),
        [
            (NORMAL, 4, 4, None),
            (NORMAL, 3, 3, "1 of 4 CPUs is used by others"),
            (NORMAL, 1, 1, "3 of 4 CPUs are used by others"),
            (NORMAL, 0, 1, "4 of 4 CPUs are used by others"),
            (NORMAL, None, 1, "measuring the CPUs (0.35 s)"),
            (GENEROUS, 4, 4, None),
            (GENEROUS, 1, 1, "3 of 4 CPUs are used by others"),
            (GENEROUS, 0, 0, "4 of 4 CPUs are used by others"),
            (GENEROUS, None, 0, "measuring the CPUs (0.5 s)"),
            (EXTREME, 0, 1, "4 of 4 CPUs are used by others"),
            (NUCLEAR, None, 4, None),
            (NUCLEAR, 0, 4, None),
            (Preset("three", at_least=3), 1, 3, "3 of 4 CPUs are used by others"),
            (Preset("six", at_least=6), 1, 4, None),
            (Preset("all", at_least=None), 1, 4, None),
        ],
        ids=str,
    )
    def test_free_cpus(self, preset: Preset, free: int | None, allowed: int, why: str | None) -> None:
        """As many run as others leave CPUs free, and no fewer than the preset's least."""
        assert decision(preset, free=free) == Decision(allowed, why)

    @pytest.mark.parametrize(
        ("preset", "cap", "free", "allowed", "why"),
        [
            (NORMAL, 2, 4, 2, "max_processes=2"),
            (NORMAL, 2, 2, 2, "max_processes=2"),
            (NORMAL, 2, 1, 1, "3 of 4 CPUs are used by others"),
            (NORMAL, 0, 4, 4, None),
            (NORMAL, 4, 4, 4, None),
            (NORMAL, 9, 4, 4, None),
            (NORMAL, 9, 2, 2, "2 of 4 CPUs are used by others"),
            (NORMAL, 2, None, 1, "measuring the CPUs (0.35 s)"),
            (NUCLEAR, 3, None, 3, "max_processes=3"),
            (NUCLEAR, 9, None, 9, None),
        ],
        ids=str,
    )
    def test_cap(self, preset: Preset, cap: int, free: int | None, allowed: int, why: str | None) -> None:
        """The user's cap holds; 0 is none; only who never looks goes above the CPU count at once."""
        assert decision(preset, max_processes=cap, free=free) == Decision(allowed, why)

    @pytest.mark.parametrize(
        ("preset", "free_memory", "override", "running", "allowed", "why"),
        [
            (NORMAL, 0.1, None, 2, 4, None),
            (NORMAL, 0.03, None, 2, 2, "memory: 3 % free, 10 % kept"),
            (NORMAL, 0.0999, None, 2, 2, "memory: 9 % free, 10 % kept"),
            (NORMAL, 0.03, None, 0, 1, "memory: 3 % free, 10 % kept"),
            (NORMAL, 0.03, None, 4, 4, None),
            (NORMAL, 0.03, None, 6, 4, None),
            (NORMAL, 0.03, 0.02, 2, 4, None),
            (NORMAL, 0.5, 0.625, 2, 2, "memory: 50 % free, 62.5 % kept"),
            (GENEROUS, 0.1, None, 0, 0, "memory: 10 % free, 20 % kept"),
            (GENEROUS, 0.1, None, 1, 1, "memory: 10 % free, 20 % kept"),
            (NUCLEAR, 0.0, None, 2, 4, None),
            (NUCLEAR, 0.03, 0.1, 0, 1, "memory: 3 % free, 10 % kept"),
        ],
        ids=str,
    )
    def test_memory(
        self,
        preset: Preset,
        free_memory: float,
        override: float | None,
        running: int,
        allowed: int,
        why: str | None,
    ) -> None:
        """While memory is short nothing more starts; one always may run, except where one is ready to wait."""
        found = decision(preset, free_memory=free_memory, min_free_memory=override, running=running)
        assert found == Decision(allowed, why)

    @pytest.mark.parametrize(
        ("preset", "cap", "free", "allowed", "why"),
        [
            (NORMAL, None, None, 4, None),
            (GENEROUS, None, None, 4, None),
            (NORMAL, 2, None, 2, "max_processes=2"),
            (NORMAL, 9, None, 4, None),
            (NORMAL, None, 1, 1, "3 of 4 CPUs are used by others"),
        ],
        ids=str,
    )
    def test_quiet(self, preset: Preset, cap: int | None, free: int | None, allowed: int, why: str | None) -> None:
        """Where it is certain that nobody else computes, all CPUs are free before anything was measured, not after."""
        assert decision(preset, max_processes=cap, free=free, quiet=True) == Decision(allowed, why)

    def test_quiet_but_short_of_memory(self) -> None:
        """Also on a quiet machine no memory is taken that is to stay free."""
        assert decision(free=None, quiet=True, free_memory=0.03) == Decision(1, "memory: 3 % free, 10 % kept")

    def test_cpus_come_before_memory(self) -> None:
        """What holds back most is named: memory does not, if others leave fewer CPUs than run already."""
        assert decision(free=1, free_memory=0.01, running=3) == Decision(1, "3 of 4 CPUs are used by others")


def settle(need: float, *, cap: int, usable: int = 2, windows: int = 8) -> list[int]:
    """Run tasks that each use `need` of a CPU, one reading a window, and give the numbers that ran."""
    ran, numbers = 1, []
    for _ in range(windows):
        idle = max(0.0, usable - need * ran)
        ran = decision(usable=usable, free=usable, idle=idle, ran=ran - 0.05, running=ran, max_processes=cap).allowed
        numbers.append(ran)
    return numbers


class TestMoreWorkersThanCpus:
    def test_sleeping_tasks(self) -> None:
        """Tasks that wait go up to the cap within a few windows, by doubling."""
        assert settle(0.01, cap=12)[:4] == [2, 4, 8, 12]

    @pytest.mark.parametrize("need", [1.0, 0.99, 0.9, 0.8])
    def test_computing_tasks(self, need: float) -> None:
        """Tasks that compute stay at the CPU count, also if they leave small gaps."""
        assert settle(need, cap=12) == [2] * 8

    def test_tasks_that_do_both(self) -> None:
        """In between, the number settles where the CPUs are about full."""
        assert all(3 <= number <= 5 for number in settle(0.5, cap=12, windows=30)[4:])
        assert all(6 <= number <= 12 for number in settle(0.2, cap=40, windows=30)[5:])

    def test_tasks_that_begin_to_compute(self) -> None:
        """When many sleeping tasks are followed by computing ones, the number comes down to the CPU count."""
        ran = 12
        for _ in range(10):
            ran = decision(usable=2, free=2, idle=0.0, ran=ran, running=ran, max_processes=12).allowed
        assert ran == 2

    def test_same_reading_again(self) -> None:
        """The answer depends on the reading, not on what it let start: asked again, it lets no more start."""
        first = decision(usable=2, free=2, idle=2.0, ran=2.0, running=2, max_processes=12)
        again = decision(usable=2, free=2, idle=2.0, ran=2.0, running=first.allowed, max_processes=12)
        assert first == again == Decision(4, None)

    def test_nothing_measured(self) -> None:
        """Without measurements the CPU count is the limit."""
        assert decision(usable=2, free=2, max_processes=12, running=2).allowed == 2
        assert decision(usable=2, free=2, idle=2.0, max_processes=12, running=2).allowed == 2
        assert decision(usable=2, free=None, max_processes=12, running=2).allowed == 1

    def test_no_cap(self) -> None:
        """Without a cap, idle CPUs are no reason to go beyond their number."""
        assert decision(usable=2, free=2, idle=2.0, ran=2.0, running=2).allowed == 2


class TestSharing:
    def test_half_of_the_gap(self) -> None:
        """Where others are at work, half of what they leave is taken with each reading: they may want it, too."""
        assert decision(usable=32, free=30, ran=14.0, running=14).allowed == 22
        assert decision(usable=32, free=30, ran=22.0, running=22).allowed == 26
        assert decision(usable=32, free=30, ran=29.0, running=29).allowed == 30

    def test_doubling(self) -> None:
        """The number at most doubles, so that those who start in the same instant see one another while small."""
        assert [decision(usable=32, free=32, ran=n).allowed for n in (0.0, 1.0, 1.9, 4.0, 15.9, 20.0)] == [
            1, 2, 4, 8, 32, 32,
        ]  # fmt: skip
        assert decision(usable=32, free=30, ran=2.0).allowed == 4

    def test_growing(self) -> None:
        """While there is room for more it says so, and the next reading comes soon."""
        step = decision(usable=32, free=32, ran=1.0, running=1)
        assert step == Decision(2, "measuring the CPUs again, before the next step", growing=True)
        assert decision(usable=32, free=30, ran=1.0, running=1).growing
        assert not decision(usable=32, free=32, ran=20.0, running=20).growing
        assert not decision(usable=32, free=2, ran=20.0, running=20).growing
        assert not decision(usable=32, free=32, ran=1.0, running=1, max_processes=2).growing
        assert not decision(usable=32, free=None).growing

    def test_next_window(self) -> None:
        """A step takes a quarter of a window, but not less than the counters of the kernel can tell."""
        assert [next_window(preset, growing=False) for preset in (NORMAL, EXTREME)] == [0.35, 0.1]
        assert [next_window(preset, growing=True) for preset in (GENEROUS, NORMAL, EXTREME)] == [0.125, 0.0875, 0.05]
        assert next_window(Preset("hasty", window=0.02), growing=True) == 0.02

    def test_giving_way(self) -> None:
        """When others come, the whole way is gone at once."""
        assert decision(usable=32, free=4, ran=32.0, running=32).allowed == 4

    def test_those_who_wait_together(self) -> None:
        """Programs that all waited for the machine to be free do not all take all of it at once."""
        assert decision(GENEROUS, usable=32, free=32, ran=0.0).allowed == 1

    def test_peers(self) -> None:
        """Who waits for a full machine does not wait for others of the kind: they share it."""
        assert decision(GENEROUS, free=0, ran=0.0, beside_peers=0).allowed == 0
        assert decision(GENEROUS, free=0, ran=0.0, beside_peers=1).allowed == 1
        assert decision(GENEROUS, free=2, ran=2.0, running=2, beside_peers=4).allowed == 2

    def test_last_cpu(self) -> None:
        """One further worker always comes with a reading, so no CPU stays idle for ever."""
        assert decision(usable=2, free=1, ran=0.0).allowed == 1
        assert decision(GENEROUS, usable=2, free=1, ran=0.0).allowed == 1
        assert decision(usable=4, free=3, ran=2.0, running=2).allowed == 3


shares = st.none() | st.floats(0, 1)
presets = st.builds(
    Preset,
    st.just("any"),
    nice=st.integers(0, 19),
    threshold=st.none() | st.floats(0, 100),
    at_least=st.none() | st.integers(0, 200),
    min_free_memory=st.floats(0, 0.99),
) | st.sampled_from(list(PRESETS.values()))
situations = st.fixed_dictionaries(
    {
        "usable": st.integers(1, 128),
        "free": st.none() | st.integers(0, 128),
        "idle": st.none() | st.floats(0, 128),
        "ran": st.none() | st.floats(0, 300),
        "running": st.integers(0, 300),
        "max_processes": st.none() | st.integers(0, 300),
        "free_memory": shares,
        "min_free_memory": shares,
    }
)


class TestAlways:
    @given(presets, situations)
    def test_bounds(self, preset: Preset, situation: dict[str, Any]) -> None:
        """Whatever is measured, the number is never negative, never above the cap, else never above the CPUs."""
        allowed = decide(preset, **situation).allowed
        assert 0 <= allowed <= (situation["max_processes"] or situation["usable"])

    @given(presets, situations)
    def test_never_stuck(self, preset: Preset, situation: dict[str, Any]) -> None:
        """Whoever is not ready to wait always may run one."""
        if preset.at_least != 0:
            assert decide(preset, **situation).allowed >= 1

    @given(presets, situations, st.integers(0, 128))
    def test_monotone(self, preset: Preset, situation: dict[str, Any], more: int) -> None:
        """A CPU more that others leave free never means a worker less."""
        if situation["free"] is None:
            situation["free"] = 0
        before = decide(preset, **situation).allowed
        situation["free"] += more
        assert decide(preset, **situation).allowed >= before

    @given(presets, situations)
    def test_reason(self, preset: Preset, situation: dict[str, Any]) -> None:
        """A reason is given exactly when fewer may run than there are CPUs, or when memory is short."""
        allowed, reason, _growing = decide(preset, **situation)
        if allowed < situation["usable"]:
            assert reason
        elif reason is not None:
            assert reason.startswith("memory: ")

    @given(presets, situations)
    def test_running_ones_go_on(self, preset: Preset, situation: dict[str, Any]) -> None:
        """Short memory never asks for fewer than run already; only others and the cap do."""
        short = decide(preset, **{**situation, "free_memory": 0.0}).allowed
        plenty = decide(preset, **{**situation, "free_memory": 1.0}).allowed
        assert short >= min(plenty, situation["running"])

# SPDX-License-Identifier: MIT
"""How considerate to be: the priorities, and the numbers behind each; `policy` does the arithmetic with them."""

from __future__ import annotations

import enum

from .hints import TYPE_CHECKING
from .keywords import hinting

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

__all__ = ["PRESETS", "Preset", "Priority", "find_preset"]


class Priority(enum.IntEnum):
    """How considerate to be, from the one that always gives way to the one that never looks.

    The numbers are those of DummyMP 0.5.
    """

    GENEROUS = 15
    NORMAL = 0
    AGGRESSIVE = -5
    EXTREME = -10
    NUCLEAR = -20


class Preset:
    """The numbers behind a priority.

    ``dummymp.configure(priority=Preset("mine", nice=5, threshold=75))`` is a priority of one's own.

    Args:
        name: What `repr` and ``python -m dummymp`` call it.
        nice: How much nicer than the main program the workers are, 0 to 19.
        threshold: Somebody else's process counts when it uses more than so many percent of a CPU, 0 to 100;
            None never looks.
        window: Seconds over which CPU use is averaged. Longer is calmer, shorter reacts sooner.
        at_least: So many workers run however busy the machine is; None means as many as there are CPUs.
        min_free_memory: No further worker starts while less than this share of the memory is free, 0 up to 1.

    Raises:
        TypeError, ValueError: A number is impossible.
    """

    __slots__ = ("at_least", "min_free_memory", "name", "nice", "threshold", "window")

    name: str
    nice: int
    threshold: float | None
    window: float
    at_least: int | None
    min_free_memory: float

    def __init__(
        self,
        name: str,
        *,
        nice: int = 0,
        threshold: float | None = 30,
        window: float = 0.35,
        at_least: int | None = 1,
        min_free_memory: float = 0.1,
    ) -> None:
        _check_name(name)
        _check_nice(nice)
        _check_threshold(threshold)
        _check_window(window)
        _check_at_least(at_least)
        _check_memory(min_free_memory)
        values = (at_least, min_free_memory, name, nice, threshold, window)
        for slot, value in zip(Preset.__slots__, values):
            object.__setattr__(self, slot, value)

    __init__ = hinting("Preset", __init__)

    def _values(self) -> dict[str, Any]:
        names = ("nice", "threshold", "window", "at_least", "min_free_memory")
        return {name: getattr(self, name) for name in names}

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Preset never changes; make another: Preset({self.name!r}, {name}={value!r})")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Preset never changes: it keeps its {name}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Preset):
            return NotImplemented
        return self.name == other.name and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((self.name, *self._values().values()))

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name}={value!r}" for name, value in self._values().items())
        return f"Preset({self.name!r}, {numbers})"

    def __reduce__(self) -> tuple[Any, ...]:
        # The usual way would set the slots one by one, which __setattr__ refuses.
        return _make, (self.name, self._values())


def _make(name: str, values: dict[str, Any]) -> Preset:
    return Preset(name, **values)


def find_preset(value: Priority | Preset | str | int) -> Preset:
    """Give the preset that `value` stands for.

    Args:
        value: A `Priority`, its name in any case (also with the DUMMYMP_ of 0.5), its number, or a `Preset`.

    Raises:
        ValueError: No priority has this name or number.
        TypeError: It is none of these.
    """
    if isinstance(value, Preset):
        return value
    if isinstance(value, str):
        return _by_name(value)
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return PRESETS[Priority(value)]
        except ValueError:
            known = ", ".join(f"{priority.value} ({priority.name.lower()})" for priority in Priority)
            raise ValueError(f"no priority has number {int(value)}; there are {known}") from None
    raise TypeError(
        f"priority must be a Priority, its name, its number or a Preset, got {value!r}. Write priority='generous', say"
    )


def _by_name(text: str) -> Preset:
    wanted = text.strip().upper()
    if wanted.startswith("DUMMYMP_"):
        wanted = wanted[len("DUMMYMP_") :]
    if wanted in Priority.__members__:
        return PRESETS[Priority[wanted]]
    import difflib  # Costs milliseconds, and is only needed here.

    near = difflib.get_close_matches(wanted, list(Priority.__members__), n=1, cutoff=0.5)
    as_written = str.upper if text.isupper() else str.lower
    if near:
        raise ValueError(f"no priority is named {text!r}. Did you mean {as_written(near[0])!r}?")
    names = ", ".join(repr(as_written(priority.name)) for priority in Priority)
    raise ValueError(f"no priority is named {text!r}; there are {names}")


def _check_name(value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"the name of a Preset must be text, got {value!r}. Write Preset('mine', nice=5)")
    if not value:
        raise ValueError("the name of a Preset must not be empty. Write Preset('mine', nice=5)")


def _check_nice(value: Any) -> None:
    _check_int("nice", value)
    if not 0 <= value <= 19:
        raise ValueError(
            f"nice must be from 0 (as the main program) to 19 (the most considerate), got {value!r}; "
            "workers never get more of the CPU than the main program"
        )


def _check_threshold(value: Any) -> None:
    if value is None:
        return
    _check_number("threshold", value, " or None (never look)")
    if not 0 <= value <= 100:
        raise ValueError(f"threshold must be from 0 to 100 (percent of a CPU), got {value!r} (use None to never look)")


def _check_window(value: Any) -> None:
    _check_number("window", value)
    if not 0 < value < float("inf"):
        raise ValueError(f"window must be more than 0 seconds, got {value!r}. Write window=0.35, say")


def _check_at_least(value: Any) -> None:
    if value is None:
        return
    _check_int("at_least", value, " or None (as many as there are CPUs)")
    if value < 0:
        raise ValueError(
            f"at_least must be 0 or more, got {value!r} (0 waits while the machine is full; None is all CPUs)"
        )


def _check_memory(value: Any) -> None:
    _check_number("min_free_memory", value)
    if not 0 <= value < 1:
        raise ValueError(f"min_free_memory must be at least 0 and below 1, got {value!r} (a share: write 0.1 for 10 %)")


def _check_int(name: str, value: object, otherwise: str = "") -> None:
    # True is an int to Python, but never what somebody meant here.
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number{otherwise}, got {value!r}")


def _check_number(name: str, value: object, otherwise: str = "") -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number{otherwise}, got {value!r}")


# Last, because making them runs the checks above.
PRESETS: Mapping[Priority, Preset] = {
    Priority.GENEROUS: Preset("GENEROUS", nice=15, threshold=20, window=0.5, at_least=0, min_free_memory=0.2),
    Priority.NORMAL: Preset("NORMAL", nice=0, threshold=30, window=0.35, at_least=1, min_free_memory=0.1),
    Priority.AGGRESSIVE: Preset("AGGRESSIVE", nice=0, threshold=50, window=0.2, at_least=1, min_free_memory=0.05),
    Priority.EXTREME: Preset("EXTREME", nice=0, threshold=80, window=0.1, at_least=1, min_free_memory=0.02),
    Priority.NUCLEAR: Preset("NUCLEAR", nice=0, threshold=None, at_least=None, min_free_memory=0.0),
}

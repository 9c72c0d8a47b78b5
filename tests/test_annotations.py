"""Annotations that Python evaluates late (PEP 649, since 3.14): they travel as they are, and nobody evaluates them."""

from __future__ import annotations

import sys

import pytest
from conftest import Script

pytestmark = pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated at once")

# Classes and functions of a main script that name themselves, what comes later, and what never comes.
THINGS = """
import annotationlib, dataclasses, dummymp, threading, typing
dummymp.configure(priority="nuclear")

@dataclasses.dataclass
class Person:
    parent: Person | None = None
    name: str = "Ann"
    def meet(self, other: Person) -> Later:
        return self.parent
@dataclasses.dataclass(slots=True)
class Slotted:
    me: Slotted | None = None
    many: list[Slotted] = dataclasses.field(default_factory=list)
@dataclasses.dataclass
class Node:
    next: Never_defined
class Pair(typing.NamedTuple):
    first: int
    rest: Pair | None = None
class Keys(typing.TypedDict):
    key: Keys
class Works(typing.Protocol):
    def work(self) -> Works: ...
class Outer:
    Number = int
    class Inner: pass
    def method(self, number: Number, inner: Inner) -> Undefined: ...
def function(x: Result) -> Person:
    return x
class Result:
    pass
lock = threading.Lock()
def locked(x: lock.acquire, y: int) -> None: ...

def told(thing):
    "What the annotations of a thing are, in each format."
    found = []
    for each in (annotationlib.Format.VALUE, annotationlib.Format.FORWARDREF, annotationlib.Format.STRING):
        try:
            found.append({name: str(value).partition(", owner=")[0]
                          for name, value in annotationlib.get_annotations(thing, format=each).items()})
        except Exception as error:
            found.append(repr(error))
    return found
def back(thing):
    return thing
"""


def test_values_come_back(script: Script, start_method: str) -> None:
    """Objects of classes that name themselves, what comes later, or what never comes, are arguments and results."""
    source = """
    things = [Person(Person()), Slotted(Slotted()), Node(1), Pair(1, Pair(2)), function, Outer(), Result()]
    tasks = [dummymp.run(back, thing) for thing in things]
    for thing, task in zip(things, tasks):
        assert type(task.result()) is type(thing), thing
    assert [task.result() for task in tasks[:4]] == things[:4]
    classes = [Person, Slotted, Node, Pair, Keys, Works, Outer]
    assert list(dummymp.map(back, classes)) == classes
    assert dummymp.run(Person(name="Bo").meet, None).result() is None
    assert type(dummymp.run(function, Result()).result()) is Result
    assert dummymp.run(back, {"key": None}).result() == {"key": None}
    """
    done = script(THINGS + source.replace("\n    ", "\n"))
    assert (done.returncode, done.stderr) == (0, "")


def test_nobody_evaluates_them_and_they_are_the_same(script: Script, start_method: str) -> None:
    """In a task they are what they are in the script, in all three formats; in the script nothing was evaluated."""
    source = """
    watched = []
    class Watched:
        watched: watched.append("evaluated")
        def method(self, x: watched.append("evaluated")): return len(watched)
    def watching(x: watched.append("evaluated")): return len(watched)
    assert [dummymp.run(Watched().method, 1).result(), dummymp.run(watching, 1).result()] == [0, 0]
    dummymp.run(back, Watched()).result()
    assert watched == []

    things = [Person, Person.meet, Person.__init__, Slotted, Slotted.__init__, Node, Node.__init__, Pair, Keys,
              Works.work, Outer.method, function, told]
    there = [dummymp.run(told, thing) for thing in things]
    for thing, task in zip(things, there):
        assert task.result() == told(thing), (thing, task.result(), told(thing))
    """
    done = script(THINGS + source.replace("\n    ", "\n"))
    assert (done.returncode, done.stderr) == (0, "")


def test_mistakes_are_told_all_the_same(script: Script) -> None:
    """A call that does not fit, and an argument that cannot be sent, are told of functions with such annotations."""
    source = """
    for call in [lambda: dummymp.run(function), lambda: dummymp.run(function, 1, 2),
                 lambda: dummymp.run(function, lock), lambda: dummymp.configure(on_end=function)]:
        try:
            call()
        except (TypeError, dummymp.NotPicklable) as error:
            print(type(error).__name__, error)
    """
    done = script(THINGS + source.replace("\n    ", "\n"))
    assert (done.returncode, done.stderr) == (0, "")
    told = done.stdout.splitlines()
    assert ["function(x)" in line for line in told] == [True, True, False, True]
    assert "NotPicklable" in told[2] and "argument 'x' is a _thread.lock" in told[2]


def test_what_was_evaluated_stays_so(script: Script) -> None:
    """Annotations that the script has evaluated, and changed, are in a task as the script left them."""
    source = """
    class Changed:
        x: int
        def method(self, x: int): ...
    Changed.__annotations__["x"] = str
    Changed.method.__annotations__["x"] = str
    def assigned(x: int): ...
    assigned.__annotations__ = {"x": "anything"}
    gone = int
    def evaluated(x: gone): ...
    evaluated.__annotations__
    del gone
    things = [Changed, Changed.method, assigned]
    assert [dummymp.run(told, thing).result() for thing in things] == [told(thing) for thing in things]
    assert dummymp.run(lambda: evaluated.__annotations__).result() == {"x": int}
    """
    done = script(THINGS + source.replace("\n    ", "\n"))
    assert (done.returncode, done.stderr) == (0, "")


def test_what_cannot_travel_does_not_matter(script: Script) -> None:
    """A lock that only an annotation names keeps no call back, in a function, a class, or a field of a dataclass."""
    source = """
    @dataclasses.dataclass
    class Held:
        later: Never_defined[lock]
        inner = 1
    @dataclasses.dataclass
    class Holder:
        handle = None
        def method(self, x: handle.x) -> lock: return x
        later: Never_defined = None
    assert dummymp.run(locked, 1, 2).result() is None
    assert dummymp.run(back, Held(1)).result() == Held(1)
    assert dummymp.run(Holder().method, 3).result() == 3
    """
    done = script(THINGS + source.replace("\n    ", "\n"))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_text_form(script: Script) -> None:
    """With `from __future__ import annotations` they are text, here and there."""
    source = """
    class A:
        x: Nowhere
        def method(self, y: Nowhere) -> A: ...
    def function(z: Nowhere): ...
    things = [A, A.method, function]
    assert [dummymp.run(told, thing).result() for thing in things] == [told(thing) for thing in things]
    assert type(dummymp.run(back, A()).result()) is A
    """
    done = script("from __future__ import annotations\n" + THINGS + source.replace("\n    ", "\n"))
    assert (done.returncode, done.stderr) == (0, "")

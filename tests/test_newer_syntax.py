"""What newer Pythons have added to the language, in a main script whose tasks use it. Each runs where it compiles."""

from __future__ import annotations

import sys

import pytest
from conftest import Script


def since(*version: int) -> pytest.MarkDecorator:
    name = ".".join(map(str, version))
    return pytest.mark.skipif(sys.version_info < version, reason=f"new in Python {name}")


def well(script: Script, source: str) -> str:
    """Run a script that says nothing but what it prints; give that."""
    done = script(source)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# --- type parameters ---------------------------------------------------------------------------------------------

GENERIC = """
import dummymp, typing
dummymp.configure(priority="nuclear")
def back(thing): return thing
def told(thing):
    "What there is to know of the type parameters of a thing."
    found = []
    for each in thing.__type_params__:
        for what in ("__bound__", "__constraints__", "__default__"):
            try:
                value = str(getattr(each, what, None))
            except Exception as error:
                value = repr(error)
            found.append((type(each).__name__, each.__name__, each.__module__, what, value))
    return found
def function[T: (int, str), U: Nowhere, *Ts, **P](x: T, *rest: *Ts) -> U:
    return x
class Box[T, S: list[T]]:
    def put[K: T](self, value: T, key: K) -> S:
        return value
class Inherits[Q](Box[Q, list[Q]]): pass
class Linked[T: "Linked"]: pass
class Names:
    Other = int
    def method[K: Other](self, key: K) -> K: return key
"""


@since(3, 12)
def test_type_parameters(script: Script, start_method: str) -> None:
    """Functions and classes keep their type parameters, whose bounds nobody evaluates; objects come back."""
    well(
        script,
        GENERIC
        + """
things = [function, Box, Box.put, Inherits, Linked, Names.method]
tasks = [dummymp.run(told, thing) for thing in things]
for thing, task in zip(things, tasks):
    here = [each for each in told(thing) if each[0] != "ParamSpec"]
    assert [each for each in task.result() if each[0] != "ParamSpec"] == here, (thing, task.result(), here)
assert dummymp.run(function, 1).result() == 1 and dummymp.run(Box().put, 1, 2).result() == 1
parameters = [*function.__type_params__, *Box.__type_params__, *Names.method.__type_params__]
assert all(one is other for one, other in zip(dummymp.map(back, parameters), parameters))
assert [type(each) for each in dummymp.map(back, [Box(), Inherits()])] == [Box, Inherits]
T = Box.__type_params__[0]
assert dummymp.run(lambda each: each is Box.__type_params__[0] and each in Box.__parameters__, T).result()
assert dummymp.run(lambda: str(Box[int, list[int]])).result() == str(Box[int, list[int]])
def local():
    def inner[X: Nowhere](x: X): return x
    class Held[Y]:
        y: Y
    return inner, Held
inner, Held = local()
assert dummymp.run(inner, 5).result() == 5 and type(dummymp.run(back, Held()).result()) is Held
old = typing.TypeVar("old", bound=int, covariant=True)
assert dummymp.run(back, old).result() is old
assert dummymp.run(lambda: (old.__bound__, old.__covariant__, old.__module__)).result() == (int, True, "__main__")
""",
    )


@since(3, 13)
def test_defaults_of_type_parameters(script: Script) -> None:
    """Defaults of type parameters, which are evaluated late, too, are the same in a task."""
    well(
        script,
        GENERIC
        + """
def defaults[T = int, U: object = Nowhere, *Ts = *tuple[int, T], **P = [int]](): pass
assert [each for each in dummymp.run(told, defaults).result() if each[3] == "__default__"] == [
    each for each in told(defaults) if each[3] == "__default__"]
""",
    )


@since(3, 14)
def test_type_parameters_as_text(script: Script) -> None:
    """What is evaluated late can be had as it was written, in a task as in the script."""
    well(
        script,
        GENERIC
        + """
import annotationlib
type Either[A, B: Nowhere] = tuple[A, B] | Either[B, A]
def text(thing, what):
    return annotationlib.call_evaluate_function(getattr(thing, what), annotationlib.Format.STRING)
for thing, what in [(function.__type_params__[0], "evaluate_constraints"), (Either, "evaluate_value"),
                    (function.__type_params__[1], "evaluate_bound"), (Either.__type_params__[1], "evaluate_bound"),
                    (Names.method.__type_params__[0], "evaluate_bound")]:
    assert dummymp.run(text, thing, what).result() == text(thing, what), (thing, what)
""",
    )


@since(3, 12)
def test_type_aliases(script: Script, start_method: str) -> None:
    """A `type` statement holds in tasks: also one that names itself, or what is not there; and comes back as itself."""
    well(
        script,
        GENERIC
        + """
type Json = dict[str, Json] | list[Json] | str | int | None
type Either[A, B: Nowhere] = tuple[A, B] | Either[B, A]
type For_checkers[*Ts, **P] = Nowhere
class Holder:
    type Inside = list[int]
aliases = [Json, Either, For_checkers, Holder.Inside]
def seen(alias):
    try:
        value = str(alias.__value__)
    except NameError as error:
        value = repr(error)
    return alias.__name__, alias.__module__, value, str(alias.__type_params__)
assert [dummymp.run(seen, each).result() for each in aliases] == [seen(each) for each in aliases]
assert all(one is other for one, other in zip(dummymp.map(back, aliases), aliases))
def uses(x: Json) -> Either[int, str]:
    return str(Either[int, str]), Json.__value__ == dict[str, Json] | list[Json] | str | int | None
assert dummymp.run(uses, 1).result() == uses(1)
""",
    )


# --- statements --------------------------------------------------------------------------------------------------


@since(3, 11)
def test_exception_groups(script: Script) -> None:
    """`except*` works in tasks, and a group comes back as the group that it was."""
    source = """
    import dummymp
    class Own(ValueError): pass
    def caught():
        try:
            raise ExceptionGroup("many", [Own("a"), TypeError("b")])
        except* Own as group:
            found = [str(each) for each in group.exceptions]
        except* TypeError:
            found.append("type")
        return found
    def raises():
        raise ExceptionGroup("many", [Own("a"), ExceptionGroup("more", [TypeError("b")])])
    assert dummymp.run(caught).result() == ["a", "type"]
    try:
        dummymp.run(raises).result()
    except* Own as own:
        assert type(own.exceptions[0]) is Own
    except* TypeError as other:
        pass
    """
    done = script(source)
    assert done.returncode == 0, done.stderr
    assert "| Own: a" in done.stderr.replace("__main__.", "") and "| TypeError: b" in done.stderr


@since(3, 14)
def test_except_without_parentheses(script: Script) -> None:
    """`except A, B:` works in tasks."""
    source = """
    import dummymp
    def careful(x):
        try:
            return 1 / x
        except ZeroDivisionError, TypeError:
            return "none"
    print(dummymp.run(careful, 0).result(), dummymp.run(careful, "a").result(), dummymp.run(careful, 1).result())
    """
    assert well(script, source) == "none none 1.0\n"


@since(3, 14)
def test_template_strings(script: Script) -> None:
    """A t-string is an argument, a result, and what a task works with."""
    source = """
    import dummymp
    def shout(template):
        return "".join(each if isinstance(each, str) else str(each.value).upper() for each in template)
    def make(name): return t"Hello {name!r:>5}!"
    print(dummymp.run(shout, t"Hello {'ann'}!").result(), dummymp.run(make, "bo").result().interpolations[0].value)
    """
    assert well(script, source) == "Hello ANN! bo\n"


# --- names that are bound late -----------------------------------------------------------------------------------


@since(3, 15)
def test_sentinels(script: Script, start_method: str) -> None:
    """A sentinel is the same one in a task: as default, argument, global variable; and comes back as itself."""
    source = """
    import dummymp
    MISSING = sentinel("MISSING")
    OTHER = sentinel("OTHER", repr="<other>")
    def task(given, default=MISSING):
        return given is MISSING, default is MISSING, repr(OTHER), MISSING.__module__
    assert dummymp.run(task, MISSING).result() == (True, True, "<other>", "__main__")
    assert dummymp.run(lambda: [OTHER, {1: MISSING}]).result() == [OTHER, {1: MISSING}]
    assert list(dummymp.map(lambda each: each is MISSING, [MISSING, 1, OTHER])) == [True, False, False]
    """
    well(script, source)


@since(3, 15)
def test_lazy_imports_that_are_set_while_the_script_runs(script: Script, start_method: str) -> None:
    done = script(
        """
        import dummymp, sys
        def mode(): return sys.get_lazy_imports()
        first = dummymp.run(mode).result()
        sys.set_lazy_imports("all")
        print(first, dummymp.run(mode).result())
        """
    )
    assert (done.stdout, done.stderr) == ("normal all\n", "")


@since(3, 15)
def test_lazy_imports(script: Script, start_method: str) -> None:
    """What a script imports lazily, a task imports when it needs it; the script itself does not for that."""
    source = """
    import sys, dummymp
    dummymp.configure(priority="nuclear")
    lazy import json
    lazy import xml.dom.minidom
    lazy import wsgiref.headers as headers
    lazy from fractions import Fraction as F
    lazy import missing_one
    lazy from missing.two import thing
    names = ("json", "xml.dom.minidom", "wsgiref.headers", "fractions")
    loaded = lambda: [name for name in names if name in sys.modules]
    def uses_json(): return json.dumps([1])
    def uses_package(): return xml.dom.minidom.parseString("<a/>").documentElement.tagName
    def uses_other_name(): return headers.Headers.__name__
    def uses_from(): return str(F(1, 2))
    class Reader:
        raw = globals()["json"]
        def read(self, text): return json.loads(text), str(F(3))
    def default(x, kept=globals()["json"]): return x
    def uses_missing(): return missing_one.name
    def uses_missing_thing(): return thing()
    tasks = [dummymp.run(each) for each in (uses_json, uses_package, uses_other_name, uses_from)]
    tasks += [dummymp.run(Reader().read, "[1]"), dummymp.run(default, 1), dummymp.run(lambda each: 2, [globals()["F"]])]
    missing = [dummymp.run(uses_missing), dummymp.run(uses_missing_thing)]
    dummymp.process_until_done()
    assert loaded() == [], loaded()
    print([task.result() for task in tasks])
    assert loaded() == [], loaded()
    for task, name in zip(missing, ("missing_one", "missing")):
        assert type(task.exception()) is ModuleNotFoundError and task.exception().name == name
    """
    done = script(source)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['[1]', 'a', 'Headers', '1/2', ([1], '3'), 1, 2]\n"
    assert 'File "<lazy from missing.two import thing>", line 1' in done.stderr


@since(3, 14)
def test_an_environment_that_a_task_has_loaded_anew(script: Script) -> None:
    """`os.reload_environ()` in one item of a map is not seen by the next."""
    source = """
    import os, dummymp
    os.environ["KEPT"] = "here"
    def item(n):
        if n % 2:
            os.putenv("KEPT", "changed")
            os.reload_environ()
        return os.environ.get("KEPT")
    with dummymp.configure(max_processes=1, priority="nuclear"):
        print(list(dummymp.map(item, range(1000))) == ["here", "changed"] * 500)
    """
    assert well(script, source) == "True\n"

"""Scripts without a guard, in every shell and in odd surroundings."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Callable

import psutil
import pytest

import dummymp

Script = Callable[..., "subprocess.CompletedProcess[str]"]

TIMEOUT = 60  # seconds; reached only in a deadlock
HOME = os.path.dirname(os.path.dirname(os.path.abspath(dummymp.__file__)))

START = 'import dummymp\ndummymp.configure(priority="NUCLEAR")\n'

# What a beginner's file may hold; nothing of it can be imported by anybody.
NO_GUARD = """\
import collections
import dataclasses
import enum

import dummymp

print("once")
dummymp.configure(priority="NUCLEAR")
FACTOR = 3
Pair = collections.namedtuple("Pair", "left right")

class Color(enum.Enum):
    RED = 1
    BLUE = 2

@dataclasses.dataclass
class Point:
    x: int
    y: int
    def times(self, n):
        return Point(self.x * n, self.y * n)

class Odd(Exception):
    pass

def helper(n):
    return n * FACTOR

def work(n, color, pair, point):
    if n == 3:
        raise Odd(n, color)
    print("task", n)
    return helper(n), color, Pair(pair.right, pair.left), point.times(n), Point

def outer(n):
    def inner():
        return helper(n) + 1
    return inner

for n in range(4):
    dummymp.run(work, n, Color.BLUE, Pair(1, 2), Point(n, 1))
dummymp.run(lambda a, b: a + b, 20, b=3)
dummymp.run(outer(5))
dummymp.process_until_done()

returns, errors = dummymp.get_returns(), dummymp.get_errors()
number, color, pair, point, cls = returns[2]
print(number, color is Color.BLUE, pair == Pair(2, 1), point == Point(4, 2), returns[4], returns[5])
print(type(pair) is Pair, type(point) is Point, cls is Point, type(errors[3]) is Odd, errors[3].args == (3, Color.BLUE))
print(list(returns), list(errors))
"""

EXPECTED = sorted(
    ["once", "task 0", "task 1", "task 2", "6 True True True 23 16", "True True True True True", "[0, 1, 2, 4, 5] [3]"]
)


def check_no_guard(done: subprocess.CompletedProcess[str]) -> None:
    """Expect what NO_GUARD prints, and its one failure told."""
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == EXPECTED, done.stderr
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert done.stderr.count("task 3, ") == 1
    assert done.stderr.splitlines()[-1].startswith("1 of 6 tasks failed")


@pytest.mark.usefixtures("start_method")
def test_a_file_without_guard(script: Script) -> None:
    """A plain file runs once, its tasks in parallel, and objects of its classes come back as what they were."""
    check_no_guard(script(NO_GUARD))


@pytest.mark.parametrize(
    "how",
    ["command", "stdin", "module", "optimised", "isolated", "warnings are errors", "safe path", "no site", "exec"],
)
def test_without_guard_in_every_way(script: Script, tmp_path: Path, how: str) -> None:
    """The same source, started in every other way that Python has."""
    inserted = f"import sys; sys.path[:0] = {[HOME, *filter(None, sys.path)]!r}\n" + NO_GUARD
    options: dict[str, Any] = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": TIMEOUT}
    if how == "command":
        done = subprocess.run([sys.executable, "-c", NO_GUARD], stdin=subprocess.DEVNULL, **options)
    elif how == "stdin":
        done = subprocess.run([sys.executable], input=NO_GUARD, **options)
    elif how == "module":
        (tmp_path / "mine.py").write_text(NO_GUARD)
        done = subprocess.run([sys.executable, "-m", "mine"], stdin=subprocess.DEVNULL, **options)
    elif how == "exec":
        (tmp_path / "mine.txt").write_text(NO_GUARD)
        done = script('exec(compile(open("mine.txt").read(), "mine.txt", "exec"), {"__name__": "__main__"})')
    elif how == "safe path":
        done = script(NO_GUARD, env={**os.environ, "PYTHONSAFEPATH": "1"})
    else:
        arguments = {
            "optimised": ["-OO"],
            "isolated": ["-I"],
            "no site": ["-S", "-E"],
            "warnings are errors": ["-W", "error", "-b", "-X", "dev"],
        }[how]
        done = script(inserted, *arguments)
    check_no_guard(done)


def test_the_interactive_shell(tmp_path: Path) -> None:
    """Functions and classes that are typed into a REPL work, also typed anew; an error stops nothing."""
    typed = """\
import dummymp
dummymp.configure(priority="NUCLEAR")
class Point:
    def __init__(self, x):
        self.x = x

def double(point):
    print("doubling", point.x)
    return Point(2 * point.x)

_ = dummymp.run(double, Point(4))
dummymp.process_until_done()
type(dummymp.get_returns()[0]) is Point, dummymp.get_returns()[0].x
def double(point):
    return "anew", point.x

_ = dummymp.run(double, Point(5))
1 / 0
dummymp.run(double, Point(6)).result()
dummymp.results()[1]
dummymp.run(lambda: __name__).result()
"""
    done = subprocess.run(
        [sys.executable, "-q", "-i"], input=typed, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if not line.startswith("<dummymp")]
    assert lines == ["doubling 4", "True", "(True, 8)", "('anew', 6)", "('anew', 5)", "'__main__'"]
    assert done.stderr.count("Traceback") == 1
    assert "ZeroDivisionError" in done.stderr


DOCTEST = '''
import dummymp
dummymp.configure(priority="NUCLEAR")

class Thing:
    """Is a thing."""

def square(n):
    """Square a number.

    >>> for n in range(3):
    ...     _ = dummymp.run(square, n)
    >>> dummymp.process_until_done()
    True
    >>> dummymp.get_returns()
    {0: 0, 1: 1, 2: 4}
    >>> def nested(n):
    ...     print("in a task")
    ...     return square(n) + 1
    >>> dummymp.run(nested, 3).result()
    in a task
    10
    >>> type(dummymp.run(Thing).result()) is Thing
    True
    >>> dummymp.reset()
    """
    return n * n

if __name__ == "__main__":
    import doctest
    print(doctest.testmod())
'''


def test_doctest(script: Script) -> None:
    """Functions and classes of a doctest run, and their prints are part of its output."""
    done = script(DOCTEST)
    assert done.stdout == "TestResults(failed=0, attempted=7)\n", done.stderr


def test_doctest_of_a_module_that_cannot_be_imported(tmp_path: Path) -> None:
    """`python -m doctest folder/module.py` loads the module, but leaves no path by which a worker could find it."""
    folder = tmp_path / "deeper"
    folder.mkdir()
    (folder / "documented.py").write_text(DOCTEST)
    done = subprocess.run(
        [sys.executable, "-m", "doctest", "deeper/documented.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        stdin=subprocess.DEVNULL,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


# --- names -------------------------------------------------------------------------------------------------------


def test_neighbours_named_like_standard_modules(script: Script, tmp_path: Path) -> None:
    """Files of the user's that hide standard modules, next to the script, are found by the script and its tasks."""
    for name in ("random", "secrets", "test", "worker", "code"):
        (tmp_path / f"{name}.py").write_text(f"def mine():\n    return {name!r}\n")
    done = script(
        "import random, secrets, test, worker, code\n"
        + START
        + "for module in (random, secrets, test, worker, code):\n    dummymp.run(module.mine)\n"
        + "dummymp.run(lambda: random.mine())\ndummymp.configure(seed=3)\ndummymp.run(lambda: random.mine())\n"
        + "print(*dummymp.results())"
    )
    assert (done.stdout, done.stderr) == ("random secrets test worker code random random\n", "")


@pytest.mark.parametrize("name", ["signal", "socket", "logging", "token", "dummymp"])
def test_a_neighbour_that_hides_a_module_that_python_needs(script: Script, tmp_path: Path, name: str) -> None:
    """Where a file hides a module without which nothing works, the script works all the same, or the file is named."""
    (tmp_path / f"{name}.py").write_text("print('hello')\n")
    done = script(START + "print(dummymp.run(pow, 2, 5).result())")
    if done.returncode == 0:
        assert done.stdout.splitlines()[-1] == "32"
    else:
        # Python of 3.13 and later says it itself: "consider renaming ..."; the traceback shows the path, too.
        assert str(tmp_path / name) in done.stderr or name in done.stderr.splitlines()[-1]
    assert done.stdout.count("hello") <= 1  # No worker imports it.


def test_classes_of_the_script_stay_what_they_are(script: Script, start_method: str) -> None:
    """Sending and receiving objects changes nothing of the user's classes; in a task they can be plainly pickled."""
    done = script(
        START
        + textwrap.dedent(
            """
            import copy, enum, pickle
            class Base:
                registry = []
                def __init_subclass__(cls, **kwargs):
                    super().__init_subclass__(**kwargs)
                    Base.registry.append(cls.__name__)
            class Model(Base):
                count = 0
                def __init__(self, weight):
                    self.weight = weight
                def __eq__(self, other):
                    return type(self) is type(other) and self.weight == other.weight
                def __hash__(self):
                    return hash(self.weight)
            class Color(enum.IntFlag):
                RED = 1
                BLUE = 2
            class Outer:
                class Inner:
                    value = 5
            class Problem(Exception):
                def __init__(self, model):
                    super().__init__(model)
                    self.model = model
            def work(model, inner):
                Model.count += 1
                copies = [pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
                if model.weight == 2:
                    raise Problem(model)
                return Model(model.weight + 1), copies, {Color.RED | Color.BLUE: [model]}, Model, inner
            def members(cls):
                # __slotnames__ is of pickle itself.
                return {name: value for name, value in vars(cls).items() if name != "__slotnames__"}
            before = members(Model), list(Base.registry), members(Color)
            for weight in range(4):
                dummymp.run(work, Model(weight), Outer.Inner())
            try:
                dummymp.results()
            except Problem as problem:
                print("caught", problem.model == Model(2), type(problem) is Problem)
            model, copies, table, cls, inner = dummymp.get_returns()[3]
            print(model == Model(4), copies == [Model(3), Model(3)], table == {Color(3): [Model(3)]}, cls is Model)
            print(type(inner) is Outer.Inner, type(next(iter(table))) is Color)
            print(before == (members(Model), Base.registry, members(Color)))
            """
        )
    )
    assert done.stdout == "caught True True\nTrue True True True\nTrue True\nTrue\n", done.stderr


EVERY_CLASS = """
import datetime, enum, functools, typing, weakref
class Pair(typing.NamedTuple):
    one: int
    two: str = "x"
class Planet(enum.Enum):
    EARTH = (2, 3)
    MARS = (5, 7)
    TERRA = (2, 3)
    def __init__(self, mass, radius):
        self.mass, self.radius = mass, radius
class Size(str, enum.Enum):
    def __new__(cls, value, centimetres):
        size = str.__new__(cls, value)
        size._value_ = value
        size.centimetres = centimetres
        return size
    SMALL = ("s", 10)
class Level(int, enum.Enum):
    def __new__(cls, rank, title):
        level = int.__new__(cls, rank)
        level._value_ = title
        return level
    LOW = (1, "low")
    HIGH = (2, "high")
class May(enum.Flag):
    READ = 1
    WRITE = 2
    ALL = 3
class Liste(enum.Enum):
    ONE = [1]
class Day(datetime.date, enum.Enum):
    FIRST = (2020, 1, 1)
class Circle:
    def __init__(self, radius):
        self.radius = radius
    @functools.cached_property
    def area(self):
        return 3 * self.radius ** 2
    @functools.singledispatchmethod
    def grow(self, by):
        return "what?"
    @grow.register
    def _(self, by: int):
        return self.radius + by
@functools.singledispatch
def kind(value):
    return "thing"
@kind.register
def _(value: int):
    return "number"
@kind.register(list)
def _(value):
    return [kind(each) for each in value]
names = weakref.WeakValueDictionary()
circle = names["circle"] = Circle(2)
same = lambda value: value
def show(func, *args):
    print(dummymp.run(func, *args).result())

kind(1.5)
show(Pair, 1)
show(lambda: Pair(3)._replace(two="y").two)
show(lambda: (Planet.MARS.radius, Planet.TERRA.mass, Planet["TERRA"] is Planet.EARTH, Planet((5, 7)).name))
show(lambda: (Size.SMALL.centimetres, Size("s").name, Size.SMALL.upper()))
show(lambda: (Level.LOW.value, Level("high") + 0, Level.HIGH > Level.LOW))
show(lambda: (May(3).name, May["ALL"].value, May.ALL is May.READ | May.WRITE, Liste([1]).name))
show(lambda: (Day.FIRST.year, Day(datetime.date(2020, 1, 1)).name))
members = [Day.FIRST, Planet.EARTH, Size.SMALL, Level.HIGH, May.ALL, Liste.ONE]
print(all(back is member for back, member in zip(dummymp.run(same, members).result(), members)))
show(lambda: circle.area)
show(circle.grow, 3)
show(kind, [1, "a", [2.5]])
show(lambda: (names["circle"] is circle, len(names)))
"""


def test_classes_and_functions_of_every_make(script: Script, start_method: str) -> None:
    """Named tuples, enums with a story of their own, cached properties, single dispatch: all of them travel."""
    done = script("import dummymp\n" + EVERY_CLASS)
    assert done.stdout.splitlines() == [
        "Pair(one=1, two='x')",
        "y",
        "(7, 2, True, 'MARS')",
        "(10, 'SMALL', 'S')",
        "('low', 2, True)",
        "('ALL', 3, True, 'ONE')",
        "(2020, 'FIRST')",
        "True",
        "12",
        "5",
        "['number', 'thing', ['thing']]",
        "(True, 1)",
    ], done.stderr


def test_what_type_checkers_want_to_see(script: Script) -> None:
    """A script may have types of its own making: NewType, ParamSpec and the like know only their names."""
    done = script(
        """
        import dummymp, sys, typing
        UserId = typing.NewType("UserId", int)
        def ask(user: UserId) -> typing.List[UserId]:
            return [UserId(user + 1)]
        print(dummymp.run(ask, 3).result())
        if sys.version_info >= (3, 10):
            P = typing.ParamSpec("P")
            class Call(typing.Generic[P]):
                def __init__(self, func: typing.Callable[P, int]):
                    self.func = func
            print(dummymp.run(lambda call: call.func(-2), Call(abs)).result())
        else:
            print(2)
        if sys.version_info >= (3, 12):
            T = typing.TypeVar("T")
            Many = typing.TypeAliasType("Many", list[T], type_params=(T,))
            Ts = typing.TypeVarTuple("Ts")
            print(dummymp.run(lambda: (Many[int].__origin__ is Many, Many.__value__.__origin__, Ts.__name__)).result())
        else:
            print((True, list, "Ts"))
        """
    )
    assert done.stdout.splitlines() == ["[4]", "2", "(True, <class 'list'>, 'Ts')"], done.stderr


def test_functions_and_classes_defined_anew(script: Script) -> None:
    """Each call uses what its names meant when it was queued; objects come back as the class of that moment."""
    done = script(
        START
        + textwrap.dedent(
            """
            dummymp.configure(max_processes=1)
            class Thing:
                version = 1
            def make():
                return Thing()
            def work():
                return "one", helper()
            def helper():
                return 1
            First = Thing
            dummymp.run(work)
            dummymp.run(make)
            dummymp.process_until_done()
            def helper():
                return 2
            dummymp.run(work)
            class Thing:
                version = 2
            dummymp.run(make)
            def work():
                return "two", helper()
            dummymp.run(work)
            work.__defaults__ = ()
            helper = lambda: 3
            dummymp.run(work)
            *results, = dummymp.results()
            print(results[0], results[2], results[4], results[5])
            print(type(results[1]) is First, type(results[3]) is Thing, results[1].version, results[3].version)
            """
        )
    )
    assert done.stderr == ""
    assert done.stdout == "('one', 1) ('one', 2) ('two', 2) ('two', 3)\nTrue True 1 2\n"


# --- what a script takes along -----------------------------------------------------------------------------------


def test_modules_next_to_the_script(script: Script, tmp_path: Path) -> None:
    """Modules beside the script and in folders added to sys.path are found by tasks, whatever the working directory."""
    library = tmp_path / "library"
    library.mkdir()
    (tmp_path / "beside.py").write_text("class Beside:\n    pass\ndef make():\n    return Beside()\n")
    (library / "added.py").write_text("def triple(n):\n    return 3 * n\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = script(
        START
        + textwrap.dedent(
            """
            import os, sys
            import beside
            def late():
                import added
                return added.triple(4)
            print(type(dummymp.run(beside.make).result()) is beside.Beside)
            sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "library"))
            print(dummymp.run(late).result())
            import added
            print(dummymp.run(added.triple, 5).result())
            """
        ),
        cwd=elsewhere,
    )
    assert (done.stdout, done.stderr) == ("True\n12\n15\n", "")


def test_a_module_that_cannot_be_imported(script: Script, tmp_path: Path) -> None:
    """Functions and classes of a module that was loaded from a path, as plug-ins are, work, too."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "plug.py").write_text(
        "class Point:\n    pass\ndef helper(n):\n    return n + 1\ndef work(n):\n    return helper(n), Point()\n"
    )
    done = script(
        START
        + textwrap.dedent(
            """
            import importlib.util, sys
            spec = importlib.util.spec_from_file_location("plug", "plugins/plug.py")
            plug = importlib.util.module_from_spec(spec)
            sys.modules["plug"] = plug
            spec.loader.exec_module(plug)
            number, point = dummymp.run(plug.work, 1).result()
            print(number, type(point) is plug.Point)
            """
        )
    )
    assert (done.stdout, done.stderr) == ("2 True\n", "")


def test_arguments_path_filters_and_levels(script: Script, start_method: str) -> None:
    """sys.argv, sys.path, warnings filters and log levels of the script hold in its tasks, also when they change."""
    done = script(
        START
        + textwrap.dedent(
            """
            import json, logging, sys, warnings
            def look():
                try:
                    warnings.warn("careful", UserWarning)
                    warned = "passed"
                except UserWarning:
                    warned = "raised"
                level = logging.getLogger("mine").getEffectiveLevel()
                return sys.argv[1:], sys.path == expected, warned, level
            def ask():
                global expected
                expected = list(sys.path)
                return dummymp.run(look).result()
            sys.argv.append("one")
            warnings.simplefilter("ignore")
            found = [ask()]
            sys.argv = ["script.py", "two"]
            sys.path.insert(0, "/somewhere/else")
            warnings.simplefilter("error")
            logging.getLogger("mine").setLevel("INFO")
            found.append(ask())
            warnings.resetwarnings()
            warnings.filterwarnings("ignore", message="care.*")
            logging.getLogger("mine").setLevel(logging.NOTSET)
            logging.root.setLevel("ERROR")
            found.append(ask())
            print(json.dumps(found))
            """
        )
    )
    assert done.stderr == ""
    assert json.loads(done.stdout) == [
        [["one"], True, "passed", 30],
        [["two"], True, "raised", 20],
        [["two"], True, "passed", 40],
    ]


def test_hash_seed(script: Script) -> None:
    """PYTHONHASHSEED of the script holds in workers, so that sets have one order everywhere."""
    source = START + "print(dummymp.run(hash, 'apple').result() == hash('apple'))"
    done = script(source, env={**os.environ, "PYTHONHASHSEED": "123"})
    assert (done.stdout, done.stderr) == ("True\n", "")


# --- odd surroundings --------------------------------------------------------------------------------------------

SQUARES = """
def square(n):
    print("task", n)
    return n * n
for n in range(3):
    dummymp.run(square, n)
"""


@pytest.mark.usefixtures("start_method")
def test_a_working_directory_that_is_gone(script: Script) -> None:
    """A script whose directory was deleted under it goes on."""
    done = script(
        START
        + "import os\nos.mkdir('gone')\nos.chdir('gone')\nos.rmdir('../gone')\n"
        + SQUARES
        + "print(dummymp.results())"
    )
    assert sorted(done.stdout.splitlines()) == ["[0, 1, 4]", "task 0", "task 1", "task 2"]
    assert done.stderr == ""


def test_a_directory_that_goes_before_the_task_runs(script: Script) -> None:
    """The directory of the call is gone when its task starts: it runs all the same, and a line on stderr says where."""
    done = script(
        START
        + "import os\nos.mkdir('gone')\nos.chdir('gone')\ndummymp.run(pow, 2, 5)\nos.chdir('..')\nos.rmdir('gone')\n"
        + "print(dummymp.results())"
    )
    assert done.stdout == "[32]\n", done.stderr
    assert "gone" in done.stderr
    assert "Traceback" not in done.stderr


def test_nowhere_to_write(script: Script, tmp_path: Path) -> None:
    """Neither the working directory nor a temporary folder need be writable; a strict umask does no harm either."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    done = script(
        START + "import os\nos.umask(0o777)\n" + SQUARES + "print(dummymp.results())",
        cwd=closed,
        env={**os.environ, "TMPDIR": "/nowhere", "HOME": "/nowhere"},
    )
    assert "[0, 1, 4]\n" in done.stdout
    assert done.stderr == ""
    assert os.listdir(closed) == []


@pytest.mark.skipif(not shutil.which("sh"), reason="needs a shell")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(tmp_path: Path, closed: str) -> None:
    """Standard streams that are closed from the beginning, all or some, change nothing in the results."""
    path = tmp_path / "script.py"
    path.write_text(
        START + SQUARES + "results = dummymp.results()\nopen('result', 'w').write(str(results))\n"
        "import os\nassert dummymp.run(os.system, 'echo program').result() == 0\n"
    )
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {closed}', sys.executable, str(path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "result").read_text() == "[0, 1, 4]"
    expected = [] if " >&-" in f" {closed}" else ["program", "task 0", "task 1", "task 2"]
    assert sorted(done.stdout.splitlines()) == expected
    assert done.stderr == ""


def test_streams_replaced_by_odd_objects(script: Script) -> None:
    """sys.stdout may be None, or an object that can do nothing but write; prints of tasks go where it says."""
    done = script(
        START
        + SQUARES
        + textwrap.dedent(
            """
            import sys
            class Writer:
                def __init__(self):
                    self.text = ""
                def write(self, text):
                    self.text += text
            real, sys.stdout, sys.stderr, sys.stdin = sys.stdout, None, None, None
            results = dummymp.results()
            sys.stdout = sys.stderr = Writer()
            dummymp.run(square, 7)
            dummymp.run(print, "plain", file=None)
            dummymp.process_until_done()
            mine, sys.stdout, sys.stderr = sys.stdout, real, sys.__stderr__
            print(results, repr(mine.text))
            """
        )
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout in (
        "[0, 1, 4] 'task 7\\nplain\\n'\n",
        "[0, 1, 4] 'plain\\ntask 7\\n'\n",
    )


@pytest.mark.skipif(not shutil.which("head"), reason="needs head")
def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    """In `script | head -1` the script works on; only the user's own print may complain, as it always does."""
    path = tmp_path / "script.py"
    path.write_text(
        START
        + "def talk(n):\n    for _ in range(3000):\n        print('line', n)\n    return n\n"
        + "for n in range(4):\n    dummymp.run(talk, n)\n"
        + "results = dummymp.results()\nopen('result', 'w').write(str(results))\n"
    )
    done = subprocess.run(
        ["sh", "-c", '"$0" "$1" | head -1', sys.executable, str(path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert done.stdout.startswith("line ")
    assert done.stdout.count("\n") == 1
    assert (tmp_path / "result").read_text() == "[0, 1, 2, 3]"
    assert "Traceback" not in done.stderr
    assert "dummymp" not in done.stderr


def test_text_that_is_not_ascii(script: Script, tmp_path: Path) -> None:
    """Any text may be printed, logged, raised and be part of names; a stream that cannot show it gets it escaped."""
    folder = tmp_path / "größe 漢字"
    folder.mkdir()
    source = START + textwrap.dedent(
        r"""
        import logging
        logging.basicConfig(level="INFO", format="%(message)s")
        dummymp.configure(log_prefix="")
        class Größe(Exception):
            pass
        def grüße(name):
            print("Grüße", name, "\udcff \x00 \N{SNOWMAN}")
            logging.info("geloggt: %s", name)
            raise Größe(name)
        dummymp.run(grüße, "Jörg 漢字")
        dummymp.process_until_done()
        print(type(dummymp.get_errors()[0]) is Größe, dummymp.get_errors()[0].args == ("Jörg 漢字",))
        """
    )
    shown = script(source, cwd=folder, name="größe.py", env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == "Grüße Jörg 漢字 \\udcff \x00 \N{SNOWMAN}\nTrue True\n"
    assert "geloggt: Jörg 漢字\n" in shown.stderr
    assert "Größe: Jörg 漢字" in shown.stderr
    plain = script(source, cwd=folder, name="größe.py", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout == "Gr\\xfc\\xdfe J\\xf6rg \\u6f22\\u5b57 \\udcff \x00 \\u2603\nTrue True\n"
    assert "geloggt: J\\xf6rg" in plain.stderr
    old = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    poor = script(source, cwd=folder, name="script.py", env=old)
    assert poor.stdout.splitlines()[-1] == "True True", poor.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there is no server")
@pytest.mark.parametrize(
    "first",
    [
        "pass",
        "dummymp.available_cpus()",
        "dummymp.TaskQueue().run(abs, -1)",
        "next(dummymp.map(abs, [-1]))",
        "dummymp.run(print, threading.Lock())",
    ],
)
def test_one_server_however_a_script_begins(script: Script, first: str) -> None:
    """A program has one server, whatever it asks for first, also if that goes wrong; it is gone with the program."""
    source = START + textwrap.dedent(
        f"""
        import psutil, threading
        try:
            {first}
        except dummymp.NotPicklable:
            print("not picklable")
        dummymp.run(abs, -1)
        dummymp.process_until_done()
        print([child.pid for child in psutil.Process().children()])
        """
    )
    done = script(source)
    (server,) = json.loads(done.stdout.splitlines()[-1])
    assert not psutil.pid_exists(server)
    assert ("not picklable" in done.stdout) == ("Lock" in first)


def test_python_without_ctypes(script: Script, tmp_path: Path) -> None:
    """A Python that was built without libffi has no ctypes, and works all the same; what tasks started is ended."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import sys; sys.modules['_ctypes'] = None\n")
    source = START + textwrap.dedent(
        """
        import os, subprocess
        def leave():
            print(subprocess.Popen(["sleep", "1000"]).pid, flush=True)
            os._exit(3)
        dummymp.run(leave)
        dummymp.run(abs, -1)
        dummymp.process_until_done()
        print(list(dummymp.get_returns().values()))
        """
    )
    done = script(source, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path])})
    assert done.stdout.splitlines()[1:] == ["[1]"], done.stderr
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(done.stdout.splitlines()[0])).wait(TIMEOUT)


def test_warnings_as_errors_where_a_sitecustomize_has_a_thread(script: Script, tmp_path: Path) -> None:
    """One server starts all workers: the warning of os.fork() about the thread, an error then, would end it (3.15)."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    source = START + textwrap.dedent(
        """
        import os, warnings
        dummymp.configure(tasks_per_worker=1)
        def work():
            try:
                warnings.warn("careful")
            except UserWarning:
                return os.getppid()
        servers = set(dummymp.map(lambda n: work(), range(4)))
        print(len(servers), None in servers, servers == set(dummymp.map(lambda n: work(), [1])))
        """
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path])}
    done = script(source, "-W", "error", env=env)
    assert (done.stdout, done.stderr) == ("1 False True\n", "")


def test_no_warning_is_ours(script: Script, start_method: str) -> None:
    """Where every warning is an error, that of a file without an encoding, too, all goes on as elsewhere."""
    source = """
        import dummymp, logging, os, time
        for nice in 0, 5:
            preset = dummymp.Preset("mine", nice=nice, threshold=None, at_least=None, min_free_memory=0)
            dummymp.configure(priority=preset, timeout=60, max_processes=2, seed=nice, threads_per_task=1)
            for n in range(3):
                dummymp.run(os.nice, 0)
            dummymp.run(logging.getLogger().error, "logged")
            dummymp.run(len, "a large one" * 300_000)
            dummymp.run(os._exit, 3)
            dummymp.kill(dummymp.run(time.sleep, 600))
            dummymp.process_until_done(progress=PROGRESS)
            assert [type(error).__name__ for error in dummymp.get_errors().values()] == ["WorkerDied", "TaskKilled"]
            assert list(dummymp.map(abs, range(-999, 0), progress=PROGRESS)) == list(range(999, 0, -1))
            assert dummymp.available_cpus() >= 0 and dummymp.get_stats()["failed"] == 2
            print(*list(dummymp.get_returns().values())[:3], *list(dummymp.get_returns().values())[4:])
            dummymp.reset()
    """.replace("PROGRESS", str(importlib.util.find_spec("tqdm") is not None))
    done = script(source, "-W", "error", "-X", "dev", "-X", "warn_default_encoding", "-bb")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0 0 0 3300000\n5 5 5 3300000\n", done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not on Windows")
def test_fork_while_the_server_is_on_its_way(script: Script) -> None:
    """A copy of the program leaves the server that was just started to the program, and starts one of its own."""
    done = script(
        START + """if True:
        import os, psutil, sys
        from dummymp import boot

        before = len(os.listdir("/dev/fd"))
        boot.start_early()
        copy = os.fork()
        if not copy:
            print(len(os.listdir("/dev/fd")) - before)
        else:
            os.waitpid(copy, 0)
        dummymp.run(abs, -1)
        print(dummymp.results(), len(psutil.Process().children()))
        """
    )
    assert done.stdout.splitlines() == ["0", "[1] 1", "[1] 1"], done.stderr


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs files in memory")
def test_talkative_interpreter(script: Script) -> None:
    """`python -vv` says more while a server starts than a pipe has room for, and nobody reads it then."""
    done = script(START + "dummymp.run(abs, -1); print(dummymp.results())", "-vv")
    assert done.stdout == "[1]\n"


def test_a_module_that_was_loaded_anew(script: Script, tmp_path: Path) -> None:
    """After importlib.reload tasks see what the module is now; workers that knew it as it was get no more tasks."""
    (tmp_path / "helpers.py").write_text("def double(n): return 2 * n\n")
    done = script(
        """
        import dummymp, importlib, os, sys
        sys.dont_write_bytecode = True
        import helpers
        def work(n):
            return helpers.double(n), os.getpid()
        first, pid = dummymp.run(work, 1).result()
        print(first, dummymp.run(work, 2).result() == (4, pid))
        with open("helpers.py", "w") as file:
            file.write("def double(n): return 'twice %d' % n")
        importlib.reload(helpers)
        print(dummymp.run(work, 3).result()[0], dummymp.run(helpers.double, 4).result())
        with open("helpers.py", "w") as file:
            file.write("def double(n): return None  # another size")
        del sys.modules["helpers"]
        import helpers
        print(list(dummymp.map(work, [5]))[0][0])
        """
    )
    assert done.stdout.splitlines() == ["2 True", "twice 3 twice 4", "None"], done.stderr


def test_a_module_that_is_loaded_anew_while_workers_are_busy(script: Script, tmp_path: Path) -> None:
    """Workers that knew it as it was are not sent more tasks ahead, either."""
    (tmp_path / "helpers.py").write_text("OLD = True\n")
    done = script(
        """
        import dummymp, importlib, sys, time
        sys.dont_write_bytecode = True
        import helpers
        def work(n):
            end = time.perf_counter() + 2e-4
            while time.perf_counter() < end:
                pass
            return helpers.OLD
        dummymp.configure(max_processes=2, priority="NUCLEAR")
        for n in range(50):
            dummymp.run(work, n)
        dummymp.process_until_done()
        for n in range(1000):
            dummymp.run(work, n)
        dummymp.process_until_done(timeout=0.02)
        with open("helpers.py", "w") as file:
            file.write("OLD = False  # another size")
        importlib.reload(helpers)
        tasks = [dummymp.run(work, n) for n in range(1000)]
        dummymp.process_until_done()
        print(sum(task.result() for task in tasks))
        """
    )
    assert done.stdout == "0\n", done.stderr


@pytest.mark.skipif(sys.version_info < (3, 11), reason="enum.member is new in Python 3.11")
def test_a_function_that_is_a_member_of_an_enum(script: Script) -> None:
    """It stays one, and is no method."""
    done = script(
        """
        import dummymp, enum
        class Step(enum.Enum):
            ONE = 1
            @enum.member
            def two():
                return 2
        print(dummymp.run(lambda: ([step.name for step in Step], Step.two.value())).result())
        """
    )
    assert done.stdout == "(['ONE', 'two'], 2)\n", done.stderr

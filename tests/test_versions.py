"""Which version of the user's modules tasks get: the one that the script has."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest
from conftest import Script

HELPERS = """\
LIMIT = 1
def f():
    return "old", LIMIT
class A:
    def m(self):
        return "old"
    @property
    def p(self):
        return "old"
"""

START = """
import os, sys
import dummymp
import helpers
def work(n=0):
    return helpers.f(), helpers.A().m(), helpers.A().p
def save(*changes):
    with open("helpers.py") as file:
        text = file.read()
    for old, new in changes:
        text = text.replace(old, new, 1)
    with open("helpers.py", "w") as file:
        file.write(text)
    return text
dummymp.configure(tasks_per_worker=1, max_processes=1)
"""


@pytest.fixture(params=["with bytecode", "without"])
def flags(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Put the module beside the script; give the options of Python."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    (tmp_path / "helpers.py").write_text(HELPERS)
    return () if request.param == "with bytecode" else ("-B",)


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        ('"old", LIMIT', '"newer", LIMIT', "helpers.f.__code__ = there['f'].__code__"),
        (
            'm(self):\n        return "old"',
            'm(self):\n        return "newer"',
            "helpers.A.m.__code__ = there['A'].m.__code__",
        ),
        (
            'p(self):\n        return "old"',
            'p(self):\n        return "newer"',
            "helpers.A.p.fget.__code__ = there['A'].p.fget.__code__",
        ),
        ("LIMIT = 1", "LIMIT = 222", "helpers.LIMIT = 222"),
    ],
)
def test_a_module_that_is_changed_in_place(  # As autoreload of IPython 9 does.
    script: Script, flags: tuple[str, ...], start_method: str, old: str, new: str, patch: str
) -> None:
    """Tasks ran the old code, and nothing said so: the module itself was not loaded anew."""
    done = script(
        START
        + textwrap.dedent(
            f"""
            dummymp.configure(tasks_per_worker=None)
            before = dummymp.run(work).result()
            there = {{}}
            exec(compile(save(({old!r}, {new!r})), helpers.__file__, "exec"), there)
            {patch}
            for _ in range(2):
                print(work() == dummymp.run(work).result() != before)
            """
        ),
        *flags,
    )
    assert (done.stdout, done.stderr) == ("True\nTrue\n", "")


def test_what_is_set_by_hand_stays_behind(script: Script, flags: tuple[str, ...]) -> None:
    """Where the file is what it was, so is the module in tasks; the same worker goes on."""
    done = script(
        START
        + textwrap.dedent(
            """
            dummymp.configure(tasks_per_worker=None)
            def pid(): return os.getpid(), work()
            first = dummymp.run(pid).result()
            def other(): return "other", 0
            helpers.LIMIT, helpers.f.__code__ = 5, other.__code__
            print(first == dummymp.run(pid).result())
            """
        ),
        *flags,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


SAVED = START + textwrap.dedent(
    """
    {first}
    save(('"old"', '"newer"'))
    print(dummymp.run(work).result() == work())
    with open("helpers.py", "w") as file:
        file.write("def f(:")
    print(dummymp.run(work).result() == work())
    os.remove("helpers.py")
    print(dummymp.run(work).result() == work())
    """
)


def test_a_module_that_is_saved_while_the_script_runs(
    script: Script, flags: tuple[str, ...], start_method: str
) -> None:
    """Workers that start later go on with what the script has, also while half of a file is written; it is said once.

    Half of the results came from another version, and nothing said so.
    """
    done = script(SAVED.replace("{first}", "dummymp.run(work).result()"), *flags)
    assert done.stdout == "True\nTrue\nTrue\n", done.stderr
    assert done.stderr.count("note: ") == 1
    assert "helpers.py was saved while the script runs: tasks go on with what it was" in done.stderr


def test_a_module_that_is_saved_before_the_first_call(script: Script, tmp_path: Path, start_method: str) -> None:
    """What Python has compiled tells of it."""
    (tmp_path / "helpers.py").write_text(HELPERS)
    # Both happen within one tick of the clock otherwise.
    aged = "os.utime('__pycache__/' + os.listdir('__pycache__')[0], (1e9, 1e9))\n"
    source = START + aged + "save(('\"old\"', '\"newer\"'))\nprint(dummymp.run(work).result() == work())\n"
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = script(source, env=environ)
    assert done.stdout == "True\n", done.stderr
    assert done.stderr.count("note: ") == 1


def test_a_module_that_is_saved_and_loaded_anew(script: Script, flags: tuple[str, ...]) -> None:
    """After that the script has the new version, and so have tasks; there is nothing to say."""
    done = script(
        START
        + textwrap.dedent(
            """
            import importlib
            dummymp.run(work).result()
            save(('"old"', '"newer"'))
            importlib.reload(helpers)
            print(dummymp.run(work).result() == work(), work()[0])
            """
        ),
        *flags,
    )
    assert (done.stdout, done.stderr) == ("True ('newer', 1)\n", "")


def test_a_package_that_is_saved(script: Script, tmp_path: Path, start_method: str) -> None:
    """The modules in it are found as ever, and what a worker imports late is the version of the script, too."""
    package = tmp_path / "tools"
    package.mkdir()
    (package / "__init__.py").write_text("from .inner import NAME\n")
    (package / "inner.py").write_text("NAME = 'old'\n")
    done = script(
        """
        import dummymp, os
        import tools
        def late():
            from tools import inner
            import tools
            return tools.NAME, inner.NAME, __import__("inspect").getsource(inner)
        dummymp.run(os.getpid).result()
        for name, text in (("__init__", "NAME = 'newer'  # none"), ("inner", "NAME = 'newest'")):
            with open(f"tools/{name}.py", "w") as file:
                file.write(text)
        print(*dummymp.run(late).result(), sep="; ")
        """,
        "-B",
    )
    assert done.stdout == "old; old; NAME = 'old'\n\n", done.stderr


def test_a_file_that_is_saved_as_it_was(script: Script, flags: tuple[str, ...]) -> None:
    """There is nothing to say."""
    done = script(
        START + "dummymp.run(work).result()\nos.utime('helpers.py')\nprint(dummymp.run(work).result())\n", *flags
    )
    assert (done.stdout, done.stderr) == ("(('old', 1), 'old', 'old')\n", "")

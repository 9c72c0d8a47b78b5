"""What an installed library keeps in its modules travels by name; what others register for pickle counts at once."""

from __future__ import annotations

import copyreg
import textwrap
from pathlib import Path

import pytest
from conftest import Script

from dummymp.pickling import dumps, loads

LIBRARY = """
import threading
class Core:
    def __init__(self):
        self.lock, self.lines = threading.Lock(), []
class Logger:
    def __init__(self, core, **extra):
        self.core, self.extra = core, extra
    def bind(self, **extra):
        return Logger(self.core, **extra)
    def info(self, text):
        self.core.lines.append(text)
        return text, self.extra, len(self.core.lines)
    def catch(self, func):
        def caught(*args):
            try:
                return func(*args)
            except Exception as error:
                return self.info(repr(error))
        return caught
class Missing:
    pass
class Settings(dict):
    pass
logger = Logger(Core())
MISSING = Missing()
settings = Settings(size=1)
"""

START = """
import os, sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "site-packages"))
import dummymp
from library import MISSING, logger, settings
dummymp.configure(tasks_per_worker=1)
"""


@pytest.fixture(autouse=True)
def _library(tmp_path: Path) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "library.py").write_text(LIBRARY)


def test_what_a_library_keeps(script: Script, start_method: str) -> None:
    """The logger of a library cannot be copied, for it has a lock; a sentinel that is copied is none any more."""
    done = script(
        START
        + textwrap.dedent(
            """
            import dataclasses, library
            logger.info("here")
            bound = logger.bind(name="it")
            unset = dataclasses.MISSING
            def uses(): return logger.info("there"), logger is library.logger
            def binds(): return bound.info("there"), bound.core is library.logger.core
            def same(one, two=unset): return one is MISSING, two is dataclasses.MISSING
            @logger.catch
            def fails(n): return n / 0
            print(dummymp.run(uses).result(), dummymp.run(binds).result())
            print(dummymp.run(same, MISSING).result(), dummymp.run(fails, 1).result()[0])
            print(dummymp.run(lambda: MISSING).result() is MISSING)
            """
        )
    )
    assert (done.stdout, done.stderr) == (
        "(('there', {}, 1), True) (('there', {'name': 'it'}, 1), True)\n"
        "(True, True) ZeroDivisionError('division by zero')\nTrue\n",
        "",
    )


def test_what_a_script_fills_travels_by_value(script: Script, tmp_path: Path) -> None:
    """So do containers of a library, and all that the user's own modules keep."""
    (tmp_path / "helpers.py").write_text("class Config:\n    size = 1\nconfig = Config()\n")
    done = script(
        START
        + textwrap.dedent(
            """
            from helpers import config
            settings["size"], config.size = 2, 3
            print(dummymp.run(lambda: (settings["size"], config.size)).result())
            """
        )
    )
    assert (done.stdout, done.stderr) == ("(2, 3)\n", "")


def test_what_is_kept_no_more(script: Script) -> None:
    """Where a library keeps another one by then, the object travels by value."""
    done = script(
        START
        + textwrap.dedent(
            """
            import library
            kept = MISSING
            def same(): return kept is library.MISSING, type(kept).__name__
            print(dummymp.run(same).result())
            library.MISSING = library.Missing()
            print(dummymp.run(same).result())
            """
        )
    )
    assert (done.stdout, done.stderr) == ("(True, 'Missing')\n(False, 'Missing')\n", "")


class Strange:
    """It cannot be pickled, until somebody says how."""

    def __reduce_ex__(self, protocol: object) -> str:
        raise TypeError("never")


def test_what_is_registered_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """`copyreg.pickle` counts whenever it is called, and what was registered last."""
    with pytest.raises(TypeError):
        dumps(Strange())
    monkeypatch.setitem(copyreg.dispatch_table, Strange, lambda value: (str, ("one",)))
    assert loads(dumps(Strange())) == "one"
    monkeypatch.setitem(copyreg.dispatch_table, Strange, lambda value: (str, ("two",)))
    assert loads(dumps(Strange())) == "two"
    monkeypatch.undo()
    with pytest.raises(TypeError):
        dumps(Strange())

"""Scripts without a guard that another script imports."""

from __future__ import annotations

from pathlib import Path

from conftest import Script

ANALYSIS = """
import dummymp
print("all of it")
class Point:
    def __init__(self, n):
        self.n = n
    def twice(self):
        return Point(2 * self.n)
def square(n):
    return n * n
def point(n):
    return Point(square(n))
for n in range(3):
    dummymp.run(square, n)
dummymp.process_until_done()
answers = dummymp.get_returns()
"""

MAIN = """
import dummymp
import analysis
from analysis import Point, point, square
def work(n):
    return analysis.square(n), square(n), point(n)
print(analysis.answers)
dummymp.reset()
*squares, made = dummymp.run(work, 3).result()
print(squares, type(made) is Point, made.n)
print([type(each) is Point for each in dummymp.map(Point.twice, [Point(1)])], dummymp.run(Point(3).twice).result().n)
"""


def test_a_script_that_is_imported(script: Script, tmp_path: Path, start_method: str) -> None:
    """No worker runs it again: what it defines travels by value, and comes back as what it is."""
    (tmp_path / "analysis.py").write_text(ANALYSIS)
    done = script(MAIN)
    assert (done.stdout, done.stderr) == (
        "all of it\n{0: 0, 1: 1, 2: 4}\n[9, 9] True 9\n[True] 6\n",
        "",
    )


def test_one_whose_calls_are_of_other_functions(script: Script, tmp_path: Path) -> None:
    """Its own functions travel by value all the same, and so do those of its package."""
    package = tmp_path / "analysis"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import dummymp\nprint('all of it')\nlist(dummymp.map(abs, [1]))\nfrom .tools import square\n"
    )
    (package / "tools.py").write_text("print('tools')\ndef square(n): return n * n\n")
    done = script("import dummymp, analysis\nprint(dummymp.run(analysis.square, 3).result())\n")
    assert (done.stdout, done.stderr) == ("all of it\ntools\n9\n", "")


def test_one_in_which_something_does_not_travel(script: Script, tmp_path: Path) -> None:
    """Workers import it then, as any module, and a note says what that means, once."""
    lock = "import threading\nlock = threading.Lock()\ndef locked(n):\n    with lock:\n        return n\n"
    (tmp_path / "analysis.py").write_text(lock + "import dummymp\nprint('all', dummymp.run(pow, 2, 3).result())\n")
    done = script(
        """
        import dummymp, analysis
        try:
            dummymp.run(analysis.locked, analysis.lock)
        except dummymp.NotPicklable as error:
            print(str(error)[:60])
        dummymp.configure(max_processes=1)
        print([dummymp.run(analysis.locked, n).result() for n in range(2)])
        """
    )
    assert sorted(set(done.stdout.splitlines())) == [
        "[0, 1]",
        "all 8",
        "cannot send task 1, locked(...), to a worker: argument 'n' i",
    ], done.stderr
    assert done.stderr.count("each worker imports analysis, and so runs all of it") == 1


def test_other_modules_travel_by_name(script: Script, tmp_path: Path) -> None:
    """Also those that a script uses whose own code runs, and those whose functions call us."""
    (tmp_path / "helpers.py").write_text("import dummymp, os\ndef pid(): return dummymp.run(os.getpid).result()\n")
    done = script(
        """
        import dummymp, helpers, sys
        helpers.pid()
        def by_name(): return sys.modules["helpers"] is not None, helpers.__name__
        print(dummymp.run(by_name).result())
        """
    )
    assert (done.stdout, done.stderr) == ("(True, 'helpers')\n", "")

"""What is said of the code of a task: its file, its lines, their text, wherever the script came from."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import TIMEOUT, Script

import dummymp

# Marks under the failing part of a line are there since Python 3.11.
MARKS = sys.version_info >= (3, 11)
# In front of each task: what the tests below look for is on the lines that they know.
USED = "import dummymp; dummymp.configure(priority='nuclear', log_prefix='')\n"
# A helper, a lambda, a comprehension, a method, a decorator, a nested class. Each divides by zero on its own line.
DEEP = """
def helper(x):
    return 1 / x  # helper
class A:
    class B:
        def method(self, x):
            return 1 / x  # method
def logged(func):
    def wrapper(*args):
        return func(*args)  # wrapper
    return wrapper
@logged
def decorated(x):
    return [1 / each for each in [x]]  # comprehension
tasks = [helper, lambda x: 1 / x, A.B().method, decorated]  # lambda
for task in tasks:
    dummymp.run(task, 0)
dummymp.process_until_done()
"""
LINES = [
    "return 1 / x  # helper",
    "tasks = [helper, lambda x: 1 / x, A.B().method, decorated]  # lambda",
    "return 1 / x  # method",
    "return func(*args)  # wrapper",
    "return [1 / each for each in [x]]  # comprehension",
]


def run(*command: str, cwd: Path, given: str = "", env: dict[str, str] | None = None) -> str:
    """Run Python as a user does; give all that it says."""
    environ = {**os.environ, **(env or {}), "PYTHONPATH": str(Path(dummymp.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd, env=environ, input=given, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT,
    )  # fmt: skip
    return done.stdout


def shows_all(said: str, name: str) -> None:
    """See that a report shows each failing line, of that file, with its number, its text, and marks."""
    source = USED + DEEP
    for line in LINES:
        number = 1 + next(index for index, each in enumerate(source.splitlines()) if each.strip() == line)
        assert f'File "{name}", line {number}, in ' in said
        assert f"    {line}\n" in said
    if MARKS:
        assert said.count("~~^~~\n") == 3 and said.count("~~^~~~~~\n") == 1
    assert "<dynamic-code>" not in said


def test_in_a_file(script: Script, tmp_path: Path, start_method: str) -> None:
    """Each line of the script that failed is shown, wherever it stands: in helpers, lambdas, methods, decorators."""
    shows_all(script(USED + DEEP).stderr, str(tmp_path / "script.py"))


def test_in_a_file_with_a_relative_name(tmp_path: Path) -> None:
    """The lines are shown although the task runs elsewhere."""
    (tmp_path / "script.py").write_text(USED + "import os; os.chdir('/')\n" + DEEP[1:])
    said = run("script.py", cwd=tmp_path)
    assert all(f"    {line}\n" in said for line in LINES)


@pytest.mark.skipif(sys.version_info < (3, 10), reason="only newer Pythons know how they were called")
def test_in_a_command(tmp_path: Path, start_method: str) -> None:
    """`python -c TEXT` shows the lines of TEXT."""
    shows_all(run("-W", "ignore", "-c", USED + DEEP, cwd=tmp_path), "<string>")


def test_from_stdin(tmp_path: Path) -> None:
    """`python < FILE` shows the lines of FILE."""
    (tmp_path / "script.py").write_text(USED + DEEP)
    environ = {**os.environ, "PYTHONPATH": str(Path(dummymp.__file__).parent.parent)}
    with open(tmp_path / "script.py") as file:
        done = subprocess.run(
            [sys.executable], cwd=tmp_path, env=environ, stdin=file, capture_output=True, text=True, timeout=TIMEOUT
        )
    shows_all(done.stderr, "<stdin>")


def test_from_a_pipe(tmp_path: Path) -> None:
    """What came through a pipe is gone: the file is called what Python calls it, the lines are numbered, not shown."""
    said = run("-", cwd=tmp_path, given=USED + DEEP)
    assert 'File "<stdin>", line 4, in helper' in said and "# helper" not in said


NOTEBOOK = '''
import linecache, os, sys, types, dummymp
dummymp.configure(priority="nuclear", log_prefix="")
cells = {}
class Compiler:
    """Names cells as IPython's does."""
    def format_code_name(self, name):
        return ("Cell", f"In[{cells[name]}]") if name in cells else None
shell = types.SimpleNamespace(compile=Compiler())
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: shell)
def cell(number, source):
    name = f"/tmp/ipykernel_{os.getpid()}/{abs(hash(source))}.py"  # Such a file is never written.
    cells[name] = number
    linecache.cache[name] = len(source), None, source.splitlines(True), name
    exec(compile(source, name, "exec"), globals())
'''


def test_in_a_notebook(script: Script, start_method: str) -> None:
    """A cell is called In [3], and its lines are shown, in every report; also when it was changed and run again."""
    source = NOTEBOOK + textwrap.dedent('''
        cell(3, """def f(x):
            import inspect, logging, warnings
            warnings.warn("careful")
            logging.warning("noted")
            print(inspect.getsource(f).splitlines()[-1])
            return 1 / x
        """)
        import logging; logging.basicConfig(format="%(filename)s:%(lineno)d %(message)s")
        dummymp.run(f, 0); dummymp.process_until_done()
        cell(4, "def g(x): return 2 / x")
        dummymp.run(g, 0); dummymp.process_until_done()
        cell(4, "\\ndef g(x): return 3 / x")
        dummymp.run(g, 0); dummymp.process_until_done()
    ''')
    done = script(source)
    assert done.stdout.strip() == "return 1 / x"
    for text in (
        "In [3]:3: UserWarning: careful", "In [3]:4 noted", 'File "In [3]", line 6, in f\n    return 1 / x\n',
        'File "In [4]", line 1, in g\n    def g(x): return 2 / x\n',
        'File "In [4]", line 2, in g\n    def g(x): return 3 / x\n',
    ):  # fmt: skip
        assert text in done.stderr


def test_a_function_that_comes_back_to_the_notebook(script: Script) -> None:
    """A function that a task made, called here, shows its line, too."""
    source = NOTEBOOK + textwrap.dedent('''
        cell(3, """def make(x):
            return lambda: 1 / x
        """)
        import traceback
        try:
            dummymp.run(make, 0).result()()
        except ZeroDivisionError:
            traceback.print_exc()
    ''')
    assert 'File "In [3]", line 2, in <lambda>\n    return lambda: 1 / x\n' in script(source).stderr


def test_tools_know_the_file(script: Script, tmp_path: Path, start_method: str) -> None:
    """Profilers, warnings, log records and `inspect` name the file of the script, and the line in it."""
    source = """
    import cProfile, dummymp, inspect, io, logging, pstats, sys, warnings
    logging.basicConfig(format="%(pathname)s:%(lineno)d %(message)s")
    def work(n):
        return sum(range(n))
    def task():
        warnings.warn("careful")
        logging.warning("noted")
        profile = cProfile.Profile()
        profile.runcall(work, 3)
        out = io.StringIO()
        pstats.Stats(profile, stream=out).print_stats()
        frame = sys._getframe()
        return out.getvalue(), inspect.getsource(work), inspect.getfile(work), frame.f_code.co_filename
    dummymp.configure(log_prefix="")
    profiled, text, file, name = dummymp.run(task).result()
    assert f"{__file__}:4(work)" in profiled, profiled
    assert text.splitlines() == ["def work(n):", "    return sum(range(n))"]
    assert file == name == __file__
    """
    done = script(source)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "script.py"
    assert f"{path}:7: UserWarning: careful" in done.stderr and f"{path}:8 noted" in done.stderr


def test_a_crash_names_the_file(script: Script, tmp_path: Path) -> None:
    """What Python says of a crash in C code names the file of the script, and the line."""
    source = """
    import dummymp, os, signal
    def task():
        os.kill(os.getpid(), signal.SIGSEGV)
    dummymp.run(task); dummymp.process_until_done()
    """
    assert f'File "{tmp_path / "script.py"}", line 4 in task' in script(source).stderr


def test_exec_in_a_task_shows_no_line_of_ours(script: Script) -> None:
    """Code that a task executes from text has the file name of our own first command, but not its lines."""
    done = script("""
    import dummymp
    def task():
        exec("1 / 0")
    dummymp.run(task); dummymp.process_until_done()
    """)
    assert 'File "<string>", line 1, in <module>' in done.stderr and "import gc" not in done.stderr


def test_constants_that_no_compiler_makes(script: Script) -> None:
    """Code whose constants a library has replaced travels, too."""
    done = script("""
    import dummymp
    class Thing:
        value = 5
    def task():
        return "constant".value
    code = task.__code__
    constants = tuple(Thing if each == "constant" else each for each in code.co_consts)
    task.__code__ = code.replace(co_consts=constants)
    print(dummymp.run(task).result())
    """)
    assert done.stdout == "5\n", done.stderr

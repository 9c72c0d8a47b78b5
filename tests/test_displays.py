# SPDX-License-Identifier: MIT
"""What tasks display: in a notebook it is shown where prints are; where no picture can be shown, that is said.

Most tests have small stand-ins for IPython and matplotlib, with what is used of them; the last one has the real ones.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import TIMEOUT, Script

posix = pytest.mark.skipif(os.name != "posix", reason="os.fork")

STAND_INS = {
    "IPython/__init__.py": """
        from types import SimpleNamespace
        from .core import display_functions
        _shell = None
        def get_ipython():
            return _shell
        def start(*types):
            global _shell
            import builtins
            _shell = SimpleNamespace(display_formatter=SimpleNamespace(active_types=types))
            builtins.display = display_functions.display
    """,
    "IPython/display.py": """
        from .core.display_functions import DisplayHandle, clear_output, display, publish_display_data
        class HTML:
            def __init__(self, text):
                self.text = text
            def __repr__(self):
                return "<HTML object>"
            def _repr_html_(self):
                return self.text
    """,
    "IPython/core/__init__.py": "",
    # As with the real ones, they only print where no shell is.
    "IPython/core/display_functions.py": """
        import IPython
        def display(*objs, **kwargs):
            print("no shell:", *objs)
        def publish_display_data(data, metadata=None, *, transient=None, **kwargs):
            if "bad" in data:
                raise RuntimeError("bad data")
            print("shown:", data, metadata, *filter(None, [transient, kwargs]))
        def clear_output(wait=False):
            print("cleared:", wait)
        class DisplayHandle:
            def __init__(self, display_id=None):
                self.display_id = display_id or "new"
            def update(self, obj, **kwargs):
                display(obj, display_id=self.display_id, update=True)
    """,
    "IPython/core/formatters.py": """
        class _Png:
            def for_type_by_name(self, module, name, func):
                self.func = func
        class DisplayFormatter:
            active_types = ["text/plain", "text/html", "image/png"]
            def __init__(self):
                self.formatters = {"image/png": _Png()}
            def format(self, obj, include=None, exclude=None):
                found = {"text/plain": repr(obj)}
                if hasattr(obj, "_repr_html_"):
                    found["text/html"] = obj._repr_html_()
                if hasattr(obj, "lines"):
                    found["image/png"] = self.formatters["image/png"].func(obj)
                return {kind: data for kind, data in found.items() if kind in self.active_types}, {}
    """,
    "IPython/core/pylabtools.py": """
        def print_figure(figure, fmt="png", base64=False):
            return f"{fmt} of {figure.lines}"
    """,
    "matplotlib/__init__.py": "",
    "matplotlib/pyplot.py": """
        class Figure:
            def __init__(self):
                self.lines = []
            def __repr__(self):
                return "<Figure>"
        _figures = {}
        def plot(line):
            figure(max(_figures, default=1)).lines.append(line)
        def figure(number):
            return _figures.setdefault(number, Figure())
        def get_fignums():
            return sorted(_figures)
        def close(which):
            _figures.clear()
        def show(*args, **kwargs):
            print("a window")
    """,
}
NOTEBOOK = """
import IPython; IPython.start("text/plain", "text/html", "image/png")
import dummymp
"""


@pytest.fixture
def shell(script: Script, tmp_path: Path) -> Script:
    """Give a function that runs a script for which there are the stand-ins."""
    for name, text in STAND_INS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    return script


def test_display_in_a_task(shell: Script) -> None:
    """What a task displays is shown as in the notebook itself, whether it imports `display` or not."""
    done = shell(
        NOTEBOOK
        + """
from IPython.display import HTML, display as imported
def task(n):
    display(n, HTML(f"<b>{n}</b>"))
    imported(n, metadata={"text/plain": {"a": 1}})
    from IPython.display import display as its_own, publish_display_data
    its_own({"text/plain": "raw"}, raw=True)
    publish_display_data({"text/plain": "published"})
    return n
print(dummymp.run(task, 7).result())
"""
    )
    assert done.stdout.splitlines() == [
        "shown: {'text/plain': '7'} {}",
        "shown: {'text/plain': '<HTML object>', 'text/html': '<b>7</b>'} {}",
        "shown: {'text/plain': '7'} {'text/plain': {'a': 1}}",
        "shown: {'text/plain': 'raw'} {}",
        "shown: {'text/plain': 'published'} {}",
        "7",
    ], done
    assert done.stderr == ""


def test_what_is_displayed_stands_between_the_prints(shell: Script) -> None:
    """It comes after what was printed before, and before what is printed after; a begun line is ended."""
    done = shell(
        NOTEBOOK
        + """
def task(n):
    print("before")
    print("begun", end="")
    display(n)
    print("after")
dummymp.run(task, 1).result()
print(list(dummymp.map(task, [2, 3])))
"""
    )
    expected = [f"before\nbegun\nshown: {{'text/plain': '{n}'}} {{}}\nafter\n" for n in (1, 2, 3)]
    assert done.stdout == "".join(expected) + "[None, None]\n", done


def test_what_is_displayed_can_be_updated_and_cleared(shell: Script) -> None:
    """What a task got a handle for is shown anew in its place, and `clear_output` clears the cell."""
    done = shell(
        NOTEBOOK
        + """
from IPython.display import clear_output
def task():
    handle = display(1, display_id=True)
    handle.update(2)
    display(display_id="mine")
    clear_output()
    display(3, clear=True)
dummymp.run(task).result()
"""
    )
    assert done.stdout.splitlines() == [
        "shown: {'text/plain': '1'} {} {'display_id': 'new'}",
        "shown: {'text/plain': '2'} {} {'display_id': 'new'} {'update': True}",
        "shown: {} {} {'display_id': 'mine'}",
        "cleared: False",
        "cleared: True",
        "shown: {'text/plain': '3'} {}",
    ], done


def test_show_in_a_notebook(shell: Script) -> None:
    """`plt.show()` in a task shows its figures in the cell that drives, and closes them."""
    done = shell(
        NOTEBOOK
        + """
import matplotlib.pyplot as plt
from matplotlib.pyplot import show
def task(n, show):
    plt.plot(n)
    plt.figure(2).lines.append("b")
    show()
    return plt.get_fignums()
for call in (lambda: plt.show(), show):
    print(dummymp.run(task, "a", call).result())
plt.show()
"""
    )
    figures = [f"shown: {{'text/plain': '<Figure>', 'image/png': \"png of ['{name}']\"}} {{}}" for name in "ab"]
    assert done.stdout.splitlines() == [*figures, "[]", *figures, "[]", "a window"], done


@pytest.mark.parametrize("start", ["", 'import IPython; IPython.start("text/plain")'], ids=["script", "terminal"])
def test_show_where_no_picture_can_be_shown(start: str, shell: Script) -> None:
    """Without a notebook `plt.show()` in a task opens no window: one line says so, and what to do instead."""
    done = shell(
        f"""
        {start}
        import dummymp, matplotlib.pyplot as plt
        def task(n):
            plt.plot(n)
            plt.show(block=True)
            return plt.get_fignums()  # It can still be saved.
        for n in range(10):
            dummymp.run(task, n)
        print(dummymp.results())
        """
    )
    assert done.stdout == f"{[[1]] * 10}\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith("task 0, task(0), called plt.show(), but tasks run in the background")
    assert line.endswith("Save the picture instead: plt.savefig('picture.png')")


def test_display_in_a_terminal(shell: Script) -> None:
    """In IPython's own terminal what a task displays is shown as text."""
    done = shell(
        """
        import IPython; IPython.start("text/plain")
        import dummymp
        from IPython.display import HTML
        dummymp.run(lambda: display(HTML("<b>"))).result()
        """
    )
    assert done.stdout == "shown: {'text/plain': '<HTML object>'} {}\n", done


def test_display_in_a_script(shell: Script) -> None:
    """Where the script has no shell of IPython, a task is what the script is: `display` prints, if it is imported."""
    done = shell(
        """
        import dummymp
        from IPython.display import display as imported
        def bare():
            display(1)
        dummymp.run(lambda: imported(1)).result()
        print(repr(dummymp.run(bare).exception()))
        """
    )
    assert done.stdout.splitlines() == ["no shell: 1", "NameError(\"name 'display' is not defined\")"], done


def test_nothing_is_loaded_for_tasks_that_display_nothing(shell: Script) -> None:
    """Workers of a notebook load neither IPython nor matplotlib by themselves."""
    done = shell(
        NOTEBOOK
        + """
import matplotlib.pyplot
def loaded():
    import sys
    return sorted({"IPython", "matplotlib"} & sys.modules.keys())
print(dummymp.run(loaded).result())
"""
    )
    assert done.stdout == "[]\n", done


def test_what_cannot_be_shown_is_told(shell: Script) -> None:
    """What IPython cannot show is told, and the tasks go on."""
    done = shell(
        NOTEBOOK
        + """
def task():
    display({"bad": 1}, raw=True)
    display(1)
    return "done"
print(dummymp.run(task).result())
"""
    )
    assert done.stdout == "shown: {'text/plain': '1'} {}\ndone\n"
    assert done.stderr == "what a task displayed cannot be shown: RuntimeError: bad data\n"


def test_what_lives_in_the_kernel_is_shown_as_text(shell: Script) -> None:
    """A widget of a task has no model in the notebook, which would only tell of that."""
    done = shell(
        NOTEBOOK
        + """
widget = {"text/plain": "a slider", "application/vnd.jupyter.widget-view+json": {"model_id": "1"}}
dummymp.run(lambda: display(widget, raw=True)).result()
"""
    )
    assert done.stdout == "shown: {'text/plain': 'a slider'} {}\n", done


@posix
def test_display_in_a_copy_of_a_worker(shell: Script) -> None:
    """A process that a task forked has no say in the notebook: it prints."""
    done = shell(
        NOTEBOOK
        + """
import os
def task():
    if not os.fork():
        display(1)
        os._exit(0)
    os.wait()
    display(2)
dummymp.run(task).result()
"""
    )
    assert sorted(done.stdout.splitlines()) == ["1", "shown: {'text/plain': '2'} {}"], done


def test_display_travels_on(shell: Script) -> None:
    """A task may pass `display` on, to calls of its own and as a result."""
    done = shell(
        NOTEBOOK
        + """
from IPython.display import display as imported
def task():
    dummymp.run(lambda: imported(1)).result()
    return imported
dummymp.run(task).result()(2)
"""
    )
    assert done.stdout == "shown: {'text/plain': '1'} {}\n2\n", done


REAL = """
import sys, nbformat
from nbclient import NotebookClient
cells = ['''
import dummymp
import matplotlib.pyplot as plt
from IPython.display import HTML
def task(n):
    print("before", n)
    plt.plot([n, 2])
    plt.show()
    display(HTML("<b>bold</b>"))
    print("after")
for n in range(2):
    dummymp.run(task, n)
dummymp.configure(max_processes=1);
''', "dummymp.results();"]
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
NotebookClient(notebook, timeout=int(sys.argv[1]), kernel_name="python3").execute()
for output in notebook.cells[1].outputs:
    print(output.get("text") or sorted(output.data.items())[0])
"""


@pytest.mark.skipif(
    None in map(importlib.util.find_spec, ("nbclient", "ipykernel", "matplotlib")), reason="needs a notebook"
)
def test_a_real_notebook(tmp_path: Path) -> None:
    """In the cell that drives stand the pictures and prints of tasks, in order."""
    folder = str(Path(importlib.util.find_spec("dummymp").origin or "").parent.parent)  # type: ignore[union-attr]
    done = subprocess.run(
        [sys.executable, "-c", REAL, str(TIMEOUT)],
        env={**os.environ, "PYTHONPATH": folder}, capture_output=True, text=True, timeout=2 * TIMEOUT, cwd=tmp_path,
    )  # fmt: skip
    kinds = [line[:14] for line in done.stdout.splitlines() if line]
    one = ["('image/png', ", "('text/html', "]
    assert kinds == ["before 0", *one, "after", "before 1", *one, "after"], done

# SPDX-License-Identifier: MIT
"""Beside a progress bar, what tasks print and log comes out in whole lines: on a terminal, in a file, in a pipe."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import TIMEOUT, Script

import dummymp
from dummymp import bars
from dummymp.output import Screen
from dummymp.progress import show_items

pytest.importorskip("tqdm")
needs_terminals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")

TALKATIVE = """
import dummymp, logging, sys, time
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
dummymp.configure(priority="nuclear", max_processes=2, log_prefix="")
def talk(n):
    print(f"starting s{n:02}")
    logging.warning("halfway s%02d", n)
    time.sleep(0.05)
    print(f"trouble s{n:02}", file=sys.stderr)
    if n == 3:
        raise ValueError("bad")
"""
DONE = """
for n in range(12):
    dummymp.run(talk, n)
dummymp.process_until_done(progress=True)
"""
MAP = """
for answer in dummymp.map(talk, range(12), progress=True, on_error="return"):
    pass
"""
SAID = ["starting s{:02}", "WARNING halfway s{:02}", "trouble s{:02}"]
EXPECTED = sorted(form.format(n) for form in SAID for n in range(12))


def whole_lines(lines: list[str]) -> list[str]:
    return sorted(line for line in lines if re.search(r"\bs\d\d\b", line))


def on_a_terminal(source: str, folder: Path) -> list[str]:
    """Run a script at a pseudo-terminal, and give the lines that stand there in the end."""
    import fcntl
    import struct
    import termios

    path = folder / "script.py"
    path.write_text(textwrap.dedent(source), encoding="utf-8")
    environ = {**os.environ, "PYTHONPATH": str(Path(dummymp.__file__).parent.parent)}
    master, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, str(path)], cwd=folder, env=environ, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    watch = threading.Timer(TIMEOUT, process.kill)
    watch.start()
    chunks = []
    try:
        while chunk := os.read(master, 65536):
            chunks.append(chunk)
    except OSError:
        pass  # How Linux says that nobody has the other side open any more.
    watch.cancel()
    os.close(master)
    text = b"".join(chunks).decode()
    assert process.wait(TIMEOUT) == 0, text
    return [shown(line) for line in text.split("\r\n")]


def shown(line: str) -> str:
    """Give what is to be seen of a line whose parts were written one over another."""
    cells = ""
    for part in line.split("\r"):
        cells = part + cells[len(part) :]
    return cells.rstrip()


@needs_terminals
@pytest.mark.parametrize("work", [DONE, MAP], ids=["process_until_done", "map"])
def test_on_a_terminal(work: str, tmp_path: Path) -> None:
    """Each line stands by itself, and the bar below them all, at its end."""
    lines = on_a_terminal(TALKATIVE + work, tmp_path)
    assert whole_lines(lines) == EXPECTED
    assert [line for line in lines if "12/12" in line and line.startswith("100%")]
    assert not [line for line in lines if "|" in line and not re.match(r" *\d+%\|", line)]


@needs_terminals
def test_reports_on_a_terminal(tmp_path: Path) -> None:
    """Reports of failures, and what dummymp says itself, begin a line of their own, too."""
    lines = on_a_terminal(TALKATIVE + DONE, tmp_path)
    assert [line for line in lines if line.startswith("ERROR task 3, talk(3), failed: ValueError: bad")]


@pytest.mark.parametrize("work", [DONE, MAP], ids=["process_until_done", "map"])
@pytest.mark.parametrize("together", [False, True])
def test_redirected(work: str, together: bool, script: Script, tmp_path: Path) -> None:
    """In a file, or where both streams lead into one pipe, as in ``2>&1 | tee``, every line can be found by grep."""
    if together:
        again = "import os, sys; os.dup2(1, 2)\n"  # As the shell does it, before anything is written.
        text = script(again + TALKATIVE + work).stdout
        assert whole_lines(text.split("\n")) == EXPECTED
    else:
        done = script(TALKATIVE + work)
        assert whole_lines(done.stderr.split("\n")) == [line for line in EXPECTED if not line.startswith("starting")]
        assert whole_lines(done.stdout.split("\n")) == [line for line in EXPECTED if line.startswith("starting")]


class Terminal(io.StringIO):
    """A terminal that counts how often a bar was wiped."""

    def isatty(self) -> bool:
        return True

    def wiped(self) -> int:
        return len(re.findall(r"\r +\r", self.getvalue()))


def terminal_for(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Let both streams lead to a terminal. Not a fixture: pytest sets the streams anew before the test itself."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", screen)
    return screen


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give the time of bars, to be set."""
    now = [1000.0]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    monkeypatch.setattr(bars, "time", Clock)
    return now


def show(text: str) -> None:
    Screen().show(1, text, None)


def test_a_group_of_lines(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Many lines a second cost one wiping: the bar comes back as often as tqdm draws, and says when that is."""
    terminal = terminal_for(monkeypatch)
    with show_items(5):
        for number in range(1000):
            show(f"line {number}\n")
            bars.redraw()
        assert terminal.wiped() == 1
        due = bars.next_redraw()
        assert due is not None and due == pytest.approx(1000.1)
        clock[0] = due
        bars.redraw()
        assert bars.next_redraw() is None
        assert shown(terminal.getvalue().split("\n")[-1]).startswith("  0%|")
        show("one more\n")
        assert terminal.wiped() == 2
    assert terminal.getvalue().count("\nline ") == 999
    assert "\rone more\n" in terminal.getvalue()


def test_a_bar_of_the_users_own(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Other bars of tqdm on the same terminal are wiped and drawn again along with ours."""
    terminal = terminal_for(monkeypatch)
    from tqdm import tqdm

    with tqdm(total=3, desc="outer"), show_items(5):
        show("line\n")
        before, after = terminal.getvalue().split("line\n")
        assert "outer" in before and "outer" not in after
        clock[0] += 1
        bars.redraw()
        assert "outer" in terminal.getvalue().split("line\n")[1]


def test_somewhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written to another place leaves the bar alone."""
    terminal = terminal_for(monkeypatch)
    elsewhere = io.StringIO()
    monkeypatch.setattr(sys, "stdout", elsewhere)
    with show_items(5):
        show("line\n")
        assert terminal.wiped() == 0
    assert elsewhere.getvalue() == "line\n"


def test_bars_that_need_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar that is switched off, or is drawn by a notebook, is not touched; and none is left behind."""
    terminal_for(monkeypatch)
    from tqdm import tqdm

    class Drawn(tqdm):  # type: ignore[type-arg]
        container = "a widget"

    for bar in (tqdm(total=1, disable=True), Drawn(total=1)):
        with bars.Standing(bar):
            assert not bars._standing
    with show_items(5):
        assert bars._standing
    assert not bars._standing
    assert not bars.make_room()


def test_room_in_several_files(clock: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a file the line of a bar is ended once, and tqdm goes on when it will."""
    with open(tmp_path / "log", "a", encoding="utf-8") as file, open(tmp_path / "log", "a", encoding="utf-8") as same:
        monkeypatch.setattr(sys, "stderr", file)
        monkeypatch.setattr(sys, "stdout", same)
        with show_items(5):
            show("one\n")
            show("two\n")
            assert bars.next_redraw() is None
        file.flush()
        text: Any = (tmp_path / "log").read_bytes().decode()
    assert re.search(r"/5 \[.*\]\r?\none\r?\ntwo\r?\n", text)


@pytest.mark.parametrize("work", [DONE, MAP], ids=["process_until_done", "map"])
def test_a_bar_in_a_file_begins_once(work: str, script: Script) -> None:
    """It is drawn at 0 % once. Previously twice, in two lines, though nothing had been said in between."""
    done = script("import dummymp\ndef talk(n): pass\n" + work)
    assert done.stderr.count("  0%|") == 1

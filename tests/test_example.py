# SPDX-License-Identifier: MIT
"""example.py does what it promises, on a few modules instead of all, in a pipe and on a terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import TIMEOUT, Script

import dummymp

EXAMPLE = Path(__file__).parent.parent / "example.py"
COMMAND = [sys.executable, str(EXAMPLE)]


def test_example_in_a_pipe(tmp_path: Path) -> None:
    """It shows progress, log lines of workers, a report, the one failure, two times; it ends with 0."""
    done = subprocess.run(
        [*COMMAND, "15"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    text = done.stdout
    assert done.returncode == 0, text + done.stderr
    assert done.stderr == ""
    assert re.match(r"15 modules with [\d,]+ lines, and one that is broken on purpose\.\n", text)
    assert re.search(r"^A line with \[PID 1234\] is what a worker logs", text, re.MULTILINE)
    assert re.findall(r"^(\d+) of 16 modules done$", text, re.MULTILINE)[-1] == "16"
    assert re.search(r"^\[PID \d+\] .* is \d+ lines long$", text, re.MULTILINE)
    assert re.search(r"^ +\d+  \w+\(\)  [\w./-]+\.py:\d+$", text, re.MULTILINE)
    assert "  broken.py: SyntaxError: invalid syntax (broken.py, line 1)" in text
    assert re.search(r"^  one after another +\d+\.\d\d s$", text, re.MULTILINE)
    assert re.search(r"^  with dummymp +\d+\.\d\d s, at most [1-9]\d* at once$", text, re.MULTILINE)
    assert text.endswith("the same answers: yes\n")
    assert "\r" not in text
    assert "Traceback" not in text


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_example_on_a_terminal(tmp_path: Path) -> None:
    """On a terminal one line is redrawn as tasks end, and wiped before anything else is printed."""
    master, terminal = os.openpty()
    environment = {**os.environ, "DUMMYMP_START_METHOD": "spawn"}
    process = subprocess.Popen(
        [*COMMAND, "3"], cwd=tmp_path, env=environment, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    watch = threading.Timer(TIMEOUT, process.kill)
    watch.start()
    text = read_until_closed(master)
    watch.cancel()
    assert process.wait(TIMEOUT) == 0, text
    assert re.search(r"\r\[#{40}\] 4 of 4 +\r +\r", text)
    assert "modules done" not in text
    assert text.endswith("the same answers: yes\r\n")


@pytest.mark.skipif(dummymp.total_cpus() < 2, reason="there is only one CPU")
def test_example_beside_others(script: Script) -> None:
    """Where others use the CPUs, it says that this is why it gains little."""
    done = script(
        f"""
        import runpy, sys
        from dummymp.cpus import CpuReader, Reading

        CpuReader.read = lambda self, **rules: Reading(1, 1.0, 0.0, 0.5, 1.0, 1)
        sys.argv = ["example.py", "2"]
        runpy.run_path({str(EXAMPLE)!r}, run_name="__main__")
        """
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r" % of the modules .* fewer CPUs: \d+ of \d+ CPUs? (is|are) used by others;\n", done.stdout)
    assert "python -m dummymp)\n" in done.stdout


@pytest.mark.parametrize("words", [["nonsense"], ["0"], ["3", "4"]])
def test_example_with_nonsense(words: list[str]) -> None:
    """What is no number of modules is refused in one line that says what to write."""
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert repr(" ".join(words)) in done.stderr
    assert "python example.py 20" in done.stderr


def read_until_closed(descriptor: int) -> str:
    """Read what a terminal shows until nobody has it open any more."""
    chunks = []
    with open(descriptor, "rb", buffering=0) as terminal:
        while True:
            try:
                chunk = terminal.read(65536)
            except OSError:  # How Linux says that the other side was closed.
                break
            if not chunk:
                break
            chunks.append(chunk)
    return b"".join(chunks).decode()

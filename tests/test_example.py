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
from conftest import TIMEOUT

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

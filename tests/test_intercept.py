# SPDX-License-Identifier: MIT
"""loguru in tasks: what they log goes to the sinks of the script, once, with its formats and levels."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import Script

SETUP = """
import dummymp, os, sys
from loguru import logger
logger.remove()
logger.add("log.txt", format="{level} {function}:{line} {process.id} {extra} {message}", level="INFO")
logger.add(sys.stderr, format="{message}", level="WARNING")
dummymp.configure(priority="nuclear", max_processes=2)
bound = logger.bind(user="ann")
"""


@pytest.mark.parametrize("call", ["[dummymp.run(work, n) for n in range(3)]", "list(dummymp.map(work, range(3)))"])
def test_lines_of_tasks_arrive_at_the_sinks_of_the_script(
    script: Script, tmp_path: Path, start_method: str, call: str
) -> None:
    done = script(
        SETUP
        + f"""
def work(n):
    logger.debug("left out")
    print("printed", n)
    bound.info("bound {{}}", n)
    logger.log("WARNING", "{{braces}} %s")
    return os.getpid()
{call}
dummymp.process_until_done()
"""
    )
    assert sorted(done.stdout.splitlines()) == ["printed 0", "printed 1", "printed 2"]
    assert done.stderr == "{braces} %s\n" * 3
    lines = [line.split(maxsplit=3) for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert sorted((level, where, rest) for level, where, _, rest in lines) == [
        *(("INFO", "work:13", f"{{'user': 'ann'}} bound {n}") for n in range(3)),
        *(("WARNING", "work:14", "{} {braces} %s") for n in range(3)),
    ]
    assert str(os.getpid()) not in {pid for _, _, pid, _ in lines}


def test_levels_errors_and_what_cannot_travel(script: Script, tmp_path: Path) -> None:
    done = script(
        SETUP
        + """
import threading
def work(n):
    try: 1 / n
    except ZeroDivisionError: logger.bind(lock=threading.Lock()).exception("failed")
    logger.level("LOUD", no=45)
    logger.log("LOUD", "loud")
    logger.log(33, "numbered")
    if os.fork() == 0: logger.info("child"); return None
    os.wait()
dummymp.run(work, 0)
dummymp.process_until_done()
"""
    )
    text = (tmp_path / "log.txt").read_text()
    assert "failed\nTraceback (most recent call last):" in text and "ZeroDivisionError" in text
    assert "{'lock': '<unlocked _thread.lock" in text
    assert " loud\n" in text and " numbered\n" in text and "child" in done.stderr

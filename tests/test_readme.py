# SPDX-License-Identifier: MIT
"""The README and the pages in docs/ keep their word: every block of them runs, the way a reader would run it."""

from __future__ import annotations

import re
from code import InteractiveConsole
from pathlib import Path

import pytest
from conftest import Script

import dummymp
from dummymp.presets import PRESETS

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
LINES = TEXT.splitlines()

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(match[1], match[2], TEXT[: match.start()].count("\n") + 1) for match in FENCE.finditer(TEXT)]
DOCS = sorted((README.parent / "docs").glob("*.md"))
PAGES = [(page.stem, page.read_text(encoding="utf-8")) for page in DOCS]
PYTHON = [pytest.param(code, id=f"line{line}") for language, code, line in BLOCKS if language == "python"]
PYTHON += [
    pytest.param(match[2], id=f"{name}-line{text[: match.start()].count(chr(10)) + 1}")
    for name, text in PAGES
    for match in FENCE.finditer(text)
    if match[1] == "python"
]
COMMANDS = [code.strip() for language, code, _ in BLOCKS if language == "sh"]


def section(title: str) -> str:
    """Cut out one section of the README."""
    return TEXT.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(title: str) -> list[list[str]]:
    """Read the table of a section, without its head."""
    table = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def code_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("code", PYTHON)
def test_block_runs_and_prints_what_it_says(code: str, script: Script) -> None:
    """A block is a whole script; what stands in a comment behind a print is what it prints."""
    if "pandas" in code:
        pytest.importorskip("pandas")
    done = script(code)
    assert done.returncode == 0, done.stderr
    promised = re.findall(r"^ *print\(.*\) +# (.*)$", code, re.MULTILINE)
    printed = done.stdout.splitlines()
    assert [line for line in printed if line in promised] == promised, done.stdout + done.stderr


def test_blocks_can_be_pasted_one_after_another(script: Script) -> None:
    """Into one session, where calls and settings of the blocks before are still there."""
    blocks = [code for language, code, _ in BLOCKS if language == "python"]
    promised = [re.findall(r"^ *print\(.*\) +# (.*)$", code, re.MULTILINE) for code in blocks]
    done = script(
        f"""
        import code
        console = code.InteractiveConsole(globals())
        for block in {blocks!r}:
            for line in [*block.splitlines(), ""]:
                console.push(line)
            print("--- end of a block", flush=True)
        """
    )
    assert "SyntaxError" not in done.stderr and "queued before Ctrl-C" not in done.stderr, done.stderr
    printed = [part.splitlines() for part in done.stdout.split("--- end of a block\n")]
    for lines, wanted in zip(printed, promised):
        assert [line for line in lines if line in wanted] == wanted, lines


@pytest.mark.parametrize("code", PYTHON)
def test_block_is_short(code: str) -> None:
    """A block has at most eight lines, none of them too wide for a window."""
    assert len(code.splitlines()) <= 8
    assert max(map(len, code.splitlines())) <= 120


@pytest.mark.parametrize("code", PYTHON)
def test_block_can_be_pasted(code: str) -> None:
    """At the prompt of a Python before 3.13, an empty line ends what is indented; without it the next is an error."""
    console = Prompt()
    for line in [*code.splitlines(), ""]:
        console.push(line)
    assert console.errors == []
    assert not console.buffer


class Prompt(InteractiveConsole):
    """A prompt that reads, and runs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def runcode(self, code: object) -> None:
        pass

    def showsyntaxerror(self, *args: object, **options: object) -> None:
        self.errors.append("\n".join(self.buffer))


def test_code_comes_first() -> None:
    """Code stands by line 12, after at most 40 words."""
    first = next(number for number, line in enumerate(LINES, 1) if line.startswith("```python"))
    assert first <= 12
    assert len(" ".join(LINES[: first - 1]).split()) <= 40


def test_every_block_says_what_it_is() -> None:
    """Blocks are Python (run by a test), shell (the two commands), or the one diagram (no language)."""
    assert [language for language, _, _ in BLOCKS if language not in ("python", "sh")] == [""]


def test_two_commands_set_up_everything() -> None:
    """One line installs and runs the example, one installs and runs the tests; there are no others."""
    assert len(COMMANDS) == 2
    assert re.fullmatch(r"python -m pip install \S+ && python example\.py", COMMANDS[0])
    assert re.fullmatch(r"python -m pip install \S+ && python -m pytest", COMMANDS[1])


def test_i_want_to_table_runs(script: Script) -> None:
    """Each line of the table works: a setting before calls are queued, all else right after."""
    wishes = ["; ".join(code_in(answer)) for _, answer in rows("I want to ...")]
    assert len(wishes) >= 15
    lines = ["import dummymp", "slow = abs", "def settings(): pass"]
    for wish in wishes:
        setting = wish.startswith("dummymp.configure")
        calls = "task = dummymp.run(slow, -1); dummymp.run(slow, -2)"
        lines += ["dummymp.reset()", *([wish, calls] if setting else [calls, wish])]
    done = script("\n".join([*lines, "dummymp.reset()", "print('all done')"]))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all done\n"
    assert "Traceback" not in done.stderr


def test_old_and_new_names_exist() -> None:
    """Both columns of the table for users of 0.5 name things that are there."""
    cells = [code for row in rows("Coming from 0.5") for cell in row for code in code_in(cell)]
    assert len(cells) >= 16
    for code in cells:
        assert hasattr(dummymp, code.split("(")[0]), code


def test_presets_in_the_table_are_the_presets() -> None:
    """The table of presets tells their names, and the numbers that the library works with."""
    told = {code_in(row[0])[0]: row[1:] for row in rows("Being polite")}
    assert list(told) == [priority.name.lower() for priority in sorted(dummymp.Priority, reverse=True)]
    for priority, preset in PRESETS.items():
        cells = told[priority.name.lower()]
        nice, threshold, window, _, memory = (re.sub(r"[^\d.]", "", cell) for cell in cells)
        looks = preset.threshold is not None
        assert nice == str(preset.nice)
        assert threshold == (f"{preset.threshold:g}" if looks else "")
        assert window == (f"{preset.window:g}" if looks else "")
        assert memory == f"{preset.min_free_memory * 100:g}"


def test_relative_links_lead_somewhere() -> None:
    """A link into the repository points at a file that exists."""
    for page in (README, *DOCS):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page, target)

# SPDX-License-Identifier: MIT
"""The scripts in the README of DummyMP 0.5 run here, word for word, however a user starts them.

Two things are substituted: sleeps are shortened, and `xrange`, which only Python 2 had, becomes `range`.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from conftest import Script

# Where the original has a space at the end of a line, it is written \N{SPACE}: editors like to remove it.

NO_ARGUMENTS = """\
import dummymp
import time

def myfunc():
    print("Starting!")
    time.sleep(5)
    print("Done!")

# Add functions to queue!
dummymp.run(myfunc)
dummymp.run(myfunc)
dummymp.run(myfunc)

# Process queue and run the functions until all are finished.
dummymp.process_until_done()
"""

ARGUMENTS = """\
import dummymp
import time

def myfunc(a, **kwargs):
    print("Starting! %i %s!" % (a, kwargs["fruit"]))
    time.sleep(3)
    print("Done! %i %s!" % (a, kwargs["fruit"]))

# Add functions to queue! Now with arguments and keyword arguments!
dummymp.run(myfunc, 4, fruit="apples")
dummymp.run(myfunc, 3, fruit="bananas")
dummymp.run(myfunc, 2, fruit="oranges")

# Process queue and run the functions until all are finished.
# Note that because of the nature of parallelism, the numbers
# printed may be out of order.
dummymp.process_until_done()
"""

RETURNS = """\
import dummymp
import time

def myfunc(num):
    print("Starting! My favorite number is: %i" % num)
    time.sleep(num)
    print("Done! My favorite number is: %i" % num)
    return num

# Add functions to queue!
dummymp.run(myfunc, 6)
dummymp.run(myfunc, 4)
dummymp.run(myfunc, 2)

# Process queue and run the functions until all are finished.
# Note that because of the nature of parallelism, the numbers
# printed may be out of order.
dummymp.process_until_done()

# Display the returns!
# Despite the functions finishing at different times, they will
# return in the order called.
#\N{SPACE}
# Output should be:
#     Favorite numbers: {0: 6, 1: 4, 2: 2}
print("Favorite numbers: %s" % str(dummymp.get_returns()))
"""

CPU_AVAILABILITY = """\
# Get the CPU availability immediately
dummymp.getCPUAvail()

# Get processing! Processing/DummyMP code goes below...
"""

QUEUE_AND_RUN = """\
# Loop
for i in xrange(0, 1000):
    # Queue function with argument!
    dummymp.run(myfunc, i)
   \N{SPACE}
    # Process queue and handle processes!
    dummymp.process_process()

# Now wait until everything's done!
dummymp.process_until_done()
"""


def shortened(script: str) -> str:
    """Make a script quick, and Python 3."""
    script = re.sub(r"time\.sleep\((\w+)\)", r"time.sleep(\1 / 100)", script)
    return script.replace("xrange", "range")


@pytest.fixture(params=["file-forkserver", "command-forkserver", "stdin-spawn"])
def run_as_user(
    request: pytest.FixtureRequest, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Script:
    """Give a function that runs a source as a file, with ``python -c``, or through standard input."""
    how, start_method = request.param.split("-")
    monkeypatch.setenv("DUMMYMP_START_METHOD", start_method)

    def run(source: str) -> subprocess.CompletedProcess[str]:
        source = shortened(source)
        if how == "file":
            return script(source)
        if how == "command":
            return script("", "-c", source)
        typed = tmp_path / "typed.txt"
        typed.write_text(source, encoding="utf-8")
        with open(typed, encoding="utf-8") as stdin:
            return script("", "-", stdin=stdin)

    return run


def check(done: subprocess.CompletedProcess[str], *expected: str) -> None:
    """Expect these lines in any order, nothing else, and a good end."""
    assert done.returncode == 0, done.stderr
    assert Counter(done.stdout.splitlines()) == Counter(expected), done.stdout + done.stderr
    assert done.stderr == ""


def test_functions_without_arguments(run_as_user: Script) -> None:
    """The first example: three calls, of which all say that they start and that they are done."""
    done = run_as_user(NO_ARGUMENTS)
    check(done, *["Starting!", "Done!"] * 3)


def test_arguments_and_keywords(run_as_user: Script) -> None:
    """The second example: arguments reach the function, keywords too, and a task starts before it is done."""
    done = run_as_user(ARGUMENTS)
    calls = ["4 apples!", "3 bananas!", "2 oranges!"]
    check(done, *[f"{word} {call}" for call in calls for word in ("Starting!", "Done!")])
    for call in calls:
        assert done.stdout.index(f"Starting! {call}") < done.stdout.index(f"Done! {call}")


def test_returns_in_the_order_of_the_calls(run_as_user: Script) -> None:
    """The third example: it prints the line that its comment promises, and prints it last."""
    done = run_as_user(RETURNS)
    promised = "Favorite numbers: {0: 6, 1: 4, 2: 2}"
    says = "%s My favorite number is: %i"
    check(done, promised, *[says % (word, number) for number in (6, 4, 2) for word in ("Starting!", "Done!")])
    assert done.stdout.splitlines()[-1] == promised


@pytest.mark.usefixtures("start_method")
def test_optimization_blocks(script: Script) -> None:
    """The two blocks about speed, one after the other: look at the CPUs; queue and run at the same time."""
    before = "import dummymp\n\ndef myfunc(i):\n    return i * i\n\n"
    after = "\nprint(dummymp.get_returns() == {i: i * i for i in range(1000)}, dummymp.get_errors())\n"
    check(script(before + CPU_AVAILABILITY + shortened(QUEUE_AND_RUN) + after), "True {}")

"""What tasks print and log appears in the parent: whole, once, in its place, and as the parent wants it."""

from __future__ import annotations

import collections
import contextlib
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator
from typing import Any, Callable

import pytest

import dummymp

Script = Callable[..., "subprocess.CompletedProcess[str]"]

START = 'import logging, os, sys, time\nimport dummymp\ndummymp.configure(priority="NUCLEAR")\n'


class Keep(logging.Handler):
    """Keeps the records that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def kept() -> Iterator[Keep]:
    """Give a handler on the root logger, which passes INFO, and put logging back afterwards."""
    handler = Keep()
    level = logging.root.level
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.INFO)
    logging.getLogger("dummymp").setLevel(logging.ERROR)
    yield handler
    logging.root.removeHandler(handler)
    logging.root.setLevel(level)
    logging.getLogger("dummymp").setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def _at_once() -> None:
    dummymp.configure(priority="NUCLEAR")


def talk(number: int, lines: int) -> int:
    for line in range(lines):
        print("task", number, "line", line, "." * (line % 50))
    return number


def log(lines: int) -> int:
    logger = logging.getLogger("lines")
    for line in range(lines):
        logger.info("%d of %d", line, lines)
    return lines


# --- prints ------------------------------------------------------------------------------------------------------


def test_prints_reach_capsys(start_method: str, capsys: pytest.CaptureFixture[str]) -> None:
    """pytest's capsys sees what tasks print, on stdout and stderr."""
    dummymp.run(print, "hello", "there", sep="\n")
    dummymp.run(lambda: print("to stderr", file=sys.stderr))
    dummymp.process_until_done()
    assert capsys.readouterr() == ("hello\nthere\n", "to stderr\n")


def test_prints_follow_redirect_stdout() -> None:
    """Prints go to what sys.stdout is when they arrive, as those of the parent itself."""
    first, second = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(first):
        dummymp.run(talk, 1, 2).result()
    with contextlib.redirect_stdout(second), contextlib.redirect_stderr(second):
        dummymp.run(talk, 2, 1)
        dummymp.run(warn_on_stderr)
        dummymp.process_until_done()
    assert first.getvalue() == "task 1 line 0 \ntask 1 line 1 .\n"
    assert sorted(second.getvalue().splitlines()) == ["careful", "task 2 line 0 "]


def warn_on_stderr() -> None:
    print("careful", file=sys.stderr)


def test_many_lines_of_several_tasks(start_method: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of tasks that print thousands of lines at once, each line arrives once, whole, and in the order of its task."""
    dummymp.configure(max_processes=4)
    for number in range(4):
        dummymp.run(talk, number, 3000)
    dummymp.process_until_done()
    seen = collections.defaultdict(list)
    for line in capsys.readouterr().out.splitlines():
        match = re.fullmatch(r"task (\d) line (\d+) (\.*)", line)
        assert match, line
        assert len(match[3]) == int(match[2]) % 50
        seen[int(match[1])].append(int(match[2]))
    assert dict(seen) == {number: list(range(3000)) for number in range(4)}


def test_lines_stand_before_callback_and_result(capsys: pytest.CaptureFixture[str]) -> None:
    """What a task printed, also without a line end, stands before its end callback speaks."""
    dummymp.configure(max_processes=1, on_end=lambda completed, running, total: print(f"[{completed}]"))
    for number in range(3):
        dummymp.run(talk, number, 2)
    dummymp.run(lambda: print("no line end", end=""))
    dummymp.process_until_done()
    lines = [f"task {n} line {line} {'.' * line}" for n in range(3) for line in range(2)]
    expected = [*lines[:2], "[1]", *lines[2:4], "[2]", *lines[4:], "[3]", "no line end", "[4]"]
    assert capsys.readouterr().out.splitlines() == expected


def test_parts_of_lines_never_mix(start_method: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Two tasks that write their lines in pieces, flushed one by one and at the same time, never share a line."""

    def pieces(name: str) -> None:
        import time

        for _ in range(5):
            for piece in ("a", "b", "c"):
                print(name + piece, end="", flush=True)
                time.sleep(0.002)
            print()
        print(name + "rest", end="")

    for name in "xyz":
        dummymp.run(pieces, name)
    dummymp.process_until_done()
    lines = collections.Counter(capsys.readouterr().out.splitlines())
    assert lines == {**{f"{name}a{name}b{name}c": 5 for name in "xyz"}, **{f"{name}rest": 1 for name in "xyz"}}


@pytest.mark.parametrize("death", ["os._exit(3)", "os.kill(os.getpid(), 9)", "ctypes.string_at(0)", "os.abort()"])
def test_the_last_lines_before_a_death(script: Script, death: str) -> None:
    """Lines that were printed, logged, or written by a program or C code right before a sudden end all arrive."""
    done = script(
        START
        + textwrap.dedent(
            f"""
            import ctypes
            logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
            logging.getLogger("dummymp").setLevel("CRITICAL")
            def die():
                for n in range(2000):
                    print("line", n)
                logging.info("logged")
                os.system("echo program")
                os.write(1, b"descriptor\\n")
                print("to stderr", file=sys.stderr)
                print("the last line")
                {death}
            for _ in range(2):
                dummymp.run(die)
            dummymp.process_until_done()
            """
        )
    )
    assert done.returncode == 0, done.stderr
    counts = collections.Counter(re.sub(r"\[PID \d+\] ", "", line) for line in done.stdout.splitlines())
    expected = [*(f"line {n}" for n in range(2000)), "logged", "program", "descriptor", "the last line"]
    assert counts == dict.fromkeys(expected, 2)
    assert done.stderr.count("to stderr\n") == 2


def test_writing_in_every_way(script: Script) -> None:
    """sys.stdout.buffer, write, writelines, print(file=...), reconfigure, fileno, fd 1 and 2, programs, and C code."""
    done = script(
        START
        + textwrap.dedent(
            """
            import ctypes, io, subprocess
            def write():
                sys.stdout.buffer.write("bytes: ä\\n".encode())
                sys.stdout.buffer.flush()
                sys.stdout.reconfigure(line_buffering=False, encoding="utf-8", errors="replace")
                sys.stdout.write("write\\n")
                sys.stdout.writelines(["lines 1\\n", "lines 2\\n"])
                print("print to stderr", file=sys.stderr, flush=True)
                os.write(sys.stdout.fileno(), b"fileno\\n")
                os.write(2, b"descriptor 2\\n")
                os.system("echo system; echo system error >&2")
                subprocess.run(["echo", "run"], check=True)
                subprocess.run([sys.executable, "-c", "print('python')"], stdout=sys.stdout, check=True)
                libc = ctypes.CDLL(None)
                libc.puts(b"from C")
                libc.fflush(None)
                io.TextIOWrapper(sys.stdout.buffer, "utf-8", write_through=True).write("wrapped\\n")
                sys.__stdout__.write("the original\\n")
                print(sys.stdout.isatty(), sys.stdout.encoding, sys.stdout.writable(), sys.stdout.closed)
                assert sys.stdout.errors and sys.stdout.name == "<stdout>"
                os.write(1, b"no line end")
            dummymp.run(write)
            dummymp.process_until_done()
            print(dummymp.get_errors())
            """
        )
    )
    expected = """\
    bytes: ä, write, lines 1, lines 2, fileno, system, run, python, from C, wrapped, the original,
    False utf-8 True False, no line end, {}"""
    assert sorted(done.stdout.splitlines()) == sorted(word.strip() for word in expected.split(",")), done.stderr
    assert done.stdout.endswith("no line end\n{}\n")
    assert sorted(done.stderr.splitlines()) == ["descriptor 2", "print to stderr", "system error"]


def test_the_streams_that_python_made(script: Script, start_method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes to sys.__stdout__ and sys.__stderr__ appears: it was lost, unless PYTHONUNBUFFERED was set."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    done = script(
        START
        + textwrap.dedent(
            """
            dummymp.configure(max_processes=1)
            def write():
                print("a line", file=sys.__stdout__)
                print("an error", file=sys.__stderr__)
                sys.__stdout__.buffer.write("bytes: ä\\n".encode())
            def go_back():
                sys.stdout = open(os.devnull, "w")
                print("to nobody")
                sys.stdout.close()
                sys.stdout = sys.__stdout__
                print("back")
            def no_line_end():
                print("no line end", end="", file=sys.__stdout__)
            def end_here():
                print("the last words", file=sys.__stdout__)
                os._exit(3)
            def at_exit():
                import atexit
                atexit.register(print, "at exit", file=sys.__stdout__)
            for task in (write, go_back, no_line_end, end_here, at_exit):
                dummymp.run(task)
            dummymp.process_until_done()
            print(list(dummymp.get_errors()))
            dummymp.reset()
            """
        )
    )
    assert done.stdout.splitlines() == [
        *("a line", "bytes: ä", "back", "no line end", "the last words", "[3]", "at exit")
    ], done.stderr
    assert done.stderr.startswith("an error\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_task_that_forks(script: Script) -> None:
    """A process that a task forked may print, log, and end in any way; the task itself goes on, and ends once."""
    done = script(
        START
        + textwrap.dedent(
            """
            logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
            logging.getLogger("dummymp").setLevel("WARNING")
            dummymp.configure(log_prefix="", max_processes=1)
            def work(how):
                print("before", how)
                copy = os.fork()
                if not copy:
                    print("copy", how)
                    logging.info("copy logs %s", how)
                    if how == "exit":
                        os._exit(0)
                    if how == "raise":
                        raise ValueError("in the copy")
                    if how == "sys.exit":
                        sys.exit()
                    return "copy returns"
                os.waitpid(copy, 0)
                print("after", how)
                return how
            ways = ["exit", "raise", "sys.exit", "return"]
            for how in ways:
                dummymp.run(work, how)
            print(dummymp.results() == ways)
            """
        )
    )
    lines = done.stdout.splitlines()
    ways = ["exit", "raise", "sys.exit", "return"]
    for how in ways:
        assert lines.count(f"before {how}") == lines.count(f"copy {how}") == lines.count(f"after {how}") == 1
        assert lines.index(f"before {how}") < lines.index(f"after {how}")
        assert (done.stdout + done.stderr).count(f"copy logs {how}") == 1
    assert lines[-1] == "True", done.stderr


def test_a_program_that_goes_on_does_not_hold_up_the_task(script: Script) -> None:
    """A task that leaves a program behind, which holds stdout open, has ended when it has ended."""
    done = script(
        START
        + textwrap.dedent(
            """
            import subprocess
            def work():
                subprocess.Popen(["sleep", "600"])
                print("started")
                return 1
            print(dummymp.run(work).result())
            """
        )
    )
    assert (done.stdout, done.stderr) == ("started\n1\n", "")


# --- logging -----------------------------------------------------------------------------------------------------


def test_6111_records(start_method: str, kept: Keep) -> None:
    """Five tasks that log 1, 10, 100, 1000 and 5000 lines deliver 6111 records, in order, and 5 results."""
    counts = [1, 10, 100, 1000, 5000]
    for count in counts:
        dummymp.run(log, count)
    assert dummymp.results() == counts
    seen = collections.defaultdict(list)
    for record in kept.records:
        match = re.fullmatch(r"\[PID (\d+)\] (\d+) of (\d+)", record.getMessage())
        assert match, record.getMessage()
        assert int(match[1]) == record.process
        seen[record.task].append((int(match[2]), int(match[3])))  # type: ignore[attr-defined]
    assert dict(seen) == {task: [(line, count) for line in range(count)] for task, count in enumerate(counts)}


def test_names_of_worker_and_task(kept: Keep) -> None:
    """A record knows its call number, the worker's name, its pid, the logger, and where it was made."""
    task = dummymp.run(log, 1)
    dummymp.run(log, 1)
    dummymp.process_until_done()
    record = next(record for record in kept.records if record.task == 0)  # type: ignore[attr-defined]
    assert re.fullmatch(r"Worker-\d+", str(record.processName))
    assert record.process == task.pid
    assert (record.name, record.levelname, record.funcName) == ("lines", "INFO", "log")
    assert record.pathname == __file__
    assert record.lineno == log.__code__.co_firstlineno + 3


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", r"0 of 1"),
        ("{{{task}}} ", r"\{0\} 0 of 1"),
        ("{worker}/{pid}: ", r"Worker-\d+/\d+: 0 of 1"),
        ("% s%d ", "% s%d 0 of 1"),
    ],
)
def test_prefix(kept: Keep, prefix: str, expected: str) -> None:
    """The prefix of log records may be empty, or name the task, the worker and the pid; it is for records only."""
    dummymp.configure(log_prefix=prefix)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        dummymp.run(log, 1)
        dummymp.run(print, "printed")
        dummymp.process_until_done()
    (text,) = kept.texts()
    assert re.fullmatch(expected, text)
    assert out.getvalue() == "printed\n"


def odd_records() -> None:
    class Local:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        def __str__(self) -> str:
            return "a local thing"

    thing = Local()
    logging.info(123)
    logging.info("argument %s", thing)
    logging.info({"plain": "dict"})
    logging.info("%(key)s", {"key": "by name"})
    logging.info("no arguments, 100%")
    logging.info("extra", extra={"color": "red", "handle": thing.lock})
    logging.info("stack", stack_info=True)
    logging.log(25, "between the levels")
    try:
        raise KeyError(thing.lock)
    except KeyError:
        logging.exception("went wrong: %s", 7)


def test_records_of_every_kind(kept: Keep) -> None:
    """Numbers as messages, arguments and extras that cannot be pickled, exceptions, stacks, own levels: all arrive."""
    dummymp.configure(log_prefix="")
    assert dummymp.run(odd_records).exception() is None
    records = {record.getMessage().splitlines()[0]: record for record in kept.records}
    assert list(records) == [
        "123", "argument a local thing", "{'plain': 'dict'}", "by name", "no arguments, 100%", "extra",
        "stack", "between the levels", "went wrong: 7",
    ]  # fmt: skip
    assert records["extra"].color == "red"  # type: ignore[attr-defined]
    assert "lock" in str(records["extra"].handle)  # type: ignore[attr-defined]
    formatter = logging.Formatter("%(levelname)s %(message)s")
    assert formatter.format(records["stack"]).count("Stack (most recent call last)") == 1
    assert "in odd_records" in formatter.format(records["stack"])
    shown = formatter.format(records["went wrong: 7"])
    assert shown.startswith("ERROR went wrong: 7\nTraceback (most recent call last):\n")
    assert shown.count("Traceback") == 1
    assert "KeyError: <unlocked _thread.lock" in shown
    assert formatter.format(records["between the levels"]) == "Level 25 between the levels"


def test_the_parents_loggers_decide(script: Script, start_method: str) -> None:
    """Levels, filters, handlers and propagation of the parent's named loggers hold; what they drop is not sent."""
    done = script(
        START
        + textwrap.dedent(
            """
            class Costly:
                def __str__(self):
                    print("formatted")
                    return "costly"
            def work():
                for name in ("quiet", "loud", "loud.inner", "alone", "filtered", "off"):
                    for level in (10, 20, 30):
                        logging.getLogger(name).log(level, "%s at %d", name, level)
                logging.getLogger("quiet").info("%s", Costly())
                logging.getLogger("off").error("%s", Costly())
                logging.getLogger("fresh").info("%s", Costly())
            dummymp.configure(log_prefix="")
            logging.basicConfig(level="WARNING", format="root|%(name)s|%(message)s", stream=sys.stdout)
            logging.getLogger("quiet").setLevel("WARNING")
            logging.getLogger("loud").setLevel("DEBUG")
            logging.getLogger("off").disabled = True
            alone = logging.getLogger("alone")
            alone.setLevel("INFO")
            alone.propagate = False
            handler = logging.StreamHandler(sys.stdout)
            handler.setFormatter(logging.Formatter("alone|%(message)s"))
            alone.addHandler(handler)
            logging.getLogger("filtered").setLevel("DEBUG")
            logging.getLogger("filtered").addFilter(lambda record: record.levelno == 20)
            dummymp.run(work).result()
            """
        )
    )
    expected = [f"root|{name}|{name} at {level}" for name in ("loud", "loud.inner") for level in (10, 20, 30)]
    expected += ["root|quiet|quiet at 30", "alone|alone at 20", "alone|alone at 30", "root|filtered|filtered at 20"]
    assert sorted(done.stdout.splitlines()) == sorted(expected), done.stderr
    assert done.stderr == ""


def test_logging_that_was_never_set_up(script: Script) -> None:
    """Without any set-up, Python's own rule holds: warnings and errors appear on stderr, the rest does not."""
    done = script(
        START
        + textwrap.dedent(
            """
            dummymp.configure(log_prefix="")
            def work():
                logging.getLogger("a").info("not shown")
                logging.getLogger("a").warning("shown")
                logging.getLogger("b").error("shown, too")
            dummymp.run(work).result()
            """
        )
    )
    assert (done.stdout, done.stderr) == ("", "shown\nshown, too\n")


def test_set_up_of_logging_that_changes(script: Script) -> None:
    """Levels set between two rounds hold for the workers that are there already; `logging.disable` does, too."""
    done = script(
        START
        + textwrap.dedent(
            """
            dummymp.configure(log_prefix="", max_processes=1)
            logging.basicConfig(level="WARNING", format="%(message)s", stream=sys.stdout)
            def work(n):
                logging.getLogger("mine").info("info %d", n)
                logging.getLogger("mine").error("error %d", n)
            dummymp.run(work, 1).result()
            logging.getLogger("mine").setLevel("INFO")
            dummymp.run(work, 2).result()
            logging.disable(logging.CRITICAL)
            dummymp.run(work, 3).result()
            logging.disable(logging.NOTSET)
            logging.getLogger("mine").setLevel("ERROR")
            dummymp.run(work, 4).result()
            """
        )
    )
    assert (done.stdout, done.stderr) == ("error 1\ninfo 2\nerror 2\nerror 4\n", "")


def test_a_task_may_set_up_logging_itself(script: Script) -> None:
    """`basicConfig` in a task, as beginners write it, loses nothing and shows nothing twice."""
    done = script(
        START
        + textwrap.dedent(
            """
            logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
            logging.getLogger("dummymp").setLevel("WARNING")
            dummymp.configure(log_prefix="", max_processes=1)
            def work(n):
                logging.basicConfig(level="INFO")
                logging.info("line %d", n)
            for n in range(3):
                dummymp.run(work, n)
            dummymp.process_until_done()
            """
        )
    )
    assert (done.stdout, done.stderr) == ("line 0\nline 1\nline 2\n", "")


# --- warnings ----------------------------------------------------------------------------------------------------


def test_warnings(script: Script) -> None:
    """A warning of a task is shown as the script's own: on stderr, with its file and line, by the script's filters."""
    source = START + textwrap.dedent(
        """
        import warnings
        def work():
            warnings.warn("careful")
            warnings.warn("old", DeprecationWarning)
        dummymp.run(work).result()
        """
    )
    line = source.splitlines().index('    warnings.warn("careful")') + 1
    done = script(source, "-W", "ignore::DeprecationWarning")
    assert done.stdout == ""
    assert f'script.py:{line}: UserWarning: careful\n  warnings.warn("careful")\n' in done.stderr
    assert done.stderr.count("Warning") == 1
    raised = script(source.replace('"careful"', '"careful", ImportWarning'), "-W", "error::DeprecationWarning")
    assert "DeprecationWarning: old" in raised.stderr
    assert raised.returncode == 1
    captured = source.replace("import warnings", "import warnings; logging.captureWarnings(True)")
    logged = script(captured, "-W", "default")
    assert logged.stderr.count("UserWarning: careful") == 1
    assert "[PID " in logged.stderr


def test_warnings_of_other_kinds_stay_in_the_parent() -> None:
    """Running tasks raises no warning in the parent, whatever its filters."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dummymp.run(json.dumps, [1]).result() == "[1]"


@pytest.mark.skipif(not shutil.which("sh"), reason="needs a shell")
def test_output_in_a_pipe_is_complete(script: Script) -> None:
    """With stdout in a pipe or a file, the script's own lines and those of its tasks are all there, in their order."""
    done = script(
        START
        + textwrap.dedent(
            """
            def work(n):
                print("task", n)
            print("before")
            for n in range(3):
                dummymp.run(work, n).result()
                print("after", n)
            """
        )
    )
    expected: list[Any] = ["before"]
    for n in range(3):
        expected += [f"task {n}", f"after {n}"]
    assert done.stdout.splitlines() == expected


def test_streams_that_a_task_wrapped_are_written_with_the_task(script: Script, start_method: str) -> None:
    """What stands in a wrapper of its own comes before its result, and nothing of it is lost at the end."""
    done = script(
        """
        import codecs, dummymp, io, sys
        def wrap(n):
            sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
            print("wrapped", n)
        def detach(n):
            sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding="utf-8")
            print("detached", n)
        for func in (wrap, detach):
            print(list(dummymp.map(func, [1])), dummymp.run(func, 2).result())
        dummymp.run(wrap, 3)
        dummymp.process_until_done()
        print("end")
        """
    )
    expected = ["wrapped 1", "wrapped 2", "[None] None", "detached 1", "detached 2", "[None] None", "wrapped 3", "end"]
    assert done.stdout.splitlines() == expected, done.stderr


LEAVES = """
import atexit, dummymp, logging, sys, threading, time
logging.basicConfig(format="%(message)s")
dummymp.configure(log_prefix="")
def leave(go):
    def late():
        while not os.path.exists(go):
            time.sleep(0.001)
        print("a thread")
    import os
    threading.Thread(target=late).start()
    atexit.register(print, "atexit", flush=True)
    atexit.register(logging.warning, "a record")
    atexit.register(sys.stderr.write, "no line end")
"""


@pytest.mark.parametrize("ending", ["", "dummymp.reset()", "dummymp.configure(tasks_per_worker=1)"])
def test_what_a_worker_prints_at_its_end(script: Script, start_method: str, ending: str) -> None:
    """Threads that a task left behind, and what it registered with `atexit`, are heard also when the script ends."""
    done = script(
        LEAVES
        + ("" if ending == "dummymp.reset()" else ending)
        + """
dummymp.run(leave, "go")
dummymp.process_until_done()
print("end", flush=True)
open("go", "w").close()
"""
        + (ending if ending == "dummymp.reset()" else "")
    )
    assert done.stdout.splitlines() == ["end", "a thread", "atexit"], done.stderr
    assert done.stderr.splitlines() == ["a record", "no line end"]


FULL = """
import dummymp, os, sys
os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
"""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize(
    "wait", ["dummymp.process_until_done()", "dummymp.results()", "task.result()", "list(dummymp.map(print, [1]))"]
)
def test_a_full_disk(wait: str, script: Script) -> None:
    """What only tasks print cannot be written: who waits is told by an exception, as of a `print` in a loop."""
    done = script(f"{FULL}task = dummymp.run(print, 'x')\n{wait}", "-u")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "OSError: [Errno 28] No space left on device. What tasks print is lost: it cannot be written to sys.stdout. "
        "Their results are kept"
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_disk_is_no_end_of_the_work(script: Script) -> None:
    """All tasks run, their results are there, and it is raised once. Where nobody waits, it is told at the end."""
    after = """
for n in range(3):
    dummymp.run(print, n), dummymp.run(abs, -n)
try:
    dummymp.process_until_done()
except OSError as error:
    print(error.errno, file=sys.stderr)
print(dummymp.process_until_done(), dummymp.get_returns(), file=sys.stderr)
task = dummymp.run(print, 1)
while not task.done():
    pass
"""
    lines = script(FULL + after, "-u").stderr.splitlines()
    assert lines[:2] == ["28", "True {0: None, 1: 0, 2: None, 3: 1, 4: None, 5: 2}"]
    assert len(lines) == 3
    assert "What tasks print is lost" in lines[2]

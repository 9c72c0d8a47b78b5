"""Tasks and workers that come to a bad end: the one task is blamed, everything else goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

Script = Callable[..., "subprocess.CompletedProcess[str]"]

TIMEOUT = 60  # seconds; reached only in a deadlock
START = 'import dummymp\ndummymp.configure(priority="NUCLEAR")\n'


@pytest.fixture
def told(script: Script) -> Callable[..., Any]:
    """Give a function that runs a script and returns what its last line says, in JSON."""

    def run(source: str, *args: str, stderr: str | None = "", **options: Any) -> Any:
        done = script(START + textwrap.dedent(source), *args, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        if stderr is not None:
            assert done.stderr == stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


# --- one script with all deaths in it ----------------------------------------------------------------------------

EVERY_DEATH = """
import ctypes, faulthandler, json, os, signal, sys, threading, time
import dummymp

dummymp.configure(priority="NUCLEAR", max_processes=2)

class Two(Exception):
    def __init__(self, number, text):
        super().__init__(f"{number}: {text}")
        self.number = number
        self.text = text

class Locked(Exception):
    def __init__(self):
        super().__init__("holds a lock")
        self.lock = threading.Lock()
        self.kept = 1

class Unsayable(Exception):
    def __str__(self):
        raise RuntimeError("says nothing")

class Bomb:
    def __init__(self, how):
        self.how = how
    def __reduce__(self):
        return explode, (self.how,)

class Mine:
    def __init__(self):
        self.pid = os.getpid()
    def __reduce__(self):
        return step_on, (os.getpid(),)

def explode(how):
    if how == "raise":
        raise ValueError("cannot be built")
    os.kill(os.getpid(), signal.SIGKILL)

def step_on(pid):
    if os.getpid() != pid:
        raise LookupError("cannot be built here")

def exit_0():
    os._exit(0)
def exit_3():
    os._exit(3)
def sigkill():
    os.kill(os.getpid(), signal.SIGKILL)
def sigsegv():
    ctypes.string_at(0)
def sigabrt():
    os.abort()
def sys_exit():
    sys.exit(3)
def sys_exit_0():
    sys.exit()
def interrupted():
    raise KeyboardInterrupt
def generator_exit():
    raise GeneratorExit("early")
def recursion():
    recursion()
def memory():
    raise MemoryError("no more")
def two_arguments():
    raise Two(7, "seven")
def locked():
    raise Locked()
def unsayable():
    raise Unsayable("x")
def returns_a_lock():
    return {"plain": 1, "model": [threading.Lock()]}
def returns_a_generator():
    return (number for number in range(3))
def returns_a_mine():
    return Mine()
def raises_from():
    try:
        {}["key"]
    except KeyError as error:
        raise RuntimeError("outer") from error
def takes(bomb):
    return "never"
def good(number):
    return number * number

bad = [exit_0, exit_3, sigkill, sigsegv, sigabrt, sys_exit, sys_exit_0, interrupted, generator_exit, recursion, memory,
       two_arguments, locked, unsayable, returns_a_lock, returns_a_generator, returns_a_mine, raises_from]

def spoken(func):
    print("before", func.__name__)
    return func()

tasks = {}
for number, func in enumerate(bad):
    dummymp.run(good, number)
    tasks[func.__name__] = dummymp.run(spoken, func)
for how in ("raise", "kill"):
    tasks["argument_" + how] = dummymp.run(takes, Bomb(how))
    dummymp.run(good, len(tasks))
finished = dummymp.process_until_done()

deaths = {}
errors = dummymp.get_errors()
for name, task in tasks.items():
    error = errors.pop(task.index, None)
    deaths[name] = {
        "type": type(error).__name__,
        "text": str(error),
        "cause": str(error.__cause__),
        "index": task.index,
        "own_class": type(error) in (Two, Locked),
        "attributes": {key: value for key, value in vars(error).items() if isinstance(value, (int, str, type(None)))},
        "pid_of_task": task.pid,
    }
print(json.dumps({
    "finished": finished, "deaths": deaths, "other_errors": list(map(repr, errors.values())),
    "returns": sorted(dummymp.get_returns().values()), "expected": sorted(
        [number * number for number in range(len(bad))] + [(len(bad) + extra) ** 2 for extra in (1, 2)]
    ),
}))
"""


@pytest.fixture(scope="module", params=["forkserver", "spawn"])
def every_death(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Run the script with all deaths once; give its report, its stdout and its stderr."""
    folder = tmp_path_factory.mktemp("deaths")
    path = folder / "script.py"
    path.write_text(EVERY_DEATH, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=folder,
        env={**os.environ, "DUMMYMP_START_METHOD": request.param},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    yield json.loads(done.stdout.splitlines()[-1]), done.stdout, done.stderr


Deaths = "tuple[dict[str, Any], str, str]"


def test_others_go_on_and_their_results_are_kept(every_death: Deaths) -> None:
    """Whatever befalls a task, each other call ends as it should, and nobody else is blamed."""
    report, _, _ = every_death
    assert report["finished"] is True
    assert report["other_errors"] == []
    assert report["returns"] == report["expected"]


def test_text_before_a_death_is_shown(every_death: Deaths) -> None:
    """What a task printed before it died appears, once."""
    report, stdout, _ = every_death
    lines = stdout.splitlines()
    for name in report["deaths"]:
        if not name.startswith("argument_"):
            assert lines.count(f"before {name}") == 1


@pytest.mark.parametrize(
    ("name", "exitcode", "signal"),
    [
        ("exit_0", 0, None),
        ("exit_3", 3, None),
        ("sigkill", None, "SIGKILL"),
        ("sigsegv", None, "SIGSEGV"),
        ("sigabrt", None, "SIGABRT"),
        ("argument_kill", None, "SIGKILL"),
    ],
)
def test_a_worker_that_dies(every_death: Deaths, name: str, exitcode: int | None, signal: str | None) -> None:
    """The task that ran gets WorkerDied, with its number, the pid, and the exit code or the signal by name."""
    report, _, stderr = every_death
    death = report["deaths"][name]
    assert death["type"] == "WorkerDied"
    attributes = death["attributes"]
    assert (attributes["exitcode"], attributes["signal"]) == (exitcode, signal)
    assert attributes["task"] == death["index"]
    assert attributes["pid"] == death["pid_of_task"]
    assert (signal or f"exit code {exitcode}") in death["text"]
    assert f"task {death['index']}, " in death["text"]
    assert f"worker {attributes['pid']} " in death["text"]
    assert stderr.count(death["text"]) == 1  # Told once, when it happened.


@pytest.mark.parametrize(("name", "what"), [("sigsegv", "Segmentation fault"), ("sigabrt", "Aborted")])
def test_a_crash_in_compiled_code_shows_the_python_line(every_death: Deaths, name: str, what: str) -> None:
    """A segmentation fault is told with the user's line and function, on stderr and in the exception's cause."""
    report, _, stderr = every_death
    cause = report["deaths"][name]["cause"]
    assert f"Fatal Python error: {what}" in cause
    assert f"in {name}" in cause
    assert "script.py" in cause
    assert f"in {name}\n" in stderr


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("sys_exit", "SystemExit", "3"),
        ("sys_exit_0", "SystemExit", ""),
        ("interrupted", "KeyboardInterrupt", ""),
        ("generator_exit", "GeneratorExit", "early"),
        ("recursion", "RecursionError", "maximum recursion depth exceeded"),
        ("memory", "MemoryError", "no more"),
        ("two_arguments", "Two", "7: seven"),
        ("raises_from", "RuntimeError", "outer"),
        ("argument_raise", "ValueError", "cannot be built"),
    ],
)
def test_an_exception_of_any_kind(every_death: Deaths, name: str, kind: str, text: str) -> None:
    """The exception is the user's own, and its cause is the traceback of the worker."""
    report, _, stderr = every_death
    death = report["deaths"][name]
    assert death["type"] == kind
    assert death["text"].startswith(text)
    assert "Traceback (most recent call last)" in death["cause"]
    if not name.startswith("argument_"):
        assert f"in {name}\n" in death["cause"]
    assert stderr.count(f"task {death['index']}, ") == 1


def test_an_exception_keeps_its_class_its_attributes_and_its_story(every_death: Deaths) -> None:
    """An exception of the script with a two-argument constructor comes back whole; `raise from` is told."""
    report, _, _ = every_death
    death = report["deaths"]["two_arguments"]
    assert death["own_class"]
    assert death["attributes"] == {"number": 7, "text": "seven"}
    story = report["deaths"]["raises_from"]["cause"]
    assert "KeyError: 'key'" in story
    assert "direct cause" in story


def test_an_exception_that_cannot_travel(every_death: Deaths) -> None:
    """It comes without those of its attributes that cannot; where there is no way, TaskFailed stands in for it."""
    report, _, _ = every_death
    death = report["deaths"]["locked"]
    assert death["own_class"]
    assert death["text"] == "holds a lock"
    assert death["attributes"] == {"kept": 1}
    assert "in locked\n" in death["cause"]
    death = report["deaths"]["unsayable"]
    assert death["type"] == "TaskFailed"
    assert "Unsayable: " in death["text"]
    assert "in unsayable\n" in death["cause"]


@pytest.mark.parametrize(
    ("name", "part", "way_out"),
    [
        ("returns_a_lock", "_thread.lock at ['model'][0]", "no lock"),
        ("returns_a_generator", "generator", "list(...)"),
    ],
)
def test_a_result_that_cannot_travel(every_death: Deaths, name: str, part: str, way_out: str) -> None:
    """NotPicklable names the task, the part of the result and its type, and what to do instead."""
    report, _, stderr = every_death
    death = report["deaths"][name]
    assert death["type"] == "NotPicklable"
    assert f"task {death['index']}, " in death["text"]
    assert part in death["text"]
    assert way_out in death["text"]
    assert stderr.count(death["text"]) == 1


def test_a_result_that_cannot_be_rebuilt(every_death: Deaths) -> None:
    """A result whose unpickling raises is the failure of that task."""
    report, _, stderr = every_death
    death = report["deaths"]["returns_a_mine"]
    assert "cannot be built here" in death["text"]
    assert stderr.count(f"task {death['index']}, ") == 1


def test_the_end_sums_up(every_death: Deaths) -> None:
    """One line at the end says how many failed of how many, and where results and exceptions are."""
    report, _, stderr = every_death
    failed, good = len(report["deaths"]), len(report["returns"])
    assert f"{failed} of {failed + good} tasks failed" in stderr.splitlines()[-1]
    assert "get_returns()" in stderr.splitlines()[-1]
    assert "get_errors()" in stderr.splitlines()[-1]


# --- again, and exactly once -------------------------------------------------------------------------------------


def test_retries(told: Callable[..., Any], tmp_path: Path) -> None:
    """A task with retries runs again after an exception, a death or a timeout, and the log says which."""
    report = told(
        """
        import json, logging, os, sys, time
        monotonic, passed = time.monotonic, 0.0
        time.monotonic = lambda: monotonic() + passed
        messages = []
        class Keep(logging.Handler):
            def emit(self, record):
                messages.append((record.levelname, record.getMessage()))
        logging.getLogger("dummymp").addHandler(Keep())
        def attempt(name, how, good_one):
            with open(name, "a") as file:
                file.write(".")
            if os.path.getsize(name) >= good_one:
                return how
            if how == "raise":
                raise ValueError(how)
            if how == "die":
                os._exit(1)
            time.sleep(600)
        once = dummymp.run(attempt, "0", "raise", 2)
        dummymp.configure(retries=2)
        tasks = [dummymp.run(attempt, "1", "raise", 3), dummymp.run(attempt, "2", "die", 3),
                 dummymp.run(attempt, "4", "raise", 9)]
        dummymp.configure(timeout=1000)
        tasks.append(dummymp.run(attempt, "3", "sleep", 2))
        while not os.path.exists("3") or not all(task.done() for task in [once, *tasks[:3]]):
            dummymp.step(0.01)
        passed += 2000
        dummymp.process_until_done()
        print(json.dumps({
            "returns": list(dummymp.get_returns().items()),
            "errors": {index: repr(error) for index, error in dummymp.get_errors().items()},
            "attempts": [task.attempts for task in [once, *tasks]],
            "begun": [os.path.getsize(name) for name in "01243"],
            "messages": messages,
        }))
        """
    )
    assert report["returns"] == [[1, "raise"], [2, "die"], [4, "sleep"]]
    assert report["errors"] == {"0": "ValueError('raise')", "3": "ValueError('raise')"}
    assert report["attempts"] == report["begun"] == [1, 3, 3, 3, 2]
    warnings = [text for level, text in report["messages"] if level == "WARNING" and "attempt" in text]
    assert len(warnings) == 7
    assert sum("task 2, " in text and "attempt 1 of 3" in text for text in warnings) == 1
    assert sum("task 2, " in text and "attempt 2 of 3" in text for text in warnings) == 1
    assert len([text for level, text in report["messages"] if level == "ERROR"]) == 2


def test_each_task_is_begun_once(told: Callable[..., Any], start_method: str) -> None:
    """Among tasks of which some kill their worker, each is begun exactly once, and only those are blamed."""
    report = told(
        """
        import json, os, signal
        def note(number):
            with open("begun", "a") as file:
                file.write(f"{number}\\n")
            if number % 13 == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return number
        for number in range(80):
            dummymp.run(note, number)
        dummymp.process_until_done()
        with open("begun") as file:
            begun = sorted(map(int, file))
        print(json.dumps([begun, list(dummymp.get_returns()), list(dummymp.get_errors())]))
        """,
        stderr=None,
    )
    deaths = list(range(0, 80, 13))
    assert report == [list(range(80)), [n for n in range(80) if n not in deaths], deaths]


def test_a_worker_that_dies_without_a_task(told: Callable[..., Any]) -> None:
    """An idle worker that is killed from outside is nobody's failure: the next tasks get a new one."""
    report = told(
        """
        import json, os, signal
        first = dummymp.run(os.getpid).result()
        os.kill(first, signal.SIGKILL)
        second = dummymp.run(os.getpid).result()
        print(json.dumps([first != second, len(dummymp.get_errors())]))
        """
    )
    assert report == [True, 0]


def test_a_death_while_a_large_result_is_sent(told: Callable[..., Any]) -> None:
    """A worker killed in the middle of sending its result is blamed on that task, and nothing half arrives."""
    report = told(
        """
        import json, os, signal, threading, time
        def large():
            def kill():
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Timer(0.02, kill).start()
            return Slow()
        class Slow:
            def __reduce__(self):
                time.sleep(0.01)
                return bytearray, (b"x" * 100_000_000,)
        task = dummymp.run(large)
        other = dummymp.run(len, b"y" * 5_000_000)
        dummymp.process_until_done()
        print(json.dumps([type(task.exception()).__name__, other.result()]))
        """,
        stderr=None,
    )
    assert report == ["WorkerDied", 5_000_000]


# --- workers that cannot start -----------------------------------------------------------------------------------

CANNOT_START = """
import json, os, sys
def square(n):
    return n * n
{break_it}
tasks = [dummymp.run(square, n) for n in range(5)]
errors = []
for _ in range(2):
    try:
        dummymp.process_until_done()
    except dummymp.WorkersCannotStart as error:
        errors.append(str(error))
done = [task.state == "done" for task in tasks]
{mend_it}
dummymp.process_until_done()
print(json.dumps([errors, done, list(dummymp.get_returns().values())]))
"""


def test_interpreters_that_cannot_start(told: Callable[..., Any], start_method: str) -> None:
    """Where Python itself does not come up, one WorkersCannotStart shows what it said; mended, the tasks still run."""
    errors, done, returns = told(
        CANNOT_START.format(
            break_it='os.environ["PYTHONHOME"] = "/nowhere/at/all"', mend_it='del os.environ["PYTHONHOME"]'
        )
    )
    assert len(errors) == 2
    for error in errors:
        assert "cannot start" in error
        assert "encodings" in error  # "ModuleNotFoundError: No module named 'encodings'", in each version.
        assert "still queued" in error
    assert done == [False] * 5
    assert returns == [0, 1, 4, 9, 16]


def test_workers_that_a_sitecustomize_ends(told: Callable[..., Any], tmp_path: Path, start_method: str) -> None:
    """Workers that end before they are ready are not tried for ever: the error shows their last words."""
    site = tmp_path / "site"
    site.mkdir()
    # The first interpreter is the script, the second is the server.
    (site / "sitecustomize.py").write_text(
        textwrap.dedent(
            """
            import os, sys
            count = os.environ["COUNT_FILE"]
            with open(count, "a") as file:
                file.write(".")
            if os.path.exists(count + ".broken") and os.path.getsize(count) > int(os.environ["ALLOWED"]):
                sys.stderr.write("the license server is down\\n")
                sys.stderr.flush()
                os._exit(7)
            """
        )
    )
    (tmp_path / "count.broken").touch()
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(site), *sys.path]),
        "COUNT_FILE": str(tmp_path / "count"),
        "ALLOWED": "2" if start_method == "spawn" else "1",
    }
    errors, done, returns = told(
        CANNOT_START.format(break_it="", mend_it='os.remove(os.environ["COUNT_FILE"] + ".broken")'),
        env=env,
    )
    assert len(errors) == 2
    for error in errors:
        assert "the license server is down" in error
    assert done == [False] * 5
    assert returns == [0, 1, 4, 9, 16]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Python has colours since then")
def test_last_words_without_colors(script: Script, tmp_path: Path, start_method: str) -> None:
    """What ends a worker, or the server, before it is up, is told in plain text: Python colours a traceback."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        textwrap.dedent(
            """
            import sys
            def fail(name, *others):
                if name == "dummymp.processes" and "BROKEN" in sys.orig_argv[-2]:
                    raise RuntimeError("no way")
            sys.meta_path.insert(0, type("Finder", (), {"find_spec": fail}))
            """
        ).replace("BROKEN", "dummymp.worker" if start_method == "spawn" else "dummymp.forkserver")
    )
    done = script(
        """
        import dummymp
        dummymp.run(abs, -1)
        try:
            dummymp.process_until_done()
        except dummymp.WorkersCannotStart as error:
            print(error)
        """,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path]), "FORCE_COLOR": "1"},
    )
    assert "\nRuntimeError: no way\n" in done.stdout, done.stderr
    assert "\x1b" not in done.stdout


# --- the server, limits, copies ----------------------------------------------------------------------------------


def test_the_server_killed_from_outside(told: Callable[..., Any], start_method: str) -> None:
    """With the server gone, running tasks go on, the next ones start, a death is still seen, and kill() still kills."""
    report = told(
        """
        import json, logging, os, signal, time
        import psutil
        logging.getLogger("dummymp").addHandler(logging.NullHandler())
        dummymp.configure(max_processes=2)
        def wait_for(name):
            while not os.path.exists(name):
                time.sleep(0.005)
            return name
        def die():
            wait_for("deaths")
            os._exit(4)
        def server():
            return [child for child in psutil.Process().children() if "dummymp.forkserver" in " ".join(child.cmdline())]
        def drive_until_running(*tasks):
            while not all(task.state == "running" and task.pid for task in tasks):
                dummymp.step(0.01)
            while not all(psutil.pid_exists(task.pid) for task in tasks):
                dummymp.step(0.01)
            dummymp.step(0.3)
        running, dying = dummymp.run(wait_for, "go"), dummymp.run(die)
        waiting = [dummymp.run(pow, 2, n) for n in range(6)]
        drive_until_running(running, dying)
        before = server()
        assert len(before) == 1
        before[0].kill()
        open("deaths", "w").close()
        open("go", "w").close()
        dummymp.process_until_done()
        killed = dummymp.run(wait_for, "never")
        drive_until_running(killed)
        for process in server():
            process.kill()
        pid = killed.pid
        dummymp.kill(killed)
        last = dummymp.run(os.getpid)
        dummymp.process_until_done()
        def alive():
            try:
                return psutil.Process(pid).status() != "zombie"
            except psutil.NoSuchProcess:
                return False
        until = time.monotonic() + 50
        while alive() and time.monotonic() < until:
            dummymp.step()
            time.sleep(0.01)
        print(json.dumps([
            running.result(), type(dying.exception()).__name__, [task.result() for task in waiting],
            type(killed.exception()).__name__, last.result() != pid, alive(), len(dummymp.get_errors()),
        ]))
        """,
        stderr="",
    )
    assert report == ["go", "WorkerDied", [1, 2, 4, 8, 16, 32], "TaskKilled", True, False, 2]


def test_few_descriptors_mean_fewer_workers(told: Callable[..., Any]) -> None:
    """Where descriptors are left for one worker only, one worker does all the tasks, without a word."""
    pytest.importorskip("resource")
    report = told(
        """
        import json, os, resource
        dummymp.configure(max_processes=1)
        dummymp.run(os.getpid).result()
        open_ones = len(os.listdir("/dev/fd"))
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_ones + 7, hard))
        dummymp.configure(max_processes=2)
        for n in range(20):
            dummymp.run(pow, 2, n)
        dummymp.process_until_done()
        print(json.dumps([len(dummymp.get_returns()), len(dummymp.get_errors()), dummymp.get_stats()["workers"]]))
        """
    )
    assert report == [21, 0, 1]


def test_no_descriptors_at_all_are_one_clear_error(told: Callable[..., Any]) -> None:
    """Where not even one worker can be started, WorkersCannotStart says why; the tasks wait until there is room."""
    pytest.importorskip("resource")
    report = told(
        """
        import json, os, resource
        import psutil, cloudpickle, dummymp.manager
        task = dummymp.run(pow, 2, 5)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 2, hard))
        try:
            dummymp.process_until_done()
            text = ""
        except dummymp.WorkersCannotStart as error:
            text = str(error)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        print(json.dumps([text, task.state, task.result()]))
        """
    )
    assert "Too many open files" in report[0]
    assert report[1:] == ["queued", 32]


@pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0 or not shutil.which("setpriv"), reason="needs root, setpriv"
)
@pytest.mark.parametrize("room", [3, 4])
def test_few_processes_mean_fewer_workers(tmp_path: Path, start_method: str, room: int) -> None:
    """A limit on processes (which counts threads, too) that leaves room for one worker means one worker."""
    # The limit does not hold for root, so the script runs as somebody else who may still read all files.
    rights = "+dac_override,+dac_read_search"
    # A user of this very run's own: the limit counts all processes of a user.
    user = 60000 + os.getpid() % 5000
    other = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    other += [f"--inh-caps={rights}", f"--ambient-caps={rights}"]
    # Besides the script itself: the server, and a worker with its watching thread.
    source = f"""
import resource
resource.setrlimit(resource.RLIMIT_NPROC, (1 + {room}, 1 + {room}))
for n in range(20):
    dummymp.run(pow, 2, n)
dummymp.process_until_done()
print(len(dummymp.get_returns()), len(dummymp.get_errors()))
"""
    done = subprocess.run(
        [*other, sys.executable, "-c", START + source],
        capture_output=True, text=True, cwd=tmp_path, stdin=subprocess.DEVNULL, timeout=TIMEOUT,
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("20 0\n", "", 0)


def test_a_fork_by_the_user_with_tasks_running(told: Callable[..., Any]) -> None:
    """The copy has an empty queue of its own, which works; its end disturbs nothing in the original."""
    report = told(
        """
        import json, os, sys, time
        def wait_for(name):
            while not os.path.exists(name):
                time.sleep(0.005)
            return name
        tasks = [dummymp.run(wait_for, "go") for _ in range(4)]
        while tasks[0].state != "running":
            dummymp.step(0.01)
        copy = os.fork()
        if not copy:
            empty = dummymp.get_returns() == {} and dummymp.process_until_done() and not dummymp.worker_pids()
            own = dummymp.run(pow, 2, 3)
            ok = empty and own.index == 0 and own.result() == 8
            sys.exit(5 if ok else 6)  # Through all that is registered with atexit.
        _, status = os.waitpid(copy, 0)
        running = [task.state for task in tasks].count("running")
        open("go", "w").close()
        dummymp.process_until_done()
        print(json.dumps([os.WEXITSTATUS(status), running >= 1, list(dummymp.get_returns().values())]))
        """
    )
    assert report == [5, True, ["go"] * 4]


# --- inside a task -----------------------------------------------------------------------------------------------


def test_dummymp_inside_a_task(told: Callable[..., Any], script: Script) -> None:
    """Each task finds an empty queue of its own, whose calls run in that worker; one note tells."""
    done = script(
        START
        + textwrap.dedent(
            """
            import json, os
            def inner(n):
                if n == 2:
                    raise ValueError(n)
                return os.getpid(), n
            def outer(base):
                before = len(dummymp.get_returns()) + len(dummymp.get_errors())
                numbers = [dummymp.run(inner, base * n).index for n in range(3)]
                dummymp.process_until_done()
                good = [(pid == os.getpid(), n) for pid, n in dummymp.get_returns().values()]
                return before, numbers, good, list(dummymp.get_errors())
            for base in (1, 3, 5):
                dummymp.run(outer, base)
            dummymp.process_until_done()
            print(json.dumps(list(dummymp.get_returns().values())))
            """
        )
    )
    assert done.returncode == 0, done.stderr
    good = [[0, [0, 1, 2], [[True, 0], [True, base], [True, 2 * base]], []] for base in (1, 3, 5)]
    good[0][2:] = [[[True, 0], [True, 1]], [2]]
    assert json.loads(done.stdout) == good
    assert done.stderr.count("a task called dummymp itself") == 1
    assert done.stderr.count("ValueError: 2") >= 1


def test_seeds(told: Callable[..., Any]) -> None:
    """With a seed the numbers depend on the call alone, whatever the workers; without one no two tasks share them."""
    report = told(
        """
        import json, os, random
        import numpy
        def draw():
            import random, numpy.random
            return random.random(), random.randrange(10**9), float(numpy.random.rand())
        def numbers(**options):
            dummymp.reset()
            dummymp.configure(priority="NUCLEAR", **options)
            for _ in range(4):
                dummymp.run(draw)
            return dummymp.results()
        state = random.getstate()
        seeded = [numbers(seed=42, max_processes=1), numbers(seed=42, max_processes=2),
                  numbers(seed=42, tasks_per_worker=2), numbers(seed=42, max_processes=1, start_method="spawn"),
                  numbers(seed=42, engine="inline")]
        other, free = numbers(seed=43, max_processes=1), numbers(max_processes=1)
        print(json.dumps([seeded, other, free, random.getstate() == state]))
        """
    )
    seeded, other, free, untouched = report
    assert all(run == seeded[0] for run in seeded)
    assert untouched
    values = [value for run in (seeded[0], other, free) for row in run for value in row]
    assert len(set(values)) == len(values)


def test_threads_per_task(told: Callable[..., Any]) -> None:
    """BLAS, OpenMP and numexpr get 1 thread in a task, or `threads_per_task`, unless the user set their variables."""
    env = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    report = told(
        """
        import json, os
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
        def look():
            return [os.environ.get(name) for name in names]
        dummymp.run(look)
        os.environ["OMP_NUM_THREADS"] = "7"
        dummymp.run(look)
        dummymp.configure(threads_per_task=3)
        dummymp.run(look)
        dummymp.configure(threads_per_task=None)
        dummymp.run(look)
        print(json.dumps([dummymp.results(), os.environ.get("MKL_NUM_THREADS")]))
        """,
        env=env,
    )
    assert report == [
        [["1"] * 4, ["7", "1", "1", "1"], ["7", "3", "3", "3"], ["7", None, None, None]],
        None,
    ]


def test_cwd_and_environment_of_the_call(told: Callable[..., Any]) -> None:
    """A task runs where `run` was called, with the environment of that moment; programs that it starts see it, too."""
    report = told(
        """
        import json, os, subprocess
        os.mkdir("größe")
        here = os.getcwd()
        def look():
            shell = subprocess.run('echo "$FRUIT"', shell=True, capture_output=True, encoding="utf-8").stdout
            return os.path.relpath(os.getcwd(), here), os.environ.get("FRUIT"), shell.strip()
        dummymp.configure(max_processes=1)
        dummymp.run(look)
        os.chdir("größe")
        os.environ["FRUIT"] = "äpfel"
        dummymp.run(look)
        os.chdir("..")
        dummymp.run(look)
        del os.environ["FRUIT"]
        dummymp.run(look)
        print(json.dumps(dummymp.results()))
        """
    )
    assert report == [[".", None, ""], ["größe", "äpfel", "äpfel"], [".", "äpfel", "äpfel"], [".", None, ""]]


# Each is done by a task; the task before it and the task after it have to see the same.
MISCHIEF = """
os.chdir('/')
os.environ.clear()
os.environ['FRUIT'] = 'bananas'
sys.stdout.close(); sys.stderr.close()
sys.stdout = sys.stderr = None
sys.stdout = io.StringIO()
logging.root.handlers.clear(); logging.disable(50)
sys.argv[:] = ['other']
sys.argv = []
signal.signal(signal.SIGINT, signal.default_int_handler)
os.close(0); os.close(1); os.close(2)
random.seed(1); random.random()
threading.Thread(target=time.sleep, args=(0.5,)).start()
"""


def test_a_task_leaves_nothing_to_the_next(script: Script) -> None:
    """Whatever a task does to its process, the next task in the same worker finds it as the call expects."""
    lines = MISCHIEF.strip().splitlines()
    done = script(
        START
        + textwrap.dedent(
            f"""
            import json, logging, os, sys
            logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
            logging.getLogger("dummymp").setLevel("ERROR")
            dummymp.configure(max_processes=1, log_prefix="")
            os.environ["FRUIT"] = "apples"
            lines = {lines}
            def mischief(line):
                exec("import io, logging, os, random, signal, sys, threading, time\\n" + line)
                return os.getpid()
            def look():
                print("printed")
                print("to stderr", file=sys.stderr)
                logging.getLogger("mine").info("logged")
                return os.getcwd(), dict(os.environ), list(sys.path), sys.argv, os.getpid()
            dummymp.run(look)
            for line in lines:
                dummymp.run(mischief, line)
                dummymp.run(look)
            first, *others = dummymp.results()
            pairs = zip(lines, others[::2], others[1::2])
            print(json.dumps([[line, seen == first, pid == first[-1]] for line, pid, seen in pairs]))
            """
        )
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[line, True, True] for line in lines]
    for text, stream in (("printed", done.stdout), ("logged", done.stdout), ("to stderr", done.stderr)):
        assert stream.splitlines().count(text) == 1 + len(lines)


def test_a_task_that_closes_all_descriptors(told: Callable[..., Any], start_method: str) -> None:
    """It cuts its own connection, so it has failed; the next task runs."""
    report = told(
        """
        import json, logging, os
        logging.getLogger("dummymp").addHandler(logging.NullHandler())
        dummymp.configure(max_processes=1)
        def cut():
            os.closerange(0, 1000)
            return "cut"
        tasks = [dummymp.run(pow, 2, 2), dummymp.run(cut), dummymp.run(pow, 2, 3)]
        dummymp.process_until_done()
        print(json.dumps([tasks[0].result(), type(tasks[1].exception()).__name__, tasks[2].result()]))
        """
    )
    assert report == [4, "WorkerDied", 8]

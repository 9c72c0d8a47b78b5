"""Faults that were found and mended, each with the script or call that showed it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
import types
from os import chdir as leave
from pathlib import Path
from typing import Any

import pytest
from conftest import TIMEOUT, Script

import dummymp
from dummymp import niceness
from dummymp.manager import the_manager
from dummymp.pool import Pool
from dummymp.waiting import Selector, make_selector


@pytest.fixture(autouse=True)
def _all_at_once() -> None:
    dummymp.configure(priority="NUCLEAR", max_processes=2)


def make_a_local_class(number: int) -> Any:
    """Give an object whose class exists in this worker only."""

    class Local:
        def __init__(self) -> None:
            self.number = number

    return Local()


def number_of(thing: Any) -> int:
    """Use the object in another worker."""
    return int(thing.number)


def test_an_object_of_a_class_made_in_a_task_can_go_on_to_another_worker() -> None:
    """It was refused there with a KeyError: the other worker did not know the class."""
    dummymp.configure(tasks_per_worker=1)
    things = [dummymp.run(make_a_local_class, number).result() for number in range(3)]
    assert [dummymp.run(number_of, thing).result() for thing in things] == [0, 1, 2]


def test_a_module_that_travels_by_value_is_taken_as_it_is_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of its values was sent with every later call."""
    module = types.ModuleType("made_by_hand")
    monkeypatch.setitem(sys.modules, "made_by_hand", module)
    exec("x = 0\ndef read():\n    return x", module.__dict__)
    tasks = []
    for value in (1, 2, 3):
        module.__dict__["x"] = value
        tasks.append(dummymp.run(module.read))
    assert [task.result() for task in tasks] == [1, 2, 3]


def test_a_warnings_filter_that_cannot_be_loaded_in_a_worker_is_left_out(script: Script, tmp_path: Path) -> None:
    """Each worker died of it before its first task, and was replaced for ever."""
    (tmp_path / "moody.py").write_text(
        "import os\nif 'NO_MOODY' in os.environ:\n    raise ImportError('not here')\nclass Mood(UserWarning): pass\n"
    )
    done = script(
        """
        import os, warnings, moody, dummymp
        warnings.simplefilter("ignore", moody.Mood)
        os.environ["NO_MOODY"] = "1"
        print(dummymp.run(pow, 2, 5).result())
        """
    )
    assert (done.stdout, done.stderr) == ("32\n", "")


def test_a_mark_that_ctrl_c_left_in_the_manager_is_wiped_off() -> None:
    """The next drive waited for the thread that it was itself."""
    the_manager()._asleep = threading.get_ident()
    assert dummymp.run(pow, 2, 5).result(TIMEOUT) == 32


def test_reset_keeps_the_lock() -> None:
    """Threads that waited for the old lock recorded calls beside those with the new one, under the same number."""
    queue = dummymp.TaskQueue()
    lock = queue._lock
    queue.reset()
    assert queue._lock is lock


class Moody(Exception):
    """Cannot be rebuilt from its `args`."""

    def __init__(self, one: object, two: object) -> None:
        super().__init__(f"{one} and {two}")


def log_with_an_extra() -> None:
    """Log something that arrives as text only."""
    logging.getLogger("mended").warning("hello", extra={"err": Moody(1, 2)})


def test_an_extra_of_a_log_record_that_cannot_be_rebuilt(caplog: pytest.LogCaptureFixture) -> None:
    """It came as a TypeError out of process_until_done()."""
    dummymp.run(log_with_an_extra)
    dummymp.process_until_done()
    assert [record.err for record in caplog.records if record.name == "mended"] == [repr(Moody(1, 2))]


class Quitter:
    """Cannot be unpickled where the results go."""

    def __setstate__(self, state: Any) -> None:
        raise SystemExit("no")

    def __init__(self) -> None:
        self.x = 1


def test_a_result_that_raises_systemexit_when_it_is_rebuilt() -> None:
    """It ended the script, and its task stayed running for ever."""
    task = dummymp.run(Quitter)
    assert dummymp.process_until_done(TIMEOUT)
    assert isinstance(task.exception(), SystemExit)


def fork_while_printing() -> int:
    """Fork while another thread is in print(); the copy prints, too."""
    stop = threading.Event()

    def chatter() -> None:
        while not stop.is_set():
            print("chatter")

    thread = threading.Thread(target=chatter)
    thread.start()
    status = 0
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            print("from the copy")
            os._exit(0)
        status |= os.waitpid(pid, 0)[1]
    stop.set()
    thread.join()
    return status


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_in_a_task_while_another_thread_prints() -> None:
    """The copy waited for a lock that the thread held, which is not in the copy."""
    with dummymp.configure(timeout=TIMEOUT):
        assert dummymp.run(fork_while_printing).result() == 0


def test_an_object_that_can_be_called(script: Script) -> None:
    """It failed with "no attribute '__qualname__'", as if that were the user's fault."""
    done = script(
        """
        import dummymp
        class Scale:
            def __init__(self, k): self.k = k
            def __call__(self, x): return self.k * x
        print(dummymp.run(Scale(3), 2).result())
        """
    )
    assert (done.stdout, done.stderr) == ("6\n", "")


def test_sys_exit_in_a_task_does_not_end_the_script() -> None:
    """results() and result() raise an ordinary exception; get_errors() keeps the task's own."""
    task = dummymp.run(sys.exit, 0)
    with pytest.raises(dummymp.TaskFailed, match=r"task 0, exit\(\.\.\.\), ended itself by sys.exit\(\)"):
        task.result()
    with pytest.raises(dummymp.TaskFailed):
        dummymp.results()
    assert isinstance(dummymp.get_errors()[0], SystemExit)


def test_every_standard_module_may_be_a_global_of_a_task(script: Script) -> None:
    """Frozen modules such as `os` were taken for ones that cannot be imported, and refused."""
    done = script(
        """
        import abc, codecs, io, os, posixpath, runpy, stat, zipimport, sys, dummymp
        for name in ("abc", "codecs", "io", "os", "posixpath", "runpy", "stat", "zipimport", "sys"):
            space = {name: sys.modules[name], "__name__": "__main__"}
            exec(f"def task(): return {name}.__name__", space)
            dummymp.run(space["task"])
        print(dummymp.results())
        """
    )
    assert done.stdout.count("'") == 18, done.stderr


def test_a_script_named_queue(script: Script) -> None:
    """It hid Python's own `queue` from the parent, which needs it no longer."""
    done = script("import dummymp\nprint(dummymp.run(pow, 2, 5).result())\n", name="queue.py")
    assert (done.stdout, done.stderr) == ("32\n", "")


def test_stopping_at_the_first_failure_says_why(caplog: pytest.LogCaptureFixture) -> None:
    """It said that killall() was called, which the user never did."""
    dummymp.configure(on_error="stop", max_processes=1)
    dummymp.run(divmod, 1, 0)
    dummymp.run(time.sleep, 600)  # Not one that is known to be quick: that may have been sent along, and be done.
    with pytest.raises(ZeroDivisionError):
        dummymp.process_until_done()
    assert 'task 0 failed (on_error="stop")' in str(dummymp.get_errors()[1])
    assert "killall" not in caplog.text


def test_a_frozen_program_does_not_start_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """It started copies of itself without end."""
    dummymp.reset()  # There is no server yet.
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    dummymp.run(pow, 2, 5)
    with pytest.raises(dummymp.WorkersCannotStart, match="frozen program"):
        dummymp.process_until_done()
    dummymp.killall()


def leave_orphans() -> int:
    """Leave a process behind that ends at once."""
    os.system("(true &)")
    return os.getpid()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux gives us the orphans")
def test_zombies_do_not_pile_up() -> None:
    """A worker that keeps finding orphans that have ended is replaced, and they go with it."""
    dummymp.configure(max_processes=1)
    pids = {dummymp.run(leave_orphans).result() for _ in range(120)}
    assert len(pids) > 1


def quick_at_first(folder: str, number: int) -> int:
    """Be over at once, but for the last ones, which wait for a file."""
    while number >= 2 and not os.path.exists(os.path.join(folder, "go")):
        time.sleep(0.005)
    return number


def test_who_waits_sleeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It woke up thousands of times a second while slow tasks ran of a function that had been quick at first."""
    wakes = 0
    wait = Selector.wait

    def count(self: Selector, timeout: float | None) -> Any:
        nonlocal wakes
        wakes += 1
        return wait(self, timeout)

    for number in range(8):
        dummymp.run(quick_at_first, str(tmp_path), number)
    while len(dummymp.get_returns()) < 2:
        dummymp.step(0.01)
    assert not dummymp.process_until_done(timeout=0.2)  # What was sent ahead is called back.
    monkeypatch.setattr(Selector, "wait", count)
    assert not dummymp.process_until_done(timeout=0.3)
    assert wakes < 100
    (tmp_path / "go").touch()
    assert dummymp.process_until_done()


def _leave_by_another_name() -> None:
    leave("/")


def _where() -> str:
    return os.getcwd()


def test_a_working_directory_left_by_a_name_of_its_own_is_put_right_for_the_next_task() -> None:
    """`from os import chdir` in the script travelled as posix.chdir, and nobody noticed it."""
    dummymp.configure(max_processes=1)
    places = []
    for _ in range(3):
        dummymp.run(_leave_by_another_name)
        places.append(dummymp.run(_where))
    assert {place.result() for place in places} == {os.getcwd()}


@pytest.mark.skipif(not hasattr(socket, "MSG_NOSIGNAL"), reason="Linux")
def test_a_script_that_ends_by_sigpipe_lives_on_when_a_worker_is_gone(script: Script) -> None:
    """What was sent to a worker that somebody had killed ended the script."""
    done = script(
        """
        import dummymp, os, signal
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        dummymp.configure(max_processes=1, priority="NUCLEAR")
        for _ in range(20):
            os.kill(dummymp.run(os.getpid).result(), signal.SIGKILL)
            dummymp.run(int).result()
        print("survived")
        """
    )
    assert done.stdout == "survived\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "posix_spawn"), reason="not on Windows")
def test_a_worker_that_leaves_by_itself_holds_no_tasks_while_its_exit_functions_run(script: Script) -> None:
    """What had been sent ahead to it waited until the last of them had ended, which may be never."""
    done = script(
        """
        import dummymp, os, time
        dummymp.configure(max_processes=1, priority="NUCLEAR")
        def stay():
            import atexit
            atexit.register(time.sleep, 1000)
        def leave_a_zombie():
            os.posix_spawn("/bin/sh", ["sh", "-c", ":"], {})
            time.sleep(0.002)
        dummymp.run(stay)
        for _ in range(120):
            dummymp.run(leave_a_zombie)
        dummymp.process_until_done()
        print(dummymp.get_stats()["done"])
        """
    )
    assert done.stdout == "121\n", done.stderr


class _Guarded:
    """Its pickle needs a lock that another thread holds while that calls run()."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.wanted = threading.Event()

    def __reduce__(self) -> tuple[Any, ...]:
        self.wanted.set()
        with self.lock:
            return int, ()


def test_a_lock_of_the_users_may_be_held_while_run_is_called() -> None:
    """A call was frozen under the queue's own lock, so two threads could wait for each other."""
    guarded = _Guarded()

    def other() -> None:
        with guarded.lock:
            ready.set()
            guarded.wanted.wait()
            dummymp.run(int, "5")

    ready = threading.Event()
    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    ready.wait()
    task = dummymp.run(abs, guarded)  # type: ignore[arg-type]
    thread.join()
    assert (task.index, dummymp.results()) == (1, [5, 0])


class _Rebuilt(Exception):
    """Calls a function of the test while it is rebuilt in the parent."""

    hook: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, self.args


def _rebuild(*args: Any) -> _Rebuilt:
    if _Rebuilt.hook is not None:
        _Rebuilt.hook()
    return _Rebuilt(*args)


def _raise_it() -> None:
    raise _Rebuilt("here")


def test_other_threads_may_queue_while_an_exception_is_rebuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was rebuilt under the manager's lock: one that waits for another thread waited for ever."""

    def hook() -> None:
        thread = threading.Thread(target=dummymp.run, args=(int,), daemon=True)
        thread.start()
        thread.join()

    queue = dummymp.TaskQueue()
    task = queue.run(_raise_it)
    monkeypatch.setattr(_Rebuilt, "hook", staticmethod(hook))
    assert isinstance(task.exception(), _Rebuilt)
    queue.reset()


def _fail_later() -> None:
    time.sleep(0.1)
    raise ValueError


def test_a_task_that_failed_tells_when_it_started() -> None:
    """It told the moment of its failure."""
    task = dummymp.run(_fail_later)
    task.exception()
    assert task.started_at is not None
    assert task.ended_at is not None
    assert task.seconds is not None
    assert task.ended_at - task.started_at >= 0.9 * task.seconds


class _Waits:
    """Waits, while it is frozen, for another thread that uses the queue."""

    def __reduce__(self) -> tuple[Any, ...]:
        thread = threading.Thread(target=dummymp.run, args=(int,), daemon=True)
        thread.start()
        thread.join()
        return int, ()


def test_other_threads_may_queue_while_a_call_is_frozen_that_starts() -> None:
    """With copy_args=False it was frozen under the manager's lock."""
    queue = dummymp.TaskQueue(copy_args=False)
    assert queue.run(abs, _Waits()).result() == 0  # type: ignore[arg-type]
    queue.reset()


def test_a_log_record_whose_extra_cannot_be_rebuilt_here(script: Script) -> None:
    """It ended process_until_done() with a ModuleNotFoundError."""
    done = script(
        """
        import dummymp, logging, os
        logging.basicConfig(format="%(message)s %(extra)s")
        def task():
            import sys, logging
            os.makedirs("only_here")
            with open("only_here/other.py", "w") as file:
                file.write("class Thing: pass")
            sys.path.insert(0, "only_here")
            import other
            logging.warning("hello", extra={"extra": other.Thing()})
            return 5
        dummymp.configure(log_prefix="")
        print(dummymp.run(task).result())
        """
    )
    assert done.stdout == "5\n", done.stderr
    assert done.stderr.startswith("hello (extra cannot be rebuilt here: ModuleNotFoundError")


class _Fluent:
    """Has every attribute, and each is such an object again."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return _Fluent()

    def __call__(self) -> int:
        return 7


def test_an_object_with_every_attribute_can_be_called() -> None:
    """What is no functools.partial was taken for one because of its `func`, for ever."""
    assert dummymp.run(_Fluent()).result() == 7


def test_memory_that_comes_back_is_noticed_also_with_a_preset_that_does_not_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With min_free_memory configured over such a preset nobody looked again."""
    manager = the_manager()
    readings = iter([0.1])
    monkeypatch.setattr(manager._budget, "_memory", lambda: types.SimpleNamespace(free=next(readings, 0.9)))
    preset = dummymp.Preset("never looks", threshold=None, at_least=0, min_free_memory=0)
    dummymp.configure(priority=preset, min_free_memory=0.5)
    assert dummymp.run(int).result() == 0


def test_tasks_that_were_just_started_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that ended before the next reading were never seen to run."""
    heard: list[int] = []
    monkeypatch.setattr(the_manager()._budget._reader, "note_running", heard.append)
    dummymp.run(int).result()
    assert 1 in heard


def test_a_worker_whose_niceness_changed_in_part_serves_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process was nicer by then, but it was taken for what it had been."""
    monkeypatch.setattr(niceness, "change", lambda pid, nice: False)
    handle = types.SimpleNamespace(nice=5, pid=os.getpid())
    for nice in (15, 5):
        assert not Pool._renice(None, handle, nice)  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not on Windows")
def test_ctrl_c_reaches_a_copy_that_another_thread_forked(script: Script) -> None:
    """What the main thread held back at that moment was held back in the copy for ever."""
    done = script(
        """
        import os, signal, threading
        from dummymp.interrupts import held
        def fork():
            pid = os.fork()
            if not pid:
                try:
                    signal.raise_signal(signal.SIGINT)
                    os._exit(1)
                except KeyboardInterrupt:
                    os._exit(0)
            print(os.waitpid(pid, 0)[1])
        with held:
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
        """
    )
    assert done.stdout == "0\n", done.stderr


SLOTS = """
import dataclasses, sys
class Point:
    __slots__ = ("x", "y")
    def __init__(self, x, y):
        self.x, self.y = x, y
class Deep(Point):
    __slots__ = ("z",)
class Named:
    __slots__ = "name"
def make(kind, **values):
    made = kind.__new__(kind)
    for name, value in values.items():
        setattr(made, name, value)
    return made
deep = dummymp.run(make, Deep, x=1, y=2, z=3).result()
named = dummymp.run(make, Named, name="n").result()
print(type(deep) is Deep, deep.x, deep.y, deep.z, hasattr(deep, "__dict__"), named.name)
print([point.y for point in dummymp.map(Point, [1, 2], [3, 4])])
print(dummymp.run(lambda point: point.x + point.y, Point(5, 6)).result())
if sys.version_info >= (3, 10):
    @dataclasses.dataclass(slots=True)
    class Pair:
        one: int
        two: int = 2
    print(dummymp.run(Pair, 1).result() == Pair(1, 2))
else:
    print(True)
"""


def test_objects_with_slots_come_back(script: Script, start_method: str) -> None:
    """A class of the script with `__slots__` has them in the worker, too, so that its objects fit here."""
    done = script("import dummymp\ndummymp.configure(priority='NUCLEAR')\n" + SLOTS)
    assert done.stdout == "True 1 2 3 False n\n[3, 4]\n11\nTrue\n", done.stderr


def test_settings_without_their_names() -> None:
    """What was left out is said: the name of the setting, or that True is no number of seconds."""
    with pytest.raises(TypeError, match=r"configure\(priority='generous'\)"):
        dummymp.configure("generous")
    with pytest.raises(TypeError, match="progress=True"):
        dummymp.process_until_done(True)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no alarms")
def test_a_signal_handler_that_runs_tasks_may_come_while_we_nap() -> None:
    """It would nap, too, while the poll object of the first nap was in use: a RuntimeError came out of run's driver."""
    selector = make_selector(list)
    before = signal.signal(signal.SIGALRM, lambda number, frame: selector.nap(0.001))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        selector.nap(0.1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        selector.close()


class _Row:
    """Gives text for every name, as rows of tables do."""

    def __getattr__(self, name: str) -> str:
        if name == "__code__" or not name.startswith("_"):
            return "text"
        raise AttributeError(name)

    def __call__(self, number: int) -> int:
        return number


def test_an_object_that_gives_text_for_every_name_can_be_called() -> None:
    """Its `__code__` was taken for that of a function: an AttributeError came out of run."""
    assert dummymp.run(_Row(), 7).result() == 7


def test_threads_that_queue_first_wait_for_no_half_imported_module(script: Script) -> None:
    """Several threads may make the first call of all at the same moment, while one of them imports what it needs."""
    done = script(
        """
        import sys, threading
        import dummymp

        # What another thread sees while one imports them.
        half = type(sys)("half")
        before = {name: sys.modules.pop(name, None) for name in ("logging", "cloudpickle.cloudpickle")}
        from dummymp.modules import modules_by_value
        from dummymp.surroundings import Settings

        for name in before:
            sys.modules[name] = half
        print(Settings().levels, modules_by_value())
        for name, module in before.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module

        sys.setswitchinterval(1e-5)
        calls = [lambda: dummymp.run(abs, -1), lambda: list(dummymp.map(abs, [-1]))] * 4
        threads = [threading.Thread(target=call) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(dummymp.results())
        """
    )
    assert done.stdout == "{'': (30, False)} set()\n[1, 1, 1, 1]\n" and done.stderr == "", done.stderr


def test_a_task_that_reset_has_ended_can_be_killed_again() -> None:
    """Another thread may call reset() between run() and kill(): the task has ended, and nothing is wrong."""
    task = dummymp.run(abs, -1)
    dummymp.reset()
    assert task.kill() is False and dummymp.kill(task) is False


def end_a_copy(code: Any) -> int:
    """Fork; give how the copy ended."""
    pid = os.fork()
    if pid == 0:
        if code == "raise":
            raise ValueError("in the copy")
        sys.exit(code)
    status = os.waitpid(pid, 0)[1]
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)


def test_a_copy_that_a_task_forked_ends_as_a_script_does(capfd: pytest.CaptureFixture[str]) -> None:
    """Who waits for it finds its exit code, and its exception is shown."""
    codes = [0, 3, None, "words", "raise"]
    assert [dummymp.run(end_a_copy, code).result() for code in codes] == [0, 3, 0, 1, 1]
    assert list(dummymp.map(end_a_copy, codes * 3)) == [0, 3, 0, 1, 1] * 3
    shown = capfd.readouterr().err
    assert shown.count("words") == 4 and shown.count("ValueError: in the copy") == 4 and "worker.py" not in shown


def test_a_file_named_random_beside_a_script_that_runs_inline_with_a_seed(script: Script, tmp_path: Path) -> None:
    """It has no state to be kept."""
    (tmp_path / "random.py").write_text("def seed(value=None): pass\n")
    done = script(
        """
        import dummymp, random
        dummymp.configure(engine="inline", seed=1)
        dummymp.run(abs, -1)
        print(dummymp.results())
        """
    )
    assert done.stdout == "[1]\n", done.stderr

# SPDX-License-Identifier: MIT
"""Inside a worker: take a task, run it, send back what came of it; again.

Two threads: the main one runs the tasks, as a script would, and the watcher waits for the end of the parent.
"""

from __future__ import annotations

import atexit
import contextvars
import faulthandler
import functools
import logging
import marshal
import math
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, NoReturn

from . import displays, intercept, nesting, niceness
from .buffers import Collector, close_all, pack, packet_of, unpack
from .chunks import FAILED, VALUE, Chunks
from .contexts import call_with_values, load_values
from .copies import Copies
from .coroutines import COROUTINE, run_coroutine
from .descriptors import WaitingPackets
from .errors import NotPicklable
from .explain import HEAVY, explain_result, function_name
from .failures import own_trace, pack_failure, story
from .forward import Forwarder, LineWriter
from .functions import call_initializer, call_on_stack, is_read_from_stack
from .mainmodule import make_main
from .page import Page
from .pickling import dump_atom, dump_plain, dump_small, dumps, load_arguments, loads
from .questions import refuse_questions
from .rebuilt import FREE, Rebuilt
from .seeds import reseed
from .sources import forget_bootstrap, keep_source
from .streams import set_numbering
from .surroundings import apply_settings, apply_surroundings, moves
from .transport import (
    ATOM_RESULT,
    BATCH,
    CALL_BACK,
    CHUNK,
    DECLINED,
    ENDED_HEAD,
    FAILURE,
    FORGET,
    FUNCTION,
    LEAVING,
    LINE,
    NOTE,
    READY,
    RESULT,
    RESULT_WITH_BUFFERS,
    RETURNED,
    SETTINGS,
    SOURCE,
    STDERR,
    STDOUT,
    STOP,
    SURROUNDINGS,
    TASK,
    TASK_HEAD,
    TASK_WITH_BUFFERS,
    U64,
    WorkerChannel,
)
from .versions import expect_versions

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Worker", "main", "main_spawned"]

# A worker without work ends after so many seconds. Longer: the next call after a pause starts faster; shorter: less
# memory is held for nothing. A new worker takes a few milliseconds.
IDLE_SECONDS = 60.0
# Where the kernel does not make our group nicer at once, it is asked again after so many seconds.
REGROUP_SECONDS = 0.15
# What a task leaves behind becomes ours (processes.adopt_orphans), and stays as a zombie when it has ended: to reap it
# might take from the task what is the task's own. A worker that has seen that so often ends, and all of them with it.
ORPHANS = 50
# To start a process takes longer than this, in seconds, so after a shorter task there is nothing to look for.
CAN_START_PROCESS = 1e-4
# To seed a random generator takes longer than this, in seconds: setting up its 624 numbers does. Where there is no
# seed, a task after a shorter one goes on with the sequence of its worker, which is as random as a new one.
CAN_SEED = 1e-6
# C code that leaves the working directory without Python's knowledge is not looked for after shorter tasks, in seconds.
CAN_GO_UNSEEN = 1e-4
# Threads that tasks left behind, and what they registered with `atexit`, may take so many seconds when a worker ends.
# Longer: they can finish more; shorter: what hangs there holds memory for less time.
LEAVE_LIMIT = 10.0
# The exit code of a worker that cannot take over the memory of a task, because it has too many files open.
NO_DESCRIPTORS = 71


def _nothing(count: int) -> bool:
    """Note nowhere that so many tasks have begun: there is no page, and so nobody can want this one back."""
    return False


class Worker:
    """The loop of a worker, over any connection.

    Args:
        channel: The private connection to the parent.
        name: What log records call it.
        begun: Is called with the count of tasks begun so far, before each begins; True if it is to go back instead.
        packets: Where the descriptors of large buffers come and go; None where there is no such way.
        page: The memory shared with the parent, if there is one.
    """

    def __init__(
        self,
        channel: WorkerChannel,
        name: str,
        begun: Callable[[int], bool] = _nothing,
        packets: WaitingPackets | None = None,
        page: Page | None = None,
    ) -> None:
        self._channel = channel
        self._begun = begun
        self._packets = packets or WaitingPackets(None)
        # Takes the large buffers out of results; a new one after each result that had some.
        self._collector = Collector(find_again=False)
        self._count = 0
        self._orphans = 0
        self._is_copy = False
        self._functions: dict[int, tuple[Any, bool]] = {}
        self._thawed: dict[int, Callable[..., Any]] = {}
        self._called: set[int] = set()
        self._rebuilt = Rebuilt()
        self._surroundings: dict[int, tuple[Any, ...]] = {}
        self._context: tuple[bytes, ...] = ()  # What belongs to them: see `contexts`.
        # The context of tasks, and a copy, in which they run until one changes it.
        self._base = contextvars.Context()
        self._apart = self._base.copy()
        self._argv: list[str] = list(sys.argv)
        self._disabled = logging.root.manager.disable
        self.task = 0
        self.stdout = LineWriter(channel, STDOUT, self.number)
        self.stderr = LineWriter(channel, STDERR, self.number)
        self.forwarder = Forwarder(channel, name, self.number)
        self.displays = displays.Displays(channel, self.number, self._flush, self.note)
        self._chunks = Chunks(channel, page or Page(-1), self)
        # What initializers raised, by their numbers. Of today's: its number until it was called, and what it raised.
        self._initialized: dict[int, BaseException | None] = {0: None}
        self._due = 0
        self._unready: BaseException | None = None
        self._around = 0  # The surroundings of the running chunk.
        self._placed = 0  # The surroundings that this process was put into.
        self._took = math.inf  # How long code of the user ran for the last task, in seconds.

    def loop(self) -> None:
        """Serve until the parent says stop, or is gone."""
        try:
            self._channel.send(READY, U64.pack(os.getpid()))
            while True:
                kind, message = self._channel.receive()
                if kind == BATCH:
                    self._run(*message)
                elif kind == STOP:
                    return
                else:
                    self._take(kind, message)
                if self._orphans >= ORPHANS:
                    break
        except (EOFError, OSError):
            pass
        try:
            self._channel.send(LEAVING)  # What was sent ahead goes to another worker.
        except OSError:
            pass  # The parent has closed the connection, or is gone.

    def waiting_since(self) -> float | None:
        """Tell since when there is nothing to do, by `time.monotonic`; None if there is."""
        return self._channel.waiting_since

    def number(self) -> int:
        """Give the number of the task that runs, or of the item."""
        number = self._chunks.running()
        return self.task if number is None else number

    def give_back(self) -> None:
        """Give back the tasks that have come and were not begun; called from the watcher's thread."""
        self._chunks.cut()
        self._channel.send(RETURNED, self._take_back(self._packets.drop))

    def _take_back(self, drop: Callable[[int], object]) -> bytes:
        """Take the tasks that have come and were not begun out of the line; give their numbers."""
        tasks = self._channel.take_back()
        for kind, message in tasks:
            if kind == TASK_WITH_BUFFERS:
                drop(packet_of(memoryview(message)[TASK_HEAD.size :]))
        return b"".join(U64.pack(message) if kind == BATCH else message[: U64.size] for kind, message in tasks)

    def _do_not_begin(self, number: int, fds: list[int] | None = None) -> None:
        """Give back the task that comes next, and all after it: C code has kept the watcher's thread from doing so."""
        self._count -= 1
        self._begun(self._count)
        close_all(fds or [])
        self._channel.send(DECLINED, U64.pack(number), self._take_back(self._drop_packet))

    def _drop_packet(self, number: int) -> None:
        try:
            close_all(self._packets.take(number))
        except OSError:
            pass  # They were lost on the way.

    def send_line(self, data: bytes) -> None:
        """Send what a task has logged by loguru."""
        self._flush()
        self._channel.send(LINE, U64.pack(self.number()), data)

    def note(self, text: str) -> None:
        """Say something once in the whole program."""
        self._channel.send(NOTE, text.encode())

    def _take(self, kind: int, message: Any) -> None:
        if kind == TASK:
            self._run(memoryview(message)[TASK_HEAD.size :], *TASK_HEAD.unpack_from(message))
        elif kind == CHUNK:
            self._run_chunk(memoryview(message)[TASK_HEAD.size :], *TASK_HEAD.unpack_from(message))
        elif kind == TASK_WITH_BUFFERS:
            parcel = memoryview(message)[TASK_HEAD.size :]
            number, function, surroundings = TASK_HEAD.unpack_from(message)
            self._run(parcel, number, function, surroundings, self._take_descriptors(parcel))
        elif kind == FUNCTION:
            number, reusable = U64.unpack_from(message)[0], bool(message[U64.size])
            self._functions[number] = bytes(message[U64.size + 1 :]), reusable
        elif kind == FORGET:
            number = U64.unpack(message)[0]
            self._functions.pop(number, None)
            self._thawed.pop(number, None)
            self._called.discard(number)
            self._rebuilt.forget(number)
        elif kind == SURROUNDINGS:
            # Only the newest is kept: calls that were queued together share theirs.
            number = U64.unpack_from(message)[0]
            *around, self._context, initializer = loads(memoryview(message)[U64.size :])
            self._surroundings = {number: tuple(around)}
            self._due = 0 if initializer in self._initialized else initializer
            self._unready = self._initialized.get(initializer)
            if self._due or self._unready:
                self._thawed.clear()  # So that each task comes to `_thaw`.
        elif kind == SOURCE:
            name, text = marshal.loads(message)
            if name:
                keep_source(name, text)
            else:
                expect_versions(text)
        elif kind == SETTINGS:
            settings = loads(message)
            _, self._argv, _, _, self._disabled, *_ = settings
            apply_settings(*settings)

    def _prepare(self, number: int, surroundings: int) -> None:
        """Call the initializer where the call is to run; what it does to that place is put back before the call."""
        self._put_back(number, surroundings)
        self._initialize()
        self._placed = 0

    def _initialize(self) -> None:
        """Call the initializer that is due, before the first task that needs it; note what it raises."""
        initializer, self._due = self._due, 0
        self._unready = None
        try:
            self._base.run(call_initializer, self._thaw(initializer), dumps)
        except BaseException as error:
            self._unready = BaseException.with_traceback(error, own_trace(error))
        if self._is_copy:
            os._exit(0)
        self._apart = self._base.copy()
        self._initialized[initializer] = self._unready

    # --- one task ---

    def _run(
        self, arguments: Any, number: int, function: int, surroundings: int, fds: list[int] | None = None
    ) -> None:
        if not self._begin(number, fds):
            return
        kind, seconds, body = self._outcome(number, function, surroundings, arguments, fds)
        self._end(kind, number, seconds, body)

    def _begin(self, number: int, fds: list[int] | None = None) -> bool:
        """Take note that a task begins; False if it goes back instead."""
        self._count += 1
        if self._begun(self._count):
            self._do_not_begin(number, fds)
            return False
        self.task = number
        return True

    def _end(self, kind: int, number: int, seconds: float, body: bytes) -> None:
        self._put_back_streams()
        if self.stdout.line or self.stderr.line:
            self._flush()
        if self._is_copy:
            os._exit(0)  # The task forked, and this is the copy: it has no business with the parent.
        nesting.worker_task_over(failed=kind == FAILURE)
        if self._collector.pieces:
            pieces, self._collector = self._collector.pieces, Collector(find_again=False)
            try:
                parcel = pack(body, pieces, self._packets.send)
            except (OSError, MemoryError) as error:
                # An OSError of the connection means that the parent is gone; this one does not.
                self._channel.send_answer(FAILURE, number, seconds, pack_failure(error))
            else:
                self._channel.send(RESULT_WITH_BUFFERS, ENDED_HEAD.pack(number, seconds), *parcel)
        else:
            self._channel.send_answer(kind, number, seconds, body)
        if seconds > CAN_START_PROCESS:
            self._orphans += _has_zombie()

    def _outcome(
        self, number: int, function: int, surroundings: int, arguments: Any, fds: list[int] | None
    ) -> tuple[int, float, bytes]:
        """Run a task: (ATOM_RESULT, RESULT or FAILURE, seconds, what to send)."""
        clock = time.perf_counter
        began = clock()
        func: Any = None
        try:
            if self._due:
                self._prepare(number, surroundings)
            other, took, self._took = surroundings != self._placed, self._took, math.inf
            place = other or moves.may_be() or took > CAN_GO_UNSEEN
            self._put_back(number, surroundings, randomness=other or took > CAN_SEED, place=place)
            came = copies = None
            built = 0.0
            kwargs: dict[str, Any] = {}
            if type(arguments) is tuple:  # In a batch came the arguments themselves, if there was nothing else.
                func, args = self._thawed.get(function), arguments
            if func is None:
                # To take function and arguments out of their bytes may call code of the user, as the rest does.
                came = began = clock()
                if fds is None:
                    func = self._thaw(function)
                    built = clock() - came
                    if type(arguments) is not tuple:
                        args, kwargs = load_arguments(arguments)
                else:
                    func, args, kwargs = self._thaw_parcel(function, arguments, fds)
                copies = self._copies_of(function, func, args, kwargs)
            began = clock()
            if self._context:
                func = self._in_context(func)
            value = self._apart.run(func, *args, **kwargs)
            if type(value) is COROUTINE:
                value = self._apart.run(run_coroutine, value)
            seconds = clock() - began
            if copies is not None and value is None:
                self._tell(copies.changed())
            if built > FREE and len(self._functions[function][0]) < HEAVY:  # Otherwise that was told in the script.
                self._tell(self._rebuilt.note(function, func, built, seconds))
        except BaseException as error:
            close_all(fds or [])  # They are open still if it came that early.
            if self._is_copy:
                self._end_copy(error)
            return FAILURE, clock() - began, pack_failure(error)
        try:
            body = dump_atom(value)
            kind = ATOM_RESULT if body else RESULT
            body = body or dump_plain(value, self._collector)
            # Where all else was plain, nothing but the function was code of the user.
            self._took = seconds if came is None and kind == ATOM_RESULT else clock() - (came or began)
            return kind, seconds, body
        except BaseException as error:
            self._collector = Collector(find_again=False)
            reason = explain_result(value, function_name(func), error, dumps)
            return FAILURE, seconds, pack_failure(NotPicklable(f"{{task}} finished, but {reason}"), about_task=True)

    # --- many items of a map: what `chunks` needs ---

    def _run_chunk(self, arguments: Any, number: int, function: int, surroundings: int) -> None:
        if not self._begin(number):
            return
        began = time.perf_counter()
        self._around = surroundings
        if self._due:
            self._prepare(number, surroundings)
        self._put_back(number, surroundings)
        last = self._chunks.run(
            number,
            functools.partial(self._thaw_for_items, function),
            fresh=not self._functions[function][1],
            seeded=self._surroundings[surroundings][2] is not None,
            arguments=arguments,
        )
        self._took = math.inf
        self._end(RESULT, number, time.perf_counter() - began, dump_plain(last))

    def put_back(self, number: int, *, randomness: bool) -> None:
        """Make this process what an item of the running chunk expects, whatever the one before did to it."""
        nesting.worker_task_over()
        self._put_back(number, self._around, randomness=randomness, place=moves.may_be())

    def context(self) -> contextvars.Context:
        """Give the context for the next item: nothing of an item before it is set there."""
        return self._apart

    def end_item(self) -> int:
        """Send the begun lines of an item, for it has ended; count what was sent so far for the user to see."""
        self._put_back_streams()
        if self.stdout.line or self.stderr.line:
            self._flush()
        return self.stdout.sent + self.stderr.sent + self.displays.sent

    def pack_value(self, value: Any, func: Any) -> tuple[int, bytes]:
        """Serialise what an item returned."""
        try:
            return VALUE, dump_small(value)
        except BaseException as error:
            reason = explain_result(value, function_name(func), error, dumps)
            return FAILED, pack_failure(NotPicklable(f"{{task}} finished, but {reason}"), about_task=True)

    def pack_failure(self, error: BaseException) -> tuple[int, bytes]:
        """Serialise what an item raised."""
        if self._is_copy:
            self._end_copy(error)
        return FAILED, pack_failure(error)

    # --- around a task ---

    def _flush(self) -> None:
        """Send the begun lines."""
        self.stdout.flush()
        self.stderr.flush()

    def _put_back(self, number: int, surroundings: int, *, randomness: bool = True, place: bool = True) -> None:
        """Make this process what the call expects, whatever the task before did to it."""
        cwd, variables, seed = self._surroundings[surroundings]
        try:
            if place:
                self._placed = 0
                apply_surroundings(cwd, variables)
                self._placed = surroundings
                moves.seen = False
        except OSError as error:
            self.stderr.write(f"dummymp: task {number} runs in {_cwd()}, because {cwd} cannot be entered: {error}\n")
        if randomness or seed is not None:
            reseed(seed, number)
        if not _is_same(self._apart, self._base):
            self._apart = self._base.copy()
        root = logging.root
        if self.forwarder not in root.handlers:
            root.addHandler(self.forwarder)
        if root.manager.disable != self._disabled:
            logging.disable(self._disabled)
        if sys.argv != self._argv:
            sys.argv[:] = self._argv
        self._put_back_streams()

    def _put_back_streams(self) -> None:
        """Take back the streams that a task has replaced, with what stands in its own and is not written yet."""
        if sys.stdout is self.stdout and sys.stderr is self.stderr:
            return
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass  # It is closed, or no stream at all.
        sys.stdout, sys.stderr = self.stdout, self.stderr

    def _thaw(self, number: int, buffers: Sequence[Any] = ()) -> Callable[..., Any]:
        if self._unready is not None:
            raise BaseException.with_traceback(self._unready, own_trace(self._unready))
        func = self._thawed.get(number)
        if func is None:
            data, reusable = self._functions[number]
            func = loads(data, buffers=buffers)
            if is_read_from_stack(func):
                func = _named_as(func, call_on_stack, func)
            if reusable:
                self._thawed[number] = func
        return func

    def _copies_of(self, number: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Copies | None:
        """Note what a function may change in vain, the first time that it is called here."""
        if number in self._called:
            return None
        self._called.add(number)
        return Copies(func, args, kwargs)

    def _tell(self, text: str | None) -> None:
        if text is not None:
            self.note(text)

    def _in_context(self, func: Callable[..., Any]) -> Callable[..., Any]:
        if not self._context:
            return func
        return _named_as(func, call_with_values, load_values(self._context), func)

    def _thaw_for_items(self, number: int) -> Callable[..., Any]:
        func = self._thaw(number)
        call = self._in_context(func)
        return call if number in self._called else _named_as(func, self._call_first, number, func, call)

    def _call_first(self, number: int, func: Any, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function for an item, and compare copies, the first time."""
        copies = self._copies_of(number, func, args, kwargs)
        value = call(*args, **kwargs)
        if copies is not None and value is None:
            self._tell(copies.changed())
        return value

    def _take_descriptors(self, parcel: memoryview) -> list[int]:
        try:
            return self._packets.take(packet_of(parcel))
        except OSError:
            # A task before it used them up. The parent gives what is not begun to another worker.
            raise SystemExit(NO_DESCRIPTORS) from None

    def _thaw_parcel(self, number: int, parcel: memoryview, fds: list[int]) -> tuple[Any, Any, Any]:
        """Make a function and its arguments, with views of their large buffers that are nobody else's."""
        try:
            of_function, buffers, pickle = unpack(parcel, fds)
        finally:
            close_all(fds)
        return self._thaw(number, of_function), *load_arguments(pickle, functools.partial(loads, buffers=buffers))

    def leave_channel(self) -> None:
        """Stop using the connection: this process is a copy that a task forked."""
        self._is_copy = True
        self._channel.leave()
        self._chunks.leave()
        self.stdout.leave_channel()
        self.stderr.leave_channel()
        self.forwarder.leave_channel()
        intercept.leave()
        self.displays.leave_channel()

    def _end_copy(self, error: BaseException) -> NoReturn:
        """End a copy that a task forked as a script ends that raises this."""
        code: Any = 1
        try:
            if not isinstance(error, SystemExit):
                print(story(error), file=sys.stderr)
            elif error.code is None or isinstance(error.code, int):
                code = (error.code or 0) & 0xFF
            else:
                print(error.code, file=sys.stderr)
            self.stdout.flush()
            self.stderr.flush()
        finally:
            os._exit(code)


def _named_as(func: Callable[..., Any], call: Callable[..., Any], *args: Any) -> Callable[..., Any]:
    """Give a partial that messages call by the name of a function."""
    partial = functools.partial(call, *args)
    partial.__name__ = function_name(func)  # type: ignore[attr-defined]
    return partial


def _is_same(one: contextvars.Context, other: contextvars.Context) -> bool:
    try:
        return one == other  # In one step, if nothing was set there.
    except Exception:
        return False  # So says a value of a class of the user's.


def _has_zombie() -> bool:
    """Tell whether a child has ended and nobody has asked for it; leave it as it is."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except (AttributeError, OSError):
        return False  # No children at all, as nearly always; or Windows.


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "a directory that is gone"


# --- the process around the loop ---------------------------------------------------------------------------------


def main(fds: list[int], number: int, nice: int) -> None:
    """Be worker `number`, over the descriptors that the launcher made, until the parent has no more use for it."""
    import socket

    for fd in fds:
        os.set_inheritable(fd, False)
    connection, control, stdout, stderr, page_fd = fds
    page = Page.open(page_fd)
    begun = _nothing if page is None else page.begin
    os.close(page_fd)
    # What C code and other programs write goes to the parent, too.
    for fd, target in ((stdout, STDOUT), (stderr, STDERR)):
        os.dup2(fd, target)
        os.close(fd)
    to_regroup = 0 if niceness.set_apart(nice) else nice

    main_socket = socket.socket(fileno=connection)
    main_socket.setblocking(True)  # A sitecustomize may have called socket.setdefaulttimeout().
    control_socket = socket.socket(fileno=control)
    packets = WaitingPackets(control_socket)
    worker = Worker(WorkerChannel(main_socket, page), f"Worker-{number}", begun, packets, page)
    threading.Thread(
        target=_watch,
        args=(control_socket, packets, main_socket, worker, to_regroup),
        name="dummymp-watch",
        daemon=True,
    ).start()
    _serve(worker)


def main_spawned(connection: Any, control: Any, number: int, nice: int) -> None:
    """Be worker `number` where multiprocessing started us (Windows)."""
    worker = Worker(WorkerChannel(connection), f"Worker-{number}")
    threading.Thread(target=_watch_pipe, args=(control,), name="dummymp-watch", daemon=True).start()
    niceness.set_apart(nice)
    _serve(worker)


def _serve(worker: Worker) -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None:
            # Ctrl-C is the parent's business; SIGTERM must end even a task in C code, so Python does not handle it.
            signal.signal(number, signal.SIG_IGN if name == "SIGINT" else signal.SIG_DFL)
    # What C code was doing says nothing to the user (shown since Python 3.14).
    faulthandler.enable(file=STDERR, **({"c_stack": False} if sys.version_info >= (3, 14) else {}))
    make_main()
    set_numbering(worker.number)
    _own = sys.__stdout__, sys.__stderr__  # Kept, for what a sitecustomize printed there is not for the script.
    # As in a script they are the same, for who goes back to them. Python's own would lose what it holds when we end.
    sys.stdout = sys.__stdout__ = worker.stdout  # type: ignore[misc, assignment]
    sys.stderr = sys.__stderr__ = worker.stderr  # type: ignore[misc, assignment]
    logging.root.handlers[:] = [worker.forwarder]
    refuse_questions()
    displays.enter_worker(worker.displays)
    intercept.enter_worker(worker.send_line)
    forget_bootstrap()
    moves.watch()
    nesting.enter_worker(worker.note)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=worker.leave_channel)
    code = 0
    try:
        worker.loop()
    except SystemExit as leave:
        code = NO_DESCRIPTORS if leave.code == NO_DESCRIPTORS else 70
    except BaseException as error:
        # A fault of ours, not of a task. It must be seen, and the parent blames the task that was running.
        code = 70
        os.write(STDERR, story(error).encode("utf-8", "backslashreplace"))
    finally:
        _leave(worker, code)


def _leave(worker: Worker, code: int) -> None:
    """End this process as a script ends: wait for the threads of tasks, call what they registered with `atexit`."""
    try:
        limit = threading.Timer(LEAVE_LIMIT, _leave_now, (code,))
        limit.daemon = True
        limit.start()
        # Nothing public does this without ending the interpreter, part for part. A Python without them does the rest.
        ends = getattr(threading, "_shutdown", None), getattr(atexit, "_run_exitfuncs", None)
        for end in (*ends, worker.stdout.flush, worker.stderr.flush):
            try:
                if end is not None:
                    end()
            except BaseException:
                pass  # As at the end of a script, where what follows is done all the same.
    finally:
        os._exit(code)


def _leave_now(code: int) -> None:
    text = (
        "dummymp: a worker was ended: a thread that a task started, or what a task registered with atexit, "
        f"went on for {LEAVE_LIMIT:g} s\n"
    )
    try:
        os.write(STDERR, text.encode())
    finally:
        os._exit(code)


def _watch(control: Any, packets: WaitingPackets, main_socket: Any, worker: Worker, to_regroup: int) -> None:
    """Wait for the end of the parent, and end this process and its group at once; end it, too, when long idle."""
    import select
    import socket

    from . import processes

    processes.adopt_orphans()
    control.setblocking(True)  # A limit would hold for sending, too, and the main thread sends without waiting.
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        try:
            if poll.poll(1000 * (REGROUP_SECONDS if to_regroup else IDLE_SECONDS)):
                orders = packets.receive()
                if orders is None:
                    break
                if CALL_BACK in orders:
                    worker.give_back()
                continue
            if to_regroup:
                to_regroup = 0 if niceness.regroup(to_regroup) else to_regroup
                continue
            since = worker.waiting_since()
            if since is not None and time.monotonic() - since >= IDLE_SECONDS:
                # The main thread finds the connection at its end. Had a task just come, it still runs it, or the
                # parent sees that it was not begun and gives it to another.
                main_socket.shutdown(socket.SHUT_RD)
        except OSError:
            break
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _watch_pipe(control: Any) -> None:
    from . import processes

    try:
        control.recv_bytes()
    except (EOFError, OSError):
        pass
    processes.end(processes.descendants(os.getpid(), processes.table()))
    os._exit(1)

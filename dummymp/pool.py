# SPDX-License-Identifier: MIT
"""The pool: the workers that live, starting them, finding one that fits, and ending them."""

from __future__ import annotations

import functools
import io
import math
import os
import time
from typing import TYPE_CHECKING, Callable

from . import forkserver, niceness, processes
from .boot import without_colors
from .descriptors import reserve
from .errors import WorkersCannotStart
from .handle import WorkerHandle
from .launcher import make_launcher
from .log import logger
from .versions import keep_texts, look_again
from .waiting import make_selector

if TYPE_CHECKING:
    from .options import Options
    from .surroundings import Surroundings

__all__ = ["KILL_GRACE", "Pool"]

# So many workers in a row may end before they are ready, until we give up.
START_TRIES = 3
# A worker must be up within so many seconds. It takes milliseconds, but Python itself may need half a minute where it
# lies on a network drive that all nodes of a cluster read from. Larger: what hangs while it starts is noticed later;
# smaller: what is only slow would never come up.
START_LIMIT = 60.0
# A worker that was told to end must have within so many seconds: longer than worker.LEAVE_LIMIT, which is nearly always
# enough. Longer: what C code holds up there is in the way for longer.
RETIRE_LIMIT = 15.0
# While more workers than this, and twice as many as serve, are about to end, no other one is started: what their tasks
# left behind, such as threads, keeps them. Larger: more memory is held; smaller: new workers wait for old ones.
MOST_LEAVING = 32
# A killed task has so many seconds between SIGTERM and SIGKILL. Longer: programs that a task started may tidy up;
# shorter: a stubborn one is in the way for less time.
KILL_GRACE = 0.5
# The server answers in milliseconds; it is given so many seconds.
PID_LIMIT = 2.0


class Pool:
    """The workers of the program.

    Args:
        readable: Is called with a worker whose connection, or whose output, has something to read.

    Attributes:
        handles: Those that have not been buried, by number.
        idle: Those that wait for a task, longest first.
        selector: Where everybody sleeps.
        failure: Why no worker comes up, once it is clear that none does.
        reloads: What `modules.reloads` said last. Workers from before may know modules as they were: they get no tasks.
    """

    def __init__(self, readable: Callable[[WorkerHandle], None]) -> None:
        self._readable = readable
        self._launcher = make_launcher()
        self.selector = make_selector(self._launcher.sentinels)
        self.handles: dict[int, WorkerHandle] = {}
        self.idle: list[WorkerHandle] = []
        self.failure: WorkersCannotStart | None = None
        self.reloads = 0
        self._numbers = 0
        self._failures = 0
        self._ceiling: int | None = None
        self._has_server = False
        self._server_lost = False
        # Ends that were heard of while we waited for something else.
        self._heard: list[tuple[WorkerHandle, int | None]] = []

    # --- finding and starting ---

    def prepare(self) -> None:
        """Get ready to start workers; if that fails, the first worker says so."""
        self._notice_loss()
        try:
            self._launcher.prepare()
        except OSError:
            pass

    def worker_for(self, options: Options, surroundings: Surroundings) -> WorkerHandle | None:
        """Find an idle worker for a task, or start one; None if neither can be had now."""
        method, limits, nice = options.method(), surroundings.limits, options.priority.nice
        for handle in reversed(self.idle):
            fits = handle.method == method and handle.limits == limits and handle.reloads == self.reloads
            if fits and self._renice(handle, nice):
                self.idle.remove(handle)
                return handle
        if self._ceiling is not None and len(self.handles) >= self._ceiling:
            return None
        leaving = sum(handle.retiring for handle in self.handles.values())
        if leaving > MOST_LEAVING + 2 * (len(self.handles) - leaving):
            return None
        if self.idle:
            # One of the wrong kind leaves, so that there are never more of them than may run.
            self.retire(self.idle.pop(0))
        return self._start(method, surroundings, nice)

    def _renice(self, handle: WorkerHandle, nice: int) -> bool:
        """Give a worker another niceness; False if that cannot be."""
        if handle.nice == nice:
            return True
        if handle.pid is None or handle.nice is None or not niceness.may_become(nice, before=handle.nice):
            return False
        # It may change in part only, and then fits nobody.
        handle.nice = nice if niceness.change(handle.pid, nice) else None
        return handle.nice is not None

    def _start(self, method: str, surroundings: Surroundings, nice: int) -> WorkerHandle | None:
        self._notice_loss()
        self._numbers += 1
        threads, limits = surroundings.threads, surroundings.limits
        for tries_left in reversed(range(START_TRIES)):
            try:
                started = self._launcher.start(self._numbers, method=method, nice=nice, threads=threads)
                break
            except ConnectionError as error:
                self._hear()  # The server is gone; the next try starts another.
                if not tries_left:
                    self._cannot_start(f"the server that starts them ends at once ({error}). {self._launcher.said}")
                    return None
            except OSError as error:
                self._cannot_start(str(error))
                return None
        start_by = time.monotonic() + START_LIMIT
        handle = WorkerHandle(self._numbers, started, method=method, limits=limits, nice=nice, start_by=start_by)
        handle.reloads = self.reloads
        self.handles[handle.number] = handle
        reserve.hold()
        for source in (handle.channel, *handle.pipes):
            self.selector.add(source, functools.partial(self._readable, handle))
        if not self._has_server and self._launcher.fileno() >= 0:
            self._has_server = True
            self.selector.add(self._launcher, self._hear, urgent=True)
        self._wake_if_pending()
        # Before it imports them. It takes a few milliseconds to come up, so this costs no time.
        look_again()
        keep_texts()
        return handle

    def _wake_if_pending(self) -> None:
        """See that what the server has said, and was heard out of turn, is not slept upon."""
        if self._heard or self._launcher.pending:
            self.selector.wake()

    def _cannot_start(self, why: str) -> None:
        """Go on with fewer workers where there are some: few descriptors or processes are no failure."""
        if self.handles:
            self._ceiling = len(self.handles)
            logger().debug("no further worker beside %d: %s", self._ceiling, why)
        else:
            self.failure = WorkersCannotStart(f"no worker can be started: {why}. The tasks are still queued")

    def ready(self, handle: WorkerHandle, pid: int) -> None:
        """Take note that a worker is up."""
        handle.ready = True
        handle.pid = pid
        if handle.orphan:
            handle.process = processes.table().get(pid)
            if handle.killed:
                self.end_without_server(handle)  # Until now nobody knew whom to end.
            self._watch_orphan(handle)
        handle.start_clock()

    def start_too_slow(self, handle: WorkerHandle) -> None:
        """End a worker that is not up after `START_LIMIT`, or the server, if that has not even told of it."""
        handle.deadline = None
        handle.start_by = math.inf
        handle.last_words += (
            f"\n(It was not ready after {START_LIMIT:g} s, and was ended. Something that Python runs at its start may "
            "hang: a sitecustomize, a .pth file, a folder of sys.path on a drive that does not answer.)"
        )
        logger().warning("a worker did not start within %g s; another one is tried", START_LIMIT)
        if handle.pid is None and not handle.orphan:
            self._launcher.kill_server()
        self.end(handle, grace=0.0)

    def proved(self) -> None:
        """Take note that a worker has answered: they do start."""
        self._failures = 0

    def start_failed(self, handle: WorkerHandle, status: int | None) -> None:
        """Take note that a worker, buried already, ended before it was ready."""
        if handle.orphan:
            if not self._server_lost:
                return  # One server that is gone counts once, however many workers it was to start.
            self._server_lost = False
        if any(other.ready for other in self.handles.values()):
            self._cannot_start(handle.last_words)
            return
        # Several that start at the same moment may be one too many, where one alone would come up.
        self._ceiling = max(1, len(self.handles))
        self.count_failure(handle, status)

    def count_failure(self, handle: WorkerHandle, status: int | None) -> None:
        """Count a worker that ended before it began its first task; after so many in a row we give up."""
        self._failures += 1
        if self._failures >= START_TRIES:
            self._failures = 0
            said = without_colors(handle.last_words).strip() or f"(nothing; its exit code was {status})"
            self.failure = WorkersCannotStart(
                f"workers cannot start: {START_TRIES} in a row ended before they began a task. The last one said:\n"
                f"{said}\nThe tasks are still queued. When the cause is mended, dummymp.process_until_done() goes on"
            )
            if not self.handles:
                self.end_all(0.0)  # The next server starts with the environment of then, in which it may be mended.

    def try_again(self) -> None:
        """Forget that the system would not give us more workers: it may have more by now."""
        self._ceiling = None

    def flush(self, handle: WorkerHandle) -> None:
        """Write what waits for room in the pipe, and ask to be woken for what still does not fit."""
        self.selector.want_room(handle.channel, not handle.channel.flush())

    # --- ending ---

    def ended(self) -> list[tuple[WorkerHandle, int | None]]:
        """Give the workers that have ended since, and how: exit code, minus the signal's number, None if unknown."""
        if self._launcher.pending or self._launcher.fileno() < 0:  # No server: on Windows, or because it was stuck.
            self._hear()
        heard, self._heard = self._heard, []
        return heard

    def _hear(self) -> None:
        self._heard += self._listen()

    def _listen(self) -> list[tuple[WorkerHandle, int | None]]:
        found: list[tuple[WorkerHandle, int | None]] = []
        for notice in self._launcher.notices() or ():
            handle = self.handles.get(notice.number)
            if handle is None:
                continue
            if notice.what == forkserver.STARTED:
                handle.pid = notice.value
            elif notice.what == forkserver.ENDED:
                handle.peak = notice.peak
                found.append((handle, notice.value))
            else:
                handle.last_words = os.strerror(notice.value)
                found.append((handle, None))
        if self._has_server and self._launcher.fileno() < 0:
            found += self._lose_server()
        return found

    def _notice_loss(self) -> None:
        """See that a server that was found stuck, and ended, is known as lost before there is another."""
        if self._has_server and self._launcher.fileno() < 0:
            self._hear()
            self.selector.wake()

    def _lose_server(self) -> list[tuple[WorkerHandle, int | None]]:
        """Go on without the server. Its workers live on; of those that it may not have started the connections tell.

        They close if nobody holds the other end. A worker that it had started and not told of says that it is ready.
        """
        self.selector.remove(self._launcher)
        self._has_server = False
        self._server_lost = True
        self._ceiling = None
        lost: list[tuple[WorkerHandle, int | None]] = []
        everyone = processes.table()
        for handle in self.handles.values():
            handle.orphan = True
            handle.process = everyone.get(handle.pid or -1)
            if handle.pid is None:
                handle.last_words = self._launcher.said + handle.last_words
            elif handle.killed:
                self.end_without_server(handle)  # The server may have gone before it read that.
            if handle.closing:
                lost.append((handle, None))  # It has ended, and now nobody tells how.
            elif handle.pid is not None:
                self._watch_orphan(handle)
        return lost

    def _watch_orphan(self, handle: WorkerHandle) -> None:
        """Hear of the end of a worker that has no server any more, also if a copy of it holds the connection open."""
        if handle.pid is None or handle.pidfd is not None or not hasattr(os, "pidfd_open"):
            return  # Linux 5.3; elsewhere the end of the connection has to do.
        try:
            handle.pidfd = io.FileIO(os.pidfd_open(handle.pid))
        except ProcessLookupError:
            self._heard.append((handle, None))
        except OSError:
            pass
        else:
            self.selector.add(handle.pidfd, lambda: self._heard.append((handle, None)), urgent=True)

    def retire(self, handle: WorkerHandle) -> None:
        """Let a worker that has nothing to do end in good order."""
        handle.stop()
        handle.deadline = time.monotonic() + RETIRE_LIMIT
        self.flush(handle)

    def leaves(self, handle: WorkerHandle) -> None:
        """Take note that a worker that has nothing to do ends by itself, in good order."""
        handle.retiring = True
        handle.deadline = time.monotonic() + RETIRE_LIMIT
        if handle in self.idle:
            self.idle.remove(handle)

    def end(self, handle: WorkerHandle, *, grace: float) -> None:
        """End a worker and all that it started: SIGTERM, and after `grace` seconds (0: at once) SIGKILL."""
        handle.killed = True
        if handle.orphan or not self._launcher.kill(handle.number, grace=grace):
            self.end_without_server(handle)
        self._wake_if_pending()

    def end_without_server(self, handle: WorkerHandle) -> None:
        """Kill a worker and what it started, as far as it can be seen from here."""
        if handle.pid is None:
            return
        everyone = processes.table()
        process = everyone.get(handle.pid)
        if process is not None and handle.process is not None and process.started != handle.process.started:
            return  # Somebody else has its pid, which a group of its own that lives on would have kept.
        victims = {handle.pid} | processes.descendants(handle.pid, everyone)
        processes.end((victims | processes.group_members(handle.pid, everyone)) & everyone.keys())

    def remove(self, handle: WorkerHandle) -> None:
        """Forget a worker that has ended, and close what connected us."""
        self.handles.pop(handle.number, None)
        if handle in self.idle:
            self.idle.remove(handle)
        for source in (handle.channel, handle.pidfd, *handle.pipes):
            self.selector.remove(source)
        handle.close()

    def end_all(self, grace: float, last_look: Callable[[WorkerHandle], object] = lambda handle: None) -> None:
        """End every worker and the server; at most 2 s. The next task starts new ones.

        Each worker that had no task is given to `last_look` when it has ended, before its connection is closed.
        """
        idle = [handle for handle in self.handles.values() if not handle.assigned]
        for handle in self.handles.values():
            if handle.assigned:
                self.end(handle, grace=grace)
            elif not handle.retiring:
                handle.stop()
        self.selector.remove(self._launcher)
        self._has_server = False
        reserve.release()
        self._launcher.close()
        for handle in idle:
            last_look(handle)
        for handle in list(self.handles.values()):
            if handle.orphan:
                self.end_without_server(handle)
            self.remove(handle)

    def abandon(self) -> None:
        """Let go of everything without ending it: we are a copy of the process that owns it, made by os.fork()."""
        self.selector.close()
        reserve.release()
        for handle in self.handles.values():
            handle.close()
        self._launcher.abandon()

    # --- questions ---

    def own_pids(self) -> list[int]:
        """Give the process ids of what is ours: this process, the server, and the workers."""
        return [os.getpid(), *self._launcher.pids, *(h.pid for h in self.handles.values() if h.pid is not None)]

    def worker_pids(self) -> list[int]:
        """Give the process ids of the workers that live, starting ones too; what ended meanwhile is buried later."""
        self.learn_pids()
        self._hear()
        self._wake_if_pending()
        ended = [handle for handle, _ in self._heard]
        serving = [h for h in self.handles.values() if h.pid is not None and not h.retiring and h not in ended]
        # One that has only just ended may still be on its way through the server.
        return [handle.pid for handle in serving if handle.pid is not None and processes.lives(handle.pid)]

    def learn_pids(self) -> None:
        """Wait for the server to say which processes it has started: some milliseconds."""
        until = time.monotonic() + PID_LIMIT
        while self._has_server and time.monotonic() < until:
            if all(handle.pid is not None or handle.orphan for handle in self.handles.values()):
                return
            self.selector.wait_for_fd(self._launcher.fileno(), until - time.monotonic())
            self._hear()
            self._wake_if_pending()

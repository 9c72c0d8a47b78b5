# SPDX-License-Identifier: MIT
"""Windows: waiting for pipes and processes, which a selector cannot do there. Works elsewhere, too, for tests."""

from __future__ import annotations

from typing import Any, Callable

__all__ = ["PipeSelector"]


class PipeSelector:
    """Does what `waiting.Selector` does, by `multiprocessing.connection.wait`.

    Args:
        sentinels: Gives the handles of processes whose end shall wake us.
    """

    def __init__(self, sentinels: Callable[[], list[int]] = list) -> None:
        import multiprocessing

        self._sentinels = sentinels
        self._added: dict[int, tuple[Any, Callable[[], object]]] = {}
        # Any thread may write a byte into it to wake the one that waits.
        self._alarm, self._bell = multiprocessing.Pipe(duplex=False)

    def add(self, source: Any, callback: Callable[[], object], *, urgent: bool = False) -> None:
        """Watch a connection for something to read."""
        self._added[id(source)] = (getattr(source, "pipe", source), callback)

    def remove(self, source: Any) -> None:
        """Stop watching; again is fine."""
        self._added.pop(id(source), None)

    def want_room(self, source: Any, wanted: bool) -> None:
        """Do nothing: writes to a pipe block."""

    def wait(self, timeout: float | None) -> list[Callable[[], object]]:
        """Sleep until something is ready, or `timeout` seconds passed."""
        from multiprocessing.connection import wait

        callbacks = {id(connection): callback for connection, callback in self._added.values()}
        sources: list[Any] = [connection for connection, _ in self._added.values()]
        ready = wait([*sources, *self._sentinels(), self._alarm], timeout)
        if self._alarm in ready:
            self._alarm.recv_bytes()
        return [callbacks[id(source)] for source in ready if id(source) in callbacks]

    def nap(self, seconds: float) -> None:
        """Return at once: here nothing is sent ahead, so every answer is waited for."""

    def wait_for_fd(self, fd: int, timeout: float) -> None:
        """Return at once: process ids are known as soon as a worker is started."""

    def wake(self) -> None:
        """Make `wait` return; from any thread."""
        self._bell.send_bytes(b".")

    def close(self) -> None:
        """Close it, and nothing that was added."""
        self._alarm.close()
        self._bell.close()

# SPDX-License-Identifier: MIT
"""Descriptors of memory files on their way between the parent and one worker, beside the stream of messages.

They go in packets over the control connection, each before the message that needs it, and are matched by number: a
message that was taken back, or that nobody wants any more, must not leave its descriptors to the next one.
"""

from __future__ import annotations

import array
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Packets", "WaitingPackets", "reserve"]

_PACKET = struct.Struct("<cQI")  # _MARK, number, count of descriptors
_MARK = b"D"
# Room for the descriptors of one packet (buffers.MAX_FILES); a read never gives those of two.
_ROOM = 64 * array.array("i").itemsize
# Without waiting, and without SIGPIPE, which ends a script that has put it back to its default. Not macOS.
_FLAGS = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)
# Where the kernel cannot do it, descriptors are inheritable for a moment.
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Packets:
    """One end: sends packets and takes those that came. Any object that is no socket (Windows) sends none.

    Args:
        control: The control connection; it belongs to the caller.
    """

    def __init__(self, control: Any) -> None:
        self._control = control
        self._sent = 0
        self._data = b""
        self._fds: list[int] = []
        self._pending: dict[int, list[int]] = {}
        self._lost = False

    def send(self, fds: list[int]) -> int:
        """Send descriptors, without waiting; give the number of the packet, 0 if it cannot be done."""
        if not fds or not hasattr(self._control, "sendmsg"):
            return 0
        self._sent += 1
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        try:
            self._control.sendmsg([_PACKET.pack(_MARK, self._sent, len(fds))], rights, _FLAGS)
        except OSError:
            return 0  # No room, too many on their way (ETOOMANYREFS), or the other end is gone.
        return self._sent

    def take(self, number: int) -> list[int]:
        """Give the descriptors of a packet that has come, and close those of older ones; the caller closes these.

        Raises:
            OSError: They were lost, because this process had no room for them.
        """
        if not number:
            return []
        while number not in self._pending:
            try:
                if self._read(socket.MSG_DONTWAIT) is None:
                    break
            except BlockingIOError:
                break
        found = self._pending.pop(number, None)
        for older in [older for older in self._pending if older < number]:
            self._drop(older)
        if found is None:
            raise OSError("descriptors were lost on the way: this process has too many files open")
        return found

    def close(self) -> None:
        """Close the descriptors that nobody took; what is still on its way goes with the connection."""
        for number in list(self._pending):
            self._drop(number)

    def _read(self, flags: int = 0) -> bytes | None:
        """Read once; give what is no packet, None at the end."""
        data, ancillary, _, _ = self._control.recvmsg(4096, socket.CMSG_SPACE(_ROOM), flags | _CLOEXEC)
        for level, kind, rights in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
                self._fds += fds
        if not data:
            return None
        for fd in self._fds if not _CLOEXEC else ():
            os.set_inheritable(fd, False)
        return self._sort(data)

    def _sort(self, data: bytes) -> bytes:
        """Put complete packets among those that wait; give what is no packet."""
        data, others = self._data + data, b""
        while data:
            if data[:1] != _MARK:
                others += data[:1]
                data = data[1:]
                continue
            if len(data) < _PACKET.size:
                break
            _, number, count = _PACKET.unpack_from(data)
            data = data[_PACKET.size :]
            self._pending[number], self._fds = self._fds[:count], self._fds[count:]
            if len(self._pending[number]) < count:
                self._lost = True  # The kernel cut off what had no room here; those of other packets are whole.
                self._drop(number)
        self._data = data
        return others

    def _drop(self, number: int) -> None:
        for fd in self._pending.pop(number, ()):
            os.close(fd)


class WaitingPackets(Packets):
    """A worker's end: one thread reads (`receive`), another one waits for its packet (`take`)."""

    def __init__(self, control: Any) -> None:
        super().__init__(control)
        self._came = threading.Condition()
        self._unwanted: set[int] = set()

    def receive(self) -> bytes | None:
        """Wait for something to come; give the orders that came beside packets, None if the parent is gone."""
        orders = self._read()
        with self._came:
            for number in self._unwanted & self._pending.keys():
                self._unwanted.remove(number)
                self._drop(number)
            self._came.notify_all()
        return orders

    def take(self, number: int) -> list[int]:
        """Wait for a packet, which was sent before the message that belongs to it. Raises as `Packets.take`."""
        if not number:
            return []
        with self._came:
            while number not in self._pending and not self._lost:
                self._came.wait()
            found = self._pending.pop(number, None)
        if found is None:
            raise OSError("descriptors were lost on the way: this process has too many files open")
        return found

    def drop(self, number: int) -> None:
        """Close the descriptors of a packet whose message was taken back; called by the thread that reads."""
        if number:
            with self._came:
                if number not in self._pending:
                    self._unwanted.add(number)  # An order that was read late came before it.
                self._drop(number)


class _Reserve:
    """A descriptor held back for the moment in which one comes: what does not fit would be lost by the kernel.

    ::

        with reserve:
            fds = packets.take(number)
    """

    def __init__(self) -> None:
        self._fd = -1

    def hold(self) -> None:
        """Hold one back, if there is one."""
        if self._fd < 0:
            try:
                self._fd = os.open(os.devnull, os.O_RDONLY)
            except OSError:
                pass

    def release(self) -> None:
        """Let it go."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> None:
        self.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hold()


reserve = _Reserve()

"""When something arrived: by the kernel's own receive stamps, or as soon as this process knew."""

from __future__ import annotations

import platform
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress

# More than a TLS record (16 KiB): nothing decrypted stays behind where no epoll sees it.
READ_BYTES = 1 << 16
_TIMESPEC = struct.Struct("qq").unpack_from
# Where SO_TIMESTAMPING has its usual number, and a long 64 bits.
_GENERIC = ("x86_64", "aarch64", "riscv64", "s390x")


Reader = Callable[[socket.socket, int], tuple[int, bytes]]
"""Reads what is there on a socket that was reported at a time: the stamp of it, and the data."""

now_ns = time.monotonic_ns
"""The one clock of the measuring process (CLOCK_MONOTONIC), in nanoseconds."""


class KernelStamps:
    """Reads with the kernel's own receive stamps.

    They are of CLOCK_REALTIME, which may be set meanwhile. What is read was not there when epoll
    was asked the time before, at ``since_ns``: a stamp from before that, or from after the read,
    is of a clock that was set, and the moment of the report stands instead. Sources: Linux,
    Documentation/networking/timestamping.rst; the flags are those of linux/net_tstamp.h.
    """

    FLAGS = 1 << 3 | 1 << 4  # SOF_TIMESTAMPING_RX_SOFTWARE, SOF_TIMESTAMPING_SOFTWARE
    OPTION: int | None = 37 if sys.platform == "linux" and platform.machine() in _GENERIC else None
    ROOM = socket.CMSG_SPACE(48)

    def __init__(self) -> None:
        self.since_ns = self.untold = 0
        self.look()

    def look(self) -> None:
        """How far the two clocks are apart: the pair of readings that was nearest to each other."""
        pairs = [(now_ns(), time.time_ns(), now_ns()) for _ in range(5)]
        before, real, after = min(pairs, key=lambda pair: pair[2] - pair[0])
        self.ahead_ns = real - (before + after) // 2

    @classmethod
    def ask(cls, sock: socket.socket) -> bool:
        """Have the kernel stamp what this socket receives, if it can."""
        if cls.OPTION is None:
            return False
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, cls.OPTION, cls.FLAGS)
            return True
        return False

    def __call__(self, sock: socket.socket, ready_ns: int) -> tuple[int, bytes]:
        """Read what is there."""
        data, told, _, _ = sock.recvmsg(READ_BYTES, self.ROOM)
        if told:
            seconds, ns = _TIMESPEC(told[0][2])
            stamp = seconds * 1_000_000_000 + ns - self.ahead_ns
            if self.since_ns <= stamp <= now_ns():
                return stamp, data
        self.untold += bool(data)
        return ready_ns, data


def read_stamped(sock: socket.socket, ready_ns: int) -> tuple[int, bytes]:
    """Read what is there; the stamp is the moment epoll reported it."""
    return ready_ns, sock.recv(READ_BYTES)

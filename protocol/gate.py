"""Shuts a listening TCP socket for newcomers, while those who are connected go on.

Never counts, and never closes what it was given. ZeroMQ has no way to stop accepting: to unbind
closes the connections that stand (docs/decisions.md). So the kernel is asked to drop what comes to
the listening socket itself. Where it cannot, newcomers are refused one by one, after the handshake.
"""

import contextlib
import ctypes
import os
import socket
import struct
import sys
from typing import Final

# From <asm-generic/socket.h>, the same on every architecture that Python is built for by default.
_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27
#: "return 0": keep no byte of any packet
_DROP_ALL: Final = struct.pack("HBBI", 0x06, 0, 0, 0)


def hang_up(fd: int, port: int) -> None:
    """End a connection that another thread, or a library, reads: it will see that.

    Args:
        fd: of the connection. It may have ended meanwhile and the number be another's.
        port: to which it came: what did not is left alone.
    """
    # A descriptor of a connection that has ended is none, or no socket, or has no peer.
    with contextlib.suppress(OSError):
        duplicate = os.dup(fd)
        try:
            connection = socket.socket(fileno=duplicate)
        except OSError:
            os.close(duplicate)
            return
        with connection:
            if connection.getsockname()[1] == port and connection.getpeername():
                connection.shutdown(socket.SHUT_RDWR)


class Gate:
    """The way in of one listening socket.

    Args:
        fd: the listening socket's descriptor; a duplicate of it is kept.
    """

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=os.dup(fd))
        self.shut = False

    def turn(self, *, shut: bool) -> None:
        """Let nobody in any more, or again."""
        if shut == self.shut:
            return
        self.shut = shut
        if not sys.platform.startswith("linux"):
            return
        # A kernel that refuses leaves the door open; the answers to the handshakes are left.
        with contextlib.suppress(OSError):
            if shut:
                program = ctypes.create_string_buffer(_DROP_ALL, len(_DROP_ALL))
                asked = struct.pack("HP", 1, ctypes.addressof(program))
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, asked)
            else:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)

    def close(self) -> None:
        """Keep the descriptor no longer."""
        self._socket.close()

"""Ports of this machine that are a test's own, though nobody listens at them yet.

Never a port that was free a moment ago: the kernel gives such ones to whoever connects next.
"""

import socket


def own_port() -> int:
    """Return a port that nobody else is given; connections to it are refused until one listens.

    Who listens there must allow, as ZeroMQ and sshd do, that it is in use (SO_REUSEADDR).
    """
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind(("127.0.0.1", 0))
    port = int(keeper.getsockname()[1])
    keeper.detach()  # it stays bound as long as this process lives
    return port

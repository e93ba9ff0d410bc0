"""Strangers at a door on the network: no key, a foreign one, or the key of another role.

Never judges. Some have a client's key and say what they should not; the rest should never get a
word in.
"""

import contextlib
import socket
import time
from collections.abc import Callable
from random import Random
from typing import Any, Final

import zmq
from drumbeat.protocol import codec
from drumbeat.protocol.frames import Refused, Role
from drumbeat.protocol.keys import Address, Credentials
from drumbeat.protocol.sockets import public_key
from fuzz.strangers import WAIT_S, Strangers
from msgspec.structs import replace

HALF_OPEN_MAX: Final = 2_000
#: connections of one act
BURST: Final = 20


class Mob(Strangers):
    """See the module.

    Args:
        client: a client's address.
        node: a node's keys.
        rng: chance.
    """

    def __init__(self, client: Address, node: Credentials, rng: Random) -> None:
        super().__init__(client.endpoint, rng)
        self.client = client
        self.node = node
        self.half_open_max = HALF_OPEN_MAX
        host, _, port = client.endpoint.removeprefix("tcp://").rpartition(":")
        self._where = host, int(port)

    def acts(self) -> list[tuple[Callable[[], None], int]]:
        return [
            *super().acts(), (self.many_half_open, 20), (self.junk, 15), (self.no_key, 3),
            (self.foreign_key, 3), (self.a_node_that_submits, 4), (self.a_client_as_a_node, 4),
        ]  # fmt: skip

    def many_half_open(self) -> None:
        for _ in range(BURST):
            self.stay_half_open()

    def junk(self) -> None:
        for _ in range(BURST):
            self.wild()

    def no_key(self) -> None:
        self._knock(None)

    def foreign_key(self) -> None:
        self.expected["keys_refused"] += 1
        self._knock(Credentials(self.client.credentials.server_key, self.rng.randbytes(32)))

    def a_node_that_submits(self) -> None:
        self._come(self.node, Role.CLIENT)

    def a_client_as_a_node(self) -> None:
        self._come(self.client.credentials, Role.NODE)

    def _come(self, credentials: Credentials, role: str) -> None:
        hello = replace(self._hello(self.rng.randbytes(6)), role=role)
        with self._with(credentials) as dealer:
            dealer.send(codec.encode(hello))
            read = self._read(dealer)
            assert isinstance(read, Refused)
            assert read.error == "KeyRefused"
        self.said["frames"] += 1
        self.said["other roles"] += 1
        self.expected["hellos_refused"] += 1

    def _knock(self, credentials: Credentials | None) -> None:
        """Come, and wait until one is turned away: nothing that was sent is ever answered."""
        with self._with(credentials, connect=False) as dealer:
            events = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED
            with dealer.get_monitor_socket(events) as monitor:
                dealer.connect(self.client.endpoint)
                with contextlib.suppress(zmq.Again):  # it has been turned away already
                    dealer.send(codec.encode(self._hello(self.rng.randbytes(6))), zmq.NOBLOCK)
                assert monitor.poll(int(WAIT_S * 1000)), "it is neither let in nor turned away"
                event = int.from_bytes(monitor.recv_multipart()[0][:2], "little")
                assert event == zmq.EVENT_DISCONNECTED, "it was let in"
                dealer.disable_monitor()
        self.said["without a good key"] += 1

    def _with(self, credentials: Credentials | None, connect: bool = True) -> Any:
        dealer = self.context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.RECONNECT_IVL, -1)
        if credentials is not None:
            dealer.setsockopt(zmq.CURVE_SERVERKEY, credentials.server_key)
            dealer.setsockopt(zmq.CURVE_SECRETKEY, credentials.secret_key)
            dealer.setsockopt(zmq.CURVE_PUBLICKEY, public_key(credentials.secret_key))
        if connect:
            dealer.connect(self.client.endpoint)
        return dealer

    def _dealer(self) -> Any:
        return self._with(self.client.credentials)

    def _raw(self) -> socket.socket:
        # A scheduler that is full drops newcomers until somebody has gone.
        end_s = time.monotonic() + WAIT_S
        while True:
            try:
                raw = socket.create_connection(self._where, 1.0)
                break
            except TimeoutError:
                if time.monotonic() > end_s:
                    raise
        raw.settimeout(WAIT_S)
        self.said["raw connections"] += 1
        return raw

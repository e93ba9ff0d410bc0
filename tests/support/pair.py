"""A listening and some dialling shells, turned in one thread; over the network with keys."""

import random
import time
from collections.abc import Callable
from typing import Any

from drumbeat.protocol.clock import now_s
from drumbeat.protocol.endpoints import is_tcp
from drumbeat.protocol.frames import Role
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.keys import ROLES, Credentials, Door
from drumbeat.protocol.listener import Joined
from drumbeat.protocol.settings import Settings
from drumbeat.protocol.sockets import new_keys
from drumbeat.protocol.transport import DialShell, ListenShell, Poller

A, B = PeerId(b"peer-a"), PeerId(b"peer-b")
EPOCH = 3


class Keys:
    """The keys of one cluster: its scheduler's, and one pair a role."""

    def __init__(self) -> None:
        self.public, self.secret = new_keys()
        self.pairs = {role: new_keys() for role in ROLES}

    @property
    def door(self) -> Door:
        return Door(self.secret, {public: role for role, (public, _) in self.pairs.items()})

    def of(self, role: str) -> Credentials:
        """What someone of that role comes with."""
        return Credentials(self.public, self.pairs[role][1])

    def foreign(self) -> Credentials:
        """What someone comes with who has no key of this cluster."""
        return Credentials(self.public, new_keys()[1])


class Pair:
    """See the module.

    Args:
        endpoint: where to listen; "tcp://127.0.0.1:0" finds a port, and makes keys.
        settings: of both sides.
        machine: on which both say they are.
    """

    def __init__(self, endpoint: str, settings: Settings | None = None, machine: str = "") -> None:
        self.machine = machine
        self.settings = settings or Settings()
        self.endpoint = endpoint
        self.keys = Keys() if is_tcp(endpoint) else None
        self.poller = Poller()
        self.listener: ListenShell | None = None
        self.dialers: dict[PeerId, DialShell] = {}
        self.heard: list[Any] = []
        self.said: dict[PeerId, list[Any]] = {}

    def listen(self) -> ListenShell:
        door = None if self.keys is None else self.keys.door
        self.listener = ListenShell(self.endpoint, self.settings, EPOCH, door, self.machine)
        self.listener.attach(self.poller)
        self.endpoint = self.listener.endpoint
        return self.listener

    def dial(
        self,
        peer: PeerId = A,
        endpoint: str = "",
        role: str = Role.CLIENT,
        credentials: Credentials | None = None,
    ) -> DialShell:
        if credentials is None and self.keys is not None:
            credentials = self.keys.of(role)
        said = Role.NODE if role == Role.NODE else Role.CLIENT
        shell = DialShell(
            endpoint or self.endpoint,
            said,
            peer,
            "me",
            self.settings,
            random.Random(1),
            credentials,
            self.machine,
        )
        shell.attach(self.poller)
        self.dialers[peer] = shell
        self.said[peer] = []
        return shell

    def turn(self) -> None:
        self.poller.wait(0.005)
        if self.listener is not None:
            self.heard += self.listener.turn(now_s())
            self.listener.flush(now_s())
        for peer, shell in self.dialers.items():
            self.said[peer] += shell.turn(now_s())
            shell.flush(now_s())

    def until(self, condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, (self.heard[-5:], self.said)
            self.turn()

    def turn_for(self, lasts_s: float) -> None:
        """Turn for some time: what is not to happen has had its chance."""
        deadline_s = time.monotonic() + lasts_s
        while time.monotonic() < deadline_s:
            self.turn()

    def connect(self, peer: PeerId = A, endpoint: str = "", role: str = Role.CLIENT) -> DialShell:
        shell = self.dial(peer, endpoint, role)
        self.until(lambda: shell.up and self.came(Joined))
        return shell

    def came(self, kind: type) -> list[Any]:
        return [one for one in self.heard if type(one) is kind]

    def went(self, kind: type, peer: PeerId = A) -> list[Any]:
        return [one for one in self.said[peer] if type(one) is kind]

    def close(self) -> None:
        for shell in self.dialers.values():
            shell.close()
        if self.listener is not None:
            self.listener.close()

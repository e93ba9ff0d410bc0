"""Finds out why a scheduler on the network cannot be reached, or by which address it can.

Asking for names and waiting for answers takes as long as it takes: all of it happens in a thread
that lives for one question. Never keeps a loop waiting, and never says a word of the protocol.
"""

import errno
import socket
import threading
from typing import Final, NamedTuple

from .dialer import Unreachable
from .endpoints import is_loopback, is_tcp, split_tcp, tcp_endpoint
from .excuses import TELL_AFTER_S, Excuses, Stage

#: addresses of one name that are tried
ADDRESSES_MAX: Final = 4
#: the question is put anew so often
ASK_EACH_S: Final = 1.0
#: who has not been let in after so long asks why: most are by then, and a question is a connection
LOOK_AFTER_S: Final = 0.3
#: how often a loop comes round while an answer is awaited
LOOK_EACH_S: Final = 0.1
#: who does not answer for so long is called silent: a packet that was lost is sent again after 1 s
ANSWER_S: Final = 1.2
#: after so long people are told that nothing is known
SILENCE_S: Final = 1.8

_NO_NETWORK: Final = "no route of this machine leads there: is its network up?"
#: what says that there is no way, and what may be the matter
_NO_WAY: Final = {
    errno.ENETUNREACH: _NO_NETWORK,
    errno.ENETDOWN: _NO_NETWORK,
    errno.EADDRNOTAVAIL: "this machine has no address to come from: is its network up?",
    errno.EHOSTUNREACH: "that machine is off or has another address, or a router or firewall on the"
    " way turns this away",
}
_THIS_MACHINE: Final = (
    " That address is each machine itself: a scheduler on another one is to be started with"
    " --advertise, and its cluster file, which then names that one, used here"
)


class Finding(NamedTuple):
    """What was found out: either why not, or by which address."""

    reason: str
    endpoint: str = ""


def find_out(host: str, port: int, timeout_s: float) -> Finding:
    """Return why nobody can be reached there, or at which address somebody listens. Blocks.

    Args:
        host: a name or an address.
        port: the port.
        timeout_s: for each address of the name.
    """
    where = tcp_endpoint(host, port).removeprefix("tcp://")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        return Finding(f"the name {host} cannot be resolved: {said}")
    reason = f"the name {host} has no address"
    for family, kind, protocol, _name, address in found[:ADDRESSES_MAX]:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.settimeout(timeout_s)
                probe.connect(address)
            return Finding("", tcp_endpoint(str(address[0]), port))
        except OSError as error:
            reason = _in_words(error, host, where, timeout_s)
    return Finding(reason)


def _in_words(error: OSError, host: str, where: str, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return (
            f"no answer from {where} within {timeout_s:g} s: the machine is off or has another"
            " address, a firewall drops what is sent there, or the scheduler is full"
        )
    if isinstance(error, ConnectionRefusedError):
        here = _THIS_MACHINE if is_loopback(host) else ""
        return (
            f"nobody listens at {where} (connection refused): is the scheduler running, and is this"
            f" its port?{here}"
        )
    if error.errno in _NO_WAY:
        return f"there is no way to {where} ({error.strerror}): {_NO_WAY[error.errno]}"
    return f"no connection to {where}: {error.strerror or error}"


class Route:
    """The way to a scheduler: where to dial next, and what is in the way.

    A Unix socket has one way to it, and nothing to say of that.

    Args:
        endpoint: "tcp://HOST:PORT", or an ipc one.
        timeout_s: for an attempt to connect.
        asked_s: when the process was started that is to connect, if that is not long ago: its user
            waits since then.
    """

    def __init__(self, endpoint: str, timeout_s: float, asked_s: float | None = None) -> None:
        self._asked = endpoint
        self._tcp = is_tcp(endpoint)
        where = endpoint.removeprefix("tcp://")
        self._host, self._port = split_tcp(where, endpoint) if self._tcp else ("", 0)
        self._timeout_s = min(timeout_s, ANSWER_S)
        self._excuses = Excuses(where)
        self._ask_again_s = float("-inf")
        self._finding = Finding("")
        self._thread: threading.Thread | None = None
        #: how far the last attempt came
        self._stage: Stage | None = None
        #: when the first attempt began; None: there is a connection
        self._begun_s: float | None = None
        #: since when somebody waits
        self._since_s = 0.0
        self._asked_s = asked_s
        #: where to dial next: one of the name's addresses, when the name itself leads nowhere
        self.endpoint = endpoint
        #: whether `excuses` may have something to say
        self.failing = False
        #: and when it is to be asked again, if nothing happens before
        self.due_s = float("inf")

    def begun(self, now_s: float) -> None:
        """An attempt begins."""
        self.failing = self._tcp
        if self._begun_s is None:
            self._begun_s = now_s
            # Time enough to be let in, however long this process took to start.
            earliest_s = now_s + LOOK_AFTER_S - TELL_AFTER_S
            self._since_s = min(now_s, max(earliest_s, self._asked_s or now_s))
            self._asked_s = None
            self.due_s = now_s + LOOK_AFTER_S

    def connected(self) -> None:
        """A connection stands."""
        self.failing = False
        self._stage = self._begun_s = None
        self._excuses.connected()
        self._finding = Finding("")

    def failed(self, stage: Stage, now_s: float) -> None:
        """An attempt came so far and no further; a connection that stood and ended is none."""
        if not self._tcp or self._begun_s is None:
            return
        self.failing = True
        self._stage = stage
        # If this address did not serve, whoever has it by now, the name is tried again.
        self.endpoint = self._asked
        if stage is Stage.BEGUN:
            self._look(now_s)
        self._excuses.failed(stage, self._finding.reason, self._since_s)

    def excuses(self, now_s: float) -> list[Unreachable]:
        """Return what is to be said of failed attempts now: one thing, or nothing new."""
        begun_s = self._begun_s
        if begun_s is not None and self._stage in (None, Stage.BEGUN):
            self._look_early(begun_s, now_s)
        due = self._excuses.due(now_s)
        self.due_s = self._next_s(now_s)
        return [] if due is None else [due]

    def _next_s(self, now_s: float) -> float:
        due_s, begun_s = self._excuses.due_s(), self._begun_s
        if due_s is not None:
            return due_s
        if begun_s is None or self._excuses.known or now_s >= begun_s + SILENCE_S:
            return float("inf")
        asks = self._thread is not None or now_s >= begun_s + LOOK_AFTER_S
        return now_s + LOOK_EACH_S if asks else begun_s + LOOK_AFTER_S

    def _look_early(self, begun_s: float, now_s: float) -> None:
        """Find out what is in the way before an attempt ends that nothing comes of."""
        if not any(self._finding) and now_s >= begun_s + LOOK_AFTER_S:
            self._look(now_s)
        reason = self._finding.reason
        if not any(self._finding) and now_s >= begun_s + SILENCE_S:
            where = self._asked.removeprefix("tcp://")
            reason = f"no answer from {where} so far, and no reason found yet"
        if reason:
            self._excuses.failed(Stage.BEGUN, reason, self._since_s)

    def _look(self, now_s: float) -> None:
        if self._thread is not None:
            if self._thread.is_alive():
                return
            self._thread = None
            if self._finding.endpoint:
                self.endpoint = self._finding.endpoint
        if now_s >= self._ask_again_s:
            self._ask_again_s = now_s + ASK_EACH_S
            self._thread = threading.Thread(target=self._ask, name="drumbeat-route", daemon=True)
            self._thread.start()

    def _ask(self) -> None:
        self._finding = find_out(self._host, self._port, self._timeout_s)

"""The scheduler's end of all links: the shell around its socket.

Never decides: listener, link and blobs do. Never reads the clock; see transport.py for the loop
around it.
"""

from collections.abc import Callable

from msgspec import Raw

from . import listener
from .codec import Reader, encode, message_bytes_max, split_long
from .endpoints import check_endpoint, check_keys
from .ends import Ends
from .errors import RemoteProtocolError
from .frames import Channel
from .ids import PeerId
from .keys import Door
from .lending import send_payload, traffic_of
from .listener import Disconnected, Joined, Lags, Listener, Returned
from .messages import AnyMessage
from .poller import Poller
from .remotes import Orphaned, Relays, Remote, Remotes, Unread
from .settings import Settings
from .traffic import NOW_S, Blob, Heard, Message, Reached, Rejected, Traffic

#: A peer that speaks all the time is reported as heard this often.
HEARD_EACH_S = 0.05
#: What is lent to a peer that reads is taken sooner; so much for that time is a backlog.
LENT_GRACE_S = 0.2
_CONTROL = int(Channel.CONTROL)

ListenHappening = (
    Joined
    | Returned
    | Disconnected
    | Heard
    | Lags
    | Reached
    | Message
    | Blob
    | Rejected
    | Relays
    | Orphaned
    | Unread
)


class ListenShell:
    """The scheduler's end of all links.

    Args:
        endpoint: where to listen.
        settings: bounds and times.
        epoch: this life of the scheduler.
        door: who may come; needed for tcp, where nothing goes without keys.
        machine: see `frames.Hello`.

    Raises:
        ConfigError: nobody can listen there, or the endpoint and the door do not go together.
    """

    def __init__(
        self,
        endpoint: str,
        settings: Settings,
        epoch: int,
        door: Door | None = None,
        machine: str = "",
    ) -> None:
        endpoint = check_keys(check_endpoint(endpoint), door is not None)
        self._settings = settings
        self._message_bytes_max = message_bytes_max(settings.frame_bytes_max)
        self._machine = machine
        admits = tuple(door.roles) if door is not None else ()
        self._listener = Listener(settings, epoch, machine, admits)
        self._traffic: dict[PeerId, Traffic] = {}
        self._remotes = Remotes(settings.value_bytes_max, self._feed_soon)
        # Peers with payloads that their bulk link has not taken in whole.
        self._feeding: dict[PeerId, None] = {}
        # Peers with marks that they have not reached.
        self._marked: dict[PeerId, None] = {}
        # Peers to whom much is lent, and when that is too long.
        self._lent: dict[PeerId, float] = {}
        self._flushed_s = NOW_S
        self._pending: list[ListenHappening] = []
        self._ends = Ends()
        self._socket = self._ends.listen(endpoint, settings, Poller(), door)
        self._rejected = 0
        # Of what has come as last looked at: as long as that is so nothing more was refused.
        self._unusual = 0
        #: whether `refusals` may have risen; for whoever looks and takes it back
        self.may_have_refused = True

    @property
    def endpoint(self) -> str:
        """Where it listens, with the port that the system has picked if it was asked to."""
        return self._socket.endpoint

    @property
    def connections(self) -> int:
        """How many connections there are, of whoever it may be."""
        return self._socket.connections

    @property
    def counters(self) -> dict[str, int]:
        """What was dropped, by reason."""
        return {
            "messages_rejected": self._rejected,
            "frames_refused": self._listener.frames_refused,
            "strangers_reset": self._listener.strangers_reset,
            "hellos_refused": self._listener.hellos_refused,
            "hellos_put_off": self._listener.hellos_put_off,
            **self._socket.counters,
        }

    @property
    def refusals(self) -> int:
        """How much was refused of connections: rises with each; `counters` tells what."""
        return self._listener.refusals + self._socket.refusals

    @property
    def last_refusal(self) -> str:
        """Why a frame or a Hello was last refused."""
        return self._listener.last_refusal

    def attach(self, poller: Poller) -> None:
        """Let `poller` wait for this shell's sockets."""
        self._socket.attach(poller)

    def turn(self, now_s: float) -> list[ListenHappening]:
        """Receive what has come, do what is due; return what happened, Heard first."""
        out, self._pending = self._pending, []
        heard: list[PeerId] = []
        listener_, socket, marked = self._listener, self._socket, self._marked
        for route, frame, proven in socket.receive(now_s):
            commands = listener_.received(route, frame, now_s, proven)
            if commands:
                first = commands[0]
                if type(first) is listener.Delivered and first.channel == _CONTROL:
                    peer = first.peer
                    self._rejected += self._traffic[peer].take_in(first.messages, peer, out)
                else:
                    self._do(commands, out)
            # One who says nothing is heard too: by its frames.
            connection = listener_.routes.get(route)
            if connection is None:
                continue
            if now_s >= connection.heard_again_s:
                connection.heard_again_s = now_s + HEARD_EACH_S
                heard.append(connection.peer)
            if connection.peer in marked:
                self._see_marks(connection.peer, out)
        unusual = listener_.unusual + socket.junk_dropped
        if socket.has_news or unusual != self._unusual:
            self._unusual = unusual
            self.may_have_refused = True
            closed = socket.closed()
            if closed:
                listener_.may_have_closed(closed, now_s)
        if listener_.probes_due_s:
            self._do(listener_.time_passed(now_s), out)
        if self._remotes.reports:
            out += self._remotes.reports
            self._remotes.reports.clear()
        if listener_.lagging:
            out[:0] = listener_.lagging
            listener_.lagging.clear()
        if heard:
            out.insert(0, Heard(heard))
        return out

    def send(self, peer: PeerId, message: AnyMessage) -> bool:
        """Queue a message for a peer; False: it has no link life, nothing is queued."""
        encoded = encode(message)
        if len(encoded) <= self._message_bytes_max:
            return self._listener.queue(peer, encoded)
        pieces = split_long(message, encoded, self._message_bytes_max)
        return all(self._listener.queue(peer, piece) for piece in pieces)

    def send_blob(self, peer: PeerId, key: bytes, payload: bytes) -> bool:
        """Queue a large payload for a peer; False: it has no link life, nothing is queued."""
        traffic = self._traffic.get(peer)
        if traffic is None:
            return False
        if isinstance(payload, Remote):
            self._remotes.send(traffic, key, payload)
        else:
            send_payload(traffic, key, payload)
        self._feeding[peer] = None
        return True

    def fetch(self, remote: Remote, then: Callable[[bytes], None]) -> None:
        """Have the bytes of what lies elsewhere come here; see `Remotes.fetch`."""
        self._remotes.fetch(remote, then)

    def restore(self, remote: Remote, payload: bytes | None) -> None:
        """Say where the bytes are of what was `Orphaned`; None: nowhere."""
        self._remotes.restore(remote, payload)

    def leaves(self, peer: PeerId) -> None:
        """Report (`Unread`) when nobody is getting anything that this peer has offered."""
        traffic = self._traffic.get(peer)
        if traffic is not None:
            self._remotes.leaves(traffic)

    def mark(self, peer: PeerId, mark: int) -> None:
        """Report (`Reached`) when the peer has received all that was sent to it so far.

        With the peer's link life its marks end.
        """
        control = self._listener.connection(peer)
        bulk = self._listener.connection(peer, Channel.BULK)
        if control is not None and bulk is not None:
            self._traffic[peer].mark(mark, control.link, bulk.link)
            self._marked[peer] = None
            self._see_marks(peer, self._pending)

    def drop(self, peer: PeerId, error: str = "", reason: str = "") -> None:
        """Forget a peer and its links; with an error's name, tell it why and not to come again."""
        self._do(self._listener.drop(peer, error, reason), self._pending)
        self._life_over(peer)
        self._feeding.pop(peer, None)
        self._lent.pop(peer, None)
        self._marked.pop(peer, None)

    def flush(self, now_s: float) -> None:
        """Send what is queued, as far as the windows allow."""
        self._flushed_s = now_s
        self._remotes.tidy()
        self._remotes.look_at_leaving(self._traffic.values())
        if self._feeding:
            for peer in list(self._feeding):
                self._feed(peer, now_s)
        send = self._socket.send
        for route, frame in self._listener.flush(now_s):
            if not send(route, frame):
                self._do(self._listener.unreachable(route), self._pending)

    def deadline_s(self) -> float | None:
        """Return when the next turn is due though nothing comes; None: never."""
        if self._pending or self._remotes.reports:
            return NOW_S
        if self._feeding:
            for peer in self._feeding:
                bulk = self._listener.connection(peer, Channel.BULK)
                if bulk is not None and bulk.route and self._traffic[peer].hungry(bulk.link):
                    return NOW_S
        due_s = self._listener.deadline_s()
        for at_s in self._lent.values():
            # Once it is told that a peer does not take anything, nothing is due for that.
            if at_s > self._flushed_s and (due_s is None or at_s < due_s):
                due_s = at_s
        return due_s

    def close(self, linger_s: float = 0.0) -> None:
        """Close for good; waits up to `linger_s` until the socket has sent what it holds."""
        self._socket.close(linger_s)
        self._ends.close()

    def _feed(self, peer: PeerId, now_s: float) -> None:
        traffic = self._traffic[peer]
        bulk = self._listener.connection(peer, Channel.BULK)
        if bulk is not None and bulk.route is not None:
            traffic.feed(bulk.link)
            self._listener.mark_busy(bulk)
        waiting_bytes = self._behind_bytes(peer, traffic, now_s)
        lags = waiting_bytes > self._settings.results_backlog_bytes_max
        if bulk is not None and (lags or bulk.lags):
            bulk.lags = lags
            told_bytes = waiting_bytes if lags else 0
            self._listener.lagging.append(Lags(peer, told_bytes, Channel.BULK))
        if not traffic.chunker and not traffic.chunker.first_lent:
            del self._feeding[peer]

    def _behind_bytes(self, peer: PeerId, traffic: Traffic, now_s: float) -> int:
        """Return the bytes that wait for a peer, those too that it takes slower than they come."""
        behind_bytes, lent_bytes = traffic.chunker.behind_bytes, traffic.chunker.lent_bytes
        if behind_bytes + lent_bytes <= self._settings.results_backlog_bytes_max:
            self._lent.pop(peer, None)
            return behind_bytes
        at_s = self._lent.setdefault(peer, now_s + LENT_GRACE_S)
        return behind_bytes + (lent_bytes if now_s >= at_s else 0)

    def _see_marks(self, peer: PeerId, out: list[ListenHappening]) -> None:
        control = self._listener.connection(peer)
        bulk = self._listener.connection(peer, Channel.BULK)
        if control is None or bulk is None:
            return
        traffic = self._traffic[peer]
        marks = traffic.reached(control.link, bulk.link)
        if marks:
            out.append(Reached(peer, marks))
            if not traffic.marked:
                del self._marked[peer]

    def _do(self, commands: list[listener.Command], out: list[ListenHappening]) -> None:
        for command in commands:
            match command:
                case listener.Delivered(peer, _, raws):
                    self._take_in_bulk(peer, raws, out)
                case listener.SendFrame(route, data):
                    if not self._socket.send(route, data):
                        self._do(self._listener.unreachable(route), out)
                case Joined(peer, hello):
                    self._life_over(peer)
                    self._traffic[peer] = traffic_of(
                        Reader.to_scheduler(), self._settings, self._machine, peer, hello,
                        self._remotes,
                    )  # fmt: skip
                    self._feeding.pop(peer, None)
                    self._lent.pop(peer, None)
                    self._marked.pop(peer, None)
                    out.append(command)
                case Returned() | Disconnected():
                    out.append(command)

    def _feed_soon(self, peer: PeerId) -> None:
        if peer in self._traffic:
            self._feeding[peer] = None

    def _life_over(self, peer: PeerId) -> None:
        traffic = self._traffic.pop(peer, None)
        if traffic is not None:
            traffic.end()
            self._remotes.life_over(traffic)

    def _take_in_bulk(self, peer: PeerId, raws: list[Raw], out: list[ListenHappening]) -> None:
        traffic = self._traffic[peer]
        try:
            traffic.take_in_bulk(raws, peer, out)
            # There may be answers to send, and what it has taken waits no more.
            self._feeding[peer] = None
        except RemoteProtocolError as error:
            # A payload that never becomes whole would be waited for: this peer cannot go on.
            self._rejected += 1
            out += [Rejected(str(error), peer), Disconnected(peer)]
            self.drop(peer, type(error).__name__, str(error))

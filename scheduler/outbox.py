"""What is to be sent at the end of a turn: one message a peer and kind, in a stated order.

Never decides what is sent. It joins rows to messages, and it counts the refs inside what leaves,
since that is the moment at which the receiver begins to hold them.
"""

from ..protocol.ids import NO_PEER, ObjectId, PeerId, TaskId, home_of
from ..protocol.limits import CANCELLED
from ..protocol.messages import (
    AnyMessage,
    Assign,
    AssignRow,
    Discard,
    EnvironmentRow,
    NodeKindRow,
    Prepare,
    Results,
    Retried,
    Shared,
    Stop,
    StopMode,
    TakeBack,
    Unshared,
    ValueRow,
    Values,
    Wanted,
)
from ..protocol.recovery import Report
from ..protocol.remotes import Remote
from .events import Command, Drop, Leaves, Restore, Send, SendBlob
from .holders import Holders


class Outbox:
    """Everything that the next turn sends. Peers in it are there; `forget` those that go."""

    __slots__ = (
        "_blobs",
        "_clients",
        "_discarded_clients",
        "_discarded_kinds",
        "_here",
        "_holders",
        "_inline_bytes_max",
        "_kinds",
        "_letters",
        "_rare",
        "_reports",
        "_restores",
        "_retried",
        "_shared",
        "_stops",
        "_take_backs",
        "_texts",
        "_values",
        "_wanted",
        "assigns",
        "drops",
        "homes_may_come",
        "results",
    )

    def __init__(self, holders: Holders, inline_bytes_max: int) -> None:
        self._holders = holders
        self._inline_bytes_max = inline_bytes_max
        self._here: dict[PeerId, None] = {}
        self.drops: list[Drop] = []
        #: after a restart: homes that are not there may come back
        self.homes_may_come = False
        #: whether there may be more than assigns and results
        self._rare = False
        #: by home: True for shared, False for shared no more; the last word counts
        self._shared: dict[PeerId, dict[ObjectId, bool]] = {}
        self._discarded_clients: dict[PeerId, list[bytes]] = {}
        self._discarded_kinds: dict[PeerId, list[int]] = {}
        self._clients: dict[PeerId, list[EnvironmentRow]] = {}
        self._kinds: dict[PeerId, list[NodeKindRow]] = {}
        #: filled by the hot path directly
        self.assigns: dict[PeerId, list[AssignRow]] = {}
        self.results: dict[PeerId, list[ValueRow]] = {}
        #: by node and reason
        self._stops: dict[PeerId, dict[str, list[tuple[bytes, int, int]]]] = {}
        self._retried: dict[PeerId, list[tuple[bytes, int]]] = {}
        self._values: dict[PeerId, list[ValueRow]] = {}
        self._wanted: dict[PeerId, list[bytes]] = {}
        self._take_backs: dict[PeerId, int] = {}
        self._reports: dict[PeerId, list[tuple[bytes, int]]] = {}
        self._letters: list[Send] = []
        self._texts: list[Send] = []
        self._blobs: list[SendBlob] = []
        self._restores: list[Restore | Leaves] = []

    # --------------------------------------------------------------------------------- who is there

    def meet(self, peer: PeerId) -> None:
        """A peer is there: things may be addressed to it."""
        self._here[peer] = None

    def forget(self, peer: PeerId) -> None:
        """A peer is gone: so is what was to be sent to it, and what it held."""
        self._here.pop(peer, None)
        for rows in (
            self._shared, self._discarded_clients, self._discarded_kinds, self._clients,
            self._kinds, self.assigns, self.results, self._stops, self._values, self._wanted,
            self._take_backs, self._retried, self._reports,
        ):  # fmt: skip
            rows.pop(peer, None)
        self._letters = [letter for letter in self._letters if letter.peer != peer]
        self._texts = [text for text in self._texts if text.peer != peer]
        self._blobs = [blob for blob in self._blobs if blob.peer != peer]
        for object_id in self._holders.forget_peer(peer):
            self._tell_home(object_id, False)

    def is_here(self, peer: PeerId) -> bool:
        """Return whether things may be addressed to this peer."""
        return peer in self._here

    # --------------------------------------------------------------------------------------- values

    def packed(self, peer: PeerId, row: ValueRow) -> ValueRow:
        """Return a value as it goes to a peer; count its refs, and send it apart if it is large."""
        if row.contained:
            self.contain(peer, row.contained)
        payload = row.payload
        if payload is None or len(payload) <= self._inline_bytes_max:
            return row
        if isinstance(payload, Remote) and payload.is_with == peer:
            payload.is_with = NO_PEER  # what this row names; the next one names another
        else:
            self._rare = True
            self._blobs.append(SendBlob(peer, row.id, payload))
        return ValueRow(
            id=row.id,
            outcome=row.outcome,
            size=len(payload),
            contained=row.contained,
            failure=row.failure,
        )

    def contain(self, peer: PeerId, contained: tuple[bytes, ...]) -> None:
        """Something that holds these refs goes to a peer."""
        for id_ in contained:
            object_id = ObjectId(id_)
            # A home that is gone keeps nothing; the ref leads nowhere and need not be counted.
            if home_of(object_id) in self._here or self.homes_may_come:
                self.hold(peer, object_id, 1)

    def hold(self, peer: PeerId, object_id: ObjectId, times: int) -> None:
        """A peer holds a ref that was delivered to it so many times."""
        may_come = self.homes_may_come or home_of(object_id) in self._here
        if may_come and times > 0 and self._holders.deliver(object_id, peer, times):
            self._tell_home(object_id, True)

    def home_came(self, home: PeerId) -> None:
        """A home is there: tell it what others hold of it."""
        for object_id in self._holders.of_home(home):
            self._tell_home(object_id, True)

    def end_of_absence(self) -> None:
        """Homes that are not there will not come."""
        self.homes_may_come = False
        for home in self._holders.homes():
            if home not in self._here:
                self._holders.forget_home(home)

    def released(self, object_id: ObjectId, peer: PeerId, count: int) -> None:
        """A peer gives deliveries back."""
        if self._holders.release(object_id, peer, count):
            self._tell_home(object_id, False)

    def released_all(self, peer: PeerId, rows: list[tuple[bytes, int]]) -> None:
        """A peer gives deliveries of several objects back."""
        for id_, count in rows:
            self.released(ObjectId(id_), peer, count)

    def _tell_home(self, object_id: ObjectId, shared: bool) -> None:
        home = home_of(object_id)
        if home in self._here:
            self._rare = True
            self._shared.setdefault(home, {})[object_id] = shared

    # -------------------------------------------------------------------------------------- posting

    def drop(self, peer: PeerId, error: str = "", reason: str = "") -> None:
        """Have the shell drop a peer."""
        self.drops.append(Drop(peer, error, reason))

    def letter(self, peer: PeerId, message: AnyMessage) -> None:
        """Send a message of its own."""
        self._rare = True
        self._letters.append(Send(peer, message))

    def text(self, peer: PeerId, message: AnyMessage) -> None:
        """Send what a task printed, which comes before its result."""
        self._rare = True
        self._texts.append(Send(peer, message))

    def blob(self, peer: PeerId, key: bytes, payload: bytes) -> None:
        """Send a large payload."""
        self._rare = True
        self._blobs.append(SendBlob(peer, key, payload))

    def restore(self, orphan: Remote, payload: bytes | None) -> None:
        """Say where the bytes are of what has lost its holder; None: nowhere."""
        self._rare = True
        self._restores.append(Restore(orphan, payload))

    def leaves(self, peer: PeerId) -> None:
        """Ask to be told when nobody is getting what a peer has offered."""
        self._rare = True
        self._restores.append(Leaves(peer))

    def value(self, peer: PeerId, row: ValueRow) -> None:
        """Answer a fetch."""
        self._rare = True
        self._values.setdefault(peer, []).append(self.packed(peer, row))

    def want(self, home: PeerId, object_id: ObjectId) -> None:
        """Ask a home for a value."""
        self._rare = True
        self._wanted.setdefault(home, []).append(object_id)

    def stop(
        self,
        node: PeerId,
        task: TaskId,
        attempt: int,
        mode: StopMode,
        reason: str = CANCELLED,
    ) -> None:
        """End an attempt."""
        self._rare = True
        rows = self._stops.setdefault(node, {}).setdefault(reason, [])
        rows.append((task, attempt, int(mode)))

    def retry(self, submitter: PeerId, task: TaskId, attempt: int) -> None:
        """An attempt is charged, this one is the next: whoever submitted the task is to know."""
        self._rare = True
        self._retried.setdefault(submitter, []).append((task, attempt))

    def report(self, node: PeerId, task: TaskId, attempt: int) -> None:
        """Ask again what came of an attempt."""
        self._rare = True
        self._reports.setdefault(node, []).append((task, attempt))

    def take_back(self, node: PeerId, count: int) -> None:
        """Ask for unstarted attempts."""
        self._rare = True
        self._take_backs[node] = count

    def introduce(self, node: PeerId, client: EnvironmentRow) -> None:
        """Tell a node of a client."""
        self._rare = True
        self._clients.setdefault(node, []).append(client)

    def prepare(self, node: PeerId, kind: NodeKindRow) -> None:
        """Tell a node of a kind."""
        self._rare = True
        self._kinds.setdefault(node, []).append(kind)

    def discard_kind(self, node: PeerId, number: int) -> None:
        """A kind is not used any more."""
        self._rare = True
        self._discarded_kinds.setdefault(node, []).append(number)

    def discard_client(self, node: PeerId, client: PeerId) -> None:
        """A client has left; what was to be sent to the node for it is not."""
        self._rare = True
        self._discarded_clients.setdefault(node, []).append(client)
        if (rows := self._clients.get(node)) is not None:
            self._clients[node] = [row for row in rows if row.client != client]
        if (kinds := self._kinds.get(node)) is not None:
            self._kinds[node] = [kind for kind in kinds if kind.client != client]

    # ------------------------------------------------------------------------------------- flushing

    def told(self) -> list[PeerId]:
        """Return the submitters that the next flush tells of results and retries."""
        return list({**self.results, **self._retried} if self._retried else self.results)

    def take_drops(self) -> list[Command]:
        """Return the drops alone, which are not to wait for the end of the turn."""
        drops: list[Command] = [*self.drops]
        self.drops.clear()
        return drops

    def flush(self) -> list[Command]:
        """Return all that is to be sent, in this order, and be empty.

        1. drops;
        2. Shared, before anything that lets a home drop its own pins;
        3. Retried, before the attempts that it tells of;
        4. Discard, then Prepare, then Assign (which use what was prepared), then Report, then
           Stop (by which a node forgets an end that it was not asked to report);
        5. what workers printed, then Results, Values, Wanted;
        6. Unshared, after what was counted;
        7. TakeBack and single messages; large payloads last.
        """
        commands: list[Command] = []
        if self.drops:
            commands = self.take_drops()
        rare, self._rare = self._rare, False
        if rare:
            self._flush_definitions(commands)
        if self.assigns:
            for peer in self.assigns:
                commands.append(Send(peer, Assign(self.assigns[peer])))
            self.assigns.clear()
        if rare:
            commands += [Send(peer, Report(reports)) for peer, reports in self._reports.items()]
            for peer, stops in self._stops.items():
                commands += [Send(peer, Stop(ended, reason)) for reason, ended in stops.items()]
            commands += self._texts
            self._texts.clear()
        if self.results:
            for peer in self.results:
                commands.append(Send(peer, Results(self.results[peer])))
            self.results.clear()
        if rare:
            self._flush_rest(commands)
        return commands

    def _flush_rest(self, commands: list[Command]) -> None:
        commands += [Send(peer, Values(rows)) for peer, rows in self._values.items()]
        commands += [Send(peer, Wanted(ids)) for peer, ids in self._wanted.items()]
        for peer, objects in self._shared.items():
            gone: list[bytes] = [id_ for id_, shared in objects.items() if not shared]
            if gone:
                commands.append(Send(peer, Unshared(gone)))
        commands += [Send(peer, TakeBack(count)) for peer, count in self._take_backs.items()]
        commands += self._letters
        commands += self._blobs
        commands += self._restores
        for rows in (self._stops, self._values, self._wanted, self._shared, self._take_backs):
            rows.clear()
        self._reports.clear()
        self._letters.clear()
        self._blobs.clear()
        self._restores.clear()

    def _flush_definitions(self, commands: list[Command]) -> None:
        for peer, objects in self._shared.items():
            shared: list[bytes] = [id_ for id_, held in objects.items() if held]
            if shared:
                commands.append(Send(peer, Shared(shared)))
        if self._retried:
            commands += [Send(peer, Retried(rows)) for peer, rows in self._retried.items()]
            self._retried.clear()
        if self._discarded_kinds or self._discarded_clients:
            for peer in {**self._discarded_kinds, **self._discarded_clients}:
                kinds = self._discarded_kinds.get(peer, [])
                clients = self._discarded_clients.get(peer, [])
                commands.append(Send(peer, Discard(kinds, clients)))
            self._discarded_kinds.clear()
            self._discarded_clients.clear()
        if self._kinds or self._clients:
            for peer in {**self._clients, **self._kinds}:
                message = Prepare(self._clients.get(peer, []), self._kinds.get(peer, []))
                if message.clients or message.kinds:
                    commands.append(Send(peer, message))
            self._kinds.clear()
            self._clients.clear()

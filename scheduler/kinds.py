"""Functions with their options: known once, however many peers and tasks use them.

Never opens a function. Peers name kinds by numbers of their own; towards the nodes one number
stands for a kind everywhere.
"""

from functools import partial

from msgspec.structs import replace

from ..protocol.ids import PeerId, TaskId
from ..protocol.labels import AskedLabels
from ..protocol.limits import NO_LIMITS
from ..protocol.messages import (
    EnvironmentRow,
    KindRow,
    NodeKindRow,
    Options,
)
from ..protocol.settings import Settings
from .placement import Board
from .state import Node, Peer, PeerError, State, ignore
from .tasks import Function, Kind, Shape

_KindKey = tuple[PeerId, bytes, str, Options]
_ShapeKey = tuple[
    PeerId, float, float, tuple[tuple[str, float], ...], str, AskedLabels, bool, bool, bool
]


class Kinds:
    """All kinds, functions and shapes in use."""

    __slots__ = ("_board", "_functions", "_kinds", "_serial", "_shapes", "_state")

    def __init__(self, state: State, board: Board) -> None:
        self._state = state
        self._board = board
        self._serial = 0
        self._kinds: dict[_KindKey, Kind] = {}
        self._functions: dict[tuple[PeerId, bytes], Function] = {}
        self._shapes: dict[_ShapeKey, Shape] = {}

    # --------------------------------------------------------------------------------- peers' words

    def define(self, peer: Peer, client: PeerId, rows: list[KindRow]) -> None:
        """A peer gives numbers to kinds of a client."""
        present = self._state.client(client) is not None
        for row in rows:
            if row.number in peer.kinds:
                raise PeerError(f"it gave the number {row.number} to two kinds")
            if not present:
                # A node may not know yet that the client has left; its number stays known.
                peer.kinds[row.number] = None
                if row.payload is None and row.size:
                    peer.expect(row.function, ignore)
                continue
            kind = self._intern(client, row)
            kind.uses += 1
            peer.kinds[row.number] = kind
            function = kind.function
            if row.payload is not None:
                self._complete(function, row.payload)
            elif row.size:
                function.size = row.size
                peer.expect(row.function, partial(self._complete, function))
            elif function.payload is None and not function.size:
                raise PeerError(f"it defined {row.name!r} without its code, never sent before")

    def own(self, peer: Peer, row: KindRow) -> Kind:
        """Return the kind that a peer of our own making has by this number."""
        kind = self._intern(peer.id, row)
        kind.uses += 1
        peer.kinds[row.number] = kind
        if row.payload is not None:
            self._complete(kind.function, row.payload)
        return kind

    def complete_later(self, function: Function, source: Function) -> None:
        """The code of a function is that of another one, which is on its way."""

        def came() -> None:
            assert source.payload is not None
            self._complete(function, source.payload)

        source.waiting.append(came)

    def forget(self, peer: Peer, numbers: list[int]) -> None:
        """A peer will not use these numbers any more."""
        for number in numbers:
            kind = peer.kinds.pop(number, None)
            if kind is not None:
                self.unuse(kind)

    def unuse(self, kind: Kind) -> None:
        """A number or a task of a kind is gone."""
        kind.uses -= 1
        if kind.uses:
            return
        del self._kinds[kind.client, kind.function.hash, kind.name, kind.options]
        for node in self._state.nodes.values():
            if node.kinds.pop(kind.number, None) is not None:
                self._leave_function(node, kind)
                self._state.out.discard_kind(node.id, kind.number)
        if kind.host is not None:
            self._state.hosts.unuse(kind.host)
        function, shape = kind.function, kind.shape
        function.kinds -= 1
        if not function.kinds:
            del self._functions[function.client, function.hash]
        shape.kinds -= 1
        if not shape.kinds:
            del self._shapes[_shape_key(shape.client, kind.options)]
            self._board.forget(shape)

    def forget_peer(self, peer: Peer) -> None:
        """A peer is gone, and its numbers with it."""
        self.forget(peer, list(peer.kinds))

    def forget_client(self, client: PeerId) -> None:
        """A client is gone: nodes forget all that is its; numbers for it lead nowhere."""
        for peer in [node.peer for node in self._state.nodes.values()]:
            for number, kind in peer.kinds.items():
                if kind is not None and kind.client == client:
                    peer.kinds[number] = None
                    self.unuse(kind)
        for node in self._state.nodes.values():
            if client in node.clients or client in node.former:
                node.clients.pop(client, None)
                node.former.pop(client, None)
                for number in [n for n, kind in node.kinds.items() if kind.client == client]:
                    self._leave_function(node, node.kinds.pop(number))
                self._state.out.discard_client(node.id, client)

    # --------------------------------------------------------------------------------- nodes' needs

    def prepare(self, node: Node, kind: Kind) -> None:
        """Tell a node of a kind, and of its client, before the first task of the kind."""
        out = self._state.out
        client = kind.client
        if client not in node.clients:
            node.clients[client] = None
            introduced = self._state.client(client)
            assert introduced is not None, "kinds are their clients'"
            out.introduce(node.id, EnvironmentRow(client, introduced.environment))
        node.kinds[kind.number] = kind
        function = kind.function
        key = client, function.hash
        options = defaulted(kind.options, self._state.settings)
        row = NodeKindRow(kind.number, client, function.hash, kind.name, options)
        users = node.functions.get(key, 0)
        node.functions[key] = users + 1
        if not users:
            payload = function.payload
            assert payload is not None, "tasks wait until their code is whole"
            if len(payload) <= self._state.settings.inline_bytes_max:
                row.payload = payload
            else:
                row.size = function.size
                out.blob(node.id, function.hash, payload)
        out.prepare(node.id, row)

    # --------------------------------------------------------------------------------------- inside

    def _intern(self, client: PeerId, row: KindRow) -> Kind:
        key = client, row.function, row.name, row.options
        kind = self._kinds.get(key)
        if kind is None:
            function = self._functions.get((client, row.function))
            if function is None:
                function = self._functions[client, row.function] = Function(client, row.function)
            function.kinds += 1
            shape_key = _shape_key(client, row.options)
            self._serial += 1
            shape = self._shapes.get(shape_key)
            if shape is None:
                shape = self._shapes[shape_key] = Shape(self._serial, client, row.options)
            shape.kinds += 1
            kind = self._kinds[key] = Kind(self._serial, row.name, row.options, function, shape)
            if row.options.actor:
                kind.host = self._state.hosts.use(TaskId(row.options.actor))
        return kind

    def _complete(self, function: Function, payload: bytes) -> None:
        if function.payload is not None:
            return
        function.payload = payload
        function.size = len(payload)
        waiting, function.waiting = function.waiting, []
        for then in waiting:
            then()

    def _leave_function(self, node: Node, kind: Kind) -> None:
        key = kind.client, kind.function.hash
        node.functions[key] -= 1
        if not node.functions[key]:
            del node.functions[key]

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {
            "kinds": len(self._kinds),
            "functions": len(self._functions),
            "shapes": len(self._shapes),
        }

    def check_invariants(self) -> None:
        """Assert that everything is used as often as is counted."""
        uses: dict[int, int] = {}
        wards = self._state.hosts.wards
        for peer in (*self._state.peers.values(), *wards.values()):
            for kind in peer.kinds.values():
                if kind is not None:
                    uses[kind.number] = uses.get(kind.number, 0) + 1
            for record in peer.tasks.values():
                uses[record.kind.number] = uses.get(record.kind.number, 0) + 1
        for node in self._state.nodes.values():
            for record in node.records():
                # Those whose submitter is gone are known to their node alone.
                if not record.owner.here and record.owner.id not in wards:
                    uses[record.kind.number] = uses.get(record.kind.number, 0) + 1
        functions: dict[tuple[PeerId, bytes], int] = {}
        for kind in self._kinds.values():
            assert kind.uses == uses.pop(kind.number)
            assert self._state.client(kind.client) is not None
            key = kind.client, kind.function.hash
            functions[key] = functions.get(key, 0) + 1
            assert self._functions[key] is kind.function
        assert not uses
        assert functions == {key: function.kinds for key, function in self._functions.items()}
        assert sum(shape.kinds for shape in self._shapes.values()) == len(self._kinds)


def defaulted(options: Options, settings: Settings) -> Options:
    """Return options with the timeout that the settings say, if they name none themselves."""
    timeout_s = settings.call_timeout_s if options.actor else settings.task_timeout_s
    limits = options.limits or NO_LIMITS
    # How long an actor lives is nobody's limit.
    if not timeout_s or limits.timeout_s or options.creates is not None:
        return options
    return replace(options, limits=replace(limits, timeout_s=timeout_s))


def _shape_key(client: PeerId, options: Options) -> _ShapeKey:
    return (
        client,
        options.num_cpus,
        options.num_gpus,
        options.resources,
        options.node,
        options.node_labels,
        options.spread,
        options.wait_for_nodes,
        options.creates is not None,
    )

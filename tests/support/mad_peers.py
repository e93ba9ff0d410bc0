"""A scheduler core with an innocent client and node, and a peer that talks nonsense."""

from random import Random
from typing import Any, get_args

from drumbeat.protocol import codec
from drumbeat.protocol.errors import RemoteProtocolError
from drumbeat.protocol.frames import Channel
from drumbeat.protocol.ids import PeerId, TaskId, home_of
from drumbeat.protocol.messages import (
    AssignRow,
    Cancel,
    Define,
    DoneRow,
    Enter,
    Environment,
    Failure,
    Join,
    KindRow,
    Leave,
    Options,
    Outcome,
    Stop,
    Submit,
    TakeBack,
    ToScheduler,
    ValueRow,
    Values,
    Wanted,
)
from drumbeat.scheduler import events

from .fuzzing import WHOLE, Words, damaged
from .scheduling import Stage, failure_done, ids_of, value_done

KINDS = get_args(ToScheduler)
HASH = b"hash" * 4


class Scene:
    """One play: who is innocent does what is agreed; who is guilty says anything that decodes.

    Args:
        rng: chance.
        role: what the guilty one is.
        recovering: the scheduler waits for nodes of its earlier life, of which the guilty is one.
    """

    def __init__(self, rng: Random, role: str, recovering: bool = False) -> None:
        self.rng = rng
        self.role = role
        expected = ["n", "guilty"] if recovering else []
        self.epoch = 5 if recovering else 1
        self.stage = Stage(seed=rng.randrange(99), epoch=self.epoch, expected=expected)
        self.guilty = PeerId(b"guilty")
        #: refusals at decode
        self.refused = 0
        self.said: list[Any] = []
        self.outcomes: dict[bytes, ValueRow] = {}
        self.cancelled: set[bytes] = set()
        self.held: list[AssignRow] = []
        self.node = self.stage.node("n", 2)
        self.client = self.stage.client("c")
        self.enter_guilty()
        self.kind = self.stage.define(self.client, max_retries=100, retry_backoff_s=0.01)
        self.mine = ids_of(self.client, 40)
        self.next = 0
        guilty_ids = ids_of(self.guilty, 6)
        ids = [
            self.guilty, self.client, self.node, b"nobody", *self.mine[:4], *guilty_ids,
            guilty_ids[0] + b"\0\1", guilty_ids[1] + b"\0", HASH, b"work".ljust(16), b"",
            *ids_of(self.node, 2, worker=1), *ids_of(PeerId(b"nobody"), 2), guilty_ids[2] + b"a",
        ]  # fmt: skip
        self.words = Words(rng, ids, (0, 1, 1, 1, 2, 3))
        self.turn()

    # ------------------------------------------------------------------------------ the guilty

    def enter_guilty(self) -> None:
        stage, resources = self.stage, {"CPU": 2.0}
        stage.hello(self.guilty, self.role, "guilty", epoch=self.rng.choice((0, 1)))
        if self.role == "client":
            stage.say(self.guilty, Enter("guilty", Environment(directory="/home")))
        else:
            stage.say(self.guilty, Join("guilty", "host", 1, resources))
        options = Options(max_retries=self.rng.choice((0, 1, 3)))
        client = self.guilty if self.role == "client" else self.client
        stage.say(self.guilty, Define(client, [KindRow(1, HASH, "bad", options, b"code")]))

    def misbehave(self) -> None:
        """Have the guilty one say something: any message of the protocol, or a damaged one."""
        rng = self.rng
        kinds = KINDS
        if rng.random() < 0.7:
            mine = self.stage.core._by_role[self.role]
            kinds = tuple(kind for kind in KINDS if kind in mine and kind is not Leave)
        message = self.words.message(*kinds)
        if rng.random() < 0.6:
            message = self._plausible(message)
        encoded = codec.encode(message)
        if rng.random() < 0.3:
            encoded = damaged(rng, encoded)
        try:
            read: Any = codec.decode_to_scheduler(encoded)
        except RemoteProtocolError as error:
            self.refused += 1
            self.stage.event(events.MessageRejected(self.guilty, str(error)))
            return
        self.said.append(read)
        if isinstance(read, Cancel):
            self.cancelled.update(read.ids)
        self.stage.say(self.guilty, read)
        if rng.random() < 0.1:
            key = self.words.bytes_of(14, 17)
            self.stage.event(events.BlobReceived(self.guilty, key, rng.randbytes(3)))
        if rng.random() < 0.05:
            lag = rng.choice((0, 1 << 40))
            self.stage.event(events.PeerLags(self.guilty, lag, rng.choice(list(Channel))))

    def _plausible(self, message: Any) -> Any:
        """Return a message with the fields right that are looked at first."""
        client = self.guilty if self.role == "client" else self.client
        if isinstance(message, Submit | Define):
            message.client = client
        if isinstance(message, Submit):
            message.parent = b"" if self.role == "client" else message.parent
            for row in message.rows:
                if home_of(TaskId(row.id)) != self.guilty:
                    row.id = self.rng.choice(ids_of(self.guilty, 6))
            if message.attempts:
                whole = (*WHOLE, 0, 1, 2)
                message.attempts = [self.rng.choice(whole) for _ in message.rows]
        if isinstance(message, Define):
            for row in message.rows:
                row.size = 0 if row.payload is None else row.size
        rows = getattr(message, "rows", [])
        if self.held and self.role == "node" and rows and isinstance(rows[0], DoneRow):
            for row in rows:
                attempt = self.rng.choice(self.held)
                row.id, row.attempt = attempt.id, attempt.attempt
        return message

    def return_guilty(self) -> None:
        """Have the guilty one, if it was dropped, come again in a new life."""
        if self.guilty not in self.stage.core._state.peers:
            self.held.clear()
            self.enter_guilty()

    # ---------------------------------------------------------------------------- the innocent

    def work(self) -> None:
        """Have the innocent go on: submit, run, answer, beat."""
        stage = self.stage
        if self.next < len(self.mine) and self.rng.random() < 0.5:
            stage.submit(self.client, self.kind, [self.mine[self.next]])
            self.next += 1
        self.serve(self.node)
        stage.event(events.PeerHeard([self.node, self.client, self.guilty]))

    def serve(self, node: PeerId) -> None:
        stage = self.stage
        for row in stage.assigned(node):
            stage.done(node, _done_row(stage, row))
        for back in stage.take(node, TakeBack):
            stage.taken_back(node)
            assert back.count > 0
        stage.take(node, Stop)
        stage.beat(node)

    def turn(self, after_s: float = 0.05) -> None:
        stage = self.stage
        stage.turn(after_s)
        for peer, mail in stage.mail.items():
            for message in mail:
                codec.encode(message)  # or the shell would fail
            wanted = [id_ for one in mail if isinstance(one, Wanted) for id_ in one.ids]
            if peer == self.client and wanted:
                stage.say(peer, Values([_lost(id_) for id_ in wanted]))
        for row in stage.results(self.client).values():
            assert row.id not in self.outcomes, "one terminal outcome"
            self.outcomes[row.id] = row
        if self.role == "node":
            self.held += stage.assigned(self.guilty)
            del self.held[:-20]
        stage.mail[self.client].clear()
        stage.mail[self.guilty].clear()
        assert self.client in stage.core._state.peers
        assert self.node in stage.core._state.peers

    def end(self) -> None:
        """Have the guilty one go, the innocent finish, and look at what there is."""
        stage = self.stage
        stage.event(events.PeerDisconnected(self.guilty))
        while self.next < len(self.mine):
            stage.submit(self.client, self.kind, [self.mine[self.next]])
            self.next += 1
        for _ in range(400):
            stage.event(events.PeerHeard([self.node, self.client]))
            self.serve(self.node)
            self.turn(0.25)
            if len(self.outcomes) == len(self.mine) and self.guilty not in stage.core._state.peers:
                break
        stage.live(30.0 if self.epoch > 1 else 1.0)
        missing = [id_ for id_ in self.mine if id_ not in self.outcomes]
        assert not missing, f"{len(missing)} tasks of the innocent have no outcome"
        assert self.guilty not in stage.core._state.peers
        if self.role == "client":
            for id_ in self.mine:
                outcome = self.outcomes[id_]
                assert outcome.outcome == Outcome.VALUE or id_ in self.cancelled
        assert not stage.core._recovery.open
        for peer in (self.client, self.node):
            stage.say(peer, Leave())
        stage.turn(0.1)
        rest = {name: size for name, size in stage.core.at_rest().items() if size}
        assert not rest


def _lost(id_: bytes) -> ValueRow:
    return ValueRow(id_, Outcome.FAILURE, failure=Failure("ObjectLost", "gone"))


def _done_row(stage: Stage, row: AssignRow) -> DoneRow:
    record = stage.core._state.find(TaskId(row.id))
    returns = 1 if record is None else record.kind.options.num_returns
    if returns == 1:
        return value_done(row, duration_s=0.001)
    return failure_done(row, "TaskError", duration_s=0.001)


def play(rng: Random, role: str, steps: int, recovering: bool = False) -> Scene:
    """Play one scene to its end, everything checked; return it."""
    scene = Scene(rng, role, recovering)
    for _ in range(steps):
        for _ in range(rng.randint(1, 3)):
            scene.misbehave()
        scene.work()
        scene.turn(rng.choice((0.001, 0.05, 0.5)))
        scene.return_guilty()
    scene.end()
    return scene

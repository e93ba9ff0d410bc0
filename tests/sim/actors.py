"""Actors in a world: what users do with them, and what must be true of their calls.

What an actor has done lies in one place, in order: so a call that is lost, doubled or overtaken is
seen, whoever it came from. Never looks into a core.
"""

from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
from drumbeat.client.events import CancelAsked
from drumbeat.protocol.codec import decoder, encode
from drumbeat.protocol.ids import IdFactory, ObjectId, PeerId, TaskId
from drumbeat.protocol.messages import Outcome, ValueRow
from drumbeat.scheduler.deeds import Course, Deed, Will

from . import operations as op
from .operations import Scenario
from .scripts import Spec, distinct, options_of

if TYPE_CHECKING:
    from drumbeat.node.packets import RunRow

    from .oracle import Execution, Known, Oracle
    from .users import User
    from .worker import Worker

CALLER_BYTES = 9
#: begins the ids of detached actors
DETACHED = b"\xfe\xed"
#: in one world
ACTORS_MAX = 3
_read = decoder(Deed)


def detached_id(label: int) -> TaskId:
    """Return the id of a detached actor, which is nobody else's."""
    return IdFactory(PeerId(DETACHED + label.to_bytes(4, "big")))()


def is_detached(id_: bytes) -> bool:
    """Return whether an id is that of a detached actor."""
    return id_.startswith(DETACHED)


class Cast:
    """The actors of one user."""

    def __init__(self, user: "User") -> None:
        self._user = user
        #: handles at hand -> how many
        self.hand: dict[ObjectId, int] = {}

    def create(self, spec: Spec) -> None:
        """Make an actor; one that is to have a name asks for it first, as programs do."""
        creates = options_of(spec).creates
        if creates is not None and creates.name:
            then = partial(self._answered, spec)
            self._user.ask_for_name(creates.name, creates.namespace, then)
        else:
            self._create(spec)

    def _answered(self, spec: Spec, task: TaskId, found: Any) -> None:
        if found["id"] == task:
            self._create(spec, task)
        else:
            self._user.oracle.count("name of another actor")

    def _create(self, spec: Spec, task: TaskId | None = None) -> None:
        for id_ in self._user.call(spec, 1, given=task):
            self.hand[id_] = 1

    def handed_over(self, id_: ObjectId, row: ValueRow) -> None:
        """A detached actor is the scheduler's from here on: others find it, too."""
        if row.outcome == Outcome.VALUE:
            self._user.oracle.count("actor handed over")
            for other in self._user.process.world.users:
                if other is not self._user:
                    self._user.clock.after(0.005, other.cast.find, id_)

    def find(self, id_: ObjectId) -> None:
        """Get an actor by its name."""
        if not self._user.is_gone and id_ not in self.hand:
            self._user.hold(id_, self.hand)

    def _picked(self, pick: int) -> ObjectId | None:
        at_hand = list(self.hand)
        places = distinct([pick], len(at_hand))
        return at_hand[places[0]] if places else None

    def call(self, entry: op.CallActor) -> None:
        """Call a method, or call it several times in a row."""
        actor = self._picked(entry.pick)
        if actor is not None:
            options = {**entry.spec.options, "actor": bytes(actor)}
            self._user.submit(msgspec.structs.replace(entry.spec, options=options), entry.copies)

    def end(self, entry: op.EndActor) -> None:
        """Let go of a handle, or kill what is behind it."""
        actor = self._picked(entry.pick)
        if actor is None:
            return
        self._user.oracle.count(f"actor: {entry.how}")
        if entry.how == "drop":
            self._let_go(actor)
            return
        self._user.oracle.cancel_asked([actor])
        restart = entry.how == "restart"
        asked = CancelAsked([TaskId(actor)], not restart, not restart, restart=restart)
        self._user.do(asked, late=True)

    def let_all_go(self) -> None:
        """Drop every handle; what is detached is killed."""
        user = self._user
        for known in list(user.oracle.tasks.values()):
            creates = known.options.creates
            if creates is not None and creates.detached:
                id_ = ObjectId(known.id)
                user.hold(id_, self.hand)
                user.do(CancelAsked([known.id], force=True, recursive=True), late=True)
        user.clock.after(0.001, self._let_all_go)

    def _let_all_go(self) -> None:
        for id_ in list(self.hand):
            while id_ in self.hand:
                self._let_go(id_)

    def _let_go(self, actor: ObjectId) -> None:
        if not is_detached(actor):
            self._user.oracle.cancel_asked([actor])
        self._user.let_go(actor, self.hand)


class Deeds:
    """What the scheduler has written of detached actors: it outlives any crash."""

    def __init__(self, oracle: "Oracle") -> None:
        self._oracle = oracle
        #: packed, as files are: nothing in them is of the life that wrote them
        self._deeds: dict[bytes, bytes] = {}
        self._courses: dict[bytes, Course] = {}

    def keep(self, deed: Deed) -> None:
        self._oracle.count("actor written down")
        self._deeds[deed.id] = encode(deed)

    def keep_course(self, id_: bytes, course: Course) -> None:
        self._oracle.count("actor's course written down")
        if id_ not in self._deeds:
            self._oracle.wrong(f"{id_.hex()} has come on and is not written down")
        before = self._courses.get(id_, Course()).attempt
        if course.attempt < before:
            self._oracle.wrong(f"{id_.hex()} is at incarnation {course.attempt} after {before}")
        self._courses[id_] = course

    def drop(self, id_: bytes) -> None:
        self._deeds.pop(id_, None)
        self._courses.pop(id_, None)

    def wills(self) -> list[Will]:
        """Return what one life of the scheduler leaves to the next."""
        wills = [
            Will(_read(packed), self._courses.get(id_, Course()))
            for id_, packed in self._deeds.items()
        ]
        if wills:
            self._oracle.count("actors left to the next life of the scheduler", len(wills))
        return wills


class Acts:
    """What the actors did."""

    def __init__(self, oracle: "Oracle") -> None:
        self._oracle = oracle
        self.deeds = Deeds(oracle)
        #: by actor, life and caller: the last call that ran
        self._last: dict[tuple[bytes, bytes, int, bytes], bytes] = {}
        #: by actor and caller: the last call that ran for the first time
        self._newest: dict[tuple[bytes, bytes], bytes] = {}
        #: by actor: the processes that have been it, the last one to act last, with its incarnation
        self._lives: dict[bytes, dict[Worker, int]] = {}

    def acts(self, worker: "Worker", creation: "RunRow") -> None:
        """A process does something as an actor: then no other one may, nor ever again."""
        lives = self._lives.setdefault(creation.id, {})
        now_s = self._oracle.clock.now_s
        for other, incarnation in list(lives.items()):
            if other is worker:
                continue
            if incarnation >= creation.attempt:
                # What it writes to would take it for the other one, or refuse it.
                text = f"incarnation {creation.attempt} of {creation.id.hex()} acts after"
                self._oracle.wrong(f"{text} another process as incarnation {incarnation}")
            if not other.is_alive:
                if incarnation < creation.attempt:
                    del lives[other]
            elif now_s >= other.stopped_until_s:
                text = f"incarnation {creation.attempt} of {creation.id.hex()} acts while"
                self._oracle.wrong(f"{text} incarnation {incarnation} lives on {other.pool.node}")
        lives.pop(worker, None)
        lives[worker] = creation.attempt
        if len(lives) > 1 or creation.attempt > 1:
            self._oracle.count("actor acts in a later life")

    def begun(self, known: "Known") -> None:
        """An actor begins in a process of its own: nobody else may have its name."""
        creates = known.options.creates
        if creates is None or not creates.name or self._oracle.lives_lost:
            return
        for other in self._oracle.tasks.values():
            same = other.options.creates
            if other is known or same is None or same.name != creates.name:
                continue
            if any(execution.is_running for execution in other.executions):
                self._oracle.wrong(f"{known.id.hex()} and {other.id.hex()} have one name at once")

    def ran(self, known: "Known", execution: "Execution", worker: int, hosts: bytes) -> None:
        """A call begins to run in a worker."""
        id_, actor, wrong = known.id, known.options.actor, self._oracle.wrong
        self._oracle.count("actor calls")
        if hosts != actor:
            wrong(f"call {id_.hex()} of {actor.hex()} runs in the process of {hosts.hex()}")
        caller = id_[:CALLER_BYTES]
        life = actor, execution.peer, worker, caller
        if id_ <= self._last.get(life, b""):
            wrong(f"call {id_.hex()} runs after {self._last[life].hex()}, which came later")
        self._last[life] = id_
        if execution.attempt > 1:
            self._oracle.count("actor call repeated")
            return
        if id_ <= self._newest.get((actor, caller), b"") and not self._oracle.lives_lost:
            wrong(f"call {id_.hex()} runs first after {self._newest[actor, caller].hex()}")
        self._newest[actor, caller] = id_


def why_dead(oracle: "Oracle", known: "Known", error: str) -> str:
    """Return what is wrong with a call, or an actor, that failed for its process's sake."""
    if oracle.lives_lost or oracle.lives_late:
        return ""
    if error == "ActorCallLost":
        return "" if known.died else "ActorCallLost; its worker did not die"
    actor = oracle.tasks.get(known.options.actor or known.id)
    if actor is None:
        return f"{error} of an unknown actor"
    if error == "ActorUnavailable":
        was_there = known.options.actor and (actor.died or actor.is_asked_to_stop or oracle.drained)
        return "" if was_there else f"{error}; its actor had no reason to be restarted"
    # One that nobody holds has no calls; one that failed before it was made has said why. One that
    # is detached has a row when it was handed over, which is no end.
    rows = [row for row in actor.rows.values() if row.outcome != Outcome.VALUE]
    reasons = (
        actor.died, actor.is_asked_to_stop, actor.spec.errors, actor.deps,
        rows if is_detached(actor.id) else actor.rows,
        actor.options.creates is not None and actor.options.creates.name,
    )  # fmt: skip
    return "" if any(reasons) else f"{error}; its actor had no reason to end"


# ------------------------------------------------------------------------------------------- draws


def with_actors(scenario: Scenario) -> Scenario:
    """Return the same world with actors in it."""
    random = Random(f"cast {scenario.seed}")
    tape: list[Any] = _partitions(random, scenario)
    until_s = max([scenario.chaos_s, *(fault.at_s + fault.for_s + 0.5 for fault in tape)])
    for number in range(random.choice((1, 1, 2, ACTORS_MAX))):
        client = random.randrange(scenario.clients)
        at_s = random.uniform(0.0, 0.5 * scenario.chaos_s)
        label = 500_000 + 1000 * number
        tape.append(op.CreateActor(at_s=at_s, client=client, spec=_constructor(random, label)))
        for call in range(random.choice((2, 5, 12))):
            spec = _method(random, label + 10 * (1 + call))
            tape.append(
                op.CallActor(
                    at_s=random.uniform(at_s, until_s),
                    client=client,
                    pick=-1 - number,
                    spec=spec,
                    copies=random.choice((1, 1, 1, 3, 9)),
                )
            )
        if random.random() < 0.4:
            how = random.choice(("drop", "kill", "restart"))
            end_s = random.uniform(at_s, until_s)
            tape.append(op.EndActor(at_s=end_s, client=client, pick=random.randrange(3), how=how))
    made = msgspec.structs.replace(scenario, settings=dict(scenario.settings), chaos_s=until_s)
    # It covers what clocks differ by, and how seldom the scheduler notes that it has heard a node.
    made.settings["lease_margin_s"] = max(0.3, made.settings.get("lease_margin_s", 2.0))
    tape += _detached(made, Random(f"detached {scenario.seed}"))
    made.tape = sorted([*scenario.tape, *tape], key=lambda entry: entry.at_s)
    return made


def _partitions(random: Random, scenario: Scenario) -> list[Any]:
    """Return times in which a node, or its daemon alone, is not heard, around its lease's end."""
    settings = scenario.settings
    lease_s = settings["lost_after_intervals"] * settings["heartbeat_interval_s"]
    made: list[Any] = []
    for _ in range(random.choice((0, 1, 1, 2, 4))):
        at_s, for_s = random.uniform(0.0, scenario.chaos_s), lease_s * random.uniform(0.3, 2.0)
        who = f"n{random.randrange(len(scenario.nodes))}"
        if random.random() < 0.3:
            made.append(op.Pause(at_s=at_s, who=who, for_s=for_s))
        else:
            ways = random.choice((("up",), ("down",), ("up", "down")))
            made += [op.Stall(at_s=at_s, who=who, way=way, for_s=for_s) for way in ways]
    return made


def _detached(scenario: Scenario, random: Random) -> list[Any]:
    """Return what is done with an actor that belongs to nobody, and with one that has a name."""
    leaving = {entry.client % scenario.clients for entry in scenario.tape
               if isinstance(entry, op.Leave)}  # fmt: skip
    if len(leaving) == scenario.clients:
        return []  # nobody would be there to kill it in the end
    tape: list[Any] = []
    until_s = scenario.chaos_s
    for number, options in enumerate(({"detached": True}, {"name": "a"}, {"name": "a"})):
        if random.random() < 0.4:
            continue
        client, at_s = random.randrange(scenario.clients), random.uniform(0.0, 0.4 * until_s)
        label = 700_000 + 1000 * number
        spec = _constructor(random, label)
        spec.options["creates"] = options
        # One that dies again and again would be restarted for ever.
        if "detached" in options and spec.deaths >= 0 and random.random() < 0.4:
            spec.options["creates"] = {**options, "restart_window_s": random.choice((0.05, 1.0))}
        tape.append(op.CreateActor(at_s=at_s, client=client, spec=spec))
        tape += [
            op.CallActor(
                at_s=random.uniform(at_s, until_s),
                client=random.randrange(scenario.clients),
                pick=-1 - random.randrange(2),
                spec=_method(random, label + 10 * (1 + call)),
                copies=random.choice((1, 3, 9)),
            )
            for call in range(random.choice((2, 6)))
        ]
        if random.random() < 0.2:
            end = op.EndActor(
                at_s=random.uniform(at_s, until_s), client=random.randrange(scenario.clients),
                pick=-1, how=random.choice(("drop", "kill", "restart")),
            )  # fmt: skip
            tape.append(end)
    return tape


def _constructor(random: Random, label: int) -> Spec:
    options: dict[str, Any] = {
        "creates": {}, "num_cpus": 0.0, "max_retries": random.choice((0, 1, 3, 20, 20)),
    }  # fmt: skip
    spec = Spec(label=label, function=random.randrange(5), options=options)
    if random.random() < 0.2:
        options["creates"] = {"waits_on_partition": True}
    spec.seconds = random.choice((0.0005, 0.01, 0.2))
    spec.deaths = random.choice((0, 0, 0, 0, 0, 1, -1))
    spec.errors = random.choice((0, 0, 0, 0, 0, 0, 0, -1))
    if random.random() < 0.2:
        spec.deps = [-1]
    return spec


def _method(random: Random, label: int) -> Spec:
    options: dict[str, Any] = {"num_cpus": 0.0, "max_retries": random.choice((0, 0, 0, 1, 3))}
    spec = Spec(label=label, function=random.randrange(3), options=options)
    spec.seconds = random.choice((0.0002, 0.0002, 0.005, 0.05))
    if random.random() < 0.2:
        spec.deps = [-1 - random.randrange(4)]
    if random.random() < 0.08:
        spec.deaths = random.choice((1, -1))
    if random.random() < 0.08:
        spec.errors = -1
    spec.sizes = [random.choice((0, 0, 500, 5_000))]
    return spec

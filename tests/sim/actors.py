"""Actors in a world: what users do with them, and what must be true of their calls.

What an actor has done lies in one place, in order: so a call that is lost, doubled or overtaken is
seen, whoever it came from. Never looks into a core.
"""

from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
from drumbeat.client.events import CancelAsked
from drumbeat.protocol.ids import ObjectId, TaskId

from . import operations as op
from .operations import Scenario
from .scripts import Spec, distinct

if TYPE_CHECKING:
    from drumbeat.node.packets import RunRow

    from .oracle import Execution, Known, Oracle
    from .users import User
    from .worker import Worker

CALLER_BYTES = 9
#: in one world
ACTORS_MAX = 3


class Cast:
    """The actors of one user."""

    def __init__(self, user: "User") -> None:
        self._user = user
        #: handles at hand -> how many
        self.hand: dict[ObjectId, int] = {}

    def create(self, spec: Spec) -> None:
        """Make an actor."""
        for id_ in self._user.call(spec, 1):
            self.hand[id_] = 1

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
        self._user.oracle.cancel_asked([actor])
        if entry.how == "drop":
            self._user.let_go(actor, self.hand)
            return
        restart = entry.how == "restart"
        asked = CancelAsked([TaskId(actor)], not restart, not restart, restart=restart)
        self._user.do(asked, late=True)

    def let_all_go(self) -> None:
        """Drop every handle."""
        self._user.oracle.cancel_asked(list(self.hand))
        for id_ in list(self.hand):
            while id_ in self.hand:
                self._user.let_go(id_, self.hand)


class Acts:
    """What the actors did."""

    def __init__(self, oracle: "Oracle") -> None:
        self._oracle = oracle
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
            if incarnation > creation.attempt:
                text = f"incarnation {creation.attempt} of {creation.id.hex()} acts after"
                self._oracle.wrong(f"{text} incarnation {incarnation}")
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
    # One that nobody holds has no calls; one that failed before it was made has said why.
    reasons = actor.died, actor.is_asked_to_stop, actor.spec.errors, actor.rows, actor.deps
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
    made = msgspec.structs.replace(
        scenario, settings=dict(scenario.settings), chaos_s=until_s
    )
    # It covers what clocks differ by, and how seldom the scheduler notes that it has heard a node.
    made.settings["lease_margin_s"] = max(0.3, made.settings.get("lease_margin_s", 2.0))
    if "submit_credit_tasks" in made.settings:
        # Each is an unfinished task for as long as it lives.
        made.settings["submit_credit_tasks"] += ACTORS_MAX
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

"""The tape of one run: sizes, what users do and what goes wrong, all drawn from the seed.

Every entry stands for itself: it names others by picks (modulo what there is when it happens), so
that any part of a tape is a tape, which is what shrinking needs. Never runs anything.
"""

from typing import Any

import msgspec

from .scripts import Spec


class Entry(msgspec.Struct, tag_field="do", omit_defaults=True, kw_only=True):
    """Something that happens at a time."""

    at_s: float


class Submit(Entry, tag="submit"):
    """A user submits one task, or several alike."""

    client: int
    spec: Spec
    copies: int = 1
    #: the refs that it passes on are let go at once, as in f.remote(g.remote())
    lets_go: bool = False
    #: so many bytes of each one's arguments lie in a memory segment
    segment: int = 0


class Put(Entry, tag="put"):
    """A user puts a value, perhaps with refs inside."""

    client: int
    label: int
    size: int = 0
    contains: list[int] = []
    #: so many bytes of it lie in a memory segment
    segment: int = 0


class Get(Entry, tag="get"):
    """A user waits for values."""

    client: int
    picks: list[int]
    timeout_s: float | None = None


class Wait(Entry, tag="wait"):
    """A user waits until so many are ready."""

    client: int
    picks: list[int]
    count: int = 1
    timeout_s: float | None = None


class Drop(Entry, tag="drop"):
    """A user lets refs go."""

    client: int
    picks: list[int]


class Cancel(Entry, tag="cancel"):
    """A user cancels; `asks`: and wants to know what had not started."""

    client: int
    picks: list[int]
    force: bool = False
    recursive: bool = True
    asks: bool = False


class Share(Entry, tag="share"):
    """A user pickles a ref outside Drumbeat and another one loads it."""

    client: int
    to: int
    pick: int


class Query(Entry, tag="query"):
    """A user asks the scheduler something."""

    client: int
    what: str


class CreateActor(Entry, tag="create_actor"):
    """A user makes an actor."""

    client: int
    spec: Spec


class CallActor(Entry, tag="call_actor"):
    """A user calls a method of one of its actors, once or several times."""

    client: int
    pick: int
    spec: Spec
    copies: int = 1


class EndActor(Entry, tag="end_actor"):
    """A user lets go of a handle ("drop"), or kills an actor ("kill", "restart")."""

    client: int
    pick: int
    how: str


class Leave(Entry, tag="leave"):
    """A client says goodbye, or just ends."""

    client: int
    crash: bool = False


class KillWorker(Entry, tag="kill_worker"):
    """A worker process dies."""

    node: int
    pick: int
    signal: str = "KILL"


class StopWorker(Entry, tag="stop_worker"):
    """A worker process stands still."""

    node: int
    pick: int
    for_s: float


class ForkFails(Entry, tag="fork_fails"):
    """A node cannot start workers."""

    node: int
    for_s: float


class CrashNode(Entry, tag="crash_node"):
    """A node daemon dies; the keeper kills its workers and starts a new one."""

    node: int
    down_s: float


class Drain(Entry, tag="drain"):
    """A node is drained, and started again when it has ended."""

    node: int
    #: who has the scheduler do it; -1: whoever runs the node does
    client: int = -1
    #: it is told so again, to be quick about it; -1: it is not
    hurry_after_s: float = -1.0
    back_s: float = 0.0


class CrashScheduler(Entry, tag="crash_scheduler"):
    """The scheduler dies and comes back, perhaps several times in a row."""

    down_s: float
    #: it dies in its next turn, after it decided and before it has sent anything
    mid_turn: bool = False
    #: it does so in the turn in which it next writes down its nodes
    at_note: bool = False
    #: how long each further life lasts
    again_s: list[float] = []


class PauseHost(Entry, tag="pause_host"):
    """A whole host stands still: the node, its workers, and the clients on it."""

    node: int
    for_s: float


class OutOfMemory(Entry, tag="out_of_memory"):
    """The kernel kills a worker for want of memory."""

    node: int
    pick: int


class LateWorker(Entry, tag="late_worker"):
    """What a worker says comes late, and what it was told to do is done."""

    node: int
    pick: int
    for_s: float


class Pause(Entry, tag="pause"):
    """A process stands still: "scheduler", "n0", "c0"."""

    who: str
    for_s: float


class Cut(Entry, tag="cut"):
    """A peer's connections break: control (0), bulk (1), both (2)."""

    who: str
    which: int = 2
    half_open: bool = False
    #: instead, all those that it has dialled to other peers
    data: bool = False


class Spoil(Entry, tag="spoil"):
    """The next bytes of a large payload that a peer sends to another one come wrong."""

    who: str


class Stall(Entry, tag="stall"):
    """One direction of a peer's connections goes silent."""

    who: str
    way: str
    for_s: float
    #: instead, those that it has dialled to other peers
    data: bool = False


class Slow(Entry, tag="slow"):
    """A peer's network is slow."""

    who: str
    factor: float
    for_s: float
    #: instead, those that it has dialled to other peers
    data: bool = False


Operation = (
    Submit
    | Put
    | Get
    | Wait
    | Drop
    | Cancel
    | Share
    | Query
    | Leave
    | CreateActor
    | CallActor
    | EndActor
)
FAULTS = (
    KillWorker, StopWorker, ForkFails, CrashNode, Pause, Cut, Stall, Slow,
    CrashScheduler, PauseHost, OutOfMemory, LateWorker, Drain, Spoil,
)  # fmt: skip
Fault = (
    KillWorker
    | StopWorker
    | ForkFails
    | CrashNode
    | Pause
    | Cut
    | Stall
    | Slow
    | CrashScheduler
    | PauseHost
    | OutOfMemory
    | LateWorker
    | Drain
    | Spoil
)


class Scenario(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A whole run: the seed decides delays, all else stands here."""

    seed: int
    #: name -> resources
    nodes: dict[str, dict[str, float]]
    clients: int
    settings: dict[str, Any]
    chaos_s: float
    delay_s: float = 1e-4
    jitter_s: float = 1e-4
    bytes_per_s: float = 1e9
    #: check_invariants() of a core each so many turns
    audit_each: int = 5
    #: network B: how often it loses, doubles and reorders a frame; empty: network A
    hostility: list[float] = []
    #: client -> the node on whose host it runs; others have hosts of their own
    hosts: dict[str, str] = {}
    #: host (named by its node, or by who is alone there) -> offset and rate of its clock
    clocks: dict[str, list[float]] = {}
    #: large payloads go past the scheduler
    data: bool = False
    #: nodes to which no other peer has a way
    walled: list[str] = []
    tape: list[Operation | Fault] = []


to_json = msgspec.json.Encoder().encode
from_json = msgspec.json.Decoder(Scenario).decode


def load(text: bytes) -> Scenario:
    """Read a scenario that was saved."""
    return from_json(text)


def dump(scenario: Scenario) -> bytes:
    """Write a scenario as text for people and for `load`."""
    return msgspec.json.format(to_json(scenario), indent=1)

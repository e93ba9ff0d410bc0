"""That all records of the scheduler agree: for tests and the simulator, between turns.

Never changes anything.
"""

from typing import TYPE_CHECKING

from ..protocol.ids import PeerId, TaskId
from .hosts import bytes_of, caller_of
from .tasks import (
    ASSIGNED,
    BACKOFF,
    DELIVERING,
    FINISHED,
    FROM_BEFORE,
    QUEUED,
    WAITING,
    TaskRecord,
)

if TYPE_CHECKING:
    from .hosts import Actor
    from .state import Node, State
    from .work import Work


def check_node(node: "Node") -> None:
    """Assert that a node's account is what follows from its attempts."""
    cpu = lent = blocked = 0
    others: dict[str, int] = {}
    counts: dict[int, int] = {}
    work_s = 0.0
    for task, record in node.assigned.items():
        shape, is_actor = record.kind.shape, record.kind.creates is not None
        assert record.node is node
        assert record.kind.host is None
        assert record.id == task
        cpu += shape.cpu
        lent += shape.cpu if record.blocked else 0
        blocked += record.blocked and not is_actor
        work_s += 0.0 if record.blocked else record.expected_s
        for name, amount in shape.others:
            others[name] = others.get(name, 0) + amount
        if not record.blocked or is_actor:
            counts[record.kind.number] = counts.get(record.kind.number, 0) + 1
        _check_told(node, record)
    for task, record in node.calls.items():
        assert record.node is node
        assert record.id == task
        assert record.kind.host is not None
        assert record.kind.host.at is node
        _check_told(node, record)
    assert node.actors == sum(one.kind.creates is not None for one in node.assigned.values())
    assert node.free_cpu == node.cpu - cpu
    assert node.lent_cpu == lent
    assert node.blocked == blocked
    assert abs(node.work_s - work_s) < 1e-6 * (1 + work_s)
    assert node.counts == counts
    for name, free in node.free.items():
        assert free == node.total.get(name, 0) - others.get(name, 0)
    for record in node.delivering.values():
        assert record.node is node
        assert record.unmet > 0
    uses: dict[tuple[PeerId, bytes], int] = {}
    for kind in node.kinds.values():
        key = kind.client, kind.function.hash
        uses[key] = uses.get(key, 0) + 1
    assert node.functions == uses


def _check_told(node: "Node", record: TaskRecord) -> None:
    if record.assigned_s != FROM_BEFORE:
        assert record.kind.number in node.kinds
        assert record.kind.client in node.clients
    else:
        assert record.kind.client in node.former


def check_work(work: "Work", state: "State") -> None:
    """Assert that each task is where its state says."""
    work.queue.check_invariants()
    assert not work.sizes()["ending"]
    queued = {id(record) for queue in work.queue.queues() for record in queue}
    in_line = {id(record) for actor in state.hosts.known.values() for record in actor.lines}
    wards = state.hosts.wards
    owners = (*state.peers.values(), *wards.values())
    tasks = [r for peer in owners for r in peer.tasks.values()]
    for record in tasks:
        node, is_call = record.node, record.kind.host is not None
        assert (record.state == QUEUED and not is_call) == (id(record) in queued)
        assert (is_call and node is None) == (id(record) in in_line)
        assert (record.state == BACKOFF) == (record.id in work.backing_off)
        assert (record.state in (ASSIGNED, DELIVERING)) == (node is not None)
        if node is not None:
            home = node.calls if is_call else node.assigned
            home = home if record.state == ASSIGNED else node.delivering
            assert home[record.id] is record
        if record.id in work.parked:
            assert record.state == WAITING
            assert work.parked[record.id] is record
        if record.state == WAITING:
            assert record.unmet > 0
        elif record.state != DELIVERING:
            assert record.unmet == 0
        if record.parent:
            assert work.children[record.parent][record.id] is record
        if record.kind.creates is not None:
            assert state.hosts.known[record.id].record is record
    for children in work.children.values():
        assert children
        for id_, child in children.items():
            assert child.id == id_
            assert child.state != FINISHED
    assert all(id_ in work.backing_off for id_ in work.untold)
    parked = work.parked.values()
    assert all(record.owner.here or record.owner.id in wards for record in parked)
    assert all(work.parked[id_].stopping for id_ in work.condemned)
    assert len(work.backing_off) == sum(record.state == BACKOFF for record in tasks)


def check_actors(state: "State") -> None:
    """Assert that each actor knows its calls, and that nobody waits for what was told."""
    at_nodes: dict[TaskId, list[TaskRecord]] = {}
    for node in state.nodes.values():
        for record in node.calls.values():
            if record.kind.host is not None:
                at_nodes.setdefault(record.kind.host.id, []).append(record)
    fences = state.hosts.fences
    fences.check_invariants()
    for id_, actor in state.hosts.known.items():
        assert actor.id == id_
        assert actor.doubted == fences.has(id_)
        actor.lines.check_invariants()
        named = actor.kinds or actor.record is not None or actor.has_calls()
        assert named or state.claims.open, id_.hex()
        queued, sent = list(actor.lines), at_nodes.pop(id_, [])
        assert len(queued) == actor.queued, id_.hex()
        assert len(sent) == actor.in_flight, id_.hex()
        assert sum(map(bytes_of, sent)) == actor.in_flight_bytes
        assert all(record.kind.host is actor and record.node is None for record in queued)
        pending: dict[bytes, int] = {}
        if actor.calls_max >= 0:
            for record in (*queued, *sent):
                caller = caller_of(record)
                pending[caller] = pending.get(caller, 0) + 1
        assert actor.pending == pending
        if actor.record is not None:
            assert actor.over is None
            assert state.find(id_) is actor.record or not actor.record.owner.here
        if actor.over is not None:
            assert all(call.state == WAITING for call in queued)
        elif actor.record is None and queued:
            assert actor.watched, id_.hex()
        _check_goes(state, actor)
    assert not at_nodes


def _check_goes(state: "State", actor: "Actor") -> None:
    """Assert that calls which may go are looked at, or that something keeps them."""
    if not actor.lines.able or actor in state.hosts.active:
        return
    node = actor.node
    full = actor.in_flight > 0  # what is left of it makes it be looked at
    assert full or node is None or not node.hears or node.drain.active, actor.id.hex()

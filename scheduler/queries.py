"""Answers to status, nodes and tasks: plain data for people and programs.

Never changes anything. `status` counts nothing that is counted already; only `tasks` looks at
single tasks, and stops at its limit.
"""

from collections.abc import Iterable, Iterator
from heapq import nlargest
from typing import Any, Final

from ..protocol.frames import Role
from ..protocol.ids import parse, show
from ..protocol.messages import (
    Query,
)
from ..protocol.resources import UNITS
from ..protocol.running import RunningRow
from .attempts import Attempts
from .drains import Drains, add_to, status_of
from .events import DoorTold
from .hosts import Actor
from .recovery import Recovery
from .state import Node, State
from .tasks import ASSIGNED, BACKOFF, DELIVERING, QUEUED, STATE_NAMES, TaskRecord
from .work import Work

#: the rate is that of so many whole seconds
RATE_SECONDS: Final = 10
LIMIT_MAX: Final = 10_000
#: with `match`, so many tasks are looked at, not one more: an answer must not hold up the rest
LOOK_AT: Final = 200_000
#: of what cannot run, so many sorts are told
LACKS_MAX: Final = 8
#: the same for `top`, which asks again and again
TOP_LOOK_AT: Final = 20_000

Data = dict[str, Any]


class Rate:
    """How many tasks were finished in each of the last seconds."""

    __slots__ = ("_seconds", "total")

    def __init__(self) -> None:
        #: how many were finished in all when that was last noted
        self.total = 0
        #: whole second -> how many
        self._seconds: dict[int, int] = {}

    def note(self, total: int, now_s: float) -> None:
        """Note how many are finished in all by now."""
        second, seconds = int(now_s), self._seconds
        if second in seconds:
            seconds[second] += total - self.total
        elif total != self.total:
            seconds[second] = total - self.total
            if len(seconds) > 2 * RATE_SECONDS:
                for old in [at for at in seconds if at < second - RATE_SECONDS]:
                    del seconds[old]
        self.total = total

    def per_s(self, now_s: float, since_s: float) -> float:
        """Return how many a second in the last seconds, or since the start if that is less."""
        first = int(now_s) - RATE_SECONDS
        count = sum(count for at, count in self._seconds.items() if at > first)
        return count / min(float(RATE_SECONDS), max(1.0, now_s - since_s))


class Queries:
    """Whatever can be asked."""

    __slots__ = ("_attempts", "_door", "_drains", "_recovery", "_state", "_work", "rate")

    def __init__(
        self, state: State, work: Work, attempts: Attempts, recovery: Recovery, drains: Drains
    ) -> None:
        self._drains = drains
        self._recovery = recovery
        self._state = state
        self._work = work
        self._attempts = attempts
        #: what was refused of those who are no peers
        self._door = DoorTold({}, "")
        self.rate = Rate()

    def door_told(self, told: DoorTold) -> None:
        """More was refused at the door."""
        self._door = told

    def answer(self, query: Query) -> Any:
        """Return plain data, or {"error": text} for a question nobody knows."""
        if query.what == "status":
            return self.status()
        if query.what == "nodes":
            return self.nodes()
        if query.what == "tasks":
            return self.tasks(min(query.limit, LIMIT_MAX), query.match)
        if query.what == "actors":
            return actor_rows(self._state, min(query.limit, LIMIT_MAX), query.match)
        if query.what == "top":
            return self.top(min(query.limit, LIMIT_MAX))
        if query.what == "events":
            told = self._state.chronicle.answer(query, self._state.now_s)
            return {"epoch": self._state.epoch, **told}
        known = "status, nodes, tasks, actors, objects, events, top or stack"
        return {"error": f"nobody can ask for {query.what!r}; ask for {known}"}

    def status(self) -> Data:
        """Return the cluster in figures."""
        state, counters = self._state, self._state.counters
        nodes = list(state.nodes.values())
        suspect = sum(node.suspect for node in nodes)
        live = sum(len(peer.tasks) for peer in (*state.peers.values(), *state.hosts.wards.values()))
        ending = [record for node in nodes for record in node.delivering.values()]
        delivering = sum(record.kind.host is None for record in ending)
        at_nodes = delivering + sum(len(node.assigned) for node in nodes)
        calls = self._actor_calls(nodes)
        calls_in_all = calls["waiting"] + calls["running"] + len(ending) - delivering
        started_s = state.now_s if state.started_s is None else state.started_s
        clients = [p for p in state.peers.values() if p.role == Role.CLIENT and p.entered]
        return {
            "epoch": state.epoch,
            "recovering": state.recovering,
            "waits_for": self._recovery.waits_for(),
            "uptime_s": state.now_s - started_s,
            "nodes": {"alive": len(nodes) - suspect, "suspect": suspect},
            "clients": len(clients),
            "workers": sum(node.workers for node in nodes),
            "actors": sum(node.actors for node in nodes),
            "tasks": {
                # Tasks of a node that is gone end with their attempt and are known there alone.
                "waiting": max(0, live - calls_in_all - self._work.queue.size - at_nodes),
                "queued": self._work.queue.size,
                "assigned": at_nodes,
                "blocked": sum(node.blocked for node in nodes),
                "finished": counters["finished"],
                "failed": counters["failed"],
                "cancelled": counters["cancelled"],
                "retried": counters["retried"],
            },
            "actor_calls": calls,
            "calls": _calls(nodes),
            **self._lacks(),
            "rate_per_s": self.rate.per_s(state.now_s, started_s),
            "resources": {
                "total": _sum(node.total for node in nodes),
                "free": _sum(_free(node) for node in nodes),
            },
            "stale_dropped": counters["stale_dropped"],
            "messages_rejected": counters["messages_rejected"],
            "output_bytes_dropped": counters["output_bytes_dropped"],
            "checkpoints": state.hosts.checkpoints.told(),
            "refused": {
                "peers": counters["peers_dropped"],
                "strangers": counters["strangers_gone"],
                "cancels": counters["cancels_dropped"],
                **self._door.counts,
                "last": self._door.reason,
            },
        }

    def _actor_calls(self, nodes: list[Node]) -> dict[str, int]:
        """Return how many calls of actors there are: those that run, and those that wait."""
        running = sum(row.id in node.calls for node in nodes for row in node.running)
        in_line = sum(actor.queued for actor in self._state.hosts.known.values())
        at_nodes = sum(len(node.calls) for node in nodes)
        return {"waiting": max(0, in_line + at_nodes - running), "running": running}

    def _lacks(self) -> Data:
        """Return what cannot run now and why, if anything."""
        told = self._attempts.starving.told()
        return {"cannot_run": told[:LACKS_MAX]} if told else {}

    def nodes(self) -> list[Data]:
        """Return each node."""
        return [add_to(self._node(node), node, self._drains) for node in self._state.nodes.values()]

    def _node(self, node: Node) -> Data:
        return {
            "name": node.name,
            "id": node.id.hex(),
            "host": node.host,
            "pid": node.pid,
            "state": status_of(node),
            "resources": node.resources,
            "labels": node.labels,
            "free": {name: amount / UNITS for name, amount in _free(node).items()},
            "assigned": len(node.assigned),
            "running": len(node.running),
            "calls": _calls((node,)),
            "blocked": node.blocked,
            "workers": node.workers,
            "lag_s": node.lag_s,
            "memory_bytes": node.memory_bytes,
            "cpu": None if node.used < 0 else round(node.used, 3),
            "last_heard_s": max(0.0, self._state.now_s - node.beat_s),
        }

    def tasks(self, limit: int, match: str) -> list[Data]:
        """Return up to `limit` tasks, running ones first, then by what comes to run next.

        A whole id names one task, which is looked up; else `match` is how a name or id begins.
        """
        one = self._named(match) if limit > 0 else None
        if one is not None:
            return [one]
        found: list[Data] = []
        for looked_at, (record, row) in enumerate(self._all()):
            if len(found) >= limit or looked_at >= LOOK_AT:
                break
            name = record.kind.name
            if match and not name.startswith(match) and not show(record.id).startswith(match):
                continue
            found.append(self._task(record, row))
        return found

    def top(self, limit: int) -> Data:
        """Return what `drumbeat top` shows: the figures, the nodes, the calls that run longest."""
        now_s, count = self._state.now_s, 0
        running: list[tuple[float, int, TaskRecord, RunningRow]] = []
        for node in self._state.nodes.values():
            age_s = now_s - node.beat_s
            for row in node.running:
                count += 1
                record = node.find(row.id) if count <= TOP_LOOK_AT else None
                if record is not None and record.attempt == row.attempt:
                    running.append((row.elapsed_s + age_s, -count, record, row))
        calls = [self._task(record, row) for _, _, record, row in nlargest(limit, running)]
        return {"status": self.status(), "nodes": self.nodes(), "calls": calls, "running": count}

    def _named(self, match: str) -> Data | None:
        """Return the task whose id this is, if there is one."""
        try:
            record = self._state.find(parse(match))
        except ValueError:
            return None
        if record is None:
            return None
        node = record.node
        if node is not None:
            for row in node.running:
                if row.id == record.id and row.attempt == record.attempt:
                    return self._task(record, row)
        return self._task(record, None)

    def _all(self) -> Iterator[tuple[TaskRecord, RunningRow | None]]:
        """All tasks, each once, with what its node tells of it if it is running."""
        nodes = list(self._state.nodes.values())
        running: dict[int, None] = {}
        for node in nodes:
            for row in node.running:
                record = node.find(row.id)
                if record is not None and record.attempt == row.attempt:
                    running[id(record)] = None
                    yield record, row
        for node in nodes:
            for record in node.records():
                if id(record) not in running:
                    yield record, None
        for queue in self._work.queue.queues():
            for record in queue:
                yield record, None
        for peer in self._state.peers.values():
            for record in peer.tasks.values():
                if record.node is None and record.state != QUEUED:
                    yield record, None

    def _task(self, record: TaskRecord, row: RunningRow | None) -> Data:
        client = self._state.peers.get(record.kind.client)
        state = "running" if row is not None else STATE_NAMES[record.state]
        # What a beat told has gone on since.
        age_s = 0.0 if record.node is None else self._state.now_s - record.node.beat_s
        if record.state == ASSIGNED and record.blocked:
            state = "blocked"
        return {
            "id": show(record.id),
            "name": record.kind.name,
            "state": state,
            "stopping": record.stopping,
            "node": "" if record.node is None else record.node.name,
            "attempt": record.attempt,
            "age_s": self._state.now_s - record.submitted_s,
            "running_s": None if row is None else row.elapsed_s + age_s,
            "waits_for": self._waits_for(record),
            "actor": "" if record.kind.host is None else show(record.kind.host.id),
            **(_NOTHING if row is None else _of_process(row)),
            "phase": "" if row is None else row.phase,
            "verdict": "" if row is None else row.verdict,
            "verdict_s": row.verdict_s + age_s if row is not None and row.verdict else None,
            "where": "" if row is None else row.where,
            "evidence": "" if row is None else row.evidence,
            "client": "" if client is None else client.name,
        }

    def _waits_for(self, record: TaskRecord) -> str:
        """Return what a queued task lacks beside its turn."""
        shape = record.kind.shape
        return self._attempts.starving.why(shape) if record.state == QUEUED else ""


def _of_process(row: RunningRow) -> Data:
    """Return what is known of the process that runs a call, and how far it is."""
    return {
        "pid": row.pid or None,
        "cpu": None if row.cpu < 0 else round(row.cpu, 2),
        "memory_bytes": row.memory_bytes or None,
        "done": row.done if row.progresses else None,
        "total": row.total if row.progresses and row.total >= 0 else None,
        "progress_s": row.progress_s if row.progresses else None,
    }


#: of a task that does not run
_NOTHING: Final = dict.fromkeys(("pid", "cpu", "memory_bytes", "done", "total", "progress_s"), None)


def actor_rows(state: State, limit: int, match: str) -> list[Data]:
    """Return up to `limit` actors, those that live first, then the last that died.

    `match` is how the name of the class, the actor's own name or its id begins.
    """
    hosts = state.hosts
    rows: list[Data] = []
    # Of the actors themselves: while they are made, and while they are asked how they are.
    phases = {
        row.id: row.phase
        for node in state.nodes.values()
        for row in node.running
        if row.id in hosts.known
    }
    for actor in hosts.known.values():
        record = actor.record
        if len(rows) >= limit:
            return rows
        creates = None if record is None else record.kind.creates
        if record is None or creates is None:
            continue
        if _matches(match, record.kind.name, actor.id) or creates.name.startswith(match):
            rows.append(
                {
                    "id": show(actor.id),
                    "name": record.kind.name,
                    "named": creates.name,
                    "namespace": creates.namespace,
                    "state": _life_of(actor, record),
                    "phase": phases.get(record.id, ""),
                    "node": "" if record.node is None else record.node.name,
                    "incarnation": record.attempt,
                    "restarts": record.attempt - 1,
                    "queued": actor.queued,
                    "in_flight": actor.in_flight,
                    "age_s": state.now_s - record.submitted_s,
                    "why": "; ".join(reversed(actor.causes)),
                }
            )
    for id_, grave in reversed(hosts.dead().items()):
        if len(rows) >= limit:
            break
        if _matches(match, grave.name, id_):
            rows.append(
                {
                    "id": show(id_),
                    "name": grave.name,
                    "named": "",
                    "namespace": "",
                    "state": "dead",
                    "phase": "",
                    "node": "",
                    "incarnation": grave.incarnation,
                    "restarts": max(0, grave.incarnation - 1),
                    "queued": 0,
                    "in_flight": 0,
                    "age_s": None,
                    "why": grave.why,
                }
            )
    return rows


def _life_of(actor: Actor, record: TaskRecord) -> str:
    if actor.node is not None:
        return "alive"
    if record.stopping or record.state == DELIVERING:
        return "ending"
    if record.attempt > 1 or record.state == BACKOFF:
        return "restarting"
    return "starting" if record.state == ASSIGNED else "pending"


def _matches(match: str, name: str, id_: bytes) -> bool:
    return not match or name.startswith(match) or show(id_).startswith(match)


def _free(node: Node) -> dict[str, int]:
    """What a node has free, in units; what was given ahead of time takes nothing."""
    free = {"CPU": node.spare_cpu} if "CPU" in node.total else {}
    free.update({name: amount for name, amount in node.free.items() if name in node.total})
    return {name: max(0, amount) for name, amount in free.items()}


def _calls(nodes: Iterable[Node]) -> dict[str, int]:
    """Return how many calls are blocked, gil-busy and so on; those of no interest are left out."""
    counts: dict[str, int] = {}
    for node in nodes:
        for row in node.running:
            if row.verdict not in ("", "running"):
                counts[row.verdict] = counts.get(row.verdict, 0) + 1
    return dict(sorted(counts.items()))


def _sum(parts: Iterator[dict[str, int]]) -> dict[str, float]:
    total: dict[str, int] = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, 0) + amount
    return {name: amount / UNITS for name, amount in total.items()}

"""Finds out who keeps which objects, and who holds them, by asking those who know.

Never knows a value, and never waits for one who does not answer: after TELL_S what is there goes
on, and who is missing is named. First everybody tells the largest of what it is home of; then, of
the largest of all, those who hold refs tell how.
"""

from heapq import nlargest
from typing import Any, Final

from ..protocol.forms import COUNT_MAX
from ..protocol.frames import Role
from ..protocol.ids import ObjectId, PeerId, home_of, show
from ..protocol.messages import Answer, Query
from ..protocol.stock import NAME_MAX, PARTS_MAX, STOCK_ROWS_MAX, Stock, StockRow, TakeStock
from .objects import Objects
from .state import Peer, State

#: in each of the two rounds
TELL_S: Final = 2.0
#: questions that are not answered; more are refused
ASKS_MAX: Final = 20
#: of one question; more are not asked
HOMES_MAX: Final = 1000
#: of one object
HOLDERS_MAX: Final = 8

Data = dict[str, Any]


class _Ask:
    __slots__ = (
        "due_s", "held", "left", "limit", "not_asked", "peer", "request", "rows", "silent", "told",
    )  # fmt: skip

    def __init__(self, peer: Peer, query: Query, due_s: float) -> None:
        self.peer = peer
        self.request = query.request
        self.limit = min(query.limit, STOCK_ROWS_MAX)
        self.due_s = due_s
        #: those that have not answered, by the number of what they were sent
        self.left: dict[int, Peer] = {}
        self.not_asked = 0
        #: what homes have told, in the first round
        self.told: list[tuple[Peer, Stock]] = []
        #: the largest objects with their homes; None: the first round is not over
        self.rows: list[tuple[Peer, StockRow]] | None = None
        #: in the second round, what is known of an object by one who holds it
        self.held: dict[tuple[bytes, PeerId], StockRow] = {}
        self.silent: list[Data] = []


class StockAsks:
    """All questions for objects that are open."""

    __slots__ = ("_last", "_objects", "_state", "open")

    def __init__(self, state: State, objects: Objects) -> None:
        self._state = state
        self._objects = objects
        #: in the order asked
        self.open: list[_Ask] = []
        self._last = 0

    def asked(self, peer: Peer, query: Query) -> None:
        """Somebody wants to know what objects there are."""
        if len(self.open) >= ASKS_MAX:
            self._answer(peer, query.request, {"error": f"{ASKS_MAX} others ask for objects"})
            return
        ask = _Ask(peer, query, self._state.now_s + TELL_S)
        self.open.append(ask)
        homes = [one for one in self._state.peers.values() if one.entered]
        ask.not_asked = max(0, len(homes) - HOMES_MAX)
        for home in homes[:HOMES_MAX]:
            self._ask(ask, home, TakeStock(0, ask.limit, query.match[:NAME_MAX]))

    def _ask(self, ask: _Ask, peer: Peer, message: TakeStock) -> None:
        self._last = message.number = self._last + 1
        ask.left[message.number] = peer
        self._state.out.letter(peer.id, message)

    def told(self, peer: Peer, message: Stock) -> None:
        """A home, or a holder, has answered."""
        for ask in self.open:
            if ask.left.get(message.number) is not peer:
                continue
            del ask.left[message.number]
            if ask.rows is None:
                ask.told.append((peer, message))
            else:
                ask.held.update({(row.id, peer.id): row for row in message.rows[:STOCK_ROWS_MAX]})
            return
        self._state.counters["stale_dropped"] += 1

    def turn(self) -> None:
        """Go on with what has been told, or was not in time."""
        for ask in list(self.open):
            if self._waits(ask):
                continue
            for peer in ask.left.values():
                ask.silent.append(_silent(peer))
            ask.left.clear()
            if ask.rows is None:
                self._choose(ask)
                if ask.left:
                    continue
            self.open.remove(ask)
            if ask.peer.here:
                self._answer(ask.peer, ask.request, self._data(ask))

    def _waits(self, ask: _Ask) -> bool:
        in_time = self._state.now_s < ask.due_s and ask.peer.here
        return in_time and any(peer.here for peer in ask.left.values())

    def _choose(self, ask: _Ask) -> None:
        """Take the largest of all that homes told, and ask who holds those."""
        # Nobody speaks for what another keeps.
        found = [
            (home, row)
            for home, told in ask.told
            for row in told.rows[: ask.limit]
            if home_of(ObjectId(row.id)) == home.id
        ]
        ask.rows = nlargest(ask.limit, found, key=lambda one: one[1].size_bytes)
        ask.due_s = self._state.now_s + TELL_S
        wanted: dict[PeerId, list[bytes]] = {}
        for _, row in ask.rows:
            for holder, ids in list(self._holders(row).items())[:HOLDERS_MAX]:
                wanted.setdefault(holder, []).extend(ids)
        for holder, ids in wanted.items():
            peer = self._state.peers.get(holder)
            if peer is not None:
                self._ask(ask, peer, TakeStock(0, len(ids), "", ids))

    def _holders(self, row: StockRow) -> dict[PeerId, list[bytes]]:
        """Return who else holds an object, or memory that is a part of it: and which of these."""
        home, found = home_of(ObjectId(row.id)), dict[PeerId, list[bytes]]()
        for id_ in (row.id, *row.parts[:PARTS_MAX]):
            if home_of(ObjectId(id_)) == home:
                for holder in self._state.holders.holders_of(ObjectId(id_)):
                    if holder != home:
                        found.setdefault(holder, []).append(id_)
        return found

    # ---------------------------------------------------------------------------------- the answer

    def _data(self, ask: _Ask) -> Data:
        rows = ask.rows or []
        objects = sum(told.objects for _, told in ask.told)
        return {
            "objects": [self._object(ask, home, row) for home, row in rows],
            "left_out": min(COUNT_MAX, max(0, objects - len(rows))),
            "homes": [_home(home, told) for home, told in ask.told if _has_any(told)],
            "silent": list({(one["name"], one["role"]): one for one in ask.silent}.values()),
            "not_asked": ask.not_asked,
        }

    def _object(self, ask: _Ask, home: Peer, row: StockRow) -> Data:
        held = [_holder(home, [row], is_home=True)] if row.refs or row.uses else []
        holders = self._holders(row)
        for holder, ids in list(holders.items())[:HOLDERS_MAX]:
            peer = self._state.peers.get(holder)
            if peer is not None:
                said = [ask.held[id_, holder] for id_ in ids if (id_, holder) in ask.held]
                held.append(_holder(peer, said))
        entry = self._objects.entries.get(ObjectId(row.id))
        if entry is not None:
            held.append(
                {
                    "name": "",
                    "role": "scheduler",
                    "refs": 0,
                    "uses": len(entry.dependants) + len(entry.fetchers),
                    "copy_bytes": 0 if entry.row is None else len(entry.row.payload or b""),
                }
            )
        return {
            "id": show(row.id),
            "sort": row.sort,
            "name": row.name,
            "state": row.state,
            "size_bytes": row.size_bytes,
            "place": row.place,
            "home": _name(home),
            "role": home.role,
            "held_by": held,
            "more_holders": max(0, len(holders) - HOLDERS_MAX),
        }

    def due_s(self) -> float:
        """Return when `turn` has something to do, if anything is open."""
        return min((ask.due_s for ask in self.open), default=float("inf"))

    def _answer(self, peer: Peer, request: int, data: Any) -> None:
        self._state.out.letter(peer.id, Answer(request, data))

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {"stock_asks": len(self.open)}


def _name(peer: Peer) -> str:
    """Return what people call a peer: the node's name, or program@host."""
    host = peer.environment.host
    return f"{peer.name}@{host}" if host and peer.role == Role.CLIENT else peer.name


def _has_any(told: Stock) -> bool:
    return bool(told.objects or told.copies or told.unseen)


def _home(home: Peer, told: Stock) -> Data:
    return {
        "name": _name(home),
        "role": home.role,
        "id": home.id.hex(),
        "pid": home.environment.pid if home.node is None else home.node.pid,
        "objects": told.objects,
        "size_bytes": told.size_bytes,
        "copies": told.copies,
        "copies_bytes": told.copies_bytes,
        "unseen": told.unseen,
    }


def _holder(peer: Peer, said: list[StockRow], *, is_home: bool = False) -> Data:
    """Return how a peer holds an object and its parts; None in it: it did not say."""
    held: Data = {"name": _name(peer), "role": peer.role}
    if not said:
        return {**held, "refs": None, "uses": None, "copy_bytes": None}
    # Whoever has a value and has mapped its memory is one, and not two.
    held["refs"] = max(row.refs for row in said)
    held["uses"] = max(row.uses for row in said)
    copied = 0 if is_home else sum(row.size_bytes for row in said)
    return {**held, "copy_bytes": min(COUNT_MAX, copied)}


def _silent(peer: Peer) -> Data:
    why = f"did not answer within {TELL_S:g} s" if peer.here else "is gone"
    return {"name": _name(peer), "role": peer.role, "why": why}

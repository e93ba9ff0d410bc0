"""Which nodes may forget which results, because their submitters have them.

Never knows a task or a value: it counts Done messages and marks. A turn that took in Done messages
gets one mark, set behind all that it tells submitters (Results, Retried); when each of those has
reached it, or is gone, the messages are handed over. So the price is paid a turn, not a task.
"""

from collections.abc import Callable
from typing import Final

from ..protocol.ids import PeerId
from ..protocol.recovery import HandedOver
from .events import Command, Mark, Send
from .state import Peer, State

#: numbers that ride on nothing go after so long,
HAND_OVER_S: Final = 0.1
#: marks for Done messages are set this often at most, so that who calls and waits pays for few
MARK_EACH_S: Final = 0.05
#: or when there are so many
HAND_OVER_NUMBERS_MAX: Final = 64
NEVER_S: Final = float("inf")


class Arrival:
    """One Done message, until its last large value has come."""

    __slots__ = ("_awaited", "_deliveries", "_node", "_number")

    def __init__(self, deliveries: "Deliveries", node: Peer, number: int) -> None:
        self._deliveries = deliveries
        self._node = node
        self._number = number
        # One more than there are, so that those which came early do not end it before its time.
        self._awaited = 1

    def expect(self) -> None:
        """A large value of it is still to come."""
        self._awaited += 1

    def came(self) -> None:
        """Something expected has come, or the message itself."""
        self._awaited -= 1
        if not self._awaited and self._number and self._node.here:
            self._deliveries.taken_in(self._node.id, self._number)


class _Told:
    """What a turn led to that is not known to have arrived."""

    __slots__ = ("awaited", "numbers", "then")

    def __init__(
        self,
        awaited: dict[PeerId, None],
        numbers: dict[PeerId, list[int]],
        then: list[Callable[[], None]],
    ) -> None:
        self.awaited = awaited
        self.numbers = numbers
        self.then = then


class Deliveries:
    """All Done messages that are not handed over."""

    __slots__ = (
        "_alone", "_by_peer", "_came", "_everybody", "_hand_over_s", "_mark", "_mark_s", "_state",
        "_then", "_told", "_unmarked", "due_s", "has_news", "ready",
    )  # fmt: skip

    def __init__(self, state: State) -> None:
        self._state = state
        self._mark = 0
        #: something has come since the last turn that `turn` is to go on with
        self.has_news = False
        #: Done messages came to their end in this turn: they are of what is unmarked
        self._came = False
        self._then: list[Callable[[], None]] = []
        self._everybody = False
        #: by peer: what waits for what it alone is told in this turn
        self._alone: dict[PeerId, list[Callable[[], None]]] = {}
        self._told: dict[int, _Told] = {}
        #: peer -> marks that it has not reached
        self._by_peer: dict[PeerId, dict[int, None]] = {}
        #: what the turns since the last mark led to, with the Done messages that came in them
        self._unmarked: _Told | None = None
        #: not marked before
        self._mark_s = -NEVER_S
        #: by node: numbers to be told it, with the next attempts that it gets or when they are due
        self.ready: dict[PeerId, list[int]] = {}
        #: when they are to be told at the latest
        self._hand_over_s = NEVER_S
        #: when `turn` has something to do at the latest
        self.due_s = NEVER_S

    def taken_in(self, node: PeerId, number: int) -> None:
        """A Done message has come to its end: all it leads to is told in this turn."""
        unmarked = self._unmarked
        if unmarked is None:
            unmarked = self._unmarked = _Told({}, {}, [])
            self._rest()
        numbers = unmarked.numbers.get(node)
        if numbers is None:
            unmarked.numbers[node] = [number]
        else:
            numbers.append(number)
        self.has_news = self._came = True

    def after_turn(self, then: Callable[[], None], *, everybody: bool = False) -> None:
        """Call `then` once all that submitters are told in this turn has reached them.

        With `everybody`: all that anybody has been told up to the end of this turn.
        """
        self.has_news = True
        self._then.append(then)
        self._everybody = self._everybody or everybody

    def after_reached(self, peer: PeerId, then: Callable[[], None]) -> None:
        """Call `then` once a peer has what it is told in this turn, or is gone."""
        self.has_news = True
        self._alone.setdefault(peer, []).append(then)

    def turn(self) -> list[Command]:
        """Return what is to be said behind all else; to be called before the outbox is flushed.

        There is something if there is news, or it is due, or nodes that are to be told numbers may
        be among those that get attempts. Marks come last.
        """
        commands: list[Command] = []
        marks: list[Command] = []
        self.has_news = False
        unmarked = self._unmarked
        if unmarked is not None:
            if self._came:
                # One mark is for what several turns lead to.
                self._came = False
                for peer in self._state.out.told():
                    unmarked.awaited[peer] = None
            if self._state.now_s >= self._mark_s:
                self._unmarked = None
                self._mark_s = self._state.now_s + MARK_EACH_S
                marks += self._await(unmarked)
                self._rest()
        if self._then:
            then, self._then = self._then, []
            peers = list(self._state.peers) if self._everybody else self._state.out.told()
            self._everybody = False
            marks += self._await(_Told(dict.fromkeys(peers), {}, then))
        if self._alone:
            alone, self._alone = self._alone, {}
            for peer, then in alone.items():
                marks += self._await(_Told({peer: None}, {}, then))
        if self.ready:
            self._hand_over(commands)
            self._rest()
        return commands + marks

    def _await(self, told: _Told) -> list[Command]:
        if not told.awaited:
            self._arrived(told)
            return []
        self._mark = mark = self._mark + 1
        self._told[mark] = told
        for peer in told.awaited:
            self._by_peer.setdefault(peer, {})[mark] = None
        return [Mark(peer, mark) for peer in told.awaited]

    def reached(self, peer: PeerId, marks: list[int]) -> None:
        """A peer has received what was said before these marks."""
        awaited = self._by_peer.get(peer)
        if awaited is None:
            return
        for mark in marks:
            # None: of a link life that is over.
            if awaited.pop(mark, 0) is None:
                self._one_less(mark, peer)
        if not awaited:
            self._by_peer.pop(peer, None)

    def forget(self, peer: PeerId) -> None:
        """A peer is gone: nothing of it is awaited, and it is told nothing."""
        self.ready.pop(peer, None)
        for then in self._alone.pop(peer, ()):
            then()
        for told in self._told.values():
            told.numbers.pop(peer, None)
        if self._unmarked is not None:
            self._unmarked.numbers.pop(peer, None)
            self._unmarked.awaited.pop(peer, None)
            if not self._unmarked.numbers:
                self._unmarked = None
        for mark in self._by_peer.pop(peer, ()):
            self._one_less(mark, peer)
        self._rest()

    def _rest(self) -> None:
        # A due that stays when nobody is to be told any more would never let the loop sleep.
        if not self.ready:
            self._hand_over_s = NEVER_S
        self.due_s = self._hand_over_s
        if self._unmarked is not None and self._mark_s < self.due_s:
            self.due_s = self._mark_s

    def _one_less(self, mark: int, peer: PeerId) -> None:
        told = self._told[mark]
        del told.awaited[peer]
        if not told.awaited:
            del self._told[mark]
            self._arrived(told)

    def _arrived(self, told: _Told) -> None:
        for node, numbers in told.numbers.items():
            self.ready.setdefault(node, []).extend(numbers)
            self.has_news = True
        if self.ready and self._hand_over_s == NEVER_S:
            self._hand_over_s = self._state.now_s + HAND_OVER_S
            self.due_s = min(self.due_s, self._hand_over_s)
        for then in told.then:
            then()

    def _hand_over(self, commands: list[Command]) -> None:
        """Tell each node its numbers with whatever else it is told, or when they are due."""
        due = self._state.now_s >= self._hand_over_s
        assigns = self._state.out.assigns
        for node, numbers in list(self.ready.items()):
            if due or node in assigns or len(numbers) >= HAND_OVER_NUMBERS_MAX:
                commands.append(Send(node, HandedOver(numbers)))
                del self.ready[node]

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {
            "taken_in": int(self._unmarked is not None),
            "told": len(self._told),
            "to_hand_over": len(self.ready),
            "alone": len(self._alone),
            "awaited_peers": len(self._by_peer),
            "then": len(self._then),
        }

    def check_invariants(self) -> None:
        """Assert that the indexes agree."""
        pairs = sum(len(marks) for marks in self._by_peer.values())
        assert pairs == sum(len(told.awaited) for told in self._told.values())
        for peer, marks in self._by_peer.items():
            assert self._state.out.is_here(peer)
            assert marks
            for mark in marks:
                assert peer in self._told[mark].awaited
        assert (self.due_s < NEVER_S) == bool(self.ready or self._unmarked)
        for node in self.ready:
            assert self._state.out.is_here(node)

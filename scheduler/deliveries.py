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
        "_alone", "_by_peer", "_everybody", "_mark", "_ready", "_state", "_taken_in", "_then",
        "_told", "due_s",
    )  # fmt: skip

    def __init__(self, state: State) -> None:
        self._state = state
        self._mark = 0
        #: by node: Done messages that came to their end in this turn
        self._taken_in: dict[PeerId, list[int]] = {}
        self._then: list[Callable[[], None]] = []
        self._everybody = False
        #: by peer: what waits for what it alone is told in this turn
        self._alone: dict[PeerId, list[Callable[[], None]]] = {}
        self._told: dict[int, _Told] = {}
        #: peer -> marks that it has not reached
        self._by_peer: dict[PeerId, dict[int, None]] = {}
        #: by node: numbers to be told it
        self._ready: dict[PeerId, list[int]] = {}
        #: when they are to be told at the latest
        self.due_s = NEVER_S

    @property
    def active(self) -> bool:
        """Whether `turn` has anything to do."""
        return bool(self._taken_in or self._then or self._ready or self._alone)

    def taken_in(self, node: PeerId, number: int) -> None:
        """A Done message has come to its end: all it leads to is told in this turn."""
        self._taken_in.setdefault(node, []).append(number)

    def after_turn(self, then: Callable[[], None], *, everybody: bool = False) -> None:
        """Call `then` once all that submitters are told in this turn has reached them.

        With `everybody`: all that anybody has been told up to the end of this turn.
        """
        self._then.append(then)
        self._everybody = self._everybody or everybody

    def after_reached(self, peer: PeerId, then: Callable[[], None]) -> None:
        """Call `then` once a peer has what it is told in this turn, or is gone."""
        self._alone.setdefault(peer, []).append(then)

    def turn(self) -> list[Command]:
        """Return what is to be said behind all else; to be called before the outbox is flushed.

        Marks come last.
        """
        commands: list[Command] = []
        marks: list[Command] = []
        if self._taken_in or self._then:
            numbers, self._taken_in = self._taken_in, {}
            then, self._then = self._then, []
            peers = list(self._state.peers) if self._everybody else self._state.out.told()
            self._everybody = False
            told = _Told(dict.fromkeys(peers), numbers, then)
            if peers:
                marks += self._await(told)
            else:
                self._arrived(told)
        if self._alone:
            alone, self._alone = self._alone, {}
            for peer, then in alone.items():
                marks += self._await(_Told({peer: None}, {}, then))
        if self._ready:
            self._hand_over(commands)
        return commands + marks

    def _await(self, told: _Told) -> list[Command]:
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
        self._taken_in.pop(peer, None)
        self._ready.pop(peer, None)
        for then in self._alone.pop(peer, ()):
            then()
        for told in self._told.values():
            told.numbers.pop(peer, None)
        for mark in self._by_peer.pop(peer, ()):
            self._one_less(mark, peer)
        self._rest()

    def _rest(self) -> None:
        # A due that stays when nobody is to be told any more would never let the loop sleep.
        if not self._ready:
            self.due_s = NEVER_S

    def _one_less(self, mark: int, peer: PeerId) -> None:
        told = self._told[mark]
        del told.awaited[peer]
        if not told.awaited:
            del self._told[mark]
            self._arrived(told)

    def _arrived(self, told: _Told) -> None:
        for node, numbers in told.numbers.items():
            self._ready.setdefault(node, []).extend(numbers)
        if self._ready and self.due_s == NEVER_S:
            self.due_s = self._state.now_s + HAND_OVER_S
        for then in told.then:
            then()

    def _hand_over(self, commands: list[Command]) -> None:
        """Tell each node its numbers with whatever else it is told, or when they are due."""
        due = self._state.now_s >= self.due_s
        assigns = self._state.out.assigns
        for node, numbers in list(self._ready.items()):
            if due or node in assigns or len(numbers) >= HAND_OVER_NUMBERS_MAX:
                commands.append(Send(node, HandedOver(numbers)))
                del self._ready[node]
        self._rest()

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {
            "taken_in": len(self._taken_in),
            "told": len(self._told),
            "to_hand_over": len(self._ready),
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
        assert (self.due_s < NEVER_S) == bool(self._ready)
        for node in self._ready:
            assert self._state.out.is_here(node)

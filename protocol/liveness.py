"""Who is alive: judges peers by when they were last heard, and itself by how late it is.

Never reads the clock and never acts: the scheduler core asks for verdicts and decides.

    detector = Liveness(suspect_after_s=3, lost_after_s=10, closed_grace_s=0.7, interval_s=1)
    detector.heard(peer, now_s)              any frame came
    detector.closed(peer, now_s)             its connection closed; `returned` when it is back
    for peer, state in detector.verdicts(now_s, late_s): ...     only what has changed

A judge that was away itself (stopped, swapped out, starved) has heard nobody meanwhile. So whoever
comes round `late_s` later than asked drains its sockets first and then asks for verdicts: every
deadline is extended by the gap, and nobody is judged for one interval.
"""

from enum import IntEnum
from typing import Final

from .ids import PeerId

#: of so many peers or more, half are not silent at once by chance
CROWD_MIN: Final = 4


class Life(IntEnum):
    """What is believed of a peer."""

    ALIVE = 0
    #: silent: gets no new work
    SUSPECT = 1
    #: given up; stays so until it is forgotten or known anew by `returned`
    LOST = 2


#: of a deadline: there is none
NEVER_S = float("inf")
_OPEN = NEVER_S


_ALIVE = Life.ALIVE


class _Watch:
    """One peer under watch. Times are the judge's own (see `Liveness._judged_s`)."""

    __slots__ = ("closed_at_s", "heard_at_s", "state")

    def __init__(self, heard_at_s: float) -> None:
        self.heard_at_s = heard_at_s
        #: in the far future: the connection is up
        self.closed_at_s = _OPEN
        self.state = Life.ALIVE


class Liveness:
    """A failure detector for peers of one kind: all have the same limits.

    Peers are kept in the order in which they were heard last, so a judgement looks at the silent
    ones only, however many there are.

    Args:
        suspect_after_s: silent for so long: suspect.
        lost_after_s: silent for so long: lost.
        closed_grace_s: connection closed and not returned for so long: lost.
        interval_s: how often peers speak; a judge later than this judges nobody for one.
        self_doubt_s: while more than half of them are silent, of `CROWD_MIN` or more, the judge
            may be who is cut off: they are lost so much later. Whose connection has closed is not
            silent: that has been heard.
    """

    __slots__ = (
        "_closed", "_closed_grace_s", "_holds_until_s", "_interval_s", "_lost_after_s", "_news",
        "_open", "_quiet_until_s", "_self_doubt_s", "_suspect_after_s", "_suspects",
        "_total_late_s", "_watches", "doubts_itself", "due_s",
    )  # fmt: skip

    def __init__(
        self,
        suspect_after_s: float,
        lost_after_s: float,
        closed_grace_s: float,
        interval_s: float,
        self_doubt_s: float = 0.0,
    ) -> None:
        self._suspect_after_s = suspect_after_s
        self._lost_after_s = lost_after_s
        self._closed_grace_s = closed_grace_s
        self._interval_s = interval_s
        self._self_doubt_s = self_doubt_s
        #: too many are silent at once
        self.doubts_itself = False
        # In the judge's time: after that was over, those who are still silent have so long.
        self._holds_until_s = float("-inf")
        self._watches: dict[PeerId, _Watch] = {}
        # Alive and suspect peers by when they were heard, closed ones by when they closed: the
        # first is always the first to be judged.
        self._open: dict[PeerId, None] = {}
        self._suspects: dict[PeerId, None] = {}
        self._closed: dict[PeerId, None] = {}
        self._news: dict[PeerId, Life] = {}
        self._total_late_s = 0.0
        self._quiet_until_s = float("-inf")
        #: nothing is to be judged before this. Being heard only puts off what is due, so this may
        #: be too early, by one look at most; `deadline_s` works it out
        self.due_s = NEVER_S

    def __len__(self) -> int:
        """How many peers are watched."""
        return len(self._watches)

    def heard(self, peer: PeerId, now_s: float) -> None:
        """Any frame came from the peer; the first time, it is watched from now on.

        A closed connection stays closed by this: frames may still come out of its buffers.
        """
        watch = self._watches.get(peer)
        if watch is None:
            self._watches[peer] = _Watch(self._judged_s(now_s))
            self._open[peer] = None
            self._renew()
            return
        watch.heard_at_s = now_s - self._total_late_s
        state = watch.state
        if state is _ALIVE:
            # To the end of the order.
            order = self._open
            order.pop(peer, None)
            order[peer] = None
        elif state is Life.SUSPECT:
            self._suspects.pop(peer, None)
            self._open[peer] = None
            self._set(peer, Life.ALIVE)

    def closed(self, peer: PeerId, now_s: float) -> None:
        """The peer's connection closed."""
        watch = self._watches.get(peer)
        if watch is not None and watch.closed_at_s == _OPEN and watch.state is not Life.LOST:
            watch.closed_at_s = self._judged_s(now_s)
            self._closed[peer] = None
            self._renew()

    def returned(self, peer: PeerId, now_s: float) -> None:
        """The peer has a connection again; also how a lost one is known anew."""
        watch = self._watches.get(peer)
        if watch is not None:
            watch.closed_at_s = _OPEN
            self._closed.pop(peer, None)
            if watch.state is Life.LOST:
                self._open[peer] = None
                self._set(peer, Life.ALIVE)
        self.heard(peer, now_s)

    def forget(self, peer: PeerId) -> None:
        """Watch the peer no more."""
        if self._watches.pop(peer, None) is not None:
            for order in (self._open, self._suspects, self._closed, self._news):
                order.pop(peer, None)

    def state(self, peer: PeerId) -> Life | None:
        """Return what is believed of the peer; None: it is not watched."""
        watch = self._watches.get(peer)
        return None if watch is None else watch.state

    def heard_s(self, peer: PeerId) -> float:
        """Return when the peer was last heard, if it is watched: not earlier than it was."""
        watch = self._watches.get(peer)
        return float("-inf") if watch is None else watch.heard_at_s + self._total_late_s

    def verdicts(self, now_s: float, late_s: float = 0.0) -> list[tuple[PeerId, Life]]:
        """Return the peers of whom something else is believed than was last reported, and what.

        Args:
            now_s: the clock.
            late_s: how much later than it had asked for the judge's loop came round.
        """
        if late_s >= self._interval_s:
            self._excuse(now_s, late_s)
        elif now_s < self.due_s:
            return []
        if now_s >= self._quiet_until_s:
            self._judge(self._judged_s(now_s))
        news, self._news = self._news, {}
        self._renew()
        return list(news.items())

    def deadline_s(self) -> float | None:
        """Return when to ask for verdicts next though nothing is heard; None: never."""
        if self._news:
            return float("-inf")
        watches = self._watches
        dues = [watches[peer].heard_at_s + self._suspect_after_s for peer in _first(self._open)]
        dues += [self._lost_s(watches[peer]) for peer in _first(self._suspects)]
        dues += [watches[peer].closed_at_s + self._closed_grace_s for peer in _first(self._closed)]
        return max(min(dues) + self._total_late_s, self._quiet_until_s) if dues else None

    def _renew(self) -> None:
        due_s = self.deadline_s()
        self.due_s = NEVER_S if due_s is None else due_s

    def _judged_s(self, now_s: float) -> float:
        # Time as far as the judge was awake: taking its lateness out of its time extends every
        # deadline by the gap without touching one of them.
        return now_s - self._total_late_s

    def _excuse(self, now_s: float, late_s: float) -> None:
        self._total_late_s += late_s
        self._quiet_until_s = now_s + self._interval_s
        judged_s = self._judged_s(now_s)
        # What was noted after the gap and before it was known lies ahead of the judge's time now.
        for peer in reversed(self._open):
            if self._watches[peer].heard_at_s <= judged_s:
                break
            self._watches[peer].heard_at_s = judged_s
        for peer in reversed(self._closed):
            if self._watches[peer].closed_at_s <= judged_s:
                break
            self._watches[peer].closed_at_s = judged_s

    def _judge(self, judged_s: float) -> None:
        watches = self._watches
        while self._closed:
            peer = next(iter(self._closed))
            if judged_s < watches[peer].closed_at_s + self._closed_grace_s:
                break
            self._lose(peer)
        while self._open:
            peer = next(iter(self._open))
            if judged_s < watches[peer].heard_at_s + self._suspect_after_s:
                break
            del self._open[peer]
            self._suspects[peer] = None
            self._set(peer, Life.SUSPECT)
        if self._suspects or self.doubts_itself:
            self._look_at_itself(judged_s)
        while self._suspects:
            peer = next(iter(self._suspects))
            if judged_s < self._lost_s(watches[peer]):
                break
            self._lose(peer)

    def _look_at_itself(self, judged_s: float) -> None:
        watches = self._watches
        silent = sum(watches[peer].closed_at_s == _OPEN for peer in self._suspects)
        doubted = self.doubts_itself
        self.doubts_itself = len(watches) >= CROWD_MIN and 2 * silent > len(watches)
        if doubted and not self.doubts_itself and self._self_doubt_s:
            # Some are back: the others have the time to be.
            self._holds_until_s = judged_s + self._suspect_after_s

    def _lost_s(self, watch: _Watch) -> float:
        """Return when a silent peer is lost, in the judge's time."""
        lost_s = watch.heard_at_s + self._lost_after_s
        if self.doubts_itself:
            return lost_s + self._self_doubt_s
        return max(lost_s, self._holds_until_s)

    def _lose(self, peer: PeerId) -> None:
        for order in (self._open, self._suspects, self._closed):
            order.pop(peer, None)
        self._set(peer, Life.LOST)

    def _set(self, peer: PeerId, state: Life) -> None:
        self._watches[peer].state = state
        # Only the last word counts, and it goes to the end of the news.
        self._news.pop(peer, None)
        self._news[peer] = state
        self.due_s = float("-inf")


def _first(order: dict[PeerId, None]) -> list[PeerId]:
    for peer in order:
        return [peer]
    return []

"""Tasks of an earlier life that no node claims: whether they ran, and what becomes of them.

Never guesses in favour of a second execution: a task whose last attempt may have run somewhere is
charged for it, or waits as long as its node may come back, or fails. Nor is anybody told that a
task was cancelled while one who is not back may yet start it.
"""

from functools import partial
from typing import Final, NamedTuple

from ..protocol.frames import Role
from ..protocol.ids import PeerId
from ..protocol.messages import ValueRow
from .deliveries import Deliveries
from .roster import Roster, Standing
from .state import Peer, State
from .tasks import BACKOFF, FINISHED, LACK, QUEUED, WAITING, Condemned, TaskRecord, failed, move
from .work import Work

BACK_LATE: Final = "which has not come back"
STOPPED: Final = "which had it over from an earlier life of the scheduler, and stopped it"
STRUCK_OUT: Final = "which was given up while its program was away"
GIVEN_UP: Final = "before its program was given up for lost"
#: parked tasks that are looked at in one turn, so that whoever else is there is not kept waiting
JUDGED_A_TURN: Final = 4096
SOME_NODE: Final = "a node of an earlier life of the scheduler"


class _Outlook(NamedTuple):
    """What is known of the nodes of the life before."""

    #: more will be known soon
    undecided: bool
    #: those that have not come back, or not as they were
    missing: list[str]
    #: one of them may come yet
    wait: bool


class Doubts:
    """See the module."""

    __slots__ = (
        "_deliveries",
        "_outlook",
        "_roster",
        "_round",
        "_state",
        "_untold",
        "_work",
        "in_time",
        "news",
    )

    def __init__(self, state: State, work: Work, roster: Roster, deliveries: Deliveries) -> None:
        self._state = state
        self._deliveries = deliveries
        self._work = work
        work.condemns = self._condemns
        self._roster = roster
        #: attempts of parked tasks, by number, of which their submitters may not have heard
        self._untold: dict[bytes, int] = {}
        #: whether nodes that are missing are waited for by tasks that may not be retried
        self.in_time = True
        #: something has become known since parked tasks were looked at, or not all were yet
        self.news = False
        #: those that are still to be looked at, the next one last; None: the round has not begun
        self._round: list[bytes] | None = None
        #: what is known of the nodes; None: to be looked at anew
        self._outlook: _Outlook | None = None

    def changed(self) -> None:
        """More is known of the nodes."""
        self.news = True
        self._outlook = None
        self._round = None

    def _look(self) -> _Outlook:
        """Return what is known of the nodes of the life before."""
        outlook = self._outlook
        if outlook is None:
            claims, roster = self._state.claims, self._roster
            awaited: list[str] = []
            missing: list[str] = []
            undecided = False
            if claims.open:
                awaited = roster.names(Standing.AWAITED)
                missing = awaited + roster.names(Standing.DEAD)
                undecided = self._state.recovering or Role.NODE in claims.telling.values()
            outlook = _Outlook(undecided, missing, bool(awaited) and self.in_time)
            self._outlook = outlook
        return outlook

    def settle(self, record: TaskRecord) -> None:
        """Decide about a task whose attempt was told of to its submitter.

        It is parked as long as more may become known, else charged, or ended, or left as it is:
        then no attempt of its number has ever started.
        """
        claims = self._state.claims
        given_up = claims.given_up.get(record.id)
        if given_up is not None and given_up[0] >= record.attempt:
            record.attempt, name = given_up
            self._charge(record, name, STOPPED, wait=False)
            return
        if record.owner.id in self._roster.before:
            self._charge(record, SOME_NODE, GIVEN_UP, wait=False)
            return
        outlook = self._look()
        if outlook.undecided:
            self._work.elsewhere[record.id] = None
            self._park(record)
        elif outlook.missing or not claims.open:
            names = ", ".join(outlook.missing) or SOME_NODE
            self._charge(record, names, BACK_LATE, wait=outlook.wait)
        elif record.owner.behind:
            self._charge(record, SOME_NODE, STRUCK_OUT, wait=False)

    def none_of(self, owner: Peer) -> bool:
        """Return whether tasks of a submitter that no node claims have no attempt anywhere.

        Those whose claim was given up are for `settle`.
        """
        outlook = self._look()
        nobody_missing = not outlook.undecided and not outlook.missing
        known = owner.id not in self._roster.before and not owner.behind
        return nobody_missing and known and self._state.claims.open

    def _park(self, record: TaskRecord) -> None:
        self._work.parked[record.id] = record
        record.unmet += 1

    def _charge(self, record: TaskRecord, node: str, why: str, *, wait: bool) -> None:
        """An attempt may have run that nobody will hear of."""
        options, state, outlook = record.kind.options, self._state, self._look()
        if outlook.undecided or outlook.wait:
            self._work.elsewhere[record.id] = None
        actors = self._work.actors
        # Two incarnations never act at a time: nobody knows that the last one does not. Nor would
        # a call have where to go meanwhile.
        waits = wait and record.kind.is_special
        creates = record.kind.creates
        # Of one that outlives any silence it is not known after any time either.
        never = creates is not None and creates.waits_on_partition and why != STOPPED
        if not waits and not never and actors.allows(record):
            record.attempt += 1
            state.counters["retried"] += 1
            if record.owner.here:
                self._tell(record, record.owner.id, record.attempt)
        elif wait:
            self._park(record)
        else:
            rule = 'on_partition="wait"' if never else f"max_retries={options.max_retries}"
            text = f"{record.kind.name} may have run on {node}, {why}; {rule}"
            text = f"{text} allows no further attempt ({record.which})"
            row = failed(record, "NodeLost", text, node=node)
            final = actors.final(record, row) if record.kind.is_special else row
            self._work.end(record, [final])

    def _tell(self, record: TaskRecord, owner: PeerId, attempt: int) -> None:
        """Tell of a further attempt, which begins when the submitter knows; see `Work.retry`."""
        self._state.out.retry(owner, record.id, attempt)
        self._park(record)
        self._untold[record.id] = attempt
        self._deliveries.after_reached(owner, partial(self._told, record, attempt))

    def _told(self, record: TaskRecord, attempt: int) -> None:
        if self._untold.get(record.id) != attempt:
            return
        del self._untold[record.id]
        # It may have been found at a node meanwhile, or have come to its end.
        if self._work.parked.get(record.id) is record:
            del self._work.parked[record.id]
            self._work.one_met(record)

    def _condemns(self, record: TaskRecord, rows: list[ValueRow], force: bool) -> bool:
        """Keep the end of a cancelled task if one who is not back may yet start it."""
        work, id_, failure = self._work, record.id, rows[0].failure
        cancelled = failure is not None and failure.error in ("TaskCancelled", "TaskTimedOut")
        # Nobody waits for what its submitter has left behind.
        if not cancelled or id_ not in work.elsewhere or not record.owner.here:
            return False
        before = work.condemned.get(id_)
        if before is not None:
            work.condemned[id_] = Condemned(before.rows, force or before.force)
            return True
        record.stopping = True
        work.condemned[id_] = Condemned(rows, force)
        if id_ in work.parked:
            self._untold.pop(id_, None)
            return True
        is_call, state = record.kind.host is not None, record.state
        if state == QUEUED and not is_call:
            work.queue.discard(record)
        elif state == BACKOFF:
            del work.backing_off[id_]
            work.untold.pop(id_, None)
        if state != WAITING:
            move(record, LACK)
        if is_call:
            work.actors.waits(record, state)
        record.values = ()
        self._park(record)
        if not record.spares_children:
            work.cancel_children(record)
        return True

    def judge(self) -> None:
        """Look at what is parked, now that more is known: so many a turn, until `news` is over."""
        outlook = self._look()
        if outlook.undecided:
            self.news = False  # whatever decides it says so
            return
        if not outlook.wait:
            self._work.elsewhere.clear()
        parked, untold, condemned = self._work.parked, self._untold, self._work.condemned
        if self._round is None:
            self._round = list(reversed(parked))
        these = self._round[-JUDGED_A_TURN:]
        del self._round[-JUDGED_A_TURN:]
        self.news = bool(self._round)
        for id_ in reversed(these):
            record = parked.get(id_)
            # The end of one may have been that of others.
            if record is None or record.state == FINISHED or id_ in untold:
                continue
            if id_ in condemned:
                if not outlook.wait:
                    self._work.end(record, condemned[id_].rows)
                continue
            del parked[id_]
            # One more than it waits for, so that it is not ready while it is looked at.
            self.settle(record)
            if record.state == WAITING:
                self._work.one_met(record)

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {"charges_untold": len(self._untold)}

"""Detached actors: they belong to the scheduler, and outlive whoever created them.

Never writes: it says `Keep`, and hears `Kept`. Each is the one task of a client of its own, its
*ward*, that is no process: nothing is sent to it, it never leaves, and its workers are nobody
else's. Whoever creates one hands it over: the creation begins when all that it needs is here and
written down, and with that word it has, for whoever submitted it, come to its end.

    adopted    as any task, but for its owner
    whole      its code, arguments and dependencies are here: Keep
    kept       its creator is told so, and it is placed; until then it ends with its creator
    over       its ward goes, with all that it has submitted, and what was written: Unkeep. As long
               as its creator may not know that it was kept, it is written that it is over
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..protocol.frames import PROTOCOL_VERSION, Channel, Hello, Role
from ..protocol.ids import NO_PEER, NO_TASK, PeerId, TaskId, home_of, show
from ..protocol.messages import Environment, KindRow, Outcome, TaskRow, ValueRow
from .chronicle import ERROR
from .deeds import DEED_VERSION, Course, Deed, Will
from .events import Command, Keep, KeepCourse, Kept, Unkeep
from .kinds import Kinds
from .objects import Objects
from .state import Peer, PeerError, State
from .tasks import FINISHED, WAITING, Kind, TaskRecord, failed
from .work import Work

if TYPE_CHECKING:
    from .recovery import Recovery
    from .submissions import Submissions

#: of its one kind
NUMBER = 1


class Ward(Peer):
    """The client, and the whole work, of one detached actor."""

    __slots__ = ("asked", "course", "creator", "is_kept", "record")

    def __init__(self, id_: PeerId, name: str, environment: Environment) -> None:
        hello = Hello(PROTOCOL_VERSION, Role.CLIENT, id_, int(Channel.CONTROL), 0, 0, "", name)
        super().__init__(id_, hello, Role.CLIENT)
        self.environment = environment
        self.entered = True
        # Nobody is there to be told anything.
        self.here = self.connected = False
        #: who waits to hear that it is kept; empty: nobody
        self.creator = NO_PEER
        #: the shell has been asked to write it down; and has done so
        self.asked = self.is_kept = False
        self.record: TaskRecord
        #: as last written down
        self.course = Course()


class Wards:
    """All detached actors.

    Args:
        state: shared.
        kinds: of all tasks.
        objects: all values.
        work: all tasks.
        submissions: how tasks come in.
        recovery: who comes back after a restart.
        wills: what the life before has left.
    """

    __slots__ = (
        "_kinds", "_objects", "_over", "_pending", "_recovery", "_state", "_submissions", "_untold",
        "_work", "wills",
    )  # fmt: skip

    def __init__(
        self,
        state: State,
        kinds: Kinds,
        objects: Objects,
        work: Work,
        submissions: "Submissions",
        recovery: "Recovery",
        wills: Sequence[Will] = (),
    ) -> None:
        self._state = state
        self._kinds = kinds
        self._objects = objects
        self._work = work
        self._submissions = submissions
        self._recovery = recovery
        #: not looked at yet
        self.wills = list(wills)
        #: not written down yet
        self._pending: dict[PeerId, Ward] = {}
        #: whose actors have ended for good
        self._over: dict[PeerId, Ward] = {}
        #: of those that are kept, who may be handed over again: whoever did so may not have heard
        #: that they were taken. True: in an earlier life, so that it may be anybody
        self._untold: dict[PeerId, bool] = {}
        submissions.adopt = self.adopt
        work.actors.ward_over = self.ended
        state.hosts.forgets = self._forget_creator

    @property
    def wards(self) -> dict[PeerId, Peer]:
        """All of them."""
        return self._state.hosts.wards

    # ----------------------------------------------------------------------------------- adopted

    def adopt(self, peer: Peer, row: TaskRow, kind: Kind | None, order: int) -> None:
        """A peer hands over the creation of a detached actor.

        Raises:
            PeerError: it is none.
        """
        options = None if kind is None else kind.creates
        home = home_of(TaskId(row.id))
        if kind is None or options is None or not options.detached:
            raise PeerError("it submitted a task under another's id")
        if self._state.hosts.tombs.get(home) == row.id:
            # It has lived and ended, and whoever created it has not heard that it was taken.
            self._submissions.drop_args(peer, row)
            self._tell(peer, ValueRow(row.id, Outcome.VALUE))
            return
        known = self.wards.get(home)
        if isinstance(known, Ward):
            self._submissions.drop_args(peer, row)
            self._hand_over_again(peer, known, row)
            return
        why = self._state.hosts.names.refusal(row.id, options)
        client = self._state.client(kind.client)
        if home in self._state.peers:
            why = "its id is another's"  # which a node cannot know of what its tasks submit
        if why or client is None:
            record = TaskRecord(row, kind, peer, NO_TASK, 0, order, self._state.now_s)
            self._state.hosts.names.comes_to_nothing(row.id)
            self._submissions.drop_args(peer, row)
            text = f"{kind.name} cannot be created: {why or 'whoever creates it has left'}"
            self._tell(peer, failed(record, "ActorDied", text))
            return
        ward = Ward(home, kind.name, client.environment)
        ward.creator = peer.id
        record = self._enlist(ward, row, self._kind(ward, kind), order)
        if kind.function.payload is None:
            self._kinds.complete_later(record.kind.function, kind.function)
        self._pending[home] = ward
        self._work.actors.submitted(record)
        record.unmet += 1  # until it is kept
        self._submissions.wait_for(peer, record)
        self._state.counters["submitted"] += 1

    def _kind(self, ward: Ward, kind: Kind) -> Kind:
        # It was looked at whether any node suits it, and no node that is away for a while ends it.
        options = replace(kind.options, wait_for_nodes=True)
        function = kind.function
        row = KindRow(NUMBER, function.hash, kind.name, options, function.payload)
        return self._kinds.own(ward, row)

    def _enlist(self, ward: Ward, row: TaskRow, kind: Kind, order: int) -> TaskRecord:
        self.wards[ward.id] = ward
        record = TaskRecord(row, kind, ward, NO_TASK, 0, order, self._state.now_s)
        ward.record = record
        ward.tasks[row.id] = record
        kind.uses += 1
        return record

    def _hand_over_again(self, peer: Peer, ward: Ward, row: TaskRow) -> None:
        record = ward.record
        if row.id != record.row.id:
            self._state.hosts.names.comes_to_nothing(row.id)
            row_ = failed(record, "ActorDied", "its id is another's")
            self._tell(peer, replace(row_, id=row.id))
            return
        if ward.is_kept:
            self._tell(peer, ValueRow(row.id, Outcome.VALUE))
        else:
            ward.creator = peer.id

    def _tell(self, peer: Peer | None, row: ValueRow) -> None:
        if peer is not None and peer.here:
            out = self._state.out
            out.results.setdefault(peer.id, []).append(out.packed(peer.id, row))

    # -------------------------------------------------------------------------------------- kept

    def kept(self, event: Kept) -> None:
        """An actor has been written down, or could not be."""
        if not event.id:
            self._state.tell(event.error, "actor lost", ERROR)
            return
        ward = self._pending.get(home_of(TaskId(event.id)))
        if ward is None or ward.record.state == FINISHED:
            return
        record = ward.record
        if event.error:
            text = f"{record.kind.name} cannot be detached: the scheduler could not write it down"
            self._work.end(record, [failed(record, "ActorDied", f"{text}: {event.error}")])
            return
        del self._pending[ward.id]
        ward.is_kept = True
        self._tell(self._state.peers.get(ward.creator), ValueRow(record.id, Outcome.VALUE))
        self._untold[ward.id] = False
        self._work.deliveries.after_reached(ward.creator, partial(self._told, ward.id))
        ward.creator = NO_PEER
        self._work.one_met(record)

    def _told(self, ward: PeerId) -> None:
        """Whoever handed an actor over knows that it was taken, or is gone."""
        self._untold.pop(ward, None)
        if ward in self._state.hosts.tombs:
            self._state.hosts.courses[ward] = None  # it is looked at

    def _may_come_again(self, ward: PeerId) -> bool:
        """Return whether somebody may hand over an actor who has done so already."""
        is_from_before = self._untold.get(ward)
        return is_from_before is False or (is_from_before is True and self._state.claims.open)

    def _forget_creator(self, peer: PeerId) -> None:
        """A peer is gone, and what it has not handed over yet with it."""
        for ward in list(self._pending.values()):
            if ward.creator == peer:
                text = "whoever created it left before the scheduler had written it down"
                self._work.end(ward.record, [failed(ward.record, "TaskCancelled", text)])

    def ended(self, record: TaskRecord, row: ValueRow) -> None:
        """A detached actor has ended for good."""
        ward = record.owner
        assert isinstance(ward, Ward), "only wards have detached actors"
        if not ward.is_kept:
            self._tell(self._state.peers.get(ward.creator), row)
            self._pending.pop(ward.id, None)
        self._over[ward.id] = ward
        # It is looked at at once, also when another's end in this very turn has brought it about.
        self._state.hosts.courses[ward.id] = None

    # ------------------------------------------------------------------------------- another life

    def revive(self) -> None:
        """Have all that the life before has left go on, or begin anew."""
        self._state.hosts.fences.revive()
        wills, self.wills = self.wills, []
        for deed, course in [(will.deed, will.course) for will in wills]:
            home = home_of(TaskId(deed.id))
            if course.over:
                self._state.hosts.tombs[home] = TaskId(deed.id)
                self._untold[home] = True
                continue
            ward = Ward(home, deed.name, deed.environment)
            self._untold[home] = True
            ward.is_kept = ward.asked = True
            ward.course = course
            kind = self._kinds.own(
                ward, KindRow(NUMBER, deed.function, deed.name, deed.options, deed.code)
            )
            row = TaskRow(deed.id, NUMBER, deed.args, 0, deed.deps, deed.contained, deed.values)
            actor = self._state.hosts.of(TaskId(deed.id))
            actor.uncharged = course.uncharged
            # After a reboot that clock begins anew.
            actor.deaths = [min(at_s, self._state.now_s) for at_s in course.deaths]
            record = self._enlist(ward, row, kind, self._submissions.next_order())
            self._submissions.resume(ward, record, course.attempt)
            text = f"detached actor {deed.name} {show(deed.id)} is taken over"
            self._state.tell(text, "recovery", task=deed.id)

    # --------------------------------------------------------------------------------------- turn

    def turn(self) -> list[Command]:
        """Let go of those that are over; return what is to be written before anything is sent."""
        commands: list[Command] = []
        for ward in self._pending.values():
            record = ward.record
            if record.unmet == 1 and record.state == WAITING and not ward.asked:
                ward.asked = True
                commands.append(Keep(self._deed(ward)))
        hosts = self._state.hosts
        if hosts.courses:
            courses, hosts.courses = hosts.courses, {}
            for id_ in courses:
                known = self.wards.get(id_)
                if isinstance(known, Ward) and known.is_kept and id_ not in self._over:
                    self._note_course(known, commands)
                elif id_ in hosts.tombs and not self._may_come_again(id_):
                    self._untold.pop(id_, None)
                    commands.append(Unkeep(hosts.tombs.pop(id_)))
        over, self._over = self._over, {}
        for ward in over.values():
            self._dissolve(ward)
            if ward.is_kept and self._may_come_again(ward.id):
                hosts.tombs[ward.id] = ward.record.id
                commands.append(KeepCourse(ward.record.row.id, replace(ward.course, over=True)))
            elif ward.asked:
                self._untold.pop(ward.id, None)
                commands.append(Unkeep(ward.record.row.id))
        return commands

    def _deed(self, ward: Ward) -> Deed:
        record = ward.record
        row, kind = record.row, record.kind
        code = kind.function.payload
        assert code is not None, "it is whole"
        return Deed(
            DEED_VERSION, row.id, kind.name, kind.options, kind.function.hash, code, row.args,
            row.deps, row.contained, tuple(self._objects.values_for(record)), ward.environment,
        )  # fmt: skip

    def _note_course(self, ward: Ward, commands: list[Command]) -> None:
        actor = self._state.hosts.known.get(ward.record.id)
        if actor is None:
            return
        course = Course(ward.record.attempt, actor.uncharged, tuple(actor.deaths))
        if course != ward.course:
            ward.course = course
            commands.append(KeepCourse(ward.record.row.id, course))

    def _dissolve(self, ward: Ward) -> None:
        """A ward goes as a client does."""
        state = self._state
        del self.wards[ward.id]
        if state.claims.open:
            state.claims.home_gone(ward.id)
        state.out.forget(ward.id)
        for row in self._objects.forget_peer(ward.id):
            self._work.arrived(row)
        self._work.forget_client(ward)
        self._kinds.forget_peer(ward)
        self._kinds.forget_client(ward.id)
        state.out.forget(ward.id)

    # -------------------------------------------------------------------------------------- insight

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {"wards": len(self.wards), "wards_pending": len(self._pending)}

    def check_invariants(self) -> None:
        """Assert that each has its one actor, and that nobody is told anything in its name."""
        for id_, ward in self.wards.items():
            assert isinstance(ward, Ward)
            assert id_ == ward.id == home_of(ward.record.id)
            assert id_ not in self._state.peers
            assert not self._state.out.is_here(id_)
            if id_ not in self._over:
                assert ward.is_kept != (id_ in self._pending)
                assert ward.tasks == {ward.record.row.id: ward.record}

"""Detached actors that end before it is known that they were taken: they are created once only."""

from drumbeat.protocol.actors import ActorOptions
from drumbeat.protocol.ids import IdFactory, PeerId, TaskId
from drumbeat.protocol.messages import Leave, Outcome, Submit, TaskRow
from drumbeat.scheduler import events
from drumbeat.scheduler.deeds import Course, Will
from support.acting import Acting
from support.restarts import CLIENT, NODE, Restarted
from support.scheduling import Stage, died

HOME = PeerId(b"detach")


def detached() -> TaskId:
    return IdFactory(HOME)()


def ends_at_once() -> tuple[Acting, TaskId]:
    """Have a detached actor live and die while its creator hears nothing."""
    stage = Acting()
    node = stage.node()
    stage.turn()
    stage.prompt = False
    actor = detached()
    options = ActorOptions(detached=True)
    kind = stage.define(stage.caller, name="Counter", creates=options, num_cpus=0.0, max_retries=0)
    stage.submit(stage.caller, kind, [actor])
    stage.turn()
    stage.process_ends(node, stage.started(actor, node))
    stage.turn()
    return stage, actor


class Heir(Restarted):
    """A life of the scheduler with what the one before has left of detached actors."""

    def __init__(self, wills: list[Will]) -> None:
        Stage.__init__(self, 0, 2, ["n"], (), [NODE.hex()], 0, wills)
        self.deeds = {will.deed.id: will.deed for will in wills}
        self.courses = {will.deed.id: will.course for will in wills}
        self.start_s = self.now_s
        self.event(events.TimePassed(0.0))
        self.turn()
        self.node_back()

    def hand_over_again(self, actor: TaskId) -> None:
        """The creator comes back, and has not heard that the actor was taken."""
        self.client_enters()
        options = ActorOptions(detached=True)
        kind = self.define(CLIENT, creates=options, num_cpus=0.0, max_retries=0)
        self.say(CLIENT, Submit(CLIENT, b"", 0, [TaskRow(actor, kind, b"args")], [1]))
        self.registered(CLIENT)
        self.turn().turn()


def test_that_it_is_over_is_written_until_its_creator_knows_that_it_was_taken() -> None:
    stage, actor = ends_at_once()
    assert stage.courses[actor] == Course(1, 0, (), over=True)
    assert not stage.core.at_rest()["wards"]
    assert stage.core.at_rest()["tombs"]
    stage.reach(stage.caller)
    stage.turn()
    assert stage.deeds == {}
    assert stage.at_rest()


def test_the_core_wants_a_turn_at_once_when_its_creator_knows_that_it_was_taken() -> None:
    stage, _ = ends_at_once()
    stage.reach(stage.caller)
    assert stage.core.deadline_s() == stage.now_s
    stage.turn()
    due_s = stage.core.deadline_s()
    assert due_s is not None
    assert due_s > stage.now_s


def test_that_it_is_over_is_written_until_its_creator_is_gone() -> None:
    stage, actor = ends_at_once()
    assert actor in stage.deeds
    stage.say(stage.caller, Leave())
    stage.turn()
    assert stage.deeds == {}


def test_it_is_not_created_anew_in_the_next_life_when_it_is_handed_over_again() -> None:
    before, actor = ends_at_once()
    stage = Heir(before.wills())
    stage.hand_over_again(actor)
    assert stage.assigned(NODE) == []
    assert stage.results(CLIENT)[actor].outcome == Outcome.VALUE
    stage.at(60.0)
    assert stage.assigned(NODE) == []
    assert stage.deeds == {}, "by now all have come who may hand it over"
    assert stage.at_rest()


def test_one_that_ends_in_the_next_life_is_not_created_anew_either() -> None:
    before = Acting()
    node = before.node()
    actor = detached()
    options = ActorOptions(detached=True)
    kind = before.define(before.caller, creates=options, num_cpus=0.0, max_retries=0)
    before.submit(before.caller, kind, [actor])
    before.turn()
    before.started(actor, node)
    stage = Heir(before.wills())
    stage.turn()
    (row,) = stage.assigned(NODE)
    stage.done(NODE, died(row))
    stage.turn()
    last = Heir(stage.wills())
    for life in (stage, last):
        life.hand_over_again(actor)
        assert life.assigned(NODE) == []
        assert life.results(CLIENT)[actor].outcome == Outcome.VALUE

"""A scheduler that was restarted: actors that live go on, and calls go where they were."""

from drumbeat.protocol.actors import ActorOptions, ActorsUp
from drumbeat.protocol.ids import PeerId, TaskId
from drumbeat.protocol.messages import Cancel, Leave, StopMode, Submit, TakenBack, TaskRow
from drumbeat.protocol.recovery import Phase
from drumbeat.scheduler import events
from support.restarts import CLIENT, NODE, OTHER, Restarted, done, ids, row
from support.scheduling import died, failure_done

from drumbeat.protocol.messages import AssignRow  # isort: skip


class Cast(Restarted):
    """A client that created an actor, the first of its ids, and called it."""

    def recalls(
        self,
        names: list[TaskId],
        attempts: list[int],
        restarts: int = 0,
        retries: int = 0,
        *,
        waits: bool = False,
    ) -> None:
        """The client comes back, and names its actor and the calls."""
        actor, *calls = names
        self.client_enters()
        creates = ActorOptions(waits_on_partition=waits)
        creation = self.define(
            CLIENT, name="Counter", num_cpus=0.0, creates=creates, max_retries=restarts
        )
        call = self.define(
            CLIENT, name="Counter.add", num_cpus=0.0, actor=bytes(actor), max_retries=retries
        )
        rows = [TaskRow(actor, creation, b"args")]
        rows += [TaskRow(id_, call, b"args") for id_ in calls]
        self.say(CLIENT, Submit(CLIENT, b"", 0, rows, attempts))
        self.registered(CLIENT)

    def is_up(self, actor: TaskId, incarnation: int = 1) -> None:
        """The node says what lives there."""
        self.say(NODE, ActorsUp([(actor, incarnation)]))

    def told(self) -> dict[bytes, str]:
        return {
            id_: "" if value.failure is None else value.failure.error
            for id_, value in self.results(CLIENT).items()
        }


def test_an_actor_that_lives_goes_on_and_gets_the_calls_that_no_node_has() -> None:
    stage = Cast("n")
    actor, first, second = ids(3)
    stage.node_back(row(actor), row(first))
    stage.is_up(actor)
    stage.turn()
    stage.recalls([actor, first, second], [1, 1, 0])
    stage.turn()
    assert [sent.id for sent in stage.assigned(NODE)] == [second]
    assert stage.stops(NODE) == []
    stage.done(NODE, done(first), done(second))
    stage.turn()
    assert stage.told() == {first: "", second: ""}


def test_calls_wait_until_the_actor_is_said_to_be_up_when_the_client_comes_first() -> None:
    stage = Cast("n")
    actor, first, second = ids(3)
    stage.recalls([actor, first, second], [1, 1, 1])
    stage.turn()
    stage.node_back(row(actor), row(first, phase=Phase.QUEUED))
    stage.turn()
    assert stage.assigned(NODE) == []
    stage.is_up(actor)
    stage.turn()
    assert [sent.id for sent in stage.assigned(NODE)] == [second]


def test_a_call_that_ended_while_nobody_listened_has_its_value() -> None:
    stage = Cast("n")
    actor, first = ids(2)
    stage.node_back(row(actor), row(first, phase=Phase.ENDED))
    stage.is_up(actor)
    stage.recalls([actor, first], [1, 1])
    stage.turn()
    stage.done(NODE, done(first))
    stage.turn()
    assert stage.told() == {first: ""}


def test_an_actor_that_ended_while_nobody_listened_ends_its_calls() -> None:
    stage = Cast("n")
    actor, first = ids(2)
    stage.node_back(row(actor, phase=Phase.ENDED))
    stage.done(NODE, done(actor))
    stage.recalls([actor, first], [1, 0])
    stage.turn().turn()
    assert stage.told() == {actor: "", first: "ActorDied"}


def test_a_call_that_was_given_back_while_nobody_listened_goes_in_its_place() -> None:
    stage = Cast("n")
    actor, first, second = ids(3)
    stage.node_back(row(actor), row(first))
    stage.is_up(actor)
    stage.say(NODE, TakenBack([(first, 1)]))
    stage.recalls([actor, first, second], [1, 1, 1])
    stage.turn()
    assert [sent.id for sent in stage.assigned(NODE)] == [first, second]


def test_an_actor_whose_node_has_not_come_back_begins_anew_when_it_cannot_act_any_more() -> None:
    stage = Cast("m", "n")
    actor, first, second = ids(3)
    stage.node_back(letter="m")
    stage.recalls([actor, first, second], [1, 1, 1], restarts=1, retries=1)
    stage.at(11.5)
    assert stage.assigned(OTHER) == []
    stage.at(13.0)
    (creation,) = stage.assigned(OTHER)
    assert (creation.id, creation.attempt) == (actor, 2)
    stage.say(OTHER, ActorsUp([(actor, 2)]))
    stage.live(0.5, 0.1)
    assert [sent.id for sent in stage.assigned(OTHER)] == [first, second]


def test_one_that_outlives_any_silence_never_begins_anew_when_its_node_has_not_come_back() -> None:
    stage = Cast("m", "n")
    actor, call = ids(2)
    stage.node_back(letter="m")
    stage.recalls([actor, call], [1, 1], restarts=1, retries=1, waits=True)
    stage.at(60.0)
    assert stage.assigned(OTHER) == []
    assert stage.told() == {actor: "ActorDied", call: "ActorDied"}


def test_an_actor_without_restarts_whose_node_has_not_come_back_is_dead_in_the_end() -> None:
    stage = Cast("m", "n")
    actor, first = ids(2)
    stage.node_back(letter="m")
    stage.recalls([actor, first], [1, 1])
    stage.at(14.0)
    told = stage.told()
    assert told[actor] == "ActorDied"
    assert told[first] in ("ActorCallLost", "ActorDied")


def test_an_actor_of_a_node_that_came_back_and_was_lost_waits_for_its_lease() -> None:
    stage = Cast("m", "n")
    (actor,) = ids(1)
    stage.node_back(row(actor))
    stage.node_back(letter="m")
    stage.is_up(actor)
    stage.live(0.5)
    heard_s = stage.now_s - 0.25  # it was before that turn
    stage.event(events.PeerDisconnected(NODE))
    stage.live(1.5, 0.25, NODE)
    stage.recalls([actor], [1], restarts=1)
    while not (rows := stage.assigned(OTHER)):
        stage.live(0.25, 0.25, NODE)
        assert stage.now_s < heard_s + 20.0
    assert rows[0].attempt == 2
    assert stage.now_s >= heard_s + 12.0


def test_an_actor_is_ended_that_was_let_go_before_anybody_named_it() -> None:
    stage = Cast("n")
    (actor,) = ids(1)
    stage.node_back(row(actor))
    stage.is_up(actor)
    stage.client_enters()
    stage.say(CLIENT, Cancel([actor], False, False, exit=True))
    stage.turn()
    assert stage.stops(NODE) == []
    kind = stage.define(CLIENT, num_cpus=0.0, creates=ActorOptions(), max_retries=0)
    stage.names(CLIENT, kind, [actor])
    stage.turn()
    assert stage.stops(NODE) == [(actor, 1, int(StopMode.EXIT))]


def test_the_home_of_an_actor_is_asked_for_it_when_it_comes_back_after_the_caller() -> None:
    stage = Cast("n")
    actor = ids(1, PeerId(b"d" * 6))[0]
    stage.client_enters()
    kind = stage.define(CLIENT, num_cpus=0.0, actor=bytes(actor), max_retries=0)
    call = ids(1)[0]
    stage.names(CLIENT, kind, [call], 0)
    stage.registered(CLIENT)
    stage.turn()
    assert stage.told() == {}
    stage.at(20.0)
    assert stage.told() == {call: "ActorDied"}


def test_a_death_told_after_the_restart_is_charged_like_any() -> None:
    stage = Cast("n")
    actor, first = ids(2)
    stage.node_back(row(actor), row(first))
    stage.is_up(actor)
    stage.recalls([actor, first], [1, 1], restarts=1)
    stage.turn()
    stage.done(NODE, *(died(AssignRow(id_, 1, 1, 1, 0, -1.0)) for id_ in (first, actor)))
    stage.live(1.0, 0.1)
    assert stage.told() == {first: "ActorCallLost"}
    (again,) = stage.assigned(NODE)
    assert (again.id, again.attempt) == (actor, 2)


def test_calls_that_may_be_repeated_wait_for_a_late_node_as_their_actor_does() -> None:
    stage = Cast("n")
    actor, first, second = ids(3)
    stage.recalls([actor, first, second], [1, 1, 1], restarts=5, retries=5)
    stage.at(4.0)
    assert not stage.retried(CLIENT)
    stage.node_back(row(actor), row(first), row(second))
    stage.is_up(actor)
    stage.turn()
    assert stage.stops(NODE) == []
    assert stage.assigned(NODE) == []
    stage.done(NODE, done(first), done(second))
    stage.turn()
    assert stage.told() == {first: "", second: ""}


def test_a_cancelled_call_waits_for_the_node_that_may_have_it_and_leaves_the_actor_alone() -> None:
    stage = Cast("n")
    actor, first, second = ids(3)
    stage.recalls([actor, first, second], [1, 1, 1])
    stage.turn()
    stage.cancel(CLIENT, first, force=True)
    stage.turn()
    assert stage.told() == {}
    stage.node_back(row(actor), row(first))
    stage.is_up(actor)
    stage.turn()
    assert stage.stops(NODE) == [(first, 1, int(StopMode.SOFT))]
    assert [sent.id for sent in stage.assigned(NODE)] == [second]
    stage.done(NODE, failure_done(AssignRow(first, 1, 1, 1, 0, -1.0), "TaskCancelled"))
    stage.turn()
    assert stage.told() == {first: "TaskCancelled"}


def test_a_cancelled_call_keeps_its_place_until_it_is_known_that_no_node_has_it() -> None:
    stage = Cast("m", "n")
    actor, first, second = ids(3)
    stage.recalls([actor, first, second], [1, 1, 0])
    stage.node_back(row(actor))
    stage.is_up(actor)
    stage.cancel(CLIENT, first)
    stage.turn()
    assert stage.told() == {}
    assert stage.assigned(NODE) == []
    stage.node_back(letter="m")
    stage.live(0.5, 0.1)
    assert stage.told() == {first: "TaskCancelled"}
    assert [sent.id for sent in stage.assigned(NODE)] == [second]


def test_an_actor_that_is_killed_while_its_node_is_away_is_ended_when_that_is_back() -> None:
    stage = Cast("n")
    actor, first = ids(2)
    stage.recalls([actor, first], [1, 0], restarts=3)
    stage.turn()
    stage.cancel(CLIENT, actor)
    stage.turn()
    assert stage.told() == {}
    stage.node_back(row(actor))
    stage.is_up(actor)
    stage.turn()
    assert stage.stops(NODE) == [(actor, 1, int(StopMode.FORCE))]
    assert stage.assigned(NODE) == []
    stage.done(NODE, died(AssignRow(actor, 1, 1, 1, 0, -1.0)))
    stage.turn()
    assert stage.told() == {actor: "TaskCancelled", first: "ActorDied"}


def test_an_actor_that_is_killed_while_its_node_is_away_is_dead_when_that_is_given_up() -> None:
    stage = Cast("m", "n")
    actor, first, second = ids(3)
    stage.node_back(letter="m")
    stage.recalls([actor, first, second], [1, 1, 1], restarts=3, retries=3)
    stage.turn()
    stage.cancel(CLIENT, actor)
    stage.cancel(CLIENT, second)
    stage.at(11.5)
    assert stage.told() == {}
    stage.at(14.0)
    told = stage.told()
    assert told.pop(actor) == "TaskCancelled"
    assert set(told) == {first, second}
    assert set(told.values()) <= {"ActorDied", "TaskCancelled"}
    assert stage.assigned(OTHER) == []


def test_a_repeated_call_that_comes_back_cancelled_waits_in_its_place_for_a_missing_node() -> None:
    stage = Cast("m", "n", "o")
    actor, first, second = ids(3)
    stage.node_back(row(actor))
    stage.node_back(row(first), letter="m")
    stage.is_up(actor)
    stage.say(OTHER, Leave())
    stage.turn()
    stage.recalls([actor, first, second], [1, 1, 0], restarts=1, retries=1)
    stage.live(2.5)
    assert [(sent.id, sent.attempt) for sent in stage.assigned(NODE)] == [(first, 2), (second, 1)]
    stage.cancel(CLIENT, first)
    stage.turn()
    assert stage.stops(NODE) == [(first, 2, int(StopMode.SOFT))]
    stage.say(NODE, TakenBack([(first, 2)]))
    stage.turn()
    assert stage.told() == {}
    stage.at(14.0)
    assert stage.told() == {first: "TaskCancelled"}


def test_a_call_that_two_nodes_have_goes_on_where_the_later_attempt_is() -> None:
    stage = Cast("m", "n")
    actor, first = ids(2)
    stage.recalls([actor, first], [1, 1], restarts=1, retries=1)
    stage.node_back(row(first), letter="m")
    stage.turn()
    stage.node_back(row(actor, 2), row(first, 2))
    stage.is_up(actor, 2)
    stage.turn()
    assert stage.stops(OTHER) == [(first, 1, int(StopMode.FORCE))]
    stage.done(NODE, done(first, 2))
    stage.turn()
    assert stage.told() == {first: ""}


def test_a_repeated_call_that_is_cancelled_before_its_actor_is_up_waits_for_that_node() -> None:
    stage = Cast("m", "n", "o")
    actor, first, second = ids(3)
    stage.node_back(row(actor))
    stage.node_back(row(first), letter="m")
    stage.say(OTHER, Leave())
    stage.turn()
    stage.recalls([actor, first, second], [1, 1, 0], restarts=1, retries=1)
    stage.live(2.5)
    assert stage.task(first)["state"] == "queued"
    stage.cancel(CLIENT, first)
    stage.turn()
    stage.is_up(actor)
    stage.turn()
    assert stage.assigned(NODE) == []
    assert stage.told() == {}
    stage.at(14.0)
    assert stage.told() == {first: "TaskCancelled"}
    assert [sent.id for sent in stage.assigned(NODE)] == [second]

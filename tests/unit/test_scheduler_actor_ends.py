"""How actors end for good at the scheduler, and what becomes of the calls that nobody runs."""

from drumbeat.protocol import codec
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.messages import (
    CAUSES_MAX,
    Failure,
    Forget,
    Leave,
    Outcome,
    Results,
    StopMode,
    ValueRow,
    Values,
    Wanted,
)
from support.acting import Acting
from support.scheduling import died, error_done, ids_of, value_done


def test_an_actor_that_nobody_holds_ends_after_what_is_queued() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create()
    creation = stage.started(actor, node)
    stage.calls(actor, 2)
    stage.drop(actor)
    stage.turn()
    rows = stage.assigned(node)
    assert len(rows) == 2
    assert not stage.stops(node)
    stage.finish(node, rows)
    stage.turn()
    assert stage.stops(node) == [(actor, 1, StopMode.EXIT)]
    stage.turn()
    assert not stage.stops(node)
    stage.done(node, value_done(creation))
    stage.turn()
    assert stage.errors()[actor] == ""
    assert stage.at_rest()


def test_an_actor_that_nobody_holds_and_that_never_started_has_ended() -> None:
    stage = Acting()
    actor = stage.create()
    stage.drop(actor)
    stage.turn()
    stage.node()
    stage.turn()
    assert stage.errors() == {actor: ""}
    assert stage.at_rest()


def test_an_actor_that_is_let_go_while_it_starts_ends_when_it_is_up() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create()
    stage.turn()
    (row,) = stage.assigned(node)
    stage.drop(actor)
    stage.turn()
    assert not stage.stops(node)
    stage.up(node, row)
    assert stage.stops(node) == [(actor, 1, StopMode.EXIT)]


def test_one_that_dies_when_nobody_needs_it_is_not_restarted() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create(restarts=5)
    creation = stage.started(actor, node)
    stage.drop(actor)
    stage.turn()
    stage.process_ends(node, creation)
    stage.live(1.0)
    assert stage.errors() == {actor: ""}
    assert not stage.sent(node)
    assert stage.at_rest()


def test_what_is_queued_when_an_actor_is_killed_ends_with_it_and_so_does_what_comes_later() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create(restarts=3)
    creation = stage.started(actor, node)
    running = stage.call(actor)
    stage.turn()
    (row,) = stage.assigned(node)
    stage.cancel(stage.caller, actor, force=True)
    queued = stage.call(actor)
    stage.turn()
    assert stage.stops(node) == [(actor, 1, StopMode.FORCE)]
    assert not stage.sent(node)
    stage.process_ends(node, creation, row)
    stage.turn()
    late = stage.call(actor)
    stage.live(1.0)
    assert stage.errors() == {
        actor: "TaskCancelled", running: "ActorCallLost", queued: "ActorDied", late: "ActorDied"
    }  # fmt: skip
    assert not stage.sent(node)
    assert stage.at_rest()


def test_a_cancel_without_force_kills_an_actor_at_once_since_it_may_be_idle() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create()
    stage.started(actor, node)
    stage.cancel(stage.caller, actor)
    stage.turn()
    assert stage.stops(node) == [(actor, 1, StopMode.FORCE)]


def test_calls_of_an_actor_whose_constructor_raised_carry_what_it_raised() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create()
    call = stage.call(actor)
    stage.turn()
    (row,) = stage.assigned(node)
    stage.done(node, error_done(row))
    stage.turn()
    results = stage.results(stage.caller)
    assert results[actor].outcome == Outcome.ERROR
    assert results[call].payload == results[actor].payload
    failure = results[call].failure
    assert failure is not None
    assert failure.error == "ActorDied"
    assert "constructor raised" in failure.text


def test_an_actor_whose_argument_failed_takes_its_calls_along_with_the_cause() -> None:
    stage = Acting()
    node = stage.node()
    task = stage.name(stage.caller)
    stage.submit(stage.caller, stage.define(stage.caller, max_retries=0), [task])
    actor = stage.create(deps=(task,))
    call = stage.call(actor)
    stage.turn()
    (row,) = stage.assigned(node)
    stage.done(node, error_done(row))
    stage.turn()
    failure = stage.failure(call)
    assert failure.error == "ActorDied"
    assert failure.cause is not None
    assert failure.cause.error == "DependencyFailed"
    assert stage.at_rest()


def test_a_call_names_no_more_causes_than_one_may_read_however_long_their_chain() -> None:
    stage = Acting()
    node = stage.node()
    task = stage.name(stage.caller)
    stage.submit(stage.caller, stage.define(stage.caller, max_retries=0), [task])
    calls, needed = [], task
    for _ in range(CAUSES_MAX):
        needed = stage.call(stage.create(deps=(needed,)))
        calls.append(needed)
    stage.turn()
    (row,) = stage.assigned(node)
    stage.done(node, died(row))
    stage.turn()
    results = stage.results(stage.caller)
    said = Results([results[call] for call in calls])
    read = codec.decode_to_client(codec.encode(said))
    assert isinstance(read, Results)
    counts = [_count_causes(row.failure) for row in read.rows]
    assert counts == [min(2 * number, CAUSES_MAX) for number in range(1, CAUSES_MAX + 1)]
    assert stage.at_rest()


def _count_causes(failure: Failure | None) -> int:
    return 0 if failure is None or failure.cause is None else 1 + _count_causes(failure.cause)


def test_a_dead_actor_is_remembered_when_nobody_names_it_any_more() -> None:
    stage = Acting()
    stage.node()
    actor = stage.create()
    call = stage.call(actor)
    stage.cancel(stage.caller, actor)
    stage.turn()
    assert stage.errors() == {actor: "TaskCancelled", call: "ActorDied"}
    stage.say(stage.caller, Forget([1, 2]))
    stage.call_kinds.clear()
    stage.turn()
    assert stage.core.registered()["actors_known"] == 0
    assert stage.rows()[0]["state"] == "dead"
    late = stage.call(actor)
    stage.turn()
    assert "killed" in stage.failure(late).text
    assert not stage.take(stage.caller, Wanted)


def test_the_dead_of_a_client_go_with_it() -> None:
    stage = Acting()
    stage.node()
    actor = stage.create()
    stage.cancel(stage.caller, actor)
    stage.turn()
    assert stage.core.registered()["graves"] == 1
    stage.say(stage.caller, Leave())
    stage.turn()
    assert stage.core.registered()["graves"] == 0


def test_an_actor_ends_with_its_client() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create()
    stage.started(actor, node)
    stage.calls(actor, 3)
    other = stage.client("d")
    call = stage.call(actor, other)
    stage.turn()
    rows = {row.id: row for row in stage.assigned(node)}
    queued = stage.call(actor, other)
    stage.say(stage.caller, Leave())
    stage.turn()
    assert stage.errors(other) == {queued: "ActorDied"}
    stage.taken_back(node, rows[call])
    stage.turn()
    assert stage.errors(other) == {call: "ActorDied"}
    assert stage.at_rest()


def test_the_actors_of_a_task_that_is_cancelled_end() -> None:
    stage = Acting()
    node = stage.node()
    task = stage.name(stage.caller)
    stage.submit(stage.caller, stage.define(stage.caller), [task])
    stage.turn()
    stage.assigned(node)
    actor = stage.create(node, client=stage.caller, parent=task)
    creation = stage.started(actor, node)
    stage.cancel(stage.caller, task)
    stage.turn()
    assert (actor, 1, StopMode.FORCE) in stage.stops(node)
    stage.process_ends(node, creation)
    stage.turn()
    assert stage.errors(node) == {actor: "TaskCancelled"}


def test_an_actor_that_ends_itself_is_over_though_it_might_be_restarted() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create(restarts=9)
    creation = stage.started(actor, node)
    call = stage.call(actor)
    stage.turn()
    (row,) = stage.assigned(node)
    queued = stage.call(actor, stage.client("d"))
    stage.done(node, value_done(row), value_done(creation))
    stage.turn()
    assert stage.errors() == {call: "", actor: ""}
    assert "as it was told" in stage.failure(queued, PeerId(b"d" * 6)).text


# --------------------------------------------------------------------------------- unknown actors


def test_the_home_of_an_unknown_actor_is_asked_and_its_calls_wait() -> None:
    stage = Acting()
    node = stage.node()
    home = stage.client("d")
    actor = ids_of(home, 1)[0]
    call = stage.call(actor)
    stage.turn()
    assert [message.ids for message in stage.take(home, Wanted)] == [[actor]]
    stage.turn()
    assert not stage.errors()
    assert stage.create(home) == actor
    stage.started(actor, node)
    assert stage.sent(node) == [call]


def test_calls_of_an_unknown_actor_end_when_its_home_tells_that_it_has() -> None:
    stage = Acting()
    home = stage.client("d")
    actor = ids_of(home, 1)[0]
    call = stage.call(actor)
    stage.turn()
    stage.say(home, Values([ValueRow(actor, Outcome.VALUE)]))
    stage.turn()
    assert stage.errors() == {call: "ActorDied"}
    assert stage.at_rest()


def test_calls_of_an_actor_whose_home_is_gone_end_at_once() -> None:
    stage = Acting()
    home = stage.client("d")
    actor = ids_of(home, 1)[0]
    waiting = stage.call(actor)
    stage.turn()
    stage.say(home, Leave())
    stage.turn()
    late = stage.call(actor)
    stage.turn()
    assert stage.errors() == {waiting: "ActorDied", late: "ActorDied"}
    assert stage.at_rest()


def test_nobody_is_asked_for_an_unknown_actor_whose_calls_were_cancelled() -> None:
    stage = Acting()
    home = stage.client("d")
    actor = ids_of(home, 1)[0]
    call = stage.call(actor)
    stage.turn()
    stage.cancel(stage.caller, call)
    stage.turn()
    assert stage.at_rest()

"""When an actor ends: as soon as nobody holds it and no call of it is open, and not before."""

from typing import Any

from drumbeat.client.events import CancelAsked, Disconnected, Pinned, Received, RefsChanged
from drumbeat.protocol.actors import ActorOptions
from drumbeat.protocol.ids import ObjectId, TaskId
from drumbeat.protocol.messages import (
    Cancel,
    Credit,
    Failure,
    Outcome,
    Release,
    Shared,
    Submit,
    Unshared,
    ValueRow,
    Wanted,
)
from drumbeat.protocol.recovery import Recovered
from support.client_bench import Client, foreign, received_with, resolved, sent, value

EXIT = [True]


def made(client: Client, **options: Any) -> TaskId:
    return client.submit({"creates": ActorOptions(), "max_retries": 0, **options})


def called(client: Client, actor: bytes, **options: Any) -> TaskId:
    return client.submit({"actor": actor, "max_retries": 0, **options})


def exits(commands: list[Any]) -> list[list[bytes]]:
    """The actors that are to end, as the scheduler is told; nothing else about them is right."""
    told = sent(commands, Cancel)
    assert all((one.force, one.recursive, one.restart) == (False, False, False) for one in told)
    return [one.ids for one in told if one.exit]


def test_the_last_handle_gone_and_no_call_open_it_is_to_end() -> None:
    client = Client()
    actor = made(client)
    assert exits(client.drop(actor)) == [[actor]]
    assert exits(client.do()) == [], "told once"
    client.result(value(actor))
    assert client.at_rest()


def test_a_call_keeps_its_actor_until_its_result_is_in_hand() -> None:
    client = Client()
    actor = made(client)
    first, second = called(client, actor), called(client, actor, num_returns=2)
    assert exits(client.drop(actor)) == []
    assert exits(client.result(value(first))) == []
    ids = [second + bytes([0, 0]), second + bytes([0, 1])]
    assert exits(client.result(value(ids[0]))) == []
    assert exits(client.result(value(ids[1]))) == [[actor]]
    client.drop(first, *ids)
    client.result(value(actor))
    assert client.at_rest()


def test_a_call_that_has_no_value_or_fails_keeps_it_as_well() -> None:
    client = Client()
    actor = made(client)
    silent, failing = called(client, actor, num_returns=0), called(client, actor)
    client.drop(actor)
    assert exits(client.result(value(silent))) == []
    failed = ValueRow(failing, Outcome.FAILURE, failure=Failure("ActorCallLost", "gone"))
    assert exits(client.result(failed)) == [[actor]]


def test_whoever_else_holds_it_keeps_it() -> None:
    client = Client()
    actor = made(client)
    client.do(Received(Shared([actor])))
    assert exits(client.drop(actor)) == []
    assert exits(client.do(Received(Unshared([actor])))) == [[actor]]


def test_a_value_and_an_argument_that_hold_a_handle_keep_it() -> None:
    client = Client()
    actor = made(client)
    held = client.put(contained=(actor,))
    task = client.submit(contained=(actor,))
    assert exits(client.drop(actor)) == []
    assert exits(client.drop(held)) == []
    assert exits(client.result(value(task))) == [[actor]]


def test_pickled_outside_of_a_task_it_is_kept_until_the_client_leaves() -> None:
    client = Client()
    actor = made(client)
    client.do(Pinned([ObjectId(actor)]))
    assert exits(client.drop(actor)) == []


def test_a_handle_that_comes_back_before_the_last_is_gone_keeps_it() -> None:
    client = Client()
    actor = made(client)
    changes = [(ObjectId(actor), 1), (ObjectId(actor), -1), (ObjectId(actor), -1)]
    assert exits(client.do(RefsChanged(changes[:2]))) == []
    assert exits(client.do(RefsChanged(changes[2:]))) == [[actor]]


def test_one_that_was_never_sent_ends_here() -> None:
    client = Client(connected=False)
    actor = made(client)
    commands = client.drop(actor)
    assert exits(commands) == []
    assert [row.failure.error for row in resolved(commands) if row.failure] == ["TaskCancelled"]
    assert client.at_rest()


def test_a_detached_one_does_not_end_with_its_handles() -> None:
    client = Client()
    actor = made(client, creates=ActorOptions(detached=True))
    assert exits(client.drop(actor)) == []


def test_somebody_elses_actor_is_held_until_the_calls_results_are_in_hand() -> None:
    client = Client()
    actor = foreign()
    task = received_with(client, actor)
    client.do(RefsChanged([(actor, 1)]))
    client.drop(task)
    call = called(client, actor)
    assert sent(client.drop(actor)) == []
    commands = client.result(value(call))
    assert [one.rows for one in sent(commands, Release)] == [[(actor, 1)]]
    assert exits(commands) == []


def test_one_that_died_before_needs_no_end() -> None:
    client = Client()
    actor = made(client)
    died = ValueRow(actor, Outcome.FAILURE, failure=Failure("ActorDied", "it was killed"))
    client.result(died)
    assert sent(client.drop(actor), Cancel) == []
    assert client.at_rest()


def test_the_next_scheduler_is_told_again_who_is_to_end() -> None:
    client = Client()
    actor, other = made(client), made(client)
    client.drop(actor)
    client.do(Disconnected())
    commands = client.connect(2)
    assert exits(commands) == [[actor]]
    assert [[row.id for row in one.rows] for one in sent(commands, Submit)] == [[actor, other]]


def test_after_a_restart_nobody_ends_what_somebody_may_still_hold() -> None:
    client = Client()
    actor = made(client)
    client.do(Received(Shared([actor])))
    client.drop(actor)
    client.do(Disconnected())
    assert exits(client.connect(2)) == []
    assert exits(client.do(Received(Recovered()))) == [[actor]], "nobody has said that he holds it"


def test_that_a_scheduler_wants_to_know_of_it_does_not_keep_it() -> None:
    client = Client()
    actor = made(client)
    client.do(Received(Wanted([actor])))
    assert exits(client.drop(actor)) == [[actor]]


def test_a_kill_is_a_cancel_by_force_and_asked_again_of_the_next_scheduler() -> None:
    client = Client()
    actor = made(client)
    commands = client.do(CancelAsked([actor], True, True))
    (told,) = sent(commands, Cancel)
    assert (told.force, told.recursive, told.exit, told.restart) == (True, True, False, False)
    assert sent(client.drop(actor), Cancel) == [], "it is being killed already"
    (again,) = sent(client.connect(2), Cancel)
    assert (again.force, again.exit) == (True, False)


def test_whoever_is_to_end_may_still_be_killed() -> None:
    client = Client()
    actor = made(client)
    client.drop(actor)
    client.do(CancelAsked([actor], True, True))
    (again,) = sent(client.connect(2), Cancel)
    assert (again.force, again.recursive, again.exit) == (True, True, False)


def test_a_kill_that_lets_it_begin_anew_is_asked_once() -> None:
    client = Client()
    actor, abroad = made(client), foreign()
    for id_ in (actor, TaskId(abroad)):
        (told,) = sent(client.do(CancelAsked([id_], True, True, restart=True)), Cancel)
        assert (told.ids, told.force, told.restart, told.exit) == ([id_], True, True, False)
    assert sent(client.connect(2), Cancel) == []


def test_one_that_was_never_sent_does_not_begin_anew() -> None:
    client = Client(connected=False)
    actor = made(client)
    assert sent(client.do(CancelAsked([actor], True, True, restart=True)), Cancel) == []
    assert [[row.id for row in one.rows] for one in sent(client.connect(1), Submit)] == [[actor]]


def test_given_up_by_the_scheduler_actors_and_calls_say_what_they_are() -> None:
    client = Client()
    actor = made(client, creates=ActorOptions(detached=True))
    call = called(client, actor)
    errors = {row.id: row.failure for row in resolved(client.connect(1)) if row.failure}
    assert [errors[actor].error, errors[call].error] == ["ActorDied", "ActorCallLost"]
    assert "max_restarts=0" in errors[actor].text
    assert "max_task_retries=0" in errors[call].text


def test_given_up_by_the_scheduler_it_creates_nothing_anew_that_may_still_live() -> None:
    client = Client()
    own = made(client, max_retries=5)
    theirs = made(client, max_retries=5, creates=ActorOptions(detached=True))
    commands = client.connect(1)
    failures = {row.id: row.failure for row in resolved(commands)}
    assert list(failures) == [own]
    assert failures[own] is not None
    assert "may still live" in failures[own].text
    assert [[row.id for row in one.rows] for one in sent(commands, Submit)] == [[theirs]]


def test_given_up_by_the_scheduler_it_creates_what_it_had_not_sent() -> None:
    client = Client(connected=False)
    actor = made(client)
    assert [[row.id for row in one.rows] for one in sent(client.connect(1), Submit)] == [[actor]]


def test_calls_beyond_the_credit_keep_their_actor() -> None:
    client = Client()
    actor = made(client)
    client.do(Received(Credit(1, 1)))
    call = called(client, actor)
    assert exits(client.drop(actor)) == []
    client.do(CancelAsked([call], False, True))
    assert exits(client.do()) == []  # told in the turn of the cancel
    assert client.core._cancelled[actor].exit

"""What callers read of an actor that has ended: which one, where, why, and what to do."""

from drumbeat.protocol.ids import PeerId, TaskId, show
from drumbeat.protocol.messages import AssignRow, DoneRow
from support.acting import Acting
from support.scheduling import failure_done


def died_with_last_words(row: AssignRow) -> DoneRow:
    done = failure_done(row, "WorkerDied", died=True)
    failure = done.values[0].failure
    assert failure is not None
    failure.text = "its worker (pid 7, node n) was ended by SIGSEGV\nFatal Python error"
    failure.details["node"] = "n"
    return done


def begun(stage: Acting, restarts: int = 0) -> tuple[TaskId, AssignRow]:
    node = stage.node()
    actor = stage.create(restarts=restarts, name="boss", namespace="space")
    return actor, stage.started(actor, node)


def test_a_call_that_was_lost_names_its_actor_the_life_the_end_and_the_option() -> None:
    stage = Acting()
    actor, creation = begun(stage, restarts=1)
    call = stage.call(actor)
    stage.turn()
    (row,) = stage.assigned(creation_node(stage))
    stage.done(creation_node(stage), died_with_last_words(row), died_with_last_words(creation))
    stage.turn()
    failure = stage.failure(call)
    assert failure.error == "ActorCallLost"
    assert failure.text == (
        f"Counter.add may have run, in part or whole: its actor Counter 'boss' {show(actor)}, "
        "incarnation 1, ended while it had the call: its worker (pid 7, node n) was ended by "
        "SIGSEGV. max_task_retries=0 allows no further attempt; give the method more if it may "
        "run twice"
    )
    assert failure.details["incarnation"] == 1
    assert failure.cause is not None
    assert "Fatal Python error" in failure.cause.text  # its last words are with the cause


def test_a_call_of_an_actor_that_is_killed_is_not_told_to_try_again() -> None:
    stage = Acting()
    actor, creation = begun(stage, restarts=1)
    call = stage.call(actor)
    stage.turn()
    (row,) = stage.assigned(creation_node(stage))
    stage.cancel(stage.caller, actor, force=True)
    stage.turn()
    stage.done(creation_node(stage), died_with_last_words(row), died_with_last_words(creation))
    stage.turn()
    failure = stage.failure(call)
    assert "The actor was to end for good: it was killed" in failure.text
    assert "max_task_retries" not in failure.text


def test_a_call_of_a_dead_actor_knows_its_last_life_and_where_that_was() -> None:
    stage = Acting()
    actor, creation = begun(stage)
    stage.done(creation_node(stage), died_with_last_words(creation))
    stage.turn()
    call = stage.call(actor)
    stage.turn()
    failure = stage.failure(call)
    assert failure.text == (
        f"Counter.add cannot run: actor Counter {show(actor)} is dead: Counter has ended, and "
        "max_restarts=0 allows no further restart: its worker (pid 7, node n) was ended by SIGSEGV"
    )
    assert (failure.details["incarnation"], failure.details["node"]) == (1, "n")


def creation_node(stage: Acting) -> PeerId:
    (node,) = [peer for peer in stage.mail if peer != stage.caller]
    return node

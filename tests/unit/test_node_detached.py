"""An actor that belongs to nobody who calls it: its callers come and go, and it stays."""

import pytest
from drumbeat.node import events
from drumbeat.protocol.actors import ActorOptions
from drumbeat.protocol.ids import IdFactory, PeerId, TaskId
from drumbeat.protocol.messages import Discard, Options, Outcome, Results, Submit, TaskRow
from support.node_acting import Stage
from support.node_bench import NODE, OTHER, NodeBench, nest, value

#: calls of the first actor by another client
THEIRS = 12
WARD = PeerId(b"ward__")


def called(count: int) -> tuple[Stage, list[TaskId]]:
    """Return a node with an actor that another client has called."""
    stage = Stage()
    stage.prepare(THEIRS, client=OTHER, actor=stage.actor, num_cpus=0.0, max_retries=0)
    calls = stage.assign(count, kind=THEIRS, client=OTHER, expected_s=0.0001)
    return stage, calls


def test_a_call_that_runs_outlives_its_client_and_one_that_waits_does_not() -> None:
    stage, (runs, waits) = called(2)
    stage.feed(events.PageRead([(1, 2, False)]))
    stage.hear(Discard([], [OTHER]))
    assert stage.of(events.Signal) == []
    ended = {row.id: row.values[0].outcome for row in stage.done()}
    stage.feed(events.PacketsTaken(1, [3]), events.PageRead([(1, 2, False)]))
    ended |= {row.id: row.values[0].outcome for row in stage.done()}
    stage.finish(1, 2)
    ended |= {row.id: row.values[0].outcome for row in stage.done()}
    assert ended == {runs: Outcome.VALUE, waits: Outcome.FAILURE}
    stage.core.check_invariants()
    (own,) = stage.call()
    assert [own] in stage.ran().values()


def test_calls_that_were_not_sent_go_with_their_client() -> None:
    stage, calls = called(5000)
    sent = sum(len(tasks) for tasks in stage.ran().values())
    assert sent < len(calls)
    stage.hear(Discard([], [OTHER]))
    left = [id_ for id_ in calls if id_ in stage.core._state.attempts]
    assert len(left) == sent
    stage.core.check_invariants()


@pytest.mark.parametrize("detached", [True, False])
def test_a_task_may_use_an_id_of_nobody_here_for_a_detached_actor_alone(detached: bool) -> None:
    bench = NodeBench()
    bench.assign()
    bench.ready(1)
    actor = IdFactory(WARD)()
    options = Options(num_cpus=0.0, creates=ActorOptions(detached=detached))
    nest(bench, 1, TaskRow(actor, 1), options=options)
    if not detached:
        assert [signal.name for signal in bench.of(events.Signal)] == ["KILL"]
        return
    (submit,) = bench.sent(Submit)
    assert [row.id for row in submit.rows] == [actor]
    assert bench.of(events.Signal) == []


def test_a_task_may_not_use_an_id_of_its_nodes_or_one_twice() -> None:
    for ids in ([IdFactory(NODE, 77)()], [IdFactory(WARD)()] * 2):
        bench = NodeBench()
        bench.assign()
        bench.ready(1)
        options = Options(num_cpus=0.0, creates=ActorOptions(detached=True))
        nest(bench, 1, *[TaskRow(id_, 1) for id_ in ids], options=options)
        assert [signal.name for signal in bench.of(events.Signal)] == ["KILL"]


def test_the_word_that_one_is_handed_over_is_its_result_and_leaves_nothing() -> None:
    bench = NodeBench()
    bench.assign()
    bench.ready(1)
    actor = IdFactory(WARD)()
    options = Options(num_cpus=0.0, creates=ActorOptions(detached=True))
    nest(bench, 1, TaskRow(actor, 1), options=options)
    bench.want(1, actor)
    bench.hear(Results([value(actor, b"")]))
    (answer,) = bench.answers(1)
    assert [row.outcome for row in answer.rows] == [Outcome.VALUE]
    assert not bench.core._state.objects.calls

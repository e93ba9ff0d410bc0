"""What workers ask of the cluster: nested calls, values, cancels, questions."""

import pytest
from drumbeat.node import events
from drumbeat.node.packets import (
    Ask,
    CancelTasks,
    NestedKind,
    Refs,
    Submitted,
    ToDaemon,
)
from drumbeat.protocol.actors import ActorName
from drumbeat.protocol.codec import decoder, encode
from drumbeat.protocol.ids import IdFactory, objects_of
from drumbeat.protocol.messages import (
    Answer,
    Blocked,
    Cancel,
    Cancelled,
    Define,
    Failure,
    Fetch,
    Options,
    Outcome,
    Query,
    Release,
    Results,
    Shared,
    Submit,
    TaskRow,
    Unshared,
    ValueRow,
    Values,
    Wanted,
)
from drumbeat.protocol.payload_files import Filing
from drumbeat.protocol.stowage import Fullness
from support.node_bench import CLIENT, NODE, OTHER, NodeBench, at_rest, nest, value

LARGE = b"x" * (64 << 10) + b"y"


@pytest.fixture
def bench():
    return NodeBench.ready_with_two()


def test_nested_calls_go_to_the_scheduler_under_the_nodes_own_numbers(bench):
    bench.assign(2)
    one, two = (IdFactory(NODE, number)() for number in (1, 2))
    nest(bench, 1, TaskRow(one, 7, b"args"), number=7)
    (define,) = bench.sent(Define)
    assert define.client == CLIENT
    (row,) = define.rows
    assert (row.number, row.function, row.name, row.payload) == (1, b"n" * 16, "child", b"nested")
    (submit,) = bench.sent(Submit)
    assert (submit.client, submit.parent, submit.depth) == (CLIENT, b"p" * 14, 1)
    assert [(task.id, task.kind, task.args) for task in submit.rows] == [(one, 1, b"args")]
    nest(bench, 2, TaskRow(two, 3), number=3)
    assert not bench.sent(Define), "the same kind"
    assert bench.sent(Submit)[0].rows[0].kind == 1
    assert bench.commands.index(bench.of(events.Send)[0]) == 0


def test_options_go_to_the_scheduler_as_the_worker_wrote_them_on_the_wire(bench):
    bench.assign()
    worker = next(iter(bench.ran()))
    given = Options(num_cpus=0.5, resources=(("disk", 1.0),), env_vars=(("A", "b"),), pool="p")
    kind = NestedKind(1, b"n" * 16, "child", given, b"nested")
    row = TaskRow(IdFactory(NODE, worker)(), 1)
    packet = decoder(ToDaemon)(encode(Submitted(b"p" * 14, 1, [kind], [row])))
    bench.say(worker, packet)
    assert bench.sent(Define)[0].rows[0].options == given


def test_another_kind_of_a_known_function_is_defined_without_its_code(bench):
    bench.assign()
    worker = next(iter(bench.ran()))
    names = IdFactory(NODE, worker)
    nest(bench, worker, TaskRow(names(), 1))
    nest(bench, worker, TaskRow(names(), 2), options=Options(priority=2), payload=None, number=2)
    (row,) = bench.sent(Define)[0].rows
    assert (row.number, row.payload, row.size) == (2, None, 0)


def test_a_large_nested_function_and_large_arguments_go_by_the_bulk_link(bench):
    bench.assign()
    worker = next(iter(bench.ran()))
    child = IdFactory(NODE, worker)()
    nest(bench, worker, TaskRow(child, 1, LARGE), payload=LARGE)
    assert bench.sent(Define)[0].rows[0].size == len(LARGE)
    assert bench.sent(Submit)[0].rows[0].size == len(LARGE)
    keys = [blob.key for blob in bench.of(events.SendBlob)]
    assert keys == [b"n" * 16, child + b"a"]


def test_a_call_of_a_kind_that_was_never_defined_fails(bench):
    bench.assign()
    worker = next(iter(bench.ran()))
    child = IdFactory(NODE, worker)()
    bench.say(worker, Submitted(b"p" * 14, 1, [], [TaskRow(child, 9)]))
    assert not bench.sent(Submit)
    bench.want(worker, child)
    assert bench.answers(worker)[0].rows[0].failure.error == "ObjectLost"


def test_small_values_of_dependencies_go_along(bench):
    bench.assign()
    worker = next(iter(bench.ran()))
    names = IdFactory(NODE, worker)
    put, child = names(), names()
    nest(bench, worker, TaskRow(child, 1, b"a", deps=(put,)), puts=[value(put, b"v")])
    assert bench.sent(Submit)[0].rows[0].values == (value(put, b"v"),)


def test_a_wanted_value_is_sent(bench):
    bench.assign()
    worker = next(iter(bench.ran()))
    names = IdFactory(NODE, worker)
    put, large = names(), names()
    nest(bench, worker, puts=[value(put), value(large, LARGE)])
    bench.hear(Wanted([put, large]))
    first, second = bench.sent(Values)[0].rows
    assert first == value(put)
    assert (second.payload, second.size) == (None, len(LARGE))
    assert bench.of(events.SendBlob) == [events.SendBlob(large, LARGE, large)]


def test_results_of_nested_calls_fan_out_and_are_dropped_with_their_refs(bench):
    bench.assign()
    worker = next(iter(bench.ran()))
    child = IdFactory(NODE, worker)()
    nest(bench, worker, TaskRow(child, 1), options=Options(num_returns=2))
    ids = objects_of(child, 2)
    bench.want(worker, *ids)
    failure = Failure("WorkerDied", "it died")
    bench.hear(Results([ValueRow(child, Outcome.FAILURE, failure=failure)]))
    (answer,) = bench.answers(worker)
    assert [row.id for row in answer.rows] == ids[:1]
    bench.finish(worker)
    bench.say(worker, Refs([], list(ids)))
    assert at_rest(bench) == {}


def test_a_large_result_is_awaited_and_what_lies_in_it_is_held_meanwhile(bench):
    bench.assign()
    worker = next(iter(bench.ran()))
    child, inside = IdFactory(NODE, worker)(), IdFactory(OTHER)()
    nest(bench, worker, TaskRow(child, 1))
    bench.want(worker, child)
    bench.hear(Results([ValueRow(child, Outcome.VALUE, None, 5, (inside,))]))
    assert not bench.answers(worker)
    assert not bench.sent(Release)
    bench.feed(events.BlobReceived(child, b"large"))
    assert bench.answers(worker)[0].rows[0].payload == b"large"
    bench.finish(worker)
    bench.say(worker, Refs([], [child]))
    assert bench.sent(Release) == [Release([(inside, 1)])]
    assert at_rest(bench) == {}


def test_a_foreign_object_is_fetched(bench):
    foreign = IdFactory(OTHER)()
    (task,) = bench.assign(contained=(foreign,))
    worker = next(iter(bench.ran()))
    bench.want(worker, foreign)
    assert bench.sent(Fetch) == [Fetch([foreign])]
    assert bench.sent(Blocked) == [Blocked([(task, 1, True)])]
    bench.hear(Values([value(foreign, b"theirs")]))
    assert bench.answers(worker)[0].rows[0].payload == b"theirs"


def test_shared_objects_stay_until_nobody_shares_them(bench):
    bench.assign()
    worker = next(iter(bench.ran()))
    put = IdFactory(NODE, worker)()
    nest(bench, worker, puts=[value(put)])
    bench.hear(Shared([put]))
    bench.finish(worker)
    bench.say(worker, Refs([], [put]))
    assert at_rest(bench) == {"objects": 1}
    bench.hear(Unshared([put]))
    assert at_rest(bench) == {}


def test_cancels_and_questions_are_passed_on_and_answered(bench):
    bench.assign()
    worker = next(iter(bench.ran()))
    child = IdFactory(NODE, worker)()
    bench.say(worker, CancelTasks([child], True, False))
    assert bench.sent(Cancel) == [Cancel([child], True, False, 0)]
    bench.say(worker, CancelTasks([child], False, True, 4), Ask(5, "status", 10, "f"))
    assert bench.sent(Cancel)[0].request == 1
    assert bench.sent(Query) == [Query(2, "status", 10, "f")]
    bench.hear(Answer(2, {"nodes": 1}), Cancelled(1, [True]))
    first, second = bench.answers(worker)
    assert (first.request, first.data) == (5, {"nodes": 1})
    assert (second.request, second.data) == (4, [True])
    assert bench.core.at_rest()["requests"] == 0


def named_for(worker: int) -> ActorName:
    return ActorName("one", "space", IdFactory(NODE, worker)(), b"told")


def test_a_worker_that_ends_before_it_submits_an_actor_lets_the_actors_name_go(bench):
    bench.assign(2)
    first, second = list(bench.ran())[:2]
    names = [named_for(first), named_for(second)]
    bench.say(first, Ask(5, "name", 0, "", names[0]))
    (asked,) = bench.sent(Query)
    assert asked.named == names[0]
    bench.say(second, Ask(5, "name", 0, "", names[1]))
    bench.hear(Answer(asked.request, {"id": names[0].id, "told": b"told"}))
    bench.feed(events.WorkerExited(first, -9, "SIGKILL", ""))
    assert bench.sent(Query) == [Query(0, "name", named=names[0].freed())]
    bench.feed(events.WorkerExited(second, -9, "SIGKILL", ""))
    assert bench.sent(Query) == [Query(0, "name", named=names[1].freed())], "not answered yet"


def test_names_of_actors_that_are_submitted_or_are_of_others_are_not_let_go(bench):
    bench.assign(2)
    first, second = list(bench.ran())[:2]
    names = [named_for(first), named_for(second)]
    bench.say(first, Ask(5, "name", 0, "", names[0]))
    (one,) = bench.sent(Query)
    bench.say(second, Ask(5, "name", 0, "", names[1]))
    (two,) = bench.sent(Query)
    bench.hear(Answer(one.request, {"id": names[0].id, "told": b"told"}))
    bench.hear(Answer(two.request, {"id": b"o" * 14, "told": b"told"}))
    nest(bench, first, TaskRow(names[0].id, 7, b"args"), number=7)
    bench.feed(events.WorkerExited(first, -9, "SIGKILL", ""))
    bench.feed(events.WorkerExited(second, -9, "SIGKILL", ""))
    assert not bench.sent(Query)


def test_a_worker_may_let_a_name_go_that_it_asks_for_and_another_scheduler_is_not_asked(bench):
    bench.assign()
    worker = next(iter(bench.ran()))
    named = named_for(worker)
    bench.say(worker, Ask(5, "name", 0, "", named), Ask(0, "name", 0, "", named.freed()))
    assert [query.named for query in bench.sent(Query)] == [named, named.freed()]
    assert bench.core.at_rest()["requests"] == 0
    bench.feed(events.WorkerExited(worker, -9, "SIGKILL", ""))
    assert not bench.sent(Query)


def test_what_is_put_counts_towards_memory_and_its_worker_is_told_when_there_is_room(bench):
    bench.assign()
    worker = next(iter(bench.ran()))
    payload = Filing(1)(LARGE, [])
    if payload is None:
        pytest.skip("no memory files that can be sealed")
    put = IdFactory(NODE, worker)()
    bench.say(worker, Submitted(b"p" * 14, 1, [], [], [value(put, payload)]))
    (stow,) = bench.of(events.Stow)
    assert [id_ for id_, _ in stow.rows] == [put]
    assert bench.of(events.Brought) == [events.Brought(worker, len(payload))]
    bench.say(worker, Refs([], [put]))
    assert bench.of(events.Stow) == [events.Stow([(put, None)])]
    bench.feed(events.RoomLeft(Fullness(0, 8, 4, "both are full")))
    put = IdFactory(NODE, worker)()
    bench.say(worker, Submitted(b"p" * 14, 1, [], [], [value(put, payload)]))
    assert not bench.of(events.Stow)
    assert bench.of(events.Brought) == [events.Brought(worker, 2 * len(payload))], "it goes on"
    bench.want(worker, put)
    assert bench.answers(worker)[0].rows[0].failure.error == "StoreFull"


def test_nothing_counts_any_more_when_the_scheduler_has_given_the_node_up(bench):
    bench.assign()
    worker = next(iter(bench.ran()))
    payload = Filing(1)(LARGE, [])
    if payload is None:
        pytest.skip("no memory files that can be sealed")
    put = IdFactory(NODE, worker)()
    bench.say(worker, Submitted(b"p" * 14, 1, [], [], [value(put, payload)]))
    bench.feed(events.Disconnected())
    bench.feed(events.Connected(1, False))
    assert bench.of(events.Stow) == [events.Stow([(put, None)])]

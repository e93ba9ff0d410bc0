"""A node's calls and objects over a restart of the scheduler: awaited, shared, told again."""

import pytest
from drumbeat.node import events
from drumbeat.node.packets import Ask, CancelTasks, Refs
from drumbeat.protocol.ids import IdFactory, objects_of
from drumbeat.protocol.messages import (
    Answer,
    Cancel,
    Define,
    Fetch,
    Options,
    Outcome,
    Query,
    Release,
    Results,
    Retried,
    Shared,
    Submit,
    TaskRow,
    Unshared,
    ValueRow,
    Values,
    Wanted,
)
from drumbeat.protocol.recovery import (
    Recovered,
)
from support.node_bench import CLIENT, NODE, OTHER, NodeBench, nest, restart, value, waiting

LARGE = b"x" * (64 << 10) + b"y"


@pytest.fixture
def bench():
    return NodeBench.ready_with_two()


# ---------------------------------------------------------------------------------- objects


def test_a_get_that_waits_over_the_restart_is_answered_after_it(bench):
    _, worker, child = waiting(bench)
    restart(bench)
    assert not bench.answers(worker)
    bench.hear(Results([value(child, b"late")]))
    assert bench.answers(worker)[0].rows[0].payload == b"late"


def test_a_foreign_value_that_is_awaited_is_fetched_again(bench):
    foreign = IdFactory(OTHER)()
    bench.assign(contained=(foreign,))
    (worker,) = bench.ran()
    bench.want(worker, foreign, timeout_s=1.0)
    restart(bench)
    assert bench.sent(Fetch) == [Fetch([foreign])]
    bench.after(1.0)
    assert bench.answers(worker)[0].timed_out
    restart(bench, 3)
    assert not bench.sent(Fetch), "nobody waits for it"
    bench.want(worker, foreign)
    assert bench.sent(Fetch) == [Fetch([foreign])]
    bench.hear(Values([value(foreign, b"theirs")]))
    assert bench.answers(worker)[0].rows[0].payload == b"theirs"


def test_what_the_old_scheduler_wanted_is_sent_to_the_new_one_when_it_wants_it(bench):
    child = waiting(bench)[2]
    bench.hear(Wanted([child]))
    restart(bench)
    bench.hear(Results([value(child)]))
    assert not bench.sent(Values)
    bench.hear(Wanted([child]))
    assert bench.sent(Values) == [Values([value(child)])]


def shared_put(bench: NodeBench) -> bytes:
    """Let a worker put a value that only others hold."""
    bench.assign()
    (worker,) = bench.ran()
    put = IdFactory(NODE, worker)()
    nest(bench, worker, puts=[value(put)])
    bench.hear(Shared([put]))
    bench.finish(worker)
    bench.say(worker, Refs([], [put]))
    return put


def test_what_was_shared_stays_so_until_all_are_back(bench):
    put = shared_put(bench)
    restart(bench)
    bench.hear(Shared([put]))
    bench.hear(Unshared([put]))
    assert bench.core.at_rest()["objects"] == 1, "others who hold it may be on their way"
    restart(bench, 3)
    assert bench.core.at_rest()["objects"] == 1
    bench.hear(Recovered())
    assert bench.core.at_rest()["objects"] == 0


def test_what_is_shared_again_stays_when_all_are_back(bench):
    put = shared_put(bench)
    restart(bench)
    bench.hear(Shared([put]), Recovered())
    assert bench.core.at_rest()["objects"] == 1
    bench.hear(Unshared([put]))
    assert bench.core.at_rest()["objects"] == 0


# ------------------------------------------------------------------------------ nested calls


def test_calls_are_told_again_as_they_were_with_their_last_attempts_and_their_code(bench):
    bench.assign()
    (worker,) = bench.ran()
    names = IdFactory(NODE, worker)
    one, two, three = names(), names(), names()
    nest(bench, worker, TaskRow(one, 1, b"a"), TaskRow(two, 1, b"b"))
    nest(bench, worker, TaskRow(three, 2, b"c"), number=2, payload=b"more", function=b"m" * 16)
    bench.hear(Retried([(two, 3)]))
    bench.hear(Results([value(one)]))
    restart(bench)
    (define,) = bench.sent(Define)
    assert define.client == CLIENT
    assert [(row.number, row.function, row.payload) for row in define.rows] == [
        (1, b"n" * 16, b"nested"),
        (2, b"m" * 16, b"more"),
    ]
    (submit,) = bench.sent(Submit)
    assert (submit.client, submit.parent, submit.depth) == (CLIENT, b"p" * 14, 1)
    assert submit.rows == [TaskRow(two, 1, b"b"), TaskRow(three, 2, b"c")]
    assert submit.attempts == [3, 1]


def test_a_call_that_was_surely_never_submitted_is_told_as_new(bench):
    bench.assign()
    (worker,) = bench.ran()
    names = IdFactory(NODE, worker)
    one, two = names(), names()
    bench.feed(events.Disconnected())
    nest(bench, worker, TaskRow(one, 1))
    bench.feed(events.Connected(1, True))
    bench.feed(events.Disconnected())
    nest(bench, worker, TaskRow(two, 1))
    bench.feed(events.Connected(2, False))
    (submit,) = bench.sent(Submit)
    assert ([row.id for row in submit.rows], submit.attempts) == ([one, two], [1, 0])
    restart(bench, 3)
    assert bench.sent(Submit)[0].attempts == [1, 1]


def test_large_code_and_arguments_are_sent_again(bench):
    bench.assign()
    (worker,) = bench.ran()
    child = IdFactory(NODE, worker)()
    nest(bench, worker, TaskRow(child, 1, LARGE), payload=LARGE)
    restart(bench)
    assert bench.of(events.SendBlob) == [
        events.SendBlob(b"n" * 16, LARGE),
        events.SendBlob(child + b"a", LARGE, child + b"a"),
    ]
    assert bench.sent(Define)[0].rows[0].size == len(LARGE)
    assert (bench.sent(Submit)[0].rows[0].args, bench.sent(Submit)[0].rows[0].size) == (
        None,
        len(LARGE),
    )


def test_a_kind_without_open_calls_is_defined_when_it_is_used_again(bench):
    bench.assign()
    (worker,) = bench.ran()
    names = IdFactory(NODE, worker)
    first, second = names(), names()
    nest(bench, worker, TaskRow(first, 1))
    bench.hear(Results([value(first)]))
    restart(bench)
    assert not bench.sent(Define)
    nest(bench, worker, TaskRow(second, 1), payload=None)
    assert [row.payload for row in bench.sent(Define)[0].rows] == [b"nested"]
    assert bench.sent(Submit)[0].rows[0].kind == 1


def test_a_result_of_which_a_part_had_come_is_taken_in_again_as_a_whole(bench):
    bench.assign()
    (worker,) = bench.ran()
    child = IdFactory(NODE, worker)()
    nest(bench, worker, TaskRow(child, 1), options=Options(num_returns=2))
    first, second = objects_of(child, 2)
    inside = IdFactory(OTHER)()
    large = ValueRow(second, Outcome.VALUE, None, 5, (inside,))
    bench.hear(Results([value(first), large]))
    bench.want(worker, first, second)
    restart(bench)
    assert bench.sent(Submit)[0].attempts == [1]
    assert bench.sent(Release) == [Release([(inside, 1)])]
    bench.hear(Results([value(first), large]))
    bench.feed(events.BlobReceived(second, b"large"))
    (answer,) = bench.answers(worker)
    assert [row.payload for row in answer.rows] == [b"value", b"large"]
    assert bench.core.at_rest()["calls"] == 0


def test_cancels_and_questions_without_an_answer_are_told_again(bench):
    bench.assign()
    (worker,) = bench.ran()
    names = IdFactory(NODE, worker)
    one, two, three = names(), names(), names()
    nest(bench, worker, *(TaskRow(id_, 1) for id_ in (one, two, three)))
    bench.say(worker, CancelTasks([one, two], False, True), CancelTasks([one], True, False))
    bench.say(worker, CancelTasks([three], False, True, 4), Ask(5, "nodes", 3, ""))
    bench.hear(Results([value(two)]))
    restart(bench)
    assert bench.sent(Cancel) == [Cancel([one], True, True), Cancel([three], False, True, 1)]
    assert bench.sent(Query) == [Query(2, "nodes", 3, "")]
    bench.hear(Answer(2, []))
    assert bench.answers(worker)[0].request == 5
    restart(bench, 3)
    assert not bench.sent(Query)

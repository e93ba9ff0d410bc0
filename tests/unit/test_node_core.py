"""The node's rules: joining, what comes in, what is held, what is dropped."""

import pytest
from drumbeat.node import events
from drumbeat.node.packets import (
    Finished,
    FinishedRow,
    Refs,
    Run,
)
from drumbeat.protocol.ids import IdFactory
from drumbeat.protocol.messages import (
    Assign,
    Beat,
    Discard,
    Done,
    Forget,
    Join,
    NodeKindRow,
    Options,
    Outcome,
    Output,
    Prepare,
    Release,
    Stop,
    StopMode,
    ValueRow,
)
from drumbeat.protocol.recovery import HandedOver
from drumbeat.protocol.running import RunningRow
from support.node_bench import CLIENT, OTHER, NodeBench, at_rest, value, waiting

LARGE = b"x" * (64 << 10) + b"y"


@pytest.fixture
def bench():
    return NodeBench.ready_with_two()


# ------------------------------------------------------------------------------------ joining


def test_the_first_word_in_a_link_life_is_join():
    bench = NodeBench({"CPU": 3.0, "disk": 1.0}, prepare=False)
    assert bench.sent(Join) == [Join("lab", "here", 7, {"CPU": 3.0, "disk": 1.0}, settled=1)]


def test_it_beats_each_interval_while_connected(bench):
    task = bench.assign()[0]
    bench.feed(events.Measured(0.5, 1234, 0.25))
    bench.after(1.0)
    (beat,) = bench.sent(Beat)
    assert beat.cpu == 0.25
    assert (beat.lag_s, beat.workers, beat.blocked, beat.memory_bytes) == (0.5, 2, 0, 1234)
    pid = beat.running[0].pid
    assert pid > 0
    assert beat.running == [RunningRow(task, 1, pytest.approx(1.0), pid=pid)]
    bench.after(1.0)
    assert bench.sent(Beat)[0].lag_s == 0.0
    bench.feed(events.Disconnected())
    bench.after(5.0)
    assert not bench.sent(Beat)


def test_a_connection_that_resumes_changes_nothing(bench):
    bench.assign()
    bench.feed(events.Disconnected(), events.Connected(1, True))
    assert not bench.sent(Join)
    assert not bench.of(events.Signal)
    assert bench.finish(2) or bench.finish(1)


def test_a_new_life_of_the_link_drops_everything_and_kills_all_workers(bench):
    bench.assign(3)
    bench.feed(events.Disconnected(), events.Connected(1, False))
    assert {(s.worker, s.name) for s in bench.of(events.Signal)} == {(1, "KILL"), (2, "KILL")}
    assert bench.sent(Join)
    assert bench.core.at_rest()["attempts"] == 0
    assert bench.core.counters["restarts"] == 1
    bench.die(1, 1)
    bench.die(2, 1)
    assert not bench.done()
    assert at_rest(bench) == {}


def test_killed_workers_hold_their_cpus_until_they_are_gone(bench):
    bench.assign(2)
    bench.feed(events.Connected(1, False))
    bench.prepare(1)
    bench.ready()
    bench.assign(1)
    assert not bench.ran()
    bench.die(1, 1)
    assert len(bench.ran()) == 1


def test_what_was_to_be_said_in_the_old_life_is_not_said_in_the_new_one(bench):
    bench.assign()
    worker = next(iter(bench.rows))
    finished = events.WorkerSpoke(worker, bench.finished(worker))
    bench.feed(finished, events.Connected(1, False))
    assert not bench.done()


# ------------------------------------------------------------------------------ large payloads


def test_an_attempt_waits_for_its_large_arguments(bench):
    row = bench.row(args=None, size=5)
    bench.hear(Assign([row]))
    assert not bench.ran()
    bench.feed(events.BlobReceived(row.id + b"a", b"large"))
    ((worker, _),) = bench.ran().items()
    assert bench.told(worker, Run)[0].rows[0].args == b"large"


def test_a_payload_that_comes_before_its_row_is_kept_for_it(bench):
    row = bench.row(args=None, size=5)
    bench.feed(events.BlobReceived(row.id + b"a", b"large"))
    bench.hear(Assign([row]))
    assert bench.ran()
    bench.finish(next(iter(bench.ran())))
    assert at_rest(bench) == {}


def test_an_attempt_waits_for_its_large_values(bench):
    names = IdFactory(OTHER)
    first, second = names(), names()
    values = (ValueRow(first, Outcome.VALUE, None, 3), ValueRow(second, Outcome.VALUE, b"small"))
    bench.hear(Assign([bench.row(values=values)]))
    assert not bench.ran()
    bench.feed(events.BlobReceived(first, b"big"))
    ((worker, _),) = bench.ran().items()
    run = bench.told(worker, Run)[0].rows[0]
    assert [row.payload for row in run.values] == [b"big", b"small"]


def test_attempts_wait_for_a_large_function(bench):
    kind = NodeKindRow(2, CLIENT, b"g" * 16, "g", Options(), None, 7)
    bench.hear(Prepare([], [kind]))
    bench.assign(1, 2)
    assert not bench.ran()
    bench.feed(events.BlobReceived(b"g" * 16, b"letters"))
    ((worker, _),) = bench.ran().items()
    assert bench.told(worker, Run)[0].definitions[0].payload == b"letters"


def test_code_that_never_comes_for_one_client_does_not_keep_it_from_another(bench):
    for number, client in ((2, CLIENT), (3, OTHER)):
        kind = NodeKindRow(number, client, b"g" * 16, "g", Options(), None, 7)
        bench.hear(Prepare([], [kind]))
    bench.hear(Discard([], [CLIENT]))
    bench.assign(1, 3, client=OTHER)
    bench.ready()
    assert not bench.ran()
    bench.feed(events.BlobReceived(b"g" * 16, b"letters"))
    bench.ready()
    assert bench.core._intake.kinds[3].function.payload == b"letters"
    bench.feed(events.BlobReceived(b"g" * 16, b""))
    assert bench.core.at_rest()["blobs"] == 0
    assert bench.core._intake.kinds[3].function.payload == b"letters"


def test_a_function_is_sent_once_for_all_its_kinds(bench):
    kind = NodeKindRow(2, CLIENT, b"\1" * 16, "again", Options(max_retries=0))
    bench.hear(Prepare([], [kind]))
    bench.assign(1, 2)
    ((worker, _),) = bench.ran().items()
    assert bench.told(worker, Run)[0].definitions[0].payload == b"code"


def test_the_payload_of_an_attempt_that_is_gone_is_dropped_when_it_comes(bench):
    row = bench.row(args=None, size=5)
    bench.hear(Assign([row]), Stop([(row.id, 1, StopMode.SOFT)]))
    assert bench.done()[0].values[0].failure.error == "TaskCancelled"
    bench.feed(events.BlobReceived(row.id + b"a", b"large"))
    assert at_rest(bench) == {}
    again = bench.row(id=row.id, attempt=2, args=None, size=5)
    bench.hear(Assign([again]))
    assert not bench.ran(), "the payload of the first attempt was its own"


def test_a_large_value_goes_by_the_bulk_link(bench):
    (task,) = bench.assign()
    worker = next(iter(bench.ran()))
    bench.say(worker, Finished([FinishedRow(1, (value(task, LARGE),), 0.1)]))
    (row,) = bench.done()
    assert (row.values[0].payload, row.values[0].size) == (None, len(LARGE))
    assert bench.of(events.SendBlob) == [events.SendBlob(task, LARGE, task + bytes(7) + b"\1")]


# --------------------------------------------------------------------------- refs in tasks' hands


def test_refs_in_arguments_and_values_are_held_until_the_attempt_ends(bench):
    names = IdFactory(OTHER)
    inside, deep, dep = names(), names(), names()
    row = bench.row(contained=(inside,), values=(value(dep, contained=[deep]),))
    bench.hear(Assign([row]))
    assert not bench.sent(Release)
    bench.finish(next(iter(bench.ran())))
    assert sorted(bench.sent(Release)[0].rows) == sorted([(inside, 1), (deep, 1)])
    assert at_rest(bench) == {}


def test_refs_that_the_worker_keeps_are_not_released(bench):
    inside = IdFactory(OTHER)()
    bench.hear(Assign([bench.row(contained=(inside,))]))
    worker = next(iter(bench.ran()))
    bench.finish(worker, held=[inside])
    assert not bench.sent(Release)
    bench.say(worker, Refs([], [inside]))
    assert bench.sent(Release) == [Release([(inside, 1)])]


def test_refs_in_a_result_are_held_until_it_is_handed_over(bench):
    inside = IdFactory(OTHER)()
    bench.assign(contained=(inside,))
    bench.finish(next(iter(bench.ran())), contained=[inside])
    (done,) = bench.sent(Done)
    assert not bench.sent(Release)
    bench.hear(HandedOver([done.number + 1]))
    assert not bench.sent(Release), "another's number"
    bench.hear(HandedOver([done.number]))
    assert bench.sent(Release) == [Release([(inside, 1)])]
    assert at_rest(bench) == {}


def test_a_dead_workers_refs_are_released(bench):
    inside = IdFactory(OTHER)()
    bench.hear(Assign([bench.row(contained=(inside,))]))
    worker = next(iter(bench.ran()))
    bench.finish(worker, held=[inside])
    bench.die(worker, 1)
    assert bench.sent(Release) == [Release([(inside, 1)])]


# ----------------------------------------------------------------------------------- discarding


def test_what_a_leaving_client_had_here_is_dropped_in_silence(bench):
    bench.prepare(2, OTHER)
    bench.assign(3)
    bench.assign(1, 2, client=OTHER)
    bench.hear(Discard([], [CLIENT]))
    assert {signal.worker for signal in bench.of(events.Signal)} == {1, 2}
    assert not bench.done()
    bench.say(1, Finished([]))
    bench.die(1, 1)
    bench.die(2, 1)
    assert not bench.done()
    bench.ready()
    assert len(bench.ran()) == 1, "the other client's"


def test_nested_calls_of_a_leaving_client_are_dropped(bench):
    waiting(bench)
    bench.hear(Discard([], [CLIENT]))
    assert bench.sent(Forget) == [Forget([1])]
    for worker in (1, 2):
        bench.die(worker, 1)
    assert at_rest(bench) == {}


def test_a_discarded_kind_is_forgotten_with_its_function(bench):
    bench.hear(Discard([1], []))
    bench.assign(1, 1)
    assert not bench.ran()
    assert bench.core.counters["stale_dropped"] == 1
    bench.prepare(1)
    bench.assign(1, 1)
    assert bench.ran()


def test_a_client_may_come_back(bench):
    bench.hear(Discard([], [CLIENT]))
    bench.die(1, 0)
    bench.die(2, 0)
    bench.prepare(1)
    assert len(bench.started()) == 2
    bench.ready()
    bench.assign(1)
    assert bench.ran()


def test_an_attempt_that_is_here_already_is_not_taken_twice(bench):
    row = bench.row()
    bench.hear(Assign([row]))
    bench.hear(Assign([row]))
    assert not bench.ran()
    assert bench.core.counters["stale_dropped"] == 1


# --------------------------------------------------------------------------------------- output


def test_output_is_forwarded_with_the_name_of_what_runs(bench):
    bench.assign()
    worker = next(iter(bench.ran()))
    bench.feed(events.Spoke([(worker, b"hello\n", 3)]))
    (output,) = bench.sent(Output)
    (row,) = output.rows
    assert output.client == CLIENT
    assert (row.name, row.pid, row.node) == ("kind1", 1000 + worker, "lab")
    assert (row.text, row.dropped) == (b"hello\n", 3)
    bench.finish(worker)
    bench.feed(events.Spoke([(worker, b"late\n", 0)]))
    assert bench.sent(Output)[0].rows[0].name == "kind1"


def test_what_every_client_should_read_is_told_once_to_each_with_its_first_kind():
    bench = NodeBench(prepare=False)
    bench.feed(events.Noticed("numpi could not be preloaded"))
    assert not bench.sent(Output)
    bench.prepare(1)
    (output,) = bench.sent(Output)
    assert output.client == CLIENT
    (row,) = output.rows
    assert (row.name, row.node, row.text) == ("preload", "lab", b"numpi could not be preloaded\n")
    bench.feed(events.Noticed("numpi could not be preloaded"))
    bench.prepare(2)
    assert not bench.sent(Output)
    bench.prepare(3, OTHER)
    assert [output.client for output in bench.sent(Output)] == [OTHER]


def test_what_is_noticed_of_workers_bears_their_label_also_for_those_who_come_later():
    bench = NodeBench(prepare=False)
    bench.feed(events.Noticed("a worker has not ended", "workers"))
    bench.prepare(1)
    assert [row.name for output in bench.sent(Output) for row in output.rows] == ["workers"]


def test_what_is_noticed_later_is_told_to_those_who_are_there(bench):
    bench.feed(events.Noticed("late"))
    assert [output.client for output in bench.sent(Output)] == [CLIENT]
    bench.feed(events.Connected(1, False))
    bench.prepare(1)
    assert bench.sent(Output), "whoever comes with a new life of the link reads it again"


def test_a_message_that_is_not_for_a_node_is_ignored(bench):
    bench.hear(Beat(0.0, 0, 0, []))
    assert bench.core.story

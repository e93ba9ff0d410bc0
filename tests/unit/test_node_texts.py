"""Output for a scheduler that does not read, or is away: dropped and counted, never kept."""

from drumbeat.node import events
from drumbeat.protocol.messages import Done, Output
from support.node_bench import NodeBench


def test_output_for_a_scheduler_that_lags_is_dropped_and_counted_in_the_next_row() -> None:
    bench = NodeBench(settings={"output_backlog_bytes_max": 1000})
    bench.ready()
    bench.assign()
    bench.feed(events.SchedulerLags(1001))
    for _ in range(5):
        bench.feed(events.Spoke([(1, b"x" * 100, 3)]))
        assert not bench.sent(Output)
    bench.feed(events.SchedulerLags(0), events.Spoke([(1, b"y", 1), (1, b"z", 0)]))
    assert [row.dropped for row in bench.sent(Output)[0].rows] == [516, 0]


def test_in_a_new_life_nothing_is_owed() -> None:
    bench = NodeBench(settings={"output_backlog_bytes_max": 1000})
    bench.ready()
    bench.assign()
    bench.feed(events.SchedulerLags(1001), events.Spoke([(1, b"x" * 100, 0)]))
    bench.feed(events.Connected(1, False))
    bench.prepare(1)
    bench.ready()
    bench.assign()
    worker = next(iter(bench.ran()))
    bench.feed(events.Spoke([(worker, b"y", 0)]))
    assert [row.dropped for row in bench.sent(Output)[0].rows] == [0]


def test_what_was_printed_is_sent_before_the_result_and_names_its_stream() -> None:
    bench = NodeBench()
    bench.ready()
    bench.assign()
    worker = next(iter(bench.ran()))
    spoken = events.Spoke([(worker, b"a\n", 0)]), events.Spoke([(worker, b"b\n", 0)], 2)
    bench.feed(*spoken, events.WorkerSpoke(worker, bench.finished(worker)))
    sent = [command.message for command in bench.of(events.Send)]
    kinds = [type(message) for message in sent]
    assert kinds.index(Output) < kinds.index(Done)
    assert [row.stream for row in bench.sent(Output)[0].rows] == [1, 2]

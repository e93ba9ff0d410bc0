"""Who runs what: packets, resources, the order of the line."""

import pytest
from drumbeat.node import events
from drumbeat.node.packets import (
    Run,
)
from drumbeat.protocol.messages import (
    Assign,
)
from support.node_bench import NodeBench, at_rest, value


@pytest.fixture
def bench():
    return NodeBench.ready_with_two()


# --------------------------------------------------------------------------------- the hot path


def test_a_task_goes_to_a_worker_and_its_value_to_the_scheduler(bench):
    row = bench.row(depth=3)
    bench.hear(Assign([row]))
    ((worker, tasks),) = bench.ran().items()
    assert tasks == [row.id]
    (run,) = bench.told(worker, Run)
    (definition,) = run.definitions
    assert (definition.number, definition.name, definition.payload) == (1, "kind1", b"code")
    sent = run.rows[0]
    assert (sent.seq, sent.attempt, sent.kind, sent.depth, sent.args) == (1, 1, 1, 3, b"args")
    assert sent.gpus is None
    bench.finish(worker)
    (done,) = bench.done()
    assert (done.id, done.attempt, done.values) == (row.id, 1, (value(row.id),))
    assert (done.duration_s, done.retry, done.died) == (0.001, False, False)
    assert at_rest(bench) == {}


def test_a_worker_learns_a_kind_once(bench):
    for _ in range(2):
        bench.assign(2)
        (first, second) = [bench.told(n, Run)[0].definitions for n in (1, 2)]
        bench.finish(1)
        bench.finish(2)
    assert first == second == []


def test_all_that_ended_in_a_turn_is_told_in_one_message(bench):
    bench.assign(2)
    finished = [events.WorkerSpoke(n, bench.finished(n)) for n in (1, 2)]
    bench.feed(*finished)
    assert len(bench.sent(type(bench.sent(object)[0]))) == 1
    assert len(bench.done()) == 2


def test_the_queue_is_spread_over_idle_workers(bench):
    bench.assign(10, expected_s=1e-6)
    assert {worker: len(tasks) for worker, tasks in bench.ran().items()} == {1: 5, 2: 5}


def test_unknown_tasks_go_one_at_a_time(bench):
    bench.assign(10)
    assert {worker: len(tasks) for worker, tasks in bench.ran().items()} == {1: 1, 2: 1}
    bench.finish(1)
    assert {worker: len(tasks) for worker, tasks in bench.ran().items()} == {1: 1}


def test_long_tasks_go_one_at_a_time(bench):
    bench.assign(10, expected_s=0.05)
    assert {worker: len(tasks) for worker, tasks in bench.ran().items()} == {1: 1, 2: 1}


def test_a_task_of_a_few_milliseconds_has_the_next_one_behind_it(bench):
    tasks = bench.assign(10, expected_s=0.02)
    assert bench.ran() == {2: [tasks[0], tasks[2]], 1: [tasks[1], tasks[3]]}
    bench.finish(1, 1)
    assert bench.ran() == {1: [tasks[4]]}


def test_the_last_of_them_is_left_to_whoever_is_free_first(bench):
    tasks = bench.assign(4, expected_s=0.02)
    assert {worker: len(those) for worker, those in bench.ran().items()} == {2: 2, 1: 1}
    bench.finish(1)
    assert bench.ran() == {1: [tasks[3]]}


def test_of_a_single_worker_s_no_task_waits_for_another_worker():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    tasks = bench.assign(2, expected_s=0.02)
    assert bench.ran() == {1: tasks}


@pytest.mark.parametrize("expected_s", [0.05, 0.02])
def test_a_short_task_is_not_put_behind_a_longer_one(bench, expected_s):
    bench.assign(2, expected_s=expected_s)
    assert len(bench.ran()) == 2
    (short,) = bench.assign(1, expected_s=0.0005)
    assert not bench.ran()
    bench.finish(1)
    assert bench.ran() == {1: [short]}


def test_the_next_one_goes_to_whoever_has_least_left(bench):
    bench.assign(1, expected_s=0.04)
    assert list(bench.ran()) == [2]
    bench.assign(1, expected_s=0.01)
    assert list(bench.ran()) == [1]
    bench.assign(2, expected_s=0.02)
    assert list(bench.ran()) == [1]


def test_a_packet_holds_no_more_than_its_time(bench):
    bench.assign(100, expected_s=0.00025)
    packets = [len(run.rows) for worker in (1, 2) for run in bench.told(worker, Run)]
    assert packets == [4, 4, 4, 4], "two packets each: one to work on, one to hide the way"


def test_a_packet_holds_no_more_than_so_many_tasks(bench):
    bench.assign(2000, expected_s=1e-7)
    packets = [len(run.rows) for worker in (1, 2) for run in bench.told(worker, Run)]
    assert packets == [128] * 4


def test_a_worker_has_its_next_packet_before_it_runs_dry(bench):
    bench.assign(2000, expected_s=1e-7)
    bench.finish(1, *range(1, 128))
    assert not bench.ran(), "the first packet is not over"
    bench.finish(1, 128)
    assert {worker: len(tasks) for worker, tasks in bench.ran().items()} == {1: 128}


def test_fractions_of_a_cpu_run_side_by_side():
    bench = NodeBench({"CPU": 1.0}, prepare=False)
    bench.prepare(1, num_cpus=0.25)
    bench.assign(6)
    bench.ready()
    assert len(bench.ran()) == 4


def test_never_more_runs_than_fits(bench):
    bench.prepare(2, num_cpus=2.0)
    bench.assign(1)
    bench.assign(1, 2)
    assert not bench.started()
    bench.finish(next(iter(bench.rows)))
    assert len(bench.started()) == 1
    bench.ready()
    assert bench.ran()


def test_what_needs_no_cpu_runs_on_a_full_node(bench):
    bench.assign(2)
    bench.prepare(2, num_cpus=0.0)
    bench.assign(1, 2)
    bench.ready()
    assert 3 in bench.ran()


def test_custom_resources_are_held_while_a_task_runs():
    bench = NodeBench({"CPU": 4.0, "disk": 1.0}, prepare=False)
    bench.prepare(1, num_cpus=0.5, resources=(("disk", 1.0),))
    bench.assign(2)
    assert bench.started() == [1]
    bench.ready()
    assert len(bench.ran()) == 1
    bench.finish(1)
    assert len(bench.ran()) == 1


def test_what_never_fits_fails_at_once(bench):
    bench.prepare(2, num_cpus=16.0)
    bench.assign(1, 2)
    assert bench.done()[0].values[0].failure.error == "Infeasible"
    assert at_rest(bench) == {}


def test_gpus_are_allotted_by_index():
    bench = NodeBench({"CPU": 8.0, "GPU": 2.0}, prepare=False)
    bench.prepare(1, num_gpus=1.0)
    bench.assign(3)
    bench.ready()
    shown = [bench.told(worker, Run)[0].rows[0].gpus for worker in bench.ran()]
    assert sorted(shown) == [(0,), (1,)]
    bench.finish(1)
    assert bench.told(1, Run)[0].rows[0].gpus in [(0,), (1,)]


def test_halves_share_a_gpu():
    bench = NodeBench({"CPU": 8.0, "GPU": 1.0}, prepare=False)
    bench.prepare(1, num_gpus=0.5)
    bench.assign(3)
    bench.ready()
    shown = [bench.told(worker, Run)[0].rows[0].gpus for worker in bench.ran()]
    assert shown == [(0,), (0,)]


def test_a_kind_without_gpus_shows_none_to_the_same_worker():
    bench = NodeBench({"CPU": 1.0, "GPU": 1.0}, prepare=False)
    bench.prepare(1, num_gpus=1.0)
    bench.prepare(2)
    bench.ready()
    bench.assign(1, 1)
    assert bench.told(1, Run)[0].rows[0].gpus == (0,)
    bench.finish(1)
    bench.assign(1, 2)
    assert bench.told(1, Run)[0].rows[0].gpus is None


# --------------------------------------------------------------------------------- queue order


def test_an_urgent_task_overtakes(bench):
    bench.prepare(2, priority=1)
    bench.assign(4)
    (urgent,) = bench.assign(1, 2)
    bench.finish(1)
    assert bench.ran() == {1: [urgent]}


def test_deeper_tasks_go_first(bench):
    bench.assign(3)
    (deep,) = bench.assign(1, depth=1)
    bench.finish(2)
    assert bench.ran() == {2: [deep]}


def test_an_earlier_task_of_another_key_is_not_starved_by_refills():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    bench.assign(400, expected_s=1e-6)
    bench.prepare(2, pool="other")
    rows = [bench.row(2, expected_s=1e-6, order=150), bench.row(2, expected_s=1e-6, order=151)]
    bench.hear(Assign(rows))
    bench.finish(1, *list(bench.rows[1])[:128])
    assert not bench.ran(), "its turn has come, so worker 1 runs dry"
    bench.finish(1)
    assert bench.started() == [2]
    assert not bench.ran(), "the CPU is kept for the one that starts"
    bench.ready(2)
    assert bench.ran() == {2: [row.id for row in rows]}
    bench.finish(2)
    assert 1 in bench.ran()


def test_a_large_task_gets_its_turn_among_small_ones(bench):
    bench.prepare(2, num_cpus=2.0)
    bench.assign(2)
    (large,) = bench.assign(1, 2)
    bench.assign(5)
    bench.finish(1)
    assert not bench.ran(), "what is free is kept for the large one"
    bench.finish(2)
    bench.ready()
    assert bench.ran() == {3: [large]}


def test_a_task_that_waits_for_a_gpu_does_not_hold_up_those_that_need_none():
    bench = NodeBench({"CPU": 4.0, "GPU": 1.0}, prepare=False)
    bench.prepare(1, num_gpus=1.0)
    bench.prepare(2)
    bench.assign(2, 1)
    bench.assign(2, 2)
    bench.ready()
    assert sum(len(tasks) for tasks in bench.ran().values()) == 3

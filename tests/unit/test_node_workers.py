"""The lives of workers: how they start, how they end, and what becomes of their rows."""

import pytest
from drumbeat.node import events
from drumbeat.node.packets import (
    Exit,
    Ready,
    Run,
)
from drumbeat.protocol.messages import (
    Environment,
    EnvironmentRow,
    NodeKindRow,
    Options,
    Output,
    Prepare,
    TakenBack,
)
from support.node_bench import CLIENT, OTHER, NodeBench, at_rest


@pytest.fixture
def bench():
    return NodeBench.ready_with_two()


# ------------------------------------------------------------------------------------ starting


def test_workers_start_early_for_a_clients_first_default_kind():
    bench = NodeBench({"CPU": 2.0}, prepare=False)
    bench.prepare(1)
    assert bench.started() == [1, 2]
    start = bench.of(events.StartWorker)[0]
    assert (start.client, start.num_cpus, start.same_machine) == (CLIENT, 1.0, True)
    bench.prepare(2)
    assert bench.started() == []


def test_workers_of_other_kinds_start_when_they_are_needed():
    bench = NodeBench({"CPU": 2.0}, prepare=False)
    bench.prepare(1, num_cpus=2.0)
    assert bench.started() == []
    bench.assign()
    assert bench.started() == [1]
    bench.assign()
    assert bench.started() == [], "a second would not fit"


def test_no_more_start_than_there_is_work_for():
    bench = NodeBench({"CPU": 8.0}, prepare=False)
    bench.prepare(1, num_cpus=0.5)
    bench.assign(3)
    assert bench.started() == [1, 2, 3]


@pytest.mark.parametrize("machine", ["another", ""])
def test_a_worker_on_another_machine_of_the_same_name_does_not_get_the_clients_paths(machine):
    bench = NodeBench(prepare=False)
    environment = Environment(host="here", sys_path=("/code",), machine=machine)
    kind = NodeKindRow(1, CLIENT, b"f" * 16, "f", Options(), b"code")
    bench.hear(Prepare([EnvironmentRow(CLIENT, environment)], [kind]))
    assert not bench.of(events.StartWorker)[0].same_machine


def test_each_worker_serves_one_key():
    bench = NodeBench({"CPU": 9.0}, prepare=False)
    keys = [{}, {"env_vars": (("A", "1"),)}, {"working_dir": "/tmp"}, {"pool": "p"}]
    for number, given in enumerate(keys, 1):
        bench.prepare(number, num_cpus=0.5, **given)
        bench.assign(1, number)
        assert len(bench.started()) == 1, given
    bench.prepare(9, OTHER, num_cpus=0.5)
    bench.assign(1, 9, client=OTHER)
    assert len(bench.started()) == 1
    bench.ready()
    assert sorted(bench.ran()) == [1, 2, 3, 4, 5]


def test_kinds_of_one_key_share_workers(bench):
    bench.prepare(2, priority=1, max_retries=0)
    bench.assign(1, 2)
    assert not bench.started()
    assert len(bench.ran()) == 1


def test_a_worker_that_does_not_start_is_tried_again_after_a_pause():
    bench = NodeBench({"CPU": 1.0}, prepare=False)
    bench.prepare(1, num_cpus=0.7)
    bench.assign()
    bench.feed(events.WorkerFailed(1, "no descriptors"))
    assert not bench.started()
    bench.after(0.1)
    assert bench.started() == [2]
    bench.ready(2)
    assert bench.ran()


def fail_to_start(bench: NodeBench, seconds: float) -> list[bytes]:
    """Let every fork fail for a while; return what the client was told."""
    told = []
    end_s = bench.now_s + seconds
    while bench.now_s < end_s:
        starting = list(bench.core._processes.starting)
        bench.feed(*(events.WorkerFailed(number, "fork: no memory") for number in starting))
        told += [row.text for message in bench.sent(Output) for row in message.rows]
        assert not bench.done()
        if not bench.sent(TakenBack):
            bench.after(max(0.0, (bench.core._dispatch.deadline_s() or end_s) - bench.now_s))
    return told


def test_workers_that_cannot_be_made_cost_no_attempt_and_the_client_is_told_once():
    bench = NodeBench({"CPU": 4.0}, {"start_timeout_s": 60.0})
    tasks = bench.assign(8)
    (told,) = fail_to_start(bench, 50.0)
    assert b"no memory" in told
    assert bench.core.counters["workers_failed"] < 100, "it is tried less and less often"
    bench.after(5.0)
    bench.ready()
    assert {task for ran in bench.ran().values() for task in ran} <= set(tasks)
    while bench.core.at_rest()["attempts"]:
        for worker in [worker for worker, rows in bench.rows.items() if rows]:
            bench.finish(worker)
    assert at_rest(bench) == {}


def test_starts_that_fail_together_are_one_failure():
    bench = NodeBench({"CPU": 4.0})
    starting = bench.core._processes.starting
    assert len(starting) == 4
    bench.assign(4)
    bench.feed(*(events.WorkerFailed(number, "no descriptors") for number in list(starting)))
    bench.after(0.1)
    assert len(starting) == 4


def test_attempts_are_given_back_when_no_worker_can_be_made_for_too_long():
    bench = NodeBench({"CPU": 1.0}, {"start_timeout_s": 10.0})
    tasks = bench.assign(3)
    given_back = []
    while not given_back:
        (worker,) = bench.core._processes.starting
        bench.feed(events.WorkerFailed(worker, "fork: no memory"))
        given_back = bench.sent(TakenBack)
        assert not bench.done()
        if not given_back:
            bench.after(5.0)
    assert given_back == [TakenBack([(task, 1) for task in tasks])]
    assert 110.0 <= bench.now_s <= 116.0
    assert at_rest(bench) == {}
    bench.assign()
    assert not bench.started(), "the pause goes on"
    bench.after(5.0)
    assert bench.started()


def test_attempts_fail_when_their_workers_end_before_they_are_ready_again_and_again():
    bench = NodeBench({"CPU": 1.0}, prepare=False)
    bench.prepare(1, num_cpus=0.7)
    task = bench.assign()[0]
    for _ in range(6):
        (worker,) = bench.core._processes.starting
        bench.feed(events.WorkerExited(worker, -11, "SIGSEGV", "boom"))
        done = bench.done()
        bench.after(5.0)
    (row,) = done
    assert row.id == task
    failure = row.values[0].failure
    assert failure.error == "WorkerDied"
    assert "SIGSEGV" in failure.text
    assert not row.died
    assert at_rest(bench) == {}


def test_a_worker_that_cannot_be_set_up_fails_what_waits_for_it_at_once():
    bench = NodeBench({"CPU": 1.0}, prepare=False)
    bench.prepare(1, num_cpus=0.7, working_dir="/nowhere")
    bench.assign()
    bench.say(1, Ready(99, "working_dir /nowhere: no such directory"))
    failure = bench.done()[0].values[0].failure
    assert failure.error == "WorkingDirMissing"
    assert "lab" in failure.text
    assert "/nowhere" in failure.text
    assert (failure.details["node"], failure.details["directory"]) == ("lab", "/nowhere")
    bench.feed(events.WorkerExited(1, 1, "", ""))
    assert not bench.started()


def test_a_worker_that_is_not_ready_in_time_is_killed():
    bench = NodeBench({"CPU": 1.0}, {"start_timeout_s": 5.0})
    bench.after(5.0)
    assert bench.of(events.Signal) == [events.Signal(1, "KILL")]


def test_page_slots_are_used_again_and_numbers_never():
    bench = NodeBench({"CPU": 1.0}, prepare=False)
    bench.prepare(1, num_cpus=0.7)
    bench.assign()
    bench.ready()
    bench.die(1, 1)
    (start,) = bench.of(events.StartWorker) or [None]
    if start is None:
        bench.assign()
        (start,) = bench.of(events.StartWorker)
    assert (start.worker, start.page_slot) == (2, 1)


def test_an_idle_worker_ends_after_a_while(bench):
    bench.after(301.0)
    assert bench.told(1, Exit)
    assert bench.told(2, Exit)
    bench.feed(events.WorkerExited(1, 0, "", ""))
    bench.feed(events.WorkerExited(2, 0, "", ""))
    bench.assign()
    assert bench.started() == [3]


def test_a_worker_that_was_told_to_exit_and_does_not_is_killed():
    bench = NodeBench(settings={"worker_idle_s": 10.0, "term_grace_s": 2.0})
    bench.ready()
    bench.after(10.0)
    bench.after(2.0)
    assert len(bench.of(events.Signal)) == 2


def test_an_idle_worker_makes_room_for_another_key():
    bench = NodeBench({"CPU": 2.0}, {"workers_max": 2})
    bench.ready()
    bench.prepare(2, pool="other")
    bench.assign(1, 2)
    assert not bench.started()
    assert bench.told(1, Exit)
    assert not bench.told(2, Exit), "one was enough"
    bench.feed(events.WorkerExited(1, 0, "", ""))
    assert bench.started() == [3]
    bench.ready()
    assert 3 in bench.ran()


# ------------------------------------------------------------------------------ workers that end


def test_the_running_row_of_a_dead_worker_is_charged_and_the_rest_runs_elsewhere():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    tasks = bench.assign(4, expected_s=1e-6)
    bench.die(1, started=2)
    first, second = bench.done()
    assert [first.id, second.id] == tasks[:2], "the first one's result went with the worker"
    assert [first.died, second.died] == [True, True]
    assert [first.bystander, second.bystander] == [True, False], "it took no worker along"
    failure = second.values[0].failure
    assert failure.error == "WorkerDied"
    assert "(pid 1001, node lab, attempt 1 of 4) was ended by SIGKILL" in failure.text
    assert failure.details["signal_name"] == "SIGKILL"
    assert failure.details["exit_code"] is None
    assert failure.details["stderr_tail"] == "last words"
    assert failure.details["pid"] == 1001
    assert bench.started() == [2]
    bench.ready()
    assert bench.ran() == {2: tasks[2:]}
    assert bench.rows[2][1].attempt == 1, "uncharged"


def test_rows_reported_before_the_death_are_done():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    tasks = bench.assign(4, expected_s=1e-6)
    bench.finish(1, 1)
    assert [row.id for row in bench.done()] == tasks[:1]
    bench.die(1, started=2)
    assert [row.id for row in bench.done()] == tasks[1:2]


def test_an_exit_code_is_told(bench):
    bench.assign()
    bench.die(next(iter(bench.ran())), 1, status=3, name="")
    failure = bench.done()[0].values[0].failure
    assert failure.details["exit_code"] == 3
    assert "exit code 3" in failure.text


def test_a_death_for_want_of_memory_is_an_error_of_its_own(bench):
    bench.assign()
    worker = next(iter(bench.ran()))
    bench.feed(
        events.PageRead([(worker, 1, True)]),
        events.WorkerExited(worker, -9, "SIGKILL", "last words", out_of_memory=True),
    )
    (row,) = bench.done()
    failure = row.values[0].failure
    assert (failure.error, row.died) == ("WorkerOutOfMemory", True)
    assert failure.details["signal_name"] == "SIGKILL"
    assert "run out of memory" in failure.text
    assert "last words" in failure.text


def test_without_a_look_at_the_page_all_rows_are_charged(bench):
    bench.assign(4, expected_s=1e-6)
    bench.feed(events.WorkerExited(1, 1, "", ""))
    assert [row.died for row in bench.done()] == [True, True]


def test_an_idle_worker_may_die_in_peace(bench):
    bench.die(1, 0)
    assert not bench.done()
    bench.assign(2)
    assert bench.started() == [3]


def test_max_calls_ends_the_worker_after_the_last_call():
    bench = NodeBench({"CPU": 1.0})
    bench.prepare(2, max_calls=2)
    bench.ready()
    tasks = bench.assign(5, 2, expected_s=1e-6)
    packets = [c.packet for c in bench.of(events.SendWorker)]
    assert [type(packet) for packet in packets] == [Run, Exit]
    assert [row.id for row in packets[0].rows] == tasks[:2]
    bench.finish(1)
    assert not bench.ran()
    assert bench.started() == [2]
    bench.die(1, 2, status=0, name="")
    assert not bench.done()
    bench.ready()
    assert bench.ran() == {2: tasks[2:4]}

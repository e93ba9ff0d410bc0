"""How long a node's actors may act while the scheduler is not heard."""

import pytest
from drumbeat.node import events
from drumbeat.node.lease import Lease
from drumbeat.protocol.actors import ActorOptions
from drumbeat.protocol.messages import Outcome
from drumbeat.protocol.settings import Settings
from support.node_acting import CREATION, Stage
from support.node_bench import NodeBench

SETTINGS = Settings(heartbeat_interval_s=1.0, lost_after_intervals=10.0)


# -------------------------------------------------------------------------------------- the lease


def test_it_counts_from_when_that_was_sent_which_was_acknowledged() -> None:
    lease = Lease(SETTINGS)
    assert lease.confirmed(100.0)
    assert lease.until_s == 110.0


def test_before_a_scheduler_was_heard_there_is_nothing_to_wait_for() -> None:
    assert Lease(SETTINGS).delivers(1e9)


def test_calls_are_delivered_for_seven_tenths_of_it() -> None:
    lease = Lease(SETTINGS)
    lease.confirmed(100.0)
    assert lease.delivers(106.99)
    assert not lease.delivers(107.01)


def test_it_is_never_shortened_and_not_told_of_for_every_acknowledgement() -> None:
    lease = Lease(SETTINGS)
    assert lease.confirmed(100.0)
    assert not lease.confirmed(99.0)
    assert not lease.confirmed(100.05)
    assert lease.until_s == 110.0
    assert lease.confirmed(100.2)


# ---------------------------------------------------------------------------------- in a node core


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    stage.feed(events.Confirmed(stage.now_s))
    return stage


def lease_s(stage: NodeBench) -> float:
    return stage.settings.lost_after_intervals * stage.settings.heartbeat_interval_s


def test_the_keeper_is_shown_each_new_end_of_the_lease(stage: Stage) -> None:
    stage.now_s += 1.0
    stage.feed(events.Confirmed(stage.now_s - 0.02))
    assert stage.of(events.LeaseUntil) == [events.LeaseUntil(stage.now_s - 0.02 + lease_s(stage))]


def test_a_worker_is_leased_before_it_is_told_what_actor_it_is() -> None:
    stage = Stage(made=False)
    stage.prepare(20, creates=ActorOptions(), num_cpus=0.0)
    stage.assign(kind=20)
    stage.ready()
    kinds = [type(c) for c in stage.commands if isinstance(c, events.Lease | events.SendWorker)]
    assert kinds == [events.Lease, events.SendWorker]


def test_an_actor_that_is_never_replaced_on_silence_is_not_leased() -> None:
    stage = Stage(made=False)
    stage.prepare(20, creates=ActorOptions(waits_on_partition=True), num_cpus=0.0)
    (actor,) = stage.assign(kind=20)
    stage.ready()
    assert actor in stage.ran()[2]
    assert not stage.of(events.Lease)


def test_a_task_is_not_leased() -> None:
    bench = NodeBench.ready_with_two()
    bench.assign()
    assert bench.ran()
    assert not bench.of(events.Lease)


def test_calls_are_held_back_late_in_the_lease_and_go_when_the_scheduler_is_heard(
    stage: Stage,
) -> None:
    stage.now_s += 0.8 * lease_s(stage)
    (call,) = stage.call()
    assert not stage.ran()
    stage.feed(events.Confirmed(stage.now_s))
    assert stage.ran() == {1: [call]}


def test_what_the_actor_has_in_its_hands_goes_on_late_in_the_lease(stage: Stage) -> None:
    (call,) = stage.call()
    stage.now_s += 0.8 * lease_s(stage)
    stage.finish(1)
    assert [row.id for row in stage.done()] == [call]


def test_no_actor_is_made_late_in_the_lease(stage: Stage) -> None:
    stage.now_s += 0.8 * lease_s(stage)
    (actor,) = stage.assign(kind=CREATION)
    assert not stage.started()
    stage.feed(events.Confirmed(stage.now_s))
    assert stage.started() == [2]
    stage.ready()
    assert stage.ran() == {2: [actor]}


def test_tasks_run_whatever_has_become_of_the_lease() -> None:
    bench = NodeBench.ready_with_two()
    bench.feed(events.Confirmed(bench.now_s))
    bench.now_s += 10 * lease_s(bench)
    bench.assign()
    assert bench.ran()


def test_an_actor_that_the_keeper_ended_says_why(stage: Stage) -> None:
    stage.call()
    started = max(stage.rows[1])
    stage.feed(
        events.PageRead([(1, started, True)]),
        events.WorkerExited(1, -9, "SIGKILL", "", overdue=True),
    )
    texts = [row.values[0].failure.text for row in stage.done()]
    assert all(row.values[0].outcome == Outcome.FAILURE for row in stage.done())
    assert all("the scheduler had not heard of its node for too long" in text for text in texts)

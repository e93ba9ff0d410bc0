"""Workers in get(): what they lend, when they go on, and when nothing can."""

import pytest
from drumbeat.node import events
from drumbeat.node.packets import (
    Returned,
    Want,
    WantOver,
)
from drumbeat.protocol.ids import IdFactory
from drumbeat.protocol.messages import (
    Assign,
    Beat,
    Blocked,
    Results,
    Stop,
    StopMode,
    TaskRow,
)
from drumbeat.protocol.resources import units
from drumbeat.protocol.standstill import Deadlock, Look, Looked, WaitRow
from support.node_bench import NODE, NodeBench, at_rest, nest, value, waiting


@pytest.fixture
def bench():
    return NodeBench.ready_with_two()


def test_a_worker_in_get_lends_its_cpu_and_says_so(bench):
    task, _worker, _child = waiting(bench)
    assert bench.sent(Blocked) == [Blocked([(task, 1, True)])]
    bench.assign(3)
    assert len(bench.started()) == 1
    bench.ready()
    assert sum(worker.shape is not None for worker in bench.core._state.workers.values()) == 3


def test_it_has_its_cpu_back_before_get_returns_ahead_of_new_work():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    task, worker, child = waiting(bench)
    others = bench.assign(3)
    bench.ready()
    assert bench.ran() == {2: others[:1]}
    bench.hear(Results([value(child, b"answer")]))
    assert not bench.answers(worker), "the CPU is in use"
    bench.finish(2)
    assert bench.sent(Blocked) == [Blocked([(task, 1, False)])]
    (answer,) = bench.answers(worker)
    assert [row.payload for row in answer.rows] == [b"answer"]
    assert not bench.ran(), "new work waits"
    bench.finish(worker)
    assert bench.ran()


def test_an_interrupted_get_goes_on_only_when_its_cpu_is_its_own_again_ahead_of_new_work():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    task, worker, _child = waiting(bench)
    others = bench.assign(3)
    bench.ready()
    assert bench.ran() == {2: others[:1]}
    bench.say(worker, WantOver(1))
    assert not bench.answers(worker), "the CPU is in use"
    bench.finish(2)
    assert bench.sent(Blocked) == [Blocked([(task, 1, False)])]
    assert [(answer.request, answer.rows) for answer in bench.answers(worker)] == [(1, [])]
    assert not bench.ran(), "new work waits"
    bench.finish(worker)
    assert bench.ran()


def test_an_interrupted_get_whose_cpu_is_free_goes_on_at_once():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    _task, worker, child = waiting(bench)
    bench.say(worker, WantOver(1))
    (answer,) = bench.answers(worker)
    assert answer.request == 1
    bench.assign()
    assert not bench.ran(), "the CPU is not lent any more"
    bench.hear(Results([value(child)]))
    assert not bench.answers(worker), "nobody waits for the value"


def test_an_interrupted_get_whose_value_was_there_waits_for_its_cpu_like_any_other():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    _task, worker, child = waiting(bench)
    bench.assign()
    bench.ready()
    bench.hear(Results([value(child)]))
    bench.say(worker, WantOver(1))
    assert not bench.answers(worker)
    bench.finish(2)
    assert [answer.rows for answer in bench.answers(worker)] == [[]], "it will not be read"


def test_a_get_that_is_answered_already_is_not_answered_again(bench):
    _task, worker, child = waiting(bench)
    bench.hear(Results([value(child)]))
    assert bench.answers(worker)
    bench.say(worker, WantOver(1))
    assert not bench.answers(worker)


def test_an_interrupted_get_that_keeps_its_own_cpu_goes_on_at_once():
    bench = NodeBench({"CPU": 2.0}, {"workers_blocked_max": 1})
    bench.ready()
    waiting(bench)
    _task, worker, _child = waiting(bench)
    bench.say(worker, WantOver(1))
    assert bench.answers(worker)
    assert bench.core.at_rest()["lenders"] == 1


def test_what_is_ready_is_answered_without_lending(bench):
    bench.assign()
    worker = next(iter(bench.ran()))
    put = IdFactory(NODE, worker)()
    nest(bench, worker, puts=[value(put, b"mine")])
    bench.want(worker, put)
    assert [row.payload for row in bench.answers(worker)[0].rows] == [b"mine"]
    assert not bench.sent(Blocked)


def test_gpus_and_custom_resources_are_never_lent():
    bench = NodeBench({"CPU": 1.0, "GPU": 1.0, "disk": 1.0}, prepare=False)
    bench.prepare(1, num_gpus=1.0, resources=(("disk", 1.0),))
    bench.assign()
    bench.ready()
    child = IdFactory(NODE, 1)()
    nest(bench, 1, TaskRow(child, 1))
    bench.want(1, child)
    free = bench.core._state.slots.free
    assert free == {"CPU": 10_000, "GPU": 0, "disk": 0}


def test_another_thread_lends_nothing(bench):
    bench.assign()
    worker = next(iter(bench.ran()))
    child = IdFactory(NODE, worker)()
    nest(bench, worker, TaskRow(child, 1))
    bench.want(worker, child, lends=False)
    assert not bench.sent(Blocked)
    bench.hear(Results([value(child)]))
    assert bench.answers(worker)


def test_rows_behind_a_worker_in_get_are_taken_back_or_returned():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    tasks = bench.assign(3, expected_s=1e-6)
    child = IdFactory(NODE, 1)()
    nest(bench, 1, TaskRow(child, 1))
    bench.say(1, Returned([2]), Want(1, 1, [child], 1, None, True))
    assert bench.of(events.TakePackets) == [events.TakePackets(1)]
    assert bench.started() == [2]
    bench.feed(events.PacketsTaken(1, [3]))
    bench.ready()
    assert bench.ran() == {2: tasks[1:]}


def test_a_get_in_vain_is_over_at_its_time(bench):
    bench.assign()
    worker = next(iter(bench.ran()))
    child = IdFactory(NODE, worker)()
    nest(bench, worker, TaskRow(child, 1))
    bench.want(worker, child, timeout_s=2.0)
    bench.after(1.9)
    assert not bench.answers(worker)
    bench.after(0.2)
    (answer,) = bench.answers(worker)
    assert answer.timed_out
    assert answer.rows == []


def test_a_look_without_patience_is_answered_in_the_same_turn(bench):
    bench.assign()
    worker = next(iter(bench.ran()))
    child = IdFactory(NODE, worker)()
    nest(bench, worker, TaskRow(child, 1))
    bench.want(worker, child, timeout_s=0.0, lends=False)
    assert bench.answers(worker)[0].timed_out


def test_at_most_so_many_lend_at_a_time():
    bench = NodeBench({"CPU": 2.0}, {"workers_blocked_max": 1})
    bench.ready()
    waiting(bench)
    waiting(bench)
    assert not bench.sent(Blocked)
    assert bench.core.at_rest()["lenders"] == 1


def test_when_one_that_lent_goes_on_the_next_one_lends():
    bench = NodeBench({"CPU": 2.0}, {"workers_blocked_max": 1})
    bench.ready()
    first, one, child = waiting(bench)
    second, _, _ = waiting(bench)
    bench.hear(Results([value(child)]))
    rows = [row for message in bench.sent(Blocked) for row in message.rows]
    assert rows == [(first, 1, False), (second, 1, True)]
    assert bench.answers(one)


def test_one_that_wants_its_cpu_back_gets_it_from_one_that_keeps_its_own():
    bench = NodeBench({"CPU": 1.0}, {"workers_blocked_max": 1})
    bench.ready()
    first, one, child = waiting(bench)
    (second,) = bench.assign()
    bench.ready()
    grandchild = IdFactory(NODE, 2)()
    nest(bench, 2, TaskRow(grandchild, 1))
    bench.want(2, grandchild)
    assert not bench.sent(Blocked)
    bench.hear(Results([value(child)]))
    rows = [row for message in bench.sent(Blocked) for row in message.rows]
    assert rows == [(second, 1, True), (first, 1, False)]
    assert bench.answers(one)


# ---------------------------------------------------------------------------------- standing still


def look(bench, number=7):
    """Let the scheduler look; return what it is told."""
    bench.hear(Look(number))
    (looked,) = bench.sent(Looked)
    assert looked.number == number
    return looked


def beats_still(bench):
    """Let the time of the next beat come; return whether it says that nothing moves."""
    bench.after(1.0)
    (beat,) = bench.sent(Beat)
    return beat.still


def stuck():
    """Return a bench whose one CPU is kept by a get that may not lend, with one behind it."""
    bench = NodeBench({"CPU": 1.0}, {"workers_blocked_max": 1})
    bench.ready()
    first, _, _ = waiting(bench)
    (second,) = bench.assign()
    bench.ready()
    child = IdFactory(NODE, 2)()
    nest(bench, 2, TaskRow(child, 1))
    bench.want(2, child)
    return bench, first, second


def test_a_node_where_all_wait_says_so_with_who_lends_and_who_does_not():
    bench, first, second = stuck()
    bench.assign()
    assert beats_still(bench)
    assert look(bench).waits == [WaitRow(first, 1, True), WaitRow(second, 1, False)]


def test_a_node_without_work_stands_still(bench):
    assert beats_still(bench)
    assert look(bench) == Looked(7, True, [])


def test_a_get_that_asks_for_no_cpu_or_holds_a_gpu_is_a_wait_like_any_other():
    bench = NodeBench({"CPU": 1.0, "GPU": 1.0}, prepare=False)
    bench.prepare(1, num_cpus=0.0, num_gpus=1.0)
    bench.assign()
    bench.ready()
    child = IdFactory(NODE, 1)()
    nest(bench, 1, TaskRow(child, 1))
    assert not look(bench).still
    bench.want(1, child)
    assert [row.lends for row in look(bench).waits] == [False]


def test_nothing_stands_still_while_anything_starts_runs_or_is_to_end():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    task, _worker, _child = waiting(bench)
    assert look(bench).still
    bench.assign()
    assert not look(bench).still, "a worker starts for it"
    bench.ready()
    assert not look(bench).still, "it runs"
    bench.finish(2)
    assert look(bench).still
    bench.hear(Stop([(task, 1, StopMode.SOFT)]))
    assert look(bench) == Looked(7, False, [])


def test_a_get_of_a_worker_that_is_to_end_after_its_call_is_a_wait_like_any_other():
    bench = NodeBench({"CPU": 1.0}, prepare=False)
    bench.prepare(1, max_calls=1)
    (task,) = bench.assign()
    bench.ready()
    child = IdFactory(NODE, 1)()
    nest(bench, 1, TaskRow(child, 1))
    bench.want(1, child)
    assert look(bench).waits == [WaitRow(task, 1, True)]


def test_a_get_with_a_timeout_ends_by_itself_so_nothing_stands_still():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    bench.assign()
    child = IdFactory(NODE, 1)()
    nest(bench, 1, TaskRow(child, 1))
    bench.want(1, child, timeout_s=60.0)
    assert not look(bench).still


def test_what_is_on_its_way_here_moves(bench):
    waiting(bench)
    bench.hear(Assign([bench.row(args=None, size=1 << 20)]))
    assert not look(bench).still


def test_the_scheduler_has_a_get_raise_that_waits_for_ever():
    bench, _first, second = stuck()
    bench.hear(Deadlock([(second, 1, "raise workers_blocked_max")]))
    (answer,) = bench.answers(2)
    assert (answer.error, answer.text) == ("ResourceDeadlock", "raise workers_blocked_max")
    assert not bench.answers(1)
    assert not look(bench).still
    assert bench.core.counters["deadlocks"] == 1


def test_one_that_wants_more_back_than_one_other_keeps_has_it_from_several():
    bench = NodeBench({"CPU": 1.0}, {"workers_blocked_max": 1}, prepare=False)
    bench.prepare(1)
    bench.prepare(2, num_cpus=0.5)
    bench.ready()
    _first, one, child = waiting(bench)
    for _ in range(2):
        bench.assign(kind=2)
        bench.ready()
        ((worker, _),) = bench.ran().items()
        grandchild = IdFactory(NODE, worker)()
        nest(bench, worker, TaskRow(grandchild, 1))
        bench.want(worker, grandchild)
    assert look(bench).still
    bench.hear(Results([value(child)]))
    assert bench.answers(one)


def test_one_that_has_lent_its_cpus_has_them_back_before_it_is_told():
    bench, first, second = stuck()
    bench.hear(Deadlock([(first, 1, "why")]))
    assert [answer.error for answer in bench.answers(1)] == ["ResourceDeadlock"]
    rows = [row for message in bench.sent(Blocked) for row in message.rows]
    assert rows == [(second, 1, True), (first, 1, False)], "from one that kept its own"


def test_who_waits_no_more_is_not_told_of_a_deadlock(bench):
    task, worker, child = waiting(bench)
    bench.hear(Results([value(child)]))
    assert bench.answers(worker)
    bench.hear(Deadlock([(task, 1, "too late"), (task, 2, "another"), (child, 1, "unknown")]))
    assert not bench.answers(worker)
    assert bench.core.counters["deadlocks"] == 0


def test_a_worker_that_dies_in_get_leaves_nothing_behind():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    _, worker, child = waiting(bench)
    bench.die(worker, 1)
    assert bench.done()[0].died
    bench.hear(Results([value(child)]))
    assert at_rest(bench) == {}


# ------------------------------------------------------------------------------ waits of threads


def quiet(bench):
    """Let a worker's task wait for a child in another thread; return (worker, child)."""
    bench.assign()
    worker = next(iter(bench.ran()))
    child = IdFactory(NODE, worker)()
    nest(bench, worker, TaskRow(child, 1))
    bench.want(worker, child, lends=False)
    return worker, child


@pytest.mark.parametrize("queued", [0, 1])
def test_a_wait_of_another_thread_is_asked_whether_it_is_stuck_and_then_told(queued):
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    worker, child = quiet(bench)
    bench.assign(queued)
    bench.after(0.5)
    assert not bench.answers(worker)
    bench.after(1.0)
    assert [(a.error, a.text) for a in bench.answers(worker)] == [("ResourceDeadlock", "")]
    bench.want(worker, child, request=2, lends=False, stuck=False)
    bench.after(1.5)
    assert [(a.request, a.text) for a in bench.answers(worker)] == [(2, "")], "it is asked anew"
    bench.want(worker, child, request=3, lends=False, stuck=True)
    bench.after(1.5)
    (answer,) = bench.answers(worker)
    assert (answer.request, answer.error) == (3, "ResourceDeadlock")
    assert "main thread" in answer.text


def test_only_when_all_are_stuck_the_youngest_is_told():
    bench = NodeBench({"CPU": 2.0})
    bench.ready()
    one, one_child = quiet(bench)
    other, other_child = quiet(bench)
    bench.after(1.5)
    bench.want(one, one_child, request=2, lends=False, stuck=True)
    bench.want(other, other_child, request=2, lends=False)
    bench.after(1.5)
    assert not any(answer.text for answer in (*bench.answers(one), *bench.answers(other)))
    bench.want(one, one_child, request=3, lends=False, stuck=True)
    bench.want(other, other_child, request=3, lends=False, stuck=True)
    bench.after(1.5)
    assert not bench.answers(one)
    assert bench.answers(other)[0].text


def test_a_wait_of_another_thread_is_left_alone_while_a_cpu_is_free_or_something_runs():
    bench = NodeBench({"CPU": 2.0})
    bench.ready()
    worker, _ = quiet(bench)
    bench.after(60.0)
    assert not bench.answers(worker)
    bench.assign()
    bench.after(60.0)
    assert not bench.answers(worker)


def test_a_get_amid_a_get_lends_nothing_more_and_is_answered():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    task, worker, child = waiting(bench)
    other = IdFactory(NODE, worker)
    other()
    inner = other()
    nest(bench, worker, TaskRow(inner, 1))
    bench.want(worker, inner, request=2)
    assert not bench.sent(Blocked)
    assert bench.core._state.slots.free["CPU"] == units(1), "lent once"
    bench.after(60.0)
    assert not bench.answers(worker), "it is no thread that waits beside its task"
    bench.hear(Results([value(inner, b"inner")]))
    assert [answer.request for answer in bench.answers(worker)] == [2]
    bench.hear(Results([value(child, b"outer")]))
    assert [answer.request for answer in bench.answers(worker)] == [1]
    assert bench.sent(Blocked) == [Blocked([(task, 1, False)])]
    bench.finish(worker)
    at_rest(bench)


def test_a_worker_that_asks_twice_under_one_number_is_ended():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    _task, worker, child = waiting(bench)
    bench.want(worker, child)
    assert [(c.worker, c.name) for c in bench.of(events.Signal)] == [(worker, "KILL")]
    assert bench.core.counters["workers_distrusted"] == 1

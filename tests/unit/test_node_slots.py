"""What fits on a node at once, whose GPU is whose, and who is next in line."""

from drumbeat.node.attempts import Attempt, Crew, Demand, Function, Kind, Shape, WorkerKey
from drumbeat.node.slots import Queue, Slots
from drumbeat.protocol.messages import AssignRow, NodeKindRow, Options
from drumbeat.protocol.resources import units
from hypothesis import given
from hypothesis import strategies as st


def demand(cpus=0.0, gpus=0.0, **others):
    return Demand.of(Options(num_cpus=cpus, num_gpus=gpus, resources=tuple(sorted(others.items()))))


def kind_of(number=1, **options):
    row = NodeKindRow(number, b"client", b"f" * 16, "f", Options(**options))
    key = WorkerKey.of(b"client", row.options)
    return Kind(1, row, Shape(Crew(key), Demand.of(row.options)), Function())


def attempt_of(kind, order, depth=0):
    row = AssignRow(order.to_bytes(14, "big"), 1, kind.number, order, depth, -1.0)
    return Attempt(row, kind, kind.rank - depth)


def test_what_is_taken_is_not_there_for_others_until_it_is_given_back():
    slots = Slots({"CPU": 2, "disk": 1})
    first = demand(1.5, disk=1)
    assert slots.take(first) == ()
    assert slots.take(demand(1.0)) is None
    assert slots.take(demand(0.5, disk=0.1)) is None
    assert slots.take(demand(0.5)) == ()
    slots.give(first, ())
    assert slots.take(demand(1.5)) == ()


def test_a_third_fits_three_times():
    slots = Slots({"CPU": 1})
    assert [slots.take(demand(1 / 3)) for _ in range(3)] == [(), (), ()]
    assert slots.take(demand(1 / 3)) is None


def test_a_tiny_amount_is_not_nothing():
    assert units(1e-9) == 1
    assert units(0) == 0


def test_what_is_no_resource_of_the_node_never_fits():
    slots = Slots({"CPU": 2})
    assert not slots.could(demand(1, disk=1))
    assert slots.take(demand(1, disk=1)) is None
    assert slots.lacking(demand(1, disk=1)) == ["disk"]


def test_a_demand_of_nothing_always_fits():
    slots = Slots({"CPU": 0})
    assert slots.take(demand()) == ()
    assert slots.count(demand(), 7) == 7


def test_whole_gpus_are_given_to_one_task_each():
    slots = Slots({"CPU": 4, "GPU": 3})
    assert slots.take(demand(1, 1)) == (0,)
    assert slots.take(demand(1, 2)) == (1, 2)
    assert slots.take(demand(1, 1)) is None


def test_fractions_of_gpus_share_one_so_that_whole_ones_stay_whole():
    slots = Slots({"CPU": 9, "GPU": 2})
    half = demand(1, 0.5)
    assert slots.take(half) == (0,)
    assert slots.take(half) == (0,)
    assert slots.take(half) == (1,)
    assert slots.take(demand(1, 1)) is None, "half of it is taken"
    slots.give(half, (1,))
    assert slots.take(demand(1, 1)) == (1,)


def test_one_and_a_half_gpus_are_a_whole_one_and_a_half():
    slots = Slots({"CPU": 9, "GPU": 2})
    taken = demand(1, 1.5)
    assert slots.take(taken) == (0, 1)
    assert slots.take(demand(1, 0.5)) == (1,)
    slots.give(taken, (0, 1))
    assert slots.gpus == [10_000, 5_000]


def test_two_halves_on_two_gpus_are_not_a_whole_one():
    slots = Slots({"CPU": 9, "GPU": 2})
    large = demand(1, 0.6)
    assert slots.take(large) == (0,)
    assert slots.take(large) == (1,)
    assert slots.count(demand(1, 0.8), 5) == 1, "by the sum it fits"
    assert slots.take(demand(1, 0.8)) is None
    assert slots.lacking(demand(1, 0.8)) == ["GPU"]


def test_cpus_that_are_lent_are_free_and_must_be_free_to_be_regained():
    slots = Slots({"CPU": 1})
    assert slots.take(demand(1)) == ()
    slots.lend(units(1))
    assert slots.take(demand(1)) == ()
    assert not slots.regain(units(1))
    slots.give(demand(1), ())
    assert slots.regain(units(1))
    assert slots.free["CPU"] == 0


def test_a_worker_that_ends_while_it_lends_gives_back_only_the_rest():
    slots = Slots({"CPU": 1, "GPU": 1})
    gpus = slots.take(demand(1, 1))
    slots.lend(units(1))
    slots.give(demand(1, 1), gpus, lent=units(1))
    assert slots.free == slots.capacity


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2)), max_size=30))
def test_however_it_is_taken_there_is_never_less_than_nothing_and_all_comes_back(wanted):
    slots = Slots({"CPU": 3, "GPU": 2})
    taken = []
    for cpus, gpus in wanted:
        asked = demand(cpus, gpus)
        given_gpus = slots.take(asked)
        if given_gpus is not None:
            taken.append((asked, given_gpus))
        assert min(slots.free.values()) >= 0
        assert min(slots.gpus) >= 0
        assert sum(slots.gpus) == slots.free["GPU"]
    for asked, given_gpus in taken:
        slots.give(asked, given_gpus)
    assert slots.free == slots.capacity
    assert slots.gpus == [10_000, 10_000]


def test_the_line_is_by_rank_and_then_first_come():
    kind, queue = kind_of(), Queue()
    for order, depth in ((1, 0), (2, 1), (3, 0), (4, 1)):
        queue.push(attempt_of(kind, order, depth))
    assert [attempt.row.order for attempt in kind.shape.queued()] == [2, 4, 1, 3]
    assert kind.shape.head() == (kind.rank - 1, 2)


def test_priority_goes_before_depth():
    low, high = kind_of(1), kind_of(2, priority=1)
    assert high.rank < low.rank - 1000


def test_what_comes_back_goes_to_its_old_place():
    kind, queue = kind_of(), Queue()
    attempts = [attempt_of(kind, order) for order in (1, 2, 3, 4, 5)]
    for index in (1, 3, 4, 0, 2):
        queue.push(attempts[index])
    assert [attempt.row.order for attempt in kind.shape.queued()] == [1, 2, 3, 4, 5]


def test_what_is_dropped_is_skipped_and_leaves_nothing_behind():
    kind, queue = kind_of(), Queue()
    attempts = [attempt_of(kind, order) for order in (1, 2, 3)]
    for attempt in attempts:
        queue.push(attempt)
    queue.drop(attempts[0])
    assert kind.shape.head() == (kind.rank, 2)
    queue.drop(attempts[1])
    queue.drop(attempts[2])
    assert not queue.waiting
    assert not kind.shape.lanes
    assert queue.count() == 0


def test_the_last_in_line_are_given_back_first_across_shapes():
    small, large, queue = kind_of(1), kind_of(2, num_cpus=2.0, priority=5), Queue()
    for order, kind in ((1, small), (2, large), (3, small), (4, large)):
        queue.push(attempt_of(kind, order))
    assert [attempt.row.order for attempt in queue.take_back(3)] == [3, 1, 4]
    assert [attempt.row.order for attempt in large.shape.queued()] == [2]
    assert queue.take_back(0) == []
    assert len(queue.take_back(9)) == 1

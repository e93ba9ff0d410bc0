"""The order of the queue, and where tasks go."""

from random import Random

import pytest
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.messages import AssignRow, TakeBack
from drumbeat.scheduler import events
from support.scheduling import Stage, ids_of, value_done


def runs(stage: Stage, node: PeerId) -> list[bytes]:
    """Return the ids of tasks in the order in which a node of one CPU gets them."""
    order = []
    while rows := (stage.turn(), stage.assigned(node))[1]:
        (row,) = rows
        order.append(row.id)
        stage.finish(node, [row], duration_s=5.0)
    return order


# ---------------------------------------------------------------------------------------- order


def test_tasks_go_by_priority_then_depth_then_first_come() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=1)
    plain, urgent = stage.define(client), stage.define(client, priority=1)
    ids = ids_of(client, 5)
    stage.submit(client, plain, [ids[0]])
    stage.submit(client, plain, [ids[1]])
    stage.submit(client, plain, [ids[2]], depth=2)
    stage.submit(client, urgent, [ids[3]])
    stage.submit(client, plain, [ids[4]], depth=1)
    assert runs(stage, node) == [ids[3], ids[2], ids[4], ids[0], ids[1]]


def test_tasks_of_different_shapes_go_in_the_order_they_came() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=1)
    kinds = [stage.define(client, num_cpus=1 - share / 10) for share in range(3)]
    ids = ids_of(client, 9)
    for number, id_ in enumerate(ids):
        stage.submit(client, kinds[number % 3], [id_])
    assert runs(stage, node) == ids


def test_a_shape_that_cannot_be_placed_does_not_hold_up_others() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=2)
    large, small = stage.define(client, num_cpus=2), stage.define(client)
    ids = ids_of(client, 3)
    stage.submit(client, small, ids[:1])
    stage.submit(client, large, ids[1:2])
    stage.submit(client, small, ids[2:])
    stage.turn()
    assert [row.id for row in stage.assigned(node)] == [ids[0], ids[2]]


def test_tasks_that_came_back_go_before_younger_ones() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=2)
    kind = stage.define(client)
    ids = ids_of(client, 4)
    stage.submit(client, kind, ids)
    stage.turn()
    rows = stage.assigned(node)
    stage.taken_back(node, rows[1], rows[0])
    stage.turn()
    again = stage.assigned(node)
    assert [(row.id, row.attempt) for row in again] == [(ids[0], 1), (ids[1], 1)]
    assert [row.order for row in again] == [row.order for row in rows]


def test_the_order_number_is_that_of_the_submission() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=3)
    kind = stage.define(client)
    stage.submit(client, kind, ids_of(client, 3))
    stage.turn()
    orders = [row.order for row in stage.assigned(node)]
    assert orders == sorted(set(orders))


# ------------------------------------------------------------------------------------ resources


@pytest.mark.parametrize(
    ("options", "resources", "at_once"),
    [
        ({}, {}, 4),
        ({"num_cpus": 0.5}, {}, 8),
        ({"num_cpus": 3}, {}, 1),
        ({"num_gpus": 1}, {"GPU": 2}, 2),
        ({"num_cpus": 0, "num_gpus": 0.25}, {"GPU": 1}, 4),
        ({"resources": (("disk", 1.0),)}, {"disk": 1}, 1),
        ({"num_cpus": 0.1}, {}, 40),
    ],
)
def test_no_more_is_assigned_than_fits(
    options: dict[str, float], resources: dict[str, float], at_once: int
) -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=4, **resources)
    stage.submit(client, stage.define(client, **options), ids_of(client, 50))
    stage.turn()
    rows = stage.assigned(node)
    assert len(rows) == at_once
    stage.finish(node, rows, duration_s=9.0)
    stage.turn()
    assert len(stage.assigned(node)) == min(at_once, 50 - at_once)


@pytest.mark.parametrize(("workers_max", "at_once"), [(5, 20), (30, 30)])
def test_tasks_that_ask_for_nothing_are_bounded_all_the_same(
    workers_max: int, at_once: int
) -> None:
    stage = Stage(window_tasks_max=10, workers_max=workers_max)
    client, node = stage.client(), stage.node(cpus=2)
    stage.submit(client, stage.define(client, num_cpus=0), ids_of(client, 50))
    stage.turn()
    assert len(stage.assigned(node)) == at_once


def test_no_number_keeps_out_a_task_whose_resources_are_free() -> None:
    stage = Stage(window_tasks_max=1)
    client, node = stage.client(), stage.node(cpus=2)
    ids = ids_of(client, 2)
    stage.submit(client, stage.define(client, num_cpus=0), ids[:1])
    stage.submit(client, stage.define(client, num_cpus=2), ids[1:])
    stage.turn()
    assert [row.id for row in stage.assigned(node)] == ids


def test_the_freest_node_is_preferred_and_ties_go_to_the_first_that_joined() -> None:
    stage = Stage()
    client = stage.client()
    small, large = stage.node("z", cpus=2), stage.node("a", cpus=4)
    kind = stage.define(client)
    for id_ in ids_of(client, 6):
        stage.submit(client, kind, [id_])
    stage.turn()
    assert len(stage.assigned(large)) == 4
    assert len(stage.assigned(small)) == 2
    first, second = stage.node("y"), stage.node("b")
    stage.submit(client, kind, ids_of(client, 7)[6:])
    stage.turn()
    assert len(stage.assigned(first)) == 1
    assert not stage.assigned(second)


@pytest.mark.parametrize("name", ["lab", b"mmmmmm".hex()])
def test_a_task_goes_to_the_node_it_names(name: str) -> None:
    stage = Stage()
    client = stage.client()
    other, named = stage.node("n", cpus=8), stage.node("m", name="lab")
    stage.submit(client, stage.define(client, node=name), ids_of(client, 4))
    stage.turn()
    assert len(stage.assigned(named)) == 2
    assert not stage.assigned(other)


def test_tasks_to_be_spread_go_where_the_fewest_of_their_kind_are() -> None:
    stage = Stage()
    client = stage.client()
    nodes = [stage.node(letter, cpus=cpus) for letter, cpus in (("a", 8), ("b", 2), ("d", 2))]
    stage.submit(client, stage.define(client, spread=True), ids_of(client, 6))
    stage.turn()
    assert [len(stage.assigned(node)) for node in nodes] == [2, 2, 2]


def test_a_suspect_node_gets_no_new_work_until_it_is_heard() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    stage.live(3.5, 0.25, node)
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    assert not stage.assigned(node)
    stage.event(events.PeerHeard([node]))
    stage.turn()
    assert len(stage.assigned(node)) == 1


def test_a_worker_that_waits_lends_its_cpu_but_not_its_gpu() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=1, GPU=1)
    gpu, plain = stage.define(client, num_gpus=1), stage.define(client)
    ids = ids_of(client, 3)
    stage.submit(client, gpu, ids[:2])
    stage.turn()
    (row,) = stage.assigned(node)
    stage.blocked(node, row)
    stage.blocked(node, row)
    stage.turn()
    assert not stage.assigned(node), "the second one needs the GPU"
    stage.submit(client, plain, ids[2:])
    stage.turn()
    (other,) = stage.assigned(node)
    assert other.id == ids[2]
    stage.blocked(node, row, False)
    stage.finish(node, [other])
    stage.turn()
    assert not stage.assigned(node), "the CPU is taken again"
    stage.finish(node, [row])
    stage.turn()
    assert len(stage.assigned(node)) == 1


# -------------------------------------------------------------------------------------- windows


def grown(stage: Stage, duration_s: float, batches: int) -> int:
    """Return how many a node has at once after some batches of results."""
    client, node = stage.client(), stage.node(cpus=2)
    stage.submit(client, stage.define(client), ids_of(client, 20_000))
    stage.turn()
    rows = stage.assigned(node)
    assert len(rows) == 2, "one a slot while nobody knows how long they take"
    for _ in range(batches):
        stage.finish(node, rows, duration_s)
        stage.now_s += 0.001
        stage.turn()
        rows = stage.assigned(node)
    return len(rows)


@pytest.mark.parametrize(("batches", "at_once"), [(1, 4), (2, 8), (5, 64)])
def test_quick_tasks_double_with_each_batch(batches: int, at_once: int) -> None:
    assert grown(Stage(), 1e-5, batches) == at_once


def test_no_more_than_a_window_of_work_is_assigned() -> None:
    # 20 ms a slot, 2 slots, 1 ms a task; more only when a quarter is free
    assert grown(Stage(), 0.001, 10) in range(30, 41)


def test_no_more_than_the_largest_number_is_assigned() -> None:
    assert grown(Stage(window_tasks_max=16), 1e-6, 10) == 32


def test_tasks_longer_than_the_window_are_assigned_one_a_slot() -> None:
    assert grown(Stage(), 0.1, 3) == 2


@pytest.mark.parametrize(
    ("duration_s", "most", "times"), [(0.012, 8, 11), (0.0202, 6, 14), (0.039, 4, 20)]
)
def test_of_tasks_about_as_long_as_the_window_one_a_slot_waits_at_its_node_and_some_come_at_once(
    duration_s: float, most: int, times: int
) -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=2)
    stage.submit(client, stage.define(client), ids_of(client, 50))
    stage.turn()
    rows, came = stage.assigned(node), 0
    for ended in range(20):
        jitter_s = duration_s * (0.95 + 0.1 * (ended % 2))
        stage.finish(node, [rows.pop(0)], jitter_s)
        stage.turn(0.01)
        more = stage.assigned(node)
        came += bool(more)
        rows += more
        assert 4 <= len(rows) <= most
    assert came <= times


def test_they_wait_behind_no_longer_ones_and_at_no_node_while_another_is_idle() -> None:
    stage = Stage()
    client, busy = stage.client(), stage.node("b", cpus=2)
    short, long = stage.define(client), stage.define(client, name="long")
    ids = ids_of(client, 9)
    for kind, id_, duration_s in ((short, ids[0], 0.03), (long, ids[1], 5.0)):
        stage.submit(client, kind, [id_])
        stage.turn()
        stage.finish(busy, stage.assigned(busy), duration_s)
    stage.submit(client, long, ids[2:4])
    stage.submit(client, short, ids[4:6])
    stage.turn()
    assert [row.id for row in stage.assigned(busy)] == ids[2:4]
    idle = stage.node("i", cpus=4)
    stage.submit(client, short, ids[6:8])
    stage.turn()
    assert [row.id for row in stage.assigned(idle)] == ids[4:8]
    assert not stage.assigned(busy)


def test_a_tasks_expected_duration_is_told() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=1)
    stage.submit(client, stage.define(client), ids_of(client, 3))
    stage.turn()
    stage.finish(node, stage.assigned(node), 2.0)
    stage.turn()
    (row,) = stage.assigned(node)
    assert row.expected_s == 2.0
    stage.finish(node, [row], 1.0)
    stage.turn()
    assert stage.assigned(node)[0].expected_s == pytest.approx(1.8)


def test_an_urgent_task_goes_ahead_of_time_as_well() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=1)
    plain, urgent = stage.define(client), stage.define(client, name="urgent", priority=9)
    ids = ids_of(client, 103)
    for kind, id_ in ((urgent, ids[0]), (plain, ids[1])):
        stage.submit(client, kind, [id_])
        stage.turn()
        stage.finish(node, stage.assigned(node), 0.001)
    stage.submit(client, plain, ids[2:101])
    stage.turn()
    assert len(stage.assigned(node)) == 2
    stage.turn()
    assert not stage.assigned(node)
    stage.submit(client, urgent, ids[101:102])
    stage.turn()
    assert [row.id for row in stage.assigned(node)] == [ids[101]]


def test_short_tasks_are_dealt_out_over_all_nodes() -> None:
    stage = Stage()
    client = stage.client()
    nodes = [stage.node(letter) for letter in "abd"]
    kind = stage.define(client)
    stage.submit(client, kind, ids_of(client, 5_000))
    for _ in range(4):
        stage.turn(0.001)
        for node in nodes:
            stage.finish(node, stage.assigned(node), 1e-4)
    stage.turn()
    counts = [len(stage.assigned(node)) for node in nodes]
    assert min(counts) >= 300
    assert max(counts) <= 400


# ----------------------------------------------------------------------------------- taking back


def loaded(stage: Stage, duration_s: float = 0.015) -> tuple[PeerId, PeerId, list[AssignRow]]:
    """Return a client and a node of one CPU that has two tasks."""
    client, busy = stage.client(), stage.node("b", cpus=1)
    stage.submit(client, stage.define(client), ids_of(client, 4))
    stage.turn()
    stage.finish(busy, stage.assigned(busy), duration_s / 2)
    stage.turn()
    rows = stage.assigned(busy)
    assert len(rows) == 2
    stage.finish(busy, rows[:1], duration_s / 2)
    stage.turn()
    return client, busy, [rows[1], *stage.assigned(busy)]


def test_an_idle_node_gets_what_another_has_not_started() -> None:
    stage = Stage()
    _, busy, rows = loaded(stage)
    idle = stage.node("i", cpus=1)
    stage.turn()
    assert [message.count for message in stage.take(busy, TakeBack)] == [1]
    assert not stage.assigned(idle), "not before the node has said yes"
    stage.turn(1.0)
    assert not stage.take(busy, TakeBack), "one at a time"
    stage.taken_back(busy, rows[1])
    stage.turn()
    (row,) = stage.assigned(idle)
    assert (row.id, row.attempt) == (rows[1].id, 1)
    assert stage.core.counters["taken_back"] == 1


def test_nothing_is_taken_back_while_tasks_are_queued() -> None:
    stage = Stage()
    client, busy, _ = loaded(stage)
    stage.submit(client, stage.define(client, num_cpus=9, wait_for_nodes=True), ids_of(client, 9))
    stage.node("i", cpus=1)
    stage.turn()
    assert not stage.take(busy, TakeBack)


def test_a_node_that_has_nothing_to_give_is_asked_again_only_later() -> None:
    stage = Stage()
    _, busy, _ = loaded(stage)
    stage.node("i", cpus=1)
    stage.turn()
    assert stage.take(busy, TakeBack)
    stage.taken_back(busy)
    stage.turn()
    assert not stage.take(busy, TakeBack)
    due_s = stage.core.deadline_s()
    assert due_s is not None
    assert due_s == pytest.approx(stage.now_s + 0.02)
    stage.turn(0.03)
    assert stage.take(busy, TakeBack)


def test_what_is_done_in_a_moment_is_not_taken_back_unless_it_is_not_done() -> None:
    stage = Stage()
    client, busy = stage.client(), stage.node("b", cpus=1)
    stage.submit(client, stage.define(client), ids_of(client, 3))
    stage.turn()
    stage.finish(busy, stage.assigned(busy), 1e-5)
    stage.turn()
    assert len(stage.assigned(busy)) == 2
    stage.node("i", cpus=1)
    stage.turn()
    assert not stage.take(busy, TakeBack)
    due_s = stage.core.deadline_s()
    assert due_s is not None
    stage.turn(due_s - stage.now_s + 0.001)
    assert stage.take(busy, TakeBack)


def test_what_only_its_node_may_run_is_not_taken_back() -> None:
    stage = Stage()
    client, busy = stage.client(), stage.node("b", cpus=1)
    stage.submit(client, stage.define(client, node="b"), ids_of(client, 3))
    stage.turn()
    stage.finish(busy, stage.assigned(busy), 0.005)
    stage.turn()
    assert len(stage.assigned(busy)) == 2
    stage.node("i", cpus=1)
    stage.turn()
    assert not stage.take(busy, TakeBack)


def test_giving_back_what_one_has_not_is_stale() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    row = AssignRow(ids_of(client, 1)[0], 1, 1, 1, 0, -1)
    stage.taken_back(node, row)
    stage.blocked(node, row)
    stage.turn()
    assert stage.core.counters["stale_dropped"] == 2


# ---------------------------------------------------------------------------------- at random


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_the_account_is_true_and_everything_ends(seed: int) -> None:
    rng = Random(seed)
    stage = Stage(seed)
    client = stage.client()
    nodes = [stage.node(letter, cpus=rng.choice([1, 2, 4]), GPU=1) for letter in "abd"]
    kinds = [
        stage.define(client, name=f"kind{number}", **options)
        for number, options in enumerate(
            [{}, {"num_cpus": 0.5}, {"num_gpus": 0.5}, {"spread": True}, {"priority": 2}]
        )
    ]
    ids = ids_of(client, 400)
    held: dict[PeerId, list[AssignRow]] = {node: [] for node in nodes}
    done = 0
    while done < 400:
        stage.event(events.PeerHeard([client, *nodes]))
        if ids and rng.random() < 0.7:
            count = rng.randrange(1, 20)
            stage.submit(client, rng.choice(kinds), ids[:count], depth=rng.randrange(3))
            ids = ids[count:]
        for node in nodes:
            rng.shuffle(held[node])
            for row in held[node][:4]:
                match rng.randrange(4):
                    case 0:
                        stage.blocked(node, row, rng.random() < 0.5)
                    case 1:
                        stage.taken_back(node, row)
                        held[node].remove(row)
                    case _:
                        stage.done(node, value_done(row, duration_s=rng.random() * 0.01))
                        held[node].remove(row)
        stage.turn(0.005)
        for node in nodes:
            held[node] += stage.assigned(node)
        done += len(stage.results(client))
    assert stage.at_rest()

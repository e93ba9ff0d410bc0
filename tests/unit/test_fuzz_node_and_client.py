"""A scheduler, or a worker, says anything that decodes: nodes and clients go on."""

from random import Random
from typing import Any

import pytest
from drumbeat.node import events
from drumbeat.node.packets import Finished, FinishedRow, NestedKind, Submitted
from drumbeat.protocol.ids import IdFactory
from drumbeat.protocol.messages import Failure, Options, Outcome, TaskRow, ValueRow
from hypothesis import given, settings
from hypothesis import strategies as st
from support.mad_scheduler import MadClient, MadNode
from support.node_bench import NODE, NodeBench, value

seeds = st.integers(0, 2**32)


@settings(max_examples=120)
@given(seed=seeds, steps=st.integers(1, 40))
def test_a_client_outlives_a_scheduler_that_says_anything(seed: int, steps: int) -> None:
    mad = MadClient(Random(seed))
    for _ in range(steps):
        mad.step()
    mad.end()


@pytest.mark.parametrize("mad_workers", [False, True])
@settings(max_examples=80)
@given(seed=seeds, steps=st.integers(1, 40))
def test_a_node_outlives_a_scheduler_and_workers_that_say_anything(
    mad_workers: bool, seed: int, steps: int
) -> None:
    mad = MadNode(Random(seed), mad_workers)
    for _ in range(steps):
        mad.step()
    mad.end()


def killed(bench: NodeBench) -> list[int]:
    return [command.worker for command in bench.of(events.Signal) if command.name == "KILL"]


@pytest.mark.parametrize(
    "values",
    [
        lambda task, other: (value(other),),
        lambda task, other: (),
        lambda task, other: (value(task), value(task + b"\0\1")),
        lambda task, other: (ValueRow(task, Outcome.ERROR),),
        lambda task, other: (ValueRow(other, Outcome.FAILURE, failure=Failure("E", "t")),),
    ],
)
def test_a_worker_that_tells_of_anothers_values_is_ended_and_the_node_is_not(values: Any) -> None:
    bench = NodeBench.ready_with_two()
    task, other = bench.assign(2)
    worker = next(number for number, ids in bench.ran().items() if task in ids)
    (seq,) = bench.rows[worker]
    bench.say(worker, Finished([FinishedRow(seq, values(task, other), 0.1)]))
    assert killed(bench) == [worker]
    assert not bench.done()
    assert bench.core.counters["workers_distrusted"] == 1
    bench.die(worker, seq)
    (row,) = bench.done()
    assert (row.id, row.died) == (task, True)


def test_what_a_worker_told_before_it_lied_counts_and_the_rest_ends_with_it() -> None:
    bench = NodeBench.ready_with_two()
    bench.assign(8, expected_s=1e-6)
    worker, rows = max(bench.rows.items(), key=lambda held: len(held[1]))
    first, second, *later = rows
    told = [FinishedRow(first, (value(rows[first].id),), 0.1)]
    told += [FinishedRow(second, (value(rows[later[0]].id),), 0.1)]
    told += [FinishedRow(later[0], (value(rows[later[0]].id),), 0.1)]
    bench.say(worker, Finished(told))
    assert killed(bench) == [worker]
    assert [row.id for row in bench.done()] == [rows[first].id]
    bench.die(worker, second)
    died = {row.id: row.died for row in bench.done()}
    assert died[rows[second].id]
    bench.core.check_invariants()


def test_a_worker_that_uses_another_ones_ids_is_ended_and_nothing_is_submitted() -> None:
    bench = NodeBench.ready_with_two()
    bench.assign(2)
    one, two = bench.rows
    mine, others = IdFactory(NODE, one)(), IdFactory(NODE, two)()
    kind = NestedKind(1, b"n" * 16, "child", Options(), b"code")
    parent = b"p" * 14
    bench.say(one, Submitted(parent, 1, [kind], [TaskRow(mine, 1)]))
    assert not killed(bench)
    for false in ([TaskRow(others, 1)], [TaskRow(mine, 1)]):
        bench.say(one, Submitted(parent, 1, [], false))
        assert killed(bench) == [one]
    bench.say(one, Submitted(parent, 1, [], [], [value(mine)]))
    assert killed(bench) == [one]
    assert list(bench.core._state.objects.calls) == [mine]

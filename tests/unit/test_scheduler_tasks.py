"""What may become of a task, and the arithmetic of retries."""

from random import Random

import pytest
from drumbeat.protocol.frames import Hello
from drumbeat.protocol.ids import IdFactory, PeerId
from drumbeat.protocol.messages import (
    Failure,
    Options,
    Outcome,
    TaskRow,
    ValueRow,
)
from drumbeat.protocol.resources import units
from drumbeat.scheduler.state import Peer
from drumbeat.scheduler.tasks import (
    ASSIGN,
    ASSIGNED,
    BACKOFF,
    DELIVER,
    DELIVERING,
    END,
    FINISHED,
    NEXT,
    QUEUED,
    READY,
    RETRY,
    RETURN,
    STATE_NAMES,
    WAITING,
    Function,
    Kind,
    Shape,
    TaskRecord,
    backoff_s,
    dependency_failed,
    failed,
    lost,
    move,
)

CLIENT = PeerId(b"client")


def record(state: int = WAITING, **options: object) -> TaskRecord:
    made = Options(**options)  # type: ignore[arg-type]  # a test's options
    kind = Kind(1, "work", made, Function(CLIENT, b"h"), Shape(1, CLIENT, made))
    owner = Peer(CLIENT, Hello(1, "client", CLIENT, 0, 0, 0, "", ""))
    task = TaskRecord(TaskRow(IdFactory(CLIENT)(), 1), kind, owner, b"", 0, 1, 0.0)
    task.state = state
    return task


ALLOWED = {
    (WAITING, READY): QUEUED,
    (QUEUED, ASSIGN): ASSIGNED,
    (ASSIGNED, DELIVER): DELIVERING,
    (ASSIGNED, RETURN): QUEUED,
    (WAITING, RETRY): BACKOFF,
    (ASSIGNED, RETRY): BACKOFF,
    (DELIVERING, RETRY): BACKOFF,
    (BACKOFF, READY): QUEUED,
    **{(state, END): FINISHED for state in range(FINISHED)},
}


@pytest.mark.parametrize("state", range(len(STATE_NAMES)), ids=STATE_NAMES)
@pytest.mark.parametrize("step", [READY, ASSIGN, DELIVER, RETURN, RETRY, END])
def test_a_task_takes_the_steps_of_the_table_and_no_others(state: int, step: int) -> None:
    task = record(state)
    if (state, step) in ALLOWED:
        move(task, step)
        assert task.state == ALLOWED[state, step]
    else:
        with pytest.raises(AssertionError, match="cannot take step"):
            move(task, step)
        assert task.state == state


def test_the_table_has_a_row_for_each_state_and_an_entry_for_each_step() -> None:
    assert [len(row) for row in NEXT] == [8] * len(STATE_NAMES)


def test_pauses_double_up_to_the_limit() -> None:
    options = Options(retry_backoff_s=0.1)
    pauses = [backoff_s(options, charged, 1.0, 0.0) for charged in range(1, 7)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


def test_chance_takes_up_to_half_of_a_pause_away() -> None:
    rng = Random(1)
    for _ in range(100):
        assert 0.5 <= backoff_s(Options(retry_backoff_s=1.0), 1, 9.0, rng.random()) <= 1.0


def test_a_pause_after_very_many_attempts_is_still_a_number() -> None:
    assert backoff_s(Options(), 100_000, 30.0, 0.0) == 30.0


def test_fractions_of_a_cpu_add_up_to_the_whole() -> None:
    assert sum(units(0.1) for _ in range(10)) == units(1.0)


def test_a_shape_of_cpus_alone_is_simple() -> None:
    assert Shape(1, CLIENT, Options()).simple
    assert Shape(1, CLIENT, Options(num_cpus=0)).simple
    for options in (
        Options(num_gpus=1),
        Options(resources=(("disk", 1.0),)),
        Options(node="lab"),
        Options(spread=True),
    ):
        assert not Shape(1, CLIENT, options).simple


def test_a_resource_named_twice_counts_twice() -> None:
    shape = Shape(1, CLIENT, Options(num_gpus=1, resources=(("CPU", 1.0), ("GPU", 0.5))))
    assert shape.cpu == units(2)
    assert shape.others == (("GPU", units(1.5)),)


def test_a_shape_says_what_it_asks_for() -> None:
    shape = Shape(1, CLIENT, Options(num_cpus=0.5, num_gpus=1, node="lab3"))
    assert shape.describe() == "CPU 0.5, GPU 1, node 'lab3'"
    assert Shape(1, CLIENT, Options(num_cpus=0)).describe() == "nothing"


def test_a_failure_names_the_task_and_the_attempt() -> None:
    task = record()
    row = failed(task, "NodeLost", "gone", node="lab3")
    assert row.id == task.id
    assert row.outcome == Outcome.FAILURE
    assert row.failure is not None
    assert row.failure.details["name"] == "work"
    assert row.failure.details["node"] == "lab3"
    assert row.failure.details["attempt"] == 1
    never_ran = failed(task, "TaskCancelled", "cancelled")
    assert never_ran.failure is not None
    assert never_ran.failure.details["attempt"] == 0


def test_a_dependency_that_raised_hands_its_report_on() -> None:
    report = ValueRow(b"d" * 14, Outcome.ERROR, b"report", 0, (b"r" * 14,))
    row = dependency_failed(record(), report)
    assert (row.payload, row.contained) == (b"report", (b"r" * 14,))
    assert row.failure is not None
    assert row.failure.error == "DependencyFailed"
    assert row.failure.cause is None


def test_a_dependency_that_failed_is_the_cause() -> None:
    row = dependency_failed(record(), lost(b"d" * 14, "gone"))
    assert row.failure is not None
    assert row.failure.cause is not None
    assert row.failure.cause.error == "ObjectLost"
    assert row.payload is None


def test_failures_along_a_chain_name_the_first_and_do_not_grow() -> None:
    row = ValueRow(b"d" * 14, Outcome.ERROR, b"report")
    for _ in range(3):
        row = dependency_failed(record(), row)
    assert row.payload == b"report"
    row = ValueRow(b"d" * 14, Outcome.FAILURE, failure=Failure("WorkerDied", "it died"))
    for _ in range(3):
        row = dependency_failed(record(), row)
    assert row.failure is not None
    assert row.failure.cause is not None
    assert row.failure.cause.error == "WorkerDied"
    assert row.failure.cause.cause is None

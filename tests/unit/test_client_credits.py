"""What is beyond the scheduler's credit waits in order, and goes on as results come."""

import pytest
from drumbeat.client.credits import Credits
from drumbeat.client.events import CancelAsked, Disconnected, Received, Reply, Submitted
from drumbeat.protocol.ids import TaskId
from drumbeat.protocol.messages import (
    FIRST_CREDIT,
    Cancel,
    Credit,
    Enter,
    Submit,
    TaskRow,
)
from drumbeat.protocol.recovery import Registered
from hypothesis import given
from hypothesis import strategies as st
from support.client_bench import LARGE, Client, resolved, sent, value

PLENTY = 1 << 40


def granted(tasks: int = PLENTY, bytes_: int = PLENTY) -> Client:
    client = Client()
    client.do(Received(Credit(tasks, bytes_)))
    return client


def submit(
    client: Client, count: int, args: bytes | None = None
) -> tuple[list[TaskId], list[bytes]]:
    """Submit calls of one kind; return their ids, and those that were sent in that turn."""
    kind = client.kind()
    calls = [client.call(kind.number, args=args) for _ in range(count)]
    commands = client.do(Submitted([kind], calls))
    return [TaskId(call.row.id) for call in calls], ids(commands)


def ids(commands: list[object]) -> list[bytes]:
    return [row.id for message in sent(commands, Submit) for row in message.rows]


def finish(client: Client, *tasks: bytes) -> list[bytes]:
    """Have results come; return what was sent because of it."""
    return ids(client.result(*(value(task) for task in tasks)))


def test_tasks_beyond_the_credit_go_as_results_come_and_in_order() -> None:
    client = granted(tasks=3)
    tasks, first = submit(client, 7)
    assert first == tasks[:3]
    assert finish(client, tasks[1]) == [tasks[3]]
    assert finish(client, tasks[0], tasks[2]) == tasks[4:6]
    assert finish(client, *tasks[3:6]) == [tasks[6]]
    finish(client, tasks[6])
    client.drop(*tasks)
    assert client.at_rest()


def test_what_is_submitted_later_waits_behind_what_waits_already() -> None:
    client = granted(tasks=2)
    tasks, _ = submit(client, 4)
    later, now = submit(client, 2)
    assert now == []
    assert finish(client, *tasks[:2]) == tasks[2:]
    assert finish(client, *tasks[2:]) == later


def test_bytes_of_arguments_are_bounded_but_one_task_may_go_beyond() -> None:
    client = granted(bytes_=100)
    tasks, first = submit(client, 4, args=bytes(60))
    assert first == tasks[:2]
    assert finish(client, tasks[0]) == [tasks[2]]
    large, now = submit(client, 1, args=LARGE)
    assert now == []
    assert finish(client, tasks[1], tasks[2]) == [tasks[3], *large]
    none, now = submit(client, 1)
    assert now == []
    assert finish(client, tasks[3]) == []
    assert finish(client, *large) == none


def test_tasks_without_arguments_cost_no_bytes() -> None:
    client = granted(bytes_=1)
    tasks, first = submit(client, 50)
    assert first == tasks


def test_what_waits_goes_on_in_parts_and_not_one_by_one() -> None:
    client = granted(tasks=64)
    tasks, _ = submit(client, 200)
    assert finish(client, *tasks[:3]) == []
    assert finish(client, tasks[3]) == tasks[64:68]


def test_a_task_that_waits_is_never_sent_once_it_is_cancelled() -> None:
    client = granted(tasks=1)
    tasks, _ = submit(client, 3, args=b"abc")
    commands = client.do(CancelAsked([tasks[1], tasks[0]], False, True, request=4))
    assert sent(commands, Cancel) == [Cancel([tasks[0]], False, True, 4)]
    assert [row.id for row in resolved(commands)] == [tasks[1]]
    assert finish(client, tasks[0]) == [tasks[2]]


def test_before_its_credit_is_told_a_client_has_the_first_one() -> None:
    client = Client()
    tasks, first = submit(client, FIRST_CREDIT.tasks + 5)
    assert first == tasks[: FIRST_CREDIT.tasks]
    assert ids(client.do(Received(Credit(20_000, PLENTY)))) == tasks[FIRST_CREDIT.tasks :]


def test_a_connection_that_is_back_sends_on_within_the_credit() -> None:
    client = granted(tasks=2)
    client.do(Disconnected())
    tasks, now = submit(client, 3)
    assert now == []
    assert ids(client.connect(1, resumed=True)) == tasks[:2]
    assert finish(client, tasks[0]) == tasks[2:]


def test_a_new_life_begins_with_the_first_credit_and_what_was_sent_before_goes_first() -> None:
    client = granted()
    before = FIRST_CREDIT.tasks + 7
    tasks, _ = submit(client, before)
    client.do(Received(Credit(before, PLENTY)))
    waiting, now = submit(client, 3)
    assert now == []
    commands = client.connect(2)
    messages = sent(commands)
    assert isinstance(messages[0], Enter)
    assert isinstance(messages[-1], Registered)
    assert ids(commands) == tasks, "the restarted scheduler is told of all that ran"
    assert ids(client.do(Received(Credit(before, PLENTY)))) == []
    assert finish(client, *tasks) == waiting


def test_of_what_a_scheduler_gave_up_as_much_goes_again_as_the_first_credit_allows() -> None:
    client = granted()
    tasks, _ = submit(client, FIRST_CREDIT.tasks + 3)
    client.do(CancelAsked(tasks[-1:], False, True, request=9))
    commands = client.connect(1)
    assert ids(commands) == tasks[: FIRST_CREDIT.tasks]
    assert [row.id for row in resolved(commands)] == tasks[-1:], "it was to be cancelled"
    (reply,) = [
        one
        for one in client.do(CancelAsked(tasks[-2:-1], False, True, request=10))
        if isinstance(one, Reply)
    ]
    assert reply == Reply(10, [False]), "it may have run in the life before"
    assert ids(client.do(Received(Credit(PLENTY, PLENTY)))) == tasks[-3:-2]


@given(
    sizes=st.lists(st.integers(0, 50), max_size=30),
    tasks_max=st.integers(1, 6),
    bytes_max=st.integers(1, 100),
)
def test_nothing_is_kept_back_for_good_and_nothing_goes_beyond_the_credit(
    sizes: list[int], tasks_max: int, bytes_max: int
) -> None:
    purse = Credits()
    purse.granted(Credit(tasks_max, bytes_max))
    rows = [TaskRow(bytes(14), 1, bytes(size)) for size in sizes]
    out: list[TaskRow] = []
    finished_bytes = 0
    while rows:
        count = 0
        if purse.worth_a_look(len(out), finished_bytes):
            count = purse.take(rows, len(out), finished_bytes)
        out, rows = out + rows[:count], rows[count:]
        assert len(out) <= tasks_max
        assert sum(len(row.args or b"") for row in out[:-1]) < bytes_max or not out[:-1]
        assert out, "with nothing out, something goes"
        finished_bytes += len(out.pop(0).args or b"")


@pytest.mark.parametrize("count", [0, 3])
def test_nothing_to_send_takes_nothing(count: int) -> None:
    purse = Credits()
    purse.granted(Credit(count, 10))
    assert purse.take([], 0, 0) == 0
    assert purse.take([TaskRow(bytes(14), 1)], 3, 0) == 0

"""The client core that was given up: all is told anew, and runs no more often than allowed."""

from drumbeat.client.events import (
    Asked,
    Awaited,
    CancelAsked,
    Connected,
    Disconnected,
    Received,
    RefsChanged,
    Reply,
    SendBlob,
    Submitted,
)
from drumbeat.protocol.ids import TaskId
from drumbeat.protocol.messages import (
    Cancel,
    Cancelled,
    Define,
    Enter,
    Failure,
    Fetch,
    Outcome,
    Query,
    Shared,
    Submit,
    ValueRow,
)
from support.client_bench import LARGE, Client, foreign, freed, resolved, sent, value


def test_in_a_new_life_all_is_told_again_with_one_retry_less() -> None:
    client = Client()
    task = client.submit({"max_retries": 2}, args=b"a")
    client.do(Disconnected())
    messages = sent(client.connect(1))
    assert [type(one) for one in messages] == [Enter, Define, Submit]
    kinds = {row.number: row.options.max_retries for row in messages[1].rows}
    (row,) = messages[2].rows
    assert (row.id, row.args, kinds[row.kind]) == (task, b"a", 1)
    assert resolved(client.result(value(task)))
    client.drop(task)
    assert client.at_rest()


def test_each_life_takes_one_more_retry_and_the_last_one_fails_the_task() -> None:
    client = Client()
    task = client.submit({"max_retries": 1})
    assert sent(client.connect(1), Submit)
    commands = client.connect(1)
    assert not sent(commands, Submit)
    assert [row.failure and row.failure.error for row in resolved(commands)] == ["NodeLost"]
    client.drop(task)
    assert client.at_rest()


def test_what_may_not_be_retried_and_was_sent_fails_in_a_new_life() -> None:
    client = Client()
    client.submit({"max_retries": 0})
    client.do(Disconnected())
    unsent = client.submit({"max_retries": 0})
    commands = client.connect(1)
    assert len(resolved(commands)) == 1
    assert [row.id for one in sent(commands, Submit) for row in one.rows] == [unsent]


def test_a_cancelled_task_is_not_submitted_again() -> None:
    client = Client()
    task = client.submit()
    client.do(CancelAsked([task], False, True))
    commands = client.connect(1)
    assert [row.failure and row.failure.error for row in resolved(commands)] == ["TaskCancelled"]
    assert not sent(commands, Submit)


def test_a_late_result_of_an_earlier_life_is_dropped() -> None:
    client = Client()
    task = client.submit({"max_retries": 0})
    client.connect(1)
    assert not resolved(client.result(value(task)))
    assert client.core.counters["stale_dropped"] == 1


def test_in_a_new_life_questions_cancels_and_fetches_are_sent_again() -> None:
    client = Client()
    other = foreign()
    task = client.submit()
    client.do(RefsChanged([(other, 1)]), Awaited([other]), Asked(Query(4, "nodes", 5, "")))
    client.do(CancelAsked([task], False, True, request=9))
    messages = sent(client.connect(1))
    assert Fetch([other]) in messages
    assert Query(4, "nodes", 5, "") in messages
    assert Cancel([task], False, True, 9) in messages


def test_what_may_have_run_in_an_earlier_life_is_never_said_to_be_dropped() -> None:
    client = Client()
    before = client.submit()
    client.do(CancelAsked([before], False, True, request=9))
    client.connect(1)
    fresh = client.submit()
    client.do(CancelAsked([before, fresh], False, True, request=10))
    # Its end comes first, and with it all that is known of its earlier lives is forgotten.
    cancelled = ValueRow(before, Outcome.FAILURE, failure=Failure("TaskCancelled", "was cancelled"))
    assert resolved(client.result(cancelled))
    assert client.do(Received(Cancelled(9, [True]))) == [Reply(9, [False])]
    assert client.do(Received(Cancelled(10, [True, True]))) == [Reply(10, [False, True])]


def test_in_a_new_life_nobody_else_holds_anything() -> None:
    client = Client()
    id_ = client.put()
    client.do(Received(Shared([id_])))
    client.drop(id_)
    assert freed(client.connect(1)) == [id_]


def test_a_large_result_cut_off_by_the_end_of_a_life_is_not_lost() -> None:
    client = Client()
    task = client.submit()
    client.result(ValueRow(task, Outcome.VALUE, None, len(LARGE)))
    assert [row.id for one in sent(client.connect(1), Submit) for row in one.rows] == [task]


def test_what_was_about_to_be_sent_is_told_once_and_anew_in_a_new_life() -> None:
    client = Client()
    kind = client.kind(max_retries=0)
    call = client.call(kind.number, args=LARGE)
    commands = client.do(
        Submitted([kind], [call]),
        Asked(Query(4, "nodes", 5, "")),
        CancelAsked([TaskId(call.row.id)], False, True, request=9),
        Disconnected(),
        Connected(1, False),
    )
    assert [type(one) for one in sent(commands)] == [Enter, Define, Submit, Cancel, Query]
    assert [one.key for one in commands if isinstance(one, SendBlob)] == [call.row.id + b"a"]
    assert not resolved(commands)  # it cannot have run
    assert resolved(client.result(value(call.row.id)))


def test_a_cancel_that_was_about_to_be_sent_counts_in_a_new_life() -> None:
    client = Client()
    kind = client.kind()
    call = client.call(kind.number)
    commands = client.do(
        Submitted([kind], [call]),
        CancelAsked([TaskId(call.row.id)], False, True),
        Disconnected(),
        Connected(1, False),
    )
    assert [row.failure and row.failure.error for row in resolved(commands)] == ["TaskCancelled"]
    assert not sent(commands, Submit)
    client.drop(call.row.id)
    assert client.at_rest()

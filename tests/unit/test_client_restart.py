"""The client core over a restart of the scheduler: told again in order, and nothing charged."""

from typing import Any

from drumbeat.client.events import (
    Asked,
    Awaited,
    CancelAsked,
    Connected,
    Disconnected,
    Print,
    Received,
    RefsChanged,
    Reply,
    SendBlob,
    ShapesKnown,
    Submitted,
)
from drumbeat.protocol.ids import TaskId, objects_of
from drumbeat.protocol.messages import (
    Answer,
    Cancel,
    Cancelled,
    Define,
    Enter,
    Fetch,
    Notice,
    Outcome,
    Query,
    Retried,
    Shapes,
    Submit,
    ValueRow,
    Values,
)
from drumbeat.protocol.recovery import Holding, Recovered, Registered
from support.client_bench import LARGE, Client, foreign, received_with, resolved, sent, value


def attempts(commands: list[Any]) -> dict[bytes, int]:
    """Return what was said of each task that was submitted, in order."""
    said: dict[bytes, int] = {}
    for message in sent(commands, Submit):
        numbers = message.attempts or [0] * len(message.rows)
        said.update(zip([row.id for row in message.rows], numbers, strict=True))
    return said


def retried(client: Client, task: bytes, attempt: int) -> None:
    client.do(Received(Retried([(task, attempt)])))


def errors(commands: list[Any]) -> list[str]:
    return [row.failure.error for row in resolved(commands) if row.failure is not None]


# ------------------------------------------------------------------------------------------- tasks


def test_after_a_restart_everything_is_told_in_the_agreed_order() -> None:
    client = Client()
    other, delivered = foreign(1), foreign(2)
    received_with(client, delivered)
    cancelled, asked = client.submit(), client.submit()
    client.do(RefsChanged([(other, 1)]), Awaited([other]))
    client.do(CancelAsked([cancelled], False, True), CancelAsked([asked], False, True, request=9))
    client.do(Asked(Query(4, "nodes", 5, "")), Disconnected())
    messages = sent(client.connect(2))
    assert [type(one) for one in messages] == [
        Enter, Define, Submit, Cancel, Cancel, Query, Holding, Fetch, Registered
    ]  # fmt: skip
    assert messages[3:] == [
        Cancel([cancelled], False, True),
        Cancel([asked], False, True, 9),
        Query(4, "nodes", 5, ""),
        Holding([(delivered, 1)]),
        Fetch([other]),
        Registered(),
    ]


def test_nothing_is_charged_and_the_retries_stay() -> None:
    client = Client()
    task = client.submit({"max_retries": 2}, args=b"a")
    client.do(Disconnected())
    commands = client.connect(2)
    (define,) = sent(commands, Define)
    (submit,) = sent(commands, Submit)
    kinds = {row.number: row.options.max_retries for row in define.rows}
    assert (kinds[submit.rows[0].kind], submit.rows[0].args) == (2, b"a")
    assert attempts(commands) == {task: 1}
    assert resolved(client.result(value(task)))
    client.drop(task)
    client.do(Received(Recovered()))
    assert client.at_rest()


def test_what_may_not_be_retried_is_told_too_and_does_not_fail() -> None:
    client = Client()
    task = client.submit({"max_retries": 0})
    commands = client.connect(2)
    assert attempts(commands) == {task: 1}
    assert not resolved(commands)


def test_the_numbering_of_attempts_goes_on() -> None:
    client = Client()
    task = client.submit({"max_retries": 5})
    retried(client, task, 2)
    retried(client, task, 3)
    assert attempts(client.connect(2)) == {task: 3}
    retried(client, task, 4)
    assert attempts(client.connect(3)) == {task: 4}
    assert attempts(client.connect(4)) == {task: 4}


def test_a_task_that_was_never_sent_is_new() -> None:
    client = Client()
    before = client.submit()
    client.do(Disconnected())
    unsent = client.submit({"max_retries": 0})
    assert attempts(client.connect(2)) == {before: 1, unsent: 0}
    assert attempts(client.connect(3)) == {before: 1, unsent: 1}


def test_where_all_tasks_are_new_no_attempts_are_named() -> None:
    client = Client()
    client.do(Disconnected())
    client.submit()
    (submit,) = sent(client.connect(2), Submit)
    assert submit.attempts == []


def test_what_was_about_to_be_sent_is_new_and_told_once() -> None:
    client = Client()
    kind = client.kind(max_retries=0)
    call = client.call(kind.number, args=LARGE)
    commands = client.do(
        Submitted([kind], [call]),
        Asked(Query(4, "nodes", 5, "")),
        CancelAsked([TaskId(call.row.id)], False, True, request=9),
        Disconnected(),
        Connected(2, False),
    )
    assert [type(one) for one in sent(commands)] == [
        Enter, Define, Submit, Cancel, Query, Registered
    ]  # fmt: skip
    assert attempts(commands) == {call.row.id: 0}
    assert [one.key for one in commands if isinstance(one, SendBlob)] == [call.row.id + b"a"]


def test_tasks_are_told_in_the_order_of_their_submission() -> None:
    client = Client()
    kind = client.kind()
    calls = [client.call(kind.number) for _ in range(1_300)]
    client.do(Submitted([kind], calls[:700]))
    client.do(Disconnected())
    client.do(Submitted([], calls[700:]))
    client.result(*(value(call.row.id) for call in calls[:50]))
    commands = client.connect(2)
    assert list(attempts(commands)) == [call.row.id for call in calls[50:]]
    assert [len(one.rows) for one in sent(commands, Submit)] == [512, 512, 226]
    assert [n for one in sent(commands, Submit) for n in one.attempts] == [1] * 650 + [0] * 600


def test_dependencies_refs_inside_and_large_arguments_are_told_again() -> None:
    client = Client()
    dependency = client.submit()
    known = client.put(b"small")
    inside = client.put()
    task = client.submit(args=LARGE, deps=(dependency, known), contained=(inside,))
    commands = client.connect(2)
    row = next(row for one in sent(commands, Submit) for row in one.rows if row.id == task)
    assert (row.args, row.size) == (None, len(LARGE))
    assert (row.deps, row.contained) == ((dependency, known), (inside,))
    assert [one.id for one in row.values] == [known]
    assert [one.key for one in commands if isinstance(one, SendBlob)] == [task + b"a"]
    client.drop(dependency, known, inside)
    assert client.core.home.entries[inside].pins == 1


def test_a_value_that_came_is_kept_and_the_others_of_its_task_still_come() -> None:
    client = Client()
    task = client.submit({"num_returns": 2})
    first, second = objects_of(task, 2)
    client.result(value(first, contained=(foreign(),)))
    assert attempts(client.connect(2)) == {task: 1}
    again = client.result(value(first, contained=(foreign(),)), value(second))
    assert [row.id for row in resolved(again)] == [second]
    assert client.core.home.entries[foreign()].received == 2
    assert not client.core.tasks


def test_a_large_result_that_was_cut_off_comes_whole_in_the_next_life() -> None:
    client = Client()
    task = client.submit()
    client.result(ValueRow(task, Outcome.VALUE, None, len(LARGE)))
    assert attempts(client.connect(2)) == {task: 1}
    assert not resolved(client.result(ValueRow(task, Outcome.VALUE, None, len(LARGE))))


def test_all_kinds_are_defined_again_with_their_code() -> None:
    client = Client()
    client.submit()
    client.kind()
    client.do(Submitted([client.kind(b"g", b"other")], []))
    (define,) = sent(client.connect(2), Define)
    assert [(row.function[:1], row.payload) for row in define.rows] == [
        (b"f", b"code"),
        (b"g", b"other"),
    ]


# ----------------------------------------------------------------------------- lives of both sorts


def test_a_life_that_was_given_up_before_stays_charged() -> None:
    client = Client()
    task = client.submit({"max_retries": 3})
    retried(client, task, 2)
    client.connect(1)
    assert client.core.at_rest()["charged"] == 1
    commands = client.connect(2)
    (define,) = sent(commands, Define)
    (submit,) = sent(commands, Submit)
    kinds = {row.number: row.options.max_retries for row in define.rows}
    assert kinds[submit.rows[0].kind] == 1
    assert attempts(commands) == {task: 1}


def test_being_given_up_by_the_restarted_scheduler_charges_what_all_lives_told_of() -> None:
    client = Client()
    task = client.submit({"max_retries": 2})
    retried(client, task, 2)
    client.connect(2)
    commands = client.connect(2)
    (define,) = sent(commands, Define)
    assert min(row.options.max_retries for row in define.rows) == 0
    assert attempts(commands) == {task: 0}
    assert not sent(commands, Registered)
    assert errors(client.connect(2)) == ["NodeLost"]


def test_a_restart_in_the_middle_of_a_restart_forgets_no_attempt() -> None:
    client = Client()
    task = client.submit({"max_retries": 0})
    commands = client.do(Disconnected(), Connected(2, False), Disconnected(), Connected(3, False))
    assert [type(one) for one in sent(commands)] == [Enter, Define, Submit, Registered]
    assert attempts(commands) == {task: 1}
    assert attempts(client.do(Disconnected(), Connected(4, False))) == {task: 1}


def test_a_restart_and_a_loss_in_one_turn_charge_what_was_sent_before() -> None:
    client = Client()
    client.submit({"max_retries": 0})
    commands = client.do(Disconnected(), Connected(2, False), Disconnected(), Connected(2, False))
    assert errors(commands) == ["NodeLost"]


def test_the_same_life_resumed_tells_nothing_again() -> None:
    client = Client()
    client.submit()
    client.do(Disconnected())
    unsent = client.submit()
    commands = client.connect(1, resumed=True)
    assert attempts(commands) == {unsent: 0}
    assert not sent(commands, Enter)
    assert not sent(commands, Registered)


def test_neither_the_first_life_nor_one_after_a_loss_is_a_restart() -> None:
    client = Client(connected=False)
    for _ in range(2):
        commands = client.connect(7)
        assert [type(one) for one in sent(commands)] == [Enter]
        assert not [one for one in commands if isinstance(one, Print)]


# ------------------------------------------------------------------------------ cancels, questions


def test_a_cancel_is_asked_again_as_it_was_asked() -> None:
    client = Client()
    soft, hard, lone = client.submit(), client.submit(), client.submit()
    client.do(CancelAsked([soft, hard], False, True))
    client.do(CancelAsked([hard], True, True), CancelAsked([lone], False, False))
    client.do(CancelAsked([hard], False, False))
    commands = client.connect(2)
    assert list(attempts(commands)) == [soft, hard, lone]
    assert sent(commands, Cancel) == [
        Cancel([soft], False, True),
        Cancel([hard], True, True),
        Cancel([lone], False, False),
    ]
    assert not resolved(commands)
    assert len(sent(client.connect(3), Cancel)) == 3


def test_a_cancel_while_there_is_no_scheduler_is_told_to_the_next_one() -> None:
    client = Client()
    task = client.submit()
    client.do(Disconnected())
    client.do(CancelAsked([task], False, True))
    assert sent(client.connect(2), Cancel) == [Cancel([task], False, True)]


def test_a_cancelled_task_that_was_never_sent_ends_here() -> None:
    client = Client()
    kind = client.kind()
    call = client.call(kind.number)
    commands = client.do(
        Submitted([kind], [call]),
        CancelAsked([TaskId(call.row.id)], False, True),
        Disconnected(),
        Connected(2, False),
    )
    assert errors(commands) == ["TaskCancelled"]
    assert not sent(commands, Submit)


def test_a_cancel_that_wants_an_answer_is_answered_by_the_next_scheduler() -> None:
    client = Client()
    task, other = client.submit(), client.submit()
    client.do(CancelAsked([task, other], False, True, request=9))
    commands = client.connect(2)
    assert sent(commands, Cancel) == [Cancel([task, other], False, True, 9)]
    assert client.do(Received(Cancelled(9, [True, False]))) == [Reply(9, [True, False])]


def test_what_the_program_was_told_never_starts_is_cancelled_again() -> None:
    client = Client()
    task, other = client.submit(), client.submit()
    client.do(CancelAsked([task, other], False, True, request=9))
    client.do(Received(Cancelled(9, [True, False])))
    assert sent(client.connect(2), Cancel) == [Cancel([task], False, True)]


def test_a_cancel_of_somebody_elses_task_is_asked_again_until_its_value_is_here() -> None:
    client = Client()
    awaited, gone, other = foreign(1), foreign(2), foreign(3)
    client.do(RefsChanged([(awaited, 1), (gone, 1), (other, 1)]), Awaited([awaited]))
    client.do(CancelAsked([TaskId(one) for one in (awaited, gone, other)], False, True))
    client.drop(gone)
    assert sent(client.connect(2), Cancel) == [Cancel([awaited, other], False, True)]
    client.do(Received(Values([value(awaited)])))
    assert sent(client.connect(3), Cancel) == [Cancel([other], False, True)]
    client.drop(awaited, other)
    client.do(Received(Recovered()))
    assert client.at_rest()


def test_it_says_in_which_epoch_it_last_knew_what_became_of_all_it_had_submitted() -> None:
    client = Client()  # of epoch 1, from its beginning
    client.submit()
    assert [enter.settled for enter in sent(client.connect(2), Enter)] == [1]
    assert [enter.settled for enter in sent(client.connect(3), Enter)] == [1]
    client.do(Received(Recovered()))
    assert [enter.settled for enter in sent(client.connect(4), Enter)] == [3]
    # Given up by that very scheduler, it has charged itself for all of it.
    assert [enter.settled for enter in sent(client.connect(4), Enter)] == [4]


def test_an_answered_question_is_not_asked_again() -> None:
    client = Client()
    client.do(Asked(Query(4, "nodes", 5, "")), Asked(Query(5, "tasks", 1, "a")))
    client.do(Received(Answer(4, [])))
    assert sent(client.connect(2), Query) == [Query(5, "tasks", 1, "a")]


# ----------------------------------------------------------------------------------- what one sees


def test_the_user_reads_once_that_the_scheduler_was_restarted() -> None:
    client = Client()
    client.submit()
    prints = [one.message for one in client.connect(2) if isinstance(one, Print)]
    assert [type(one) for one in prints] == [Notice]
    assert "the scheduler was restarted" in prints[0].text
    assert "1 unfinished task" in prints[0].text
    later = client.do(Received(Recovered()), Disconnected(), Connected(2, True))
    assert not [one for one in later if isinstance(one, Print)]


def test_the_nodes_stay_known() -> None:
    client = Client()
    shown = client.do(Received(Shapes([])))
    assert [one for one in shown if isinstance(one, ShapesKnown)]
    commands = client.connect(2)
    assert not [one for one in commands if isinstance(one, ShapesKnown)]

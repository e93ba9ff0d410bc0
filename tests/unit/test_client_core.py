"""The client core: events in, commands out."""

import pytest
from drumbeat.client.events import (
    Asked,
    Awaited,
    BlobReceived,
    CancelAsked,
    Disconnected,
    KindsDropped,
    Leaving,
    Pinned,
    Print,
    Put,
    Received,
    RefsChanged,
    Reply,
    SendBlob,
    ShapesKnown,
    Submitted,
    TimePassed,
)
from drumbeat.client.lives import SUBMIT_ROWS_MAX
from drumbeat.protocol.actors import ActorName, ActorOptions
from drumbeat.protocol.ids import ObjectId, TaskId, objects_of
from drumbeat.protocol.messages import (
    Answer,
    Cancel,
    Cancelled,
    Define,
    Enter,
    Environment,
    Failure,
    Fetch,
    Forget,
    Leave,
    Notice,
    Outcome,
    Query,
    Release,
    Results,
    Shapes,
    Shared,
    Submit,
    Unshared,
    ValueRow,
    Values,
    Wanted,
)
from drumbeat.protocol.settings import Settings
from support.client_bench import LARGE, PEER, Client, foreign, freed, resolved, sent, value

# ------------------------------------------------------------------------------------- submitting


def test_the_first_word_of_a_new_link_life_is_enter() -> None:
    client = Client(connected=False)
    assert sent(client.connect(1)) == [Enter("program", Environment(host="here"), 1)]


def test_a_call_is_submitted_after_its_kind_is_defined() -> None:
    client = Client()
    kind = client.kind()
    call = client.call(kind.number, args=b"args")
    assert sent(client.do(Submitted([kind], [call]))) == [
        Define(PEER, [kind]),
        Submit(PEER, b"", 0, [call.row]),
    ]


def test_a_function_is_sent_once_though_two_kinds_share_it() -> None:
    client = Client()
    first, second = client.kind(), client.kind(priority=1)
    commands = client.do(Submitted([first, second], []))
    assert [(row.payload, row.size) for row in sent(commands, Define)[0].rows] == [
        (b"code", 0),
        (None, 0),
    ]


def test_a_large_function_goes_by_the_bulk_link() -> None:
    client = Client()
    commands = client.do(Submitted([client.kind(payload=LARGE)], []))
    assert (sent(commands, Define)[0].rows[0].payload, sent(commands, Define)[0].rows[0].size) == (
        None,
        len(LARGE),
    )
    assert SendBlob(b"f" * 16, LARGE) in commands


def test_large_arguments_go_by_the_bulk_link() -> None:
    client = Client()
    kind = client.kind()
    call = client.call(kind.number, args=LARGE)
    commands = client.do(Submitted([kind], [call]))
    row = sent(commands, Submit)[0].rows[0]
    assert (row.args, row.size) == (None, len(LARGE))
    assert SendBlob(row.id + b"a", LARGE, row.id + b"a") in commands


def test_many_calls_travel_in_messages_of_bounded_length() -> None:
    client = Client()
    kind = client.kind()
    calls = [client.call(kind.number) for _ in range(SUBMIT_ROWS_MAX + 1)]
    lengths = [len(one.rows) for one in sent(client.do(Submitted([kind], calls)), Submit)]
    assert lengths == [SUBMIT_ROWS_MAX, 1]


def test_a_small_known_value_rides_along_with_the_call_that_needs_it() -> None:
    client = Client()
    dependency = client.put(b"small")
    kind = client.kind()
    call = client.call(kind.number, args=b"a", deps=(dependency,))
    row = sent(client.do(Submitted([kind], [call])), Submit)[0].rows[0]
    assert [one.payload for one in row.values] == [b"small"]


def test_a_value_above_small_value_bytes_does_not_ride_along() -> None:
    client = Client()
    dependency = client.put(b"x" * (Settings().small_value_bytes + 1))
    kind = client.kind()
    call = client.call(kind.number, args=b"a", deps=(dependency,))
    assert sent(client.do(Submitted([kind], [call])), Submit)[0].rows[0].values == ()


def test_what_is_submitted_without_a_link_goes_when_there_is_one() -> None:
    client = Client(connected=False)
    task = client.submit()
    messages = sent(client.connect(1))
    assert [type(one) for one in messages] == [Enter, Define, Submit]
    assert [row.id for row in messages[2].rows] == [task]


def test_what_is_submitted_while_disconnected_goes_when_the_link_resumes_and_only_once() -> None:
    client = Client()
    client.submit()
    client.do(Disconnected())
    later = client.submit()
    submits = sent(client.connect(1, resumed=True), Submit)
    assert [[row.id for row in one.rows] for one in submits] == [[later]]
    assert not sent(client.do(TimePassed()))


# ---------------------------------------------------------------------------------------- results


def test_a_result_resolves_its_object_and_is_freed_when_its_ref_goes() -> None:
    client = Client()
    task = client.submit()
    assert resolved(client.result(value(task))) == [value(task)]
    assert freed(client.drop(task)) == [task]
    assert client.at_rest()


def test_a_result_whose_ref_went_before_is_resolved_for_callbacks_and_freed() -> None:
    client = Client()
    task = client.submit()
    assert not freed(client.drop(task))
    commands = client.result(value(task))
    assert (resolved(commands), freed(commands)) == ([value(task)], [task])
    assert client.at_rest()


def test_several_values_come_one_by_one_or_together() -> None:
    client = Client()
    task = client.submit({"num_returns": 3})
    first, second, third = objects_of(task, 3)
    assert [row.id for row in resolved(client.result(value(first)))] == [first]
    assert client.core.results.finished == 0
    assert [row.id for row in resolved(client.result(value(second), value(third)))] == [
        second,
        third,
    ]
    assert client.core.results.finished == 1
    client.drop(first, second, third)
    assert client.at_rest()


def test_a_failure_of_a_task_is_the_failure_of_each_of_its_values() -> None:
    client = Client()
    task = client.submit({"num_returns": 2})
    failure = Failure("WorkerDied", "it died")
    rows = resolved(client.result(ValueRow(task, Outcome.FAILURE, failure=failure)))
    assert [(row.id, row.failure) for row in rows] == [
        (one, failure) for one in objects_of(task, 2)
    ]


def test_a_task_without_values_is_finished_by_a_row_with_its_own_id() -> None:
    client = Client()
    task = client.submit({"num_returns": 0})
    assert not resolved(client.result(ValueRow(task, Outcome.VALUE)))
    assert client.core.results.finished == 1
    assert client.at_rest()


@pytest.mark.parametrize("blob_first", [True, False])
def test_a_large_result_resolves_when_row_and_payload_are_here(blob_first: bool) -> None:
    client = Client()
    task = client.submit()
    row = Received(Results([ValueRow(task, Outcome.VALUE, None, len(LARGE))]))
    blob = BlobReceived(task, LARGE)
    first, second = (blob, row) if blob_first else (row, blob)
    assert not resolved(client.do(first))
    assert [one.payload for one in resolved(client.do(second))] == [LARGE]
    client.drop(task)
    assert client.at_rest()


@pytest.mark.parametrize("blob_first", [True, False])
def test_a_stale_large_result_is_dropped_with_its_payload(blob_first: bool) -> None:
    client = Client()
    id_ = client.next_id()
    row = Received(Results([ValueRow(id_, Outcome.VALUE, None, len(LARGE))]))
    blob = BlobReceived(id_, LARGE)
    commands = client.do(*((blob, row) if blob_first else (row, blob)))
    assert not resolved(commands)
    assert client.core.counters["stale_dropped"] == 1
    assert client.at_rest()


def test_finished_bytes_count_the_arguments_of_finished_tasks() -> None:
    client = Client()
    plain = client.submit(args=b"1234")
    contained = client.put()
    other = client.submit(args=b"12", contained=(contained,))
    client.result(value(plain), value(other))
    assert (client.core.results.finished, client.core.results.finished_bytes) == (2, 6)


# ---------------------------------------------------------------------------------- who holds what


def test_a_task_pins_what_it_depends_on_and_contains_until_its_result_is_here() -> None:
    client = Client()
    dependency, inside = client.put(), client.put()
    task = client.submit(args=b"a", deps=(dependency,), contained=(inside,))
    assert not freed(client.drop(dependency, inside))
    assert freed(client.result(value(task))) == [dependency, inside]


def test_a_value_pins_the_refs_inside_it_and_a_long_chain_of_them_is_freed() -> None:
    client = Client()
    inner = client.put()
    ids = [inner]
    for _ in range(5000):
        ids.append(ObjectId(client.next_id()))
        client.core.handle(Put([value(ids[-1], contained=(ids[-2],))]), 0.0)
    client.do()
    assert not freed(client.drop(*ids[:-1]))
    assert sorted(freed(client.drop(ids[-1]))) == sorted(ids)
    assert client.at_rest()


def test_a_shared_value_is_kept_until_nobody_else_holds_it() -> None:
    client = Client()
    id_ = client.put()
    client.do(Received(Shared([id_])))
    assert not freed(client.drop(id_))
    assert freed(client.do(Received(Unshared([id_])))) == [id_]


def test_a_delivered_ref_is_released_with_its_number_of_deliveries() -> None:
    client = Client()
    other = foreign()
    tasks = [client.submit(), client.submit()]
    client.result(*[value(task, contained=(other,)) for task in tasks])
    assert not sent(client.drop(tasks[0]), Release)
    commands = client.drop(tasks[1])
    assert sent(commands, Release) == [Release([(other, 2)])]
    assert client.at_rest()


def test_a_ref_taken_out_of_a_value_outlives_that_value() -> None:
    client = Client()
    other = foreign()
    task = client.submit()
    client.result(value(task, contained=(other,)))
    client.do(RefsChanged([(other, 1)]))
    assert not sent(client.drop(task), Release)
    assert sent(client.drop(other), Release) == [Release([(other, 1)])]


def test_the_home_releases_what_was_delivered_to_it_and_frees_when_unshared() -> None:
    client = Client()
    id_ = client.put()
    task = client.submit(args=b"a", contained=(id_,))
    client.do(Received(Shared([id_])))
    client.result(value(task, contained=(id_,)))
    assert not sent(client.drop(id_), Release)
    assert sent(client.drop(task), Release) == [Release([(id_, 1)])]
    assert freed(client.do(Received(Unshared([id_])))) == [id_]
    assert client.at_rest()


def test_a_stale_row_with_refs_inside_releases_them_at_once() -> None:
    client = Client()
    other = foreign()
    commands = client.result(value(client.next_id(), contained=(other,)))
    assert sent(commands, Release) == [Release([(other, 1)])]
    assert client.at_rest()


def test_a_ref_pickled_elsewhere_keeps_its_value_for_good() -> None:
    client = Client()
    id_ = client.put()
    client.do(Pinned([id_]))
    assert not freed(client.drop(id_))


def test_a_call_and_the_end_of_its_argument_in_one_turn_lose_nothing() -> None:
    client = Client()
    dependency = client.put()
    kind = client.kind()
    call = client.call(kind.number, args=b"a", deps=(dependency,))
    assert not freed(client.do(Submitted([kind], [call]), RefsChanged([(dependency, -1)])))


# ----------------------------------------------------------------------------- wanted and fetched


def test_a_wanted_value_is_answered_at_once_when_it_is_here() -> None:
    client = Client()
    id_ = client.put(b"v")
    rows = sent(client.do(Received(Wanted([id_]))), Values)[0].rows
    assert [(row.id, row.payload) for row in rows] == [(id_, b"v")]


def test_a_wanted_large_value_goes_by_the_bulk_link() -> None:
    client = Client()
    id_ = client.put(LARGE)
    commands = client.do(Received(Wanted([id_])))
    assert sent(commands, Values)[0].rows == [ValueRow(id_, Outcome.VALUE, None, len(LARGE))]
    assert SendBlob(id_, LARGE, id_) in commands


def test_a_wanted_pending_value_is_kept_and_answered_when_it_comes() -> None:
    client = Client()
    task = client.submit()
    assert not sent(client.do(Received(Wanted([task]))), Values)
    client.drop(task)
    commands = client.result(value(task))
    assert sent(commands, Values) == [Values([value(task)])]
    assert freed(commands) == [task]


def test_a_wanted_value_that_is_gone_is_answered_with_object_lost() -> None:
    client = Client()
    row = sent(client.do(Received(Wanted([client.next_id()]))), Values)[0].rows[0]
    assert (row.outcome, row.failure.error) == (Outcome.FAILURE, "ObjectLost")


def test_somebody_elses_value_is_fetched_once_when_it_is_awaited() -> None:
    client = Client()
    other = foreign()
    client.do(RefsChanged([(other, 1)]))
    assert sent(client.do(Awaited([other]))) == [Fetch([other])]
    assert not sent(client.do(Awaited([other])))
    assert resolved(client.do(Received(Values([value(other)])))) == [value(other)]
    assert freed(client.drop(other)) == [other]
    assert client.at_rest()


def test_an_own_value_that_nobody_makes_is_lost_and_does_not_hang() -> None:
    client = Client()
    id_ = ObjectId(client.next_id())
    client.do(RefsChanged([(id_, 1)]))
    rows = resolved(client.do(Awaited([id_])))
    assert [(row.id, row.failure and row.failure.error) for row in rows] == [(id_, "ObjectLost")]


def test_a_fetched_value_that_nobody_waits_for_any_more_is_dropped() -> None:
    client = Client()
    other, inside = foreign(1), foreign(2)
    client.do(RefsChanged([(other, 1)]), Awaited([other]))
    client.drop(other)
    commands = client.do(Received(Values([value(other, contained=(inside,))])))
    assert not resolved(commands)
    assert sent(commands, Release) == [Release([(inside, 1)])]
    assert client.at_rest()


# ------------------------------------------------------------------------------ cancel, ask, words


def test_cancel_is_sent_after_the_submission_it_is_about() -> None:
    client = Client()
    kind = client.kind()
    call = client.call(kind.number)
    asked = CancelAsked([TaskId(call.row.id)], force=True, recursive=False)
    messages = sent(client.do(Submitted([kind], [call]), asked))
    assert [type(one) for one in messages] == [Define, Submit, Cancel]
    assert messages[2] == Cancel([call.row.id], True, False, 0)


def test_cancelling_what_was_never_sent_fails_it_here() -> None:
    client = Client(connected=False)
    task = client.submit()
    commands = client.do(CancelAsked([task], False, True, request=7))
    assert [row.failure and row.failure.error for row in resolved(commands)] == ["TaskCancelled"]
    assert Reply(7, [True]) in commands
    assert not sent(client.connect(1), Submit)


def test_the_name_of_an_actor_whose_creation_was_never_sent_is_let_go() -> None:
    client = Client()
    client.do(Disconnected())
    creates = ActorOptions(name="one", namespace="space", told=b"class")
    task = client.submit({"creates": creates})
    commands = client.do(CancelAsked([task], False, True))
    named = ActorName("one", "space", task, frees=True)
    assert sent(commands, Query) == [Query(0, "name", named=named)]


def test_a_request_to_cancel_is_answered_in_order_with_finished_ones_false() -> None:
    client = Client()
    done, running = client.submit(), client.submit()
    client.result(value(done))
    commands = client.do(CancelAsked([done, running], False, True, request=3))
    assert sent(commands, Cancel) == [Cancel([running], False, True, 3)]
    assert client.do(Received(Cancelled(3, [True]))) == [Reply(3, [False, True])]


def test_a_question_is_asked_and_its_answer_handed_back_once() -> None:
    client = Client()
    assert sent(client.do(Asked(Query(5, "status", 100, "")))) == [Query(5, "status", 100, "")]
    assert client.do(Received(Answer(5, {"a": 1}))) == [Reply(5, {"a": 1})]
    assert client.do(Received(Answer(5, {"a": 1}))) == []


def test_words_and_shapes_are_passed_on() -> None:
    client = Client()
    assert client.do(Received(Notice("hello"))) == [Print(Notice("hello"))]
    assert client.do(Received(Shapes([]))) == [ShapesKnown(Shapes([]))]


def test_leaving_is_said_last() -> None:
    client = Client()
    kind = client.kind()
    commands = client.do(Submitted([kind], [client.call(kind.number)]), Leaving())
    assert [type(one) for one in sent(commands)] == [Define, Submit, Leave]


# ------------------------------------------------------------------------------------------- kinds


def test_a_dropped_kind_is_forgotten_when_no_task_uses_it() -> None:
    client = Client()
    kind = client.kind()
    calls = [client.call(kind.number), client.call(kind.number)]
    client.do(Submitted([kind], calls))
    assert not sent(client.do(KindsDropped([kind.number])), Forget)
    assert not sent(client.result(value(calls[0].row.id)), Forget)
    assert sent(client.result(value(calls[1].row.id)), Forget) == [Forget([kind.number])]


def test_a_function_is_sent_again_after_all_its_kinds_were_forgotten() -> None:
    client = Client()
    kind = client.kind()
    client.do(Submitted([kind], []))
    assert sent(client.do(KindsDropped([kind.number])), Forget)
    assert sent(client.do(Submitted([client.kind()], [])), Define)[0].rows[0].payload == b"code"


def test_the_core_asks_for_no_time() -> None:
    assert Client().core.deadline_s() is None

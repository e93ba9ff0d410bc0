"""Actors that run several calls at once, at their node: sent, ended, stopped, timed, told of."""

import pytest
from drumbeat.node import events
from drumbeat.node.handing import AHEAD_MAX
from drumbeat.node.packets import (
    Begun,
    BegunRow,
    CallsTold,
    Exit,
    Finished,
    FinishedRow,
    Returned,
    Run,
    StopCalls,
    TellCalls,
)
from drumbeat.node.page import RUNNING_CODE, WAITING
from drumbeat.protocol.messages import (
    Assign,
    Outcome,
    Stop,
    StopMode,
    ValueRow,
)
from drumbeat.protocol.running import Stack, Stacks
from support.node_acting import CALL
from support.node_bench import OTHER
from support.node_several import AT_ONCE, beaten, page_says, staged


@pytest.fixture
def stage():
    return staged()


def in_hand(stage):
    return list(stage.hosted().hand)


def look(stage, running=2, phase=WAITING, state="S", elapsed_s=1.0, started=0):
    beat = int(stage.now_s * 100)
    row = events.Evidence(1, beat, running, phase, elapsed_s, 0, state, 1.0, 5, started=started)
    return stage.feed(events.Seen([row]))


# ------------------------------------------------------------------------------------ sent, ended


def test_as_many_calls_as_may_run_and_some_more_are_sent_at_once_whatever_they_take(stage):
    calls = stage.call(AT_ONCE + AHEAD_MAX + 10)
    assert len(in_hand(stage)) == AT_ONCE + AHEAD_MAX
    assert [row.id for row in stage.rows[1].values()] == calls[: AT_ONCE + AHEAD_MAX]
    stage.finish(1, 5)
    assert len(in_hand(stage)) == AT_ONCE + AHEAD_MAX
    assert max(in_hand(stage)) == AT_ONCE + AHEAD_MAX + 2


def test_one_packet_holds_many_calls_of_which_nobody_knows_how_long_they_take(stage):
    stage.call(20)
    packets = [c.packet for c in stage.of(events.SendWorker) if type(c.packet) is Run]
    assert [len(packet.rows) for packet in packets] == [20]


def test_calls_end_in_any_order_each_as_it_is_told(stage):
    calls = stage.call(5)
    for seq in (4, 2, 6, 3, 5):
        stage.finish(1, seq)
        assert [row.id for row in stage.done()] == [calls[seq - 2]]
    assert not in_hand(stage)


def test_a_call_that_is_not_whole_holds_back_its_callers_later_ones_only(stage):
    large = stage.row(CALL, args=None, size=100_000)
    later, other = stage.row(CALL), stage.row(CALL, client=OTHER)
    stage.hear(Assign([large, later, other]))
    assert [row.id for row in stage.rows[1].values()] == [other.id]
    stage.feed(events.BlobReceived(large.id + b"a", b"x" * 100_000))
    assert [row.id for row in stage.rows[1].values()] == [other.id, large.id, later.id]


def test_its_end_is_asked_for_when_the_last_of_its_calls_has_ended(stage):
    stage.call(2)
    stage.hear(Stop([(stage.actor, 1, StopMode.EXIT)]))
    stage.finish(1, 3)
    assert not stage.told(1, Exit)
    stage.finish(1, 2)
    assert stage.told(1, Exit)


def test_when_it_dies_those_that_had_begun_are_lost_and_the_others_go_back_in_order(stage):
    calls = stage.call(6)
    stage.finish(1, 3)
    stage.die(1, started=4)
    done = {row.id: row for row in stage.done()}
    assert [call in done for call in calls] == [True, False, True, False, False, False]
    assert all(done[call].died for call in (calls[0], calls[2]))
    assert stage.told_back() == calls[3:]
    assert stage.order_of_news().index("TakenBack") < stage.order_of_news().index("Done")


# ------------------------------------------------------------------------------------ interrupted


def test_a_call_that_has_begun_is_interrupted_by_a_packet_though_it_is_not_the_first(stage):
    calls = stage.call(3)
    stage.hear(Stop([(calls[1], 1, StopMode.SOFT)]))
    page_says(stage, started=4)
    assert [packet.rows for packet in stage.told(1, StopCalls)] == [[(3, "cancelled")]]
    assert not stage.of(events.Interrupt)
    assert in_hand(stage) == [2, 3, 4]


def test_several_are_interrupted_at_the_same_time_each_for_itself(stage):
    calls = stage.call(3)
    stage.hear(Stop([(call, 1, StopMode.SOFT) for call in calls]))
    told = []
    new = stage.commands
    while new:
        told += [c.packet for c in new if type(c) is events.SendWorker]
        asks = [c for c in new if type(c) in (events.ReadPage, events.TakePackets)]
        new = [] if not asks else stage.feed(*(answer(ask) for ask in asks))
    rows = [row for packet in told if type(packet) is StopCalls for row in packet.rows]
    assert sorted(rows) == [(2, "cancelled"), (3, "cancelled"), (4, "cancelled")]


def answer(ask):
    if type(ask) is events.ReadPage:
        return events.PageRead([(1, 4, True)])
    return events.PacketsTaken(1, [])


def test_one_that_had_not_begun_is_cancelled_and_the_others_keep_their_order(stage):
    calls = stage.call(6)
    stage.hear(Stop([(calls[4], 1, StopMode.SOFT)]))
    page_says(stage, started=4)
    assert in_hand(stage) == [2, 3, 4, 5]
    stage.say(1, Returned([6, 7]))
    assert [call.row.id for call in stage.hosted().hand.values()] == [*calls[:4], calls[5]]
    assert in_hand(stage) == [2, 3, 4, 5, 8]


def test_a_cancelled_call_never_takes_its_actor_along(stage):
    calls = stage.call(2)
    stage.hear(Stop([(calls[0], 1, StopMode.SOFT)]))
    page_says(stage, started=3)
    assert not [c for c in stage.after(60.0) if type(c) is events.Signal]


# ------------------------------------------------------------------------------------ timed


def test_each_call_is_timed_from_when_its_worker_says_that_it_began():
    stage = staged(2, timeout_s=2.0, settings={"cancel_grace_s": 1.0, "term_grace_s": 1.0})
    first, second, third = stage.assign(3, kind=CALL + 1)
    stage.after(1.5)
    look(stage)
    stage.say(1, Begun([BegunRow(2, 1.5), BegunRow(3, 0.2)]))
    for _ in range(4):
        stage.after(0.25)
        look(stage, started=3)
    judged = [attempt.row.id for attempt in stage.hosted().hand.values() if attempt.case]
    assert judged == [first]
    stage.after(0.25)
    for _ in range(4):
        look(stage, started=3)
        stage.after(0.25)
    judged = [attempt.row.id for attempt in stage.hosted().hand.values() if attempt.case]
    assert judged == [first, second]
    assert third not in judged, "nobody has said that it began"


def test_one_that_keeps_its_worker_from_saying_so_is_timed_by_the_page():
    stage = staged(2, timeout_s=2.0)
    first, second, third = stage.assign(3, kind=CALL + 1)
    elapsed_s = 0.0
    judged = {}
    for _ in range(14):
        stage.after(0.25)
        elapsed_s += 0.25
        # The second came a second later, and the first keeps the interpreter.
        look(stage, 2, RUNNING_CODE, "R", elapsed_s, 2 if elapsed_s < 1.0 else 3)
        for attempt in stage.hosted().hand.values():
            if attempt.case:
                judged.setdefault(attempt.row.id, elapsed_s)
    assert judged == {first: 2.0, second: 3.0}
    assert third not in judged, "it was not its turn"


def test_what_was_given_back_unstarted_is_timed_no_more():
    stage = staged(timeout_s=2.0)
    stage.assign(2, kind=CALL + 1)
    stage.after(0.25)
    look(stage, started=3)
    assert list(stage.hosted().begun) == [2, 3]
    stage.say(1, Returned([3]))
    stage.after(0.25)
    look(stage, started=3)
    assert list(stage.hosted().begun) == [2]


def test_time_in_which_it_was_stopped_or_nobody_could_look_does_not_count():
    stage = staged(timeout_s=2.0)
    stage.assign(kind=CALL + 1)
    stage.say(1, Begun([BegunRow(2, 0.2)]))
    stage.after(0.25)
    look(stage)
    for _ in range(20):
        stage.after(0.25)
        look(stage, state="T")
    stage.now_s += 30.0
    look(stage)
    (attempt,) = stage.hosted().hand.values()
    assert attempt.case is None
    for _ in range(9):
        stage.after(0.25)
        look(stage)
    assert attempt.case is not None


def test_a_call_that_tells_of_progress_is_not_hung_and_one_beside_it_that_does_not_is():
    stage = staged(heartbeat_timeout_s=1.0)
    stage.assign(2, kind=CALL + 1)
    stage.say(1, Begun([BegunRow(2, 0.2), BegunRow(3, 0.2)]))
    for count in range(1, 8):
        stage.say(1, Begun([BegunRow(2, 0.0, count, float(count), 10.0)]))
        stage.after(0.25)
        look(stage)
    first, second = stage.hosted().hand.values()
    assert first.case is None
    assert second.case is not None
    assert second.case.reason == "hung"


def test_what_is_judged_ends_as_that_and_the_value_that_still_comes_goes_with_it():
    stage = staged(timeout_s=1.0)
    (call,) = stage.assign(kind=CALL + 1)
    stage.after(0.9)
    look(stage)
    stage.say(1, Begun([BegunRow(2, 0.9)]))
    stage.after(0.25)
    look(stage)
    stage.say(1, Finished([FinishedRow(2, (ValueRow(call, Outcome.VALUE, b"late"),), 1.2)]))
    (row,) = stage.done()
    assert row.values[0].failure.error == "TaskTimedOut"
    assert row.values[0].failure.details["limit"] == "timeout"


# ------------------------------------------------------------------------------------ told of


def test_a_beat_tells_of_every_call_that_has_run_for_a_while(stage):
    calls = stage.call(3)
    stage.after(0.5)
    look(stage)
    stage.say(1, Begun([BegunRow(2, 0.5), BegunRow(3, 0.4, 2, 5.0, 9.0)]))
    rows = {row.id: row for row in beaten(stage.after(2.0))}
    assert set(rows) == {calls[0], calls[1]}
    assert rows[calls[1]].verdict == "waiting"
    assert (rows[calls[1]].done, rows[calls[1]].total, rows[calls[1]].progresses) == (5, 9, 2)
    assert rows[calls[1]].elapsed_s > rows[calls[1]].progress_s


def test_of_threads_nobody_says_that_they_wait():
    stage = staged(in_threads=True)
    calls = stage.call(2)
    stage.after(0.5)
    look(stage, phase=RUNNING_CODE)
    stage.say(1, Begun([BegunRow(2, 0.5), BegunRow(3, 0.4)]))
    rows = {row.id: row.verdict for row in beaten(stage.after(2.0))}
    assert rows[calls[1]] == "running"


def test_where_its_calls_are_goes_before_its_threads(stage):
    stage.call(1)
    stage.hear(Stack(7, [], [], all=True))
    assert [packet.number for packet in stage.told(1, TellCalls)] == [7]
    stage.say(1, CallsTold(7, "Coroutine a (most recent call first):\n"))
    stage.feed(events.Dumped(1, "Current thread\n"))
    (answer,) = stage.sent(Stacks)
    assert answer.rows[0].text == "Coroutine a (most recent call first):\nCurrent thread\n"


def test_the_stacks_of_an_actor_are_headed_by_itself_and_those_of_a_call_by_that(stage):
    first, second = stage.call(2)
    for asked in (stage.actor, second):
        stage.hear(Stack(7, [asked], []))
        stage.say(1, CallsTold(7, ""))
        stage.feed(events.Dumped(1, "Current thread\n"))
        (answer,) = stage.sent(Stacks)
        assert [row.task for row in answer.rows] == [asked]
    assert first not in (stage.actor, second)


def test_who_cannot_say_where_its_calls_are_is_not_awaited_for_long(stage):
    stage.call(1)
    stage.hear(Stack(7, [], [], all=True))
    stage.feed(events.Dumped(1, "Current thread\n"))
    assert not stage.sent(Stacks)
    commands = stage.after(0.1)
    (answer,) = [
        c.message for c in commands if type(c) is events.Send and type(c.message) is Stacks
    ]
    assert answer.rows[0].text == "Current thread\n"


def test_what_a_worker_tells_of_calls_that_are_over_is_nothing(stage):
    stage.call(1)
    stage.finish(1, 2)
    stage.say(1, Begun([BegunRow(2, 0.5), BegunRow(99, 0.5)]))
    stage.say(1, CallsTold(99, "nobody asked"))
    assert not stage.hosted().begun

"""A node and a scheduler that comes back: what goes on, what is told again, what is dropped."""

import pytest
from drumbeat.node import events
from drumbeat.node.packets import Ask, CancelTasks, Finished, Run, Want
from drumbeat.protocol.actors import ActorsGone
from drumbeat.protocol.ids import IdFactory
from drumbeat.protocol.messages import (
    Assign,
    Beat,
    Blocked,
    Cancel,
    Define,
    Discard,
    Done,
    Fetch,
    Join,
    NodeKindRow,
    Options,
    Output,
    Prepare,
    Query,
    Release,
    Stop,
    StopMode,
    Submit,
    TakeBack,
    TakenBack,
    TaskRow,
)
from drumbeat.protocol.recovery import (
    HandedOver,
    Holding,
    Inventory,
    InventoryRow,
    Phase,
    Recovered,
    Registered,
    Report,
)
from support.node_bench import CLIENT, NODE, OTHER, NodeBench, at_rest, nest, restart, value

LARGE = b"x" * (64 << 10) + b"y"


@pytest.fixture
def bench():
    return NodeBench.ready_with_two()


def inventory(bench: NodeBench) -> dict[bytes, tuple[int, int]]:
    """Return what was named last: task -> (attempt, phase)."""
    rows = [row for piece in bench.sent(Inventory) for row in piece.rows]
    return {row.id: (row.attempt, row.phase) for row in rows}


# -------------------------------------------------------------------------- which life it is


def test_the_same_scheduler_in_a_new_life_of_the_link_has_given_this_node_up(bench):
    inside = IdFactory(OTHER)()
    bench.assign(2, contained=(inside,))
    bench.finish(1, contained=[inside])
    said = restart(bench, 1)
    assert [type(word) for word in said] == [Join]
    assert {(signal.worker, signal.name) for signal in bench.of(events.Signal)} == {
        (1, "KILL"),
        (2, "KILL"),
    }
    bench.die(1, 1)
    bench.die(2, 1)
    assert at_rest(bench) == {}
    assert bench.core.counters["restarts"] == 1


def test_another_scheduler_finds_everything_as_it_was_and_nothing_is_killed(bench):
    tasks = bench.assign(3)
    restart(bench)
    assert not bench.of(events.Signal)
    assert set(inventory(bench)) == set(tasks)
    assert bench.core.counters["scheduler_restarts"] == 1
    for _ in range(3):
        for worker in list(bench.rows):
            bench.finish(worker)
    assert at_rest(bench) == {}


def test_a_scheduler_that_ends_twice_is_another_each_time_until_it_gives_the_node_up(bench):
    (task,) = bench.assign()
    for epoch in (2, 3):
        restart(bench, epoch)
        assert inventory(bench) == {task: (1, Phase.RUNNING)}
    assert [type(word) for word in restart(bench, 3)] == [Join]
    assert bench.core.at_rest()["attempts"] == 0


def test_a_node_says_in_which_epoch_it_last_knew_what_became_of_its_calls(bench):
    assert [word.settled for word in restart(bench, 2) if isinstance(word, Join)] == [1]
    assert [word.settled for word in restart(bench, 3) if isinstance(word, Join)] == [1]
    bench.hear(Recovered())
    assert [word.settled for word in restart(bench, 4) if isinstance(word, Join)] == [3]
    assert [word.settled for word in restart(bench, 4) if isinstance(word, Join)] == [4]


def test_all_is_told_in_the_order_that_is_promised(bench):
    foreign, awaited = IdFactory(OTHER)(), IdFactory(OTHER)()
    (task,) = bench.assign(contained=(foreign,))
    (worker,) = bench.ran()
    child = IdFactory(NODE, worker)()
    nest(bench, worker, TaskRow(child, 1, b"args"))
    bench.say(worker, CancelTasks([child], True, False), Ask(5, "status", 10, "f"))
    bench.want(worker, awaited)
    said = restart(bench)
    assert said == [
        Join("lab", "here", 7, {"CPU": 2.0}, settled=1),
        Inventory([CLIENT], [InventoryRow(task, 1, Phase.BLOCKED)], True),
        said[2],
        Submit(CLIENT, b"p" * 14, 1, [TaskRow(child, 1, b"args")], [1]),
        Holding([(foreign, 1)]),
        Cancel([child], True, False),
        Query(1, "status", 10, "f"),
        Fetch([awaited]),
        Registered(),
        ActorsGone(),
    ]
    assert isinstance(said[2], Define)
    assert [(row.number, row.name, row.payload) for row in said[2].rows] == [
        (1, "child", b"nested")
    ]


# -------------------------------------------------------------------------------- inventory


def test_the_inventory_tells_how_far_each_attempt_is():
    bench = NodeBench({"CPU": 2.0})
    bench.ready()
    ended, waits, runs, behind = bench.assign(4, expected_s=1e-4)
    hands = {row.id: (n, seq) for n, rows in bench.rows.items() for seq, row in rows.items()}
    bench.feed(events.Disconnected())
    bench.finish(hands[ended][0], hands[ended][1])
    queued = bench.assign(1, expected_s=-1.0)[0]
    worker, seq = hands[waits]
    while next(iter(bench.rows[worker])) != seq:
        bench.finish(worker, next(iter(bench.rows[worker])))
    bench.want(worker, IdFactory(OTHER)(), seq=seq)
    bench.feed(events.Connected(2, False))
    known = inventory(bench)
    assert known[ended] == (1, Phase.ENDED)
    assert known[waits] == (1, Phase.BLOCKED)
    assert set(known) == {ended, waits, runs, behind, queued}
    flight = [list(w.flight.values()) for w in bench.core._state.workers.values()]
    for attempts in flight:
        for place, attempt in enumerate(attempts):
            if attempt.row.id != waits:
                phase = Phase.QUEUED if place else Phase.RUNNING
                assert known[attempt.row.id] == (1, phase)


def test_what_waits_here_is_told_as_queued(bench):
    tasks = bench.assign(4)
    restart(bench)
    phases = [inventory(bench)[task][1] for task in tasks]
    assert phases == [Phase.RUNNING, Phase.RUNNING, Phase.QUEUED, Phase.QUEUED]


def test_a_long_inventory_comes_in_pieces_and_an_empty_one_comes_too(bench):
    bench.assign(600)
    restart(bench)
    pieces = bench.sent(Inventory)
    assert [(len(piece.rows), piece.last) for piece in pieces] == [(512, False), (88, True)]
    bench = NodeBench()
    restart(bench)
    assert bench.sent(Inventory) == [Inventory([CLIENT], [], True)]


# ------------------------------------------------------------------------------ held results


def test_a_result_is_kept_until_it_is_handed_over(bench):
    bench.assign(2)
    first, second = (bench.finish(worker) and bench.sent(Done)[0].number for worker in (1, 2))
    assert (first, second) == (1, 2)
    assert bench.core.at_rest()["held"] == 2
    bench.hear(HandedOver([second]))
    assert bench.core.at_rest()["held"] == 1
    bench.hear(HandedOver([first]))
    assert at_rest(bench) == {}


def test_many_ends_in_one_turn_are_several_messages_with_a_number_each():
    bench = NodeBench({"CPU": 1.0}, {"packet_tasks_max": 600})
    bench.ready()
    bench.assign(600, expected_s=1e-7)
    finished = bench.finished(1)
    last = finished.rows[-1]
    last.values = (value(last.values[0].id, LARGE, [IdFactory(OTHER)()]),)
    bench.say(1, finished)
    assert [(len(done.rows), done.number) for done in bench.sent(Done)] == [(512, 1), (88, 2)]
    assert bench.done()[-1].values[0].size == len(LARGE)
    bench.hear(HandedOver([1]))
    assert bench.core.at_rest()["objects"] == 1, "its message is the second"
    bench.hear(HandedOver([2]))
    assert bench.core.at_rest()["objects"] == 0


def test_what_ended_while_no_scheduler_was_there_is_told_as_ended_and_again_when_asked_for(bench):
    (task,) = bench.assign()
    (worker,) = bench.ran()
    bench.feed(events.Disconnected())
    bench.finish(worker)
    bench.feed(events.Connected(2, False))
    assert inventory(bench) == {task: (1, Phase.ENDED)}
    assert not bench.sent(Done), "nobody has asked for it"
    bench.hear(Report([(task, 1)]))
    (done,) = bench.sent(Done)
    assert (done.number, done.rows[0].id, done.rows[0].attempt) == (1, task, 1)
    assert done.rows[0].values == (value(task),)
    assert bench.core.at_rest()["ended"] == 0
    assert at_rest(bench) == {}


def test_what_ends_in_the_very_turn_in_which_the_scheduler_comes_is_told_as_ended(bench):
    (task,) = bench.assign()
    (worker,) = bench.ran()
    restart(bench, 2, events.WorkerSpoke(worker, bench.finished(worker)))
    assert inventory(bench) == {task: (1, Phase.ENDED)}
    assert not bench.sent(Done)


def test_what_ends_after_the_scheduler_has_come_is_told_under_a_number_of_the_new_life(bench):
    bench.assign(2)
    bench.finish(1)
    restart(bench)
    bench.finish(2)
    assert bench.sent(Done)[0].number == 1
    assert at_rest(bench) == {"ended": 1}


def test_a_large_result_is_sent_again_with_its_report(bench):
    (task,) = bench.assign()
    (worker,) = bench.ran()
    rows = bench.finished(worker).rows
    rows[0].values = (value(task, LARGE),)
    bench.say(worker, Finished(rows))
    restart(bench)
    assert not bench.of(events.SendBlob)
    bench.hear(Report([(task, 1)]))
    assert bench.of(events.SendBlob) == [events.SendBlob(task, LARGE, task + bytes(7) + b"\1")]
    assert (bench.done()[0].values[0].payload, bench.done()[0].values[0].size) == (None, len(LARGE))
    assert at_rest(bench) == {}


def test_a_report_of_what_is_not_here_is_counted(bench):
    (task,) = bench.assign()
    bench.finish(next(iter(bench.ran())))
    restart(bench)
    bench.hear(Report([(task, 2), (b"?" * 14, 1)]))
    assert not bench.done()
    assert bench.core.counters["reports_unanswered"] == 2
    assert bench.core.at_rest()["ended"] == 1


def test_an_ended_attempt_that_nobody_waits_for_is_forgotten_when_it_is_stopped(bench):
    inside = IdFactory(OTHER)()
    (task,) = bench.assign(contained=(inside,))
    (worker,) = bench.ran()
    bench.finish(worker, contained=[inside])
    restart(bench)
    bench.hear(Stop([(task, 1, StopMode.SOFT)]))
    assert bench.core.at_rest()["ended"] == 1, "a value beats a cancel"
    bench.hear(Stop([(task, 2, StopMode.FORCE)]))
    assert bench.core.at_rest()["ended"] == 1, "another attempt"
    bench.hear(Stop([(task, 1, StopMode.FORCE)]))
    assert bench.sent(Release) == [Release([(inside, 1)])]
    assert at_rest(bench) == {}


def test_results_for_a_client_that_left_are_forgotten(bench):
    bench.assign()
    bench.finish(next(iter(bench.ran())))
    restart(bench)
    bench.hear(Discard([], [CLIENT]))
    assert bench.core.at_rest()["ended"] == 0


def test_an_attempt_of_the_former_life_can_be_stopped(bench):
    (task,) = bench.assign()
    (worker,) = bench.ran()
    restart(bench)
    bench.hear(Stop([(task, 1, StopMode.FORCE)]))
    assert bench.of(events.Signal) == [events.Signal(worker, "KILL")]
    bench.die(worker, 1)
    assert bench.done()[0].values[0].failure.error == "TaskCancelled"


def test_a_later_attempt_waits_until_the_one_that_is_stopped_has_ended(bench):
    (task,) = bench.assign()
    (worker,) = bench.ran()
    restart(bench)
    bench.prepare(1)
    bench.hear(Stop([(task, 1, StopMode.FORCE)]))
    bench.hear(Assign([bench.row(id=task, attempt=2)]))
    assert at_rest(bench)["later"] == 1
    bench.die(worker, 1)
    assert [row.attempt for row in bench.done()] == [1]
    (worker,) = bench.ran()
    bench.finish(worker)
    assert [row.attempt for row in bench.done()] == [2]
    assert "later" not in at_rest(bench)


def test_a_later_attempt_that_waits_can_be_stopped_too(bench):
    (task,) = bench.assign()
    (worker,) = bench.ran()
    restart(bench)
    bench.prepare(1)
    bench.hear(Stop([(task, 1, StopMode.FORCE)]))
    bench.hear(Assign([bench.row(id=task, attempt=2)]))
    bench.hear(Stop([(task, 2, StopMode.SOFT)]))
    bench.die(worker, 1)
    assert [(row.attempt, row.values[0].failure.error) for row in bench.done()] == [
        (1, "TaskCancelled"), (2, "TaskCancelled"),
    ]  # fmt: skip
    assert bench.ran() == {}


def test_a_second_restart_before_anything_was_handed_over_loses_nothing(bench):
    first, second, third = bench.assign(3)
    (ended,) = bench.ran()[1]
    bench.finish(1)
    restart(bench, 2)
    bench.hear(Report([(ended, 1)]))
    assert [row.id for row in bench.done()] == [ended]
    bench.finish(2)
    numbers = dict.fromkeys([first, second, third], (1, Phase.ENDED))
    numbers[third] = (1, Phase.RUNNING)
    restart(bench, 3)
    assert inventory(bench) == numbers
    bench.hear(Report([(first, 1), (second, 1)]))
    assert (bench.sent(Done)[0].number, len(bench.done())) == (1, 2)
    bench.finish(1)
    assert at_rest(bench) == {}


def test_of_two_ended_attempts_the_later_one_is_kept(bench):
    inside = IdFactory(OTHER)()
    (task,) = bench.assign(contained=(inside,))
    bench.finish(next(iter(bench.ran())), contained=[inside])
    bench.hear(Assign([bench.row(id=task, attempt=2)]))
    (worker,) = bench.ran()
    bench.finish(worker)
    restart(bench)
    assert inventory(bench) == {task: (2, Phase.ENDED)}
    assert bench.sent(Release) == [Release([(inside, 1)])]


def test_an_attempt_that_ended_is_not_told_when_a_later_one_runs(bench):
    (task,) = bench.assign()
    bench.finish(next(iter(bench.ran())))
    bench.hear(Assign([bench.row(id=task, attempt=2)]))
    restart(bench)
    assert inventory(bench) == {task: (2, Phase.RUNNING)}
    assert bench.core.at_rest()["ended"] == 0


def test_refs_in_a_result_are_held_over_restarts_until_it_is_handed_over(bench):
    inside = IdFactory(OTHER)()
    (task,) = bench.assign(contained=(inside,))
    (worker,) = bench.ran()
    bench.finish(worker, contained=[inside])
    restart(bench, 2)
    assert bench.sent(Holding) == [Holding([(inside, 1)])]
    assert not bench.sent(Release)
    bench.hear(Report([(task, 1)]))
    assert not bench.sent(Release)
    restart(bench, 3)
    bench.hear(Report([(task, 1)]))
    assert not bench.sent(Release)
    bench.hear(HandedOver([1]))
    assert bench.sent(Release) == [Release([(inside, 1)])]
    assert at_rest(bench) == {}


# ------------------------------------------------------------------------- kinds and the queue


def test_kinds_get_other_numbers_while_attempts_of_the_old_ones_run(bench):
    old = bench.assign(4)
    restart(bench)
    bench.hear(Prepare([], [NodeKindRow(1, CLIENT, b"o" * 16, "other", Options(), b"code")]))
    (new,) = bench.assign(1, 1)
    ran: dict[bytes, int] = {}
    for _ in range(4):
        for worker in (1, 2):
            bench.finish(worker)
            for packet in bench.told(worker, Run):
                ran |= {row.id: row.kind for row in packet.rows}
    assert set(ran) == {*old[2:], new}
    assert ran[old[2]] == ran[old[3]] == 1
    assert ran[new] != 1


def test_a_kind_that_is_prepared_again_is_known_to_the_workers(bench):
    bench.assign(2)
    restart(bench)
    bench.hear(Prepare([], [NodeKindRow(7, CLIENT, b"\1" * 16, "kind1", Options(), b"code")]))
    bench.finish(1)
    bench.hear(Assign([bench.row(7)]))
    (run,) = bench.told(1, Run)
    assert (run.definitions, run.rows[0].kind) == ([], 1)


def test_kinds_of_the_former_life_are_not_known_by_their_numbers(bench):
    restart(bench)
    bench.assign(1, 1)
    assert not bench.ran()
    assert bench.core.counters["stale_dropped"] == 1


def test_attempts_of_the_former_life_come_before_those_of_the_new_one(bench):
    bench.order = 1000
    old = bench.assign(4)
    restart(bench)
    bench.prepare(1)
    bench.order = 0
    new = bench.assign(2)
    ran = []
    for _ in range(4):
        for worker in (1, 2):
            bench.finish(worker)
            ran += [task for tasks in bench.ran().values() for task in tasks]
    assert ran == [*old[2:], *new]


def test_what_the_old_scheduler_wanted_back_is_not_given_to_the_new_one(bench):
    bench.assign(6, expected_s=1e-4)
    bench.hear(TakeBack(6))
    restart(bench)
    assert not bench.sent(TakenBack)
    bench.feed(events.PacketsTaken(1, []), events.PacketsTaken(2, []))
    assert not bench.sent(TakenBack)
    bench.hear(TakeBack(0))
    assert bench.sent(TakenBack) == [TakenBack([])]


def test_attempts_and_kinds_that_are_not_whole_are_dropped(bench):
    inside = IdFactory(OTHER)()
    row = bench.row(args=None, size=5, contained=(inside,))
    bench.hear(Assign([row]))
    bench.hear(Prepare([], [NodeKindRow(2, CLIENT, b"g" * 16, "g", Options(), None, 7)]))
    bench.assign(1, 2)
    restart(bench)
    assert inventory(bench) == {}
    assert bench.sent(Release) == [Release([(inside, 1)])], "as it holds what came with it"
    assert at_rest(bench) == {}
    bench.feed(events.BlobReceived(row.id + b"a", b"large"))
    assert not bench.ran()


# -------------------------------------------------------------------------- output and beats


def test_output_and_beats_go_on(bench):
    (task,) = bench.assign()
    restart(bench, 2, events.Spoke([(1, b"hello\n", 0)]))
    (output,) = bench.sent(Output)
    assert (output.client, output.rows[0].text) == (CLIENT, b"hello\n")
    bench.after(1.0)
    assert bench.sent(Beat)[0].running[0].id == task
    bench.prepare(1)
    bench.feed(events.Noticed("late"))
    assert [output.client for output in bench.sent(Output)] == [CLIENT]


def test_who_began_to_wait_just_before_is_told_by_the_inventory_alone(bench):
    (task,) = bench.assign()
    (worker,) = bench.ran()
    bench.feed(events.Disconnected())
    want = Want(1, 1, [IdFactory(OTHER)()], 1, None, values=True)
    bench.feed(events.WorkerSpoke(worker, want), events.Connected(2, False))
    assert inventory(bench) == {task: (1, Phase.BLOCKED)}
    assert not bench.sent(Blocked)

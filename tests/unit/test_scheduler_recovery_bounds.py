"""After a restart: what is kept, and for how long, has bounds with names."""

import pytest
from drumbeat.protocol.frames import PROTOCOL_VERSION, Hello
from drumbeat.protocol.messages import Define, KindRow, Notice, Options, Submit, TaskRow
from drumbeat.protocol.recovery import Inventory, Recovered
from drumbeat.scheduler import doubts, events, recovery
from support.restarts import CLIENT, NODE, OTHER, Restarted, ids, row


def recovered(stage: Restarted, peer: bytes) -> bool:
    return bool(stage.take(peer, Recovered))  # type: ignore[arg-type]


def test_who_is_back_and_tells_nothing_keeps_recovery_open_for_register_timeout_s() -> None:
    stage = Restarted("n", register_timeout_s=30.0)
    node = stage.node_back(clients=())
    stage.at(1.0).client_enters()
    stage.at(30.9)
    assert not recovered(stage, node)
    stage.at(31.3).turn()
    assert recovered(stage, node)
    assert not recovered(stage, CLIENT), "it has not told all: what it tells is yet to be judged"
    stage.registered(CLIENT)
    stage.turn()
    assert recovered(stage, CLIENT)


def test_who_goes_on_telling_is_waited_for_up_to_client_silence_s() -> None:
    stage = Restarted("n", register_timeout_s=5.0, client_silence_s=40.0)
    node = stage.node_back(clients=())
    client = stage.client_enters()
    kind = stage.define(client)
    for number, task in enumerate(ids(12), 1):
        stage.at(3.0 * number)
        stage.names(client, kind, [task])
        stage.turn()
    assert not recovered(stage, node)
    for number, task in enumerate(ids(16)[12:], 13):
        stage.at(3.0 * number)
        stage.names(client, kind, [task])
    stage.turn()
    assert recovered(stage, node)


def test_deadlocks_are_looked_for_again_once_the_silent_one_is_waited_for_no_more() -> None:
    stage = Restarted("n", register_timeout_s=20.0)
    stage.node_back(clients=())
    stage.client_enters()
    stage.at(19.0)
    assert stage.core._state.claims.open
    stage.at(20.5).turn()
    assert not stage.core._state.claims.open


def test_a_task_named_by_one_who_is_late_is_charged_like_any_of_which_nobody_knows() -> None:
    stage = Restarted("n", register_timeout_s=15.0)
    stage.node_back(clients=())
    client = stage.client_enters()
    stage.at(20.0)
    (task,) = ids(1)
    stage.names(client, stage.define(client, max_retries=0), [task])
    stage.registered(client)
    stage.turn()
    failure = stage.results(client)[task].failure
    assert failure is not None
    assert failure.error == "NodeLost"
    assert recovered(stage, client)


def test_a_node_that_tells_more_for_absent_clients_than_can_be_kept_is_dropped_and_may_return() -> (
    None
):
    stage = Restarted("m", "n", recovery_bytes_max=10_000)
    node = stage.node_joins()
    stage.say(node, Inventory([CLIENT], [], True))
    stage.say(node, Define(CLIENT, [KindRow(1, b"f" * 16, "f", Options(), b"code")]))
    tasks = ids(8, peer=node, worker=1)
    for task in tasks[:6]:
        stage.say(node, Submit(CLIENT, b"", 0, [TaskRow(task, 1, args=b"a" * 1000)], [1]))
    assert not stage.drops
    for task in tasks[6:]:
        stage.say(node, Submit(CLIENT, b"", 0, [TaskRow(task, 1, args=b"a" * 1000)], [1]))
    stage.turn()
    assert stage.drops == [events.Drop(node)], "no error, after which it would not come again"
    assert any("recovery_bytes_max is 10000" in line for _, line in stage.core.story)
    sizes = stage.core.at_rest()
    assert (sizes["kept_for_clients"], sizes["kept_of_nodes"]) == (0, 0)
    stage.hello(node, "node", "n", epoch=2)
    assert stage.core.registered()["peers"] == 1


def test_payloads_that_no_row_names_yet_are_kept_up_to_recovery_bytes_max() -> None:
    stage = Restarted("m", "n", recovery_bytes_max=3000, value_bytes_max=100)
    node = stage.node_joins()
    for number in range(3):
        stage.event(events.BlobReceived(node, b"%014d" % number, b"v" * 1000))
    assert not stage.drops, "while all is in order there is room for four of value_bytes_max"
    stage.event(events.BlobReceived(node, b"x" * 14, b"v"))
    stage.turn()
    assert stage.drops == [events.Drop(node)]


def test_what_was_kept_of_a_node_that_is_gone_takes_no_room() -> None:
    stage = Restarted("m", "n")
    for epoch in (1, 2, 2, 2):
        stage.hello(NODE, "node", "n", epoch=epoch)
        stage.say(NODE, _join())
        stage.say(NODE, Define(CLIENT, [KindRow(1, b"f" * 16, "f", Options(), b"code")]))
        stage.turn()
        assert len(stage.core._recovery._kept._by_client[CLIENT]) == 1


def _join() -> object:
    from drumbeat.protocol.messages import Join

    return Join("n", "host", 1, {"CPU": 2.0})


def test_cancels_that_cannot_be_remembered_are_counted_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery, "CANCELS_MAX", 2)
    stage = Restarted("n")
    client = stage.client_enters()
    tasks = ids(5)
    stage.cancel(client, *tasks)
    stage.cancel(client, tasks[0])
    stage.turn()
    (notice,) = stage.take(client, Notice)
    assert "3 cancels were dropped" in notice.text
    assert "cancel again" in notice.text
    assert stage.core.counters["cancels_dropped"] == 3


def test_many_parked_tasks_are_judged_some_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubts, "JUDGED_A_TURN", 10)
    stage = Restarted("m", "n")
    client = stage.client_enters()
    stage.node_back(letter="m", clients=())
    tasks = ids(35)
    stage.names(client, stage.define(client, max_retries=1), tasks)
    stage.registered(client)
    stage.at(1.9).turn()
    assert stage.core.at_rest()["parked"] == 35
    stage.turn(0.2)
    told = [len(stage.retried(client))]
    while len(told) < 4:
        assert stage.core.deadline_s() == stage.now_s, "there is more to do"
        stage.turn()
        told.append(len(stage.retried(client)))
    assert told == [10, 10, 10, 5]


def test_recovery_is_over_only_when_all_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubts, "JUDGED_A_TURN", 10)
    stage = Restarted("n", register_timeout_s=2.0, recovery_wait_s=500.0)
    client = stage.client_enters()
    tasks = ids(35)
    stage.names(client, stage.define(client, max_retries=0), tasks)
    stage.registered(client)
    stage.at(11.9)
    assert stage.core.at_rest()["parked"] == 35
    stage.turn(0.2)
    lost = len(stage.results(client))
    assert 0 < lost < 35
    assert not recovered(stage, client)
    for _ in range(4):
        stage.turn()
        lost += len(stage.results(client))
    assert lost == 35
    assert recovered(stage, client)


def test_who_comes_while_it_ends_hears_that_it_is_over_when_all_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doubts, "JUDGED_A_TURN", 1)
    stage = Restarted("n", recovery_wait_s=500.0)
    client = stage.client_enters()
    stage.names(client, stage.define(client, max_retries=0), ids(5))
    stage.registered(client)
    stage.at(12.0).turn(0.1)
    stage.hello(OTHER, "client", "m", epoch=1)
    for _ in range(8):
        stage.turn()
    assert recovered(stage, client)
    assert not recovered(stage, OTHER)


def test_nothing_more_is_kept_for_a_client_that_comes_while_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doubts, "JUDGED_A_TURN", 1)
    stage = Restarted("n", "x", recovery_wait_s=500.0)
    client = stage.client_enters()
    stage.names(client, stage.define(client, max_retries=0), ids(5))
    stage.registered(client)
    node = stage.node_back(clients=(client,))
    stage.at(12.0).turn(0.1)
    stage.hello(OTHER, "client", "m", epoch=1)
    (call,) = ids(1, NODE, 1)
    stage.submit(node, stage.define(node, OTHER), [call], OTHER)
    for _ in range(8):
        stage.turn()
    assert recovered(stage, client)
    failure = stage.results(node)[call].failure
    assert failure is not None
    assert failure.error == "TaskCancelled"


def test_what_recovery_has_kept_is_at_rest_when_it_is_over() -> None:
    stage = Restarted("n")
    (task,) = ids(1)
    stage.node_back(row(task), clients=())
    stage.at(13.0).turn()
    sizes = stage.core.at_rest()
    for name in ("claims", "claims_given_up", "homes_gone", "telling", "late", "cancels_kept"):
        assert sizes[name] == 0
    assert not stage.core._state.claims.given_up


def test_a_hello_of_an_earlier_life_counts_as_a_word() -> None:
    stage = Restarted("n", register_timeout_s=5.0)
    node = stage.node_back(clients=())
    stage.at(11.0)
    stage.event(
        events.PeerJoined(OTHER, Hello(PROTOCOL_VERSION, "client", OTHER, 0, 1, 0, "3.11", "o"))
    )
    stage.at(15.9)
    assert not recovered(stage, node)
    stage.at(16.3).turn()
    assert recovered(stage, node)

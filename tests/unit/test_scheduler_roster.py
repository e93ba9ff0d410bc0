"""What the scheduler's next life has to know: nodes to wait for, clients that were given up."""

import pytest
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.messages import Discard, Join, Leave, Retried
from drumbeat.protocol.recovery import Inventory
from drumbeat.scheduler import events, roster
from support.restarts import CLIENT, NODE, Restarted, ids, row
from support.scheduling import Stage, ids_of


def test_a_node_is_written_down_before_anything_is_given_to_it() -> None:
    stage = Stage()
    client = stage.client()
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.node()
    commands = stage.core.turn(stage.now_s)
    assert commands[0] == events.Remember(["n"], [], [NODE.hex()])
    assert any(isinstance(command, events.Send) for command in commands[1:])


def test_a_node_that_leaves_is_struck_out_once_all_know_what_was_charged() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    stage.prompt = False
    stage.say(node, Leave())
    stage.turn()
    stage.live(30.0)
    assert stage.remembered == [["n"]]
    stage.reach(client)
    stage.turn()
    assert stage.remembered == [["n"], []]


def test_a_lost_node_is_struck_out_when_the_client_that_did_not_know_is_gone() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    stage.prompt = False
    stage.live(12.0, 0.25, node)
    assert stage.remembered[-1] == ["n"]
    stage.say(client, Leave())
    stage.turn()
    assert stage.remembered[-1] == []


def test_a_node_that_is_given_up_is_written_down_as_the_submitter_it_was() -> None:
    stage = Stage()
    node = stage.node()
    stage.live(12.0, 0.25, node)
    assert stage.gone[-1] == [node.hex()]
    assert stage.node() == node
    stage.turn()
    assert stage.gone[-1] == [], "it counts by itself what this scheduler had stopped"


def test_what_a_node_that_was_given_up_had_submitted_counts_in_the_next_life() -> None:
    stage = Restarted("m", gone=[NODE.hex()])
    client = stage.client_back()
    stage.node_back(letter="m", clients=(client,))
    node = stage.node_joins()
    (nested,) = ids_of(node, 1, worker=1)
    stage.names(node, stage.define(node, client, max_retries=0), [nested], client=client)
    stage.registered(node)
    stage.live(0.1, 0.05, client)
    assert stage.results(node)[nested].failure.error == "NodeLost"  # type: ignore[union-attr]


@pytest.mark.parametrize("retries", [0, 1])
def test_what_is_kept_of_a_node_that_was_given_up_is_charged_when_its_client_comes(
    retries: int,
) -> None:
    gone = [NODE.hex()]
    stage = Restarted("m", gone=gone)
    (nested,) = ids_of(NODE, 1, worker=1)
    other = stage.node_back(letter="m")
    node = stage.node_joins()
    kind = stage.define(node, CLIENT, max_retries=retries)
    stage.names(node, kind, [nested], client=CLIENT)
    stage.registered(node)
    # It has told all, but nothing could be charged of it: its client is not there yet.
    stage.live(0.1, 0.05)
    assert stage.gone[-1] == gone
    stage.prompt = False
    stage.client_back()
    stage.turn()
    assert stage.assigned(node) + stage.assigned(other) == []
    assert stage.gone[-1] == gone, "the node has yet to hear of it"
    results = stage.results(node)
    stage.reach(node)
    stage.turn()
    assert stage.gone[-1] == []
    if retries:
        assert results == {}
        assigned = stage.assigned(node) + stage.assigned(other)
        assert [(row.id, row.attempt) for row in assigned] == [(nested, 2)]
    else:
        assert results[nested].failure.error == "NodeLost"  # type: ignore[union-attr]


def test_without_anybody_to_tell_a_node_that_leaves_is_struck_out_at_once() -> None:
    stage = Stage()
    node = stage.node()
    stage.turn()
    stage.say(node, Leave())
    stage.turn().turn()
    assert stage.remembered == [["n"], []]


def test_a_daemon_that_replaces_another_stands_beside_it_until_all_know() -> None:
    stage = Stage()
    client = stage.client()
    stage.node("a", name="lab")
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    stage.prompt = False
    stage.node("b", name="lab")
    stage.turn()
    # The next life waits for both: nobody may take for certain that nothing ran on the first.
    assert stage.remembered[-1] == ["lab", "lab"]
    for peer in list(stage.marks):
        stage.reach(peer)
    stage.turn()
    assert stage.remembered[-1] == ["lab"]


def test_a_node_that_comes_back_is_written_down_already() -> None:
    stage = Restarted("n")
    stage.node_back()
    stage.turn()
    assert stage.remembered == []


def test_a_node_that_nobody_expected_is_written_down() -> None:
    stage = Restarted("n")
    stage.node_back(letter="x")
    stage.turn()
    assert stage.remembered == [["n", "x"]]


def test_the_daemon_before_is_remembered_until_recovery_is_over() -> None:
    stage = Restarted("n")
    stage.node("x", name="n")
    stage.turn()
    assert stage.remembered[-1] == ["n", "n"]
    stage.at(12.5)
    stage.turn()
    assert stage.remembered[-1] == ["n"]


def test_a_daemon_that_the_life_before_met_and_did_not_write_down_is_another() -> None:
    stage = Restarted("n")
    client = stage.client_back(ids_of(CLIENT, 1), options={"max_retries": 0})
    new = PeerId(b"x" * 6)
    stage.hello(new, "node", "n", epoch=1)
    stage.say(new, Join("n", "host", 1, {"CPU": 2.0}))
    stage.say(new, Inventory([CLIENT], [], True))
    stage.registered(new)
    stage.live(0.1, 0.05, client, new)
    assert stage.remembered[-1] == ["n", "n"]
    assert stage.assigned(new) == [], "it may have run on the daemon before"


def test_missing_nodes_are_remembered_until_recovery_is_over() -> None:
    stage = Restarted("n", "m")
    stage.node_back(row(ids_of(PeerId(b"c" * 6), 1)[0]), clients=())
    stage.at(11.9)
    assert stage.remembered == []
    stage.at(12.5)
    stage.turn()
    assert stage.gone[0] == [CLIENT.hex()], "what it had at a node was stopped"
    assert stage.remembered == [["m", "n"], ["n"]]
    assert stage.closed == [0, 2]
    assert NODE in stage.mail


def lost_client() -> tuple[Stage, PeerId]:
    """Return a stage on which a client with a running task was given up."""
    stage = Stage()
    client = stage.client()
    stage.node()
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    stage.event(events.PeerDisconnected(client))
    stage.live(11.0, 0.25, client)
    return stage, client


def test_a_client_that_is_given_up_is_written_down_before_its_work_is_stopped() -> None:
    stage = Stage(client_grace_s=1.0)
    client = stage.client()
    node = stage.node()
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    stage.event(events.PeerDisconnected(client))
    stage.now_s += 1.1
    stage.event(events.PeerHeard([node]))
    commands = stage.core.turn(stage.now_s)
    assert commands[0] == events.Remember(["n"], [client.hex()], [node.hex()])
    discards = [one for one in commands if isinstance(one, events.Send) and one.peer == node]
    assert discards


def test_a_client_that_leaves_is_not_written_down() -> None:
    stage = Stage()
    client = stage.client()
    stage.turn()
    stage.say(client, Leave())
    stage.turn()
    assert not any(stage.gone)


def test_a_client_that_comes_back_to_the_scheduler_that_gave_it_up_is_struck_out() -> None:
    stage, client = lost_client()
    assert stage.gone[-1] == [client.hex()]
    assert stage.client() == client
    stage.turn()
    assert stage.gone[-1] == []


def test_what_a_client_that_was_given_up_had_running_counts_in_the_next_life() -> None:
    gone = [CLIENT.hex()]
    stage = Restarted("n", gone=gone)
    node = stage.node_back()
    again, last = ids_of(CLIENT, 2)
    client = stage.client_enters()
    stage.names(client, stage.define(client, max_retries=1), [again])
    stage.names(client, stage.define(client, max_retries=0), [last])
    stage.prompt = False
    stage.registered(client)
    stage.turn()
    failure = stage.results(client)[last].failure
    assert failure is not None
    assert failure.error == "NodeLost"
    assert "given up" in failure.text
    assert [row.rows for row in stage.take(client, Retried)] == [[(again, 2)]]
    assert not stage.assigned(node), "the client has yet to hear of it"
    assert stage.gone in ([], [gone])
    stage.reach(client)
    stage.turn()
    assert [(row.id, row.attempt) for row in stage.assigned(node)] == [(again, 2)]
    assert stage.gone[-1] == []


@pytest.mark.parametrize("node_back_s", [0.0, 11.0, 20.0])
def test_a_client_that_a_life_waited_for_in_vain_is_charged_by_the_next_one(
    node_back_s: float,
) -> None:
    (one,) = ids_of(CLIENT, 1)
    second = Restarted("n")
    second.at(node_back_s)
    node = second.node_back(row(one))
    second.at(21.0)
    second.turn()
    assert any(isinstance(word, Discard) for word in second.mail[node])
    third = Restarted("n", epoch=3, gone=second.gone[-1])
    node = third.node_back()
    client = third.client_enters()
    third.names(client, third.define(client, max_retries=0), [one])
    third.registered(client)
    third.at(3.0)
    assert third.assigned(node) == []
    assert third.results(client)[one].failure.error == "NodeLost"  # type: ignore[union-attr]


def test_a_lost_client_that_comes_back_late_is_remembered_until_it_knows_what_was_charged() -> None:
    gone = [CLIENT.hex()]
    stage = Restarted("n", gone=gone)
    stage.node_back(clients=())
    stage.at(20.0)  # recovery is over
    stage.prompt = False
    client = stage.client_back(ids_of(CLIENT, 1), options={"max_retries": 0})
    stage.turn()
    assert stage.gone in ([], [gone])
    stage.reach(client)
    stage.turn()
    assert stage.gone[-1] == []


def test_only_so_many_lost_clients_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "GONE_MAX", 2)
    stage = Stage(client_grace_s=0.5)
    clients = [stage.client(letter) for letter in "abc"]
    stage.turn()
    for client in clients:
        stage.event(events.PeerDisconnected(client))
        stage.live(1.0, 0.1, *clients)
    assert stage.gone[-1] == [client.hex() for client in clients[1:]]


# ------------------------------------------------------------------------------ who was not there


def test_who_was_away_while_nodes_were_struck_out_is_charged_in_the_next_life() -> None:
    stage = Restarted("m", epoch=3, closed=2)
    stage.node_back(letter="m", clients=())
    (task,) = ids(1)
    stage.client_back([task], options={"max_retries": 0}, settled=1)
    stage.turn()
    failure = stage.results(CLIENT)[task].failure
    assert failure is not None
    assert failure.error == "NodeLost"
    assert "given up while its program was away" in failure.text


def test_who_was_away_and_has_retries_left_has_one_less() -> None:
    stage = Restarted("m", epoch=3, closed=2)
    node = stage.node_back(letter="m", clients=())
    (task,) = ids(1)
    client = stage.client_back([task], options={"max_retries": 3}, settled=1)
    stage.turn()
    assert stage.retried(client) == {task: 2}
    assert [(row.id, row.attempt) for row in stage.turn().assigned(node)] == [(task, 2)]


@pytest.mark.parametrize("settled", [2, 3])
def test_who_settled_since_nodes_were_struck_out_is_charged_nothing(settled: int) -> None:
    stage = Restarted("m", epoch=4, closed=2)
    node = stage.node_back(letter="m", clients=())
    (task,) = ids(1)
    stage.client_back([task], options={"max_retries": 0}, settled=settled)
    stage.turn()
    assert [(row.id, row.attempt) for row in stage.assigned(node)] == [(task, 1)]


def test_what_still_runs_of_one_who_was_away_goes_on() -> None:
    stage = Restarted("m", epoch=3, closed=2)
    (task,) = ids(1)
    client = stage.client_enters(settled=1)
    stage.names(client, stage.define(client, max_retries=0), [task])
    stage.registered(client)
    stage.turn()
    node = stage.node_back(row(task), letter="m", clients=(client,))
    stage.turn()
    assert not stage.results(client)
    assert not stage.stops(node)


def test_a_node_that_had_told_all_and_is_lost_is_kept_for_those_who_are_not_there_yet() -> None:
    stage = Restarted("m", "n")
    stage.node_back(letter="m", clients=())
    node = stage.node_back(letter="n", clients=())
    stage.say(node, Leave())
    stage.at(5.0)
    assert stage.remembered == []
    stage.at(12.5).turn()
    assert stage.remembered == [["m"]]
    assert stage.closed == [2]


def test_a_submitter_that_never_came_is_written_down_before_what_it_had_is_stopped() -> None:
    stage = Restarted("m", "n")
    (nested,) = ids_of(NODE, 1, worker=1)
    node = stage.node_back(row(nested), letter="m", clients=())
    stage.at(11.9)
    assert not stage.stops(node)
    stage.at(12.2)
    assert stage.stops(node)
    assert stage.gone[0] == [NODE.hex()]

"""Who says Hello and not who it is: bounded in number and in time, and never in anybody's way."""

import pytest
from drumbeat.protocol.frames import PROTOCOL_VERSION, Hello
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.messages import Credit, Enter, Environment, Join
from drumbeat.scheduler import events
from support.restarts import CLIENT, Restarted, ids
from support.scheduling import Stage, ids_of


def strangers(stage: Stage, count: int, *, first: int = 0, epoch: int = 0) -> list[PeerId]:
    """Let so many peers say Hello and no more."""
    peers = [PeerId(number.to_bytes(6, "big")) for number in range(first, first + count)]
    for peer in peers:
        hello = Hello(PROTOCOL_VERSION, "client", peer, 0, epoch, 0, "3.11", "stranger")
        stage.event(events.PeerJoined(peer, hello))
    return peers


def left(stage: Stage) -> int:
    return stage.core.registered()["strangers"]


def test_of_too_many_strangers_those_go_who_had_the_time_to_say_who_they_are() -> None:
    stage = Stage(strangers_max=8, enter_timeout_s=5.0)
    old = strangers(stage, 6)
    stage.turn(4.0)
    strangers(stage, 2, first=6)
    stage.turn(0.9)
    assert left(stage) == 8
    assert stage.core.deadline_s() == pytest.approx(stage.now_s + 0.1)
    stage.turn(0.2)
    assert stage.drops == [events.Drop(peer) for peer in old[:4]], "no reason: they may come again"
    assert left(stage) == 4
    assert stage.core.counters["strangers_gone"] == 4


def test_strangers_that_say_who_they_are_in_time_leave_nothing_to_be_looked_at() -> None:
    stage = Stage(strangers_max=4, enter_timeout_s=1.0)
    for peer in strangers(stage, 4):
        stage.say(peer, Enter("program", Environment()))
    stage.turn()
    assert left(stage) == 0
    assert stage.core._presence.strangers_due_s == float("inf")


def test_a_stranger_whose_connection_is_lost_is_not_written_down() -> None:
    stage = Stage()
    (peer,) = strangers(stage, 1)
    stage.event(events.PeerDisconnected(peer))
    stage.turn(11.0)
    assert stage.core.registered()["peers"] == 0
    assert stage.gone == []


def test_a_few_strangers_have_all_the_time_there_is() -> None:
    stage = Stage(strangers_max=8, enter_timeout_s=5.0, client_silence_s=600.0)
    peers = strangers(stage, 4)
    stage.turn(590.0)
    assert not stage.drops
    stage.say(peers[0], Enter("late", Environment()))
    stage.turn()
    assert stage.take(peers[0], Credit)


def test_a_stranger_that_was_dropped_comes_again_and_is_served() -> None:
    stage = Stage(strangers_max=2, enter_timeout_s=5.0)
    client = PeerId(b"c" * 6)
    stage.hello(client, "client", "c", epoch=1)
    strangers(stage, 2)
    stage.turn(6.0)
    assert stage.drops[0] == events.Drop(client)
    stage.say(client, Enter("client-c", Environment()))
    assert stage.core.counters["stale_dropped"] == 1, "said before it was dropped"
    assert stage.client() == client
    node = stage.node()
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    assert len(stage.assigned(node)) == 1


def test_ten_thousand_strangers_leave_nothing_behind() -> None:
    stage = Stage(strangers_max=16, enter_timeout_s=1.0)
    for first in range(0, 10_000, 500):
        strangers(stage, 500, first=first)
        stage.core.turn(stage.now_s)
        stage.now_s += 1.1
    assert stage.turn(1.1).core.registered()["peers"] == 8
    stage.live(15.0, 5.0)
    for peer in [PeerId(number.to_bytes(6, "big")) for number in range(10_000)]:
        stage.event(events.PeerDisconnected(peer))
    stage.turn(11.0)
    assert stage.core.registered()["peers"] == 0
    assert stage.core.counters["strangers_gone"] == 10_000
    assert stage.core.counters["clients_gone"] == 0
    assert stage.at_rest()


def test_a_stranger_with_another_python_is_in_nobodys_way() -> None:
    stage = Stage()
    stage.hello(PeerId(b"s" * 6), "client", "stranger", python="2.7")
    client = stage.client()
    stage.turn()
    assert not stage.drops
    assert stage.take(client, Credit)


def test_of_two_that_come_at_once_the_later_to_enter_is_told_that_its_python_does_not_fit() -> None:
    stage = Stage()
    client, node = PeerId(b"c" * 6), PeerId(b"n" * 6)
    stage.hello(client, "client", "c", python="3.11")
    stage.hello(node, "node", "n", python="3.12")
    stage.say(node, Join("n", "host", 1, {"CPU": 1.0}))
    stage.say(client, Enter("program", Environment()))
    stage.turn()
    (drop,) = stage.drops
    assert (drop.peer, drop.error) == (client, "VersionMismatch")
    assert "node 'n' Python 3.12" in drop.reason
    assert stage.core.registered()["peers"] == 1


def test_who_comes_again_among_others_with_another_python_is_forgotten_whole() -> None:
    stage = Restarted("n")
    stage.hello(CLIENT, "client", "c", python="3.12", epoch=1)
    stage.node_back(clients=())
    stage.hello(CLIENT, "client", "c", python="3.12", epoch=1)
    stage.turn()
    assert [(drop.peer, drop.error) for drop in stage.drops] == [(CLIENT, "VersionMismatch")]
    assert stage.core.registered()["peers"] == 1


def test_a_first_message_that_makes_no_sense_is_no_introduction() -> None:
    stage = Stage()
    (peer,) = strangers(stage, 1)
    stage.event(events.MessageRejected(peer, "enter.name: expected str"))
    (drop,) = stage.drops
    assert drop.error == "RemoteProtocolError"
    assert "enter.name" in drop.reason
    assert left(stage) == 0


def test_who_has_work_over_from_an_earlier_life_is_no_stranger_among_many() -> None:
    stage = Restarted("n", strangers_max=4, enter_timeout_s=0.5)
    stage.hello(CLIENT, "client", "c", epoch=1)
    flood = strangers(stage, 6)
    stage.turn(1.0)
    assert [drop.peer for drop in stage.drops] == flood[:5], "the client is among the two left"
    node = stage.node_back()
    (task,) = ids(1)
    stage.say(CLIENT, Enter("client-c", Environment()))
    stage.names(CLIENT, stage.define(CLIENT), [task])
    stage.registered(CLIENT)
    stage.turn()
    assert [row.id for row in stage.assigned(node)] == [task]


def test_words_of_a_daemon_that_come_after_those_of_its_successor_change_nothing() -> None:
    stage = Stage()
    old = PeerId(b"aaaaaa")
    stage.hello(old, "node", "lab")
    new = stage.node("b", name="lab")
    client = stage.client()
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    assert len(stage.assigned(new)) == 1
    # It had been sent when its keeper started the next daemon; the connection's end comes after.
    stage.say(old, Join("lab", "host", 1, {"CPU": 2.0}, keeper="keeper of lab"))
    stage.turn()
    assert [(drop.peer, drop.error) for drop in stage.drops] == [(old, "")]
    assert stage.core.registered()["nodes"] == 1
    assert stage.ask(client, "tasks")[0]["attempt"] == 1

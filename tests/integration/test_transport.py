"""Real sockets: what is sent arrives, whatever becomes of connections, listeners and junk."""

import os
import pickle
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drumbeat
import pytest
import zmq
from drumbeat.client.local import Cluster
from drumbeat.protocol.clock import now_s
from drumbeat.protocol.codec import encode
from drumbeat.protocol.dialer import Down, Refused, Up
from drumbeat.protocol.ends import BYTES_PER_TURN
from drumbeat.protocol.errors import ConfigError
from drumbeat.protocol.frames import Ack, Role
from drumbeat.protocol.listener import Disconnected, Joined, Returned
from drumbeat.protocol.messages import (
    Answer,
    Leave,
    Notice,
    Query,
    Results,
    Submit,
    TaskRow,
    ValueRow,
)
from drumbeat.protocol.settings import Settings
from drumbeat.protocol.traffic import Blob, Heard, Message, Reached, Rejected
from drumbeat.protocol.transport import DialShell, ListenShell, Poller
from support.pair import EPOCH, A, B, Pair
from support.relay import Relay
from support.second_client import Refused as SecondRefused
from support.second_client import SecondClient, loads

pytestmark = pytest.mark.integration

TASK = A + bytes(8)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(f"ipc://{tmp_path}/s")
    yield made
    made.close()


def queries(happenings: list[Any]) -> list[int]:
    return [one.message.request for one in happenings if isinstance(one.message, Query)]


def test_a_peer_joins_and_messages_go_both_ways(pair: Pair) -> None:
    listener = pair.listen()
    shell = pair.connect()
    (joined,) = pair.came(Joined)
    assert (joined.peer, joined.hello.name, joined.hello.role) == (A, "me", "client")
    assert pair.went(Up) == [Up(EPOCH, False, 1)]
    shell.send(Leave())
    assert listener.send(A, Notice("hello"))
    assert not listener.send(B, Notice("who?"))
    pair.until(lambda: pair.came(Message) and pair.went(Message))
    assert pair.came(Message) == [Message(Leave(), A)]
    assert pair.went(Message) == [Message(Notice("hello"))]
    assert Heard([A]) in pair.heard
    pair.until(lambda: shell.settled)


def test_a_dialler_waits_for_a_scheduler_that_is_just_starting(pair: Pair) -> None:
    shell = pair.dial()
    for _ in range(30):
        pair.turn()
    assert not shell.up
    pair.listen()
    pair.until(lambda: shell.up, 2.0)


def test_messages_of_any_length_arrive_whole_and_in_order(pair: Pair) -> None:
    listener = pair.listen()
    shell = pair.connect()
    rows = [TaskRow(TASK, number, bytes(50_000)) for number in range(60)]
    answer = Answer(1, {"text": "x" * 3_000_000})
    shell.send(Submit(A, b"", 0, rows))
    shell.send(Leave())
    listener.send(A, answer)
    listener.send(A, Notice("end"))
    pair.until(lambda: Message(Leave(), A) in pair.heard)
    pair.until(lambda: Message(Notice("end")) in pair.said[A])
    submits = [one.message for one in pair.came(Message)[:-1]]
    assert [row.kind for submit in submits for row in submit.rows] == list(range(60))
    assert pair.went(Message) == [Message(answer), Message(Notice("end"))]


def test_who_says_much_at_once_keeps_others_waiting_for_one_turn_only(pair: Pair) -> None:
    listener = pair.listen()
    shell = pair.connect()
    for number in range(60):
        shell.send(Submit(A, b"", 0, [TaskRow(TASK, number, bytes(100_000))]))
    shell.flush(now_s())
    time.sleep(0.1)  # all of it is there at once, for whoever would take it
    numbers: list[int] = []
    deadline_s = time.monotonic() + 10.0
    while len(numbers) < 60:
        assert time.monotonic() < deadline_s
        pair.poller.wait(0.005)
        come = [one for one in listener.turn(now_s()) if type(one) is Message]
        rows = [row for one in come if isinstance(one.message, Submit) for row in one.message.rows]
        assert sum(len(row.args or b"") for row in rows) < BYTES_PER_TURN + (1 << 20)
        numbers += [row.kind for row in rows]
        listener.flush(now_s())
        shell.turn(now_s())
        shell.flush(now_s())
    assert numbers == list(range(60))


def test_large_payloads_go_both_ways_without_holding_up_messages(pair: Pair) -> None:
    listener = pair.listen()
    shell = pair.connect()
    payload = random.Random(1).randbytes(30 << 20)
    shell.send_blob(b"k" * 14, payload)
    assert listener.send_blob(A, b"j" * 15, payload)
    assert not listener.send_blob(B, b"j" * 15, payload)
    shell.send(Leave())
    pair.until(lambda: pair.came(Message))
    assert not pair.came(Blob), "the message overtakes the payload"
    pair.until(lambda: pair.came(Blob) and pair.went(Blob), 30.0)
    assert pair.came(Blob) == [Blob(b"k" * 14, payload, A)]
    assert pair.went(Blob) == [Blob(b"j" * 15, payload)]
    pair.until(lambda: shell.settled)


def test_a_mark_is_reached_when_all_before_it_has_come_even_over_a_lost_connection(
    pair: Pair, tmp_path: Path
) -> None:
    listener = pair.listen()
    path = f"{tmp_path}/relay"
    with Relay(path, f"{tmp_path}/s") as relay:
        pair.connect(endpoint=f"ipc://{path}")
        relay.cut()
        pair.until(lambda: pair.came(Disconnected))
        listener.send(A, Notice("one"))
        listener.send_blob(A, TASK, bytes(3 << 20))
        listener.mark(A, 7)
        listener.mark(B, 8)
        listener.send(A, Notice("two"))
        listener.mark(A, 9)
        pair.until(lambda: sum(len(one.marks) for one in pair.came(Reached)) == 2)
        assert [mark for one in pair.came(Reached) for mark in one.marks] == [7, 9]
        assert pair.went(Blob)
        assert len(pair.went(Message)) == 2


def test_nothing_is_lost_or_doubled_when_connections_are_cut(pair: Pair, tmp_path: Path) -> None:
    listener = pair.listen()
    path = f"{tmp_path}/relay"
    payload = random.Random(2).randbytes(8 << 20)
    with Relay(path, f"{tmp_path}/s") as relay:
        shell = pair.connect(endpoint=f"ipc://{path}")
        for number in range(400):
            shell.send(Query(number, "status"))
            listener.send(A, Answer(number, "x" * 2000))
            if number % 100 == 50:
                pair.until(lambda: shell.up)
                shell.send_blob(b"k" * 14, payload)
                relay.cut()
                pair.until(lambda: not shell.up)
            pair.turn()
        pair.until(lambda: len(pair.came(Blob)) == 4 and len(pair.came(Message)) >= 400, 30.0)
        pair.until(lambda: len(pair.went(Message)) >= 400)
        assert relay.connections > 2
    assert queries(pair.came(Message)) == list(range(400))
    assert [one.message.request for one in pair.went(Message)] == list(range(400))
    assert all(blob.payload == payload for blob in pair.came(Blob))
    assert len(pair.came(Joined)) == 1
    assert len(pair.came(Returned)) == 4
    assert [up.resumed for up in pair.went(Up)] == [False] + [True] * 4
    assert len(pair.went(Down)) >= 4


def test_a_listener_that_begins_anew_knows_no_lives_even_in_the_same_epoch(pair: Pair) -> None:
    listener = pair.listen()
    shell = pair.connect()
    pair.until(lambda: pair.went(Up))
    listener.close()
    pair.listener = None
    pair.until(lambda: pair.went(Down))
    pair.heard.clear()
    shell.send(Leave())
    pair.listen()
    pair.until(lambda: len(pair.went(Up)) == 2)
    assert not pair.went(Up)[1].resumed
    assert len(pair.came(Joined)) == 1
    shell.send(Query(1, "status"))
    pair.until(lambda: pair.came(Message))
    assert queries(pair.came(Message)) == [1], "what was queued in the old life is gone"
    shell.send_blob(b"k" * 14, b"payload")
    pair.until(lambda: pair.came(Blob))


def test_a_dropped_peer_is_told_why_and_stays_away(pair: Pair) -> None:
    listener = pair.listen()
    shell = pair.connect()
    listener.drop(A, "RemoteProtocolError", "no such kind")
    pair.until(lambda: pair.went(Refused))
    assert pair.went(Refused) == [Refused("RemoteProtocolError", "no such kind")]
    pair.heard.clear()
    for _ in range(100):
        pair.turn()
    assert not pair.came(Joined)
    assert not shell.up


def test_a_peer_that_was_given_up_begins_a_new_life_when_it_speaks(pair: Pair) -> None:
    listener = pair.listen()
    shell = pair.connect()
    pair.until(lambda: pair.went(Up))
    listener.drop(A)
    shell.send(Leave())
    pair.until(lambda: len(pair.went(Up)) == 2)
    assert not pair.went(Up)[1].resumed
    assert len(pair.came(Joined)) == 2


def test_a_message_that_does_not_fit_is_dropped_alone(pair: Pair) -> None:
    listener = pair.listen()
    shell = pair.connect()
    shell.send(Results([ValueRow(TASK, 0, b"v")]))
    shell.send(Leave())
    pair.until(lambda: pair.came(Message))
    (rejected,) = pair.came(Rejected)
    assert "results" in rejected.reason
    assert listener.counters["messages_rejected"] == 1
    assert shell.up


def test_a_process_that_dies_is_seen_at_once(tmp_path: Path) -> None:
    # Its silence alone would say nothing for long.
    pair = Pair(f"ipc://{tmp_path}/s", Settings(connection_lost_s=300.0))
    pair.listen()
    keeper = pair.connect(B)
    code = (
        "import random; from drumbeat.protocol.transport import *;"
        "from drumbeat.protocol.settings import Settings;"
        "from drumbeat.protocol.clock import now_s;"
        f"s = DialShell({pair.endpoint!r}, 'node', b'peer-a', 'n', Settings(), random.Random(1));"
        "p = Poller(); s.attach(p)\n"
        "while True: p.wait(0.05); s.turn(now_s()); s.flush(now_s())"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        pair.until(lambda: len(pair.came(Joined)) == 2)
        process.kill()
        pair.until(lambda: pair.came(Disconnected))
    assert pair.came(Disconnected) == [Disconnected(A)]
    assert keeper.up
    pair.close()


def test_junk_is_dropped_and_counted_and_harms_nobody(pair: Pair) -> None:
    listener = pair.listen()
    shell = pair.connect()
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.setsockopt(zmq.RECONNECT_IVL, -1)  # who is hung up on stays away
        stranger.connect(pair.endpoint)
        stranger.send(encode(Ack(0)))
        stranger.send(b"noise")
        stranger.send_multipart([b"many", b"parts"])
        pair.until(lambda: listener.counters["junk_dropped"] == 1)
        assert stranger.recv() == encode(["reset"])
        assert b"refused" in stranger.recv()
        stranger.send(bytes(2 << 20))
        pair.until(lambda: listener.counters["strangers_reset"] == 1)
    shell.send(Leave())
    pair.until(lambda: pair.came(Message))
    assert listener.counters == {
        "messages_rejected": 0,
        "frames_refused": 1,
        "strangers_reset": 1,
        "hellos_refused": 0,
        "hellos_put_off": 0,
        "junk_dropped": 1,
        "handshakes_failed": 0,
        "ended_unheard": 0,
        "keys_refused": 0,
        "connections_refused": 0,
        "door_shut": 0,
    }


def test_who_does_not_speak_zeromqs_protocol_of_today_is_hung_up_on(pair: Pair) -> None:
    listener = pair.listen()
    shell = pair.connect()
    with socket.socket(socket.AF_UNIX) as old:
        old.connect(pair.endpoint.removeprefix("ipc://"))
        # ZMTP 1.0: an anonymous greeting, then a frame of one byte
        old.sendall(b"\x01\x00" + b"\x02\x00x")
        pair.until(lambda: listener.counters["handshakes_failed"] == 1)
        assert old.recv(1)  # what it was greeted with, and then
        old.setblocking(False)
        while old.recv(100):
            pass
    shell.close()
    pair.dialers.clear()
    pair.until(lambda: pair.came(Disconnected))


def test_a_path_that_is_too_long_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match="100 bytes"):
        ListenShell("ipc:///" + "x" * 100, Settings(), 1)
    with pytest.raises(ConfigError, match="needs keys"):
        ListenShell("tcp://0.0.0.0:1", Settings(), 1)
    with pytest.raises(ConfigError, match="cannot listen at ipc:///nowhere/s: No such file"):
        ListenShell("ipc:///nowhere/s", Settings(), 1)


# ------------------------------------------------------------------ a client in another's hand


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("r")
    with drumbeat.init(num_cpus=2, runtime_directory=str(directory)) as made:
        yield made


@pytest.fixture
def second(cluster: Cluster) -> Iterator[SecondClient]:
    made = SecondClient(f"ipc://{cluster.address}/scheduler.sock")
    yield made
    made.close()


def function(called: Any) -> bytes:
    return pickle.dumps((called, False), 5)


def call(*args: Any) -> bytes:
    return pickle.dumps((args, {}), 5)


def test_the_second_client_runs_tasks(second: SecondClient) -> None:
    power = second.define(function(pow), "pow")
    tasks = second.submit(power, *(call(number, 2) for number in range(500)))
    rows = second.gather(tasks)
    assert [row[1] for row in rows] == [0] * 500
    assert [pickle.loads(row[2]) for row in rows] == [number**2 for number in range(500)]


def test_the_second_client_sends_and_receives_large_payloads(second: SecondClient) -> None:
    make = second.define(function(bytes), "bytes")
    (task,) = second.submit(make, call(bytes(range(256)) * 8192))
    (row,) = second.gather([task])
    assert loads(row[2]) == bytes(range(256)) * 8192


def test_the_second_client_learns_of_errors(second: SecondClient) -> None:
    (task,) = second.submit(second.define(function(len), "len"), call(5))
    (row,) = second.gather([task])
    assert row[1] == 1
    assert pickle.loads(row[2])[0] == "TypeError"


def test_the_second_client_keeps_its_tasks_over_a_lost_connection(second: SecondClient) -> None:
    slow = second.define(function(time.sleep), "sleep")
    tasks = second.submit(slow, *(call(0.05) for _ in range(20)))
    for _ in range(3):
        second.pump(0.05)
        second.hang_up()
    assert [row[1] for row in second.gather(tasks)] == [0] * 20
    assert second.lives == 1


def test_the_second_client_cancels_and_asks(second: SecondClient) -> None:
    never = second.define(function(time.sleep), "never", num_cpus=1.0, resources=[["gold", 1.0]])
    tasks = second.submit(never, call(1), call(1))
    assert second.cancel(tasks) == [True, True]
    rows = second.gather(tasks)
    assert [row[5][0] for row in rows] == ["TaskCancelled"] * 2
    status = second.ask("status")
    assert status["clients"] >= 1
    assert second.ask("weather")["error"]


def test_a_client_of_another_version_is_refused(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("support.second_client.VERSION", 99)
    with pytest.raises(SecondRefused, match=r"VersionMismatch.*99"):
        SecondClient(f"ipc://{cluster.address}/scheduler.sock")


def test_a_poller_that_looks_before_it_sleeps_finds_what_is_there_and_keeps_its_time() -> None:
    poller = Poller()
    read, write = os.pipe()
    try:
        poller.add(read)
        assert poller.wait(0.01, look_s=0.0005) == []
        assert poller.slept
        os.write(write, b"x")
        assert poller.wait(None, look_s=0.0005) == [read]
        assert not poller.slept
        assert poller.wait(0.0, look_s=0.0005) == [read]
    finally:
        os.close(read)
        os.close(write)


def test_a_shell_that_is_flushed_before_its_first_turn_begins_to_connect_at_once(
    tmp_path: Path,
) -> None:
    endpoint = f"ipc://{tmp_path}/s"
    shell = DialShell(endpoint, Role.CLIENT, A, "n", Settings(), random.Random(0))
    shell.attach(Poller())
    due_s = shell.deadline_s()
    shell.flush(now_s())
    assert due_s is not None
    assert shell.deadline_s() == due_s
    shell.close()

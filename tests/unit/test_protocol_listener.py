"""The listener knows who is behind each route, resumes lives and resets strangers."""

from typing import Any

import pytest
from drumbeat.protocol.codec import decode_frame, encode, encode_ack, encode_batch
from drumbeat.protocol.frames import (
    PROTOCOL_VERSION,
    Ack,
    Batch,
    Channel,
    Hello,
    Refused,
    Reset,
    Role,
    Welcome,
)
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.listener import (
    PROBE_PAUSES_S,
    Delivered,
    Disconnected,
    Joined,
    Lags,
    Listener,
    Returned,
    SendFrame,
)  # fmt: skip
from drumbeat.protocol.settings import Settings

A, B = PeerId(b"peer-a"), PeerId(b"peer-b")
EPOCH = 4


def hello(peer: PeerId = A, life: int = 0, received: int = 0, **changes: Any) -> Hello:
    fields: dict[str, Any] = {
        "protocol": PROTOCOL_VERSION,
        "role": Role.CLIENT,
        "channel": Channel.CONTROL,
        "epoch": EPOCH if life else 0,
        "python": "3.11",
        "name": "me",
    }
    return Hello(peer=peer, life=life, received=received, **(fields | changes))


def say(
    listener: Listener, route: bytes, frame: Any, now_s: float = 0.0, proven: str = ""
) -> list[Any]:
    raw = frame if isinstance(frame, bytes) else encode(frame)
    return [
        decode_frame(command.data) if isinstance(command, SendFrame) else command
        for command in listener.received(route, raw, now_s, proven)
    ]


def joined(peer: PeerId = A) -> Listener:
    listener = Listener(Settings(), EPOCH)
    say(listener, b"r1", hello(peer))
    return listener


def peer_at(listener: Listener, route: bytes) -> PeerId | None:
    connection = listener.routes.get(route)
    return None if connection is None else connection.peer


def test_hello_begins_a_life() -> None:
    listener = Listener(Settings(), EPOCH)
    assert say(listener, b"r1", hello()) == [
        Welcome(EPOCH, 0, False, 1),
        Joined(A, hello(), Role.ADMIN),
    ]
    assert say(listener, b"r2", hello(B)) == [
        Welcome(EPOCH, 0, False, 2),
        Joined(B, hello(B), Role.ADMIN),
    ]
    assert peer_at(listener, b"r1") == A
    assert len(listener) == 2


def test_messages_are_delivered_with_their_peer() -> None:
    listener = joined()
    (delivered,) = say(listener, b"r1", encode_batch(1, 0, [b"\x07"]))
    assert isinstance(delivered, Delivered)
    assert (delivered.peer, delivered.channel) == (A, Channel.CONTROL)
    assert [bytes(raw) for raw in delivered.messages] == [b"\x07"]


def test_what_is_queued_goes_to_the_peers_route() -> None:
    listener = joined()
    assert listener.queue(A, b"\x01")
    assert listener.queue(A, b"\x02")
    assert not listener.queue(B, b"\x03")
    ((route, frame),) = listener.flush(0.0)
    batch = decode_frame(frame)
    assert route == b"r1"
    assert isinstance(batch, Batch)
    assert [bytes(raw) for raw in batch.messages] == [b"\x01", b"\x02"]
    assert listener.flush(0.0) == []


def test_an_acknowledgement_is_due_after_its_delay() -> None:
    listener = joined()
    listener.flush(0.0)
    say(listener, b"r1", encode_batch(1, 0, [b"\x07"]), 5.0)
    assert listener.flush(5.0) == []
    due_s = listener.deadline_s()
    assert due_s == 5.0 + Settings().ack_delay_s
    assert listener.flush(due_s) == [(b"r1", encode_ack(1))]
    assert listener.deadline_s() is None


def test_acknowledgements_of_many_are_due_in_the_order_of_their_batches() -> None:
    listener = joined()
    say(listener, b"r2", hello(B))
    listener.flush(0.0)
    delay_s = Settings().ack_delay_s
    say(listener, b"r1", encode_batch(1, 0, [b"\x07"]), 5.0)
    say(listener, b"r2", encode_batch(1, 0, [b"\x07"]), 5.25)
    listener.queue(A, b"\x01")
    assert [route for route, _ in listener.flush(5.25)] == [b"r1"], "which acknowledged as well"
    say(listener, b"r1", encode_batch(2, 1, [b"\x07"]), 5.5)
    assert listener.deadline_s() == 5.25 + delay_s
    assert listener.flush(5.25 + delay_s) == [(b"r2", encode_ack(1))]
    assert listener.deadline_s() == 5.5 + delay_s
    assert listener.flush(5.5 + delay_s) == [(b"r1", encode_ack(2))]
    assert listener.flush(5.25 + Settings().resend_after_s) == [], "all is acknowledged"
    assert listener.deadline_s() is None


def test_a_window_that_opens_lets_out_what_waited_for_it() -> None:
    listener = Listener(Settings(link_window_batches_max=1), EPOCH)
    say(listener, b"r1", hello())
    listener.queue(A, b"\x01")
    assert len(listener.flush(0.0)) == 1
    listener.queue(A, b"\x02")
    assert listener.flush(0.0) == []
    say(listener, b"r1", Ack(1), 0.1)
    assert len(listener.flush(0.1)) == 1


def test_a_peer_that_comes_back_resumes_its_life_on_the_new_route() -> None:
    listener = joined()
    say(listener, b"r1", encode_batch(1, 0, [b"\x07"]))
    listener.queue(A, b"\x01")
    listener.flush(0.0)
    assert listener.unreachable(b"r1") == [Disconnected(A)]
    assert listener.unreachable(b"r1") == []
    listener.queue(A, b"\x02")
    assert listener.flush(0.0) == []
    back = say(listener, b"r2", hello(life=1))
    assert back == [Welcome(EPOCH, 1, True, 1), Returned(A)]
    frames = [decode_frame(frame) for route, frame in listener.flush(0.0) if route == b"r2"]
    assert [frame.seq for frame in frames if isinstance(frame, Batch)] == [1, 2]


def test_a_new_connection_replaces_the_old_route() -> None:
    listener = joined()
    assert say(listener, b"r2", hello(life=1)) == [Welcome(EPOCH, 0, True, 1), Returned(A)]
    assert say(listener, b"r1", Ack(0)) == [Reset()]
    assert listener.unreachable(b"r1") == []
    assert peer_at(listener, b"r2") == A


@pytest.mark.parametrize(
    "changes",
    [
        {"life": 0},
        {"life": 7},
        {"life": 1, "epoch": EPOCH - 1},
        {"life": 1, "received": 1},
    ],
)
def test_a_hello_from_another_life_begins_a_new_one(changes: dict[str, Any]) -> None:
    listener = joined()
    listener.queue(A, b"\x01")
    came = hello(**changes)
    assert say(listener, b"r2", came) == [Welcome(EPOCH, 0, False, 2), Joined(A, came, Role.ADMIN)]
    assert listener.flush(0.0) == []
    assert say(listener, b"r1", Ack(0)) == [Reset()]


def test_a_life_whose_welcome_was_lost_is_not_taken_for_the_peers_own() -> None:
    listener = joined()
    listener.drop(A)
    say(listener, b"r2", hello(life=1))
    assert say(listener, b"r3", hello(life=1))[0] == Welcome(EPOCH, 0, False, 3)


@pytest.mark.parametrize("frame", [Ack(0), Batch(1, 0, []), Welcome(1, 0, True), Reset()])
def test_a_stranger_who_says_no_hello_is_reset(frame: Any) -> None:
    listener = Listener(Settings(), EPOCH)
    assert say(listener, b"r1", frame) == [Reset()]
    assert listener.strangers_reset == 1


@pytest.mark.parametrize(
    ("changes", "error", "word"),
    [
        ({"protocol": PROTOCOL_VERSION + 1}, "VersionMismatch", "protocol"),
        ({"role": "admin"}, "RemoteProtocolError", "admin"),
        ({"channel": 2}, "RemoteProtocolError", "channel"),
    ],
)
def test_a_hello_that_does_not_fit_is_refused_in_words(
    changes: dict[str, Any], error: str, word: str
) -> None:
    (refused,) = say(Listener(Settings(), EPOCH), b"r1", hello(**changes))
    assert isinstance(refused, Refused)
    assert refused.error == error
    assert word in refused.reason


def test_a_peer_cannot_change_its_role() -> None:
    (refused,) = say(joined(), b"r2", hello(role=Role.NODE))
    assert isinstance(refused, Refused)
    assert "client" in refused.reason


def test_a_frame_of_a_stranger_that_is_no_frame_is_refused_in_words() -> None:
    (refused,) = say(Listener(Settings(), EPOCH), b"r1", b"GET / HTTP/1.1")
    assert isinstance(refused, Refused)


@pytest.mark.parametrize("frame", [b"noise", Ack(3), hello(life=1, peer=B), Reset()])
def test_a_peer_that_breaks_the_numbering_is_reset_and_its_life_goes_on(frame: Any) -> None:
    listener = joined()
    assert say(listener, b"r1", frame) == [Reset(), Disconnected(A)]
    assert listener.frames_refused == 1
    assert say(listener, b"r2", hello(life=1)) == [Welcome(EPOCH, 0, True, 1), Returned(A)]


def test_a_hello_that_came_twice_is_dropped_and_counted() -> None:
    listener = joined()
    assert say(listener, b"r1", hello()) == []
    assert listener.frames_refused == 1
    assert peer_at(listener, b"r1") == A


def test_unacknowledged_batches_are_asked_after_in_time() -> None:
    listener = joined()
    say(listener, b"r2", hello(B))
    listener.queue(A, b"\x07")
    listener.queue(B, b"\x07")
    assert len(listener.flush(5.0)) == 2
    due_s = 5.0 + Settings().resend_after_s
    assert listener.deadline_s() == due_s
    say(listener, b"r2", Ack(1), 5.1)
    assert listener.flush(due_s) == [(b"r1", encode_ack(0, 1))]
    say(listener, b"r1", Ack(0, missing=True), due_s)
    assert listener.flush(due_s)[0] == (b"r1", encode_batch(1, 0, [b"\x07"]))
    say(listener, b"r1", Ack(1), due_s)
    listener.flush(99.0)
    assert listener.deadline_s() is None


def test_a_dropped_peer_is_told_why_and_is_a_stranger_then() -> None:
    listener = joined()
    listener.queue(A, b"\x01")
    (command,) = listener.drop(A, "RemoteProtocolError", "no such kind")
    assert isinstance(command, SendFrame)
    assert decode_frame(command.data) == Refused("RemoteProtocolError", "no such kind")
    assert listener.drop(A) == []
    assert listener.flush(0.0) == []
    assert say(listener, b"r1", Ack(0)) == [Reset()]


def test_a_peer_that_left_by_itself_is_told_nothing() -> None:
    assert joined().drop(A) == []


def test_the_bulk_link_belongs_to_the_life_of_the_control_link() -> None:
    listener = joined()
    stale = hello(life=9, channel=Channel.BULK)
    assert say(listener, b"b0", stale) == [Reset()]
    assert say(listener, b"b1", hello(B, 1, channel=Channel.BULK)) == [Reset()]
    bulk = hello(life=1, channel=Channel.BULK)
    assert say(listener, b"b1", bulk) == [Welcome(EPOCH, 0, True, 1)]
    assert listener.queue(A, b"\x01", Channel.BULK)
    assert [route for route, _ in listener.flush(0.0)] == [b"b1"]
    assert listener.unreachable(b"b1") == []
    assert say(listener, b"b2", bulk) == [Welcome(EPOCH, 0, True, 1)]
    assert [route for route, _ in listener.flush(0.0)] == [b"b2"]


def test_a_bulk_link_that_does_not_add_up_ends_the_life() -> None:
    listener = joined()
    bulk = hello(life=1, received=5, channel=Channel.BULK)
    assert say(listener, b"b1", bulk) == [Reset(), Reset(), Disconnected(A)]
    assert len(listener) == 0


def test_after_a_closing_every_route_is_probed_a_few_times() -> None:
    listener = joined()
    say(listener, b"r2", hello(B))
    listener.flush(0.0)
    assert listener.time_passed(1.0) == []
    listener.may_have_closed([b"r1", b"r2"], 1.0)
    for pause_s in PROBE_PAUSES_S:
        assert listener.deadline_s() == 1.0 + pause_s
        probes = listener.time_passed(1.0 + pause_s)
        assert probes == [SendFrame(b"r1", encode_ack(0)), SendFrame(b"r2", encode_ack(0))]
    assert listener.deadline_s() is None
    assert listener.time_passed(99.0) == []


def test_what_waits_for_a_peer_that_does_not_read_is_told_until_it_has_caught_up() -> None:
    listener = Listener(Settings(link_window_batches_max=1, output_backlog_bytes_max=100), EPOCH)
    say(listener, b"r1", hello())
    listener.flush(0.0)
    listener.queue(A, b"\x01")
    listener.flush(0.0)
    for _ in range(3):
        listener.queue(A, b"\xa0" * 60)
    listener.flush(0.0)
    assert listener.lagging == [Lags(A, 180)]
    listener.lagging.clear()
    say(listener, b"r1", encode_ack(1))
    listener.flush(0.0)
    assert listener.lagging == [Lags(A, 0)]


def test_what_waits_for_a_peer_without_a_connection_is_told() -> None:
    listener = Listener(Settings(output_backlog_bytes_max=100), EPOCH)
    say(listener, b"r1", hello())
    listener.unreachable(b"r1")
    listener.queue(A, b"\xa0" * 101)
    listener.flush(0.0)
    assert listener.lagging == [Lags(A, 101)]


def test_as_long_as_nothing_unusual_came_nothing_more_was_refused() -> None:
    listener = joined()
    unusual, refusals = listener.unusual, listener.refusals
    say(listener, b"r1", encode_batch(1, 0, [b"\x07"]))
    assert (listener.unusual, listener.refusals) == (unusual, refusals)
    for number, junk in enumerate((encode_batch(2, 9, [b"\x07"]), b"junk", Reset()), 1):
        say(listener, b"r1", junk)
        assert (listener.unusual > unusual, listener.refusals) == (True, refusals + number)
        unusual = listener.unusual

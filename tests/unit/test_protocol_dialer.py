"""The dialler connects, says Hello, tries again for ever, and tells lives from reconnects."""

from random import Random
from typing import Any

import pytest
from drumbeat.protocol import frames
from drumbeat.protocol.codec import decode_frame, encode, encode_ack, encode_batch
from drumbeat.protocol.dialer import (
    EAGER_MAX_S,
    EAGER_MIN_S,
    EAGER_S,
    KEEPALIVE_S,
    CloseSocket,
    Delivered,
    Dialer,
    Down,
    OpenSocket,
    Refused,
    SendFrame,
    State,
    Unknown,
    Up,
)  # fmt: skip
from drumbeat.protocol.frames import Ack, Batch, Channel, Hello, Reset, Role, Welcome
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.settings import Settings

PEER = PeerId(b"dialer")
SETTINGS = Settings()


def dialer(channel: Channel = Channel.CONTROL) -> Dialer:
    return Dialer(Role.NODE, PEER, channel, "lab3", "3.11", SETTINGS, Random(7))


def welcome(epoch: int = 5, received: int = 0, resumed: bool = False, life: int = 1) -> bytes:
    return encode(Welcome(epoch, received, resumed, life))


def connected() -> Dialer:
    one = dialer()
    one.start(0.0)
    one.received(welcome(), 0.1)
    return one


def hello_in(commands: list[Any]) -> Hello:
    (frame,) = [command.data for command in commands if isinstance(command, SendFrame)]
    hello = decode_frame(frame)
    assert isinstance(hello, Hello)
    return hello


def test_it_opens_a_socket_and_says_hello() -> None:
    commands = dialer().start(0.0)
    assert commands[0] == OpenSocket()
    hello = hello_in(commands)
    assert hello == Hello(1, "node", PEER, Channel.CONTROL, 0, 0, "3.11", "lab3", 0)


def test_a_welcome_brings_it_up_in_a_new_life() -> None:
    one = dialer()
    one.start(0.0)
    assert one.received(welcome(), 0.1) == [Up(5, False, 1)]
    assert one.up
    assert one.start(1.0) == []


def test_nothing_is_sent_before_the_welcome() -> None:
    one = dialer()
    one.start(0.0)
    one.link.queue(b"\xc0")
    assert one.flush(0.0) == []


def test_messages_are_delivered_and_duplicates_are_not() -> None:
    one = connected()
    frame = encode_batch(1, 0, [b"\x01", b"\x02"])
    (delivered,) = one.received(frame, 1.0)
    assert isinstance(delivered, Delivered)
    assert [bytes(raw) for raw in delivered.messages] == [b"\x01", b"\x02"]
    assert one.received(frame, 1.0) == []


def test_before_the_first_success_it_tries_again_at_once_for_a_while() -> None:
    one, now_s = dialer(), 0.0
    one.start(now_s)
    while now_s < EAGER_S:
        assert one.closed("closed", now_s) == [CloseSocket()]
        due_s = one.deadline_s()
        assert due_s is not None
        assert EAGER_MIN_S <= due_s - now_s <= EAGER_MAX_S
        assert one.time_passed(due_s - 0.001) == []
        now_s = due_s
        assert one.time_passed(now_s)[0] == OpenSocket()
    one.closed("closed", now_s)
    due_s = one.deadline_s()
    assert due_s is not None
    assert SETTINGS.reconnect_min_s <= due_s - now_s <= SETTINGS.reconnect_max_s


def test_over_the_network_the_first_attempts_too_are_as_far_apart_as_the_settings_say() -> None:
    one = Dialer(Role.NODE, PEER, Channel.CONTROL, "lab3", "3.11", SETTINGS, Random(7), eager=False)
    one.start(0.0)
    for now_s in (0.0, 1.0, 2.0):
        one.closed("no way there", now_s)
        due_s = one.deadline_s()
        assert due_s is not None
        assert SETTINGS.reconnect_min_s <= due_s - now_s <= SETTINGS.reconnect_max_s
        one.time_passed(due_s)


def test_a_connection_that_was_up_is_told_down_and_made_again_after_a_pause() -> None:
    one = connected()
    assert one.closed("disconnected", 1.0) == [CloseSocket(), Down("disconnected")]
    assert one.closed("disconnected", 1.0) == []
    due_s = one.deadline_s()
    assert due_s is not None
    assert SETTINGS.reconnect_min_s <= due_s - 1.0 <= SETTINGS.reconnect_max_s
    hello = hello_in(one.time_passed(due_s))
    assert (hello.epoch, hello.life, hello.received) == (5, 1, 0)


def test_a_resumed_link_sends_again_what_was_not_received() -> None:
    one = connected()
    one.link.queue(b"\x01")
    first = one.flush(1.0)
    one.received(encode_batch(1, 0, [b"\x07"]), 1.0)
    one.closed("disconnected", 1.0)
    one.link.queue(b"\x02")
    assert hello_in(one.time_passed(2.0)).received == 1
    assert one.received(welcome(resumed=True), 2.0) == [Up(5, True, 1)]
    again = [decode_frame(frame) for frame in one.flush(2.0)]
    assert again[0] == decode_frame(first[0])
    assert isinstance(again[1], Batch)
    assert (again[1].seq, again[1].ack) == (2, 1)


def test_a_new_life_drops_what_was_queued_in_the_old_one() -> None:
    one = connected()
    one.link.queue(b"\x01")
    one.closed("disconnected", 1.0)
    one.time_passed(2.0)
    assert one.received(welcome(epoch=6, life=9), 2.0) == [Up(6, False, 9)]
    assert one.flush(2.0) == []


@pytest.mark.parametrize("life", [2, 0])
def test_a_life_that_is_not_ours_cannot_be_resumed(life: int) -> None:
    one = connected()
    one.closed("disconnected", 1.0)
    one.time_passed(2.0)
    assert one.received(welcome(resumed=True, life=life), 2.0) == [CloseSocket()]
    assert one.frames_refused == 1


def test_numbers_that_do_not_add_up_end_in_a_new_life() -> None:
    one = connected()
    one.closed("disconnected", 1.0)
    one.time_passed(2.0)
    assert one.received(welcome(resumed=True, received=3), 2.0) == [CloseSocket()]
    hello = hello_in(one.time_passed(3.0))
    # The epoch tells a later scheduler that there is something over from this one.
    assert (hello.epoch, hello.life) == (5, 0)


def test_no_welcome_in_time_is_no_connection() -> None:
    one = dialer()
    one.start(0.0)
    assert one.deadline_s() == SETTINGS.handshake_timeout_s
    assert one.time_passed(1.9) == []
    assert one.time_passed(2.0) == [CloseSocket()]
    assert one.state is State.WAITING


def test_a_reset_makes_it_say_hello_on_a_new_connection() -> None:
    one = connected()
    commands = one.received(encode(Reset()), 1.0)
    assert commands[0] == CloseSocket()
    assert isinstance(commands[1], Down)
    assert commands[2] == Unknown()
    assert hello_in(one.time_passed(2.0)).life == 1


def test_a_refusal_is_reported_and_final() -> None:
    one = dialer()
    one.start(0.0)
    refused = encode(frames.Refused("VersionMismatch", "too old"))
    assert one.received(refused, 0.1) == [CloseSocket(), Refused("VersionMismatch", "too old")]
    assert one.deadline_s() is None
    assert one.time_passed(99.0) == []
    assert one.renew(1, 1, 99.0) == []
    assert one.abandon("no", 99.0) == []


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"noise",
        encode(Ack(1)),
        welcome(life=2),
        encode(Hello(1, "node", PEER, 0, 0, 0, "3.11", "x")),
    ],
)
def test_a_frame_that_does_not_fit_ends_the_connection_but_not_the_life(frame: bytes) -> None:
    one = connected()
    commands = one.received(frame, 1.0)
    assert commands[0] == CloseSocket()
    assert isinstance(commands[1], Down)
    assert one.frames_refused == 1
    assert hello_in(one.time_passed(2.0)).life == 1


def test_what_overtook_the_welcome_or_came_twice_is_dropped_and_counted() -> None:
    one = dialer()
    one.start(0.0)
    assert one.received(encode_batch(1, 0, [b"\x07"]), 0.1) == []
    assert one.received(encode_ack(0), 0.1) == []
    one.received(welcome(), 0.1)
    assert one.received(welcome(), 0.1) == []
    assert one.frames_refused == 3
    assert one.up
    assert one.link.received_seq == 0


def test_an_unacknowledged_batch_is_asked_after_in_time() -> None:
    one = connected()
    one.link.queue(b"\x07")
    one.flush(1.0)
    due_s = 1.0 + Settings().resend_after_s
    assert one.deadline_s() == due_s
    assert one.flush(due_s) == [encode_ack(0, 1)]


def test_with_nothing_to_say_it_gives_a_sign_of_life() -> None:
    one = connected()
    assert one.deadline_s() == 0.1 + KEEPALIVE_S
    assert one.flush(0.05 + KEEPALIVE_S) == []
    assert one.flush(0.1 + KEEPALIVE_S) == [encode_ack(0)]
    assert one.deadline_s() == pytest.approx(0.1 + 2 * KEEPALIVE_S)


def test_a_probe_needs_a_connection() -> None:
    assert dialer().probe() == []
    assert connected().probe() == [SendFrame(encode_ack(0))]


def test_the_bulk_link_begins_empty_in_the_life_that_control_has_begun() -> None:
    bulk = dialer(Channel.BULK)
    assert bulk.deadline_s() is None
    hello = hello_in(bulk.renew(5, 3, 0.0))
    assert (hello.channel, hello.epoch, hello.life, hello.received) == (Channel.BULK, 5, 3, 0)
    assert bulk.received(welcome(resumed=True, life=3), 0.1) == [Up(5, True, 3)]
    bulk.link.queue(b"\x01")
    assert bulk.renew(5, 4, 1.0)[0] == CloseSocket()
    bulk.received(welcome(resumed=True, life=4), 1.1)
    assert bulk.flush(1.1) == []


def test_a_stopped_dialler_stays_quiet() -> None:
    one = connected()
    assert one.stop() == []
    assert one.closed("disconnected", 1.0) == []
    assert one.received(encode_ack(0), 1.0) == []
    assert one.deadline_s() is None

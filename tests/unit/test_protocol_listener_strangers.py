"""Who says Hello and nothing more: so many at a time, and the next is to come again."""

from random import Random
from typing import Any

from drumbeat.protocol.codec import decode_frame, encode, encode_batch
from drumbeat.protocol.dialer import Dialer, SendFrame, State, Unknown
from drumbeat.protocol.frames import PROTOCOL_VERSION, Channel, Hello, Reset, Role, Welcome
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.listener import Disconnected, Joined, Listener
from drumbeat.protocol.messages import Leave
from drumbeat.protocol.settings import Settings

SETTINGS = Settings(strangers_max=3)


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(6, "big"))


def hello(number: int, epoch: int = 0, life: int = 0) -> Hello:
    channel = Channel.CONTROL
    return Hello(PROTOCOL_VERSION, Role.CLIENT, peer(number), channel, epoch, 0, "3.11", "p", life)


def say(listener: Listener, number: int, frame: Any) -> list[Any]:
    raw = frame if isinstance(frame, bytes) else encode(frame)
    return [
        command if not hasattr(command, "data") else decode_frame(command.data)
        for command in listener.received(b"route-%d" % number, raw, 0.0)
    ]


def full() -> Listener:
    listener = Listener(SETTINGS, 4)
    for number in range(3):
        assert isinstance(say(listener, number, hello(number))[0], Welcome)
    return listener


def test_one_stranger_too_many_is_to_come_again_and_is_counted() -> None:
    listener = full()
    assert say(listener, 3, hello(3)) == [Reset()]
    assert listener.hellos_put_off == 1
    assert listener.hellos_refused == 0
    assert "p is to come again: 3 others have said Hello" in listener.last_refusal
    assert len(listener) == 3


def test_there_is_room_again_once_a_stranger_has_said_something() -> None:
    listener = full()
    say(listener, 1, encode_batch(1, 0, [encode(Leave())]))
    assert isinstance(say(listener, 3, hello(3))[0], Welcome)
    assert say(listener, 4, hello(4)) == [Reset()]


def test_there_is_room_again_once_a_stranger_was_dropped() -> None:
    listener = full()
    listener.drop(peer(0))
    assert isinstance(say(listener, 3, hello(3))[0], Welcome)


def test_a_stranger_that_is_known_returns_however_many_there_are() -> None:
    listener = full()
    assert listener.unreachable(b"route-1") == [Disconnected(peer(1))]
    welcome, _ = say(listener, 11, hello(1, 4, 2))
    assert welcome == Welcome(4, 0, True, 2)
    welcome, joined = say(listener, 12, hello(1))
    assert (welcome.resumed, type(joined)) == (False, Joined)


def test_a_dialler_that_is_to_come_again_does_so() -> None:
    dialer = Dialer(Role.CLIENT, peer(9), Channel.CONTROL, "p", "3.11", SETTINGS, Random(0))
    dialer.start(0.0)
    commands = dialer.received(encode(Reset()), 0.1)
    assert any(isinstance(command, Unknown) for command in commands)
    assert dialer.state is State.WAITING
    assert dialer.due_s is not None
    again = [one for one in dialer.time_passed(dialer.due_s) if isinstance(one, SendFrame)]
    assert isinstance(decode_frame(again[0].data), Hello)

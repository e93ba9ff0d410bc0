"""A key proves a role, and nobody is more than that."""

import pytest
from drumbeat.protocol.codec import decode_frame, encode
from drumbeat.protocol.frames import (
    PROTOCOL_VERSION,
    Batch,
    Channel,
    Hello,
    Refused,
    Reset,
    Role,
    Welcome,
)
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.listener import Disconnected, Joined, Listener, Returned, SendFrame
from drumbeat.protocol.messages import Query
from drumbeat.protocol.settings import Settings
from msgspec import Raw

A = PeerId(b"peer-a")
EPOCH = 4


def hello(role: str, channel: int = Channel.CONTROL, life: int = 0) -> Hello:
    epoch = EPOCH if life else 0
    return Hello(PROTOCOL_VERSION, role, A, channel, epoch, 0, "3.11", "me", life)


def say(listener: Listener, route: bytes, said: Hello, proven: str) -> list[object]:
    commands = listener.received(route, encode(said), 0.0, proven)
    return [decode_frame(one.data) if isinstance(one, SendFrame) else one for one in commands]


def refusal(answer: list[object]) -> Refused:
    (refused,) = answer
    assert isinstance(refused, Refused)
    return refused


@pytest.mark.parametrize(
    ("proven", "role"),
    [(Role.CLIENT, Role.CLIENT), (Role.NODE, Role.NODE), (Role.ADMIN, Role.CLIENT)],
)
def test_who_comes_as_what_its_key_proves_is_welcome(proven: str, role: str) -> None:
    welcome, joined = say(Listener(Settings(), EPOCH), b"r1", hello(role), proven)
    assert welcome == Welcome(EPOCH, 0, False, 1)
    assert joined == Joined(A, hello(role), proven)


@pytest.mark.parametrize(
    ("proven", "role"),
    [
        (Role.NODE, Role.CLIENT), (Role.CLIENT, Role.NODE), (Role.ADMIN, Role.NODE),
        ("somebody", Role.CLIENT), ("somebody", Role.NODE),
    ],
)  # fmt: skip
def test_a_key_of_one_role_does_not_serve_for_another(proven: str, role: str) -> None:
    listener = Listener(Settings(), EPOCH)
    refused = refusal(say(listener, b"r1", hello(role), proven))
    assert refused.error == "KeyRefused"
    assert f"comes as a {role} with the key of a {proven}" in refused.reason
    assert not len(listener)
    assert listener.hellos_refused == 1


@pytest.mark.parametrize("proven", ["", Role.CLIENT, Role.NODE, Role.ADMIN])
def test_nobody_says_that_it_is_an_admin(proven: str) -> None:
    refused = refusal(say(Listener(Settings(), EPOCH), b"r1", hello(Role.ADMIN), proven))
    assert refused.error == "RemoteProtocolError"


def test_on_a_unix_socket_the_directory_is_the_proof() -> None:
    for role in (Role.CLIENT, Role.NODE):
        (_, joined) = say(Listener(Settings(), EPOCH), b"r1", hello(role), "")
        assert joined == Joined(A, hello(role), Role.ADMIN)


def test_a_bulk_connection_and_one_that_returns_come_with_the_key_that_began_the_life() -> None:
    listener = Listener(Settings(), EPOCH)
    say(listener, b"r1", hello(Role.CLIENT), Role.CLIENT)
    bulk = hello(Role.CLIENT, Channel.BULK, life=1)
    assert refusal(say(listener, b"r2", bulk, Role.ADMIN)).error == "KeyRefused"
    assert say(listener, b"r2", bulk, Role.CLIENT) == [Welcome(EPOCH, 0, True, 1)]
    again = hello(Role.CLIENT, life=1)
    assert refusal(say(listener, b"r3", again, Role.ADMIN)).error == "KeyRefused"
    assert say(listener, b"r3", again, Role.CLIENT) == [Welcome(EPOCH, 0, True, 1), Returned(A)]


def test_nobody_takes_the_place_of_a_peer_with_another_key() -> None:
    listener = Listener(Settings(), EPOCH)
    say(listener, b"r1", hello(Role.CLIENT), Role.ADMIN)
    refused = refusal(say(listener, b"r2", hello(Role.CLIENT), Role.CLIENT))
    assert refused.reason == "me: this peer has come with a key of another role"
    connection = listener.connection(A)
    assert connection is not None
    assert connection.route == b"r1"


def test_who_comes_by_the_route_of_one_that_has_gone_is_not_taken_for_it() -> None:
    listener = Listener(Settings(), EPOCH)
    say(listener, b"r1", hello(Role.CLIENT), Role.CLIENT)
    batch = encode(Batch(1, 0, [Raw(encode(Query(7, "status")))]))
    answer = listener.received(b"r1", batch, 0.0, Role.NODE)
    assert answer == [Disconnected(A), SendFrame(b"r1", encode(Reset()))]
    assert listener.strangers_reset == 1
    assert listener.routes.get(b"r1") is None
    # The client itself comes back to the same life, by another route.
    again = say(listener, b"r2", hello(Role.CLIENT, life=1), Role.CLIENT)
    assert again == [Welcome(EPOCH, 0, True, 1), Returned(A)]

"""The rule at the door: whose key is on the list comes in as that, and nobody else."""

import pytest
from drumbeat.protocol.curve import dialling_options, listening_options
from drumbeat.protocol.door import ADMITTED, DOMAIN, FULL, KEY_REFUSED, decide
from drumbeat.protocol.frames import Role
from drumbeat.protocol.keys import Credentials, Door
from drumbeat.protocol.settings import Settings
from hypothesis import given
from hypothesis import strategies as st

KEY, OTHER = bytes(32), bytes(range(32))
ROLES = {KEY: Role.NODE}


def question(**changes: bytes) -> list[bytes]:
    parts = {
        "version": b"1.0", "number": b"1", "domain": DOMAIN, "address": b"10.0.0.7", "route": b"",
        "mechanism": b"CURVE", "key": KEY,
    }  # fmt: skip
    return list((parts | changes).values())


def test_a_key_on_the_list_comes_in_as_what_it_proves() -> None:
    answer = decide(question(), ROLES, full=False)
    assert answer.status == ADMITTED
    assert answer.parts == [b"1.0", b"1", b"200", b"", b"node", b""]


@pytest.mark.parametrize(
    "asked",
    [
        question(key=OTHER), question(key=b""), question(mechanism=b"NULL"),
        question(mechanism=b"PLAIN"), question(domain=b""), question(domain=b"else"),
        question(version=b"2.0"), question()[:-1], [*question(), b"more"], [], [b"1.0"],
    ],
)  # fmt: skip
def test_everybody_else_is_refused(asked: list[bytes]) -> None:
    answer = decide(asked, ROLES, full=False)
    assert answer.status == KEY_REFUSED
    assert answer.parts[2] == b"400"
    assert answer.parts[4] == b""


def test_when_there_are_as_many_as_there_may_be_a_good_key_is_told_so_and_others_no_more() -> None:
    assert decide(question(), ROLES, full=True).status == FULL
    assert decide(question(), ROLES, full=True).parts[4] == b""
    assert decide(question(key=OTHER), ROLES, full=True).status == KEY_REFUSED


@given(st.lists(st.binary(max_size=40), max_size=9), st.booleans())
def test_whatever_is_asked_there_is_an_answer_and_nobody_comes_in_by_it(
    asked: list[bytes], full: bool
) -> None:
    answer = decide(asked, ROLES, full=full)
    assert len(answer.parts) == 6
    assert answer.status == KEY_REFUSED or KEY in asked


def test_a_listening_socket_is_locked_before_it_is_bound() -> None:
    door = Door(OTHER, ROLES)
    names = dict(listening_options(door, "tcp://*:7788", Settings()))
    assert names["CURVE_SERVER"] == 1
    assert names["CURVE_SECRETKEY"] == OTHER
    # Without the two, ZeroMQ admits any key.
    assert names["ZAP_DOMAIN"]
    assert names["ZAP_ENFORCE_DOMAIN"] == 1


def test_a_connection_of_who_may_come_back_is_not_closed_before_it_is_given_up() -> None:
    settings = Settings()
    listening = dict(listening_options(Door(OTHER, ROLES), "tcp://*:7788", settings))
    assert listening["TCP_KEEPALIVE_IDLE"] == settings.client_silence_s
    assert listening["TCP_MAXRT"] == settings.client_silence_s * 1000
    assert not any(name.startswith("HEARTBEAT") for name in listening)
    dialling = dict(dialling_options(Credentials(KEY, OTHER), KEY, "tcp://lab1:1", settings))
    assert dialling["HEARTBEAT_IVL"] == 1000
    assert dialling["HEARTBEAT_TIMEOUT"] == 8000
    assert "HEARTBEAT_TTL" not in dialling


@pytest.mark.parametrize(
    ("endpoint", "both"), [("tcp://10.0.0.7:1", 0), ("tcp://lab1:1", 1), ("tcp://[::1]:1", 1)]
)
def test_only_an_ipv4_address_is_dialled_by_ipv4_alone(endpoint: str, both: int) -> None:
    options = dict(dialling_options(Credentials(KEY, OTHER), KEY, endpoint, Settings()))
    assert options["IPV6"] == both

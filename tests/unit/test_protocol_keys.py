"""Keys and addresses: text and back, and no secret where none belongs."""

import pickle

import pytest
from drumbeat.protocol.endpoints import check_endpoint, is_loopback, split_tcp, tcp_endpoint
from drumbeat.protocol.errors import ConfigError
from drumbeat.protocol.keys import (
    ROLES,
    Credentials,
    Door,
    is_address,
    parse_address,
    parse_key,
    show_address,
    show_key,
)
from hypothesis import given
from hypothesis import strategies as st

SERVER, SECRET = bytes(range(32)), bytes(range(100, 132))
CREDENTIALS = Credentials(SERVER, SECRET)
ADDRESS = show_address("tcp://lab1:7788", "node", CREDENTIALS)

keys = st.binary(min_size=32, max_size=32)
names = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,60}[a-z0-9])?", fullmatch=True)
numbers = st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str)
ports = st.integers(1, 65535)


@given(names | numbers, ports, st.sampled_from(ROLES), keys, keys)
def test_an_address_says_what_it_was_made_from(
    host: str, port: int, role: str, server: bytes, secret: bytes
) -> None:
    endpoint = tcp_endpoint(host, port)
    text = show_address(endpoint, role, Credentials(server, secret))
    assert parse_address(text) == (endpoint, role, Credentials(server, secret))
    assert parse_address(f" {text}\n") == parse_address(text)
    assert check_endpoint(endpoint) == endpoint


def test_an_address_looks_like_this() -> None:
    server, secret = show_key(SERVER), show_key(SECRET)
    assert f"drumbeat://node:{secret}@lab1:7788/{server}" == ADDRESS
    assert len(server) == len(secret) == 43
    assert parse_address(ADDRESS).endpoint == "tcp://lab1:7788"


def test_an_ipv6_address_stands_in_brackets() -> None:
    text = show_address("tcp://[fd00::7]:7788", "client", CREDENTIALS)
    assert "@[fd00::7]:7788/" in text
    assert parse_address(text).endpoint == "tcp://[fd00::7]:7788"
    assert split_tcp("[fe80::1%eth0]:1", "it") == ("fe80::1%eth0", 1)


@given(keys)
def test_a_key_has_one_text(key: bytes) -> None:
    text = show_key(key)
    assert parse_key(text, "it") == key
    others = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") - {text[-1]}
    parsed = []
    for last in sorted(others):
        try:
            parsed.append(parse_key(text[:-1] + last, "it"))
        except ConfigError:
            continue
    assert key not in parsed


@pytest.mark.parametrize(
    "text",
    [
        "", "drumbeat://", "lab1:7788", "tcp://lab1:7788", ADDRESS[:-1], ADDRESS + "A",
        ADDRESS.replace("node:", "boss:"), ADDRESS.replace("node:", ""),
        ADDRESS.replace("@", ""), ADDRESS.replace(":7788", ""), ADDRESS.replace("7788", "70000"),
        ADDRESS.replace("7788", "0"), ADDRESS.replace("lab1", "*"), ADDRESS.replace("lab1", ""),
        ADDRESS.replace("lab1", "lab 1"), ADDRESS.replace("lab1", "fd00::7"),
        ADDRESS.replace("lab1", "[lab1]"), ADDRESS.replace("lab1", show_key(SECRET)[:20] + "é"),
        ADDRESS.replace("/", "//"), ADDRESS.replace("drumbeat:", "DRUMBEAT:"),
        ADDRESS.replace("7788", "\u0667\u0667"), ADDRESS.replace("lab1", "a" * 254),
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_in_plain_words(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(text)
    assert caught.value.setting == "address"
    assert show_key(SECRET)[:20] not in str(caught.value)


@given(st.data())
def test_no_error_shows_a_secret_however_the_parts_are_mixed_up(data: st.DataObject) -> None:
    server, secret = show_key(SERVER), show_key(SECRET)
    parts = ["drumbeat://", "node", "lab1", "7788", ":", "@", "/", ":", server, secret]
    text = "".join(data.draw(st.lists(st.sampled_from(parts), max_size=12)))
    for mixed in (text, "drumbeat://" + text):
        try:
            parse_address(mixed)
        except ConfigError as error:
            assert secret not in str(error)  # noqa: PT017  # mostly it raises, not always
            assert error.__cause__ is None  # noqa: PT017
            assert error.__suppress_context__ or error.__context__ is None  # noqa: PT017


def test_keys_are_neither_shown_nor_pickled() -> None:
    door = Door(SECRET, {SERVER: "node"})
    for kept in (CREDENTIALS, door):
        for shown in (repr(kept), str(kept), f"{kept}", f"{[kept]}"):
            assert show_key(SECRET) not in shown
            assert repr(SECRET) not in shown
        with pytest.raises(TypeError, match="keys are not pickled"):
            pickle.dumps(kept)
    assert show_key(SERVER) in repr(CREDENTIALS)
    assert show_key(SERVER) in repr(door)
    assert parse_address(ADDRESS).__repr__().count("...") == 1


def test_an_address_with_a_key_in_it_is_known_from_a_path() -> None:
    assert is_address(ADDRESS)
    assert is_address(" DRUMBEAT://x")
    assert not is_address("/run/cluster/node.cluster")
    assert not is_address("drumbeat")


@pytest.mark.parametrize(
    "text", ["tcp://", "tcp://lab1", "tcp://:1", "tcp://lab1:1/2", "tcp://a b:1", "udp://a:1", "x"]
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        check_endpoint(text)


@pytest.mark.parametrize("text", ["tcp://*:7788", "tcp://0.0.0.0:0", "tcp://[::]:1", "tcp://a_b:1"])
def test_one_may_listen_on_all_interfaces_and_where_the_system_picks_the_port(text: str) -> None:
    assert check_endpoint(text) == text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.0.1", "::1", "localhost", "LocalHost"])
def test_some_hosts_are_whatever_machine_looks_for_them(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "fd00::1", "localhost.lab", "127.example", "*"])
def test_all_others_are_the_same_for_everybody(host: str) -> None:
    assert not is_loopback(host)

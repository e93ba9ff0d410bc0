"""What comes on a stream becomes frames, however it is cut, and nonsense becomes nothing."""

import pytest
from drumbeat.protocol import zmtp
from drumbeat.protocol.zmtp import DEALER, ROUTER, Incoming
from hypothesis import given
from hypothesis import strategies as st

FRAME_BYTES_MAX = 1 << 20
ALL = 1000
SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
MORE, LONG, COMMAND = 1, 2, 4
PIECES = st.lists(st.integers(1, 80), max_size=30)


def greeting(major: int = 3, minor: int = 1, mechanism: bytes = b"NULL") -> bytes:
    return SIGNATURE + bytes((major, minor)) + mechanism.ljust(20, b"\0") + bytes(32)


def command(name: bytes, rest: bytes = b"") -> bytes:
    body = bytes((len(name),)) + name + rest
    if len(body) > 255:
        return bytes((COMMAND | LONG,)) + len(body).to_bytes(8, "big") + body
    return bytes((COMMAND, len(body))) + body


def entry(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + len(value).to_bytes(4, "big") + value


def ready(kind: bytes = DEALER) -> bytes:
    return command(b"READY", entry(b"Socket-Type", kind))


def frame(body: bytes, flags: int = 0) -> bytes:
    if len(body) > 255 or flags & LONG:
        return bytes((flags | LONG,)) + len(body).to_bytes(8, "big") + body
    return bytes((flags, len(body))) + body


def ping(context: bytes = b"") -> bytes:
    return command(b"PING", b"\0\x50" + context)


def incoming(kind: bytes = DEALER) -> Incoming:
    return Incoming(kind, FRAME_BYTES_MAX)


def opened() -> Incoming:
    made = incoming()
    assert made.take(greeting() + ready(), ALL) == []
    assert made.is_open
    return made


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [piece for piece in (*pieces, data) if piece]


def taken(made: Incoming, data: bytes, sizes: list[int]) -> list[bytes]:
    return [one for piece in cut(data, sizes) for one in made.take(piece, ALL)]


# --------------------------------------------------------------------------------- the same words


def test_what_one_end_says_first_opens_the_other() -> None:
    for mine, its in ((DEALER, ROUTER), (ROUTER, DEALER)):
        made = incoming(mine)
        assert made.take(zmtp.first_words(mine), ALL) == []
        assert made.is_open
        assert not made.wrong
        other = incoming(its)
        other.take(zmtp.first_words(mine), ALL)
        assert not other.is_open
        assert "kind" in other.wrong


def test_the_first_words_are_those_of_the_standard() -> None:
    words = zmtp.first_words(DEALER)
    assert words[:64] == greeting()
    assert words[64:] == command(b"READY", entry(b"Socket-Type", DEALER) + entry(b"Identity", b""))


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_536, FRAME_BYTES_MAX])
def test_a_frame_of_any_size_comes_back_as_it_was(size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert zmtp.head(size) + body == frame(body)
    made = opened()
    assert made.take(zmtp.head(size) + body, ALL) == [body]
    assert made.take(frame(b"next"), ALL) == [b"next"]


def test_a_short_frame_may_have_a_long_head() -> None:
    made = opened()
    assert made.take(frame(b"a", LONG) + frame(b"", LONG) + frame(b"b"), ALL) == [b"a", b"", b"b"]


# ------------------------------------------------------------------------------- however it is cut


def test_what_is_cut_at_any_byte_arrives_whole() -> None:
    bodies = [b"", b"a" * 3, b"b" * 255, b"c" * 256, b"d"]
    data = greeting() + ready() + b"".join(frame(body) for body in bodies) + ping(b"x")
    data += frame(b"1", MORE) + frame(b"2") + frame(b"end")
    for at in range(1, len(data)):
        made = incoming()
        assert taken(made, data, [at]) == [*bodies, b"end"], at
        assert made.junk == 1
        assert made.answers == [command(b"PONG", b"x")]


def test_what_comes_byte_by_byte_arrives_whole() -> None:
    made = incoming()
    data = greeting() + ready() + frame(b"a" * 300) + ping() + frame(b"") + frame(b"b")
    assert taken(made, data, [1] * len(data)) == [b"a" * 300, b"", b"b"]
    assert made.answers == [command(b"PONG")]


@given(st.lists(st.binary(max_size=400), max_size=8), PIECES)
def test_frames_arrive_whole_and_in_order_however_they_are_cut(
    bodies: list[bytes], sizes: list[int]
) -> None:
    made = incoming()
    data = greeting() + ready() + b"".join(map(frame, bodies))
    assert taken(made, data, sizes) == bodies
    assert not made.wrong
    assert not made.more


@given(st.lists(st.binary(max_size=300), max_size=8), PIECES, st.integers(1, 4))
def test_no_more_frames_come_than_were_asked_for_and_none_is_forgotten(
    bodies: list[bytes], sizes: list[int], frames_max: int
) -> None:
    made = opened()
    came: list[bytes] = []
    for piece in cut(b"".join(map(frame, bodies)), sizes):
        some = made.take(piece, frames_max)
        came += some
        while made.more:
            assert len(some) == frames_max
            some = made.take(b"", frames_max)
            assert some
            came += some
    assert came == bodies


def test_more_frames_are_told_of_and_wait() -> None:
    made = opened()
    data = frame(b"a") + frame(b"b") + frame(b"c") + frame(b"d" * 300)[:-1]
    assert made.take(data, 2) == [b"a", b"b"]
    assert made.more
    assert made.take(b"", 2) == [b"c"]
    assert not made.more, "the last one is not whole"
    assert made.take(b"d", 2) == [b"d" * 300]
    assert made.take(frame(b"e") + frame(b"f"), 2) == [b"e", b"f"]
    assert not made.more


def test_what_is_no_frame_takes_time_too_and_counts() -> None:
    made = opened()
    assert made.take(frame(b"a") + ping() + frame(b"1", MORE) + frame(b"2") + frame(b"b"), 2) == [
        b"a"
    ]
    assert (made.more, made.junk) == (True, 0)
    assert made.take(b"", 2) == []
    assert (made.more, made.junk) == (True, 1)
    assert made.take(b"", 2) == [b"b"]
    assert not made.more


# ------------------------------------------------------------------------ messages of many parts


def test_a_message_of_many_parts_is_dropped_and_counted_as_one() -> None:
    made = opened()
    data = frame(b"before")
    data += frame(b"1", MORE) + frame(b"", MORE) + frame(b"3" * 300, MORE) + frame(b"4")
    data += frame(b"between") + frame(b"5", MORE) + frame(b"6") + frame(b"after")
    assert made.take(data, ALL) == [b"before", b"between", b"after"]
    assert made.junk == 2
    assert not made.wrong


def test_parts_that_come_one_by_one_are_kept_by_nobody() -> None:
    made = opened()
    for _ in range(500):
        assert made.take(frame(bytes(10_000), MORE), ALL) == []
        assert made.junk == 1
    assert made.take(frame(b"last") + frame(b"a frame"), ALL) == [b"a frame"]
    assert made.junk == 1


def test_a_ping_between_two_parts_is_answered() -> None:
    made = opened()
    assert made.take(frame(b"1", MORE) + ping() + frame(b"2") + frame(b"a"), ALL) == [b"a"]
    assert (len(made.answers), made.junk) == (1, 1)


# ------------------------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize("size", [FRAME_BYTES_MAX + 1, 1 << 40, (1 << 64) - 1])
@pytest.mark.parametrize("flags", [0, MORE])
def test_a_frame_that_is_too_long_is_refused_before_its_bytes_come(size: int, flags: int) -> None:
    made = opened()
    head = bytes((LONG | flags,)) + size.to_bytes(8, "big")
    assert made.take(frame(b"a") + frame(b"b") + head, ALL) == [b"a", b"b"]
    assert f"{size:,} bytes" in made.wrong


def test_a_frame_that_is_too_long_waits_until_those_before_it_were_asked_for() -> None:
    made = opened()
    data = frame(b"a") + frame(b"b") + frame(b"c") + bytes((LONG,)) + b"\xff" * 8
    assert made.take(data, 2) == [b"a", b"b"]
    assert made.more
    assert not made.wrong
    assert made.take(b"", 2) == [b"c"]
    assert made.wrong
    assert not made.more


@pytest.mark.parametrize(
    "flags", [8, 16, 128, COMMAND | MORE, COMMAND | MORE | LONG, 0xFF], ids=hex
)
def test_flags_that_there_are_not_are_wrong(flags: int) -> None:
    made = opened()
    assert made.take(frame(b"a") + bytes((flags,)) + bytes(9), ALL) == [b"a"]
    assert f"{flags:#x}" in made.wrong


def test_once_something_is_wrong_no_frame_comes() -> None:
    made = opened()
    made.take(bytes((8, 0)), ALL)
    assert made.wrong
    assert made.take(frame(b"a"), ALL) == []


def test_a_command_that_is_too_long_is_refused_before_its_bytes_come() -> None:
    made = opened()
    assert made.take(bytes((COMMAND | LONG,)) + (1025).to_bytes(8, "big"), ALL) == []
    assert "1,025" in made.wrong
    made = opened()
    made.take(command(b"LONGEST", bytes(1024 - 8)), ALL)
    assert not made.wrong


# -------------------------------------------------------------------------------- before it is open


def test_who_speaks_before_it_has_said_what_it_is_is_wrong() -> None:
    for said in (frame(b"a"), frame(b"a", MORE), ping(), command(b"WHAT"), command(b""), b"\x04\0"):
        made = incoming()
        assert made.take(greeting() + said + ready() + frame(b"b"), ALL) == []
        assert made.wrong
        assert not made.is_open
        assert not made.answers


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        entry(b"Socket-Type", b"SUB"),
        entry(b"Socket-Type", b""),
        entry(b"Socket-Type", b"\xff\xfe"),
        entry(b"Identity", DEALER),
        entry(b"Socket-Type", DEALER)[:-1],
        b"\x0bSocket",
        b"\x0bSocket-Type\xff\xff\xff\xff",
        b"\x0bSocket-Type\0\0",
        b"\xff",
    ],
    ids=repr,
)
def test_whose_ready_does_not_say_that_it_is_a_dealer_is_wrong(rest: bytes) -> None:
    made = incoming()
    assert made.take(greeting() + command(b"READY", rest) + frame(b"a"), ALL) == []
    assert "of the kind" in made.wrong
    assert not made.is_open


def test_the_other_properties_are_nobodys_business_nor_is_how_they_are_written() -> None:
    rest = entry(b"Identity", b"chosen") + entry(b"X-Own", bytes(300))
    rest += entry(b"SOCKET-TYPE", DEALER) + b"\x03cut"
    made = incoming()
    assert made.take(greeting() + command(b"READY", rest) + frame(b"a"), ALL) == [b"a"]
    assert made.is_open


def test_an_error_is_told_in_its_words() -> None:
    made = incoming()
    made.take(greeting() + command(b"ERROR", b"\x07go away"), ALL)
    assert "go away" in made.wrong


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "does not speak"),
        (b"\x01\x00\x02\x00x", "old version"),
        (b"\xff" + (8).to_bytes(8, "big") + b"\0" + b"identity", "old version"),
        (SIGNATURE + b"\x01\x05\0\0", "old version"),
        (greeting(major=2), "old version"),
        (greeting(mechanism=b"CURVE"), "mechanism"),
        (greeting(mechanism=b"PLAIN"), "mechanism"),
        (greeting(mechanism=b"NULLnull"), "mechanism"),
    ],
    ids=repr,
)
def test_other_greetings_are_refused_in_words(said: bytes, word: str) -> None:
    for sizes in ([], [1] * len(said), [9], [10], [11]):
        made = incoming()
        assert taken(made, said + ready() + frame(b"a"), sizes) == []
        assert word in made.wrong
        assert not made.is_open


@pytest.mark.parametrize(("major", "minor"), [(3, 0), (3, 1), (3, 2), (4, 0)])
def test_later_versions_speak_as_this_one(major: int, minor: int) -> None:
    made = incoming()
    assert made.take(greeting(major, minor) + ready() + frame(b"a"), ALL) == [b"a"]


def test_a_signature_may_hold_anything_where_old_versions_had_a_length() -> None:
    made = incoming()
    said = b"\xff" + b"\0\0\0\0\0\0\0\x01" + b"\x7f" + greeting()[10:]
    assert made.take(said + ready(), ALL) == []
    assert made.is_open


# ---------------------------------------------------------------------------------- once it is open


@pytest.mark.parametrize("context", [b"", b"x", bytes(range(16))])
def test_a_ping_is_answered_with_its_context(context: bytes) -> None:
    made = opened()
    assert made.take(frame(b"a") + ping(context) + frame(b"b"), ALL) == [b"a", b"b"]
    assert made.answers == [command(b"PONG", context)]


def test_a_ping_is_answered_with_no_more_than_may_be_of_its_context() -> None:
    made = opened()
    made.take(ping(bytes(range(200))) + command(b"PING") + command(b"PING", b"\0"), ALL)
    assert made.answers == [command(b"PONG", bytes(range(16))), command(b"PONG"), command(b"PONG")]


def test_commands_that_nobody_knows_are_passed_over_once_it_is_open() -> None:
    made = opened()
    data = command(b"PONG") + command(b"SUBSCRIBE", b"a") + command(b"") + bytes((COMMAND, 0))
    data += ready(b"SUB") + bytes((COMMAND, 1, 200)) + command(b"ping", b"\0\0")
    assert made.take(data + frame(b"a"), ALL) == [b"a"]
    assert not made.wrong
    assert not made.answers


# --------------------------------------------------------------------------------------- nonsense


@given(st.binary(max_size=300), PIECES)
def test_junk_never_raises_and_is_never_a_frame(junk: bytes, sizes: list[int]) -> None:
    made = incoming()
    assert taken(made, junk, sizes) == []


#: what is nearly right finds more than noise does
WORDS = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.binary(max_size=60).map(frame),
        st.binary(max_size=60).map(lambda body: frame(body, MORE)),
        st.binary(max_size=30).map(lambda rest: command(b"READY", rest)),
        st.binary(max_size=30).map(lambda rest: command(b"PING", rest)),
        st.binary(max_size=30).map(lambda rest: command(b"ERROR", rest)),
        st.binary(max_size=20).map(lambda body: bytes((COMMAND, len(body))) + body),
        st.sampled_from([ready(), ready(ROUTER), greeting(), ready()[:-3], b"\xff" * 9]),
    ),
    max_size=8,
)


@given(WORDS, PIECES)
def test_before_it_is_open_nothing_is_a_frame_or_is_answered(
    words: list[bytes], sizes: list[int]
) -> None:
    made = incoming()
    for piece in cut(greeting() + b"".join(words), sizes):
        frames = made.take(piece, ALL)
        if not made.is_open:
            assert not frames
            assert not made.answers
            assert not made.junk


@given(WORDS, PIECES)
def test_what_comes_does_not_depend_on_how_it_is_cut(words: list[bytes], sizes: list[int]) -> None:
    data = greeting() + ready() + b"".join(words)
    whole, pieces = incoming(), incoming()
    frames = whole.take(data, ALL)
    came: list[bytes] = []
    for piece in cut(data, sizes):
        if not pieces.wrong:
            came += pieces.take(piece, ALL)
    assert came == frames
    assert (pieces.wrong, pieces.junk, pieces.answers) == (whole.wrong, whole.junk, whole.answers)

"""A parcel comes back as it was sealed; whatever else comes is refused by name."""

from contextlib import suppress
from random import Random

import pytest
from drumbeat.protocol.errors import RemoteProtocolError
from drumbeat.protocol.forms import COUNT_MAX
from drumbeat.protocol.parcels import (
    MARK,
    Hint,
    Parcel,
    Part,
    bytes_behind,
    is_parcel,
    opened,
    seal,
)
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import damaged

IDS = st.binary(min_size=14, max_size=16)
COUNTS = st.integers(0, COUNT_MAX)
PARTS = st.builds(Part, IDS, COUNTS, COUNTS, st.booleans())
HINTS = st.builds(Hint, st.text(), COUNTS, COUNTS, COUNTS, COUNTS)
PARCELS = st.one_of(
    st.builds(
        Parcel, st.binary(), st.lists(PARTS, max_size=4).map(tuple),
        st.dictionaries(IDS, HINTS, max_size=3), st.booleans(),
    ),
    st.builds(
        Parcel, st.none(), st.lists(PARTS, min_size=1, max_size=4).map(tuple),
        st.dictionaries(IDS, HINTS, max_size=3), st.booleans(),
    ),
)  # fmt: skip

SEGMENT = b"s" * 14
PARCEL = Parcel(
    b"\x80\x05.",
    (Part(SEGMENT, 64, 1000, False), Part(SEGMENT, 1088, 24, True)),
    {SEGMENT: Hint("here", 12, 5, 9876, 1112)},
    True,
)


@given(parcel=PARCELS)
def test_a_parcel_comes_back_as_it_was_sealed(parcel: Parcel) -> None:
    assert opened(seal(parcel)) == parcel


def test_a_parcel_of_an_array_is_small() -> None:
    assert len(seal(PARCEL)) < 200


@pytest.mark.parametrize(
    "payload", [None, b"", b"\x80\x05N.", b"P1", b"\x91\x01", b"\xc0"], ids=repr
)
def test_what_is_no_parcel_is_known_by_its_first_byte(payload: bytes | None) -> None:
    assert not is_parcel(payload)
    assert bytes_behind(payload) == 0


def test_a_parcel_stands_for_the_bytes_of_its_parts() -> None:
    assert is_parcel(seal(PARCEL))
    assert bytes_behind(seal(PARCEL)) == 1024


@given(parcel=PARCELS)
def test_the_bytes_behind_a_parcel_are_a_count_that_fits_a_row(parcel: Parcel) -> None:
    assert 0 <= bytes_behind(seal(parcel)) <= COUNT_MAX


@given(chance=st.builds(Random, st.integers(0, 2**32)), parcel=PARCELS)
def test_a_damaged_parcel_is_opened_or_refused_and_never_anything_else(
    chance: Random, parcel: Parcel
) -> None:
    payload = MARK + damaged(chance, seal(parcel)[len(MARK) :])
    assert bytes_behind(payload) >= 0
    try:
        found = opened(payload)
    except RemoteProtocolError:
        return
    assert found.stream is not None or found.parts


@given(payload=st.binary(max_size=200))
def test_bytes_that_are_no_parcel_are_refused(payload: bytes) -> None:
    assert bytes_behind(MARK + payload) >= 0
    with suppress(RemoteProtocolError):
        opened(MARK + payload)


def test_a_parcel_that_was_cut_is_refused() -> None:
    payload = seal(PARCEL)
    for length in range(len(payload)):
        with pytest.raises(RemoteProtocolError):
            opened(payload[:length])
        assert bytes_behind(payload[:length]) == 0


def test_a_parcel_of_a_form_to_come_is_refused_with_what_to_do() -> None:
    with pytest.raises(RemoteProtocolError, match=r"begins with b'\\xc1P2'.*one version"):
        opened(b"\xc1P2" + seal(PARCEL)[len(MARK) :])


def test_a_parcel_without_stream_and_parts_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match=r"Parcel\.parts: none"):
        opened(seal(Parcel(None, (), {}, False)))


@pytest.mark.parametrize(
    ("parcel", "field"),
    [
        (Parcel(b"", (Part(SEGMENT, -1, 1, False),), {}, False), "offset"),
        (Parcel(b"", (Part(SEGMENT, 1, -1, False),), {}, False), "size"),
        (Parcel(b"", (Part(SEGMENT, 1, COUNT_MAX + 1, False),), {}, False), "size"),
        (Parcel(b"", (Part(b"short", 1, 1, False),), {}, False), "segment"),
        (Parcel(b"", (), {SEGMENT: Hint("here", -1, 0, 0, 0)}, False), "pid"),
        (Parcel(b"", (), {b"short": Hint("here", 1, 0, 0, 0)}, False), "hints"),
    ],
)
def test_a_parcel_with_a_field_that_does_not_fit_is_refused_by_that_field(
    parcel: Parcel, field: str
) -> None:
    with pytest.raises(RemoteProtocolError, match=field):
        opened(seal(parcel))

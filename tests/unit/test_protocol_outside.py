"""Large buffers of what is packed: kept outside of the pickle, and found again."""

import importlib
import pickle
import types
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from drumbeat.protocol.errors import (
    GetTimeoutError,
    MessageTooLarge,
    NotInitialized,
    NotPicklable,
    ObjectLost,
    RemoteProtocolError,
)
from drumbeat.protocol.messages import Outcome, ValueRow
from drumbeat.protocol.modules import by_value
from drumbeat.protocol.parcels import MARK, bytes_behind, is_parcel, opened
from drumbeat.protocol.payload import (
    Placeholder,
    limit_values,
    load_exception,
    pack_call,
    pack_error,
    pack_results,
    pack_value,
    unpack_call,
    unpack_value,
)
from drumbeat.protocol.references import ObjectRef
from drumbeat.protocol.session import Packed
from drumbeat.protocol.settings import Settings
from drumbeat.protocol.unpicklable import no_parts
from support.fake_session import FakeKeeper, FakeSession

MIN = 1000


@pytest.fixture
def session() -> Iterator[FakeSession]:
    with FakeSession() as made:
        yield made


@pytest.fixture
def keeper(session: FakeSession) -> FakeKeeper:
    return FakeKeeper(session, MIN)


@pytest.fixture
def small_limit() -> Iterator[int]:
    limit_values(2000)
    yield 2000
    limit_values(Settings().value_bytes_max)


def of_call(packed: Packed) -> Any:
    (value,), kwargs = unpack_call(packed.payload)
    assert kwargs == {}
    return value


def both_ways(value: Any, keeper: FakeKeeper) -> list[tuple[Packed, Any]]:
    """Return it as put and as an argument, each packed and as it comes back."""
    put, call = pack_value(value, keeper=keeper), pack_call((value,), {}, keeper)
    return [(put, unpack_value(put.payload)), (call, of_call(call))]


def payload_of(packed: Packed) -> bytes:
    assert packed.payload is not None
    return packed.payload


class Counted:
    """Counts how often it is pickled."""

    def __init__(self) -> None:
        self.times = 0

    def __reduce__(self) -> tuple[Any, ...]:
        self.times += 1
        return (Counted, ())


class Raises:
    """Raises something where it is unpickled."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return (_raise, (self.error,))


def _raise(error: Exception) -> None:
    raise error


# ------------------------------------------------------------------------------- what is kept


def test_a_large_array_lies_outside_and_comes_back_equal(keeper: FakeKeeper) -> None:
    for order in "CF":
        given = np.arange(60_000, dtype="float64").reshape((200, 300), order=order)  # type: ignore[call-overload]
        for packed, found in both_ways(given, keeper):
            assert len(payload_of(packed)) < 500
            assert bytes_behind(packed.payload) == given.nbytes
            assert np.array_equal(found, given)
            assert found.flags.f_contiguous is (order == "F")


def test_what_names_the_segment_holds_it_as_long_as_it_is_packed(
    session: FakeSession, keeper: FakeKeeper
) -> None:
    inner = ObjectRef(session.put(pack_value(1)), session)
    packed = pack_call((np.zeros(MIN), [inner]), {}, keeper)
    (segment,) = keeper.segments
    assert packed.contained == (inner.id, segment)
    assert list(opened(payload_of(packed)).hints) == [segment]
    assert session.holds[segment] == 1  # type: ignore[index]
    del packed
    assert session.holds[segment] == 0  # type: ignore[index]


def test_all_that_is_large_in_one_value_lies_in_one_segment(keeper: FakeKeeper) -> None:
    given = {"a": np.arange(500.0), "b": [np.ones((3, 400)), array("d", [1.5] * 10)]}
    packed = pack_value(given, keeper=keeper)
    parcel = opened(payload_of(packed))
    assert [part.size for part in parcel.parts] == [4000, 9600]
    assert len(keeper.segments) == len(packed.keeps) == 1
    found = unpack_value(packed.payload)
    assert np.array_equal(found["a"], given["a"])
    assert found["b"][1] == given["b"][1]


def test_what_is_small_stays_in_its_pickle(keeper: FakeKeeper) -> None:
    for value in (5, "a", [np.zeros(100)] * 3, b"x" * (MIN - 200), np.zeros(0)):
        for packed in (pack_value(value, keeper=keeper), pack_call((value,), {}, keeper)):
            assert not is_parcel(packed.payload)
            assert (packed.contained, packed.keeps) == ((), ())
    assert not keeper.segments
    for keyword in (pack_call((), {"key": np.zeros(100)}, keeper), pack_call((), {}, keeper)):
        assert not is_parcel(keyword.payload)


def test_without_a_keeper_everything_is_in_the_pickle() -> None:
    array_ = np.zeros(MIN)
    results = pack_results(array_, 1, "f") + pack_results([array_, array_], 2, "f")
    for packed in (pack_value(array_), pack_call((array_,), {}), *results):
        assert payload_of(packed)[:1] == b"\x80"
        assert len(payload_of(packed)) > array_.nbytes
        assert packed.keeps == ()


@pytest.mark.parametrize("large", [b"x" * 5000, "x" * 5000, bytearray(5000), list(range(5000))])
def test_a_large_stream_lies_outside_too(keeper: FakeKeeper, large: Any) -> None:
    for packed, found in both_ways(large, keeper):
        parcel = opened(payload_of(packed))
        assert parcel.stream is None
        assert len(parcel.parts) == 1
        assert parcel.parts[0].read_only
        assert found == large
        assert type(found) is type(large)


def test_a_large_stream_lies_with_the_buffers_that_belong_to_it(keeper: FakeKeeper) -> None:
    given = [np.arange(1000.0), b"y" * 3000, np.arange(2000)]
    packed = pack_value(given, keeper=keeper)
    parcel = opened(payload_of(packed))
    assert parcel.stream is None
    assert len(parcel.parts) == 3
    assert len(keeper.segments) == 1
    found = unpack_value(packed.payload)
    assert found[1] == given[1]
    assert np.array_equal(found[0], given[0])
    assert np.array_equal(found[2], given[2])


def test_what_lies_here_and_there_stays_in_its_pickle(keeper: FakeKeeper) -> None:
    striped = np.arange(20_000.0)[::2]
    packed = pack_call((striped,), {}, keeper)
    parcel = opened(payload_of(packed))
    assert (parcel.stream, len(parcel.parts)) == (None, 1)
    assert np.array_equal(of_call(packed), striped)


def test_dependencies_stay_placeholders_beside_large_arguments(
    session: FakeSession, keeper: FakeKeeper
) -> None:
    ref = ObjectRef(session.put(pack_value("A")), session)
    packed = pack_call((ref, np.ones(MIN)), {"again": ref}, keeper)
    (segment,) = keeper.segments
    assert (packed.deps, packed.contained, len(packed.keeps)) == ((ref.id,), (segment,), 1)
    args, kwargs = unpack_call(packed.payload, [ValueRow(ref.id, 0, pack_value("A").payload)])
    assert (args[0], kwargs) == ("A", {"again": "A"})
    assert args[1].sum() == MIN
    assert isinstance(unpack_call(packed.payload)[0][0], Placeholder)


def test_a_class_of_the_main_program_comes_along_with_what_is_large_of_it(
    keeper: FakeKeeper,
) -> None:
    module = importlib.import_module("__main__")
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("class Image:\n    def __init__(self, pixels): self.pixels = pixels", space)
    module.Image = space["Image"]  # type: ignore[attr-defined]
    try:
        for packed, found in both_ways(space["Image"](np.arange(1000.0)), keeper):
            assert bytes_behind(packed.payload) >= 8000
            assert found.pixels.sum() == 499_500
    finally:
        del module.Image
    # What plain pickle took out at first is not kept a second time.
    assert len(keeper.segments) == 2


# ---------------------------------------------------------------------- who may write to it


def test_what_is_put_cannot_be_written_to_and_arguments_can(keeper: FakeKeeper) -> None:
    given = np.arange(1000.0)
    put = unpack_value(pack_value(given, keeper=keeper).payload)
    with pytest.raises(ValueError, match="read-only"):
        put[0] = 7
    call = pack_call((given,), {}, keeper)
    first, second = of_call(call), of_call(call)
    first[0] = 7
    assert (first[0], second[0], given[0]) == (7, 0, 0)


def test_what_could_not_be_written_to_cannot_be_afterwards(keeper: FakeKeeper) -> None:
    given = np.arange(1000.0)
    given.flags.writeable = False
    packed = pack_call((given,), {}, keeper)
    assert opened(payload_of(packed)).parts[0].read_only
    assert not of_call(packed).flags.writeable


# ------------------------------------------------------------------------ what cannot be kept


def test_what_cannot_be_kept_travels_with_its_pickle(session: FakeSession) -> None:
    keeper = FakeKeeper(session, MIN, room=0)
    ref = ObjectRef(session.put(pack_value(1)), session)
    for value in (np.arange(1000.0), b"x" * 5000):
        for packed, found in both_ways([value, ref], keeper):
            assert not is_parcel(packed.payload)
            assert (packed.contained, packed.keeps) == ((ref.id,), ())
            assert np.array_equal(found[0], value)


def test_what_is_kept_may_be_larger_than_what_can_be_sent(
    session: FakeSession, small_limit: int
) -> None:
    keeper = FakeKeeper(session, MIN, room=100_000)
    assert unpack_value(pack_value(b"x" * 50_000, keeper=keeper).payload) == b"x" * 50_000
    for value in (b"x" * 99_000, np.zeros(12_000, dtype="float64")):
        counted = Counted()
        for pack in (
            lambda value: pack_call((value,), {}, keeper),
            lambda value: pack_value(value, keeper=keeper),
        ):
            counted.times = 0
            with pytest.raises(MessageTooLarge, match=r"value_bytes_max.*segment_bytes") as caught:
                pack([counted, value])
            assert caught.value.size_bytes > 90_000
            assert counted.times == 1, "it was known to be too large"
    with pytest.raises(MessageTooLarge) as caught:
        pack_value(b"x" * small_limit)
    assert "segment" not in str(caught.value), "nobody could have kept it"


def test_a_limit_below_what_is_kept_still_holds(session: FakeSession, small_limit: int) -> None:
    keeper = FakeKeeper(session, 1 << 20)
    for value in (b"x" * small_limit, np.zeros(small_limit, dtype="int8")):
        with pytest.raises(MessageTooLarge):
            pack_call((value,), {}, keeper)
        with pytest.raises(MessageTooLarge):
            pack_value(value, keeper=keeper)


def test_what_a_keeper_raises_is_raised(session: FakeSession) -> None:
    class Full(FakeKeeper):
        def __call__(self, buffers: Any) -> Any:
            raise GetTimeoutError(f"no room for {len(buffers)}")

    keeper = Full(session, MIN)
    with pytest.raises(GetTimeoutError, match="no room for 1"):
        pack_call((np.zeros(MIN),), {}, keeper)


# -------------------------------------------------------------------------- pickled only once


def test_arguments_are_pickled_once(keeper: FakeKeeper, small_limit: int) -> None:
    counted = Counted()
    pack_call((counted, np.zeros(MIN)), {}, keeper)
    assert counted.times == 1
    by_value[b"nowhere_else"] = types.ModuleType("nowhere_else")
    try:
        pack_call((counted,), {})
    finally:
        del by_value[b"nowhere_else"]
    assert counted.times == 2
    with pytest.raises(MessageTooLarge):
        pack_call((counted, b"x" * small_limit), {})
    assert counted.times == 3


def test_arguments_that_plain_pickle_refuses_are_not_given_to_it_again() -> None:
    counted = Counted()
    scale = 3
    packed = pack_call(([counted, lambda x: x * scale],), {})
    assert counted.times == 2  # plain, then whole
    assert of_call(packed)[1](4) == 12


# --------------------------------------------------------------------------- what goes wrong


def test_bytes_that_are_gone_are_lost_and_not_unpicklable(keeper: FakeKeeper) -> None:
    large = np.zeros(MIN)
    put, call = pack_value(large, keeper=keeper), pack_call((large,), {}, keeper)
    keeper.segments.clear()
    for again in (lambda: unpack_value(put.payload), lambda: unpack_call(call.payload)):
        with pytest.raises(ObjectLost, match="gone"):
            again()


def test_damaged_parcels_are_told_as_such(session: FakeSession, keeper: FakeKeeper) -> None:
    whole = payload_of(pack_value(np.zeros(MIN), keeper=keeper))
    for damaged in (MARK, b"\xc1", b"\xc1P9" + whole[3:], whole[:-1], whole + b"x"):
        with pytest.raises(RemoteProtocolError):
            unpack_value(damaged)
    assert session.alive


def test_a_stream_that_lacks_a_buffer_is_not_unpicklable_by_a_crash(
    session: FakeSession, keeper: FakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = pack_value(np.zeros(MIN), keeper=keeper)
    parcel = opened(payload_of(packed))
    monkeypatch.setattr(session, "buffers", lambda *_: (parcel.stream, []))
    with pytest.raises(NotPicklable, match="not enough out-of-band buffers"):
        unpack_value(packed.payload)


def test_a_large_value_in_a_process_without_a_cluster_says_so() -> None:
    with FakeSession() as session:
        packed = pack_value(np.zeros(MIN), keeper=FakeKeeper(session, MIN))
    with pytest.raises(NotInitialized, match=r"drumbeat.init\(\)"):
        unpack_value(packed.payload)


@pytest.mark.parametrize("error", [ObjectLost("no more"), GetTimeoutError("late")])
def test_what_a_get_inside_of_a_value_raises_is_told_as_it_is(error: Exception) -> None:
    unpackers: list[Callable[[], Any]] = [
        lambda: unpack_value(pack_value(Raises(error)).payload),
        lambda: unpack_call(pack_call((Raises(error),), {}).payload),
    ]
    for unpack in unpackers:
        with pytest.raises(type(error), match=str(error)):
            unpack()
    with pytest.raises(NotPicklable, match="ValueError: odd"):
        unpack_value(pack_value(Raises(ValueError("odd"))).payload)


def test_an_exception_that_cannot_be_brought_here_is_still_told_as_text() -> None:
    report = pickle.loads(payload_of(pack_error(ValueError("odd"))))
    told = [*report]
    told[3] = pickle.dumps(Raises(ObjectLost("no more")))
    from drumbeat.protocol.payload import ErrorReport

    assert load_exception(ErrorReport(*told)) is None
    assert no_parts(told) == []


def test_a_result_settled_by_a_fake_task_may_read_large_arguments(
    session: FakeSession, keeper: FakeKeeper
) -> None:
    row = ValueRow(b"v" * 14, Outcome.VALUE, pack_value(np.ones(MIN), keeper=keeper).payload)
    session.settle([row])
    assert unpack_value(session.get((row.id,), 1.0)[0].payload).sum() == MIN  # type: ignore[arg-type]

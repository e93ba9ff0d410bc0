"""Arguments in their worker: what becomes of a call whose large ones cannot be had."""

from collections.abc import Iterator
from typing import Any

import pytest
from drumbeat.node.arguments import Missing, arguments, missed
from drumbeat.node.packets import RunRow
from drumbeat.protocol.errors import DependencyFailed, MessageTooLarge, NotPicklable, ObjectLost
from drumbeat.protocol.ids import show
from drumbeat.protocol.messages import Outcome, ValueRow
from drumbeat.protocol.outcomes import error_of
from drumbeat.protocol.parcels import Parcel, Part, seal
from drumbeat.protocol.payload import Placeholder, pack_call
from drumbeat.protocol.session import set_current

TASK = b"t" * 14
P, Q, S = b"p" * 16, b"q" * 16, b"s" * 16
#: its bytes would lie in S
PARCEL = seal(Parcel(None, (Part(S, 64, 8, False),), {}, False))


class Session:
    """A session that cannot get at any bytes.

    Args:
        error: what it says of that.
    """

    alive = True

    def __init__(self, error: Exception) -> None:
        self.error = error

    def buffers(self, _: Parcel, until_s: float | None) -> Any:
        assert until_s is None, "a call waits for its arguments"
        raise self.error


@pytest.fixture(autouse=True)
def _no_session() -> Iterator[None]:
    yield
    set_current(None)


def fails(kind: type[Exception], object_: bytes | None = S) -> None:
    error = kind("it is gone")
    if object_ is not None:
        error.__dict__["object"] = show(object_)
    set_current(Session(error))  # type: ignore[arg-type]


def row(args: bytes | None, *values: ValueRow) -> RunRow:
    return RunRow(2, TASK, 1, 1, 0, args, values)


def value(id_: bytes, payload: bytes | None, *contained: bytes) -> ValueRow:
    return ValueRow(id_, Outcome.VALUE, payload, 0, contained)


def test_a_call_without_large_arguments_gets_them_as_they_are() -> None:
    assert arguments(row(None)) == ((), {})
    args, kwargs = arguments(row(pack_call((1, "two"), {"three": 3}).payload))
    assert (tuple(args), kwargs) == ((1, "two"), {"three": 3})


@pytest.mark.parametrize("kind", [ObjectLost, MessageTooLarge])
def test_arguments_whose_bytes_cannot_be_had_are_as_a_dependency_that_failed(
    kind: type[Exception],
) -> None:
    fails(kind)
    with pytest.raises(Missing) as caught:
        arguments(row(PARCEL))
    outcome = missed(row(PARCEL), "resize", caught.value, {"node": "lab3", "attempt": 1})
    assert (outcome.id, outcome.outcome) == (TASK, Outcome.FAILURE)
    error = error_of(outcome)
    assert isinstance(error, DependencyFailed)
    assert (error.node, error.attempt) == ("lab3", 1)
    assert str(error) == "resize needs its arguments, and cannot have them: it is gone"
    assert isinstance(error.cause, kind)


def test_a_dependency_whose_bytes_cannot_be_had_is_named() -> None:
    fails(ObjectLost)
    args = pack_call((Placeholder(0), Placeholder(1)), {}).payload
    given = row(args, value(Q, pack_call((1,), {}).payload), value(P, PARCEL, Q, S))
    with pytest.raises(Missing) as caught:
        arguments(given)
    error = error_of(missed(given, "resize", caught.value, {}))
    assert str(error) == f"resize needs the value of {show(P)}, which failed: it is gone"
    assert isinstance(error, DependencyFailed)
    assert isinstance(error.cause, ObjectLost)
    assert error.cause.__dict__["object"] == show(S)


@pytest.mark.parametrize("kind", [ObjectLost, NotPicklable])
def test_an_error_that_names_no_object_is_raised_as_it_came(kind: type[Exception]) -> None:
    fails(kind, None)
    with pytest.raises(kind, match="it is gone"):
        arguments(row(PARCEL))

"""What a client keeps: nothing for an object that nobody here holds."""

from typing import Any

import pytest
from drumbeat.client.events import (
    Awaited,
    BlobReceived,
    Free,
    Pinned,
    Received,
    Resolve,
    RoomLeft,
    Stow,
)
from drumbeat.protocol.ids import ObjectId
from drumbeat.protocol.messages import Outcome, Release, Shared, ValueRow, Values, Wanted
from drumbeat.protocol.payload_files import Filing
from drumbeat.protocol.segments import are_to_be_had
from drumbeat.protocol.stowage import Fullness
from support.client_bench import Client, foreign, freed, resolved, sent, value

FULL = Fullness(1500, 8000, 4000, "memory and disk are full; let go of references")


def filed(size: int) -> bytes:
    payload = Filing(1)(b"x" * size, [])
    assert payload is not None
    return payload


def test_an_object_that_nobody_here_holds_is_lost_and_its_row_not_kept() -> None:
    client = Client()
    other = foreign()
    for id_ in (other, client.next_id()):
        commands = client.do(Awaited([ObjectId(id_)]))
        assert [type(one) for one in commands] == [Resolve, Free]
        (row,) = resolved(commands)
        assert row.failure is not None
        assert (row.id, row.failure.error) == (id_, "ObjectLost")
        assert freed(commands) == [id_]
    assert client.at_rest()


def test_a_value_that_was_pickled_before_the_first_connection_is_kept_for_whoever_asks() -> None:
    client = Client(connected=False)
    id_ = client.put(b"kept")
    client.do(Pinned([id_]))
    client.drop(id_)
    task = client.submit()
    client.do(Pinned([ObjectId(task)]))
    client.drop(task)
    client.connect(1)
    client.result(value(task, b"made"))
    for epoch in (1, 2):
        (answers,) = sent(client.do(Received(Wanted([id_, task]))), Values)
        assert [row.payload for row in answers.rows] == [b"kept", b"made"], epoch
        client.connect(epoch + 1)


def test_who_leaves_keeps_what_it_holds_itself_and_nothing_for_others() -> None:
    client = Client()
    mine, theirs = client.put(b"mine"), client.put(b"theirs")
    client.do(Received(Shared([theirs])))
    client.drop(theirs)
    home = client.core.home
    client.do(BlobReceived(b"k" * 14, b"whose row is on its way"))
    assert home.unclaimed
    assert theirs in home.entries
    assert home.leave() == [theirs]
    assert list(home.entries) == [mine]
    assert not home.unclaimed


@pytest.mark.skipif(not are_to_be_had(), reason="no memory files that can be sealed")
def test_a_large_value_that_comes_is_refused_when_memory_and_disk_are_full() -> None:
    client = Client()
    inside = foreign()

    def come(size: int, *contained: ObjectId) -> list[Any]:
        """Submit a task; return what is done when its result has come."""
        task, payload = client.submit(), filed(size)
        client.result(ValueRow(task, Outcome.VALUE, None, len(payload), contained))
        return client.do(BlobReceived(task, payload))

    def counted(commands: list[Any]) -> list[ObjectId]:
        return [id_ for one in commands if isinstance(one, Stow) for id_, _ in one.rows]

    (first,) = counted(come(1000))
    client.do(RoomLeft(FULL))
    (second,) = counted(come(1000))
    # So much is left no more; and what lay in the next one is let go of.
    commands = come(1000, inside)
    (row,) = resolved(commands)
    assert not counted(commands)
    assert row.failure is not None
    assert row.failure.error == "StoreFull"
    assert "let go of references" in row.failure.text
    assert row.failure.details["spilled_bytes"] == 4000
    (released,) = sent(commands, Release)
    assert released.rows == [(inside, 1)]
    client.do(RoomLeft(None))
    (last,) = counted(come(5000))
    client.drop(first, second, row.id, last)
    assert client.at_rest()


def test_small_values_come_however_full_memory_and_disk_are() -> None:
    client = Client()
    client.do(RoomLeft(FULL._replace(room_bytes=0)))
    task = client.submit()
    assert resolved(client.result(ValueRow(task, Outcome.VALUE, b"x" * 5000)))[0].failure is None

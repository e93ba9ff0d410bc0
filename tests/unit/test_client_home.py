"""What a client keeps: nothing for an object that nobody here holds."""

from drumbeat.client.events import (
    Awaited,
    BlobReceived,
    Free,
    Pinned,
    Received,
    Resolve,
)
from drumbeat.protocol.ids import ObjectId
from drumbeat.protocol.messages import Shared, Values, Wanted
from support.client_bench import Client, foreign, freed, resolved, sent, value


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

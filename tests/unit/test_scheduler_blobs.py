"""Large payloads: awaited whole, before or after their row, and sent apart."""

from drumbeat.protocol.messages import Define, DoneRow, KindRow, Leave, Options, Prepare, ValueRow
from drumbeat.scheduler import events
from support.scheduling import Stage, ids_of


def test_large_arguments_are_awaited_and_then_sent_apart() -> None:
    stage = Stage(inline_bytes_max=10)
    client, node = stage.client(), stage.node()
    (id_,) = ids_of(client, 1)
    stage.submit(client, stage.define(client), [id_], size=20)
    stage.turn()
    assert not stage.assigned(node)
    stage.event(events.BlobReceived(client, id_ + b"a", bytes(20)))
    stage.turn()
    (row,) = stage.assigned(node)
    assert (row.args, row.size) == (None, 20)
    assert stage.blobs == [events.SendBlob(node, id_ + b"a", bytes(20))]


def test_large_arguments_may_come_before_the_row() -> None:
    stage = Stage(inline_bytes_max=10)
    client, node = stage.client(), stage.node()
    (id_,) = ids_of(client, 1)
    kind = stage.define(client)
    stage.event(events.BlobReceived(client, id_ + b"a", bytes(20)))
    assert stage.core.at_rest()["early_blobs"] == 1
    stage.submit(client, kind, [id_], size=20)
    stage.turn()
    assert len(stage.assigned(node)) == 1


def test_a_large_value_is_awaited_and_then_sent_apart() -> None:
    stage = Stage(inline_bytes_max=10)
    client, node = stage.client(), stage.node()
    (id_,) = ids_of(client, 1)
    stage.submit(client, stage.define(client), [id_])
    stage.turn()
    stage.assigned(node)
    stage.done(node, DoneRow(id_, 1, (ValueRow(id_, 0, None, 20),), 0.1))
    stage.turn()
    assert not stage.results(client)
    assert stage.core.at_rest()["delivering"] == 1
    stage.event(events.BlobReceived(node, id_, bytes(20)))
    stage.turn()
    assert stage.results(client) == {id_: ValueRow(id_, 0, None, 20)}
    assert stage.blobs == [events.SendBlob(client, id_, bytes(20))]
    assert stage.at_rest()


def test_a_large_value_may_come_before_the_row() -> None:
    stage = Stage(inline_bytes_max=10)
    client, node = stage.client(), stage.node()
    (id_,) = ids_of(client, 1)
    stage.submit(client, stage.define(client), [id_])
    stage.turn()
    stage.event(events.BlobReceived(node, id_, bytes(20)))
    stage.done(node, DoneRow(id_, 1, (ValueRow(id_, 0, None, 20),), 0.1))
    stage.turn()
    assert id_ in stage.results(client)
    assert stage.at_rest()


def test_a_task_waits_until_its_function_is_whole() -> None:
    stage = Stage(inline_bytes_max=10)
    client, node = stage.client(), stage.node()
    stage.say(client, Define(client, [KindRow(1, b"f" * 16, "f", Options(), None, 20)]))
    stage.submit(client, 1, ids_of(client, 1))
    stage.turn()
    assert not stage.take(node, Prepare)
    assert not stage.assigned(node)
    stage.event(events.BlobReceived(client, b"f" * 16, bytes(20)))
    stage.turn()
    (prepare,) = stage.take(node, Prepare)
    assert (prepare.kinds[0].payload, prepare.kinds[0].size) == (None, 20)
    assert len(stage.assigned(node)) == 1
    assert stage.blobs == [events.SendBlob(node, b"f" * 16, bytes(20))]


def test_no_node_is_told_of_a_function_whose_client_leaves_before_it_is_whole() -> None:
    stage = Stage(inline_bytes_max=10)
    client, node = stage.client(), stage.node()
    stage.say(client, Define(client, [KindRow(1, b"f" * 16, "f", Options(), None, 20)]))
    ids = ids_of(client, 2)
    stage.submit(client, 1, ids)
    stage.turn()
    stage.cancel(client, ids[0])
    stage.turn()
    stage.say(client, Leave())
    stage.turn()
    assert not stage.mail[node]
    assert not stage.blobs
    assert stage.at_rest()
    assert stage.core.registered()["functions"] == 0


def test_payloads_that_no_row_names_have_a_bound() -> None:
    stage = Stage(value_bytes_max=10)
    client = stage.client()
    for number in range(4):
        stage.event(events.BlobReceived(client, bytes(13) + bytes([number]), bytes(10)))
    assert not stage.drops
    stage.event(events.BlobReceived(client, b"x" * 14, bytes(10)))
    assert stage.drops[0].error == "RemoteProtocolError"

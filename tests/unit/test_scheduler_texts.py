"""Output for a client that does not read: dropped and counted, never kept."""

from drumbeat.protocol.messages import Done, Output, OutputRow, Results
from drumbeat.scheduler import events
from support.scheduling import Stage, ids_of, value_done

LIMIT_BYTES = 1000


def output(client: bytes, size: int, dropped: int = 0) -> Output:
    return Output(client, [OutputRow("work", 41, "n", b"x" * size, dropped)])


def test_output_for_a_client_that_does_not_read_is_dropped_and_counted_in_the_next_row() -> None:
    stage = Stage(output_backlog_bytes_max=LIMIT_BYTES)
    client, other, node = stage.client(), stage.client("o"), stage.node()
    stage.event(events.PeerLags(client, LIMIT_BYTES + 1))
    for _ in range(3):
        stage.say(node, output(client, 100, dropped=5))
        stage.say(node, output(other, 7))
        stage.turn()
    assert not stage.take(client, Output)
    assert len(stage.take(other, Output)) == 3
    assert stage.ask(client, "status")["output_bytes_dropped"] == 300
    stage.event(events.PeerLags(client, 0))
    stage.say(node, output(client, 10, dropped=1))
    stage.say(node, output(client, 10))
    stage.turn()
    assert [one.rows[0].dropped for one in stage.take(client, Output)] == [316, 0]


def test_what_is_forwarded_within_a_turn_is_bounded_as_well() -> None:
    stage = Stage(output_backlog_bytes_max=LIMIT_BYTES)
    client, node = stage.client(), stage.node()
    for _ in range(100):
        stage.say(node, output(client, 600))
    stage.turn()
    assert len(stage.take(client, Output)) == 2
    stage.say(node, output(client, 1))
    stage.turn()
    assert stage.take(client, Output)[0].rows[0].dropped == 98 * 600


def test_a_rejected_message_is_counted_in_the_status() -> None:
    stage = Stage()
    client = stage.client()
    stage.event(events.MessageRejected(client, "no such tag"))
    assert stage.ask(client, "status")["messages_rejected"] == 1


def test_what_a_task_printed_goes_before_its_result() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    (task,) = ids_of(client, 1)
    stage.submit(client, stage.define(client), [task])
    stage.turn()
    stage.say(node, output(client, 10))
    stage.say(node, Done([value_done(stage.assigned(node)[0])]))
    stage.turn()
    sent = [type(message) for message in stage.mail[client]]
    assert sent.index(Output) < sent.index(Results)

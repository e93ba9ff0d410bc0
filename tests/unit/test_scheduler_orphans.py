"""Large results whose node has gone after their submitter got them: that one has them still."""

from drumbeat.protocol.absent import VOID
from drumbeat.protocol.codec import Reader
from drumbeat.protocol.frames import Offered, Source
from drumbeat.protocol.ids import PeerId, TaskId, item_of
from drumbeat.protocol.messages import DoneRow, Failure, Outcome, ValueRow, Values, Wanted
from drumbeat.protocol.remotes import Remote
from drumbeat.protocol.settings import Settings
from drumbeat.protocol.traffic import Traffic
from drumbeat.protocol.yields import Yielded, YieldRow
from drumbeat.scheduler import events
from support.scheduling import Stage, died, ids_of


def _remote(node: PeerId, id_: bytes) -> Remote:
    source = Source(node, "tcp://10.0.0.1:7000", bytes(32))
    holder = Traffic(Reader.to_scheduler(), Settings(), peer=node, name="one", source=source)
    return Remote(holder, Offered(id_, 1, 20, id_))


def _made_and_needed(stage: Stage) -> tuple[PeerId, PeerId, TaskId, Remote]:
    """Have a node make a large value, and go while another one gets it for a task."""
    client, node, other = stage.client(), stage.node(cpus=1), stage.node("o", cpus=1)
    made, needs = ids_of(client, 2)
    kind = stage.define(client)
    stage.submit(client, kind, [made])
    stage.turn()
    maker = node if stage.assigned(node) else other
    reader = other if maker is node else node
    stage.submit(client, kind, [needs], deps=(made,))
    stage.done(maker, DoneRow(made, 1, (ValueRow(made, 0, None, 20),), 0.1))
    remote = _remote(maker, made)
    stage.event(events.BlobReceived(maker, made, remote))  # type: ignore[arg-type]
    stage.event(events.PeerDisconnected(maker))
    stage.live(2.0, 0.25, maker)
    assert stage.core.registered()["nodes"] == 1
    rows = stage.assigned(reader)
    assert needs in [row.id for row in rows]
    stage.event(events.PayloadOrphaned(remote))
    stage.turn()
    return client, reader, made, remote


def test_whoever_submitted_its_task_is_asked_for_it() -> None:
    stage = Stage(inline_bytes_max=10)
    client, _, made, remote = _made_and_needed(stage)
    assert stage.take(client, Wanted) == [Wanted([made])]
    stage.event(events.PayloadOrphaned(remote))  # another one needs it
    stage.say(client, Values([ValueRow(made, 0, None, 20)]))
    assert not stage.restores
    stage.event(events.BlobReceived(client, made, bytes(20)))
    stage.turn()
    assert not stage.take(client, Wanted)
    assert stage.restores == [events.Restore(remote, bytes(20))] * 2
    assert stage.core.at_rest()["orphans"] == 0


def test_if_that_goes_or_has_none_nobody_waits_for_it() -> None:
    for how in ("goes", "goes in between", "has a failure"):
        stage = Stage(inline_bytes_max=10)
        client, _, made, remote = _made_and_needed(stage)
        if how == "goes in between":
            stage.say(client, Values([ValueRow(made, 0, None, 20)]))
        if how == "has a failure":
            failure = Failure("NodeLost", "it was lost with its node")
            stage.say(client, Values([ValueRow(made, Outcome.FAILURE, failure=failure)]))
        else:
            stage.event(events.PeerDisconnected(client))
        stage.live(12.0, 0.25, client)
        payload = VOID if how == "has a failure" else None
        assert stage.restores == [events.Restore(remote, payload)], how
        assert stage.core.at_rest()["orphans"] == 0


def test_what_is_not_finished_is_waited_for_by_nobody() -> None:
    stage = Stage(inline_bytes_max=10)
    client, node = stage.client(), stage.node()
    (id_,) = ids_of(client, 1)
    stage.submit(client, stage.define(client), [id_])
    stage.turn()
    # of an attempt that was lost with its node: the next one makes it anew
    remote = _remote(PeerId(b"gone00"), id_)
    stage.event(events.PayloadOrphaned(remote))
    stage.turn()
    assert not stage.take(client, Wanted)
    assert stage.restores == [events.Restore(remote, VOID)]
    assert len(stage.assigned(node)) == 1


def test_what_was_yielded_and_is_lost_as_its_task_ends_its_home_does_not_wait_for() -> None:
    stage = Stage(inline_bytes_max=10)
    client, node = stage.client(), stage.node()
    (task,) = ids_of(client, 1)
    kind = stage.define(client, max_retries=0, num_returns=0, stream_buffer_max=4)
    stage.submit(client, kind, [task])
    stage.turn()
    (row,) = stage.assigned(node)
    id_ = item_of(task, 0)
    remote = _remote(node, id_)
    stage.say(node, Yielded([YieldRow(id_, 1, None, 20)]))
    stage.event(events.BlobReceived(node, id_, remote))  # type: ignore[arg-type]
    stage.turn()
    assert list(stage.results(client)) == [id_]
    stage.done(node, died(row))
    stage.turn()
    stage.event(events.PayloadOrphaned(remote))
    stage.turn()
    assert stage.take(client, Wanted) == [Wanted([id_])]
    failure = Failure("WorkerDied", "what stands there now")
    stage.say(client, Values([ValueRow(id_, Outcome.FAILURE, failure=failure)]))
    stage.turn()
    assert stage.restores == [events.Restore(remote, None)], "it has the row, and waits for these"


def test_what_its_home_itself_had_is_lost_with_it() -> None:
    stage = Stage(inline_bytes_max=10)
    client = stage.client()
    stage.node()
    (put,) = ids_of(client, 1)
    for key in (put, put + b"a"):
        stage.event(events.PayloadOrphaned(_remote(client, key)))
    stage.turn()
    assert not stage.take(client, Wanted)
    assert [restore.payload for restore in stage.restores] == [None, None]

"""Memory segments of a client: objects of its own, of which only the shell has the bytes."""

import pytest
from drumbeat.client.events import (
    Awaited,
    BlobReceived,
    Connected,
    Disconnected,
    Put,
    Received,
    RefsChanged,
    SendBlob,
    SendSegment,
    Submitted,
)
from drumbeat.client.invariants import segments_of
from drumbeat.protocol.messages import (
    Fetch,
    Outcome,
    Shared,
    Submit,
    Unshared,
    ValueRow,
    Values,
    Wanted,
)
from drumbeat.protocol.parcels import Parcel, Part, seal
from support.client_bench import Client, foreign, freed, received_with, resolved, sent, value


def parcel_of(*ids: bytes, size: int = 10) -> bytes:
    return seal(Parcel(b"stream", tuple(Part(id_, 64, size, False) for id_ in ids), {}, False))


def test_a_segment_that_is_wanted_is_read_out_by_the_shell() -> None:
    client = Client()
    segment = client.segment(300)
    commands = client.do(Received(Wanted([segment])))
    (answers,) = sent(commands, Values)
    assert [(row.id, row.payload, row.size) for row in answers.rows] == [(segment, None, 300)]
    assert [one.id for one in commands if isinstance(one, SendSegment)] == [segment]
    assert not [one for one in commands if isinstance(one, SendBlob)]


def test_a_segment_is_read_out_before_it_is_closed() -> None:
    client = Client()
    segment = client.segment()
    # it was wanted by the last who held it, and both is heard of at once
    commands = client.do(
        Received(Shared([segment])),
        RefsChanged([(segment, -1)]),
        Received(Wanted([segment])),
        Received(Unshared([segment])),
    )
    kinds = [type(one).__name__ for one in commands]
    assert kinds.index("SendSegment") < kinds.index("Free")
    assert client.at_rest()


def test_a_segment_too_large_to_be_sent_is_told_so_to_who_wants_it() -> None:
    client = Client(value_bytes_max=1000)
    fits, too_large = client.segment(1000), client.segment(1001)
    commands = client.do(Received(Wanted([fits, too_large])))
    (answers,) = sent(commands, Values)
    good, bad = answers.rows
    assert (good.outcome, bad.outcome) == (Outcome.VALUE, Outcome.FAILURE)
    assert bad.failure.error == "MessageTooLarge"
    assert bad.failure.details == {"size_bytes": 1001, "limit_bytes": 1000}
    assert "1,001 bytes lie in memory of host here" in bad.failure.text
    assert [one.id for one in commands if isinstance(one, SendSegment)] == [fits]


def test_a_segment_lives_as_long_as_the_value_that_needs_it() -> None:
    client = Client()
    segment = client.segment()
    whole = client.put(parcel_of(segment), (segment,))
    assert client.drop(segment) == []
    assert segments_of(client.core) == [segment]
    assert sorted(freed(client.drop(whole))) == sorted([whole, segment])
    assert client.at_rest()


def test_a_segment_outlives_its_value_while_somebody_maps_it() -> None:
    client = Client()
    segment = client.segment()
    whole = client.put(parcel_of(segment), (segment,))
    client.do(RefsChanged([(segment, -1), (segment, 1)]))
    assert freed(client.drop(whole)) == [whole]
    assert freed(client.drop(segment)) == [segment]
    assert client.at_rest()


def test_a_segment_lives_as_long_as_a_call_that_needs_it_and_while_nodes_hold_it() -> None:
    client = Client()
    segment = client.segment()
    task = client.submit(args=parcel_of(segment), contained=(segment,))
    client.drop(segment)
    client.do(Received(Shared([segment])))
    assert freed(client.result(value(task))) == []
    assert segments_of(client.core) == [segment]
    assert freed(client.do(Received(Unshared([segment])))) == [segment]
    client.drop(task)
    assert client.at_rest()


def test_an_unfinished_call_pins_its_segment_over_link_lives() -> None:
    client = Client()
    segment = client.segment()
    task = client.submit({"max_retries": 3}, args=parcel_of(segment), contained=(segment,))
    client.drop(segment)
    client.do(Received(Shared([segment])))
    for epoch, resumed in ((1, False), (2, False), (2, True)):
        commands = client.do(Disconnected(), Connected(epoch, resumed))
        assert freed(commands) == []
        again = [row for message in sent(commands, Submit) for row in message.rows]
        assert [row.contained for row in again] == ([] if resumed else [(segment,)])
    client.result(value(task))
    client.drop(task)
    assert client.at_rest()


def test_what_was_to_be_read_out_is_not_after_a_link_life_has_ended() -> None:
    client = Client()
    segment = client.segment()
    commands = client.do(Received(Wanted([segment])), Disconnected(), Connected(2, False))
    assert not [one for one in commands if isinstance(one, SendSegment)]
    assert not sent(commands, Values)


def test_the_parcel_of_a_put_rides_with_the_call_and_a_segment_never_does() -> None:
    client = Client()
    segment = client.segment()
    whole = client.put(parcel_of(segment), (segment,))
    kind = client.kind()
    call = client.call(kind.number, deps=(whole, segment))
    (submitted,) = sent(client.do(Submitted([kind], [call])), Submit)
    assert [row.id for row in submitted.rows[0].values] == [whole]


def test_the_segment_of_another_client_is_fetched_as_any_object() -> None:
    client = Client()
    other = foreign()
    task = received_with(client, other)
    client.core.handle(RefsChanged([(other, 1)]), 0.0)

    assert [one.ids for one in sent(client.do(Awaited([other])), Fetch)] == [[other]]
    client.do(Received(Values([ValueRow(other, Outcome.VALUE, None, 100)])))
    commands = client.do(BlobReceived(other, b"x" * 100))
    assert [row.payload for row in resolved(commands)] == [b"x" * 100]
    client.drop(other)
    client.drop(task)


def test_what_lies_in_segments_counts_for_the_buffer_and_not_for_the_credit() -> None:
    client = Client()
    segment = client.segment()
    args = parcel_of(segment, size=1 << 30)
    task = client.submit(args=args, contained=(segment,))
    client.result(value(task))
    results = client.core.results
    assert (results.finished_bytes, results.finished_segment_bytes) == (len(args), 1 << 30)


def test_a_parcel_that_does_not_pin_its_segment_is_found_by_the_invariants() -> None:
    client = Client()
    segment = client.segment()
    client.core.handle(
        Put([ValueRow(client.next_id(), Outcome.VALUE, parcel_of(segment), 0, ())]), 0.0
    )
    with pytest.raises(AssertionError, match="does not pin it"):
        client.core.check_invariants()

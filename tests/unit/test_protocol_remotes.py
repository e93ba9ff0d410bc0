"""Payloads that go past the scheduler: who is sent to whom for them, and what is left to try."""

import gc
from collections.abc import Iterator

import pytest
from drumbeat.protocol.absent import VOID, reason_of
from drumbeat.protocol.errors import RemoteProtocolError
from drumbeat.protocol.frames import Ack, Bring, Chunk, Offered, Pointed, Taken
from drumbeat.protocol.link import Link
from drumbeat.protocol.remotes import Remote
from drumbeat.protocol.traffic import REFUSED_MAX
from support.moves_bench import MovesBench, closes

ONE = b"object-number-1!"
DATA = bytes(range(256)) * 8


@pytest.fixture
def bench() -> Iterator[MovesBench]:
    made = MovesBench()
    yield made
    closes(made)


def test_an_offered_payload_is_one_of_its_length_and_no_byte_of_it_travels(
    bench: MovesBench,
) -> None:
    node = bench.peer()
    payload = bench.offer(node, ONE, DATA)
    assert isinstance(payload, Remote)
    assert len(payload) == len(DATA)
    assert bench.kinds_said() == [Offered]
    assert node.served == [ONE]


def test_a_reader_is_sent_to_the_holder_and_the_holder_lets_go_when_nobody_keeps_it_here(
    bench: MovesBench,
) -> None:
    holder, reader = bench.peer(), bench.peer()
    payload = bench.offer(holder, ONE, DATA)
    bench.send(reader, ONE, payload)
    assert bench.sources(reader, ONE) == [holder.id]
    bench.moved(reader, ONE, DATA)
    assert bench.got(reader) == [(ONE, DATA)]
    assert holder.served == [ONE]
    del payload
    gc.collect()
    bench.talk()
    assert holder.served == []
    assert Chunk not in bench.kinds_said()
    assert not any(bench.remotes.sizes().values())


def test_the_next_reader_is_sent_to_the_one_before_it_and_then_to_the_holder(
    bench: MovesBench,
) -> None:
    holder, *readers = (bench.peer() for _ in range(4))
    payload = bench.offer(holder, ONE, DATA)
    for reader in readers:
        bench.send(reader, ONE, payload)
    asked = [bench.sources(reader, ONE) for reader in readers]
    assert asked == [[holder.id], [readers[0].id, holder.id], [readers[1].id, holder.id]]


def test_what_was_offered_again_under_its_id_is_still_got_from_those_who_have_it(
    bench: MovesBench,
) -> None:
    holder, first, second = (bench.peer() for _ in range(3))
    bench.send(first, ONE, bench.offer(holder, ONE, DATA))
    bench.moved(first, ONE, DATA)
    bench.send(second, ONE, bench.offer(holder, ONE, DATA))
    assert bench.sources(second, ONE) == [first.id, holder.id]


def test_a_reader_whose_forerunner_fails_goes_on_at_one_that_brings_it_and_is_sent_there_again(
    bench: MovesBench,
) -> None:
    client, first, second = bench.peer(listens=False), bench.peer(), bench.peer()
    payload = bench.offer(client, ONE, DATA)
    bench.send(first, ONE, payload)
    bench.send(second, ONE, payload)
    assert bench.sources(second, ONE) == [first.id, client.id]
    assert client.hands is not None
    assert [to.peer for _, to in client.hands.offers] == [first.id, second.id]
    bench.moved(second, ONE, None)
    assert bench.sources(second, ONE) == [client.id]
    assert [to.peer for _, to in client.hands.offers] == [first.id, second.id, second.id]
    bench.moved(second, ONE, DATA)
    assert bench.got(second) == [(ONE, DATA)]


def test_one_that_cannot_be_dialled_is_asked_to_bring_what_it_has(bench: MovesBench) -> None:
    client, node = bench.peer(listens=False), bench.peer()
    bench.send(node, ONE, bench.offer(client, ONE, DATA))
    assert client.hands is not None
    [(id_, to)] = client.hands.offers
    assert (id_, to.peer, to.endpoint) == (ONE, node.id, node.hello.data)
    assert bench.sources(node, ONE) == [client.id]
    assert bench.kinds_said() == [Offered, Bring, Pointed]


def test_what_cannot_be_had_from_anybody_goes_through_the_scheduler_which_says_so(
    bench: MovesBench,
) -> None:
    holder, reader = bench.peer(), bench.peer()
    payload = bench.offer(holder, ONE, DATA)
    bench.send(reader, ONE, payload)
    bench.moved(reader, ONE, None)
    assert bench.got(reader) == [(ONE, DATA)]
    [relays] = bench.relays
    assert (relays.holder, relays.reader, relays.size) == (holder.id, reader.id, len(DATA))
    assert holder.served == [ONE]  # others may be getting it there
    assert bench.told["scheduler"] == []
    late = bench.peer()
    bench.send(late, ONE, payload)
    assert bench.got(late) == [(ONE, DATA)]


@pytest.mark.parametrize("moves", [True, False])
def test_one_that_nobody_can_bring_anything_to_gets_it_through_the_scheduler(
    bench: MovesBench, moves: bool
) -> None:
    client, other = bench.peer(listens=False), bench.peer(listens=False, moves=moves)
    bench.send(other, ONE, bench.offer(client, ONE, DATA))
    assert bench.got(other) == [(ONE, DATA)]


def test_what_is_lost_with_its_holder_arrives_as_lost(bench: MovesBench) -> None:
    holder, reader = bench.peer(), bench.peer()
    payload = bench.offer(holder, ONE, DATA)
    bench.send(reader, ONE, payload)
    bench.goes(holder)
    bench.moved(reader, ONE, None)
    bench.restore()
    [(key, lost)] = bench.got(reader)
    assert key == ONE
    assert reason_of(lost) == "peer0 has gone, which had it"


def test_of_a_holder_that_dies_unnoticed_nobody_is_told_that_it_cannot_be_reached(
    bench: MovesBench,
) -> None:
    holder, reader = bench.peer(), bench.peer()
    payload = bench.offer(holder, ONE, DATA)
    bench.send(reader, ONE, payload)
    holder.is_deaf = True
    bench.moved(reader, ONE, None)
    bench.goes(holder)
    bench.restore()
    assert reason_of(bench.got(reader)[0][1]) == "peer0 has gone, which had it"
    assert bench.relays == []


def test_a_holder_that_goes_while_it_is_asked_for_the_bytes_leaves_nobody_waiting(
    bench: MovesBench,
) -> None:
    holder, reader = bench.peer(), bench.peer()
    payload = bench.offer(holder, ONE, DATA)
    bench.send(reader, ONE, payload)
    assert reader.hands is not None
    assert reader.there is not None
    # the reader's answer reaches the scheduler, the scheduler's question does not reach the holder
    reader.there.chunker.taken(Taken(1, False))
    bench.remotes.failed(reader.there, 1, payload)
    bench.goes(holder)
    bench.restore()
    assert payload.payload is not None
    assert reason_of(payload.payload)
    assert not any(bench.remotes.sizes().values())


def test_what_has_lost_its_holder_is_got_from_whoever_else_keeps_it(bench: MovesBench) -> None:
    holder, home, asks, waits = (bench.peer() for _ in range(4))
    payload = bench.offer(holder, ONE, DATA)
    for reader in (asks, waits):
        bench.send(reader, ONE, payload)
    bench.goes(holder)
    for reader in (asks, waits):
        bench.moved(reader, ONE, None)
    assert bench.orphans == [payload]
    again = bench.offer(home, ONE, DATA, b"the-same-another")
    bench.restore(again)
    assert bench.sources(asks, again.id) == [home.id]
    for reader in (asks, waits):
        bench.moved(reader, again.id, DATA)
        assert bench.got(reader) == [(ONE, DATA)]
    late = bench.peer(listens=False, moves=False)
    bench.send(late, ONE, payload)
    assert bench.got(late) == [(ONE, DATA)]


def test_what_was_on_its_way_back_to_a_holder_that_went_is_not_kept_for_ever(
    bench: MovesBench,
) -> None:
    holder, home, reader = (bench.peer() for _ in range(3))
    payload = bench.offer(holder, ONE, DATA)
    holder.is_deaf = True
    bench.send(holder, ONE, payload)
    bench.goes(holder)
    bench.send(reader, ONE, payload)
    again = bench.offer(home, ONE, DATA, b"the-same-another")
    bench.restore(again)
    assert bench.got(reader) == [(ONE, DATA)]
    assert home.served == [again.id]
    del payload, again
    gc.collect()
    bench.talk()
    assert home.served == []


def test_one_that_was_promised_it_gets_it_too(bench: MovesBench) -> None:
    holder, home, old = bench.peer(), bench.peer(), bench.peer(moves=False)
    payload = bench.offer(holder, ONE, DATA)
    bench.goes(holder)
    bench.send(old, ONE, payload)
    bench.restore(bench.offer(home, ONE, DATA))
    assert bench.got(old) == [(ONE, DATA)]


@pytest.mark.parametrize("moves", [True, False])
def test_who_waits_for_what_came_to_nothing_is_told_so_and_its_core_hears_nothing(
    bench: MovesBench, moves: bool
) -> None:
    holder, reader = bench.peer(), bench.peer(moves=moves)
    payload = bench.offer(holder, ONE, DATA)
    if moves:
        bench.send(reader, ONE, payload)
        bench.goes(holder)
        bench.moved(reader, ONE, None)
    else:
        bench.goes(holder)
        bench.send(reader, ONE, payload)
    bench.restore(VOID)
    assert bench.got(reader) == []
    assert reader.there is not None
    assert reader.there.settled


def test_a_payload_that_is_larger_than_a_reader_takes_costs_that_reader_no_link() -> None:
    bench = MovesBench(bytes_max=4 << 20)
    holder, reader = bench.peer(), bench.peer()
    data = bytes((1 << 20) + 1)
    bench.send(reader, ONE, bench.offer(holder, ONE, data))
    assert bench.got(reader) == [(ONE, data)]
    closes(bench)


def test_however_many_cannot_be_had_at_once_the_link_goes_on(bench: MovesBench) -> None:
    holder, reader = bench.peer(), bench.peer()
    kept = []
    for number in range(REFUSED_MAX + 2):
        id_ = number.to_bytes(16, "big")
        kept.append(payload := bench.offer(holder, id_, DATA))
        assert reader.there is not None
        bench.remotes.send(reader.there, id_, payload)
    bench.talk()
    assert reader.hands is not None
    for id_ in list(reader.pulls):
        reader.hands.has(id_, None)
    bench.talk()
    assert [payload for _, payload in bench.got(reader)] == [DATA] * (REFUSED_MAX + 2)
    assert not any(bench.remotes.sizes().values())


def test_what_is_too_large_for_one_that_must_have_it_by_way_of_the_scheduler_others_still_get() -> (
    None
):
    bench = MovesBench(bytes_max=len(DATA) - 1)
    holder, cut_off, other = (bench.peer() for _ in range(3))
    payload = bench.offer(holder, ONE, DATA)
    bench.send(cut_off, ONE, payload)
    bench.moved(cut_off, ONE, None)
    [(_, lost)] = bench.got(cut_off)
    assert "value_bytes_max" in reason_of(lost)
    bench.send(other, ONE, payload)
    assert bench.sources(other, ONE) == [holder.id]
    closes(bench)


def test_what_is_too_large_for_the_scheduler_is_lost_in_plain_words() -> None:
    bench = MovesBench(bytes_max=len(DATA) - 1)
    client, other = bench.peer(listens=False), bench.peer(listens=False)
    bench.send(other, ONE, bench.offer(client, ONE, DATA))
    [(_, lost)] = bench.got(other)
    assert "peer1 cannot reach peer0" in reason_of(lost)
    assert "value_bytes_max" in reason_of(lost)
    closes(bench)


def test_marks_wait_for_what_is_still_under_way(bench: MovesBench) -> None:
    client, other = bench.peer(listens=False), bench.peer(listens=False, moves=False)
    payload = bench.offer(client, ONE, DATA)
    traffic = other.there
    assert traffic is not None
    control, bulk = Link(bench.settings), Link(bench.settings)
    bench.remotes.send(traffic, ONE, payload)
    traffic.mark(7, control, bulk)
    assert traffic.reached(control, bulk) == []  # its bytes have yet to come here
    payload.came(DATA)
    assert traffic.reached(control, bulk) == []
    traffic.feed(bulk)
    frames = bulk.flush(1.0)
    assert traffic.reached(control, bulk) == []  # they are on their way
    bulk.received(Ack(len(frames)), 2.0, 1)
    assert traffic.reached(control, bulk) == [7]


def test_one_that_has_to_be_sent_the_bytes_ends_nobody_elses_way_to_them(
    bench: MovesBench,
) -> None:
    holder, near, far = bench.peer(), bench.peer(), bench.peer()
    payload = bench.offer(holder, ONE, DATA)
    bench.send(near, ONE, payload)
    bench.send(far, ONE, payload)
    bench.moved(far, ONE, None)
    while ONE in far.pulls:
        bench.moved(far, ONE, None)
    assert bench.got(far) == [(ONE, DATA)]
    assert holder.served == [ONE]
    bench.moved(near, ONE, DATA)
    assert bench.got(near) == [(ONE, DATA)]
    del payload
    gc.collect()
    bench.talk()
    assert holder.served == []


def test_a_peer_that_has_no_place_for_others_cannot_offer(bench: MovesBench) -> None:
    stranger = bench.peer(moves=False)
    assert stranger.there is not None
    with pytest.raises(RemoteProtocolError, match="nobody could get at it"):
        bench.remotes.heard(stranger.there, Offered(ONE, 1, 5, ONE))
    with pytest.raises(RemoteProtocolError, match="out of place"):
        bench.remotes.heard(stranger.there, Bring(ONE, bench.peer().there.source))  # type: ignore[union-attr, arg-type]


def test_two_that_want_the_same_here_get_it_once(bench: MovesBench) -> None:
    holder, reader = bench.peer(), bench.peer()
    payload = bench.offer(holder, ONE, DATA)
    bench.send(reader, ONE, payload)
    bench.send(reader, b"under-another-k", payload)
    bench.moved(reader, ONE, DATA)
    assert sorted(bench.got(reader)) == [(ONE, DATA), (b"under-another-k", DATA)]


def test_who_has_made_it_uses_what_it_has(bench: MovesBench) -> None:
    holder = bench.peer()
    payload = bench.offer(holder, ONE, DATA)
    bench.send(holder, b"under-another-k", payload)
    assert bench.got(holder) == [(b"under-another-k", DATA)]
    assert holder.pulls == {}
    del payload
    gc.collect()
    bench.talk()
    assert holder.served == []


def test_small_payloads_go_as_they_ever_did(bench: MovesBench) -> None:
    holder = bench.peer()
    assert bench.offer(holder, ONE, DATA[:99]) == DATA[:99]
    assert bench.kinds_said() == [Chunk]


def test_a_new_link_life_offers_and_waits_for_nothing(bench: MovesBench) -> None:
    holder, reader = bench.peer(), bench.peer()
    bench.send(reader, ONE, bench.offer(holder, ONE, DATA))
    assert holder.carriage is not None
    assert reader.carriage is not None
    holder.carriage.new_life(())
    reader.carriage.new_life(())
    assert holder.served == []
    assert reader.pulls == {}
    assert not holder.carriage.offer(holder.here, ONE, DATA, ONE)  # nobody may come for it


# -------------------------------------------------------------------------------- who would leave


def test_one_that_would_leave_is_told_of_when_its_last_reader_has_all(bench: MovesBench) -> None:
    holder, *readers = (bench.peer() for _ in range(3))
    payload = bench.offer(holder, ONE, DATA)
    for reader in readers:
        bench.send(reader, ONE, payload)
    bench.leaves(holder)
    assert bench.unread == []
    bench.moved(readers[0], ONE, DATA)
    assert bench.unread == []
    bench.moved(readers[1], ONE, DATA)
    assert bench.unread == [holder.id]
    assert not any(bench.remotes.sizes().values())


def test_one_of_whom_nobody_is_getting_anything_may_leave_though_some_is_kept_here(
    bench: MovesBench,
) -> None:
    holder, other, reader = (bench.peer() for _ in range(3))
    kept = bench.offer(holder, ONE, DATA)
    bench.send(reader, ONE, bench.offer(other, b"another-object-1", DATA))
    bench.leaves(holder)
    assert bench.unread == [holder.id]
    assert len(kept) == len(DATA)


def test_a_reader_that_goes_keeps_nobody_from_leaving(bench: MovesBench) -> None:
    holder, reader = bench.peer(), bench.peer()
    payload = bench.offer(holder, ONE, DATA)
    bench.send(reader, ONE, payload)
    bench.leaves(holder)
    bench.goes(reader)
    assert bench.unread == [holder.id]
    assert len(payload) == len(DATA)


def test_a_holder_whose_bytes_come_to_the_scheduler_may_leave_when_they_are_here(
    bench: MovesBench,
) -> None:
    holder, reader = bench.peer(), bench.peer()
    bench.send(reader, ONE, bench.offer(holder, ONE, DATA))
    holder.is_deaf = True
    bench.moved(reader, ONE, None)
    bench.leaves(holder)
    assert bench.unread == []
    holder.is_deaf = False
    bench.talk()
    assert bench.unread == [holder.id]
    assert bench.got(reader) == [(ONE, DATA)]


def test_one_that_has_gone_is_not_told_of(bench: MovesBench) -> None:
    holder, reader = bench.peer(), bench.peer()
    payload = bench.offer(holder, ONE, DATA)
    bench.send(reader, ONE, payload)
    bench.leaves(holder)
    bench.goes(holder)
    bench.moved(reader, ONE, DATA)
    assert bench.unread == []
    assert len(payload) == len(DATA)

"""A link delivers everything once and in order, whatever becomes of its connections."""

import random

import pytest
from drumbeat.protocol.codec import decode_frame, encode, encode_ack
from drumbeat.protocol.errors import MessageTooLarge, RemoteProtocolError
from drumbeat.protocol.frames import Ack, Batch
from drumbeat.protocol.link import Link
from drumbeat.protocol.settings import Settings
from hypothesis import given, settings
from hypothesis import strategies as st

DEFAULTS = Settings()
SMALL = Settings(link_window_batches_max=4, link_window_bytes_max=4096, frame_bytes_max=256)


def item(number: int, length: int = 0) -> bytes:
    return encode([number, b"x" * length])


def take(link: Link, frames: list[bytes], now_s: float = 0.0) -> list[bytes]:
    return [
        bytes(raw)
        for frame in frames
        for raw in link.received(decode_frame(frame), now_s, len(frame))  # type: ignore[arg-type]
    ]


def test_all_that_is_queued_goes_in_one_batch() -> None:
    near, far = Link(DEFAULTS), Link(DEFAULTS)
    for number in range(100):
        near.queue(item(number))
    frames = near.flush(0.0)
    assert len(frames) == 1
    assert take(far, frames) == [item(number) for number in range(100)]
    assert near.flush(0.0) == []
    assert near.queued_bytes == near.backlog == 0


def test_no_frame_is_longer_than_the_limit() -> None:
    near, far = Link(SMALL), Link(SMALL)
    for number in range(4):
        near.queue(item(number, 100))
    frames = near.flush(0.0)
    assert len(frames) == 2
    assert all(len(frame) <= SMALL.frame_bytes_max for frame in frames)
    assert len(take(far, frames)) == 4


def test_a_message_that_no_frame_can_hold_is_refused() -> None:
    with pytest.raises(MessageTooLarge):
        Link(SMALL).queue(bytes(SMALL.frame_bytes_max))


def test_the_window_stops_the_sender_until_it_hears_an_acknowledgement() -> None:
    near, far = Link(SMALL), Link(SMALL)
    for number in range(10):
        near.queue(item(number, 150))
    frames = near.flush(0.0)
    assert len(frames) == SMALL.link_window_batches_max
    assert near.flush(0.0) == []
    assert near.backlog == 6
    take(far, frames)
    take(near, far.flush(0.0))
    assert len(near.flush(0.0)) == 4


def test_the_window_is_bounded_in_bytes_as_well() -> None:
    near = Link(Settings(frame_bytes_max=2000, link_window_bytes_max=3000))
    for number in range(10):
        near.queue(item(number, 1500))
    assert len(near.flush(0.0)) == 2


def test_an_acknowledgement_rides_on_data() -> None:
    near, far = Link(DEFAULTS), Link(DEFAULTS)
    near.queue(item(1))
    take(far, near.flush(0.0))
    far.queue(item(2))
    (frame,) = far.flush(0.0)
    assert isinstance(decode_frame(frame), Batch)
    take(near, [frame])
    assert near.unacked == 0
    assert far.ack_due_s is None


def test_an_acknowledgement_goes_alone_after_a_while() -> None:
    near, far = Link(DEFAULTS), Link(DEFAULTS)
    near.queue(item(1))
    take(far, near.flush(5.0), 5.0)
    assert far.deadline_s() == 5.0 + DEFAULTS.ack_delay_s
    assert far.flush(5.0) == []
    (frame,) = far.flush(5.0 + DEFAULTS.ack_delay_s)
    assert decode_frame(frame) == Ack(1)
    assert far.flush(99.0) == []
    take(near, [frame])
    assert near.unacked == 0


def test_an_acknowledgement_goes_at_half_a_window() -> None:
    near, far = Link(SMALL), Link(SMALL)
    for number in range(2):
        near.queue(item(number, 150))
    take(far, near.flush(0.0))
    assert [decode_frame(frame) for frame in far.flush(0.0)] == [Ack(2)]


def test_an_acknowledgement_goes_at_half_the_windows_bytes() -> None:
    bounds = Settings(frame_bytes_max=2000, link_window_bytes_max=3000)
    near, far = Link(bounds), Link(bounds)
    near.queue(item(1, 1500))
    take(far, near.flush(0.0))
    assert len(far.flush(0.0)) == 1


def test_acknowledgements_are_not_acknowledged() -> None:
    near, far = Link(DEFAULTS), Link(DEFAULTS)
    take(far, [near.acknowledge()])
    assert far.at_rest


def test_a_duplicate_is_dropped_and_counted_and_acknowledged_at_once() -> None:
    near, far = Link(DEFAULTS), Link(DEFAULTS)
    near.queue(item(1))
    frames = near.flush(0.0)
    assert take(far, frames + frames) == [item(1)]
    assert far.duplicates_dropped == 1
    assert len(far.flush(0.0)) == 1


def test_what_comes_too_early_is_dropped_and_counted_and_what_is_missing_sent_again() -> None:
    near, far = Link(SMALL), Link(SMALL)
    for number in range(3):
        near.queue(item(number, 150))
    frames = near.flush(0.0)
    assert take(far, frames[1:]) == []
    assert far.gaps_dropped == 2
    (told,) = far.flush(0.0)
    assert decode_frame(told) == Ack(0, missing=True)
    take(near, [told, told])
    assert near.flush(0.0) == [*frames, encode_ack(0)]
    assert near.batches_resent == 3
    take(near, [told])
    assert near.flush(0.0) == [], "it is on its way"
    assert len(take(far, frames)) == 3


def test_the_loss_of_the_last_batch_is_noticed_by_asking() -> None:
    near, far = Link(DEFAULTS), Link(DEFAULTS)
    near.queue(item(1))
    lost = near.flush(5.0)
    due_s = 5.0 + DEFAULTS.resend_after_s
    assert near.deadline_s() == due_s
    (asked,) = near.flush(due_s)
    assert decode_frame(asked) == Ack(0, sent=1)
    take(far, [asked], due_s)
    take(near, far.flush(due_s), due_s)
    assert near.flush(due_s) == [*lost, encode_ack(0)]
    assert take(far, lost, due_s) == [item(1)]


def test_the_loss_of_an_acknowledgement_is_noticed_by_asking() -> None:
    near, far = Link(DEFAULTS), Link(DEFAULTS)
    near.queue(item(1))
    take(far, near.flush(0.0))
    assert len(far.flush(0.1)) == 1, "and it is lost"
    take(far, near.flush(1.0), 1.0)
    take(near, far.flush(1.0), 1.0)
    assert near.unacked == near.batches_resent == 0


def test_who_does_not_answer_is_asked_less_and_less_often_until_it_does() -> None:
    near, far = Link(DEFAULTS), Link(DEFAULTS)
    near.queue(item(1))
    frames = near.flush(0.0)
    asked = []
    for _ in range(7):
        asked.append(near.ask_due_s)
        assert near.ask_due_s is not None
        assert len(near.flush(near.ask_due_s)) == 1
    assert asked == [1.0, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0]
    assert near.batches_resent == 0, "a slow connection is not made slower"
    take(far, frames)
    take(near, far.flush(50.0), 50.0)
    assert near.deadline_s() is None
    near.queue(item(2))
    near.flush(60.0)
    assert near.ask_due_s == 61.0


def test_an_acknowledgement_of_what_was_never_sent_is_the_peers_fault() -> None:
    with pytest.raises(RemoteProtocolError, match="ack"):
        Link(DEFAULTS).received(Ack(1), 0.0)


def test_resuming_sends_again_what_the_peer_has_not_received_and_nothing_else() -> None:
    near, far = Link(SMALL), Link(SMALL)
    for number in range(3):
        near.queue(item(number, 150))
    frames = near.flush(0.0)
    take(far, frames[:1])
    near.resume(far.received_seq)
    far.resume(near.received_seq)
    again = near.flush(0.0)
    assert again == frames[1:]
    assert take(far, again) == [item(1, 150), item(2, 150)]
    assert near.batches_resent == 2


@pytest.mark.parametrize("claimed", [0, 3])
def test_resuming_from_what_cannot_be_is_refused(claimed: int) -> None:
    near, far = Link(SMALL), Link(SMALL)
    for number in range(2):
        near.queue(item(number, 150))
    take(far, near.flush(0.0))
    take(near, far.flush(0.0))
    with pytest.raises(RemoteProtocolError, match="received"):
        near.resume(claimed)


class Wire:
    """Two links and a hostile network between them; a whim makes a new connection."""

    def __init__(self, rng: random.Random, loss: float, duplicates: float, reorder: float) -> None:
        self.rng, self.loss, self.duplicates, self.reorder = rng, loss, duplicates, reorder
        self.links = [Link(SMALL), Link(SMALL)]
        self.flights: list[list[bytes]] = [[], []]
        self.got: list[list[bytes]] = [[], []]
        self.now_s = 0.0

    def send(self, side: int, hostile: bool) -> None:
        flight = self.flights[1 - side]
        for frame in self.links[side].flush(self.now_s):
            if hostile and self.rng.random() < self.loss:
                continue
            flight.append(frame)
            if hostile and self.rng.random() < self.duplicates:
                flight.append(frame)
            if hostile and len(flight) > 1 and self.rng.random() < self.reorder:
                flight[-1], flight[-2] = flight[-2], flight[-1]

    def deliver(self, side: int) -> None:
        flight, self.flights[side] = self.flights[side], []
        for frame in flight:
            self.got[side] += take(self.links[side], [frame], self.now_s)

    def reconnect(self) -> None:
        self.flights = [[], []]
        received = [link.received_seq for link in self.links]
        self.links[0].resume(received[1])
        self.links[1].resume(received[0])


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    loss=st.floats(0, 0.3),
    duplicates=st.floats(0, 0.5),
    reorder=st.floats(0, 0.5),
    sizes=st.lists(st.integers(0, 190), max_size=120),
    breaks=st.sampled_from((0.0, 0.05)),
)
def test_everything_arrives_once_and_in_order_whatever_the_network_does(
    seed: int, loss: float, duplicates: float, reorder: float, sizes: list[int], breaks: float
) -> None:
    rng = random.Random(seed)
    wire = Wire(rng, loss, duplicates, reorder)
    sent: list[list[bytes]] = [[], []]
    for number, size in enumerate(sizes):
        side = rng.randrange(2)
        sent[side].append(item(number, size))
        wire.links[side].queue(sent[side][-1])
        wire.now_s += rng.choice((0.0, 0.001, 0.03))
        if rng.random() < 0.5:
            wire.send(rng.randrange(2), hostile=True)
        if rng.random() < 0.5:
            wire.deliver(rng.randrange(2))
        if rng.random() < breaks:
            wire.reconnect()
    # It never becomes better: what is promised then is that all gets there in the end.
    for _ in range(3000):
        wire.now_s += 0.1
        for side in (0, 1):
            wire.send(side, hostile=True)
        for side in (0, 1):
            wire.deliver(side)
        if all(link.at_rest and not link.unacked for link in wire.links):
            break
    assert wire.got == [sent[1], sent[0]]
    assert all(link.at_rest and not link.unacked for link in wire.links)


def test_it_knows_when_that_was_sent_which_was_acknowledged_last() -> None:
    near, far = Link(DEFAULTS), Link(DEFAULTS)
    assert near.confirmed_s == float("-inf")
    near.queue(item(1))
    first = near.flush(10.0)
    near.queue(item(2))
    lost = near.flush(11.0)
    take(far, first, 10.5)
    take(near, [far.acknowledge()], 12.0)
    assert near.confirmed_s == 10.0
    # What is sent again counts from when it was first sent.
    near.resume(1)
    again = near.flush(20.0)
    assert again[0] == lost[0]
    take(far, again, 20.1)
    take(near, [far.acknowledge()], 20.2)
    assert near.confirmed_s == 11.0

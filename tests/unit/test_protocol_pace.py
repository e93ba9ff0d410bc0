"""However slow a link is, what is worth the wait comes, and whoever is dead is given up."""

from math import ceil
from zlib import crc32

import msgspec
import pytest
from drumbeat.protocol import moving_words as words
from drumbeat.protocol.moves import DATA_PROTOCOL_VERSION, Ask, Greet, Piece
from drumbeat.protocol.moving import Moving
from drumbeat.protocol.moving_words import Connection, Failed, Finished
from drumbeat.protocol.pace import ASK_BYTES_MIN, FIRST_BYTES, Pace
from drumbeat.protocol.settings import Settings
from support.moving_web import Peer, Web

KEY, OTHERS = b"k" * 14, [bytes([65 + index]) * 14 for index in range(8)]
KIB, MIB = 1 << 10, 1 << 20
USUAL = Settings()
SILENCE_S = USUAL.data_silence_s
PIECE_BYTES_MAX = MIB - 4 * KIB


def paced(rate: float, pieces: int, latency_s: float = 0.0, *, pace: Pace | None = None) -> Pace:
    pace = pace or Pace(PIECE_BYTES_MAX, 16 * MIB, SILENCE_S)
    for _ in range(pieces):
        length = min(pace.ahead, PIECE_BYTES_MAX)
        pace.came(length, latency_s + length / rate)
    return pace


@pytest.mark.parametrize("rate", [1_600.0, 31_250.0, 1e5, 1e6])
def test_no_piece_takes_longer_than_a_part_of_a_silence_however_slow_the_link_is(
    rate: float,
) -> None:
    pace = paced(rate, 1)
    for _ in range(200):
        length = min(pace.ahead, PIECE_BYTES_MAX)
        assert length == FIRST_BYTES or length / rate <= SILENCE_S / 4
        paced(rate, 1, pace=pace)


@pytest.mark.parametrize("latency_s", [0.0002, 0.1])
def test_over_a_quick_link_several_pieces_are_asked_for_ahead_after_few(
    latency_s: float,
) -> None:
    assert paced(1e8, 10, latency_s).ahead >= 4 * MIB


def test_a_link_whose_first_bytes_pass_at_once_is_not_held_for_a_quick_one() -> None:
    pace = paced(1e9, 1)
    for _ in range(50):
        assert pace.ahead / 31_250 <= SILENCE_S / 4
        paced(31_250, 1, pace=pace)


def test_pieces_that_come_in_one_go_after_a_wait_are_not_held_for_a_quick_link() -> None:
    pace = Pace(PIECE_BYTES_MAX, 16 * MIB, SILENCE_S)
    for _ in range(50):
        pace.came(FIRST_BYTES, 2.0)
        for _ in range(3):
            pace.came(FIRST_BYTES, 0.0)
        assert pace.ahead <= 4 * FIRST_BYTES


def test_a_link_that_has_become_slow_is_asked_for_less_with_the_first_late_piece() -> None:
    pace = paced(1e8, 200)
    pace.came(PIECE_BYTES_MAX, 4.0)
    assert pace.ahead / (PIECE_BYTES_MAX / 4.0) <= SILENCE_S / 4


# ----------------------------------------------------------------------- over links that carry so


class Slow:
    """A holder and a receiver; what goes from the one to the other takes its time.

    Args:
        rate: bytes a second.
        web: with the settings.
    """

    def __init__(self, rate: float, web: Web) -> None:
        self.rate = rate
        self.web = web
        self.holder, self.receiver = web.peer("holder"), web.peer("taker")
        # Of the word that passes: how much has not.
        self._left: dict[Connection, int] = {}

    def until_told(self, count: int, within_s: float) -> None:
        """Let time pass until so many payloads have come, or have not."""
        end_s = self.web.now_s + within_s
        while len(self.receiver.got) < count:
            assert self.web.now_s < end_s, "it never ends"
            self._step(0.02)

    def _step(self, seconds: float) -> None:
        budget = seconds * self.rate
        for number, wire in list(self.receiver.wires.items()):
            waiting = wire.waiting[self.receiver]
            while waiting and number in self.receiver.wires:
                left = self._left.pop(number, len(waiting[0]))
                passed = min(budget, left)
                budget -= passed
                if left > passed:
                    self._left[number] = left - ceil(passed)
                    break
                self.web.step(self.receiver, number)
        self.web.now_s += seconds
        self._others(self.holder)
        for peer in (self.holder, self.receiver):
            due_s = peer.core.deadline_s()
            if due_s is not None and due_s <= self.web.now_s:
                peer.tell(words.Tick())

    def _others(self, peer: Peer) -> None:
        for number, wire in list(peer.wires.items()):
            while number in peer.wires and wire.waiting[peer]:
                self.web.step(peer, number)


def payload_of(size: int) -> bytes:
    return bytes(range(256)) * (size // 256)


def test_a_payload_comes_over_a_link_that_carries_no_piece_within_a_silence() -> None:
    size = 2 * MIB
    slow = Slow(0.25e6 / 8, Web(USUAL))
    slow.holder.serve(KEY, payload_of(size))
    slow.receiver.pull(KEY, size, slow.holder)
    slow.until_told(1, 2 * size / slow.rate)
    assert slow.receiver.got == [Finished(KEY)]
    assert slow.receiver.payloads[KEY] == payload_of(size)
    assert slow.receiver.core.counters["sources_lost"] == 0


def test_several_payloads_come_over_a_slow_link() -> None:
    size = 256 * KIB
    slow = Slow(0.25e6 / 8, Web(USUAL))
    for key in OTHERS:
        slow.holder.serve(key, payload_of(size))
        slow.receiver.pull(key, size, slow.holder)
    slow.until_told(len(OTHERS), 2 * len(OTHERS) * size / slow.rate)
    assert {told.key for told in slow.receiver.got if isinstance(told, Finished)} == set(OTHERS)
    assert slow.receiver.core.counters["sources_lost"] == 0


def test_a_source_whose_link_becomes_slow_is_asked_for_little_and_not_given_up() -> None:
    slow = Slow(1e8, Web(USUAL))
    for key in (KEY, OTHERS[0]):
        slow.holder.serve(key, payload_of(4 * MIB))
        slow.receiver.pull(key, 4 * MIB, slow.holder)
        slow.until_told(1, 60.0)
        slow.rate = 0.25e6 / 8
    slow.until_told(2, 300.0)
    assert slow.receiver.got == [Finished(KEY), Finished(OTHERS[0])]


def test_a_source_that_was_quick_and_is_dead_is_given_up_after_two_silences() -> None:
    web = Web(USUAL)
    slow = Slow(1e8, web)
    for key in (KEY, OTHERS[0]):
        slow.holder.serve(key, payload_of(4 * MIB))
    slow.receiver.pull(KEY, 4 * MIB, slow.holder)
    slow.until_told(1, 60.0)
    slow.holder.is_deaf = True
    slow.rate = 0.0
    begun_s = web.now_s
    slow.receiver.pull(OTHERS[0], 4 * MIB, slow.holder)
    slow.until_told(2, 60.0)
    assert isinstance(slow.receiver.got[-1], Failed)
    assert web.now_s - begun_s <= 2 * SILENCE_S + 1.0


# --------------------------------------------------------------------- what asking costs a holder


def holder_of(size: int) -> Moving:
    core = Moving(b"node..", USUAL)
    core.handle(words.Serve(KEY, size), 0.0)
    core.handle(words.Heard(-1, Greet(DATA_PROTOCOL_VERSION, b"client")), 0.0)
    return core


def test_who_asks_for_a_few_bytes_at_a_time_is_hung_up_on() -> None:
    core = holder_of(MIB)
    assert core.handle(words.Heard(-1, Ask(KEY, 0, 1)), 0.0) == [words.Close(-1)]
    assert core.counters["junk"] == 1


def test_the_last_bytes_may_be_few() -> None:
    core = holder_of(MIB)
    (send,) = core.handle(words.Heard(-1, Ask(KEY, MIB - 1, MIB)), 0.0)
    assert isinstance(send, words.Send)
    assert send.length == 1


def test_what_comes_in_small_parts_is_passed_on_in_larger_ones() -> None:
    web = Web(msgspec.structs.replace(USUAL, frame_bytes_max=16 * KIB))
    core, size = web.peer("middle").core, 64 * KIB
    core.handle(words.Pull(KEY, size, [web.peer("holder").source]), 0.0)
    core.handle(words.Heard(-1, Greet(DATA_PROTOCOL_VERSION, b"client")), 0.0)
    core.handle(words.Heard(-1, Ask(KEY, 0, size)), 0.0)
    core.handle(words.Heard(1, Greet(DATA_PROTOCOL_VERSION, b"holder")), 0.0)
    sent = []
    for offset in range(0, 12 * KIB, KIB):
        data = payload_of(KIB)
        commands = core.handle(words.Heard(1, piece_of(offset, data, size)), 0.0)
        for send in [one for one in commands if isinstance(one, words.Send)]:
            sent.append(send.length)
            core.handle(words.Sent(-1), 0.0)
    assert sent == [ASK_BYTES_MIN] * 3


def piece_of(offset: int, data: bytes, size: int) -> Piece:
    return Piece(KEY, offset, size, crc32(data), memoryview(data))

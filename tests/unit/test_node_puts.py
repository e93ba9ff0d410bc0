"""How far a worker may be ahead of its node with what it puts."""

import os
from collections.abc import Sequence

import pytest
from drumbeat.node.apart import told, whole
from drumbeat.node.channel import Packet
from drumbeat.node.packets import Submitted, ToDaemon
from drumbeat.node.page import GRANTED, PulsePage
from drumbeat.node.puts import AHEAD_BYTES_MAX, COUNTED_BYTES_MIN, Puts, counted
from drumbeat.protocol.codec import decoder
from drumbeat.protocol.messages import Outcome, ValueRow
from drumbeat.protocol.payload_files import Filing
from drumbeat.protocol.segments import are_to_be_had

HALF = AHEAD_BYTES_MAX // 2


def row(payload: bytes | None) -> ValueRow:
    return ValueRow(b"i" * 14, Outcome.VALUE, payload)


class Worker:
    """One that puts, and a node that has room when it has been sent something."""

    def __init__(self, grants: Sequence[int] = ()) -> None:
        self.words = PulsePage().slot(1)
        self.grants = list(grants)
        self.flushes = 0
        self.puts = Puts(self.words, self._flush)

    def _flush(self) -> None:
        self.flushes += 1
        if self.grants:
            self.words[GRANTED] = self.grants.pop(0)

    def put(self, size: int) -> None:
        self.puts.wait(bytes(size))
        self.puts.count(bytes(size))


def test_a_worker_that_is_not_far_ahead_waits_for_nothing() -> None:
    worker = Worker()
    for _ in range(3):
        worker.put(HALF)


def test_what_has_gone_is_told_before_more_is_put_so_that_it_makes_room() -> None:
    worker = Worker()
    worker.put(HALF)
    assert worker.flushes == 1


def test_one_that_is_too_far_ahead_puts_when_the_node_has_room() -> None:
    worker = Worker([0, 0, 0, HALF, 4 * HALF])
    for _ in range(7):
        worker.put(HALF)
    assert not worker.grants


def test_one_large_value_may_be_on_its_way_however_large() -> None:
    worker = Worker([0, 10 * AHEAD_BYTES_MAX])
    worker.put(10 * AHEAD_BYTES_MAX)
    worker.put(HALF)
    assert not worker.grants


def test_who_waits_for_room_can_be_interrupted() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    puts = Puts(PulsePage().slot(1), interrupted)
    puts.count(bytes(3 * HALF))
    with pytest.raises(KeyboardInterrupt):
        puts.wait(bytes(HALF))


def test_small_values_do_not_count() -> None:
    worker = Worker()
    for _ in range(4 * AHEAD_BYTES_MAX // COUNTED_BYTES_MIN):
        worker.put(COUNTED_BYTES_MIN - 1)
    assert not worker.flushes
    assert counted(None) == 0


@pytest.mark.skipif(not are_to_be_had(), reason="no memory files that can be sealed")
def test_worker_and_node_count_the_same_whether_it_lies_in_a_file_or_in_the_packet() -> None:
    filed = Filing(1)(bytes(COUNTED_BYTES_MIN), [])
    assert filed is not None
    rows = [row(filed), row(bytes(COUNTED_BYTES_MIN)), row(b"small")]
    data, fds = told(Submitted(b"", 1, [], [], rows))
    packet = Packet(memoryview(data), tuple(os.dup(fd) for fd in fds))
    come = whole(decoder(ToDaemon), packet)
    assert isinstance(come, Submitted)
    assert [counted(one.payload) for one in come.puts] == [counted(one.payload) for one in rows]
    assert counted(come.puts[0].payload) == len(filed)

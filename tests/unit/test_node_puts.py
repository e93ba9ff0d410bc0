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
        self.words[GRANTED] = self.grants.pop(0)

    def put(self, size: int) -> None:
        self.puts.wait()
        self.puts.count(row(bytes(size)))


def test_a_worker_that_is_not_far_ahead_puts_and_sends_nothing_for_that() -> None:
    worker = Worker()
    for _ in range(3):
        worker.put(HALF)
    assert not worker.flushes


def test_one_that_is_too_far_ahead_sends_what_it_has_and_puts_when_there_is_room() -> None:
    worker = Worker([3 * HALF, 5 * HALF])
    for _ in range(6):
        worker.put(HALF)
    assert worker.flushes == 1
    worker.put(HALF)
    assert worker.flushes == 2


def test_one_large_value_may_be_on_its_way_however_large() -> None:
    worker = Worker([10 * AHEAD_BYTES_MAX])
    worker.put(10 * AHEAD_BYTES_MAX)
    assert not worker.flushes
    worker.put(1)
    assert worker.flushes == 1


def test_who_waits_for_room_can_be_interrupted_and_has_put_nothing() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    puts = Puts(PulsePage().slot(1), interrupted)
    puts.count(row(bytes(3 * HALF)))
    with pytest.raises(KeyboardInterrupt):
        puts.wait()


def test_small_values_do_not_count() -> None:
    worker = Worker()
    for _ in range(4 * AHEAD_BYTES_MAX // COUNTED_BYTES_MIN):
        worker.put(COUNTED_BYTES_MIN - 1)
    assert not worker.flushes
    assert counted(row(None)) == 0


@pytest.mark.skipif(not are_to_be_had(), reason="no memory files that can be sealed")
def test_worker_and_node_count_the_same_whether_it_lies_in_a_file_or_in_the_packet() -> None:
    filed = Filing(1)(bytes(COUNTED_BYTES_MIN), [])
    assert filed is not None
    rows = [row(filed), row(bytes(COUNTED_BYTES_MIN)), row(b"small")]
    data, fds = told(Submitted(b"", 1, [], [], rows))
    packet = Packet(memoryview(data), tuple(os.dup(fd) for fd in fds))
    come = whole(decoder(ToDaemon), packet)
    assert isinstance(come, Submitted)
    assert [counted(one) for one in come.puts] == [counted(one) for one in rows]
    assert counted(come.puts[0]) == len(filed)

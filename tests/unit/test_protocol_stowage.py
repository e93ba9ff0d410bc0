"""What has come stays within the budget of the store: the rest lies on disk and reads the same."""

import errno
import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drumbeat.protocol import segments, spill
from drumbeat.protocol.errors import StoreFull
from drumbeat.protocol.ids import ObjectId
from drumbeat.protocol.messages import Outcome, ValueRow
from drumbeat.protocol.payload_files import (
    Filing,
    file_of,
    handed,
    opened_at,
    parts_of,
    place_of,
    written_to,
)
from drumbeat.protocol.spill import Disk, kind_of
from drumbeat.protocol.store import Store
from drumbeat.protocol.stowage import Fullness, Stowage
from support.waiting import until

pytestmark = pytest.mark.skipif(
    not segments.are_to_be_had(), reason="this system has no memory files that can be sealed"
)

SIZE = 100_000
#: of the file: with its head, and aligned
FILE = 100_128
#: room for four
BUDGET = 450_000


def content_of(number: int) -> bytes:
    return b"%010d" % number * (SIZE // 10)


def row_of(number: int, times: int = 1) -> ValueRow:
    payload = Filing(1)(content_of(number) * times, [])
    return ValueRow(b"object %07d" % number, Outcome.VALUE, payload)


def read(row: ValueRow) -> bytes:
    assert row.payload is not None
    return bytes(parts_of(row.payload)[0])


def is_spilled(row: ValueRow) -> bool:
    file = file_of(row.payload)
    assert file is not None
    return file.is_spilled


def id_of(row: ValueRow) -> ObjectId:
    return ObjectId(row.id)


def opened_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


class House:
    """A stowage with its store, and how often its loop was woken."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.woken = 0
        self.stowage = Stowage(store, self.wake)

    def wake(self) -> None:
        self.woken += 1

    def come(self, *rows: ValueRow) -> None:
        self.stowage.keep([(id_of(row), row) for row in rows])

    def close(self) -> None:
        """Close it all; wait for the thread, so that nothing is open in tests to come."""
        self.store.close()
        if self.stowage._thread is not None:
            self.stowage._thread.join()

    def until_full(self) -> Fullness:
        """Turn, as a loop does for which something waits, until it is told that all is full."""
        told: list[Fullness | None] = []

        def is_full() -> bool:
            self.stowage.admits(FILE)
            told.append(self.stowage.turn())
            return told[-1] is not None

        until(is_full)
        assert told[-1] is not None
        return told[-1]

    def settle(self) -> None:
        def is_settled() -> bool:
            # With the lock, so that none is looked at that is just being moved.
            with self.stowage._lock:
                return self.store.all_bytes <= BUDGET

        until(is_settled)


@pytest.fixture
def disk(tmp_path: Path) -> str:
    if kind_of(str(tmp_path)) in spill.IN_MEMORY:
        pytest.skip("temporary files lie in memory here")
    return str(tmp_path)


@pytest.fixture
def house(disk: str) -> Iterator[House]:
    made = House(Store(0, BUDGET, Disk(disk, 1 << 30)))
    yield made
    made.close()


def test_what_was_not_used_for_longest_lies_on_disk_then_and_all_reads_the_same(
    house: House, disk: str
) -> None:
    rows = [row_of(number) for number in range(4)]
    house.come(*rows)
    assert not any(is_spilled(row) for row in rows)
    assert read(rows[0]) == content_of(0)
    rows.append(row_of(4))
    house.come(rows[4])
    house.settle()
    assert [is_spilled(row) for row in rows] == [False, True, False, False, False]
    rows += [row_of(number) for number in range(5, 20)]
    house.come(*rows[5:])
    house.settle()
    stowage = house.stowage
    assert stowage.bytes + stowage.spilled_bytes == sum(
        len(row.payload or b"") + 64 for row in rows
    )
    assert [read(row) for row in rows] == [content_of(number) for number in range(20)]
    assert not os.listdir(disk), "a file on disk has no name"


def test_who_has_a_value_in_hand_keeps_it_as_it_was(house: House) -> None:
    rows = [row_of(number) for number in range(8)]
    before = [row.payload for row in rows]
    _, kept = parts_of(rows[0].payload or b"")
    house.come(*rows)
    house.settle()
    assert [bytes(payload or b"") for payload in before] == [
        bytes(row.payload or b"") for row in rows
    ]
    del before, kept


def test_what_goes_leaves_nothing_neither_in_memory_nor_on_disk(house: House) -> None:
    before = opened_files()
    rows = [row_of(number) for number in range(10)]
    house.come(*rows)
    house.settle()
    house.stowage.forget([id_of(row) for row in rows])
    assert (len(house.stowage), house.stowage.bytes, house.stowage.spilled_bytes) == (0, 0, 0)
    rows.clear()
    until(lambda: opened_files() == before)


def test_what_is_put_finds_room_where_others_were_not_used_for_longer(house: House) -> None:
    rows = [row_of(number) for number in range(4)]
    house.come(*rows)
    for number in range(2):
        house.store.make_room(SIZE)
        segment, _ = house.store.write(b"segment %d" % number, [content_of(number)])
        house.store.put(segment)
    assert [is_spilled(row) for row in rows] == [True, True, False, False]
    more = [row_of(number) for number in range(4, 8)]
    house.come(*more)
    house.settle()
    assert house.store.bytes == 0, "what was put had not been used for longer than they"


def test_what_has_no_room_waits_until_something_lies_on_disk(house: House) -> None:
    stowage = house.stowage
    assert stowage.admits(4 * FILE)
    assert not stowage.admits(FILE), "what was admitted counts before it has come"
    house.come(*[row_of(number) for number in range(4)])
    assert stowage.turn() is None
    until(lambda: stowage.admits(FILE))
    assert house.woken
    assert stowage.spilled_bytes == FILE


def test_one_that_is_larger_than_the_budget_comes_alone(house: House) -> None:
    house.come(row_of(0))
    assert not house.stowage.admits(2 * BUDGET)
    until(lambda: house.stowage.admits(2 * BUDGET))
    assert house.store.all_bytes == 0


def test_when_the_disk_is_full_too_it_is_told_at_the_end_of_a_turn_and_no_longer_when_one_goes(
    disk: str,
) -> None:
    house = House(Store(0, BUDGET, Disk(disk, 2 * FILE)))
    stowage = house.stowage
    rows = [row_of(number) for number in range(6)]
    house.come(*rows)
    house.settle()
    assert not stowage.admits(FILE)
    fullness = house.until_full()
    assert fullness.room_bytes == BUDGET - 4 * FILE
    assert (fullness.memory_bytes, fullness.spilled_bytes) == (4 * FILE, 2 * FILE)
    assert "spill_bytes_max is 200,256; let go of references" in fullness.why
    assert stowage.admits(FILE), "it comes to be refused"
    with pytest.raises(StoreFull, match="spill_bytes_max is 200,256"):
        house.store.make_room(FILE)
    stowage.forget([id_of(rows.pop(0))])
    assert stowage.turn() is None
    until(lambda: stowage.admits(FILE))
    assert [read(row) for row in rows] == [content_of(number) for number in range(1, 6)]
    house.close()


def test_what_is_too_large_for_the_disk_keeps_nothing_smaller_from_going_there(disk: str) -> None:
    house = House(Store(0, BUDGET, Disk(disk, 2 * FILE)))
    large = row_of(0, 3)
    house.come(large)
    segment, _ = house.store.write(b"segment", [content_of(1)])
    house.store.put(segment)
    assert not house.stowage.admits(FILE)
    until(lambda: segment.is_spilled)
    assert house.stowage.turn() is None
    assert house.stowage.admits(FILE)
    assert not is_spilled(large)
    house.close()


def test_nor_is_what_is_put_refused_while_something_smaller_that_has_come_can_go(disk: str) -> None:
    house = House(Store(0, BUDGET, Disk(disk, 2 * FILE)))
    segment, _ = house.store.write(b"segment", [content_of(0) * 3])
    house.store.put(segment)
    row = row_of(1)
    house.come(row)
    house.store.make_room(SIZE)
    assert is_spilled(row)
    assert not segment.is_spilled
    house.close()


def test_why_it_is_full_is_told_though_somebody_has_looked_for_room_since(disk: str) -> None:
    house = House(Store(0, BUDGET, Disk(disk, 2 * FILE)))
    house.come(*[row_of(number) for number in range(6)])
    house.settle()
    fullness = house.until_full()
    assert not house.stowage.spill_older(0), "none was used before that"
    house.stowage.admits(FILE)
    assert house.stowage.turn() == fullness
    house.close()


def test_if_nothing_goes_to_disk_any_more_for_a_mistake_of_ours_nobody_waits_for_that(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError("it cannot be written down")

    monkeypatch.setattr("drumbeat.protocol.stowage.written_to", fail)
    house.come(*[row_of(number) for number in range(5)])
    until(lambda: house.woken > 0)
    with pytest.raises(MemoryError, match="written down"):
        house.stowage.turn()


def test_a_disk_that_is_full_for_a_while_is_tried_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    stowage = house.stowage
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", fail)
        house.come(*[row_of(number) for number in range(5)])
        house.until_full()
        assert not stowage.spilled_bytes
    until(lambda: stowage.turn() is None and stowage.admits(FILE), 10.0)
    house.settle()


def test_another_process_opens_it_on_disk_and_is_handed_it_only_by_whom_it_trusts(
    house: House, disk: str
) -> None:
    rows = [row_of(number) for number in range(8)]
    house.come(*rows)
    house.settle()
    file = file_of(rows[0].payload)
    assert file is not None
    assert file.is_spilled
    found = opened_at(*place_of(file))
    assert found is not None
    assert bytes(parts_of(found)[0]) == content_of(0)
    came = file_of(found)
    assert came is not None
    assert came.is_spilled, "it takes no memory there either"
    assert handed(os.dup(file.fd)) is None
    trusted = handed(os.dup(file.fd), from_disk=True)
    assert trusted is not None
    assert bytes(parts_of(trusted)[0]) == content_of(0)
    # What has a name can be cut off by others too.
    named = os.open(Path(disk) / "named", os.O_RDWR | os.O_CREAT)
    os.sendfile(named, file.fd, 0, file.size)
    assert handed(named, from_disk=True) is None


def test_where_descriptors_are_few_nothing_is_written_down(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = row_of(1)
    file = file_of(row.payload)
    assert file is not None
    before = opened_files()
    monkeypatch.setattr("drumbeat.protocol.payload_files.is_for_others", lambda _: True)
    with pytest.raises(OSError, match="descriptors"):
        written_to(house.store.written(file.fd, file.size), file)
    assert opened_files() == before


def test_without_a_bound_everything_comes(disk: str) -> None:
    house = House(Store(0, 0, Disk(disk, 1 << 30)))
    house.come(*[row_of(number) for number in range(8)])
    assert house.stowage.admits(1 << 40)
    assert house.stowage.turn() is None
    assert house.stowage.spilled_bytes == 0
    house.close()


def test_what_waited_on_a_link_that_is_over_wakes_nobody_any_more(house: House) -> None:
    stowage = house.stowage
    assert stowage.admits(4 * FILE)
    assert not stowage.admits(FILE)
    assert stowage.turn() is None
    assert house.woken == 1, "by now there is room"
    assert stowage.turn() is None
    segment, _ = house.store.write(b"segment", [b"x"])
    house.store.put(segment)
    stowage.free([ObjectId(b"segment")])
    assert house.store.bytes == 0
    assert house.woken == 1


def test_who_is_admitted_does_not_make_forgotten_who_asked_for_more_in_that_turn(
    house: House,
) -> None:
    house.come(*(row_of(number) for number in range(4)))
    assert not house.stowage.admits(3 * FILE)
    assert house.stowage.admits(1)
    until(lambda: house.stowage.spilled_bytes == 3 * FILE)
    house.stowage.turn()
    assert house.stowage.admits(3 * FILE)

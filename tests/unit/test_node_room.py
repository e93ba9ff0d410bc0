"""What a node keeps for its workers stays within a budget, and they put no faster than that."""

from pathlib import Path
from typing import Any

import pytest
from drumbeat.node.page import GRANTED
from drumbeat.node.puts import AHEAD_BYTES_MAX
from drumbeat.node.room import Room
from drumbeat.protocol.ids import ObjectId
from drumbeat.protocol.messages import Outcome, ValueRow
from drumbeat.protocol.payload_files import Filing, file_of, parts_of
from drumbeat.protocol.segments import are_to_be_had
from drumbeat.protocol.settings import Settings
from drumbeat.protocol.spill import IN_MEMORY, kind_of
from support.waiting import until

pytestmark = pytest.mark.skipif(
    not are_to_be_had(), reason="this system has no memory files that can be sealed"
)

SIZE = AHEAD_BYTES_MAX // 2
#: room for three, and not for a fourth
BUDGET = 3 * SIZE + SIZE // 2


class Node:
    """A room, and what it has let workers put."""

    def __init__(self, disk: Path, **settings: Any) -> None:
        self.granted: dict[int, int] = {}
        given = {"store_bytes_max": BUDGET, "spill_directory": str(disk)} | settings
        self.room = Room(Settings(**given), "lab", self._write, lambda: None)
        self.rows: list[ValueRow] = []
        self.put_bytes = 0

    def _write(self, worker: int, word: int, value: int) -> None:
        assert word == GRANTED
        self.granted[worker] = value

    def put(self, count: int) -> None:
        """Let worker 1 put so many more."""
        for _ in range(count):
            number = len(self.rows)
            payload = Filing(1)(b"%08d" % number * (SIZE // 8), [])
            row = ValueRow(b"object %07d" % number, Outcome.VALUE, payload)
            self.rows.append(row)
            self.room.stow([(ObjectId(row.id), row)])
            self.put_bytes += len(payload or b"")
        self.room.brought(1, self.put_bytes)

    def free(self, *numbers: int) -> None:
        self.room.stow([(ObjectId(self.rows[number].id), None) for number in numbers])

    def lets_go_on(self) -> bool:
        """Come to the end of a turn; return whether the worker may put more."""
        self.room.turn()
        return self.granted.get(1) == self.put_bytes

    def on_disk(self) -> list[int]:
        files = [file_of(row.payload) for row in self.rows]
        return [at for at, file in enumerate(files) if file is not None and file.is_spilled]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    if kind_of(str(tmp_path)) in IN_MEMORY:
        pytest.skip("temporary files lie in memory here")
    return tmp_path


def test_where_there_is_room_a_worker_goes_on_at_once(disk: Path) -> None:
    node = Node(disk)
    node.put(1)
    assert node.lets_go_on()
    assert node.room.fullness is None


def test_a_worker_goes_on_when_what_was_not_used_for_longest_lies_on_disk(disk: Path) -> None:
    node = Node(disk)
    node.put(5)
    assert not node.granted
    until(node.lets_go_on, 30.0)
    # There is room for as much as it may put before it asks again.
    assert node.on_disk() == [0, 1, 2, 3]
    for number, row in enumerate(node.rows):
        assert bytes(parts_of(row.payload or b"")[0][:8]) == b"%08d" % number


def test_what_goes_makes_room_without_a_disk(disk: Path) -> None:
    node = Node(disk)
    node.put(2)
    node.free(0, 1)
    assert node.lets_go_on()
    assert not node.on_disk()


def test_where_neither_has_room_it_is_told_and_the_worker_goes_on_to_be_refused(
    disk: Path,
) -> None:
    node = Node(disk, spill_bytes_max=SIZE + SIZE // 2)
    node.put(5)
    until(node.lets_go_on, 30.0)
    full = node.room.fullness
    assert full is not None
    assert full.room_bytes == 0
    assert "node 'lab'" in full.why
    assert "spill_bytes_max" in full.why
    # While the disk is tried again nothing more may come, since too much is here already.
    for _ in range(3):
        node.room.turn()
        assert node.room.fullness is not None
    node.free(0, 1, 2)
    until(lambda: node.room.turn() and node.room.fullness is None, 30.0)


def test_one_that_is_freed_and_made_again_in_one_turn_counts(disk: Path) -> None:
    node = Node(disk)
    node.put(1)
    (row,) = node.rows
    id_ = ObjectId(row.id)
    node.room.stow([(id_, None), (id_, row)])
    node.put(4)
    assert not node.lets_go_on()
    node.room.stow([(id_, None)])
    until(node.lets_go_on, 30.0)

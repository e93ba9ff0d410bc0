"""A store keeps within its budget: what was not used for longest goes to disk, unchanged."""

import errno
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drumbeat.protocol import segments, spill
from drumbeat.protocol.errors import StoreFull
from drumbeat.protocol.parcels import Hint
from drumbeat.protocol.segments import HEAD_BYTES, Segment, find, map_or_copy
from drumbeat.protocol.settings import Settings
from drumbeat.protocol.spill import Disk, kind_of
from drumbeat.protocol.store import Store

pytestmark = pytest.mark.skipif(
    not segments.are_to_be_had(), reason="this system has no memory files that can be sealed"
)

SIZE = 100_000
#: room for four
BUDGET = 450_000


def is_memory(path: Path) -> bool:
    return kind_of(str(path)) in spill.IN_MEMORY


def opened_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def id_of(number: int) -> bytes:
    return b"segment %06d" % number


def content_of(number: int) -> bytes:
    return b"%010d" % number * (SIZE // 10)


def keep(store: Store, number: int) -> Segment:
    store.make_room(SIZE)
    segment, _ = store.write(id_of(number), [content_of(number)])
    store.put(segment)
    return segment


def read(segment: Segment) -> bytes:
    return bytes(segment.view()[HEAD_BYTES:])


def found_by(hint: Hint, number: int) -> bytes | None:
    """Return what a hint leads to."""
    fd = find(hint, id_of(number))
    if fd is None:
        return None
    try:
        return bytes(map_or_copy(fd, hint.size, private=True)[HEAD_BYTES:])
    finally:
        os.close(fd)


@pytest.fixture(params=[0, 1 << 20], ids=["used once", "used again"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if is_memory(tmp_path):
        pytest.skip("temporary files lie in memory here")
    made = Store(request.param, BUDGET, Disk(str(tmp_path), 1 << 30))
    yield made
    made.close()


def test_what_was_not_used_for_longest_goes_to_disk_and_all_reads_the_same(store: Store) -> None:
    made = [keep(store, number) for number in range(4)]
    assert not any(segment.is_spilled for segment in made)
    assert store.get(id_of(0)) is made[0]
    made.append(keep(store, 4))
    assert [segment.is_spilled for segment in made] == [False, True, False, False, False]
    made += [keep(store, number) for number in range(5, 20)]
    assert store.bytes + (0 if store._warm is None else store._warm.bytes) <= BUDGET
    assert store.bytes + store.spilled_bytes == sum(segment.size for segment in made)
    assert [read(segment) for segment in made] == [content_of(number) for number in range(20)]
    for number in range(20):
        data = store.read_out(id_of(number))
        assert data is not None
        assert data[HEAD_BYTES:] == content_of(number)


def test_who_was_told_where_a_segment_is_finds_it_on_disk_too(store: Store) -> None:
    hints = [keep(store, number).hint("here") for number in range(8)]
    first = store.get(id_of(0))
    assert first is not None
    assert first.is_spilled
    assert [found_by(hint, number) for number, hint in enumerate(hints)] == [
        content_of(number) for number in range(8)
    ]
    assert found_by(first.hint("here"), 0) == content_of(0)
    assert found_by(hints[0], 1) is None
    # Nor is it found when it is gone, or another lies there.
    store.pop(id_of(0))
    assert found_by(hints[0], 0) is None
    store.make_room(BUDGET - SIZE)
    keep(store, 9)
    assert found_by(hints[0], 0) is None


def test_another_process_finds_it_on_disk(store: Store) -> None:
    first, *_ = [keep(store, number) for number in range(8)]
    hint = first.hint("here")
    assert first.is_spilled
    code = f"""
import os
from drumbeat.protocol.parcels import Hint
from drumbeat.protocol.segments import find, map_of
fd = find({hint!r}, {id_of(0)!r})
print(map_of(fd, {hint.size}, private=True)[64:] == {content_of(0)!r})
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "True\n"


def test_what_is_freed_leaves_neither_memory_nor_disk_nor_descriptors(
    store: Store, tmp_path: Path
) -> None:
    before = opened_files()
    for number in range(12):
        keep(store, number)
    assert not list(tmp_path.iterdir()), "a file on disk has no name"
    for number in range(6):
        store.pop(id_of(number))
    assert store.spilled_bytes + store.bytes == 6 * (SIZE + HEAD_BYTES)
    store.close()
    gc.collect()
    assert (len(store), store.bytes, store.spilled_bytes) == (0, 0, 0)
    assert opened_files() == before


def test_what_somebody_reads_goes_last_and_readers_keep_their_bytes(tmp_path: Path) -> None:
    warm = pytest.importorskip("drumbeat.protocol.warm")
    if not warm.can_be() or is_memory(tmp_path):
        pytest.skip("the kernel does not say who reads, or temporary files lie in memory")
    store = Store(1 << 20, BUDGET, Disk(str(tmp_path), 1 << 30))
    made = [keep(store, number) for number in range(4)]
    read_by = made[0].map(private=False)
    made.append(keep(store, 4))
    assert [segment.is_spilled for segment in made] == [False, True, False, False, False]
    views = [segment.view() for segment in made]
    made += [keep(store, number) for number in range(5, 20)]
    assert made[0].is_spilled
    assert read_by[HEAD_BYTES : HEAD_BYTES + SIZE] == content_of(0)
    assert [view[HEAD_BYTES:] for view in views] == [content_of(number) for number in range(5)]
    del views, read_by
    assert [read(segment) for segment in made] == [content_of(number) for number in range(20)]
    store.close()


@pytest.mark.parametrize("warm_bytes_max", [0, 1 << 20])
def test_when_memory_and_disk_are_full_it_says_so_and_nothing_is_lost(
    warm_bytes_max: int, tmp_path: Path
) -> None:
    if is_memory(tmp_path):
        pytest.skip("temporary files lie in memory here")
    store = Store(warm_bytes_max, BUDGET, Disk(str(tmp_path), 2 * SIZE + 1000))
    made = [keep(store, number) for number in range(6)]
    with pytest.raises(StoreFull, match=r"spill_bytes_max is 201,000.*references") as raised:
        keep(store, 6)
    error = raised.value
    assert (error.needed_bytes, error.memory_bytes) == (SIZE, store.bytes)  # type: ignore[attr-defined]
    assert [read(segment) for segment in made] == [content_of(number) for number in range(6)]
    store.pop(id_of(5))
    assert read(keep(store, 7)) == content_of(7)
    with pytest.raises(StoreFull, match="it alone is more"):
        store.make_room(BUDGET + 1)
    store.close()


def test_what_is_too_large_for_the_disk_stays_and_what_is_not_makes_room(tmp_path: Path) -> None:
    if is_memory(tmp_path):
        pytest.skip("temporary files lie in memory here")
    store = Store(0, BUDGET, Disk(str(tmp_path), 2 * SIZE))
    large, _ = store.write(b"large", [bytes(3 * SIZE)])
    store.put(large)
    made = [keep(store, number) for number in range(2)]
    assert (large.is_spilled, made[0].is_spilled) == (False, True)
    with pytest.raises(StoreFull, match="spill_bytes_max is 200,000"):
        keep(store, 2)
    assert [read(segment) for segment in made] == [content_of(number) for number in range(2)]
    store.close()


def test_memory_that_is_used_again_for_less_counts_as_a_whole(tmp_path: Path) -> None:
    warm = pytest.importorskip("drumbeat.protocol.warm")
    if not warm.can_be() or is_memory(tmp_path):
        pytest.skip("the kernel does not say who reads, or temporary files lie in memory")
    store = Store(1 << 20, BUDGET, Disk(str(tmp_path), 1 << 30))
    for number in range(4):
        keep(store, number)
    for number in range(4):
        store.pop(id_of(number))
        store.make_room(SIZE // 2 + 8_000)
        segment, _ = store.write(id_of(number), [content_of(number)[: SIZE // 2 + 8_000]])
        store.put(segment)
    kept = list(store._segments.values())
    assert all(segment.memory and segment.memory.written >= SIZE for segment in kept)
    assert store.bytes == sum(segment.memory_bytes for segment in kept) > 4 * SIZE
    keep(store, 4)
    assert [segment.is_spilled for segment in kept].count(True) == 1
    store.close()


def test_what_is_being_written_takes_room_that_nobody_else_gets(store: Store) -> None:
    for number in range(3):
        keep(store, number)
    with store.room_for(SIZE):
        assert not store.has_room(SIZE)
        keep(store, 3)
        assert store.get(id_of(0)).is_spilled  # type: ignore[union-attr]
    assert store.has_room(SIZE)
    with pytest.raises(KeyboardInterrupt), store.room_for(SIZE):
        raise KeyboardInterrupt
    assert store.has_room(SIZE)


def test_who_finds_that_all_room_is_being_written_to_waits_for_that(store: Store) -> None:
    written, waits = threading.Event(), threading.Event()

    def write() -> None:
        with store.room_for(4 * SIZE):
            waits.set()
            written.wait()
            segment, _ = store.write(id_of(0), [content_of(0) * 4])
            store.put(segment)

    writer = threading.Thread(target=write)
    writer.start()
    waits.wait()
    threading.Timer(0.05, written.set).start()
    with store.room_for(SIZE):
        second = store.write(id_of(1), [content_of(1)])[0]
        store.put(second)
    writer.join()
    first = store.get(id_of(0))
    assert first is not None
    assert (first.is_spilled, second.is_spilled) == (True, False)
    assert read(first) == content_of(0) * 4


def test_who_writes_keeps_nobody_from_making_room_meanwhile(store: Store) -> None:
    for number in range(4):
        keep(store, number)
    begun, written = threading.Event(), threading.Event()

    def write() -> None:
        with store.room_for(SIZE):
            begun.set()
            written.wait()

    writer = threading.Thread(target=write)
    writer.start()
    begun.wait()
    other = threading.Thread(target=store.make_room, args=(SIZE,))
    other.start()
    other.join(20)
    assert not other.is_alive(), "the writer may wait for what it has"
    written.set()
    writer.join()
    other.join()


def test_many_threads_that_put_stay_within_the_budget(store: Store) -> None:
    most: list[int] = []

    def put(first: int) -> None:
        for number in range(first, first + 5):
            with store.room_for(SIZE + HEAD_BYTES):
                segment, _ = store.write(id_of(number), [content_of(number)])
                store.put(segment)
            most.append(store.bytes)

    threads = [threading.Thread(target=put, args=(first,)) for first in range(0, 40, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) <= BUDGET
    for number in range(40):
        segment = store.get(id_of(number))
        assert segment is not None
        assert read(segment) == content_of(number)


def test_a_directory_that_is_not_there_or_lies_in_memory_is_told(tmp_path: Path) -> None:
    for directory, reason in ((str(tmp_path / "none"), "No such file"), ("/dev/shm", "in memory")):
        if directory == "/dev/shm" and not is_memory(Path(directory)):
            continue
        store = Store(0, BUDGET, Disk(directory, 1 << 30))
        made = [keep(store, number) for number in range(4)]
        with pytest.raises(StoreFull, match=reason):
            keep(store, 4)
        assert [read(segment) for segment in made] == [content_of(number) for number in range(4)]
        store.close()
    nowhere = Store(0, BUDGET)
    for number in range(4):
        keep(nowhere, number)
    with pytest.raises(StoreFull, match="spill_bytes_max is 0"):
        keep(nowhere, 4)
    nowhere.close()


def test_a_disk_that_is_full_leaves_no_descriptor_and_what_was_in_memory_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    made = [keep(store, number) for number in range(4)]
    before = opened_files()
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StoreFull, match="No space left"):
        keep(store, 4)
    assert opened_files() == before
    assert [read(segment) for segment in made] == [content_of(number) for number in range(4)]


def test_what_goes_while_it_is_written_down_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gc.collect()
    before = opened_files()
    for number in range(4):
        keep(store, number)
    copy = Disk.copy

    def copy_and_free(disk: Disk, source: int, size: int) -> int:
        fd = copy(disk, source, size)
        store.pop(id_of(0))
        return fd

    monkeypatch.setattr(Disk, "copy", copy_and_free)
    keep(store, 4)
    assert (len(store), store.spilled_bytes) == (4, 0)
    store.close()
    gc.collect()
    assert opened_files() == before


def test_ctrl_c_while_something_is_written_down_leaves_it_where_it_was(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> int:
        raise KeyboardInterrupt

    made = [keep(store, number) for number in range(4)]
    before = opened_files()
    monkeypatch.setattr(os, "sendfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        keep(store, 4)
    assert opened_files() == before
    assert [read(segment) for segment in made] == [content_of(number) for number in range(4)]
    monkeypatch.undo()
    assert read(keep(store, 4)) == content_of(4)


def test_ctrl_c_when_a_file_has_just_taken_the_place_of_memory_mixes_up_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    dup2 = os.dup2

    def interrupted(*given: Any, **options: Any) -> int:
        dup2(*given, **options)
        raise KeyboardInterrupt

    made = [keep(store, number) for number in range(4)]
    monkeypatch.setattr(os, "dup2", interrupted)
    with pytest.raises(KeyboardInterrupt):
        keep(store, 4)
    monkeypatch.undo()
    assert (made[0].is_spilled, made[0].memory) == (True, None)
    made += [keep(store, number) for number in range(4, 9)]
    store.pop(id_of(0))
    made[0] = keep(store, 0)
    assert [read(segment) for segment in made] == [content_of(number) for number in range(9)]


def test_a_file_on_disk_that_has_a_name_is_no_segment(tmp_path: Path) -> None:
    path = tmp_path / "like-a-segment"
    path.write_bytes(segments.head_of(id_of(0), HEAD_BYTES))
    fd = os.open(path, os.O_RDONLY)
    hint = Hint("here", os.getpid(), fd, os.fstat(fd).st_ino, HEAD_BYTES)
    assert find(hint, id_of(0)) is None
    path.unlink()
    found = find(hint, id_of(0))
    assert found is not None or is_memory(tmp_path)
    for one in (fd, *([] if found is None else [found])):
        os.close(one)


def test_the_budget_is_a_share_of_memory_where_none_is_set() -> None:
    from drumbeat.protocol.machine import Memory

    total_bytes = Memory().total_bytes
    assert Store.of(Settings())._memory_bytes_max == int(0.3 * total_bytes) > 0
    assert Store.of(Settings(store_bytes_max=77))._memory_bytes_max == 77
    assert Store.of(Settings(spill_bytes_max=0))._disk is None
    assert Store.of(Settings(), is_trimmed=False)._warm is None


def test_the_kind_of_a_file_system_is_that_of_its_device(tmp_path: Path) -> None:
    device = os.stat(tmp_path).st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 99:98 / /elsewhere rw - tmpfs tmpfs rw\n"
        f"23 1 {os.major(device)}:{os.minor(device)} / / rw,relatime shared:1 - ext4 /dev/x rw\n"
    )
    assert kind_of(str(tmp_path), mounts) == "ext4"
    assert kind_of(str(tmp_path / "none"), mounts) == ""
    assert kind_of(str(tmp_path), tmp_path / "none") == ""

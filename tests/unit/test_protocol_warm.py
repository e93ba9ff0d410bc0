"""Memory that segments leave behind is used again, and never while anybody may still read it."""

import gc
import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from drumbeat.protocol import segments
from drumbeat.protocol.segments import HEAD_BYTES, Segment, find, map_of
from drumbeat.protocol.store import Store

warm = pytest.importorskip("drumbeat.protocol.warm", reason="no leases, and no limits to look up")

pytestmark = pytest.mark.skipif(
    not segments.are_to_be_had() or not warm.can_be(),
    reason="this system does not say who reads a file in memory",
)

ID, OTHER = b"s" * 14, b"o" * 14
SIZE = 100_000
CONTENT, AFTER = b"c" * SIZE, b"a" * SIZE
BYTES_MAX = 1 << 20


def opened_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def content_of(segment: Segment, size: int = SIZE) -> bytes:
    return bytes(segment.view()[HEAD_BYTES : HEAD_BYTES + size])


@pytest.fixture
def pool() -> Iterator[Any]:
    made = warm.Warm(BYTES_MAX)
    yield made
    made.close()


def left_by(pool: Any, content: bytes = CONTENT) -> Segment:
    """Return a closed segment whose memory lies in the pool."""
    segment, _ = pool.write(ID, [content])
    inode = segment.inode
    pool.take_back(segment)
    assert segment.fd == -1
    assert pool._blanks[inode].inode == inode
    return segment


def test_memory_that_nobody_reads_any_more_is_used_again(pool: Any) -> None:
    before = left_by(pool)
    after, spans = pool.write(OTHER, [AFTER[:-8], b"12345678"])
    assert (after.inode, len(pool)) == (before.inode, 0)
    view = after.view()
    assert [bytes(view[offset : offset + size]) for offset, size in spans] == [
        AFTER[:-8], b"12345678"
    ]  # fmt: skip
    fd = find(after.hint("here"), OTHER)
    assert fd is not None
    os.close(fd)
    after.close()


def test_what_is_larger_or_much_smaller_has_memory_of_its_own(pool: Any) -> None:
    inode = left_by(pool).inode
    for content in (2 * CONTENT, CONTENT[: SIZE // 3]):
        other, _ = pool.write(OTHER, [content])
        assert other.inode != inode
        assert content_of(other, len(content)) == content
        other.close()
    # But a little smaller, and a little larger than the first was, it may be.
    for content in (CONTENT[: SIZE * 2 // 3], CONTENT + b"some"):
        other, _ = pool.write(OTHER, [content])
        assert other.inode == inode
        assert content_of(other, len(content)) == content
        pool.take_back(other)


@pytest.mark.parametrize("private", [False, True])
def test_memory_that_somebody_has_mapped_is_not_used_again(pool: Any, private: bool) -> None:
    segment, _ = pool.write(ID, [CONTENT])
    read = segment.map(private=private)
    pool.take_back(segment)
    assert not len(pool)
    other, _ = pool.write(OTHER, [AFTER])
    assert other.inode != segment.inode
    assert read[HEAD_BYTES : HEAD_BYTES + SIZE] == CONTENT
    other.close()


def test_memory_that_another_process_has_found_is_not_used_again_while_it_reads(pool: Any) -> None:
    code = """
import os, sys
from drumbeat.protocol.parcels import Hint
from drumbeat.protocol.segments import find, map_of
hint = Hint("here", *map(int, sys.argv[1:]))
fd = find(hint, b"s" * 14)
read = map_of(fd, hint.size, private=True)
os.close(fd)
print("mapped", flush=True)
sys.stdin.readline()
print(read[64:] == b"c" * 100_000, flush=True)
"""
    segment, _ = pool.write(ID, [CONTENT])
    hint = segment.hint("here")
    words = [sys.executable, "-c", code, *map(str, (hint.pid, hint.fd, hint.inode, hint.size))]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "mapped\n"
        pool.take_back(segment)
        assert not len(pool)
        after, _ = pool.write(OTHER, [AFTER])
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "True\n"
        after.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_memory_that_a_forked_child_reads_is_not_used_again(pool: Any) -> None:
    segment, _ = pool.write(ID, [CONTENT])
    read = segment.map(private=False)
    go, said = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        os.read(go[0], 1)
        os.write(said[1], read[HEAD_BYTES : HEAD_BYTES + 4])
        os._exit(0)
    read.close()
    pool.take_back(segment)
    assert not len(pool)
    os.write(go[1], b"x")
    assert os.read(said[0], 4) == CONTENT[:4]
    os.waitpid(pid, 0)
    for fd in (*go, *said):
        os.close(fd)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_neither_writes_into_its_parents_memory_nor_keeps_it(pool: Any) -> None:
    left_by(pool)
    kept, _ = pool.write(OTHER, [CONTENT])
    pid = os.fork()
    if not pid:
        pool.take_back(kept)
        made, _ = pool.write(ID, [AFTER])
        good = kept.fd == -1 and not len(pool) and content_of(made) == AFTER
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert content_of(kept) == CONTENT
    kept.close()


def test_an_old_hint_is_not_believed_whatever_has_become_of_the_memory(pool: Any) -> None:
    segment, _ = pool.write(ID, [CONTENT])
    hint = segment.hint("here")
    pool.take_back(segment)
    assert find(hint, ID) is None
    after, _ = pool.write(OTHER, [AFTER])
    assert (after.fd, after.inode) == (hint.fd, hint.inode)
    assert find(hint, ID) is None
    after.close()


def test_nobody_but_its_maker_can_write_to_a_segment_nor_change_its_size(pool: Any) -> None:
    segment, _ = pool.write(ID, [CONTENT])
    other = os.open(f"/proc/self/fd/{segment.fd}", os.O_RDWR)
    for fd in (segment.fd, other):
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", HEAD_BYTES)
        for size in (HEAD_BYTES, 10 * SIZE):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
        with pytest.raises(PermissionError):
            mmap.mmap(fd, HEAD_BYTES)
    shared = map_of(other, segment.size, private=False)
    with pytest.raises(TypeError):
        shared[HEAD_BYTES] = 1
    os.close(other)
    segment.close()


def test_who_opens_a_file_while_it_is_asked_about_disturbs_nobody(pool: Any) -> None:
    """The kernel would send its maker a signal, which ends a program."""
    import fcntl

    told: list[int] = []
    before = signal.signal(signal.SIGIO, lambda number, _: told.append(number))
    try:
        segment, _ = pool.write(ID, [CONTENT])
        fcntl.fcntl(segment.fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        assert find(segment.hint("here"), ID) is None
        fcntl.fcntl(segment.fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        fd = find(segment.hint("here"), ID)
        assert fd is not None
        os.close(fd)
        segment.close()
    finally:
        signal.signal(signal.SIGIO, before)
    assert not told


def test_ctrl_c_amid_writing_leaves_neither_a_segment_nor_a_descriptor(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = opened_files()
    left_by(pool)
    monkeypatch.setattr(warm, "_touch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.write(OTHER, [AFTER])
    monkeypatch.setattr(warm, "_sealed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.write(OTHER, [AFTER])
    gc.collect()
    assert (len(pool), opened_files()) == (0, before)


def test_no_more_is_kept_than_the_bound_and_the_oldest_goes_first(pool: Any) -> None:
    content = bytes(BYTES_MAX // 3)
    made = [pool.write(ID, [content])[0] for _ in range(4)]
    inodes = [segment.inode for segment in made]
    for segment in made:
        pool.take_back(segment)
    assert list(pool._blanks) == inodes[2:]
    assert pool.bytes <= BYTES_MAX
    # What is larger than all that may be kept is made to be used once.
    large, _ = pool.write(ID, [bytes(BYTES_MAX)])
    assert large.memory is None
    large.close()


def test_what_is_not_used_for_a_while_goes_back_to_the_system(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = opened_files()
    left_by(pool)
    pool.trim()
    assert len(pool) == 1
    later_s = warm.clock.now_s() + warm.IDLE_S
    monkeypatch.setattr(warm.clock, "now_s", lambda: later_s)
    pool.trim()
    assert (len(pool), opened_files()) == (0, before)


def test_where_the_kernel_does_not_see_readers_nothing_is_used_again(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert warm.can_be()
    monkeypatch.setattr(warm, "_is_alone", lambda _: True)
    assert not warm.can_be.__wrapped__()
    monkeypatch.setattr(warm, "can_be", lambda: False)
    segment, _ = pool.write(ID, [CONTENT])
    assert content_of(segment) == CONTENT
    pool.take_back(segment)
    assert not len(pool)


def test_a_process_with_few_descriptors_left_makes_segments_that_take_one(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = opened_files()
    monkeypatch.setattr(warm.resource, "getrlimit", lambda _: (2 * before, 2 * before))
    segment, _ = pool.write(ID, [CONTENT])
    assert (segment.memory, opened_files()) == (None, before + 1)
    segment.close()


def test_where_no_thread_can_be_started_a_segment_is_made_to_be_used_once(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Thread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    before = opened_files()
    monkeypatch.setattr(warm.threading, "Thread", Thread)
    segment, _ = pool.write(ID, [CONTENT])
    assert segment.memory is None
    assert content_of(segment) == CONTENT
    segment.close()
    assert opened_files() == before


def test_a_store_that_is_closed_keeps_no_memory_and_one_without_a_pool_never_does() -> None:
    before = opened_files()
    for store in (Store(BYTES_MAX), Store()):
        for id_ in (ID, OTHER):
            segment, _ = store.write(id_, [CONTENT])
            store.put(segment)
        store.pop(ID)
        store.trim()
        assert store.get(OTHER) is segment
        assert content_of(segment) == CONTENT
        store.close()
        store.trim()
        assert (len(store), opened_files()) == (0, before)
        del store

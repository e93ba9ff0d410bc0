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


@pytest.mark.parametrize("others", [False, True], ids=["one thread", "two threads"])
def test_who_opens_a_file_while_it_is_asked_about_disturbs_nobody(
    pool: Any, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    """The kernel would send its maker a signal, which ends a program."""
    import fcntl

    told: list[int] = []
    refused: list[bool] = []
    ask = fcntl.fcntl

    def ask_and_open(fd: int, command: int, value: Any = 0) -> Any:
        answer = ask(fd, command, value)
        if (command, value) == (fcntl.F_SETLEASE, fcntl.F_WRLCK):
            try:
                os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK))
            except BlockingIOError:
                refused.append(True)
        return answer

    segment, _ = pool.write(ID, [CONTENT])
    if not others:
        monkeypatch.setattr(warm.threading, "enumerate", lambda: [threading.main_thread()])
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    before = signal.signal(signal.SIGIO, lambda number, _: told.append(number))
    try:
        monkeypatch.setattr(fcntl, "fcntl", ask_and_open)
        assert [pool.is_free(segment) for _ in range(3)] == [True] * 3
        assert len(refused) == 3
        pool.take_back(segment)
        segment, _ = pool.write(OTHER, [AFTER])
        assert pool.is_free(segment)
        assert not told
    finally:
        signal.signal(signal.SIGIO, before)
        end.set()
        other.join()
        segment.close()


def test_who_asks_while_another_does_is_told_that_somebody_may_read(pool: Any) -> None:
    segment, _ = pool.write(ID, [CONTENT])
    with pool._asking:
        assert not pool.is_free(segment)
    assert pool.is_free(segment)
    segment.close()


def test_ctrl_c_amid_the_question_leaves_a_file_that_can_be_opened(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    ask = fcntl.fcntl

    def interrupted(fd: int, command: int, value: Any = 0) -> Any:
        answer = ask(fd, command, value)
        if (command, value) == (fcntl.F_SETLEASE, fcntl.F_WRLCK):
            raise KeyboardInterrupt
        return answer

    segment, _ = pool.write(ID, [CONTENT])
    monkeypatch.setattr(fcntl, "fcntl", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.is_free(segment)
    monkeypatch.undo()
    fd = find(segment.hint("here"), ID)
    assert fd is not None
    os.close(fd)
    assert pool.is_free(segment)
    segment.close()


def test_what_is_on_its_way_to_others_keeps_its_head(pool: Any) -> None:
    segment, _ = pool.write(ID, [CONTENT])
    head = segments.head_of(ID, segment.size)
    sent = segment.view()
    pool.take_back(segment)
    assert not len(pool)
    assert sent[:HEAD_BYTES] == head


FORKS = """
import os, mmap
def ours():
    kept.extend(mmap.mmap(-1, 1 << 22) for _ in range(8))
    for one in kept:
        one[:] = bytes(1 << 22)
kept = []
os.register_at_fork(after_in_child=ours)
from drumbeat.protocol.store import Store
store = Store(1 << 26)
os.register_at_fork(after_in_child=store.close)
for number in range(8):
    segment, _ = store.write(b"segment %06d" % number, [bytes(1 << 22)])
    store.put(segment)
store.pop(b"segment 000000")
pid = os.fork()
if not pid:
    os._exit(any(one.find(b"x") >= 0 for one in kept))
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_forked_childs_own_memory_outlives_the_segments_that_it_lets_go_of() -> None:
    """What another library maps in the child first must not lie where they were."""
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_a_reader_waits_while_a_thread_that_asks_cannot_end_its_question(pool: Any) -> None:
    import fcntl

    segment, _ = pool.write(ID, [CONTENT])
    warm._tell_nobody(segment.fd)
    fcntl.fcntl(segment.fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    tried = threading.Event()

    def end() -> None:
        tried.wait()
        fcntl.fcntl(segment.fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    tries: list[float] = []

    def again(some_s: float) -> None:
        tries.append(some_s)
        if len(tries) == 20:
            tried.set()
            asking.join()

    asking = threading.Thread(target=end)
    asking.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments.time, "sleep", again)
        fd = find(segment.hint("here"), ID)
    tried.set()
    asking.join()
    assert fd is not None
    os.close(fd)
    segment.close()


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


def test_where_no_thread_can_be_named_nothing_is_used_again(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Thread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    before = opened_files()
    segment, _ = pool.write(ID, [CONTENT])
    monkeypatch.setattr(warm.threading, "enumerate", lambda: [threading.main_thread()])
    monkeypatch.setattr(warm.threading, "Thread", Thread)
    assert content_of(segment) == CONTENT
    pool.take_back(segment)
    assert (len(pool), opened_files()) == (0, before)


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

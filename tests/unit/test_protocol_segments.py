"""Segments keep their bytes as they were, and are believed only if all that is said of one fits."""

import contextlib
import gc
import mmap
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from drumbeat.protocol import segments
from drumbeat.protocol.parcels import Hint
from drumbeat.protocol.segments import HEAD_BYTES, Segment, find, map_of, map_or_copy, write
from drumbeat.protocol.store import Store
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.skipif(
    not segments.are_to_be_had(), reason="this system has no memory files that can be sealed"
)

ID, OTHER = b"s" * 14, b"o" * 14
CONTENT = bytes(range(256)) * 40


def opened_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def hint_with(hint: Hint, **changes: int) -> Hint:
    fields = {name: getattr(hint, name) for name in hint.__struct_fields__}
    return Hint(**{**fields, **changes})


@contextlib.contextmanager
def files_limited_to(count: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def segment() -> Iterator[Segment]:
    made, _ = write(ID, [CONTENT])
    yield made
    made.close()


def test_a_system_without_memory_files_or_locks_has_no_segments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)  # to import it raises ImportError
    monkeypatch.delattr(os, "memfd_create")
    assert not segments.are_to_be_had()


# ------------------------------------------------------------------------------------- making one


@given(buffers=st.lists(st.binary(max_size=300), max_size=6))
def test_every_buffer_lies_aligned_where_it_is_said_to_lie(buffers: list[bytes]) -> None:
    segment, spans = write(ID, buffers)
    view = segment.view()
    assert len(view) == segment.size == os.fstat(segment.fd).st_size
    assert [bytes(view[offset : offset + size]) for offset, size in spans] == buffers
    assert all(offset >= HEAD_BYTES and offset % 64 == 0 for offset, _ in spans)
    ends = [HEAD_BYTES, *(offset + size for offset, size in spans)]
    assert all(end <= offset for end, (offset, _) in zip(ends, spans, strict=False))
    assert ends[-1] == segment.size
    segment.close()


def test_buffers_of_any_type_and_shape_are_written_as_their_bytes() -> None:
    words = memoryview(bytearray(range(48))).cast("H").cast("B").cast("H", (4, 6))
    empty = memoryview(bytearray(48)).cast("B", (6, 8))[:0]
    segment, spans = write(ID, [words, empty, b"end"])
    view = segment.view()
    assert [bytes(view[offset : offset + size]) for offset, size in spans] == [
        bytes(range(48)), b"", b"end",
    ]  # fmt: skip
    segment.close()


def test_nobody_can_change_a_segment_nor_its_size(segment: Segment) -> None:
    for change in (
        lambda: os.pwrite(segment.fd, b"x", HEAD_BYTES),
        lambda: os.ftruncate(segment.fd, segment.size - 1),
        lambda: os.ftruncate(segment.fd, segment.size + 1),
    ):
        with pytest.raises(PermissionError):
            change()
    with pytest.raises(OSError, match="Operation not permitted"):
        mmap.mmap(segment.fd, segment.size)
    assert bytes(segment.view()[HEAD_BYTES:]) == CONTENT


def test_the_view_is_read_only_and_stays_when_the_segment_is_closed() -> None:
    segment, _ = write(ID, [CONTENT])
    view = segment.view()
    segment.close()
    segment.close()
    assert view.readonly
    assert view[HEAD_BYTES:] == CONTENT
    with pytest.raises(OSError, match="closed"):
        segment.view()


def test_a_segment_that_nobody_keeps_leaves_no_descriptor() -> None:
    before = opened_files()
    segment, _ = write(ID, [CONTENT])
    assert opened_files() == before + 1
    del segment
    gc.collect()
    assert opened_files() == before


def test_an_id_that_does_not_fit_the_head_is_refused() -> None:
    for id_ in (b"", b"i" * 17):
        with pytest.raises(ValueError, match="id"):
            write(id_, [CONTENT])


def test_the_last_quarter_of_the_descriptors_is_left_to_others(segment: Segment) -> None:
    taken: list[Segment] = []
    hint = segment.hint("here")
    before = opened_files()
    limit = 4 * (before + 20)
    with files_limited_to(limit):
        with pytest.raises(OSError, match="descriptors"):
            taken.extend(write(ID, [b"x"])[0] for _ in range(limit))
        assert max(one.fd for one in taken) < limit - limit // 4
        assert find(hint, ID) is None
        while taken:
            taken.pop().close()
        assert opened_files() == before
        fd = find(hint, ID)
        assert fd is not None
        os.close(fd)


def test_a_map_takes_none_of_the_last_quarter_either_but_is_a_copy_then(segment: Segment) -> None:
    maps: list[mmap.mmap] = []
    before = opened_files()
    limit = 4 * (before + 20)
    with files_limited_to(limit):
        while len(maps) < limit:
            maps.append(segment.map(private=True))
        assert before + 10 < opened_files() < limit - limit // 8
    assert all(made[HEAD_BYTES:] == CONTENT for made in maps)
    maps[-1][HEAD_BYTES] = 77
    assert segment.view()[HEAD_BYTES] == CONTENT[0]


def test_without_room_there_is_an_os_error_and_no_descriptor_more() -> None:
    # In a process of its own: a limit of the length of files counts for all that it writes.
    code = """
import os, resource, signal
from drumbeat.protocol.segments import write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
before = os.listdir("/proc/self/fd")
try:
    write(b"s" * 14, [bytes(2 << 20)])
except OSError as error:
    print(os.strerror(error.errno), os.listdir("/proc/self/fd") == before)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "File too large True\n"


# --------------------------------------------------------------------------------------- mapping


def test_what_is_written_to_a_private_map_is_seen_by_nobody_else(segment: Segment) -> None:
    mine = map_of(segment.fd, segment.size, private=True)
    mine[HEAD_BYTES] = 77
    again = map_of(segment.fd, segment.size, private=True)
    assert again[HEAD_BYTES] == segment.view()[HEAD_BYTES] == CONTENT[0]
    assert mine[HEAD_BYTES] == 77


def test_a_shared_map_cannot_be_written_to(segment: Segment) -> None:
    shared = map_of(segment.fd, segment.size, private=False)
    with pytest.raises(TypeError):
        shared[HEAD_BYTES] = 77
    assert memoryview(shared).readonly


def test_without_a_descriptor_for_the_map_there_is_a_copy(segment: Segment) -> None:
    spare = os.dup(segment.fd)
    os.close(spare)
    with files_limited_to(spare):
        with pytest.raises(OSError, match="Too many open files"):
            map_of(segment.fd, segment.size, private=False)
        copy = map_or_copy(segment.fd, segment.size, private=True)
        view = segment.view()
    assert copy[HEAD_BYTES:] == view[HEAD_BYTES:] == CONTENT
    copy[HEAD_BYTES] = 77
    assert segment.view()[HEAD_BYTES] == CONTENT[0]


def test_a_map_of_more_than_the_file_has_is_refused(segment: Segment) -> None:
    with pytest.raises(ValueError, match="greater than file size"):
        map_or_copy(segment.fd, segment.size + 4096, private=False)


# --------------------------------------------------------------------------------------- finding


def test_a_segment_is_found_by_its_hint_in_another_process(segment: Segment) -> None:
    code = f"""
import os
from drumbeat.protocol.parcels import Hint
from drumbeat.protocol.segments import find, map_of
hint = {segment.hint("here")!r}
fd = find(hint, {ID!r})
shared, private = (map_of(fd, hint.size, private=private) for private in (False, True))
os.close(fd)
private[64] = 7
print(shared[64:] == bytes(range(256)) * 40, private[64])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "True 7\n"
    assert segment.view()[HEAD_BYTES:] == CONTENT


@pytest.mark.parametrize("field", ["pid", "fd", "inode", "size"])
def test_a_hint_of_which_one_thing_does_not_fit_is_not_believed(
    segment: Segment, field: str
) -> None:
    hint = segment.hint("here")
    before = opened_files()
    # The next process id may be that of a thread of this process, which has the same descriptors.
    near = [] if field == "pid" else [getattr(hint, field) + 1]
    for changed in (0, 1, *near, 1 << 62, (1 << 62) - 1):
        assert find(hint_with(hint, **{field: changed}), ID) is None
    assert opened_files() == before


def test_a_segment_of_another_id_is_not_believed(segment: Segment) -> None:
    assert find(segment.hint("here"), OTHER) is None
    assert find(segment.hint("here"), ID + b"\0") is None
    assert find(segment.hint("here"), b"x" * 17) is None


def test_a_closed_segment_is_not_found_nor_what_has_its_number_now(segment: Segment) -> None:
    hint = segment.hint("here")
    segment.close()
    assert find(hint, ID) is None
    other, _ = write(ID, [CONTENT])
    assert other.fd == hint.fd
    assert find(hint, ID) is None
    other.close()


def test_a_process_that_has_ended_is_no_place_to_find_anything() -> None:
    code = f"""
from drumbeat.protocol.segments import write
hint = write({ID!r}, [b"x"])[0].hint("")
print(hint.pid, hint.fd, hint.inode, hint.size)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert find(Hint("here", *map(int, done.stdout.split())), ID) is None


def test_a_file_that_could_shrink_is_not_believed_though_all_else_fits(tmp_path: Path) -> None:
    content = segments.head_of(ID, HEAD_BYTES)
    path = tmp_path / "like-a-segment"
    path.write_bytes(content)
    memory = os.memfd_create("unsealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.pwrite(memory, content, 0)
    for fd in (os.open(path, os.O_RDONLY), memory):
        assert find(Hint("here", os.getpid(), fd, os.fstat(fd).st_ino, HEAD_BYTES), ID) is None
        os.close(fd)


def test_a_pipe_where_a_segment_was_is_not_even_opened() -> None:
    reading, writing = os.pipe()
    for fd in (reading, writing):
        assert find(Hint("here", os.getpid(), fd, os.fstat(fd).st_ino, 0), ID) is None
        assert find(Hint("here", os.getpid(), fd, os.fstat(fd).st_ino, HEAD_BYTES), ID) is None
        os.close(fd)


# --------------------------------------------------------------------------------------- keeping


def test_a_store_gives_what_it_was_given_and_closes_what_is_popped() -> None:
    before = opened_files()
    store = Store()
    one, two = write(ID, [CONTENT])[0], write(OTHER, [b"two"])[0]
    store.put(one)
    store.put(two)
    assert (len(store), store.bytes) == (2, one.size + two.size)
    assert store.get(ID) is one
    store.pop(ID)
    store.pop(ID)
    assert store.get(ID) is None
    assert one.fd == -1
    assert (len(store), store.bytes) == (1, two.size)
    store.close()
    assert (len(store), store.bytes, two.fd) == (0, 0, -1)
    assert opened_files() == before

"""The files of detached actors: whole, or not there."""

import errno
import os
from pathlib import Path

import pytest
from drumbeat.protocol.codec import encode
from drumbeat.protocol.ids import show
from drumbeat.scheduler import deed_files
from drumbeat.scheduler.deed_files import DeedFiles
from drumbeat.scheduler.deeds import DEED_VERSION, Course, Will
from support.deeds import deed


@pytest.fixture
def files(tmp_path: Path) -> DeedFiles:
    return DeedFiles(tmp_path / "state.actors")


def test_what_was_kept_is_there_in_the_next_life(files: DeedFiles) -> None:
    first, second = deed("a"), deed("b")
    assert files.keep(first) == files.keep(second) == ""
    assert files.keep_courses({second.id: Course(3, 1, (5.0, 7.5))}) == ""
    wills = files.load()
    assert sorted(wills, key=lambda will: will.deed.id) == [
        Will(first, Course()),
        Will(second, Course(3, 1, (5.0, 7.5))),
    ]


def test_nothing_is_there_before_anything_was_kept(files: DeedFiles, tmp_path: Path) -> None:
    assert files.load() == []
    assert list(tmp_path.iterdir()) == []


def test_what_has_ended_is_gone_with_its_course(files: DeedFiles, tmp_path: Path) -> None:
    one = deed()
    files.keep(one)
    files.keep_courses({one.id: Course(2)})
    assert files.drop([one.id]) == ""
    assert files.drop([one.id]) == ""
    assert list((tmp_path / "state.actors").iterdir()) == []


def test_a_file_that_cannot_be_removed_keeps_no_other_there_and_is_tried_again(
    files: DeedFiles, tmp_path: Path
) -> None:
    several = [deed(name) for name in "abcd"]
    for one in several:
        files.keep(one)
        files.keep_courses({one.id: Course(2)})
    directory = tmp_path / "state.actors"
    # A directory cannot be unlinked, whoever tries.
    for one, ending in ((several[0], "actor"), (several[2], "course")):
        (directory / f"{one.id.hex()}.{ending}").unlink()
        (directory / f"{one.id.hex()}.{ending}").mkdir()
    told = files.drop([one.id for one in several])
    assert f"{several[0].id.hex()}.actor" in told
    assert "of 2 that have ended files are left" in told
    assert files.left == 2
    # Where the deed is left its course is, too: without it nobody knew which lives there have been.
    left = {f"{several[0].id.hex()}.actor", f"{several[0].id.hex()}.course"}
    left.add(f"{several[2].id.hex()}.course")
    assert {path.name for path in directory.iterdir()} == left
    files.drop_again()
    assert files.left == 2
    for path in list(directory.iterdir()):
        if path.is_dir():
            path.rmdir()
    files.drop_again()
    assert files.left == 0
    assert list(directory.iterdir()) == []


def test_when_the_directory_cannot_be_written_down_all_is_tried_again(
    files: DeedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = deed()
    files.keep(one)
    files.keep_courses({one.id: Course(2)})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _fails)
        assert "No space left" in files.drop([one.id])
    assert files.left == 1
    # A crash might bring the deed back, and it would begin without its course.
    names = [path.name for path in (tmp_path / "state.actors").iterdir()]
    assert names == [f"{one.id.hex()}.course"]
    files.drop_again()
    assert files.left == 0
    assert list((tmp_path / "state.actors").iterdir()) == []


def test_those_that_cannot_be_removed_keep_no_other_from_being_tried_again(
    files: DeedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deed_files, "AGAIN_MAX", 1)
    stays, goes = deed("a"), deed("b")
    directory = tmp_path / "state.actors"
    directory.mkdir()
    for one in (stays, goes):
        (directory / f"{one.id.hex()}.actor").mkdir()
    files.drop([stays.id, goes.id])
    (directory / f"{goes.id.hex()}.actor").rmdir()
    files.drop_again()
    files.drop_again()
    assert files.left == 1


def _fails(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_nobody_else_may_read_them(files: DeedFiles, tmp_path: Path) -> None:
    files.keep(deed())
    directory = tmp_path / "state.actors"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in directory.iterdir()] == [0o600]


def test_a_course_that_is_written_again_is_the_last(files: DeedFiles) -> None:
    one = deed()
    files.keep(one)
    for attempt in (2, 3):
        files.keep_courses({one.id: Course(attempt)})
    assert [will.course.attempt for will in files.load()] == [3]


def test_what_cannot_be_written_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    files = DeedFiles(tmp_path / "file")
    assert "File exists" in files.keep(deed()) or "Not a directory" in files.keep(deed())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x93\x01\x02\x03", b"\xff" * 100])
def test_a_file_that_cannot_be_read_is_laid_aside_and_keeps_nobody_back(
    files: DeedFiles, tmp_path: Path, data: bytes
) -> None:
    good, bad = deed("a"), deed("b")
    files.keep(good)
    files.keep(bad)
    path = tmp_path / "state.actors" / f"{bad.id.hex()}.actor"
    path.write_bytes(data)
    assert [will.deed for will in files.load()] == [good]
    assert len(files.complaints) == 1
    assert str(path) in files.complaints[0]
    assert not path.exists()
    assert path.with_name(path.name + ".broken").read_bytes() == data


def test_a_course_that_cannot_be_read_is_kept_aside_with_what_it_is_about(
    files: DeedFiles, tmp_path: Path
) -> None:
    good, bad = deed("a"), deed("b")
    for one in (good, bad):
        files.keep(one)
    files.keep_courses({bad.id: Course(7)})
    directory = tmp_path / "state.actors"
    course = directory / f"{bad.id.hex()}.course"
    course.write_bytes(b"\xc0")
    assert [will.deed for will in files.load()] == [good]
    (complaint,) = files.complaints
    assert show(bad.id) in complaint
    assert course.name in complaint
    assert "is lost, its callers get ActorDied" in complaint
    aside = [f"{bad.id.hex()}.{suffix}.broken" for suffix in ("actor", "course")]
    assert sorted(path.name for path in directory.iterdir()) == sorted(
        [f"{good.id.hex()}.actor", *aside]
    )
    # Put back by somebody who has mended them, they are read again.
    for name in aside:
        (directory / name).rename(directory / name.removesuffix(".broken"))
    course.write_bytes(encode(Course(7)))
    assert sorted(will.course.attempt for will in DeedFiles(directory).load()) == [1, 7]


def test_a_directory_that_cannot_be_read_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    files = DeedFiles(tmp_path / "file")
    assert files.load() == []
    assert "no detached actor is created anew" in files.complaints[0]


def test_many_are_written_together_and_the_directory_once(
    files: DeedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).suffix)
        real(descriptor)

    several = [deed(letter) for letter in "abc"]
    monkeypatch.setattr(os, "fsync", note)
    assert files.keep_packed([(one.id, encode(one)) for one in several]) == [""] * 3
    assert synced == [".new"] * 3 + [".actors"]
    synced.clear()
    assert files.keep_courses({one.id: Course(2) for one in several}) == ""
    assert synced == [".new"] * 3 + [".actors"]
    synced.clear()
    assert files.drop([one.id for one in several]) == ""
    assert synced == [".actors"]
    assert files.load() == []


def test_of_several_only_the_one_that_cannot_be_written_fails(
    files: DeedFiles, tmp_path: Path
) -> None:
    good, bad = deed("a"), deed("b")
    files.keep(good)
    (tmp_path / "state.actors" / f"{bad.id.hex()}.actor").mkdir()
    whys = files.keep_packed([(one.id, encode(one)) for one in (bad, good)])
    assert [bool(why) for why in whys] == [True, False]
    assert not list((tmp_path / "state.actors").glob("*.new"))


def test_the_course_of_nobody_is_removed(files: DeedFiles, tmp_path: Path) -> None:
    one = deed()
    files.keep_courses({one.id: Course(2)})
    assert files.load() == []
    assert list((tmp_path / "state.actors").iterdir()) == []


def test_files_of_another_version_or_name_are_laid_aside(files: DeedFiles, tmp_path: Path) -> None:
    files.keep(deed("a", version=DEED_VERSION + 1))
    files.keep(deed("b"))
    directory = tmp_path / "state.actors"
    (directory / f"{deed('b').id.hex()}.actor").rename(directory / "other.actor")
    assert files.load() == []
    assert len(files.complaints) == 2


def test_what_a_crash_left_half_written_is_removed(files: DeedFiles, tmp_path: Path) -> None:
    one = deed()
    files.keep(one)
    half = tmp_path / "state.actors" / f"{one.id.hex()}.course.new"
    half.write_bytes(b"\x93")
    assert [will.deed for will in files.load()] == [one]
    assert not half.exists()


@pytest.mark.parametrize("suffix", [".actor", ".course"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.EACCES])
def test_what_cannot_be_read_now_is_left_for_the_next_life(
    files: DeedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, number: int
) -> None:
    good, bad = deed("a"), deed("b")
    for one in (good, bad):
        files.keep(one)
    files.keep_courses({bad.id: Course(7)})
    path = tmp_path / "state.actors" / f"{bad.id.hex()}{suffix}"
    names = sorted(os.listdir(path.parent))
    real = Path.read_bytes

    def refuse(self: Path) -> bytes:
        if self == path:
            raise OSError(number, os.strerror(number), str(path))
        return real(self)

    with monkeypatch.context() as disk:
        disk.setattr(Path, "read_bytes", refuse)
        assert [will.deed for will in files.load()] == [good]
    (complaint,) = files.complaints
    assert show(bad.id) in complaint
    assert os.strerror(number) in complaint
    assert str(path) in complaint
    assert "start the scheduler again" in complaint
    assert sorted(os.listdir(path.parent)) == names
    wills = DeedFiles(path.parent).load()
    assert sorted((will.deed.id, will.course.attempt) for will in wills) == [
        (good.id, Course().attempt),
        (bad.id, 7),
    ]


def test_a_close_that_fails_leaves_nothing_and_is_said_of_that_file_alone(
    files: DeedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = deed("a"), deed("b")
    files.keep(good)
    real = os.close

    def refuse(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        real(descriptor)
        if Path(name).name == f"{bad.id.hex()}.actor.new":
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as disk:
        disk.setattr(os, "close", refuse)
        whys = files.keep_packed([(one.id, encode(one)) for one in (bad, good)])
    assert "quota" in whys[0]
    assert whys[1] == ""
    assert [will.deed for will in files.load()] == [good]


class Descriptors:
    """Counts the files that are being written at once, and has no more than so many."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.most = 0
        self.refused = 0
        self._room = room
        self._open: list[int] = []
        self._real_open, self._real_close = os.open, os.close
        monkeypatch.setattr(os, "open", self.open)
        monkeypatch.setattr(os, "close", self.close)

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        if not str(path).endswith(".new"):
            return self._real_open(path, flags, mode)
        if len(self._open) >= self._room:
            self.refused += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        descriptor = self._real_open(path, flags, mode)
        self._open.append(descriptor)
        self.most = max(self.most, len(self._open))
        return descriptor

    def close(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.remove(descriptor)
        self._real_close(descriptor)


def test_of_many_only_a_few_are_open_at_once(
    files: DeedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = [deed(letter) for letter in "abcdefghijklmnopqrstuvwxyz"]
    with monkeypatch.context() as disk:
        descriptors = Descriptors(disk, 1000)
        whys = files.keep_packed([(one.id, encode(one)) for one in several])
    assert whys == [""] * len(several)
    assert descriptors.most == deed_files.TOGETHER_MAX < len(several)


def test_where_descriptors_are_scarce_they_are_written_one_at_a_time(
    files: DeedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = [deed(letter) for letter in "abcdefgh"]
    with monkeypatch.context() as disk:
        descriptors = Descriptors(disk, 3)
        whys = files.keep_packed([(one.id, encode(one)) for one in several])
    assert whys == [""] * len(several)
    assert (descriptors.most, descriptors.refused) == (3, 1)
    assert len(files.load()) == len(several)


def test_where_there_is_no_descriptor_at_all_that_is_said(
    files: DeedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = [deed(letter) for letter in "abc"]
    with monkeypatch.context() as disk:
        Descriptors(disk, 0)
        whys = files.keep_packed([(one.id, encode(one)) for one in several])
    assert ["Too many open files" in why for why in whys] == [True] * 3
    assert files.load() == []


def test_what_goes_wrong_in_the_midst_of_it_leaves_no_descriptor_open(
    files: DeedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = [deed(letter) for letter in "abc"]

    def fail(_: int) -> None:
        raise MemoryError

    files.keep(several[0])
    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", fail)
        with pytest.raises(MemoryError):
            files.keep_packed([(one.id, encode(one)) for one in several])
    assert len(os.listdir("/proc/self/fd")) == len(before)

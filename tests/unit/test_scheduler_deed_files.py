"""The files of detached actors: whole, or not there."""

import os
import select
import threading
from pathlib import Path

import pytest
from drumbeat.protocol.actors import ActorOptions
from drumbeat.protocol.codec import encode
from drumbeat.protocol.ids import IdFactory, PeerId, show
from drumbeat.protocol.messages import Environment, Options, Outcome, ValueRow
from drumbeat.scheduler.deed_files import DeedFiles
from drumbeat.scheduler.deed_writer import DeedWriter
from drumbeat.scheduler.deeds import DEED_VERSION, Course, Deed, Will


def deed(letter: str = "a", **changed: object) -> Deed:
    id_ = IdFactory(PeerId(letter.encode() * 6))()
    value = ValueRow(id_, Outcome.VALUE, b"value")
    fields = {
        "version": DEED_VERSION, "id": id_, "name": "Counter",
        "options": Options(num_cpus=0.0, creates=ActorOptions(detached=True, told=b"told")),
        "function": b"f" * 16, "code": b"code", "args": b"args", "deps": (id_,),
        "contained": (), "values": (value,), "environment": Environment("host", "/home"),
    }  # fmt: skip
    return Deed(**{**fields, **changed})  # type: ignore[arg-type]


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


def taken(writer: DeedWriter, count: int) -> list[tuple[bytes, str]]:
    """Return what a writer has kept, once that are so many."""
    found: list[tuple[bytes, str]] = []
    while len(found) < count:
        assert select.select([writer.wake_fd], [], [], 10)[0]
        found += writer.take()[0]
    return found


def test_a_slow_disk_holds_up_nobody_but_those_who_wait_for_it(
    files: DeedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda _: go_on.wait(10))
    writer = DeedWriter(files)
    several = [deed(letter) for letter in "abc"]
    for one in several:
        writer.keep(one)  # returns at once
    assert writer.take() == ([], [])
    go_on.set()
    assert taken(writer, 3) == [(one.id, "") for one in several]
    assert sorted(will.deed.id for will in files.load()) == [one.id for one in several]


def test_who_ends_while_he_is_written_down_is_removed_afterwards(files: DeedFiles) -> None:
    writer, one, other = DeedWriter(files), deed("a"), deed("b")
    assert not writer.drop(one.id)  # of it nothing is being written
    writer.keep(one)
    assert writer.drop(one.id)
    writer.keep(other)
    assert taken(writer, 2) == [(one.id, ""), (other.id, "")]
    assert [will.deed for will in files.load()] == [other]


def test_what_cannot_be_written_beside_the_loop_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    writer = DeedWriter(DeedFiles(tmp_path / "file"))
    writer.keep(deed())
    ((id_, why),) = taken(writer, 1)
    assert id_ == deed().id
    assert "File exists" in why or "Not a directory" in why


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

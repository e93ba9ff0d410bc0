"""The files of detached actors: whole, or not there."""

from pathlib import Path

import pytest
from drumbeat.protocol.actors import ActorOptions
from drumbeat.protocol.ids import IdFactory, PeerId
from drumbeat.protocol.messages import Environment, Options, Outcome, ValueRow
from drumbeat.scheduler.deed_files import DeedFiles
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
    assert files.keep_course(second.id, Course(3, 1, (5.0, 7.5))) == ""
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
    files.keep_course(one.id, Course(2))
    assert files.drop(one.id) == ""
    assert files.drop(one.id) == ""
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
        files.keep_course(one.id, Course(attempt))
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

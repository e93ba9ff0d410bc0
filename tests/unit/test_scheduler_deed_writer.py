"""The thread that writes detached actors down: it says what became of each, whatever happens."""

import os
import select
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from drumbeat.scheduler import deed_writer
from drumbeat.scheduler.deed_files import DeedFiles
from drumbeat.scheduler.deed_writer import DeedWriter
from support.deeds import deed


class SlowFiles(DeedFiles):
    """A disk that says when it begins, and waits for leave."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.began = threading.Event()
        self.may_end = threading.Event()

    def keep_packed(self, deeds: Sequence[tuple[bytes, bytes]]) -> list[str]:
        self.began.set()
        assert self.may_end.wait(10)
        return super().keep_packed(deeds)


@pytest.fixture
def files(tmp_path: Path) -> DeedFiles:
    return DeedFiles(tmp_path / "state.actors")


@pytest.fixture
def slow(tmp_path: Path) -> SlowFiles:
    return SlowFiles(tmp_path / "state.actors")


def taken(writer: DeedWriter, count: int) -> list[tuple[bytes, str]]:
    """Return what a writer has kept, once that are so many."""
    found: list[tuple[bytes, str]] = []
    while len(found) < count:
        assert select.select([writer.wake_fd], [], [], 10)[0], "nobody hears what became of it"
        found += writer.take()[0]
    return found


def ends_when_it_is_waited_for(writer: DeedWriter, slow: SlowFiles) -> None:
    """Have the disk get on once the loop's thread waits for it, not before."""
    here, real = threading.current_thread(), writer._changed.wait_for

    def wait_for(*args: object) -> object:
        if threading.current_thread() is here:
            slow.may_end.set()
        return real(*args)  # type: ignore[arg-type]

    writer._changed.wait_for = wait_for  # type: ignore[method-assign, assignment]


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


def test_who_ends_before_his_turn_is_never_written_and_nothing_is_said_of_him(
    slow: SlowFiles,
) -> None:
    writer, first, gone, other = DeedWriter(slow), deed("a"), deed("b"), deed("c")
    writer.keep(first)
    assert slow.began.wait(10)
    writer.keep(gone)
    writer.keep(other)
    # The disk stands still all the while: nobody waits for it.
    assert writer.withdraw([gone.id]) == ([], "")
    slow.may_end.set()
    assert taken(writer, 2) == [(first.id, ""), (other.id, "")]
    assert sorted(will.deed.id for will in slow.load()) == [first.id, other.id]


def test_the_file_of_who_ends_while_he_is_written_is_gone_before_that_is_told(
    slow: SlowFiles,
) -> None:
    writer, gone, other = DeedWriter(slow), deed("a"), deed("b")
    writer.keep(gone)
    assert slow.began.wait(10)
    ends_when_it_is_waited_for(writer, slow)
    assert writer.withdraw([gone.id]) == ([gone.id], "")
    assert slow.drop([gone.id]) == ""
    assert slow.load() == []  # whatever happens to the scheduler from now on
    writer.keep(other)
    assert taken(writer, 1) == [(other.id, "")]


def test_who_has_long_been_written_is_left_to_the_loop_to_remove(files: DeedFiles) -> None:
    writer, one = DeedWriter(files), deed()
    assert writer.withdraw([one.id]) == ([one.id], "")
    writer.keep(one)
    assert taken(writer, 1) == [(one.id, "")]
    assert writer.withdraw([one.id]) == ([one.id], "")


def test_a_disk_that_takes_too_long_is_told_of_and_the_file_removed_when_it_is_done(
    slow: SlowFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deed_writer, "WITHDRAW_S", 0.0)
    writer, gone, other = DeedWriter(slow), deed("a"), deed("b")
    writer.keep(gone)
    assert slow.began.wait(10)
    written, why = writer.withdraw([gone.id])
    assert written == []
    assert "1 that have ended meanwhile are removed when it is done" in why
    slow.may_end.set()
    writer.keep(other)
    assert taken(writer, 1) == [(other.id, "")]
    assert [will.deed for will in slow.load()] == [other]


def test_who_is_created_again_does_not_hear_what_became_of_the_one_before(slow: SlowFiles) -> None:
    writer, one = DeedWriter(slow), deed()
    writer.keep(one)
    assert slow.began.wait(10)
    ends_when_it_is_waited_for(writer, slow)
    assert writer.withdraw([one.id]) == ([one.id], "")
    slow.drop([one.id])
    slow.may_end.clear()
    writer.keep(one)
    assert writer.take() == ([], [])
    slow.may_end.set()
    assert taken(writer, 1) == [(one.id, "")]
    assert [will.deed for will in slow.load()] == [one]


def test_what_cannot_be_written_beside_the_loop_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    writer = DeedWriter(DeedFiles(tmp_path / "file"))
    writer.keep(deed())
    ((id_, why),) = taken(writer, 1)
    assert id_ == deed().id
    assert "File exists" in why or "Not a directory" in why


@pytest.mark.parametrize("error", [MemoryError(), OSError("no quota"), RuntimeError("a bug")])
def test_whatever_goes_wrong_is_said_of_all_it_went_wrong_with_and_the_thread_goes_on(
    slow: SlowFiles, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    writer = DeedWriter(slow)
    several = [deed(letter) for letter in "abc"]

    def fail(_: object) -> list[str]:
        raise error

    with monkeypatch.context() as disk:
        disk.setattr(slow, "keep_packed", fail)
        for one in several:
            writer.keep(one)
        refused = taken(writer, 3)
    assert [id_ for id_, _ in refused] == [one.id for one in several]
    assert all(type(error).__name__ in why and str(error) in why for _, why in refused)
    slow.may_end.set()
    writer.keep(several[0])
    assert taken(writer, 1) == [(several[0].id, "")]


def test_where_there_is_no_thread_to_be_had_that_is_said_and_tried_again(
    files: DeedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, one, other = DeedWriter(files), deed("a"), deed("b")

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as machine:
        machine.setattr(threading.Thread, "start", refuse)
        writer.keep(one)
        assert taken(writer, 1) == [(one.id, "can't start new thread")]
    writer.keep(other)
    assert taken(writer, 1) == [(other.id, "")]
    assert [will.deed for will in files.load()] == [other]


def test_what_is_queued_at_the_end_is_carried_out_first(
    slow: SlowFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deed_writer, "WITHDRAW_S", 0.0)
    writer, gone, other = DeedWriter(slow), deed("a"), deed("b")
    writer.keep(gone)
    assert slow.began.wait(10)
    writer.keep(other)
    writer.withdraw([gone.id])
    slow.may_end.set()
    assert writer.close(10) == ""
    assert [will.deed for will in slow.load()] == [other]


def test_a_disk_that_stands_still_does_not_keep_the_scheduler_from_its_end(
    slow: SlowFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deed_writer, "WITHDRAW_S", 0.0)
    writer, gone, other = DeedWriter(slow), deed("a"), deed("b")
    writer.keep(gone)
    assert slow.began.wait(10)
    writer.keep(other)
    writer.withdraw([gone.id])
    why = writer.close(0.0)
    assert "2 may not be written down" in why
    assert "1 that have ended may be created anew" in why
    slow.may_end.set()


def test_who_has_written_nothing_ends_at_once(files: DeedFiles) -> None:
    assert DeedWriter(files).close(10) == ""

"""What is removed of a cluster that nobody owns any more, and what is not."""

import fcntl
from pathlib import Path

from drumbeat.protocol.leftover import LOCK, SocketFile, remove_if_orphaned


def test_a_directory_is_removed_only_when_its_owner_has_gone(tmp_path: Path) -> None:
    directory = tmp_path / "1-ab"
    directory.mkdir()
    (directory / "scheduler.log").touch()
    with open(directory / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not remove_if_orphaned(str(directory))
        assert directory.exists()
    assert remove_if_orphaned(str(directory))
    assert not directory.exists()


def test_a_directory_that_no_local_cluster_has_locked_stays(tmp_path: Path) -> None:
    assert not remove_if_orphaned(str(tmp_path))
    assert not remove_if_orphaned(str(tmp_path / "nowhere"))
    assert tmp_path.exists()


def test_a_socket_is_removed_unless_somebody_else_has_made_it_anew(tmp_path: Path) -> None:
    path = tmp_path / "scheduler.sock"
    path.touch()
    old = SocketFile(str(path))
    path.rename(tmp_path / "other")  # so that the number of its file is not given again
    path.touch()
    old.remove()
    assert path.exists()
    SocketFile(str(path)).remove()
    assert not path.exists()
    SocketFile(str(path)).remove()

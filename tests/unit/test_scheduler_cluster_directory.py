"""A scheduler's directory: keys made once, one scheduler at a time, no other cluster's files."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from drumbeat.protocol import interrupts
from drumbeat.protocol.cluster_file import read_address, write_private
from drumbeat.protocol.errors import ConfigError
from drumbeat.protocol.keys import show_key
from drumbeat.scheduler import __main__ as scheduler_main
from drumbeat.scheduler.__main__ import words_of
from drumbeat.scheduler.cluster_directory import UNFINISHED, ClusterDirectory

HERE = "tcp://lab1:7788"
FILES = ["admin.cluster", "client.cluster", "node.cluster", "scheduler.cluster", "scheduler.lock"]


def public(secret: bytes) -> bytes:
    """As good as the real thing: who knows it cannot tell the secret."""
    return hashlib.blake2b(secret, digest_size=32).digest()


def opened(path: Path, endpoint: str = HERE) -> ClusterDirectory:
    return ClusterDirectory(path, endpoint, public)


def closed(path: Path, endpoint: str = HERE) -> ClusterDirectory:
    """Open it, and let go of it as the end of a process does."""
    directory = opened(path, endpoint)
    os.close(directory._lock_fd)
    return directory


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "cluster"


def test_the_first_start_makes_a_file_for_each_role_that_only_the_owner_reads(path: Path) -> None:
    directory = opened(path)
    assert sorted(entry.name for entry in path.iterdir()) == FILES
    assert {entry.stat().st_mode & 0o777 for entry in path.iterdir()} == {0o600}
    assert path.stat().st_mode & 0o777 == 0o700
    assert directory.endpoint_before == ""
    assert directory.files == {
        role: path / f"{role}.cluster" for role in ("client", "node", "admin")
    }


def test_the_door_admits_the_keys_in_the_files_as_what_they_are_for(path: Path) -> None:
    directory = opened(path)
    for role in ("client", "node", "admin"):
        address = read_address(path / f"{role}.cluster")
        assert (address.endpoint, address.role) == (HERE, role)
        assert address.credentials.server_key == public(directory.door.secret_key)
        assert directory.door.roles[public(address.credentials.secret_key)] == role
    assert len(directory.door.roles) == 3


def test_the_schedulers_own_file_holds_no_secret_of_the_others(path: Path) -> None:
    opened(path)
    own = (path / "scheduler.cluster").read_text()
    for role in ("client", "node", "admin"):
        secret = read_address(path / f"{role}.cluster").credentials.secret_key
        assert show_key(secret) not in own


def test_another_start_keeps_all_keys(path: Path) -> None:
    first = closed(path)
    before = {name: (path / name).read_text() for name in FILES}
    second = opened(path)
    assert second.door == first.door
    assert {name: (path / name).read_text() for name in FILES} == before


def test_a_new_address_is_written_into_the_files_and_the_keys_stay(path: Path) -> None:
    first = closed(path)
    before = read_address(path / "node.cluster")
    second = closed(path, "tcp://lab2:99")
    assert (second.endpoint_before, second.door) == (HERE, first.door)
    assert read_address(path / "node.cluster") == before._replace(endpoint="tcp://lab2:99")
    assert opened(path, "tcp://lab2:99").endpoint_before == ""


def test_a_second_scheduler_in_the_same_directory_is_refused(path: Path) -> None:
    first = opened(path)
    with pytest.raises(ConfigError, match=r"another scheduler runs with the directory .*cluster"):
        opened(path)
    assert first.path == path


def test_a_first_start_that_was_killed_is_begun_anew(path: Path) -> None:
    closed(path)
    (path / "scheduler.cluster").rename(path / UNFINISHED)
    (path / "admin.cluster").unlink()
    directory = opened(path)
    assert sorted(entry.name for entry in path.iterdir()) == FILES
    assert len(directory.files) == 3


def test_without_the_schedulers_own_file_nothing_is_made_over_the_others(path: Path) -> None:
    closed(path)
    (path / "scheduler.cluster").unlink()
    before = (path / "node.cluster").read_text()
    with pytest.raises(ConfigError, match=r"but no scheduler\.cluster beside it"):
        opened(path)
    assert (path / "node.cluster").read_text() == before


def test_a_file_that_was_moved_to_where_it_is_needed_is_not_missed(path: Path) -> None:
    closed(path)
    (path / "node.cluster").unlink()
    assert list(opened(path, "tcp://lab2:99").files) == ["client", "admin"]


def test_a_file_of_another_cluster_is_refused_and_left_alone(path: Path, tmp_path: Path) -> None:
    closed(path)
    closed(tmp_path / "other")
    foreign = (tmp_path / "other" / "node.cluster").read_text()
    write_private(path / "node.cluster", foreign)
    with pytest.raises(ConfigError, match=r"node\.cluster is of another cluster"):
        opened(path, "tcp://lab2:99")
    assert (path / "node.cluster").read_text() == foreign


def test_a_file_under_another_roles_name_is_refused(path: Path) -> None:
    closed(path)
    write_private(path / "node.cluster", (path / "admin.cluster").read_text())
    with pytest.raises(ConfigError, match=r"node\.cluster is of another cluster"):
        opened(path)


@pytest.mark.parametrize("name", ["scheduler.cluster", "node.cluster"])
def test_a_file_that_others_can_read_is_refused(path: Path, name: str) -> None:
    closed(path)
    (path / name).chmod(0o644)
    with pytest.raises(ConfigError, match=rf"chmod 600 .*{name}"):
        opened(path)


def test_a_file_of_its_own_that_is_not_whole_is_refused(path: Path) -> None:
    closed(path)
    own = json.loads((path / "scheduler.cluster").read_text())
    for field, value in (("keys", {}), ("role", "node"), ("secret_key", show_key(bytes(32)))):
        write_private(path / "scheduler.cluster", json.dumps({**own, field: value}))
        with pytest.raises(ConfigError, match=r"scheduler\.cluster"):
            opened(path)


@pytest.mark.parametrize("note", ["", "which may be wrong"])
def test_what_is_doubtful_of_the_address_for_others_is_said_below_it(path: Path, note: str) -> None:
    first, second, *_ = words_of(opened(path, "tcp://10.0.0.1:7788"), "*:7788", note).split("\n")
    assert first.endswith("listening at *:7788; others reach it at 10.0.0.1:7788")
    assert (second == f"  {note}") == bool(note)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_what_only_this_machine_reaches_is_promised_to_no_other(path: Path, host: str) -> None:
    said = words_of(opened(path, f"tcp://{host}:7788"), "*:7788")
    assert f"listening at *:7788; this machine alone reaches it at {host}:7788" in said
    assert "other" not in said
    assert said.endswith(
        f"to have this machine work, type\n  drumbeat node --cluster {path}/node.cluster"
    )


def test_the_command_to_show_a_role_names_the_directory(path: Path) -> None:
    said = words_of(opened(path, "tcp://lab1:7788"), "*:7788")
    assert said.endswith(f"\n  drumbeat scheduler --directory {path} --show node")


def test_ctrl_c_before_the_scheduler_listens_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scheduler_main, "_local", interrupted)
    monkeypatch.setattr("sys.argv", ["scheduler", "--directory", str(tmp_path)])
    assert scheduler_main.main() == interrupts.EXIT_INTERRUPTED
    assert capsys.readouterr() == ("", "")

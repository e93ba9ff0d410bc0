"""An address is the directory of a cluster of this very user, or it is refused."""

import os
import stat
from pathlib import Path

import drumbeat
import pytest
from drumbeat.client import runtime
from drumbeat.client.addresses import place_of
from drumbeat.client.cli_cluster import NoCluster, find
from drumbeat.protocol.errors import ConfigError
from drumbeat.protocol.settings import Settings


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    directory = tmp_path / "cluster"
    directory.mkdir(mode=0o700)
    os.mknod(directory / runtime.SOCKET, stat.S_IFSOCK | 0o600)
    return directory


def test_a_directory_of_ones_own_that_is_closed_to_others_is_an_address(cluster: Path) -> None:
    place = place_of(str(cluster), "argument address")
    assert place == (f"ipc://{cluster}/{runtime.SOCKET}", str(cluster), None)


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o777])
def test_a_directory_that_is_open_to_others_is_refused(cluster: Path, mode: int) -> None:
    cluster.chmod(mode)
    with pytest.raises(ConfigError, match=rf"open to others \(mode {mode:o}, and not 700\)"):
        place_of(str(cluster), "argument address")


def test_a_directory_of_somebody_else_is_refused(
    cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(ConfigError, match=rf"belongs to user {owner}, not to you.*functions"):
        place_of(str(cluster), "DRUMBEAT_ADDRESS")


def test_a_link_to_a_directory_is_refused(cluster: Path) -> None:
    link = cluster.parent / "link"
    link.symlink_to(cluster)
    with pytest.raises(ConfigError, match="symbolic link"):
        place_of(str(link), "argument address")


def test_a_directory_without_a_socket_is_no_cluster(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither the directory of a running local cluster"):
        place_of(str(tmp_path), "argument address")


def test_the_command_line_says_why_a_cluster_is_refused(cluster: Path) -> None:
    cluster.chmod(0o755)
    settings = Settings(runtime_directory=str(cluster.parent))
    with pytest.raises(NoCluster, match="open to others"):
        find(str(cluster), settings)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("num_cpu", "num_cpus"), ("node", "nodes"), ("window", "window_s"), ("zzzzzz", "")],
)
def test_a_mistyped_argument_is_told_with_the_nearest_name(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"no setting '{name}'") as caught:
        drumbeat.init(**{name: 3})  # type: ignore[arg-type]  # that is the point
    assert ("did you mean" in str(caught.value)) == bool(hint)
    assert f"did you mean {hint}?" in str(caught.value) or not hint
    assert not drumbeat.is_initialized()

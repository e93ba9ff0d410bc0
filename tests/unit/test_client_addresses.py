"""What an address may be, what it leads to, and that no error shows a key in it."""

from pathlib import Path

import drumbeat
import pytest
from drumbeat.client import runtime
from drumbeat.client.addresses import FOR_COMMANDS, FOR_PROGRAMS, Place, place_of
from drumbeat.client.cli_cluster import NoCluster, find
from drumbeat.protocol.cluster_file import write_address, write_private
from drumbeat.protocol.errors import ConfigError, KeyRefused
from drumbeat.protocol.keys import Address, Credentials, show_address, show_key
from drumbeat.protocol.settings import Settings

SERVER = bytes(range(32, 64))
SECRETS = {"client": bytes(range(32)), "node": bytes(32), "admin": bytes([7] * 32)}


def address(role: str) -> Address:
    return Address("tcp://lab1:7788", role, Credentials(SERVER, SECRETS[role]))


def place(role: str) -> Place:
    return Place("tcp://lab1:7788", "drumbeat://lab1:7788", address(role).credentials)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for role in SECRETS:
        write_address(tmp_path / f"{role}.cluster", address(role))
    return tmp_path


@pytest.fixture
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """No local cluster runs there."""
    return Settings(runtime_directory=str(tmp_path_factory.mktemp("r")))


@pytest.mark.parametrize("role", ["client", "admin"])
def test_a_string_and_a_file_lead_to_the_same_place(files: Path, role: str) -> None:
    assert place_of(show_address(*address(role)), "argument address") == place(role)
    assert place_of(str(files / f"{role}.cluster"), "argument address") == place(role)


def test_of_a_schedulers_directory_programs_take_the_clients_key_and_commands_the_admins(
    files: Path,
) -> None:
    assert place_of(str(files), "argument address", FOR_PROGRAMS) == place("client")
    assert place_of(str(files), "argument address", FOR_COMMANDS) == place("admin")
    (files / "client.cluster").unlink()
    assert place_of(str(files), "argument address", FOR_PROGRAMS) == place("admin")


@pytest.mark.parametrize("form", ["string", "file"])
def test_a_nodes_key_is_no_programs(files: Path, form: str) -> None:
    text = show_address(*address("node")) if form == "string" else str(files / "node.cluster")
    with pytest.raises(KeyRefused, match=r"holds the key of a node.* take client\.cluster") as told:
        place_of(text, "DRUMBEAT_ADDRESS")
    assert show_key(SECRETS["node"]) not in str(told.value)


def test_what_is_shown_of_a_place_is_no_secret(files: Path) -> None:
    shown = place_of(str(files), "argument address")
    assert show_key(SECRETS["client"]) not in f"{shown!r} {shown.shown}"


@pytest.mark.parametrize("spoil", ["role", "key", "scheme", "port"])
def test_a_string_that_is_spoiled_is_refused_and_not_repeated(spoil: str) -> None:
    text = show_address(*address("client"))
    text = {
        "role": text.replace("client", "queen"),
        "key": text[:-1],
        "scheme": text.replace("drumbeat://", "drumbeat//"),
        "port": text.replace(":7788", ""),
    }[spoil]
    for call in (place_of, lambda text, _: drumbeat.init(text)):
        with pytest.raises(ConfigError) as told:
            call(text, "argument address")
        assert show_key(SECRETS["client"]) not in str(told.value)
        assert "address" in str(told.value)


def test_what_belongs_to_a_start_is_refused_for_a_running_cluster_without_its_address() -> None:
    text = show_address(*address("client"))
    with pytest.raises(ConfigError, match="num_cpus belong to a cluster that is started") as told:
        drumbeat.init(text, num_cpus=2)
    assert show_key(SECRETS["client"]) not in str(told.value)


def test_what_is_not_there_is_no_address(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a cluster file, or a drumbeat:// string"):
        place_of(str(tmp_path / "none"), "argument address")


@pytest.mark.parametrize("trouble", ["link", "mode"])
def test_a_cluster_file_that_cannot_be_trusted_is_refused(files: Path, trouble: str) -> None:
    path = files / "client.cluster"
    if trouble == "link":
        path = files / "link"
        path.symlink_to(files / "client.cluster")
    else:
        path.chmod(0o604)
    with pytest.raises(ConfigError, match="symbolic link" if trouble == "link" else "chmod 600"):
        place_of(str(path), "argument address")


# ---------------------------------------------------------------------- which one a command means


def test_a_command_takes_the_admins_file_of_a_schedulers_directory(
    files: Path, settings: Settings
) -> None:
    assert find(str(files), settings) == str(files / "admin.cluster")
    assert find(str(files / "client.cluster"), settings) == str(files / "client.cluster")


def test_a_command_may_be_given_a_string_by_the_environment(settings: Settings) -> None:
    text = show_address(*address("admin"))
    assert find(text, settings) == text


def test_without_an_address_a_command_means_the_scheduler_of_this_machine(
    files: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "scheduler_directory", lambda: files)
    assert find(None, settings) == str(files / "admin.cluster")


def test_without_any_cluster_a_command_says_how_to_start_one(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "scheduler_directory", lambda: tmp_path / "none")
    with pytest.raises(NoCluster, match=r"drumbeat\.init\(\) starts one.*`drumbeat scheduler`"):
        find(None, settings)
    with pytest.raises(NoCluster, match="no cluster runs at /no/where"):
        find("/no/where", settings)
    with pytest.raises(NoCluster, match=f"no cluster runs at {tmp_path}"):
        find(str(tmp_path), settings)


def test_a_command_says_why_a_file_is_refused(files: Path, settings: Settings) -> None:
    write_private(files / "admin.cluster", "{}")
    with pytest.raises(NoCluster, match="is no cluster file"):
        find(str(files), settings)
    with pytest.raises(NoCluster, match="holds the key of a node"):
        find(str(files / "node.cluster"), settings)


@pytest.mark.parametrize(
    "text",
    ["~nobody-of-that-name/c", "/proc/1/cwd/x/c", "é" * 300, "a\0b", "\ud800", "x/y", "tcp://1:2"],
    ids=ascii,
)
def test_an_address_that_leads_nowhere_is_refused_in_plain_words(
    text: str, settings: Settings
) -> None:
    with pytest.raises(ConfigError, match=r"argument address = .*(cannot be looked at|not there)"):
        place_of(text, "argument address")
    with pytest.raises(NoCluster, match="no cluster runs at"):
        find(text, settings)

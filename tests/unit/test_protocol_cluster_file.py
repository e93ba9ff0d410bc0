"""Cluster files: private, whole, and nobody else's; and no error shows what is in them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from drumbeat.protocol.cluster_file import (
    FILE_BYTES_MAX,
    address_in,
    make_private_directory,
    read_address,
    text_of,
    write_address,
    write_private,
)
from drumbeat.protocol.errors import ConfigError
from drumbeat.protocol.keys import Address, Credentials, show_address, show_key

SECRET = bytes(range(32))
SERVER = bytes(range(32, 64))
ADDRESS = Address("tcp://lab1:7788", "node", Credentials(SERVER, SECRET))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "node.cluster"
    write_address(path, ADDRESS)
    return path


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_address(path)
    assert show_key(SECRET) not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_what_was_written_is_read_and_only_its_owner_can(file: Path) -> None:
    assert read_address(file) == ADDRESS
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["node.cluster"]


def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "open", "x")
        os.umask(0o377)
        write_private(tmp_path / "closed", "x")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_file_is_replaced_in_one_step_and_a_link_in_its_place_is_not_followed(
    file: Path,
) -> None:
    target = file.with_name("target")
    target.write_text("another's")
    file.unlink()
    file.symlink_to(target)
    write_address(file, ADDRESS)
    assert target.read_text() == "another's"
    assert read_address(file) == ADDRESS


def test_the_text_has_the_fields_that_others_may_rely_on(file: Path) -> None:
    assert json.loads(file.read_text()) == {
        "drumbeat": 1,
        "role": "node",
        "address": "lab1:7788",
        "server_key": show_key(SERVER),
        "secret_key": show_key(SECRET),
    }


def test_a_symbolic_link_is_refused(file: Path) -> None:
    link = file.with_name("link.cluster")
    link.symlink_to(file)
    assert "is a symbolic link" in refused(link)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o601])
def test_a_file_that_is_open_to_others_is_refused_with_the_command_that_mends_it(
    file: Path, mode: int
) -> None:
    file.chmod(mode)
    assert f"(mode {mode:o}): `chmod 600 {file}`" in refused(file)


def test_the_command_that_mends_it_can_be_pasted_whatever_the_file_is_called(file: Path) -> None:
    path = file.rename(file.with_name("it's a file.cluster"))
    path.chmod(0o644)
    assert """it'"'"'s a file.cluster'`""" in refused(path)


def test_a_file_of_another_user_is_refused_with_the_command_that_mends_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fstat

    def of_another(fd: int) -> os.stat_result:
        values = list(real(fd))
        values[4] = os.geteuid() + 1
        return os.stat_result(values)

    monkeypatch.setattr(os, "fstat", of_another)
    text = refused(file)
    assert f"belongs to user {os.geteuid() + 1}" in text
    assert f"`sudo chown {os.geteuid()} {file}`" in text


def test_a_file_that_root_has_put_there_is_as_good_as_ones_own(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fstat

    def of_root(fd: int) -> os.stat_result:
        values = list(real(fd))
        values[4] = 0
        return os.stat_result(values)

    monkeypatch.setattr(os, "fstat", of_root)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert read_address(file) == ADDRESS


def test_a_directory_and_a_pipe_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "p", 0o600)
    assert "is no regular file" in refused(tmp_path / "d")
    assert "is no regular file" in refused(tmp_path / "p"), "and nobody waits for a writer"


def test_a_file_that_is_missing_is_said_to_be(tmp_path: Path) -> None:
    assert "cannot be opened: No such file" in refused(tmp_path / "none.cluster")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"drumbeat": 2}, "another version"),
        ({"drumbeat": True}, "another version"),
        ({"role": "queen"}, '"role" that is none of client, node, admin'),
        ({"role": ["node"]}, '"role" that is none of'),
        ({"role": "scheduler"}, "is the scheduler's own; take one of client.cluster"),
        ({"address": 7}, 'has no "address"'),
        ({"address": show_key(SECRET)}, "no host and port"),
        ({"server_key": None}, '"server_key" in the cluster file'),
        ({"secret_key": show_key(SECRET)[:-1]}, '"secret_key" in the cluster file'),
        ({"secret_key": show_key(SECRET) + "A"}, '"secret_key" in the cluster file'),
    ],
)
def test_a_field_that_is_wrong_is_named_and_no_secret_is_shown(
    file: Path, change: dict[str, Any], says: str
) -> None:
    write_private(file, json.dumps({**json.loads(file.read_text()), **change}))
    assert says in refused(file)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7", "[" * 5000, "drumbeat"])
def test_what_is_no_cluster_file_is_said_to_be_none(file: Path, text: str) -> None:
    write_private(file, text)
    assert "is no cluster file: `drumbeat scheduler` writes them" in refused(file)


def test_a_file_far_too_long_and_one_that_is_no_text_are_refused(file: Path) -> None:
    write_private(file, " " * FILE_BYTES_MAX + "{}")
    assert "too long" in refused(file)
    file.write_bytes(b"\xff\xfe")
    assert "is no text" in refused(file)


def test_a_text_may_be_a_file_or_an_address() -> None:
    assert address_in(text_of(ADDRESS), "it") == ADDRESS
    assert address_in(show_address(*ADDRESS) + "\n", "it") == ADDRESS


def test_a_file_that_cannot_be_written_leaves_what_was_there_and_no_rest(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match=r"node\.cluster cannot be written: No space left"):
        write_private(file, "new")
    assert read_address(file) == ADDRESS
    assert [path.name for path in file.parent.iterdir()] == ["node.cluster"]


def test_a_directory_is_made_for_its_owner_only(tmp_path: Path) -> None:
    make_private_directory(tmp_path / "state" / "cluster")
    assert (tmp_path / "state" / "cluster").stat().st_mode & 0o777 == 0o700


def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c").chmod(0o770)
    with pytest.raises(ConfigError, match=r"written to by others \(mode 770\): `chmod 700 "):
        make_private_directory(tmp_path / "c")

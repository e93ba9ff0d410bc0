"""`drumbeat scheduler` and `drumbeat node`: what is typed, what process this becomes with it."""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from drumbeat.client import cli_commands, cli_start
from drumbeat.protocol.cluster_file import address_in, write_address, write_private
from drumbeat.protocol.keys import Address, Credentials, show_address, show_key

SECRET, SERVER = bytes(range(32)), bytes(range(32, 64))


def address(role: str) -> Address:
    return Address("tcp://lab1:7788", role, Credentials(SERVER, SECRET))


class Becoming(SystemExit):
    """This process would become another one now."""

    def __init__(self, module: str, flags: list[str]) -> None:
        super().__init__(0)
        self.module, self.flags = module, flags

    def after(self, flag: str) -> str:
        return self.flags[self.flags.index(flag) + 1]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A scheduler's directory."""
    for role in ("client", "node", "admin"):
        write_address(tmp_path / f"{role}.cluster", address(role))
    return tmp_path


@pytest.fixture(autouse=True)
def instead(monkeypatch: pytest.MonkeyPatch) -> None:
    def become(module: str, flags: list[str], *, keeps: Iterable[int] = ()) -> Any:
        raise Becoming(module, flags)

    monkeypatch.setattr(cli_start, "become", become)
    monkeypatch.delenv("DRUMBEAT_ADDRESS", raising=False)


def became(*words: str | Path) -> Becoming:
    with pytest.raises(Becoming) as caught:
        cli_commands.main([str(word) for word in words])
    return caught.value


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """Return the one line that says what is wrong."""
    with pytest.raises(SystemExit) as caught:
        cli_commands.main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (cli_commands.WRONG_USAGE, "")
    assert err.startswith("drumbeat: ")
    assert err.count("\n") == 1
    assert show_key(SECRET) not in err
    return str(err)


# ------------------------------------------------------------------------------------- scheduler


def test_a_scheduler_listens_everywhere_at_its_port_and_keeps_its_keys_in_the_users_state(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    started = became("scheduler")
    assert started.module == "drumbeat.scheduler"
    where = str(tmp_path / "drumbeat" / "cluster")
    assert started.flags == ["--directory", where, "--listen", "*:7788"]


def test_without_that_variable_the_users_state_is_below_the_home_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert became("scheduler").after("--directory") == f"{tmp_path}/.local/state/drumbeat/cluster"


def test_the_port_of_a_scheduler_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRUMBEAT_SCHEDULER_PORT", "99")
    assert became("scheduler").after("--listen") == "*:99"
    assert became("scheduler", "--listen", "127.0.0.1").after("--listen") == "127.0.0.1:99"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("127.0.0.1:7799", "127.0.0.1:7799"),
        ("lab1", "lab1:7788"),
        ("[::1]", "[::1]:7788"),
        ("[fd00::7]:5", "[fd00::7]:5"),
        ("*:5", "*:5"),
    ],
)
def test_what_is_left_out_of_an_address_is_added(typed: str, meant: str) -> None:
    assert became("scheduler", "--listen", typed).after("--listen") == meant


def test_an_advertised_host_has_the_port_that_is_listened_at() -> None:
    started = became("scheduler", "--listen", "*:5", "--advertise", "lab1.example.org")
    assert started.after("--advertise") == "lab1.example.org:5"


def test_where_others_reach_it_is_a_setting_and_the_flag_wins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRUMBEAT_ADVERTISE", "lab1.example.org")
    assert became("scheduler").after("--advertise") == "lab1.example.org:7788"
    assert became("scheduler", "--listen", "*:5").after("--advertise") == "lab1.example.org:5"
    assert became("scheduler", "--advertise", "lab2:9").after("--advertise") == "lab2:9"
    monkeypatch.setenv("DRUMBEAT_ADVERTISE", "lab 1")
    assert "DRUMBEAT_ADVERTISE" in refused(capsys, "scheduler")


@pytest.mark.parametrize("typed", ["lab1:0", "lab1:port", "lab 1", "::1", "lab1:70000", ":7788"])
def test_an_address_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], typed: str) -> None:
    assert "--listen" in refused(capsys, "scheduler", "--listen", typed)
    assert "--advertise" in refused(capsys, "scheduler", "--advertise", typed)


# ------------------------------------------------------------------------------------------ show


def test_a_role_is_shown_on_a_terminal_as_the_lines_to_paste(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    cli_commands.main(["scheduler", "--directory", str(files), "--show", "node"])
    out, err = capsys.readouterr()
    assert out == f" export DRUMBEAT_ADDRESS={show_address(*address('node'))}\ndrumbeat node\n"
    assert "on each machine" in err


def test_an_address_that_other_machines_have_no_use_for_is_shown_as_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = address("node")._replace(endpoint="tcp://127.0.0.1:7788")
    write_address(tmp_path / "node.cluster", alone)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    cli_commands.main(["scheduler", "--directory", str(tmp_path), "--show", "node"])
    out, err = capsys.readouterr()
    assert show_address(*alone) in out
    assert err.startswith("that is good on this machine alone")
    assert "--advertise HOST" in err


@pytest.mark.parametrize("role", ["client", "node", "admin"])
def test_a_role_is_shown_nowhere_but_on_a_terminal(
    files: Path, capsys: pytest.CaptureFixture[str], role: str
) -> None:
    said = refused(capsys, "scheduler", "--directory", files, "--show", role)
    assert "to a terminal only" in said
    assert f"copy {files / role}.cluster instead" in said


def test_what_was_never_made_is_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "scheduler", "--directory", tmp_path, "--show", "node")
    assert "makes it on its first start" in said


# ------------------------------------------------------------------------------------------ node


def brought(started: Becoming) -> Address:
    """What is in the pipe that the daemon will read."""
    with open(int(started.after("--cluster-fd")), "rb") as pipe:
        return address_in(pipe.read().decode(), "the pipe")


@pytest.mark.parametrize("name", ["node.cluster", "."])
def test_a_node_brings_what_is_in_the_cluster_file_and_shows_it_nowhere(
    files: Path, name: str
) -> None:
    started = became("node", "--cluster", files / name)
    assert started.module == "drumbeat.node"
    assert started.flags[:-1] == ["--cluster-fd"]
    assert brought(started) == address("node")


@pytest.mark.parametrize("form", ["string", "file", "directory"])
def test_a_node_takes_its_address_from_the_environment(
    files: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    text = {
        "string": show_address(*address("node")),
        "file": str(files / "node.cluster"),
        "directory": str(files),
    }[form]
    monkeypatch.setenv("DRUMBEAT_ADDRESS", text)
    assert brought(became("node")) == address("node")


def test_no_address_is_left_in_the_environment_of_what_this_process_becomes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from drumbeat.client.launcher import environment

    monkeypatch.setenv("DRUMBEAT_ADDRESS", show_address(*address("node")))
    assert show_key(SECRET) not in json.dumps(environment())
    assert "DRUMBEAT_ADDRESS" not in environment()


def test_a_node_is_given_what_was_typed(files: Path) -> None:
    line = "node --name n1 --num-cpus 2.5 --num-gpus 0 --resource disk=2 --resource tape=0.5"
    more = "--label zone=a --label url=http://x/?a=b --preload numpy,pandas --cluster"
    started = became(*line.split(), *more.split(), files / "node.cluster")
    os.close(int(started.after("--cluster-fd")))
    assert started.flags[:-2] == [
        *("--name", "n1", "--num-cpus", "2.5", "--num-gpus", "0"),
        *("--resources", '{"disk": 2.0, "tape": 0.5}'),
        *("--label", "zone=a", "--label", "url=http://x/?a=b", "--preload", "numpy,pandas"),
    ]


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("--num-cpus", "-1", "--num-cpus"),
        ("--num-gpus", "inf", "--num-gpus"),
        ("--num-cpus", "many", "--num-cpus"),
        ("--resource", "disk", "is not NAME=AMOUNT"),
        ("--resource", "=2", "is not NAME=AMOUNT"),
        ("--resource", "disk=-1", "is not NAME=AMOUNT"),
        ("--resource", "disk=nan", "is not NAME=AMOUNT"),
        ("--resource", "CPU=2", "--num-cpus"),
        ("--label", "zone", "NAME=VALUE"),
        ("--label", "=a", "--label"),
    ],
)
def test_a_flag_that_does_not_fit_is_refused_before_anything_starts(
    files: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str, says: str
) -> None:
    assert says in refused(capsys, "node", "--cluster", files / "node.cluster", flag, value)


def test_a_node_without_an_address_is_told_where_to_get_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "--cluster" in refused(capsys, "node")


@pytest.mark.parametrize("role", ["client", "admin"])
def test_the_key_of_another_role_is_no_nodes(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    said = refused(capsys, "node", "--cluster", files / f"{role}.cluster")
    assert f"holds the key of a {role}" in said
    assert "take node.cluster" in said
    monkeypatch.setenv("DRUMBEAT_ADDRESS", show_address(*address(role)))
    assert f"DRUMBEAT_ADDRESS holds the key of a {role}" in refused(capsys, "node")


@pytest.mark.parametrize("command", ["status", "nodes", "tasks", "cancel"])
def test_a_secret_that_was_typed_is_refused_and_not_repeated(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    typed = show_address(*address("admin"))
    arguments = ["5f0c2b9a11d4-0-2a"] if command == "cancel" else []
    said = refused(capsys, command, "--address", typed, *arguments)
    assert "is shown to everybody on this machine" in said


def test_a_nodes_secret_that_was_typed_is_refused_and_not_repeated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed = show_address(*address("node"))
    assert "is shown to everybody" in refused(capsys, "node", "--cluster", typed)
    assert "drumbeat://..." in refused(capsys, "node", typed)
    mistyped = typed.replace("drumbeat://", "drumbeat:/")
    assert "is shown to everybody" in refused(capsys, "node", "--cluster", mistyped)


@pytest.mark.parametrize("what", ["link", "mode", "missing", "foreign"])
def test_a_cluster_file_that_cannot_be_trusted_starts_no_node(
    files: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    path = files / "node.cluster"
    if what == "link":
        path = files / "link.cluster"
        path.symlink_to(files / "node.cluster")
    elif what == "mode":
        path.chmod(0o644)
    elif what == "missing":
        path.unlink()
    else:
        write_private(path, "{}")
    said = refused(capsys, "node", "--cluster", path)
    words = {
        "link": "symbolic link",
        "mode": f"`chmod 600 {path}`",
        "missing": "is not there",
        "foreign": "no cluster file",
    }
    assert words[what] in said


@pytest.mark.parametrize("command", ["scheduler", "node"])
def test_each_has_help_with_examples(capsys: pytest.CaptureFixture[str], command: str) -> None:
    cli_commands.main([command, "--help"])
    assert f"Examples:\n    drumbeat {command}" in capsys.readouterr().out

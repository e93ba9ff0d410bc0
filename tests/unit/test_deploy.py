"""The files of deploy/ and docker-compose.yml: that they fit together, and fit the command line."""

import re
import shlex
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from drumbeat.client import cli_commands
from drumbeat.protocol.settings import ENVIRONMENT_PREFIX, Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
#: for what does not stop when it is asked to: Interrupted, TERM, KILL, and the last words
LADDER_S = Settings().cancel_grace_s + Settings().term_grace_s + 5.0

every_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)


@cache
def compose() -> dict[str, Any]:
    found = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def services() -> dict[str, dict[str, Any]]:
    return dict(compose()["services"])


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(s|m|)", text).groups()  # type: ignore[union-attr]
    return float(number) * (60 if unit == "m" else 1)


def parses(arguments: list[str]) -> None:
    """Fail unless the command line takes this; nothing is carried out."""
    command = cli_commands.commands.commands[arguments[0]]
    command.make_context(arguments[0], arguments[1:])


@cache
def stages() -> list[list[tuple[str, str]]]:
    """Return (instruction, arguments) of each stage of the Dockerfile."""
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text(encoding="utf-8"))
    lines = [line.partition(" ") for line in text.splitlines() if line and line[0] != "#"]
    found: list[list[tuple[str, str]]] = []
    for word, _, rest in lines:
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, rest.strip()))
    return found


# --------------------------------------------------------------------------------------- compose


def test_compose_has_a_scheduler_nodes_and_a_program() -> None:
    assert list(services()) == ["scheduler", "node", "demo"]
    for name in ("scheduler", "node"):
        parses(services()[name]["command"])


def test_the_image_is_built_here_and_never_taken_from_a_registry() -> None:
    for service in services().values():
        assert service["build"] == {"context": ".", "dockerfile": "deploy/Dockerfile"}
        assert service["pull_policy"] == "build"


def test_each_container_has_an_init_and_as_few_rights_as_it_needs() -> None:
    for service in services().values():
        assert service["init"] is True
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "user", "network_mode", "pid", "ports"} & set(service)


def test_daemons_start_again_and_a_program_that_has_ended_does_not() -> None:
    restarts = {name: service["restart"] for name, service in services().items()}
    assert restarts == {"scheduler": "unless-stopped", "node": "unless-stopped", "demo": "no"}


def test_health_is_the_file_that_the_daemon_is_told_to_touch() -> None:
    for name in ("scheduler", "node"):
        file = services()[name]["environment"]["DRUMBEAT_HEALTH_FILE"]
        [word, test] = services()[name]["healthcheck"]["test"]
        assert word == "CMD-SHELL"
        assert shlex.split(test)[:2] == ["find", file]
        mounts = [mount.partition(":")[0] for mount in services()[name]["tmpfs"]]
        assert str(Path(file).parent) in mounts


def test_no_secret_is_in_an_environment_and_every_setting_exists() -> None:
    for service in services().values():
        environment = dict(service["environment"])
        assert "://" not in str(environment)
        address = environment.pop("DRUMBEAT_ADDRESS", "/")
        assert address.startswith("/"), "a file, not a key"
        assert all(name.startswith(ENVIRONMENT_PREFIX) for name in environment)
        loaded = Settings.load(environ=environment).changed()
        assert len(loaded) == len(environment)


def mounted(name: str) -> dict[str, str]:
    """Return volume -> "" or ":ro"."""
    volumes = [one.split(":") for one in services()[name]["volumes"]]
    return {volume: ":".join(["", *mode]) for volume, _, *mode in volumes}


def test_who_runs_tasks_sees_the_nodes_key_only_and_can_write_no_key() -> None:
    assert mounted("scheduler") == {"scheduler": "", "node-key": "", "client-key": ""}
    assert mounted("node") == {"node-key": ":ro"}
    assert mounted("demo") == {"client-key": ":ro"}


def test_the_scheduler_copies_the_keys_to_where_the_others_look_for_them() -> None:
    [copies] = [
        {part.split("=")[1]: part.split("=")[2] for part in services()["scheduler"]["command"][1:]
         if part.startswith("--copy=")}
    ]  # fmt: skip
    [cluster] = [part.partition("=")[2] for part in services()["node"]["command"][1:]]
    assert cluster == f"{copies['node']}/node.cluster"
    assert services()["demo"]["environment"]["DRUMBEAT_ADDRESS"] == (
        f"{copies['client']}/client.cluster"
    )
    assert set(copies) == {"node", "client"}, "the admin's key stays with the scheduler"


def test_a_container_is_given_the_time_that_a_drain_and_its_end_may_take() -> None:
    node = services()["node"]
    drain_s = float(node["environment"]["DRUMBEAT_DRAIN_TIMEOUT_S"])
    assert seconds(node["stop_grace_period"]) >= drain_s + LADDER_S


def test_nodes_wait_for_the_scheduler_and_programs_for_nodes() -> None:
    for name, other in (("node", "scheduler"), ("demo", "node")):
        assert services()[name]["depends_on"] == {other: {"condition": "service_healthy"}}


# ------------------------------------------------------------------------------------- the image


def test_the_image_runs_as_nobody_special_and_has_no_tools_to_build_with() -> None:
    final = stages()[-1]
    assert ("USER", "drumbeat") in final
    after = final[final.index(("USER", "drumbeat")) + 1 :]
    assert not [word for word, _ in after if word in ("RUN", "COPY", "USER")]
    commands = " ".join(rest for word, rest in final if word == "RUN")
    assert not re.search(r"\b(apt|apt-get|pip|gcc|curl)\b", commands)


def test_the_image_has_the_package_whole() -> None:
    copied = " ".join(rest for word, rest in stages()[0] if word == "COPY").split()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for package in project["tool"]["setuptools"]["packages"][1:]:
        assert package.partition(".")[2] in copied
    assert {"pyproject.toml", "README.md", "LICENSE", "__init__.py", "py.typed"} <= set(copied)


def test_what_is_copied_into_the_image_is_not_kept_from_docker() -> None:
    admitted = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    for stage in stages():
        for word, rest in stage:
            if word == "COPY" and not rest.startswith("--from"):
                sources = rest.split()[:-1]
                assert set(sources) <= admitted
                assert all((ROOT / source).exists() for source in sources)


def test_volumes_are_mounted_where_the_image_has_a_directory_of_that_user() -> None:
    commands = " ".join(rest for word, rest in stages()[-1] if word == "RUN")
    made = re.search(r"install --directory (.*)", commands)
    assert made
    assert "--mode 0700" in made[1]
    for service in services().values():
        for volume in service["volumes"]:
            assert volume.split(":")[1] in made[1].split()
    user = re.search(r"useradd --uid (\d+)", commands)
    group = re.search(r"groupadd --gid (\d+)", commands)
    assert user
    assert group
    for mount in (mount for service in services().values() for mount in service["tmpfs"]):
        if "uid=" in mount:
            assert f"uid={user[1]},gid={group[1]}" in mount


def test_the_program_of_the_demo_is_in_the_image() -> None:
    [script] = services()["demo"]["command"]
    [target] = [rest.split()[1] for word, rest in stages()[-1] if rest.startswith("examples ")]
    assert (ROOT / "examples" / Path(script).relative_to(target)).is_file()


# --------------------------------------------------------------------------------------- systemd


@cache
def unit_of(path: Path) -> dict[str, list[str]]:
    """Return the values of each key; sections are told apart by their keys' names anyway."""
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@every_unit
def test_the_command_of_a_unit_is_one_that_the_command_line_takes(unit: Path) -> None:
    [line] = unit_of(unit)["ExecStart"]
    program, *arguments = line.split()
    assert program == "/usr/local/lib/drumbeat/bin/drumbeat"
    assert arguments.pop().startswith("$"), "the last word is for options"
    parses(arguments)
    assert "$" not in " ".join(arguments)


@every_unit
def test_a_unit_is_watched_started_again_and_not_when_its_settings_are_wrong(unit: Path) -> None:
    found = unit_of(unit)
    assert found["Type"] == ["notify"]
    assert found["NotifyAccess"] == ["main"]
    assert float(found["WatchdogSec"][0]) >= 3 * 5.0
    assert found["RestartPreventExitStatus"] == [str(cli_commands.WRONG_USAGE)]
    assert found["User"] == ["drumbeat"]
    assert found["NoNewPrivileges"] == ["yes"]


def test_a_scheduler_always_starts_again_and_a_drained_node_stays_away() -> None:
    restarts = {unit.stem: unit_of(unit)["Restart"] for unit in UNITS}
    assert restarts == {"drumbeat-node": ["on-failure"], "drumbeat-scheduler": ["always"]}


def test_a_unit_is_given_the_time_that_a_drain_and_its_end_may_take() -> None:
    found = unit_of(ROOT / "deploy" / "systemd" / "drumbeat-node.service")
    assert found["KillMode"] == ["mixed"], "TERM for the keeper alone"
    [setting] = found["Environment"]
    name, _, drain_s = setting.partition("=")
    assert name == f"{ENVIRONMENT_PREFIX}DRAIN_TIMEOUT_S"
    assert Settings.load(environ={name: drain_s}).drain_timeout_s == float(drain_s)
    assert float(found["TimeoutStopSec"][0]) >= float(drain_s) + LADDER_S


def test_the_kernel_ending_one_worker_for_want_of_memory_is_not_the_end_of_the_node() -> None:
    found = unit_of(ROOT / "deploy" / "systemd" / "drumbeat-node.service")
    assert found["OOMPolicy"] == ["continue"]

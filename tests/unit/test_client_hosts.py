"""hosts.toml: what it may say, and what each machine is told."""

import json
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from drumbeat import __version__
from drumbeat.client import hosts
from drumbeat.client.hosts import Host
from drumbeat.protocol.errors import ConfigError

FILE = Path("/somewhere/hosts.toml")
EXAMPLE = Path(__file__).parents[2] / "deploy" / "hosts.toml"
SECRET = "s" * 43


def parsed(text: str) -> hosts.Hosts:
    return hosts.parse(tomllib.loads(text), FILE)


def the_host(text: str) -> Host:
    [host] = parsed(text).hosts
    return host


def test_a_table_is_a_machine_and_defaults_hold_for_all() -> None:
    found = parsed("""
        [defaults]
        user = "runner"
        num_cpus = 4
        [hosts.lab1]
        [hosts.lab2]
        address = "lab2.example.org"
        num_cpus = 8
    """)
    assert [(one.name, one.address, one.user, one.num_cpus) for one in found.hosts] == [
        ("lab1", "lab1", "runner", 4.0),
        ("lab2", "lab2.example.org", "runner", 8.0),
    ]


def test_the_cluster_file_lies_beside_the_list_of_hosts() -> None:
    assert parsed('cluster = "node.cluster"\n[hosts.a]').cluster == Path("/somewhere/node.cluster")
    assert parsed('cluster = "/etc/node.cluster"\n[hosts.a]').cluster == Path("/etc/node.cluster")
    assert parsed("[hosts.a]").cluster is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "lists no machine"),
        ("[host.a]", "there is no 'host'"),
        ("hosts = 3", "lists no machine"),
        ("defaults = 3\n[hosts.a]", "defaults is a table"),
        ("cluster = 3\n[hosts.a]", "cluster the path of a file"),
        ("[hosts]\na = 3", "[hosts.a] is a table of options"),
        ('[hosts.a]\nname = "b"', "[hosts.a] is a table of options; the node is called"),
        ("[hosts.a]\nnum_cpu = 3", "[hosts.a]: Object contains unknown field `num_cpu`"),
        ('[hosts.a]\nnum_cpus = "many"', "Expected `float | null`, got `str` - at `$.num_cpus`"),
        ("[hosts.a]\nnum_cpus = -1", "num_cpus = -1.0 is not an amount"),
        ("[hosts.a]\nresources = {disk = nan}", "disk = nan is not an amount"),
        ("[hosts.a]\nport = 70000", "port = 70000 is no port"),
        ('[hosts."a b"]', "its name is letters"),
        ('[hosts."../up"]', "its name is letters"),
        ('[hosts.a]\naddress = "-oProxyCommand=evil"', "is no host"),
        ('[hosts.a]\naddress = "a b"', "is no host"),
        ('[hosts.a]\nuser = "-l"', "is no user"),
        ('[hosts.a]\nssh_options = ["-v"]', "an ssh option looks like"),
        ('[hosts.a]\npython = ""', "python is empty"),
        ('[hosts.a]\npython = "python\\nrm"', "a line break"),
        ('[hosts.a]\npreload = ["a,b"]', "a module's name holds no comma"),
        ('[hosts.a]\nlabels = {"a=b" = "c"}', "is no label"),
        ("[hosts.a]\nsettings = {window = 1}", "there is no setting 'window'"),
        ("[hosts.a]\nsettings = {window_s = -1}", "window_s"),
    ],
)
def test_what_does_not_fit_is_named_with_the_place(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    assert says in str(caught.value)
    assert str(FILE) in str(caught.value)


def test_a_file_that_is_missing_or_no_toml_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        hosts.read(tmp_path / "none.toml")
    (tmp_path / "hosts.toml").write_text("[hosts")
    with pytest.raises(ConfigError, match="is no TOML"):
        hosts.read(tmp_path / "hosts.toml")


def test_some_of_the_machines_can_be_meant() -> None:
    listed = parsed("[hosts.a]\n[hosts.b]\n[hosts.c]").hosts
    assert [one.name for one in hosts.chosen(listed, ["c", "a"], FILE)] == ["c", "a"]
    assert [one.name for one in hosts.chosen(listed, [], FILE)] == ["a", "b", "c"]
    with pytest.raises(ConfigError, match="has no machine 'd'; it has a, b, c"):
        hosts.chosen(listed, ["d"], FILE)


def test_ssh_never_asks_and_reads_no_option_from_an_address() -> None:
    command = hosts.ssh_command(
        the_host("""
            [hosts.lab1]
            address = "[fd00::7]"
            user = "runner"
            port = 2222
            identity = "/keys/one"
            ssh_options = ["ProxyJump=gate", "ConnectTimeout=3"]
            python = "/srv/my env/bin/python"
        """)
    )
    assert command[:4] == ["ssh", "-T", "-o", "BatchMode=yes"]
    assert command[-3:-1] == ["--", "fd00::7"]
    assert command.index("ConnectTimeout=3") < command.index("ConnectTimeout=10")
    for pair in (["-p", "2222"], ["-l", "runner"], ["-i", "/keys/one"], ["-o", "ProxyJump=gate"]):
        assert command[command.index(pair[1]) - 1] == pair[0]


@pytest.mark.parametrize(
    ("python", "word"),
    [
        ("python3", "python3"),
        ("~/env/bin/python", "env/bin/python"),
        ("/srv/a b/python", "/srv/a b/python"),
        ("python; rm -rf $HOME `id`", "python; rm -rf $HOME `id`"),
    ],
)
def test_the_shell_over_there_reads_the_python_as_one_word(python: str, word: str) -> None:
    words = shlex.split(hosts.ssh_command(Host(name="a", address="a", python=python))[-1])
    assert words == [word, "-P", "-m", hosts.THERE]


def test_a_secret_goes_to_standard_input_and_into_no_command() -> None:
    host = the_host("[hosts.a]\nlabels = {zone = 'b'}")
    request = hosts.start_request(host, SECRET, 30.0)
    assert request["cluster"] == SECRET
    assert SECRET not in " ".join(hosts.ssh_command(host))
    assert SECRET not in " ".join(hosts.node_flags(host))
    assert "\n" not in json.dumps(request)


def test_what_a_node_is_to_offer_becomes_the_flags_of_drumbeat_node() -> None:
    host = the_host("""
        [hosts.a]
        num_cpus = 2.5
        num_gpus = 0
        resources = {disk = 2, "a b" = 0.5}
        labels = {zone = "x y", owner = "--me"}
        preload = ["numpy", "json"]
    """)
    assert hosts.node_flags(host) == [
        "--num-cpus=2.5", "--num-gpus=0", "--resource=disk=2", "--resource=a b=0.5",
        "--label=zone=x y", "--label=owner=--me", "--preload=numpy,json",
    ]  # fmt: skip
    assert hosts.node_flags(the_host("[hosts.a]")) == []


def test_settings_travel_as_variables_of_the_environment() -> None:
    host = the_host('[hosts.a]\nsettings = {workers_max = 8, memory_files = "file"}')
    request = hosts.start_request(host, "", 1.0)
    assert request["environment"] == {
        "DRUMBEAT_WORKERS_MAX": "8",
        "DRUMBEAT_MEMORY_FILES": "file",
    }


def test_every_request_says_which_version_asks() -> None:
    host = Host(name="a", address="a")
    requests: list[dict[str, Any]] = [
        hosts.start_request(host, "", 1.0),
        hosts.stop_request(host, now=True, wait_s=1.0),
        hosts.status_request(host),
    ]
    assert [(one["do"], one["name"], one["version"]) for one in requests] == [
        ("start", "a", __version__),
        ("stop", "a", __version__),
        ("status", "a", __version__),
    ]


def test_the_example_of_a_list_of_hosts_can_be_read() -> None:
    found = hosts.read(EXAMPLE)
    assert [one.name for one in found.hosts] == ["lab1", "lab2", "gpu1"]
    assert {
        field for one in found.hosts for field in Host.__struct_fields__ if getattr(one, field)
    } == set(Host.__struct_fields__), "the example shows every option"

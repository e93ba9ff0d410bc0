"""Nodes on other machines by ssh: a real ssh server on loopback stands for all of them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import drumbeat
import psutil
import pytest
from drumbeat.client.launcher import environment
from support import ssh_server
from support.ports import own_port
from support.process_table import alive
from support.waiting import until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(ssh_server.missing()), reason=ssh_server.missing() or "all is there"),
]


class Machines:
    """A scheduler on the network, an ssh server, and a list of hosts that all lead there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.server = ssh_server.SshServer(directory, XDG_STATE_HOME=str(self.state))
        self.keys = directory / "keys"
        self.file = directory / "hosts.toml"
        self.port = own_port()
        self.scheduler: subprocess.Popen[bytes] | None = None

    def start_scheduler(self, *flags: str) -> None:
        self.scheduler = subprocess.Popen(
            [
                sys.executable, "-P", "-m", "drumbeat.scheduler", "--directory", str(self.keys),
                "--listen", f"127.0.0.1:{self.port}", *flags,
            ],
            env=environment(),
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        until(lambda: (self.keys / "scheduler.state").exists() or self.scheduler_ended())

    def scheduler_ended(self) -> bool:
        return self.scheduler is not None and self.scheduler.poll() is not None

    def list(self, hosts: str, **defaults: str) -> None:
        """Write hosts.toml."""
        options = {
            "address": "127.0.0.1",
            "port": self.server.port,
            "identity": str(self.server.identity),
            "python": sys.executable,
            "num_cpus": 1,
            "ssh_options": [
                "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR",
            ],
        } | defaults  # fmt: skip
        lines = [f"{name} = {json.dumps(value)}" for name, value in options.items()]
        text = 'cluster = "keys/node.cluster"\n[defaults]\n' + "\n".join(lines) + "\n" + hosts
        self.file.write_text(text, encoding="utf-8")

    def type(self, command: str, *more: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [
                sys.executable, "-P", "-m", "drumbeat.client.cli", command, str(self.file), *more,
            ],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def pid(self, name: str) -> int:
        text = (self.state / "drumbeat" / "nodes" / name / "process").read_text()
        return int(json.loads(text)["pid"])

    def close(self) -> None:
        for path in self.state.glob("drumbeat/nodes/*/process"):
            process = psutil.Process(self.pid(path.parent.name))
            family = [process, *process.children(recursive=True)]
            process.kill()
            psutil.wait_procs(family, 10)
        self.server.close()
        if self.scheduler is not None:
            self.scheduler.kill()
            self.scheduler.wait()


@pytest.fixture
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    made = Machines(tmp_path_factory.mktemp("m"))
    yield made
    drumbeat.shutdown()
    made.close()


def shown_of(process: psutil.Process) -> str:
    """Return what everybody, or the same user, can see of a process; "" if it has ended."""
    try:
        return " ".join([*process.cmdline(), *process.environ().values()])
    except psutil.NoSuchProcess:
        return ""


THREE = '[hosts.a]\nlabels = {zone = "x y"}\n[hosts.b]\nresources = {disk = 2}\n[hosts.c]\n'


def sleep_and_say(seconds: float) -> str:
    time.sleep(seconds)
    return os.uname().nodename


def test_up_starts_nodes_that_run_tasks_and_down_ends_them(machines: Machines) -> None:
    machines.start_scheduler()
    machines.list(THREE)
    code, out, err = machines.type("up")
    assert (code, err) == (0, "")
    assert out.endswith("3 nodes joined\n")
    for name in "abc":
        assert f"{name} | joined (process {machines.pid(name)})" in out

    with drumbeat.init(machines.keys / "client.cluster"):
        rows = {row["name"]: row for row in drumbeat.nodes()}
        assert sorted(rows) == ["a", "b", "c"]
        assert rows["b"]["resources"]["disk"] == 2
        assert rows["a"]["labels"] == {"zone": "x y"}
        task = drumbeat.remote(sleep_and_say)
        assert drumbeat.get([task.options(node=name).remote(0.0) for name in "abc"])

        pids = [machines.pid(name) for name in "abc"]
        family = [one for pid in pids for one in psutil.Process(pid).children(recursive=True)]
        secret = json.loads((machines.keys / "node.cluster").read_text())["secret_key"]
        shown = [shown_of(process) for process in [*map(psutil.Process, pids), *family]]
        assert sum(map(bool, shown)) >= 3 * 4, "keeper, template, daemon and worker of each"
        assert not [text for text in shown if secret in text]
    sent = machines.state / "drumbeat" / "nodes" / "a" / "node.cluster"
    assert sent.stat().st_mode & 0o077 == 0

    code, out, _ = machines.type("up")
    assert code == 0
    assert out.count("it runs already") == 3
    assert [machines.pid(name) for name in "abc"] == pids
    assert machines.type("hosts")[0] == 0

    code, out, err = machines.type("down")
    assert (code, err) == (0, "")
    assert out.count("| ended\n") == 3
    until(lambda: not any(map(alive, pids)))
    assert not sent.exists(), "no key is left behind"
    code, out, _ = machines.type("hosts")
    assert code == 1
    assert out.count("does not run") == 3
    assert machines.type("down")[0] == 0, "what is down already is down"


def test_each_machine_that_fails_says_why_and_the_others_join(
    machines: Machines, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    closed = own_port()
    machines.start_scheduler()
    machines.list(
        f"[hosts.good]\n[hosts.closed]\nport = {closed}\n"
        f'[hosts.bare]\npython = "{bare}/bin/python"\n[hosts.none]\npython = "no/such/python"\n'
    )
    code, out, err = machines.type("up")
    assert code == 1
    assert err.startswith("drumbeat: 1 of 4 nodes joined; closed: ")
    assert err.count("\n") == 1
    assert "good | joined" in out
    assert "Connection refused" in out
    assert "bare | " in out
    assert "No module named 'drumbeat'" in out
    assert "no/such/python" in out.partition("none | ")[2]


def test_a_node_that_cannot_reach_the_scheduler_is_left_trying_and_says_why(
    machines: Machines,
) -> None:
    machines.start_scheduler()
    assert machines.scheduler is not None
    machines.scheduler.kill()
    machines.scheduler.wait()
    machines.list("[hosts.a]")
    code, out, err = machines.type("up", "--wait", "4")
    assert code == 1
    assert "has not joined within 4 s" in err
    assert "refused" in out
    assert machines.type("hosts")[1].startswith("a | runs, and has no connection")
    machines.start_scheduler()
    code, out, _ = machines.type("up")
    assert code == 0
    assert "it runs already" in out
    assert "a | joined" in out
    assert machines.type("down")[0] == 0


def test_down_lets_what_runs_end_and_with_now_it_does_not(machines: Machines) -> None:
    machines.start_scheduler()
    machines.list("[hosts.a]\n[hosts.b]\n")
    assert machines.type("up")[0] == 0
    with drumbeat.init(machines.keys / "client.cluster"):
        task = drumbeat.remote(sleep_and_say)
        short = task.options(node="a", max_retries=0).remote(6.0)
        long = task.options(node="b", max_retries=0).remote(600.0)
        until(lambda: sum(row["running"] for row in drumbeat.nodes()) == 2)
        assert machines.type("down", "a")[0] == 0
        assert drumbeat.get(short, timeout=5)
        before_s = time.monotonic()
        assert machines.type("down", "b", "--now")[0] == 0
        assert time.monotonic() - before_s < 20
        with pytest.raises(drumbeat.TaskError):
            drumbeat.get(long, timeout=20)


def test_a_process_that_only_has_the_number_of_the_node_is_left_alone(machines: Machines) -> None:
    machines.start_scheduler()
    machines.list("[hosts.a]")
    assert machines.type("up")[0] == 0
    os.kill(machines.pid("a"), signal.SIGKILL)
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    path = machines.state / "drumbeat" / "nodes" / "a" / "process"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": stranger.pid}))
    code, out, _ = machines.type("down", "--now")
    assert code == 0
    assert "it does not run" in out
    assert stranger.poll() is None
    stranger.communicate()


def test_only_the_key_of_a_node_is_sent_to_machines(machines: Machines) -> None:
    machines.start_scheduler()
    machines.list("[hosts.a]")
    code, _, err = machines.type("up", "--cluster", str(machines.keys / "admin.cluster"))
    assert code == 2
    assert "is for the role admin" in err


def test_a_copy_of_one_roles_file_is_kept_where_it_is_wanted(machines: Machines) -> None:
    elsewhere = machines.directory / "elsewhere"
    machines.start_scheduler(f"--copy=node={elsewhere}")
    copy = elsewhere / "node.cluster"
    assert copy.read_text() == (machines.keys / "node.cluster").read_text()
    assert [path.stat().st_mode & 0o777 for path in (elsewhere, copy)] == [0o700, 0o600]
    assert list(elsewhere.iterdir()) == [copy]


@pytest.mark.parametrize("wish", ["node", "root=/tmp", "scheduler=/tmp", "node="])
def test_a_copy_that_cannot_be_is_refused(machines: Machines, wish: str) -> None:
    machines.start_scheduler(f"--copy={wish}")
    assert machines.scheduler is not None
    assert machines.scheduler.wait(20) == 2


def test_ctrl_c_ends_the_waiting_at_once_and_leaves_no_ssh_behind(machines: Machines) -> None:
    machines.start_scheduler()
    with socket.socket() as silent:  # it takes connections, and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        machines.list(f"[hosts.a]\nport = {silent.getsockname()[1]}")
        typed = subprocess.Popen(
            [sys.executable, "-P", "-m", "drumbeat.client.cli", "up", str(machines.file)],
            env=environment(),
        )
        [ssh] = until(lambda: psutil.Process(typed.pid).children())
        with silent.accept()[0]:
            typed.send_signal(signal.SIGINT)
            assert typed.wait(5) == 130
            assert not ssh.is_running()

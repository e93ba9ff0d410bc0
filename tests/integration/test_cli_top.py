"""`drumbeat top` on a pseudo terminal: what it draws of a real cluster, keys pressed, its end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import drumbeat
import pytest
from drumbeat.client.local import Cluster
from support.terminals import Terminal

pytestmark = pytest.mark.integration


@drumbeat.remote
def naps_well(seconds: float) -> None:
    time.sleep(seconds)


@drumbeat.remote
class Holder:
    def holds(self) -> None:
        time.sleep(1e6)


@pytest.fixture
def cluster(root: str) -> Iterator[Cluster]:
    with drumbeat.init(num_cpus=4, runtime_directory=root) as cluster:
        refs = [naps_well.remote(1e6) for _ in range(2)]
        holder = Holder.remote()
        refs.append(holder.holds.remote())
        yield cluster
        drumbeat.kill(holder)
        drumbeat.cancel(refs[:2], force=True)


@pytest.fixture
def terminal(cluster: Cluster) -> Iterator[Terminal]:
    terminal = Terminal(["top", "--interval", "0.2", "--address", cluster.address])
    yield terminal
    terminal.close()


def test_it_shows_nodes_and_calls_and_their_stacks_and_leaves_the_terminal_as_it_was(
    cluster: Cluster, terminal: Terminal
) -> None:
    lines = terminal.until(lambda text: text.count("naps_well") == 2 and "Holder.holds" in text)
    text = "\n".join(lines)
    assert lines[0].startswith(f"drumbeat {cluster.address}")
    assert "1 alive" in text
    assert "3 running" in text
    assert lines[-1].startswith("q leave")
    terminal.until(lambda text: "blocked" in text)
    for key in "nj":
        terminal.press(key)
    terminal.press("s")
    stack = "\n".join(terminal.until(lambda text: "test_cli_top.py" in text))
    assert "main thread:" in stack
    terminal.press("\x1b")
    terminal.until(lambda text: "q leave" in text)
    terminal.press("\t")
    terminal.until(lambda text: "Holder" in text and "restarts" in text)
    terminal.press("s")
    terminal.until(lambda text: "test_cli_top.py" in text and "holds" in text)
    terminal.press("x\t")
    terminal.until(lambda text: "node joined" in text)
    terminal.press("q")
    assert terminal.end() == 0
    assert terminal.is_as_before()
    assert terminal.raw.rstrip().endswith("\x1b[?25h\x1b[?1049l")


def test_it_fits_a_terminal_that_changes_its_size_and_ctrl_c_ends_it(terminal: Terminal) -> None:
    terminal.until(lambda text: "naps_well" in text)
    terminal.resize(44, 16)

    def is_narrow(text: str) -> bool:
        return "naps_well" in text and max(map(len, text.split("\n"))) <= 44

    narrow = terminal.until(is_narrow)
    assert len(narrow) == 16
    assert max(map(len, narrow)) <= 44
    terminal.press("\x03")
    assert terminal.end() == 0
    assert terminal.is_as_before()
    assert "Traceback" not in terminal.raw


def test_it_goes_on_with_the_next_life_of_the_scheduler(
    cluster: Cluster, terminal: Terminal
) -> None:
    terminal.until(lambda text: "naps_well" in text)
    os.kill(cluster.processes["scheduler"], signal.SIGKILL)
    terminal.press("\t\t")
    terminal.until(lambda text: "restarted in epoch 2" in text, 30.0)
    terminal.press("\t")
    terminal.until(lambda text: text.count("naps_well") == 2, 30.0)
    terminal.press("q")
    assert terminal.end() == 0


def test_once_prints_one_picture_into_a_pipe_and_plain_data_for_programs(cluster: Cluster) -> None:
    command = [sys.executable, "-P", "-m", "drumbeat.client.cli", "top", "--address"]
    command.append(cluster.address)
    end_s = time.monotonic() + 20.0
    while True:
        done = subprocess.run(
            [*command, "--once"], capture_output=True, text=True, timeout=60, check=True
        )
        if done.stdout.count("naps_well") == 2 or time.monotonic() > end_s:
            break
    assert done.stdout.count("naps_well") == 2
    assert "\x1b" not in done.stdout
    told = json.loads(
        subprocess.run(
            [*command, "--json"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    )
    assert set(told) == {"status", "nodes", "calls", "running"}
    assert {"id", "name", "pid", "running_s", "verdict", "cpu"} <= set(told["calls"][0])
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert refused.stderr.startswith("drumbeat: top draws on a terminal, and this is none")


def test_a_suspended_top_gives_the_terminal_back_and_takes_it_again(terminal: Terminal) -> None:
    terminal.until(lambda text: "naps_well" in text)
    terminal.process.send_signal(signal.SIGTSTP)
    end_s = time.monotonic() + 20.0
    while not terminal.raw.rstrip().endswith("\x1b[?1049l"):
        terminal.read(0.2)
        assert time.monotonic() < end_s
    # As a shell does: SIGCONT goes to who has stopped. Before that it would undo nothing.
    terminal.wait_until_stopped()
    terminal.raw = ""
    terminal.process.send_signal(signal.SIGCONT)
    terminal.until(lambda text: "naps_well" in text)
    terminal.press("q")
    assert terminal.end() == 0
    assert terminal.is_as_before()


def test_a_top_that_is_terminated_gives_the_terminal_back(terminal: Terminal) -> None:
    terminal.until(lambda text: "naps_well" in text)
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.end() == 128 + signal.SIGTERM
    assert terminal.is_as_before()
    assert terminal.raw.rstrip().endswith("\x1b[?1049l")
    assert "Traceback" not in terminal.raw

"""The first things that a new user types, on real clusters: README, census, command line."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import drumbeat
import psutil
import pytest
from drumbeat.client.local import Cluster

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.integration


def run(
    *arguments: str, runtime: Path, code: int = 0, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a Python program with a runtime directory of its own, and check its exit code."""
    environment = {**os.environ, "DRUMBEAT_RUNTIME_DIRECTORY": str(runtime), "COLUMNS": "100"}
    environment.pop("DRUMBEAT_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A short path: the path of a Unix socket has at most 100 bytes."""
    path = tmp_path_factory.mktemp("r")
    yield path
    assert not [entry for entry in path.rglob("*") if not entry.is_dir()], "files were left behind"


@pytest.fixture
def cluster(runtime: Path) -> Iterator[Cluster]:
    with drumbeat.init(num_cpus=2, runtime_directory=str(runtime)) as cluster:
        yield cluster
    assert not psutil.Process().children(recursive=True), "processes were left behind"


def drumbeat_command(
    line: str, *, runtime: Path, code: int = 0
) -> subprocess.CompletedProcess[str]:
    return run("-m", "drumbeat.client.cli", *line.split(), runtime=runtime, code=code)


@drumbeat.remote
def add(left: int, right: int) -> int:
    return left + right


@drumbeat.remote
def sleep(seconds: float) -> None:
    time.sleep(seconds)


@drumbeat.remote
def tree(depth: int) -> int:
    if depth == 0:
        return 1
    return sum(drumbeat.get([tree.remote(depth - 1), tree.remote(depth - 1)]))


def test_the_ten_lines_of_the_readme_run(runtime: Path, tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    (tmp_path / "ten.py").write_text(code)

    assert run("ten.py", runtime=runtime, cwd=tmp_path).stdout == "285\n"


def test_the_census_ends_a_call_that_hangs_counts_the_rest_and_ends_in_a_table(
    runtime: Path, tmp_path: Path
) -> None:
    tree_ = tmp_path / "tree"
    (tree_ / "shop").mkdir(parents=True)
    (tree_ / "alone.py").write_text('"""A\n=\n"""\nimport os\ndef one():\n    pass\n')
    (tree_ / "shop" / "till.py").write_text("from os import path\nimport sys\nimport os\n")
    (tree_ / "shop" / "bad.py").write_text("def (\n")

    census = str(ROOT / "examples" / "census.py")
    out = run(census, str(tree_), runtime=runtime).stdout

    assert re.search(r"\(survey pid=\d+ node=\S+\) shop/bad.py does not parse: invalid syntax", out)
    assert re.search(r"shop +2 +4 +0 +os sys", out)
    assert re.search(r"all +3 +10 +1 +2 one +os sys", out)
    assert re.search(r"3 files, 10 lines, 1 underlined headings, 1 not parsed, in ", out)
    assert re.search(r" on 2 nodes: \S+ tasks a second", out)
    assert "the headings of (a trap) are not counted" in out
    assert re.search(r"Headings.count took longer than its timeout of 2 s on node \S+ ", out)
    assert re.search(r"verdict : (gil-busy|running)", out)  # running: it had little of a processor
    assert re.search(r"actions : stack [\d:]+ · cancel", out)
    assert re.search(r"stack   : census.py:\d+ ", out)


def test_calls_dependencies_and_nested_calls_give_their_values(cluster: Cluster) -> None:
    sums = [add.remote(number, add.remote(number, 1)) for number in range(200)]

    assert drumbeat.get(sums) == [2 * number + 1 for number in range(200)]
    assert drumbeat.get(tree.remote(4)) == 16


def test_status_and_nodes_are_shown_while_a_program_runs(cluster: Cluster, runtime: Path) -> None:
    drumbeat.get(add.remote(1, 2))

    status = json.loads(drumbeat_command("status --json", runtime=runtime).stdout)
    nodes = json.loads(drumbeat_command("nodes --json", runtime=runtime).stdout)

    assert status["nodes"]["alive"] == 1
    assert status["tasks"]["finished"] == 1
    assert [node["resources"]["CPU"] for node in nodes] == [2]
    table = drumbeat_command("nodes", runtime=runtime).stdout
    assert table.splitlines()[0].startswith("node ")
    assert "nodes" in drumbeat_command("status", runtime=runtime).stdout


def test_a_running_and_a_queued_task_are_listed_and_cancelled_from_another_terminal(
    cluster: Cluster, runtime: Path
) -> None:
    refs = [sleep.remote(60) for _ in range(3)]
    states: dict[str, str] = {}
    deadline_s = time.monotonic() + 10
    while "running" not in states.values() and time.monotonic() < deadline_s:
        shown = drumbeat_command("tasks sleep --json", runtime=runtime).stdout
        states = {row["id"]: row["state"] for row in json.loads(shown)}
    assert sorted(states.values()) == ["queued", "running", "running"]

    out = drumbeat_command("cancel " + " ".join(states), runtime=runtime).stdout

    assert out.count("is being cancelled") == 3
    for ref in refs:
        with pytest.raises(drumbeat.TaskCancelled):
            drumbeat.get(ref, timeout=5)


def test_cancel_of_what_is_finished_says_so(cluster: Cluster, runtime: Path) -> None:
    err = drumbeat_command("cancel 5f0c2b9a11d4-0-2a", runtime=runtime, code=1).stderr

    assert err.startswith("drumbeat: no unfinished task 5f0c2b9a11d4-0-2a;")


def test_a_command_without_a_cluster_says_how_to_start_one(runtime: Path) -> None:
    err = drumbeat_command("status", runtime=runtime, code=3).stderr

    assert "drumbeat.init()" in err
    assert err.count("\n") == 1


def test_a_command_at_an_address_where_no_cluster_is_says_so(runtime: Path) -> None:
    err = drumbeat_command(f"status --address {runtime}/none", runtime=runtime, code=3).stderr

    assert f"{runtime}/none" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("system", "row"), [("drumbeat", "cold_start"), ("network", "round_trip")])
def test_a_measurement_of_the_benchmark_prints_its_number(
    system: str, row: str, runtime: Path
) -> None:
    out = run("-m", "benchmarks.measure", system, row, "--fast", runtime=runtime, cwd=ROOT)

    assert 0 < float(out.stdout) < 30_000

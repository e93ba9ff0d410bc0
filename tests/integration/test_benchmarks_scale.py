"""The benchmarks of scale and `drumbeat bench` run, with small numbers, on the real things."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import drumbeat
import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.integration


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("r")


def printed_by(*words: str, runtime: Path) -> Any:
    environment = {**os.environ, "DRUMBEAT_RUNTIME_DIRECTORY": str(runtime)}
    environment.pop("DRUMBEAT_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("way", "rows"), [("full", 100), ("single", 1)])
def test_the_core_is_measured_with_simulated_nodes_that_answer_in_either_way(
    way: str, rows: int, runtime: Path
) -> None:
    found = printed_by("benchmarks.scale", "--fast", "--point", "5", "2000", way, runtime=runtime)

    assert (found["nodes"], found["queue"], found["way"]) == (5, 2_000, way)
    assert len(found["us"]) == 3
    assert all(cost > 0 for cost in found["us"])
    assert found["rows_a_message"] >= rows


def test_beats_are_measured(runtime: Path) -> None:
    assert 0 < printed_by("benchmarks.scale", "--beats", "100", runtime=runtime) < 100


def test_a_scheduler_with_several_real_nodes_is_measured(runtime: Path) -> None:
    found = printed_by("benchmarks.scale_real", "--one", "2", "--tasks", "500", runtime=runtime)

    assert found["nodes_with_workers"] == 2
    assert found["scheduler_us"] > 0


def test_small_rows_share_a_process_and_each_has_its_figure(runtime: Path) -> None:
    rows = "micro_put,micro_actors_n_n,micro_tasks_nested,micro_wait,payload_1kb"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.measure", "drumbeat", rows, "--fast"],
        cwd=ROOT, env={**os.environ, "DRUMBEAT_RUNTIME_DIRECTORY": str(runtime)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == rows.split(",")


def test_a_running_cluster_is_measured_with_a_row_for_each_node(runtime: Path) -> None:
    with drumbeat.init(num_cpus=1, nodes=2, runtime_directory=str(runtime)):
        found = printed_by(
            "drumbeat.client.cli", "bench", "--tasks", "200", "--json", runtime=runtime
        )

    assert found["tasks_per_s"] > 0
    assert len(found["nodes"]) == 2
    assert sum(node["ran"] for node in found["nodes"]) == 200
    assert all(node["mb_per_s"] > 0 and node["spin_ms"] > 0 for node in found["nodes"])


def test_a_cluster_whose_nodes_are_all_taken_is_said_to_be(runtime: Path) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=str(runtime)):
        holder: Any = drumbeat.remote(hold)
        ref = holder.remote()
        done = subprocess.run(
            [sys.executable, "-m", "drumbeat.client.cli", "bench", "--within", "0.2"],
            env={**os.environ, "DRUMBEAT_RUNTIME_DIRECTORY": str(runtime)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        drumbeat.cancel(ref)

    assert done.returncode == 1
    assert "did not end within 0.2 s" in done.stderr


def hold() -> None:
    """Keep a worker until somebody interrupts it."""
    import threading

    threading.Event().wait()

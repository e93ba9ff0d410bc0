"""The benchmarks of supervision run, with small numbers: their figures are others' to judge."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.integration


def printed_by(name: str, *words: str, runtime: Path, codes: tuple[int, ...] = (0,)) -> str:
    environment = {**os.environ, "DRUMBEAT_RUNTIME_DIRECTORY": str(runtime)}
    environment.pop("DRUMBEAT_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *words],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode in codes, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("r")


@pytest.mark.parametrize(
    ("room", "supervision"),
    [("core", "on"), ("core", "off"), ("core", "around"), ("worker", "on"), ("worker", "off")],
)
def test_a_room_runs_its_tasks_with_and_without_supervision(
    room: str, supervision: str, runtime: Path
) -> None:
    printed_by("unsupervised", room, supervision, "4000", "1000", runtime=runtime)


COUNT = """
from benchmarks import supervision
print(supervision.missing() or supervision.counted("worker", "on", 512, 1000.0))
"""


def test_the_instructions_of_a_room_are_counted_or_it_is_said_why_not() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNT], cwd=ROOT, capture_output=True, text=True, timeout=300,
        check=True,
    )  # fmt: skip

    if "valgrind is not installed" not in done.stdout:
        # Of Python's start, for the most part.
        assert int(done.stdout) > 10_000_000


SHARES = """
from benchmarks import breakdown
for work, turns in breakdown.measured(1).items():
    parts = dict(turns[0])
    print(work, parts.pop(breakdown.WALL)[0], sum(us for us, _ in parts.values()))
"""


def test_the_shares_of_a_task_s_time_add_up(runtime: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHARES], cwd=ROOT, capture_output=True, text=True, timeout=300,
        check=True, env={**os.environ, "DRUMBEAT_RUNTIME_DIRECTORY": str(runtime)},
    )  # fmt: skip

    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["one", "many", "long"]
    assert all(float(wall) == pytest.approx(float(parts)) for _, wall, parts in lines)


def test_how_soon_deaths_and_cuts_are_seen_is_measured(runtime: Path) -> None:
    out = printed_by("detection", "--quick", "--runs", "1", runtime=runtime, codes=(0, 1))

    assert re.search(r"^a worker died +1 ", out, re.MULTILINE)
    assert re.search(r"^a node died +1 ", out, re.MULTILINE)
    assert re.search(r"^(a cut node is lost +1 |no node was cut off: )", out, re.MULTILINE)


def test_what_many_small_actors_cost_is_measured(runtime: Path) -> None:
    out = printed_by("many_actors", "--actors", "5", runtime=runtime)

    assert out.startswith("5 small actors on one node")
    assert re.search(r"memory \(PSS\) +\d+\.\d+ MB$", out, re.MULTILINE)


def test_how_fast_large_values_move_is_measured_beside_a_copy(runtime: Path) -> None:
    out = printed_by(
        "objects", "--mib", "4", "--result-mib", "2", "--readers", "3", "--repeats", "2",
        runtime=runtime,
    )  # fmt: skip

    head, *rows = out.splitlines()
    assert head.split() == ["GB/s", "cold", "median", "best", "memcpy", "ratio"]
    assert [row.split(" x ")[1].split(" MiB")[0] for row in rows] == ["4", "4", "4", "4", "2", "2"]
    figures = [[float(figure) for figure in row.split(" MiB")[1].split()] for row in rows]
    assert all(len(row) == 5 and row[1] > 0.0 for row in figures)


def test_what_memory_has_no_room_for_is_put_and_read_back(runtime: Path, disk: Path) -> None:
    out = printed_by(
        "spill", "--objects", "12", "--mb", "2", "--store-mb", "8", "--directory", str(disk),
        runtime=runtime,
    )  # fmt: skip

    assert out.startswith("put: 12 x 2 MB")
    assert "none of them is left" in out

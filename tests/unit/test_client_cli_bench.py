"""`drumbeat bench`: what is measured of a cluster and of its nodes, and what is said of it."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from drumbeat.client import bench, cli_bench, cli_commands
from support.typist import Typist


class Cluster:
    """Runs tasks at once: each takes a millisecond by its own clock, on "slow" three."""

    def __init__(self, busy: str | None = None) -> None:
        self.now_s = 0.0
        #: on this node nothing ends
        self.busy = busy
        self.sent: dict[str, int] = {}

    def clock(self) -> float:
        return self.now_s

    def run(
        self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], node: str
    ) -> list[Any]:
        if node == self.busy:
            raise bench.Busy("tasks did not end within 10 s")
        self.sent[node] = self.sent.get(node, 0) + len(arguments)
        self.now_s += len(arguments) * (0.003 if node == "slow" else 0.001)
        if function is bench.where:
            return [node or ("quick", "slow")[number % 2] for number in range(len(arguments))]
        return [function(*given) for given in arguments]

    def measure(self, *nodes: str) -> dict[str, Any]:
        return bench.measure(self.run, nodes, bench.Sizes(1_000), self.clock)


def test_the_cluster_is_measured_first_and_then_each_node_alone() -> None:
    found = Cluster().measure("quick", "slow")
    assert found["round_trip_ms"] == found["round_trip_worst_ms"] == 1.0
    assert (found["tasks"], found["tasks_per_s"]) == (1_000, 1_000)
    quick, slow = found["nodes"]
    assert (quick["name"], quick["round_trip_ms"], quick["tasks_per_s"]) == ("quick", 1.0, 1_000)
    assert (slow["name"], slow["round_trip_ms"], slow["tasks_per_s"]) == ("slow", 3.0, 333)
    assert quick["mb_per_s"] == 1_000.0


def test_it_is_counted_how_much_each_node_ran_of_what_was_run_anywhere() -> None:
    found = Cluster().measure("quick", "slow", "idle")
    assert [node["ran"] for node in found["nodes"]] == [500, 500, 0]


def test_a_node_that_does_not_answer_in_time_leaves_the_others_their_figures() -> None:
    quick, slow = Cluster(busy="slow").measure("quick", "slow")["nodes"]
    assert quick["tasks_per_s"] == 1_000
    assert slow == {"name": "slow", "ran": 500, "why": "tasks did not end within 10 s"}


def test_a_cluster_on_which_no_task_ends_is_not_measured() -> None:
    with pytest.raises(bench.Busy):
        Cluster(busy="").measure("quick")


# --------------------------------------------------------------------------------- what is typed


class FakeSession:
    """A scheduler that knows two nodes, one of which is on its way out."""

    endpoint = "ipc:///run/here/scheduler"

    def query(self, what: str, limit: int = 100, match: str = "") -> Any:
        assert what == "nodes"
        return [{"name": "quick", "state": "alive"}, {"name": "old", "state": "draining"}]


@pytest.fixture
def typist(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typist[Any]:
    cluster = Cluster()
    monkeypatch.setattr(cli_bench, "runner", lambda within_s: cluster.run)
    monkeypatch.setattr(cli_bench.time, "perf_counter", cluster.clock)
    return Typist(capsys, FakeSession())


def test_what_was_found_is_told_in_lines_and_a_row_for_each_node_that_is_alive(
    typist: Typist[Any],
) -> None:
    code, out, _ = typist.type("bench --tasks 1000")
    assert code == 0
    first, second, heads, *rows = out.splitlines()
    assert first == "round trip of a task: 1 ms, worst 1 ms"
    assert second == "1,000 tasks at once: 1,000 a second"
    assert heads.split()[0] == "node"
    assert [row.split()[0] for row in rows] == ["quick"]


def test_programs_are_given_plain_data(typist: Typist[Any]) -> None:
    found = json.loads(typist.type("bench --tasks 1000 --json")[1])
    assert found["cluster"]
    assert found["tasks_per_s"] == 1_000
    assert [node["name"] for node in found["nodes"]] == ["quick"]


@pytest.mark.parametrize("name", ["old", "lab3"])
def test_a_node_that_is_not_alive_cannot_be_chosen(name: str, typist: Typist[Any]) -> None:
    code, _, err = typist.type(f"bench --node {name}")
    assert code == cli_commands.FAILED
    assert f"no node '{name}' is alive" in err


def test_a_cluster_without_nodes_is_not_measured(
    typist: Typist[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeSession, "query", lambda *_, **__: [])
    code, _, err = typist.type("bench")
    assert code == cli_commands.FAILED
    assert "has no node that is alive" in err


def test_a_cluster_that_has_other_things_to_do_is_said_to(
    typist: Typist[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_bench, "runner", lambda within_s: Cluster(busy="").run)
    code, _, err = typist.type("bench")
    assert code == cli_commands.FAILED
    assert "the cluster was not measured: tasks did not end within" in err

"""Who keeps and holds what, asked of a real cluster while programs, actors and tasks do."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drumbeat
import numpy as np
import pytest
from drumbeat.client.local import Cluster
from support.large_files import needs_memory_files
from support.waiting import until

pytestmark = pytest.mark.integration

MB = 1_000_000


@pytest.fixture
def cluster(root: str) -> Iterator[Cluster]:
    with drumbeat.init(nodes=2, num_cpus=2, runtime_directory=root) as cluster:
        yield cluster


def typed(address: str, *words: str) -> str:
    """Type the command; return what it prints."""
    command = [sys.executable, "-P", "-m", "drumbeat.client.cli", "objects", *words]
    done = subprocess.run(
        [*command, "--address", address], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def told(address: str, *words: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(typed(address, "--json", *words))
    return answer


def by_what(answer: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["sort"], row["name"]): row for row in answer["objects"]}


def holders_of(row: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {one["role"]: (one["refs"], one["uses"]) for one in row["held_by"]}


@drumbeat.remote
def makes(size: int) -> bytes:
    return bytes(size)


@drumbeat.remote
class Holder:
    def hold(self, refs: list[Any]) -> str:
        self.refs = refs
        return drumbeat.current().node

    def put(self, size: int) -> None:
        self.mine = drumbeat.put(bytes(size))

    def free(self) -> None:
        self.refs = self.mine = None


@drumbeat.remote
def asks(address: str) -> str:
    return typed(address, "makes")


def test_what_is_put_returned_and_held_is_told_of_until_nobody_holds_it(cluster: Cluster) -> None:
    assert typed(cluster.address) == "no object is kept\n"
    array = drumbeat.put(np.zeros(MB))
    small, large = makes.remote(100), makes.remote(5 * MB)
    drumbeat.wait([small, large], num_returns=2)
    holder = Holder.remote()
    node = drumbeat.get(holder.hold.remote([array]))
    drumbeat.get(holder.put.remote(2 * MB))

    answer = told(cluster.address)
    sizes = [row["size_bytes"] for row in answer["objects"]]
    assert sizes == sorted(sizes, reverse=True)
    rows = {row["id"]: row for row in answer["objects"]}
    put = next(row for row in rows.values() if row["sort"] == "put" and row["role"] == "client")
    assert put["size_bytes"] > 8 * MB
    assert holders_of(put)["client"][0] == 1
    assert holders_of(put)["node"][0] == 1, "the actor's worker"
    assert {one["name"] for one in put["held_by"] if one["role"] == "node"} == {node}
    workers = next(row for row in rows.values() if row["role"] == "node")
    assert (workers["sort"], workers["home"]) == ("put", node)
    assert workers["size_bytes"] > 2 * MB
    kept = [row for row in rows.values() if row["name"] == "makes"]
    assert [row["state"] for row in kept] == ["ready", "ready"]
    assert kept[0]["size_bytes"] > 5 * MB
    assert 100 < kept[1]["size_bytes"] < 1000
    assert ("actor", "Holder") in by_what(answer)
    homes = {home["name"]: home for home in answer["homes"]}
    assert homes[node]["objects"] == 1
    assert answer["left_out"] == len(answer["silent"]) == 0

    assert len(told(cluster.address, "--limit", "1", "makes")["objects"]) == 1
    assert "result of makes" in drumbeat.get(asks.remote(cluster.address)), "from inside"

    drumbeat.get(holder.free.remote())
    del array, small, large, holder
    until(lambda: typed(cluster.address) == "no object is kept\n", 30.0)


def test_a_value_that_only_an_actor_holds_is_kept_by_its_home_and_said_to_be(
    cluster: Cluster,
) -> None:
    holder, value = Holder.remote(), drumbeat.put(b"kept" * 1000)
    drumbeat.get(holder.hold.remote([value]))
    del value

    def row() -> dict[str, Any]:
        return next(one for one in told(cluster.address)["objects"] if one["sort"] == "put")

    until(lambda: "client" not in holders_of(row()), 30.0)
    assert holders_of(row()) == {"node": (1, 0)}
    assert (row()["role"], row()["state"]) == ("client", "ready")


@drumbeat.remote
def array(number: int) -> Any:
    return np.full(4 * MB // 8, number, dtype=np.int64)


@needs_memory_files
def test_what_memory_has_no_room_for_is_told_to_lie_on_disk(root: str, disk: Path) -> None:
    settings: dict[str, Any] = {"store_bytes_max": 10 * MB, "spill_directory": str(disk)}
    with drumbeat.init(num_cpus=1, runtime_directory=root, **settings) as cluster:
        puts = [drumbeat.put(np.full(4 * MB // 8, number, dtype=np.int64)) for number in range(3)]
        results = [array.remote(number) for number in range(3)]
        drumbeat.wait(results, num_returns=3)

        def places() -> list[str]:
            return sorted(row["place"] for row in told(cluster.address)["objects"])

        until(lambda: places() == [*["disk"] * 4, *["shared memory"] * 2])
        assert [drumbeat.get(ref)[0] for ref in puts + results] == [0, 1, 2, 0, 1, 2]

"""The client in another hand comes over the network: the page on the protocol suffices."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from drumbeat.protocol.cluster_file import read_address as read_file
from drumbeat.protocol.keys import show_address
from support.remote_cluster import RemoteCluster
from support.second_client import Refused, SecondClient, loads, read_address

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteCluster]:
    made = RemoteCluster(tmp_path_factory.mktemp("home"))
    made.start_scheduler()
    made.start_node("lab1")
    yield made
    made.end()


def line_of(file: Path) -> str:
    return show_address(*read_file(file))


def call(*args: object) -> bytes:
    return pickle.dumps((args, {}), 5)


def test_the_second_client_reads_an_address_and_runs_tasks(cluster: RemoteCluster) -> None:
    endpoint, keys = read_address(line_of(cluster.file("client")))
    second = SecondClient(endpoint, keys=keys)
    power = second.define(pickle.dumps((pow, False), 5), "pow")
    rows = second.gather(second.submit(power, *(call(number, 2) for number in range(100))))
    assert [pickle.loads(row[2]) for row in rows] == [number**2 for number in range(100)]
    make = second.define(pickle.dumps((bytes, False), 5), "bytes")
    (row,) = second.gather(second.submit(make, call(bytes(range(256)) * 8192)))
    assert loads(row[2]) == bytes(range(256)) * 8192
    second.close()


def test_with_a_nodes_key_it_submits_nothing(cluster: RemoteCluster) -> None:
    endpoint, role, credentials = read_file(cluster.file("node"))
    assert role == "node"
    with pytest.raises(Refused, match="KeyRefused: second comes as a client with the key of a"):
        SecondClient(endpoint, keys=tuple(credentials))


def test_without_a_key_it_is_not_even_answered(cluster: RemoteCluster) -> None:
    endpoint, _ = read_address(line_of(cluster.file("client")))
    with pytest.raises(TimeoutError):
        SecondClient(endpoint, timeout_s=1.0)

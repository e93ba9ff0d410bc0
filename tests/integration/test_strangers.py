"""Many connections that say Hello and nothing else: whoever has work is served all the same."""

import subprocess
import sys
import time
from collections.abc import Iterator

import drumbeat
import pytest
import zmq
from drumbeat.client.local import Cluster
from drumbeat.protocol import codec
from drumbeat.protocol.frames import PROTOCOL_VERSION, Hello
from support.second_client import PYTHON
from support.waiting import until

pytestmark = pytest.mark.integration

STRANGERS_MAX = 24
FLOOD = 150

PROGRAM = """
import sys
import drumbeat
with drumbeat.init(sys.argv[1]):
    print(drumbeat.get(drumbeat.remote(pow).remote(2, 10)))
"""


@drumbeat.remote
def double(number: int) -> int:
    return 2 * number


@pytest.fixture
def cluster(root: str) -> Iterator[Cluster]:
    settings = {
        "strangers_max": STRANGERS_MAX,
        "enter_timeout_s": 0.5,
        "runtime_directory": root,
    }
    with drumbeat.init(num_cpus=1, **settings) as made:
        yield made


def refused() -> dict[str, int]:
    from drumbeat.protocol.session import current

    return dict(current().query("status")["refused"])


def test_a_program_gets_in_beside_a_flood_of_connections_that_only_say_hello(
    cluster: Cluster,
) -> None:
    context = zmq.Context()
    dealers = []
    try:
        for number in range(FLOOD):
            dealer = context.socket(zmq.DEALER)
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.connect(f"ipc://{cluster.address}/scheduler.sock")
            peer = b"s" + number.to_bytes(5, "big")
            dealer.send(
                codec.encode(Hello(PROTOCOL_VERSION, "client", peer, 0, 0, 0, PYTHON, "flood"))
            )
            dealers.append(dealer)
        assert drumbeat.get(double.remote(21)) == 42
        begun_s = time.monotonic()
        said = subprocess.run(
            [sys.executable, "-c", PROGRAM, cluster.address],
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        assert said.stdout == "1024\n"
        assert time.monotonic() - begun_s < 15.0, "it came again until there was room"
        told = refused()
        assert told["hellos_put_off"] >= FLOOD - STRANGERS_MAX - 12
        until(lambda: refused()["strangers"] >= STRANGERS_MAX // 2)
    finally:
        for dealer in dealers:
            dealer.close()
        context.term()
    assert drumbeat.get(double.remote(4)) == 8

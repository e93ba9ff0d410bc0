"""A node whose keeper is killed in the middle of a turn of the daemon's loop.

Run as a program, as node_house.py, with "owned" or "drains": what TERM means to the daemon.
"""

import os
import select
import signal
import sys

import node_house
from drumbeat.node import keeper, service
from drumbeat.node.events import Event
from drumbeat.node.pool import Pool
from drumbeat.protocol.settings import Settings
from process_table import children_of

ENDPOINT = "ipc:///nobody/listens/here"


def mid_turn(daemon: service.Daemon, pool: Pool, keeper_pid: int) -> None:
    """Have the keeper die when the pool has just looked whether it lives."""
    look = pool.turn

    def turn(at_s: float, readable: bool = True) -> list[Event]:
        pool.turn = look  # type: ignore[method-assign]
        happened = look(at_s, readable)
        # A template that has begun to serve would sweep, and end the daemon before it has written.
        for pid in children_of(keeper_pid):
            if pid != os.getpid():
                os.kill(pid, signal.SIGKILL)
        os.kill(keeper_pid, signal.SIGKILL)
        # The kernel's TERM is there when its handler has written to this pipe.
        assert select.select([daemon._stop_read], [], [], 20.0)[0]
        return happened

    pool.turn = turn  # type: ignore[method-assign]


def main(house: keeper.House) -> int:
    daemon = service.Daemon(house, service.Plan(ENDPOINT, "orphan", {"CPU": 1.0}))
    mid_turn(daemon, daemon._pool, house.keeper_pid)
    try:
        node_house.write(["took its leave", daemon.run()])
    except SystemExit as error:
        node_house.write([str(error.code), daemon._terms])
        raise
    return 0


if __name__ == "__main__":
    owner = int(sys.argv[4]) if sys.argv[1] == "owned" else None
    raise SystemExit(keeper.run(main, Settings.load_json(sys.argv[3]), owner_fd=owner))

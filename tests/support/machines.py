"""A cluster of which each part believes that it is on a machine of its own."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import drumbeat
import psutil

from .remote_cluster import Process, RemoteCluster


class Machines:
    """A scheduler, two nodes and this program, each on a machine of its own, as far as it knows."""

    def __init__(self, cluster: RemoteCluster) -> None:
        self.cluster = cluster
        self.scheduler = cluster.start_scheduler()
        self.nodes: dict[str, Process] = {}

    def start(self, *names: str, **environ: str) -> None:
        for name in names:
            where = ("--cluster", str(self.cluster.file("node")))
            self.nodes[name] = self.cluster.start_node(
                name, *where, DRUMBEAT_MACHINE=f"machine of {name}", **environ
            )

    def kill(self, name: str) -> None:
        """Kill all processes of a node."""
        for process in self.nodes[name].family():
            with suppress(psutil.NoSuchProcess):  # the death of its keeper may have ended it
                process.kill()

    def init(self, **settings: Any) -> Any:
        return drumbeat.init(self.cluster.file("client"), machine="that of the program", **settings)

    def most_memory(self) -> int:
        """Return the most memory that the scheduler's processes have had at once, of each."""
        return max(_most_memory(one) for one in self.scheduler.family())

    def relays(self) -> list[str]:
        events = self.cluster.asked("events")
        return [row["text"] for row in events if row["kind"] == "relay"]


def _most_memory(process: psutil.Process) -> int:
    text = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    return int(text.partition("VmHWM:")[2].split()[0]) << 10

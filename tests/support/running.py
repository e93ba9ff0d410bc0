"""What runs in the cluster of this process, as the scheduler knows it, and where that is."""

import contextlib
import subprocess
import sys
from typing import Any

import drumbeat
from drumbeat.client.local import Cluster
from drumbeat.protocol.session import current


def stack_of(cluster: Cluster, what: int | str) -> str:
    given = [sys.executable, "-m", "drumbeat.client.cli", "stack", str(what)]
    given += ["--address", cluster.address]
    done = subprocess.run(given, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def running(name: str) -> list[dict[str, Any]]:
    session = current()
    assert session is not None
    with contextlib.suppress(drumbeat.GetTimeoutError):
        tasks = session.query("tasks", limit=1000)
        return [row for row in tasks if row["name"] == name and row.get("verdict")]
    return []


def runs(name: str) -> bool:
    return bool(running(name))

"""The program with two actors, one on each node, that write down whatever they do.

`actor_job.py DIRECTORY CLUSTER NAME`. Each actor appends lines to DIRECTORY/acts, from a thread of
its own and in each of its calls: the actor's name, the number of its incarnation, its process, its
node, the time. The program calls both until DIRECTORY/stop is there, and then writes what its calls
came to into DIRECTORY/NAME.json.
"""

import json
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import drumbeat

EACH_S = 0.005
CALLS_EACH_S = 0.02
ACTORS = ("a", "b")
#: whatever has not come by then hangs
RESOLVE_S = 60.0


@drumbeat.remote(max_restarts=20, retry_backoff_s=0.01, num_cpus=0)
class Busy:
    """Acts all the time."""

    def __init__(self, path: str, name: str) -> None:
        here = drumbeat.current()
        self._words = f"{name} {here.fence} {os.getpid()} {here.node}"
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._calls = 0
        threading.Thread(target=self._go_on, daemon=True).start()

    def _go_on(self) -> None:
        while True:
            self._note()
            time.sleep(EACH_S)

    def _note(self) -> None:
        os.write(self._file, f"{self._words} {time.monotonic_ns()}\n".encode())

    def act(self) -> int:
        """Act once more, and return how often it was called."""
        self._note()
        self._calls += 1
        return self._calls


def main() -> None:
    """Run."""
    directory, cluster, name = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    outcomes: Counter[str] = Counter()
    with drumbeat.init(cluster):
        actors = [Busy.remote(str(directory / "acts"), one) for one in ACTORS]
        drumbeat.get([actor.act.remote() for actor in actors], timeout=RESOLVE_S)
        (directory / f"{name}.ready").touch()
        pending: dict[Any, None] = {}
        while not (directory / "stop").exists():
            pending.update(dict.fromkeys(actor.act.remote() for actor in actors))
            time.sleep(CALLS_EACH_S)
        end_s = time.monotonic() + RESOLVE_S
        for ref in pending:
            try:
                drumbeat.get(ref, timeout=max(0.0, end_s - time.monotonic()))
                outcomes["value"] += 1
            except Exception as error:  # noqa: BLE001  # the trial judges it
                outcomes[type(error).__name__] += 1
        # Afterwards both answer again.
        drumbeat.get([actor.act.remote() for actor in actors], timeout=RESOLVE_S)
    path = directory / f"{name}.json"
    path.with_suffix(".new").write_text(json.dumps(outcomes), encoding="utf-8")
    path.with_suffix(".new").replace(path)


if __name__ == "__main__":
    main()

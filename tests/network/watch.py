"""What the scheduler believes of its nodes and clients, noted whenever it changes.

`watch.py DIRECTORY CLUSTER NAME`, beside the scheduler. Appends lines of JSON to
DIRECTORY/NAME.seen: the time, until when all was as before, each node's state, how many clients
there are, what is taken.
"""

import json
import sys
import time
from pathlib import Path

import drumbeat
from drumbeat.protocol.session import current

EACH_S = 0.02


def main() -> None:
    """Look for ever."""
    directory, cluster, name = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    before = ""
    with drumbeat.init(cluster), open(directory / f"{name}.seen", "a", encoding="utf-8") as file:
        session = current()
        assert session is not None
        (directory / f"{name}.ready").touch()
        before_s = asked_s = time.monotonic()
        while True:
            before_s, asked_s = asked_s, time.monotonic()
            nodes = {node["name"]: node["state"] for node in session.query("nodes", 100)}
            status = session.query("status", 1)
            total, free = status["resources"]["total"], status["resources"]["free"]
            taken = {name: total[name] - free[name] for name in total if total[name] != free[name]}
            # This program is one of the clients.
            seen = {"nodes": nodes, "clients": status["clients"] - 1, "taken": taken}
            text = json.dumps(seen, sort_keys=True)
            if text != before:
                before = text
                line = {"at_s": time.monotonic(), "before_s": before_s, **seen}
                file.write(json.dumps(line) + "\n")
                file.flush()
            time.sleep(EACH_S)


if __name__ == "__main__":
    main()

"""The job of the compose test: piped into a container, it prints one line of JSON.

It runs long enough that a scheduler can be killed meanwhile.
"""

import json
import sys
import time

import drumbeat

TASKS = 600
#: of each task: on three CPUs the job takes half a minute
SLEEP_S = 0.15
NODES = 3


@drumbeat.remote
def square(number: int) -> tuple[int, str]:
    """Return a square, and where it was computed."""
    import socket

    time.sleep(SLEEP_S)
    return number * number, socket.gethostname()


def main() -> None:
    with drumbeat.init():
        until_s = time.monotonic() + 60
        while len(drumbeat.nodes()) < NODES and time.monotonic() < until_s:
            time.sleep(0.2)
        print("begun", file=sys.stderr, flush=True)
        found = drumbeat.get([square.remote(number) for number in range(TASKS)])
        hosts = sorted({host for _, host in found})
        print(json.dumps({"total": sum(value for value, _ in found), "hosts": hosts}), flush=True)


if __name__ == "__main__":
    main()

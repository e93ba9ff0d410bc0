"""An innocent program: it keeps a cluster busy, and writes twice a second how much got done.

`job.py ADDRESS sleeping`: tasks that wait, a few at a time: what each of them costs is not felt.
`job.py ADDRESS saturated`: tasks that do nothing, as many as the cluster can do.
"""

import sys
import time
from collections import deque
from typing import Final

import drumbeat

#: outstanding at a time
WIDTH: Final = 40
#: of those that do nothing: so many at once, so many times
BATCH: Final = 500
BATCHES: Final = 8
TELL_EACH_S: Final = 0.5


@drumbeat.remote
def work(number: int) -> int:
    time.sleep(0.002)
    return number + 1


@drumbeat.remote
def nothing() -> None:
    pass


class Telling:
    """Writes what got done, and what was wrong of it."""

    def __init__(self) -> None:
        self.done = self.wrong = 0
        self._told_s = time.monotonic()

    def tell(self) -> None:
        now = time.monotonic()
        if now - self._told_s >= TELL_EACH_S:
            print(self.done, self.wrong, now, flush=True)
            self._told_s = now


def sleeping() -> None:
    """Wait for one at a time of a few."""
    waiting: dict[drumbeat.ObjectRef[int], int] = {}
    number = 0
    telling = Telling()
    while True:
        while len(waiting) < WIDTH:
            waiting[work.remote(number)] = number
            number += 1
        ready, _ = drumbeat.wait(list(waiting), num_returns=1)
        for ref in ready:
            telling.wrong += drumbeat.get(ref) != waiting.pop(ref) + 1
            telling.done += 1
        telling.tell()


def saturated() -> None:
    """Wait for the oldest batch of many."""
    waiting: deque[list[drumbeat.ObjectRef[None]]] = deque()
    telling = Telling()
    while True:
        while len(waiting) < BATCHES:
            waiting.append([nothing.remote() for _ in range(BATCH)])
        telling.wrong += sum(value is not None for value in drumbeat.get(waiting.popleft()))
        telling.done += BATCH
        telling.tell()


def main(address: str, kind: str) -> int:
    with drumbeat.init(address):
        {"sleeping": sleeping, "saturated": saturated}[kind]()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

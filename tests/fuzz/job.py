"""An innocent program: it keeps a cluster busy, and writes once a second how much got done."""

import sys
import time

import drumbeat

#: outstanding at a time
WIDTH = 40


@drumbeat.remote
def work(number: int) -> int:
    time.sleep(0.002)
    return number + 1


def main(address: str) -> int:
    with drumbeat.init(address):
        waiting: dict[drumbeat.ObjectRef[int], int] = {}
        number = done = wrong = 0
        told_s = time.monotonic()
        while True:
            while len(waiting) < WIDTH:
                waiting[work.remote(number)] = number
                number += 1
            ready, _ = drumbeat.wait(list(waiting), num_returns=1)
            for ref in ready:
                wrong += drumbeat.get(ref) != waiting.pop(ref) + 1
                done += 1
            now = time.monotonic()
            if now - told_s >= 0.5:
                print(done, wrong, now, flush=True)
                told_s = now


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

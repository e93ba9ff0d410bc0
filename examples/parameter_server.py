"""A parameter server: an actor holds the weights, others learn from parts of the data.

Run it with `python examples/parameter_server.py`; a local cluster starts, or DRUMBEAT_ADDRESS says
which one is used. A line is fitted to noisy points by gradient descent, without any library. Each
learner asks the server for the weights, computes a gradient from its own points, and sends that;
nobody waits for the slowest. With `--kill` a learner's process is killed in the middle: it is
created anew (max_restarts), and what it was doing is repeated (max_task_retries).
"""

import argparse
import random
import time
from typing import Any

import drumbeat

SLOPE, OFFSET = 2.5, -1.0


@drumbeat.remote
class Server:
    """Holds the weights; the gradients of all learners come here, one after the other."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.slope = self.offset = 0.0
        self.updates = 0

    def weights(self) -> tuple[float, float]:
        """Return slope and offset as they are now."""
        return self.slope, self.offset

    def learn(self, gradient: tuple[float, float]) -> int:
        """Go down a gradient; return how often that was done."""
        self.slope -= self.rate * gradient[0]
        self.offset -= self.rate * gradient[1]
        self.updates += 1
        return self.updates


@drumbeat.remote(max_restarts=3, max_task_retries=3)
class Learner:
    """Has a share of the points, which it makes from a seed: anew if its process dies."""

    def __init__(self, server: Any, seed: int, points: int) -> None:
        chance = random.Random(seed)
        self.server = server
        self.xs = [chance.uniform(-1, 1) for _ in range(points)]
        self.ys = [SLOPE * x + OFFSET + chance.gauss(0, 0.1) for x in self.xs]

    def steps(self, count: int) -> float:
        """Learn so often; return the mean square of the errors before the last step."""
        loss = 0.0
        for _ in range(count):
            slope, offset = drumbeat.get(self.server.weights.remote())
            errors = [slope * x + offset - y for x, y in zip(self.xs, self.ys, strict=True)]
            by_slope = sum(error * x for error, x in zip(errors, self.xs, strict=True))
            gradient = 2 * by_slope / len(errors), 2 * sum(errors) / len(errors)
            drumbeat.get(self.server.learn.remote(gradient))
            loss = sum(error * error for error in errors) / len(errors)
        return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--learners", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="of each learner in a round")
    parser.add_argument("--kill", action="store_true", help="kill a learner in the middle")
    given = parser.parse_args()
    with drumbeat.init():
        server = Server.remote(rate=0.1)
        learners = [Learner.remote(server, seed, 500) for seed in range(given.learners)]
        for number in range(1, given.rounds + 1):
            begun_s = time.perf_counter()
            losses = [learner.steps.remote(given.steps) for learner in learners]
            if given.kill and number == 2:
                time.sleep(0.05)
                drumbeat.kill(learners[0], no_restart=False)
                print("killed the process of a learner")
            worst = max(drumbeat.get(losses))
            slope, offset = drumbeat.get(server.weights.remote())
            took_s = time.perf_counter() - begun_s
            print(f"round {number}: {slope:+.3f} x {offset:+.3f}, loss {worst:.4f}, {took_s:.2f} s")
        print(f"the points were made of {SLOPE:+.3f} x {OFFSET:+.3f}")


if __name__ == "__main__":
    main()

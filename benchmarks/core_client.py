"""What the client's core costs a task: submitted, resolved, freed; in microseconds.

python benchmarks/core_client.py
"""

import gc
import time

from drumbeat.client.core import ClientCore
from drumbeat.client.events import Call, Connected, Received, RefsChanged, Submitted
from drumbeat.protocol.ids import IdFactory, ObjectId, PeerId
from drumbeat.protocol.messages import (
    Credit,
    Environment,
    KindRow,
    Options,
    Outcome,
    Results,
    TaskRow,
    ValueRow,
)
from drumbeat.protocol.settings import Settings

TASKS = 20_000
BATCH = 200
PEER = PeerId(b"client")
OPTIONS = Options()


def main() -> None:
    best: dict[str, float] = {}
    for _ in range(7):
        gc.collect()
        for name, seconds in once().items():
            best[name] = min(best.get(name, 1e9), seconds)
    best["all"] = sum(best.values())
    for name, seconds in best.items():
        print(f"{name:10} {seconds / TASKS * 1e6:6.3f} µs a task")


def once() -> dict[str, float]:
    core = ClientCore(Settings(), PEER, "benchmark", Environment())
    core.handle(Connected(1, False), 0.0)
    core.handle(Received(Credit(TASKS, 1 << 30)), 0.0)
    core.turn(0.0)
    next_id = IdFactory(PEER)
    calls = [Call(TaskRow(next_id(), 1, b"arguments"), OPTIONS) for _ in range(TASKS)]
    results = [ValueRow(call.row.id, Outcome.VALUE, b"value", 5) for call in calls]
    kinds = [KindRow(1, b"h" * 16, "f", OPTIONS, b"function")]
    begun = time.perf_counter()
    for start in range(0, TASKS, BATCH):
        core.handle(Submitted(kinds, calls[start : start + BATCH]), 0.0)
        core.turn(0.0)
        kinds = []
    submitted = time.perf_counter()
    for start in range(0, TASKS, BATCH):
        core.handle(Received(Results(results[start : start + BATCH])), 0.0)
        core.turn(0.0)
    resolved = time.perf_counter()
    for start in range(0, TASKS, BATCH):
        rows = results[start : start + BATCH]
        core.handle(RefsChanged([(ObjectId(row.id), -1) for row in rows]), 0.0)
        core.turn(0.0)
    freed = time.perf_counter()
    assert not any(core.at_rest().values())
    return {
        "submit": submitted - begun,
        "resolve": resolved - submitted,
        "free": freed - resolved,
    }


if __name__ == "__main__":
    main()

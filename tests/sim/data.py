"""Worlds in which large payloads go from peer to peer, and what goes wrong there.

What is large is small here: some tens of bytes. Connections between peers are cut, stall and crawl
while those to the scheduler are fine, and to some nodes nobody has a way. Never runs anything.
"""

from random import Random
from typing import Any, Final

import msgspec

from . import operations as op
from .operations import Fault, Operation, Scenario
from .scripts import Spec

#: share of the worlds in which they do
DATA: Final = 0.33
#: share of those in which something is wrong between peers, and of those with a node behind a wall
TROUBLED: Final = 0.7
WALLED: Final = 0.15
#: bytes of padding of values and arguments
SIZES: Final = (0, 0, 100, 700, 3_000, 20_000)


def draw_data(scenario: Scenario) -> Scenario:
    """Return the same world; in some, payloads go past the scheduler."""
    return with_data(scenario) if Random(f"has data {scenario.seed}").random() < DATA else scenario


def with_data(scenario: Scenario) -> Scenario:
    """Return the same world, in which payloads go past the scheduler."""
    if scenario.data:
        return scenario
    random = Random(f"data {scenario.seed}")
    pick = random.choice
    settings: dict[str, Any] = {
        "inline_bytes_max": pick((30, 60, 300)),
        "data_bytes_min": pick((30, 60, 300, 2_000)),
        "data_window_bytes": pick((500, 5_000, 1 << 20)),
        "data_silence_s": pick((0.3, 1.0, 5.0)),
        "data_idle_s": pick((0.2, 2.0, 60.0)),
        "frame_bytes_max": pick((1 << 10, 8 << 10, 1 << 20)),
    }
    tape = [_with_sizes(random, entry) for entry in scenario.tape]
    tape += _troubles(random, scenario)
    walled = [name for name in scenario.nodes if random.random() < 0.5]
    return msgspec.structs.replace(
        scenario,
        data=True,
        settings=scenario.settings | settings,
        walled=walled if random.random() < WALLED else [],
        tape=sorted(tape, key=lambda entry: entry.at_s),
    )


def _with_sizes(random: Random, entry: Operation | Fault) -> Operation | Fault:
    if isinstance(entry, op.Put):
        return msgspec.structs.replace(entry, size=entry.size or random.choice(SIZES))
    if isinstance(entry, op.Submit | op.CreateActor | op.CallActor):
        return msgspec.structs.replace(entry, spec=_larger(random, entry.spec))
    return entry


def _larger(random: Random, spec: Spec) -> Spec:
    steps = [
        step if step.spec is None
        else msgspec.structs.replace(step, spec=_larger(random, step.spec))
        for step in spec.steps
    ]  # fmt: skip
    sizes = [random.choice(SIZES) for _ in range(2)]
    weight = spec.weight or random.choice(SIZES)
    return msgspec.structs.replace(spec, steps=steps, sizes=sizes, weight=weight)


def _troubles(random: Random, scenario: Scenario) -> list[Fault]:
    """Return what goes wrong between peers, most of it shortly after something was asked for."""
    if random.random() >= TROUBLED:
        return []
    peers = [*scenario.nodes, *(f"c{number}" for number in range(scenario.clients))]
    made: list[Fault] = []
    for _ in range(random.choice((1, 2, 4, 8))):
        at_s = random.uniform(0.0, scenario.chaos_s)
        if scenario.tape and random.random() < 0.6:
            at_s = random.choice(scenario.tape).at_s + 10 ** random.uniform(-4.0, -0.3)
        who = random.choice(peers)
        match random.randrange(4):
            case 0:
                made.append(op.Slow(at_s=at_s, who=who, factor=20.0, for_s=1.0, data=True))
            case 1:
                way, for_s = random.choice(("up", "down")), random.choice((0.05, 1.0, 6.0))
                made.append(op.Stall(at_s=at_s, who=who, way=way, for_s=for_s, data=True))
            case _:
                half_open = random.random() < 0.4
                made.append(op.Cut(at_s=at_s, who=who, half_open=half_open, data=True))
    return [fault for fault in made if fault.at_s <= scenario.chaos_s]

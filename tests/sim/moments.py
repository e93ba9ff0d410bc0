"""When things go wrong: in some worlds anywhere, in others just when it matters.

A fault in the midst of nothing shows nothing, nor does a cancel of what has long ended. What breaks
promises happens shortly after something was asked for, shortly before or after another fault, or
while one who was away comes back. Never changes what users ask for.
"""

from collections.abc import Sequence
from random import Random

from . import operations as op
from .operations import Fault, Operation, Scenario

#: how far from its moment a fault is: as likely below a millisecond as above ten
NEAR_S = (1e-4, 0.5)
#: shares of the faults that are moved to a moment
SHARES = (0.0, 0.5, 0.9)
#: share of the worlds with a crash of the scheduler in which a node that was given up returns to
#: the life after
BEHIND = 0.15


def gather(
    random: Random, operations: Sequence[Operation | Fault], faults: Sequence[Operation | Fault]
) -> None:
    """Move some of `faults` to where one of the operations, or another of them, happens."""
    share = random.choice(SHARES)
    for fault in faults:
        if random.random() >= share:
            continue
        moments = [entry.at_s for entry in operations]
        others = [other for other in faults if other is not fault]
        if others and random.random() < 0.5:
            moments = [other.at_s for other in others]
            moments += [_back_s(other) for other in others]
        if moments:
            least_s, most_s = NEAR_S
            away_s = least_s * (most_s / least_s) ** random.random()
            before = random.random() < 0.2
            moment_s = random.choice(moments)
            fault.at_s = max(0.0, moment_s - away_s if before else moment_s + away_s)


def leave_behind(
    random: Random,
    scenario: Scenario,
    operations: Sequence[Operation | Fault],
    faults: Sequence[Operation | Fault],
) -> list[Operation | Fault]:
    """Have a node away for so long that it is given up, and the scheduler die before it returns."""
    crashes = [fault for fault in faults if isinstance(fault, op.CrashScheduler)]
    if not crashes or random.random() >= BEHIND:
        return []
    settings = scenario.settings
    for_s = 1.3 * settings["lost_after_intervals"] * settings["heartbeat_interval_s"]
    at_s = random.choice(operations).at_s + 10 ** random.uniform(-4.0, -0.5)
    crashes[0].at_s = at_s + for_s * random.uniform(0.8, 1.0)
    return [op.PauseHost(at_s=at_s, node=random.randrange(len(scenario.nodes)), for_s=for_s)]


def _back_s(fault: Operation | Fault) -> float:
    """Return when a fault is over."""
    if isinstance(fault, op.CrashScheduler | op.CrashNode):
        return fault.at_s + fault.down_s
    return fault.at_s + float(getattr(fault, "for_s", 0.0))

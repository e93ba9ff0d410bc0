"""When things go wrong: in some worlds anywhere, in others just when it matters.

A fault in the midst of nothing shows nothing, nor does a cancel of what has long ended. What breaks
promises happens shortly after something was asked for, shortly before or after another fault, or
while one who was away comes back. Never adds an entry and never takes one away.
"""

from collections.abc import Sequence
from random import Random

from . import operations as op
from .operations import Fault, Operation

#: how far from its moment a fault is: as likely below a millisecond as above ten
NEAR_S = (1e-4, 0.5)
#: shares of the faults that are moved to a moment
SHARES = (0.0, 0.5, 0.9)


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


def _back_s(fault: Operation | Fault) -> float:
    """Return when a fault is over."""
    if isinstance(fault, op.CrashScheduler | op.CrashNode):
        return fault.at_s + fault.down_s
    return fault.at_s + float(getattr(fault, "for_s", 0.0))

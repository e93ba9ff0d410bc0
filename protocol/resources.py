"""Amounts of resources as whole numbers, counted in the same way by scheduler and nodes.

Never knows what a resource is: CPUs, GPUs and whatever a node was given a name for are all alike.
"""

from typing import Final

from .forms import AMOUNT_MAX

#: parts of one: amounts are counted in these, so that nothing is lost by adding up
UNITS: Final = 10_000
#: the smallest amount above nothing
STEP: Final = 1 / UNITS
#: in words, which amounts fit
AMOUNTS: Final = f"a number from 0 to {AMOUNT_MAX:g}"


def fits(amount: float) -> bool:
    """Return whether a node can have, and a task ask for, so much of a resource."""
    return 0 <= amount <= AMOUNT_MAX


def units(amount: float) -> int:
    """Return an amount in whole units; a positive amount is never none at all."""
    return max(1, round(amount * UNITS)) if amount > 0 else 0

"""How long a world may take at worst: what a tape asks for, all of it one after the other.

Never looks at what happens in a run.
"""

from typing import Final

from .scripts import Spec

#: of one task. What went wrong in the chaos may have cost it one; what fails by itself, or for
#: what it waits for, may fail as often as draws let it be repeated
ATTEMPTS: Final = 2
ATTEMPTS_MAX: Final = 4
#: before each of those, about
PAUSE_S: Final = 1.0


def tasks(spec: Spec) -> int:
    """Return how many tasks this is, with all its children."""
    return 1 + sum(tasks(step.spec) for step in spec.steps if step.spec is not None)


def keeps(spec: Spec) -> bool:
    """Return whether a task or one of its children may wait for what is kept from it."""
    own = any(name in spec.options for name in ("num_gpus", "resources"))
    children = [step.spec for step in spec.steps if step.spec is not None]
    return (bool(spec.steps) and own) or any(keeps(child) for child in children)


def work_s(spec: Spec) -> float:
    """Return how long a task and its children take at worst, all attempts one after the other."""
    # Its own script need not raise: a child whose value it gets may fail each time.
    repeats = bool(spec.deaths or spec.errors or spec.options.get("retry_exceptions"))
    own_s = spec.seconds + spec.after_s + PAUSE_S * repeats
    steps_s = sum(step.seconds + (work_s(step.spec) if step.spec else 0.0) for step in spec.steps)
    return (own_s + steps_s) * (ATTEMPTS_MAX if repeats else ATTEMPTS)

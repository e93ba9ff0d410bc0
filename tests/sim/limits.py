"""Limits in the simulator: drawn, and judged by what was executed when somebody timed out.

Never looks into a core. A task may time out only for a limit that it has, when that time has
passed, and never runs again once its user has heard of it.
"""

from random import Random
from typing import TYPE_CHECKING, Any, Final

import msgspec
from drumbeat.protocol.limits import NO_LIMITS, TIMED_OUT
from drumbeat.protocol.messages import Failure

from . import operations as op
from .operations import FAULTS, Scenario
from .scripts import Spec, Step

if TYPE_CHECKING:
    from .oracle import Execution, Known, Oracle

#: clocks run fast or slow by a thousandth
CLOCKS: Final = 0.99
#: from the end of a limit to the first step of the ladder: looks, results of others, stacks
NOTICED_S: Final = 3.0
#: from the end of a limit until the node has heard of it
TOLD_S: Final = 1.0

_FIELDS: Final = {
    "timeout": "timeout_s", "queue_timeout": "queue_timeout_s", "total_timeout": "total_timeout_s",
}  # fmt: skip


class Limited:
    """What an oracle has seen of tasks with limits."""

    def __init__(self, oracle: "Oracle") -> None:
        self._oracle = oracle
        #: ladder's time, where nothing else goes wrong; 0: something does
        self.ends_within_s = 0.0
        #: programs keep tasks until there is credit, and a limit counts from when they are sent
        self.keeps_tasks = False
        #: tasks whose user has seen them time out, and those whose attempt was ended for that
        self._over: dict[bytes, None] = {}
        self._judged: dict[bytes, None] = {}

    def begin(self, scenario: Scenario, cancel_grace_s: float, term_grace_s: float) -> None:
        """A world begins."""
        self.keeps_tasks = "submit_credit_tasks" in scenario.settings
        if not any(isinstance(entry, FAULTS) for entry in scenario.tape):
            self.ends_within_s = NOTICED_S + cancel_grace_s + term_grace_s

    def saw(self, known: "Known", failure: Failure) -> None:
        """Somebody sees that a task has timed out, or a call whose actor was not there."""
        oracle, limits = self._oracle, known.options.limits or NO_LIMITS
        self._over[known.id] = None
        is_absent = failure.error == "ActorUnavailable"
        limit = "queue_timeout" if is_absent else str(failure.details.get("limit"))
        limit_s = getattr(limits, _FIELDS.get(limit, ""), 0.0)
        oracle.count(f"{limit} over")
        if not limit_s or (failure.details.get("limit_s") != limit_s and not is_absent):
            oracle.wrong(f"{known.id.hex()} timed out for {limit}, of {limits}: {failure.text}")
            return
        passed_s = oracle.clock.now_s - known.submitted_s
        if limit == "timeout":
            passed_s = max([_lasted_s(run, oracle.clock.now_s) for run in known.executions] + [0.0])
        if passed_s < CLOCKS * limit_s:
            oracle.wrong(f"{known.id.hex()}: {limit} of {limit_s:g} s over after {passed_s:g} s")
        excused = oracle.lives_lost or oracle.lives_late
        if limit == "queue_timeout" and known.executions and not excused:
            oracle.wrong(f"{known.id.hex()} waited too long for its turn, and had it")

    def judged(self, run: "Execution | None", reason: str) -> None:
        """What runs is interrupted."""
        if run is not None and reason == TIMED_OUT:
            self._judged[run.task.id] = None

    def started(self, known: "Known") -> None:
        """A task's code begins to run."""
        oracle, limits = self._oracle, known.options.limits
        if limits is None:
            return
        if known.id in self._over and not oracle.lives_lost:
            oracle.wrong(f"{known.id.hex()} starts though its user saw TaskTimedOut")
        if known.id in self._judged and not oracle.lives_lost and not oracle.lives_late:
            oracle.wrong(f"{known.id.hex()} is tried again though it has timed out")
        waited_s = oracle.clock.now_s - known.submitted_s
        # What waits for values, or for its actor, has another wait before that for its turn.
        is_sure = self.ends_within_s and not known.deps and not known.spec.weight
        is_sure = is_sure and not self.keeps_tasks
        if is_sure and limits.total_timeout_s and waited_s > limits.total_timeout_s + TOLD_S:
            oracle.wrong(f"{known.id.hex()} starts when its total_timeout has long been over")
        first = is_sure and len(known.executions) == 1
        if first and limits.queue_timeout_s and waited_s > limits.queue_timeout_s + TOLD_S:
            oracle.wrong(f"{known.id.hex()} starts when its queue_timeout has long been over")

    def ended(self, run: "Execution") -> None:
        """A task's code has ended, one way or the other."""
        limits = run.task.options.limits
        if limits is None or not limits.timeout_s or not self.ends_within_s:
            return
        spec, lasted_s = run.task.spec, _lasted_s(run, self._oracle.clock.now_s)
        # Who hears it and does nothing but sleep ends at the first step.
        is_quick = not (spec.deaf or spec.steps)
        if lasted_s > limits.timeout_s + (NOTICED_S if is_quick else self.ends_within_s):
            text = f"ran for {lasted_s:g} s with a timeout of {limits.timeout_s:g} s"
            self._oracle.wrong(f"{run.task.id.hex()} {text}")


def _lasted_s(run: "Execution", now_s: float) -> float:
    return min(run.ended_s, now_s) - run.began_s


def with_limits(scenario: Scenario) -> Scenario:
    """Return the same world, in which calls have limits, and some take long enough for them."""
    random = Random(f"limits {scenario.seed}")
    share = random.choice((0.2, 0.6, 1.0))
    tape: list[Any] = []
    for entry in scenario.tape:
        if isinstance(entry, op.Submit | op.CallActor):
            entry = msgspec.structs.replace(entry, spec=_limited(random, entry.spec, share))
        tape.append(entry)
    return msgspec.structs.replace(scenario, tape=tape)


def _limited(random: Random, spec: Spec, share: float) -> Spec:
    steps = [
        step if step.spec is None else _with_spec(step, _limited(random, step.spec, share))
        for step in spec.steps
    ]
    made = msgspec.structs.replace(spec, steps=steps)
    if random.random() < share:
        limits: dict[str, float] = {}
        for field, amounts_s in (
            ("timeout_s", (0.3, 0.3, 1.0, 3.0)),
            ("queue_timeout_s", (0.01, 0.1, 0.5, 2.0)),
            ("total_timeout_s", (0.05, 0.3, 1.0, 5.0)),
        ):
            if random.random() < 0.45:
                limits[field] = random.choice(amounts_s)
        if limits:
            made.options = {**spec.options, "limits": limits}
            if random.random() < 0.25:
                made.seconds = random.uniform(0.3, 5.0)
                made.deaf = random.random() < 0.2
    return made


def _with_spec(step: Step, spec: Spec) -> Step:
    return msgspec.structs.replace(step, spec=spec)

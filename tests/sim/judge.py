"""The end of a run: was everybody who failed entitled to fail like that?

Never guesses: a failure of the system needs a reason that the world itself brought about (a worker
that died, a peer that was given up, a cancel that was asked for).
"""

from typing import Final

from drumbeat.protocol.ids import ObjectId, home_of, task_of
from drumbeat.protocol.messages import Failure, Outcome, ValueRow

from . import scripts
from .actors import why_dead
from .oracle import Known, Oracle

NEVER_S: Final = float("inf")


class Judge:
    """Looks at all that an oracle has seen."""

    def __init__(self, oracle: Oracle, poison_deaths: int, infeasible_timeout_s: float) -> None:
        self.oracle = oracle
        self.poison_deaths = poison_deaths
        self.infeasible_timeout_s = infeasible_timeout_s

    def judge(self) -> None:
        """Add what is wrong to the oracle's violations."""
        oracle = self.oracle
        for known, nodes in oracle.doubles:
            excused = oracle.lives_lost.keys() | oracle.lives_late.keys()
            if not any(peer in excused for peer in (*nodes, known.id[:6])):
                oracle.wrong(f"{known.id.hex()} ran twice at the same time; no node was given up")
        for row, who in oracle.failures:
            failed = oracle.tasks.get(task_of(ObjectId(row.id)))
            if row.outcome == Outcome.ERROR:
                reason = self._of_error(failed, row)
            elif row.failure is None:
                reason = "a failure without a reason"
            else:
                reason = self._of_failure(failed, row.failure, row)
            if reason:
                oracle.wrong(f"{who} saw {row.id.hex()} fail: {reason}")

    def _of_error(self, known: Known | None, row: ValueRow) -> str:
        if known is None:
            return "an error of what is no task"
        report = scripts.read_report(row.payload or b"")
        if report.label != known.spec.label:
            return f"the error of another task, {report.label}"
        if report.reason == "raised":
            return "" if known.spec.errors else "its script does not raise"
        if report.reason == "deadlock":
            return ""
        if report.reason == "lost":
            home = home_of(ObjectId(report.about))
            gone = self.oracle.lives_lost or home in self.oracle.clients_gone
            return "" if gone else "bytes were lost; no peer was given up"
        about = self.oracle.tasks.get(task_of(ObjectId(report.about)))
        if about is not None and self._fails(about):
            return ""
        if home_of(ObjectId(report.about)) in self.oracle.clients_gone:
            return ""  # it is lost, as it may be; a value that was put is of no task
        return "" if self.oracle.lives_lost else "because of a child that did not fail"

    def _fails(self, known: Known) -> bool:
        return any(row.outcome != Outcome.VALUE for row in known.rows.values())

    def _of_failure(self, known: Known | None, failure: Failure, row: ValueRow) -> str:
        lost = self.oracle.lives_lost
        error = failure.error
        if error == "ObjectLost":
            if lost or home_of(ObjectId(row.id)) in self.oracle.clients_gone:
                return ""
            return f"ObjectLost ({failure.text}) though no peer was given up"
        if known is None:
            return f"{error} of what is no task"
        if error in ("ActorDied", "ActorCallLost", "ActorUnavailable"):
            return why_dead(self.oracle, known, error)
        if error == "TaskCancelled":
            return "" if self._may_be_cancelled(known) else "TaskCancelled; nobody cancelled it"
        if error == "TaskTimedOut":
            return "" if known.options.limits is not None else "TaskTimedOut without a limit"
        if error == "NodeLost":
            return "" if lost else "NodeLost; no node was given up"
        if error in ("WorkerDied", "WorkerOutOfMemory", "PoisonTask"):
            return self._of_death(known, error)
        if error == "Infeasible":
            return "" if lost or not self._fits(known) else "Infeasible; a node is large enough"
        if error == "DependencyFailed":
            values = [self.oracle.tasks.get(dep[:14]) for dep in known.deps]
            if any(home_of(ObjectId(dep)) in self.oracle.clients_gone for dep in known.deps):
                return ""
            if lost or any(dep is not None and (self._fails(dep) or not dep.rows)
                           for dep in values):  # fmt: skip
                return ""
            return "DependencyFailed; no dependency failed"
        return f"{error}: {failure.text}"

    def _of_death(self, known: Known, error: str) -> str:
        if self.oracle.lives_lost or self.oracle.lives_late:
            return ""
        attempts = 1 + known.options.max_retries
        if not known.died:
            return f"{error}; no worker died with it"
        if error == "PoisonTask" and known.died < self.poison_deaths:
            return f"PoisonTask after {known.died} deaths"
        charged = known.died + (known.ended if known.options.retry_exceptions else 0)
        if error != "PoisonTask" and charged < attempts:
            return f"{error} after {known.died} deaths of {attempts} attempts"
        return ""

    def _may_be_cancelled(self, known: Known) -> bool:
        """Itself, or any task above it, was cancelled, died, or failed."""
        oracle = self.oracle
        if oracle.lives_lost.get(home_of(known.id)):
            return True
        above: Known | None = known
        while above is not None:
            if above.is_asked_to_stop or home_of(above.id) in oracle.clients_gone:
                return True
            above = oracle.tasks.get(above.parent) if above.parent else None
            if above is not None and (above.died or self._fails(above) or oracle.lives_lost):
                return True
            if above is not None and above.options.limits is not None:
                return True  # it may have timed out, and nobody have asked for its value
            if above is not None and any(
                execution.peer in oracle.lives_late for execution in above.executions
            ):
                return True
        return False

    def _fits(self, known: Known) -> bool:
        options = known.options
        asked = {"CPU": options.num_cpus, "GPU": options.num_gpus, **dict(options.resources)}
        # A nested call is refused at once, by what nodes there are; others are kept a while. The
        # scheduler's clock may run fast.
        kept_s = 0.0 if known.parent else self.infeasible_timeout_s * 0.99
        joined_s, by_s = self.oracle.joined_s, known.submitted_s + kept_s
        return any(
            joined_s.get(node, NEVER_S) <= by_s
            and node not in self.oracle.drained
            and all(capacity.get(name, 0.0) >= amount for name, amount in asked.items() if amount)
            and options.node in ("", node)
            for node, capacity in self.oracle.capacities.items()
        )

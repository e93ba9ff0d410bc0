"""The attempts each unfinished task may have had, over all lives of the scheduler.

Never decides what becomes of a task. A scheduler counts the attempts of its own life only; this
room adds them up, so that a restart gives no task more executions than it may have.
"""

from collections.abc import Container

from ..protocol.ids import TaskId


class Budget:
    """Attempts by task: those of ended link lives, and those of this one."""

    __slots__ = ("charged", "latest", "settled")

    def __init__(self) -> None:
        #: attempts that may have started in link lives that ended
        self.charged: dict[TaskId, int] = {}
        #: the highest attempt that was told of in this life; a task that is not here has its first
        self.latest: dict[TaskId, int] = {}
        #: see `Enter.settled`
        self.settled = 0

    def outlives(self, earlier: int, epoch: int) -> bool:
        """A link life begins, after one in an earlier epoch; return whether that one ended."""
        if earlier not in (0, epoch):
            return True
        # It has nothing of an earlier one, or charges itself for all of it.
        self.settled = epoch
        return False

    def told(self, rows: list[tuple[bytes, int]], tasks: Container[bytes]) -> None:
        """The scheduler will start, or has started, these attempts of what is unfinished."""
        for id_, attempt in rows:
            task = TaskId(id_)
            if task in tasks and attempt > self.latest.get(task, 1):
                self.latest[task] = attempt

    def spend(self, task: TaskId, max_retries: int) -> bool:
        """A link life in which the task was sent is over; return whether an attempt is left."""
        used = self.charged.get(task, 0) + self.latest.pop(task, 1)
        if used > max_retries:
            return False
        self.charged[task] = used
        return True

    def finished(self, task: TaskId) -> None:
        """Forget a task."""
        self.charged.pop(task, None)
        self.latest.pop(task, None)

"""What a node can run at once: its resources, which GPU is whose, and what is next in line.

Never gives out more than there is; never decides for whom (dispatch does).
"""

from ..protocol.resources import UNITS, units
from .attempts import Attempt, Demand, Shape

CPU = "CPU"
GPU = "GPU"


class Slots:
    """The resources of a node. Amounts are units (protocol/resources.py: UNITS to one)."""

    __slots__ = ("capacity", "free", "gpus")

    def __init__(self, resources: dict[str, float]) -> None:
        self.capacity = {name: units(amount) for name, amount in resources.items()}
        self.capacity.setdefault(CPU, 0)
        self.capacity.setdefault(GPU, 0)
        self.free = dict(self.capacity)
        #: free units of each GPU
        total = self.capacity[GPU]
        self.gpus = [min(UNITS, total - start) for start in range(0, total, UNITS)]

    def could(self, demand: Demand) -> bool:
        """Return whether an idle node of this size could run it."""
        capacity = self.capacity
        return (
            demand.cpus <= capacity[CPU]
            and demand.gpus <= capacity[GPU]
            and all(capacity.get(name, 0) >= amount for name, amount in demand.others)
        )

    def lacking(self, demand: Demand) -> list[str]:
        """Return the resources of which too little is free now."""
        free = self.free
        names = [name for name, amount in demand.others if free.get(name, 0) < amount]
        if free[CPU] < demand.cpus:
            names.append(CPU)
        if demand.gpus and self._choose_gpus(demand.gpus) is None:
            names.append(GPU)
        return names

    def count(self, demand: Demand, most: int) -> int:
        """Return how many of these fit now, `most` at most (GPUs by their sum only)."""
        free = self.free
        if demand.cpus:
            most = min(most, free[CPU] // demand.cpus)
        if demand.gpus:
            most = min(most, free[GPU] // demand.gpus)
        for name, amount in demand.others:
            most = min(most, free.get(name, 0) // amount)
        return most

    def take(self, demand: Demand) -> tuple[int, ...] | None:
        """Take a demand's resources; return the GPU indexes, or None: it does not fit."""
        free = self.free
        if free[CPU] < demand.cpus:
            return None
        for name, amount in demand.others:
            if free.get(name, 0) < amount:
                return None
        gpus: tuple[int, ...] = ()
        if demand.gpus:
            chosen = self._choose_gpus(demand.gpus)
            if chosen is None:
                return None
            gpus = chosen
            self._move_gpus(demand.gpus, gpus, -1)
        free[CPU] -= demand.cpus
        for name, amount in demand.others:
            free[name] -= amount
        return gpus

    def give(self, demand: Demand, gpus: tuple[int, ...], lent: int = 0) -> None:
        """Return a demand's resources; `lent` units of its CPUs were returned before."""
        free = self.free
        free[CPU] += demand.cpus - lent
        for name, amount in demand.others:
            free[name] += amount
        if demand.gpus:
            self._move_gpus(demand.gpus, gpus, 1)

    def lend(self, cpus: int) -> None:
        """Return CPUs of a worker that waits in get()."""
        self.free[CPU] += cpus

    def regain(self, cpus: int) -> bool:
        """Take CPUs back for a worker whose get() is over; False: not free now."""
        if self.free[CPU] < cpus:
            return False
        self.free[CPU] -= cpus
        return True

    def _choose_gpus(self, wanted: int) -> tuple[int, ...] | None:
        # Whole GPUs first; a fraction goes where least is left, so that whole ones stay whole.
        whole, part = divmod(wanted, UNITS)
        chosen = [index for index, free in enumerate(self.gpus) if free == UNITS][:whole]
        if len(chosen) < whole:
            return None
        if part:
            rest = [
                (free, index)
                for index, free in enumerate(self.gpus)
                if free >= part and index not in chosen
            ]
            if not rest:
                return None
            chosen.append(min(rest)[1])
        return tuple(chosen)

    def _move_gpus(self, amount: int, gpus: tuple[int, ...], sign: int) -> None:
        self.free[GPU] += sign * amount
        for index in gpus:
            step = min(UNITS, amount)
            self.gpus[index] += sign * step
            amount -= step


class Queue:
    """What is to run here, in the order (-priority, -depth, order), grouped by shape."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        #: shapes with something queued
        self.waiting: dict[Shape, None] = {}

    def push(self, attempt: Attempt) -> None:
        """Queue an attempt; one that comes back goes to its old place."""
        shape = attempt.kind.shape
        if not shape.count:
            self.waiting[shape] = None
        shape.push(attempt)

    def drop(self, attempt: Attempt) -> None:
        """Take a queued attempt out for good."""
        shape = attempt.kind.shape
        shape.drop(attempt)
        if not shape.count:
            del self.waiting[shape]

    def tidy(self) -> None:
        """Clear the places of those that are not queued any more."""
        for shape in self.waiting:
            shape.tidy()

    def count(self) -> int:
        """Return how many attempts are queued."""
        return sum(shape.count for shape in self.waiting)

    def take_back(self, count: int) -> list[Attempt]:
        """Take out the last `count` attempts in line."""
        line = [attempt for shape in self.waiting for attempt in shape.queued()]
        line.sort(key=lambda attempt: (attempt.rank, attempt.row.order), reverse=True)
        taken = line[: max(0, count)]
        for attempt in taken:
            self.drop(attempt)
        return taken

"""Memory segments, as far as the simulator has any: bytes that only a client's shell has.

A value or arguments "with a segment" are two objects: the bytes, an object whose row has a size and
no payload, and what needs them, whose row contains that object. Never looks at anybody's row.
"""

from random import Random
from typing import TYPE_CHECKING, Final

from drumbeat.client.invariants import segments_of
from drumbeat.protocol.ids import ObjectId, show

from . import operations as op
from .operations import Fault, Operation, Scenario
from .scripts import Step

if TYPE_CHECKING:
    from .shells import ClientProcess

#: share of the worlds in which there are segments, and share of the objects that then have one
SEGMENTS: Final = 0.3
SEGMENTED: Final = 0.5
#: share of the tasks that cannot map the segment of their arguments, and ask for its bytes
UNMAPPED: Final = 0.5


class Store:
    """The segments of one client: made before anybody is told of them, closed with their object."""

    def __init__(self, process: "ClientProcess") -> None:
        self.process = process
        self._segments: dict[ObjectId, bytes] = {}

    def __len__(self) -> int:
        return len(self._segments)

    def put(self, id_: ObjectId, payload: bytes) -> None:
        """Make one."""
        self.process.world.oracle.count("segment made")
        self._segments[id_] = payload

    def send(self, id_: ObjectId) -> None:
        """Somebody cannot map it: its bytes travel."""
        oracle = self.process.world.oracle
        if id_ not in self._segments:
            oracle.wrong(f"{self.process.name} is to send {show(id_)}, whose segment it has closed")
            return
        oracle.count("bytes of a segment sent")
        self.process.shell.send_blob(id_, self._segments[id_], id_)

    def close(self, ids: list[ObjectId]) -> None:
        """Their objects are freed."""
        for id_ in ids:
            self._segments.pop(id_, None)

    def check(self) -> None:
        """What the core knows of, and nothing else, is here. Between two turns."""
        known = segments_of(self.process.core)
        oracle, name = self.process.world.oracle, self.process.name
        for id_ in known:
            if id_ not in self._segments:
                oracle.wrong(f"{name} has closed the segment of {show(id_)}, which is kept")
        for id_ in self._segments.keys() - known:
            oracle.wrong(f"{name} has the segment of {show(id_)}, which nobody holds")


def draw_segments(scenario: Scenario, operations: list[Operation | Fault]) -> None:
    """Have some values and arguments be large."""
    random = Random(f"segments {scenario.seed}")
    if random.random() >= SEGMENTS:
        return
    for entry in operations:
        if not isinstance(entry, op.Submit | op.Put) or random.random() >= SEGMENTED:
            continue
        entry.segment = random.choice((10, 3_000, 40_000))
        if isinstance(entry, op.Submit) and random.random() < UNMAPPED:
            # Its arguments contain the segment before all else.
            entry.spec.steps.insert(0, Step(do="get", cells=[0]))

"""What is true of a node's records between turns, over all its rooms.

Never changes anything: it is for tests and the simulator.
"""

from ..protocol.ids import show
from .attempts import ARRIVING, GONE
from .ended import Ended
from .intake import Intake
from .state import NodeState


def check(state: NodeState, intake: Intake, ended: Ended) -> None:
    """Assert that attempts and objects agree with whoever holds them."""
    holds: dict[bytes, int] = {}
    for ids in (
        *(worker.holds for worker in state.workers.values()),
        *(attempt.pins for attempt in state.attempts.values()),
        *intake.pins(),
        *ended.pins(),
        *state.streams.pins(),
    ):
        for id_ in ids:
            holds[id_] = holds.get(id_, 0) + 1
    state.objects.check_invariants(holds)
    state.streams.check_invariants()
    for id_, attempt in state.attempts.items():
        assert attempt.row.id == id_, show(id_)
        assert attempt.state != GONE, show(id_)
        assert (attempt.state == ARRIVING) == (attempt.missing > 0), show(id_)

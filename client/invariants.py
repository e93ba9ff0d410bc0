"""What must hold in a client core between any two events; tests and the simulator check it.

Never changes anything.
"""

from typing import TYPE_CHECKING

from ..protocol.ids import ObjectId, home_of, objects_of, show, task_of
from ..protocol.parcels import is_parcel, opened
from ..protocol.payload_files import is_filed
from .home import HERE, PENDING

if TYPE_CHECKING:
    from .core import ClientCore


def check(core: "ClientCore") -> None:
    """Assert that all maps of a core agree.

    Raises:
        AssertionError: they do not, which is a bug.
    """
    home = core.home
    pins: dict[bytes, int] = dict(home.pinned.items())
    for task, call in core.tasks.items():
        actor = (call.options.actor,) if call.options.actor else ()
        for id_ in (*call.row.deps, *call.row.contained, *actor):
            pins[id_] = pins.get(id_, 0) + 1
        _check_parcel(task, call.row.args, call.row.contained)
        values = objects_of(task, call.options.num_returns)
        entries = [home.entries.get(id_) for id_ in values]
        waiting = [entry for entry in entries if entry and entry.state == PENDING]
        assert waiting or not values, f"{show(task)} is kept though it has its values"
        assert core.results.remaining.get(task, len(waiting)) == len(waiting) or not values
    for entry in home.entries.values():
        for id_ in () if entry.row is None else entry.row.contained:
            pins[id_] = pins.get(id_, 0) + 1
        if entry.row is not None and home_of(ObjectId(entry.row.id)) == home.peer:
            _check_parcel(entry.row.id, entry.row.payload, entry.row.contained)
    for id_ in segments_of(core):
        assert home_of(id_) == home.peer, f"{show(id_)} is here without its bytes"
    for id_, entry in home.entries.items():
        kept = entry.refs or entry.pins or entry.shared or entry.wanted
        assert kept or entry.state == PENDING, f"{show(id_)} is kept for nobody"
        assert entry.pins == pins.get(id_, 0), f"{show(id_)}: {entry.pins} pins"
        assert (entry.state == HERE) == (entry.row is not None), show(id_)
        own_task = task_of(id_) in core.tasks
        assert entry.state != PENDING or own_task, f"{show(id_)} waits for no task"
    for id_ in home.doubtful:
        assert home.entries[id_].shared, f"{show(id_)} was shared, and is not, before it is known"
    for some in core.results.noted():
        assert all(task in core.tasks for task in some)


def segments_of(core: "ClientCore") -> list[ObjectId]:
    """Return all objects whose bytes lie in memory segments, which the shell is to have."""
    return [
        id_
        for id_, entry in core.home.entries.items()
        if entry.row is not None and entry.row.payload is None and entry.row.size
    ]


def _check_parcel(id_: bytes, payload: bytes | None, contained: tuple[bytes, ...]) -> None:
    if is_parcel(payload) and not is_filed(payload or b""):
        for part in opened(payload or b"").parts:
            told = f"{show(id_)} needs {show(part.segment)}, and does not pin it"
            assert part.segment in contained, told

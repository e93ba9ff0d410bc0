"""Identities: what a peer, a task and an object are called on the wire.

Never draws chance itself: whoever makes an id hands in the random bytes.

    peer    6 random bytes; a client process, or one life of a node daemon
    task    peer (6) + ordinal (3) + counter (5); the ordinal tells the processes of one peer apart
            (0: the peer itself, n: its n-th worker), so a worker names its tasks without asking
    object  a task's only value has the task's id; value i of several is task + i in two bytes;
            a ``put`` takes an id of its own from the same counter
"""

from itertools import count
from typing import Final, NewType

PeerId = NewType("PeerId", bytes)
TaskId = NewType("TaskId", bytes)
ObjectId = NewType("ObjectId", bytes)

PEER_BYTES: Final = 6
ORDINAL_BYTES: Final = 3
COUNTER_BYTES: Final = 5
TASK_BYTES: Final = PEER_BYTES + ORDINAL_BYTES + COUNTER_BYTES
INDEX_BYTES: Final = 2
#: of one of several values, or of an item
OBJECT_BYTES: Final = TASK_BYTES + INDEX_BYTES
NO_PEER: Final = PeerId(b"")
NO_TASK: Final = TaskId(b"")


class IdFactory:
    """Names the tasks and objects that one process makes, in rising order."""

    __slots__ = ("_next", "_prefix")

    def __init__(self, peer: PeerId, ordinal: int = 0) -> None:
        if len(peer) != PEER_BYTES:
            raise ValueError(f"a peer id has {PEER_BYTES} bytes, not {len(peer)}")
        self._prefix = peer + ordinal.to_bytes(ORDINAL_BYTES, "big")
        # One step of C: safe between threads, and in a finalizer that interrupts another call.
        self._next = count(1).__next__

    def __call__(self) -> TaskId:
        """Return the next id."""
        return TaskId(self._prefix + self._next().to_bytes(COUNTER_BYTES, "big"))


def objects_of(task: TaskId, num_returns: int) -> list[ObjectId]:
    """Return the ids of a task's values, in order."""
    if num_returns == 1:
        return [ObjectId(task)]
    return [ObjectId(task + index.to_bytes(INDEX_BYTES, "big")) for index in range(num_returns)]


def item_of(task: TaskId, index: int) -> ObjectId:
    """Return the id of what a task yields as number `index`, from 0."""
    return ObjectId(task + index.to_bytes(INDEX_BYTES, "big"))


def index_of(item: bytes) -> int:
    """Return which of its task's items it is."""
    return int.from_bytes(item[TASK_BYTES:], "big")


def task_of(object_id: ObjectId) -> TaskId:
    """Return the task (or put) that an object came from."""
    return TaskId(object_id[:TASK_BYTES])


def home_of(id_: ObjectId | TaskId) -> PeerId:
    """Return the peer that keeps a value: the submitter, or for a worker its node."""
    return PeerId(id_[:PEER_BYTES])


def show(id_: bytes) -> str:
    """Return an id as people read and type it: hexadecimal, leading zeros of the counter cut."""
    if len(id_) < TASK_BYTES:
        return id_.hex()
    peer, ordinal = id_[:PEER_BYTES].hex(), int.from_bytes(id_[PEER_BYTES:9], "big")
    counter, index = int.from_bytes(id_[9:TASK_BYTES], "big"), id_[TASK_BYTES:]
    suffix = f".{int.from_bytes(index, 'big')}" if index else ""
    return f"{peer}-{ordinal:x}-{counter:x}{suffix}"


def parse(text: str) -> TaskId:
    """Return the task id that `show` printed.

    Raises:
        ValueError: the text is not such an id.
    """
    parts = text.strip().split(".")[0].split("-")
    if len(parts) != 3:
        raise ValueError(f"{text!r} is not a task id; one looks like 5f0c2b9a11d4-0-2a")
    peer = bytes.fromhex(parts[0])
    if len(peer) != PEER_BYTES:
        raise ValueError(f"{text!r} is not a task id; its first part has 12 hexadecimal digits")
    try:
        ordinal = int(parts[1], 16).to_bytes(ORDINAL_BYTES, "big")
        counter = int(parts[2], 16).to_bytes(COUNTER_BYTES, "big")
    except OverflowError:
        raise ValueError(f"{text!r} is not a task id; its numbers are too large") from None
    return TaskId(peer + ordinal + counter)

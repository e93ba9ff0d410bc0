"""The pulse page: shared memory in which workers, node and keeper see each other's progress.

Never a message: words are stored whole, one writer each, and read by whoever likes, without a
system call. It is made before the processes fork and dies with the last of them.
"""

import mmap
import os
from typing import Final, NamedTuple, TypeAlias

#: slot 0 is the daemon's own
SLOTS: Final = 4096
_WORDS: Final = 16
_SLOT_BYTES: Final = _WORDS * 8

# the words of a slot
BEAT: Final = 0
#: of the daemon's slot: until then its actors may act, by protocol/clock.py, see `times_of`; 0.0:
#: that has not been said
LEASE_UNTIL: Final = 1
#: seq of the row started last
STARTED: Final = 1
#: seq of the row that runs; 0: none
RUNNING: Final = 2
PHASE: Final = 3
#: written by the node: start nothing from this seq on; 0: all may be started
REVOKED: Final = 4
#: written by the node: seq of the row that is to be interrupted
INTERRUPT: Final = 5
#: where in its file of stderr the row begins that runs or is run next
ERRORS_AT: Final = 6
#: written by the node before INTERRUPT: why, an index into REASONS
REASON: Final = 7
REASONS: Final = ("cancelled", "drain", "hung", "timed_out", "memory")
#: when the row that runs began, or ran last, or since when the actor is asked how it is: seconds of
#: time.perf_counter, see `times_of`
BEGAN: Final = 8
#: how often the row has said that it progresses, which PROGRESS_OF names
PROGRESS: Final = 9
#: how far the row is that said so last, and of how much (NaN: it did not say), see `times_of`
PROGRESS_DONE: Final = 10
PROGRESS_TOTAL: Final = 11
#: seq of that row: tasks that say nothing write nothing, so what is here may be of an earlier one
PROGRESS_OF: Final = 12
#: of an actor on an event loop: since when its loop has not come round, see `times_of`; below 0: it
#: did when it was asked last; 0.0: there is no loop
LOOP: Final = 13
#: the system's number of the worker's witness, a thread that waits for the node; 0: there is none
WITNESS: Final = 14
#: written by the node: of what the worker has put so many bytes have room, see puts.py
GRANTED: Final = 15

# the phases of a worker
STARTING: Final = 0
IDLE: Final = 1
UNPICKLING: Final = 2
RUNNING_CODE: Final = 3
PICKLING: Final = 4
WAITING: Final = 5
IMPORTING: Final = 6
#: an actor tells its state
CHECKPOINTING: Final = 7
#: it waits until the state that it told last is where it is safe
SAVING: Final = 8
#: it is asked whether it is well, since BEGAN
HEALTH_CHECK: Final = 9
#: it waits for what it needs before its code begins: WAITING, but its time has not begun
FETCHING: Final = 10
#: it waits until what it has yielded is read
YIELDING: Final = 11
#: in these the main thread waits for an answer of the node
WAITS: Final = (WAITING, FETCHING, YIELDING)
#: before a call's own code begins
BEFORE_CODE: Final = (STARTING, IDLE, IMPORTING, UNPICKLING, FETCHING)
PHASE_NAMES: Final = (
    "starting", "idle", "unpickling", "running", "pickling", "waiting", "importing",
    "checkpointing", "saving", "health-check", "waiting", "yielding",
)  # fmt: skip

DAEMON_SLOT: Final = 0
_UNKNOWN: Final = float("nan")

#: A slot: its words, each 64 bits.
Words = memoryview
Times: TypeAlias = "memoryview[float]"


class Sample(NamedTuple):
    """What a slot says of its worker."""

    started: int
    running: int
    phase: int


class Closer(NamedTuple):
    """What a slot says of what its worker does, and since when."""

    beat: int
    running: int
    phase: int
    #: by time.perf_counter; of the row that runs
    began_s: float
    progress: int
    done: float = 0.0
    #: NaN: not told
    total: float = 0.0
    #: never older than the one that runs
    started: int = 0
    #: what LOOP says
    loop: float = 0.0


def times_of(words: Words) -> Times:
    """Return the same words as floating-point numbers, for those that are times."""
    return words.cast("B").cast("d")


class PulsePage:
    """All slots. Made once by the keeper; every process forked from it sees the same memory.

    Args:
        file: the descriptor of a memory file, for processes that are no mere forks. None: there
            are none.
    """

    __slots__ = ("_words", "file")

    def __init__(self, file: int | None = None) -> None:
        self.file = file
        size = SLOTS * _SLOT_BYTES
        if file is not None and os.fstat(file).st_size < size:
            os.ftruncate(file, size)
        self._words = memoryview(mmap.mmap(-1 if file is None else file, size)).cast("Q")

    def slot(self, number: int) -> Words:
        """Return the words of a slot, to be read and written in place."""
        if not 0 <= number < SLOTS:
            raise ValueError(f"the pulse page has slots 0 to {SLOTS - 1}, not {number}")
        return self._words[number * _WORDS : (number + 1) * _WORDS]

    def clear(self, number: int) -> None:
        """Empty a slot before a new worker gets it."""
        words = self.slot(number)
        for index in range(_WORDS):
            words[index] = 0

    def sample(self, number: int) -> Sample:
        """Read what a worker is doing."""
        words = self.slot(number)
        # `started` after `running`: a row seen running is never newer than the one seen started.
        running = words[RUNNING]
        return Sample(words[STARTED], running, words[PHASE])

    def look(self, number: int) -> Closer:
        """Read what a worker is doing, and since when."""
        words = self.slot(number)
        times = times_of(words)
        while True:
            # The worker writes when a row began, and then that it runs.
            running, began_s = words[RUNNING], times[BEGAN]
            phase = words[PHASE]
            # It writes how far it is, then that it has said so once more, then who says so.
            says = words[PROGRESS_OF]
            progress = words[PROGRESS]
            done, total = times[PROGRESS_DONE], times[PROGRESS_TOTAL]
            if says != running:
                progress, done, total = 0, 0.0, _UNKNOWN
            if words[RUNNING] == running:
                started = words[STARTED]
                return Closer(
                    words[BEAT], running, phase, began_s, progress, done, total, started,
                    times[LOOP],
                )  # fmt: skip

    def beat(self, number: int = DAEMON_SLOT) -> None:
        """Say: I live."""
        words = self.slot(number)
        words[BEAT] = (words[BEAT] + 1) & 0xFFFF_FFFF_FFFF_FFFF

    def lease(self, until_s: float) -> None:
        """Say until when the actors of this node may act."""
        times_of(self.slot(DAEMON_SLOT))[LEASE_UNTIL] = until_s

    def lease_until_s(self) -> float:
        """Return what was said of that last."""
        return float(times_of(self.slot(DAEMON_SLOT))[LEASE_UNTIL])

    def beats(self, number: int = DAEMON_SLOT) -> int:
        """Return how often that slot's owner has said so."""
        return int(self.slot(number)[BEAT])

"""What is kept of a detached actor over the lives of the scheduler.

Nothing here may hold behaviour: what is written is decided in `wards.py`, and it is written and
read in `deed_files.py`.
"""

from msgspec import Struct

from ..protocol.forms import Count, HashBytes, ObjectBytes, TaskBytes
from ..protocol.messages import Environment, Options, ValueRow

#: rises when older files can no longer be read
DEED_VERSION = 1


class Deed(Struct, array_like=True, frozen=True):
    """All that it takes to create an actor anew; it never changes."""

    version: int
    #: its creation
    id: TaskBytes
    #: what its class is called
    name: str
    options: Options
    #: the pickled class
    function: HashBytes
    code: bytes
    args: bytes | None
    deps: tuple[ObjectBytes, ...]
    contained: tuple[ObjectBytes, ...]
    #: of deps
    values: tuple[ValueRow, ...]
    #: of whoever created it
    environment: Environment


class Course(Struct, array_like=True, frozen=True):
    """How far an actor has come."""

    #: the number of its current or next incarnation
    attempt: Count = 1
    #: how many incarnations ended without counting
    uncharged: Count = 0
    #: when those died that count within restart_window_s, by the clock that runs on while the
    #: machine sleeps
    deaths: tuple[float, ...] = ()
    #: it has ended for good, and whoever handed it over may not know that it was taken
    over: bool = False


class Will(Struct, frozen=True):
    """What one life of the scheduler leaves of one actor to the next."""

    deed: Deed
    course: Course

"""What homes tell of the objects that they keep, and how that is asked for.

    anybody:    Query("objects")    answered by Answer once those asked have told
    scheduler:  TakeStock           what is there; or what is known of these objects
    home:       Stock               the largest of it, and how much there is in all

Nothing here may hold behaviour. Names are text of the user's program: whoever shows one to a person
makes it harmless first.
"""

from typing import Annotated, Final

from msgspec import Meta

from .forms import Count, Message, ObjectBytes, Row
from .running import Word

#: rows of one Stock; who asks for more gets so many
STOCK_ROWS_MAX: Final = 1000
#: a longer name is cut
NAME_MAX: Final = 100
#: memory segments of one value that are named; most have one
PARTS_MAX: Final = 4

Name = Annotated[str, Meta(max_length=NAME_MAX)]

# of what sort an object is
RESULT: Final = "result"
PUT: Final = "put"
ACTOR: Final = "actor"
#: large parts of a call's arguments, in memory that others of the machine map
ARGUMENTS: Final = "arguments"
#: the same of what nobody knows here any more
SEGMENT: Final = "segment"

# what has become of it
#: there is no value yet
PENDING: Final = "pending"
#: nor that, and the scheduler waits for it
WANTED: Final = "wanted"
READY: Final = "ready"
#: instead of a value there is an error
FAILED: Final = "failed"

# where its value lies
NOWHERE: Final = ""
#: in the memory of its process
MEMORY: Final = "memory"
#: in a memory file, which others of the machine can map
SHARED: Final = "shared memory"
#: there was no room in memory
DISK: Final = "disk"


class TakeStock(Message, tag="take_stock"):
    """Scheduler -> client or node: tell what you keep; answered by Stock of that number."""

    number: Count
    #: rows at most, of the largest objects
    limit: Count
    #: only those whose name or id begins so
    match: str = ""
    #: not what you are home of, but what you know of these
    ids: list[ObjectBytes] = []  # noqa: RUF012  # msgspec copies it


class StockRow(Row):
    """An object, as who tells of it knows it."""

    id: ObjectBytes
    #: result, put, actor, arguments or segment
    sort: Word
    #: of the function that makes it, or whose arguments they are; "": of none, or not known
    name: Name
    #: pending, wanted, ready or failed
    state: Word
    #: of its value here, with the memory files that only this value needs
    size_bytes: Count
    #: memory, shared memory or disk; "": there is no value here
    place: Word
    #: at a client: the ObjectRefs of its process; at a node: the workers that hold one
    refs: Count
    #: calls, values, and whatever else needs it there
    uses: Count
    #: memory segments of this home that only this value needs: who maps one holds that
    parts: tuple[ObjectBytes, ...] = ()


class Stock(Message, tag="stock"):
    """Client or node -> scheduler: what it keeps, the largest first."""

    number: Count
    rows: list[StockRow]
    #: what it is home of, as far as it matches, and the bytes of that
    objects: Count = 0
    size_bytes: Count = 0
    #: values of other homes' objects that it has as well
    copies: Count = 0
    copies_bytes: Count = 0
    #: so many objects were not looked at
    unseen: Count = 0

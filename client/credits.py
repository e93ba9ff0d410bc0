"""How much more may be sent to the scheduler now, by the credit that it grants.

Never reorders or drops anything: whatever is beyond the credit waits, in order, in the core.
"""

from ..protocol.messages import FIRST_CREDIT, Credit, TaskRow

#: what waits goes on when so much of the credit is free again: not one by one
PART: int = 16


class Credits:
    """The credit of this link life, and the bytes of arguments that were sent on it."""

    __slots__ = ("_granted", "_sent_bytes")

    def __init__(self) -> None:
        self._granted = FIRST_CREDIT
        #: bytes of arguments sent; with those of what ended unsent, as in the core's `finished`
        self._sent_bytes = 0

    def start_anew(self, finished_bytes: int) -> None:
        """A link life begins: nothing is sent, and nothing is granted but what everybody has."""
        self._granted = FIRST_CREDIT
        self._sent_bytes = finished_bytes

    def granted(self, message: Credit) -> None:
        """The scheduler says what may be unfinished."""
        self._granted = message

    def sent(self, rows: list[TaskRow]) -> None:
        """These are sent whatever is granted; or they ended here, and never will be."""
        self._sent_bytes += sum(
            row.size if (args := row.args) is None else len(args) for row in rows
        )

    def take(self, rows: list[TaskRow], out: int, finished_bytes: int) -> int:
        """Return how many of these rows may be sent now, and count them as sent.

        Args:
            rows: in order.
            out: how many tasks are sent and unfinished.
            finished_bytes: bytes of arguments of all that ever ended.
        """
        granted, sent_bytes = self._granted, self._sent_bytes
        tasks, bytes_max = granted.tasks - out, granted.bytes + finished_bytes
        count = 0
        for row in rows:
            # A task may go while there is any room: so one larger than the credit goes, too.
            if count >= tasks or sent_bytes >= bytes_max:
                break
            args = row.args
            sent_bytes += row.size if args is None else len(args)
            count += 1
        self._sent_bytes = sent_bytes
        return count

    def worth_a_look(self, out: int, finished_bytes: int) -> bool:
        """Whether enough of the credit is free again to send on what waits."""
        granted = self._granted
        free_bytes = granted.bytes - (self._sent_bytes - finished_bytes)
        return (granted.tasks - out) * PART >= granted.tasks and free_bytes * PART >= granted.bytes

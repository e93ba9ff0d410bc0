"""The arguments of a call, unpickled in its worker; which of them is missing, if one is.

Never runs the call, and never judges an error of the user's: that is raised as it came.
"""

from collections.abc import Sequence
from typing import Any

from ..protocol.errors import DrumbeatError
from ..protocol.ids import show
from ..protocol.messages import Failure, Outcome, ValueRow
from ..protocol.payload import unpack_call
from .packets import RunRow


class Missing(BaseException):
    """A call cannot begin: the bytes of an argument cannot be had.

    Args:
        text: what is missing, as people say it; goes on where the name of the call ends.
        cause: why.
    """

    def __init__(self, text: str, cause: Failure) -> None:
        super().__init__(text)
        self.text = text
        self.cause = cause


def arguments(row: RunRow) -> tuple[Sequence[Any], dict[str, Any]]:
    """Return (args, kwargs) of a call, whose row lets go of them.

    Raises:
        Missing: the bytes of one cannot be had; it is as if that value had failed.
        BaseException: whatever unpickling raises.
    """
    try:
        found = unpack_call(row.args, row.values)
        # A worker remembers its row until the next one comes, which may be long.
        row.args, row.values = None, ()
        return found
    except DrumbeatError as error:
        lost = error.__dict__.get("object")
        if not isinstance(lost, str):
            raise
        cause = Failure(type(error).__name__, str(error), {"object": lost})
        needed = (value for value in row.values if lost in map(show, value.contained))
        value = next(needed, None)
        if value is None:
            raise Missing(f"needs its arguments, and cannot have them: {error}", cause) from None
        text = f"needs the value of {show(value.id)}, which failed: {error}"
        raise Missing(text, cause) from None


def missed(
    row: RunRow, name: str, why: Missing, details: dict[str, str | int | float | None]
) -> ValueRow:
    """Return the outcome of a call that cannot begin, as the scheduler would have told it.

    Args:
        row: the call.
        name: of its function.
        why: what is missing.
        details: of the attempt.
    """
    failure = Failure("DependencyFailed", f"{name} {why.text}", details, why.cause)
    return ValueRow(row.id, Outcome.FAILURE, failure=failure)

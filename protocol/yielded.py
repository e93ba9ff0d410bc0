"""What a call that yields its values may return: something that does, and not too much.

Never takes a step of it.
"""

import inspect
from collections.abc import Iterator
from typing import Any, Final

from .messages import Failure
from .yields import ITEMS_MAX

#: the failure that stands behind the last item of a task that has come to its end
END: Final = Failure("StreamEnded", "the task has yielded all that it had")


def iterator_of(made: Any, name: str) -> Iterator[Any]:
    """Return what a function has returned, to be iterated over.

    Args:
        made: what it returned.
        name: of the function.

    Raises:
        TypeError: it yields nothing.
    """
    if inspect.isasyncgen(made):
        raise TypeError(
            f'{name}() is an async generator, and num_returns="streaming" takes plain ones: '
            "write it with `def`, and asyncio.run() for what it awaits"
        )
    if not hasattr(made, "__next__"):
        raise TypeError(
            f'{name}() has num_returns="streaming", so it must be a generator, or return an '
            f"iterator, and it returned {type(made).__name__}"
        )
    found: Iterator[Any] = made
    return found


def too_many(name: str) -> ValueError:
    """Return the error of a function that yields more than it may."""
    return ValueError(
        f"{name}() has yielded {ITEMS_MAX:,} values, and no more are possible of one call: yield "
        "several at once, as a list, or make more calls"
    )

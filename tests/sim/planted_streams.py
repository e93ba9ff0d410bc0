"""Bugs that a careless change could bring to values that are yielded; see `planted.py`."""

from collections.abc import Callable
from typing import Any, Final

from drumbeat.client.streams import Streams as Taking
from drumbeat.node.yields import Streams as Yielding

from .planted import Planted


def _says_nothing_again(_true: Callable[..., Any]) -> Callable[..., Any]:
    def say_again(_streams: Any, _message: Any) -> None:
        return

    return say_again


def _forgets_what_came(true: Callable[..., Any]) -> Callable[..., Any]:
    def came(streams: Any, task: Any, row: Any) -> None:
        true(streams, task, row)
        stream = streams.open.get(task)
        if stream is not None and stream.received > 1:
            stream.received -= 1

    return came


def _wakes_nobody(true: Callable[..., Any]) -> Callable[..., Any]:
    def taken(streams: Any, message: Any) -> None:
        message.rows = [(task, received, 0) for task, received, _ in message.rows]
        true(streams, message)

    return taken


PLANTED_STREAMS: Final[dict[str, Planted]] = {
    "say_no_item_again": Planted(
        "what was yielded as the scheduler died is not said to its next life",
        Yielding, "say_again", _says_nothing_again,
    ),
    "forget_an_item_that_came": Planted(
        "an item that is here is taken once more when it comes again",
        Taking, "came", _forgets_what_came,
    ),
    "never_hear_of_a_reader": Planted(
        "a task that is too far ahead of its reader waits for ever",
        Yielding, "taken", _wakes_nobody,
    ),
}  # fmt: skip

"""What user code says and asks inside a task or a method: progress, current, shield.

Never does anything by itself: whoever runs the call does (a worker, or init(inline=True)). Outside
of a task `progress` and `shield` do nothing, so that a function that uses them can be called.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from ..protocol import inside as _inside
from ..protocol.inside import CurrentCall

__all__ = ["CurrentCall", "current", "progress", "shield"]

#: above this nothing is counted, infinity least of all
_MOST: Final = 1e300
_UNKNOWN: Final = float("nan")


def progress(done: float, total: float | None = None, details: Any = None) -> None:
    """Say that the call progresses, and how far it is: to be called as often as you like.

    It is three things in one: a sign of life (see the option heartbeat_timeout), what `drumbeat
    tasks` and `drumbeat top` show, and a point at which a cancelled call ends.

    Args:
        done: how much is done, from 0 up, in whatever you count.
        total: of how much; None: unknown.
        details: a value of at most 4 KiB (pickled) that the next attempt finds in
            `current().last_details`, should this one die, hang or be tried again: where to go on.
            None leaves what was told before.

    Raises:
        Interrupted: the call is to end; only in its main thread, and not inside `shield`.
        ValueError: a number is negative or infinite, or the details are too large.
        TypeError: `done` or `total` is no number, or a reference lies in the details.
        NotPicklable: the details cannot be pickled; says which part of them.
    """
    try:
        if total is None:
            total = _UNKNOWN
            fits = 0 <= done <= _MOST
        else:
            fits = 0 <= done <= _MOST and 0 <= total <= _MOST
    except TypeError:
        raise _no_number(done, total) from None
    if not fits:
        raise _not_a_count("total", total) if 0 <= done <= _MOST else _not_a_count("done", done)
    inside = _inside.current
    if inside is not None:
        inside.progress(done, total, details)


def current() -> CurrentCall:
    """Return what runs here: the call's ids, attempt, node, fence, and what it told before it died.

    Raises:
        RuntimeError: this is no task and no method of an actor.
    """
    inside = _inside.current
    call = None if inside is None else inside.call()
    if call is None:
        raise RuntimeError(
            "drumbeat.current() describes the task or the actor's method that calls it, "
            "and here none runs"
        )
    return call


def shield() -> AbstractContextManager[None]:
    """Hold `Interrupted` back: raised where this block ends, if the call was to end meanwhile.

        with drumbeat.shield():
            write(row)
            commit()

    It delays being asked to end, by a cancel or for any other reason, not being made to: what has
    not ended cancel_grace_s after it was asked is terminated, then killed. Blocks may be nested.
    """
    inside = _inside.current
    return nullcontext() if inside is None else inside.shield()


def _no_number(done: Any, total: Any) -> TypeError:
    name, value = ("total", total) if isinstance(done, (int, float)) else ("done", done)
    return TypeError(
        f"progress: {name} must be a number from 0 up, not {value!r:.80}; what is no number goes "
        "with details="
    )


def _not_a_count(name: str, value: Any) -> ValueError:
    return ValueError(f"progress: {name} must be a number from 0 up, and finite, not {value!r}")

"""An actor's state as its process tells it: between calls, by its own `__checkpoint__`.

Never keeps one, and never lets an error of that method end the actor: the state that it would save
by ending is the one that would be lost. Whoever called with every call's state to be saved is told
that it was not.
"""

import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final, NamedTuple

from ..protocol.actor_calls import instance
from ..protocol.payload import pack_value, unpack_value
from ..protocol.traceback_text import describe
from .line import Line
from .packets import Checkpointed
from .page import CHECKPOINTING, PHASE, PICKLING, SAVING, Words

NEVER_S: Final = float("inf")


class Often(NamedTuple):
    """How often an actor's state is told; 0: that does not count."""

    every_calls: int = 0
    interval_s: float = 0.0


class Saver:
    """See the module.

    Args:
        often: as its options say.
        name: of its class, for people.
    """

    def __init__(self, often: Often, name: str) -> None:
        self._every_calls, self._interval_s = often
        self._name = name
        self._inline_bytes_max = 0
        #: calls that no checkpoint knows of
        self._calls = 0
        self._last_s = perf_counter()
        self._number = 0
        #: the large one that has to be safe before the next is sent
        self._awaited = 0
        self._has_failed = False

    def begin(self, inline_bytes_max: int) -> None:
        """The actor has been made.

        Args:
            inline_bytes_max: after a larger one the next waits until that is where it is safe.
        """
        self._inline_bytes_max = inline_bytes_max
        self._last_s = perf_counter()

    def ended(self, line: Line, words: Words) -> str:
        """A call has ended; return why its result may not be handed over, or ""."""
        self._calls += 1
        every_calls = self._every_calls
        if not (0 < every_calls <= self._calls) and not self._is_due():
            return ""
        failed = self._save(line, words)
        return failed if every_calls == 1 else ""

    def _is_due(self) -> bool:
        return bool(self._interval_s) and perf_counter() - self._last_s >= self._interval_s

    def wait_s(self) -> float | None:
        """Return after how long an idle actor is to be saved; None: it is saved."""
        if not self._interval_s or not self._calls:
            return None
        return max(0.0, self._last_s + self._interval_s - perf_counter())

    def save_idle(self, line: Line, words: Words) -> None:
        """The actor has nothing to do, and its interval is over."""
        if self._is_due():
            self._save(line, words)

    def _save(self, line: Line, words: Words) -> str:
        words[PHASE] = SAVING if self._awaited else CHECKPOINTING
        with line.undisturbed():
            try:
                if self._awaited:
                    line.flush_results()
                    line.wait_until_kept(self._awaited)
                    self._awaited = 0
                    words[PHASE] = CHECKPOINTING
                payload = self._state()
            except BaseException as error:  # noqa: BLE001  # whatever the user's code raises
                self._last_s = perf_counter()
                return self._failed(error)
            finally:
                words[PHASE] = PICKLING
        self._number += 1
        self._calls, self._has_failed = 0, False
        self._last_s = perf_counter()
        line.outbox.append(Checkpointed(self._number, payload))
        if len(payload) > self._inline_bytes_max:
            self._awaited = self._number
        return ""

    def _state(self) -> bytes:
        state = instance().__checkpoint__()
        packed = pack_value(state, f"the state of {self._name}.__checkpoint__")
        if packed.contained:
            raise TypeError(
                f"the state of {self._name}.__checkpoint__ holds references or handles of actors, "
                "which do not outlive those who hold them; keep their values, or names of actors"
            )
        payload = packed.payload
        assert payload is not None, "a value has a payload"
        return payload

    def _failed(self, error: BaseException) -> str:
        """Tell the user once; return what callers are told."""
        text = describe(error)[2].rstrip()
        error.__traceback__ = None
        if not self._has_failed:
            self._has_failed = True
            last = "the last one is kept" if self._number else "there is none before it"
            print(
                f"{self._name}: no checkpoint of its state could be made; the actor goes on, and "
                f"{last}. This is told once, until one can be made.\n{text}",
                file=sys.stderr,
            )
        return f"no checkpoint of its actor's state could be made\n{text}"


def restored(made_by: Callable[..., Any], checkpoint: bytes) -> Any:
    """Return an instance that a checkpoint was given to, and no constructor has seen.

    Raises:
        BaseException: what its __restore__ raised.
    """
    class_: Any = made_by
    made = class_.__new__(class_)
    try:
        made.__restore__(unpack_value(checkpoint))
    except BaseException as error:
        name = getattr(made_by, "__qualname__", repr(made_by))
        error.add_note(f"raised while {name}.__restore__ was given the actor's last checkpoint")
        raise
    return made

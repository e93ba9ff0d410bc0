"""A function as a worker runs it, loaded when its first task comes.

Never runs it: what its loading raises is the outcome of whatever task needs it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from ..protocol.payload import unpack_function
from . import missing
from .actor_host import Constructor
from .health import doctor_of
from .packets import KindDefinition
from .saving import Often, Saver


class LoadedKind:
    """A function as this worker runs it, loaded when its first task comes."""

    __slots__ = (
        "concurrency", "creates", "error", "function", "health_check_interval_s", "max_retries",
        "missing", "name", "num_returns", "often", "payload", "retry", "stream",
    )  # fmt: skip

    def __init__(self, definition: KindDefinition) -> None:
        self.name = definition.name
        self.num_returns = definition.num_returns
        self.stream = definition.stream
        self.max_retries = definition.max_retries
        self.payload = definition.payload
        self.creates = definition.creates
        self.concurrency = definition.concurrency
        #: of what it makes
        self.often = Often(definition.checkpoint_every_calls, definition.checkpoint_interval_s)
        self.health_check_interval_s = definition.health_check_interval_s
        self.function: Callable[..., Any] | None = None
        self.retry: bool | tuple[type[BaseException], ...] = False
        self.error = ""
        #: the module for want of which it cannot be loaded
        self.missing: str | None = None

    def load(self, node: str) -> Callable[..., Any]:
        """Return the function, unpickled once.

        Raises:
            ImportError: it cannot be; names the reason and the node.
            ModuleNotFoundError: that for want of a module.
        """
        if not self.error:
            try:
                function, self.retry = unpack_function(self.payload)
                self.function = self._constructor(function) if self.creates else function
            except Exception as error:  # noqa: BLE001  # the user's modules may raise anything
                reason: BaseException = error.__cause__ or error
                self.missing = missing.module_of(reason)
                self.error = (
                    f"the function {self.name} cannot be loaded on node {node}: "
                    f"{type(reason).__name__}: {reason}"
                )
            self.payload = b""
        if self.function is None:
            if self.missing is not None:
                raise ModuleNotFoundError(self.error, name=self.missing)
            raise ImportError(self.error)
        return self.function

    def restorer(self, checkpoint: bytes) -> Callable[[], Any]:
        """Return what makes the actor of its last checkpoint; once it is loaded."""
        made_by = self.function
        assert isinstance(made_by, Constructor), "actors alone have checkpoints"
        return partial(made_by.restore, checkpoint)

    def _constructor(self, made_by: Callable[..., Any]) -> Constructor:
        saver = Saver(self.often, self.name) if any(self.often) else None
        doctor = doctor_of(made_by, self.health_check_interval_s)
        return Constructor(made_by, self.concurrency, saver, doctor)

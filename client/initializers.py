"""What an executor's workers do first: call its initializer, once in each.

Never runs in the client: it is pickled there, around each function, and called in the workers.
"""

from collections.abc import Callable
from typing import Any

from ..protocol.errors import DrumbeatError


class InitializerFailed(DrumbeatError):  # noqa: N818  # like its siblings
    """An executor's initializer raised; nothing can run in that executor any more."""


#: in a worker: what became of the initializers of the executors it serves; None: all is well
_initialized: dict[str, str | None] = {}


class Initialized:
    """Calls a function; the executor's initializer first, once in each worker."""

    def __init__(
        self,
        function: Callable[..., Any],
        initializer: Callable[..., Any],
        initargs: Any,
        pool: str,
    ) -> None:
        self.function = function
        self.initializer = initializer
        self.initargs = initargs
        self.pool = pool

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the function in a worker that is initialized."""
        if self.pool not in _initialized:
            try:
                self.initializer(*self.initargs)
            except Exception as error:  # noqa: BLE001  # the user's; told to the executor
                _initialized[self.pool] = f"{type(error).__name__}: {error}"
            else:
                _initialized[self.pool] = None
        failure = _initialized[self.pool]
        if failure is not None:
            raise InitializerFailed(f"the executor's initializer raised {failure}")
        return self.function(*args, **kwargs)

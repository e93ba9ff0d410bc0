"""Calls of an actor as its process runs them: methods of the one instance that lives there.

Never decides which call comes, nor when: whoever runs one has put the instance in its place.
"""

import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, NoReturn

_NOBODY: Final = object()
#: the actor that lives in this process
_instance: Any = _NOBODY
#: the actor whose call runs here, where several live in one process (inline)
_visiting: Final[ContextVar[Any]] = ContextVar("drumbeat_actor", default=_NOBODY)
#: runs `async def` methods one after the other; one a thread, since what they share belongs to one
#: loop
_runners: Final = threading.local()


class ActorExit(BaseException):
    """Raised by `exit_actor`: the call ends with None, and the actor with it."""


class MethodCall:
    """What is called for a call of an actor: a method of the instance, by its name."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the method; one that is a coroutine runs to its end.

        Raises:
            AttributeError: the instance has no such method.
        """
        value = self.begin(*args, **kwargs)
        return _run(value) if inspect.iscoroutine(value) else value

    def begin(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the method; what an `async def` method gives is a coroutine, to be run elsewhere.

        Raises:
            AttributeError: the instance has no such method.
        """
        return getattr(instance(), self.name)(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return (MethodCall, (self.name,))


def set_instance(value: Any) -> None:
    """Say which actor lives in this process, once its constructor has returned."""
    global _instance  # noqa: PLW0603  # one a process
    _instance = value


def instance() -> Any:
    """Return the actor whose call runs here.

    Raises:
        RuntimeError: none does.
    """
    found = _visiting.get()
    if found is _NOBODY:
        found = _instance
    if found is _NOBODY:
        raise RuntimeError("no actor lives in this process")
    return found


@contextmanager
def visiting(value: Any) -> Iterator[None]:
    """Make an actor the one whose call runs here, in this thread and for so long."""
    token = _visiting.set(value)
    try:
        yield
    finally:
        _visiting.reset(token)


def exit_actor() -> NoReturn:
    """End the actor whose method calls this; that call returns None.

    Calls that have not started raise ActorDied, and so do all later ones. An actor that ends itself
    is never restarted.

    Raises:
        RuntimeError: this is no method of an actor.
    """
    try:
        instance()
    except RuntimeError:
        raise RuntimeError(
            "exit_actor() ends the actor that calls it, and this is no call of an actor; "
            "from outside, use drumbeat.kill(actor)"
        ) from None
    raise ActorExit


def is_async(class_: Any) -> bool:
    """Return whether actors of a class live on an event loop: a public method is `async def`.

    Args:
        class_: or whatever else makes an actor.
    """
    if not isinstance(class_, type):
        return False
    for name in dir(class_):
        if not name.startswith("_"):
            found = inspect.getattr_static(class_, name)
            if inspect.iscoroutinefunction(getattr(found, "__func__", found)):
                return True
    return False


def _run(coroutine: Any) -> Any:
    runner = getattr(_runners, "one", None)
    if runner is None:
        import asyncio  # loads ssl and much else: for those who use it

        runner = _runners.one = asyncio.Runner()
    return runner.run(coroutine)

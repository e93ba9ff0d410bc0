"""Which modules another process can import, and where it is to look for them.

Never pickles anything: it only says what has to travel by value, or by which name.
"""

import importlib
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from .brought import Carried

#: modules that travel by value, by their encoded names
by_value: Final[dict[bytes, ModuleType]] = {}
#: top-level modules found to be importable, or not
_importable: dict[str, bool] = {}
#: where workers look for modules, as far as they were told; None: nobody was told anything
_told: dict[str, None] | None = None
#: whose files those are
_machine = ""


class ByName:
    """A decorated function, to be found again by its name.

    The name of a decorated function leads to what the decorator made of it, so pickle would refuse
    it and cloudpickle would take it by value, together with copies of the module's globals.
    """

    __slots__ = ("module", "path")

    def __init__(self, module: str, path: str) -> None:
        self.module = module
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (_undecorated, (self.module, self.path))


def _undecorated(module: str, path: str) -> Any:
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return getattr(found, "__wrapped__", found)


def portable(function: Callable[..., Any]) -> Any:
    """Return what is to be pickled for a function: itself, or its name where that suffices."""
    module = getattr(function, "__module__", None)
    path = getattr(function, "__qualname__", None)
    if not module or not path or module == "__main__" or module not in sys.modules:
        return function
    if not _can_be_imported(module):
        return function
    return ByName(module, path) if is_decorated(function) else function


def is_decorated(thing: Any) -> bool:
    """Return whether the name of a function or class leads to what a decorator made of it."""
    found: Any = sys.modules.get(getattr(thing, "__module__", None) or "")
    for name in (getattr(thing, "__qualname__", None) or "").split("."):
        found = getattr(found, name, None)
    return found is not thing and getattr(found, "__wrapped__", None) is thing


def ship_by_value(module: ModuleType | str) -> None:
    """Have everything defined in a module travel by value: the other side cannot import it.

    Raises:
        ValueError: the module is not imported.
    """
    if isinstance(module, str):
        if module not in sys.modules:
            raise ValueError(f"the module {module!r} is not imported here")
        module = sys.modules[module]
    by_value[module.__name__.encode()] = module


def _can_be_imported(module: str) -> bool:
    """Return whether another process with the same sys.path would find a module.

    One that would not (made by hand, or by a test runner) is registered to travel by value.
    """
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return True
    known = _importable.get(top)
    if known is None:
        known = _importable[top] = any(_finds(finder, top) for finder in list(sys.meta_path))
        if not known and top in sys.modules:
            ship_by_value(top)
    return known


def _finds(finder: Any, name: str) -> bool:
    try:
        return finder.find_spec(name, None) is not None
    except Exception:  # noqa: BLE001  # somebody's import hook; theirs is not the only one
        return False


# ------------------------------------------------------------- what travels along with functions


class Carrier(Protocol):
    """Knows the modules that have to come along with functions; from any thread."""

    #: changes whenever there is more, or other
    version: int

    def look(self) -> None:
        """Notice what was imported since; quick when nothing was."""

    def modules(self, payload: bytes) -> "list[Carried]":
        """Return what has to go with a pickled function, in an order that stays."""


class Packer(Protocol):
    """Keeps a function as it was packed."""

    def outdated(self) -> None:
        """Pack it anew when it is next sent."""


#: whoever knows what has to come along; empty: others find the modules that this process has
carriers: Final[list[Carrier]] = []
#: whoever has packed a function, with what came along then
_packers: Final[WeakSet["Packer"]] = WeakSet()
_packers_lock: Final = threading.RLock()


def carry(carrier: Carrier | None) -> None:
    """Have modules come along with functions from now on, or no longer."""
    carriers[:] = [] if carrier is None else [carrier]
    outdate()


def code_version() -> int:
    """Return a number that changes with what comes along with functions."""
    return carriers[0].version if carriers else -1


def packed(packer: Packer) -> None:
    """A function is packed; once more has to come along, it has to be packed again."""
    if carriers:
        with _packers_lock:
            _packers.add(packer)


def outdate() -> None:
    """What came along with functions so far is not enough, or out of date."""
    with _packers_lock:
        packers = list(_packers)
        _packers.clear()
    for packer in packers:
        packer.outdated()


# ------------------------------------------------------------------------------- where they lie


def path_was_told(path: Iterable[str], machine: str = "") -> None:
    """Remember where workers look for modules, and on which machine that is."""
    global _told, _machine  # as sys.path itself, one a process
    _told, _machine = dict.fromkeys(path), machine


def gained_path() -> tuple[str, tuple[str, ...], tuple[str, ...]] | None:
    """Return what sys.path has gained since it was told: where, before what was told, after it."""
    if _told is None:
        return None
    before: list[str] = []
    after: list[str] = []
    gained = before
    for entry in sys.path:
        if entry in _told:
            gained = after
        elif entry and isinstance(entry, str):
            gained.append(entry)
    return (_machine, tuple(before), tuple(after)) if before or after else None


def extend_path(machine: str, before: Sequence[str], after: Sequence[str]) -> None:
    """Look for modules where another process does, if it sees the same files."""
    if machine != _machine:
        return
    here = dict.fromkeys(sys.path)
    sys.path[:0] = [entry for entry in before if entry not in here]
    sys.path += [entry for entry in after if entry not in here]
    importlib.invalidate_caches()

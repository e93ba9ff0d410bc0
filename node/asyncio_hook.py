"""Event loops of tasks lend, see loops.py, from the moment that something imports asyncio.

Never imports asyncio itself: with ssl and OpenSSL it is 4 MB in every worker, and most tasks do
without it.
"""

import sys
from collections.abc import Callable, Sequence
from importlib._abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .nested import WorkerSession

_NAME: Final = "asyncio"


def lend_in_loops(session: "WorkerSession") -> None:
    """Have all event loops of this process lend: now, or as soon as there can be one.

    Args:
        session: of this process.
    """
    if _NAME in sys.modules:
        _set_policy(session)
    else:
        sys.meta_path.insert(0, _Finder(session))


def _set_policy(session: "WorkerSession") -> None:
    from .loops import set_policy  # imports asyncio

    set_policy(session)


class _Finder:
    """Stands before the finders of the import system until asyncio is asked for."""

    def __init__(self, session: "WorkerSession") -> None:
        self._session = session

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find asyncio as the others do, and have the policy set once it is loaded."""
        if name != _NAME:
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find is None else find(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec, spec.loader, self._loaded)
                return spec
        return None

    def _loaded(self) -> None:
        # Not before: an import that fails is tried again, and met again.
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            _set_policy(self._session)


class _Loader(Loader):
    """Loads a module as its own loader does, then calls a function."""

    def __init__(self, spec: ModuleSpec, own: Loader, loaded: Callable[[], None]) -> None:
        self._spec = spec
        self._own = own
        self._loaded = loaded

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Make the module; see importlib.abc.Loader."""
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, which knows nothing of this loader."""
        self._spec.loader = self._own
        module.__loader__ = self._own
        self._own.exec_module(module)
        self._loaded()

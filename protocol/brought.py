"""Modules of a program that came along with its functions: imported from their source.

Never writes a file, and never looks at any: what came is all there is. The source travels, not the
pickled parts of it, so a module is imported once a process as it is at home, has its own state, and
its classes are found by name again when they come back to the program.
"""

import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec
from importlib.util import decode_source
from types import CodeType, ModuleType
from typing import Any, Final, NamedTuple

#: stands in sys.path and in the paths of packages for what came along
ENTRY: Final = "<drumbeat code>"


class Carried(NamedTuple):
    """One module on its way."""

    #: "package.module"
    name: str
    #: where it lies at home; "" for a package without a file of its own
    path: str
    is_package: bool
    source: bytes
    #: why it could not come; "": it is here
    refusal: str = ""


class Brought:
    """All that came to this process; the import system asks it."""

    def __init__(self) -> None:
        #: changes whenever there is more, or other
        self.version = 0
        self._modules: dict[str, Carried] = {}
        self._known: dict[bytes, None] = {}
        self._is_first = True
        self._is_installed = False

    def come_last(self) -> None:
        """Others find this program's modules where they lie: what came along only fills in."""
        self._is_first = False

    def is_known(self, hash_: bytes) -> bool:
        """Return whether these modules have come before."""
        return hash_ in self._known

    def take(self, hash_: bytes, modules: list[Carried]) -> None:
        """Take in modules; those that differ from what is loaded are imported anew."""
        self._known[hash_] = None
        self._install()
        changed = False
        for module in modules:
            before = self._modules.get(module.name)
            if before == module:
                continue
            self._modules[module.name] = module
            self.version += 1
            loaded = sys.modules.get(module.name)
            if loaded is not None and not module.refusal and not self._stays(loaded):
                changed = True
                del sys.modules[module.name]
        if changed:
            # They know each other: half of them anew would mean each class twice.
            for name, one in list(sys.modules.items()):
                if isinstance(getattr(one, "__loader__", None), _Loader):
                    del sys.modules[name]

    def _stays(self, loaded: ModuleType) -> bool:
        """Return whether a loaded module is the better one."""
        return not self._is_first and not isinstance(getattr(loaded, "__loader__", None), _Loader)

    def _install(self) -> None:
        if self._is_installed:
            return
        self._is_installed = True
        sys.path_hooks.insert(0, self._finder_of)
        sys.path.insert(0 if self._is_first else len(sys.path), ENTRY)
        sys.meta_path.append(self)

    def _finder_of(self, path: str) -> "_Finder":
        if path != ENTRY and not path.startswith(f"{ENTRY}/"):
            raise ImportError(f"{path} is no place for modules that came along", path=path)
        return _Finder(self._modules, path[len(ENTRY) + 1 :])

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> None:
        """Say why a module did not come along, when nobody else has found it.

        Raises:
            ModuleNotFoundError: it was left behind; says why.
        """
        module = self._modules.get(name)
        if module is not None and module.refusal:
            raise ModuleNotFoundError(f"{name} did not come along: {module.refusal}", name=name)

    # ----------------------------------------------------- what further functions take along again

    def look(self) -> None:
        """Notice what is new: nothing is, unless it came with a function."""

    def modules(self, _payload: bytes) -> list[Carried]:
        """Return what has to go with a function from here."""
        return list(self._modules.values())


class _Finder:
    """Finds what came along, in one package or at the top."""

    def __init__(self, modules: Mapping[str, Carried], package: str) -> None:
        self._modules = modules
        self._package = package

    def find_spec(self, name: str, _target: Any = None) -> ModuleSpec | None:
        """Return how a module is to be imported, or None: it is not here."""
        parent, _, last = name.rpartition(".")
        module = self._modules.get(f"{self._package}.{last}" if self._package else last)
        if module is None or module.refusal or (parent and not self._package):
            return None
        path = [f"{ENTRY}/{module.name}"] if module.is_package else None
        if module.is_package and not module.path:
            spec = ModuleSpec(name, None, is_package=True)  # others may have parts of it as well
        else:
            # Not derived from importlib.abc, which would load much.
            loader: Any = _Loader(module)
            spec = ModuleSpec(name, loader, origin=module.path)
            spec.has_location = True
        spec.submodule_search_locations = path
        return spec

    def iter_modules(self, prefix: str = "") -> Iterator[tuple[str, bool]]:
        """Yield what is in here, for pkgutil."""
        for name, module in sorted(self._modules.items()):
            parent, _, last = name.rpartition(".")
            if parent == self._package and not module.refusal:
                yield prefix + last, module.is_package


class _Loader:
    """Makes one module of its source."""

    def __init__(self, module: Carried) -> None:
        self._module = module

    def create_module(self, _spec: ModuleSpec) -> None:
        """Leave that to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        exec(self.get_code(), module.__dict__)  # the program's own code, as an import runs it

    def get_code(self, _name: str = "") -> CodeType:
        """Return the compiled source."""
        code: CodeType = compile(self._module.source, self._module.path, "exec", dont_inherit=True)
        return code

    def get_source(self, _name: str = "") -> str:
        """Return the source, for tracebacks."""
        return decode_source(self._module.source)

    def get_filename(self, _name: str = "") -> str:
        """Return where it lies at home."""
        return self._module.path

    def is_package(self, _name: str = "") -> bool:
        """Return whether it holds further modules."""
        return self._module.is_package

    def get_data(self, path: str) -> bytes:
        """Refuse: files that are no modules stay where they are.

        Raises:
            OSError: always.
        """
        raise FileNotFoundError(
            f"{path} did not come along: only modules travel. Pass its content as an argument, or "
            "have the file on every node"
        )


brought: Final = Brought()

"""The program's own modules: which they are, and what goes along with its functions.

Never imports anything, and never takes what is installed: that is for the nodes to have. What lies
under the directory of the script (of a notebook: the current one) is the program's own.
"""

import ast
import os
import re
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final, NamedTuple

from ..protocol import modules
from ..protocol.brought import Carried

_SOURCE: Final = ".py"
#: what may be a module's name, in a call of import_module perhaps
_NAME: Final = re.compile(r"\.*[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
#: pickle's mark of a text, and its length
_SHORT_TEXT: Final = re.compile(rb"\x8c(?=(.))", re.DOTALL)
_OURS: Final = __name__.partition(".")[0]
#: marks the root of a virtual environment
_VENV: Final = "pyvenv.cfg"


class _Read(NamedTuple):
    """A module's file as it was read."""

    #: of the file: time of change and size
    state: tuple[int, int]
    carried: Carried
    #: modules that it imports now or later
    imports: tuple[str, ...]


class OwnCode:
    """The modules of this program that have to come along with its functions.

    Args:
        root: the directory under which a module is the program's own.
    """

    def __init__(self, root: str) -> None:
        #: changes whenever there is more, or other
        self.version = 0
        self._root = os.path.realpath(root)
        self._excluded = tuple(_installed(self._root))
        #: a finalizer may submit in the middle
        self._lock = threading.RLock()
        #: how many modules were imported when that was last looked at
        self._count = -1
        #: imported modules that were looked at
        self._judged: dict[str, None] = {}
        self._own: dict[str, ModuleSpec] = {}
        self._read: dict[str, _Read] = {}
        self._carried: list[Carried] = []
        #: names that an import in here may begin with, and when they were listed
        self._tops: dict[str, None] = {}
        self._tops_state = -1

    # ------------------------------------------------------------------------------ as a carrier

    def look(self) -> None:
        """Notice what was imported since; quick when nothing was."""
        if len(sys.modules) == self._count:
            return
        with self._lock:
            known = len(self._own)
            self._look()
            if len(self._own) == known:
                return
            self._gather()
        modules.outdate()

    def modules(self, payload: bytes) -> list[Carried]:
        """Return what has to go with a pickled function: files are read again if they changed."""
        with self._lock:
            self._look()
            before = self.version
            self._add_named(payload)
            self._gather()
            changed, carried = self.version != before, self._carried
        if changed:
            modules.outdate()
        return carried

    # ---------------------------------------------------------------------------- what there is

    def _look(self) -> None:
        """Find the program's own among the modules that are imported."""
        self._count = len(sys.modules)
        if not self._judged:
            self._add_imports_of_main()
        for name, module in list(sys.modules.items()):
            if name in self._judged:
                continue
            spec = getattr(module, "__spec__", None)
            self._judged[name] = None
            if isinstance(spec, ModuleSpec) and self._is_own(name, spec):
                self._own.setdefault(name, spec)

    def _gather(self) -> None:
        """Read what is own, and find what that imports, until nothing is new."""
        waiting = list(self._own)
        while waiting:
            name = waiting.pop()
            for imported in self._imports_of(name):
                waiting += self._add(imported)
        carried = [self._read[name].carried for name in sorted(self._own)]
        if carried != self._carried:
            self._carried = carried
            self.version += 1

    def _add(self, name: str) -> list[str]:
        """Take in a module that is not imported yet, with its packages; return what is new."""
        new: list[str] = []
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            one = ".".join(parts[:count])
            if one in self._own:
                continue
            spec = self._spec_of(one)
            if spec is None:
                break
            self._own[one] = spec
            new.append(one)
        return new

    def _add_named(self, payload: bytes) -> None:
        """Take in what pickled code names: what travels by value may import it when it runs."""
        named = _named_in(payload)
        waiting = [name for name in self._top_names() if name in named]
        while waiting:
            name = waiting.pop()
            self._add(name)
            spec = self._own.get(name)
            for place in (spec and spec.submodule_search_locations) or ():
                waiting += [f"{name}.{part}" for part in _names_in(place) if part in named]

    def _spec_of(self, name: str) -> ModuleSpec | None:
        parent = name.rpartition(".")[0]
        if parent:
            package = self._own.get(parent)
            path = None if package is None else package.submodule_search_locations
            where = [] if path is None else list(path)
        else:
            where = [entry or os.getcwd() for entry in sys.path if isinstance(entry, str)]
            where = [entry for entry in where if self._holds(entry)]
        try:
            spec = PathFinder.find_spec(name, where)
        except (ImportError, OSError, ValueError):
            return None
        return spec if spec is not None and self._is_own(name, spec) else None

    def _is_own(self, name: str, spec: ModuleSpec) -> bool:
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in ("__main__", "__mp_main__", _OURS):
            return False
        if spec.has_location and spec.origin:
            return self._holds(spec.origin)
        places = spec.submodule_search_locations
        return bool(places) and all(self._holds(place) for place in places or ())

    def _holds(self, path: str) -> bool:
        """Return whether a path is in the program's directory and not in what is installed."""
        path = os.path.realpath(path)
        if path != self._root and not path.startswith(os.path.join(self._root, "")):
            return False
        if path.startswith(self._excluded) or path + os.sep in self._excluded:
            return False
        inside = os.path.relpath(path, self._root).split(os.sep)
        if "site-packages" in inside or "dist-packages" in inside:
            return False
        return not any(
            os.path.exists(os.path.join(self._root, *inside[:count], _VENV))
            for count in range(len(inside))
        )

    def _top_names(self) -> Iterable[str]:
        """Return the names at the top of the program's directory."""
        try:
            changed = os.stat(self._root).st_mtime_ns
            if changed != self._tops_state:
                self._tops_state = changed
                self._tops = dict.fromkeys(_names_in(self._root))
        except OSError:
            pass  # it is gone: what was read of it stays
        return self._tops

    # ---------------------------------------------------------------------------- reading

    def _imports_of(self, name: str) -> tuple[str, ...]:
        spec = self._own[name]
        origin = spec.origin if spec.has_location else None
        is_package = spec.submodule_search_locations is not None
        if not origin:
            self._read[name] = _Read((0, 0), Carried(name, "", True, b""), ())
            return ()
        state = _state_of(origin)
        known = self._read.get(name)
        if known is not None and (known.state == state or state == (0, 0)):
            return known.imports
        source, refusal = _source_of(origin)
        package = name if is_package else name.rpartition(".")[0]
        imports = tuple(self._imported(source, package)) if source else ()
        carried = Carried(name, origin, is_package, source, refusal)
        self._read[name] = _Read(state, carried, imports)
        return imports

    def _add_imports_of_main(self) -> None:
        main = sys.modules.get("__main__")
        path = getattr(main, "__file__", None)
        if not isinstance(path, str):
            return
        source, _ = _source_of(path)
        spec = getattr(main, "__spec__", None)
        for name in self._imported(source, spec.parent if spec is not None else ""):
            self._add(name)

    def _imported(self, source: bytes, package: str) -> Iterator[str]:
        """Yield the modules that source imports, or names in a text: import_module("plugin")."""
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):
            return
        tops = dict.fromkeys([*self._top_names(), *(name.partition(".")[0] for name in self._own)])
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = _absolute("." * node.level + (node.module or ""), package)
                if base:
                    yield base
                    yield from (f"{base}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
                if len(text) < 256 and _NAME.fullmatch(text):
                    name = _absolute(text, package)
                    if name.partition(".")[0] in tops:
                        yield name


def _absolute(name: str, package: str) -> str:
    """Return the full name of what may be named from within a package; "" if it is outside."""
    plain = name.lstrip(".")
    level = len(name) - len(plain)
    if not level:
        return plain
    parents = package.split(".") if package else []
    if level > len(parents):
        return ""
    return ".".join([*parents[: len(parents) - level + 1], *([plain] if plain else [])])


def _named_in(payload: bytes) -> dict[str, None]:
    """Return the names in pickled code, dotted ones in parts: texts that are nothing but a name.

    A word in the middle of a docstring names no module: its file would be shown to the nodes.
    """
    named: dict[str, None] = {}
    for found in _SHORT_TEXT.finditer(payload):
        begin = found.end() + 1
        try:
            text = payload[begin : begin + found[1][0]].decode()
        except UnicodeDecodeError:
            continue  # not a text after all
        parts = text.lstrip(".").split(".")
        if all(part.isidentifier() for part in parts):
            named.update(dict.fromkeys(parts))
    return named


def _names_in(directory: str) -> list[str]:
    """Return the names of the modules and packages in a directory."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    return [
        name.removesuffix(_SOURCE)
        for name in names
        if (name.endswith(_SOURCE) and name != f"__init__{_SOURCE}")
        or os.path.exists(os.path.join(directory, name, f"__init__{_SOURCE}"))
    ]


def _state_of(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)


def _source_of(path: str) -> tuple[bytes, str]:
    """Return a module's source, or why there is none."""
    if not path.endswith(_SOURCE):
        return b"", f"{path} is compiled, and only source travels; install it on the nodes"
    try:
        with open(path, "rb") as file:
            return file.read(), ""
    except OSError as error:
        return b"", f"{path} cannot be read: {error.strerror}"


def _installed(root: str) -> Iterator[str]:
    """Yield where what is installed lies, with a separator at the end."""
    for key in ("stdlib", "platstdlib", "purelib", "platlib"):
        yield os.path.join(os.path.realpath(sysconfig.get_path(key)), "")
    # This package and this Python, however they are called where they lie. A program may lie in
    # there itself: /usr/local/app is no part of the Python in /usr/local.
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for path in (package, sys.prefix, sys.base_prefix):
        found = os.path.join(os.path.realpath(path), "")
        if not os.path.join(root, "").startswith(found):
            yield found


def program_directory(main: ModuleType | None) -> str:
    """Return the directory that holds the program's own modules."""
    path: Any = getattr(main, "__file__", None)
    if not isinstance(path, str):
        return os.getcwd()
    directory = os.path.dirname(os.path.realpath(path))
    spec = getattr(main, "__spec__", None)
    for _ in range(0 if spec is None else spec.name.count(".")):
        directory = os.path.dirname(directory)  # python -m package.module
    return directory


def begin() -> None:
    """Have this program's own modules come along with its functions."""
    try:
        directory = program_directory(sys.modules.get("__main__"))
    except OSError:
        return  # the working directory was removed: nothing can be imported from there
    modules.carry(OwnCode(directory))

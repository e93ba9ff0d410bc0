"""Which modules are a program's own, and which of them go with its functions."""

import importlib
import os
import pickle
import sys
import textwrap
import types
from pathlib import Path

import pytest
from drumbeat.client import own_code
from drumbeat.client.own_code import OwnCode, program_directory
from drumbeat.protocol import modules


class Place:
    """A program's directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, source: str = "") -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source), encoding="utf-8")

    def names(self, payload: bytes = b"") -> list[str]:
        return [module.name for module in OwnCode(str(self.root)).modules(payload)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    known = dict(sys.modules)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    yield Place(tmp_path)
    for name in set(sys.modules) - set(known):
        del sys.modules[name]
    modules.carry(None)


def test_what_is_imported_goes_and_what_that_imports_too(place):
    place.write("own_a.py", "import json, own_b\n")
    place.write("own_b.py", "def late():\n  from own_pack.sub import deep as d, own_c\n")
    place.write("own_pack/__init__.py", "from . import near\n")
    place.write("own_pack/near.py", "from .. import outside\nfrom .sub.other import *\n")
    place.write("own_pack/sub/__init__.py")
    place.write("own_pack/sub/deep.py")
    place.write("own_pack/sub/other.py")
    place.write("own_pack/unused.py")
    place.write("own_unused.py")
    assert place.names() == []
    importlib.import_module("own_a")
    assert place.names() == [
        "own_a", "own_b", "own_pack", "own_pack.near", "own_pack.sub", "own_pack.sub.deep",
        "own_pack.sub.other",
    ]  # fmt: skip


def test_modules_that_texts_name_go_too(place):
    place.write("own_a.py", "PLUGINS = ['own_plugs.one', '.x', 'json', 'own', 'own_plugs.none']\n")
    place.write("own_plugs/__init__.py", "from importlib import import_module as i\ni('.two', '')")
    place.write("own_plugs/one.py")
    place.write("own_plugs/two.py")
    place.write("own_plugs/three.py")
    sys.modules["own_a"] = importlib.util.module_from_spec(importlib.util.find_spec("own_a"))
    assert place.names() == ["own_a", "own_plugs", "own_plugs.one", "own_plugs.two"]


def test_what_the_script_imports_later_goes_too(place):
    place.write("own_script.py", "def f():\n  import own_late\n")
    place.write("own_late.py")
    sys.modules["__main__"].__file__ = str(place.root / "own_script.py")
    assert place.names() == ["own_late"]


def test_what_pickled_code_names_goes_too(place):
    place.write("own_typed.py")
    place.write("own_other.py")
    place.write("own_pack/__init__.py")
    place.write("own_pack/near.py")
    place.write("own_pack/far.py")
    assert place.names(pickle.dumps(["own_typed"])) == ["own_typed"]
    assert place.names(pickle.dumps("own_pack.near")) == ["own_pack", "own_pack.near"]
    assert place.names(pickle.dumps(("own_pack", "far"))) == ["own_pack", "own_pack.far"]


def test_a_word_within_a_text_names_no_module_whose_source_others_would_see(place):
    place.write("own_data.py", "PASSWORD = 'secret'\n")
    place.write("o.py", "import own_data\n")
    words = ["looks at own_data, once", "own_database", "own_data ", "so", b"own_data"]
    assert place.names(pickle.dumps(words)) == []


def test_what_is_installed_is_not_own(place):
    for where in ("lib/site-packages", "lib/dist-packages", "env/lib"):
        place.write(f"{where}/own_x{len(where)}.py")
        sys.path.append(str(place.root / where))
        importlib.import_module(f"own_x{len(where)}")
    place.write("env/pyvenv.cfg")
    place.write("json.py")
    place.write("drumbeat.py")
    assert place.names(pickle.dumps(["json", "drumbeat"])) == []
    package = os.path.dirname(os.path.dirname(own_code.__file__))
    sides = pickle.dumps(["client", "scheduler", "node", "protocol"])
    tools = pickle.dumps(["msgspec", "pytest"])
    assert OwnCode(os.path.dirname(package)).modules(sides) == []
    assert OwnCode(sys.prefix).modules(tools) == []
    everything = OwnCode(os.sep).modules(tools)
    assert not [one for one in everything if one.name.startswith(("msgspec", "pytest", "json"))]


def test_a_directory_without_code_of_its_own_is_a_package_as_well(place):
    place.write("own_space/part.py")
    importlib.import_module("own_space.part")
    space, part = OwnCode(str(place.root)).modules(b"")
    assert (space.name, space.path, space.is_package) == ("own_space", "", True)
    assert part.name == "own_space.part"


def test_what_has_no_source_says_why_it_stays(place):
    place.write("own_fast.so")
    spec = importlib.util.spec_from_file_location("own_fast", place.root / "own_fast.so")
    spec = spec or importlib.machinery.ModuleSpec("own_fast", None, origin=str(place.root / "x.so"))
    spec.has_location = True
    sys.modules["own_fast"] = module = types.ModuleType("own_fast")
    module.__spec__ = spec
    (carried,) = OwnCode(str(place.root)).modules(b"")
    assert carried.source == b""
    assert "is compiled, and only source travels" in carried.refusal


def test_source_that_is_no_python_goes_as_it_is(place):
    place.write("own_broken.py", "def (:\n")
    place.write("own_a.py", "def f(): import own_broken\n")
    importlib.import_module("own_a")
    assert place.names() == ["own_a", "own_broken"]


def test_nothing_is_looked_at_again_unless_something_was_imported(place, monkeypatch):
    place.write("own_a.py")
    code = OwnCode(str(place.root))
    code.modules(b"")
    version = code.version
    looked = []
    monkeypatch.setattr(code, "_look", lambda: looked.append(1))
    code.look()
    assert not looked
    monkeypatch.undo()
    monkeypatch.setattr(sys, "path", [str(place.root), *sys.path])
    importlib.import_module("own_a")
    code.look()
    assert code.version == version + 1
    code.look()
    code.modules(b"")
    assert code.version == version + 1


def test_a_file_that_changed_is_read_again(place):
    place.write("own_a.py", "x = 1\n")
    importlib.import_module("own_a")
    code = OwnCode(str(place.root))
    assert code.modules(b"")[0].source == b"x = 1\n"
    place.write("own_a.py", "x = 222\n")
    assert code.modules(b"")[0].source == b"x = 222\n"
    (place.root / "own_a.py").unlink()
    assert code.modules(b"")[0].source == b"x = 222\n"


def test_functions_that_were_packed_are_packed_anew_when_more_has_to_go(place):
    class Packer:
        outdated_times = 0

        def outdated(self):
            self.outdated_times += 1

    place.write("own_a.py")
    code = OwnCode(str(place.root))
    packer = Packer()
    modules.packed(packer)
    modules.carry(code)
    assert packer.outdated_times == 0, "nothing was carried when it was packed"
    modules.packed(packer)
    code.look()
    assert packer.outdated_times == 0
    importlib.import_module("own_a")
    code.look()
    assert packer.outdated_times == 1
    code.look()
    modules.carry(None)
    assert packer.outdated_times == 1
    assert modules.code_version() == -1


def test_the_programs_directory_is_that_of_its_script_or_the_current_one(tmp_path, monkeypatch):
    main = types.ModuleType("__main__")
    monkeypatch.chdir(tmp_path)
    assert program_directory(main) == program_directory(None) == str(tmp_path)
    main.__file__ = "/code/run.py"
    assert program_directory(main) == "/code"
    main.__file__ = "/code/package/inner/__main__.py"
    main.__spec__ = importlib.machinery.ModuleSpec("package.inner.__main__", None)
    assert program_directory(main) == "/code"

"""Modules that came along with a function: imported from their source, as at home."""

import importlib
import inspect
import pkgutil
import sys
import traceback

import pytest
from drumbeat.protocol import modules, needs
from drumbeat.protocol.brought import ENTRY, Brought, Carried
from drumbeat.protocol.errors import MessageTooLarge
from drumbeat.protocol.payload import limit_values, pack_function, pack_value, unpack_function


def module(name: str, source: str = "", *, package: bool = False, refusal: str = "") -> Carried:
    path = f"/home/me/{name.replace('.', '/')}{'/__init__' if package else ''}.py"
    return Carried(name, path, package, source.encode(), refusal)


@pytest.fixture
def brought(monkeypatch):
    # What is first imported in here is forgotten, and the door to cloudpickle keeps its pickler.
    importlib.import_module("cloudpickle")
    known = dict(sys.modules)
    for name in ("path", "path_hooks", "meta_path"):
        monkeypatch.setattr(sys, name, list(getattr(sys, name)))
    made = Brought()
    monkeypatch.setattr(needs, "brought", made)
    yield made
    sys.path_importer_cache.clear()
    for name in set(sys.modules) - set(known):
        del sys.modules[name]
    modules.carry(None)


def test_modules_are_imported_as_they_are_at_home(brought):
    brought.take(b"1", [
        module("brought_a", "from brought_pack import near\nNAME = __name__, near.VALUE\n"),
        module("brought_pack", "from .near import VALUE\n", package=True),
        module("brought_pack.near", "from . import far\nVALUE = far.__package__\n"),
        module("brought_pack.far"),
    ])  # fmt: skip
    found = importlib.import_module("brought_a")
    assert found.NAME == ("brought_a", "brought_pack")
    assert found.__file__ == "/home/me/brought_a.py"
    pack = sys.modules["brought_pack"]
    assert [name for _, name, _ in pkgutil.iter_modules(pack.__path__)] == ["far", "near"]
    assert sys.path[0] == ENTRY
    for missing in ("brought_none", "brought_pack.none", "brought_pack.near.none"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(missing)


def test_tracebacks_and_inspect_show_the_source(brought):
    brought.take(b"1", [module("brought_fails", "def fail():\n    raise ValueError('so')\n")])
    fails = importlib.import_module("brought_fails")
    try:
        fails.fail()
    except ValueError:
        text = traceback.format_exc()
    assert '/home/me/brought_fails.py", line 2, in fail\n    raise ValueError(' in text
    assert inspect.getsource(fails.fail).startswith("def fail")


def test_files_that_are_no_modules_stay_at_home_and_that_is_said(brought):
    brought.take(b"1", [module("brought_pack", package=True)])
    importlib.import_module("brought_pack")
    with pytest.raises(FileNotFoundError, match="only modules travel"):
        pkgutil.get_data("brought_pack", "table.csv")


def test_what_could_not_come_says_so_unless_it_is_found_elsewhere(brought, tmp_path):
    brought.take(b"1", [module("brought_fast", refusal="it is compiled")])
    with pytest.raises(ModuleNotFoundError, match="brought_fast did not come along: it is comp"):
        importlib.import_module("brought_fast")
    (tmp_path / "brought_fast.py").write_text("")
    sys.path.append(str(tmp_path))
    assert importlib.import_module("brought_fast").__file__ == str(tmp_path / "brought_fast.py")


def test_parts_of_a_package_without_code_may_lie_in_several_places(brought, tmp_path):
    (tmp_path / "brought_space").mkdir()
    (tmp_path / "brought_space" / "there.py").write_text("")
    sys.path.append(str(tmp_path))
    brought.take(b"1", [Carried("brought_space", "", True, b""), module("brought_space.here")])
    importlib.import_module("brought_space.here")
    importlib.import_module("brought_space.there")


def test_where_the_programs_files_lie_they_come_first(brought, tmp_path):
    (tmp_path / "brought_near.py").write_text("WHERE = 'file'")
    sys.path.append(str(tmp_path))
    brought.come_last()
    assert importlib.import_module("brought_near").WHERE == "file"
    brought.take(b"1", [module("brought_near", "WHERE = 'came'"), module("brought_far", "x = 1")])
    assert importlib.import_module("brought_near").WHERE == "file"
    assert importlib.import_module("brought_far").x == 1


def test_the_programs_module_goes_before_one_of_the_same_name_on_the_node(brought, tmp_path):
    (tmp_path / "brought_twice.py").write_text("WHERE = 'node'")
    sys.path.append(str(tmp_path))
    assert importlib.import_module("brought_twice").WHERE == "node"
    brought.take(b"1", [module("brought_twice", "WHERE = 'program'")])
    assert importlib.import_module("brought_twice").WHERE == "program"


def test_what_changed_is_imported_anew_with_all_that_knows_it(brought):
    brought.take(b"1", [
        module("brought_a", "import brought_b\nV = brought_b.V\n"), module("brought_b", "V = 1\n")
    ])  # fmt: skip
    before = importlib.import_module("brought_a")
    assert not brought.is_known(b"2")
    brought.take(b"2", [module("brought_b", "V = 2\n")])
    after = importlib.import_module("brought_a")
    assert (before.V, after.V) == (1, 2)
    assert brought.is_known(b"2")


def test_what_is_the_same_stays_as_it_is(brought):
    brought.take(b"1", [module("brought_a", "V = []\n")])
    before = importlib.import_module("brought_a")
    version = brought.version
    brought.take(b"2", [module("brought_a", "V = []\n"), module("brought_b")])
    assert importlib.import_module("brought_a") is before
    assert brought.version == version + 1


class Carrying:
    """A carrier of given modules."""

    version = 1

    def __init__(self, *carried: Carried) -> None:
        self.carried = list(carried)

    def look(self) -> None: ...

    def modules(self, payload: bytes) -> list[Carried]:
        return self.carried


def test_a_function_brings_its_modules_and_takes_them_on_when_it_sends_others(brought):
    modules.carry(Carrying(module("brought_far", "def f(): return 7\n")))
    code = "def call():\n  import brought_far\n  return brought_far.f()"
    space: dict[str, object] = {"__name__": "__main__"}
    exec(code, space)
    packed = pack_function(space["call"], False, "call")
    modules.carry(None)
    function, _ = unpack_function(packed.payload)
    assert function() == 7
    assert [one.name for one in modules.carriers[0].modules(b"")] == ["brought_far"]
    again = pack_function(space["call"], False, "call")
    assert again.payload == packed.payload
    value = pack_value(sys.modules["brought_far"].f).payload
    assert b"brought_far" in value
    assert b"return 7" not in value, "by its name: the program knows it by that"


def test_a_program_too_large_to_send_names_its_largest_module(brought):
    source = "".join(f"# {number * number}\n" for number in range(5000))
    modules.carry(Carrying(module("brought_small"), module("brought_large", source)))
    limit_values(2000)
    try:
        with pytest.raises(MessageTooLarge, match="largest is brought_large, /home/me/brought_la"):
            pack_function(len, False, "count")
    finally:
        limit_values(64 << 20)

"""Pickling of calls, values, functions and errors."""

import dataclasses
import enum
import functools
import importlib
import pickle
import sys
import textwrap
import threading
import types
from typing import Any

import pytest
from drumbeat.protocol import modules, payload
from drumbeat.protocol.errors import DrumbeatError, Interrupted, MessageTooLarge, NotPicklable
from drumbeat.protocol.messages import Outcome, ValueRow
from drumbeat.protocol.payload import (
    Placeholder,
    load_error,
    load_exception,
    pack_call,
    pack_error,
    pack_function,
    pack_results,
    pack_value,
    unpack_call,
    unpack_function,
    unpack_value,
)
from drumbeat.protocol.references import ObjectRef
from drumbeat.protocol.session import Packed
from support.fake_session import FakeSession


def row(packed: Packed) -> ValueRow:
    return ValueRow(b"v" * 14, Outcome.VALUE, packed.payload)


class Box:
    """Something with attributes."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


@pytest.fixture
def main_module(monkeypatch):
    """A `__main__` whose definitions another process does not have."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


def forget(module: types.ModuleType) -> None:
    for name in [name for name in vars(module) if not name.startswith("__")]:
        delattr(module, name)


def test_a_call_without_arguments_has_no_payload():
    assert pack_call((), {}) == Packed(None, (), ())
    assert unpack_call(None) == ((), {})


def test_plain_arguments_come_back():
    packed = pack_call((1, "a", [2]), {"key": {"b": 3}})
    args, kwargs = unpack_call(packed.payload)
    assert tuple(args) == (1, "a", [2])
    assert kwargs == {"key": {"b": 3}}
    assert packed.deps == packed.contained == ()


def test_references_at_the_top_become_placeholders_once_each():
    with FakeSession() as session:
        a, b = (ObjectRef(session.put(pack_value(v)), session) for v in ("A", "B"))
        packed = pack_call((a, 1, b, a), {"key": b})
        assert packed.deps == (a.id, b.id)
        assert packed.contained == ()
        args, kwargs = unpack_call(packed.payload, [row(pack_value("A")), row(pack_value("B"))])
        assert list(args) == ["A", 1, "B", "A"]
        assert kwargs == {"key": "B"}


def test_nested_references_are_contained_and_stay_references():
    with FakeSession() as session:
        a = ObjectRef(session.put(pack_value(1)), session)
        packed = pack_call(([a], {"again": a}), {})
        assert packed.deps == ()
        assert packed.contained == (a.id,)
        before = session.holds[a.id]
        args, _ = unpack_call(packed.payload)
        assert args[0] == [a]
        assert session.holds[a.id] > before
        assert session.pinned == []


def test_a_result_that_is_a_reference_is_contained():
    with FakeSession() as session:
        a = ObjectRef(session.put(pack_value(1)), session)
        assert pack_value(a).contained == (a.id,)


def test_packing_inside_packing_keeps_both_accounts():
    class Nesting:
        def __reduce__(self):
            inner = pack_value([ref_b])
            return (str, (str(inner.contained == (ref_b.id,)),))

    with FakeSession() as session:
        ref_a, ref_b = (ObjectRef(session.put(pack_value(v)), session) for v in (1, 2))
        packed = pack_value([Nesting(), ref_a])
        assert packed.contained == (ref_a.id,)
        assert unpack_value(packed.payload)[0] == "True"


@pytest.mark.parametrize(
    ("value", "path", "kind"),
    [
        (Box(handlers=[1, 2, Box(lock=threading.Lock())]), "args[0].handlers[2].lock", "lock"),
        ({"a": (1, threading.Lock())}, "args[0]['a'][1]", "lock"),
        ((x for x in ()), "args[0]", "generator"),
        (functools.partial(print, threading.Lock()), "args[0].args[0]", "lock"),
        (Box(f=open), "", ""),
    ],
)
def test_an_argument_that_cannot_be_pickled_is_named_by_its_path(value, path, kind):
    if not path:
        assert pack_call((value,), {}).payload
        return
    with pytest.raises(NotPicklable) as caught:
        pack_call((value,), {})
    assert caught.value.path == path
    assert caught.value.type_name == kind
    assert path in str(caught.value)
    assert isinstance(caught.value, pickle.PicklingError)
    assert pickle.loads(pickle.dumps(caught.value)).path == path


def test_a_keyword_argument_is_named_by_its_keyword():
    with pytest.raises(NotPicklable, match=r"kwargs\['lock'\] cannot be sent"):
        pack_call((1,), {"lock": threading.Lock()})


def test_a_closure_variable_at_fault_is_named():
    lock = threading.Lock()

    def guarded():
        return lock

    with pytest.raises(NotPicklable) as caught:
        pack_function(guarded, False, "guarded")
    assert caught.value.path == "guarded.<closure>.lock"


def test_deep_recursion_is_refused_not_followed():
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(NotPicklable, match="ecursion"):
        pack_value(deep)
    while deep:  # taken apart by hand: its destructor would recurse, too
        deep = deep.pop()


class Odd(BaseException):
    pass


@pytest.mark.parametrize("raised", [SystemExit, GeneratorExit, Odd])
def test_an_exception_while_pickling_is_the_values_fault(raised):
    class Leaves:
        def __reduce__(self):
            raise raised(3)

    class Box:
        def __init__(self):
            self.inside = Leaves()

    leaves = Leaves()
    for pack in (pack_value, lambda value: pack_call((value,), {})):
        for value in (leaves, [leaves], Box()):
            with pytest.raises(NotPicklable, match=raised.__name__):
                pack(value)
    with pytest.raises(NotPicklable, match=raised.__name__):
        pack_function(lambda: leaves, False, "f")


@pytest.mark.parametrize("raised", [KeyboardInterrupt, Interrupted, MemoryError])
def test_what_is_not_the_values_fault_goes_through(raised):
    class Stopped:
        def __reduce__(self):
            raise raised

    stopped = Stopped()
    with pytest.raises(raised):
        pack_call((stopped,), {})
    with pytest.raises(raised):
        pack_function(lambda: stopped, False, "f")


def test_more_than_the_limit_is_refused_with_both_sizes(monkeypatch):
    monkeypatch.setattr(payload, "_bytes_max", 1000)
    for pack in (lambda: pack_call((b"x" * 2000,), {}), lambda: pack_value(b"x" * 2000)):
        with pytest.raises(MessageTooLarge) as caught:
            pack()
        assert caught.value.size_bytes > 2000
        assert caught.value.limit_bytes == 1000
        assert "value_bytes_max" in str(caught.value)


def test_what_is_defined_in_main_travels_by_value(main_module):
    source = """
import dataclasses, enum
class Plain:
    def __init__(self): self.x = 1
@dataclasses.dataclass
class Data:
    y: int
class Colour(enum.Enum):
    RED = 1
class MyError(ValueError): pass
def double(n): return 2 * n
"""
    exec(source, main_module.__dict__)
    values = [
        main_module.Plain(),
        main_module.Data(2),
        main_module.Colour.RED,
        main_module.double,
        main_module.Plain,
    ]
    packed = [pack_value(value).payload for value in values]
    call = pack_call((main_module.Data(5),), {}).payload
    assert all(b"cloudpickle" in part for part in [*packed, call])
    forget(main_module)
    plain, data, colour, double, _ = map(unpack_value, packed)
    assert (plain.x, data.y, colour.name, double(4)) == (1, 2, "RED", 8)
    assert unpack_call(call)[0][0].y == 5


@pytest.mark.parametrize("name", [None, "not_a_module_anywhere", "__main__"])
def test_functions_and_classes_of_an_exec_travel_by_value(name):
    space: dict[str, Any] = {} if name is None else {"__name__": name}
    exec("base = 10\ndef add(n): return helper(n)\ndef helper(n): return n + base", space)
    function, _ = unpack_function(pack_function(space["add"], False, "add").payload)
    assert function(5) == 15
    exec("class Thing:\n  def __init__(self): self.x = 1", space)
    if name is not None:
        assert unpack_value(pack_value(space["Thing"]()).payload).x == 1


def test_a_module_made_by_hand_is_registered_to_travel_by_value(monkeypatch):
    module = types.ModuleType("handmade_module")
    exec("class Thing: pass\ndef make(): return Thing()", module.__dict__)
    monkeypatch.setitem(sys.modules, "handmade_module", module)
    try:
        definition = pack_function(module.make, False, "make")
        packed = pack_value(module.Thing())
    finally:
        import cloudpickle

        cloudpickle.unregister_pickle_by_value(module)
        del modules.by_value[b"handmade_module"]
    monkeypatch.delitem(sys.modules, "handmade_module")
    function, _ = unpack_function(definition.payload)
    assert type(function()).__name__ == "Thing"
    assert type(unpack_value(packed.payload)).__name__ == "Thing"


def test_shipping_a_module_by_value_needs_an_imported_one():
    with pytest.raises(ValueError, match="not imported"):
        modules.ship_by_value("never_imported_module")


def test_a_function_takes_along_what_sys_path_has_gained(monkeypatch, tmp_path):
    name = "module_found_late"
    (tmp_path / f"{name}.py").write_text("def f(): return 5")
    monkeypatch.setattr(modules, "_told", None)
    told = list(sys.path)
    modules.path_was_told(told)
    plain = pack_function(textwrap.dedent, False, "dedent").payload
    monkeypatch.setattr(sys, "path", [str(tmp_path), *told, "/behind"])
    late = importlib.import_module(name)
    packed = pack_function(late.f, False, "f").payload
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", ["/own", *told])
    function, _ = unpack_function(packed)
    assert function() == 5
    assert sys.path == [str(tmp_path), "/own", *told, "/behind"]
    unpack_function(packed)
    assert sys.path == [str(tmp_path), "/own", *told, "/behind"]
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", told)
    assert pack_function(textwrap.dedent, False, "dedent").payload == plain
    monkeypatch.setattr(modules, "_machine", "another")
    with pytest.raises(NotPicklable, match=name):
        unpack_function(packed)
    assert sys.path == told
    sys.modules.pop(name, None)


def test_closures_lambdas_partials_and_bound_methods_are_functions():
    offset = 5

    class Adder:
        def __init__(self, n):
            self.n = n

        def add(self, m):
            return self.n + m

    for function in (
        lambda n: n + offset,
        functools.partial(lambda a, n: a + n, 5),
        Adder(5).add,
    ):
        loaded, retry = unpack_function(pack_function(function, (KeyError,), "f").payload)
        assert loaded(2) == 7
        assert retry == (KeyError,)


def test_a_function_is_named_by_the_hash_of_its_pickle():
    first = pack_function(len, False, "len")
    assert len(first.hash) == 16
    assert first.hash == pack_function(len, False, "other").hash
    assert first.hash != pack_function(len, True, "len").hash


def test_a_missing_module_is_told_in_words():
    broken = b"cmodule_that_is_nowhere\nthing\n."
    for unpack in (unpack_value, unpack_function, unpack_call):
        with pytest.raises(
            NotPicklable, match="No module named 'module_that_is_nowhere'"
        ) as caught:
            unpack(broken)
        assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_value_that_exits_while_unpickling_only_fails_itself():
    class Exits:
        def __reduce__(self):
            return (sys.exit, (3,))

    with pytest.raises(NotPicklable, match="SystemExit"):
        unpack_value(pack_value(Exits()).payload)


def test_results_are_counted():
    assert pack_results(1, 0, "f") == []
    assert unpack_value(pack_results("abc", 1, "f")[0].payload) == "abc"
    assert [unpack_value(p.payload) for p in pack_results([1, 2], 2, "f")] == [1, 2]
    with pytest.raises(ValueError, match="num_returns=3, but returned 2"):
        pack_results((1, 2), 3, "f")
    with pytest.raises(ValueError, match="not int"):
        pack_results(7, 2, "f")
    with pytest.raises(NotPicklable, match=r"result\[1\] cannot be sent"):
        pack_results([1, threading.Lock()], 2, "f")


def test_a_placeholder_is_picklable():
    assert pickle.loads(pickle.dumps(Placeholder(3))).index == 3


# --------------------------------------------------------------------------------------- errors


class TwoArgumentsError(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a}-{b}")


class ExitsOnLoadError(Exception):
    def __reduce__(self):
        return (sys.exit, (3,))


class UnprintableError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def report_of(exception):
    try:
        raise exception
    except BaseException as error:  # noqa: BLE001  # what a worker does
        packed = pack_error(error, name="f", pid=4)
    return load_error(packed.payload)


def test_an_exception_arrives_with_its_text_and_itself():
    report = report_of(ValueError("boom"))
    assert (report.type_name, report.message, report.name, report.pid) == (
        "ValueError",
        "boom",
        "f",
        4,
    )
    assert report.traceback_text.startswith("Traceback")
    assert "test_protocol_payload.py" in report.traceback_text
    assert report.traceback_text.endswith("ValueError: boom\n")
    assert load_exception(report).args == ("boom",)


@pytest.mark.parametrize(
    "exception",
    [
        TwoArgumentsError(1, 2),
        ExitsOnLoadError("x"),
        ValueError(threading.Lock()),
        UnprintableError("x"),
    ],
)
def test_an_exception_that_cannot_travel_arrives_as_text(exception):
    report = report_of(exception)
    assert type(exception).__name__ in report.type_name
    assert type(exception).__name__ in report.traceback_text
    if not isinstance(exception, UnprintableError):
        assert report.pickled is None
        assert load_exception(report) is None


def test_a_cyclic_cause_and_a_long_chain_end():
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    assert "first" in report_of(first).traceback_text
    error = ValueError("innermost")
    for index in range(200):
        outer = ValueError(f"number {index}")
        outer.__cause__ = error
        error = outer
    report = report_of(error)
    assert "number 199" in report.traceback_text
    assert "number 150" not in report.traceback_text


def test_a_huge_text_is_cut_in_the_middle():
    report = report_of(ValueError("start" + "x" * 1_000_000 + "end"))
    assert len(report.message) <= 64 << 10
    assert len(report.traceback_text) <= 64 << 10
    assert report.message.startswith("start")
    assert report.message.endswith("end")


def test_an_endless_recursion_is_reported():
    def again():
        return again()

    try:
        again()
    except RecursionError as error:
        report = load_error(pack_error(error).payload)
    assert report.type_name == "RecursionError"
    assert "more times" in report.traceback_text


def test_notes_and_groups_are_in_the_text():
    error = ExceptionGroup("many", [ValueError("one"), KeyError("two")])
    error.add_note("mind this")
    report = report_of(error)
    for text in ("one", "two", "mind this"):
        assert text in report.traceback_text
    assert load_exception(report).exceptions[0].args == ("one",)


def test_frames_of_drumbeat_are_removed():
    try:
        unpack_value(b"nonsense")
    except DrumbeatError as error:
        report = load_error(pack_error(error).payload)
    assert "protocol/payload.py" not in report.traceback_text
    assert "test_protocol_payload.py" in report.traceback_text


def test_references_in_an_exception_are_contained():
    with FakeSession() as session:
        a = ObjectRef(session.put(pack_value(1)), session)
        assert pack_error(ValueError(a)).contained == (a.id,)


@dataclasses.dataclass
class Point:
    x: int


class Colour(enum.Enum):
    RED = 1


def test_importable_classes_travel_by_name():
    module = types.SimpleNamespace(Fraction=__import__("fractions").Fraction)
    packed = pack_value(module.Fraction(1, 2))
    assert b"cloudpickle" not in (packed.payload or b"")

"""Classes made remote, their handles, and what a call of a method asks of the session."""

import abc
import dataclasses
import functools
import importlib
import sys
import typing
from pathlib import Path
from typing import Any

import drumbeat
import pytest
from drumbeat.client.actors import ActorClass
from drumbeat.client.handles import ActorHandle
from drumbeat.client.options import ACTOR_NAMES, METHOD_NAMES
from drumbeat.protocol.actor_calls import MethodCall
from drumbeat.protocol.payload import unpack_function
from drumbeat.protocol.references import ObjectRef
from support.fake_session import FakeSession

T = typing.TypeVar("T")


class Base:
    def inherited(self, a, b=2):
        return a + b


@drumbeat.remote
class Counter(Base):
    """Counts."""

    STEP = 10

    class Inner:
        pass

    def __init__(self, n=0, *, name="c"):
        self.n = n
        self.name = name

    def add(self, k=1):
        self.n += k
        return self.n

    def step(self):
        self.n += Counter.STEP
        return self.n

    @drumbeat.method(num_returns=2, max_task_retries=4)
    def pair(self):
        return self.n, self.name

    @drumbeat.method(num_returns=0)
    def nothing(self):
        pass

    @drumbeat.method(retry_exceptions=[KeyError], name="flaky one")
    def flaky(self):
        raise KeyError("k")

    @staticmethod
    def double(n):
        return 2 * n

    @classmethod
    def title(cls, suffix=""):
        return cls.__name__ + suffix

    async def later(self, n):
        return n + self.n

    thrice = functools.partialmethod(add, 3)

    @property
    def value(self):
        return self.n

    def _private(self):
        pass


@pytest.fixture
def session():
    with FakeSession() as session:
        yield session


def test_an_actor_is_made_at_once_and_its_methods_are_called(session):
    session.automatic = False
    counter = Counter.remote(3, name="x")
    ref = counter.add.remote(2)
    assert isinstance(counter, ActorHandle)
    assert isinstance(ref, ObjectRef)
    assert not ref.done()
    session.run(2)
    assert ref.result() == 5
    assert session.actors[session.calls[0].ids[0]].name == "x"


def test_what_is_submitted_is_the_class_and_then_a_method_by_its_name(session):
    counter = Counter.remote()
    counter.add.remote()
    creation, call = session.calls
    assert unpack_function(creation.kind.function.payload)[0] is Counter.plain_class
    assert (creation.kind.name, call.kind.name) == ("Counter", "Counter.add")
    function, _ = unpack_function(call.kind.function.payload)
    assert isinstance(function, MethodCall)
    assert function.name == "add"
    options = creation.kind.options
    assert (options.num_cpus, options.max_retries, options.actor) == (0.0, 0, b"")
    assert options.creates is not None
    options = call.kind.options
    assert (options.num_cpus, options.max_retries, options.creates) == (0.0, 0, None)
    assert options.actor == creation.ids[0]


def test_methods_of_all_sorts_are_called(session):
    counter = Counter.remote(1)
    assert drumbeat.get(counter.inherited.remote(1, b=5)) == 6
    assert drumbeat.get(counter.double.remote(4)) == 8
    assert drumbeat.get(counter.title.remote("!")) == "Counter!"
    assert drumbeat.get(counter.thrice.remote()) == 4
    assert drumbeat.get(counter.later.remote(n=3)) == 7
    assert drumbeat.get(counter.step.remote()) == 14, "its class's name leads to its constants"


def test_the_constructors_signature_is_checked_at_once(session):
    for args, kwargs, text in (
        ((1, 2), {}, "too many positional arguments"),
        ((), {"m": 1}, "unexpected keyword argument 'm'"),
    ):
        with pytest.raises(TypeError, match=text) as caught:
            Counter.remote(*args, **kwargs)
        assert "Counter()" in str(caught.value)
    with pytest.raises(TypeError, match="too many"):
        drumbeat.remote(type("Plain", (), {})).remote(1)
    assert session.calls == []


def test_a_methods_signature_is_checked_at_once(session):
    counter = Counter.remote()
    for method, args, text in (
        (counter.add, (1, 2), "Counter.add.*too many positional arguments"),
        (counter.inherited, (), "missing a required argument: 'a'"),
        (counter.double, (), "missing a required argument: 'n'"),
        (counter.title, (1, 2), "too many positional arguments"),
    ):
        with pytest.raises(TypeError, match=text):
            method.remote(*args)
    with pytest.raises(TypeError, match="unexpected keyword argument 'x'"):
        counter.add.remote(x=1)
    assert len(session.calls) == 1


def test_calling_the_class_or_a_method_directly_says_what_to_write(session):
    with pytest.raises(TypeError, match=r"call Counter\.remote\(\.\.\.\).*Counter\.plain_class"):
        Counter(1)
    with pytest.raises(TypeError, match=r"call add\.remote\(\.\.\.\)"):
        Counter.remote().add(1)
    assert Counter.plain_class(4).add() == 5


def test_what_is_no_public_method_is_refused_in_plain_words(session):
    counter = Counter.remote()
    for name, text in (
        ("ad", "did you mean add"),
        ("zzz", "there are add, double, flaky"),
        ("value", "is a property"),
        ("STEP", "is an attribute"),
        ("Inner", "is a class"),
        ("_private", "is private"),
        ("__len__", "has no attribute"),
    ):
        with pytest.raises(AttributeError, match=text):
            getattr(counter, name)
    assert not hasattr(counter, "__call__")  # noqa: B004  # the attribute itself is meant
    empty = drumbeat.remote(type("Empty", (), {})).remote()
    with pytest.raises(AttributeError, match="it has none at all"):
        _ = empty.anything


def test_a_handle_lists_its_methods(session):
    listed = ["add", "double", "flaky", "inherited", "later", "nothing", "pair", "step", "thrice"]
    assert dir(Counter.remote()) == [*listed, "title"]


def test_options_of_methods_arrive_in_the_kind(session):
    counter = Counter.options(max_task_retries=2).remote()
    assert counter.nothing.remote() is None
    assert [type(ref) for ref in counter.pair.remote()] == [ObjectRef, ObjectRef]
    counter.flaky.remote()
    counter.add.options(name="one more", num_returns=1, max_task_retries=0).remote()
    _, nothing, pair, flaky, add = [call.kind for call in session.calls]
    assert (nothing.options.num_returns, nothing.options.max_retries) == (0, 2)
    assert (pair.options.num_returns, pair.options.max_retries) == (2, 4)
    assert flaky.name == "flaky one"
    assert flaky.options.retry_exceptions
    assert unpack_function(flaky.function.payload)[1] == (KeyError,)
    assert (add.name, add.options.max_retries) == ("one more", 0)


@pytest.mark.parametrize(
    ("given", "error"),
    [(0, ValueError), (-1, ValueError), (10_001, ValueError), (2.0, TypeError), (True, TypeError)],
)
def test_how_many_calls_may_run_at_once_is_checked(given, error):
    with pytest.raises(error, match="max_concurrency must be"):
        Counter.options(max_concurrency=given)


def test_options_of_the_class_arrive_in_the_kind(session):
    made = Counter.options(
        num_cpus=0.5,
        num_gpus=1,
        resources={"tape": 1},
        max_restarts=3,
        restart_window_s=60,
        retry_backoff_s=0.5,
        max_pending_calls=7,
        max_concurrency=5,
        on_partition="wait",
        node="lab3",
        env_vars={"A": "1"},
        wait_for_nodes=True,
    )
    made.remote()
    options = session.calls[0].kind.options
    assert (options.num_cpus, options.num_gpus, options.resources) == (0.5, 1.0, (("tape", 1.0),))
    assert (options.max_retries, options.retry_backoff_s, options.node) == (3, 0.5, "lab3")
    assert (options.env_vars, options.wait_for_nodes) == ((("A", "1"),), True)
    creates = options.creates
    assert creates is not None
    asked = creates.restart_window_s, creates.max_pending_calls, creates.max_concurrency
    assert asked == (60.0, 7, 5)
    assert creates.waits_on_partition
    made.options(num_cpus=2).remote()
    assert session.calls[1].kind.options.max_retries == 3, "options build on each other"
    assert session.calls[1].kind.function is session.calls[0].kind.function, "pickled once"


def test_an_unknown_option_names_the_valid_ones(session):
    for make, what, names in (
        (lambda: Counter.options(max_retries=1), "not an option of an actor", ACTOR_NAMES),
        (lambda: drumbeat.method(num_cpus=1), "not an option of a method", METHOD_NAMES),
        (lambda: Counter.remote().add.options(n=1), "not an option of a method", METHOD_NAMES),
        (lambda: drumbeat.remote(nonsense=1), "not an option of a task", ACTOR_NAMES),
        (lambda: drumbeat.remote(max_restarts=1)(len), "not an option of a task", ()),
        (lambda: drumbeat.remote(max_calls=1)(Base), "not an option of an actor", ()),
    ):
        with pytest.raises(TypeError, match=what) as caught:
            make()
        for name in names:
            assert name in str(caught.value)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"max_restarts": -1}, ValueError),
        ({"max_restarts": "1"}, TypeError),
        ({"max_task_retries": -1}, ValueError),
        ({"restart_window_s": -1}, ValueError),
        ({"max_pending_calls": 0}, ValueError),
        ({"max_pending_calls": 1.5}, TypeError),
        ({"on_partition": "hope"}, ValueError),
        ({"num_cpus": -1}, ValueError),
    ],
)
def test_an_option_that_does_not_fit_is_refused_by_name(given, error):
    with pytest.raises(error, match=next(iter(given))):
        Counter.options(**given)


def test_all_forms_of_the_decorator(session):
    assert isinstance(drumbeat.remote(Base), ActorClass)
    wide = drumbeat.remote(num_cpus=2)(Base)
    wide.remote()
    assert session.calls[0].kind.options.num_cpus == 2
    assert drumbeat.remote(wide) is wide
    drumbeat.remote(max_restarts=2)(wide).remote()
    assert session.calls[1].kind.options.max_retries == 2
    assert Counter.__name__ == "Counter"
    assert Counter.__doc__ == "Counts."
    assert repr(Counter.options(num_cpus=1)) == "<actor class Counter, num_cpus=1>"


def test_classes_of_all_sorts_are_made(session):
    @drumbeat.remote
    @dataclasses.dataclass
    class Point:
        x: int
        y: int = 2

        def total(self):
            return self.x + self.y

    @drumbeat.remote
    class Slim:
        __slots__ = ("n",)

        def __init__(self, n):
            self.n = n

        def get(self):
            return self.n

    @drumbeat.remote
    class Box(typing.Generic[T]):
        def __init__(self, value: T) -> None:
            self.value = value

        def open(self) -> T:
            return self.value

    @drumbeat.remote
    class Row(list):
        pass

    assert drumbeat.get(Point.remote(1, y=4).total.remote()) == 5
    assert drumbeat.get(Slim.remote(3).get.remote()) == 3
    with pytest.raises(AttributeError, match="is an attribute"):
        _ = Slim.remote(3).n
    assert drumbeat.get(Box.remote(4).open.remote()) == 4
    assert drumbeat.get(Box[int].remote(4).open.remote()) == 4
    row = Row.remote([1, 2])
    drumbeat.get(row.append.remote(3))
    assert drumbeat.get(row.pop.remote()) == 3


def test_an_abstract_class_is_refused_at_once(session):
    class Shape(abc.ABC):
        @abc.abstractmethod
        def area(self): ...

    with pytest.raises(TypeError, match="abstract: it has to define area"):
        drumbeat.remote(Shape).remote()


def test_an_actors_class_can_be_inherited_from_and_tested_for(session):
    class Further(Counter):
        def add(self, k=1):
            return super().add(k) + 1000

    assert issubclass(Further, Counter.plain_class)
    assert isinstance(Further(), Counter)
    further = drumbeat.remote(Further).remote(1)
    assert drumbeat.get(further.add.remote()) == 1002
    assert drumbeat.get(further.inherited.remote(1)) == 3


def test_an_actors_class_is_picklable_as_an_argument(session):
    class Local:
        def get(self):
            return 7

    local = drumbeat.remote(Local).options(max_restarts=1)
    call = drumbeat.remote(lambda class_: drumbeat.get(class_.remote().get.remote()))
    assert drumbeat.get(call.remote(local)) == 7
    assert session.calls[1].kind.options.max_retries == 1


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that others can import, with a decorated class."""
    source = """
import drumbeat

@drumbeat.remote
class Book:
    def __init__(self):
        self.pages = [1]
    def itself(self):
        return self
"""
    (tmp_path / "bookshop_of_actors.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("bookshop_of_actors")
    del sys.modules["bookshop_of_actors"]


def test_a_decorated_class_of_a_module_is_sent_by_name_and_so_are_its_instances(session, module):
    book = module.Book.remote()
    payload = session.calls[0].kind.function.payload
    assert b"cloudpickle" not in payload
    assert b"bookshop_of_actors" in payload
    same = drumbeat.get(book.itself.remote())
    assert type(same) is module.Book.plain_class
    assert same.pages == [1]


def test_in_a_new_session_the_class_is_defined_anew(session):
    Counter.remote()
    with FakeSession() as other:
        Counter.remote()
        assert other.calls[0].kind is not session.calls[0].kind
        assert other.calls[0].kind.function is session.calls[0].kind.function


class Saves:
    def __checkpoint__(self) -> None:
        """Say nothing."""

    def __restore__(self, state: None) -> None:
        """Begin with that."""


class SavesAside(Saves):
    async def wait(self) -> None:
        """Wait."""


class SavesOnly:
    def __checkpoint__(self) -> None:
        """Say nothing."""


def test_how_often_an_actor_is_saved_arrives_in_the_kind(session):
    drumbeat.remote(checkpoint_every_calls=3, checkpoint_interval_s=1.5)(Saves).remote()
    creates = session.calls[0].kind.options.creates
    assert (creates.checkpoint_every_calls, creates.checkpoint_interval_s) == (3, 1.5)


@pytest.mark.parametrize("name", ["checkpoint_every_calls", "checkpoint_interval_s"])
def test_checkpoints_are_refused_of_a_class_that_cannot_make_them(name):
    with pytest.raises(TypeError, match="__checkpoint__ is no method of it"):
        Counter.options(**{name: 1})
    with pytest.raises(TypeError, match=r"SavesOnly.*; __restore__ is no method of it"):
        drumbeat.remote(**{name: 1})(SavesOnly)
    with pytest.raises(ValueError, match="made between calls, and SavesAside may run several"):
        drumbeat.remote(**{name: 1})(SavesAside)
    with pytest.raises(ValueError, match="leave out max_concurrency"):
        drumbeat.remote(**{name: 1}, max_concurrency=2)(Saves)
    with pytest.raises(ValueError, match=f"{name} must be"):
        drumbeat.remote(**{name: -1})(Saves)
    drumbeat.remote(max_concurrency=2)(Saves)


class SaysHow:
    def __health__(self) -> bool:
        """Be well."""
        return True


def test_how_often_an_actor_is_asked_how_it_is_arrives_in_the_kind(session):
    for given in ({}, {"health_check_interval_s": 0}, {"health_check_interval_s": 2.5}):
        drumbeat.remote(SaysHow).options(**given).remote()
    asked = [call.kind.options.creates.health_check_interval_s for call in session.calls]
    assert asked == [-1.0, 0.0, 2.5]


def test_a_class_that_cannot_say_how_it_is_is_not_to_be_asked():
    with pytest.raises(TypeError, match=r"__health__\(self\) of Counter.* is no method of it"):
        Counter.options(health_check_interval_s=1)
    Counter.options(health_check_interval_s=0)
    with pytest.raises(TypeError, match="__health__ of Named is to be a method"):
        drumbeat.remote(type("Named", (), {"__health__": "good"}))

    class Waits:
        async def __health__(self) -> None:
            """Say nothing."""

    with pytest.raises(TypeError, match=r"Waits is `async def`.* has no event loop"):
        drumbeat.remote(Waits)
    with pytest.raises(ValueError, match="health_check_interval_s must be a number from 0 up"):
        drumbeat.remote(SaysHow).options(health_check_interval_s=-1)

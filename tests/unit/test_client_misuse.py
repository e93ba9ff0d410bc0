"""What is used wrongly is refused where that is done: what it was, and what is meant instead."""

import gc
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import drumbeat
import pytest
from drumbeat.protocol.errors import NotInitialized, NotPicklable
from drumbeat.protocol.payload import pack_value
from support.fake_session import FakeSession


@pytest.fixture
def session() -> Iterator[FakeSession]:
    with FakeSession() as session:
        yield session


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Errors hold handles in cycles, and the next test's actors have the same ids."""
    yield
    gc.collect()


class Counter:
    """Counts."""

    def add(self, n: int) -> int:
        return n


def double(n: int) -> int:
    return 2 * n


actor_class: Any = drumbeat.remote(Counter)

TAKES_A_FUNCTION: dict[str, Callable[[Any], Any]] = {
    "submit": lambda thing: drumbeat.Executor().submit(thing, 1),
    "Executor.map": lambda thing: drumbeat.Executor().map(thing, [1]),
    "map": lambda thing: drumbeat.map(thing, [1]),
}


@pytest.mark.parametrize("takes", TAKES_A_FUNCTION)
def test_a_method_of_an_actor_is_no_function_of_a_task(session: FakeSession, takes: str) -> None:
    actor = actor_class.remote()
    with pytest.raises(TypeError, match=r"Counter\.add is a method of an actor.*add\.remote"):
        TAKES_A_FUNCTION[takes](actor.add)
    with pytest.raises(TypeError, match=r"is an actor, no function"):
        TAKES_A_FUNCTION[takes](actor)
    with pytest.raises(TypeError, match=r"class of an actor, no function: Counter\.remote"):
        TAKES_A_FUNCTION[takes](actor_class)


def test_neither_is_it_made_remote_once_more(session: FakeSession) -> None:
    actor = actor_class.remote()
    with pytest.raises(TypeError, match=r"Counter\.add is a method of an actor"):
        drumbeat.remote(actor.add)
    with pytest.raises(TypeError, match=r"is an actor, no function"):
        drumbeat.remote(actor)


TAKES_A_TIMEOUT: dict[str, Callable[[Any, Any], Any]] = {
    "get": lambda ref, timeout: drumbeat.get(ref, timeout=timeout),
    "get of a list": lambda ref, timeout: drumbeat.get([ref], timeout=timeout),
    "wait": lambda ref, timeout: drumbeat.wait([ref], timeout=timeout),
    "as_completed": lambda ref, timeout: drumbeat.as_completed([ref], timeout=timeout),
    "result": lambda ref, timeout: ref.result(timeout),
    "exception": lambda ref, timeout: ref.exception(timeout),
    "Executor.map": lambda _, timeout: drumbeat.Executor().map(double, [1], timeout=timeout),
}


@pytest.mark.parametrize("takes", TAKES_A_TIMEOUT)
@pytest.mark.parametrize("timeout", ["3", True, [1], -1, float("nan")])
def test_a_timeout_is_a_number_of_seconds(session: FakeSession, takes: str, timeout: Any) -> None:
    ref = drumbeat.remote(double).remote(1)
    with pytest.raises((TypeError, ValueError), match="timeout must be a number of seconds"):
        TAKES_A_TIMEOUT[takes](ref, timeout)


def test_as_completed_takes_many_and_says_so_at_once(session: FakeSession) -> None:
    ref = drumbeat.remote(double).remote(1)
    with pytest.raises(TypeError, match=r"for one, write as_completed\(\[ref\]\)"):
        drumbeat.as_completed(ref)  # type: ignore[arg-type]  # that is the test
    with pytest.raises(TypeError, match="as_completed takes ObjectRefs, not int"):
        drumbeat.as_completed(3)  # type: ignore[arg-type]  # that is the test
    with pytest.raises(TypeError, match="as_completed takes ObjectRefs, not int"):
        drumbeat.as_completed([3])  # type: ignore[list-item]  # that is the test


@pytest.mark.parametrize(
    "given",
    [
        {"max_workers": "2"}, {"max_workers": True}, {"max_workers": 0},
        {"max_tasks_per_child": "2"}, {"max_tasks_per_child": 0}, {"initializer": 3},
        {"initargs": 3},
    ],
)  # fmt: skip
def test_an_executor_names_the_argument_that_does_not_fit(given: dict[str, Any]) -> None:
    ((name, value),) = given.items()
    with pytest.raises((TypeError, ValueError), match=rf"^{name} must .* not {value!r}$"):
        drumbeat.Executor(**given)


@pytest.mark.parametrize(("done", "total"), [("a", None), (None, None), (1, "b"), ("a", 3)])
def test_progress_says_which_of_its_numbers_is_none(done: Any, total: Any) -> None:
    name = "total" if done == 1 else "done"
    with pytest.raises(TypeError, match=rf"^progress: {name} must be a number .*details="):
        drumbeat.progress(done, total)


@pytest.mark.parametrize("value", [-1, -2])
def test_who_wants_it_for_ever_is_told_how(value: int) -> None:
    hint = "for as often as it takes, write 2147483648"
    with pytest.raises(ValueError, match=f"max_restarts must be .* not {value}; {hint}"):
        actor_class.options(max_restarts=value)
    with pytest.raises(ValueError, match=f"max_task_retries must be .*{hint}"):
        actor_class.options(max_task_retries=value)
    with pytest.raises(ValueError, match=f"max_retries must be .*{hint}"):
        drumbeat.remote(double).options(max_retries=value)


def test_an_option_that_is_misspelt_is_recognised() -> None:
    with pytest.raises(TypeError, match=r"'timeouts' is not an option .*did you mean 'timeout'\?"):
        drumbeat.remote(double).options(timeouts=3)


def test_a_handle_of_a_cluster_that_is_gone_says_so_wherever_it_is_used() -> None:
    with FakeSession():
        actor = actor_class.remote()
        ref = actor.add.remote(1)
    for use in (
        lambda: actor.add.remote(1),
        lambda: drumbeat.kill(actor),
    ):
        with pytest.raises(NotInitialized, match=r"ActorHandle\(Counter, .*was shut down"):
            use()
    with pytest.raises(NotInitialized, match=r"was shut down.*submit the task again"):
        drumbeat.get(ref)
    with FakeSession() as another:
        for thing in (actor, [ref]):
            with pytest.raises(NotPicklable, match=r"args\[0\].* cannot be sent: .*was shut down"):
                drumbeat.remote(repr).remote(thing)
        assert not another.calls
    with pytest.raises(NotInitialized, match="was shut down"):
        pickle.dumps(actor)


def test_what_often_cannot_be_sent_comes_with_advice() -> None:
    for value, advice in (
        ((n for n in [1]), "return a list of what it yields"),
        (threading.Lock(), "leave it out with __getstate__"),
    ):
        with pytest.raises(NotPicklable, match=advice):
            pack_value([value])


def test_names_of_actors_are_texts(session: FakeSession) -> None:
    with pytest.raises(TypeError, match="get_actor: namespace must be a string, not 3"):
        drumbeat.get_actor("a", 3)  # type: ignore[arg-type]  # that is the test

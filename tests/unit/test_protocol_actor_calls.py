"""Calls of an actor as its process runs them, and which actors live on an event loop."""

import functools
import threading

import pytest
from drumbeat.protocol import actor_calls
from drumbeat.protocol.actor_calls import MethodCall, is_async, visiting


class Plain:
    def act(self):
        return "acted"

    async def _private(self):
        return 1

    async def __aenter__(self):
        return self


class Async(Plain):
    async def wait(self):
        return "waited"


class Inherits(Async):
    pass


class Static:
    @staticmethod
    async def wait():
        pass


class Partial:
    async def wait(self, seconds):
        pass

    soon = functools.partialmethod(wait, 0)


@pytest.mark.parametrize(
    ("class_", "expected"),
    [(Plain, False), (Async, True), (Inherits, True), (Static, True), (Partial, True)],
)
def test_an_actor_lives_on_a_loop_if_a_method_that_can_be_called_is_async(class_, expected):
    assert is_async(class_) is expected


def test_whatever_else_makes_an_actor_lives_on_no_loop():
    assert not is_async(lambda: Async())


def test_a_coroutine_is_run_to_its_end_or_begun_for_whoever_runs_it():
    with visiting(Async()):
        assert MethodCall("act")() == "acted"
        assert MethodCall("wait")() == "waited"
        begun = MethodCall("wait").begin()
    actor_calls._runners.one.close()
    del actor_calls._runners.one
    with pytest.raises(StopIteration) as stopped:
        begun.send(None)
    assert stopped.value.value == "waited"


def test_each_thread_has_a_loop_of_its_own_for_coroutines():
    results = []

    def call():
        with visiting(Async()):
            results.append(MethodCall("wait")())
        actor_calls._runners.one.close()

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["waited"] * 3

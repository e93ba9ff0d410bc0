"""Whatever packs a call or a value asks the session's keeper where its buffers are to lie."""

import pickle
from collections.abc import Sequence

import drumbeat
import pytest
from drumbeat.protocol.errors import Backpressure
from drumbeat.protocol.session import Kept
from support.fake_session import FakeSession

LARGE = bytes(range(256)) * 8


class Asked:
    """A keeper that keeps nothing, and knows what it was asked for."""

    bytes_min = 1024

    def __init__(self) -> None:
        self.sizes: list[list[int]] = []

    def __call__(self, buffers: Sequence[memoryview]) -> Kept | None:
        self.sizes.append([buffer.nbytes for buffer in buffers])
        return None


class Holder:
    def __init__(self, data: object = None) -> None:
        self.data = data

    def take(self, data: object) -> None:
        self.data = data


def test_whatever_packs_a_call_or_a_value_asks_the_keeper_of_the_session() -> None:
    data = pickle.PickleBuffer(LARGE)
    with FakeSession() as session:
        session.keeper = asked = Asked()
        actor_class = drumbeat.remote(Holder)
        drumbeat.put(data)
        drumbeat.remote(len).remote(data)
        actor = actor_class.remote(data)
        actor_class.options(name="one").remote(data)
        actor.take.remote(data)
        with drumbeat.Executor() as executor:
            assert executor.submit(len, data).result() == len(LARGE)
        assert list(drumbeat.map(len, [data])) == [len(LARGE)]
    assert asked.sizes == [[len(LARGE)]] * 7


def test_an_executor_in_an_event_loop_raises_backpressure_whatever_the_size() -> None:
    class Full(Asked):
        def __call__(self, _: Sequence[memoryview]) -> Kept | None:
            raise Backpressure("await some results")

    with FakeSession() as session, drumbeat.Executor() as executor:
        session.keeper = Full()
        with pytest.raises(Backpressure):
            executor.submit(len, pickle.PickleBuffer(LARGE))


def test_what_makes_a_detached_actor_is_kept_by_nobody_who_may_leave_before_it() -> None:
    with FakeSession() as session:
        session.keeper = asked = Asked()
        drumbeat.remote(Holder).options(lifetime="detached").remote(bytearray(LARGE))
    assert asked.sizes == []
    assert len(session.calls) == 1

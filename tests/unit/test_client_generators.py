"""The references to what a task yields: one reader at a time, and an end for whoever waits."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from drumbeat.client.generators import ObjectRefGenerator
from drumbeat.protocol.errors import GetTimeoutError
from drumbeat.protocol.ids import TaskId, item_of
from drumbeat.protocol.messages import Outcome, ValueRow
from drumbeat.protocol.yielded import END
from support.fake_session import FakeSession, eventually


@pytest.fixture
def session() -> Iterator[FakeSession]:
    with FakeSession(lends=False) as session:
        yield session


@pytest.fixture
def task(session: FakeSession) -> TaskId:
    return session.new_id()


@pytest.fixture
def generator(session: FakeSession, task: TaskId) -> ObjectRefGenerator[Any]:
    return ObjectRefGenerator(task, session, 4, is_call=False)


def come(session: FakeSession, task: TaskId, *indexes: int) -> None:
    session.settle([ValueRow(item_of(task, index), Outcome.VALUE) for index in indexes])


def end(session: FakeSession, task: TaskId, index: int) -> None:
    session.settle([ValueRow(item_of(task, index), Outcome.FAILURE, failure=END)])


class Reading:
    """A thread that waits for the next value."""

    def __init__(self, generator: ObjectRefGenerator[Any]) -> None:
        self.found: list[Any] = []
        self._thread = threading.Thread(target=lambda: self.found.append(generator.next()))
        self._thread.start()
        assert eventually(lambda: generator._is_read)

    def result(self) -> Any:
        self._thread.join(10.0)
        assert not self._thread.is_alive(), "it waits for ever"
        return self.found[0]


def test_a_second_thread_that_reads_is_refused_and_no_value_is_lost_or_doubled(
    session: FakeSession, task: TaskId, generator: ObjectRefGenerator[Any]
) -> None:
    reading = Reading(generator)
    with pytest.raises(ValueError, match="another thread"):
        generator.next(timeout=0.001)
    with pytest.raises(ValueError, match="another thread"):
        asyncio.run(asyncio.wait_for(anext(generator), 0.001))
    come(session, task, 0, 1)
    end(session, task, 2)
    assert reading.result().id == item_of(task, 0)
    assert [ref.id for ref in generator] == [item_of(task, 1)]


def test_a_thread_that_waits_finds_the_end_when_another_closes_it(
    session: FakeSession, task: TaskId, generator: ObjectRefGenerator[Any]
) -> None:
    reading = Reading(generator)
    generator.close()
    # The value came at the same moment, and has been let go of: nobody may have its reference.
    come(session, task, 0)
    assert reading.result() is None
    assert session.reads == [(task, 0, True)]


def test_a_coroutine_that_waits_finds_the_end_when_another_closes_it(
    session: FakeSession, task: TaskId, generator: ObjectRefGenerator[Any]
) -> None:
    async def closed_amid_a_wait() -> object:
        waiting = asyncio.create_task(anext(generator, None))
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="another thread"):
            await asyncio.wait_for(anext(generator), 0.001)
        generator.close()
        come(session, task, 0)
        return await waiting

    assert asyncio.run(closed_amid_a_wait()) is None
    assert session.reads == [(task, 0, True)]


def test_after_a_wait_that_was_cut_short_it_is_read_on(
    session: FakeSession, task: TaskId, generator: ObjectRefGenerator[Any]
) -> None:
    async def cut_short() -> None:
        waiting = asyncio.create_task(anext(generator))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    with pytest.raises(GetTimeoutError):
        generator.next(timeout=0.001)
    asyncio.run(cut_short())
    come(session, task, 0)
    end(session, task, 1)
    assert [ref.id for ref in generator] == [item_of(task, 0)]


def test_it_may_be_closed_where_it_is_read_as_a_handler_of_signals_does(
    session: FakeSession, task: TaskId, generator: ObjectRefGenerator[Any]
) -> None:
    waits = session.get

    def closes_it(*args: Any) -> list[ValueRow]:
        generator.close()
        come(session, task, 0)
        return waits(*args)

    session.get = closes_it  # type: ignore[method-assign]  # amid a wait of this thread
    assert generator.next() is None
    assert session.reads == [(task, 0, True)]

"""ObjectRef: holds, pickling, waiting."""

import asyncio
import copy
import gc
import os
import pickle

import pytest
from drumbeat.protocol.errors import GetTimeoutError, NotInitialized
from drumbeat.protocol.messages import Failure, Outcome, ValueRow
from drumbeat.protocol.payload import pack_value
from drumbeat.protocol.references import ObjectRef
from drumbeat.protocol.session import current, set_current
from support.fake_session import FakeKeeper, FakeSession, eventually


@pytest.fixture
def session():
    with FakeSession() as session:
        yield session


def put(session, value):
    return ObjectRef(session.put(pack_value(value)), session)


def pending(session):
    return ObjectRef(b"p" * 14, session)


def test_a_reference_that_goes_is_told_to_its_session(session):
    ref = put(session, 1)
    id_ = ref.id
    assert session.holds[id_] == 1
    del ref
    gc.collect()
    assert session.holds[id_] == 0


def test_equality_hash_and_text_go_by_id(session):
    ref = put(session, 1)
    session.hold(ref.id)
    other = ObjectRef(ref.id, session)
    assert ref == other
    assert len({ref, other}) == 1
    assert ref != 1
    assert repr(ref).startswith("ObjectRef(66616b656421-0-")


def test_result_exception_and_done(session):
    ref = put(session, "value")
    assert ref.result() == "value"
    assert ref.exception() is None
    assert ref.done()
    waiting = pending(session)
    session.holds[waiting.id] = 1
    assert not waiting.done()
    with pytest.raises(GetTimeoutError):
        waiting.result(timeout=0)
    with pytest.raises(TimeoutError):
        waiting.exception(timeout=0)


def test_cancel_asks_the_session(session):
    ref = put(session, 1)
    ref.cancel(force=True)
    assert session.cancelled == [([ref.id], True, True)] or session.cancelled == [
        ((ref.id,), True, True)
    ]


def test_copies_are_the_reference_itself(session):
    ref = put(session, 1)
    assert copy.copy(ref) is ref
    assert copy.deepcopy([ref])[0] is ref


def test_pickled_outside_drumbeat_it_is_pinned_and_comes_back(session):
    ref = put(session, 1)
    data = pickle.dumps(ref)
    assert session.pinned == [ref.id]
    again = pickle.loads(data)
    assert again == ref
    assert session.holds[ref.id] == 2


def test_unpickled_where_there_is_no_cluster_it_says_so(session):
    data = pickle.dumps(put(session, 1))
    set_current(None)
    with pytest.raises(NotInitialized, match=r"call drumbeat.init\(\) first"):
        pickle.loads(data)


def test_of_a_cluster_that_was_shut_down_it_says_so(session):
    ref = put(session, 1)
    session.alive = False
    with pytest.raises(NotInitialized, match="shut down"):
        ref.result()


def test_a_future_is_finished_outside_the_sessions_thread(session):
    ref = pending(session)
    session.holds[ref.id] = 1
    future = ref.future()
    names = []
    future.add_done_callback(lambda f: names.append((f.result(), __import__("threading"))))
    del ref
    gc.collect()
    assert session.holds[b"p" * 14] == 1, "the future holds the value"
    session.settle([ValueRow(b"p" * 14, Outcome.VALUE, pack_value(7).payload)])
    assert future.result(5) == 7
    assert eventually(lambda: len(names) == 1)
    assert not future.cancelled()


@pytest.mark.parametrize("is_here", [True, False])
def test_a_future_keeps_what_its_value_names_until_that_has_been_taken_out(session, is_here):
    ref = put(session, 7) if is_here else pending(session)
    id_ = ref.id
    session.holds[id_] = 1
    future = ref.future()
    del ref
    if not is_here:
        session.settle([ValueRow(id_, Outcome.VALUE, pack_value(7).payload)])
    assert eventually(future.done)
    gc.collect()
    # A reference inside, or a memory segment, would be gone with the object that contains it.
    assert session.holds[id_] == 1
    assert future.result(5) == 7
    gc.collect()
    assert session.holds[id_] == 0


def test_a_future_whose_bytes_are_late_may_be_asked_again(session, monkeypatch):
    FakeKeeper(session, 10)
    packed = pack_value(b"x" * 100, keeper=session.keeper)
    future = ObjectRef(session.put(packed), session).future()
    buffers = session.buffers

    def late(*_):
        raise GetTimeoutError("not here yet")

    monkeypatch.setattr(session, "buffers", late)
    for ask in (future.result, future.exception):
        with pytest.raises(TimeoutError, match="not here yet"):
            ask(0)
    monkeypatch.setattr(session, "buffers", buffers)
    assert future.result(5) == b"x" * 100


def test_a_future_of_a_failure_raises_it(session):
    ref = pending(session)
    session.holds[ref.id] = 1
    future = ref.future()
    failure = Failure("NodeLost", "gone")
    session.settle([ValueRow(ref.id, Outcome.FAILURE, failure=failure)])
    assert type(future.exception(5)).__name__ == "NodeLost"
    with pytest.raises(Exception, match="gone"):
        future.result()


def test_it_can_be_awaited(session):
    ready, later = put(session, 1), pending(session)
    session.holds[later.id] = 1

    async def both():
        asyncio.get_running_loop().call_later(
            0.01,
            session.settle,
            [ValueRow(later.id, Outcome.VALUE, pack_value(2).payload)],
        )
        return await asyncio.gather(ready, later)

    assert asyncio.run(both()) == [1, 2]


def test_an_await_that_is_cancelled_leaves_the_loop_well(session):
    later = pending(session)
    session.holds[later.id] = 1

    async def impatient():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(later, 0.01)
        session.settle([ValueRow(later.id, Outcome.VALUE, pack_value(2).payload)])
        await asyncio.sleep(0)
        return await later

    assert asyncio.run(impatient()) == 2


@pytest.mark.skipif(
    not hasattr(os, "fork"),
    reason="this system cannot fork, so no forked child is there to be refused",
)
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_in_a_forked_child_every_call_is_refused(session):
    ref = put(session, 1)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            ref.result()
        except NotInitialized as error:
            held = session.holds[ref.id]
            del ref
            refused = current() is None or not current().alive
            code = 0 if "fork" in str(error) and session.holds and held == 1 and refused else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert ref.result() == 1

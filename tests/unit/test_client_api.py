"""get, wait, put, cancel and the view of the cluster."""

import time

import drumbeat
import pytest
from drumbeat.protocol.errors import GetTimeoutError, NotInitialized, TaskError
from drumbeat.protocol.session import set_current
from support.fake_session import FakeKeeper, FakeSession


@drumbeat.remote
def double(n):
    return 2 * n


@drumbeat.remote
def fail(n):
    raise ValueError(n)


@pytest.fixture
def session():
    with FakeSession() as session:
        yield session


@pytest.fixture
def manual():
    with FakeSession(automatic=False) as session:
        yield session


def test_get_keeps_order_and_allows_duplicates(session):
    a, b = double.remote(1), double.remote(2)
    assert drumbeat.get(a) == 2
    assert drumbeat.get([b, a, b]) == [4, 2, 4]
    assert drumbeat.get(ref for ref in (a, b)) == [2, 4]
    assert drumbeat.get([]) == []


def test_get_raises_at_the_first_failure_without_waiting_for_the_rest(manual):
    refs = [double.remote(1), fail.remote(2)]
    manual.waiting.reverse()
    manual.run()
    with pytest.raises(ValueError, match="2") as caught:
        drumbeat.get(refs)
    assert isinstance(caught.value, TaskError)


def test_get_with_a_timeout(manual):
    ref = double.remote(1)
    with pytest.raises(GetTimeoutError):
        drumbeat.get(ref, timeout=0)
    with pytest.raises(TimeoutError):
        drumbeat.get([ref], timeout=0.001)
    with pytest.raises(ValueError, match="timeout"):
        drumbeat.get(ref, timeout=-1)
    manual.run()
    assert drumbeat.get(ref, timeout=0) == 2


def test_the_time_of_a_get_is_that_of_its_bytes_too(session):
    keeper = FakeKeeper(session, 10)
    ref, other = drumbeat.put(b"x" * 100), drumbeat.put(b"y" * 100)
    begun_s = time.monotonic()
    drumbeat.get(ref, timeout=5)
    drumbeat.get([ref, other], timeout=5)
    ref.result(timeout=5)
    ref.future().result(timeout=5)
    ref.future().exception(timeout=5)
    assert len(session.untils_s) == 6
    assert all(begun_s + 5 <= until_s <= time.monotonic() + 5 for until_s in session.untils_s)
    session.untils_s.clear()
    assert drumbeat.get([ref]) == [ref.result()] == [b"x" * 100]
    assert session.untils_s == [None, None]
    assert len(keeper.segments) == 2


def test_get_refuses_what_is_no_reference(session):
    for wrong in (3, [3], "ab", {"a": 1}, None):
        with pytest.raises(TypeError, match="get takes ObjectRefs"):
            drumbeat.get(wrong)


def test_references_of_two_clusters_do_not_mix(session):
    a = double.remote(1)
    with FakeSession():
        b = double.remote(1)
        with pytest.raises(ValueError, match="different clusters"):
            drumbeat.get([a, b])


def test_wait_returns_at_most_what_was_asked_for_in_input_order(session):
    refs = [double.remote(n) for n in range(4)]
    ready, rest = drumbeat.wait(refs, num_returns=2)
    assert ready == refs[:2]
    assert rest == refs[2:]
    assert drumbeat.wait([]) == ([], [])


def test_wait_counts_failed_tasks_as_ready(manual):
    refs = [double.remote(1), fail.remote(1), double.remote(2)]
    manual.waiting = manual.waiting[1:]
    manual.run()
    assert drumbeat.wait(refs) == ([refs[1]], [refs[0], refs[2]])
    assert drumbeat.wait(refs, num_returns=3, timeout=0) == ([refs[1]], [refs[0], refs[2]])


def test_wait_refuses_what_makes_no_sense(session):
    a, b = double.remote(1), double.remote(2)
    for refs, count, timeout in (
        ([a, a], 1, None),
        ([a, b], 0, None),
        ([a, b], 3, None),
        ([a, b], -1, None),
        ([a], 1, -0.5),
    ):
        with pytest.raises(ValueError, match=r"num_returns|duplicates|timeout"):
            drumbeat.wait(refs, num_returns=count, timeout=timeout)
    with pytest.raises(TypeError, match="list of ObjectRefs"):
        drumbeat.wait(a)
    with pytest.raises(TypeError, match="wait takes ObjectRefs"):
        drumbeat.wait([1])
    with pytest.raises(TypeError, match="num_returns"):
        drumbeat.wait([a], num_returns=1.0)


def test_put_makes_a_reference_and_refuses_one(session):
    ref = drumbeat.put({"a": 1})
    assert drumbeat.get(ref) == {"a": 1}
    assert drumbeat.get(double.remote(drumbeat.put(4))) == 8
    with pytest.raises(TypeError, match="reference to one already"):
        drumbeat.put(ref)


def test_cancel_takes_one_or_many(session):
    a, b = double.remote(1), double.remote(2)
    drumbeat.cancel(a)
    drumbeat.cancel([a, b, a], force=True, recursive=False)
    drumbeat.cancel([])
    assert session.cancelled == [([a.id], False, True), ([a.id, b.id], True, False)]
    with pytest.raises(TypeError, match="cancel takes ObjectRefs"):
        drumbeat.cancel(3)


def test_resources_are_those_of_the_nodes_that_live(session):
    assert len(drumbeat.nodes()) == 3
    assert drumbeat.cluster_resources() == {"CPU": 4.0, "tape": 1.0}
    assert drumbeat.available_resources() == {"CPU": 0.5}


def test_without_a_cluster_questions_about_it_are_refused():
    set_current(None)
    assert not drumbeat.is_initialized()
    with pytest.raises(NotInitialized, match=r"drumbeat.init\(\)"):
        drumbeat.nodes()
    with FakeSession():
        assert drumbeat.is_initialized()


def test_all_public_names_exist():
    for name in drumbeat.__all__:
        assert getattr(drumbeat, name) is not None
    assert set(drumbeat.__all__) < set(dir(drumbeat))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        drumbeat.nothing  # noqa: B018


def test_references_of_a_generator_are_held_until_they_have_been_waited_for(session):
    def held():
        ids = []

        def fresh(n):
            ref = double.remote(n)
            ids.append(ref.id)
            return ref

        def check(ids_given, *rest):
            assert [session.holds[id_] for id_ in ids] == [1] * len(ids)
            return asked(ids_given, *rest)

        return fresh, check

    for name, call in (
        ("get", drumbeat.get),
        ("wait", lambda refs: drumbeat.wait(refs, 3)),
        ("cancel", drumbeat.cancel),
        ("wait", lambda refs: list(drumbeat.as_completed(refs))),
    ):
        asked = getattr(session, name)
        fresh, check = held()
        setattr(session, name, check)
        call(map(fresh, range(3)))
        setattr(session, name, asked)

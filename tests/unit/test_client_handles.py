"""Handles of actors: where they may go, what they hold, and what is done to the actor by them."""

import copy
import gc
import pickle
import weakref

import drumbeat
import pytest
from drumbeat.protocol.payload import pack_value, unpack_function, unpack_value
from support.fake_session import FakeSession


@drumbeat.remote
class Counter:
    def __init__(self, n=0):
        self.n = n

    def add(self, k=1):
        self.n += k
        return self.n

    def divide(self, a, b):
        return a / b

    @drumbeat.method(num_returns=2)
    def pair(self):
        return self.n, -self.n

    @drumbeat.method(retry_exceptions=[KeyError])
    def flaky(self):
        raise KeyError("k")

    @property
    def value(self):
        return self.n


@pytest.fixture
def session():
    with FakeSession() as session:
        yield session


def test_handles_of_one_actor_are_equal_and_all_others_are_not(session):
    one, other = Counter.remote(), Counter.remote()
    again = pickle.loads(pickle.dumps(one))
    assert again == one
    assert hash(again) == hash(one)
    assert len({one, again, other}) == 2
    assert one != other
    assert one != one._ref
    assert copy.deepcopy([one])[0] is one
    assert copy.copy(one) is one
    assert repr(one).startswith("ActorHandle(Counter, ")


def test_a_handle_travels_in_arguments_results_and_closures(session):
    counter = Counter.remote(1)

    @drumbeat.remote
    def use(given, key):
        return drumbeat.get(given[key].add.remote())

    assert drumbeat.get(use.remote({"c": counter}, "c")) == 2
    assert session.calls[-2].packed.contained == (session.calls[0].ids[0],)
    assert session.calls[-2].packed.deps == ()

    @drumbeat.remote
    def closed():
        return drumbeat.get(counter.add.remote())

    assert drumbeat.get(closed.remote()) == 3
    assert session.pinned == [session.calls[0].ids[0]], "a function may live for ever"
    packed = pack_value([counter])
    assert packed.contained == (session.calls[0].ids[0],)
    (again,) = unpack_value(packed.payload)
    assert again == counter
    assert drumbeat.get(again.add.remote()) == 4
    assert session.calls[-1].kind is session.calls[-2].kind, "the kinds are the actor's"


def test_a_handle_that_came_from_afar_knows_the_methods_without_the_class(session):
    counter = Counter.remote(1)
    payload = pickle.dumps(counter)
    del counter
    gc.collect()
    counter = pickle.loads(payload)
    with pytest.raises(TypeError, match="missing a required argument: 'a'"):
        counter.divide.remote()
    with pytest.raises(AttributeError, match="is a property"):
        _ = counter.value
    counter.flaky.remote()
    assert unpack_function(session.calls[-1].kind.function.payload)[1] == (KeyError,)
    assert drumbeat.get(counter.pair.remote()) == [1, -1]


def test_a_bound_method_travels_with_its_handle(session):
    add = pickle.loads(pickle.dumps(Counter.remote(5).add.options(name="more")))
    assert drumbeat.get(add.remote()) == 6
    assert session.calls[-1].kind.name == "more"
    assert repr(add).startswith("<method Counter.add of ActorHandle(Counter, ")


def test_pickled_outside_of_a_task_a_handle_pins_its_actor(session):
    counter = Counter.remote()
    pickle.dumps(counter)
    assert session.pinned == [session.calls[0].ids[0]]


def test_what_holds_a_handle_holds_the_actor(session):
    counter = Counter.remote()
    (id_,) = session.calls[0].ids
    add = counter.add
    assert session.holds[id_] == 1
    del counter
    assert session.holds[id_] == 1
    add.remote()
    del add
    assert session.holds[id_] == 0


def test_nothing_of_an_actor_is_kept_when_its_last_handle_is_gone(session):
    counter = Counter.remote()
    counter.add.remote()
    kinds = [weakref.ref(kind) for kind in counter._actor.kinds.values()]
    assert len(kinds) == 1
    session.calls.clear()
    del counter
    assert [kind() for kind in kinds] == [None]


def test_an_actor_is_no_reference_to_a_value(session):
    counter = Counter.remote()
    for call in (
        lambda: drumbeat.get(counter),
        lambda: drumbeat.get([counter]),
        lambda: drumbeat.wait([counter]),
        lambda: list(drumbeat.as_completed([counter])),
    ):
        with pytest.raises(TypeError, match="is an actor and has no value itself"):
            call()
    with pytest.raises(TypeError, match=r"to end it, use drumbeat\.kill"):
        drumbeat.cancel(counter)


def test_kill_names_the_actor_and_whether_it_may_be_restarted(session):
    counter = Counter.remote()
    drumbeat.kill(counter)
    drumbeat.kill(counter, no_restart=False)
    (id_,) = session.calls[0].ids
    assert session.killed == [(id_, False), (id_, True)]
    with pytest.raises(TypeError, match="kill takes the handle of an actor"):
        drumbeat.kill(counter.add.remote())


def test_a_call_is_cancelled_but_never_by_force(session):
    counter = Counter.remote()
    ref, several = counter.add.remote(), counter.pair.remote()
    drumbeat.cancel(ref)
    assert session.cancelled == [([ref.id], False, True)]
    for call in (
        lambda: drumbeat.cancel(ref, force=True),
        lambda: ref.cancel(force=True),
        lambda: drumbeat.cancel(several, force=True),
    ):
        with pytest.raises(ValueError, match=r"drumbeat\.kill\(actor\)"):
            call()
    assert len(session.cancelled) == 1
    drumbeat.cancel(drumbeat.remote(len).remote("abc"), force=True)


def test_so_many_calls_without_a_result_and_no_more(session):
    session.automatic = False
    counter = Counter.options(max_pending_calls=2).remote()
    session.run()
    counter.add.remote()
    again = pickle.loads(pickle.dumps(counter))
    again.add.remote()
    for handle in (counter, again):
        with pytest.raises(drumbeat.PendingCallsLimitExceeded, match="max_pending_calls=2") as told:
            handle.add.remote()
        assert told.value.name == "Counter.add"
    session.run()
    counter.add.remote()
    session.submitting = drumbeat.Infeasible("no")
    session.run()
    with pytest.raises(drumbeat.Infeasible):
        counter.add.remote()
    session.submitting = None
    counter.add.remote()
    with pytest.raises(drumbeat.PendingCallsLimitExceeded):
        counter.add.remote()


def test_exit_actor_is_for_actors():
    with pytest.raises(RuntimeError, match=r"use drumbeat\.kill\(actor\)"):
        drumbeat.exit_actor()


def test_a_handle_outlives_no_session():
    with FakeSession():
        counter = Counter.remote()
    with pytest.raises(drumbeat.NotInitialized, match="shut down"):
        counter.add.remote()

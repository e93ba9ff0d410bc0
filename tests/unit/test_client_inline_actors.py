"""Actors in this process: what works with init(inline=True) works in a cluster."""

import drumbeat
import pytest
from drumbeat.client.inline import InlineSession
from drumbeat.protocol.session import set_current


@drumbeat.remote
class Counter:
    def __init__(self, n=0):
        if n == "bad":
            raise ValueError("no such number")
        self.n = n

    def add(self, k=1):
        self.n += k
        return self.n

    def fail(self):
        raise KeyError("k")

    def stop(self):
        self.n = -1
        drumbeat.exit_actor()

    def ask(self, other):
        return drumbeat.get(other.add.remote()) + self.n


@pytest.fixture
def session():
    session = InlineSession()
    set_current(session)
    yield session
    session.close()
    set_current(None)


def test_an_actor_keeps_its_state_between_calls(session):
    counter = Counter.remote(1)
    assert drumbeat.get([counter.add.remote() for _ in range(3)]) == [2, 3, 4]
    assert drumbeat.wait([counter.add.remote()])[1] == []
    with pytest.raises(KeyError):
        drumbeat.get(counter.fail.remote())
    assert drumbeat.get(counter.add.remote()) == 6, "an error harms nobody else"


def test_actors_call_each_other_and_are_passed_around(session):
    one, other = Counter.remote(1), Counter.remote(10)
    assert drumbeat.get(one.ask.remote(other)) == 12
    use = drumbeat.remote(lambda counters: drumbeat.get(counters[0].add.remote()))
    assert drumbeat.get(use.remote([other])) == 12
    assert drumbeat.get(drumbeat.remote(lambda: Counter.remote(5)).remote()) is not None
    made = drumbeat.get(drumbeat.remote(lambda: Counter.remote(5)).remote())
    assert drumbeat.get(made.add.remote()) == 6


def test_who_ends_itself_is_dead_and_says_so(session):
    counter = Counter.remote()
    assert drumbeat.get(counter.stop.remote()) is None
    with pytest.raises(drumbeat.ActorDied, match="it has ended itself"):
        drumbeat.get(counter.add.remote())
    drumbeat.kill(counter)


def test_a_constructor_that_raises_is_the_cause_of_every_calls_error(session):
    counter = Counter.remote("bad")
    for _ in range(2):
        with pytest.raises(drumbeat.ActorDied, match="its constructor raised") as caught:
            drumbeat.get(counter.add.remote())
        assert isinstance(caught.value.__cause__, ValueError)


def test_a_constructor_whose_argument_failed_does_not_run(session):
    failed = drumbeat.remote(lambda: 1 / 0).remote()
    with pytest.raises(drumbeat.ActorDied, match="an argument could not be had") as caught:
        drumbeat.get(Counter.remote(failed).add.remote())
    assert isinstance(caught.value.__cause__, drumbeat.DependencyFailed)


def test_a_killed_one_is_dead_or_begins_anew(session):
    counter = Counter.options(max_restarts=1).remote(7)
    drumbeat.get(counter.add.remote())
    drumbeat.kill(counter, no_restart=False)
    assert drumbeat.get(counter.add.remote()) == 8
    drumbeat.kill(counter, no_restart=False)
    with pytest.raises(drumbeat.ActorDied, match="max_restarts=1 allows no further"):
        drumbeat.get(counter.add.remote())
    other = Counter.remote()
    drumbeat.kill(other)
    with pytest.raises(drumbeat.ActorDied, match="it was killed"):
        drumbeat.get(other.add.remote())


def test_an_actor_that_nobody_holds_is_gone(session):
    counter = Counter.remote()
    counter.add.remote()
    assert len(session._actors) == 1
    del counter
    drumbeat.put(1)
    assert len(session._actors) == 0


def test_a_bound_on_calls_is_never_reached_since_each_has_ended(session):
    counter = Counter.options(max_pending_calls=1).remote()
    assert drumbeat.get([counter.add.remote() for _ in range(5)])[-1] == 5

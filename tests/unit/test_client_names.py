"""Actors by name, and detached ones: what their creation asks of the session, in which order."""

from collections.abc import Iterator

import drumbeat
import pytest
from drumbeat.protocol.ids import home_of
from drumbeat.protocol.parcels import is_parcel
from support.fake_session import FakeKeeper, FakeSession


@drumbeat.remote
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.count = start

    def add(self, amount: int = 1) -> int:
        self.count += amount
        return self.count


@pytest.fixture
def session() -> Iterator[FakeSession]:
    with FakeSession() as session:
        yield session


def test_a_name_is_taken_for_the_id_that_is_submitted_then(session: FakeSession) -> None:
    counter = Counter.options(name="one").remote(5)
    (named,) = session.asked
    (created,) = session.calls
    assert (named.name, named.namespace, named.id) == ("one", "~faked", created.ids[0])
    creates = created.kind.options.creates
    assert creates is not None
    assert (creates.name, creates.namespace) == ("one", "~faked")
    assert creates.told == named.told != b""
    assert drumbeat.get(counter.add.remote()) == 6


def test_whoever_asks_by_name_knows_the_methods(session: FakeSession) -> None:
    counter = Counter.options(name="one").remote(5)
    found = drumbeat.get_actor("one")
    assert found == counter
    assert drumbeat.get(found.add.remote(2)) == 7
    with pytest.raises(AttributeError, match="no public method 'ad'"):
        found.ad  # noqa: B018  # reading it is the test


def test_a_name_that_is_taken_is_refused_and_nothing_submitted(session: FakeSession) -> None:
    first = Counter.options(name="one").remote()
    with pytest.raises(ValueError, match=r"'one' in this program's own namespace .* already"):
        Counter.options(name="one").remote()
    assert Counter.options(name="one", get_if_exists=True).remote() == first
    assert len(session.calls) == 1


def test_arguments_are_checked_before_a_name_is_taken(session: FakeSession) -> None:
    with pytest.raises(TypeError):
        Counter.options(name="one").remote(1, 2, 3)
    assert session.asked == []


def test_the_name_is_let_go_if_nothing_can_be_submitted(session: FakeSession) -> None:
    session.submitting = drumbeat.Infeasible("no node")
    with pytest.raises(drumbeat.Infeasible):
        Counter.options(name="one").remote()
    assert [named.frees for named in session.asked] == [False, True]
    assert session.named == {}


def test_the_name_is_let_go_if_asking_for_it_is_broken_off(session: FakeSession) -> None:
    session.asking = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        Counter.options(name="one").remote()
    assert [named.frees for named in session.asked] == [False, True]
    assert session.named == {}
    assert not session.calls


def test_what_a_detached_actor_is_made_of_lies_in_nobodys_memory(session: FakeSession) -> None:
    FakeKeeper(session, 100)
    refs = [drumbeat.put(bytes(1000)) for _ in range(2)]
    small = drumbeat.put(5)

    @drumbeat.remote
    class Holder:
        def __init__(self, first: bytes, number: int, *, second: bytes) -> None:
            self.size = len(first) + number + len(second)

        def told(self) -> int:
            return self.size

    holder = Holder.options(lifetime="detached").remote(refs[0], small, second=refs[1])
    (created,) = session.calls
    assert (created.packed.deps, created.packed.contained) == ((small.id,), ())
    assert not is_parcel(created.packed.payload)
    assert len(created.packed.payload or b"") > 2000
    assert drumbeat.get(holder.told.remote()) == 2005


def test_a_detached_actor_has_an_id_that_is_nobodys_else(session: FakeSession) -> None:
    session.namespace = "space"
    first = Counter.options(lifetime="detached").remote(5)
    second = Counter.options(name="one", lifetime="detached").remote()
    homes = {home_of(call.ids[0]) for call in session.calls}
    assert len(homes) == 2
    assert not any(call.ids[0].startswith(b"faked!") for call in session.calls)
    assert first != second
    assert drumbeat.get(first.add.remote()) == 6


def test_one_with_a_name_needs_a_namespace_that_others_can_say(session: FakeSession) -> None:
    with pytest.raises(ValueError, match="'one' needs a namespace"):
        Counter.options(name="one", lifetime="detached").remote()
    Counter.options(name="one", namespace="space", lifetime="detached").remote()
    assert drumbeat.get_actor("one", "space")
    with pytest.raises(ValueError, match="no actor named 'one'"):
        drumbeat.get_actor("one")


def test_why_one_could_not_be_handed_over_is_raised_at_once(session: FakeSession) -> None:
    @drumbeat.remote
    class Broken:
        def __init__(self) -> None:
            raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        Broken.options(lifetime="detached").remote()
    assert len(session.calls) == 1


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"name": ""}, ValueError, "name must be from 1 to 255"),
        ({"name": 3}, TypeError, "name must be a string"),
        ({"name": "x" * 256}, ValueError, "name must be from 1 to 255"),
        ({"name": "one", "namespace": "~a"}, ValueError, "do not begin with '~'"),
        ({"lifetime": "forever"}, ValueError, 'lifetime must be "detached" or None'),
        ({"get_if_exists": True}, ValueError, "get_if_exists goes with a name"),
        ({"name": "one", "get_if_exists": 1}, TypeError, "True or False"),
    ],
)
def test_names_that_make_no_sense_are_refused(
    given: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Counter.options(**given)


@pytest.mark.parametrize("name", ["", None, 3])
def test_what_is_no_name_leads_to_no_actor(session: FakeSession, name: object) -> None:
    with pytest.raises((ValueError, TypeError), match="get_actor: name must "):
        drumbeat.get_actor(name)  # type: ignore[arg-type]  # that is the test
    assert session.asked == []

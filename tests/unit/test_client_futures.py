"""as_completed and map."""

import itertools
import threading

import drumbeat
import pytest
from drumbeat.client.keeper import SegmentKeeper
from drumbeat.protocol import payload
from drumbeat.protocol.errors import GetTimeoutError, MessageTooLarge, TaskError
from drumbeat.protocol.settings import Settings
from drumbeat.protocol.store import Store
from drumbeat.protocol.unparcel import Segments
from support.fake_session import FakeSession


@drumbeat.remote
def double(n):
    return 2 * n


@drumbeat.remote
def fail_at_three(n):
    if n == 3:
        raise ValueError("three")
    return n


@pytest.fixture
def session():
    with FakeSession() as session:
        yield session


def chunk_sizes(session):
    from drumbeat.protocol.payload import unpack_call

    sizes = []
    for call in session.calls:
        (width, *flat), _ = unpack_call(call.packed.payload)
        sizes.append(len(flat) // width)
    return sizes


@pytest.mark.parametrize("count", [3, 100])
@pytest.mark.parametrize("lends", [True, False])
def test_as_completed_yields_each_once_as_it_comes(count, lends):
    with FakeSession(automatic=False, lends=lends) as session:
        refs = [double.remote(n) for n in range(count)]
        first = session.waiting.pop()
        session.waiting.insert(0, first)
        session.run()
        iterator = drumbeat.as_completed([*refs, refs[0]])
        assert next(iterator) == refs[-1]
        session.run(count - 1)
        assert sorted(drumbeat.get(list(iterator))) == [2 * n for n in range(count - 1)]


def test_as_completed_yields_failed_ones_too(session):
    refs = [fail_at_three.remote(3), double.remote(1)]
    assert set(drumbeat.as_completed(refs)) == set(refs)


@pytest.mark.parametrize("count", [2, 100])
def test_as_completed_gives_up_in_time(count):
    with FakeSession(automatic=False, lends=False):
        refs = [double.remote(n) for n in range(count)]
        with pytest.raises(GetTimeoutError, match=f"{count} of the references"):
            list(drumbeat.as_completed(refs, timeout=0.01))


def test_as_completed_lets_go_of_what_it_yielded(session):
    refs = [double.remote(n) for n in range(3)]
    ids = [ref.id for ref in refs]
    iterator = drumbeat.as_completed(refs)
    del refs
    for _ in iterator:
        pass
    del _
    assert [session.holds[id_] for id_ in ids] == [0, 0, 0]


def test_as_completed_of_nothing_is_empty_and_refuses_others(session):
    assert list(drumbeat.as_completed([])) == []
    with pytest.raises(TypeError, match="takes ObjectRefs"):
        list(drumbeat.as_completed([1]))


def test_map_keeps_order_and_takes_several_iterables(session):
    assert list(drumbeat.map(double, range(100))) == [2 * n for n in range(100)]
    assert list(drumbeat.map(pow, [1, 2, 3], itertools.count())) == [1, 2, 9]
    assert list(drumbeat.map(lambda n: n + 1, [])) == []


def test_map_puts_short_calls_together(session):
    assert sum(drumbeat.map(lambda n: n, range(20_000))) == sum(range(20_000))
    sizes = chunk_sizes(session)
    assert sum(sizes) == 20_000
    assert sizes[0] == 1
    assert max(sizes) > 50
    assert len(sizes) < 2000


def test_map_with_a_chunk_keeps_to_it(session):
    list(drumbeat.map(double, range(10), chunk=4))
    assert chunk_sizes(session) == [4, 4, 2]


def test_map_bounds_what_is_in_flight_and_reads_on_only_then():
    read = []

    def items():
        for n in itertools.count():
            read.append(n)
            yield n

    with FakeSession(automatic=False) as session:
        iterator = drumbeat.map(double, items(), chunk=1, window=5)
        runner = threading.Timer(0.02, session.run, (5,))
        runner.start()
        assert next(iterator) == 0
        runner.join()
        assert len(read) <= 6
        iterator.close()


def test_map_cancels_what_is_left_when_it_is_closed():
    with FakeSession(automatic=False) as session:
        iterator = drumbeat.map(double, range(10), chunk=1)
        runner = threading.Timer(0.02, session.run, (3,))
        runner.start()
        assert next(iterator) == 0
        runner.join()
        iterator.close()
        ((ids, force, recursive),) = session.cancelled
        assert len(ids) == 9
        assert (force, recursive) == (False, True)


@pytest.mark.parametrize("chunk", [None, 1, 2, 10])
def test_map_yields_what_comes_before_an_error_and_then_raises_it(session, chunk):
    results = drumbeat.map(fail_at_three, range(10), chunk=chunk)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three") as caught:
        next(results)
    assert isinstance(caught.value, TaskError)
    assert "fail_at_three" in str(caught.value)


def test_map_passes_references_by_value(session):
    refs = [double.remote(n) for n in range(3)]
    assert list(drumbeat.map(double, refs, chunk=2)) == [0, 4, 8]


def test_map_keeps_the_options_of_a_remote_function(session):
    list(drumbeat.map(double.options(num_cpus=2, name="twice"), [1]))
    assert session.calls[0].kind.options.num_cpus == 2
    assert session.calls[0].kind.name == "twice"


def test_map_runs_async_functions(session):
    async def later(n):
        return n + 1

    assert list(drumbeat.map(later, [1, 2])) == [2, 3]


def test_map_makes_chunks_smaller_that_are_too_large(session, monkeypatch):
    monkeypatch.setattr(payload, "_bytes_max", 3000)
    items = [1] * 100 + ["x" * 1000] * 8
    assert list(drumbeat.map(lambda n: len(str(n)), items)) == [1] * 100 + [1000] * 8
    with pytest.raises(MessageTooLarge):
        list(drumbeat.map(len, ["x" * 4000]))


def test_map_divides_what_other_machines_could_not_be_sent(session, monkeypatch):
    settings = Settings(value_bytes_max=8000, segment_bytes_min=1000)
    store, rows = Store(), []
    keeper = SegmentKeeper(session, settings, "", store, lambda _: None, rows.append)
    session.keeper = keeper
    segments = Segments(store, "", None, lambda _: None, lambda _: None)
    monkeypatch.setattr(session, "buffers", segments.buffers)
    monkeypatch.setattr(session, "drop", lambda _: None)
    monkeypatch.setattr(payload, "_bytes_max", settings.value_bytes_max)
    large = [bytearray(3000) for _ in range(20)]
    items = [bytes(1)] * 100 + large + [bytearray(9000)]
    found = drumbeat.map(len, iter(items), window=2)
    assert list(found) == [1] * 100 + [3000] * 20 + [9000]
    *sent, alone = [row.size for row in rows]
    assert max(sent) <= 8000
    assert any(size > 6000 for size in sent), "some go together"
    assert alone > 9000, "what cannot be divided goes as it is"
    rows.clear()
    list(drumbeat.map(len, large[:4], chunk=4))
    assert [row.size > 12000 for row in rows] == [True], "so many were asked for"


def test_map_has_each_chunk_brought_once():
    """In a task, to look whether a value is here is to have it brought from the node."""
    brought = []

    class Worker(FakeSession):
        def peek(self, id_):
            row = super().peek(id_)
            if row is not None:
                brought.append(id_)
            return row

        def get(self, ids, timeout_s):
            brought.extend(ids)
            return super().get(ids, timeout_s)

    with Worker() as session:
        assert list(drumbeat.map(double, range(20), chunk=4, window=2)) == list(range(0, 40, 2))
        assert sorted(brought) == sorted(id_ for call in session.calls for id_ in call.ids)


def test_map_refuses_what_makes_no_sense(session):
    for given in ({"chunk": 0}, {"window": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            drumbeat.map(double, [1], **given)
    with pytest.raises(TypeError, match="whole number"):
        drumbeat.map(double, [1], chunk=1.5)
    with pytest.raises(ValueError, match="num_returns=1"):
        drumbeat.map(double.options(num_returns=2), [1])


def test_map_shows_its_progress(session, capsys):
    assert list(drumbeat.map(double, range(5), progress=True)) == [0, 2, 4, 6, 8]
    assert "double" in capsys.readouterr().err

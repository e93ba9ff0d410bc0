"""Tasks in this process: the same results and errors, with pdb at hand."""

import gc
import os

import drumbeat
import numpy as np
import pytest
from drumbeat.client.inline import InlineSession
from drumbeat.protocol.errors import MessageTooLarge, StoreFull
from drumbeat.protocol.payload import limit_values, pack_value
from drumbeat.protocol.segments import are_to_be_had
from drumbeat.protocol.session import set_current
from drumbeat.protocol.settings import Settings

needs_segments = pytest.mark.skipif(
    not are_to_be_had(), reason="this system has no memory files that can be sealed"
)


@pytest.fixture
def session():
    session = InlineSession()
    set_current(session)
    yield session
    session.close()
    set_current(None)


def test_a_task_runs_at_submit_in_this_process(session):
    assert drumbeat.get(drumbeat.remote(os.getpid).remote()) == os.getpid()


def test_arguments_and_results_are_copies_as_in_a_cluster(session):
    given = [1]
    same = drumbeat.remote(lambda value: value)
    got = drumbeat.get(same.remote(given))
    assert got == given
    assert got is not given


def test_tasks_nest_and_take_references(session):
    @drumbeat.remote
    def fib(n):
        return n if n < 2 else sum(drumbeat.get([fib.remote(n - 1), fib.remote(n - 2)]))

    add = drumbeat.remote(lambda a, b: a + b)
    assert drumbeat.get(add.remote(fib.remote(7), drumbeat.put(1))) == 14


def test_errors_are_those_of_a_cluster(session):
    @drumbeat.remote
    def fail():
        raise KeyError("k")

    use = drumbeat.remote(lambda value: value)
    failed = fail.remote()
    with pytest.raises(KeyError) as caught:
        drumbeat.get(failed)
    assert isinstance(caught.value, drumbeat.TaskError)
    with pytest.raises(drumbeat.DependencyFailed) as dependent:
        drumbeat.get(use.remote(failed))
    assert isinstance(dependent.value.cause, KeyError)
    with pytest.raises(drumbeat.TaskError, match="SystemExit"):
        drumbeat.get(drumbeat.remote(lambda: exit(3)).remote())


def test_a_task_that_interrupts_itself_is_cancelled(session):
    @drumbeat.remote
    def stop():
        raise drumbeat.Interrupted

    with pytest.raises(drumbeat.TaskCancelled):
        drumbeat.get(stop.remote())


def test_a_keyboard_interrupt_is_the_users(session):
    @drumbeat.remote
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop.remote()


def test_errors_are_tried_again_where_asked(session, tmp_path):
    log = tmp_path / "log"

    @drumbeat.remote(retry_exceptions=[OSError], max_retries=2)
    def flaky(until):
        with log.open("a") as file:
            file.write("x")
        if len(log.read_text()) < until:
            raise OSError
        return len(log.read_text())

    assert drumbeat.get(flaky.remote(3)) == 3
    log.unlink()
    with pytest.raises(OSError, match="attempt 3"):
        drumbeat.get(flaky.remote(9))


def test_several_returns(session):
    pair = drumbeat.remote(num_returns=2)(lambda: (1, 2))
    assert drumbeat.get(pair.remote()) == [1, 2]
    wrong = drumbeat.remote(num_returns=2)(lambda: (1, 2, 3))
    with pytest.raises(ValueError, match="num_returns=2"):
        drumbeat.get(wrong.remote()[1])
    assert drumbeat.remote(num_returns=0)(lambda: None).remote() is None


def test_environment_and_directory_are_the_tasks_own(session, tmp_path):
    look = drumbeat.remote(lambda: (os.environ.get("DRUM"), os.getcwd()))
    own = look.options(env_vars={"DRUM": "beat"}, working_dir=tmp_path)
    here = os.getcwd()
    assert drumbeat.get(own.remote()) == ("beat", str(tmp_path))
    assert drumbeat.get(look.remote()) == (None, here)


def test_values_are_freed_when_nobody_holds_them(session):
    inner = drumbeat.put(1)
    outer = drumbeat.put([inner])
    assert len(session._objects) == 2
    del inner
    drumbeat.put(0)
    assert drumbeat.get(drumbeat.get(outer)[0]) == 1
    del outer
    drumbeat.put(0)
    drumbeat.put(0)
    assert len(session._objects) == 1


@needs_segments
def test_large_values_are_as_in_a_cluster_read_only_when_put_and_else_the_calls_own(session):
    given = np.arange(1 << 18)

    @drumbeat.remote
    def overwrite(values):
        values[:] = 1
        return values

    ref = drumbeat.put(given)
    got = drumbeat.get(ref)
    assert np.array_equal(got, given)
    with pytest.raises(ValueError, match="read-only"):
        got[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        drumbeat.get(overwrite.remote(ref))
    made = drumbeat.get(overwrite.remote(given))
    assert made.sum() == given.size
    made[0] = 5
    assert given[1] == 1
    assert given[2] == 2


@needs_segments
def test_the_memory_of_large_values_goes_with_them_and_serves_actors_that_begin_anew(session):
    @drumbeat.remote(max_restarts=1)
    class Holder:
        def __init__(self, values):
            self.values = values

        def total(self):
            return int(self.values.sum())

    ref = drumbeat.put(np.ones(1 << 18))
    holder = Holder.remote(np.ones(1 << 18))
    assert len(session._store) == 2
    drumbeat.kill(holder, no_restart=False)
    assert drumbeat.get(holder.total.remote()) == 1 << 18
    del ref, holder
    gc.collect()
    for _ in range(3):  # what goes is seen to by the next call
        drumbeat.put(0)
    assert len(session._store) == 0


def test_settings_hold_here_too():
    session = InlineSession(Settings(segment_bytes_min=0, value_bytes_max=4 << 20))
    set_current(session)
    try:
        got = drumbeat.get(drumbeat.put(np.ones(1 << 18)))
        got[0] = 7
        with pytest.raises(MessageTooLarge):
            drumbeat.put(bytes(5 << 20))
    finally:
        session.close()
        set_current(None)
        limit_values(Settings().value_bytes_max)


@needs_segments
def test_more_than_may_be_sent_can_be_passed_where_nothing_is_sent():
    session = InlineSession(Settings(value_bytes_max=4 << 20))
    set_current(session)
    try:
        assert drumbeat.get(drumbeat.remote(len).remote(bytearray(5 << 20))) == 5 << 20
    finally:
        session.close()
        set_current(None)
        limit_values(Settings().value_bytes_max)


@needs_segments
def test_what_was_let_go_of_makes_room_before_anything_is_refused():
    session = InlineSession(Settings(store_bytes_max=3 << 20, spill_bytes_max=0))
    set_current(session)
    try:
        for number in range(4):
            ref = drumbeat.put(np.full(1 << 18, number))
            assert drumbeat.get(ref)[-1] == number
            del ref
            assert drumbeat.get(drumbeat.remote(max).remote(np.full(1 << 18, number))) == number
        kept = drumbeat.put(np.ones(1 << 18))
        with pytest.raises(StoreFull):
            drumbeat.put(np.ones(1 << 18))
        assert drumbeat.get(kept)[-1] == 1
    finally:
        session.close()
        set_current(None)


def test_wait_map_futures_and_questions_work(session):
    refs = [drumbeat.remote(abs).remote(-n) for n in range(3)]
    assert drumbeat.wait(refs, num_returns=3) == (refs, [])
    assert [ref.result() for ref in drumbeat.as_completed(refs)] == [0, 1, 2]
    assert list(drumbeat.map(abs, [-1, -2])) == [1, 2]
    assert refs[1].future().result() == 1
    drumbeat.cancel(refs)
    assert drumbeat.cluster_resources()["CPU"] >= 1
    assert drumbeat.nodes()[0]["name"] == "inline"
    with drumbeat.Executor(max_workers=1) as executor:
        assert list(executor.map(abs, [-1, -2])) == [1, 2]


@drumbeat.remote(num_returns="streaming")
def yields(number):
    yield from range(number)
    raise LookupError("no more")


def test_what_is_yielded_is_made_as_it_is_read_and_the_error_comes_last(session):
    generator = yields.remote(3)
    refs = list(generator)
    assert drumbeat.get(refs[:3]) == [0, 1, 2]
    with pytest.raises(LookupError):
        drumbeat.get(refs[3])
    assert next(generator, None) is None


def test_a_function_that_yields_does_not_run_ahead_of_its_reader(session):
    @drumbeat.remote(num_returns="streaming")
    def endless():
        number = 0
        while True:
            number += 1
            yield number

    generator = endless.remote()
    assert [drumbeat.get(next(generator)) for _ in range(3)] == [1, 2, 3]
    generator.close()
    assert list(generator) == []
    assert not session._streams
    session.put(pack_value(1))
    assert len(session._objects) == 1, "nothing is left of what was not read"


def test_what_is_tried_again_here_passes_over_what_was_yielded(session):
    @drumbeat.remote(num_returns="streaming", retry_exceptions=[KeyError])
    def raises_twice():
        number = drumbeat.current().attempt
        yield "first"
        yield "second"
        if number < 3:
            raise KeyError(number)
        yield number

    assert [drumbeat.get(ref) for ref in raises_twice.remote()] == ["first", "second", 3]


def test_a_method_yields_here_too_unless_its_actor_is_dead(session):
    @drumbeat.remote
    class Ticker:
        def __init__(self):
            self.total = 0

        @drumbeat.method(num_returns="streaming")
        def ticks(self, number):
            for _ in range(number):
                self.total += 1
                yield self.total

    ticker = Ticker.remote()
    assert [drumbeat.get(ref) for ref in ticker.ticks.remote(3)] == [1, 2, 3]
    drumbeat.kill(ticker)
    with pytest.raises(drumbeat.ActorDied):
        drumbeat.get(next(ticker.ticks.remote(3)))


def test_what_yields_can_be_cancelled_here_before_it_begins_and_where_it_yields(session):
    @drumbeat.remote(num_returns="streaming", retry_exceptions=True)
    def endless():
        while True:
            yield 1

    for reads in (0, 2):
        generator = endless.remote()
        assert [drumbeat.get(next(generator)) for _ in range(reads)] == [1] * reads
        drumbeat.cancel(generator)
        generator.cancel()
        (ref,) = list(generator)
        with pytest.raises(drumbeat.TaskCancelled, match="was cancelled"):
            drumbeat.get(ref)
        assert not session._streams


def test_what_is_yielded_in_answer_to_a_cancel_is_passed_on_here_too(session):
    @drumbeat.remote(num_returns="streaming")
    def has_last_words():
        try:
            yield "first"
        except drumbeat.Interrupted as asked:
            yield asked.reason
            yield "and more"

    generator = has_last_words.remote()
    refs = [next(generator)]
    generator.cancel()
    refs += generator
    assert drumbeat.get(refs) == ["first", "cancelled", "and more"]


def test_what_yields_holds_its_arguments_and_its_actor_until_it_ends(session):
    @drumbeat.remote
    class Adder:
        @drumbeat.method(num_returns="streaming")
        def sums(self, first, others):
            for other in others:
                yield first + drumbeat.get(other)

    generator = Adder.remote().sums.remote(drumbeat.put(1), [drumbeat.put(n) for n in range(3)])
    drumbeat.put("what has gone by now is let go of")
    assert [drumbeat.get(ref) for ref in generator] == [1, 2, 3]
    drumbeat.put("and so are they")
    drumbeat.put("and what lay in them")
    assert len(session._objects) == 1
    assert not session._actors

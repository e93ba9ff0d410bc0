"""drumbeat.Executor keeps what concurrent.futures promises."""

import asyncio
import concurrent.futures
import gc
import pickle
import sys
import threading
from concurrent.futures import CancelledError

import drumbeat
import pytest
from drumbeat.client import executor as executor_module
from drumbeat.protocol.errors import Interrupted
from drumbeat.protocol.messages import Failure
from support.fake_session import FakeSession, eventually


@pytest.fixture
def session():
    with FakeSession() as session:
        yield session


@pytest.fixture
def manual():
    with FakeSession(automatic=False) as session:
        yield session


def double(n):
    return 2 * n


def fail(n):
    raise ValueError(n)


def test_submit_returns_a_real_future(session):
    with drumbeat.Executor() as executor:
        future = executor.submit(double, n=4)
        assert isinstance(future, concurrent.futures.Future)
        assert future.result(5) == 8
        assert future.done()
        assert isinstance(executor.submit(fail, 1).exception(5), ValueError)
        assert executor.submit(int, "12").result(5) == 12
        assert isinstance(executor.submit(double).exception(5), TypeError)


def test_what_a_result_names_lives_until_it_has_been_taken_out(session):
    with drumbeat.Executor() as executor:
        future = executor.submit(double, 4)
    assert future.done()
    ((id_,),) = [call.ids for call in session.calls]
    gc.collect()
    assert session.holds[id_] == 1
    assert future.result() == 8
    gc.collect()
    assert session.holds[id_] == 0


def test_callbacks_run_once_in_another_thread(session):
    seen = []
    with drumbeat.Executor() as executor:
        future = executor.submit(double, 1)
        future.add_done_callback(lambda f: seen.append(f.result()))
        future.add_done_callback(lambda f: 1 / 0)
        future.result(5)
    assert eventually(lambda: seen == [2])


def test_a_callback_may_ask_the_cluster_and_submit_more(session):
    results = []
    with drumbeat.Executor() as executor:

        def more(_):
            results.append(drumbeat.get(drumbeat.remote(double).remote(4)))
            results.append(executor.submit(double, 5))

        executor.submit(double, 1).add_done_callback(more)
        assert eventually(lambda: len(results) == 2)
        assert results[0] == 8
        assert results[1].result(5) == 10


def test_wait_and_as_completed_of_the_standard_library(session):
    with drumbeat.Executor() as executor:
        futures = [executor.submit(double, n) for n in range(10)]
        done, rest = concurrent.futures.wait(futures, 5)
        assert (len(done), len(rest)) == (10, 0)
        futures.append(executor.submit(fail, 3))
        done, _ = concurrent.futures.wait(futures, 5, concurrent.futures.FIRST_EXCEPTION)
        assert len(done) >= 1
        assert set(concurrent.futures.as_completed(futures, 5)) == set(futures)


def test_run_in_executor(session):
    async def main():
        loop = asyncio.get_running_loop()
        with drumbeat.Executor() as executor:
            return await asyncio.gather(
                *[loop.run_in_executor(executor, double, n) for n in range(3)]
            )

    assert asyncio.run(main()) == [0, 2, 4]


def test_at_most_max_workers_are_in_flight(manual):
    executor = drumbeat.Executor(max_workers=2)
    futures = [executor.submit(double, n) for n in range(5)]
    assert len(manual.calls) == 2
    manual.run()
    assert futures[0].result(5) == 0
    assert eventually(lambda: len(manual.calls) == 3)
    for _ in range(4):
        assert eventually(lambda: bool(manual.waiting))
        manual.run()
    assert [future.result(5) for future in futures] == [0, 2, 4, 6, 8]
    executor.shutdown()


def test_what_waits_here_fails_after_shutdown_and_starts_no_new_cluster(manual, monkeypatch):
    executor = drumbeat.Executor(max_workers=1)
    futures = [executor.submit(double, n) for n in range(3)]
    started = []
    monkeypatch.setattr(executor_module, "session_or_start", lambda: started.append(1))
    manual.alive = False
    manual.fail(Failure("NotInitialized", "shutdown() was called"))
    for future in futures:
        assert isinstance(future.exception(5), drumbeat.NotInitialized)
    executor.shutdown()
    assert not started
    assert len(manual.calls) == 1


def test_a_future_that_waits_here_can_be_cancelled(manual):
    executor = drumbeat.Executor(max_workers=1)
    first, second, third = [executor.submit(double, n) for n in range(3)]
    assert second.cancel()
    assert second.cancelled()
    with pytest.raises(CancelledError):
        second.result()
    assert concurrent.futures.wait([second], 0).done == {second}
    manual.run()
    assert first.result(5) == 0
    assert eventually(lambda: len(manual.waiting) == 1)
    manual.run()
    assert third.result(5) == 4
    assert len(manual.calls) == 2
    executor.shutdown()


def test_a_task_that_has_not_started_can_be_cancelled(manual):
    executor = drumbeat.Executor()
    first, second = executor.submit(double, 1), executor.submit(double, 2)
    called = []
    first.add_done_callback(called.append)
    assert not first.running()
    assert first.cancel()
    assert first.cancel(), "and again"
    with pytest.raises(CancelledError):
        first.result(5)
    assert len(manual.waiting) == 1
    manual.run()
    assert second.result(5) == 4
    assert called == [first]
    executor.shutdown()


def test_a_task_that_runs_or_is_done_is_not_cancelled(manual):
    executor = drumbeat.Executor()
    future = executor.submit(double, 1)
    call = manual.waiting.pop()  # it runs
    assert not future.cancel()
    manual.waiting.append(call)
    manual.run()
    assert future.result(5) == 2
    assert not future.cancel()
    executor.shutdown()


def test_a_task_that_others_cancel_is_a_cancelled_future(manual):
    executor = drumbeat.Executor()
    future = executor.submit(double, 1)
    manual.fail(Failure("TaskCancelled", "by the command line"))
    with pytest.raises(CancelledError):
        future.result(5)
    executor.shutdown()


def test_what_cannot_be_pickled_fails_its_own_future_only(session):
    with drumbeat.Executor() as executor:
        bad = executor.submit(double, threading.Lock())
        lock = threading.Lock()
        worse = executor.submit(lambda: lock)
        good = executor.submit(double, 2)
        assert isinstance(bad.exception(5), pickle.PicklingError)
        assert isinstance(bad.exception(5), drumbeat.NotPicklable)
        assert isinstance(worse.exception(5), pickle.PicklingError)
        assert good.result(5) == 4


def test_a_dead_worker_does_not_break_the_executor(manual):
    executor = drumbeat.Executor()
    dead, alive = executor.submit(double, 1), executor.submit(double, 2)
    manual.fail(Failure("WorkerDied", "killed", {"exit_code": 1}))
    manual.run()
    assert isinstance(dead.exception(5), drumbeat.WorkerDied)
    assert alive.result(5) == 4
    manual.automatic = True
    assert executor.submit(double, 3).result(5) == 6
    executor.shutdown()


def test_submit_and_map_after_shutdown_are_refused(session):
    executor = drumbeat.Executor()
    executor.shutdown()
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(double, 1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(double, [1])


def test_shutdown_waits_or_does_not(manual):
    executor = drumbeat.Executor(max_workers=1)
    futures = [executor.submit(double, n) for n in range(3)]
    executor.shutdown(wait=False)
    assert not futures[0].done()
    waiter = threading.Thread(target=executor_module.wait_for_all)
    waiter.start()
    for _ in range(3):
        assert eventually(lambda: bool(manual.waiting))
        assert waiter.is_alive()
        manual.run()
    waiter.join(5)
    assert not waiter.is_alive()
    assert [future.result(0) for future in futures] == [0, 2, 4]


@pytest.mark.parametrize("max_workers", [None, 2])
def test_shutdown_can_cancel_what_has_not_started(manual, max_workers):
    executor = drumbeat.Executor(max_workers)
    futures = [executor.submit(double, n) for n in range(5)]
    running = [manual.waiting.pop(0) for _ in range(max_workers or 1)]
    executor.shutdown(wait=False, cancel_futures=True)
    stay = len(running)
    assert [future.cancelled() for future in futures] == [n >= stay for n in range(5)]
    manual.waiting += running
    manual.run(stay)
    executor.shutdown()
    assert [future.result(0) for future in futures[:stay]] == [0, 2][:stay]


def test_a_future_that_says_running_cannot_be_cancelled(manual):
    executor = drumbeat.Executor(max_workers=2)
    futures = [executor.submit(double, n) for n in range(4)]
    assert [future.running() for future in futures] == [True, True, False, False]
    assert not futures[0].cancel()
    assert futures[3].cancel()
    assert len(manual.waiting) == 2
    manual.run()
    assert futures[0].result(5) == 0
    assert eventually(lambda: futures[2].running())
    manual.fail(Failure("TaskCancelled", "by the command line"))
    assert isinstance(futures[1].exception(5), drumbeat.TaskCancelled)
    manual.run()
    executor.shutdown()
    assert futures[2].result(0) == 4


def test_a_keyword_may_be_called_self(session):
    def named(self):
        return self

    with drumbeat.Executor(initializer=initialize, initargs=(1,)) as executor:
        assert executor.submit(named, self=3).result(5) == 3


@pytest.mark.parametrize("chunksize", [1, 2, 10])
def test_map_keeps_order(session, chunksize):
    with drumbeat.Executor() as executor:
        assert list(executor.map(pow, range(5), [2] * 9, chunksize=chunksize)) == [0, 1, 4, 9, 16]
        assert list(executor.map(double, [], chunksize=chunksize)) == []
        iterator = executor.map(fail, [1, 2], chunksize=chunksize)
        with pytest.raises(ValueError, match="1"):
            next(iterator)
        with pytest.raises(ValueError, match="chunksize"):
            executor.map(double, [1], chunksize=0)


def test_map_submits_at_once_and_gives_up_in_time(manual):
    executor = drumbeat.Executor()
    iterator = executor.map(double, range(3), timeout=0.01)
    assert len(manual.calls) == 3
    with pytest.raises(TimeoutError):
        next(iterator)
    assert manual.waiting == [], "the rest is cancelled"
    executor.shutdown()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Interrupted])
def test_what_ends_the_program_or_the_task_cancels_all_calls_and_waits_for_none(manual, stop):
    executor = drumbeat.Executor(max_workers=1)
    running, waiting = executor.submit(double, 1), executor.submit(double, 2)
    with pytest.raises(stop), executor:
        raise stop
    assert waiting.cancelled()
    assert not running.done()
    assert [ids for ids, _, _ in manual.cancelled] == [manual.calls[0].ids]
    with pytest.raises(RuntimeError):
        executor.submit(double, 3)
    assert len(manual.calls) == 1


def test_an_error_that_leads_out_of_an_executor_has_its_calls_go_on(manual):
    executor = drumbeat.Executor()
    future = executor.submit(double, 1)
    threading.Timer(0.05, manual.run).start()
    with pytest.raises(OSError, match="mine"), executor:
        raise OSError("mine")
    assert future.result(0) == 2
    assert not manual.cancelled


def test_at_the_end_of_a_program_that_ctrl_c_has_ended_nobody_waits_for_executors(
    manual, monkeypatch
):
    executor = drumbeat.Executor()
    executor.submit(double, 1)
    monkeypatch.setattr(sys, "last_value", KeyboardInterrupt(), raising=False)
    executor_module.wait_for_all()
    assert [ids for ids, _, _ in manual.cancelled] == [manual.calls[0].ids]


def test_references_are_passed_by_value_in_chunks_too(session):
    ref = drumbeat.put(4)
    with drumbeat.Executor() as executor:
        assert list(executor.map(double, [ref, 1], chunksize=2)) == [8, 2]
        assert executor.submit(double, ref).result(5) == 8


initialized = []


def initialize(value):
    initialized.append(value)


def refuse():
    raise OSError("no licence")


def test_the_initializer_runs_once_a_worker_before_the_first_call(session):
    initialized.clear()
    with drumbeat.Executor(initializer=initialize, initargs=(7,)) as executor:
        assert list(executor.map(double, range(3))) == [0, 2, 4]
        assert initialized == [7]
        pools = {call.kind.options.pool for call in session.calls}
    with drumbeat.Executor(initializer=initialize, initargs=(8,)) as executor:
        assert executor.submit(double, 1).result(5) == 2
        assert session.calls[-1].kind.options.pool not in pools
    assert initialized == [7, 8]
    assert "" not in pools


def test_an_initializer_that_fails_breaks_the_executor(manual):
    executor = drumbeat.Executor(max_workers=1, initializer=refuse)
    futures = [executor.submit(double, n) for n in range(3)]
    manual.run()
    for future in futures:
        with pytest.raises(concurrent.futures.BrokenExecutor, match="no licence"):
            future.result(5)
    with pytest.raises(concurrent.futures.BrokenExecutor, match="no licence"):
        executor.submit(double, 1)
    executor.shutdown()


def test_options_are_those_of_a_task(session):
    with drumbeat.Executor(max_tasks_per_child=3, num_cpus=2) as executor:
        executor.submit(double, 1).result(5)
        options = session.calls[0].kind.options
        assert (options.max_calls, options.num_cpus, options.max_retries) == (3, 2.0, 3)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"max_workers": 0}, ValueError),
        ({"initializer": 3}, TypeError),
        ({"max_tasks_per_child": 0}, ValueError),
        ({"max_tasks_per_child": 1.5}, TypeError),
        ({"num_returns": 2}, ValueError),
        ({"time_out": 3}, TypeError),
    ],
)
def test_arguments_that_make_no_sense_are_refused(given, error):
    with pytest.raises(error):
        drumbeat.Executor(**given)


def test_a_remote_function_and_an_async_one_can_be_submitted(session):
    async def later(n):
        return n + 1

    with drumbeat.Executor() as executor:
        assert executor.submit(drumbeat.remote(double), 2).result(5) == 4
        assert executor.submit(later, 2).result(5) == 3
        assert list(executor.map(later, [1, 2], chunksize=2)) == [2, 3]


def test_a_call_that_is_being_sent_while_all_is_given_up_is_cancelled_too(session):
    executor = drumbeat.Executor(max_workers=1)
    submit = session.submit

    def submit_meanwhile(*arguments, **more):
        ids = submit(*arguments, **more)
        executor._give_up()  # in the main thread, by Ctrl-C, while another one sends
        return ids

    session.submit = submit_meanwhile
    executor.submit(int, "1")
    assert session.cancelled

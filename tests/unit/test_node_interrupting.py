"""Calls beside each other that are interrupted: whom it strikes, and what that takes."""

import sys
import threading
import time
from types import SimpleNamespace

import pytest
from drumbeat.node.insisting import Insister
from drumbeat.node.several_threads import ThreadCalls
from drumbeat.protocol.errors import Interrupted


class Call(SimpleNamespace):
    """What `several` has of a call."""

    def __init__(self, seq, work):
        row = SimpleNamespace(seq=seq, args=None, values=())
        kind = SimpleNamespace(function=work, name="work")
        super().__init__(
            seq=seq, row=row, kind=kind, is_over=False, heard=False, shields=0, reason="cancelled",
            where=threading.get_ident(), error=None,
        )  # fmt: skip


def work():
    for _ in range(5000):
        pass


@pytest.fixture
def often():
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Bench(ThreadCalls):
    """Threads that run calls, without a node and a worker."""

    def __init__(self):
        self._there, self._striking = threading.Condition(), threading.Lock()
        self._free, self._is_late = threading.Condition(), False
        self.open, self.queue, self.ended_ones = {}, [], []
        line = SimpleNamespace(flushed_s=0.0, flush=lambda: None)
        host = SimpleNamespace(over=False)
        self.tools = SimpleNamespace(line=line, helper=None, host=host, flush_streams=lambda: None)

    def show(self, call, phase):
        """There is no page."""

    def outcome(self, call, error, value):
        call.error = error
        return call

    def ended(self, call, row):
        self.ended_ones.append(self.open.pop(call.seq))


@pytest.mark.usefixtures("often")
def test_an_interruption_strikes_no_call_but_the_one_that_it_is_meant_for():
    bench, struck, over = Bench(), set(), threading.Event()
    wrong, until_s = [], time.monotonic() + 60

    def serve():
        # Strikes come about when a call ends and the next one begins, as well.
        seq = 0
        while len(struck) < 5 and time.monotonic() < until_s:
            seq += 1
            call = Call(seq, work)
            bench.open[seq] = call
            try:
                bench._run(call)
                work()  # another call of its would begin here
            except Interrupted:
                wrong.append(seq)
        over.set()

    thread = threading.Thread(target=serve)
    thread.start()
    while not over.is_set() and thread.is_alive():
        for call in list(bench.open.values()):
            # One that is found to do something else by now may have been struck all the same: it
            # has left its own code for that. So it counts that it was meant, not what was seen.
            if call.seq % 2 and bench._strike(call) and call.heard:
                struck.add(call.seq)
    thread.join()
    assert not wrong
    interrupted = [call for call in bench.ended_ones if call.error is not None]
    assert interrupted
    assert all(call.seq % 2 for call in interrupted)
    assert all(isinstance(call.error, Interrupted) for call in interrupted)
    assert not bench.open


def test_a_thread_whose_call_is_over_is_not_struck():
    bench = Bench()
    call = Call(1, lambda: None)
    bench.open[1] = call
    bench._ends(call)
    assert bench._strike(call), "there is nothing more to be tried"
    assert not call.heard


def test_however_many_calls_are_to_be_interrupted_one_thread_tries():
    tried, settled = {}, threading.Event()
    before = threading.active_count()

    def strike(call):
        tried[call.seq] = tried.get(call.seq, 0) + 1
        if len(tried) == 500 and min(tried.values()) > 2:
            settled.set()
        return settled.is_set()

    insister = Insister(strike, 0.001, 0.01, 1000)
    for seq in range(500):
        insister.add(SimpleNamespace(seq=seq))
    assert threading.active_count() == before + 1
    assert settled.wait(20)
    until_s = time.monotonic() + 20
    while threading.active_count() > before:
        assert time.monotonic() < until_s, "it ends when there is nothing to be tried"


@pytest.mark.parametrize("times", [1, 5])
def test_it_is_tried_so_often_and_no_oftener(times):
    count, over = 0, threading.Event()

    def strike(_call):
        nonlocal count
        count += 1
        if count == times:
            over.set()
        return False

    insister = Insister(strike, 0.001, 0.001, times)
    insister.add(SimpleNamespace(seq=1))
    assert over.wait(20)
    assert not insister._waiting or insister._waiting[1][3] < times
    assert count == times

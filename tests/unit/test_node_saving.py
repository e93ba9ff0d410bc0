"""An actor's process tells its state: how often, what after an error, and what it is made of."""

from collections import deque
from contextlib import nullcontext
from types import SimpleNamespace

import drumbeat
import pytest
from drumbeat.node.page import CHECKPOINTING, PHASE
from drumbeat.node.saving import Often, Saver, restored
from drumbeat.protocol import actor_calls
from drumbeat.protocol.payload import pack_value, unpack_value

INLINE_BYTES_MAX = 1000


class Line:
    """Stands for the socket to the node."""

    def __init__(self):
        self.outbox = deque()
        self.awaited = []

    def undisturbed(self):
        return nullcontext()

    def flush_results(self):
        self.awaited.append("flush")

    def wait_until_kept(self, number):
        self.awaited.append(number)


class Actor:
    def __init__(self):
        self.state, self.error, self.phases = {"n": 1}, None, []

    def __checkpoint__(self):
        self.phases.append(words[PHASE])
        if self.error is not None:
            raise self.error
        return self.state


words = [0] * 16


@pytest.fixture
def actor(monkeypatch):
    actor = Actor()
    monkeypatch.setattr(actor_calls, "_instance", actor)
    return actor


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now_s=100.0)
    monkeypatch.setattr("drumbeat.node.saving.perf_counter", lambda: clock.now_s)
    return clock


def saver_of(**often):
    saver = Saver(Often(**often), "Ledger")
    saver.begin(INLINE_BYTES_MAX)
    return saver


def numbers(line):
    return [packet.number for packet in line.outbox]


def test_after_so_many_calls_the_state_is_told_in_a_phase_of_its_own(actor):
    line, saver = Line(), saver_of(every_calls=3)
    told = []
    for _ in range(7):
        assert saver.ended(line, words) == ""
        told.append(len(line.outbox))
    assert told == [0, 0, 1, 1, 1, 2, 2]
    assert numbers(line) == [1, 2]
    assert unpack_value(line.outbox[0].payload) == {"n": 1}
    assert actor.phases == [CHECKPOINTING] * 2
    assert words[PHASE] != CHECKPOINTING


def test_after_its_interval_the_state_is_told_if_anybody_has_called(actor, clock):
    line, saver = Line(), saver_of(interval_s=5.0)
    assert saver.wait_s() is None
    saver.ended(line, words)
    assert saver.wait_s() == 5.0
    clock.now_s += 5.0
    saver.save_idle(line, words)
    assert numbers(line) == [1]
    assert saver.wait_s() is None
    clock.now_s += 6.0
    saver.ended(line, words)
    assert numbers(line) == [1, 2]


def test_after_a_large_one_the_next_waits_until_that_is_safe(actor):
    line, saver = Line(), saver_of(every_calls=1)
    actor.state = bytes(2 * INLINE_BYTES_MAX)
    saver.ended(line, words)
    assert not line.awaited
    actor.state = b"small"
    saver.ended(line, words)
    assert line.awaited == ["flush", 1]
    saver.ended(line, words)
    assert line.awaited == ["flush", 1]
    assert numbers(line) == [1, 2, 3]


def test_an_error_is_told_once_until_one_succeeds_and_each_caller_hears_of_it(actor, capsys):
    line, saver = Line(), saver_of(every_calls=1)
    actor.error = ArithmeticError("odd")
    for _ in range(3):
        assert "ArithmeticError: odd" in saver.ended(line, words)
    actor.error = None
    assert saver.ended(line, words) == ""
    actor.error = SystemExit(3)
    assert "SystemExit: 3" in saver.ended(line, words)
    told = capsys.readouterr().err
    assert told.count("ArithmeticError: odd") == told.count("SystemExit: 3") == 1
    assert "there is none before it" in told
    assert "the last one is kept" in told
    assert numbers(line) == [1]


def test_where_not_each_call_is_saved_an_error_is_no_callers(actor):
    line, saver = Line(), saver_of(every_calls=2)
    actor.error = ArithmeticError("odd")
    assert [saver.ended(line, words) for _ in range(4)] == [""] * 4
    actor.error = None
    saver.ended(line, words)
    assert numbers(line) == [1], "it is tried again after each call"


class Kept:
    def __init__(self):
        raise AssertionError("no constructor is called")

    def __restore__(self, state):
        if state is None:
            raise KeyError("nothing")
        self.state = state


def test_the_instance_is_given_its_state_and_has_seen_no_constructor():
    assert restored(Kept, pack_value([1, 2]).payload).state == [1, 2]


def test_what_restore_raises_says_where_it_comes_from():
    with pytest.raises(KeyError) as caught:
        restored(Kept, pack_value(None).payload)
    assert caught.value.__notes__ == [
        "raised while Kept.__restore__ was given the actor's last checkpoint"
    ]


def test_checkpoint_failed_is_an_error_of_actors():
    assert issubclass(drumbeat.CheckpointFailed, drumbeat.ActorError)

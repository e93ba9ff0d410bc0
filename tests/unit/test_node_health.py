"""An actor is asked whether it is well: when, what its process says, and what its node makes of it.

The last is about a node core on the bench; of the first two the clock and the line are stand-ins.
"""

from collections import deque
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from drumbeat.node import events
from drumbeat.node.health import TEXT_MAX, Doctor, doctor_of
from drumbeat.node.packets import CallsTold, FinishedRow, Health, TellCalls
from drumbeat.node.page import BEGAN, HEALTH_CHECK, IDLE, PHASE, RUNNING_CODE, PulsePage, times_of
from drumbeat.protocol import actor_calls
from drumbeat.protocol.actors import ActorOptions
from drumbeat.protocol.messages import Beat, Outcome, Stop, StopMode, ValueRow
from support.node_acting import CREATION, Stage

SOON = {"health_timeout_s": 20.0, "cancel_grace_s": 1.0, "term_grace_s": 1.0}
FAULT = "__health__ raised OSError: no disk"
#: when a stage begins
ASKED_AT_S = 100.0


class Patient:
    def __init__(self):
        self.answer, self.error, self.phases = None, None, []

    def __health__(self):
        self.phases.append((words[PHASE], times_of(words)[BEGAN]))
        if self.error is not None:
            raise self.error
        return self.answer


words = PulsePage().slot(1)


@pytest.fixture
def patient(monkeypatch):
    patient = Patient()
    monkeypatch.setattr(actor_calls, "_instance", patient)
    return patient


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now_s=100.0)
    monkeypatch.setattr("drumbeat.node.health.perf_counter", lambda: clock.now_s)
    return clock


class Practice:
    """A doctor, and what is heard of it."""

    def __init__(self, interval_s=10.0):
        self.left = []
        self.begun = 0
        self.doctor = Doctor(interval_s, self.left.append)
        self.outbox = deque()
        self.flushed = []

    def undisturbed(self):
        return nullcontext()

    def flush(self):
        self.flushed += self.outbox
        self.outbox.clear()

    def begin(self):
        self.begun += 1

    def ask(self):
        self.doctor.ask(self, words, self)
        return self.flushed


def ended(outcome=Outcome.VALUE):
    return FinishedRow(2, (ValueRow(bytes(16), int(outcome)),), 0.1)


# --------------------------------------------------------------------------------- in its process


def test_it_is_asked_so_long_after_a_call_that_ended_well_or_after_it_was_asked(patient, clock):
    practice = Practice()
    doctor = practice.doctor
    assert not doctor.is_due()
    clock.now_s += 9.0
    assert doctor.wait_s() == 1.0
    doctor.ended(ended())
    assert doctor.wait_s() == 10.0
    clock.now_s += 4.0
    doctor.ended(ended(Outcome.ERROR))
    assert doctor.wait_s() == 6.0
    clock.now_s += 7.0
    assert doctor.is_due()
    assert doctor.wait_s() == 0.0
    practice.ask()
    assert not doctor.is_due()
    assert doctor.wait_s() == 10.0


@pytest.mark.parametrize("answer", [None, True, 0, ""])
def test_whatever_is_not_false_says_that_it_is_well(patient, clock, answer):
    patient.answer = answer
    practice = Practice()
    assert practice.ask() == [Health()]
    assert not practice.left
    assert practice.begun == 1, "it pulses meanwhile"
    assert patient.phases == [(HEALTH_CHECK, 100.0)]
    assert words[PHASE] == IDLE


def test_what_is_not_well_says_why_and_ends(patient):
    patient.answer = False
    practice = Practice()
    assert practice.ask() == [Health(), Health("__health__ returned False", "")]
    assert practice.left == [1]


@pytest.mark.parametrize("error", [OSError("no disk"), SystemExit(3)])
def test_what_raises_tells_it_with_its_traceback_and_ends(patient, error):
    patient.error = error
    practice = Practice()
    _, told = practice.ask()
    assert told.fault == f"__health__ raised {type(error).__name__}: {error}"
    assert "raise self.error" in told.text
    assert practice.left == [1]


def test_however_much_it_says_no_more_than_fits_is_told(patient):
    patient.error = OSError("x" * 100_000)
    _, told = Practice().ask()
    assert len(told.text) <= TEXT_MAX
    assert len(told.fault) < 1000


def test_however_often_it_is_to_be_asked_there_is_time_for_a_call_in_between(patient, clock):
    practice = Practice(1e-9)
    practice.ask()
    assert practice.doctor.wait_s() > 0.04


def test_only_a_class_that_can_say_is_asked_and_only_where_somebody_wants_that():
    assert doctor_of(Patient, 1.0) is not None
    assert doctor_of(Patient, 0.0) is None
    assert doctor_of(dict, 1.0) is None


# ------------------------------------------------------------------------------------- at its node


def seen_for(stage, seconds, phase=HEALTH_CHECK, running=0, state="S", asked_s=None):
    """Let time pass while the page says so of the actor; answer whatever the node asks."""
    end_s, commands = stage.now_s + seconds, []
    while stage.now_s < end_s:
        new = stage.after(0.05)
        while new:
            commands += new
            lasts_s = stage.now_s - ASKED_AT_S
            elapsed_s = lasts_s if asked_s is None else lasts_s % asked_s
            answers = []
            for command in new:
                if type(command) is events.LookAt:
                    about = int(stage.now_s * 100), running, phase, elapsed_s, 0
                    answers += [
                        events.Seen([events.Evidence(
                            1, *about, state if depth else "", 1.0, 5, "", "read", started=1
                        )])
                        for _, depth in command.rows
                    ]  # fmt: skip
                elif type(command) is events.Dump:
                    answers.append(events.Dumped(1, "File x"))
            new = stage.feed(*answers) if answers else []
    return commands


def signals(commands):
    return [c.name for c in commands if type(c) is events.Signal]


def looks(commands):
    return [c for c in commands if type(c) is events.LookAt]


def beaten(commands):
    sent = [c.message for c in commands if type(c) is events.Send]
    return [row for message in sent if type(message) is Beat for row in message.running]


def asked(**settings):
    stage = Stage(settings={**SOON, **settings})
    stage.say(1, Health())
    return stage


def test_an_idle_actor_is_looked_at_only_while_it_is_asked():
    stage = Stage(settings=SOON)
    assert not looks(seen_for(stage, 2.0, IDLE))
    stage.say(1, Health())
    commands = seen_for(stage, 2.0)
    assert looks(commands)
    row = beaten(commands)[-1]
    assert (row.id, row.phase, row.verdict) == (stage.actor, "health-check", "health-check")
    assert row.evidence.startswith("__health__ of its actor has not ended for")
    seen_for(stage, 0.5, IDLE)
    commands = seen_for(stage, 5.0, IDLE)
    assert not looks(commands)
    assert not beaten(commands)


def test_who_does_not_end_saying_how_it_is_is_ended_after_its_limit():
    stage = asked()
    assert not signals(seen_for(stage, 19.0))
    commands = seen_for(stage, 6.0)
    assert signals(commands) == ["TERM", "KILL"]
    assert events.Dump([1]) in commands
    stage.die(1, started=1)
    (row,) = stage.done()
    failure = row.values[0].failure
    assert (row.id, row.died, failure.error) == (stage.actor, True, "TaskHung")
    assert "did not end __health__ in 20 s" in failure.text
    assert failure.details["limit"] == "health_timeout_s"
    assert failure.details["verdict"].startswith("health-check: __health__ of its actor has not")
    assert failure.details["stacks"] == "File x"


def test_of_one_that_lives_on_a_loop_it_is_told_where_the_coroutine_is():
    stage = asked()
    stage.hosted().concurrency = 100
    told = events.SendWorker(1, TellCalls(0))
    assert any(told in seen_for(stage, 0.1) for _ in range(250))
    of_health = 'Coroutine __health__, a task of its own (most recent call first):\n  File "y"\n'
    other = 'Coroutine poll, a task of its own (most recent call first):\n  File "z"\n'
    stage.say(1, CallsTold(0, other + of_health))
    seen_for(stage, 5.0)
    stage.die(1, started=1)
    (row,) = stage.done()
    assert row.values[0].failure.details["stacks"] == of_health + "File x"


def test_a_call_that_comes_meanwhile_does_not_begin_its_limit_anew_and_runs_in_the_next():
    stage = asked()
    seen_for(stage, 15.0)
    (call,) = stage.call()
    assert signals(seen_for(stage, 10.0)) == ["TERM", "KILL"]
    stage.die(1, started=1)
    assert stage.told_back() == [call]
    assert [row.id for row in stage.done()] == [stage.actor]


def test_the_times_of_several_questions_are_not_added_up():
    stage = asked(health_timeout_s=1.0)
    # Whenever it is looked at it is being asked, each time for 0.6 s at most.
    assert not signals(seen_for(stage, 10.0, asked_s=0.6))


@pytest.mark.parametrize(
    ("about", "settings"), [({"state": "T"}, {}), ({}, {"health_timeout_s": 0.0})]
)
def test_who_is_stopped_or_has_no_limit_goes_on(about, settings):
    assert not signals(seen_for(asked(**settings), 60.0, **about))


def test_a_call_after_the_question_is_judged_for_itself():
    stage = asked()
    stage.call()
    seen_for(stage, 19.0)
    commands = seen_for(stage, 30.0, RUNNING_CODE, running=2)
    assert not signals(commands)
    assert beaten(commands)[-1].verdict in ("running", "blocked")


def test_what_is_not_well_ends_as_that_and_calls_not_begun_go_back_in_their_order():
    stage = Stage(settings=SOON)
    calls = stage.call(3)
    stage.say(1, Health(), Health(FAULT, "Traceback ...\nOSError: no disk"))
    stage.die(1, status=1, started=1)
    assert stage.told_back() == calls
    (row,) = stage.done()
    failure = row.values[0].failure
    assert (row.id, row.died, failure.error) == (stage.actor, True, "ActorUnhealthy")
    first, *more = failure.text.splitlines()
    assert f"is unhealthy: {FAULT} on node" in first
    assert more == ["Traceback ...", "OSError: no disk"]
    assert failure.details["traceback_text"] == "Traceback ...\nOSError: no disk"
    assert failure.details["incarnation"] == 1
    assert not signals(stage.commands)


def test_whoever_was_to_end_all_the_same_is_not_unhealthy():
    stage = Stage(settings=SOON)
    stage.hear(Stop([(stage.actor, 1, StopMode.FORCE)]))
    stage.say(1, Health(FAULT))
    stage.die(1, started=1)
    (row,) = stage.done()
    assert row.values[0].failure.error == "TaskCancelled"


def test_who_is_no_actor_cannot_say_how_it_is():
    stage = Stage(settings=SOON, made=False)
    stage.say(1, Health(FAULT))
    assert stage.core.counters["stale_dropped"] == 1


@pytest.mark.parametrize(
    ("given", "interval_s"),
    [({}, 7.0), ({"health_check_interval_s": 0.0}, 0.0), ({"health_check_interval_s": 2.5}, 2.5)],
)
def test_how_often_is_its_options_to_say_and_else_the_settings(given, interval_s):
    stage = Stage(settings={"health_check_interval_s": 7.0}, made=False)
    stage.prepare(20, creates=ActorOptions(**given), num_cpus=0.0)
    stage.assign(kind=20)
    stage.ready(2)
    sent = [c.packet for c in stage.of(events.SendWorker) if c.worker == 2]
    (definition,) = sent[0].definitions
    assert definition.health_check_interval_s == interval_s
    assert CREATION != 20

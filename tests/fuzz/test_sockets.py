"""Nonsense on the sockets of a live scheduler: nothing breaks, everything is counted."""

import pytest
from fuzz.run import run

pytestmark = pytest.mark.integration


def test_nonsense_on_the_sockets_is_counted_and_an_innocent_program_goes_on() -> None:
    outcome = run(messages=15_000, seed=7, per_s=20_000.0, phases=False)
    # How fast others are is told by the long run: here the machine may be busy with anything.
    assert not outcome.complaints(rate_counts=False), outcome.report()
    assert outcome.expected["messages_rejected"] > 1000
    assert outcome.said["clients dropped"] > 3
    assert all(outcome.expected[name] for name in ("junk_dropped", "hellos_refused"))
    assert outcome.counted["frames_refused"] > 0
    assert outcome.status["refused"]["last"]


def test_strangers_at_a_door_on_the_network_are_turned_away_and_counted() -> None:
    outcome = run(messages=8_000, seed=7, per_s=20_000.0, phases=False, tcp=True)
    assert not outcome.complaints(rate_counts=False), outcome.report()
    assert outcome.expected["keys_refused"] > 0
    assert outcome.said["other roles"] > 0
    assert outcome.status["refused"]["handshakes_failed"] > 100

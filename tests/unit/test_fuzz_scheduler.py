"""A registered peer says anything that decodes: it is dropped or refused, and nobody else is."""

from random import Random

import pytest
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.messages import Define, Join, KindRow, Options, Submit, TaskRow
from drumbeat.protocol.recovery import Registered
from hypothesis import given, settings
from hypothesis import strategies as st
from support.mad_peers import play
from support.scheduling import Stage, ids_of

seeds = st.integers(0, 2**32)


@pytest.mark.parametrize("role", ["client", "node"])
@settings(max_examples=40)
@given(seed=seeds, steps=st.integers(1, 20))
def test_whatever_a_peer_says_the_work_of_others_comes_to_its_end(
    role: str, seed: int, steps: int
) -> None:
    play(Random(seed), role, steps)


@pytest.mark.parametrize("role", ["client", "node"])
@settings(max_examples=20)
@given(seed=seeds, steps=st.integers(1, 20))
def test_whatever_a_peer_says_to_a_scheduler_that_comes_back_others_get_on(
    role: str, seed: int, steps: int
) -> None:
    play(Random(seed), role, steps, recovering=True)


def test_each_refusal_is_counted_and_has_a_reason_in_the_story() -> None:
    scene = play(Random(3), "client", 40)
    core = scene.stage.core
    assert core.counters["messages_rejected"] == scene.refused > 0
    assert core.counters["peers_dropped"] > 0
    reasons = [line for _, line in core.story if "broke the protocol: " in line]
    assert reasons
    assert len(scene.stage.drops) >= core.counters["peers_dropped"]
    assert all(drop.reason for drop in scene.stage.drops if drop.error)


def test_a_node_that_takes_its_own_id_for_a_clients_is_not_waited_for() -> None:
    stage = Stage(epoch=2)
    node = PeerId(b"nnnnnn")
    stage.hello(node, "node", "n", epoch=1)
    stage.say(node, Join("n", "host", 1, {"CPU": 1.0}))
    stage.say(node, Define(node, [KindRow(1, b"h" * 16, "f", Options(), b"code")]))
    stage.say(node, Submit(node, b"", 0, [TaskRow(ids_of(node, 1)[0], 1)]))
    stage.turn()
    stage.say(node, Registered())
    stage.live(30.0)
    assert stage.at_rest()

"""Who asks for stacks gets those of the right nodes, and an answer in any case."""

from typing import Any

import pytest
from drumbeat.protocol.ids import PeerId, show
from drumbeat.protocol.messages import Answer, Leave, Query
from drumbeat.protocol.running import Stack, StackRow, Stacks
from drumbeat.scheduler.stacks import ANSWER_S, ROWS_BYTES_MAX
from support.scheduling import Stage, ids_of

DUMP = "Current thread 0x1 (most recent call first):\n"


def ask(stage: Stage, peer: PeerId, match: str = "") -> None:
    stage.say(peer, Query(5, "stack", match=match))
    stage.turn()


def answer(stage: Stage, peer: PeerId) -> Any:
    answers = stage.take(peer, Answer)
    assert [message.request for message in answers] in ([5], [])
    return answers[0].data if answers else None


def test_a_tasks_stack_is_asked_of_its_node_and_passed_on() -> None:
    stage = Stage()
    client, node, other = stage.client(), stage.node("n"), stage.node("m")
    (task,) = ids_of(client, 1)
    stage.submit(client, stage.define(client, node="n"), [task])
    stage.turn()
    ask(stage, client, show(task))
    (message,) = stage.take(node, Stack)
    assert (message.tasks, message.pids, message.all) == ([task], [], False)
    assert not stage.take(other, Stack)
    assert answer(stage, client) is None
    stage.say(node, Stacks(message.number, [StackRow(41, task, "work", DUMP)]))
    stage.turn()
    row = {"node": "n", "pid": 41, "task": show(task), "name": "work", "stack": DUMP, "why": ""}
    assert answer(stage, client) == [row]
    assert stage.core.at_rest()["stack_asks"] == 0


@pytest.mark.parametrize(("match", "asked"), [("41", "nm"), ("n/41", "n"), ("", "nm")])
def test_workers_are_asked_for_by_number_by_node_and_all_together(match: str, asked: str) -> None:
    stage = Stage()
    client, nodes = stage.client(), {letter: stage.node(letter) for letter in "nm"}
    ask(stage, client, match)
    sent = {letter: stage.take(node, Stack) for letter, node in nodes.items()}
    assert "".join(letter for letter, messages in sent.items() if messages) == asked
    for letter in asked:
        (message,) = sent[letter]
        assert (message.pids, message.all) == (([], True) if not match else ([41], False))
        stage.say(nodes[letter], Stacks(message.number, []))
    stage.turn()
    assert answer(stage, client) == []


@pytest.mark.parametrize(
    ("match", "text"),
    [
        (
            "what",
            (
                "'what' is neither the id of a task or an actor, nor an actor's name, nor a "
                "worker, which is NODE/PID or PID"
            ),
        ),
        ("far/41", "there is no node 'far'"),
        ("5f0c2b9a11d4-0-2a", "there is no unfinished task and no living actor 5f0c2b9a11d4-0-2a"),
    ],
)
def test_what_is_not_there_is_an_error_in_words(match: str, text: str) -> None:
    stage = Stage()
    client = stage.client()
    stage.node()
    ask(stage, client, match)
    assert answer(stage, client) == {"error": text}


def test_a_node_that_does_not_answer_or_goes_is_named_and_not_waited_for() -> None:
    stage = Stage()
    client, _silent, gone = stage.client(), stage.node("n"), stage.node("m")
    ask(stage, client)
    stage.say(gone, Leave())
    stage.turn()
    assert answer(stage, client) is None
    stage.turn(ANSWER_S + 0.1)
    whys = {row["node"]: row["why"] for row in answer(stage, client)}
    assert whys == {"n": f"did not answer within {ANSWER_S:g} s", "m": "is gone"}


def test_an_answer_is_bounded_and_says_how_many_are_left_off() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    ask(stage, client)
    (message,) = stage.take(node, Stack)
    rows = [StackRow(n, b"", "work", "x" * (ROWS_BYTES_MAX // 4)) for n in range(1, 7)]
    stage.say(node, Stacks(message.number, rows, 2))
    stage.turn()
    found = answer(stage, client)
    assert len([row for row in found if row["stack"]]) == 3
    assert found[-1]["why"] == "5 more workers are not told of"


def test_an_answer_that_nobody_awaits_is_counted_and_dropped() -> None:
    stage = Stage()
    node = stage.node()
    stage.say(node, Stacks(99, []))
    assert stage.core.counters["stale_dropped"] == 1

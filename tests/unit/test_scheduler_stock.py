"""Who asks for objects is told what their homes keep and how others hold it, in any case."""

from typing import Any

from drumbeat.protocol.forms import COUNT_MAX
from drumbeat.protocol.ids import PeerId, show
from drumbeat.protocol.messages import Answer, Enter, Environment, Leave, Query, Stock, TakeStock
from drumbeat.protocol.stock import STOCK_ROWS_MAX, StockRow
from drumbeat.scheduler.standstill import IDLE_WORDS
from drumbeat.scheduler.stock import ASKS_MAX, HOLDERS_MAX, HOMES_MAX, TELL_S
from support.scheduling import Stage, ids_of, value_done


def ask(stage: Stage, peer: PeerId, match: str = "", limit: int = 100) -> None:
    stage.say(peer, Query(5, "objects", limit, match))
    stage.turn()


def answer(stage: Stage, peer: PeerId) -> Any:
    answers = stage.take(peer, Answer)
    assert [message.request for message in answers] in ([5], [])
    return answers[0].data if answers else None


def asked(stage: Stage, peer: PeerId) -> TakeStock:
    (message,) = stage.take(peer, TakeStock)
    return message


def tell(stage: Stage, peer: PeerId, *rows: StockRow, **totals: int) -> None:
    """Have a peer answer what it was asked."""
    stage.say(peer, Stock(asked(stage, peer).number, list(rows), **totals))
    stage.turn()


def row_of(id_: bytes, size_bytes: int = 10, refs: int = 1, uses: int = 0) -> StockRow:
    return StockRow(id_, "put", "", "ready", size_bytes, "memory", refs, uses)


def shared_with(stage: Stage, home: PeerId, node: PeerId, *ids: bytes) -> None:
    """Have a task of a home go to a node with refs to objects inside."""
    task = ids_of(home, 100 + node[0])[-1]
    stage.submit(home, stage.define(home, node=node.hex()), [task], args=b"a", contained=ids)
    stage.turn()
    assert stage.assigned(node)


def test_every_home_is_asked_and_the_largest_of_all_come_first() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    (mine,), (theirs,) = ids_of(client, 1), ids_of(node, 1, worker=1)
    ask(stage, client, match="wo", limit=7)
    assert (stage.mail[node][-1].match, stage.mail[node][-1].limit) == ("wo", 7)
    tell(stage, client, row_of(mine, 10, refs=2, uses=1), objects=3, size_bytes=12)
    assert answer(stage, client) is None
    tell(stage, node, row_of(theirs, 20), objects=1, size_bytes=20, copies=1, copies_bytes=5)
    data = answer(stage, client)
    assert [row["id"] for row in data["objects"]] == [show(theirs), show(mine)]
    assert data["objects"][1] == {
        "id": show(mine), "sort": "put", "name": "", "state": "ready", "size_bytes": 10,
        "place": "memory", "home": "client-c", "role": "client", "more_holders": 0,
        "held_by": [
            {"name": "client-c", "role": "client", "refs": 2, "uses": 1, "copy_bytes": 0},
        ],
    }  # fmt: skip
    assert (data["left_out"], data["silent"], data["not_asked"]) == (2, [], 0)
    homes = {home["name"]: home for home in data["homes"]}
    assert (homes["client-c"]["objects"], homes["client-c"]["size_bytes"]) == (3, 12)
    assert (homes["n"]["copies"], homes["n"]["copies_bytes"]) == (1, 5)
    assert not any(stage.core.at_rest()[key] for key in ("stock_asks", "questions"))


def test_a_program_is_named_with_its_host_and_one_that_keeps_nothing_is_no_home() -> None:
    stage = Stage()
    asker, job = stage.client("a"), PeerId(b"jjjjjj")
    stage.hello(job, "client", "j")
    stage.say(job, Enter("job.py", Environment(host="lab", pid=41)))
    ask(stage, asker)
    tell(stage, asker)
    tell(stage, job, row_of(ids_of(job, 1)[0]), objects=1, size_bytes=10)
    data = answer(stage, asker)
    assert [(home["name"], home["pid"]) for home in data["homes"]] == [("job.py@lab", 41)]
    assert data["objects"][0]["home"] == "job.py@lab"


def test_those_who_hold_refs_are_asked_how_and_told_of() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    mine, other = ids_of(client, 2)
    shared_with(stage, client, node, mine)
    ask(stage, client)
    tell(stage, node)
    tell(stage, client, row_of(mine, 20, refs=0), row_of(other), objects=2, size_bytes=30)
    assert answer(stage, client) is None
    assert stage.mail[node][-1].ids == [mine]
    held = StockRow(mine, "result", "", "pending", 0, "", 2, 1)
    tell(stage, node, held, row_of(other))
    data = answer(stage, client)
    assert data["objects"][0]["held_by"] == [
        {"name": "n", "role": "node", "refs": 2, "uses": 1, "copy_bytes": 0}
    ]
    assert [one["name"] for one in data["objects"][1]["held_by"]] == ["client-c"]


def test_who_has_mapped_the_memory_of_a_value_holds_that_and_is_told_of_once() -> None:
    stage = Stage()
    client, node, other = stage.client(), stage.node(), stage.node("m")
    mine, part = ids_of(client, 2)
    (foreign,) = ids_of(other, 1)
    shared_with(stage, client, node, part, foreign)
    shared_with(stage, client, other, mine, part)
    ask(stage, client)
    row = row_of(mine, 20, refs=0)
    row.parts = (part, foreign)
    tell(stage, node)
    tell(stage, other)
    tell(stage, client, row, objects=1, size_bytes=20)
    assert stage.mail[node][-1].ids == [part], "and not what is not this home's"
    assert stage.mail[other][-1].ids == [mine, part]
    tell(stage, node, row_of(part, 0, refs=1))
    tell(stage, other, row_of(mine, 5, refs=2, uses=1), row_of(part, 15, refs=1, uses=1))
    held = answer(stage, client)["objects"][0]["held_by"]
    assert [(one["name"], one["refs"], one["uses"], one["copy_bytes"]) for one in held] == [
        ("m", 2, 1, 20),
        ("n", 1, 0, 0),
    ]


def test_tasks_that_wait_for_a_value_at_the_scheduler_are_told_of() -> None:
    stage = Stage()
    client, other = stage.client(), stage.client("o")
    (awaited,) = ids_of(other, 1)
    stage.submit(client, stage.define(client), ids_of(client, 1), deps=(awaited,))
    ask(stage, client)
    tell(stage, client)
    tell(stage, other, row_of(awaited, refs=0), objects=1, size_bytes=10)
    (row,) = answer(stage, client)["objects"]
    assert row["held_by"] == [
        {"name": "", "role": "scheduler", "refs": 0, "uses": 1, "copy_bytes": 0}
    ]


def test_a_home_that_does_not_answer_is_named_and_not_waited_for() -> None:
    stage = Stage()
    client, _silent = stage.client(), stage.node()
    (mine,) = ids_of(client, 1)
    ask(stage, client)
    tell(stage, client, row_of(mine), objects=1, size_bytes=10)
    stage.turn(TELL_S - 0.1)
    assert answer(stage, client) is None
    due_s = stage.core.deadline_s()
    assert due_s is not None
    assert due_s <= stage.now_s + 0.11
    stage.turn(0.2)
    data = answer(stage, client)
    assert [row["id"] for row in data["objects"]] == [show(mine)]
    assert data["silent"] == [
        {"name": "n", "role": "node", "why": f"did not answer within {TELL_S:g} s"}
    ]


def test_a_holder_that_does_not_answer_is_named_as_a_holder() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    (mine,) = ids_of(client, 1)
    shared_with(stage, client, node, mine)
    ask(stage, client)
    tell(stage, node)
    tell(stage, client, row_of(mine, refs=0), objects=1, size_bytes=10)
    stage.turn(TELL_S + 0.1)
    data = answer(stage, client)
    assert data["objects"][0]["held_by"] == [
        {"name": "n", "role": "node", "refs": None, "uses": None, "copy_bytes": None}
    ]
    assert len(data["silent"]) == 1


def test_a_home_that_goes_is_not_waited_for_and_an_asker_that_goes_is_not_answered() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    ask(stage, client)
    tell(stage, client)
    stage.say(node, Leave())
    stage.turn()
    assert answer(stage, client)["silent"] == [{"name": "n", "role": "node", "why": "is gone"}]
    stage.node("m")
    ask(stage, client)
    stage.say(client, Leave())
    stage.turn()
    assert stage.core.at_rest()["stock_asks"] == 0


def test_nobody_speaks_for_what_another_keeps() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    (mine,) = ids_of(client, 1)
    ask(stage, client)
    tell(stage, node, row_of(mine, COUNT_MAX), objects=COUNT_MAX, size_bytes=COUNT_MAX)
    tell(stage, client, objects=COUNT_MAX, size_bytes=COUNT_MAX)
    data = answer(stage, client)
    assert data["objects"] == []
    assert data["left_out"] == COUNT_MAX, "the sum fits the wire, whatever anybody says"


def test_an_answer_that_nobody_awaits_or_another_gives_is_counted_and_dropped() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    stage.say(node, Stock(99, []))
    ask(stage, client)
    number = asked(stage, client).number
    stage.say(node, Stock(number, []))
    assert stage.core.counters["stale_dropped"] == 2


def test_rows_holders_homes_and_questions_are_bounded() -> None:
    stage = Stage()
    client = stage.client()
    nodes = [stage.node(letter) for letter in "defghijklm"]
    ids = ids_of(client, 3)
    for node in nodes:
        shared_with(stage, client, node, ids[0])
    ask(stage, client, limit=2)
    for node in nodes:
        tell(stage, node)
    tell(stage, client, *[row_of(id_) for id_ in ids], objects=3, size_bytes=30)
    holders = [node for node in nodes if stage.take(node, TakeStock)]
    assert len(holders) == HOLDERS_MAX
    stage.turn(TELL_S + 0.1)
    data = answer(stage, client)
    assert (len(data["objects"]), data["left_out"]) == (2, 1)
    assert data["objects"][0]["more_holders"] == len(nodes) - HOLDERS_MAX
    for request in range(ASKS_MAX + 1):
        stage.say(client, Query(request + 9, "objects", STOCK_ROWS_MAX + 5))
    stage.turn()
    (refused,) = stage.take(client, Answer)
    assert refused.data == {"error": f"{ASKS_MAX} others ask for objects"}
    assert stage.take(client, TakeStock)[0].limit == STOCK_ROWS_MAX


def test_of_very_many_programs_some_are_asked_and_the_rest_counted() -> None:
    stage = Stage()
    stage.checks = False
    client = stage.client()
    for number in range(HOMES_MAX + 2):
        peer = PeerId(number.to_bytes(6, "big"))
        stage.hello(peer, "client", "j")
        stage.say(peer, Enter("job.py", Environment()))
    ask(stage, client)
    stage.turn(TELL_S + 0.1)
    assert answer(stage, client)["not_asked"] == 3


def test_a_task_may_not_ask_what_others_keep() -> None:
    stage = Stage()
    error = stage.ask(stage.node(), "objects")["error"]
    assert "a task may ask for status and nodes" in error


def test_what_is_asked_of_a_node_does_not_count_as_movement() -> None:
    assert {TakeStock, Stock} <= IDLE_WORDS


def test_a_value_that_the_scheduler_keeps_for_tasks_is_told_as_a_copy() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=1)
    first, second = ids_of(client, 2)
    kind = stage.define(client)
    stage.submit(client, kind, [first])
    stage.submit(client, kind, [second], deps=(first, ids_of(client, 9)[8]))
    stage.submit(client, kind, ids_of(client, 9)[8:])
    stage.turn()
    stage.done(node, value_done(stage.assigned(node)[0], b"v" * 33))
    stage.turn()
    ask(stage, client)
    tell(stage, node)
    tell(stage, client, row_of(first, 33, refs=0), objects=1, size_bytes=33)
    (row,) = answer(stage, client)["objects"]
    assert [(one["role"], one["copy_bytes"]) for one in row["held_by"]] == [("scheduler", 33)]

"""Who is there, what each may say, and a task's plain way."""

import pytest
from drumbeat.protocol.ids import PeerId, objects_of
from drumbeat.protocol.messages import (
    Assign,
    Beat,
    Define,
    Discard,
    Done,
    DoneRow,
    Enter,
    Environment,
    Failure,
    Forget,
    Join,
    KindRow,
    Leave,
    Options,
    Outcome,
    Output,
    OutputRow,
    Prepare,
    Results,
    Shapes,
    Submit,
    TakenBack,
    TaskRow,
    ValueRow,
    Values,
)
from drumbeat.scheduler import events
from support.scheduling import Stage, error_done, ids_of, value_done


def test_a_task_goes_to_a_node_and_its_value_to_the_submitter() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    stage.submit(client, stage.define(client), ids_of(client, 1), args=b"args")
    stage.turn()
    (row,) = stage.assigned(node)
    assert (row.id, row.attempt, row.args) == (ids_of(client, 1)[0], 1, b"args")
    assert row.expected_s == -1
    stage.finish(node, [row])
    stage.turn()
    assert stage.results(client) == {row.id: ValueRow(row.id, Outcome.VALUE, b"v")}
    assert stage.at_rest()
    assert stage.core.counters["finished"] == 1


def test_a_node_is_told_of_a_client_and_a_kind_before_the_first_task_and_once() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    kind = stage.define(client)
    first, second = ids_of(client, 2)
    stage.submit(client, kind, [first])
    stage.turn()
    prepare, assign = stage.mail[node]
    assert isinstance(prepare, Prepare)
    assert isinstance(assign, Assign)
    assert prepare.clients[0].client == client
    assert prepare.clients[0].environment.directory == "/home"
    assert prepare.kinds[0].payload == b"code"
    assert prepare.kinds[0].number == assign.rows[0].kind
    stage.submit(client, kind, [second])
    stage.turn()
    assert len(stage.take(node, Prepare)) == 1


def test_one_function_with_two_options_is_sent_once() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=4)
    for number, options in ((1, Options()), (2, Options(priority=1))):
        row = KindRow(number, b"f" * 16, "f", options, b"code" if number == 1 else None)
        stage.say(client, Define(client, [row]))
        stage.submit(client, number, [ids_of(client, 2)[number - 1]])
    stage.turn()
    (prepare,) = stage.take(node, Prepare)
    assert sorted(kind.payload or b"" for kind in prepare.kinds) == [b"", b"code"]


def test_one_turn_sends_one_message_a_peer_and_kind() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=8)
    kind = stage.define(client)
    for id_ in ids_of(client, 6):
        stage.submit(client, kind, [id_])
    stage.turn()
    (assign,) = stage.take(node, Assign)
    for row in assign.rows:
        stage.finish(node, [row])
    stage.turn()
    (results,) = stage.take(client, Results)
    assert len(results.rows) == 6


def test_events_alone_send_nothing() -> None:
    stage = Stage()
    client = stage.client()
    stage.node()
    stage.submit(client, stage.define(client), ids_of(client, 1))
    assert not any(stage.mail.values())


def test_submitting_an_id_again_is_a_no_op() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=4)
    kind = stage.define(client)
    ids = ids_of(client, 2)
    stage.submit(client, kind, [ids[0], ids[0]])
    stage.submit(client, kind, ids)
    stage.turn()
    assert sorted(row.id for row in stage.assigned(node)) == ids
    assert stage.core.counters["submitted"] == 2


def test_a_task_without_values_yields_one_row_with_its_own_id() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    (id_,) = ids_of(client, 1)
    stage.submit(client, stage.define(client, num_returns=0), [id_])
    stage.turn()
    (row,) = stage.assigned(node)
    stage.done(node, DoneRow(row.id, 1, (), 0.1))
    stage.turn()
    assert stage.results(client) == {id_: ValueRow(id_, Outcome.VALUE)}


def test_a_task_with_several_values_yields_a_row_for_each() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    (id_,) = ids_of(client, 1)
    stage.submit(client, stage.define(client, num_returns=2), [id_])
    stage.turn()
    (row,) = stage.assigned(node)
    values = tuple(ValueRow(object_id, 0, b"v") for object_id in objects_of(id_, 2))
    stage.done(node, DoneRow(row.id, 1, values, 0.1))
    stage.turn()
    assert list(stage.results(client)) == objects_of(id_, 2)


def test_a_users_error_is_final() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    (row,) = stage.assigned(node)
    stage.done(node, error_done(row))
    stage.turn()
    assert stage.results(client)[row.id].outcome == Outcome.ERROR
    assert stage.core.counters["failed"] == 1
    assert stage.at_rest()


# ------------------------------------------------------------------------------- who may say what


@pytest.mark.parametrize(
    "message",
    [
        Join("n", "host", 1, {}),
        Done([]),
        Beat(0, 0, 0, []),
        TakenBack([]),
        Output(b"cccccc", []),
        Results([]),
        Enter("again", Environment()),
        Submit(b"other!", b"", 0, []),
        Define(b"other!", []),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_client_that_says_what_it_may_not_is_dropped(message: object) -> None:
    stage = Stage()
    client = stage.client()
    stage.say(client, message)
    (drop,) = stage.drops
    assert (drop.peer, drop.error) == (client, "RemoteProtocolError")
    assert stage.turn().core.registered()["peers"] == 0


@pytest.mark.parametrize(
    "message",
    [Enter("n", Environment()), Join("n", "host", 1, {}), Assign([])],
    ids=lambda message: type(message).__name__,
)
def test_a_node_that_says_what_it_may_not_is_dropped(message: object) -> None:
    stage = Stage()
    node = stage.node()
    stage.say(node, message)
    assert [drop.peer for drop in stage.drops] == [node]


@pytest.mark.parametrize("role", ["client", "node"])
def test_nobody_speaks_before_introducing_himself(role: str) -> None:
    stage = Stage()
    peer = PeerId(b"pppppp")
    stage.hello(peer, role)
    stage.say(peer, Forget([]))
    assert "introduced" in stage.drops[0].reason


def test_a_task_of_a_kind_never_defined_drops_the_peer_and_nobody_elses_work() -> None:
    stage = Stage()
    bad, good, node = stage.client("b"), stage.client("g"), stage.node()
    stage.submit(good, stage.define(good), ids_of(good, 1))
    stage.submit(bad, 99, ids_of(bad, 1))
    assert "never defined" in stage.drops[0].reason
    stage.turn()
    assert len(stage.assigned(node)) == 1


def test_a_task_under_anothers_id_drops_the_peer() -> None:
    stage = Stage()
    bad, good = stage.client("b"), stage.client("g")
    stage.submit(bad, stage.define(bad), ids_of(good, 1))
    assert [drop.peer for drop in stage.drops] == [bad]
    stage.turn()


def test_a_number_is_given_to_one_kind_only() -> None:
    stage = Stage()
    client = stage.client()
    row = KindRow(1, b"f" * 16, "f", Options(), b"code")
    stage.say(client, Define(client, [row]))
    stage.say(client, Define(client, [row]))
    assert len(stage.drops) == 1


def test_a_function_that_was_never_sent_drops_the_peer() -> None:
    stage = Stage()
    client = stage.client()
    stage.say(client, Define(client, [KindRow(1, b"f" * 16, "f", Options())]))
    assert "without its code" in stage.drops[0].reason


@pytest.mark.parametrize(
    "values",
    [
        (),
        (ValueRow(b"x" * 14, 0, b"v"),),
        (ValueRow(b"x" * 14, 1, b"v"),),
        (ValueRow(b"x" * 14, 0, b"v"), ValueRow(b"y" * 14, 0, b"v")),
    ],
)
def test_values_that_are_not_the_tasks_drop_the_node_and_the_task_runs_elsewhere(
    values: tuple[ValueRow, ...],
) -> None:
    stage = Stage()
    client, node = stage.client(), stage.node("n")
    stage.submit(client, stage.define(client), ids_of(client, 2))
    stage.turn()
    rows = stage.assigned(node)
    stage.done(node, value_done(rows[0]), DoneRow(rows[1].id, 1, values, 0.1))
    assert [drop.peer for drop in stage.drops] == [node]
    other = stage.node("m")
    stage.turn()
    assert list(stage.results(client)) == [rows[0].id], "what was right before it counts"
    stage.live(0.3)
    assert [row.id for row in stage.assigned(other)] == [rows[1].id]


def test_whoever_is_unknown_is_not_listened_to() -> None:
    stage = Stage()
    stage.say(PeerId(b"nobody"), Leave())
    stage.event(events.BlobReceived(PeerId(b"nobody"), bytes(14), b""))
    stage.event(events.PeerReturned(PeerId(b"nobody")))
    stage.event(events.PeerDisconnected(PeerId(b"nobody")))
    stage.event(events.PeerHeard([PeerId(b"nobody")]))
    stage.turn()
    assert stage.core.counters["stale_dropped"] == 2
    assert not stage.drops


def test_another_python_is_refused_in_plain_words() -> None:
    stage = Stage()
    stage.node()
    for peer, role in ((b"mmmmmm", "node"), (b"cccccc", "client")):
        stage.hello(PeerId(peer), role, "lab", python="3.13")
        assert stage.drops[-1].error == "VersionMismatch"
        assert "this process runs Python 3.13" in stage.drops[-1].reason
    assert len(stage.drops) == 2
    stage.turn()


def test_a_program_of_another_python_keeps_no_node_away_and_goes_when_one_joins() -> None:
    stage = Stage()
    program = stage.client()
    node = PeerId(b"nnnnnn")
    stage.hello(node, "node", "lab", python="3.13")
    stage.turn()
    assert not stage.drops
    stage.say(node, Join("lab", "host", 1, {"CPU": 1.0}))
    (drop,) = stage.drops
    assert (drop.peer, drop.error) == (program, "VersionMismatch")
    assert "this process runs Python 3.11 and node 'lab' Python 3.13" in drop.reason
    stage.turn()
    assert stage.core.registered()["nodes"] == stage.core.registered()["peers"] == 1


# ----------------------------------------------------------------------------------- coming, going


def test_clients_are_told_of_the_nodes_whenever_they_change() -> None:
    stage = Stage()
    client = stage.client()
    stage.turn()
    assert [shapes.rows for shapes in stage.take(client, Shapes)] == [[]]
    node = stage.node(cpus=3, GPU=1)
    stage.turn()
    (shapes,) = stage.take(client, Shapes)
    assert shapes.rows[0].resources == {"CPU": 3.0, "GPU": 1}
    assert shapes.rows[0].id == node
    stage.turn()
    assert not stage.take(client, Shapes)
    stage.say(node, Leave())
    stage.turn()
    assert stage.take(client, Shapes)[0].rows == []


def test_a_client_that_leaves_takes_everything_with_it() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    kind = stage.define(client)
    stage.submit(client, kind, ids_of(client, 5))
    stage.submit(client, kind, ids_of(client, 6)[5:], deps=(ids_of(client, 1)[0],))
    stage.turn()
    assert len(stage.assigned(node)) == 2
    stage.say(client, Leave())
    stage.turn()
    assert stage.drops == [events.Drop(client)]
    assert stage.take(node, Discard)[0].clients == [client]
    assert stage.at_rest()
    assert stage.core.registered() == {
        "peers": 1, "nodes": 1, "watched": 1, "strangers": 0, "kinds": 0, "functions": 0,
        "shapes": 0, "actors_known": 0, "graves": 0, "stopped_unnamed": 0,
    }  # fmt: skip


def test_what_a_node_says_of_a_client_that_left_is_stale() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    rows = stage.assigned(node)
    stage.say(client, Leave())
    stage.finish(node, rows)
    stage.turn()
    assert stage.core.counters["stale_dropped"] == 1
    assert not stage.results(client)


def test_a_client_that_comes_anew_starts_from_nothing() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    stage.client()
    stage.kind_numbers.clear()
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.mail[node].clear()
    stage.turn()
    discard, prepare, assign = stage.mail[node]
    assert isinstance(discard, Discard)
    assert discard.clients == [client]
    assert isinstance(prepare, Prepare)
    assert isinstance(assign, Assign)


def test_a_kind_nobody_uses_is_discarded_at_the_nodes() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    kind = stage.define(client)
    stage.submit(client, kind, ids_of(client, 1))
    stage.turn()
    (row,) = stage.assigned(node)
    stage.say(client, Forget([kind]))
    stage.turn()
    assert not stage.take(node, Discard), "its task still runs"
    stage.finish(node, [row])
    stage.turn()
    assert stage.take(node, Discard)[0].kinds == [row.kind]
    assert stage.core.registered()["functions"] == 0


def test_output_is_forwarded_to_its_client_and_to_nobody_else() -> None:
    stage = Stage()
    client, other, node = stage.client(), stage.client("o"), stage.node()
    output = Output(client, [OutputRow("work", 41, "n", b"hello\n")])
    stage.say(node, output)
    stage.say(node, Output(b"nobody", []))
    stage.turn()
    assert stage.take(client, Output) == [output]
    assert not stage.take(other, Output)
    assert not stage.drops


def test_a_daemon_in_its_next_life_replaces_the_one_before() -> None:
    stage = Stage()
    client, old = stage.client(), stage.node("a", name="lab")
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    assert len(stage.assigned(old)) == 1
    new = stage.node("b", name="lab")
    stage.live(0.3)
    assert [drop.peer for drop in stage.drops] == [old]
    (row,) = stage.assigned(new)
    assert row.attempt == 2


def namesake(stage: Stage, letter: str = "b", keeper: str = "another keeper") -> PeerId:
    """Let another machine's node join as "lab", from a host that is called the same."""
    other = PeerId(letter.encode() * 6)
    stage.hello(other, "node", "lab")
    stage.say(other, Join("lab", "host", 1, {"CPU": 1.0}, keeper=keeper))
    stage.turn()
    return other


@pytest.mark.parametrize("keeper", ["another keeper", ""])
def test_a_node_of_another_keeper_is_put_off_by_a_healthy_one_of_its_name(keeper: str) -> None:
    stage = Stage()
    stage.node("a", name="lab")
    other = namesake(stage, keeper=keeper)
    (drop,) = stage.drops
    assert (drop.peer, drop.error) == (other, "ConfigError")
    assert drop.reason == (
        "there is a node named 'lab' already, on host 'host' (pid 1), and nothing is wrong with"
        " it; give this one another name, or end that one"
    )
    assert stage.core.registered()["nodes"] == 1


@pytest.mark.parametrize("trouble", ["silent", "disconnected"])
def test_it_takes_the_place_of_one_that_is_not_heard_of(trouble: str) -> None:
    stage = Stage()
    old = stage.node("a", name="lab")
    if trouble == "disconnected":
        stage.event(events.PeerDisconnected(old))
    else:
        stage.live(4.0, 0.25, old)
    namesake(stage)
    assert [drop.peer for drop in stage.drops] == [old]
    assert stage.core.registered()["nodes"] == 1


def test_a_scheduler_that_may_be_cut_off_says_so_and_gives_up_nobody() -> None:
    stage = Stage()
    nodes = [stage.node(letter) for letter in "abcd"]
    stage.live(20.0, 0.5, *nodes[1:])
    assert not stage.drops
    assert any("this scheduler may be cut off itself" in text for _, text in stage.core.story)
    stage.live(6.0, 0.5, *nodes[1:])
    assert sorted(drop.peer for drop in stage.drops) == nodes[1:]


def test_a_failure_row_is_told_as_it_is() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    stage.submit(client, stage.define(client, num_returns=3), ids_of(client, 1))
    stage.turn()
    (row,) = stage.assigned(node)
    failure = Failure("NotPicklable", "the result cannot be sent", {"path": "result"})
    value = ValueRow(row.id, Outcome.FAILURE, failure=failure)
    stage.done(node, DoneRow(row.id, 1, (value,), 0.1))
    stage.turn()
    assert stage.results(client) == {row.id: value}


def test_values_of_others_drop_the_peer() -> None:
    stage = Stage()
    client, other = stage.client("a"), stage.client("b")
    stage.say(client, Values([ValueRow(ids_of(other, 1)[0], 0, b"v")]))
    assert [drop.peer for drop in stage.drops] == [client]


def test_a_turn_never_needs_to_be_called_for_nothing() -> None:
    stage = Stage()
    assert stage.core.deadline_s() is None
    client = stage.client()
    stage.turn()
    due_s = stage.core.deadline_s()
    assert due_s is not None
    assert due_s >= stage.now_s + 600
    assert TaskRow(ids_of(client, 1)[0], 0).deps == ()

"""Actors that hold what tasks lack: told of, since they may do so for ever."""

from drumbeat.protocol.actors import ActorOptions
from drumbeat.protocol.ids import show
from drumbeat.protocol.messages import Notice
from support.acting import Acting
from support.scheduling import ids_of


def test_actors_that_hold_all_cpus_are_named_to_whoever_waits_for_one() -> None:
    stage = Acting()
    node = stage.node(cpus=2)
    actors = [stage.create(num_cpus=1, name=name, namespace="~") for name in ("first", "")]
    stage.turn()
    stage.up(node, *stage.assigned(node))
    stage.submit(stage.caller, stage.define(stage.caller), ids_of(stage.caller, 3, worker=7))
    stage.live(9.0)
    assert not stage.take(stage.caller, Notice)
    stage.live(2.5)
    (notice,) = stage.take(stage.caller, Notice)
    first, second = map(show, actors)
    assert notice.text == (
        "3 tasks wait for a node with CPU 1 to spare, and actors hold that for as long as they "
        f"live: n has CPU 2, of which Counter 'first' {first} holds CPU 1, Counter {second} holds "
        "CPU 1. End some (drumbeat.kill, or `drumbeat kill ID`), create them with smaller num_cpus "
        "(0 is the default of actors), or add a node"
    )
    stage.live(60.0)
    assert not stage.take(stage.caller, Notice)  # once
    assert stage.ask(stage.caller, "status")["cannot_run"] == [notice.text]
    (waiting, *_) = stage.ask(stage.caller, "tasks", match="work")
    assert waiting["waits_for"].startswith(
        "CPU 1, which actors hold: n has CPU 2, of which Counter"
    )
    assert any(
        event["text"] == notice.text[:399] + "…" or event["text"] == notice.text
        for event in stage.ask(stage.caller, "events", match="notice")["events"]
    )


def test_they_are_told_of_again_once_there_was_room_in_between() -> None:
    stage = Acting()
    node = stage.node(cpus=1)
    creation = stage.started(stage.create(num_cpus=1), node)
    stage.submit(stage.caller, stage.define(stage.caller), ids_of(stage.caller, 1, worker=7))
    stage.live(12.0)
    assert len(stage.take(stage.caller, Notice)) == 1
    stage.process_ends(node, creation)
    stage.live(3.0)
    assert [row.id for row in stage.assigned(node)] == ids_of(stage.caller, 1, worker=7)
    assert "cannot_run" not in stage.ask(stage.caller, "status")


def test_tasks_that_hold_all_cpus_are_no_reason_to_complain() -> None:
    stage = Acting()
    node = stage.node(cpus=2)
    stage.started(stage.create(num_cpus=1), node)
    stage.submit(stage.caller, stage.define(stage.caller), ids_of(stage.caller, 3, worker=7))
    stage.live(60.0)
    assert not stage.take(stage.caller, Notice)
    assert "cannot_run" not in stage.ask(stage.caller, "status")


def test_another_node_that_has_room_when_its_tasks_end_is_one_to_wait_for() -> None:
    stage = Acting()
    full = stage.node("f", cpus=1)
    stage.started(stage.create(num_cpus=1), full)
    stage.node("o", cpus=1)
    stage.submit(stage.caller, stage.define(stage.caller), ids_of(stage.caller, 2, worker=7))
    stage.live(60.0)
    assert not stage.take(stage.caller, Notice)


def test_an_actor_that_waits_in_get_lends_its_cpu_and_holds_nothing() -> None:
    stage = Acting()
    node = stage.node(cpus=1)
    creation = stage.started(stage.create(num_cpus=1), node)
    stage.blocked(node, creation)
    kind = stage.define(stage.caller)
    ids = ids_of(stage.caller, 2, worker=7)
    stage.submit(stage.caller, kind, ids)
    stage.live(60.0)
    assert not stage.take(stage.caller, Notice)


def test_what_actors_keep_from_other_actors_is_told_as_well() -> None:
    stage = Acting()
    node = stage.node(cpus=4, GPU=1)
    kind = stage.define(
        stage.caller, name="Net", num_cpus=0.0, num_gpus=1.0,
        creates=ActorOptions(),
    )  # fmt: skip
    one, other = stage.name(stage.caller), stage.name(stage.caller)
    stage.submit(stage.caller, kind, [one])
    stage.started(one, node)
    stage.submit(stage.caller, kind, [other])
    stage.live(12.5)
    (notice,) = stage.take(stage.caller, Notice)
    assert notice.text.startswith("1 actor waits for a node with GPU 1 to spare, and actors hold")
    assert f"Net {show(one)} holds GPU 1" in notice.text


def test_a_node_that_has_as_many_actors_as_it_may_is_named_with_the_setting() -> None:
    stage = Acting(actors_max=1)
    node = stage.node(cpus=4)
    stage.started(stage.create(), node)
    stage.create()
    stage.live(12.5)
    (notice,) = stage.take(stage.caller, Notice)
    assert notice.text.startswith("1 actor waits for a node to spare")
    assert "n has 1 actors (actors_max)" in notice.text

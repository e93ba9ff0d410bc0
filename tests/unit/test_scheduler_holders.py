"""Who holds what, counted by deliveries."""

from random import Random

from drumbeat.protocol.ids import IdFactory, ObjectId, PeerId
from drumbeat.protocol.messages import Done, DoneRow, Results, Shared, ValueRow
from drumbeat.protocol.recovery import HandedOver
from drumbeat.scheduler import events
from drumbeat.scheduler.holders import Holders
from support.scheduling import Stage, ids_of, value_done

HOME, A, B = PeerId(b"hhhhhh"), PeerId(b"aaaaaa"), PeerId(b"bbbbbb")
X = ObjectId(IdFactory(HOME)())


def test_the_first_delivery_makes_an_object_shared_and_later_ones_do_not() -> None:
    holders = Holders()
    assert holders.deliver(X, A)
    assert not holders.deliver(X, A)
    assert not holders.deliver(X, B)
    assert holders.holders_of(X) == {A: 2, B: 1}


def test_an_object_ceases_to_be_shared_when_all_deliveries_are_given_back() -> None:
    holders = Holders()
    for peer in (A, A, B):
        holders.deliver(X, peer)
    assert not holders.release(X, A, 2)
    assert holders.release(X, B, 1)
    assert len(holders) == 0
    holders.check_invariants()


def test_a_delivery_that_was_under_way_keeps_the_holder() -> None:
    holders = Holders()
    holders.deliver(X, A)
    holders.deliver(X, A)
    assert not holders.release(X, A, 1)
    assert holders.holders_of(X) == {A: 1}


def test_giving_back_what_was_never_held_changes_nothing() -> None:
    holders = Holders()
    assert not holders.release(X, A, 1)
    holders.deliver(X, A)
    assert not holders.release(X, B, 5)
    assert holders.holders_of(X) == {A: 1}


def test_giving_back_too_much_counts_as_all() -> None:
    holders = Holders()
    holders.deliver(X, A)
    assert holders.release(X, A, 99)


def test_a_peer_that_goes_holds_nothing_any_more() -> None:
    holders = Holders()
    holders.deliver(X, A)
    holders.deliver(X, B)
    assert holders.forget_peer(A) == []
    assert holders.forget_peer(B) == [X]
    assert not any(holders.sizes().values())


def test_what_a_home_kept_goes_with_it() -> None:
    holders = Holders()
    holders.deliver(X, A)
    holders.deliver(X, HOME)
    assert holders.forget_peer(HOME) == []
    assert not any(holders.sizes().values())
    assert not holders.release(X, A, 1)


def test_the_indexes_agree_whatever_happens() -> None:
    rng = Random(3)
    peers = [HOME, A, B]
    objects = [ObjectId(IdFactory(peer, n)()) for peer in peers for n in range(3)]
    holders = Holders()
    for _ in range(3_000):
        object_id, peer = rng.choice(objects), rng.choice(peers)
        match rng.randrange(8):
            case 0 | 1 | 2 | 3:
                holders.deliver(object_id, peer)
            case 4 | 5 | 6:
                holders.release(object_id, peer, rng.randrange(1, 4))
            case _ if rng.random() < 0.1:
                holders.forget_peer(peer)
        holders.check_invariants()
    for peer in peers:
        holders.forget_peer(peer)
    assert not any(holders.sizes().values())


# ------------------------------------------------------------------------------------- holders


def test_refs_inside_a_value_are_shared_before_the_result_and_handed_over_after() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    (row,) = stage.assigned(node)
    inner = ids_of(node, 1, worker=1)[0]
    stage.mail[node].clear()
    stage.say(node, Done([value_done(row, contained=(inner,))], 1))
    commands = stage.core.turn(stage.now_s)
    sent = [one for one in commands if isinstance(one, events.Send)]
    assert [(one.peer, type(one.message)) for one in sent] == [(node, Shared), (client, Results)]
    assert sent[0].message == Shared([inner])
    assert sent[1].message.rows[0].contained == (inner,)
    (mark,) = (one for one in commands if isinstance(one, events.Mark))
    stage.event(events.Reached(client, [mark.mark]))
    stage.turn(0.1)
    assert stage.take(node, HandedOver) == [HandedOver([1])]


def test_refs_inside_a_stale_value_are_handed_over_too() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    (id_,) = ids_of(client, 1)
    inner = ids_of(node, 1, worker=1)[0]
    row = DoneRow(id_, 1, (ValueRow(id_, 0, b"v", 0, (inner,)),), 0.1)
    stage.say(node, Done([row], 1))
    stage.turn()
    stage.turn(0.1)
    assert stage.take(node, HandedOver) == [HandedOver([1])]
    assert not stage.take(node, Shared)


def test_refs_inside_arguments_are_shared_when_assigned() -> None:
    stage = Stage()
    client, _ = stage.client(), stage.node()
    inner, task = ids_of(client, 2)
    stage.submit(client, stage.define(client), [task], args=b"a", contained=(inner,))
    stage.turn()
    assert not stage.core.check_invariants()
    assert stage.take(client, Shared)[0].ids == [inner]
    assert stage.core.at_rest()["holders"] == 1

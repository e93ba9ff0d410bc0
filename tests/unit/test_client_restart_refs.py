"""The client core over a restart of the scheduler: refs held here, values held by others."""

from drumbeat.client.events import (
    Awaited,
    Connected,
    Disconnected,
    Put,
    Received,
    RefsChanged,
    SendBlob,
)
from drumbeat.protocol.ids import ObjectId
from drumbeat.protocol.messages import (
    Fetch,
    Outcome,
    Release,
    Results,
    Shared,
    Submit,
    Unshared,
    ValueRow,
    Values,
    Wanted,
)
from drumbeat.protocol.recovery import Holding, Recovered
from support.client_bench import (
    LARGE,
    Client,
    foreign,
    foreign_ids,
    freed,
    received_with,
    resolved,
    sent,
    value,
)


def test_refs_that_were_delivered_are_told_with_their_deliveries() -> None:
    client = Client()
    one, two, released = foreign(1), foreign(2), foreign(3)
    received_with(client, one, two)
    received_with(client, two)
    last = received_with(client, released)
    assert sent(client.drop(last), Release) == [Release([(released, 1)])]
    assert sent(client.connect(2), Holding) == [Holding([(one, 1), (two, 2)])]


def test_a_release_after_the_restart_counts_the_deliveries_of_all_lives() -> None:
    client = Client()
    ref = foreign()
    first = received_with(client, ref)
    client.connect(2)
    second = received_with(client, ref)
    assert not sent(client.drop(first))
    assert sent(client.drop(second), Release) == [Release([(ref, 2)])]


def test_a_release_that_was_about_to_be_sent_is_void() -> None:
    client = Client()
    task = received_with(client, foreign())
    commands = client.do(RefsChanged([(ObjectId(task), -1)]), Disconnected(), Connected(2, False))
    assert not sent(commands, Release)
    assert not sent(commands, Holding)


def test_many_refs_are_told_in_pieces() -> None:
    client = Client()
    received_with(client, *foreign_ids(4_099))
    assert [len(one.rows) for one in sent(client.connect(2), Holding)] == [4_096, 3]


def test_a_put_that_others_hold_stays_until_all_are_back() -> None:
    client = Client()
    kept, lost = client.put(), client.put()
    client.do(Received(Shared([kept, lost])))
    client.drop(kept, lost)
    assert not freed(client.connect(2))
    client.do(Received(Shared([kept])))
    assert freed(client.do(Received(Recovered()))) == [lost]
    assert freed(client.do(Received(Unshared([kept])))) == [kept]
    assert client.at_rest()


def test_a_holder_that_came_back_and_went_does_not_speak_for_those_who_come_yet() -> None:
    client = Client()
    id_ = client.put()
    client.do(Received(Shared([id_])))
    client.drop(id_)
    client.connect(2)
    client.do(Received(Shared([id_])))
    assert not freed(client.do(Received(Unshared([id_]))))
    client.do(Received(Shared([id_])))
    assert not freed(client.do(Received(Recovered())))
    assert freed(client.do(Received(Unshared([id_])))) == [id_]


def test_shared_puts_stay_over_several_restarts() -> None:
    client = Client()
    id_ = client.put()
    client.do(Received(Shared([id_])))
    client.drop(id_)
    client.connect(2)
    client.do(Received(Shared([id_])))
    assert not freed(client.connect(3))
    assert freed(client.do(Received(Recovered()))) == [id_]


def test_after_a_loss_nobody_is_waited_for() -> None:
    client = Client()
    id_ = client.put()
    client.do(Received(Shared([id_])))
    client.drop(id_)
    client.connect(2)
    assert freed(client.connect(2)) == [id_]
    client.do(Received(Recovered()))
    assert client.at_rest()


def test_what_somebody_waited_for_is_sent_when_the_next_scheduler_asks() -> None:
    client = Client()
    task = client.submit()
    client.do(Received(Wanted([task])))
    client.connect(2)
    assert not sent(client.result(value(task)), Values)
    assert sent(client.do(Received(Wanted([task]))), Values) == [Values([value(task)])]


def test_an_answer_that_was_about_to_be_sent_is_void() -> None:
    client = Client()
    id_ = client.put(LARGE)
    commands = client.do(Received(Wanted([id_])), Disconnected(), Connected(2, False))
    assert not sent(commands, Values)
    assert not [one for one in commands if isinstance(one, SendBlob)]


def test_a_large_value_that_was_cut_off_is_fetched_again() -> None:
    client = Client()
    other = foreign()
    client.do(RefsChanged([(other, 1)]), Awaited([other]))
    row = ValueRow(other, Outcome.VALUE, None, len(LARGE))
    client.do(Received(Values([row])))
    assert sent(client.connect(2), Fetch) == [Fetch([other])]
    assert not resolved(client.do(Received(Values([row]))))


def test_values_that_came_in_the_turn_of_the_restart_are_kept() -> None:
    client = Client()
    task = client.submit()
    commands = client.do(Received(Results([value(task)])), Disconnected(), Connected(2, False))
    assert [row.id for row in resolved(commands)] == [task]
    assert not sent(commands, Submit)


def test_what_is_put_during_the_recovery_is_shared_and_unshared_as_ever() -> None:
    client = Client()
    client.connect(2)
    id_ = client.put()
    client.do(Put([]), Received(Shared([id_])))
    client.drop(id_)
    assert freed(client.do(Received(Unshared([id_])))) == [id_]

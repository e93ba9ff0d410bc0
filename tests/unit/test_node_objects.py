"""The node as home and holder: what is kept, for how long, and what the scheduler is told."""

import pytest
from drumbeat.node.attempts import Crew, Waiter, Worker, WorkerKey
from drumbeat.node.objects import Call, Objects
from drumbeat.node.puts import COUNTED_BYTES_MIN
from drumbeat.protocol.ids import IdFactory, ObjectId, PeerId, TaskId, objects_of
from drumbeat.protocol.messages import Failure, Outcome, TaskRow, ValueRow
from drumbeat.protocol.payload_files import Filing
from drumbeat.protocol.segments import are_to_be_had
from drumbeat.protocol.stowage import Fullness

NODE, CLIENT = PeerId(b"node01"), PeerId(b"client")


class Home:
    """Objects with one worker and ids of both kinds."""

    def __init__(self):
        self.objects = Objects(NODE, small_value_bytes=10)
        self.worker = Worker(1, 1, Crew(WorkerKey(CLIENT, (), "", 1.0, "")), 0.0)
        self.mine, self.foreign = IdFactory(NODE, 1), IdFactory(CLIENT)

    def submit(self, returns=1, pins=()):
        task = self.mine()
        row = TaskRow(task, 1)
        call = Call(CLIENT, returns, tuple(pins), max(1, returns), row, b"", 1, 1)
        self.objects.submit(task, call, self.worker)
        return task

    def put(self, payload=b"value", contained=()):
        id_ = self.mine()
        self.objects.put(value(id_, payload, contained), self.worker)
        return id_

    def drop(self, *ids):
        self.objects.drop(self.worker, ids)
        return self.sweep()

    def sweep(self):
        released = self.objects.sweep()
        holds = dict.fromkeys(self.worker.holds, 1)
        self.objects.check_invariants(holds)
        return released

    def wait(self, *ids, count=None, values=True):
        waiter = Waiter(1, 1, 1, ids, count or len(ids), values, None)
        self.objects.wait(waiter)
        return waiter


def value(id_, payload=b"value", contained=()):
    return ValueRow(id_, Outcome.VALUE, payload, contained=tuple(contained))


def failed(id_):
    return ValueRow(id_, Outcome.FAILURE, failure=Failure("TaskCancelled", "gone"))


@pytest.fixture
def home():
    return Home()


def test_a_put_lives_as_long_as_a_worker_holds_it(home):
    id_ = home.put()
    assert home.sweep() == []
    assert id_ in home.objects.entries
    assert home.drop(id_) == []
    assert not home.objects.entries


def test_holding_twice_is_holding_once(home):
    id_ = home.put()
    home.objects.hold(home.worker, [id_])
    home.drop(id_)
    assert not home.objects.entries


def test_a_worker_that_ends_holds_nothing(home):
    home.put()
    home.submit()
    home.objects.worker_gone(home.worker)
    home.sweep()
    assert list(home.objects.entries) == list(home.objects.calls), "the call is still to come home"


def test_a_result_nobody_holds_any_more_is_freed_when_it_comes(home):
    task = home.submit()
    home.drop(task)
    assert task in home.objects.entries
    home.objects.result(value(task))
    home.sweep()
    assert not home.objects.entries
    assert not home.objects.calls


def test_a_call_pins_what_it_uses_until_its_result_is_here(home):
    id_ = home.put()
    task = home.submit(pins=[id_])
    home.drop(id_)
    assert id_ in home.objects.entries
    home.objects.result(value(task))
    home.sweep()
    assert id_ not in home.objects.entries
    assert task in home.objects.entries


def test_a_call_with_several_values_pins_until_the_last_one_is_here(home):
    id_ = home.put()
    task = home.submit(returns=2, pins=[id_])
    home.drop(id_)
    first, second = objects_of(task, 2)
    home.objects.result(value(first))
    home.sweep()
    assert id_ in home.objects.entries
    home.objects.result(value(second))
    home.sweep()
    assert id_ not in home.objects.entries
    assert not home.objects.calls


def test_a_failed_task_fails_all_its_objects(home):
    task = home.submit(returns=3)
    home.objects.result(failed(task))
    rows = [home.objects.entries[id_].row for id_ in objects_of(task, 3)]
    assert [row.id for row in rows] == objects_of(task, 3)
    assert all(row.failure.error == "TaskCancelled" for row in rows)
    assert not home.objects.calls


def test_a_task_without_values_only_ends(home):
    id_ = home.put()
    task = home.submit(returns=0, pins=[id_])
    home.drop(id_)
    home.objects.result(value(task, None))
    home.sweep()
    assert not home.objects.entries
    assert not home.objects.calls


def test_a_result_of_nobody_is_ignored(home):
    home.objects.result(value(home.mine()))
    home.sweep()
    assert not home.objects.entries


def test_a_second_result_changes_nothing(home):
    task = home.submit()
    home.objects.result(value(task, b"first"))
    home.objects.result(value(task, b"second"))
    assert home.objects.entries[task].row.payload == b"first"


def test_what_others_hold_is_kept_though_nobody_here_does(home):
    id_ = home.put()
    home.objects.share([id_])
    home.drop(id_)
    assert id_ in home.objects.entries
    home.objects.unshare([id_])
    home.sweep()
    assert not home.objects.entries


def test_what_lies_inside_a_kept_value_is_kept_however_deep(home):
    inner = home.put()
    middle = home.put(contained=[inner])
    outer = home.put(contained=[middle])
    home.drop(inner, middle)
    assert set(home.objects.entries) == {inner, middle, outer}
    home.drop(outer)
    assert not home.objects.entries


def test_deliveries_are_released_in_one_number_when_nobody_here_needs_them(home):
    id_ = home.foreign()
    home.objects.deliver([id_])
    outer = home.put(contained=[id_])
    home.objects.deliver([id_])
    home.objects.hold(home.worker, [id_])
    assert home.sweep() == []
    assert home.drop(outer) == []
    assert home.drop(id_) == [(id_, 2)]
    assert not home.objects.entries


def test_a_ref_handed_from_owner_to_owner_within_a_turn_is_not_released(home):
    id_ = home.foreign()
    home.objects.deliver([id_])
    home.objects.pin([id_])
    home.objects.unpin([id_])
    home.objects.hold(home.worker, [id_])
    assert home.sweep() == []


def test_the_home_releases_its_own_deliveries_and_frees_only_when_unshared(home):
    id_ = home.put()
    home.objects.share([id_])
    home.objects.deliver([id_])
    assert home.drop(id_) == [(id_, 1)]
    assert id_ in home.objects.entries
    home.objects.unshare([id_])
    home.sweep()
    assert not home.objects.entries


def test_a_foreign_ref_that_was_never_delivered_is_forgotten_in_silence(home):
    id_ = home.foreign()
    home.objects.hold(home.worker, [id_])
    assert home.drop(id_) == []
    assert not home.objects.entries


def test_a_delivered_ref_inside_a_result_nobody_wants_is_released(home):
    inner, task = home.foreign(), home.submit()
    home.drop(task)
    home.objects.deliver([inner])
    home.objects.result(value(task, contained=[inner]))
    assert home.sweep() == [(inner, 1)]
    assert not home.objects.entries


def test_a_wanted_value_is_sent_at_once_or_when_it_comes(home):
    id_, task = home.put(), home.submit()
    home.objects.want([id_, task])
    assert [row.id for row in home.objects.values] == [id_]
    home.drop(task)
    assert task in home.objects.entries, "somebody wants it"
    home.objects.result(value(task))
    assert [row.id for row in home.objects.values] == [id_, task]
    home.sweep()
    assert task not in home.objects.entries


def test_wanting_what_is_gone_is_answered_with_its_loss(home):
    gone = home.mine()
    home.objects.want([gone])
    (row,) = home.objects.values
    assert (row.id, row.outcome, row.failure.error) == (gone, Outcome.FAILURE, "ObjectLost")
    assert not home.objects.entries


def test_a_get_of_what_is_here_is_over_at_once(home):
    id_ = home.put()
    waiter = home.wait(id_)
    assert home.objects.satisfied == [waiter]
    assert [row.payload for row in home.objects.rows_for(waiter)] == [b"value"]
    home.objects.leave(waiter)


def test_a_get_keeps_the_order_asked_for(home):
    tasks = [home.submit() for _ in range(3)]
    waiter = home.wait(*tasks)
    for task in reversed(tasks):
        assert not waiter.over
        home.objects.result(value(task))
    assert waiter.over
    assert [row.id for row in home.objects.rows_for(waiter)] == tasks


def test_a_get_ends_with_the_first_failure(home):
    first, second, third = (home.submit() for _ in range(3))
    waiter = home.wait(first, second, third)
    home.objects.result(value(first))
    home.objects.result(failed(second))
    assert waiter.over
    assert [row.id for row in home.objects.rows_for(waiter)] == [first, second]
    home.objects.result(value(third))
    assert home.objects.satisfied == [waiter], "told once"


def test_a_wait_ends_with_enough_ready_failed_ones_too_and_gets_no_payloads(home):
    tasks = [home.submit() for _ in range(3)]
    waiter = home.wait(*tasks, count=2, values=False)
    home.objects.result(failed(tasks[2]))
    assert not waiter.over
    home.objects.result(value(tasks[0]))
    assert waiter.over
    rows = home.objects.rows_for(waiter)
    assert [(row.id, row.payload) for row in rows] == [(tasks[0], None), (tasks[2], None)]


def test_what_is_waited_for_is_kept_until_it_is_answered(home):
    task = home.submit()
    waiter = home.wait(task)
    home.drop(task)
    home.objects.result(value(task))
    home.sweep()
    assert home.objects.rows_for(waiter)
    home.objects.leave(waiter)
    home.sweep()
    assert not home.objects.entries


def test_a_get_of_an_own_object_that_is_gone_raises(home):
    waiter = home.wait(home.mine())
    assert waiter.over
    assert home.objects.rows_for(waiter)[0].failure.error == "ObjectLost"
    home.objects.leave(waiter)
    home.sweep()
    assert not home.objects.entries


def test_a_foreign_object_is_fetched_once_for_all_who_wait(home):
    id_ = home.foreign()
    home.objects.deliver([id_])
    home.objects.hold(home.worker, [id_])
    waiters = [home.wait(id_), home.wait(id_)]
    assert home.objects.fetches == [id_]
    home.objects.value(value(id_))
    assert [waiter.over for waiter in waiters] == [True, True]
    for waiter in waiters:
        home.objects.leave(waiter)
    assert home.sweep() == []
    assert home.wait(id_).over, "it is here now"


def test_a_fetched_value_that_nobody_awaits_any_more_is_dropped_with_what_it_holds(home):
    id_, inner = home.foreign(), home.foreign()
    waiter = home.wait(id_)
    home.objects.leave(waiter)
    assert home.sweep() == []
    home.objects.deliver([inner])
    home.objects.value(value(id_, contained=[inner]))
    assert home.sweep() == [(inner, 1)]
    assert not home.objects.entries


def test_small_values_at_hand_go_along_and_large_ones_do_not(home):
    assert home.objects.known(home.put(b"small")).payload == b"small"
    assert home.objects.known(home.put(b"much too large")) is None
    assert home.objects.known(home.submit()) is None
    assert home.objects.known(home.foreign()) is None


def test_what_a_leaving_client_submitted_is_lost(home):
    task = home.submit(pins=[home.put()])
    home.objects.client_left(CLIENT)
    assert home.objects.entries[task].row.failure.error == "ObjectLost"
    home.objects.worker_gone(home.worker)
    home.sweep()
    assert not home.objects.entries
    assert not home.objects.calls


def test_a_new_life_of_the_link_forgets_everything(home):
    home.put()
    home.submit()
    home.wait(home.foreign())
    home.objects.clear()
    home.worker.holds = {}
    assert home.sweep() == []
    assert not home.objects.entries
    assert not home.objects.fetches


def test_ids_are_told_apart_by_their_home(home):
    mine, foreign = home.mine(), home.foreign()
    home.objects.hold(home.worker, [mine, foreign])
    assert home.objects.entries[ObjectId(TaskId(mine))].home
    assert not home.objects.entries[foreign].home


# ------------------------------------------------------------------------------- in memory and disk

FULL = Fullness(1500, 8000, 4000, "memory and disk are full; let go of references")
needs_files = pytest.mark.skipif(not are_to_be_had(), reason="no memory files that can be sealed")


def filed(size):
    return Filing(1)(b"x" * size, [])


@needs_files
def test_values_in_files_count_from_when_they_come_until_they_go():
    home = Home()
    put, result = home.put(filed(1000)), home.submit()
    home.objects.result(value(result, filed(1000)))
    home.put(b"small")
    assert [(id_, row.id) for id_, row in home.objects.filed] == [(put, put), (result, result)]
    home.objects.filed.clear()
    home.drop(put)
    home.objects.clear()
    assert home.objects.filed == [(put, None), (result, None)]


@needs_files
@pytest.mark.parametrize("comes", ["put", "result", "value"])
def test_a_value_for_which_memory_and_disk_have_no_room_is_refused_and_says_why(comes):
    home = Home()
    home.objects.has_room(FULL)
    kept = home.put(filed(1000))
    inside = home.mine()
    home.objects.hold(home.worker, (inside,))
    row = value(home.mine(), filed(1000), (inside,))
    if comes == "put":
        home.objects.put(row, home.worker)
    elif comes == "result":
        row.id = home.submit()
        home.objects.result(row)
    else:
        row.id = home.foreign()
        home.objects.hold(home.worker, (row.id,))
        home.objects.value(row)
    stands = home.objects.entries[row.id].row
    assert stands.failure.error == "StoreFull"
    assert "let go of references" in stands.failure.text
    assert [id_ for id_, _ in home.objects.filed] == [kept], "what is held stays"
    home.drop(row.id, inside, kept)
    assert not home.objects.entries
    home.objects.has_room(None)
    home.put(filed(5000))
    assert len(home.objects.filed) == 3


def test_what_a_worker_puts_is_summed_up_and_small_values_are_not():
    home = Home()
    home.put(b"small")
    assert not home.objects.brought
    for _ in range(2):
        home.put(bytes(COUNTED_BYTES_MIN))
    assert home.objects.brought == {1: 2 * COUNTED_BYTES_MIN}

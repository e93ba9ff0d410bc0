"""What a function says and asks while it runs: outside of any task, and with init(inline=True)."""

import math
import pickle

import drumbeat
import pytest
from drumbeat.client.inline import NODE_NAME, InlineSession
from drumbeat.protocol import inside
from drumbeat.protocol.ids import show
from drumbeat.protocol.limits import DETAILS_BYTES_MAX
from drumbeat.protocol.session import set_current


@pytest.fixture
def session():
    session = InlineSession()
    set_current(session)
    yield session
    session.close()
    set_current(None)


# ------------------------------------------------------------------------------ outside of a task


def test_outside_of_a_task_a_function_that_tells_its_progress_just_runs():
    drumbeat.progress(1)
    drumbeat.progress(1, 2, details="half")
    with drumbeat.shield():
        pass


def test_outside_of_a_task_there_is_no_current_call():
    with pytest.raises(RuntimeError, match=r"drumbeat\.current\(\) describes the task"):
        drumbeat.current()


@pytest.mark.parametrize("done", [-1, math.nan, math.inf, 10**400])
def test_what_is_done_is_a_finite_number_from_zero_up(done):
    with pytest.raises(ValueError, match="progress: done must be a number from 0 up"):
        drumbeat.progress(done)
    with pytest.raises(ValueError, match="progress: done"):
        drumbeat.progress(done, 9)


@pytest.mark.parametrize("total", [-1, math.nan, math.inf, 10**400])
def test_so_is_the_total(total):
    with pytest.raises(ValueError, match="progress: total must be a number from 0 up"):
        drumbeat.progress(1, total)


def test_what_is_no_number_is_refused():
    with pytest.raises(TypeError):
        drumbeat.progress("much")


# -------------------------------------------------------------------------------------- inline


def test_a_task_knows_who_it_is(session):
    @drumbeat.remote
    def me():
        return drumbeat.current()

    ref = me.remote()
    call = drumbeat.get(ref)
    assert call.name.endswith("me")
    assert (call.task_id, call.attempt, call.node) == (show(ref.id), 1, NODE_NAME)
    assert (call.actor_id, call.fence, call.last_details) == (None, 1, None)
    assert repr(call).startswith("CurrentCall(")
    assert call.task_id in repr(call)
    with pytest.raises(RuntimeError):
        drumbeat.current()


def test_a_task_inside_a_task_is_the_current_one_until_it_ends(session):
    name = drumbeat.remote(lambda: drumbeat.current().task_id).options(name="inner")

    @drumbeat.remote
    def outer():
        before = drumbeat.current().task_id
        inner = drumbeat.get(name.remote())
        return before, inner, drumbeat.current().task_id

    before, inner, after = drumbeat.get(outer.remote())
    assert before == after != inner


def test_what_a_call_told_last_reaches_its_next_attempt(session, tmp_path):
    @drumbeat.remote(retry_exceptions=True, max_retries=2)
    def resume(path):
        call = drumbeat.current()
        with open(path, "a") as file:
            file.write(f"{call.attempt} {call.fence} {call.last_details}\n")
        if call.attempt == 1:
            drumbeat.progress(1, 9, details="tile 1")
            drumbeat.progress(2, 9, details="tile 2")
            drumbeat.progress(3, 9)
        if call.attempt < 3:
            raise OSError

    drumbeat.get(resume.remote(tmp_path / "told"))
    told = (tmp_path / "told").read_text().splitlines()
    assert told == ["1 1 None", "2 2 tile 2", "3 3 tile 2"]


def test_calls_of_an_actor_know_it_and_its_life(session):
    @drumbeat.remote(max_restarts=1)
    class Store:
        def __init__(self):
            self.made = drumbeat.current()

        def lives(self):
            call = drumbeat.current()
            return (self.made.actor_id, self.made.fence), (call.actor_id, call.fence)

    store = Store.remote()
    one, same = drumbeat.get(store.lives.remote())
    assert one == same
    assert one[1] == 1
    drumbeat.kill(store, no_restart=False)
    other, same = drumbeat.get(store.lives.remote())
    assert other == same == (one[0], 2)


# -------------------------------------------------------------------------------------- details


def test_details_are_small():
    assert pickle.loads(inside.pack_details({"tile": 310})) == {"tile": 310}
    assert len(inside.pack_details(b"x" * (DETAILS_BYTES_MAX - 100))) <= DETAILS_BYTES_MAX
    with pytest.raises(ValueError, match="at most 4,096 are kept"):
        inside.pack_details(b"x" * DETAILS_BYTES_MAX)


def test_details_too_large_for_any_message_are_refused_alike(monkeypatch):
    monkeypatch.setattr("drumbeat.protocol.payload._bytes_max", 5000)
    with pytest.raises(ValueError, match="at most 4,096 are kept"):
        inside.pack_details(b"x" * 6000)


def test_no_reference_may_lie_in_details(session):
    with pytest.raises(TypeError, match="a reference lies in the details"):
        inside.pack_details([drumbeat.put(1)])


def test_details_that_cannot_be_pickled_are_named():
    with pytest.raises(drumbeat.NotPicklable, match="details"):
        inside.pack_details({"generator": (n for n in ())})

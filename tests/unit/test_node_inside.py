"""A worker's side of progress, details, shield and current: pages and packets, no processes."""

import math
import threading
from collections.abc import Iterator

import drumbeat
import pytest
from drumbeat.node import inside as inside_room
from drumbeat.node import line as line_room
from drumbeat.node.actor_host import ActorHost
from drumbeat.node.channel import channel_pair
from drumbeat.node.held import Held
from drumbeat.node.inside import WorkerInside
from drumbeat.node.line import Line
from drumbeat.node.loaded import LoadedKind
from drumbeat.node.packets import (
    Finished,
    FinishedRow,
    KindDefinition,
    Progressed,
    RunRow,
    ToDaemon,
)
from drumbeat.node.page import (
    INTERRUPT,
    PHASE,
    PICKLING,
    REASON,
    REASONS,
    RUNNING,
    RUNNING_CODE,
    WAITING,
    PulsePage,
)
from drumbeat.protocol.codec import decoder
from drumbeat.protocol.errors import Interrupted
from drumbeat.protocol.ids import show
from drumbeat.protocol.inside import pack_details, set_inside
from drumbeat.protocol.messages import Outcome, ValueRow

SLOT = 3
TASK = b"t" * 16
CREATION = b"a" * 16
_decode = decoder(ToDaemon)


class Session:
    """What a WorkerInside wants to know of a session."""

    row: RunRow | None = None


class Bench:
    """The parts of a worker that matter here, and the node's end of its line."""

    def __init__(self, clock: list[float], sockets: str) -> None:
        self.page = PulsePage()
        self.words = self.page.slot(SLOT)
        self.far, near = channel_pair(sockets)
        self.line = Line(near, self.words, Held())
        self.session = Session()
        self.host = ActorHost()
        self.kinds: dict[int, LoadedKind] = {}
        for number, name, creates in ((1, "resize", False), (2, "Store", True)):
            definition = KindDefinition(number, name, b"", 1, 3, creates)
            self.kinds[number] = LoadedKind(definition)
        self.inside = WorkerInside(
            self.line, self.words, self.session, self.host, self.kinds, "lab3"
        )  # type: ignore[arg-type]
        self.clock = clock

    def run(
        self, seq: int, kind: int = 1, *, attempt: int = 1, details: bytes | None = None
    ) -> None:
        row = RunRow(
            seq, CREATION if kind == 2 else TASK, attempt, kind, 0, None, (), None, details
        )
        self.session.row = row
        self.words[RUNNING], self.words[PHASE] = seq, RUNNING_CODE

    def interrupt(self, seq: int, reason: str = "cancelled") -> None:
        self.words[REASON] = REASONS.index(reason)
        self.words[INTERRUPT] = seq

    def signal(self) -> None:
        self.line.on_signal(10, None)

    def sent(self) -> list[object]:
        packets = []
        while (packet := self.far.receive(wait=False)) is not None:
            packets.append(_decode(packet.data))
        return packets

    def look(self) -> tuple[int, float, float]:
        seen = self.page.look(SLOT)
        return seen.progress, seen.done, seen.total

    def end(self, seq: int) -> None:
        self.words[RUNNING] = 0
        value = ValueRow(TASK, Outcome.VALUE, b"")
        self.line.outbox.append(FinishedRow(seq, (value,), 0.1))


@pytest.fixture(params=["seqpacket", "dgram"])
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    clock = [100.0]
    for room in (line_room, inside_room):
        monkeypatch.setattr(room, "perf_counter", lambda: clock[0])
    bench = Bench(clock, request.param)
    set_inside(bench.inside)
    yield bench
    set_inside(None)
    bench.line.close()
    bench.far.close()


# ------------------------------------------------------------------------------------- the page


def test_progress_is_written_into_the_page_and_nothing_is_sent(bench: Bench) -> None:
    bench.run(1)
    drumbeat.progress(3, 9)
    assert bench.look() == (1, 3.0, 9.0)
    drumbeat.progress(4.5)
    progress, done, total = bench.look()
    assert (progress, done) == (2, 4.5)
    assert math.isnan(total)
    bench.line.flush()
    assert bench.sent() == []


def test_what_an_earlier_row_said_is_not_said_of_the_next(bench: Bench) -> None:
    bench.run(1)
    drumbeat.progress(3, 9)
    bench.run(2)
    progress, done, total = bench.look()
    assert (progress, done) == (0, 0.0)
    assert math.isnan(total)
    drumbeat.progress(1, 2)
    assert bench.look() == (1, 1.0, 2.0), "it counts from one"


def test_what_is_no_number_leaves_the_page_as_it_was(bench: Bench) -> None:
    bench.run(1)
    drumbeat.progress(3, 9)
    with pytest.raises(ValueError, match="done"):
        drumbeat.progress(-1, 9)
    assert bench.look() == (1, 3.0, 9.0)


# -------------------------------------------------------------------------------------- details


def test_the_first_details_are_sent_at_once_and_later_ones_four_times_a_second(
    bench: Bench,
) -> None:
    bench.run(1)
    drumbeat.progress(1, details="a")
    assert bench.sent() == [Progressed(1, pack_details("a"))]
    drumbeat.progress(2, details="b")
    drumbeat.progress(3, details="c")
    bench.line.tell_details(wait=True)
    assert bench.sent() == [], "not yet"
    bench.clock[0] += 0.26
    bench.line.tell_details(wait=True)
    assert bench.sent() == [Progressed(1, pack_details("c"))], "the last one wins"
    bench.clock[0] += 0.26
    bench.line.tell_details(wait=True)
    assert bench.sent() == [], "once"


def test_details_go_before_the_result_of_their_row(bench: Bench) -> None:
    bench.run(1)
    drumbeat.progress(1, details="a")
    drumbeat.progress(2, details="b")
    bench.end(1)
    bench.run(2)
    drumbeat.progress(1, details="of another")
    bench.line.flush()
    first, second, third = bench.sent()
    assert (first, second) == (Progressed(1, pack_details("a")), Progressed(1, pack_details("b")))
    assert isinstance(third, Finished)
    assert bench.line.details == {2: pack_details("of another")}


def test_a_call_without_details_leaves_what_was_told_before(bench: Bench) -> None:
    bench.run(1)
    drumbeat.progress(1, details="a")
    drumbeat.progress(2, details="b")
    drumbeat.progress(3)
    assert bench.line.details == {1: pack_details("b")}


def test_where_the_node_does_not_read_progress_does_not_wait(bench: Bench) -> None:
    bench.run(1)
    number = 0
    while not bench.line.details:
        bench.clock[0] += 1.0
        number += 1
        drumbeat.progress(number, details=(number, "x" * 3000))
    assert len(bench.sent()) == number - 1
    bench.line.tell_details(wait=True)
    assert bench.sent() == [Progressed(1, pack_details((number, "x" * 3000)))]


def test_details_that_are_refused_are_not_told(bench: Bench) -> None:
    bench.run(1)
    with pytest.raises(ValueError, match="4,096"):
        drumbeat.progress(1, details="x" * 5000)
    assert bench.line.details == {}
    assert bench.look()[0] == 1, "that it goes on is seen all the same"


# ---------------------------------------------------------------------------- being interrupted


@pytest.mark.parametrize("reason", REASONS)
def test_progress_is_a_point_at_which_a_call_ends_and_says_why(bench: Bench, reason: str) -> None:
    bench.run(4)
    drumbeat.progress(1)
    bench.interrupt(4, reason)
    with pytest.raises(Interrupted) as caught:
        drumbeat.progress(2, details="the last")
    assert caught.value.reason == reason
    assert bench.sent() == [Progressed(4, pack_details("the last"))], "told before"
    drumbeat.progress(3)  # said once: what cleans up may call it, too


def test_not_for_another_row_nor_while_a_result_is_pickled(bench: Bench) -> None:
    bench.run(4)
    bench.interrupt(3)
    drumbeat.progress(1)
    bench.signal()
    bench.interrupt(4)
    for phase in (PICKLING, WAITING):
        bench.words[PHASE] = phase
        drumbeat.progress(2)
        bench.signal()


def test_nor_in_another_thread(bench: Bench) -> None:
    bench.run(4)
    bench.interrupt(4)
    thread = threading.Thread(target=drumbeat.progress, args=(7, 9))
    thread.start()
    thread.join()
    assert bench.look() == (1, 7.0, 9.0), "it counts"
    with pytest.raises(Interrupted):
        bench.signal()


def test_a_shield_holds_it_back_until_it_ends(bench: Bench) -> None:
    bench.run(4)
    steps = []
    with pytest.raises(Interrupted) as caught, drumbeat.shield():  # noqa: PT012
        with drumbeat.shield():
            bench.interrupt(4, "timed_out")
            bench.signal()
            drumbeat.progress(1)
            steps.append("inner")
        drumbeat.progress(2)
        steps.append("outer")
    assert steps == ["inner", "outer"]
    assert caught.value.reason == "timed_out"
    bench.signal()  # told once


def test_a_shield_that_nothing_came_into_ends_quietly(bench: Bench) -> None:
    bench.run(4)
    with drumbeat.shield():
        pass
    bench.interrupt(4)
    with pytest.raises(Interrupted):
        bench.signal()


def test_an_exception_in_a_shield_is_the_context_of_what_comes_after_it(bench: Bench) -> None:
    bench.run(4)
    with pytest.raises(Interrupted) as caught, drumbeat.shield():  # noqa: PT012
        bench.interrupt(4)
        raise KeyError("k")
    assert isinstance(caught.value.__context__, KeyError)


def test_a_shield_left_open_ends_with_its_row(bench: Bench) -> None:
    bench.run(4)
    left_open = drumbeat.shield()
    left_open.__enter__()
    bench.run(5)
    bench.interrupt(5)
    with pytest.raises(Interrupted):
        bench.signal()
    with drumbeat.shield():
        left_open.__exit__(None, None, None)
        bench.interrupt(5)
        bench.signal()
        bench.words[INTERRUPT] = 0


def test_a_shield_in_another_thread_shields_nobody(bench: Bench) -> None:
    bench.run(4)
    ready, over = threading.Event(), threading.Event()

    def shielded() -> None:
        with drumbeat.shield():
            ready.set()
            over.wait(10)

    thread = threading.Thread(target=shielded)
    thread.start()
    assert ready.wait(10)
    bench.interrupt(4)
    with pytest.raises(Interrupted):
        bench.signal()
    over.set()
    thread.join()


# ------------------------------------------------------------------------------------ who am I


def test_a_task_knows_its_attempt_and_what_the_one_before_told(bench: Bench) -> None:
    bench.run(1, attempt=2, details=pack_details({"tile": 310}))
    call = drumbeat.current()
    assert (call.name, call.task_id, call.attempt) == ("resize", show(TASK), 2)
    assert (call.node, call.actor_id, call.fence) == ("lab3", None, 2)
    assert call.last_details == {"tile": 310}
    bench.words[RUNNING] = 0
    with pytest.raises(RuntimeError):
        drumbeat.current()


def test_calls_of_an_actor_carry_the_number_of_its_life(bench: Bench) -> None:
    bench.run(1, kind=2, attempt=7)
    made = drumbeat.current()
    assert (made.name, made.actor_id, made.fence) == ("Store", show(CREATION), 7)
    bench.host.creation = bench.session.row
    bench.run(2, attempt=1)
    call = drumbeat.current()
    assert (call.task_id, call.attempt) == (show(TASK), 1)
    assert (call.actor_id, call.fence) == (show(CREATION), 7)
    bench.words[RUNNING] = 0
    assert drumbeat.current().task_id == show(CREATION), "a thread of the actor's own asks"

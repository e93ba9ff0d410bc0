"""The driver's session: any thread waits on the board, whoever waits turns the loop."""

import gc
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from drumbeat.client.board import AllWaiter, Board, SomeWaiter
from drumbeat.client.deferral import Deferral
from drumbeat.client.feasible import fits
from drumbeat.client.output import Printer
from drumbeat.client.session import ClusterSession
from drumbeat.protocol.errors import (
    GetTimeoutError,
    Infeasible,
    MessageTooLarge,
    NotInitialized,
    SchedulerUnreachable,
    VersionMismatch,
)
from drumbeat.protocol.ids import ObjectId, PeerId
from drumbeat.protocol.messages import (
    Answer,
    Cancel,
    Cancelled,
    Environment,
    Failure,
    Leave,
    Notice,
    Options,
    Outcome,
    OutputRow,
    Query,
    Results,
    Shape,
    Shapes,
    Submit,
    ValueRow,
)
from drumbeat.protocol.session import FunctionDefinition, Kind, Packed
from drumbeat.protocol.settings import Settings
from drumbeat.protocol.transport import Message
from support.fake_dial import FakeDial, echo, silent

PEER = PeerId(b"client")


class Made:
    def __init__(self, session: ClusterSession, dial: FakeDial) -> None:
        self.session = session
        self.dial = dial

    def submit(self, payload: bytes | None = b"v", kind: Kind | None = None) -> ObjectId:
        return self.session.submit(kind or a_kind(), Packed(payload))[0]


Make = Callable[..., Made]


def a_kind(**options: Any) -> Kind:
    return Kind(FunctionDefinition("work", b"h" * 16, b"code"), Options(**options), "work")


@pytest.fixture
def make() -> Iterator[Make]:
    with ExitStack() as stack:

        def make(answer: Callable[[Any], list[Any]] = echo, **settings: Any) -> Made:
            dial = FakeDial(answer)
            session = ClusterSession(
                "ipc:///none", Settings(**settings), "test", Environment(), PEER, lambda: dial
            )
            session.start()
            stack.callback(session.close)
            return Made(session, dial)

        yield make


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:  # noqa: BLE001  # handed to the test
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


# --------------------------------------------------------------------------------- get, wait, put


def test_get_returns_rows_in_order_with_duplicates(make: Make) -> None:
    made = make()
    first, second = made.submit(b"1"), made.submit(b"2")
    rows = made.session.get([second, first, second], 5)
    assert [row.payload for row in rows] == [b"2", b"1", b"2"]


def test_many_gets_in_a_row_are_served_by_the_waiting_thread_itself(make: Make) -> None:
    made = make()
    kind = a_kind()
    for number in range(300):
        payload = b"%d" % number
        assert made.session.get([made.submit(payload, kind)], 5)[0].payload == payload


def test_threads_that_get_at_the_same_time_all_get_theirs(make: Make) -> None:
    made = make()
    kind = a_kind()

    def work() -> list[bytes | None]:
        return [made.session.get([made.submit(b"x", kind)], 10)[0].payload for _ in range(100)]

    threads = [in_thread(work) for _ in range(4)]
    for thread, found in threads:
        thread.join(20)
        assert found == [[b"x"] * 100]


def test_get_gives_up_when_the_time_is_over(make: Make) -> None:
    made = make(silent)
    with pytest.raises(GetTimeoutError, match=r"1 of 1 values .* 0.01 s"):
        made.session.get([made.submit()], 0.01)


def test_get_ends_at_the_first_failure_without_waiting_for_the_rest(make: Make) -> None:
    def answer(message: Any) -> list[Any]:
        if not isinstance(message, Submit):
            return []
        failure = Failure("WorkerDied", "it died")
        rows = [row for row in message.rows if row.args == b"fail"]
        return [Results([ValueRow(r.id, Outcome.FAILURE, failure=failure) for r in rows])]

    made = make(answer)
    ids = [made.submit(b"wait"), made.submit(b"fail"), made.submit(b"wait")]
    assert made.session.get(ids, 5)[-1].id == ids[1]


def test_get_sees_a_failure_that_comes_while_it_starts_to_wait(make: Make) -> None:
    made = make(silent)
    ids = [made.submit(b"wait"), made.submit(b"fail")]
    board = made.session._board
    failed = ValueRow(ids[1], Outcome.FAILURE, failure=Failure("WorkerDied", "it died"))

    class Waiters(dict[Any, None]):
        def __setitem__(self, waiter: Any, _: None) -> None:
            board.resolve([failed])
            super().__setitem__(waiter, None)

    board.waiters = Waiters()
    assert made.session.get(ids, 5) == [failed]


def test_wait_counts_what_was_freed_as_soon_as_it_came(make: Make) -> None:
    made = make(silent)
    unknown = ObjectId(b"a value that nobody holds"[:14])
    assert made.session.wait([unknown], 1, 5) == {unknown}
    made.session.get([made.session.put(Packed(b"v"))], 5)
    assert made.session.peek(unknown) is None


def test_wait_returns_what_is_ready(make: Make) -> None:
    def answer(message: Any) -> list[Any]:
        if not isinstance(message, Submit):
            return []
        rows = [row for row in message.rows if row.args == b"quick"]
        return [Results([ValueRow(row.id, Outcome.VALUE, b"") for row in rows])]

    made = make(answer)
    slow, quick = made.submit(b"slow"), made.submit(b"quick")
    assert made.session.wait([slow, quick], 1, 5) == {quick}
    assert made.session.wait([slow, quick], 2, 0.01) == {quick}


def test_a_put_value_is_here_at_once_and_gone_when_its_ref_is(make: Make) -> None:
    made = make()
    id_ = made.session.put(Packed(b"v"))
    row = made.session.peek(id_)
    assert row is not None
    assert row.payload == b"v"
    made.session.drop(id_)
    made.session.get([made.submit()], 5)
    assert made.session.peek(id_) is None


def test_a_callback_is_called_once_whether_before_or_after(make: Make) -> None:
    made = make()
    id_ = made.submit()
    called: list[ValueRow] = []
    came = threading.Event()

    def callback(row: ValueRow) -> None:
        called.append(row)
        came.set()

    made.session.when_ready(id_, callback)
    assert came.wait(5)
    made.session.when_ready(id_, callback)
    assert [row.id for row in called] == [id_, id_]


# --------------------------------------------------------------------------------------- refusals


def test_what_no_node_could_run_is_refused_at_submit(make: Make) -> None:
    made = make()
    made.dial.happenings.append(Message(Shapes([Shape("lab1", b"node01", {"CPU": 2.0})])))
    made.session.get([made.submit()], 5)
    with pytest.raises(Infeasible, match=r"work asks for CPU 3.*lab1: CPU 2"):
        made.submit(kind=a_kind(num_cpus=3))
    made.submit(kind=a_kind(num_cpus=3, wait_for_nodes=True))


def test_labels_that_no_node_carries_are_refused_with_what_there_is(make: Make) -> None:
    made = make()
    shapes = [
        Shape(f"lab{number}", b"node%02d" % number, {"CPU": 2.0}, {"zone": "a"})
        for number in range(18)
    ]
    made.dial.happenings.append(Message(Shapes(shapes)))
    made.session.get([made.submit()], 5)
    asked = (("disk", ("ssd",)), ("zone", ("a", "b")))
    with pytest.raises(Infeasible) as caught:
        made.submit(kind=a_kind(node_labels=asked))
    text = str(caught.value)
    assert "work asks for CPU 1 on a node with disk=ssd, zone=a or b, which no node has" in text
    assert "(lab0: CPU 2, zone=a; lab1: CPU 2, zone=a; " in text
    assert "lab15: CPU 2, zone=a; and 2 more)" in text
    made.submit(kind=a_kind(node_labels=asked, wait_for_nodes=True))
    made.submit(kind=a_kind(node_labels=(("zone", ("a",)),)))


def test_a_kind_that_goes_leaves_nothing_behind(make: Make) -> None:
    made = make()
    made.dial.happenings.append(Message(Shapes([Shape("lab1", b"node01", {"CPU": 2.0})])))
    made.session.get([made.submit()], 5)
    kind = a_kind()
    made.session.get([made.submit(kind=kind)], 5)
    number = kind.number
    assert number in made.session._feasible
    del kind
    gc.collect()
    assert number not in made.session._feasible
    assert number not in made.session._kinds


@pytest.mark.parametrize(
    ("options", "does"),
    [
        ({}, True),
        ({"num_cpus": 2.0}, True),
        ({"num_cpus": 2.5}, False),
        ({"num_gpus": 1.0}, False),
        ({"resources": (("disk", 1.0),)}, True),
        ({"resources": (("disk", 2.0),)}, False),
        ({"node": "lab1"}, True),
        ({"node": b"node01".hex()}, True),
        ({"node": "lab2"}, False),
        ({"node_labels": (("zone", ("a", "b")),)}, True),
        ({"node_labels": (("disk", ("ssd",)), ("zone", ("a",)))}, False),
        ({"node_labels": (("zone", ("c",)),)}, False),
    ],
)
def test_a_task_fits_a_node_that_has_all_it_asks_for(options: dict[str, Any], does: bool) -> None:
    shape = Shape("lab1", b"node01", {"CPU": 2.0, "disk": 1.0}, {"zone": "b"})
    assert fits(Options(**options), shape) is does


def test_a_value_above_the_limit_is_refused_with_size_and_limit(make: Make) -> None:
    made = make(value_bytes_max=10)
    with pytest.raises(MessageTooLarge) as caught:
        made.session.put(Packed(b"12345678901"))
    assert (caught.value.size_bytes, caught.value.limit_bytes) == (11, 10)


def test_submit_blocks_at_the_limit_and_goes_on_when_there_is_room(make: Make) -> None:
    made = make(silent, submit_buffer_max=2)
    first = made.submit()
    made.submit()
    thread, found = in_thread(made.submit)
    thread.join(0.05)
    assert thread.is_alive()
    made.dial.happenings.append(echo_of(first))
    made.session.drop(first)
    made.session._service.wake()
    thread.join(5)
    assert len(found) == 1
    assert isinstance(found[0], bytes)


def echo_of(id_: ObjectId) -> Any:
    return Message(Results([ValueRow(id_, Outcome.VALUE, b"")]))


# ------------------------------------------------------------------------------- ends and failures


def test_shutdown_says_leave_and_wakes_whoever_waits(make: Make) -> None:
    made = make(silent)
    id_ = made.submit()
    thread, found = in_thread(lambda: made.session.get([id_], 30))
    thread.join(0.05)
    made.session.close()
    thread.join(5)
    assert isinstance(found[0], NotInitialized)
    assert isinstance(made.dial.sent[-1], Leave)
    assert made.dial.closed
    with pytest.raises(NotInitialized, match="shutdown"):
        made.submit()


def test_a_refused_link_is_an_error_for_whoever_waits(make: Make) -> None:
    made = make(silent)
    id_ = made.submit()
    made.dial.refuse("VersionMismatch", "Python 3.9 does not fit")
    with pytest.raises(VersionMismatch, match="does not fit"):
        made.session.get([id_], 5)


def test_a_failure_of_the_loop_fails_everything_with_its_cause(make: Make) -> None:
    def answer(message: Any) -> list[Any]:
        if isinstance(message, Submit):
            raise ZeroDivisionError("a bug")
        return []

    made = make(answer)
    rows: list[ValueRow] = []
    id_ = made.submit()
    made.session.when_ready(id_, rows.append)
    with pytest.raises(SchedulerUnreachable, match="ZeroDivisionError: a bug") as caught:
        made.session.get([id_], 5)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert [row.failure and row.failure.error for row in rows] == ["SchedulerUnreachable"]
    with pytest.raises(SchedulerUnreachable):
        made.submit()


def test_ctrl_c_in_get_is_prompt_and_the_session_goes_on(make: Make) -> None:
    held: list[Any] = []

    def answer(message: Any) -> list[Any]:
        if isinstance(message, Submit) and message.rows[0].args == b"wait":
            held.append(message)
            return []
        return echo(message)

    made = make(answer)
    kind = a_kind()
    for _ in range(3):
        made.session.get([made.submit(b"v", kind)], 5)
    id_ = made.submit(b"wait", kind)
    timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        made.session.get([id_], 5)
    timer.join()
    assert made.session.get([made.submit(b"v", kind)], 5)[0].payload == b"v"


def test_questions_and_cancels_are_answered(make: Make) -> None:
    def answer(message: Any) -> list[Any]:
        if isinstance(message, Query):
            return [Answer(message.request, {"what": message.what})]
        if isinstance(message, Cancel):
            return [Cancelled(message.request, [True for _ in message.ids])]
        return []

    made = make(answer)
    assert made.session.query("status") == {"what": "status"}
    assert made.session.cancel_queued([made.submit()]) == [True]


# ----------------------------------------------------------------------------- board and deferral


def row(number: int, outcome: Outcome = Outcome.VALUE) -> ValueRow:
    return ValueRow(b"%014d" % number, outcome, b"")


def test_a_waiter_for_all_is_woken_by_the_last_or_by_a_failure() -> None:
    board = Board()
    ids = [ObjectId(row(number).id) for number in range(3)]
    for rows, done in (([2], False), ([0], False), ([1], True)):
        waiter = AllWaiter(ids)
        board.waiters = {waiter: None}
        board.resolve([row(number) for number in rows])
        assert waiter.done is done
    failing = AllWaiter([ObjectId(row(8).id), ObjectId(row(9).id)])
    board.waiters = {failing: None}
    board.resolve([row(9, Outcome.ERROR)])
    assert failing.done
    assert failing.failure == row(9, Outcome.ERROR)


def test_a_waiter_for_some_counts_each_object_once() -> None:
    board = Board()
    ids = [ObjectId(row(number).id) for number in range(3)]
    waiter = SomeWaiter(ids, 2)
    board.waiters = {waiter: None}
    board.resolve([row(0)])
    board.resolve([row(0), row(7)])
    assert not waiter.done
    board.resolve([row(2)])
    assert waiter.done


def test_a_signal_is_held_back_and_then_given_to_its_handler() -> None:
    told: list[str] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: told.append("handled"))
    try:
        with Deferral(lambda: told.append("woken")):
            os.kill(os.getpid(), signal.SIGUSR1)
            assert told == ["woken"]
        assert told == ["woken", "handled"]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_ctrl_c_is_not_lost_when_it_comes_in_a_deferral() -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Deferral(lambda: None):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is handler


# ------------------------------------------------------------------------------------------ output


def test_output_is_whole_lines_with_task_process_and_node() -> None:
    printer = Printer()
    assert printer.take([OutputRow("resize", 41, "lab3", b"one\ntw")]) == (
        "(resize pid=41 node=lab3) one\n"
    )
    assert printer.take([OutputRow("resize", 41, "lab3", b"o\n")]) == (
        "(resize pid=41 node=lab3) two\n"
    )
    assert printer.rest() == ""


def test_output_cannot_move_the_cursor() -> None:
    text = Printer().take([OutputRow("f", 1, "n", b"\x1b[2J\ta\x07\n")])
    assert text == "(f pid=1 node=n) \\x1b[2J\ta\\x07\n"


def test_a_notice_is_a_warning_of_the_log(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    made = make()
    came = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            came.set()

    handler = Handler()
    logging.getLogger("drumbeat").addHandler(handler)
    try:
        made.dial.happenings.append(Message(Notice("no node")))
        made.session._service.wake()
        assert came.wait(5)
    finally:
        logging.getLogger("drumbeat").removeHandler(handler)

"""Why a scheduler cannot be reached is found out by trying, beside the loop."""

import socket
import time

import pytest
from drumbeat.protocol.clock import now_s
from drumbeat.protocol.dialer import Unreachable
from drumbeat.protocol.excuses import TELL_AFTER_S, Stage
from drumbeat.protocol.route import ANSWER_S, LOOK_AFTER_S, SILENCE_S, Route, find_out
from support.stalls import Watch

pytestmark = pytest.mark.integration


def test_a_port_where_nobody_listens_is_called_that() -> None:
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        finding = find_out("127.0.0.1", port, 1.0)
    assert finding.reason.startswith(f"nobody listens at 127.0.0.1:{port} (connection refused)")
    assert "That address is each machine itself" in finding.reason
    assert not finding.endpoint


def test_a_name_that_nobody_knows_is_called_that() -> None:
    reason = find_out("no-such-host.invalid", 7788, 1.0).reason
    assert reason.startswith("the name no-such-host.invalid cannot be resolved: ")


def test_a_name_that_cannot_be_one_is_no_reason_to_fail() -> None:
    assert "cannot be resolved" in find_out("a" * 70 + ".example", 7788, 1.0).reason


def test_silence_is_called_that() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        held = []
        try:
            # The kernel drops what comes to a full backlog.
            for _ in range(3):
                held.append(socket.socket())
                held[-1].setblocking(False)
                held[-1].connect_ex(("127.0.0.1", port))
            time.sleep(0.05)
            reason = find_out("127.0.0.1", port, 0.2).reason
        finally:
            for one in held:
                one.close()
    assert reason.startswith(f"no answer from 127.0.0.1:{port} within 0.2 s")


def test_where_somebody_listens_the_address_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert find_out("localhost", port, 1.0) == ("", f"tcp://127.0.0.1:{port}")


def test_the_question_is_put_in_a_thread_and_its_answer_used_when_it_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        route = Route(f"tcp://localhost:{port}", 1.0)
        watch = Watch()
        route.begun(now_s())
        route.failed(Stage.BEGUN, now_s())
        assert watch.own_s() < 0.2
        assert route.endpoint == f"tcp://localhost:{port}"
        deadline_s = time.monotonic() + 5.0
        while route.endpoint == f"tcp://localhost:{port}":
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
            route.failed(Stage.BEGUN, now_s())
        assert route.endpoint == f"tcp://127.0.0.1:{port}"
        assert route.excuses(now_s()) == []
        # If nobody is there any more, or another program is, the name is tried again.
        for stage in (Stage.BEGUN, Stage.STRANGER, Stage.HUNG_UP, Stage.KEY_REFUSED):
            route.endpoint = f"tcp://127.0.0.1:{port}"
            route.failed(stage, now_s())
            assert route.endpoint == f"tcp://localhost:{port}"


def test_a_connection_that_stood_and_ended_is_no_attempt_that_failed() -> None:
    route = Route("tcp://127.0.0.1:9", 1.0)
    route.begun(0.0)
    route.connected()
    route.failed(Stage.OPEN, 10.0)
    assert not route.failing
    assert not route.excuses(20.0)


def told_of(route: Route, begun_s: float) -> tuple[float, Unreachable]:
    """Turn as a loop does that comes round when it is told to and never else; return the word."""
    now_s = begun_s
    for _ in range(100):
        found = route.excuses(now_s)
        if found:
            return now_s, found[0]
        assert route.due_s < begun_s + 10.0, "nothing is awaited any more"
        now_s = max(now_s, route.due_s)
        if route._thread is not None:
            route._thread.join(5.0)
    raise AssertionError("it comes round for nothing")


def test_an_attempt_of_which_nothing_is_heard_is_explained_a_second_after_it_began() -> None:
    route = Route("tcp://no-such-host.invalid:7788", 2.0)
    route.begun(100.0)
    assert route.due_s == 100.0 + LOOK_AFTER_S
    when_s, told = told_of(route, 100.0)
    assert when_s == 100.0 + TELL_AFTER_S
    assert "cannot be resolved" in told.reason


def test_the_second_counts_from_the_first_attempt_and_not_from_its_failure() -> None:
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        route = Route(f"tcp://127.0.0.1:{bound.getsockname()[1]}", 2.0)
        route.begun(100.0)
        route.failed(Stage.HUNG_UP, 100.9)
        assert told_of(route, 100.9)[0] == 100.0 + TELL_AFTER_S


def test_who_has_waited_for_the_process_to_start_is_kept_waiting_less() -> None:
    route = Route("tcp://no-such-host.invalid:7788", 2.0, asked_s=96.0)
    route.begun(100.0)
    assert told_of(route, 100.0)[0] < 100.0 + LOOK_AFTER_S + 0.2
    # Once: a connection that is lost later is another matter.
    route.connected()
    route.begun(200.0)
    assert told_of(route, 200.0)[0] == 200.0 + TELL_AFTER_S


def test_a_machine_that_does_not_answer_is_called_that_before_it_is_called_a_riddle() -> None:
    assert LOOK_AFTER_S + ANSWER_S < SILENCE_S <= 2.0


def test_a_way_that_is_not_over_the_network_is_never_waited_for() -> None:
    route = Route("ipc:///tmp/nobody", 2.0)
    route.begun(100.0)
    assert not route.failing

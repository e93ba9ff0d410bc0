"""Why a scheduler cannot be reached is found out by trying, beside the loop."""

import socket
import time

import pytest
from drumbeat.protocol.clock import now_s
from drumbeat.protocol.excuses import Stage
from drumbeat.protocol.route import Route, find_out

pytestmark = pytest.mark.integration


def test_a_port_where_nobody_listens_is_called_that() -> None:
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        finding = find_out("127.0.0.1", port, 1.0)
    assert finding.reason.startswith(f"nobody listens at 127.0.0.1:{port} (connection refused)")
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
        began_s = time.monotonic()
        route.begun(now_s())
        route.failed(Stage.BEGUN, now_s())
        assert time.monotonic() - began_s < 0.2
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

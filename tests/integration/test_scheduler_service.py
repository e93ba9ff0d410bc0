"""The scheduler as a process: it listens, answers, and ends with its owner."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from drumbeat.protocol.clock import now_s
from drumbeat.protocol.frames import Role
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.messages import (
    Answer,
    Enter,
    Environment,
    Join,
    Query,
    Shapes,
    Submit,
)
from drumbeat.protocol.settings import Settings
from drumbeat.protocol.transport import DialShell, Message, Poller, Refused, Up

pytestmark = pytest.mark.integration


class Scheduler:
    """A scheduler process, and a client's link to it."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.owner_read, self.owner_write = os.pipe()
        ready_read, ready_write = os.pipe()
        self.process = subprocess.Popen(
            [
                sys.executable, "-P", "-m", "drumbeat.scheduler",
                "--directory", str(directory), "--state", str(directory / "state"),
                "--owner-fd", str(self.owner_read), "--ready-fd", str(ready_write),
                "--settings", json.dumps(settings),
            ],
            pass_fds=(self.owner_read, ready_write),
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        os.close(ready_write)
        with os.fdopen(ready_read) as ready:
            self.ready = ready.read()
        peer = PeerId(b"client")
        self.endpoint = endpoint = f"ipc://{directory}/scheduler.sock"
        self.shell = DialShell(endpoint, Role.CLIENT, peer, "me", Settings(), Random(1))
        self.poller = Poller()
        self.shell.attach(self.poller)

    def until(self, kind: type) -> Any:
        """Return the first happening, or message, of a kind."""
        end_s = now_s() + 10.0
        while now_s() < end_s:
            self.shell.flush(now_s())
            self.poller.wait(0.02)
            for happening in self.shell.turn(now_s()):
                found = happening.message if isinstance(happening, Message) else happening
                if isinstance(found, kind):
                    return found
        raise TimeoutError(f"no {kind.__name__} came")

    def close(self) -> None:
        self.shell.close()
        os.close(self.owner_read)
        os.close(self.owner_write)
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[Scheduler]:
    made = Scheduler(tmp_path)
    yield made
    made.close()


def test_it_says_when_it_listens_and_answers(scheduler: Scheduler) -> None:
    assert scheduler.ready == "ready\n"
    assert scheduler.until(Up).epoch == 1
    scheduler.shell.send(Enter("me", Environment()))
    assert scheduler.until(Shapes).rows == []
    scheduler.shell.send(Query(8, "status"))
    answer = scheduler.until(Answer)
    assert answer.request == 8
    assert answer.data["epoch"] == 1
    assert answer.data["clients"] == 1


def test_it_refuses_who_breaks_the_protocol_and_serves_on(scheduler: Scheduler) -> None:
    scheduler.until(Up)
    scheduler.shell.send(Submit(b"client", b"", 0, []))
    refused = scheduler.until(Refused)
    assert refused.error == "RemoteProtocolError"
    assert "introduced" in refused.reason
    assert scheduler.process.poll() is None


def test_it_ends_with_its_owner(scheduler: Scheduler) -> None:
    os.close(scheduler.owner_write)
    assert scheduler.process.wait(5) == 0
    scheduler.owner_write = os.dup(scheduler.owner_read)


def test_it_ends_when_it_is_told_to(scheduler: Scheduler) -> None:
    scheduler.process.send_signal(signal.SIGTERM)
    assert scheduler.process.wait(5) == 0


def test_each_life_has_an_epoch_of_its_own_and_waits_for_the_nodes_of_the_last(
    tmp_path: Path,
) -> None:
    first = Scheduler(tmp_path)
    first.until(Up)
    node = DialShell(first.endpoint, Role.NODE, PeerId(b"node01"), "lab1", Settings(), Random(2))
    node.attach(first.poller)
    ends_s = now_s() + 10.0
    joined = False
    while not (tmp_path / "state").read_text().count("lab1") and now_s() < ends_s:
        node.flush(now_s())
        first.poller.wait(0.02)
        if not joined and any(isinstance(happening, Up) for happening in node.turn(now_s())):
            node.send(Join("lab1", "host", 1, {"CPU": 1.0}))
            joined = True
    first.close()
    node.close()
    assert json.loads((tmp_path / "state").read_text()) == {
        "epoch": 1,
        "nodes": ["lab1"],
        "gone": [],
        "daemons": [b"node01".hex()],
        "closed": 0,
        "acting": [],
    }
    second = Scheduler(tmp_path)
    assert second.until(Up).epoch == 2
    second.shell.send(Enter("me", Environment()))
    second.shell.send(Query(1, "status"))
    status = second.until(Answer).data
    second.close()
    assert status["recovering"]
    assert status["waits_for"] == ["lab1"]


def test_its_epoch_is_written_down_before_anybody_can_reach_it(tmp_path: Path) -> None:
    (tmp_path / "scheduler.sock").mkdir()  # nothing can be bound there
    scheduler = subprocess.run(
        [sys.executable, "-P", "-m", "drumbeat.scheduler", "--directory", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert scheduler.returncode != 0
    state = json.loads((tmp_path / "scheduler.state").read_text())
    empty: dict[str, list[str]] = {"nodes": [], "gone": [], "daemons": [], "acting": []}
    assert state == {"epoch": 1, "closed": 0, **empty}


def test_a_broken_state_file_is_refused_in_plain_words(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_text('{"epoch": 7, "no')
    done = subprocess.run(
        [
            sys.executable, "-P", "-m", "drumbeat.scheduler",
            "--directory", str(tmp_path), "--state", str(state),
        ],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert str(state) in done.stderr
    assert "Traceback" not in done.stderr
    assert state.read_text() == '{"epoch": 7, "no'


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "drumbeat.scheduler",
            "--directory", str(tmp_path), "--settings", '{"window_s": -1}',
        ],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "window_s" in done.stderr

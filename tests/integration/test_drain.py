"""A node is drained: what it runs ends there, all else runs elsewhere, nothing is left."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drumbeat
import pytest
from drumbeat.client.local import Cluster
from support.process_table import alive, carrying, children_of, words_of
from support.stalls import Watch
from support.waiting import until

pytestmark = pytest.mark.integration

VARIABLE = "DRAIN_MARK"


class Log:
    """An append-only file with a line for each execution: what, on which node, when."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        path.touch()

    def write(self, *words: object) -> None:
        where = "extra" if os.environ.get(VARIABLE) else "first"
        line = " ".join(map(str, (where, time.monotonic(), *words)))
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, f"{line}\n".encode())
        finally:
            os.close(fd)

    def rows(self, *words: str) -> list[tuple[str, float, list[str]]]:
        """Return the lines that end so: the node, the time, the words."""
        lines = [line.split() for line in Path(self.path).read_text().splitlines()]
        found = [(line[0], float(line[1]), line[2:]) for line in lines]
        return [row for row in found if row[2][: len(words)] == list(words)]


class Extra:
    """A node that somebody has started by hand, beside those of the program's own cluster."""

    def __init__(self, cluster: Cluster, log: Path) -> None:
        self.address = cluster.address
        self.log = log
        self.mark = uuid.uuid4().hex
        self.process = self._started()

    def _started(self, **settings: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "drumbeat.node", "--directory", self.address]
        environ = {**os.environ, VARIABLE: self.mark, **settings}
        with self.log.open("ab") as file:
            return subprocess.Popen(
                [*command, "--name", "extra", "--num-cpus", "2"],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environ,
                start_new_session=True,
            )  # fmt: skip

    def start(self, **settings: str) -> None:
        self.process = self._started(**settings)

    def joined(self) -> None:
        until(lambda: row_of("extra") is not None)

    def term(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def daemon(self) -> int:
        (pid,) = (row["pid"] for row in drumbeat_nodes() if row["name"] == "extra")
        return int(pid)

    def ended(self, within_s: float = 20.0) -> int:
        """Wait for the end of the keeper; nothing of the node may be left. Return its code."""
        try:
            code = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it goes on: {row_of('extra')}; {self.said()}") from None
        until(lambda: not carrying(self.mark), 5.0)
        return code

    def said(self) -> str:
        return self.log.read_text()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in carrying(self.mark):
            os.kill(pid, signal.SIGKILL)


def drumbeat_nodes() -> list[dict[str, Any]]:
    from drumbeat.protocol.session import current

    session = current()
    assert session is not None
    rows: list[dict[str, Any]] = session.query("nodes")
    return rows


def row_of(name: str) -> dict[str, Any] | None:
    return next((row for row in drumbeat_nodes() if row["name"] == name), None)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log")


@pytest.fixture
def extra(root: str, tmp_path: Path) -> Iterator[Extra]:
    """A program's cluster of one CPU, and a further node of two."""
    cluster = drumbeat.init(num_cpus=1, runtime_directory=root, cancel_grace_s=1.0)
    one = Extra(cluster, tmp_path / "extra.log")
    try:
        one.joined()
        yield one
    finally:
        left = [words_of(pid) for pid in carrying(one.mark)] if one.process.poll() == 0 else []
        one.close()
    assert not left


@drumbeat.remote
def work(log: Log, number: int, seconds: float) -> int:
    log.write("began", number)
    time.sleep(seconds)
    return 3 * number


@drumbeat.remote
def slow_there(log: Log, seconds: float) -> str:
    """Take long on the further node, and no time elsewhere."""
    log.write("began")
    if os.environ.get(VARIABLE):
        try:
            time.sleep(seconds)
        except drumbeat.Interrupted as interrupted:
            log.write("interrupted", interrupted.reason)
            raise
        log.write("ended")
    return "there" if os.environ.get(VARIABLE) else "elsewhere"


@drumbeat.remote
def ends_when_told(log: Log) -> str:
    log.write("began")
    until(lambda: log.rows("go"), 60.0)
    return "there" if os.environ.get(VARIABLE) else "elsewhere"


@drumbeat.remote
def deaf_there(log: Log) -> str:
    log.write("began")
    if not os.environ.get(VARIABLE):
        return "elsewhere"
    end_s = time.monotonic() + 60.0
    while time.monotonic() < end_s:
        try:
            time.sleep(60.0)
        except drumbeat.Interrupted:
            log.write("deaf")
    return "there"


@drumbeat.remote
def asks_for_children(log: Log, count: int) -> int:
    log.write("parent")
    until(lambda: log.rows("go"))
    return sum(drumbeat.get([work.remote(log, number, 0.01) for number in range(count)]))


@drumbeat.remote
def keeps() -> list[Any]:
    return [drumbeat.put("kept")]


def began_there(log: Log) -> list[float]:
    return [at_s for node, at_s, _ in log.rows("began") if node == "extra"]


# ------------------------------------------------------------------------------------ TERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_mid_load_a_term_has_what_runs_end_and_the_rest_run_elsewhere(
    extra: Extra, log: Log, number: int
) -> None:
    # Both workers have loaded the code: what has begun there says so at once.
    drumbeat.get([work.options(node="extra").remote(log, -1, 0.5) for _ in range(2)], timeout=30)
    quick = work.options(max_retries=0)
    refs = [quick.remote(log, at, 0.03) for at in range(120)]
    until(lambda: len(began_there(log)) > 10)
    watch = Watch()
    extra.term(number)
    until(lambda: (row := row_of("extra")) is None or row["state"] == "draining")
    drained_s = time.monotonic()
    assert extra.ended() == 0
    late_s = drained_s + 0.1 + watch.stalled_s()
    assert drumbeat.get(refs, timeout=60) == [3 * at for at in range(120)]
    runs = Counter(row[2][1] for row in log.rows("began") if row[2][1] != "-1")
    assert len(runs) == 120
    assert set(runs.values()) == {1}
    late = [at_s - drained_s for at_s in began_there(log) if at_s > late_s]
    assert not late, "it began something though it was drained"


def test_what_runs_long_is_waited_for_and_nodes_says_so(extra: Extra, log: Log) -> None:
    ref = ends_when_told.options(node="extra", max_retries=0).remote(log)
    until(lambda: log.rows("began"))
    extra.term()
    shown = until(lambda: (row := row_of("extra")) and row["state"] == "draining" and row)
    assert shown["waits_for"] == ["1 task at it"]
    log.write("go")
    assert drumbeat.get(ref, timeout=30) == "there"
    assert extra.ended() == 0
    assert row_of("extra") is None


def test_a_second_term_interrupts_and_the_task_runs_elsewhere(extra: Extra, log: Log) -> None:
    (own,) = (row["name"] for row in drumbeat_nodes() if row["name"] != "extra")
    block = ends_when_told.options(node=own).remote(log)
    other = slow_there.options(node="extra", max_retries=0).remote(log, 60.0)
    until(lambda: len(log.rows("began")) == 2)
    ref = slow_there.options(max_retries=1).remote(log, 60.0)
    until(lambda: len(began_there(log)) == 2)
    extra.term()
    until(lambda: (row := row_of("extra")) and row["state"] == "draining")
    extra.term()
    assert extra.ended() == 0
    log.write("go")
    assert drumbeat.get([block, ref], timeout=30) == ["elsewhere", "elsewhere"]
    with pytest.raises(drumbeat.NodeLost, match="was drained"):
        drumbeat.get(other, timeout=30)
    assert [words[1] for _, _, words in log.rows("interrupted")] == ["drain", "drain"]


def test_a_third_term_kills(extra: Extra, log: Log) -> None:
    stuck = deaf_there.options(node="extra", max_retries=0).remote(log)
    until(lambda: log.rows("began"))
    # One CPU of two is free there: of these one runs beside it.
    refs = [deaf_there.options(max_retries=3).remote(log) for _ in range(2)]
    until(lambda: len(began_there(log)) == 2)
    extra.term()
    until(lambda: (row := row_of("extra")) and row["state"] == "draining")
    extra.term()
    until(lambda: log.rows("deaf"))
    extra.term()
    extra.ended(5.0)
    assert drumbeat.get(refs, timeout=60) == ["elsewhere", "elsewhere"]
    with pytest.raises(drumbeat.NodeLost):
        drumbeat.get(stuck, timeout=30)


def test_a_term_of_the_daemon_is_one_of_the_node(extra: Extra, log: Log) -> None:
    ref = ends_when_told.options(node="extra", max_retries=0).remote(log)
    until(lambda: log.rows("began"))
    os.kill(extra.daemon(), signal.SIGTERM)
    until(lambda: (row := row_of("extra")) and row["state"] == "draining")
    log.write("go")
    assert drumbeat.get(ref, timeout=30) == "there"
    assert extra.ended() == 0


def test_after_drain_timeout_s_what_runs_is_ended(extra: Extra, log: Log) -> None:
    extra.term()
    assert extra.ended() == 0
    extra.start(DRUMBEAT_DRAIN_TIMEOUT_S="1")
    extra.joined()
    ref = slow_there.options(node="extra", max_retries=0).remote(log, 60.0)
    until(lambda: log.rows("began"))
    extra.term()
    with pytest.raises(drumbeat.NodeLost, match="was drained"):
        drumbeat.get(ref, timeout=30)
    assert extra.ended() == 0


def test_one_that_is_started_again_takes_work(extra: Extra, log: Log) -> None:
    extra.term()
    assert extra.ended() == 0
    extra.start()
    extra.joined()
    assert drumbeat.get(work.options(node="extra").remote(log, 5, 0.0), timeout=30) == 15
    assert began_there(log)
    extra.term()
    assert extra.ended() == 0


# ------------------------------------------------------------------------- what it is waited for


def test_a_parent_gets_the_values_of_children_that_run_elsewhere(extra: Extra, log: Log) -> None:
    ref = asks_for_children.options(node="extra", max_retries=0).remote(log, 20)
    until(lambda: log.rows("parent"))
    extra.term()
    until(lambda: (row := row_of("extra")) and row["state"] == "draining")
    log.write("go")
    assert drumbeat.get(ref, timeout=30) == sum(3 * number for number in range(20))
    assert not began_there(log)
    assert extra.ended() == 0


def test_a_value_that_somebody_holds_is_kept_until_it_is_let_go(extra: Extra) -> None:
    held = drumbeat.get(keeps.options(node="extra").remote(), timeout=30)
    extra.term()
    shown = until(
        lambda: (
            (row := row_of("extra"))
            and any("1 value" in text for text in row.get("waits_for", ()))
            and row
        )
    )
    assert "client" in shown["waits_for"][0]
    assert drumbeat.get(held[0], timeout=30) == "kept"
    assert extra.process.poll() is None
    held.clear()
    assert extra.ended() == 0


def test_the_only_node_is_drained_and_work_waits_for_another(
    root: str, tmp_path: Path, log: Log
) -> None:
    cluster = drumbeat.init(
        num_cpus=1, resources={"lane": 1}, runtime_directory=root, infeasible_timeout_s=300
    )
    one = Extra(cluster, tmp_path / "extra.log")
    try:
        one.joined()
        (own,) = (row["name"] for row in drumbeat_nodes() if row["name"] != "extra")
        command(cluster, "drain", own, "--wait")
        ref = work.remote(log, 1, 0.0)
        assert drumbeat.get(ref, timeout=30) == 3
        one.term()
        assert one.ended() == 0
        waits = work.remote(log, 2, 0.0)
        with pytest.raises(drumbeat.GetTimeoutError):
            drumbeat.get(waits, timeout=1.0)
        one.start()
        assert drumbeat.get(waits, timeout=30) == 6
    finally:
        one.close()


# -------------------------------------------------------------------------------------- by command


def command(cluster: Cluster | str, *words: str) -> str:
    address = cluster if isinstance(cluster, str) else cluster.address
    done = subprocess.run(
        [sys.executable, "-m", "drumbeat.client.cli", *words, "--address", address],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_has_a_node_drained_and_waits_until_it_is_gone(extra: Extra, log: Log) -> None:
    ref = ends_when_told.options(node="extra", max_retries=0).remote(log)
    until(lambda: log.rows("began"))
    words = (sys.executable, "-m", "drumbeat.client.cli", "drain", "extra", "--wait")
    with subprocess.Popen(
        [*words, "--address", extra.address], stdout=subprocess.PIPE, text=True, bufsize=1
    ) as waiting:
        assert waiting.stdout is not None
        said = ""
        for line in waiting.stdout:
            said += line
            if "extra: waits for 1 task at it" in line:
                log.write("go")
    assert waiting.returncode == 0
    assert "extra: is being drained" in said
    assert "extra: waits for 1 task at it" in said
    assert "extra: gone" in said
    assert drumbeat.get(ref, timeout=30) == "there"
    assert extra.ended() == 0


def test_the_command_may_have_it_hurry(extra: Extra, log: Log) -> None:
    ref = slow_there.options(node="extra", max_retries=0).remote(log, 60.0)
    until(lambda: log.rows("began"))
    command(extra.address, "drain", "extra", "--cancel", "--wait")
    with pytest.raises(drumbeat.NodeLost, match="was drained"):
        drumbeat.get(ref, timeout=30)
    assert extra.ended() == 0


# ------------------------------------------------------------------------------------ what may die


def test_a_daemon_that_dies_while_it_is_drained_has_no_successor(extra: Extra, log: Log) -> None:
    ref = slow_there.options(node="extra", max_retries=0).remote(log, 60.0)
    until(lambda: log.rows("began"))
    extra.term()
    until(lambda: (row := row_of("extra")) and row["state"] == "draining")
    os.kill(extra.daemon(), signal.SIGKILL)
    assert extra.ended() == 0
    with pytest.raises(drumbeat.NodeLost):
        drumbeat.get(ref, timeout=30)
    assert "none takes its place" in extra.said()


def test_the_same_holds_when_the_scheduler_had_it_drained(extra: Extra, log: Log) -> None:
    ref = slow_there.options(node="extra", max_retries=0).remote(log, 60.0)
    until(lambda: log.rows("began"))
    command(extra.address, "drain", "extra")
    os.kill(extra.daemon(), signal.SIGKILL)
    assert extra.ended() == 0
    with pytest.raises(drumbeat.NodeLost):
        drumbeat.get(ref, timeout=30)


def test_a_scheduler_that_comes_back_gives_it_nothing(extra: Extra, log: Log) -> None:
    long = ends_when_told.options(node="extra", max_retries=0).remote(log)
    until(lambda: log.rows("began"))
    extra.term()
    until(lambda: (row := row_of("extra")) and row["state"] == "draining")
    refs = [work.options(max_retries=0).remote(log, at, 0.02) for at in range(30)]
    cluster = drumbeat.init.__globals__["_cluster"]
    os.kill(cluster.processes["scheduler"], signal.SIGKILL)
    assert drumbeat.get(refs, timeout=60) == [3 * at for at in range(30)]
    log.write("go")
    assert drumbeat.get(long, timeout=60) == "there"
    assert extra.ended() == 0
    assert len(began_there(log)) == 1
    assert len(log.rows("began")) == 31


def test_workers_and_what_they_started_are_gone_with_it(extra: Extra, log: Log) -> None:
    ref = ends_when_told.options(node="extra", max_retries=0).remote(log)
    until(lambda: log.rows("began"))
    family = children_of(extra.process.pid)
    extra.term()
    log.write("go")
    assert drumbeat.get(ref, timeout=30) == "there"
    assert extra.ended() == 0
    assert not [pid for pid in family if alive(pid)]


@drumbeat.remote
class Tally:
    def __init__(self) -> None:
        self.count = 0

    def add(self, seconds: float = 0.0, log: Log | None = None) -> int:
        if log is not None:
            log.write("adds")
        time.sleep(seconds)
        self.count += 1
        return self.count

    def is_there(self) -> bool:
        return bool(os.environ.get(VARIABLE))


def tally_there(number: int = 4) -> tuple[Any, list[Any]]:
    """Make actors on both nodes; return one on the further node, and all others."""
    tallies = [Tally.remote() for _ in range(number)]
    there = drumbeat.get([tally.is_there.remote() for tally in tallies], timeout=20)
    assert any(there)
    one = tallies.pop(there.index(True))
    return one, tallies


def test_actors_of_a_drained_node_end_what_they_run_and_begin_anew_elsewhere_uncharged(
    extra: Extra, log: Log
) -> None:
    tally, _others = tally_there()
    running = tally.add.remote(1.0, log)
    waiting = [tally.add.remote(0.0) for _ in range(5)]
    until(lambda: log.rows("adds"))
    extra.term()
    assert drumbeat.get(running, timeout=20) == 1
    assert drumbeat.get(waiting, timeout=20) == [1, 2, 3, 4, 5]
    assert not drumbeat.get(tally.is_there.remote(), timeout=10)
    assert extra.ended() == 0


def test_drained_in_a_hurry_a_running_call_is_lost_and_its_actor_begins_anew(
    extra: Extra, log: Log
) -> None:
    tally, _others = tally_there()
    running, waiting = tally.add.remote(60.0, log), tally.add.remote(0.0)
    until(lambda: log.rows("adds"))
    extra.term()
    until(lambda: (row := row_of("extra")) and row["state"] == "draining")
    extra.term()
    with pytest.raises(drumbeat.ActorCallLost):
        drumbeat.get(running, timeout=20)
    assert drumbeat.get(waiting, timeout=20) == 1
    assert extra.ended() == 0

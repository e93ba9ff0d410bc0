"""`drumbeat events`, `kill`, and `top` without a terminal: typed in, and what comes out."""

import json
from typing import Any

import pytest
from drumbeat.client import cli_commands, cli_events
from drumbeat.protocol.ids import ObjectId, parse
from drumbeat.protocol.questions import Query
from support.typist import Typist

ACTORS = [
    {"id": "5f0c2b9a11d4-0-7", "name": "Counter", "named": "totals", "state": "alive"},
    {"id": "5f0c2b9a11d4-0-71", "name": "Counter", "named": "", "state": "restarting"},
    {"id": "5f0c2b9a11d4-0-8", "name": "Gone", "named": "", "state": "dead"},
]


def event(number: int, **more: Any) -> dict[str, Any]:
    return {
        "number": number, "time_s": 1_795_403_497.289, "severity": "info", "kind": "node joined",
        "node": "lab1", "id": "", "text": f"node 'lab{number}' joined", **more,
    }  # fmt: skip


class FakeSession:
    """Answers as a scheduler whose events are given."""

    def __init__(self) -> None:
        self.events = [event(1), event(2, severity="warning", text="evil\x1b[2J")]
        #: rows in one answer, at most
        self.rows_max = 1_000
        self.epoch = 1
        self.asked: list[Query] = []
        self.killed: list[tuple[ObjectId, bool]] = []

    def answer_to(self, message: Query) -> Any:
        self.asked.append(message)
        limit = min(message.limit, self.rows_max)
        last = self.events[-1]["number"] if self.events else 0
        first = self.events[0]["number"] if self.events else last + 1
        if message.since:
            rows = [row for row in self.events if row["number"] >= message.since][:limit]
            last = rows[-1]["number"] if len(rows) == limit else last
        else:
            rows = self.events[-limit:]
        return {"epoch": self.epoch, "first": first, "last": last, "events": rows, "time_s": 1.0}

    def query(self, what: str, limit: int = 100, match: str = "") -> Any:
        if what == "actors":
            keys = ("id", "name", "named")
            return [row for row in ACTORS if any(row[key].startswith(match) for key in keys)]
        return {}

    def kill(self, id_: ObjectId, *, restart: bool) -> None:
        self.killed.append((id_, restart))


Terminal = Typist[FakeSession]


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys, FakeSession())


def test_each_event_is_a_line_that_cannot_steer_the_terminal(terminal: Terminal) -> None:
    code, out, _ = terminal.type("events")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].endswith("info     node joined     node 'lab1' joined")
    assert lines[1].endswith(r"evil\x1b[2J")
    assert "\x1b" not in out


def test_events_in_json_have_the_documented_fields_and_a_time_in_utc(terminal: Terminal) -> None:
    _, out, _ = terminal.type("events --json")
    first = json.loads(out)[0]
    assert list(first) == [
        "number", "time", "time_s", "severity", "kind", "node", "id", "text",
    ]  # fmt: skip
    assert first["time"] == "2026-11-23T03:11:37.289Z"


def test_what_is_asked_for_is_limit_and_match(terminal: Terminal) -> None:
    terminal.type("events warn --limit 7")
    (query,) = terminal.session.asked
    assert (query.what, query.limit, query.match, query.since) == ("events", 7, "warn", 0)


def test_more_events_than_an_answer_holds_are_asked_for_again(terminal: Terminal) -> None:
    terminal.session.events = [event(number) for number in range(5, 30)]
    terminal.session.rows_max = 4
    _, out, _ = terminal.type("events --limit 20 --json")
    assert [row["number"] for row in json.loads(out)] == list(range(10, 30))


def test_no_event_is_told_in_words(terminal: Terminal) -> None:
    terminal.session.events = []
    assert terminal.type("events zz") == (0, "", "no event like 'zz'\n")


def test_following_shows_each_event_once_over_a_restart_of_the_scheduler(
    capsys: pytest.CaptureFixture[str],
) -> None:
    session = FakeSession()
    answer = session.answer_to(Query(0, "events", 10))
    session.asked.clear()
    rounds = iter(range(4))

    class OverError(Exception):
        pass

    def pause(_seconds: float) -> None:
        at = next(rounds)
        if at == 1:
            session.events.append(event(3))
        if at == 2:
            session.epoch, session.events = 2, [event(1, text="anew")]
        if at == 3:
            raise OverError

    with pytest.raises(OverError):
        cli_events.go_on(session.answer_to, "", answer, False, pause)
    out, err = capsys.readouterr()
    assert [line.split("  ")[-1].strip() for line in out.splitlines()] == [
        "node 'lab3' joined",
        "anew",
    ]
    assert err == "the scheduler was restarted: epoch 2\n"


def test_events_that_came_too_fast_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    session = FakeSession()
    answer = session.answer_to(Query(0, "events", 10))
    session.events = [event(9)]
    rounds = iter((None,))
    with pytest.raises(StopIteration):
        cli_events.go_on(session.answer_to, "", answer, True, lambda _: next(rounds))
    out, err = capsys.readouterr()
    assert err == "6 events came faster than they could be shown\n"
    assert json.loads(out)["number"] == 9


@pytest.mark.parametrize("named", ["5f0c2b9a11d4-0-7", "5F0C2B9A11D4-0-7.1", "totals"])
def test_an_actor_is_killed_by_its_id_or_its_name(terminal: Terminal, named: str) -> None:
    code, out, _ = terminal.type(f"kill {named}")
    assert terminal.session.killed == [(ObjectId(parse("5f0c2b9a11d4-0-7")), False)]
    assert (code, out) == (0, "Counter 5f0c2b9a11d4-0-7: was alive, is being killed\n")


def test_kill_may_let_it_begin_anew_and_says_so_to_programs_too(terminal: Terminal) -> None:
    code, out, _ = terminal.type("kill --restart --json 5f0c2b9a11d4-0-71")
    assert terminal.session.killed[0][1] is True
    assert json.loads(out) == [
        {"actor": "5f0c2b9a11d4-0-71", "id": "5f0c2b9a11d4-0-71", "was": "restarting"}
    ]
    assert code == 0


@pytest.mark.parametrize("text", ["5f0c2b9a11d4-0-8", "5f0c2b9a11d4-0-9", "Counter", "x\x1b[2J"])
def test_what_does_not_live_is_not_killed_and_the_name_of_a_class_kills_nobody(
    terminal: Terminal, text: str
) -> None:
    code, out, err = terminal.type(f"kill {text}")
    shown = text.replace("\x1b", r"\x1b")
    assert (code, out, terminal.session.killed) == (cli_commands.FAILED, "", [])
    assert err == (f"drumbeat: no living actor {shown}; `drumbeat actors` lists those there are\n")


def test_top_without_a_terminal_says_what_to_type_instead(terminal: Terminal) -> None:
    code, out, err = terminal.type("top")
    assert (code, out) == (cli_commands.WRONG_USAGE, "")
    assert err == (
        "drumbeat: top draws on a terminal, and this is none; `drumbeat top --once` prints one "
        "picture\n"
    )

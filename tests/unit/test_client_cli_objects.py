"""`drumbeat objects`: what is asked, and how the answer reads."""

import json
from typing import Any

import pytest
from drumbeat.client import cli_objects, cli_tables
from support.typist import Typist

CLIENT = {"name": "job.py@lab", "role": "client", "refs": 2, "uses": 1, "copy_bytes": 0}
NODE = {"name": "lab1", "role": "node", "refs": 1, "uses": 0, "copy_bytes": 812_000_000}
ARRAY = {
    "id": "5f0c2b9a11d4-0-2", "sort": "put", "name": "", "state": "ready",
    "size_bytes": 812_000_000, "place": "shared memory", "home": "job.py@lab", "role": "client",
    "held_by": [CLIENT, NODE], "more_holders": 3,
}  # fmt: skip
RESULT = {
    "id": "5f0c2b9a11d4-0-3", "sort": "result", "name": "re\x1b[2Jsize", "state": "pending",
    "size_bytes": 0, "place": "", "home": "lab1", "role": "node",
    "held_by": [{"name": "lab2", "role": "node", "refs": None, "uses": None, "copy_bytes": None}],
    "more_holders": 0,
}  # fmt: skip
HOMES = [
    {"name": "lab1", "role": "node", "id": "ab", "pid": 41, "objects": 1, "size_bytes": 0,
     "copies": 1, "copies_bytes": 812_000_000, "unseen": 0},
    {"name": "job.py@lab", "role": "client", "id": "cd", "pid": 42, "objects": 1,
     "size_bytes": 812_000_000, "copies": 0, "copies_bytes": 0, "unseen": 0},
]  # fmt: skip
SILENT = [{"name": "lab3", "role": "node", "why": "did not answer within 2 s"}]


class Answering:
    """Answers as a scheduler would."""

    def __init__(self) -> None:
        self.said: list[tuple[str, int, str]] = []
        self.answer: dict[str, Any] = {
            "objects": [ARRAY, RESULT], "left_out": 0, "homes": HOMES, "silent": [], "not_asked": 0,
        }  # fmt: skip

    def query(self, what: str, limit: int = 100, match: str = "") -> Any:
        self.said.append((what, limit, match))
        return self.answer


Terminal = Typist[Answering]


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys, Answering())


def words(line: str) -> list[str]:
    return [part for part in line.strip().split("  ") if part]


def test_objects_are_a_table_of_what_they_are_where_and_who_holds_them(terminal: Terminal) -> None:
    code, out, err = terminal.type("objects")

    lines = [[word.strip() for word in words(line)] for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert terminal.session.said == [("objects", 100, "")]
    assert lines[0] == ["object", "what", "state", "size", "where", "home", "held by"]
    assert lines[1] == [
        "5f0c2b9a11d4-0-2", "put", "ready", "812.0 MB", "shared memory", "job.py@lab",
        "job.py@lab (2 refs, 1 use), lab1 (1 worker, a copy), 3 more",
    ]  # fmt: skip
    assert lines[2] == [
        "5f0c2b9a11d4-0-3", r"result of re\x1b[2Jsize", "pending", "lab1",
        "lab2 (it did not say how)",
    ]  # fmt: skip


def test_below_stands_what_each_home_keeps_the_largest_first_and_all_together(
    terminal: Terminal,
) -> None:
    _, out, _ = terminal.type("objects")

    lines = [[word.strip() for word in words(line)] for line in out.splitlines()[-4:]]
    assert lines == [
        ["home", "objects", "size", "copies of others", "their size"],
        ["job.py@lab", "1", "812.0 MB"],
        ["lab1", "1", "0 B", "1", "812.0 MB"],
        ["all", "2", "812.0 MB", "1", "812.0 MB"],
    ]


def test_what_is_not_told_of_is_said_in_words_beside_the_tables(terminal: Terminal) -> None:
    terminal.session.answer["homes"] = [dict(HOMES[0], unseen=7)]
    terminal.session.answer |= {"left_out": 1234, "silent": SILENT, "not_asked": 1}
    code, _, err = terminal.type("objects wo --limit 2")

    assert (code, terminal.session.said) == (0, [("objects", 2, "wo")])
    assert err.splitlines() == [
        "1,234 objects are left out, none of them larger; more with --limit",
        "lab1 has 7 objects more, not looked at",
        "lab3 did not answer within 2 s: what it keeps is not told of",
        "1 program or node was not asked: there are too many",
    ]


def test_that_nothing_is_kept_is_said_in_words(terminal: Terminal) -> None:
    terminal.session.answer |= {"objects": [], "homes": []}

    assert terminal.type("objects") == (0, "no object is kept\n", "")
    assert terminal.type("objects x")[1] == "no object that begins with 'x' is kept\n"
    terminal.session.answer["silent"] = SILENT
    assert terminal.type("objects")[1] == "no object is kept by anybody who answered\n"


def test_json_is_what_the_scheduler_answered(terminal: Terminal) -> None:
    code, out, _ = terminal.type("objects --json")

    assert (code, json.loads(out)) == (0, terminal.session.answer)


def test_a_refusal_is_one_line(terminal: Terminal) -> None:
    terminal.session.answer = {"error": "20 others ask for objects"}

    assert terminal.type("objects") == (1, "", "drumbeat: 20 others ask for objects\n")


@pytest.mark.parametrize("line", ["objects --limit 0", "objects --limit 1001", "objects a b"])
def test_a_wrong_option_is_one_line(terminal: Terminal, line: str) -> None:
    code, out, err = terminal.type(line)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "`drumbeat objects --help`" in err


@pytest.mark.parametrize(
    ("sort", "name", "text"),
    [
        ("result", "resize", "result of resize"),
        ("arguments", "resize", "arguments of resize"),
        ("actor", "Lamp", "actor Lamp"),
        ("segment", "", "segment"),
    ],
)
def test_an_object_is_called_by_what_it_is(sort: str, name: str, text: str) -> None:
    assert cli_objects.what({"sort": sort, "name": name}) == text


def test_a_holder_is_told_with_how_it_holds() -> None:
    waits = {"name": "", "role": "scheduler", "refs": 0, "uses": 2, "copy_bytes": 5}
    assert cli_objects.held_by(waits) == "the scheduler (2 wait, a copy)"
    assert cli_objects.held_by({**waits, "uses": 1}) == "the scheduler (1 waits, a copy)"
    assert cli_objects.held_by({**NODE, "refs": 0, "copy_bytes": 0}) == "lab1"
    assert cli_objects.held_by({**NODE, "refs": 0}) == "lab1 (a copy)"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (812_000_000, "812.0 MB"),
        (3_440_000_000, "3.4 GB"),
        (5_000_000_000_000_000, "5,000.0 TB"),
    ],
)
def test_sizes_read_as_people_say_them(count: int, text: str) -> None:
    assert cli_tables.size(count) == text

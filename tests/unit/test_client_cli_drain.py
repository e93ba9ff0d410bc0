"""`drumbeat drain`: what is asked, and what is said."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from drumbeat.client import cli_commands, cli_drain
from drumbeat.protocol.drain import Drain


class FakeSession:
    """A scheduler that knows one node, which ends when it has been looked at a few times."""

    def __init__(self, answer: Any, looks: Sequence[list[dict[str, Any]]] = ()) -> None:
        self.answer = answer
        self.looks = list(looks)
        self.asked: list[Drain] = []

    def answer_to(self, message: Drain) -> Any:
        self.asked.append(message)
        return self.answer

    def query(self, what: str, limit: int = 100, match: str = "") -> Any:
        assert what == "nodes"
        return self.looks.pop(0)


def typed(session: FakeSession, *words: str) -> int:
    @contextmanager
    def connect(_address: str | None) -> Iterator[Any]:
        yield session

    try:
        cli_commands.main(["drain", *words], connect)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


LAB = {"name": "lab3", "id": "aa", "state": "draining"}


def test_nodes_are_drained_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    session = FakeSession([LAB])
    assert typed(session, "lab3", "--cancel") == 0
    assert session.asked == [Drain(0, ["lab3"], True)]
    assert capsys.readouterr().out == "lab3: is being drained\n"


def test_a_name_that_nobody_has_is_an_error_and_the_others_are_drained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    session = FakeSession([LAB, {"name": "la3", "id": "", "state": "unknown"}])
    assert typed(session, "lab3", "la3") == cli_commands.FAILED
    said = capsys.readouterr()
    assert said.out == "lab3: is being drained\n"
    assert "there is no node la3" in said.err


def test_who_may_not_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    session = FakeSession({"error": "'me' may not drain nodes: that takes an admin"})
    assert typed(session, "lab3") == cli_commands.FAILED
    assert "may not drain nodes" in capsys.readouterr().err


def test_it_waits_until_the_nodes_are_gone_and_says_what_for_when_that_changes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_drain, "LOOK_S", 0.0)
    row = {"name": "lab3", "id": "aa", "waits_for": ["2 tasks at it"]}
    later = {**row, "waits_for": ["1 value that client 'me' holds"]}
    session = FakeSession([LAB], [[row], [row], [later], []])
    assert typed(session, "lab3", "--wait") == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "lab3: waits for 2 tasks at it",
        "lab3: waits for 1 value that client 'me' holds",
        "lab3: gone",
    ]


def test_a_program_is_told_in_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_drain, "LOOK_S", 0.0)
    assert typed(FakeSession([LAB]), "lab3", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [LAB]
    row = {"name": "lab3", "id": "aa", "waits_for": ["2 tasks at it"]}
    assert typed(FakeSession([LAB], [[row], []]), "lab3", "--wait", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [{**LAB, "state": "gone"}]


def test_a_name_that_nobody_has_is_in_the_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    unknown = {"name": "la3", "id": "", "state": "unknown"}
    assert typed(FakeSession([LAB, unknown]), "lab3", "la3", "--wait", "--json") == 1
    said = capsys.readouterr()
    assert json.loads(said.out) == [LAB, unknown]
    assert "there is no node la3" in said.err

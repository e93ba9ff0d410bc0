"""The command line: what is typed in, what is printed and which exit code out."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from drumbeat.client import cli_commands, cli_tables
from drumbeat.client.cli_cluster import NoCluster
from drumbeat.protocol.errors import SchedulerUnreachable
from drumbeat.protocol.ids import ObjectId, parse
from rich.console import Console
from support.typist import Typist

STATUS = {"epoch": 1, "uptime_s": 75.0, "nodes": {"alive": 2, "suspect": 0}, "tasks": {"queued": 3}}
NODES = [
    {"name": "node-1", "state": "alive", "running": 2, "resources": {"CPU": 2.0, "disk": 0.5}},
    {"name": "node-2", "state": "suspect", "running": 0, "resources": {"CPU": 1.0}},
]
TASKS = [
    {"id": "5f0c2b9a11d4-0-2a", "name": "resize", "state": "running", "running_s": 2.5},
    {"id": "5f0c2b9a11d4-0-2a1", "name": "[red]evil\x1b[2J", "state": "queued", "running_s": None},
]


ACTORS = [{"id": "5f0c2b9a11d4-0-7", "name": "Counter", "state": "alive", "incarnation": 2}]


class FakeSession:
    """Answers as a scheduler with two nodes and two tasks would."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []
        self.stacks: Any = []

    def query(self, what: str, limit: int = 100, match: str = "") -> Any:
        self.said.append(("query", what, limit, match))
        if what == "actors":
            return [row for row in ACTORS if str(row["name"]).startswith(match)][:limit]
        if what == "tasks":
            found = [row for row in TASKS if any(row[k].startswith(match) for k in ("id", "name"))]
            return found[:limit]
        if what == "stack":
            return self.stacks
        return STATUS if what == "status" else NODES

    def cancel(self, ids: Sequence[ObjectId], force: bool, recursive: bool) -> None:
        self.said.append(("cancel", list(ids), force, recursive))


Terminal = Typist[FakeSession]


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys, FakeSession())


def test_status_is_a_line_for_each_group(terminal: Terminal) -> None:
    code, out, _ = terminal.type("status")

    assert code == 0
    assert ["up", "for", "1", "min", "15", "s"] in [line.split() for line in out.splitlines()]
    assert "alive 2, suspect 0" in out


def test_status_in_json_is_what_the_scheduler_answered(terminal: Terminal) -> None:
    code, out, _ = terminal.type("status --json")

    assert (code, json.loads(out)) == (0, {"cluster": "", **STATUS})


def test_nodes_are_a_table_with_their_resources(terminal: Terminal) -> None:
    code, out, _ = terminal.type("nodes")

    lines = out.splitlines()
    assert code == 0
    assert lines[0].split()[:3] == ["node", "state", "running"]
    assert "CPU 2, disk 0.5" in lines[1]
    assert "suspect" in lines[2]


def test_tasks_are_asked_for_with_limit_and_match(terminal: Terminal) -> None:
    code, out, err = terminal.type("tasks res --limit 1")

    assert terminal.session.said == [("query", "tasks", 1, "res")]
    assert (code, "resize" in out, "2.5 s" in out) == (0, True, True)
    assert "--limit" in err


def test_no_task_is_said_in_words(terminal: Terminal) -> None:
    code, out, _ = terminal.type("tasks nothing")

    assert (code, out) == (0, "no unfinished task that begins with 'nothing'\n")


def test_actors_are_listed_with_where_they_live(terminal: Terminal) -> None:
    code, out, err = terminal.type("actors Count --limit 1")

    assert terminal.session.said == [("query", "actors", 1, "Count")]
    assert code == 0
    assert out.split() == ["actor", "class", "state", "incarnation", "5f0c2b9a11d4-0-7", "Counter",
                           "alive", "2"]  # fmt: skip
    assert "--limit" in err
    assert json.loads(terminal.type("actors --json")[1]) == ACTORS
    assert terminal.type("actors Lamp")[1] == "no actor that begins with 'Lamp'\n"


def test_no_task_in_json_is_an_empty_list(terminal: Terminal) -> None:
    assert terminal.type("tasks nothing --json")[:2] == (0, "[]\n")


def test_text_of_others_can_neither_colour_nor_steer_the_terminal(terminal: Terminal) -> None:
    _, out, _ = terminal.type("tasks")

    assert "\x1b" not in out
    assert r"[red]evil\x1b[2J" in out


def test_a_task_is_cancelled_by_its_id_and_no_other_that_begins_so(terminal: Terminal) -> None:
    code, out, _ = terminal.type("cancel 5f0c2b9a11d4-0-2a")

    cancels = [said for said in terminal.session.said if said[0] == "cancel"]
    assert cancels == [("cancel", [parse("5f0c2b9a11d4-0-2a")], False, True)]
    assert (code, out) == (0, "5f0c2b9a11d4-0-2a: was running, is being cancelled\n")


def test_a_cancel_has_reached_the_scheduler_before_the_command_ends(terminal: Terminal) -> None:
    terminal.type("cancel 5f0c2b9a11d4-0-2a")

    assert [said[0] for said in terminal.session.said[-2:]] == ["cancel", "query"]


def test_an_id_may_be_typed_in_capitals_and_with_its_index(terminal: Terminal) -> None:
    assert terminal.type("cancel 5F0C2B9A11D4-0-2A.1")[0] == 0


def test_cancel_passes_force_and_spares_children_when_asked(terminal: Terminal) -> None:
    terminal.type("cancel --force --no-children 5f0c2b9a11d4-0-2a1")

    assert ("cancel", [parse("5f0c2b9a11d4-0-2a1")], True, False) in terminal.session.said


def test_cancel_of_a_finished_task_says_so_and_still_cancels_the_others(terminal: Terminal) -> None:
    code, out, err = terminal.type("cancel 5f0c2b9a11d4-0-2a 5f0c2b9a11d4-0-99")

    assert code == cli_commands.FAILED
    assert "5f0c2b9a11d4-0-2a: was running" in out
    assert err.startswith("drumbeat: no unfinished task 5f0c2b9a11d4-0-99; `drumbeat tasks`")


@pytest.mark.parametrize("id_", ["", "zzzzzzzzzzzz-0-1", "resize", "5f0c-0-1", "5f0c2b9a11d4-0-zz"])
def test_what_is_no_id_is_refused_before_anything_is_asked(terminal: Terminal, id_: str) -> None:
    code, _, err = terminal.type(f"cancel 5f0c2b9a11d4-0-2a {id_ or '-'}")

    assert (code, terminal.addresses) == (cli_commands.WRONG_USAGE, [])
    assert "is not a task id, which looks like" in err
    assert err.count("\n") == 1


def test_a_mistyped_command_is_answered_with_the_nearest(terminal: Terminal) -> None:
    code, out, err = terminal.type("statsu")

    assert (code, out) == (cli_commands.WRONG_USAGE, "")
    assert err == "drumbeat: there is no command 'statsu'; did you mean `drumbeat status`?\n"


def test_a_command_like_none_is_answered_with_all(terminal: Terminal) -> None:
    code, _, err = terminal.type("xyzzy")
    names = ", ".join(sorted(cli_commands.commands.commands))

    assert (code, err) == (
        cli_commands.WRONG_USAGE,
        f"drumbeat: there is no command 'xyzzy'; try {names}\n",
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("tasks --limit none", "'none' is not a valid integer range"),
        ("tasks --limit 0", "0 is not in the range"),
        ("nodes --jsn", "--json"),
        ("cancel", "Missing argument 'TASK...'"),
        ("status more", "unexpected extra argument"),
    ],
)
def test_a_wrong_option_is_one_line_that_leads_to_help(
    terminal: Terminal, line: str, says: str
) -> None:
    code, out, err = terminal.type(line)

    assert (code, out) == (cli_commands.WRONG_USAGE, "")
    assert says in err
    assert f"`drumbeat {line.split()[0]} --help`" in err
    assert err.count("\n") == 1


def test_drumbeat_alone_prints_its_help(terminal: Terminal) -> None:
    code, _, err = terminal.type("")

    assert code == cli_commands.WRONG_USAGE
    assert "status" in err


@pytest.mark.parametrize(
    "command",
    [
        "status",
        "nodes",
        "tasks",
        "actors",
        "cancel",
        "drain",
        "up",
        "down",
        "hosts",
        "events",
        "top",
        "kill",
        "stack",
        "objects",
    ],
)
def test_each_command_has_help_with_examples(terminal: Terminal, command: str) -> None:
    code, out, _ = terminal.type(f"{command} --help")

    assert code == 0
    assert f"Examples:\n    drumbeat {command}" in out


def test_without_a_cluster_the_way_to_start_one_is_told(terminal: Terminal) -> None:
    terminal.trouble = NoCluster("no local cluster of yours runs; start one")

    code, out, err = terminal.type("status")

    assert (code, out) == (cli_commands.NO_CLUSTER, "")
    assert err == "drumbeat: no local cluster of yours runs; start one\n"


def test_a_cluster_that_does_not_answer_is_one_line(terminal: Terminal) -> None:
    terminal.trouble = SchedulerUnreachable("no scheduler answers\nwith more below")

    assert terminal.type("nodes --address /x") == (
        cli_commands.FAILED,
        "",
        "drumbeat: no scheduler answers\n",
    )
    assert terminal.addresses == ["/x"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.0124, "12 ms"),
        (3.44, "3.4 s"),
        (312, "5 min 12 s"),
        (7620, "2 h 7 min"),
        (200_000, "2 d 7 h"),
        (-1.0, ""),
    ],
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert cli_tables.duration(seconds) == text


def test_a_key_that_is_new_gets_a_column_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "a", "idle_since_s": 2.0}]

    cli_tables.show(cli_tables.rows_table(rows, cli_tables.NODE_COLUMNS))

    assert capsys.readouterr().out.splitlines()[0].split() == ["node", "idle", "since"]


def test_what_a_call_does_is_told_in_one_column() -> None:
    row = {"verdict": "blocked", "verdict_s": 182.0, "where": "recvfrom"}
    assert cli_tables.doing(row) == "blocked in recvfrom 3 min 2 s"
    assert cli_tables.doing({"verdict": "gil-busy", "verdict_s": 14.0, "where": ""}) == (
        "gil-busy 14.0 s"
    )
    assert cli_tables.doing({"verdict": "running", "verdict_s": 3.0}) == ""
    assert "\x1b" not in cli_tables.doing({"verdict": "\x1b[2J", "where": "\x1b", "verdict_s": 1.0})


def test_stack_wants_a_task_a_worker_or_all(terminal: Terminal) -> None:
    for line in ("stack", "stack 41 --all"):
        code, _, said = terminal.type(line)
        assert code == 2
        assert "name a task, an actor or a worker, or say --all" in said


def test_a_stack_that_there_is_not_says_why(terminal: Terminal) -> None:
    row = {"node": "lab\x1b[2J", "pid": 41, "task": "", "name": "", "stack": "", "why": "it left"}
    terminal.session.stacks = [row]
    code, shown, _ = terminal.type("stack lab/41")
    assert (code, shown) == (0, "idle (pid 41, node lab\\x1b[2J): no stack, it left\n")
    terminal.session.stacks = {"error": "there is no node 'x'"}
    code, _, said = terminal.type("stack x/41")
    assert (code, said) == (1, "drumbeat: there is no node 'x'\n")


@pytest.mark.parametrize("width", [30, 50, 80, 120])
def test_on_a_narrow_terminal_the_last_columns_are_left_out_and_words_stay_whole(
    width: int,
) -> None:
    rows = [
        {
            "id": "5f0c2b9a11d4-0-2a", "name": "resize", "state": "running", "stopping": False,
            "node": "lab3", "attempt": 1, "running_s": 182.0, "doing": "blocked in recvfrom 3 min",
            "pid": 4121, "age_s": 200.0, "client": "job.py",
        }
    ]  # fmt: skip
    console = Console(width=width, color_system=None, force_terminal=True)
    with console.capture() as capture:
        cli_tables.show(cli_tables.rows_table(rows, cli_tables.TASK_COLUMNS, width), console)
    text = capture.get()
    assert max(map(len, text.splitlines())) <= width
    for word in ("5f0c2b9a11d4-0-2a", "resize", "running", "lab3")[: 1 + width // 30]:
        assert word in text
    assert ("job.py" in text) == (width == 120)
    assert "stopping" not in text  # it is not: that says nothing

"""What `top` shows and what its keys do: rates, order, the chosen row, any size of terminal."""

from typing import Any

import pytest
from drumbeat.client import cli_tables
from drumbeat.client import cli_top_view as top_view
from drumbeat.client.top_keys import keys_of
from drumbeat.client.top_model import ACTORS, CALLS, EVENTS, Model, Rates, Wish, sorted_calls
from rich.console import Console


def call(name: str, running_s: float, **more: Any) -> dict[str, Any]:
    return {
        "id": f"5f0c2b9a11d4-0-{name}", "name": name, "running_s": running_s, "node": "lab1",
        "verdict": "running", "verdict_s": 1.0, "where": "", "phase": "running", "pid": 41,
        "cpu": 0.5, "memory_bytes": 20e6, "done": None, "total": None, "attempt": 1,
        "client": "job.py", **more,
    }  # fmt: skip


def status(uptime_s: float = 10.0, finished: int = 0, **more: Any) -> dict[str, Any]:
    tasks = {"queued": 3, "waiting": 0, "finished": finished, "failed": 0, "retried": 0}
    return {
        "epoch": 1, "uptime_s": uptime_s, "nodes": {"alive": 2, "suspect": 0}, "clients": 1,
        "workers": 4, "actors": 0, "tasks": tasks, "calls": {}, "rate_per_s": 7.0,
        "resources": {"total": {"CPU": 4.0}, "free": {"CPU": 1.0}}, "recovering": False, **more,
    }  # fmt: skip


NODE = {
    "name": "lab1", "state": "alive", "running": 2, "resources": {"CPU": 4.0}, "workers": 4,
    "free": {"CPU": 1.0}, "cpu": 0.31, "memory_bytes": 3.4e9, "last_heard_s": 0.2, "lag_s": 0.001,
    "host": "lab1",
}  # fmt: skip


def answer(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "status": status(), "nodes": [NODE], "calls": list(calls), "running": len(calls), **more,
    }  # fmt: skip


def shown(model: Model, width: int = 100, height: int = 24, trouble: str = "") -> list[str]:
    console = Console(width=width, height=height, color_system=None, force_terminal=True)
    with console.capture() as capture:
        console.print(top_view.screen(model, "here", trouble, width, height), end="")
    return capture.get().removesuffix("\n").split("\n")


def names(model: Model) -> str:
    return "".join(row["name"] for row in model.rows[CALLS])


# ------------------------------------------------------------------------------------------- rates


def test_the_rate_is_that_between_two_answers_and_at_first_the_schedulers_own() -> None:
    rates = Rates()
    for uptime_s, finished in ((10.0, 100), (11.0, 150), (11.1, 900), (13.0, 250)):
        rates.take(status(uptime_s, finished))
    assert list(rates.history) == [7.0, 50.0, 50.0]  # too short a time says nothing
    rates.take({**status(1.0, 0), "epoch": 2})
    assert list(rates.history) == [7.0]


def test_sparks_are_as_high_as_their_share_of_the_highest() -> None:
    assert top_view.sparks([0.0, 50.0, 100.0], 10) == " ▄█"
    assert top_view.sparks([1.0, 2.0, 4.0], 2) == "▄█"
    assert top_view.sparks([0.0], 10) == ""


# ------------------------------------------------------------------------------------------- order


def test_calls_are_sorted_by_each_key_and_the_other_way_round_by_r() -> None:
    model = Model()
    model.take(
        answer(
            call("a", 1.0, cpu=0.9, memory_bytes=1e6, node="z", verdict="blocked"),
            call("b", 3.0, cpu=None, memory_bytes=9e6, node="y", verdict="deadlock"),
            call("c", 2.0, cpu=0.1, memory_bytes=None, node="x", verdict="running"),
        )
    )
    assert names(model) == "bca"
    for key, order in (("c", "acb"), ("m", "bac"), ("v", "bac"), ("o", "cba"), ("n", "abc")):
        model.press(key)
        assert names(model) == order, key
    model.press("r")
    assert names(model) == "cba"
    model.press("n")  # again: the other way round once more
    assert names(model) == "abc"
    model.press("t")
    assert names(model) == "bca"


def test_what_is_not_known_comes_last_whichever_way_it_is_sorted() -> None:
    rows = [call("a", 1.0, cpu=None), call("b", 2.0, cpu=0.1)]
    assert [row["name"] for row in sorted_calls(rows, "c", False)] == ["b", "a"]
    assert [row["name"] for row in sorted_calls(rows, "c", True)] == ["b", "a"]


# -------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1bOBj", ["up", "down", "j"]),
        (b"\x1b[5~\x1b[6~\x1b[H\x1b[4~", ["page up", "page down", "home", "end"]),
        (b"\r\t \x1b", ["enter", "tab", " ", "escape"]),
        (b"\x1b[1;5Px\x00\x07", ["x"]),
        ("é".encode(), ["é"]),
        (b"\xff", ["�"]),
    ],
)
def test_keys_have_names_and_what_is_unknown_has_none(typed: bytes, keys: list[str]) -> None:
    assert keys_of(typed) == keys


def test_the_chosen_call_stays_chosen_wherever_it_moves_to() -> None:
    model = Model()
    model.take(answer(call("a", 9.0), call("b", 5.0), call("c", 1.0)))
    model.press("down")
    assert (model.chosen() or {})["name"] == "b"
    model.take(answer(call("x", 20.0), call("a", 10.0), call("b", 6.0)))
    assert (model.place(), (model.chosen() or {})["name"]) == (2, "b")
    model.take(answer(call("a", 10.0)))  # it has ended: what is there now is chosen
    assert (model.chosen() or {})["name"] == "a"
    model.take(answer())
    assert model.chosen() is None


def test_moving_ends_at_both_ends_and_a_page_is_what_fits() -> None:
    model = Model()
    model.take(answer(*(call(f"{n:02}", 100.0 - n) for n in range(30))))
    model.window(10)
    for key, place in (("up", 0), ("page down", 10), ("end", 29), ("down", 29), ("page up", 19)):
        model.press(key)
        assert model.place() == place, key
    first, rows = model.window(10)
    assert (first, len(rows)) == (14, 10)


def test_a_stack_is_wished_for_of_what_is_chosen_and_shown_when_it_comes() -> None:
    model = Model()
    assert model.press("s") is None
    assert model.note == "nothing is chosen that has a stack"
    model.take(answer(call("a", 1.0)))
    assert model.press("enter") == Wish("stack", "5f0c2b9a11d4-0-a")
    model.stack_came("another", "heading", ["line"])  # of what was closed before
    assert model.sheet == ("stack of a", ("is being asked for",))
    model.stack_came("5f0c2b9a11d4-0-a", "a (pid 41)", ["one", "two"])
    assert "two" in "\n".join(shown(model))
    assert model.press("s") == Wish("stack", "5f0c2b9a11d4-0-a")
    model.press("x")
    assert model.sheet is None


def test_tab_goes_round_the_views_and_looks_at_once() -> None:
    model = Model()
    model.take(answer())
    seen = []
    for _ in range(3):
        assert model.press("tab") == Wish("look")
        seen.append(model.view)
    assert seen == [ACTORS, EVENTS, CALLS]


def test_space_stands_still_until_it_is_pressed_again() -> None:
    model = Model()
    model.take(answer(call("a", 1.0)))
    model.press(" ")
    model.take(answer(call("b", 1.0)))
    assert names(model) == "a"
    assert "stands still" in shown(model)[0]
    assert model.press(" ") == Wish("look")


def test_the_pace_goes_from_step_to_step_and_stays_at_the_ends() -> None:
    model = Model(0.7)
    model.press("+")
    assert model.interval_s == 0.5
    for _ in range(9):
        model.press("-")
    assert model.interval_s == 30.0
    assert model.note == "looks every 30 s"


def test_q_leaves_from_anywhere_and_h_shows_all_keys() -> None:
    model = Model()
    model.press("h")
    assert "choose a row" in "\n".join(shown(model))
    assert model.press("q") == Wish("quit")


# ----------------------------------------------------------------------------------------- drawing


@pytest.mark.parametrize("width", [20, 33, 60, 80, 100, 140, 200])
@pytest.mark.parametrize("height", [2, 5, 8, 11, 12, 24, 50])
@pytest.mark.parametrize("view", [CALLS, ACTORS, EVENTS])
def test_every_picture_is_as_large_as_the_terminal(width: int, height: int, view: str) -> None:
    model = Model()
    model.view = view
    actor = {"id": "5f0c2b9a11d4-0-7", "name": "Counter", "state": "alive", "age_s": 4.0}
    event = {"number": 4, "time_s": 1.0, "severity": "warning", "kind": "node gone", "text": "x"}
    data = answer(
        *(call(f"a long name of a function {n}", 1.0 * n) for n in range(40)),
        actors=[actor] * 40, events=[event] * 40,
    )  # fmt: skip
    data["nodes"] = [{**NODE, "name": f"node {n}"} for n in range(30)]
    for trouble in ("", "no connection"):
        model.take(data)
        lines = shown(model, width, height, trouble)
        assert len(lines) <= height
        assert max(map(len, lines)) <= width
    assert shown(model, width, height)[-1].startswith("q leave"[:width])


def test_a_narrow_terminal_shows_what_matters_most() -> None:
    model = Model()
    model.take(answer(call("resize", 14.2, verdict="gil-busy", verdict_s=14.0)))
    wide, narrow = "\n".join(shown(model, 140)), "\n".join(shown(model, 40))
    assert "resize" in narrow
    assert "14.2 s" in narrow
    assert "client" not in narrow
    assert "gil-busy 14.0 s" in wide
    assert "20 MB" in wide


def test_how_long_comes_before_where_a_call_is_blocked() -> None:
    model = Model()
    model.take(answer(call("a", 200.0, verdict="blocked", verdict_s=182.0, where="recvfrom")))
    assert "blocked 3 min 2 s in recvfrom" in "\n".join(shown(model, 160))


def test_text_of_others_can_neither_colour_nor_steer_the_terminal() -> None:
    evil = "[red]evil\x1b[2J\u202e"
    model = Model()
    row = call(evil, 1.0, node=evil, where=evil, verdict="blocked", client=evil)
    model.take({**answer(row), "nodes": [{**NODE, "name": evil, "host": evil}]})
    for width in (60, 200):
        text = "\n".join(shown(model, width))
        assert "\x1b[2J" not in text
        assert "\u202e" not in text
        assert "[red]" in text
    model.sheet = evil, [evil]
    assert "\x1b[2J" not in "\n".join(shown(model))


def test_trouble_is_shown_above_all() -> None:
    model = Model()
    assert "asks" in "\n".join(shown(model))
    model.take(answer())
    assert "no connection for 4 s" in "\n".join(shown(model, trouble="no connection for 4 s"))
    assert "no connection" in "\n".join(shown(model, height=6, trouble="no connection for 4 s"))


def test_progress_and_memory_read_as_people_say_them() -> None:
    assert cli_tables.progress({"done": 310.0, "total": 900.0}) == "310/900 34 %"
    assert cli_tables.progress({"done": 310.0, "total": None}) == "310"
    assert cli_tables.progress({}) == ""
    assert top_view.memory(812e6) == "812 MB"
    assert top_view.memory(3.42e9) == "3.4 GB"

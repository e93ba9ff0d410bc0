"""What benchmarks make of their figures: medians, ratios, tables and the page."""

from pathlib import Path
from typing import Any

import pytest
from drumbeat.benchmarks import __main__ as comparing
from drumbeat.benchmarks import breakdown, environments, figures, installed, page, plots, scale
from drumbeat.benchmarks.rows import BY_NAME, DURATIONS, GROUPS, ROWS, Row

FASTER = Row("faster", "how much", "tasks/s", more_is_better=True)
SHORTER = Row("shorter", "how long", "ms")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (9.876, "9.88"), (123.4, "123"), (56_789.0, "56,800")],
)
def test_a_figure_has_three_digits_that_count(value: float, text: str) -> None:
    assert figures.figure(value) == text


def test_several_values_are_shown_as_median_and_range() -> None:
    assert figures.shown([3.0, 1.0, 2.0]) == "2 (1-3)"
    assert figures.shown([3.0]) == "3"


def test_ratios_compare_turn_by_turn_and_above_one_is_better_for_us() -> None:
    assert figures.ratios([10.0, 40.0], [5.0, 10.0], more_is_better=True) == [2.0, 4.0]
    assert figures.ratios([10.0, 40.0], [5.0, 10.0], more_is_better=False) == [0.5, 0.25]


def test_where_a_turn_failed_the_medians_are_compared() -> None:
    assert figures.ratios([4.0], [1.0, 2.0, 3.0], more_is_better=True) == [2.0]


@pytest.mark.parametrize("ours", [[0.0], [-0.01]])
def test_what_is_nothing_or_less_has_no_ratio(ours: list[float]) -> None:
    assert figures.times(figures.ratios(ours, [1.0], more_is_better=False)) == ""


def test_ratios_are_shown_with_their_range() -> None:
    assert figures.times([31.2, 29.0, 33.4]) == "31 (29-33)"
    assert figures.times([1.234]) == "1.23"


def test_a_line_is_as_flat_as_its_farthest_point_from_the_middle() -> None:
    assert figures.spread([7.0, 13.0, 10.0]) == pytest.approx(0.3)
    assert figures.spread([5.0, 5.0]) == 0.0


# -------------------------------------------------------------------------------------- the tables


def test_every_row_has_a_measurement_and_no_two_share_a_name() -> None:
    from drumbeat.benchmarks import measure

    known = {*measure.MEASUREMENTS, *measure.SHARED, *measure.ON_DISK}
    assert len(BY_NAME) == len(ROWS)
    assert known == set(BY_NAME)
    assert {row.name for row in GROUPS["table"]} == known - set(measure.SHARED)


def test_rows_of_the_table_have_a_process_each_and_other_groups_one() -> None:
    rows = [BY_NAME["tree"], BY_NAME["errors"], BY_NAME["micro_put"], BY_NAME["micro_get"]]
    todo = comparing.jobs(rows, ["drumbeat", "pool"])
    assert todo == [
        ("drumbeat", ("tree",)),
        ("drumbeat", ("errors",)),
        ("pool", ("errors",)),
        ("drumbeat", ("micro_put", "micro_get")),
    ]


def test_figures_are_found_among_whatever_a_system_says() -> None:
    said = "(raylet) A worker died\nmicro_put 12.5\nmicro_get x\nmicro_wait 1 2\n"
    assert comparing.read(said, ["micro_put", "micro_get", "micro_wait"]) == {"micro_put": 12.5}
    assert comparing.read("(raylet) A worker died. Error: 1.25\n", ["tree"]) == {"tree": 1.25}
    assert comparing.read("", ["tree"]) == {}
    assert comparing.read("it did not work\n", ["tree"]) == {}


def test_a_cell_says_why_there_is_no_figure() -> None:
    row, missing = BY_NAME["tree"], {"ray": "not installed"}
    assert comparing.cell(row, "pool", {}, missing) == "-"
    assert comparing.cell(row, "ray", {}, missing) == "not here"
    assert comparing.cell(row, "dask", {}, missing) == "failed"
    assert comparing.cell(row, "dask", {"tree": {"dask": [2.0]}}, missing) == "2"


def test_how_much_better_follows_which_way_is_better() -> None:
    values = {"faster": {"drumbeat": [8.0], "ray": [2.0]}, "shorter": {"drumbeat": [8.0]}}
    assert comparing.better(FASTER, "ray", values) == "4.0"
    assert comparing.better(SHORTER, "ray", values) == "-"


# ------------------------------------------------------------------------------ peers and packages


def test_why_a_package_cannot_be_installed_is_the_last_error_without_addresses() -> None:
    said = (
        "WARNING: retrying\nERROR: Could not find a version\n"
        "ERROR: No matching distribution found for ray from https://somewhere/simple/\n"
        "hint: look\n"
    )
    assert environments.reason(said) == "No matching distribution found for ray from an index"
    assert environments.reason("") == "it did not say why"


def test_requirements_of_extras_are_not_needed() -> None:
    lines = ["click>=8.1", 'Jinja2 >= 2.10; python_version > "3"', 'ruff; extra == "dev"']
    assert installed.required(lines) == ["click", "Jinja2"]
    assert installed.plain("Ruamel.yaml_clib") == "ruamel-yaml-clib"


# ---------------------------------------------------------------------------------- scale and page


def point(nodes: int, queue: int, us: float, way: str = "full") -> dict[str, Any]:
    return {
        "nodes": nodes, "queue": queue, "way": way, "us": [us, us, us], "rows_a_message": 200.0,
        "queued_bytes": 390, "held_by_nodes": 0,
    }  # fmt: skip


POINTS = [point(1, 100, 7.0), point(10, 100, 10.0), point(1_000, 100, 13.0), point(10, 5, 9.0)]


def test_the_points_go_over_nodes_in_both_ways_and_over_the_queue_once() -> None:
    found = scale.points([1, 1_000], [10, 100])
    assert found == [
        (1, 100, "full"), (1_000, 100, "full"), (1, 100, "single"), (1_000, 100, "single"),
        (100, 10, "full"), (100, 100, "full"),
    ]  # fmt: skip


def test_how_flat_the_cost_is_over_nodes_is_told_with_the_budget() -> None:
    assert scale.flat_over(POINTS, "nodes") == (
        "cost a task over nodes 1 to 1,000: ± 30%, budget ± 30%: kept"
    )
    steep = [*POINTS, point(2_000, 100, 20.0)]
    assert scale.flat_over(steep, "nodes").endswith("OVER")


def test_a_line_of_the_plot_is_that_with_the_most_points_in_their_order() -> None:
    (line,) = plots.over_points(list(reversed(POINTS)), "full", "nodes", "core", "red")
    assert line.places == [1, 10, 1_000]
    assert plots.over_points(POINTS, "single", "nodes", "core", "red") == []


def test_a_system_without_all_rows_has_no_line() -> None:
    values = {row.name: {"drumbeat": [0.9], "ray": [0.5]} for row in DURATIONS}
    del values[DURATIONS[0].name]["ray"]
    assert [line.title for line in plots.over_systems(values, DURATIONS)] == ["Drumbeat"]


MACHINE = {
    "date": "2026-01-02T03:04:05+00:00", "commit": "abc", "processor": "P", "cores": 2,
    "python": "3.11.7", "load_before": 0.1, "took_s": 600,
}  # fmt: skip


def test_the_page_has_medians_and_the_ratios_below_them() -> None:
    text = page.comparison(
        {
            "machine": MACHINE, "fast": False, "turns": 3,
            "values": {"tree": {"drumbeat": [0.2, 0.3, 0.25], "ray": [4.0, 6.0, 5.0]}},
            "missing": {"dask": "not installed"},
        }
    )  # fmt: skip
    assert "| Everyday work | Drumbeat | Ray |" in text
    assert "| 0.25 | 5<br>20 (20-20) x |" in text
    assert "Dask distributed was not measured: not installed" in text
    assert "3 turns, in 10 min.\n" in text


def test_the_page_says_when_the_machine_was_busy() -> None:
    assert "the machine was busy before, load 2.5" in page.told(MACHINE | {"load_before": 2.5})


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    first, last = page.part("scale")
    text = f"before\n{first}old\n{last}\nafter\n"
    assert page.replaced(text, "scale", "new\n") == f"before\n{first}new\n{last}\nafter\n"
    with pytest.raises(ValueError, match="needs one part 'peers'"):
        page.replaced(text, "peers", "new\n")


def test_the_page_has_the_marks_of_everything_that_is_written_into_it() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    for name in page.KINDS:
        page.replaced(text, name, "")


def test_the_shares_of_a_task_stand_beside_each_other_in_the_page() -> None:
    one = dict.fromkeys((*breakdown.PARTIES, breakdown.OTHERS), (10.0, 1.5))
    one |= {breakdown.REST: (30.0, 0.0), breakdown.WALL: (100.0, 0.0)}
    works = {name: [one, one] for name in breakdown.WORKS}
    text = page.shares({"machine": MACHINE, "turns": 2, "works": works})
    assert "| scheduler | 10 | 1.50 | 10 | 1.50 | 10 | 1.50 |" in text
    assert "| nobody | 30 |  | 30 |  | 30 |  |" in text


def test_what_has_no_plot_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page.subprocess, "run", None)
    page.draw([Path("breakdown-2026.json")])

"""Draws what was measured, as SVG and PNG: cost over nodes and queue, efficiency, payloads.

    .venvs/bench-plots/bin/python -m benchmarks.plots DIRECTORY RESULTS.json...

Runs in the environment "plots" of environments.py, so that nothing else needs matplotlib; page.py
calls it. Lines are medians, with their range around them. What is not in the results is not drawn.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .rows import DURATIONS, PAYLOADS, TITLES, Row

#: of a colour each, the same in all plots
COLOURS = {
    "drumbeat": "#c2410c", "executor": "#64748b", "pool": "#94a3b8", "ray": "#2563eb",
    "dask": "#059669",
}  # fmt: skip
WIDTH_INCHES, HEIGHT_INCHES, DOTS_AN_INCH = 6.4, 3.8, 160


class Line(NamedTuple):
    """One line of a plot: values at each place."""

    title: str
    colour: str
    places: list[float]
    values: list[list[float]]


class Plot(NamedTuple):
    """One picture."""

    name: str
    title: str
    across: str
    up: str
    lines: list[Line]
    #: logarithmic upwards as well
    is_steep: bool = False


def over_systems(values: dict[str, Any], rows: Sequence[Row]) -> list[Line]:
    """Return a line for each system that has all of these rows."""
    return [
        Line(
            TITLES[system],
            colour,
            [row.at for row in rows],
            [values[row.name][system] for row in rows],
        )
        for system, colour in COLOURS.items()
        if all(values.get(row.name, {}).get(system) for row in rows)
    ]


def over_points(
    points: Sequence[dict[str, Any]], way: str, key: str, title: str, colour: str
) -> list[Line]:
    """Return the line of the scheduler's core over nodes or queue lengths, if there is one.

    Args:
        points: what scale.py has found.
        way: how nodes answer.
        key: "nodes" or "queue": this changes along the line, the other does not.
        title: of the line.
        colour: of the line.
    """
    other = {"nodes": "queue", "queue": "nodes"}[key]
    lines: dict[int, list[dict[str, Any]]] = {}
    for point in points:
        if point["way"] == way:
            lines.setdefault(point[other], []).append(point)
    longest = max(map(len, lines.values()), default=0)
    if longest < 2:
        return []
    line = next(line for line in lines.values() if len(line) == longest)
    line.sort(key=lambda point: point[key])
    return [Line(title, colour, [point[key] for point in line], [point["us"] for point in line])]


def plots(found: dict[str, dict[str, Any]]) -> list[Plot]:
    """Return what can be drawn of results, by kind."""
    points = found.get("scale", {}).get("points", [])
    real = found.get("scale_real", {}).get("nodes", {})
    values = found.get("peers", found.get("table", {})).get("values", {})
    over_nodes = [
        *over_points(points, "full", "nodes", "core, messages full", "#c2410c"),
        *over_points(points, "single", "nodes", "core, one task a message", "#fb923c"),
    ]
    if len(real) > 1:
        nodes = sorted(map(int, real))
        costs = [real[str(count)]["scheduler_us"] for count in nodes]
        over_nodes.append(
            Line("scheduler process, real daemons", "#111827", list(map(float, nodes)), costs)
        )
    over_queue = over_points(points, "full", "queue", "core, messages full", "#c2410c")
    cost = "µs of a core a task"
    every = [
        Plot("nodes", "What a task costs the scheduler", "nodes", cost, over_nodes),
        Plot("queue", "What a task costs the scheduler", "tasks queued", cost, over_queue),
        Plot(
            "durations", "Two workers' time that is spent on tasks", "seconds a task takes",
            "efficiency", over_systems(values, DURATIONS),
        ),
        Plot(
            "payloads", "A call with an argument, there and back", "bytes of the argument",
            "ms", over_systems(values, PAYLOADS), is_steep=True,
        ),
    ]  # fmt: skip
    return [plot for plot in every if plot.lines]


def draw(plot: Plot, directory: Path) -> None:
    """Write one plot in both forms."""
    import matplotlib as mpl  # type: ignore[import-not-found,unused-ignore]

    mpl.use("Agg")
    # The same results make the same files.
    mpl.rcParams["svg.hashsalt"] = plot.name
    mpl.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot as plt  # type: ignore[import-not-found,unused-ignore]

    figure, axes = plt.subplots(figsize=(WIDTH_INCHES, HEIGHT_INCHES), layout="constrained")
    for line in plot.lines:
        middle = [statistics.median(values) for values in line.values]
        axes.plot(
            line.places, middle, marker="o", markersize=4, color=line.colour, label=line.title
        )
        low, high = ([pick(values) for values in line.values] for pick in (min, max))
        axes.fill_between(line.places, low, high, color=line.colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    if plot.is_steep:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(plot.across)
    axes.set_ylabel(plot.up)
    axes.set_title(plot.title, loc="left", fontsize=11)
    axes.grid(visible=True, color="#e2e8f0", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(directory / f"{plot.name}.svg", metadata={"Date": None}, facecolor="white")
    figure.savefig(directory / f"{plot.name}.png", dpi=DOTS_AN_INCH, metadata={"Software": None})
    plt.close(figure)


def kind_of(path: Path) -> str:
    """Return what was measured, by the name of the results' file."""
    return path.name.partition("-")[0].removesuffix(".json")


def main() -> None:
    """Draw everything that the results have."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    flags.add_argument("directory", type=Path)
    flags.add_argument("results", type=Path, nargs="+")
    given = flags.parse_args()
    found = {kind_of(path): json.loads(path.read_text(encoding="utf-8")) for path in given.results}
    drawn = plots(found)
    if not drawn:
        sys.exit("there is nothing to draw in these results")
    given.directory.mkdir(parents=True, exist_ok=True)
    for plot in drawn:
        draw(plot, given.directory)
        print(f"{given.directory / plot.name}.svg and .png")


if __name__ == "__main__":
    main()

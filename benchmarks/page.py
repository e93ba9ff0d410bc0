"""Writes into docs/performance.md what was measured, and draws its plots.

    python -m benchmarks.page [RESULTS.json ...]

Without names the last results of each kind are taken. What stands between the marks of a part in
the page is replaced, and nothing else; a part without results is left as it is. The results
themselves go to docs/performance/ as well, so that everybody can draw and judge them anew.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import environments, figures, results, scale
from .plots import kind_of
from .rows import GROUPS, TITLES, Row

PAGE = results.ROOT / "docs" / "performance.md"
DIRECTORY = results.ROOT / "docs" / "performance"
KINDS = ("peers", "breakdown", "scale", "scale_real")
#: more of this before a run: others were at work
CALM_LOAD = 0.5
HEADS = {
    "table": "Everyday work",
    "micro": "The rows of Ray's micro-benchmark",
    "durations": "Efficiency by the duration of tasks",
    "payloads": "Payloads by size",
    "arrays": "Large arrays",
}


def part(name: str) -> tuple[str, str]:
    """Return the marks between which a part stands."""
    return f"<!-- {name}: written by make bench-page -->\n", f"<!-- end of {name} -->"


def replaced(page: str, name: str, text: str) -> str:
    """Return the page with another text in one part.

    Raises:
        ValueError: the page has no such part, or more than one.
    """
    first, last = part(name)
    if page.count(first) != 1 or page.count(last) != 1:
        raise ValueError(f"{PAGE} needs one part {name!r}, between {first.strip()} and {last}")
    before, _, rest = page.partition(first)
    return f"{before}{first}{text}{last}{rest.partition(last)[2]}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown; the first column holds words, the others numbers."""
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def told(about: dict[str, Any], more: str = "") -> str:
    """Return when and where something was measured."""
    load = about["load_before"]
    busy = f"; the machine was busy before, load {load:.1f}" if load > CALM_LOAD else ""
    where = f"{about['processor']}, {about['cores']} cores, Python {about['python']}"
    took = f", in {about['took_s'] / 60:.0f} min"
    day, commit = str(about["date"])[:10], about["commit"]
    return f"Measured {day} at commit `{commit}`, {where}{more}{took}{busy}.\n\n"


def ratio_of(row: Row, values: dict[str, Any], system: str) -> str:
    """Return how many times better Drumbeat is, or "" if that cannot be said."""
    ours, theirs = (values.get(row.name, {}).get(one) for one in ("drumbeat", system))
    if not ours or not theirs:
        return ""
    return figures.times(figures.ratios(ours, theirs, more_is_better=row.more_is_better))


def cell(row: Row, values: dict[str, Any], system: str) -> str:
    """Return the median of a system, and below it how many times better Drumbeat is."""
    by_system = values[row.name]
    if system not in by_system:
        return "-"
    middle = figures.figure(statistics.median(by_system[system]))
    ratio = ratio_of(row, values, system) if system != "drumbeat" else ""
    return f"{middle}<br>{ratio} x" if ratio else middle


def comparison(found: dict[str, Any]) -> str:
    """Return the tables beside other systems: medians, and ratios with their range."""
    values = found["values"]
    systems = [name for name in TITLES if any(name in by_system for by_system in values.values())]
    short = ", short turns" if found["fast"] else ""
    text = told(found["machine"], f", {found['turns']} turns{short}")
    for group, rows in GROUPS.items():
        lines = [
            [
                f"{row.title}, {row.unit}".removesuffix(", "),
                *(cell(row, values, system) for system in systems),
            ]
            for row in rows
            if row.name in values
        ]
        if lines:
            text += table([HEADS[group], *(TITLES[system] for system in systems)], lines) + "\n"
    for system, why in found["missing"].items():
        text += f"{TITLES[system]} was not measured: {why}\n\n"
    return text


def core(found: dict[str, Any]) -> str:
    """Return what a task costs the core, over nodes and over the queue."""
    lines = [
        [
            f"{one['nodes']:,}", f"{one['queue']:,}", one["way"],
            figures.figure(one["rows_a_message"]), figures.shown(one["us"]),
            f"{one['queued_bytes']:,}" if one["queued_bytes"] else "",
        ]
        for one in found["points"]
    ]  # fmt: skip
    heads = ["nodes", "queued", "answers", "tasks a message", "µs a task", "bytes a queued task"]
    text = told(found["machine"]) + table(heads, lines) + "\n"
    for key in ("nodes", "queue"):
        text += f"- {scale.flat_over(found['points'], key)}\n"
    beats = found["beats_percent"]
    most = max(beats, key=int)
    return text + f"- the beats of {int(most):,} idle nodes: {beats[most]:.2g} % of a core\n\n"


def daemons(found: dict[str, Any]) -> str:
    """Return what a task costs with real daemons."""
    from .scale_real import COLUMNS

    lines = [
        [nodes, *(figures.shown(values[key]) for key in COLUMNS)]
        for nodes, values in found["nodes"].items()
    ]
    return told(found["machine"]) + table(["nodes", *COLUMNS.values()], lines) + "\n"


def shares(found: dict[str, Any]) -> str:
    """Return where the time of one task goes."""
    from .breakdown import heads, rows_of

    lines = rows_of(found["works"], lambda us: figures.figure(statistics.median(us)))
    return told(found["machine"], f", {found['turns']} turns") + table(heads(), lines) + "\n"


WRITERS = {"peers": comparison, "breakdown": shares, "scale": core, "scale_real": daemons}
#: plots by the part in which they stand, with what they show
PLOTS = {
    "peers": {"durations": "efficiency by duration", "payloads": "round trip by payload"},
    "breakdown": {},
    "scale": {"nodes": "cost a task over nodes", "queue": "cost a task over the queue"},
    "scale_real": {},
}


def draw(paths: Sequence[Path]) -> None:
    """Draw the plots, if there are any and matplotlib could be installed."""
    paths = [path for path in paths if PLOTS[kind_of(path)]]
    if not paths:
        return
    if why := environments.missing("plots"):
        print(f"no plots: {why}", file=sys.stderr)
        return
    command = [environments.python_of("plots"), "-m", "benchmarks.plots", str(DIRECTORY)]
    subprocess.run([*command, *map(str, paths)], cwd=results.ROOT, check=True)


def main() -> None:
    """Write the page."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    flags.add_argument("results", type=Path, nargs="*", help="default: the last of each kind")
    given = flags.parse_args()
    paths = given.results or [path for kind in KINDS if (path := results.latest(kind))]
    if unknown := [path for path in paths if kind_of(path) not in WRITERS]:
        flags.error(f"{unknown[0]} is of no kind that the page shows: {', '.join(WRITERS)}")
    if not paths:
        flags.error("there are no results; `make bench-peers` and `make bench-scale` make some")
    DIRECTORY.mkdir(exist_ok=True)
    kept = []
    for path in paths:
        kept.append(DIRECTORY / f"{kind_of(path)}.json")
        if path.resolve() != kept[-1]:
            shutil.copyfile(path, kept[-1])
    draw(kept)
    page = PAGE.read_text(encoding="utf-8")
    for path in kept:
        found = json.loads(path.read_text(encoding="utf-8"))
        text = WRITERS[kind_of(path)](found)
        for name, shows in PLOTS[kind_of(path)].items():
            if (DIRECTORY / f"{name}.svg").exists():
                text += f"![{shows}](performance/{name}.svg)\n\n"
        page = replaced(page, kind_of(path), text)
        print(f"{PAGE}: {kind_of(path)} of {found['machine']['date']}")
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()

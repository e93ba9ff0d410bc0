"""Measures Drumbeat beside other systems and prints the tables.

    python -m benchmarks [--peers] [--fast] [--turns N] [--groups table,micro] [--rows tree,errors]

Beside the pools of the standard library always; with --peers also beside Ray and Dask, as far as
`python -m benchmarks.environments` could install them: which one is not there is said, and the rest
goes on. Rows of the table are measured in a process each, those of the other groups in a process
each group; the systems take turns, so that what else the machine does falls on all alike. Medians
with their range are shown, and how many times better Drumbeat is, from turn to turn; everything is
kept as JSON in benchmarks/results/. Round trips are measured without Drumbeat as well, see bare.py:
what its processes and sockets cost alone. Round trips and throughput are measured also where
scheduler and node are reached over TCP with CURVE (see network.py), and compared with Unix sockets.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from . import environments, figures, results
from .adapters import SYSTEMS
from .rows import BY_NAME, GROUPS, PEERS, ROWS, TITLES, WORKERS, Row
from .tables import print_columns, tell

#: of a row of the table, and of a whole group
LIMIT_S, GROUP_LIMIT_S = 180, 900
END_S = 30

#: values by row, then by system, in the order of the turns
Values = dict[str, dict[str, list[float]]]


class Job(NamedTuple):
    """What one fresh process measures."""

    system: str
    rows: tuple[str, ...]


def jobs(rows: Sequence[Row], systems: Sequence[str]) -> list[Job]:
    """Return what is to be run in one turn: systems side by side, row by row, group by group."""
    found = []
    for group, members in GROUPS.items():
        wanted = [row for row in members if row in rows]
        parts = [[row] for row in wanted] if group == "table" else [wanted]
        for part in parts:
            for system in systems:
                names = tuple(row.name for row in part if system in row.systems)
                if names:
                    found.append(Job(system, names))
    return found


def measure(job: Job, *, fast: bool) -> dict[str, float]:
    """Run a job in a fresh process; what failed is missing, with the reason on stderr."""
    command = [environments.python_of(job.system), "-m", "benchmarks.measure", job.system]
    process = subprocess.Popen(
        [*command, ",".join(job.rows), *["--fast"] * fast],
        cwd=results.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    found: dict[str, float] = {}
    limit_s = LIMIT_S if len(job.rows) == 1 else GROUP_LIMIT_S
    with process:
        try:
            out, error = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            print(f"{job.system} {' '.join(job.rows)}: not done in {limit_s} s", file=sys.stderr)
            end(process)
            return found
    found = read(out, job.rows)
    for row in job.rows:
        if row not in found:
            print(f"{job.system} {row}: failed\n{error[-2000:]}", file=sys.stderr)
    return found


def read(out: str, rows: Sequence[str]) -> dict[str, float]:
    """Return what measure.py has printed, among whatever else the system said on its stdout."""
    found: dict[str, float] = {}
    lines = [line.split() for line in out.splitlines() if line.strip()]
    if len(rows) == 1 and lines:
        lines = [[rows[0], lines[-1][-1]]]
    for words in lines:
        if len(words) == 2 and words[0] in rows:
            try:
                found[words[0]] = float(words[1])
            except ValueError:
                continue
    return found


def end(process: "subprocess.Popen[str]") -> None:
    """End a measurement: told first, so that it can end the processes of its system."""
    process.terminate()
    try:
        process.communicate(timeout=END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def measure_all(todo: Sequence[Job], turns: int, *, fast: bool) -> Values:
    """Take turns: every job once, then all again."""
    values: Values = {}
    for turn in range(turns):
        for number, job in enumerate(todo, 1):
            what = job.rows[0] if len(job.rows) == 1 else BY_NAME[job.rows[0]].group
            tell(f"turn {turn + 1}/{turns}, {number}/{len(todo)}: {what} {job.system}")
            for row, value in measure(job, fast=fast).items():
                values.setdefault(row, {}).setdefault(job.system, []).append(value)
    tell("")
    return values


# ---------------------------------------------------------------------------------------- in words


def cell(row: Row, system: str, values: Values, missing: dict[str, str]) -> str:
    """Return what stands in a row of the table under a system."""
    if system not in row.systems:
        return "-"
    if found := values.get(row.name, {}).get(system):
        return figures.shown(found)
    return "not here" if system in missing else "failed"


def better(row: Row, system: str, values: Values) -> str:
    """Return how many times better Drumbeat is than a system, from turn to turn."""
    found = values.get(row.name, {})
    if not found.get("drumbeat") or not found.get(system):
        return "-"
    more = row.more_is_better
    return (
        figures.times(figures.ratios(found["drumbeat"], found[system], more_is_better=more)) or "-"
    )


def print_tables(
    rows: Sequence[Row], systems: Sequence[str], values: Values, missing: dict[str, str]
) -> None:
    """Print medians and ranges, and then how Drumbeat compares."""
    titles = [TITLES[system] for system in systems]
    print_columns(
        ["work", "unit", *titles],
        [
            [row.title, row.unit, *(cell(row, system, values, missing) for system in systems)]
            for row in rows
        ],
        left=2,
    )
    others = [system for system in systems if system != "drumbeat"]
    print("\nhow many times better Drumbeat is; below 1 it is worse")
    print_columns(
        ["work", *(TITLES[other] for other in others)],
        [[row.title, *(better(row, other, values) for other in others)] for row in rows],
        left=1,
    )
    for system, why in missing.items():
        print(f"{TITLES[system]} was not measured: {why}")


def print_budgets(rows: Sequence[Row], values: Values) -> None:
    """Print how many times another system's figure ours is, where a budget says how many."""
    for row in rows:
        found = values.get(row.name, {})
        if "drumbeat" not in found:
            continue
        ours = statistics.median(found["drumbeat"])
        for other, limit in row.at_most:
            if other in found:
                ratio = ours / statistics.median(found[other])
                print(f"{row.title}: {ratio:.2f} x {TITLES[other]}, budget {limit:g} x")


def print_network(rows: Sequence[Row], values: Values) -> None:
    """Print what TCP with encryption makes of a figure that Unix sockets have."""
    for row in rows:
        tcp, unix = (values.get(row.name, {}).get(system) for system in ("network", "drumbeat"))
        if tcp and unix:
            ratio = statistics.median(tcp) / statistics.median(unix)
            print(f"{row.title}: {ratio:.2f} x over TCP + CURVE what it is over Unix sockets")


# ---------------------------------------------------------------------------------------- all of it


def chosen(parser: argparse.ArgumentParser, given: argparse.Namespace) -> list[Row]:
    """Return the rows that were asked for, in the order of the table."""
    groups = given.groups.split(",") if given.groups else list(GROUPS)
    names = given.rows.split(",") if given.rows else [row.name for row in ROWS]
    if unknown := sorted({*groups} - {*GROUPS}):
        parser.error(f"no group {unknown}; there are {', '.join(GROUPS)}")
    if unknown := sorted({*names} - {*BY_NAME}):
        parser.error(f"no row {unknown}; there are {', '.join(BY_NAME)}")
    return [row for row in ROWS if row.name in names and row.group in groups]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--turns", type=int, default=0, help="default 5, with --fast or --peers 3")
    parser.add_argument("--fast", action="store_true", help="fewer and shorter turns")
    parser.add_argument("--peers", action="store_true", help="Ray and Dask as well")
    parser.add_argument("--groups", default="", help=f"of {', '.join(GROUPS)}; default all")
    parser.add_argument("--rows", default="", help="names, separated by commas; default all")
    given = parser.parse_args()
    rows = chosen(parser, given)
    # These are for whoever works on Drumbeat: in a comparison they only take time.
    asked = [
        name for name in SYSTEMS
        if (name not in ("network", "bare", "plain", "busy") if given.peers else name not in PEERS)
    ]  # fmt: skip
    missing = {name: why for name in asked if (why := environments.missing(name))}
    todo = jobs(rows, [name for name in asked if name not in missing])
    about = results.machine() | {"workers": WORKERS}
    turns = given.turns or (3 if given.fast or given.peers else 5)
    values = measure_all(todo, turns, fast=given.fast)

    print_tables(rows, asked, values, missing)
    print_budgets(rows, values)
    print_network(rows, values)
    path = results.keep(
        "peers" if given.peers else "table", about,
        fast=given.fast, turns=turns, values=values, missing=missing,
    )  # fmt: skip
    print(f"{about['processor']}, {about['cores']} cores, Python {about['python']}; kept in {path}")
    sys.exit(
        any(
            len(values.get(row, {}).get(job.system, ())) < turns for job in todo for row in job.rows
        )
    )


if __name__ == "__main__":
    main()

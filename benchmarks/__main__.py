"""Measures Drumbeat beside the pools of the standard library and prints the table.

    python -m benchmarks [--fast] [--turns N] [--rows round_trip,tree]

Each measurement runs in a process of its own; the systems take turns, so that what else the machine
does falls on all alike. Medians with their range are shown; everything is kept as JSON in
benchmarks/results/. Round trips are measured without Drumbeat as well, see bare.py: what its
processes and sockets cost alone. Round trips and throughput are measured also where scheduler and
node are reached over TCP with CURVE (see network.py), and compared with Unix sockets.
"""

import argparse
import datetime as dt
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .adapters import SYSTEMS, TITLES, WORKERS
from .workloads import ROWS, Row

RESULTS = Path(__file__).parent / "results"
LIMIT_S = 180
END_S = 30

#: values by row, then by system, in the order of the turns
Values = dict[str, dict[str, list[float]]]


def measure(system: str, row: str, *, fast: bool) -> float | None:
    """Run one measurement in a fresh process; None, with the reason on stderr, if it failed."""
    command = [sys.executable, "-m", "benchmarks.measure", system, row]
    process = subprocess.Popen(
        command + ["--fast"] * fast,
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            out, error = process.communicate(timeout=LIMIT_S)
            return float(out.split()[-1])
        except subprocess.TimeoutExpired:
            print(f"{system} {row}: not done in {LIMIT_S} s", file=sys.stderr)
            end(process)
        except (IndexError, ValueError):
            print(f"{system} {row}: failed\n{error[-2000:]}", file=sys.stderr)
    return None


def end(process: "subprocess.Popen[str]") -> None:
    """End a measurement: told first, so that it can end the processes of its system."""
    process.terminate()
    try:
        process.communicate(timeout=END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def tell(text: str) -> None:
    """Show what is being done, on one line that is written over, where somebody looks."""
    if sys.stderr.isatty():
        print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)


def measure_all(rows: list[Row], turns: int, *, fast: bool) -> Values:
    """Take turns: every row and system once, then all again."""
    values: Values = {row.name: {} for row in rows}
    for turn in range(turns):
        for row in rows:
            for system in row.systems:
                tell(f"turn {turn + 1}/{turns}: {row.name} {system}")
                value = measure(system, row.name, fast=fast)
                if value is not None:
                    values[row.name].setdefault(system, []).append(value)
    tell("")
    return values


def figure(value: float) -> str:
    """Return a number with three digits that count."""
    if value >= 1_000:
        return f"{round(value, -2):,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def shown(values: list[float]) -> str:
    """Return median and range."""
    middle = figure(statistics.median(values))
    return f"{middle} ({figure(min(values))}-{figure(max(values))})" if len(values) > 1 else middle


def ratio(row: Row, ours: list[float], theirs: list[float]) -> str:
    """Return how many times better we are: above 1 is better, whichever way the row counts."""
    mine, other = statistics.median(ours), statistics.median(theirs)
    if not mine or not other:
        return ""
    return f"{mine / other if row.more_is_better else other / mine:.2f}"


def print_table(rows: list[Row], values: Values) -> None:
    """Print medians, ranges, and how Drumbeat compares."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("work")
    table.add_column("unit")
    for system in SYSTEMS:
        table.add_column(TITLES[system], justify="right")
    table.add_column("better than network / executor / pool / bare", justify="right")
    for row in rows:
        found = values[row.name]
        ours = found.get("drumbeat")
        ratios = [
            ratio(row, ours, found[other]) if ours and found.get(other) else "-"
            for other in SYSTEMS
            if other != "drumbeat"
        ]
        cells = [shown(found[system]) if found.get(system) else "-" for system in SYSTEMS]
        table.add_row(row.title, row.unit, *cells, " / ".join(ratios))
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)


def print_budgets(rows: list[Row], values: Values) -> None:
    """Print how many times another system's figure ours is, where a budget says how many."""
    for row in rows:
        found = values[row.name]
        if "drumbeat" not in found:
            continue
        ours = statistics.median(found["drumbeat"])
        for other, limit in row.at_most:
            if other in found:
                times = ours / statistics.median(found[other])
                print(f"{row.title}: {times:.2f} x {TITLES[other]}, budget {limit:g} x")


def print_network(rows: list[Row], values: Values) -> None:
    """Print what TCP with encryption makes of a figure that Unix sockets have."""
    for row in rows:
        tcp, unix = (values[row.name].get(system) for system in ("network", "drumbeat"))
        if tcp and unix:
            times = statistics.median(tcp) / statistics.median(unix)
            print(f"{row.title}: {times:.2f} x over TCP + CURVE what it is over Unix sockets")


def machine() -> dict[str, object]:
    """Return what the figures depend on."""
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "workers": WORKERS,
        "load_before": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--turns", type=int, default=0, help="default 5, with --fast 3")
    parser.add_argument("--fast", action="store_true", help="fewer and shorter turns")
    parser.add_argument("--rows", default="", help="names, separated by commas; default all")
    arguments = parser.parse_args()
    names = arguments.rows.split(",") if arguments.rows else [row.name for row in ROWS]
    rows = [row for row in ROWS if row.name in names]
    if unknown := set(names) - {row.name for row in ROWS}:
        parser.error(f"no row {sorted(unknown)}; there are {', '.join(row.name for row in ROWS)}")
    about = machine()
    values = measure_all(rows, arguments.turns or (3 if arguments.fast else 5), fast=arguments.fast)

    print_table(rows, values)
    print_budgets(rows, values)
    print_network(rows, values)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{str(about['date']).replace(':', '')}.json"
    path.write_text(json.dumps({"machine": about, "values": values}, indent=2) + "\n")
    print(f"{about['processor']}, {about['cores']} cores, Python {about['python']}; kept in {path}")
    sys.exit(any(len(values[row.name]) < len(row.systems) for row in rows))


if __name__ == "__main__":
    main()

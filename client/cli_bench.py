"""`drumbeat bench`: what a running cluster does in a second, and what each node did of it.

Never decides what is measured: bench.py does. Its tasks are ordinary ones, beside whatever else the
cluster runs.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import click

from ..protocol.errors import DrumbeatError, GetTimeoutError
from ..protocol.session import Session
from . import bench, cli_cluster, cli_tables
from .cli_words import FAILED, examples, print_json, refuse

Connect = Callable[[str | None], AbstractContextManager[Session]]

COLUMNS: Final = {
    "name": "node",
    "round_trip_ms": "round trip, ms",
    "tasks_per_s": "tasks a second, alone",
    "ran": "ran of all tasks",
    "mb_per_s": "MB a second to it",
    "spin_ms": "computing, ms",
    "why": "why not",
}


@click.command(
    "bench",
    epilog=examples("drumbeat bench", "drumbeat bench --node lab3", "drumbeat bench --json"),
)
@click.pass_obj
@click.option(
    "--tasks",
    type=click.IntRange(100, 1_000_000),
    default=5_000,
    show_default=True,
    help="No-op tasks at once.",
)
@click.option("--node", "chosen", metavar="NAME", multiple=True, help="Of the nodes this one only.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="Nodes that are measured alone, at most.",
)
@click.option(
    "--within",
    "within_s",
    type=click.FloatRange(0.1, 3_600),
    default=10.0,
    show_default=True,
    help="Seconds in which tasks have to end; else what they were for is left out.",
)
def command(
    connect: Connect,
    address: str | None,
    json_wanted: bool,
    tasks: int,
    chosen: tuple[str, ...],
    limit: int,
    within_s: float,
) -> None:
    """Measure a running cluster, from here, for some seconds.

    First the cluster as a whole: the round trip of a task that does nothing, and how many such
    tasks it does in a second. Then each node alone: the same, how fast an argument of 1 MB gets
    there, and how long a core of it takes to compute the same as those of the others.

    The tasks take their turn beside others: on a cluster that is at work the figures are lower.
    """
    with connect(address) as session:
        names = wanted(session.query("nodes", limit=10_000), chosen)
        where = cli_cluster.where(session)
        try:
            found = bench.measure(
                runner(within_s), names[:limit], bench.Sizes(tasks), time.perf_counter
            )
        except bench.Busy as busy:
            refuse(f"the cluster was not measured: {cli_tables.plain(busy)}", FAILED)
    if json_wanted:
        print_json({"cluster": where, **found})
        return
    for line in summary(found):
        click.echo(line)
    cli_tables.show(cli_tables.rows_table(found["nodes"], COLUMNS, cli_tables.terminal_width()))
    if len(names) > limit:
        click.echo(f"the first {limit} of {len(names)} nodes; more with --limit", err=True)


def wanted(rows: Sequence[Mapping[str, Any]], chosen: Sequence[str]) -> list[str]:
    """Return the names of the nodes that are measured: those that are there, or those chosen."""
    names = [str(row["name"]) for row in rows if row["state"] == "alive"]
    if unknown := [name for name in chosen if name not in names]:
        refuse(
            f"no node {cli_tables.plain(unknown[0])!r} is alive; `drumbeat nodes` lists them",
            FAILED,
        )
    if not names:
        refuse("the cluster has no node that is alive; `drumbeat nodes` says more", FAILED)
    return [name for name in names if not chosen or name in chosen]


def summary(found: Mapping[str, Any]) -> list[str]:
    """Return what was found of the cluster as a whole."""
    middle, worst = found["round_trip_ms"], found["round_trip_worst_ms"]
    return [
        f"round trip of a task: {middle:.3g} ms, worst {worst:.3g} ms",
        f"{found['tasks']:,} tasks at once: {found['tasks_per_s']:,} a second",
    ]


def runner(within_s: float) -> bench.Tasks:
    """Return what runs tasks on the cluster that is connected."""
    # here and not above: other commands need none of it
    from . import api, functions

    remotes: dict[tuple[Callable[..., Any], str], Any] = {}

    def run(
        function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], node: str
    ) -> list[Any]:
        remote = remotes.get((function, node))
        if remote is None:
            options = {"node": node} if node else {}
            remote = remotes[function, node] = functions.remote(function).options(**options)
        refs: list[Any] = []
        try:
            refs += [remote.remote(*given) for given in arguments]
            return api.get(refs, timeout=within_s)
        except GetTimeoutError:
            api.cancel(refs)
            raise bench.Busy(
                f"tasks did not end within {within_s:g} s; `drumbeat tasks` shows what else runs"
            ) from None
        except DrumbeatError as error:
            raise bench.Busy(str(error).partition("\n")[0]) from None

    return run

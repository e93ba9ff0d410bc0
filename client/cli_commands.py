"""The command line: `drumbeat status | nodes | tasks | actors | cancel` on a live cluster.

Never decides anything: it asks the scheduler what the public API could ask, and prints it. One line
says what is wrong and what to type instead. Commands that start something are in cli_start.py.

Exit codes: 0 done, 1 the cluster could not do it, 2 the command line was wrong, 3 no cluster.
"""

import difflib
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import click
from click.core import ParameterSource

from .. import __version__
from ..protocol import interrupts
from ..protocol.errors import ConfigError, DrumbeatError
from ..protocol.ids import ObjectId, parse, show
from ..protocol.session import Session
from . import (
    cli_bench,
    cli_cluster,
    cli_drain,
    cli_events,
    cli_hosts,
    cli_kill,
    cli_objects,
    cli_stack,
    cli_start,
    cli_tables,
    cli_top,
)
from .addresses import VARIABLE, may_hold_key
from .cli_words import (
    FAILED,
    NO_CLUSTER,
    WRONG_USAGE,
    examples,
    print_json,
    refuse,
    show_rows,
)

#: what may stand in what was typed in a wrong place
SECRETS = re.compile(r"drumbeat://\S+")

#: how a command comes by its session: handed in, so that tests need no cluster
Connect = Callable[[str | None], AbstractContextManager[Session]]


class _CtrlC(Exception):  # noqa: N818  # it is no error
    """Ctrl-C, past click, which would print an empty line."""


class Commands(click.Group):
    """A group of commands that answers a mistyped one with the nearest it has."""

    def invoke(self, context: click.Context) -> Any:
        """Run a command; before and after it there is nothing that Ctrl-C could spoil."""
        try:
            with interrupts.raised():
                return super().invoke(context)
        except KeyboardInterrupt:
            raise _CtrlC from None

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which was probably meant."""
        typed = args[0]
        if self.get_command(context, typed) is None and not typed.startswith("-"):
            names = self.list_commands(context)
            near = difflib.get_close_matches(typed, names, n=1, cutoff=0.5)
            advice = f"did you mean `drumbeat {near[0]}`?" if near else f"try {', '.join(names)}"
            refuse(f"there is no command {cli_tables.plain(typed)!r}; {advice}", WRONG_USAGE)
        return super().resolve_command(context, args)


def at_cluster(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which cluster is meant."""
    return click.option(
        "--address",
        metavar="FILE|DIRECTORY",
        envvar=VARIABLE,
        callback=in_no_list_of_processes,
        help="A cluster file, or the directory of a running cluster; without it DRUMBEAT_ADDRESS, "
        "else the local cluster of yours that started last, else this machine's scheduler.",
    )(command)


def in_no_list_of_processes(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    """Refuse a secret that was typed: everybody on the machine sees what others typed."""
    typed = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    if typed and value and may_hold_key(value):
        refuse(
            "a drumbeat:// address holds a secret key, and what stands on a command line is shown "
            f"to everybody on this machine; name a cluster file, or set {VARIABLE}",
            WRONG_USAGE,
        )
    return value


def as_json(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option for programs."""
    return click.option("--json", "json_wanted", is_flag=True, help="Print JSON, for programs.")(
        command
    )


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 the cluster could not do it, 2 wrong usage, 3 no cluster found.",
)
@click.version_option(__version__, prog_name="drumbeat", message="%(prog)s %(version)s")
def commands() -> None:
    """Start a Drumbeat cluster, see it and steer it.

    A local cluster lives as long as the program that called drumbeat.init(); type these in another
    terminal. One of several machines is a `drumbeat scheduler`, and a `drumbeat node` on each.
    """


@commands.command(epilog=examples("drumbeat status", "drumbeat status --json"))
@click.pass_obj
@at_cluster
@as_json
def status(connect: Connect, address: str | None, json_wanted: bool) -> None:
    """Say in a few lines how the cluster is doing."""
    with connect(address) as session:
        answer = {"cluster": cli_cluster.where(session), **session.query("status")}
    if json_wanted:
        print_json(answer)
        return
    cli_tables.show(cli_tables.status_table(answer))
    if not address:
        for text in cli_cluster.others(answer["cluster"]):
            click.echo(text, err=True)


@commands.command(epilog=examples("drumbeat nodes", "drumbeat nodes --json"))
@click.pass_obj
@at_cluster
@as_json
def nodes(connect: Connect, address: str | None, json_wanted: bool) -> None:
    """List the nodes: what they have, what is free, what they run."""
    with connect(address) as session:
        rows = session.query("nodes", limit=10_000)
    if json_wanted:
        print_json(rows)
    elif rows:
        show_rows(rows, cli_tables.NODE_COLUMNS)
    else:
        click.echo("the cluster has no node at the moment")


@commands.command(
    epilog=examples(
        "drumbeat tasks",
        "drumbeat tasks resize --limit 20",
        "drumbeat tasks 5f0c2b9a11d4-0-2a --json",
    )
)
@click.pass_obj
@at_cluster
@as_json
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Rows at most."
)
@click.argument("match", default="")
def tasks(connect: Connect, address: str | None, json_wanted: bool, limit: int, match: str) -> None:
    """List the tasks that have no result yet, running ones first.

    MATCH keeps those whose function's name or whose id begins so.
    """
    with connect(address) as session:
        rows = session.query("tasks", limit=limit, match=match)
    if json_wanted:
        print_json(rows)
    elif rows:
        shown = cli_tables.task_rows(rows)
        show_rows(shown, cli_tables.TASK_COLUMNS)
        if len(rows) == limit:
            click.echo(f"the first {limit}; more with --limit", err=True)
    else:
        which = f" that begins with {cli_tables.plain(match)!r}" if match else ""
        click.echo(f"no unfinished task{which}")


@commands.command(
    epilog=examples("drumbeat actors", "drumbeat actors Counter", "drumbeat actors --json")
)
@click.pass_obj
@at_cluster
@as_json
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Rows at most."
)
@click.argument("match", default="")
def actors(
    connect: Connect, address: str | None, json_wanted: bool, limit: int, match: str
) -> None:
    """List the actors: where each lives, in which incarnation, what waits for it.

    Those that have ended come last, as long as they are remembered. MATCH keeps those whose class's
    name or whose id begins so.
    """
    with connect(address) as session:
        rows = session.query("actors", limit=limit, match=match)
    if json_wanted:
        print_json(rows)
    elif rows:
        show_rows(rows, cli_tables.ACTOR_COLUMNS)
        if len(rows) == limit:
            click.echo(f"the first {limit}; more with --limit", err=True)
    else:
        which = f" that begins with {cli_tables.plain(match)!r}" if match else ""
        click.echo(f"no actor{which}")


@commands.command(
    epilog=examples(
        "drumbeat cancel 5f0c2b9a11d4-0-2a",
        "drumbeat cancel --force 5f0c2b9a11d4-0-2a 5f0c2b9a11d4-0-2b",
    )
)
@click.pass_obj
@at_cluster
@as_json
@click.option("--force", is_flag=True, help="Kill at once, without asking the task to stop.")
@click.option("--no-children", is_flag=True, help="Let the tasks that it submitted go on.")
@click.argument("ids", metavar="TASK...", nargs=-1, required=True)
def cancel(
    connect: Connect,
    address: str | None,
    json_wanted: bool,
    force: bool,
    no_children: bool,
    ids: tuple[str, ...],
) -> None:
    """Cancel tasks by the ids that `drumbeat tasks` shows.

    A queued task is dropped. A running one is asked to stop (drumbeat.Interrupted), and its worker
    is ended when it does not.
    """
    wanted = {}
    for text in ids:
        try:
            task = parse(text)
        except ValueError:
            refuse(
                f"{cli_tables.plain(text)!r} is not a task id, which looks like 5f0c2b9a11d4-0-2a; "
                "`drumbeat tasks` lists them",
                WRONG_USAGE,
            )
        wanted[show(task)] = ObjectId(task)
    with connect(address) as session:
        states = {text: state_of(session, text) for text in wanted}
        found = [id_ for text, id_ in wanted.items() if states[text]]
        if found:
            session.cancel(found, force, not no_children)
            session.query("status")  # the answer proves that what was sent before has arrived
    if json_wanted:
        print_json([{"id": text, "was": state or "unknown"} for text, state in states.items()])
    else:
        for text, state in states.items():
            if state:
                click.echo(f"{text}: was {state}, is being cancelled")
    unknown = [text for text, state in states.items() if not state]
    if unknown:
        refuse(
            f"no unfinished task {', '.join(unknown)}; `drumbeat tasks` lists those there are",
            FAILED,
        )


at_cluster(as_json(cli_drain.drain))
for command in (
    cli_stack.stack, cli_events.events, cli_top.top, cli_kill.kill, cli_bench.command,
    cli_objects.objects,
):  # fmt: skip
    at_cluster(as_json(command))
    commands.add_command(command)
own = (cli_start.scheduler, cli_start.node, cli_drain.drain)
for command in (*own, *cli_hosts.COMMANDS):
    commands.add_command(command)


def state_of(session: Session, text: str) -> str:
    """Return the state of an unfinished task, or "" if there is none of that id."""
    for row in session.query("tasks", limit=1000, match=text):
        if row["id"] == text:
            return cli_tables.plain(row["state"])
    return ""


def main(arguments: Sequence[str] | None = None, connect: Connect | None = None) -> None:
    """Run the command line; an error becomes one line and an exit code."""
    try:
        commands.main(
            arguments,
            prog_name="drumbeat",
            standalone_mode=False,
            obj=connect or cli_cluster.connected,
        )
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(WRONG_USAGE)
    except click.UsageError as error:
        text = SECRETS.sub("drumbeat://...", cli_tables.plain(error.format_message().rstrip(".")))
        path = error.ctx.command_path if error.ctx else "drumbeat"
        refuse(f"{text}; `{path} --help` shows what it takes", WRONG_USAGE)
    except (click.Abort, _CtrlC):
        raise KeyboardInterrupt from None
    except cli_cluster.NoCluster as error:
        refuse(cli_tables.plain(error), NO_CLUSTER)
    except ConfigError as error:
        refuse(cli_tables.plain(str(error).partition("\n")[0]), WRONG_USAGE)
    except DrumbeatError as error:
        refuse(cli_tables.plain(str(error).partition("\n")[0]), FAILED)

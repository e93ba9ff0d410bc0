"""`drumbeat stack`: where the threads of workers are at this moment, also of stuck ones.

Never decides what is shown of a stack: stack_text.py does, and makes it harmless.
"""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager

import click

from ..protocol.session import Session
from . import cli_tables, stack_text
from .cli_words import FAILED, WRONG_USAGE, examples, refuse

Connect = Callable[[str | None], AbstractContextManager[Session]]


@click.command(
    epilog=examples(
        "drumbeat stack 5f0c2b9a11d4-0-2a",
        "drumbeat stack totals",
        "drumbeat stack lab3/4121",
        "drumbeat stack --all",
    )
)
@click.pass_obj
@click.option("--all", "everything", is_flag=True, help="Of every worker that runs something.")
@click.option("--whole", is_flag=True, help="Show Drumbeat's own frames and threads as well.")
@click.argument("what", metavar="[TASK|ACTOR|WORKER]", default="")
def stack(
    connect: Connect,
    address: str | None,
    json_wanted: bool,
    what: str,
    everything: bool,
    whole: bool,
) -> None:
    """Show where a running task or an actor is, innermost call first.

    TASK is an id that `drumbeat tasks` shows, ACTOR one that `drumbeat actors` shows, or the name
    that it was given, WORKER a process id, alone or as NODE/PID. It works for a worker that holds
    the interpreter's lock too; one that is stopped cannot answer.
    """
    if bool(what.strip()) == everything:
        refuse(
            "name a task, an actor or a worker, or say --all; `drumbeat tasks` lists tasks",
            WRONG_USAGE,
        )
    with connect(address) as session:
        answer = session.query("stack", match=what.strip())
    if isinstance(answer, dict):
        refuse(cli_tables.plain(answer["error"]), FAILED)
    if json_wanted:
        click.echo(json.dumps(answer, indent=2))
    elif not answer:
        which = "no worker runs anything" if everything else f"no worker {cli_tables.plain(what)}"
        refuse(which, FAILED)
    else:
        for row in answer:
            click.echo(heading(row))
            for line in stack_text.lines(row["stack"], whole=whole, task=row["task"]):
                click.echo(line)


def heading(row: dict[str, object]) -> str:
    """Return whose stacks follow, or why none do."""
    name, task, pid, node = (cli_tables.plain(row[key]) for key in ("name", "task", "pid", "node"))
    what = f"{name} {task}".strip() or "idle"
    where = f"node {node}" if pid == "0" else f"pid {pid}, node {node}"
    why = f": no stack, {cli_tables.plain(row['why'])}" if row["why"] else ""
    return f"{what} ({where}){why}" if pid != "0" or task else f"{where}{why}"

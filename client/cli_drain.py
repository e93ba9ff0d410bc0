"""`drumbeat drain`: has nodes end in peace, so that their machines can be taken away.

Never decides: the scheduler and the nodes do. It asks, and with --wait looks until they are gone.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, cast

import click

from ..protocol.drain import Drain
from ..protocol.session import Session
from . import cli_tables
from .cli_words import FAILED, examples, print_json, refuse

#: with --wait the nodes are looked at this often
LOOK_S: Final = 0.5
#: the state of a node that is not there
UNKNOWN: Final = "unknown"

Connect = Callable[[str | None], AbstractContextManager[Session]]


class AdminSession(Protocol):
    """What a session can do besides that tasks have no use for."""

    def answer_to(self, message: Drain) -> Any:
        """Return what the scheduler answers to an order."""


@click.command(epilog=examples("drumbeat drain lab3", "drumbeat drain lab3 lab4 --wait"))
@click.pass_obj
@click.option("--cancel", is_flag=True, help="End what runs there; it is tried again elsewhere.")
@click.option("--wait", is_flag=True, help="Come back when the nodes are gone.")
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True)
def drain(
    connect: Connect,
    address: str | None,
    nodes: tuple[str, ...],
    cancel: bool,
    wait: bool,
    json_wanted: bool,
) -> None:
    """Let nodes, by name or id, finish what they run and end.

    They are given nothing new; what has not started there runs elsewhere. A node ends when nothing
    runs on it, its results are where they belong and nobody holds a value that it keeps, or when
    its drain_timeout_s are over. Its machine's own TERM does the same.

    JSON is one list at the end, of the name, id and state of each node: draining, lost, unknown;
    with --wait also gone.
    """
    with connect(address) as session:
        order = Drain(0, list(nodes), cancel)
        answer = cast("AdminSession", session).answer_to(order)
        if isinstance(answer, Mapping):
            refuse(cli_tables.plain(answer["error"]), FAILED)
        if not json_wanted:
            for row in answer:
                if row["state"] != UNKNOWN:
                    what = (
                        "is being drained" if row["state"] == "draining" else "was lost meanwhile"
                    )
                    click.echo(f"{cli_tables.plain(row['name'])}: {what}")
        unknown = [row["name"] for row in answer if row["state"] == UNKNOWN]
        waits = wait and not unknown
        if waits:
            until_gone(session, answer, echo=_nothing if json_wanted else click.echo)
        if json_wanted:
            print_json([{**row, "state": "gone"} if waits else row for row in answer])
        if unknown:
            names = ", ".join(map(cli_tables.plain, unknown))
            refuse(f"there is no node {names}; `drumbeat nodes` lists those there are", FAILED)


def _nothing(_text: str) -> None:
    pass


def until_gone(
    session: Session,
    rows: Sequence[Mapping[str, Any]],
    echo: Callable[[str], Any] = click.echo,
    pause: Callable[[float], Any] = time.sleep,
) -> None:
    """Look until none of the nodes is there; say what they wait for when that changes."""
    left = {row["id"]: row["name"] for row in rows}
    said: dict[str, str] = {}
    while True:
        there = {row["id"]: row for row in session.query("nodes", limit=10_000)}
        for id_ in [id_ for id_ in left if id_ not in there]:
            echo(f"{cli_tables.plain(left.pop(id_))}: gone")
        if not left:
            return
        for id_, name in left.items():
            waits = ", ".join(there[id_].get("waits_for", ()))
            if waits != said.get(id_):
                said[id_] = waits
                echo(f"{cli_tables.plain(name)}: waits for {cli_tables.plain(waits)}")
        pause(LOOK_S)

"""`drumbeat kill`: ends the process of an actor, for good or so that it begins anew.

Never decides: the scheduler does. It asks, and says which actors there were.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

import click

from ..protocol.ids import ObjectId, parse, show
from ..protocol.session import Session
from . import cli_tables
from .cli_words import FAILED, WRONG_USAGE, examples, print_json, refuse

#: so many actors of one name are looked at
NAMED_MAX: Final = 100

Connect = Callable[[str | None], AbstractContextManager[Session]]


@click.command(
    epilog=examples(
        "drumbeat kill 5f0c2b9a11d4-0-7",
        "drumbeat kill --restart 5f0c2b9a11d4-0-7 5f0c2b9a11d4-0-8",
    )
)
@click.pass_obj
@click.option(
    "--restart", is_flag=True, help="As if its process had died: it is restarted if it may be."
)
@click.argument("ids", metavar="ACTOR...", nargs=-1, required=True)
def kill(
    connect: Connect, address: str | None, json_wanted: bool, restart: bool, ids: tuple[str, ...]
) -> None:
    """Kill actors by the ids that `drumbeat actors` shows, or by the names they were given.

    Their processes are ended at once, without a word to them. Calls that have no result raise
    ActorDied, or ActorCallLost when the actor is restarted.
    """
    with connect(address) as session:
        found = {text: actor_of(session, text) for text in ids}
        alive = {text: row for text, row in found.items() if row and row["state"] != "dead"}
        for row in alive.values():
            session.kill(ObjectId(parse(row["id"])), restart=restart)
        session.query("status")  # the answer proves that what was sent before has arrived
    if json_wanted:
        print_json(
            [
                {"actor": text, "id": row["id"] if row else "", "was": _state(row)}
                for text, row in found.items()
            ]
        )
    else:
        for row in alive.values():
            what = "is being killed, and restarted if it may be" if restart else "is being killed"
            name = cli_tables.plain(f"{row['name']} {row['id']}")
            click.echo(f"{name}: was {_state(row)}, {what}")
    missing = [text for text in ids if text not in alive]
    if missing:
        names = ", ".join(map(cli_tables.plain, missing))
        refuse(f"no living actor {names}; `drumbeat actors` lists those there are", FAILED)


def actor_of(session: Session, text: str) -> Mapping[str, Any] | None:
    """Return the row of an actor by its id, or by the name that it was given; None: there is none.

    What is neither an id nor a name is refused: the name of a class is no name of an actor.
    """
    try:
        id_ = show(parse(text))
    except ValueError:
        id_ = ""
    for row in session.query("actors", limit=NAMED_MAX, match=id_ or text):
        if id_ and row["id"] == id_:
            return dict(row)
        if not id_ and row.get("named") == text:
            return dict(row)
    if not id_ and not text.strip():
        refuse(
            "an actor's id looks like 5f0c2b9a11d4-0-7; `drumbeat actors` lists them", WRONG_USAGE
        )
    return None


def _state(row: Mapping[str, Any] | None) -> str:
    return cli_tables.plain(row["state"]) if row else "unknown"

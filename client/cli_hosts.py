"""`drumbeat up`, `down` and `hosts`: the nodes on the machines that a hosts.toml lists.

Never decides how a node is started or ended: client/hosts_there.py does, on the machine itself.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import cli_tables
from .cli_words import FAILED, examples, refuse

if TYPE_CHECKING:
    from .hosts import Ending, Host

#: `down` waits so long for nodes to drain
DRAIN_WAIT_S = 3600.0
JOIN_WAIT_S = 30.0


def on_hosts(command: Callable[..., None]) -> Callable[..., None]:
    """Add the arguments that say which machines are meant."""
    file = click.argument("file", type=click.Path(path_type=Path), metavar="HOSTS.TOML")
    names = click.argument("names", nargs=-1, metavar="[NAME]...")
    return file(names(command))


@click.command(epilog=examples("drumbeat up hosts.toml", "drumbeat up hosts.toml lab1 lab2"))
@click.option(
    "--cluster",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The nodes' cluster file, which each machine is sent; without it the one that HOSTS.TOML "
    "names, else that of the scheduler that was started here.",
)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0),
    default=JOIN_WAIT_S,
    show_default=True,
    metavar="SECONDS",
    help="For each node to join.",
)
@on_hosts
def up(file: Path, names: tuple[str, ...], cluster: Path | None, wait_s: float) -> None:
    """Start nodes on other machines, by ssh.

    Each machine needs an account that your key opens without a question, and Drumbeat in a Python
    environment. Nodes outlive this command, and the connection. What they say until they have
    joined is shown with their name before it. A node that runs already is left as it is.
    """
    from . import hosts  # tomllib and threads: not for other commands

    listed = hosts.read(file)
    wanted = hosts.chosen(listed.hosts, names, file)
    text = _cluster_text(cluster or listed.cluster)
    requests = [(host, hosts.start_request(host, text, wait_s)) for host in wanted]
    _say_how(hosts.Conversations(_show).run(requests), "joined")


@click.command(epilog=examples("drumbeat down hosts.toml", "drumbeat down hosts.toml lab1 --now"))
@click.option("--now", is_flag=True, help="End what runs, too; it is retried on other nodes.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0),
    default=DRAIN_WAIT_S,
    show_default=True,
    metavar="SECONDS",
    help="For what runs to end; after it this command ends, the nodes still drain.",
)
@on_hosts
def down(file: Path, names: tuple[str, ...], now: bool, wait_s: float) -> None:
    """Stop the nodes that `drumbeat up` has started.

    Each node takes no new work, and ends when what it runs has ended. Ctrl-C ends the waiting, not
    the draining; a second `down` with --now ends the nodes at once.
    """
    from . import hosts

    wanted = hosts.chosen(hosts.read(file).hosts, names, file)
    requests = [(host, hosts.stop_request(host, now=now, wait_s=wait_s)) for host in wanted]
    _say_how(hosts.Conversations(_show).run(requests), "down")


@click.command("hosts", epilog=examples("drumbeat hosts hosts.toml"))
@on_hosts
def hosts_(file: Path, names: tuple[str, ...]) -> None:
    """Ask each listed machine how its node is."""
    from . import hosts

    wanted = hosts.chosen(hosts.read(file).hosts, names, file)
    requests = [(host, hosts.status_request(host)) for host in wanted]
    _say_how(hosts.Conversations(_show).run(requests), "joined")


COMMANDS = (up, down, hosts_)


def _cluster_text(path: Path | None) -> str:
    """Return the text of the nodes' cluster file.

    Raises:
        ConfigError: there is none, or it is another role's, or others could read it.
    """
    from ..protocol.cluster_file import name_of, read_address, text_of
    from ..protocol.errors import ConfigError
    from ..protocol.frames import Role
    from .runtime import scheduler_directory

    path = path or scheduler_directory() / name_of(Role.NODE)
    address = read_address(path)
    if address.role != Role.NODE:
        raise ConfigError(
            f"the cluster file {path} is for the role {address.role}; machines that run tasks "
            f"get {name_of(Role.NODE)} and no other"
        )
    return text_of(address)


def _show(host: "Host", text: str) -> None:
    click.echo(f"{cli_tables.plain(host.name)} | {cli_tables.plain(text)}")


def _say_how(endings: "Sequence[Ending]", word: str) -> None:
    bad = [one for one in endings if one.exit_code]
    if not bad:
        click.echo(f"{_nodes(len(endings))} {word}")
        return
    reasons = "; ".join(f"{one.host.name}: {_reason(one)}" for one in bad)
    text = f"{len(endings) - len(bad)} of {_nodes(len(endings))} {word}; {reasons}"
    refuse(cli_tables.plain(text), FAILED)


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _reason(ending: "Ending") -> str:
    from .hosts import SSH_FAILED

    how = "ssh" if ending.exit_code == SSH_FAILED else f"exit code {ending.exit_code}"
    return ending.words or how

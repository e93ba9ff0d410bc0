"""The commands that start a cluster of several machines: `drumbeat scheduler` and `node`.

Never runs one itself: this process becomes it, with an environment that holds no secret. What a
node comes with goes through a pipe that only its daemon's side reads.
"""

import json
import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import click

from ..protocol import interrupts
from ..protocol import labels as node_labels
from ..protocol.cluster_file import name_of, read_address, text_of
from ..protocol.endpoints import ANY_HOST, is_loopback, split_tcp
from ..protocol.errors import ConfigError
from ..protocol.frames import Role
from ..protocol.keys import ROLES, Address, is_address, show_address
from ..protocol.resources import AMOUNTS, fits
from ..protocol.settings import Settings, environment_name
from . import addresses, runtime
from .cli_words import WRONG_USAGE, examples, refuse
from .launcher import environment

DIRECTORY = click.Path(file_okay=False, path_type=Path)


def become(module: str, flags: list[str], *, keeps: Iterable[int] = ()) -> NoReturn:
    """Let this process become a daemon; of its descriptors only these stay.

    Nothing but the flags and the environment passes over: no secret, since neither holds any.
    """
    for fd in keeps:
        os.set_inheritable(fd, True)
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, "-P", "-m", module, *flags]
    interrupts.hold()
    os.execve(sys.executable, command, environment())


# ------------------------------------------------------------------------------------- scheduler


@click.command(
    epilog=examples(
        "drumbeat scheduler",
        "drumbeat scheduler --advertise lab1.example.org:7788",
        "drumbeat scheduler --show node",
    )
)
@click.option(
    "--directory",
    type=DIRECTORY,
    help="Where its keys and cluster files lie, made on the first start.  "
    "[default: ~/.local/state/drumbeat/cluster]",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Where it listens.  [default: all interfaces, port scheduler_port, 7788]",
)
@click.option(
    "--advertise",
    metavar="HOST:PORT",
    help="Where others reach it, written into the cluster files.  [default: the setting advertise, "
    "else this machine's own address]",
)
@click.option(
    "--copy",
    "copies",
    metavar="ROLE=DIRECTORY",
    multiple=True,
    help="Keep a copy of that role's cluster file there, for who must not see the others.",
)
@click.option(
    "--show",
    metavar="ROLE",
    type=click.Choice(ROLES),
    help="Start nothing: print the file of a role (client, node, admin) as one line to paste. It "
    "is a secret.",
)
def scheduler(
    directory: Path | None,
    listen: str | None,
    advertise: str | None,
    copies: tuple[str, ...],
    show: str | None,
) -> None:
    """Start the scheduler of a cluster of several machines.

    It listens on the network, encrypted, and admits nobody without one of the keys that it makes
    on its first start. Ended with Ctrl-C or TERM, it goes on where it was when started again.
    """
    settings = Settings.load()
    where = (directory or runtime.scheduler_directory()).absolute()
    if show is not None:
        show_role(where, show)
        return
    listen = full(listen or ANY_HOST, settings.scheduler_port, "--listen")
    flags = ["--directory", str(where), "--listen", listen]
    what = "--advertise" if advertise else f"{environment_name('advertise')}, the setting"
    advertise = advertise or settings.advertise
    if advertise:
        flags += ["--advertise", full(advertise, split_tcp(listen, "--listen")[1], what)]
    become("drumbeat.scheduler", [*flags, *(f"--copy={copy}" for copy in copies)])


def full(text: str, port: int, what: str) -> str:
    """Return "HOST:PORT" of what was typed, which may be HOST alone.

    Raises:
        ConfigError: it is no such thing.
    """
    alone = text.endswith("]") or ":" not in text
    host, port = split_tcp(f"{text}:{port}" if alone else text, what)
    if not port:
        raise ConfigError(f"{what}: a port that others can be told is a number from 1")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def show_role(directory: Path, role: str) -> None:
    """Print the one line that holds all that a role needs, to a person only."""
    path = directory / name_of(role)
    quoted = shlex.quote(str(path))
    if not os.path.lexists(path):
        refuse(
            f"there is no {path}: `drumbeat scheduler` makes it on its first start "
            "(--directory names another place)",
            WRONG_USAGE,
        )
    if not sys.stdout.isatty():
        refuse(
            "--show prints a secret, and to a terminal only: what is printed elsewhere is kept in "
            f"logs and files that others may read; copy {quoted} instead",
            WRONG_USAGE,
        )
    address = read_address(path)
    # Most shells keep what begins with a space out of the history of what was typed.
    click.echo(f" export {addresses.VARIABLE}={shlex.quote(show_address(*address))}")
    if role == Role.NODE:
        click.echo("drumbeat node")
    host, port = split_tcp(address.endpoint.removeprefix("tcp://"), "the endpoint")
    if is_loopback(host):
        words = (
            f"that is good on this machine alone, which {host}:{port} means everywhere: for others"
            " start the scheduler with --advertise HOST"
        )
    elif role == Role.NODE:
        words = "paste both lines on each machine that is to run tasks"
    else:
        words = "paste this where programs or commands run"
    click.echo(f"{words}; who reads it can do the same", err=True)


# ------------------------------------------------------------------------------------------ node


@click.command(
    epilog=examples(
        "drumbeat node --cluster node.cluster",
        "drumbeat node --cluster node.cluster --num-cpus 8 --resource disk=2 --label zone=a",
    )
)
@click.option(
    "--cluster",
    metavar="FILE",
    help="The file node.cluster from the scheduler's directory; without it DRUMBEAT_ADDRESS, which "
    "may also hold a drumbeat:// address.",
)
@click.option("--name", default="", help="The node's name.  [default: the machine's]")
@click.option("--num-cpus", type=float, help="CPUs for tasks.  [default: what may be used here]")
@click.option("--num-gpus", type=float, help="GPUs for tasks.  [default: those that are visible]")
@click.option(
    "--resource",
    "resources",
    metavar="NAME=AMOUNT",
    multiple=True,
    help="A resource of your own that tasks can ask for; may be given again.",
)
@click.option(
    "--label",
    "labels",
    metavar="NAME=VALUE",
    multiple=True,
    help="A label that tasks can ask for; may be given again.",
)
@click.option("--preload", default="", metavar="A,B", help="Modules that all workers share.")
def node(
    cluster: str | None,
    name: str,
    num_cpus: float | None,
    num_gpus: float | None,
    resources: tuple[str, ...],
    labels: tuple[str, ...],
    preload: str,
) -> None:
    """Have this machine run tasks for a cluster.

    It keeps trying until the scheduler is there, and says why it is not. Ended with Ctrl-C or TERM
    it finishes what runs first; a second time it cancels that, a third time it ends at once.
    """
    Settings.load()  # a wrong one is told before anything is started
    address = node_address(cluster)
    flags = ["--name", name] if name else []
    for flag, amount in (("--num-cpus", num_cpus), ("--num-gpus", num_gpus)):
        if amount is not None:
            if not fits(amount):
                raise ConfigError(f"{flag} {amount:g} is no amount: {AMOUNTS}")
            flags += [flag, f"{amount:g}"]
    if resources:
        flags += ["--resources", json.dumps(amounts_of(resources))]
    for label, value in node_labels.parsed(labels, "--label").items():
        flags += ["--label", f"{label}={value}"]
    if preload:
        flags += ["--preload", preload]
    read_fd = in_a_pipe(text_of(address))
    become("drumbeat.node", [*flags, "--cluster-fd", str(read_fd)], keeps=[read_fd])


def node_address(cluster: str | None) -> Address:
    """Return what a node comes with.

    Raises:
        ConfigError: it is not there, not to be trusted, or not a node's.
    """
    if cluster and addresses.may_hold_key(cluster):
        refuse(
            "a drumbeat:// address holds a secret key, and what stands on a command line is shown "
            f"to everybody on this machine; name a cluster file, or set {addresses.VARIABLE}",
            WRONG_USAGE,
        )
    origin = "--cluster" if cluster else addresses.VARIABLE
    text = cluster or addresses.given()
    if not text:
        refuse(
            f"which cluster? Name the scheduler's {name_of(Role.NODE)} with --cluster, or set "
            f"{addresses.VARIABLE}; `drumbeat scheduler` makes one",
            WRONG_USAGE,
        )
    address = addresses.remote(text, origin, addresses.FOR_NODES)
    if address.role != Role.NODE:
        which = origin if is_address(text) else text
        refuse(
            f"{which} holds the key of a {address.role}, which is not admitted as a node: take "
            f"{name_of(Role.NODE)}",
            WRONG_USAGE,
        )
    return address


def amounts_of(texts: Iterable[str]) -> dict[str, float]:
    """Return the resources that NAME=AMOUNT texts name.

    Raises:
        ConfigError: one of them is none.
    """
    found = {}
    for text in texts:
        name, equals, amount_text = text.partition("=")
        try:
            amount = float(amount_text)
        except ValueError:
            amount = -1.0
        if not (name and equals and fits(amount)) or name in ("CPU", "GPU"):
            raise ConfigError(
                f"--resource {text!r} is not NAME=AMOUNT, with {AMOUNTS}; CPUs and GPUs are given "
                "with --num-cpus and --num-gpus",
                setting="resources",
                origin="flag",
            )
        found[name] = amount
    return found


def in_a_pipe(text: str) -> int:
    """Return a descriptor from which a text can be read once; it fits into any pipe."""
    read_fd, write_fd = os.pipe()
    os.write(write_fd, text.encode())
    os.close(write_fd)
    return read_fd

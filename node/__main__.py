"""`python -m drumbeat.node`: one machine's part of a cluster.

Never loads ZeroMQ: this process becomes the keeper, which must not have a second thread. The daemon
loads it after its fork.
"""

from ..protocol import interrupts

if __name__ == "__main__":
    interrupts.leave_at_once()  # before all that takes time to load

import argparse
import json
import logging  # noqa: F401  # what daemon and workers need: once for all that is forked from here
import os
import sys
from collections.abc import Sequence

from ..protocol import codec, ids  # noqa: F401  # likewise
from ..protocol.cluster_file import address_in
from ..protocol.errors import ConfigError
from ..protocol.labels import parsed
from ..protocol.leftover import remove_if_orphaned
from ..protocol.lines import say
from ..protocol.machine import cpu_count, give_back_memory, gpu_count
from ..protocol.resources import AMOUNTS, fits
from ..protocol.settings import Settings
from . import packets  # noqa: F401  # likewise
from .house import House
from .keeper import EXIT_NO_ADDRESS, run
from .safe import Safe

SOCKET_NAME = "scheduler.sock"
EXIT_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep a node until it is told to stop; return the exit code."""
    given = _parser().parse_args(arguments)
    try:
        settings = Settings.load_json(given.settings)
        resources = _resources(given)
        labels = parsed(given.label, "--label")
    except (ConfigError, ValueError) as error:
        print(f"drumbeat node: {error}", file=sys.stderr)
        return EXIT_USAGE
    safe = Safe(given.cluster_fd) if given.cluster_fd is not None else None

    def daemon(house: House) -> int:
        from . import service  # ZeroMQ: not in the keeper

        give_back_memory()
        endpoint, credentials = "ipc://" + os.path.join(directory, SOCKET_NAME), None
        if safe is not None:
            try:
                endpoint, _, credentials = address_in(safe.open(), "what --cluster-fd leads to")
            except (OSError, ConfigError) as error:
                say(f"drumbeat node: no scheduler's address: {error}; start this node anew")
                return EXIT_NO_ADDRESS
        plan = service.Plan(endpoint, given.name, resources, labels, credentials)
        return service.main(house, plan)

    directory = os.path.abspath(given.directory or "")
    preload = [name.strip() for name in given.preload.split(",") if name.strip()]
    try:
        return run(daemon, settings, preload=preload, owner_fd=given.owner_fd, safe=safe)
    finally:
        if safe is None:
            remove_if_orphaned(directory)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="drumbeat.node", description=(__doc__ or "").split("\n")[0]
    )
    add = parser.add_argument
    where = parser.add_mutually_exclusive_group(required=True).add_argument
    where("--directory", help="a local cluster's directory, where the scheduler listens")
    where("--cluster-fd", type=int, help="a pipe with a cluster file's text; read once")
    add("--name", default="", help="the node's name; default: the machine's")
    add("--num-cpus", type=float, help="CPUs for tasks; default: what this process may use")
    add("--num-gpus", type=float, help="GPUs for tasks; default: those that are visible")
    add("--resources", default="{}", help='custom resources, as JSON: {"disk": 2}')
    add(
        "--label", action="append", default=[], metavar="NAME=VALUE",
        help="what tasks may ask a node for: zone=a; as often as there are labels",
    )  # fmt: skip
    add("--preload", default="", help="modules that all workers share, separated by commas")
    add("--owner-fd", type=int, help="a pipe whose end ends the node")
    add("--settings", default="{}", help="settings that differ from their defaults, as JSON")
    return parser


def _resources(given: argparse.Namespace) -> dict[str, float]:
    try:
        resources = json.loads(given.resources)
    except (ValueError, RecursionError) as error:
        text = f"--resources is a JSON object of names and amounts: {error}"
        raise ConfigError(text, setting="resources") from None
    if not isinstance(resources, dict):
        raise ConfigError("--resources is a JSON object of names and amounts", setting="resources")
    for name, amount in resources.items():
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not fits(amount):
            text = f"--resources: {name} = {amount!r} is not an amount ({AMOUNTS})"
            raise ConfigError(text, setting="resources")
    given.name = given.name or os.uname().nodename.split(".")[0]
    cpus = cpu_count() if given.num_cpus is None else given.num_cpus
    gpus = gpu_count() if given.num_gpus is None else given.num_gpus
    if not (fits(cpus) and fits(gpus)):
        raise ConfigError(f"--num-cpus and --num-gpus: {AMOUNTS}", setting="num_cpus")
    found = {"CPU": float(cpus), "GPU": float(gpus)}
    return {**{name: float(amount) for name, amount in resources.items()}, **found}


if __name__ == "__main__":
    sys.exit(main())

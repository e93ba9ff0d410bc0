"""Start the scheduler: `python -m drumbeat.scheduler --directory DIR [--listen HOST:PORT]`.

Never more than flags. It listens on a Unix socket in the directory, for a local cluster; or with
--listen on the network, with the keys that it has in the directory. It runs until it gets TERM or
the process that started it is gone.
"""

from ..protocol import interrupts

if __name__ == "__main__":
    interrupts.leave_at_once()  # before all that takes time to load

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..protocol.endpoints import is_loopback, split_tcp, tcp_endpoint
from ..protocol.errors import ConfigError
from ..protocol.frames import Role
from ..protocol.leftover import SocketFile, remove_if_orphaned
from ..protocol.machine import allow_files, give_back_memory
from ..protocol.settings import Settings
from .cluster_directory import ClusterDirectory
from .reach import reach_of
from .statefile import StateFile

if TYPE_CHECKING:
    from ..protocol.keys import Door

SOCKET_NAME = "scheduler.sock"
STATE_NAME = "scheduler.state"
#: each connection is a descriptor; ZeroMQ, over the network, ends a process that has none left for
#: the next one
FILES_WANTED = 1 << 16

EXIT_USAGE = 2


class Place(NamedTuple):
    """Where a scheduler listens, and to whom."""

    endpoint: str
    #: None: whoever can reach the socket
    door: "Door | None" = None
    #: said when it listens
    words: str = ""


def parser() -> argparse.ArgumentParser:
    """Return the flags."""
    flags = argparse.ArgumentParser(
        prog="python -m drumbeat.scheduler", description="The scheduler of a Drumbeat cluster."
    )
    flags.add_argument("--directory", required=True, help="where its socket or its keys lie")
    flags.add_argument("--listen", default="", help="HOST:PORT on the network; * all interfaces")
    flags.add_argument("--advertise", default="", help="HOST:PORT at which others reach it")
    flags.add_argument(
        "--copy", action="append", default=[], metavar="ROLE=DIRECTORY",
        help="keep a copy of that role's cluster file there",
    )  # fmt: skip
    flags.add_argument(
        "--state", default="", help=f"file kept over its lives; {STATE_NAME} in the directory"
    )
    flags.add_argument("--owner-fd", type=int, default=-1, help="ends when this pipe does")
    flags.add_argument("--ready-fd", type=int, default=-1, help='"ready" is written here once')
    flags.add_argument("--settings", default="{}", help="settings that differ, as JSON")
    return flags


def main() -> int:
    """Run; return the exit code."""
    arguments = parser().parse_args()
    try:
        settings = Settings.load_json(arguments.settings)
        # Not before the flags are known to be right: this loads the sockets.
        from .service import Service  # see above

        place = _network(arguments) if arguments.listen else _local(arguments)
        give_back_memory()
        allow_files(FILES_WANTED)
        state = StateFile(Path(arguments.state or Path(arguments.directory, STATE_NAME)))
        service = Service(place.endpoint, settings, state, arguments.owner_fd, place.door)
    except (ConfigError, ValueError) as error:
        print(f"drumbeat scheduler: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:  # it does not listen yet: there is nothing to tell
        return interrupts.EXIT_INTERRUPTED
    if arguments.ready_fd >= 0:
        os.write(arguments.ready_fd, b"ready\n")
        os.close(arguments.ready_fd)
    if place.words:
        with contextlib.suppress(OSError):  # nobody reads it
            print(place.words, flush=True)
    with contextlib.nullcontext() if place.door else _socket_in(arguments.directory):
        return service.run()


def _local(arguments: argparse.Namespace) -> Place:
    return Place(f"ipc://{arguments.directory}/{SOCKET_NAME}")


@contextlib.contextmanager
def _socket_in(directory: str) -> Iterator[None]:
    """Leave no socket behind in a local cluster's directory, nor that, if its owner is gone."""
    socket = SocketFile(os.path.join(directory, SOCKET_NAME))
    try:
        yield
    finally:
        socket.remove()
        remove_if_orphaned(directory)


def _network(arguments: argparse.Namespace) -> Place:
    """Return where to listen on the network, with keys that are made if there are none yet.

    Raises:
        ConfigError: the flags or the files in the directory do not fit.
    """
    from ..protocol.sockets import public_key  # ZeroMQ

    host, port = split_tcp(arguments.listen, "--listen")
    if arguments.advertise:
        advertised, note = split_tcp(arguments.advertise, "--advertise"), ""
    else:
        found, note = reach_of(host)
        advertised = found, port
    if not port or not advertised[1]:
        raise ConfigError("a port that others can be told is a number from 1", setting="listen")
    endpoint = tcp_endpoint(*advertised)
    directory = ClusterDirectory(Path(arguments.directory), endpoint, public_key)
    for wish in arguments.copy:
        directory.copy(wish)
    words = words_of(directory, arguments.listen, note)
    return Place(tcp_endpoint(host, port), directory.door, words)


def words_of(directory: ClusterDirectory, listens_at: str, note: str = "") -> str:
    """Return what is said at the start: how nodes and programs come here. It holds no secret.

    Args:
        directory: with the cluster files.
        listens_at: HOST:PORT.
        note: of the address at which others reach it, where that may be wrong.
    """
    where = directory.endpoint.removeprefix("tcp://")
    alone = is_loopback(split_tcp(where, "the endpoint")[0])
    reached = "this machine alone reaches it" if alone else "others reach it"
    lines = [f"drumbeat scheduler: listening at {listens_at}; {reached} at {where}"]
    if note:
        lines.append(f"  {note}")
    if directory.endpoint_before:
        before = directory.endpoint_before.removeprefix("tcp://")
        lines.append(
            f"  that was {before} before: the files below say so now, copies of them do not yet"
        )
    lines.append("cluster files, each with a secret key: copy them as you would copy a password")
    uses = {
        Role.NODE: "for machines that run tasks",
        Role.CLIENT: "for programs that submit them",
        Role.ADMIN: "for whoever steers the cluster",
    }
    for role, use in uses.items():
        path = directory.file_of(role)
        there = use if role in directory.files else "(was taken away)"
        lines.append(f"  {path}  {there}")
    quoted = shlex.quote(str(directory.file_of(Role.NODE)))
    node_file = directory.file_of(Role.NODE).name
    here = shlex.quote(str(directory.path))
    if alone:
        lines += ["to have this machine work, type", f"  drumbeat node --cluster {quoted}"]
    else:
        lines += [
            "to have another machine work, copy a file there and type",
            f"  drumbeat node --cluster {node_file}        (on this machine: --cluster {quoted})",
            "or, to paste instead of copying, type in a terminal here",
            f"  drumbeat scheduler --directory {here} --show node",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

"""Start the scheduler: `python -m drumbeat.scheduler --directory DIR`.

Never more than flags. It listens on a Unix socket in the directory, and runs until it gets TERM or
the process that started it is gone.
"""

import argparse
import os
import sys
from pathlib import Path

from ..protocol.errors import ConfigError
from ..protocol.leftover import SocketFile, remove_if_orphaned
from ..protocol.machine import allow_files, give_back_memory
from ..protocol.settings import Settings
from .statefile import StateFile

SOCKET_NAME = "scheduler.sock"
STATE_NAME = "scheduler.state"
#: each connection is a descriptor, and ZeroMQ ends a process that has none left for the next one
FILES_WANTED = 1 << 16


def parser() -> argparse.ArgumentParser:
    """Return the flags."""
    flags = argparse.ArgumentParser(
        prog="python -m drumbeat.scheduler", description="The scheduler of a Drumbeat cluster."
    )
    flags.add_argument("--directory", required=True, help="where its socket lies")
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

        endpoint = f"ipc://{arguments.directory}/{SOCKET_NAME}"
        give_back_memory()
        allow_files(FILES_WANTED)
        state = StateFile(Path(arguments.state or Path(arguments.directory, STATE_NAME)))
        service = Service(endpoint, settings, state, arguments.owner_fd)
    except (ConfigError, ValueError) as error:
        print(f"drumbeat scheduler: {error}", file=sys.stderr)
        return 2
    socket = SocketFile(os.path.join(arguments.directory, SOCKET_NAME))
    if arguments.ready_fd >= 0:
        os.write(arguments.ready_fd, b"ready\n")
        os.close(arguments.ready_fd)
    try:
        return service.run()
    finally:
        socket.remove()
        remove_if_orphaned(arguments.directory)


if __name__ == "__main__":
    sys.exit(main())

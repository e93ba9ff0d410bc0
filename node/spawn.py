"""Makes a worker a fresh interpreter, where it may not be a fork of the template.

Never decides which way workers start: the setting `worker_start` does. Both ends are here: what the
template's child puts on the command line, and what the new interpreter makes of it.
"""

import faulthandler
import importlib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final, NamedTuple, NoReturn

from .channel import channel_of
from .page import PulsePage
from .streams import open_streams

PROGRAM: Final = f"{__package__}.worker"


class Ends(NamedTuple):
    """The descriptors with which a worker begins, besides its standard streams."""

    #: the socket to the node
    link: int
    #: the file for where its threads are, and what asks for that
    stacks: int
    bell: int


class Order(NamedTuple):
    """What a worker is told by the process whose place it takes."""

    ends: Sequence[int]
    #: a descriptor
    page: int
    slot: int
    keeper_pid: int
    pulse_interval_s: float
    memory_files: str
    free_variables: Sequence[str]
    preload: Sequence[str]


def replace_process(order: Order) -> NoReturn:
    """Become a fresh interpreter that follows the order; the standard streams stay.

    Process group, working directory and the death signal stay as well, all other descriptors go.
    """
    for fd in (*order.ends, order.page):
        os.set_inheritable(fd, True)
    command = [sys.executable, *_flags(), "-m", PROGRAM, json.dumps(order)]
    os.execv(sys.executable, command)


def _flags() -> list[str]:
    """Return the interpreter's flags that decide where modules are found: as for this process."""
    flags = sys.flags
    chosen = (
        ("-I", flags.isolated),
        ("-E", flags.ignore_environment),
        ("-s", flags.no_user_site),
        ("-P", flags.safe_path),
    )
    return [flag for flag, is_set in chosen if is_set]


def follow(text: str) -> NoReturn:
    """Be the worker of an order, in the new interpreter."""
    order = Order(*json.loads(text))
    ends = Ends(*order.ends)
    for fd in (*ends, order.page):
        os.set_inheritable(fd, False)
    open_streams()
    faulthandler.enable(file=2, all_threads=False)
    page = PulsePage(order.page)
    os.close(order.page)
    notices = load(order.preload)
    worker = importlib.import_module(PROGRAM)
    worker.main(
        channel_of(ends.link, order.memory_files),
        page.slot(order.slot),
        ends,
        parent_pid=order.keeper_pid,
        pulse_interval_s=order.pulse_interval_s,
        free_variables=order.free_variables,
        notices=notices,
    )
    raise AssertionError("a worker does not return")


def load(names: Sequence[str]) -> list[str]:
    """Import modules; return what users should read of those that failed."""
    notices = []
    for name in names:
        try:
            importlib.import_module(name)
        except BaseException as error:  # noqa: BLE001  # a module may even call sys.exit
            reason = "".join(traceback.format_exception_only(error)).strip()
            notices.append(f"{name} could not be preloaded: {reason}"[:4000])
    return notices

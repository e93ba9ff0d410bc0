"""The template: a small process with everything imported, from which workers are forked.

Never runs a user's task, has one thread, and knows no ZeroMQ. It forks twice, so that a worker is
the keeper's child and the end of the template harms no worker. Importing this module loads neither
client nor zmq; running it loads what workers will need, unless each worker is to be a fresh
interpreter: then it loads nothing, and what it has forked becomes one.

What it is told, by packets of plain text: by the keeper `daemon` (with its link to the daemon),
`alive PID`, `gone PID`; by the daemon `fork TICKET SLOT` (with the worker's socket and files for
stdout, stderr and stacks, and its bell). What it tells the keeper: `born TICKET PID`,
`failed TICKET REASON`, `preload TEXT` (what could not be imported, for the clients to read).

When the keeper is gone, the template ends what the kernel's death signals do not reach: workers'
groups, and whatever left those and still carries the node's mark in its environment or holds the
lifeline open.
"""

import contextlib
import faulthandler
import gc
import importlib
import os
import random
import select
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from typing import NoReturn

from ..protocol.machine import give_back_memory
from . import kernel
from .channel import Channel, ClosedError, Packet, channel_of
from .page import PulsePage, Words
from .spawn import Ends, Order, load, replace_process
from .streams import open_streams
from .sweep import sweep

#: What decides how many threads a numeric library starts, read when it is loaded.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

_PACKAGE = __name__.rpartition(".")[0].rpartition(".")[0]
_NEEDED_BY_WORKERS = ("protocol.payload", "protocol.outcomes", "node.worker", "client.api")
_RE_PARENTED_S = 0.0001

#: the variable that processes started by tasks inherit, so that they can be found again
MARK_VARIABLE = "DRUMBEAT_NODE_MARK"


class Template:
    """One life of the template process.

    Args:
        keeper: the link to the keeper.
        page: the pulse page.
        lifeline: a pipe that ends with the keeper.
        keeper_pid: the future parent of all workers.
        mark: a word that no other node has.
        pulse_interval_s: for the workers.
        memory_files: for the channels.
        spawns: each worker is a fresh interpreter.
    """

    def __init__(
        self,
        keeper: Channel,
        page: PulsePage,
        lifeline: int,
        keeper_pid: int,
        mark: str,
        pulse_interval_s: float,
        memory_files: str,
        spawns: bool = False,
    ) -> None:
        self._keeper = keeper
        self._page = page
        self._lifeline = lifeline
        self._keeper_pid = keeper_pid
        self._mark = mark
        self._pulse_interval_s = pulse_interval_s
        self._memory_files = memory_files
        self._spawns = spawns
        self._preload: tuple[str, ...] = ()
        self._daemon: Channel | None = None
        self._alive: dict[int, None] = {}
        self._free_variables: tuple[str, ...] = ()

    def run(self, preload: Sequence[str]) -> NoReturn:
        """Import, then fork whenever the daemon asks, until the keeper is gone."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # A preload that never returns must not outlive the keeper; later the sweep is ours to do.
        kernel.die_with_parent(self._keeper_pid)
        self._free_variables = tuple(v for v in THREAD_VARIABLES if v not in os.environ)
        for variable in self._free_variables:
            os.environ[variable] = "1"
        # A cluster that a task of another one started keeps that one's mark as well.
        marks = (os.environ.get(MARK_VARIABLE), self._mark)
        os.environ[MARK_VARIABLE] = " ".join(filter(None, marks))
        self._preload = tuple(preload)
        if not self._spawns:
            self._import()
        kernel.outlive_parent()
        # Each worker looks modules up anew, with the client's path: what it would throw away are
        # pages that it shares.
        sys.path_importer_cache.clear()
        gc.collect()
        give_back_memory()
        gc.freeze()
        while True:
            self._turn()

    def _import(self) -> None:
        names = [f"{_PACKAGE}.{name}" for name in _NEEDED_BY_WORKERS]
        for text in load([*names, "cloudpickle", *self._preload]):
            self._tell(f"preload {text}")

    # ----------------------------------------------------------------------------------- links

    def _turn(self) -> None:
        poll = select.poll()
        poll.register(self._lifeline, select.POLLIN)
        poll.register(self._keeper, select.POLLIN)
        if self._daemon is not None:
            poll.register(self._daemon, select.POLLIN)
        ready = {fd for fd, _ in poll.poll()}
        try:
            if self._keeper.fileno() in ready:
                while packet := self._keeper.receive(wait=False):
                    self._hear_keeper(packet)
        except ClosedError:
            self._sweep()
        if self._lifeline in ready:
            self._sweep()
        daemon = self._daemon
        if daemon is not None and daemon.fileno() in ready:
            try:
                packet = daemon.receive(wait=False)
            except ClosedError:
                daemon.close()
                self._daemon = None
            else:
                if packet:
                    self._hear_daemon(packet)

    def _hear_keeper(self, packet: Packet) -> None:
        word, *rest = bytes(packet.data).decode().split(" ")
        if word == "daemon":
            if self._daemon is not None:
                self._daemon.close()
            self._daemon = channel_of(packet.fds[0], self._memory_files)
        elif word == "alive":
            self._alive[int(rest[0])] = None
        elif word == "gone":
            self._alive.pop(int(rest[0]), None)

    def _hear_daemon(self, packet: Packet) -> None:
        _, ticket, slot = bytes(packet.data).decode().split(" ")
        link, *streams, stacks, bell = packet.fds
        try:
            self._fork(int(ticket), int(slot), Ends(link, stacks, bell), streams)
        finally:
            for fd in packet.fds:
                os.close(fd)

    def _tell(self, text: str) -> None:
        with contextlib.suppress(ClosedError):  # the next turn sees the end of the lifeline
            self._keeper.send(text.encode(errors="replace"))

    def _sweep(self) -> NoReturn:
        """The keeper is gone: its workers die by themselves, what they started dies here."""
        sweep(self._mark, self._lifeline, self._alive)
        os._exit(0)

    # ----------------------------------------------------------------------------------- forks

    def _fork(self, ticket: int, slot: int, ends: Ends, streams: list[int]) -> None:
        try:
            middle = os.fork()
        except OSError as error:
            self._tell(f"failed {ticket} fork: {error}")
            return
        if middle:
            os.waitpid(middle, 0)
            return
        status = 1
        try:
            status = self._fork_again(ticket, slot, ends, streams)
        finally:
            os._exit(status)

    def _fork_again(self, ticket: int, slot: int, ends: Ends, streams: list[int]) -> int:
        """In the process between: fork the worker, name it, end, so that the keeper adopts it."""
        middle = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._tell(f"failed {ticket} fork: {error}")
            return 1
        if pid:
            # Told before the adoption: the keeper never meets a child it has not heard of.
            self._tell(f"born {ticket} {pid}")
            return 0
        words = self._page.slot(slot)
        try:
            self._become_worker(middle, streams)
            if self._spawns:
                self._start_anew(slot, ends)
            self._work(words, ends)
        except BaseException:  # noqa: BLE001  # nothing may run the template's loop in a worker
            traceback.print_exc()
        return 1

    def _become_worker(self, middle: int, streams: list[int]) -> None:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL if number != signal.SIGPIPE else signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        for standard, stream in enumerate(streams, start=1):
            os.dup2(stream, standard)
        # What preloaded modules hold open stays open; all that is ours and not the worker's goes.
        self._keeper.close()
        if self._daemon is not None:
            self._daemon.close()
        for fd in (nothing, *streams):
            os.close(fd)
        open_streams()
        faulthandler.enable(file=2, all_threads=False)
        random.seed()
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is not None:
            numpy_random.seed()
        while os.getppid() == middle:
            time.sleep(_RE_PARENTED_S)
        if kernel.ADOPTS_ORPHANS:
            kernel.die_with_parent(self._keeper_pid)

    def _start_anew(self, slot: int, ends: Ends) -> NoReturn:
        assert self._page.file is not None
        replace_process(
            Order(
                ends,
                self._page.file,
                slot,
                os.getppid(),
                self._pulse_interval_s,
                self._memory_files,
                self._free_variables,
                self._preload,
            )
        )

    def _work(self, words: Words, ends: Ends) -> NoReturn:
        worker = importlib.import_module(".worker", __package__)
        worker.main(
            channel_of(ends.link, self._memory_files),
            words,
            ends,
            parent_pid=os.getppid(),
            pulse_interval_s=self._pulse_interval_s,
            free_variables=self._free_variables,
        )
        raise AssertionError("a worker does not return")

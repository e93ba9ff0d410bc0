"""Node core and worker's loop, with supervision as shipped or taken out, to be counted.

    python -m benchmarks.unsupervised core|worker on|off|around TASKS RATE

What is taken out are lines of the product's functions, here and in this process only: if one is
not there any more, that is an error, since then nobody knows what is compared. Left in, on both
sides, is what other things need as well: the words in the page by which a call is interrupted or
taken back, and the helper's looks for results that wait.
"""

import argparse
import inspect
import os
import sys
import textwrap
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from drumbeat.node import beats, core, dispatch, events, hangs, helper, pressure, worker
from drumbeat.node.packets import Exit, KindDefinition, Run, RunRow, Setup
from drumbeat.node.page import PulsePage
from drumbeat.protocol.codec import encode
from drumbeat.protocol.ids import IdFactory, PeerId
from drumbeat.protocol.messages import Environment
from drumbeat.protocol.payload import pack_function
from drumbeat.protocol.settings import Settings

from . import core_node, workloads

#: rows of a packet: as many no-op tasks as a packet may have
ROWS = Settings().packet_tasks_max
#: what no-op tasks are known to take
EXPECTED_S = 5e-6


# ---------------------------------------------------------------------------------- taking out


def without(owner: Any, name: str, *lines: tuple[str, str]) -> None:
    """Replace lines of a function, each of which must be there exactly once.

    Raises:
        RuntimeError: it is not; the product has changed, and this is to follow.
    """
    function = getattr(owner, name)
    text = textwrap.dedent(inspect.getsource(function))
    for line, instead in lines:
        if text.count(line) != 1:
            where = f"{function.__module__}.{function.__qualname__}"
            raise RuntimeError(f"{where} has {line!r} {text.count(line)} times; look at it anew")
        text = text.replace(line, instead)
    made: dict[str, Any] = {}
    exec(compile(text, inspect.getfile(function), "exec"), function.__globals__, made)
    setattr(owner, name, made[name])


def out_of_core() -> None:
    """Have a node's core neither look at workers nor tell what they do."""
    begins = (
        "if state.look_due_s == NEVER_S:\n"
        "        state.look_due_s = now_s + LOOK_S\n"
        "        state.due_by(state.look_due_s)"
    )
    without(dispatch.Dispatch, "_send", (begins, "pass"))
    looks = "if now_s >= state.look_due_s:\n            self._hangs.turn(now_s)"
    without(core.NodeCore, "turn", (looks, "pass"))
    without(
        beats.Beats,
        "beat",
        ("running += beside(worker, self._hangs.row(worker, now_s), now_s)", "pass"),
    )
    setattr(hangs.Hangs, "deadline_s", lambda _self: None)  # noqa: B010  # it is a method
    setattr(pressure.Pressure, "measured", lambda _self, _event, _now_s: None)  # noqa: B010


def out_of_worker() -> None:
    """Have a worker not pulse, and not say in the page what only supervision reads."""
    began = "times[BEGAN] = started_s = perf_counter()"
    without(
        worker.Worker,
        "_run",
        (began, "started_s = perf_counter()"),
        ("words[PHASE] = IDLE", "pass"),
    )
    without(worker.Worker, "_attempt", ("words[PHASE] = UNPICKLING", "pass"))
    setattr(helper.Helper, "start", lambda _self: None)  # noqa: B010  # it is a method


# ------------------------------------------------------------------------------------ the rooms


def run_core(tasks: int, rate: float, again: bool) -> None:
    """Have a node's core deal with so many tasks.

    Args:
        tasks: so many.
        rate: tasks a second.
        again: do without the core all that has been done around it once more, to be subtracted.
    """
    kept: deque[list[events.Command]] = deque()

    def turn(
        core: core_node.NodeCore, happened: Sequence[events.Event], now_s: float
    ) -> list[events.Command]:
        commands = core_node.at_once(core, happened, now_s)
        kept.append(commands)
        return commands

    core_node.measure(tasks, EXPECTED_S, turn, rate)
    if again:
        core_node.measure(tasks, EXPECTED_S, lambda *_: kept.popleft(), rate)


class _Bell:
    """Wakes the helper when it is told to, not when time has passed: that is slow while counted."""

    def __init__(self) -> None:
        self._rests, self._rings = threading.Lock(), threading.Lock()
        self._rests.acquire()
        self._rings.acquire()

    def acquire(self, timeout: float) -> bool:  # noqa: ARG002  # as that of a lock
        self._rests.release()
        self._rings.acquire()
        return False

    def release(self) -> None:
        """A task has begun, or waits to be sent: nothing, see the class."""

    def strike(self) -> None:
        """A pulse is due."""
        self._rests.acquire()
        self._rings.release()


class _Node:
    """The other end of the worker's channel: the same packet, again and again, then the end."""

    #: as a packet it carries none
    fds = ()

    def __init__(self, tasks: int, rate: float, bell: _Bell | None) -> None:
        ids, peer = IdFactory(PeerId(b"client")), PeerId(b"client")
        packed = pack_function(workloads.nothing, False, "nothing")
        kind = KindDefinition(1, "nothing", packed.payload, 1, 3)
        rows = [RunRow(seq, ids(), 1, 1, 0, None, ()) for seq in range(1, ROWS + 1)]
        setup = Setup(
            1, peer, peer, "lab", Environment(directory=os.getcwd()), True, (), "", 1.0, 64 << 20
        )  # fmt: skip
        self._first = [encode(setup), encode(Run([kind], []))]
        self._again, self._last = encode(Run([], rows)), encode(Exit())
        self._left, self._bell = tasks // ROWS, bell
        self._rows_a_pulse = rate * Settings().pulse_interval_s
        self._rows = 0.0

    def receive(self, wait: bool) -> "_Node":  # noqa: ARG002  # as that of the channel
        self._rows += ROWS
        if self._bell is not None and self._rows >= self._rows_a_pulse and not self._first:
            self._rows -= self._rows_a_pulse
            self._bell.strike()
        if self._first:
            self.data = self._first.pop(0)
        elif self._left:
            self._left -= 1
            self.data = self._again
        else:
            self.data = self._last
        return self

    def send(self, _packet: bytes) -> None:
        """What it says is not of interest here."""


def run_worker(tasks: int, rate: float, pulses: bool) -> NoReturn:
    """Have a worker run so many no-op tasks, and pulse as often as so many take time for.

    It sends what it has done with each packet, on both sides. By the clock, which goes on while
    instructions are counted, slowly, it would be the oftener the more there are to be counted.
    """
    for module in (worker, helper):
        setattr(module, "FLUSH_S", float("inf"))  # noqa: B010  # it is final
    bell = _Bell() if pulses else None
    node: Any = _Node(tasks, rate, bell)
    one = worker.Worker(node, PulsePage().slot(1), os.getppid(), 1.0, (), ())
    if bell is not None:
        one._helper._bell = bell  # type: ignore[assignment]  # as much of a lock as it needs
    os._exit(one.serve())


def main() -> None:
    """Run one of them."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    flags.add_argument("room", choices=("core", "worker"))
    flags.add_argument("supervision", choices=("on", "off", "around"))
    flags.add_argument("tasks", type=int)
    flags.add_argument("rate", type=float, help="tasks a second: of the node, of the worker")
    given = flags.parse_args()
    is_off = given.supervision == "off"
    rooms: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "core": (
            out_of_core,
            lambda: run_core(given.tasks, given.rate, given.supervision == "around"),
        ),
        "worker": (out_of_worker, lambda: run_worker(given.tasks, given.rate, not is_off)),
    }
    take_out, run = rooms[given.room]
    if is_off:
        take_out()
    run()


if __name__ == "__main__":
    sys.exit(main())

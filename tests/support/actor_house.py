"""A node without a scheduler, as node_house.py, whose workers become actors.

Run as a program, in the same way.
"""

import os
import signal
import sys
from typing import Any

import node_house
import node_tasks as tasks
from drumbeat.node import events, keeper
from drumbeat.node.packets import (
    ActorMade,
    Exit,
    KindDefinition,
    Returned,
    Run,
    RunRow,
    Want,
)
from drumbeat.node.page import IDLE, REVOKED
from drumbeat.protocol.actor_calls import MethodCall
from drumbeat.protocol.messages import Outcome
from drumbeat.protocol.payload import pack_call, pack_function, unpack_value
from drumbeat.protocol.settings import Settings
from node_house import Driver, error_of


class Actor:
    """One actor and how it is called."""

    def __init__(self, driver: Driver, made_by: Any = tasks.Counter, *args: Any) -> None:
        self.driver = driver
        self.worker = driver.start()
        self.creation = self._send("actor", made_by, args, creates=True)

    def _send(self, name: str, function: Any, args: tuple[Any, ...], *, creates: bool) -> int:
        driver, worker = self.driver, self.worker
        kind = driver.kinds.setdefault(f"actor {name}", len(driver.kinds) + 1)
        payload = pack_function(function, False, name).payload
        driver.seqs[worker] = seq = driver.seqs[worker] + 1
        row = RunRow(seq, driver.ids(), 1, kind, 0, pack_call(args, {}).payload, ())
        driver.pool.send(worker, Run([KindDefinition(kind, name, payload, 1, 0, creates)], [row]))
        return seq

    def made(self) -> "Actor":
        self.driver.until(lambda: self.driver.said(self.worker, ActorMade))
        return self

    def send(self, method: str, *args: Any) -> int:
        return self._send(method, MethodCall(method), args, creates=False)

    def row(self, seq: int) -> Any:
        return self.driver.until(lambda: self.driver.finished(self.worker, seq)).values[0]

    def call(self, method: str, *args: Any) -> Any:
        row = self.row(self.send(method, *args))
        return unpack_value(row.payload) if row.outcome == Outcome.VALUE else error_of(row)

    def phase(self) -> tuple[int, ...]:
        return tuple(self.driver.house.page.sample(self.worker))


def calls(driver: Driver) -> Any:
    actor = Actor(driver, tasks.Counter, 5).made()
    shown: dict[str, Any] = {"values": [actor.call("add", n) for n in (1, 2, 3)]}
    driver.until(lambda: actor.phase()[1:] == (0, IDLE))
    shown["idle"] = driver.finished(actor.worker, actor.creation)
    shown["error"] = actor.call("fail", "broken")
    shown["missing"] = actor.call("no_such_method")
    shown["exit"] = actor.call("leave_by_exception")
    shown["after"] = actor.call("add", 1)
    seqs = [actor.send("add", 1) for _ in range(200)]
    shown["order"] = [unpack_value(actor.row(seq).payload) for seq in seqs] == [*range(13, 213)]
    return shown


def constructors(driver: Driver) -> Any:
    """One that raises; the worker ends when it is told to."""
    actor = Actor(driver, tasks.Counter, "no number", "too many")
    shown = [error_of(actor.row(actor.creation))]
    driver.pool.send(actor.worker, Exit())
    return [*shown, driver.exited(actor.worker).status, len(driver.said(actor.worker, ActorMade))]


def ends(driver: Driver) -> Any:
    """By itself, when told, by accident."""
    shown: dict[str, Any] = {}
    actor = Actor(driver, tasks.Counter, 0).made()
    first, second = actor.send("leave"), actor.send("add", 1)
    status = driver.exited(actor.worker).status
    rows = [driver.finished(actor.worker, seq) for seq in (first, actor.creation, second)]
    shown["itself"] = [
        status, [row and unpack_value(row.values[0].payload) for row in rows],
        [row is not None for row in rows],
    ]  # fmt: skip
    actor = Actor(driver, tasks.Counter, 0).made()
    driver.pool.send(actor.worker, Exit())
    status = driver.exited(actor.worker).status
    shown["told"] = [status, driver.finished(actor.worker, actor.creation) is not None]
    for method, args in (("quit", (3,)), ("crash", ())):
        actor = Actor(driver, tasks.Counter, 0).made()
        seq = actor.send(method, *args)
        event = driver.exited(actor.worker)
        pages = [e.samples[0] for e in driver.of(events.PageRead)]
        shown[method] = [event.status, (actor.worker, seq, True) in pages]
    actor = Actor(driver, tasks.Counter, 0).made()
    os.kill(actor.call("pid"), signal.SIGKILL)
    shown["killed"] = driver.exited(actor.worker).signal_name
    return shown


def waits(driver: Driver) -> Any:
    """A call waits in get(): those behind it stay, and run after it, in order."""
    actor = Actor(driver, tasks.Counter, 0).made()
    first = actor.send("nested_get", 2)
    before = [actor.send("add", 1) for _ in range(3)]
    driver.until(lambda: driver.said(actor.worker, Want))
    after = [actor.send("add", 1) for _ in range(3)]
    node_house.answer(driver, actor.worker, first)
    values = [unpack_value(actor.row(seq).payload) for seq in (*before, *after)]
    return [values, len(driver.said(actor.worker, Returned))]


def taking_back(driver: Driver) -> Any:
    """What is revoked comes back and runs when it is sent again; interrupts hit calls only."""
    actor = Actor(driver, tasks.Counter, 0).made()
    first = actor.send("pause", 0.5)
    driver.until(lambda: actor.phase()[1] == first)
    behind = [actor.send("add", 1) for _ in range(3)]
    driver.pool.write(actor.worker, REVOKED, behind[1])

    def returned() -> list[int]:
        return [seq - first for p in driver.said(actor.worker, Returned) for seq in p.seqs]

    driver.until(lambda: len(returned()) == 2)
    shown = [returned()]
    driver.pool.write(actor.worker, REVOKED, 0)
    shown.append(actor.call("add", 1))
    last = actor.send("pause", 30)
    driver.until(lambda: actor.phase()[1:] == (last, 3))
    driver.pool.interrupt(actor.worker, last)
    return [*shown, error_of(actor.row(last)), actor.call("add", 1)]


def daemon(house: keeper.House) -> int:
    driver = Driver(house)
    node_house.write(globals()[sys.argv[1]](driver))
    return 0


if __name__ == "__main__":
    settings = Settings.load_json(sys.argv[3])
    raise SystemExit(keeper.run(daemon, settings, preload=[], owner_fd=int(sys.argv[4])))

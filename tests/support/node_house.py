"""A node without a scheduler: real keeper, template and workers, driven by a scenario.

Run as a program: `node_house.py SCENARIO RESULT_FILE SETTINGS_JSON OWNER_FD`. The scenario runs in
the daemon's process; what it returns is written to the file as JSON.
"""

import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import node_tasks as tasks
from drumbeat.node import events, keeper
from drumbeat.node.memory_kills import MemoryKills
from drumbeat.node.packets import (
    Answered,
    Exit,
    Finished,
    FinishedRow,
    KindDefinition,
    Ready,
    Refs,
    Returned,
    Run,
    RunRow,
    Submitted,
    Want,
    WantOver,
)  # fmt: skip
from drumbeat.node.page import REVOKED, WAITING
from drumbeat.node.pool import Pool
from drumbeat.protocol.clock import now_s
from drumbeat.protocol.ids import IdFactory, ObjectId, PeerId
from drumbeat.protocol.messages import Environment, Outcome, ValueRow
from drumbeat.protocol.payload import (
    load_error,
    load_exception,
    pack_call,
    pack_function,
    pack_value,
    unpack_value,
)  # fmt: skip
from drumbeat.protocol.references import ObjectRef
from drumbeat.protocol.settings import Settings
from process_table import alive, children_of, state_of

PEER = PeerId(b"node-0")
CLIENT = PeerId(b"client")


class Driver:
    """Turns the pool's loop and keeps every event."""

    def __init__(self, house: keeper.House) -> None:
        self.house = house
        #: what the kernel is to have counted
        self.kernel = Path(sys.argv[2]).with_suffix(".proc") / "proc/vmstat"
        self.kernel.parent.mkdir(parents=True, exist_ok=True)
        self.kernel.write_text("oom_kill 3\n", encoding="utf-8")
        self.pool = Pool(house, PEER, "lab", MemoryKills(self.kernel.parents[1]))
        self.events: list[events.Event] = []
        self.ids = IdFactory(CLIENT)
        self.kinds: dict[str, int] = {}
        self.defined: dict[int, set[int]] = {}
        self.seqs: dict[int, int] = {}
        self.workers = 0
        self.poll = select.poll()
        self.poll.register(self.pool, select.POLLIN)

    def until(self, done: Callable[[], Any], timeout_s: float = 20.0) -> Any:
        until_s = now_s() + timeout_s
        while True:
            self.pool.beat()
            found = done()
            if found:
                return found
            at_s = now_s()
            if at_s > until_s:
                raise TimeoutError(f"not within {timeout_s} s; events: {self.events[-10:]}")
            due_s = self.pool.deadline_s()
            wait_s = 0.2 if due_s is None else max(0.0, min(0.2, due_s - at_s))
            self.poll.poll(wait_s * 1000)
            self.events += self.pool.turn(now_s())

    def of(self, type_: type[Any], worker: int | None = None) -> list[Any]:
        return [
            event
            for event in self.events
            if type(event) is type_ and (worker is None or event.worker == worker)
        ]

    def said(self, worker: int, type_: type[Any]) -> list[Any]:
        return [e.packet for e in self.of(events.WorkerSpoke, worker) if type(e.packet) is type_]

    def output(self) -> str:
        rows = [row for event in self.of(events.Spoke) for row in event.rows]
        return b"".join(text for _, text, _ in rows).decode()

    # ------------------------------------------------------------------------------- shorthands

    def start(self, ready: bool = True, **changes: Any) -> int:
        self.workers = number = self.workers + 1
        environment = Environment("host", os.getcwd(), tuple(sys.path), os.getpid(), "3")
        fields = {
            "environment": environment, "env_vars": (), "working_dir": "", "num_cpus": 1.0,
            "same_machine": True,
        } | changes  # fmt: skip
        self.defined[number], self.seqs[number] = set(), 0
        self.pool.start(events.StartWorker(number, number, CLIENT, **fields))
        if ready:
            self.until(lambda: self.said(number, Ready))
        return number

    def send(self, worker: int, *calls: tuple[Any, ...], max_retries: int = 3, n: int = 1) -> int:
        """Send one packet of calls (function, *args); return the first seq."""
        definitions, rows = [], []
        first = self.seqs[worker] + 1
        for function, *args in calls:
            kind = self.kinds.setdefault(f"{function.__qualname__}/{n}", len(self.kinds) + 1)
            if kind not in self.defined[worker]:
                self.defined[worker].add(kind)
                payload = pack_function(function, (KeyError,), function.__name__).payload
                definition = KindDefinition(kind, function.__name__, payload, n, max_retries)
                definitions.append(definition)
            self.seqs[worker] = seq = self.seqs[worker] + 1
            packed = pack_call(tuple(args), {})
            rows.append(RunRow(seq, self.ids(), 1, kind, 0, packed.payload, ()))
        self.pool.send(worker, Run(definitions, rows))
        return first

    def finished(self, worker: int, seq: int) -> FinishedRow | None:
        for packet in self.said(worker, Finished):
            for row in packet.rows:
                if row.seq == seq:
                    return row
        return None

    def run(self, worker: int, function: Any, *args: Any, **options: Any) -> FinishedRow:
        seq = self.send(worker, (function, *args), **options)
        return self.until(lambda: self.finished(worker, seq))

    def value(self, worker: int, function: Any, *args: Any, **options: Any) -> Any:
        (row,) = self.run(worker, function, *args, **options).values
        assert row.outcome == Outcome.VALUE, error_of(row)
        return unpack_value(row.payload)

    def exited(self, worker: int) -> events.WorkerExited:
        return self.until(lambda: (self.of(events.WorkerExited, worker) or [None])[0])


def error_of(row: ValueRow) -> str:
    if row.outcome == Outcome.FAILURE:
        return f"{row.failure.error}: {row.failure.text}"
    report = load_error(row.payload)
    return f"{report.type_name}: {report.message}"


# -------------------------------------------------------------------------------------- scenarios


def values(driver: Driver) -> Any:
    worker = driver.start()
    return {
        "sum": driver.value(worker, tasks.add, 2, 3),
        "none": driver.value(worker, tasks.nothing),
        "big": len(driver.value(worker, tasks.big, 5_000_000)),
        "big argument": len(driver.value(worker, tasks.add, b"x" * 3_000_000, b"y")),
        "two": [
            unpack_value(row.payload) for row in driver.run(worker, tasks.add, [1], [2], n=2).values
        ],
        "zero": len(driver.run(worker, tasks.nothing, n=0).values),
        "wrong number": error_of(driver.run(worker, tasks.add, [1], [2, 3], n=2).values[0]),
    }


def errors(driver: Driver) -> Any:
    worker = driver.start()
    shown = {}
    for kind in (ValueError, KeyError, SystemExit, KeyboardInterrupt):
        row = driver.run(worker, tasks.fail, kind, "broken")
        shown[kind.__name__] = [error_of(row.values[0]), row.retry]
    bad = KindDefinition(99, "bad", b"\x80\x05cno_such_module\nfunction\n.", 1, 3)
    driver.seqs[worker] += 1
    row = RunRow(driver.seqs[worker], driver.ids(), 1, 99, 0, None, ())
    driver.pool.send(worker, Run([bad], [row]))
    found = driver.until(lambda: driver.finished(worker, row.seq))
    shown["missing"] = [error_of(found.values[0]), found.retry]
    lock = driver.run(worker, threading.Lock)
    report = load_error(lock.values[0].payload)
    shown["lock"] = [type(load_exception(report)).__name__, lock.retry]
    shown["alive"] = driver.value(worker, tasks.add, 1, 1)
    return shown


def deaths(driver: Driver) -> Any:
    shown = {}
    for function, args in (
        (tasks.leave, (3,)),
        (tasks.crash, ()),
        (tasks.fail, (SystemExit, "no")),
    ):
        worker = driver.start()
        driver.send(worker, (tasks.add, 1, 1), (function, *args), (tasks.add, 2, 2))
        if function is tasks.fail:
            driver.until(lambda worker=worker: driver.finished(worker, 3))
            driver.pool.send(worker, Exit())
        event = driver.exited(worker)
        told = [i for i, e in enumerate(driver.events) if getattr(e, "worker", 0) == worker]
        sample = [e.samples for e in driver.of(events.PageRead) if e.samples[0][0] == worker]
        shown[function.__name__] = {
            "status": event.status, "signal": event.signal_name, "tail": event.stderr_tail,
            "last": driver.events[told[-1]] is event, "page": sample[-1],
            "finished": [s for s in (1, 2, 3) if driver.finished(worker, s)],
        }  # fmt: skip
    return shown


def hunger(driver: Driver) -> Any:
    """Workers are killed: by somebody, by the kernel that counts it, by the node, by themselves."""
    shown = {}
    for who, count in (("somebody", 3), ("kernel", 4), ("node", 5), ("itself", 6)):
        worker = driver.start()
        driver.kernel.write_text(f"oom_kill {count}\n", encoding="utf-8")
        if who == "node":
            driver.pool.signal(worker, "KILL")
        else:
            os.kill(driver.said(worker, Ready)[0].pid, 11 if who == "itself" else 9)
        shown[who] = driver.exited(worker)
    return {who: [event.signal_name, event.out_of_memory] for who, event in shown.items()}


def prints(driver: Driver) -> Any:
    worker = driver.start()
    driver.value(worker, tasks.speak, "hello ünïcode")
    before = driver.output()
    first = next(e for e in driver.events if type(e) is events.Spoke)
    finished = next(
        e for e in driver.events if type(e) is events.WorkerSpoke and type(e.packet) is Finished
    )
    ordered = driver.events.index(first) < driver.events.index(finished)
    driver.send(worker, (tasks.speak, "while it runs"), (tasks.pause, 1.5))
    started_s = now_s()
    driver.until(lambda: "while it runs" in driver.output())
    soon = now_s() - started_s < 1.0
    driver.value(worker, tasks.speak, "x" * 200_000)
    pieces = [len(text) for e in driver.of(events.Spoke) for _, text, _ in e.rows]
    dropped = sum(dropped for e in driver.of(events.Spoke) for _, _, dropped in e.rows)
    return [before, ordered, soon, max(pieces), sum(pieces), dropped]


def interrupts(driver: Driver) -> Any:
    worker, page = driver.start(), driver.house.page
    shown = []
    for function, args in ((tasks.pause, (30,)), (tasks.best_so_far, ()), (tasks.stubborn, (0.3,))):
        seq = driver.send(worker, (function, *args))
        driver.until(lambda seq=seq: page.sample(worker)[1:] == (seq, 3))
        started_s = now_s()
        driver.pool.interrupt(worker, seq)
        row = driver.until(lambda seq=seq: driver.finished(worker, seq)).values[0]
        quick = now_s() - started_s < 1
        shown.append([unpack_value(row.payload) if not row.outcome else error_of(row), quick])
    # Meant for a row that is over: the next one is not hit.
    driver.pool.interrupt(worker, seq)
    shown.append([driver.value(worker, tasks.pause, 0.1), True])
    # Waiting in get: interrupted at once, and the next task runs.
    seq = driver.send(worker, (tasks.nested_get, 1))
    driver.until(lambda: driver.said(worker, Want))
    driver.pool.interrupt(worker, seq)
    request = driver.until(lambda: driver.said(worker, WantOver))[0].request
    time.sleep(0.2)
    waits = page.sample(worker)[1:] == (seq, WAITING)
    driver.pool.send(worker, Answered(request))
    row = driver.until(lambda: driver.finished(worker, seq)).values[0]
    shown.append([error_of(row), waits])
    shown.append([driver.value(worker, tasks.add, 1, 2), True])
    return shown


def taking_back(driver: Driver) -> Any:
    worker = driver.start()
    shown: dict[str, Any] = {}
    driver.send(worker, (tasks.pause, 0.5))
    driver.until(lambda: driver.house.page.sample(worker).running == 1)
    driver.send(worker, (tasks.add, 1, 1), (tasks.add, 1, 2))
    driver.pool.send(worker, Answered(7))
    driver.pool.take_packets(worker)
    driver.until(lambda: driver.of(events.PacketsTaken))
    shown["taken"] = driver.of(events.PacketsTaken)[0].seqs
    # Its definition went back: the kind is known though its first packet was taken.
    shown["after"] = driver.value(worker, tasks.add, 5, 5)
    first = driver.send(worker, (tasks.pause, 0.3), (tasks.nothing,), (tasks.nothing,))
    driver.until(lambda: driver.house.page.sample(worker).running == first)
    driver.pool.write(worker, REVOKED, first + 1)
    driver.pool.read_page([worker], 0.002)
    driver.until(lambda: driver.of(events.PageRead))
    shown["page"] = [driver.of(events.PageRead)[0].samples, first]
    driver.until(lambda: driver.said(worker, Returned))
    shown["returned"] = [driver.said(worker, Returned)[0].seqs, first]
    driver.pool.write(worker, REVOKED, 0)
    shown["again"] = driver.value(worker, tasks.add, 6, 6)
    stopped = driver.start()
    pid = driver.said(stopped, Ready)[0].pid
    os.kill(pid, signal.SIGSTOP)
    driver.until(lambda: state_of(pid) == "T")
    driver.send(stopped, *[(tasks.add, i, i) for i in range(100)])
    driver.send(stopped, (tasks.add, b"x" * 1_000_000, b""))
    driver.pool.take_packets(stopped)
    driver.until(lambda: driver.of(events.PacketsTaken, stopped))
    shown["stopped"] = len(driver.of(events.PacketsTaken, stopped)[0].seqs)
    os.kill(pid, signal.SIGCONT)
    shown["continued"] = driver.value(stopped, tasks.add, 7, 7)
    return shown


def answer(driver: Driver, worker: int, seq: int) -> None:
    """Play the node's part until a row is finished: every Want is answered with None."""
    none = pack_value(None).payload
    answered: list[int] = []

    def unanswered() -> list[Want]:
        return [want for want in driver.said(worker, Want) if want.request not in answered]

    while not driver.finished(worker, seq):
        driver.until(lambda: unanswered() or driver.finished(worker, seq))
        for want in unanswered():
            answered.append(want.request)
            rows = [ValueRow(id_, Outcome.VALUE, none) for id_ in want.ids]
            driver.pool.send(worker, Answered(want.request, rows))


def nesting(driver: Driver) -> Any:
    worker = driver.start()
    shown: dict[str, Any] = {}
    seq = driver.send(worker, (tasks.nested_get, 3), (tasks.nothing,), (tasks.nothing,))
    driver.until(lambda: driver.said(worker, Want))
    packets = [type(e.packet).__name__ for e in driver.of(events.WorkerSpoke, worker)]
    submitted = driver.said(worker, Submitted)[0]
    driver.send(worker, (tasks.nothing,))
    driver.until(lambda: len(driver.said(worker, Returned)) > 1)
    shown["order"] = packets
    shown["returned"] = [p.seqs for p in driver.said(worker, Returned)]
    shown["kinds"] = [len(submitted.kinds), len(submitted.rows), submitted.depth]
    shown["lends"] = driver.said(worker, Want)[0].lends
    answer(driver, worker, seq)
    row = driver.finished(worker, seq).values[0]
    shown["values"] = unpack_value(row.payload) if not row.outcome else error_of(row)
    driver.until(lambda: driver.said(worker, Refs))
    shown["dropped"] = [len(p.dropped) for p in driver.said(worker, Refs)]
    wants = len(driver.said(worker, Want))
    for function in (tasks.in_threads, tasks.futures):
        seq = driver.send(worker, (function,))
        answer(driver, worker, seq)
        row = driver.finished(worker, seq).values[0]
        shown[function.__name__] = unpack_value(row.payload) if not row.outcome else error_of(row)
    shown["threads lend"] = sum(w.lends for w in driver.said(worker, Want)[wants:])
    return shown


def holding(driver: Driver) -> Any:
    worker = driver.start()

    class Session:
        alive = True

        def drop(self, _: Any) -> None:
            pass

    ids = [driver.ids() for _ in range(3)]
    refs = [ObjectRef(ObjectId(id_), Session()) for id_ in ids]
    driver.value(worker, tasks.how_many, refs)
    driver.value(worker, tasks.keep, refs[:2])
    held = [p.held for p in driver.said(worker, Finished)]
    driver.value(worker, tasks.let_go)
    driver.until(lambda: driver.said(worker, Refs))
    dropped = driver.said(worker, Refs)[0].dropped
    return [[len(h) for h in held], sorted(dropped) == sorted(ids[:2])]


def set_up(driver: Driver) -> Any:
    directory = os.path.realpath(os.environ["SCENARIO_DIRECTORY"])
    names = ("COLOUR", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    worker = driver.start(env_vars=(("COLOUR", "red"),), working_dir=directory, num_cpus=2.5)
    shown = {"env": driver.value(worker, tasks.environment_of, *names)}
    place = driver.value(worker, tasks.where)
    shown["directory"] = place[0] == directory
    shown["group"] = place[1] == place[3]
    shown["parent"] = place[2] == driver.house.keeper_pid
    # 0, 1, 2, the node's socket, the lifeline, and the one that lists
    shown["descriptors"] = len(place[4])
    other = driver.start(ready=False, working_dir="/no/such/directory")
    shown["bad directory"] = driver.until(lambda: driver.said(other, Ready))[0].error
    shown["bad status"] = driver.exited(other).status
    return shown


def family(driver: Driver) -> Any:
    """What tasks start ends with their worker, however that ends."""
    shown = {}
    for name in ("KILL", "TERM", "Exit"):
        worker = driver.start()
        pids = driver.value(worker, tasks.start_family)
        assert all(alive(pid) for pid in pids[:2])
        if name == "Exit":
            driver.pool.send(worker, Exit())
        else:
            driver.pool.signal(worker, name)
        driver.exited(worker)
        driver.until(lambda pids=pids: not any(alive(pid) for pid in pids), 5.0)
        shown[name] = True
    return shown


def template_dies(driver: Driver) -> Any:
    worker = driver.start()
    seq = driver.send(worker, (tasks.pause, 0.5))
    template = set(children_of(driver.house.keeper_pid)) - {os.getpid()}
    template -= {driver.said(worker, Ready)[0].pid}
    os.kill(template.pop(), signal.SIGKILL)
    others = [driver.start(ready=False) for _ in range(3)]
    for other in others:
        driver.until(lambda other=other: driver.said(other, Ready))
    row = driver.until(lambda: driver.finished(worker, seq)).values[0]
    return [unpack_value(row.payload), [driver.value(other, tasks.add, 1, 1) for other in others]]


def many(driver: Driver) -> Any:
    """Start thirty workers at once; run something in each; let them go."""
    numbers = [driver.start(ready=False) for _ in range(30)]
    for number in numbers:
        driver.until(lambda number=number: driver.said(number, Ready))
    found = [driver.value(number, tasks.add, number, 1) for number in numbers]
    for number in numbers:
        driver.pool.send(number, Exit())
    statuses = [driver.exited(number).status for number in numbers]
    return [
        found == [n + 1 for n in numbers],
        set(statuses) == {0},
        len(driver.of(events.WorkerFailed)),
    ]


def stays(driver: Driver) -> Any:
    """Two workers with families, one busy; then nothing until somebody ends it."""
    workers = [driver.start(), driver.start()]
    pids = {"families": [driver.value(worker, tasks.start_family) for worker in workers]}
    pids["workers"] = [driver.said(worker, Ready)[0].pid for worker in workers]
    driver.send(workers[0], (tasks.pause, 1000))
    keeper_pid = driver.house.keeper_pid
    rest = set(children_of(keeper_pid)) - {os.getpid(), *pids["workers"]}
    rest -= {pid for one in pids["families"] for pid in one}
    write({"keeper": keeper_pid, "daemon": os.getpid(), "template": rest.pop(), **pids})
    driver.until(lambda: False, 60.0)


def hangs(driver: Driver) -> Any:
    """A daemon whose loop stops turning: the keeper aborts it, and the next one ends in peace."""
    mark = Path(sys.argv[2]).with_suffix(".hung")
    if mark.exists():
        return "second life"
    mark.write_text("hung", encoding="utf-8")
    driver.pool.beat()
    time.sleep(1.5)
    driver.pool.beat()
    time.sleep(60)
    return "never aborted"


def fails(_driver: Driver) -> Any:
    raise SystemExit(70)


def write(result: Any) -> None:
    path = Path(sys.argv[2])
    path.with_suffix(".new").write_text(json.dumps(result), encoding="utf-8")
    path.with_suffix(".new").replace(path)


def daemon(house: keeper.House) -> int:
    driver = Driver(house)
    result = globals()[sys.argv[1]](driver)
    write(result)
    return 0


if __name__ == "__main__":
    raise SystemExit(
        keeper.run(
            daemon,
            Settings.load(json.loads(sys.argv[3])),
            preload=["json.tool", "no_such_module"],
            owner_fd=int(sys.argv[4]),
        )
    )

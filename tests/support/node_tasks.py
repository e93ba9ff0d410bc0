"""What the scenarios of node_house run in workers."""

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from drumbeat.protocol.actor_calls import exit_actor
from drumbeat.protocol.errors import Interrupted
from drumbeat.protocol.messages import Options, ValueRow
from drumbeat.protocol.payload import pack_call, pack_function, unpack_value
from drumbeat.protocol.references import ObjectRef
from drumbeat.protocol.session import Kind, current

kept: list[Any] = []


def add(a: Any, b: Any) -> Any:
    return a + b


def nothing() -> None:
    return None


def fail(kind: type[BaseException], text: str) -> None:
    raise kind(text)


def leave(status: int) -> None:
    print("last words", file=sys.stderr, flush=True)
    os._exit(status)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def speak(text: str) -> None:
    print(text)
    print("to stderr", file=sys.stderr)


def pause(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def stubborn(seconds: float) -> str:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        try:
            time.sleep(0.01)
        except BaseException:  # noqa: BLE001  # that is what makes it stubborn
            continue
    return "stayed"


def best_so_far() -> str:
    try:
        time.sleep(30)
    except Interrupted:
        return "half"
    return "all"


def start_family() -> list[int]:
    """Start a child in the group, two in sessions of their own, and a daemon of the old kind."""
    plain = subprocess.Popen(["sleep", "1000"])
    own = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    shell = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!"], stdout=subprocess.PIPE)
    assert shell.stdout is not None
    orphan = int(shell.stdout.readline())
    shell.wait()
    shell.stdout.close()
    forked = os.fork()
    if not forked:
        os.setsid()
        time.sleep(1000)
        os._exit(0)
    return [plain.pid, own.pid, orphan, forked]


def environment_of(*names: str) -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in names}


def where() -> list[Any]:
    return [
        os.getcwd(),
        os.getpid(),
        os.getppid(),
        os.getpgrp(),
        sorted(os.listdir("/proc/self/fd")),
    ]


def big(size: int) -> bytes:
    return b"x" * size


def nested_get(count: int) -> Any:
    session = current()
    kind = Kind(pack_function(nothing, False, "nothing"), Options(), "nothing")
    ids = [id_ for _ in range(count) for id_ in session.submit(kind, pack_call((), {}))]
    refs = [ObjectRef(id_, session) for id_ in ids]
    rows = session.get([ref.id for ref in refs], 5.0)
    again = session.get([ref.id for ref in refs], 5.0)
    assert [row.id for row in rows] == [row.id for row in again] == ids
    return [unpack_value(row.payload) for row in rows]


def keep(refs: list[Any]) -> int:
    kept[:] = refs
    return len(refs)


def how_many(refs: list[Any]) -> int:
    return len(refs)


def let_go() -> None:
    kept.clear()


def futures() -> list[Any]:
    session = current()
    kind = Kind(pack_function(nothing, False, "nothing"), Options(), "nothing")
    ids = session.submit(kind, pack_call((), {}))
    found: list[Any] = []
    seen = threading.Event()

    def take(row: ValueRow) -> None:
        found.append(unpack_value(row.payload))
        seen.set()

    session.when_ready(ids[0], take)
    assert seen.wait(5)
    return found


def in_threads() -> list[Any]:
    session = current()
    kind = Kind(pack_function(nothing, False, "nothing"), Options(), "nothing")
    found: list[Any] = []

    def one() -> None:
        ids = session.submit(kind, pack_call((), {}))
        found.extend(unpack_value(row.payload) for row in session.get(ids, 5.0))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    one()
    for thread in threads:
        thread.join()
    return found


class Counter:
    """What actor_house.py makes actors of."""

    def __init__(self, count: int) -> None:
        self.count = count

    def add(self, amount: int) -> int:
        self.count += amount
        return self.count

    def fail(self, text: str) -> None:
        raise ValueError(text)

    def leave_by_exception(self) -> None:
        raise SystemExit(3)

    def quit(self, status: int) -> None:
        leave(status)

    def crash(self) -> None:
        crash()

    def leave(self) -> None:
        exit_actor()

    def pid(self) -> int:
        return os.getpid()

    def pause(self, seconds: float) -> str:
        return pause(seconds)

    def nested_get(self, count: int) -> Any:
        return nested_get(count)

"""How many calls a round trip takes in the scheduler, in the node daemon and in the program.

Usage: python -m benchmarks.calls [--trips 400] [--top 25]

Counted are calls of Python functions and of functions in C, in the threads that a round trip passes
through, for a task and for a call of an actor's method that do nothing. Who calls and waits finds
all this code cold, so what a trip costs goes with how much of it a turn with one message touches.
The counts hardly depend on the machine or on what else it does, unlike times: only what is due by
the clock (beats, acknowledgements that ride on nothing) falls on more trips or fewer. So the first
figure leaves out what is not called in most trips. The program looks for an answer again and again
before it sleeps: those looks are not counted.
"""

import argparse
import collections
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

#: to the daemons: where they look whether to count, and leave what they have counted
DIRECTORY = "DRUMBEAT_CALLS"
#: while this file is there they count
GO = "go"
DAEMONS = {"drumbeat.scheduler": "scheduler", "drumbeat.node": "node"}
#: what a daemon is told where the system imports it from, when it starts
STARTER = (
    "import sys; sys.path.insert(0, {root!r}); from benchmarks import calls;"
    " del sys.path[0]; calls.join()\n"
)
#: waits, or looks whether there is anything to wait for
LOOK = "poll"
WARM_UP_TRIPS = 300
SETTLE_S = 10.0
#: calls of a thread by function: {"link.py Link.flush": 2, "C len in link.py Link.queue": 2}
Counts = dict[str, int]


class Tally:
    """Counts calls of the thread that switches it on."""

    def __init__(self) -> None:
        self.by_code: collections.Counter[CodeType] = collections.Counter()
        #: of functions in C, by who calls
        self.by_name: collections.Counter[tuple[str, CodeType]] = collections.Counter()

    def on(self) -> None:
        """Count from here on."""
        sys.setprofile(self._note)

    def off(self) -> None:
        """Count no more."""
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            self.by_code[frame.f_code] += 1
        elif event == "c_call" and argument.__name__ != LOOK:
            self.by_name[argument.__qualname__, frame.f_code] += 1

    def counts(self) -> Counts:
        """Return what was counted, but for this module's own part in it."""
        counts: collections.Counter[str] = collections.Counter()
        for code, number in self.by_code.items():
            if code.co_filename != __file__:
                counts[_named(code)] += number
        for (name, code), number in self.by_name.items():
            if code.co_filename != __file__:
                counts[f"C {name} in {_named(code)}"] += number
        return dict(counts)


def _named(code: CodeType) -> str:
    return f"{Path(code.co_filename).name} {code.co_qualname}"


# -------------------------------------------------------------------------------- in the daemons


def join() -> None:
    """In a process that starts: if it is a daemon that is to count, have it look when it waits."""
    name = next((DAEMONS[word] for word in sys.orig_argv if word in DAEMONS), "")
    if not name or DIRECTORY not in os.environ:
        return
    from drumbeat.protocol.poller import Poller

    directory = Path(os.environ[DIRECTORY])
    wait, tally = Poller.wait, Tally()

    def counted(poller: Poller, *arguments: Any) -> list[int]:
        nonlocal tally
        tally.off()
        if threading.current_thread() is not threading.main_thread():
            pass
        elif (directory / GO).exists():
            tally.on()
        elif tally.by_code:
            part = directory / f"{name}.part"
            part.write_text(json.dumps(tally.counts()), encoding="utf-8")
            part.rename(directory / name)
            tally = Tally()
        return wait(poller, *arguments)

    Poller.wait = counted  # type: ignore[method-assign]


# -------------------------------------------------------------------------------- in the program


def count(trip: Callable[[], object], trips: int, directory: Path) -> Iterator[tuple[str, Counts]]:
    """Make so many round trips; yield what each process has counted."""
    for _ in range(WARM_UP_TRIPS):
        trip()
    (directory / GO).touch()
    tally = Tally()
    tally.on()
    for _ in range(trips):
        trip()
    tally.off()
    (directory / GO).unlink()
    yield "program", tally.counts()
    until_s = time.monotonic() + SETTLE_S
    for name in DAEMONS.values():
        path = directory / name
        while not path.exists():
            if time.monotonic() > until_s:
                raise TimeoutError(f"the {name} has counted nothing")
            trip()
        yield name, json.loads(path.read_text(encoding="utf-8"))
        path.unlink()


def without_callers(counts: Counts) -> Counts:
    """Return the same, with each function in C once, whoever calls it."""
    joined: collections.Counter[str] = collections.Counter()
    for name, number in counts.items():
        joined[name.partition(" in ")[0]] += number
    return dict(joined)


def show(title: str, counts: Counts, given: argparse.Namespace) -> None:
    """Print the totals, and what is called most."""
    trips = given.trips
    # Whole calls a trip: what falls on few of them, by the clock, is left out.
    plain = {name: round(number / trips) for name, number in counts.items()}
    of_c = sum(number for name, number in plain.items() if name.startswith("C "))
    total = sum(plain.values())
    print(
        f"{title}: {total} calls in most trips, {total - of_c} of Python and {of_c} of C functions;"
        f" {sum(counts.values()) / trips:.1f} in all"
    )
    if not given.callers:
        counts = without_callers(counts)
    for name in sorted(counts, key=lambda name: (-counts[name], name))[: given.top]:
        print(f"  {counts[name] / trips:8.2f}  {name}")


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--trips", type=int, default=400)
    parser.add_argument("--top", type=int, default=25, help="so many functions of each process")
    parser.add_argument("--callers", action="store_true", help="tell who calls what is in C")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        root = str(Path(__file__).resolve().parent.parent)
        (directory / "sitecustomize.py").write_text(STARTER.format(root=root), encoding="utf-8")
        paths = [name, *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        os.environ[DIRECTORY] = name
        from .adapters import Drumbeat
        from .workloads import nothing

        system = Drumbeat()
        system.start()
        counter = system.counter()
        try:
            for what, trip in (
                ("a task", lambda: system.call(nothing)),
                ("an actor's call", lambda: system.count(counter, 1)),
            ):
                for process, counts in count(trip, given.trips, directory):
                    show(f"{what}, {process}", counts, given)
        finally:
            system.stop()


if __name__ == "__main__":
    main()

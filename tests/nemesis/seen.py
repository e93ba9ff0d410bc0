"""What part 2 promises, seen working at its full size, with real times and real processes.

python tests/nemesis/seen.py deaths      how soon a worker's death is known
python tests/nemesis/seen.py workers     10,000 tasks, a worker killed every 100 ms
python tests/nemesis/seen.py daemons     10,000 tasks, daemon, template or keeper killed every 2 s
python tests/nemesis/seen.py scheduler   100,000 tasks in flight, the scheduler killed 20 times
python tests/nemesis/seen.py stops       worker, daemon, scheduler, client stopped for 8 s and 20 s
python tests/nemesis/seen.py reader      a program that stands still for 60 s with results to read
python tests/nemesis/seen.py soak        1,000,000 tasks; what is held before and after

Each prints its figures, and a line for each promise that it saw broken; docs/reliability.md quotes
them.
"""

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

HERE = Path(__file__).resolve()
if __name__ == "__main__":
    sys.path[0] = str(HERE.parents[1])

import drumbeat  # noqa: E402
import psutil  # noqa: E402
from drumbeat.protocol.session import current  # noqa: E402
from nemesis.cluster import NemesisCluster, parts_of, signal_to  # noqa: E402
from nemesis.judge import Log, judge  # noqa: E402
from nemesis.run import Program  # noqa: E402
from nemesis.workload import at_rest, note  # noqa: E402
from support.process_table import alive  # noqa: E402
from support.readers import PROGRAM, RESULT_BYTES  # noqa: E402

RESOLVE_S = 300.0
#: what a daemon has open for each worker: two ends of a socket, its output twice, its stacks
FILES_A_WORKER = 5
#: how often each value of max_retries is given
RETRIES = (0, 1, 3, 3, 5)


class Seen:
    """One cluster of two nodes with default times, a program in it, and what came of its tasks."""

    def __init__(self, cpus: int, in_flight: int = 100_000, kills: int = 20) -> None:
        self.in_flight = in_flight
        self.kills = kills
        self.directory = Path(tempfile.mkdtemp(prefix="ns-"))
        self.cluster = NemesisCluster(self.directory, 2, cpus, {})
        self.path = str(self.directory / "executions")
        self.records: dict[str, dict[str, Any]] = {}
        self.refs: dict[str, Any] = {}
        self.wrong: list[str] = []
        self.harmed: Counter[str] = Counter()
        self._lock = threading.Lock()

    def submit(self, count: int, seconds: float = 0.0, retries: tuple[int, ...] = RETRIES) -> None:
        """Submit so many tasks that note their executions."""
        made = {
            most: drumbeat.remote(noted).options(max_retries=most, retry_backoff_s=0.01)
            for most in retries
        }
        first = len(self.records)
        for number in range(first, first + count):
            most, key = retries[number % len(retries)], f"t{number}"
            self.refs[key] = made[most].remote(self.path, key, number, seconds)
            self.records[key] = {
                "retries": most, "kind": "square", "expected": number * number, "number": number,
            }  # fmt: skip

    def unfinished(self) -> int:
        """Return how many submitted tasks are not over."""
        session: Any = current()
        return int(session.unfinished())

    def settle(self) -> Counter[str]:
        """Get everything; return how many ended how."""
        counts: Counter[str] = Counter()
        end_s = time.monotonic() + RESOLVE_S
        unresolved = []
        for key, ref in self.refs.items():
            record = self.records[key]
            try:
                record["value"] = drumbeat.get(ref, timeout=max(0.0, end_s - time.monotonic()))
                counts["value"] += 1
            except drumbeat.GetTimeoutError:
                unresolved.append(key)
                counts["unresolved"] += 1
            except drumbeat.TaskError as error:
                record["error"], record["text"] = type(error).__name__, str(error)
                record["attempt"] = error.attempt
                counts[type(error).__name__] += 1
        ref = None
        self.refs.clear()
        told = {"records": self.records, "unresolved": unresolved, "at_rest": at_rest()}
        self.wrong += judge(Log(Path(self.path)), told, self.harmed)
        return counts

    @contextlib.contextmanager
    def harm(self, each_s: float, do: Callable[[Random], str]) -> Iterator[None]:
        """Do harm in a thread every so often."""
        over = threading.Event()
        random = Random(4711)

        def run() -> None:
            while not over.wait(each_s):
                self.harmed[do(random)] += 1

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def kill(self, random: Random, kinds: tuple[str, ...]) -> str:
        """Kill one process; return its kind."""
        kind = random.choice(kinds)
        with self._lock:
            found = self.cluster.hurt(kind, random.randrange(1000), signal.SIGKILL)
        return kind if found else f"no {kind} to kill"

    @contextlib.contextmanager
    def tended(self) -> Iterator[None]:
        """Start again what has died, in a thread, as a service manager does."""
        over = threading.Event()

        def run() -> None:
            while not over.wait(0.02):
                with self._lock:
                    self.cluster.tend()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def noted(path: str, key: str, number: int, seconds: float) -> int:
    note(path, "S", key)
    if seconds:
        time.sleep(seconds)
    note(path, "E", key)
    return number * number


def plain(number: int) -> int:
    return number + 1


def linger(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


# ------------------------------------------------------------------------------------ what is seen


def death(directory: Path) -> tuple[float, Exception | None]:
    """Kill the worker of a task; return how many ms later the program has its error, and that."""
    path = directory / "pid"
    path.unlink(missing_ok=True)
    ref = drumbeat.remote(linger).options(max_retries=0).remote(str(path))
    while not (path.exists() and path.read_text()):
        time.sleep(0.005)
    time.sleep(0.02)
    begun_s = time.monotonic()
    os.kill(int(path.read_text()), signal.SIGKILL)
    try:
        drumbeat.get(ref, timeout=20)
    except drumbeat.TaskError as error:
        return (time.monotonic() - begun_s) * 1000, error
    return 0.0, None


def deaths(seen: Seen) -> None:
    """From kill -9 of a worker to the error in the program, by way of the scheduler."""
    times_ms = []
    for _ in range(100):
        took_ms, error = death(seen.directory)
        times_ms.append(took_ms)
        is_plain = type(error) is drumbeat.WorkerDied  # not WorkerOutOfMemory, which is one, too
        if not is_plain or getattr(error, "signal_name", "") != "SIGKILL":
            seen.wrong.append(f"told as {error!r}")
    times_ms.sort()
    print(
        f"100 workers killed: the error is in the program after {statistics.median(times_ms):.1f}"
        f" ms (median), {times_ms[94]:.1f} ms (95 of 100), {times_ms[-1]:.1f} ms (longest)"
    )


def _under_kills(seen: Seen, each_s: float, kinds: tuple[str, ...], seconds: float) -> None:
    seen.submit(200)
    drumbeat.wait(list(seen.refs.values()), num_returns=200, timeout=30)
    begun_s = time.monotonic()
    with seen.tended(), seen.harm(each_s, lambda random: seen.kill(random, kinds)):
        seen.submit(10_000, seconds)
        counts = seen.settle()
    passed_s = time.monotonic() - begun_s
    log = Log(Path(seen.path))
    print(f"10,200 tasks in {passed_s:.1f} s; killed: {dict(seen.harmed)}; ended: {dict(counts)}")
    print(f"executions: {log.count():,}, most of one task: {max(map(len, log.starts.values()))}")


def workers(seen: Seen) -> None:
    """10,000 tasks on two nodes while a random worker is killed every 100 ms."""
    _under_kills(seen, 0.1, ("worker",), 0.004)


def daemons(seen: Seen) -> None:
    """The same with daemons, templates and keepers killed every 2 s."""
    _under_kills(seen, 2.0, ("daemon", "template", "keeper"), 0.01)


def scheduler(seen: Seen) -> None:
    """kill -9 of the scheduler with 100,000 tasks in flight, 20 times."""
    offset_s = time.time() - time.monotonic()
    socket = seen.directory / "scheduler.sock"
    kept: list[tuple[float, float]] = []
    with seen.tended():
        for number in range(seen.kills):
            seen.submit(seen.in_flight * 51 // 50 - seen.unfinished(), 0.002, (0, 0, 1, 3))
            seen.cluster.wait(0.5)
            print(f"  {number}: {seen.unfinished():,} in flight", flush=True)
            killed_s = time.monotonic()
            seen.cluster.hurt("scheduler", 0, signal.SIGKILL)
            seen.harmed["scheduler"] += 1
            bound_s = 0.0
            while bound_s < killed_s:
                time.sleep(0.01)
                with contextlib.suppress(FileNotFoundError):
                    bound_s = socket.stat().st_ctime - offset_s
            kept.append((killed_s, bound_s))
            before = seen.unfinished()
            end_s = time.monotonic() + 30
            while seen.unfinished() > before - 2000 and time.monotonic() < end_s:
                time.sleep(0.01)
        counts = seen.settle()
    log = Log(Path(seen.path))
    starts = sorted(one.at_ns / 1e9 for ones in log.starts.values() for one in ones)
    again = []
    for _, bound_s in kept:
        first = next((at for at in starts if at > bound_s), None)
        again.append(first - bound_s if first is not None else float("inf"))
    print(
        f"{len(seen.records):,} tasks, the scheduler killed {seen.kills} times;"
        f" ended: {dict(counts)}"
    )
    print(
        f"executions: {log.count():,}; first new execution after the bind:"
        f" {statistics.median(again):.2f} s (median), {max(again):.2f} s (longest)"
    )
    seen.wrong += [f"dispatching again took {took:.2f} s" for took in again if took > 2.0]
    failed = sum(count for name, count in counts.items() if name != "value")
    if failed:
        seen.wrong.append(f"{failed} tasks were lost")


def stops(seen: Seen) -> None:
    """SIGSTOP of worker, daemon, scheduler and client for 8 s and 20 s, under load."""
    cluster = seen.cluster
    for turn, (kind, for_s) in enumerate(
        (kind, for_s)
        for for_s in (8.0, 20.0)
        for kind in ("worker", "daemon", "scheduler", "client")
    ):
        program = Program(cluster, f"p{turn}", turn, 20, "1,3")
        if not cluster.wait(30, program.is_ready) or cluster.wait(3.0):
            seen.wrong.append("the program could not connect")
        pid = program.process.pid if kind == "client" else cluster.pids(kind)[0]
        others = {one: cluster.pids(one) for one in ("daemon", "scheduler", "keeper")}
        signal_to(pid, signal.SIGSTOP)
        cluster.wait(for_s)
        signal_to(pid, signal.SIGCONT)
        cluster.wait(4.0)
        if not alive(pid):
            seen.wrong.append(f"{kind} {pid} was ended because it was stopped for {for_s:g} s")
        if others != {one: cluster.pids(one) for one in others}:
            seen.wrong.append(f"somebody else ended while {kind} was stopped")
        (seen.directory / "halt").touch()
        cluster.wait(90.0, lambda one=program: one.process.poll() is not None)
        (seen.directory / "halt").unlink()
        told = program.told()
        if told is None:
            seen.wrong.append(f"the program failed: {program.log.read_text()[-1000:]}")
            continue
        counts = Counter(str(one.get("error", "value")) for one in told["records"].values())
        print(f"{kind} stopped for {for_s:g} s: {dict(counts)}", flush=True)
        log = Log(Path(seen.path))
        seen.wrong += [f"{kind} {for_s:g} s: {text}" for text in judge(log, told, {kind: 1})]
        lost = counts["NodeLost"] + counts["WorkerDied"]
        if lost and (kind != "daemon" or for_s < 10):
            seen.wrong.append(f"{lost} tasks failed because {kind} was stopped for {for_s:g} s")


def reader(seen: Seen, tasks: int = 5000, for_s: float = 60.0) -> None:
    """SIGSTOP of a program that has results to read: memory, and what others get meanwhile."""
    log, one = seen.directory / "read", drumbeat.remote(plain)
    log.touch()
    drumbeat.get(one.remote(0))  # both kinds of daemon are there now
    watched = {"scheduler": seen.cluster.pids("scheduler"), "node": seen.cluster.pids("daemon")}
    sizes: dict[str, list[int]] = {who: [] for who in watched}

    def others(during_s: float) -> float:
        """Return how many calls a second another program gets, which waits for each twenty."""
        begun_s, calls = time.monotonic(), 0
        while time.monotonic() < begun_s + during_s:
            if drumbeat.get([one.remote(n) for n in range(20)]) != list(range(1, 21)):
                seen.wrong.append("a wrong value")
            calls += 20
            for who, pids in watched.items():
                sizes[who].append(max(psutil.Process(pid).memory_info().rss for pid in pids))
        return calls / (time.monotonic() - begun_s)

    alone = others(5.0)
    base = {who: max(memory) for who, memory in sizes.items()}
    arguments = [str(seen.directory), str(log), str(tasks)]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        program.stdout.readline()
        program.send_signal(signal.SIGSTOP)
        during = others(for_s)
        executed, unread = log.stat().st_size, tasks * RESULT_BYTES
        program.send_signal(signal.SIGCONT)
        said = program.stdout.readline().strip()
    grown = {who: (max(memory) - base[who]) / 1e6 for who, memory in sizes.items()}
    print(
        f"a program with {unread / 1e6:.0f} MB of results to read stood still for {for_s:g} s:"
        f" {executed * RESULT_BYTES / 1e6:.0f} MB were made, then its work waited;"
        f" scheduler +{grown['scheduler']:.0f} MB, node +{grown['node']:.0f} MB at most"
    )
    print(f"calls a second of another program: {alone:.0f} before, {during:.0f} meanwhile")
    if said != f"True {unread}" or log.stat().st_size != tasks:
        seen.wrong.append(f"it read {said!r} of {log.stat().st_size} executions")
    if executed > tasks // 2 or during < alone / 2 or max(grown.values()) > 250:
        seen.wrong.append("what it does not read fills memory, or holds others up")


def soak(seen: Seen, count: int = 1_000_000) -> None:
    """A million tasks: every map empty, memory back at its base, no descriptor leaked."""
    one = drumbeat.remote(plain)

    def run(total: int) -> None:
        for first in range(0, total, 20_000):
            refs = [one.remote(number) for number in range(first, min(first + 20_000, total))]
            if sum(drumbeat.get(refs)) != sum(range(first + 1, first + len(refs) + 1)):
                seen.wrong.append("a wrong value")

    run(100_000)
    before = measured(seen)
    begun_s = time.monotonic()
    run(count)
    passed_s = time.monotonic() - begun_s
    after = measured(seen)
    print(f"{count:,} tasks in {passed_s:.0f} s ({count / passed_s:,.0f} a second)")
    for who, (memory, descriptors, held) in after.items():
        base, descriptors_before, _ = before[who]
        print(
            f"  {who:10} memory {base / 1e6:6.1f} MB -> {memory / 1e6:6.1f} MB,"
            f" descriptors {descriptors_before} -> {descriptors}, held {held or 'nothing'}"
        )
        if held:
            seen.wrong.append(f"{who} holds {held}")
        if descriptors > descriptors_before:
            seen.wrong.append(f"{who} has {descriptors - descriptors_before} descriptors more")
        if memory > base * 1.1 + 8e6:
            seen.wrong.append(f"{who} has {(memory - base) / 1e6:.0f} MB more")


def measured(seen: Seen) -> dict[str, tuple[int, int, dict[str, int]]]:
    """Return memory, descriptors and what is held at rest, of each process."""
    rest = at_rest()
    time.sleep(6.0)  # daemons collect when they have been idle for a while
    workers = {
        f"node {member.name}": len(parts_of(member.process.pid)["worker"])
        for member in seen.cluster.members[1:]
        if member.process is not None
    }
    found = {
        who: (
            one["memory_bytes"],
            # How many idle workers there are just now is no leak.
            one["descriptors"] - FILES_A_WORKER * workers.get(who, 0),
            {name: size for name, size in one["at_rest"].items() if size},
        )
        for who, one in (seen.cluster.sizes() or {}).items()
    }
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    own = {name: size for name, size in rest.items() if size}
    found["program"] = (pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd")), own)
    return found


WHAT: dict[str, Callable[[Seen], None]] = {
    "deaths": deaths, "workers": workers, "daemons": daemons, "scheduler": scheduler,
    "stops": stops, "reader": reader, "soak": soak,
}  # fmt: skip


def main() -> int:
    """See one of them; return 1 if a promise was broken."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    flags.add_argument("what", choices=list(WHAT))
    flags.add_argument("--cpus", type=int, default=2, help="of each of the two nodes")
    flags.add_argument("--in-flight", type=int, default=100_000, help="with scheduler")
    flags.add_argument("--kills", type=int, default=20, help="with scheduler")
    given = flags.parse_args()
    seen = Seen(given.cpus, given.in_flight, given.kills)
    try:
        seen.cluster.start()
        with drumbeat.init(seen.directory):
            WHAT[given.what](seen)
        left = seen.cluster.stop()
        if left:
            seen.wrong.append("left behind: " + "; ".join(left))
        if seen.wrong:
            print(seen.cluster.logs())
    finally:
        seen.cluster.close()
        shutil.rmtree(seen.directory, ignore_errors=True)
    for text in seen.wrong[:20]:
        print(f"WRONG: {text}")
    print("no promise was broken" if not seen.wrong else f"{len(seen.wrong)} promises were broken")
    return 1 if seen.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""Run seeds of the nemesis: real processes, killed and stopped while they work.

python tests/nemesis/run.py --minutes 10
python tests/nemesis/run.py --seed 17 --seconds 6 --keep
python tests/nemesis/run.py --minutes 5 --spare scheduler --spare keeper
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
if __name__ == "__main__":
    sys.path[0] = str(HERE.parents[1])

from nemesis.cluster import NemesisCluster, signal_to  # noqa: E402
from nemesis.judge import Log, judge, too_often  # noqa: E402
from nemesis.schedule import VICTIMS, Harm, Plan, draw, in_words  # noqa: E402
from support.process_table import children_of  # noqa: E402

WORKLOAD = HERE.parent / "workload.py"
#: the program's start, its end after the last harm, and the time to come to rest
START_S = 30.0
END_S = 75.0
REST_S = 10.0
#: how long after a program is killed its tasks may still begin: its grace, and a beat's way
GUEST_S = 2.5


class Program:
    """One client in a process of its own."""

    def __init__(self, cluster: NemesisCluster, name: str, seed: int, window: int, retries: str):
        self.cluster = cluster
        self.name = name
        self.log = cluster.directory / f"{name}.log"
        settings = json.dumps(cluster.settings)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(WORKLOAD), str(cluster.directory), name, str(seed),
                 str(window), retries, settings],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                start_new_session=True, env=cluster.environment(),
            )  # fmt: skip

    def is_ready(self) -> bool:
        """Return whether it has connected."""
        return (self.cluster.directory / f"{self.name}.ready").exists()

    def told(self) -> dict[str, Any] | None:
        """Return what it says that it saw; None if it did not get so far."""
        path = self.cluster.directory / f"{self.name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


class Round:
    """One seed's run."""

    def __init__(self, plan: Plan, directory: Path, settings: dict[str, Any] | None = None) -> None:
        self.plan = plan
        self.cluster = NemesisCluster(directory, plan.nodes, plan.cpus, settings)
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.done: list[str] = []
        self._guests: list[Program] = []
        #: programs that were killed, and when (ns)
        self._killed: dict[str, int] = {}
        self._resume: list[tuple[float, int]] = []

    def run(self) -> list[str]:
        """Run it; return what is wrong."""
        try:
            self._run()
        finally:
            self.cluster.close()
        return self.wrong

    def _run(self) -> None:
        cluster, plan = self.cluster, self.plan
        cluster.start()
        client = Program(cluster, "c", plan.seed, 40, "0,1,2,3")
        guest_wanted = any("guest" in (harm.victim, harm.also) for harm in plan.harms)
        if guest_wanted:
            self._invite()
        if not cluster.wait(START_S, client.is_ready):
            self.wrong.append("the program could not connect")
            return
        begun_s = time.monotonic()
        for harm in plan.harms:
            self._pass(begun_s + harm.at_s - time.monotonic())
            self._do(harm, client)
        self._pass(begun_s + plan.seconds - time.monotonic())
        for _, pid in self._resume:
            signal_to(pid, signal.SIGCONT)
        (cluster.directory / "halt").touch()
        ended = cluster.wait(END_S, lambda: client.process.poll() is not None)
        if not ended:
            self.wrong.append("the program has not ended")
        for guest in self._guests:
            if guest.process.poll() is None:
                cluster.wait(END_S, lambda g=guest: g.process.poll() is not None)
        self._judge(client)

    def _pass(self, seconds: float) -> None:
        """Let time pass; who was stopped goes on when it is due."""
        end_s = time.monotonic() + seconds
        while True:
            now_s = time.monotonic()
            for due in [one for one in self._resume if one[0] <= now_s]:
                self._resume.remove(due)
                signal_to(due[1], signal.SIGCONT)
            if now_s >= end_s:
                return
            due_s = min([end_s, *(at_s for at_s, _ in self._resume)])
            self.cluster.wait(max(0.0, min(0.05, due_s - now_s)))

    def _do(self, harm: Harm, client: Program) -> None:
        found = False
        if harm.what == "stop":
            pid = client.process.pid if harm.victim == "client" else 0
            if pid:
                found = client.process.poll() is None and signal_to(pid, signal.SIGSTOP)
            elif pid := self.cluster.hurt(harm.victim, harm.pick, signal.SIGSTOP):
                found = True
            if found:
                self._resume.append((time.monotonic() + harm.for_s, pid))
        else:
            found = self._kill(harm.victim, harm.pick)
            if harm.also:
                self._kill("guest" if harm.also == "client" else harm.also, harm.pick)
        self.done.append(in_words(harm) + ("" if found else "   (nobody there)"))
        if found:
            self.counts[f"{harm.what} {harm.victim}"] += 1

    def _kill(self, victim: str, pick: int) -> bool:
        if victim != "guest":
            return self.cluster.hurt(victim, pick, signal.SIGKILL) != 0
        for guest in self._guests:
            if guest.process.poll() is None and guest.is_ready():
                guest.process.kill()
                guest.process.wait()
                self._killed[guest.name] = time.monotonic_ns()
                self._invite()
                return True
        return False

    def _invite(self) -> None:
        name = f"g{len(self._guests)}g"
        self._guests.append(Program(self.cluster, name, self.plan.seed, 10, "0,1"))

    # --------------------------------------------------------------------------------- judging

    def _judge(self, client: Program) -> None:
        cluster, wrong = self.cluster, self.wrong
        told = client.told()
        harms = {name: count for name, count in self.counts.items() if " " in name}
        if told is None:
            wrong.append(f"the program failed:\n{client.log.read_text()[-2000:]}")
            told = {"records": {}, "unresolved": [], "at_rest": {}}
        self._rest()
        left = cluster.stop()
        log = Log(cluster.directory / "executions")
        wrong += judge(log, told, harms)
        # What retries a guest gave each task nobody has told: at most one, as it was started.
        guests = {key: 1 for key in log.starts if key.startswith("g") and "." not in key}
        wrong += too_often(log, guests)
        for name, killed_ns in self._killed.items():
            late_s = (log.last_start_ns(name) - killed_ns) / 1e9
            if late_s > GUEST_S + sum(harm.for_s for harm in self.plan.harms):
                wrong.append(f"a task of {name} began {late_s:.1f} s after its program was killed")
        if left:
            wrong.append("left behind: " + "; ".join(left))
        for member in cluster.members:
            if member.failures:
                wrong.append(f"{member.name} ended by itself with {member.failures}")
        self.counts["tasks"] += len(told["records"]) + len(log.children)
        self.counts["executions"] += log.count()
        self.counts["failures"] += sum("error" in one for one in told["records"].values())
        self.counts["harms"] += sum(harms.values())

    def _rest(self) -> None:
        """All programs have left: nothing may be held for them, and no process run for them."""
        cluster = self.cluster
        held: dict[str, Any] | None = {}

        def at_rest() -> bool:
            nonlocal held
            told = cluster.sizes(2.0)
            held = None
            if told is None:
                return False
            held = {
                f"{who}.{name}": count
                for who, sizes in told.items()
                for name, count in sizes["at_rest"].items()
                if count
            }
            for keeper in cluster.pids("keeper"):
                if len(children_of(keeper)) > 2:
                    held[f"children of keeper {keeper}"] = len(children_of(keeper))
            return not held

        if not cluster.wait(REST_S, at_rest):
            text = "a daemon does not answer" if held is None else f"held at rest: {held}"
            self.wrong.append(text)


def run_seed(
    seed: int, seconds: float, spared: tuple[str, ...] = (), *, keep: bool = False
) -> Round:
    """Run one seed; its directory stays if something is wrong and that is wanted."""
    directory = Path(tempfile.mkdtemp(prefix="nm-"))
    done = Round(draw(seed, seconds, spared), directory)
    done.run()
    if done.wrong:
        done.wrong.append(done.cluster.logs())
    if keep:
        print(f"kept: {directory}")
    else:
        shutil.rmtree(directory, ignore_errors=True)
    return done


def report(done: Round) -> str:
    """Say what was done and what is wrong."""
    plan = done.plan
    lines = [f"seed {plan.seed}: {plan.nodes} nodes of {plan.cpus} CPUs", *done.done]
    lines += [f"WRONG: {text}" for text in done.wrong]
    lines.append(
        f"again: python tests/nemesis/run.py --seed {plan.seed} --seconds {plan.seconds:g}"
    )
    return "\n".join(lines)


def main() -> int:
    """Run seeds; return 1 if a promise was broken."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    flags.add_argument("--seed", type=int, help="this seed only")
    flags.add_argument("--start", type=int, default=0, help="the first seed")
    flags.add_argument("--minutes", type=float, default=1.0, help="seeds are run for so long")
    flags.add_argument("--seconds", type=float, default=6.0, help="how long a seed does harm")
    kinds = [kind for kind, _ in VICTIMS]
    flags.add_argument("--spare", action="append", default=[], choices=kinds, help="never harmed")
    flags.add_argument("--keep", action="store_true", help="keep the directory with the logs")
    given = flags.parse_args()
    end_s = time.monotonic() + given.minutes * 60
    counts: Counter[str] = Counter()
    failed = []
    seed = given.start if given.seed is None else given.seed
    while True:
        done = run_seed(seed, given.seconds, tuple(given.spare), keep=given.keep)
        counts += done.counts
        counts["seeds"] += 1
        if done.wrong or given.seed is not None:
            print(report(done), flush=True)
        if done.wrong:
            failed.append(seed)
        seed += 1
        if given.seed is not None or time.monotonic() >= end_s:
            break
    print(", ".join(f"{name}: {count:,}" for name, count in sorted(counts.items())))
    print(f"failed seeds: {failed}" if failed else "no promise was broken")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

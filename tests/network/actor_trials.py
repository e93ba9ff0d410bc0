"""Trials with actors: a node is cut off, and its actor is never two at once.

What an actor does lies in one file, with times of one clock, since all hosts are on one machine.
"""

import time
from pathlib import Path
from typing import NamedTuple

from network.cluster import CLIENT, NODES, SCHEDULER
from network.trials import Trial


class Act(NamedTuple):
    """One line that an actor wrote."""

    actor: str
    incarnation: int
    pid: int
    node: str
    at_s: float


def acts_in(path: Path) -> list[Act]:
    """Return what was done, in order."""
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    acts = []
    for line in whole.splitlines():
        actor, incarnation, pid, node, at_ns = line.split()
        acts.append(Act(actor, int(incarnation), int(pid), node, int(at_ns) / 1e9))
    return sorted(acts, key=lambda act: act.at_s)


def overlaps(acts: list[Act]) -> list[str]:
    """Return where an incarnation acts after the first act of a later one, or as two processes."""
    wrong: list[str] = []
    for actor in sorted({act.actor for act in acts}):
        newest, process = 0, 0
        for act in acts:
            if act.actor != actor:
                continue
            if act.incarnation < newest:
                words = f"incarnation {act.incarnation} of {actor} on {act.node} acts after"
                return [*wrong, f"{words} incarnation {newest}"]
            if act.incarnation > newest:
                newest, process = act.incarnation, act.pid
            elif act.pid != process:
                return [*wrong, f"incarnation {newest} of {actor} is two processes"]
    return wrong


def node_cut_with_actor(trial: Trial, intervals: float) -> None:
    """A node that an actor lives on is cut off for so long, both ways."""
    cluster, path = trial.cluster, trial.directory / "acts"
    interval_s, slack_s = trial.scale.interval_s, trial.scale.slack_s
    job = cluster.run(trial.directory, CLIENT, "actor_job.py", "j")
    trial.expect(cluster.wait(60.0, job.is_ready), f"no actors:\n{_tail(job.log)}")
    if trial.wrong:
        return
    cluster.wait(2 * interval_s)
    cut = [act for act in acts_in(path) if act.node == NODES[0]]
    trial.expect(cut, "no actor lives on the node that is to be cut")
    if not cut:
        return
    old = cut[-1]
    trial.harmed_s = time.monotonic()
    network = cluster.network
    trial.links.cut(network[NODES[0]], network[SCHEDULER])
    trial.pause_until(intervals * interval_s)
    healed_s = trial.heal()
    back = cluster.wait(
        20 * interval_s + slack_s,
        lambda: any(act.actor == old.actor and act.at_s > healed_s for act in acts_in(path)[-200:]),
    )
    trial.expect(back, "the actor does nothing any more")
    cluster.wait(3 * interval_s)
    (trial.directory / "stop").touch()
    trial.finish(job, 120.0)
    trial.expect(job.told(), f"the program told nothing:\n{_tail(job.log)}")
    acts = acts_in(path)
    trial.wrong += overlaps(acts)
    _judge(trial, old, acts, intervals)


def _judge(trial: Trial, old: Act, acts: list[Act], intervals: float) -> None:
    """See when the old one ended and the new one began, if that was to be."""
    interval_s, slack_s = trial.scale.interval_s, trial.scale.slack_s
    of_it = [act for act in acts if act.actor == old.actor]
    trial.expect(of_it[0].at_s < trial.harmed_s, "it did nothing before the cut")
    last_s = max(act.at_s for act in of_it if act.pid == old.pid)
    later = [act for act in of_it if act.pid != old.pid]
    trial.figures["acts"] = len(acts)
    if intervals < 9:
        trial.expect(not later, "the actor was replaced though its node was back in time")
        return
    lasted_s = last_s - trial.harmed_s
    trial.figures["old one's last act"] = lasted_s
    # The last beat that was acknowledged may have been sent an interval before the cut.
    trial.expect(lasted_s > 8.5 * interval_s, f"it was ended {lasted_s:.2f} s after the cut")
    limit_s = 10 * interval_s + 0.5 * slack_s
    trial.expect(lasted_s < limit_s, f"it went on for {lasted_s:.2f} s after the cut")
    trial.expect(later, "the actor was not replaced")
    if later:
        trial.figures["new one's first act"] = later[0].at_s - trial.harmed_s


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-2000:] if path.exists() else ""

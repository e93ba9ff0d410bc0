"""From a seed to what is done to a cluster, and when. Pure: the same seed, the same harm.

Each seed draws which kinds of harm its run knows at all (swarm testing), so that what two kinds do
together is not hidden by what five do.
"""

from random import Random
from typing import NamedTuple

#: who can be harmed, and how often compared with others
VICTIMS = (
    ("worker", 6), ("daemon", 3), ("template", 2), ("keeper", 2), ("scheduler", 2), ("client", 1),
)  # fmt: skip
#: of the nodes' own beats: shorter stops are no event, longer ones make a node lost
STOPS_S = (0.05, 0.3, 0.8, 2.5)


class Harm(NamedTuple):
    """One thing done to one process, or to all of a kind at once."""

    at_s: float
    #: kill, stop
    what: str
    #: worker, daemon, template, keeper, scheduler; client: the one whose tasks are judged (it is
    #: only stopped), guest: another one (it is killed)
    victim: str
    #: which of the kind
    pick: int
    #: how long it is stopped
    for_s: float
    #: what is killed together with it
    also: str


class Plan(NamedTuple):
    """One run."""

    seed: int
    nodes: int
    cpus: int
    seconds: float
    harms: tuple[Harm, ...]


def draw(seed: int, seconds: float, spared: tuple[str, ...] = ()) -> Plan:
    """Return the run of this seed.

    Args:
        seed: the seed.
        seconds: how long harm is done.
        spared: kinds that are never harmed.
    """
    random = Random(f"nemesis {seed}")
    known = [(kind, weight) for kind, weight in VICTIMS if kind not in spared]
    known = [entry for entry in known if random.random() < 0.6] or [("worker", 1)]
    stops = random.random() < 0.6
    kills = random.random() < 0.85 or not stops
    pause_s = random.choice((0.1, 0.3, 0.8))
    kinds, weights = [kind for kind, _ in known], [weight for _, weight in known]
    harms = []
    at_s = random.uniform(0.2, 1.0)
    while at_s < seconds:
        victim = random.choices(kinds, weights)[0]
        what = "kill" if kills and (not stops or random.random() < 0.7) else "stop"
        if victim == "client" and what == "kill":
            victim = "guest"
        also = random.choice(kinds) if what == "kill" and random.random() < 0.15 else ""
        for_s = random.choice(STOPS_S) if what == "stop" else 0.0
        harms.append(Harm(at_s, what, victim, random.randrange(8), for_s, also))
        # What takes long to start again is given the time to do some work.
        slow = victim in ("keeper", "daemon", "scheduler", "guest")
        at_s += random.expovariate(1 / pause_s) + (0.4 if slow else 0.0) + for_s / 2
    return Plan(seed, random.choice((2, 2, 3)), random.choice((1, 2)), seconds, tuple(harms))


def in_words(harm: Harm) -> str:
    """Return a line for people."""
    also = f" and {harm.also}" if harm.also else ""
    stop = f" for {harm.for_s:g} s" if harm.for_s else ""
    return f"{harm.at_s:6.2f} s  {harm.what} {harm.victim} {harm.pick}{also}{stop}"

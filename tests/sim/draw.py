"""From a seed to a scenario: how many, how big, how often, and what goes wrong.

Each seed draws which kinds of trouble exist in its world at all, and how strong they are (swarm
testing): a world with everything at once hides what a world with two things shows. Most worlds are
small: what interleaves wrongly needs few tasks, but many tries. Never runs anything.
"""

from random import Random
from typing import Any, NamedTuple

from . import operations as op
from .drains import draw_drains
from .moments import gather, leave_behind
from .operations import Fault, Operation, Scenario
from .scripts import Spec, Step
from .segments import draw_segments

#: what a call of function i takes, more or less
_SECONDS = (0.0002, 0.002, 0.02, 0.2, 0.0005)


class Size(NamedTuple):
    """From which numbers a world draws."""

    nodes: tuple[int, ...]
    clients: tuple[int, ...]
    operations: tuple[int, ...]
    copies: tuple[int, ...]
    chaos_s: tuple[float, ...]
    faults: tuple[int, ...]
    #: how deep tasks nest, and how many children they have at most
    depth_max: int
    children_max: int
    #: check_invariants() of a core each so many turns
    audit_each: tuple[int, ...]


SMALL = Size((1, 1, 2, 2, 3), (1, 1, 1, 2), (1, 2, 3, 4, 6, 8), (1, 1, 1, 1, 1, 2, 10),
             (0.05, 0.5, 0.5, 1.0), (1, 1, 2, 3, 4), 2, 2, (3, 10, 30, 100))  # fmt: skip
MEDIUM = Size((1, 1, 2, 2, 3, 4), (1, 1, 1, 2, 3), (10, 15, 25), (1, 1, 1, 1, 1, 4, 8),
              (0.05, 0.5, 2.0, 6.0), (1, 2, 4, 8), 3, 3, (5, 20, 50))  # fmt: skip
LARGE = Size((1, 1, 2, 2, 3, 4), (1, 1, 1, 2, 3), (30, 50), (1, 1, 1, 1, 1, 5, 25),
             (0.05, 0.5, 2.0, 6.0), (1, 2, 4, 8, 15), 3, 4, (10, 30, 100))  # fmt: skip
#: of so many worlds, how many are of which size
SIZES = (SMALL,) * 72 + (MEDIUM,) * 7 + (LARGE,)

#: share of the worlds in which tasks may wait for what they keep from each other
KEEPS = 0.4
#: share of the worlds in which many tasks wait for a place
CROWDS = 0.08
#: and share of those in which they wait long, for nothing is wrong but that all CPUs are busy
CALMS = 0.005


class _Swarm:
    """What exists in this world."""

    def __init__(self, random: Random, size: Size) -> None:
        self.random = random
        self.size = size
        has = self.has
        self.long = has(0.3)
        self.deps = has(0.7)
        self.nests = has(0.6)
        self.contains = has(0.5)
        self.gives = has(0.5)
        self.returns = has(0.4)
        self.big = has(0.35)
        self.raises = has(0.4)
        self.retries = has(0.3)
        self.dies = has(0.3)
        self.hangs = has(0.25)
        self.fractions = has(0.5)
        self.gpus = has(0.3)
        self.custom = has(0.3)
        self.priorities = has(0.4)
        self.placed = has(0.25)
        self.keyed = has(0.2)
        self.max_calls = has(0.2)
        self.cancels = has(0.5)
        self.shares = has(0.25)
        self.lets_go = has(0.5)
        #: calls of one function with the same options, some quick and some slow
        self.repeats = has(0.5)
        self.kinds: list[tuple[int, dict[str, Any]]] = []
        #: who waits may hold what is never lent, and what may not be lent is of all sizes
        self.keeps = False

    def has(self, chance: float) -> bool:
        return self.random.random() < chance


def draw(seed: int) -> Scenario:
    """Return the world of this seed."""
    random = Random(f"scenario {seed}")
    size = random.choice(SIZES)
    swarm = _Swarm(random, size)
    swarm.keeps = swarm.has(KEEPS)
    nodes = {f"n{index}": _node(swarm) for index in range(random.choice(size.nodes))}
    scenario = Scenario(
        seed=seed,
        nodes=nodes,
        clients=random.choice(size.clients),
        settings=_settings(swarm),
        chaos_s=random.choice(size.chaos_s),
        delay_s=random.choice((2e-5, 1e-4, 1e-3, 2e-2)),
        jitter_s=random.choice((1e-5, 1e-4, 5e-3, 5e-2)),
        bytes_per_s=random.choice((1e9, 1e8, 1e6)),
        audit_each=random.choice(size.audit_each),
    )
    operations = _operations(swarm, scenario)
    operations += _crowd(_Swarm(Random(f"crowd {seed}"), size), operations)
    faults = _faults(swarm, scenario) + _trouble(swarm, scenario) + draw_drains(scenario)
    submits = [entry for entry in operations if isinstance(entry, op.Submit | op.Put)]
    others = [entry for entry in operations if isinstance(entry, op.Cancel | op.Drop | op.Share)]
    gather(random, submits, others)
    gather(random, operations, faults)
    faults += leave_behind(Random(f"behind {seed}"), scenario, operations, faults)
    if Random(f"calm {seed}").random() < CALMS:
        faults = []
        operations = [op.Submit(at_s=0.0, client=0, spec=Spec(label=1, seconds=3.0), copies=20)]
    draw_segments(scenario, operations)
    scenario.tape = sorted([*operations, *faults], key=lambda entry: entry.at_s)
    scenario.chaos_s = max([scenario.chaos_s, *(entry.at_s for entry in scenario.tape)])
    return scenario


def _node(swarm: _Swarm) -> dict[str, float]:
    made = {"CPU": float(swarm.random.choice((1, 1, 2, 2, 3, 4)))}
    if swarm.gpus and swarm.has(0.6):
        made["GPU"] = float(swarm.random.choice((1, 2)))
    if swarm.custom and swarm.has(0.6):
        made["lane"] = float(swarm.random.choice((1, 3)))
    return made


def _settings(swarm: _Swarm) -> dict[str, Any]:
    pick = swarm.random.choice
    interval_s, intervals = pick(((0.3, 10.0), (0.5, 4.0), (0.5, 4.0), (1.0, 10.0)))
    made: dict[str, Any] = {
        "heartbeat_interval_s": interval_s,
        "lost_after_intervals": intervals,
        "client_grace_s": pick((1.0, 3.0)),
        "client_silence_s": pick((20.0, 600.0)),
        "cancel_grace_s": pick((0.05, 0.5)),
        "term_grace_s": pick((0.05, 0.3)),
        "retry_backoff_max_s": pick((0.5, 2.0)),
        "infeasible_timeout_s": pick((3.0, 3.0, 8.0)),
        "no_node_notice_s": 2.0,
        "worker_idle_s": pick((0.5, 5.0)),
        "start_timeout_s": 60.0,
    }
    if swarm.big:
        made["inline_bytes_max"] = pick((300, 2000))
        made["frame_bytes_max"] = pick((8 << 10, 64 << 10))
    if swarm.has(0.3):
        made["link_window_batches_max"] = pick((2, 4, 16))
    made["workers_blocked_max"] = 10_000
    if swarm.has(0.2):
        made["workers_blocked_max"] = pick((1, 2, 4))
        swarm.fractions = swarm.fractions and swarm.keeps
    if swarm.has(0.3):
        made["window_tasks_max"] = pick((1, 4, 64))
        made["packet_tasks_max"] = pick((1, 3, 16))
    if swarm.has(0.3):
        made["small_value_bytes"] = pick((0, 200))
    return made


# ------------------------------------------------------------------------------------ tasks


def _options(swarm: _Swarm, nodes: int, nested: bool) -> dict[str, Any]:
    random = swarm.random
    made: dict[str, Any] = {}
    if swarm.has(0.5):
        made["max_retries"] = random.choice((0, 0, 1, 2))
    if swarm.fractions and swarm.has(0.5):
        made["num_cpus"] = random.choice((0.0, 0.25, 0.5, 0.5, 2.0))
    if swarm.gpus and swarm.has(0.3):
        made["num_gpus"] = random.choice((0.5, 0.5, 1.0, 2.0))
    if swarm.custom and swarm.has(0.3):
        made["resources"] = [["lane", random.choice((0.5, 1.0, 3.0))]]
    if swarm.returns and swarm.has(0.4):
        made["num_returns"] = random.choice((0, 2, 3))
    if swarm.priorities and swarm.has(0.5):
        made["priority"] = random.choice((-1, 1, 5))
    if swarm.placed and swarm.has(0.4):
        if swarm.has(0.5):
            made["spread"] = True
        else:
            made["node"] = f"n{random.randrange(nodes)}"
    if swarm.keyed and swarm.has(0.5):
        made["env_vars"] = [["MODE", random.choice(("a", "b"))]]
    if swarm.max_calls and swarm.has(0.4):
        made["max_calls"] = random.choice((1, 3))
    if swarm.retries and swarm.has(0.5):
        made["retry_exceptions"] = True
    if swarm.has(0.3):
        made["retry_backoff_s"] = random.choice((0.0, 0.3))
    return made


def _picks(swarm: _Swarm, most: int) -> list[int]:
    """Name refs at hand, recent ones more often (they count from the last one back)."""
    random = swarm.random
    reach = random.choice((2, 5, 30))
    return [-1 - random.randrange(reach) for _ in range(random.randint(1, most))]


def _spec(swarm: _Swarm, label: int, nodes: int, depth: int) -> Spec:
    random = swarm.random
    function, options = random.randrange(len(_SECONDS)), _options(swarm, nodes, depth > 0)
    if swarm.repeats and swarm.kinds and swarm.has(0.6):
        function, options = random.choice(swarm.kinds)
    swarm.kinds.append((function, options))
    spec = Spec(
        label=label,
        function=function,
        options=dict(options),
        seconds=_SECONDS[function] * random.uniform(0.5, 1.5),
    )
    if swarm.long and swarm.has(0.15):
        spec.seconds *= random.choice((10, 100))
    if swarm.deps and swarm.has(0.5):
        spec.deps = _picks(swarm, 3)
    if swarm.contains and swarm.has(0.4):
        spec.contains = _picks(swarm, 3)
    if swarm.big:
        spec.weight = random.choice((0, 0, 500, 5_000, 40_000))
        spec.sizes = [random.choice((0, 500, 5_000, 40_000)) for _ in range(2)]
    if swarm.raises and swarm.has(0.15):
        spec.errors = random.choice((1, 2, -1))
    if swarm.dies and swarm.has(0.12):
        spec.deaths = random.choice((1, 2, -1))
    if swarm.hangs and swarm.has(0.08):
        spec.seconds = random.uniform(3.0, 12.0)
        spec.deaf = swarm.has(0.4)
    if depth < swarm.size.depth_max and swarm.nests and swarm.has(0.35 if depth == 0 else 0.25):
        spec.steps = _steps(swarm, label, nodes, depth)
        spec.after_s = random.choice((0.0, 0.001))
    elif spec.contains and swarm.has(0.7):
        spec.steps = [_get_step(swarm)]
    if spec.steps and not swarm.keeps:
        for name in ("num_gpus", "resources"):
            spec.options.pop(name, None)
    if swarm.gives and swarm.has(0.5):
        spec.gives = _picks(swarm, 2)
    return spec


def _hurry(spec: Spec) -> None:
    """Many copies of it are submitted: none of it takes long."""
    spec.seconds = min(spec.seconds, 0.05)
    for step in spec.steps:
        if step.spec is not None:
            _hurry(step.spec)


def _get_step(swarm: _Swarm) -> Step:
    timeout_s = swarm.random.choice((None, None, None, 0.01, 0.5))
    return Step(do="get", cells=_picks(swarm, 3), timeout_s=timeout_s)


def _steps(swarm: _Swarm, label: int, nodes: int, depth: int) -> list[Step]:
    random = swarm.random
    steps: list[Step] = []
    for number in range(random.randint(1, max(1, swarm.size.children_max - depth))):
        child = _spec(swarm, label * 10 + number, nodes, depth + 1)
        steps.append(Step(do="submit", spec=child))
        if swarm.has(0.2):
            steps.append(Step(do="put", cells=_picks(swarm, 1) if swarm.contains else [],
                              size=random.choice((0, 3_000)) if swarm.big else 0))  # fmt: skip
        if swarm.has(0.2):
            steps.append(Step(do="run", seconds=random.choice((0.0005, 0.01))))
        if swarm.has(0.2):
            count = random.choice((1, 2))
            timeout_s = random.choice((None, 0.005, 1.0))
            steps.append(Step(do="wait", cells=_picks(swarm, 3), count=count, timeout_s=timeout_s))
        if swarm.cancels and swarm.has(0.1):
            steps.append(Step(do="cancel", cells=_picks(swarm, 1), force=swarm.has(0.5)))
        if swarm.has(0.5):
            steps.append(_get_step(swarm))
    return steps


def _operations(swarm: _Swarm, scenario: Scenario) -> list[Operation | Fault]:
    random = swarm.random
    made: list[Operation | Fault] = []
    nodes = len(scenario.nodes)
    for label in range(1, 1 + random.choice(swarm.size.operations)):
        at_s = random.uniform(0.0, scenario.chaos_s)
        client = random.randrange(scenario.clients)
        draw_ = random.random() if made else 0.0  # without any task nothing else means much
        if draw_ < 0.55:
            copies = random.choice(swarm.size.copies)
            spec = _spec(swarm, label * 1000, nodes, 0)
            if copies > 1:
                _hurry(spec)
            submit = op.Submit(at_s=at_s, client=client, spec=spec, copies=copies)
            submit.lets_go = swarm.lets_go and swarm.has(0.5)
            made.append(submit)
        elif draw_ < 0.62:
            made.append(op.Put(at_s=at_s, client=client, label=label * 1000,
                               size=random.choice((0, 3_000)) if swarm.big else 0,
                               contains=_picks(swarm, 2) if swarm.contains else []))  # fmt: skip
        elif draw_ < 0.74:
            timeout_s = random.choice((None, 0.001, 0.1, 2.0))
            picks = _picks(swarm, 6)
            made.append(op.Get(at_s=at_s, client=client, picks=picks, timeout_s=timeout_s))
        elif draw_ < 0.78:
            timeout_s = random.choice((None, 0.1))
            made.append(op.Wait(at_s=at_s, client=client, picks=_picks(swarm, 6),
                                count=random.randint(1, 3), timeout_s=timeout_s))  # fmt: skip
        elif draw_ < 0.85:
            made.append(op.Drop(at_s=at_s, client=client, picks=_picks(swarm, 4)))
        elif draw_ < 0.96 and swarm.cancels:
            made.append(op.Cancel(at_s=at_s, client=client, picks=_picks(swarm, 3),
                                  force=swarm.has(0.3), recursive=swarm.has(0.7),
                                  asks=swarm.has(0.4)))  # fmt: skip
        elif draw_ < 0.98 and swarm.shares and scenario.clients > 1:
            to = random.randrange(scenario.clients)
            made.append(op.Share(at_s=at_s, client=client, to=to, pick=_picks(swarm, 1)[0]))
        else:
            what = random.choice(("status", "nodes", "tasks"))
            made.append(op.Query(at_s=at_s, client=client, what=what))
    return made


def _crowd(swarm: _Swarm, operations: list[Operation | Fault]) -> list[Operation | Fault]:
    """Have many tasks wait for a place, in some worlds, and cancel some of them there."""
    submit = operations[0]
    if not isinstance(submit, op.Submit) or not swarm.has(CROWDS):
        return []
    submit.copies = 25
    _hurry(submit.spec)
    at_s = submit.at_s + 10 ** swarm.random.uniform(-4.0, -1.0)
    return [
        op.Cancel(at_s=at_s, client=submit.client, picks=_picks(swarm, 6), force=swarm.has(0.3),
                  recursive=swarm.has(0.7), asks=swarm.has(0.7))
    ]  # fmt: skip


# ------------------------------------------------------------------------------------ faults


def _faults(swarm: _Swarm, scenario: Scenario) -> list[Operation | Fault]:
    random = swarm.random
    makers = [
        (0.35, _kill_worker), (0.2, _stop_worker), (0.1, _fork_fails), (0.2, _crash_node),
        (0.2, _pause), (0.3, _cut), (0.2, _stall), (0.2, _slow), (0.15, _leave),
    ]  # fmt: skip
    chosen = [maker for chance, maker in makers if swarm.has(chance)]
    made: list[Operation | Fault] = []
    if not chosen or swarm.has(0.15):
        return made
    for _ in range(random.choice(swarm.size.faults)):
        at_s = random.uniform(0.0, scenario.chaos_s)
        made.append(random.choice(chosen)(swarm, scenario, at_s))
    return made


def _trouble(swarm: _Swarm, scenario: Scenario) -> list[Operation | Fault]:
    """Return what goes wrong with whole hosts, the scheduler's process, clocks and frames."""
    random = swarm.random
    if swarm.has(0.5):
        hosts = [*scenario.nodes, "scheduler", *(f"c{n}" for n in range(scenario.clients))]
        drift = random.choice((0.0, 1e-4, 1e-3))
        scenario.clocks = {
            host: [random.choice((0.0, 1e3, 1e6)) * random.random(),
                   1.0 + random.uniform(-drift, drift)]
            for host in hosts
        }  # fmt: skip
    if swarm.has(0.5):
        nodes = list(scenario.nodes)
        scenario.hosts = {f"c{n}": random.choice(nodes) for n in range(scenario.clients)
                          if swarm.has(0.6)}  # fmt: skip
    if swarm.has(0.15):
        scenario.hostility = [
            random.choice((0.0, 0.01, 0.05, 0.3)) * random.random(),
            random.choice((0.0, 0.1, 0.5)) * random.random(),
            random.choice((0.0, 0.1, 0.5)) * random.random(),
        ]
        scenario.settings["resend_after_s"] = random.choice((0.05, 0.2, 1.0))
    if swarm.has(0.2):
        scenario.settings["submit_credit_tasks"] = random.choice((2, 20))
        scenario.settings["submit_credit_bytes"] = random.choice((1_000, 1 << 20))
    if swarm.has(0.15):
        scenario.settings["results_backlog_bytes_max"] = random.choice((500, 5_000))
    makers = [
        (0.35, _crash_scheduler), (0.15, _pause_host), (0.15, _out_of_memory), (0.15, _late_worker)
    ]  # fmt: skip
    chosen = [maker for chance, maker in makers if swarm.has(chance)]
    if chosen and _crash_scheduler in chosen:
        scenario.settings["recovery_wait_s"] = random.choice((0.3, 2.0))
        scenario.settings["lease_margin_s"] = random.choice((0.0, 2.0))
    made: list[Operation | Fault] = []
    for maker in chosen:
        for _ in range(random.choice((1, 1, 2, 4))):
            made.append(maker(swarm, scenario, random.uniform(0.0, scenario.chaos_s)))  # noqa: PERF401
    for entry in list(made):
        if isinstance(entry, op.CrashScheduler):
            entry.at_note = swarm.has(0.2)
            if swarm.has(0.3):
                # Who else is gone when it comes back is not what was there when it went.
                at_s = max(0.0, entry.at_s + random.uniform(-0.3, 0.3))
                made.append(_crash_node(swarm, scenario, at_s))
    return made


def _node_number(swarm: _Swarm, scenario: Scenario) -> int:
    return swarm.random.randrange(len(scenario.nodes))


def _peer(swarm: _Swarm, scenario: Scenario) -> str:
    if swarm.has(0.6):
        return f"n{_node_number(swarm, scenario)}"
    return f"c{swarm.random.randrange(scenario.clients)}"


def _kill_worker(swarm: _Swarm, scenario: Scenario, at_s: float) -> Fault:
    signal, node = swarm.random.choice(("KILL", "TERM", "SEGV")), _node_number(swarm, scenario)
    return op.KillWorker(at_s=at_s, node=node, pick=swarm.random.randrange(8), signal=signal)


def _stop_worker(swarm: _Swarm, scenario: Scenario, at_s: float) -> Fault:
    for_s = swarm.random.choice((0.003, 0.05, 1.0))
    node = _node_number(swarm, scenario)
    return op.StopWorker(at_s=at_s, node=node, pick=swarm.random.randrange(8), for_s=for_s)


def _fork_fails(swarm: _Swarm, scenario: Scenario, at_s: float) -> Fault:
    for_s = swarm.random.choice((0.05, 1.0))
    return op.ForkFails(at_s=at_s, node=_node_number(swarm, scenario), for_s=for_s)


def _crash_node(swarm: _Swarm, scenario: Scenario, at_s: float) -> Fault:
    down_s = swarm.random.choice((0.01, 0.3, 2.0))
    return op.CrashNode(at_s=at_s, node=_node_number(swarm, scenario), down_s=down_s)


def _crash_scheduler(swarm: _Swarm, scenario: Scenario, at_s: float) -> Fault:
    random = swarm.random
    return op.CrashScheduler(
        at_s=at_s,
        down_s=random.choice((0.01, 0.01, 0.3, 3.0)) * random.uniform(0.5, 1.0),
        mid_turn=swarm.has(0.5),
        again_s=[random.choice((0.001, 0.05, 0.5, 2.5)) * random.random()
                 for _ in range(random.choice((0, 0, 0, 1, 2)))],
    )  # fmt: skip


def _pause_s(swarm: _Swarm, scenario: Scenario) -> float:
    """Return how long somebody stands still: up to longer than one may be silent."""
    settings = scenario.settings
    lost_s = settings["lost_after_intervals"] * settings["heartbeat_interval_s"]
    return float(swarm.random.choice((0.01, 0.5, 0.4 * lost_s, 1.2 * lost_s)))


def _pause_host(swarm: _Swarm, scenario: Scenario, at_s: float) -> Fault:
    for_s = _pause_s(swarm, scenario)
    return op.PauseHost(at_s=at_s, node=_node_number(swarm, scenario), for_s=for_s)


def _out_of_memory(swarm: _Swarm, scenario: Scenario, at_s: float) -> Fault:
    node = _node_number(swarm, scenario)
    return op.OutOfMemory(at_s=at_s, node=node, pick=swarm.random.randrange(8))


def _late_worker(swarm: _Swarm, scenario: Scenario, at_s: float) -> Fault:
    for_s = swarm.random.choice((0.005, 0.05, 1.0))
    node = _node_number(swarm, scenario)
    return op.LateWorker(at_s=at_s, node=node, pick=swarm.random.randrange(8), for_s=for_s)


def _pause(swarm: _Swarm, scenario: Scenario, at_s: float) -> Fault:
    who = "scheduler" if swarm.has(0.3) else _peer(swarm, scenario)
    return op.Pause(at_s=at_s, who=who, for_s=_pause_s(swarm, scenario))


def _cut(swarm: _Swarm, scenario: Scenario, at_s: float) -> Fault:
    which = swarm.random.choice((0, 1, 2, 2))
    who = _peer(swarm, scenario)
    return op.Cut(at_s=at_s, who=who, which=which, half_open=swarm.has(0.3))


def _stall(swarm: _Swarm, scenario: Scenario, at_s: float) -> Fault:
    way = swarm.random.choice(("up", "down"))
    for_s = swarm.random.choice((0.05, 0.5, 2.5, 6.0))
    return op.Stall(at_s=at_s, who=_peer(swarm, scenario), way=way, for_s=for_s)


def _slow(swarm: _Swarm, scenario: Scenario, at_s: float) -> Fault:
    factor = swarm.random.choice((5.0, 50.0))
    return op.Slow(at_s=at_s, who=_peer(swarm, scenario), factor=factor, for_s=1.0)


def _leave(swarm: _Swarm, scenario: Scenario, at_s: float) -> Operation:
    client = swarm.random.randrange(scenario.clients)
    return op.Leave(at_s=at_s, client=client, crash=swarm.has(0.5))

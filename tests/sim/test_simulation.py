"""Seeds, stories, planted bugs, and the honesty of the simulator itself."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import pytest
from drumbeat.protocol.messages import Failure, Outcome, ValueRow
from drumbeat.scheduler.outbox import Outbox
from drumbeat.scheduler.presence import Presence
from sim import operations as op
from sim.batch import OTHER_HASH_SEED, Runner, run_seeds, scenario_of, simulate, until
from sim.draw import draw
from sim.operations import Scenario, dump, load
from sim.oracle import Known
from sim.planted import TOLD_BY
from sim.plants import PLANTS, Plant, seeds_of
from sim.run import report
from sim.scripts import Spec, Step
from sim.shrink import kind_of, shrink
from sim.world import World

HERE = Path(__file__).parent
STORIES = sorted((HERE / "stories").glob("*.json"))
#: time for drawn seeds; the first ones are run whatever the machine
BUDGET_S = 25.0
SEEDS_MIN = 600
SEEDS_MAX = 20_000
#: the same for worlds with actors
ACTORS_BUDGET_S = 12.0
ACTORS_SEEDS_MIN = 150
#: and for worlds in which calls have limits
LIMITS_BUDGET_S = 6.0
LIMITS_SEEDS_MIN = 80
#: and for those with both
BOTH_BUDGET_S = 6.0
BOTH_SEEDS_MIN = 60
#: and for those in which all large payloads go past the scheduler
DATA_BUDGET_S = 6.0
DATA_SEEDS_MIN = 80

#: paths that the first seeds must have taken, or the draws have become tame
RARE = (
    "CPUs lent and regained", "blob", "connection cut", "dropped by cancel",
    "executions that died", "fork failed", "get timed out in a task", "link resumed",
    "new link life", "packets taken back", "rows returned", "saw DependencyFailed",
    "saw Infeasible", "saw NodeLost", "saw PoisonTask", "saw TaskCancelled", "saw WorkerDied",
    "task interrupted", "worker revoked",
    "client late for the scheduler's next life", "client stands still with its host",
    "hostile network", "new life of the scheduler", "node late for the scheduler's next life",
    "node lost by the scheduler's next life", "registered anew", "scheduler crashed",
    "scheduler crashed again", "worker held back", "worker out of memory",
    "drain ended in peace", "drained by the scheduler", "drained in a hurry",
    "bytes of a segment sent", "segment made",
)  # fmt: skip

RARE_OF_DATA = (
    "data cut", "payload came past the scheduler", "payload could not be had", "payload offered",
    "payload relayed",
)  # fmt: skip

RARE_OF_LIMITS = ("queue_timeout over", "saw TaskTimedOut", "timeout over", "total_timeout over")

RARE_OF_BOTH = ("saw ActorUnavailable", "saw TaskTimedOut", "timeout over")

RARE_OF_ACTORS = (
    "actor call repeated", "actor calls", "actor ended well", "actor made", "actor: drop",
    "actor: kill", "actor: restart", "saw ActorCallLost", "saw ActorDied",
)  # fmt: skip


def no_seed_breaks_a_promise(
    budget_s: float, seeds_min: int, rare: Sequence[str], **with_: bool
) -> None:
    """Run seeds for so long, but so many at least; each rare path must have been taken by one."""
    seeds = until(time.monotonic() + budget_s, range(SEEDS_MAX), seeds_min)
    jobs = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    counts: Counter[str] = Counter()
    for answer in run_seeds(seeds, jobs, **with_):
        assert not answer.violations, report(answer.seed, answer.violations)
        counts.update(answer.counts)
    assert not [path for path in rare if not counts[path]]


def test_no_seed_breaks_a_promise() -> None:
    no_seed_breaks_a_promise(BUDGET_S, SEEDS_MIN, RARE)


def test_no_seed_with_actors_breaks_a_promise() -> None:
    no_seed_breaks_a_promise(ACTORS_BUDGET_S, ACTORS_SEEDS_MIN, RARE_OF_ACTORS, actors=True)


def test_no_seed_with_limits_breaks_a_promise() -> None:
    no_seed_breaks_a_promise(LIMITS_BUDGET_S, LIMITS_SEEDS_MIN, RARE_OF_LIMITS, limits=True)


def test_no_seed_with_actors_and_limits_breaks_a_promise() -> None:
    no_seed_breaks_a_promise(BOTH_BUDGET_S, BOTH_SEEDS_MIN, RARE_OF_BOTH, actors=True, limits=True)


def test_no_seed_with_data_connections_breaks_a_promise() -> None:
    no_seed_breaks_a_promise(DATA_BUDGET_S, DATA_SEEDS_MIN, RARE_OF_DATA, data=True)


@pytest.mark.parametrize("story", STORIES, ids=[story.stem for story in STORIES])
def test_what_was_once_a_bug_stays_fixed(story: Path) -> None:
    outcome = simulate(load(story.read_bytes()))
    assert not outcome.violations, outcome.violations[0]


def test_without_the_epoch_that_is_written_down_one_who_was_away_runs_a_task_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Three lives of the scheduler, in the second of which somebody is away: no seed is likely to
    # draw that, so this bug is planted in its story.
    monkeypatch.setattr(Presence, "_judge_behind", lambda *_: None)
    (story,) = [one for one in STORIES if "was_away_while_its_node" in one.stem]
    outcome = simulate(load(story.read_bytes()))
    assert "was run 2 times, with max_retries=0" in outcome.violations[0]


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_caught_by_its_seed(name: str) -> None:
    plant = PLANTS[name]
    with plant.planted.plant():
        caught = any(simulate(scenario).violations for scenario in _catching(name, plant))
    assert caught, f"neither {seeds_of(name)} nor a story catches {name}: {plant.planted.about}"


def _catching(name: str, plant: Plant) -> Iterator[Scenario]:
    for seed in seeds_of(name):
        yield scenario_of(seed, actors=plant.actors, limits=plant.limits, data=plant.data)
    if name in TOLD_BY:
        yield load((HERE / "stories" / f"{TOLD_BY[name]}.json").read_bytes())


def test_a_planted_bug_goes_when_its_block_ends() -> None:
    name = next(iter(PLANTS))
    with PLANTS[name].planted.plant():
        pass
    assert not simulate(draw(seeds_of(name)[0])).violations


def test_a_seed_runs_the_same_in_another_process_under_another_hash_seed() -> None:
    with Runner(OTHER_HASH_SEED) as runner:
        for seed in (1, 5, 11, 23):
            runner.give(seed)
        answers = []
        while runner.given:
            answers += runner.take()
    assert len(answers) == 4
    for answer in answers:
        assert answer.digest == simulate(scenario_of(answer.seed)).digest


def test_a_seed_runs_the_same_twice_in_one_process() -> None:
    assert simulate(draw(3)) == simulate(draw(3))


def test_a_scenario_survives_being_saved() -> None:
    for scenario in (draw(17), scenario_of(17, actors=True, limits=True)):
        assert load(dump(scenario)) == scenario


def test_shrinking_finds_the_entries_that_matter() -> None:
    scenario = draw(2)
    guilty: list[op.Operation | op.Fault] = [
        op.Cut(at_s=0.01, who="n0"),
        op.Query(at_s=0.02, client=0, what="nodes"),
    ]
    scenario.tape = sorted([*scenario.tape, *guilty], key=lambda entry: entry.at_s)

    def fails(candidate: Scenario) -> bool:
        return all(entry in candidate.tape for entry in guilty)

    assert shrink(scenario, fails).tape == guilty


def test_a_lost_task_is_noticed_and_its_report_says_which_promise_it_breaks() -> None:
    scenario = _quiet([op.Submit(at_s=0.0, client=0, spec=Spec(label=1, seconds=0.001))])
    world = World(scenario)
    world.users[0].process.shell.send = lambda message: None
    outcome = world.run()
    assert kind_of(outcome) == "never resolved"


def test_what_is_repeated_for_its_childs_error_has_time_for_all_its_attempts() -> None:
    failing = Spec(errors=-1, options={"max_retries": 0})
    repeats = {"retry_exceptions": True}
    get = Step(do="get", cells=[-1])
    child = Spec(seconds=20.0, options=repeats, steps=[Step(do="submit", spec=failing), get])
    parent = Spec(label=1, options=repeats, steps=[Step(do="submit", spec=child), get])
    outcome = simulate(_quiet([op.Submit(at_s=0.0, client=0, spec=parent)]))
    assert not outcome.violations, outcome.violations[0]
    assert outcome.virtual_s > 16 * child.seconds


def test_a_task_may_fail_for_a_value_that_went_with_its_client() -> None:
    # Also for one that was put: no task stands for that.
    spec = Spec(label=2, contains=[0], seconds=1.0, steps=[Step(do="get", cells=[0])])
    scenario = _quiet(
        [
            op.Put(at_s=0.05, client=1, label=1, size=3_000),
            op.Share(at_s=0.1, client=1, to=0, pick=0),
            op.Submit(at_s=0.2, client=0, spec=spec),
            op.Leave(at_s=0.3, client=1, crash=True),
        ]
    )
    scenario.clients, scenario.chaos_s = 2, 0.5
    outcome = simulate(scenario)
    assert not outcome.violations, outcome.violations[0]
    assert outcome.counts["saw ObjectLost"]


def test_a_task_may_fail_for_a_worker_that_died_between_its_page_and_the_tasks_code() -> None:
    spec = Spec(label=1, options={"max_retries": 0})
    world = World(_quiet([op.Submit(at_s=0.0, client=0, spec=spec)]))
    pool = world.nodes["n0"].pool
    pool.random = _Slowest()

    def look() -> None:
        for worker in list(pool.workers.values()):
            if worker.started:
                worker.die(-9, "SIGKILL")
                return
        world.clock.after(1e-4, look)

    look()
    outcome = world.run()
    assert not outcome.violations, outcome.violations[0]
    assert outcome.counts["saw WorkerDied"] == 1
    assert not outcome.counts["executions"]


def test_a_task_may_fail_when_its_client_read_its_first_welcome_too_late() -> None:
    # The scheduler dies with its welcome on the way, and its next life does not wait so long.
    submit = op.Submit(at_s=0.0, client=0, spec=Spec(label=1, options={"max_retries": 0}))
    scenario = _quiet(
        [
            submit,
            op.Pause(at_s=0.13, who="c0", for_s=12.0),
            op.CrashScheduler(at_s=0.18, down_s=0.01),
        ]
    )
    scenario.settings, scenario.delay_s = {"client_grace_s": 1.0}, 0.05
    scenario.jitter_s, scenario.chaos_s = 0.0, 0.5
    outcome = simulate(scenario)
    assert not outcome.violations, outcome.violations[0]
    assert outcome.counts["client read its first welcome too late"] == 1
    assert outcome.counts["saw NodeLost"] == 1


@pytest.mark.parametrize(
    ("seen", "is_wrong"),
    [
        ("n0:NodeLost restart c0:WorkerDied", False),
        ("n0:NodeLost c0:WorkerDied", True),
        ("c0:NodeLost restart n0:WorkerDied", True),
        ("n0:NodeLost restart n1:WorkerDied n0:NodeLost", True),
        ("n0:NodeLost restart n1:WorkerDied restart c0:NodeLost", False),
        ("n0:NodeLost c0:NodeLost restart n0:WorkerDied", True),
        ("n0:TaskHung restart c0:WorkerDied", True),
    ],
)
def test_only_of_a_lost_node_may_others_have_heard_otherwise_and_only_before_a_restart(
    seen: str, is_wrong: bool
) -> None:
    oracle, peer = World(_quiet([])).oracle, b"client"
    id_ = peer + bytes(8)
    oracle.tasks[id_] = Known(id_, Spec(label=1), [], b"", 0.0)
    for word in seen.split():
        if word == "restart":
            oracle.epoch += 1
            continue
        who, error = word.split(":")
        row = ValueRow(id_, Outcome.FAILURE, failure=Failure(error, "in words"))
        oracle.check_row(row, who, peer if who == "c0" else b"")
    assert bool(oracle.violations) == is_wrong


def test_nobody_lets_go_before_a_ref_that_came_from_outside_is_loaded() -> None:
    scenario = _quiet(
        [
            op.Submit(at_s=0.0, client=0, spec=Spec(label=1)),
            op.Submit(at_s=0.0, client=1, spec=Spec(label=2)),
            op.Share(at_s=0.495, client=1, to=0, pick=0),
        ]
    )
    scenario.clients, scenario.chaos_s = 2, 0.5
    outcome = simulate(scenario)
    assert not outcome.violations, outcome.violations[0]
    assert outcome.counts["ref pickled outside"] == 1


def test_users_tasks_and_their_children_give_the_values_they_should() -> None:
    child = Spec(seconds=0.001)
    parent = Spec(
        label=1,
        steps=[
            Step(do="submit", spec=child),
            Step(do="submit", spec=child),
            Step(do="get", cells=[0, 1]),
        ],
        gives=[0],
    )
    dependant = Spec(label=2, deps=[-1], steps=[Step(do="get", cells=[0])])
    outcome = simulate(
        _quiet(
            [
                op.Submit(at_s=0.0, client=0, spec=parent),
                op.Submit(at_s=0.001, client=0, spec=dependant),
                op.Get(at_s=0.002, client=0, picks=[-1, -2]),
            ]
        )
    )
    assert not outcome.violations, outcome.violations[0]
    assert outcome.counts["executions"] == 4


def test_a_node_that_has_not_what_a_report_asks_for_is_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = Outbox.report
    monkeypatch.setattr(
        Outbox, "report", lambda self, node, task, attempt: real(self, node, task, attempt + 1)
    )
    seen = (violation for seed in range(60) for violation in simulate(draw(seed)).violations)
    assert any("has not what a Report asks for" in violation for violation in seen)


def test_calls_of_an_actor_run_in_their_order_and_it_ends_when_nobody_holds_it() -> None:
    options = {"creates": {}, "num_cpus": 0.0, "max_retries": 0}
    call = Spec(label=2, seconds=0.001, options={"num_cpus": 0.0, "max_retries": 0})
    outcome = simulate(
        _quiet(
            [
                op.CreateActor(at_s=0.0, client=0, spec=Spec(label=1, options=options)),
                op.CallActor(at_s=0.001, client=0, pick=0, spec=call, copies=20),
                op.EndActor(at_s=0.01, client=0, pick=0, how="drop"),
            ]
        )
    )
    assert not outcome.violations, outcome.violations[0]
    assert outcome.counts["actor calls"] == 20


def test_what_loses_doubles_and_reorders_frames_needs_no_second_connection() -> None:
    tape: list[op.Operation | op.Fault] = [
        op.Submit(at_s=number / 50, client=0, spec=Spec(label=number, seconds=0.001), copies=5)
        for number in range(100)
    ]
    scenario = _quiet(tape)
    scenario.chaos_s = 20.0
    scenario.hostility = [0.3, 0.5, 0.5]
    world = World(scenario)
    outcome = world.run()
    assert not outcome.violations, outcome.violations[0]
    assert outcome.counts["executions"] == 500
    dialling = (world.nodes["n0"], world.users[0].process)
    assert [process.shell._control.dialer.connects for process in dialling] == [1, 1]


class _Slowest(Random):
    """Whatever may come about does, and as slowly as it may."""

    def random(self) -> float:
        return 0.0

    def uniform(self, _low: float, high: float) -> float:
        return high


def _quiet(tape: list[op.Operation | op.Fault]) -> Scenario:
    return Scenario(
        seed=1, nodes={"n0": {"CPU": 2.0}}, clients=1, settings={}, chaos_s=0.1, tape=tape
    )

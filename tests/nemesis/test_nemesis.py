"""Fixed seeds of the nemesis, and the honesty of its oracle."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from nemesis.judge import Log, judge
from nemesis.run import report, run_seed
from nemesis.schedule import VICTIMS, draw

#: together they kill and stop every kind of process
SEEDS = (1, 208, 259, 5)
SECONDS = 4.0


@pytest.mark.integration
@pytest.mark.parametrize("seed", SEEDS)
def test_no_harm_breaks_a_promise(seed: int) -> None:
    done = run_seed(seed, SECONDS)
    assert not done.wrong, report(done)
    assert done.counts["executions"] > 20


def test_the_fixed_seeds_kill_and_stop_every_kind_of_process() -> None:
    harms = Counter(
        (harm.what, harm.victim) for seed in SEEDS for harm in draw(seed, SECONDS).harms
    )
    kinds = [kind for kind, _ in VICTIMS]
    missing = {("kill", kind.replace("client", "guest")) for kind in kinds} - set(harms)
    assert not missing | ({("stop", kind) for kind in kinds} - set(harms))


def test_a_seed_is_always_the_same_harm() -> None:
    assert draw(7, 10.0) == draw(7, 10.0)
    assert draw(7, 10.0).harms != draw(8, 10.0).harms
    assert {harm.victim for harm in draw(7, 60.0, ("scheduler",)).harms}.isdisjoint({"scheduler"})


# ------------------------------------------------------------------------------------ the oracle


def told(*unresolved: str, at_rest: dict[str, int] | None = None, **records: Any) -> dict[str, Any]:
    full = {
        key: {"retries": 1, "kind": "square", "expected": 4, "number": 2, **record}
        for key, record in records.items()
    }
    return {"records": full, "unresolved": list(unresolved), "at_rest": at_rest or {}}


def log_of(tmp_path: Path, *lines: str) -> Log:
    path = tmp_path / "executions"
    path.write_text("".join(f"{line} 100 {at}\n" for at, line in enumerate(lines)))
    return Log(path)


HARM = {"kill worker": 1}


def test_a_right_value_after_a_retry_is_right(tmp_path: Path) -> None:
    log = log_of(tmp_path, "S c1", "S c1", "E c1")
    assert judge(log, told(c1={"value": 4}), HARM) == []


@pytest.mark.parametrize(
    ("lines", "said", "word"),
    [
        (["S c1", "E c1"], told(c1={"value": 5}), "instead of 4"),
        ([], told(c1={"value": 4}), "never came to its end"),
        (["S c1", "S c1", "S c1", "E c1"], told(c1={"value": 4}), "ran 3 times"),
        (["S c1", "E c1"], told("c1", c1={}), "never resolved"),
        (["S c1", "E c1"], told(c1={"value": 4}, at_rest={"tasks": 1}), "still holds"),
        (["C0 c1.0", "S c1.0", "S c1.0"], told(), "ran 2 times with max_retries=0"),
        (["S c1"], told(c1={"error": "WorkerDied", "attempt": 1}), "attempt 1 of 2"),
        (
            [],
            told(**{f"c{n}": {"error": "WorkerDied", "attempt": 2} for n in range(2)}),
            "2 tasks failed with WorkerDied and never ran, after 1 harms",
        ),
        (["S c1"], told(c1={"error": "ObjectLost", "text": "gone"}), "ObjectLost"),
        (["S c1"], told(c1={"error": "TaskCancelled", "text": ""}), "TaskCancelled"),
        (
            ["S c1", "E c1"],
            told(c1={"kind": "refuse", "error": "ValueError", "text": "refused 3"}),
            "refused 3",
        ),
    ],
)
def test_a_broken_promise_is_seen(
    tmp_path: Path, lines: list[str], said: dict[str, Any], word: str
) -> None:
    (wrong,) = judge(log_of(tmp_path, *lines), said, HARM)
    assert word in wrong


def test_a_failure_needs_somebody_who_was_harmed(tmp_path: Path) -> None:
    said = told(c1={"error": "NodeLost", "attempt": 2})
    assert judge(log_of(tmp_path), said, HARM) == []
    assert "nobody was harmed" in judge(log_of(tmp_path), said, {})[0]

"""Handles of actors end to end: where they go, what they keep alive, and what users write."""

import asyncio
import dataclasses
import gc
import importlib
import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drumbeat
import pytest
from drumbeat.client.local import Cluster
from drumbeat.protocol.session import current
from support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Cluster]:
    with drumbeat.init(num_cpus=2) as one:
        yield one


@drumbeat.remote
class Counter:
    STEP = 10

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def add(self, amount: int = 1) -> int:
        self.count += amount
        return self.count

    def step(self) -> int:
        return self.add(Counter.STEP)

    @drumbeat.method(num_returns=2)
    def pair(self) -> tuple[int, int]:
        return self.count, -self.count

    @drumbeat.method(num_returns=0)
    def quietly(self) -> None:
        self.count += 1

    async def later(self, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return self.add()

    def itself(self) -> "Counter":
        return self

    def wait_for(self, gate: str) -> None:
        until(Path(gate).exists)


@drumbeat.remote
class Keeper:
    def __init__(self, kept: Any = None) -> None:
        self.kept = kept

    def keep(self, kept: Any) -> None:
        self.kept = kept

    def give(self) -> Any:
        kept, self.kept = self.kept, None
        return kept

    def ask(self) -> int:
        answer: int = drumbeat.get(self.kept.add.remote())
        return answer


def actors() -> int:
    """How many actors live."""
    session = current()
    assert session is not None
    return sum(one["state"] != "dead" for one in session.query("actors", 10_000))


def no_actor_is_left() -> bool:
    gc.collect()
    return bool(until(lambda: actors() == 0))


def test_methods_of_all_sorts() -> None:
    counter = Counter.remote(1)
    assert drumbeat.get(counter.step.remote()) == 11
    assert drumbeat.get(counter.pair.remote()) == [11, -11]
    assert counter.quietly.remote() is None
    assert drumbeat.get(counter.later.remote(0.01)) == 13
    assert drumbeat.get(counter.itself.remote()).count == 13
    assert asyncio.run(awaited(counter)) == [14, 15]
    refs = [counter.add.remote() for _ in range(5)]
    assert [drumbeat.get(ref) for ref in drumbeat.as_completed(refs)] == [16, 17, 18, 19, 20]
    assert drumbeat.wait([counter.add.remote()], timeout=10)[1] == []


async def awaited(counter: Any) -> list[int]:
    return [await counter.add.remote(), await counter.add.remote()]


def test_handles_in_every_place_are_the_same_actor() -> None:
    counter = Counter.remote()

    @drumbeat.remote
    def by_closure() -> int:
        answer: int = drumbeat.get(counter.add.remote())
        return answer

    @drumbeat.remote
    def by_argument(deep: dict[str, list[Any]]) -> tuple[int, Any]:
        return drumbeat.get(deep["a"][0].add.remote()), deep["a"][0]

    assert drumbeat.get(by_closure.remote()) == 1
    number, again = drumbeat.get(by_argument.remote({"a": [counter]}))
    assert (number, again) == (2, counter)
    assert drumbeat.get(Keeper.remote(counter).ask.remote()) == 3
    assert drumbeat.get(drumbeat.put([counter])) == [counter]
    assert drumbeat.get(pickle.loads(pickle.dumps(counter)).add.remote()) == 4
    add = counter.add
    assert drumbeat.get(drumbeat.remote(lambda call: drumbeat.get(call.remote())).remote(add)) == 5
    drumbeat.kill(counter)  # in a function or a pickle it may be needed for ever


def test_a_handle_that_only_another_actor_and_then_a_value_holds_is_kept() -> None:
    keeper = Keeper.remote()
    counter = Counter.remote(7)
    drumbeat.get(keeper.keep.remote([counter]))
    del counter
    gc.collect()
    given = keeper.give.remote()
    (counter,) = drumbeat.get(given)
    del given
    assert drumbeat.get(counter.add.remote()) == 8


def test_a_task_makes_actors_that_call_each_other_and_hands_one_on() -> None:
    @drumbeat.remote
    def make() -> Any:
        keeper = Keeper.remote(Counter.remote(1))
        assert drumbeat.get(keeper.ask.remote()) == 2
        return keeper

    keeper = drumbeat.get(make.remote())
    assert drumbeat.get([keeper.ask.remote() for _ in range(3)]) == [3, 4, 5]


def test_actors_that_nobody_holds_are_gone_and_leave_nothing_in_the_client() -> None:
    assert no_actor_is_left()
    session: Any = current()
    before = session._core.at_rest()
    counters = [Counter.remote(n) for n in range(20)]
    assert drumbeat.get([one.add.remote() for one in counters]) == list(range(1, 21))
    assert actors() == 20
    del counters
    assert no_actor_is_left()
    assert until(lambda: session._core.at_rest() == before)


def test_the_temporary_handle_of_one_call_lives_until_its_result_is_here() -> None:
    refs = [Counter.remote(n).later.remote(0.05) for n in range(10)]
    assert drumbeat.get(refs) == list(range(1, 11))
    del refs
    assert no_actor_is_left()


def test_the_bound_on_calls_holds_in_the_program_and_in_a_task(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    bounded = Counter.options(max_pending_calls=3).remote()

    def too_many(counter: Any, gate: str) -> int:
        refs = [counter.wait_for.remote(gate)]
        try:
            while len(refs) < 100:
                refs.append(counter.add.remote())
        except drumbeat.PendingCallsLimitExceeded:
            Path(gate).touch()
            drumbeat.get(refs)
            drumbeat.get(counter.add.remote())
        return len(refs)

    assert too_many(bounded, str(gate)) == 3
    gate.unlink()
    assert drumbeat.get(drumbeat.remote(too_many).remote(bounded, str(gate))) == 3


def test_a_call_that_waits_is_cancelled_and_the_others_run(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    counter = Counter.remote()
    first = counter.wait_for.remote(str(gate))
    second, third = counter.add.remote(100), counter.add.remote(1)
    drumbeat.cancel(second)
    with pytest.raises(drumbeat.TaskCancelled):
        drumbeat.get(second, timeout=10)
    gate.touch()
    assert drumbeat.get([first, third], timeout=10) == [None, 1]
    with pytest.raises(ValueError, match=r"drumbeat\.kill"):
        drumbeat.cancel(third, force=True)


def test_a_killed_actor_says_so_to_whoever_holds_it() -> None:
    counter = Counter.remote()
    keeper = Keeper.remote(counter)
    assert drumbeat.get(keeper.ask.remote()) == 1
    drumbeat.get(drumbeat.remote(drumbeat.kill).remote(counter))
    with pytest.raises(drumbeat.ActorDied, match="it was killed"):
        drumbeat.get(counter.add.remote(), timeout=10)
    with pytest.raises(drumbeat.ActorDied) as caught:
        drumbeat.get(keeper.ask.remote(), timeout=10)
    assert isinstance(caught.value, drumbeat.ActorError)


def test_a_class_of_a_module_is_found_by_its_name_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
import dataclasses
import drumbeat

LOG = []

@drumbeat.remote
@dataclasses.dataclass
class Ledger:
    owner: str
    total: int = 0

    def book(self, amount):
        LOG.append(amount)
        self.total += amount
        return self

    def log(self):
        import ledger_of_actors
        return list(ledger_of_actors.LOG), isinstance(self, ledger_of_actors.Ledger)
"""
    (tmp_path / "ledger_of_actors.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("ledger_of_actors")
    try:
        ledger = module.Ledger.remote("me", total=1)
        booked = drumbeat.get(ledger.book.remote(4))
        assert type(booked) is module.Ledger.plain_class
        assert booked == dataclasses.replace(booked, owner="me", total=5)
        assert drumbeat.get(ledger.log.remote()) == ([4], True), "one module, one state"
    finally:
        del sys.modules["ledger_of_actors"]


def test_many_threads_share_a_handle_and_each_has_its_results() -> None:
    counter = Counter.remote()
    seen: list[int] = []

    def call() -> None:
        seen.extend(drumbeat.get([counter.add.remote() for _ in range(100)]))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(seen) == list(range(1, 401))

"""What the settings say of calls that name no timeout, on a real cluster."""

import math
import time
from collections.abc import Iterator

import drumbeat
import pytest
from drumbeat.protocol.errors import TaskTimedOut

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with drumbeat.init(num_cpus=2, task_timeout_s=1.0, call_timeout_s=0.5, cancel_grace_s=0.5):
        yield


@drumbeat.remote
def sleep(for_s: float) -> float:
    time.sleep(for_s)
    return for_s


@drumbeat.remote
class Sleeper:
    def nap(self, for_s: float) -> float:
        time.sleep(for_s)
        return for_s


def test_a_task_that_names_no_timeout_has_that_of_the_settings() -> None:
    with pytest.raises(TaskTimedOut) as caught:
        drumbeat.get(sleep.remote(60), timeout=30)
    assert (caught.value.limit, caught.value.limit_s) == ("timeout", 1.0)


def test_its_own_timeout_counts_and_infinity_is_none() -> None:
    assert drumbeat.get(sleep.options(timeout=10).remote(1.5), timeout=30) == 1.5
    assert drumbeat.get(sleep.options(timeout=math.inf).remote(1.5), timeout=30) == 1.5


def test_a_call_of_an_actor_has_its_own_default_and_the_actor_lives_on() -> None:
    sleeper = Sleeper.remote()
    assert drumbeat.get(sleeper.nap.remote(0), timeout=30) == 0
    with pytest.raises(TaskTimedOut) as caught:
        drumbeat.get(sleeper.nap.remote(60), timeout=30)
    assert (caught.value.limit, caught.value.limit_s) == ("timeout", 0.5)
    time.sleep(1.5)
    assert drumbeat.get(sleeper.nap.remote(0), timeout=30) == 0

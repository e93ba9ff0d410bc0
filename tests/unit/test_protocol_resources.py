"""Amounts of resources: the same numbers on all sides."""

import pytest
from drumbeat.client.options import check
from drumbeat.node.attempts import Demand
from drumbeat.protocol.messages import Options
from drumbeat.protocol.resources import STEP, units
from drumbeat.scheduler.tasks import Shape


@pytest.mark.parametrize("amount", [0.0, 1e-9, STEP, 0.1, 0.33333, 1.0, 2.5, 1e6])
def test_scheduler_and_node_count_the_same(amount: float) -> None:
    options = Options(num_cpus=amount, num_gpus=amount, resources=(("disk", amount),))
    shape, demand = Shape(1, b"client", options), Demand.of(options)  # type: ignore[arg-type]
    assert shape.cpu == demand.cpus == units(amount)
    others = (("GPU", demand.gpus), *demand.others) if demand.gpus else demand.others
    assert shape.others == others


def test_a_positive_amount_is_never_none_at_all() -> None:
    assert units(STEP / 10) == units(STEP) == 1
    assert units(0) == 0


@pytest.mark.parametrize(
    "given", [{"num_cpus": 0.00001}, {"num_gpus": 0.00001}, {"resources": {"disk": 0.00001}}]
)
def test_less_than_one_step_is_refused_with_the_step(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"0\.0001"):
        check(given)


def test_one_step_and_nothing_are_fine() -> None:
    assert check({"num_cpus": STEP, "num_gpus": 0}).options.num_cpus == STEP

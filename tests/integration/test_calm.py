"""What looks like a fault and is none, at a tenth of the times: nobody is ended for it.

The trials are those of `make soak`, which has them at real times: tests/soak/calm_trials.py.
"""

from collections.abc import Iterator

import drumbeat
import pytest
from soak.calm import NAMES, trials_of
from soak.calm_house import TENTH, House

pytestmark = pytest.mark.integration

TRIALS = trials_of(TENTH)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    try:
        house = House(TENTH, tmp_path_factory.mktemp("c"))
        yield house
        house.close()
    finally:
        drumbeat.shutdown()


@pytest.mark.parametrize("name", NAMES)
def test_what_looks_like_a_fault_harms_nobody(house: House, name: str) -> None:
    trial = TRIALS[name](house)
    said = [path.read_text(encoding="utf-8") for path in house.directory.glob("run/**/*.log")]
    assert not trial.wrong, "\n".join([trial.line(), *trial.wrong, *said])

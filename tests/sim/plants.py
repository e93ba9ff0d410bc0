"""All planted bugs, the worlds that are to show each, and the seeds that were seen to.

Seeds that catch each stand in `planted_seeds.json`. One is enough; several outlive more changes to
the cores and to what is drawn. `python tests/sim/run.py --planted` looks for others, for all of
them, and writes them down; with `--planted NAME --record`, for this one. Never plants anything.
"""

from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from .planted import PLANTED, Planted
from .planted_actors import PLANTED_ACTORS
from .planted_data import PLANTED_DATA
from .planted_limits import PLANTED_LIMITS
from .planted_segments import PLANTED_SEGMENTS
from .planted_streams import PLANTED_STREAMS

#: name -> seeds that catch it, the first ones that did
SEEDS_FILE: Final = Path(__file__).with_name("planted_seeds.json")


class Plant(NamedTuple):
    """One bug, and what its worlds have besides tasks."""

    planted: Planted
    actors: bool = False
    limits: bool = False
    data: bool = False


PLANTS: Final[dict[str, Plant]] = {
    **{
        name: Plant(planted)
        for name, planted in (PLANTED | PLANTED_SEGMENTS | PLANTED_STREAMS).items()
    },
    **{name: Plant(planted, actors=True) for name, planted in PLANTED_ACTORS.items()},
    **{name: Plant(planted, limits=True) for name, planted in PLANTED_LIMITS.items()},
    **{name: Plant(planted, data=True) for name, planted in PLANTED_DATA.items()},
}


def seeds_of(name: str) -> list[int]:
    """Return seeds that catch a planted bug."""
    return _read_seeds().get(name, [])


def write_seeds(name: str, seeds: list[int]) -> None:
    """Write down which seeds catch a planted bug; what is planted no more is struck out."""
    known = _read_seeds() | {name: seeds}
    lines = [f' "{each}": {known[each]}' for each in PLANTS if each in known]
    SEEDS_FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _read_seeds() -> dict[str, list[int]]:
    return msgspec.json.decode(SEEDS_FILE.read_bytes(), type=dict[str, list[int]])

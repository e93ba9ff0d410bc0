"""What a package takes on the disk, with all that it needs, as this environment has it.

Never imports any of it.
"""

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from .results import ROOT

#: of an editable installation the files are the repository's
PARTS = ("client", "node", "protocol", "scheduler")


def needed(name: str) -> dict[str, Distribution]:
    """Return a package and, step by step, all that it requires here, by name.

    What it requires elsewhere only, or with an extra, is not looked at; neither is what is not
    installed, which its conditions did not ask for here.
    """
    found: dict[str, Distribution] = {}
    wanted = [name]
    while wanted:
        key = plain(wanted.pop())
        if key in found:
            continue
        try:
            found[key] = distribution(key)
        except PackageNotFoundError:
            continue
        wanted += required(found[key].requires or ())
    return found


def plain(name: str) -> str:
    """Return a package's name as the packages themselves are named."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required(lines: list[str] | tuple[()]) -> list[str]:
    """Return the names in requirements, but for those of extras."""
    return [
        match[0]
        for line in lines
        if "extra ==" not in line and (match := re.match(r"[\w.-]+", line)) is not None
    ]


def bytes_of(package: Distribution) -> int:
    """Return how large a package's files are, compiled ones left out: these come later."""
    return sum(_sizes(package))


def _sizes(package: Distribution) -> Iterator[int]:
    for file in package.files or ():
        path = Path(str(package.locate_file(file)))
        if file.suffix != ".pyc" and path.is_file():
            yield path.stat().st_size
    if plain(package.metadata["Name"]) == "drumbeat":
        for part in PARTS:
            yield from (path.stat().st_size for path in (ROOT / part).glob("*.py"))


def size_mb(name: str) -> float:
    """Return what a package takes with all that it needs."""
    return sum(map(bytes_of, needed(name).values())) / 1e6


def packages(name: str) -> float:
    """Return how many packages that are."""
    return float(len(needed(name)))

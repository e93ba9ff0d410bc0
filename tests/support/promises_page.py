"""Corrects docs/promises.md where a test has moved to another file; `make format` runs it."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "promises.md"
NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def corrected(page: str) -> str:
    """Return the page with each test under the file that holds it, if only one does."""
    holders: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for test in re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE):
            holders.setdefault(test, []).append(path.relative_to(TESTS).as_posix())

    def place(found: re.Match[str]) -> str:
        file, test = found.groups()
        files = holders.get(test, [])
        return f"`{files[0]}::{test}`" if len(files) == 1 and files[0] != file else found[0]

    return NAMED.sub(place, page)


if __name__ == "__main__":
    PAGE.write_text(corrected(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

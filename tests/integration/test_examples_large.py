"""The examples with large data run, with small numbers, and their results are right."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def printed(root: str, name: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *words],
        env={**os.environ, "DRUMBEAT_RUNTIME_DIRECTORY": root},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_words_are_counted_where_the_texts_lie(root: str) -> None:
    out = printed(root, "word_count.py", "--megabytes", "12", "--text", "4", "--parts", "3")
    found = re.search(r"([\d,]+) words", out)
    assert found is not None, out
    # A text has 20,000 words for each of its pieces, which are about 80 kB.
    assert int(found.group(1).replace(",", "")) > 2_000_000
    assert re.search(r"^scheduler +\d+ +\d+ +\d+$", out, re.MULTILINE), out


def test_a_product_of_matrices_is_right(root: str) -> None:
    out = printed(root, "matrix.py", "--size", "512", "--block", "128")
    assert "the product is right" in out

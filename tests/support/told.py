"""What a task tells a test, by files."""

from pathlib import Path

from .waiting import until


def begun(path: Path) -> str:
    """Return what a task has written there, once it has."""
    until(lambda: path.exists() and path.read_text().endswith("\n"))
    return path.read_text().strip()


def write(path: Path, text: str = "begun") -> None:
    """Tell the test something, whole."""
    half = path.with_suffix(".half")
    half.write_text(f"{text}\n")
    half.rename(path)

"""Environments for what benchmarks need beside Drumbeat, one each: packages never meet.

    python -m benchmarks.environments [ray] [dask] [plots]

Makes .venvs/bench-NAME with this interpreter and installs the packages named below there, unless it
is there already. What cannot be installed is said and noted: whoever wants it then reads the reason
and goes on without. Nothing is installed anywhere else.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from .results import ROOT

#: by name; exactly these versions, so that runs can be compared
PACKAGES = {
    "ray": ("ray==2.60.0", "numpy==2.4.6"),
    "dask": ("distributed==2026.8.0", "numpy==2.4.6"),
    "plots": ("matplotlib==3.11.2",),
}
#: of pip, which may have to fetch 80 MB
LIMIT_S = 900.0
_STAMP, _WHY = "stamp", "why"


def directory_of(name: str) -> Path:
    """Return where an environment is, or is to be."""
    return ROOT / ".venvs" / f"bench-{name}"


def python_of(name: str) -> str:
    """Return the interpreter for a system: its environment's, if it has one, else this one."""
    return str(directory_of(name) / "bin" / "python") if name in PACKAGES else sys.executable


def missing(name: str) -> str:
    """Return why a system cannot be run here, in one line; "": it can."""
    if name not in PACKAGES:
        return ""
    directory, wanted = directory_of(name), " ".join(PACKAGES[name])
    if (directory / _STAMP).exists():
        if (directory / _STAMP).read_text(encoding="utf-8") == wanted:
            return ""
        return f"another version is installed; run `python -m benchmarks.environments {name}`"
    if (directory / _WHY).exists():
        return (directory / _WHY).read_text(encoding="utf-8").strip()
    return f"not installed; run `python -m benchmarks.environments {name}`"


def set_up(name: str) -> str:
    """Make an environment, unless it is there; return why that was not possible, or ""."""
    if not missing(name):
        return ""
    directory, wanted = directory_of(name), PACKAGES[name]
    shutil.rmtree(directory, ignore_errors=True)
    pip = [str(directory / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    why = ""
    for command in ([sys.executable, "-m", "venv", str(directory)], [*pip, "install", *wanted]):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired:
            why = f"not done in {LIMIT_S:.0f} s"
        else:
            why = reason(done.stderr) if done.returncode else ""
        if why:
            why = f"{' '.join(wanted)} cannot be installed: {why}"
            directory.mkdir(parents=True, exist_ok=True)
            (directory / _WHY).write_text(why + "\n", encoding="utf-8")
            return why
    (directory / _STAMP).write_text(" ".join(wanted), encoding="utf-8")
    return ""


def reason(said: str) -> str:
    """Return the line of what pip said that tells why, without its marks and without addresses."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR")]
    why = (errors or lines or ["it did not say why"])[-1]
    # Where packages come from here is nobody's business who reads the table.
    return re.sub(r"\w+://\S+|host='[^']*'", "an index", why)


def main() -> None:
    """Set up what is named; what cannot be is no failure, since all runs go on without it."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    flags.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PACKAGES)}")
    given = flags.parse_args()
    if unknown := [name for name in given.names if name not in PACKAGES]:
        flags.error(f"no environment {unknown[0]!r}; there are {', '.join(PACKAGES)}")
    for name in given.names or PACKAGES:
        print(f"{name}: {set_up(name) or 'ready, ' + str(directory_of(name))}")


if __name__ == "__main__":
    main()

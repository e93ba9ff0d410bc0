"""A census of the Python standard library: one remote task for every module in it.

Run it with `make demo`, or `python examples/census.py [DIRECTORY]` for any other tree of Python
files. A local cluster of two nodes starts, or DRUMBEAT_ADDRESS says which one is used; each task is
sent one file, parses it and sends back a few numbers; what the tasks print appears here as it
happens. An actor keeps the running totals. Another one counts headings by a regular expression that
never comes to an end with one file, which is among the others on purpose: that call is ended after
two seconds, and says what it hung in. A table of the packages ends it.
"""

import argparse
import ast
import os
import re
import sysconfig
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import drumbeat
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: a function longer than this is worth a line of its own while the census runs
NOTABLE_LINES = 600
FOREIGN = {"site-packages", "dist-packages", "__pycache__"}
SINGLE_MODULES = "(single modules)"
#: headings of docstrings are underlined; written so, it tries 2 to the power of 60 ways with TRAP
UNDERLINE = re.compile(r"(?:=+|-+)+$")
TRAP = "(a trap)"
TRAP_SOURCE = b'"""A title\n' + b"=" * 60 + b'|\n"""\n'


@dataclass
class Survey:
    """What one file holds."""

    lines: int = 0
    functions: int = 0
    longest: tuple[int, str] = (0, "")
    imported: list[str] = field(default_factory=list)
    parsed: bool = True
    docstring: str = ""


@drumbeat.remote
def survey(name: str, source: bytes) -> Survey:
    """Parse one file; say so if it cannot be parsed, or holds a very long function."""
    found = Survey(lines=source.count(b"\n"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = ast.parse(source, name)
    except (SyntaxError, ValueError) as error:
        print(f"{name} does not parse: {error.args[0]}")
        found.parsed = False
        return found
    found.docstring = ast.get_docstring(module) or ""
    blocks: list[list[ast.stmt]] = [module.body]
    while blocks:
        for statement in blocks.pop():
            count(statement, found)
            blocks += [getattr(statement, part, []) for part in ("body", "orelse", "finalbody")]
            for part in ("handlers", "cases"):
                blocks += [branch.body for branch in getattr(statement, part, [])]
    if found.longest[0] >= NOTABLE_LINES:
        print(f"{name} has a function of {found.longest[0]} lines: {found.longest[1]}")
    return found


def count(statement: ast.stmt, found: Survey) -> None:
    """Enter one statement into the survey."""
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            found.functions += 1
            lines = (statement.end_lineno or statement.lineno) - statement.lineno + 1
            found.longest = max(found.longest, (lines, statement.name))
        case ast.Import():
            found.imported += [alias.name.partition(".")[0] for alias in statement.names]
        case ast.ImportFrom(level=0, module=str(module)):
            found.imported.append(module.partition(".")[0])


@dataclass
class Package:
    """The sum of a package's surveys."""

    name: str
    files: int = 0
    lines: int = 0
    functions: int = 0
    longest: tuple[int, str] = (0, "")
    imported: Counter[str] = field(default_factory=Counter)

    def add(self, one: Survey) -> None:
        """Add one file."""
        self.files += 1
        self.lines += one.lines
        self.functions += one.functions
        self.longest = max(self.longest, one.longest)
        self.imported.update(one.imported)

    def merge(self, other: "Package") -> None:
        """Add another package."""
        self.files += other.files
        self.lines += other.lines
        self.functions += other.functions
        self.longest = max(self.longest, other.longest)
        self.imported.update(other.imported)


@drumbeat.remote(max_restarts=3, checkpoint_every_calls=1)
class Totals:
    """Keeps the running totals where it lives, and when its process dies, where it lives next."""

    def __init__(self) -> None:
        self.packages: dict[str, Package] = {}

    def add(self, package: str, one: Survey) -> None:
        """Enter one file."""
        self.packages.setdefault(package, Package(package)).add(one)

    def all(self) -> dict[str, Package]:
        """Return what there is by now: every file whose `add` was called before."""
        return self.packages

    def __checkpoint__(self) -> dict[str, Package]:
        return self.packages

    def __restore__(self, packages: dict[str, Package]) -> None:
        self.packages = packages


@drumbeat.remote(max_restarts=3)
class Headings:
    """Counts the underlined headings of docstrings. A text may be fatal to it: see UNDERLINE."""

    @drumbeat.method(timeout=2)
    def count(self, docstring: str) -> int:
        """Return how many lines of a docstring underline the one above."""
        return sum(UNDERLINE.match(line) is not None for line in docstring.splitlines())


def python_files(root: Path) -> list[str]:
    """Return the names below root of all Python files that belong to it."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in FOREIGN]
        found += [os.path.join(folder, name) for name in files if name.endswith(".py")]
    return sorted(os.path.relpath(path, root) for path in found)


def package_of(name: str) -> str:
    """Return the package that a file belongs to."""
    top, *rest = Path(name).parts
    return top if rest else SINGLE_MODULES


def print_table(packages: dict[str, Package], rows_max: int) -> None:
    """Print the largest packages, the rest as one row, and the sum."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold underline")
    table.add_column("package", style="cyan", no_wrap=True, min_width=16)
    for heading, width in (("files", 5), ("lines", 7), ("functions", 9)):
        table.add_column(heading, justify="right", no_wrap=True, min_width=width)
    table.add_column("longest function", no_wrap=True, max_width=24)
    table.add_column("imports most", no_wrap=True, overflow="ellipsis")

    ranked = sorted(packages.values(), key=lambda package: (-package.lines, package.name))
    shown, rest = ranked[:rows_max], ranked[rows_max:]
    if rest:
        others = Package(f"({len(rest)} others)")
        for package in rest:
            others.merge(package)
        shown.append(others)
    total = Package("all")
    for package in ranked:
        total.merge(package)

    for package in (*shown, total):
        length, name = package.longest
        foreign = [name for name, _ in package.imported.most_common(4) if name != package.name]
        table.add_row(
            Text(package.name),
            *(f"{number:,}" for number in (package.files, package.lines, package.functions)),
            Text(f"{length:>3} {name}" if length else ""),
            Text(" ".join(foreign[:3])),
            style="bold" if package is total else None,
        )
    print()
    Console().print(table)


def sum_of(counts: "dict[str, drumbeat.ObjectRef[int]]") -> int:
    """Return the sum of what was counted; of a count that was ended, say all that is known."""
    total = 0
    for name, ref in counts.items():
        try:
            total += drumbeat.get(ref)
        except drumbeat.TaskTimedOut as error:
            print(f"\nthe headings of {name} are not counted, the rest goes on:\n{error}")
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    stdlib = sysconfig.get_path("stdlib")
    parser.add_argument("directory", nargs="?", default=stdlib, help="default: %(default)s")
    parser.add_argument("--nodes", type=int, default=2, help="nodes of a local cluster (default 2)")
    parser.add_argument("--rows", type=int, default=15, help="rows of the table (default 15)")
    arguments = parser.parse_args()
    root = Path(arguments.directory).resolve()
    names = python_files(root)
    if not names:
        parser.error(f"there is no Python file in {root}")

    # Read here: nodes on other machines may not have these files.
    sources = [(root / name).read_bytes() for name in names]
    middle = len(names) // 2
    names.insert(middle, TRAP)
    sources.insert(middle, TRAP_SOURCE)

    with drumbeat.init(nodes=arguments.nodes):
        started_s = time.perf_counter()
        totals, headings = Totals.remote(), Headings.remote()
        added, counts = [], {}
        unparsed = 0
        found = drumbeat.map(survey, names, sources, progress=True)
        for name, one in zip(names, found, strict=True):
            unparsed += not one.parsed
            if name != TRAP:
                added.append(totals.add.remote(package_of(name), one))
            if one.docstring:
                counts[name] = headings.count.remote(one.docstring)
        underlined = sum_of(counts)
        drumbeat.get(added)  # says so, should one have been lost
        packages = drumbeat.get(totals.all.remote())
        took_s = time.perf_counter() - started_s
        nodes = len(drumbeat.nodes())

    print_table(packages, arguments.rows)
    lines = sum(package.lines for package in packages.values())
    print(
        f"{len(names) - 1:,} files, {lines:,} lines, {underlined} underlined headings, {unparsed} "
        f"not parsed, in {took_s:.1f} s on {nodes} nodes: {len(names) / took_s:,.0f} tasks a second"
    )


if __name__ == "__main__":
    main()

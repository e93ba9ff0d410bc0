"""A census of the Python standard library: one remote task for every module in it.

Run it with `make demo`, or `python examples/census.py [DIRECTORY]` for any other tree of Python
files. A local cluster of two nodes starts, or DRUMBEAT_ADDRESS says which one is used; each task is
sent one file, parses it and sends back a few numbers; what the tasks print appears here as it
happens; a table of the packages ends it.
"""

import argparse
import ast
import os
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


@dataclass
class Survey:
    """What one file holds."""

    lines: int = 0
    functions: int = 0
    longest: tuple[int, str] = (0, "")
    imported: list[str] = field(default_factory=list)
    parsed: bool = True


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

    with drumbeat.init(nodes=arguments.nodes):
        started_s = time.perf_counter()
        packages: dict[str, Package] = {}
        unparsed = 0
        # Read here: nodes on other machines may not have these files.
        sources = [(root / name).read_bytes() for name in names]
        found = drumbeat.map(survey, names, sources, progress=True)
        for name, one in zip(names, found, strict=True):
            key = package_of(name)
            packages.setdefault(key, Package(key)).add(one)
            unparsed += not one.parsed
        took_s = time.perf_counter() - started_s
        nodes = len(drumbeat.nodes())

    print_table(packages, arguments.rows)
    lines = sum(package.lines for package in packages.values())
    print(
        f"{len(names):,} files, {lines:,} lines, {unparsed} not parsed, in {took_s:.1f} s on "
        f"{nodes} nodes: {len(names) / took_s:,.0f} tasks a second"
    )


if __name__ == "__main__":
    main()

"""The pages say what the code does: checked where a machine can check it."""

import ast
import inspect
import re
from functools import cache
from pathlib import Path

import pytest
from drumbeat.client.options import ACTOR_NAMES, METHOD_NAMES
from drumbeat.protocol import errors, messages
from drumbeat.protocol.messages import Options
from support import settings_page

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PROMISES = ROOT / "docs" / "promises.md"

#: a test as promises.md names it: `unit/test_x.py::test_y`
TEST = re.compile(r"`((?:unit|integration|sim|nemesis|network)/[\w/]+\.py)::(\w+)`")

#: fields of Options that users do not name: what Executors and actors set, and the form of `node`
#: with labels; limits have names of their own, see `ACTOR_NAMES`
NOT_OF_USERS = {"pool", "node_labels", "creates", "actor", "limits"}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@cache
def names_in(path: Path) -> frozenset[str]:
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(
        part.name
        for part in ast.walk(tree)
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    )


def promise_rows() -> list[tuple[str, str]]:
    """Return (first cell, last cell) of each row of the tables in promises.md."""
    rows = []
    for line in text_of(PROMISES).splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) > 1 and not set(cells[0]) <= set("-: "):
            rows.append((cells[0], cells[-1]))
    return [row for row in rows if row[1] != "test"]


def subjects() -> set[str]:
    """Return what stands in backquotes in the first cells."""
    return {name for first, _ in promise_rows() for name in re.findall(r"`([^`]+)`", first)}


def error_names() -> list[str]:
    return [
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.DrumbeatError | errors.Interrupted)
    ]


def test_the_page_of_settings_is_current() -> None:
    assert text_of(settings_page.PAGE) == settings_page.render(), "run `make format`"


@pytest.mark.parametrize("name", error_names())
def test_every_error_has_a_row_among_the_promises(name: str) -> None:
    assert name in subjects()


@pytest.mark.parametrize("name", Options.__struct_fields__)
def test_every_option_has_a_row_among_the_promises(name: str) -> None:
    if name not in NOT_OF_USERS:
        assert name in subjects()


@pytest.mark.parametrize("name", sorted({*ACTOR_NAMES, *METHOD_NAMES}))
def test_every_option_of_an_actor_has_a_row_and_is_explained(name: str) -> None:
    assert name in subjects()
    assert f"`{name}`" in text_of(ROOT / "docs" / "actors.md")


@pytest.mark.parametrize(("promise", "proof"), promise_rows())
def test_every_promise_names_tests_that_exist(promise: str, proof: str) -> None:
    named = TEST.findall(proof)
    assert named, f"no test is named for: {promise}"
    for file, test in named:
        assert test in names_in(ROOT / "tests" / file), f"{file} has no {test}"


@every_page
def test_what_a_page_links_to_exists(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text_of(page)):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@every_page
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:client|node|protocol|scheduler|tests|docs|examples|benchmarks)/[\w./-]+\.\w+)`",
        text_of(page),
    )
    assert not [name for name in named if not (ROOT / name).exists()]


@every_page
def test_the_targets_that_a_page_tells_to_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", text_of(page))) <= targets


def test_the_page_of_the_protocol_explains_every_word_on_the_wire() -> None:
    words = [
        (name, value.__struct_config__.tag)
        for name, value in vars(messages).items()
        if inspect.isclass(value)
        and issubclass(value, messages.Message | messages.Row)
        and value not in {messages.Message, messages.Row}
    ]
    page = text_of(ROOT / "docs" / "protocol.md")
    missing = [name for name, tag in words if not re.search(rf"\b({name}|{tag})\b", page)]
    assert not missing


def test_the_table_of_options_in_the_readme_has_them_all() -> None:
    table = set(re.findall(r"`(\w+)`", text_of(ROOT / "README.md")))
    assert not set(Options.__struct_fields__) - NOT_OF_USERS - table


def test_the_first_lines_of_the_readme_are_ten_that_a_machine_can_read() -> None:
    first = re.findall(r"```python\n(.*?)```", text_of(ROOT / "README.md"), re.DOTALL)[0]
    assert len(first.splitlines()) <= 10
    compile(first, "README.md", "exec")


def test_the_licence_is_apache_2() -> None:
    licence = text_of(ROOT / "LICENSE")
    assert "Apache License\n                           Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence

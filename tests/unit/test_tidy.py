"""The house rules that no linter knows. The name of a test is the rule."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIDES = ("client", "node", "scheduler")
PACKAGE = sorted(p for part in (*SIDES, "protocol") for p in (ROOT / part).rglob("*.py"))
REST = sorted(
    p for part in ("tests", "benchmarks", "examples") for p in (ROOT / part).rglob("*.py")
)

#: files that decide: what they do follows from their arguments alone
PURE = {
    "actors", "arrivals", "attempts", "beside", "blobs", "bounds", "budget", "cases", "checkpoints",
    "children", "claims", "complaints", "core", "credits", "curve", "deliveries", "dialer",
    "dispatch", "door", "doubts", "drain", "drains", "ended", "endpoints", "events", "excuses",
    "absent", "handing", "hangs", "holders", "holding", "home", "ids", "inquiries", "intake",
    "invariants", "inventory", "kept", "keys", "kinds", "ladder", "lease", "limits", "link",
    "listener", "liveness", "lives", "matching", "messages", "moves", "moving", "moving_state",
    "moving_words", "nearness", "objects", "outbox", "packets", "parcels", "placement",
    "presence", "pressure",
    "queries", "reaper", "recovery", "reports", "resources", "results", "returns",
    "roster", "slots", "stack_text", "stacks", "state", "stock", "stops", "submissions", "tally",
    "tasks", "texts", "traffic", "trust", "unreached", "waits", "work", "zmtp",
}  # fmt: skip
IMPURE = {
    "asyncio", "concurrent", "ctypes", "datetime", "io", "logging", "mmap", "multiprocessing", "os",
    "pathlib", "pickle", "psutil", "queue", "random", "secrets", "select", "selectors", "signal",
    "socket", "subprocess", "sys", "tempfile", "threading", "time", "uuid", "weakref", "zmq",
}  # fmt: skip

#: who may touch the process's environment, and what for. Settings are read in one place only.
ENVIRONMENT_DOORS = {
    "protocol/settings.py": "reads every setting",
    "client/addresses.py": "DRUMBEAT_ADDRESS",
    "client/inline.py": "env_vars of a task",
    "client/launcher.py": "what child processes inherit",
    "client/runtime.py": "XDG_RUNTIME_DIR, XDG_STATE_HOME",
    "node/keeper.py": "what the template inherits",
    "node/template.py": "BLAS threads before heavy imports, the node's mark",
    "node/worker.py": "env_vars, OMP_NUM_THREADS, CUDA_VISIBLE_DEVICES of a task",
    "protocol/machine.py": "CUDA_VISIBLE_DEVICES",
    "protocol/notify.py": "what a service manager hands down, so that no task inherits it",
}

#: who may read the wall clock, and what for
WALL_CLOCK_DOORS = {
    "client/runtime.py": "how long ago a file was written",
    "scheduler/service.py": "what people read beside events",
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Walk everything that is executed: not what stands under `if TYPE_CHECKING`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield from runtime_nodes(other)
        else:
            yield from runtime_nodes(child)


@cache
def imports(node: ast.AST) -> set[tuple[int, str, str]]:
    """Return (dots, module, name) of each import that is executed."""
    found = set()
    for part in runtime_nodes(node):
        if isinstance(part, ast.Import):
            found |= {(0, alias.name, "") for alias in part.names}
        elif isinstance(part, ast.ImportFrom):
            found |= {(part.level, part.module or "", alias.name) for alias in part.names}
    return found


@cache
def uses(path: Path) -> set[str]:
    """Return the dotted names that a file uses: `os.environ.get`, `time.time`."""
    return {dotted(part) for part in ast.walk(tree(path)) if isinstance(part, ast.Attribute)}


def dotted(part: ast.AST) -> str:
    """Return `os.environ.get` as it is written; "" for what does not begin with a name."""
    if isinstance(part, ast.Name):
        return part.id
    before = dotted(part.value) if isinstance(part, ast.Attribute) else ""
    return f"{before}.{part.attr}" if before and isinstance(part, ast.Attribute) else ""


@cache
def outside_imports(path: Path) -> set[str]:
    return {
        module.partition(".")[0]
        for dots, module, name in imports(tree(path))
        if not dots and (module, name) != ("io", "BytesIO")  # which is memory, and nothing else
    }


every_file = pytest.mark.parametrize("path", PACKAGE + REST, ids=name_of)
every_module = pytest.mark.parametrize("path", PACKAGE, ids=name_of)
every_pure_module = pytest.mark.parametrize(
    "path", [path for path in PACKAGE if path.stem in PURE], ids=name_of
)


@every_file
def test_a_file_has_at_most_500_lines(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= 500


@every_file
def test_a_function_has_at_most_70_lines(path: Path) -> None:
    for part in ast.walk(tree(path)):
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (part.end_lineno or part.lineno) - part.lineno + 1
            assert lines <= 70, f"{part.name} has {lines}"


@every_file
def test_a_file_opens_with_a_caption_of_one_line(path: Path) -> None:
    if path.stem.startswith("test_"):
        return  # its tests are sentences
    caption = (ast.get_docstring(tree(path)) or "").partition("\n")[0]
    assert 0 < len(caption) <= 90


@every_file
def test_a_file_is_named_for_what_it_holds(path: Path) -> None:
    assert path.stem not in {"base", "common", "helpers", "manager", "misc", "util", "utils"}


@every_pure_module
def test_a_pure_module_imports_no_clock_no_chance_no_input_and_no_output(path: Path) -> None:
    assert not outside_imports(path) & IMPURE


@every_pure_module
def test_a_pure_module_is_handed_its_chance(path: Path) -> None:
    drawn = {(module, name) for _, module, name in imports(tree(path)) if module == "random"}
    assert drawn <= {("random", "Random")}, "import the class, for annotations"
    calls = [part.func for part in ast.walk(tree(path)) if isinstance(part, ast.Call)]
    assert "Random" not in {called.id for called in calls if isinstance(called, ast.Name)}


@every_pure_module
def test_a_pure_module_walks_no_set_since_its_order_is_not_repeatable(path: Path) -> None:
    walked = [
        part.iter for part in ast.walk(tree(path)) if isinstance(part, ast.For | ast.comprehension)
    ]
    for part in walked:
        made = part.func if isinstance(part, ast.Call) else None
        is_set = isinstance(part, ast.Set | ast.SetComp) or (
            isinstance(made, ast.Name) and made.id in {"set", "frozenset"}
        )
        assert not is_set, f"line {part.lineno}"


@every_module
def test_a_side_imports_itself_and_the_protocol_only(path: Path) -> None:
    here = name_of(path).partition("/")[0]
    allowed = {here, "protocol"}
    for dots, module, name in imports(tree(path)):
        if dots == 2:
            assert (module or name).partition(".")[0] in allowed | {"__version__"}
        elif dots == 0:
            parts = module.split(".")
            assert parts[0] != "drumbeat", "imports inside the package are relative"


@every_module
def test_nothing_reads_the_wall_clock(path: Path) -> None:
    if name_of(path) in WALL_CLOCK_DOORS:
        return
    assert not uses(path) & {"time.time", "time.time_ns", "datetime.now", "datetime.datetime.now"}
    assert ("time", "time") not in {(module, name) for _, module, name in imports(tree(path))}


@every_module
def test_an_exemption_from_a_check_names_the_check_and_from_the_linter_the_reason(
    path: Path,
) -> None:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if "type: ignore" in line:
            assert "type: ignore[" in line, f"line {number}"
        if re.search(r"#\s*noqa(?!: ARG\d+$)", line):  # an unused argument explains itself
            assert re.search(r"#\s*noqa: [^#]+#\s*\w", line), f"line {number}"


def importers_of(module: str) -> set[str]:
    return {name_of(path) for path in PACKAGE if module in outside_imports(path)}


def test_zmq_has_one_door() -> None:
    assert importers_of("zmq") == {"protocol/sockets.py"}


def test_pickle_has_one_door() -> None:
    assert importers_of("cloudpickle") == {"protocol/whole.py"}
    for path in PACKAGE:
        if name_of(path) != "protocol/payload.py":
            used = {name for name in uses(path) if name.startswith("pickle.")}
            assert used <= {"pickle.PicklingError", "pickle.UnpicklingError"}, name_of(path)
            taken = {name for _, module, name in imports(tree(path)) if module == "pickle" and name}
            assert taken <= {"PicklingError", "UnpicklingError"}, name_of(path)


def test_the_wire_has_one_door() -> None:
    for path in PACKAGE:
        if name_of(path) != "protocol/codec.py":
            wire = {name for name in uses(path) if re.match(r"(msgspec\.)?(msgpack|json)\.", name)}
            wire = {name for name in wire if not name.startswith("json.")}
            assert not wire, name_of(path)
            assert "msgspec.msgpack" not in {module for _, module, _ in imports(tree(path))}


def test_scheduler_and_node_daemon_never_open_a_payload() -> None:
    for path in PACKAGE:
        in_worker = path.stem in {
            "worker", "nested", "template", "calls", "actor_host", "loaded", "several_loop",
            "several_threads", "saving", "arguments", "yielding",
        }  # fmt: skip
        if path.parent.name in {"scheduler", "node"} and not in_worker:
            modules = {module for _, module, _ in imports(tree(path))}
            assert "protocol.payload" not in modules, name_of(path)


def test_the_environment_has_few_doors_and_they_are_known() -> None:
    for path in PACKAGE:
        used = {name for name in uses(path) if name.startswith(("os.environ", "os.getenv"))}
        assert not used or name_of(path) in ENVIRONMENT_DOORS, f"{name_of(path)}: {used}"


def test_only_the_command_line_and_progress_load_click_and_rich() -> None:
    for module in ("click", "rich"):
        for name in importers_of(module):
            assert re.fullmatch(r"client/(cli\w*|progress)\.py", name), f"{name} imports {module}"


def test_no_module_imports_itself_round_a_corner() -> None:
    def reached(path: Path) -> list[Path]:
        at_top = [part for part in tree(path).body if isinstance(part, ast.ImportFrom)]
        found = []
        for part in at_top:
            if part.level:
                folder = path.parents[part.level - 1]
                target = folder / (part.module or "").replace(".", "/")
                found += [target.with_suffix(".py"), *(target / f"{a.name}.py" for a in part.names)]
        return [target for target in found if target in set(PACKAGE)]

    done: set[Path] = set()

    def visit(path: Path, above: tuple[Path, ...]) -> None:
        assert path not in above, " -> ".join(name_of(part) for part in (*above, path))
        if path not in done:
            for target in reached(path):
                visit(target, (*above, path))
            done.add(path)

    for path in PACKAGE:
        visit(path, ())


def test_the_root_holds_one_python_file() -> None:
    assert [path.name for path in ROOT.glob("*.py")] == ["__init__.py"]


def test_the_tests_are_no_package() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_unit_tests_are_plain_functions_without_sleep_sockets_or_mocks() -> None:
    for path in sorted((ROOT / "tests" / "unit").glob("*.py")):
        assert not {"unittest", "zmq"} & outside_imports(path), name_of(path)
        assert "time.sleep" not in uses(path), name_of(path)


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter has after a statement."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_importing_drumbeat_loads_nothing_heavy() -> None:
    loaded = loaded_by("import drumbeat")
    heavy = {"asyncio", "click", "cloudpickle", "msgspec", "psutil", "rich", "zmq"}
    assert not {name.partition(".")[0] for name in loaded} & heavy


def test_importing_the_template_loads_neither_client_nor_zmq() -> None:
    loaded = loaded_by("import drumbeat.node.template")
    assert "drumbeat.node.template" in loaded
    assert "zmq" not in loaded
    assert not {
        name for name in loaded if name.startswith(("drumbeat.client", "drumbeat.scheduler"))
    }


def test_neither_client_nor_workers_load_asyncio_or_openssl_before_it_is_used() -> None:
    heavy = {"asyncio", "ssl", "_ssl", "_hashlib"}
    for modules in ("client.local, drumbeat.client.session, drumbeat.client.api", "node.worker"):
        assert not loaded_by(f"import drumbeat.{modules}") & heavy


def test_the_scheduler_starts_without_what_it_does_not_need() -> None:
    loaded = loaded_by("import drumbeat.scheduler.service")
    unneeded = {"asyncio", "click", "cloudpickle", "psutil", "rich"}
    assert not {name.partition(".")[0] for name in loaded} & unneeded

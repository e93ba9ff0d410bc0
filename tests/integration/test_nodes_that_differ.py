"""Nodes of one cluster that differ: in what they have, what they carry, where they are.

All run on this machine, but each says that it is another one, so none of the program's own files
are used there.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.differing import DifferingCluster
from support.remote_cluster import RemoteCluster

pytestmark = pytest.mark.integration


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DifferingCluster]:
    with DifferingCluster(tmp_path_factory.mktemp("d")) as made:
        yield made


# ------------------------------------------------------------------------- what they have and carry


def test_a_task_goes_to_a_node_that_has_and_carries_what_it_asks_for(
    cluster: DifferingCluster,
) -> None:
    cluster.node("small", "--num-cpus", "1", "--label", "zone=a")
    cluster.node("wide", "--num-cpus", "4", "--label", "zone=b", "--label", "disk=ssd")
    cluster.node("scales", "--num-cpus", "2", "--num-gpus", "2", "--resources", '{"scale": 1}')
    lines = cluster.run(
        """
        @remote
        def name():
            time.sleep(0.01)
            return os.environ["NODE_NAME"]

        def names(**options):
            return sorted(set(get([name.options(**options).remote() for _ in range(8)])))

        print(names(num_cpus=4))
        print(names(num_gpus=1))
        print(names(resources={"scale": 1}))
        print(names(node="small"))
        print(names(node={"zone": "a"}))
        print(names(node={"zone": ["b", "c"], "disk": "ssd"}))
        print(names(node={"zone": ["a", "b"]}, num_cpus=0.5, spread=True))
        print(names(num_cpus=0.25, spread=True))
        print(sorted(drumbeat.cluster_resources().items()))
        print({one["name"]: one["labels"] for one in sorted(drumbeat.nodes(), key=str)})
        """,
        nodes=3,
    )
    assert lines[:3] == ["['wide']", "['scales']", "['scales']"]
    assert lines[3:6] == ["['small']", "['small']", "['wide']"]
    assert lines[6:8] == ["['small', 'wide']", "['scales', 'small', 'wide']"]
    assert lines[8] == "[('CPU', 7.0), ('GPU', 2.0), ('scale', 1.0)]"
    labels = {"small": {"zone": "a"}, "wide": {"zone": "b", "disk": "ssd"}, "scales": {}}
    assert eval(lines[9]) == labels


def test_what_no_node_carries_is_infeasible_at_submit_unless_such_a_node_may_come(
    cluster: DifferingCluster,
) -> None:
    cluster.node("lab1", "--num-cpus", "1", "--label", "zone=a")
    source = """
        @remote(node={"zone": ["b", "c"]})
        def name():
            return os.environ["NODE_NAME"]

        try:
            name.remote()
        except drumbeat.Infeasible as error:
            print(error)
        waits = name.options(wait_for_nodes=True).remote()
        open("submitted", "w").close()
        print(get(waits, timeout=30))
        """
    submitted = cluster.directory / "submitted"
    with cluster.when(submitted.exists, lambda: cluster.node("lab2", "--label", "zone=c")):
        lines = cluster.run(source)
    assert lines[0].startswith(
        "name asks for CPU 1 on a node with zone=b or c, which no node has "
        "(lab1: CPU 1, GPU 0, zone=a)"
    )
    assert lines[1] == "lab2"


# ----------------------------------------------------------------------------- the program's code


def test_the_programs_own_modules_go_with_its_functions(cluster: DifferingCluster) -> None:
    cluster.node("lab1", "--num-cpus", "2")
    write = cluster.program.write
    write("shapes.py", "import threading\nLOCK = threading.Lock()\nclass Shape:\n  sides = 4\n")
    write("tools/__init__.py", "from .inner.deep import depth\n")
    write("tools/inner/__init__.py", "")
    write("tools/inner/deep.py", "from ..table import ROWS\ndef depth(): return len(ROWS)\n")
    write("tools/table.py", "ROWS = [1, 2, 3]\n")
    write("tools/plugin.py", "def run(): return 'plugged'\n")
    write("late.py", "from shapes import Shape\nclass Late(Shape):\n  sides = 5\n")
    lines = cluster.run(
        """
        import tools
        import shapes
        from shapes import Shape

        @remote
        def sides(shape):
            with shapes.LOCK:
                return type(shape).sides, type(shape) is Shape, tools.depth()

        @remote
        def lazily():
            import importlib
            import late
            return late.Late(), importlib.import_module("tools.plugin").run(), late.__file__

        print(get(sides.remote(Shape())))
        made, plugged, path = get(lazily.remote())
        print(plugged, path)
        import late
        print(type(made) is late.Late, isinstance(made, Shape))
        print(get(sides.remote(late.Late())), get(sides.remote(drumbeat.put(made))))
        """
    )
    assert lines == [
        "(4, True, 3)",
        f"plugged {cluster.program.directory / 'late.py'}",
        "True True",
        "(5, False, 3) (5, False, 3)",
    ]


def test_exceptions_and_values_come_back_as_the_programs_own_classes(
    cluster: DifferingCluster,
) -> None:
    cluster.node("lab1", "--num-cpus", "2")
    cluster.program.write(
        "things.py",
        """
        import dataclasses, enum
        class MyError(ValueError):
            def __init__(self, code):
                super().__init__(code)
                self.code = code
        class Colour(enum.Enum):
            RED = 1
        @dataclasses.dataclass(frozen=True)
        class Point:
            x: int
            made = 0
            def moved(self):
                Point.made += 1
                return Point(self.x + 1)
        def fail(code):
            raise MyError(code)
        """,
    )
    lines = cluster.run(
        """
        import things
        from things import Colour, MyError, Point
        Point.made = 7

        @remote
        def move(point):
            return point.moved(), Colour.RED, MyError, things.fail

        @remote
        def parent(point):
            return get(move.remote(get(move.remote(point))[0]))

        fail = remote(things.fail)
        for function in (move, parent):
            point, colour, kind, function = get(function.remote(Point(1)))
            print(point, type(point) is Point, colour is Colour.RED, kind is MyError,
                  function is things.fail, Point.made)
        for failing in (fail, fail.options(retry_exceptions=[MyError], max_retries=1)):
            try:
                get(failing.remote(3))
            except MyError as error:
                print(type(error.cause) is MyError, error.code, error.attempt)
                print([line.strip() for line in str(error).splitlines() if "raise My" in line])
        """
    )
    assert lines[:2] == ["Point(x=2) True True True True 7", "Point(x=3) True True True True 7"]
    assert lines[2:] == [
        "True 3 1", "['raise MyError(code)']", "True 3 2", "['raise MyError(code)']"
    ]  # fmt: skip


def test_a_module_that_is_imported_or_changed_later_goes_too(cluster: DifferingCluster) -> None:
    cluster.node("lab1", "--num-cpus", "2")
    cluster.program.write("first.py", "VERSION = 1\n")
    cluster.program.write("second.py", "class Thing:\n  size = 9\n")
    lines = cluster.run(
        """
        import first
        @remote
        def size(thing=None):
            return first.VERSION, getattr(type(thing), "size", None)

        print(get(size.remote()))
        name = "sec" + "ond"
        thing = __import__(name).Thing()
        print(get(size.remote(thing)), get(size.remote(drumbeat.put(thing))))
        with open(first.__file__, "w") as file:
            file.write("VERSION = 22\\n")
        @remote
        def version():
            return first.VERSION
        print(get(version.remote()))
        """
    )
    assert lines == ["(1, None)", "(1, 9) (1, 9)", "22"]


def test_code_run_as_a_module_or_typed_in_goes_too(cluster: DifferingCluster) -> None:
    cluster.node("lab1", "--num-cpus", "2")
    write = cluster.program.write
    write("package/__init__.py", "")
    write("package/helper.py", "def answer(): return 42\n")
    write("package/main.py", "")
    source = """
        @remote
        def ask():
            from package.helper import answer
            return answer()
        print(get(ask.remote()))
        """
    assert cluster.run(source, directory=cluster.program.directory) == ["42"]
    body = (cluster.program.directory / "script.py").read_text(encoding="utf-8")
    write("package/main.py", body.replace("from package.", "from ."))
    flags = ("-m", "package.main")
    assert cluster.run(source, *flags, directory=cluster.program.directory) == ["42"]
    assert cluster.run(source, "-c", body, directory=cluster.program.directory) == ["42"]


def test_what_is_installed_does_not_travel_and_what_cannot_says_so(
    cluster: DifferingCluster,
) -> None:
    cluster.node("lab1", "--num-cpus", "1")
    write = cluster.program.write
    write("env/pyvenv.cfg", "")
    write("env/lib/site-packages/installed.py", "")
    write("other/pyvenv.cfg", "")
    write("other/inside.py", "")
    write("packed.pyc", "")
    lines = cluster.run(
        """
        sys.path += [os.path.join(sys.path[0], "env/lib/site-packages"),
                     os.path.join(sys.path[0], "other")]
        import py_compile
        with open("source.py", "w") as file:
            file.write("def run(): return 5")
        py_compile.compile("source.py", os.path.join(sys.path[0], "packed.pyc"))
        import installed, inside, packed

        @remote
        def load(name):
            return __import__(name).__name__
        @remote
        def run():
            return packed.run()
        for call in (load.options(name="a").remote("installed"), load.remote("inside"),
                     run.remote(), load.remote("packed")):
            try:
                print(get(call))
            except ModuleNotFoundError as error:
                print(error.name, "node=lab1" in str(error) or "node lab1" in str(error),
                      "Install it on every node" in str(error), "is compiled" in str(error))
        """
    )
    assert lines == [
        "installed True True False",
        "inside True True False",
        "packed True True True",
        "packed True True True",
    ]


def test_where_no_code_is_shipped_a_missing_module_names_node_and_remedy(
    cluster: DifferingCluster,
) -> None:
    cluster.node("lab1", "--num-cpus", "1")
    cluster.program.write("helper.py", "class Thing: pass\ndef run(): return 5\n")
    lines = cluster.run(
        """
        import helper
        @remote
        def take(thing): ...
        @remote
        def imports(): import helper
        for call in (remote(helper.run).remote(), take.remote(helper.Thing()), imports.remote()):
            try:
                get(call)
            except drumbeat.TaskError as error:
                text = str(error)
                print(isinstance(error, ModuleNotFoundError), error.name, "lab1" in text,
                      "Install it on every node" in text, sys.executable in text)
        """,
        ship_code="never",
    )
    assert lines == 3 * ["True helper True True True"]


# ------------------------------------------------------------------------ homes, directories


def test_a_worker_elsewhere_is_at_home_on_its_node(cluster: DifferingCluster) -> None:
    home, place, gone = (cluster.directory / name for name in ("home", "place", "gone"))
    for path in (home, place, gone, home / "data"):
        path.mkdir()
    cluster.node("placed", "--num-cpus", "1", environ={"HOME": str(home)}, directory=place)
    cluster.node("homeless", "--num-cpus", "1", environ={"HOME": str(gone / "home")})
    cluster.node("astray", "--num-cpus", "1", environ={"HOME": str(home)}, directory=gone)
    cluster.run("pass", nodes=3)
    gone.rmdir()
    lines = cluster.run(
        """
        @remote
        def here():
            return os.getcwd()
        for node in ("placed", "homeless", "astray"):
            print(get(here.options(node=node).remote()))
        print(get(here.options(node="placed", working_dir="~/data").remote()))
        for directory in ("~/data", "/not/there"):
            try:
                get(here.options(node="homeless", working_dir=directory).remote())
            except drumbeat.WorkingDirMissing as error:
                print(error.node, error.directory, "the option node" in str(error))
        """,
        nodes=3,
    )
    assert lines[:3] == [str(place), "/", str(home)]
    assert lines[3] == str(home / "data")
    assert lines[4:] == ["homeless ~/data True", "homeless /not/there True"]


def test_nodes_of_the_programs_own_machine_use_its_files(cluster: DifferingCluster) -> None:
    cluster.node("near", "--num-cpus", "1", machine="")
    cluster.node("shared", "--num-cpus", "1", machine="the same home")
    cluster.node("far", "--num-cpus", "1")
    cluster.program.write("helper.py", "import os\nHERE = os.path.exists(__file__)\n")
    cluster.program.write("data.txt", "read")
    source = """
        import helper
        @remote
        def look():
            kind = type(helper.__loader__).__name__
            return os.getcwd() == given, kind == "SourceFileLoader"
        given = os.getcwd()
        print([get(look.options(node=name).remote()) for name in ("near", "shared", "far")])
        """
    assert cluster.run(source, nodes=3) == ["[(True, True), (False, False), (False, False)]"]
    assert cluster.run(source, nodes=3, machine="the same home") == [
        "[(False, False), (True, True), (False, False)]"
    ]


# ------------------------------------------------------------------------------------- over TCP


def test_over_tcp_the_programs_code_goes_without_being_asked_for(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home = tmp_path_factory.mktemp("t")
    (home / "code").mkdir()
    (home / "code" / "helper.py").write_text(
        "class Odd(ValueError):\n  pass\ndef half(n):\n  if n % 2: raise Odd(n)\n"
        "  return n // 2, type(__loader__).__name__\n"
    )
    (home / "code" / "script.py").write_text(
        "import sys, drumbeat, helper\n"
        "drumbeat.init(sys.argv[1])\n"
        "half = drumbeat.remote(helper.half)\n"
        "for name in ('near', 'far'):\n"
        "  print(drumbeat.get(half.options(node={'at': name}).remote(4)))\n"
        "  try: drumbeat.get(half.options(node={'at': name}).remote(3))\n"
        "  except helper.Odd as error: print(type(error.cause) is helper.Odd, error.node)\n"
        "print([one['labels'] for one in drumbeat.nodes()])\n"
    )
    cluster = RemoteCluster(home)
    try:
        cluster.start_scheduler()
        key = ("--cluster", str(cluster.file("node")))
        cluster.start_node("near", "--label", "at=near")
        cluster.start_node("far", "--label", "at=far", *key, DRUMBEAT_MACHINE="far away")
        script = str(home / "code" / "script.py")
        done = cluster.run(sys.executable, script, str(cluster.file("client")))
    finally:
        cluster.end()
    assert done.stdout.splitlines() == [
        "(2, 'SourceFileLoader')", "True near", "(2, '_Loader')", "True far",
        "[{'at': 'near'}, {'at': 'far'}]",
    ]  # fmt: skip


# ------------------------------------------------------------------------------- another Python


def test_a_node_of_another_python_is_refused_in_plain_words_once_and_keeps_trying(
    cluster: DifferingCluster, other_python: str
) -> None:
    cluster.node("lab1", "--num-cpus", "1")
    cluster.run("pass")
    process = cluster.node("lab2", "--num-cpus", "1", python=other_python)
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=8)  # it keeps trying
    process.terminate()
    _, text = process.communicate(timeout=30)
    mine, theirs = f"{sys.version_info[0]}.{sys.version_info[1]}", version_of(other_python)
    assert f"Python {theirs}" in text
    assert f"node 'lab1' Python {mine}" in text
    assert text.count("refuses this node") == 1
    assert "Traceback" not in text


def test_a_program_of_another_python_is_refused_in_plain_words(
    cluster: DifferingCluster, other_python: str
) -> None:
    cluster.node("lab1", "--num-cpus", "1")
    cluster.run("pass")
    mine, theirs = f"{sys.version_info[0]}.{sys.version_info[1]}", version_of(other_python)
    text = cluster.fail("import drumbeat; drumbeat.init()", python=other_python)
    assert "VersionMismatch" in text
    assert f"Python {theirs}" in text
    assert f"Python {mine}" in text


def version_of(python: str) -> str:
    """Return the minor version of an interpreter."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.check_output([python, "-c", code], text=True).strip()


@pytest.fixture(scope="module")
def other_python() -> str:
    """An interpreter of another minor version that finds Drumbeat and what it needs."""
    for minor in ("3.12", "3.13"):
        python = Path(__file__).parents[2] / ".venvs" / minor / "bin" / "python"
        if os.access(python, os.X_OK) and version_of(str(python)) == minor:
            return str(python)
    pytest.skip("there is no .venvs/3.12 or .venvs/3.13: make check makes them")

"""What part 1 promises, each as a user would try it on a real local cluster."""

import concurrent.futures
import importlib.abc
import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drumbeat
import pytest
from support.stalls import Watch

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    drumbeat.init(num_cpus=2)
    yield
    drumbeat.shutdown()


@drumbeat.remote
def square(x: int) -> int:
    return x * x


def fails_within_a_second(ref: "drumbeat.ObjectRef[Any]", error: type[BaseException]) -> Any:
    """Return the error that the ref raises, and see that the next task runs."""
    watch = Watch()
    with pytest.raises(error) as caught:
        drumbeat.get(ref, timeout=20)
    assert watch.own_s() < 1.0
    assert drumbeat.get(square.remote(3), timeout=20) == 9
    return caught.value


# --------------------------------------------------------------------------- recursion, graphs


@drumbeat.remote
def fib(n: int) -> int:
    if n < 2:
        return n
    left, right = fib.remote(n - 1), fib.remote(n - 2)
    return drumbeat.get(left) + drumbeat.get(right)


def test_fib_with_every_call_a_task_does_not_deadlock_on_two_workers() -> None:
    blocked: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.005):
            blocked.extend(node["blocked"] for node in drumbeat.nodes())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        assert drumbeat.get(fib.remote(12), timeout=60) == 144
    finally:
        over.set()
        looking.join()
    assert 0 < max(blocked) <= 64, "as many as workers_blocked_max may lend their CPUs"


@drumbeat.remote
def add(a: int, b: int) -> int:
    return a + b


@drumbeat.remote
def leaf(i: int) -> int:
    return i


def test_a_graph_of_4096_leaves_reduces_by_refs_as_arguments() -> None:
    level = [leaf.remote(i) for i in range(4096)]
    while len(level) > 1:
        level = [add.remote(a, b) for a, b in zip(level[::2], level[1::2], strict=True)]
    assert drumbeat.get(level[0], timeout=60) == 4096 * 4095 // 2


# --------------------------------------------------------------------------- where tasks come from


def run_script(tmp_path: Path, text: str, *, stdin: bool = False) -> str:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, "-" if stdin else str(path)],
        input=path.read_text() if stdin else None,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SCRIPT = """
    import dataclasses, enum
    import drumbeat
    import beside

    class Colour(enum.Enum):
        RED = 1

    @dataclasses.dataclass
    class Point:
        x: int
        y: int

    class Holder:
        def __init__(self, k): self.k = k
        def times(self, v): return self.k * v

    offset = 5

    @drumbeat.remote
    def in_main(p, c):
        return Point(p.x + offset, p.y), c, helper(p.y)

    def helper(v): return v + 1

    if __name__ == "__main__":
        with drumbeat.init(num_cpus=1):
            point, colour, helped = drumbeat.get(in_main.remote(Point(1, 2), Colour.RED))
            assert point == Point(6, 2) and colour is Colour.RED and helped == 3
            assert drumbeat.get(beside.triple.remote(4)) == 12
            assert drumbeat.get(drumbeat.remote(beside.plain).remote(4)) == 5
            k = 7
            assert drumbeat.get(drumbeat.remote(lambda v: v + k).remote(1)) == 8
            assert drumbeat.get(drumbeat.remote(Holder(3).times).remote(5)) == 15
            print("all good")
"""


@pytest.mark.parametrize("stdin", [False, True], ids=["file", "stdin"])
def test_tasks_of_main_and_of_a_module_beside_the_script_run(tmp_path: Path, stdin: bool) -> None:
    (tmp_path / "beside.py").write_text(
        "import drumbeat\n\n@drumbeat.remote\ndef triple(x):\n    return 3 * x\n\n"
        "def plain(x):\n    return x + 1\n"
    )
    assert "all good" in run_script(tmp_path, SCRIPT, stdin=stdin)


def test_a_function_made_by_exec_in_a_namespace_runs() -> None:
    namespace: dict[str, Any] = {"__name__": "notebook_cell", "drumbeat": drumbeat}
    exec(  # a notebook does just this
        "base = 10\ndef inner(x):\n    return base + x\n"
        "@drumbeat.remote\ndef cell(x):\n    return inner(x) * 2\n",
        namespace,
    )
    assert drumbeat.get(namespace["cell"].remote(1), timeout=20) == 22


def test_numpy_values_go_there_and_back() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(300_000, dtype="float64")

    @drumbeat.remote
    def double(a: Any) -> Any:
        return a * 2

    assert numpy.array_equal(drumbeat.get(double.remote(array), timeout=30), array * 2)
    small = numpy.ones((3, 3))
    assert numpy.array_equal(drumbeat.get(double.remote(small), timeout=30), small * 2)


# --------------------------------------------------------------------------- what goes wrong


class TwoArgumentsError(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a}/{b}")


class ExitsWhenLoaded:
    def __reduce__(self) -> Any:
        return (sys.exit, (3,))


@drumbeat.remote
def misbehave(how: str) -> Any:
    match how:
        case "raise":
            raise ValueError("no such luck")
        case "two arguments":
            raise TwoArgumentsError(1, 2)
        case "unpicklable result":
            import threading

            return {"deep": [threading.Lock()]}
        case "unpicklable exception":
            import threading

            error = ValueError("holds a lock")
            error.lock = threading.Lock()  # type: ignore[attr-defined]
            raise error
        case "exits when loaded":
            return ExitsWhenLoaded()
        case "sys.exit":
            sys.exit(3)
        case "os._exit":
            os._exit(7)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
    return None


def test_an_exception_arrives_as_its_own_type_with_the_remote_traceback() -> None:
    error = fails_within_a_second(misbehave.remote("raise"), ValueError)
    assert isinstance(error, drumbeat.TaskError)
    assert "no such luck" in str(error)
    assert "misbehave" in str(error)


def test_an_exception_whose_constructor_needs_two_arguments_arrives() -> None:
    error = fails_within_a_second(misbehave.remote("two arguments"), drumbeat.TaskError)
    assert "TwoArgumentsError" in str(error)
    assert "1/2" in str(error)


def test_an_unpicklable_argument_raises_at_the_call_and_names_the_part() -> None:
    import threading

    with pytest.raises(drumbeat.NotPicklable) as caught:
        square.remote([1, {"lock": threading.Lock()}])  # type: ignore[arg-type]
    assert "lock" in str(caught.value)
    assert drumbeat.get(square.remote(2), timeout=20) == 4


def test_an_unpicklable_result_names_the_part() -> None:
    error = fails_within_a_second(misbehave.remote("unpicklable result"), drumbeat.NotPicklable)
    assert "lock" in str(error)


def test_an_unpicklable_exception_arrives_as_text() -> None:
    error = fails_within_a_second(misbehave.remote("unpicklable exception"), drumbeat.TaskError)
    assert "holds a lock" in str(error)


def test_a_result_that_exits_while_it_is_loaded_is_an_error() -> None:
    fails_within_a_second(misbehave.remote("exits when loaded"), drumbeat.DrumbeatError)


def test_sys_exit_in_a_task_is_its_error() -> None:
    error = fails_within_a_second(misbehave.remote("sys.exit"), drumbeat.TaskError)
    assert not isinstance(error, SystemExit)


def test_os_exit_in_a_task_tells_the_exit_code() -> None:
    once = misbehave.options(max_retries=0)
    error = fails_within_a_second(once.remote("os._exit"), drumbeat.WorkerDied)
    assert error.exit_code == 7


def test_a_segfault_tells_the_signal() -> None:
    once = misbehave.options(max_retries=0)
    error = fails_within_a_second(once.remote("segfault"), drumbeat.WorkerDied)
    assert error.signal_name == "SIGSEGV"


def test_a_task_whose_attempts_all_take_their_worker_along_is_poison() -> None:
    eager = misbehave.options(max_retries=3, retry_backoff_s=0.01)
    error = fails_within_a_second(eager.remote("os._exit"), drumbeat.PoisonTask)
    assert error.deaths == 4


class OnlyInThisProcess(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module that no file holds, so that no worker can import it."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        return importlib.util.spec_from_loader(name, self) if name == "only_here" else None

    def exec_module(self, module: Any) -> None:
        exec("def f(x):\n    return x\n", module.__dict__)  # this is the module


def test_a_module_that_is_missing_at_the_node_is_named() -> None:
    finder = OnlyInThisProcess()
    sys.meta_path.append(finder)
    try:
        module = importlib.import_module("only_here")
        ref = drumbeat.remote(module.f).remote(1)
    finally:
        sys.meta_path.remove(finder)
    error = fails_within_a_second(ref, drumbeat.TaskError)
    assert "only_here" in str(error)


# --------------------------------------------------------------------------- the stdlib's executor


def slow(x: int) -> int:
    time.sleep(0.05)
    return x


def touch_and_rest(path: Path) -> str:
    path.touch()
    time.sleep(0.2)
    return "rested"


def die(x: int) -> int:
    os._exit(1)


def start(value: str) -> None:
    os.environ["STARTED_WITH"] = value


def started_with(_: int) -> str | None:
    return os.environ.get("STARTED_WITH")


def test_the_executor_keeps_the_promises_of_the_standard_library() -> None:
    with drumbeat.Executor(max_workers=2) as pool:
        futures = [pool.submit(slow, i) for i in range(10)]
        assert all(isinstance(f, concurrent.futures.Future) for f in futures)
        assert futures[-1].cancel()
        seen: list[int] = []
        futures[0].add_done_callback(lambda f: seen.append(f.result()))
        done, _ = concurrent.futures.wait(futures, timeout=30)
        assert len(done) == 10
        assert seen == [0]
        with pytest.raises(concurrent.futures.CancelledError):
            futures[-1].result()
        assert sorted(f.result() for f in concurrent.futures.as_completed(futures[:9])) == list(
            range(9)
        )
        assert list(pool.map(slow, range(6), chunksize=2)) == list(range(6))
        with pytest.raises(TimeoutError):
            list(pool.map(time.sleep, [3], timeout=0.1))
    with pytest.raises(RuntimeError):
        pool.submit(slow, 1)


def test_an_executor_goes_on_after_a_worker_died() -> None:
    with drumbeat.Executor(max_workers=2) as pool:
        with pytest.raises(drumbeat.TaskError):
            pool.submit(die, 1).result(timeout=30)
        assert pool.submit(slow, 4).result(timeout=30) == 4


def test_an_executors_initializer_runs_in_each_of_its_workers() -> None:
    with drumbeat.Executor(max_workers=2, initializer=start, initargs=("here",)) as pool:
        assert set(pool.map(started_with, range(20))) == {"here"}
    assert drumbeat.get(drumbeat.remote(started_with).remote(0), timeout=20) is None


def test_shutdown_without_waiting_lets_running_calls_end(tmp_path: Path) -> None:
    pool = drumbeat.Executor(max_workers=1)
    started = tmp_path / "started"
    first = pool.submit(touch_and_rest, started)
    while not started.exists():
        time.sleep(0.005)
    rest = [pool.submit(slow, i) for i in range(5)]
    pool.shutdown(wait=False, cancel_futures=True)
    assert first.result(timeout=30) == "rested"
    assert all(f.cancelled() or f.done() for f in rest)

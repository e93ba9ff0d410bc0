"""The systems under measurement, each behind the same few methods and with two workers."""

# ruff: noqa: D102  # the methods are described once, in Caller and Adapter

import concurrent.futures
import multiprocessing
import multiprocessing.pool
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Protocol

from .bare import Bare
from .bare_busy import BareBusy
from .bare_plain import BarePlain
from .network import NetworkCluster
from .peers import Dask, Ray
from .remote_api import RemoteApi
from .rows import WORKERS


class Caller(Protocol):
    """What a system is asked to do for round trips."""

    def start(self) -> None:
        """Make it ready for work."""

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run one task and wait for its value."""

    def gather(self, function: Callable[..., Any], argument_lists: list[tuple[Any, ...]]) -> Any:
        """Submit a task for each argument list, then wait for all; return their values."""

    def stop(self) -> None:
        """End it."""


class Adapter(Caller, Protocol):
    """What a system is asked to do for the rows that pools can do as well."""

    def gather_errors(self, function: Callable[..., Any], count: int) -> int:
        """Submit tasks 0 to count - 1, wait for all, return how many raised ValueError."""


class Waiter(Adapter, Protocol):
    """What a system is asked to do that can tell which of many is ready."""

    def wait_for_each(self, function: Callable[..., Any], count: int) -> None:
        """Submit so many tasks, then wait for the first that is ready, until none is left."""


class ClusterAdapter(Waiter, Protocol):
    """What a system is asked to do for the rows with actors and references."""

    def tree(self, leaves: int) -> int:
        """Reduce a tree whose every level takes the refs of the one below as arguments."""

    def counter(self) -> Any:
        """Make an actor that counts; return its handle once it has answered."""

    def count(self, counter: Any, calls: int) -> int:
        """Call it so often without waiting in between; return what it has counted by then."""

    def count_all(self, counters: list[Any], calls: int) -> None:
        """Call each so often, in turns, without waiting in between; then wait for all."""

    def count_from_all(self, counters: list[Any], callers: int, calls: int) -> None:
        """Have so many tasks make so many calls each, of all counters in turns."""

    def submitters(self, count: int) -> Any:
        """Make what submits tasks from inside the cluster: so many that work side by side."""

    def submit_from_all(self, submitters: Any, calls: int) -> None:
        """Have each submit so many no-op tasks and wait for them."""

    def put(self, value: Any) -> Any:
        """Store a value; return its reference."""

    def fetch(self, ref: Any) -> Any:
        """Return the value of a reference."""


class Drumbeat(RemoteApi):
    """A local cluster of one node."""

    def __init__(self) -> None:
        # here and not above: the import belongs to the memory of this system's processes only
        import drumbeat

        super().__init__()
        self.api = drumbeat

    def start(self) -> None:
        self.api.init(num_cpus=WORKERS)

    def count_from_all(self, counters: list[Any], callers: int, calls: int) -> None:
        work = self.remote(call_all).remote
        self.api.get([work(counters, calls) for _ in range(callers)])

    def submitters(self, count: int) -> Any:
        made = self.actors(Submitter)
        return [made.remote() for _ in range(count)]

    def wait_for_each(self, function: Callable[..., Any], count: int) -> None:
        remote, wait = self.remote(function).remote, self.api.wait
        rest = [remote() for _ in range(count)]
        while rest:
            _, rest = wait(rest)

    def stop(self) -> None:
        self.api.shutdown()


def call_all(counters: list[Any], calls: int) -> None:
    """Inside a task of Drumbeat: call the counters in turns, then wait for all."""
    import drumbeat

    drumbeat.get([counters[number % len(counters)].add.remote() for number in range(calls)])


class Submitter:
    """An actor of Drumbeat that submits tasks."""

    def __init__(self) -> None:
        import drumbeat

        from .workloads import nothing

        self.get, self.task = drumbeat.get, drumbeat.remote(nothing)

    def submit(self, calls: int) -> None:
        """Submit so many and wait for them."""
        task: Any = self.task
        self.get([task.remote() for _ in range(calls)])


class NetworkDrumbeat(Drumbeat):
    """The same node, reached as one on another machine is: over TCP, encrypted, with keys."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster: NetworkCluster | None = None

    def start(self) -> None:
        self.cluster = NetworkCluster(WORKERS)
        self.api.init(self.cluster.client_file)

    def stop(self) -> None:
        try:
            super().stop()
        finally:
            if self.cluster is not None:
                self.cluster.end()


class Executor:
    """concurrent.futures.ProcessPoolExecutor, as it comes."""

    def start(self) -> None:
        self.pool = ProcessPoolExecutor(WORKERS)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.pool.submit(function, *args).result()

    def gather(self, function: Callable[..., Any], argument_lists: list[tuple[Any, ...]]) -> Any:
        futures = [self.pool.submit(function, *arguments) for arguments in argument_lists]
        return [future.result() for future in futures]

    def gather_errors(self, function: Callable[..., Any], count: int) -> int:
        futures = [self.pool.submit(function, number) for number in range(count)]
        return sum(isinstance(future.exception(), ValueError) for future in futures)

    def wait_for_each(self, function: Callable[..., Any], count: int) -> None:
        rest = {self.pool.submit(function) for _ in range(count)}
        while rest:
            _, rest = concurrent.futures.wait(rest, return_when="FIRST_COMPLETED")

    def stop(self) -> None:
        self.pool.shutdown()


class Pool:
    """multiprocessing.Pool, by apply_async: one task a message, as the others."""

    def start(self) -> None:
        self.pool: multiprocessing.pool.Pool = multiprocessing.Pool(WORKERS)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.pool.apply_async(function, args).get()

    def gather(self, function: Callable[..., Any], argument_lists: list[tuple[Any, ...]]) -> Any:
        results = [self.pool.apply_async(function, given) for given in argument_lists]
        return [result.get() for result in results]

    def gather_errors(self, function: Callable[..., Any], count: int) -> int:
        raised = 0
        for result in [self.pool.apply_async(function, (number,)) for number in range(count)]:
            try:
                result.get()
            except ValueError:
                raised += 1
        return raised

    def stop(self) -> None:
        self.pool.close()
        self.pool.join()


SYSTEMS: dict[str, type[Caller]] = {
    "drumbeat": Drumbeat,
    "network": NetworkDrumbeat,
    "executor": Executor,
    "pool": Pool,
    "ray": Ray,
    "dask": Dask,
    "bare": Bare,
    "plain": BarePlain,
    "busy": BareBusy,
}
#: what a program has to import to use the system
IMPORTS = {
    "drumbeat": "import drumbeat",
    "executor": "import concurrent.futures.process",
    "pool": "import multiprocessing.pool",
    "ray": "import ray",
    "dask": "import distributed",
}
#: the packages that are installed for it
PACKAGES = {"drumbeat": "drumbeat", "ray": "ray", "dask": "distributed"}

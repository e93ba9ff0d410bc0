"""The systems under measurement, each behind the same few methods and with two workers."""

# ruff: noqa: D102  # the methods are described once, in Caller and Adapter

import multiprocessing
import multiprocessing.pool
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Protocol

from .bare import Bare
from .network import NetworkCluster

WORKERS = 2


class Caller(Protocol):
    """What a system is asked to do for round trips."""

    def start(self) -> None:
        """Make it ready for work."""

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run one task and wait for its value."""

    def gather(self, function: Callable[..., Any], argument_lists: list[tuple[Any, ...]]) -> None:
        """Submit a task for each argument list, then wait for all."""

    def stop(self) -> None:
        """End it."""


class Adapter(Caller, Protocol):
    """What a system is asked to do for all rows."""

    def gather_errors(self, function: Callable[..., Any], count: int) -> int:
        """Submit tasks 0 to count - 1, wait for all, return how many raised ValueError."""


class Drumbeat:
    """A local cluster of one node."""

    def __init__(self) -> None:
        # here and not above: the import belongs to the memory of this system's processes only
        import drumbeat

        self.drumbeat = drumbeat
        self.remotes: dict[Callable[..., Any], Any] = {}

    def start(self) -> None:
        self.drumbeat.init(num_cpus=WORKERS)

    def remote(self, function: Callable[..., Any]) -> Any:
        """Return the remote function, made once."""
        if function not in self.remotes:
            self.remotes[function] = self.drumbeat.remote(function)
        return self.remotes[function]

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.drumbeat.get(self.remote(function).remote(*args))

    def gather(self, function: Callable[..., Any], argument_lists: list[tuple[Any, ...]]) -> None:
        remote = self.remote(function).remote
        self.drumbeat.get([remote(*arguments) for arguments in argument_lists])

    def gather_errors(self, function: Callable[..., Any], count: int) -> int:
        remote = self.remote(function).remote
        raised = 0
        for ref in [remote(number) for number in range(count)]:
            try:
                self.drumbeat.get(ref)
            except ValueError:
                raised += 1
        return raised

    def tree(self, leaves: int) -> int:
        """Reduce a tree whose every level takes the refs of the one below as arguments."""
        from .workloads import add, one

        leaf, node = self.remote(one).remote, self.remote(add).remote
        level = [leaf(1) for _ in range(leaves)]
        while len(level) > 1:
            level = [node(left, right) for left, right in zip(level[::2], level[1::2], strict=True)]
        return int(self.drumbeat.get(level[0]))

    def counter(self) -> Any:
        """Make an actor that counts; return its handle once it has answered."""
        from .workloads import Counter

        handle = self.drumbeat.remote(Counter).remote()
        self.drumbeat.get(handle.add.remote())
        return handle

    def count(self, counter: Any, calls: int) -> int:
        """Call it so often without waiting in between; return what it has counted by then."""
        add = counter.add.remote
        return int(self.drumbeat.get([add() for _ in range(calls)])[-1])

    def stop(self) -> None:
        self.drumbeat.shutdown()


class NetworkDrumbeat(Drumbeat):
    """The same node, reached as one on another machine is: over TCP, encrypted, with keys."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster: NetworkCluster | None = None

    def start(self) -> None:
        self.cluster = NetworkCluster(WORKERS)
        self.drumbeat.init(self.cluster.client_file)

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

    def gather(self, function: Callable[..., Any], argument_lists: list[tuple[Any, ...]]) -> None:
        for future in [self.pool.submit(function, *arguments) for arguments in argument_lists]:
            future.result()

    def gather_errors(self, function: Callable[..., Any], count: int) -> int:
        futures = [self.pool.submit(function, number) for number in range(count)]
        return sum(isinstance(future.exception(), ValueError) for future in futures)

    def stop(self) -> None:
        self.pool.shutdown()


class Pool:
    """multiprocessing.Pool, by apply_async: one task a message, as the others."""

    def start(self) -> None:
        self.pool: multiprocessing.pool.Pool = multiprocessing.Pool(WORKERS)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.pool.apply_async(function, args).get()

    def gather(self, function: Callable[..., Any], argument_lists: list[tuple[Any, ...]]) -> None:
        for result in [self.pool.apply_async(function, given) for given in argument_lists]:
            result.get()

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
    "bare": Bare,
}
TITLES = {
    "drumbeat": "Drumbeat",
    "network": "Drumbeat, TCP + CURVE",
    "executor": "ProcessPoolExecutor",
    "pool": "multiprocessing.Pool",
    "bare": "bare hops",
}
#: what a program has to import to use the system
IMPORTS = {
    "drumbeat": "import drumbeat",
    "executor": "import concurrent.futures.process",
    "pool": "import multiprocessing.pool",
}

"""Other systems under measurement, each in an environment of its own; see adapters.py.

Each is started as its own documentation does for one machine, with two workers, without a dashboard
and without telling anybody of it. Nothing else is switched off or tuned.
"""

# ruff: noqa: D102  # the methods are described once, in adapters.py

import os
import tempfile
from collections.abc import Callable
from typing import Any

from .remote_api import RemoteApi
from .rows import WORKERS

#: of Ray's object store: its default, about a third of the machine's memory, up to this
STORE_BYTES = min(4 << 30, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 3)


class Ray(RemoteApi):
    """Ray on one machine."""

    def start(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray  # type: ignore[import-not-found,unused-ignore]

        self.api = ray
        # Short, since sockets lie in it; by default all of this would stay in /tmp/ray.
        self.directory = tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True)
        ray.init(
            num_cpus=WORKERS, object_store_memory=STORE_BYTES, include_dashboard=False,
            log_to_driver=False, logging_level="ERROR", _temp_dir=self.directory.name,
        )  # fmt: skip

    def actors(self, class_: type) -> Any:
        return self.api.remote(class_).options(num_cpus=0)

    def count_from_all(self, counters: list[Any], callers: int, calls: int) -> None:
        get = self.api.get

        def work(handles: list[Any]) -> None:
            get([handles[number % len(handles)].add.remote() for number in range(calls)])

        work_remote = self.api.remote(work)
        get([work_remote.remote(counters) for _ in range(callers)])

    def submitters(self, count: int) -> Any:
        from .workloads import nothing

        get, task = self.api.get, self.remote(nothing)

        class Submitter:
            def submit(self, calls: int) -> None:
                get([task.remote() for _ in range(calls)])

        made = self.actors(Submitter)
        return [made.remote() for _ in range(count)]

    def wait_for_each(self, function: Callable[..., Any], count: int) -> None:
        rest = [self.remote(function).remote() for _ in range(count)]
        # As in its own benchmark: what is to be fetched is said once, with the first call.
        fetch_local = True
        while rest:
            _, rest = self.api.wait(rest, fetch_local=fetch_local)
            fetch_local = False

    def stop(self) -> None:
        if hasattr(self, "api"):
            self.api.shutdown()
            self.directory.cleanup()


class Dask:
    """Dask distributed on one machine: processes of one thread each."""

    def start(self) -> None:
        import distributed  # type: ignore[import-not-found,unused-ignore]

        self.distributed = distributed
        self.cluster = distributed.LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs=40
        )
        self.client = distributed.Client(self.cluster)

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return the future of one task, which runs even if the same has run before."""
        return self.client.submit(function, *args, pure=False)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.submit(function, *args).result()

    def gather(self, function: Callable[..., Any], argument_lists: list[tuple[Any, ...]]) -> Any:
        return self.client.gather(
            [self.submit(function, *arguments) for arguments in argument_lists]
        )

    def gather_errors(self, function: Callable[..., Any], count: int) -> int:
        futures = [self.submit(function, number) for number in range(count)]
        return sum(isinstance(future.exception(), ValueError) for future in futures)

    def tree(self, leaves: int) -> int:
        from .workloads import add, one

        level = [self.submit(one, 1) for _ in range(leaves)]
        while len(level) > 1:
            pairs = zip(level[::2], level[1::2], strict=True)
            level = [self.submit(add, left, right) for left, right in pairs]
        return int(level[0].result())

    def counter(self) -> Any:
        from .workloads import Counter

        handle = self.client.submit(Counter, actor=True, pure=False).result()
        handle.add().result()
        return handle

    def count(self, counter: Any, calls: int) -> int:
        return int([future.result() for future in [counter.add() for _ in range(calls)]][-1])

    def count_all(self, counters: list[Any], calls: int) -> None:
        for future in [counter.add() for _ in range(calls) for counter in counters]:
            future.result()

    def count_from_all(self, counters: list[Any], callers: int, calls: int) -> None:
        def work(*handles: Any) -> None:
            futures = [handles[number % len(handles)].add() for number in range(calls)]
            for future in futures:
                future.result()

        # A list would be sent as data; arguments that are actors arrive as such.
        self.client.gather([self.submit(work, *counters) for _ in range(callers)])

    def submitters(self, count: int) -> Any:
        return count

    def submit_from_all(self, submitters: Any, calls: int) -> None:
        from .workloads import nothing

        worker_client = self.distributed.worker_client

        def work() -> None:
            # It gives its place to others while it waits, without which nothing could run.
            with worker_client() as client:
                client.gather([client.submit(nothing, pure=False) for _ in range(calls)])

        self.client.gather([self.submit(work) for _ in range(submitters)])

    def put(self, value: Any) -> Any:
        return self.client.scatter(value, hash=False)

    def fetch(self, ref: Any) -> Any:
        return ref.result()

    def wait_for_each(self, function: Callable[..., Any], count: int) -> None:
        rest = [self.submit(function) for _ in range(count)]
        while rest:
            found = self.distributed.wait(rest, return_when="FIRST_COMPLETED")
            rest = list(found.not_done)

    def stop(self) -> None:
        if hasattr(self, "client"):
            self.client.close()
        if hasattr(self, "cluster"):
            self.cluster.close()

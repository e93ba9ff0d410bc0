"""What Drumbeat and Ray are asked to do in the same words; see adapters.py."""

# ruff: noqa: D102  # the methods are described once, in adapters.py

from collections.abc import Callable
from typing import Any


class RemoteApi:
    """What Drumbeat and Ray are called with in the same words: `api` is the module of either."""

    api: Any

    def __init__(self) -> None:
        self.remotes: dict[Callable[..., Any], Any] = {}

    def remote(self, function: Callable[..., Any]) -> Any:
        """Return the remote function, made once."""
        if function not in self.remotes:
            self.remotes[function] = self.api.remote(function)
        return self.remotes[function]

    def actors(self, class_: type) -> Any:
        """Return the remote class; its actors take no slot while they are idle."""
        return self.api.remote(class_)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.api.get(self.remote(function).remote(*args))

    def gather(self, function: Callable[..., Any], argument_lists: list[tuple[Any, ...]]) -> Any:
        remote = self.remote(function).remote
        return self.api.get([remote(*arguments) for arguments in argument_lists])

    def gather_errors(self, function: Callable[..., Any], count: int) -> int:
        remote = self.remote(function).remote
        raised = 0
        for ref in [remote(number) for number in range(count)]:
            try:
                self.api.get(ref)
            except ValueError:
                raised += 1
        return raised

    def tree(self, leaves: int) -> int:
        from .workloads import add, one

        leaf, node = self.remote(one).remote, self.remote(add).remote
        level = [leaf(1) for _ in range(leaves)]
        while len(level) > 1:
            level = [node(left, right) for left, right in zip(level[::2], level[1::2], strict=True)]
        return int(self.api.get(level[0]))

    def counter(self) -> Any:
        from .workloads import Counter

        handle = self.actors(Counter).remote()
        self.api.get(handle.add.remote())
        return handle

    def count(self, counter: Any, calls: int) -> int:
        add = counter.add.remote
        return int(self.api.get([add() for _ in range(calls)])[-1])

    def count_all(self, counters: list[Any], calls: int) -> None:
        self.api.get([counter.add.remote() for _ in range(calls) for counter in counters])

    def submit_from_all(self, submitters: Any, calls: int) -> None:
        self.api.get([one.submit.remote(calls) for one in submitters])

    def put(self, value: Any) -> Any:
        return self.api.put(value)

    def fetch(self, ref: Any) -> Any:
        return self.api.get(ref)

"""Which functions with which options the scheduler has been told of, in this link life.

Never forgets a kind that an unfinished task uses. Sends a function's pickle once a life, however
many kinds share it.
"""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from ..protocol.messages import KindRow
from .events import Call

#: numbers that the session gives are below this; kinds made here for a further life are above
OWN_NUMBERS: Final = 1 << 32
#: looking for users of dropped kinds reads every task; it is done once for so many tasks a kind
TASKS_A_DROPPED_KIND: Final = 1000
#: of so many kinds that were forgotten, the names are kept: for values that are still here
NAMES_MAX: Final = 1000


class Kinds:
    """All kinds of a client."""

    def __init__(self, inline_bytes_max: int) -> None:
        self._inline_bytes_max = inline_bytes_max
        self._rows: dict[int, KindRow] = {}
        #: the scheduler does not know these
        self.news: dict[int, None] = {}
        #: hash -> kinds that use it and of which the scheduler knows
        self._functions: dict[bytes, int] = {}
        #: (number, lives charged) -> number of the variant with so many retries fewer
        self._variants: dict[tuple[int, int], int] = {}
        self._next_variant = OWN_NUMBERS
        #: dropped by the program, perhaps still in use
        self.dropped: list[int] = []
        #: dropped by the program, in use by so many tasks
        self.dropping: dict[int, int] = {}
        #: to be told to the scheduler
        self.forgotten: list[int] = []
        #: names of the kinds that were forgotten last
        self._names: dict[int, str] = {}

    def add(self, rows: Iterable[KindRow]) -> None:
        """Take new kinds, each with its payload."""
        for row in rows:
            self._rows[row.number] = row
            self.news[row.number] = None

    def name_of(self, number: int) -> str:
        """Return a kind's name, for people."""
        row = self._rows.get(number)
        return self._names.get(number, "a task") if row is None else row.name

    def untold(self) -> tuple[list[KindRow], list[tuple[bytes, bytes]]]:
        """Return the kinds that the scheduler does not know, and their large payloads."""
        if not self.news:
            return [], []
        rows, blobs = [], []
        for number in self.news:
            row = self._rows[number]
            users = self._functions.get(row.function, 0)
            self._functions[row.function] = users + 1
            payload = row.payload or b""
            if users:
                rows.append(msgspec.structs.replace(row, payload=None, size=0))
            elif len(payload) > self._inline_bytes_max:
                rows.append(msgspec.structs.replace(row, payload=None, size=len(payload)))
                blobs.append((row.function, payload))
            else:
                rows.append(row)
        self.news.clear()
        return rows, blobs

    def with_fewer_retries(self, number: int, charged: int) -> int:
        """Return the number of the kind that differs in having `charged` retries fewer."""
        variant = self._variants.get((number, charged))
        if variant is None:
            self._next_variant += 1
            variant = self._variants[(number, charged)] = self._next_variant
            row = self._rows[number]
            options = msgspec.structs.replace(
                row.options, max_retries=row.options.max_retries - charged
            )
            self.add([msgspec.structs.replace(row, number=variant, options=options)])
        return variant

    def start_anew(self) -> None:
        """A new link life: everything is to be told again."""
        for key, variant in list(self._variants.items()):
            del self._rows[variant]
            del self._variants[key]
        self._functions.clear()
        self.forgotten.clear()
        self.news = dict.fromkeys(self._rows)

    def drop(self, numbers: Iterable[int]) -> None:
        """The program will not use these again."""
        self.dropped.extend(number for number in numbers if number in self._rows)

    def forget_unused(self, count: int, calls: Callable[[], Iterable[Call]]) -> None:
        """Count who still uses the dropped kinds, when it is worth reading `count` tasks."""
        if not self.dropped or len(self.dropped) * TASKS_A_DROPPED_KIND < count:
            return
        uses = dict.fromkeys(self.dropped, 0)
        self.dropped.clear()
        for call in calls():
            if call.row.kind in uses:
                uses[call.row.kind] += 1
        for number, count_of_tasks in uses.items():
            if count_of_tasks:
                self.dropping[number] = count_of_tasks
            else:
                self._forget(number)

    def finished(self, number: int) -> None:
        """A task of this kind has its result."""
        if number in self.dropping:
            self.dropping[number] -= 1
            if not self.dropping[number]:
                del self.dropping[number]
                self._forget(number)

    def _forget(self, number: int) -> None:
        variants = [key for key in self._variants if key[0] == number]
        for gone in (number, *(self._variants.pop(key) for key in variants)):
            row = self._rows.pop(gone)
            self._names[gone] = row.name
            if gone in self.news:
                del self.news[gone]
                continue
            self.forgotten.append(gone)
            self._functions[row.function] -= 1
            if not self._functions[row.function]:
                del self._functions[row.function]
        while len(self._names) > NAMES_MAX:
            del self._names[next(iter(self._names))]

    def __len__(self) -> int:
        return len(self._rows)

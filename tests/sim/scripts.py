"""What simulated tasks do: scripts that travel as arguments; fake workers alone read them.

A script runs for a while, submits children, puts, gets, waits, cancels, and ends by returning,
raising or taking its worker along. Every value carries a number that follows from the script and
from the numbers of what it used, so that anybody can tell a right value from a wrong one.

Never knows how a task is moved about.
"""

from typing import Any, Literal

import msgspec
from drumbeat.protocol.actors import ActorOptions
from drumbeat.protocol.limits import Limits
from drumbeat.protocol.messages import Options

#: what stands for the pickle of function i; some are larger than what may ride in a row
FUNCTION_SIZES = (40, 40, 40, 600, 5_000)

Doing = Literal["run", "submit", "put", "get", "wait", "cancel"]


class Step(msgspec.Struct, omit_defaults=True):
    """One thing that a running task does."""

    do: Doing
    seconds: float = 0.0
    spec: "Spec | None" = None
    #: which of the refs at hand, modulo how many there are
    cells: list[int] = []
    size: int = 0
    timeout_s: float | None = None
    count: int = 1
    force: bool = False


class Spec(msgspec.Struct, omit_defaults=True):
    """One task: how it is asked for, and what it does."""

    label: int = 0
    function: int = 0
    #: those that differ from the defaults
    options: dict[str, Any] = {}
    #: refs as arguments, and refs inside arguments: which of those at hand
    deps: list[int] = []
    contains: list[int] = []
    seconds: float = 0.0
    steps: list[Step] = []
    after_s: float = 0.0
    #: the first so many attempts end with their worker; -1: all
    deaths: int = 0
    #: the first so many attempts raise; -1: all
    errors: int = 0
    #: hears neither Interrupted nor SIGTERM
    deaf: bool = False
    #: bytes of padding of each value
    sizes: list[int] = []
    #: refs at hand that go into the first value
    gives: list[int] = []
    #: bytes of padding of the arguments
    weight: int = 0
    #: so many values are yielded, one each so many seconds; and read, after such a pause each, or
    #: only so many of them (-1: all)
    items: int = 0
    each_s: float = 0.0
    pause_s: float = 0.0
    reads: int = -1


class Script(msgspec.Struct, array_like=True):
    """The arguments' payload."""

    spec: Spec
    #: ids of the refs inside the arguments
    contained: list[bytes]
    padding: bytes = b""


class Value(msgspec.Struct, array_like=True):
    """A value's payload."""

    number: int
    #: ids of the refs inside
    refs: list[bytes]
    padding: bytes = b""


class Report(msgspec.Struct, array_like=True):
    """An error's payload."""

    label: int
    #: "raised", "child", "deadlock", "lost"
    reason: str
    #: the object whose failure was met
    about: bytes = b""


class Thing:
    """What an object must be if its task succeeds."""

    __slots__ = ("number", "refs")

    def __init__(self, number: int, refs: list["Thing"]) -> None:
        self.number = number
        self.refs = refs


_encode = msgspec.msgpack.Encoder().encode
read_script = msgspec.msgpack.Decoder(Script).decode
read_value = msgspec.msgpack.Decoder(Value).decode
read_report = msgspec.msgpack.Decoder(Report).decode
pack: "Any" = _encode


def mix(*numbers: int) -> int:
    """Return a number that depends on all of these and on their order."""
    made = 0x9E3779B9
    for number in numbers:
        made = ((made ^ (number & 0xFFFFFFFF)) * 0x01000193 + 0x7F4A7C15) & 0xFFFFFFFF
    return made


def options_of(spec: Spec) -> Options:
    """Return the options as the wire has them."""
    given: dict[str, Any] = {
        name: tuple(tuple(pair) for pair in value) if isinstance(value, list | tuple) else value
        for name, value in spec.options.items()
    }
    if "creates" in given:
        given["creates"] = ActorOptions(**given["creates"])
    if "limits" in given:
        given["limits"] = Limits(**given["limits"])
    return Options(**given)


def num_returns(spec: Spec) -> int:
    """Return how many values the task gives."""
    returns: int = spec.options.get("num_returns", 1)
    return returns


def function_payload(function: int) -> bytes:
    """Return what stands for a pickled function."""
    size = FUNCTION_SIZES[function % len(FUNCTION_SIZES)]
    return b"function %d " % function + b"." * size


def child_label(parent: int, step: int) -> int:
    """Name a child so that every attempt of its parent gives the same name."""
    return mix(parent, 77, step)


def put_number(label: int, step: int) -> int:
    """Return the number inside a value that a task puts."""
    return mix(label, 99, step)


def value_number(accumulated: int, index: int) -> int:
    """Return the number inside a task's value `index`."""
    return mix(accumulated, 11, index)


def ideal(spec: Spec, label: int, deps: list[Thing], contained: list[Thing]) -> list[Thing]:
    """Return what the task's values must be if all goes well."""
    cells = list(contained)
    for thing in deps:
        cells += thing.refs
    accumulated = mix(label, *(thing.number for thing in deps))
    for index, step in enumerate(spec.steps):
        picked = _picked(cells, step.cells)
        if step.do == "submit" and step.spec is not None:
            child = step.spec
            cells += ideal(
                child,
                child_label(label, index),
                _picked(cells, child.deps),
                _picked(cells, child.contains),
            )
        elif step.do == "put":
            cells.append(Thing(put_number(label, index), picked))
        elif step.do == "get" and picked:
            accumulated = mix(accumulated, *(thing.number for thing in picked))
            for thing in picked:
                cells += thing.refs
    given = _picked(cells, spec.gives)
    return [
        Thing(value_number(accumulated, index), given if index == 0 else [])
        for index in range(spec.items + 1 if spec.items else num_returns(spec))
    ]


def named(spec: Spec, label: int) -> Spec:
    """Return the same task under another label."""
    return msgspec.structs.replace(spec, label=label)


def _picked(cells: list[Thing], picks: list[int]) -> list[Thing]:
    """Return those picked, each once: what is one object has one number."""
    chosen = [cells[index] for index in distinct(picks, len(cells))]
    return list({thing.number: thing for thing in chosen}.values())


def distinct(picks: list[int], length: int) -> list[int]:
    """Return the picks as indexes, each once, in order."""
    return list(dict.fromkeys(pick % length for pick in picks)) if length else []

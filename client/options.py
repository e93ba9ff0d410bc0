"""The options of tasks, actors and their methods: names, what is allowed, what they become.

Never guesses: an unknown name or a value that does not fit is refused in plain words, naming the
option and what is allowed.
"""

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from ..protocol.actors import (
    ANONYMOUS,
    ANY_NUMBER,
    CONCURRENCY_MAX,
    NAME_CHARACTERS_MAX,
    ActorOptions,
)
from ..protocol.forms import AMOUNT_MAX, COUNT_MAX, SECONDS_MAX
from ..protocol.labels import LABELS_MAX, AskedLabels, fault_of
from ..protocol.limits import Limits
from ..protocol.messages import Options
from ..protocol.resources import STEP
from ..protocol.yields import ITEMS_MAX
from . import limits as limits_

#: by how much priorities may differ from 0
PRIORITY_MAX: Final = 1 << 31
RETURNS_MAX: Final = 65_536
#: a task that yields its values waits while so many have not been read, unless its options say
STREAM_BUFFER: Final = 16
#: elsewhere -1 means that these have no end
_ENDLESS: Final = ("max_retries", "max_restarts", "max_task_retries")
#: of retries, restarts and calls a worker
RETRIES_MAX: Final = 1 << 31

RetryExceptions = bool | tuple[type[BaseException], ...]


class Checked(NamedTuple):
    """Options that fit."""

    options: Options
    #: name for people; "": the function's own
    name: str
    retry_exceptions: RetryExceptions


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a number from 0 up, not {value!r}")
    return float(value)


def _seconds(name: str, value: Any) -> float:
    seconds = _number(name, value)
    if seconds > SECONDS_MAX:
        raise ValueError(f"{name} must be at most {SECONDS_MAX:g} seconds, not {value!r}")
    return seconds


def _amount(name: str, value: Any) -> float:
    amount = _number(name, value)
    if amount > AMOUNT_MAX:
        raise ValueError(f"{name} must be at most {AMOUNT_MAX:g}, not {value!r}")
    if 0 < amount < STEP:
        raise ValueError(f"{name} = {value!r} is too little: the step is {STEP:g}, or 0 for none")
    return amount


def _gpus(name: str, value: Any) -> float:
    amount = _amount(name, value)
    if amount > 1 and amount != int(amount):
        raise ValueError(f"{name} above 1 must be a whole number of GPUs, not {value!r}")
    return amount


def _count(maximum: int) -> Callable[[str, Any], int]:
    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be a whole number, not {value!r}")
        if not 0 <= value <= maximum:
            hint = ""
            if value < 0 and name in _ENDLESS:
                hint = f"; for as often as it takes, write {maximum}"
            raise ValueError(f"{name} must be from 0 to {maximum}, not {value!r}{hint}")
        return value

    return check


def _priority(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if abs(value) > PRIORITY_MAX:
        raise ValueError(f"{name} must be from {-PRIORITY_MAX} to {PRIORITY_MAX}, not {value!r}")
    return value


def _returns(name: str, value: Any) -> int | str:
    if isinstance(value, str):
        if value != "streaming":
            raise ValueError(f'{name} must be a whole number or "streaming", not {value!r}')
        return value
    return _count(RETURNS_MAX)(name, value)


def _buffer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if not 1 <= value <= ITEMS_MAX:
        raise ValueError(f"{name} must be from 1 to {ITEMS_MAX}, not {value!r}")
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {value!r}")
    return value


def _directory(name: str, value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path, not {value!r}")
    path = os.fspath(value)
    if not isinstance(path, str):
        raise TypeError(f"{name} must be a path of text, not {value!r}")
    # A home directory is that of the node: it may be another one there.
    return os.path.abspath(path) if path and not path.startswith("~") else path


def _node(name: str, value: Any) -> str | AskedLabels:
    if isinstance(value, str):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a node's name or a dict of labels, not {value!r}")
    if len(value) > LABELS_MAX:
        raise ValueError(f"{name} asks for {len(value)} labels; {LABELS_MAX} is the most")
    asked = []
    for label, allowed in value.items():
        texts = tuple(allowed) if isinstance(allowed, (list, tuple, set, frozenset)) else (allowed,)
        if not texts:
            raise ValueError(f"{name}[{label!r}] allows no value, so no node would do")
        for text in texts:
            reason = fault_of(label, text)
            if reason:
                kind = ValueError if isinstance(label, str) and isinstance(text, str) else TypeError
                raise kind(f"{name}[{label!r}] = {allowed!r} asks for no label: {reason}")
        asked.append((label, tuple(sorted(dict.fromkeys(texts)))))
    return tuple(sorted(asked))


def _resources(name: str, value: Any) -> tuple[tuple[str, float], ...]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict of names and amounts, not {value!r}")
    amounts = []
    for key, amount in value.items():
        if not isinstance(key, str) or not key:
            raise TypeError(f"{name} must be a dict of names and amounts; {key!r} is no name")
        if key in ("CPU", "GPU"):
            raise ValueError(f"{name} may not hold {key!r}: use num_{key.lower()}s")
        number = _amount(f"{name}[{key!r}]", amount)
        if number > 0:
            amounts.append((key, number))
    return tuple(sorted(amounts))


def _env_vars(name: str, value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict of strings, not {value!r}")
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"{name} must be a dict of strings; {key!r}: {text!r} is not")
        if not key or "=" in key or "\0" in key + text:
            raise ValueError(f"{name}: {key!r} cannot be an environment variable")
    return tuple(sorted(value.items()))


def _retry_exceptions(name: str, value: Any) -> RetryExceptions:
    if isinstance(value, bool):
        return value
    types = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    for kind in types:
        if not isinstance(kind, type) or not issubclass(kind, Exception):
            raise TypeError(
                f"{name} must be True, False or exception types, and {kind!r} is none of these"
            )
    return types or False


def _pending(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value != ANY_NUMBER and not 1 <= value <= COUNT_MAX:
        raise ValueError(f"{name} must be from 1 up, or {ANY_NUMBER} for any number, not {value!r}")
    return value


def _concurrency(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if not 1 <= value <= CONCURRENCY_MAX:
        raise ValueError(f"{name} must be from 1 to {CONCURRENCY_MAX}, not {value!r}")
    return value


def _on_partition(name: str, value: Any) -> bool:
    if value not in ("replace", "wait"):
        raise ValueError(f'{name} must be "replace" or "wait", not {value!r}')
    return bool(value == "wait")


def _actor_name(name: str, value: Any) -> str:
    text = _text(name, value)
    if not text or len(text) > NAME_CHARACTERS_MAX or text.startswith(ANONYMOUS):
        raise ValueError(
            f"{name} must be from 1 to {NAME_CHARACTERS_MAX} characters that do not begin with "
            f"{ANONYMOUS!r}, not {value!r:.80}"
        )
    return text


def _lifetime(name: str, value: Any) -> bool:
    if value not in (None, "detached"):
        raise ValueError(f'{name} must be "detached" or None, not {value!r}')
    return value is not None


Checks = Mapping[str, Callable[[str, Any], Any]]

#: what tasks and actors are placed by, and what their workers find
_PLACED: Final[Checks] = {
    "num_cpus": _amount,
    "num_gpus": _gpus,
    "resources": _resources,
    "wait_for_nodes": _flag,
    "node": _node,
    "spread": _flag,
    "env_vars": _env_vars,
    "working_dir": _directory,
}
_TASK: Final[Checks] = {
    **_PLACED,
    "num_returns": _returns,
    "stream_buffer_max": _buffer,
    "max_retries": _count(RETRIES_MAX),
    "retry_exceptions": _retry_exceptions,
    "retry_backoff_s": _seconds,
    "priority": _priority,
    "name": _text,
    "max_calls": _count(RETRIES_MAX),
    **limits_.CHECKS,
}
_ACTOR: Final[Checks] = {
    **_PLACED,
    "max_restarts": _count(RETRIES_MAX),
    "restart_window_s": _seconds,
    "retry_backoff_s": _seconds,
    "max_task_retries": _count(RETRIES_MAX),
    "max_pending_calls": _pending,
    "max_concurrency": _concurrency,
    "on_partition": _on_partition,
    "checkpoint_every_calls": _count(COUNT_MAX),
    "checkpoint_interval_s": _seconds,
    "health_check_interval_s": _seconds,
    "name": _actor_name,
    "namespace": _actor_name,
    "get_if_exists": _flag,
    "lifetime": _lifetime,
    **limits_.CHECKS,
}
_METHOD: Final[Checks] = {
    "num_returns": _returns,
    "stream_buffer_max": _buffer,
    "max_task_retries": _count(RETRIES_MAX),
    "retry_exceptions": _retry_exceptions,
    "name": _text,
    **limits_.CHECKS,
}

#: the options there are
NAMES: Final = tuple(_TASK)
ACTOR_NAMES: Final = tuple(_ACTOR)
METHOD_NAMES: Final = tuple(_METHOD)


def check(given: Mapping[str, Any], pool: str = "") -> Checked:
    """Return the options of a task; what is not given has its default.

    Raises:
        TypeError: an unknown option, or a value of the wrong type.
        ValueError: a value out of bounds.
    """
    values = _values_of(given, "a task", _TASK)
    name = values.pop("name", "")
    retry_exceptions = values.pop("retry_exceptions", False)
    return Checked(
        _options(values, retry_exceptions=bool(retry_exceptions), pool=pool), name, retry_exceptions
    )


class OfCalls(NamedTuple):
    """What an actor's options say of its calls, where a method says nothing else."""

    max_task_retries: int
    limits: Limits | None


def check_actor(given: Mapping[str, Any]) -> tuple[Checked, OfCalls]:
    """Return the options of an actor's creation, and those of its calls.

    Raises:
        TypeError: an unknown option, or a value of the wrong type.
        ValueError: a value out of bounds.
    """
    values = _values_of(given, "an actor", _ACTOR)
    creates = ActorOptions(
        max_concurrency=values.pop("max_concurrency", 0),
        max_pending_calls=values.pop("max_pending_calls", ANY_NUMBER),
        restart_window_s=values.pop("restart_window_s", 0.0),
        waits_on_partition=values.pop("on_partition", False),
        name=values.pop("name", ""),
        namespace=values.pop("namespace", ""),
        detached=values.pop("lifetime", False),
        checkpoint_every_calls=values.pop("checkpoint_every_calls", 0),
        checkpoint_interval_s=values.pop("checkpoint_interval_s", 0.0),
        health_check_interval_s=values.pop("health_check_interval_s", -1.0),
    )
    if values.pop("get_if_exists", False) and not creates.name:
        raise ValueError("get_if_exists goes with a name: there is nothing else to find it by")
    # Its memory is that of its process for life; its other limits are those of each call.
    memory = {"memory_max": values.pop("memory_max", 0)}
    of_calls = OfCalls(values.pop("max_task_retries", 0), limits_.taken(values))
    values.update(memory)
    max_restarts = values.pop("max_restarts", 0)
    values.setdefault("num_cpus", 0.0)
    options = _options(values, max_retries=max_restarts, creates=creates)
    return Checked(options, "", False), of_calls


def check_method(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a method that are given.

    Raises:
        TypeError: an unknown option, or a value of the wrong type.
        ValueError: a value out of bounds.
    """
    return _values_of(given, "a method of an actor", _METHOD)


def check_names(given: Mapping[str, Any]) -> None:
    """Refuse options that are neither all a task's nor all an actor's.

    Raises:
        TypeError: names the first that does not fit.
    """
    if any(all(name in checks for name in given) for checks in (_TASK, _ACTOR)):
        return
    unknown = next(name for name in given if name not in _TASK)
    raise TypeError(f"{_unknown(unknown, 'a task', _TASK)}; those of an actor {_list(_ACTOR)}")


def _options(values: dict[str, Any], **more: Any) -> Options:
    if isinstance(values.get("node"), tuple):
        values["node_labels"] = values.pop("node")
    limits = limits_.taken(values)
    options = Options(**values, **more, limits=limits)
    if options.node and options.spread:
        raise ValueError("node and spread exclude each other: one names a node, one takes many")
    return options


def _values_of(given: Mapping[str, Any], what: str, checks: Checks) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in given.items():
        checked = checks.get(name)
        if checked is None:
            raise TypeError(_unknown(name, what, checks))
        values[name] = checked(name, value)
    if "num_returns" in values or "stream_buffer_max" in values:
        _put_stream(values)
    return values


def _put_stream(values: dict[str, Any]) -> None:
    """Put what is sent in the place of what was given."""
    if values.get("num_returns") == "streaming":
        values["num_returns"] = 0
        values.setdefault("stream_buffer_max", STREAM_BUFFER)
        return
    if "stream_buffer_max" in values:
        raise ValueError(
            'stream_buffer_max goes with num_returns="streaming": it says how many values a task '
            "yields ahead of whoever reads them"
        )
    values["stream_buffer_max"] = 0


def _unknown(name: str, what: str, checks: Checks) -> str:
    import difflib  # for those who err

    near = difflib.get_close_matches(name, checks, 1)
    instead = f", did you mean {near[0]!r}?" if near else ";"
    return f"{name!r} is not an option of {what}{instead} The options {_list(checks)}"


def _list(checks: Checks) -> str:
    return "are " + ", ".join(checks)

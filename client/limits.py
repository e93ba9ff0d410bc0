"""The options that limit a call, as users write them: seconds, and amounts of memory.

Never guesses: what does not fit is refused in plain words, naming the option and what is allowed.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from ..protocol.forms import COUNT_MAX, SECONDS_MAX
from ..protocol.limits import NO_LIMITS, Limits

_UNITS: Final = {
    "": 1, "B": 1,
    "K": 1 << 10, "KB": 10**3, "KIB": 1 << 10,
    "M": 1 << 20, "MB": 10**6, "MIB": 1 << 20,
    "G": 1 << 30, "GB": 10**9, "GIB": 1 << 30,
    "T": 1 << 40, "TB": 10**12, "TIB": 1 << 40,
}  # fmt: skip
_AMOUNT: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", re.ASCII)


def _duration(name: str, value: Any) -> float:
    """Return seconds, 0 for no limit."""
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, not {value!r}")
    if not value > 0:
        raise ValueError(f"{name} must be more than 0 seconds, or None for no limit, not {value!r}")
    if value == math.inf:
        return SECONDS_MAX
    if value > SECONDS_MAX:
        raise ValueError(f"{name} must be at most {SECONDS_MAX:g} seconds, not {value!r}")
    return float(value)


def _memory(name: str, value: Any) -> int:
    """Return bytes, 0 for no limit."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError(f'{name} must be bytes, a text like "2 GiB", or None, not {value!r}')
    amount = 0 if isinstance(value, str) else value
    if isinstance(value, str):
        match = _AMOUNT.fullmatch(value)
        unit = None if match is None else _UNITS.get(match[2].upper())
        if match is None or unit is None:
            raise ValueError(
                f'{name} = {value!r} is no amount of memory: write bytes, or a text like "2 GiB" '
                'or "500 MB"'
            )
        amount = int(float(match[1]) * unit)
    if not 0 < amount <= COUNT_MAX:
        raise ValueError(f"{name} must be more than 0 bytes, or None for no limit, not {value!r}")
    return amount


#: the options there are
CHECKS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "timeout": _duration,
    "queue_timeout": _duration,
    "total_timeout": _duration,
    "heartbeat_timeout": _duration,
    "memory_max": _memory,
}
_FIELDS: Final = {
    "timeout": "timeout_s",
    "queue_timeout": "queue_timeout_s",
    "total_timeout": "total_timeout_s",
    "heartbeat_timeout": "heartbeat_timeout_s",
    "memory_max": "memory_max_bytes",
}


def changed(limits: Limits | None, values: Mapping[str, Any]) -> Limits | None:
    """Return limits with those options changed that are among checked `values`; None: no limit."""
    given = {field: values[name] for name, field in _FIELDS.items() if name in values}
    if not given:
        return limits
    old = limits or NO_LIMITS
    made = Limits(
        **{field: given.get(field, getattr(old, field)) for field in Limits.__struct_fields__}
    )
    return None if made == NO_LIMITS else made


def taken(values: dict[str, Any]) -> Limits | None:
    """Take the limits out of checked values; None: there are none."""
    limits = changed(None, values)
    for name in _FIELDS:
        values.pop(name, None)
    return limits

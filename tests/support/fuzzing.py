"""Messages that fit their types and mean nothing, and damage done to those that do.

Everything is drawn from a `random.Random`: hypothesis hands one in that it can shrink, a long run
one with a seed.
"""

import struct
from functools import cache
from random import Random
from typing import Any

import msgspec
from msgspec import inspect

#: numbers at the edges of everything that counts
WHOLE = (
    0, 1, 2, 3, 7, 63, 64, 65, 127, 128, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32,
    2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
NEGATIVE = (-1, -2, -128, -(2**31), -(2**63))
FRACTIONS = (
    0.0, -0.0, 0.5, 1.0, 1.5, 1e-9, 1e-300, 1e18, 1e300, 1.7e308, float("inf"), float("nan"),
)  # fmt: skip
TEXTS = (
    "", "a", "CPU", "GPU", "status", "tasks", "nodes", "é", "\x00", "\x1b[31m", "../..", "text",
    "DrumbeatError", "DependencyFailed", "WorkerDied", "NodeLost", "SystemExit", "__class__",
    "self", "3.11", "client", "node", "\U0001f600", "x" * 300,
)  # fmt: skip
ODD = (
    None, True, False, -1, 2**64 - 1, -(2**63), 1.5, float("inf"), float("nan"), "", "submit", b"",
    b"\x00" * 14, b"\x80\x05N.", [], [[]], {}, {"": None}, {1: 2}, [None] * 20,
)  # fmt: skip


class Words:
    """Draws values of any type that a message is made of.

    Args:
        rng: chance.
        ids: byte strings to name things by: of peers, tasks, objects, functions.
        numbers: to be preferred wherever a number stands: kinds, attempts.
    """

    def __init__(self, rng: Random, ids: list[bytes], numbers: tuple[int, ...] = ()) -> None:
        self.rng = rng
        self.ids = ids
        self.numbers = numbers
        #: longest list
        self.rows_max = 3

    def message(self, *kinds: Any) -> Any:
        """Return one of these messages."""
        return self.of(_info(self.rng.choice(kinds)), 0)

    def of(self, info: Any, depth: int) -> Any:
        """Return a value of a type."""
        match info:
            case inspect.StructType():
                return self._struct(info, depth)
            case inspect.UnionType():
                types = info.types
                if depth > 4 and any(isinstance(one, inspect.NoneType) for one in types):
                    return None
                return self.of(self.rng.choice(types), depth + 1)
            case inspect.ListType():
                return self._rows(info.item_type, depth)
            case inspect.VarTupleType():
                return tuple(self._rows(info.item_type, depth))
            case inspect.TupleType():
                return tuple(self.of(one, depth + 1) for one in info.item_types)
            case inspect.DictType():
                keys = [self.of(info.key_type, depth + 1) for _ in range(self._count(depth))]
                return {key: self.of(info.value_type, depth + 1) for key in keys}
            case _:
                return self._plain(info, depth)

    def _plain(self, info: Any, depth: int) -> Any:
        rng = self.rng
        match info:
            case inspect.BytesType():
                return self.bytes_of(info.min_length, info.max_length)
            case inspect.StrType():
                return rng.choice(TEXTS)
            case inspect.BoolType():
                return rng.random() < 0.5
            case inspect.IntType():
                return self._whole(info.ge, info.le)
            case inspect.FloatType():
                return rng.choice(FRACTIONS if info.ge is not None else (*FRACTIONS, -1.0, -1e308))
            case inspect.NoneType():
                return None
            case inspect.RawType():
                return msgspec.Raw(msgspec.msgpack.encode(rng.choice(ODD)))
            case _:
                return rng.choice(ODD) if depth > 4 else [rng.choice(ODD), {"a": rng.choice(ODD)}]

    def _struct(self, info: Any, depth: int) -> Any:
        values = []
        for field in info.fields:
            has_default = field.default is not msgspec.NODEFAULT
            if has_default and self.rng.random() < 0.4:
                values.append(field.default)
            else:
                values.append(self.of(field.type, depth + 1))
        return info.cls(*values) if len(values) == len(info.cls.__struct_fields__) else None

    def _count(self, depth: int) -> int:
        return self.rng.randint(0, self.rows_max if depth < 4 else 1)

    def _rows(self, info: Any, depth: int) -> list[Any]:
        return [self.of(info, depth + 1) for _ in range(self._count(depth))]

    def _whole(self, least: int | None, most: int | None) -> int:
        pool: tuple[int, ...] = (*WHOLE, *(NEGATIVE if least is None else ()))
        if self.numbers and self.rng.random() < 0.6:
            pool = self.numbers
        number = self.rng.choice(pool)
        if least is not None and number < least:
            return least
        return most if most is not None and number > most else number

    def bytes_of(self, least: int | None, most: int | None) -> bytes:
        """Return bytes of a length in these bounds, one of the ids if any fits."""
        fitting = [
            one
            for one in self.ids
            if len(one) >= (least or 0) and (most is None or len(one) <= most)
        ]
        if fitting and self.rng.random() < 0.9:
            return self.rng.choice(fitting)
        return self.rng.randbytes(self.rng.randint(least or 0, most or 40))


@cache
def _info(kind: Any) -> Any:
    return inspect.type_info(kind)


# ------------------------------------------------------------------------------------------ damage


def damaged(rng: Random, encoded: bytes) -> bytes:
    """Return encoded MessagePack with its structure or its bytes changed in a few places."""
    if rng.random() < 0.3:
        return _overwritten(rng, encoded)
    plain = msgspec.msgpack.decode(encoded)
    for _ in range(rng.randint(1, 3)):
        plain = _changed(rng, plain)
    try:
        return msgspec.msgpack.encode(plain)
    except (ValueError, OverflowError, TypeError):
        return _overwritten(rng, encoded)


def _changed(rng: Random, plain: Any) -> Any:
    """Return a nested value with one change somewhere in it."""
    if isinstance(plain, list) and plain and rng.random() < 0.85:
        place = rng.randrange(len(plain))
        match rng.randrange(10):
            case 0:
                return plain[:place] + plain[place + 1 :]
            case 1:
                return [*plain[:place], plain[place], *plain[place:]]
            case 2:
                return [*plain, rng.choice(ODD)]
            case 3:
                return plain[:place]
            case _:
                return [*plain[:place], _changed(rng, plain[place]), *plain[place + 1 :]]
    if isinstance(plain, dict) and plain and rng.random() < 0.5:
        key = rng.choice(list(plain))
        return {**plain, key: _changed(rng, plain[key])}
    return _leaf(rng, plain)


def _leaf(rng: Random, plain: Any) -> Any:
    choice = rng.random()
    if choice < 0.4 and isinstance(plain, int | float) and not isinstance(plain, bool):
        return rng.choice((*WHOLE, *NEGATIVE, *FRACTIONS))
    if choice < 0.5 and isinstance(plain, bytes):
        return plain[: rng.randint(0, len(plain))] + rng.randbytes(rng.randint(0, 3))
    if choice < 0.6:
        return [plain]
    if choice < 0.65:
        return nested(rng.choice((10, 200, 600)))
    return rng.choice(ODD)


def nested(depth: int) -> Any:
    """Return lists within lists."""
    value: Any = None
    for _ in range(depth):
        value = [value]
    return value


def _overwritten(rng: Random, encoded: bytes) -> bytes:
    raw = bytearray(encoded)
    for _ in range(rng.randint(0, 4)):
        raw[rng.randrange(len(raw))] = rng.randrange(256)
    if rng.random() < 0.3:
        del raw[rng.randint(0, len(raw)) :]
    if rng.random() < 0.2:
        place = rng.randint(0, len(raw))
        raw[place:place] = struct.pack(">BI", rng.choice((0xC6, 0xDB, 0xDD, 0xDF)), 2**32 - 1)
    return bytes(raw)

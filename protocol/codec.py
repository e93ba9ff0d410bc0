"""The wire codec, and the only door to MessagePack: messages to bytes and, checked, back.

Never lets bad input through and never lets it crash us: whatever does not fit becomes a
RemoteProtocolError that names the field. Never opens a payload.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw

from .errors import MessageTooLarge, RemoteProtocolError
from .forms import Message
from .frames import Ack, Batch, Bulk, Frame, Part
from .messages import (
    AnyMessage,
    Assign,
    Blocked,
    Define,
    Fetch,
    Forget,
    Output,
    Release,
    Results,
    Retried,
    Shared,
    Stop,
    Submit,
    ToClient,
    ToNode,
    ToScheduler,
    Unshared,
    Values,
    Wanted,
)
from .moves import Move, Piece

T = TypeVar("T")

#: A message may be sent in parts up to this length; a value is bound by `value_bytes_max` long
#: before, so only a row with very many values inside could reach it.
MESSAGE_BYTES_MAX = 256 << 20
#: The most that the fields of a Batch or Part take beside its messages.
BATCH_OVERHEAD_BYTES = 48

#: encode(message) -> bytes
encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode

#: Messages whose rows stand for themselves, so that two messages with half the rows each mean the
#: same as one with all. Not here: answers (one a request), states (Shapes, Beat), one-row messages,
#: what has one number for all its rows (Done).
_COLUMNS: dict[type[Message], str] = {
    Define: "rows", Forget: "kinds", Submit: "rows", Results: "rows", Values: "rows", Fetch: "ids",
    Wanted: "ids", Shared: "ids", Unshared: "ids", Release: "rows",
    Retried: "rows",
    Assign: "rows", Stop: "rows", Blocked: "rows", Output: "rows",
}  # fmt: skip

# What msgspec raises for bytes that do not fit: its own errors and bad UTF-8 are ValueErrors; the
# others come of absurd nesting, lengths and map keys.
_REFUSALS = (ValueError, TypeError, RecursionError, MemoryError, OverflowError)


@cache
def _plain_decoder(type_: Any) -> Callable[[bytes | Raw], Any]:
    return msgspec.msgpack.Decoder(type_).decode


def decoder(type_: type[T] | Any) -> Callable[[bytes | Raw], T]:
    """Return a function that decodes one message of `type_` (a struct or a union of them).

    The function raises RemoteProtocolError, naming the field, for whatever does not fit.
    """
    decode_bytes: Callable[[bytes | Raw], T] = msgspec.msgpack.Decoder(type_).decode

    def decode(raw: bytes | Raw) -> T:
        try:
            return decode_bytes(raw)
        except _REFUSALS as error:
            raise RemoteProtocolError(explain(error, raw, type_)) from None

    return decode


decode_frame: Callable[[bytes | Raw], Frame] = decoder(Frame)
decode_to_scheduler: Callable[[bytes | Raw], ToScheduler] = decoder(ToScheduler)
decode_to_client: Callable[[bytes | Raw], ToClient] = decoder(ToClient)
decode_to_node: Callable[[bytes | Raw], ToNode] = decoder(ToNode)
decode_bulk: Callable[[bytes | Raw], Bulk] = decoder(Bulk)
_decode_move: Callable[[Any], Move] = decoder(Move)

_READ_BY_SCHEDULER: Final = ToScheduler | Part
_READ_BY_CLIENT: Final = ToClient | Part
_READ_BY_NODE: Final = ToNode | Part


def decode_move(frame: memoryview, data: memoryview | None = None) -> Move:
    """Return a word of a data connection; a Piece's data is a part of the view.

    Args:
        frame: one word.
        data: what came as a second part behind it: a Piece's data, which lacks it.

    Raises:
        RemoteProtocolError: it does not fit; names the field.
    """
    word = _decode_move(frame)
    if data is None:
        return word
    if type(word) is not Piece or len(word.data):
        raise RemoteProtocolError("a second part: only a piece has one, if it carries no data")
    return Piece(word.key, word.offset, word.size, word.checksum, data)


def encode_batch(seq: int, ack: int, messages: list[bytes]) -> bytes:
    """Return the frame that carries these encoded messages."""
    return encode(Batch(seq, ack, list(map(Raw, messages))))


def encode_ack(ack: int, sent: int = 0, missing: bool = False) -> bytes:
    """Return the frame that says: received up to `ack`; see `frames.Ack` for the rest."""
    return encode(Ack(ack, sent, missing))


# ------------------------------------------------------------------------------- long messages


def message_bytes_max(frame_bytes_max: int) -> int:
    """Return how long an encoded message may be that is to ride in a frame of that size."""
    return frame_bytes_max - BATCH_OVERHEAD_BYTES


def split(message: Message, bytes_max: int) -> list[bytes]:
    """Return the message encoded, in as many pieces of at most `bytes_max` as it takes.

    A columnar message becomes several with some of its rows each; any other, and a row that is too
    long alone, becomes Parts, which a `Reader` joins again. The order of the pieces matters.

    Raises:
        MessageTooLarge: longer than MESSAGE_BYTES_MAX though it cannot be divided by rows.
    """
    encoded = encode(message)
    return [encoded] if len(encoded) <= bytes_max else split_long(message, encoded, bytes_max)


def split_long(message: Message, encoded: bytes, bytes_max: int) -> list[bytes]:
    """Return the pieces of a message, see `split`, whose encoding turned out to be too long."""
    field = _COLUMNS.get(type(message))
    rows = getattr(message, field) if field else ()
    if field is None or len(rows) < 2 or (type(message) is Submit and message.attempts):
        return _parts(message, encoded, bytes_max)
    step = max(1, len(rows) // (len(encoded) // bytes_max + 1))
    pieces: list[bytes] = []
    for start in range(0, len(rows), step):
        share = msgspec.structs.replace(message, **{field: rows[start : start + step]})
        pieces += split(share, bytes_max)
    return pieces


def _parts(message: Message, encoded: bytes, bytes_max: int) -> list[bytes]:
    if len(encoded) > MESSAGE_BYTES_MAX:
        raise MessageTooLarge(
            f"a {type(message).__name__} message of {len(encoded):,} bytes is longer than the"
            f" {MESSAGE_BYTES_MAX:,} that can be sent",
            size_bytes=len(encoded),
            limit_bytes=MESSAGE_BYTES_MAX,
        )
    step = bytes_max - BATCH_OVERHEAD_BYTES
    return [
        encode(Part(encoded[start : start + step], start + step >= len(encoded)))
        for start in range(0, len(encoded), step)
    ]


class Reader:
    """Decodes the messages of one link life and one direction, joining those sent in parts.

    Make one with `to_scheduler`, `to_client` or `to_node`; a new link life needs a new one.
    """

    __slots__ = ("_decode", "_parts", "_parts_bytes", "_type")

    def __init__(self, type_: Any) -> None:
        self._type = type_
        self._decode: Callable[[bytes | Raw], Any] = _plain_decoder(type_)
        self._parts: list[bytes] = []
        self._parts_bytes = 0

    @classmethod
    def to_scheduler(cls) -> "Reader":
        """Return a reader of what clients and nodes say."""
        return cls(_READ_BY_SCHEDULER)

    @classmethod
    def to_client(cls) -> "Reader":
        """Return a reader of what the scheduler says to a client."""
        return cls(_READ_BY_CLIENT)

    @classmethod
    def to_node(cls) -> "Reader":
        """Return a reader of what the scheduler says to a node."""
        return cls(_READ_BY_NODE)

    def read(self, raw: bytes | Raw) -> AnyMessage | None:
        """Return the message, or None when it is a part and others are to follow.

        Raises:
            RemoteProtocolError: it does not fit; the next message is read as if it had not come.
        """
        try:
            read: Any = self._decode(raw)
        except _REFUSALS as error:
            raise RemoteProtocolError(explain(error, raw, self._type)) from None
        if type(read) is Part:
            return self._join(read)
        if self._parts:
            self._drop_parts()
            raise RemoteProtocolError("a message sent in parts was not sent to its end")
        message: AnyMessage = read
        return message

    def _join(self, part: Part) -> AnyMessage | None:
        self._parts.append(part.data)
        self._parts_bytes += len(part.data)
        if not part.data or self._parts_bytes > MESSAGE_BYTES_MAX:
            self._drop_parts()
            raise RemoteProtocolError(
                f"part.data: empty, or a message in parts is longer than {MESSAGE_BYTES_MAX:,}"
            )
        if not part.last:
            return None
        joined = b"".join(self._parts)
        self._drop_parts()
        try:
            message: AnyMessage | Part = self._decode(joined)
        except _REFUSALS as error:
            raise RemoteProtocolError(explain(error, joined, self._type)) from None
        if isinstance(message, Part):
            raise RemoteProtocolError("part.data: parts of parts")
        return message

    def _drop_parts(self) -> None:
        self._parts = []
        self._parts_bytes = 0


# ------------------------------------------------------------------------------- clear refusals


def explain(error: Exception, raw: bytes | Raw, type_: Any) -> str:
    """Return in words what `error`, raised while decoding `raw` as `type_`, complains about.

    msgspec names a field of an array by its position; people need its name.
    """
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return f"not a message: {type(error).__name__}: {text}" if text else "not a message"
    complaint, _, path = text.partition(" - at `")
    path = path.removeprefix("key` in `")  # of a map: it is the map that is named
    try:
        tag = msgspec.msgpack.decode(raw, type=tuple[Any, ...])[0]
    except (*_REFUSALS, IndexError):
        tag = None
    struct = _struct_of(tag, type_)
    if struct is None:
        return f"unknown message {tag!r:.40}: {complaint}"
    steps = path.rstrip("`")[1:].strip("[]").split("][") if path else []
    named = _named(struct, steps)
    return f"{named}: {complaint}"


def _struct_of(tag: Any, type_: Any) -> Any:
    info = _inspect(type_)
    for one in getattr(info, "types", (info,)):
        if getattr(one, "tag", None) == tag or one is info:
            return one
    return None


@cache
def _inspect(type_: Any) -> Any:
    import msgspec.inspect  # only bad input needs it, and it loads slowly

    return msgspec.inspect.type_info(type_)


def _named(info: Any, steps: list[str]) -> str:
    """Follow the steps of a path through the types; return it with the fields' names."""
    words = str(info.tag or info.cls.__name__) if hasattr(info, "tag") else type(info).__name__
    for step in steps:
        # "T | None": the part that has an inside is the one that the path goes through.
        info = _with_inside(info)
        index = int(step) if step.isdigit() else None
        if hasattr(info, "fields") and index is not None:
            position = index - (info.tag is not None)
            if not 0 <= position < len(info.fields):
                return f"{words}[{step}]"
            words += f".{info.fields[position].name}"
            info = info.fields[position].type
            continue
        words += f"[{step}]"
        inside = getattr(info, "item_type", None) or getattr(info, "value_type", None)
        items = getattr(info, "item_types", None)
        if items and index is not None and index < len(items):
            inside = items[index]
        info = inside
    return words


def _with_inside(info: Any) -> Any:
    for one in getattr(info, "types", ()):
        if any(hasattr(one, name) for name in ("fields", "item_type", "item_types", "value_type")):
            return one
    return info

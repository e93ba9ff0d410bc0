"""ZeroMQ's protocol on a stream that needs no keys: bytes in, frames out, and back.

Never a socket. What is here is ZMTP 3.1 with the mechanism NULL (ZeroMQ RFC 37), as far as a DEALER
and a ROUTER speak it: any library of ZeroMQ may be at the other end. Of messages of many parts,
which nobody here sends, only their number is kept.
"""

from typing import Final

_MORE: Final = 1
_LONG: Final = 2
_COMMAND: Final = 4
_FLAGS: Final = _MORE | _LONG | _COMMAND
_SHORT_HEAD_BYTES: Final = 2
_LONG_HEAD_BYTES: Final = 9
_SHORT_BYTES_MAX: Final = 255
#: no command is nearly as long
_COMMAND_BYTES_MAX: Final = 1024
#: a PING carries its sender's patience, and then what its PONG has to give back
_PING_HEAD_BYTES: Final = 2

_MECHANISM: Final = b"NULL".ljust(20, b"\0")
_MAJOR: Final = 3
_SIGNATURE: Final = b"\xff" + bytes(8) + b"\x7f"
_GREETING: Final = _SIGNATURE + bytes((_MAJOR, 1)) + _MECHANISM + bytes(32)
_GREETING_BYTES: Final = len(_GREETING)
DEALER: Final = b"DEALER"
ROUTER: Final = b"ROUTER"
_TYPE: Final = b"Socket-Type"

_HEADS: Final = tuple(bytes((0, size)) for size in range(_SHORT_BYTES_MAX + 1))


def head(size: int) -> bytes:
    """Return what goes before a frame of so many bytes."""
    return _HEADS[size] if size <= _SHORT_BYTES_MAX else b"\x02" + size.to_bytes(8, "big")


def first_words(kind: bytes) -> bytes:
    """Return what an end of that kind says before its frames, without waiting for an answer."""
    body = _command_body(b"READY", _property(_TYPE, kind) + _property(b"Identity", b""))
    return _GREETING + bytes((_COMMAND, len(body))) + body


def _property(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + len(value).to_bytes(4, "big") + value


def _command_body(name: bytes, rest: bytes) -> bytes:
    return bytes((len(name),)) + name + rest


class Incoming:
    """What comes from the other end of one connection.

    Args:
        peer_kind: what it has to be: `DEALER` or `ROUTER`.
        frame_bytes_max: a longer frame is wrong, before its bytes have come.
    """

    __slots__ = (
        "_dropping", "_frame_bytes_max", "_greeted", "_missing", "_peer_kind", "_rest", "answers",
        "is_open", "junk", "more", "wrong",
    )  # fmt: skip

    def __init__(self, peer_kind: bytes, frame_bytes_max: int) -> None:
        self._peer_kind = peer_kind
        self._frame_bytes_max = frame_bytes_max
        # What has come of a frame that is not whole, or was not asked for.
        self._rest = bytearray()
        # Bytes that have to come at least before there is anything to be done.
        self._missing = 0
        self._greeted = False
        self._dropping = False
        #: the other end has said what it is: what it says next are frames
        self.is_open = False
        #: there are more whole frames than were asked for: ask for them, without new bytes
        self.more = False
        #: messages of many parts, dropped
        self.junk = 0
        #: to be sent
        self.answers: list[bytes] = []
        #: why the connection is of no use any more, or ""
        self.wrong = ""

    def take(self, data: bytes, frames_max: int) -> list[bytes]:
        """Take in what has come, and return the frames that are whole, at most so many.

        Parts of longer messages and commands count as well: they take time, too. Once something is
        `wrong` there are no more.
        """
        if self.wrong:
            return []
        if self._missing > len(data):
            self._rest += data
            self._missing -= len(data)
            return []
        if self._rest:
            self._rest += data
            data, self._rest = bytes(self._rest), bytearray()
        frames: list[bytes] = []
        at = 0 if self._greeted else self._greet(data)
        end, left = len(data), frames_max
        self._missing, self.more = 1, False
        while end - at >= _SHORT_HEAD_BYTES and not self.wrong:
            flags = data[at]
            if flags & _LONG:
                body = at + _LONG_HEAD_BYTES
                if body > end:
                    break
                size = int.from_bytes(data[at + 1 : body], "big")
            else:
                body = at + _SHORT_HEAD_BYTES
                size = data[at + 1]
            rare = flags & ~_LONG or self._dropping
            if (rare or size > self._frame_bytes_max or not self.is_open) and self._refuses(
                flags, size
            ):
                break
            after = body + size
            if after > end:
                self._missing = after - end
                break
            if not left:
                self._missing, self.more = 0, True
                break
            left -= 1
            if rare:
                self._take_rarely(flags, data[body:after])
            else:
                frames.append(data[body:after])
            at = after
        if at < end:
            self._rest += data[at:]
        return frames

    def _greet(self, data: bytes) -> int:
        """Return where the greeting ends; all is left there until it is whole."""
        known = len(data)
        if data[:1] not in (b"", b"\xff") or (known > 9 and not data[9] & 1):
            self.wrong = "it does not speak ZeroMQ's protocol, or an old version of it"
        elif known > 10 and data[10] < _MAJOR:
            # It would wait for an answer in its own words before it says the rest.
            self.wrong = "it speaks an old version of ZeroMQ's protocol"
        elif known >= _GREETING_BYTES:
            if data[12:32] != _MECHANISM:
                self.wrong = "it wants another security mechanism of ZeroMQ's than NULL"
            else:
                self._greeted = True
                return _GREETING_BYTES
        return known if self.wrong else 0

    def _refuses(self, flags: int, size: int) -> bool:
        if not self._greeted:
            return True
        if flags & ~_FLAGS or flags & (_COMMAND | _MORE) == _COMMAND | _MORE:
            self.wrong = f"a frame has the flags {flags:#x}"
        elif flags & _COMMAND and size > _COMMAND_BYTES_MAX:
            self.wrong = f"a command has {size:,} bytes"
        elif size > self._frame_bytes_max:
            self.wrong = f"a frame has {size:,} bytes, more than {self._frame_bytes_max:,}"
        elif not self.is_open and not flags & _COMMAND:
            self.wrong = "a frame came before it was said what the other end is"
        return bool(self.wrong)

    def _take_rarely(self, flags: int, body: bytes) -> None:
        if flags & _COMMAND:
            self._obey(body)
        else:  # a part of a message of many
            self.junk += not self._dropping
            self._dropping = bool(flags & _MORE)

    def _obey(self, body: bytes) -> None:
        name, rest = body[1 : 1 + body[0]] if body else b"", body[1 + body[0] :] if body else b""
        if name == b"READY" and not self.is_open:
            kind = _properties(rest).get(_TYPE.lower(), b"")
            if kind == self._peer_kind:
                self.is_open = True
            else:
                self.wrong = f"it is a socket of the kind {kind.decode(errors='replace')!r}"
        elif name == b"ERROR":
            self.wrong = f"the other end says {rest[1:].decode(errors='replace')!r}"
        elif name == b"PING" and self.is_open:
            pong = _command_body(b"PONG", rest[_PING_HEAD_BYTES:][:16])
            self.answers.append(bytes((_COMMAND, len(pong))) + pong)
        elif not self.is_open:
            self.wrong = "it does not begin as ZeroMQ does"


def _properties(text: bytes) -> dict[bytes, bytes]:
    """Return what a READY says, names in small letters; of what is cut short, what there is."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(text):
        value = at + 1 + text[at] + 4
        size = int.from_bytes(text[value - 4 : value], "big")
        found[text[at + 1 : value - 4].lower()] = text[value : value + size]
        at = value + size
    return found

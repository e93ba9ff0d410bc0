"""What stands for a payload whose bytes are lost: a payload that says so.

Never raises by itself: whoever opens it does. So who only passes payloads on need not know of it.
"""

from typing import Final

#: 0xC1 begins no MessagePack, and no pickle; the digit is the form
MARK: Final = b"\xc1L1"
REASON_BYTES_MAX: Final = 1000
#: no payload at all: of an attempt that came to nothing, whose row does not come. Who asked for it
#: waits no more
VOID: Final = b"\xc1L0"


def absent(reason: str) -> bytes:
    """Return the payload that stands for lost bytes.

    Args:
        reason: why they are, for people: goes on after a colon.
    """
    return MARK + reason.encode(errors="replace")[:REASON_BYTES_MAX]


def reason_of(payload: "bytes | memoryview") -> str:
    """Return why the bytes of a payload are lost; "": they are not."""
    if payload[: len(MARK)] != MARK:
        return ""
    return bytes(payload[len(MARK) :]).decode(errors="replace") or "nobody knows why"

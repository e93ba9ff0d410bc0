"""The rule at the door: which key is let in over the network, and as what.

Never a socket: a question of ZeroMQ's authentication protocol (ZAP, RFC 27) in, the answer out.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

#: the name under which questions come; without one ZeroMQ would ask nobody
DOMAIN: Final = b"drumbeat"
#: what the answers say: a refused key, and a door that is shut. The dialler is told the number.
ADMITTED: Final = 200
KEY_REFUSED: Final = 400
FULL: Final = 500

_VERSION: Final = b"1.0"
_MECHANISM: Final = b"CURVE"
#: version, number of the question, domain, address, routing id, mechanism; then the credentials
_PARTS: Final = 7


class Answer(Struct, gc=False, frozen=True):
    """What becomes of one who wants to come in."""

    status: int
    #: the parts to send back
    parts: list[bytes]


def decide(question: Sequence[bytes], roles: Mapping[bytes, str], *, full: bool) -> Answer:
    """Return what becomes of one who wants to come in.

    Args:
        question: the parts of a ZAP request, from its version on.
        roles: what each key that is admitted proves.
        full: there are as many connections as there may be.
    """
    role = ""
    if len(question) == _PARTS:
        version, _number, domain, _address, _route, mechanism, key = question
        if (version, domain, mechanism) == (_VERSION, DOMAIN, _MECHANISM):
            role = roles.get(key, "")
    status = FULL if role and full else ADMITTED if role else KEY_REFUSED
    user = role.encode() if status == ADMITTED else b""
    number = question[1] if len(question) > 1 else b""
    text = {ADMITTED: b"", KEY_REFUSED: b"this key is not admitted", FULL: b"full"}[status]
    return Answer(status, [_VERSION, number, str(status).encode(), text, user, b""])

"""What a terminal sends for a key, and what the key is called.

Never reads a terminal.
"""

import re
from typing import Final

_NAMES: Final = {
    "\r": "enter", "\n": "enter", "\t": "tab", "\x1b": "escape", "\x7f": "backspace",
    "[A": "up", "[B": "down", "[C": "right", "[D": "left", "[H": "home", "[F": "end",
    "OA": "up", "OB": "down", "OC": "right", "OD": "left", "OH": "home", "OF": "end",
    "[1~": "home", "[7~": "home", "[4~": "end", "[8~": "end", "[5~": "page up", "[6~": "page down",
}  # fmt: skip
#: a sequence of a terminal, or one character
_KEY: Final = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|O[A-Za-z])|(.)", re.DOTALL)


def keys_of(data: bytes) -> list[str]:
    """Return the names of the keys: "up", "enter", "q"; what is not known is left out."""
    keys = []
    for sequence, character in _KEY.findall(data.decode(errors="replace")):
        name = _NAMES.get(sequence or character, "" if sequence else character)
        if name and (len(name) > 1 or name.isprintable()):
            keys.append(name)
    return keys

"""Bugs that a careless change could bring to memory segments; see `planted.py`."""

from collections.abc import Callable
from typing import Any, Final

from drumbeat.client.home import Home

from .planted import Planted


def _names_bytes_and_sends_none(true: Callable[..., Any]) -> Callable[..., Any]:
    def answer(home: Any, row: Any) -> None:
        true(home, row)
        home.segments.clear()

    return answer


def _forgets_who_maps_it(true: Callable[..., Any]) -> Callable[..., Any]:
    def let_go(home: Any, id_: Any, entry: Any) -> Any:
        if entry.row is not None and entry.row.payload is None and entry.row.size:
            entry.shared = False
        return true(home, id_, entry)

    return let_go


PLANTED_SEGMENTS: Final[dict[str, Planted]] = {
    "name_bytes_and_send_none": Planted(
        "who cannot map a segment is told of its bytes, and they are not sent",
        Home, "answer", _names_bytes_and_sends_none,
    ),
    "close_what_others_map": Planted(
        "a segment is closed though a node holds it",
        Home, "_let_go", _forgets_who_maps_it,
    ),
}  # fmt: skip

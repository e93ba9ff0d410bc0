"""What `drumbeat top` knows and shows next: rates, order, what is chosen, what a key means.

Never draws, asks or reads a clock: answers of the scheduler and names of keys go in, what is to be
shown and what is wished for come out.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

Row = Mapping[str, Any]

CALLS: Final = "calls"
ACTORS: Final = "actors"
EVENTS: Final = "events"
VIEWS: Final = (CALLS, ACTORS, EVENTS)

#: so many of the last rates are kept
RATES_MAX: Final = 120
#: a rate is that of so much time at least
RATE_LEAST_S: Final = 0.4
INTERVALS_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

#: the worst first; whatever else is said of a call comes after these
VERDICTS: Final = (
    "deadlock", "unkillable", "gil-held", "loop-blocked", "stopped", "gil-busy", "blocked"
)  # fmt: skip

#: key -> (what it sorts by, whether the greatest comes first)
ORDERS: Final = {
    "t": ("running_s", True),
    "c": ("cpu", True),
    "m": ("memory_bytes", True),
    "v": ("verdict", False),
    "n": ("name", False),
    "o": ("node", False),
}

#: key -> how far it moves, in rows; a page is counted by whoever draws
MOVES: Final = {"up": -1, "k": -1, "down": 1, "j": 1}

HELP: Final = (
    "up, down, j, k     choose a row (page up, page down, home, end)",
    "enter, s           where it is: its stack; again: its stack now",
    "t c m v n o        sort by time, CPU, memory, verdict, name, node; r: the other way round",
    "tab                calls, actors, events        space  stand still, and go on",
    "+ -                look more often, or less     q      leave",
)


class Wish(NamedTuple):
    """What a key asks for that is not done here: quit, stack (of `what`) or look (now)."""

    does: str
    what: str = ""


class Rates:
    """Tasks a second, by what was finished between one answer and the next."""

    def __init__(self) -> None:
        self.history: deque[float] = deque(maxlen=RATES_MAX)
        self._last: tuple[int, float, int] | None = None

    def take(self, status: Row) -> None:
        """Take in the next answer."""
        epoch, at_s = int(status["epoch"]), float(status["uptime_s"])
        finished, last = int(status["tasks"]["finished"]), self._last
        if last is None or last[0] != epoch:
            self.history.clear()
            self.history.append(float(status["rate_per_s"]))
        elif at_s < last[1] + RATE_LEAST_S:
            return  # too short to say anything
        else:
            self.history.append((finished - last[2]) / (at_s - last[1]))
        self._last = epoch, at_s, finished

    @property
    def now(self) -> float:
        """The last one."""
        return self.history[-1] if self.history else 0.0


class Model:
    """See the module.

    Args:
        interval_s: how often to look.
    """

    def __init__(self, interval_s: float = 1.0) -> None:
        self.interval_s = interval_s
        self.view = CALLS
        self.order = "t"
        self.reversed = False
        self.paused = False
        self.rates = Rates()
        self.data: Row = {}
        #: of each view
        self.rows: dict[str, list[Row]] = {view: [] for view in VIEWS}
        #: what is chosen in each view, by id, and where that was when it was last there
        self._chosen: dict[str, str] = dict.fromkeys(VIEWS, "")
        self._places: dict[str, int] = dict.fromkeys(VIEWS, 0)
        #: rows that fit on the screen
        self.page = 10
        #: shown instead of the rows: heading and lines; None: nothing
        self.sheet: tuple[str, Sequence[str]] | None = None
        self.sheet_top = 0
        #: what the stack is of that the sheet shows
        self.sheet_of = ""
        #: said once, in the last line
        self.note = ""

    # ------------------------------------------------------------------------------------- answers

    def take(self, data: Row) -> None:
        """Take in the answer to `top`, and to what else the view needs."""
        if self.paused:
            return
        self.data = data
        self.rates.take(data["status"])
        self.rows[CALLS] = sorted_calls(data["calls"], self.order, self.reversed)
        if ACTORS in data:
            self.rows[ACTORS] = list(data[ACTORS])
        if EVENTS in data:
            self.rows[EVENTS] = list(reversed(data[EVENTS]))  # the newest on top

    def stack_came(self, what: str, heading: str, lines: Sequence[str]) -> None:
        """A stack that was wished for is here, if it still is."""
        if what and what == self.sheet_of:
            self.sheet = heading, lines
            self.sheet_top = min(self.sheet_top, max(0, len(lines) - 1))

    # --------------------------------------------------------------------------------- what is seen

    def place(self) -> int:
        """Return which row is chosen; rows come and go, so it is looked for each time."""
        rows, id_ = self.rows[self.view], self._chosen[self.view]
        for place, row in enumerate(rows):
            if id_ and key_of(row) == id_:
                self._places[self.view] = place
                return place
        return max(0, min(self._places[self.view], len(rows) - 1))

    def chosen(self) -> Row | None:
        """Return the chosen row."""
        rows = self.rows[self.view]
        return rows[self.place()] if rows else None

    def window(self, height: int) -> tuple[int, list[Row]]:
        """Return the rows that fit in so many lines, with the chosen one, and where they begin."""
        rows = self.rows[self.view]
        self.page = max(1, height)
        first = max(0, min(self.place() - self.page // 2, len(rows) - self.page))
        return first, rows[first : first + self.page]

    # ---------------------------------------------------------------------------------------- keys

    def press(self, key: str) -> Wish | None:
        """A key was pressed; return what is not done with that."""
        self.note = ""
        if key in ("q", "Q"):
            return Wish("quit")
        if self.sheet is not None:
            return self._press_at_sheet(key)
        if key in ("h", "?"):
            self.sheet, self.sheet_of, self.sheet_top = ("keys", HELP), "", 0
            return None
        if key in ("enter", "s"):
            return self._wish_stack()
        if key in ORDERS or key == "r":
            self.reversed = not self.reversed if key in ("r", self.order) else False
            self.order = self.order if key == "r" else key
            self.rows[CALLS] = sorted_calls(self.rows[CALLS], self.order, self.reversed)
            return None
        if key == "tab":
            self.view = VIEWS[(VIEWS.index(self.view) + 1) % len(VIEWS)]
            return Wish("look")
        if key == " ":
            self.paused = not self.paused
            return None if self.paused else Wish("look")
        if key in ("+", "-"):
            return self._pace(faster=key == "+")
        self._move(key)
        return None

    def _press_at_sheet(self, key: str) -> Wish | None:
        if key in ("enter", "s") and self.sheet_of:
            return Wish("stack", self.sheet_of)
        if key in MOVES or key in ("page up", "page down", "home", "end"):
            lines = len(self.sheet[1]) if self.sheet else 0
            self.sheet_top = max(0, min(self._moved(self.sheet_top, key, lines), lines - 1))
            return None
        self.sheet, self.sheet_of, self.sheet_top = None, "", 0
        return None

    def _wish_stack(self) -> Wish | None:
        row = self.chosen()
        if row is None or not row.get("id"):
            self.note = "nothing is chosen that has a stack"
            return None
        self.sheet_of, self.sheet_top = str(row["id"]), 0
        self.sheet = f"stack of {row.get('name') or row['id']}", ("is being asked for",)
        return Wish("stack", self.sheet_of)

    def _pace(self, *, faster: bool) -> Wish:
        others = [one for one in INTERVALS_S if (one < self.interval_s) is faster]
        others = [one for one in others if one != self.interval_s]
        if others:
            self.interval_s = max(others) if faster else min(others)
        self.note = f"looks every {self.interval_s:g} s"
        return Wish("look")

    def _move(self, key: str) -> None:
        rows = self.rows[self.view]
        if not rows:
            return
        place = max(0, min(self._moved(self.place(), key, len(rows)), len(rows) - 1))
        self._places[self.view] = place
        self._chosen[self.view] = key_of(rows[place])

    def _moved(self, place: int, key: str, count: int) -> int:
        steps = {"page up": -self.page, "page down": self.page, "home": -count, "end": count}
        return place + (MOVES.get(key) or steps.get(key, 0))


def key_of(row: Row) -> str:
    """Return what a row is known by from one answer to the next."""
    return str(row.get("number") or row.get("id") or row.get("name") or "")


def sorted_calls(rows: Sequence[Row], order: str, other_way: bool) -> list[Row]:
    """Return calls in an order of `ORDERS`; those of which it is not known come last."""
    field, greatest_first = ORDERS[order]
    known = [row for row in rows if _rank(row, field) is not None]
    unknown = [row for row in rows if _rank(row, field) is None]
    known.sort(key=lambda row: row.get("running_s") or 0.0, reverse=True)
    known.sort(key=lambda row: _rank(row, field), reverse=greatest_first is not other_way)
    return known + unknown


def _rank(row: Row, field: str) -> Any:
    value = row.get(field)
    if field == "verdict":
        return VERDICTS.index(value) if value in VERDICTS else len(VERDICTS)
    return value

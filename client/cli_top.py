"""`drumbeat top`: the cluster on the terminal, as it is from moment to moment.

Never decides what is shown (top_model.py) nor how (cli_top_view.py): it asks, reads keys and draws.
The terminal is left as it was found, however this ends.
"""

import logging
import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any, Final

import click

from ..protocol.errors import DrumbeatError
from ..protocol.session import Session
from . import cli_cluster, cli_tables, stack_text
from .cli_words import FAILED, WRONG_USAGE, examples, print_json, refuse
from .top_keys import keys_of
from .top_model import ACTORS, EVENTS, Model, Wish

#: rows of each list that are asked for
CALLS_MAX: Final = 500
EVENTS_MAX: Final = 200
#: keys and the size of the terminal are looked at so often, whatever comes
TICK_S: Final = 0.25
#: without a connection for so long, it is said
SILENT_S: Final = 2.0
#: of a file or pipe
WIDTH: Final = 140

Connect = Callable[[str | None], AbstractContextManager[Session]]


@click.command(
    epilog=examples(
        "drumbeat top",
        "drumbeat top --sort c --interval 0.5",
        "drumbeat top --once > picture.txt",
        "drumbeat top --once --json",
    )
)
@click.pass_obj
@click.option("--once", is_flag=True, help="Print one picture and end: for files and pipes.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)
@click.option(
    "--sort",
    type=click.Choice(["t", "c", "m", "v", "n", "o"]),
    default="t",
    show_default=True,
    help="By time, CPU, memory, verdict, name or node.",
)
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=CALLS_MAX, show_default=True, help="Calls."
)
def top(
    connect: Connect,
    address: str | None,
    json_wanted: bool,
    once: bool,
    interval: float,
    sort: str,
    limit: int,
) -> None:
    """Watch nodes, and what each worker does, for how long, and what is thought of it.

    Keys: q leaves, enter shows the stack of the chosen call, t c m v n o sort by time, CPU, memory,
    verdict, name and node, tab shows actors and events, h all keys.
    """
    once = once or json_wanted
    if not once and not is_terminal():
        refuse(
            "top draws on a terminal, and this is none; `drumbeat top --once` prints one picture",
            WRONG_USAGE,
        )
    model = Model(interval)
    model.order = sort
    with connect(address) as session:
        where = cli_cluster.where(session)
        if once:
            data = asked(session, "top", limit)
            if json_wanted:
                print_json(data)
                return
            print_once(model, data, where)
            return
        Top(session, model, where, limit).run()


def is_terminal() -> bool:
    """Return whether there is a terminal to draw on and to read keys from."""
    if not all(one is not None and one.isatty() for one in (sys.stdin, sys.stdout)):
        return False
    from rich.console import Console

    return not Console().is_dumb_terminal


def asked(session: Session, what: str, limit: int, match: str = "") -> Any:
    """Return an answer, or say why there is none and end."""
    answer = session.query(what, limit=limit, match=match)
    if isinstance(answer, dict) and "error" in answer:
        refuse(cli_tables.plain(answer["error"]), FAILED)
    return answer


def print_once(model: Model, data: Any, where: str) -> None:
    """Print one picture."""
    from rich.console import Console

    from . import cli_top_view as top_view  # rich takes long to import: not for other commands

    model.take(data)
    console = Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=WIDTH, color_system=None)
    console.print(top_view.picture(model, where, console.width))


class Asker:
    """Asks in threads of its own, so that keys are heard while an answer takes its time."""

    def __init__(self, session: Session, model: Model, limit: int) -> None:
        self._session = session
        self._model = model
        self._limit = limit
        self._now = threading.Event()
        self._over = False
        self.answers: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        #: readable when there is an answer
        self.wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self.wake_read, False)

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._run, name="drumbeat-top", daemon=True).start()

    def look(self) -> None:
        """Look now."""
        self._now.set()

    def stop(self) -> None:
        """Ask no more."""
        self._over = True
        self._now.set()

    def stack(self, what: str) -> None:
        """Ask for a stack."""
        threading.Thread(target=self._stack, args=(what,), daemon=True).start()

    def _run(self) -> None:
        while not self._over:
            if not self._model.paused:
                self._put("top", self._look)
            self._now.wait(self._model.interval_s)
            self._now.clear()

    def _look(self) -> Any:
        model, query = self._model, self._session.query
        view = model.view
        data = query("top", limit=self._limit)
        if view == ACTORS:
            data = {**data, ACTORS: query("actors", limit=self._limit)}
        elif view == EVENTS:
            data = {**data, EVENTS: query("events", limit=EVENTS_MAX)["events"]}
        return data

    def _stack(self, what: str) -> None:
        self._put(f"stack {what}", lambda: self._session.query("stack", match=what))

    def _put(self, what: str, ask: Callable[[], Any]) -> None:
        try:
            answer = ask()
        except DrumbeatError as error:
            answer = error
        if not self._over:
            self.answers.put((what, answer))
            with suppress(BlockingIOError):
                os.write(self._wake_write, b"x")


class Top:
    """The loop: answers and keys in, pictures out.

    Args:
        session: of the cluster.
        model: what is shown.
        where: which cluster it is, for people.
        limit: how many calls are asked for.
    """

    def __init__(self, session: Session, model: Model, where: str, limit: int) -> None:
        from rich.console import Console

        self._session = session
        self._model = model
        self._where = where
        self._console = Console(highlight=False)
        self._asker = Asker(session, model, limit)
        self._silent_since_s: float | None = None
        self._suspended = False

    def run(self) -> None:
        """Draw until the user leaves."""
        # What is logged would be written into the picture.
        log = logging.getLogger("drumbeat")
        log.addHandler(logging.NullHandler())
        log.propagate = False
        self._asker.start()
        before = signal.signal(signal.SIGTSTP, self._on_suspend)
        signal.signal(signal.SIGTERM, _on_term)
        words = ""
        try:
            with taken_over():
                words = self._loop()
        except KeyboardInterrupt:
            pass
        finally:
            self._asker.stop()
            signal.signal(signal.SIGTSTP, before)
        if words:
            refuse(words, FAILED)

    def _loop(self) -> str:
        """Return why there is nothing more to show; "": the user leaves."""
        asker, stdin = self._asker, sys.stdin.fileno()
        drawn: tuple[int, int] | None = None
        while True:
            size = self._console.size
            if drawn != (size.width, size.height):
                self._draw()
                drawn = size.width, size.height
            ready, _, _ = select.select([stdin, asker.wake_read], [], [], TICK_S)
            changed = self._look_at_connection()
            if self._suspended:
                self._suspend()
                changed = True
            if asker.wake_read in ready:
                with suppress(BlockingIOError):
                    os.read(asker.wake_read, 4096)
                words = self._take_answers()
                if words:
                    return words
                changed = True
            if stdin in ready:
                typed = os.read(stdin, 1024)
                for key in keys_of(typed):
                    wish = self._model.press(key)
                    if wish is not None and self._fulfil(wish):
                        return ""
                if not typed:
                    return ""  # the terminal is gone
                changed = True
            if changed:
                self._draw()

    def _fulfil(self, wish: Wish) -> bool:
        """Return whether that was all."""
        if wish.does == "stack":
            self._asker.stack(wish.what)
        elif wish.does == "look":
            self._asker.look()
        return wish.does == "quit"

    def _take_answers(self) -> str:
        while True:
            try:
                what, answer = self._asker.answers.get_nowait()
            except Empty:
                return ""
            kind, _, of = what.partition(" ")
            if kind == "stack":
                self._take_stack(of, answer)
            elif isinstance(answer, DrumbeatError):
                return cli_tables.plain(str(answer).partition("\n")[0])
            elif "error" in answer:
                return cli_tables.plain(answer["error"])
            else:
                self._model.take(answer)

    def _take_stack(self, of: str, answer: Any) -> None:
        heading, lines = f"stack of {of}", []
        if isinstance(answer, DrumbeatError):
            lines = [str(answer)]
        elif isinstance(answer, dict):
            lines = [answer["error"]]
        for row in answer if isinstance(answer, list) else ():
            name, pid = row["name"] or "idle", row["pid"]
            heading = f"{name} {row['task']} (pid {pid}, node {row['node']}) {clock()}"
            lines += [f"no stack: {row['why']}"] if row["why"] else stack_text.lines(row["stack"])
        self._model.stack_came(of, heading, lines or ["nothing is running there"])

    def _look_at_connection(self) -> bool:
        """Note since when there is no connection; return whether that is to be drawn."""
        if getattr(self._session, "connected", True):
            was, self._silent_since_s = self._silent_since_s, None
            return was is not None
        if self._silent_since_s is None:
            self._silent_since_s = time.monotonic()
        return True

    def _trouble(self) -> str:
        if self._silent_since_s is None:
            return ""
        for_s = time.monotonic() - self._silent_since_s
        if for_s < SILENT_S:
            return ""
        return f"no connection to the scheduler for {cli_tables.duration(for_s)}; it tries again"

    def _draw(self) -> None:
        from rich.control import Control
        from rich.screen import Screen

        from . import cli_top_view as top_view

        console, size = self._console, self._console.size
        picture = top_view.screen(
            self._model, self._where, self._trouble(), size.width, max(2, size.height)
        )
        with suppress(BlockingIOError):
            console.print(Control.home(), Screen(picture), end="")

    def _on_suspend(self, _number: int, _frame: FrameType | None) -> None:
        self._suspended = True

    def _suspend(self) -> None:
        """Give the terminal back while the shell has it (Ctrl-Z), and take it over again."""
        self._suspended = False
        with given_back():
            os.kill(os.getpid(), signal.SIGSTOP)


def _on_term(number: int, _frame: FrameType | None) -> None:
    """Leave as after any exception: the terminal is given back."""
    sys.exit(128 + number)


def clock() -> str:
    """Return the time of day."""
    return time.strftime("%H:%M:%S")


_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[2J"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"


@contextmanager
def taken_over() -> Iterator[None]:
    """Have the terminal for pictures, and give keys one by one; afterwards all is as before."""
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    try:
        tty.setcbreak(stdin)
        _write(_ENTER)
        yield
    finally:
        _write(_LEAVE)
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


@contextmanager
def given_back() -> Iterator[None]:
    """The opposite of `taken_over`, for a while."""
    stdin = sys.stdin.fileno()
    ours = termios.tcgetattr(stdin)
    cooked = list(ours)
    cooked[3] |= termios.ICANON | termios.ECHO
    _write(_LEAVE)
    termios.tcsetattr(stdin, termios.TCSADRAIN, cooked)
    try:
        yield
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, ours)
        _write(_ENTER)


def _write(text: str) -> None:
    with suppress(OSError):  # the terminal may be gone
        sys.stdout.write(text)
        sys.stdout.flush()

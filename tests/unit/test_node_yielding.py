"""The worker's end of a task that yields: each value once, whatever comes between two of them."""

import ctypes
import os
import signal
from collections.abc import Generator, Iterator
from functools import partial
from typing import Any

import pytest
from drumbeat.node.actor_host import ActorHost
from drumbeat.node.channel import channel_pair
from drumbeat.node.held import Held
from drumbeat.node.helper import Helper
from drumbeat.node.line import Line
from drumbeat.node.loaded import LoadedKind
from drumbeat.node.nested import WorkerSession
from drumbeat.node.packets import Answered, Item, KindDefinition, RunRow, ToDaemon, Want, WantOver
from drumbeat.node.page import INTERRUPT, PHASE, PICKLING, RUNNING, PulsePage
from drumbeat.node.yielding import Yielder
from drumbeat.protocol.actor_calls import ActorExit
from drumbeat.protocol.codec import decoder, encode
from drumbeat.protocol.errors import Interrupted
from drumbeat.protocol.ids import PeerId, index_of
from drumbeat.protocol.session import current, set_current

SEQ = 5
_decode = decoder(ToDaemon)


class Bench:
    """A worker that yields, and the node's end of its line.

    What it waits for is answered by `answers`, in their order: how many items were received and
    read, or None for an interrupt that comes instead.
    """

    def __init__(self) -> None:
        self.words = PulsePage().slot(0)
        self.words[RUNNING], self.words[PHASE] = SEQ, PICKLING
        self.far, near = channel_pair("seqpacket")
        held = Held()
        self.line = Line(near, self.words, held)
        session = WorkerSession(
            self.line, self.words, held, PeerId(b"n" * 6), 1, lambda: None, lambda: None
        )
        set_current(session)
        helper = Helper(self.line, held, self.words, os.getppid(), 1.0)
        self.yielder = Yielder(self.line, self.words, helper, ActorHost())
        self.answers: list[tuple[int, int] | None] = []
        self.packets: list[Any] = []
        self.line.look_here = self._look

    def _look(self) -> None:
        self.take()
        (*_, asked) = self.packets
        if isinstance(asked, WantOver):
            self.far.send(encode(Answered(asked.request)))
            return
        assert isinstance(asked, Want)
        answer = self.answers.pop(0)
        if answer is None:
            self.interrupt()
        else:
            self.far.send(encode(Answered(asked.request, data=answer)))

    def interrupt(self) -> None:
        self.words[INTERRUPT] = SEQ

    def take(self) -> None:
        while (packet := self.far.receive(wait=False)) is not None:
            self.packets.append(_decode(packet.data))

    def run(self, made: Any, *answers: tuple[int, int] | None, stream: int = 2) -> None:
        self.answers = list(answers)
        kind = LoadedKind(KindDefinition(1, "count", b"", 0, 0, stream=stream))
        try:
            self.yielder.run(RunRow(SEQ, b"t" * 14, 1, 1, 1, None, ()), kind, made)
        finally:
            self.line.flush_results()
            self.take()
        assert not self.answers

    def told(self) -> list[int | str]:
        """Return the items that were sent, by their indexes, and what was waited for."""
        found: list[int | str] = []
        for packet in self.packets:
            if isinstance(packet, Item):
                found.append(index_of(packet.value.id))
            elif isinstance(packet, Want):
                assert packet.reads is not None
                found.append(f"{packet.reads[0]} received, {packet.reads[1]} read")
        return found


@pytest.fixture
def bench() -> Iterator[Bench]:
    before, bench = current(), Bench()
    yield bench
    set_current(before)
    bench.line.close()
    bench.far.close()


def goes_on(number: int, more: int) -> Generator[int, None, None]:
    """Yield so many, and when interrupted so many more."""
    try:
        yield from range(number)
    except Interrupted:
        yield from range(more)


def ends(error: BaseException) -> Iterator[int]:
    yield 0
    raise error


def test_it_waits_for_its_reader_and_in_the_end_until_all_was_received(bench: Bench) -> None:
    bench.run(iter(range(3)), (2, 1), (3, 2), (3, 2))
    assert bench.told() == [
        0, 1, "0 received, 1 read", 2, "0 received, 2 read", "3 received, 0 read",
    ]  # fmt: skip


@pytest.mark.parametrize("error", [LookupError(), SystemExit(3), ActorExit(), KeyboardInterrupt()])
def test_whatever_it_raises_itself_is_its_end_when_all_was_received(
    bench: Bench, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        bench.run(ends(error), (1, 0))
    assert bench.told() == [0, "1 received, 0 read"]


def test_one_that_is_interrupted_in_its_wait_and_goes_on_yields_no_more_than_was_received(
    bench: Bench,
) -> None:
    # The second interrupt comes as it waits for that, and is raised where it yielded.
    with pytest.raises(Interrupted):
        bench.run(goes_on(9, 9), None, None, (1, 0))
    assert bench.told() == [
        0, 1, "0 received, 1 read", "1 received, 0 read", "1 received, 0 read", 2,
    ]  # fmt: skip


class Signalled:
    """`-Signalled()` has a signal come that Python sees at its next step, after a yield of that."""

    __neg__ = staticmethod(partial(ctypes.PyDLL(None)["raise"], int(signal.SIGUSR1)))


def test_a_value_that_is_yielded_as_an_interrupt_comes_is_sent_and_that_raised_behind_it(
    bench: Bench,
) -> None:
    interrupted = []

    def function() -> Iterator[object]:
        yield "before"
        bench.interrupt()
        try:
            yield -Signalled()  # type: ignore[operator]
        except Interrupted:
            interrupted.append(True)
        yield "behind"

    before = signal.signal(signal.SIGUSR1, bench.line.on_signal)
    try:
        bench.run(function(), (3, 0), stream=9)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert interrupted
    assert bench.told() == [0, 1, 2, "3 received, 0 read"]

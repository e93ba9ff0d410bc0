"""What workers print reaches the program's streams, and streams that block hold up nothing."""

import io
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from drumbeat.client import output
from drumbeat.client.output import Speaker
from drumbeat.protocol.futures import deliver, start_delivery
from drumbeat.protocol.messages import Notice, Output, OutputRow
from support.fake_session import eventually

HUNG_S = 5.0


class Blocking(io.StringIO):
    """A stream that takes nothing until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.called = threading.Event()
        self.taking = threading.Event()

    def write(self, text: str) -> int:
        self.called.set()
        self.taking.wait(HUNG_S)
        return super().write(text)


def printed(text: str) -> Output:
    return Output(b"client", [OutputRow("f", 1, "n", text.encode())])


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    stream = Blocking()
    yield stream
    stream.taking.set()


def test_words_are_said_in_order_and_the_last_before_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    speaker = Speaker()
    speaker.say(printed("one\nt"))
    speaker.say(printed("wo\nrest"))
    speaker.last_words()
    assert stream.getvalue() == "".join(f"(f pid=1 node=n) {w}\n" for w in ("one", "two", "rest"))
    thread = speaker._thread
    assert thread is not None
    thread.join(HUNG_S)
    assert not thread.is_alive()


def test_a_stream_that_blocks_holds_up_no_future_and_no_end(
    blocking: Blocking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", blocking)
    speaker = Speaker()
    speaker.say(printed("stuck\n"))
    assert blocking.called.wait(HUNG_S)
    delivered = threading.Event()
    start_delivery()
    deliver(delivered.set)
    assert delivered.wait(HUNG_S)
    begun_s = time.monotonic()
    speaker.last_words()
    assert time.monotonic() - begun_s < HUNG_S / 2


def test_what_nobody_takes_is_dropped_and_counted(
    blocking: Blocking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", blocking)
    monkeypatch.setattr(output, "WAITING_CHARACTERS_MAX", 100)
    speaker = Speaker()
    speaker.say(printed("a\n"))
    assert blocking.called.wait(HUNG_S)
    for _ in range(1000):
        speaker.say(printed("x" * 50 + "\n"))
    assert speaker.dropped == 999
    blocking.taking.set()
    assert eventually(lambda: speaker._left == speaker._done)
    speaker.say(printed("z\n"))
    speaker.last_words()
    lines = blocking.getvalue().splitlines()
    assert lines[0] == "(f pid=1 node=n) a"
    assert lines[-2] == "(drumbeat) … 999 lines were dropped here: nobody took them …"
    assert lines[-1] == "(f pid=1 node=n) z"


def test_a_full_pipe_is_waited_for_outside_of_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    filled = 0
    while True:
        try:
            filled += os.write(writing, bytes(4096))
        except BlockingIOError:
            break
    os.set_blocking(writing, True)
    with open(reading, "rb") as reader, open(writing, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "__stdout__", stream)
        monkeypatch.setattr(sys, "stdout", stream)
        speaker = Speaker()
        text = "".join(f"{number}\n" for number in range(2000))
        speaker.say(printed(text))
        stream.flush()  # would wait for the stream's lock, were it held
        reader.read(filled)
        expected = "".join(f"(f pid=1 node=n) {number}\n" for number in range(2000)).encode()
        assert reader.read(len(expected)) == expected
        speaker.last_words()


def test_a_handler_of_the_log_that_raises_does_not_end_the_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Raising(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise ZeroDivisionError

    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    handler = Raising()
    logging.getLogger("drumbeat").addHandler(handler)
    try:
        speaker = Speaker()
        speaker.say(Notice("no node"))
        speaker.say(printed("on\n"))
        speaker.last_words()
    finally:
        logging.getLogger("drumbeat").removeHandler(handler)
    assert stream.getvalue() == "(f pid=1 node=n) on\n"


def test_each_stream_of_a_worker_goes_to_the_same_stream_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown, errors = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr(sys, "stderr", errors)
    speaker = Speaker()
    rows = [
        OutputRow("f", 1, "n", b"half"),
        OutputRow("f", 1, "n", b"wrong\nrest", 0, 2),
        OutputRow("f", 1, "n", b" a line\n"),
    ]
    speaker.say(Output(b"client", rows))
    speaker.last_words()
    assert shown.getvalue() == "(f pid=1 node=n) half a line\n"
    assert errors.getvalue() == "(f pid=1 node=n) wrong\n(f pid=1 node=n) rest\n"

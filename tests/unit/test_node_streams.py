"""The standard streams of a worker know what a task has left unfinished."""

import os
from collections.abc import Iterator

import pytest
from drumbeat.node.streams import Stream


@pytest.fixture
def pair() -> Iterator[tuple[Stream, int]]:
    reading, writing = os.pipe()
    with Stream(open(writing, "wb"), encoding="utf-8", line_buffering=True) as stream:
        yield stream, reading
    os.close(reading)


def test_a_line_that_a_task_has_begun_is_ended_with_the_task(pair: tuple[Stream, int]) -> None:
    stream, reading = pair
    print("one", "two", file=stream)
    print("three", end="", file=stream)
    assert stream.written
    stream.end_task()
    assert os.read(reading, 100) == b"one two\nthree\n"
    assert not stream.written


def test_a_task_that_ends_its_lines_has_nothing_added(pair: tuple[Stream, int]) -> None:
    stream, reading = pair
    stream.writelines(["a\n", "b\n"])
    stream.end_task()
    assert os.read(reading, 100) == b"a\nb\n"


def test_a_stream_that_a_task_has_closed_is_left_alone(pair: tuple[Stream, int]) -> None:
    stream, _ = pair
    stream.write("half")
    stream.close()
    stream.end_task()
    assert not stream.begun

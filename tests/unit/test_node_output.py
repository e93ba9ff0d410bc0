"""What a worker printed, as the node reads it."""

import os
from collections.abc import Iterator

import pytest
from drumbeat.node.output import Output


@pytest.fixture(params=["memfd", "file"])
def output(request: pytest.FixtureRequest) -> Iterator[Output]:
    one = Output(request.param, 100_000)
    yield one
    one.close()


def test_text_is_read_once(output: Output) -> None:
    assert output.read(whole=True) == []
    os.write(output.fd, b"one\n")
    assert output.read(whole=True) == [(b"one\n", 0)]
    assert output.read(whole=True) == []


def test_a_line_is_forwarded_when_it_is_complete_or_when_all_is_asked_for(output: Output) -> None:
    os.write(output.fd, b"one\ntw")
    assert output.read(whole=False) == [(b"one\n", 0)]
    assert output.read(whole=False) == []
    os.write(output.fd, b"o\nthree")
    assert output.read(whole=False) == [(b"two\n", 0)]
    assert output.read(whole=True) == [(b"three", 0)]


def test_a_line_without_end_is_forwarded_when_it_is_long(output: Output) -> None:
    os.write(output.fd, b"x" * 70_000)
    assert b"".join(text for text, _ in output.read(whole=False)) == b"x" * 70_000


def test_long_text_comes_in_pieces_that_end_with_lines(output: Output) -> None:
    text = b"a line of text\n" * 6000
    os.write(output.fd, text)
    pieces = output.read(whole=True)
    assert b"".join(piece for piece, _ in pieces) == text
    assert all(len(piece) <= 64 << 10 and piece.endswith(b"\n") for piece, _ in pieces)


def test_above_the_bound_the_front_is_cut_and_counted(output: Output) -> None:
    os.write(output.fd, b"x" * 150_000 + b"the end\n")
    pieces = output.read(whole=True)
    assert sum(dropped for _, dropped in pieces) == 50_008
    assert sum(len(piece) for piece, _ in pieces) == 100_000
    assert pieces[-1][0].endswith(b"the end\n")


def test_the_memory_of_what_was_read_is_given_back(output: Output) -> None:
    total = 0
    for _ in range(100):
        os.write(output.fd, b"y" * 99_999 + b"\n")
        total += sum(len(piece) for piece, _ in output.read(whole=True))
    assert total == 10_000_000
    assert os.fstat(output.fd).st_blocks * 512 < 2_500_000


def test_the_tail_is_the_last_twenty_lines_read_or_not(output: Output) -> None:
    os.write(output.fd, b"".join(b"line %d\n" % number for number in range(100)))
    output.read(whole=True)
    os.write(output.fd, b"unread\n")
    assert output.tail().splitlines() == [f"line {n}" for n in range(81, 100)] + ["unread"]


def test_the_tail_of_an_interpreter_that_died_says_where_in_the_users_code(output: Output) -> None:
    stack = [b'  File "/home/u/tool.py", line %d in blur\n' % number for number in range(20)]
    own = b'  File "/site/drumbeat/node/worker.py", line 7 in main\n'
    modules = b"\nExtension modules: " + b"numpy, " * 1000 + b"\n"
    head = b"Fatal Python error: Aborted\n\nStack (most recent call first):\n"
    os.write(output.fd, head + b"".join(stack) + own + modules)
    tail = output.tail().splitlines()
    assert tail[0] == "Fatal Python error: Aborted"
    assert tail[3:] == [line.decode().rstrip() for line in stack[:12]] + ["  ..."]


def test_a_task_that_empties_its_output_loses_what_was_unread_and_no_more(output: Output) -> None:
    os.write(output.fd, b"first\n")
    output.read(whole=True)
    os.ftruncate(output.fd, 0)
    os.write(output.fd, b"new\n")
    assert output.read(whole=True) == [(b"new\n", 0)]


def test_the_tail_holds_nothing_from_before_an_offset_unless_the_file_was_emptied(
    output: Output,
) -> None:
    os.write(output.fd, b"of another task\n")
    since = os.fstat(output.fd).st_size
    os.write(output.fd, b"mine\n")
    assert output.tail(since) == "mine"
    os.ftruncate(output.fd, 0)
    os.write(output.fd, b"new\n")
    assert output.tail(since) == "new"

"""A worker's witness: where all threads but its own are, as `faulthandler` writes it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from drumbeat.node import witness
from drumbeat.protocol.stack_text import in_a_line, read


@contextmanager
def threads_at(count: int, depth: int = 1) -> Iterator[None]:
    """So many threads, each waiting at the end of so many calls."""
    leave, there = threading.Event(), threading.Barrier(count + 1)

    def down(steps: int) -> None:
        if steps:
            down(steps - 1)
        else:
            there.wait()
            leave.wait()

    threads = [threading.Thread(target=down, args=(depth,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    there.wait()
    try:
        yield
    finally:
        leave.set()
        for thread in threads:
            thread.join()


def told_by_another_thread(bytes_max: int) -> str:
    found = []
    looker = threading.Thread(target=lambda: found.append(witness.told(bytes_max)))
    looker.start()
    looker.join()
    return found[0].decode("ascii")


def test_all_threads_but_the_one_that_looks_are_told_and_the_main_one_last() -> None:
    with threads_at(2):
        text = told_by_another_thread(1 << 20)
    main, *others = read(text)
    assert main.is_main
    assert "told_by_another_thread" in [frame.function for frame in main.frames]
    assert sum("down" in [at.function for at in other.frames] for other in others) == 2
    assert "_text" not in text, "where the one that looks is says nothing"


def test_the_main_thread_is_in_a_line_what_it_is_for_the_handler_in_c() -> None:
    assert " told_by_another_thread < " in in_a_line(told_by_another_thread(1 << 20))


def test_what_does_not_fit_is_left_out_but_not_the_main_thread() -> None:
    with threads_at(5, depth=20):
        everything = told_by_another_thread(1 << 20)
        part = told_by_another_thread(len(everything) - 2000)
    assert len(part) <= len(everything) - 2000
    assert 1 < len(read(part)) < len(read(everything))
    assert read(part)[0].is_main
    assert "told_by_another_thread" in part


def test_no_thread_fills_the_file_with_its_frames() -> None:
    with threads_at(1, depth=300):
        text = told_by_another_thread(1 << 20)
    deep, rest = text.split("\n  ...\n")
    assert deep.count("  File ") == 100
    assert "in down\n" not in rest

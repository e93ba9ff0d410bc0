"""The pulse page: words in memory that forked processes share."""

import os

import pytest
from drumbeat.node.kernel import memory_file
from drumbeat.node.page import (
    INTERRUPT,
    PHASE,
    REVOKED,
    RUNNING,
    RUNNING_CODE,
    SLOTS,
    STARTED,
    PulsePage,
    Sample,
)  # fmt: skip


def test_a_new_page_is_all_zero() -> None:
    page = PulsePage()
    assert page.sample(1) == Sample(0, 0, 0)
    assert page.beats() == 0


def test_what_is_written_into_a_slot_is_seen_in_a_sample_of_that_slot_only() -> None:
    page = PulsePage()
    words = page.slot(SLOTS - 1)
    words[STARTED], words[RUNNING], words[PHASE] = 7, 6, RUNNING_CODE
    assert page.sample(SLOTS - 1) == Sample(7, 6, RUNNING_CODE)
    assert page.sample(SLOTS - 2) == Sample(0, 0, 0)


def test_a_word_holds_64_bits() -> None:
    words = PulsePage().slot(3)
    words[STARTED] = 2**64 - 1
    assert words[STARTED] == 2**64 - 1


def test_a_cleared_slot_says_nothing_of_the_worker_before() -> None:
    page = PulsePage()
    words = page.slot(2)
    for index in (STARTED, RUNNING, REVOKED, INTERRUPT):
        words[index] = 9
    page.clear(2)
    assert list(words) == [0] * len(words)


def test_a_beat_is_counted_and_after_the_last_number_comes_zero() -> None:
    page = PulsePage()
    page.beat()
    page.beat()
    assert page.beats() == 2
    page.slot(0)[0] = 2**64 - 1
    page.beat()
    assert page.beats() == 0


@pytest.mark.parametrize("number", [-1, SLOTS])
def test_a_slot_that_there_is_not_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="has slots 0 to 4095"):
        PulsePage().slot(number)


def test_a_forked_process_writes_into_the_same_page() -> None:
    page = PulsePage()
    pid = os.fork()
    if not pid:
        page.slot(5)[STARTED] = 11
        os._exit(0)
    os.waitpid(pid, 0)
    assert page.sample(5).started == 11


@pytest.mark.parametrize("kind", ["auto", "file"])
def test_a_page_in_a_file_is_shared_with_whoever_has_its_descriptor(kind: str) -> None:
    file = memory_file(kind)
    try:
        keeper = PulsePage(file)
        keeper.slot(3)[STARTED] = 7
        worker = PulsePage(file)
    finally:
        os.close(file)
    assert worker.sample(3).started == 7
    worker.slot(3)[RUNNING] = 8
    assert keeper.sample(3).running == 8

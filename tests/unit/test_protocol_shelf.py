"""Payloads at hand of one that moves them: given, coming, and lent as long as others keep them."""

import gc

import pytest
from drumbeat.protocol.payload_files import Filing
from drumbeat.protocol.segments import are_to_be_had
from drumbeat.protocol.shelf import Shelf

needs_files = pytest.mark.skipif(not are_to_be_had(), reason="no memory files here")


def _filed() -> bytes:
    payload = Filing(0)(b"stream", [memoryview(bytes(5_000))])
    assert payload is not None
    return bytes(payload)


def _come(shelf: Shelf, key: bytes, payload: bytes) -> tuple[bytes, bool]:
    for at in range(0, len(payload), 1_000):
        shelf.write(key, len(payload), memoryview(payload)[at : at + 1_000])
    return shelf.finish(key)


def test_what_is_given_is_at_hand_until_it_is_dropped() -> None:
    shelf = Shelf(lambda: None)
    shelf.give(b"k", b"payload")
    assert bytes(shelf.read(b"k", 3, 2)) == b"lo"
    shelf.drop(b"k")
    with pytest.raises(KeyError):
        shelf.read(b"k", 0, 1)


def test_what_comes_can_be_read_as_far_as_it_has() -> None:
    shelf = Shelf(lambda: None)
    shelf.write(b"k", 10, memoryview(b"01234"))
    assert bytes(shelf.read(b"k", 1, 3)) == b"123"
    shelf.clear()


@needs_files
def test_what_has_come_is_at_hand_as_long_as_somebody_keeps_it() -> None:
    woken: list[bool] = []
    shelf = Shelf(lambda: woken.append(True))
    payload = _filed()
    kept, stays = _come(shelf, b"k", payload)
    assert (bytes(kept), stays) == (payload, True)
    assert bytes(shelf.read(b"k", 0, 9)) == payload[:9]
    again, _ = shelf.finish(b"k")
    assert again is kept
    del kept, again
    gc.collect()
    assert woken
    assert shelf.let_go() == [b"k"]
    assert not shelf.has_let_go
    with pytest.raises(OSError, match="just been let go"):
        shelf.finish(b"k")


@needs_files
def test_what_came_again_meanwhile_is_not_let_go_for_what_came_before() -> None:
    shelf = Shelf(lambda: None)
    first, _ = _come(shelf, b"k", _filed())
    shelf.drop(b"k")
    second, _ = _come(shelf, b"k", _filed())
    del first
    gc.collect()
    assert shelf.let_go() == []
    assert len(second) == len(_filed())


def test_what_is_no_file_is_not_lent() -> None:
    shelf = Shelf(lambda: None)
    payload, stays = _come(shelf, b"k", b"p" * 3_000)
    assert (payload, stays) == (b"p" * 3_000, False)


def test_an_empty_one_is_there_at_once() -> None:
    assert Shelf(lambda: None).finish(b"k") == (b"", False)

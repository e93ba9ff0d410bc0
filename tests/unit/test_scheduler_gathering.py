"""Deeds of detached actors are written down when all that they are made of is here."""

from collections.abc import Callable

import pytest
from drumbeat.protocol.codec import Reader, encode
from drumbeat.protocol.frames import Offered, Source
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.messages import Environment, Options, ValueRow
from drumbeat.protocol.remotes import Remote
from drumbeat.protocol.settings import Settings
from drumbeat.protocol.traffic import Traffic
from drumbeat.scheduler.deeds import DEED_VERSION, Deed
from drumbeat.scheduler.gathering import Gathering

ID = b"actor-number-1"
DEP = b"value-number-1"


class Desk:
    """Has bytes come when a test says so, and takes what is to be written."""

    def __init__(self) -> None:
        self.asked: list[tuple[Remote, Callable[[bytes], None]]] = []
        self.kept: list[Deed] = []
        self.gathering = Gathering(
            lambda remote, then: self.asked.append((remote, then)), self.kept.append
        )


def _remote() -> Remote:
    peer = PeerId(b"client")
    holder = Traffic(Reader.to_scheduler(), Settings(), peer=peer, source=Source(peer, "", b""))
    return Remote(holder, Offered(DEP, 1, 20, DEP))


def _deed(code: object, args: object, *values: object) -> Deed:
    rows = tuple(ValueRow(DEP, 0, value) for value in values)  # type: ignore[arg-type]
    return Deed(
        DEED_VERSION, ID, "Work", Options(), bytes(16), code, args,  # type: ignore[arg-type]
        (DEP,) * len(rows), (), rows, Environment(),
    )  # fmt: skip


def test_one_that_is_whole_is_written_at_once() -> None:
    desk = Desk()
    desk.gathering.keep(deed := _deed(b"code", None, b"value"))
    assert desk.kept == [deed]
    assert not desk.asked


def test_one_waits_for_what_lies_elsewhere_which_cannot_be_written() -> None:
    desk = Desk()
    desk.gathering.keep(parts := _deed(b"code", _remote(), b"small", _remote()))
    assert not desk.kept
    with pytest.raises(TypeError):
        encode(parts)
    for number, (_, then) in enumerate(desk.asked):
        then(b"%d" % number)
    [deed] = desk.kept
    assert deed == _deed(b"code", b"0", b"small", b"1")
    assert encode(deed)


def test_one_that_ended_meanwhile_is_not_written() -> None:
    desk = Desk()
    desk.gathering.keep(_deed(b"code", _remote()))
    desk.gathering.withdraw([ID])
    desk.gathering.keep(_deed(b"code", _remote()))
    for number, (_, then) in enumerate(desk.asked):
        then(b"%d" % number)
    assert [deed.args for deed in desk.kept] == [b"1"]

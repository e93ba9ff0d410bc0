"""Connections that say anything but what they should, and what is to come of it.

Never judges. Each act adds to `expected` what the scheduler's status has to show of it: what was
sent is either taken, or refused, or dropped, and each of these is counted.
"""

import contextlib
import os
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, Final, get_args

import msgspec
import zmq
from drumbeat.protocol import codec
from drumbeat.protocol.errors import RemoteProtocolError
from drumbeat.protocol.frames import Ack, Batch, Hello, Refused, Reset, Welcome
from drumbeat.protocol.ids import IdFactory, PeerId
from drumbeat.protocol.messages import (
    Cancel,
    Define,
    Enter,
    Environment,
    Fetch,
    KindRow,
    Leave,
    Options,
    Query,
    Release,
    Stock,
    Submit,
    TaskRow,
    ToScheduler,
    ValueRow,
    Values,
)
from drumbeat.protocol.recovery import Holding, Registered
from support.fuzzing import Words, damaged

PYTHON: Final = f"{sys.version_info[0]}.{sys.version_info[1]}"
#: greeting of ZMTP 3.0 without security
GREETING: Final = (
    b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
)
#: a READY command of a DEALER
READY: Final = b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x06DEALER"
PEER: Final = PeerId(b"babble")
SAID_BY_CLIENTS: Final = (Submit, Cancel, Values, Fetch, Release, Query, Holding, Registered, Stock)
SAID_BY_ANYBODY: Final = tuple(kind for kind in get_args(ToScheduler) if kind is not Leave)
_KINDS: Final = [KindRow(n, b"h" * 16, "f", Options(node="nowhere"), b"code") for n in range(3)]
INTRODUCTION: Final = [
    codec.encode(Enter("babble", Environment())), codec.encode(Define(PEER, _KINDS))
]  # fmt: skip
#: messages of one batch: enough that one connection says much
BATCH_MESSAGES: Final = 16
POOL: Final = 4_000
WAIT_S: Final = 10.0


class Strangers:
    """See the module.

    Args:
        path: the scheduler's socket.
        rng: chance.
    """

    def __init__(self, path: str, rng: Random) -> None:
        self.path = path
        self.rng = rng
        self.context = zmq.Context()
        #: what the scheduler's counters have to show
        self.expected: Counter[str] = Counter()
        #: what was said in all: messages, frames and raw writes
        self.said: Counter[str] = Counter()
        self.half_open: list[socket.socket] = []
        self.half_open_max = 20
        #: what has not been done yet: a short run, too, does each thing once
        self._undone: list[Callable[[], None]] | None = None
        self.pool = self._messages()

    def _messages(self) -> list[tuple[bytes, bool]]:
        """Return encoded messages that may stand in a batch, and whether each is understood."""
        rng = self.rng
        make = IdFactory(PEER)
        own: list[bytes] = [make() for _ in range(40)]
        ids = [PEER, *own, own[0] + b"\0\1", own[1] + b"\0", b"h" * 16, b""]
        fitting, any_ = Words(rng, ids, (0, 1, 2)), Words(rng, [*ids, b"nobody"], (0, 1, 2, 3))
        made: list[tuple[bytes, bool]] = []
        while len(made) < POOL:
            if rng.random() < 0.996:
                message = _fit(fitting.message(*SAID_BY_CLIENTS), own, rng)
            else:
                message = any_.message(*SAID_BY_ANYBODY)
            encoded = codec.encode(message)
            if rng.random() < 0.4:
                encoded = damaged(rng, encoded)
                if _understood(encoded) and rng.random() < 0.95:
                    continue  # most of what is understood and damaged ends its peer
            if self._is_one(encoded):
                made.append((encoded, _understood(encoded)))
        return made

    @staticmethod
    def _is_one(encoded: bytes) -> bool:
        """Whether it is one MessagePack value, so that its neighbours in a batch are as well."""
        try:
            plain = msgspec.msgpack.decode(encoded)
            codec.decode_frame(codec.encode_batch(1, 0, [encoded, encoded]))
        except (ValueError, RecursionError, RemoteProtocolError):
            return False
        return not (isinstance(plain, list) and plain[:1] == ["part"])

    # ---------------------------------------------------------------------------------- the acts

    def act(self) -> None:
        """Do one thing that nobody should: each once, and from then on by chance."""
        acts = self.acts()
        if self._undone is None:
            self._undone = [one for one, _ in acts]
        if self._undone:
            self._undone.pop()()
            return
        (chosen,) = self.rng.choices([one for one, _ in acts], [weight for _, weight in acts])
        chosen()

    def acts(self) -> list[tuple[Callable[[], None], int]]:
        """Return what there is to do, and how often one does it compared with the others."""
        return [
            (self.raw_bytes, 10), (self.greeting_then_garbage, 10), (self.stay_half_open, 4),
            (self.frames_of_garbage, 20), (self.parts, 6), (self.other_versions, 6),
            (self.too_large, 1), (self.a_client_that_babbles, 43),
        ]  # fmt: skip

    def wild(self) -> None:
        """Random bytes: they may be frames of an old version of ZeroMQ, so nothing is expected."""
        with self._raw() as raw:
            start = GREETING[: self.rng.choice((0, 0, 1, 9, 10, 11, 12, 30, 64))]
            self._write(raw, start + self.rng.randbytes(self.rng.randint(0, 300)))

    def raw_bytes(self) -> None:
        """A greeting of this version that goes wrong: never a frame."""
        with self._raw() as raw:
            self._write(raw, GREETING[:11] + self.rng.randbytes(self.rng.randint(0, 300)))

    def greeting_then_garbage(self) -> None:
        rng = self.rng
        with self._raw() as raw:
            start = rng.choice((12, 64))
            self._write(raw, GREETING[:start])
            if rng.random() < 0.5:
                self._write(raw, GREETING[start:])
                self._write(raw, READY)
                # Longer than may be, or not sent to its end: it never is a frame.
                flags, length = rng.choice(((2, 2**31), (2, 2**63), (6, 2**63), (2, 1000)))
            else:
                flags, length = rng.choice((0, 1, 2, 6, 255)), rng.choice((0, 5, 2**31))
            self._write(raw, struct.pack(">BQ", flags, length) + rng.randbytes(rng.randint(0, 60)))

    def stay_half_open(self) -> None:
        raw = self._raw()
        self._write(raw, GREETING[: self.rng.choice((0, 1, 10, 64))])
        self.half_open.append(raw)
        if len(self.half_open) > self.half_open_max:
            self.half_open.pop(0).close()

    def frames_of_garbage(self) -> None:
        """A connection that never says Hello: everything is refused or answered by Reset."""
        rng = self.rng
        hello = codec.encode(self._hello(rng.randbytes(6)))
        with self._dealer() as dealer:
            for _ in range(rng.randint(1, 20)):
                frame = rng.choice(
                    [rng.randbytes(rng.randint(0, 60)), rng.choice(self.pool)[0],
                     damaged(rng, codec.encode_batch(1, 0, [b"\xc0"])), codec.encode_ack(3), hello]
                )  # fmt: skip
                try:
                    read = codec.decode_frame(frame)
                except RemoteProtocolError:
                    self.expected["frames_refused"] += 1
                else:
                    if isinstance(read, Hello):
                        continue  # it might be taken
                    self.expected["strangers_reset"] += 1
                self.said["frames"] += 1
                dealer.send(frame)
            self._sync(dealer)

    def parts(self) -> None:
        with self._dealer() as dealer:
            for _ in range(self.rng.randint(1, 5)):
                count = self.rng.choice((2, 3, 5, 100))
                dealer.send_multipart([self.rng.randbytes(5) for _ in range(count)])
                self.expected["junk_dropped"] += 1
                self.said["frames"] += 1
            self._sync(dealer)

    def other_versions(self) -> None:
        rng = self.rng
        with self._dealer() as dealer:
            hello = self._hello(rng.randbytes(6))
            changes: list[dict[str, Any]] = [
                {"protocol": 0}, {"protocol": 2}, {"protocol": 2**63}, {"role": "admin"},
                {"channel": 2}, {"channel": -1}, {"role": "\x1b[2J"},
            ]  # fmt: skip
            dealer.send(codec.encode(msgspec.structs.replace(hello, **rng.choice(changes))))
            self.expected["hellos_refused"] += 1
            self.said["frames"] += 1
            assert isinstance(self._read(dealer), Refused)

    def too_large(self) -> None:
        """A frame longer than any may be closes its connection, and no other."""
        with self._dealer() as dealer:
            dealer.send(bytes(2 << 20))
            self.said["frames"] += 1
            time.sleep(0.01)

    def a_client_that_babbles(self) -> None:
        """A registered client whose messages fit or not, till it is dropped or has said all."""
        rng = self.rng
        with self._dealer() as dealer:
            dealer.send(codec.encode(self._hello(PEER)))
            assert isinstance(self._read(dealer), Welcome)
            batches = [rng.choices(self.pool, k=BATCH_MESSAGES) for _ in range(rng.randint(1, 60))]
            dealer.send(codec.encode_batch(1, 0, [*INTRODUCTION]))
            for number, batch in enumerate(batches, 2):
                dealer.send(codec.encode_batch(number, 0, [encoded for encoded, _ in batch]))
            self.said["frames"] += 1 + len(batches)
            self.said["messages"] += len(batches) * BATCH_MESSAGES
            resets = self._resets_of(dealer, len(batches) + 1)
            if resets < 0:
                resets = 0  # the next one that is called so takes its place
            else:
                self.said["clients dropped"] += 1
            self.said["messages not read"] += resets * BATCH_MESSAGES
            self.expected["strangers_reset"] += resets
            taken = batches[: len(batches) - resets]
            refused = sum(not understood for batch in taken for _, understood in batch)
            self.expected["messages_rejected"] += refused

    # ------------------------------------------------------------------------------------- tools

    def _resets_of(self, dealer: Any, last: int) -> int:
        """Return how many batches were answered by Reset, since the client was dropped before.

        -1: it was not dropped, all up to the last were taken.
        """
        resets = 0
        gone = False
        while True:
            read = self._read(dealer)
            if isinstance(read, Refused) and "sync speaks" in read.reason:
                return resets
            resets += isinstance(read, Reset)
            if isinstance(read, Refused | Reset) and not gone:
                gone = True
                self._say_sync(dealer)
            elif isinstance(read, Ack | Batch) and read.ack == last:
                return -1

    def _say_sync(self, dealer: Any) -> None:
        """Say what is refused: when that is answered, all that was said before has been read."""
        marker = self._hello(self.rng.randbytes(6), name="sync")
        dealer.send(codec.encode(msgspec.structs.replace(marker, protocol=9)))
        self.expected["hellos_refused"] += 1
        self.said["frames"] += 1

    def _sync(self, dealer: Any) -> None:
        """Wait until all that was said has been read."""
        self._say_sync(dealer)
        while True:
            read = self._read(dealer)
            if isinstance(read, Refused) and "sync speaks" in read.reason:
                return

    def _hello(self, peer: bytes, name: str = "stranger") -> Hello:
        return Hello(1, "client", peer, 0, 0, 0, PYTHON, name)

    def _read(self, dealer: Any) -> Any:
        if not dealer.poll(int(WAIT_S * 1000)):
            raise TimeoutError(f"the scheduler has not answered in {WAIT_S} s")
        return codec.decode_frame(dealer.recv())

    def _dealer(self) -> Any:
        dealer = self.context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(f"ipc://{self.path}")
        return dealer

    def _raw(self) -> socket.socket:
        raw = socket.socket(socket.AF_UNIX)
        raw.connect(self.path)  # waits while too many others do
        raw.settimeout(WAIT_S)
        self.said["raw connections"] += 1
        return raw

    def _write(self, raw: socket.socket, data: bytes) -> None:
        with contextlib.suppress(OSError):  # it has hung up, as it may
            raw.sendall(data)

    def close(self) -> None:
        """Hang up."""
        for raw in self.half_open:
            raw.close()
        self.half_open.clear()
        self.context.destroy(0)


def _fit(message: Any, own: list[bytes], rng: Random) -> Any:
    """Return the message with right what would end its peer if it were wrong."""
    if isinstance(message, Submit | Define):
        message.client = PEER
    for row in getattr(message, "rows", []):
        if isinstance(row, TaskRow):
            row.id = rng.choice(own)
        elif isinstance(row, KindRow):
            # Nothing of it is to run: what a client may have is not what is tried here.
            row.options = msgspec.structs.replace(row.options, node="nowhere")
        elif isinstance(row, ValueRow):
            row.id = rng.choice(own)
    if isinstance(message, Submit):
        message.parent = b""
        message.attempts = []
    return message


def _understood(encoded: bytes) -> bool:
    try:
        codec.decode_to_scheduler(encoded)
    except RemoteProtocolError:
        return False
    return True


def memory_and_files(pid: int) -> tuple[int, int]:
    """Return a process's resident bytes, and how many descriptors it has open."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{pid}/fd"))

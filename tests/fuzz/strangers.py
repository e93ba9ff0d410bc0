"""Connections to a live scheduler that say anything but what they should, and what to expect.

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
from random import Random
from typing import Any, Final, get_args

import msgspec
import zmq
from drumbeat.protocol import codec
from drumbeat.protocol.errors import RemoteProtocolError
from drumbeat.protocol.frames import Hello, Refused, Reset, Welcome
from drumbeat.protocol.messages import Define, Enter, Environment, Leave, ToScheduler
from support.fuzzing import Words, damaged

PYTHON: Final = f"{sys.version_info[0]}.{sys.version_info[1]}"
#: greeting of ZMTP 3.0 without security
GREETING: Final = (
    b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
)
#: a READY command of a DEALER
READY: Final = b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x06DEALER"
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
        self.pool = self._messages()

    def _messages(self) -> list[tuple[bytes, bool]]:
        """Return encoded messages that may stand in a batch, and whether each is understood."""
        rng, kinds = self.rng, [kind for kind in get_args(ToScheduler) if kind is not Leave]
        ids = [b"nobody", b"a" * 14, b"b" * 14, b"c" * 16, b"h" * 16, b""]
        words = Words(rng, ids, (0, 1, 2))
        made: list[tuple[bytes, bool]] = []
        while len(made) < POOL:
            message = words.message(*kinds)
            if isinstance(message, Define):
                for row in message.rows:
                    # Nothing of it is to run: what a client may have is not what is tried here.
                    row.options = msgspec.structs.replace(row.options, node="nowhere")
            encoded = codec.encode(message)
            if rng.random() < 0.5:
                encoded = damaged(rng, encoded)
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
        """Do one thing that nobody should."""
        acts = (
            (self.raw_bytes, 10), (self.greeting_then_garbage, 10), (self.stay_half_open, 4),
            (self.frames_of_garbage, 20), (self.parts, 6), (self.other_versions, 6),
            (self.too_large, 1), (self.a_client_that_babbles, 43),
        )  # fmt: skip
        (chosen,) = self.rng.choices([one for one, _ in acts], [weight for _, weight in acts])
        chosen()

    def raw_bytes(self) -> None:
        with self._raw() as raw:
            self._write(raw, self.rng.randbytes(self.rng.randint(0, 300)))

    def greeting_then_garbage(self) -> None:
        rng = self.rng
        with self._raw() as raw:
            self._write(raw, GREETING[: rng.choice((10, 12, 64, 64, 64))])
            if rng.random() < 0.5:
                self._write(raw, READY)
            length = rng.choice((0, 5, 2**31, 2**63))
            head = struct.pack(">BQ", rng.choice((0, 1, 2, 6, 255)), length)
            self._write(raw, head + rng.randbytes(rng.randint(0, 60)))

    def stay_half_open(self) -> None:
        raw = self._raw()
        self._write(raw, GREETING[: self.rng.choice((0, 1, 10, 64))])
        self.half_open.append(raw)
        if len(self.half_open) > 20:
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
            self._close_after_answers(dealer, self.said["frames"])

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
        """A registered client whose messages fit or not: till it is dropped, or it leaves."""
        rng = self.rng
        with self._dealer() as dealer:
            dealer.send(codec.encode(self._hello(rng.randbytes(6))))
            assert isinstance(self._read(dealer), Welcome)
            enter = codec.encode(Enter("babble", Environment()))
            batches = [rng.choices(self.pool, k=BATCH_MESSAGES) for _ in range(rng.randint(1, 30))]
            dealer.send(codec.encode_batch(1, 0, [enter]))
            for number, batch in enumerate(batches, 2):
                dealer.send(codec.encode_batch(number, 0, [encoded for encoded, _ in batch]))
            last = len(batches) + 2
            dealer.send(codec.encode_batch(last, 0, [codec.encode(Leave())]))
            self.said["messages"] += 2 + len(batches) * BATCH_MESSAGES
            resets = self._read_to_the_end(dealer, last)
            self.expected["strangers_reset"] += resets
            taken = batches[: len(batches) + 1 - resets] if resets else batches
            refused = sum(not understood for batch in taken for _, understood in batch)
            self.expected["messages_rejected"] += refused

    # ------------------------------------------------------------------------------------- tools

    def _read_to_the_end(self, dealer: Any, last: int) -> int:
        """Read until all that was sent is acknowledged, or reset; return how much was reset."""
        resets = acked = 0
        refused = False
        # One more frame, which a link's end answers as well: by Reset, or by an acknowledgement.
        dealer.send(codec.encode_ack(0, 2**40))
        while True:
            read = self._read(dealer)
            if isinstance(read, Reset):
                resets += 1
                self_ends = acked + resets
                if refused and self_ends >= last + 1:
                    return resets
            elif isinstance(read, Refused):
                refused = True
            elif hasattr(read, "ack"):
                acked = max(acked, read.ack)
        raise AssertionError("unreachable")

    def _close_after_answers(self, dealer: Any, _: int) -> None:
        self._sync(dealer)

    def _sync(self, dealer: Any) -> None:
        """Say what is answered, and wait for that: all before it has been read then."""
        marker = self._hello(self.rng.randbytes(6), name="sync")
        dealer.send(codec.encode(msgspec.structs.replace(marker, protocol=9)))
        self.expected["hellos_refused"] += 1
        while True:
            read = self._read(dealer)
            if isinstance(read, Refused) and "sync speaks protocol 9" in read.reason:
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
        raw.settimeout(WAIT_S)
        raw.connect(self.path)
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

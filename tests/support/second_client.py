"""A client in another's hand: pyzmq and msgpack, written from docs/protocol.md alone.

Never imports drumbeat: that it works shows that the wire is plain MessagePack and that the page
suffices. It blocks, knows one thing at a time, and keeps no values for others.
"""

import os
import pickle
import random
import re
import sys
import time
from base64 import urlsafe_b64decode
from collections import deque
from hashlib import blake2b
from typing import Any

import msgpack
import zmq
from zmq.utils import z85

VERSION = 1
FRAME_BYTES_MAX = 1 << 20
INLINE_BYTES_MAX = 64 << 10
CHUNK_BYTES = 512 << 10
WINDOW_BATCHES_MAX = 64
WINDOW_BYTES_MAX = 8 << 20
CONTROL, BULK = 0, 1
#: whose pickles this one reads and writes: it has to be that of all others
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"

Row = list[Any]


def loads(payload: bytes) -> Any:
    """Return the value of a payload, which may have its buffers apart."""
    if payload[:3] != b"\xc1F1":
        return pickle.loads(payload)
    count = int.from_bytes(payload[3:7], "little")
    sizes = [int.from_bytes(payload[7 + 8 * i : 15 + 8 * i], "little") >> 1 for i in range(count)]
    end = 7 + 8 * count
    buffers = []
    for size in sizes:
        begin = (end + 63) // 64 * 64
        end = begin + size
        buffers.append(payload[begin:end])
    return pickle.loads(buffers[0], buffers=buffers[1:])


class Refused(Exception):  # noqa: N818  # it is what the protocol calls it
    """The scheduler will not have us."""


class Link:
    """One channel: a connection, and the numbers of the link life it serves."""

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.socket: zmq.Socket[bytes] | None = None
        self.up = False
        self.dial_at_s = 0.0
        self.reset()

    def reset(self) -> None:
        self.sent = self.acked = self.received = 0
        self.queue: deque[bytes] = deque()
        self.unacked: deque[tuple[int, bytes]] = deque()

    def window_is_open(self) -> bool:
        used = sum(len(frame) for _, frame in self.unacked)
        return len(self.unacked) < WINDOW_BATCHES_MAX and used < WINDOW_BYTES_MAX


def read_address(address: str) -> tuple[str, tuple[bytes, bytes]]:
    """Return endpoint and keys of a drumbeat:// address of a client."""
    found = re.fullmatch(r"drumbeat://client:([\w-]{43})@(.+:\d+)/([\w-]{43})", address)
    if found is None:
        raise ValueError("no address of a client")
    secret, where, server = found.groups()
    secret_key, server_key = (urlsafe_b64decode(text + "=") for text in (secret, server))
    return f"tcp://{where}", (server_key, secret_key)


class SecondClient:
    """Connects on creation; `pump` moves everything that can be moved."""

    def __init__(
        self,
        endpoint: str,
        name: str = "second",
        timeout_s: float = 10.0,
        keys: tuple[bytes, bytes] | None = None,
    ) -> None:
        self.endpoint = endpoint
        #: over TCP: the scheduler's public key and one's own secret key, 32 bytes each
        self.keys = keys
        self.name = name
        self.peer = os.urandom(6)
        self.epoch = self.life = 0
        self.counter = self.kinds = self.requests = 0
        self.context = zmq.Context()
        self.links = {CONTROL: Link(CONTROL), BULK: Link(BULK)}
        self.results: dict[bytes, Row] = {}
        self.blobs: dict[bytes, bytes] = {}
        self.pieces: dict[bytes, list[bytes]] = {}
        self.parts: list[bytes] = []
        self.answers: dict[int, Any] = {}
        self.seen: list[str] = []
        self.lives = 0
        try:
            self.wait_for(lambda: all(link.up for link in self.links.values()), timeout_s)
        except (Refused, TimeoutError):
            self.hang_up()
            self.context.term()
            raise

    # ------------------------------------------------------------------------ what one can do

    def define(self, payload: bytes, name: str, **options: Any) -> int:
        """Define a kind from a pickled (function, retry_exceptions); return its number."""
        self.kinds += 1
        defaults: dict[str, Any] = {
            "num_cpus": 1.0, "num_gpus": 0.0, "resources": [], "num_returns": 1, "max_retries": 3,
        }  # fmt: skip
        options_row = list((defaults | options).values())
        digest = blake2b(payload, digest_size=16).digest()
        row = [self.kinds, digest, name, options_row, *self.inline_or_chunks(digest, payload)]
        self.send(["define", self.peer, [row]])
        return self.kinds

    def submit(self, kind: int, *calls: bytes | None) -> list[bytes]:
        """Submit calls, each a pickled (args, kwargs) or None; return the tasks' ids."""
        rows: list[Row] = []
        for payload in calls:
            self.counter += 1
            task = self.peer + bytes(3) + self.counter.to_bytes(5, "big")
            inline: tuple[bytes | None, int] = (None, 0)
            if payload is not None:
                inline = self.inline_or_chunks(task + b"a", payload)
            rows.append([task, kind, *inline])
        self.send(["submit", self.peer, b"", 0, rows])
        return [row[0] for row in rows]

    def gather(self, tasks: list[bytes], timeout_s: float = 30.0) -> list[Row]:
        """Wait for the tasks' rows: [id, outcome, payload, size, contained, failure]."""
        self.wait_for(lambda: all(self.is_whole(task) for task in tasks), timeout_s)
        rows = [self.results[task] for task in tasks]
        return [[*row[:2], self.blobs.get(row[0], row[2]), *row[3:]] for row in rows]

    def ask(self, what: str, timeout_s: float = 10.0) -> Any:
        """Ask for "status", "nodes" or "tasks"."""
        self.requests += 1
        request = self.requests
        self.send(["query", request, what])
        self.wait_for(lambda: request in self.answers, timeout_s)
        return self.answers.pop(request)

    def cancel(self, tasks: list[bytes], timeout_s: float = 10.0) -> list[bool]:
        """Cancel; return for each whether it now never starts."""
        self.requests += 1
        request = self.requests
        self.send(["cancel", tasks, False, True, request])
        self.wait_for(lambda: request in self.answers, timeout_s)
        dropped: list[bool] = self.answers.pop(request)
        return dropped

    def hang_up(self) -> None:
        """Lose both connections; they are dialled again with the next `pump`s."""
        for link in self.links.values():
            self.lose(link)

    def close(self) -> None:
        """Leave."""
        self.send(["leave"])
        self.wait_for(lambda: not self.links[CONTROL].unacked, 5.0)
        self.hang_up()
        self.context.term()

    # --------------------------------------------------------------------------------- moving

    def wait_for(self, condition: Any, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"not within {timeout_s} s; seen: {self.seen[-20:]}")
            self.pump(0.02)

    def pump(self, timeout_s: float) -> None:
        poller = zmq.Poller()
        for link in self.links.values():
            self.dial(link)
            self.flush(link)
            if link.socket is not None:
                poller.register(link.socket, zmq.POLLIN)
        ready = dict(poller.poll(int(timeout_s * 1000)))
        for link in self.links.values():
            while link.socket in ready and link.socket is not None:
                try:
                    self.take_frame(link, msgpack.unpackb(link.socket.recv(zmq.NOBLOCK)))
                except zmq.Again:
                    break

    def dial(self, link: Link) -> None:
        waits_for_control = link.channel == BULK and not self.life
        if link.socket is not None or waits_for_control or time.monotonic() < link.dial_at_s:
            return
        link.socket = self.context.socket(zmq.DEALER)
        link.socket.setsockopt(zmq.RECONNECT_IVL, -1)
        # Before it connects: even close(0) would keep what a refused connection has not sent.
        link.socket.setsockopt(zmq.LINGER, 0)
        if self.keys is not None:
            server_key, secret_key = self.keys
            public_key = zmq.curve_public(z85.encode(secret_key))
            link.socket.setsockopt(zmq.CURVE_SERVERKEY, server_key)
            link.socket.setsockopt(zmq.CURVE_SECRETKEY, secret_key)
            link.socket.setsockopt(zmq.CURVE_PUBLICKEY, public_key)
        link.socket.connect(self.endpoint)
        hello = [
            "hello", VERSION, "client", self.peer, link.channel, self.epoch, link.received, PYTHON,
            self.name, self.life,
        ]  # fmt: skip
        self.say(link, msgpack.packb(hello))

    def say(self, link: Link, frame: bytes) -> None:
        """Send a frame; where the connection has ended meanwhile, begin anew."""
        try:
            link.socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            self.lose(link)

    def lose(self, link: Link) -> None:
        if link.socket is not None:
            link.socket.close(0)
        link.socket = None
        link.up = False
        link.dial_at_s = time.monotonic() + random.uniform(0.1, 0.3)

    def send(self, message: Row, channel: int = CONTROL) -> None:
        encoded = msgpack.packb(message)
        limit = FRAME_BYTES_MAX - 48
        if len(encoded) > limit:
            step = limit - 48
            for start in range(0, len(encoded), step):
                last = start + step >= len(encoded)
                self.send(["part", encoded[start : start + step], last])
            return
        self.links[channel].queue.append(encoded)

    def flush(self, link: Link) -> None:
        while link.up and link.queue and link.window_is_open():
            messages = [link.queue.popleft()]
            size = len(messages[0])
            while link.queue and size + len(link.queue[0]) < FRAME_BYTES_MAX - 64:
                size += len(link.queue[0])
                messages.append(link.queue.popleft())
            link.sent += 1
            header = [b"\x94", *map(msgpack.packb, ("batch", link.sent, link.received))]
            packer = msgpack.Packer()
            frame = b"".join([*header, packer.pack_array_header(len(messages)), *messages])
            link.unacked.append((link.sent, frame))
            self.say(link, frame)

    def take_frame(self, link: Link, frame: Row) -> None:
        match frame:
            case ["welcome", epoch, received, resumed, life, *_]:
                self.welcomed(link, epoch, received, resumed, life)
            case ["refused", error, reason, *_]:
                raise Refused(f"{error}: {reason}")
            case ["reset", *_]:
                self.lose(link)
                if link.channel == BULK and self.links[CONTROL].up:
                    control = self.links[CONTROL]
                    assert control.socket is not None
                    self.say(control, msgpack.packb(["ack", control.received]))
            case ["ack", ack, *rest]:
                self.acknowledged(link, ack)
                if any(rest):  # acknowledgements are overdue; nothing is ever missing here
                    assert link.socket is not None
                    self.say(link, msgpack.packb(["ack", link.received]))
            case ["batch", seq, ack, messages, *_]:
                self.acknowledged(link, ack)
                if seq > link.received:
                    assert seq == link.received + 1
                    link.received = seq
                    for message in messages:
                        self.take_message(message)
                assert link.socket is not None
                self.say(link, msgpack.packb(["ack", link.received]))
            case _:
                raise ValueError(f"not in the protocol: {frame!r}")

    def welcomed(self, link: Link, epoch: int, received: int, resumed: bool, life: int) -> None:
        link.up = True
        if resumed:
            self.acknowledged(link, received)
            assert link.socket is not None
            for _, frame in link.unacked:
                self.say(link, frame)
            return
        self.lives += 1
        self.epoch, self.life = epoch, life
        bulk = self.links[BULK]
        self.lose(bulk)
        bulk.dial_at_s = 0.0
        for each in self.links.values():
            each.reset()
        self.send(["enter", self.name, ["", "", [], os.getpid(), PYTHON]])

    def acknowledged(self, link: Link, ack: int) -> None:
        while link.unacked and link.unacked[0][0] <= ack:
            link.unacked.popleft()

    def take_message(self, message: Row) -> None:
        self.seen.append(message[0])
        match message:
            case ["results", rows, *_]:
                for row in rows:
                    defaults: Row = [None, None, None, 0, [], None]
                    self.results[row[0]] = [*row, *defaults[len(row) :]]
            case ["answer" | "cancelled", request, data, *_]:
                self.answers[request] = data
            case ["take_stock", number, *_]:
                self.send(["stock", number, []])
            case ["chunk", key, index, count, data, *_]:
                pieces = self.pieces.setdefault(key, [])
                assert index == len(pieces)
                pieces.append(data)
                if len(pieces) == count:
                    self.blobs[key] = b"".join(self.pieces.pop(key))
            case ["part", data, last, *_]:
                self.parts.append(data)
                if last:
                    joined, self.parts = b"".join(self.parts), []
                    self.take_message(msgpack.unpackb(joined))

    def is_whole(self, task: bytes) -> bool:
        row = self.results.get(task)
        return row is not None and (row[2] is not None or not row[3] or task in self.blobs)

    def inline_or_chunks(self, key: bytes, payload: bytes) -> tuple[bytes | None, int]:
        if len(payload) <= INLINE_BYTES_MAX:
            return payload, 0
        count = -(-len(payload) // CHUNK_BYTES)
        for index in range(count):
            data = payload[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
            self.send(["chunk", key, index, count, data], BULK)
        return None, len(payload)

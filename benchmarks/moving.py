"""How fast payloads move between processes over the network's sockets, encrypted.

    python -m benchmarks.moving [--mib 100] [--repeats 7] [--receivers 4]

A holder and a receiver, two processes of this machine, over loopback TCP with CURVE: first bare,
which is a ROUTER and a DEALER of pyzmq that move as many frames of 1 MiB with nothing around them,
then by Movers, in turns. It is the ratio of a pair that can be compared between machines. Then as
many receivers as are wanted at once, in a chain, and how many copies the holder has sent.
"""

import argparse
import multiprocessing
import os
import statistics
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import zmq
from drumbeat.protocol.keys import Credentials
from drumbeat.protocol.mover import Mover
from drumbeat.protocol.moving_words import Moved, Source
from drumbeat.protocol.payload_files import MARK
from drumbeat.protocol.settings import Settings
from drumbeat.protocol.sockets import new_keys

MIB = 1 << 20
KEY = b"benchmark-----"
WITHIN_S = 60.0
#: frames that the bare sockets hold, as many as a Mover's
FRAMES_HELD = 11

Keys = tuple[bytes, bytes]


class Process:
    """What one process does when it is told to."""

    def __init__(self, number: int, keys: Keys) -> None:
        public, secret = keys
        self.peer = number.to_bytes(6, "big")
        self.told = threading.Event()
        credentials = Credentials(bytes(32), secret)
        self.mover = Mover(
            Settings.load(), self.peer, credentials, "tcp://127.0.0.1:0", self.told.set
        )
        self.mover.admit([public])
        self.payload = b""
        self.context = zmq.Context()
        self.bare: Any = None

    def where(self) -> Source:
        """Return where its Mover is."""
        return Source(self.peer, self.mover.endpoint, self.mover.public_key)

    def serve(self, size: int) -> int:
        """Serve a payload; return its size."""
        self.payload = MARK + os.urandom(size)
        self.mover.serve(KEY, self.payload)
        return len(self.payload)

    def pull(self, size: int, *sources: Source) -> float:
        """Pull it; return how many seconds that took."""
        begun_s = time.perf_counter()
        self.mover.pull(KEY, size, sources)
        while not (told := self.mover.happened()):
            assert self.told.wait(WITHIN_S)
            self.told.clear()
        took_s = time.perf_counter() - begun_s
        assert isinstance(told[0], Moved), told
        assert len(told[0].payload) == size
        return took_s

    def forget(self) -> None:
        """Keep it no longer."""
        self.mover.cancel(KEY)

    def sent(self) -> int:
        """Return how many bytes it has sent so far."""
        return self.mover.sizes()["bytes_out"]

    def listen_bare(self) -> tuple[str, bytes]:
        """Open a bare socket; return where, and its key."""
        public, secret = zmq.curve_keypair()
        self.bare = self.context.socket(zmq.ROUTER)
        self.bare.curve_server = True
        self.bare.curve_secretkey = secret
        self.bare.sndhwm = FRAMES_HELD
        self.bare.router_mandatory = True
        self.bare.bind("tcp://127.0.0.1:0")
        return self.bare.last_endpoint.decode(), public

    def send_bare(self, frames: int) -> None:
        """Send frames to whoever asks first."""
        route, _ = self.bare.recv_multipart()
        frame = self.payload[:MIB]
        for _ in range(frames):
            self.bare.send_multipart([route, frame])
        self.bare.recv_multipart()
        self.bare.close(0)

    def receive_bare(self, frames: int, endpoint: str, server_key: bytes) -> float:
        """Receive them; return how many seconds that took, the connection included."""
        public, secret = zmq.curve_keypair()
        with self.context.socket(zmq.DEALER) as socket:
            socket.curve_publickey, socket.curve_secretkey = public, secret
            socket.curve_serverkey = server_key
            socket.rcvhwm = FRAMES_HELD
            begun_s = time.perf_counter()
            socket.connect(endpoint)
            socket.send(b"go")
            for _ in range(frames):
                socket.recv(copy=False)
            took_s = time.perf_counter() - begun_s
            socket.send(b"done")
            time.sleep(0.05)
        return took_s


def main_of(number: int, keys: Keys, pipe: Connection) -> None:
    """Do what comes by a pipe, and answer it."""
    process = Process(number, keys)
    while True:
        try:
            name, *arguments = pipe.recv()
        except EOFError:
            process.mover.close()
            return
        pipe.send(getattr(process, name)(*arguments))


class Remote:
    """A process of its own, told what to do."""

    def __init__(self, number: int, keys: Keys) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, far = context.Pipe()
        self.process = context.Process(target=main_of, args=(number, keys, far))
        self.process.start()
        far.close()

    def begin(self, name: str, *arguments: Any) -> None:
        """Tell it; it answers later."""
        self.pipe.send((name, *arguments))

    def end(self) -> Any:
        """Return its answer."""
        assert self.pipe.poll(WITHIN_S)
        return self.pipe.recv()

    def do(self, name: str, *arguments: Any) -> Any:
        """Tell it and return its answer."""
        self.begin(name, *arguments)
        return self.end()

    def close(self) -> None:
        """End it."""
        self.pipe.close()
        self.process.join()


def told(name: str, values: list[float], unit: str) -> str:
    """Return a row: the median, and from where to where."""
    middle = statistics.median(values)
    return f"{name:44} {middle:8.2f} {unit:5} ({min(values):.2f} to {max(values):.2f})"


def measure(mib: int, repeats: int, receivers: int) -> None:
    """Measure, and print."""
    keys = new_keys()
    holder, *others = [Remote(number, keys) for number in range(receivers + 1)]
    sources = [remote.do("where") for remote in (holder, *others)]
    size = holder.do("serve", mib * MIB)
    bare_mbs, mover_mbs, ratios, slower, copies = [], [], [], [], []
    for turn in range(repeats + 1):
        endpoint, server_key = holder.do("listen_bare")
        holder.begin("send_bare", mib)
        bare_s = others[0].do("receive_bare", mib, endpoint, server_key)
        holder.end()
        mover_s = others[0].do("pull", size, sources[0])
        others[0].do("forget")
        before = holder.do("sent")
        begun_s = time.perf_counter()
        for index, other in enumerate(others):
            other.begin("pull", size, *reversed(sources[: index + 1]))
        for other in others:
            other.end()
        all_s = time.perf_counter() - begun_s
        sent = holder.do("sent") - before
        for other in others:
            other.do("forget")
        if turn:  # the first one warms up
            bare_mbs.append(mib * MIB / 1e6 / bare_s)
            mover_mbs.append(size / 1e6 / mover_s)
            ratios.append(bare_s / mover_s)
            slower.append(all_s / mover_s)
            copies.append(sent / size)
    for remote in (holder, *others):
        remote.close()
    print(told("bare pyzmq, CURVE, frames of 1 MiB", bare_mbs, "MB/s"))
    print(told("Mover", mover_mbs, "MB/s"))
    print(told("  of a pair's bare rate", ratios, ""))
    print(told(f"to {receivers} receivers: times as long as to one", slower, ""))
    print(told("  copies that the holder has sent", copies, ""))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mib", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--receivers", type=int, default=4)
    chosen = parser.parse_args()
    measure(chosen.mib, chosen.repeats, chosen.receivers)

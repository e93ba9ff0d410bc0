"""How fast payloads move between processes over the network's sockets, encrypted.

    python -m benchmarks.moving [--mib 100] [--repeats 7] [--receivers 4]

A holder and a receiver, two processes of this machine, over loopback TCP with CURVE, in turns:
bare, which is a ROUTER and a DEALER of pyzmq that move as many frames of 1 MiB with nothing around
them and keep none; the same, but that the receiver writes them into a new memory file, as whoever
keeps a payload for others must; and by Movers. It is the ratios of a turn that can be compared
between machines, those of processor time (of both processes) even while others use them. Then as
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
from drumbeat.protocol.payload_files import ID_BYTES, MARK
from drumbeat.protocol.segments import HEAD_BYTES, blank, write_part
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
        self.kept: list[Any] = []
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
        self.kept = told  # as whoever wants a payload keeps it, for others too
        return took_s

    def forget(self) -> None:
        """Keep it no longer."""
        self.kept = []
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

    def spent(self) -> float:
        """Return how much processor time it has taken so far, in seconds."""
        return time.process_time()

    def receive_bare(self, frames: int, endpoint: str, server_key: bytes, keeps: bool) -> float:
        """Receive them; return how many seconds that took, the connection included.

        Args:
            frames: how many.
            endpoint: from where.
            server_key: its public key.
            keeps: into a memory file.
        """
        segment = blank(bytes(ID_BYTES), HEAD_BYTES + frames * MIB) if keeps else None
        public, secret = zmq.curve_keypair()
        with self.context.socket(zmq.DEALER) as socket:
            socket.curve_publickey, socket.curve_secretkey = public, secret
            socket.curve_serverkey = server_key
            socket.rcvhwm = FRAMES_HELD
            begun_s = time.perf_counter()
            socket.connect(endpoint)
            socket.send(b"go")
            for index in range(frames):
                frame = socket.recv(copy=False)
                if segment is not None:
                    write_part(segment, HEAD_BYTES + index * MIB, frame.buffer)
            took_s = time.perf_counter() - begun_s
            socket.send(b"done")
            time.sleep(0.05)
        if segment is not None:
            segment.close()
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
    return f"{name:44} {middle:8.2f} {unit:6} ({min(values):.2f} to {max(values):.2f})"


class Laboratory:
    """A holder, its receivers, and what was measured of them.

    Args:
        mib: size of the payload.
        receivers: how many.
    """

    def __init__(self, mib: int, receivers: int) -> None:
        keys = new_keys()
        self.mib = mib
        self.holder, *self.others = [Remote(number, keys) for number in range(receivers + 1)]
        self.sources = [remote.do("where") for remote in (self.holder, *self.others)]
        self.size = self.holder.do("serve", mib * MIB)

    def _spent_s(self, *others: Remote) -> float:
        receivers = others or self.others[:1]
        return float(sum(remote.do("spent") for remote in (self.holder, *receivers)))

    def bare(self, *, keeps: bool) -> tuple[float, float]:
        """Return seconds, and seconds of processor time, that bare sockets take."""
        begun_s = self._spent_s()
        endpoint, server_key = self.holder.do("listen_bare")
        self.holder.begin("send_bare", self.mib)
        took_s = self.others[0].do("receive_bare", self.mib, endpoint, server_key, keeps)
        self.holder.end()
        return took_s, self._spent_s() - begun_s

    def moved(self) -> tuple[float, float]:
        """Return seconds, and seconds of processor time, that Movers take."""
        begun_s = self._spent_s()
        took_s = self.others[0].do("pull", self.size, self.sources[0])
        spent_s = self._spent_s() - begun_s
        self.others[0].do("forget")
        return took_s, spent_s

    def to_all(self) -> tuple[float, float, float]:
        """Return seconds and processor time until all have it, and copies the holder has sent."""
        spent_s = -self._spent_s(*self.others)
        before = self.holder.do("sent")
        begun_s = time.perf_counter()
        for index, other in enumerate(self.others):
            other.begin("pull", self.size, *reversed(self.sources[: index + 1]))
        for other in self.others:
            other.end()
        took_s = time.perf_counter() - begun_s
        sent = self.holder.do("sent") - before
        spent_s += self._spent_s(*self.others)
        for other in self.others:
            other.do("forget")
        return took_s, spent_s, sent / self.size

    def close(self) -> None:
        """End all."""
        for remote in (self.holder, *self.others):
            remote.close()


def measure(mib: int, repeats: int, receivers: int) -> None:
    """Measure, and print."""
    lab = Laboratory(mib, receivers)
    rows: dict[tuple[str, str], list[float]] = {}
    for turn in range(repeats + 1):
        bare, kept, mover = lab.bare(keeps=False), lab.bare(keeps=True), lab.moved()
        all_s, all_spent_s, copies = lab.to_all()
        found = {
            ("bare pyzmq, CURVE, frames of 1 MiB", "MB/s"): mib * MIB / 1e6 / bare[0],
            ("Mover", "MB/s"): lab.size / 1e6 / mover[0],
            ("  of the bare rate", ""): bare[0] / mover[0],
            ("  of that of a bare pair that keeps them", ""): kept[0] / mover[0],
            ("processor time: bare", "ms/MiB"): bare[1] * 1e3 / mib,
            ("  bare, kept in a memory file", "ms/MiB"): kept[1] * 1e3 / mib,
            ("  Mover", "ms/MiB"): mover[1] * 1e3 / mib,
            ("  bare to kept", ""): bare[1] / kept[1],
            ("  bare to Mover", ""): bare[1] / mover[1],
            ("  kept to Mover", ""): kept[1] / mover[1],
            (f"to {receivers} receivers: times as long as to one", ""): all_s / mover[0],
            ("  in processor time", ""): all_spent_s / mover[1],
            ("  copies that the holder has sent", ""): copies,
        }
        if turn:  # the first one warms up
            for name, value in found.items():
                rows.setdefault(name, []).append(value)
    lab.close()
    for (name, unit), values in rows.items():
        print(told(name, values, unit))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mib", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--receivers", type=int, default=4)
    chosen = parser.parse_args()
    measure(chosen.mib, chosen.repeats, chosen.receivers)

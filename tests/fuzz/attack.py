"""One attack at a time on a scheduler with a port, for as long as it is told.

`attack.py KIND CLIENT-FILE NODE-FILE NICENESS PER-S`: begins with each line on standard input,
pauses with the next, ends with the last. Says when it has made as many connections as belong to
its kind, and answers each pause with how many it has made. At a low priority: on few cores its own
work is not what the cluster is to be measured by.
"""

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import zmq

sys.path.insert(0, str(Path(__file__).parents[1]))

from drumbeat.protocol.cluster_file import read_address
from drumbeat.protocol.keys import Credentials
from fuzz.mob import BURST, Mob

#: said when there were as many connections as belong to the kind
ENOUGH = "enough"
#: who is not turned away by then is not waited for
TURNED_AWAY_MS = 2_000


class Attacker(Mob):
    """The acts of a mob, one kind at a time and in bursts."""

    def foreign_keys(self) -> None:
        """A burst of foreign keys at once: each handshake costs the scheduler its arithmetic."""
        self._burst(Credentials(self.client.credentials.server_key, self.rng.randbytes(32)))

    def no_keys(self) -> None:
        self._burst(None)

    def _burst(self, credentials: Credentials | None) -> None:
        dealers = [self._with(credentials, connect=False) for _ in range(BURST)]
        monitors = [one.get_monitor_socket(zmq.EVENT_DISCONNECTED) for one in dealers]
        for dealer in dealers:
            dealer.connect(self.client.endpoint)
        for monitor in monitors:
            monitor.poll(TURNED_AWAY_MS)
        self.context.destroy(0)  # waits until all of them are closed
        self.context = zmq.Context()

    def long_frames(self) -> None:
        """Frames of a valid key that are longer than any may be."""
        for _ in range(BURST // 4):
            self.too_large()


#: what is done, how many connections that makes, and how many an attack is of at least
KINDS: dict[str, tuple[Callable[[Attacker], None], int, int]] = {
    "half-open": (Attacker.many_half_open, BURST, 2_000),
    "junk": (Attacker.junk, BURST, 1_500),
    "no-key": (Attacker.no_keys, BURST, 200),
    "foreign-key": (Attacker.foreign_keys, BURST, 200),
    "long-frames": (Attacker.long_frames, BURST // 4, 20),
}


def give_way(niceness: int) -> None:
    """Take, at 19, only what processor time nobody else wants."""
    os.setsid()
    os.setpriority(os.PRIO_PROCESS, 0, niceness)
    # Where each session is a group of its own, only that group's priority counts beside others.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(niceness), encoding="ascii")


def main(kind: str, client: str, node: str, niceness: str, per_s: str) -> None:
    give_way(int(niceness))
    address = read_address(Path(client))
    attacker = Attacker(address, read_address(Path(node)).credentials, Random(kind))
    act, count, enough = KINDS[kind]
    print("ready", flush=True)
    while sys.stdin.readline():
        made, begun_s = 0, time.monotonic()
        while not select.select([sys.stdin], [], [], 0)[0]:
            act(attacker)
            made += count
            time.sleep(max(0.0, begun_s + made / float(per_s) - time.monotonic()))
            if made - count < enough <= made:
                print(ENOUGH, flush=True)
        if not sys.stdin.readline():
            break
        print(made, flush=True)
    attacker.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

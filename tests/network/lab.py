"""A cluster as its users start it, each part on a host of its own: scheduler, node, program.

Never judges. What each of them has said lies beside the keys.
"""

import os
import shlex
import sys
from pathlib import Path

from network.hosts import Host, Network, call
from network.links import Links
from support.remote_cluster import SAYS_WITHIN_S, Process, RemoteCluster
from support.terminals import Terminal
from support.waiting import until

LAB, NODE, CLIENT = "lab", "node", "client"
JOINS_WITHIN_S = 30.0
#: within this a scheduler has started, on a machine that is quick enough for what people are
#: promised; where it takes longer, or others use the processors, so does all else
STARTS_WITHIN_S = 1.0
#: of a second network, that the scheduler's host and the node's have to themselves
SECOND, SECOND_ADDRESSES = "eth1", ("10.78.0.1", "10.78.0.2")

#: says "got 49" when a node has done its task
PROGRAM = """
import sys, drumbeat
@drumbeat.remote
def square(number):
    return number * number
with drumbeat.init(*sys.argv[1:], connect_timeout_s=60.0):
    print("got", drumbeat.get(square.remote(7), timeout=60.0), flush=True)
"""
TOOLS = Path(sys.executable).parent


class Lab:
    """See the module.

    Args:
        home: of all users on all hosts.
    """

    def __init__(self, home: Path) -> None:
        self.cluster = RemoteCluster(home)
        self.network = Network([LAB, NODE, CLIENT])
        self.links = Links(self.network)
        self.port = self.cluster.port
        #: how soon whoever is started says what is wrong
        self.says_within_s = SAYS_WITHIN_S
        #: the scheduler, by the network that all hosts are in
        self.where = f"{self.network[LAB].address}:{self.port}"

    def close(self) -> None:
        """End all of it."""
        try:
            self.cluster.end()
        finally:
            self.network.close()

    # ------------------------------------------------------------------------------- what runs

    def type(self, host: str, text: str) -> Process:
        """Type something into a shell of a host; it goes on."""
        words = self.network[host].command("sh", "-ec", text)
        name = f"{host}-{len(self.cluster.processes)}"
        return self.cluster.start(*words, name=name, PATH=f"{TOOLS}:{os.environ['PATH']}")

    def start_scheduler(self, *flags: str) -> Process:
        """Start the scheduler; return when it has said all that it says at its start."""
        process = self.type(LAB, shlex.join(["exec", "drumbeat", "scheduler", *flags]))
        process.is_scheduler = True
        took_s = process.until_it_says(" work, ", JOINS_WITHIN_S)
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
        self.says_within_s = SAYS_WITHIN_S * max(1.0, took_s / STARTS_WITHIN_S, load)
        return process

    def start_node(self, host: str = NODE) -> Process:
        """Start a node with the file that the scheduler has written."""
        file = shlex.quote(str(self.cluster.file("node")))
        return self.type(host, f"exec drumbeat node --num-cpus 1 --cluster {file}")

    def start_program(self) -> Process:
        """Start the program with the file that the scheduler has written."""
        file = str(self.cluster.file("client"))
        return self.type(CLIENT, shlex.join(["exec", "python", "-c", PROGRAM, file]))

    def on_a_terminal(self, line: str) -> list[str]:
        """Type a command of ours into a terminal of the scheduler's host; return what it shows."""
        _drumbeat, *words = shlex.split(line)
        terminal = Terminal(words, self.cluster.environ(), width=200)
        try:
            assert terminal.end() == 0, terminal.raw
            return terminal.raw.replace("\r", "").splitlines()
        finally:
            terminal.close()

    # -------------------------------------------------------------------------- what is between

    def others(self) -> list[Host]:
        """Return the hosts that are not the scheduler's."""
        return [self.network[NODE], self.network[CLIENT]]

    def ways(self, *words: str) -> None:
        """Change how the other hosts come to the scheduler's."""
        for host in self.others():
            host.call("ip", *words)

    def cut(self, *, there: bool) -> None:
        """What others send is lost at the scheduler's host; or what that sends, at theirs."""
        for host in self.others():
            ends = (host, self.network[LAB])
            self.links.cut_one_way(*(ends if there else reversed(ends)))

    def plug(self, state: str) -> None:
        """Plug or pull the cable of the scheduler's host: "up" or "down"."""
        port = self.network[LAB].port
        call("ip", "-n", self.network.switch, "link", "set", port, state)

    def add_second_network(self) -> None:
        """Lay a second cable from the scheduler's host to the node's."""
        hosts = (self.network[LAB], self.network[NODE])
        first, second = [("name", SECOND, "netns", host.namespace) for host in hosts]
        call("ip", "link", "add", *first, "type", "veth", "peer", *second)
        for host, address in zip(hosts, SECOND_ADDRESSES, strict=True):
            host.call("ip", "address", "add", f"{address}/24", "dev", SECOND)
            host.call("ip", "link", "set", SECOND, "up")
        for host in hosts:
            until(lambda host=host: "LOWER_UP" in host.call("ip", "link", "show", SECOND))

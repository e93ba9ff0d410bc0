"""What goes wrong between hosts: cuts both ways and one way, losses, slow links.

Never touches a process. Packets are dropped where they arrive, by the input hook of the receiver's
nftables: whoever sends sees nothing but silence, as with a cable that was pulled. A host's own
loopback is left alone.
"""

from network.hosts import INTERFACE, Host, Network, call

_TABLE = "drumbeat"
_RULES = f"""
table inet {_TABLE} {{
    set cut {{ type ipv4_addr; }}
    chain lossy {{ }}
    chain input {{
        type filter hook input priority 0; policy accept;
        iifname "lo" accept
        ip saddr @cut counter drop
        jump lossy
    }}
}}
"""
#: a slow link: what a queue may hold, and how long a packet may wait in it
_BURST = "16kb"
_LATENCY = "400ms"


class Links:
    """All links of a network."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._slow: list[tuple[str, str]] = []
        for host in network.hosts:
            host.call("nft", "-f", "-", given=_RULES)

    def cut_one_way(self, source: Host, target: Host) -> None:
        """What `source` sends no longer arrives at `target`."""
        target.call("nft", f"add element inet {_TABLE} cut {{ {source.address} }}")

    def cut(self, one: Host, other: Host) -> None:
        """Nothing passes between two hosts."""
        self.cut_one_way(one, other)
        self.cut_one_way(other, one)

    def isolate(self, host: Host) -> None:
        """Nothing passes between a host and all others."""
        others = [other for other in self._network.hosts if other is not host]
        addresses = ", ".join(other.address for other in others)
        host.call("nft", f"add element inet {_TABLE} cut {{ {addresses} }}")
        for other in others:
            self.cut_one_way(host, other)

    def lose(self, percent: int) -> None:
        """So many of a hundred packets are lost wherever they arrive, chosen by chance."""
        rule = f"add rule inet {_TABLE} lossy numgen random mod 100 < {percent} counter drop"
        for host in self._network.hosts:
            host.call("nft", rule)

    def slow(self, host: Host, rate: str = "1mbit") -> None:
        """Nothing is quicker than that from or to a host."""
        ends = [(host.namespace, INTERFACE), (self._network.switch, host.port)]
        for namespace, interface in ends:
            call(
                "tc", "-n", namespace, "qdisc", "add", "dev", interface, "root",
                "tbf", "rate", rate, "burst", _BURST, "latency", _LATENCY,
            )  # fmt: skip
            self._slow.append((namespace, interface))

    def heal(self) -> None:
        """All links are whole and quick again."""
        for host in self._network.hosts:
            host.call("nft", f"flush set inet {_TABLE} cut; flush chain inet {_TABLE} lossy")
        for namespace, interface in self._slow:
            call("tc", "-n", namespace, "qdisc", "delete", "dev", interface, "root")
        self._slow.clear()

    def dropped(self, host: Host) -> int:
        """Return how many packets a host has not let in so far because of a cut."""
        listing = host.call("nft", "list", "chain", "inet", _TABLE, "input").split()
        return int(listing[listing.index("packets") + 1])

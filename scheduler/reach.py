"""By which address others are likely to reach a scheduler that listens on all interfaces.

Never sends anything. What was taken is said at the start, and --advertise names another.
"""

import ipaddress
import socket
from collections.abc import Iterable
from typing import Final, NamedTuple

from ..protocol.endpoints import ANY_HOST

#: all interfaces of this machine
WILDCARDS: Final = (ANY_HOST, "0.0.0.0", "::")
#: of these one that IPv6 does not reach
_IPV4_ONLY: Final = "0.0.0.0"
#: where a machine that nobody reaches reaches itself
LOOPBACK: Final = "127.0.0.1"
#: addresses that are nobody's: to ask which way leads out, nothing is sent
_OUTSIDE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
#: interfaces to what runs on the machine itself: containers and virtual machines
_INWARD: Final = ("docker", "br-", "virbr", "veth", "lxc", "cni", "podman", "vnet")


class Interface(NamedTuple):
    """A network interface of this machine."""

    name: str
    is_up: bool
    addresses: tuple[str, ...]


class Reach(NamedTuple):
    """Where others reach a scheduler, as far as its machine can tell."""

    host: str
    #: how it came by that, where that may be wrong
    note: str = ""


def reach_of(listens_at: str) -> Reach:
    """Return a host by which other machines are likely to reach one that listens there.

    For all interfaces: the address that this machine itself uses on its way out; where there is
    none, the one that its interfaces have; where they have several, loopback.
    """
    if listens_at not in WILDCARDS:
        return Reach(listens_at)
    is_ipv6 = listens_at != _IPV4_ONLY
    for family, outside in _OUTSIDE[: 1 + is_ipv6]:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as asker:
                asker.connect((outside, 9))
                own = str(asker.getsockname()[0])
        except OSError:
            continue  # no way out in this family
        return with_way_out(own, _interfaces(), is_ipv6=is_ipv6)
    return without_way_out(_interfaces(), is_ipv6=is_ipv6)


def with_way_out(own: str, interfaces: Iterable[Interface], *, is_ipv6: bool = False) -> Reach:
    """Return the host to name where a route leads out of the machine.

    Args:
        own: the address that the machine has on that way.
        interfaces: those of the machine.
        is_ipv6: an IPv6 address will do, too.
    """
    others = [one for one in plausible(interfaces, is_ipv6=is_ipv6) if one != own]
    if not others:
        return Reach(own)
    return Reach(
        own,
        "the address that this machine has on its way out; if others come by another of its"
        f" networks, name that with --advertise HOST ({' or '.join(others)})",
    )


def without_way_out(interfaces: Iterable[Interface], *, is_ipv6: bool = False) -> Reach:
    """Return the host to name where no route leads out of the machine.

    Args:
        interfaces: those of the machine.
        is_ipv6: an IPv6 address will do, too.
    """
    found = plausible(interfaces, is_ipv6=is_ipv6)
    if len(found) == 1:
        return Reach(
            found[0],
            "the only address that this machine has for others; no way out of it was found, so"
            " name another with --advertise HOST if that is wrong",
        )
    if found:
        return Reach(
            LOOPBACK,
            "no way out of this machine was found that would say by which of its addresses others"
            f" come: name one with --advertise HOST ({' or '.join(found)})",
        )
    return Reach(
        LOOPBACK,
        "this machine has no address for others: when it has one, start this scheduler anew, or"
        " name one with --advertise HOST",
    )


def plausible(interfaces: Iterable[Interface], *, is_ipv6: bool = False) -> list[str]:
    """Return the addresses at which others may reach a machine; IPv6 only where there is no IPv4.

    Link-local ones are none: they need an interface's name, which is another on each machine.
    """
    found: dict[int, list[str]] = {4: [], 6: []}
    for interface in interfaces:
        if not interface.is_up or interface.name.startswith(_INWARD):
            continue
        for text in interface.addresses:
            try:
                address = ipaddress.ip_address(text)
            except ValueError:
                continue
            nobodys = address.is_loopback or address.is_unspecified or address.is_multicast
            if not (nobodys or address.is_link_local):
                found[address.version].append(str(address))
    return found[4] or (found[6] if is_ipv6 else [])


def _interfaces() -> list[Interface]:
    import psutil  # type: ignore[import-untyped]  # a local cluster needs none

    states = psutil.net_if_stats()
    return [
        Interface(name, name in states and states[name].isup, tuple(one.address for one in own))
        for name, own in psutil.net_if_addrs().items()
    ]

"""At which address others are told to reach a scheduler that listens on all interfaces."""

import pytest
from drumbeat.scheduler.reach import (
    LOOPBACK,
    Interface,
    plausible,
    reach_of,
    with_way_out,
    without_way_out,
)

LO = Interface("lo", True, ("127.0.0.1", "::1"))
LAB = Interface("eth0", True, ("10.99.0.2", "fe80::1%eth0", "02:fc:00:00:00:01"))
OTHER = Interface("eth1", True, ("192.168.7.1",))
LAB_IPV6 = Interface("eth0", True, ("fd00::2", "fe80::1%eth0"))


def test_who_listens_at_one_address_is_reached_there() -> None:
    assert reach_of("lab1") == ("lab1", "")
    assert reach_of("127.0.0.1") == ("127.0.0.1", "")


@pytest.mark.parametrize("everywhere", ["*", "0.0.0.0", "::"])
def test_who_listens_everywhere_is_told_by_an_address_that_is_somewhere(everywhere: str) -> None:
    assert reach_of(everywhere).host not in ("", "*", "0.0.0.0", "::")


def test_with_a_way_out_its_address_is_taken_and_there_is_nothing_to_say() -> None:
    assert with_way_out("10.99.0.2", [LO, LAB]) == ("10.99.0.2", "")


def test_beside_the_address_on_the_way_out_others_that_there_are_are_named() -> None:
    host, note = with_way_out("10.99.0.2", [LO, LAB, OTHER])
    assert host == "10.99.0.2"
    assert note.endswith("name that with --advertise HOST (192.168.7.1)")


def test_without_a_way_out_the_only_address_there_is_is_taken_and_said_to_be_a_guess() -> None:
    host, note = without_way_out([LO, LAB])
    assert host == "10.99.0.2"
    assert "only address" in note
    assert "--advertise HOST" in note


def test_one_of_several_addresses_is_not_guessed_but_all_are_named() -> None:
    host, note = without_way_out([LO, LAB, OTHER])
    assert host == LOOPBACK
    assert "no way out" in note
    assert note.endswith("--advertise HOST (10.99.0.2 or 192.168.7.1)")


def test_a_machine_without_a_network_is_reached_by_itself_and_told_so() -> None:
    host, note = without_way_out([LO])
    assert host == LOOPBACK
    assert "no address for others" in note
    assert note.endswith("--advertise HOST")


@pytest.mark.parametrize(
    "other",
    [
        Interface("eth1", False, ("192.168.7.1",)),
        Interface("docker0", True, ("172.17.0.1",)),
        Interface("br-1f2e", True, ("172.18.0.1",)),
        Interface("eth1", True, ("169.254.3.4",)),
        Interface("eth1", True, ("0.0.0.0",)),
        Interface("eth1", True, ("224.0.0.1",)),
        Interface("eth1", True, ("fd00::2",)),
        Interface("eth1", True, ("fe80::2%eth1",)),
        Interface("eth1", True, ()),
    ],
    ids=str,
)
def test_what_is_down_inward_or_of_one_link_is_no_address_for_others(other: Interface) -> None:
    assert plausible([LO, other, LAB], is_ipv6=True) == ["10.99.0.2"]


def test_an_ipv6_address_is_taken_where_there_is_no_other_and_it_listens_there() -> None:
    assert without_way_out([LO, LAB_IPV6], is_ipv6=True).host == "fd00::2"
    assert without_way_out([LO, LAB_IPV6]).host == LOOPBACK

"""How often a waiting thread looks before it sleeps."""

from drumbeat.client.looks import PAUSE, Looks


def looked(looks: Looks, waits: int, pays: str) -> int:
    """Wait so often; each look pays or not, as the pattern says in turn. Return the looks taken."""
    taken = 0
    for _ in range(waits):
        if looks.grant():
            looks.told(paid=pays[taken % len(pays)] == "+")
            taken += 1
    return taken


def test_looking_goes_on_while_it_pays_even_if_it_is_in_vain_now_and_then():
    assert looked(Looks(1000), 200, "+") == 200
    assert looked(Looks(1000), 200, "-++++") == 200


def test_looking_that_is_mostly_in_vain_is_tried_now_and_then_only():
    looks = Looks(1000)
    assert looked(looks, 4, "-") == 4
    assert looked(looks, 10 * (PAUSE + 1), "-") == 10
    assert looked(Looks(1000), 20 * (PAUSE + 1), "-+") < 40


def test_looking_that_pays_again_comes_back_for_good():
    looks = Looks(1000)
    looked(looks, 1000, "-")
    looked(looks, 10 * (PAUSE + 1), "+")
    assert looked(looks, 200, "+") == 200


def test_where_nobody_is_to_look_nothing_is_granted():
    looks = Looks(0)
    assert [looks.grant() for _ in range(3)] == [0, 0, 0]

"""Who is silent is suspected early and given up late, and a late judge judges nobody."""

import pytest
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.liveness import Life, Liveness
from hypothesis import given
from hypothesis import strategies as st

A, B, C = (PeerId(letter * 6) for letter in (b"a", b"b", b"c"))


@pytest.fixture
def judge() -> Liveness:
    return Liveness(suspect_after_s=3, lost_after_s=10, closed_grace_s=0.7, interval_s=1)


def test_who_speaks_stays_alive(judge: Liveness) -> None:
    for second in range(100):
        judge.heard(A, second)
        assert judge.verdicts(second) == []
    assert judge.state(A) is Life.ALIVE


def test_silence_makes_suspect_then_lost_and_each_is_told_once(judge: Liveness) -> None:
    judge.heard(A, 0)
    assert judge.verdicts(2.9) == []
    assert judge.verdicts(3.0) == [(A, Life.SUSPECT)]
    assert judge.verdicts(9.9) == []
    assert judge.verdicts(10.0) == [(A, Life.LOST)]
    assert judge.verdicts(99.0) == []
    assert judge.deadline_s() is None


def test_a_suspect_that_speaks_is_alive_again(judge: Liveness) -> None:
    judge.heard(A, 0)
    judge.verdicts(4)
    judge.heard(A, 5)
    assert judge.deadline_s() == float("-inf")
    assert judge.verdicts(5) == [(A, Life.ALIVE)]
    assert judge.verdicts(8) == [(A, Life.SUSPECT)]


def test_a_lost_peer_is_not_revived_by_a_stray_frame_but_by_returning(judge: Liveness) -> None:
    judge.heard(A, 0)
    assert judge.verdicts(10) == [(A, Life.LOST)]
    judge.heard(A, 11)
    assert judge.verdicts(11) == []
    judge.returned(A, 12)
    assert judge.verdicts(12) == [(A, Life.ALIVE)]
    assert judge.verdicts(15) == [(A, Life.SUSPECT)]


def test_a_closed_connection_is_lost_after_its_grace_though_frames_still_come(
    judge: Liveness,
) -> None:
    judge.heard(A, 0)
    judge.closed(A, 1)
    judge.heard(A, 1.1)
    assert judge.deadline_s() == 1.7
    assert judge.verdicts(1.6) == []
    assert judge.verdicts(1.7) == [(A, Life.LOST)]


def test_who_returns_in_time_is_not_lost(judge: Liveness) -> None:
    judge.heard(A, 0)
    judge.closed(A, 1)
    judge.returned(A, 1.5)
    assert judge.verdicts(3) == []
    assert judge.deadline_s() == 4.5


def test_whoever_is_forgotten_is_not_judged(judge: Liveness) -> None:
    judge.heard(A, 0)
    judge.closed(A, 0)
    judge.forget(A)
    judge.forget(A)
    assert judge.verdicts(99) == []
    assert judge.state(A) is None
    assert len(judge) == 0
    assert judge.deadline_s() is None


def test_the_deadline_is_that_of_the_most_silent(judge: Liveness) -> None:
    judge.heard(A, 0)
    judge.heard(B, 1)
    judge.heard(A, 2)
    assert judge.deadline_s() == 4
    assert judge.due_s <= 4, "being heard only puts it off"
    assert judge.verdicts(4) == [(B, Life.SUSPECT)]
    assert judge.deadline_s() == judge.due_s == 5


def test_a_judge_that_was_away_condemns_nobody_and_extends_by_the_gap(judge: Liveness) -> None:
    judge.heard(A, 0)
    judge.closed(B, 0)
    # Due at 3, it came round at 23.
    assert judge.verdicts(23, late_s=20) == []
    assert judge.deadline_s() == 24
    assert judge.verdicts(23.9) == []
    assert judge.verdicts(24) == [(A, Life.SUSPECT)]
    assert judge.verdicts(29.9) == []
    assert judge.verdicts(30) == [(A, Life.LOST)]


def test_what_is_heard_after_the_gap_counts_from_then(judge: Liveness) -> None:
    judge.heard(A, 0)
    judge.heard(B, 1)
    judge.heard(A, 21)
    judge.closed(A, 21)
    assert judge.verdicts(21, late_s=20) == []
    assert judge.verdicts(22) == [(A, Life.LOST)]
    assert judge.verdicts(24) == [(B, Life.SUSPECT)]
    judge.heard(C, 25)
    assert judge.verdicts(27.9) == []
    assert judge.verdicts(28) == [(C, Life.SUSPECT)]


def test_a_little_late_is_not_away(judge: Liveness) -> None:
    judge.heard(A, 0)
    assert judge.verdicts(3.5, late_s=0.5) == [(A, Life.SUSPECT)]


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from("hcrfv"), st.sampled_from((A, B, C)), st.floats(0, 5), st.booleans()
        ),
        max_size=60,
    )
)
def test_verdicts_are_those_of_a_judge_that_looks_at_everybody(
    steps: list[tuple[str, PeerId, float, bool]],
) -> None:
    judge = Liveness(suspect_after_s=3, lost_after_s=10, closed_grace_s=0.7, interval_s=1)
    heard: dict[PeerId, float] = {}
    closed: dict[PeerId, float] = {}
    believed: dict[PeerId, Life] = {}
    now_s = 0.0
    for step, peer, pause_s, judged in steps:
        now_s += pause_s
        match step:
            case "h":
                judge.heard(peer, now_s)
                heard[peer] = now_s
                if believed.setdefault(peer, Life.ALIVE) is Life.SUSPECT:
                    believed[peer] = Life.ALIVE
            case "c":
                judge.closed(peer, now_s)
                if believed.get(peer, Life.LOST) is not Life.LOST:
                    closed.setdefault(peer, now_s)
            case "r":
                judge.returned(peer, now_s)
                heard[peer], believed[peer] = now_s, Life.ALIVE
                closed.pop(peer, None)
            case "f":
                judge.forget(peer)
                for record in (heard, closed, believed):
                    record.pop(peer, None)
        if judged:
            judge.verdicts(now_s)
            for one, state in believed.items():
                gone = one in closed and now_s >= closed[one] + 0.7
                if gone or (state is not Life.LOST and now_s >= heard[one] + 10):
                    believed[one] = Life.LOST
                    closed.pop(one, None)
                elif state is Life.ALIVE and now_s >= heard[one] + 3:
                    believed[one] = Life.SUSPECT
            assert {one: judge.state(one) for one in believed} == believed


# ------------------------------------------------------------------------------------- self-doubt

CROWD = [PeerId(bytes([number]) * 6) for number in range(1, 5)]


def doubter(peers: int = 4) -> Liveness:
    one = Liveness(3, 10, 0.7, 1, self_doubt_s=15)
    for peer in CROWD[:peers]:
        one.heard(peer, 0)
    return one


def lost(judge: Liveness, upto_s: float, speaks: tuple[PeerId, ...] = ()) -> dict[PeerId, float]:
    """Return who is lost and when, if only these speak."""
    found: dict[PeerId, float] = {}
    for tenth in range(1, int(10 * upto_s) + 1):
        for peer in speaks:
            judge.heard(peer, tenth / 10)
        for peer, life in judge.verdicts(tenth / 10):
            if life is Life.LOST:
                found[peer] = tenth / 10
    return found


def test_when_most_of_four_are_silent_they_are_lost_fifteen_seconds_later() -> None:
    assert lost(doubter(), 30, (CROWD[0],)) == dict.fromkeys(CROWD[1:], 25.0)


def test_half_of_them_are_lost_in_time() -> None:
    assert lost(doubter(), 30, (CROWD[0], CROWD[1])) == dict.fromkeys(CROWD[2:], 10.0)


def test_of_three_all_are_lost_in_time() -> None:
    assert lost(doubter(3), 30) == dict.fromkeys(CROWD[:3], 10.0)


def test_those_whose_connection_closed_are_lost_after_their_grace() -> None:
    judge = doubter()
    for peer in CROWD[1:]:
        judge.closed(peer, 0)
    assert lost(judge, 30, (CROWD[0],)) == dict.fromkeys(CROWD[1:], 0.7)


def test_when_the_first_are_back_the_others_have_a_moment_more() -> None:
    judge = doubter()
    assert lost(judge, 12) == {}
    assert judge.doubts_itself
    for peer in CROWD[:2]:
        judge.heard(peer, 12)
    assert judge.verdicts(12.0) == [(peer, Life.ALIVE) for peer in CROWD[:2]]
    assert not judge.doubts_itself
    assert judge.verdicts(14.9) == []
    for peer in CROWD[:2]:
        judge.heard(peer, 14.9)
    assert sorted(judge.verdicts(15.1)) == [(peer, Life.LOST) for peer in CROWD[2:]]


def test_a_judge_in_doubt_does_not_ask_to_be_asked_before_it_will_judge() -> None:
    judge = doubter()
    judge.verdicts(3.0)
    assert judge.deadline_s() == 25.0
    assert judge.verdicts(25.0) == [(peer, Life.LOST) for peer in CROWD]

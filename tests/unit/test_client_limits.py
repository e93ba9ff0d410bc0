"""The options that limit a call: what users may write, and what arrives."""

import math

import drumbeat
import pytest
from drumbeat.protocol.forms import SECONDS_MAX
from drumbeat.protocol.limits import Limits
from support.fake_session import FakeSession

TIMES = ("timeout", "queue_timeout", "total_timeout", "heartbeat_timeout")


@drumbeat.remote(timeout=30)
def limited(number):
    return number


@drumbeat.remote
def unlimited(number):
    return number


@drumbeat.remote(timeout=5, heartbeat_timeout=2, memory_max="1 GiB")
class Limited:
    def plain(self):
        return 1

    @drumbeat.method(timeout=60, total_timeout=90)
    def slow(self):
        return 2

    @drumbeat.method(timeout=None, heartbeat_timeout=None)
    def free(self):
        return 3


@pytest.fixture
def session():
    with FakeSession() as fake:
        yield fake


def limits_of(session):
    return session.calls[-1].kind.options.limits


def test_a_function_that_names_no_limit_has_none(session):
    unlimited.remote(1)
    assert limits_of(session) is None


def test_limits_arrive_in_the_kind(session):
    call = limited.options(queue_timeout=1, total_timeout=2.5, heartbeat_timeout=0.5, memory_max=9)
    call.remote(1)
    assert limits_of(session) == Limits(30.0, 1.0, 2.5, 0.5, 9)


def test_none_takes_a_limit_away_and_infinity_says_that_there_is_to_be_none(session):
    limited.options(timeout=None).remote(1)
    assert limits_of(session) is None
    limited.options(timeout=math.inf).remote(1)
    assert limits_of(session) == Limits(timeout_s=SECONDS_MAX)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("2 GiB", 2 << 30), ("500MB", 500_000_000), ("1.5k", 1536), ("7", 7), (" 3 b ", 3),
        ("1 TiB", 1 << 40), (4096, 4096),
    ],
)  # fmt: skip
def test_memory_is_an_amount_in_bytes_or_in_words(session, text, amount):
    unlimited.options(memory_max=text).remote(1)
    assert limits_of(session) == Limits(memory_max_bytes=amount)


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, ValueError), (-1, ValueError), (math.nan, ValueError), (1e11, ValueError),
        (True, TypeError), ("5 s", TypeError),
    ],
)  # fmt: skip
def test_a_time_that_does_not_fit_is_refused_by_name(name, value, error):
    for refused in (unlimited, Limited):
        with pytest.raises(error, match=f"^{name} must be") as caught:
            refused.options(**{name: value})
        assert repr(value) in str(caught.value)
    with pytest.raises(error, match=f"^{name} must be"):
        drumbeat.method(**{name: value})


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, ValueError), (-1, ValueError), ("much", ValueError), ("2 GiBi", ValueError),
        ("", ValueError), ("0 GiB", ValueError), (1.5, TypeError), (True, TypeError),
        (1 << 63, ValueError),
    ],
)  # fmt: skip
def test_memory_that_does_not_fit_is_refused_by_name(value, error):
    with pytest.raises(error, match=r"^memory_max ") as caught:
        unlimited.options(memory_max=value)
    assert repr(value) in str(caught.value)


def test_limits_of_an_actor_are_those_of_its_methods_and_its_memory_that_of_its_process(session):
    actor = Limited.remote()
    assert limits_of(session) == Limits(memory_max_bytes=1 << 30)
    actor.plain.remote()
    assert limits_of(session) == Limits(timeout_s=5.0, heartbeat_timeout_s=2.0)


def test_a_method_has_its_own_limits_before_those_of_its_actor(session):
    actor = Limited.remote()
    actor.slow.remote()
    own = Limits(timeout_s=60.0, total_timeout_s=90.0, heartbeat_timeout_s=2.0)
    assert limits_of(session) == own
    actor.free.remote()
    assert limits_of(session) is None
    actor.plain.options(timeout=1, heartbeat_timeout=None).remote()
    assert limits_of(session) == Limits(timeout_s=1.0)

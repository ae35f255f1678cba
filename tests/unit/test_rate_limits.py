"""Rates, and how much a bucket lets through: rules in memory, and the same ones in Redis."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, strategies as st
from redis import Redis

from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.ext.cache import RedisCache
from sqlmodel_crud_utils.ext.rate_limits import RateLimiter
from sqlmodel_crud_utils.ext.rate_limits.buckets import (
    SCRIPT,
    Charge,
    Denial,
    arguments,
    refusal_of,
)
from sqlmodel_crud_utils.ext.rate_limits.memory_buckets import MemoryBuckets
from sqlmodel_crud_utils.ext.rate_limits.rates import rate_of
from tests.properties import examples
from tests.redis_servers import OwnRedis, own_redis

AMOUNTS = st.sampled_from([1, 2, 3, 7, 10, 100])
WINDOWS = st.sampled_from([1, 3, 60, 3_600])
# Each step waits for a part of the window and then pays a part of the amount.
STEPS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.3, 1.0]), st.floats(0, 1)),
    min_size=1,
    max_size=60,
)


class Memory:
    """Buckets in memory, with a clock that tests set."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._buckets = MemoryBuckets(1_000, lambda: self.now)

    def pour(self, *charges: Charge) -> Denial | None:
        """Pay all of the charges, or none."""
        return self._buckets.pour(charges)


class InRedis:
    """Buckets in Redis, with the original script except for the clock, which tests set."""

    def __init__(self, server: OwnRedis) -> None:
        self.now = 1_000.0
        self._client = Redis.from_url(server.url)
        self._client.flushall()
        told = "{ARGV[#ARGV], 0}"
        assert "redis.call('TIME')" in SCRIPT
        self._script = SCRIPT.replace("redis.call('TIME')", told).replace(" * 1000000", "", 1)

    def pour(self, *charges: Charge) -> Denial | None:
        """Pay all of the charges, or none."""
        keys = [each.key for each in charges]
        now = str(round((1_700_000_000 + self.now) * 1e6))
        answer: Any = self._client.eval(self._script, len(keys), *keys, *arguments(charges), now)
        return refusal_of(answer)


@pytest.fixture(scope="module")
def server() -> Iterator[OwnRedis]:
    """A Redis."""
    with own_redis() as started:
        yield started


@pytest.fixture(params=["memory", "redis"])
def new_buckets(request: pytest.FixtureRequest) -> Any:
    """A function that returns empty buckets."""
    if request.param == "memory":
        return Memory
    found = request.getfixturevalue("server")
    return lambda: InRedis(found)


def _cost(part: float, amount: int) -> int:
    return max(1, round(part * amount))


class TestBuckets:
    @given(amount=AMOUNTS, seconds=WINDOWS, steps=STEPS)
    @examples(100)
    def test_a_wait_is_never_too_short(
        self, new_buckets: Any, amount: int, seconds: int, steps: list[tuple[float, float]]
    ) -> None:
        """After the time that a refusal reports, a call is allowed; half of it is not enough."""
        buckets = new_buckets()
        for wait, part in steps:
            buckets.now += wait * seconds
            charge = Charge("key", amount, seconds, _cost(part, amount))
            refusal = buckets.pour(charge)
            if refusal is not None:
                assert refusal.seconds > 0
                buckets.now += refusal.seconds / 2
                assert buckets.pour(charge) is not None
                buckets.now += refusal.seconds / 2 + 1e-6
                assert buckets.pour(charge) is None

    @given(amount=AMOUNTS, seconds=WINDOWS, steps=STEPS)
    @examples(100)
    def test_no_window_has_an_edge(
        self, new_buckets: Any, amount: int, seconds: int, steps: list[tuple[float, float]]
    ) -> None:
        """At most 1.1 times the number in a tenth of the time, twice the number in all of it."""
        buckets = new_buckets()
        passed: deque[tuple[float, int]] = deque()
        for wait, part in steps:
            buckets.now += wait * seconds
            cost = _cost(part, amount)
            if buckets.pour(Charge("key", amount, seconds, cost)) is None:
                passed.append((buckets.now, cost))
            for share, most in ((0.1, 1.1), (1.0, 2.0)):
                since = buckets.now - share * seconds
                counted = sum(cost for at, cost in passed if at >= since - 1e-9)
                assert counted <= amount * most + 1e-3

    def test_a_steady_load(self, new_buckets: Any) -> None:
        """A caller above the rate is allowed exactly as often as the rate says."""
        buckets = new_buckets()
        passed = []
        for _ in range(200):
            buckets.now += 0.05
            passed.append(buckets.pour(Charge("key", 10, 1.0)) is None)
        assert sum(passed[40:]) == pytest.approx(160 * 0.05 * 10, abs=1)

    def test_refused_ones_do_not_count(self, new_buckets: Any) -> None:
        """However often one is refused, the wait gets no longer; all are paid, or none."""
        buckets = new_buckets()
        full, other = Charge("full", 1, 10.0), Charge("other", 1, 10.0)
        assert buckets.pour(full) is None
        for _ in range(5):
            refusal = buckets.pour(other, full)
            assert refusal is not None
            assert (refusal.place, round(refusal.seconds, 3)) == (1, 10.0)
        assert buckets.pour(other) is None

    def test_the_longest_wait_counts(self, new_buckets: Any) -> None:
        """If several refuse, the reported time is the one after which all allow the call."""
        buckets = new_buckets()
        charges = [Charge("a", 1, 10.0), Charge("b", 1, 30.0), Charge("c", 1, 20.0)]
        assert buckets.pour(*charges) is None
        refusal = buckets.pour(*charges)
        assert refusal is not None
        assert (refusal.place, round(refusal.seconds, 3)) == (1, 30.0)

    def test_what_a_call_needs_again(self, new_buckets: Any) -> None:
        """A call that has paid a part must pay the whole cost when it is repeated."""
        buckets = new_buckets()
        assert buckets.pour(Charge("key", 10, 10.0, 6)) is None
        refusal = buckets.pour(Charge("key", 10, 10.0, 5, 3))
        assert refusal is not None
        assert refusal.seconds == pytest.approx(4.0, abs=0.001)

    def test_a_clock_that_goes_back(self, new_buckets: Any) -> None:
        """Then nothing leaks, and waiting times do not grow."""
        buckets = new_buckets()
        assert buckets.pour(Charge("key", 2, 10.0)) is None
        buckets.now -= 500
        assert buckets.pour(Charge("key", 2, 10.0)) is None
        refusal = buckets.pour(Charge("key", 2, 10.0))
        assert refusal is not None
        assert refusal.seconds == pytest.approx(5.0, abs=0.001)


class TestMemory:
    def test_at_most_so_many_keys(self) -> None:
        """The key that was used least recently is forgotten."""
        buckets = MemoryBuckets(3)
        for key in ("a", "b", "c", "a", "d"):
            buckets.pour([Charge(key, 1, 60.0)])
        assert len(buckets) == 3
        assert [buckets.pour([Charge(key, 1, 60.0)]) is None for key in ("a", "c", "d", "b")] == [
            *(False, False, False),
            True,
        ]


class TestRedis:
    def test_what_a_key_takes(self, server: OwnRedis) -> None:
        """A few hundred bytes for any rate; the key expires when its bucket is empty."""
        buckets = InRedis(server)
        for _ in range(500):
            buckets.pour(Charge("key", 1_000, 60.0))
        assert server.bytes_of("key") < 150
        lasts: Any = buckets._client.pttl("key")
        assert 29_000 < lasts <= 30_002


@pytest.mark.parametrize(
    ("text", "amount", "seconds"),
    [
        ("100/minute", 100, 60),
        ("1 / second", 1, 1),
        ("5 per 10 seconds", 5, 10),
        ("7/2hours", 7, 7_200),
        ("1000 per Day", 1_000, 86_400),
    ],
)
def test_rates(text: str, amount: int, seconds: int) -> None:
    """A number, and a time."""
    rate = rate_of(text)
    assert (rate.amount, rate.seconds) == (amount, seconds)


@pytest.mark.parametrize(
    "text", ["", "100", "minute", "0/minute", "-1/minute", "1/0 seconds", "1/fortnight", 5, None]
)
def test_what_is_no_rate(text: Any) -> None:
    """It is refused, with an example of one."""
    with pytest.raises(ValidationError) as raised:
        RateLimiter("memory://").limit(text)
    assert raised.value.field == "rate"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"url": "http://localhost"}, "url"),
        ({"url": None}, "url"),
        ({"url": "memory://", "on_failure": "panic"}, "on_failure"),
        ({"url": "memory://", "timeout": 0}, "timeout"),
        ({"url": "memory://", "timeout": True}, "timeout"),
        ({"url": "memory://", "prefix": ""}, "prefix"),
        ({"url": "memory://", "max_keys": 0}, "max_keys"),
        ({"url": "memory://", "max_keys": 1.5}, "max_keys"),
    ],
)
def test_bad_settings(arguments: dict[str, Any], field: str) -> None:
    """They are refused when the limiter is made."""
    with pytest.raises(ValidationError) as raised:
        RateLimiter(**arguments)
    assert raised.value.field == field


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:secret/word@localhost/0",
        "redis://:secret@localhost:port/0",
        "redis://:secret@localhost/0?socket_timeout=secret",
        "redis://:secret@localhost/0?unknown=secret",
    ],
)
@pytest.mark.parametrize("make", [RateLimiter, RedisCache])
def test_a_redis_url_that_cannot_be_read(make: Any, url: str) -> None:
    """It is refused at once, instead of at each call, and the password is not quoted."""
    with pytest.raises(ValidationError, match=r"cannot be read") as raised:
        make(url)
    assert raised.value.field == "url"
    assert "secret" not in "".join(traceback.format_exception(raised.value))


async def _nobody() -> None:
    """What no limit can wait for."""


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"model": int}, "model"),
        ({"on": "update"}, "on"),
        ({"by": 5}, "by"),
        ({"by": _nobody}, "by"),
        ({"rows": True}, "rows"),
        ({"anonymous": "maybe"}, "anonymous"),
    ],
)
def test_bad_limits(arguments: dict[str, Any], field: str) -> None:
    """They are refused at once."""
    with pytest.raises(ValidationError) as raised:
        RateLimiter("memory://").limit("1/minute", **arguments)
    assert raised.value.field == field


def test_a_password_is_not_shown() -> None:
    """Not even of an address that cannot be used."""
    with pytest.raises(ValidationError) as raised:
        RateLimiter("http://user:secret@localhost")
    assert "secret" not in str(raised.value)

"""Leaky buckets: they leak evenly, so that a limit has no windows with edges.

The cost of a call is poured into the bucket of its key; a call that would overflow it is refused
and pours nothing. A full bucket is empty after the period of the rate. So the rate's number of
calls may come at once, and after that they come evenly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1

TOLERANCE = 1e-6
"""The overflow that is accepted, to allow for rounding of floating-point numbers."""


@dataclass(frozen=True, slots=True)
class Charge:
    """The charge for a call.

    Attributes:
        key: The key of the bucket.
        amount: The bucket's capacity.
        seconds: In how many seconds a full bucket becomes empty.
        cost: The amount to pour in.
        paid: The amount that the call has already poured in, and would pour in again if repeated.
    """

    key: str
    amount: int
    seconds: float
    cost: int = 1
    paid: int = 0


@dataclass(frozen=True, slots=True)
class Denial:
    """The refusal of a charge that would overflow its bucket.

    Attributes:
        place: The place of the charge among those to be paid together.
        seconds: After how many seconds the same call would be allowed.
    """

    place: int
    seconds: float


def leaked(level: float, elapsed: float, charge: Charge) -> float:
    """Return the level of a bucket after some seconds."""
    return max(0.0, level - max(0.0, elapsed) * charge.amount / charge.seconds)


def wait_for(level: float, charge: Charge) -> float:
    """Return after how many seconds a charge fits; 0 if it fits now."""
    if level + charge.cost <= charge.amount + TOLERANCE:
        return 0.0
    return (level + charge.cost + charge.paid - charge.amount) * charge.seconds / charge.amount


# The same for Redis, with Redis's clock, in microseconds. All charges are paid or none. A bucket is
# the text "level:microseconds", and expires when it is empty.
SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local levels, place, longest = {}, 0, 0
for i, key in ipairs(KEYS) do
    local amount, window = tonumber(ARGV[4 * i - 3]), tonumber(ARGV[4 * i - 2])
    local cost, paid = tonumber(ARGV[4 * i - 1]), tonumber(ARGV[4 * i])
    local level, at = string.match(redis.call('GET', key) or '', '^(.+):(.+)$')
    if level then
        local elapsed = math.max(0, now - tonumber(at))
        level = math.max(0, tonumber(level) - elapsed * amount / window)
    else
        level = 0
    end
    if level + cost > amount + 0.000001 then
        local wait = (level + cost + paid - amount) * window / amount
        if wait > longest then place, longest = i, wait end
    end
    levels[i] = level + cost
end
if place > 0 then
    return {place, string.format('%.0f', math.ceil(longest) + 1)}
end
for i, key in ipairs(KEYS) do
    local amount, window = tonumber(ARGV[4 * i - 3]), tonumber(ARGV[4 * i - 2])
    local bucket = string.format('%.17g:%.0f', levels[i], now)
    local lasts = math.ceil(levels[i] * window / amount / 1000) + 1
    redis.call('SET', key, bucket, 'PX', string.format('%.0f', lasts))
end
return {0, '0'}
"""
DIGEST = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


def arguments(charges: Sequence[Charge]) -> list[str]:
    """Return the arguments of the script."""
    return [
        str(each)
        for charge in charges
        for each in (charge.amount, round(charge.seconds * 1e6), charge.cost, charge.paid)
    ]


def refusal_of(answer: tuple[int, bytes]) -> Denial | None:
    """Return the refusal in the script's answer, or None."""
    place, microseconds = answer
    return Denial(place - 1, int(microseconds) / 1e6) if place else None

"""The ledger of all workers, in Redis: one script and one key for each question, and Redis' own clock.

One key each also because kombu's ``global_keyprefix`` knows scripts of one key only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from throttled import RedisStoreBackend
from throttled.rate_limiter.gcra import RedisLimitAtomicAction

from .rates import SPAN
from .store import FORGOTTEN_AFTER, LEASE, WANTED_FOR, Admission, Seen

# Mails are counted for longer than they are asked for.
_COUNT_EXPIRES = int(SPAN * 12)

_NOW = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
"""

# Numbers become whole ones on the way out of a script, so the fractions go as text.
_LOOK = f"""{_NOW}
local span = math.floor(now / {SPAN})
local last = tonumber(redis.call('HGET', KEYS[1], 'span'))
if last ~= span then
    local previous, since = 0, now
    if last == span - 1 then
        previous, since = redis.call('HGET', KEYS[1], 'current'), span * {SPAN}
    end
    redis.call('HSET', KEYS[1], 'span', span, 'since', string.format('%.6f', since), 'previous', previous, 'current', 0)
end
redis.call('HINCRBY', KEYS[1], 'current', ARGV[1])
local seen = redis.call('HMGET', KEYS[1], 'noted', 'previous', 'current', 'since')
redis.call('EXPIRE', KEYS[1], seen[1] and {FORGOTTEN_AFTER} or {_COUNT_EXPIRES})
return {{string.format('%.6f', now), seen[1] or '', seen[2], seen[3], seen[4]}}
"""

_NOTE = f"""
if (redis.call('HGET', KEYS[1], 'noted') or '') ~= ARGV[1] then
    return 0
end
if ARGV[2] == '' then
    redis.call('HDEL', KEYS[1], 'noted')
else
    redis.call('HSET', KEYS[1], 'noted', ARGV[2])
end
redis.call('EXPIRE', KEYS[1], {FORGOTTEN_AFTER})
return 1
"""

# Beside the holders, with the time until they count: the member 'wanted', while somebody waits.
_ADMIT = f"""{_NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local wanted = redis.call('ZSCORE', KEYS[1], 'wanted') and 1 or 0
local granted = 1
if not redis.call('ZSCORE', KEYS[1], ARGV[1])
        and redis.call('ZCARD', KEYS[1]) - wanted >= tonumber(ARGV[2]) then
    granted = 0
end
if granted == 1 then
    redis.call('ZADD', KEYS[1], now + {LEASE}, ARGV[1])
else
    redis.call('ZADD', KEYS[1], now + {WANTED_FOR}, 'wanted')
end
redis.call('EXPIRE', KEYS[1], {int(LEASE)})
return {{granted, wanted, granted == 1 and {{}} or redis.call('ZRANGE', KEYS[1], 0, -1)}}
"""


class SharedLedger:
    """See :class:`.ledger.Ledger`. Any error of the client's may come from each method."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._permits = RedisLimitAtomicAction(_Backend(client))
        self._look = client.register_script(_LOOK)
        self._note = client.register_script(_NOTE)
        self._admit = client.register_script(_ADMIT)

    def take(self, name: str, rate: float, burst: int, count: int) -> float:
        limited, _, _, retry_after = self._permits.do([_key("permits", name)], [1 / rate, burst, count])
        return retry_after if limited else 0.0

    def look(self, name: str, handed_over: int) -> Seen:
        now, noted, previous, current, since = self._look([_key("pace", name)], [handed_over])
        return Seen(float(now), _text(noted), int(previous), int(current), float(since))

    def note(self, name: str, instead_of: str, slow_down: str) -> bool:
        return bool(self._note([_key("pace", name)], [instead_of, slow_down]))

    def admit(self, name: str, holder: str, limit: int) -> Admission:
        granted, wanted, holders = self._admit([_key("connections", name)], [holder, limit])
        return Admission(bool(granted), bool(wanted), [_text(one) for one in holders])

    def dismiss(self, name: str, holders: Sequence[str]) -> None:
        self._client.zrem(_key("connections", name), *holders)


class _Backend(RedisStoreBackend):
    """The library makes its clients from an address; ours is made already."""

    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client


def _key(kind: str, name: str) -> str:
    return f"congressy_mailer:{kind}:{name}"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value

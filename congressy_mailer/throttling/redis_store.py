"""The store of all workers, in Redis: one script and one key for each question, and Redis' own clock.

One key each also because kombu's ``global_keyprefix`` knows scripts of one key only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from throttled import RedisStoreBackend
from throttled.rate_limiter.gcra import RedisLimitAtomicAction

from .rates import COUNT_WINDOW
from .store import CONTENTION_TTL, LEASE, SLOW_DOWN_TTL, SlotAnswer, Snapshot

# Mails are counted for longer than they are asked for.
_COUNT_TTL = int(COUNT_WINDOW * 12)

_NOW = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
"""

# Numbers become whole ones on the way out of a script, so the fractions go as text.
_SNAPSHOT = f"""{_NOW}
local span = math.floor(now / {COUNT_WINDOW})
local last = tonumber(redis.call('HGET', KEYS[1], 'span'))
if last ~= span then
    local previous, since = 0, now
    if last == span - 1 then
        previous, since = redis.call('HGET', KEYS[1], 'current'), span * {COUNT_WINDOW}
    end
    redis.call('HSET', KEYS[1], 'span', span, 'since', string.format('%.6f', since), 'previous', previous, 'current', 0)
end
redis.call('HINCRBY', KEYS[1], 'current', ARGV[1])
local seen = redis.call('HMGET', KEYS[1], 'noted', 'previous', 'current', 'since')
redis.call('EXPIRE', KEYS[1], seen[1] and {SLOW_DOWN_TTL} or {_COUNT_TTL})
return {{string.format('%.6f', now), seen[1] or '', seen[2], seen[3], seen[4]}}
"""

_REPLACE_SLOW_DOWN = f"""
if (redis.call('HGET', KEYS[1], 'noted') or '') ~= ARGV[1] then
    return 0
end
if ARGV[2] == '' then
    redis.call('HDEL', KEYS[1], 'noted')
else
    redis.call('HSET', KEYS[1], 'noted', ARGV[2])
end
redis.call('EXPIRE', KEYS[1], {SLOW_DOWN_TTL})
return 1
"""

# Beside the owners, with the time until they count: the member 'wanted', while somebody waits.
_ACQUIRE = f"""{_NOW}
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
    redis.call('ZADD', KEYS[1], now + {CONTENTION_TTL}, 'wanted')
end
redis.call('EXPIRE', KEYS[1], {int(LEASE)})
return {{granted, wanted, granted == 1 and {{}} or redis.call('ZRANGE', KEYS[1], 0, -1)}}
"""


class RedisStore:
    """See :class:`.store.LimitStore`. Any error of the client's may come from each method."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._permits = RedisLimitAtomicAction(_ClientBackend(client))
        self._snapshot = client.register_script(_SNAPSHOT)
        self._replace_slow_down = client.register_script(_REPLACE_SLOW_DOWN)
        self._acquire = client.register_script(_ACQUIRE)

    def take_permits(self, name: str, rate: float, burst: int, count: int) -> float:
        limited, _, _, retry_after = self._permits.do([_key("permits", name)], [1 / rate, burst, count])
        return retry_after if limited else 0.0

    def snapshot(self, name: str, handed_over: int) -> Snapshot:
        now, encoded, previous, current, since = self._snapshot([_key("pace", name)], [handed_over])
        return Snapshot(float(now), _text(encoded), int(previous), int(current), float(since))

    def replace_slow_down(self, name: str, expected: str, slow_down: str) -> bool:
        return bool(self._replace_slow_down([_key("pace", name)], [expected, slow_down]))

    def acquire(self, name: str, owner: str, limit: int) -> SlotAnswer:
        granted, others_wait, owners = self._acquire([_key("connections", name)], [owner, limit])
        return SlotAnswer(bool(granted), bool(others_wait), [_text(owner) for owner in owners])

    def release(self, name: str, owners: Sequence[str]) -> None:
        self._client.zrem(_key("connections", name), *owners)


class _ClientBackend(RedisStoreBackend):
    """The library makes its clients from an address; ours is made already."""

    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client


def _key(kind: str, name: str) -> str:
    return f"congressy_mailer:{kind}:{name}"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value

"""The store of all workers, in Redis: one script and one key for each question, and Redis' own clock.

One key each also because kombu's ``global_keyprefix`` knows scripts of one key only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from throttled import RedisStoreBackend
from throttled.rate_limiter.gcra import RedisLimitAtomicAction

from .slow_down import COUNT_WINDOW
from .store import (
    CONTENTION_TTL,
    LEASE,
    LIMIT_FRESH,
    LIMIT_STEP,
    LIMIT_TTL,
    SLOW_DOWN_TTL,
    SlotAnswer,
    Snapshot,
)

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

# Beside the owners, with the time until they count: the member 'wanted', while somebody waits, and 'limit:3', where the
# server has shown that it allows 3.
_CONNECTIONS = f"""{_NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local wanted = redis.call('ZSCORE', KEYS[1], 'wanted') and 1 or 0
local learnt, learnt_at, learnt_as, open = 0, 0, nil, 0
local members = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #members, 2 do
    local number = string.match(members[i], '^limit:(%d+)$')
    if number then
        learnt_as, learnt_at = members[i], tonumber(members[i + 1]) - {LIMIT_TTL}
        learnt = tonumber(number) + math.floor((now - learnt_at) / {LIMIT_STEP})
    elseif members[i] ~= 'wanted' then
        open = open + 1
    end
end
"""

_ACQUIRE = f"""{_CONNECTIONS}
local limit, is_learnt, granted = tonumber(ARGV[2]), 0, 1
if learnt > 0 and learnt < limit then
    limit, is_learnt = learnt, 1
end
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and open >= limit then
    granted = 0
end
if granted == 1 then
    redis.call('ZADD', KEYS[1], now + {LEASE}, ARGV[1])
elseif ARGV[3] == '0' then
    redis.call('ZADD', KEYS[1], now + {CONTENTION_TTL}, 'wanted')
end
redis.call('EXPIRE', KEYS[1], learnt_as and {LIMIT_TTL} or {int(LEASE)})
return {{granted, wanted, granted == 1 and {{}} or redis.call('ZRANGE', KEYS[1], 0, -1), is_learnt}}
"""

_LEARN_LIMIT = f"""{_CONNECTIONS}
open = open - redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now + {CONTENTION_TTL}, 'wanted')
redis.call('EXPIRE', KEYS[1], {LIMIT_TTL})
if open == 0 then
    return {{now - learnt_at < {LIMIT_FRESH} and learnt or 0, 0}}
end
if learnt_as then
    redis.call('ZREM', KEYS[1], learnt_as)
end
local limit = learnt > 0 and math.min(learnt, open) or open
redis.call('ZADD', KEYS[1], now + {LIMIT_TTL}, 'limit:' .. limit)
return {{limit, learnt > 0 and 0 or 1}}
"""


class RedisStore:
    """See :class:`.store.LimitStore`. Any error of the client's may come from each method."""

    def __init__(self, client: Any, group: str) -> None:
        """Keep what a group of workers agrees on.

        Args:
            client: of redis-py, as Celery's transport has made it.
            group: name of the group. Another group in the same Redis has other keys.
        """
        self._client = client
        self._group = group
        self._permits = RedisLimitAtomicAction(_ClientBackend(client))
        self._snapshot = client.register_script(_SNAPSHOT)
        self._replace_slow_down = client.register_script(_REPLACE_SLOW_DOWN)
        self._acquire = client.register_script(_ACQUIRE)
        self._learn_limit = client.register_script(_LEARN_LIMIT)

    def take_permits(self, name: str, rate: float, burst: int, count: int) -> float:
        limited, _, _, retry_after = self._permits.do([self._key("permits", name)], [1 / rate, burst, count])
        return retry_after if limited else 0.0

    def snapshot(self, name: str, handed_over: int) -> Snapshot:
        now, encoded, previous, current, since = self._snapshot([self._key("pace", name)], [handed_over])
        return Snapshot(float(now), _text(encoded), int(previous), int(current), float(since))

    def replace_slow_down(self, name: str, expected: str, slow_down: str) -> bool:
        return bool(self._replace_slow_down([self._key("pace", name)], [expected, slow_down]))

    def acquire(self, name: str, owner: str, limit: int, *, quiet: bool = False) -> SlotAnswer:
        arguments = [owner, limit, int(quiet)]
        granted, others_wait, owners, learnt = self._acquire([self._key("connections", name)], arguments)
        return SlotAnswer(bool(granted), bool(others_wait), [_text(owner) for owner in owners], bool(learnt))

    def learn_limit(self, name: str, owner: str) -> tuple[int, bool]:
        limit, is_new = self._learn_limit([self._key("connections", name)], [owner])
        return int(limit), bool(is_new)

    def release(self, name: str, owners: Sequence[str]) -> None:
        self._client.zrem(self._key("connections", name), *owners)

    def _key(self, kind: str, name: str) -> str:
        return f"congressy_mailer:{self._group}:{kind}:{name}"


class _ClientBackend(RedisStoreBackend):
    """The library makes its clients from an address; ours is made already."""

    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value

"""What is kept in Redis: for how long, under which keys, and on which server."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from congressy_mailer import throttling
from congressy_mailer.replies import Reply
from testbed.redis_server import EmbeddedRedis
from testbed.servers.sentinel import RedisUnderSentinel
from tests.conftest import reset_throttling
from tests.support.throttling import CelerySettings, key, permits_at_once


def test_what_is_kept_in_redis_ends_by_itself_and_names_nobody(client: redis.Redis, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {"RATE_LIMIT": "100/s"}
    rate_limiter = throttling.rate_limiter_for("")
    permits_at_once(rate_limiter)
    rate_limiter.observe_replies([Reply(451, "too many messages from ana@example.com")])
    assert throttling.connection_slot("").acquired
    keys = sorted(client.scan_iter())
    assert keys == [key(kind) for kind in ("connections", "pace", "permits")]
    assert all(0 < client.ttl(name) <= 3600 for name in keys)
    assert "ana" not in str([client.hgetall(keys[1]), client.zrange(keys[0], 0, -1)])


def test_the_prefix_of_the_host_s_keys_is_used(
    redis_server: EmbeddedRedis, client: redis.Redis, ask_at: CelerySettings, settings: Any
) -> None:
    settings.CONGRESSY_MAILER = {"RATE_LIMIT": "1/h", "MAX_CONNECTIONS": 1}
    ask_at(redis_server.url, broker_transport_options={"global_keyprefix": "host:"})
    slot = throttling.connection_slot("")
    assert permits_at_once(throttling.rate_limiter_for("")) == 1
    assert {name.partition("congressy_mailer:")[0] for name in client.scan_iter()} == {"host:"}
    slot.release()
    assert client.exists(f"host:{key('connections')}") == 0


@pytest.mark.parametrize(("group", "together"), [(None, False), ("one account", True)])
def test_another_project_on_the_same_redis_counts_for_itself_unless_told(
    group: str | None, together: bool, client: redis.Redis, settings: Any
) -> None:
    settings.CONGRESSY_MAILER = {"RATE_LIMIT": "1/h", "MAX_CONNECTIONS": 1, "THROTTLING_GROUP": group}
    assert throttling.connection_slot("").acquired
    assert permits_at_once(throttling.rate_limiter_for("")) == 1
    reset_throttling()
    settings.SECRET_KEY = "of another project"
    assert throttling.connection_slot("").acquired is not together
    assert permits_at_once(throttling.rate_limiter_for("")) == (0 if together else 1)


def test_with_sentinel_the_master_is_asked(ask_at: CelerySettings, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {"MAX_CONNECTIONS": 1}
    with RedisUnderSentinel() as group:
        ask_at(group.url, broker_transport_options=group.transport_options)
        assert throttling.connection_slot("").acquired
        assert not throttling.connection_slot("").acquired
        with redis.Redis(port=group.master.port) as master:
            assert master.zcard(key("connections")) == 2
        reset_throttling()

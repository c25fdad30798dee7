"""Redis, where it is the broker: whether it may throw tasks away, and what is left of them after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..broker.celery_app import find_celery_app
from ..broker.connections import connection_with_timeout, driver
from .findings import Finding, error, examination, good, skipped, warning

_TIMEOUT = 3.0
# The share of maxmemory from which on it is nearly full.
_NEARLY_FULL = 0.9


class _RefusesCommands(Exception):
    """Redis answers no command until it can write to its disk, not even ``PING``, with which kombu begins."""


def _information(section: str) -> dict[str, Any] | None:
    """What ``INFO`` says; ``None`` where the broker is no Redis or does not answer.

    Raises:
        _RefusesCommands: it cannot write to its disk.
    """
    from kombu.exceptions import OperationalError
    from redis.exceptions import RedisError

    try:
        app = find_celery_app()
        if driver(app) != "redis":
            return None
        connection: Any = connection_with_timeout(app, _TIMEOUT)
        try:
            return dict(connection.default_channel.client.info(section))
        finally:
            connection.release()
    except (ImproperlyConfigured, OSError, OperationalError, RedisError) as failure:
        # The error's code, which kombu keeps in the text alone.
        if "MISCONF" in str(failure):
            raise _RefusesCommands from failure
        return None


def _not_redis() -> Finding:
    return skipped(_("The broker is not Redis, or does not answer."))


@examination("redis-eviction", gettext_lazy("Redis: eviction and memory"))
def examine_eviction() -> Iterator[Finding]:
    """Reads ``maxmemory`` and ``maxmemory-policy`` from Redis.

    With any policy other than ``noeviction``, a full Redis evicts keys, possibly whole queues. Their mail is in the
    database, so it is not lost, but waits for a sweep. With ``noeviction``, a full Redis refuses new tasks.
    """
    try:
        memory = _information("memory")
    except _RefusesCommands:
        yield skipped(_("Redis answers nothing until it can write to its disk."))
        return
    if memory is None:
        yield _not_redis()
        return
    limit, used = int(memory.get("maxmemory", 0)), int(memory.get("used_memory", 0))
    policy = str(memory.get("maxmemory_policy", ""))
    if limit and policy != "noeviction":
        yield error(
            _("Redis may throw queues away when its memory is full: maxmemory-policy is %(policy)s.")
            % {"policy": policy},
            _("Set maxmemory-policy noeviction, and give a cache a Redis of its own."),
        )
    if limit and used > limit * _NEARLY_FULL:
        yield error(
            _("Redis has used %(share)d %% of its maxmemory.") % {"share": round(100 * used / limit)},
            _("Raise maxmemory, or find out what else is in it: redis-cli --bigkeys."),
        )
    if not limit:
        yield good(_("Redis has no maxmemory."))


@examination("redis-persistence", gettext_lazy("Redis: persistence"))
def examine_persistence() -> Iterator[Finding]:
    """Checks that Redis keeps its tasks across a restart: ``appendonly yes``.

    Without it, mail waits after a restart of Redis until the sweep publishes it again. After a failed snapshot, Redis
    refuses new tasks.
    """
    try:
        persistence = _information("persistence")
    except _RefusesCommands:
        yield _cannot_write("MISCONF")
        return
    if persistence is None:
        yield _not_redis()
        return
    if not int(persistence.get("aof_enabled", 0)):
        yield warning(
            _("Redis loses its queues when it restarts: appendonly is off."),
            _("Set appendonly yes. No mail is lost without it; the sweep publishes it again."),
        )
    for key in ("rdb_last_bgsave_status", "aof_last_write_status"):
        if persistence.get(key, "ok") != "ok":
            yield _cannot_write(key)


def _cannot_write(key: str) -> Finding:
    return error(
        _("Redis cannot write to its disk (%(key)s).") % {"key": key},
        _("Look at its log, and at the room on its disk: it takes no task until it can."),
    )

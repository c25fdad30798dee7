"""What the broker tells: how full Redis is and whether it keeps what it has; how long RabbitMQ's queues are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.template.defaultfilters import filesizeformat
from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from kombu import Connection

from ..broker.celery_app import find_celery_app
from ..broker.connections import connection_with_timeout, driver
from ..conf import mailer_settings
from ..replies import error_text

# Seconds that a broker may take to answer: the page waits for it.
_TIMEOUT = 0.25
# Of its memory, from which on Redis is called full.
_NEARLY_FULL = 0.8
_SLOW_COMMANDS = 5


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that a broker tells."""

    #: What it is, in the language in force.
    label: str
    #: What is so.
    value: str
    #: What is wrong with that, and what to do; empty: nothing.
    warning: str = ""


@dataclass(frozen=True, slots=True)
class BrokerQueue:
    """One of the mailer's queues in the broker."""

    #: Its name.
    name: str
    #: Tasks that no worker has fetched.
    tasks: int
    #: Workers that serve it; ``None``: this broker does not tell.
    consumers: int | None = None


@dataclass(frozen=True, slots=True)
class SlowCommand:
    """An entry of Redis' slow log."""

    #: When it ran.
    at: datetime
    #: How long.
    took: timedelta
    #: Its name alone: arguments may be anybody's data.
    command: str


@dataclass(slots=True)
class BrokerReport:
    """What a broker tells."""

    #: Name of its kind.
    name: str = ""
    #: Why it tells nothing; empty: it does.
    error: str = ""
    facts: list[Fact] = field(default_factory=list)
    queues: list[BrokerQueue] = field(default_factory=list)
    slow_commands: list[SlowCommand] = field(default_factory=list)


def ask_broker() -> BrokerReport:
    """Ask the host's broker, for at most a second; never raises."""
    report = BrokerReport()
    connection: Connection | None = None
    try:
        app = find_celery_app()
        kind = driver(app)
        report.name = {"redis": "Redis", "amqp": "RabbitMQ"}.get(kind, kind)
        names = [mailer_settings().QUEUE, mailer_settings().BULK_QUEUE]
        connection = connection_with_timeout(app, _TIMEOUT)
        if kind == "redis":
            _ask_redis(connection.default_channel, names, report)
        elif kind == "amqp":
            _ask_rabbitmq(connection, names, report)
    except Exception as error:
        report.error = error_text(error)
    finally:
        if connection is not None:
            with suppress(Exception):
                connection.collect(_TIMEOUT)
    return report


def _ask_redis(channel: Any, names: Sequence[str], report: BrokerReport) -> None:
    # One round trip. A managed Redis may refuse some of it.
    pipeline = channel.client.pipeline(transaction=False)
    pipeline.info()
    pipeline.hlen(channel.unacked_key)
    pipeline.slowlog_get(_SLOW_COMMANDS)
    for name in names:
        pipeline.llen(name)
    info, unacknowledged, slow, *lengths = pipeline.execute(raise_on_error=False)
    if isinstance(info, Exception):
        raise info
    report.name = f"Redis {info.get('redis_version', '')}".strip()
    if info.get("server_name") == "valkey":
        report.name = f"Valkey {info.get('valkey_version', '')}".strip()
    report.facts = redis_facts(info)
    if isinstance(unacknowledged, int):
        report.facts.append(Fact(_("Tasks fetched and not acknowledged"), str(unacknowledged)))
    report.queues = [
        BrokerQueue(name, length) for name, length in zip(names, lengths, strict=True) if isinstance(length, int)
    ]
    if isinstance(slow, list):
        report.slow_commands = [slow_command(entry) for entry in slow]


def redis_facts(info: Mapping[str, Any]) -> list[Fact]:
    """What Redis' ``INFO`` says, and what is to be done about it."""
    return [*_memory_facts(info), *_persistence_facts(info), *_client_facts(info)]


def _memory_facts(info: Mapping[str, Any]) -> list[Fact]:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    policy = str(info.get("maxmemory_policy", ""))
    evicted = int(info.get("evicted_keys", 0))
    if limit:
        memory = _("%(used)s of %(limit)s") % {"used": filesizeformat(used), "limit": filesizeformat(limit)}
    else:
        memory = _("%(used)s, without a limit") % {"used": filesizeformat(used)}
    full = limit and used > _NEARLY_FULL * limit
    evicts = policy not in {"", "noeviction"}
    return [
        Fact(
            _("Memory"),
            memory,
            _("It is nearly full. When it is, it takes no tasks, and mail waits in the database until it does again.")
            if full
            else "",
        ),
        Fact(
            _("Eviction policy"),
            policy or "–",
            _("Redis drops keys when it is full, among them queues. Set maxmemory-policy to noeviction.")
            if evicts
            else "",
        ),
        *(
            [
                Fact(
                    _("Keys evicted since its start"),
                    str(evicted),
                    _("Tasks may have been lost. The sweep publishes their mail again."),
                )
            ]
            if evicted
            else []
        ),
    ]


def _persistence_facts(info: Mapping[str, Any]) -> list[Fact]:
    append_only = bool(int(info.get("aof_enabled", 0)))
    # What Redis calls the last time is that of its start while it has written none: it may be set to write none at all.
    saved = info.get("rdb_last_save_time") if int(info.get("rdb_last_bgsave_time_sec", 0)) >= 0 else None
    failed = str(info.get("aof_last_write_status" if append_only else "rdb_last_bgsave_status", "ok")) != "ok"
    if append_only:
        value = _("append-only file")
    elif saved:
        at = localtime(datetime.fromtimestamp(int(saved), UTC))
        value = _("snapshots, the last one at %(at)s") % {"at": date_format(at, "SHORT_DATETIME_FORMAT")}
    else:
        value = _("no snapshot since its start")
    warning = ""
    if failed:
        warning = _("It could not write to its disk, and may refuse tasks. See its log.")
    elif not append_only:
        warning = _(
            "Tasks since the last snapshot are lost when it dies. No mail is: the sweep publishes it again. "
            "With appendonly yes that is not needed."
        )
    facts = [Fact(_("Persistence"), value, warning)]
    if info.get("role") == "slave":
        facts.append(Fact(_("Role"), _("replica"), _("A replica takes no tasks: connect to the master, or Sentinel.")))
    elif info.get("connected_slaves"):
        facts.append(Fact(_("Replicas"), str(info["connected_slaves"])))
    return facts


def _client_facts(info: Mapping[str, Any]) -> list[Fact]:
    clients, most = int(info.get("connected_clients", 0)), int(info.get("maxclients", 0))
    rejected = int(info.get("rejected_connections", 0))
    up = int(info.get("uptime_in_seconds", 0))
    return [
        Fact(
            _("Clients"),
            _("%(clients)d of %(most)d") % {"clients": clients, "most": most} if most else str(clients),
            ngettext(
                "%(count)d connection was refused since its start: raise maxclients.",
                "%(count)d connections were refused since its start: raise maxclients.",
                rejected,
            )
            % {"count": rejected}
            if rejected
            else "",
        ),
        Fact(
            _("Running for"),
            ngettext("%(count)d day", "%(count)d days", up // 86400) % {"count": up // 86400}
            if up >= 86400
            else ngettext("%(count)d minute", "%(count)d minutes", up // 60) % {"count": up // 60},
        ),
    ]


def slow_command(entry: Mapping[str, Any]) -> SlowCommand:
    """What an entry of Redis' slow log says, without what the command was about."""
    words = entry.get("command", b"")
    text = words.decode(errors="replace") if isinstance(words, bytes) else str(words)
    return SlowCommand(
        at=datetime.fromtimestamp(int(entry.get("start_time", 0)), UTC),
        took=timedelta(microseconds=int(entry.get("duration", 0))),
        command=text.split(" ", 1)[0],
    )


def _ask_rabbitmq(connection: Connection, names: Sequence[str], report: BrokerReport) -> None:
    properties: Any = getattr(connection.connection, "server_properties", {})
    report.name = f"{properties.get('product', 'RabbitMQ')} {properties.get('version', '')}".strip()
    for label, key in ((_("Cluster"), "cluster_name"), (_("Platform"), "platform")):
        if value := properties.get(key):
            report.facts.append(Fact(label, str(value)))
    for name in names:
        # After a queue that is not there, the channel is closed.
        channel: Any = connection.channel()
        try:
            found = channel.queue_declare(queue=name, passive=True)
        except connection.channel_errors:
            report.facts.append(Fact(name, "–", _("There is no such queue yet: no worker has ever served it.")))
            continue
        report.queues.append(BrokerQueue(name, found.message_count, found.consumer_count))
        if not found.consumer_count:
            report.facts.append(Fact(name, "0", _("No worker serves this queue.")))
        channel.close()

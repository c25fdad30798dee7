"""What lies beside the messages where people look: events, recipients, search keys, suppressions, waiting mail."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from copy import copy
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import connections, models, transaction
from django.db.backends.utils import CursorWrapper

from congressy_mailer import metrics, outbox, pause, send_bulk, send_mail
from congressy_mailer.models import (
    Batch,
    CountSample,
    Event,
    Message,
    Priority,
    RecipientStatus,
    SearchKey,
    State,
    Suppression,
    TransportStatus,
    WebhookBatch,
    clock,
    new_id,
)

from ..mails import SHARED, TEMPLATE
from .databases import analyze, using
from .history import ACCEPTED, concatenated, numbers

#: Messages that have events, three each: the newest.
MOST_WITH_EVENTS = 1_000_000
#: Open batches, and how many of their messages wait; the first is larger.
BATCHES = 12
_IN_BATCH = 2000
_IN_FIRST_BATCH = 20_000
#: Mails in no batch that wait.
_SINGLE = 5_000
#: Open batches of an outbox in which something has gone wrong for long.
MANY_BATCHES = 10_000
_SUPPRESSED = 100_000
_WEBHOOK_BATCHES = 10_000
#: Processes, each of which has written a sample in each of the last seconds.
_PROCESSES = 16
_SECONDS = 30
_CHUNK = 1000

#: Before many rows are stored, and afterwards: rows that refer to each other are known to do so.
_QUICK = {
    "postgresql": ("SET session_replication_role = replica", "SET session_replication_role = DEFAULT"),
    "mysql": ("SET foreign_key_checks = 0, unique_checks = 0", "SET foreign_key_checks = 1, unique_checks = 1"),
}


def surround(alias: str) -> None:
    """Store all of it, and analyse the database."""
    with using(alias):
        connection = connections[alias]
        before, after = _QUICK.get(connection.vendor, ("", ""))
        with connection.cursor() as cursor:
            if before:
                cursor.execute(before)
            _add_events(alias, cursor)
            _add_search_keys(alias, cursor)
            _add_suppressions(alias, cursor)
            if after:
                cursor.execute(after)
        _count_a_week()
        _queue()
        _troubles()
        analyze(alias)


def _add_events(alias: str, cursor: CursorWrapper) -> None:
    vendor = connections[alias].vendor
    newest = list(Message.objects.order_by("-id").values_list("id", flat=True)[MOST_WITH_EVENTS - 1 :][:1])
    first = newest[0] if newest else UUID(int=0)
    key = first.hex if vendor == "sqlite" else str(first)
    of_message = f"m.id >= '{key}' AND m.state = 'sent'"
    messages = Message._meta.db_table
    kinds = "(SELECT 1 AS n, 'injected' AS type UNION ALL SELECT 2, 'delivered' UNION ALL SELECT 3, 'opened') AS kind"
    for index in Event._meta.indexes:
        _schema(alias, "remove_index", Event, index)
    number = "CAST(kind.n AS CHAR)" if vendor == "mysql" else "CAST(kind.n AS TEXT)"
    source = f"{messages} AS m CROSS JOIN {kinds} WHERE m.id >= '{key}'"
    _insert(cursor, vendor, Event, {
        "id": _key(vendor, number), "message_id": "m.id", "type": "kind.type", "at": "m.finished_at",
        "recipient": "m.address", "detail": "'smtp; 250 2.0.0 OK 1700000000 d2e1a72fcca58-6c320ebb88'",
        "key": f"MD5({_text(vendor, 'm.id', number)})", "sparkpost_id": f"substr(MD5({_text(vendor, 'm.id')}), 1, 20)",
    }, source)  # fmt: skip
    for index in Event._meta.indexes:
        _schema(alias, "add_index", Event, index)
    # A hundredth bounced, some were reported as spam, a third were opened.
    digit = f"substr(MD5({_text(vendor, 'm.id')}), 1, 2)"
    _insert(cursor, vendor, RecipientStatus, {
        "id": _key(vendor, "'s'"), "message_id": "m.id", "recipient": "m.address",
        "arrival": f"CASE WHEN {digit} IN ('a0', 'a1', 'a2') THEN 'bounced' ELSE 'delivered' END",
        "arrival_at": "m.finished_at", "arrival_key": f"MD5({_text(vendor, 'm.id', chr(39) + '2' + chr(39))})",
        "detail": "'smtp; 250 2.0.0 OK'", "opened_at": f"CASE WHEN {digit} < '55' THEN m.finished_at ELSE NULL END",
        "complained_at": f"CASE WHEN {digit} = 'ff' AND m.address < 'pessoa2' THEN m.finished_at ELSE NULL END",
    }, f"{messages} AS m WHERE {of_message}")  # fmt: skip


def _add_search_keys(alias: str, cursor: CursorWrapper) -> None:
    """The keys that :func:`congressy_mailer.outbox.search.search_keys` gives to the messages of the history."""
    vendor, messages = connections[alias].vendor, Message._meta.db_table
    quote = connections[alias].ops.quote_name
    person = "substr(m.address, 7, position('@' in m.address) - 7)"
    if vendor == "sqlite":
        person = "substr(m.address, 7, instr(m.address, '@') - 7)"
    to, cc = (_text(vendor, f"m.{quote(name)}") for name in ("to", "cc"))
    named, copied, about = f"{to} LIKE '%Silva%'", f"{cc} <> '[]'", "m.about_name <> ''"
    keys = {
        concatenated(vendor, "'pessoa '", person, "' silva'"): named,
        concatenated(vendor, person, "' silva'"): named,
        "'silva'": named,
        concatenated(vendor, "'copia'", person, "'@example.com'"): copied,
        "lower(m.about_name)": about,
        "substr(m.about_name, 8)": about,
    }
    for key, condition in keys.items():
        _insert(cursor, vendor, SearchKey, {"message_id": "m.id", "key": key}, f"{messages} AS m WHERE {condition}")


def _add_suppressions(alias: str, cursor: CursorWrapper) -> None:
    """A fifth of them for two reasons; and the batches of events that SparkPost has posted."""
    vendor = connections[alias].vendor
    number = "CAST(i AS CHAR)" if vendor == "mysql" else "CAST(i AS TEXT)"
    moment = {"postgresql": "now()", "mysql": "UTC_TIMESTAMP(6)"}.get(vendor, "datetime('now')")
    for source, condition in (("bounce", "i > 0"), ("complaint", "i % 5 = 0")):
        identity = f"MD5({concatenated(vendor, number, repr(source))})"
        _insert(cursor, vendor, Suppression, {
            "id": _as_id(vendor, f"substr({identity}, 20, 12)", identity),
            "address": concatenated(vendor, "'pessoa'", number, "'@example.com'"),
            "scope": "'transactional'", "source": f"'{source}'", "reason": "'550 5.1.1 no such user'",
            "created_at": moment, "synced_at": moment,
        }, f"{numbers(vendor, _SUPPRESSED)} WHERE {condition}")  # fmt: skip
    _insert(cursor, vendor, WebhookBatch, {
        "id": _as_id(vendor, f"substr(MD5({number}), 20, 12)", f"MD5({number})"),
        "key": number, "received_at": moment, "attempts": "1", "events": "300",
        "processed": "300",
    }, numbers(vendor, _WEBHOOK_BATCHES))  # fmt: skip


def _text(vendor: str, *columns: str) -> str:
    kind = "CHAR" if vendor == "mysql" else "TEXT"
    parts = [column if column.startswith(("CAST", "'")) else f"CAST({column} AS {kind})" for column in columns]
    return concatenated(vendor, *parts) if len(parts) > 1 else parts[0]


def _key(vendor: str, salt: str) -> str:
    """An id of the same millisecond as the message's, so that these rows lie in the order of time as well."""
    digits = f"REPLACE({_text(vendor, 'm.id')}, '-', '')"
    random = f"MD5({_text(vendor, 'm.id', salt)})"
    return _as_id(vendor, f"substr({digits}, 1, 12)", random)


def _as_id(vendor: str, moment: str, random: str) -> str:
    """A UUIDv7 of the twelve digits of a moment and of digits that say nothing."""
    parts = (moment, "'7'", f"substr({random}, 1, 3)", "'8'", f"substr({random}, 4, 15)")
    digits = concatenated(vendor, *parts)
    return f"({digits})::uuid" if vendor == "postgresql" else digits


def _insert(
    cursor: CursorWrapper, vendor: str, model: type[models.Model], values: Mapping[str, str], source: str
) -> None:
    """Store a row for each of a source; columns that are not named are null where they may be, else empty."""
    columns = {}
    for field in model._meta.concrete_fields:
        if not field.generated:
            columns[field.column] = values.get(field.column, "NULL" if field.null else "''")
    quote = connections[cursor.db.alias].ops.quote_name
    names = ", ".join(map(quote, columns))
    selected = f"SELECT {', '.join(columns.values())} FROM {source}"  # noqa: S608
    # A percent sign stands for itself where no parameters are given.
    cursor.execute(f"INSERT INTO {quote(model._meta.db_table)} ({names}) {selected}")


def _schema(alias: str, change: str, *arguments: Any) -> None:
    with connections[alias].schema_editor() as editor:
        getattr(editor, change)(*arguments)


def _count_a_week() -> None:
    """Counts as the workers of a week leave them: each minute has a dozen, and the last seconds are not added up."""
    now = clock.now().replace(second=0, microsecond=0)
    entries = [
        [backend, queue, 5, name, 100]
        for backend, queue in (("", "mailer"), ("", "mailer.bulk"), ("other", "mailer"))
        for name in ("accepted", "failed", "deferred:mailbox", "delivered", "bounced", "bucket:1", "bucket:3")
    ]
    moments = [now - timedelta(hours=hour) for hour in range(7 * 24)]
    moments += [now - timedelta(minutes=minute) for minute in range(24 * 60)]
    CountSample.objects.bulk_create(CountSample(minute=moment, counts=entries) for moment in moments)
    while metrics.fold():
        pass
    CountSample.objects.bulk_create(CountSample(minute=now, counts=entries) for _ in range(_PROCESSES * _SECONDS))


def _queue() -> None:
    """Mail of each kind that waits: in no batch, of several campaigns and priorities, and in batches under way."""
    single = send_mail("Boleto", "x", to="espera@example.com")
    later = clock.now() + timedelta(hours=1)
    states = [(State.QUEUED, None)] * 8 + [(State.SCHEDULED, later), (State.DEFERRED, later)]
    waiting = []
    for number in range(_SINGLE):
        state, due_at = states[number % len(states)]
        waiting.append(
            _copy(
                single, state=state, due_at=due_at or single.due_at, send_at=due_at,
                campaign=f"campanha-{number % 7}", using="other" if number % 4 == 0 else "",
                priority=list(Priority)[number % len(Priority)],
            )
        )  # fmt: skip
    _store(waiting)
    for number in range(BATCHES):
        people = (
            (f"espera{place}@example.com", {"name": f"Pessoa {place}", "code": f"{place:08}"})
            for place in range(_IN_BATCH if number else _IN_FIRST_BATCH)
        )
        batch = send_bulk(people, template=TEMPLATE, context=SHARED, campaign=f"lote-{number}", key=f"lote-{number}")
        token = outbox.new_claim_token("surroundings")
        held = outbox.claim_from_batch(batch, token, 200)
        outbox.record_accepted(token, [(message, ACCEPTED) for message in held])


def _troubles() -> None:
    """Backends that are unavailable, for which mail waits and for which none does; pauses; mail that is set aside."""
    now = clock.now()
    TransportStatus.objects.bulk_create(
        TransportStatus(using=alias, sender_domain=domain, unavailable_since=now, next_try_at=now + timedelta(hours=1))
        for alias, domain in (("", ""), ("other", ""), ("third", ""), ("", "nowhere.example"), ("", "congressy.net"))
    )
    logging.getLogger("congressy_mailer").setLevel(logging.ERROR)
    for number in range(5):
        pause(campaign=f"pausada-{number}", reason="As provas", by="ana")
    outbox.cancel(send_mail("Cancelled", "x", to="cancelled@example.com").pk)


def add_many_batches(alias: str) -> None:
    """Open batches, two mails in each, that have waited for an hour."""
    with using(alias):
        one = send_bulk(["espera1@example.com", "espera2@example.com"], template=TEMPLATE, context=SHARED)
        long_ago = clock.now() - timedelta(hours=1)
        batches = [
            _copy(one, key=f"aberto-{number}", created_at=long_ago, due_at=long_ago) for number in range(MANY_BATCHES)
        ]
        messages = list(one.messages.all())
        with transaction.atomic(using=alias):
            Batch.objects.bulk_create(batches, batch_size=_CHUNK)
        _store(_copy(message, batch=batch) for batch in batches for message in messages)
        analyze(alias)


def _copy(row: Any, **values: Any) -> Any:
    made = copy(row)
    made._state = copy(row._state)
    made._state.fields_cache = {}
    for name, value in {"pk": new_id(), **values}.items():
        setattr(made, name, value)
    return made


def _store(messages: Iterable[Message]) -> None:
    Message.objects.bulk_create(messages, batch_size=_CHUNK)

"""A year of finished messages: a hundred that our code has made, repeated by the database, each to somebody else."""

from __future__ import annotations

from django.db import connections, transaction
from django.db.models import Count, Min

from congressy_mailer import outbox, send_bulk, send_mail
from congressy_mailer.models import Batch, Message
from congressy_mailer.outbox.retention import drop_content
from congressy_mailer.replies import Reply

from ..mails import SHARED, TEMPLATE
from .databases import analyze, using

#: Days from the first to the last of them.
DAYS = 300
_KEEP_CONTENT = 30

ACCEPTED = Reply(250, "2.0.0 OK 3C/2F-12345-0123456789ABCDEF")
_SEEDS = 100
_IN_BATCHES = 60
# From one seed to the next, without a common divisor with their number: neither all batches first nor all others.
_STRIDE = 37
_CHUNK = 200_000
_TABLE = Message._meta.db_table

#: The age in seconds of message ``i``, the same as a time, and hexadecimal digits of a number, of so many digits.
_DIALECTS = {
    "postgresql": (
        "generate_series({first}, {last}) AS numbers(i)", "(now() - interval '1 second' * ({age}))",
        "lpad(to_hex((extract(epoch FROM {at}) * 1000)::bigint), 12, '0') || '7' || substr(md5(i::text), 1, 3) ||"
        " '8' || substr(md5(i::text), 4, 15)", "({hex})::uuid",
    ),
    "mysql": (
        "(SELECT seq AS i FROM seq_{first}_to_{last}) AS numbers", "(UTC_TIMESTAMP(6) - INTERVAL ({age}) SECOND)",
        "CONCAT(LPAD(LOWER(HEX(TRUNCATE(1000 * TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {at}) / 1000000, 0))), 12,"
        " '0'), '7', SUBSTR(MD5(i), 1, 3), '8', SUBSTR(MD5(i), 4, 15))", "{hex}",
    ),
    "sqlite": (
        "(WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last}) SELECT i FROM n)"
        " AS numbers", "strftime('%Y-%m-%d %H:%M:%f000', 'now', (-({age})) || ' seconds')",
        "printf('%012x', CAST((julianday({at}) - 2440587.5) * 86400000 AS INTEGER)) || '7' ||"
        " substr(lower(hex(randomblob(2))), 1, 3) || '8' || substr(lower(hex(randomblob(8))), 1, 15)", "{hex}",
    ),
}  # fmt: skip


def concatenated(vendor: str, *parts: str) -> str:
    """An expression of SQL that puts texts together."""
    return f"CONCAT({', '.join(parts)})" if vendor == "mysql" else f"({' || '.join(parts)})"


def numbers(vendor: str, last: int) -> str:
    """A source of rows whose column ``i`` counts from 1 on."""
    return _DIALECTS[vendor][0].format(first=1, last=last)


def fill(alias: str, rows: int) -> None:
    """Store so many finished messages in an empty database, and analyse it."""
    with using(alias):
        _make_seeds()
        connection = connections[alias]
        with connection.cursor() as cursor:
            numbered = f"SELECT row_number() OVER () - 1 AS n, {_TABLE}.* FROM {_TABLE}"  # noqa: S608
            cursor.execute(f"CREATE TABLE scale_seed AS {numbered}")
        if connection.vendor == "postgresql":
            # A table that is emptied in the same transaction needs no log; its indexes are built at the end.
            with transaction.atomic(using=alias):
                with connection.cursor() as cursor:
                    cursor.execute(f"TRUNCATE {_TABLE} CASCADE")
                with connection.schema_editor() as editor:
                    for index in Message._meta.indexes:
                        editor.remove_index(Message, index)
                _repeat(alias, 1, rows, rows)
                with connection.schema_editor() as editor:
                    for index in Message._meta.indexes:
                        editor.add_index(Message, index)
        else:
            Message.objects.all().delete()
            for first in range(1, rows + 1, _CHUNK):
                _repeat(alias, first, min(first + _CHUNK - 1, rows), rows)
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE scale_seed")
        _date_batches()
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                # As in a table that has been there for long.
                cursor.execute("VACUUM")
        analyze(alias)


def _make_seeds() -> None:
    for number in range(_IN_BATCHES):
        people = [(f"pessoa{number}@example.com", {"name": f"Pessoa {number}", "code": f"{number:08}"})]
        batch = send_bulk(people, template=TEMPLATE, context=SHARED)
        outbox.record_accepted("seed", [(message, ACCEPTED) for message in outbox.claim_from_batch(batch, "seed", 1)])
        outbox.reschedule_batch(batch.pk, batch.generation)
    ids = [send_mail("s", "b", to=f"p{number}@example.com") for number in range(_SEEDS - _IN_BATCHES)]
    held = outbox.claim([message.pk for message in ids if isinstance(message, Message)], "seed")
    outbox.fail("seed", held[0].pk, "It cannot be composed.")
    outbox.record_accepted("seed", [(message, ACCEPTED) for message in held[1:]])
    drop_content([message.pk for message in held])


def _date_batches() -> None:
    """As old as their first messages are, and without content where these have none."""
    of_batch = Message.objects.exclude(batch=None).order_by().values("batch")
    for row in of_batch.annotate(first=Min("created_at"), stored=Count("id"), dropped=Count("content_dropped_at")):
        dropped_at = row["first"] if row["dropped"] == row["stored"] else None
        Batch.objects.filter(pk=row["batch"]).update(
            created_at=row["first"], stored_at=row["first"], last_stored_at=row["first"], content_dropped_at=dropped_at
        )


def _repeat(alias: str, first: int, last: int, rows: int) -> None:
    connection = connections[alias]
    source, moment, digits, key = _DIALECTS[connection.vendor]
    at = moment.format(age=f"{DAYS * 86400.0} * (1.0 - i * 1.0 / {rows})")
    quote = connection.ops.quote_name
    of_seed = {
        field.column: f"seed.{quote(field.column)}" for field in Message._meta.concrete_fields if not field.generated
    }
    times = {name: f"CASE WHEN seed.{name} IS NULL THEN NULL ELSE {at} END" for name in ("sent_at", "finished_at")}
    limit = _KEEP_CONTENT / DAYS
    dropped = f"CASE WHEN i <= {rows} * {1 - limit} THEN {at} ELSE seed.content_dropped_at END"
    columns = of_seed | times | _people(connection.vendor, rows) | {
        "id": key.format(hex=digits.format(at=at)), "created_at": at, "queued_at": at, "content_dropped_at": dropped
    }  # fmt: skip
    names = ", ".join(map(quote, columns))
    # One batch after another, each for three days, and between them what is in none.
    block = rows // _SEEDS
    seed = f"(i - 1 - (i - 1) % {block}) / {block} * {_STRIDE} % {_SEEDS}"
    joined = f"{source.format(first=first, last=last)} JOIN scale_seed AS seed ON seed.n = {seed}"
    with connection.cursor() as cursor:
        selected = f"SELECT {', '.join(columns.values())} FROM {joined}"  # noqa: S608
        cursor.execute(f"INSERT INTO {quote(_TABLE)} ({names}) {selected}")


def _people(vendor: str, rows: int) -> dict[str, str]:
    """Columns by which people find a message: ten mails for each address but one, which has one mail of a hundred; a
    tenth to a name, a twentieth with a copy, three tenths about an order, and some sensitive or never sent."""
    people = max(rows // 10, 100)
    person = f"(i % {people} * 37 % {people})"
    number = f"CASE WHEN i % 100 = 7 THEN 7 ELSE {person} END"
    number = {"mysql": f"CAST({number} AS CHAR)"}.get(vendor, f"CAST({number} AS TEXT)")
    order = {"mysql": "CAST(i DIV 3 AS CHAR)"}.get(vendor, "CAST(i / 3 AS TEXT)")

    def text(*parts: str) -> str:
        return concatenated(vendor, *(part if part in (number, order) else f"'{part}'" for part in parts))

    def addresses(value: str) -> str:
        return f"({value})::jsonb" if vendor == "postgresql" else value

    to = text('["pessoa', number, '@example.com"]')
    named = text('["Pessoa ', number, " Silva <pessoa", number, '@example.com>"]')
    copied = text('["copia', number, '@example.com"]')
    state = "CASE i % 500 WHEN 1 THEN 'suppressed' WHEN 2 THEN 'expired' ELSE seed.state END"
    return {
        "address": text("pessoa", number, "@example.com"),
        "to": addresses(f"CASE WHEN i % 10 = 3 THEN {named} ELSE {to} END"),
        "cc": addresses(f"CASE WHEN i % 20 = 5 THEN {copied} ELSE '[]' END"),
        "state": state,
        "sensitive": {"sqlite": "i % 50 = 11"}.get(vendor, "(i % 50 = 11)"),
        "about_model": "CASE WHEN i % 10 < 3 THEN 'shop.order' ELSE NULL END",
        "about_id": f"CASE WHEN i % 10 < 3 THEN {order} ELSE NULL END",
        "about_name": f"CASE WHEN i % 10 < 3 THEN {text('Pedido ', order)} ELSE '' END",
    }

"""What the caller's process does: the functions that :class:`.agent.Agent` can order, after Django is set up.

Times are those of ``time.monotonic()``, which all processes of a machine share.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from statistics import median
from typing import Any
from uuid import UUID, uuid4

from .mails import Mail, MergedMail, ReadyMail
from .systems import system
from .systems.base import System


def no_operation() -> None:
    """Answer."""


def connect() -> None:
    """Open the connection to the database."""
    from django.db import connection

    connection.ensure_connection()


def prepare() -> None:
    """What the system's users do once."""
    _system().prepare()


def clear() -> None:
    """Drop all mail from the database, and what it has cost there."""
    from django.db import connection

    _system().clear()
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            # Now, and not in the midst of the next measurement.
            cursor.execute("VACUUM ANALYZE")


def send_many(first: int, count: int) -> list[float]:
    """Send to many; returns when the call began and ended."""
    mails = (Mail(number) for number in range(first, first + count))
    began = time.monotonic()
    _system().send_many(mails)
    return [began, time.monotonic()]


def send_each(first: int, count: int) -> list[float]:
    """The same with a call for each."""
    send = _system().send
    began = time.monotonic()
    for number in range(first, first + count):
        send(Mail(number))
    return [began, time.monotonic()]


def send_together(first: int, count: int) -> list[float]:
    """A call for each, in one transaction."""
    from django.db import transaction

    send = _system().send
    began = time.monotonic()
    with transaction.atomic():
        for number in range(first, first + count):
            send(Mail(number))
    return [began, time.monotonic()]


def send_merged(first: int, count: int) -> list[float]:
    """django-anymail's one call for many: SparkPost puts name and code in, and nothing is rendered for one of them."""
    from anymail.message import AnymailMessage
    from django.core.mail import get_connection

    from .mails import SENDER

    mails = [Mail(number) for number in range(first, first + count)]
    began = time.monotonic()
    subject, text, html = MergedMail(first).render()
    connection = get_connection("anymail.backends.sparkpost.EmailBackend")
    message = AnymailMessage(subject, text, SENDER, [mail.address for mail in mails], connection=connection)
    message.attach_alternative(html, "text/html")
    message.merge_data = {mail.address: mail.own_context for mail in mails}
    message.send()
    return [began, time.monotonic()]


def fill(count: int) -> None:
    """Fill the queue with bulk mail as fast as can be."""
    content: list[tuple[str, str, str]] = []
    _system().send_many(ReadyMail(number, content=content) for number in range(1, count + 1))


def send_urgent(word: str, number: int) -> list[float]:
    """Send one mail that cannot wait; returns when the call began and ended."""
    began = time.monotonic()
    _system().send_urgent(Mail(number, word))
    return [began, time.monotonic()]


def memory() -> int:
    """The most that this process has had in memory, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# One connection to the mail server


def deliver_ours(count: int) -> int:
    """Hand mails to our transport, which keeps its connection; returns how many were accepted."""
    from congressy_mailer.transports.selection import transport_for

    with transport_for("") as transport:
        outcomes = list(transport.deliver(_composed(count)))
    return sum(bool(outcome.accepted) for outcome in outcomes)


def deliver_django(count: int) -> int:
    """Hand mails to Django's backend on one open connection, which is what ``smtplib`` can do."""
    global _backend
    from django.core.mail import get_connection

    if _backend is None:
        _backend = get_connection("django.core.mail.backends.smtp.EmailBackend")
        _backend.open()
    return int(_backend.send_messages([Mail(number).django_message() for number in range(count)]))


_backend: Any = None


def rate_of_socket(count: int) -> float:
    """Mails per second on one connection that does nothing but send bytes made before: the limit."""
    from . import raw

    return raw.over_socket(_wire_bytes(), count)


def rate_of_sockets(count: int, sockets: int) -> float:
    """The same on several connections at once, together; each sends so many."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(sockets) as threads:
        return sum(threads.map(rate_of_socket, [count] * sockets))


def rate_of_smtplib(count: int) -> float:
    """Mails per second on one connection of ``smtplib`` that is kept, with bytes made before."""
    from . import raw

    return raw.over_smtplib(_wire_bytes(), count)


def _wire_bytes() -> bytes:
    return bytes(Mail(1).django_message().message().as_bytes())


# Composing


def compose_ours(count: int) -> list[float]:
    """Milliseconds for each mail, from rendered content to the bytes that go over the wire; and their number."""
    from congressy_mailer.delivery.composing import compose
    from congressy_mailer.transports.base import ComposedMail
    from congressy_mailer.transports.envelope import envelope_for

    messages = [_message(number) for number in range(count)]
    rendered = _rendered()
    key = uuid4()
    began = time.perf_counter()
    for message in messages:
        content = envelope_for(ComposedMail(key, compose(message, rendered, []))).write_out()
    return [(time.perf_counter() - began) * 1000 / count, len(content)]


def compose_django(count: int) -> list[float]:
    """The same with Django's own classes."""
    from django.core.mail import EmailMultiAlternatives

    subject, text, html = Mail(1).render()
    messages = [_message(number) for number in range(count)]
    began = time.perf_counter()
    for message in messages:
        mail = EmailMultiAlternatives(
            subject, text, message.from_email, message.to, headers={"Message-ID": message.message_id}
        )
        mail.attach_alternative(html, "text/html")
        content = mail.message().as_bytes()
    return [(time.perf_counter() - began) * 1000 / count, len(content)]


def queue_django(count: int) -> float:
    """Milliseconds for each mail of Django's in one ``send_messages()`` of the queue, which are then not committed."""
    from django.core.mail import EmailMultiAlternatives
    from django.db import transaction

    from congressy_mailer.backends import EmailBackend

    subject, text, html = Mail(1).render()
    mails = []
    for number in range(count):
        message = _message(number)
        mail = EmailMultiAlternatives(subject, text, message.from_email, message.to)
        mail.attach_alternative(html, "text/html")
        mails.append(mail)
    with transaction.atomic():
        began = time.perf_counter()
        EmailBackend().send_messages(mails)
        ended = time.perf_counter()
        transaction.set_rollback(True)
    return (ended - began) * 1000 / count


# What a call costs


def cost_of_send(first: int, count: int) -> float:
    """Milliseconds that one call keeps its caller: the median of so many."""
    send = _system().send
    return _median_of(partial(send, Mail(number)) for number in range(first, first + count))


def cost_of_insert_and_publish(count: int) -> float:
    """Milliseconds for a Django ``INSERT`` of a row as ours and Celery's publishing of a task as ours."""
    return _cost_of(lambda row: row.save(force_insert=True), count)


def cost_of_bare_insert_and_publish(count: int) -> float:
    """The same where the SQL is ready: only the database and the broker are waited for."""
    from django.db import connection, models
    from django.db.models.sql import InsertQuery

    from congressy_mailer.models import Message

    def statement(row: models.Model) -> tuple[str, Any]:
        query = InsertQuery(Message)
        # What the database derives is not written, nor known before.
        fields = [field for field in Message._meta.concrete_fields if not field.generated]
        query.insert_values(fields, [row], raw=False)
        ready: tuple[str, Any] = query.get_compiler(connection=connection).as_sql()[0]
        return ready

    statements: dict[UUID, tuple[str, Any]] = {}

    def write(rows: Iterable[Any]) -> None:
        statements.update((row.pk, statement(row)) for row in rows)

    def insert(row: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(*statements[row.pk])

    return _cost_of(insert, count, write)


def _cost_of(insert: Callable[[Any], object], count: int, ready: Callable[[list[Any]], None] | None = None) -> float:
    from benchmarks.project.celery import app

    rows = [_message(number) for number in range(count)]
    if ready is not None:
        ready(rows)
    with app.producer_pool.acquire(block=True) as producer:

        def call(row: Any) -> None:
            insert(row)
            app.send_task(
                "congressy_mailer.deliver", [[str(row.pk)]], queue="mailer", producer=producer, ignore_result=True
            )

        return _median_of(partial(call, row) for row in rows)


def _median_of(calls: Iterable[Callable[[], object]]) -> float:
    """The median of how many milliseconds each takes: what else the machine does falls upon a few of them."""
    taken = []
    for call in calls:
        began = time.perf_counter()
        call()
        taken.append((time.perf_counter() - began) * 1000)
    return median(taken)


# Many rows


def cost_of_send_many(count: int) -> float:
    """Microseconds for each recipient."""
    began, ended = send_many(1, count)
    return (ended - began) * 1_000_000 / count


def cost_of_bulk(count: int, shape: str) -> list[float]:
    """The same with recipients that are written in one of the :data:`.mails.SHAPES`; and this process's part of it, in
    which the database and whatever else the machine does are not."""
    from congressy_mailer import send_bulk

    from .mails import SHARED, TEMPLATE, address_as

    recipients = [(address_as(shape, number), Mail(number).own_context) for number in range(count)]
    began, processor = time.perf_counter(), time.process_time()
    send_bulk(template=TEMPLATE, context=SHARED, recipients=recipients)
    taken = time.perf_counter() - began, time.process_time() - processor
    return [seconds * 1_000_000 / count for seconds in taken]


def cost_of_bulk_create(count: int) -> float:
    """Microseconds for each row, made and stored by Django's ``bulk_create()`` in parts of 1,000."""
    from congressy_mailer.models import Message

    began = time.perf_counter()
    for first in range(0, count, 1000):
        rows = [_message(number, alone=False) for number in range(first, min(first + 1000, count))]
        Message.objects.bulk_create(rows)
    return (time.perf_counter() - began) * 1_000_000 / count


def _system() -> System:
    return system(os.environ["BENCH_SYSTEM"])


def _message(number: int, *, alone: bool = True) -> Any:
    """A row as ``send_mail()`` stores it, or as ``send_bulk()`` does, where what is the same for all is elsewhere."""
    from django.utils import timezone

    from congressy_mailer.content.context import encode
    from congressy_mailer.models import Message

    from .mails import SENDER, TEMPLATE

    mail = Mail(number)
    now = timezone.now()
    return Message(
        to=[mail.address],
        from_email=SENDER,
        template=TEMPLATE,
        context=encode(mail.context if alone else mail.own_context, language="pt-br"),
        language="pt-br",
        timezone="America/Sao_Paulo",
        message_id=f"<{uuid4()}@congressy.net>",
        created_at=now,
        queued_at=now,
        due_at=now,
    )


def _rendered() -> Any:
    from congressy_mailer.mime.writer import MailContent

    return MailContent(*Mail(1).render())


def _composed(count: int) -> Iterator[Any]:
    from congressy_mailer.delivery.composing import compose
    from congressy_mailer.transports.base import ComposedMail

    rendered = _rendered()
    for number in range(count):
        message = _message(number)
        yield ComposedMail(message.pk, compose(message, rendered, []))


# SparkPost's events


def make_history(events: int) -> dict[str, int]:
    """See :func:`.event_orders.make_history`; so with those that follow."""
    from . import event_orders

    return event_orders.make_history(events)


def process_in_order() -> float:
    from . import event_orders

    return event_orders.process_in_order()


def process_shuffled() -> float:
    from . import event_orders

    return event_orders.process_shuffled()


def same_end_state() -> bool:
    from . import event_orders

    return event_orders.same_end_state()


def answer_webhook(events: int, posts: int) -> list[float]:
    from . import event_orders

    return event_orders.answer_webhook(events, posts)


def delete_events() -> None:
    from . import event_orders

    event_orders.delete_events()

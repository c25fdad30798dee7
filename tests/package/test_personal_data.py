"""Telling what is stored about a person, and erasing it: afterwards no table has the address, and no mail leaves."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core import mail
from django.db import connection
from django.utils import timezone

from congressy_mailer import outbox, personal_data, send_bulk, send_mail, suppressions
from congressy_mailer.exceptions import InvalidAddress
from congressy_mailer.models import Batch, Event, Message, RecipientStatus, State, Suppression, WebhookBatch
from congressy_mailer.suppressions import sync
from congressy_mailer.suppressions.entries import Entry
from congressy_mailer.suppressions.rules import Scope, Source
from congressy_mailer.tracking import inbox
from tests.support.commands import mailer
from tests.support.mails import deliver

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.database,
    pytest.mark.usefixtures("english", "published"),
]

ANA = "ana.silva@example.com"


def everything_stored() -> str:
    """Every row of every table of ours, as text."""
    tables = [name for name in connection.introspection.table_names() if name.startswith("congressy_mailer_")]
    parts = []
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")  # noqa: S608
            parts.append(repr(cursor.fetchall()))
    return "\n".join(parts).lower()


def stored_in_every_way() -> Message:
    """A person of whom there is something in every table; returns a mail to others as well."""
    deliver([send_mail("Boleto", "y", to=f"Ana Silva <{ANA}>", attachments=[("boleto.txt", b"1")])])
    send_mail("Later", "y", to=ANA.upper(), send_at=timezone.now() + timedelta(hours=1))
    shared = send_mail("Both", "y", to=["eva@example.com", f"Ana Silva <{ANA}>"], cc=[ANA])
    Message.objects.filter(pk=shared.pk).update(
        state=State.DEFERRED, due_at=timezone.now(), remaining=["eva@example.com", ANA], reply=f"451 {ANA} is full",
        reason=f"{ANA}: 451 full",
    )  # fmt: skip
    now = timezone.now()
    Event.objects.create(message=shared, type=Event.Type.DEFERRED, at=now, recipient=ANA, detail="full")
    Event.objects.create(message=shared, type=Event.Type.DEFERRED, at=now, detail=f"{ANA}: full")
    Event.objects.create(type=Event.Type.DELIVERED, at=now, recipient=ANA)
    RecipientStatus.objects.create(message=shared, recipient=ANA, arrival="bounced", arrival_at=now)
    send_bulk([ANA, "eva@example.com"], subject="News", message="y")
    batch = send_bulk([f"{ANA} <x"], subject="News", message="y", on_invalid="skip")
    assert ANA in json.dumps(batch.problems)
    ticket = inbox.store("1", json.dumps([{"recipient": ANA}]).encode(), 1)
    assert ticket is not None
    WebhookBatch.objects.update(due_at=None, problem="x")
    for source in (Source.BOUNCE, Source.UNSUBSCRIBE):
        suppressions.add(
            [Entry(at=now, source=source, reason=f"{ANA} said so", address=ANA, scope=Scope.NON_TRANSACTIONAL)]
        )
    return shared


def test_nothing_of_the_address_is_left_and_others_keep_theirs() -> None:
    shared = stored_in_every_way()
    assert ANA in everything_stored()
    erasure = personal_data.erase(f"Ana <{ANA}>")
    assert erasure == personal_data.Erasure(
        messages=3, shared_messages=1, events=1, problems=1, webhook_batches=1, suppressions=1, hashed_suppressions=1
    )
    left = everything_stored()
    assert ANA not in left
    assert "ana silva" not in left
    shared.refresh_from_db()
    assert (shared.to, shared.cc, shared.remaining) == (["eva@example.com"], [], ["eva@example.com"])
    assert shared.reply == "451 (erased) is full"
    assert Message.objects.filter(address="eva@example.com").count() == 2
    assert personal_data.erase(ANA) == personal_data.Erasure()


def test_whoever_objected_gets_no_mail_afterwards() -> None:
    stored_in_every_way()
    personal_data.erase(ANA)
    mail.outbox.clear()
    assert suppressions.is_suppressed(ANA, transactional=False)
    assert not suppressions.is_suppressed(ANA)
    marketing = send_mail("News", "y", to=ANA, transactional=False)
    assert marketing.state == State.SUPPRESSED
    # What is heard of again does not bring the address back.
    suppressions.add([Entry(at=timezone.now(), source=Source.COMPLAINT, address=ANA, scope=Scope.NON_TRANSACTIONAL)])
    assert not Suppression.objects.filter(address=ANA).exists()
    # Who asks for mail gets it.
    assert suppressions.unsuppress(ANA) == 1
    assert not suppressions.is_suppressed(ANA, transactional=False)


def test_sparkpost_is_not_told_of_a_hash() -> None:
    suppressions.suppress(ANA)
    assert sync.pending().count() == 2
    personal_data.erase(ANA)
    assert sync.pending().count() == 0


def test_what_is_being_sent_at_the_moment_is_told() -> None:
    message = send_mail("x", "y", to=ANA)
    outbox.claim([message.pk], outbox.new_claim_token("x"))
    assert personal_data.erase(ANA) == personal_data.Erasure(being_sent=1)
    out, complaint, status = mailer("forget", ANA, "--yes")
    assert (complaint, status) == ("1 message is being sent at this moment: run it again.", 1)
    Message.objects.update(state=State.SENT, token="", due_at=None, finished_at=timezone.now())
    assert mailer("forget", ANA, "--yes")[2] == 0
    assert not Message.objects.exists()


def test_all_others_of_a_mail_have_theirs() -> None:
    """An empty list of who is left would stand for everybody."""
    message = send_mail("x", "y", to=[ANA, "eva@example.com"])
    Message.objects.update(state=State.DEFERRED, due_at=timezone.now(), remaining=[ANA])
    personal_data.erase(ANA)
    message.refresh_from_db()
    assert (message.state, message.remaining, message.to) == (State.CANCELLED, None, ["eva@example.com"])


def test_what_is_stored_is_told_without_other_people() -> None:
    stored_in_every_way()
    told = json.loads(mailer("forget", ANA, "--export")[0])
    assert told["address"] == ANA
    assert len(told["messages"]) == 4
    assert "eva@example.com" not in json.dumps(told)
    assert {entry["source"] for entry in told["suppressions"]} == {"bounce", "unsubscribe"}
    assert len(told["events"]) == 1
    assert Message.objects.count() == 5
    send_mail("Code 7711", "y", to=ANA, sensitive=True)
    assert "7711" not in mailer("forget", ANA, "--export")[0]


def test_a_person_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    send_mail("x", "y", to=ANA)
    monkeypatch.setattr("sys.stdin", StringIO())
    assert mailer("forget", ANA)[1:] == ("Without a terminal to ask for confirmation, --yes is required.", 2)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda text: "n")
    assert mailer("forget", ANA)[1:] == ("Nothing was erased.", 2)
    monkeypatch.setattr("builtins.input", lambda text: "s")
    out, _, status = mailer("forget", ANA)
    assert (status, "Messages erased: 1." in out) == (0, True)
    assert not Message.objects.exists()
    assert not Batch.objects.exists()


def test_an_address_that_is_none() -> None:
    with pytest.raises(InvalidAddress):
        personal_data.erase("ana")
    assert mailer("forget", "ana", "--yes")[2] == 2

"""Many mails at once: stored in constant memory, each with what its recipient gets."""

from __future__ import annotations

import re
import sys
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core import mail
from django.db import transaction
from django.test import RequestFactory
from django.utils import timezone
from django.views.debug import ExceptionReporter

from congressy_mailer import Attachment, Priority, Recipient, asend_bulk, outbox, send_bulk, send_mail
from congressy_mailer.delivery import upkeep
from congressy_mailer.exceptions import (
    InvalidAddress,
    InvalidOption,
    TemplateNotFound,
)
from congressy_mailer.models import Attachment as StoredAttachment
from congressy_mailer.models import Batch, Message, State
from congressy_mailer.models.progress import Progress
from congressy_mailer.submission import batch_writer
from tests.support.bulk import LOCMEM, Broken, addresses, people_with_context
from tests.support.mails import deliver_batch

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("published")]


@pytest.mark.email_settings
@LOCMEM
def test_each_recipient_gets_a_mail_of_its_own() -> None:
    batch = send_bulk(
        people_with_context(250),
        template="mail/hello",
        context={"user": {"username": "nobody"}, "event": "Semana"},
        subject="Olá",
        language="pt-br",
    )
    assert batch.progress() == Progress({State.QUEUED: 250}, 0, True)
    deliver_batch(batch)
    progress = batch.progress()
    assert (progress.total, progress.sent, progress.finished, progress.done) == (250, 250, 250, True)
    assert sorted(one.to[0] for one in mail.outbox) == addresses(batch)
    bodies = {one.to[0]: one.body for one in mail.outbox}
    assert "Ana 7" in bodies["ana7@example.com"]
    assert "Ana 70" in bodies["ana70@example.com"]
    assert len({one.extra_headers["Message-ID"] for one in mail.outbox}) == 250


def test_what_is_stored_is_what_send_mail_would_have_stored() -> None:
    options: dict[str, Any] = {
        "headers": {"X-Event": 'Semana\t"da"\\Computação'.replace("\t", " ")}, "reply_to": ["Zé <ze@example.com>"],
        "expires_at": timezone.now() + timedelta(days=3), "priority": Priority.LOW, "language": "pt-br",
        "timezone": "America/Manaus", "transactional": True,
    }  # fmt: skip
    context = {"text": 'a\tb\\n "ç" \u2028 \\', "none": None, "list": [1, {"x": 2.5}], "when": timezone.now()}
    single = send_mail(template="mail/hello", subject="Olá", to="Ana <ana@example.com>", context=context, **options)
    batch = send_bulk(
        [Recipient(to="Ana <ana@example.com>", context=context, cc="bia@example.com", bcc=["c@example.com"])],
        template="mail/hello", subject="Olá", **options,
    )  # fmt: skip
    stored = batch.messages.get()
    same = (
        "to", "from_email", "reply_to", "headers", "language", "timezone", "transactional", "sensitive", "priority",
        "expires_at", "send_at", "using", "context", "state", "attempts", "crashes", "token", "mime", "remaining",
        "idempotency_key", "reply", "reason", "content_dropped_at", "handover_started_at", "sent_at", "finished_at",
    )  # fmt: skip
    assert {name: getattr(stored, name) for name in same} == {
        name: getattr(Message.objects.get(pk=single.pk), name) for name in same
    }
    assert (stored.cc, stored.bcc) == (["bia@example.com"], ["c@example.com"])
    assert stored.message_id == f"<{stored.pk.hex}@congressy.net>"
    assert (stored.template, stored.subject) == ("", "")
    assert (stored.content.template, stored.content.subject) == ("mail/hello", "Olá")


def test_where_one_recipient_is_wrong_nothing_is_stored() -> None:
    with pytest.raises(InvalidAddress, match=r"^recipients\[1001\]: to is not "):
        send_bulk(
            [*(address for address, _ in people_with_context(1001)), "ana@", "bia@example.com"],
            subject="x",
            message="y",
        )
    with pytest.raises(InvalidOption, match=r"^recipients\[0\]: It is a int"):
        send_bulk([7], subject="x", message="y")
    with pytest.raises(InvalidOption, match=r"^recipients\[0\]: It has a context, and the batch has no template"):
        send_bulk([("ana@example.com", {"a": 1})], subject="x", message="y")
    with pytest.raises(TemplateNotFound):
        send_bulk([], template="there/is/none")
    with pytest.raises(InvalidOption, match="recipients must be a list"):
        send_bulk("ana@example.com", subject="x", message="y")
    assert not Message.objects.exists()
    assert not Batch.objects.exists()


def test_recipients_that_are_wrong_are_left_out_and_reported() -> None:
    wrong = [object(), "ana@", ("bia@example.com", {"x": object()}), Recipient(to=[]), None]
    batch = send_bulk(
        [*people_with_context(3), *wrong, *people_with_context(2, first=3)],
        template="mail/hello",
        subject="x",
        on_invalid="skip",
    )
    batch.refresh_from_db()
    assert addresses(batch) == [f"ana{number}@example.com" for number in range(5)]
    assert batch.skipped == len(wrong)
    assert [problem["position"] for problem in batch.problems] == [3, 4, 5, 6, 7]
    assert 'context["x"]' in batch.problems[2]["reason"]
    assert batch.problems[1]["recipient"] == "ana@"


def test_no_more_problems_are_kept_than_people_read() -> None:
    batch = send_bulk(["x"] * 300, subject="x", message="y", on_invalid="skip")
    assert (batch.skipped, len(batch.problems)) == (300, batch_writer.MAX_PROBLEMS)


def test_a_rollback_takes_all_of_it_back() -> None:
    with pytest.raises(Broken), transaction.atomic():
        send_bulk(people_with_context(10), template="mail/hello", subject="x", on_invalid="skip")
        raise Broken
    assert not Batch.objects.exists()


@pytest.mark.email_settings
@LOCMEM
def test_alternatives_of_all_and_of_one_arrive_and_are_dropped_with_the_content() -> None:
    invitation, own = ("BEGIN:VCALENDAR\nall", "text/calendar; method=REQUEST"), ('{"a": "\\t"}\tá', "text/x-data")
    people = [Recipient(to="ana@example.com", alternatives=[own]), "bia@example.com"]
    batch = send_bulk(people, subject="x", message="y", alternatives=[invitation])
    deliver_batch(batch)
    got = {one.to[0]: [tuple(alternative) for alternative in one.alternatives] for one in mail.outbox}
    assert got == {"ana@example.com": [invitation, own], "bia@example.com": [invitation]}
    long_ago = timezone.now() - timedelta(days=31)
    Message.objects.update(finished_at=long_ago)
    Batch.objects.update(created_at=long_ago)
    while outbox.purge():
        pass
    assert not any(Message.objects.values_list("alternatives", flat=True))
    assert Batch.objects.get().alternatives == []
    wrong = Recipient(to="ana@example.com", alternatives=[("x", "image/png")])
    with pytest.raises(InvalidOption, match=r"recipients\[0\]: alternatives\[0\]: 'image/png' is no type of text"):
        send_bulk([wrong], subject="x", message="y")


def test_attachments_of_all_are_stored_once_and_those_of_one_by_what_they_are() -> None:
    voucher, terms = b"%PDF voucher", b"%PDF terms"
    recipients = [
        Recipient(to=f"ana{number}@example.com", attachments=[Attachment(f"{number}.pdf", content)])
        for number, content in enumerate([voucher, voucher, b"%PDF other"])
    ]
    batch = send_bulk(recipients, subject="x", message="y", attachments=[Attachment("terms.pdf", terms)])
    stored = StoredAttachment.objects.all()
    assert len(stored) == 4
    assert len({one.file.name for one in stored}) == 3
    deliver_batch(batch)
    parts = {one.to[0]: [(name, content) for name, content, _ in map(_part, one.attachments)] for one in mail.outbox}
    assert parts["ana1@example.com"] == [("terms.pdf", terms), ("1.pdf", voucher)]
    assert parts["ana2@example.com"] == [("terms.pdf", terms), ("2.pdf", b"%PDF other")]
    # A file that two share goes with the second of them.
    shared = next(one.file for one in stored if one.filename == "0.pdf")
    long_ago = timezone.now() - timedelta(days=31)
    Message.objects.filter(to=["ana0@example.com"]).update(finished_at=long_ago)
    outbox.purge()
    outbox.delete_files()
    assert shared.storage.exists(shared.name)
    Message.objects.update(finished_at=long_ago)
    Batch.objects.update(created_at=long_ago)
    while upkeep.purge_some():
        pass
    upkeep.purge_some()
    assert not StoredAttachment.objects.exists()
    assert not any(one.file.storage.exists(one.file.name) for one in stored)
    batch.refresh_from_db()
    assert batch.content_dropped_at is not None


def _part(attachment: Any) -> tuple[str, bytes, str]:
    return attachment.get_filename(), attachment.get_payload(decode=True), attachment.get_content_type()


@pytest.mark.email_settings
@LOCMEM
def test_a_recipient_has_a_language_and_a_zone_of_its_own() -> None:
    recipients = [Recipient(to="ana@example.com"), Recipient(to="ann@example.com", language="en", timezone="UTC")]
    batch = send_bulk(recipients, template="mail/hello", subject="x", language="pt-br")
    assert list(batch.messages.order_by("id").values_list("language", "timezone")) == [
        ("pt-br", "America/Sao_Paulo"), ("en", "UTC"),
    ]  # fmt: skip
    with pytest.raises(InvalidOption, match=r"^recipients\[0\]: .*language"):
        send_bulk([Recipient(to="ana@example.com", language="xx-yy-zz")], subject="x", message="y")


def test_from_an_asynchronous_view() -> None:
    batch = async_to_sync(asend_bulk)(["ana@example.com"], subject="x", message="y")
    assert addresses(batch) == ["ana@example.com"]


@pytest.mark.parametrize("way", ["raise", "skip"])
def test_where_the_host_commits_by_hand_a_sweep_finds_the_batch(way: Any) -> None:
    transaction.set_autocommit(False)
    try:
        batch = send_bulk(people_with_context(3), template="mail/hello", subject="x", on_invalid=way)
        transaction.commit()
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert batch.progress().total == 3
    assert Batch.objects.get().due_at is not None


def test_reports_of_errors_do_not_show_what_is_sensitive() -> None:
    try:
        send_bulk([("ana@", {"link": "geheim"})], template="mail/hello", subject="x", sensitive=True)
    except InvalidAddress:
        report = ExceptionReporter(RequestFactory().get("/"), *sys.exc_info()).get_traceback_html()
    shown = re.findall(r'<td class="code"><pre>(.*?)</pre>', report, re.DOTALL)
    assert shown
    assert not [value for value in shown if "geheim" in value]

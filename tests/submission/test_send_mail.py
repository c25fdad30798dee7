"""The call: what it stores, and every error it raises before anything is stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import IntegrityError
from django.template import TemplateDoesNotExist
from django.test import override_settings
from django.utils import timezone, translation
from django.utils.functional import lazystr
from django.utils.translation import gettext_lazy

from congressy_mailer import MailerError, Priority, asend_mail, exceptions, send_mail
from congressy_mailer.models import Attachment, Message, State
from congressy_mailer.submission import storing_once

pytestmark = pytest.mark.django_db

ERRORS: list[tuple[dict[str, Any], type[MailerError], type[Exception], str]] = [
    ({"to": []}, exceptions.NoRecipient, ValueError, "no recipient: to, cc and bcc are all empty"),
    ({"to": None}, exceptions.NoRecipient, ValueError, "no recipient"),
    ({"to": ["nobody"]}, exceptions.InvalidAddress, ValueError, r"to\[0\] is not"),
    ({"cc": ["nobody"]}, exceptions.InvalidAddress, ValueError, r"cc\[0\] is not"),
    ({"bcc": ["a@b.com\nBcc: c@d.com"]}, exceptions.InvalidAddress, ValueError, r"bcc\[0\] holds a line break"),
    ({"reply_to": ["nobody"]}, exceptions.InvalidAddress, ValueError, r"reply_to\[0\] is not"),
    ({"from_email": "nobody"}, exceptions.InvalidAddress, ValueError, "from_email is not"),
    ({"to": "user@\u2474.com"}, exceptions.InvalidAddress, ValueError, "to is not a mail address"),
    ({"to": "ana@gmail.com…"}, exceptions.InvalidAddress, ValueError, "to is not a mail address"),
    ({"cc": "a@x.com，b＠evil.com"}, exceptions.InvalidAddress, ValueError, "cc is not a mail address"),
    ({"to": "root@web1"}, exceptions.InvalidAddress, ValueError, "INTRANET_HOSTS"),
    ({"headers": {"Sender": "nobody"}}, exceptions.InvalidAddress, ValueError, r"headers\['Sender'\] is not"),
    ({"headers": {"sender": "a@x.example, b@x.example"}}, exceptions.InvalidAddress, ValueError, "must be one address"),
    ({"headers": {"Resent-To": "a@x.example, b"}}, exceptions.InvalidAddress, ValueError, r"\['Resent-To'\] is not"),
    ({"from_email": " "}, exceptions.InvalidAddress, ValueError, "from_email is empty"),
    ({"subject": b"Ol"}, exceptions.InvalidHeader, ValueError, "The subject must be text, not bytes"),
    ({"subject": "x" * 1200}, exceptions.InvalidHeader, ValueError, "The subject has a word that is too long"),
    ({"headers": {"X-A": None}}, exceptions.InvalidHeader, ValueError, r"headers\['X-A'\] is empty"),
    ({"headers": {"X-A": b"5"}}, exceptions.InvalidHeader, ValueError, r"headers\['X-A'\] must be text, not bytes"),
    ({"headers": [("X", "y")]}, exceptions.InvalidHeader, ValueError, "headers must be a dict of values by name, not"),
    ({"message": b"x"}, exceptions.InvalidOption, ValueError, "message must be text, not bytes"),
    ({"html_message": b"x"}, exceptions.InvalidOption, ValueError, "html_message must be text, not bytes"),
    ({"subject": "a\nBcc: c@d.com"}, exceptions.InvalidHeader, ValueError, "The subject must not hold line breaks"),
    ({"headers": {"X": "a\r\nY: b"}}, exceptions.InvalidHeader, ValueError, r"headers\['X'\] must not hold"),
    ({"headers": {"To": "a@b.com"}}, exceptions.InvalidHeader, ValueError, "give To as to="),
    ({"message": "a\x00b"}, exceptions.InvalidOption, ValueError, r"message holds '\\x00' at position 1"),
    ({"html_message": "\ud800"}, exceptions.InvalidOption, ValueError, "html_message holds"),
    ({"context": {}}, exceptions.InvalidOption, ValueError, "context is given without a template"),
    ({"template": "no/such"}, exceptions.TemplateNotFound, TemplateDoesNotExist, "no/such"),
    ({"template": "mail/hello", "message": "x"}, exceptions.InvalidOption, ValueError, "Give template, or ready text"),
    ({"template": "mail/hello", "context": {"order": {"items": [0, 1, 2, object()]}}},
     exceptions.ContextNotSerializable, TypeError, r'context\["order"\]\["items"\]\[3\]'),
    ({"attachments": ["/no/such/file"]}, exceptions.AttachmentUnreadable, OSError, r"attachments\[0\]: .*No such file"),
    ({"attachments": [("a", b"x" * 14_000_001)]}, exceptions.AttachmentTooLarge, ValueError, "14,000,001 bytes"),
    ({"send_at": datetime(2030, 1, 1)}, exceptions.InvalidOption, ValueError, "send_at has no time zone"),  # noqa: DTZ001
    ({"expires_at": datetime(2030, 1, 1)}, exceptions.InvalidOption, ValueError, "expires_at has no time zone"),  # noqa: DTZ001
    ({"send_at": datetime.max.replace(tzinfo=ZoneInfo("America/Sao_Paulo"))}, exceptions.InvalidOption, ValueError,
     "send_at is beyond the calendar"),
    ({"expires_at": datetime.max.replace(tzinfo=UTC)}, exceptions.InvalidOption, ValueError,
     "expires_at is beyond the calendar"),
    ({"transactional": None}, exceptions.InvalidOption, ValueError, "transactional must be True or False, not None"),
    ({"sensitive": "no"}, exceptions.InvalidOption, ValueError, "sensitive must be True or False, not 'no'"),
    ({"send_at": "tomorrow"}, exceptions.InvalidOption, ValueError, "send_at must be a datetime, not str"),
    ({"priority": 3}, exceptions.InvalidOption, ValueError, "priority=3 is not one of Priority.HIGH"),
    ({"idempotency_key": ""}, exceptions.InvalidOption, ValueError, "text of 1 to 200 characters"),
    ({"idempotency_key": "x" * 201}, exceptions.InvalidOption, ValueError, "text of 1 to 200 characters"),
    ({"using": "nowhere"}, exceptions.InvalidOption, ValueError, "using='nowhere' is not a mail backend"),
    ({"using": ["a"]}, exceptions.InvalidOption, ValueError, r"using=\['a'\] is not a mail backend"),
    ({"language": 5}, exceptions.InvalidOption, ValueError, "language=5 is not a language"),
    ({"language": ["pt"]}, exceptions.InvalidOption, ValueError, r"language=\['pt'\] is not a language"),
    ({"timezone": UTC}, exceptions.InvalidOption, ValueError, "timezone=.* is not a time zone"),
    ({"language": "xx-nowhere"}, exceptions.InvalidOption, ValueError, "language='xx-nowhere'"),
    ({"timezone": "America/Atlantis"}, exceptions.InvalidOption, ValueError, "timezone='America/Atlantis'"),
    ({"timezone": "../../etc/passwd"}, exceptions.InvalidOption, ValueError, "timezone='../../etc/passwd'"),
    ({"recipient_list": ["a@b.com"]}, exceptions.InvalidOption, ValueError, "as recipient_list or as to, not as both"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "builtin", "message"), ERRORS)
def test_bad_input_is_refused_before_anything_is_stored(
    arguments: dict[str, Any], error: type[MailerError], builtin: type[Exception], message: str
) -> None:
    given = {"subject": "Olá", "to": ["ana@example.com"], **arguments}
    with pytest.raises(error, match=message) as raised:
        send_mail(**given)
    assert isinstance(raised.value, MailerError)
    assert isinstance(raised.value, builtin)
    assert not Message.objects.exists()
    assert not Attachment.objects.exists()


_LONG = [piece * (100_000 // len(piece)) for piece in ("a", "<", '"', "(", "\\", ",", "a@b.", "ü.", '"\\', "=?")]


@pytest.mark.parametrize("long", _LONG, ids=lambda long: long[:5])
@pytest.mark.parametrize(
    "arguments",
    [
        lambda long: {"to": long},
        lambda long: {"to": [f"{long} <ana@example.com>"]},
        lambda long: {"cc": [long]},
        lambda long: {"bcc": [f"ana@{long}.com"]},
        lambda long: {"reply_to": long},
        lambda long: {"from_email": long},
        lambda long: {"headers": {"Sender": long}},
        lambda long: {"headers": {"Resent-Cc": f"ana@example.com, {long}"}},
        lambda long: {"headers": {"Disposition-Notification-To": long}},
        lambda long: {"sparkpost": {"bcc": [long]}},
    ],
)
def test_a_long_text_costs_no_time(arguments: Callable[[str], dict[str, Any]], long: str) -> None:
    begun = time.thread_time()
    with pytest.raises(MailerError) as raised:
        send_mail(**{"subject": "Olá", "to": ["ana@example.com"], **arguments(long)})
    assert time.thread_time() - begun < 1
    assert len(str(raised.value)) < 1000


def test_addresses_are_stored_as_they_are_sent() -> None:
    message = send_mail(
        "Olá", "Texto", 'Feira  de "Livros" <feira@FAß.de>', to="Ana  Silva <ana@Example.COM>", cc="eva@münchen.de",
        bcc="ana@[2001:DB8::1]", reply_to='"a b"@example.com',
        headers={"Sender": '"Silva,  Ana" <ana@FAß.de>', "Resent-To": "Zé <ze@Example.com>,eva@x.example"},
    )  # fmt: skip
    message.refresh_from_db()
    assert message.from_email == "Feira de Livros <feira@xn--fa-hia.de>"
    assert (message.to, message.cc) == (["Ana Silva <ana@example.com>"], ["eva@xn--mnchen-3ya.de"])
    assert (message.bcc, message.reply_to) == (["ana@[IPv6:2001:db8::1]"], ['"a b"@example.com'])
    assert message.headers["Sender"] == '"Silva, Ana" <ana@xn--fa-hia.de>'
    assert message.headers["Resent-To"] == "Zé <ze@example.com>, eva@x.example"
    assert message.message_id == f"<{message.pk.hex}@xn--fa-hia.de>"
    assert message.envelope == ["ana@example.com", "eva@xn--mnchen-3ya.de", "ana@[IPv6:2001:db8::1]"]


def test_who_is_named_twice_gets_one_copy() -> None:
    message = send_mail(
        "Olá", "Texto", to=["Ana@example.com", "eva@faß.de"], cc=["Ana <ana@EXAMPLE.com>", "EVA@xn--fa-hia.de"],
        bcc="ANA@example.com",
    )  # fmt: skip
    assert message.envelope == ["Ana@example.com", "eva@xn--fa-hia.de"]
    assert message.cc == ["Ana <ana@example.com>", "EVA@xn--fa-hia.de"]


def test_a_tab_in_a_header_separates_words() -> None:
    message = send_mail("Your\tticket", "Texto", to="ana@example.com", headers={"X-Event": "42\tb"})
    assert (message.subject, message.headers) == ("Your ticket", {"X-Event": "42 b"})


@override_settings(CONGRESSY_MAILER={"INTRANET_HOSTS": ["web1"]})
def test_hosts_of_the_own_network_are_a_setting() -> None:
    assert send_mail("Cron", "Texto", "Cron <root@WEB1>", "root@web1").to == ["root@web1"]


def test_times_that_can_never_be_met() -> None:
    now = timezone.now()
    with pytest.raises(exceptions.InvalidOption, match="expires_at is in the past"):
        send_mail("x", "y", to="a@b.com", expires_at=now - timedelta(seconds=1))
    with pytest.raises(exceptions.InvalidOption, match="expires_at is not after send_at"):
        send_mail("x", "y", to="a@b.com", send_at=now + timedelta(hours=2), expires_at=now + timedelta(hours=1))


@override_settings(CONGRESSY_EMAIL_SENDER="mail@congressy.net", CONGRESSY_REPLY_TO="congressy@congressy.com")
def test_django_signature_and_defaults() -> None:
    message = send_mail("Olá", "Texto", None, ["Ana <ana@example.com>"], html_message="<p>Texto", fail_silently=True)
    message.refresh_from_db()
    assert (message.subject, message.text, message.html) == ("Olá", "Texto", "<p>Texto")
    assert message.from_email == "mail@congressy.net"
    assert message.reply_to == ["congressy@congressy.com"]
    assert message.to == ["Ana <ana@example.com>"]
    assert message.state == State.QUEUED
    assert message.priority == Priority.NORMAL
    assert message.transactional
    assert message.message_id == f"<{message.pk.hex}@congressy.net>"
    assert message.queued_at is not None
    assert message.due_at is not None
    assert message.due_at > message.queued_at


def test_an_empty_reply_to_is_none() -> None:
    assert send_mail("x", "y", to="a@b.com", reply_to=[]).reply_to == []
    assert send_mail("x", "y", to="a@b.com", reply_to="").reply_to == []


def test_none_is_empty() -> None:
    ready = send_mail(None, None, None, ["a@b.com"], html_message="<p>Oi</p>", attachments=None)
    assert (ready.subject, ready.text, ready.html) == ("", "", "<p>Oi</p>")
    with pytest.raises(exceptions.TemplateNotFound, match="has no subject: pass subject="):
        send_mail(None, None, None, ["a@b.com"], template="mail/hello")


@override_settings(CONGRESSY_EMAIL_SENDER="mail@congressy.net")
def test_what_is_empty_is_not_given() -> None:
    message = send_mail("x", "y", "", ["a@b.com"], language="", tags=[], metadata={}, campaign="", sparkpost={})
    assert message.from_email == "mail@congressy.net"
    assert message.language == "pt-br"


def test_lazy_text_is_text_in_the_language_of_the_mail() -> None:
    with translation.override("de"):
        message = send_mail(
            gettext_lazy("Monday"), gettext_lazy("Tuesday"), to=lazystr("ana@example.com"), language="pt-br",
            html_message=gettext_lazy("Sunday"), headers={"X-Day": gettext_lazy("Friday")},
        )  # fmt: skip
        untold = send_mail(gettext_lazy("Monday"), to="ana@example.com")
        assert translation.get_language() == "de"
    assert message.to == ["ana@example.com"]
    said = (message.subject, message.text, message.html, message.headers["X-Day"])
    assert said == ("Segunda-feira", "Terça-feira", "Domingo", "Sexta-feira")
    assert untold.subject == "Montag"


def test_a_subject_that_can_be_folded_may_be_long() -> None:
    assert len(send_mail("palavra " * 300, "y", to="a@b.com").subject) == 2399
    assert len(send_mail("ç" * 1200, "y", to="a@b.com").subject) == 1200


def test_a_template_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.html").write_bytes("inscrição".encode("latin-1"))
    templates = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [tmp_path]}]
    with (
        override_settings(TEMPLATES=templates),
        pytest.raises(exceptions.TemplateUnreadable, match="The template 'latin.html' cannot be read: 'utf-8' codec"),
    ):
        send_mail("x", to="a@b.com", template="latin", language="en")
    assert not Message.objects.exists()


class WriteOnly:
    """A router under which reading messages, unless it is said where, is reading a replica that lags."""

    def db_for_read(self, model: type, **hints: Any) -> str | None:
        if model is Message:
            raise AssertionError("read from the replica")
        return None


@override_settings(DATABASE_ROUTERS=[WriteOnly()])
def test_what_was_just_changed_is_not_read_from_a_replica() -> None:
    message = send_mail("x", "y", to="a@b.com")
    assert message.cancel()
    assert message.state == State.CANCELLED
    message.retry()
    assert message.state == State.QUEUED
    assert message.cancel()
    message.resend()
    assert message.state == State.QUEUED


def test_scheduled() -> None:
    later = timezone.now() + timedelta(hours=1)
    message = send_mail("x", "y", to="a@b.com", send_at=later)
    assert message.state == State.SCHEDULED
    assert message.due_at == later
    assert message.queued_at is None


def test_a_send_at_that_is_past_is_now() -> None:
    assert send_mail("x", "y", to="a@b.com", send_at=timezone.now() - timedelta(hours=1)).state == State.QUEUED


def test_a_message_that_expires_is_looked_at_by_then() -> None:
    soon = timezone.now() + timedelta(seconds=3)
    assert send_mail("x", "y", to="a@b.com", expires_at=soon).due_at == soon


def test_language_and_time_zone_of_the_caller_are_kept() -> None:
    with translation.override("en"), timezone.override("Europe/Lisbon"):
        message = send_mail("x", "y", to="a@b.com")
    assert (message.language, message.timezone) == ("en", "Europe/Lisbon")
    message = send_mail("x", "y", to="a@b.com", language="pt-br", timezone="America/Manaus")
    assert (message.language, message.timezone) == ("pt-br", "America/Manaus")
    assert send_mail("x", "y", to="a@b.com", timezone=ZoneInfo("America/Manaus")).timezone == "America/Manaus"


def test_idempotency_key_makes_one_message(tmp_path: Path) -> None:
    first = send_mail("x", "y", to="a@b.com", idempotency_key="order-1", attachments=[("a", b"1")])
    again = send_mail("other", "y", to="eva@b.com", idempotency_key="order-1", attachments=[("a", b"1")])
    assert again == first
    assert again.subject == "x"
    assert Message.objects.count() == 1
    assert Attachment.objects.count() == 1


def test_a_key_that_another_transaction_has_just_used(monkeypatch: pytest.MonkeyPatch) -> None:
    send_mail("x", "y", to="a@b.com", idempotency_key="order-1")
    # What REPEATABLE READ does where this transaction began before the other one ended.
    monkeypatch.setattr(storing_once, "_find", lambda *arguments: None)
    with pytest.raises(exceptions.IdempotencyConflict, match="Try again in a new transaction") as raised:
        send_mail("x", "y", to="a@b.com", idempotency_key="order-1", attachments=[("a", b"1")])
    assert isinstance(raised.value, IntegrityError)
    assert Message.objects.count() == 1
    assert not Attachment.objects.exists()


def test_attachments_are_stored() -> None:
    message = send_mail("x", "y", to="a@b.com", attachments=[("boleto.pdf", b"%PDF"), ("nota.txt", "ção")])
    pdf, text = message.attachments.all()
    assert (pdf.filename, pdf.mimetype, pdf.size) == ("boleto.pdf", "application/pdf", 4)
    assert "boleto" not in pdf.file.name
    with text.file.open("rb") as file:
        assert file.read() == "ção".encode()


def test_nothing_of_the_content_is_in_its_text_forms() -> None:
    message = send_mail("Segredo", "abc123", to="ana@example.com", sensitive=True)
    for text in (str(message), repr(message)):
        assert "Segredo" not in text
        assert "abc123" not in text
        assert "ana@" not in text


def test_given_message_id_is_kept() -> None:
    assert send_mail("x", "y", to="a@b.com", headers={"message-id": "<1@b.com>"}).message_id == "<1@b.com>"


def test_cancel() -> None:
    message = send_mail("x", "y", to="a@b.com")
    assert message.cancel()
    assert message.state == State.CANCELLED
    assert not message.cancel()
    message.retry()
    assert message.state == State.QUEUED
    with pytest.raises(exceptions.InvalidTransition, match="is queued; it can be queued again only when it is"):
        message.retry()


@pytest.mark.django_db(transaction=True)
def test_asynchronous_call() -> None:
    message = asyncio.run(asend_mail("x", "y", to="a@b.com"))
    assert Message.objects.get(pk=message.pk).subject == "x"

"""What of a mail goes over the wire."""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import uuid4

import pytest
from django.test import override_settings
from django.utils import timezone
from hypothesis import example, given, settings
from hypothesis import strategies as st

from congressy_mailer.delivery.composing import compose
from congressy_mailer.exceptions import InvalidHeader
from congressy_mailer.mime.attachments import LoadedAttachment
from congressy_mailer.mime.header_values import check_subject, normalise_headers
from congressy_mailer.mime.writer import MailContent
from congressy_mailer.models import Message
from congressy_mailer.replies import Reply
from congressy_mailer.transports import envelope
from congressy_mailer.transports.base import ComposedMail


def composed(text: str = "Texto", **fields: Any) -> ComposedMail:
    now = timezone.now()
    values = {"from_email": "Congressy <mail@congressy.net>", "to": ["ana@example.com"], **fields}
    message = Message(**{"message_id": "<1@x>", "created_at": now, "queued_at": now, **values})
    return ComposedMail(uuid4(), compose(message, MailContent(message.subject or "Olá", text, ""), []))


def received(content: bytes) -> Any:
    """What a server makes of it (RFC 5321 §4.5.2)."""
    assert content.endswith(b"\r\n.\r\n")
    undone = (b"\r\n" + content[:-3]).replace(b"\r\n.", b"\r\n")[2:]
    return email.message_from_bytes(undone, policy=email.policy.default)


@settings(deadline=None)
@given(st.text(st.sampled_from(".\r\n\u2028aã ")))
def test_the_server_gets_what_was_written(text: str) -> None:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n")
    content = envelope.envelope_for(composed(text)).write_out()
    assert content.count(b"\r\n.\r\n") == 1
    assert content.count(b"\r\n") == content.count(b"\r") == content.count(b"\n")
    assert received(content).get_content().replace("\r\n", "\n").rstrip("\n").split("\n") == lines


def test_attachments_arrive_as_they_are() -> None:
    now = timezone.now()
    message = Message(from_email="a@b.example", to=["ana@example.com"], message_id="<1@x>", created_at=now)
    data = bytes(range(256)) * 20
    attachment = LoadedAttachment("ação.pdf", data, "application/pdf", "")
    mail = ComposedMail(uuid4(), compose(message, MailContent("Olá", "você", "<p>você</p>"), [attachment]))
    (part,) = received(envelope.envelope_for(mail).write_out()).iter_attachments()
    assert part.get_filename() == "ação.pdf"
    assert part.get_content() == data


@settings(deadline=None)
@given(
    st.sampled_from(["X-A", "List-Unsubscribe", "References", "Subject"]),
    st.lists(st.sampled_from(["a" * 400, "b" * 700, "c" * 988, " ", " " * 500, "ç", "d;", ","]), min_size=1).map(
        "".join
    ),
)
@example("Subject", "b" * 700 + " " * 500)
def test_no_header_that_is_accepted_has_a_line_that_servers_refuse(name: str, value: str) -> None:
    try:
        fields = (
            {"subject": check_subject(value)} if name == "Subject" else {"headers": normalise_headers({name: value})}
        )
    except InvalidHeader:
        return
    mail = composed(**fields)
    content = envelope.envelope_for(mail).write_out()
    assert max(map(len, content.split(b"\r\n"))) <= 998


@override_settings(TIME_ZONE="America/Sao_Paulo")
def test_the_date_is_utc_or_the_host_s_time_as_django_has_it() -> None:
    def date_of(local: bool) -> datetime:
        with override_settings(EMAIL_USE_LOCALTIME=local):
            mail = composed(created_at=moment, queued_at=moment)
        written = received(envelope.envelope_for(mail).write_out())["Date"].datetime
        return cast(datetime, written)

    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert date_of(False) == date_of(True) == moment
    assert (date_of(False).utcoffset(), date_of(True).utcoffset()) == (timedelta(0), timedelta(hours=-3))


@pytest.mark.parametrize("name", ["message-id", "MESSAGE-ID", "Message-ID", "date", "Date"])
def test_a_header_of_ours_that_the_caller_gives_stands_once(name: str) -> None:
    value = "<2@x>" if name.lower() == "message-id" else "Mon, 01 Jan 2024 00:00:00 +0000"
    got = received(envelope.envelope_for(composed(headers={name: value})).write_out())
    assert got.get_all(name) == [value]
    assert len(got.get_all("Message-ID")) == len(got.get_all("Date")) == 1


def test_the_parameters_of_a_media_type_are_written() -> None:
    now = timezone.now()
    message = Message(from_email="a@b.example", to=["ana@example.com"], message_id="<1@x>", created_at=now)
    kinds = ['text/calendar; method=REQUEST; charset=utf-8; x_y="a; b"', "text/plain; charset=iso-8859-1", "text/plain"]
    attachments = [LoadedAttachment("a.x", b"BEGIN", kind, "") for kind in kinds]
    mail = ComposedMail(uuid4(), compose(message, MailContent("Olá", "você", ""), attachments))
    parts = list(received(envelope.envelope_for(mail).write_out()).iter_attachments())
    assert [(part.get_content_type(), dict(part["Content-Type"].params)) for part in parts] == [
        ("text/calendar", {"method": "REQUEST", "charset": "utf-8", "x_y": "a; b"}),
        ("text/plain", {"charset": "iso-8859-1"}),
        ("text/plain", {"charset": "utf-8"}),
    ]
    assert [part.get_payload(decode=True) for part in parts] == [b"BEGIN"] * 3


def test_addresses_are_ascii() -> None:
    mail = composed(from_email="Olá <mail@congressy.com>", to=["ana@bücher.example", "Eva <eva@example.com>"])
    ready = envelope.envelope_for(mail)
    assert ready.sender == "mail@congressy.com"
    assert list(ready.recipients.values()) == ["ana@xn--bcher-kva.example", "eva@example.com"]


@pytest.mark.parametrize(
    "address",
    ["joão@example.com", "a@example.com>\r\nRCPT TO:<b@example.com", "a\0@example.com", "u@x.com>,v@w.com", "u@⑴.com"]
    + [
        "u@x.com> NOTIFY=NEVER",
        "a b@x.com",
        '"a\tb"@x.com',
        "a..b@x.com",
        "a@x..com",
        "",
        "a",
        "a@",
        "x" * 250 + "@x.com",
    ],
)
def test_an_address_that_cannot_be_said_is_refused_alone(address: str) -> None:
    mail = composed()
    mail.mail.envelope = ["ana@example.com", address]
    ready = envelope.envelope_for(mail)
    assert list(ready.recipients) == ["ana@example.com"]
    assert ready.refused[address].code == 553
    assert "Not sent" in ready.refused[address].text


def test_a_sender_that_cannot_be_said() -> None:
    mail = composed()
    mail.mail.from_email = "joão@example.com"
    ready = envelope.envelope_for(mail)
    assert not ready.sendable
    assert ready.problem == Reply(
        553, "5.1.7 Not sent: the part before the @ of 'joão@example.com' needs SMTPUTF8 (RFC 6531), which is not used"
    )

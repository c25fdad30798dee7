"""Mails as requests to the Transmissions API, read back by a model of what SparkPost makes of them."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from congressy_mailer.delivery.composing import compose
from congressy_mailer.mime.attachments import LoadedAttachment
from congressy_mailer.mime.outgoing import OutgoingMail
from congressy_mailer.mime.writer import MailContent
from congressy_mailer.models import Message
from congressy_mailer.sparkpost import MESSAGE_KEY
from congressy_mailer.sparkpost.headers import sparkpost_keys
from congressy_mailer.sparkpost.substitution import SharedContent
from congressy_mailer.sparkpost.transmissions import (
    TransmissionMail,
    batch_transmission,
    encode_request,
    grouping_key,
    transmission,
)
from tests.sparkpost.substituting import Received, received, render
from tests.support.fuzzing import examples

BATCH = UUID(int=7)
TIME = timezone.now()


def mail(
    text: str, html: str = "", *, to: str = "ana@example.com", subject: str = "Olá", batch: UUID | None = BATCH,
    files: list[LoadedAttachment] | None = None, **fields: Any,
) -> OutgoingMail:  # fmt: skip
    message = Message(
        from_email="Congressy <mail@congressy.net>", to=[to], message_id=f"<{uuid4()}@x>", created_at=TIME,
        queued_at=TIME, transactional=False, **fields,
    )  # fmt: skip
    leave = {"List-Unsubscribe": f"<https://congressy.net/leave/{message.id}>"}
    composed = compose(message, MailContent(subject, text, html), files or [], leave)
    composed.sparkpost = sparkpost_keys(message)
    composed.batch = batch
    return composed


def alone(composed: OutgoingMail) -> dict[str, Any]:
    return transmission(TransmissionMail(composed.wire, composed.envelope, composed.envelope, composed.sparkpost))


def same(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check(got: Received, composed: OutgoingMail) -> None:
    """What one has is what the mail says, and whose it is."""
    assert got.address == composed.envelope[0]
    assert same(got.text).rstrip("\n") == same(composed.content.text).rstrip("\n")
    assert same(got.html).rstrip("\n") == same(composed.content.html).rstrip("\n")
    assert got.headers["Message-ID"] == composed.extra_headers["Message-ID"]
    assert got.headers["List-Unsubscribe"] == composed.extra_headers["List-Unsubscribe"]
    assert got.headers["Subject"] == composed.content.subject
    assert composed.envelope[0] in got.headers["To"]
    assert got.metadata == composed.sparkpost["metadata"]


def test_a_mail_alone_arrives_byte_for_byte() -> None:
    composed = mail("Olá {{name}}\n{{{x}}}\n.\nfim", "<p>{{ if x }}</p>", files=[pdf()])
    request = alone(composed)
    assert request["content"]["email_rfc822"].encode() == composed.wire
    assert request["options"]["perform_substitutions"] is False
    assert "X-MSYS-API" not in request["content"]["email_rfc822"]
    check(received(request)[0], composed)


def pdf() -> LoadedAttachment:
    return LoadedAttachment("a.pdf", b"%PDF {{name}}", "application/pdf", "")


@pytest.mark.parametrize("subject", ["{{name}}", "Olá {{{nome}}}", "ção {" + "á" * 70 + "{x}}", "a}}b{{ c", "{ { } }"])
def test_braces_in_a_header_arrive_also_where_it_is_encoded(subject: str) -> None:
    composed = mail("Texto", subject=subject)
    check(received(alone(composed))[0], composed)


def test_what_sparkpost_is_told_stands_beside_the_mail() -> None:
    options = {"options": {"ip_pool": "a", "open_tracking": True}, "bcc": [{"email": "eva@example.com", "name": "Eva"}]}
    composed = mail("Texto", campaign="março", tags=["um"], metadata={"a": "b"}, sparkpost=options)
    request = json.loads(encode_request(alone(composed)))
    assert request["campaign_id"] == "março"
    assert request["options"] == {
        "open_tracking": True, "click_tracking": False, "ip_pool": "a", "perform_substitutions": False,
    }  # fmt: skip
    first, copy = request["recipients"]
    assert first["tags"] == ["um"]
    assert first["metadata"]["a"] == "b"
    assert first["metadata"][MESSAGE_KEY]
    assert first["address"] == {"email": "ana@example.com"}
    assert copy["address"] == {"email": "eva@example.com", "name": "Eva", "header_to": "ana@example.com"}


def together(*mails: OutgoingMail) -> dict[str, Any] | None:
    return batch_transmission(mails, [one_mail.envelope[0] for one_mail in mails])


def test_many_share_what_they_have_in_common() -> None:
    files = [pdf()]
    mails = [
        mail(f"Olá {name}\n{'x' * 500}\nfim", f"<p>Olá <b>{name}</b></p>\n<p>{{{{x}}}}</p>", to=f"{n}@example.com",
             subject=f"{name}, seu ingresso", files=files, tags=[name])
        for n, name in enumerate(["Ana", "Zé & <b>", "{{email}}", "", "}}}"])
    ]  # fmt: skip
    assert len({grouping_key(one_mail) for one_mail in mails}) == 1
    request = together(*mails)
    assert request is not None
    assert len(encode_request(request)) < 2 * len(mails[0].wire) + 5000
    for got, composed in zip(received(request), mails, strict=True):
        check(got, composed)
        assert [part.get_content() for part in got.mail.iter_attachments()] == [b"%PDF {{name}}"]
    assert [recipient["tags"] for recipient in request["recipients"]][:2] == [["Ana"], ["Zé & <b>"]]
    assert "perform_substitutions" not in request["options"]


def test_a_link_that_is_to_be_tracked_is_in_no_value() -> None:
    tracked = {"sparkpost": {"options": {"click_tracking": True}}}
    whole = [mail(f"veja {link}", to=f"{n}@example.com", **tracked)
             for n, link in enumerate(["https://a.example", "ftp://b.example"])]  # fmt: skip
    assert together(*whole) is None
    part = [mail(f"veja https://a.example/?t={n}", to=f"{n}@example.com", **tracked) for n in range(2)]
    assert together(*part) is not None


@pytest.mark.parametrize(
    "other",
    [
        mail("Texto", batch=None),
        mail("Texto", batch=UUID(int=8)),
        mail("Texto\nzwei"),
        mail("Texto", "<p>"),
        mail("Texto", files=[pdf()]),
        mail("Texto", campaign="outra"),
        mail("Texto", sparkpost={"options": {"ip_pool": "a"}}),
        mail("Texto", sparkpost={"cc": [{"email": "a@example.com"}]}),
        mail("Texto" + "x" * 1000),
    ],
)
def test_what_is_not_alike_shares_no_call(other: OutgoingMail) -> None:
    assert grouping_key(other) is None or grouping_key(other) != grouping_key(mail("Texto"))


TEXT = st.text(
    st.sampled_from("ab{}\n .<>&\"'çã😀") | st.characters(exclude_categories=("Cs", "Cc")), max_size=30
)  # fmt: skip


@settings(max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=2, max_size=5), TEXT, TEXT)
def test_nobody_has_anything_of_anybody_else(people: list[tuple[str, str, str]], before: str, after: str) -> None:
    mails = []
    for number, (a, b, subject) in enumerate(people):
        own = " ".join(a.split()), " ".join(b.split())
        mails.append(
            mail(f"x{before}{own[0]}{after}{own[1]}", f"<p>{before}{own[1]}{after}</p>",
                 to=f"{number}@example.com", subject="S " + " ".join(subject.split()))
        )  # fmt: skip
    alike = [grouping_key(one_mail) for one_mail in mails]
    if len(set(alike)) > 1 or alike[0] is None:
        return
    request = together(*mails)
    assert request is not None
    got = received(json.loads(encode_request(request)))
    for one_got, composed in zip(got, mails, strict=True):
        check(one_got, composed)


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(st.text("{}ab"), min_size=1, max_size=6))
def test_any_line_is_filled_in_as_it_was(lines: list[str]) -> None:
    shared = SharedContent(len(lines))
    template = shared.line(lines)
    assert [render(template, shared.common_values | own) for own in shared.own_values] == lines


def test_a_mail_that_somebody_else_has_signed_goes_in_eight_bits() -> None:
    signed = "Subject: x\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\nOlá\r\n--b--\r\n"
    request = transmission(TransmissionMail(signed.encode(), ["ana@example.com"]))
    assert request["content"]["email_rfc822"] == signed
    assert json.loads(encode_request(request)) == request

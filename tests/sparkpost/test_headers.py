"""The X-MSYS-API header comes through every way in which a mail is written."""

from __future__ import annotations

import email
import email.policy
import json
import re
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.mail.backends.console import EmailBackend as ConsoleBackend
from django.core.mail.backends.smtp import EmailBackend
from django.test import override_settings
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from congressy_mailer.delivery.composing import compose
from congressy_mailer.mime.outgoing import OutgoingMail
from congressy_mailer.mime.syntax import CONTROL, MAX_LINE
from congressy_mailer.mime.writer import MailContent
from congressy_mailer.models import Message
from congressy_mailer.sparkpost import MESSAGE_KEY, headers
from congressy_mailer.sparkpost.options import sparkpost_fields
from congressy_mailer.transports import envelope
from congressy_mailer.transports.base import ComposedMail

KEY = UUID("0192f0c1-2345-7abc-8def-0123456789ab")


def message_of(**options: Any) -> Message:
    none = {"campaign": None, "tags": (), "metadata": None, "track_opens": None, "track_clicks": None}
    now = timezone.now()
    return Message(
        id=KEY, created_at=now, queued_at=now, from_email="mail@congressy.net", to=["ana@example.com"],
        message_id="<1@congressy.net>", transactional=options.pop("transactional", True),
        **sparkpost_fields(**{**none, "sparkpost": None, **options}),
    )  # fmt: skip


def composed(message: Message) -> OutgoingMail:
    mail = compose(message, MailContent("Inscrição", "Olá\n", "<p>Olá</p>"), [])
    mail.sparkpost = headers.sparkpost_keys(message)
    return mail


def at_once(message: Message) -> bytes:
    """As the pipelined transport writes it."""
    return envelope.envelope_for(ComposedMail(uuid4(), composed(message)), for_sparkpost=True).write_out()


def by_a_backend(message: Message) -> bytes:
    """As a host's own SMTP backend writes it."""
    mail = composed(message)
    mail.add_header(headers.NAME, headers.header_value(mail.sparkpost))
    return bytes(mail.message().as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))


WAYS = (at_once, by_a_backend)


def read_as_sparkpost_does(content: bytes) -> Any:
    """Unfold with one space for every fold, whatever stood there, and read the JSON."""
    head = content.partition(b"\r\n\r\n")[0]
    assert max(map(len, head.split(b"\r\n"))) <= MAX_LINE
    fields = re.findall(rb"(?im)^X-MSYS-API:((?:[^\r\n]|\r\n[ \t])*)", head)
    assert len(fields) == 1
    return json.loads(re.sub(rb"\r\n[ \t]+", b" ", fields[0]).decode("ascii"))


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60).filter(lambda one: not CONTROL.search(one))
hostile = text | st.sampled_from(["=?utf-8?q?a?=", "a, b: c", '"\\" ', "x" * 850, " " * 60, "á" * 100, "a:b,c" * 30])
values = st.recursive(
    hostile | st.none() | st.booleans() | st.integers(-(2**53), 2**53),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(hostile, children, max_size=4),
    max_leaves=8,
)


@given(
    campaign=st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=16),
    tags=st.lists(text.filter(bool), max_size=10),
    metadata=st.dictionaries(hostile, values, max_size=4),
    pool=text,
)
def test_it_comes_through_every_way_a_mail_is_written(
    campaign: str, tags: list[str], metadata: dict[str, Any], pool: str
) -> None:
    try:
        message = message_of(campaign=campaign, tags=tags, metadata=metadata, sparkpost={"options": {"ip_pool": pool}})
    except ValueError:
        # Too much of it.
        return
    expected: dict[str, Any] = {
        "metadata": {MESSAGE_KEY: KEY.hex, **metadata},
        "options": {"ip_pool": pool, "transactional": True},
    }
    if campaign:
        expected["campaign_id"] = campaign
    if tags:
        expected["tags"] = tags
    for way in WAYS:
        assert read_as_sparkpost_does(way(message)) == expected, way.__name__


@pytest.mark.parametrize("way", WAYS)
def test_the_rest_of_the_mail_is_as_it_was(way: Any) -> None:
    read = email.message_from_bytes(way(message_of(campaign="a")), policy=email.policy.default)
    assert read["Subject"] == "Inscrição"
    assert read["To"] == "ana@example.com"
    assert read.get_body(("plain",)).get_content().strip() == "Olá"  # type: ignore[union-attr]


def test_only_what_differs_from_sparkposts_own_defaults_is_told() -> None:
    assert headers.sparkpost_keys(message_of(transactional=False)) == {"metadata": {MESSAGE_KEY: KEY.hex}}
    assert headers.sparkpost_keys(message_of())["options"] == {"transactional": True}
    assert headers.sparkpost_keys(message_of(track_opens=False, transactional=False))["options"] == {
        "open_tracking": False
    }
    archive = [{"email": "a@example.com"}]
    assert headers.sparkpost_keys(message_of(sparkpost={"archive": ["a@example.com"]}))["archive"] == archive


def test_our_own_key_stands_before_what_might_be_cut_off() -> None:
    value = headers.header_value(headers.sparkpost_keys(message_of(metadata={"a": 1})))
    assert value.index(MESSAGE_KEY) < value.index('"a"')


@pytest.mark.parametrize(
    ("when", "host", "wanted"),
    [
        ("auto", "smtp.sparkpostmail.com", True),
        ("auto", "smtp.eu.sparkpostmail.com", True),
        ("auto", "acme.smtp.e.sparkpost.com", True),
        ("auto", "smtp.example.com", False),
        ("auto", "sparkpostmail.com.example.org", False),
        ("auto", "notsparkpost.com", False),
        ("always", "localhost", True),
        ("never", "smtp.sparkpostmail.com", False),
    ],
)
def test_only_sparkpost_is_told(when: str, host: str, wanted: bool) -> None:
    with override_settings(CONGRESSY_MAILER={"SPARKPOST_HEADER": when}):
        assert headers.enabled_for(EmailBackend(host=host, **_alias())) is wanted
        assert headers.enabled_for(ConsoleBackend(**_alias())) is False


def _alias() -> dict[str, Any]:
    import django

    return {"alias": "test"} if django.VERSION >= (6, 1) else {}


def test_nobody_else_gets_the_header() -> None:
    content = envelope.envelope_for(ComposedMail(uuid4(), composed(message_of(campaign="a")))).write_out()
    assert headers.NAME.encode() not in content

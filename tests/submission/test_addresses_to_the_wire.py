"""Addresses from the call to the wire: what is stored is what the server is told."""

from __future__ import annotations

import re
from email.parser import BytesHeaderParser
from email.policy import compat32
from typing import Any

import pytest
from django.core import mail
from django.test import override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from congressy_mailer import MailerError, send_bulk, send_mail
from congressy_mailer.exceptions import InvalidAddress
from congressy_mailer.mime.addresses import bare_address, listed_addresses
from congressy_mailer.models import Message, State
from congressy_mailer.testing import deliver_all
from congressy_mailer.transports import pool
from tests.support.fuzzing import examples
from tests.support.mails import deliver_batch
from tests.support.scripted_smtp import ScriptedServer

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("published")]

BACKEND = "django.core.mail.backends.smtp.EmailBackend"
# One address, and nothing behind it but what the client says of the mail itself.
_COMMAND = re.compile(r'(?:MAIL FROM|RCPT TO):<((?:[^\s<>"]|"(?:[^"\\]|\\.)*")+)>(?: BODY=8BITMIME| SIZE=[0-9]+)*')


def test_one_address_that_no_server_takes_stops_nobody_else() -> None:
    good = [f"p{number}@example.com" for number in range(30)]
    for poison in ("user@\u2474.com", "ana@gmail.com…", "a@x.com，b＠evil.com", "=?x?q?a?=@example.com"):
        with pytest.raises(InvalidAddress, match=r"^recipients\[30\]: to is not a mail address"):
            send_bulk([*good, poison, *good], subject="news", message="b")
        batch = send_bulk([*good, poison], subject="news", message="b", on_invalid="skip")
        assert (batch.skipped, batch.problems[0]["position"]) == (1, 30)
        assert Message.objects.filter(batch=batch).count() == 30


def test_what_an_older_version_has_stored_ends_alone() -> None:
    batch = send_bulk([f"p{number}@example.com" for number in range(9)], subject="news", message="b")
    old = Message.objects.filter(batch=batch).order_by("id")[4]
    Message.objects.filter(pk=old.pk).update(to=["user@\u2474.com"])
    single = send_mail("Oi", "b", to="ana@example.com")
    Message.objects.filter(pk=single.pk).update(to=["Bob <u@x.com＞，v＠w.com>"])
    deliver_batch(batch)
    deliver_all()
    assert batch.progress().states == {State.SENT: 8, State.FAILED: 1}
    old.refresh_from_db()
    single.refresh_from_db()
    assert (old.state, single.state) == (State.FAILED, State.FAILED)
    assert "no ASCII form" in old.reason and "no ASCII form" in single.reason
    assert len(mail.outbox) == 8


@pytest.fixture
def server(settings: Any) -> Any:
    """A server that takes everything; the alias ``wire`` stands for it."""
    server = ScriptedServer()
    options = {"host": "127.0.0.1", "port": server.port, "username": "", "password": "", "use_tls": False}
    settings.CONGRESSY_MAILER = {
        **settings.CONGRESSY_MAILER,
        "TRANSPORTS": {"wire": {"BACKEND": BACKEND, "OPTIONS": options}},
        "INTRANET_HOSTS": ["web1"],
        "MAX_CONNECTIONS": None,
        "SLICE_SIZE": 1000,
    }
    yield server
    pool.close_connections()
    server.close()
    assert server.violations == []


_PIECES = st.sampled_from(
    ["ana", "Ana Silva", "Zé", "漢字", "ß", "faß.de", "example.com", "EXAMPLE.com", "web1", "localhost", "x.example"]
    + ["@", "@", "@", "<", ">", '"', "\\", ",", ";", ":", ".", " ", "\t", "\n", "\0", "(", ")", "=?", "?="]
    + ["，", "＠", "＞", "⑴", "…", "。", "\u00ad", "\u200d", "\u202e", "[192.0.2.1]", "[IPv6:::1]", "[::1]", "a" * 63]
    + ['"a b"', '""', '"a>,b"', "a.b", "=?utf-8?q?Z=C3=A9?=", "NOTIFY=NEVER", "> RCPT TO:<eva@evil.example"]
)
_LOCALS = st.from_regex(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,12}(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,8})?", fullmatch=True)
_QUOTED = st.from_regex(r'"([ -!#-\[\]-~]|\\[ -~]){0,12}"', fullmatch=True)
_DOMAINS = st.sampled_from(
    [
        "example.com",
        "Example.COM.br",
        "faß.de",
        "são-paulo.example",
        "xn--fa-hia.de",
        "web1",
        "localhost",
        "[192.0.2.1]",
    ]
    + ["[IPv6:2001:DB8::1]", "[::ffff:1.2.3.4]", "उदाहरण.परीक्षा", "a--b.example", "x" * 63 + ".example"]
)
_NAMES = st.text(max_size=20).map(lambda name: name.replace("\\", "\\\\").replace('"', '\\"'))
_ADDRESSES = st.one_of(
    st.builds("{}@{}".format, _LOCALS | _QUOTED, _DOMAINS),
    st.builds('"{}" <{}@{}>'.format, _NAMES, _LOCALS | _QUOTED, _DOMAINS),
    st.builds("{} <{}@{}>".format, st.text(max_size=12), _LOCALS, _DOMAINS),
    st.emails(),
    st.lists(_PIECES, min_size=1, max_size=6).map("".join),
    st.text(min_size=1, max_size=20).map("ana@{}".format),
)


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(_ADDRESSES, _ADDRESSES, st.sampled_from(["from_email", "cc", "bcc", "reply_to"])),
        min_size=20,
        max_size=30,
    )
)
def test_what_is_accepted_goes_over_the_wire_as_it_was_stored(server: Any, given: list[tuple[str, str, str]]) -> None:
    """Also over Django's own way of writing: a mail without a subject is not of the common shape."""
    stored = []
    for number, (to, other, argument) in enumerate(given):
        try:
            subject = "Oi" if number % 2 else ""
            sender = {"from_email": "mail@congressy.net", argument: other}
            stored.append(send_mail(subject, "Olá", to=[to], using="wire", **sender))
        except MailerError:
            assert Message.objects.filter(state=State.QUEUED).count() == len(stored)
    begun = len(server.commands), len(server.received)
    delivered = {message.pk: message for message in deliver_all()}
    assert [delivered[message.pk].state for message in stored] == [State.SENT] * len(stored), [
        message.reason for message in delivered.values()
    ]
    told = [command for command in server.commands[begun[0] :] if command.startswith(("MAIL", "RCPT"))]
    wanted = []
    for message in stored:
        wanted += [bare_address(message.from_email), *message.envelope]
    found = [_COMMAND.fullmatch(command) for command in told]
    assert all(found), told
    assert [one[1] for one in found if one] == wanted
    for message, taken in zip(stored, server.received[begun[1] :], strict=True):
        head = taken.content.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        assert head.isascii()
        fields = BytesHeaderParser(policy=compat32).parsebytes(head)
        for name, addresses in (
            ("From", [message.from_email]), ("To", message.to), ("Cc", message.cc), ("Reply-To", message.reply_to)
        ):  # fmt: skip
            value = "".join(str(one).replace("\r\n", "") for one in fields.get_all(name, []))
            assert (listed_addresses(value, name) if value else []) == addresses
            assert len(fields.get_all(name, [])) == bool(addresses)


def test_a_hidden_copy_of_an_older_version_is_refused_alone(server: Any) -> None:
    message = send_mail("Oi", "Olá", to="ana@example.com", bcc="bia@example.com", using="wire")
    Message.objects.filter(pk=message.pk).update(bcc=["u@x.com＞，v＠w.com"])
    deliver_all()
    message.refresh_from_db()
    assert message.state == State.SENT
    assert "is not an address that a command can hold" in message.reason
    assert [command for command in server.commands if command.startswith("RCPT")] == ["RCPT TO:<ana@example.com>"]


@override_settings(CONGRESSY_MAILER={"INTRANET_HOSTS": ["web1"]})
def test_django_s_backends_get_what_they_can_write() -> None:
    odd = ['"a  b"@example.com', '""@example.com', "Zé <root@web1>", '"=?utf-8?q?a?=" <ana@[IPv6:::1]>']
    send_mail("", "Olá", to=odd)
    (message,) = deliver_all()
    assert message.state == State.SENT, message.reason
    (sent,) = mail.outbox
    assert sent.recipients() == [bare_address(one) for one in odd]
    assert b"\nTo: " in sent.message().as_bytes()

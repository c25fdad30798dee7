"""The mail backend that queues what Django sends: what is stored, and what callers are told."""

from __future__ import annotations

import asyncio
import smtplib
from datetime import timedelta
from typing import Any

import pytest
from django.core.mail import EmailMessage
from django.db import connection, transaction
from django.test import override_settings
from django.utils import timezone, translation
from django.utils.functional import lazystr

from congressy_mailer import exceptions
from congressy_mailer import send_mail as send_ours
from congressy_mailer.backends import EmailBackend, MailNotStored
from congressy_mailer.models import Attachment, Message, Priority, State
from congressy_mailer.testing import deliver_all
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.transports import aliases
from tests.support.drop_in import Failing, open_default, rich_mail

pytestmark = [pytest.mark.django_db, pytest.mark.email_settings]


def test_it_is_counted_as_django_counts(server: LocalSparkPost) -> None:
    backend = open_default()
    assert backend.send_messages([]) == 0
    assert backend.send_messages(None) == 0
    assert backend.send_messages([EmailMessage("x", "y", "a@example.com", [])]) == 0
    assert EmailMessage("x", "y", "a@example.com", ["ana@example.com"]).send() == 1
    several = (EmailMessage("x", "y", "a@example.com", [f"a{n}@example.com"]) for n in range(3))
    with backend as entered:
        assert entered is backend
        assert backend.send_messages(several) == 3
    assert backend.open() is None
    assert backend.close() is None
    assert Message.objects.count() == 4


@pytest.mark.database
def test_many_mails_are_one_publish_and_few_queries(
    server: LocalSparkPost, published: list[str], django_capture_on_commit_callbacks: Any,
    django_assert_max_num_queries: Any,
) -> None:  # fmt: skip
    mails = [EmailMessage("x", "y", "a@example.com", [f"a{n}@example.com"]) for n in range(100)]
    with django_capture_on_commit_callbacks(execute=True):
        assert open_default().send_messages(mails) == 100
        assert published == []
    assert published == ["deliver"]
    more = [EmailMessage("x", "y", "a@example.com", [f"b{n}@example.com"]) for n in range(100)]
    # SQLite takes so many parameters in one statement, and others more.
    with django_assert_max_num_queries(50):
        open_default().send_messages(more)


def test_one_wrong_mail_among_several_stores_none(server: LocalSparkPost) -> None:
    mails = [EmailMessage("x", "y", "a@example.com", [to]) for to in ("a@x.com", "b@x.com", "no, body@", "c@x.com")]
    with pytest.raises(ValueError, match="Invalid address"):
        EmailBackend(fail_silently=True).send_messages(mails)
    with pytest.raises(ValueError, match="newlines|line"):
        EmailMessage("x\ny", "y", "a@example.com", ["a@x.com"]).send()
    assert not Message.objects.exists()


WRONG = [
    "Last, First <a@x.com>", "a@x.com, b@x.com", "a@x.com.", "a@b@c.com", "Undisclosed:;", "to@", "@example.com",
    "a@x.com\nBcc: b@x.com", "josé@example.com",
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("field", ["to", "bcc", "from_email"])
def test_addresses_that_django_refuses_are_errors_at_the_call(collected: list[Any], wrong: str, field: str) -> None:
    values: dict[str, Any] = {"from_email": "a@example.com", "to": ["b@example.com"]}
    values[field] = wrong if field == "from_email" else [wrong]
    with pytest.raises(ValueError, match="."):
        EmailMessage("x", "y", **values).send()
    assert not Message.objects.exists()


@pytest.mark.parametrize(
    ("given", "bare"),
    [
        ("root@web1", "root@web1"),
        ("webmaster", "webmaster"),
        ('"quoted local"@example.com', '"quoted local"@example.com'),
        ("Último <ana@example.com>", "ana@example.com"),
        ('"Last, First" <ana@example.com>', "ana@example.com"),
        ("to@éxample.com", "to@xn--xample-9ua.com"),
        ("to@xn--4ca9at.com", "to@xn--4ca9at.com"),
    ],
)
def test_addresses_that_django_sends_to_are_sent_to(collected: list[Any], given: str, bare: str) -> None:
    EmailMessage("x", "y", given, [given]).send()
    row = Message.objects.get()
    assert row.envelope == [bare]
    (delivered,) = deliver_all()
    assert delivered.state == State.SENT, delivered.reason
    from congressy_mailer.transports.base import ComposedMail
    from congressy_mailer.transports.envelope import envelope_for

    envelope = envelope_for(ComposedMail(row.id, collected[0]))
    assert (envelope.problem, envelope.refused) == (None, {})
    assert envelope.sender == bare


@pytest.mark.database
def test_trouble_while_storing_is_of_the_kind_that_callers_expect(server: LocalSparkPost) -> None:
    one = EmailMessage("x", "y", "a@example.com", ["ana@example.com"])
    with connection.execute_wrapper(Failing()):
        with pytest.raises(smtplib.SMTPException, match="could not be stored: .*gone away") as raised:
            one.send()
        assert isinstance(raised.value, MailNotStored)
        assert isinstance(raised.value, OSError)
        with transaction.atomic():
            assert EmailBackend(fail_silently=True).send_messages([one]) == 0
            # The caller's transaction lives.
            assert Message.objects.count() == 0
    assert EmailBackend().send_messages([one]) == 1


def test_the_callers_object_is_not_changed_and_may_be_sent_again(server: LocalSparkPost) -> None:
    one = rich_mail()
    before = {name: repr(value) for name, value in vars(one).items()}
    one.send()
    first = one.mailer_message  # type: ignore[attr-defined]
    assert isinstance(first, Message)
    one.to = ["eva@example.com"]
    one.send()
    del one.mailer_message  # type: ignore[attr-defined]
    one.to = ["Ana <ana@example.com>"]
    assert {name: repr(value) for name, value in vars(one).items() if name != "connection"} == {
        name: value for name, value in before.items() if name != "connection"
    }
    rows = Message.objects.order_by("id")
    assert [row.to for row in rows] == [["Ana <ana@example.com>"], ["eva@example.com"]]
    assert len({row.message_id for row in rows}) == 2


def test_a_mail_is_written_at_the_call_and_once(server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup() -> str:
        raise AssertionError("the name of this host was looked up")

    one = EmailMessage(lazystr("Title"), lazystr("Body"), "a@example.com", [lazystr("ana@example.com")])
    # At the call alone: a worker says who it is to the mail server.
    with monkeypatch.context() as at_the_call:
        at_the_call.setattr("socket.getfqdn", lookup)
        at_the_call.setattr("django.core.mail.message.DNS_NAME", lookup)
        with translation.override("de"), timezone.override("America/Manaus"), override_settings(USE_TZ=True):
            one.send()
    one.subject = "Changed"
    one.to.append("eva@example.com")
    deliver_all()
    (received,) = server.mailbox
    assert received.message["Subject"] == "Title"
    assert received.recipients == ("ana@example.com",)


def test_options_say_how_it_is_stored(server: LocalSparkPost) -> None:
    backend = EmailBackend(
        using="behind", priority=Priority.HIGH, sensitive=False, expires_after=timedelta(hours=1), fail_silently=False
    )
    backend.send_messages([rich_mail()])
    row = Message.objects.get()
    assert (row.priority, row.sensitive, row.subject) == (Priority.HIGH, False, "Inscrição")
    assert row.expires_at is not None
    assert row.expires_at - row.created_at <= timedelta(hours=1)
    deliver_all()
    row.refresh_from_db()
    assert row.mime is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"username": "me", "password": "secret"}, "name it with using"),
        ({"priority": "high"}, "priority"),
        ({"sensitive": "no"}, "sensitive"),
        ({"expires_after": 60}, "expires_after must be a timedelta"),
        ({"using": 3}, "using must be the alias"),
    ],
)
def test_options_that_mean_nothing_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(exceptions.InvalidOption, match=message):
        EmailBackend(**options)
    assert EmailBackend(username=None, password=None, fail_silently=None).fail_silently is False  # type: ignore[arg-type]


def test_a_suppressed_recipient_gets_none_and_the_caller_is_told_nothing(server: LocalSparkPost) -> None:
    from congressy_mailer.suppressions import suppress

    suppress("ana@example.com", scope="transactional")
    assert EmailMessage("x", "y", "a@example.com", ["ana@example.com"]).send() == 1
    assert Message.objects.get().state == State.SUPPRESSED


@pytest.mark.database
def test_a_large_mail_waits_in_the_storage_of_attachments(server: LocalSparkPost) -> None:
    one = rich_mail()
    one.attach("large.bin", bytes(range(256)) * 2000, "application/octet-stream")
    one.send()
    row = Message.objects.get()
    assert row.mime is not None
    assert bytes(row.mime) == b""
    path = Attachment.objects.get().file.name
    (delivered,) = deliver_all()
    assert delivered.state == State.SENT, delivered.reason
    (received,) = server.mailbox
    (large,) = [part for part in received.message.iter_attachments() if part.get_filename() == "large.bin"]
    assert large.get_content() == bytes(range(256)) * 2000
    assert path.startswith("congressy_mailer/")


def test_one_server_has_one_name(server: LocalSparkPost) -> None:
    assert send_ours("x", "y", to="ana@example.com", using="behind").using == ""
    assert send_ours("x", "y", to="ana@example.com").using == ""
    assert aliases.delivery_alias("") == "behind"
    assert [one.state for one in deliver_all()] == [State.SENT, State.SENT]


@pytest.mark.django_db(transaction=True)
@pytest.mark.database
def test_mail_out_of_a_coroutine_is_stored(server: LocalSparkPost) -> None:
    async def view() -> int:
        return EmailMessage("x", "y", "a@example.com", ["ana@example.com"]).send()

    assert asyncio.run(view()) == 1
    assert Message.objects.count() == 1
    assert [one.state for one in deliver_all()] == [State.SENT]

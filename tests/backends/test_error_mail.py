"""Mail of the server to its administrators, which leaves at once."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import django
import pytest
from django.core import mail
from django.core.mail import EmailMessage
from django.db import connection, transaction

from congressy_mailer import send_mail as send_ours
from congressy_mailer.models import Message, State
from congressy_mailer.testing import deliver_all
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from tests.support.drop_in import SMTP, WORLDS, Collecting, Failing, put_in_force

pytestmark = [pytest.mark.django_db, pytest.mark.email_settings]


class Patient(Collecting):
    """Has a timeout for connecting and one for reading, as clients of HTTP have."""

    timeout = (5, 60)


@pytest.fixture
def people(settings: Any) -> None:
    settings.ADMINS = ["root@example.com"] if django.VERSION >= (6, 0) else [("Root", "root@example.com")]
    settings.SERVER_EMAIL = "server@example.com"


@pytest.mark.database
def test_error_mail_leaves_at_once_whatever_becomes_of_the_transaction(server: LocalSparkPost, people: None) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        mail.mail_admins("Broken", "A traceback.")
        raise ZeroDivisionError
    with connection.execute_wrapper(Failing()):
        mail.mail_admins("No database", "A traceback.")
    with transaction.atomic():
        transaction.set_rollback(True)
        mail.mail_admins("In a broken transaction", "A traceback.")
    asyncio.run(_mail_admins_in_a_coroutine())
    assert not Message.objects.exists()
    assert len(server.mailbox) == 4
    assert {one.recipients for one in server.mailbox} == {("root@example.com",)}


async def _mail_admins_in_a_coroutine() -> None:
    mail.mail_admins("In a coroutine", "A traceback.")


def test_error_mail_never_raises(settings: Any, people: None, caplog: pytest.LogCaptureFixture) -> None:
    put_in_force(settings, WORLDS[-1], SMTP, {"host": "127.0.0.1", "port": 1})
    mail.mail_admins("Broken", "A traceback.")
    assert "not sent: ConnectionRefusedError" in caplog.text
    assert "traceback" not in caplog.text


def test_error_mail_leaves_over_a_backend_with_two_timeouts(collected: list[Any], settings: Any, people: None) -> None:
    put_in_force(settings, WORLDS[-1], f"{__name__}.Patient", {})
    mail.mail_admins("Broken", "A traceback.")
    assert [one.subject for one in collected] == [f"{settings.EMAIL_SUBJECT_PREFIX}Broken"]


def test_an_error_while_delivering_makes_no_error_mail(server: LocalSparkPost, people: None) -> None:
    from django.utils.log import AdminEmailHandler

    handler = AdminEmailHandler()
    logging.getLogger("congressy_mailer").addHandler(handler)
    try:
        message = send_ours("x", "y", to="ana@example.com")
        # It can never be composed.
        Message.objects.update(from_email="not an address at all", headers={"Bad\nName": "x"})
        (delivered,) = deliver_all()
        assert delivered.id == message.id
        assert delivered.state == State.FAILED
    finally:
        logging.getLogger("congressy_mailer").removeHandler(handler)
    assert len(server.mailbox) == 0
    assert Message.objects.count() == 1


def test_mail_of_the_server_to_others_is_queued(server: LocalSparkPost, people: None) -> None:
    EmailMessage("x", "y", "server@example.com", ["root@example.com", "ana@example.com"]).send()
    assert Message.objects.count() == 1

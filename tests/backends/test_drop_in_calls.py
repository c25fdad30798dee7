"""Django's own functions over the queue: as Django's tests of its mail backends want them, call by call.

Django's tests themselves are run by ``make django-mail``; ``tests/django_mail`` lists what of them is left out.
"""

from __future__ import annotations

import email.policy
import warnings
from collections.abc import Callable
from typing import Any

import django
import pytest
from django.core import mail
from django.core.mail import EmailMessage, mail_admins, mail_managers, send_mail, send_mass_mail
from django.core.management import call_command
from django.utils.functional import lazystr

from congressy_mailer.backends import EmailBackend
from congressy_mailer.models import Message
from congressy_mailer.testing import deliver_all
from tests.support.drop_in import WORLDS, open_default, put_in_force

pytestmark = [pytest.mark.django_db, pytest.mark.email_settings]

FROM, TO = "from@example.com", "to@example.com"


@pytest.fixture(params=WORLDS)
def sent(request: pytest.FixtureRequest, settings: Any, published: list[str]) -> Callable[[], list[Any]]:
    """The mails that arrive, parsed, with the queue in force in each way of configuring it."""
    put_in_force(settings, request.param, "django.core.mail.backends.locmem.EmailBackend", {})
    mail.outbox = []

    def arrived() -> list[Any]:
        deliver_all()
        return [
            email.message_from_bytes(getattr(one, "wire", b"") or one.message().as_bytes(), policy=email.policy.default)
            for one in mail.outbox
        ]

    return arrived


def people(*addresses: str) -> list[Any]:
    return list(addresses) if django.VERSION >= (6, 0) else [("Somebody", address) for address in addresses]


def test_send_mail(sent: Callable[[], list[Any]]) -> None:
    assert send_mail("Subject", "Text", FROM, [TO, "b@example.com"], html_message="<p>HTML</p>") == 1
    (one,) = sent()
    assert (one["Subject"], one["From"], one["To"]) == ("Subject", FROM, f"{TO}, b@example.com")
    plain, html = one.iter_parts()
    assert plain.get_content().strip() == "Text"
    assert html.get_content().strip() == "<p>HTML</p>"


def test_send_mass_mail(sent: Callable[[], list[Any]]) -> None:
    assert send_mass_mail([("A", "a", FROM, [TO]), ("B", "b", FROM, [TO])]) == 2
    assert [one["Subject"] for one in sent()] == ["A", "B"]


@pytest.mark.parametrize(("function", "setting"), [(mail_admins, "ADMINS"), (mail_managers, "MANAGERS")])
def test_mail_to_people_of_the_project(
    sent: Callable[[], list[Any]], settings: Any, function: Callable[..., None], setting: str
) -> None:
    function("Nobody", "there")
    setattr(settings, setting, people("one@example.com", "two@example.com"))
    settings.EMAIL_SUBJECT_PREFIX = "[Test] "
    function(lazystr("Subject"), "Text", html_message="<p>HTML</p>")
    (one,) = sent()
    assert (one["Subject"], one["From"]) == ("[Test] Subject", settings.SERVER_EMAIL)
    assert one["To"] == "one@example.com, two@example.com"


def test_unicode_long_lines_and_names(sent: Callable[[], list[Any]]) -> None:
    EmailMessage("Chère maman", "Je t'aime très fort " * 100, '"Firstname Sürname" <from@example.com>', [TO]).send()
    (one,) = sent()
    assert one["Subject"] == "Chère maman"
    assert one["From"] == "Firstname Sürname <from@example.com>"
    assert one.get_content().strip() == ("Je t'aime très fort " * 100).strip()
    assert max(map(len, bytes(one).splitlines())) <= 998


def test_several_from_a_list_and_from_an_iterator(sent: Callable[[], list[Any]]) -> None:
    mails = [EmailMessage(subject, "Text", FROM, [TO]) for subject in "AB"]
    assert open_default().send_messages(mails) == 2
    assert open_default().send_messages(iter(mails)) == 2
    assert [one["Subject"] for one in sent()] == ["A", "B", "A", "B"]


def test_copies_and_domains_of_other_letters(sent: Callable[[], list[Any]]) -> None:
    EmailMessage("Subject", "Text", "from@öäü.com", ["to@öäü.com"], cc=["cc@öäü.com"], bcc=["bcc@öäü.com"]).send()
    row = Message.objects.get()
    assert row.envelope == [f"{name}@xn--4ca9at.com" for name in ("to", "cc", "bcc")]
    (one,) = sent()
    # Hexadecimal, in which these letters may stand by chance.
    del one["Message-ID"]
    assert "bcc" not in bytes(one).decode("ascii").lower()


def test_a_recipient_without_a_domain(sent: Callable[[], list[Any]]) -> None:
    assert EmailMessage("Subject", "Text", "tester", ["django"]).send() == 1
    (one,) = sent()
    assert (one["From"], one["To"]) == ("tester", "django")


def test_lazy_addresses(sent: Callable[[], list[Any]]) -> None:
    assert send_mail("Subject", "Text", lazystr("tester"), [lazystr("django")]) == 1
    (one,) = sent()
    assert (one["From"], one["To"]) == ("tester", "django")


def test_what_becomes_of_a_mail_object_later_changes_nothing(sent: Callable[[], list[Any]]) -> None:
    one = EmailMessage("Subject", "Text", FROM, [TO])
    one.send()
    one.subject, one.to = "Other", ["other@example.com"]
    assert [(arrived["Subject"], arrived["To"]) for arrived in sent()] == [("Subject", TO)]


def test_a_connection_that_is_handed_in(sent: Callable[[], list[Any]]) -> None:
    backend = open_default()
    with backend as connection:
        assert connection is backend
        assert connection.send_messages([EmailMessage("A", "a", FROM, [TO])]) == 1
    backend.close()
    assert [one["Subject"] for one in sent()] == ["A"]


def test_the_command_that_sends_a_test_mail(sent: Callable[[], list[Any]], settings: Any) -> None:
    settings.ADMINS = people("admin@example.com")
    call_command("sendtestemail", TO, "b@example.com")
    call_command("sendtestemail", "--admins")
    assert {one["To"] for one in sent()} == {f"{TO}, b@example.com", "admin@example.com"}


CALLS: dict[str, Callable[[], Any]] = {
    "send_mail": lambda: send_mail("x", "y", FROM, [TO]),
    "send_mail, silently": lambda: send_mail("x", "y", FROM, [TO], fail_silently=True),
    "send_mass_mail": lambda: send_mass_mail([("x", "y", FROM, [TO])]),
    "send_mass_mail, silently": lambda: send_mass_mail([("x", "y", FROM, [TO])], fail_silently=True),
    "EmailMessage.send": lambda: EmailMessage("x", "y", FROM, [TO]).send(),
    "EmailMessage.send, silently": lambda: EmailMessage("x", "y", FROM, [TO]).send(fail_silently=True),
    "get_connection": lambda: mail.get_connection().send_messages([EmailMessage("x", "y", FROM, [TO])]),
    "get_connection of Wagtail": lambda: mail.get_connection(
        username=None, password=None, fail_silently=None
    ).send_messages([EmailMessage("x", "y", FROM, [TO])]),
    "get_connection, silently": lambda: mail.get_connection(fail_silently=True).send_messages(
        [EmailMessage("x", "y", FROM, [TO])]
    ),
    "connection=": lambda: send_mail("x", "y", FROM, [TO], connection=open_default()),
}


@pytest.mark.parametrize("call", CALLS)
def test_each_call_stores_and_no_warning_is_about_our_class(sent: Callable[[], list[Any]], call: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert CALLS[call]() == 1
    # What Django says of the call itself is the caller's.
    about_us = [str(one.message) for one in caught if EmailBackend.__module__ in str(one.message)]
    assert about_us == []
    assert not [one for one in caught if one.filename.endswith("congressy_mailer/backends.py")]
    assert len(sent()) == 1


if django.VERSION >= (6, 1):

    def test_a_wrong_option_is_named_by_django(settings: Any, published: list[str]) -> None:
        put_in_force(settings, "MAILERS", "django.core.mail.backends.locmem.EmailBackend", {}, speed="fast")
        with pytest.raises(mail.InvalidMailer, match="Unknown options 'speed'"):
            send_mail("x", "y", FROM, [TO])
        put_in_force(settings, "MAILERS", "django.core.mail.backends.locmem.EmailBackend", {}, username="me")
        with pytest.raises(mail.InvalidMailer, match="Unknown options 'username'"):
            send_mail("x", "y", FROM, [TO])

"""Whatever goes wrong with one mail, at whatever step: that mail alone waits or fails, and the others are sent."""

from __future__ import annotations

import asyncio
import json
import smtplib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import errors as email_errors
from types import MethodType
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.contrib.auth.models import User
from django.core import exceptions as django_errors
from django.core.mail.backends.base import BaseEmailBackend
from django.db import transaction, utils
from django.template import TemplateDoesNotExist, TemplateSyntaxError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from congressy_mailer import Recipient, exceptions, outbox, send_bulk, send_mail
from congressy_mailer.delivery.slice import Delivery
from congressy_mailer.models import Batch, Message, State
from tests.support.fuzzing import examples

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.fuzz]

POISON = "poison@poison.example"
SENDER = "news@poison-sender.example"
#: Few, so that many combinations can be tried; slices of the size that the settings have by default hold 100.
MAILS = 8


class Unspeakable(Exception):
    """Somebody's exception that cannot even say what it is."""

    def __str__(self) -> str:
        raise ValueError("no words")


class Bare(BaseException):
    """One that ``except Exception`` does not see."""


def made(kind: type[BaseException]) -> BaseException:
    """An exception of this kind, with the arguments that it takes."""
    arguments: dict[type[BaseException], tuple[Any, ...]] = {
        UnicodeDecodeError: ("utf-8", b"\xff", 0, 1, "wrong"),
        UnicodeEncodeError: ("ascii", "é", 0, 1, "wrong"),
        UnicodeTranslateError: ("é", 0, 1, "wrong"),
        json.JSONDecodeError: ("wrong", "{", 0),
        smtplib.SMTPResponseException: (451, b"later"),
        smtplib.SMTPDataError: (550, b"never"),
        smtplib.SMTPSenderRefused: (550, b"no", SENDER),
        smtplib.SMTPRecipientsRefused: ({POISON: (550, b"no")},),
        SoftTimeLimitExceeded: (),
    }
    return kind(*arguments.get(kind, ("a\té word",)))


KINDS: list[type[BaseException]] = [
    Exception, ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, ImportError, IndexError,
    KeyError, LookupError, MemoryError, NameError, NotImplementedError, RecursionError, ReferenceError,
    RuntimeError, StopIteration, StopAsyncIteration, SyntaxError, SystemError, TypeError, UnicodeDecodeError,
    UnicodeEncodeError, UnicodeTranslateError, ValueError, ZeroDivisionError, OSError, FileNotFoundError,
    PermissionError, TimeoutError, ConnectionError, BlockingIOError, InterruptedError, json.JSONDecodeError,
    utils.Error, utils.DatabaseError, utils.DataError, utils.IntegrityError, utils.InterfaceError,
    utils.InternalError, utils.NotSupportedError, utils.OperationalError, utils.ProgrammingError,
    transaction.TransactionManagementError, django_errors.FieldError, django_errors.ImproperlyConfigured,
    django_errors.ObjectDoesNotExist, django_errors.PermissionDenied, django_errors.ValidationError,
    django_errors.SynchronousOnlyOperation, TemplateDoesNotExist, TemplateSyntaxError, smtplib.SMTPException,
    smtplib.SMTPServerDisconnected, smtplib.SMTPResponseException, smtplib.SMTPDataError, smtplib.SMTPSenderRefused,
    smtplib.SMTPRecipientsRefused, email_errors.MessageError, email_errors.HeaderParseError, exceptions.MailerError,
    exceptions.ContentError, exceptions.ContentNotReady, exceptions.InvalidAddress, SoftTimeLimitExceeded,
    asyncio.CancelledError, GeneratorExit, Unspeakable, Bare,
]  # fmt: skip


@contextmanager
def raising(where: tuple[Any, str], concerns: Callable[..., bool], kind: type[BaseException]) -> Iterator[None]:
    """Have a function raise for the one mail, and do its work for all others."""
    owner, name = where
    original = getattr(owner, name)

    def function(*arguments: Any, **options: Any) -> Any:
        if concerns(*arguments, **options):
            raise made(kind)
        return original(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        bound = isinstance(original, MethodType)
        patch.setattr(
            owner, name, classmethod(lambda cls, *given, **by_name: function(*given, **by_name)) if bound else function
        )
        yield


def _names_poison(*arguments: Any, **options: Any) -> bool:
    return any(POISON in str(value) for value in (*arguments, *options.values()))


def _of_poison(message: Any, *rest: Any, **options: Any) -> bool:
    return POISON in getattr(message, "to", ())


#: A step between claim and record → the function that raises there, and when it is about the one mail.
STEPS: dict[str, tuple[str, str, Callable[..., bool]]] = {
    "reading the row": ("congressy_mailer.models.Message", "from_db", _names_poison),
    "suppression look-up": ("congressy_mailer.suppressions.lookup", "comparable_address", _names_poison),
    "admission": ("congressy_mailer.delivery.slice", "domain_of", lambda address: SENDER in address),
    "reading a row of the context": (
        "django.contrib.auth.models.User", "from_db", lambda using, fields, values, **options: "poison" in values,
    ),
    "context": (
        "congressy_mailer.content.context._Decoder", "_decode_variable", lambda self, stored: stored == "poison",
    ),
    "template": (
        "congressy_mailer.content.templates", "_render_html",
        lambda template, context: context["user"].username == "poison",
    ),
    "text from HTML": ("congressy_mailer.content.templates", "text_from_html", lambda html: "poison" in html),
    "unsubscribing": ("congressy_mailer.delivery.composing", "unsubscribe_headers", _of_poison),
    "attachment": (
        "congressy_mailer.delivery.composing", "_read",
        lambda attachment: attachment.message is not None and POISON in attachment.message.to,
    ),
    "composing": ("congressy_mailer.delivery.composing", "_wire_content", _of_poison),
    "options for SparkPost": ("congressy_mailer.delivery.composing", "sparkpost_keys", _of_poison),
}  # fmt: skip


def owner_of(path: str) -> Any:
    from importlib import import_module

    module, _, name = path.rpartition(".")
    try:
        return import_module(path)
    except ImportError:
        return getattr(import_module(module), name)


class Backend(BaseEmailBackend):
    """Takes everything, and keeps who it was for."""

    taken: list[str] = []

    def send_messages(self, email_messages: Any) -> int:
        self.taken += [recipient for message in email_messages for recipient in message.recipients()]
        return len(email_messages)


def store(batch: bool, position: int) -> tuple[Message, Batch | None]:
    """As many mails as a slice has, one of which is the poison; that one and its batch."""
    people = [User.objects.create(username=f"user{number}") for number in range(MAILS - 1)]
    people.insert(position, User.objects.create(username="poison"))
    to = [POISON if user.username == "poison" else f"{user.username}@example.com" for user in people]
    file = ("a.txt", b"text")
    if batch:
        recipients: list[Any] = [
            Recipient(to=address, context={"user": user, "mark": user.username}, attachments=[file])
            for address, user in zip(to, people, strict=True)
        ]
        stored = send_bulk(recipients, template="mail/hello", subject="s", context={"event": "e"}, from_email=SENDER)
        return stored.messages.get(to=[POISON]), stored
    with transaction.atomic():
        for address, user in zip(to, people, strict=True):
            sender = SENDER if address == POISON else "news@example.com"
            context = {"user": user, "mark": user.username}
            send_mail("s", from_email=sender, to=address, template="mail/hello", context=context, attachments=[file])
    return Message.objects.get(to=[POISON]), None


#: Where the time of a task is used up by the one mail that the step is about; elsewhere it says nothing of any mail.
TAKES_TIME = ("template", "text from HTML", "unsubscribing", "attachment", "composing")


def work(message: Message, batch: Batch | None) -> None:
    """What the tasks do that are published at once: nothing that has to be waited for."""
    if batch is not None:
        batch.refresh_from_db()
        while (
            result := Delivery(outbox.new_claim_token("test")).run_batch(batch.pk, batch.generation)
        ).continue_at is not None:
            assert result.continue_at is not None
        return
    ids = list(Message.objects.order_by("id").values_list("id", flat=True))
    while ids:
        ids = Delivery(outbox.new_claim_token("test")).run(ids, redelivered=False).unfinished


@settings(
    max_examples=examples(30), deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(
    step=st.sampled_from(sorted(STEPS)), kind=st.sampled_from(KINDS), batch=st.booleans(),
    position=st.integers(0, MAILS - 1),
)  # fmt: skip
@example(step="suppression look-up", kind=AttributeError, batch=True, position=3)
@example(step="template", kind=utils.OperationalError, batch=False, position=0)
@example(step="reading a row of the context", kind=utils.OperationalError, batch=True, position=0)
@example(step="reading the row", kind=ValueError, batch=False, position=5)
def test_any_exception_at_any_step_is_that_mails_alone(
    published: list[str], settings: Any, step: str, kind: type[BaseException], batch: bool, position: int
) -> None:
    # Mails of a batch have one sender.
    batch = batch and step != "admission"
    if kind is SoftTimeLimitExceeded and step not in TAKES_TIME:
        kind = TimeoutError
    Message.objects.all().delete()
    Batch.objects.all().delete()
    User.objects.all().delete()
    Backend.taken.clear()
    settings.EMAIL_BACKEND = f"{__name__}.Backend"
    poison, stored = store(batch, position)
    path, name, concerns = STEPS[step]
    with raising((owner_of(path), name), concerns, kind):
        work(poison, stored)
    assert sorted(Backend.taken) == sorted(f"user{number}@example.com" for number in range(MAILS - 1))
    poison.refresh_from_db()
    # It waits, or has failed, and says why.
    assert poison.state in (State.DEFERRED, State.FAILED, State.QUEUED)
    assert poison.attempts + poison.crashes > 0
    assert poison.reason
    assert poison.events.exists()

"""Whatever goes wrong with one mail, at whatever step: that mail alone waits or fails, and the others are sent."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import smtplib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from email import errors as email_errors
from types import MethodType
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.contrib.auth.models import User
from django.core import exceptions as django_errors
from django.core.mail.backends.base import BaseEmailBackend
from django.db import connection, connections, transaction, utils
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.models.signals import post_save
from django.template import TemplateDoesNotExist, TemplateSyntaxError
from django.utils import timezone
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from congressy_mailer import Recipient, exceptions, send_bulk, send_mail
from congressy_mailer.models import Batch, Event, Message, State
from congressy_mailer.testing import deliver_all
from tests.support.fuzzing import examples
from tests.support.mails import deliver, deliver_batch, deliver_slice

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.email_settings]

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
    "suppression look-up": (
        "congressy_mailer.outbox", "may_be_suppressed", lambda message: "poison" in str(message.to),
    ),
    "admission": ("congressy_mailer.delivery.route_delivery", "domain_of", lambda address: SENDER in address),
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
    "composing": ("congressy_mailer.delivery.composing", "compose", _of_poison),
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
        deliver_batch(batch)
        return
    ids = list(Message.objects.order_by("id").values_list("id", flat=True))
    while ids:
        ids = deliver(ids).unfinished


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


def failing_query(user: User) -> None:
    """A query that this database refuses with an operational error, over a connection that can be used afterwards."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # As when its statement_timeout is over.
            cursor.execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'query_canceled'; END $$")
        else:
            cursor.execute("SELECT no_such_column FROM auth_user")


@pytest.fixture
def backend(settings: Any) -> type[Backend]:
    """A mail backend that takes everything."""
    settings.EMAIL_BACKEND = f"{__name__}.Backend"
    Backend.taken.clear()
    return Backend


@pytest.mark.parametrize("batch", [False, True])
def test_a_query_of_one_template_that_the_database_refuses_is_that_mails_alone(
    published: list[str], backend: type[Backend], monkeypatch: pytest.MonkeyPatch, batch: bool
) -> None:
    poison, stored = store(batch, 3)

    def username(user: User) -> str:
        if user.get_username() == "poison":
            failing_query(user)
        return "good"

    monkeypatch.setattr(User, "__str__", username)
    monkeypatch.setattr("congressy_mailer.content.templates._render_html", lambda found, context: f"{context['user']}")
    work(poison, stored)
    assert len(backend.taken) == MAILS - 1
    poison.refresh_from_db()
    assert (poison.state, poison.attempts) == (State.DEFERRED, 1)
    assert poison.reason.startswith("OperationalError: ")
    assert poison.events.get().type == Event.Type.DEFERRED
    # It is given up as any other mail is that cannot be sent.
    long_ago = timezone.now() - timedelta(days=3)
    Message.objects.filter(pk=poison.pk).update(first_attempt_at=long_ago, due_at=timezone.now())
    work(poison, stored)
    poison.refresh_from_db()
    assert (poison.state, poison.attempts) == (State.FAILED, 2)
    assert poison.reason.startswith("Given up after 2 days, 0:00:00: OperationalError: ")


def test_a_second_database_that_is_down_holds_up_only_the_mail_that_needs_it(
    published: list[str], backend: type[Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = {**connections["default"].settings_dict, "ENGINE": "django.db.backends.sqlite3", "NAME": "/none/db"}
    # The one alias that Django lets a test connect to without creating a test database for it.
    monkeypatch.setitem(connections.settings, NO_DB_ALIAS, elsewhere)
    user = User.objects.create(username="ana")
    with transaction.atomic():
        send_mail("s", "b", to="eva@example.com")
        user._state.db = NO_DB_ALIAS
        needs_it = [
            send_mail("s", to=f"ana{number}@example.com", template="mail/hello", context={"user": user})
            for number in range(2)
        ]
        send_mail("s", "b", to="rui@example.com")
    work(needs_it[0], None)
    assert backend.taken == ["eva@example.com", "rui@example.com"]
    for message in needs_it:
        message.refresh_from_db()
        assert message.state == State.DEFERRED
        assert f"auth.User cannot be read from '{NO_DB_ALIAS}': OperationalError" in message.reason


def test_an_address_that_an_older_version_stored_stops_nobody_else(
    published: list[str], backend: type[Backend]
) -> None:
    batch = send_bulk([f"user{number}@example.com" for number in range(5)], subject="s", message="b")
    stored = Message.objects.order_by("id")[2]
    Message.objects.filter(pk=stored.pk).update(to=["ana@gmail.com\u2026"])
    work(stored, batch)
    assert len(backend.taken) == 4
    stored.refresh_from_db()
    assert stored.state in (State.DEFERRED, State.FAILED)
    assert stored.reason


@pytest.mark.parametrize("column", ["created_at", "to", "context", "remaining"])
def test_a_value_that_is_not_what_its_column_holds_stops_nobody_else(
    published: list[str], backend: type[Backend], column: str
) -> None:
    with transaction.atomic():
        ids = [send_mail("s", "b", to=f"user{number}@example.com").pk for number in range(3)]
    statement = f"UPDATE congressy_mailer_message SET {connection.ops.quote_name(column)} = 'wrong'"  # noqa: S608
    with connection.cursor() as cursor:
        if connection.vendor != "sqlite":
            # The others refuse it themselves.
            with pytest.raises(utils.DatabaseError):
                cursor.execute(statement)
            return
        cursor.execute("PRAGMA ignore_check_constraints = ON")
        cursor.execute(f"{statement} WHERE id = %s", [ids[1].hex])
        cursor.execute("PRAGMA ignore_check_constraints = OFF")
    unfinished = ids
    while unfinished:
        unfinished = deliver(unfinished).unfinished
    assert backend.taken.count("user0@example.com") == backend.taken.count("user2@example.com") == 1
    assert not Message.objects.filter(state=State.SENDING).exists()


def test_within_the_hosts_transaction_a_failed_query_is_not_the_failure_of_all_after_it(
    published: list[str], backend: type[Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    poison, _ = store(False, 2)
    monkeypatch.setattr(User, "__str__", lambda user: failing_query(user) if user.username == "poison" else "good")
    monkeypatch.setattr("congressy_mailer.content.templates._render_html", lambda found, context: f"{context['user']}")
    with transaction.atomic():
        deliver_all()
    assert len(backend.taken) == MAILS - 1
    assert Message.objects.get(pk=poison.pk).state == State.DEFERRED


def fail_for_poison(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have the rendering of the one mail do something."""

    def render(template: Any, context: Any) -> str:
        if context["user"].username == "poison":
            act()
        return "good"

    monkeypatch.setattr("congressy_mailer.content.templates._render_html", render)


def raise_in_a_ring() -> None:
    error = ValueError("a secret word")
    raise error from error


@pytest.mark.parametrize("sensitive", [False, True])
def test_causes_that_form_a_ring_are_no_endless_chain(
    published: list[str], backend: type[Backend], monkeypatch: pytest.MonkeyPatch, sensitive: bool
) -> None:
    poison, _ = store(False, 2)
    Message.objects.filter(pk=poison.pk).update(sensitive=sensitive)
    fail_for_poison(monkeypatch, raise_in_a_ring)
    work(poison, None)
    assert len(backend.taken) == MAILS - 1
    poison.refresh_from_db()
    assert (poison.state, poison.attempts) == (State.FAILED, 1)


def leave_a_block_open() -> None:
    transaction.atomic().__enter__()


def leave_a_broken_block_open() -> None:
    leave_a_block_open()
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM no_such_table")


def commit_by_hand() -> None:
    transaction.set_autocommit(False)


@pytest.mark.parametrize("act", [leave_a_block_open, leave_a_broken_block_open, commit_by_hand])
@pytest.mark.parametrize("batch", [False, True])
def test_a_transaction_that_a_template_leaves_open_takes_no_record_with_it(
    published: list[str], backend: type[Backend], monkeypatch: pytest.MonkeyPatch, act: Callable[[], None], batch: bool
) -> None:
    poison, stored = store(batch, 2)
    fail_for_poison(monkeypatch, act)
    work(poison, stored)
    assert (connection.in_atomic_block, connection.get_autocommit()) == (False, True)
    # What was recorded is seen by a new connection too.
    connection.close()
    assert len(backend.taken) == MAILS - 1
    assert Message.objects.filter(state=State.SENT).count() == MAILS - 1
    poison.refresh_from_db()
    assert (poison.state, poison.attempts) == (State.DEFERRED, 1)
    assert poison.reason


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exit_while_contexts_are_read_counts_against_each_and_does_not_repeat_for_ever(
    published: list[str], backend: type[Backend], kind: type[BaseException]
) -> None:
    poison, _ = store(False, 2)
    ids = list(Message.objects.order_by("id").values_list("id", flat=True))
    path, name, concerns = STEPS["reading a row of the context"]
    with raising((owner_of(path), name), concerns, kind):
        with pytest.raises(kind):
            deliver(ids)
        # Each is tried alone from then on, and the one is set aside.
        for _ in range(2):
            for key in ids:
                try:
                    deliver([key])
                except kind:
                    assert key == poison.pk
    assert len(backend.taken) == MAILS - 1
    poison.refresh_from_db()
    assert (poison.state, poison.crashes) == (State.HELD, 3)


def test_a_receiver_of_the_hosts_for_all_models_decides_nothing(
    published: list[str], backend: type[Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    poison, _ = store(False, 2)
    fail_for_poison(monkeypatch, raise_in_a_ring)

    def audit(sender: type[Any], **options: Any) -> None:
        if sender is Event:
            raise LookupError("the audit log is full")

    post_save.connect(audit)
    try:
        work(poison, None)
    finally:
        post_save.disconnect(audit)
    assert len(backend.taken) == MAILS - 1
    assert poison.events.get().type == Event.Type.FAILED


def test_a_filter_of_the_hosts_log_that_raises_stops_nobody(
    published: list[str], backend: type[Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    poison, _ = store(False, 2)
    fail_for_poison(monkeypatch, raise_in_a_ring)

    def refuse(record: logging.LogRecord) -> bool:
        if str(poison.pk) in record.getMessage():
            raise LookupError("the log is full")
        return True

    logger = logging.getLogger("congressy_mailer.delivery")
    logger.addFilter(refuse)
    try:
        work(poison, None)
    finally:
        logger.removeFilter(refuse)
    assert len(backend.taken) == MAILS - 1
    poison.refresh_from_db()
    assert (poison.state, poison.attempts) == (State.FAILED, 1)


def test_a_priority_that_this_version_does_not_know_is_a_number_as_any_other(
    published: list[str], backend: type[Backend]
) -> None:
    ids = [send_mail("s", "b", to=f"user{number}@example.com").pk for number in range(2)]
    Message.objects.update(queued_at=timezone.now() - timedelta(minutes=5))
    Message.objects.filter(pk=ids[0]).update(priority=7)
    deliver(ids)
    assert sorted(backend.taken) == ["user0@example.com", "user1@example.com"]


def test_memory_that_was_short_while_a_row_was_read_fails_nothing(published: list[str], backend: type[Backend]) -> None:
    message = send_mail("s", "b", to=POISON)
    with raising((Message, "from_db"), _names_poison, MemoryError):
        work(message, None)
    message.refresh_from_db()
    assert (message.state, message.attempts) == (State.DEFERRED, 1)


def test_what_uses_up_the_time_of_each_slice_does_not_keep_a_batch_from_moving(
    published: list[str], backend: type[Backend], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "TIME_SLICE": timedelta(microseconds=1)}
    poison, stored = store(True, 5)
    assert stored is not None
    path, name, concerns = STEPS["reading a row of the context"]
    with raising((owner_of(path), name), concerns, Bare):
        for _ in range(MAILS):
            deliver_slice(stored)
    assert len(backend.taken) == MAILS - 1


def test_a_mail_that_somebody_has_is_sent_although_its_template_fails_later(
    published: list[str], backend: type[Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    poison, _ = store(False, 2)
    now = timezone.now()
    Message.objects.filter(pk=poison.pk).update(sent_at=now, state=State.DEFERRED, due_at=now, attempts=1)
    fail_for_poison(monkeypatch, raise_in_a_ring)
    work(poison, None)
    poison.refresh_from_db()
    assert (poison.state, poison.attempts) == (State.SENT, 2)
    assert poison.reason


def test_a_copy_of_the_worker_that_a_template_makes_delivers_nothing(
    published: list[str], backend: type[Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    children: list[int] = []

    def fork() -> None:
        children.append(os.fork())

    poison, _ = store(False, 2)
    fail_for_poison(monkeypatch, fork)
    work(poison, None)
    assert sorted(backend.taken) == sorted([POISON, *(f"user{number}@example.com" for number in range(MAILS - 1))])
    (child,) = children
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class Unmakeable(BaseEmailBackend):
    """A backend whose constructor raises what has no words."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        raise Unspeakable


def test_a_backend_that_cannot_be_made_is_no_mails_fault_whatever_it_raises(
    published: list[str], settings: Any
) -> None:
    settings.EMAIL_BACKEND = f"{__name__}.Unmakeable"
    message = send_mail("s", "b", to="ana@example.com")
    with pytest.raises(exceptions.TransportUnavailable, match="Unspeakable"):
        work(message, None)
    message.refresh_from_db()
    assert (message.state, message.attempts) == (State.QUEUED, 0)

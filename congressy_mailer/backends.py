"""The mail backend that queues what a host sends through Django: password resets, and mail of other apps."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from datetime import timedelta
from smtplib import SMTPException
from typing import Any, TypeVar

from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.db import Error, connections, transaction
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from . import outbox
from .conf import mailer_settings
from .exceptions import InvalidOption, MailerError
from .metrics.spans import StoringSpan
from .mime.outgoing import OutgoingMail
from .mime.stored import StoredMail
from .models import Attachment, Message, Priority, State
from .models.transactions import explaining_missing_tables
from .outbox.publishing import publish_on_commit
from .replies import error_text
from .submission.arguments import clean_bool, clean_priority
from .submission.attachments import store_attachment
from .submission.django_mail import Options, is_servers_own, message_from, server_addresses
from .submission.queued_signal import announce_queued
from .suppressions.lookup import suppressed_recipients
from .transports.aliases import QueueingBackend, storage_alias
from .transports.guard import delivering, is_delivering
from .transports.host_backends import knows_sparkpost, open_backend
from .transports.redirecting import configured_redirect
from .transports.stored_mail import stored_mail

logger = logging.getLogger("congressy_mailer.backends")

_R = TypeVar("_R")


class MailNotStored(MailerError, SMTPException):
    """Mail could not be stored: of the kind of error that callers of Django's mail backends expect.

    What it goes back to is its ``__cause__``.
    """


class EmailBackend(QueueingBackend):
    """Stores mail in the caller's transaction, and has a worker deliver it once that commits.

    Name it in ``EMAIL_BACKEND``, with its options in ``CONGRESSY_MAILER["BACKEND_OPTIONS"]``, or in ``MAILERS``, with
    its options there. Mail from ``SERVER_EMAIL`` to ``ADMINS`` and ``MANAGERS`` alone is not stored: it leaves at once,
    whatever state the database is in, and what goes wrong with it is never raised.

    Args:
        fail_silently: say nothing of mail that could not be stored, and count it out. A wrong address or header is an
            error in any case, as with Django's own backend.
        using: alias of the backend that a worker delivers over. Where ``EMAIL_BACKEND`` names this class it may be left
            out: Django's SMTP backend, with ``EMAIL_*``.
        priority: which of the messages that are due leaves first.
        sensitive: never show the content, and drop it as soon as it is sent.
        expires_after: how long after it was stored a mail may still be sent; ``None``: without end.
        attributes: names of further attributes of a mail that are stored as JSON and given to the backend behind.
        username: may not be given: a row does not keep passwords.
        password: likewise.
        options: those of Django's base class.

    Raises:
        InvalidOption: ``username`` or ``password`` is given, or an option is of the wrong type.
    """

    @sensitive_variables("username", "password")
    def __init__(
        self,
        fail_silently: bool = False,
        *,
        using: str | None = None,
        priority: Priority | int | None = None,
        sensitive: bool | None = None,
        expires_after: timedelta | None = None,
        attributes: Sequence[str] | None = None,
        username: str | None = None,
        password: str | None = None,
        **options: Any,
    ) -> None:
        ignored = options.get("_ignore_unknown_kwargs") or ()
        alias = options.get("alias")
        if alias is not None:
            # In OPTIONS they would be a mistake, which Django names.
            given = {"username": username, "password": password}
            options |= {name: value for name, value in given.items() if value is not None and name not in ignored}
        super().__init__(**options)
        self.fail_silently = bool(fail_silently)
        if username or password:
            raise InvalidOption(
                "A queue keeps no user or password for a single mail: configure a mail backend with them, and name it "
                "with using."
            )
        own: dict[str, Any] = {
            "using": using, "priority": priority, "sensitive": sensitive, "expires_after": expires_after,
            "attributes": attributes,
        }  # fmt: skip
        configured = mailer_settings().BACKEND_OPTIONS if alias is None else {}
        own = {**configured, **{name: value for name, value in own.items() if value is not None}}
        self._alias = alias or ""
        self._using = _clean_using(own.get("using"))
        self._priority = clean_priority(own.get("priority", Priority.NORMAL))
        self._sensitive = clean_bool(own.get("sensitive", True), "sensitive")
        self._expires_after = _clean_expires_after(own.get("expires_after"))
        self._attributes = _clean_attributes(own.get("attributes", ()))

    def send_messages(self, email_messages: Iterable[EmailMessage] | None) -> int:
        """Store these mails, all or none, and have them delivered once the transaction commits.

        Args:
            email_messages: of Django's, or of classes that derive from it; they are not changed, but for an attribute
                ``mailer_message``, which holds the :class:`~congressy_mailer.models.Message`.

        Returns:
            How many of them have a recipient, and are stored or on their way.

        Raises:
            ValueError: an address or a header is not one.
            MailNotStored: the database or the storage of attachments did not take them.
        """
        mails = list(email_messages or ())
        people = server_addresses()
        servers_own = [mail for mail in mails if is_servers_own(mail, people)]
        others = [mail for mail in mails if not is_servers_own(mail, people)]
        sent = self._send_directly(servers_own) if servers_own else 0
        return sent + (self._queue(others) if others else 0)

    @sensitive_variables()
    def _queue(self, mails: Sequence[EmailMessage]) -> int:
        expires_at = timezone.now() + self._expires_after if self._expires_after is not None else None
        options = Options(
            using=storage_alias(self._target()), priority=self._priority, sensitive=self._sensitive,
            expires_at=expires_at, attributes=self._attributes, knows_sparkpost=knows_sparkpost(self._target()),
        )  # fmt: skip
        # All of them before the first is stored: a caller who tries again after an error sends none of them twice.
        made = [(mail, *new) for mail in mails if (new := message_from(mail, options)) is not None]
        if not made:
            return 0
        try:
            _outside_of_event_loops(lambda: _store([(message, content) for _, message, content in made]))
        except (Error, OSError) as error:
            if self.fail_silently:
                logger.warning("%d mails were not stored: %s", len(made), type(error).__name__)
                return 0
            raise MailNotStored(f"The mail could not be stored: {error_text(error)}") from error
        for mail, message, _ in made:
            mail.mailer_message = message  # type: ignore[attr-defined]
        return len(made)

    def _send_directly(self, mails: Sequence[EmailMessage]) -> int:
        """Send mail of the server's own, from this process. Never raises.

        Its reason may be that the database is away, its transaction is broken or will be rolled back, or that mail is
        not delivered; and it may come from a coroutine.
        """
        if is_delivering():
            # Each error of a worker's about mail would be one more mail.
            return 0
        with delivering():
            try:
                backend = open_backend(self._target())
                timeout = getattr(backend, "timeout", None)
                # Backends over HTTP may have a pair of them.
                if isinstance(timeout, int | float) and timeout > _LONGEST_SILENCE:
                    # A person waits for the page.
                    backend.timeout = _LONGEST_SILENCE  # type: ignore[attr-defined]
                return int(backend.send_messages(self._redirected(mails)) or 0)
            except Exception as error:
                logger.warning("%d mails to ADMINS or MANAGERS were not sent: %s", len(mails), type(error).__name__)
                return 0

    def _redirected(self, mails: Sequence[EmailMessage]) -> list[EmailMessage]:
        redirect = configured_redirect()
        if redirect is None:
            return list(mails)
        changed: list[EmailMessage] = []
        for mail in mails:
            options = Options(using="", priority=self._priority, sensitive=True, expires_at=None, attributes=())
            if (new := message_from(mail, options)) is not None:
                message, content = new
                wire = content.content if content is not None else bytes(message.mime or b"")
                changed.append(redirect.apply(stored_mail(message, wire, {})).for_backend())
        return changed

    def _target(self) -> str:
        return self._using or self._alias


# Seconds that a server may be silent before an error mail is given up.
_LONGEST_SILENCE = 10


def _store(made: Sequence[tuple[Message, Any]]) -> None:
    messages = [message for message, _ in made]
    stored: list[Attachment] = []
    try:
        for message, content in made:
            if content is not None:
                stored.append(store_attachment(content, message=message))
        with (
            StoringSpan(mails=len(messages)) as span,
            explaining_missing_tables(),
            transaction.atomic(using=outbox.database()),
        ):
            for message in messages:
                message.traceparent = span.traceparent
            suppressed = suppressed_recipients(messages)
            outbox.add_many(messages, stored, suppressed)
            publish_on_commit([message.pk for message in messages if message.state == State.QUEUED])
            announce_queued(messages)
    except BaseException:
        # Their rows are not stored. Where the database refuses this as well, they go two days later.
        with suppress(Error):
            outbox.forget_files(stored)
        raise


def _outside_of_event_loops(work: Callable[[], _R]) -> _R:
    """Do something with the database; out of a coroutine in a thread of its own, since Django refuses there."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    if os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE"):
        return work()

    def in_thread() -> _R:
        try:
            return work()
        finally:
            # The thread's own.
            connections.close_all()

    with ThreadPoolExecutor(1, thread_name_prefix="congressy_mailer") as thread:
        return thread.submit(copy_context().run, in_thread).result()


def _clean_using(using: Any) -> str:
    if using is not None and not isinstance(using, str):
        raise InvalidOption(f"using must be the alias of a mail backend, not {type(using).__name__}.")
    return using or ""


def _clean_expires_after(value: Any) -> timedelta | None:
    if value is not None and not (isinstance(value, timedelta) and value > timedelta(0)):
        raise InvalidOption(f"expires_after must be a timedelta above zero, not {value!r}.")
    return value


def _clean_attributes(names: Any) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(map(_is_free_name, names)):
        raise InvalidOption(
            f"attributes must be a list of names of attributes that neither Django nor the mailer uses, not {names!r}."
        )
    return tuple(names)


def _is_free_name(name: Any) -> bool:
    taken = {*dir(StoredMail), *vars(EmailMultiAlternatives()), *OutgoingMail.__annotations__}
    return isinstance(name, str) and name.isidentifier() and not name.startswith("_") and name not in taken

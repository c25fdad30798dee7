"""Moving mail from another package's table into the outbox, one mail at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.apps import apps
from django.core.mail import EmailMessage
from django.db import Error, models, router, transaction
from django.utils.module_loading import import_string
from django.views.decorators.debug import sensitive_variables

from .. import outbox
from ..exceptions import MailerError
from ..mime.attachments import LoadedAttachment
from ..models import Message, Priority, State
from ..outbox.publishing import publish_on_commit
from ..replies import error_text
from ..submission.attachments import store_attachment
from ..submission.django_mail import Options, message_from
from ..submission.queued_signal import announce_queued
from ..suppressions.lookup import suppressed_recipients
from ..transports.aliases import backend_path, queue_options
from ..transports.host_backends import knows_sparkpost
from .pickle_reader import PickleRefused


class ImportRefused(Exception):
    """Nothing can be imported as things stand; the text says why, and what to do."""


class NotImported(Exception):
    """A mail stays where it is; the text says why."""


@dataclass(slots=True)
class Imported:
    """What became of a queue."""

    #: Mails that are in the outbox now.
    imported: int = 0
    #: Mails that an earlier run had brought there, and not taken out of their queue.
    known: int = 0
    #: Of each mail that stays where it is, which and why.
    left: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A mail of the other package's, ready to be stored."""

    mail: EmailMessage
    #: The same for the same mail, and for no other.
    key: str
    priority: Priority
    #: Alias of the mail backend.
    using: str = ""
    send_at: datetime | None = None
    expires_at: datetime | None = None


class Queue(ABC):
    """A queue of another package's. Each kind says which mails wait, what they are, and how one leaves its table."""

    #: The package, as its users call it.
    package: str
    #: Its app, and the module that its own backend is in.
    app: str

    @abstractmethod
    def rows(self) -> models.QuerySet[Any]:
        """The rows of mail that waits, in the order in which it would be sent."""

    @abstractmethod
    def describe(self, row: Any) -> str:
        """Which mail it is, for people."""

    @abstractmethod
    def read(self, row: Any) -> Taken:
        """The mail of a row.

        Raises:
            NotImported: it cannot be imported. Any other error is one of reading it, and the reason as well.
        """

    @abstractmethod
    def take_out(self, row: Any) -> bool:
        """Take a row out of the queue; says whether it was still in it."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the other package from sending meanwhile.

        Raises:
            ImportRefused: it is sending now.
        """
        yield

    def import_all(self, *, dry_run: bool, advance: Callable[[int], None]) -> Imported:
        """Bring each mail that waits into the outbox, and take it out of this queue in the same transaction.

        Args:
            dry_run: read all, and change nothing.
            advance: called with how many have been looked at since the last call.

        Raises:
            ImportRefused: nothing can be imported.
        """
        self.check()
        result = Imported()
        rows = self.rows()
        if dry_run:
            self._import_rows(rows, result, advance, dry_run=True)
        else:
            with self.locked():
                self._import_rows(rows, result, advance, dry_run=False)
        return result

    def check(self) -> None:
        """Make sure that what is imported goes where it should.

        Raises:
            ImportRefused: it would not.
        """
        try:
            module = str(import_string(backend_path("")).__module__)
        except Exception:
            # A wrong path is reported where the backend is made.
            return
        if module.partition(".")[0] == self.app:
            raise ImportRefused(
                f"The project's mail still goes through {self.package}, which would queue what is imported again. "
                "Change EMAIL_BACKEND or MAILERS first."
            )

    def _import_rows(
        self, rows: models.QuerySet[Any], result: Imported, advance: Callable[[int], None], *, dry_run: bool
    ) -> None:
        for key in list(rows.values_list("pk", flat=True)):
            row = rows.filter(pk=key).first()
            if row is not None:
                self._import_row(row, result, dry_run=dry_run)
            advance(1)

    @sensitive_variables()
    def _import_row(self, row: Any, result: Imported, *, dry_run: bool) -> None:
        try:
            taken = self.read(row)
            made = _message(taken)
        except (Error, MemoryError):
            raise
        except (NotImported, PickleRefused, MailerError) as error:
            result.left.append(f"{self.describe(row)}: {error}")
            return
        except Exception as error:
            # Another package's rows may be invalid in any way.
            result.left.append(f"{self.describe(row)}: {error_text(error)}")
            return
        if dry_run:
            known = _is_known(taken.key)
            result.known += known
            result.imported += not known
            return
        with transaction.atomic(using=row._state.db), transaction.atomic(using=outbox.database()):
            # First: on SQLite a transaction that has begun with reading may not be able to write.
            if not self.take_out(row):
                return
            if _is_known(taken.key):
                result.known += 1
                return
            _store(*made)
        result.imported += 1


def model_of(app: str, name: str, package: str) -> Any:
    """A model of another package's.

    Raises:
        ImportRefused: the package is not installed.
    """
    if not apps.is_installed(app):
        raise ImportRefused(f"{package} is not in INSTALLED_APPS: it must stay there until its mail is imported.")
    return apps.get_model(app.rpartition(".")[2], name)


def rows_of(model: Any) -> models.QuerySet[Any]:
    """The rows of a model in the database that it is written to."""
    found: models.QuerySet[Any] = model._base_manager.using(router.db_for_write(model))
    return found


def further_attributes() -> tuple[str, ...]:
    """Names of attributes of a mail that the queue which stands in for Django's backend keeps."""
    return tuple(queue_options("").get("attributes", ()))


@sensitive_variables()
def _message(taken: Taken) -> tuple[Message, LoadedAttachment | None]:
    """
    Raises:
        NotImported: it has no recipient, or no time to be sent in.
        ValueError: an address or a header is not one.
    """
    options = Options(
        using=taken.using,
        priority=taken.priority,
        sensitive=bool(queue_options("").get("sensitive", True)),
        expires_at=taken.expires_at,
        attributes=further_attributes(),
        knows_sparkpost=knows_sparkpost(taken.using),
    )
    made = message_from(taken.mail, options)
    if made is None:
        raise NotImported("it has no recipient")
    message, content = made
    message.idempotency_key = taken.key
    if taken.send_at is not None:
        message.send_at = taken.send_at
    return message, content


def _is_known(key: str) -> bool:
    return Message.objects.using(outbox.database()).filter(idempotency_key=key).exists()


def _store(message: Message, content: LoadedAttachment | None) -> None:
    attachments = [] if content is None else [store_attachment(content, message=message)]
    outbox.add(message, attachments, suppressed_recipients([message]).get(message.pk))
    if message.state == State.QUEUED:
        publish_on_commit([message.pk])
    announce_queued([message])

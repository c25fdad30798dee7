"""Mail that django-mailer has queued, and the addresses on its list of those that get none."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext as _

from .. import suppressions
from ..exceptions import InvalidAddress
from ..mime.addresses import comparable_address, normalise_address
from ..models import Priority
from ..suppressions.entries import Entry
from ..suppressions.lookup import suppressed_among
from ..suppressions.rules import Scope, Source
from .pickled_mail import mail_from_pickle
from .queue import ImportRefused, NotImported, Queue, Taken, further_attributes, model_of, rows_of

_PRIORITIES = {1: Priority.HIGH, 2: Priority.NORMAL, 3: Priority.LOW}
_APP, _PACKAGE = "mailer", "django-mailer"


class DjangoMailerQueue(Queue):
    """Its table of messages. Those that it has put off after an error (*deferred*) wait as well."""

    package, app = _PACKAGE, _APP

    def rows(self) -> models.QuerySet[Any]:
        return rows_of(model_of(_APP, "Message", _PACKAGE)).order_by("priority", "when_added", "pk")

    def describe(self, row: Any) -> str:
        return _("mail %(id)s of %(date)s") % {"id": row.pk, "date": f"{row.when_added:%Y-%m-%d %H:%M}"}

    def read(self, row: Any) -> Taken:
        most = getattr(settings, "MAILER_EMAIL_MAX_RETRIES", None)
        if row.priority == 4 and most is not None and row.retry_count >= most:
            raise NotImported("django-mailer has given it up after MAILER_EMAIL_MAX_RETRIES")
        data = str(row.message_data).encode("ascii", "replace")
        try:
            content = base64.b64decode(b"".join(data.split()), validate=True)
        except binascii.Error:
            raise NotImported("what it holds is damaged") from None
        return Taken(
            mail=mail_from_pickle(content, further_attributes()),
            key=f"django-mailer:{row.pk}:{hashlib.sha256(content).hexdigest()[:32]}",
            priority=_PRIORITIES.get(row.priority, Priority.LOW),
        )

    def take_out(self, row: Any) -> bool:
        # A process that is sending it has locked it: this waits, and finds it gone.
        return bool(self.rows().filter(pk=row.pk, message_data=row.message_data).delete()[0])

    @contextmanager
    def locked(self) -> Iterator[None]:
        if not getattr(settings, "MAILER_USE_FILE_LOCK", True):
            yield
            return
        engine: Any = import_module("mailer.engine")
        acquired, lock = engine.acquire_lock()
        if not acquired:
            raise ImportRefused(
                f"django-mailer is sending now, or has left its lock file {lock.lock_file} behind. Stop its cron jobs "
                "and runmailer, and delete the file if it is still there."
            )
        try:
            yield
        finally:
            engine.release_lock(lock)


def import_refused_addresses(*, dry_run: bool) -> tuple[int, list[str]]:
    """Put the addresses that django-mailer sends nothing to on the suppression list.

    Returns:
        How many addresses are new there, and what is wrong with those that are none.

    Raises:
        ImportRefused: django-mailer is not installed.
    """
    addresses, problems = set(), []
    for text in rows_of(model_of(_APP, "DontSendEntry", _PACKAGE)).values_list("to_address", flat=True):
        try:
            addresses.add(comparable_address(normalise_address(text, "to_address")))
        except InvalidAddress as error:
            problems.append(str(error))
    known = suppressed_among(addresses, transactional=True) & suppressed_among(addresses, transactional=False)
    new = sorted(addresses - known)
    if not dry_run:
        now = timezone.now()
        suppressions.add(
            Entry(at=now, source=Source.IMPORT, reason="django-mailer: don't send", address=address, scope=scope)
            for address in new
            for scope in (Scope.TRANSACTIONAL, Scope.NON_TRANSACTIONAL)
        )
    return len(new), problems

"""Whether this database alone decides about the files of its folder in the storage.

A database that was copied, with its rows, believes that it is the original, and would delete files that the original
still needs. So the workers write a new token into a file of the folder once an hour, and into the database. Whoever
finds another token there than its own has been overtaken by a copy, or is one, or was restored from a backup: it
deletes nothing until a person says which.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import suppress
from datetime import datetime, timedelta

from celery.exceptions import SoftTimeLimitExceeded
from django.core.files.base import ContentFile
from django.core.files.storage import Storage
from django.db import IntegrityError, transaction
from django.db.models import Max, QuerySet

from ..models import Installation, StoredFile, attachment_storage, clock
from ..models.files import new_secret
from ..models.transactions import database, retry_on_conflict
from ..replies import error_text

logger = logging.getLogger("congressy_mailer.retention")

#: How often the token changes: with each hourly purge.
ROTATE_EVERY = timedelta(minutes=50)

_OWNER = "owner"


def current_installation() -> Installation:
    """The installation that this database belongs to."""
    return _rows().first() or _create()


def _rows() -> QuerySet[Installation]:
    return Installation.objects.using(database())


def _create() -> Installation:
    with suppress(IntegrityError), transaction.atomic(using=database()):
        return _rows().create()
    # Another caller did it at the same moment.
    return _rows().get()


def may_delete_files(*, rotate: bool = False) -> bool:
    """Whether this database still is the only one that uses its folder.

    Args:
        rotate: change the token when it is old enough: by one worker for all.

    Returns:
        ``False`` where another one uses it, or where the storage cannot be asked now; the log says which.
    """
    installation = current_installation()
    storage = attachment_storage()
    try:
        found = _read_token(storage, installation)
        if _is_foreign(found, storage, installation):
            _contest(installation)
            return False
        if installation.contested_at is not None:
            _rows().update(contested_at=None)
        if rotate and (found is None or _is_old(installation.token_at)) and _has_files():
            _write_token(storage, installation)
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:
        logger.warning("No file is deleted now, since the storage cannot be asked: %s", error_text(error))
        return False
    return True


def folder_is_contested() -> bool:
    """Whether another database has used the folder since this one did, as far as the storage tells.

    Raises:
        Exception: any error of the storage or the database.
    """
    installation, storage = current_installation(), attachment_storage()
    return _is_foreign(_read_token(storage, installation), storage, installation)


def _is_foreign(found: str | None, storage: Storage, installation: Installation) -> bool:
    while found is not None and found not in _tokens(installation):
        # Another worker may have changed it since the row was read. One of ours that is in the folder before the row is
        # read and after it is named by the row.
        installation = current_installation()
        still = _read_token(storage, installation)
        if still == found:
            return found not in _tokens(installation)
        found = still
    return False


def _tokens(installation: Installation) -> tuple[str, str]:
    """What may be in the folder, as far as this row knows."""
    return installation.token, installation.next_token


def _is_old(moment: datetime | None) -> bool:
    return moment is None or clock.now() - moment >= ROTATE_EVERY


def _has_files() -> bool:
    return StoredFile.objects.using(database()).exists()


def _read_token(storage: Storage, installation: Installation) -> str | None:
    path = f"{installation.folder}/{_OWNER}"
    if not storage.exists(path):
        return None
    try:
        with storage.open(path, "rb") as file:
            content: bytes = file.read(200)
    except Exception:
        if storage.exists(path):
            raise
        # Deleted since it was asked for, by another worker that writes the next one.
        return None
    # Empty while another worker writes it.
    return content.decode("ascii", "replace") or None


def _write_token(storage: Storage, installation: Installation) -> None:
    token = secrets.token_hex(16)
    # Both count until the file is written: a worker may be killed in between.
    _rows().update(next_token=token)
    path = f"{installation.folder}/{_OWNER}"
    # Where there is one already, most storages give another name to the next.
    if storage.exists(path):
        storage.delete(path)
    written = storage.save(path, ContentFile(token.encode()))
    if written != path:
        storage.delete(written)
        raise OSError(f"the storage made {written} of {path}")
    _rows().update(token=token, next_token="", token_at=clock.now())


def _contest(installation: Installation) -> None:
    if installation.contested_at is None and _rows().filter(contested_at=None).update(contested_at=clock.now()):
        logger.error(
            "Attachment files are not deleted any more: another database has used the folder %s since this one did. "
            "Run \"manage.py mailer installation --new\" on the copy, and \"--keep\" on the original.",
            installation.folder,
        )  # fmt: skip


@retry_on_conflict
def begin_new_installation() -> Installation:
    """This database is a copy: give it a folder of its own. The files of the original are its own affair from now on.

    Messages that were copied keep their attachments as long as the original does.
    """
    installation = current_installation()
    # Their numbers mean files in the other folder.
    highest = StoredFile.objects.using(database()).aggregate(highest=Max("id"))["highest"] or 0
    fresh = Installation(secret=new_secret(), checked_number=highest, marked_number=highest)
    fresh.save(using=database(), force_update=True)
    # Nothing is deleted there by this database, neither now nor later.
    old = StoredFile.objects.using(database()).filter(installation=installation.key, uses=0)
    old.delete()
    return fresh


def keep_installation() -> Installation:
    """This database is the original: the folder is its own, even if another one has written the token.

    Raises:
        Exception: any error of the storage.
    """
    installation = current_installation()
    _write_token(attachment_storage(), installation)
    _rows().update(contested_at=None)
    return current_installation()

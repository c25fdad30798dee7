"""Checks of the databases: the outbox should be in one transaction with what it tells of, and no copy of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Tags, Warning, register
from django.db import DEFAULT_DB_ALIAS, router
from django.utils.translation import gettext as _

from .settings import Apps


@register("congressy_mailer")
def check_outbox_database(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.W008``: a router puts the outbox into another database than ``default``."""
    from ..models import Message

    alias = router.db_for_write(Message)
    if alias == DEFAULT_DB_ALIAS:
        return []
    return [
        Warning(
            _(
                "A database router puts the outbox into %(alias)r: a mail is only part of a transaction of that "
                "database. If a transaction of another database rolls back, the mail queued in it is sent anyway."
            )
            % {"alias": alias},
            hint=_(
                "Keep the outbox in the database of the data that its mail is about, or call send_mail() in "
                "transaction.on_commit() with that database as using."
            ),
            id="congressy_mailer.W008",
        )
    ]


@register("congressy_mailer", Tags.database)
def check_installation(app_configs: Apps, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.W014`` (``check --database default``, and ``migrate``): a copied or restored database.

    Another database has used the same folder of attachments since this one did.
    """
    from .. import outbox

    if outbox.database() not in (databases or ()):
        return []
    try:
        contested = outbox.folder_is_contested()
    except Exception:
        # Nothing is migrated yet, or the storage is away: other checks and the log tell.
        return []
    if not contested:
        return []
    return [
        Warning(
            _(
                "Another database has used the attachment folder %(folder)s since this one did: one of the two is a "
                "copy, or this one was restored from a backup. Attachment files are not deleted until you say which is "
                "the original."
            )
            % {"folder": outbox.current_installation().folder},
            hint=_(
                'Run "manage.py mailer installation --new" if this is a copy, such as a staging site; "manage.py '
                'mailer installation --keep" if this is the original.'
            ),
            id="congressy_mailer.W014",
        )
    ]

"""Pausing and resuming sending in all workers."""

from __future__ import annotations

import logging
from functools import partial
from uuid import UUID

from django.db import transaction

from . import outbox
from .broker import sending
from .conf import mailer_settings
from .exceptions import InvalidOption
from .models import Batch, Pause, PauseScope
from .models.transactions import commits_manually, explaining_missing_tables
from .outbox.publishing import publish
from .transports.aliases import mailers, storage_alias

logger = logging.getLogger("congressy_mailer.outbox")


def pause(
    *,
    queue: str | None = None,
    using: str | None = None,
    campaign: str | None = None,
    batch: Batch | UUID | str | None = None,
    reason: str = "",
    by: str = "",
) -> Pause:
    """Stop all sending, or a part of it, in all workers until it is resumed, also across restarts.

    Nothing is lost: ``send_mail()`` and ``send_bulk()`` go on storing, and paused mail waits in the outbox. Workers
    notice within half a second plus their time slice (``TIME_SLICE``); mail that has been handed to the mail server by
    then is sent. ``expires_at`` still applies. Mail outside the outbox, such as that of ``mail_admins()`` over another
    backend, is not paused.

    Args:
        queue: only mail sent by tasks of this queue: ``QUEUE`` (mail outside batches) or ``BULK_QUEUE`` (batches).
        using: only mail over this mail backend; ``"default"`` for the default one. Meanwhile, mail without ``using=``
            goes over the backends in ``FAILOVER``.
        campaign: only mail of this campaign.
        batch: only this batch.
        reason: the reason, shown to other operators.
        by: the person who pauses.

    Returns:
        The pause. If the same is paused already, that pause, unchanged.

    Raises:
        InvalidOption: more than one of the arguments is given, or one names something that does not exist.
        NotMigrated: the database lacks a table or column of this version.
    """
    with explaining_missing_tables():
        scope, name = check_target(queue=queue, using=using, campaign=campaign, batch=batch)
        new = outbox.add_pause(scope, name, reason, by)
    logger.warning("Paused: %s%s.", _describe(new), f" ({reason})" if reason else "")
    return new


def resume(
    *,
    queue: str | None = None,
    using: str | None = None,
    campaign: str | None = None,
    batch: Batch | UUID | str | None = None,
    by: str = "",
) -> bool:
    """End a pause, named by the same arguments as for :func:`pause`. The mail that it held back is due at once.

    Mail that another pause holds back as well keeps waiting.

    Returns:
        Whether there was such a pause.

    Raises:
        InvalidOption: more than one of the arguments is given, or one names something that does not exist.
        NotMigrated: the database lacks a table or column of this version.
    """
    with explaining_missing_tables():
        scope, name = check_target(queue=queue, using=using, campaign=campaign, batch=batch, must_exist=False)
        ended = outbox.end_pause(scope, name)
    if not ended:
        return False
    logger.warning("Resumed: %s%s.", f"{scope} {name}".strip(), f" by {by}" if by else "")
    alias = outbox.database()
    if not commits_manually(transaction.get_connection(alias)):
        transaction.on_commit(partial(_release, ended), using=alias, robust=True)
    return True


def _release(ended: list[UUID]) -> None:
    """Make the first messages due, and leave the rest to a sweep: there may be a million."""
    outbox.release_batches(ended)
    publish(outbox.release_messages(ended))
    sending.publish_sweep()


def check_target(
    *,
    queue: str | None = None,
    using: str | None = None,
    campaign: str | None = None,
    batch: Batch | UUID | str | None = None,
    must_exist: bool = True,
) -> tuple[PauseScope, str]:
    """What the arguments of :func:`pause` name, as it is stored.

    Raises:
        InvalidOption: more than one of the arguments is given, or one names something that does not exist.
    """
    given = {"queue": queue, "using": using, "campaign": campaign, "batch": batch}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise InvalidOption(f"Name one thing to pause or resume, not {' and '.join(named)}.")
    if queue is not None:
        queues = (mailer_settings().QUEUE, mailer_settings().BULK_QUEUE)
        if queue not in queues and must_exist:
            raise InvalidOption(f"queue: {queue!r} is none of the mailer's, which are {' and '.join(queues)}.")
        return PauseScope.QUEUE, queue
    if using is not None:
        if must_exist and using not in _backends():
            raise InvalidOption(f"using: there is no mail backend {using!r}; there are {', '.join(_backends())}.")
        alias = "" if using == outbox.DEFAULT_BACKEND else storage_alias(using)
        return PauseScope.BACKEND, alias or outbox.DEFAULT_BACKEND
    if campaign is not None:
        if not campaign or len(campaign) > 64:
            raise InvalidOption("campaign: 1 to 64 characters.")
        return PauseScope.CAMPAIGN, campaign
    if batch is not None:
        return PauseScope.BATCH, str(_batch_key(batch, must_exist=must_exist))
    return PauseScope.ALL, ""


def _backends() -> list[str]:
    """Aliases that mail can name, the default one first."""
    configured = mailers()
    aliases = mailer_settings().TRANSPORTS if configured is None else configured
    return list(dict.fromkeys([outbox.DEFAULT_BACKEND, *aliases]))


def _batch_key(batch: Batch | UUID | str, *, must_exist: bool) -> UUID:
    try:
        key = batch.pk if isinstance(batch, Batch) else UUID(str(batch))
    except ValueError:
        raise InvalidOption(f"batch: {batch!r} is no id of a batch.") from None
    if must_exist and not outbox.is_batch_stored(key):
        raise InvalidOption(f"batch: there is no batch {key}.")
    return key


def _describe(pause: Pause) -> str:
    words = f"{pause.scope} {pause.name}".strip()
    return f"{words} by {pause.paused_by}" if pause.paused_by else words

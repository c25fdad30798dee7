"""Stop and go: what people may ask of all workers at once."""

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
    """Stop all sending, or a part of it, in all workers and until it is resumed, over restarts too.

    Nothing is lost: ``send_mail()`` and ``send_bulk()`` go on storing, and what is paused waits in the outbox. A worker
    notices within half a second and its time slice (``TIME_SLICE``); what the mail server has been handed by then
    leaves. ``expires_at`` still counts. Mail that does not go through the outbox, such as that of ``mail_admins()``
    over another backend, is not held back.

    Args:
        queue: only what tasks of this queue send: ``QUEUE`` (mail in no batch) or ``BULK_QUEUE`` (batches).
        using: only what would go over this mail backend; ``"default"`` for the default one. Mail that names none goes
            over those of ``FAILOVER`` meanwhile.
        campaign: only mail of this campaign.
        batch: only this batch.
        reason: why, for other people.
        by: who does it.

    Returns:
        The pause. Where the same is paused already, that pause, unchanged.

    Raises:
        InvalidOption: more than one thing is named, or one that is not there.
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
    """Go on with what :func:`pause` has stopped; the arguments name the same. What was held back is due at once.

    What a further pause holds back as well stays where it is.

    Returns:
        Whether it was paused.

    Raises:
        InvalidOption: more than one thing is named, or one that is not there.
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
    """Make the first of it due, and leave the rest to a sweep: there may be a million."""
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
        InvalidOption: more than one thing is named, or one that is not there.
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

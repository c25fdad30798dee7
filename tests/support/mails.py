"""Mail that a test queues, has delivered in its own process, and looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from congressy_mailer import outbox, send_bulk, send_mail
from congressy_mailer.delivery.composing import Composer
from congressy_mailer.delivery.slice import Delivery, SliceResult
from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.mime.outgoing import OutgoingMail
from congressy_mailer.models import Batch, Message


def people(count: int) -> list[str]:
    """So many addresses."""
    return [f"p{number}@example.com" for number in range(count)]


def queue_message(**options: Any) -> Message:
    """Queue one mail, to Ana where the options name nobody."""
    text = {} if "template" in options else {"message": "y"}
    return send_mail(**{"subject": "x", "to": "ana@example.com", **text, **options})


def queue(count: int = 1, **options: Any) -> list[UUID]:
    """Queue so many mails, to Ana where the options name nobody; returns their ids."""
    return [queue_message(**{"subject": f"mail {number}", **options}).pk for number in range(count)]


def queue_batch(count: int, **options: Any) -> Batch:
    """Queue so many mails of one batch, each to somebody else."""
    text = {} if "template" in options else {"message": "y"}
    return send_bulk(people(count), **{"subject": "x", **text, **options})


def deliver(mails: Sequence[Message | UUID], token: str = "") -> SliceResult:
    """Have one task deliver these mails. After the errors that this raises Celery would repeat it."""
    return Delivery(token or outbox.new_claim_token("task")).run(_ids(mails), redelivered=False)


def attempt(mails: Sequence[Message | UUID]) -> str:
    """Have one task deliver these mails; returns why their backend could not be used, if so."""
    try:
        deliver(mails)
    except TransportUnavailable as error:
        return str(error)
    return ""


def deliver_slice(batch: Batch) -> SliceResult:
    """Have one task deliver what comes next of a batch."""
    generation = Batch.objects.values_list("generation", flat=True).get(pk=batch.pk)
    return Delivery(outbox.new_claim_token("task")).run_batch(batch.pk, generation)


def deliver_batch(batch: Batch) -> None:
    """Have one task after the other deliver a batch, until none of its mails waits."""
    while deliver_slice(batch).continue_at is not None:
        pass


def composed_as_stored(message: Message) -> OutgoingMail:
    """A mail as a worker composes it."""
    composer = Composer()
    composer.prepare([message])
    return composer.compose(message)


def stored(mails: Sequence[Message | UUID]) -> list[Message]:
    """These mails as they are stored now."""
    found = Message.objects.in_bulk(_ids(mails))
    return [found[key] for key in _ids(mails)]


def states(mails: Sequence[Message | UUID]) -> list[str]:
    """The state that each of these mails has now."""
    return [message.state for message in stored(mails)]


def state(mail: Message | UUID) -> str:
    """The state that a mail has now."""
    (found,) = states([mail])
    return found


def _ids(mails: Sequence[Message | UUID]) -> list[UUID]:
    return [mail.pk if isinstance(mail, Message) else mail for mail in mails]

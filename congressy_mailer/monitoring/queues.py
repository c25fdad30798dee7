"""What waits, by queue and campaign, with a number of queries that does not grow with what waits."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from ..conf import mailer_settings
from ..models import clock
from ..outbox import waiting

#: So many batches are looked at, those first that are due first.
BATCHES = 8


@dataclass(frozen=True, slots=True)
class WaitingMail:
    """Mail of one queue and campaign that could be sent now."""

    #: Celery's queue.
    queue: str
    #: Its campaign; empty: none.
    campaign: str
    #: How many messages.
    count: int
    #: There are more than were counted.
    more: bool
    #: When the oldest of them became ready to be sent.
    oldest: datetime | None


def waiting_mail() -> list[WaitingMail]:
    """What waits, the mail in no batch first."""
    conf = mailer_settings()
    found = []
    counts: Counter[str] = Counter()
    oldest: dict[str, datetime] = {}
    sample = waiting.waiting_head(waiting.HEAD)
    for campaign, queued_at in sample:
        counts[campaign] += 1
        if queued_at is not None:
            oldest[campaign] = min(oldest.get(campaign, queued_at), queued_at)
    if len(sample) >= waiting.HEAD:
        # Too many to be listed one by one each time.
        whole = waiting.waiting_messages()
        found.append(WaitingMail(conf.QUEUE, "", whole.count, whole.count >= waiting.COUNTED, whole.oldest))
    else:
        found += [
            WaitingMail(conf.QUEUE, campaign, count, False, oldest.get(campaign))
            for campaign, count in counts.most_common()
        ]
    for batch in waiting.batches_with_mail(BATCHES):
        found.append(
            WaitingMail(
                conf.BULK_QUEUE, batch.name, batch.count, batch.count >= waiting.COUNTED, min(batch.since, clock.now())
            )
        )
    return found

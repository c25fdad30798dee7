"""When no further recipient comes to a batch."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Q

from ..models import clock

#: A caller that has not come to the end of a batch's recipients by then, since it last stored some, does not go on.
LONGEST_SUBMISSION = timedelta(days=7)


def is_settled(after: timedelta = LONGEST_SUBMISSION) -> Q:
    """Batches whose caller has come to the end, was stopped, or broke off long ago.

    Args:
        after: how long ago that is.
    """
    long_ago = clock.now() - after
    ended = Q(stored_at__isnull=False) | Q(cancelled_at__isnull=False)
    abandoned = Q(created_at__lt=long_ago) & (Q(last_stored_at__isnull=True) | Q(last_stored_at__lt=long_ago))
    return ended | abandoned

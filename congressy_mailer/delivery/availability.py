"""Mail backends that cannot be used now: one try at a time, further and further apart, said once.

Without this every task would try a server that is down, and every try would be an entry in the log. The knowledge
is in the database, so that all workers share it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from .. import outbox
from ..conf import mailer_settings
from ..models import Message, State, TransportStatus
from ..outbox.backoff import FLOOR, delay
from ..signals import transport_available, transport_unavailable

logger = logging.getLogger("congressy_mailer.availability")

#: A try that has said nothing for this long counts as failed: its worker has died, or the server is silent.
_TRY_TIME = timedelta(seconds=90)


class Gate:
    """What one slice may send over one mail backend."""

    def __init__(
        self, using: str, sender_domains: Iterable[str], before_telling: Callable[[], None] = lambda: None
    ) -> None:
        """Look up what is closed, and take on whatever is due to be tried again.

        Args:
            using: alias of the mail backend.
            sender_domains: domains of the senders of the slice.
            before_telling: called before anything is written down or told here: the host's receivers of signals may
                take any time.
        """
        self._using = using
        self._before_telling = before_telling
        #: When what is closed may be looked at again, by sender domain; ``""`` stands for the backend as a whole.
        self.closed: dict[str, datetime] = {}
        #: What this slice is to try, and until when the others leave that to it.
        self._trying: dict[str, datetime] = {}
        statuses = _statuses(using).filter(sender_domain__in={"", *sender_domains})
        for status in statuses.order_by("sender_domain"):
            if "" in self.closed:
                # With no server there is nothing to be learnt about a domain.
                break
            self._look_at(status)

    def _look_at(self, status: TransportStatus) -> None:
        now = timezone.now()
        until = now + min(_TRY_TIME, mailer_settings().UNAVAILABLE_BACKOFF_MAX)
        mine = status.next_try_at <= now and _statuses(self._using).filter(
            pk=status.pk, next_try_at=status.next_try_at
        ).update(next_try_at=until)
        if mine:
            self._trying[status.sender_domain] = until
        else:
            # One that is being tried at this moment will be known about soon.
            self.closed[status.sender_domain] = max(status.next_try_at, now + FLOOR)

    def failed(self, sender_domain: str, reason: str, at_least: timedelta | None = None) -> timedelta:
        """It could not be used. Returns how long to leave it alone.

        Args:
            sender_domain: whose mail; empty: everybody's.
            reason: for people.
            at_least: how long the server itself has asked for; ``UNAVAILABLE_BACKOFF_MAX`` is the most that it gets.
        """
        self._before_telling()
        conf = mailer_settings()
        now = timezone.now()
        asked_for = min(at_least or timedelta(0), conf.UNAVAILABLE_BACKOFF_MAX)
        known = _statuses(self._using).filter(sender_domain=sender_domain)
        status = known.first()
        if status is None:
            wait = max(asked_for, delay(1, conf.UNAVAILABLE_BACKOFF, conf.UNAVAILABLE_BACKOFF_MAX))
            _begin(self._using, sender_domain, reason, now, now + wait)
        elif sender_domain in self._trying:
            wait = max(asked_for, delay(status.failures + 1, conf.UNAVAILABLE_BACKOFF, conf.UNAVAILABLE_BACKOFF_MAX))
            known.update(failures=F("failures") + 1, next_try_at=now + wait, reason=reason)
        else:
            # Found out by several at once: that is one failure.
            wait = max(FLOOR, status.next_try_at - now)
        self._trying.pop(sender_domain, None)
        self.closed[sender_domain] = now + wait
        return wait

    def succeeded(self, sender_domain: str = "") -> None:
        """It can be used: with a domain, a mail of such a sender was taken; without, the server has answered."""
        until = self._trying.pop(sender_domain, None)
        if until is not None:
            self._before_telling()
            _end(self._using, sender_domain)
            outbox.hasten(until)

    def leave(self) -> None:
        """Whatever this slice was to try and did not come to is left to the next one, at once."""
        for sender_domain, until in self._trying.items():
            tried = _statuses(self._using).filter(sender_domain=sender_domain, next_try_at=until)
            if tried.update(next_try_at=timezone.now()):
                outbox.hasten(until)
        self._trying.clear()


def _begin(using: str, sender_domain: str, reason: str, now: datetime, next_try_at: datetime) -> None:
    try:
        with transaction.atomic(using=outbox.database()):
            TransportStatus.objects.using(outbox.database()).create(
                using=using, sender_domain=sender_domain, reason=reason, unavailable_since=now, next_try_at=next_try_at
            )
    except IntegrityError:
        # Another worker found it out at the same moment, and says so.
        return
    others = mailer_settings().FAILOVER if not using and not sender_domain else ()
    what = f"its mail goes over {' or '.join(map(repr, others))} meanwhile" if others else "its mail stays queued"
    logger.error("%s is unavailable; %s: %s", _name(using, sender_domain), what, reason)
    transport_unavailable.send_robust(TransportStatus, using=using, sender_domain=sender_domain, reason=reason)


def _end(using: str, sender_domain: str) -> None:
    status = _statuses(using).filter(sender_domain=sender_domain).first()
    if status is None or not _statuses(using).filter(pk=status.pk).delete()[0]:
        return
    duration = timezone.now() - status.unavailable_since
    logger.warning("%s is available again, after %s.", _name(using, sender_domain), str(duration).partition(".")[0])
    transport_available.send_robust(TransportStatus, using=using, sender_domain=sender_domain, unavailable_for=duration)


def unavailable() -> list[TransportStatus]:
    """Everything that cannot be used now and that mail waits for.

    Without mail nothing is tried: that it could not be used once, perhaps for mail that was cancelled since, says
    nothing of now.
    """
    statuses = TransportStatus.objects.using(outbox.database()).order_by("unavailable_since")
    return [status for status in statuses if _mail_of(status).exists()]


def _mail_of(status: TransportStatus) -> QuerySet[Message]:
    # Mail that names no backend may go over those of FAILOVER too.
    named = {status.using, ""} if status.using in mailer_settings().FAILOVER else {status.using}
    waiting = Message.objects.using(outbox.database()).filter(
        state__in=(State.QUEUED, State.SENDING, State.DEFERRED), using__in=named
    )
    if not status.sender_domain:
        return waiting
    address = f"@{status.sender_domain}"
    return waiting.filter(Q(from_email__iendswith=address) | Q(from_email__iendswith=f"{address}>"))


def _statuses(using: str) -> QuerySet[TransportStatus]:
    return TransportStatus.objects.using(outbox.database()).filter(using=using)


def _name(using: str, sender_domain: str) -> str:
    backend = f"The mail backend {using or 'default'!r}"
    return f"{backend} for senders at {sender_domain}" if sender_domain else backend

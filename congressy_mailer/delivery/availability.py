"""Mail backends that cannot be used now: one try at a time, further and further apart, said once.

Without this every task would try a server that is down, and every try would be an entry in the log. The knowledge
is in the database, so that all workers share it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet

from .. import outbox
from ..conf import mailer_settings
from ..models import TransportStatus, clock
from ..outbox.backoff import FLOOR, delay
from ..signals import transport_available, transport_unavailable

logger = logging.getLogger("congressy_mailer.availability")

#: A try that has said nothing for this long counts as failed: its worker has died, or the server is silent.
_PROBE_TIME = timedelta(seconds=90)


class CircuitBreaker:
    """The circuit breakers of one mail backend, as one slice uses them: for the backend, and for each sender domain."""

    def __init__(
        self,
        using: str,
        sender_domains: Iterable[str],
        before_update: Callable[[], None] = lambda: None,
        *,
        none_open: bool = False,
    ) -> None:
        """Look up which breakers are open, and take on the probes that are due.

        Args:
            using: alias of the mail backend.
            sender_domains: domains of the senders of the slice.
            before_update: called before a change is recorded or announced: the host's receivers of signals may
                take any time.
            none_open: it has just been found out that no breaker is open, of any backend.
        """
        self._using = using
        self._before_update = before_update
        #: Until when nothing is sent, by sender domain; ``""`` stands for the backend as a whole.
        self.open_until: dict[str, datetime] = {}
        #: What this slice is to probe, by sender domain, and until when other slices leave that to it.
        self._probes: dict[str, datetime] = {}
        #: Domains that have been looked up.
        self._known: set[str] = set()
        #: Mail that other slices held back is due now and unpublished.
        self.made_due = False
        if none_open:
            self._known |= {"", *sender_domains}
        self.look_up({"", *sender_domains})

    @property
    def is_probing(self) -> bool:
        """Whether it is not known yet if mail can be sent: one try comes before all else."""
        return bool(self._probes)

    def look_up(self, sender_domains: Iterable[str]) -> None:
        """The same for further domains, as far as they are new."""
        new = set(sender_domains) - self._known
        if not new:
            return
        self._known |= new
        statuses = _statuses(self._using).filter(sender_domain__in=new)
        for status in statuses.order_by("sender_domain"):
            if "" in self.open_until:
                # With no server there is nothing to be learnt about a domain.
                break
            self._check(status)

    def _check(self, status: TransportStatus) -> None:
        now = clock.now()
        until = now + min(_PROBE_TIME, mailer_settings().UNAVAILABLE_BACKOFF_MAX)
        claimed = status.next_try_at <= now and _statuses(self._using).filter(
            pk=status.pk, next_try_at=status.next_try_at
        ).update(next_try_at=until)
        if claimed:
            self._probes[status.sender_domain] = until
            return
        if status.next_try_at <= now:
            # Another slice has taken this probe on since, and perhaps knows its result.
            try:
                status.refresh_from_db(fields=["next_try_at"])
            except TransportStatus.DoesNotExist:
                return
        # The exact time: the slice that finds the backend available makes what is held back until then due.
        self.open_until[status.sender_domain] = status.next_try_at

    def record_failure(self, sender_domain: str, reason: str, minimum_wait: timedelta | None = None) -> timedelta:
        """It could not be used. Returns how long to leave it alone.

        Args:
            sender_domain: whose mail; empty: everybody's.
            reason: for people.
            minimum_wait: how long the server itself has asked for; at most ``UNAVAILABLE_BACKOFF_MAX`` is granted.
        """
        self._before_update()
        conf = mailer_settings()
        now = clock.now()
        requested = min(minimum_wait or timedelta(0), conf.UNAVAILABLE_BACKOFF_MAX)
        statuses = _statuses(self._using).filter(sender_domain=sender_domain)
        status = statuses.first()
        if status is None:
            wait = max(requested, delay(1, conf.UNAVAILABLE_BACKOFF, conf.UNAVAILABLE_BACKOFF_MAX))
            _record_outage(self._using, sender_domain, reason, now, now + wait)
        elif sender_domain in self._probes:
            wait = max(requested, delay(status.failures + 1, conf.UNAVAILABLE_BACKOFF, conf.UNAVAILABLE_BACKOFF_MAX))
            statuses.update(failures=F("failures") + 1, next_try_at=now + wait, reason=reason)
        else:
            # Found out by several at once: that is one failure.
            wait = status.next_try_at - now if status.next_try_at > now else FLOOR
        self.open_until[sender_domain] = now + wait
        probing_until = self._probes.pop(sender_domain, None)
        if probing_until is not None:
            outbox.move_due_time(probing_until, now + wait)
        return wait

    def record_success(self, sender_domain: str = "") -> None:
        """It can be used: with a domain, a mail of such a sender was taken; without, the server has answered."""
        until = self._probes.pop(sender_domain, None)
        if until is not None:
            self._before_update()
            _record_recovery(self._using, sender_domain)
            self._make_due(until)

    def release_probes(self) -> None:
        """Let the next slice probe at once what this one was to probe and did not come to."""
        for sender_domain, until in self._probes.items():
            tried = _statuses(self._using).filter(sender_domain=sender_domain, next_try_at=until)
            if tried.update(next_try_at=clock.now()):
                self._make_due(until)
        self._probes.clear()

    def _make_due(self, until: datetime) -> None:
        _make_due(until)
        self.made_due = True


def make_due_if_known(held_back_until: Iterable[datetime]) -> bool:
    """Make mail due that was put back until a breaker closes, where the breaker closed before the mail was put back.

    The slice that probes looks once for what waits for its result: when it has it.

    Args:
        held_back_until: until when mail was put back, exactly.

    Returns:
        Whether mail is due that is unpublished.
    """
    made_due = False
    for until in held_back_until:
        if not TransportStatus.objects.using(outbox.database()).filter(next_try_at=until).exists():
            _make_due(until)
            made_due = True
    return made_due


def _make_due(held_back_until: datetime) -> None:
    # A sweep goes by when it was published, in the time of its host: clocks are not compared to the millisecond.
    outbox.move_due_time(held_back_until, clock.now() - timedelta(seconds=1))


def _record_outage(using: str, sender_domain: str, reason: str, now: datetime, next_try_at: datetime) -> None:
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


def _record_recovery(using: str, sender_domain: str) -> None:
    status = _statuses(using).filter(sender_domain=sender_domain).first()
    if status is None or not _statuses(using).filter(pk=status.pk).delete()[0]:
        return
    duration = clock.now() - status.unavailable_since
    logger.warning("%s is available again, after %s.", _name(using, sender_domain), str(duration).partition(".")[0])
    transport_available.send_robust(TransportStatus, using=using, sender_domain=sender_domain, unavailable_for=duration)


def unavailable_backends() -> list[TransportStatus]:
    """Mail backends and sender domains that are unavailable and that mail waits for.

    A backend is only probed when mail waits for it, so without waiting mail an old failure is not reported.
    """
    statuses = list(TransportStatus.objects.using(outbox.database()).order_by("unavailable_since"))
    senders = outbox.waiting_senders() if statuses else set()
    return [status for status in statuses if any(_concerns(status, *sender) for sender in senders)]


def _concerns(status: TransportStatus, using: str, from_email: str) -> bool:
    """Whether mail of this sender that names this backend, or none, cannot be sent for this reason."""
    # Mail that names no backend may go over those of FAILOVER too.
    named = {status.using, ""} if status.using in mailer_settings().FAILOVER else {status.using}
    if not status.sender_domain:
        return using in named
    address = f"@{status.sender_domain}".lower()
    return using in named and from_email.lower().endswith((address, f"{address}>"))


def _statuses(using: str) -> QuerySet[TransportStatus]:
    return TransportStatus.objects.using(outbox.database()).filter(using=using)


def _name(using: str, sender_domain: str) -> str:
    backend = f"The mail backend {using or 'default'!r}"
    return f"{backend} for senders at {sender_domain}" if sender_domain else backend

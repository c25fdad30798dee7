"""Delivery in a test's own process: of queued mail, of mail that becomes due later, and with failures on demand."""

from __future__ import annotations

import re
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import django
from django.conf import settings
from django.core import mail
from django.db.models import DateTimeField, Min, Q, Value
from django.db.models.functions import Coalesce
from django.test import override_settings
from django.utils import timezone

from .. import outbox
from ..conf import mailer_settings
from ..delivery.slice import Delivery
from ..models import Message, State, clock
from ..replies import Outcome, Reply, Stage
from ..transports.base import Answer, ComposedMail, Transport, no_op, outcome_of
from ..transports.selection import wrapping_transports

_QUEUE = "congressy_mailer.backends.EmailBackend"
_LOCMEM = "django.core.mail.backends.locmem.EmailBackend"
_REPLY = re.compile(r"([245]\d\d)(?: (.*))?", re.DOTALL)


def deliver_all(*, within: timedelta | None = None) -> list[Message]:
    """Deliver every message that is queued or due now, through the configured mail backend.

    A test may set the time with freezegun or time-machine. Without them, ``within`` lets time pass: the clock of Django
    and of the outbox (``timezone.now()``) moves forward to each moment at which a message is due, so that recorded
    times, the waits between attempts and ``expires_at`` are those of production. Afterwards the clock is reset.

    Args:
        within: the time that passes. Messages whose ``send_at`` is reached are delivered, and temporarily refused ones
            are tried again, as often as their waits allow. ``None``: no time passes.

    Returns:
        The messages that were delivered, tried or expired, in their new state, oldest first.

    Raises:
        TransportUnavailable: the mail backend is unavailable.
        RuntimeError: a mail is due again and again, without an end.
    """
    messages = Message.objects.using(outbox.database())
    touched: set[UUID] = set()
    with wrapping_transports(_Failing), _passing_time() as move_to:
        until = clock.now() + (within or timedelta(0))
        most = _MOST_MOMENTS + messages.filter(_due(until)).count()
        for _ in range(most):
            touched.update(_deliver_due())
            moments = messages.filter(_due(until)).aggregate(
                scheduled=Min("send_at", filter=Q(state=State.SCHEDULED)),
                deferred=Min("due_at", filter=Q(state=State.DEFERRED)),
            )
            if not any(moments.values()):
                break
            move_to(min(filter(None, moments.values())))
        else:
            (one,) = messages.filter(_due(until)).order_by("id")[:1]
            raise RuntimeError(
                f"Mail is still due after {most:,} moments within {within}, message {one.pk} among it, whose reason is "
                f"{one.reason!r}: what has it tried again at once?"
            )
    return list(messages.filter(id__in=touched).order_by("id"))


#: Beside one for each mail that is scheduled. Nothing that is refused for days is tried so often; it ends what would be
#: due again at once, for ever.
_MOST_MOMENTS = 1000


def _due(until: datetime) -> Q:
    # The mails of a batch have no due time of their own while they are scheduled.
    return Q(state=State.SCHEDULED, send_at__lte=until) | Q(state=State.DEFERRED, due_at__lte=until)


def _deliver_due() -> set[UUID]:
    messages = Message.objects.using(outbox.database())
    now = clock.now()
    # Each is queued as the sweep would queue it when its time has come.
    messages.filter(_due(now)).update(
        state=State.QUEUED, queued_at=Coalesce("queued_at", Value(now, DateTimeField())),
        due_at=now + mailer_settings().LOST_AFTER, blocked=False, pause=None,
    )  # fmt: skip
    queued = list(messages.filter(state=State.QUEUED).order_by("id").values_list("id", flat=True))
    unfinished = queued
    while unfinished:
        unfinished = Delivery(outbox.new_claim_token("test")).run(unfinished, redelivered=False).unfinished
    return set(queued)


@contextmanager
def _passing_time() -> Iterator[Callable[[datetime], None]]:
    """Within it the clock of Django and of the outbox can be moved forwards; real time goes on meanwhile."""
    before, ahead = timezone.now, timedelta(0)

    def move_to(moment: datetime) -> None:
        nonlocal ahead
        ahead += max(moment - clock.now(), timedelta(0))

    timezone.now = lambda: before() + ahead
    try:
        yield move_to
    finally:
        timezone.now = before


@dataclass(slots=True)
class _Failures:
    """What the next mails are answered, as long as this is the mailbox of the same test."""

    mailbox: object = None
    replies: deque[Reply] | None = None

    def of_this_test(self) -> deque[Reply]:
        # Django's TestCase and pytest-django give each test a new one.
        mailbox = getattr(mail, "outbox", None)
        if self.replies is None or self.mailbox is not mailbox:
            self.mailbox, self.replies = mailbox, deque()
        return self.replies


_failures = _Failures()


def fail_next(reply: str, *, times: int = 1) -> None:
    """Have a mail server refuse the next mail that :func:`deliver_all` hands over in this test.

    Args:
        reply: the server's reply, such as ``"550 5.1.1 No such user"`` (permanent) or ``"451 4.7.1 Try later"``
            (temporary).
        times: number of mails that get this reply.

    Raises:
        ValueError: it is no reply of a server.
    """
    found = _REPLY.fullmatch(reply)
    if found is None or found[1].startswith("2"):
        raise ValueError(f'{reply!r} is no refusal, such as "550 5.1.1 No such user" or "451 4.7.1 Try later".')
    _failures.of_this_test().extend([Reply(int(found[1]), found[2] or "")] * times)


class _Failing:
    """A transport before which a test has placed refusals."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def deliver(self, mails: Iterable[ComposedMail], before_waiting: Callable[[], None] = no_op) -> Iterator[Outcome]:
        """See :meth:`congressy_mailer.transports.base.Transport.deliver`."""
        for composed in mails:
            replies = _failures.of_this_test()
            if replies:
                yield outcome_of(composed, Answer(replies.popleft(), Stage.CONTENT))
            else:
                yield from self._transport.deliver([composed], before_waiting)

    def close(self) -> None:
        """See :meth:`congressy_mailer.transports.base.Transport.close`."""
        self._transport.close()


@contextmanager
def drop_in(**options: Any) -> Iterator[None]:
    """Queue the mail that Django sends, as :class:`congressy_mailer.backends.EmailBackend` does in production.

    A test runner replaces all mail backends by its own. Within this block, mail of Django and of other apps is stored
    instead, and ``deliver_all()`` delivers it to ``mail.outbox``.

    Args:
        options: options of the backend, except ``using``.
    """
    knows_mailers = django.VERSION >= (6, 1) and hasattr(settings, "MAILERS")
    if knows_mailers:
        others = {alias: {"BACKEND": _LOCMEM} for alias in settings.MAILERS}
        behind = "congressy_mailer_testing"
        queue = {"BACKEND": _QUEUE, "OPTIONS": {**options, "using": behind}}
        changed: dict[str, Any] = {"MAILERS": {**others, behind: {"BACKEND": _LOCMEM}, "default": queue}}
    else:
        configured = {**getattr(settings, "CONGRESSY_MAILER", {}), "BACKEND_OPTIONS": options}
        changed = {"EMAIL_BACKEND": _QUEUE, "CONGRESSY_MAILER": configured}
    override = override_settings(**changed)
    with _without_deprecation():
        override.enable()
    try:
        yield
    finally:
        with _without_deprecation():
            override.disable()


@contextmanager
def _without_deprecation() -> Iterator[None]:
    """Django 6.1 warns of EMAIL_BACKEND whenever it is touched; the host hears of its own setting elsewhere."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, PendingDeprecationWarning):
            warnings.filterwarnings("ignore", "The EMAIL_", category)
        yield

"""Writing down what became of a claimed message, as long as the claim still holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connections
from django.db.models import Case, F, Value, When
from django.utils import timezone

from ..conf import mailer_settings
from ..models import Batch, Event, Message, State
from ..models.transactions import database, retry_on_conflict
from ..replies import Outcome, Reply
from .backoff import LONGEST_COUNTDOWN, delay
from .batches import make_due_by
from .retention import drop_content
from .rows import add_event, before_expiry, claimed_row

_IN_DOUBT = " (in doubt: the server may have taken it)"


@retry_on_conflict
def record(token: str, message: Message, outcome: Outcome) -> timedelta | None:
    """Write down what became of a claimed message, unless the claim no longer holds it.

    Returns:
        How long until it should be tried again; ``None`` where it is final, or too far ahead for the broker.
    """
    row = claimed_row(message.id, token)
    if not row.exists():
        return None
    wait = None
    if not outcome.deferred:
        _finish(token, message, outcome)
    elif outcome.in_doubt and _must_hold(message):
        # Those who were refused are answered: a person's retry() is for the others.
        row.update(
            state=State.HELD, token="", due_at=None, finished_at=timezone.now(), attempts=F("attempts") + 1,
            crashes=F("crashes") + 1, remaining=list(outcome.deferred),
            reason=_format_replies(outcome.deferred) + _IN_DOUBT,
        )  # fmt: skip
    else:
        message.remaining = list(outcome.deferred)
        message.sent_at = message.sent_at or (timezone.now() if outcome.accepted else None)
        reason = _format_replies(outcome.deferred) + (_IN_DOUBT if outcome.in_doubt else "")
        wait = _defer(token, message, reason, str(outcome.reply), crashes=message.crashes + outcome.in_doubt)
    if outcome.deferred or outcome.rejected:
        _add_recipient_events(message.id, outcome)
    return wait


@retry_on_conflict
def record_accepted(token: str, accepted: Sequence[tuple[Message, Reply]]) -> None:
    """Write down that all recipients of these claimed messages have theirs, in one statement.

    Args:
        token: of the claim; what it does not hold any more is left alone.
        accepted: messages, none of them sensitive, each with the server's reply.
    """
    now = timezone.now()
    connection = connections[database()]
    key = Message._meta.pk
    assert key is not None
    ids = [key.get_db_prep_value(message.pk, connection) for message, _ in accepted]
    now_value = Message._meta.get_field("sent_at").get_db_prep_value(now, connection)
    replies = [value for key, (_, reply) in zip(ids, accepted, strict=True) for value in (key, str(reply))]
    quoted = connection.ops.quote_name
    # Django's ORM would take longer to put this together than the database does to carry it out.
    statement = f"""
        UPDATE {quoted(Message._meta.db_table)}
        SET state = %s, token = '', due_at = NULL, finished_at = %s, sent_at = COALESCE(sent_at, %s),
            attempts = attempts + 1, reason = '', remaining = NULL,
            reply = CASE id {"WHEN %s THEN %s " * len(ids)} END
        WHERE id IN ({", ".join(["%s"] * len(ids))}) AND state = %s AND token = %s
    """  # noqa: S608
    values = [State.SENT.value, now_value, now_value, *replies, *ids, State.SENDING.value, token]
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def _must_hold(message: Message) -> bool:
    """A server that takes too long to say that it has a mail would get it again and again."""
    conf = mailer_settings()
    return conf.ON_CRASH == "hold" or message.crashes + 1 >= conf.MAX_CRASHES


def _format_replies(replies: Mapping[str, Reply]) -> str:
    return "; ".join(f"{recipient}: {reply}" for recipient, reply in replies.items())


def _finish(token: str, message: Message, outcome: Outcome) -> None:
    now = timezone.now()
    sent_at = message.sent_at or (now if outcome.accepted else None)
    state = State.SENT if sent_at is not None else State.FAILED
    claimed_row(message.id, token).update(
        state=state, token="", due_at=None, finished_at=now, sent_at=sent_at, attempts=F("attempts") + 1,
        reply=str(outcome.reply), reason=_format_replies(outcome.rejected), remaining=None,
    )  # fmt: skip
    _drop_content_if_sensitive(message, state)


def _drop_content_if_sensitive(message: Message, state: State) -> None:
    # What failed may be sent again by a person: see retention.
    if message.sensitive and state == State.SENT:
        drop_content([message.id])


@retry_on_conflict
def postpone(token: str, key: UUID, reason: str) -> timedelta | None:
    """Put a claimed message aside that this worker cannot compose yet: tried again like a temporary refusal."""
    message = claimed_row(key, token).first()
    return _defer(token, message, reason, None) if message is not None else None


@retry_on_conflict
def fail(token: str, key: UUID, reason: str) -> None:
    """End a claimed message that can never be sent."""
    now = timezone.now()
    # Somebody may have a copy already, before the others were refused temporarily.
    state = Case(When(sent_at__isnull=False, then=Value(State.SENT)), default=Value(State.FAILED))
    if claimed_row(key, token).update(
        state=state, token="", due_at=None, finished_at=now, attempts=F("attempts") + 1, reason=reason
    ):
        add_event(key, Event.Type.FAILED, now, detail=reason)


def _defer(
    token: str, message: Message, reason: str, reply: str | None, *, crashes: int | None = None
) -> timedelta | None:
    """Try again later, or give up once ``RETRY_FOR`` is over."""
    conf = mailer_settings()
    now = timezone.now()
    attempts = message.attempts + 1
    wait = delay(attempts, conf.RETRY_BACKOFF, conf.RETRY_BACKOFF_MAX)
    values: dict[str, object] = {
        "token": "", "attempts": attempts, "remaining": message.remaining, "sent_at": message.sent_at,
    }  # fmt: skip
    if reply is not None:
        values["reply"] = reply
    if crashes is not None:
        values["crashes"] = crashes
    row = claimed_row(message.id, token)
    if now + wait > (message.queued_at or message.created_at) + conf.RETRY_FOR:
        reason = f"Given up after {conf.RETRY_FOR}: {reason}"
        state = State.SENT if message.sent_at else State.FAILED
        if row.update(state=state, due_at=None, finished_at=now, reason=reason, **values):
            add_event(message.id, Event.Type.FAILED, now, detail=reason)
            _drop_content_if_sensitive(message, state)
        return None
    due_at = before_expiry(message, now + wait)
    if not row.update(state=State.DEFERRED, due_at=due_at, reason=reason, **values):
        return None
    if message.batch_id and message.waits_with_batch and not crashes:
        make_due_by([message.batch_id], by=due_at)
    if reply is None:
        add_event(message.id, Event.Type.DEFERRED, now, detail=reason)
    # What waits with its batch is taken again by a task of the batch.
    return wait if wait <= LONGEST_COUNTDOWN and not message.waits_with_batch else None


@retry_on_conflict
def make_due_now(held_back_until: datetime) -> None:
    """Let the next sweep publish what was held back until then: what it waited for is known already.

    Args:
        held_back_until: exactly as it was given to :func:`.claiming.release`.
    """
    for table in (Message.objects.filter(state=State.QUEUED), Batch.objects.all()):
        table.using(database()).filter(due_at=held_back_until).update(due_at=timezone.now())


def _add_recipient_events(key: UUID, outcome: Outcome) -> None:
    now = timezone.now()
    events = [(Event.Type.ACCEPTED, recipient, str(outcome.reply)) for recipient in outcome.accepted]
    events += [(Event.Type.DEFERRED, recipient, str(reply)) for recipient, reply in outcome.deferred.items()]
    events += [(Event.Type.REJECTED, recipient, str(reply)) for recipient, reply in outcome.rejected.items()]
    Event.objects.using(database()).bulk_create(
        Event(message_id=key, type=event, at=now, recipient=recipient, detail=detail)
        for event, recipient, detail in events
    )

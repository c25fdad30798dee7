"""Writing down what became of a claimed message, as long as the claim still holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.db import connections
from django.db.models import Case, F, Q, QuerySet, Value, When

from ..conf import mailer_settings
from ..models import Batch, Event, Message, State, clock
from ..models.choices import WAITING
from ..models.transactions import database, lock_free, retry_on_conflict, retry_statement
from ..replies import Outcome, Reply, with_ascii_text
from .backoff import FLOOR, LONGEST_COUNTDOWN, delay
from .batches import make_due_by
from .cursors import CURSORS
from .expiry import before_expiry
from .journal_file import Acceptance, claim_digest
from .retention import drop_content
from .rows import add_event, claimed_row, rows

# Of RETRY_BACKOFF: five minutes by default, then ten.
_DOUBT_FACTOR = 10

_IN_DOUBT = " (in doubt: the server may have taken it)"


@retry_on_conflict
def record(token: str, message: Message, outcome: Outcome) -> timedelta | None:
    """Write down what became of a claimed message, unless the claim no longer holds it.

    Its new state is set in ``message`` as well.

    Returns:
        How long until it should be tried again; ``None`` where it is final, or too far ahead for the broker.
    """
    row = claimed_row(message.id, token)
    if not row.exists():
        _record_late(message.id, outcome)
        return None
    wait = None
    if outcome.continues:
        wait = _continue(row, message, outcome)
    elif not outcome.deferred:
        _finish(token, message, outcome)
    elif outcome.in_doubt and _must_hold(message):
        # Those who were refused are answered: a person's retry() is for the others.
        message.state = State.HELD
        row.update(
            state=State.HELD, token="", due_at=None, finished_at=clock.now(), attempts=F("attempts") + 1,
            crashes=F("crashes") + 1, remaining=list(outcome.deferred),
            reason=_format_replies(outcome.deferred) + _IN_DOUBT,
        )  # fmt: skip
    else:
        message.remaining = list(outcome.deferred)
        message.sent_at = message.sent_at or (clock.now() if outcome.accepted else None)
        reason = _format_replies(outcome.deferred) + (_IN_DOUBT if outcome.in_doubt else "")
        wait = _defer(
            token, message, reason, str(outcome.reply),
            crashes=message.crashes + outcome.in_doubt, at_least=_doubt_wait(message) if outcome.in_doubt else None,
        )  # fmt: skip
    if outcome.deferred or outcome.rejected:
        _add_recipient_events(message.id, outcome)
    return wait


@retry_statement
def record_accepted(token: str, accepted: Sequence[tuple[Message, Reply]]) -> None:
    """Write down that all recipients of these claimed messages have theirs, in one statement.

    Args:
        token: of the claim; what it does not hold any more is left alone.
        accepted: messages, none of them sensitive, each with the server's reply.
    """
    now = clock.now()
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
        recorded = cursor.rowcount
    if recorded < len(ids):
        for message, reply in accepted:
            _record_late(message.id, Outcome(message.id, accepted=tuple(message.envelope), reply=reply))


@retry_on_conflict
def _record_late(key: UUID, outcome: Outcome) -> None:
    """Write down an acceptance although the claim is gone: who has the mail must not get it once more.

    What another worker does with the message meanwhile ends before its content, since the claim is asked for then.
    """
    if not outcome.accepted:
        return
    message = rows([key]).filter(state__in=(*WAITING, State.SENDING, State.HELD)).first()
    if message is not None:
        _record_acceptance(message, outcome.accepted, outcome.reply, clock.now())


@retry_on_conflict
def record_noted(acceptance: Acceptance) -> State | None:
    """Write down what a journal says of a message, as long as the claim that it was noted for still holds it.

    Its worker is gone, or could not record it. Recipients who were refused meanwhile are tried again: of that nothing
    is noted.

    Returns:
        The state that the message is in now; ``None``: the claim is another one, or over.
    """
    message = rows([acceptance.key]).filter(state=State.SENDING).first()
    if message is None or claim_digest(message.token) != acceptance.claim:
        return None
    now = clock.now()
    at = datetime.fromtimestamp(min(max(acceptance.at, 0.0), now.timestamp()), UTC)
    # A column of another character set would refuse it, each time, with all that is recovered in the same transaction.
    reply = with_ascii_text(acceptance.reply)
    return _record_acceptance(message, acceptance.accepted_of(message.envelope), reply, at)


def _record_acceptance(message: Message, accepted: Sequence[str], reply: Reply, at: datetime) -> State | None:
    """Write down who has a mail; the others are still to get it.

    Returns:
        The state that the message is in now; ``None`` if it has changed meanwhile, or no recipient has the mail.
    """
    now = clock.now()
    remaining = [recipient for recipient in message.envelope if recipient not in set(accepted)]
    if len(remaining) == len(message.envelope):
        return None
    state = State(message.state)
    values: dict[str, object] = {"token": "", "sent_at": message.sent_at or at, "reply": str(reply)}
    if not remaining:
        state = State.SENT
        values |= {
            "state": State.SENT, "due_at": None, "finished_at": now, "reason": "", "remaining": None,
            "attempts": F("attempts") + 1,
        }  # fmt: skip
    else:
        values["remaining"] = remaining
        if message.state == State.SENDING:
            state = State.QUEUED
            values |= {"state": state, "due_at": now + FLOOR, "handover_started_at": None}
    unchanged = rows([message.id]).filter(state=message.state, token=message.token)
    if not unchanged.update(**values):
        return None
    if not remaining:
        _drop_content_if_sensitive(message, State.SENT)
    return state


def _continue(row: QuerySet[Message], message: Message, outcome: Outcome) -> timedelta | None:
    """Some have the mail, and the server takes long for each: the others are next, without an attempt that failed."""
    now = clock.now()
    with_batch = message.waits_with_batch
    row.update(
        state=State.QUEUED, token="", handover_started_at=None, due_at=None if with_batch else now + FLOOR,
        sent_at=message.sent_at or now, reply=str(outcome.reply), remaining=list(outcome.deferred),
    )  # fmt: skip
    if with_batch and message.batch_id:
        CURSORS.rewind(message.batch_id, [message.id])
        make_due_by([message.batch_id], by=now)
    return None if with_batch else timedelta(0)


def has_sent_since(using: str, since: datetime) -> bool:
    """Whether a mail backend has taken a message since then, by the record.

    Args:
        using: the backend's alias; empty: the default one.
        since: when.
    """
    sent = Message.objects.using(database()).filter(state=State.SENT, finished_at__gte=since, sent_at__gte=since)
    return sent.filter(Q(using=using, route="") | Q(using="", route=using)).exists()


def _must_hold(message: Message) -> bool:
    """A server that takes too long to say that it has a mail would get it again and again."""
    conf = mailer_settings()
    return conf.ON_CRASH == "hold" or message.crashes + 1 >= conf.MAX_CRASHES


def _doubt_wait(message: Message) -> timedelta:
    """How long to wait at the least before a mail is sent that may have been taken.

    Its doubts are counted, and an outage in which connections are lost must not use them up within minutes.
    """
    conf = mailer_settings()
    wait: timedelta = conf.RETRY_BACKOFF * _DOUBT_FACTOR * 2.0**message.crashes
    return min(wait, conf.RETRY_BACKOFF_MAX)


def _format_replies(replies: Mapping[str, Reply]) -> str:
    return "; ".join(f"{recipient}: {reply}" for recipient, reply in replies.items())


def _finish(token: str, message: Message, outcome: Outcome) -> None:
    now = clock.now()
    sent_at = message.sent_at or (now if outcome.accepted else None)
    state = State.SENT if sent_at is not None else State.FAILED
    claimed_row(message.id, token).update(
        state=state, token="", due_at=None, finished_at=now, sent_at=sent_at, attempts=F("attempts") + 1,
        reply=str(outcome.reply), reason=_format_replies(outcome.rejected), remaining=None,
    )  # fmt: skip
    message.state = state
    _drop_content_if_sensitive(message, state)


def _drop_content_if_sensitive(message: Message, state: State) -> None:
    # What failed may be sent again by a person: see retention.
    if message.sensitive and state == State.SENT:
        drop_content([message.id])


@retry_on_conflict
def postpone(token: str, message: Message, reason: str) -> timedelta | None:
    """Put a claimed message aside that this worker cannot compose yet: tried again like a temporary refusal.

    Its new state and its reason, which says when the next try is, are set in ``message`` as well.

    Returns:
        As :func:`record`.
    """
    return _defer(token, message, reason, None)


@retry_on_conflict
def fail(token: str, key: UUID, reason: str) -> bool:
    """End a claimed message that can never be sent; returns whether the claim still held it."""
    now = clock.now()
    # One recipient may have received a copy before the others were refused temporarily.
    state = Case(When(sent_at__isnull=False, then=Value(State.SENT)), default=Value(State.FAILED))
    if claimed_row(key, token).update(
        state=state, token="", due_at=None, finished_at=now, attempts=F("attempts") + 1, reason=reason
    ):
        add_event(key, Event.Type.FAILED, now, detail=reason)
        return True
    return False


@retry_on_conflict
def withhold(token: str, message: Message, reason: str) -> None:
    """Set a claimed message aside for a person to decide. Its new state is set in ``message`` as well."""
    now = clock.now()
    if claimed_row(message.id, token).update(
        state=State.HELD, token="", due_at=None, finished_at=now, handover_started_at=None, reason=reason
    ):
        message.state, message.reason = State.HELD, reason
        add_event(message.id, Event.Type.WITHHELD, now, detail=reason)


def _defer(
    token: str,
    message: Message,
    reason: str,
    reply: str | None,
    *,
    crashes: int | None = None,
    at_least: timedelta | None = None,
) -> timedelta | None:
    """Try again later, or give up once ``RETRY_FOR`` is over."""
    conf = mailer_settings()
    now = clock.now()
    attempts = message.attempts + 1
    wait = max(delay(attempts, conf.RETRY_BACKOFF, conf.RETRY_BACKOFF_MAX), at_least or FLOOR)
    values: dict[str, object] = {
        "token": "", "attempts": attempts, "remaining": message.remaining, "sent_at": message.sent_at,
    }  # fmt: skip
    if reply is not None:
        values["reply"] = reply
    if crashes is not None:
        values["crashes"] = crashes
    row = claimed_row(message.id, token)
    # Not from when it was queued: an outage, or the rest of a newsletter before it, is no refusal.
    first_attempt_at = message.first_attempt_at or now
    values["first_attempt_at"] = first_attempt_at
    if now + wait > first_attempt_at + conf.RETRY_FOR:
        reason = f"Given up after {conf.RETRY_FOR}: {reason}"
        state = State.SENT if message.sent_at else State.FAILED
        if row.update(state=state, due_at=None, finished_at=now, reason=reason, **values):
            message.state, message.reason = state, reason
            add_event(message.id, Event.Type.FAILED, now, detail=reason)
            _drop_content_if_sensitive(message, state)
        return None
    due_at = before_expiry(message, now + wait)
    if reply is None:
        reason = f"{reason.rstrip('. ')}. Next try at {due_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC."
    if not row.update(state=State.DEFERRED, due_at=due_at, reason=reason, **values):
        return None
    message.state, message.reason = State.DEFERRED, reason
    if message.batch_id and not message.detached:
        make_due_by([message.batch_id], by=due_at)
    if reply is None:
        add_event(message.id, Event.Type.DEFERRED, now, detail=reason)
    # What waits with its batch is taken again by a task of the batch.
    return wait if wait <= LONGEST_COUNTDOWN and not message.waits_with_batch else None


@retry_on_conflict
def move_due_time(held_back_until: datetime, due_at: datetime) -> None:
    """Let a sweep publish what was held back until one moment at another one: of what it waits for more is known now.

    Args:
        held_back_until: exactly as it was given to :func:`.leases.release`.
        due_at: the new moment.
    """
    messages = Message.objects.using(database()).filter(state=State.QUEUED, sweep_at=held_back_until)
    batches = Batch.objects.using(database()).filter(due_at=held_back_until)
    rows(lock_free(messages.order_by("id")).values_list("id", flat=True)).update(due_at=due_at)
    free = list(lock_free(batches.order_by("id")).values_list("id", flat=True))
    Batch.objects.using(database()).filter(id__in=free).update(due_at=due_at)


def _add_recipient_events(key: UUID, outcome: Outcome) -> None:
    now = clock.now()
    events = [(Event.Type.ACCEPTED, recipient, str(outcome.reply)) for recipient in outcome.accepted]
    events += [
        (Event.Type.DEFERRED, recipient, str(reply))
        for recipient, reply in outcome.deferred.items()
        # Of those who were not asked about there is nothing to tell.
        if reply.code is not None or not outcome.continues
    ]
    events += [(Event.Type.REJECTED, recipient, str(reply)) for recipient, reply in outcome.rejected.items()]
    Event.objects.using(database()).bulk_create(
        Event(message_id=key, type=event, at=now, recipient=recipient, detail=detail)
        for event, recipient, detail in events
    )

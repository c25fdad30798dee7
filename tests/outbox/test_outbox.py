"""The rules of the states, on a real database."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError, transaction
from django.test import override_settings
from django.utils import timezone

from congressy_mailer import outbox, send_mail
from congressy_mailer.broker.claim_owners import host_id, owner_is_gone
from congressy_mailer.exceptions import InvalidTransition
from congressy_mailer.models import Event, Message, State
from congressy_mailer.replies import Outcome, Reply
from tests.conftest import run_concurrently
from tests.support.mails import queue, state, states

# Only the database is under test: nothing is published, and no broker that is missing makes anything due.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("published")]


def sweep() -> list[UUID]:
    """A sweep that was published just now and has come through the queue at once."""
    return outbox.sweep(timezone.now())


def update(key: UUID, **values: Any) -> None:
    Message.objects.filter(pk=key).update(**values)


def claim_one(key: UUID, token: str = "task:1") -> Message:
    (message,) = outbox.claim([key], token)
    return message


def accepted(key: UUID) -> Outcome:
    return Outcome(key, accepted=("ana@example.com",), reply=Reply(250, "2.0.0 OK 1/2"))


def deferred(key: UUID, *recipients: str, **options: Any) -> Outcome:
    return Outcome(
        key, deferred={one: Reply(451, "4.7.1 later") for one in recipients or ("ana@example.com",)}, **options
    )


def rejected(key: UUID, *recipients: str, **options: Any) -> Outcome:
    return Outcome(
        key, rejected={one: Reply(550, "5.1.1 nobody") for one in recipients or ("ana@example.com",)}, **options
    )


def test_a_claim_takes_what_is_queued_and_only_once() -> None:
    ids = queue(5)
    assert {message.id for message in outbox.claim([*ids, uuid4()], "one:1")} == set(ids)
    assert outbox.claim(ids, "two:1") == []
    assert set(Message.objects.values_list("state", "token")) == {(State.SENDING, "one:1")}


def test_a_claim_is_ordered_by_priority_then_age() -> None:
    low, normal, high = queue(priority=9)[0], queue()[0], queue(priority=1)[0]
    assert [message.id for message in outbox.claim([low, normal, high], "t:1")] == [high, normal, low]


@pytest.mark.parametrize("state", [state for state in State if state not in (State.QUEUED, State.DEFERRED)])
def test_no_other_state_can_be_claimed(state: State) -> None:
    (key,) = queue()
    update(key, state=state, due_at=timezone.now() + timedelta(hours=1))
    assert outbox.claim([key], "t:1") == []
    assert states([key]) == [state]


def test_a_deferred_message_is_claimed_when_due() -> None:
    (key,) = queue()
    update(key, state=State.DEFERRED, due_at=timezone.now() + timedelta(minutes=1))
    assert outbox.claim([key], "t:1") == []
    update(key, due_at=timezone.now())
    assert claim_one(key).id == key


def test_claims_at_the_same_time_never_share_a_message() -> None:
    ids = queue(120)

    def work(worker: int) -> list[UUID]:
        taken = []
        chooser = random.Random(worker)
        for turn in range(12):
            wanted = chooser.sample(ids, 40)
            taken += [message.id for message in outbox.claim(wanted, f"{worker}:{turn}")]
        return taken

    claimed = Counter(key for taken in run_concurrently(work, 4) for key in taken)
    assert set(claimed.values()) == {1}
    assert len(claimed) > 40


def test_accepted_is_sent_and_final() -> None:
    (key,) = queue()
    assert outbox.record("task:1", claim_one(key), accepted(key)) is None
    message = Message.objects.get(pk=key)
    assert (message.state, message.due_at, message.token, message.attempts) == (State.SENT, None, "", 1)
    assert message.reply == "250 2.0.0 OK 1/2"
    assert message.sent_at is not None
    assert outbox.claim([key], "t:2") == []


@pytest.mark.parametrize("outcome", [deferred, rejected])
def test_a_refusal_whose_claim_was_lost_changes_nothing(outcome: Callable[[UUID], Outcome]) -> None:
    (key,) = queue()
    message = claim_one(key)
    update(key, token="other:1")
    assert outbox.record("task:1", message, outcome(key)) is None
    assert (state(key), Event.objects.count()) == (State.SENDING, 0)


def test_refused_for_a_while_is_deferred_with_its_reason() -> None:
    (key,) = queue()
    wait = outbox.record("task:1", claim_one(key), deferred(key))
    message = Message.objects.get(pk=key)
    assert (message.state, message.attempts) == (State.DEFERRED, 1)
    assert "451 4.7.1 later" in message.reason
    assert wait is not None
    assert message.due_at is not None
    assert timedelta(seconds=5) <= message.due_at - timezone.now() + timedelta(seconds=2)
    assert message.due_at - timezone.now() <= wait


def test_given_up_after_retry_for_not_after_a_count() -> None:
    (key,) = queue()
    update(key, attempts=1000)
    assert outbox.record("task:1", claim_one(key), deferred(key)) is None or state(key) == State.DEFERRED
    update(key, state=State.QUEUED, first_attempt_at=timezone.now() - timedelta(hours=48))
    assert outbox.record("task:2", claim_one(key, "task:2"), deferred(key)) is None
    message = Message.objects.get(pk=key)
    assert message.state == State.FAILED
    assert message.reason.startswith("Given up after 2 days, 0:00:00: ana@example.com: 451")


def test_the_time_for_retries_begins_with_the_first_of_them() -> None:
    (key,) = queue()
    # After an outage of the mail server, or at the end of a newsletter that takes days.
    update(key, queued_at=timezone.now() - timedelta(hours=49))
    assert outbox.record("task:1", claim_one(key), deferred(key)) is not None
    message = Message.objects.get(pk=key)
    assert message.state == State.DEFERRED
    first = message.first_attempt_at
    assert first is not None
    assert timezone.now() - first < timedelta(minutes=1)
    update(key, due_at=timezone.now())
    outbox.record("task:2", claim_one(key, "task:2"), deferred(key))
    assert Message.objects.get(pk=key).first_attempt_at == first
    update(key, state=State.FAILED, due_at=None, finished_at=timezone.now())
    outbox.retry(key)
    assert Message.objects.get(pk=key).first_attempt_at is None


def test_refused_for_good_fails() -> None:
    (key,) = queue()
    outbox.record("task:1", claim_one(key), rejected(key))
    message = Message.objects.get(pk=key)
    assert message.state == State.FAILED
    assert message.reason == "ana@example.com: 550 5.1.1 nobody"
    assert [(event.type, event.recipient) for event in message.events.all()] == [("rejected", "ana@example.com")]


def test_of_three_recipients_only_the_deferred_one_is_tried_again() -> None:
    key = send_mail("x", "y", to=["ana@a.com", "eva@a.com"], bcc="rui@a.com").pk
    outcome = Outcome(
        key,
        accepted=("ana@a.com",),
        deferred={"eva@a.com": Reply(451, "later")},
        rejected={"rui@a.com": Reply(550, "nobody")},
        reply=Reply(250, "OK"),
    )
    outbox.record("task:1", claim_one(key), outcome)
    message = Message.objects.get(pk=key)
    assert (message.state, message.remaining) == (State.DEFERRED, ["eva@a.com"])
    assert {(event.type, event.recipient) for event in message.events.all()} == {
        ("accepted", "ana@a.com"),
        ("deferred", "eva@a.com"),
        ("rejected", "rui@a.com"),
    }
    update(key, due_at=timezone.now())
    outbox.record("task:2", claim_one(key, "task:2"), rejected(key, "eva@a.com"))
    message.refresh_from_db()
    # Somebody has it: it was sent, and the reason tells who has not.
    assert (message.state, message.remaining) == (State.SENT, None)
    assert message.reason == "eva@a.com: 550 5.1.1 nobody"


def test_in_doubt_is_said() -> None:
    (key,) = queue()
    outbox.record("task:1", claim_one(key), deferred(key, in_doubt=True))
    assert "in doubt" in Message.objects.get(pk=key).reason


def test_sensitive_content_is_dropped_when_it_is_sent(django_capture_on_commit_callbacks: Any) -> None:
    key = send_mail("Senha", "abc", to="ana@example.com", sensitive=True, attachments=[("a", b"1")]).pk
    (attachment,) = Message.objects.get(pk=key).attachments.all()
    outbox.record("task:1", claim_one(key), accepted(key))
    message = Message.objects.get(pk=key)
    assert (message.subject, message.text, message.html, message.context) == ("", "", "", None)
    assert not message.attachments.exists()
    assert not attachment.file.storage.exists(attachment.file.name)
    with pytest.raises(InvalidTransition, match="its content has been dropped"):
        outbox.resend(key)


def test_released_messages_are_queued_and_no_attempt_is_counted() -> None:
    ids = queue(3)
    claimed = outbox.claim(ids, "task:1")
    outbox.release("task:1", claimed[:2])
    assert states(ids) == [State.QUEUED, State.QUEUED, State.SENDING]
    assert set(Message.objects.values_list("attempts", flat=True)) == {0}
    outbox.release("other:1", claimed)
    assert state(ids[2]) == State.SENDING


def test_composing_that_can_never_work_fails_and_what_may_work_later_waits() -> None:
    hopeless, later = queue(2)
    claimed = {message.pk: message for message in outbox.claim([hopeless, later], "task:1")}
    outbox.fail("task:1", hopeless, "events.Order pk=3 no longer exists")
    assert outbox.postpone("task:1", claimed[later], "no such template") is not None
    assert Message.objects.get(pk=hopeless).reason == "events.Order pk=3 no longer exists"
    assert states([hopeless, later]) == [State.FAILED, State.DEFERRED]
    outbox.fail("task:1", later, "x")
    assert state(later) == State.DEFERRED


def test_sweep_publishes_what_is_due_and_nothing_else() -> None:
    now = timezone.now()
    past, ahead = now - timedelta(seconds=1), now + timedelta(hours=1)
    lost, waiting, scheduled, retried, final = queue(5)
    update(lost, due_at=past)
    update(scheduled, state=State.SCHEDULED, due_at=past, queued_at=None)
    update(retried, state=State.DEFERRED, due_at=past)
    update(final, state=State.SENT, due_at=None)
    (later,) = queue(send_at=ahead)
    assert set(sweep()) == {lost, scheduled, retried}
    assert states([lost, waiting, scheduled, retried, final, later]) == [
        State.QUEUED, State.QUEUED, State.QUEUED, State.QUEUED, State.SENT, State.SCHEDULED,
    ]  # fmt: skip
    assert Message.objects.get(pk=scheduled).queued_at is not None
    assert sweep() == []


def test_what_went_into_the_queue_after_the_sweep_is_not_lost_however_long_that_takes() -> None:
    (key,) = queue()
    now = timezone.now()
    # It was published two hours ago, and should have been claimed an hour ago.
    update(key, due_at=now - timedelta(hours=1))
    assert outbox.sweep(None) == []
    assert outbox.sweep(now - timedelta(hours=2)) == []
    assert outbox.sweep(now - timedelta(minutes=59)) == [key]
    due_at = Message.objects.get(pk=key).due_at
    assert due_at is not None
    assert due_at > now


def test_a_queue_that_is_long_does_not_hide_what_is_due() -> None:
    ids = queue(3)
    late = queue()[0]
    Message.objects.filter(pk__in=ids).update(due_at=timezone.now() - timedelta(hours=1))
    update(late, state=State.DEFERRED, due_at=timezone.now())
    assert outbox.sweep(None) == [late]


def test_a_lease_that_is_over_queues_the_message_again() -> None:
    (key,) = queue()
    claim_one(key)
    assert sweep() == []
    update(key, due_at=timezone.now())
    assert sweep() == [key]
    message = Message.objects.get(pk=key)
    assert (message.state, message.crashes) == (State.QUEUED, 1)
    assert [event.type for event in message.events.all()] == ["crashed"]


@override_settings(CONGRESSY_MAILER={"ON_CRASH": "hold"})
def test_a_lease_that_is_over_holds_the_message_where_told() -> None:
    (key,) = queue()
    claim_one(key)
    assert outbox.start_handover("task:1", [key]) == {key}
    update(key, due_at=timezone.now())
    assert sweep() == []
    message = Message.objects.get(pk=key)
    assert (message.state, message.due_at) == (State.HELD, None)
    assert "whether the mail server took it is not known" in message.reason
    outbox.retry(key)
    assert state(key) == State.QUEUED


@override_settings(CONGRESSY_MAILER={"ON_CRASH": "hold"})
def test_what_was_never_begun_is_not_held() -> None:
    (key,) = queue()
    claim_one(key)
    update(key, due_at=timezone.now())
    assert sweep() == [key]
    assert state(key) == State.QUEUED
    assert outbox.start_handover("task:1", [key]) == set()


def token_of_a_process_that_is_gone(owner: str) -> str:
    """A token as a process of this host made it, which has ended since."""
    waiting = [sys.executable, "-c", "input()"]
    with subprocess.Popen(waiting, stdin=subprocess.PIPE) as process, pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.getpid", lambda: process.pid)
        token = outbox.new_claim_token(owner)
        process.kill()
    return token


def test_what_a_dead_process_held_is_taken_up_at_once() -> None:
    mine, others = queue(2)
    outbox.claim([mine], token_of_a_process_that_is_gone("task-a"))
    outbox.claim([others], outbox.new_claim_token("task-b"))
    assert outbox.claim([mine, others], "task-a:2") == []
    # It may have killed its worker: it is taken only alone, so that it cannot take others with it again.
    assert outbox.claim([mine, others], "task-a:3", redelivered=True) == []
    assert outbox.needing_solo([mine, others]) == [mine]
    (taken,) = outbox.claim([mine], "task-a:4")
    assert (taken.id, taken.crashes) == (mine, 1)


def test_a_sweep_on_the_same_host_does_not_wait_for_the_lease_of_a_dead_process() -> None:
    dead, alive, elsewhere = queue(3)
    token = token_of_a_process_that_is_gone("task-a")
    outbox.claim([dead], token)
    outbox.claim([alive], outbox.new_claim_token("task-b"))
    outbox.claim([elsewhere], token.replace(host_id(), "00000000"))
    assert sweep() == [dead]
    assert states([dead, alive, elsewhere]) == [State.QUEUED, State.SENDING, State.SENDING]


def test_a_task_given_out_again_takes_nothing_from_a_process_that_is_alive() -> None:
    (key,) = queue()
    (message,) = outbox.claim([key], token := outbox.new_claim_token("task-a"))
    assert outbox.claim([key], outbox.new_claim_token("task-a"), redelivered=True) == []
    outbox.record(token, message, accepted(key))
    assert (state(key), Message.objects.get(pk=key).crashes) == (State.SENT, 0)


@pytest.mark.parametrize(("token", "gone"), [("", False), ("task:1", False), ("sweep:x-1-1:00000000", False)])
def test_of_a_token_that_says_nothing_nothing_is_known(token: str, gone: bool) -> None:
    assert owner_is_gone(token) is gone


def test_the_number_of_a_dead_process_may_be_anothers_by_now() -> None:
    token = outbox.new_claim_token("task")
    assert not owner_is_gone(token)
    assert owner_is_gone(re.sub(r"-(\d+):", lambda match: f"-{int(match[1]) + 1}:", token))


def test_a_mail_in_doubt_too_often_is_set_aside() -> None:
    (key,) = queue()
    for turn in range(3):
        update(key, due_at=timezone.now())
        outbox.record(f"task:{turn}", claim_one(key, f"task:{turn}"), deferred(key, in_doubt=True))
    message = Message.objects.get(pk=key)
    assert (message.state, message.crashes, message.attempts) == (State.HELD, 3, 3)
    assert message.reason.endswith("(in doubt: the server may have taken it)")


def test_retrying_keeps_to_the_times_that_are_ahead() -> None:
    tomorrow = timezone.now() + timedelta(days=1)
    scheduled = queue(send_at=tomorrow, expires_at=tomorrow + timedelta(hours=1))[0]
    expired = queue()[0]
    outbox.cancel(scheduled)
    update(expired, state=State.EXPIRED, expires_at=timezone.now() - timedelta(seconds=1))
    outbox.retry(scheduled)
    outbox.retry(expired)
    message = Message.objects.get(pk=scheduled)
    assert (message.state, message.due_at, message.queued_at) == (State.SCHEDULED, message.send_at, None)
    assert message.expires_at is not None
    assert (state(expired), Message.objects.get(pk=expired).expires_at) == (State.QUEUED, None)


def test_a_message_whose_worker_dies_again_and_again_is_set_aside() -> None:
    (key,) = queue()
    for turn in range(3):
        assert len(outbox.claim([key], f"task:{turn}")) == 1
        update(key, due_at=timezone.now())
        sweep()
    message = Message.objects.get(pk=key)
    assert (message.state, message.crashes, message.due_at) == (State.HELD, 3, None)
    assert message.reason == "Its worker died 3 times while holding it: it may be the cause."
    outbox.retry(key)
    assert Message.objects.get(pk=key).crashes == 0


def test_sweeps_at_the_same_time_share_the_work() -> None:
    ids = queue(60)
    Message.objects.update(due_at=timezone.now())
    published = Counter(key for found in run_concurrently(lambda worker: sweep(), 3) for key in found)
    assert published == Counter(ids)


def test_expired_messages_are_not_sent() -> None:
    soon = timezone.now() + timedelta(hours=1)
    claimed, swept = queue(2, expires_at=soon)
    update(claimed, expires_at=timezone.now())
    assert outbox.claim([claimed], "t:1") == []
    update(swept, expires_at=timezone.now(), due_at=timezone.now())
    assert sweep() == []
    assert states([claimed, swept]) == [State.EXPIRED, State.EXPIRED]


def test_cancelling_while_it_is_sent_is_too_late() -> None:
    (key,) = queue()
    claim_one(key)
    assert not outbox.cancel(key)
    assert state(key) == State.SENDING


def test_retry_keeps_to_those_without_a_copy_and_resend_does_not() -> None:
    (key,) = queue()
    update(key, state=State.FAILED, remaining=["eva@a.com"])
    outbox.retry(key)
    assert Message.objects.get(pk=key).remaining == ["eva@a.com"]
    update(key, state=State.SENT)
    with pytest.raises(InvalidTransition, match="is sent; it can be queued again only when it is cancelled, expired"):
        outbox.retry(key)
    outbox.resend(key)
    message = Message.objects.get(pk=key)
    assert (message.state, message.remaining) == (State.QUEUED, None)
    with pytest.raises(InvalidTransition, match="is gone"):
        outbox.retry(uuid4())


def test_one_key_under_callers_at_the_same_time_makes_one_message() -> None:
    def call(worker: int) -> UUID:
        return send_mail("x", "y", to="ana@example.com", idempotency_key="order-1", attachments=[("a", b"1")]).pk

    keys = set(run_concurrently(call, 4))
    assert len(keys) == 1
    assert Message.objects.count() == 1


def test_unpublished_messages_are_due_at_once() -> None:
    (key,) = queue()
    assert sweep() == []
    outbox.mark_unpublished([key])
    assert sweep() == [key]


def test_content_is_of_one_kind() -> None:
    (key,) = queue()
    for values in ({"mime": b"x"}, {"template": "a"}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Message.objects.filter(pk=key).update(**values)

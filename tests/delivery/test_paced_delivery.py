"""Delivery keeps to the rate and to the number of connections, and slows down when the server asks for it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from congressy_mailer.delivery.slice import SliceResult
from congressy_mailer.models import Message, State, TransportStatus, clock
from congressy_mailer.testing.local_sparkpost.replies import Exchange, Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.throttling import RateLimiter, connection_slot
from congressy_mailer.transports import pool
from tests.conftest import reset_throttling, run_concurrently, wait_for
from tests.support.mails import deliver, deliver_slice, queue, queue_batch

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.email_settings]

SMTP = "django.core.mail.backends.smtp.EmailBackend"


@pytest.fixture
def limit(
    smtp_server: LocalSparkPost, broker: str, settings: Any, monkeypatch: pytest.MonkeyPatch, published: list[str]
) -> Iterator[Any]:
    """Set limits."""
    reset_throttling()
    for name, value in smtp_server.environment().items():
        monkeypatch.setenv(name, value)
    options = {
        "host": "localhost",
        "port": smtp_server.port,
        "username": smtp_server.user,
        "password": smtp_server.password,
        "use_tls": True,
    }

    def configure(**limits: object) -> None:
        settings.CONGRESSY_MAILER = {"TRANSPORTS": {"sparkpost": {"BACKEND": SMTP, "OPTIONS": options}}, **limits}

    configure()
    yield configure
    pool.close_connections()
    reset_throttling()


def untouched(ids: Sequence[UUID]) -> bool:
    """They wait, and nobody has counted anything."""
    rows = Message.objects.filter(pk__in=ids).values_list("state", "attempts", "token")
    return set(rows) == {(State.QUEUED, 0, "")} and not TransportStatus.objects.exists()


def test_a_slice_sends_what_the_rate_allows_and_leaves_the_rest(limit: Any) -> None:
    limit(RATE_LIMIT="20/s", TIME_SLICE=timedelta(milliseconds=400))
    left = queue(12, using="sparkpost")
    slices = 0
    while left:
        result = deliver(left)
        slices += 1
        # One a twentieth of a second, and the first at once.
        assert len(left) - len(result.unfinished) <= 10
        assert Message.objects.filter(state=State.SENT).count() == 12 - len(result.unfinished)
        assert result.retries == {}
        assert not result.unfinished or untouched(result.unfinished)
        left = result.unfinished
    assert slices > 1


def test_what_has_no_turn_for_long_is_put_back_until_then(limit: Any) -> None:
    limit(RATE_LIMIT="1/h", TIME_SLICE=timedelta(minutes=5))
    ids = queue(5, using="sparkpost")
    began = time.monotonic()
    result = deliver(ids)
    # Nothing waits for the end of the slice.
    assert time.monotonic() - began < 60
    assert result.unfinished == []
    ((seconds, waiting),) = result.retries.items()
    assert seconds == 61
    assert waiting == ids[1:]
    assert untouched(waiting)
    due = set(Message.objects.filter(pk__in=waiting).values_list("due_at", flat=True))
    assert all(timedelta(seconds=50) < moment - timezone.now() <= timedelta(minutes=1) for moment in due if moment)
    # The connection is not kept waiting for the content of the first.
    assert Message.objects.get(pk=ids[0]).state == State.SENT


def test_mail_without_a_connection_is_put_back_untouched(limit: Any, smtp_server: LocalSparkPost) -> None:
    limit(MAX_CONNECTIONS=1)
    others = connection_slot("sparkpost")
    ids = queue(3, using="sparkpost")
    result = deliver(ids)
    assert result.unfinished == []
    assert sorted(key for waiting in result.retries.values() for key in waiting) == sorted(ids)
    assert max(result.retries) <= 4
    assert untouched(ids)
    assert smtp_server.open_connections == 0
    others.release()
    assert deliver(ids).retries == {}
    assert Message.objects.filter(state=State.SENT).count() == 3


def test_threads_together_have_no_more_connections_than_allowed(limit: Any, smtp_server: LocalSparkPost) -> None:
    limit(MAX_CONNECTIONS=2, TIME_SLICE=timedelta(minutes=1))
    most = 0

    def count(exchange: Exchange) -> None:
        nonlocal most
        most = max(most, smtp_server.open_connections)

    smtp_server.script = count
    parts = [queue(5, using="sparkpost") for _ in range(4)]
    run_concurrently(lambda worker: deliver(parts[worker]))
    assert 1 <= most <= 2
    sent = Message.objects.filter(state=State.SENT).count()
    assert sent in (10, 15, 20)
    assert untouched([*Message.objects.exclude(state=State.SENT).values_list("pk", flat=True)]) or sent == 20


def test_a_server_that_says_too_fast_is_sent_to_more_slowly(
    limit: Any, smtp_server: LocalSparkPost, caplog: pytest.LogCaptureFixture
) -> None:
    refused = iter([True])

    def once(exchange: Exchange) -> str | None:
        if exchange.stage is Stage.MAIL and next(refused, False):
            return "451 4.7.1 Rate limit exceeded, try again later"
        return None

    smtp_server.script = once
    ids = queue(60, using="sparkpost")

    def complaint(result: SliceResult) -> tuple[SliceResult, list[str]] | None:
        said = [record.getMessage() for record in caplog.records if record.name == "congressy_mailer.throttling"]
        return (result, said) if said else None

    # On a busy machine a slice may be over before it has handed anything over.
    result, (said,) = wait_for(lambda: complaint(deliver(ids)))
    assert "'sparkpost' says that mail comes too fast" in said
    assert Message.objects.filter(state=State.DEFERRED).count() == 1
    assert len(result.unfinished) > 0
    assert untouched(result.unfinished)


def test_a_slice_that_cannot_reach_the_next_turn_ends_and_looks_no_further(
    limit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = iter([timedelta(0)])
    next_turn = timedelta(milliseconds=900)
    limit(TIME_SLICE=timedelta(milliseconds=300))
    batch = queue_batch(50, using="sparkpost")
    # The time of the slice stands still, so that a busy machine does not reach its end or the next turn meanwhile.
    monkeypatch.setattr(clock, "elapsed", lambda: 1000.0)
    monkeypatch.setattr(RateLimiter, "acquire", lambda *arguments: next(turns, next_turn))
    for _ in range(3):
        began = timezone.now()
        with CaptureQueriesContext(connection) as captured:
            result = deliver_slice(batch)
        assert result.continue_at is not None
        assert began + next_turn <= result.continue_at <= timezone.now() + next_turn
        assert len(captured) < 40
        assert Message.objects.filter(state=State.SENT).count() == 1

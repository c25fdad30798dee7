"""A batch over a long way: no connection is idle while work waits, and the waits are used for what follows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.db.models import QuerySet
from django.test import override_settings

from benchmarks.link import Link
from congressy_mailer import outbox
from congressy_mailer.delivery import sending_rate
from congressy_mailer.delivery.deadlines import Deadlines
from congressy_mailer.models import Batch, Message, State
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.throttling import share_connections
from congressy_mailer.transports.base import Transport
from congressy_mailer.transports.pool import close_connections
from congressy_mailer.transports.selection import wrapping_transports
from congressy_mailer.transports.smtp import connections, session
from tests.conftest import reset_throttling
from tests.support.mails import deliver_slice, people, queue_batch
from tests.support.transports import SMTP

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.email_settings]

ROUND_TRIP = 0.06
CONNECTIONS = 5
#: Messages of a claim: what the way carries in a second, about.
CLAIM = 40
#: Less than a connection takes before it is opened again.
MAILS = 240


@pytest.fixture
def far_server(
    smtp_server: LocalSparkPost, broker: str, published: list[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalSparkPost]:
    """A server far away, to which a task has several connections and as much time as it takes."""
    reset_throttling()
    for name, value in smtp_server.environment().items():
        monkeypatch.setenv(name, value)
    share_connections(2)
    # However long a busy machine takes to compose a mail.
    monkeypatch.setattr(connections, "paying_connections", lambda most, **conditions: most)
    with Link(smtp_server.port, ROUND_TRIP) as link:
        options = {
            "host": "localhost", "port": link.port, "username": smtp_server.user, "password": smtp_server.password,
            "use_tls": True, "timeout": 20,
        }  # fmt: skip
        conf = {
            "TRANSPORTS": {"sparkpost": {"BACKEND": SMTP, "OPTIONS": options}},
            "TIME_SLICE": timedelta(minutes=2),
            "SLICE_SIZE": CLAIM,
            "MAX_CONNECTIONS": 2 * CONNECTIONS,
        }
        with override_settings(CONGRESSY_MAILER=conf):
            sending_rate.observe("sparkpost", 1000, 1.0)
            yield smtp_server
            close_connections()
    share_connections(0)
    reset_throttling()


@pytest.fixture
def contents_on_their_way() -> Iterator[Callable[[], int]]:
    """How many there are at this moment."""
    seen: list[Any] = []

    def remember(one: Transport) -> Transport:
        seen.append(one)
        return one

    with wrapping_transports(remember):
        yield lambda: seen[-1].contents_on_their_way if seen else 0


def of(batch: Batch, state: State) -> QuerySet[Message]:
    return batch.messages.filter(state=state)


def copies(server: LocalSparkPost) -> Counter[str]:
    return Counter(recipient for one in server.mailbox for recipient in one.recipients)


def test_no_connection_is_idle_while_two_slices_of_work_wait(
    far_server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = queue_batch(MAILS, using="sparkpost")
    #: By connection, how many mails it has begun.
    begun: Counter[session.Session] = Counter()
    #: How many messages waited when a content left without the next envelope: the connection then carries nothing for
    #: a round trip.
    waiting_at_a_gap: list[int] = []
    send = session.Session.send

    def watched(
        self: session.Session, sending: session.Attempt | None, beginning: session.Attempt | None
    ) -> session.Flow[None]:
        if beginning is not None:
            begun[self] += 1
        elif sending is not None:
            waiting_at_a_gap.append(of(batch, State.QUEUED).count())
        return send(self, sending, beginning)

    monkeypatch.setattr(session.Session, "send", watched)
    deliver_slice(batch)
    assert of(batch, State.SENT).count() == MAILS
    assert len(begun) == far_server.connections == CONNECTIONS
    assert max(waiting_at_a_gap) < 2 * CLAIM
    # The first is in use while the others are opened, which takes it some ten mails, and more on a busy machine.
    _, *others = sorted(begun.values(), reverse=True)
    assert min(others) > max(others) / 2


def test_what_follows_is_claimed_while_contents_are_on_their_way(
    far_server: LocalSparkPost, contents_on_their_way: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = queue_batch(MAILS, using="sparkpost")
    flying: list[int] = []
    claim = outbox.claim_from_batch

    def watched(*arguments: Any) -> list[Message]:
        flying.append(contents_on_their_way())
        return claim(*arguments)

    monkeypatch.setattr(outbox, "claim_from_batch", watched)
    deliver_slice(batch)
    assert of(batch, State.SENT).count() == MAILS
    # Each but the first, and those that find the batch at its end.
    assert sum(count > 0 for count in flying) >= MAILS / CLAIM - 1


def test_a_claim_that_fails_meanwhile_repeats_and_loses_nothing(
    far_server: LocalSparkPost, contents_on_their_way: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = queue_batch(MAILS, using="sparkpost")
    failed: list[int] = []
    claim = outbox.claim_from_batch

    def failing(*arguments: Any) -> list[Message]:
        messages = claim(*arguments)
        if not failed and contents_on_their_way():
            failed.append(contents_on_their_way())
            # What was claimed was not read.
            raise OperationalError("the connection was lost")
        return messages

    monkeypatch.setattr(outbox, "claim_from_batch", failing)
    kept: list[int] = []
    release_claim = outbox.release_claim

    def watched(*arguments: Any) -> None:
        release_claim(*arguments)
        kept.append(of(batch, State.SENDING).count())

    monkeypatch.setattr(outbox, "release_claim", watched)
    deliver_slice(batch)
    # Nobody else may claim what is on its way.
    assert kept[0] >= failed[0] > 0
    deliver_slice(batch)
    assert of(batch, State.SENT).count() == MAILS
    assert copies(far_server) == dict.fromkeys(people(MAILS), 1)


def test_a_batch_that_expires_meanwhile_is_ended_once_nothing_is_on_its_way(
    far_server: LocalSparkPost,
    contents_on_their_way: Callable[[], int],
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Less than the way takes for all of them.
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "TIME_SLICE": timedelta(seconds=1)}
    batch = queue_batch(MAILS, using="sparkpost")
    flying: list[int] = []
    end = outbox.batches.end_waiting_with_batch

    def watched(*arguments: Any) -> int:
        flying.append(contents_on_their_way())
        return end(*arguments)

    monkeypatch.setattr(outbox.batches, "end_waiting_with_batch", watched)
    looked: list[bool] = []
    heartbeat = outbox.heartbeat

    def expiring(*arguments: Any, **options: Any) -> bool:
        if not (looked or contents_on_their_way()):
            return True
        Batch.objects.filter(pk=batch.pk).update(expires_at=batch.created_at)
        looked.append(heartbeat(*arguments, **options))
        return looked[-1]

    monkeypatch.setattr(outbox, "heartbeat", expiring)
    monkeypatch.setattr("congressy_mailer.delivery.longer_slices.none_waited_lately", lambda: True)
    monkeypatch.setattr("congressy_mailer.delivery.longer_slices._CHECK_INTERVAL", 0.0)
    monkeypatch.setattr(Deadlines, "may_be_prolonged", True)
    deliver_slice(batch)
    assert looked
    assert not any(looked)
    assert not any(flying)
    # What the next task begins with.
    assert not heartbeat(batch.pk, batch.generation)
    assert not of(batch, State.QUEUED).exists()
    assert of(batch, State.EXPIRED).exists()

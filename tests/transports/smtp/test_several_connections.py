"""Over a long way one task uses several connections, and what it promises of one holds for all of them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterator, Set
from typing import Any, cast
from uuid import UUID

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.core.mail.backends.smtp import EmailBackend

from benchmarks.link import Link
from congressy_mailer.replies import Outcome
from congressy_mailer.testing.local_sparkpost.replies import Exchange, Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.throttling import connection_slot, connections_per_task, share_connections
from congressy_mailer.transports.base import ComposedMail, MailSource
from congressy_mailer.transports.host_backends import open_backend
from congressy_mailer.transports.smtp.connections import paying_connections
from congressy_mailer.transports.smtp.transport import SmtpTransport
from tests.conftest import reset_throttling, wait_for
from tests.support.transports import composed, sparkpost_at

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.email_settings]

ROUND_TRIP = 0.06
MOST = 5
#: Mails that do not come to their end before several connections are in use, on a busy machine either.
ENOUGH = 3000


class Mails(MailSource):
    """Mails of which some are composed at a time, as a delivery composes them."""

    def __init__(self, count: int, chunk: int = 20) -> None:
        self._left = count
        self._chunk = chunk
        self._ready = 0
        self.transport: SmtpTransport | None = None
        #: How many contents were on their way at each time that something was composed.
        self.flying_while_composing: list[int] = []
        #: The same for each wait that could be used.
        self.flying_while_waiting: list[int] = []
        self.late: list[Outcome] = []
        #: How many contents were about to leave at the same time.
        self.started: list[int] = []
        #: The time, counted from 1, at which another worker has one of them by now; 0: never.
        self.loses_at = 0
        self.lost: set[UUID] = set()
        #: Outcomes as they were heard.
        self.noted: list[Outcome] = []

    @property
    def ready(self) -> int:
        return self._ready

    @property
    def is_paced(self) -> bool:
        return False

    @property
    def expected(self) -> int:
        return self._left

    @property
    def composing_seconds(self) -> float:
        return 0.001

    def __next__(self) -> ComposedMail:
        if not self._left:
            raise StopIteration
        if not self._ready:
            assert self.transport is not None
            self.flying_while_composing.append(self.transport.contents_on_their_way)
            self._ready = min(self._chunk, self._left)
        self._left -= 1
        self._ready -= 1
        return composed(f"p{self._left}@example.com")

    def start_contents(self, keys: Collection[UUID]) -> Set[UUID]:
        self.started.append(len(keys))
        if len(self.started) == self.loses_at:
            self.lost = set(list(keys)[:1])
            return set(keys) - self.lost
        return set(keys)

    def use_wait(self) -> None:
        assert self.transport is not None
        self.flying_while_waiting.append(self.transport.contents_on_their_way)

    def note(self, outcome: Outcome) -> None:
        self.noted.append(outcome)

    def take_late(self, outcome: Outcome) -> None:
        self.late.append(outcome)


@pytest.fixture
def link(smtp_server: LocalSparkPost, broker: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    reset_throttling()
    for name, value in smtp_server.environment().items():
        monkeypatch.setenv(name, value)
    with Link(smtp_server.port, ROUND_TRIP) as link:
        yield link
    reset_throttling()


@pytest.fixture
def transport(smtp_server: LocalSparkPost, link: Link) -> Iterator[SmtpTransport]:
    with sparkpost_at(smtp_server, port=link.port):
        transport = SmtpTransport(backend(), "sparkpost", most=MOST, another=backend)
        yield transport
        transport.close()


def backend() -> EmailBackend:
    return cast(EmailBackend, open_backend("sparkpost"))


def outcomes_of(transport: SmtpTransport, mails: Mails) -> list[Outcome]:
    mails.transport = transport
    return list(transport.deliver(mails))


def received(server: LocalSparkPost) -> Counter[str]:
    return Counter(recipient for one in server.mailbox for recipient in one.recipients)


def test_a_long_way_is_used_by_several_connections_and_each_mail_goes_once(
    transport: SmtpTransport, smtp_server: LocalSparkPost
) -> None:
    mails = Mails(150)
    outcomes = outcomes_of(transport, mails)
    assert len(outcomes) == 150
    assert all(outcome.accepted for outcome in outcomes)
    assert received(smtp_server) == {f"p{number}@example.com": 1 for number in range(150)}
    assert 1 < smtp_server.connections <= MOST
    # Nothing is composed while a content is on its way: what kills the process then takes no mail with it.
    assert set(mails.flying_while_composing) == {0}


def test_contents_that_leave_at_the_same_time_are_written_down_together(transport: SmtpTransport) -> None:
    mails = Mails(150)
    outcomes_of(transport, mails)
    assert sum(mails.started) == 150
    assert 1 < max(mails.started) <= MOST
    assert len(mails.started) < 150


@pytest.mark.parametrize("at", [1, 20])
def test_a_content_that_another_worker_has_by_now_does_not_leave_and_all_others_do(
    transport: SmtpTransport, smtp_server: LocalSparkPost, at: int
) -> None:
    mails = Mails(150)
    mails.loses_at = at
    outcomes = outcomes_of(transport, mails)
    assert len({outcome.key for outcome in outcomes}) == len(outcomes) == 149
    assert not mails.lost & {outcome.key for outcome in outcomes}
    assert list(received(smtp_server).values()) == [1] * 149


def test_the_wait_for_a_server_far_away_can_be_used(transport: SmtpTransport) -> None:
    mails = Mails(40)
    outcomes_of(transport, mails)
    assert max(mails.flying_while_waiting) > 0


def test_few_mails_open_no_further_connection(transport: SmtpTransport, smtp_server: LocalSparkPost) -> None:
    outcomes_of(transport, Mails(1))
    outcomes_of(transport, Mails(7))
    assert smtp_server.connections == 1


@pytest.mark.parametrize(
    ("conditions", "paying"),
    [
        ({"round_trip": 0.12, "composing": 0.002, "mails": 500}, 5),
        ({"round_trip": 0.12, "composing": 0.002, "mails": 24}, 3),
        ({"round_trip": 0.12, "composing": 0.002, "mails": 1}, 1),
        ({"round_trip": 0.12, "composing": 0.05, "mails": 500}, 3),
        ({"round_trip": 0.12, "composing": 0.0, "mails": 500}, 1),
        ({"round_trip": 0.001, "composing": 0.0005, "mails": 500}, 1),
        ({"round_trip": 0.0, "composing": 0.002, "mails": 500}, 1),
    ],
)
def test_a_further_connection_is_opened_only_where_it_pays(conditions: dict[str, Any], paying: int) -> None:
    assert paying_connections(5, **conditions) == paying
    assert paying_connections(1, **conditions) == 1


def test_a_delivery_that_is_closed_early_tells_all_that_was_accepted(
    transport: SmtpTransport, smtp_server: LocalSparkPost
) -> None:
    mails = Mails(ENOUGH)
    mails.transport = transport
    outcomes = transport.deliver(mails)
    taken = []
    for outcome in outcomes:
        taken.append(outcome)
        if len(taken) > 100 and transport.contents_on_their_way > 1:
            break
    cast(Any, outcomes).close()
    told = {outcome.key for outcome in (*taken, *mails.late) if outcome.accepted}
    assert len(told) == len(smtp_server.mailbox) > 100


def test_the_time_limit_leaves_no_accepted_mail_without_an_outcome(
    transport: SmtpTransport, smtp_server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch
) -> None:
    import select

    mails = Mails(ENOUGH)
    mails.transport = transport
    polls: list[Any] = []
    real = select.poll

    class Poll:
        def __init__(self) -> None:
            self._poll = real()
            self.register = self._poll.register

        def poll(self, timeout: int) -> Any:
            if not polls and len(smtp_server.mailbox) > 60 and transport.contents_on_their_way > 1:
                polls.append(1)
                raise SoftTimeLimitExceeded
            return self._poll.poll(timeout)

    monkeypatch.setattr(select, "poll", Poll)
    outcomes: list[Outcome] = []
    raised = False
    try:
        for outcome in transport.deliver(mails):
            outcomes.append(outcome)
    except SoftTimeLimitExceeded:
        raised = True
    assert polls
    # An envelope that was on its way just then has an outcome that tells of the limit.
    assert raised != any(outcome.interrupted for outcome in outcomes)
    assert len({outcome.key for outcome in outcomes if outcome.accepted}) == len(smtp_server.mailbox)


def test_extra_connections_are_asked_for_silently_and_refused_where_others_have_all(
    transport: SmtpTransport, smtp_server: LocalSparkPost, settings: Any
) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "MAX_CONNECTIONS": 2}
    other = connection_slot("sparkpost")
    assert other.acquired
    outcomes_of(transport, Mails(60))
    assert smtp_server.connections == 1
    # Nobody gives up a connection for one that would be a second.
    assert other.may_stay_open()
    other.release()


def test_a_further_connection_that_cannot_be_opened_stops_nothing(
    transport: SmtpTransport, smtp_server: LocalSparkPost
) -> None:
    lock, seen = threading.Lock(), []

    def script(exchange: Exchange) -> Any:
        if exchange.stage is Stage.CONNECT:
            with lock:
                seen.append(1)
            return "421 4.3.2 try later" if len(seen) > 1 else None
        return None

    smtp_server.script = script
    outcomes = outcomes_of(transport, Mails(60))
    assert all(outcome.accepted for outcome in outcomes)
    assert len(outcomes) == len(smtp_server.mailbox) == 60
    wait_for(lambda: len(seen) > 1, 20, "the try of another connection")


def test_tasks_of_a_worker_share_the_connections() -> None:
    assert connections_per_task() == 1
    try:
        share_connections(2)
        assert connections_per_task() == 5
        share_connections(10)
        assert connections_per_task() == 1
    finally:
        share_connections(0)

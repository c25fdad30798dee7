"""Ten incidents, made real: what an operator sees in the terminal and in the admin, and that the remedy is one.

``docs/how-to/incidents.md`` has a paragraph on each.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from html import unescape
from io import StringIO
from typing import Any

import pytest
import redis
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.db import connection
from django.db.models import F
from django.test import Client
from django.utils import timezone

from congressy_mailer import metrics, outbox, pause, periodic, send_bulk, send_mail, suppressions
from congressy_mailer.broker import publisher
from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.models import Message, PeriodicTask, State, TransportStatus, Worker, clock
from congressy_mailer.outbox import publishing
from congressy_mailer.sparkpost.events import parse_events
from congressy_mailer.testing import deliver_all
from congressy_mailer.testing.local_sparkpost.whole import WholeSparkPost
from congressy_mailer.tracking.recording import track
from testbed.processes import Process
from testbed.redis_server import EmbeddedRedis
from tests.chaos.clocks import clock_environment, find_faketime
from tests.conftest import wait_for
from tests.support.sparkpost_events import START, event

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("english")]

ADMIN = "/admin/congressy_mailer"


def mailer(*arguments: str) -> str:
    """What ``manage.py mailer`` writes and complains about, and its exit status."""
    out, errors = StringIO(), StringIO()
    status = 0
    try:
        call_command("mailer", *arguments, stdout=out, stderr=errors)
    except CommandError as error:
        print(error, file=errors)
        status = error.returncode
    return f"{out.getvalue()}{errors.getvalue()}exit status {status}"


def page(client: Client, address: str) -> str:
    """The words of a page of the admin."""
    answer = client.get(f"{ADMIN}/{address}")
    assert answer.status_code == 200
    words = re.sub(r"<style.*?</style>|<[^>]+>", " ", answer.content.decode(), flags=re.DOTALL)
    return " ".join(unescape(words).split())


def an_hour_later() -> None:
    """Time passes: what has been recorded until now happened an hour before."""
    hour = timedelta(hours=1)
    PeriodicTask.objects.update(last_run_at=F("last_run_at") - hour)
    Worker.objects.update(seen_at=F("seen_at") - hour)
    Message.objects.filter(state=State.QUEUED).update(queued_at=F("queued_at") - hour, due_at=F("due_at") - hour)


def state(message: Any) -> str:
    return str(Message.objects.values_list("state", flat=True).get(pk=message.pk))


def reading(client: Client, message: Any) -> str:
    return page(client, f"message/{message.pk}/change/")


def deliver_at_the_next_try() -> None:
    """The time has come at which what was unavailable is tried again."""
    TransportStatus.objects.update(next_try_at=timezone.now())
    deliver_all()


def sparkpost_backend(settings: Any) -> None:
    settings.EMAIL_BACKEND = "congressy_mailer.sparkpost.backend.EmailBackend"


def test_one_mail_is_poisoned_and_then_the_worker_is_dead(
    start_worker: Callable[..., Process], support: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = send_mail("Boleto", to="eva@example.com", template="poison/crash")
    worker = start_worker(MAILER_TEST_LEASE_SECONDS="3", MAILER_TEST_SWEEP_INTERVAL_SECONDS="0.5")
    wait_for(lambda: state(poison) == State.HELD, 60, "the poison being set aside")
    good = send_mail("x", "y", to="ana@example.com")
    wait_for(lambda: state(good) == State.SENT, what="other mail")
    wait_for(Worker.objects.exists, what="the worker to tell of itself")
    assert "1 message is set aside (held)" in mailer("status")
    assert mailer("health").endswith("exit status 1")
    assert "Its worker died 3 times while holding it" in mailer("show", str(poison.pk))
    assert "Held 1 They wait for a person to decide." in page(support, "dashboard/")
    assert "Its worker died 3 times while holding it: it may be the cause." in reading(support, poison)
    assert "Release" in reading(support, poison)
    mailer("cancel", str(poison.pk))

    worker.kill()
    waiting = send_mail("x", "y", to="leo@example.com")
    an_hour_later()
    monkeypatch.setattr("congressy_mailer.diagnosis.queues._WORKER_TIMEOUT", 0.5)
    for seen in (mailer("status"), mailer("health")):
        assert "No worker has swept since" in seen
    found = mailer("doctor", "worker-takes-tasks", "worker-queues")
    assert "no worker ran it" in found
    assert "Start one with celery -A project worker." in found
    dashboard = page(support, "dashboard/")
    assert "No worker takes the mailer's tasks: start one" in dashboard
    assert "No report for 1 hour" in dashboard
    assert "It waits for a worker." in reading(support, waiting)
    start_worker(MAILER_TEST_SWEEP_INTERVAL_SECONDS="0.5")
    wait_for(lambda: state(waiting) == State.SENT, what="the mail that has waited")
    wait_for(lambda: "No worker has swept since" not in mailer("health"), what="health")


def test_redis_is_full(redis_server: EmbeddedRedis, broker: str, support: Client) -> None:
    with closing(redis.Redis(port=redis_server.port)) as client:
        periodic.mark_run(periodic.SWEEP)
        client.config_set("maxmemory", 1)
        message = send_mail("x", "y", to="ana@example.com")
        assert (state(message), client.llen("mailer")) == (State.QUEUED, 0)
        found = mailer("doctor", "redis-eviction")
        assert "of its maxmemory" in found
        assert "Raise maxmemory" in found
        assert "It is nearly full. When it is, it takes no tasks, and mail waits" in page(support, "dashboard/")
        an_hour_later()
        for seen in (mailer("status"), mailer("health")):
            assert "No worker has swept since" in seen
            assert "1 message waits in the queue" in seen
        client.config_set("maxmemory", "0")
        assert mailer("doctor", "redis-eviction").endswith("exit status 0")
        # As in the worker's own process, which has not found the broker full.
        publisher.forget()
        assert publishing.publish(outbox.sweep(clock.now()))
        assert client.llen("mailer") == 1


@pytest.mark.email_settings
def test_the_key_was_revoked(
    local_sparkpost: WholeSparkPost, published: list[str], support: Client, settings: Any
) -> None:
    sparkpost_backend(settings)
    periodic.mark_run(periodic.SWEEP)
    key, local_sparkpost.account.key = local_sparkpost.account.key, "another-one"
    message = send_mail("x", "y", to="ana@example.com")
    with pytest.raises(TransportUnavailable):
        deliver_all()
    assert state(message) == State.QUEUED
    for seen in (mailer("status"), mailer("health"), page(support, "dashboard/")):
        assert "navailable" in seen
        assert "401" in seen or "Unauthorized" in seen
    found = mailer("doctor", "sparkpost-key")
    assert "SparkPost does not know the API key." in found
    assert "Make a new one in SparkPost's app" in found
    assert "It waits for a worker." in reading(support, message)
    local_sparkpost.account.key = key
    deliver_at_the_next_try()
    assert state(message) == State.SENT
    assert mailer("health").endswith("exit status 0")
    assert "Mail backend default: usable, SparkPost's HTTP API at 127.0.0.1:" in mailer("status")


@pytest.mark.email_settings
def test_the_sending_domain_is_not_verified(
    local_sparkpost: WholeSparkPost, published: list[str], support: Client, settings: Any
) -> None:
    sparkpost_backend(settings)
    periodic.mark_run(periodic.SWEEP)
    local_sparkpost.account.sending_domains = frozenset({"congressy.net"})
    message = send_mail("x", "y", "news@other.example.com", ["ana@example.com"])
    other = send_mail("x", "y", to="ana@example.com")
    deliver_all()
    # Mail of other senders goes on.
    assert (state(message), state(other)) == (State.QUEUED, State.SENT)
    for seen in (mailer("status"), mailer("health"), page(support, "dashboard/")):
        assert "other.example.com" in seen
        assert "Unconfigured Sending Domain" in seen
    found = mailer("doctor", "sparkpost-domain")
    assert "does not know the sending domain other.example.com" in found
    assert "under Sending Domains" in found
    local_sparkpost.account.sending_domains = frozenset({"congressy.net", "other.example.com"})
    deliver_at_the_next_try()
    assert state(message) == State.SENT


def test_the_queue_is_an_hour_old(published: list[str], support: Client) -> None:
    message = send_mail("x", "y", to="ana@example.com")
    an_hour_later()
    periodic.mark_run(periodic.SWEEP)
    for seen in (mailer("status"), mailer("health")):
        assert "1 message waits in the queue 'mailer', since" in seen
        assert "too few workers serve it, or they are too slow" in seen
    assert "1 h 0 min" in mailer("status")
    assert "Waiting 1 the oldest for 1 hour" in page(support, "dashboard/").replace("\xa0", " ")
    assert "It waits for a worker." in reading(support, message)
    deliver_all()
    assert state(message) == State.SENT
    assert mailer("health").endswith("exit status 0")


def test_complaints_are_up(published: list[str], support: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # As many as a test has.
    monkeypatch.setattr("congressy_mailer.diagnosis.bulk_rules._ENOUGH_MAILS", 100)
    send_bulk([f"p{number}@example.com" for number in range(150)], subject="Natal", message="y", campaign="natal")
    now = timezone.now()
    told = []
    for number, message in enumerate(Message.objects.order_by("id")):
        at = int(now.timestamp()) - START
        told.append(event("delivery", message, timestamp=str(START + at)))
        if number < 2:
            told.append(event("spam_complaint", message, timestamp=str(START + at + 1), fbtype="abuse"))
    track(parse_events(told, now))
    metrics.flush()
    found = mailer("doctor", "bulk-complaints")
    assert "1.33 %" in found
    assert found.endswith("exit status 1")
    assert "Over the limit: providers refuse or hide the mail of such senders" in page(support, "dashboard/")
    complained = page(support, "message/?status=complained")
    assert "2 messages" in complained
    assert "Natal" in complained
    # Who has complained gets nothing more, and the campaign is stopped.
    assert suppressions.is_suppressed("p0@example.com", transactional=False)
    pause(campaign="natal", reason="complaints", by="eva")
    assert "Paused: campaign natal" in mailer("status")


def test_the_recipient_is_suppressed(published: list[str], support: Client) -> None:
    suppressions.suppress("ana@example.com", reason="asked by phone")
    message = send_mail("x", "y", to="ana@example.com")
    assert "On the suppression list: ana@example.com: manual: asked by phone" in mailer("show", str(message.pk))
    seen = reading(support, message)
    assert "It was not sent: every recipient is on the suppression list." in seen
    assert "by hand: asked by phone" in seen
    assert "Take off the list and send" in seen
    answer = support.post(f"{ADMIN}/message/{message.pk}/act/", {"action": "unsuppress_and_send"}, follow=True)
    assert answer.status_code == 200
    deliver_all()
    assert state(message) == State.SENT


@pytest.mark.email_settings
def test_production_has_the_wrong_backend(
    published: list[str], support: Client, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
    settings.DEBUG = False
    message = send_mail("x", "y", to="ana@example.com")
    deliver_all()
    # Which is the trouble with it.
    assert state(message) == State.SENT
    assert "Subject: x" in capsys.readouterr().out
    assert "Mail backend default: mail is only printed, and reaches nobody: " in mailer("status")
    assert "is only printed, and reaches nobody" in page(support, "dashboard/")
    found = mailer("doctor", "settings")
    assert "congressy_mailer.E020" in found
    assert "Name a backend that sends" in found
    with pytest.raises(SystemCheckError, match="E020"):
        call_command("check", "--deploy", "--tag", "congressy_mailer", stdout=StringIO(), stderr=StringIO())


@pytest.mark.database
@pytest.mark.skipif(find_faketime() is None, reason="libfaketime is not installed")
def test_clocks_are_apart(start_worker: Callable[..., Process], support: Client) -> None:
    library = find_faketime()
    assert library is not None
    ahead = timedelta(minutes=20)
    worker = start_worker(MAILER_TEST_SWEEP_INTERVAL_SECONDS="0.5", **clock_environment(library, ahead))
    message = send_mail("x", "y", to="ana@example.com")
    # It goes by the database's clock, and sends all the same.
    wait_for(lambda: state(message) == State.SENT, what="the mail")
    wait_for(Worker.objects.exists, what="the worker to tell of itself")
    if connection.vendor == "sqlite":
        # Its clock is that of each process: what a worker writes down lies ahead.
        assert Worker.objects.get().seen_at > timezone.now() + ahead / 2
        return
    assert "The clock of the worker" in mailer("doctor", "clocks")
    worker.wait_until(lambda: "ahead of that of the database" in worker.output(), 30)
    assert "Alive" in page(support, "dashboard/")

"""The dashboard in the admin: what it shows, to whom, and with how many queries."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import closing
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
import redis
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation

from congressy_mailer import metrics, periodic, send_bulk, send_mail
from congressy_mailer.metrics import counters
from congressy_mailer.models import CountSample, Message, TransportStatus, Worker
from congressy_mailer.monitoring import brokers, charts, figures
from congressy_mailer.transports.destinations import destinations
from testbed.redis_server import EmbeddedRedis
from tests.conftest import wait_for

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("english", "published")]

PAGE = "/admin/congressy_mailer/dashboard/"


def shown(client: Client, **query: str) -> str:
    response = client.get(PAGE, query)
    assert response.status_code == 200
    return str(response.content.decode())


def text(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def counted(ago: timedelta = timedelta(minutes=1), **counts: int) -> None:
    minute = (timezone.now() - ago).replace(second=0, microsecond=0)
    CountSample.objects.create(minute=minute, counts=[["", "mailer", 5, name, n] for name, n in counts.items()])


def worker(name: str = "celery@a", queues: tuple[str, ...] = ("mailer", "mailer.bulk")) -> Worker:
    told = {"name": name, "queues": queues, "pool": "prefork", "concurrency": 4, "version": "1.0"}
    metrics.record_worker({**told, "started_at": 0, "published_at": 1})
    return Worker.objects.get(name=name)


class Structure(HTMLParser):
    """The elements of a page, each with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_it_needs_a_permission_of_its_own(client: Client) -> None:
    user = User.objects.create_user("support", is_staff=True)
    client.force_login(user)
    user.user_permissions.add(Permission.objects.get(codename="view_message"))
    assert client.get(PAGE).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="view_dashboard"))
    assert client.get(PAGE).status_code == 200
    assert client.get(f"{PAGE}add/").status_code == 403
    assert "dashboard/" in client.get("/admin/").content.decode()


@pytest.mark.database
def test_outcomes_are_shown_as_a_chart_and_as_a_table(support: Client) -> None:
    counted(accepted=1200, failed=3, **{"deferred:mailbox": 7})
    page = shown(support)
    assert "accepted 1200" in page.replace(",", "")
    assert "Mailbox full or not available 7" in text(page)
    structure = Structure(page)
    drawn = [svg for svg in structure.all("svg") if svg.get("role") == "img"]
    assert len(drawn) == 2
    assert all(svg["aria-label"] for svg in drawn)
    assert page.count("As a table") == 2
    assert not [script for script in structure.all("script") if not script.get("src")]
    assert "http" not in "".join(str(link.get("href")) for link in structure.all("link"))


@pytest.mark.parametrize("span", ["hour", "day", "week", "century"])
def test_each_length_of_time_is_shown(support: Client, span: str) -> None:
    counted(accepted=12)
    assert "accepted 12" in shown(support, span=span)


def test_rates_are_held_against_the_limits_of_providers(support: Client) -> None:
    assert "No events have come" in text(shown(support))
    counted(delivered=990, bounced=10, complained=1)
    page = text(shown(support))
    assert "0.10 %" in page
    assert "Too high: find out which campaign it is" in page
    counted(complained=9)
    assert "Over the limit" in text(shown(support))


@pytest.mark.database
def test_what_waits_is_shown_by_queue_and_campaign(support: Client) -> None:
    send_mail("x", "y", to="ana@example.com", campaign="boletos")
    send_bulk(["ana@example.com", "eva@example.com"], subject="x", message="y", campaign="programa")
    Message.objects.filter(batch=None).update(queued_at=timezone.now() - timedelta(minutes=20))
    page = text(shown(support))
    assert re.search(r"mailer boletos 1 20 minutes", page.replace("\xa0", " "))
    assert re.search(r"mailer\.bulk programa 2", page)


def test_backends_that_cannot_be_used_are_shown_with_the_reason(support: Client) -> None:
    now = timezone.now()
    TransportStatus.objects.create(unavailable_since=now, next_try_at=now, reason="Connection refused")
    page = text(shown(support))
    assert "Unavailable for 0 seconds" in page
    assert "Connection refused" in page


@pytest.mark.email_settings
def test_where_mail_goes_is_told_in_the_readers_language(support: Client, settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
    assert "is only printed, and reaches nobody" in text(shown(support))
    with translation.override("pt-br"):
        found = destinations()["default"]
        assert found.shown == f"só é impresso, e não chega a ninguém: {settings.EMAIL_BACKEND}"
        # Logs are read by everybody.
        assert found.text == f"is only printed, and reaches nobody: {settings.EMAIL_BACKEND}"


def test_expired_mail_is_in_the_chart(support: Client) -> None:
    counted(expired=3)
    assert "expired 3" in shown(support)


def test_workers_are_shown_with_what_they_serve(support: Client) -> None:
    assert "No worker has reported within a day." in text(shown(support))
    worker(queues=("mailer",))
    page = text(shown(support))
    assert "prefork × 4" in page
    assert "No worker that is alive serves mailer.bulk." in page
    silent = worker("celery@b", queues=("mailer.bulk",))
    Worker.objects.filter(pk=silent.pk).update(seen_at=timezone.now() - timedelta(minutes=5))
    page = text(shown(support)).replace("\xa0", " ")
    assert "No report for 5 minutes" in page
    assert "No worker that is alive serves mailer.bulk." in page


def test_that_no_worker_sweeps_is_shown(support: Client) -> None:
    assert "Last sweep never" in text(shown(support))
    periodic.mark_run(periodic.SWEEP)
    assert "Last sweep 0 seconds ago" in text(shown(support))


@pytest.mark.database
def test_the_number_of_queries_does_not_grow_with_what_there_is(support: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            shown(support)
        return len(captured)

    for number in range(10):
        send_bulk([f"ana{number}@example.com"], subject="x", message="y", campaign=f"c{number}")
    send_mail("x", "y", to="ana@example.com")
    worker()
    queries()
    before = queries()
    for number in range(30):
        send_bulk([f"ana{number}@example.com", "eva@example.com"], subject="x", message="y", campaign=f"d{number}")
        send_mail("x", "y", to="ana@example.com", campaign=f"e{number}")
        counted(timedelta(minutes=number), accepted=number)
        worker(f"celery@{number}")
    assert queries() == before
    assert before < 60


@pytest.mark.broker
def test_the_broker_is_shown(support: Client, broker: str) -> None:
    page = text(shown(support))
    assert re.search(r"Broker: (Redis|Valkey|RabbitMQ) \d", page)


def test_a_broker_that_does_not_answer_is_shown_as_that(support: Client) -> None:
    assert "It does not answer. Mail is stored, and sent when it is back." in text(shown(support))


def facts(**info: Any) -> dict[str, brokers.Fact]:
    return {fact.label: fact for fact in brokers.redis_facts(info)}


def test_redis_is_warned_of_where_it_drops_keys_or_is_full() -> None:
    bad = facts(used_memory=900, maxmemory=1000, maxmemory_policy="allkeys-lru", evicted_keys=3, rejected_connections=1)
    assert "noeviction" in bad["Eviction policy"].warning
    assert "nearly full" in bad["Memory"].warning
    assert bad["Keys evicted since its start"].value == "3"
    assert "1 connection was refused" in bad["Clients"].warning
    good = facts(used_memory=100, maxmemory=1000, maxmemory_policy="noeviction", aof_enabled=1)
    assert not any(fact.warning for fact in good.values())


def test_redis_is_warned_of_where_it_cannot_keep_what_it_has() -> None:
    assert "could not write" in facts(aof_enabled=1, aof_last_write_status="err")["Persistence"].warning
    assert "could not write" in facts(rdb_last_bgsave_status="err")["Persistence"].warning
    assert "appendonly yes" in facts(rdb_last_save_time=1)["Persistence"].warning
    # By the reader's clock.
    assert facts(rdb_last_save_time=1_780_000_000)["Persistence"].value == (
        "snapshots, the last one at 05/28/2026 5:26 p.m."
    )
    assert "replica takes no tasks" in facts(role="slave", aof_enabled=1)["Role"].warning


def test_a_redis_that_has_written_no_snapshot_is_not_said_to_have_one(redis_server: EmbeddedRedis) -> None:
    with closing(redis.Redis(port=redis_server.port)) as client:
        assert facts(**client.info())["Persistence"].value == "no snapshot since its start"
        client.bgsave()
        wait_for(lambda: client.info("persistence")["rdb_bgsave_in_progress"] == 0, what="the snapshot")
        assert facts(**client.info())["Persistence"].value.startswith("snapshots, the last one at ")


def test_the_slow_log_is_shown_without_what_it_was_about() -> None:
    entry = {"start_time": 1764340800, "duration": 25_000, "command": b"LRANGE somebodys-key 0 -1"}
    slow = brokers.slow_command(entry)
    assert (slow.command, slow.took) == ("LRANGE", timedelta(milliseconds=25))


def test_percentiles_are_interpolated_within_their_bucket() -> None:
    assert figures.percentile({}, 0.5) is None
    # A hundred within 0.5 to 1 s.
    assert figures.percentile({f"{counters.BUCKET}3": 100}, 0.5) == pytest.approx(0.75)
    counts = Counter({f"{counters.BUCKET}0": 90, f"{counters.BUCKET}5": 10})
    assert figures.percentile(counts, 0.5) == pytest.approx(0.1 * 50 / 90)
    assert figures.percentile(counts, 0.95) == pytest.approx(3.75)
    assert figures.percentile({f"{counters.BUCKET}{len(counters.BUCKETS)}": 1}, 0.5) == counters.BUCKETS[-1]


def test_the_scale_of_a_chart_ends_at_a_round_number() -> None:
    def top(*values: float) -> float:
        return charts.top_of([charts.Series("x", "x", values)], stacked=True)

    assert [top(0), top(1), top(3), top(17), top(210), top(501)] == [1, 1, 5, 20, 250, 1000]


def test_a_chart_escapes_what_it_is_told() -> None:
    svg = charts.stacked_bars([charts.Series("<b>", "accepted", [1.0])], '"><script>')
    assert "<script>" not in svg


def test_a_line_is_broken_where_nothing_was_accepted() -> None:
    svg = charts.lines([charts.Series("p50", "p50", [1.0, None, 2.0])], "times")
    assert svg.count("M") == 5 + 2

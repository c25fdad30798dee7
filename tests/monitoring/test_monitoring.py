"""What monitoring asks for: Prometheus' page and collector, health checks, and the files for Grafana and alerts."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation

from congressy_mailer import metrics, periodic, send_bulk, send_mail
from congressy_mailer.metrics import counters
from congressy_mailer.models import CountSample, TransportStatus
from congressy_mailer.monitoring import prometheus, views
from congressy_mailer.monitoring.measures import measures
from congressy_mailer.testing import deliver_all

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("published")]

DOCS = Path(__file__).parents[2] / "docs"
FILES = [DOCS / "monitoring" / "grafana.json", DOCS / "monitoring" / "alerts.yml", DOCS / "how-to" / "monitoring.md"]
TOKEN = "0123456789abcdef"

# NAME{label="value",…} NUMBER
_LINE = re.compile(r'(?P<name>[a-z_]+)(?:\{(?P<labels>[a-z_]+="[^"]*"(?:,[a-z_]+="[^"]*")*)\})? (?P<value>-?[\d.e+-]+)')


@pytest.fixture(autouse=True)
def configured(settings: Any) -> Iterator[None]:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "METRICS_TOKEN": TOKEN}
    views.forget_answer()
    with translation.override("en"):
        yield


def read(client: Client) -> dict[str, dict[str, float]]:
    """The values of the page, by name and labels."""
    response = client.get("/mailer/metrics/", headers={"authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain; version=0.0.4")
    found: dict[str, dict[str, float]] = {}
    for line in response.content.decode().splitlines():
        if not line.startswith("#"):
            match = _LINE.fullmatch(line)
            assert match is not None, line
            found.setdefault(match["name"], {})[match["labels"] or ""] = float(match["value"])
    return found


def exported() -> set[str]:
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return {measure.name + suffix for measure in measures() for suffix in suffixes[measure.kind]}


@pytest.mark.database
def test_prometheus_reads_what_the_workers_have_counted(client: Client) -> None:
    send_mail("x", "y", to="ana@example.com")
    deliver_all()
    metrics.flush()
    found = read(client)
    labels = 'backend="default",queue="mailer",priority="5"'
    assert found["congressy_mailer_messages_total"][f'outcome="accepted",{labels}'] == 1
    assert found["congressy_mailer_messages_total"][f'outcome="failed",{labels}'] == 0
    assert found["congressy_mailer_acceptance_seconds_bucket"][f'le="+Inf",{labels}'] == 1
    assert found["congressy_mailer_acceptance_seconds_count"][labels] == 1
    assert found["congressy_mailer_last_sweep_seconds"][""] == -1


def test_buckets_contain_those_below_them(client: Client) -> None:
    entries = [["", "mailer", 5, f"{counters.BUCKET}{index}", 1] for index in range(len(counters.BUCKETS) + 1)]
    CountSample.objects.create(minute=timezone.now(), counts=entries)
    values = list(read(client)["congressy_mailer_acceptance_seconds_bucket"].values())
    assert values == [*map(float, range(1, len(counters.BUCKETS) + 2))]


def test_what_is_wrong_has_a_measure(client: Client) -> None:
    now = timezone.now()
    TransportStatus.objects.create(sender_domain='a"b.example', unavailable_since=now, next_try_at=now)
    send_mail("x", "y", to="ana@example.com")
    periodic.mark_run(periodic.SWEEP)
    text = prometheus.exposition()
    assert r'congressy_mailer_backend_unavailable{backend="default",sender_domain="a\"b.example"} 1' in text
    assert 'congressy_mailer_waiting_messages{queue="mailer"} 1' in text
    assert 'congressy_mailer_workers{queue="mailer.bulk"} 0' in text


@pytest.mark.database
def test_the_number_of_queries_does_not_grow(client: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            prometheus.exposition()
        return len(captured)

    for number in range(10):
        send_bulk([f"ana{number}@example.com"], subject="x", message="y")
    before = queries()
    for number in range(20):
        send_bulk([f"ana{number}@example.com"], subject="x", message="y")
        send_mail("x", "y", to="ana@example.com")
    assert queries() == before < 45


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", "Bearer é"])
def test_nobody_reads_it_without_the_token(client: Client, authorization: str) -> None:
    response = client.get("/mailer/metrics/", headers={"authorization": authorization})
    assert (response.status_code, response.content) == (401, b"")


def test_everybody_is_refused_where_no_token_is_set(client: Client, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {}
    assert client.get("/mailer/metrics/", headers={"authorization": "Bearer None"}).status_code == 403


def test_it_is_not_there_while_the_database_is_away(client: Client) -> None:
    with patch.object(prometheus, "measures", side_effect=OperationalError("away")):
        response = client.get("/mailer/metrics/", headers={"authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 503


def test_a_load_balancer_is_told_whether_mail_is_moving_and_no_more(client: Client) -> None:
    response = client.get("/mailer/health/")
    assert (response.status_code, response.content) == (503, b"Mail is not moving.\n")
    assert "no-store" in response["Cache-Control"]
    views.forget_answer()
    periodic.mark_run(periodic.SWEEP)
    assert client.get("/mailer/health/").status_code == 200
    with patch.object(views, "check_health", side_effect=OperationalError("away")):
        # Asked often, it looks no more often.
        assert client.get("/mailer/health/").status_code == 200
        views.forget_answer()
        assert client.get("/mailer/health/").status_code == 503


def test_grafana_alerts_and_documentation_name_measures_that_there_are() -> None:
    known = exported()
    for path in FILES:
        used = set(re.findall(r"\bcongressy_mailer_[a-z_]+", path.read_text()))
        assert used
        # The documentation names a histogram as a whole.
        assert used <= known | {"congressy_mailer_acceptance_seconds"}, path


def test_the_documentation_names_every_measure_with_its_labels(client: Client) -> None:
    page = (DOCS / "how-to" / "monitoring.md").read_text()
    CountSample.objects.create(minute=timezone.now(), counts=[["", "mailer", 5, "deferred:other", 1]])
    now = timezone.now()
    TransportStatus.objects.create(unavailable_since=now, next_try_at=now)
    for measure in measures():
        name = measure.name + ("_total" if measure.kind == "counter" else "")
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        labels = {label for value in measure.values for label in value.labels} - {"le"}
        assert labels == set(re.findall(r"`([a-z_]+)`", row.split("|")[3])), name
    assert all(f"`{reason}`" in page for reason in counters.REASONS)


def test_the_dashboard_for_grafana_can_be_imported() -> None:
    board = json.loads(FILES[0].read_text())
    assert board["title"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    assert all(target["expr"] for panel in board["panels"] for target in panel["targets"])


@pytest.mark.database
def test_the_collector_tells_prometheus_client_the_same(client: Client) -> None:
    client_library = pytest.importorskip("prometheus_client")
    send_mail("x", "y", to="ana@example.com")
    deliver_all()
    metrics.flush()
    registry = client_library.CollectorRegistry()
    with CaptureQueriesContext(connection) as queries:
        registry.register(prometheus.MailerCollector())
    assert not queries.captured_queries
    text = client_library.generate_latest(registry).decode()

    def values(of: str) -> set[tuple[str, frozenset[str], float]]:
        matches = (_LINE.fullmatch(line) for line in of.splitlines() if not line.startswith("#"))
        return {
            (match["name"], frozenset((match["labels"] or "").split(",")), float(match["value"]))
            for match in matches
            if match is not None and not match["name"].endswith(("_seconds", "_sum"))
        }

    assert values(text) == values(prometheus.exposition()) != set()


@pytest.mark.django_db(transaction=True)
def test_django_health_check_says_what_is_wrong() -> None:
    exceptions = pytest.importorskip("health_check.exceptions")
    from congressy_mailer.monitoring.health_check import MailHealthCheck

    with pytest.raises(exceptions.ServiceUnavailable, match="No worker has ever swept"):
        asyncio.run(MailHealthCheck().run())
    periodic.mark_run(periodic.SWEEP)
    asyncio.run(MailHealthCheck().run())

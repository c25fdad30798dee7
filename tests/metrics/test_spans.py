"""Spans for OpenTelemetry, recorded by its own SDK: what joins a request with the deliveries that it has caused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.mail import EmailMessage
from django.db import DatabaseError
from opentelemetry import context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from congressy_mailer import send_bulk, send_mail
from congressy_mailer.backends import EmailBackend
from congressy_mailer.mail import resend_to, retry
from congressy_mailer.models import Message
from congressy_mailer.testing import deliver_all, fail_next

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("published")]

_exporter = InMemorySpanExporter()
_tracer = trace.get_tracer("tests")


@pytest.fixture(scope="module", autouse=True)
def _sdk() -> None:
    # A process has one for life.
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_exporter))
    trace.set_tracer_provider(provider)


@pytest.fixture(autouse=True)
def _empty(_sdk: None) -> None:
    _exporter.clear()


@pytest.fixture
def request_span() -> Iterator[trace.Span]:
    """The caller's own, as an instrumentation of Django makes it."""
    with _tracer.start_as_current_span("POST /orders/") as span:
        yield span


def spans(name: str) -> list[ReadableSpan]:
    return [span for span in _exporter.get_finished_spans() if span.name == name]


def the_span(name: str) -> ReadableSpan:
    (span,) = spans(name)
    return span


def deliver_outside_the_request(**options: Any) -> None:
    """As a worker would, which knows of no request."""
    token = context.attach(context.Context())
    try:
        deliver_all(**options)
    finally:
        context.detach(token)


def of_row(message: Any) -> str:
    return str(Message.objects.values_list("traceparent", flat=True).get(pk=message.pk))


def test_an_attempt_is_in_the_trace_of_the_request_that_stored_its_mail(request_span: trace.Span) -> None:
    message = send_mail("x", "y", to="ana@example.com")
    stored = the_span("send mailer")
    assert stored.kind == trace.SpanKind.PRODUCER
    assert stored.parent is not None
    assert stored.parent.span_id == request_span.get_span_context().span_id
    assert stored.attributes is not None
    assert stored.attributes["messaging.message.id"] == str(message.pk)
    ids = f"{stored.context.trace_id:032x}-{stored.context.span_id:016x}"
    assert of_row(message) == f"00-{ids}-{stored.context.trace_flags:02x}"
    deliver_outside_the_request()
    attempt = the_span("deliver mailer")
    assert attempt.kind == trace.SpanKind.CONSUMER
    assert attempt.context.trace_id == request_span.get_span_context().trace_id
    assert attempt.parent is not None
    assert attempt.parent.span_id == stored.context.span_id
    assert [link.context.span_id for link in attempt.links] == [stored.context.span_id]
    assert dict(attempt.attributes or {}) == {
        "messaging.system": "congressy_mailer",
        "messaging.operation.type": "process",
        "messaging.operation.name": "deliver",
        "messaging.destination.name": "mailer",
        "messaging.message.id": str(message.pk),
        "congressy_mailer.backend": "default",
        "congressy_mailer.attempt": 1,
        "congressy_mailer.outcome": "accepted",
        "congressy_mailer.reply.code": 250,
    }
    assert attempt.status.status_code == trace.StatusCode.UNSET
    assert attempt.start_time is not None
    assert attempt.end_time is not None
    assert attempt.start_time <= attempt.end_time


@pytest.mark.usefixtures("request_span")
def test_each_attempt_has_a_span_with_the_servers_code_and_no_address() -> None:
    send_mail("x", "y", to="ana@example.com")
    fail_next("452 4.2.2 <ana@example.com>: mailbox full")
    deliver_outside_the_request()
    fail_next("550 5.1.1 no ana@example.com here")
    deliver_outside_the_request(within=timedelta(hours=1))
    first, second = spans("deliver mailer")
    for span, expected in ((first, (1, "deferred", 452, "452")), (second, (2, "failed", 550, "550"))):
        attributes = dict(span.attributes or {})
        names = ("congressy_mailer.attempt", "congressy_mailer.outcome", "congressy_mailer.reply.code", "error.type")
        assert tuple(attributes[name] for name in names) == expected
    for span in (first, second):
        assert span.status.status_code == trace.StatusCode.ERROR
        assert "ana@" not in span.to_json()
    assert "mailbox full" in str(first.status.description)


@pytest.mark.usefixtures("request_span")
def test_addresses_are_in_it_where_a_setting_allows_it(settings: Any) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "LOG_ADDRESSES": True}
    send_mail("x", "y", to="ana@example.com")
    deliver_outside_the_request()
    attributes = the_span("deliver mailer").attributes
    assert attributes is not None
    assert attributes["congressy_mailer.recipients"] == ("ana@example.com",)


@pytest.mark.usefixtures("request_span")
def test_what_is_said_of_a_sensitive_mail_is_not_in_it() -> None:
    send_mail("x", "y", to="ana@example.com", sensitive=True)
    fail_next("550 5.7.1 code 991122 looks like spam")
    deliver_outside_the_request()
    assert "991122" not in the_span("deliver mailer").to_json()


@pytest.mark.usefixtures("request_span")
@pytest.mark.database
def test_the_mails_of_a_batch_have_traces_of_their_own_that_link_to_one_span() -> None:
    batch = send_bulk([f"p{number}@example.com" for number in range(3)], subject="x", message="y")
    stored = the_span("send mailer.bulk")
    assert (stored.attributes or {})["congressy_mailer.batch.id"] == str(batch.pk)
    assert set(Message.objects.values_list("traceparent", flat=True)) == {""}
    deliver_outside_the_request()
    attempts = spans("deliver mailer.bulk")
    assert len({span.context.trace_id for span in attempts}) == 3
    for span in attempts:
        assert span.parent is None
        assert [link.context.span_id for link in span.links] == [stored.context.span_id]
        assert (span.attributes or {})["congressy_mailer.batch.id"] == str(batch.pk)


def test_the_span_of_the_task_that_delivers_is_linked_too() -> None:
    with _tracer.start_as_current_span("request"):
        send_mail("x", "y", to="ana@example.com")
    with _tracer.start_as_current_span("task") as task:
        deliver_all()
    assert task.get_span_context().span_id in [link.context.span_id for link in the_span("deliver mailer").links]


@pytest.mark.usefixtures("request_span")
def test_mail_of_other_apps_is_joined_as_well() -> None:
    mails = [EmailMessage("x", "y", to=[f"p{number}@example.com"]) for number in range(2)]
    assert EmailBackend().send_messages(mails) == 2
    stored = the_span("send mailer")
    assert (stored.attributes or {})["messaging.batch.message_count"] == 2
    deliver_outside_the_request()
    assert {span.parent.span_id for span in spans("deliver mailer") if span.parent} == {stored.context.span_id}


@pytest.mark.usefixtures("request_span")
def test_a_mail_to_a_corrected_address_belongs_to_the_request_that_corrects_it() -> None:
    first = send_mail("x", "y", to="ana@exmaple.com")
    second = resend_to(first, "ana@example.com")
    assert of_row(first) != of_row(second) != ""


@pytest.mark.usefixtures("request_span")
def test_what_is_tried_again_stays_with_its_first_request() -> None:
    message = send_mail("x", "y", to="ana@example.com")
    before = of_row(message)
    fail_next("550 5.1.1 no such user")
    deliver_outside_the_request()
    retry(message)
    deliver_outside_the_request()
    assert of_row(message) == before
    assert len(spans("deliver mailer")) == 2


def test_a_call_outside_of_a_span_is_not_traced() -> None:
    message = send_mail("x", "y", to="ana@example.com")
    batch = send_bulk(["bia@example.com"], subject="x", message="y")
    deliver_outside_the_request()
    assert (of_row(message), batch.traceparent) == ("", "")
    assert _exporter.get_finished_spans() == ()


def test_a_call_whose_span_is_not_recorded_is_not_traced() -> None:
    unsampled = trace.SpanContext(1, 1, is_remote=False)
    with trace.use_span(trace.NonRecordingSpan(unsampled)):
        message = send_mail("x", "y", to="ana@example.com")
    assert of_row(message) == ""


@pytest.mark.usefixtures("request_span")
def test_a_call_that_fails_is_marked_without_the_errors_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*arguments: Any) -> None:
        raise DatabaseError("Key (ana@example.com) already exists")

    monkeypatch.setattr("congressy_mailer.outbox.add", refuses)
    with pytest.raises(DatabaseError):
        send_mail("x", "y", to="ana@example.com")
    stored = the_span("send mailer")
    assert stored.status.status_code == trace.StatusCode.ERROR
    assert (stored.attributes or {})["error.type"] == "DatabaseError"
    assert "ana@" not in stored.to_json()


@pytest.mark.usefixtures("request_span")
def test_a_tracer_that_raises_stops_no_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*arguments: Any, **options: Any) -> None:
        raise RuntimeError

    send_mail("x", "y", to="ana@example.com")
    monkeypatch.setattr(trace, "get_tracer", raises)
    send_mail("x", "y", to="bia@example.com")
    deliver_outside_the_request()
    assert set(Message.objects.values_list("state", flat=True)) == {"sent"}


@pytest.mark.usefixtures("request_span")
@pytest.mark.parametrize("traceparent", ["00-0-0-00", "ff", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_context_that_is_none_stops_no_mail(traceparent: str) -> None:
    message = send_mail("x", "y", to="ana@example.com")
    Message.objects.update(traceparent=traceparent)
    deliver_outside_the_request()
    message.refresh_from_db()
    assert message.state == "sent"


def test_nothing_of_it_is_imported_and_nothing_of_it_is_needed() -> None:
    code = (
        "import sys, django; django.setup()\n"
        "import congressy_mailer.mail, congressy_mailer.bulk, congressy_mailer.backends\n"
        "from congressy_mailer.metrics import spans\n"
        "from congressy_mailer.models import Message\n"
        "with spans.StoringSpan() as span: assert span.traceparent == ''\n"
        "assert not spans.is_traced(Message(traceparent='00-' + '1' * 32 + '-' + '1' * 16 + '-01'))\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'opentelemetry']\n"
        # As where it is not installed; redis-py, for one, imports it where it is.
        "sys.modules['opentelemetry'] = None\n"
        "import congressy_mailer.delivery.runs\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

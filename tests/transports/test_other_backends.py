"""Backends of django-anymail and django-ses over a scripted HTTP server: outages, refusals, doubts, and ids."""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID

import django
import django_ses
import pytest
from botocore.config import Config
from botocore.loaders import create_loader
from django.core.mail.backends.base import BaseEmailBackend
from django.utils import timezone

from congressy_mailer.models import Message, State, TransportStatus
from congressy_mailer.testing.local_sparkpost.certificate import Certificate
from tests.support.mails import attempt, queue, states, stored
from tests.support.scripted_https import Answer, Request, Script, ScriptedHttps

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.email_settings]

ANA, EVA, RUI = "ana@example.com", "eva@example.com", "rui@example.com"
SECRET = "key-that-must-not-show"
AWS = {"aws_access_key_id": "AKIA", "aws_secret_access_key": SECRET, "region_name": "eu-west-1"}
#: One attempt: the SDK's own would only take time.
ONCE = Config(retries={"total_max_attempts": 1}, read_timeout=1)


def accepted(request: Request) -> Answer:
    """What each provider says to a mail that it takes."""
    if "/transmissions" in request.path:
        count = len(request.json["recipients"])
        return Answer(
            body={"results": {"id": "id-1", "total_accepted_recipients": count, "total_rejected_recipients": 0}}
        )
    if request.path.endswith("/messages"):
        return Answer(body={"id": "id-1", "message": "Queued. Thank you."})
    if request.path.endswith("/outbound-emails"):
        return Answer(body={"MessageId": "id-1"}, headers={"x-amzn-requestid": "r-1"})
    namespace = "http://ses.amazonaws.com/doc/2010-12-01/"
    return Answer(
        body=f'<SendRawEmailResponse xmlns="{namespace}"><SendRawEmailResult><MessageId>id-1</MessageId>'
        "</SendRawEmailResult><ResponseMetadata><RequestId>r-1</RequestId></ResponseMetadata>"
        "</SendRawEmailResponse>".encode(),
        headers={"Content-Type": "text/xml"},
    )


def backends(url: str) -> dict[str, Any]:
    return {
        "anymail-sparkpost": {
            "BACKEND": "anymail.backends.sparkpost.EmailBackend",
            "OPTIONS": {"api_key": SECRET, "api_url": f"{url}/api/v1", "timeout": 1},
        },
        "anymail-mailgun": {
            "BACKEND": "anymail.backends.mailgun.EmailBackend",
            "OPTIONS": {"api_key": SECRET, "api_url": f"{url}/v3", "timeout": 1},
        },
        "anymail-ses": {
            "BACKEND": "anymail.backends.amazon_ses.EmailBackend",
            "OPTIONS": {"client_params": {**AWS, "endpoint_url": url, "config": ONCE}},
        },
        "django-ses": {
            "BACKEND": "django_ses.SESBackend",
            "OPTIONS": {
                "aws_access_key": AWS["aws_access_key_id"], "aws_secret_key": SECRET, "aws_region_name": "eu-west-1",
                "aws_region_endpoint": url, "aws_config": ONCE, "use_ses_v2": True,
            },
        },
    }  # fmt: skip


ALIASES = tuple(backends(""))


@pytest.fixture(scope="module", autouse=True)
def _aws_is_described_once() -> Iterator[None]:
    """Each session of the SDK reads megabytes of JSON about Amazon's services; here they share what was read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.create_loader", functools.cache(create_loader))
        yield


@pytest.fixture
def api(
    certificate: Certificate, settings: Any, monkeypatch: pytest.MonkeyPatch, published: list[str]
) -> Iterator[ScriptedHttps]:
    """The provider. Only workers are under test: nothing is published."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.authority))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate.authority))
    # Else django-ses would ask for it.
    monkeypatch.setitem(django_ses.cached_rate_limits, AWS["aws_access_key_id"], 1000.0)
    with ScriptedHttps(certificate) as server:
        server.script = accepted
        use(settings, server.host)
        yield server


def use(settings: Any, host: str) -> None:
    configured = backends(f"https://{host}")
    of_ses = configured["django-ses"]
    configured["ses-v1"] = {**of_ses, "OPTIONS": {**of_ses["OPTIONS"], "use_ses_v2": False}}
    settings.ANYMAIL = {}
    settings.CONGRESSY_MAILER = {"TRANSPORTS": configured, "UNAVAILABLE_BACKOFF": timedelta(seconds=1)}


@pytest.fixture
def forward(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Put the time forward that the mailer sees."""
    ahead = timedelta(0)
    now = timezone.now

    def move(span: timedelta) -> None:
        nonlocal ahead
        ahead += span

    monkeypatch.setattr(timezone, "now", lambda: now() + ahead)
    return move


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def answers(status: int, **headers: str) -> Script:
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: Answer(status, {"message": "not now"}, said)


OUTAGES: dict[str, Script] = {
    "503": answers(503),
    "500": answers(500),
    "502 with a page": lambda request: Answer(502, b"<html>Bad Gateway</html>", {"Content-Type": "text/html"}),
    "429": answers(429, Retry_After="5"),
    "401": answers(401),
    "403": answers(403),
}


@pytest.mark.parametrize("using", ALIASES)
@pytest.mark.parametrize("outage", OUTAGES)
def test_mail_waits_for_the_end_of_an_outage(
    api: ScriptedHttps, forward: Callable[[timedelta], None], using: str, outage: str
) -> None:
    api.script = OUTAGES[outage]
    ids = queue(3, using=using)
    reasons = []
    for _ in range(6):
        reasons.append(attempt(ids))
        assert states(ids) == [State.QUEUED] * 3
        forward(timedelta(minutes=15))
    assert all(outage[:3] in reason for reason in reasons), reasons
    assert len(api.requests) == 6
    assert all((message.attempts, message.crashes) == (0, 0) for message in stored(ids))
    api.script = accepted
    api.requests.clear()
    assert attempt(ids) == ""
    assert states(ids) == [State.SENT] * 3
    assert len(api.requests) == 3
    assert SECRET not in "".join(reasons)


@pytest.mark.parametrize("using", ALIASES)
def test_mail_waits_while_nobody_listens(
    api: ScriptedHttps, settings: Any, forward: Callable[[timedelta], None], using: str
) -> None:
    ids = queue(3, using=using)
    use(settings, closed_port())
    for _ in range(6):
        reason = attempt(ids)
        assert "cannot be reached" in reason
        assert SECRET not in reason
        assert states(ids) == [State.QUEUED] * 3
        forward(timedelta(minutes=15))
    use(settings, api.host)
    assert attempt(ids) == ""
    assert states(ids) == [State.SENT] * 3
    assert len(api.requests) == 3


@pytest.mark.parametrize("using", ALIASES)
def test_one_mail_at_a_time_is_in_doubt_where_no_answer_comes(
    api: ScriptedHttps, forward: Callable[[timedelta], None], using: str
) -> None:
    api.script = lambda request: None
    ids = queue(3, using=using)
    assert attempt(ids) != ""
    assert sorted(states(ids)) == [State.DEFERRED, State.QUEUED, State.QUEUED]
    (doubtful,) = (message for message in stored(ids) if message.state == State.DEFERRED)
    assert (doubtful.crashes, "in doubt" in doubtful.reason) == (1, True)
    assert doubtful.due_at is not None
    # At a pace of its own: an outage of minutes must not use up its attempts.
    assert doubtful.due_at >= timezone.now() + timedelta(minutes=4)
    api.script = accepted
    forward(timedelta(minutes=15))
    # What is in doubt goes alone.
    assert [attempt([key]) for key in ids] == ["", "", ""]
    assert states(ids) == [State.SENT] * 3


def test_what_was_asked_in_retry_after_is_granted(api: ScriptedHttps) -> None:
    api.script = answers(429, Retry_After="77")
    before = timezone.now()
    attempt(queue(using="anymail-mailgun"))
    status = TransportStatus.objects.get()
    assert before + timedelta(seconds=76) <= status.next_try_at <= timezone.now() + timedelta(seconds=78)


@pytest.mark.parametrize("using", ALIASES)
def test_a_mail_that_is_refused_is_that_mails_alone(api: ScriptedHttps, using: str) -> None:
    refused = Answer(400, {"message": "no"}, {"x-amzn-errortype": "MessageRejected"})
    api.script = lambda request: refused if len(api.requests) == 1 else accepted(request)
    ids = queue(2, using=using)
    attempt(ids)
    assert states(ids) == [State.FAILED, State.SENT]
    assert "400" in stored(ids)[0].reason


@pytest.mark.parametrize("using", ALIASES)
def test_the_providers_id_is_kept(api: ScriptedHttps, using: str) -> None:
    (key,) = queue(using=using)
    attempt([key])
    assert stored([key])[0].reply.startswith("250 accepted by the mail backend: ")
    assert "id-1" in stored([key])[0].reply


def ses_error(code: str) -> bytes:
    """An error of Amazon SES' first API."""
    return f"<ErrorResponse><Error><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>".encode()


@pytest.mark.parametrize(
    ("status", "body", "state"),
    [
        (400, ses_error("Throttling"), State.QUEUED),
        (403, ses_error("InvalidClientTokenId"), State.QUEUED),
        (503, ses_error("ServiceUnavailable"), State.QUEUED),
        (400, ses_error("MailFromDomainNotVerifiedException"), State.QUEUED),
        (400, ses_error("MessageRejected"), State.FAILED),
        (502, b"<html><br></html>", State.QUEUED),
    ],
)
def test_the_first_api_of_amazon_ses(api: ScriptedHttps, status: int, body: bytes, state: State) -> None:
    api.script = lambda request: Answer(status, body, {"Content-Type": "text/xml"})
    ids = queue(2, using="ses-v1")
    attempt(ids)
    assert states(ids)[0] == state
    assert stored(ids)[1].attempts == (1 if state == State.FAILED else 0)


def test_the_ids_of_amazon_ses_are_kept(api: ScriptedHttps) -> None:
    (key,) = queue(using="ses-v1")
    attempt([key])
    assert stored([key])[0].reply == "250 accepted by the mail backend: id id-1, request r-1"


def test_an_error_after_the_providers_id_was_read_changes_nothing(api: ScriptedHttps) -> None:
    # django-ses wants the id of the request, too.
    api.script = lambda request: Answer(body={"MessageId": "id-1"})
    (key,) = queue(using="django-ses")
    attempt([key])
    assert (stored([key])[0].state, stored([key])[0].reply) == (
        State.SENT, "250 accepted by the mail backend: id id-1",
    )  # fmt: skip


def test_an_answer_that_cannot_be_read_is_in_doubt(api: ScriptedHttps) -> None:
    api.script = lambda request: Answer(200, b"<html>", {"Content-Type": "text/html"})
    (key,) = queue(using="anymail-mailgun")
    attempt([key])
    assert (stored([key])[0].state, stored([key])[0].crashes) == (State.DEFERRED, 1)


@pytest.mark.parametrize("using", ["anymail-sparkpost", "anymail-mailgun", "anymail-ses"])
def test_recipients_of_all_kinds_are_named_to_the_provider(api: ScriptedHttps, using: str) -> None:
    (key,) = queue(using=using, to=f"Ana <{ANA}>", cc=[EVA], bcc=[RUI])
    attempt([key])
    (request,) = api.requests
    assert stored([key])[0].state == State.SENT
    assert all(address.encode() in request.body or address.replace("@", "%40").encode() in request.body
               for address in (ANA, EVA, RUI))  # fmt: skip


class Reporting(BaseEmailBackend):
    """A backend that reports as Anymail's do; a test says what."""

    statuses: ClassVar[dict[str, str | None]] = {}
    error: ClassVar[Exception | None] = None
    returns: ClassVar[Any] = 1
    seen: ClassVar[list[tuple[list[str], list[str], list[str]]]] = []

    def send_messages(self, email_messages: Any) -> Any:
        from anymail.message import AnymailRecipientStatus, AnymailStatus

        (mail,) = email_messages
        self.seen.append((mail.to, mail.cc, mail.bcc))
        mail.anymail_status = AnymailStatus()
        mail.anymail_status.set_recipient_status(
            {address: AnymailRecipientStatus(f"id-{address}", status) for address, status in self.statuses.items()}
        )
        if self.error is not None:
            raise self.error
        return self.returns


class Coroutine(Reporting):
    """The same, as a backend that is written for asyncio."""

    async def send_messages(self, email_messages: Any) -> Any:
        return super().send_messages(email_messages)


@pytest.fixture
def reporting(settings: Any, published: list[str]) -> type[Reporting]:
    names = {"reporting": "Reporting", "coroutine": "Coroutine"}
    settings.CONGRESSY_MAILER = {
        "TRANSPORTS": {alias: {"BACKEND": f"{__name__}.{name}"} for alias, name in names.items()}
    }
    Reporting.statuses, Reporting.error, Reporting.returns = {}, None, 1
    Reporting.seen.clear()
    return Reporting


def events(key: UUID) -> dict[str, str]:
    return dict(Message.objects.get(pk=key).events.exclude(recipient="").values_list("recipient", "type"))


def test_each_recipient_has_the_result_that_was_reported(reporting: type[Reporting]) -> None:
    reporting.statuses = {ANA: "queued", "EVA@example.com": "rejected", RUI: "failed"}
    (key,) = queue(using="reporting", to=ANA, cc=[EVA], bcc=[RUI])
    attempt([key])
    (message,) = stored([key])
    assert (message.state, message.remaining) == (State.DEFERRED, [RUI])
    assert events(key) == {ANA: "accepted", EVA: "rejected", RUI: "deferred"}
    # The next attempt is for the remaining recipient alone.
    reporting.statuses = {RUI: "sent"}
    Message.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    attempt([key])
    assert reporting.seen == [([ANA], [EVA], [RUI]), ([RUI], [], [])]
    assert stored([key])[0].state == State.SENT


def test_a_report_counts_more_than_an_error_that_came_later(reporting: type[Reporting]) -> None:
    reporting.statuses, reporting.error = {ANA: "queued"}, KeyError("a receiver of post_send")
    (key,) = queue(using="reporting")
    attempt([key])
    assert stored([key])[0].state == State.SENT


@pytest.mark.parametrize("status", ["invalid", "rejected"])
def test_recipients_who_are_all_refused_have_failed(reporting: type[Reporting], status: str) -> None:
    from anymail.exceptions import AnymailRecipientsRefused

    reporting.statuses, reporting.error = {ANA: status}, AnymailRecipientsRefused()
    (key,) = queue(using="reporting")
    attempt([key])
    assert stored([key])[0].state == State.FAILED
    assert status in stored([key])[0].reason


def test_a_recipient_of_whom_nothing_is_said_is_in_doubt(reporting: type[Reporting]) -> None:
    reporting.statuses = {ANA: "queued", EVA: "unknown"}
    (key,) = queue(using="reporting", to=[ANA, EVA, RUI])
    attempt([key])
    (message,) = stored([key])
    assert (message.state, message.crashes, message.remaining) == (State.DEFERRED, 1, [EVA, RUI])


@pytest.mark.parametrize(
    ("returns", "state"),
    [(1, State.SENT), (None, State.SENT), (True, State.SENT), (0, State.DEFERRED), (False, State.DEFERRED)],
)
@pytest.mark.parametrize("using", ["reporting", "coroutine"])
def test_what_a_backend_may_return(reporting: type[Reporting], using: str, returns: Any, state: State) -> None:
    reporting.returns = returns
    (key,) = queue(using=using)
    attempt([key])
    assert (stored([key])[0].state, stored([key])[0].crashes) == (state, 0)


def test_a_default_backend(api: ScriptedHttps, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {}
    mailgun = backends(f"https://{api.host}")["anymail-mailgun"]
    if django.VERSION >= (6, 1):
        settings.MAILERS = {"default": mailgun}
    else:
        settings.EMAIL_BACKEND = mailgun["BACKEND"]
        settings.ANYMAIL = {f"MAILGUN_{name.upper()}": value for name, value in mailgun["OPTIONS"].items()}
    (key,) = queue()
    api.script = answers(503)
    assert "503" in attempt([key])
    assert states([key]) == [State.QUEUED]
    api.script = accepted
    TransportStatus.objects.update(next_try_at=timezone.now())
    attempt([key])
    assert states([key]) == [State.SENT]


def test_what_a_sensitive_mail_met_is_told_by_its_kind(reporting: type[Reporting]) -> None:
    reporting.error = TimeoutError("the link https://example.com/reset and the code 4711 were not taken in time")
    ids = queue(2, using="reporting", sensitive=True)
    reason = attempt(ids)
    assert "no answer" in reason
    assert "TimeoutError" in reason
    for text in (reason, *(message.reason for message in stored(ids))):
        assert "4711" not in text
        assert "reset" not in text

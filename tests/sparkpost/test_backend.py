"""The HTTP backend as any mail backend of Django's, without a worker."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.mail import EmailMultiAlternatives

from congressy_mailer.exceptions import SparkPostError, TransportUnavailable
from congressy_mailer.sparkpost.backend import EmailBackend
from congressy_mailer.transports.selection import transport_for
from congressy_mailer.transports.sparkpost.transport import SparkPostTransport
from tests.support.scripted_https import Answer, ScriptedHttps

KEY = "another-key-of-sparkpost"
ACCEPTED = {"results": {"id": "1", "total_accepted_recipients": 1, "total_rejected_recipients": 0}}


def djangos_mail() -> EmailMultiAlternatives:
    return EmailMultiAlternatives(
        "Olá", "Texto {{x}} çã", "mail@congressy.net", ["ana@example.com"], bcc=["eva@example.com"]
    )


def test_mails_of_django_are_sent(sparkpost_api: ScriptedHttps) -> None:
    sparkpost_api.script = lambda request: Answer(body=ACCEPTED)
    assert EmailBackend(api_key=KEY).send_messages([djangos_mail(), djangos_mail()]) == 2
    request = sparkpost_api.requests[0]
    assert request.headers["Authorization"] == KEY
    first, copy = (recipient["address"] for recipient in request.json["recipients"])
    assert (first, copy) == (
        {"email": "ana@example.com"}, {"email": "eva@example.com", "header_to": "ana@example.com"},
    )  # fmt: skip
    assert "Bcc" not in request.json["content"]["email_rfc822"]


def test_what_is_refused_is_raised_unless_it_is_to_fail_silently(sparkpost_api: ScriptedHttps) -> None:
    sparkpost_api.script = lambda request: Answer(422, {"errors": [{"code": "1300", "message": "invalid data"}]})
    with pytest.raises(SparkPostError, match="invalid data"):
        EmailBackend().send_messages([djangos_mail()])
    assert EmailBackend(fail_silently=True).send_messages([djangos_mail()]) == 0


def test_the_worker_knows_it(sparkpost_api: ScriptedHttps, settings: Any) -> None:
    path = f"{EmailBackend.__module__}.EmailBackend"
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "TRANSPORTS": {"http": {"BACKEND": path}}}
    with transport_for("http") as transport:
        assert isinstance(transport, SparkPostTransport)


def test_without_a_key_it_is_unavailable(settings: Any) -> None:
    path = f"{EmailBackend.__module__}.EmailBackend"
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "TRANSPORTS": {"http": {"BACKEND": path}}}
    with pytest.raises(TransportUnavailable, match="SPARKPOST_API_KEY"), transport_for("http"):
        pass


def test_the_key_shows_itself_nowhere() -> None:
    backend = EmailBackend(api_key=KEY)
    assert KEY not in repr(vars(backend))
    assert KEY not in repr(backend.client())

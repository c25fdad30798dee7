"""Django's mail through the queue and then over the HTTP API of a provider, by the backends of others."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from anymail.message import AnymailMessage
from django.core.mail import EmailMultiAlternatives

from congressy_mailer.models import Message, State
from congressy_mailer.testing import deliver_all
from congressy_mailer.testing.local_sparkpost.certificate import Certificate
from congressy_mailer.testing.local_sparkpost.whole import WholeSparkPost
from tests.support.drop_in import WORLDS, put_in_force
from tests.support.scripted_https import Answer, Request, ScriptedHttps

pytestmark = pytest.mark.django_db


def rich(kind: type[EmailMultiAlternatives], **options: Any) -> EmailMultiAlternatives:
    mail = kind(
        "Inscrição", "Olá, Ana.", "Evento <evento@example.com>", ["Ana <ana@example.com>"], cc=["eva@example.com"],
        bcc=["rui@example.com"], **options,
    )  # fmt: skip
    mail.attach_alternative("<p>Olá, <b>Ana</b>.</p>", "text/html")
    mail.attach("boleto.pdf", b"%PDF-1", "application/pdf")
    return mail


@pytest.mark.parametrize("world", WORLDS)
def test_anymail(
    certificate: Certificate, settings: Any, published: list[str], monkeypatch: pytest.MonkeyPatch, world: str
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.authority))
    with WholeSparkPost(certificate=certificate) as sparkpost:
        options = {"api_key": sparkpost.account.key, "api_url": f"https://{sparkpost.api.address}/api/v1"}
        put_in_force(settings, world, "anymail.backends.sparkpost.EmailBackend", options)
        mail = rich(AnymailMessage, tags=["welcome"], metadata={"order": "7"}, track_clicks=True)
        assert mail.send() == 1
        assert len(sparkpost.mailbox) == 0
        (message,) = deliver_all()
        assert message.state == State.SENT, message.reason
        received = sparkpost.mailbox.wait_for(3)
        assert sorted(one.recipients[0] for one in received) == [
            "ana@example.com",
            "eva@example.com",
            "rui@example.com",
        ]
        first = received[0].message
        assert (first["Subject"], first["From"]) == ("Inscrição", "Evento <evento@example.com>")
        assert first.get_body(("plain",)).get_content().strip() == "Olá, Ana."
        assert first.get_body(("html",)).get_content().strip() == "<p>Olá, <b>Ana</b>.</p>"
        assert [part.get_content() for part in first.iter_attachments()] == [b"%PDF-1"]


def amazon(request: Request) -> Answer:
    body: Any = {"MessageId": "id-1"}
    if request.path.endswith("/account"):
        body = {"SendQuota": {"Max24HourSend": 50_000.0, "MaxSendRate": 100.0, "SentLast24Hours": 0.0}}
    return Answer(body=body, headers={"x-amzn-requestid": "r-1"})


@pytest.mark.parametrize("world", WORLDS)
def test_django_ses(
    certificate: Certificate, settings: Any, published: list[str], monkeypatch: pytest.MonkeyPatch, world: str
) -> None:
    from botocore.config import Config

    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate.authority))
    with ScriptedHttps(certificate) as provider:
        provider.script = amazon
        options = {
            "aws_access_key": "AKIA", "aws_secret_key": "a secret", "aws_region_name": "eu-west-1",
            "aws_region_endpoint": f"https://{provider.host}",
            "aws_config": Config(retries={"total_max_attempts": 1}), "use_ses_v2": True,
        }  # fmt: skip
        put_in_force(settings, world, "django_ses.SESBackend", options, expires_after=timedelta(hours=1))
        assert rich(EmailMultiAlternatives).send() == 1
        wire = bytes(Message.objects.get().mime or b"")
        (message,) = deliver_all()
        assert message.state == State.SENT, message.reason
        assert "id-1" in message.reply
        (request,) = [one for one in provider.requests if one.path.endswith("outbound-emails")]
        assert request.json["Destination"]["ToAddresses"] == message.envelope
        assert base64.b64decode(request.json["Content"]["Raw"]["Data"]) == wire

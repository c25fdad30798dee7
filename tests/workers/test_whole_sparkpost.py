"""All of it: a worker process, SMTP and HTTP to a whole SparkPost, and its events posted to a site that runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.urls import reverse

from congressy_mailer import send_mail
from congressy_mailer.models import DeliveryStatus, Message, State, Suppression
from congressy_mailer.testing.local_sparkpost.events import CLASSES
from congressy_mailer.testing.local_sparkpost.whole import WholeSparkPost
from testbed.processes import Process
from tests.conftest import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]

PASSWORD = "a-long-password-of-the-webhook"
_FOR_THE_WORKER = ("SPARKPOST_HEADER", "SPARKPOST_API_KEY", "SPARKPOST_API_HOST", "TRANSPORTS")


def reader(domain: str) -> str:
    """Somebody who opens what they get."""
    names = (f"leitora-{number}@{domain}" for number in range(100))
    return next(name for name in names if hashlib.sha256(name.encode()).digest()[0] % 2 == 0)


def inside(posted: dict[str, Any]) -> dict[str, Any]:
    """An event without what is around it."""
    event: dict[str, Any]
    (event,) = posted["msys"].values()
    return event


@pytest.fixture
def sparkpost(local_sparkpost: WholeSparkPost, live_server: Any, settings: Any) -> WholeSparkPost:
    """It knows the site's webhook, and the site knows its HTTP API as a mail backend."""
    settings.CONGRESSY_MAILER = {
        **settings.CONGRESSY_MAILER,
        "TRANSPORTS": {"http": {"BACKEND": "congressy_mailer.sparkpost.backend.EmailBackend"}},
        "WEBHOOK_SECRETS": [f"basic sparkpost:{PASSWORD}"],
    }
    local_sparkpost.account.webhooks.create(
        {
            "name": "tests",
            "target": live_server.url + reverse("congressy_mailer:sparkpost-events"),
            "events": list(CLASSES),
            "auth_type": "basic",
            "auth_credentials": {"username": "sparkpost", "password": PASSWORD},
        }
    )
    return local_sparkpost


@pytest.fixture
def worker(sparkpost: WholeSparkPost, start_worker: Callable[..., Process], settings: Any) -> Process:
    """A worker that knows both."""
    options = {name: settings.CONGRESSY_MAILER[name] for name in _FOR_THE_WORKER}
    return start_worker(
        MAILER_TEST_OPTIONS=json.dumps(options),
        MAILER_TEST_SMTP_PORT=str(sparkpost.smtp.port),
        MAILER_TEST_SMTP_PASSWORD=sparkpost.account.key,
        **sparkpost.environment(),
    )


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("using", ["", "http"])
def test_what_becomes_of_a_mail_is_known_and_who_bounced_gets_no_more(sparkpost: WholeSparkPost, using: str) -> None:
    expected = {
        "ana@x.example": DeliveryStatus.DELIVERED,
        reader("x.example"): DeliveryStatus.OPENED,
        "hard-bounce@x.example": DeliveryStatus.BOUNCED,
        "complaint@x.example": DeliveryStatus.COMPLAINED,
    }
    for address in expected:
        tracked = expected[address] is DeliveryStatus.OPENED
        send_mail(
            "Inscrição", "Olá {{x}}", html_message="<p>Olá {{x}}</p>", to=address, using=using, track_opens=tracked
        )

    def known() -> dict[str, str]:
        return {message.to[0]: message.delivery for message in Message.objects.all()}

    wait_for(lambda: known() == expected, what=f"{expected} (now: {known()})")
    # SparkPost's events may be there before the worker has written down what was taken.
    wait_for(lambda: set(Message.objects.values_list("state", "attempts")) == {(State.SENT, 1)})
    injected = [event for event in map(inside, sparkpost.account.events) if event["type"] == "injection"]
    assert {event["recv_method"] for event in injected} == {"rest" if using else "esmtp"}
    for mail in sparkpost.mailbox:
        text = mail.message.get_body(("plain",))
        assert text is not None
        assert text.get_content().strip() == "Olá {{x}}"
    assert Suppression.objects.filter(address="hard-bounce@x.example", source=Suppression.Source.BOUNCE).count() == 2
    again = send_mail("Inscrição", "Olá", to="hard-bounce@x.example", using=using)
    assert isinstance(again, Message)
    assert again.state == State.SUPPRESSED
    assert len(sparkpost.mailbox) == 4

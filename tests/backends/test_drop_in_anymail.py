"""Attributes of django-anymail on mail that Django sends over the queue."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.core.mail import EmailMessage
from django.utils import timezone

from congressy_mailer.models import Message, State
from congressy_mailer.testing import deliver_all
from tests.support.drop_in import SMTP, WORLDS, put_in_force

pytestmark = [pytest.mark.django_db, pytest.mark.email_settings]


@pytest.mark.database
def test_attributes_of_anymail_arrive(settings: Any, published: list[str]) -> None:
    from anymail.message import AnymailMessage

    put_in_force(settings, WORLDS[-1], "anymail.backends.test.EmailBackend", {})
    at = timezone.now() + timedelta(hours=1)
    AnymailMessage(
        "x", "Body", "a@example.com", ["ana@example.com"], tags=["welcome"], metadata={"order": 7}, track_opens=True,
        template_id="t-1", merge_data={"ana@example.com": {"name": "Ana"}}, esp_extra={"sandbox": True}, send_at=at,
        attachments=[("a.pdf", b"%PDF", "application/pdf")],
    ).send()  # fmt: skip
    (delivered,) = deliver_all()
    assert delivered.state == State.SENT, delivered.reason
    (sent,) = mail.outbox
    given = sent.anymail_test_params
    assert given["tags"] == ["welcome"]
    assert given["metadata"] == {"order": 7}
    assert given["track_opens"] is True
    assert given["template_id"] == "t-1"
    assert given["merge_data"] == {"ana@example.com": {"name": "Ana"}}
    assert given["send_at"] == at
    assert given["text_body"] == "Body"
    assert [one.name for one in given["attachments"]] == ["a.pdf"]
    assert "track_clicks" not in given


class TestAttributesOfAnymailForSparkPost:
    @pytest.fixture(autouse=True)
    def smtp(self, settings: Any, published: list[str]) -> None:
        put_in_force(settings, WORLDS[-1], SMTP, {"host": "localhost"})

    def test_they_are_what_send_mail_takes(self) -> None:
        from anymail.message import AnymailMessage

        later = timezone.now() + timedelta(hours=1)
        AnymailMessage(
            "x", "y", "a@example.com", ["ana@example.com"], tags=["welcome"], metadata={"order": "7"},
            track_opens=True, track_clicks=False, send_at=later,
        ).send()  # fmt: skip
        message = Message.objects.get()
        assert (message.campaign, message.tags, message.metadata) == ("welcome", ["welcome"], {"order": "7"})
        assert message.sparkpost == {"options": {"open_tracking": True, "click_tracking": False}}
        assert (message.state, message.send_at) == (State.SCHEDULED, later)

    def test_they_may_be_set_on_any_mail(self) -> None:
        one = EmailMessage("x", "y", "a@example.com", ["ana@example.com"])
        one.tags, one.send_at = ["a", "b"], timezone.now().replace(tzinfo=None)  # type: ignore[attr-defined]
        one.send()
        message = Message.objects.get()
        assert (message.campaign, message.tags) == ("", ["a", "b"])
        assert message.send_at is not None

    def test_what_sparkpost_would_refuse_or_does_not_know_is_logged_and_the_mail_sent(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        one = EmailMessage("x", "y", "a@example.com", ["ana@example.com"])
        one.tags = ["secret"] * 11  # type: ignore[attr-defined]
        one.metadata, one.track_opens = {"order": "7"}, "yes"  # type: ignore[attr-defined]
        one.merge_data, one.send_at = {"ana@example.com": {}}, "tomorrow"  # type: ignore[attr-defined]
        with caplog.at_level(logging.WARNING):
            one.send()
        message = Message.objects.get()
        assert (message.tags, message.metadata, message.send_at) == ([], {"order": "7"}, None)
        assert caplog.messages == [
            "A mail has merge_data set, which django-anymail's backends know and the mail backend behind the queue "
            "does not.",
            "A mail is sent without its tags, which SparkPost would refuse.",
            "A mail is sent without its track_opens, which SparkPost would refuse.",
            "A mail is not scheduled: send_at must be a datetime, not str.",
        ]

    def test_another_providers_backend_reads_them_itself(self, settings: Any) -> None:
        put_in_force(settings, WORLDS[-1], "anymail.backends.test.EmailBackend", {})
        one = EmailMessage("x", "y", "a@example.com", ["ana@example.com"])
        one.tags = ["welcome"]  # type: ignore[attr-defined]
        one.send()
        assert Message.objects.get().tags == []

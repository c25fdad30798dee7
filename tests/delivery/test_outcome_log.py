"""The line that each attempt leaves in the log, and what is not in it."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from congressy_mailer import send_mail
from congressy_mailer.testing import deliver_all, fail_next

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("published")]


@pytest.fixture
def log(settings: Any, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "LOG_OUTCOMES": True}
    caplog.set_level(logging.INFO, "congressy_mailer.outcomes")
    return caplog


def lines(log: pytest.LogCaptureFixture) -> list[Any]:
    return [record for record in log.records if record.name == "congressy_mailer.outcomes"]


def test_nothing_is_written_unless_it_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    send_mail("x", "y", to="ana@example.com")
    deliver_all()
    assert not lines(caplog)


def test_an_accepted_mail_has_a_line_with_its_fields(log: pytest.LogCaptureFixture) -> None:
    message = send_mail("x", "y", to="ana@example.com")
    deliver_all()
    (line,) = lines(log)
    assert line.message_id == str(message.pk)
    assert (line.attempt, line.outcome, line.backend, line.queue) == (1, "accepted", "default", "mailer")
    assert line.duration_ms >= 0
    assert not hasattr(line, "recipients")
    assert "ana@example.com" not in line.getMessage()


def test_a_refusal_is_written_with_the_servers_words_and_without_addresses(log: pytest.LogCaptureFixture) -> None:
    send_mail("x", "y", to="ana@example.com")
    fail_next("452 4.2.2 <ana@example.com>: mailbox full")
    deliver_all()
    (line,) = lines(log)
    assert (line.outcome, line.code) == ("deferred", 452)
    assert "mailbox full" in line.words
    assert "ana@example.com" not in line.getMessage() + line.words


def test_addresses_are_written_where_a_setting_allows_it(log: pytest.LogCaptureFixture, settings: Any) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "LOG_ADDRESSES": True}
    send_mail("x", "y", to="ana@example.com")
    fail_next("550 5.1.1 no ana@example.com here")
    deliver_all()
    (line,) = lines(log)
    assert (line.outcome, line.recipients) == ("failed", ["ana@example.com"])
    assert "ana@example.com" in line.words


def test_what_is_said_of_a_sensitive_mail_is_not_written(log: pytest.LogCaptureFixture) -> None:
    send_mail("x", "y", to="ana@example.com", sensitive=True)
    fail_next("550 5.7.1 code 991122 looks like spam")
    deliver_all()
    (line,) = lines(log)
    assert line.outcome == "failed"
    assert "991122" not in line.getMessage() + line.words


def test_a_handler_that_raises_stops_no_mail(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(record: logging.LogRecord) -> bool:
        raise RuntimeError

    logger = logging.getLogger("congressy_mailer.outcomes")
    logger.addFilter(raises)
    try:
        message = send_mail("x", "y", to="ana@example.com")
        deliver_all()
    finally:
        logger.removeFilter(raises)
    message.refresh_from_db()
    assert message.state == "sent"

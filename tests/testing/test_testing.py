"""What the package offers to a host's tests."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.core.mail import EmailMultiAlternatives
from django.utils import timezone

from congressy_mailer import send_bulk, send_mail
from congressy_mailer.models import Message, State
from congressy_mailer.suppressions import is_suppressed
from congressy_mailer.testing import (
    AttachedFile,
    OutboxMail,
    assert_mail,
    assert_no_mail,
    deliver_all,
    delivering,
    drop_in,
    fail_next,
    outbox,
    simulate,
)
from congressy_mailer.testing.local_sparkpost.whole import WholeSparkPost
from congressy_mailer.testing.pytest_plugin import mailer_drop_in, mailer_outbox, mailer_sparkpost

__all__ = ["mailer_drop_in", "mailer_outbox", "mailer_sparkpost"]

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_broker(published: list[str]) -> None:
    """Nothing here needs one."""


def of_another_app() -> None:
    other = EmailMultiAlternatives("Reset", "https://example.com/reset/1.", "site@example.com", ["leo@example.com"])
    other.attach_alternative('<a href="https://example.com/reset/1?a=1&amp;b=2">Reset</a>', "text/html")
    other.attach("a.txt", "ção", "text/plain")
    other.send()


def test_the_outbox_has_ours_and_others_of_one_type() -> None:
    send_mail("Olá", "Oi, https://example.com/a.", to="Ana <ana@example.com>", attachments=[("b.pdf", b"%PDF")])
    of_another_app()
    ours, theirs = outbox()
    assert (ours.state, ours.subject, ours.text, ours.html) == ("queued", "Olá", "Oi, https://example.com/a.", "")
    assert (ours.to, ours.recipients) == (["Ana <ana@example.com>"], ["ana@example.com"])
    assert ours.links == ["https://example.com/a"]
    assert ours.attachments == [AttachedFile("b.pdf", b"%PDF", "application/pdf")]
    assert (theirs.state, theirs.subject, theirs.message) == ("collected", "Reset", None)
    assert theirs.links == ["https://example.com/reset/1?a=1&b=2", "https://example.com/reset/1"]
    assert [(one.filename, one.content.decode().rstrip()) for one in theirs.attachments] == [("a.txt", "ção")]
    deliver_all()
    # One that was delivered is there once, and as it was, also where its content is dropped by then.
    assert [one.state for one in outbox()] == ["sent", "collected"]


def test_a_delivered_mail_whose_content_is_dropped_is_seen_as_it_was() -> None:
    send_mail("Code", "991122", to="ana@example.com", sensitive=True)
    deliver_all()
    assert assert_mail(to="ana@example.com").text == "991122"


def test_a_mail_is_found_by_what_is_said_of_it() -> None:
    send_mail("Paid", to=["ana@example.com", "eva@example.com"], template="mail/hello", context={"name": "Ana"})
    found = assert_mail(
        to=["ANA@example.com", "eva@example.com"], subject=re.compile("^P"), contains=["mundo"], template="mail/hello",
        context={"name": "Ana"},
    )  # fmt: skip
    assert isinstance(found, OutboxMail)
    assert found.message == Message.objects.get()
    assert_no_mail(to="leo@example.com")
    assert_no_mail(context={"name": "Eva"})


def test_a_failure_lists_what_there_is_and_what_is_wrong_with_it() -> None:
    with pytest.raises(AssertionError, match=r"1 mail\(s\) of any kind expected, 0 found.\nThere is none."):
        assert_mail()
    send_mail("Paid", "Oi.", to="ana@example.com")
    of_another_app()
    with pytest.raises(AssertionError) as raised:
        assert_mail(to="ana@example.com", subject="Received")
    assert str(raised.value).splitlines() == [
        "1 mail(s) with to='ana@example.com', subject='Received' expected, 0 found.",
        "What there is (2):",
        "  queued: 'Paid' to ana@example.com  (not: subject)",
        "  collected: 'Reset' to leo@example.com  (not: to, subject)",
    ]
    with pytest.raises(AssertionError, match="No mail of any kind expected, 2 found"):
        assert_no_mail()
    with pytest.raises(AssertionError, match="2 found"):
        assert_mail()


def test_mails_of_a_batch_are_seen_one_by_one() -> None:
    send_bulk(template="mail/hello", subject="Oi", recipients=[("a@example.com", {"name": "A"}), "b@example.com"],
              context={"name": "?"})  # fmt: skip
    assert assert_mail(to="a@example.com").context["name"] == "A"
    assert assert_mail(to="b@example.com").context["name"] == "?"
    assert {one.state for one in deliver_all()} == {State.SENT}


def test_what_waits_for_its_time_is_delivered_within_it() -> None:
    send_mail("Later", "y", to="ana@example.com", send_at=timezone.now() + timedelta(hours=2))
    assert deliver_all() == []
    assert deliver_all(within=timedelta(hours=1)) == []
    assert [one.state for one in deliver_all(within=timedelta(hours=3))] == [State.SENT]


def test_a_refusal_is_placed_before_the_next_mail() -> None:
    fail_next("550 5.1.1 No such user")
    first = send_mail("x", "y", to="ana@example.com")
    second = send_mail("x", "y", to="eva@example.com")
    assert [one.state for one in deliver_all()] == [State.FAILED, State.SENT]
    first.refresh_from_db()
    assert "550 5.1.1 No such user" in first.reason
    second.refresh_from_db()
    assert second.state == State.SENT
    with pytest.raises(ValueError, match="is no refusal"):
        fail_next("250 Fine")


def test_a_temporary_refusal_is_tried_again_in_time() -> None:
    fail_next("451 4.7.1 Try later", times=2)
    send_mail("x", "y", to="ana@example.com")
    assert [one.state for one in deliver_all()] == [State.DEFERRED]
    (message,) = deliver_all(within=timedelta(hours=1))
    assert (message.state, message.attempts) == (State.SENT, 3)


def test_time_passes_from_one_moment_at_which_something_is_due_to_the_next() -> None:
    begin = timezone.now()
    in_an_hour = begin + timedelta(hours=1)
    fail_next("451 4.7.1 Try later", times=2)
    send_mail("x", "y", to="ana@example.com")
    send_bulk(["eva@example.com"], subject="Later", message="y", send_at=in_an_hour)
    retried, scheduled = deliver_all(within=timedelta(hours=2))
    assert (retried.state, retried.attempts, scheduled.state) == (State.SENT, 3, State.SENT)
    assert retried.sent_at is not None
    assert scheduled.sent_at is not None
    assert begin < retried.sent_at < in_an_hour <= scheduled.sent_at < begin + timedelta(hours=2)
    # And back: the next mail is of this very moment.
    assert timezone.now() - begin < timedelta(hours=1)


def test_what_is_refused_again_and_again_is_tried_as_often_as_its_waits_allow() -> None:
    fail_next("451 4.7.1 Try later", times=500)
    send_mail("x", "y", to="ana@example.com")
    (message,) = deliver_all(within=timedelta(hours=1))
    assert message.state == State.DEFERRED
    assert 2 < message.attempts < 20
    (message,) = deliver_all(within=timedelta(days=30))
    assert message.state == State.FAILED


def test_what_expires_meanwhile_is_not_sent() -> None:
    now = timezone.now()
    fail_next("451 4.7.1 Try later", times=50)
    send_mail("x", "y", to="ana@example.com", expires_at=now + timedelta(minutes=30))
    (message,) = deliver_all(within=timedelta(hours=5))
    assert message.state == State.EXPIRED
    assert message.finished_at is not None
    assert message.finished_at - now < timedelta(minutes=31)


def test_what_is_due_by_now_is_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    now = timezone.now
    send_mail("Later", "y", to="ana@example.com", send_at=now() + timedelta(hours=2))
    monkeypatch.setattr(timezone, "now", lambda: now() + timedelta(hours=3))
    assert [one.state for one in deliver_all()] == [State.SENT]


def test_a_refusal_is_no_other_tests() -> None:
    fail_next("550 5.1.1 No such user")
    # As each test has one of its own.
    mail.outbox = []
    send_mail("x", "y", to="ana@example.com")
    assert [one.state for one in deliver_all()] == [State.SENT]


def test_events_of_sparkpost_come_as_if_to_the_webhook() -> None:
    send_mail("x", "y", to=["ana@example.com", "eva@example.com"])
    deliver_all()
    sent = assert_mail()
    simulate("delivery", sent)
    simulate("open", sent)
    simulate("bounce", sent, "eva@example.com", raw_reason="550 gone")
    assert is_suppressed("eva@example.com")
    assert not is_suppressed("ana@example.com")
    assert sent.message is not None
    assert sent.message.delivery == "bounced"
    assert {one.detail for one in sent.message.statuses.all()} >= {"550 gone"}
    with pytest.raises(ValueError, match="'vanish' is not one of 'delivery'"):
        simulate("vanish", sent)


def test_however_many_moments_mail_is_scheduled_for_all_of_them_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivering, "_MOST_MOMENTS", 2)
    for minutes in range(1, 7):
        send_mail("x", "y", to="ana@example.com", send_at=timezone.now() + timedelta(minutes=minutes))
    assert len(deliver_all(within=timedelta(hours=1))) == 6


def test_a_mail_that_is_due_again_and_again_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivering, "_MOST_MOMENTS", 2)
    message = send_mail("x", "y", to="ana@example.com")
    fail_next("451 later", times=20)
    with pytest.raises(RuntimeError, match=f"still due after 2 moments within 3 days.*{message.pk}.*451 later"):
        deliver_all(within=timedelta(days=3))


def test_what_django_sends_is_queued_within_drop_in() -> None:
    with drop_in(sensitive=False):
        of_another_app()
        assert mail.outbox == []
        found = assert_mail(subject="Reset", contains="/reset/1")
        assert found.state == "queued"
        assert [one.filename for one in found.attachments] == ["a.txt"]
        assert [one.state for one in deliver_all()] == [State.SENT]
        assert len(outbox()) == 1
    assert [one.to for one in mail.outbox] == [["leo@example.com"]]
    of_another_app()
    assert len(mail.outbox) == 2


@pytest.mark.email_settings
def test_drop_in_warns_of_no_setting_of_the_hosts() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with drop_in():
            pass
    assert [str(warning.message) for warning in caught] == []


def test_the_fixtures_of_pytest(mailer_outbox: Callable[[], Any], mailer_drop_in: None) -> None:
    of_another_app()
    assert [one.state for one in mailer_outbox()] == ["queued"]


def test_a_sparkpost_of_the_tests_own(mailer_sparkpost: WholeSparkPost) -> None:
    assert mailer_sparkpost.smtp.port
    assert mailer_sparkpost.api.address

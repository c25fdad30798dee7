"""INTERCEPTORS, and the signals that tell what became of a message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core import mail
from django.core.mail import EmailMessage
from django.db.models import Model

from congressy_mailer import outbox, send_bulk, send_mail, signals
from congressy_mailer.delivery.intercepting import InterceptedMail
from congressy_mailer.exceptions import Withhold
from congressy_mailer.models import Message, State
from congressy_mailer.outbox.recovery import recover
from congressy_mailer.testing import deliver_all, drop_in, fail_next
from tests.support.drop_in import Signed
from tests.support.mails import deliver_slice

pytestmark = pytest.mark.django_db

seen: list[InterceptedMail] = []


def note(one: InterceptedMail) -> None:
    seen.append(one)
    one.headers["X-Seen"] = one.headers.get("X-Seen", "") + "x"


def withhold(one: InterceptedMail) -> None:
    raise Withhold(f"Not to {one.recipients[0]}.")


def fail(one: InterceptedMail) -> None:
    raise KeyError("secret")


def set_nonsense(one: InterceptedMail) -> None:
    one.headers["To"] = "eva@example.com"


@pytest.fixture(autouse=True)
def _quiet(published: list[str]) -> None:
    seen.clear()


@pytest.fixture
def intercept(settings: Any) -> Callable[..., None]:
    def by(*functions: Callable[[InterceptedMail], None]) -> None:
        paths = [f"{__name__}.{function.__name__}" for function in functions]
        settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "INTERCEPTORS": paths}

    return by


def test_each_mail_is_seen_once_and_its_headers_may_be_changed(intercept: Callable[..., None]) -> None:
    intercept(note, note)
    message = send_mail("Olá", "Oi.", html_message="<p>Oi</p>", to=["Ana <ana@example.com>"], bcc=["eva@example.com"])
    deliver_all()
    assert [one.message for one in seen] == [message, message]
    assert (seen[0].subject, seen[0].text, seen[0].html) == ("Olá", "Oi.", "<p>Oi</p>")
    assert seen[0].recipients == ["ana@example.com", "eva@example.com"]
    (sent,) = mail.outbox
    assert sent.message()["X-Seen"] == "xx"


def test_mail_of_batches_and_of_other_apps_is_seen_too(intercept: Callable[..., None]) -> None:
    intercept(note)
    batch = send_bulk(subject="Olá", message="Oi.", recipients=["a@example.com", "b@example.com"])
    deliver_slice(batch)
    with drop_in():
        Signed("Signed", "", "a@example.com", ["ana@example.com"]).send()
        wire = bytes(Message.objects.latest("id").mime or b"")
        deliver_all()
    assert [one.recipients[0] for one in seen] == ["a@example.com", "b@example.com", "ana@example.com"]
    # What is signed is as it was.
    assert mail.outbox[-1].wire == b"X-Seen: x\r\n" + wire


@pytest.mark.database
def test_a_withheld_mail_is_held_until_a_person_releases_it(intercept: Callable[..., None]) -> None:
    intercept(withhold, note)
    message = send_mail("Olá", "Oi.", to="ana@example.com", sensitive=True)
    (held,) = deliver_all()
    assert (held.state, held.reason) == (State.HELD, "Not to ana@example.com.")
    assert mail.outbox == []
    held.retry()
    (sent,) = deliver_all()
    assert (sent.id, sent.state) == (message.id, State.SENT)
    # The others are still asked.
    assert len(seen) == 1


def test_a_retry_before_it_was_withheld_releases_nothing(intercept: Callable[..., None]) -> None:
    send_mail("Olá", "Oi.", to="ana@example.com")
    fail_next("550 No")
    (failed,) = deliver_all()
    intercept(withhold)
    failed.retry()
    assert [one.state for one in deliver_all()] == [State.HELD]


@pytest.mark.parametrize("function", [fail, set_nonsense])
def test_a_mail_whose_interceptor_fails_waits(intercept: Callable[..., None], function: Any) -> None:
    intercept(function)
    send_mail("Olá", "Oi.", to="ana@example.com")
    (message,) = deliver_all()
    assert message.state == State.DEFERRED
    assert "nterceptor" in message.reason
    assert mail.outbox == []


def test_an_interceptor_that_does_not_exist_has_mail_wait(settings: Any) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "INTERCEPTORS": ["nowhere.look"]}
    send_mail("Olá", "Oi.", to="ana@example.com")
    assert [one.state for one in deliver_all()] == [State.DEFERRED]


# Signals

NAMES = ("queued", "sent", "deferred", "failed", "held")


@pytest.fixture
def told() -> Iterator[list[tuple[str, Any, str]]]:
    """What signals have told: name, key of the message, and the state that the row had by then."""
    found: list[tuple[str, Any, str]] = []

    def receiver_for(name: str) -> Any:
        def receive(sender: type[Model], message: Message, **kwargs: Any) -> None:
            found.append((name, message.pk, Message.objects.get(pk=message.pk).state))
            raise ZeroDivisionError

        return receive

    receivers = {name: receiver_for(name) for name in NAMES}
    for name, receiver in receivers.items():
        getattr(signals, name).connect(receiver, sender=Message)
    yield found
    for name, receiver in receivers.items():
        getattr(signals, name).disconnect(receiver, sender=Message)


def test_what_becomes_of_messages_is_told_once_and_after_it_is_recorded(
    told: list[tuple[str, Any, str]], django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        first = send_mail("x", "y", to="ana@example.com")
        with drop_in():
            EmailMessage("x", "y", "a@example.com", ["eva@example.com"]).send()
        assert told == []
    second = Message.objects.latest("id")
    assert told == [("queued", first.pk, "queued"), ("queued", second.pk, "queued")]
    told.clear()
    fail_next("451 Later")
    deliver_all()
    # What was simply accepted may be recorded a moment later, together with others.
    assert sorted(told) == sorted([("deferred", first.pk, "deferred"), ("sent", second.pk, "sent")])


@pytest.mark.database
def test_failures_and_what_is_held_are_told(told: list[tuple[str, Any, str]], intercept: Callable[..., None]) -> None:
    rejected = send_mail("x", "y", to="ana@example.com")
    fail_next("550 No")
    deliver_all()
    broken = send_mail("x", "y", to="ana@example.com")
    Message.objects.filter(pk=broken.pk).update(from_email="no address", headers={"Bad\nName": "x"})
    deliver_all()
    intercept(withhold)
    withheld = send_mail("x", "y", to="ana@example.com")
    deliver_all()
    died = send_mail("x", "y", to="ana@example.com")
    Message.objects.filter(pk=died.pk).update(state=State.SENDING, token="gone", crashes=2)
    recover(Message.objects.using(outbox.database()).filter(pk=died.pk))
    assert told == [
        ("failed", rejected.pk, "failed"),
        ("failed", broken.pk, "failed"),
        ("held", withheld.pk, "held"),
        ("held", died.pk, "held"),
    ]

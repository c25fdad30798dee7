"""Servers that relay for nobody who has not logged in: is it the mail's fault, or does all mail wait for a login?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

import pytest
from django.test import override_settings
from django.utils import timezone

from congressy_mailer.delivery import missing_login
from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.models import Message, State, TransportStatus
from tests.support.mails import deliver, queue, states
from tests.support.scripted_smtp import YES, ScriptedServer, Step, serving
from tests.support.transports import SMTP

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("published")]


@contextmanager
def serving_without_login(steps: Sequence[Step]) -> Iterator[ScriptedServer]:
    """A server to which the alias ``plain`` leads, without user name and password."""
    with serving(steps) as server:
        login = {"username": "", "password": ""}
        options = {"host": "127.0.0.1", "port": server.port, "use_tls": False, "timeout": 5, **login}
        with override_settings(CONGRESSY_MAILER={"TRANSPORTS": {"plain": {"BACKEND": SMTP, "OPTIONS": options}}}):
            yield server


def queue_for(*recipients: str, sensitive: bool = False) -> list[UUID]:
    return [key for to in recipients for key in queue(to=to, using="plain", sensitive=sensitive)]


NO_DATA = Step("503 5.5.1 need RCPT")


@pytest.fixture(autouse=True)
def _worker_has_just_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missing_login, "_STARTED", timezone.now())


@pytest.mark.parametrize(
    ("refusal", "recipients"),
    [
        ("554 5.7.1 <x>: Relay access denied", ["ana@example.com"]),
        ("550 relay not permitted", ["ana@example.com"]),
        ("550 5.7.1 Relaying denied. Proper authentication required.", ["ana@example.com", "eva@example.net"]),
        ("550 Invalid recipient", ["ana@example.com", "eva@example.net", "rui@example.org"]),
    ],
)
@pytest.mark.parametrize("sensitive", [False, True])
def test_a_server_that_relays_for_nobody_without_login_holds_the_mail(
    refusal: str, recipients: list[str], sensitive: bool
) -> None:
    script = [YES, Step(refusal), NO_DATA] * len(recipients)
    with serving_without_login(script):
        ids = queue_for(*recipients, sensitive=sensitive)
        with pytest.raises(TransportUnavailable):
            deliver(ids)
    assert states(ids) == [State.QUEUED] * len(recipients)
    assert [message.attempts for message in Message.objects.all()] == [0] * len(recipients)
    reason = TransportStatus.objects.get().reason
    assert reason.startswith("The mail server refuses")
    assert (refusal in reason) is not sensitive


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_server_that_takes_one_mail_refuses_the_others_for_good(taken: int) -> None:
    refused = [YES, Step("554 5.7.1 <x>: Relay access denied"), NO_DATA]
    # Behind one that was refused goes a RSET.
    script = [
        step
        for number in range(3)
        for step in [YES] * (number > 0 and number - 1 != taken) + ([YES] * 4 if number == taken else refused)
    ]
    with serving_without_login(script) as server:
        ids = queue_for("ana@example.com", "eva@example.com", "rui@example.com")
        deliver(ids)
        # Also in a later slice.
        server.follow([YES] * (taken < 2) + refused)
        later = queue_for("ivo@example.com")
        deliver(later)
    expected = [State.FAILED] * 3
    expected[taken] = State.SENT
    assert states(ids) == expected
    assert states(later) == [State.FAILED]
    assert not TransportStatus.objects.exists()


def test_a_recipient_who_does_not_exist_is_refused_for_good_also_without_login() -> None:
    with serving_without_login([YES, Step("550 5.1.1 no such user"), NO_DATA]):
        ids = queue_for("ana@example.com")
        deliver(ids)
    assert states(ids) == [State.FAILED]

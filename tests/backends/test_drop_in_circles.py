"""A queue whose backend gives mail back to it."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

from congressy_mailer import exceptions
from congressy_mailer.models import Message, State
from congressy_mailer.testing import deliver_all
from tests.support.drop_in import QUEUE, WORLDS, open_default, put_in_force, rich_mail

pytestmark = [pytest.mark.django_db, pytest.mark.email_settings]


class Wrapping(BaseEmailBackend):
    """A backend that gives its mail to the default one, which is the queue."""

    def send_messages(self, email_messages: Any) -> int:
        return sum(self.again(one) for one in email_messages)

    def again(self, one: EmailMessage) -> int:
        return open_default().send_messages([one])


class Copying(Wrapping):
    """The same with a copy, which has a Message-ID of its own."""

    def again(self, one: EmailMessage) -> int:
        return super().again(EmailMessage(one.subject, one.body, one.from_email, one.to))


def test_a_backend_that_gives_mail_back_to_the_queue_is_unavailable(settings: Any, published: list[str]) -> None:
    put_in_force(settings, WORLDS[-1], f"{__name__}.Wrapping", {})
    rich_mail().send()
    with pytest.raises(exceptions.TransportUnavailable, match="gives its mail back to the queue"):
        deliver_all()
    row = Message.objects.get()
    assert (row.state, row.crashes, row.attempts) == (State.QUEUED, 0, 0)


def test_a_backend_that_queues_copies_ends_after_a_few(settings: Any, published: list[str]) -> None:
    put_in_force(settings, WORLDS[-1], f"{__name__}.Copying", {})
    rich_mail().send()
    for _ in range(2):
        deliver_all()
    with pytest.raises(exceptions.TransportUnavailable, match="gives its mail back to the queue"):
        deliver_all()
    assert Message.objects.count() == 3


@pytest.mark.parametrize("world", WORLDS)
def test_a_queue_behind_a_queue_is_no_backend(settings: Any, published: list[str], world: str) -> None:
    put_in_force(settings, world, QUEUE, {"using": "behind"})
    rich_mail().send()
    with pytest.raises(exceptions.TransportUnavailable, match="which queues it again"):
        deliver_all()

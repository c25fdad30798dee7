"""For a host's tests: deliver what a test has queued, in this process, without broker or worker.

``transaction.on_commit`` does not run inside Django's ``TestCase``, so there mail stays queued until the test says::

    from congressy_mailer.testing import deliver_all

    def test_confirmation(self):
        self.client.post("/register/", {...})
        deliver_all()
        self.assertEqual(mail.outbox[0].subject, "Inscrição confirmada")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..models import Message


def deliver_all() -> list[Message]:
    """Deliver every message that is queued, through the mail backend in force.

    Returns:
        Those messages as they are afterwards, oldest first.

    Raises:
        TransportUnavailable: the mail backend cannot be used.
    """
    # The local SparkPost lies in this package, and is started without Django.
    from .. import outbox
    from ..delivery.slice import Delivery
    from ..models import Message, State

    messages = Message.objects.using(outbox.database())
    queued = list(messages.filter(state=State.QUEUED).order_by("id").values_list("id", flat=True))
    unfinished = queued
    while unfinished:
        unfinished = Delivery(outbox.new_claim_token("test")).run(unfinished, redelivered=False).unfinished
    return list(messages.filter(id__in=queued).order_by("id"))

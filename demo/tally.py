"""What became of every mail: the outbox and the mail server, compared mail for mail."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from congressy_mailer.mime.addresses import bare_address
from congressy_mailer.models import Message, State
from congressy_mailer.testing.local_sparkpost.mailbox import count_copies, read_mailbox


@dataclass(frozen=True)
class Tally:
    """The numbers of the last line. A mail counts once for each recipient; in the demo, each has one."""

    #: In the outbox, and to be sent.
    queued: int
    #: Seen by the mail server.
    delivered: int
    #: Failed according to the outbox, and never seen by the mail server.
    failed: int
    #: Neither.
    lost: int
    #: Seen by the mail server more than once, or without being in the outbox; every copy too many counts.
    duplicated: int

    def __str__(self) -> str:
        return (
            f"queued={self.queued} delivered={self.delivered} failed={self.failed} "
            f"lost={self.lost} duplicated={self.duplicated}"
        )


def take_tally(mails: Path) -> Tally:
    """Compare the outbox with what the mail server has stored in a folder, by ``Message-ID`` and recipient."""
    seen = count_copies(read_mailbox(mails))
    queued: set[tuple[str, str]] = set()
    failed: set[tuple[str, str]] = set()
    for message in Message.objects.only("message_id", "state", "to", "cc", "bcc"):
        if message.state == State.SUPPRESSED:
            # Nobody was to get it.
            continue
        pairs = {(message.message_id, bare_address(recipient)) for recipient in message.recipients}
        queued |= pairs
        if message.state == State.FAILED:
            failed |= pairs - seen.keys()
    delivered = queued & seen.keys()
    return Tally(
        queued=len(queued),
        delivered=len(delivered),
        failed=len(failed),
        lost=len(queued - delivered - failed),
        duplicated=seen.total() - len(delivered),
    )


def states() -> Counter[str]:
    """How many messages are in each state."""
    return Counter(Message.objects.values_list("state", flat=True))

"""What every transport takes and gives: composed mails in, one outcome for each out, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from ..content.mime import OutgoingMail
from ..retry import Reply


@dataclass(frozen=True, slots=True)
class Composed:
    """A mail on its way into a transport."""

    #: Key of the message, handed back with the outcome.
    key: UUID
    #: The mail with its envelope.
    mail: OutgoingMail


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one mail, recipient by recipient: every envelope recipient is in exactly one of the three."""

    #: Key of the message.
    key: UUID
    #: Recipients that the server took the mail for.
    accepted: tuple[str, ...] = ()
    #: Recipients to be tried again, with the reason.
    deferred: Mapping[str, Reply] = field(default_factory=dict)
    #: Recipients never to be tried again, with the reason.
    rejected: Mapping[str, Reply] = field(default_factory=dict)
    #: The server's last word about the mail as a whole.
    reply: Reply = field(default_factory=lambda: Reply(None, ""))
    #: The account may not send for the sender's domain: the fault of the configuration, and no mail's attempt. The
    #: recipients are in none of the three.
    sender_refused: bool = False
    #: The server may have taken the mail although no reply said so.
    in_doubt: bool = False


class Transport(Protocol):
    """Hands mails over."""

    def deliver(self, mails: Iterable[Composed]) -> Iterator[Outcome]:
        """Take mails as they are composed and yield one outcome for each, in the same order.

        A mail is pulled only when the transport can begin with it. What has no outcome when
        :class:`~congressy_mailer.exceptions.TransportUnavailable` is raised was not sent.

        Raises:
            TransportUnavailable: the server cannot be used now, through no fault of any mail.
        """
        ...

    def close(self) -> None:
        """Give up the connection, politely where possible. Never raises."""
        ...

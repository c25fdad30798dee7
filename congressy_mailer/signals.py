"""Django signals. Receivers run in the worker; those of ``queued`` run in the process that stored the message.
Exceptions of a receiver are logged; they stop neither the delivery nor other receivers.

.. data:: transport_unavailable

   A mail backend has become unavailable; its mail stays queued. Sent once for each outage. Arguments: ``using`` (alias,
   empty for the default one), ``sender_domain`` (if not empty, only mail from this domain is refused), ``reason`` (text
   for people).

.. data:: transport_available

   A mail backend is available again. Arguments: ``using``, ``sender_domain``, and ``unavailable_for`` (``timedelta``).

.. data:: queued

   A message was stored and will be sent, now or at its ``send_at``. The signal is sent after the commit, in the process
   that stored the message, and not for messages of a batch. The sender of this signal and the next four is
   :class:`~congressy_mailer.models.Message`. Argument: ``message``.

.. data:: sent

   A mail server has accepted a message for at least one recipient. Argument: ``message``, whose ``state`` is set; call
   ``refresh_from_db()`` for its other fields.

.. data:: deferred

   A message was refused temporarily, or cannot be composed yet, and is tried again. Argument: ``message``.

.. data:: failed

   A message was refused permanently, cannot be composed, or was given up. Argument: ``message``.

.. data:: held

   A message was set aside for a person to decide, because an interceptor withheld it, its workers died, or its outcome
   is in doubt. Argument: ``message``.

.. data:: tracked

   SparkPost has reported an event of a mail; sent once for each event. The sender is
   :class:`~congressy_mailer.models.Event`. Argument: ``event``, a :class:`TrackedEvent`.

.. data:: address_suppressed

   An address was added to the suppression list, so that mail to it is stopped; not sent for a further reason that stops
   the same mail. The sender is :class:`~congressy_mailer.models.Suppression`. Arguments: ``address``, ``scope`` and
   ``source`` (as in :class:`~congressy_mailer.models.Suppression`), ``list_id`` (empty unless the scope is one list),
   ``reason`` (text for people).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.dispatch import Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedEvent:
    """An event of a mail that SparkPost has reported."""

    #: A value of :class:`congressy_mailer.models.Event.Type`.
    type: str
    #: SparkPost's own name of it, such as ``out_of_band``.
    sparkpost_type: str
    #: Key of the message; ``None`` if it was sent by another system, or has been purged.
    message: UUID | None
    #: Address of the recipient, as SparkPost writes it.
    recipient: str
    #: When it happened.
    at: datetime
    #: SparkPost's class of a bounce and its category; ``None`` and empty for other events.
    bounce_class: int | None = None
    bounce_category: str = ""
    #: The reply of the recipient's server; empty if the message is sensitive.
    reason: str = ""
    #: The link that was followed; empty if the message is sensitive.
    url: str = ""
    #: Campaign, tags and metadata of the mail.
    campaign: str = ""
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


queued = Signal()
sent = Signal()
deferred = Signal()
failed = Signal()
held = Signal()
transport_unavailable = Signal()
transport_available = Signal()
tracked = Signal()
address_suppressed = Signal()
